//! What lines show besides their messages.

use std::collections::HashMap;

use crate::level::Level;
use crate::value::Value;

/// What lines show besides their messages.
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
    /// In plain lines: the keys with their values, as logfmt has them: texts with spaces, quotation marks, `=` or control
    /// characters are between quotation marks, with the escapes of JSON.
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
    /// What either has.
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

/// More keys are looked up in a table.
const FEW_KEYS: usize = 32;

/// Keys with their values; of several with one name the last one.
pub(crate) fn last_of_each<'k, 'v, K: AsRef<str>>(
    keys: &'k [(K, Value<'v>)],
) -> impl Iterator<Item = (&'k str, Value<'v>)> {
    // Of few keys each is compared with all: that is quicker than a table, of many it would take for ever.
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

/// Whether a key says the level of its line, which formats have in a place of its own.
pub(super) fn says_the_level(key: &str, value: Value<'_>) -> bool {
    key == "level" && Level::of_value(value).is_some()
}

/// How a sink has its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Plain messages end with one newline, also those with line ends within; FlatBuffers come behind their lengths. What
    /// keeps messages apart by itself needs neither, and gets them as they are.
    pub split: bool,
    /// In plain lines that are split, control characters are escaped, and further lines of a message begin with a tab, as no
    /// line of its own does. Otherwise further lines get the prefix of the first, as from libmtev.
    pub escape: bool,
    /// `json` and `event` have the spans around a line.
    pub spans: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { split: true, escape: true, spans: true }
    }
}
