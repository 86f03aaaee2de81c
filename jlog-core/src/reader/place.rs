//! Reading at places other than the reader's position: by id, by time, and for the C interface.

use std::ops::ControlFlow;

use super::locate::{Located, locate};
use super::look::item_at;
use super::state::{Cursor, Position, Reader, Segment, open};
use crate::codec::format::{RecordFormat, RecordHeader};
use crate::codec::names;
use crate::files::checksum::{Suspect, Verdict};
use crate::files::index;
use crate::files::renumbered::Identity;
use crate::files::scan::{Place, Step, step};
use crate::message::{Interval, Message};
use crate::storage::read_up_to_at;
use crate::walk::lost;
use crate::walk::survey::{Fault, Item, Survey};
use crate::{Error, LogId, Result, Timestamp};

/// Bytes that are read for a record by its id; more are read if the previous record was read as
/// well.
const READ_ONE: usize = 4096;
const READ_AHEAD: usize = 64 << 10;

/// The whole record that begins at `start` in the bytes: its header, and its length including the
/// header.
fn step_at(format: RecordFormat, bytes: &[u8], start: usize) -> Option<(RecordHeader, usize)> {
    let rest = bytes.get(start..)?;
    match step(format, rest, rest.len() as u64) {
        Step::Record(header, total) => Some((header, usize::try_from(total).ok()?)),
        _ => None,
    }
}

impl Reader {
    /// Moves the reader to the stored checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Io`].
    pub fn rewind(&mut self) -> Result<()> {
        let (id, file) = self.stored_with_file()?;
        self.seek_in(id, file)
    }

    /// The stored checkpoint, and the file of its segment.
    fn stored_with_file(&mut self) -> Result<(LogId, Option<Identity>)> {
        let stored = self.subscribed()?.0.get_with_file(&self.shared)?;
        let mut ledger = self.ledger.lock();
        let (id, file) = stored.unwrap_or((ledger.stored, None));
        ledger.stored = id;
        drop(ledger);
        Ok((id, file))
    }

    /// Moves the reader to the place after the record `id`; (segment, 0) is before the segment's
    /// first record. The checkpoint stays where it is.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] if the segment is not written yet.
    pub fn seek(&mut self, id: LogId) -> Result<()> {
        let file = self.ledger.lock().generations.of(id);
        self.seek_in(id, file)
    }

    /// The same, for an id that refers to this file of the segment.
    fn seek_in(&mut self, id: LogId, file: Option<Identity>) -> Result<()> {
        if id.segment > self.meta.get()?.storage_log {
            return Err(Error::NoSuchRecord { path: self.shared.path.clone(), id });
        }
        let offset = (id.marker == 0).then_some(0);
        let same = |open: &Segment| {
            open.number == id.segment && file.is_none_or(|file| file == open.identity || id.marker == 0)
        };
        if !self.segment.as_ref().is_some_and(same) {
            self.segment = None;
        }
        self.damage = None;
        self.position = Position { segment: id.segment, marker: id.marker, offset, file, read_before: 0 };
        Ok(())
    }

    /// Moves the reader to the first record on disk at or after `time`. Times are assumed to grow
    /// from segment to segment; if a clock went back, older records may follow. The checkpoint
    /// stays where it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seek_time(&mut self, time: Timestamp) -> Result<()> {
        let storage_log = self.meta.get()?.storage_log;
        let segments = self.shared.segments()?;
        // The last segment whose first record is older: the record is in it, or right after it.
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
            let mut survey =
                Survey::new((&self.shared, start), &*segment.file, self.format, &mut segment.verifier, to)
                    .by_headers();
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
            if let Some(segment) = &self.segment {
                self.ledger.lock().generations.opened(segment.number, segment.identity);
            }
            self.cursor = None;
            self.single.clear();
            // The position of the batches in its segment stays known.
        }
        let Some(segment) = &mut self.segment else { return Err(no_such()) };
        let before = id.marker - 1;
        let cursor = self.cursor.filter(|cursor| cursor.segment == id.segment);
        let known = cursor.map(|Cursor { marker, offset, foreign_until, .. }| Located {
            place: Place { marker, offset },
            foreign_until,
        });
        let sequential = cursor.is_some_and(|cursor| cursor.marker == before);
        let Located { place: here, mut foreign_until } = match known {
            Some(known) if sequential => known,
            known => locate(&self.shared, self.format, segment, before, known)?,
        };
        if here.marker < before {
            return Err(no_such());
        }
        let offset = here.offset;
        let header_len = self.format.header_len();
        let start = match usize::try_from(offset.wrapping_sub(self.single_at)) {
            // The bytes that were read ahead for earlier records.
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
        if self.options.verify && !segment.verifier.is_empty() && offset >= foreign_until {
            let suspect = Suspect { marker: id.marker, offset, total };
            let verdict = segment.verifier.check(suspect, || crc32fast::hash(record)).map_err(fail)?;
            if verdict == Verdict::Doubtful {
                let to = segment.file.len().map_err(fail)?;
                let context = if offset == foreign_until { foreign_until } else { 0 };
                let item = item_at(&self.shared, self.format, segment, (here, context), to).map_err(fail)?;
                foreign_until = match item {
                    Some((Item::Record(found), _)) if found.marker == id.marker => {
                        found.foreign_until.unwrap_or(0)
                    }
                    Some((Item::Damage(_), _)) => return Err(Error::ChecksumMismatch { path, offset, id }),
                    _ => return Err(no_such()),
                };
            }
        }
        self.cursor =
            Some(Cursor { segment: id.segment, marker: id.marker, offset: offset + total, foreign_until });
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

    /// See [`ReaderCompat`](crate::compat::ReaderCompat).
    pub(crate) fn interval(&mut self) -> Result<Interval> {
        let (stored, file) = self.stored_with_file()?;
        let (here, last) = self.next_after_in(stored, file)?;
        let storage_log = self.meta.get()?.storage_log;
        self.settle(here, storage_log);
        self.ledger.lock().generations.gave(last);
        let count = last.marker.saturating_sub(here.marker);
        let first = if count > 0 { LogId::new(here.segment, here.marker + 1) } else { here };
        Ok(Interval { first, last, count })
    }

    /// See [`ReaderCompat`](crate::compat::ReaderCompat).
    pub(crate) fn next_after(&mut self, id: LogId) -> Result<(LogId, LogId)> {
        let file = self.ledger.lock().generations.of(id);
        let (here, last) = self.next_after_in(id, file)?;
        self.ledger.lock().generations.gave(last);
        Ok((here, last))
    }

    fn next_after_in(&mut self, id: LogId, file: Option<Identity>) -> Result<(LogId, LogId)> {
        if id.segment > self.meta.get()?.storage_log {
            return Ok((id, id));
        }
        self.seek_in(id, file)?;
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
            // If the index cannot be brought up to date, the records are counted in memory.
            let state =
                index::resync(&self.shared, segment.number, &segment.file, self.format, storage_log, || {
                    lost::note_cut(&self.shared, self.format, segment.number)
                })
                .ok();
            let (last, whole) = match state {
                Some(state) => (state.last, true),
                None => {
                    let verifier = &mut segment.verifier;
                    let mut unfinished = false;
                    let end = Survey::new(
                        (&self.shared, segment.number),
                        &*segment.file,
                        self.format,
                        verifier,
                        len,
                    )
                    .by_headers()
                    .run(Place::default(), |item| {
                        unfinished =
                            matches!(item, Item::Damage(stretch) if stretch.fault == Fault::Unfinished);
                        ControlFlow::Continue(())
                    })
                    .map_err(fail)?;
                    // A torn tail is not a record yet, or, in a complete segment, never will be.
                    (end.marker - u32::from(unfinished), end.offset == len)
                }
            };
            let marker = self.position.marker.min(last);
            if marker == last && complete && whole {
                let end = LogId::new(self.position.segment, self.position.marker);
                let lost = self.lost_behind(end, len)?;
                self.move_to(end.segment + 1);
                self.report_cut(lost)?;
                continue;
            }
            let here = LogId::new(self.position.segment, marker);
            self.counted =
                Some(Cursor { segment: here.segment, marker: last, offset: len, foreign_until: 0 });
            return Ok((here, LogId::new(here.segment, last)));
        }
    }

    /// How many records up to `id` are in its segment, and where the last of them ends.
    pub(crate) fn locate(&self, id: LogId) -> Result<(u32, u64)> {
        match open(&self.shared, id.segment, true)? {
            Some(segment) => {
                let place = locate(&self.shared, self.format, &segment, id.marker, None)?.place;
                Ok((place.marker, place.offset))
            }
            None => Ok((0, 0)),
        }
    }
}
