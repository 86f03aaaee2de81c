//! The reading side.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::Checkpoint;
use crate::checksum::{Suspect, Verdict, Verifier};
use crate::format::{Meta, RecordFormat, RecordHeader};
use crate::message::{Batch, Interval, Message};
use crate::meta::MetaReader;
use crate::names::SubscriberName;
use crate::options::{OnDamage, OnMissed, ReadMethod, ReaderOptions};
use crate::retention::Passing;
use crate::scan::{Step, step};
use crate::shared::Shared;
use crate::storage::{File, Map, Open, Waker, Watch, read_up_to_at};
use crate::survey::{Fault, Item, Place, Stretch, Survey};
use crate::{Error, Event, LogId, Result, Timestamp, dropped, index, names, retention};

/// How long [`Reader::next_batch`] waits for something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    Timeout(Duration),
    /// Until there is something, or the reader's [`Waker`] is used.
    Forever,
}

/// Reads a jlog for a subscriber.
///
/// Reading moves the reader's own position only. The checkpoint, which is where the next reader of this
/// subscriber begins, moves when [`checkpoint`](Reader::checkpoint) is called. Nothing is written but
/// checkpoints: reading works on a full disk and on a read-only one.
///
/// One reader a subscriber at a time is meant; several see the same messages, and the last checkpoint wins.
pub struct Reader {
    shared: Arc<Shared>,
    name: SubscriberName,
    meta: MetaReader,
    format: RecordFormat,
    checkpoint: Checkpoint,
    options: ReaderOptions,
    position: Position,
    segment: Option<Segment>,
    buf: Vec<u8>,
    plain: Vec<u8>,
    /// What was read for records by their ids, and where in the segment that begins.
    single: Vec<u8>,
    single_at: u64,
    watch: Option<Box<dyn Watch>>,
    /// What the checkpoint file holds.
    stored: LogId,
    /// The end of the last complete segment that was read, and the segment after it.
    passed: Option<(LogId, u32)>,
    passing: Passing,
    damage: Option<(Stretch, Place)>,
    /// A record that damage follows, and that was looked at: its marker less one, and its offset.
    trusted: Option<(u32, u64)>,
    skipped: u64,
    missed: u64,
    cursor: Option<Cursor>,
    /// How many records the segment being written had when it was so long.
    counted: Option<Cursor>,
}

/// How far a reader has read.
#[derive(Clone, Copy, Debug)]
struct Position {
    segment: u32,
    /// Records before it.
    marker: u32,
    /// Where the next record begins, once that is known.
    offset: Option<u64>,
}

struct Segment {
    number: u32,
    file: Arc<dyn File>,
    verifier: Verifier,
    map: Option<Map>,
}

/// The place after the record that was last read by its id.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    segment: u32,
    marker: u32,
    offset: u64,
}

/// What a look at the segment gave.
enum Found {
    /// So many records in so many bytes, at the beginning of the buffer or of the mapped part from `at`.
    Records { first: u32, count: u32, bytes: usize, mapped_at: Option<u64>, plain: bool },
    /// Nothing yet.
    Nothing,
    /// Nothing here; look again (in the next segment).
    Moved,
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

impl Reader {
    pub(crate) fn open(shared: Arc<Shared>, name: SubscriberName, options: ReaderOptions) -> Result<Self> {
        let meta = MetaReader::open(&shared)?;
        let format = meta.get()?.format;
        let checkpoint = Checkpoint::open(&shared, &name)?;
        let stored = match checkpoint.get()? {
            Some(id) => id,
            // It is being created at this moment: at the beginning, as far as one can tell.
            None => LogId::new(shared.segments()?.first().copied().unwrap_or(0), 0),
        };
        Ok(Self {
            shared,
            name,
            meta,
            format,
            checkpoint,
            options,
            position: Position { segment: stored.segment, marker: stored.marker, offset: None },
            segment: None,
            buf: Vec::new(),
            plain: Vec::new(),
            single: Vec::new(),
            single_at: 0,
            watch: None,
            stored,
            passed: None,
            passing: Passing::default(),
            damage: None,
            trusted: None,
            skipped: 0,
            missed: 0,
            cursor: None,
            counted: None,
        })
    }

    /// The subscriber's name.
    pub fn subscriber(&self) -> &SubscriberName {
        &self.name
    }

    /// Up to where the reader has read: the id of the last message, or (segment, 0).
    pub fn position(&self) -> LogId {
        LogId::new(self.position.segment, self.position.marker)
    }

    /// Bytes of damage that were skipped so far, and records among them that the checksums or the compression
    /// showed to be damaged count with all their bytes.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Messages that were dropped before this reader came to them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The next messages, or `None` when there are none within the time.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::ChecksumMismatch`], [`Error::Compressed`]: everything before was
    /// returned; [`skip_damage`](Reader::skip_damage) goes on behind. [`Error::Missed`] where that was asked for.
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
                Ok(Found::Moved) => {}
                Ok(Found::Nothing) => {
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
                }
                Err(e) => return Err(e),
            }
        };
        let bytes = match (mapped_at, &self.segment) {
            (Some(at), Some(Segment { map: Some(map), .. })) => {
                map.slice(usize::try_from(at).unwrap_or(0), bytes)
            }
            _ if plain => &self.plain[..bytes],
            _ => &self.buf[..bytes],
        };
        Ok(Some(Batch { bytes, format: self.format, plain, segment: self.position.segment, first, count }))
    }

    /// Steps over the damage that the last call met. Exactly that: the next intact record is read next.
    /// Without effect when the last call met none.
    pub fn skip_damage(&mut self) {
        let Some((stretch, behind)) = self.damage.take() else { return };
        self.position.offset = Some(behind.offset);
        self.position.marker = behind.marker;
        self.skipped += stretch.len;
        self.shared.note(Event::DamageSkipped {
            segment: self.position.segment,
            offset: stretch.offset,
            len: stretch.len,
        });
    }

    /// What ends a wait of this reader from another thread.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no descriptor left.
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
        // It was made just now where it was not there.
        self.watch
            .as_mut()
            .ok_or_else(|| Error::io("watch", &self.shared.path, std::io::Error::other("no watch")))
    }

    /// Waits; `false` when the waker was used.
    fn wait(&mut self, left: Option<Duration>) -> Result<bool> {
        if self.watch.is_none() {
            self.watch()?;
            // What came before the watch began is looked for once more.
            return Ok(true);
        }
        let woken = self.watch()?.wait(left);
        Ok(!woken.map_err(|e| Error::io("watch", &self.shared.path, e))?)
    }

    /// Looks for records at the position.
    fn look(&mut self) -> Result<Found> {
        self.damage = None;
        // In this order: what the metastore says is complete now has its last length now.
        let storage_log = self.meta.get()?.storage_log;
        let before = self.position.segment;
        if !self.open_segment(storage_log)? {
            return Ok(if self.position.segment == before { Found::Nothing } else { Found::Moved });
        }
        let complete = self.position.segment < storage_log;
        let offset = self.offset()?;
        let Some(segment) = &mut self.segment else { return Ok(Found::Nothing) };
        let path = self.shared.at(&names::segment(segment.number));
        let fail = |e| Error::io("read", path.clone(), e);
        let len = segment.file.len().map_err(fail)?;
        if offset >= len {
            if self.reopen_if_replaced()? {
                return Ok(Found::Moved);
            }
            if complete {
                self.pass(storage_log)?;
                return Ok(Found::Moved);
            }
            return Ok(Found::Nothing);
        }
        if self.options.verify {
            segment.verifier.refresh(&self.shared, segment.number);
        }
        let left = len - offset;
        let mapped = complete && self.options.method == ReadMethod::Mmap;
        if mapped && segment.map.as_ref().is_none_or(|map| (map.len() as u64) < len) {
            let whole = usize::try_from(len).map_err(|_| fail(std::io::ErrorKind::FileTooLarge.into()))?;
            segment.map = Some(segment.file.map(whole).map_err(fail)?);
        }
        let map = segment.map.clone().filter(|_| mapped);
        let mut want = usize::try_from(left).unwrap_or(usize::MAX).min(self.options.batch_bytes);
        let scanned = loop {
            let bytes: &[u8] = if let Some(map) = &map {
                map.slice(usize::try_from(offset).unwrap_or(usize::MAX), want)
            } else {
                self.buf.resize(want, 0);
                let n = read_up_to_at(&*segment.file, &mut self.buf, offset).map_err(fail)?;
                self.buf.truncate(n);
                if n < want {
                    // It was cut meanwhile.
                    return Ok(Found::Moved);
                }
                &self.buf
            };
            let scan = Scan {
                format: self.format,
                segment,
                verify: self.options.verify,
                marker: self.position.marker,
                offset,
                left,
                complete,
                trusted: self.trusted == Some((self.position.marker, offset)),
            };
            let limit = 4 * self.options.batch_bytes;
            match scan.run(bytes, &mut self.plain, limit).map_err(fail)? {
                Scanned::Longer(total) => want = usize::try_from(total).unwrap_or(usize::MAX),
                other => break other,
            }
        };
        let stop = match scanned {
            Scanned::Records { count, bytes, plain_bytes } => {
                let first = self.position.marker + 1;
                self.position.marker += count;
                self.position.offset = Some(offset + bytes as u64);
                let plain = self.format.is_lz4();
                return Ok(Found::Records {
                    first,
                    count,
                    bytes: if plain { plain_bytes } else { bytes },
                    mapped_at: (mapped && !plain).then_some(offset),
                    plain,
                });
            }
            other => other,
        };
        if segment.file.len().map_err(fail)? != len || self.reopen_if_replaced()? {
            return Ok(Found::Moved);
        }
        let Some(segment) = &mut self.segment else { return Ok(Found::Moved) };
        let known = segment.verifier.covers(offset) || segment.verifier.begins_within(offset + 1, len);
        if matches!(stop, Scanned::Torn) && !complete && !known {
            // Not there yet. A large buffer that a long record needed is given back.
            self.buf.shrink_to(self.options.batch_bytes);
            return Ok(Found::Nothing);
        }
        let here = Place { marker: self.position.marker, offset };
        let Some((stretch, behind)) = damage_at(self.format, segment, here, len).map_err(fail)? else {
            // What follows it is damaged, not this record.
            self.trusted = Some((here.marker, offset));
            return Ok(Found::Moved);
        };
        self.damage = Some((stretch, behind));
        if complete && stretch.fault == Fault::Unfinished && behind.offset == len {
            // A write that a crash cut short; nobody will finish it, and nothing is behind it.
            self.skip_damage();
            self.position.marker = here.marker;
            return Ok(Found::Moved);
        }
        let id = LogId::new(self.position.segment, stretch.marker);
        Err(match stretch.fault {
            Fault::Checksum => Error::ChecksumMismatch { path, offset, id },
            Fault::Compression => Error::Compressed { path, offset, id },
            Fault::NoRecord | Fault::Unfinished => {
                let id = LogId::new(self.position.segment, behind.marker + 1);
                Error::Damaged { path, offset, id, len: stretch.len }
            }
        })
    }

    /// Looks whether another file stands in place of the segment that is open: repaired, or begun anew by
    /// somebody. Then it is opened, at the same record.
    fn reopen_if_replaced(&mut self) -> Result<bool> {
        let Some(segment) = &self.segment else { return Ok(false) };
        let name = names::segment(segment.number);
        let Ok(named) = self.shared.facts(&name) else { return Ok(false) };
        let ours = segment.file.facts().map_err(|e| Error::io("read", self.shared.at(&name), e))?;
        if named.identity == ours.identity {
            return Ok(false);
        }
        let Some(fresh) = open(&self.shared, segment.number, self.options.verify)? else { return Ok(false) };
        // Repair takes damaged records out, and moves the stored checkpoint by as many.
        let stored = self.checkpoint.get()?.unwrap_or(self.stored);
        let taken_out = if stored.segment == self.stored.segment && stored.segment == fresh.number {
            self.stored.marker.saturating_sub(stored.marker)
        } else {
            0
        };
        self.stored = stored;
        let marker = self.position.marker.saturating_sub(taken_out);
        let place = locate(&self.shared, self.format, &fresh, marker)?;
        // With fewer records than were read, it is no repaired one: all of them are new.
        let place = if place.marker < marker { Place::default() } else { place };
        self.position.marker = place.marker;
        self.position.offset = Some(place.offset);
        self.cursor = None;
        self.segment = Some(fresh);
        Ok(true)
    }

    /// Opens the segment of the position, or of the next one that is there. `false` where there is none.
    fn open_segment(&mut self, storage_log: u32) -> Result<bool> {
        if self.segment.as_ref().is_some_and(|open| open.number == self.position.segment) {
            return Ok(true);
        }
        self.segment = None;
        let number = self.position.segment;
        if let Some(segment) = open(&self.shared, number, self.options.verify)? {
            self.segment = Some(segment);
            return Ok(true);
        }
        if number >= storage_log {
            return Ok(false);
        }
        // It was removed, or never made: on to the next one there is, not past the one being written.
        let next = self.shared.segments()?.into_iter().find(|&n| n > number).unwrap_or(storage_log);
        let from = self.position();
        let next = next.min(storage_log);
        self.move_to(next);
        let messages = dropped::missed(&self.shared, from, next)?;
        if messages > 0 {
            self.missed += messages;
            let subscriber = self.name.to_string();
            if self.options.on_missed == OnMissed::Fail {
                return Err(Error::Missed { path: self.shared.path.clone(), subscriber, from, messages });
            }
            if !self.options.peek {
                self.shared.note(Event::Missed { subscriber, from, messages });
            }
        }
        Ok(false)
    }

    fn move_to(&mut self, segment: u32) {
        self.position = Position { segment, marker: 0, offset: Some(0) };
        self.segment = None;
        self.buf.shrink_to(self.options.batch_bytes);
        self.plain.shrink_to(4 * self.options.batch_bytes);
    }

    /// Goes on to the segment after a complete one that was read to its end.
    fn pass(&mut self, storage_log: u32) -> Result<()> {
        let end = LogId::new(self.position.segment, self.position.marker);
        let next = self.position.segment + 1;
        self.passed = Some((end, next));
        self.move_to(next);
        if self.stored == end {
            // Everything of it is done: said at once, so that the segment can go. A disk that cannot be
            // written keeps the old checkpoint, which means the same.
            let _ = self.move_stored(LogId::new(next, 0), storage_log);
        }
        Ok(())
    }

    /// Where the next record begins. A checkpoint past the end is moved back to the end.
    fn offset(&mut self) -> Result<u64> {
        if let Some(offset) = self.position.offset {
            return Ok(offset);
        }
        let marker = self.position.marker;
        let Some(segment) = &self.segment else { return Ok(0) };
        let place = locate(&self.shared, self.format, segment, marker)?;
        self.position.offset = Some(place.offset);
        if place.marker < marker {
            let from = LogId::new(self.position.segment, marker);
            let to = LogId::new(self.position.segment, place.marker);
            self.position.marker = place.marker;
            if self.stored == from && !self.options.peek {
                let subscriber = self.name.to_string();
                self.shared.note(Event::CheckpointMovedBack { subscriber, from, to });
                // A disk that cannot be written keeps it: it will be moved back when it is read again.
                let _ = self.move_stored(to, 0);
            }
        }
        Ok(place.offset)
    }

    /// Moves the stored checkpoint, unless somebody else has moved it, or this reader only looks.
    fn move_stored(&mut self, to: LogId, storage_log: u32) -> Result<()> {
        if self.options.peek {
            return Ok(());
        }
        let from = self.stored;
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
    /// [`Error::NoSuchRecord`] where `id` lies beyond what was written; [`Error::Io`], [`Error::DiskFull`].
    pub fn checkpoint(&mut self, id: LogId) -> Result<()> {
        let meta = self.meta.get()?;
        if id.segment > meta.storage_log {
            return Err(Error::NoSuchRecord { path: self.shared.path.clone(), id });
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

    fn store(&mut self, id: LogId, storage_log: u32) -> Result<()> {
        let safety = self.meta.get()?.safety;
        let old = self.checkpoint.set(id, safety)?;
        self.stored = id;
        let old = old.unwrap_or(id);
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

    /// Goes back (or on) to the stored checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Io`].
    pub fn rewind(&mut self) -> Result<()> {
        let id = self.stored_checkpoint()?;
        self.stored = id;
        self.seek(id)
    }

    /// Moves the reader behind the record `id`; (segment, 0) is before the first of that segment. The
    /// checkpoint stays where it is.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] where the segment is not written yet.
    pub fn seek(&mut self, id: LogId) -> Result<()> {
        if id.segment > self.meta.get()?.storage_log {
            return Err(Error::NoSuchRecord { path: self.shared.path.clone(), id });
        }
        let offset = (id.marker == 0).then_some(0);
        if self.position.segment != id.segment {
            self.segment = None;
        }
        self.damage = None;
        self.position = Position { segment: id.segment, marker: id.marker, offset };
        Ok(())
    }

    /// Moves the reader to the first record that is not older than `time`, at or after the first segment on
    /// disk. Times are taken to grow from segment to segment; where a clock went back, older records may
    /// follow. The checkpoint stays where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seek_time(&mut self, time: Timestamp) -> Result<()> {
        let storage_log = self.meta.get()?.storage_log;
        let segments = self.shared.segments()?;
        // The last segment whose first record is older: what is looked for is in it, or right behind it.
        let first_time = |number: u32| -> Result<Option<Timestamp>> {
            let Some(segment) = open(&self.shared, number, false)? else { return Ok(None) };
            let mut head = [0; 20];
            let n = read_up_to_at(&*segment.file, &mut head, 0)
                .map_err(|e| Error::io("read", self.shared.at(&names::segment(number)), e))?;
            Ok(self.format.decode(&head[..n]).map(|header| header.time))
        };
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if first_time(segments[middle])?.is_some_and(|first| first < time) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let start = segments.get(low.saturating_sub(1)).copied().unwrap_or(storage_log);
        let mut target = LogId::new(start, 0);
        if let Some(mut segment) = open(&self.shared, start, self.options.verify)? {
            let path = self.shared.at(&names::segment(start));
            let fail = |e| Error::io("read", path.clone(), e);
            let to = segment.file.len().map_err(fail)?;
            let mut survey = Survey {
                file: &*segment.file,
                format: self.format,
                verifier: &mut segment.verifier,
                to,
                check: false,
            };
            survey
                .run(Place::default(), |item| match item {
                    Item::Record(found) if found.header.time >= time => ControlFlow::Break(()),
                    Item::Record(found) => {
                        target.marker = found.marker;
                        ControlFlow::Continue(())
                    }
                    Item::Damage(_) => ControlFlow::Continue(()),
                })
                .map_err(fail)?;
        }
        self.seek(target)
    }

    /// Reads one message by its id. The reader's position stays where it is.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`]; damage as in [`next_batch`](Reader::next_batch); [`Error::Io`].
    pub fn read(&mut self, id: LogId) -> Result<Message<'_>> {
        let no_such = || Error::NoSuchRecord { path: self.shared.path.clone(), id };
        if id.marker == 0 {
            return Err(no_such());
        }
        let path = self.shared.at(&names::segment(id.segment));
        let fail = |e| Error::io("read", path.clone(), e);
        if self.segment.as_ref().is_none_or(|open| open.number != id.segment) {
            self.segment = open(&self.shared, id.segment, self.options.verify)?;
            self.cursor = None;
            self.single.clear();
            // The batches' own place in its segment stays known.
        }
        let Some(segment) = &mut self.segment else { return Err(no_such()) };
        let before = id.marker - 1;
        let offset = match self.cursor {
            Some(cursor) if cursor.segment == id.segment && cursor.marker == before => cursor.offset,
            _ => {
                let place = locate(&self.shared, self.format, segment, before)?;
                if place.marker < before {
                    return Err(no_such());
                }
                place.offset
            }
        };
        let header_len = self.format.header_len();
        let sequential =
            self.cursor.is_some_and(|cursor| (cursor.segment, cursor.marker) == (id.segment, before));
        let start = match usize::try_from(offset.wrapping_sub(self.single_at)) {
            // What was read ahead for the records before it.
            Ok(start) if sequential && step_at(self.format, &self.single, start).is_some() => start,
            _ => {
                let len = segment.file.len().map_err(fail)?;
                let left = len.saturating_sub(offset);
                let ahead = if sequential { READ_AHEAD } else { READ_ONE };
                self.single.resize(ahead, 0);
                self.single_at = offset;
                let n = read_up_to_at(&*segment.file, &mut self.single, offset).map_err(fail)?;
                self.single.truncate(n);
                let total = match step(self.format, &self.single, left) {
                    Step::Record(_, total) => total,
                    Step::End | Step::Torn => return Err(no_such()),
                    Step::Corrupt => return Err(Error::Damaged { path, offset, id, len: left }),
                };
                let total = usize::try_from(total).map_err(|_| no_such())?;
                if total > n {
                    self.single.resize(total, 0);
                    let more = read_up_to_at(&*segment.file, &mut self.single[n..], offset + n as u64)
                        .map_err(fail)?;
                    self.single.truncate(n + more);
                }
                0
            }
        };
        let Some((header, total)) = step_at(self.format, &self.single, start) else { return Err(no_such()) };
        let record = &self.single[start..start + total];
        let total = total as u64;
        if self.options.verify && !segment.verifier.is_empty() {
            let crc = crc32fast::hash(record);
            let suspect = Suspect { marker: id.marker, offset, total, time: header.time, crc };
            let verdict = segment.verifier.check(&*segment.file, self.format, suspect).map_err(fail)?;
            if verdict == Verdict::Wrong {
                return Err(Error::ChecksumMismatch { path, offset, id });
            }
        }
        self.cursor = Some(Cursor { segment: id.segment, marker: id.marker, offset: offset + total });
        let body = if self.format.is_lz4() {
            self.plain.clear();
            if !self.format.load(&header, &record[header_len..], &mut self.plain) {
                return Err(Error::Compressed { path, offset, id });
            }
            &self.plain[..]
        } else {
            &record[header_len..]
        };
        Ok(Message { id, time: header.time, stored: header.stored, body })
    }

    /// What the C library calls the interval: the records after the checkpoint in the first segment that has
    /// any, or has none yet. Moves the checkpoint to a later segment when the ones before are done, and back
    /// when it is past the end, as that library does. The reader's position moves to the checkpoint.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn interval(&mut self) -> Result<Interval> {
        let stored = self.stored_checkpoint()?;
        self.stored = stored;
        let (here, last) = self.next_after(stored)?;
        let storage_log = self.meta.get()?.storage_log;
        self.settle(here, storage_log);
        let count = last.marker.saturating_sub(here.marker);
        let first = if count > 0 { LogId::new(here.segment, here.marker + 1) } else { here };
        Ok(Interval { first, last, count })
    }

    /// The place behind which the records after `id` are: `id` itself, or the beginning of a later segment where
    /// those before have no more of them; and the last record of that segment. The reader's position moves there.
    /// Damaged stretches count, as in the markers of the records behind them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn next_after(&mut self, id: LogId) -> Result<(LogId, LogId)> {
        if id.segment > self.meta.get()?.storage_log {
            return Ok((id, id));
        }
        self.seek(id)?;
        loop {
            let storage_log = self.meta.get()?.storage_log;
            let before = self.position.segment;
            if !self.open_segment(storage_log)? {
                if self.position.segment != before {
                    continue;
                }
                return Ok((self.position(), self.position()));
            }
            self.offset()?;
            let Some(segment) = &mut self.segment else { continue };
            let path = self.shared.at(&names::segment(segment.number));
            let complete = segment.number < storage_log;
            let fail = |e| Error::io("read", &path, e);
            let len = segment.file.len().map_err(fail)?;
            if let Some(counted) = self.counted
                && !complete
                && (counted.segment, counted.offset) == (segment.number, len)
            {
                let marker = self.position.marker.min(counted.marker);
                let here = LogId::new(counted.segment, marker);
                return Ok((here, LogId::new(here.segment, counted.marker)));
            }
            // An index that cannot be written, or not to its end, is counted in memory instead.
            let state =
                index::resync(&self.shared, segment.number, &segment.file, self.format, storage_log).ok();
            let (last, whole) = match state {
                Some(state) => (state.last, true),
                None => {
                    let verifier = &mut segment.verifier;
                    let mut unfinished = false;
                    let end = Survey {
                        file: &*segment.file,
                        format: self.format,
                        verifier,
                        to: len,
                        check: false,
                    }
                    .run(Place::default(), |item| {
                        unfinished =
                            matches!(item, Item::Damage(stretch) if stretch.fault == Fault::Unfinished);
                        ControlFlow::Continue(())
                    })
                    .map_err(fail)?;
                    // What is torn at the end is no record yet, or, in a complete segment, never will be.
                    (end.marker - u32::from(unfinished), end.offset == len)
                }
            };
            let marker = self.position.marker.min(last);
            if marker == last && complete && whole {
                let next = self.position.segment + 1;
                self.move_to(next);
                continue;
            }
            let here = LogId::new(self.position.segment, marker);
            self.counted = Some(Cursor { segment: here.segment, marker: last, offset: len });
            return Ok((here, LogId::new(here.segment, last)));
        }
    }

    /// How many records up to `id` its segment has, and where the last of them ends.
    pub(crate) fn locate(&self, id: LogId) -> Result<(u32, u64)> {
        match open(&self.shared, id.segment, true)? {
            Some(segment) => {
                let place = locate(&self.shared, self.format, &segment, id.marker)?;
                Ok((place.marker, place.offset))
            }
            None => Ok((0, 0)),
        }
    }

    /// Stores a checkpoint that means the same as the one that is stored. A disk that cannot be written keeps
    /// the old one.
    fn settle(&mut self, here: LogId, storage_log: u32) {
        if here != self.stored {
            let _ = self.move_stored(here, storage_log);
        }
    }

    /// The metastore's values as they are now.
    ///
    /// # Errors
    /// [`Error::Metastore`], [`Error::Io`].
    pub fn meta(&self) -> Result<Meta> {
        self.meta.get()
    }
}

/// Bytes that are read for a record by its id: where the one before it was read, too, more will be.
const READ_ONE: usize = 4096;
const READ_AHEAD: usize = 64 << 10;

/// The whole record that begins at this place of the bytes: its header, and its length with that.
fn step_at(format: RecordFormat, bytes: &[u8], start: usize) -> Option<(RecordHeader, usize)> {
    let rest = bytes.get(start..)?;
    match step(format, rest, rest.len() as u64) {
        Step::Record(header, total) => Some((header, usize::try_from(total).ok()?)),
        _ => None,
    }
}

/// Opens a segment for reading; `None` where it is not there.
fn open(shared: &Shared, number: u32, verify: bool) -> Result<Option<Segment>> {
    let Some(file) = shared.open_if_there(&names::segment(number), Open::Read)? else { return Ok(None) };
    let verifier = if verify { Verifier::load(shared, number) } else { Verifier::default() };
    Ok(Some(Segment { number, file, verifier, map: None }))
}

/// Where the record after `marker` begins, or, where there are not so many, the place behind the last one.
fn locate(shared: &Shared, format: RecordFormat, segment: &Segment, marker: u32) -> Result<Place> {
    if marker == 0 {
        return Ok(Place::default());
    }
    if let Some(offset) = index::after(shared, segment.number, &*segment.file, format, marker) {
        return Ok(Place { marker, offset });
    }
    let fail = |e| Error::io("read", shared.at(&names::segment(segment.number)), e);
    let to = segment.file.len().map_err(fail)?;
    // Damage before the place is stepped over, and records keep their markers as far as that can be known.
    let mut verifier = Verifier::load(shared, segment.number);
    let anchor = verifier.anchor(&*segment.file, format, marker);
    let mut end = anchor.map_or_else(Place::default, |(marker, offset)| Place { marker, offset });
    Survey { file: &*segment.file, format, verifier: &mut verifier, to, check: false }
        .run(end, |item| {
            let (last, behind) = match item {
                Item::Record(found) => (found.marker, found.offset + found.total),
                Item::Damage(stretch) if stretch.fault == Fault::Unfinished => return ControlFlow::Break(()),
                Item::Damage(stretch) => (stretch.marker, stretch.offset + stretch.len),
            };
            if last > marker {
                return ControlFlow::Break(());
            }
            end = Place { marker: last, offset: behind };
            if last == marker { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(fail)?;
    Ok(end)
}

/// The damage that begins here, and where the reader goes on behind it; `None` where a record begins here.
fn damage_at(
    format: RecordFormat,
    segment: &mut Segment,
    here: Place,
    to: u64,
) -> std::io::Result<Option<(Stretch, Place)>> {
    let mut damage = None;
    let behind = Survey { file: &*segment.file, format, verifier: &mut segment.verifier, to, check: true }
        .run(here, |item| {
            if let Item::Damage(stretch) = item {
                damage = Some(stretch);
            }
            ControlFlow::Break(())
        })?;
    Ok(damage.map(|stretch| (stretch, behind)))
}

/// A scan of the bytes at a reader's position.
struct Scan<'a> {
    format: RecordFormat,
    segment: &'a mut Segment,
    verify: bool,
    marker: u32,
    offset: u64,
    /// Bytes from the offset to the segment's end.
    left: u64,
    /// Whether nobody writes to the segment any more.
    complete: bool,
    /// Whether the first record is known to be one, though none follows it.
    trusted: bool,
}

enum Scanned {
    Records {
        count: u32,
        bytes: usize,
        plain_bytes: usize,
    },
    /// The first record is longer than the bytes given.
    Longer(u64),
    Torn,
    Corrupt,
    WrongChecksum,
    WrongBlock,
}

impl Scan<'_> {
    /// Finds the whole, intact records at the beginning of `bytes`. Compressed ones are laid out plainly in
    /// `plain`, until that holds more than `limit`.
    fn run(self, bytes: &[u8], plain: &mut Vec<u8>, limit: usize) -> std::io::Result<Scanned> {
        let check = self.verify && !self.segment.verifier.is_empty();
        let header_len = self.format.header_len();
        let mut at = 0;
        let mut count = 0;
        // The last record, if no checksum speaks for it: where it begins, in the bytes and in `plain`.
        let mut unproven: Option<(usize, usize)> = None;
        plain.clear();
        let stop = loop {
            let rest = &bytes[at..];
            let (header, total) = match step(self.format, rest, self.left - at as u64) {
                Step::Record(header, total) => (header, total),
                // Less than a header in these bytes, more in the segment.
                Step::Torn if self.left > bytes.len() as u64 && rest.len() < header_len => {
                    break Scanned::Longer(header_len as u64);
                }
                Step::End | Step::Torn => break Scanned::Torn,
                Step::Corrupt => break Scanned::Corrupt,
            };
            let Some(record) = usize::try_from(total).ok().and_then(|total| rest.get(..total)) else {
                break Scanned::Longer(total);
            };
            unproven = Some((at, plain.len()));
            if check {
                let crc = crc32fast::hash(record);
                let offset = self.offset + at as u64;
                let marker = self.marker.saturating_add(count).saturating_add(1);
                let suspect = Suspect { marker, offset, total, time: header.time, crc };
                let file = &*self.segment.file;
                match self.segment.verifier.check(file, self.format, suspect)? {
                    Verdict::Wrong => break Scanned::WrongChecksum,
                    // A length that a killed C writer has left unfilled: others stand inside.
                    Verdict::Unverified
                        if self.segment.verifier.begins_within(offset + 1, offset + total) =>
                    {
                        break Scanned::Corrupt;
                    }
                    Verdict::Unverified => {}
                    Verdict::Good => unproven = None,
                }
            }
            if self.format.is_lz4() {
                let start = plain.len();
                plain.extend_from_slice(&record[..header_len]);
                if !self.format.load(&header, &record[header_len..], plain) {
                    plain.truncate(start);
                    break Scanned::WrongBlock;
                }
            }
            at += record.len();
            count += 1;
            if plain.len() > limit || at == bytes.len() {
                break Scanned::Torn;
            }
        };
        // Where no record follows, it may be its own length that is damaged.
        let unfollowed = match stop {
            Scanned::Corrupt => true,
            // Where the torn one has a header, it stands where the record before it says.
            Scanned::Torn => self.complete && at < bytes.len() && self.format.decode(&bytes[at..]).is_none(),
            _ => false,
        };
        if unfollowed
            && let Some((start, plain_start)) = unproven
            && !(self.trusted && count == 1)
        {
            if count <= 1 {
                return Ok(Scanned::Corrupt);
            }
            plain.truncate(plain_start);
            return Ok(Scanned::Records { count: count - 1, bytes: start, plain_bytes: plain.len() });
        }
        if count > 0 {
            return Ok(Scanned::Records { count, bytes: at, plain_bytes: plain.len() });
        }
        Ok(stop)
    }
}
