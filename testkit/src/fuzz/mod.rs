//! The fuzz targets. Each builds a small jlog, replaces one of its files with the input's bytes,
//! and then does every possible operation on it. Nothing may panic, run forever, or take more
//! memory than the data needs; untouched messages must stay readable.
//!
//! Two are different: the bytes determine in [`operations()`] what is done with a jlog and when it
//! crashes, and in [`assembled()`] how two jlogs are created and which of their files a third one
//! consists of. Four are about logdag, and use no disk: [`filter()`] takes expressions,
//! [`config()`] documents, [`formats()`] lines, [`syslog()`] connections.
//!
//! The same functions run in the integration tests, over the committed corpora and over mutations
//! of them.

use std::sync::OnceLock;

mod assembled;
mod config;
mod everything;
mod feed;
mod files;
mod filter;
mod formats;
mod model;
mod operations;
mod requests;
mod segments;
mod sidecars;
mod syslog;

pub use assembled::assembled;
pub use config::config;
pub use files::{checkpoint, dropped, metastore, names, pre_commit, settings};
pub use filter::filter;
pub use formats::formats;
pub use operations::operations;
pub use requests::requests;
pub use segments::{lz4_records, scanner};
pub use sidecars::{checksums, index};
pub use syslog::syslog;

/// A target's name and function.
pub type Target = (&'static str, fn(Disk, &[u8]));

/// All targets.
pub const TARGETS: [Target; 17] = [
    ("scanner", scanner),
    ("metastore", metastore),
    ("checkpoint", checkpoint),
    ("index", index),
    ("checksums", checksums),
    ("pre_commit", pre_commit),
    ("lz4_records", lz4_records),
    ("settings", settings),
    ("names", names),
    ("dropped", dropped),
    ("operations", operations),
    ("assembled", assembled),
    ("filter", filter),
    ("config", config),
    ("formats", formats),
    ("syslog", syslog),
    ("requests", requests),
];

/// Where the jlogs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// In simulated storage: fast.
    Simulated,
    /// In a temporary directory: with real maps, locks and names.
    Real,
}

impl Disk {
    /// The real one if the environment variable `JLOG_FUZZ_DISK` is `real`.
    pub fn chosen() -> Self {
        static CHOSEN: OnceLock<Disk> = OnceLock::new();
        *CHOSEN.get_or_init(|| match std::env::var_os("JLOG_FUZZ_DISK") {
            Some(disk) if disk == "real" => Disk::Real,
            _ => Disk::Simulated,
        })
    }
}

/// The input, which determines everything. After its end come zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is 1 or more.
    fn below(&mut self, n: usize) -> usize {
        let low = usize::from(self.byte());
        let high = if n > 256 { usize::from(self.byte()) } else { 0 };
        (low + 256 * high) % n
    }
}

/// Splits the first byte off, as switches.
fn switches(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Takes bytes off the front, as a number; 0 for those that are not there.
fn take(data: &mut &[u8], bytes: usize) -> u64 {
    let n = bytes.min(data.len());
    let (front, rest) = data.split_at(n);
    *data = rest;
    front.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Changes some bytes: every three bytes of input are a position and its new byte.
fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        if at < bytes.len() {
            bytes[at] = edit[2];
        } else {
            bytes.truncate(at % (bytes.len() + 1));
        }
    }
}
