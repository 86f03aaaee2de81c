//! A walk over a segment in any state: every intact record, and the bytes between them.
//!
//! Records keep the markers they were written with. If the checksums do not show how many records a
//! damaged stretch held, it counts as one.
//!
//! # When checksums report damage
//!
//! A record that a run of the sidecar covers must be the one that the run lists at this place;
//! otherwise it is damaged. The exception is a run that describes other records, because another
//! program has truncated the segment and appended to it, or has moved records (as the C library's
//! repair does). Five rules distinguish the two:
//!
//! 1. A record whose header is where the run says (its place tag fits) is the run's record,
//!    whatever its body is, unless rule 4 explains it: the records of one batch have equal headers.
//! 2. Behind a place that does not fit, a run describes other records only if none of its records
//!    is in its place there.
//! 3. A record that is younger than the run, and fits before the next segments, was appended after
//!    the run's records were lost. It fits there if it is not younger than all of these: their
//!    first records, their first run, and the last run of this segment; and if it is no copy of a
//!    record that they hold or list, even one that has lost its end: an equal header is followed by
//!    the copy's body, or the end of a sector. (A message has the time when it was made, and may
//!    begin the next segment although others have appended younger ones to this one before it.)
//! 4. Records that the runs list elsewhere were moved if they are in the runs' order, nearer to the
//!    beginning than before, and the last record that the runs list is the last of them.
//! 5. A record that no run lists was moved with those of rule 4 if it came from a place that no run
//!    covers: as far from it as the listed record before it, or the next one where none is before
//!    it. Its time is not before that of the segment's first record, and it fits before the next
//!    segments.
//!
//! Everything else is damage, and the walk continues at the next record that is in its place or
//! that rule 3, 4 or 5 explains.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::codec::format::{COMPRESSED_HEADER_LEN, RecordFormat, RecordHeader};
use crate::codec::names;
use crate::files::checksum::{InPlace, Verifier, header_hash};
use crate::files::scan::{Candidate, Place, Step, Stop, Window, next_record, record_crc, step, walk};
use crate::files::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::{Error, Timestamp};

/// An item of a survey.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// An intact record.
    Record(Found),
    /// Damaged bytes: not a record, or not the one that was written.
    Damage(Stretch),
}

impl Item {
    /// Where the next one begins.
    pub(crate) fn behind(&self) -> Place {
        match self {
            Item::Record(found) => Place { marker: found.marker, offset: found.offset + found.total },
            Item::Damage(stretch) => Place {
                marker: stretch.marker.saturating_add(stretch.records - 1),
                offset: stretch.offset + stretch.len,
            },
        }
    }
}

/// An intact record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) header: RecordHeader,
    /// Whether its checksum was checked and is right.
    pub(crate) verified: bool,
    /// If the runs that cover this place describe other records: the end of that part of the
    /// segment.
    pub(crate) foreign_until: Option<u64>,
}

/// Damaged bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The marker of its first record, and how many records it replaces.
    pub(crate) marker: u32,
    pub(crate) records: u32,
    pub(crate) fault: Fault,
}

/// The fault of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not a record.
    NoRecord,
    /// It reaches the segment's end, and may be an interrupted write: nothing shows that it was
    /// whole.
    Unfinished,
    /// It is a record with a wrong checksum.
    Checksum,
    /// It is a record whose compressed body is wrong.
    Compression,
}

/// Records of the next segments that another one may be a copy of.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    /// Their checksums, in order.
    crcs: Arc<[u32]>,
    /// The hash of each one's header, the number of its file and where it begins there, in order.
    headers: Arc<[(u32, usize, u64)]>,
    files: Arc<[Arc<dyn File>]>,
}

impl Copies {
    /// Whether the record of a file that begins at `offset`, with `total` bytes, is a copy of one
    /// of these, or what is left of a copy that lost its end.
    fn have(
        &self,
        (file, format): (&dyn File, RecordFormat),
        (offset, total): (u64, u64),
        header: &RecordHeader,
        crc: u32,
    ) -> io::Result<bool> {
        if self.crcs.binary_search(&crc).is_ok() {
            return Ok(true);
        }
        let hash = header_hash(header);
        let first = self.headers.partition_point(|&(other, ..)| other < hash);
        let equal = self.headers[first..].iter().take_while(|&&(other, ..)| other == hash);
        let head_len = format.header_len() as u64;
        for (n, &(_, other, at)) in equal.enumerate() {
            if n == MAX_EQUAL {
                return Ok(true);
            }
            let same = same_bytes((file, offset), (&*self.files[other], at), total)?;
            // What replaces the end of a copy begins with a sector. Other records may have an equal
            // header and, by chance, an equal first byte of the body, most likely with LZ4.
            let sector = (offset + same) / SECTOR * SECTOR;
            if same > head_len + 1 || sector >= offset + head_len {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How many bytes from one place on equal those from another place on; `most` is the maximum.
fn same_bytes((one, from): (&dyn File, u64), (other, at): (&dyn File, u64), most: u64) -> io::Result<u64> {
    let (mut a, mut b) = (Window::of(4096), Window::of(4096));
    let mut same = 0;
    while same < most {
        let want = usize::try_from(most - same).unwrap_or(4096).min(4096);
        let a = a.at(one, from + same, want)?;
        let b = b.at(other, at + same, want)?;
        let len = want.min(a.len()).min(b.len());
        let equal = a[..len].iter().zip(&b[..len]).take_while(|(a, b)| a == b).count();
        same += equal as u64;
        if equal < want {
            break;
        }
    }
    Ok(same)
}

/// How many of the next segments are examined for the time with which they begin.
const LOOK_AHEAD: u32 = 4;
/// If more bytes than this are missing from a torn record, its length is damaged.
const TORN_MAX: u64 = 64 << 20;
/// With more equal headers than this, a record is taken for a copy.
const MAX_EQUAL: usize = 64;
/// The smallest piece that a disk writes.
const SECTOR: u64 = 512;
/// How many records of the next segments are compared with one that may be a copy of them: 4 MiB of
/// checksums.
const MAX_COPIES: usize = 1 << 20;

/// A segment to survey up to `to`.
pub(crate) struct Survey<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) segment: u32,
    pub(crate) file: &'a dyn File,
    pub(crate) format: RecordFormat,
    pub(crate) verifier: &'a mut Verifier,
    pub(crate) to: u64,
    /// Whether bodies are checked as well, by their checksums and by decompressing them.
    pub(crate) check: bool,
    /// Up to where the runs are known to describe other records; 0 if nothing is known.
    pub(crate) foreign_until: u64,
    /// The result of the last search for a moved record.
    pub(crate) ahead: Ahead,
    /// Facts about the next segments.
    pub(crate) later: Later,
    /// What was read last of the segment.
    pub(crate) window: Window,
}

/// The bounds that the next segments set for records appended before them; looked up when first
/// needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Later {
    /// The earliest time of their first records, and the latest time that a record before them can
    /// have. The inner `None` means that there are none.
    times: Option<Option<(Timestamp, Timestamp)>>,
    /// Identifies copies of their records; the inner `None` means that there are too many.
    copies: Option<Option<Copies>>,
}

/// How far the first listed record after some place was moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// Where the search began and ended.
    from: u64,
    to: u64,
    shift: Option<u64>,
}

/// A record at the place that a run gives, after one that does not fit.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    offset: u64,
    run: usize,
    marker: u32,
}

/// What follows a place that does not fit.
struct Region {
    /// Where the walk continues; there is damage up to there.
    from: u64,
    /// Up to where records are not verified: `from`, or a later place if the runs describe others.
    foreign_until: u64,
    /// The record in place that the region leads to.
    anchor: Option<Anchor>,
}

/// The state of a walk.
#[derive(Default)]
struct Walk {
    window: Window,
    /// Up to where the runs describe other records.
    foreign_until: u64,
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> Survey<'a> {
    /// A survey of a segment up to `to` that also checks bodies.
    pub(crate) fn new(
        (shared, segment): (&'a Shared, u32),
        file: &'a dyn File,
        format: RecordFormat,
        verifier: &'a mut Verifier,
        to: u64,
    ) -> Self {
        Self {
            shared,
            segment,
            file,
            format,
            verifier,
            to,
            check: true,
            foreign_until: 0,
            ahead: Ahead::default(),
            later: Later::default(),
            window: Window::default(),
        }
    }

    /// The same by headers only: bodies may be damaged.
    pub(crate) fn by_headers(self) -> Self {
        Self { check: false, ..self }
    }
}

impl Survey<'_> {
    /// Walks from `from` on, where a record begins. Returns where it ended: after the last item or,
    /// if `each` broke off, after that item. Offsets and markers of the items grow.
    ///
    /// # Errors
    /// The segment or its sidecar cannot be read.
    pub(crate) fn run(
        &mut self,
        from: Place,
        mut each: impl FnMut(Item) -> ControlFlow<()>,
    ) -> io::Result<Place> {
        let mut here = from;
        let window = std::mem::take(&mut self.window);
        let mut walk = Walk { foreign_until: self.foreign_until, window, ..Walk::default() };
        while let Some(item) = self.item(here, &mut walk)? {
            here = item.behind();
            if each(item).is_break() {
                break;
            }
        }
        self.window = walk.window;
        Ok(here)
    }

    /// What is here; `None` at the end.
    fn item(&mut self, here: Place, walk: &mut Walk) -> io::Result<Option<Item>> {
        let offset = here.offset;
        if offset >= self.to {
            return Ok(None);
        }
        let head = walk.window.at(self.file, offset, self.format.header_len())?;
        let header = self.format.decode(head);
        let stands = step(self.format, head, self.to - offset);
        let Step::Record(header, total) = stands else {
            return self.irregular(here, None, header, walk).map(Some);
        };
        let marker = here.marker.saturating_add(1);
        let mut found = Found { marker, offset, total, header, verified: false, foreign_until: None };
        if offset < walk.foreign_until {
            found.foreign_until = Some(walk.foreign_until);
            return self.unpacked(found, walk).map(Some);
        }
        if self.verifier.covers(offset) {
            let (file, window) = (self.file, &mut walk.window);
            let placed = self
                .verifier
                .in_place(marker, offset, &header, true, || record_crc(file, offset, total, window))?;
            let Some(placed) = placed else {
                return self.irregular(here, None, Some(header), walk).map(Some);
            };
            // Markers grow, even if a stretch was counted as more records than it held.
            found.marker = placed.marker.max(marker);
            if self.check {
                if record_crc(self.file, offset, total, &mut walk.window)? != placed.crc {
                    return self.irregular(here, Some(total), Some(header), walk).map(Some);
                }
                found.verified = true;
            }
            return self.unpacked(found, walk).map(Some);
        }
        if self.verifier.begins_within(offset + 1, offset + total) {
            return self.irregular(here, None, Some(header), walk).map(Some);
        }
        // Without a checksum, a record that no record follows may have a damaged length, and
        // contain others.
        let behind = offset + total;
        let head = walk.window.at(self.file, behind, self.format.header_len())?;
        let followed = match step(self.format, head, self.to - behind) {
            // A torn record with a header is where the one before it ends.
            Step::Torn => self.format.decode(head).is_some(),
            Step::Corrupt => false,
            Step::Record(..) | Step::End => true,
        };
        if !followed && let Some(inside) = self.next_plausible(offset + 1, behind, None)? {
            return Ok(Some(self.damage(here, inside, None, Fault::NoRecord)));
        }
        self.unpacked(found, walk).map(Some)
    }

    /// A record that is intact according to its checksum: its compressed body is checked as well.
    fn unpacked(&mut self, found: Found, walk: &mut Walk) -> io::Result<Item> {
        if !self.check || !self.format.is_lz4() {
            return Ok(Item::Record(found));
        }
        walk.stored.resize(found.header.stored as usize, 0);
        walk.plain.clear();
        let at = found.offset + self.format.header_len() as u64;
        let n = read_up_to_at(self.file, &mut walk.stored, at)?;
        if n == walk.stored.len() && self.format.load(&found.header, &walk.stored, &mut walk.plain) {
            return Ok(Item::Record(found));
        }
        let end = found.offset + found.total;
        let end = self.next_plausible(found.offset + 1, end, None)?.unwrap_or(end);
        let here = Place { marker: found.marker - 1, offset: found.offset };
        Ok(self.damage(here, end, None, Fault::Compression))
    }

    /// Something that the walk cannot pass: not a record, or one that does not fit the run that
    /// covers it. `claimed` is the length of a record that is in its place with a wrong body;
    /// `header` is the header here, if there is one.
    fn irregular(
        &mut self,
        here: Place,
        claimed: Option<u64>,
        header: Option<RecordHeader>,
        walk: &mut Walk,
    ) -> io::Result<Item> {
        // Bytes after other programs' records are theirs, too: an unfinished write.
        let behind_foreign = walk.foreign_until == here.offset && here.offset > 0;
        let region = self.region(here, claimed, header)?;
        walk.foreign_until = region.foreign_until;
        if region.from == here.offset {
            // The runs describe other records: this is a record.
            let head = walk.window.at(self.file, here.offset, self.format.header_len())?;
            if let Step::Record(header, total) = step(self.format, head, self.to - here.offset) {
                let found = Found {
                    marker: here.marker.saturating_add(1),
                    offset: here.offset,
                    total,
                    header,
                    verified: false,
                    foreign_until: Some(region.foreign_until),
                };
                return self.unpacked(found, walk);
            }
        }
        let known = self.verifier.covers(here.offset) || self.verifier.begins_within(here.offset, self.to);
        let whole = header.is_some_and(|header| self.total(&header) <= self.to - here.offset);
        let fault = if whole && known {
            Fault::Checksum
        } else if region.from == self.to && !whole && (!known || behind_foreign) {
            Fault::Unfinished
        } else {
            Fault::NoRecord
        };
        Ok(self.damage(here, region.from, region.anchor, fault))
    }

    /// The next existing segments. Several are examined, because one of them may be damaged as
    /// well.
    fn next_segments(&self) -> io::Result<Vec<(u32, Arc<dyn File>)>> {
        let mut files = Vec::new();
        for next in (1..=LOOK_AHEAD).map_while(|n| self.segment.checked_add(n)) {
            match self.shared.storage.open(&self.shared.at(&names::segment(next)), Open::Read) {
                Ok(file) => files.push((next, file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(files)
    }

    /// The earliest time with which one of the next segments begins, if there are any; and the
    /// latest time that a record before them can have, as far as can be known.
    fn next_times(&mut self) -> io::Result<Option<(Timestamp, Timestamp)>> {
        let mut earliest: Option<Timestamp> = None;
        let mut latest = Vec::new();
        for (next, file) in self.next_segments()? {
            let Some(first) = first_header(&*file, self.format)? else { continue };
            if earliest.is_none() {
                // It was begun before the first of its runs was written.
                let written = Verifier::load(self.shared, next).and_then(|mut runs| {
                    runs.written().map_err(|e| Error::io("read", self.shared.at(&names::checksums(next)), e))
                });
                latest.extend(written.unwrap_or_default().into_iter().min());
            }
            earliest = Some(earliest.map_or(first.time, |time| time.min(first.time)));
        }
        // The last run of this segment was written when most of its records were there.
        latest.extend(self.verifier.written()?);
        Ok(earliest.map(|begins| (begins, latest.into_iter().fold(begins, Timestamp::max))))
    }

    /// Identifies copies of records in the next segments, from one time up to another: the
    /// checksums of these records, and of all that are listed there, because other records may be
    /// in their places by now; and their headers, because a copy may have lost its end. `None` if
    /// there are too many.
    fn next_copies(&self, from: Timestamp, to: Timestamp) -> io::Result<Option<Copies>> {
        let (mut crcs, mut headers, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (next, file) in self.next_segments()? {
            let listed =
                Verifier::load(self.shared, next).map_err(io::Error::other)?.listed_crcs(MAX_COPIES)?;
            let Some(listed) = listed.filter(|listed| crcs.len() + listed.len() <= MAX_COPIES) else {
                return Ok(None);
            };
            crcs.extend(listed);
            let (len, mut at, mut window) = (file.len()?, 0, Window::default());
            while at < len {
                let head = window.at(&*file, at, self.format.header_len())?;
                let Step::Record(header, total) = step(self.format, head, len - at) else { break };
                if (from..=to).contains(&header.time) {
                    if crcs.len() >= MAX_COPIES {
                        return Ok(None);
                    }
                    headers.push((header_hash(&header), files.len(), at));
                    crcs.push(record_crc(&*file, at, total, &mut window)?);
                }
                at += total;
            }
            files.push(file);
        }
        crcs.sort_unstable();
        headers.sort_unstable();
        Ok(Some(Copies { crcs: crcs.into(), headers: headers.into(), files: files.into() }))
    }

    /// Whether a record (where it begins, and its length) can have been appended before the next
    /// segments were begun.
    fn fits_before_next(&mut self, place: (u64, u64), header: &RecordHeader, crc: u32) -> io::Result<bool> {
        let time = header.time;
        let times = match self.later.times {
            Some(known) => known,
            None => {
                let times = self.next_times()?;
                *self.later.times.insert(times)
            }
        };
        let Some((begins, latest)) = times.filter(|&(begins, _)| time >= begins) else { return Ok(true) };
        if time > latest {
            return Ok(false);
        }
        let copies = match &self.later.copies {
            Some(known) => known,
            None => {
                let copies = self.next_copies(begins, latest)?;
                &*self.later.copies.insert(copies)
            }
        };
        match copies {
            Some(copies) => Ok(!copies.have((self.file, self.format), place, header, crc)?),
            None => Ok(false),
        }
    }

    fn total(&self, header: &RecordHeader) -> u64 {
        self.format.header_len() as u64 + u64::from(header.stored)
    }

    /// The stretch from here to `end`, with the number of records that the sidecar lists in it.
    fn damage(&self, here: Place, end: u64, anchor: Option<Anchor>, fault: Fault) -> Item {
        let marker = here.marker.saturating_add(1);
        let last = match anchor {
            Some(anchor) if anchor.offset == end => Some(anchor.marker.saturating_sub(1)),
            _ => self.verifier.last_marker_within(here.offset, end),
        };
        let records = last.map_or(1, |last| last.saturating_sub(here.marker)).max(1);
        Item::Damage(Stretch { offset: here.offset, len: end - here.offset, marker, records, fault })
    }

    /// Decides what follows a place that does not fit: how far the damage extends, or that the runs
    /// describe other records.
    fn region(
        &mut self,
        here: Place,
        claimed: Option<u64>,
        header: Option<RecordHeader>,
    ) -> io::Result<Region> {
        let u = here.offset;
        let anchor = self.next_in_place(here, u + 1)?;
        let end = anchor.map_or(self.to, |anchor| anchor.offset);
        if let Some(total) = claimed {
            let known = anchor.is_some_and(|anchor| self.verifier.run_at(u) == Some(anchor.run));
            // Records of one batch have equal headers: a moved one fits the tag of the one that was
            // here.
            if !known
                && let Judged::Foreign { until } = Chains::new(self, here, end, anchor).judge(u, false)?
            {
                return Ok(Region { from: u, foreign_until: until, anchor });
            }
            if u + total <= end && (known || u + total == end || !self.is_foreign_inside(here, total, end)?) {
                return Ok(Region { from: u + total, foreign_until: 0, anchor });
            }
        }
        // The message in a torn record may contain bytes that look like records: those that are
        // older than it are not. An implausibly large length is damaged, and proves nothing.
        let torn = |header: &RecordHeader| {
            let missing = (u + self.total(header)).checked_sub(self.to);
            missing.is_some_and(|missing| missing > 0 && missing <= TORN_MAX)
        };
        let not_before = header.filter(torn).map(|header| header.time);
        let mut chains = Chains::new(self, here, end, anchor);
        let mut from = if claimed.is_some() { u + 1 } else { u };
        loop {
            let Some(start) = chains.survey.next_candidate(from, end, end, not_before)? else {
                return Ok(Region { from: end, foreign_until: 0, anchor });
            };
            match chains.judge(start, start == u && claimed.is_none())? {
                Judged::Regular => return Ok(Region { from: start, foreign_until: 0, anchor }),
                Judged::Foreign { until } => return Ok(Region { from: start, foreign_until: until, anchor }),
                Judged::Damaged { next } => from = next.max(start + 1),
            }
        }
    }

    /// Whether records of another program are inside a record that is in its place: they were
    /// appended to a torn one.
    fn is_foreign_inside(&mut self, here: Place, total: u64, end: u64) -> io::Result<bool> {
        let behind = here.offset + total;
        let mut from = here.offset + 1;
        let mut chains = Chains::new(self, here, end, None);
        while let Some(start) = chains.survey.next_candidate(from, behind, end, None)? {
            match chains.judge(start, false)? {
                Judged::Damaged { next } => from = next.max(start + 1),
                Judged::Regular | Judged::Foreign { .. } => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The next record at the place that a run gives, from `from` on.
    fn next_in_place(&mut self, here: Place, from: u64) -> io::Result<Option<Anchor>> {
        if self.verifier.last_run_within(from, self.to).is_none() {
            return Ok(None);
        }
        let (file, format, to) = (self.file, self.format, self.to);
        let verifier = &mut *self.verifier;
        let (mut found, least) = (None, here.marker.saturating_add(1));
        // The end of a chain of records that does not end as its run does.
        let mut elsewhere = 0;
        let offset = next_record(file, format, from, to, &mut Window::default(), |candidate, window| {
            let Candidate { offset, total, header } = candidate;
            let placed = verifier
                .in_place(least, offset, &header, false, || record_crc(file, offset, total, window))?;
            let same = |placed: &InPlace, window: &mut Window| {
                Ok::<_, io::Error>(record_crc(file, offset, total, window)? == placed.crc)
            };
            found = match placed {
                Some(placed) if same(&placed, window)? => Some((placed.run, placed.marker)),
                _ => None,
            };
            if let Some(placed) = placed
                && !verifier.is_tagged(placed.run)
                && (offset < elsewhere
                    || !leads_to_end(file, format, verifier, offset, &placed, &mut elsewhere)?)
            {
                found = None;
            }
            Ok(Some(found.is_some()))
        })?;
        Ok(offset.zip(found).map(|(offset, (run, marker))| Anchor { offset, run, marker }))
    }

    /// The next place between `from` and `to` where something that looks like a record begins and
    /// does not reach beyond `end`; one that no run covers must also be plausible.
    fn next_candidate(
        &mut self,
        from: u64,
        to: u64,
        end: u64,
        not_before: Option<Timestamp>,
    ) -> io::Result<Option<u64>> {
        if from >= to {
            return Ok(None);
        }
        let verifier = &*self.verifier;
        let next =
            next_record(self.file, self.format, from, self.to, &mut Window::default(), |candidate, _| {
                let Candidate { offset, total, header } = candidate;
                if offset >= to {
                    return Ok(Some(true));
                }
                if offset + total > end {
                    // It overlaps the next record in place.
                    return Ok(Some(false));
                }
                if verifier.covers(offset) || verifier.begins_within(offset + 1, offset + total) {
                    return Ok(Some(true));
                }
                Ok(not_before.is_some_and(|time| header.time < time).then_some(false))
            })?;
        Ok(next.filter(|&next| next < to))
    }

    /// The next place in this range where a record begins, by what follows it alone.
    fn next_plausible(
        &mut self,
        from: u64,
        to: u64,
        not_before: Option<Timestamp>,
    ) -> io::Result<Option<u64>> {
        let next =
            next_record(self.file, self.format, from, self.to, &mut Window::default(), |candidate, _| {
                if candidate.offset >= to {
                    return Ok(Some(true));
                }
                Ok(not_before.is_some_and(|time| candidate.header.time < time).then_some(false))
            })?;
        Ok(next.filter(|&next| next < to))
    }
}

/// The header of a segment's first record, if there is one.
fn first_header(file: &dyn File, format: RecordFormat) -> io::Result<Option<RecordHeader>> {
    let mut head = [0; COMPRESSED_HEADER_LEN];
    let n = read_up_to_at(file, &mut head, 0)?;
    Ok(format.decode(&head[..n]))
}

/// Whether the records from `offset` on, which a run without tags lists, end with the run's last
/// record at its place: without tags, only that shows that they were not moved. Otherwise records
/// where they lead.
fn leads_to_end(
    file: &dyn File,
    format: RecordFormat,
    verifier: &mut Verifier,
    offset: u64,
    placed: &InPlace,
    elsewhere: &mut u64,
) -> io::Result<bool> {
    let last = verifier.last_offset(placed.run);
    let len = file.len()?;
    let (mut at, mut marker) = (offset, placed.marker);
    let mut window = Window::default();
    while at < last {
        let head = window.at(file, at, format.header_len())?;
        let Step::Record(_, total) = step(format, head, len.saturating_sub(at)) else { break };
        at += total;
        marker = marker.saturating_add(1);
    }
    *elsewhere = at;
    Ok(at == last && marker == verifier.last_marker(placed.run))
}

/// The verdict on a chain of records after a place that does not fit.
enum Judged {
    /// No run covers its first record: an ordinary chain.
    Regular,
    /// The runs up to here describe other records.
    Foreign { until: u64 },
    /// Its first records are damaged; another chain may begin from here on.
    Damaged { next: u64 },
}

/// Judges chains of records between a place that does not fit and the next record in place.
struct Chains<'s, 'a> {
    survey: &'s mut Survey<'a>,
    here: Place,
    end: u64,
    anchor: Option<Anchor>,
    /// What the runs of the segment list, made when first needed.
    listed: Option<Vec<(u32, usize, u32)>>,
}

impl<'s, 'a> Chains<'s, 'a> {
    fn new(survey: &'s mut Survey<'a>, here: Place, end: u64, anchor: Option<Anchor>) -> Self {
        Self { survey, here, end, anchor, listed: None }
    }
}

impl Chains<'_, '_> {
    /// The checksum that a record would have with this header.
    fn crc_with_header(
        &self,
        header: &RecordHeader,
        offset: u64,
        total: u64,
        window: &mut Window,
    ) -> io::Result<u32> {
        let mut encoded = [0; COMPRESSED_HEADER_LEN];
        self.survey.format.encode(header, &mut encoded);
        let head_len = self.survey.format.header_len();
        let body = record_crc(self.survey.file, offset + head_len as u64, total - head_len as u64, window)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&encoded[..head_len]);
        hasher.combine(&crc32fast::Hasher::new_with_initial_len(body, total - head_len as u64));
        Ok(hasher.finalize())
    }

    /// Follows the records from `start` on. `expected` says that the first one is where the runs
    /// place the record after `here`.
    fn judge(&mut self, start: u64, expected: bool) -> io::Result<Judged> {
        let mut window = Window::default();
        let mut at = start;
        // The last listed record that was met, where the first one of these stands, and the last
        // one.
        let mut moved = None;
        let mut first_moved = None;
        let mut last_moved = (0, 0);
        // How far the last one was moved, if that is known.
        let mut shift = None;
        // Whether records that no run lists come before the first one.
        let mut unlisted_first = false;
        // Damaged records among moved ones, and the end of records that no rule explains.
        let mut first_hole = None;
        let mut behind_hole = start + 1;
        let mut only_young_behind = true;
        // Other programs append at the end. If they began elsewhere, their records must lead to the
        // next record in place, or to the segment's end.
        let follows = start == self.here.offset;
        let appended = |until: u64, clean: bool| {
            if until > start && (clean || follows) {
                Judged::Foreign { until }
            } else {
                Judged::Damaged { next: until.max(start + 1) }
            }
        };
        let mut broken = false;
        while at < self.end {
            let head = window.at(self.survey.file, at, self.survey.format.header_len())?;
            let Step::Record(header, total) = step(self.survey.format, head, self.end - at) else {
                // A write in progress at the segment's end is torn for a moment.
                broken = self.anchor.is_some()
                    || self.survey.format.decode(head).is_none()
                        && head.len() >= self.survey.format.header_len();
                break;
            };
            let verifier = &mut *self.survey.verifier;
            let run = verifier.run_at(at).or_else(|| verifier.first_beginning(at + 1, at + total));
            if run.is_none() && first_moved.is_none() && !unlisted_first {
                if at > start {
                    return Ok(appended(at, true));
                }
                // A record that a run lists is a copy of one that is, or was, elsewhere.
                let crc = record_crc(self.survey.file, at, total, &mut window)?;
                let copy = self.is_listed(crc)?;
                return Ok(if copy { Judged::Damaged { next: at + 1 } } else { Judged::Regular });
            }
            let last_run = self.last_run();
            let verifier = &mut *self.survey.verifier;
            if run.is_none() && last_run.is_none_or(|last| verifier.end_of(last) <= at) {
                // After all runs: what follows was appended later.
                break;
            }
            let of_anchor = self.anchor.is_some_and(|anchor| Some(anchor.run) == run);
            let had = if expected && at == start {
                verifier.header_but_for_a_byte(self.here.marker.saturating_add(1), at, &header)?
            } else {
                None
            };
            let crc = record_crc(self.survey.file, at, total, &mut window)?;
            let damaged = of_anchor
                || match had {
                    // A time may differ by a byte only by chance, but then the rest does not fit.
                    Some((had, listed)) if had.time != header.time => {
                        self.crc_with_header(&had, at, total, &mut window)? == listed
                    }
                    // So may lengths, in records of one batch; a record that is listed elsewhere is
                    // whole.
                    Some(_) => !self.is_listed(crc)?,
                    None => false,
                };
            let verifier = &mut *self.survey.verifier;
            let young = !damaged
                && match run {
                    Some(run) => verifier.is_younger(run, header.time)?,
                    None => false,
                }
                && self.survey.fits_before_next((at, total), &header, crc)?;
            if young && !self.is_listed(crc)? {
                at += total;
                continue;
            }
            let next = if damaged { None } else { self.next_listed(crc, moved)? };
            if let Some(next) = next {
                let adjacent = moved.is_some_and(|(run, place)| next == (run, place + 1))
                    && last_moved.0 + last_moved.1 == at;
                shift = self.survey.verifier.moved_by(next, at).or(shift.filter(|_| adjacent));
                moved = Some(next);
                first_moved = first_moved.or(Some(at));
                last_moved = (at, total);
                only_young_behind = true;
            } else if !damaged && self.was_uncovered((at, total), &header, crc, shift, first_moved)? {
                unlisted_first |= first_moved.is_none();
            } else {
                if first_moved.is_none() {
                    return Ok(appended(at, false));
                }
                first_hole = first_hole.or(Some(at));
                behind_hole = at + total;
                only_young_behind = false;
            }
            at += total;
        }
        let Some(first_moved) = first_moved else {
            return Ok(if unlisted_first {
                Judged::Damaged { next: start + 1 }
            } else {
                appended(at, !broken)
            });
        };
        let last_run = self.last_run();
        let moved_to_the_end = !broken
            && last_run.is_some_and(|run| {
                let verifier = &*self.survey.verifier;
                moved == Some((run, verifier.count(run) - 1)) && last_moved.0 < verifier.last_offset(run)
            });
        let until = if moved_to_the_end && only_young_behind {
            first_hole.unwrap_or(at)
        } else if unlisted_first {
            start
        } else {
            first_moved
        };
        Ok(if until > start && (moved_to_the_end || follows) {
            Judged::Foreign { until }
        } else {
            Judged::Damaged { next: behind_hole.max(last_moved.0 + last_moved.1) }
        })
    }

    /// Whether a record that no run lists was at a place that no run covers before it was moved as
    /// far as listed records: by `shift`, or as far as the next one if none has been met.
    fn was_uncovered(
        &mut self,
        (at, total): (u64, u64),
        header: &RecordHeader,
        crc: u32,
        shift: Option<u64>,
        first_moved: Option<u64>,
    ) -> io::Result<bool> {
        let shift = if first_moved.is_some() { shift } else { self.shift_ahead(at)? };
        let Some(shift) = shift else { return Ok(false) };
        let was = at + shift;
        if self.survey.verifier.covers(was) || self.survey.verifier.begins_within(was, was + total) {
            return Ok(false);
        }
        if !self.survey.fits_before_next((at, total), header, crc)? || header.time < self.begins()? {
            return Ok(false);
        }
        // Rule 1: with the header of the record that was written here, it is that record.
        let verifier = &mut *self.survey.verifier;
        Ok(verifier.in_place(0, at, header, false, || Ok(crc))?.is_none() && !self.is_listed(crc)?)
    }

    /// The time of the segment's first record; if there is none, a time that no record reaches.
    fn begins(&self) -> io::Result<Timestamp> {
        let first = first_header(self.survey.file, self.survey.format)?;
        Ok(first.map_or(Timestamp { seconds: u32::MAX, micros: u32::MAX }, |header| header.time))
    }

    /// How far the next listed record from `from` on was moved, if that is known for any.
    fn shift_ahead(&mut self, from: u64) -> io::Result<Option<u64>> {
        let known = self.survey.ahead;
        if known.from <= from && from < known.to {
            return Ok(known.shift);
        }
        let mut window = Window::default();
        let (mut at, mut shift) = (from, None);
        while at < self.end && shift.is_none() {
            let head = window.at(self.survey.file, at, self.survey.format.header_len())?;
            let Step::Record(_, total) = step(self.survey.format, head, self.end - at) else { break };
            let crc = record_crc(self.survey.file, at, total, &mut window)?;
            if let Some(listed) = self.next_listed(crc, None)? {
                shift = self.survey.verifier.moved_by(listed, at);
            }
            at += total;
        }
        self.survey.ahead = Ahead { from, to: at.max(from + 1), shift };
        Ok(shift)
    }

    /// The listed record that is here, if it follows the previous one in the runs' order.
    fn next_listed(&mut self, crc: u32, before: Option<(usize, u32)>) -> io::Result<Option<(usize, u32)>> {
        let least = match before {
            Some((run, place)) => (crc, run, place + 1),
            // Those before the place that does not fit are in their places.
            None => match self.survey.verifier.run_at(self.here.offset) {
                Some(run) => (crc, run, self.survey.verifier.place_behind(run, self.here.marker)),
                None => (crc, 0, 0),
            },
        };
        let last = self.last_run();
        let listed = self.listed()?;
        let next = listed.get(listed.partition_point(|&entry| entry < least));
        let next = next.filter(|&&(listed, run, _)| listed == crc && Some(run) <= last);
        Ok(next.map(|&(_, run, place)| (run, place)))
    }

    /// The last run that may describe other records.
    fn last_run(&self) -> Option<usize> {
        let before = self.anchor.map_or(u64::MAX, |anchor| anchor.offset);
        self.survey.verifier.last_run_within(self.here.offset, before)
    }

    /// Whether this checksum is listed for any record of the segment.
    fn is_listed(&mut self, crc: u32) -> io::Result<bool> {
        let listed = self.listed()?;
        let at = listed.partition_point(|&(listed, ..)| listed < crc);
        Ok(listed.get(at).is_some_and(|&(listed, ..)| listed == crc))
    }

    fn listed(&mut self) -> io::Result<&[(u32, usize, u32)]> {
        if self.listed.is_none() {
            self.listed = Some(self.survey.verifier.listed()?);
        }
        Ok(self.listed.as_deref().unwrap_or_default())
    }
}

/// How many whole records there are from `from` on, and where they end, without looking past any
/// damage.
pub(crate) fn count(
    file: &dyn File,
    format: RecordFormat,
    from: Place,
    to: u64,
) -> io::Result<(Place, Stop)> {
    let walked = walk(file, format, from.offset, to, &mut Window::default(), |_, _, _| {})?;
    let marker = from.marker.saturating_add(walked.records);
    Ok((Place { marker, offset: walked.offset }, walked.stop))
}
