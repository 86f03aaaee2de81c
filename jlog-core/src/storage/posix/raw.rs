//! Calls on descriptors that no safe wrapper offers.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// Makes `file`'s descriptor refer to the open file of `fresh`, and closes its previous one.
pub(super) fn replace(file: &File, fresh: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open. The number stays `file`'s own: a thread that uses it at
    // this moment uses the old description or the new one, and both are open files.
    match unsafe { libc::dup3(fresh.as_raw_fd(), file.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
