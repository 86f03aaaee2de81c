//! Notifications to systemd, if it has started us and asked for them.

use std::time::Duration;

use logdag::{Graph, StreamInfo};
use sd_notify::NotifyState;

/// Notifies systemd, or does nothing without it.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        crate::report(format_args!("logdag: cannot notify systemd: {e}"));
    }
}

/// Says that we are ready, and in one line what we do.
pub(super) fn ready(what: &str) {
    let status: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Says that a reload has begun.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Every Linux kernel has a monotonic clock.
    states.extend(NotifyState::monotonic_usec_now());
    notify(&states);
}

/// Pings systemd's watchdog, if the service has one, as long as lines move.
pub(super) fn ping(graph: &Graph) -> std::io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let graph = graph.clone();
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut work = Work::default();
        loop {
            // If the graph does not answer, there is no ping either.
            if work.moves(&graph.describe_all()) {
                notify(&[NotifyState::Watchdog]);
            }
            std::thread::sleep((limit / 3).max(Duration::from_millis(1)));
        }
    })?;
    Ok(())
}

/// How many lines sinks had taken at the last check. Only lines of sinks with a queue can be seen
/// waiting.
#[derive(Default)]
struct Work {
    done: u64,
}

impl Work {
    /// Whether some sink has taken lines since the last check, or no line waits. If one sink is
    /// stuck while others work, an alert is the right tool: ending the process would lose the
    /// waiting lines.
    fn moves(&mut self, streams: &[StreamInfo]) -> bool {
        let of = |stream: &StreamInfo| {
            let counters = stream.counters;
            counters.lines + counters.failed + counters.repeated
        };
        let done = streams.iter().map(of).sum();
        let waits = streams.iter().any(|stream| stream.queue.is_some_and(|queue| queue.lines > 0));
        std::mem::replace(&mut self.done, done) != done || !waits
    }
}
