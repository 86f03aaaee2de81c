//! What a fork finds, and what a forked child does before it logs.
//!
//! Only the thread that forks continues in the child. Locks that other threads held stay locked
//! there, threads of queues are missing, and the parent writes the lines in the queues. Short locks
//! (of the graph's data, and of the table of open files) are taken behind a gate that a fork closes
//! first, so that the child finds them free. A fork cannot wait for locks that are held while a
//! sink writes. Instead, the child reopens every sink when it first logs or uses the graph, with
//! its own queue, counters and locks, and forgets the old ones without closing them. It begins
//! synchronous.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use jlog_fork::AroundFork;

use crate::record::{Doing, While, now_micros};
use crate::sync::Mutex;

/// What a child must make its own.
pub(crate) trait Renew: Send + Sync {
    /// Replaces what is the parent's.
    fn renew(&self);
}

/// Whether this process is a child whose graphs are still the parent's.
static PENDING: AtomicBool = AtomicBool::new(false);
/// Number of forks between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);
static GATE: RwLock<()> = RwLock::new(());
static RENEWING: std::sync::Mutex<()> = std::sync::Mutex::new(());
static GRAPHS: Mutex<Vec<Weak<dyn Renew>>> = Mutex::new(Vec::new());

type Closed =
    (Option<std::sync::MutexGuard<'static, ()>>, Option<RwLockWriteGuard<'static, ()>>, Option<While>);

thread_local! {
    /// How often this thread has passed the gate without leaving.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
    /// The guards that this thread holds while it forks.
    static CLOSED: RefCell<Closed> = const { RefCell::new((None, None, None)) };
}

/// While this lives, forks wait, for as long as a short lock is held. Signal handlers do not log.
#[derive(Debug)]
pub(crate) struct Inside {
    _passed: Option<RwLockReadGuard<'static, ()>>,
    _busy: While,
}

/// Passes the gate, before a lock is taken.
pub(crate) fn enter() -> Inside {
    let busy = While::busy();
    // At a thread's very end, it is not known whether it is inside already.
    let Ok(inside) = INSIDE.try_with(|inside| inside.replace(inside.get() + 1)) else {
        return Inside { _passed: None, _busy: busy };
    };
    let passed = (inside == 0).then(|| GATE.read().unwrap_or_else(PoisonError::into_inner));
    Inside { _passed: passed, _busy: busy }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(inside.get().saturating_sub(1)));
    }
}

struct Graphs;

impl AroundFork for Graphs {
    fn before() {
        // Initialise the clock now: a child must not wait for a thread that was just doing so.
        now_micros();
        // A sink that forks while it is opened has this one already.
        let free = Doing::now() != Doing::Writing;
        let busy = While::busy();
        let renewing = free.then(|| RENEWING.lock().unwrap_or_else(PoisonError::into_inner));
        let outside = INSIDE.try_with(Cell::get) == Ok(0);
        let gate = outside.then(|| GATE.write().unwrap_or_else(PoisonError::into_inner));
        // A thread at its very end cannot keep them, and forks without.
        let _ = CLOSED.try_with(|closed| closed.replace((renewing, gate, Some(busy))));
    }

    fn in_parent() {
        let _ = CLOSED.try_with(RefCell::take);
    }

    fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        PENDING.store(true, Ordering::Relaxed);
        Self::in_parent();
    }
}

/// Makes graphs usable in children from now on.
pub(crate) fn register(graph: Arc<dyn Renew>) {
    static ONCE: Once = Once::new();
    // If the handlers cannot be registered, forks are not noticed.
    ONCE.call_once(|| {
        jlog_fork::register::<Graphs>();
    });
    let _inside = enter();
    let mut graphs = GRAPHS.lock();
    graphs.retain(|graph| graph.strong_count() > 0);
    graphs.push(Arc::downgrade(&graph));
}

/// Number of forks between the first process and this one.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Whether this process was forked from one that had graphs: foreign locks (such as that of
/// standard error) may be held by threads that do not exist.
pub(crate) fn is_child() -> bool {
    forks() > 0
}

/// Ensures that the graphs are this process's own.
#[inline]
pub(crate) fn renew_if_forked() {
    if PENDING.load(Ordering::Relaxed) {
        renew();
    }
}

#[cold]
fn renew() {
    if Doing::now() == Doing::Writing {
        // A sink that is being opened asks the graph.
        return;
    }
    let _opening = While::doing(Doing::Writing);
    let _one_at_a_time = RENEWING.lock().unwrap_or_else(PoisonError::into_inner);
    if !PENDING.load(Ordering::Acquire) {
        return;
    }
    let graphs: Vec<_> = {
        let _inside = enter();
        GRAPHS.lock().iter().filter_map(Weak::upgrade).collect()
    };
    for graph in graphs {
        graph.renew();
    }
    PENDING.store(false, Ordering::Release);
}
