//! The segment being written: its lock, its end, and the roll to the next one.

use std::sync::Arc;
use std::time::Instant;

use super::sync::MAX_FILLED;
use super::{C_WRITER_FOR, Core, Current, Filled, Inner};
use crate::checksum;
use crate::lost;
use crate::options::SyncPolicy;
use crate::recovery;
use crate::storage::{LockGuard, Open, unlock};
use crate::survey::Place;
use crate::{Error, Event, Result, names};

impl Core {
    /// Does something with the current segment under its lock, its end known and below the segment size.
    /// Afterwards rolls if the segment is full.
    pub(super) fn in_segment<R>(
        &self,
        inner: &mut Inner,
        work: impl FnOnce(&Self, &mut Inner) -> Result<R>,
    ) -> Result<R> {
        self.in_segment_with(inner, true, work)
    }

    /// The same; where no room is wanted, the segment may be a full one that could not be ended.
    pub(super) fn in_segment_with<R>(
        &self,
        inner: &mut Inner,
        room: bool,
        work: impl FnOnce(&Self, &mut Inner) -> Result<R>,
    ) -> Result<R> {
        self.acquire(inner, room)?;
        if let Some(current) = &inner.current {
            inner.group_start = current.end;
        }
        inner.group.clear();
        let outcome = work(self, inner);
        if std::mem::take(&mut inner.suspect) {
            self.let_go(inner);
        } else if inner.must_roll || self.is_full(inner) {
            // What was asked for is done. A roll that fails now is tried again by the next append, which then
            // reports the error; `must_roll` stays until then.
            if self.roll(inner).is_ok() {
                inner.must_roll = false;
            }
        }
        if outcome.is_err() || !self.keeps_lock(inner) {
            self.release(inner);
        }
        outcome
    }

    pub(super) fn is_full(&self, inner: &Inner) -> bool {
        inner.current.as_ref().is_some_and(|current| current.end >= self.segment_size(inner))
    }

    /// The size at which a segment ends. A size of 0, which is no size, ends it after every record.
    pub(super) fn segment_size(&self, inner: &Inner) -> u64 {
        let size = u64::from(self.meta.segment_size().max(1));
        let early =
            inner.limits.is_some() && inner.c_writer_until.is_none_or(|until| Instant::now() >= until);
        if early { inner.limits.segment_size(size) } else { size }
    }

    /// Whether the current segment's lock stays with this writer, now that it is not needed.
    fn keeps_lock(&self, inner: &mut Inner) -> bool {
        self.multi && inner.current.is_some() && inner.hold.keep()
    }

    pub(super) fn release(&self, inner: &mut Inner) {
        inner.hold.given_back();
        if let Some(current) = &inner.current
            && self.multi
        {
            unlock(&*current.file);
        }
    }

    /// Locks the segment being written, and makes sure that it is the one, that its end is known, and, if room is
    /// wanted, that it is not full.
    fn acquire(&self, inner: &mut Inner, room: bool) -> Result<()> {
        loop {
            match &inner.current {
                None => self.open_current(inner)?,
                Some(current) if inner.hold.is_kept() => {
                    if self.meta.storage_log() != current.number {
                        self.leave(inner);
                    }
                }
                Some(current) if self.multi => {
                    let path = || self.path_of(current.number);
                    current.file.lock().map_err(|e| Error::io("lock", path(), e))?;
                    let facts = current.file.facts().map_err(|e| {
                        unlock(&*current.file);
                        Error::io("read", path(), e)
                    })?;
                    if let Err(e) = self.meta.check_named(&self.shared) {
                        self.release(inner);
                        return Err(e);
                    }
                    if facts.links == 0 {
                        self.shared.note(Event::SegmentVanished { segment: current.number });
                        inner.look_at_checkpoints = true;
                        inner.pending.clear();
                        inner.budget.forget();
                        self.release(inner);
                        inner.current = None;
                    } else if facts.len != current.end || self.meta.storage_log() != current.number {
                        // Others have written: what they wrote is counted, and an unfinished record of one
                        // that was killed is cut.
                        inner.hold.others_wrote();
                        self.leave(inner);
                    }
                }
                Some(_) => {}
            }
            if inner.current.is_none() {
                continue;
            }
            if !room || (!inner.must_roll && !self.is_full(inner)) {
                return Ok(());
            }
            let rolled = self.roll(inner);
            self.release(inner);
            match rolled {
                Err(Error::CWriter { .. }) => {
                    // It would go on writing to a segment that was passed: the segment ends when it is full.
                    inner.c_writer_until = Some(Instant::now() + C_WRITER_FOR);
                }
                rolled => rolled?,
            }
            inner.must_roll = false;
        }
    }

    /// Others have written to the current segment (locked), or have begun the next one.
    fn leave(&self, inner: &mut Inner) {
        let Some(current) = &inner.current else { return };
        if self.meta.storage_log() == current.number {
            let (number, file) = (current.number, Arc::clone(&current.file));
            let known = Place { marker: current.records, offset: current.end };
            // What cannot be checked now is checked, and reported, when the segment is opened again.
            if let Ok(end) = recovery::mend_tail(&self.shared, self.format, number, &file, known) {
                if end.offset < known.offset {
                    inner.pending.clear();
                }
                inner.current = Some(Current { number, file, end: end.offset, records: end.marker });
                return;
            }
        }
        self.let_go(inner);
    }

    /// Lets go of the current segment (locked), which may not be synced yet.
    fn let_go(&self, inner: &mut Inner) {
        self.write_out(inner);
        self.release(inner);
        inner.budget.forget();
        if let Some(current) = inner.current.take() {
            self.note_filled(inner, current);
        }
    }

    fn note_filled(&self, inner: &mut Inner, current: Current) {
        if inner.filled.iter().any(|filled| filled.number == current.number) {
            return;
        }
        // If nothing syncs by itself, files are not kept open for a sync: they may have been removed.
        let keep = self.policy != SyncPolicy::Never && inner.filled.len() < MAX_FILLED;
        inner.filled.push(Filled { number: current.number, file: keep.then_some(current.file) });
    }

    /// Opens the segment that the metastore names, locks it, and finds its end.
    fn open_current(&self, inner: &mut Inner) -> Result<()> {
        loop {
            self.meta.check_feed(&self.shared)?;
            let number = self.meta.storage_log();
            let full = u64::from(self.meta.segment_size());
            let all = inner.listed.as_deref().map(names::segments);
            let recovery::Beyond { last, stale } =
                recovery::beyond(&self.shared, number, full, all.as_deref())?;
            if !stale.is_empty() {
                self.meta.while_it_is(number, || self.set_aside(&stale))?;
                // What was listed is no longer true.
                inner.listed = None;
                continue;
            }
            if last != number {
                // After a power failure the metastore can be older than the segments.
                // (Or another writer is just beginning it, and we have waited for that.)
                if self.meta.set_storage_log(number, last)? {
                    self.shared.note(Event::StorageLogAdvanced { from: number, to: last });
                }
                continue;
            }
            if inner.look_at_checkpoints {
                recovery::check_layout(&self.shared, number, self.format)?;
            }
            let name = names::segment(number);
            // The ids of a segment that was lost are not given to other messages.
            if !self.shared.exists(&name) && lost::is_noted(&self.shared, number)? {
                self.advance(number)?;
                self.shared.note(Event::StorageLogAdvanced { from: number, to: self.meta.storage_log() });
                continue;
            }
            let path = self.path_of(number);
            let file = self.shared.open(&name, Open::Create(self.shared.mode()))?;
            let lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &path, e))?;
            let ours = file.facts().map_err(|e| Error::io("read", &path, e))?.identity;
            if self.meta.storage_log() != number
                || !self.shared.facts(&name).is_ok_and(|named| named.identity == ours)
            {
                continue;
            }
            self.meta.check_named(&self.shared)?;
            inner.names_made += 1;
            inner.budget.forget();
            let known = recovery::known_tail(&self.shared, number, &*file, self.format);
            let end = recovery::mend_tail(&self.shared, self.format, number, &file, known)?;
            recovery::drop_stale_checksums(&self.shared, number, end.offset)?;
            if inner.look_at_checkpoints {
                let listed = inner.listed.take();
                recovery::pull_back_checkpoints(&self.shared, number, end.marker, listed, || {
                    self.meta.storage_log()
                })?;
                inner.look_at_checkpoints = false;
            }
            if self.multi {
                // It stays locked: our caller unlocks it.
                std::mem::forget(lock);
            } else {
                drop(lock);
            }
            inner.current = Some(Current { number, file, end: end.offset, records: end.marker });
            return Ok(());
        }
    }

    /// Sets segments aside that are left of a newer feed.
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

    /// Ends the current segment (locked) and lets go of it.
    fn roll(&self, inner: &mut Inner) -> Result<()> {
        let Some(current) = &inner.current else { return Ok(()) };
        let number = current.number;
        // Before it is full, C processes do not notice that a segment has ended.
        let early = current.end < u64::from(self.meta.segment_size());
        let _kept_out = if early { self.keep_out("roll", std::time::Duration::ZERO)? } else { None };
        self.advance(number)?;
        self.write_out(inner);
        checksum::join(&self.shared, number);
        self.let_go(inner);
        Ok(())
    }

    /// Writes out the pending checksums of the current segment (locked).
    pub(super) fn write_out(&self, inner: &mut Inner) {
        if let Some(current) = &inner.current {
            inner.pending.write_out(&self.shared, current.number, &*current.file);
        }
    }
}
