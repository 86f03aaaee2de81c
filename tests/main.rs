//! The integration tests; this list is their table of contents.

// Tests may fail where they stand; `support` and `faulty` hold what several of them need, or the worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod faulty;
mod messages;
mod support;

mod checksum_places;
mod crash;
mod damage;
mod file_modes;
mod full_disk;
mod fuzz_corpus;
mod golden;
mod hostile;
mod invariants;
mod kills;
mod known_errors;
mod limits;
mod missing_segments;
mod model;
mod multiprocess;
mod one_step;
mod page_damage;
mod recovery_table;
mod replaced;
mod restored;
mod size_limits;
mod threads;
mod verify_options;
