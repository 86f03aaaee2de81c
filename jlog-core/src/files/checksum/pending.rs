//! The checksums that a writer has not written out yet, and writers' changes to the sidecar.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::runs::{Head, RUN_HEADER_LEN, Run, Sums, entries, heads, place_tag};
use crate::codec::names;
use crate::files::scan::Window;
use crate::files::shared::Shared;
use crate::storage::{File, Open, write_all_at};
use crate::{Error, Event, Result, Timestamp};

/// A sidecar with more runs than this is rewritten with long runs when its segment is full.
const JOIN_FROM: usize = 16;
/// Runs of this many records are long enough.
const LONG_RUN: u64 = 1024;
/// Runs are merged up to this many records, because looking up one record reads its whole run.
const JOINED_MAX: usize = 1 << 16;

/// Checksums that the writer has not written out yet, all of one segment.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    runs: Vec<Run>,
    records: usize,
    /// The latest time of a record so far, without times far ahead of the clock.
    latest: Timestamp,
    /// How long after the last write the next one is due.
    every: Duration,
    last: Option<Instant>,
    /// Memory of the last runs, reused for the next ones: if it were freed each time, it would go
    /// back to the system and be faulted in again.
    spare: Spare,
}

#[derive(Debug, Default)]
struct Spare {
    crcs: Vec<u32>,
    tags: Vec<u32>,
    bytes: Vec<u8>,
}

/// Where a batch of checksums begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    records: usize,
    bytes: u64,
    last: u64,
}

/// Times further ahead than this do not come from a clock.
const AHEAD_SECONDS: u32 = 86_400;

/// Checksums are written out when this many are pending.
const PENDING_MAX: usize = 4096;

impl Pending {
    /// No checksums yet; `every` is the time between two writes that nothing else requires.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, ..Self::default() }
    }

    /// Whether it is time to write them out.
    pub(crate) fn is_due(&self) -> bool {
        self.records > 0 && self.last.is_none_or(|last| last.elapsed() >= self.every)
    }

    /// Notes the time of a record that is about to be written.
    pub(crate) fn saw(&mut self, time: Timestamp) {
        // The clock is read once for each second of message times.
        let known = time.seconds == self.latest.seconds;
        if time > self.latest
            && (known || time.seconds <= Timestamp::now().seconds.saturating_add(AHEAD_SECONDS))
        {
            self.latest = time;
        }
    }

    /// Begins with the records from `marker` on, which stand in the segment from `offset` on.
    pub(crate) fn begin(&mut self, marker: u32, offset: u64) -> Mark {
        let follows = |run: &Run| {
            run.end() == offset && u64::from(run.marker) + run.crcs.len() as u64 == u64::from(marker)
        };
        if !self.runs.last().is_some_and(follows) {
            self.runs.retain(|run| !run.crcs.is_empty());
            self.runs.push(Run {
                offset,
                bytes: 0,
                last: offset,
                inode: 0,
                marker,
                written: Timestamp::default(),
                crcs: std::mem::take(&mut self.spare.crcs),
                tags: std::mem::take(&mut self.spare.tags),
            });
        }
        let run = self.runs.last();
        Mark {
            records: run.map_or(0, |run| run.crcs.len()),
            bytes: run.map_or(0, |run| run.bytes),
            last: run.map_or(0, |run| run.last),
        }
    }

    /// Adds the next record.
    #[inline]
    pub(crate) fn push(&mut self, sums: Sums) {
        let Some(run) = self.runs.last_mut() else { return };
        let offset = run.end();
        run.bytes += u64::from(sums.len);
        run.last = offset;
        run.crcs.push(sums.crc);
        run.tags.push(place_tag(offset, sums.head));
        self.records += 1;
    }

    /// Takes back what was added since a beginning.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        let Some(run) = self.runs.last_mut() else { return };
        self.records -= run.crcs.len() - mark.records;
        run.crcs.truncate(mark.records);
        run.tags.truncate(mark.records);
        (run.bytes, run.last) = (mark.bytes, mark.last);
    }

    pub(crate) fn is_some(&self) -> bool {
        self.records > 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records >= PENDING_MAX
    }

    pub(crate) fn clear(&mut self) {
        if let Some(run) = self.runs.pop() {
            let emptied = |mut numbers: Vec<u32>| {
                numbers.clear();
                numbers.shrink_to(2 * PENDING_MAX);
                numbers
            };
            (self.spare.crcs, self.spare.tags) = (emptied(run.crcs), emptied(run.tags));
        }
        self.runs.clear();
        self.records = 0;
    }

    /// Appends pending checksums to a segment's sidecar. The caller holds the segment's lock.
    /// Checksums that cannot be written are dropped: their records are then unverified, nothing
    /// worse.
    pub(crate) fn write_out(&mut self, shared: &Shared, segment: u32, data: &dyn File) {
        if self.records > 0 {
            let inode = data.facts().map_or(0, |facts| facts.identity.1);
            let mut bytes = std::mem::take(&mut self.spare.bytes);
            bytes.reserve(self.runs.len() * RUN_HEADER_LEN + self.records * 8);
            self.runs.retain(|run| !run.crcs.is_empty());
            for run in &mut self.runs {
                run.inode = inode;
                // If the clock was set back, or the caller gives times, records may be younger than
                // now.
                run.written = Timestamp::now().max(self.latest);
                run.encode(&mut bytes);
            }
            if append(shared, segment, &bytes).is_err() {
                shared.note(Event::ChecksumsNotWritten { segment, records: self.records });
            }
            self.last = Some(Instant::now());
            bytes.clear();
            bytes.shrink_to(16 * PENDING_MAX);
            self.spare.bytes = bytes;
        }
        self.clear();
    }
}

fn append(shared: &Shared, segment: u32, bytes: &[u8]) -> Result<()> {
    let name = names::checksums(segment);
    let file = shared.open(&name, Open::Create(shared.mode()))?;
    let fail = |e| Error::io("write", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], len).map_err(|e| {
        // A partial run would only be skipped; without it, the file is unchanged.
        let _ = file.set_len(len);
        fail(e)
    })
}

/// Merges the runs of a full segment, if there are many short ones. Without disk space for that,
/// they stay as they are.
pub(crate) fn join(shared: &Shared, segment: u32) {
    let Ok(Some(file)) = shared.open_if_there(&names::checksums(segment), Open::Read) else { return };
    let mut window = Window::default();
    let Ok((mut heads, _)) = file.len().and_then(|len| heads(&*file, 0, len, &mut window)) else { return };
    let records: u64 = heads.iter().map(|head| u64::from(head.count)).sum();
    if heads.len() < JOIN_FROM || records / heads.len() as u64 >= LONG_RUN {
        return;
    }
    heads.sort_by_key(|head| head.offset);
    // If there is no space, or another sidecar has replaced this one, nothing is merged.
    let _ = join_runs(shared, segment, &*file, &heads);
}

fn join_runs(shared: &Shared, segment: u32, file: &dyn File, heads: &[Head]) -> Result<()> {
    let temporary = shared.create_temporary()?;
    let (mut at, mut bytes) = (0, Vec::new());
    let mut joined: Option<Run> = None;
    let mut window = Window::default();
    let mut write = |run: Option<Run>| -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        bytes.clear();
        run.encode(&mut bytes);
        temporary.write(&bytes, at)?;
        at += bytes.len() as u64;
        Ok(())
    };
    for head in heads {
        let fail = |e| Error::io("read", shared.at(&names::checksums(segment)), e);
        let Some(entries) = entries(file, head, &mut window).map_err(fail)? else { continue };
        let run = head.with(entries);
        match &mut joined {
            Some(last)
                if last.end() == run.offset
                    && last.inode == run.inode
                    && last.tags.is_empty() == run.tags.is_empty()
                    && u64::from(last.marker) + last.crcs.len() as u64 == u64::from(run.marker)
                    && last.crcs.len() + run.crcs.len() <= JOINED_MAX =>
            {
                last.bytes += run.bytes;
                last.last = run.last;
                last.written = last.written.max(run.written);
                last.crcs.extend(run.crcs);
                last.tags.extend(run.tags);
            }
            _ => write(joined.replace(run))?,
        }
    }
    write(joined)?;
    // Not synced: a sidecar that a power failure damages is ignored.
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
    // Not synced: a sidecar that a power failure damages is ignored.
    let temporary = shared.create_temporary()?;
    temporary.write(&bytes, 0)?;
    temporary.rename(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_joins_neighbours() {
        let mut pending = Pending::default();
        pending.begin(1, 0);
        pending.push(Sums { len: 20, crc: 10, head: 1 });
        let mark = pending.begin(2, 20);
        pending.push(Sums { len: 30, crc: 9, head: 9 });
        pending.push(Sums { len: 10, crc: 9, head: 9 });
        pending.take_back(mark);
        pending.begin(2, 20);
        pending.push(Sums { len: 20, crc: 11, head: 2 });
        let mark = pending.begin(3, 50);
        pending.push(Sums { len: 10, crc: 9, head: 9 });
        pending.take_back(mark);
        pending.begin(4, 60);
        pending.push(Sums { len: 20, crc: 12, head: 3 });
        assert_eq!(pending.records, 3);
        let crcs: Vec<_> = pending.runs.iter().map(|run| (run.marker, run.last, run.crcs.clone())).collect();
        assert_eq!(crcs, [(1, 20, vec![10, 11]), (4, 60, vec![12])]);
    }
}
