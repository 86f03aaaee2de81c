//! 10,000 shippers with one server that fails and comes back: how often they try, and how soon they
//! have caught up.
//!
//! A simulation, in steps of 100 ms, with the back-off of jlog-ship itself.
//! `cargo bench -p jlog-benches --bench shippers` prints the tables of docs/scaling.md.

// Tests and tables.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use jlog_ship::Backoff;

const SHIPPERS: u32 = 10_000;
/// Messages per second and host, with 10^12 messages a day on 10,000 hosts.
const RATE: f64 = 1e12 / 86_400.0 / SHIPPERS as f64;
const STEP: u64 = 100;

/// How long a shipper waits between tries, in milliseconds.
enum Waits {
    /// As in jlog-ship.
    Jitter(Backoff),
    /// The same, without randomness.
    Equal(u64),
}

impl Waits {
    fn new(jitter: bool) -> Self {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(30));
        if jitter { Self::Jitter(Backoff::new(first, longest)) } else { Self::Equal(100) }
    }

    fn wait(&mut self) -> u64 {
        match self {
            Self::Jitter(backoff) => u64::try_from(backoff.wait(None).as_millis()).unwrap_or(u64::MAX),
            Self::Equal(next) => std::mem::replace(next, (*next * 2).min(30_000)),
        }
    }
}

struct Shipper {
    waits: Waits,
    /// When it tries next; `None` while it is served.
    asks: Option<u64>,
    backlog: f64,
}

struct Outcome {
    /// The maximum number of tries in 100 ms: in the first second of the outage, later in it, and
    /// after it.
    peaks: [u32; 3],
    /// Tries per second, from the second minute of the outage to its end.
    steady: f64,
    /// Seconds after the outage until all are served, and until nobody is behind.
    served: f64,
    caught_up: f64,
}

/// Simulates an outage of this many seconds. The server takes `spare` times what is written, and up
/// to `connections` new connections in 100 ms.
fn simulate(outage: u64, spare: f64, connections: u32, jitter: bool) -> Outcome {
    let mut shippers: Vec<Shipper> = (0..SHIPPERS)
        .map(|n| Shipper {
            waits: Waits::new(jitter),
            asks: Some(u64::from(n) * STEP / u64::from(SHIPPERS)),
            backlog: 0.0,
        })
        .collect();
    let end = outage * 1000;
    let per_step = RATE * STEP as f64 / 1000.0;
    let mut outcome = Outcome { peaks: [0; 3], steady: 0.0, served: f64::NAN, caught_up: f64::NAN };
    let mut now = 0;
    while outcome.caught_up.is_nan() {
        let (mut tries, mut room) = (0, if now < end { 0 } else { connections });
        for shipper in &mut shippers {
            shipper.backlog += per_step;
            while let Some(at) = shipper.asks.filter(|&at| at < now + STEP) {
                tries += 1;
                if room > 0 {
                    room -= 1;
                    shipper.asks = None;
                } else {
                    shipper.asks = Some(at + shipper.waits.wait().max(1));
                }
            }
        }
        let which = if now < 1000 {
            0
        } else if now < end {
            1
        } else {
            2
        };
        outcome.peaks[which] = outcome.peaks[which].max(tries);
        if (60_000..end).contains(&now) {
            outcome.steady += f64::from(tries) / (end - 60_000) as f64 * 1000.0;
        }
        // Every served shipper gets the same share, and the part that one does not use goes to the
        // others.
        let mut left = spare * per_step * f64::from(SHIPPERS);
        for _ in 0..4 {
            let hungry =
                shippers.iter().filter(|shipper| shipper.asks.is_none() && shipper.backlog > 0.0).count();
            let share = left / hungry.max(1) as f64;
            for shipper in shippers.iter_mut().filter(|shipper| shipper.asks.is_none()) {
                let sent = shipper.backlog.min(share);
                shipper.backlog -= sent;
                left -= sent;
            }
        }
        now += STEP;
        let since = now.saturating_sub(end) as f64 / 1000.0;
        if outcome.served.is_nan() && shippers.iter().all(|shipper| shipper.asks.is_none()) {
            outcome.served = since;
        }
        if now > end && outcome.served.is_finite() && shippers.iter().all(|shipper| shipper.backlog < 1.0) {
            outcome.caught_up = since;
        }
        assert!(now < end + 86_400_000, "it never catches up");
    }
    outcome
}

fn main() {
    println!(
        "| outage | spare | connections in 100 ms | waits | most tries in 100 ms: at first, later, after | tries/s | served | caught up |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let all = [(60, 1.5, 1000), (600, 1.5, 1000), (600, 1.5, 100)];
    // As a test, the first one is enough.
    let count = if std::env::args().any(|argument| argument == "--bench") { all.len() } else { 1 };
    for (outage, spare, connections) in all.into_iter().take(count) {
        for jitter in [true, false] {
            let Outcome { peaks: [first, later, after], steady, served, caught_up } =
                simulate(outage, spare, connections, jitter);
            let waits = if jitter { "jitter" } else { "equal" };
            println!(
                "| {outage} s | {spare} | {connections} | {waits} | {first}, {later}, {after} | {steady:.0} | {served:.0} s | {caught_up:.0} s |"
            );
            // No thundering herd: never more than a tenth of them at once when the server comes
            // back.
            assert!(!jitter || after <= SHIPPERS / 10, "{after} of {SHIPPERS} shippers ask at once");
        }
    }
}
