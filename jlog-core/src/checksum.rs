//! A segment's checksums: the sidecar `<segment>.crc`, which the C library does not know.
//!
//! It holds runs of whole records, written in one piece each, and nothing else:
//!
//! ```text
//!  0  u32  0x3172636a ("jcr1")
//!  4  u32  number of records, n
//!  8  u64  offset of the first record in the segment
//! 16  u64  bytes of the n records
//! 24  u64  offset of the last record
//! 32  u64  inode of the segment
//! 40  u32  marker of the first record
//! 44  u32  when the run was written, in seconds since 1970
//! 48  u32  CRC-32 of the n checksums
//! 52  u32  CRC-32 of bytes 0 to 52
//! 56  u32  CRC-32 of each record, header and stored body; n of them
//! ```
//!
//! The CRC-32 is the one of IEEE 802.3. A run that is damaged, cut short, or covers more than the segment
//! holds counts as not there: its records are unverified, never unreadable.
//!
//! A record is accused only when the sidecar can be shown to speak of the records that are there (see
//! `Verifier::check`): another process may have cut, moved or replaced them, and does not tell the sidecar.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::format::RecordFormat;
use crate::names;
use crate::scan::{Step, Window, next_record, record_crc, step, walk};
use crate::shared::Shared;
use crate::storage::{File, Open, read_exact_at, write_all_at};
use crate::{Error, Event, Result, Timestamp};

const RUN_MAGIC: u32 = u32::from_le_bytes(*b"jcr1");
const RUN_HEADER_LEN: usize = 56;
/// So many runs are looked at; records of further ones are unverified. A writer joins the runs of a segment
/// when it is full.
const MAX_RUNS: usize = 1 << 16;
/// By so much the clock of the file system may be behind.
const CLOCK_SECONDS: i64 = 2;
/// A sidecar with more runs than this is made anew with long ones when its segment is full.
const JOIN_FROM: usize = 16;
/// Runs of so many records are long enough as they are.
const LONG_RUN: u64 = 1024;
/// Runs are joined up to so many records: whoever looks for one of them reads all of them.
const JOINED_MAX: usize = 1 << 16;

/// Checksums of records that stand next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first record begins.
    pub offset: u64,
    /// How many bytes the records have.
    pub bytes: u64,
    /// Where the last record begins.
    pub last: u64,
    /// Inode of the segment.
    pub inode: u64,
    /// Marker of the first record.
    pub marker: u32,
    /// When the run was written, in seconds since 1970.
    pub written: u32,
    /// One CRC-32 per record.
    pub crcs: Vec<u32>,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + RUN_HEADER_LEN + 4 * self.crcs.len(), 0);
        let run = &mut out[start..];
        LE::write_u32(&mut run[0..4], RUN_MAGIC);
        LE::write_u32(&mut run[4..8], u32::try_from(self.crcs.len()).unwrap_or(u32::MAX));
        LE::write_u64(&mut run[8..16], self.offset);
        LE::write_u64(&mut run[16..24], self.bytes);
        LE::write_u64(&mut run[24..32], self.last);
        LE::write_u64(&mut run[32..40], self.inode);
        LE::write_u32(&mut run[40..44], self.marker);
        LE::write_u32_into(&self.crcs, &mut run[RUN_HEADER_LEN..]);
        let entries = crc32fast::hash(&run[RUN_HEADER_LEN..]);
        LE::write_u32(&mut run[44..48], self.written);
        LE::write_u32(&mut run[48..52], entries);
        let head = crc32fast::hash(&run[..52]);
        LE::write_u32(&mut run[52..56], head);
    }
}

/// A run without its checksums.
#[derive(Clone, Copy, Debug)]
struct Head {
    offset: u64,
    bytes: u64,
    last: u64,
    inode: u64,
    marker: u32,
    count: u32,
    written: u32,
    entries_crc: u32,
    /// Where its checksums are in the sidecar.
    at: u64,
}

impl Head {
    /// Reads a run's header at `at` of a sidecar of `len` bytes.
    fn decode(bytes: &[u8], at: u64, len: u64) -> Option<Self> {
        let bytes = bytes.get(..RUN_HEADER_LEN)?;
        if LE::read_u32(&bytes[0..4]) != RUN_MAGIC
            || LE::read_u32(&bytes[52..56]) != crc32fast::hash(&bytes[..52])
        {
            return None;
        }
        let head = Self {
            offset: LE::read_u64(&bytes[8..16]),
            bytes: LE::read_u64(&bytes[16..24]),
            last: LE::read_u64(&bytes[24..32]),
            inode: LE::read_u64(&bytes[32..40]),
            marker: LE::read_u32(&bytes[40..44]),
            count: LE::read_u32(&bytes[4..8]),
            written: LE::read_u32(&bytes[44..48]),
            entries_crc: LE::read_u32(&bytes[48..52]),
            at: at + RUN_HEADER_LEN as u64,
        };
        let markers = head.marker > 0 && head.marker.checked_add(head.count).is_some();
        (head.count > 0 && markers && head.file_end() <= len).then_some(head)
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    fn file_end(&self) -> u64 {
        self.at + 4 * u64::from(self.count)
    }

    fn covers(&self, offset: u64) -> bool {
        self.offset <= offset && offset < self.end()
    }

    fn with(&self, crcs: Vec<u32>) -> Run {
        Run {
            offset: self.offset,
            bytes: self.bytes,
            last: self.last,
            inode: self.inode,
            marker: self.marker,
            written: self.written,
            crcs,
        }
    }
}

/// Reads a run's checksums; `None` where they are damaged.
fn entries(file: &dyn File, head: &Head) -> Option<Vec<u32>> {
    let mut bytes = vec![0; 4 * head.count as usize];
    read_exact_at(file, &mut bytes, head.at).ok()?;
    if crc32fast::hash(&bytes) != head.entries_crc {
        return None;
    }
    let mut crcs = vec![0; head.count as usize];
    LE::read_u32_into(&bytes, &mut crcs);
    Some(crcs)
}

/// Finds runs' headers in a sidecar from `from` on, passing over what is none. Returns them and where the
/// last one ends.
fn heads(file: &dyn File, from: u64, len: u64) -> io::Result<(Vec<Head>, u64)> {
    let mut heads = Vec::new();
    let (mut window, mut entries) = (Window::default(), Window::default());
    let magic = RUN_MAGIC.to_le_bytes();
    let (mut at, mut done) = (from, from);
    while at + RUN_HEADER_LEN as u64 <= len && heads.len() < MAX_RUNS {
        let bytes = window.at(file, at, RUN_HEADER_LEN)?;
        let head = Head::decode(bytes, at, len);
        // One whose checksums are damaged is none.
        if let Some(head) = head
            && record_crc(file, head.at, 4 * u64::from(head.count), &mut entries)? == head.entries_crc
        {
            at = head.file_end();
            done = at;
            heads.push(head);
            continue;
        }
        // On to the next place that looks like a run.
        let skip = memchr::memmem::find(bytes.get(1..).unwrap_or_default(), &magic);
        at += match skip {
            Some(skip) => skip as u64 + 1,
            None => (bytes.len().saturating_sub(magic.len() - 1)).max(1) as u64,
        };
    }
    Ok((heads, done))
}

/// Reads the runs of a sidecar, passing over what is no good run, in the order of their offsets.
///
/// # Errors
/// Where the file cannot be read.
pub fn read_runs(file: &dyn File) -> io::Result<Vec<Run>> {
    let (heads, _) = heads(file, 0, file.len()?)?;
    let mut runs: Vec<Run> = heads.iter().filter_map(|head| Some(head.with(entries(file, head)?))).collect();
    runs.sort_by_key(|run| run.offset);
    Ok(runs)
}

/// Checksums that the writer has not written out yet, all of one segment.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    runs: Vec<Run>,
    records: usize,
    /// The latest time of a record so far, in seconds, within reason.
    latest: u32,
    /// They are due so long after some were last written out.
    every: Duration,
    last: Option<Instant>,
}

/// Times that are further ahead than this are no clock's.
const AHEAD_SECONDS: u32 = 86_400;

/// So many checksums are kept back before they are written out without being asked for.
const PENDING_MAX: usize = 4096;

impl Pending {
    /// None yet, and so long between two times of writing them out without need.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, ..Self::default() }
    }

    /// Whether it is time to write them out.
    pub(crate) fn is_due(&self) -> bool {
        self.records > 0 && self.last.is_none_or(|last| last.elapsed() >= self.every)
    }

    /// Notes the time of a record that is about to be written.
    pub(crate) fn saw(&mut self, time: Timestamp) {
        if time.seconds > self.latest
            && time.seconds <= Timestamp::now().seconds.saturating_add(AHEAD_SECONDS)
        {
            self.latest = time.seconds;
        }
    }

    /// Notes a record that is in the segment now.
    pub(crate) fn push(&mut self, marker: u32, offset: u64, total: u64, crc: u32) {
        self.records += 1;
        if let Some(run) = self.runs.last_mut()
            && run.end() == offset
            && u64::from(run.marker) + run.crcs.len() as u64 == u64::from(marker)
        {
            run.bytes += total;
            run.last = offset;
            run.crcs.push(crc);
            return;
        }
        self.runs.push(Run {
            offset,
            bytes: total,
            last: offset,
            inode: 0,
            marker,
            written: 0,
            crcs: vec![crc],
        });
    }

    pub(crate) fn is_some(&self) -> bool {
        self.records > 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records >= PENDING_MAX
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.records = 0;
    }

    /// Appends what is pending to a segment's sidecar. The caller holds the segment's lock.
    /// What cannot be written is forgotten: those records are unverified, nothing else.
    pub(crate) fn write_out(&mut self, shared: &Shared, segment: u32, data: &dyn File) {
        if self.records > 0 {
            let inode = data.facts().map_or(0, |facts| facts.identity.1);
            let mut bytes = Vec::with_capacity(self.runs.len() * RUN_HEADER_LEN + self.records * 4);
            for run in &mut self.runs {
                run.inode = inode;
                // Where the clock was set back, or the caller gives times, records may be younger than now.
                run.written = Timestamp::now().seconds.max(self.latest);
                run.encode(&mut bytes);
            }
            if append(shared, segment, &bytes).is_err() {
                shared.note(Event::ChecksumsNotWritten { segment, records: self.records });
            }
            self.last = Some(Instant::now());
        }
        self.clear();
    }
}

fn append(shared: &Shared, segment: u32, bytes: &[u8]) -> Result<()> {
    let name = names::checksums(segment);
    let file = shared.open(&name, Open::Create(shared.file_mode))?;
    let fail = |e| Error::io("write", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], len).map_err(|e| {
        // A piece of a run would only be passed over; without it the file is as it was.
        let _ = file.set_len(len);
        fail(e)
    })
}

/// Joins the runs of a segment that is full, if there are many short ones. Without room for that they stay as they are.
pub(crate) fn join(shared: &Shared, segment: u32) {
    let Ok(Some(file)) = shared.open_if_there(&names::checksums(segment), Open::Read) else { return };
    let Ok((mut heads, _)) = file.len().and_then(|len| heads(&*file, 0, len)) else { return };
    let records: u64 = heads.iter().map(|head| u64::from(head.count)).sum();
    if heads.len() < JOIN_FROM || records / heads.len() as u64 >= LONG_RUN {
        return;
    }
    heads.sort_by_key(|head| head.offset);
    // Without room, or where another sidecar stands there by now, nothing is joined.
    let _ = join_runs(shared, segment, &*file, &heads);
}

fn join_runs(shared: &Shared, segment: u32, file: &dyn File, heads: &[Head]) -> Result<()> {
    let temporary = shared.create_temporary()?;
    let (mut at, mut bytes) = (0, Vec::new());
    let mut joined: Option<Run> = None;
    let mut write = |run: Option<Run>| -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        bytes.clear();
        run.encode(&mut bytes);
        temporary.write(&bytes, at)?;
        at += bytes.len() as u64;
        Ok(())
    };
    for head in heads {
        let Some(crcs) = entries(file, head) else { continue };
        let run = head.with(crcs);
        match &mut joined {
            Some(last)
                if last.end() == run.offset
                    && last.inode == run.inode
                    && u64::from(last.marker) + last.crcs.len() as u64 == u64::from(run.marker)
                    && last.crcs.len() + run.crcs.len() <= JOINED_MAX =>
            {
                last.bytes += run.bytes;
                last.last = run.last;
                last.written = last.written.max(run.written);
                last.crcs.extend(run.crcs);
            }
            _ => write(joined.replace(run))?,
        }
    }
    write(joined)?;
    // Not synced: a sidecar that a power failure damages is passed over.
    temporary.rename(&names::checksums(segment))
}

/// Replaces a segment's sidecar by these runs.
pub(crate) fn replace(shared: &Shared, segment: u32, runs: &[Run]) -> Result<()> {
    let name = names::checksums(segment);
    if runs.is_empty() {
        return shared.remove_if_there(&name).map(|_| ());
    }
    let mut bytes = Vec::new();
    for run in runs {
        run.encode(&mut bytes);
    }
    // Not synced: a sidecar that a power failure damages is passed over.
    let temporary = shared.create_temporary()?;
    temporary.write(&bytes, 0)?;
    temporary.rename(&name)
}

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

/// Computes the checksums of all records of a segment up to `to`, as one run.
pub(crate) fn compute(file: &Arc<dyn File>, format: RecordFormat, to: u64) -> io::Result<Option<Run>> {
    let mut window = Window::default();
    let mut places = Vec::new();
    let walked = walk(&**file, format, 0, to, &mut window, |offset, _, total| places.push((offset, total)))?;
    let mut crcs = Vec::with_capacity(places.len());
    for &(offset, total) in &places {
        crcs.push(record_crc(&**file, offset, total, &mut window)?);
    }
    let Some(&(last, _)) = places.last() else { return Ok(None) };
    let inode = file.facts()?.identity.1;
    let written = Timestamp::now().seconds;
    Ok(Some(Run { offset: 0, bytes: walked.offset, last, inode, marker: 1, written, crcs }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::storage::{Posix, Storage};

    fn run(offset: u64, marker: u32, crcs: &[u32]) -> Run {
        let bytes = 20 * crcs.len() as u64;
        Run { offset, bytes, last: offset + bytes - 20, inode: 7, marker, written: 9, crcs: crcs.to_vec() }
    }

    fn parse(bytes: &[u8]) -> Vec<Run> {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(bytes).unwrap();
        read_runs(&*Posix.open(temp.path(), Open::Read).unwrap()).unwrap()
    }

    #[test]
    fn runs_survive_the_trip_and_damage_costs_one_run_only() {
        let runs = [run(0, 1, &[1, 2, 3]), run(60, 4, &[4]), run(80, 5, &[5, RUN_MAGIC])];
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for run in &runs {
            run.encode(&mut bytes);
            ends.push(bytes.len());
        }
        assert_eq!(parse(&bytes), runs);
        for at in ends[0]..ends[1] {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(parse(&damaged), [runs[0].clone(), runs[2].clone()], "byte {at}");
            }
        }
        for cut in ends[1]..ends[2] {
            assert_eq!(parse(&bytes[..cut]), runs[..2], "cut at {cut}");
        }
    }

    #[test]
    fn pending_joins_neighbours() {
        let mut pending = Pending::default();
        pending.push(1, 0, 20, 10);
        pending.push(2, 20, 20, 11);
        pending.push(4, 60, 20, 12);
        let crcs: Vec<_> = pending.runs.iter().map(|run| (run.marker, run.last, run.crcs.clone())).collect();
        assert_eq!(crcs, [(1, 20, vec![10, 11]), (4, 60, vec![12])]);
    }
}
