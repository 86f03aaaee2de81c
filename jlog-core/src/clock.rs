//! The time of messages: the system's clock and, between two readings, the processor's counter, if
//! the kernel itself trusts it. Asking the kernel for every message would take three times as long,
//! a large part of the cost of a buffered message.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use quanta::Clock;

/// How often each thread reads the system's clock. The counter's error in that time is far below a
/// microsecond, and a clock that was set is noticed.
const LOOK_EVERY_NANOS: u64 = 1_000_000;
/// Counter and clock count as read together if no more time than this passes. Each reading takes at
/// most `TRIES` attempts.
const AT_ONCE_NANOS: u64 = 500;
const TRIES: usize = 4;
/// The file in which the kernel names its clock source.
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

static COUNTER: LazyLock<Option<Clock>> = LazyLock::new(|| {
    let source = std::fs::read_to_string(SOURCE).unwrap_or_default();
    (source.trim() == "tsc" && !cfg!(miri)).then(Clock::new)
});

/// A reading of the system's clock.
#[derive(Clone, Copy)]
struct Look {
    /// The counter at that time.
    count: u64,
    /// The time, in nanoseconds since 1970 UTC; 0 before the first reading.
    nanos: u64,
    /// The last time returned before that, if the counter had run ahead: later times are never
    /// earlier.
    least: u64,
}

thread_local! {
    static LAST: Cell<Look> = const { Cell::new(Look { count: 0, nanos: 0, least: 0 }) };
}

/// The current time, in nanoseconds since 1970 UTC; 0 before that.
pub(crate) fn now_nanos() -> u64 {
    let counted = COUNTER.as_ref().and_then(|counter| LAST.try_with(|last| by_counter(counter, last)).ok());
    counted.unwrap_or_else(system_nanos)
}

fn by_counter(counter: &Clock, last: &Cell<Look>) -> u64 {
    let (look, count) = (last.get(), counter.raw());
    let since = counter.delta_as_nanos(look.count, count);
    let counted = look.nanos.saturating_add(since).max(look.least);
    let known = look.nanos > 0 && count >= look.count;
    if known && since < LOOK_EVERY_NANOS {
        return counted;
    }
    let looked = look_at(counter);
    let nanos = looked.map_or_else(system_nanos, |(_, nanos)| nanos);
    // If the clock was set back, the time goes back. If the counter ran a little ahead, the time
    // waits for the clock. A counter value long after the last reading is not used: over a longer
    // time, it may be quite wrong.
    let shown = look.nanos.saturating_add(since.min(LOOK_EVERY_NANOS)).max(look.least);
    let least = if known && shown.saturating_sub(nanos) < LOOK_EVERY_NANOS { shown } else { 0 };
    if let Some((count, nanos)) = looked {
        last.set(Look { count, nanos, least });
    }
    nanos.max(least)
}

/// The counter and the system's clock, read at the same time; `None` if every attempt was
/// interrupted between the two.
fn look_at(counter: &Clock) -> Option<(u64, u64)> {
    for _ in 0..TRIES {
        let before = counter.raw();
        let nanos = system_nanos();
        let count = counter.raw();
        if counter.delta_as_nanos(before, count) < AT_ONCE_NANOS {
            return Some((count, nanos));
        }
    }
    None
}

fn system_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_is_the_systems_time_and_never_goes_back() {
        let (begun, mut last) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(500) {
            let before = system_nanos();
            let now = now_nanos();
            let after = system_nanos();
            assert!(now >= last, "{last} and then {now}");
            // Two clocks, read one after the other.
            assert!(now + 20_000 >= before && now <= after + 20_000, "{before} {now} {after}");
            last = now;
        }
    }

    /// With a counter that is wrong by a thousandth, no time is ahead by more than a microsecond,
    /// however long ago a thread last asked.
    #[test]
    fn a_counter_that_is_a_little_fast_does_not_run_ahead() {
        let Some(counter) = &*COUNTER else { return };
        let (count, nanos) = (counter.raw(), system_nanos());
        std::thread::sleep(Duration::from_millis(20));
        // As if the counter had counted a thousandth too much.
        let last = Cell::new(Look { count, nanos: nanos + 20_000, least: 0 });
        let (shown, system) = (by_counter(counter, &last), system_nanos());
        assert!(shown <= system + 1000, "{} ns ahead", shown - system);
    }

    #[test]
    fn a_look_that_is_old_or_of_another_counter_is_not_believed() {
        let Some(counter) = &*COUNTER else { return };
        let hour = 3_600_000_000_000;
        for (count, nanos) in
            [(counter.raw(), 0), (u64::MAX, hour), (0, hour), (counter.raw() - 1, u64::MAX / 2)]
        {
            let last = Cell::new(Look { count, nanos, least: nanos });
            // A look is believed for a millisecond, whatever it says.
            std::thread::sleep(Duration::from_millis(2));
            let (now, system) = (by_counter(counter, &last), system_nanos());
            assert!(system.abs_diff(now) < 1_000_000_000, "{count} {nanos}: {now}, not {system}");
        }
    }
}
