//! The limits of a jlog: bytes are counted before a message is accepted.

use std::time::{Duration, Instant};

use super::limiter::Refusal;
use super::state::{Appender, Core};
use super::tail::Room;
use crate::codec::names::Kind;
use crate::files::checkpoint;
use crate::files::precommit::PreCommit;
use crate::limits::AtLimit;
use crate::upkeep::expiry::{self, Ages};
use crate::upkeep::retention;
use crate::walk::holders;
use crate::{Error, LimitKind, LogId, Result};

/// How often ages are checked.
const AGES_EVERY: Duration = Duration::from_secs(1);
/// How often free space is checked while there is enough for the appends in between.
const FREE_EVERY: Duration = Duration::from_millis(100);
/// How long a refusal is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(1);

impl Core {
    /// Makes sure that records of this many bytes may be added, dropping old segments if the limits
    /// say so. Requires: segment not locked.
    pub(super) fn admit_aged(&self, appender: &mut Appender, bytes: u64) -> Result<()> {
        self.admit_ages(appender, bytes)?;
        self.admit(appender, bytes)
    }

    /// The same without checking ages.
    pub(super) fn admit(&self, appender: &mut Appender, bytes: u64) -> Result<()> {
        if let Some(keep) = appender.limiter.limits.keep_free {
            self.admit_free(appender, bytes, keep)?;
        }
        let Some(max) = appender.limiter.limits.max_bytes else { return Ok(()) };
        if appender.limiter.others.is_some_and(|others| others + in_hand(appender) + bytes <= max) {
            return Ok(());
        }
        self.check_refused(appender, LimitKind::Bytes, |used| used + bytes > max, bytes)?;
        let mut used = self.count(appender)? + in_hand(appender);
        if used + bytes <= max {
            return Ok(());
        }
        retention::clean(&self.shared, self.meta.storage_log())?;
        used = self.count(appender)? + in_hand(appender);
        if appender.limiter.limits.at_limit == AtLimit::DropOldest && used + bytes > max {
            let mut to_go = (used + bytes).saturating_sub(max);
            self.drop_oldest(|_, len| {
                let goes = to_go > 0;
                to_go = to_go.saturating_sub(len);
                Ok(goes)
            })?;
            used = self.count(appender)? + in_hand(appender);
        }
        if used + bytes <= max {
            return Ok(());
        }
        Err(self.refuse(appender, LimitKind::Bytes, used, max, bytes))
    }

    fn drop_oldest(&self, goes: impl FnMut(u32, u64) -> Result<bool>) -> Result<()> {
        retention::drop_oldest(&self.shared, self.format, self.meta.storage_log(), goes)
    }

    /// Makes sure that this much stays free on the file system.
    fn admit_free(&self, appender: &mut Appender, bytes: u64, keep: u64) -> Result<()> {
        if let Some((left, until)) = &mut appender.limiter.free
            && *left >= bytes
            && Instant::now() < *until
        {
            *left -= bytes;
            return Ok(());
        }
        let path = &self.shared.path;
        let free = || self.shared.storage.available_space(path).map_err(|e| Error::io("look at", path, e));
        let mut there = free()?;
        if there < keep.saturating_add(bytes) {
            retention::clean(&self.shared, self.meta.storage_log())?;
            there = free()?;
        }
        if there < keep.saturating_add(bytes) && appender.limiter.limits.at_limit == AtLimit::DropOldest {
            let mut to_go = keep.saturating_add(bytes) - there;
            self.drop_oldest(|_, len| {
                let goes = to_go > 0;
                to_go = to_go.saturating_sub(len);
                Ok(goes)
            })?;
            there = free()?;
        }
        match there.checked_sub(keep).filter(|&left| left >= bytes) {
            Some(left) => {
                appender.limiter.free = Some((left - bytes, Instant::now() + FREE_EVERY));
                Ok(())
            }
            None => {
                appender.limiter.free = None;
                self.check_refused(appender, LimitKind::Free, |_| true, bytes)?;
                Err(self.refuse(appender, LimitKind::Free, there, keep, bytes))
            }
        }
    }

    /// Ends the segment being written if its first message is old enough, and makes sure that no
    /// segment is too old.
    pub(super) fn admit_ages(&self, appender: &mut Appender, bytes: u64) -> Result<()> {
        let Some(max) = appender.limiter.limits.max_age else { return Ok(()) };
        self.check_refused(appender, LimitKind::Age, |_| true, bytes)?;
        if appender.limiter.ages.is_some_and(|last| last.elapsed() < AGES_EVERY) {
            return Ok(());
        }
        let ages = Ages::now(max);
        if let Some(segment) = appender.tail.segment()
            && segment.end > 0
            && expiry::first_time(&self.shared, self.format, segment.number)?
                .is_some_and(|time| ages.is_to_end(time))
        {
            let mut segment = self.lock(appender, Room::Wanted)?;
            if segment.end() > 0 {
                segment.must_roll();
            }
            segment.done();
        }
        let last = self.meta.storage_log();
        let expired = |segments: &[u32], number: u32| {
            Ok(number < last && ages.has_expired(&self.shared, self.format, number, segments)?)
        };
        let oldest = || -> Result<Option<u32>> {
            let segments = self.shared.segments()?;
            let Some(&first) = segments.first() else { return Ok(None) };
            Ok(expired(&segments, first)?.then_some(first))
        };
        if oldest()?.is_some() {
            retention::clean(&self.shared, last)?;
            if appender.limiter.limits.at_limit == AtLimit::DropOldest {
                let segments = self.shared.segments()?;
                self.drop_oldest(|number, _| expired(&segments, number))?;
            }
            appender.limiter.forget();
            if let Some(first) = oldest()? {
                let time = expiry::first_time(&self.shared, self.format, first)?;
                let age = time.and_then(|time| ages.of(time)).unwrap_or(max.as_secs());
                return Err(self.refuse(appender, LimitKind::Age, age, max.as_secs(), bytes));
            }
        }
        appender.limiter.ages = Some(Instant::now());
        Ok(())
    }

    /// Counts everything but the segment being written.
    fn count(&self, appender: &mut Appender) -> Result<u64> {
        let current = appender.tail.segment().map(|segment| segment.number);
        let path = &self.shared.path;
        let names = self.shared.storage.list(path).map_err(|e| Error::io("list", path, e))?;
        let bytes = names
            .iter()
            .filter(|name| match Kind::of(name) {
                Kind::Segment(number) => Some(number) != current,
                Kind::Index(_) | Kind::Checksums(_) | Kind::PreCommit => true,
                _ => false,
            })
            .filter_map(|name| self.shared.storage.facts(&path.join(name)).ok())
            .map(|facts| facts.len)
            .sum();
        appender.limiter.others = Some(bytes);
        Ok(bytes)
    }

    /// Remembers why an append is refused.
    fn refuse(&self, appender: &mut Appender, kind: LimitKind, used: u64, limit: u64, wanted: u64) -> Error {
        let end = appender.tail.segment().map(|segment| LogId::new(segment.number, segment.records));
        let end = end.unwrap_or_else(|| LogId::new(self.meta.storage_log(), u32::MAX));
        // If the subscribers cannot be found, the error still names the limit.
        let holders = holders::holders(&self.shared, self.format, end).unwrap_or_default();
        let directory = self.directory_changed();
        appender.limiter.refused =
            Some(Refusal { since: Instant::now(), directory, kind, used, limit, holders: holders.clone() });
        Error::AtCapacity { path: self.shared.path.clone(), kind, used, limit, wanted, holders }
    }

    /// Repeats a recent refusal if nothing has changed: no file was made or removed, and the
    /// subscriber furthest behind has not moved.
    fn check_refused(
        &self,
        appender: &mut Appender,
        kind: LimitKind,
        too_much: impl FnOnce(u64) -> bool,
        wanted: u64,
    ) -> Result<()> {
        let Some(refused) = appender.limiter.refused.take_if(|refused| refused.kind == kind) else {
            return Ok(());
        };
        let stays = refused.since.elapsed() < REFUSED_FOR
            && too_much(refused.used)
            && refused.directory == self.directory_changed()
            && refused.holders.first().is_none_or(|holder| {
                checkpoint::read(&self.shared, &holder.name).ok().flatten() == holder.checkpoint
            });
        if !stays {
            return Ok(());
        }
        let (used, limit, holders) = (refused.used, refused.limit, refused.holders.clone());
        appender.limiter.refused = Some(refused);
        Err(Error::AtCapacity { path: self.shared.path.clone(), kind, used, limit, wanted, holders })
    }

    fn directory_changed(&self) -> i128 {
        self.shared.storage.facts(&self.shared.path).map_or(0, |facts| facts.changed)
    }
}

/// Bytes of the segment being written, and of the records that wait for it.
fn in_hand(appender: &Appender) -> u64 {
    let current = appender.tail.segment().map_or(0, |segment| segment.end);
    current + appender.buffer.as_ref().map_or(0, |buffer: &PreCommit| buffer.bytes().len() as u64)
}
