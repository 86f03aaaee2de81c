//! What the service counts, as Prometheus reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jlog_core::Lag;

/// What has happened since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that were accepted.
    pub accepted: AtomicU64,
    /// Messages that the other service has taken.
    pub delivered: AtomicU64,
    /// Deliveries that failed.
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
