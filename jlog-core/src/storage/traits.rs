//! The disk operations that the engine needs.

use std::ffi::OsString;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use super::posix::fork::forks;
use super::posix::map::Map;

/// How a file is opened. Symbolic links are never followed, and anything but a regular file is
/// refused with [`NotRegular`] as the inner error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; created with this mode if missing.
    Create(u32),
    /// For reading and writing; created with this mode, and must not exist.
    CreateNew(u32),
}

/// The kind of file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket or a device.
    Special,
}

impl FileKind {
    /// The kind in words, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            FileKind::Regular => "a regular file",
            FileKind::Directory => "a directory",
            FileKind::Link => "a symbolic link",
            FileKind::Special => "a FIFO, socket or device",
        }
    }
}

/// The inner error of an `open` of something other than a regular file.
#[derive(Debug)]
pub struct NotRegular(pub FileKind);

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, not a regular file", self.0.describe())
    }
}

impl std::error::Error for NotRegular {}

/// Facts about a path or an open file.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub len: u64,
    /// How many names it has; 0 once it is removed.
    pub links: u64,
    /// The owner's user number.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
    /// Device and inode: which file this is.
    pub identity: (u64, u64),
    /// When its data changed last, in seconds since 1970.
    pub modified: i64,
    /// When its data or its metadata changed last (ctime), in nanoseconds since 1970. It cannot be
    /// set.
    pub changed: i128,
}

/// A file system.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a regular file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// The names in a directory, without `.` and `..`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Facts about a path. A symbolic link as its last component is not followed.
    fn facts(&self, path: &Path) -> io::Result<Facts>;
    /// Makes a directory with exactly this mode.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing an existing one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, unless there is a file of that name already (`AlreadyExists`).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes changes of names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written to the file system of a directory.
    fn available_space(&self, dir: &Path) -> io::Result<u64>;
    /// A number that stays the same until the machine restarts.
    fn boot_id(&self) -> u64;
    /// Whether it is real storage, shared by processes while time passes. Otherwise nobody waits
    /// for a lock, no C process writes, and writers postpone nothing.
    fn is_shared(&self) -> bool {
        true
    }
    /// Starts to watch a directory for changes that a waiting reader needs to know.
    fn watch(&self, dir: &Path) -> io::Result<Box<dyn Watch>>;
}

/// An open regular file. Calls may come from several threads at once.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads at an offset; may read less than requested, and 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset; may write less than requested.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// How many names the file had when it was opened.
    fn links_when_opened(&self) -> u64;
    /// Facts about the file.
    fn facts(&self) -> io::Result<Facts>;
    /// Cuts or extends it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Allocates space for the first `len` bytes, extending a shorter file.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes the data durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Takes the whole-file lock, which excludes other opens of this file, including those of C
    /// processes; waits for it. A file opened only for reading takes a shared lock.
    fn lock(&self) -> io::Result<()>;
    /// Releases the lock.
    fn unlock(&self) -> io::Result<()>;
    /// Takes a lock of another kind, which C processes do not see, if it is free.
    fn try_guard(&self, exclusive: bool) -> io::Result<bool>;
    /// Releases that lock. Closing the file is not enough: a process that is being started may
    /// still have a copy of the descriptor.
    fn release_guard(&self) -> io::Result<()>;
    /// Takes a lease, which keeps others from opening the file for writing; `false` if a process
    /// has it open for writing. The file must be open for reading.
    fn try_lease(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// Releases that lease.
    fn release_lease(&self) -> io::Result<()> {
        Ok(())
    }
    /// Maps the first `len` bytes, which must exist, shared with every other process.
    fn map(&self, len: usize) -> io::Result<Map>;

    /// Its size in bytes.
    fn len(&self) -> io::Result<u64> {
        Ok(self.facts()?.len)
    }

    /// Whether it has no bytes.
    #[cfg(any(test, feature = "internals"))]
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Waits until a reader needs to look: a segment was written to, created or put in place, or the
/// directory, the metastore or a checkpoint was removed or replaced.
pub trait Watch: Send {
    /// Waits until something has happened since the watch began or the last wait ended, or the time
    /// is over, or `waker` was used: `true` then.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool>;
    /// A handle that ends a wait from another thread or a signal handler.
    fn waker(&self) -> io::Result<Waker>;
}

/// Ends a reader's wait from another thread or a signal handler. Has no effect once the reader is
/// dropped.
#[derive(Clone, Debug)]
pub struct Waker(pub(crate) Arc<nix::sys::eventfd::EventFd>);

impl Waker {
    /// Ends the current wait, or else the next one.
    pub fn wake(&self) {
        // It fails only when 2^64 - 2 wake-ups are pending: the wait ends then anyway.
        let _ = self.0.write(1);
    }

    /// The file descriptor to write 8 bytes (a `u64` of 1) to, for signal handlers.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&*self.0)
    }
}

/// Reads exactly `buf.len()` bytes; an early end is `UnexpectedEof`.
pub(crate) fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    match read_up_to_at(file, buf, offset)? {
        n if n == buf.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads until `buf` is full or the file ends, and returns how much was read.
pub(crate) fn read_up_to_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads a whole file of at most `max` bytes; a longer one is read up to `max` + 1.
pub(crate) fn read_all(file: &dyn File, max: usize) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(max.saturating_add(1));
    let mut bytes = vec![0; len];
    let n = read_up_to_at(file, &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Writes everything, however short the individual writes are.
pub(crate) fn write_all_at(file: &dyn File, mut bufs: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    // The most that the kernel accepts in one call (IOV_MAX).
    const MAX_SLICES: usize = 1024;
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        match file.write_at(&bufs[..bufs.len().min(MAX_SLICES)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                IoSlice::advance_slices(&mut bufs, n);
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// How long [`Guarded::take_soon`] waits. Starting a program takes about a millisecond, and longer
/// on a busy machine.
const GUARD_PATIENCE: Duration = Duration::from_millis(200);

/// Holds a file's guard until it is dropped.
#[derive(Debug)]
pub(crate) struct Guarded {
    file: Arc<dyn File>,
    /// How often the process had been forked when the guard was taken.
    forks: u32,
}

impl Guarded {
    /// For a file whose guard was just taken.
    pub(crate) fn new(file: Arc<dyn File>) -> Self {
        Self { file, forks: forks() }
    }

    /// Takes a file's guard. If processes share the storage, waits briefly for a guard that is
    /// taken: a killed process may have been starting another, which keeps a copy of the descriptor
    /// until it executes its program.
    pub(crate) fn take_soon(
        storage: &dyn Storage,
        file: &Arc<dyn File>,
        exclusive: bool,
    ) -> io::Result<Option<Self>> {
        let deadline = storage.is_shared().then(|| Instant::now() + GUARD_PATIENCE);
        loop {
            if file.try_guard(exclusive)? {
                return Ok(Some(Self::new(Arc::clone(file))));
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            thread::sleep(GUARD_PATIENCE / 40);
        }
    }

    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // A forked child has the parent's open file, whose guard still belongs to the parent.
        if self.forks == forks() {
            // It fails only for a closed descriptor.
            let _ = self.file.release_guard();
        }
    }
}

/// Holds a file's lock until it is dropped.
#[derive(Debug)]
pub(crate) struct LockGuard<'a>(&'a dyn File);

impl<'a> LockGuard<'a> {
    pub(crate) fn new(file: &'a dyn File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }

    /// Leaves the file locked; its holder must unlock it.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        unlock(self.0);
    }
}

/// Releases a lock. A failure is retried, because a lock that stays would block others until the
/// file is closed.
pub(crate) fn unlock(file: &dyn File) {
    const TRIES: usize = 3;
    // If it still fails, the lock ends with the descriptor.
    let _ = (0..TRIES).find(|_| file.unlock().is_ok());
}
