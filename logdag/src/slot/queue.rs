//! The lines that wait for a sink.

use super::latency::WriteTimes;
use super::losses::Lost;

/// The state of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Lines whose write has not begun.
    pub lines: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// The queue is full when it holds this many bytes.
    pub limit: u64,
    /// The time of the oldest of them, in microseconds since 1970 UTC; `None` if none waits, or the
    /// sink needs no times.
    pub oldest_micros: Option<u64>,
    /// When the current write began, in microseconds since 1970 UTC; `None` without one.
    pub writing_micros: Option<u64>,
    /// How long writes have taken.
    pub writes: WriteTimes,
}

/// Lines that wait, without gaps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<(usize, u64)>,
}

impl Batch {
    /// Memory of a line's end.
    pub(super) const END: usize = size_of::<(usize, u64)>();

    /// Bytes that it takes; empty lines take some as well.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * Self::END
    }

    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.ends.clear();
        // What one flood needed is not kept forever.
        self.bytes.shrink_to(keep);
        self.ends.shrink_to(keep / Self::END);
    }
}

/// In this order: what every line touches is in one cache line, behind the lock.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    pub(super) batch: Batch,
    pub(super) stop: bool,
    /// The writer waits for the next line, whenever that may come.
    pub(super) asleep: bool,
    /// The writer has lines that are not written yet.
    pub(super) busy: bool,
    /// The writer does what is to be done because time has passed.
    pub(super) ticking: bool,
    /// The number of the thread that writes it. Others were given up and are to end.
    pub(super) writer: u64,
    pub(super) ended: bool,
    /// How many threads that were given up are still within the sink.
    pub(super) stuck: usize,
    /// How many threads wait until everything is written.
    pub(super) draining: usize,
    /// Lines that the writer has taken, and those of them that are written (or lost).
    pub(super) taken: u64,
    pub(super) done: u64,
    pub(super) dropped: u64,
    /// Dropped since that was last reported in the log, and since when.
    pub(super) unreported: u64,
    pub(super) since: u64,
    /// Those of them that its thread is about to report.
    pub(super) reporting: u64,
}

/// Lines that were given up.
pub(super) struct GivenUp {
    /// Those that were not written, or not to their end.
    pub(super) left: Lost,
    /// Those that were dropped before, which nothing has reported.
    pub(super) unreported: u64,
}

impl Queue {
    /// Gives its thread up: lines that have not come back from the sink count as dropped until they
    /// do.
    pub(super) fn give_up(&mut self) -> GivenUp {
        let waiting = self.batch.ends.len() as u64;
        let within_sink = self.taken - self.done;
        let left = waiting + within_sink;
        let unreported = std::mem::take(&mut self.unreported) + std::mem::take(&mut self.reporting);
        self.batch.clear(0);
        self.dropped += left;
        self.taken += waiting;
        self.done = self.taken;
        self.writer += 1;
        self.stuck += usize::from(self.busy || self.ticking);
        (self.busy, self.ticking, self.ended) = (false, false, true);
        GivenUp { left: Lost { lines: left, within_sink }, unreported }
    }

    /// A thread that was given up is back from the sink: its lines, which were counted as dropped,
    /// have come through after all, or have been counted as failed.
    pub(super) fn came_back(&mut self, lines: u64) {
        self.dropped = self.dropped.saturating_sub(lines);
        self.stuck = self.stuck.saturating_sub(1);
    }

    #[inline]
    pub(super) fn push(&mut self, line: &[u8], micros: u64) {
        self.batch.bytes.extend_from_slice(line);
        self.batch.ends.push((self.batch.bytes.len(), micros));
    }
}
