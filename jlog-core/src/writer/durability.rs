//! Durability: waiting threads elect one that syncs for all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::state::{Appender, Core};
use super::unsynced::{Filled, MAX_FILLED, SyncWork};
use crate::codec::names;
use crate::options::SyncPolicy;
use crate::storage::Open;
use crate::sync::MutexGuard;
use crate::{Error, Result};

/// Held by the thread that syncs for all. When that thread stops, even by a panic, the others are
/// woken.
struct Elected<'a> {
    core: &'a Core,
    /// Everything up to this count is durable now.
    done: u64,
}

impl Drop for Elected<'_> {
    fn drop(&mut self) {
        let mut syncing = self.core.syncing.lock();
        syncing.running = false;
        syncing.done = syncing.done.max(self.done);
        drop(syncing);
        self.core.synced.notify_all();
    }
}

impl Core {
    /// The last step of an append: syncs according to the policy.
    pub(super) fn finish(&self, appender: MutexGuard<'_, Appender>) -> Result<()> {
        match self.policy {
            SyncPolicy::EachAppend => {
                let written = appender.written;
                drop(appender);
                self.wait_durable(written)
            }
            _ => {
                // The messages are placed: an error about earlier ones must not make the caller
                // append these again. The error is kept, and the next call reports it.
                let _ = self.after_roll(appender);
                Ok(())
            }
        }
    }

    /// Does the policy's work after messages were placed without a sync.
    #[cfg(feature = "async")]
    pub(super) fn after_placing(&self) {
        // As in `finish`: an error is about earlier messages, and is kept.
        let _ = self.after_roll(self.appender.lock());
    }

    /// Syncs filled segments if the policy requires it, without keeping other threads from
    /// appending.
    pub(super) fn after_roll(&self, appender: MutexGuard<'_, Appender>) -> Result<()> {
        if appender.unsynced.filled.is_empty() || self.policy == SyncPolicy::Never {
            return Ok(());
        }
        if self.policy == SyncPolicy::AfterRoll && appender.unsynced.filled.len() < MAX_FILLED {
            drop(appender);
            self.background.wake(|signal| signal.rolled = true);
            return Ok(());
        }
        self.sync_filled(appender)
    }

    fn sync_filled(&self, appender: MutexGuard<'_, Appender>) -> Result<()> {
        let work = appender.unsynced.work(None);
        drop(appender);
        self.sync_work(&work)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.check_sync_failed()?;
        let mut appender = self.appender.lock();
        self.flush_buffer(&mut appender)?;
        self.write_out_pending(&mut appender)?;
        let written = appender.written;
        drop(appender);
        self.meta.check_feed(&self.shared)?;
        self.wait_durable(written)
    }

    /// Waits until every append up to this count is durable. Of the threads that wait, one syncs
    /// for all.
    pub(super) fn wait_durable(&self, count: u64) -> Result<()> {
        let mut syncing = self.syncing.lock();
        loop {
            if let Some(why) = &syncing.failed {
                return Err(self.sync_error(why));
            }
            if syncing.done >= count {
                return Ok(());
            }
            if syncing.running {
                self.synced.wait(&mut syncing);
                continue;
            }
            syncing.running = true;
            drop(syncing);
            let mut elected = Elected { core: self, done: 0 };
            elected.done = self.sync_pass()?;
            drop(elected);
            syncing = self.syncing.lock();
        }
    }

    /// Flushes and syncs; returns the count of appends that are durable now.
    fn sync_pass(&self) -> Result<u64> {
        self.check_sync_failed()?;
        let mut appender = self.appender.lock();
        self.flush_buffer(&mut appender)?;
        if appender.pending.is_due() {
            self.write_out_pending(&mut appender)?;
        }
        let count = appender.written;
        let current = appender
            .tail
            .segment()
            .map(|segment| Filled { number: segment.number, file: Some(Arc::clone(&segment.file)) });
        let work = appender.unsynced.work(current);
        let buffered = appender.buffer.is_some();
        drop(appender);
        self.sync_work(&work)?;
        // Durable messages must be in the feed that is at the path now, not in an earlier one.
        self.meta.check_named(&self.shared)?;
        if buffered && let Some(buffer) = &self.appender.lock().buffer {
            // Power that fails later must not bring back what the buffer held before this sync.
            buffer.sync(&self.shared).map_err(|e| self.note_sync_failure(e))?;
        }
        Ok(count)
    }

    /// Syncs. The files stay in the appender's lists until they are synced, so that a concurrent
    /// sync does not take them for durable.
    fn sync_work(&self, work: &SyncWork) -> Result<()> {
        for segment in work.filled.iter().chain(&work.current) {
            let file = match &segment.file {
                Some(file) => Some(Arc::clone(file)),
                // If it cannot be found, every subscriber has passed it, and it was removed.
                None => self.shared.open_if_there(&names::segment(segment.number), Open::Write)?,
            };
            if let Some(file) = file {
                file.sync_data().map_err(|e| {
                    self.note_sync_failure(Error::io("sync", self.path_of(segment.number), e))
                })?;
            }
        }
        if self.appender.lock().unsynced.names_durable < work.opened {
            self.meta.sync().map_err(|e| self.note_sync_failure(e))?;
            self.shared.sync_dir().map_err(|e| self.note_sync_failure(e))?;
        }
        let unsynced = &mut self.appender.lock().unsynced;
        unsynced.names_durable = unsynced.names_durable.max(work.opened);
        unsynced.filled.retain(|filled| !work.filled.iter().any(|done| done.number == filled.number));
        Ok(())
    }

    /// Records a failed sync for good: the system may have dropped the data, and the next sync
    /// would succeed nevertheless.
    fn note_sync_failure(&self, error: Error) -> Error {
        self.sync_failed.store(true, Ordering::Release);
        let mut syncing = self.syncing.lock();
        syncing.failed.get_or_insert_with(|| error.to_string());
        self.synced.notify_all();
        error
    }

    pub(super) fn check_sync_failed(&self) -> Result<()> {
        if self.sync_failed.load(Ordering::Acquire) {
            let syncing = self.syncing.lock();
            return Err(self.sync_error(syncing.failed.as_deref().unwrap_or("sync failed")));
        }
        Ok(())
    }

    pub(super) fn sync_error(&self, why: &str) -> Error {
        Error::SyncFailed { path: self.shared.path.clone(), why: why.to_owned() }
    }
}

/// Syncs at an interval, or after every roll, in a separate thread.
#[derive(Debug)]
pub(super) struct Ticker {
    core: Arc<Core>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ticker {
    /// Starts it, if the policy requires it.
    pub(super) fn start(core: &Arc<Core>) -> Result<Option<Self>> {
        let work: fn(&Core) = match core.policy {
            SyncPolicy::Interval(_) => Core::sync_at_intervals,
            SyncPolicy::AfterRoll => Core::sync_behind_rolls,
            SyncPolicy::Never | SyncPolicy::OnRoll | SyncPolicy::EachAppend => return Ok(None),
        };
        let in_thread = Arc::clone(core);
        let thread = std::thread::Builder::new()
            .name("jlog-sync".to_owned())
            .spawn(move || work(&in_thread))
            .map_err(|e| Error::io("start the sync thread of", core.shared.path.clone(), e))?;
        Ok(Some(Self { core: Arc::clone(core), thread: Some(thread) }))
    }
}

impl Core {
    fn sync_at_intervals(&self) {
        let SyncPolicy::Interval(every) = self.policy else { return };
        let every = every.max(Duration::from_millis(1));
        let mut signal = self.background.signal.lock();
        let mut synced = 0;
        while !signal.stop {
            self.background.changed.wait_for(&mut signal, every);
            let written = self.appender.lock().written;
            // A failure is sticky: the next append reports it.
            if !signal.stop && written != synced && self.sync().is_ok() {
                synced = written;
            }
        }
    }

    fn sync_behind_rolls(&self) {
        let mut signal = self.background.signal.lock();
        loop {
            while !signal.stop && !signal.rolled {
                self.background.changed.wait(&mut signal);
            }
            if !signal.rolled {
                return;
            }
            signal.rolled = false;
            drop(signal);
            // A failure is sticky: the next append reports it.
            let _ = self.sync_filled(self.appender.lock());
            signal = self.background.signal.lock();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.core.background.wake(|signal| signal.stop = true);
        if let Some(thread) = self.thread.take() {
            // The thread handles its errors itself; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}
