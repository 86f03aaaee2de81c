//! Which segments are still needed, and the removal of those that are not.

use std::collections::HashSet;

use crate::checkpoint;
use crate::names::{self, Kind, SubscriberName};
use crate::shared::Shared;
use crate::{Error, LogId, Result, Timestamp};

/// A file of an unfinished change is left alone for so long: somebody may be writing it.
const TEMPORARY_AGE_SECONDS: i64 = 3600;

/// The subscriber that is furthest behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: SubscriberName,
    /// The first segment it needs.
    pub(crate) segment: u32,
}

/// What somebody who moves a checkpoint again and again remembers of the last time.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// Who needed the oldest segment. As long as that subscriber has not moved on, nobody else needs to be asked.
    holder: Option<SubscriberName>,
    /// How many names the directory had.
    names: usize,
    /// The first segment that was passed and not looked at yet.
    since: Option<u32>,
}

/// Where a directory has more names than this, it is not listed for every segment that is passed, but for every
/// thousandth part of them.
const MANY_NAMES: usize = 1000;

/// Finds who needs the oldest segment; `None` where there is no subscriber. A subscriber whose checkpoint
/// cannot be read needs everything.
pub(crate) fn holder(shared: &Shared) -> Result<Option<Holder>> {
    furthest_behind(shared, shared.list()?)
}

/// The same, of these files of the directory.
fn furthest_behind(shared: &Shared, kinds: Vec<Kind>) -> Result<Option<Holder>> {
    let holders = checkpoint::of(shared, kinds)?
        .into_iter()
        .map(|(name, id)| Holder { segment: id.map_or(0, |id| id.segment), name });
    Ok(holders.min_by_key(|holder| holder.segment))
}

/// Removes the segments that a move of a checkpoint from `old` to `new` has made superfluous, and left-overs
/// of a move that was cut short. Never the segment being written.
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
    let mut segments: Vec<u32> =
        kinds.iter().filter_map(|kind| if let Kind::Segment(n) = kind { Some(*n) } else { None }).collect();
    let Some(holder) = furthest_behind(shared, kinds)? else { return Ok(()) };
    // The oldest go first: what a power failure brings back of them goes with the next move.
    segments.sort_unstable();
    for segment in segments.into_iter().take_while(|&segment| segment < to.min(holder.segment)) {
        shared.remove_segment(segment)?;
    }
    passing.holder = Some(holder.name);
    Ok(())
}

/// Removes every segment that no subscriber needs, and what is left of removed ones. Without any subscriber
/// everything stays: somebody may still subscribe from the beginning.
pub(crate) fn clean(shared: &Shared, storage_log: u32) -> Result<()> {
    if let Some(holder) = holder(shared)? {
        let end = holder.segment.min(storage_log);
        for segment in shared.segments()?.into_iter().filter(|&number| number < end) {
            shared.remove_segment(segment)?;
        }
    }
    sweep(shared).map(|_| ())
}

/// Removes indexes and checksums whose segment is gone, and files that were never finished. Returns what there was.
pub(crate) fn sweep(shared: &Shared) -> Result<Vec<Kind>> {
    let names = shared.storage.list(&shared.path).map_err(|e| Error::io("list", &shared.path, e))?;
    let kinds: Vec<Kind> = names.iter().map(|name| Kind::of(name)).collect();
    let segments: HashSet<u32> =
        kinds.iter().filter_map(|kind| if let Kind::Segment(n) = kind { Some(*n) } else { None }).collect();
    for (name, kind) in names.iter().zip(&kinds) {
        let superfluous = match *kind {
            // Looked at once more: it may have been begun while the names were listed.
            Kind::Index(n) | Kind::Checksums(n) => {
                !segments.contains(&n) && !shared.exists(&names::segment(n))
            }
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
    Ok(kinds)
}
