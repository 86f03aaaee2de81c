//! Finds the subscribers that retain the oldest segments.

use crate::codec::format::RecordFormat;
use crate::codec::names::Kind;
use crate::files::checkpoint;
use crate::files::shared::Shared;
use crate::limits::Holder;
use crate::subscriber::SubscriberName;
use crate::walk::counts;
use crate::{LogId, Result};

/// The subscriber that is furthest behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Furthest {
    pub(crate) name: SubscriberName,
    /// The first segment it needs.
    pub(crate) segment: u32,
}

/// Finds the subscriber that needs the oldest segment; `None` without subscribers. A subscriber
/// whose checkpoint cannot be read needs everything.
pub(crate) fn holder(shared: &Shared) -> Result<Option<Furthest>> {
    furthest_behind(shared, shared.list()?)
}

/// The same, of these files of the directory.
pub(crate) fn furthest_behind(shared: &Shared, kinds: Vec<Kind>) -> Result<Option<Furthest>> {
    let holders = checkpoint::of(shared, kinds)?
        .into_iter()
        .map(|(name, id)| Furthest { segment: id.map_or(0, |id| id.segment), name });
    Ok(holders.min_by_key(|holder| holder.segment))
}

/// The subscribers that retain the oldest segment, the one furthest behind first, with their lags.
/// Subscribers that have nothing to read are left out: `end` is the last record.
pub(crate) fn holders(shared: &Shared, format: RecordFormat, end: LogId) -> Result<Vec<Holder>> {
    let behind: Vec<(SubscriberName, Option<LogId>)> =
        checkpoint::all(shared)?.into_iter().filter(|(_, id)| id.is_none_or(|id| id < end)).collect();
    let Some(oldest) = behind.iter().map(|(_, id)| id.map_or(0, |id| id.segment)).min() else {
        return Ok(Vec::new());
    };
    let mut segments = shared.segments()?;
    segments.retain(|&number| number >= oldest && number <= end.segment);
    let counts = counts::all(shared, format, &segments, end.segment)?;
    let all: u64 = counts.iter().map(|count| u64::from(count.records)).sum();
    let done = |id: LogId| -> u64 {
        let before = counts.iter().take_while(|count| count.number < id.segment);
        let here = counts.iter().find(|count| count.number == id.segment);
        before.map(|count| u64::from(count.records)).sum::<u64>()
            + here.map_or(0, |count| u64::from(count.records.min(id.marker)))
    };
    let mut holders: Vec<Holder> = behind
        .into_iter()
        .filter(|(_, checkpoint)| checkpoint.map_or(0, |id| id.segment) == oldest)
        .map(|(name, checkpoint)| Holder { name, checkpoint, messages: all - checkpoint.map_or(0, done) })
        .collect();
    holders.sort_by_key(|holder| holder.checkpoint);
    Ok(holders)
}

/// The segment before which all missing segments were removed because nobody needed them. The
/// oldest are removed first, so segments missing after an existing one went in another way.
pub(crate) fn passed(kinds: &[Kind]) -> u32 {
    let first =
        kinds.iter().filter_map(|kind| if let Kind::Segment(n) = kind { Some(*n) } else { None }).min();
    noted_passed(kinds).min(first.unwrap_or(u32::MAX))
}

pub(crate) fn noted_passed(kinds: &[Kind]) -> u32 {
    kinds
        .iter()
        .filter_map(|kind| if let Kind::Passed(n) = kind { Some(*n) } else { None })
        .max()
        .unwrap_or(0)
}
