//! What systemd is told, where it has started us and wants to know.

use std::time::Duration;

use logdag::{Graph, StreamInfo};
use sd_notify::NotifyState;

/// Tells systemd; does nothing where there is none.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        crate::report(format_args!("logdag: cannot notify systemd: {e}"));
    }
}

/// That we are ready, and what we do, in a line.
pub(super) fn ready(what: &str) {
    let status: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// That a configuration is being read again.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // A kernel without a monotonic clock does not exist.
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// Pings systemd's watchdog, where the service has one, for as long as the work moves.
pub(super) fn ping(graph: &Graph) -> std::io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let graph = graph.clone();
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut work = Work::default();
        loop {
            // If the graph does not answer, there is no ping, either.
            if work.moves(&graph.describe_all()) {
                tell(&[NotifyState::Watchdog]);
            }
            std::thread::sleep((limit / 3).max(Duration::from_millis(1)));
        }
    })?;
    Ok(())
}

/// Lines that sinks were done with when that was last looked at. Only those of sinks with a queue can be seen waiting.
#[derive(Default)]
struct Work {
    done: u64,
}

impl Work {
    /// Whether some sink has taken lines since the last time, or none is waiting for one. A sink that stands still beside others
    /// that go on is for alerts: to end the process would lose what waits.
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
