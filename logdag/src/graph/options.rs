//! The options of a stream.

use std::time::Duration;

use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::redact::Redaction;
use crate::sink::{SinkSpec, WhenFull};

use super::GraphError;

/// What a stream is.
///
/// ```
/// use logdag::{Graph, SinkSpec, StreamOptions};
///
/// let sink = SinkSpec { kind: "memory".into(), path: "100,10000".into(), ..SinkSpec::default() };
/// let graph = Graph::new();
/// graph.configure("ring", StreamOptions { sink: Some(sink), ..StreamOptions::default() })?;
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// What it writes to, if anything.
    pub sink: Option<SinkSpec>,
    /// How lines look there.
    pub format: Format,
    /// What lines through it show besides their messages.
    pub flags: Flags,
    /// Whether plain lines have control characters escaped where messages are split into lines: see
    /// [`Layout::escape`](crate::Layout::escape). On a terminal they are escaped in any case.
    pub escape: bool,
    /// Whether `json` and `event` have the spans around a line.
    pub spans: bool,
    /// What lines through it lose before a sink gets them.
    pub redaction: Redaction,
    /// Whether lines go through it.
    pub enabled: bool,
    /// Whether its lines are counted where statistics are asked for by the names that libmtev gives them. (They are counted in
    /// any case.)
    pub stats: bool,
    /// A line equal to the one before it within this time is counted, not written; never with `None`. This
    /// is for the stream's sink: a stream without one passes everything on. Repetitions are reported before the
    /// next other line, and by a flush.
    pub dedup: Option<Duration>,
    /// What happens when its queue is full; `None` is to block.
    pub when_full: Option<WhenFull>,
    /// A line whose message is longer than this, in bytes, is not written, but counted as failed.
    pub max_line: usize,
    /// Flushing, going synchronous and ending wait no longer than this for its sink. What was not written then is counted
    /// and reported.
    pub drain_limit: Duration,
    /// Its queue is full when it holds this many bytes; an empty queue takes a line of any length.
    pub queue_bytes: usize,
}

impl StreamOptions {
    /// The default limit of a line: 16 MiB.
    pub const MAX_LINE: usize = 16 << 20;
    /// The default time for a sink: 5 seconds.
    pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
    /// The default size of a queue: 8 MiB.
    pub const QUEUE_BYTES: usize = 8 << 20;
}

impl StreamOptions {
    /// Whether a sink that was opened for these options can stay open with the others.
    pub(crate) fn same_sink(&self, other: &Self) -> bool {
        let Self { enabled, flags, stats, .. } = *self;
        *self == Self { enabled, flags, stats, ..other.clone() }
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            sink: None,
            format: Format::default(),
            flags: Flags::default(),
            escape: true,
            spans: true,
            redaction: Redaction::default(),
            enabled: true,
            stats: false,
            dedup: None,
            when_full: None,
            max_line: Self::MAX_LINE,
            drain_limit: Self::DRAIN_LIMIT,
            queue_bytes: Self::QUEUE_BYTES,
        }
    }
}

/// A stream that is set up together with others.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// What it is.
    pub options: StreamOptions,
    /// Its outlets, and no others: without any, its lines go to its own sink only, whatever its name is below. An outlet
    /// that is given twice counts once, with the first filter.
    pub outlets: Vec<(String, Option<Filter>)>,
}

/// Why streams that were to be set up together were not: nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct ApplyError {
    /// The place in the list of the stream that cannot be set up; `None` for one that is not in the list, and was to become
    /// what it was before.
    pub index: Option<usize>,
    /// What is wrong with it.
    pub error: GraphError,
}
