//! `jlog_file_*`: files that the threads of a process share, each opened only once.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// An open file. C programs know only its address.
pub struct jlog_file {
    id: Id,
    file: File,
    /// Whether locks exclude other processes as well.
    multi_process: bool,
    locked: Mutex<bool>,
    unlocked: Condvar,
}

/// Device and inode.
type Id = (u64, u64);

/// The address of an open file, and how often it was opened.
struct Shared {
    address: usize,
    users: usize,
}

static OPEN: Mutex<Option<HashMap<Id, Shared>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data that it guards is never left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a regular file, or returns the one that is already open.
pub(crate) fn open(path: &Path, flags: c_int, mode: u32, multi_process: bool) -> io::Result<*mut jlog_file> {
    let mut open = lock(&OPEN);
    let open = open.get_or_insert_default();
    let exclusive = flags & libc::O_EXCL != 0;
    // A file that is already open is not opened again, so only a new file can fail for lack of
    // descriptors.
    match std::fs::metadata(path) {
        Ok(facts) if !facts.is_file() => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        Ok(facts) => {
            if let Some(shared) = open.get_mut(&(facts.dev(), facts.ino())) {
                if exclusive {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                shared.users += 1;
                return Ok(shared.address as *mut jlog_file);
            }
        }
        Err(_) => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(mode)
        .custom_flags(flags & (libc::O_CREAT | libc::O_EXCL) | libc::O_NONBLOCK)
        .open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let id = (facts.dev(), facts.ino());
    if let Some(shared) = open.get_mut(&id) {
        shared.users += 1;
        return Ok(shared.address as *mut jlog_file);
    }
    let file = jlog_file { id, file, multi_process, locked: Mutex::new(false), unlocked: Condvar::new() };
    let address = Box::into_raw(Box::new(file));
    open.insert(id, Shared { address: address as usize, users: 1 });
    Ok(address)
}

/// Closes a file; the last close frees it.
///
/// # Safety
/// `file` came from [`open`], and its opener does not use it afterwards.
pub(crate) unsafe fn close(file: *mut jlog_file) {
    let mut open = lock(&OPEN);
    let Some(open) = open.as_mut() else { return };
    // SAFETY: it is open, as promised.
    let id = unsafe { &*file }.id;
    let Some(shared) = open.get_mut(&id) else { return };
    shared.users -= 1;
    if shared.users == 0 {
        open.remove(&id);
        // SAFETY: it was made by `Box::into_raw`, and nothing refers to it any more.
        drop(unsafe { Box::from_raw(file) });
    }
}

impl jlog_file {
    /// Locks or unlocks the whole file against other processes.
    fn set_lock(&self, kind: c_int) -> io::Result<()> {
        let request = libc::flock {
            l_type: i16::try_from(kind).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            // SAFETY: the descriptor is open, and the request has the type that this command
            // expects.
            if unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLKW, &raw const request) } == 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
    }

    fn lock(&self) -> io::Result<()> {
        let mut locked = lock(&self.locked);
        while *locked {
            locked = self.unlocked.wait(locked).unwrap_or_else(PoisonError::into_inner);
        }
        *locked = true;
        drop(locked);
        if self.multi_process
            && let Err(e) = self.set_lock(libc::F_WRLCK)
        {
            self.give_back();
            return Err(e);
        }
        Ok(())
    }

    fn unlock(&self) -> io::Result<()> {
        if !*lock(&self.locked) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        if self.multi_process {
            self.set_lock(libc::F_UNLCK)?;
        }
        self.give_back();
        Ok(())
    }

    fn give_back(&self) {
        *lock(&self.locked) = false;
        self.unlocked.notify_one();
    }

    fn sync(&self) -> io::Result<()> {
        // An interrupted sync has reported nothing: the next one reports a failed write.
        loop {
            match self.file.sync_data() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn map(&self, protection: c_int) -> io::Result<(*mut c_void, usize)> {
        let len = usize::try_from(self.file.metadata()?.len()).unwrap_or(usize::MAX);
        // SAFETY: a new map, at an address that the system chooses.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, self.file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok((base, len)) }
    }
}

/// Runs an operation on a file; 1 or 0, with errno set.
///
/// # Safety
/// `file` is NULL or open.
unsafe fn on(file: *mut jlog_file, work: impl FnOnce(&jlog_file) -> io::Result<()>) -> c_int {
    // SAFETY: as promised.
    let outcome = match unsafe { file.as_ref() } {
        Some(file) => work(file),
        None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    match outcome {
        Ok(()) => 1,
        Err(e) => {
            set_errno(&e);
            0
        }
    }
}

fn set_errno(error: &io::Error) {
    // SAFETY: the location of this thread's errno is always good.
    unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EIO) };
}

fn offset_of(offset: libc::off_t) -> io::Result<u64> {
    u64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Opens a regular file for reading and writing, or returns the handle of a file that is already
/// open in this process. Of the flags, only `O_CREAT` and `O_EXCL` count. Returns NULL with errno
/// set on failure. Close it with [`jlog_file_close`].
///
/// # Safety
/// `path` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_open(
    path: *const c_char,
    flags: c_int,
    mode: c_int,
    multi_process: c_int,
) -> *mut jlog_file {
    if path.is_null() {
        set_errno(&io::Error::from_raw_os_error(libc::EINVAL));
        return ptr::null_mut();
    }
    // SAFETY: as promised.
    let path = Path::new(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    open(path, flags, u32::try_from(mode).unwrap_or(0o640), multi_process != 0).unwrap_or_else(|e| {
        set_errno(&e);
        ptr::null_mut()
    })
}

/// Closes a file. Returns 1, or 0 for NULL.
///
/// # Safety
/// `file` is NULL, or came from [`jlog_file_open`] and was closed less often than it was opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_close(file: *mut jlog_file) -> c_int {
    if file.is_null() {
        return 0;
    }
    // SAFETY: as promised.
    unsafe { close(file) };
    1
}

/// Locks the file; waits while another process holds the lock. Returns 1 or 0.
///
/// # Safety
/// `file` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_lock(file: *mut jlog_file) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, jlog_file::lock) }
}

/// Unlocks a file. Returns 1, or 0 if it was not locked.
///
/// # Safety
/// `file` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_unlock(file: *mut jlog_file) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, jlog_file::unlock) }
}

/// Reads `len` bytes at an offset. Returns 1, or 0 on failure or if there are fewer.
///
/// # Safety
/// `file` is NULL or open, `buf` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_pread(
    file: *mut jlog_file,
    buf: *mut c_void,
    len: usize,
    offset: libc::off_t,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        on(file, |file| {
            let (mut at, mut done) = (offset_of(offset)?, 0);
            while done < len {
                let n = libc::pread(
                    file.file.as_raw_fd(),
                    buf.cast::<u8>().add(done).cast(),
                    len - done,
                    libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX),
                );
                match usize::try_from(n) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => (done, at) = (done + n, at + n as u64),
                    Err(_) => {
                        let e = io::Error::last_os_error();
                        if e.kind() != io::ErrorKind::Interrupted {
                            return Err(e);
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

/// Writes `len` bytes at an offset. Returns 1 or 0.
///
/// # Safety
/// `file` is NULL or open, `buf` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_pwrite(
    file: *mut jlog_file,
    buf: *const c_void,
    len: usize,
    offset: libc::off_t,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        on(file, |file| match len {
            0 => Ok(()),
            _ => file.file.write_all_at(std::slice::from_raw_parts(buf.cast(), len), offset_of(offset)?),
        })
    }
}

/// Writes the bytes of several buffers in sequence. Returns 1, or 0 on failure or if there are
/// none.
///
/// # Safety
/// `file` is NULL or open. `vecs` points to `count` entries, each of which describes readable
/// memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_pwritev(
    file: *mut jlog_file,
    vecs: *const libc::iovec,
    count: c_int,
    offset: libc::off_t,
) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, |file| write_vectored(file, vecs, count, offset, None)) }
}

/// The same, but the buffers must have `expected` bytes in total; otherwise nothing is written.
///
/// # Safety
/// As [`jlog_file_pwritev`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_pwritev_verify_return_value(
    file: *mut jlog_file,
    vecs: *const libc::iovec,
    count: c_int,
    offset: libc::off_t,
    expected: usize,
) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, |file| write_vectored(file, vecs, count, offset, Some(expected))) }
}

/// # Safety
/// As [`jlog_file_pwritev`].
unsafe fn write_vectored(
    file: &jlog_file,
    vecs: *const libc::iovec,
    count: c_int,
    offset: libc::off_t,
    expected: Option<usize>,
) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let count = usize::try_from(count).map_err(|_| invalid())?;
    if count == 0 || vecs.is_null() {
        return Err(invalid());
    }
    // SAFETY: as promised.
    let vecs = unsafe { std::slice::from_raw_parts(vecs, count) };
    let total = vecs.iter().try_fold(0usize, |sum, vec| sum.checked_add(vec.iov_len)).ok_or_else(invalid)?;
    if total == 0 || expected.is_some_and(|expected| expected != total) {
        return Err(invalid());
    }
    let mut at = offset_of(offset)?;
    for vec in vecs.iter().filter(|vec| vec.iov_len > 0) {
        // SAFETY: as promised.
        let bytes = unsafe { std::slice::from_raw_parts(vec.iov_base.cast::<u8>(), vec.iov_len) };
        file.file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Makes written bytes durable. Returns 1 or 0.
///
/// # Safety
/// `file` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_sync(file: *mut jlog_file) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, jlog_file::sync) }
}

/// Maps the whole file for reading and writing. Returns 1 or 0. The caller unmaps it.
///
/// # Safety
/// `file` is NULL or open, `base` and `len` are NULL or room for such values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_map_rdwr(
    file: *mut jlog_file,
    base: *mut *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: as promised.
    unsafe { map(file, base, len, libc::PROT_READ | libc::PROT_WRITE) }
}

/// Maps the whole file for reading. Returns 1 or 0. The caller unmaps it.
///
/// # Safety
/// As [`jlog_file_map_rdwr`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_map_read(
    file: *mut jlog_file,
    base: *mut *mut c_void,
    len: *mut usize,
) -> c_int {
    // SAFETY: as promised.
    unsafe { map(file, base, len, libc::PROT_READ) }
}

/// # Safety
/// As [`jlog_file_map_rdwr`].
unsafe fn map(file: *mut jlog_file, base: *mut *mut c_void, len: *mut usize, protection: c_int) -> c_int {
    // SAFETY: as promised.
    unsafe {
        on(file, |file| {
            if base.is_null() || len.is_null() {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let (at, bytes) = file.map(protection)?;
            crate::put(base, at);
            crate::put(len, bytes);
            Ok(())
        })
    }
}

/// The file's length in bytes, or -1.
///
/// # Safety
/// `file` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_size(file: *mut jlog_file) -> libc::off_t {
    let mut size = -1;
    // SAFETY: as promised.
    unsafe {
        on(file, |file| {
            size = libc::off_t::try_from(file.file.metadata()?.len()).unwrap_or(libc::off_t::MAX);
            Ok(())
        })
    };
    size
}

/// Sets the file's length: cuts it, or extends it with zeros. Returns 1 or 0.
///
/// # Safety
/// `file` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jlog_file_truncate(file: *mut jlog_file, len: libc::off_t) -> c_int {
    // SAFETY: as promised.
    unsafe { on(file, |file| file.file.set_len(offset_of(len)?)) }
}
