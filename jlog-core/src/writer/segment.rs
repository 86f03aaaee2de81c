//! The segment being written: its lock, its end, and the roll to the next one.

use std::time::Duration;

use super::limiter::Limiter;
use super::state::{Appender, Core, Subscribers};
use super::tail::{Room, Segment, Tail, len_u32};
use crate::codec::names;
use crate::files::checksum::{self, Sums};
use crate::files::index;
use crate::files::scan::Place;
use crate::storage::{File, LockGuard, Open, unlock};
use crate::upkeep::recovery;
use crate::walk::{counts, lost};
use crate::{Error, Event, LogId, Result};

/// The segment being written, locked, with a known end. Dropping this ends a full segment, and
/// releases the lock or, if everything went well ([`done`](LockedSegment::done)), may keep it for
/// the next use.
#[derive(Debug)]
pub(super) struct LockedSegment<'a> {
    pub(super) core: &'a Core,
    pub(super) appender: &'a mut Appender,
    done: bool,
}

impl LockedSegment<'_> {
    fn segment(&self) -> &Segment {
        match self.appender.tail.segment() {
            Some(segment) => segment,
            None => unreachable!("a segment is known as long as it is locked"),
        }
    }

    fn segment_mut(&mut self) -> &mut Segment {
        match self.appender.tail.segment_mut() {
            Some(segment) => segment,
            None => unreachable!("a segment is known as long as it is locked"),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.segment().number
    }

    pub(super) fn file(&self) -> &dyn File {
        &*self.segment().file
    }

    pub(super) fn end(&self) -> u64 {
        self.segment().end
    }

    /// Sets where the last whole record ends.
    pub(super) fn set_end(&mut self, end: u64) {
        self.segment_mut().end = end;
    }

    pub(super) fn records(&self) -> u32 {
        self.segment().records
    }

    /// Ends the segment, because other records must not get the ids of those that were undone.
    pub(super) fn must_roll(&mut self) {
        self.appender.tail.becomes(Tail::MustRoll);
    }

    /// Marks its end as unknown.
    pub(super) fn suspect(&mut self) {
        self.appender.tail.becomes(Tail::Suspect);
    }

    /// Counts records that were written; returns the id of the last one.
    pub(super) fn count_written(&mut self, records: u32) -> LogId {
        let segment = self.segment_mut();
        segment.records += records;
        let id = LogId::new(segment.number, segment.records);
        self.appender.written += 1;
        if self.appender.pending.is_full() {
            self.write_out();
        }
        id
    }

    /// Counts records that were written from the buffer, which has their checksums, at `start`.
    pub(super) fn count_flushed(&mut self, start: u64, records: &[Sums]) {
        if self.core.keeps_checksums() {
            self.appender.pending.begin(self.records().saturating_add(1), start);
            for &sums in records {
                self.appender.pending.push(sums);
            }
        }
        self.count_written(len_u32(records.len()));
    }

    /// Writes out its pending checksums.
    pub(super) fn write_out(&mut self) {
        self.core.write_out(self.appender);
    }

    /// Ends it, unless it is empty.
    pub(super) fn end_early(self) -> Result<()> {
        if self.end() > 0 { self.core.roll(self.appender) } else { Ok(()) }
    }

    /// Releases it after everything went well.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for LockedSegment<'_> {
    #[inline]
    fn drop(&mut self) {
        let (core, appender) = (self.core, &mut *self.appender);
        if std::thread::panicking() {
            appender.pending.clear();
            core.let_go(appender);
            return;
        }
        match &appender.tail {
            Tail::Suspect(_) => core.let_go(appender),
            Tail::Open(segment) if segment.end < core.segment_size(&appender.limiter) => {}
            // The request is done. If the roll fails now, the next append tries again and reports
            // the error.
            Tail::Open(_) | Tail::MustRoll(_) => drop(core.roll(appender)),
            Tail::Unknown => {}
        }
        if !self.done || !core.keeps_lock(appender) {
            core.release(appender);
        }
    }
}

impl Core {
    /// Locks the segment being written, and makes sure that it is the current one, that its end is
    /// known and, if room is needed, that it is not full.
    pub(super) fn lock<'a>(&'a self, appender: &'a mut Appender, room: Room) -> Result<LockedSegment<'a>> {
        loop {
            self.acquire(appender)?;
            match &appender.tail {
                Tail::Unknown => continue,
                Tail::Open(segment) if segment.end < self.segment_size(&appender.limiter) => break,
                _ if room == Room::Any => break,
                _ => {}
            }
            let rolled = self.roll(appender);
            self.release(appender);
            match rolled {
                Err(Error::CWriter { .. }) => {
                    // It would continue to write to a segment that was passed, so the segment ends
                    // only when it is full.
                    appender.limiter.note_c_writer();
                    appender.tail.becomes(Tail::Open);
                }
                rolled => rolled?,
            }
        }
        Ok(LockedSegment { core: self, appender, done: false })
    }

    /// The size at which a segment ends. The invalid size 0 ends it after every record.
    pub(super) fn segment_size(&self, limiter: &Limiter) -> u64 {
        limiter.segment_size(u64::from(self.meta.segment_size().max(1)))
    }

    /// Decides whether this writer keeps the segment's lock although it is not needed now.
    /// Requires: segment locked.
    fn keeps_lock(&self, appender: &mut Appender) -> bool {
        self.multi && appender.tail.segment().is_some() && appender.lease.keep()
    }

    /// Releases the segment's lock, if it is held.
    pub(super) fn release(&self, appender: &mut Appender) {
        appender.lease.given_back();
        if let Some(segment) = appender.tail.segment()
            && self.multi
        {
            unlock(&*segment.file);
        }
    }

    /// Locks the known segment, or opens and locks the one that the metastore names. Afterwards it
    /// is locked, unless the tail is [`Tail::Unknown`] because the segment is no longer the current
    /// one.
    fn acquire(&self, appender: &mut Appender) -> Result<()> {
        let Some(segment) = appender.tail.segment() else { return self.open_tail(appender) };
        if appender.lease.is_kept() {
            if self.meta.storage_log() != segment.number {
                self.catch_up(appender);
            }
            return Ok(());
        }
        if !self.multi {
            return Ok(());
        }
        let path = || self.path_of(segment.number);
        segment.file.lock().map_err(|e| Error::io("lock", path(), e))?;
        let facts = segment.file.facts().map_err(|e| {
            unlock(&*segment.file);
            Error::io("read", path(), e)
        })?;
        let (number, end) = (segment.number, segment.end);
        if let Err(e) = self.meta.check_named(&self.shared) {
            self.release(appender);
            return Err(e);
        }
        if facts.links == 0 {
            self.shared.note(Event::SegmentVanished { segment: number });
            appender.subscribers = Subscribers::Unchecked(None);
            appender.pending.clear();
            appender.limiter.forget();
            self.release(appender);
            appender.tail = Tail::Unknown;
        } else if facts.len != end || self.meta.storage_log() != number {
            // Others have written: count their records, and truncate an unfinished record of a
            // killed writer.
            appender.lease.others_wrote();
            self.catch_up(appender);
        }
        Ok(())
    }

    /// Handles that others have written to the segment, or have begun the next one. Requires:
    /// segment locked.
    fn catch_up(&self, appender: &mut Appender) {
        if let Some(segment) = appender.tail.segment_mut()
            && self.meta.storage_log() == segment.number
        {
            let known = Place { marker: segment.records, offset: segment.end };
            let found = recovery::mend_tail(&self.shared, self.format, segment.number, &segment.file, known);
            // If this fails, opening the segment again repeats the check and reports the error.
            if let Ok(end) = found {
                (segment.records, segment.end) = (end.marker, end.offset);
                if end.offset >= known.offset {
                    return;
                }
                appender.pending.clear();
                // It was truncated: when it ends, its checksums must not list missing records.
                if recovery::drop_stale_checksums(&self.shared, segment.number, end.offset).is_ok() {
                    return;
                }
            }
        }
        self.let_go(appender);
    }

    /// Releases the segment, and notes it for a later sync. Requires: segment locked.
    fn let_go(&self, appender: &mut Appender) {
        self.write_out(appender);
        self.release(appender);
        appender.limiter.forget();
        if let Some(segment) = appender.tail.take() {
            appender.unsynced.note_filled(segment, self.policy);
        }
    }

    /// Opens the segment that the metastore names, locks it, and finds its end.
    fn open_tail(&self, appender: &mut Appender) -> Result<()> {
        loop {
            self.meta.check_feed(&self.shared)?;
            let number = self.meta.storage_log();
            let full = u64::from(self.meta.segment_size());
            let all = match &appender.subscribers {
                Subscribers::Unchecked(Some(listed)) => Some(names::segments(listed)),
                _ => None,
            };
            let recovery::Beyond { last, stale } =
                recovery::beyond(&self.shared, number, full, all.as_deref())?;
            if !stale.is_empty() {
                self.meta.while_it_is(number, || self.set_aside(&stale))?;
                // The list of names is out of date.
                appender.subscribers = Subscribers::Unchecked(None);
                continue;
            }
            if last != number {
                // After a power failure, the metastore can be older than the segments. (Or another
                // writer is just beginning one.) A writer that holds the segment's lock may be
                // about to append to it, and readers that took the segment for complete would miss
                // that message: so we lock it, too.
                let file = self.shared.open_if_there(&names::segment(number), Open::Write)?;
                let lock = file.as_deref().map(LockGuard::new).transpose();
                let _lock = lock.map_err(|e| Error::io("lock", self.path_of(number), e))?;
                if self.meta.set_storage_log(number, last)? {
                    self.shared.note(Event::MetastoreUpdated { from: number, to: last });
                }
                continue;
            }
            let unchecked = matches!(appender.subscribers, Subscribers::Unchecked(_));
            if unchecked {
                recovery::check_layout(&self.shared, number, self.format)?;
            }
            let name = names::segment(number);
            // The ids of a lost segment are not reused.
            if !self.shared.exists(&name) && lost::is_noted(&self.shared, number)? {
                self.advance(number)?;
                self.shared.note(Event::MetastoreUpdated { from: number, to: self.meta.storage_log() });
                continue;
            }
            let path = self.path_of(number);
            let Some(file) = self.shared.open_if_there(&name, Open::Write)? else {
                // If others have passed and removed it meanwhile, it must not come back.
                let create = || self.shared.open(&name, Open::Create(self.shared.mode())).map(drop);
                self.meta.while_it_is(number, create)?;
                continue;
            };
            let lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &path, e))?;
            let ours = file.facts().map_err(|e| Error::io("read", &path, e))?.identity;
            if self.meta.storage_log() != number
                || !self.shared.facts(&name).is_ok_and(|named| named.identity == ours)
            {
                continue;
            }
            self.meta.check_named(&self.shared)?;
            appender.unsynced.note_opened();
            appender.limiter.forget();
            let known = counts::known_tail(&self.shared, number, &*file, self.format);
            let end = recovery::mend_tail(&self.shared, self.format, number, &file, known)?;
            recovery::settle_checksums(&self.shared, self.format, number, &*file, end.offset)?;
            // The segment is still being written: index files that show its end belong to another
            // segment of the same number.
            index::drop_stale(&self.shared, number, end.offset)?;
            lost::forget(&self.shared, number)?;
            if unchecked {
                let listed = match &mut appender.subscribers {
                    Subscribers::Unchecked(listed) => listed.take(),
                    Subscribers::Checked => None,
                };
                recovery::pull_back_checkpoints(&self.shared, number, end.marker, listed, || {
                    self.meta.storage_log()
                })?;
                appender.subscribers = Subscribers::Checked;
            }
            if self.multi {
                lock.keep();
            } else {
                drop(lock);
            }
            appender.tail = Tail::Open(Segment { number, file, end: end.offset, records: end.marker });
            return Ok(());
        }
    }

    /// Renames segments left over from a newer feed.
    fn set_aside(&self, stale: &[u32]) -> Result<()> {
        for &number in stale {
            if let Some(event) = recovery::set_aside_stale(&self.shared, number)? {
                self.shared.note(event);
            }
        }
        Ok(())
    }

    fn advance(&self, from: u32) -> Result<()> {
        self.meta.advance(from, |next| {
            self.meta.check_feed(&self.shared)?;
            if self.shared.facts(&names::segment(next)).is_ok_and(|facts| facts.len > 0) {
                self.set_aside(&[next])?;
            }
            self.shared.open(&names::segment(next), Open::Create(self.shared.mode())).map(|_| ())
        })
    }

    /// Ends the segment and releases it. Requires: segment locked.
    fn roll(&self, appender: &mut Appender) -> Result<()> {
        let Some(segment) = appender.tail.segment() else { return Ok(()) };
        let number = segment.number;
        // C processes do not notice that a segment has ended before it is full.
        let early = segment.end < u64::from(self.meta.segment_size());
        let _kept_out = if early { self.keep_out("roll", Duration::ZERO)? } else { None };
        if segment.end == 0 {
            // Its records were undone. Without this entry, it would seem to have been emptied.
            lost::note_empty(&self.shared, number)?;
        }
        self.advance(number)?;
        self.write_out(appender);
        checksum::join(&self.shared, number);
        self.let_go(appender);
        Ok(())
    }

    /// Writes out the pending checksums of the segment. Requires: segment locked.
    pub(super) fn write_out(&self, appender: &mut Appender) {
        if let Some(segment) = appender.tail.segment() {
            appender.pending.write_out(&self.shared, segment.number, &*segment.file);
        }
    }
}
