//! Standard output and error, and other descriptors that a process was started with.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;

use super::journald;
use super::torn::Torn;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::fork;
use crate::format::Format;
use crate::patience;
use crate::record::Record;

/// Whether to bypass the standard library's locks: in a forked child, a thread that no longer
/// exists may hold them, and a holder may wait for a reader that has stopped.
fn is_direct() -> bool {
    fork::is_child() || patience::is_limited()
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
        static STDOUT: Torn = Torn::new();
        static STDERR: Torn = Torn::new();
        match self {
            FdSink::Stdout if is_direct() => STDOUT.write(io::stdout(), lines),
            FdSink::Stdout => {
                // Written under the lock, after the output of this process so far.
                let mut locked = io::stdout().lock();
                locked.flush()?;
                STDOUT.write(io::stdout(), lines)
            }
            FdSink::Stderr if is_direct() => STDERR.write(io::stderr(), lines),
            FdSink::Stderr => {
                let _locked = io::stderr().lock();
                STDERR.write(io::stderr(), lines)
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .needs_times(false)
            .wraps(match self {
                FdSink::Stdout => journald::is_on(io::stdout()),
                FdSink::Stderr => journald::is_on_stderr(),
            })
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

/// The file of a descriptor that the process was started with: a pipe, a file or a terminal (not a
/// socket). It is opened again by its name in `/proc`, for appending, so that closing the original
/// descriptor does not close this one.
///
/// `type="fd"` with the number as the path gives a stream one.
#[derive(Debug)]
pub(crate) struct Descriptor {
    number: i32,
    file: File,
    torn: Torn,
}

impl Descriptor {
    /// The number in a path.
    pub(crate) fn number(path: &str) -> Result<i32, String> {
        let number = path.trim().parse().ok().filter(|&number: &i32| number >= 0);
        number.ok_or_else(|| format!("the path {path:?}: expected the number of a file descriptor"))
    }

    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let number = Self::number(path).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let Some(flags) = inherited(number) else {
            let why = format!("file descriptor {number}: the process was not started with it");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        if flags & ACCESS == READ_ONLY {
            // Output to such a pipe would come back as input.
            let why = format!("file descriptor {number}: it is open for reading only");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let open = || -> io::Result<File> {
            // Opening must not wait for a pipe without a reader.
            let mut options = File::options();
            options.append(true).custom_flags(OFlag::O_NONBLOCK.bits());
            let file = options.open(format!("/proc/self/fd/{number}"))?;
            patience::let_writes_wait(&file)?;
            Ok(file)
        };
        let file = open().map_err(|e| {
            let why = format!("file descriptor {number}: it cannot be opened for writing: {e}");
            io::Error::new(e.kind(), why)
        })?;
        Ok(Self { number, file, torn: Torn::default() })
    }
}

const CLOSE_ON_EXEC: u32 = 0o2_000_000;
const ACCESS: u32 = 0o3;
const READ_ONLY: u32 = 0;

/// The flags of a descriptor that the process was started with. `None` for a descriptor that is
/// closed on `exec`, because the process has opened that itself: a wrong number must not lead to
/// the process's other files.
fn inherited(number: i32) -> Option<u32> {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.filter(|flags| flags & CLOSE_ON_EXEC == 0)
}

impl Sink for Descriptor {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        self.torn.write(&self.file, lines).map_err(|WriteError { written, error }| {
            let error = io::Error::new(error.kind(), format!("file descriptor {}: {error}", self.number));
            WriteError { written, error }
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .may_be_asynchronous(true)
            .needs_times(false)
            .is_terminal(self.file.is_terminal())
    }
}
