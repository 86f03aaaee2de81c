//! The service's metrics, in the format of Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jlog_core::Lag;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted messages.
    pub accepted: AtomicU64,
    /// Messages that the other service has taken.
    pub delivered: AtomicU64,
    /// Failed deliveries.
    pub failed: AtomicU64,
}

/// The counters, and how far delivery is behind.
pub(crate) fn text(counters: &Counters, lag: Lag) -> String {
    let Lag { messages, bytes, oldest, .. } = lag;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let age = oldest.map_or(0, |time| now.saturating_sub(time.seconds.into()));
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "# TYPE outbox_accepted_total counter\n\
         outbox_accepted_total {}\n\
         # TYPE outbox_delivered_total counter\n\
         outbox_delivered_total {}\n\
         # TYPE outbox_failed_deliveries_total counter\n\
         outbox_failed_deliveries_total {}\n\
         # TYPE outbox_lag_messages gauge\n\
         outbox_lag_messages {messages}\n\
         # TYPE outbox_lag_bytes gauge\n\
         outbox_lag_bytes {bytes}\n\
         # TYPE outbox_lag_seconds gauge\n\
         outbox_lag_seconds {age}\n",
        of(&counters.accepted),
        of(&counters.delivered),
        of(&counters.failed),
    )
}
