//! How many records segments have, without reading them: complete segments do not change, so their counts are remembered,
//! and the first count of one comes from the header of its checksums where those cover all of it.

use std::collections::HashMap;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::format::RecordFormat;
use crate::shared::Shared;
use crate::storage::{Facts, Open, read_up_to_at};
use crate::sync::Mutex;
use crate::{Result, names, recovery};

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
    let records = match covered(shared, number, &facts) {
        Some((records, _)) => records,
        None => recovery::records_of(shared, format, number)?,
    };
    let mut counts = shared.counts.0.lock();
    if counts.len() >= MAX {
        counts.clear();
    }
    counts.insert(number, Known { inode, bytes, records });
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

/// How many records a segment has, and where the last of them begins, by the first run of its checksums, if that covers the
/// whole segment and was written for it: its header, which a CRC protects, says so.
pub(crate) fn covered(shared: &Shared, number: u32, facts: &Facts) -> Option<(u32, u64)> {
    let file = shared.open(&names::checksums(number), Open::Read).ok()?;
    let mut head = [0; 56];
    let whole = read_up_to_at(&*file, &mut head, 0).ok()? == head.len();
    let magic = matches!(&head[0..4], b"jcr1" | b"jcr2");
    let intact = LE::read_u32(&head[52..56]) == crc32fast::hash(&head[..52]);
    let (offset, bytes, inode) =
        (LE::read_u64(&head[8..16]), LE::read_u64(&head[16..24]), LE::read_u64(&head[32..40]));
    let fits = (offset, bytes, inode) == (0, facts.len, facts.identity.1) && LE::read_u32(&head[40..44]) == 1;
    (whole && magic && intact && fits).then(|| (LE::read_u32(&head[4..8]), LE::read_u64(&head[24..32])))
}
