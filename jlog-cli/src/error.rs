//! How a command ends.

use std::io;
use std::process::ExitCode;

/// What `verify` ends with when it found damage, and a reader that was to get messages that are lost.
pub const DAMAGED: u8 = 3;

/// What a wrong command line ends with, as clap has it.
pub const USAGE: u8 = 2;

/// The exit code, or what went wrong.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed, in one line.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// The reader of our output went away: no error.
    broken_pipe: bool,
}

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), broken_pipe: false }
    }

    /// A failure to write to stdout.
    pub fn stdout(error: &io::Error) -> Self {
        Self {
            text: format!("cannot write to stdout: {error}"),
            broken_pipe: error.kind() == io::ErrorKind::BrokenPipe,
        }
    }

    /// Whether the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// Tells of it on stderr and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if self.broken_pipe {
            return ExitCode::SUCCESS;
        }
        crate::output::complain(&self.text);
        ExitCode::FAILURE
    }
}

impl From<jlog_core::Error> for Failure {
    fn from(error: jlog_core::Error) -> Self {
        Self::new(error.to_string())
    }
}
