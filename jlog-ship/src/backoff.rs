//! How long to wait before trying again.

use std::time::Duration;

/// Doubles from the first wait to the longest, with jitter, so that many shippers do not return to
/// a failed server at the same moment.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// A back-off between these two waits.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Resets the wait after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next wait: between half of it and all of it, but never less than the destination asked
    /// for.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(self.longest);
        // Without randomness there is no jitter, and nothing else is wrong.
        let share = getrandom::u32().unwrap_or(u32::MAX);
        let jittered = most / 2 + (most / 2).mul_f64(f64::from(share) / f64::from(u32::MAX));
        match asked {
            // Jitter also applies after the time that the destination asked for.
            Some(asked) => asked + (jittered / 4).min(asked / 4),
            None => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for most in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait(None).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} ms of {most} ms");
        }
        let asked = Duration::from_secs(7);
        let wait = backoff.wait(Some(asked));
        assert!((asked..=asked * 5 / 4).contains(&wait), "{wait:?}");
        backoff.reset();
        assert!(backoff.wait(None) <= first);
    }
}
