//! Compares records with the sidecar's entries for their places.

use std::io;
use std::sync::Arc;

use super::runs::{
    Entries, Head, MAX_RUNS, RUN_HEADER_LEN, Run, SIDECAR_AHEAD, entries, entries_bytes, header_hash, heads,
    place_tag,
};
use crate::codec::format::{RecordFormat, RecordHeader};
use crate::codec::names;
use crate::files::metastore::MetaReader;
use crate::files::scan::{Place, Step, Window, record_crc, step, whole};
use crate::files::shared::Shared;
use crate::loss::Records;
use crate::storage::{File, Open, read_up_to_at};
use crate::{Error, Result, Timestamp};

/// The verdict of the sidecar on a record at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The record is the one that was written there.
    Good,
    /// No run covers this place.
    Uncovered,
    /// A run covers this place, and does not list this record there: the record is damaged, or the
    /// run describes other records. `survey` decides.
    Doubtful,
}

/// A record to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
    pub(crate) total: u64,
}

/// The result of rereading the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The same runs, and perhaps more.
    Same,
    /// The name belongs to another file.
    Replaced,
}

/// A record at the place that a run gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InPlace {
    pub(crate) run: usize,
    pub(crate) marker: u32,
    pub(crate) crc: u32,
}

/// A segment's sidecar. Holds the checksums of one run at a time.
#[derive(Debug)]
pub(crate) struct Verifier {
    sidecar: Option<Arc<dyn File>>,
    heads: Vec<Head>,
    /// How far the sidecar was read, and its length at that time: it grows while its segment is
    /// written.
    read: u64,
    len: u64,
    /// The part that was read last.
    window: Window,
    loaded: Option<Loaded>,
}

impl Default for Verifier {
    fn default() -> Self {
        let window = Window::of(SIDECAR_AHEAD);
        Self { sidecar: None, heads: Vec::new(), read: 0, len: 0, window, loaded: None }
    }
}

/// The run that was used last: its checksums are intact, and in the window.
#[derive(Debug)]
struct Loaded {
    run: usize,
    /// The tags, or the checksums if there are none, with their places in the run; made when first
    /// needed.
    sorted: Vec<(u32, u32)>,
}

/// A run's checksums, and [`Loaded::sorted`].
type Listed<'a> = (Entries<'a>, &'a mut Vec<(u32, u32)>);

/// How far the clocks of two processes or threads may be apart, in microseconds.
const CLOCKS_DIFFER: u64 = 1000;

impl Verifier {
    /// Reads the sidecar of a segment; a missing one verifies nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if there is a sidecar that cannot be read.
    pub(crate) fn load(shared: &Shared, segment: u32) -> Result<Self> {
        Self::load_over(Self::default(), shared, segment)
    }

    /// The same, reusing the memory of another verifier.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_over(other: Self, shared: &Shared, segment: u32) -> Result<Self> {
        let mut verifier = other.emptied();
        verifier.refresh(shared, segment)?;
        Ok(verifier)
    }

    /// The same memory, without a sidecar.
    pub(crate) fn emptied(mut self) -> Self {
        self.window.empty();
        Self { window: self.window, ..Self::default() }
    }

    /// Reads the runs that were added to the sidecar.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn refresh(&mut self, shared: &Shared, segment: u32) -> Result<Refreshed> {
        let name = names::checksums(segment);
        let fail = |e| Error::io("read", shared.at(&name), e);
        let facts = match shared.facts(&name) {
            Ok(facts) => facts,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Refreshed::Same),
            Err(e) => return Err(fail(e)),
        };
        let known = match &self.sidecar {
            Some(file) => Some(file.facts().map_err(fail)?.identity),
            None => None,
        };
        let same = known == Some(facts.identity);
        if same && facts.len == self.len {
            return Ok(Refreshed::Same);
        }
        if !same || facts.len < self.len {
            let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(Refreshed::Same) };
            *self = Self { sidecar: Some(file), ..std::mem::take(self).emptied() };
        }
        let Some(file) = &self.sidecar else { return Ok(Refreshed::Same) };
        let len = file.len().map_err(fail)?;
        self.loaded = None;
        // After the runs there may have been a partial one, which something else has replaced.
        self.window.empty();
        let (mut heads, done) = heads(&**file, self.read, len, &mut self.window).map_err(fail)?;
        self.heads.append(&mut heads);
        self.heads.truncate(MAX_RUNS);
        // A stable sort: if a tail was cut and written again, the later run counts.
        self.heads.sort_by_key(|head| head.offset);
        self.read = done;
        self.len = len;
        Ok(if same || known.is_none() { Refreshed::Same } else { Refreshed::Replaced })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The last run that covers an offset.
    pub(crate) fn run_at(&self, offset: u64) -> Option<usize> {
        if let Some(loaded) = &self.loaded
            && self.heads[loaded.run].covers(offset)
            && self.heads.get(loaded.run + 1).is_none_or(|next| next.offset > offset)
        {
            return Some(loaded.run);
        }
        let behind = self.heads.partition_point(|head| head.offset <= offset);
        // Runs overlap only if a tail was written again, and then by few records.
        (behind.saturating_sub(8)..behind).rev().find(|&at| self.heads[at].covers(offset))
    }

    /// Whether a run covers this offset.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        self.run_at(offset).is_some()
    }

    /// Whether a run begins in this range: then one record does not fill it.
    pub(crate) fn begins_within(&self, from: u64, to: u64) -> bool {
        self.first_beginning(from, to).is_some()
    }

    /// The first run that begins in this range.
    pub(crate) fn first_beginning(&self, from: u64, to: u64) -> Option<usize> {
        let at = self.heads.partition_point(|head| head.offset < from);
        self.heads.get(at).is_some_and(|head| head.offset < to).then_some(at)
    }

    /// Whether some run ends beyond `len`, the segment's length.
    pub(crate) fn reaches_beyond(&self, len: u64) -> bool {
        self.end() > len
    }

    /// Where the last of the runs ends; 0 without any.
    pub(crate) fn end(&self) -> u64 {
        self.heads.iter().map(Head::end).max().unwrap_or(0)
    }

    /// The marker of the last record of the runs that end in this range; `None` where none does.
    pub(crate) fn last_marker_within(&self, from: u64, to: u64) -> Option<u32> {
        let within = |head: &&Head| head.end() > from && head.end() <= to;
        self.heads.iter().filter(within).map(Head::last_marker).max()
    }

    /// The last run that begins before `to` and ends after `from`.
    pub(crate) fn last_run_within(&self, from: u64, to: u64) -> Option<usize> {
        let behind = self.heads.partition_point(|head| head.offset < to);
        (0..behind).rev().find(|&run| self.heads[run].end() > from)
    }

    /// Whether a run has place tags.
    pub(crate) fn is_tagged(&self, run: usize) -> bool {
        self.heads[run].tagged
    }

    /// The marker of a run's last record.
    pub(crate) fn last_marker(&self, run: usize) -> u32 {
        self.heads[run].last_marker()
    }

    /// Where a run's last record begins in the segment that the run describes.
    pub(crate) fn last_offset(&self, run: usize) -> u64 {
        self.heads[run].last
    }

    /// Where a run ends in the segment that it describes.
    pub(crate) fn end_of(&self, run: usize) -> u64 {
        self.heads[run].end()
    }

    /// By how many bytes a listed record has moved towards the beginning, now that it is at `at`;
    /// `None` if it has not, or if the sidecar does not directly say where it was, which it does
    /// for the first and last records of a run.
    pub(crate) fn moved_by(&self, (run, place): (usize, u32), at: u64) -> Option<u64> {
        let head = &self.heads[run];
        let stood = match place {
            0 => head.offset,
            _ if place + 1 == head.count => head.last,
            _ => return None,
        };
        stood.checked_sub(at).filter(|&shift| shift > 0)
    }

    /// Loads a run; `None` where its checksums turn out to be damaged.
    fn load_run(&mut self, run: usize) -> io::Result<Option<Listed<'_>>> {
        let Some(sidecar) = &self.sidecar else { return Ok(None) };
        let head = &self.heads[run];
        if self.loaded.as_ref().is_none_or(|loaded| loaded.run != run) {
            self.loaded = None;
            if entries(&**sidecar, head, &mut self.window)?.is_none() {
                return Ok(None);
            }
            self.loaded = Some(Loaded { run, sorted: Vec::new() });
        }
        let bytes = entries_bytes(&**sidecar, head, &mut self.window)?;
        Ok(bytes.map(|bytes| head.entries(bytes)).zip(self.loaded.as_mut().map(|loaded| &mut loaded.sorted)))
    }

    /// Whether a record is intact, by the checksum that is listed for its marker. `crc` computes
    /// the record's own checksum, if needed.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    #[inline]
    pub(crate) fn check(&mut self, suspect: Suspect, crc: impl FnOnce() -> u32) -> io::Result<Verdict> {
        let Some(run) = self.run_at(suspect.offset) else {
            let end = suspect.offset + suspect.total;
            // A record that reaches into a run: its length is wrong, or the run describes others.
            let spans = self.begins_within(suspect.offset + 1, end);
            return Ok(if spans { Verdict::Doubtful } else { Verdict::Uncovered });
        };
        let first = self.heads[run].marker;
        let Some((entries, _)) = self.load_run(run)? else { return Ok(Verdict::Uncovered) };
        let place = suspect.marker.checked_sub(first).map(|place| place as usize);
        let listed = place.and_then(|place| entries.crcs().get(place));
        Ok(if listed.is_some_and(|&listed| u32::from_le_bytes(listed) == crc()) {
            Verdict::Good
        } else {
            Verdict::Doubtful
        })
    }

    /// How many consecutive whole records at the beginning of `bytes`, at most `most`, are intact,
    /// and how many bytes they have. `first` describes the first of them; its length does not
    /// matter. The record that this stops at must be [checked](Self::check) separately.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn check_all(
        &mut self,
        first: Suspect,
        bytes: &[u8],
        format: RecordFormat,
        most: u32,
    ) -> io::Result<(u32, usize)> {
        let (mut count, mut at) = (0u32, 0usize);
        // Cloned for each record, because a new hasher would detect the CPU's features again.
        let fresh = crc32fast::Hasher::new();
        while at < bytes.len() && count < most {
            let (offset, marker) = (first.offset + at as u64, first.marker.saturating_add(count));
            let Some(run) = self.run_at(offset) else { break };
            let head = self.heads[run];
            // As far as `run_at` gives this run.
            let behind = self.heads.partition_point(|head| head.offset <= offset);
            let until = self.heads.get(behind).map_or(head.end(), |next| head.end().min(next.offset));
            let within = usize::try_from(until - first.offset).unwrap_or(usize::MAX);
            let Some((entries, _)) = self.load_run(run)? else { break };
            let place = marker.checked_sub(head.marker).map(|place| place as usize);
            let listed = place.and_then(|place| entries.crcs().get(place..)).unwrap_or_default();
            let listed = &listed[..listed.len().min((most - count) as usize)];
            let before = at;
            for &crc in listed {
                if at >= within {
                    break;
                }
                let Some(record) = whole(format, &bytes[at..]) else { return Ok((count, at)) };
                let mut hasher = fresh.clone();
                hasher.update(record);
                if hasher.finalize() != u32::from_le_bytes(crc) {
                    return Ok((count, at));
                }
                at += record.len();
                count = count.saturating_add(1);
            }
            if at == before {
                break;
            }
        }
        Ok((count, at))
    }

    /// The entry for a record whose header is at this offset, according to a run. `marker` is what
    /// its marker would be if nothing before it were missing; `follows` says that nothing is. `crc`
    /// computes the record's own checksum, by which runs without tags recognise a record.
    ///
    /// # Errors
    /// Where the sidecar cannot be read, or `crc` fails.
    pub(crate) fn in_place(
        &mut self,
        marker: u32,
        offset: u64,
        header: &RecordHeader,
        follows: bool,
        crc: impl FnOnce() -> io::Result<u32>,
    ) -> io::Result<Option<InPlace>> {
        let Some(run) = self.run_at(offset) else { return Ok(None) };
        let (first, begins) = (self.heads[run].marker, self.heads[run].offset == offset);
        let Some((entries, sorted)) = self.load_run(run)? else { return Ok(None) };
        let (crcs, tags) = (entries.crcs(), entries.tags());
        let expected = if begins { Some(0) } else { marker.checked_sub(first) };
        let expected = expected.filter(|&place| (place as usize) < crcs.len());
        let tagged = !tags.is_empty();
        let (keys, key) =
            if tagged { (tags, place_tag(offset, header_hash(header))) } else { (crcs, crc()?) };
        let crc_of = |place: u32| u32::from_le_bytes(crcs[place as usize]);
        let found = |place: u32| Some(InPlace { run, marker: first.checked_add(place)?, crc: crc_of(place) });
        if let Some(place) = expected
            && u32::from_le_bytes(keys[place as usize]) == key
        {
            return Ok(found(place));
        }
        if !tagged && follows {
            return Ok(None);
        }
        if sorted.is_empty() {
            let places = 0..u32::try_from(keys.len()).unwrap_or(u32::MAX);
            *sorted = keys.iter().map(|&key| u32::from_le_bytes(key)).zip(places).collect();
            sorted.sort_unstable();
        }
        // Without tags, equal records differ only in their order: take the first one not passed
        // yet.
        let least = if tagged { 0 } else { expected.unwrap_or(0) };
        let at = sorted.partition_point(|&entry| entry < (key, least));
        Ok(sorted.get(at).filter(|&&(listed, _)| listed == key).and_then(|&(_, place)| found(place)))
    }

    /// The original header of the record at `offset`, and the checksum that its run lists under
    /// `marker`, if exactly one byte of the current header differs.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn header_but_for_a_byte(
        &mut self,
        marker: u32,
        offset: u64,
        header: &RecordHeader,
    ) -> io::Result<Option<(RecordHeader, u32)>> {
        let Some(run) = self.run_at(offset) else { return Ok(None) };
        let first = self.heads[run].marker;
        let Some((entries, _)) = self.load_run(run)? else { return Ok(None) };
        let Some(place) = marker.checked_sub(first).map(|place| place as usize) else { return Ok(None) };
        let (Some(&tag), Some(&crc)) = (entries.tags().get(place), entries.crcs().get(place)) else {
            return Ok(None);
        };
        let (tag, crc) = (u32::from_le_bytes(tag), u32::from_le_bytes(crc));
        let plain = header.stored == header.len;
        let &RecordHeader { time, len, stored } = header;
        let fits = |had: &RecordHeader| place_tag(offset, header_hash(had)) == tag;
        Ok((0..4 * 256)
            .flat_map(|change: u32| {
                let flip = (change >> 2) << (8 * (change & 3));
                [
                    RecordHeader { time: Timestamp { seconds: time.seconds ^ flip, ..time }, ..*header },
                    RecordHeader { time: Timestamp { micros: time.micros ^ flip, ..time }, ..*header },
                    RecordHeader {
                        len: len ^ flip,
                        stored: if plain { stored ^ flip } else { stored },
                        time,
                    },
                    RecordHeader { len: len ^ flip, ..*header },
                    RecordHeader { stored: stored ^ flip, ..*header },
                ]
            })
            .find(fits)
            .map(|had| (had, crc)))
    }

    /// When each of the runs was written, whole seconds for those of the first layout.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn written(&mut self) -> io::Result<Vec<Timestamp>> {
        let mut all = Vec::with_capacity(self.heads.len());
        for run in 0..self.heads.len() {
            let (seconds, tagged) = (self.heads[run].seconds, self.heads[run].tagged);
            let entries = if tagged { self.load_run(run)? } else { None };
            all.push(Timestamp { seconds, micros: entries.map_or(0, |(entries, _)| entries.micros()) });
        }
        Ok(all)
    }

    /// Whether a record is younger than this run, and not from the future: then the run does not
    /// describe it.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn is_younger(&mut self, run: usize, time: Timestamp) -> io::Result<bool> {
        let (seconds, tagged) = (self.heads[run].seconds, self.heads[run].tagged);
        let Some((entries, _)) = self.load_run(run)? else { return Ok(true) };
        // Runs of the first layout know whole seconds only.
        let micros = if tagged { entries.micros() } else { u32::MAX };
        let now = Timestamp::now().as_micros() + CLOCKS_DIFFER;
        Ok(time > Timestamp { seconds, micros } && time.micros < 1_000_000 && time.as_micros() <= now)
    }

    /// Every checksum that is listed, in order, with the number of its run and its place in it.
    /// Takes 16 bytes of memory for each record.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn listed(&self) -> io::Result<Vec<(u32, usize, u32)>> {
        let Some(sidecar) = &self.sidecar else { return Ok(Vec::new()) };
        let (mut listed, mut window) = (Vec::new(), Window::default());
        for (run, head) in self.heads.iter().enumerate() {
            let Some(entries) = entries(&**sidecar, head, &mut window)? else { continue };
            let crcs = entries.crcs().iter().map(|&crc| u32::from_le_bytes(crc));
            listed.extend((0..).zip(crcs).map(|(place, crc)| (crc, run, place)));
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// Every checksum that is listed, in no order; `None` for more than `most`.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn listed_crcs(&self, most: usize) -> io::Result<Option<Vec<u32>>> {
        let Some(sidecar) = &self.sidecar else { return Ok(Some(Vec::new())) };
        if self.heads.iter().map(|head| u64::from(head.count)).sum::<u64>() > most as u64 {
            return Ok(None);
        }
        let (mut crcs, mut window) = (Vec::new(), Window::default());
        for head in &self.heads {
            let Some(entries) = entries(&**sidecar, head, &mut window)? else { continue };
            crcs.extend(entries.crcs().iter().map(|&crc| u32::from_le_bytes(crc)));
        }
        Ok(Some(crcs))
    }

    /// The place in a run of the record after `marker`.
    pub(crate) fn place_behind(&self, run: usize, marker: u32) -> u32 {
        marker.saturating_add(1).saturating_sub(self.heads[run].marker)
    }

    /// The number of records that a run lists.
    pub(crate) fn count(&self, run: usize) -> u32 {
        self.heads[run].count
    }

    /// A place, and the number of records before it: the beginning of the last run that begins at
    /// or before the record after `marker`. The runs before it leave no gap, and its first record
    /// is where the sidecar says.
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
        let listed = entries(&**self.sidecar.as_ref()?, head, &mut window).ok()??;
        let crc = u32::from_le_bytes(*listed.crcs().first()?);
        let there = record_crc(file, head.offset, total, &mut window).ok()?;
        (there == crc).then_some((head.marker - 1, head.offset))
    }

    /// The place after the last run that ends at or before `offset`, if its last record is where
    /// the sidecar says; the segment's beginning if there is no such run.
    ///
    /// # Errors
    /// Where the sidecar or the segment cannot be read.
    pub(crate) fn last_before(
        &self,
        file: &dyn File,
        format: RecordFormat,
        offset: u64,
    ) -> io::Result<Option<Place>> {
        let behind = self.heads.partition_point(|head| head.offset < offset);
        let Some(head) = behind.checked_sub(1).map(|last| &self.heads[last]) else {
            return Ok(Some(Place::default()));
        };
        let is_whole = head.end() <= offset && self.ends_as_listed(file, format, head)?;
        let marker = head.marker.saturating_add(head.count).saturating_sub(1);
        Ok(is_whole.then_some(Place { marker, offset: head.end() }))
    }

    /// Whether the last record of a run is where the run says.
    fn ends_as_listed(&self, file: &dyn File, format: RecordFormat, head: &Head) -> io::Result<bool> {
        let Some(sidecar) = &self.sidecar else { return Ok(false) };
        let mut window = Window::of(4096);
        let Some(listed) = entries(&**sidecar, head, &mut window)? else { return Ok(false) };
        let Some(&crc) = listed.crcs().last() else { return Ok(false) };
        let crc = u32::from_le_bytes(crc);
        let left = file.len()?.saturating_sub(head.last);
        let mut window = Window::of(4096);
        let bytes = window.at(file, head.last, format.header_len())?;
        let Step::Record(_, total) = step(format, bytes, left) else { return Ok(false) };
        Ok(head.last.checked_add(total) == Some(head.end())
            && record_crc(file, head.last, total, &mut window)? == crc)
    }

    /// The records and bytes that the runs cover without a gap from the segment's beginning, if the
    /// last of these records is where the sidecar says. (If others had cut or moved earlier
    /// records, it would have moved.)
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
        self.ends_as_listed(file, format, head).ok()?.then_some((records, end))
    }

    /// How many records have a checksum within the first `len` bytes.
    pub(crate) fn checksummed_within(&self, len: u64) -> u64 {
        self.heads.iter().filter(|head| head.end() <= len).map(|head| u64::from(head.count)).sum()
    }

    /// The runs that end within the first `len` bytes.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn runs_within(&self, len: u64) -> io::Result<Vec<Run>> {
        let Some(sidecar) = &self.sidecar else { return Ok(Vec::new()) };
        let (mut runs, mut window) = (Vec::new(), Window::default());
        for head in self.heads.iter().filter(|head| head.end() <= len) {
            runs.extend(entries(&**sidecar, head, &mut window)?.map(|entries| head.with(entries)));
        }
        Ok(runs)
    }
}

/// Whether the checksums of a segment list records after its first `len` bytes. Only the headers of
/// the runs are read.
pub(crate) fn list_beyond(shared: &Shared, segment: u32, len: u64) -> bool {
    let Ok(file) = shared.open(&names::checksums(segment), Open::Read) else { return false };
    let Ok(end) = file.len() else { return false };
    let mut bytes = [0; RUN_HEADER_LEN];
    let mut at = 0;
    while at < end {
        match read_up_to_at(&*file, &mut bytes, at).ok().and_then(|n| Head::decode(&bytes[..n], at, end)) {
            Some(head) if head.end() > len => return true,
            Some(head) => at = head.file_end(),
            // Part of it is damaged: search for the rest.
            None => {
                return Verifier::load(shared, segment).is_ok_and(|verifier| verifier.reaches_beyond(len));
            }
        }
    }
    false
}

/// How many records the checksums of a removed or cut segment cover.
pub(crate) fn left_over(shared: &Shared, segment: u32) -> Option<Records> {
    let file = shared.open(&names::checksums(segment), Open::Read).ok()?;
    let (mut heads, _) = heads(&*file, 0, file.len().ok()?, &mut Window::default()).ok()?;
    heads.sort_by_key(|head| head.offset);
    let at_least = heads.iter().map(|head| head.marker - 1 + head.count).max()?;
    let mut end = Some(0);
    let mut marker = 1;
    for head in &heads {
        let follows = end == Some(head.offset) && head.marker == marker;
        (end, marker) = (follows.then(|| head.end()), head.marker.saturating_add(head.count));
    }
    // Nothing is added to a full segment.
    let meta = MetaReader::open(shared).and_then(|meta| meta.get()).ok();
    let full = meta.map(|meta| shared.settings.limits.segment_size(meta.segment_size.into()));
    let exact = end.is_some_and(|end| full.is_some_and(|full| end >= full));
    Some(Records { at_least, exact })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::format::Compression;
    use crate::storage::{Posix, Storage};

    const FORMAT: fn() -> RecordFormat = || RecordFormat::new(Compression::None);

    /// Records with bodies of these lengths, and where each one begins.
    fn segment(lens: &[u32]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (Vec::new(), Vec::new());
        for (n, &len) in lens.iter().enumerate() {
            let mut head = [0; 16];
            FORMAT().encode(&RecordHeader { time: Timestamp::default(), len, stored: len }, &mut head);
            begins.push(bytes.len());
            bytes.extend_from_slice(&head);
            bytes.resize(bytes.len() + len as usize, b"abcdefghijklmnopqrstuvwxyz"[n % 26]);
        }
        begins.push(bytes.len());
        (bytes, begins)
    }

    /// The run of `count` records from `from` on, with another marker than theirs if `shift` is not
    /// 0.
    fn run(bytes: &[u8], begins: &[usize], from: usize, count: usize, shift: u32) -> Run {
        let records = begins[from..=from + count].windows(2);
        let crcs: Vec<u32> = records.map(|at| crc32fast::hash(&bytes[at[0]..at[1]])).collect();
        Run {
            offset: begins[from] as u64,
            bytes: (begins[from + count] - begins[from]) as u64,
            last: begins[from + count - 1] as u64,
            inode: 1,
            marker: u32::try_from(from).unwrap() + 1 + shift,
            written: Timestamp::default(),
            tags: crcs.clone(),
            crcs,
        }
    }

    fn verifier(sidecar: &[u8]) -> Verifier {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(sidecar).unwrap();
        let file = Posix.open(temp.path(), Open::Read).unwrap();
        let mut verifier = Verifier::default();
        let len = sidecar.len() as u64;
        (verifier.heads, verifier.read) = heads(&*file, 0, len, &mut verifier.window).unwrap();
        verifier.heads.sort_by_key(|head| head.offset);
        verifier.sidecar = Some(file);
        verifier
    }

    proptest! {
        /// The verdict on many records at once is the same as on each of them, whatever the runs
        /// cover (twice or not at all), and wherever a byte is wrong.
        #[test]
        fn many_are_judged_as_one_by_one(
            lens in prop::collection::vec(0u32..40, 1..60),
            runs in prop::collection::vec((0usize..60, 1usize..30, prop_oneof![9 => Just(0u32), 1 => 1u32..3], any::<bool>()), 0..12),
            damage in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, begins) = segment(&lens);
            let mut sidecar = Vec::new();
            for (from, count, shift, tagged) in runs {
                let from = from % lens.len();
                let mut run = run(&bytes, &begins, from, count.min(lens.len() - from), shift);
                if !tagged {
                    run.tags.clear();
                }
                run.encode(&mut sidecar);
            }
            for (at, flip) in damage {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            let (mut quick, mut slow) = (verifier(&sidecar), verifier(&sidecar));
            for (n, &begin) in begins.iter().enumerate().filter(|(_, begin)| **begin < bytes.len()) {
                let (marker, offset) = (u32::try_from(n).unwrap() + 1, begin as u64);
                let (mut count, mut at, mut third) = (0, 0, 0);
                while let Some(record) = whole(FORMAT(), &bytes[begin + at..]) {
                    let total = record.len() as u64;
                    let suspect = Suspect { marker: marker + count, offset: offset + at as u64, total };
                    if slow.check(suspect, || crc32fast::hash(record)).unwrap() != Verdict::Good {
                        break;
                    }
                    count += 1;
                    at += record.len();
                    if count <= 3 {
                        third = at;
                    }
                }
                let first = Suspect { marker, offset, total: 0 };
                for (most, expected) in [(u32::MAX, (count, at)), (3, (count.min(3), third))] {
                    let found = quick.check_all(first, &bytes[begin..], FORMAT(), most).unwrap();
                    prop_assert_eq!(found, expected, "from record {}, {} at most", n, most);
                }
            }
        }
    }

    /// A partial run that was undone is forgotten when another one replaces it.
    #[test]
    fn a_piece_of_a_run_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = crate::Jlog::create(dir.path().join("feed")).unwrap();
        let shared = &*log.shared;
        let (bytes, begins) = segment(&[10; 40]);
        let (mut whole, mut other, mut second) = (Vec::new(), Vec::new(), Vec::new());
        run(&bytes, &begins, 0, 10, 0).encode(&mut whole);
        run(&bytes, &begins, 10, 20, 1).encode(&mut other);
        run(&bytes, &begins, 10, 10, 0).encode(&mut second);
        let sidecar = shared.at(&names::checksums(0));
        let write = |parts: &[&[u8]]| {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&sidecar).unwrap();
            let bytes = parts.concat();
            file.write_all(&bytes).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        };
        write(&[&whole, &other[..100]]);
        let mut verifier = Verifier::load(shared, 0).unwrap();
        assert_eq!(verifier.heads.len(), 1);
        write(&[&whole, &second]);
        verifier.refresh(shared, 0).unwrap();
        assert_eq!(verifier.heads.len(), 2);
        let first = Suspect { marker: 1, offset: 0, total: 0 };
        assert_eq!(verifier.check_all(first, &bytes, FORMAT(), u32::MAX).unwrap(), (20, begins[20]));
    }
}
