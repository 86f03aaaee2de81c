//! Functions that are called around every fork of the process: what POSIX calls `pthread_atfork`. jlog-core and
//! logdag share this crate, so that neither needs the other, and logdag no unsafe code.

#![allow(unsafe_code)]

/// What is done around a fork, in the thread that forks. A panic in one of these ends the process.
///
/// The child has that thread only, and may do little: take back what `before` took, and change what no other thread
/// can have been changing at the time.
pub trait AroundFork {
    /// Before the fork: the last that was registered comes first.
    fn before() {}

    /// After it, in the process that forks: in the order in which they were registered, as in the child.
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

/// Has the functions of `A` called around every fork from now on, for as long as the process and its children live.
/// They are called once for every time that this was called. Forks by `std::process` are not noticed where it uses
/// `posix_spawn`, nor are direct calls of the system (`clone`).
///
/// Returns whether there was room: if not, forks are not noticed.
pub fn register<A: AroundFork>() -> bool {
    // SAFETY: the three functions stay where they are as long as the process lives, and take no arguments. What they may
    // do in a child is the business of `A`, and cannot be unsound: its functions are safe.
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
