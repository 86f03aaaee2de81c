//! The limits of a jlog: what is appended is counted before it is accepted.

use std::time::{Duration, Instant};

use super::{Core, Inner};
use crate::limits::AtLimit;
use crate::names::{self, Kind};
use crate::precommit::PreCommit;
use crate::storage::{Open, read_up_to_at};
use crate::{Error, Event, Result, Timestamp, dropped, recovery, retention};

/// How often ages are looked at.
const AGES_EVERY: Duration = Duration::from_secs(1);

/// What a writer knows of the jlog's size.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Bytes of everything that counts but the segment being written; `None` until it is counted.
    others: Option<u64>,
    /// When ages were last looked at.
    ages: Option<Instant>,
}

impl Budget {
    /// Segments were begun or let go of: counts anew.
    pub(super) fn forget(&mut self) {
        self.others = None;
    }
}

impl Core {
    /// Makes sure that records of so many bytes may be added, dropping old segments if that is what limits do here.
    pub(super) fn admit(&self, inner: &mut Inner, bytes: u64) -> Result<()> {
        let limits = self.shared.settings.limits;
        if limits.max_age.is_some() && inner.budget.ages.is_none_or(|last| last.elapsed() >= AGES_EVERY) {
            self.admit_age(inner)?;
            inner.budget.ages = Some(Instant::now());
        }
        let Some(max) = limits.max_bytes else { return Ok(()) };
        if inner.budget.others.is_some_and(|others| others + in_hand(inner) + bytes <= max) {
            return Ok(());
        }
        let mut used = self.count(inner)? + in_hand(inner);
        if used + bytes <= max {
            return Ok(());
        }
        retention::clean(&self.shared, self.meta.storage_log())?;
        used = self.count(inner)? + in_hand(inner);
        if limits.at_limit == AtLimit::DropOldest && used + bytes > max {
            let mut to_go = (used + bytes).saturating_sub(max);
            self.drop_oldest(|_, len| {
                let goes = to_go > 0;
                to_go = to_go.saturating_sub(len);
                Ok(goes)
            })?;
            used = self.count(inner)? + in_hand(inner);
        }
        if used + bytes <= max {
            return Ok(());
        }
        Err(self.at_capacity(&format!("{used} of {max} bytes are in use, and {bytes} more are wanted")))
    }

    fn admit_age(&self, inner: &mut Inner) -> Result<()> {
        let limits = self.shared.settings.limits;
        let Some(max) = limits.max_age else { return Ok(()) };
        let now = Timestamp::now();
        let older = |time: Timestamp, age: Duration| {
            u64::from(now.seconds.saturating_sub(time.seconds)) > age.as_secs()
        };
        if let Some(current) = &inner.current
            && let Some(first) = self.first_time(current.number)?
            && older(first, max / 8)
        {
            inner.must_roll = true;
        }
        // A segment is as old as the first record of the next one, at least.
        let expired = |number: u32| -> Result<bool> {
            let next = number.checked_add(1).filter(|&next| next <= self.meta.storage_log());
            Ok(match next {
                Some(next) => self.first_time(next)?.is_some_and(|time| older(time, max)),
                None => false,
            })
        };
        let oldest = || -> Result<bool> {
            let first = self.shared.segments()?.first().copied();
            first.map_or(Ok(false), expired)
        };
        if !oldest()? {
            return Ok(());
        }
        retention::clean(&self.shared, self.meta.storage_log())?;
        if limits.at_limit == AtLimit::DropOldest {
            self.drop_oldest(|number, _| expired(number))?;
        }
        inner.budget.forget();
        if oldest()? {
            return Err(self.at_capacity(&format!("the oldest messages are older than {} s", max.as_secs())));
        }
        Ok(())
    }

    /// The time of a segment's first record.
    fn first_time(&self, number: u32) -> Result<Option<Timestamp>> {
        let name = names::segment(number);
        let Some(file) = self.shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
        let mut head = [0; crate::format::COMPRESSED_HEADER_LEN];
        let n =
            read_up_to_at(&*file, &mut head, 0).map_err(|e| Error::io("read", self.shared.at(&name), e))?;
        Ok(self.format.decode(&head[..n]).map(|header| header.time))
    }

    /// Counts everything but the segment being written.
    fn count(&self, inner: &mut Inner) -> Result<u64> {
        let current = inner.current.as_ref().map(|current| current.number);
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
        inner.budget.others = Some(bytes);
        Ok(bytes)
    }

    /// Drops complete segments from the oldest on, as long as `goes` (given number and bytes) says so.
    fn drop_oldest(&self, mut goes: impl FnMut(u32, u64) -> Result<bool>) -> Result<()> {
        let last = self.meta.storage_log();
        let mut gone = Vec::new();
        for number in self.shared.segments()?.into_iter().filter(|&number| number < last) {
            let beside = [names::index(number), names::checksums(number)];
            let len = |name: &str| self.shared.facts(name).map_or(0, |facts| facts.len);
            let segment = len(&names::segment(number));
            if !goes(number, segment + beside.iter().map(|name| len(name)).sum::<u64>())? {
                break;
            }
            gone.push((number, recovery::records_of(&self.shared, self.format, number)?, segment));
        }
        if gone.is_empty() {
            return Ok(());
        }
        // First what is dropped, then the dropping: a crash in between claims nothing that is not so.
        let noted: Vec<(u32, u32)> = gone.iter().map(|&(number, records, _)| (number, records)).collect();
        dropped::note(&self.shared, &noted)?;
        for (segment, records, bytes) in gone {
            self.shared.remove_segment(segment)?;
            self.shared.note(Event::SegmentDropped { segment, records, bytes });
        }
        Ok(())
    }

    fn at_capacity(&self, what: &str) -> Error {
        let why = match retention::holder(&self.shared) {
            Ok(Some(holder)) if holder.segment < self.meta.storage_log() => {
                format!(
                    "{what}; subscriber \"{}\" still needs segment {:08x} and all behind it",
                    holder.name, holder.segment
                )
            }
            Ok(Some(_)) => what.to_owned(),
            _ => format!("{what}; nobody subscribes, so everything is kept"),
        };
        Error::AtCapacity { path: self.shared.path.clone(), why }
    }
}

/// Bytes of the segment being written, and of what waits for it.
fn in_hand(inner: &Inner) -> u64 {
    let current = inner.current.as_ref().map_or(0, |current| current.end);
    current + inner.buffer.as_ref().map_or(0, |buffer: &PreCommit| buffer.bytes().len() as u64)
}
