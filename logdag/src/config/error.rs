//! A mistake in a configuration.

use std::fmt;
use std::path::Path;

/// An error shows this many characters of its line, and `SHOWN_BEFORE` of them before the place.
pub(super) const SHOWN: usize = 160;
pub(super) const SHOWN_BEFORE: usize = 80;

/// A mistake in a configuration (or a possible one, as a warning), and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 if the file cannot be read at all.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The mistake, and what was expected.
    pub message: String,
    /// The line itself or, if it has more than 1024 bytes, the part around the place. Empty for a
    /// file that is not a configuration, and for included files, because their contents may be
    /// confidential.
    pub text: String,
    /// How many characters of the line are left out before the text.
    pub(super) left_out: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.text.is_empty() {
            return Ok(());
        }
        // A line may be as long as the file.
        let column = self.column.saturating_sub(1) as usize;
        let from = column.saturating_sub(SHOWN_BEFORE);
        let mut chars = self
            .text
            .chars()
            .skip(from - self.left_out.min(from))
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c });
        let mut text: String = chars.by_ref().take(SHOWN).collect();
        let indent: String =
            text.chars().take(column - from).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        if chars.next().is_some() {
            text.push('…');
        }
        let (dots, space) = if from > 0 { ("…", " ") } else { ("", "") };
        write!(f, "\n  {dots}{text}\n  {space}{indent}^")
    }
}

impl std::error::Error for ConfigError {}

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

pub(super) fn unreadable(path: &Path, message: String) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        message,
        text: String::new(),
        left_out: 0,
    }
}
