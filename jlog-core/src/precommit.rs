//! The pre-commit buffer: records that a writer has accepted and not yet put in a segment, in a shared map,
//! so that they survive the process.
//!
//! Next to the buffer (whose layout is the C library's) stands `pre_commit.guard`, ours alone:
//!
//! ```text
//!  0  u32  0x3167706a ("jpg1")
//!  4  u32  1 while a flush is under way, else 0
//!  8  u64  the machine's boot id when the buffer was last opened
//! 16  u32  segment that the flush goes to
//! 20  u32  bytes that it writes
//! 24  u64  offset that they go to
//! ```
//!
//! Its flock makes the owner of the buffer known: there is one. The flush's place makes a flush that was cut
//! short by the writer's end complete once, neither lost nor doubled.

use std::sync::Arc;

use crate::format::{MAX_PRE_COMMIT, PRE_COMMIT_HEADER_LEN, RecordFormat};
use crate::names;
use crate::scan::{Step, step};
use crate::shared::Shared;
use crate::storage::{File, Map, Open};
use crate::{Error, Event, Result};

const GUARD_MAGIC: u32 = u32::from_le_bytes(*b"jpg1");
const GUARD_LEN: usize = 32;

/// A flush that was under way when its writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// The buffer, owned by one writer.
#[derive(Debug)]
pub(crate) struct PreCommit {
    map: Map,
    guard: Map,
    /// Held for its flock.
    _guard_file: Arc<dyn File>,
    capacity: usize,
    used: usize,
    /// Total length and checksum of each record in the buffer.
    records: Vec<(u32, u32)>,
    pub(crate) unfinished: Option<Unfinished>,
}

/// The whole records at the beginning of `bytes`: their number and their length together.
pub(crate) fn whole_records(format: RecordFormat, bytes: &[u8]) -> (Vec<(u32, u32)>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Step::Record(_, total) = step(format, &bytes[at..], (bytes.len() - at) as u64) {
        // A record in the slice is no longer than the slice.
        let Ok(len) = usize::try_from(total) else { break };
        let crc = crc32fast::hash(&bytes[at..at + len]);
        records.push((u32::try_from(total).unwrap_or(u32::MAX), crc));
        at += len;
    }
    (records, at)
}

/// The size of the buffer there is: `None` without a file.
pub(crate) fn size_on_disk(shared: &Shared) -> Result<Option<u64>> {
    match shared.open_if_there(names::PRE_COMMIT, Open::Read)? {
        None => Ok(None),
        Some(file) => {
            let len = file.len().map_err(|e| Error::io("read", shared.at(names::PRE_COMMIT), e))?;
            Ok(Some(len.saturating_sub(PRE_COMMIT_HEADER_LEN as u64)))
        }
    }
}

/// Bytes in use and size of the buffer, for showing; nothing where there is no file.
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

/// Makes an empty buffer of this size in place of what is there, in one step.
pub(crate) fn create(shared: &Shared, size: u32) -> Result<()> {
    let temporary = shared.create_temporary()?;
    let len = PRE_COMMIT_HEADER_LEN as u64 + u64::from(size);
    temporary.file.allocate(len).map_err(|e| Error::io("allocate", shared.at(names::PRE_COMMIT), e))?;
    temporary.sync()?;
    temporary.rename(names::PRE_COMMIT)?;
    shared.sync_dir()
}

impl PreCommit {
    /// Becomes the owner of the buffer and looks at what an earlier writer left in it.
    ///
    /// # Errors
    /// [`Error::PreCommitBusy`] where another writer owns it; [`Error::DiskFull`] where there is no room for
    /// all of it.
    pub(crate) fn open(shared: &Shared, format: RecordFormat) -> Result<Self> {
        let guard_path = shared.at(names::PRE_COMMIT_GUARD);
        let guard_file = shared.open(names::PRE_COMMIT_GUARD, Open::Create(shared.file_mode))?;
        if !guard_file.try_guard(true).map_err(|e| Error::io("lock", &guard_path, e))? {
            return Err(Error::PreCommitBusy { path: guard_path });
        }
        guard_file.allocate(GUARD_LEN as u64).map_err(|e| Error::io("allocate", &guard_path, e))?;
        let guard = guard_file.map(GUARD_LEN).map_err(|e| Error::io("map", &guard_path, e))?;

        let path = shared.at(names::PRE_COMMIT);
        let file = shared.open(names::PRE_COMMIT, Open::Write)?;
        let len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let max = PRE_COMMIT_HEADER_LEN as u64 + u64::from(MAX_PRE_COMMIT);
        // A larger buffer than can be configured is still used, as the C library does, within reason.
        if len > 16 * max {
            return Err(Error::OutOfRange {
                what: "the size of the pre_commit file",
                value: len,
                allowed: "up to 128 MiB",
            });
        }
        let len = len.max(PRE_COMMIT_HEADER_LEN as u64);
        // All of it gets its room now: a map without room behind it kills the process at the first touch.
        file.allocate(len).map_err(|e| Error::io("allocate", &path, e))?;
        let len = usize::try_from(len).unwrap_or(PRE_COMMIT_HEADER_LEN);
        let map = file.map(len).map_err(|e| Error::io("map", &path, e))?;
        let mut buffer = Self {
            map,
            guard,
            _guard_file: guard_file,
            capacity: len - PRE_COMMIT_HEADER_LEN,
            used: 0,
            records: Vec::new(),
            unfinished: None,
        };
        buffer.recover(shared, format)?;
        Ok(buffer)
    }

    fn recover(&mut self, shared: &Shared, format: RecordFormat) -> Result<()> {
        let counter = self.map.load_u32(0) as usize;
        let used = counter.min(self.capacity);
        let ours = self.guard.load_u32(0) == GUARD_MAGIC;
        let boot = shared.storage.boot_id();
        let same_boot = u64::from(self.guard.load_u32(8)) | u64::from(self.guard.load_u32(12)) << 32;
        let flushing = ours && self.guard.load_u32(4) == 1;
        if used > 0 {
            let bytes = self.map.slice(PRE_COMMIT_HEADER_LEN, used);
            if ours && same_boot != boot {
                let kept = shared.keep_broken(names::PRE_COMMIT, 0, bytes)?;
                shared.note(Event::BufferSetAside { len: used as u64, kept: shared.at(&kept) });
            } else {
                let (records, whole) = whole_records(format, bytes);
                if whole < used {
                    let kept = shared.keep_broken(names::PRE_COMMIT, whole as u64, &bytes[whole..])?;
                    shared.note(Event::BufferCut { len: (used - whole) as u64, kept: shared.at(&kept) });
                }
                if flushing && self.guard.load_u32(20) as usize == used {
                    self.unfinished = Some(Unfinished {
                        segment: self.guard.load_u32(16),
                        offset: u64::from(self.guard.load_u32(24)) | u64::from(self.guard.load_u32(28)) << 32,
                    });
                }
                self.used = whole;
                self.records = records;
            }
        }
        self.map.store_u32(0, u32::try_from(self.used).unwrap_or(0));
        if self.unfinished.is_none() {
            self.guard.store_u32(4, 0);
        }
        let [low, high] = split(boot);
        self.guard.store_u32(8, low);
        self.guard.store_u32(12, high);
        self.guard.store_u32(0, GUARD_MAGIC);
        Ok(())
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn fits(&self, len: usize) -> bool {
        len <= self.capacity - self.used
    }

    /// Adds a record that fits. It is the writer's from the moment the counter moves.
    pub(crate) fn push(&mut self, head: &[u8], body: &[u8], crc: u32) {
        let at = PRE_COMMIT_HEADER_LEN + self.used;
        self.map.write(at, head);
        self.map.write(at + head.len(), body);
        let len = head.len() + body.len();
        self.used += len;
        // The capacity of a buffer is far below 4 GiB, and so is what it holds.
        #[allow(clippy::cast_possible_truncation)]
        {
            self.records.push((len as u32, crc));
            self.map.store_u32(0, self.used as u32);
        }
    }

    /// The records' bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.slice(PRE_COMMIT_HEADER_LEN, self.used)
    }

    /// Total length and checksum of each record.
    pub(crate) fn records(&self) -> &[(u32, u32)] {
        &self.records
    }

    /// Notes where the bytes are about to be written.
    pub(crate) fn begin_flush(&self, segment: u32, offset: u64) {
        let [low, high] = split(offset);
        self.guard.store_u32(16, segment);
        self.guard.store_u32(20, u32::try_from(self.used).unwrap_or(0));
        self.guard.store_u32(24, low);
        self.guard.store_u32(28, high);
        self.guard.store_u32(4, 1);
    }

    /// Takes the note back: nothing was written.
    pub(crate) fn abandon_flush(&mut self) {
        self.guard.store_u32(4, 0);
        self.unfinished = None;
    }

    /// Empties the buffer: its records are in a segment.
    pub(crate) fn end_flush(&mut self) {
        self.map.store_u32(0, 0);
        self.guard.store_u32(4, 0);
        self.used = 0;
        self.records.clear();
        self.unfinished = None;
    }

    /// How many records end within the first `bytes` bytes, and how many bytes they have.
    pub(crate) fn first_records(&self, bytes: u64) -> (usize, usize) {
        let mut end = 0;
        for (i, &(len, _)) in self.records.iter().enumerate() {
            if (end + len as usize) as u64 > bytes {
                return (i, end);
            }
            end += len as usize;
        }
        (self.records.len(), end)
    }

    /// Drops the first `n` records: they are in a segment already.
    pub(crate) fn drop_first(&mut self, n: usize) {
        let n = n.min(self.records.len());
        let bytes: usize = self.records[..n].iter().map(|&(len, _)| len as usize).sum();
        let rest = self.bytes()[bytes..].to_vec();
        self.map.write(PRE_COMMIT_HEADER_LEN, &rest);
        self.used = rest.len();
        self.records.drain(..n);
        self.map.store_u32(0, u32::try_from(self.used).unwrap_or(0));
    }

    /// Whether somebody else (a C process that does not know of the guard) has used the buffer meanwhile.
    pub(crate) fn is_foreign(&self) -> bool {
        self.map.load_u32(0) as usize != self.used
    }

    /// Takes in what somebody else has put in the buffer.
    pub(crate) fn adopt(&mut self, shared: &Shared, format: RecordFormat) -> Result<()> {
        self.recover(shared, format)
    }

    pub(crate) fn sync(&self, shared: &Shared) -> Result<()> {
        let fail = |e| Error::io("sync", shared.at(names::PRE_COMMIT), e);
        self.map.sync().map_err(fail)?;
        self.guard.sync().map_err(fail)
    }
}

fn split(n: u64) -> [u32; 2] {
    // Both halves are wanted.
    #[allow(clippy::cast_possible_truncation)]
    [n as u32, (n >> 32) as u32]
}
