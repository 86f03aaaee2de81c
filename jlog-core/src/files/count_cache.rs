//! Caches the record counts of complete segments, which do not change.

use std::collections::HashMap;

use crate::storage::Facts;
use crate::sync::Mutex;

/// How many segments are remembered (24 bytes each, plus the map's own).
const MAX: usize = 1 << 20;

/// Counts of complete segments.
#[derive(Debug, Default)]
pub(crate) struct CountCache(Mutex<HashMap<u32, Entry>>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    inode: u64,
    bytes: u64,
    known: Known,
}

/// What was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) records: u32,
    /// Whether its checksums describe exactly the whole segment.
    pub(crate) covered: bool,
}

impl CountCache {
    /// The count of a segment, if it is still the same file.
    pub(crate) fn get(&self, number: u32, facts: &Facts) -> Option<Known> {
        let entry = self.0.lock().get(&number).copied()?;
        ((entry.inode, entry.bytes) == (facts.identity.1, facts.len)).then_some(entry.known)
    }

    pub(crate) fn put(&self, number: u32, facts: &Facts, known: Known) {
        let mut entries = self.0.lock();
        if entries.len() >= MAX {
            entries.clear();
        }
        entries.insert(number, Entry { inode: facts.identity.1, bytes: facts.len, known });
    }
}
