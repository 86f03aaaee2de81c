//! A walk over a segment, whatever state it is in: every intact record, and what lies between them.
//!
//! Records keep the markers they were written with. Where it cannot be told how many records a damaged stretch
//! held (the checksums tell), it counts as one.

use std::io;
use std::ops::ControlFlow;

use crate::Timestamp;
use crate::checksum::{Suspect, Verdict, Verifier};
use crate::format::{RecordFormat, RecordHeader};
use crate::scan::{Step, Stop, Window, next_record, record_crc, step, walk};
use crate::storage::{File, read_up_to_at};

/// What a survey meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// An intact record.
    Record(Found),
    /// Bytes that are no record, or not the one that was written.
    Damage(Stretch),
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
}

/// Damaged bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The marker of its first record, and how many records it stands for.
    pub(crate) marker: u32,
    pub(crate) records: u32,
    pub(crate) fault: Fault,
}

/// What is wrong with a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no record.
    NoRecord,
    /// It reaches the segment's end, and may be a write that was cut short: nothing shows that it was whole.
    Unfinished,
    /// It is a record with a wrong checksum.
    Checksum,
    /// It is a record whose compressed body is wrong.
    Compression,
}

/// Where a survey begins: behind so many records, at this offset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
}

/// A segment to be surveyed up to `to`.
pub(crate) struct Survey<'a> {
    pub(crate) file: &'a dyn File,
    pub(crate) format: RecordFormat,
    pub(crate) verifier: &'a mut Verifier,
    pub(crate) to: u64,
    /// Whether checksums and compressed bodies are checked, too.
    pub(crate) check: bool,
}

impl Survey<'_> {
    /// Walks from `from` on, which is where a record begins. Returns where it ended: behind the last item, or,
    /// if `each` broke off, behind the one it broke off at.
    pub(crate) fn run(
        &mut self,
        from: Place,
        mut each: impl FnMut(Item) -> ControlFlow<()>,
    ) -> io::Result<Place> {
        let mut here = from;
        let mut window = Window::default();
        while here.offset < self.to {
            let head = window.at(self.file, here.offset, self.format.header_len())?;
            let item = match step(self.format, head, self.to - here.offset) {
                Step::End => break,
                Step::Record(header, total) => {
                    let item = self.judge(here, header, total)?;
                    match item {
                        Item::Record(found) if self.check && !found.verified => {
                            let behind = here.offset + total;
                            let head = window.at(self.file, behind, self.format.header_len())?;
                            // A torn record with a header stands where the one before it says.
                            let wrong = match step(self.format, head, self.to - behind) {
                                Step::Torn => self.format.decode(head).is_none(),
                                Step::Corrupt => true,
                                Step::Record(..) | Step::End => false,
                            };
                            if wrong || self.verifier.begins_within(here.offset + 1, behind) {
                                self.swallowed(here, total)?.map_or(item, Item::Damage)
                            } else {
                                item
                            }
                        }
                        item => item,
                    }
                }
                Step::Torn => {
                    let time = self.format.decode(head).map(|header| header.time);
                    Item::Damage(self.stretch(here, time)?)
                }
                Step::Corrupt => Item::Damage(self.stretch(here, None)?),
            };
            here = match item {
                Item::Record(found) => Place { marker: found.marker, offset: found.offset + found.total },
                Item::Damage(stretch) => self.behind(stretch)?,
            };
            if each(item).is_break() {
                break;
            }
        }
        Ok(here)
    }

    /// The next intact record at or after `from`. A torn record's body may hold what looks like records: where
    /// the checksums know nothing of them, only those that are not older than it count. From `enough` on, whatever
    /// looks like a record ends the search.
    fn next(&mut self, from: u64, enough: u64, not_before: Option<Timestamp>) -> io::Result<Option<u64>> {
        let (file, format) = (self.file, self.format);
        let verifier = &mut *self.verifier;
        next_record(file, format, from, self.to, &mut Window::default(), |candidate, window| {
            if candidate.offset >= enough {
                return Ok(Some(true));
            }
            if verifier.covers(candidate.offset) {
                let crc = record_crc(file, candidate.offset, candidate.total, window)?;
                if verifier.lists(file, format, crc)? {
                    return Ok(Some(true));
                }
            }
            let too_old = not_before.is_some_and(|time| candidate.header.time < time);
            Ok(too_old.then_some(false))
        })
    }

    /// The damaged stretch that begins here.
    fn stretch(&mut self, here: Place, torn: Option<Timestamp>) -> io::Result<Stretch> {
        let next = self.next(here.offset + 1, self.to, torn)?;
        let known = self.verifier.covers(here.offset);
        let fault = if next.is_none() && !known { Fault::Unfinished } else { Fault::NoRecord };
        let len = next.unwrap_or(self.to) - here.offset;
        Ok(Stretch { offset: here.offset, len, marker: here.marker + 1, records: 1, fault })
    }

    /// Where the walk goes on behind a stretch, with the marker that the checksums tell.
    fn behind(&mut self, stretch: Stretch) -> io::Result<Place> {
        let offset = stretch.offset + stretch.len;
        let marker = stretch.marker.saturating_add(stretch.records - 1);
        if self.verifier.covers(offset) {
            let mut window = Window::default();
            let head = window.at(self.file, offset, self.format.header_len())?;
            if let Step::Record(_, total) = step(self.format, head, self.to.saturating_sub(offset)) {
                let crc = record_crc(self.file, offset, total, &mut window)?;
                if let Some(marker) = self.verifier.marker_of(self.file, self.format, offset, crc)? {
                    return Ok(Place { marker: marker - 1, offset });
                }
            }
        }
        Ok(Place { marker, offset })
    }

    /// A record that is followed by no record: whether its length is damaged, so that it seems to hold others.
    fn swallowed(&mut self, here: Place, total: u64) -> io::Result<Option<Stretch>> {
        let offset = here.offset;
        let inside = self.next(offset + 1, offset + total, None)?.filter(|&next| next < offset + total);
        Ok(inside.map(|next| Stretch {
            offset,
            len: next - offset,
            marker: here.marker + 1,
            records: 1,
            fault: Fault::NoRecord,
        }))
    }

    /// Whether a whole record is what was written.
    fn judge(&mut self, here: Place, header: RecordHeader, total: u64) -> io::Result<Item> {
        let (marker, offset) = (here.marker.saturating_add(1), here.offset);
        let mut found = Found { marker, offset, total, header, verified: false };
        if !self.check {
            return Ok(Item::Record(found));
        }
        let damage = |len, fault| Item::Damage(Stretch { offset, len, marker, records: 1, fault });
        if !self.verifier.is_empty() {
            let crc = record_crc(self.file, offset, total, &mut Window::default())?;
            let suspect = Suspect { marker, offset, total, time: header.time, crc };
            match self.verifier.check(self.file, self.format, suspect)? {
                Verdict::Good => found.verified = true,
                Verdict::Unverified => {}
                Verdict::Wrong => {
                    // Its length may be what is damaged: then others are inside of it.
                    let (file, format) = (self.file, self.format);
                    let verifier = &mut *self.verifier;
                    let mut window = Window::default();
                    let next = next_record(file, format, offset + 1, self.to, &mut window, |c, window| {
                        if c.offset >= offset + total {
                            return Ok(Some(true));
                        }
                        let crc = record_crc(file, c.offset, c.total, window)?;
                        Ok(Some(verifier.lists(file, format, crc)?))
                    })?;
                    let end = next.filter(|&next| next < offset + total).unwrap_or(offset + total);
                    return Ok(damage(end - offset, Fault::Checksum));
                }
            }
        }
        if self.format.is_lz4() {
            let mut stored = vec![0; header.stored as usize];
            let n = read_up_to_at(self.file, &mut stored, offset + self.format.header_len() as u64)?;
            if n < stored.len() || !self.format.load(&header, &stored, &mut Vec::new()) {
                let inside = self.next(offset + 1, offset + total, None)?;
                let end = inside.filter(|&next| next < offset + total).unwrap_or(offset + total);
                return Ok(damage(end - offset, Fault::Compression));
            }
        }
        Ok(Item::Record(found))
    }
}

/// How many whole records there are from `from` on, and where they end, without a look behind any damage.
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
