//! A segment's checksums: the sidecar `<segment>.crc`, which the C library ignores.
//!
//! It holds runs of whole records, each written in one piece, and nothing else:
//!
//! ```text
//!  0  u32  0x3272636a ("jcr2")
//!  4  u32  number of records, n
//!  8  u64  offset of the first record in the segment
//! 16  u64  bytes of the n records
//! 24  u64  offset of the last record
//! 32  u64  inode of the segment
//! 40  u32  marker of the first record
//! 44  u32  when the run was written, in seconds since 1970
//! 48  u32  CRC-32 of the 2 n + 1 numbers from byte 56 on
//! 52  u32  CRC-32 of bytes 0 to 52
//! 56  u32  CRC-32 of each record, header and stored body; n of them
//!     u32  place tag of each record; n of them
//!     u32  microseconds of the time when the run was written
//! ```
//!
//! The CRC-32 is the one of IEEE 802.3. A place tag (FORMAT.md has the formula) binds a record's
//! header to its offset: it distinguishes a damaged record from one that another program wrote
//! there. Runs of the first layout ("jcr1") have neither tags nor microseconds; they are read, and
//! no longer written.
//!
//! A run that is damaged, cut short, or covers more than the segment holds counts as absent: its
//! records are unverified, never unreadable. A sidecar that exists and cannot be read is an error.
//!
//! Other programs cut, move and replace records without updating the sidecar. `survey` decides
//! which runs describe the existing records.

use std::io;
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::Timestamp;
use crate::codec::format::{RecordFormat, RecordHeader};
use crate::files::scan::{Window, record_crc, walk};
use crate::storage::File;

const RUN_MAGIC: u32 = u32::from_le_bytes(*b"jcr2");
/// The magic of runs without place tags.
const UNTAGGED_MAGIC: u32 = u32::from_le_bytes(*b"jcr1");
pub(crate) const RUN_HEADER_LEN: usize = 56;
/// The maximum number of runs that are read; records of further runs are unverified. A writer
/// merges the runs of a segment when it is full.
pub(super) const MAX_RUNS: usize = 1 << 16;
/// Bytes of a sidecar that are read at once, so that most sidecars take only one read.
pub(super) const SIDECAR_AHEAD: usize = 2 << 20;

/// Checksums of adjacent records.
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
    /// When the run was written.
    pub written: Timestamp,
    /// One CRC-32 per record.
    pub crcs: Vec<u32>,
    /// One place tag per record; none in a run of the first layout.
    pub tags: Vec<u32>,
}

/// What a writer remembers of a record for its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Length of the record, header included.
    pub(crate) len: u32,
    /// CRC-32 of the record; 0 where no checksums are kept.
    pub(crate) crc: u32,
    /// [`header_hash`] of its header.
    pub(crate) head: u32,
}

/// A hash of a header's time and lengths, the part of a place tag that does not depend on the
/// place.
///
/// With `a = seconds + 2^32 microseconds` and `b = length + 2^32 stored length` (the length again,
/// where the header has no stored length), all mod 2^64: `h = a * 0x9E3779B97F4A7C15`,
/// `h = ((h xor (h >> 32)) + b) * 0xC2B2AE3D27D4EB4F`; the hash is the upper half of `h`.
#[inline]
pub(crate) fn header_hash(header: &RecordHeader) -> u32 {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let h = pair(header.time.seconds, header.time.micros).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let h = (h ^ h >> 32).wrapping_add(pair(header.len, header.stored)).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    (h >> 32) as u32
}

/// [`header_hash`] of a header as it is encoded.
#[inline]
pub(crate) fn encoded_hash(head: &[u8]) -> u32 {
    let number = |at: usize| head.get(at..at + 4).map(LE::read_u32);
    let time = Timestamp { seconds: number(4).unwrap_or(0), micros: number(8).unwrap_or(0) };
    let len = number(12).unwrap_or(0);
    header_hash(&RecordHeader { time, len, stored: number(16).unwrap_or(len) })
}

/// Binds a record's header to the offset where the record begins: the same header elsewhere, or
/// another header here, has another tag except in about one case in 2^32.
///
/// With `h = hash * 0x9E3779B97F4A7C15 + offset`, all mod 2^64, it is the upper half of
/// `(h xor (h >> 29)) * 0x165667B19E3779F9`.
#[inline]
pub(crate) fn place_tag(offset: u64, header_hash: u32) -> u32 {
    let h = u64::from(header_hash).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(offset);
    ((h ^ h >> 29).wrapping_mul(0x1656_67B1_9E37_79F9) >> 32) as u32
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let tagged = self.tags.len() == self.crcs.len();
        let numbers = self.crcs.len() * if tagged { 2 } else { 1 } + usize::from(tagged);
        out.resize(start + RUN_HEADER_LEN + 4 * numbers, 0);
        let (head, entries) = out[start..].split_at_mut(RUN_HEADER_LEN);
        let (crcs, rest) = entries.split_at_mut(4 * self.crcs.len());
        LE::write_u32_into(&self.crcs, crcs);
        if tagged {
            let (tags, micros) = rest.split_at_mut(4 * self.tags.len());
            LE::write_u32_into(&self.tags, tags);
            LE::write_u32(micros, self.written.micros);
        }
        LE::write_u32(&mut head[0..4], if tagged { RUN_MAGIC } else { UNTAGGED_MAGIC });
        LE::write_u32(&mut head[4..8], u32::try_from(self.crcs.len()).unwrap_or(u32::MAX));
        LE::write_u64(&mut head[8..16], self.offset);
        LE::write_u64(&mut head[16..24], self.bytes);
        LE::write_u64(&mut head[24..32], self.last);
        LE::write_u64(&mut head[32..40], self.inode);
        LE::write_u32(&mut head[40..44], self.marker);
        LE::write_u32(&mut head[44..48], self.written.seconds);
        LE::write_u32(&mut head[48..52], crc32fast::hash(entries));
        let sum = crc32fast::hash(&head[..52]);
        LE::write_u32(&mut head[52..56], sum);
    }
}

/// A run without its checksums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) last: u64,
    pub(crate) inode: u64,
    pub(crate) marker: u32,
    pub(crate) count: u32,
    pub(super) seconds: u32,
    pub(super) entries_crc: u32,
    pub(super) tagged: bool,
    /// Where its checksums are in the sidecar.
    pub(super) at: u64,
}

impl Head {
    /// Reads a run's header at `at` of a sidecar of `len` bytes.
    pub(crate) fn decode(bytes: &[u8], at: u64, len: u64) -> Option<Self> {
        let bytes = bytes.get(..RUN_HEADER_LEN)?;
        let magic = LE::read_u32(&bytes[0..4]);
        if !matches!(magic, RUN_MAGIC | UNTAGGED_MAGIC)
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
            seconds: LE::read_u32(&bytes[44..48]),
            entries_crc: LE::read_u32(&bytes[48..52]),
            tagged: magic == RUN_MAGIC,
            at: at + RUN_HEADER_LEN as u64,
        };
        let markers = head.marker > 0 && head.marker.checked_add(head.count).is_some();
        (head.count > 0 && markers && head.file_end() <= len).then_some(head)
    }

    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    /// Marker of its last record.
    pub(super) fn last_marker(&self) -> u32 {
        self.marker + (self.count - 1)
    }

    pub(super) fn entries_len(&self) -> u64 {
        4 * (u64::from(self.count) * if self.tagged { 2 } else { 1 } + u64::from(self.tagged))
    }

    pub(crate) fn file_end(&self) -> u64 {
        self.at + self.entries_len()
    }

    pub(super) fn covers(&self, offset: u64) -> bool {
        self.offset <= offset && offset < self.end()
    }

    /// These bytes as its checksums.
    pub(super) fn entries<'a>(&self, bytes: &'a [u8]) -> Entries<'a> {
        Entries { numbers: bytes.as_chunks().0, count: self.count as usize, tagged: self.tagged }
    }

    pub(super) fn with(&self, entries: Entries<'_>) -> Run {
        Run {
            offset: self.offset,
            bytes: self.bytes,
            last: self.last,
            inode: self.inode,
            marker: self.marker,
            written: Timestamp { seconds: self.seconds, micros: entries.micros() },
            crcs: decoded(entries.crcs()),
            tags: decoded(entries.tags()),
        }
    }
}

/// A run's entries for its records, as stored in the sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries<'a> {
    numbers: &'a [[u8; 4]],
    count: usize,
    tagged: bool,
}

impl<'a> Entries<'a> {
    /// One CRC-32 per record.
    pub(super) fn crcs(self) -> &'a [[u8; 4]] {
        self.numbers.get(..self.count).unwrap_or_default()
    }

    /// One place tag per record; none in a run of the first layout.
    pub(super) fn tags(self) -> &'a [[u8; 4]] {
        let tags = self.count..if self.tagged { 2 * self.count } else { self.count };
        self.numbers.get(tags).unwrap_or_default()
    }

    /// Microseconds of the time when the run was written.
    pub(super) fn micros(self) -> u32 {
        self.numbers.get(2 * self.count).map_or(0, |&micros| u32::from_le_bytes(micros))
    }
}

/// These numbers of a run.
fn decoded(numbers: &[[u8; 4]]) -> Vec<u32> {
    numbers.iter().map(|&number| u32::from_le_bytes(number)).collect()
}

/// The bytes of a run's checksums; `None` where the file ends before them.
pub(super) fn entries_bytes<'a>(
    file: &dyn File,
    head: &Head,
    window: &'a mut Window,
) -> io::Result<Option<&'a [u8]>> {
    let len = usize::try_from(head.entries_len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(window.at(file, head.at, len)?.get(..len))
}

/// A run's checksums, read through the window; `None` if they are damaged.
pub(super) fn entries<'a>(
    file: &dyn File,
    head: &Head,
    window: &'a mut Window,
) -> io::Result<Option<Entries<'a>>> {
    let bytes = entries_bytes(file, head, window)?;
    let good = bytes.filter(|bytes| crc32fast::hash(bytes) == head.entries_crc);
    Ok(good.map(|bytes| head.entries(bytes)))
}

/// Finds the headers of runs in a sidecar from `from` on, skipping other bytes. Returns them and
/// the end of the last one.
pub(super) fn heads(
    file: &dyn File,
    from: u64,
    len: u64,
    window: &mut Window,
) -> io::Result<(Vec<Head>, u64)> {
    let mut heads = Vec::new();
    // Both magics begin with these bytes.
    let magic = &RUN_MAGIC.to_le_bytes()[..3];
    let (mut at, mut done) = (from, from);
    while at + RUN_HEADER_LEN as u64 <= len && heads.len() < MAX_RUNS {
        let head = Head::decode(window.at(file, at, RUN_HEADER_LEN)?, at, len);
        // A run with damaged checksums is ignored.
        if let Some(head) = head
            && is_intact(file, &head, window)?
        {
            at = head.file_end();
            done = at;
            heads.push(head);
            continue;
        }
        // Continue at the next place that looks like a run.
        let bytes = window.at(file, at, RUN_HEADER_LEN)?;
        let skip = memchr::memmem::find(bytes.get(1..).unwrap_or_default(), magic);
        at += match skip {
            Some(skip) => skip as u64 + 1,
            None => (bytes.len().saturating_sub(magic.len() - 1)).max(1) as u64,
        };
    }
    Ok((heads, done))
}

/// Whether a run's checksums are intact.
fn is_intact(file: &dyn File, head: &Head, window: &mut Window) -> io::Result<bool> {
    let crc = if head.entries_len() <= SIDECAR_AHEAD as u64 {
        entries_bytes(file, head, window)?.map(crc32fast::hash)
    } else {
        Some(record_crc(file, head.at, head.entries_len(), &mut Window::default())?)
    };
    Ok(crc == Some(head.entries_crc))
}

/// Reads the valid runs of a sidecar, in the order of their offsets.
///
/// # Errors
/// Where the file cannot be read.
#[cfg(any(test, feature = "internals"))]
pub fn read_runs(file: &dyn File) -> io::Result<Vec<Run>> {
    let mut window = Window::default();
    let (heads, _) = heads(file, 0, file.len()?, &mut window)?;
    let mut runs = Vec::with_capacity(heads.len());
    for head in &heads {
        runs.extend(entries(file, head, &mut window)?.map(|entries| head.with(entries)));
    }
    runs.sort_by_key(|run: &Run| run.offset);
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
    let mut tags = Vec::new();
    let walked = walk(&**file, format, 0, to, &mut window, |offset, header, total| {
        places.push((offset, total));
        tags.push(place_tag(offset, header_hash(header)));
    })?;
    let mut crcs = Vec::with_capacity(places.len());
    for &(offset, total) in &places {
        crcs.push(record_crc(&**file, offset, total, &mut window)?);
    }
    let Some(&(last, _)) = places.last() else { return Ok(None) };
    let inode = file.facts()?.identity.1;
    let written = Timestamp::now();
    Ok(Some(Run { offset: 0, bytes: walked.offset, last, inode, marker: 1, written, crcs, tags }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::storage::{Open, Posix, Storage};

    fn run(offset: u64, marker: u32, crcs: &[u32]) -> Run {
        let bytes = 20 * crcs.len() as u64;
        Run {
            offset,
            bytes,
            last: offset + bytes - 20,
            inode: 7,
            marker,
            written: Timestamp { seconds: 9, micros: 8 },
            crcs: crcs.to_vec(),
            tags: crcs.iter().map(|crc| crc ^ 0x5555).collect(),
        }
    }

    fn parse(bytes: &[u8]) -> Vec<Run> {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(bytes).unwrap();
        read_runs(&*Posix.open(temp.path(), Open::Read).unwrap()).unwrap()
    }

    #[test]
    fn runs_without_tags_are_read() {
        let old =
            Run { tags: Vec::new(), written: Timestamp { seconds: 9, micros: 0 }, ..run(0, 1, &[1, 2]) };
        let mut bytes = Vec::new();
        old.encode(&mut bytes);
        assert_eq!((&bytes[..4], bytes.len()), (&b"jcr1"[..], 56 + 8));
        assert_eq!(parse(&bytes), [old]);
    }

    #[test]
    fn a_tag_binds_a_header_to_its_place() {
        let header = |seconds, micros, len| {
            let time = Timestamp { seconds, micros };
            header_hash(&RecordHeader { time, len, stored: len })
        };
        let tag = place_tag(100, header(1_700_000_000, 5, 80));
        for bit in 0..32 {
            let flip = 1 << bit;
            for other in [
                header(1_700_000_000 ^ flip, 5, 80),
                header(1_700_000_000, 5 ^ flip, 80),
                header(1_700_000_000, 5, 80 ^ flip),
            ] {
                assert_ne!(place_tag(100, other), tag);
            }
            assert_ne!(place_tag(100 ^ u64::from(flip), header(1_700_000_000, 5, 80)), tag);
        }
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
