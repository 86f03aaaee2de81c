//! How a command ends.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use jlog_core::{Error, Jlog};

/// The exit code of a command that found damage or lost messages.
pub const DAMAGED: u8 = 3;

/// The exit code for a wrong command line, the same as clap's.
pub const USAGE: u8 = 2;

/// The exit code, or the failure.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed, in one line.
#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
    /// The reader of our output went away, which is not an error.
    broken_pipe: bool,
    /// The feed or the subscriber does not exist (yet, or any more).
    absent: bool,
    /// The subscriber was removed; the feed still exists.
    unsubscribed: bool,
}

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1, broken_pipe: false, absent: false, unsubscribed: false }
    }

    /// A failure to write to stdout.
    pub fn stdout(error: &io::Error) -> Self {
        Self {
            broken_pipe: error.kind() == io::ErrorKind::BrokenPipe,
            ..Self::new(format!("cannot write to stdout: {error}"))
        }
    }

    /// Adds advice on what to do instead.
    pub fn or(mut self, hint: &str) -> Self {
        self.text.push_str(hint);
        self
    }

    /// The same, with this prefix.
    #[cfg(feature = "ship")]
    pub fn before(mut self, what: &str) -> Self {
        self.text.insert_str(0, what);
        self
    }

    /// The system has no thread left for the command.
    pub fn no_thread(e: std::io::Error) -> Self {
        Self::new(format!("cannot start a thread: {e}"))
    }

    /// The same with another exit code.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Its exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Whether the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }

    /// Whether the feed or the subscriber does not exist; it may appear later.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Whether the subscriber was removed while the feed stayed.
    pub fn is_unsubscribed(&self) -> bool {
        self.unsubscribed
    }

    /// What went wrong.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reports the failure on stderr and returns the exit code.
    pub fn report(&self) -> ExitCode {
        if self.broken_pipe {
            return ExitCode::SUCCESS;
        }
        crate::output::complain(&self.text);
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        match &error {
            Error::UnknownSubscriber { path, name } => text = unknown_subscriber(path, name),
            Error::Io { action, path, source } => text.push_str(&help(action, path, source)),
            _ => {}
        }
        let damaged = matches!(
            error,
            Error::MetastoreMissing { .. } | Error::Metastore { .. } | Error::Settings { .. }
        );
        let absent = error.is_gone();
        let unsubscribed = matches!(error, Error::Unsubscribed { .. });
        Self { code: if damaged { DAMAGED } else { 1 }, absent, unsubscribed, ..Self::new(text) }
    }
}

/// The error lists the names most similar to the given one, or all of them if there are few.
fn unknown_subscriber(path: &Path, name: &str) -> String {
    /// More names than this are too many to list.
    const FEW: usize = 20;
    let mut text = format!("{} has no subscriber {name:?}", path.display());
    let names = Jlog::open(path).and_then(|log| log.subscribers()).unwrap_or_default();
    let names: Vec<String> = names.iter().map(ToString::to_string).filter(|n| !n.starts_with('~')).collect();
    let alike = |other: &&String| {
        // Up to a third of the letters may differ; case is ignored.
        let (a, b) = (name.to_lowercase(), other.to_lowercase());
        strsim::damerau_levenshtein(&a, &b) <= a.chars().count().max(3) / 3
    };
    let best = names.iter().filter(alike).min_by_key(|other| strsim::damerau_levenshtein(name, other));
    // Writing to a String cannot fail.
    if let Some(best) = best {
        let _ = write!(text, ": did you mean {best:?}?");
    }
    if names.is_empty() {
        text.push_str(": it has none; add one with `jlog subscribe`");
    } else if names.len() <= FEW {
        let list: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let separator = if best.is_some() { " " } else { ": " };
        let _ = write!(text, "{separator}it has {}; `jlog subscribe` adds one", list.join(", "));
    } else {
        let separator = if best.is_some() { " " } else { ": " };
        let _ = write!(text, "{separator}`jlog status` lists the {} that it has", names.len());
    }
    text
}

/// Advice for an error of the operating system.
fn help(action: &str, path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if action == "create" => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
                format!("; there is no directory {}: create it first", parent.display())
            }
            _ => String::new(),
        },
        io::ErrorKind::PermissionDenied => {
            "; run it as a user who has permission: see the owner and the mode of the file and its directory (`ls -ld`)"
                .into()
        }
        // Errors of flock and fcntl if a file system or its server has no locks: ENOSYS,
        // EOPNOTSUPP, ENOLCK.
        _ if action == "lock" => {
            "; a feed has to be on a file system with file locks, such as a local one".into()
        }
        _ => String::new(),
    }
}
