//! Calls functions around every fork of the process, with `pthread_atfork` of POSIX. jlog-core and
//! logdag share this crate, so that neither needs the other, and logdag needs no unsafe code.

#![allow(unsafe_code)]

/// Handlers around a fork, in the thread that forks. A panic in one of them ends the process.
///
/// The child has only that thread, and may do little: release the locks that `before` took, and
/// change data that no other thread can have been changing at that time.
pub trait AroundFork {
    /// Before the fork, in reverse order of registration.
    fn before() {}

    /// After it, in the parent, in order of registration, as in the child.
    fn in_parent() {}

    /// After it, in the child.
    fn in_child() {}
}

extern "C" fn before<A: AroundFork>() {
    A::before();
}

extern "C" fn in_parent<A: AroundFork>() {
    A::in_parent();
}

extern "C" fn in_child<A: AroundFork>() {
    A::in_child();
}

/// Registers the functions of `A` to be called around every fork, as long as the process and its
/// children live. If this is called several times, they are called as often. Forks by
/// `std::process` with `posix_spawn`, and direct system calls (`clone`), are not noticed.
///
/// Returns whether there was memory; if not, forks are not noticed.
pub fn register<A: AroundFork>() -> bool {
    // SAFETY: the three functions live as long as the process, and take no arguments. `A` decides
    // what they do in a child, which cannot be unsound, because its functions are safe.
    unsafe { libc::pthread_atfork(Some(before::<A>), Some(in_parent::<A>), Some(in_child::<A>)) == 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static CALLED: AtomicU32 = AtomicU32::new(0);

    struct First;
    struct Second;

    fn called(digit: u32) {
        CALLED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n * 10 + digit)).unwrap();
    }

    impl AroundFork for First {
        fn before() {
            called(1);
        }
        fn in_parent() {
            called(2);
        }
        fn in_child() {
            called(3);
        }
    }

    impl AroundFork for Second {
        fn before() {
            called(4);
        }
        fn in_parent() {
            called(5);
        }
        fn in_child() {
            called(6);
        }
    }

    #[test]
    fn all_are_called_in_the_order_that_was_promised() {
        assert!(register::<First>() && register::<Second>());
        match fork::fork().unwrap() {
            fork::Fork::Child => std::process::exit(i32::from(CALLED.load(Ordering::Relaxed) != 4136)),
            fork::Fork::Parent(pid) => {
                let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
                assert_eq!(CALLED.load(Ordering::Relaxed), 4125);
            }
        }
    }
}
