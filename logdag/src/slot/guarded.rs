//! Calls of sinks, which may panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Turns a panic of a sink into an error.
pub(super) fn guarded(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("the sink panicked")))
}
