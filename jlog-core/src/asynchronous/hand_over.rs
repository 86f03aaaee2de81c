//! Passes work from futures to a thread, and its outcome back. Nothing here blocks, except on a
//! mutex that is held for a few instructions.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::storage::posix;
use crate::sync::{Condvar, Mutex, thread};
use crate::{Error, Result};

/// A thread ends when it has had nothing to do for this long.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// The name of the thread that opens a writer or a reader and then ends.
pub(super) const OPENING: &str = "jlog-open";

/// Where a value is left for a future.
#[derive(Debug)]
struct Slot<T> {
    state: Mutex<SlotState<T>>,
}

#[derive(Debug)]
struct SlotState<T> {
    /// `Some(None)` once nothing will come.
    value: Option<Option<T>>,
    waker: Option<Waker>,
}

/// Sends a future the outcome of its work. If it is dropped before, the future learns that there
/// will be none.
#[derive(Debug)]
pub(super) struct Reply<T>(Option<Arc<Slot<T>>>);

/// Receives the value of a [`Reply`].
#[derive(Debug)]
pub(super) struct Hearer<T>(Arc<Slot<T>>);

/// The two ends of a slot.
pub(super) fn slot<T>() -> (Reply<T>, Hearer<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(SlotState { value: None, waker: None }) });
    (Reply(Some(Arc::clone(&slot))), Hearer(slot))
}

impl<T> Reply<T> {
    pub(super) fn send(mut self, value: T) {
        self.leave(Some(value));
    }

    fn leave(&mut self, value: Option<T>) {
        let Some(slot) = self.0.take() else { return };
        let mut state = slot.state.lock();
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(wake);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl<T> Hearer<T> {
    /// The value; `None` if none will come.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // A waker's clone and drop are foreign code: no lock is held meanwhile.
        let waker = cx.waker().clone();
        let mut state = self.0.state.lock();
        if let Some(value) = state.value.take() {
            drop(state);
            return Poll::Ready(value);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

/// Wakes a task. A waker that panics keeps no other task waiting.
pub(super) fn wake(waker: Waker) {
    // The panic has been printed, and concerns nobody here.
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// Starts a detached thread.
pub(super) fn start(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|e| Error::io("start a thread for", path, e))
}

/// The process in which something was made: a forked child has its memory, but not its threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

impl Process {
    pub(super) fn this() -> Self {
        Self(posix::forks())
    }

    pub(super) fn is_this(self) -> bool {
        self.0 == posix::forks()
    }

    /// The error for work that a child cannot do.
    pub(super) fn check(self, action: &'static str, path: &Path) -> Result<()> {
        if self.is_this() {
            return Ok(());
        }
        let why = "this process was forked from the one that opened it: open it again here";
        Err(Error::io(action, path, std::io::Error::other(why)))
    }
}

/// How much work may be accepted and not done yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Size {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Work on its way to a thread: accepted work within bounds, and work that waits for room, in order
/// of arrival.
#[derive(Debug)]
pub(super) struct HandOver<W> {
    bounds: Size,
    state: Mutex<State<W>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<W> {
    accepted: Vec<W>,
    /// How much is accepted and not done.
    used: Size,
    /// By their tickets.
    waiting: BTreeMap<u64, (W, Size)>,
    next_ticket: u64,
    /// Whether a thread works, or is being started.
    running: bool,
    /// No more work is accepted.
    closed: bool,
    /// Nobody is left who could bring work.
    abandoned: bool,
}

/// The fate of work that was handed in.
pub(super) enum Handed<W> {
    /// It will be done.
    Accepted,
    /// It waits for room.
    Waiting(u64),
    /// There is no room, and it must not wait.
    Refused(W),
    /// No more work is accepted.
    Closed,
}

/// What a thread does next.
pub(super) enum Next<W> {
    Work(Vec<W>),
    /// There was nothing to do for a while: tidy up, then ask again.
    Idle,
    /// End. `true`: for good.
    End(bool),
}

impl<W> HandOver<W> {
    pub(super) fn new(bounds: Size) -> Self {
        Self {
            bounds: Size { messages: bounds.messages.max(1), bytes: bounds.bytes.max(1) },
            state: Mutex::new(State {
                accepted: Vec::new(),
                used: Size::default(),
                waiting: BTreeMap::new(),
                next_ticket: 0,
                running: false,
                closed: false,
                abandoned: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Hands work in. `true` in the answer means that a thread must be started.
    pub(super) fn hand_in(&self, work: W, size: Size, may_wait: bool) -> (Handed<W>, bool) {
        let mut state = self.state.lock();
        if state.closed {
            return (Handed::Closed, false);
        }
        if state.waiting.is_empty() && state.has_room(size, self.bounds) {
            state.used = state.used.plus(size);
            state.accepted.push(work);
            let start = !std::mem::replace(&mut state.running, true);
            drop(state);
            self.changed.notify_one();
            return (Handed::Accepted, start);
        }
        if !may_wait {
            return (Handed::Refused(work), false);
        }
        // It waits for work that is accepted and not done, so there is a thread.
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.insert(ticket, (work, size));
        (Handed::Waiting(ticket), false)
    }

    /// Takes back work that waits for room; `None` if it was accepted meanwhile.
    pub(super) fn take_back(&self, ticket: u64) -> Option<W> {
        let mut state = self.state.lock();
        let taken = state.waiting.remove(&ticket).map(|(work, _)| work);
        // It may have kept others from using the available room.
        state.accept_waiting(self.bounds);
        drop(state);
        self.changed.notify_one();
        taken
    }

    /// The thread's next step. It passes how much it has done since the last call. Waits at most
    /// for [`IDLE`], unless `idle` says that it has done so before.
    pub(super) fn next(&self, done: Size, idle: bool) -> Next<W> {
        let since = Instant::now();
        let mut state = self.state.lock();
        state.used = state.used.minus(done);
        loop {
            state.accept_waiting(self.bounds);
            if !state.accepted.is_empty() {
                return Next::Work(std::mem::take(&mut state.accepted));
            }
            if state.abandoned || idle {
                state.running = false;
                return Next::End(state.abandoned);
            }
            let left = IDLE.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Next::Idle;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Everything that was handed in and is not done, for the case that no thread could be started.
    pub(super) fn give_up(&self) -> Vec<W> {
        let mut state = self.state.lock();
        state.running = false;
        state.used = Size::default();
        let waiting = std::mem::take(&mut state.waiting);
        let mut all = std::mem::take(&mut state.accepted);
        all.extend(waiting.into_values().map(|(work, _)| work));
        all
    }

    /// Stops accepting work; returns the work that waits.
    pub(super) fn close(&self) -> Vec<W> {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        waiting.into_values().map(|(work, _)| work).collect()
    }

    /// Records that nobody is left who could bring work. `true`: a thread must be started for the
    /// remaining work.
    pub(super) fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        state.abandoned = true;
        let start = !state.closed && !std::mem::replace(&mut state.running, true);
        drop(state);
        self.changed.notify_one();
        start
    }
}

impl<W> State<W> {
    /// Work that is larger than the bounds is accepted when there is no other work.
    fn has_room(&self, size: Size, bounds: Size) -> bool {
        let with = self.used.plus(size);
        self.used == Size::default() || (with.messages <= bounds.messages && with.bytes <= bounds.bytes)
    }

    fn accept_waiting(&mut self, bounds: Size) {
        while let Some(first) = self.waiting.first_entry() {
            let size = first.get().1;
            if !self.has_room(size, bounds) {
                return;
            }
            if let Some((_, (work, size))) = self.waiting.pop_first() {
                self.used = self.used.plus(size);
                self.accepted.push(work);
            }
        }
    }
}
