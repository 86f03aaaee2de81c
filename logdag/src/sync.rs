//! What threads share: locks of the standard library and arc-swap, or, with the feature `shuttle`,
//! ones whose schedules a checker chooses.
//!
//! We do not use parking_lot, because its table of waiting threads belongs to the whole process: in
//! a forked child it names threads that do not exist. A lock of the standard library is only a
//! number, and the kernel has the queue.

#[cfg(feature = "shuttle")]
pub(crate) use jlog_core::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use plain::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::Condvar;

#[cfg(feature = "shuttle")]
pub(crate) use checked::{
    Flag, Swap, Thread, is_this_thread, lock_at_once, lock_until, spawn, wait, wait_a_while, wait_until,
};
#[cfg(not(feature = "shuttle"))]
pub(crate) use real::{
    Flag, Swap, Thread, is_this_thread, lock_at_once, lock_until, spawn, wait, wait_a_while, wait_until,
};

/// Locks that no checker controls. A panic of a holder changes nothing for the others.
pub(crate) mod plain {
    use std::sync::{PoisonError, TryLockError};

    pub(crate) use std::sync::MutexGuard;

    /// How often a thread pauses, twice as long each time, before it tries to take a lock again:
    /// together for longer than a lock is usually held.
    const SPINS: u32 = 4;
    /// How often it then offers its processor to other threads.
    const YIELDS: u32 = 7;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        /// Takes the lock. A thread that finds it taken offers its processor to the holder a few
        /// times before it sleeps: a lock with sleepers makes each unlock a system call, and with
        /// more threads than processors, the holder is often one that was interrupted.
        #[inline]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.try_lock().unwrap_or_else(|| self.lock_contended())
        }

        #[cold]
        fn lock_contended(&self) -> MutexGuard<'_, T> {
            for attempt in 0..SPINS + YIELDS {
                if attempt < SPINS {
                    (0..1 << attempt).for_each(|_| std::hint::spin_loop());
                } else {
                    std::thread::yield_now();
                }
                if let Some(guard) = self.try_lock() {
                    return guard;
                }
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        #[inline]
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }
    }

    #[cfg(any(feature = "jlog", feature = "log", feature = "tracing"))]
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    #[cfg(any(feature = "jlog", feature = "log", feature = "tracing"))]
    impl<T> RwLock<T> {
        #[cfg(feature = "jlog")]
        pub(crate) const fn new(value: T) -> Self {
            Self(std::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        /// `None` where that would have to wait.
        #[cfg(any(feature = "log", feature = "tracing"))]
        pub(crate) fn try_read(&self) -> Option<std::sync::RwLockReadGuard<'_, T>> {
            match self.0.try_read() {
                Ok(guard) => Some(guard),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) => None,
            }
        }

        pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// A value with separate cache lines: as many as processors fetch at once.
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
    use std::sync::{Arc, PoisonError};
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

    /// Waits for a notification.
    pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, but no longer than `time`.
    pub(crate) fn wait_a_while<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The same, but only until a deadline; `false` if that has passed.
    pub(crate) fn wait_until<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (guard, over) = condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
        (guard, !over.timed_out())
    }

    /// Takes a lock that others may hold for long; `None` if they still hold it at the deadline.
    pub(crate) fn lock_until<T>(mutex: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        let mut pause = Duration::from_micros(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match mutex.try_lock() {
                None if left > Duration::ZERO => std::thread::sleep(pause.min(left)),
                taken => return taken,
            }
            pause = (2 * pause).min(Duration::from_millis(5));
        }
    }

    /// Takes a lock if it is free.
    #[inline]
    pub(crate) fn lock_at_once<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock()
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

    pub(crate) fn wait<'a, T>(condvar: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(&mut guard);
        guard
    }

    /// The wait ends immediately.
    pub(crate) fn wait_a_while<'a, T>(
        _: &Condvar,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> MutexGuard<'a, T> {
        shuttle::thread::yield_now();
        guard
    }

    /// No deadline ever comes.
    pub(crate) fn wait_until<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        _: Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        (wait(condvar, guard), true)
    }

    pub(crate) fn lock_until<T>(mutex: &Mutex<T>, _: Instant) -> Option<MutexGuard<'_, T>> {
        Some(mutex.lock())
    }

    /// Under the checker, this waits.
    pub(crate) fn lock_at_once<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
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
