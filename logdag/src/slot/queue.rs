//! The lines that wait for a sink.

use super::latency::WriteTimes;
use super::losses::Lost;

/// The state of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Lines whose write has not begun.
    pub lines: u64,
    /// The bytes that these lines take.
    pub bytes: u64,
    /// The queue is full when it holds this many bytes.
    pub limit: u64,
    /// The time of the oldest waiting line, in microseconds since 1970 UTC; `None` if none waits,
    /// or if the sink needs no times.
    pub oldest_micros: Option<u64>,
    /// When the current write began, in microseconds since 1970 UTC; `None` if there is none.
    pub writing_micros: Option<u64>,
    /// How long writes have taken.
    pub writes: WriteTimes,
}

/// Waiting lines, stored without gaps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<(usize, u64)>,
}

impl Batch {
    /// The memory that a line's end takes.
    pub(super) const END: usize = size_of::<(usize, u64)>();

    /// The bytes that the batch takes. Empty lines count, too, because of their ends.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * Self::END
    }

    /// Whether a line of this length may be added. A line that is longer than the limit may be the
    /// only one.
    #[inline]
    pub(super) fn has_room(&self, line: usize, limit: usize) -> bool {
        self.ends.is_empty() || self.size() + line <= limit
    }

    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.ends.clear();
        // Do not keep forever what one flood of lines needed.
        self.bytes.shrink_to(keep);
        self.ends.shrink_to(keep / Self::END);
    }
}

/// The order of the fields matters: those that every line touches share a cache line with the lock.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    pub(super) batch: Batch,
    pub(super) stop: bool,
    /// The writer sleeps until the next line.
    pub(super) asleep: bool,
    /// The writer has lines that are not written yet.
    pub(super) busy: bool,
    /// The writer is doing periodic work.
    pub(super) ticking: bool,
    /// The number of the thread that writes the queue. Threads with other numbers were given up,
    /// and must end.
    pub(super) writer: u64,
    pub(super) ended: bool,
    /// How many threads that were given up are still inside the sink.
    pub(super) stuck: usize,
    /// How many threads wait until everything is written.
    pub(super) draining: usize,
    /// How many lines the writer has taken, and how many of these are written (or lost).
    pub(super) taken: u64,
    pub(super) done: u64,
    pub(super) dropped: u64,
    /// How many lines were dropped since the last report in the log, and since when.
    pub(super) unreported: u64,
    pub(super) since: u64,
    /// How many dropped lines the thread is about to report.
    pub(super) reporting: u64,
}

/// Lines that were given up.
pub(super) struct GivenUp {
    /// Lines that were not written, or only in part.
    pub(super) left: Lost,
    /// Lines that were dropped before and not reported.
    pub(super) unreported: u64,
}

impl Queue {
    /// Gives up the queue's thread. Lines that have not come back from the sink count as dropped
    /// until they do.
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

    /// Called when a thread that was given up returns from the sink. Its lines, which were counted
    /// as dropped, are written after all, or have been counted as failed.
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
