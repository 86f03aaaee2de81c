//! The checkpoint that a reader stores.

use super::Reader;
use crate::{Event, LogId, Result, lost, recovery, retention};

impl Reader {
    /// Moves the stored checkpoint, unless somebody else has moved it, or this reader only looks.
    pub(super) fn move_stored(&mut self, to: LogId, storage_log: u32) -> Result<()> {
        if self.options.peek {
            return Ok(());
        }
        let from = self.stored;
        self.meta.check_named(&self.shared)?;
        if self.checkpoint.move_from(from, to, self.meta.get()?.safety)? {
            self.stored = to;
            retention::remove_passed(&self.shared, from, to, storage_log, &mut self.passing)?;
        }
        Ok(())
    }

    /// Stores the checkpoint: everything up to and including `id` is done. Removes segments that nobody
    /// needs any more.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] where `id` lies beyond what was written; [`Error::Replaced`]; [`Error::Io`],
    /// [`Error::DiskFull`].
    pub fn checkpoint(&mut self, id: LogId) -> Result<()> {
        let meta = self.meta.get()?;
        let read = id.segment == self.position.segment
            && id.marker <= self.position.marker
            && self.position.offset.is_some();
        let passed = self.passed.is_some_and(|(end, _)| end == id);
        if !read && !passed && id != self.stored {
            recovery::check_id(&self.shared, &meta, id)?;
        }
        let id = match self.passed {
            Some((end, next)) if end == id => LogId::new(next, 0),
            _ => id,
        };
        self.store(id, meta.storage_log)
    }

    /// Stores a checkpoint whether there is such a record or not, as the C library does. Removes segments that
    /// nobody needs any more, but never the one being written.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`].
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
        let old = self.checkpoint.set(id, safety)?;
        self.stored = id;
        let old = old.unwrap_or(id);
        if id < old {
            let subscriber = self.name.to_string();
            self.shared.note(Event::CheckpointWentBack { subscriber, from: old, to: id });
        }
        retention::remove_passed(&self.shared, old, id, storage_log, &mut self.passing)
    }

    /// Makes the checkpoint durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync_checkpoint(&self) -> Result<()> {
        self.checkpoint.sync()
    }

    /// The checkpoint as it is stored now (others may move it, too).
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Io`].
    pub fn stored_checkpoint(&self) -> Result<LogId> {
        Ok(self.checkpoint.get()?.unwrap_or(self.stored))
    }

    /// Stores a checkpoint that means the same as the one that is stored. A disk that cannot be written keeps
    /// the old one.
    pub(super) fn settle(&mut self, here: LogId, storage_log: u32) {
        if here != self.stored {
            let _ = self.move_stored(here, storage_log);
        }
    }
}
