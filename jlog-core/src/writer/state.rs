//! The state of a writer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::c_writers::{self, KeptOut};
use super::group::Group;
use super::lease::Lease;
use super::limiter::Limiter;
use super::tail::Tail;
use super::unsynced::{Background, Syncing, Unsynced};
use super::watch::Watch;
use crate::codec::format::RecordFormat;
use crate::codec::names::{self, Kind};
use crate::files::checksum::Pending;
use crate::files::metastore::Metastore;
use crate::files::precommit::PreCommit;
use crate::files::shared::Shared;
use crate::options::SyncPolicy;
use crate::storage::Guarded;
use crate::sync::{Condvar, Mutex};
use crate::upkeep::recovery;
use crate::{Event, Result};

/// The locks are taken in this order: `background`, `appender`, `syncing`; within `appender`, the
/// lock of the segment and then that of the metastore or a checkpoint. The queue of `group` is
/// never locked together with another.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) meta: Metastore,
    /// Shows other writers that this one exists.
    pub(super) _guard: Guarded,
    pub(super) format: RecordFormat,
    pub(super) multi: bool,
    pub(super) checksums: AtomicBool,
    pub(super) policy: SyncPolicy,
    pub(super) appender: Mutex<Appender>,
    pub(super) group: Group,
    pub(super) syncing: Mutex<Syncing>,
    pub(super) synced: Condvar,
    pub(super) background: Background,
    pub(super) sync_failed: AtomicBool,
}

/// The state that the threads of a writer share; one of them has it at a time.
#[derive(Debug)]
pub(super) struct Appender {
    pub(super) tail: Tail,
    pub(super) subscribers: Subscribers,
    /// The lock of the tail's segment, from one append to the next.
    pub(super) lease: Lease<Core>,
    pub(super) buffer: Option<PreCommit>,
    pub(super) pending: Pending,
    pub(super) limiter: Limiter,
    pub(super) watch: Watch,
    pub(super) unsynced: Unsynced,
    /// Whether the last write found no space.
    pub(super) was_full: bool,
    /// Counts the appends. The records that the last writer left count as one.
    pub(super) written: u64,
    /// Counts the messages.
    pub(super) accepted: u64,
    pub(super) scratch: Vec<u8>,
}

/// Whether checkpoints may be past the end of the segment that is opened next.
#[derive(Debug)]
pub(super) enum Subscribers {
    Checked,
    /// They may be; this has the directory's contents when the writer was opened, if known.
    Unchecked(Option<Vec<Kind>>),
}

impl Core {
    pub(super) fn report_foreign_owners(&self) {
        for (path, owner, expected) in recovery::foreign_owners(&self.shared).unwrap_or_default() {
            self.shared.note(Event::ForeignOwner { path, owner, expected });
        }
    }

    /// Keeps C processes from writing, if any may.
    pub(super) fn keep_out(&self, action: &'static str, patience: Duration) -> Result<Option<KeptOut>> {
        self.meta.check_named(&self.shared)?;
        if self.multi { c_writers::keep_out(&self.shared, action, patience).map(Some) } else { Ok(None) }
    }

    pub(super) fn keeps_checksums(&self) -> bool {
        self.checksums.load(Ordering::Relaxed)
    }

    pub(super) fn path_of(&self, segment: u32) -> PathBuf {
        self.shared.at(&names::segment(segment))
    }
}
