//! Drains, flushes, reopens and ends a sink, waiting for it no longer than its limit.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::guarded::guarded;
use super::losses::{Lost, counted};
use super::queue::{GivenUp, Queue};
use super::state::Slot;
use crate::record::{Doing, While, now_micros};
use crate::sink::{Lines, Sink};
use crate::sync::{MutexGuard, is_this_thread, lock_at_once, lock_until, wait_until};

/// A flush that has begun.
#[derive(Debug)]
pub(crate) struct Flush {
    /// A line that is still to be written.
    line: Option<Vec<u8>>,
    /// The number of lines that must have left the queue.
    until: u64,
}

/// Ends the queues of these sinks, all at the same time so that none waits for another.
pub(crate) fn go_sync(slots: &[Arc<Slot>]) {
    slots.iter().for_each(|slot| slot.stop());
    let deadlines: Vec<Instant> = slots.iter().map(|slot| slot.deadline()).collect();
    slots.iter().zip(deadlines).for_each(|(slot, deadline)| slot.go_sync(deadline));
}

impl Slot {
    /// Holds back lines that are logged from now on, until the guard is dropped. Requires: signal
    /// handlers do not log.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }

    pub(crate) fn drain_limit(&self) -> Duration {
        self.drain_limit
    }

    /// The deadline of a wait for this sink that begins now. There is no wait for a sink that was
    /// given up and is not back yet: a program that ends drains and flushes, and would wait each
    /// time.
    pub(crate) fn deadline(&self) -> Instant {
        let _busy = While::busy();
        let now = Instant::now();
        if self.queue.lock().stuck > 0 || self.late.load(Ordering::Relaxed) > 0 {
            return now;
        }
        self.limit_from(now)
    }

    pub(super) fn limit_from(&self, now: Instant) -> Instant {
        // A limit beyond the range of the clock is no limit: a year will do.
        now.checked_add(self.drain_limit).unwrap_or(now + Duration::from_secs(31_536_000))
    }

    /// Tells the thread to write everything that waits, and to end.
    pub(crate) fn stop(&self) {
        let _busy = While::busy();
        if self.thread.lock().is_some() {
            self.queue.lock().stop = true;
            self.work.notify_all();
            self.room.notify_all();
        }
    }

    /// Whether the queue has ended, and nothing is being written any more.
    pub(crate) fn has_ended(&self) -> bool {
        let _busy = While::busy();
        let threaded = lock_at_once(&self.thread).map(|thread| thread.is_some());
        match threaded {
            Some(true) => self.queue.lock().ended,
            Some(false) => lock_at_once(&self.writing).is_some(),
            // Another thread is ending it right now.
            None => false,
        }
    }

    /// Writes everything that waits, and ends the thread. Lines that are not written by the
    /// deadline are counted as dropped and reported; a thread that is still inside the sink ends
    /// when it returns from there.
    pub(crate) fn go_sync(&self, deadline: Instant) {
        let _busy = While::busy();
        // Held to the end: a new thread must not begin before the old one has written its lines.
        let mut held = self.thread.lock();
        let Some(thread) = held.take() else {
            drop(held);
            return self.wait_for_those_who_write(deadline);
        };
        let mut queue = self.queue.lock();
        queue.stop = true;
        self.work.notify_all();
        self.room.notify_all();
        if is_this_thread(&thread) {
            return;
        }
        while !queue.ended {
            let in_time;
            (queue, in_time) = wait_until(&self.room, queue, deadline);
            if !in_time && !queue.ended {
                let given_up = queue.give_up();
                let why = self.not_taken();
                self.note_loss(given_up.left, io::Error::new(io::ErrorKind::TimedOut, &*why));
                // The thread that would have reported these is gone.
                self.losses.lock().unreported.lines += given_up.unreported;
                self.room.notify_all();
                drop(queue);
                self.report_not_written(&given_up, &why);
                return;
            }
        }
        drop(queue);
        // If it panicked, it was in the sink, and its lines are counted as failed.
        let _ = thread.join();
    }

    /// Waits for threads that write their lines themselves. Lines that are not written by the
    /// deadline are reported, and count as dropped until they are written.
    fn wait_for_those_who_write(&self, deadline: Instant) {
        // A sink that calls this would wait for itself.
        if self.is_ring || Doing::now() == Doing::Writing || lock_until(&self.writing, deadline).is_some() {
            return;
        }
        let mut queue = self.queue.lock();
        if self.late.load(Ordering::Relaxed) == 0 {
            let lines = self.lines_under_way(&queue);
            if lines == 0 {
                return;
            }
            self.late.store(lines, Ordering::Relaxed);
            queue.dropped += lines;
            drop(queue);
            // Each is a thread's only line, which the sink has not taken whole.
            let given_up = GivenUp { left: Lost { lines, within_sink: 0 }, unreported: 0 };
            let why = self.not_taken();
            self.note_loss(given_up.left, io::Error::new(io::ErrorKind::TimedOut, &*why));
            self.report_not_written(&given_up, &why);
        }
    }

    /// How many lines belong to threads that are in the sink or wait for it. The lines of a queue's
    /// thread that was given up, and is not back, are already counted as dropped.
    fn lines_under_way(&self, queue: &Queue) -> u64 {
        u64::from(queue.stuck == 0) + self.waiting.load(Ordering::Relaxed)
    }

    /// Why lines are given up.
    pub(super) fn not_taken(&self) -> String {
        format!("its sink has not taken them for {:?}", self.drain_limit)
    }

    /// Reports lines that were given up.
    fn report_not_written(&self, &GivenUp { left, unreported }: &GivenUp, why: &str) {
        let dropped = match unreported {
            0 => String::new(),
            unreported => format!("; {} dropped before, as its queue was full", counted(unreported)),
        };
        self.report_on_stderr(&format!("{left} not written: {why}{dropped}"));
    }

    /// Makes the thread write everything that was logged before soon. Returns what to pass to
    /// [`finish_drain`](Self::finish_drain).
    pub(crate) fn start_drain(&self) -> u64 {
        let _busy = While::busy();
        let queue = self.queue.lock();
        self.work.notify_one();
        queue.taken + queue.batch.ends.len() as u64
    }

    /// Waits until everything that was logged before is written.
    ///
    /// # Errors
    /// The sink takes too long; the error says how much is left.
    pub(crate) fn finish_drain(&self, until: u64, deadline: Instant) -> io::Result<()> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that drains would wait for itself.
            return Ok(());
        }
        let mut queue = self.queue.lock();
        queue.draining += 1;
        let mut in_time = true;
        while queue.done < until && in_time {
            self.work.notify_one();
            (queue, in_time) = wait_until(&self.room, queue, deadline);
        }
        queue.draining -= 1;
        match until.saturating_sub(queue.done) {
            0 => Ok(()),
            lines => {
                let left = Lost { lines, within_sink: lines.min(queue.taken - queue.done) };
                Err(self.takes_too_long(&format!("{left} not written yet")))
            }
        }
    }

    fn takes_too_long(&self, what: &str) -> io::Error {
        let why = format!("{what}: its sink takes longer than {:?}", self.drain_limit);
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Does something with the sink when no thread is writing to it.
    ///
    /// # Errors
    /// The error of the work, or that a write takes too long.
    pub(crate) fn with_sink<R>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&dyn Sink) -> io::Result<R>,
    ) -> io::Result<R> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that calls this would wait for itself.
            return work(&*self.sink);
        }
        let Some(_writing) = lock_until(&self.writing, deadline) else {
            return Err(self.takes_too_long("it is busy"));
        };
        let _doing = While::doing(Doing::Writing);
        work(&*self.sink)
    }

    /// Reopens the sink: now, or at the end of a write that takes long.
    pub(crate) fn reopen(&self, deadline: Instant) -> io::Result<()> {
        // Set before the wait: the writing thread checks this after its write, and cannot miss it.
        self.reopens.store(true, Ordering::SeqCst);
        self.with_sink(deadline, |sink| {
            if self.reopens.swap(false, Ordering::SeqCst) { sink.reopen() } else { Ok(()) }
        })
    }

    /// The first half of a flush: reports repetitions, and makes the thread write everything that
    /// was logged before soon.
    pub(crate) fn start_flush(&self) -> Flush {
        let _busy = While::busy();
        let mut line = self.ended_repetition(&mut self.repetition.lock());
        let mut queue = self.queue.lock();
        if self.asynchronous.load(Ordering::Acquire)
            && !queue.stop
            && let Some(line) = line.take()
        {
            // Even if the queue is full: this line is short.
            queue.push(&line, now_micros());
        }
        drop(queue);
        Flush { line, until: self.start_drain() }
    }

    /// The second half of a flush: waits for the first half, and makes the lines durable. Also
    /// fails if lines were lost since the last flush.
    pub(crate) fn finish_flush(&self, flush: Flush, deadline: Instant) -> io::Result<()> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that flushes would wait for itself.
            return Ok(());
        }
        let flushed = self.finish_drain(flush.until, deadline).and_then(|()| {
            let Some(_writing) = lock_until(&self.writing, deadline) else {
                let what = match self.lines_under_way(&self.queue.lock()) {
                    0 => "a write that was given up has not ended".to_owned(),
                    lines => format!("{} not written yet", counted(lines)),
                };
                return Err(self.takes_too_long(&what));
            };
            if let Some(line) = flush.line {
                let ends = [(line.len(), now_micros())];
                self.write(&Lines { bytes: &line, ends: &ends, start: 0 });
            }
            let _doing = While::doing(Doing::Writing);
            guarded(|| self.sink.idle().and_then(|()| self.sink.flush()))
        });
        let mut losses = self.losses.lock();
        match (std::mem::take(&mut losses.lost), losses.why.take()) {
            (lost, Some(why)) => Err(io::Error::new(why.kind(), format!("{lost} lost: {why}"))),
            _ => flushed,
        }
    }
}
