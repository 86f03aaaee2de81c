//! What a writer checks now and then: its settings, and whether its feed still exists.

use std::time::{Duration, Instant};

use crate::Timestamp;
use crate::files::settings::Stamp;

/// How often a writer whose appends take no lock checks that its feed still exists.
const FEED_EVERY: Duration = Duration::from_millis(1);
/// How often a writer checks whether the settings have changed.
const SETTINGS_EVERY: Duration = Duration::from_millis(100);
/// After this many appends, a writer reads the clock, whatever the times of the messages are.
const APPENDS: u64 = 1024;

#[derive(Debug)]
pub(super) struct Watch {
    /// The version of the settings file when it was read.
    pub(super) stamp: Option<Stamp>,
    pub(super) settings: Looked,
    pub(super) feed: Looked,
}

impl Watch {
    pub(super) fn new(stamp: Option<Stamp>) -> Self {
        Self { stamp, settings: Looked::now(SETTINGS_EVERY), feed: Looked::now(FEED_EVERY) }
    }
}

/// When something was last checked.
#[derive(Debug)]
pub(super) struct Looked {
    every: Duration,
    /// The time of the message, in microseconds, and the count of appends at that check.
    micros: u64,
    written: u64,
    at: Instant,
    /// Whether the last check failed, so that the next append checks again.
    pub(super) failed: bool,
}

impl Looked {
    fn now(every: Duration) -> Self {
        Self { every, micros: Timestamp::now().as_micros(), written: 0, at: Instant::now(), failed: false }
    }

    /// Whether it is time to check again. Most appends learn that from the times of their messages,
    /// at no cost.
    pub(super) fn is_due(&mut self, time: Timestamp, written: u64) -> bool {
        let micros = time.as_micros();
        if self.failed {
            return true;
        }
        if u128::from(micros.abs_diff(self.micros)) < self.every.as_micros()
            && written - self.written < APPENDS
        {
            return false;
        }
        (self.micros, self.written) = (micros, written);
        // The times of messages are arbitrary, so only the clock counts.
        let due = self.at.elapsed() >= self.every;
        if due {
            self.at = Instant::now();
        }
        due
    }
}
