//! The options of a stream.

use std::time::Duration;

use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::redact::Redaction;
use crate::sink::SinkSpec;

/// What happens to a line when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The thread that logs waits.
    #[default]
    Block,
    /// The line is dropped, counted, and reported in the log itself.
    ///
    /// Sinks without a queue write in the logging thread. It waits for a blocked sink once, for at
    /// most [`drain_limit`](crate::StreamOptions::drain_limit), and then not at all until the sink
    /// has taken a line again. (A registered type must implement this itself; files and descriptors
    /// that are pipes, terminals or sockets do.)
    Drop,
}

/// The options of a stream.
///
/// ```
/// use logdag::{Graph, SinkSpec, StreamOptions};
///
/// let graph = Graph::new();
/// graph.configure("ring", StreamOptions::new().sink(SinkSpec::memory(100, 10_000)))?;
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Its sink, if any.
    pub sink: Option<SinkSpec>,
    /// The format of lines there.
    pub format: Format,
    /// What lines through it show besides their messages.
    pub flags: Flags,
    /// Whether control characters are escaped in plain lines, if messages are split into lines: see
    /// [`Layout::escape`](crate::Layout::escape). On a terminal, they are always escaped.
    pub escape: bool,
    /// Whether `json` and `event` include the spans around a line.
    pub spans: bool,
    /// What is removed from lines through it before a sink gets them.
    pub redaction: Redaction,
    /// Whether lines go through it.
    pub enabled: bool,
    /// Whether the lines that come to it are counted, and those that its outlets' filters hold
    /// back, also in libmtev's statistics. (What its sink writes is counted in any case.)
    pub stats: bool,
    /// A line equal to the previous one within this time is counted instead of written; `None`
    /// turns this off. This applies to the stream's sink: a stream without one passes everything
    /// on. Repetitions are reported before the next different line, and by a flush.
    pub dedup: Option<Duration>,
    /// What happens when its queue is full; `None` means to block.
    pub when_full: Option<WhenFull>,
    /// A line whose message is longer than this, in bytes, is not written, but counted as failed.
    pub max_line: usize,
    /// How long flushing, going synchronous and ending wait for its sink. Lines that are not
    /// written by then are counted and reported.
    pub drain_limit: Duration,
    /// The size of its queue in bytes; an empty queue takes a line of any length.
    pub queue_bytes: usize,
}

impl StreamOptions {
    /// The default limit of a line: 16 MiB.
    pub const MAX_LINE: usize = 16 << 20;
    /// The default time for a sink: 5 seconds.
    pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
    /// The default size of a queue: 8 MiB.
    pub const QUEUE_BYTES: usize = 8 << 20;

    /// A stream without a sink, with the defaults of programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it writes to.
    #[must_use]
    pub fn sink(self, sink: SinkSpec) -> Self {
        Self { sink: Some(sink), ..self }
    }

    /// The format of lines there.
    #[must_use]
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// What lines through it show besides their messages.
    #[must_use]
    pub fn flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    /// See [`escape`](StreamOptions#structfield.escape).
    #[must_use]
    pub fn escape(self, yes: bool) -> Self {
        Self { escape: yes, ..self }
    }

    /// See [`spans`](StreamOptions#structfield.spans).
    #[must_use]
    pub fn spans(self, yes: bool) -> Self {
        Self { spans: yes, ..self }
    }

    /// What is removed from lines through it before a sink gets them.
    #[must_use]
    pub fn redaction(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }

    /// Whether lines go through it.
    #[must_use]
    pub fn enabled(self, yes: bool) -> Self {
        Self { enabled: yes, ..self }
    }

    /// See [`stats`](StreamOptions#structfield.stats).
    #[must_use]
    pub fn stats(self, yes: bool) -> Self {
        Self { stats: yes, ..self }
    }

    /// See [`dedup`](StreamOptions#structfield.dedup).
    #[must_use]
    pub fn dedup(self, within: impl Into<Option<Duration>>) -> Self {
        Self { dedup: within.into(), ..self }
    }

    /// What happens when its queue is full.
    #[must_use]
    pub fn when_full(self, when_full: impl Into<Option<WhenFull>>) -> Self {
        Self { when_full: when_full.into(), ..self }
    }

    /// See [`max_line`](StreamOptions#structfield.max_line).
    #[must_use]
    pub fn max_line(self, bytes: usize) -> Self {
        Self { max_line: bytes, ..self }
    }

    /// See [`drain_limit`](StreamOptions#structfield.drain_limit).
    #[must_use]
    pub fn drain_limit(self, time: Duration) -> Self {
        Self { drain_limit: time, ..self }
    }

    /// See [`queue_bytes`](StreamOptions#structfield.queue_bytes).
    #[must_use]
    pub fn queue_bytes(self, bytes: usize) -> Self {
        Self { queue_bytes: bytes, ..self }
    }
}

impl StreamOptions {
    /// Whether a sink that was opened with these options can stay open with others.
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
#[non_exhaustive]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: StreamOptions,
    /// All its outlets: without any, its lines go only to its own sink, whatever its parent. An
    /// outlet that is given twice counts once, with the first filter.
    pub outlets: Vec<(String, Option<Filter>)>,
}

impl StreamConfig {
    /// A stream without outlets.
    pub fn new(name: impl Into<String>, options: StreamOptions) -> Self {
        Self { name: name.into(), options, outlets: Vec::new() }
    }

    /// Adds an outlet to a stream.
    #[must_use]
    pub fn outlet(mut self, to: impl Into<String>, filter: Option<Filter>) -> Self {
        self.outlets.push((to.into(), filter));
        self
    }
}
