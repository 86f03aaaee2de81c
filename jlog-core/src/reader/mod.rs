//! The reading side.

mod commit;
mod generation;
mod locate;
mod look;
mod place;
mod records;
mod state;

pub use commit::Checkpointer;
pub(crate) use locate::Finder;
pub use state::Reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::format::Meta;
use crate::codec::names;
use crate::files::checkpoint::Checkpoint;
use crate::files::checksum::Verifier;
use crate::files::metastore::MetaReader;
use crate::files::renumbered::Identity;
use crate::files::scan::{Place, Window, record_crc};
use crate::files::shared::Shared;
use crate::message::Batch;
use crate::options::{Claim, OnDamage, ReaderOptions};
use crate::storage::{Waker, Watch, read_up_to_at};
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::upkeep::retention::Passing;
use crate::walk::lost;
use crate::walk::survey::Stretch;
use crate::{Error, Event, LogId, Lost, Result};
use look::Found;
use state::{Ledger, Position, Segment, SkippedTail};

/// How often a waiting reader removes messages that are too old.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How often a waiting reader checks that its feed still exists: moving a parent directory causes
/// no notification.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long [`Reader::next_batch`] waits for something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    Timeout(Duration),
    /// Until there is something, or the reader's [`Waker`] is used.
    Forever,
}

impl Reader {
    pub(crate) fn open(shared: Arc<Shared>, name: SubscriberName, options: ReaderOptions) -> Result<Self> {
        let meta = MetaReader::open(&shared)?;
        let checkpoint = Checkpoint::open(&shared, &name)?;
        // The claim is taken before the checkpoint is read, so that this reader sees the last
        // checkpoint of the previous one.
        let claim = match options.claim {
            Claim::Alone | Claim::Shared if options.peek => None,
            claim => checkpoint.claim(&shared, &name, claim)?.map(Arc::new),
        };
        let (stored, file) = match checkpoint.get_with_file(&shared)? {
            Some(stored) => stored,
            // It is being created right now, and counts as the beginning.
            None => (LogId::new(shared.segments()?.first().copied().unwrap_or(0), 0), None),
        };
        let reader = Self::new(shared, meta, Some((name, checkpoint)), (stored, file), options)?;
        Ok(Self { claim, ..reader })
    }

    /// A reader without a subscriber, after this record.
    pub(crate) fn open_at(shared: Arc<Shared>, after: LogId, options: ReaderOptions) -> Result<Self> {
        let meta = MetaReader::open(&shared)?;
        Self::new(shared, meta, None, (after, None), options)
    }

    fn new(
        shared: Arc<Shared>,
        meta: MetaReader,
        subscriber: Option<(SubscriberName, Checkpoint)>,
        (stored, file): (LogId, Option<Identity>),
        options: ReaderOptions,
    ) -> Result<Self> {
        let format = meta.get()?.format;
        let (name, checkpoint) = subscriber.unzip();
        Ok(Self {
            shared,
            name,
            meta: Arc::new(meta),
            format,
            checkpoint,
            claim: None,
            options,
            position: Position {
                segment: stored.segment,
                marker: stored.marker,
                offset: None,
                file,
                read_before: 0,
            },
            segment: None,
            buf: Vec::new(),
            plain: Vec::new(),
            memory: Verifier::default(),
            single: Vec::new(),
            single_at: 0,
            watch: None,
            ledger: Arc::new(Mutex::new(Ledger::new(stored))),
            passing: Passing::default(),
            expired_at: None,
            damage: None,
            skipped_tail: None,
            skipped: 0,
            missed: 0,
            lost: None,
            missing_end: None,
            noted: lost::Remembered::default(),
            cursor: None,
            counted: None,
        })
    }

    /// The subscriber's name; `None` for a reader without one
    /// ([`Jlog::reader_from`](crate::Jlog::reader_from)).
    pub fn subscriber(&self) -> Option<&SubscriberName> {
        self.name.as_ref()
    }

    /// The reader's position: the id of the last message, or (segment, 0).
    pub fn position(&self) -> LogId {
        LogId::new(self.position.segment, self.position.marker)
    }

    /// Bytes of damage that were skipped so far. Records that the checksums or the compression
    /// showed to be damaged count with all their bytes.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many messages were dropped before this reader reached them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The messages that the subscriber needed, in missing or cut segments that this reader has met
    /// so far. `None` if there were none. For a reader without a subscriber, those of the subscriber
    /// that has lost most.
    pub fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// The next messages, or `None` if none arrive within the time, or the reader's [`Waker`] was
    /// used.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::ChecksumMismatch`], [`Error::Compressed`]: everything before
    /// the damage was returned, and **every further call fails in the same way** until
    /// [`skip_damage`](Reader::skip_damage) skips the damage, unless the reader was opened with
    /// [`OnDamage::Skip`]. [`Error::Replaced`] if the jlog was removed or replaced,
    /// [`Error::Unsubscribed`] if the subscriber was removed. [`Error::Missed`] and
    /// [`Error::SegmentsLost`] if requested ([`OnMissed::Fail`](crate::OnMissed::Fail)).
    /// [`Error::Io`].
    pub fn next_batch(&mut self, wait: Wait) -> Result<Option<Batch<'_>>> {
        let deadline = match wait {
            Wait::Timeout(time) => Instant::now().checked_add(time),
            Wait::No | Wait::Forever => None,
        };
        let (first, count, bytes, mapped_at, plain) = loop {
            match self.look() {
                Ok(Found::Records { first, count, bytes, mapped_at, plain }) => {
                    break (first, count, bytes, mapped_at, plain);
                }
                Ok(Found::Moved) => {
                    if self.woken()? {
                        return Ok(None);
                    }
                }
                Ok(Found::Nothing) => {
                    self.check_not_replaced()?;
                    let left = match (wait, deadline) {
                        (Wait::No, _) => return Ok(None),
                        (_, Some(deadline)) => {
                            let left = deadline.saturating_duration_since(Instant::now());
                            if left.is_zero() {
                                return Ok(None);
                            }
                            Some(left)
                        }
                        (_, None) => None,
                    };
                    if !self.wait(left)? {
                        return Ok(None);
                    }
                }
                Err(e) if e.is_damage() && self.options.on_damage == OnDamage::Skip => {
                    self.skip_damage();
                    if self.woken()? {
                        return Ok(None);
                    }
                }
                Err(e) => {
                    if e.is_not_found() {
                        self.check_not_replaced()?;
                    }
                    return Err(e);
                }
            }
        };
        let bytes = match (mapped_at, &self.segment) {
            (Some(at), Some(Segment { map: Some(map), .. })) => {
                map.slice(usize::try_from(at).unwrap_or(0), bytes)
            }
            _ if plain => &self.plain[..bytes],
            _ => &self.buf[..bytes],
        };
        let segment = self.position.segment;
        self.ledger.lock().generations.gave(LogId::new(segment, self.position.marker));
        Ok(Some(Batch { bytes, format: self.format, plain, segment, first, count }))
    }

    /// Takes the memory with the records of the last batch of [`next_batch`](Reader::next_batch),
    /// and leaves `spare`, whose contents do not matter, in its place. The memory begins with the
    /// records as they are in the segment (with compressed bodies decompressed), followed by at
    /// least one more byte. For the C interface, which hands out messages without a copy; not for a
    /// reader that maps segments.
    #[doc(hidden)]
    pub fn take_batch(&mut self, spare: Vec<u8>) -> Vec<u8> {
        let own = if self.format.is_lz4() { &mut self.plain } else { &mut self.buf };
        let mut bytes = std::mem::replace(own, spare);
        if let Some(segment) = &mut self.segment {
            segment.buffered = None;
        }
        // Room for it was reserved.
        bytes.push(0);
        bytes
    }

    /// Sets how many bytes are read at a time from now on.
    #[doc(hidden)]
    pub fn set_batch_bytes(&mut self, bytes: usize) {
        self.options.batch_bytes = bytes;
    }

    /// Skips exactly the damage that the last call met: the next intact record is read next. Has no
    /// effect if the last call met none.
    ///
    /// The segment is removed once every subscriber has passed it, so the damaged bytes are kept in
    /// a file `….broken-<offset>`, as repair does. They are not kept by a reader that peeks, has no
    /// subscriber, or cannot write there, or if there are more than 64 MiB of them.
    pub fn skip_damage(&mut self) {
        let Some((stretch, behind)) = self.damage.take() else { return };
        self.skipped_tail = self.tail_of(stretch);
        self.position.offset = Some(behind.offset);
        self.position.marker = behind.marker;
        self.skipped += stretch.len;
        let kept = self.keep_evidence(stretch);
        self.shared.note(Event::DamageSkipped {
            segment: self.position.segment,
            offset: stretch.offset,
            len: stretch.len,
            kept,
        });
    }

    /// What to remember of the damage before it is skipped, if nothing follows it.
    fn tail_of(&self, stretch: Stretch) -> Option<SkippedTail> {
        let segment = self.segment.as_ref()?;
        let end = stretch.offset + stretch.len;
        if segment.file.len().ok()? > end {
            return None;
        }
        Some(SkippedTail {
            segment: segment.number,
            before: Place { marker: self.position.marker, offset: stretch.offset },
            end,
            crc: record_crc(&*segment.file, stretch.offset, stretch.len, &mut Window::default()).ok()?,
        })
    }

    fn keep_evidence(&self, stretch: Stretch) -> Option<PathBuf> {
        const MOST: u64 = 64 << 20;
        self.checkpoint.as_ref().filter(|checkpoint| checkpoint.check_allowed().is_ok())?;
        let segment = self.segment.as_ref()?;
        if self.options.peek || stretch.len > MOST {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(stretch.len).ok()?];
        let n = read_up_to_at(&*segment.file, &mut bytes, stretch.offset).ok()?;
        let name = names::segment(segment.number);
        // A full disk must not keep a reader from continuing.
        let kept = self.shared.keep_broken(&name, stretch.offset, &bytes[..n]).ok()?;
        Some(self.shared.at(&kept))
    }

    /// Whether the waker was used meanwhile.
    fn woken(&mut self) -> Result<bool> {
        let Some(watch) = &mut self.watch else { return Ok(false) };
        watch.wait(Some(Duration::ZERO)).map_err(|e| Error::io("watch", &self.shared.path, e))
    }

    /// Checks that the jlog and the subscriber still exist, as [`next_batch`](Reader::next_batch)
    /// does before it reports that there is nothing to read.
    ///
    /// # Errors
    /// [`Error::Replaced`] if the jlog is no longer at its path, [`Error::Unsubscribed`] if the
    /// subscriber was removed; [`Error::Io`].
    pub fn check_not_replaced(&self) -> Result<()> {
        self.meta.check_named(&self.shared)?;
        match (&self.checkpoint, &self.name) {
            (Some(checkpoint), Some(name)) if checkpoint.is_removed()? => {
                Err(Error::Unsubscribed { path: self.shared.path.clone(), name: name.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// A handle that ends a wait of this reader from another thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no descriptor left.
    pub fn waker(&mut self) -> Result<Waker> {
        let path = self.shared.path.clone();
        self.watch()?.waker().map_err(|e| Error::io("watch", path, e))
    }

    fn watch(&mut self) -> Result<&mut Box<dyn Watch>> {
        match &mut self.watch {
            Some(_) => {}
            none => {
                let watch = self.shared.storage.watch(&self.shared.path);
                *none = Some(watch.map_err(|e| Error::io("watch", &self.shared.path, e))?);
            }
        }
        // It exists now: it was made above if it was missing.
        self.watch
            .as_mut()
            .ok_or_else(|| Error::io("watch", &self.shared.path, std::io::Error::other("no watch")))
    }

    /// Waits. Returns `false` if the waker was used.
    fn wait(&mut self, left: Option<Duration>) -> Result<bool> {
        if self.watch.is_none() {
            self.watch()?;
            // Check once more for messages from before the watch began.
            return Ok(true);
        }
        if !self.options.peek && self.expired_at.is_none_or(|at| at.elapsed() >= EXPIRE_EVERY) {
            // If nobody writes, a waiting reader does this. If it lacks permission, it leaves that
            // to others.
            let _ = crate::writer::expire::run(&self.shared);
            self.expired_at = Some(Instant::now());
        }
        let left = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        let woken = self.watch()?.wait(Some(left));
        Ok(!woken.map_err(|e| Error::io("watch", &self.shared.path, e))?)
    }

    /// The current values of the metastore.
    ///
    /// # Errors
    /// [`Error::Metastore`], [`Error::Io`].
    pub fn meta(&self) -> Result<Meta> {
        self.meta.get()
    }
}
