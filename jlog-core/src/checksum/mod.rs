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

mod pending;
mod verify;

use std::io;
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::format::RecordFormat;
use crate::lost::Records;
use crate::meta::MetaReader;
use crate::scan::{Window, record_crc, walk};
use crate::shared::Shared;
use crate::storage::{File, Open, read_exact_at};
use crate::{Timestamp, names};

pub(crate) use pending::{Pending, join, replace};
pub(crate) use verify::{Suspect, Verdict, Verifier};

const RUN_MAGIC: u32 = u32::from_le_bytes(*b"jcr1");
const RUN_HEADER_LEN: usize = 56;
/// So many runs are looked at; records of further ones are unverified. A writer joins the runs of a segment
/// when it is full.
const MAX_RUNS: usize = 1 << 16;

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

/// The bytes of a sidecar with these runs.
pub(crate) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut out = Vec::new();
    runs.iter().for_each(|run| run.encode(&mut out));
    out
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

/// How many records the checksums of a segment that is gone are of.
pub(crate) fn left_over(shared: &Shared, segment: u32) -> Option<Records> {
    let file = shared.open(&names::checksums(segment), Open::Read).ok()?;
    let (mut heads, _) = heads(&*file, 0, file.len().ok()?).ok()?;
    heads.sort_by_key(|head| head.offset);
    let at_least = heads.iter().map(|head| head.marker - 1 + head.count).max()?;
    let mut end = Some(0);
    let mut marker = 1;
    for head in &heads {
        let follows = end == Some(head.offset) && head.marker == marker;
        (end, marker) = (follows.then(|| head.end()), head.marker.saturating_add(head.count));
    }
    // Nobody adds to a segment that is full.
    let size = MetaReader::open(shared).ok()?.get().ok()?.segment_size;
    let full = shared.settings.limits.segment_size(size.into());
    Some(Records { at_least, exact: end.is_some_and(|end| end >= full) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::storage::{Open, Posix, Storage};

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
}
