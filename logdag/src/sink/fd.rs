//! Standard output and error.

use std::io::{self, IsTerminal, Write};

use super::{Lines, Sink, WriteError};

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
            FdSink::Stdout => {
                io::stdout().lock().write_all(lines.bytes()).and_then(|()| io::stdout().flush())?
            }
            FdSink::Stderr => io::stderr().lock().write_all(lines.bytes())?,
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
