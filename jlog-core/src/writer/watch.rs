//! What a writer checks now and then: its settings, and whether its feed still exists.

use std::time::{Duration, Instant};

use super::appender::Appender;
use super::limits::Limiter;
use super::{Core, Ordering};
use crate::codec::settings::Settings;
use crate::files::settings::Stamp;
use crate::{Result, Timestamp};

/// How often a writer whose appends take no lock checks that its feed still exists.
const FEED_EVERY: Duration = Duration::from_millis(1);
/// How often it checks whether the settings have changed.
const SETTINGS_EVERY: Duration = Duration::from_millis(100);
/// After this many appends, a writer reads the clock, whatever the times of the messages are.
const APPENDS: u64 = 1024;

#[derive(Debug)]
pub(super) struct Watch {
    /// The version of the settings file when it was read.
    stamp: Option<Stamp>,
    settings: Looked,
    feed: Looked,
}

impl Watch {
    pub(super) fn new(stamp: Option<Stamp>) -> Self {
        Self { stamp, settings: Looked::now(), feed: Looked::now() }
    }
}

/// When something was last checked.
#[derive(Debug)]
struct Looked {
    /// By the time of a message, in microseconds, and by the count of appends.
    micros: u64,
    written: u64,
    at: Instant,
    /// Whether the last check failed, so that the next append checks again.
    failed: bool,
}

impl Looked {
    fn now() -> Self {
        Self { micros: Timestamp::now().as_micros(), written: 0, at: Instant::now(), failed: false }
    }

    /// Whether it is time to check again. Most appends find that out from the times of their
    /// messages, at no cost.
    fn is_due(&mut self, time: Timestamp, written: u64, every: Duration) -> bool {
        let micros = time.as_micros();
        if self.failed {
            return true;
        }
        if u128::from(micros.abs_diff(self.micros)) < every.as_micros() && written - self.written < APPENDS {
            return false;
        }
        (self.micros, self.written) = (micros, written);
        // Messages may have any times.
        let due = self.at.elapsed() >= every;
        if due {
            self.at = Instant::now();
        }
        due
    }
}

impl Core {
    /// Rereads the settings if they have changed and, if appends take no lock, makes sure that the
    /// feed at the path is still this one; does each now and then. `time` is that of a message
    /// about to be appended.
    pub(super) fn look_now_and_then(&self, appender: &mut Appender, time: Timestamp) -> Result<()> {
        let (watch, written) = (&mut appender.watch, appender.written);
        if watch.settings.is_due(time, written, SETTINGS_EVERY)
            && let Some((settings, stamp)) = Settings::reload(&self.shared, watch.stamp)
        {
            watch.stamp = stamp;
            appender.limiter = Limiter::new(settings.limits);
            self.checksums.store(settings.checksums, Ordering::Relaxed);
        }
        if (!self.multi || appender.buffer.is_some()) && watch.feed.is_due(time, written, FEED_EVERY) {
            let named = self.meta.check_named(&self.shared);
            watch.feed.failed = named.is_err();
            named?;
        }
        Ok(())
    }
}
