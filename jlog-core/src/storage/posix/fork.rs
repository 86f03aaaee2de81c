//! Detects that this process is a forked child.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use jlog_fork::AroundFork;

static FORKS: AtomicU32 = AtomicU32::new(0);

struct Count;

impl AroundFork for Count {
    fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The number of forks between the process in which this was first called and this one. If the fork
/// handlers cannot be registered, forks are not noticed.
pub(crate) fn forks() -> u32 {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        jlog_fork::register::<Count>();
    });
    FORKS.load(Ordering::Relaxed)
}
