//! The number of lost messages, as far as it is known.

use std::fmt;

/// Messages that were lost with segments that are missing, or that were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first of these segments.
    pub first: u32,
    /// The last of them.
    pub last: u32,
    /// How many they are.
    pub segments: u32,
    /// How many of them exist, but have lost the records at their end, or all records. The others
    /// are missing.
    pub cut: u32,
    /// A lower bound of the unread messages that are gone with them.
    pub messages: u64,
    /// Whether the count is exact.
    pub exact: bool,
}

impl Lost {
    /// Both losses in one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            segments: self.segments.saturating_add(other.segments),
            cut: self.cut.saturating_add(other.cut),
            messages: self.messages.saturating_add(other.messages),
            exact: self.exact && other.exact,
        }
    }

    pub(crate) fn add(sum: &mut Option<Self>, one: Self) {
        *sum = Some(sum.map_or(one, |sum| sum.and(one)));
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, segments, cut, messages, exact } = *self;
        if segments == 1 {
            write!(f, "segment {first:08x} ")?;
        } else if u64::from(last.saturating_sub(first)) + 1 == u64::from(segments) {
            write!(f, "segments {first:08x} to {last:08x} ")?;
        } else {
            write!(f, "{segments} segments from {first:08x} to {last:08x} ")?;
        }
        f.write_str(match (cut, segments) {
            (0, 1) => "is missing, and with it ",
            (0, _) => "are missing, and with them ",
            (1, 1) => "was cut, and has lost ",
            _ if cut == segments => "were cut, and have lost ",
            _ => "are missing or were cut, and with them are gone ",
        })?;
        match (messages, exact) {
            (0, false) => write!(f, "an unknown number of messages"),
            (1, true) => write!(f, "1 message"),
            (1, false) => write!(f, "at least 1 message"),
            (n, true) => write!(f, "{n} messages"),
            (n, false) => write!(f, "at least {n} messages"),
        }
    }
}

/// How many records a missing or cut segment had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// At least this many.
    pub at_least: u32,
    /// Whether the count is exact.
    pub exact: bool,
}

impl Records {
    /// A segment without records, whose former number of records is unknown.
    pub(crate) const SOME: Self = Self { at_least: 1, exact: false };

    /// The more precise value of two sources.
    pub(crate) fn better(self, other: Self) -> Self {
        match (self.exact, other.exact) {
            (true, false) => self,
            (false, true) => other,
            _ => Self { at_least: self.at_least.max(other.at_least), exact: self.exact },
        }
    }
}
