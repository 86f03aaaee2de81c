//! Which segments are still needed, and the removal of those that are not.

use std::collections::HashSet;

use crate::checkpoint;
use crate::names::{self, Kind, SubscriberName};
use crate::shared::Shared;
use crate::{Error, LogId, Result, Timestamp};

/// So many segments are removed by their numbers; of more, the directory is asked which there are.
const FEW: u32 = 100;

/// A file of an unfinished change is left alone for so long: somebody may be writing it.
const TEMPORARY_AGE_SECONDS: i64 = 3600;

/// The subscriber that is furthest behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: SubscriberName,
    /// The first segment it needs.
    pub(crate) segment: u32,
}

/// Finds who needs the oldest segment; `None` where there is no subscriber. A subscriber whose checkpoint
/// cannot be read needs everything.
pub(crate) fn holder(shared: &Shared) -> Result<Option<Holder>> {
    let holders = checkpoint::all(shared)?
        .into_iter()
        .map(|(name, id)| Holder { segment: id.map_or(0, |id| id.segment), name });
    Ok(holders.min_by_key(|holder| holder.segment))
}

/// Removes the segments that a move of a checkpoint from `old` to `new` has made superfluous, and left-overs
/// of a move that was cut short. Never the segment being written.
///
/// `last_holder` remembers who needed the oldest one the last time: as long as that subscriber has not moved
/// on, nobody else needs to be asked.
pub(crate) fn remove_passed(
    shared: &Shared,
    old: LogId,
    new: LogId,
    storage_log: u32,
    last_holder: &mut Option<SubscriberName>,
) -> Result<()> {
    let to = new.segment.min(storage_log);
    if old.segment >= to {
        return Ok(());
    }
    if let Some(name) = last_holder
        && let Ok(Some(id)) = checkpoint::read(shared, name)
        && id.segment <= old.segment
    {
        return Ok(());
    }
    let Some(holder) = holder(shared)? else { return Ok(()) };
    let to = to.min(holder.segment);
    if to.saturating_sub(old.segment) > FEW {
        for segment in shared.segments()?.into_iter().filter(|n| (old.segment..to).contains(n)) {
            shared.remove_segment(segment)?;
        }
    } else {
        for segment in old.segment..to {
            shared.remove_segment(segment)?;
        }
    }
    let mut before = old.segment.min(to);
    while before > 0 && shared.remove_segment(before - 1)? {
        before -= 1;
    }
    *last_holder = Some(holder.name);
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
    sweep(shared)
}

/// Removes indexes and checksums whose segment is gone, and files that were never finished.
pub(crate) fn sweep(shared: &Shared) -> Result<()> {
    let names = shared.storage.list(&shared.path).map_err(|e| Error::io("list", &shared.path, e))?;
    let segments: HashSet<u32> = names
        .iter()
        .filter_map(|name| if let Kind::Segment(n) = Kind::of(name) { Some(n) } else { None })
        .collect();
    for name in names {
        let superfluous = match Kind::of(&name) {
            // Looked at once more: it may have been begun while the names were listed.
            Kind::Index(n) | Kind::Checksums(n) => {
                !segments.contains(&n) && !shared.exists(&names::segment(n))
            }
            Kind::Temporary => {
                let facts = shared.storage.facts(&shared.path.join(&name));
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
    Ok(())
}
