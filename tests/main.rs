//! The integration tests; this list is their table of contents.

// Tests may fail where they stand; `support` and `faulty` hold what several of them need, or the worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod faulty;
mod messages;
mod support;

mod crash;
mod golden;
mod invariants;
mod known_errors;
mod model;
mod multiprocess;
mod size_limits;
