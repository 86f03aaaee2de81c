//! The thread that writes a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::guarded::guarded;
use super::losses::{counted, seconds};
use super::queue::{Batch, Queue};
use super::state::Slot;
use crate::format::Flags;
use crate::record::{Doing, While, now_micros};
use crate::sink::Lines;
use crate::sync::{MutexGuard, spawn, wait, wait_a_while};

/// Between batches, lines gather for this time, or until there are enough bytes: waking a thread
/// for every line costs the threads that log more than the write itself.
const GATHER: Duration = Duration::from_micros(500);
/// How often periodic work is done while there is nothing to write.
const TICK: Duration = Duration::from_secs(1);

impl Slot {
    /// Gives the sink a queue and a thread, if it may have one.
    pub(crate) fn go_async(self: &Arc<Self>) {
        let _busy = While::busy();
        let mut thread = self.thread.lock();
        if thread.is_some() || !self.sink.capabilities().may_be_asynchronous {
            return;
        }
        let writer = {
            let mut queue = self.queue.lock();
            // Set under the lock: a thread that finds the queue open must queue its next line, too,
            // or that line would overtake the one in the queue.
            self.asynchronous.store(true, Ordering::Release);
            (queue.stop, queue.ended) = (false, false);
            queue.writer += 1;
            queue.writer
        };
        let slot = Arc::clone(self);
        let name = format!("log-{}", self.stream).chars().take(15).collect();
        match spawn(name, move || slot.write_queue(writer)) {
            Ok(handle) => *thread = Some(handle),
            // Without a thread, the threads that log write their lines themselves.
            Err(e) => {
                self.queue.lock().stop = true;
                self.write_queue(writer);
                self.report(&format!("no thread for its queue: {e}"));
            }
        }
    }

    /// Runs the queue's thread.
    fn write_queue(&self, writer: u64) {
        let _writing = While::doing(Doing::Writing);
        let _ended = Ended(self, writer);
        let mut mine = Batch::default();
        let mut ticked = Instant::now();
        // For the schedule checker, only one tick per pause: a thread that ticks endlessly would
        // keep the others from continuing.
        let mut idle = false;
        let mut queue = self.queue.lock();
        loop {
            while queue.batch.ends.is_empty()
                && queue.unreported == 0
                && !queue.stop
                && queue.writer == writer
            {
                queue.asleep = true;
                if self.needs_ticks && !(idle && cfg!(feature = "shuttle")) {
                    queue = wait_a_while(&self.work, queue, TICK.saturating_sub(ticked.elapsed()));
                } else {
                    queue = wait(&self.work, queue);
                }
                queue.asleep = false;
                queue = self.tick_if_due(queue, &mut ticked, writer);
                idle = true;
            }
            idle = false;
            if queue.writer != writer || (queue.batch.ends.is_empty() && queue.unreported == 0) {
                return;
            }
            std::mem::swap(&mut mine, &mut queue.batch);
            queue.busy = true;
            queue.taken += mine.ends.len() as u64;
            let (unreported, since) = (std::mem::take(&mut queue.unreported), queue.since);
            queue.reporting = unreported;
            drop(queue);
            self.room.notify_all();
            let begun = self.latency.begin();
            let writing = self.writing.lock();
            if !mine.ends.is_empty() {
                let lines = Lines { bytes: &mine.bytes, ends: &mine.ends, start: 0 };
                self.write_of(&lines, || self.queue.lock().writer != writer);
            }
            // If this thread was given up, that has been reported already.
            if unreported > 0 && self.queue.lock().writer == writer {
                let line = self.own_line(
                    &format!("{} dropped since {}", counted(unreported), seconds(since)),
                    Flags::default(),
                );
                let ends = [(line.len(), now_micros())];
                self.write(&Lines { bytes: &line, ends: &ends, start: 0 });
            }
            drop(writing);
            self.latency.end(begun);
            let written = mine.ends.len() as u64;
            mine.clear(self.queue_bytes);
            queue = self.queue.lock();
            if queue.writer != writer {
                queue.came_back(written);
                self.room.notify_all();
                return;
            }
            queue.reporting = 0;
            if queue.batch.ends.is_empty() {
                drop(queue);
                if let Err(e) = guarded(|| self.sink.idle()) {
                    self.report(&e.to_string());
                }
                queue = self.queue.lock();
                if queue.writer != writer {
                    queue.came_back(written);
                    self.room.notify_all();
                    return;
                }
            }
            queue.done += written;
            queue.busy = false;
            self.room.notify_all();
            queue = self.tick_if_due(queue, &mut ticked, writer);
            if queue.batch.size() < self.enough_bytes() && queue.draining == 0 && !queue.stop {
                queue = wait_a_while(&self.work, queue, GATHER);
            }
        }
    }

    /// Does periodic work, if it is time. Called by the queue's thread.
    fn tick_if_due<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        ticked: &mut Instant,
        writer: u64,
    ) -> MutexGuard<'a, Queue> {
        // For the schedule checker, no time passes.
        if !self.needs_ticks || (ticked.elapsed() < TICK && !cfg!(feature = "shuttle")) {
            return queue;
        }
        if queue.writer == writer {
            queue.ticking = true;
        }
        drop(queue);
        self.report_an_old_repetition();
        {
            let _writing = self.writing.lock();
            let outcomes = [
                guarded(|| self.sink.tick()),
                guarded(|| self.sink.idle()),
                guarded(|| self.sink.trouble().map_or(Ok(()), Err)),
            ];
            for e in outcomes.into_iter().filter_map(Result::err) {
                self.report(&e.to_string());
            }
        }
        *ticked = Instant::now();
        let mut queue = self.queue.lock();
        if queue.writer == writer {
            queue.ticking = false;
        } else {
            queue.came_back(0);
            self.room.notify_all();
        }
        queue
    }
}

/// Ends a queue's thread: wakes waiting threads, even if a sink made the thread panic.
struct Ended<'a>(&'a Slot, u64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        if queue.writer != self.1 {
            // This thread was given up: its lines are counted already, and another thread may be at
            // work.
            return;
        }
        self.0.asynchronous.store(false, Ordering::Release);
        (queue.stop, queue.ended) = (true, true);
        queue.busy = false;
        let left = queue.batch.ends.len() as u64;
        queue.dropped += left;
        queue.batch.clear(0);
        queue.taken += left;
        queue.done = queue.taken;
        self.0.room.notify_all();
    }
}
