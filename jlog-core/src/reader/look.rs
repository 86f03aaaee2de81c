//! Looks at the reader's position, and moves from segment to segment.

use std::io::ErrorKind;
use std::ops::ControlFlow;

use super::locate::{Located, locate};
use super::records::{Scan, Scanned};
use super::state::{Position, Reader, Segment, SkippedTail, open, open_over};
use crate::codec::format::RecordFormat;
use crate::codec::names;
use crate::files::checkpoint::Checkpoint;
use crate::files::checksum::Refreshed;
use crate::files::renumbered::Identity;
use crate::files::scan::{Place, Window, record_crc};
use crate::files::shared::Shared;
use crate::files::{checkpoint, checksum, dropped, index, renumbered};
use crate::options::{OnMissed, ReadMethod};
use crate::storage::{File, read_up_to_at};
use crate::walk::lost;
use crate::walk::survey::{Fault, Item, Survey};
use crate::{Error, Event, LogId, Lost, Result};

/// The result of a look at the segment.
pub(super) enum Found {
    /// `count` records in `bytes` bytes, at the beginning of the buffer or, if the segment is
    /// mapped, at `mapped_at`.
    Records { first: u32, count: u32, bytes: usize, mapped_at: Option<u64>, plain: bool },
    /// Nothing yet.
    Nothing,
    /// Nothing here; look again (in the next segment).
    Moved,
}

impl Reader {
    /// Looks for records at the position.
    pub(super) fn look(&mut self) -> Result<Found> {
        self.damage = None;
        // The metastore is read first: a segment that it shows as complete has its final length.
        let storage_log = self.meta.get()?.storage_log;
        let before = self.position.segment;
        let is_open = self.segment.as_ref().is_some_and(|open| open.number == before);
        if !is_open {
            // If the jlog itself was removed, no segment is missing from it.
            self.check_not_replaced()?;
        }
        if !self.open_segment(storage_log)? {
            return Ok(if self.position.segment == before { Found::Nothing } else { Found::Moved });
        }
        let complete = self.position.segment < storage_log;
        let offset = self.offset()?;
        let Some(segment) = &mut self.segment else { return Ok(Found::Nothing) };
        let path = self.shared.at(&names::segment(segment.number));
        let fail = |e| Error::io("read", path.clone(), e);
        let len = segment.file.len().map_err(fail)?;
        if let Some(tail) = self.skipped_tail.take_if(|tail| {
            (tail.segment, tail.end) != (segment.number, offset) || tail.is_gone(&*segment.file)
        }) && (tail.segment, tail.end) == (segment.number, offset)
        {
            self.position.marker = tail.before.marker;
            self.position.offset = Some(tail.before.offset);
            segment.buffered = None;
            return Ok(Found::Moved);
        }
        if offset >= len {
            if self.reopen_if_replaced()? {
                return Ok(Found::Moved);
            }
            if complete {
                self.pass(storage_log, len)?;
                return Ok(Found::Moved);
            }
            return Ok(Found::Nothing);
        }
        if self.options.verify
            && segment.verifier.refresh(&self.shared, segment.number)? == Refreshed::Replaced
            && self.reopen_if_replaced()?
        {
            // A repair has replaced the segment and its checksums: the new checksums do not
            // describe the file that was open.
            return Ok(Found::Moved);
        }
        let Some(segment) = &mut self.segment else { return Ok(Found::Moved) };
        let left = len - offset;
        let mapped = complete && self.options.method == ReadMethod::Mmap;
        if mapped && segment.map.as_ref().is_none_or(|map| (map.len() as u64) < len) {
            let whole = usize::try_from(len).map_err(|_| fail(std::io::ErrorKind::FileTooLarge.into()))?;
            segment.map = Some(segment.file.map(whole).map_err(fail)?);
        }
        let map = segment.map.clone().filter(|_| mapped);
        let mut want = usize::try_from(left).unwrap_or(usize::MAX).min(self.options.batch_bytes);
        // Bytes of a complete segment are read only once, even the beginning of a record that did
        // not fit.
        let buffered = segment.buffered.take().filter(|_| complete);
        let mut have = buffered.map_or(0, |begins| keep_from(&mut self.buf, begins, offset)).min(want);
        let scanned = loop {
            let bytes: &[u8] = if let Some(map) = &map {
                map.slice(usize::try_from(offset).unwrap_or(usize::MAX), want)
            } else {
                // Leave room for the byte that `take_batch` requires after the records.
                self.buf.reserve_exact((want + 1).saturating_sub(self.buf.len()));
                self.buf.resize(want, 0);
                let read = read_up_to_at(&*segment.file, &mut self.buf[have..], offset + have as u64);
                let n = have + read.map_err(fail)?;
                self.buf.truncate(n);
                if n < want {
                    // The segment was cut meanwhile.
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
            };
            let limit = 4 * self.options.batch_bytes;
            match scan.run(bytes, &mut self.plain, limit).map_err(fail)? {
                Scanned::Longer(total) => {
                    have = if complete { bytes.len() } else { 0 };
                    want = usize::try_from(total).unwrap_or(usize::MAX);
                }
                other => break other,
            }
        };
        segment.buffered = map.is_none().then_some(offset);
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
        let known = !(offset > 0 && offset == segment.accepted.end)
            && (segment.verifier.covers(offset) || segment.verifier.begins_within(offset + 1, len));
        if matches!(stop, Scanned::Torn) && !complete && !known {
            // There is nothing yet. Free a large buffer that a long record needed.
            self.buf.shrink_to(self.options.batch_bytes);
            return Ok(Found::Nothing);
        }
        let here = Place { marker: self.position.marker, offset };
        let accepted = &segment.accepted;
        let follows = accepted.contains(&offset) || offset == accepted.end;
        let foreign_until = if follows { accepted.end } else { 0 };
        let item = item_at(&self.shared, self.format, segment, (here, foreign_until), len).map_err(fail)?;
        let (stretch, behind) = match item {
            Some((Item::Damage(stretch), behind)) => (stretch, behind),
            Some((Item::Record(found), behind)) => {
                // The record is intact: what follows it is damaged, or it has another marker, or
                // the checksums describe other records. The next look takes it.
                self.position.marker = found.marker - 1;
                segment.accepted = offset..found.foreign_until.unwrap_or(behind.offset);
                return Ok(Found::Moved);
            }
            // The segment became shorter.
            None => return Ok(Found::Moved),
        };
        let at_end = stretch.fault == Fault::Unfinished && behind.offset == len;
        if at_end && !complete {
            // A record that is still being written, or bytes that the next writer will truncate.
            return Ok(Found::Nothing);
        }
        self.damage = Some((stretch, behind));
        if at_end && complete {
            // A crash interrupted this write: it will not be finished, and nothing follows it.
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

    /// Checks whether the open segment was replaced, by a repair or by a new segment of the same
    /// number. If it was, opens the new file at the same record.
    pub(super) fn reopen_if_replaced(&mut self) -> Result<bool> {
        let Some(segment) = &self.segment else { return Ok(false) };
        // A segment of another feed does not replace this one.
        self.meta.check_named(&self.shared)?;
        let Ok(named) = self.shared.facts(&names::segment(segment.number)) else { return Ok(false) };
        if named.identity == segment.identity {
            return Ok(false);
        }
        let Some(fresh) = open(&self.shared, segment.number, self.options.verify)? else { return Ok(false) };
        if let Some(stored) = self.checkpoint.as_ref().map_or(Ok(None), Checkpoint::get)? {
            self.ledger.lock().stored = stored;
        }
        let marker = self.position.marker;
        let repaired =
            renumbered::follow(&self.shared, fresh.number, segment.identity, fresh.identity, marker)?;
        let wanted = repaired.unwrap_or(marker);
        let located = locate(&self.shared, self.format, &fresh, wanted, None)?;
        // If it has fewer records than were read, it is another segment: all its records are new.
        let fewer = located.place.marker < wanted && repaired.is_none();
        let Located { place, foreign_until } = if fewer { Located::default() } else { located };
        self.position.marker = place.marker;
        self.position.offset = Some(place.offset);
        self.cursor = None;
        self.set_segment(Segment { accepted: place.offset..foreign_until.max(place.offset), ..fresh });
        Ok(true)
    }

    /// Continues in this file.
    fn set_segment(&mut self, segment: Segment) {
        self.ledger.lock().generations.opened(segment.number, segment.identity);
        self.position.file = Some(segment.identity);
        self.counted = None;
        self.segment = Some(segment);
    }

    /// Translates the position's marker for the file that is about to be opened.
    fn translate_position(&mut self, number: u32, to: Identity) -> Result<()> {
        let marker = self.position.marker;
        if let Some(from) = self.position.file.filter(|&from| from != to)
            && let Some(current) = renumbered::follow(&self.shared, number, from, to, marker)?
            && current != marker
        {
            self.position.marker = current;
            self.position.offset = None;
        }
        Ok(())
    }

    /// Opens the segment at the position. Returns `false` if there is none; if a later one exists,
    /// the position has moved to it.
    pub(super) fn open_segment(&mut self, storage_log: u32) -> Result<bool> {
        let number = self.position.segment;
        if let Some(open) = self.segment.as_ref().filter(|open| open.number == number) {
            let file = open.identity;
            self.translate_position(number, file)?;
            self.position.file = Some(file);
            return Ok(true);
        }
        self.leave_segment();
        let memory = std::mem::take(&mut self.memory);
        let segment = open_over(memory, &self.shared, number, self.options.verify)?;
        // The segment was opened by name, and the directory may hold another feed by now.
        self.meta.check_named(&self.shared)?;
        if let Some(segment) = segment {
            self.translate_position(number, segment.identity)?;
            self.set_segment(segment);
            return Ok(true);
        }
        if number >= storage_log {
            if number == storage_log {
                self.report_missing_end(number)?;
            }
            return Ok(false);
        }
        // It was removed, or never made: go to the next existing one, but not past the one being
        // written.
        let next = self.shared.segments()?.into_iter().find(|&n| n > number).unwrap_or(storage_log);
        // What `report_missing_end` has reported is not reported again.
        let from = match self.missing_end {
            Some(reported) if reported == number => LogId::new(number.saturating_add(1), 0),
            _ => self.position(),
        };
        let next = next.min(storage_log);
        let Some(name) = self.name.clone() else {
            // Nothing retains them for this reader. But a subscriber may have needed them.
            let lost = match lost::to_anyone(&self.shared, from, next, storage_log) {
                // Who may not read what is known of losses, or the checkpoints, reads on.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => None,
                other => other?,
            };
            self.move_to(next);
            let Some((subscriber, lost)) = lost else {
                self.shared.note(Event::SegmentsRemoved { first: number, last: next - 1 });
                return Ok(false);
            };
            self.report_lost(subscriber.to_string(), lost)?;
            return Ok(false);
        };
        let messages = dropped::missed(&self.shared, from, next)?;
        let lost = lost::before(&self.shared, &name, from, next, storage_log)?;
        if lost.is_some_and(|lost| lost.last >= storage_log) {
            // The segment being written is missing, too.
            self.missing_end = Some(storage_log);
        }
        self.move_to(next);
        self.missed += messages;
        self.lost = self.lost.into_iter().chain(lost).reduce(Lost::and);
        let fail = self.options.on_missed == OnMissed::Fail;
        let (path, subscriber) = (|| self.shared.path.clone(), || name.to_string());
        if let Some(lost) = lost {
            if fail && messages == 0 {
                return Err(Error::SegmentsLost { path: path(), subscriber: subscriber(), lost });
            }
            if !self.options.quiet {
                self.shared.note(Event::SegmentsLost { subscriber: subscriber(), lost });
            }
        }
        if messages > 0 {
            if fail {
                return Err(Error::Missed { path: path(), subscriber: subscriber(), from, messages });
            }
            if !self.options.peek {
                self.shared.note(Event::Missed { subscriber: subscriber(), from, messages });
            }
        }
        Ok(false)
    }

    /// Reports the loss of the segment being written: it does not exist, but a file beside it, or the
    /// record of losses, shows that it had records. A segment is always created before the files
    /// beside it.
    fn report_missing_end(&mut self, number: u32) -> Result<()> {
        let Some(name) = self.name.as_ref().filter(|_| self.missing_end != Some(number)) else {
            return Ok(());
        };
        let traces = [names::checksums(number), names::index(number)];
        let traced = traces.iter().any(|name| self.shared.exists(name))
            || self.noted.of(&self.shared, number)?.is_some();
        if !traced || self.shared.exists(&names::segment(number)) {
            return Ok(());
        }
        let from = self.position();
        let lost = lost::before(&self.shared, name, from, number.saturating_add(1), number)?;
        let Some(lost) = lost else { return Ok(()) };
        let subscriber = name.to_string();
        self.missing_end = Some(number);
        self.report_lost(subscriber, lost)
    }

    /// Counts a loss, and reports it as the options say.
    fn report_lost(&mut self, subscriber: String, lost: Lost) -> Result<()> {
        Lost::add(&mut self.lost, lost);
        if self.options.on_missed == OnMissed::Fail {
            return Err(Error::SegmentsLost { path: self.shared.path.clone(), subscriber, lost });
        }
        if !self.options.quiet {
            self.shared.note(Event::SegmentsLost { subscriber, lost });
        }
        Ok(())
    }

    /// Closes the open segment. The memory of its checksums is reused for the next one.
    pub(super) fn leave_segment(&mut self) {
        if let Some(left) = self.segment.take() {
            self.memory = left.verifier.emptied();
        }
    }

    pub(super) fn move_to(&mut self, segment: u32) {
        self.position = Position { segment, marker: 0, offset: Some(0), file: None, read_before: 0 };
        self.leave_segment();
        self.buf.shrink_to(self.options.batch_bytes);
        self.plain.shrink_to(4 * self.options.batch_bytes);
    }

    /// Continues with the segment after a complete one of `len` bytes that was read to its end.
    pub(super) fn pass(&mut self, storage_log: u32, len: u64) -> Result<()> {
        let end = LogId::new(self.position.segment, self.position.marker.max(self.position.read_before));
        let next = self.position.segment + 1;
        let lost = self.lost_behind(end, len)?;
        self.move_to(next);
        let done = {
            let mut ledger = self.ledger.lock();
            ledger.passed = Some((end, next));
            // A loss is reported again until the subscriber has done something after it.
            ledger.stored == end && lost.is_none()
        };
        if done {
            // All of it is done: commit that at once, so that the segment can be removed. On a disk
            // that cannot be written, the old checkpoint stays, which is equivalent.
            let _ = self.move_stored(LogId::new(next, 0), storage_log);
        }
        self.report_cut(lost)
    }

    /// What a complete segment of `len` bytes that was read to `end` has lost after it, if it was
    /// cut.
    pub(super) fn lost_behind(&mut self, end: LogId, len: u64) -> Result<Option<Lost>> {
        let silent = self.options.quiet || (self.options.peek && !self.options.verify);
        let LogId { segment: number, marker } = end;
        let noted = self.noted.of(&self.shared, number)?;
        let listed = self.segment.as_ref().map_or(0, |segment| segment.verifier.end());
        // If the checksums end exactly at `len`, the index knows no more than they do.
        let suspicious = len == 0
            || listed > len
            || noted.is_some_and(|noted| noted.at_least > marker)
            || listed != len && index::lists_beyond(&self.shared, number, len, Some(marker))
            || !self.options.verify && checksum::list_beyond(&self.shared, number, len);
        if silent || !suspicious {
            return Ok(None);
        }
        let Some(cut) = lost::cut(&self.shared, self.format, number, noted)? else { return Ok(None) };
        let done = match &self.name {
            None => marker,
            // The subscriber may have done more than this reader has read.
            Some(name) => match checkpoint::read(&self.shared, name) {
                Ok(Some(stored)) if stored.segment > number => return Ok(None),
                Ok(Some(stored)) if stored.segment == number => marker.max(stored.marker),
                Err(Error::UnknownSubscriber { .. }) => return Ok(None),
                other => other.map(|_| marker)?,
            },
        };
        Ok(cut.behind(number, done))
    }

    /// Reports the loss of a segment that was cut.
    pub(super) fn report_cut(&mut self, lost: Option<Lost>) -> Result<()> {
        let Some(lost) = lost else { return Ok(()) };
        match self.name.as_ref().map(ToString::to_string) {
            Some(subscriber) => self.report_lost(subscriber, lost),
            None => {
                Lost::add(&mut self.lost, lost);
                self.shared.note(Event::SegmentCut { lost });
                Ok(())
            }
        }
    }

    /// Where the next record begins. A checkpoint past the end is moved back to the end.
    pub(super) fn offset(&mut self) -> Result<u64> {
        if let Some(offset) = self.position.offset {
            return Ok(offset);
        }
        let marker = self.position.marker;
        let Some(segment) = &mut self.segment else { return Ok(0) };
        let Located { place, foreign_until } = locate(&self.shared, self.format, segment, marker, None)?;
        self.position.offset = Some(place.offset);
        if foreign_until > 0 {
            segment.accepted = place.offset..foreign_until.max(place.offset);
        }
        if place.marker < marker {
            let from = LogId::new(self.position.segment, marker);
            let to = LogId::new(self.position.segment, place.marker);
            self.position.marker = place.marker;
            // If the segment has lost records that were read, the checkpoint is evidence of that,
            // and stays.
            let noted = self.noted.of(&self.shared, from.segment)?;
            let complete = from.segment < self.meta.get()?.storage_log;
            if complete
                && let Some(cut) = lost::cut(&self.shared, self.format, from.segment, noted)?
                && cut.had.at_least >= marker
            {
                self.position.read_before = marker;
            } else if self.ledger.lock().stored == from
                && !self.options.peek
                && let Some(subscriber) = self.name.as_ref().map(ToString::to_string)
            {
                self.shared.note(Event::CheckpointMovedBack { subscriber, from, to });
                // On a disk that cannot be written, the checkpoint stays, and is moved back when it
                // is read again.
                let _ = self.move_stored(to, 0);
            }
        }
        Ok(place.offset)
    }
}

/// Moves a buffer's contents from `offset` on to its front. Returns their length.
fn keep_from(buf: &mut [u8], begins: u64, offset: u64) -> usize {
    let passed = offset.checked_sub(begins).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let passed = passed.min(buf.len());
    buf.copy_within(passed.., 0);
    buf.len() - passed
}

impl SkippedTail {
    /// Whether the bytes there have changed or are gone.
    fn is_gone(&self, file: &dyn File) -> bool {
        let len = self.end - self.before.offset;
        let there = record_crc(file, self.before.offset, len, &mut Window::default());
        there.ok() != Some(self.crc)
    }
}

/// The item here, and where the reader continues after it. Records before `foreign_until` are not
/// verified.
pub(super) fn item_at(
    shared: &Shared,
    format: RecordFormat,
    segment: &mut Segment,
    (here, foreign_until): (Place, u64),
    to: u64,
) -> std::io::Result<Option<(Item, Place)>> {
    let mut item = None;
    let verifier = &mut segment.verifier;
    let (file, number) = (&*segment.file, segment.number);
    let survey = Survey::new((shared, number), file, format, verifier, to);
    let behind = Survey { foreign_until, ..survey }.run(here, |met| {
        item = Some(met);
        ControlFlow::Break(())
    })?;
    Ok(item.map(|item| (item, behind)))
}
