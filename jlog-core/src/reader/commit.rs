//! Stores a reader's checkpoint, from the reader itself or through a [`Checkpointer`].

use std::sync::Arc;

use super::state::{Ledger, Reader};
use crate::codec::names;
use crate::files::checkpoint::Checkpoint;
use crate::files::metastore::MetaReader;
use crate::files::shared::Shared;
use crate::storage::Guarded;
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::upkeep::retention;
use crate::upkeep::retention::Passing;
use crate::walk::{counts, lost};
use crate::{Error, Event, LogId, Result};

/// Everything needed to store a checkpoint.
struct Storing<'a> {
    shared: &'a Shared,
    meta: &'a MetaReader,
    name: &'a SubscriberName,
    checkpoint: &'a Checkpoint,
    ledger: &'a Mutex<Ledger>,
    passing: &'a mut Passing,
}

impl Storing<'_> {
    /// Stores `id`. If `known`, the record has been read, and its existence is not checked.
    fn commit(self, id: LogId, known: bool) -> Result<()> {
        check_not_replaced(self.shared, self.meta, self.checkpoint, self.name)?;
        let meta = self.meta.get()?;
        let ledger = self.ledger.lock();
        let current = ledger.generations.current_id(self.shared, id)?;
        let (stored, passed) = (ledger.stored, ledger.passed);
        drop(ledger);
        let passed = passed.filter(|&(end, _)| end == current);
        if !known && passed.is_none() && id != stored && current == id {
            counts::check_id(self.shared, &meta, id)?;
        }
        self.store(passed.map_or(id, |(_, next)| LogId::new(next, 0)), meta.storage_log)
    }

    /// Stores `id` without checking that there is such a record.
    fn store(self, id: LogId, storage_log: u32) -> Result<()> {
        let safety = self.meta.get()?.safety;
        self.meta.check_named(self.shared)?;
        let mut ledger = self.ledger.lock();
        if id.segment < ledger.stored.segment {
            // If there is no room to note this, lost messages are reported once too often.
            let _ = lost::begins(self.shared, id);
        }
        let (stored, old) =
            self.checkpoint.set(self.shared, safety, || ledger.generations.current_id(self.shared, id))?;
        ledger.generations.done(id);
        ledger.stored = stored;
        drop(ledger);
        let old = old.unwrap_or(stored);
        if stored < old {
            let subscriber = self.name.to_string();
            self.shared.note(Event::CheckpointRewound { subscriber, from: old, to: stored });
        }
        retention::remove_passed(self.shared, old, stored, storage_log, self.passing)
    }
}

/// Makes sure that the jlog and the subscriber are still there.
fn check_not_replaced(
    shared: &Shared,
    meta: &MetaReader,
    checkpoint: &Checkpoint,
    name: &SubscriberName,
) -> Result<()> {
    meta.check_named(shared)?;
    if checkpoint.is_removed()? {
        return Err(Error::Unsubscribed { path: shared.path.clone(), name: name.to_string() });
    }
    Ok(())
}

/// Stores the checkpoint of a [`Reader`]'s subscriber while the reader is in use: during iteration
/// over a batch, or from another thread. [`Reader::checkpointer`] makes it.
///
/// It knows which messages its reader has handed out, and where they are after a repair. It may
/// outlive the reader, and keeps the reader's claim on the subscriber
/// ([`ReaderOptions::claim`](crate::ReaderOptions::claim)).
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("billing", jlog_core::Start::Beginning)?; log.writer()?.append_batch(&["a", "b"])?;
/// use jlog_core::Wait;
///
/// let mut reader = log.reader("billing")?;
/// let mut checkpointer = reader.checkpointer()?;
/// while let Some(batch) = reader.next_batch(Wait::No)? {
///     for message in &batch {
///         println!("{} bytes", message.body().len());
///         checkpointer.commit(message.id())?;
///     }
/// }
/// assert_eq!(checkpointer.stored()?, log.end()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpointer {
    shared: Arc<Shared>,
    meta: Arc<MetaReader>,
    name: SubscriberName,
    /// Opened separately: locks of one open file do not exclude each other.
    checkpoint: Checkpoint,
    /// The reader's claim, which lasts as long as either exists.
    _claim: Option<Arc<Guarded>>,
    ledger: Arc<Mutex<Ledger>>,
    passing: Passing,
}

impl Checkpointer {
    /// The subscriber's name.
    pub fn subscriber(&self) -> &SubscriberName {
        &self.name
    }

    /// Stores the checkpoint: everything up to and including `id` is done. Removes segments that no
    /// subscriber needs. Costs as much as [`Reader::commit`]; the reader's next batch waits for it.
    ///
    /// # Errors
    /// As [`Reader::commit`].
    pub fn commit(&mut self, id: LogId) -> Result<()> {
        let known = self.ledger.lock().generations.has_given(id);
        let storing = Storing {
            shared: &self.shared,
            meta: &self.meta,
            name: &self.name,
            checkpoint: &self.checkpoint,
            ledger: &self.ledger,
            passing: &mut self.passing,
        };
        storing.commit(id, known)
    }

    /// Checks that the jlog and the subscriber still exist, as [`Reader::check_not_replaced`] does.
    ///
    /// # Errors
    /// [`Error::Replaced`] if the jlog is no longer at its path, [`Error::Unsubscribed`] if the
    /// subscriber was removed; [`Error::Io`].
    pub fn check_not_replaced(&self) -> Result<()> {
        check_not_replaced(&self.shared, &self.meta, &self.checkpoint, &self.name)
    }

    /// Makes the checkpoint durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        self.checkpoint.sync()
    }

    /// The stored checkpoint; others may have moved it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Io`].
    pub fn stored(&self) -> Result<LogId> {
        let stored = self.checkpoint.get()?;
        Ok(stored.unwrap_or_else(|| self.ledger.lock().stored))
    }
}

impl Reader {
    /// An independent handle that stores this reader's checkpoint: it can be used while a batch is
    /// being iterated, and sent to another thread. It costs an open file.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Unsubscribed`] if the subscriber
    /// was removed; [`Error::Io`].
    pub fn checkpointer(&self) -> Result<Checkpointer> {
        let (own, name) = self.subscribed()?;
        let gone = || Error::Unsubscribed { path: self.shared.path.clone(), name: name.to_string() };
        let checkpoint = match Checkpoint::open(&self.shared, name) {
            Err(Error::UnknownSubscriber { .. }) => return Err(gone()),
            opened => opened?,
        };
        // A subscriber of the same name may have replaced this reader's.
        if !checkpoint.is_file_of(own)? {
            return Err(gone());
        }
        Ok(Checkpointer {
            shared: Arc::clone(&self.shared),
            meta: Arc::clone(&self.meta),
            name: name.clone(),
            checkpoint,
            _claim: self.claim.clone(),
            ledger: Arc::clone(&self.ledger),
            passing: Passing::default(),
        })
    }

    /// Moves the stored checkpoint, unless another reader has moved it, or this reader only peeks.
    pub(super) fn move_stored(&mut self, to: LogId, storage_log: u32) -> Result<()> {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| !self.options.peek) else { return Ok(()) };
        self.meta.check_named(&self.shared)?;
        let safety = self.meta.get()?.safety;
        // The id means nothing if another file has taken the place of the open segment.
        let same_file = || {
            let ours = self.segment.as_ref().filter(|open| open.number == to.segment && to.marker > 0);
            ours.is_none_or(|ours| {
                let named = self.shared.facts(&names::segment(to.segment));
                named.is_ok_and(|named| named.identity == ours.identity)
            })
        };
        let mut ledger = self.ledger.lock();
        let from = ledger.stored;
        let moved = checkpoint.move_from(&self.shared, from, to, safety, same_file)?;
        if moved {
            ledger.stored = to;
            drop(ledger);
            retention::remove_passed(&self.shared, from, to, storage_log, &mut self.passing)?;
        }
        Ok(())
    }

    /// Stores the checkpoint: everything up to and including `id` is done. Removes segments that no
    /// subscriber needs.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] if `id` is beyond what was written; [`Error::StaleId`] if it was
    /// read from a segment that was replaced since (after a repair, the record's current id is
    /// stored); [`Error::Unsubscribed`] or [`Error::Replaced`] if the subscriber or the jlog was
    /// removed meanwhile; [`Error::NoSubscriber`] for a reader without one; [`Error::Io`],
    /// [`Error::DiskFull`].
    pub fn commit(&mut self, id: LogId) -> Result<()> {
        let known = id.segment == self.position.segment
            && id.marker <= self.position.marker
            && self.position.offset.is_some();
        self.storing()?.commit(id, known)
    }

    /// See [`ReaderCompat`](crate::compat::ReaderCompat).
    pub(crate) fn store_checkpoint(&mut self, id: LogId) -> Result<()> {
        let storage_log = self.meta.get()?.storage_log;
        self.storing()?.store(id, storage_log)
    }

    fn storing(&mut self) -> Result<Storing<'_>> {
        let (Some(checkpoint), Some(name)) = (&self.checkpoint, &self.name) else {
            return Err(Error::NoSubscriber { path: self.shared.path.clone() });
        };
        Ok(Storing {
            shared: &self.shared,
            meta: &self.meta,
            name,
            checkpoint,
            ledger: &self.ledger,
            passing: &mut self.passing,
        })
    }

    /// Checks that this reader can store checkpoints, before work is done that depends on it.
    ///
    /// # Errors
    /// [`Error::Io`] with the reason if the checkpoint cannot be written; [`Error::NoSubscriber`]
    /// for a reader without a subscriber.
    pub fn check_writable(&self) -> Result<()> {
        self.subscribed()?.0.check_allowed()
    }

    pub(super) fn subscribed(&self) -> Result<(&Checkpoint, &SubscriberName)> {
        let subscribed = self.checkpoint.as_ref().zip(self.name.as_ref());
        subscribed.ok_or_else(|| Error::NoSubscriber { path: self.shared.path.clone() })
    }

    /// Makes the checkpoint durable.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Io`].
    pub fn sync_checkpoint(&self) -> Result<()> {
        self.subscribed()?.0.sync()
    }

    /// The stored checkpoint; others may have moved it.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`] for a reader without one; [`Error::Checkpoint`], [`Error::Io`].
    pub fn stored_checkpoint(&self) -> Result<LogId> {
        let stored = self.subscribed()?.0.get()?;
        Ok(stored.unwrap_or_else(|| self.ledger.lock().stored))
    }

    /// Stores a checkpoint that is equivalent to the stored one. On a disk that cannot be written,
    /// the old one stays.
    pub(super) fn settle(&mut self, here: LogId, storage_log: u32) {
        let stored = self.ledger.lock().stored;
        if here != stored {
            let _ = self.move_stored(here, storage_log);
        }
    }
}
