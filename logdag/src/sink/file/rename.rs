//! Renaming without replacing anything.

use std::io;
use std::path::Path;

/// Gives a file an unused name.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // The kernel or the file system lacks this call.
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            done => return Ok(done?),
        }
    }
    link_to_new(from, to)
}

/// The same in two steps, each of which refuses what it must not replace. After a crash between
/// them the file has both names: see `finish_rotation`.
pub(super) fn link_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from).inspect_err(|_| {
            // The file keeps its old name then.
            let _ = std::fs::remove_file(to);
        }),
        Err(e) if [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported].contains(&e.kind()) => {
            // The file system has no hard links.
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        Err(e) => Err(e),
    }
}
