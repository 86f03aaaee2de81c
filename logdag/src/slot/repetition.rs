//! Lines that repeat the previous one (`dedup_seconds`).

use std::time::{Duration, Instant};

use super::state::{Repeated, Repetition, Slot};
use crate::format::{Flags, event_body};
use crate::record::{Record, now_micros};

impl Slot {
    /// Queues the report of a repetition whose time is over, so that it comes before the next line.
    pub(super) fn report_an_old_repetition(&self) {
        let mut repetition = self.repetition.lock();
        let over = |last: &Repeated| {
            last.came.elapsed() >= Duration::from_micros(self.dedup_micros) || cfg!(feature = "shuttle")
        };
        if repetition.last.as_ref().is_some_and(over)
            && let Some(line) = self.ended_repetition(&mut repetition)
        {
            // Even if the queue is full: this line is short, and the thread would wait for itself.
            self.queue.lock().push(&line, now_micros());
        }
    }

    /// Whether this line repeats the previous one, soon enough to be left out.
    pub(super) fn repeats(&self, record: &Record<'_>, flags: Flags) -> bool {
        // Compare the message and its keys, and not the time.
        let mut text = Vec::new();
        event_body(record, &mut text);
        let mut repetition = self.repetition.lock();
        let again = repetition.last.as_mut().is_some_and(|last| {
            let again = last.message == text
                && last.facility == record.facility
                && record.micros().saturating_sub(last.first) < self.dedup_micros;
            last.times += u64::from(again);
            again
        });
        if again {
            repetition.repeated += 1;
            return true;
        }
        let ended = self.ended_repetition(&mut repetition);
        repetition.last = Some(Repeated {
            message: text,
            facility: record.facility.to_owned(),
            first: record.micros(),
            came: Instant::now(),
            times: 0,
            flags,
        });
        drop(repetition);
        if let Some(line) = ended {
            self.give(&line, record.micros());
        }
        false
    }

    pub(super) fn ended_repetition(&self, repetition: &mut Repetition) -> Option<Vec<u8>> {
        let last = repetition.last.take()?;
        (last.times > 0).then(|| {
            let times = if last.times == 1 { "time" } else { "times" };
            self.own_line(&format!("last line repeated {} {times}", last.times), last.flags)
        })
    }
}
