//! The limits of a jlog, and what happens at a limit.

use std::time::Duration;

use crate::LogId;
use crate::subscriber::SubscriberName;

/// The smallest `max_bytes`.
pub(crate) const MIN_BYTES: u64 = 16 << 10;

/// What happens when an append would exceed a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// It fails with [`Error::AtCapacity`](crate::Error::AtCapacity) until subscribers have caught
    /// up.
    #[default]
    Fail,
    /// The oldest segments are dropped, needed or not. Subscribers that needed them learn how many
    /// messages they missed ([`OnMissed`](crate::OnMissed)).
    DropOldest,
}

impl AtLimit {
    /// The value's name in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            AtLimit::Fail => "fail",
            AtLimit::DropOldest => "drop-oldest",
        }
    }

    /// The value of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [AtLimit::Fail, AtLimit::DropOldest].into_iter().find(|limit| limit.name() == name)
    }
}

/// The limit that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// [`Limits::max_bytes`]: what is used, and the limit, in bytes.
    Bytes,
    /// [`Limits::max_age`]: the age of the oldest messages, and the limit, in seconds.
    Age,
    /// [`Limits::keep_free`]: the free space on the file system, and the space that must stay free,
    /// in bytes.
    Free,
}

/// A subscriber that still needs the oldest segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub name: SubscriberName,
    /// Its checkpoint; `None` if it cannot be read.
    pub checkpoint: Option<LogId>,
    /// Messages after its checkpoint; all of them if that cannot be read.
    pub messages: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name.to_string();
        match (self.checkpoint, self.messages) {
            (None, _) => write!(f, "subscriber {name:?}, whose checkpoint cannot be read, keeps everything"),
            (Some(id), 1) => {
                write!(f, "subscriber {name:?} still needs segment {:08x} (1 message behind)", id.segment)
            }
            (Some(id), n) => {
                write!(f, "subscriber {name:?} still needs segment {:08x} ({n} messages behind)", id.segment)
            }
        }
    }
}

/// The limits of a jlog. Writers of this library observe them; those of the C library do not know
/// them.
///
/// The segment being written counts, and is never dropped. Therefore segments end at an eighth of a
/// limit at the latest. Limits are checked when a message is appended.
///
/// ```
/// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
/// use jlog_core::{AtLimit, Jlog, Limits};
///
/// let limits = Limits { max_bytes: Some(1 << 30), at_limit: AtLimit::DropOldest, ..Limits::default() };
/// let log = Jlog::options().limits(limits).create(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all segments with their indexes and checksums, and of the pre-commit buffer, which
    /// may have half of them: 16 KiB or more.
    pub max_bytes: Option<u64>,
    /// How old messages may get: 1 s or more, in whole seconds. A segment is dropped when its last
    /// message is older, and ends when its first message has an eighth of this age. Writers that
    /// append, readers that wait and [`Jlog::clean`](crate::Jlog::clean) check ages; if none of
    /// them runs, nothing is dropped. Timestamps in the future are ignored: the order of segments
    /// counts.
    pub max_age: Option<Duration>,
    /// Bytes that stay free on the file system.
    pub keep_free: Option<u64>,
    /// What happens at a limit.
    pub at_limit: AtLimit,
}

impl Limits {
    /// Whether there is any limit.
    pub fn is_some(&self) -> bool {
        self.max_bytes.is_some() || self.max_age.is_some() || self.keep_free.is_some()
    }

    /// The size at which a segment ends, if the configured size is `size`.
    pub(crate) fn segment_size(&self, size: u64) -> u64 {
        self.max_bytes.map_or(size, |max| size.min(max / 8)).max(1)
    }
}
