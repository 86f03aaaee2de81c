//! Which of the records behind damage are records of the runs, and which are others: rules 2 to 5.

use std::io;

use super::segment::{Ahead, Anchor, Survey, first_header};
use crate::Timestamp;
use crate::codec::format::{COMPRESSED_HEADER_LEN, RecordHeader};
use crate::files::scan::{Place, Step, Window, record_crc, step};

/// The verdict on a chain of records after a place that does not fit.
pub(super) enum Judged {
    /// No run covers its first record: an ordinary chain.
    Regular,
    /// The runs up to here describe other records.
    Foreign { until: u64 },
    /// Its first records are damaged; another chain may begin from here on.
    Damaged { next: u64 },
}

/// Judges chains of records between a place that does not fit and the next record in place.
pub(super) struct Chains<'s, 'a> {
    pub(super) survey: &'s mut Survey<'a>,
    pub(super) here: Place,
    pub(super) end: u64,
    pub(super) anchor: Option<Anchor>,
    /// What the runs of the segment list, made when first needed.
    pub(super) listed: Option<Vec<(u32, usize, u32)>>,
}

impl<'s, 'a> Chains<'s, 'a> {
    pub(super) fn new(survey: &'s mut Survey<'a>, here: Place, end: u64, anchor: Option<Anchor>) -> Self {
        Self { survey, here, end, anchor, listed: None }
    }
}

impl Chains<'_, '_> {
    /// The checksum that a record would have with this header.
    pub(super) fn crc_with_header(
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
    pub(super) fn judge(&mut self, start: u64, expected: bool) -> io::Result<Judged> {
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
    pub(super) fn was_uncovered(
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
    pub(super) fn begins(&self) -> io::Result<Timestamp> {
        let first = first_header(self.survey.file, self.survey.format)?;
        Ok(first.map_or(Timestamp { seconds: u32::MAX, micros: u32::MAX }, |header| header.time))
    }

    /// How far the next listed record from `from` on was moved, if that is known for any.
    pub(super) fn shift_ahead(&mut self, from: u64) -> io::Result<Option<u64>> {
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
    pub(super) fn next_listed(
        &mut self,
        crc: u32,
        before: Option<(usize, u32)>,
    ) -> io::Result<Option<(usize, u32)>> {
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
    pub(super) fn last_run(&self) -> Option<usize> {
        let before = self.anchor.map_or(u64::MAX, |anchor| anchor.offset);
        self.survey.verifier.last_run_within(self.here.offset, before)
    }

    /// Whether this checksum is listed for any record of the segment.
    pub(super) fn is_listed(&mut self, crc: u32) -> io::Result<bool> {
        let listed = self.listed()?;
        let at = listed.partition_point(|&(listed, ..)| listed < crc);
        Ok(listed.get(at).is_some_and(|&(listed, ..)| listed == crc))
    }

    pub(super) fn listed(&mut self) -> io::Result<&[(u32, usize, u32)]> {
        if self.listed.is_none() {
            self.listed = Some(self.survey.verifier.listed()?);
        }
        Ok(self.listed.as_deref().unwrap_or_default())
    }
}
