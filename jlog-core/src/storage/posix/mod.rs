//! The real file system (Linux). The submodules have all of this crate's unsafe code.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

use crate::storage::traits::{Facts, File, FileKind, NotRegular, Open, Storage, Watch};

pub(super) mod fork;
mod lease;
pub(super) mod map;
mod raw;
mod watch;

pub(crate) use fork::forks;
pub use map::Map;
#[cfg(any(test, feature = "testing"))]
pub(crate) use map::MapObserver;

/// The file system of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct Posix;

#[derive(Debug)]
struct PosixFile {
    file: std::fs::File,
    writable: bool,
    /// How many names it had when it was opened.
    links: u64,
    /// Whether a guard was taken with this descriptor, and would be lost with it.
    guarded: AtomicBool,
}

fn facts_of(meta: &std::fs::Metadata) -> Facts {
    let kind = match meta.file_type() {
        t if t.is_file() => FileKind::Regular,
        t if t.is_dir() => FileKind::Directory,
        t if t.is_symlink() => FileKind::Link,
        t if t.is_fifo() || t.is_socket() || t.is_char_device() || t.is_block_device() => FileKind::Special,
        _ => FileKind::Special,
    };
    Facts {
        kind,
        len: meta.len(),
        links: meta.nlink(),
        owner: meta.uid(),
        mode: meta.mode() & 0o7777,
        identity: (meta.dev(), meta.ino()),
        modified: meta.mtime(),
        changed: nanos(meta.ctime(), meta.ctime_nsec()),
    }
}

fn nanos(seconds: i64, nanos: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

fn not_regular(kind: FileKind) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, NotRegular(kind))
}

/// Gives a new file the owner and the group of its directory, if this process may: a command that
/// root runs must not leave files that lock out the feed's owner.
fn follow_directory(file: &std::fs::File, path: &Path) {
    let Some(Ok(dir)) = path.parent().map(std::fs::metadata) else { return };
    let Ok(made) = file.metadata() else { return };
    let owner = (made.uid() != dir.uid()).then_some(dir.uid());
    let group = (made.gid() != dir.gid()).then_some(dir.gid());
    // Without permission to set the owner, the group may still be allowed. A writer reports files
    // that others cannot write when it opens.
    if (owner.is_some() || group.is_some()) && fchown(file, owner, group).is_err() && owner.is_some() {
        let _ = fchown(file, None, group);
    }
}

impl Storage for Posix {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if let Open::Create(mode) = how {
            // We must know whether the file is new: only a new file gets the mode.
            match self.open(path, Open::Write) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            match self.open(path, Open::CreateNew(mode)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other,
            }
            // Another process has created it meanwhile.
            return self.open(path, Open::Write);
        }
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK, opening a FIFO for reading would wait for a writer.
        options.read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let writable = how != Open::Read;
        options.write(writable);
        match how {
            Open::Read | Open::Write => {}
            Open::Create(mode) => {
                options.create(true).mode(mode);
            }
            Open::CreateNew(mode) => {
                options.create_new(true).mode(mode);
            }
        }
        let file = options.open(path).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => not_regular(FileKind::Link),
            Some(Errno::EISDIR) => not_regular(FileKind::Directory),
            Some(Errno::ENXIO) => not_regular(FileKind::Special),
            _ => e,
        })?;
        let facts = match file.metadata() {
            Ok(metadata) => facts_of(&metadata),
            Err(e) => {
                if matches!(how, Open::CreateNew(_)) {
                    // The caller would not learn that it was created.
                    let _ = std::fs::remove_file(path);
                }
                return Err(e);
            }
        };
        if facts.kind != FileKind::Regular {
            return Err(not_regular(facts.kind));
        }
        if let Open::CreateNew(mode) = how {
            follow_directory(&file, path);
            // The umask was applied; set the requested mode.
            let mode = Permissions::from_mode(mode);
            if file.metadata()?.permissions().mode() & 0o7777 != mode.mode() {
                file.set_permissions(mode)?;
            }
        }
        Ok(Arc::new(PosixFile { file, writable, links: facts.links, guarded: AtomicBool::new(false) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn facts(&self, path: &Path) -> io::Result<Facts> {
        Ok(facts_of(&std::fs::symlink_metadata(path)?))
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)?;
        // The umask was applied; like the C library, set the requested mode.
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        once_only(nix::unistd::fsync(std::fs::File::open(dir)?.as_fd()))
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        fs2::available_space(dir)
    }

    fn boot_id(&self) -> u64 {
        // If it cannot be read, every start looks the same, and the buffer is trusted, as the C
        // library does.
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    }

    fn watch(&self, dir: &Path) -> io::Result<Box<dyn Watch>> {
        watch::open(dir)
    }
}

/// The result of a sync. An interrupted sync is not retried, though common wrappers do that: it may
/// have consumed a write error without reporting it (Linux reports each failure once per
/// descriptor, and drops it if it has another error to return), and the second try would succeed
/// although data is lost. So it counts as failed. Local file systems do not interrupt syncs;
/// network and FUSE file systems may.
fn once_only(outcome: nix::Result<()>) -> io::Result<()> {
    Ok(outcome?)
}

impl PosixFile {
    /// Replaces this descriptor with a fresh one of the same file, so that the kernel drops its
    /// locks.
    fn reopen(&self) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let fresh = OpenOptions::new().read(true).write(self.writable).open(path)?;
        raw::replace(&self.file, &fresh)
    }

    fn whole_file_lock(&self, kind: i32, wait: bool) -> io::Result<()> {
        let whole = libc::flock {
            l_type: i16::try_from(kind).map_err(io::Error::other)?,
            l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            let arg = if wait { FcntlArg::F_OFD_SETLKW(&whole) } else { FcntlArg::F_OFD_SETLK(&whole) };
            match fcntl(self.file.as_fd(), arg) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl File for PosixFile {
    fn links_when_opened(&self) -> u64 {
        self.links
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if let [one] = bufs {
            return self.file.write_at(one, offset);
        }
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        Ok(nix::sys::uio::pwritev(self.file.as_fd(), bufs, offset)?)
    }

    fn facts(&self) -> io::Result<Facts> {
        // fstat instead of Metadata's statx, which is slower: this is called at every append.
        let stat = nix::sys::stat::fstat(self.file.as_fd())?;
        Ok(Facts {
            kind: FileKind::Regular,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink,
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            identity: (stat.st_dev, stat.st_ino),
            modified: stat.st_mtime,
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = i64::try_from(len).map_err(io::Error::other)?;
        // Not fs2's allocate, which reads errno, where posix_fallocate does not store its error.
        match nix::fcntl::posix_fallocate(self.file.as_fd(), 0, end) {
            Ok(()) => Ok(()),
            // A file system that cannot reserve space: later writes show whether there is any.
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => {
                const ZEROS: [u8; 4096] = [0; 4096];
                let mut at = self.len()?;
                while at < len {
                    let n = usize::try_from(len - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
                    self.file.write_all_at(&ZEROS[..n], at)?;
                    at += n as u64;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        once_only(nix::unistd::fdatasync(self.file.as_fd()))
    }

    fn lock(&self) -> io::Result<()> {
        self.whole_file_lock(if self.writable { libc::F_WRLCK } else { libc::F_RDLCK }, true)
    }

    fn unlock(&self) -> io::Result<()> {
        self.whole_file_lock(libc::F_UNLCK, false).or_else(|e| {
            // A lock that stays blocks every process that opens this file again, including this
            // one.
            if self.guarded.load(Ordering::Relaxed) { Err(e) } else { self.reopen().map_err(|_| e) }
        })
    }

    fn try_guard(&self, exclusive: bool) -> io::Result<bool> {
        self.guarded.store(true, Ordering::Relaxed);
        let taken = if exclusive {
            fs2::FileExt::try_lock_exclusive(&self.file)
        } else {
            fs2::FileExt::try_lock_shared(&self.file)
        };
        match taken {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn release_guard(&self) -> io::Result<()> {
        fs2::FileExt::unlock(&self.file)
    }

    fn try_lease(&self) -> io::Result<bool> {
        lease::take(&self.file)
    }

    fn release_lease(&self) -> io::Result<()> {
        lease::give_back(&self.file)
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        if self.len()? < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Map::of_file(&self.file, len, self.writable)
    }
}

/// The process's umask. Only this file reveals it without changing it, which other threads would
/// notice.
pub(crate) fn umask() -> u32 {
    const USUAL: u32 = 0o022;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(USUAL)
}

/// Whether a path is too long for the system, before anything is tried.
pub(crate) fn path_too_long(path: &Path) -> bool {
    // Room for the longest of our names below the directory: `/cp.` and 252 digits.
    path.as_os_str().as_bytes().len() + 256 >= libc::PATH_MAX as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> PosixFile {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        PosixFile { file, writable: true, links: 1, guarded: AtomicBool::new(false) }
    }

    /// Whether another descriptor gets the lock, without waiting for it.
    fn is_free(path: &Path) -> bool {
        open(path).whole_file_lock(libc::F_WRLCK, false).is_ok()
    }

    #[test]
    fn a_lock_that_cannot_be_given_up_ends_with_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = open(&path);
        file.lock().unwrap();
        assert!(!is_free(&path));
        file.write_at(&[IoSlice::new(b"before")], 0).unwrap();
        file.reopen().unwrap();
        assert!(is_free(&path));
        // It is still the same file, and locks work as before.
        file.write_at(&[IoSlice::new(b"after!")], 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after!");
        file.lock().unwrap();
        assert!(!is_free(&path));
        std::fs::remove_file(&path).unwrap();
        file.reopen().unwrap();
        assert_eq!(file.facts().unwrap().links, 0);
    }

    #[test]
    fn an_interrupted_sync_is_a_failed_one() {
        let error = once_only(Err(Errno::EINTR)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
