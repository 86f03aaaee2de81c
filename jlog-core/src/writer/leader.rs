//! Durable appends by several threads at the same time: one thread writes the messages of all of
//! them in one write, and syncs once. Threads share syncs anyway; this also saves a lock, a write
//! and a wake-up per message.

use std::sync::Arc;

use super::appended::Appended;
use super::batch::LARGE_BODY;
use super::group::{News, Slot, Waiting};
use super::state::Core;
use crate::options::SyncPolicy;
use crate::{LogId, Result, Timestamp};

/// How often a thread writes for others before its own append returns. Handing over is slow: the
/// next leader must be woken, and it waits for a processor behind all threads whose appends have
/// just returned. Nobody writes meanwhile.
const MOST_TURNS: usize = 16;

/// Held by the thread that writes for others. When that thread stops, even by a panic, another one
/// takes over.
struct Leader<'a>(&'a Core);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.group.queue.lock();
        match queue.waiting.first() {
            Some(next) => next.slot.notify(News::Lead),
            None => queue.led = false,
        }
    }
}

/// Messages that were taken from the queue. Dropping this wakes the threads that still wait.
struct Taken<'a> {
    core: &'a Core,
    waiting: std::vec::IntoIter<Waiting>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for left in self.waiting.by_ref() {
            let why = "the thread that wrote and synced for others has ended";
            left.slot.notify(News::Done(Err(self.core.sync_error(why))));
        }
    }
}

impl Core {
    pub(super) fn append(&self, time: Timestamp, body: &[u8]) -> Result<Appended> {
        self.check_sync_failed()?;
        if self.policy == SyncPolicy::EachAppend && body.len() < LARGE_BODY {
            return self.append_with_others(time, body);
        }
        self.append_alone(time, body)
    }

    /// Appends and syncs a message together with those that other threads append at the same time.
    fn append_with_others(&self, time: Timestamp, body: &[u8]) -> Result<Appended> {
        let mut queue = self.group.queue.lock();
        if !std::mem::replace(&mut queue.led, true) {
            drop(queue);
            let leader = Leader(self);
            let outcome = self.append_alone(time, body);
            leader.write_for_others();
            return outcome;
        }
        let slot = Arc::new(Slot::default());
        queue.waiting.push(Waiting { time, body: body.to_vec(), slot: Arc::clone(&slot) });
        drop(queue);
        match slot.wait() {
            News::Done(outcome) => outcome,
            News::Lead => {
                Leader(self).write_for_others();
                // Its own message was among them.
                match slot.wait() {
                    News::Done(outcome) => outcome,
                    News::Lead => Err(self.sync_error("a message was not taken from the queue")),
                }
            }
        }
    }

    /// Appends messages in as few writes as possible. Returns the place of each, and the count of
    /// appends that includes them.
    pub(super) fn place_all<'m>(
        &self,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
        past_buffer: bool,
    ) -> (Vec<Result<Appended>>, u64) {
        let mut outcomes = Vec::with_capacity(count);
        let mut appender = self.appender.lock();
        let placed = self.place_batch(&mut appender, count, &message, past_buffer, |last, count| {
            outcomes.extend((0..count).map(|n| Ok(before(last, count - 1 - n))));
        });
        if placed.is_err() {
            // Try one by one, so that each message is appended or gets its own error.
            for n in outcomes.len()..count {
                let (time, body) = message(n);
                let mut scratch = Vec::new();
                let record = self.encode(time, body, &mut scratch);
                let placed = record.and_then(|record| self.place(&mut appender, time, &record, past_buffer));
                outcomes.push(placed);
            }
        }
        (outcomes, appender.written)
    }
}

impl Leader<'_> {
    fn write_for_others(&self) {
        for _ in 0..MOST_TURNS {
            let waiting = std::mem::take(&mut self.0.group.queue.lock().waiting);
            if waiting.is_empty() {
                return;
            }
            let mut taken = Taken { core: self.0, waiting: waiting.into_iter() };
            let left = taken.waiting.as_slice();
            let message = |n: usize| (left[n].time, &left[n].body[..]);
            let (outcomes, written) = self.0.place_all(left.len(), message, true);
            for outcome in outcomes {
                // The first call syncs for all of them.
                let outcome = outcome.and_then(|placed| self.0.wait_durable(written).map(|()| placed));
                if let Some(waiting) = taken.waiting.next() {
                    waiting.slot.notify(News::Done(outcome));
                }
            }
        }
    }
}

/// The place of the message that is `count` messages before the last.
fn before(last: Appended, count: usize) -> Appended {
    match last {
        Appended::Buffered => Appended::Buffered,
        Appended::InSegment(id) => {
            let count = u32::try_from(count).unwrap_or(0);
            Appended::InSegment(LogId::new(id.segment, id.marker - count))
        }
    }
}
