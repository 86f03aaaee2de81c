//! The state of a reader.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::generation::Generations;
use crate::codec::format::RecordFormat;
use crate::codec::names;
use crate::files::checkpoint::Checkpoint;
use crate::files::checksum::Verifier;
use crate::files::metastore::MetaReader;
use crate::files::renumbered::Identity;
use crate::files::scan::Place;
use crate::files::shared::Shared;
use crate::options::ReaderOptions;
use crate::storage::{File, Guarded, Map, Open, Watch};
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::upkeep::retention::Passing;
use crate::walk::lost;
use crate::walk::survey::Stretch;
use crate::{Error, LogId, Lost, Result};

/// Reads a jlog, for a subscriber or without one.
///
/// Reading moves only the reader's own position. The checkpoint, where the next reader of this
/// subscriber begins, moves when [`commit`](Reader::commit) is called. Reading needs no write
/// permission and no free space: a reader writes only its checkpoint and, when it skips damage, a
/// copy of the damaged bytes.
///
/// A subscriber has one reader at a time: a second one is refused
/// ([`Error::ReaderBusy`](crate::Error::ReaderBusy)), unless both share the subscriber
/// ([`ReaderOptions::claim`]). Each of them then gets every message, and the last checkpoint stored
/// wins.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("billing", jlog_core::Start::Beginning)?; log.writer()?.append(b"hello")?;
/// use std::time::Duration;
/// use jlog_core::Wait;
///
/// let mut reader = log.reader("billing")?;
/// while let Some(batch) = reader.next_batch(Wait::Timeout(Duration::from_millis(10)))? {
///     for message in &batch {
///         println!("{}: {} bytes", message.id(), message.body().len());
///     }
///     let last = batch.last_id();
///     reader.commit(last)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Damage
///
/// By default, [`next_batch`](Reader::next_batch) **stops at damaged bytes with an error, and every
/// later call returns the same error** until [`skip_damage`](Reader::skip_damage) is called.
/// Unsupervised consumers should use [`OnDamage::Skip`](crate::OnDamage::Skip): damaged stretches
/// are then reported as [`Event::DamageSkipped`](crate::Event::DamageSkipped), counted
/// ([`skipped`](Reader::skipped)), and kept in `….broken-<offset>` files.
///
/// # A jlog that is removed
///
/// When the jlog is removed or replaced, reading ends with
/// [`Error::Replaced`](crate::Error::Replaced); when the subscriber is removed, with
/// [`Error::Unsubscribed`](crate::Error::Unsubscribed). That also ends a wait. Open the jlog again
/// to read what is there now.
pub struct Reader {
    pub(super) shared: Arc<Shared>,
    /// `None` for a reader without a subscriber.
    pub(super) name: Option<SubscriberName>,
    pub(super) meta: Arc<MetaReader>,
    pub(super) format: RecordFormat,
    /// The subscriber's checkpoint.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Keeps other readers of the subscriber away.
    pub(super) claim: Option<Arc<Guarded>>,
    pub(super) options: ReaderOptions,
    pub(super) position: Position,
    pub(super) segment: Option<Segment>,
    pub(super) buf: Vec<u8>,
    pub(super) plain: Vec<u8>,
    /// Checksums of the previous segment, whose memory is reused for the next one.
    pub(super) memory: Verifier,
    /// Bytes that were read for records by id, and their offset in the segment.
    pub(super) single: Vec<u8>,
    pub(super) single_at: u64,
    pub(super) watch: Option<Box<dyn Watch>>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) passing: Passing,
    /// When messages that are too old were last removed.
    pub(super) expired_at: Option<Instant>,
    pub(super) damage: Option<(Stretch, Place)>,
    /// Damage up to the segment's end that was skipped last.
    pub(super) skipped_tail: Option<SkippedTail>,
    pub(super) skipped: u64,
    pub(super) missed: u64,
    pub(super) lost: Option<Lost>,
    /// The segment being written, if it is missing and that was reported.
    pub(super) missing_end: Option<u32>,
    /// The recorded losses of cut segments.
    pub(super) noted: lost::Remembered,
    pub(super) cursor: Option<Cursor>,
    /// How many records the segment being written had at this length.
    pub(super) counted: Option<Cursor>,
}

/// How far a reader has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) segment: u32,
    /// Records before it.
    pub(super) marker: u32,
    /// Where the next record begins, once that is known.
    pub(super) offset: Option<u64>,
    /// The file of the segment that the marker refers to, if known.
    pub(super) file: Option<Identity>,
    /// The marker up to which records were read, if the segment has lost some of them since;
    /// otherwise 0.
    pub(super) read_before: u32,
}

pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) file: Arc<dyn File>,
    pub(super) identity: Identity,
    pub(super) verifier: Verifier,
    /// The bytes where a survey found intact records that do not match the checksums, or that
    /// damage follows.
    pub(super) accepted: Range<u64>,
    pub(super) map: Option<Map>,
    /// Where in the segment the contents of the reader's buffer begin, if it holds bytes of it.
    pub(super) buffered: Option<u64>,
}

/// The place after the record that was last read by its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) segment: u32,
    pub(super) marker: u32,
    pub(super) offset: u64,
    /// The offset up to which the checksums describe other records; 0 if they describe these.
    pub(super) foreign_until: u64,
}

/// Damage that was skipped up to the segment's end. The next writer may truncate it, and write
/// where it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkippedTail {
    pub(super) segment: u32,
    pub(super) before: Place,
    pub(super) end: u64,
    pub(super) crc: u32,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.shared.path)
            .field("subscriber", &self.name)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The state that a reader and its checkpointers share. It is locked before the checkpoint's file,
/// never while that is locked, and not while events are reported.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The contents of the checkpoint file.
    pub(super) stored: LogId,
    /// The end of the last complete segment that was read, and the segment after it.
    pub(super) passed: Option<(LogId, u32)>,
    pub(super) generations: Generations,
}

impl Ledger {
    pub(super) fn new(stored: LogId) -> Self {
        Self { stored, passed: None, generations: Generations::default() }
    }
}

/// Opens a segment for reading, with the checksums that belong to this file; `None` if it does not
/// exist.
pub(super) fn open(shared: &Shared, number: u32, verify: bool) -> Result<Option<Segment>> {
    open_over(Verifier::default(), shared, number, verify)
}

/// The same, reusing the memory of another segment's checksums.
pub(super) fn open_over(
    mut memory: Verifier,
    shared: &Shared,
    number: u32,
    verify: bool,
) -> Result<Option<Segment>> {
    let name = names::segment(number);
    loop {
        let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
        let identity = file.facts().map_err(|e| Error::io("look at", shared.at(&name), e))?.identity;
        let verifier = if verify {
            Verifier::load_over(std::mem::take(&mut memory), shared, number)?
        } else {
            Verifier::default()
        };
        // A repair replaces both, one after the other.
        if shared.is_repair_pending()? {
            crate::upkeep::journal::finish(shared)?;
        } else if !shared.facts(&name).is_ok_and(|named| named.identity != identity) {
            return Ok(Some(Segment {
                number,
                file,
                identity,
                verifier,
                accepted: 0..0,
                map: None,
                buffered: None,
            }));
        }
    }
}
