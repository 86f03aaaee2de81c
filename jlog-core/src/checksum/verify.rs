//! Records beside what the sidecar says of their places.

use std::io;
use std::sync::Arc;

use super::{Entries, Head, MAX_RUNS, Run, entries, header_hash, heads, place_tag};
use crate::format::{RecordFormat, RecordHeader};
use crate::scan::{Step, Window, record_crc, step};
use crate::shared::Shared;
use crate::storage::{File, Open, read_exact_at};
use crate::{Error, Result, Timestamp, names};

/// What the sidecar says of a record at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The record is what was written there.
    Good,
    /// No run covers this place.
    Uncovered,
    /// A run covers this place, and does not list this record there: the record is damaged, or the run is about
    /// other records. `survey` tells.
    Doubtful,
}

/// A record to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
    pub(crate) total: u64,
}

/// What a second look at the sidecar found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// What was there before, and perhaps more runs.
    Same,
    /// Another file has the name.
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
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    sidecar: Option<Arc<dyn File>>,
    heads: Vec<Head>,
    /// How far the sidecar was read, and its length then: it grows while its segment is written.
    read: u64,
    len: u64,
    loaded: Option<Loaded>,
}

/// The run that was looked at last.
#[derive(Debug)]
struct Loaded {
    run: usize,
    entries: Entries,
    /// The tags, or the checksums where there are none, with their places in the run; made when first needed.
    sorted: Vec<(u32, u32)>,
}

/// How far the clocks of two processes or threads may be apart, in microseconds.
const CLOCKS_DIFFER: u64 = 1000;

impl Verifier {
    /// Reads the sidecar of a segment; a missing one verifies nothing.
    ///
    /// # Errors
    /// [`Error::Io`] where there is a sidecar and it cannot be read.
    pub(crate) fn load(shared: &Shared, segment: u32) -> Result<Self> {
        let mut verifier = Self::default();
        verifier.refresh(shared, segment)?;
        Ok(verifier)
    }

    /// Reads what has been added to the sidecar.
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
            *self = Self { sidecar: Some(file), ..Self::default() };
        }
        let Some(file) = &self.sidecar else { return Ok(Refreshed::Same) };
        let len = file.len().map_err(fail)?;
        let (mut heads, done) = heads(&**file, self.read, len).map_err(fail)?;
        self.heads.append(&mut heads);
        self.heads.truncate(MAX_RUNS);
        // Stable: where a tail was cut and written again, the later run is the one that holds.
        self.heads.sort_by_key(|head| head.offset);
        self.read = done;
        self.len = len;
        self.loaded = None;
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
        // Runs overlap only where a tail was written again, and then by few.
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
        self.heads.iter().any(|head| head.end() > len)
    }

    /// The marker of the last record of the runs that end in this range; `None` where none does.
    pub(crate) fn last_marker_within(&self, from: u64, to: u64) -> Option<u32> {
        let within = |head: &&Head| head.end() > from && head.end() <= to;
        self.heads.iter().filter(within).map(Head::last_marker).max()
    }

    /// The last run that begins before `to` and ends behind `from`.
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

    /// Where a run's last record begins in the segment that the run is about.
    pub(crate) fn last_offset(&self, run: usize) -> u64 {
        self.heads[run].last
    }

    /// Where a run ends in the segment that it is about.
    pub(crate) fn end(&self, run: usize) -> u64 {
        self.heads[run].end()
    }

    /// How many bytes nearer to the beginning a listed record stands, now that it is at `at`; `None` where it does not, or
    /// where the sidecar does not say at once where it stood: it does so for the first record of a run and the last.
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
    fn load_run(&mut self, run: usize) -> io::Result<Option<&mut Loaded>> {
        if self.loaded.as_ref().is_none_or(|loaded| loaded.run != run) {
            let Some(sidecar) = &self.sidecar else { return Ok(None) };
            let Some(entries) = entries(&**sidecar, &self.heads[run])? else { return Ok(None) };
            self.loaded = Some(Loaded { run, entries, sorted: Vec::new() });
        }
        Ok(self.loaded.as_mut())
    }

    /// Whether a record is what was written, by the checksum that is listed for its marker. `crc` computes the
    /// record's own, where that is needed.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    #[inline]
    pub(crate) fn check(&mut self, suspect: Suspect, crc: impl FnOnce() -> u32) -> io::Result<Verdict> {
        let Some(run) = self.run_at(suspect.offset) else {
            let end = suspect.offset + suspect.total;
            // A record that reaches into a run: its length is wrong, or the run is about others.
            let spans = self.begins_within(suspect.offset + 1, end);
            return Ok(if spans { Verdict::Doubtful } else { Verdict::Uncovered });
        };
        let first = self.heads[run].marker;
        let Some(loaded) = self.load_run(run)? else { return Ok(Verdict::Uncovered) };
        let place = suspect.marker.checked_sub(first).map(|place| place as usize);
        let listed = place.and_then(|place| loaded.entries.crcs.get(place)).copied();
        Ok(if listed == Some(crc()) { Verdict::Good } else { Verdict::Doubtful })
    }

    /// The entry for a record whose header is at this offset, according to a run. `marker` is what its
    /// marker would be if nothing before it were missing; `follows` says that nothing is. `crc` computes the record's
    /// own checksum, by which runs without tags recognise a record.
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
        let Some(loaded) = self.load_run(run)? else { return Ok(None) };
        let Entries { crcs, tags, .. } = &loaded.entries;
        let expected = if begins { Some(0) } else { marker.checked_sub(first) };
        let expected = expected.filter(|&place| (place as usize) < crcs.len());
        let tagged = !tags.is_empty();
        let (keys, key) =
            if tagged { (tags, place_tag(offset, header_hash(header))) } else { (crcs, crc()?) };
        let found =
            |place: u32| Some(InPlace { run, marker: first.checked_add(place)?, crc: crcs[place as usize] });
        if let Some(place) = expected
            && keys[place as usize] == key
        {
            return Ok(found(place));
        }
        if !tagged && follows {
            return Ok(None);
        }
        if loaded.sorted.is_empty() {
            let places = 0..u32::try_from(keys.len()).unwrap_or(u32::MAX);
            loaded.sorted = keys.iter().copied().zip(places).collect();
            loaded.sorted.sort_unstable();
        }
        // Without tags, equal records differ by their order only: take the first one not passed yet.
        let least = if tagged { 0 } else { expected.unwrap_or(0) };
        let at = loaded.sorted.partition_point(|&entry| entry < (key, least));
        Ok(loaded.sorted.get(at).filter(|&&(listed, _)| listed == key).and_then(|&(_, place)| found(place)))
    }

    /// The header that the record at `offset` had and the checksum that its run lists under `marker`, if one byte of
    /// the header that stands there now is another one.
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
        let Some(loaded) = self.load_run(run)? else { return Ok(None) };
        let Some(place) = marker.checked_sub(first).map(|place| place as usize) else { return Ok(None) };
        let entries = &loaded.entries;
        let (Some(&tag), Some(&crc)) = (entries.tags.get(place), entries.crcs.get(place)) else {
            return Ok(None);
        };
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

    /// Whether a record is younger than this run, and not from the future: then the run is not about it.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn is_younger(&mut self, run: usize, time: Timestamp) -> io::Result<bool> {
        let (seconds, tagged) = (self.heads[run].seconds, self.heads[run].tagged);
        let Some(loaded) = self.load_run(run)? else { return Ok(true) };
        // Runs of the first layout know whole seconds only.
        let micros = if tagged { loaded.entries.micros } else { u32::MAX };
        let now = Timestamp::now().as_micros() + CLOCKS_DIFFER;
        Ok(time > Timestamp { seconds, micros } && time.micros < 1_000_000 && time.as_micros() <= now)
    }

    /// Every checksum that is listed, in order: with the number of its run and its place in it. Takes 16 bytes a
    /// record.
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn listed(&self) -> io::Result<Vec<(u32, usize, u32)>> {
        let Some(sidecar) = &self.sidecar else { return Ok(Vec::new()) };
        let mut listed = Vec::new();
        for (run, head) in self.heads.iter().enumerate() {
            let crcs = entries(&**sidecar, head)?.unwrap_or_default().crcs;
            listed.extend((0..).zip(crcs).map(|(place, crc)| (crc, run, place)));
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// The place in a run of the record after `marker`.
    pub(crate) fn place_behind(&self, run: usize, marker: u32) -> u32 {
        marker.saturating_add(1).saturating_sub(self.heads[run].marker)
    }

    /// The number of records that a run lists.
    pub(crate) fn count(&self, run: usize) -> u32 {
        self.heads[run].count
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
        let crc = *entries(&**self.sidecar.as_ref()?, head).ok()??.crcs.first()?;
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
        let crc = *entries(&**self.sidecar.as_ref()?, head).ok()??.crcs.last()?;
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
    ///
    /// # Errors
    /// Where the sidecar cannot be read.
    pub(crate) fn runs_within(&self, len: u64) -> io::Result<Vec<Run>> {
        let Some(sidecar) = &self.sidecar else { return Ok(Vec::new()) };
        let mut runs = Vec::new();
        for head in self.heads.iter().filter(|head| head.end() <= len) {
            runs.extend(entries(&**sidecar, head)?.map(|entries| head.with(entries)));
        }
        Ok(runs)
    }
}
