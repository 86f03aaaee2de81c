//! Index files: a cache of the offsets of a segment's records. Reading never needs one; an index
//! that exists and fits saves a scan. Its entries are checked against the segment before they are
//! used.

use std::io::IoSlice;
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::codec::format::{INDEX_ENTRY_LEN, RecordFormat};
use crate::codec::names;
use crate::files::scan::{Step, Stop, Window, step, walk};
use crate::files::shared::Shared;
use crate::loss::Records;
use crate::storage::{File, LockGuard, Open, read_exact_at, write_all_at};
use crate::{Error, LogId, Result};

/// The contents of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// Marker of the last record listed: how many there are.
    pub last: u32,
    /// Whether the index is closed: the segment is complete, and every record is listed.
    pub closed: bool,
}

/// An index file, open.
struct Index {
    file: Arc<dyn File>,
    len: u64,
}

impl Index {
    fn open(shared: &Shared, segment: u32) -> Option<Self> {
        let file = shared.open(&names::index(segment), Open::Read).ok()?;
        let len = file.len().ok()?;
        Some(Self { file, len })
    }

    fn entry(&self, n: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        read_exact_at(&*self.file, &mut bytes, n * INDEX_ENTRY_LEN).ok()?;
        Some(LE::read_u64(&bytes))
    }

    /// Whole entries, and whether a closing 0 follows them.
    fn state(&self) -> Option<IndexState> {
        if !self.len.is_multiple_of(INDEX_ENTRY_LEN) {
            return None;
        }
        let entries = self.len / INDEX_ENTRY_LEN;
        let closed = entries > 1 && self.entry(entries - 1)? == 0;
        let last = u32::try_from(entries - u64::from(closed)).ok()?;
        Some(IndexState { last, closed })
    }

    /// Where a record begins, if the index is plausible: the record before it must end exactly
    /// there.
    fn offset(&self, data: &dyn File, format: RecordFormat, marker: u32, to: u64) -> Option<u64> {
        let at = self.entry(u64::from(marker) - 1)?;
        let ends_at = match marker {
            1 => 0,
            _ => end_of(data, format, self.entry(u64::from(marker) - 2)?, to)?,
        };
        (at == ends_at).then_some(at)
    }
}

/// Where the record that begins at `offset` ends; `None` if there is none, or it does not end
/// before `to`.
fn end_of(data: &dyn File, format: RecordFormat, offset: u64, to: u64) -> Option<u64> {
    let mut head = [0; 20];
    let head = &mut head[..format.header_len()];
    let left = to.checked_sub(offset)?;
    read_exact_at(data, head, offset).ok()?;
    match step(format, head, left) {
        Step::Record(_, total) => Some(offset + total),
        _ => None,
    }
}

/// How many records the index lists, and where the last of them ends, if that is plausible.
pub(crate) fn tail(
    shared: &Shared,
    segment: u32,
    data: &dyn File,
    format: RecordFormat,
) -> Option<(u32, u64)> {
    let index = Index::open(shared, segment)?;
    let state = index.state()?;
    if state.last == 0 {
        return None;
    }
    let to = data.len().ok()?;
    let begin = index.offset(data, format, state.last, to)?;
    Some((state.last, end_of(data, format, begin, to)?))
}

/// Where the record after `marker` begins, if the index shows that.
pub(crate) fn after(
    shared: &Shared,
    segment: u32,
    data: &dyn File,
    format: RecordFormat,
    marker: u32,
) -> Option<u64> {
    let index = Index::open(shared, segment)?;
    let state = index.state()?;
    if marker == 0 || marker > state.last {
        return None;
    }
    let to = data.len().ok()?;
    let begin = index.offset(data, format, marker, to)?;
    end_of(data, format, begin, to)
}

/// Reads the contents of an index, without changing it.
pub(crate) fn state(shared: &Shared, segment: u32) -> Result<Option<IndexState>> {
    let name = names::index(segment);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
    let len = file.len().map_err(|e| Error::io("read", shared.at(&name), e))?;
    Ok(Index { file, len }.state())
}

/// How many records the index of a removed segment lists.
pub(crate) fn left_over(shared: &Shared, segment: u32) -> Option<Records> {
    let index = Index::open(shared, segment)?;
    let mut window = Window::default();
    let mut last = None;
    let mut at_least = 0;
    for n in 0..index.len / INDEX_ENTRY_LEN {
        let entry = window.at(&*index.file, n * INDEX_ENTRY_LEN, 8).ok()?.first_chunk::<8>()?;
        let entry = LE::read_u64(entry);
        if last.map_or(entry != 0, |last| entry <= last) {
            let exact = entry == 0 && (n + 1) * INDEX_ENTRY_LEN == index.len;
            return Some(Records { at_least, exact }).filter(|_| at_least > 0);
        }
        at_least += 1;
        last = Some(entry);
    }
    Some(Records { at_least, exact: false }).filter(|_| at_least > 0)
}

/// Whether the index of a complete segment is closed, and lists records after the segment's first
/// `len` bytes. `records` is how many the segment has, if that is known: then the length of the
/// index may be enough to decide.
pub(crate) fn lists_beyond(shared: &Shared, segment: u32, len: u64, records: Option<u32>) -> bool {
    if let Some(records) = records {
        let listed = shared.facts(&names::index(segment)).map_or(0, |facts| facts.len / INDEX_ENTRY_LEN);
        if listed <= u64::from(records) + 1 {
            return false;
        }
    }
    let Some(index) = Index::open(shared, segment) else { return false };
    let Some(state) = index.state().filter(|state| state.closed && state.last > 0) else { return false };
    index.entry(u64::from(state.last) - 1).is_some_and(|last| last >= len)
}

/// Removes the closed index of a segment that is being written and ends at `end`, if it lists more:
/// it belongs to a segment that this one was restored over.
pub(crate) fn drop_stale(shared: &Shared, segment: u32, end: u64) -> Result<()> {
    if lists_beyond(shared, segment, end, None) {
        shared.remove_if_there(&names::index(segment))?;
    }
    Ok(())
}

/// How many records a complete segment had according to its closed index, and how many of them
/// remain, if it was cut at the end of one: the remaining ones begin and end where the index says.
pub(crate) fn cut(
    shared: &Shared,
    segment: u32,
    data: &dyn File,
    format: RecordFormat,
    len: u64,
) -> Option<(Records, u32)> {
    let had = left_over(shared, segment).filter(|had| had.exact)?;
    let index = Index::open(shared, segment)?;
    let (mut entries, mut heads) = (Window::default(), Window::default());
    let mut there = 0;
    let mut whole = true;
    while there < had.at_least {
        let at = u64::from(there) * INDEX_ENTRY_LEN;
        let bytes = entries.at(&*index.file, at, 16).ok()?.first_chunk::<16>()?;
        let (begin, end) = (LE::read_u64(&bytes[..8]), LE::read_u64(&bytes[8..]));
        if there == 0 && begin != 0 {
            return None;
        }
        if begin >= len {
            break;
        }
        there += 1;
        // The last one: only a cut segment ends elsewhere, and then within this record.
        let end = if there == had.at_least { len } else { end };
        let head = heads.at(data, begin, format.header_len()).ok()?;
        whole = match step(format, head, len - begin) {
            Step::Record(_, total) if begin + total == end => true,
            // These are not the records that the index lists.
            Step::Record(..) => return None,
            // This is damage, if the next record is where it was.
            _ => false,
        };
    }
    // An end within a record is damage.
    let ends_here = there == 0 || entry_is(&index, there, len);
    (there < had.at_least && whole && ends_here).then_some((had, there))
}

fn entry_is(index: &Index, n: u32, offset: u64) -> bool {
    index.entry(n.into()) == Some(offset)
}

/// How many entries are collected before they are written.
const ENTRIES_AT_ONCE: usize = 8192;

/// Brings a segment's index up to date, under the index's lock. Every process that reads by marker
/// does this.
///
/// `storage_log` was read before this call: only a segment before it gets the closing 0, and only
/// when it has not grown meanwhile and ends with a whole record.
///
/// `before_rebuild` is called before the index of such a segment is replaced: the old index may
/// list records that the segment has lost.
///
/// # Errors
/// [`Error::Damaged`] if bytes are not a record; [`Error::Io`], [`Error::DiskFull`] if the index
/// cannot be written (nothing wrong is left in it).
pub(crate) fn resync(
    shared: &Shared,
    segment: u32,
    data: &Arc<dyn File>,
    format: RecordFormat,
    storage_log: u32,
    before_rebuild: impl FnOnce() -> Result<()>,
) -> Result<IndexState> {
    let name = names::index(segment);
    let path = shared.at(&name);
    let data_path = shared.at(&names::segment(segment));
    let file = shared.open(&name, Open::Create(shared.mode()))?;
    let _lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &path, e))?;
    let fail = |e| Error::io("write", &path, e);
    let len = file.len().map_err(fail)?;
    let data_len = data.len().map_err(|e| Error::io("read", &data_path, e))?;
    let index = Index { file: Arc::clone(&file), len };
    // The index is used from its end, or it is rebuilt.
    let known = index.state().and_then(|state| {
        if state.last == 0 {
            return Some((0, 0, false));
        }
        let begin = index.offset(&**data, format, state.last, data_len)?;
        let end = end_of(&**data, format, begin, data_len)?;
        // Closed too early: more was written afterwards.
        (!state.closed || end == data_len).then_some((state.last, end, state.closed))
    });
    let (mut last, from, closed) = known.unwrap_or((0, 0, false));
    if closed {
        return Ok(IndexState { last, closed });
    }
    if known.is_none() && segment < storage_log {
        before_rebuild()?;
    }
    let mut at = u64::from(last) * INDEX_ENTRY_LEN;
    if len != at {
        file.set_len(at).map_err(fail)?;
    }
    let mut entries: Vec<u8> = Vec::new();
    let mut failed = None;
    let write = |entries: &mut Vec<u8>, at: &mut u64| {
        if let Err(e) = write_all_at(&*file, &mut [IoSlice::new(entries)], *at) {
            // A partial entry must not remain.
            let _ = file.set_len(*at);
            return Some(e);
        }
        *at += entries.len() as u64;
        entries.clear();
        None
    };
    let mut window = Window::default();
    let walked = walk(&**data, format, from, data_len, &mut window, |offset, _, _| {
        let start = entries.len();
        entries.resize(start + 8, 0);
        LE::write_u64(&mut entries[start..], offset);
        if entries.len() >= ENTRIES_AT_ONCE * 8 && failed.is_none() {
            failed = write(&mut entries, &mut at);
        }
    })
    .map_err(|e| Error::io("read", &data_path, e))?;
    if failed.is_none() && !entries.is_empty() {
        failed = write(&mut entries, &mut at);
    }
    if let Some(e) = failed {
        return Err(fail(e));
    }
    last += walked.records;
    let complete = segment < storage_log;
    let damaged = |len| Error::Damaged {
        path: data_path.clone(),
        offset: walked.offset,
        id: LogId::new(segment, last.saturating_add(1)),
        len,
    };
    match walked.stop {
        Stop::Corrupt => return Err(damaged(data_len - walked.offset)),
        Stop::Torn if complete => return Err(damaged(data_len - walked.offset)),
        Stop::Torn | Stop::End => {}
    }
    let unchanged = data.len().map_err(|e| Error::io("read", &data_path, e))? == data_len;
    let closed = complete && unchanged;
    if closed && last > 0 {
        // The closing 0; an index with nothing else would look like one with an entry.
        if let Err(e) = write_all_at(&*file, &mut [IoSlice::new(&[0; 8])], at) {
            let _ = file.set_len(at);
            return Err(fail(e));
        }
    }
    Ok(IndexState { last, closed })
}
