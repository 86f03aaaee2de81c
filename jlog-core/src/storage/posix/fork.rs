//! Whether this process is a child that was forked from the one that it thinks it is.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

use nix::libc;

static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// What is called around every fork.
struct Handlers {
    prepare: fn(),
    parent: fn(),
    child: fn(),
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

extern "C" fn prepare() {
    if let Some(handlers) = HANDLERS.get() {
        (handlers.prepare)();
    }
}

extern "C" fn parent() {
    if let Some(handlers) = HANDLERS.get() {
        (handlers.parent)();
    }
}

extern "C" fn child() {
    if let Some(handlers) = HANDLERS.get() {
        (handlers.child)();
    }
}

/// Has these called by every thread that forks: before it does, and afterwards in the parent and in the child. They must not
/// panic. Only the first call in a process counts. This is for logdag, which has no unsafe code of its own.
pub fn on_fork(prepare_it: fn(), in_parent: fn(), in_child: fn()) {
    let handlers = Handlers { prepare: prepare_it, parent: in_parent, child: in_child };
    if HANDLERS.set(handlers).is_ok() {
        // SAFETY: the handlers are functions of this library that stay where they are. They may run in a child of a process
        // with threads: what they do there, taking and giving back locks that the thread that forks holds, and memory, glibc
        // and musl allow. Where there is no room for them, no fork is noticed.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    }
}

/// Number of forks between the process in which this was first called and this one.
pub(crate) fn forks() -> u32 {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler may run in a child of a process with threads: all that it does is to change an atomic number,
        // which a signal handler might do as well. Where there is no room for it, no fork is noticed.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    FORKS.load(Ordering::Relaxed)
}
