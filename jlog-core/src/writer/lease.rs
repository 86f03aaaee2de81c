//! Keeps the segment's lock from one append to the next: taking it, finding the file's end and
//! releasing it are two thirds of the cost of a single append.
//!
//! The lock is kept while appends follow each other closely, for a millisecond at a time
//! (`WriterOptions::hold_lock`). Then it is released, and the next few appends each take and
//! release it. The holder of a lock does not learn that others wait, so this is their chance to get
//! it. A writer that finds that others have written keeps the lock for shorter times for a while.
//! If no append comes to release it, a thread does.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::storage::posix;

/// How many appends within `FAST` count as following each other closely.
const STRETCH: u32 = 32;
const FAST: Duration = Duration::from_millis(1);
/// For this long after others have written, the lock is kept for only this fraction of the time.
/// Writers that append without a pause are then together three times as fast as when they take
/// turns at every append, and others wait for less than the whole time.
const AMONG_OTHERS: Duration = Duration::from_millis(100);
const PART: u32 = 5;

/// Whether the current segment's lock is kept, and since when.
#[derive(Debug)]
pub(super) struct Lease<O> {
    /// The longest time that the lock is kept; zero: it is never kept.
    longest: Duration,
    kept: bool,
    /// When the lock was first kept, or last released.
    since: Instant,
    /// Uses of the lock since the clock was last read.
    uses: u32,
    among_others_until: Option<Instant>,
    /// The owner of the lock.
    owner: Weak<O>,
    /// What the thread does: it calls [`left`](Lease::left) and [`rest`](Lease::rest).
    work: fn(&Weak<O>),
    /// The thread that releases the lock when no append does; started when a lock is first kept.
    thread: Option<JoinHandle<()>>,
    /// How often the process had been forked when the thread was started: a child has the memory,
    /// but not the thread.
    forks: u32,
    /// The thread waits until it is woken.
    resting: bool,
    stop: bool,
}

impl<O: Send + Sync + 'static> Lease<O> {
    pub(super) fn new(longest: Duration, work: fn(&Weak<O>)) -> Self {
        Self {
            longest,
            kept: false,
            since: Instant::now(),
            uses: 0,
            among_others_until: None,
            owner: Weak::new(),
            work,
            thread: None,
            forks: 0,
            resting: false,
            stop: false,
        }
    }

    /// The owner of the lock; before it is known, no lock is kept.
    pub(super) fn belongs_to(&mut self, owner: &Arc<O>) {
        self.owner = Arc::downgrade(owner);
    }

    /// Whether the lock is still held since an earlier use.
    pub(super) fn is_kept(&mut self) -> bool {
        self.kept = self.kept && !self.is_in_a_child();
        self.kept
    }

    /// Whether this process was forked after the thread was started: it has no thread to release
    /// the lock, so none is kept.
    fn is_in_a_child(&mut self) -> bool {
        let in_child = self.thread.is_some() && self.forks != posix::forks();
        if in_child {
            // It belongs to the parent, and cannot be joined.
            std::mem::forget(self.thread.take());
            self.longest = Duration::ZERO;
        }
        in_child
    }

    /// Records that the lock was released.
    pub(super) fn given_back(&mut self) {
        if std::mem::take(&mut self.kept) {
            (self.since, self.uses) = (Instant::now(), 0);
        }
    }

    /// Records that others have written since this writer last had the lock.
    pub(super) fn others_wrote(&mut self) {
        if !self.longest.is_zero() {
            self.among_others_until = Some(Instant::now() + AMONG_OTHERS);
        }
    }

    /// Decides at the end of a use whether the lock is kept.
    pub(super) fn keep(&mut self) -> bool {
        let stays = self.stays(Instant::now);
        self.kept = stays && (self.kept || self.is_watched());
        self.kept
    }

    fn stays(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.uses += 1;
        if self.uses < STRETCH || self.longest.is_zero() {
            return self.kept;
        }
        self.uses = 0;
        let now = now();
        let taken = now.saturating_duration_since(self.since);
        if self.kept && taken < self.longest_at(now) {
            return true;
        }
        self.since = now;
        !self.kept && taken <= FAST
    }

    fn longest_at(&self, now: Instant) -> Duration {
        let others = self.among_others_until.is_some_and(|until| now < until);
        if others { self.longest / PART } else { self.longest }
    }

    /// Whether there is a thread that releases the lock.
    fn is_watched(&mut self) -> bool {
        if self.is_in_a_child() {
            return false;
        }
        if self.thread.is_none() {
            let (owner, work) = (Weak::clone(&self.owner), self.work);
            if owner.strong_count() == 0 {
                return false;
            }
            self.forks = posix::forks();
            let thread = std::thread::Builder::new().name("jlog-lock".to_owned());
            match thread.spawn(move || work(&owner)) {
                Ok(thread) => self.thread = Some(thread),
                // No thread can be started: appends work without one.
                Err(_) => self.longest = Duration::ZERO,
            }
        } else if std::mem::take(&mut self.resting)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        self.thread.is_some()
    }

    /// For the thread: how long the lock may still be kept, or `None` once the thread is to end.
    pub(super) fn left(&self) -> Option<Duration> {
        let now = Instant::now();
        let left = self.longest_at(now).saturating_sub(now.saturating_duration_since(self.since));
        (!self.stop).then_some(left)
    }

    /// For the thread: whether it may rest until it is woken, because no lock is kept. A writer
    /// that keeps the lock again wakes it.
    pub(super) fn rest(&mut self) -> bool {
        self.resting = !self.kept;
        self.resting
    }

    /// Ends the thread. No lock is kept from here on.
    pub(super) fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.is_in_a_child();
        self.longest = Duration::ZERO;
        self.stop = true;
        let thread = self.thread.take()?;
        thread.thread().unpark();
        Some(thread)
    }
}

impl<O> Drop for Lease<O> {
    fn drop(&mut self) {
        // If the thread was not stopped (after a panic), it finds that the writer was dropped.
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses a lock `uses` times, once every `every`. Returns after how many uses it was kept, and
    /// after how many more it was released.
    fn kept_and_back(
        lease: &mut Lease<()>,
        at: &mut Instant,
        every: Duration,
        uses: u32,
    ) -> (Option<u32>, Option<u32>) {
        let (mut kept, mut back) = (None, None);
        for n in 1..=uses {
            *at += every;
            lease.kept = lease.stays(|| *at);
            match (lease.kept, kept) {
                (true, None) => kept = Some(n),
                (false, Some(since)) => back = back.or(Some(n - since)),
                _ => {}
            }
        }
        (kept, back)
    }

    #[test]
    fn a_lock_is_kept_where_appends_follow_closely_and_never_for_long() {
        let micros = Duration::from_micros;
        let mut lease = Lease::<()>::new(micros(1000), |_| ());
        let mut at = lease.since;
        // 1000 appends per millisecond, checked after every 32.
        assert_eq!(kept_and_back(&mut lease, &mut at, micros(1), 1100), (Some(32), Some(1024)));
        // The others' turn lasts until appends are known to still follow each other closely.
        let mut lease = Lease::<()>::new(micros(1000), |_| ());
        let mut at = lease.since;
        kept_and_back(&mut lease, &mut at, micros(1), 32 + 1024);
        assert!(!lease.kept);
        assert_eq!(kept_and_back(&mut lease, &mut at, micros(1), 100).0, Some(32));
        for (longest, every) in [(1000, 32), (0, 1)] {
            let mut lease = Lease::<()>::new(micros(longest), |_| ());
            let mut at = lease.since;
            assert_eq!(
                kept_and_back(&mut lease, &mut at, micros(every), 10_000),
                (None, None),
                "{longest} {every}"
            );
        }
    }

    #[test]
    fn where_others_write_the_lock_is_kept_for_a_shorter_time() {
        let mut lease = Lease::<()>::new(Duration::from_millis(1), |_| ());
        lease.others_wrote();
        let mut at = lease.since;
        let micro = Duration::from_micros(1);
        // A fifth of a millisecond, checked after every 32 appends of a microsecond.
        assert_eq!(kept_and_back(&mut lease, &mut at, micro, 300), (Some(32), Some(224)));
        at += AMONG_OTHERS;
        (lease.since, lease.uses, lease.kept) = (at, 0, false);
        assert_eq!(kept_and_back(&mut lease, &mut at, micro, 1100), (Some(32), Some(1024)));
    }
}
