//! The integration tests. Each module has one line here that says what belongs there; RELIABILITY.md
//! says which promise each of them tests.

// Tests may fail where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

// A file system that fails, or is slow, where a test says so.
mod faulty;
// Messages that say which process wrote them.
mod messages;
// Golden directories, the independent checker, processes: what several tests need.
mod support;

// Every fault that the C library had or has, and that this one must not have.
mod c_library_faults;
// Messages acknowledged while a batch is in use, by another thread too, and batches that are kept.
mod acknowledging;
// Writers and readers of async programs, on several runtimes.
mod asynchronous;
// Copies of feeds that are in use.
mod backup;
// Checksums are bound to the place of their record.
mod checksum_places;
// Readers of one subscriber: which are refused, and when a claim ends.
mod claims;
// Kills and power failures at every call that changes the simulated disk.
mod crash;
// Every bit of every file flipped, every file cut at every length.
mod damage;
// Permissions of new files.
mod file_modes;
// Full disks, real and simulated.
mod full_disk;
// The fuzz targets over their committed corpora and mutations of them.
mod fuzz_corpus;
// Directories that the C library wrote.
mod golden;
// Groups of workers that share a subscriber.
mod group;
// Names that lead elsewhere, special files, other users, wrong clocks.
mod hostile;
// What writers leave conforms to the format, as a checker that shares no code sees it.
mod invariants;
// Processes killed at random moments.
mod kills;
// Limits in bytes, age and free space.
mod limits;
// Missing segments: which are losses, and how many messages they had.
mod missing_segments;
// Random operations against a plain model.
mod model;
// Several processes at one jlog.
mod multiprocess;
// Repair, and every other operation, with every system call failing once.
mod one_step;
// Damage of whole pages: zeroed, stale, copied, swapped, garbage.
mod page_damage;
// The README's example, in a program that is started twice.
mod readme;
// Every row of the recovery table.
mod recovery_table;
// A feed removed, moved, restored or made again while it is open.
mod replaced;
// A backup restored over a newer feed.
mod restored;
// Sizes at and around every limit.
mod size_limits;
// Several threads of one process.
mod threads;
// Values as messages.
mod typed;
// Verification by several threads: progress and cancelling.
mod verify_options;
