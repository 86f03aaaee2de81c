//! Standard output and error.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use crate::graph::fork;

use super::{Lines, Sink, WriteError};

/// Writes to the standard error, between what others in this process write there.
pub(crate) fn write_to_stderr(bytes: &[u8]) -> io::Result<()> {
    if fork::is_child() { write_directly(io::stderr(), bytes) } else { io::stderr().lock().write_all(bytes) }
}

/// Writes without the standard library's lock: in a child a thread may hold it that is not there.
fn write_directly(to: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    File::from(to.as_fd().try_clone_to_owned()?).write_all(bytes)
}

/// One of the process's own outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Sink for FdSink {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        // One piece: lines of other programs on the same terminal do not get between.
        match self {
            FdSink::Stdout if fork::is_child() => write_directly(io::stdout(), lines.bytes())?,
            FdSink::Stdout => {
                io::stdout().lock().write_all(lines.bytes()).and_then(|()| io::stdout().flush())?
            }
            FdSink::Stderr => write_to_stderr(lines.bytes())?,
        }
        Ok(())
    }

    fn needs_times(&self) -> bool {
        false
    }

    fn is_terminal(&self) -> bool {
        match self {
            FdSink::Stdout => io::stdout().is_terminal(),
            FdSink::Stderr => io::stderr().is_terminal(),
        }
    }
}
