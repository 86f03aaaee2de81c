//! The checkpoint that a reader stores.

use super::Reader;
use crate::checkpoint::Checkpoint;
use crate::{Error, Event, LogId, Result, lost, names, recovery, retention};

impl Reader {
    /// Moves the stored checkpoint, unless somebody else has moved it, or this reader only looks.
    pub(super) fn move_stored(&mut self, to: LogId, storage_log: u32) -> Result<()> {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| !self.options.peek) else { return Ok(()) };
        let from = self.stored;
        self.meta.check_named(&self.shared)?;
        let safety = self.meta.get()?.safety;
        // An id is worth nothing where another file than the one that is open has taken the segment's place.
        let same_file = || {
            let ours = self.segment.as_ref().filter(|open| open.number == to.segment && to.marker > 0);
            ours.is_none_or(|ours| {
                let named = self.shared.facts(&names::segment(to.segment));
                named.is_ok_and(|named| named.identity == ours.identity)
            })
        };
        if checkpoint.move_from(&self.shared, from, to, safety, same_file)? {
            self.stored = to;
            retention::remove_passed(&self.shared, from, to, storage_log, &mut self.passing)?;
        }
        Ok(())
    }

    /// Stores the checkpoint: everything up to and including `id` is done. Removes segments that nobody
    /// needs any more.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] where `id` lies beyond what was written; [`Error::StaleId`] where it was read from a
    /// segment that somebody has replaced since (after a repair, the record's id of now is stored);
    /// [`Error::Unsubscribed`] or [`Error::Replaced`] where the subscriber or the jlog was removed meanwhile;
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Io`], [`Error::DiskFull`].
    pub fn checkpoint(&mut self, id: LogId) -> Result<()> {
        if self.subscribed()?.is_removed()? {
            self.check_there()?;
        }
        let meta = self.meta.get()?;
        self.meta.check_named(&self.shared)?;
        let current = self.current_id(id)?;
        let read = id.segment == self.position.segment
            && id.marker <= self.position.marker
            && self.position.offset.is_some();
        let passed = self.passed.is_some_and(|(end, _)| end == current);
        if !read && !passed && id != self.stored && current == id {
            recovery::check_id(&self.shared, &meta, id)?;
        }
        let id = match self.passed {
            Some((end, next)) if end == current => LogId::new(next, 0),
            _ => id,
        };
        self.store(id, meta.storage_log)
    }

    /// Stores a checkpoint whether there is such a record or not, as the C library does. Removes segments that
    /// nobody needs any more, but never the one being written.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Io`], [`Error::DiskFull`].
    pub fn store_checkpoint(&mut self, id: LogId) -> Result<()> {
        let storage_log = self.meta.get()?.storage_log;
        self.store(id, storage_log)
    }

    pub(super) fn store(&mut self, id: LogId, storage_log: u32) -> Result<()> {
        let safety = self.meta.get()?.safety;
        self.meta.check_named(&self.shared)?;
        if id.segment < self.stored.segment {
            // Without room to note it, what is gone is reported as lost once too often.
            let _ = lost::begins(&self.shared, id);
        }
        let (stored, old) = self.subscribed()?.set(&self.shared, safety, || self.current_id(id))?;
        self.generations.done(id);
        let id = stored;
        self.stored = id;
        let old = old.unwrap_or(id);
        if id < old
            && let Some(subscriber) = self.name.as_ref().map(ToString::to_string)
        {
            self.shared.note(Event::CheckpointWentBack { subscriber, from: old, to: id });
        }
        retention::remove_passed(&self.shared, old, id, storage_log, &mut self.passing)
    }

    /// Whether this reader can store checkpoints: to be asked before work is done that a checkpoint is to keep.
    ///
    /// # Errors
    /// [`Error::Io`] with the reason where the checkpoint cannot be written; [`Error::NoSubscriber`] for a reader
    /// without a subscriber.
    pub fn check_writable(&self) -> Result<()> {
        self.subscribed()?.check_allowed()
    }

    pub(super) fn subscribed(&self) -> Result<&Checkpoint> {
        self.checkpoint.as_ref().ok_or_else(|| Error::NoSubscriber { path: self.shared.path.clone() })
    }

    /// Makes the checkpoint durable.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Io`].
    pub fn sync_checkpoint(&self) -> Result<()> {
        self.subscribed()?.sync()
    }

    /// The checkpoint as it is stored now (others may move it, too).
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Checkpoint`], [`Error::Io`].
    pub fn stored_checkpoint(&self) -> Result<LogId> {
        Ok(self.subscribed()?.get()?.unwrap_or(self.stored))
    }

    /// Stores a checkpoint that means the same as the one that is stored. A disk that cannot be written keeps
    /// the old one.
    pub(super) fn settle(&mut self, here: LogId, storage_log: u32) {
        if here != self.stored {
            let _ = self.move_stored(here, storage_log);
        }
    }
}
