//! The state of a jlog and its subscribers at one moment.

use std::collections::HashMap;
use std::ffi::OsStr;

use crate::codec::format::Meta;
use crate::codec::names;
use crate::files::renumbered::Identity;
use crate::files::{dropped, precommit};
use crate::jlog::Jlog;
use crate::limits::Limits;
use crate::looks::{self, Last, Place};
use crate::loss::Lost;
use crate::options::ReaderOptions;
use crate::reader::Finder;
use crate::subscriber::SubscriberName;
use crate::walk::counts::{self, SegmentCount};
use crate::walk::lost::Missing;
use crate::{Error, LogId, Result};

/// The state of a jlog at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The metastore's values.
    pub meta: Meta,
    /// Number of the first segment on disk.
    pub first_segment: u32,
    /// Number of segments.
    pub segments: u32,
    /// Bytes of the segments.
    pub bytes: u64,
    /// Records in the segments.
    pub records: u64,
    /// The segments, sorted by number.
    pub each_segment: Vec<SegmentCount>,
    /// Bytes in use and size of the pre-commit buffer, if there is one.
    pub pre_commit: Option<(u64, u64)>,
    /// Whether writers keep checksums.
    pub checksums: bool,
    /// How much the jlog may hold.
    pub limits: Limits,
    /// Bytes free on the file system.
    pub free: u64,
    /// The subscribers, by name.
    pub subscribers: Vec<SubscriberStatus>,
}

/// The state of a subscriber at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriberStatus {
    /// Its name.
    pub name: SubscriberName,
    /// Its checkpoint; `None` if it cannot be read.
    pub checkpoint: Option<LogId>,
    /// Messages after its checkpoint.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<crate::Timestamp>,
    /// When its checkpoint was last stored, in whole seconds, from the file's modification time.
    pub moved: Option<crate::Timestamp>,
    /// Whether no subscriber is further behind, and older segments are retained for it.
    pub holds_back: bool,
    /// Bytes of segments that no other subscriber needs.
    pub held: u64,
    /// Messages that were dropped before it read them.
    pub missed: u64,
    /// Messages that it has not read and that were lost with missing segments.
    pub lost: Option<Lost>,
}

/// How far a subscriber is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Messages after its checkpoint.
    pub messages: u64,
    /// Bytes of their records, headers included.
    pub bytes: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<crate::Timestamp>,
}

/// The contents of segments and all later ones.
struct Sums {
    /// Each segment, and the records and bytes from it on.
    from: Vec<(SegmentCount, u64, u64)>,
}

impl Sums {
    /// For segments sorted by number.
    fn of(counts: &[SegmentCount]) -> Self {
        let (mut records, mut bytes) = (0, 0);
        let mut from: Vec<(SegmentCount, u64, u64)> = counts
            .iter()
            .rev()
            .map(|&count| {
                records += u64::from(count.records);
                bytes += count.bytes;
                (count, records, bytes)
            })
            .collect();
        from.reverse();
        Self { from }
    }

    fn index(&self, segment: u32) -> usize {
        self.from.partition_point(|(count, ..)| count.number < segment)
    }

    /// Records and bytes of this segment and all later ones.
    fn from(&self, segment: u32) -> (u64, u64) {
        self.from.get(self.index(segment)).map_or((0, 0), |&(_, records, bytes)| (records, bytes))
    }

    /// Messages and bytes after a checkpoint.
    fn behind(&self, id: LogId, place: &Place) -> (u64, u64) {
        let (messages, bytes) = self.from(id.segment);
        self.segment(id.segment).map_or((messages, bytes), |here| {
            (messages - u64::from(place.records.min(here.records)), bytes - place.offset.min(here.bytes))
        })
    }

    fn segment(&self, segment: u32) -> Option<SegmentCount> {
        self.from.get(self.index(segment)).map(|&(count, ..)| count).filter(|count| count.number == segment)
    }
}

impl Jlog {
    /// The lag of a subscriber. Counts of complete segments are cached, so that no data is read
    /// twice.
    ///
    /// # Errors
    /// [`Error::UnknownSubscriber`], [`Error::Checkpoint`], [`Error::Io`].
    pub fn lag(&self, name: impl AsRef<[u8]>) -> Result<Lag> {
        let meta = self.meta()?;
        let name = SubscriberName::new(name)?;
        let id = self.checkpoint(&name)?;
        let segments: Vec<u32> =
            self.shared.segments()?.into_iter().filter(|&number| number >= id.segment).collect();
        let counts = counts::all(&self.shared, meta.format, &segments, meta.storage_log)?;
        let place = self.place_of(&name, id, None, 0)?;
        let (messages, bytes) = Sums::of(&counts).behind(id, &place);
        Ok(Lag { messages, bytes, oldest: place.oldest })
    }

    /// Finds the place of a checkpoint.
    fn place_of(
        &self,
        name: &SubscriberName,
        id: LogId,
        segment: Option<Identity>,
        first_segment: u32,
    ) -> Result<Place> {
        let mut options = ReaderOptions::default().verify(false).batch_bytes(4096).peek(true);
        options.quiet = true;
        let mut reader = self.reader_with(name, options)?;
        let (records, offset) = reader.locate(id)?;
        reader.seek(id)?;
        let oldest = match reader.next_batch(crate::Wait::No) {
            Ok(batch) => batch.and_then(|batch| batch.iter().next()).map(|message| message.time()),
            Err(e) if e.is_damage() => None,
            Err(e) => return Err(e),
        };
        Ok(Place { segment, first_segment, records, offset, oldest })
    }

    /// Finds the place of a checkpoint, given in the order of their ids, without a reader; `None`
    /// if that needs one. `finder` is the previous one.
    fn quick_place_of<'a>(
        &'a self,
        id: LogId,
        meta: &Meta,
        first_segment: u32,
        finder: &mut Option<(u32, Option<Finder<'a>>)>,
    ) -> Result<Option<Place>> {
        if finder.as_ref().is_none_or(|(number, _)| *number != id.segment) {
            *finder = Some((id.segment, Finder::open(&self.shared, meta.format, id.segment)?));
        }
        let Some((_, Some(finder))) = finder else { return Ok(None) };
        let segment = Some(finder.file());
        let found = finder.find(id.marker, id.segment < meta.storage_log)?;
        Ok(found.map(|(place, oldest)| {
            let (records, offset) = (place.marker, place.offset);
            Place { segment, first_segment, records, offset, oldest }
        }))
    }

    /// The state of the jlog and its subscribers.
    ///
    /// # Errors
    /// [`Error::Metastore`], [`Error::Io`].
    pub fn status(&self) -> Result<Status> {
        self.status_of(None::<[&OsStr; 0]>)
    }

    /// The state, as [`status`](Self::status) returns it, for callers that know which files in the
    /// jlog's directory have changed: only these (names without the directory) have been made,
    /// written, removed or renamed since the last status of this `Jlog`. Unchanged files are not
    /// read again: a subscriber whose checkpoint is not among them costs no system call.
    ///
    /// Notifications of file changes (such as inotify) cover only local file systems, and not
    /// writes to mapped files. The metastore, the pre-commit buffer, the settings and the segment
    /// being written are always read.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn status_after<'a>(&self, changed: impl IntoIterator<Item = &'a OsStr>) -> Result<Status> {
        self.status_of(Some(changed))
    }

    fn status_of<'a>(&self, changed: Option<impl IntoIterator<Item = &'a OsStr>>) -> Result<Status> {
        let meta = self.meta()?;
        let mut last = self.looks.take();
        let again = match changed {
            Some(changed) => last.again(&self.shared, &meta, changed)?,
            None => None,
        };
        if again.is_none() {
            last.feed = None;
        }
        let feed = match last.feed {
            Some(feed) => feed,
            None => {
                let segments = self.shared.segments()?;
                let counts = counts::all(&self.shared, meta.format, &segments, meta.storage_log)?;
                let missing = Missing::find(&self.shared, meta.format, meta.storage_log)?;
                last.subscribers = looks::all(&self.shared, last.subscribers)?;
                looks::Feed { meta, counts, missing }
            }
        };
        let mut looks = last.subscribers;
        let (counts, missing) = (&feed.counts, &feed.missing);
        let sums = Sums::of(counts);
        let checkpoints: Vec<(SubscriberName, Option<LogId>)> =
            looks.iter().map(|(name, look)| (name.clone(), look.checkpoint)).collect();
        let needed = |id: &Option<LogId>| id.map_or(0, |id| id.segment);
        let mut all_needed: Vec<u32> = checkpoints.iter().map(|(_, id)| needed(id)).collect();
        all_needed.sort_unstable();
        let oldest_needed = all_needed.first().copied();
        let next_needed = all_needed.get(1).copied().unwrap_or(meta.storage_log).min(meta.storage_log);
        let first_segment = counts.first().map_or(0, |count| count.number);
        let mut subscribers = Vec::with_capacity(checkpoints.len());
        let mut lost: HashMap<SubscriberName, Vec<Lost>> =
            missing.lost_to_all(&self.shared, &checkpoints).into_iter().collect();
        let mut files: HashMap<u32, Option<Identity>> = HashMap::new();
        let mut unknown: Vec<(LogId, usize)> = Vec::new();
        for (n, (_, look)) in looks.iter_mut().enumerate() {
            let Some(id) = look.checkpoint.filter(|id| id.segment <= meta.storage_log) else { continue };
            let segment = *files.entry(id.segment).or_insert_with(|| {
                self.shared.facts(&names::segment(id.segment)).ok().map(|facts| facts.identity)
            });
            let same = |place: &Place| (place.segment, place.first_segment) == (segment, first_segment);
            let enough = |place: &Place| place.oldest.is_some() || sums.behind(id, place).0 == 0;
            look.place = look.place.filter(|place| same(place) && enough(place));
            if look.place.is_none() {
                unknown.push((id, n));
            }
        }
        unknown.sort_unstable();
        let mut finder = None;
        for (id, n) in unknown {
            let (name, look) = &mut looks[n];
            let file = files.get(&id.segment).copied().flatten();
            let found = self.quick_place_of(id, &meta, first_segment, &mut finder)?;
            look.place = match found.filter(|place| place.segment == file) {
                Some(place) => Some(place),
                None => match self.place_of(name, id, file, first_segment) {
                    // Unsubscribed meanwhile.
                    Err(Error::UnknownSubscriber { .. } | Error::Unsubscribed { .. }) => None,
                    place => Some(place?),
                },
            };
        }
        for ((name, id), (_, look)) in checkpoints.into_iter().zip(&looks) {
            let (messages, bytes, oldest) = match id {
                Some(id) if id.segment <= meta.storage_log => {
                    let Some(place) = look.place else { continue };
                    let (messages, bytes) = sums.behind(id, &place);
                    (messages, bytes, place.oldest)
                }
                _ => (0, 0, None),
            };
            // A subscriber that has nothing to read retains nothing.
            let behind = messages > 0 || id.is_none();
            let holds_back = behind && Some(needed(&id)) == oldest_needed && needed(&id) < meta.storage_log;
            let held = if holds_back { sums.from(0).1 - sums.from(next_needed).1 } else { 0 };
            subscribers.push(SubscriberStatus {
                moved: look.moved,
                lost: lost.remove(&name).into_iter().flatten().reduce(Lost::and),
                name,
                checkpoint: id,
                messages,
                bytes,
                oldest,
                holds_back,
                held,
                missed: id.map_or(Ok(0), |id| dropped::missed(&self.shared, id, first_segment))?,
            });
        }
        let settings = self.settings();
        let status = Status {
            meta,
            first_segment,
            segments: u32::try_from(counts.len()).unwrap_or(u32::MAX),
            bytes: counts.iter().map(|count| count.bytes).sum(),
            records: sums.from(0).0,
            each_segment: counts.clone(),
            pre_commit: precommit::fill(&self.shared)?,
            checksums: settings.checksums,
            limits: settings.limits,
            free: self
                .shared
                .storage
                .available_space(&self.shared.path)
                .map_err(|e| Error::io("look at", self.path(), e))?,
            subscribers,
        };
        self.looks.remember(Last { subscribers: looks, feed: Some(feed) });
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Compression, Jlog, Start};

    /// What is done to a feed.
    #[derive(Clone, Debug)]
    enum Act {
        /// Records with bodies of these lengths.
        Append(Vec<u16>),
        /// Turns checksums on or off for later records.
        Checksums(bool),
        /// Removes a segment's index or checksums.
        Remove(fn(u32) -> String, u32),
        /// Flips bits of a byte of a segment.
        Flip(u32, u16, u8),
        /// Cuts a segment's end.
        Cut(u32, u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => prop::collection::vec(0..300_u16, 1..10).prop_map(Act::Append),
            1 => any::<bool>().prop_map(Act::Checksums),
            1 => (any::<bool>(), 0..4_u32).prop_map(|(index, n)| {
                Act::Remove(if index { names::index } else { names::checksums }, n)
            }),
            1 => (0..4_u32, any::<u16>(), 1..=255_u8).prop_map(|(n, at, bits)| Act::Flip(n, at, bits)),
            1 => (0..4_u32, 1..200_u8).prop_map(|(n, bytes)| Act::Cut(n, bytes)),
        ]
    }

    fn run(log: &Jlog, act: &Act) {
        let segment = |n: u32| log.path().join(names::segment(n));
        match act {
            Act::Append(lens) => {
                let bodies: Vec<Vec<u8>> = lens.iter().map(|&len| vec![b'x'; len.into()]).collect();
                // Damage may forbid it.
                let _ = log.writer().and_then(|writer| writer.append_batch(&bodies));
            }
            Act::Checksums(on) => {
                let _ = log.alter(crate::AlterOptions::default().checksums(*on));
            }
            Act::Remove(name, n) => {
                // It may not exist.
                let _ = std::fs::remove_file(log.path().join(name(*n)));
            }
            Act::Flip(n, at, bits) => {
                let Ok(mut bytes) = std::fs::read(segment(*n)) else { return };
                if let Some(last) = bytes.len().checked_sub(1) {
                    bytes[usize::from(*at) % (last + 1)] ^= bits;
                    std::fs::write(segment(*n), bytes).unwrap();
                }
            }
            Act::Cut(n, bytes) => {
                let Ok(file) = std::fs::OpenOptions::new().write(true).open(segment(*n)) else { return };
                let len = file.metadata().unwrap().len();
                file.set_len(len.saturating_sub((*bytes).into())).unwrap();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        /// In whole and in damaged feeds, with and without indexes and checksums.
        #[test]
        fn a_place_that_is_found_without_a_reader_is_where_the_reader_is(
            acts in prop::collection::vec(act(), 1..10),
            lz4 in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let options = Jlog::options().segment_size(1000).compression(compression);
            let log = options.create(dir.path().join("feed")).unwrap();
            let name = SubscriberName::new("one").unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            for act in &acts {
                run(&log, act);
            }
            let meta = log.meta().unwrap();
            let mut finder = None;
            let (mut quick, mut all) = (0, 0);
            for segment in 0..=meta.storage_log {
                let records = counts::of(&log.shared, meta.format, segment, meta.storage_log).unwrap().records;
                for marker in 0..=records + 1 {
                    let id = LogId::new(segment, marker);
                    all += 1;
                    let Some(found) = log.quick_place_of(id, &meta, 0, &mut finder).unwrap() else { continue };
                    quick += 1;
                    let mut place = log.place_of(&name, id, found.segment, 0).unwrap();
                    if lz4 && place.oldest.is_none() {
                        // A reader gives no message that it cannot decompress.
                        place.oldest = found.oldest;
                    }
                    prop_assert_eq!(found, place, "{}", id);
                }
            }
            let whole = acts.iter().all(|act| matches!(act, Act::Append(_)));
            // A reader is needed at the end of a complete segment, and past the end.
            prop_assert!(!whole || quick + 2 * (meta.storage_log + 1) >= all, "{} of {}", quick, all);
        }
    }
}
