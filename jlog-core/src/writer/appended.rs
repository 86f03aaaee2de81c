//! The results of appends: where the messages are.

use crate::LogId;

/// The result of an append: where the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// In the pre-commit buffer: the message survives the process, and gets its id when it is
    /// flushed.
    Buffered,
    /// In a segment, where subscribers can read it, under this id. For a batch, this is the id of
    /// its last message.
    InSegment(LogId),
}

impl Appended {
    /// The id, once there is one.
    pub fn id(self) -> Option<LogId> {
        match self {
            Appended::Buffered => None,
            Appended::InSegment(id) => Some(id),
        }
    }
}

/// Consecutive messages of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRun {
    /// The id of the first one.
    pub first: LogId,
    /// How many there are; never 0.
    pub count: u32,
}

impl IdRun {
    /// The id of the last one.
    pub fn last(&self) -> LogId {
        LogId::new(self.first.segment, self.first.marker + (self.count - 1))
    }

    /// The ids of all of them, in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = LogId> + use<> {
        let first = self.first;
        (0..self.count).map(move |n| LogId::new(first.segment, first.marker + n))
    }
}

/// The result of appending a batch: all messages are in the pre-commit buffer, or all are in
/// segments.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// use jlog_core::LogId;
///
/// let placed = log.writer()?.append_batch(&["one", "two"])?;
/// let first = placed.runs().next().unwrap().first;
/// assert_eq!(placed.ids().collect::<Vec<_>>(), [first, LogId::new(first.segment, first.marker + 1)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendedBatch {
    len: usize,
    /// Most batches are in one segment, so the first run needs no allocation.
    first: Option<IdRun>,
    more: Vec<IdRun>,
}

impl AppendedBatch {
    /// Adds `count` messages, the last of which is at `last`.
    pub(super) fn add(&mut self, last: Appended, count: usize) {
        self.len += count;
        if let Appended::InSegment(last) = last
            && let Ok(count @ 1..) = u32::try_from(count)
        {
            let run = IdRun { first: LogId::new(last.segment, last.marker - (count - 1)), count };
            match self.first {
                None => self.first = Some(run),
                Some(_) => self.more.push(run),
            }
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the batch was empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the last message is.
    pub fn last(&self) -> Appended {
        self.id().map_or(Appended::Buffered, Appended::InSegment)
    }

    /// The id of the last message, once it has one.
    pub fn id(&self) -> Option<LogId> {
        self.more.last().or(self.first.as_ref()).map(IdRun::last)
    }

    /// The messages by segment; empty if they are in the pre-commit buffer.
    pub fn runs(&self) -> impl Iterator<Item = IdRun> + '_ {
        self.first.iter().chain(&self.more).copied()
    }

    /// The id of every message, in order; empty if they are in the pre-commit buffer.
    pub fn ids(&self) -> impl Iterator<Item = LogId> + '_ {
        self.runs().flat_map(|run| run.ids())
    }
}
