//! The integration tests. One line per module describes its contents; RELIABILITY.md names the
//! promise that each module tests.

// Tests may fail where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

// Every fault that the C library had or has; this library must not have them.
mod c_library_faults;
// Checkpoints stored while a batch is in use, and batches that outlive their reader.
mod acknowledging;
// Writers and readers of async programs, on several runtimes.
mod asynchronous;
// Copies of feeds that are in use.
mod backup;
// Checksums are bound to the place of their record.
mod checksum_places;
// Readers of one subscriber: which of them are refused, and when a claim ends.
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
// Writers' files conform to the format, according to a checker that shares no code.
mod invariants;
// Processes killed at random moments.
mod kills;
// Limits in bytes, age and free space.
mod limits;
// Missing segments: which of them are losses, and how many messages they had.
mod missing_segments;
// Random operations against a plain model.
mod model;
// Several processes that use one jlog.
mod multiprocess;
// Repair, and every other operation, with every system call failing once.
mod one_step;
// Damage of whole pages: zeroed, stale, copied, swapped, garbage.
mod page_damage;
// The README's example, in a program that runs twice.
mod readme;
// Every row of the recovery table.
mod recovery_table;
// A feed that is removed, moved, restored or recreated while it is open.
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
