//! What was lost, and what is still to be said of it.

use std::fmt;
use std::io;

/// Lines that were lost, and what is still to be said of them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Lines that were lost since the last flush, and why the first of them was.
    pub(super) lost: Lost,
    pub(super) why: Option<io::Error>,
    /// Lost since that was last reported in the log, since when, and why the last of them was.
    pub(super) unreported: Lost,
    pub(super) since: u64,
    pub(super) unreported_why: String,
}

/// A number of lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub(super) lines: u64,
    /// Those of them that are still within a sink that was given up: they may come through after
    /// all.
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

    /// Lines have come back from the sink: they are written, or counted as lost once more.
    pub(super) fn came_back(&mut self, lines: u64) {
        let lines = lines.min(self.within_sink);
        self.subtract(Self { lines, within_sink: lines });
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a single line it is known that the sink has not taken all of it.
        let most = if self.within_sink > 1 { "up to " } else { "" };
        write!(f, "{most}{}", counted(self.lines))
    }
}

/// A number of lines.
pub(super) fn counted(n: u64) -> String {
    format!("{n} line{}", if n == 1 { "" } else { "s" })
}
