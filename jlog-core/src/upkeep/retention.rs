//! Which segments are still needed, and the removal of those that are not.

use std::collections::{BTreeSet, HashSet};

use crate::codec::format::RecordFormat;
use crate::codec::names::{self, Kind};
use crate::files::shared::Shared;
use crate::files::{checkpoint, dropped};
use crate::storage::{Guarded, Open};
use crate::subscriber::SubscriberName;
use crate::upkeep::journal;
use crate::walk::holders::{self, furthest_behind, noted_passed};
use crate::walk::{counts, lost};
use crate::{Error, Event, LogId, Lost, Result, Timestamp};

/// The prefix of subscribers that retain segments for a backup. (It is not `~`, because log sinks
/// remove such subscribers.)
pub(crate) const BACKUP_PREFIX: &str = "jlog-backup-";
/// How long a file of an unfinished change is left alone, because it may still be in use.
const TEMPORARY_AGE_SECONDS: i64 = 3600;

/// What a reader remembers between moves of its checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// The subscriber that needed the oldest segment. Until it moves, no other checkpoint needs to
    /// be read.
    holder: Option<SubscriberName>,
    /// How many names the directory had.
    names: usize,
    /// The first passed segment that was not examined yet.
    since: Option<u32>,
}

/// A directory with more names than this is not listed for every passed segment, but after every
/// thousandth part of its names.
const MANY_NAMES: usize = 1000;

/// Drops complete segments before `last` from the oldest on, needed or not, while `goes` (called
/// with number and bytes) returns true.
pub(crate) fn drop_oldest(
    shared: &Shared,
    format: RecordFormat,
    last: u32,
    mut goes: impl FnMut(u32, u64) -> Result<bool>,
) -> Result<()> {
    let mut gone = Vec::new();
    for number in shared.segments()?.into_iter().filter(|&number| number < last) {
        let beside = [names::index(number), names::checksums(number)];
        let len = |name: &str| shared.facts(name).map_or(0, |facts| facts.len);
        let segment = len(&names::segment(number));
        if !goes(number, segment + beside.iter().map(|name| len(name)).sum::<u64>())? {
            break;
        }
        let records = counts::of(shared, format, number, last)?.records;
        // Its earlier losses are reported as dropped.
        gone.push((number, lost::had(shared, format, number)?.unwrap_or(0).max(records), segment));
    }
    if gone.is_empty() {
        return Ok(());
    }
    // Note them before dropping them, so that a crash in between does not lose their count.
    let noted: Vec<(u32, u32)> = gone.iter().map(|&(number, records, _)| (number, records)).collect();
    dropped::note(shared, &noted, || Ok(holders::holder(shared)?.map(|holder| holder.segment)))?;
    for (segment, records, bytes) in gone {
        if shared.remove_segment(segment)? {
            shared.note(Event::SegmentDropped { segment, records, bytes });
        }
    }
    Ok(())
}

/// Removes the segments that nobody needs after a checkpoint moved from `old` to `new`, and
/// left-overs of an interrupted move. Never removes the segment being written.
pub(crate) fn remove_passed(
    shared: &Shared,
    old: LogId,
    new: LogId,
    storage_log: u32,
    passing: &mut Passing,
) -> Result<()> {
    let to = new.segment.min(storage_log);
    if old.segment >= to {
        return Ok(());
    }
    let from = passing.since.unwrap_or(old.segment).min(old.segment);
    if let Some(name) = &passing.holder
        && let Ok(Some(id)) = checkpoint::read(shared, name)
        && id.segment <= from
    {
        return Ok(());
    }
    if passing.names > MANY_NAMES && ((to - from) as usize) < passing.names / MANY_NAMES {
        passing.since = Some(from);
        return Ok(());
    }
    let kinds = shared.list()?;
    (passing.names, passing.since) = (kinds.len(), None);
    let there = There::of(&kinds);
    let Some(holder) = furthest_behind(shared, kinds)? else { return Ok(()) };
    there.remove_before(shared, to.min(holder.segment))?;
    passing.holder = Some(holder.name);
    Ok(())
}

/// The facts about a directory that a removal needs.
struct There {
    segments: Vec<u32>,
    passed: u32,
}

impl There {
    fn of(kinds: &[Kind]) -> Self {
        let segments =
            kinds.iter().filter_map(|kind| if let Kind::Segment(n) = kind { Some(*n) } else { None });
        Self { segments: segments.collect(), passed: noted_passed(kinds) }
    }

    /// Removes the segments before this one, which nobody needs.
    fn remove_before(mut self, shared: &Shared, end: u32) -> Result<()> {
        self.segments.retain(|&segment| segment < end);
        if !self.segments.is_empty() {
            note_passed(shared, self.passed, end);
        }
        // The oldest go first: the next move removes those that a power failure brings back.
        self.segments.sort_unstable();
        for segment in self.segments {
            shared.remove_segment(segment)?;
        }
        Ok(())
    }
}

/// Records that segments before `end` are removed because nobody needs them; `before` was the last
/// record. If that fails, they are removed nevertheless, because the space may be needed. At worst
/// they are reported as lost, if a power failure brings back an older checkpoint.
fn note_passed(shared: &Shared, before: u32, end: u32) {
    if before >= end {
        return;
    }
    let name = names::passed(end);
    let renamed =
        before > 0 && shared.storage.rename(&shared.at(&names::passed(before)), &shared.at(&name)).is_ok();
    if !renamed {
        let _ = shared.open(&name, Open::Create(shared.mode()));
    }
}

/// Removes every segment that no subscriber needs, and left-overs of removed ones. Without any
/// subscriber, everything stays, because somebody may still subscribe from the beginning.
pub(crate) fn clean(shared: &Shared, storage_log: u32) -> Result<()> {
    let kinds = shared.list()?;
    let there = There::of(&kinds);
    if let Some(holder) = furthest_behind(shared, kinds)? {
        there.remove_before(shared, holder.segment.min(storage_log))?;
    }
    sweep(shared).map(|swept| swept.report(shared))
}

/// The result of a sweep.
pub(crate) struct Swept {
    /// The contents of the directory.
    pub(crate) kinds: Vec<Kind>,
    /// Missing segments with left-overs that a subscriber needs.
    lost: Option<(SubscriberName, Lost)>,
}

impl Swept {
    pub(crate) fn report(&self, shared: &Shared) {
        if let Some((subscriber, lost)) = &self.lost {
            shared.note(Event::SegmentsLost { subscriber: subscriber.to_string(), lost: *lost });
        }
    }
}

/// Removes indexes and checksums whose segment is missing, and files that were never finished. What
/// they show about lost segments is recorded first.
pub(crate) fn sweep(shared: &Shared) -> Result<Swept> {
    let names = shared.storage.list(&shared.path).map_err(|e| Error::io("list", &shared.path, e))?;
    let kinds: Vec<Kind> = names.iter().map(|name| Kind::of(name)).collect();
    let segments: HashSet<u32> =
        kinds.iter().filter_map(|kind| if let Kind::Segment(n) = kind { Some(*n) } else { None }).collect();
    let left_over: BTreeSet<u32> = kinds
        .iter()
        .filter_map(|kind| match *kind {
            // Check again: it may have been begun while the names were listed.
            Kind::Index(n) | Kind::Checksums(n)
                if !segments.contains(&n) && !shared.exists(&names::segment(n)) =>
            {
                Some(n)
            }
            _ => None,
        })
        .collect();
    let lost = if left_over.is_empty() { Ok(None) } else { lost::note(shared, &left_over) };
    for (name, kind) in names.iter().zip(&kinds) {
        let superfluous = match *kind {
            Kind::Index(n) | Kind::Checksums(n) => lost.is_ok() && left_over.contains(&n),
            Kind::Repaired(n) => !segments.contains(&n) && !shared.exists(&names::segment(n)),
            Kind::Passed(n) => n < noted_passed(&kinds),
            Kind::Temporary => {
                let facts = shared.storage.facts(&shared.path.join(name));
                facts.is_ok_and(|facts| {
                    i64::from(Timestamp::now().seconds) - facts.modified > TEMPORARY_AGE_SECONDS
                })
            }
            _ => false,
        };
        if superfluous && let Some(name) = name.to_str() {
            shared.remove_if_there(name)?;
        }
    }
    if kinds.iter().any(|kind| matches!(kind, Kind::RepairTemporary | Kind::RepairLock)) {
        journal::sweep(shared)?;
    }
    Ok(Swept { kinds, lost: lost? })
}

/// Removes the subscribers that killed backups have left.
pub(crate) fn release_killed_backups(shared: &Shared) -> Result<()> {
    for name in shared.subscribers()? {
        if !name.as_bytes().starts_with(BACKUP_PREFIX.as_bytes()) {
            continue;
        }
        let Some(file) = shared.open_if_there(&name.checkpoint_file(), Open::Read)? else { continue };
        let free =
            file.try_guard(true).map_err(|e| Error::io("lock", shared.at(&name.checkpoint_file()), e))?;
        if free {
            let _guard = Guarded::new(file);
            shared.remove_if_there(&name.checkpoint_file())?;
        }
    }
    Ok(())
}
