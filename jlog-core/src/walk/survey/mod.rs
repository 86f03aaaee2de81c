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

mod chains;
mod copies;
mod segment;

use std::io;
use std::ops::ControlFlow;

use crate::codec::format::{RecordFormat, RecordHeader};
use crate::files::checksum::{InPlace, Verifier};
use crate::files::scan::{Candidate, Place, Step, Stop, Window, next_record, record_crc, step, walk};
use crate::storage::{File, read_up_to_at};
use chains::{Chains, Judged};
use segment::Anchor;
pub(crate) use segment::Survey;

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

/// If more bytes than this are missing from a torn record, its length is damaged.
const TORN_MAX: u64 = 64 << 20;

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
