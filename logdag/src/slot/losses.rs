//! The lines that were lost, and which of them are still to be reported.

use std::fmt;
use std::io;

/// The lines that were lost, and which of them are still to be reported.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The lines lost since the last flush, and why the first of them was lost.
    pub(super) lost: Lost,
    pub(super) why: Option<io::Error>,
    /// The lines lost since the last report in the log, since when, and why the last of them was
    /// lost.
    pub(super) unreported: Lost,
    pub(super) since: u64,
    pub(super) unreported_why: String,
}

/// A number of lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub(super) lines: u64,
    /// How many of them are still inside a sink that was given up: these may be written after all.
    pub(super) within_sink: u64,
}

impl Lost {
    pub(super) fn add(&mut self, more: Self) {
        self.lines += more.lines;
        self.within_sink += more.within_sink;
    }

    pub(super) fn subtract(&mut self, reported: Self) {
        self.lines = self.lines.saturating_sub(reported.lines);
        self.within_sink = self.within_sink.saturating_sub(reported.within_sink);
    }

    /// Takes back lines that have returned from the sink: it has written them, or they are counted
    /// as lost again.
    pub(super) fn came_back(&mut self, lines: u64) {
        let lines = lines.min(self.within_sink);
        self.subtract(Self { lines, within_sink: lines });
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A single line is certainly not written whole.
        let most = if self.within_sink > 1 { "up to " } else { "" };
        write!(f, "{most}{}", counted(self.lines))
    }
}

/// A number of lines.
pub(super) fn counted(n: u64) -> String {
    format!("{n} line{}", if n == 1 { "" } else { "s" })
}

/// Microseconds since 1970, as a time.
pub(super) fn seconds(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|t| jiff::Timestamp::from_microsecond(t).ok());
    format!("{:.6}", time.unwrap_or_default())
}
