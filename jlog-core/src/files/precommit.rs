//! The pre-commit buffer: records that a writer has accepted and not yet written to a segment, in a
//! shared map, so that they survive the process.
//!
//! Beside the buffer, whose layout is the C library's, there is `pre_commit.guard`, which is ours
//! alone:
//!
//! ```text
//!  0  u32  0x3167706a ("jpg1")
//!  4  u32  state of the flush: 0 none, 1 being written, 2 written
//!  8  u64  the machine's boot id when the buffer was last opened
//! 16  u32  segment that the flush goes to
//! 20  u32  bytes that it writes
//! 24  u64  offset that they go to
//! 32  u32  fingerprint of these bytes
//! 36  u32  how many bytes at the beginning of the buffer are in a segment already
//! 40  u32  1 while a writer has the buffer open
//! 44  u32  fingerprint of the buffer; 0 if none is kept
//! 48  u32  fingerprint of the records that are in a segment already
//! ```
//!
//! Its flock identifies the owner of the buffer; there is only one. The recorded destination of a
//! flush allows an interrupted flush to be completed exactly once. After a restart of the machine,
//! the fingerprint shows whether the buffer's pages reached the disk together.

use crate::codec::format::{MAX_PRE_COMMIT, PRE_COMMIT_HEADER_LEN, RecordFormat};
use crate::codec::names;
use crate::files::checksum::{Sums, encoded_hash, header_hash};
use crate::files::scan::{Step, step};
use crate::files::shared::{Shared, Temporary};
use crate::storage::{Guarded, Map, Open};
use crate::{Error, Event, Result};

const GUARD_MAGIC: u32 = u32::from_le_bytes(*b"jpg1");
const GUARD_LEN: usize = 52;
const MAGIC: usize = 0;
const STATE: usize = 4;
const BOOT: usize = 8;
const SEGMENT: usize = 16;
const BYTES: usize = 20;
const OFFSET: usize = 24;
const FLUSHED: usize = 32;
const DONE: usize = 36;
const OPEN: usize = 40;
const FINGERPRINT: usize = 44;
const DONE_FINGERPRINT: usize = 48;

const NO_FLUSH: u32 = 0;
const WRITING: u32 = 1;
const WRITTEN: u32 = 2;

/// A flush that was interrupted when its writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// Whether all of it is known to have reached the segment.
    pub(crate) written: bool,
}

/// The right to the buffer, which one writer has.
#[derive(Debug)]
pub(crate) struct Guard {
    map: Map,
    /// Held for its flock.
    _file: Guarded,
}

impl Guard {
    /// Takes it.
    ///
    /// # Errors
    /// [`Error::PreCommitBusy`] where another writer has it.
    pub(crate) fn take(shared: &Shared) -> Result<Self> {
        let path = shared.at(names::PRE_COMMIT_GUARD);
        let file = shared.open(names::PRE_COMMIT_GUARD, Open::Create(shared.mode()))?;
        let taken = Guarded::take_soon(&*shared.storage, &file, true);
        let Some(file) = taken.map_err(|e| Error::io("lock", &path, e))? else {
            return Err(Error::PreCommitBusy { path });
        };
        file.file().allocate(GUARD_LEN as u64).map_err(|e| Error::io("allocate", &path, e))?;
        let map = file.file().map(GUARD_LEN).map_err(|e| Error::io("map", &path, e))?;
        Ok(Self { map, _file: file })
    }

    fn load_u64(&self, at: usize) -> u64 {
        u64::from(self.map.load_u32(at)) | u64::from(self.map.load_u32(at + 4)) << 32
    }

    fn store_u64(&self, at: usize, n: u64) {
        // Both halves are stored.
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (n as u32, (n >> 32) as u32);
        self.map.store_u32(at, low);
        self.map.store_u32(at + 4, high);
    }
}

/// The buffer, owned by one writer.
#[derive(Debug)]
pub(crate) struct PreCommit {
    map: Map,
    guard: Guard,
    capacity: usize,
    /// The offset of the first record that is in no segment yet.
    start: usize,
    used: usize,
    /// Total length and checksum of each of them.
    records: Vec<Sums>,
    /// Whether checksums are given with records.
    checksums: bool,
    fingerprint: u32,
    done_fingerprint: u32,
    pub(crate) unfinished: Option<Unfinished>,
}

/// Adds a record to a fingerprint; never 0.
fn add_to(fingerprint: u32, crc: u32) -> u32 {
    (fingerprint.rotate_left(5) ^ crc).wrapping_mul(0x9E37_79B1) | 1
}

fn fingerprint(records: &[Sums]) -> u32 {
    records.iter().fold(0, |sum, record| add_to(sum, record.crc))
}

/// The whole records at the beginning of `bytes`: their number and their length together.
pub(crate) fn whole_records(format: RecordFormat, bytes: &[u8]) -> (Vec<Sums>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Step::Record(header, total) = step(format, &bytes[at..], (bytes.len() - at) as u64) {
        // A record in the slice is no longer than the slice.
        let Ok(len) = usize::try_from(total) else { break };
        let crc = crc32fast::hash(&bytes[at..at + len]);
        let head = header_hash(&header);
        records.push(Sums { len: u32::try_from(total).unwrap_or(u32::MAX), crc, head });
        at += len;
    }
    (records, at)
}

/// How many bytes of the buffer hold records, if its leading counter points into the middle of a
/// record: then a bit of it is wrong, and the fingerprint shows the last record.
fn counted(format: RecordFormat, bytes: &[u8], used: usize, expected: u32) -> Option<usize> {
    let (records, _) = whole_records(format, bytes);
    let (mut end, mut sum, mut found) = (0, 0, None);
    for Sums { len, crc, .. } in records {
        end += len as usize;
        sum = add_to(sum, crc);
        if end == used {
            return None;
        }
        if sum == expected {
            found = Some(end);
        }
    }
    found
}

/// How many lengths are tried.
const TRIES: usize = 64;

/// Undoes damage to the length of one record, if the fingerprint confirms it: a record seems to
/// contain others, or ends before the next one begins.
fn restore(format: RecordFormat, bytes: &[u8], expected: u32) -> Option<Vec<u8>> {
    let (records, whole) = whole_records(format, bytes);
    if expected == 0 || (whole == bytes.len() && fingerprint(&records) == expected) {
        return None;
    }
    let header_len = format.header_len();
    let begins = |at: usize| bytes.get(at..).is_some_and(|rest| format.decode(rest).is_some());
    let mut tries = 0;
    let mut start = 0;
    let lens = records.iter().map(|record| record.len as usize).chain(begins(whole).then_some(0));
    for len in lens {
        let next = start + len;
        // After the last of them, the next one may be anywhere.
        let until = if next >= whole { bytes.len() } else { next };
        for end in (start + header_len..=until).filter(|&at| at != next && (at == bytes.len() || begins(at)))
        {
            tries += 1;
            if tries > TRIES {
                return None;
            }
            let mut candidate = bytes.to_vec();
            let stored = u32::try_from(end - start - header_len).ok()?;
            candidate[start + header_len - 4..start + header_len].copy_from_slice(&stored.to_le_bytes());
            let (records, whole) = whole_records(format, &candidate);
            if whole == candidate.len() && fingerprint(&records) == expected {
                return Some(candidate);
            }
        }
        start = next;
    }
    None
}

/// The intact stretches of a damaged buffer, each of whole records: their beginnings and ends.
fn salvage(format: RecordFormat, bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(begin) = next_chain(format, bytes, at) {
        let (records, len) = whole_records(format, &bytes[begin..]);
        let reached = begin + len;
        let last = reached - records.last().map_or(0, |record| record.len as usize);
        // If the last record is not followed by a record, its length may be damaged, so that it
        // seems to contain others. Those continue beyond its end; records within its body do not.
        let inside = std::iter::successors(next_chain(format, bytes, last + 1), |&at| {
            next_chain(format, bytes, at + 1)
        })
        .take_while(|&at| at < reached);
        let leads_on = |at: usize| at + whole_records(format, &bytes[at..]).1 > reached;
        let swallows = reached < bytes.len() && inside.into_iter().any(leads_on);
        let end = if swallows { last } else { reached };
        let mut from = begin;
        for Sums { len, .. } in records {
            let to = from + len as usize;
            if to <= end && body_loads(format, &bytes[from..to]) {
                match out.last_mut() {
                    Some(before) if before.1 == from => before.1 = to,
                    _ => out.push((from, to)),
                }
            }
            from = to;
        }
        at = if swallows { last + 1 } else { end };
    }
    out
}

/// Whether a compressed body is valid. An uncompressed one always is.
fn body_loads(format: RecordFormat, record: &[u8]) -> bool {
    let body = record.get(format.header_len()..).unwrap_or_default();
    !format.is_lz4()
        || format.decode(record).is_some_and(|header| format.load(&header, body, &mut Vec::new()))
}

fn bodies_load(format: RecordFormat, bytes: &[u8], records: &[Sums]) -> bool {
    let mut rest = bytes;
    !format.is_lz4()
        || records.iter().all(|&Sums { len, .. }| {
            let (record, behind) = rest.split_at((len as usize).min(rest.len()));
            rest = behind;
            body_loads(format, record)
        })
}

/// The offset of the next record, at or after `from`, that ends with the bytes or is followed by
/// another one. The first record of the bytes need not be followed by one.
fn next_chain(format: RecordFormat, bytes: &[u8], from: usize) -> Option<usize> {
    let end = |at: usize| match step(format, bytes.get(at..)?, (bytes.len() - at) as u64) {
        Step::Record(_, total) => Some(at + usize::try_from(total).ok()?),
        _ => None,
    };
    if from == 0 && end(0).is_some() {
        return Some(0);
    }
    // The oldest records have the magic 0, which proves nothing.
    if format.magic() == 0 {
        return None;
    }
    (from..bytes.len()).find(|&at| end(at).is_some_and(|next| next == bytes.len() || end(next).is_some()))
}

/// Atomically replaces the damaged buffer with one of these records.
fn replace(shared: &Shared, capacity: usize, bytes: &[u8]) -> Result<Map> {
    let path = shared.at(names::PRE_COMMIT);
    let temporary = empty(shared, u32::try_from(capacity).unwrap_or(u32::MAX))?;
    temporary.write(bytes, PRE_COMMIT_HEADER_LEN as u64)?;
    temporary.write(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes(), 0)?;
    temporary.sync()?;
    let map = temporary.file.map(PRE_COMMIT_HEADER_LEN + capacity).map_err(|e| Error::io("map", &path, e))?;
    temporary.rename(names::PRE_COMMIT)?;
    shared.sync_dir()?;
    Ok(map)
}

/// The size of the existing buffer; `None` without a file.
pub(crate) fn size_on_disk(shared: &Shared) -> Result<Option<u64>> {
    match shared.open_if_there(names::PRE_COMMIT, Open::Read)? {
        None => Ok(None),
        Some(file) => {
            let len = file.len().map_err(|e| Error::io("read", shared.at(names::PRE_COMMIT), e))?;
            Ok(Some(len.saturating_sub(PRE_COMMIT_HEADER_LEN as u64)))
        }
    }
}

/// Bytes in use and size of the buffer, to be shown; `None` if there is no file.
pub(crate) fn fill(shared: &Shared) -> Result<Option<(u64, u64)>> {
    use byteorder::{ByteOrder, LittleEndian as LE};
    let Some(file) = shared.open_if_there(names::PRE_COMMIT, Open::Read)? else { return Ok(None) };
    let fail = |e| Error::io("read", shared.at(names::PRE_COMMIT), e);
    let mut used = [0; PRE_COMMIT_HEADER_LEN];
    let n = crate::storage::read_up_to_at(&*file, &mut used, 0).map_err(fail)?;
    let used = if n == used.len() { u64::from(LE::read_u32(&used)) } else { 0 };
    let size = file.len().map_err(fail)?.saturating_sub(PRE_COMMIT_HEADER_LEN as u64);
    Ok(Some((used, size)))
}

/// Makes a buffer of size 0 if there is none.
pub(crate) fn create_empty(shared: &Shared) -> Result<()> {
    if shared.exists(names::PRE_COMMIT) { Ok(()) } else { create_new(shared, 0) }
}

/// Makes an empty buffer of this size if there is none. Replaces nothing: others may be making one.
pub(crate) fn create_new(shared: &Shared, size: u32) -> Result<()> {
    empty(shared, size)?.publish_new(names::PRE_COMMIT).map(|_| ())
}

fn empty(shared: &Shared, size: u32) -> Result<Temporary<'_>> {
    let temporary = shared.create_temporary()?;
    let len = PRE_COMMIT_HEADER_LEN as u64 + u64::from(size);
    temporary.file.allocate(len).map_err(|e| Error::io("allocate", shared.at(names::PRE_COMMIT), e))?;
    temporary.sync()?;
    Ok(temporary)
}

/// Atomically replaces the buffer with an empty one of this size.
pub(crate) fn create(shared: &Shared, size: u32) -> Result<()> {
    empty(shared, size)?.rename(names::PRE_COMMIT)?;
    shared.sync_dir()
}

impl PreCommit {
    /// Opens the buffer and examines the records that an earlier writer left in it. `checksums`
    /// says whether records will be added with checksums.
    ///
    /// # Errors
    /// [`Error::DiskFull`] if there is no space for all of it.
    pub(crate) fn open(shared: &Shared, format: RecordFormat, guard: Guard, checksums: bool) -> Result<Self> {
        let path = shared.at(names::PRE_COMMIT);
        let file = shared.open(names::PRE_COMMIT, Open::Write)?;
        let len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let max = PRE_COMMIT_HEADER_LEN as u64 + u64::from(MAX_PRE_COMMIT);
        // A buffer larger than can be configured is still used, as in the C library, up to a bound.
        if len > 16 * max {
            return Err(Error::OutOfRange {
                what: "the size of the pre_commit file",
                value: len,
                allowed: "up to 128 MiB",
            });
        }
        let len = len.max(PRE_COMMIT_HEADER_LEN as u64);
        // Allocate all of it now: touching a map without disk space kills the process.
        file.allocate(len).map_err(|e| Error::io("allocate", &path, e))?;
        let len = usize::try_from(len).unwrap_or(PRE_COMMIT_HEADER_LEN);
        let map = file.map(len).map_err(|e| Error::io("map", &path, e))?;
        let mut buffer = Self {
            map,
            guard,
            capacity: len - PRE_COMMIT_HEADER_LEN,
            start: 0,
            used: 0,
            records: Vec::new(),
            checksums,
            fingerprint: 0,
            done_fingerprint: 0,
            unfinished: None,
        };
        buffer.recover(shared, format)?;
        // Before anything is put in the buffer: after a power failure, the guard shows whether the
        // buffer's pages can be trusted.
        buffer.sync(shared)?;
        shared.sync_dir()?;
        Ok(buffer)
    }

    fn recover(&mut self, shared: &Shared, format: RecordFormat) -> Result<()> {
        let guard = &self.guard;
        let used = (self.map.load_u32(0) as usize).min(self.capacity);
        let ours = guard.map.load_u32(MAGIC) == GUARD_MAGIC;
        let boot = shared.storage.boot_id();
        let before_start = ours && guard.load_u64(BOOT) != boot && guard.map.load_u32(OPEN) == 1;
        let bytes = self.map.slice(PRE_COMMIT_HEADER_LEN, self.capacity);
        let used = match used {
            0 => 0,
            used => counted(format, bytes, used, guard.map.load_u32(FINGERPRINT)).unwrap_or(used),
        };
        let restored = restore(format, &bytes[..used], guard.map.load_u32(FINGERPRINT));
        let bytes = restored.as_deref().unwrap_or(&bytes[..used]);
        let (mut records, mut whole) = whole_records(format, bytes);
        let mut salvaged = restored.clone();
        // Records that are already in a segment, unless others have emptied and refilled the buffer
        // since.
        let noted = if ours { guard.map.load_u32(DONE) as usize } else { 0 };
        let (skip, end) = records_within(&records, noted);
        let same = end == noted && fingerprint(&records[..skip]) == guard.map.load_u32(DONE_FINGERPRINT);
        let (mut skip, mut done) = if same { (skip, noted) } else { (0, 0) };
        self.unfinished = None;
        if before_start
            && used > 0
            && (whole < used || fingerprint(&records) != guard.map.load_u32(FINGERPRINT))
        {
            // Its writer had it open when the machine stopped. Some pages may be older than others.
            let kept = shared.keep_broken(names::PRE_COMMIT, 0, bytes)?;
            shared.note(Event::BufferSetAside { len: used as u64, kept: shared.at(&kept) });
            (records, whole) = (Vec::new(), 0);
            (skip, done) = (0, 0);
        } else {
            let known = fingerprint(&records) == guard.map.load_u32(FINGERPRINT);
            if whole < used || !(known || bodies_load(format, bytes, &records)) {
                let intact = salvage(format, bytes);
                let mut at = 0;
                for &(from, to) in intact.iter().chain([&(used, used)]) {
                    if at < from {
                        let kept = shared.keep_broken(names::PRE_COMMIT, at as u64, &bytes[at..from])?;
                        shared
                            .note(Event::BufferTruncated { len: (from - at) as u64, kept: shared.at(&kept) });
                    }
                    at = to;
                }
                if intact != [(0, whole)] {
                    let pieces: Vec<&[u8]> = intact.iter().map(|&(from, to)| &bytes[from..to]).collect();
                    let pieces = pieces.concat();
                    (records, whole) = whole_records(format, &pieces);
                    if skip > 0 && intact.first().is_none_or(|&(from, to)| from > 0 || to < done) {
                        (skip, done) = (0, 0);
                    }
                    salvaged = Some(pieces);
                }
            }
            let state = guard.map.load_u32(STATE);
            let rest = &records[skip..];
            if ours
                && state != NO_FLUSH
                && guard.map.load_u32(BYTES) as usize == used - done.min(used)
                && guard.map.load_u32(FLUSHED) == fingerprint(rest)
            {
                self.unfinished = Some(Unfinished {
                    segment: guard.map.load_u32(SEGMENT),
                    offset: guard.load_u64(OFFSET),
                    written: state == WRITTEN,
                });
            }
        }
        if let Some(bytes) = salvaged {
            self.map = replace(shared, self.capacity, &bytes)?;
        }
        self.start = done;
        self.fingerprint = fingerprint(&records);
        self.done_fingerprint = fingerprint(&records[..skip]);
        self.records = records.split_off(skip);
        self.used = whole;
        self.map.store_u32(0, u32::try_from(self.used).unwrap_or(0));
        self.guard.map.store_u32(DONE, u32::try_from(self.start).unwrap_or(0));
        self.guard.map.store_u32(FINGERPRINT, self.fingerprint);
        if self.unfinished.is_none() {
            self.guard.map.store_u32(STATE, NO_FLUSH);
        }
        self.guard.store_u64(BOOT, boot);
        self.guard.map.store_u32(OPEN, 1);
        self.guard.map.store_u32(DONE_FINGERPRINT, self.done_fingerprint);
        self.guard.map.store_u32(MAGIC, GUARD_MAGIC);
        if self.is_empty() {
            self.end_flush();
        }
        Ok(())
    }

    /// Closes the buffer, but keeps the right to it.
    pub(crate) fn into_guard(self) -> Guard {
        self.guard
    }

    /// Marks the buffer as no longer open.
    pub(crate) fn close(&self) {
        self.guard.map.store_u32(OPEN, 0);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == self.start
    }

    pub(crate) fn fits(&self, len: usize) -> bool {
        len <= self.capacity - self.used
    }

    /// Adds a record that fits. It is in the buffer from the moment the counter moves.
    pub(crate) fn push(&mut self, head: &[u8], body: &[u8]) {
        let at = PRE_COMMIT_HEADER_LEN + self.used;
        self.map.write(at, head);
        self.map.write(at + head.len(), body);
        let len = head.len() + body.len();
        // Computed over the record in one piece, which is faster than over its two parts.
        let (crc, head) = if self.checksums {
            (crc32fast::hash(self.map.slice(at, len)), encoded_hash(head))
        } else {
            (0, 0)
        };
        self.used += len;
        // The capacity of a buffer, and thus its contents, is far below 4 GiB.
        #[allow(clippy::cast_possible_truncation)]
        {
            self.records.push(Sums { len: len as u32, crc, head });
            self.map.store_u32(0, self.used as u32);
        }
        if self.checksums {
            self.fingerprint = add_to(self.fingerprint, crc);
            self.guard.map.store_u32(FINGERPRINT, self.fingerprint);
        }
    }

    /// The bytes of the records that are in no segment yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.slice(PRE_COMMIT_HEADER_LEN + self.start, self.used - self.start)
    }

    /// Total length and checksum of each of them.
    pub(crate) fn records(&self) -> &[Sums] {
        &self.records
    }

    /// Records the destination of the bytes before they are written.
    pub(crate) fn begin_flush(&mut self, format: RecordFormat, segment: u32, offset: u64) {
        if !self.checksums {
            self.records = whole_records(format, self.bytes()).0;
        }
        let map = &self.guard.map;
        map.store_u32(STATE, NO_FLUSH);
        map.store_u32(SEGMENT, segment);
        map.store_u32(BYTES, u32::try_from(self.used - self.start).unwrap_or(0));
        self.guard.store_u64(OFFSET, offset);
        map.store_u32(FLUSHED, fingerprint(&self.records));
        map.store_u32(STATE, WRITING);
    }

    /// Removes the record of the flush, once its bytes were truncated again or are accounted for.
    pub(crate) fn abandon_flush(&mut self) {
        self.guard.map.store_u32(STATE, NO_FLUSH);
        self.unfinished = None;
    }

    /// Keeps the record of the flush: its bytes could not be undone, and are examined before the
    /// next flush.
    pub(crate) fn doubt_flush(&mut self, segment: u32, offset: u64) {
        self.unfinished = Some(Unfinished { segment, offset, written: false });
    }

    /// Empties the buffer: its records are in a segment.
    pub(crate) fn end_flush(&mut self) {
        self.guard.map.store_u32(STATE, WRITTEN);
        self.map.store_u32(0, 0);
        self.guard.map.store_u32(FINGERPRINT, 0);
        self.guard.map.store_u32(DONE, 0);
        self.guard.map.store_u32(DONE_FINGERPRINT, 0);
        self.guard.map.store_u32(STATE, NO_FLUSH);
        self.start = 0;
        self.used = 0;
        self.fingerprint = 0;
        self.done_fingerprint = 0;
        self.records.clear();
        self.unfinished = None;
    }

    /// How many records end within the first `bytes` bytes, and how many bytes they have.
    pub(crate) fn first_records(&self, bytes: u64) -> (usize, usize) {
        records_within(&self.records, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Drops the first `n` records: they are in a segment.
    pub(crate) fn drop_first(&mut self, n: usize) {
        let n = n.min(self.records.len());
        self.start += self.records[..n].iter().map(|record| record.len as usize).sum::<usize>();
        self.done_fingerprint =
            self.records[..n].iter().fold(self.done_fingerprint, |sum, record| add_to(sum, record.crc));
        self.records.drain(..n);
        self.guard.map.store_u32(DONE_FINGERPRINT, self.done_fingerprint);
        self.guard.map.store_u32(DONE, u32::try_from(self.start).unwrap_or(0));
        if self.is_empty() {
            self.end_flush();
        }
    }

    /// Whether another process (of the C library, which does not know the guard) has used the
    /// buffer meanwhile.
    pub(crate) fn is_foreign(&self) -> bool {
        self.map.load_u32(0) as usize != self.used
    }

    /// Takes over the records that another process has put in the buffer.
    pub(crate) fn adopt(&mut self, shared: &Shared, format: RecordFormat) -> Result<()> {
        self.recover(shared, format)
    }

    pub(crate) fn sync(&self, shared: &Shared) -> Result<()> {
        let fail = |e| Error::io("sync", shared.at(names::PRE_COMMIT), e);
        self.map.sync().map_err(fail)?;
        self.guard.map.sync().map_err(fail)
    }
}

/// How many of these records end within the first `bytes` bytes, and how many bytes they have.
fn records_within(records: &[Sums], bytes: usize) -> (usize, usize) {
    let mut end = 0;
    for (i, &Sums { len, .. }) in records.iter().enumerate() {
        if end + len as usize > bytes {
            return (i, end);
        }
        end += len as usize;
    }
    (records.len(), end)
}
