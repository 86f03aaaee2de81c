//! The counters of a shipper, readable while it works.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jlog_core::Timestamp;

/// Counters of a shipper; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    read: AtomicU64,
    acknowledged: AtomicU64,
    set_aside: AtomicU64,
    skipped: AtomicU64,
    filtered: AtomicU64,
    in_flight: AtomicU64,
    known: AtomicU64,
    bytes: AtomicU64,
    refusals: AtomicU64,
    failing: AtomicBool,
    acknowledged_at: AtomicU64,
    last_error: Mutex<Option<(SystemTime, String)>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Messages that were read from the feed to be shipped.
    pub read: u64,
    /// Of these: messages that the destination has accepted.
    pub acknowledged: u64,
    /// Of these: messages that the destination refused for good and that are in the set-aside feed.
    pub set_aside: u64,
    /// Of these: messages that the destination refused for good and that were skipped, and messages
    /// of a feed that was removed before they were acknowledged.
    pub skipped: u64,
    /// Of these: messages that a filter left out.
    pub filtered: u64,
    /// Of these: messages that are not counted as one of the above yet. The next run begins with
    /// those that are left at the end of a run.
    pub in_flight: u64,
    /// Acknowledged messages that were not sent, because the destination had them from an earlier
    /// run.
    pub known: u64,
    /// Bytes of the acknowledged messages.
    pub bytes: u64,
    /// Refusals of all kinds.
    pub refusals: u64,
    /// Whether the destination accepts nothing at the moment.
    pub failing: bool,
    /// When the last message was acknowledged.
    pub acknowledged_at: Option<SystemTime>,
    /// The last refusal or failure, and when it was.
    pub last_error: Option<(SystemTime, String)>,
}

impl Totals {
    /// Whether every message that was read is accounted for.
    pub fn is_balanced(&self) -> bool {
        self.read == self.acknowledged + self.set_aside + self.skipped + self.filtered + self.in_flight
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} read = {} acknowledged + {} set aside + {} skipped + ",
            self.read, self.acknowledged, self.set_aside, self.skipped
        )?;
        // Most shippers have no filter.
        if self.filtered > 0 {
            write!(f, "{} filtered + ", self.filtered)?;
        }
        write!(f, "{} in flight", self.in_flight)
    }
}

impl Progress {
    /// The current counters. They are read one after the other, so messages that move meanwhile can
    /// unbalance them.
    pub fn totals(&self) -> Totals {
        let counters = &*self.0;
        let at = counters.acknowledged_at.load(Relaxed);
        let last_error = counters.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Totals {
            read: counters.read.load(Relaxed),
            acknowledged: counters.acknowledged.load(Relaxed),
            set_aside: counters.set_aside.load(Relaxed),
            skipped: counters.skipped.load(Relaxed),
            filtered: counters.filtered.load(Relaxed),
            in_flight: counters.in_flight.load(Relaxed),
            known: counters.known.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            refusals: counters.refusals.load(Relaxed),
            failing: counters.failing.load(Relaxed),
            acknowledged_at: (at > 0).then(|| SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(at)),
            last_error,
        }
    }

    /// Begins a new run, in which messages in flight are read again.
    pub(crate) fn begin_again(&self) {
        let read = self.0.in_flight.swap(0, Relaxed);
        self.0.read.fetch_sub(read, Relaxed);
    }

    pub(crate) fn read(&self, messages: u64) {
        self.0.in_flight.fetch_add(messages, Relaxed);
        self.0.read.fetch_add(messages, Relaxed);
    }

    pub(crate) fn acknowledged(&self, messages: u64, bytes: u64) {
        self.0.acknowledged.fetch_add(messages, Relaxed);
        self.0.in_flight.fetch_sub(messages, Relaxed);
        self.0.bytes.fetch_add(bytes, Relaxed);
        self.0.acknowledged_at.store(Timestamp::now_micros(), Relaxed);
    }

    pub(crate) fn known(&self, messages: u64) {
        self.0.known.fetch_add(messages, Relaxed);
    }

    pub(crate) fn set_aside(&self) {
        self.0.set_aside.fetch_add(1, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn skipped(&self) {
        self.0.skipped.fetch_add(1, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn abandoned(&self, messages: u64) {
        self.0.skipped.fetch_add(messages, Relaxed);
        self.0.in_flight.fetch_sub(messages, Relaxed);
    }

    pub(crate) fn filtered(&self) {
        self.0.filtered.fetch_add(1, Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn refused(&self, why: &str) {
        self.0.refusals.fetch_add(1, Relaxed);
        self.failed(why);
    }

    /// Records a failure other than an answer of the destination.
    pub fn failed(&self, why: &str) {
        let error = (SystemTime::now(), why.to_owned());
        *self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns whether that is a change.
    pub(crate) fn set_failing(&self, failing: bool) -> bool {
        self.0.failing.swap(failing, Relaxed) != failing
    }
}
