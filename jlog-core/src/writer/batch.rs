//! Writes records to the segment: either all records of a batch stay there, or none.

use std::io::IoSlice;

use super::segment::LockedSegment;
use super::state::Core;
use super::tail::len_u32;
use crate::codec::format::{COMPRESSED_HEADER_LEN, RecordHeader, check_message_len};
use crate::files::checksum::{Mark, Sums, header_hash};
use crate::storage::write_all_at;
use crate::{Error, LogId, Result, Timestamp};

/// Records are gathered up to about this size before they are written.
const PIECE: usize = 1 << 20;
/// Bodies of at least this size are written without a copy.
pub(super) const LARGE_BODY: usize = 64 << 10;
/// The same for a single message: copying a smaller one costs less than a write of two pieces.
const LARGE_SINGLE_BODY: usize = 2 << 10;

/// An encoded record, except for its place.
pub(super) struct Encoded<'a> {
    head: [u8; COMPRESSED_HEADER_LEN],
    head_len: usize,
    /// [`header_hash`] of the header.
    hash: u32,
    pub(super) body: &'a [u8],
}

impl Encoded<'_> {
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    pub(super) fn len(&self) -> usize {
        self.head_len + self.body.len()
    }

    /// The record's checksum, computed over its two parts. For a record in one piece,
    /// `crc32fast::hash` is faster.
    fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.head());
        hasher.update(self.body);
        hasher.finalize()
    }
}

impl Core {
    /// Encodes a record. `scratch` takes a compressed body.
    #[inline]
    pub(super) fn encode<'a>(
        &self,
        time: Timestamp,
        body: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Encoded<'a>> {
        let len = check_message_len(self.format, body.len())?;
        let stored = self.format.store(body, scratch);
        let stored_len = check_message_len(self.format, stored.len())?;
        let mut head = [0; COMPRESSED_HEADER_LEN];
        let header = RecordHeader { time, len, stored: stored_len };
        self.format.encode(&header, &mut head);
        Ok(Encoded { head, head_len: self.format.header_len(), hash: header_hash(&header), body: stored })
    }
}

/// Records that are being added to a locked segment. A batch that is dropped before it is committed
/// undoes its writes.
struct Batch<'s, 'a> {
    segment: &'s mut LockedSegment<'a>,
    /// Where the segment ended before.
    start: u64,
    /// Where it ends with every record of the batch.
    end: u64,
    records: u32,
    /// Length of the first record.
    first: u64,
    /// Where its checksums begin, if they are kept.
    checksums: Option<Mark>,
    /// Bodies of at least this size are not copied.
    large: usize,
    /// Bytes that are not written yet.
    gathered: Vec<u8>,
    committed: bool,
}

impl<'s, 'a> Batch<'s, 'a> {
    fn new(segment: &'s mut LockedSegment<'a>, large: usize) -> Self {
        let start = segment.end();
        let next = segment.records().saturating_add(1);
        let mut gathered = std::mem::take(&mut segment.appender.scratch);
        gathered.clear();
        let checksums = segment.core.keeps_checksums().then(|| segment.appender.pending.begin(next, start));
        Self {
            segment,
            start,
            end: start,
            records: 0,
            first: 0,
            checksums,
            large,
            gathered,
            committed: false,
        }
    }

    #[inline]
    fn push(&mut self, record: &Encoded<'_>) -> Result<()> {
        let begun = self.gathered.len();
        // A copy of known length costs no call.
        self.gathered.extend_from_slice(&record.head);
        self.gathered.truncate(begun + record.head_len);
        let large = record.body.len() >= self.large;
        if !large {
            self.gathered.extend_from_slice(record.body);
        }
        let len = record.len() as u64;
        if self.records == 0 {
            self.first = len;
        }
        self.records += 1;
        self.end += len;
        if self.checksums.is_some() {
            let crc = if large { record.crc() } else { crc32fast::hash(&self.gathered[begun..]) };
            let sums = Sums { len: len_u32(record.len()), crc, head: record.hash };
            self.segment.appender.pending.push(sums);
        }
        if large {
            self.write(&[record.body])
        } else if self.gathered.len() >= PIECE {
            self.write(&[])
        } else {
            Ok(())
        }
    }

    /// Writes the gathered bytes, followed by `more`.
    #[inline]
    fn write(&mut self, more: &[&[u8]]) -> Result<()> {
        let mut pieces = [IoSlice::new(&self.gathered), IoSlice::new(more.first().unwrap_or(&&[][..]))];
        let pieces = &mut pieces[..=more.len()];
        let written = self.segment.write(pieces);
        self.gathered.clear();
        written
    }

    /// Counts the records as written; returns the id of the last one.
    #[inline]
    fn commit(mut self) -> Result<LogId> {
        if !self.gathered.is_empty() {
            self.write(&[])?;
        }
        self.committed = true;
        Ok(self.segment.count_written(self.records))
    }
}

impl Drop for Batch<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.gathered.clear();
        self.gathered.shrink_to(2 * PIECE);
        self.segment.appender.scratch = std::mem::take(&mut self.gathered);
        if self.committed {
            return;
        }
        if let Some(mark) = self.checksums {
            self.segment.appender.pending.take_back(mark);
        }
        self.segment.take_back(self.start, self.first, self.records > 1);
    }
}

impl LockedSegment<'_> {
    /// Appends one record.
    pub(super) fn append(&mut self, record: &Encoded<'_>) -> Result<LogId> {
        let mut batch = Batch::new(self, LARGE_SINGLE_BODY);
        batch.push(record)?;
        batch.commit()
    }

    /// Appends as many of the messages as belong in this segment, at least one. Returns the id of
    /// the last one and their number.
    pub(super) fn append_batch<'m>(
        &mut self,
        range: std::ops::Range<usize>,
        message: &impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> Result<(LogId, usize)> {
        let (core, limit) = (self.core, self.core.segment_size(&self.appender.limiter));
        let mut compressed = Vec::new();
        let mut batch = Batch::new(self, LARGE_BODY);
        let mut taken = 0;
        for n in range {
            compressed.clear();
            let (time, body) = message(n);
            batch.push(&core.encode(time, body, &mut compressed)?)?;
            taken += 1;
            if batch.end >= limit {
                break;
            }
        }
        Ok((batch.commit()?, taken))
    }

    /// Puts bytes at the end of the segment.
    #[inline]
    fn write(&mut self, pieces: &mut [IoSlice<'_>]) -> Result<()> {
        let total = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        // After a write that found no space, the next one is not tried before there is space: each
        // try would end its segment.
        let storage = &*self.core.shared.storage;
        let hopeless = self.appender.was_full
            && storage.available_space(&self.core.shared.path).is_ok_and(|free| free < total);
        let written = if hopeless {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            write_all_at(self.file(), pieces, self.end())
        };
        self.appender.was_full = written.is_err();
        match written {
            Ok(()) => {
                self.set_end(self.end() + total);
                Ok(())
            }
            Err(e) => Err(Error::io("write", self.core.path_of(self.number()), e)),
        }
    }

    /// Undoes the writes of a batch: truncates the segment at `start`. If readers may have seen
    /// whole records of the batch, the segment must roll, because other records must not get their
    /// ids.
    fn take_back(&mut self, start: u64, first: u64, several: bool) {
        let len = self.file().len().unwrap_or(u64::MAX);
        if len <= start {
            self.set_end(start);
        } else if self.file().set_len(start).is_ok() {
            self.set_end(start);
            if several && len - start >= first {
                self.must_roll();
            }
        } else {
            self.suspect();
        }
    }
}
