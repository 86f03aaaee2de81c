//! Limits and samples: they restrict how many lines pass an outlet, whatever the lines contain.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::record::now_micros;
use crate::sync::Mutex;

/// A number of lines per time: `100/s`, `1000/min`, `5/h`, or `3/10s` for 3 lines in 10 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many lines.
    pub lines: u64,
    /// The period.
    pub per: Duration,
}

/// An invalid text of a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of lines, 1 or more, and a time: 100/s, 1000/min or 5/h")]
pub struct LimitError;

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (lines, unit) = text.split_once('/').ok_or(LimitError)?;
        let lines = lines.trim().parse().ok().filter(|&lines| lines > 0).ok_or(LimitError)?;
        let seconds = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            other => {
                let seconds = other.strip_suffix('s').and_then(|n| n.trim().parse().ok());
                seconds.filter(|&seconds| seconds > 0).ok_or(LimitError)?
            }
        };
        Ok(Self { lines, per: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{}/s", self.lines),
            60 => write!(f, "{}/min", self.lines),
            3600 => write!(f, "{}/h", self.lines),
            _ => write!(f, "{}/{:?}", self.lines, self.per),
        }
    }
}

/// The counters of limits and samples. Clones of a filter share them.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) limit: Option<Limit>,
    /// One in this many lines passes.
    pub(super) sample: u64,
    state: Mutex<State>,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that arrived, for samples.
    came: u64,
    /// When the current period of the limit began, and how many lines have passed since.
    begun: Option<Instant>,
    passed: u64,
    /// How many lines the limit has left out since the last report, and since when.
    unreported: u64,
    since: u64,
    /// When that was last reported.
    reported: Option<Instant>,
}

/// Lines that a limit has left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) lines: u64,
    /// Since when, in microseconds since 1970.
    pub(crate) since: u64,
    pub(crate) limit: Limit,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, since, limit } = *self;
        let since = i64::try_from(since).ok().and_then(|t| jiff::Timestamp::from_microsecond(t).ok());
        let plural = if lines == 1 { "" } else { "s" };
        write!(f, "{lines} line{plural} left out since {:.6}: limit {limit}", since.unwrap_or_default())
    }
}

impl State {
    fn report(&mut self, limit: Limit) -> Option<LeftOut> {
        let lines = std::mem::take(&mut self.unreported);
        (lines > 0).then(|| {
            self.reported = Some(Instant::now());
            LeftOut { lines, since: self.since, limit }
        })
    }
}

impl Gate {
    pub(super) fn new(limit: Option<Limit>, sample: u64) -> Self {
        Self { limit, sample, ..Self::default() }
    }

    pub(super) fn passes(&self) -> bool {
        let passes = self.decide();
        if !passes {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    fn decide(&self) -> bool {
        let mut state = self.state.lock();
        state.came += 1;
        if self.sample > 1 && state.came % self.sample != 1 {
            return false;
        }
        let Some(limit) = self.limit else { return true };
        let now = Instant::now();
        if state.begun.is_none_or(|begun| now.duration_since(begun) >= limit.per) {
            (state.begun, state.passed) = (Some(now), 0);
        }
        if state.passed < limit.lines {
            state.passed += 1;
            return true;
        }
        if state.unreported == 0 {
            state.since = now_micros();
        }
        state.unreported += 1;
        false
    }

    /// How many lines did not pass.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// The lines that the limit has left out since the last call.
    pub(super) fn unreported(&self) -> Option<LeftOut> {
        let limit = self.limit?;
        let mut state = self.state.lock();
        state.report(limit)
    }

    /// The same, unless the last call was less than one period ago: reports are no more frequent
    /// than the lines that pass.
    pub(super) fn unreported_if_due(&self) -> Option<LeftOut> {
        let limit = self.limit?;
        let mut state = self.state.lock();
        if state.reported.is_some_and(|reported| reported.elapsed() < limit.per) {
            return None;
        }
        state.report(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_they_are_read() {
        for (text, shown) in [
            ("100/s", "100/s"),
            (" 5 / min ", "5/min"),
            ("1/m", "1/min"),
            ("7/h", "7/h"),
            ("3/60s", "3/min"),
            ("3/5s", "3/5s"),
        ] {
            assert_eq!(text.parse::<Limit>().unwrap().to_string(), shown);
        }
        for wrong in ["", "100", "0/s", "-1/s", "1/day", "x/s", "/s"] {
            assert_eq!(wrong.parse::<Limit>(), Err(LimitError), "{wrong}");
        }
    }
}
