//! A segment's checksums: the sidecar `<segment>.crc`, which the C library does not know.
//!
//! It holds runs of whole records, written in one piece each, and nothing else:
//!
//! ```text
//!  0  u32  0x3172636a ("jcr1")
//!  4  u32  number of records, n
//!  8  u64  offset of the first record in the segment
//! 16  u64  bytes of the n records
//! 24  u32  marker of the first record
//! 28  u32  CRC-32 of bytes 0 to 28 and of the n checksums
//! 32  u32  CRC-32 of each record, header and stored body; n of them
//! ```
//!
//! The CRC-32 is the one of IEEE 802.3. A run that is damaged, cut short, or covers more than the segment
//! holds counts as not there: its records are unverified, never unreadable.
//!
//! A record is accused only when its own checksum stands nowhere in the sidecar and the sidecar is not
//! stale: another process may have moved the records (the C library's repair does). See [`Verifier`].

use std::io::IoSlice;
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::format::RecordFormat;
use crate::names;
use crate::scan::{Window, record_crc, walk};
use crate::shared::Shared;
use crate::storage::{File, Open, read_all, write_all_at};
use crate::{Error, Result};

const RUN_MAGIC: u32 = u32::from_le_bytes(*b"jcr1");
const RUN_HEADER_LEN: usize = 32;
/// The largest sidecar that is read: the checksums of a 1 GiB segment of empty messages, each in a run of
/// its own, would be 2 GiB; runs are far longer than that, and what lies beyond is unverified.
const MAX_LEN: usize = 1 << 30;

/// Checksums of records that stand next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first record begins.
    pub offset: u64,
    /// How many bytes the records have.
    pub bytes: u64,
    /// Marker of the first record.
    pub marker: u32,
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
        LE::write_u32(&mut run[24..28], self.marker);
        LE::write_u32_into(&self.crcs, &mut run[RUN_HEADER_LEN..]);
        let crc = run_crc(run);
        LE::write_u32(&mut run[28..32], crc);
    }
}

fn run_crc(run: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&run[..28]);
    hasher.update(&run[RUN_HEADER_LEN..]);
    hasher.finalize()
}

/// Reads the runs of a sidecar, passing over what is no good run. Runs come in the order of their offsets.
pub fn parse(bytes: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = 0;
    let magic = RUN_MAGIC.to_le_bytes();
    while let Some(found) = memchr::memmem::find(&bytes[at..], &magic) {
        let run = &bytes[at + found..];
        let len = if run.len() < RUN_HEADER_LEN {
            None
        } else {
            (LE::read_u32(&run[4..8]) as usize).checked_mul(4).map(|n| n.saturating_add(RUN_HEADER_LEN))
        };
        match len.and_then(|len| run.get(..len)) {
            Some(run) if run.len() > RUN_HEADER_LEN && run_crc(run) == LE::read_u32(&run[28..32]) => {
                let mut crcs = vec![0; (run.len() - RUN_HEADER_LEN) / 4];
                LE::read_u32_into(&run[RUN_HEADER_LEN..], &mut crcs);
                runs.push(Run {
                    offset: LE::read_u64(&run[8..16]),
                    bytes: LE::read_u64(&run[16..24]),
                    marker: LE::read_u32(&run[24..28]),
                    crcs,
                });
                at += found + run.len();
            }
            _ => at += found + 1,
        }
    }
    // Where a tail was cut and written anew, the later run is the one that holds.
    runs.sort_by_key(|run| run.offset);
    runs
}

/// Checksums that the writer has not written out yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    runs: Vec<Run>,
    records: usize,
}

/// So many checksums are kept back before they are written out without being asked for.
const PENDING_MAX: usize = 4096;

impl Pending {
    /// Notes a record that is in the segment now.
    pub(crate) fn push(&mut self, marker: u32, offset: u64, total: u64, crc: u32) {
        self.records += 1;
        if let Some(run) = self.runs.last_mut()
            && run.end() == offset
            && u64::from(run.marker) + run.crcs.len() as u64 == u64::from(marker)
        {
            run.bytes += total;
            run.crcs.push(crc);
            return;
        }
        self.runs.push(Run { offset, bytes: total, marker, crcs: vec![crc] });
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
    pub(crate) fn write_out(&mut self, shared: &Shared, segment: u32) {
        if self.records > 0 {
            let mut bytes = Vec::with_capacity(self.runs.len() * RUN_HEADER_LEN + self.records * 4);
            for run in &self.runs {
                run.encode(&mut bytes);
            }
            if append(shared, segment, &bytes).is_err() {
                shared.note(crate::Event::ChecksumsNotWritten { segment, records: self.records });
            }
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
    shared.replace_file(&name, &bytes)
}

/// Reads a segment's sidecar; nothing where there is none, or none that can be read.
pub(crate) fn load(shared: &Shared, segment: u32) -> (Vec<Run>, u64) {
    let read = || -> Result<(Vec<Run>, u64)> {
        let name = names::checksums(segment);
        let file = shared.open(&name, Open::Read)?;
        let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", shared.at(&name), e))?;
        Ok((parse(&bytes), bytes.len() as u64))
    };
    read().unwrap_or_default()
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

/// Checks a segment's records against its sidecar.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    runs: Vec<Run>,
    /// Bytes of the sidecar when it was read: it grows while its segment is written.
    read: u64,
    /// How far the sidecar's markers are ahead of ours, after damaged records or a foreign repair.
    shift: u32,
    stale: bool,
    /// The run that the last record was in.
    cursor: usize,
}

impl Verifier {
    pub(crate) fn load(shared: &Shared, segment: u32) -> Self {
        let (runs, read) = load(shared, segment);
        Self { runs, read, ..Self::default() }
    }

    /// Reads the sidecar again if it has grown.
    pub(crate) fn refresh(&mut self, shared: &Shared, segment: u32) {
        let len = shared.facts(&names::checksums(segment)).map_or(0, |facts| facts.len);
        if len != self.read {
            let shift = self.shift;
            *self = Self { shift, ..Self::load(shared, segment) };
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() || self.stale
    }

    /// Whether a run covers this offset.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        !self.stale && self.runs.iter().any(|run| run.offset <= offset && offset < run.end())
    }

    /// Whether some run ends beyond `len`, the segment's length.
    pub(crate) fn reaches_beyond(&self, len: u64) -> bool {
        self.runs.iter().any(|run| run.end() > len)
    }

    /// Whether this checksum stands anywhere in the sidecar.
    pub(crate) fn lists(&self, crc: u32) -> bool {
        !self.stale && self.runs.iter().any(|run| run.crcs.contains(&crc))
    }

    fn expected(&mut self, marker: u32, offset: u64) -> Option<u32> {
        let marker = marker.checked_add(self.shift)?;
        let entry = |run: &Run| {
            let inside = run.offset <= offset && offset < run.end() && run.marker <= marker;
            inside.then(|| run.crcs.get((marker - run.marker) as usize).copied()).flatten()
        };
        if let Some(crc) = self.runs.get(self.cursor).and_then(entry) {
            return Some(crc);
        }
        // The last of several that cover it was written last.
        let (at, crc) = self.runs.iter().enumerate().rev().find_map(|(i, run)| Some((i, entry(run)?)))?;
        self.cursor = at;
        Some(crc)
    }

    /// Whether a record whose own checksum is `crc` is what was written.
    pub(crate) fn check(
        &mut self,
        file: &dyn File,
        format: RecordFormat,
        marker: u32,
        offset: u64,
        crc: u32,
    ) -> Result<Verdict, std::io::Error> {
        if self.stale {
            return Ok(Verdict::Unverified);
        }
        let Some(expected) = self.expected(marker, offset) else {
            // Behind damage, markers and the sidecar's may differ; what is listed is good all the same.
            return Ok(if self.lists(crc) { Verdict::Good } else { Verdict::Unverified });
        };
        if expected == crc {
            return Ok(Verdict::Good);
        }
        // Listed for another record: records before this one are damaged or were taken out.
        for run in &self.runs {
            if let Some(at) = run.crcs.iter().position(|&c| c == crc) {
                let listed = u64::from(run.marker) + at as u64;
                if let Some(shift) = listed.checked_sub(u64::from(marker)) {
                    self.shift = u32::try_from(shift).unwrap_or(self.shift);
                }
                return Ok(Verdict::Good);
            }
        }
        if self.fits_elsewhere(file, format, expected)? {
            self.stale = true;
            return Ok(Verdict::Unverified);
        }
        Ok(Verdict::Wrong)
    }

    /// Whether the record that a checksum was made for stands at a place that the sidecar lists another
    /// checksum for, or none: then records were moved after the sidecar was written.
    fn fits_elsewhere(
        &self,
        file: &dyn File,
        format: RecordFormat,
        wanted: u32,
    ) -> Result<bool, std::io::Error> {
        let to = file.len()?;
        let mut window = Window::default();
        let mut places = Vec::new();
        walk(file, format, 0, to, &mut window, |offset, _, total| places.push((offset, total)))?;
        for (i, (offset, total)) in places.into_iter().enumerate() {
            if record_crc(file, offset, total, &mut window)? != wanted {
                continue;
            }
            let marker = i as u64 + 1 + u64::from(self.shift);
            let listed_here = self.runs.iter().any(|run| {
                let at = marker.checked_sub(u64::from(run.marker));
                at.and_then(|at| run.crcs.get(usize::try_from(at).ok()?)) == Some(&wanted)
            });
            if !listed_here {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The records and bytes that the runs cover without a gap from the segment's beginning.
    pub(crate) fn covered_prefix(&self) -> (u32, u64) {
        let (mut records, mut bytes) = (0u32, 0u64);
        for run in &self.runs {
            if run.offset == bytes && run.marker == records + 1 {
                records = records.saturating_add(u32::try_from(run.crcs.len()).unwrap_or(u32::MAX));
                bytes = run.end();
            }
        }
        (records, bytes)
    }

    /// The runs that end within the first `len` bytes.
    pub(crate) fn runs_within(&self, len: u64) -> Vec<Run> {
        self.runs.iter().filter(|run| run.end() <= len).cloned().collect()
    }
}

/// Computes the checksums of all records between two places and gives them as one run.
pub(crate) fn compute(
    file: &Arc<dyn File>,
    format: RecordFormat,
    from: u64,
    to: u64,
    marker: u32,
) -> Result<Option<Run>, std::io::Error> {
    let mut window = Window::default();
    let mut places = Vec::new();
    let walked =
        walk(&**file, format, from, to, &mut window, |offset, _, total| places.push((offset, total)))?;
    let mut crcs = Vec::with_capacity(places.len());
    for (offset, total) in places {
        crcs.push(record_crc(&**file, offset, total, &mut window)?);
    }
    Ok((!crcs.is_empty()).then(|| Run { offset: from, bytes: walked.offset - from, marker, crcs }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: u64, marker: u32, crcs: &[u32]) -> Run {
        Run { offset, bytes: 20 * crcs.len() as u64, marker, crcs: crcs.to_vec() }
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
        assert_eq!(pending.runs, [run(0, 1, &[10, 11]), run(60, 4, &[12])]);
    }
}
