//! How long the writes of a queue's thread take, measured once per batch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::record::now_micros;

/// The durations of a queue thread's writes. A write covers all lines that were waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteTimes {
    /// For each of the [`BOUNDS`](Self::BOUNDS), the number of writes that took up to that long and
    /// longer than the previous bound. The last number counts writes longer than all bounds.
    pub counts: [u64; WriteTimes::BOUNDS.len() + 1],
    /// The time of all writes together.
    pub total: Duration,
}

impl WriteTimes {
    /// The upper bounds of [`counts`](Self::counts).
    pub const BOUNDS: [Duration; 9] = [
        Duration::from_micros(100),
        Duration::from_micros(500),
        Duration::from_millis(2),
        Duration::from_millis(10),
        Duration::from_millis(50),
        Duration::from_millis(200),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(30),
    ];
}

/// Measures [`WriteTimes`].
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: [AtomicU64; WriteTimes::BOUNDS.len() + 1],
    nanos: AtomicU64,
    /// When the current write began, in microseconds since 1970 UTC; 0 if there is none.
    since: AtomicU64,
}

impl Latency {
    /// A write begins.
    pub(super) fn begin(&self) -> Instant {
        self.since.store(now_micros(), Relaxed);
        Instant::now()
    }

    /// It has ended.
    pub(super) fn end(&self, begun: Instant) {
        let took = begun.elapsed();
        self.since.store(0, Relaxed);
        let at = WriteTimes::BOUNDS.partition_point(|bound| *bound < took);
        self.counts[at].fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn since(&self) -> Option<u64> {
        Some(self.since.load(Relaxed)).filter(|since| *since > 0)
    }

    pub(super) fn times(&self) -> WriteTimes {
        WriteTimes {
            counts: std::array::from_fn(|n| self.counts[n].load(Relaxed)),
            total: Duration::from_nanos(self.nanos.load(Relaxed)),
        }
    }
}
