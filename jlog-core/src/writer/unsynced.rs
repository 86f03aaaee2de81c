//! What a writer has not synced yet, and which thread syncs.

use std::sync::Arc;

use super::tail::Segment;
use crate::options::SyncPolicy;
use crate::storage::File;
use crate::sync::{Condvar, Mutex};

/// How many full segments may wait to be synced while appends continue.
pub(super) const MAX_FILLED: usize = 16;

/// Files that this writer has created and not synced yet, except the segment being written.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Segments that it has released.
    pub(super) filled: Vec<Filled>,
    /// How many segments have been opened: until now, and until the last sync of the directory.
    pub(super) opened: u64,
    pub(super) names_durable: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Filled {
    pub(super) number: u32,
    pub(super) file: Option<Arc<dyn File>>,
}

impl Unsynced {
    /// Records that a segment was opened, and perhaps created.
    pub(super) fn note_opened(&mut self) {
        self.opened += 1;
    }

    /// Records that the writer has released a segment.
    pub(super) fn note_filled(&mut self, segment: Segment, policy: SyncPolicy) {
        if self.filled.iter().any(|filled| filled.number == segment.number) {
            return;
        }
        // If nothing syncs automatically, files are not kept open for a sync: they may be removed
        // before one.
        let keep = policy != SyncPolicy::Never && self.filled.len() < MAX_FILLED;
        self.filled.push(Filled { number: segment.number, file: keep.then_some(segment.file) });
    }

    pub(super) fn work(&self, current: Option<Filled>) -> SyncWork {
        SyncWork { filled: self.filled.clone(), current, opened: self.opened }
    }
}

/// The work of a sync.
pub(super) struct SyncWork {
    pub(super) filled: Vec<Filled>,
    pub(super) current: Option<Filled>,
    /// Sync the directory, unless it was synced when this many segments had been opened.
    pub(super) opened: u64,
}

#[derive(Debug, Default)]
pub(super) struct Syncing {
    pub(super) running: bool,
    /// Everything up to this count is durable.
    pub(super) done: u64,
    pub(super) failed: Option<String>,
}

/// A request to the thread that syncs.
#[derive(Debug, Default)]
pub(super) struct Background {
    pub(super) signal: Mutex<Signal>,
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Signal {
    pub(super) stop: bool,
    /// A segment was filled.
    pub(super) rolled: bool,
}

impl Background {
    pub(super) fn wake(&self, change: impl FnOnce(&mut Signal)) {
        change(&mut self.signal.lock());
        self.changed.notify_all();
    }
}
