//! Writes lines to the sink, and counts and reports those that it does not take.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::guarded::guarded;
use super::losses::{Lost, counted, seconds};
use super::state::Slot;
use crate::format::Flags;
use crate::level::Level;
use crate::options::WhenFull;
use crate::patience::{self, Patience};
use crate::record::{Doing, While, now_micros};
use crate::sink::{Lines, WriteError, journald};
use crate::sync::{MutexGuard, lock_at_once, lock_until};

/// The minimum time between two reports of a sink's errors on stderr.
const REPORT_EVERY_MICROS: u64 = 10_000_000;
/// How long a report of lines that limits have left out waits for the thread that is writing to a
/// sink without a queue.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// Adds to a counter that only the holder of the right to write changes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Slot {
    pub(super) fn write_one(&self, line: &[u8], micros: u64) -> bool {
        let ends = [(line.len(), micros)];
        let lines = Lines { bytes: line, ends: &ends, start: 0 };
        if self.is_ring {
            let written = self.write_to_sink(&lines);
            return written.map_err(|e| self.lose(1, e.error)).is_ok();
        }
        let Some(_writing) = self.right_to_write() else {
            if Doing::now() == Doing::Reporting {
                let why = "a report is not written: its sink is busy";
                self.lose(1, io::Error::new(io::ErrorKind::TimedOut, why));
            } else {
                self.give_up_line();
            }
            return false;
        };
        let written = self.write(&lines);
        // Without a queue, no thread calls `idle` when there is nothing more to write.
        if self.buffers {
            let _writing = While::doing(Doing::Writing);
            if let Err(e) = guarded(|| self.sink.line_written()) {
                self.report(&e.to_string());
            }
        }
        written
    }

    /// How long this thread waits for the sink; `None` means without a limit.
    fn patience(&self) -> Option<Instant> {
        if Doing::now() == Doing::Reporting {
            return Some(Instant::now() + REPORT_WAIT);
        }
        self.gives_up().then(|| {
            let now = Instant::now();
            if self.behind.load(Ordering::Relaxed) { now } else { self.limit_from(now) }
        })
    }

    /// Waits until no thread writes, or until this thread's patience ends.
    fn right_to_write(&self) -> Option<MutexGuard<'_, ()>> {
        if let Some(writing) = lock_at_once(&self.writing) {
            return Some(writing);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let writing = match self.patience() {
            None => Some(self.writing.lock()),
            Some(deadline) => lock_until(&self.writing, deadline),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        writing
    }

    /// Counts and reports a line that the sink has not taken in time.
    #[cold]
    fn give_up_line(&self) {
        self.behind.store(true, Ordering::Relaxed);
        self.queue.lock().dropped += 1;
        let why = self.not_taken();
        self.report(&format!("lines dropped: {why}"));
        self.note_loss(Lost { lines: 1, within_sink: 0 }, io::Error::new(io::ErrorKind::TimedOut, why));
    }

    /// Takes back the count of a line that was given up, but was written or counted elsewhere
    /// later.
    #[cold]
    pub(super) fn came_back(&self) {
        let mut queue = self.queue.lock();
        self.late.store(self.late.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        queue.dropped = queue.dropped.saturating_sub(1);
        drop(queue);
        let mut losses = self.losses.lock();
        let line = Lost { lines: 1, within_sink: 0 };
        losses.unreported.subtract(line);
        losses.lost.subtract(line);
        if losses.lost.lines == 0 {
            losses.why = None;
        }
    }

    /// Uncounts the lines of a queue's thread that was given up, once they have come back from the
    /// sink: they count as written, or as lost again.
    #[cold]
    fn batch_came_back(&self, lines: u64) {
        let mut losses = self.losses.lock();
        losses.unreported.came_back(lines);
        losses.lost.came_back(lines);
        if losses.lost.lines == 0 {
            losses.why = None;
        }
    }

    /// Writes lines. Returns whether all of them were written. Requires: the right to write.
    pub(super) fn write(&self, lines: &Lines<'_>) -> bool {
        self.write_of(lines, || false)
    }

    /// The same for a queue's thread, which may be given up during the write.
    pub(super) fn write_of(&self, lines: &Lines<'_>, given_up: impl FnOnce() -> bool) -> bool {
        let count = |lines: &Lines<'_>| {
            add(&self.written.lines, lines.len() as u64);
            add(&self.written.bytes, lines.bytes().len() as u64);
        };
        let (mut rest, mut all) = (*lines, true);
        let written = loop {
            match self.write_to_sink(&rest) {
                Err(WriteError { written, error })
                    if error.kind() == io::ErrorKind::InvalidData && written < rest.len() =>
                {
                    let (there, others) = rest.split(written);
                    count(&there);
                    self.lose(1, error);
                    (rest, all) = (others.split(1).1, false);
                    if rest.is_empty() {
                        break Ok(());
                    }
                }
                written => break written,
            }
        };
        if given_up() {
            self.batch_came_back(lines.len() as u64);
        }
        if let Ok(Some(trouble)) = catch_unwind(AssertUnwindSafe(|| self.sink.trouble())) {
            self.report(&trouble.to_string());
        }
        let all = match written {
            Ok(()) => {
                count(&rest);
                if self.behind.load(Ordering::Relaxed) {
                    self.behind.store(false, Ordering::Relaxed);
                }
                if self.late.load(Ordering::Relaxed) > 0 {
                    self.came_back();
                }
                // If nothing was written, the log may not take the report either.
                if all || !rest.is_empty() {
                    self.report_in_the_log();
                }
                all
            }
            Err(WriteError { written, error }) => {
                let (there, lost) = rest.split(written);
                count(&there);
                if error.kind() == io::ErrorKind::TimedOut && self.gives_up() {
                    lost.iter().for_each(|_| self.give_up_line());
                } else {
                    self.lose(lost.len() as u64, error);
                }
                if self.late.load(Ordering::Relaxed) > 0 {
                    // The late lines are counted now.
                    self.came_back();
                }
                false
            }
        };
        if self.reopens.load(Ordering::Relaxed) && self.reopens.swap(false, Ordering::SeqCst) {
            let _doing = While::doing(Doing::Writing);
            if let Err(e) = guarded(|| self.sink.reopen()) {
                self.report(&e.to_string());
            }
        }
        all
    }

    /// Reports lost lines in the log, once it can be written to again. Requires: the right to
    /// write.
    fn report_in_the_log(&self) {
        let (unreported, what) = {
            let losses = self.losses.lock();
            let unreported = losses.unreported;
            if unreported.lines == 0 {
                return;
            }
            (
                unreported,
                format!("{unreported} lost since {}: {}", seconds(losses.since), losses.unreported_why),
            )
        };
        let line = self.own_line(&what, Flags::default());
        let ends = [(line.len(), now_micros())];
        if self.write_to_sink(&Lines { bytes: &line, ends: &ends, start: 0 }).is_ok() {
            add(&self.written.lines, 1);
            add(&self.written.bytes, line.len() as u64);
            // More lines may have been lost by now.
            self.losses.lock().unreported.subtract(unreported);
        }
    }

    fn write_to_sink(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        // A panic of a sink is a failure: the queue and the threads that log continue.
        let limited = self.patience().map(Patience::until);
        let written = catch_unwind(AssertUnwindSafe(|| {
            let _writing = While::doing(Doing::Writing);
            self.sink.write(lines)
        }));
        drop(limited);
        written.unwrap_or_else(|_| Err(io::Error::other("the sink panicked").into()))
    }

    /// Whether lines that the sink does not take in time are dropped. With a queue, they wait there
    /// instead.
    fn gives_up(&self) -> bool {
        self.when_full == WhenFull::Drop && !self.asynchronous.load(Ordering::Relaxed)
    }

    /// Counts and reports lost lines, and makes the next flush fail.
    pub(super) fn lose(&self, lines: u64, why: io::Error) {
        let failed = self.written.failed.fetch_add(lines, Ordering::Relaxed) + lines;
        self.report(&format!("{} lost: {why}", counted(failed)));
        self.note_loss(Lost { lines, within_sink: 0 }, why);
    }

    /// Notes lost lines that are already counted: the next flush fails, and the log gets a report
    /// when it can be written to.
    pub(super) fn note_loss(&self, lost: Lost, why: io::Error) {
        if lost.lines == 0 {
            return;
        }
        let mut losses = self.losses.lock();
        losses.lost.add(lost);
        if losses.unreported.lines == 0 {
            losses.since = now_micros();
        }
        losses.unreported.add(lost);
        losses.unreported_why = why.to_string();
        losses.why.get_or_insert(why);
    }

    pub(crate) fn report_on_stderr(&self, what: &str) {
        // There is nowhere else to report this.
        let mut line = format!("log stream {}: {what}\n", self.stream).into_bytes();
        if journald::is_on_stderr() {
            journald::prefix_lines(Level::Warn.severity(), &mut line);
        }
        patience::report(&line);
    }

    /// Reports trouble on standard error, where no report can come back to this sink.
    pub(super) fn report(&self, what: &str) {
        let now = now_micros();
        let reported = self.reported.load(Ordering::Relaxed);
        let due = reported == 0 || now.saturating_sub(reported) >= REPORT_EVERY_MICROS;
        if due && self.reported.compare_exchange(reported, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.report_on_stderr(what);
        }
    }
}
