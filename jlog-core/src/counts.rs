//! How many records segments have, without reading them: complete segments do not change, so their counts are remembered,
//! and the first count of one comes from the header of its checksums where those cover all of it.

use std::collections::HashMap;

use crate::format::RecordFormat;
use crate::shared::Shared;
use crate::storage::{Facts, Open, read_up_to_at};
use crate::sync::Mutex;
use crate::{Result, checksum, names, recovery};

/// How many segments are remembered (24 bytes each, plus the map's own).
const MAX: usize = 1 << 20;

/// Counts of complete segments.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<HashMap<u32, Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    inode: u64,
    bytes: u64,
    records: u32,
    /// Whether its checksums are about the whole segment, and nothing else.
    covered: bool,
}

/// A segment and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentCount {
    /// Its number.
    pub number: u32,
    /// Its records; a damaged stretch counts as the number of records that it replaces.
    pub records: u32,
    /// Its bytes.
    pub bytes: u64,
}

/// Counts one segment's records; 0 where it is not there. `storage_log` was read before.
pub(crate) fn of(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    storage_log: u32,
) -> Result<SegmentCount> {
    let facts = shared.facts(&names::segment(number));
    let bytes = facts.as_ref().map_or(0, |facts| facts.len);
    let Some(facts) = facts.ok().filter(|_| number < storage_log) else {
        return Ok(SegmentCount { number, records: recovery::records_of(shared, format, number)?, bytes });
    };
    let (inode, known) = (facts.identity.1, shared.counts.0.lock().get(&number).copied());
    if let Some(known) = known.filter(|known| (known.inode, known.bytes) == (inode, bytes)) {
        return Ok(SegmentCount { number, records: known.records, bytes });
    }
    let run = covered(shared, number, &facts);
    let records = match &run {
        Some(run) => run.records,
        None => recovery::records_of(shared, format, number)?,
    };
    let mut counts = shared.counts.0.lock();
    if counts.len() >= MAX {
        counts.clear();
    }
    counts.insert(number, Known { inode, bytes, records, covered: run.is_some_and(|run| run.alone) });
    Ok(SegmentCount { number, records, bytes })
}

/// Counts every one of these segments.
pub(crate) fn all(
    shared: &Shared,
    format: RecordFormat,
    segments: &[u32],
    storage_log: u32,
) -> Result<Vec<SegmentCount>> {
    segments.iter().map(|&number| of(shared, format, number, storage_log)).collect()
}

/// Whether the checksums of a segment were about all of it, and nothing else, when it was counted.
pub(crate) fn is_covered(shared: &Shared, number: u32, facts: &Facts) -> bool {
    let known = shared.counts.0.lock().get(&number).copied();
    known.is_some_and(|known| known.covered && (known.inode, known.bytes) == (facts.identity.1, facts.len))
}

/// The run of checksums that covers a whole segment.
pub(crate) struct Covering {
    pub(crate) records: u32,
    /// Where the last record begins.
    pub(crate) last: u64,
    /// Whether it is the only run.
    alone: bool,
}

/// The first run of a segment's checksums, if that covers the whole segment and was written for it: its header, which a CRC
/// protects, says so.
pub(crate) fn covered(shared: &Shared, number: u32, facts: &Facts) -> Option<Covering> {
    let file = shared.open(&names::checksums(number), Open::Read).ok()?;
    let mut bytes = [0; checksum::RUN_HEADER_LEN];
    let n = read_up_to_at(&*file, &mut bytes, 0).ok()?;
    let end = file.len().ok()?;
    let head = checksum::Head::decode(&bytes[..n], 0, end)?;
    let fits = (head.offset, head.bytes, head.inode) == (0, facts.len, facts.identity.1) && head.marker == 1;
    let alone = head.file_end() == end;
    fits.then_some(Covering { records: head.count, last: head.last, alone })
}
