//! Leases on files, which nix does not have.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

fn set(file: &File, command: libc::c_int, argument: libc::c_int) -> Result<(), Errno> {
    // SAFETY: these commands take a number and touch no memory of ours; the descriptor is open
    // while `file` is.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }).map(|_| ())
}

/// Takes a lease for reading; `false` if the file is open for writing.
pub(super) fn take(file: &File) -> io::Result<bool> {
    // When another process opens the file meanwhile, the system sends a signal. The default one
    // ends the process; this one is ignored unless it is handled.
    const F_SETSIG: libc::c_int = 10;
    set(file, F_SETSIG, libc::SIGURG)?;
    match set(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn give_back(file: &File) -> io::Result<()> {
    Ok(set(file, libc::F_SETLEASE, libc::F_UNLCK)?)
}
