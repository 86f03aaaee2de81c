//! The parts of a line besides its message.

use std::collections::HashMap;

use crate::level::Level;
use crate::value::Value;

/// The parts of a line besides its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flags {
    /// In plain lines: the time.
    pub timestamps: bool,
    /// In plain lines: the name of the stream that was logged to.
    pub facility: bool,
    /// In plain lines: thread, file and line.
    pub debug: bool,
    /// In plain lines and `json`: the level.
    pub level: bool,
    /// In plain lines: the keys with their values as logfmt. Texts with spaces, quotation marks,
    /// `=` or control characters are quoted, with the escapes of JSON.
    pub keys: bool,
    /// In all but FlatBuffers: what the program calls the place that it logged from.
    pub target: bool,
    /// In `event`: source file and line, as `file` and `line`.
    pub source: bool,
}

impl Flags {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// In plain lines: the time.
    #[must_use]
    pub fn timestamps(self, yes: bool) -> Self {
        Self { timestamps: yes, ..self }
    }

    /// In plain lines: the name of the stream that was logged to.
    #[must_use]
    pub fn facility(self, yes: bool) -> Self {
        Self { facility: yes, ..self }
    }

    /// In plain lines: thread, file and line.
    #[must_use]
    pub fn debug(self, yes: bool) -> Self {
        Self { debug: yes, ..self }
    }

    /// In plain lines and `json`: the level.
    #[must_use]
    pub fn level(self, yes: bool) -> Self {
        Self { level: yes, ..self }
    }

    /// In plain lines: the keys with their values.
    #[must_use]
    pub fn keys(self, yes: bool) -> Self {
        Self { keys: yes, ..self }
    }

    /// In all but FlatBuffers: what the program calls the place that it logged from.
    #[must_use]
    pub fn target(self, yes: bool) -> Self {
        Self { target: yes, ..self }
    }

    /// In `event`: source file and line, as `file` and `line`.
    #[must_use]
    pub fn source(self, yes: bool) -> Self {
        Self { source: yes, ..self }
    }
}

impl Flags {
    /// The union of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            timestamps: self.timestamps || other.timestamps,
            facility: self.facility || other.facility,
            debug: self.debug || other.debug,
            level: self.level || other.level,
            keys: self.keys || other.keys,
            target: self.target || other.target,
            source: self.source || other.source,
        }
    }
}

/// With more keys than this, a table is used.
const FEW_KEYS: usize = 32;

/// Keys with their values; if several have the same name, the last one.
pub(crate) fn last_of_each<'k, 'v, K: AsRef<str>>(
    keys: &'k [(K, Value<'v>)],
) -> impl Iterator<Item = (&'k str, Value<'v>)> {
    // A few keys are compared with each other, which is quicker than a table; for many, it would
    // take forever.
    let last: Option<HashMap<&str, usize>> = (keys.len() > FEW_KEYS)
        .then(|| keys.iter().enumerate().map(|(place, (key, _))| (key.as_ref(), place)).collect());
    keys.iter().enumerate().filter_map(move |(place, (key, value))| {
        let key = key.as_ref();
        let comes_again = match &last {
            Some(last) => last.get(key) != Some(&place),
            None => keys[place + 1..].iter().any(|(other, _)| other.as_ref() == key),
        };
        (!comes_again).then_some((key, *value))
    })
}

/// Whether a key is the level of its line, for which formats have a field.
pub(super) fn says_the_level(key: &str, value: Value<'_>) -> bool {
    key == "level" && Level::of_value(value).is_some()
}

/// The layout of a sink's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Plain messages end with one newline, also those that contain line ends; FlatBuffers follow
    /// their lengths. A sink that separates messages by itself needs neither, and gets them
    /// unchanged.
    pub split: bool,
    /// In plain lines that are split, control characters are escaped, and further lines of a
    /// message begin with a tab, which no first line does. Otherwise further lines get the prefix
    /// of the first, as in libmtev.
    pub escape: bool,
    /// `json` and `event` have the spans around a line.
    pub spans: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { split: true, escape: true, spans: true }
    }
}
