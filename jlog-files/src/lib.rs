//! Reads small files that users name: tokens, passwords, keys, certificates. A FIFO, a device or an
//! endless file in their place is an error: it neither blocks a program nor fills its memory.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The most bytes of a token, a password or a key: 64 KiB.
pub const SECRET: usize = 64 << 10;
/// The most bytes of a file of certificates: 1 MiB, enough for all authorities of a system.
pub const CERTIFICATES: usize = 1 << 20;

/// How long a pipe's writer has to write everything and close it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many symbolic links are followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// A file that was read completely.
#[derive(Clone)]
pub struct SmallFile {
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The contents may be secret.
impl std::fmt::Debug for SmallFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SmallFile({} bytes, mode {:o})", self.bytes.len(), self.mode)
    }
}

/// Reads a regular file of at most `limit` bytes. The path may also name a pipe that the program
/// got as a descriptor (`/dev/stdin`, `/dev/fd/3`, `/proc/self/fd/3`, a shell's `<(…)`). Its writer
/// must finish within 5 seconds.
///
/// # Errors
/// It is something else, too large, or cannot be read. The error does not name the file.
pub fn read(path: impl AsRef<Path>, limit: usize) -> io::Result<SmallFile> {
    read_within(path.as_ref(), limit, PATIENCE)
}

/// The same as text.
///
/// # Errors
/// Those of [`read`], or the file is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, limit: usize) -> io::Result<String> {
    let no_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8: expected text");
    String::from_utf8(read(path, limit)?.bytes).map_err(no_text)
}

fn read_within(path: &Path, limit: usize, patience: Duration) -> io::Result<SmallFile> {
    let given = is_descriptor(path);
    check(std::fs::metadata(path)?.file_type(), given)?;
    // It may have become another kind of file, which must not block us.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let facts = file.metadata()?;
    check(facts.file_type(), given)?;
    let bytes = if facts.file_type().is_fifo() {
        read_pipe(&mut file, limit, patience)?
    } else {
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        bytes
    };
    if bytes.len() > limit {
        let why = format!("it has more than {limit} bytes: expected a small file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(SmallFile { bytes, mode: facts.permissions().mode() & 0o777 })
}

/// Whether a file of this type can be read to its end.
fn check(kind: FileType, given: bool) -> io::Result<()> {
    let what = if kind.is_file() || kind.is_fifo() && given {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let why = format!("it is {what}: expected a regular file, or a pipe such as a shell's <(…)");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// Whether a path, or a link on the way, is the name of one of the process's descriptors.
fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(dir) = dir.canonicalize() else { return false };
        if dir.starts_with("/proc") && dir.ends_with("fd") {
            return true;
        }
        let Ok(target) = std::fs::read_link(&path) else { return false };
        path = dir.join(target);
    }
    false
}

/// Reads a pipe to its end, or one byte beyond the limit.
fn read_pipe(pipe: &mut File, limit: usize, patience: Duration) -> io::Result<Vec<u8>> {
    let until = Instant::now() + patience;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while bytes.len() <= limit {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) if left.is_zero() => {
                let why = format!(
                    "the pipe was not closed within {patience:?}: whoever writes to it must close it"
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn refused(path: &Path) -> String {
        read_within(path, 100, Duration::from_millis(50)).unwrap_err().to_string()
    }

    #[test]
    fn regular_files_are_read_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x".repeat(100)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let file = read(&path, 100).unwrap();
        assert_eq!((file.bytes.len(), file.mode), (100, 0o640));
        assert_eq!(read_text(&path, 100).unwrap(), "x".repeat(100));
        assert!(!format!("{file:?}").contains('x'));
        let error = read(&path, 99).unwrap_err().to_string();
        assert_eq!(error, "it has more than 99 bytes: expected a small file");
        // A link leads to it.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("secret", &link).unwrap();
        assert_eq!(read(&link, 100).unwrap().bytes.len(), 100);
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 100).unwrap_err().to_string().contains("not UTF-8"));
        assert!(refused(&dir.path().join("none")).contains("No such file"));
    }

    #[test]
    fn what_has_no_end_or_waits_for_somebody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = dir.path().join("socket");
        let _socket = UnixListener::bind(&socket).unwrap();
        let zero = dir.path().join("zero");
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        for (path, what) in [
            (&*fifo, "a FIFO"),
            (&*socket, "a socket"),
            (dir.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
            (&*zero, "a device"),
        ] {
            assert!(refused(path).starts_with(&format!("it is {what}: expected")), "{}", path.display());
        }
        // Its reported size is 0.
        assert!(!read("/proc/self/status", SECRET).unwrap().bytes.is_empty());
    }

    #[test]
    fn a_pipe_that_is_given_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        let names = [
            format!("/dev/fd/{}", reader.as_raw_fd()),
            format!("/proc/self/fd/{}", reader.as_raw_fd()),
            format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd()),
        ];
        std::os::unix::fs::symlink(&names[0], &link).unwrap();
        for name in names.iter().map(Path::new).chain([&*link]) {
            let error = refused(name);
            assert!(error.contains("was not closed within 50ms"), "{}: {error}", name.display());
        }
        writer.write_all(b"secr").unwrap();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            writer.write_all(b"et\n").unwrap();
        });
        assert_eq!(read(&names[0], SECRET).unwrap().bytes, b"secret\n");
        writing.join().unwrap();

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'x'; 200]).unwrap();
        let error = refused(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())));
        assert!(error.contains("more than 100 bytes"), "{error}");
    }
}
