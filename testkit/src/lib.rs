//! What the tests of several crates of this workspace share. Each feature brings one part, so that
//! a test builds only what it uses:
//!
//! - always: [`messages`] that identify their writer, [`programs`] that tests start, [`until`],
//!   [`crc32`];
//! - `feeds`: feeds to write and compare, the independent checker, and a file system that fails on
//!   request;
//! - `forks`: forks of processes that log;
//! - `fuzz`: the fuzz targets;
//! - `logline`: a reader of FlatBuffers lines that shares no code with logdag.

// Tests may fail where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::time::{Duration, Instant};

#[cfg(feature = "feeds")]
pub mod checker;
#[cfg(feature = "feeds")]
pub mod faulty;
#[cfg(feature = "feeds")]
pub mod feeds;
#[cfg(feature = "forks")]
pub mod forks;
#[cfg(feature = "fuzz")]
pub mod fuzz;
/// Generated from `logdag/schema/logline.fbs` by `flatc --rust` 25.12.19.
#[cfg(feature = "logline")]
#[rustfmt::skip]
#[allow(unsafe_code, missing_docs, unused, rust_2018_idioms, clippy::all, clippy::pedantic, clippy::host_endian_bytes, clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]
pub mod logline;
pub mod messages;
pub mod programs;

/// If something has not happened after this time, it will not happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a condition holds. Fails after [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The CRC-32 of IEEE 802.3, computed bit by bit, independently of the code under test.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
