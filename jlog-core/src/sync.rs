//! The locks: parking_lot's or, with the feature `shuttle`, those whose schedules a model checker
//! chooses.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(all(feature = "async", not(feature = "shuttle")))]
pub(crate) use std::thread;

#[cfg(feature = "shuttle")]
pub use checked::{Condvar, Mutex, MutexGuard};
#[cfg(all(feature = "async", feature = "shuttle"))]
pub(crate) use shuttle::thread;

#[cfg(feature = "shuttle")]
mod checked {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    /// A mutex that a panic does not poison.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// Access to the contents of a mutex; only a condition variable suspends it.
    pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        /// A mutex that holds this value.
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        /// Waits for the mutex, and takes it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            match &self.0 {
                Some(guard) => guard,
                None => unreachable!("a guard exists except while its thread waits"),
            }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match &mut self.0 {
                Some(guard) => guard,
                None => unreachable!("a guard exists except while its thread waits"),
            }
        }
    }

    /// A condition variable.
    #[derive(Debug, Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        /// A condition variable without waiters.
        pub fn new() -> Self {
            Self::default()
        }

        /// Releases the mutex until woken.
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(taken) = guard.0.take() {
                guard.0 = Some(self.0.wait(taken).unwrap_or_else(PoisonError::into_inner));
            }
        }

        /// The same as `wait`, because time does not pass.
        pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
            self.wait(guard);
        }

        /// Wakes one waiting thread.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Wakes all waiting threads.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
