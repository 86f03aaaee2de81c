//! Records beside what the sidecar says of them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::{Head, MAX_RUNS, Run, entries, heads};
use crate::format::RecordFormat;
use crate::scan::{Step, Window, next_record, record_crc, step};
use crate::shared::Shared;
use crate::storage::{File, Open, read_exact_at};
use crate::{Timestamp, names};

/// By so much the clock of the file system may be behind.
const CLOCK_SECONDS: i64 = 2;

/// What a record's checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The record is what was written.
    Good,
    /// Nothing is known about it.
    Unverified,
    /// It is not what was written.
    Wrong,
}

/// A record to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) time: Timestamp,
    pub(crate) crc: u32,
}

/// Checks a segment's records against its sidecar. Holds the checksums of one run at a time.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    sidecar: Option<Arc<dyn File>>,
    heads: Vec<Head>,
    /// How far the sidecar was read, and its length then: it grows while its segment is written.
    read: u64,
    len: u64,
    /// The run that the last record was in.
    cursor: Option<(usize, Vec<u32>)>,
    diagnosis: Option<Diagnosis>,
}

/// What a look at the whole segment says about the sidecar.
#[derive(Debug, Default)]
struct Diagnosis {
    /// Length of the segment and of the sidecar that were looked at.
    of: (u64, u64),
    /// The checksums that the sidecar lists, in order: each with the number of its run, and its place in it.
    listed: Vec<(u32, usize, u32)>,
    /// For each run: its first and its last record that are what was written, at their place.
    verified: Vec<Option<(u64, u64)>>,
    /// For each run: whether as many records as it lists stand between its two ends.
    framed: Vec<bool>,
    /// Checksums of records that stand where the sidecar does not list them.
    elsewhere: HashMap<u32, u64>,
    inode: u64,
}

impl Diagnosis {
    /// Compares a record with the run that covers it; says whether its checksum is listed.
    fn compare(
        &mut self,
        head: &Head,
        run: usize,
        place: Option<u32>,
        (offset, total): (u64, u64),
        crc: u32,
    ) -> bool {
        let here = place.is_some_and(|place| self.listed.binary_search(&(crc, run, place)).is_ok());
        let in_run = here || place_in_run(&self.listed, crc, run).is_some();
        let listed = in_run || is_listed(&self.listed, crc);
        if in_run {
            let (first, _) = self.verified[run].unwrap_or((offset, offset));
            self.verified[run] = Some((first.min(offset), offset));
        }
        // Behind damage, its place is not known.
        let lost_count = place.is_none() && in_run;
        if listed && !here && !lost_count {
            self.elsewhere.insert(crc, offset);
        }
        let ends_run = offset + total == head.end();
        self.framed[run] |= ends_run && place.is_some_and(|place| place + 1 == head.count);
        listed
    }
}

/// Whether a checksum is listed for some record.
fn is_listed(listed: &[(u32, usize, u32)], crc: u32) -> bool {
    listed.get(listed.partition_point(|&(c, ..)| c < crc)).is_some_and(|&(c, ..)| c == crc)
}

/// The first place in a run for which a checksum is listed.
fn place_in_run(listed: &[(u32, usize, u32)], crc: u32, run: usize) -> Option<u32> {
    let at = listed.partition_point(|&entry| entry < (crc, run, 0));
    listed.get(at).filter(|&&(c, r, _)| (c, r) == (crc, run)).map(|&(.., place)| place)
}

/// Whether one changed bit of the record's seconds is all that is wrong with it.
fn time_is_damaged(
    file: &dyn File,
    format: RecordFormat,
    record: Suspect,
    expected: Option<u32>,
) -> io::Result<bool> {
    let Some(expected) = expected else { return Ok(false) };
    // Too long to try all bits, and far more likely to be damaged in its body.
    let Ok(len) = usize::try_from(record.total.min(1 << 20)) else { return Ok(false) };
    if (len as u64) < record.total || len < format.header_len() {
        return Ok(false);
    }
    let mut bytes = vec![0; len];
    read_exact_at(file, &mut bytes, record.offset)?;
    for bit in 0..32 {
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        if crc32fast::hash(&bytes) == expected {
            return Ok(true);
        }
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
    }
    Ok(false)
}

/// The next record between two places whose checksum is listed.
fn next_listed(
    file: &dyn File,
    format: RecordFormat,
    from: u64,
    to: u64,
    listed: &[(u32, usize, u32)],
) -> io::Result<Option<u64>> {
    // A record that begins before `to` may end behind it.
    let len = file.len()?;
    let next = next_record(file, format, from, len, &mut Window::default(), |candidate, window| {
        if candidate.offset >= to {
            return Ok(Some(true));
        }
        Ok(Some(is_listed(listed, record_crc(file, candidate.offset, candidate.total, window)?)))
    })?;
    Ok(next.filter(|&next| next < to))
}

impl Verifier {
    pub(crate) fn load(shared: &Shared, segment: u32) -> Self {
        let mut verifier = Self::default();
        verifier.refresh(shared, segment);
        verifier
    }

    /// Reads what has been added to the sidecar.
    pub(crate) fn refresh(&mut self, shared: &Shared, segment: u32) {
        let name = names::checksums(segment);
        let Ok(facts) = shared.facts(&name) else { return };
        let same = self
            .sidecar
            .as_ref()
            .is_some_and(|file| file.facts().is_ok_and(|ours| ours.identity == facts.identity));
        if same && facts.len == self.len {
            return;
        }
        if !same || facts.len < self.len {
            *self = Self { sidecar: shared.open(&name, Open::Read).ok(), ..Self::default() };
        }
        let Some(file) = &self.sidecar else { return };
        let Ok((mut heads, done)) = heads(&**file, self.read, facts.len) else { return };
        self.heads.append(&mut heads);
        self.heads.truncate(MAX_RUNS);
        // Where a tail was cut and written anew, the later run is the one that holds.
        self.heads.sort_by_key(|head| head.offset);
        self.read = done;
        self.len = facts.len;
        self.cursor = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The last run that covers an offset.
    fn run_at(&self, offset: u64) -> Option<usize> {
        let behind = self.heads.partition_point(|head| head.offset <= offset);
        // Runs overlap only where a tail was written anew, and then by few.
        (behind.saturating_sub(8)..behind).rev().find(|&at| self.heads[at].covers(offset))
    }

    /// Whether a run covers this offset.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        self.run_at(offset).is_some()
    }

    /// Whether a run begins in this range: then one record does not fill it.
    pub(crate) fn begins_within(&self, from: u64, to: u64) -> bool {
        let at = self.heads.partition_point(|head| head.offset < from);
        self.heads.get(at).is_some_and(|head| head.offset < to)
    }

    /// Whether some run ends beyond `len`, the segment's length.
    pub(crate) fn reaches_beyond(&self, len: u64) -> bool {
        self.heads.iter().any(|head| head.end() > len)
    }

    fn expected(&mut self, marker: u32, offset: u64) -> Option<u32> {
        let inside = self.cursor.as_ref().is_some_and(|(at, _)| self.heads[*at].covers(offset));
        let at = match (&self.cursor, inside) {
            (Some((at, _)), true) => *at,
            _ => self.run_at(offset)?,
        };
        if self.cursor.as_ref().is_none_or(|(loaded, _)| *loaded != at) {
            let crcs = entries(&**self.sidecar.as_ref()?, &self.heads[at])?;
            self.cursor = Some((at, crcs));
        }
        let (_, crcs) = self.cursor.as_ref()?;
        let head = &self.heads[at];
        crcs.get(marker.checked_sub(head.marker)? as usize).copied()
    }

    /// Whether a record is what was written.
    ///
    /// It is, when its checksum is listed for its place, or anywhere: records may have been moved. It is
    /// accused when another checksum is listed for its place, and the sidecar speaks of this segment as it is:
    /// - the checksum that is listed does not belong to a record that stands elsewhere,
    /// - the record was not written after the sidecar, and
    /// - the run that covers it has as many records between its ends as it lists, and some record of the
    ///   sidecar is what was written (or the sidecar names this very file); or a record before it in its run, or
    ///   it begins the run, and one behind it, or it ends the run, is what was written.
    pub(crate) fn check(
        &mut self,
        file: &dyn File,
        format: RecordFormat,
        record: Suspect,
    ) -> io::Result<Verdict> {
        if self.heads.is_empty() {
            return Ok(Verdict::Unverified);
        }
        let expected = self.expected(record.marker, record.offset);
        if expected == Some(record.crc) {
            return Ok(Verdict::Good);
        }
        let Some(at) = self.run_at(record.offset) else { return Ok(Verdict::Unverified) };
        self.diagnose(file, format)?;
        let Some(diagnosis) = &self.diagnosis else { return Ok(Verdict::Unverified) };
        if is_listed(&diagnosis.listed, record.crc) {
            return Ok(Verdict::Good);
        }
        let moved = expected.is_some_and(|expected| diagnosis.elsewhere.contains_key(&expected));
        // Where nothing behind it in its run is what was written, somebody who does not know of the sidecar may
        // have cut the records and appended others.
        let last = diagnosis.verified[at].is_none_or(|(_, last)| last < record.offset);
        let time = i64::from(record.time.seconds);
        let replaced = last
            && time > i64::from(self.heads[at].written) + CLOCK_SECONDS
            && time <= i64::from(Timestamp::now().seconds)
            && !time_is_damaged(file, format, record, expected)?;
        if moved || replaced {
            return Ok(Verdict::Unverified);
        }
        let head = &self.heads[at];
        // Runs of another file that stood here vouch for nothing.
        let mut runs = self.heads.iter().zip(&diagnosis.verified);
        let any_verified = runs.any(|(other, verified)| other.inode == head.inode && verified.is_some());
        let framed = diagnosis.framed[at]
            && record.offset + record.total <= head.end()
            && (any_verified || diagnosis.inode == head.inode);
        let (before, behind) = diagnosis.verified[at]
            .map_or((false, false), |(first, last)| (first < record.offset, record.offset < last));
        let in_its_place = (before || record.offset == head.offset)
            && (behind || record.offset == head.last)
            && (before || behind || diagnosis.inode == head.inode);
        Ok(if framed || in_its_place { Verdict::Wrong } else { Verdict::Unverified })
    }

    /// Whether this checksum is listed for some record.
    pub(crate) fn lists(&mut self, file: &dyn File, format: RecordFormat, crc: u32) -> io::Result<bool> {
        self.diagnose(file, format)?;
        Ok(self.diagnosis.as_ref().is_some_and(|diagnosis| is_listed(&diagnosis.listed, crc)))
    }

    /// The marker that the sidecar has for the record at `offset` with this checksum.
    pub(crate) fn marker_of(
        &mut self,
        file: &dyn File,
        format: RecordFormat,
        offset: u64,
        crc: u32,
    ) -> io::Result<Option<u32>> {
        let Some(at) = self.run_at(offset) else { return Ok(None) };
        self.diagnose(file, format)?;
        let place = self.diagnosis.as_ref().and_then(|diagnosis| place_in_run(&diagnosis.listed, crc, at));
        Ok(place.and_then(|place| self.heads[at].marker.checked_add(place)))
    }

    fn diagnose(&mut self, file: &dyn File, format: RecordFormat) -> io::Result<()> {
        let Some(sidecar) = &self.sidecar else { return Ok(()) };
        let facts = file.facts()?;
        let of = (facts.len, self.len);
        if self.diagnosis.as_ref().is_some_and(|diagnosis| diagnosis.of == of) {
            return Ok(());
        }
        let mut out = Diagnosis {
            of,
            inode: facts.identity.1,
            verified: vec![None; self.heads.len()],
            framed: vec![false; self.heads.len()],
            ..Diagnosis::default()
        };
        for (run, head) in self.heads.iter().enumerate() {
            for (place, crc) in entries(&**sidecar, head).unwrap_or_default().into_iter().enumerate() {
                out.listed.push((crc, run, u32::try_from(place).unwrap_or(u32::MAX)));
            }
        }
        out.listed.sort_unstable();
        // Along the records, and on behind damage at what is listed or where a run begins.
        let mut window = Window::default();
        let mut starts: Vec<u64> = self.heads.iter().map(|head| head.offset).collect();
        starts.sort_unstable();
        let mut at = 0;
        // The run that the chain is in, and its place there.
        let mut chain: Option<(usize, u32)> = None;
        while at < facts.len {
            let head = window.at(file, at, format.header_len())?;
            let Step::Record(_, total) = step(format, head, facts.len - at) else {
                let listed = next_listed(file, format, at + 1, facts.len, &out.listed)?;
                let start = starts.get(starts.partition_point(|&start| start <= at)).copied();
                let Some(next) = listed.into_iter().chain(start).min() else { break };
                at = next;
                chain = None;
                continue;
            };
            let crc = record_crc(file, at, total, &mut window)?;
            let run = self.run_at(at);
            chain = match (run, chain) {
                (Some(run), _) if self.heads[run].offset == at => Some((run, 0)),
                (Some(run), Some((same, place))) if same == run => place.checked_add(1).map(|p| (run, p)),
                _ => None,
            };
            if let Some(run) = run {
                let inside =
                    out.compare(&self.heads[run], run, chain.map(|(_, place)| place), (at, total), crc);
                if !inside {
                    // Its length may be what is damaged: then others that are listed are inside of it.
                    let next = next_listed(file, format, at + 1, (at + total).min(facts.len), &out.listed)?;
                    if let Some(next) = next {
                        at = next;
                        chain = None;
                        continue;
                    }
                }
            }
            at += total;
        }
        self.diagnosis = Some(out);
        Ok(())
    }

    /// How many records are before some place, and where that is: the beginning of the last run that begins at or
    /// before the record after `marker`. The runs before it leave no gap, and its first record is there, just as
    /// the sidecar says.
    pub(crate) fn anchor(&self, file: &dyn File, format: RecordFormat, marker: u32) -> Option<(u32, u64)> {
        let (mut records, mut end, mut found) = (0u32, 0u64, None);
        for head in &self.heads {
            if head.offset == end && head.marker == records.checked_add(1)? {
                if records > marker {
                    break;
                }
                found = Some(head);
                records = records.checked_add(head.count)?;
                end = head.end();
            }
        }
        let head = found?;
        let len = file.len().ok()?;
        let mut window = Window::default();
        let bytes = window.at(file, head.offset, format.header_len()).ok()?;
        let Step::Record(_, total) = step(format, bytes, len.checked_sub(head.offset)?) else { return None };
        let crc = *entries(&**self.sidecar.as_ref()?, head)?.first()?;
        let there = record_crc(file, head.offset, total, &mut window).ok()?;
        (there == crc).then_some((head.marker - 1, head.offset))
    }

    /// The records and bytes that the runs cover without a gap from the segment's beginning, if the last of
    /// these records is there, just as the sidecar says. (Records that others have cut or moved before it would
    /// have moved it.)
    pub(crate) fn covered_prefix(&self, file: &dyn File, format: RecordFormat) -> Option<(u32, u64)> {
        let (mut records, mut end, mut last) = (0u32, 0u64, None);
        for head in &self.heads {
            if head.offset == end && head.marker == records.checked_add(1)? {
                records = records.checked_add(head.count)?;
                end = head.end();
                last = Some(head);
            }
        }
        let head = last?;
        let crc = *entries(&**self.sidecar.as_ref()?, head)?.last()?;
        let mut bytes = [0; crate::format::COMPRESSED_HEADER_LEN];
        let bytes = &mut bytes[..format.header_len()];
        read_exact_at(file, bytes, head.last).ok()?;
        let header = format.decode(bytes)?;
        let total = format.header_len() as u64 + u64::from(header.stored);
        if head.last.checked_add(total)? != end || file.len().ok()? < end {
            return None;
        }
        (record_crc(file, head.last, total, &mut Window::default()).ok()? == crc).then_some((records, end))
    }

    /// How many records have a checksum within the first `len` bytes.
    pub(crate) fn checksummed_within(&self, len: u64) -> u64 {
        self.heads.iter().filter(|head| head.end() <= len).map(|head| u64::from(head.count)).sum()
    }

    /// The runs that end within the first `len` bytes.
    pub(crate) fn runs_within(&self, len: u64) -> Vec<Run> {
        let Some(sidecar) = &self.sidecar else { return Vec::new() };
        self.heads
            .iter()
            .filter(|head| head.end() <= len)
            .filter_map(|head| Some(head.with(entries(&**sidecar, head)?)))
            .collect()
    }
}
