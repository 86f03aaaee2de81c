//! What threads share: parking_lot's locks and arc-swap, or, with the feature `shuttle`, ones whose schedules a checker
//! chooses.

#[cfg(feature = "shuttle")]
pub(crate) use jlog_core::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(crate) use checked::{Flag, Swap, Thread, is_this_thread, lock_until, spawn, wait_a_while, wait_until};
#[cfg(not(feature = "shuttle"))]
pub(crate) use real::{Flag, Swap, Thread, is_this_thread, lock_until, spawn, wait_a_while, wait_until};

/// A value with cache lines of its own: as many as processors fetch at once.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(T);

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(not(feature = "shuttle"))]
mod real {
    use std::io;
    use std::ops::Deref;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use arc_swap::ArcSwap;

    use super::{Condvar, Mutex, MutexGuard};

    pub(crate) type Flag = std::sync::atomic::AtomicBool;
    pub(crate) type Thread = std::thread::JoinHandle<()>;

    /// Starts a thread.
    pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        std::thread::Builder::new().name(name).spawn(work)
    }

    pub(crate) fn is_this_thread(thread: &Thread) -> bool {
        thread.thread().id() == std::thread::current().id()
    }

    /// Waits until it is notified, but no longer than this.
    pub(crate) fn wait_a_while<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, time: Duration) {
        condvar.wait_for(guard, time);
    }

    /// Waits until it is notified, but no longer than until this moment; `false` where that has come.
    pub(crate) fn wait_until<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
        !condvar.wait_until(guard, deadline).timed_out()
    }

    /// Takes a lock that others may hold for long; `None` where they hold it at this moment still.
    pub(crate) fn lock_until<T>(mutex: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock_until(deadline)
    }

    /// A value that is replaced as a whole, while others look at it.
    #[derive(Debug, Default)]
    pub(crate) struct Swap<T>(ArcSwap<T>);

    impl<T> Swap<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(ArcSwap::from_pointee(value))
        }

        pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + '_ {
            self.0.load()
        }

        pub(crate) fn store(&self, value: T) {
            self.0.store(Arc::new(value));
        }
    }
}

#[cfg(feature = "shuttle")]
mod checked {
    use std::io;
    use std::ops::Deref;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Condvar, Mutex, MutexGuard};

    pub(crate) type Flag = shuttle::sync::atomic::AtomicBool;
    pub(crate) type Thread = shuttle::thread::JoinHandle<()>;

    pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        shuttle::thread::Builder::new().name(name).spawn(work)
    }

    pub(crate) fn is_this_thread(thread: &Thread) -> bool {
        thread.thread().id() == shuttle::thread::current().id()
    }

    /// The time is over at once.
    pub(crate) fn wait_a_while<T>(_: &Condvar, _: &mut MutexGuard<'_, T>, _: Duration) {
        shuttle::thread::yield_now();
    }

    /// No deadline ever comes.
    pub(crate) fn wait_until<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, _: Instant) -> bool {
        condvar.wait(guard);
        true
    }

    pub(crate) fn lock_until<T>(mutex: &Mutex<T>, _: Instant) -> Option<MutexGuard<'_, T>> {
        Some(mutex.lock())
    }

    /// A value that is replaced as a whole, while others look at it.
    #[derive(Debug, Default)]
    pub(crate) struct Swap<T>(Mutex<Arc<T>>);

    impl<T> Swap<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + '_ {
            Box::new(Arc::clone(&*self.0.lock()))
        }

        pub(crate) fn store(&self, value: T) {
            *self.0.lock() = Arc::new(value);
        }
    }
}
