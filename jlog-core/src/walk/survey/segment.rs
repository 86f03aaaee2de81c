//! The segment that is surveyed, and the segments after it.

use std::io;
use std::sync::Arc;

use super::copies::Copies;
use crate::codec::format::{COMPRESSED_HEADER_LEN, RecordFormat, RecordHeader};
use crate::codec::names;
use crate::files::checksum::{Verifier, header_hash};
use crate::files::scan::{Candidate, Step, Window, next_record, record_crc, step};
use crate::files::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::{Error, Timestamp};

/// How many of the next segments are examined for the time with which they begin.
const LOOK_AHEAD: u32 = 4;
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
    pub(super) times: Option<Option<(Timestamp, Timestamp)>>,
    /// Identifies copies of their records; the inner `None` means that there are too many.
    pub(super) copies: Option<Option<Copies>>,
}

/// How far the first listed record after some place was moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ahead {
    /// Where the search began and ended.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) shift: Option<u64>,
}

/// A record at the place that a run gives, after one that does not fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub(super) offset: u64,
    pub(super) run: usize,
    pub(super) marker: u32,
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
    /// The next existing segments. Several are examined, because one of them may be damaged as
    /// well.
    pub(super) fn next_segments(&self) -> io::Result<Vec<(u32, Arc<dyn File>)>> {
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
    pub(super) fn next_times(&mut self) -> io::Result<Option<(Timestamp, Timestamp)>> {
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
    pub(super) fn next_copies(&self, from: Timestamp, to: Timestamp) -> io::Result<Option<Copies>> {
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
    pub(super) fn fits_before_next(
        &mut self,
        place: (u64, u64),
        header: &RecordHeader,
        crc: u32,
    ) -> io::Result<bool> {
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

    pub(super) fn total(&self, header: &RecordHeader) -> u64 {
        self.format.header_len() as u64 + u64::from(header.stored)
    }

    /// The next place between `from` and `to` where something that looks like a record begins and
    /// does not reach beyond `end`; one that no run covers must also be plausible.
    pub(super) fn next_candidate(
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
    pub(super) fn next_plausible(
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
pub(super) fn first_header(file: &dyn File, format: RecordFormat) -> io::Result<Option<RecordHeader>> {
    let mut head = [0; COMPRESSED_HEADER_LEN];
    let n = read_up_to_at(file, &mut head, 0)?;
    Ok(format.decode(&head[..n]))
}
