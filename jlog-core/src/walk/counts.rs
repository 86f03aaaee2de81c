//! Counts the records of segments without reading them: complete segments do not change, so their
//! counts are cached, and the first count of one comes from the header of its checksums if those
//! cover all of it.

use std::ops::ControlFlow;

use crate::codec::format::{Meta, RecordFormat};
use crate::codec::names;
use crate::files::checksum::{self, Verifier};
use crate::files::count_cache::Known;
use crate::files::index;
use crate::files::scan::{Place, Stop};
use crate::files::shared::Shared;
use crate::storage::{Facts, File, Open, read_up_to_at};
use crate::walk::survey::{self, Fault, Item, Survey};
use crate::{Error, LogId, Result};

/// A segment and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentCount {
    /// Its number.
    pub number: u32,
    /// Its records; a damaged stretch counts as the number of records that it replaces.
    pub records: u32,
    /// Its bytes.
    pub bytes: u64,
}

/// Counts one segment's records; 0 if it does not exist. `storage_log` was read before.
pub(crate) fn of(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    storage_log: u32,
) -> Result<SegmentCount> {
    let facts = shared.facts(&names::segment(number));
    let bytes = facts.as_ref().map_or(0, |facts| facts.len);
    let Some(facts) = facts.ok().filter(|_| number < storage_log) else {
        return Ok(SegmentCount { number, records: records_of(shared, format, number)?, bytes });
    };
    if let Some(known) = shared.counts.get(number, &facts) {
        return Ok(SegmentCount { number, records: known.records, bytes });
    }
    let run = covered(shared, number, &facts);
    let records = match &run {
        Some(run) => run.records,
        None => records_of(shared, format, number)?,
    };
    shared.counts.put(number, &facts, Known { records, covered: run.is_some_and(|run| run.alone) });
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

/// Whether the checksums of a segment described exactly all of it when it was counted.
pub(crate) fn is_covered(shared: &Shared, number: u32, facts: &Facts) -> bool {
    shared.counts.get(number, facts).is_some_and(|known| known.covered)
}

/// The run of checksums that covers a whole segment.
pub(crate) struct Covering {
    pub(crate) records: u32,
    /// Where the last record begins.
    pub(crate) last: u64,
    /// Whether it is the only run.
    alone: bool,
}

/// The first run of a segment's checksums, if that covers the whole segment and was written for it:
/// its header, which a CRC protects, says so.
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

/// How many records are known to be in a segment without examining all of them, and where they end:
/// by its checksums or its index.
pub(crate) fn known_tail(shared: &Shared, number: u32, file: &dyn File, format: RecordFormat) -> Place {
    let len = file.len().unwrap_or(0);
    let covered = Verifier::load(shared, number)
        .ok()
        .and_then(|verifier| verifier.covered_prefix(file, format))
        .unwrap_or((0, 0));
    let indexed = index::tail(shared, number, file, format).unwrap_or((0, 0));
    let (marker, offset) = if indexed.1 > covered.1 { indexed } else { covered };
    if offset <= len { Place { marker, offset } } else { Place::default() }
}

/// How many records a complete segment has, if that can be determined.
pub(crate) fn records_of(shared: &Shared, format: RecordFormat, number: u32) -> Result<u32> {
    let name = names::segment(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(0) };
    let fail = |e| Error::io("read", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    let known = known_tail(shared, number, &*file, format);
    let (end, stop) = survey::count(&*file, format, known, len).map_err(fail)?;
    if stop == Stop::End {
        return Ok(end.marker);
    }
    let mut verifier = Verifier::load(shared, number)?;
    let mut last = end.marker;
    Survey::new((shared, number), &*file, format, &mut verifier, len)
        .by_headers()
        .run(end, |item| {
            if let Item::Record(found) = item {
                last = found.marker;
            }
            ControlFlow::Continue(())
        })
        .map_err(fail)?;
    Ok(last)
}

/// Makes sure that an id is not past the end of its segment, or of the feed. Records that existed
/// and are gone are allowed.
pub(crate) fn check_id(shared: &Shared, meta: &Meta, id: LogId) -> Result<()> {
    let beyond = || Err(Error::NoSuchRecord { path: shared.path.clone(), id });
    if id.segment > meta.storage_log {
        return beyond();
    }
    let name = names::segment(id.segment);
    if id.marker == 0 {
        return Ok(());
    }
    let Some(file) = shared.open_if_there(&name, Open::Read)? else {
        // The segment does not exist yet, or every subscriber has passed it.
        return if id.segment == meta.storage_log { beyond() } else { Ok(()) };
    };
    let fail = |e| Error::io("read", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    let known = known_tail(shared, id.segment, &*file, meta.format);
    if id.marker <= known.marker {
        return Ok(());
    }
    // Damaged records count: readers pass their places like others.
    let mut verifier = Verifier::load(shared, id.segment)?;
    let mut last = known.marker;
    Survey::new((shared, id.segment), &*file, meta.format, &mut verifier, len)
        .by_headers()
        .run(known, |item| {
            match item {
                Item::Record(found) => last = found.marker,
                Item::Damage(stretch) if stretch.fault != Fault::Unfinished => last = stretch.marker,
                Item::Damage(_) => {}
            }
            if last >= id.marker { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(fail)?;
    if id.marker > last { beyond() } else { Ok(()) }
}
