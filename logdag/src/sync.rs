//! What threads share: parking_lot's locks and arc-swap, or, with the feature `shuttle`, ones whose schedules a checker
//! chooses.

#[cfg(feature = "shuttle")]
pub(crate) use jlog_core::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(crate) use checked::{Flag, Swap, Thread, is_this_thread, spawn, wait_a_while};
#[cfg(not(feature = "shuttle"))]
pub(crate) use real::{Flag, Swap, Thread, is_this_thread, spawn, wait_a_while};

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
    use std::time::Duration;

    use arc_swap::ArcSwap;

    use super::{Condvar, MutexGuard};

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
    use std::time::Duration;

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
