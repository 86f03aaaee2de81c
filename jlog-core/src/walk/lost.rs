//! Segments that are missing although a subscriber needs them, or that were cut, and their numbers
//! of messages.
//!
//! A segment may be missing legitimately: every subscriber had passed it, or a limit dropped it.
//! The name `passed.<segment>` says which segments were passed. (This is in a name and not in a
//! file's contents, because a power failure can bring back an older checkpoint, but keeps changes
//! of names in order.) The file `dropped` lists the others. Every other missing segment is lost. If
//! its index or its checksums are still there, they say how many records it had.
//!
//! An existing complete segment was cut if its index or its checksums list more records than it
//! holds, and those that it holds are in their places. (Another program's repair moves records, and
//! a writer that truncates a segment also adjusts its checksums.) A complete segment without any
//! record was emptied, unless a repair took everything out of it, or its writer noted that it had
//! none.
//!
//! Before a file that shows how many records a lost or cut segment had is removed, that number is
//! recorded in the file `lost`:
//!
//! ```text
//!  0  u32  0x316c706a ("jpl1")
//!  4  u32  number of a segment
//!  8  u32  records that it had, or number of another segment
//! 12  u32  0: that segment is lost, or was cut, and had at least this many records;
//!          1: it had exactly this many;
//!          2: the segments from the one to the other are missing, and no subscriber needed them;
//!          3: they are lost, or were cut, and repair has reported that;
//!          4: that segment was cut, and held this many when repair reported it
//!     …    these three numbers, repeated
//!  n  u32  CRC-32 of everything before it
//! ```
//!
//! Missing segments that nobody needed are recorded for subscribers that begin, or move back,
//! before them: for those, they are not a loss.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::codec::format::RecordFormat;
use crate::codec::names::{self, Kind};
use crate::files::checksum::{self, Verifier};
use crate::files::scan::{Place, Window, record_crc};
use crate::files::shared::Shared;
use crate::files::{checkpoint, dropped, index, metastore as meta};
use crate::loss::{Lost, Records};
use crate::storage::{File, LockGuard, Open, read_all};
use crate::subscriber::SubscriberName;
use crate::walk::survey::{Item, Survey};
use crate::walk::{counts, holders};
use crate::{Error, Event, LogId, Result};

const MAGIC: u32 = u32::from_le_bytes(*b"jpl1");
const HEAD_LEN: usize = 4;
const ENTRY_LEN: usize = 12;
const AT_LEAST: u32 = 0;
const EXACTLY: u32 = 1;
const UNNEEDED: u32 = 2;
const REPORTED: u32 = 3;
const HELD: u32 = 4;
/// The maximum number of lost segments that are remembered; further ones count as unknown.
const MAX: usize = 65_536;
/// The maximum number of ranges that are remembered.
const MAX_RANGES: usize = 4096;
const MAX_LEN: usize = HEAD_LEN + (2 * MAX + 2 * MAX_RANGES) * ENTRY_LEN + 4;

/// What is known of a complete segment that holds fewer records than it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) had: Records,
    there: u32,
    /// Whether something shows this that is not recorded yet.
    fresh: bool,
}

impl Cut {
    /// The loss for a subscriber that has read up to this marker.
    pub(crate) fn behind(&self, segment: u32, marker: u32) -> Option<Lost> {
        let messages = self.had.at_least.saturating_sub(self.there.max(marker));
        (messages > 0).then_some(Lost {
            first: segment,
            last: segment,
            segments: 1,
            cut: 1,
            messages: messages.into(),
            exact: self.had.exact,
        })
    }
}

/// The contents of the file `lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Segments that are lost, or were cut.
    pub segments: BTreeMap<u32, Records>,
    /// Missing segments that nobody needed, as ranges: the first and the last of each.
    pub unneeded: BTreeMap<u32, u32>,
    /// Lost segments that repair has reported, as ranges.
    pub reported: BTreeMap<u32, u32>,
    /// How many records a segment that was cut held when repair reported that. If it holds fewer,
    /// it was cut again.
    pub held: BTreeMap<u32, u32>,
}

impl Noted {
    /// Reads the file's bytes; nothing if they are damaged.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        let Some((rest, crc)) = bytes.split_last_chunk::<4>() else { return out };
        let Some((head, entries)) = rest.split_first_chunk::<HEAD_LEN>() else { return out };
        if u32::from_le_bytes(*head) != MAGIC
            || entries.len() % ENTRY_LEN != 0
            || crc32fast::hash(rest) != u32::from_le_bytes(*crc)
        {
            return out;
        }
        for entry in entries.chunks_exact(ENTRY_LEN) {
            let (segment, n) = (LE::read_u32(&entry[..4]), LE::read_u32(&entry[4..8]));
            match LE::read_u32(&entry[8..]) {
                kind @ (AT_LEAST | EXACTLY) => {
                    out.segments.insert(segment, Records { at_least: n, exact: kind == EXACTLY });
                }
                UNNEEDED if segment <= n => _ = out.unneeded.insert(segment, n),
                REPORTED if segment <= n => _ = out.reported.insert(segment, n),
                HELD => _ = out.held.insert(segment, n),
                _ => {}
            }
        }
        out
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Self { segments, unneeded, reported, held } = self;
        let entries = segments.len() + unneeded.len() + reported.len() + held.len();
        let mut out = Vec::with_capacity(HEAD_LEN + ENTRY_LEN * entries + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        let lost = segments.iter().map(|(&segment, records)| {
            [segment, records.at_least, if records.exact { EXACTLY } else { AT_LEAST }]
        });
        let unneeded = unneeded.iter().map(|(&first, &last)| [first, last, UNNEEDED]);
        let reported = reported.iter().map(|(&first, &last)| [first, last, REPORTED]);
        let held = held.iter().map(|(&segment, &records)| [segment, records, HELD]);
        for entry in lost.chain(unneeded).chain(reported).chain(held) {
            out.extend(entry.into_iter().flat_map(u32::to_le_bytes));
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Whether repair has reported a loss.
    fn is_reported(&self, lost: &Lost) -> bool {
        within(&self.reported, lost.first, lost.last)
    }

    fn is_unneeded(&self, segment: u32) -> bool {
        within(&self.unneeded, segment, segment)
    }

    fn load(shared: &Shared) -> Result<Self> {
        let Some(file) = shared.open_if_there(names::LOST, Open::Read)? else { return Ok(Self::default()) };
        let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", shared.at(names::LOST), e))?;
        Ok(Self::parse(&bytes))
    }

    /// Changes the file; `change` says whether there is anything to store.
    fn update(shared: &Shared, change: impl FnOnce(&mut Self) -> bool) -> Result<()> {
        let path = shared.at(names::METASTORE);
        // The metastore is missing only while a repair is about to restore it.
        let metastore = shared.open_if_there(names::METASTORE, Open::Write)?;
        let lock = metastore.as_deref().map(LockGuard::new).transpose();
        let _lock = lock.map_err(|e| Error::io("lock", path, e))?;
        let mut noted = Self::load(shared)?;
        if !change(&mut noted) {
            return Ok(());
        }
        while noted.segments.len() > MAX {
            noted.segments.pop_first();
        }
        noted.held.retain(|segment, _| noted.segments.contains_key(segment));
        for ranges in [&mut noted.unneeded, &mut noted.reported] {
            while ranges.len() > MAX_RANGES {
                ranges.pop_first();
            }
        }
        shared.replace_file(names::LOST, &noted.encode())
    }
}

/// Whether one of these ranges has everything from `first` to `last`.
fn within(ranges: &BTreeMap<u32, u32>, first: u32, last: u32) -> bool {
    ranges.range(..=first).next_back().is_some_and(|(_, &end)| last <= end)
}

/// Adds a range. Adjacent ranges are merged.
fn insert(ranges: &mut BTreeMap<u32, u32>, mut first: u32, mut last: u32) {
    while let Some((&from, &to)) = ranges.range(..=last.saturating_add(1)).next_back()
        && to.saturating_add(1) >= first
    {
        ranges.remove(&from);
        (first, last) = (first.min(from), last.max(to));
    }
    ranges.insert(first, last);
}

/// The entries of the file `lost` for single segments, for a reader that proceeds from segment to
/// segment. The file is read again if it has changed.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    stamp: Option<((u64, u64), i128, u64)>,
    segments: BTreeMap<u32, Records>,
}

impl Remembered {
    pub(crate) fn of(&mut self, shared: &Shared, segment: u32) -> Result<Option<Records>> {
        let facts = shared.facts(names::LOST).ok();
        let stamp = facts.map(|facts| (facts.identity, facts.changed, facts.len));
        if stamp != self.stamp {
            self.segments = if stamp.is_some() { Noted::load(shared)?.segments } else { BTreeMap::new() };
            self.stamp = stamp;
        }
        Ok(self.segments.get(&segment).copied())
    }
}

/// Examines a complete segment that may have been cut. `noted` is its entry in the file `lost`.
pub(crate) fn cut(
    shared: &Shared,
    format: RecordFormat,
    segment: u32,
    noted: Option<Records>,
) -> Result<Option<Cut>> {
    let name = names::segment(segment);
    let file = match shared.open_if_there(&name, Open::Read) {
        Ok(Some(file)) => file,
        // Lost as a whole, or something else, which is reported as such.
        Ok(None) | Err(Error::NotAFile { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len().map_err(|e| Error::io("read", shared.at(&name), e))?;
    let by_index = index::cut(shared, segment, &*file, format, len);
    let by_checksums = cut_by_checksums(shared, format, segment, &*file, len)?;
    let (listed, mut there) = match (by_index, by_checksums) {
        (Some((one, there)), Some((other, _))) => (Some(one.better(other)), Some(there)),
        (one, other) => one.or(other).map_or((None, None), |(had, there)| (Some(had), Some(there))),
    };
    let mut known = listed;
    if len == 0 {
        there = Some(0);
        let emptied = known.is_none() && noted.is_none() && !shared.is_there(&names::repaired(segment))?;
        known = known.or(emptied.then_some(Records::SOME));
    }
    let fresh = known.is_some_and(|known| noted.is_none_or(|noted| known.better(noted) != noted));
    let Some(had) = known.into_iter().chain(noted).reduce(Records::better) else { return Ok(None) };
    let there = match there {
        Some(there) => there,
        None => counts::records_of(shared, format, segment)?,
    };
    Ok((had.at_least > there).then_some(Cut { had, there, fresh }))
}

/// How many records a segment had according to its checksums, and how many of them remain, if it
/// was cut: they list more after its end, and everything before that is in its place.
fn cut_by_checksums(
    shared: &Shared,
    format: RecordFormat,
    segment: u32,
    file: &dyn File,
    len: u64,
) -> Result<Option<(Records, u32)>> {
    let fail = |e| Error::io("read", shared.at(&names::segment(segment)), e);
    let mut verifier = Verifier::load(shared, segment)?;
    if !verifier.reaches_beyond(len) {
        return Ok(None);
    }
    let (mut end, mut last) = (Place::default(), None);
    let (mut verified, mut damaged, mut foreign) = (false, false, false);
    let mut survey = Survey::new((shared, segment), file, format, &mut verifier, len);
    survey
        .run(Place::default(), |item| {
            end = item.behind();
            match item {
                Item::Record(found) => {
                    verified |= found.verified;
                    foreign |= found.foreign_until.is_some();
                    last = Some(found);
                }
                Item::Damage(_) => {
                    damaged = true;
                    last = None;
                }
            }
            if foreign { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(fail)?;
    let in_place = match last {
        _ if foreign => false,
        Some(found) if found.verified => true,
        // One that the checksums list elsewhere was moved here.
        Some(found) => {
            let crc = record_crc(file, found.offset, found.total, &mut Window::default()).map_err(fail)?;
            let listed = verifier.listed().map_err(fail)?;
            !damaged && !listed.iter().any(|&(listed, ..)| listed == crc)
        }
        None => len == 0 || verified,
    };
    let had = checksum::left_over(shared, segment).filter(|_| in_place);
    Ok(had.filter(|had| had.at_least > end.marker).map(|had| (had, end.marker)))
}

/// What is known of the segments that are missing in a directory, and of those that were cut.
#[derive(Debug)]
pub(crate) struct Missing {
    storage_log: u32,
    /// Segments that are missing at or before the one being written: ranges from one to before
    /// another.
    ranges: Vec<(u64, u64)>,
    dropped: BTreeMap<u32, u32>,
    noted: Noted,
    /// Missing segments whose index or checksums still exist.
    left_over: BTreeSet<u32>,
    /// Segments before this one were removed because nobody needed them.
    passed: u32,
    /// Complete segments that were cut.
    cut: BTreeMap<u32, Cut>,
}

impl Missing {
    /// Examines a directory whose metastore named `storage_log` before, and every complete segment.
    pub(crate) fn find(shared: &Shared, format: RecordFormat, storage_log: u32) -> Result<Self> {
        let (mut missing, there) = Self::find_gaps(shared, storage_log)?;
        for (&segment, &beside) in there.range(..storage_log) {
            let noted = missing.noted.segments.get(&segment).copied();
            if may_be_cut(shared, segment, beside, noted)
                && let Some(cut) = cut(shared, format, segment, noted)?
            {
                missing.cut.insert(segment, cut);
            }
        }
        Ok(missing)
    }

    /// Looks only for missing segments. Also returns the existing ones, and the files beside them.
    fn find_gaps(shared: &Shared, storage_log: u32) -> Result<(Self, BTreeMap<u32, Beside>)> {
        let kinds = shared.list()?;
        let (mut there, mut besides) = (BTreeMap::new(), BTreeMap::<u32, Beside>::new());
        let passed = holders::passed(&kinds);
        for kind in kinds {
            match kind {
                Kind::Segment(n) => _ = there.insert(n, Beside::default()),
                Kind::Index(n) => besides.entry(n).or_default().index = true,
                Kind::Checksums(n) => besides.entry(n).or_default().checksums = true,
                _ => {}
            }
        }
        let mut left_over = BTreeSet::new();
        for (n, beside) in besides {
            match there.get_mut(&n) {
                Some(there) => *there = beside,
                None => _ = left_over.insert(n),
            }
        }
        let mut ranges = Vec::new();
        let mut next = 0;
        for n in there.keys().copied().map(u64::from).chain([u64::from(storage_log) + 1]) {
            let end = n.min(u64::from(storage_log) + 1);
            if next < end {
                ranges.push((next, end));
            }
            next = n + 1;
        }
        // Read after the directory: segments that a limit drops are recorded before they are
        // removed.
        let dropped = dropped::load(shared)?;
        let (noted, cut) = (Noted::load(shared)?, BTreeMap::new());
        Ok((Self { storage_log, ranges, dropped, noted, left_over, passed, cut }, there))
    }

    /// The losses of a subscriber whose checkpoint is `from`, range by range, and those of each
    /// segment that was cut.
    pub(crate) fn lost(&self, shared: &Shared, from: LogId) -> Vec<Lost> {
        let first = self.ranges.partition_point(|&(_, end)| end <= u64::from(from.segment));
        let missing = self.ranges[first..].iter().filter_map(|&range| self.lost_in(shared, from, range));
        let done = |segment: u32| if segment == from.segment { from.marker } else { 0 };
        let cut = self.cut.range(from.segment..);
        missing.chain(cut.filter_map(|(&segment, cut)| cut.behind(segment, done(segment)))).collect()
    }

    /// The loss of each cut segment.
    pub(crate) fn cut(&self) -> impl Iterator<Item = Lost> {
        self.cut.iter().filter_map(|(&segment, cut)| cut.behind(segment, 0))
    }

    /// Whether a checkpoint is after the remaining records of a segment, but not after all those
    /// that it had.
    pub(crate) fn explains(&self, id: LogId) -> bool {
        self.cut.get(&id.segment).is_some_and(|cut| id.marker <= cut.had.at_least)
    }

    /// Whether repair has reported a loss, and nothing has been lost since.
    pub(crate) fn is_reported(&self, lost: &Lost) -> bool {
        self.noted.is_reported(lost)
            && !self.cut.range(lost.first..=lost.last).any(|(&segment, cut)| {
                cut.fresh || self.noted.held.get(&segment).is_some_and(|&held| cut.there < held)
            })
    }

    /// The losses of these subscribers, without those that have lost nothing. Their checkpoints
    /// were read after the directory: a segment that they have passed since may have been removed.
    pub(crate) fn lost_to_all(
        &self,
        shared: &Shared,
        checkpoints: &[(SubscriberName, Option<LogId>)],
    ) -> Vec<(SubscriberName, Vec<Lost>)> {
        let lost =
            checkpoints.iter().filter_map(|(name, id)| Some((name.clone(), self.lost(shared, (*id)?))));
        lost.filter(|(_, lost)| !lost.is_empty()).collect()
    }

    fn lost_in(&self, shared: &Shared, from: LogId, (start, end): (u64, u64)) -> Option<Lost> {
        let start = start.max(u64::from(from.segment));
        let (Ok(start), Ok(last)) = (u32::try_from(start), u32::try_from(end.checked_sub(1)?)) else {
            return None;
        };
        if start > last {
            return None;
        }
        let mut sum = None;
        // What is not unknown, as ranges.
        let mut explained: Vec<(u32, u32)> = Vec::new();
        // A segment that the subscriber had read to its end is not a loss.
        let mut add = |segment: u32, records: Records| {
            let done = if segment == from.segment { from.marker } else { 0 };
            let left = records.at_least.saturating_sub(done);
            if left > 0 || !records.exact {
                let messages = left.into();
                let exact = records.exact;
                let one = Lost { first: segment, last: segment, segments: 1, cut: 0, messages, exact };
                Lost::add(&mut sum, one);
            }
        };
        let noted = &self.noted;
        for (&segment, &records) in noted.segments.range(start..=last) {
            explained.push((segment, segment));
            add(segment, records);
        }
        for &segment in self.left_over.range(start..=last) {
            let known = noted.segments.contains_key(&segment) || self.dropped.contains_key(&segment);
            if !known && segment >= self.passed && !noted.is_unneeded(segment) {
                explained.push((segment, segment));
                add(segment, left_over_of(shared, segment).unwrap_or(Records::SOME));
            }
        }
        explained.extend(self.dropped.range(start..=last).map(|(&segment, _)| (segment, segment)));
        explained.extend(noted.unneeded.range(..=last).map(|(&first, &last)| (first, last)));
        if let Some(passed) = self.passed.checked_sub(1) {
            explained.push((0, passed));
        }
        explained.sort_unstable();
        // Without a trace of the segment being written, it is not known whether it was ever begun.
        let end = (u64::from(last) + 1).min(self.storage_log.into());
        let mut next = u64::from(start);
        for (first, last) in
            explained.into_iter().map(|(first, last)| (first.into(), last.into())).chain([(end, end)])
        {
            let first: u64 = first;
            if next < first.min(end)
                && let (Ok(first), Ok(last)) = (u32::try_from(next), u32::try_from(first.min(end) - 1))
            {
                // The subscriber may have read all of the segment that it was in.
                let begun = first == from.segment && from.marker > 0;
                let segments = u64::from(last - first) + 1;
                let messages = segments - u64::from(begun);
                let segments = u32::try_from(segments).unwrap_or(u32::MAX);
                Lost::add(&mut sum, Lost { first, last, segments, cut: 0, messages, exact: false });
            }
            next = next.max(last + 1);
        }
        sum
    }
}

/// The loss of a subscriber whose checkpoint is `from` and that finds no segment from there until
/// before `to`.
pub(crate) fn before(
    shared: &Shared,
    subscriber: &SubscriberName,
    from: LogId,
    to: u32,
    storage_log: u32,
) -> Result<Option<Lost>> {
    // Segments before its checkpoint may be removed, and all of them once the subscriber is
    // removed.
    let stored = match checkpoint::read(shared, subscriber) {
        Err(Error::UnknownSubscriber { .. }) => return Ok(None),
        other => other?.unwrap_or(from),
    };
    let from = from.max(stored);
    if from.segment >= to {
        return Ok(None);
    }
    // Readers look at the end of each segment themselves.
    let (missing, _) = Missing::find_gaps(shared, storage_log)?;
    let losses = missing.lost(shared, from).into_iter().filter(|lost| lost.first < to);
    Ok(losses.reduce(Lost::and))
}

/// The loss of the subscriber that has lost most among the segments that are missing after `from`
/// and before `to`; `None` if nobody needed them.
pub(crate) fn to_anyone(
    shared: &Shared,
    from: LogId,
    to: u32,
    storage_log: u32,
) -> Result<Option<(SubscriberName, Lost)>> {
    let (missing, _) = Missing::find_gaps(shared, storage_log)?;
    let mut checkpoints = checkpoint::all(shared)?;
    checkpoints.iter_mut().filter_map(|(_, id)| id.as_mut()).for_each(|id| *id = from.max(*id));
    let before = |losses: Vec<Lost>| losses.into_iter().filter(|lost| lost.first < to).reduce(Lost::and);
    let lost = missing.lost_to_all(shared, &checkpoints).into_iter();
    Ok(lost.filter_map(|(name, losses)| Some((name, before(losses)?))).max_by_key(|(_, lost)| lost.messages))
}

/// The segments that are missing or were cut now.
pub(crate) fn now(shared: &Shared) -> Result<Missing> {
    // In this order: a segment that the metastore shows as complete existed, unless it was removed.
    let meta = meta::MetaReader::open(shared)?.get()?;
    Missing::find(shared, meta.format, meta.storage_log)
}

/// Which files exist beside a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    index: bool,
    checksums: bool,
}

impl Beside {
    const BOTH: Self = Self { index: true, checksums: true };
}

/// Whether a complete segment may have been cut, by the lengths that files have or list.
fn may_be_cut(shared: &Shared, segment: u32, beside: Beside, noted: Option<Records>) -> bool {
    let Ok(facts) = shared.facts(&names::segment(segment)) else { return false };
    noted.is_some()
        || facts.len == 0
        || beside.index && index::lists_beyond(shared, segment, facts.len, None)
        || beside.checksums
            && !counts::is_covered(shared, segment, &facts)
            && checksum::list_beyond(shared, segment, facts.len)
}

/// How many records a complete segment had, if it was cut.
pub(crate) fn had(shared: &Shared, format: RecordFormat, segment: u32) -> Result<Option<u32>> {
    let noted = Noted::load(shared)?.segments.get(&segment).copied();
    if !may_be_cut(shared, segment, Beside::BOTH, noted) {
        return Ok(None);
    }
    Ok(cut(shared, format, segment, noted)?.map(|cut| cut.had.at_least))
}

/// Records the loss of a complete segment, if it was cut, before the file that shows it is removed.
pub(crate) fn note_cut(shared: &Shared, format: RecordFormat, segment: u32) -> Result<()> {
    let noted = Noted::load(shared)?.segments.get(&segment).copied();
    if may_be_cut(shared, segment, Beside::BOTH, noted)
        && let Some(cut) = cut(shared, format, segment, noted)?.filter(|cut| cut.fresh)
    {
        Noted::update(shared, |noted| noted.segments.insert(segment, cut.had) != Some(cut.had))?;
    }
    Ok(())
}

/// The same for all segments; `storage_log` is the one being written. Returns those that were not
/// recorded yet.
pub(crate) fn note_cuts(shared: &Shared, format: RecordFormat, storage_log: u32) -> Result<BTreeSet<u32>> {
    let mut missing = Missing::find(shared, format, storage_log)?;
    missing.cut.retain(|_, cut| cut.fresh);
    if !missing.cut.is_empty() {
        Noted::update(shared, |noted| {
            noted.segments.extend(missing.cut.iter().map(|(&segment, cut)| (segment, cut.had)));
            true
        })?;
    }
    Ok(missing.cut.into_keys().collect())
}

/// Records that a segment ends without a record.
pub(crate) fn note_empty(shared: &Shared, segment: u32) -> Result<()> {
    let none = Records { at_least: 0, exact: true };
    Noted::update(shared, |noted| noted.segments.insert(segment, none) != Some(none))
}

/// Forgets the entries of a segment that is being written.
pub(crate) fn forget(shared: &Shared, segment: u32) -> Result<()> {
    if shared.exists(names::LOST) && is_noted(shared, segment)? {
        Noted::update(shared, |noted| noted.segments.remove(&segment).is_some())?;
    }
    Ok(())
}

/// A repair has taken this many records out of each of these segments.
pub(crate) fn taken_out(shared: &Shared, segments: &[(u32, u32)]) -> Result<()> {
    if segments.is_empty() || !shared.exists(names::LOST) {
        return Ok(());
    }
    Noted::update(shared, |noted| {
        let mut changed = false;
        for (segment, records) in segments {
            if let Some(noted) = noted.segments.get_mut(segment) {
                noted.at_least = noted.at_least.saturating_sub(*records);
                changed = true;
            }
            if let Some(held) = noted.held.get_mut(segment) {
                *held = held.saturating_sub(*records);
            }
        }
        changed
    })
}

/// How many records a missing segment had, by its index or checksums.
fn left_over_of(shared: &Shared, segment: u32) -> Option<Records> {
    let by_index = index::left_over(shared, segment);
    by_index.into_iter().chain(checksum::left_over(shared, segment)).reduce(Records::better)
}

/// Records the losses of missing segments before the rest of their files is removed. Returns those
/// that were not known before.
pub(crate) fn note(shared: &Shared, left_over: &BTreeSet<u32>) -> Result<Option<(SubscriberName, Lost)>> {
    let kinds = shared.list()?;
    let passed = holders::passed(&kinds);
    let there: BTreeSet<u32> = kinds
        .iter()
        .filter_map(|kind| if let Kind::Segment(segment) = kind { Some(*segment) } else { None })
        .collect();
    let Some(holder) = holders::furthest_behind(shared, kinds)? else { return Ok(None) };
    let storage_log = meta::MetaReader::open(shared)?.get()?.storage_log;
    let dropped = dropped::load(shared)?;
    let mut fresh = BTreeMap::new();
    for &segment in
        left_over.range(holder.segment.max(passed)..).take_while(|&&segment| segment <= storage_log)
    {
        if !dropped.contains_key(&segment) {
            let records = left_over_of(shared, segment).unwrap_or(Records::SOME);
            fresh.insert(segment, records);
        }
    }
    if fresh.is_empty() {
        return Ok(None);
    }
    let mut sum = None;
    Noted::update(shared, |noted| {
        // The entry of a cut segment stays as long as the segment exists.
        noted.segments.retain(|segment, _| *segment >= holder.segment || there.contains(segment));
        fresh.retain(|segment, _| !noted.segments.contains_key(segment) && !noted.is_unneeded(*segment));
        for (&segment, &records) in &fresh {
            noted.segments.insert(segment, records);
            let Records { at_least, exact } = records;
            Lost::add(
                &mut sum,
                Lost { first: segment, last: segment, segments: 1, cut: 0, messages: at_least.into(), exact },
            );
        }
        !fresh.is_empty()
    })?;
    Ok(sum.map(|sum| (holder.name, sum)))
}

/// Records that repair has reported the losses; returns those that were not reported before.
/// `fresh` are segments whose loss was not known before this repair.
pub(crate) fn report(shared: &Shared, fresh: &BTreeSet<u32>) -> Result<Vec<Event>> {
    let missing = now(shared)?;
    let is_new =
        |lost: &Lost| !missing.is_reported(lost) || fresh.range(lost.first..=lost.last).next().is_some();
    let mut reported = Vec::new();
    let mut events = Vec::new();
    for (name, losses) in missing.lost_to_all(shared, &checkpoint::all(shared)?) {
        for lost in losses.into_iter().filter(is_new) {
            reported.push((lost.first, lost.last));
            events.push(Event::SegmentsLost { subscriber: name.to_string(), lost });
        }
    }
    for lost in missing.cut().filter(is_new) {
        if !reported.iter().any(|&(first, last)| (first..=last).contains(&lost.first)) {
            reported.push((lost.first, lost.last));
            events.push(Event::SegmentCut { lost });
        }
    }
    if !reported.is_empty() {
        Noted::update(shared, |noted| {
            for (first, last) in reported {
                insert(&mut noted.reported, first, last);
                noted
                    .held
                    .extend(missing.cut.range(first..=last).map(|(&segment, cut)| (segment, cut.there)));
            }
            true
        })?;
    }
    Ok(events)
}

/// Whether a missing segment was recorded as lost.
pub(crate) fn is_noted(shared: &Shared, segment: u32) -> Result<bool> {
    Ok(Noted::load(shared)?.segments.contains_key(&segment))
}

/// Records that a subscriber is about to begin, or to move back, after `id`: segments that are
/// missing there and that nobody needs now are not a loss for it.
pub(crate) fn begins(shared: &Shared, id: LogId) -> Result<()> {
    let kinds = shared.list()?;
    let passed = holders::passed(&kinds);
    let needed_from = match holders::furthest_behind(shared, kinds)? {
        Some(holder) => holder.segment,
        None => meta::MetaReader::open(shared)?.get()?.storage_log,
    };
    let from = id.segment.max(passed);
    if from >= needed_from {
        return Ok(());
    }
    let mut gaps = Vec::new();
    let mut next = from;
    for there in
        shared.segments()?.into_iter().filter(|n| (from..needed_from).contains(n)).chain([needed_from])
    {
        if next < there {
            gaps.push((next, there - 1));
        }
        next = there.saturating_add(1);
    }
    if gaps.is_empty() {
        return Ok(());
    }
    Noted::update(shared, |noted| {
        let before = noted.unneeded.clone();
        // Segments before every checkpoint no longer matter.
        noted.unneeded.retain(|_, &mut last| last >= id.segment);
        gaps.retain(|&(first, last)| (first..=last).any(|n| !noted.segments.contains_key(&n)));
        for (first, last) in gaps {
            insert(&mut noted.unneeded, first, last);
        }
        noted.unneeded != before
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_damage_is_no_number() {
        let records = |at_least, exact| Records { at_least, exact };
        let segments =
            BTreeMap::from([(3, records(10, true)), (4, records(1, false)), (u32::MAX, records(0, true))]);
        let noted = Noted {
            segments,
            unneeded: BTreeMap::from([(0, 2), (7, 7), (9, u32::MAX)]),
            reported: BTreeMap::from([(3, 4)]),
            held: BTreeMap::from([(3, 7), (4, 0)]),
        };
        let bytes = noted.encode();
        assert_eq!(Noted::parse(&bytes), noted);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Noted::parse(&damaged), Noted::default(), "byte {at}");
            assert_eq!(Noted::parse(&bytes[..at]), Noted::default(), "cut at {at}");
        }
    }

    #[test]
    fn losses_read_well() {
        let lost = |first, last, segments, messages, exact| {
            Lost { first, last, segments, cut: 0, messages, exact }.to_string()
        };
        let cut = |last, segments, cut| {
            Lost { first: 3, last, segments, cut, messages: 2, exact: false }.to_string()
        };
        assert_eq!(cut(3, 1, 1), "segment 00000003 was cut, and has lost at least 2 messages");
        assert_eq!(cut(4, 2, 2), "segments 00000003 to 00000004 were cut, and have lost at least 2 messages");
        assert_eq!(
            cut(9, 2, 1),
            "2 segments from 00000003 to 00000009 are missing or were cut, and with them are gone at least 2 messages"
        );
        assert_eq!(lost(3, 3, 1, 1, true), "segment 00000003 is missing, and with it 1 message");
        assert_eq!(
            lost(3, 4, 2, 20, true),
            "segments 00000003 to 00000004 are missing, and with them 20 messages"
        );
        assert_eq!(
            lost(3, 10, 2, 2, false),
            "2 segments from 00000003 to 0000000a are missing, and with them at least 2 messages"
        );
        assert_eq!(
            lost(0, 0, 1, 0, false),
            "segment 00000000 is missing, and with it an unknown number of messages"
        );
    }
}
