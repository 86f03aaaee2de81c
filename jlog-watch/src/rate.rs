//! The rate at which something grows or shrinks.

use std::time::Instant;

/// The time constant in seconds: changes this long ago weigh about a third of current ones.
const MEMORY: f64 = 60.0;

/// Looks closer together than this, in seconds, count as one.
const SHORTEST: f64 = 0.2;

/// An average of a number's change per second over about the last minute, from looks at any times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    seen: Option<(Instant, f64)>,
    /// Not a number before the second look: each subscriber has a rate, and an `Option` takes twice
    /// the memory.
    per_second: f64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { seen: None, per_second: f64::NAN }
    }
}

impl Rate {
    /// Records the current number.
    pub(crate) fn look(&mut self, now: Instant, value: f64) {
        let Some((then, before)) = self.seen else {
            self.seen = Some((now, value));
            return;
        };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds < SHORTEST {
            return;
        }
        let fresh = (value - before) / seconds;
        let weight = 1.0 - (-seconds / MEMORY).exp();
        self.per_second = self.per_second().map_or(fresh, |old| old + weight * (fresh - old));
        self.seen = Some((now, value));
    }

    /// Its change per second; `None` before the second look.
    pub(crate) fn per_second(&self) -> Option<f64> {
        Some(self.per_second).filter(|rate| !rate.is_nan())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_follows_what_happens() {
        let (mut rate, begun) = (Rate::default(), Instant::now());
        let mut look = |seconds: f64, value: f64| {
            rate.look(begun + Duration::from_secs_f64(seconds), value);
            rate.per_second()
        };
        assert_eq!(look(0.0, 100.0), None);
        assert_eq!(look(0.01, 200.0), None);
        assert_eq!(look(10.0, 200.0), Some(10.0));
        // Unchanged for a minute: a third is left.
        let left = look(70.0, 200.0).unwrap();
        assert!((3.0..4.0).contains(&left), "{left}");
        let shrinks = look(1000.0, -9100.0).unwrap();
        assert!((-10.1..-9.9).contains(&shrinks), "{shrinks}");
    }
}
