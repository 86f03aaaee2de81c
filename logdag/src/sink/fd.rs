//! Standard output and error, and what else a process was started with.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use crate::format::Format;
use crate::graph::fork;
use crate::record::Record;

use super::{Capabilities, Lines, Sink, WriteError, journald};

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

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .needs_times(false)
            .wraps(*self == FdSink::Stderr && journald::is_on_stderr())
            .is_terminal(match self {
                FdSink::Stdout => io::stdout().is_terminal(),
                FdSink::Stderr => io::stderr().is_terminal(),
            })
    }

    /// The journal takes the priority from the beginning of each line.
    fn wrap(&self, record: &Record<'_>, _: Format, line: &mut Vec<u8>) {
        journald::prefix_lines(record.level.severity(), line);
    }
}

/// The file of a descriptor that the process was started with: a pipe, a file or a terminal (not a socket). It is
/// opened again by its name in `/proc`, for appending, so that closing the first descriptor does not close this.
///
/// Streams get one by `type="fd"` and the number as the path.
#[derive(Debug)]
pub(crate) struct Descriptor {
    number: i32,
    file: File,
}

impl Descriptor {
    /// The number that a path has.
    pub(crate) fn number(path: &str) -> Result<i32, String> {
        let number = path.trim().parse().ok().filter(|&number: &i32| number >= 0);
        number.ok_or_else(|| format!("the path {path:?}: expected the number of a file descriptor"))
    }

    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let number = Self::number(path).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        if !inherited(number) {
            let why = format!("file descriptor {number}: the process was not started with it");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let file = File::options().append(true).open(format!("/proc/self/fd/{number}")).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("file descriptor {number}: it cannot be opened for writing: {e}"),
            )
        })?;
        Ok(Self { number, file })
    }
}

/// Whether a process was started with a descriptor: those that it opens itself are closed when it starts another one.
/// A wrong number must not lead to other files of the process.
fn inherited(number: i32) -> bool {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

impl Sink for Descriptor {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        (&self.file)
            .write_all(lines.bytes())
            .map_err(|e| io::Error::new(e.kind(), format!("file descriptor {}: {e}", self.number)).into())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .may_be_asynchronous(true)
            .needs_times(false)
            .is_terminal(self.file.is_terminal())
    }
}
