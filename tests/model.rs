//! Random sequences of operations against a plain model: segments are vectors of records, a
//! subscriber is an id. After every operation, ids, bodies, times, checkpoints and lag equal those
//! of the model.
//!
//! 256 sequences by default, more with `PROPTEST_CASES`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::{
    AlterOptions, Appended, CleanOptions, Compression, Error, Jlog, LogId, ReadMethod, Reader, ReaderOptions,
    Start, SubscriberName, SyncPolicy, Timestamp, Wait, Writer, WriterOptions,
};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use testkit::feeds::{new_path, time, unsynced};

/// An operation on a jlog. Numbers that select existing things are taken modulo their count.
#[derive(Clone, Debug)]
enum Op {
    Append(Vec<u8>),
    Batch(Vec<Vec<u8>>),
    Flush,
    Sync,
    Roll,
    SetSegmentSize(u32),
    AlterPreCommit(u32),
    Reopen { close: bool, how: Open },
    Subscribe { name: u8, start: From },
    Unsubscribe(u8),
    SetCheckpoint(u8, Place),
    OpenReader(u8, bool),
    Read(u8),
    ReadAll(u8),
    Checkpoint(u8, u8),
    Rewind(u8),
    Interval(u8),
    ReadById(u8, Place),
    Clean { roll: bool },
}

/// How a writer is opened.
#[derive(Clone, Debug)]
enum Open {
    Plainly,
    Resized(u32),
    Bypassing,
}

#[derive(Clone, Debug)]
enum From {
    Beginning,
    End,
    After(Place),
    CopyOf(u8),
}

/// An id that a record has, had, or could have.
#[derive(Clone, Debug)]
struct Place {
    segment: u8,
    marker: u8,
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        4 => vec(any::<u8>(), 1..60),
        3 => ("[a-c ]{0,8}", 1..40usize).prop_map(|(word, n)| word.repeat(n).into_bytes()),
        1 => vec(any::<u8>(), 200..900),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (any::<u8>(), any::<u8>()).prop_map(|(segment, marker)| Place { segment, marker })
}

/// The name of a subscriber. There are few, so that operations use the same ones.
fn name() -> impl Strategy<Value = u8> {
    0..4u8
}

fn op() -> impl Strategy<Value = Op> {
    let buffer = || prop_oneof![Just(0u32), 1..40u32, 40..600u32];
    let open = prop_oneof![
        3 => Just(Open::Plainly),
        2 => buffer().prop_map(Open::Resized),
        1 => Just(Open::Bypassing),
    ];
    let start = prop_oneof![
        Just(From::Beginning),
        Just(From::End),
        place().prop_map(From::After),
        name().prop_map(From::CopyOf),
    ];
    prop_oneof![
        12 => message().prop_map(Op::Append),
        5 => vec(message(), 0..8).prop_map(Op::Batch),
        4 => Just(Op::Flush),
        1 => Just(Op::Sync),
        2 => Just(Op::Roll),
        2 => prop_oneof![1..100u32, 100..2000u32].prop_map(Op::SetSegmentSize),
        1 => buffer().prop_map(Op::AlterPreCommit),
        3 => (any::<bool>(), open).prop_map(|(close, how)| Op::Reopen { close, how }),
        4 => (name(), start).prop_map(|(name, start)| Op::Subscribe { name, start }),
        1 => name().prop_map(Op::Unsubscribe),
        2 => (name(), place()).prop_map(|(name, place)| Op::SetCheckpoint(name, place)),
        2 => (name(), any::<bool>()).prop_map(|(name, mapped)| Op::OpenReader(name, mapped)),
        5 => name().prop_map(Op::Read),
        3 => name().prop_map(Op::ReadAll),
        6 => (name(), any::<u8>()).prop_map(|(name, back)| Op::Checkpoint(name, back)),
        1 => name().prop_map(Op::Rewind),
        2 => name().prop_map(Op::Interval),
        2 => (name(), place()).prop_map(|(name, place)| Op::ReadById(name, place)),
        2 => any::<bool>().prop_map(|roll| Op::Clean { roll }),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    time: Timestamp,
    body: Vec<u8>,
    /// Bytes on disk, header included.
    total: u64,
}

/// The model of a jlog, without files.
struct Model {
    compression: Compression,
    segment_size: u64,
    /// Every segment that has existed; the last is being written.
    segments: Vec<Vec<Record>>,
    /// The first segment that is still on disk.
    first: usize,
    /// The size of the buffer on disk, and its contents.
    capacity: u64,
    buffer: Vec<Record>,
    /// Whether the writer uses the buffer.
    buffered: bool,
    /// Everything up to here is done.
    checkpoints: BTreeMap<u8, LogId>,
    /// Where open readers are.
    positions: BTreeMap<u8, LogId>,
}

fn sum(records: &[Record]) -> u64 {
    records.iter().map(|record| record.total).sum()
}

fn id(segment: usize, marker: usize) -> LogId {
    LogId::new(u32::try_from(segment).unwrap(), u32::try_from(marker).unwrap())
}

impl Model {
    fn record(&self, time: Timestamp, body: &[u8]) -> Record {
        let total = match self.compression {
            Compression::None => 16 + body.len(),
            Compression::Framed => 20 + body.len(),
            _ => 20 + lz4_flex::block::compress(body).len(),
        };
        Record { time, body: body.to_vec(), total: total as u64 }
    }

    /// The maximum size of this message's record.
    fn bound(&self, body: &[u8]) -> u64 {
        let bound = match self.compression {
            Compression::None => 16 + body.len(),
            Compression::Framed => 20 + body.len(),
            _ => 20 + lz4_flex::block::get_maximum_output_size(body.len()),
        };
        bound as u64
    }

    fn current(&self) -> usize {
        self.segments.len() - 1
    }

    fn is_full(&self) -> bool {
        sum(&self.segments[self.current()]) >= self.segment_size
    }

    fn roll(&mut self) {
        self.segments.push(Vec::new());
    }

    fn has_buffer(&self) -> bool {
        self.buffered && self.capacity > 0
    }

    /// One append to a segment: the rolling rule of the format.
    fn write(&mut self, records: Vec<Record>) {
        if self.is_full() {
            self.roll();
        }
        let current = self.current();
        self.segments[current].extend(records);
        if self.is_full() {
            self.roll();
        }
    }

    fn flush(&mut self) {
        if self.buffered && !self.buffer.is_empty() {
            let records = std::mem::take(&mut self.buffer);
            self.write(records);
        }
    }

    fn append(&mut self, record: Record) -> Appended {
        if self.has_buffer() {
            if record.total > self.capacity - sum(&self.buffer) {
                self.flush();
            }
            if record.total <= self.capacity {
                self.buffer.push(record);
                return Appended::Buffered;
            }
        }
        if self.is_full() {
            self.roll();
        }
        let at = id(self.current(), self.segments[self.current()].len() + 1);
        self.write(vec![record]);
        Appended::InSegment(at)
    }

    /// A batch that is certain to fit goes into the buffer as a whole; any other bypasses it.
    fn append_batch(&mut self, time: Timestamp, bodies: &[Vec<u8>]) -> Vec<LogId> {
        let bound: u64 = bodies.iter().map(|body| self.bound(body)).sum();
        let records = bodies.iter().map(|body| self.record(time, body)).collect::<Vec<_>>();
        if self.has_buffer() {
            if bound <= self.capacity {
                if bound > self.capacity - sum(&self.buffer) {
                    self.flush();
                }
                self.buffer.extend(records);
                return Vec::new();
            }
            self.flush();
        }
        let mut placed = Vec::new();
        for record in records {
            if self.is_full() {
                self.roll();
            }
            placed.push(id(self.current(), self.segments[self.current()].len() + 1));
            self.write(vec![record]);
        }
        placed
    }

    /// The normal form of a place: the end of a complete segment is the beginning of the next one
    /// that exists.
    fn normal(&self, mut place: LogId) -> LogId {
        loop {
            let segment = place.segment as usize;
            if segment >= self.current() {
                return place;
            }
            if segment >= self.first && (place.marker as usize) < self.segments[segment].len() {
                return place;
            }
            place = id(segment + 1, 0);
        }
    }

    /// The records after a place, segment by segment, with their ids.
    fn behind(&self, place: LogId) -> Vec<(LogId, &Record)> {
        let place = self.normal(place);
        let mut out = Vec::new();
        for (n, segment) in self.segments.iter().enumerate().skip(place.segment as usize) {
            let skip = if n == place.segment as usize { place.marker as usize } else { 0 };
            out.extend(segment.iter().enumerate().skip(skip).map(|(i, record)| (id(n, i + 1), record)));
        }
        out
    }

    fn last_id(&self) -> LogId {
        id(self.current(), self.segments[self.current()].len())
    }

    /// Whether a place is not past the end of its segment. A checkpoint may be set to any segment
    /// up to the one being written. Past the end of a complete segment means its end; past the end
    /// of the current one would be in the future.
    fn has(&self, place: LogId) -> bool {
        place.marker as usize <= self.segments[place.segment as usize].len()
            || (place.segment as usize) < self.first
    }

    fn place(&self, place: &Place) -> LogId {
        let segment = usize::from(place.segment) % self.segments.len();
        let records = self.segments[segment].len();
        let markers = if segment == self.current() { records + 1 } else { records + 4 };
        id(segment, usize::from(place.marker) % markers)
    }
}

/// The jlog and the model that it is compared with.
struct Run {
    _dir: TempDir,
    path: PathBuf,
    log: Jlog,
    writer: Option<Writer>,
    readers: BTreeMap<u8, Reader>,
    model: Model,
    clock: u32,
}

fn name_of(n: u8) -> String {
    format!("{}subscriber {n}", if n == 3 { "~" } else { "" })
}

impl Run {
    fn new(compression: Compression, segment_size: u32, pre_commit: u32) -> Self {
        let (dir, path) = new_path();
        let log = Jlog::options()
            .storage(unsynced())
            .segment_size(segment_size)
            .pre_commit(pre_commit)
            .compression(compression)
            .create(&path)
            .unwrap();
        let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::Never)).unwrap();
        let model = Model {
            compression,
            segment_size: segment_size.into(),
            segments: vec![Vec::new()],
            first: 0,
            capacity: pre_commit.into(),
            buffer: Vec::new(),
            buffered: true,
            checkpoints: BTreeMap::new(),
            positions: BTreeMap::new(),
        };
        Self { _dir: dir, path, log, writer: Some(writer), readers: BTreeMap::new(), model, clock: 0 }
    }

    fn writer(&self) -> &Writer {
        self.writer.as_ref().unwrap()
    }

    fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        time(self.clock)
    }

    /// Does one operation to both.
    fn step(&mut self, op: &Op) {
        match op {
            Op::Append(body) => {
                let time = self.tick();
                let placed = self.writer().append_at(time, body).unwrap();
                let record = self.model.record(time, body);
                assert_eq!(placed, self.model.append(record));
            }
            Op::Batch(bodies) => {
                let time = self.tick();
                let placed = self.writer().append_batch_at(time, bodies).unwrap();
                let ids = self.model.append_batch(time, bodies);
                assert_eq!(placed.ids().collect::<Vec<_>>(), ids, "the id of every message");
                assert_eq!((placed.len(), placed.id()), (bodies.len(), ids.last().copied()));
            }
            Op::Flush => {
                self.writer().flush().unwrap();
                self.model.flush();
            }
            Op::Sync => {
                self.writer().sync().unwrap();
                self.model.flush();
            }
            Op::Roll => {
                self.writer().roll().unwrap();
                self.model.flush();
                if !self.model.segments[self.model.current()].is_empty() {
                    self.model.roll();
                }
            }
            Op::SetSegmentSize(bytes) => {
                self.log.alter(AlterOptions::default().segment_size(*bytes)).unwrap();
                self.model.segment_size = u64::from(*bytes);
            }
            Op::AlterPreCommit(bytes) => {
                self.end_writer(true);
                self.log.alter(AlterOptions::default().pre_commit(*bytes)).unwrap();
                self.model.buffered = true;
                self.model.flush();
                self.model.capacity = u64::from(*bytes);
                self.open_writer(&Open::Plainly);
            }
            Op::Reopen { close, how } => {
                self.end_writer(*close);
                self.open_writer(how);
            }
            Op::Subscribe { name, start } => self.subscribe(*name, start),
            Op::Unsubscribe(name) => {
                self.readers.remove(name);
                self.model.positions.remove(name);
                let was_there = self.model.checkpoints.remove(name).is_some();
                assert_eq!(self.log.unsubscribe(name_of(*name)).unwrap(), was_there);
            }
            Op::SetCheckpoint(name, place) => {
                let place = self.model.place(place);
                // A subscriber whose checkpoint is set from outside begins there: open its reader
                // again.
                self.readers.remove(name);
                self.model.positions.remove(name);
                let set = self.log.set_checkpoint(name_of(*name), place);
                if !self.model.has(place) {
                    assert!(matches!(set, Err(Error::NoSuchRecord { id, .. }) if id == place), "{place}");
                    // As the C library does.
                    self.log.store_checkpoint(name_of(*name), place).unwrap();
                } else {
                    set.unwrap();
                }
                self.model.checkpoints.insert(*name, place);
            }
            Op::OpenReader(name, mapped) => self.open_reader(*name, *mapped),
            Op::Read(name) => {
                self.read_batch(*name);
            }
            Op::ReadAll(name) => while self.read_batch(*name) {},
            Op::Checkpoint(name, back) => self.checkpoint(*name, *back),
            Op::Rewind(name) => {
                if let Some(reader) = self.readers.get_mut(name) {
                    reader.rewind().unwrap();
                    self.model.positions.insert(*name, self.model.checkpoints[name]);
                }
            }
            Op::Interval(name) => self.interval(*name),
            Op::ReadById(name, place) => self.read_by_id(*name, place),
            Op::Clean { roll } => self.clean(*roll),
        }
        self.catch_up();
        self.compare();
    }

    /// A full segment (after the segment size was reduced) may roll before the next append or with
    /// it.
    fn catch_up(&mut self) {
        let actual = self.log.meta().unwrap().storage_log as usize;
        if actual == self.model.segments.len() && self.model.is_full() {
            self.model.roll();
        }
        assert_eq!(actual, self.model.current());
        // Segments that nobody needs may be gone; all others exist.
        let on_disk = self.log.segments().unwrap();
        let first = on_disk[0] as usize;
        assert_eq!(on_disk, (on_disk[0]..=*on_disk.last().unwrap()).collect::<Vec<_>>());
        assert_eq!(*on_disk.last().unwrap() as usize, actual);
        let needed = self.model.checkpoints.values().map(|&place| self.model.normal(place).segment as usize);
        let needed = needed.min().unwrap_or(self.model.first);
        assert!(first >= self.model.first);
        assert!(first <= needed.max(self.model.first), "segment {first} is the first, {needed} is needed");
        self.model.first = first;
    }

    fn end_writer(&mut self, close: bool) {
        let writer = self.writer.take().unwrap();
        if close {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        self.model.flush();
        self.catch_up();
    }

    fn open_writer(&mut self, how: &Open) {
        let options = WriterOptions::default().sync(SyncPolicy::Never);
        let options = match how {
            Open::Plainly => options,
            Open::Resized(bytes) => options.pre_commit(*bytes),
            Open::Bypassing => options.bypass_pre_commit(true),
        };
        self.writer = Some(self.log.writer_with(options).unwrap());
        self.model.buffered = !matches!(how, Open::Bypassing);
        if let Open::Resized(bytes) = how {
            self.model.capacity = u64::from(*bytes);
        }
        let size = if self.model.buffered { self.model.capacity } else { 0 };
        assert_eq!(self.writer().pre_commit_size() as u64, size);
    }

    fn subscribe(&mut self, name: u8, start: &From) {
        let (start, expected) = match start {
            From::Beginning => (Start::Beginning, Some(id(self.model.first, 0))),
            From::End => (Start::End, Some(self.model.last_id())),
            From::After(place) => {
                let place = self.model.place(place);
                (Start::After(place), Some(place))
            }
            From::CopyOf(other) => {
                let copy = Start::CopyOf(SubscriberName::new(name_of(*other)).unwrap());
                (copy, self.model.checkpoints.get(other).copied())
            }
        };
        let after = if let Start::After(place) = &start { Some(*place) } else { None };
        let result = self.log.subscribe(name_of(name), start);
        match expected {
            _ if self.model.checkpoints.contains_key(&name) => {
                assert!(matches!(result, Err(Error::SubscriberExists { .. })));
            }
            None => assert!(matches!(result, Err(Error::UnknownSubscriber { .. }))),
            Some(_) if after.is_some_and(|place| !self.model.has(place)) => {
                assert!(matches!(result, Err(Error::NoSuchRecord { .. })));
            }
            Some(place) => {
                assert_eq!(self.model.normal(result.unwrap()), self.model.normal(place));
                self.model.checkpoints.insert(name, place);
            }
        }
    }

    fn open_reader(&mut self, name: u8, mapped: bool) {
        let method = if mapped { ReadMethod::Mmap } else { ReadMethod::Pread };
        let options = ReaderOptions::default().read_method(method).batch_bytes(4096);
        self.readers.remove(&name);
        let result = self.log.reader_with(name_of(name), options);
        match self.model.checkpoints.get(&name) {
            None => assert!(matches!(result, Err(Error::UnknownSubscriber { .. }))),
            Some(&place) => {
                self.readers.insert(name, result.unwrap());
                self.model.positions.insert(name, place);
            }
        }
    }

    /// Reads a batch for a subscriber. Returns whether there was one.
    fn read_batch(&mut self, name: u8) -> bool {
        let Some(reader) = self.readers.get_mut(&name) else { return false };
        let place = self.model.positions[&name];
        let expected = self.model.behind(place);
        let Some(batch) = reader.next_batch(Wait::No).unwrap() else {
            assert_eq!(expected, [], "nothing was read behind {place}");
            self.model.positions.insert(name, self.model.normal(place));
            return false;
        };
        assert!(!batch.is_empty() && batch.len() <= expected.len(), "more than there is behind {place}");
        for (message, (id, record)) in batch.iter().zip(&expected) {
            assert_eq!(message.id(), *id);
            assert_eq!((message.time(), message.body()), (record.time, &record.body[..]), "{id}");
        }
        self.model.positions.insert(name, batch.last_id());
        true
    }

    /// Moves the checkpoint to the reader's position, or to a place before it.
    fn checkpoint(&mut self, name: u8, back: u8) {
        let Some(reader) = self.readers.get_mut(&name) else { return };
        let mut place = reader.position();
        assert_eq!(self.model.normal(place), self.model.normal(self.model.positions[&name]));
        if place.marker > 0 && back % 2 == 1 {
            place.marker -= u32::from(back / 2) % place.marker;
        }
        match reader.commit(place) {
            Err(Error::NoSuchRecord { .. }) if !self.model.has(place) => {}
            other => {
                other.unwrap();
                self.model.checkpoints.insert(name, place);
            }
        }
    }

    fn interval(&mut self, name: u8) {
        let Some(reader) = self.readers.get_mut(&name) else { return };
        let place = self.model.normal(self.model.checkpoints[&name]);
        let interval = reader.interval().unwrap();
        let segment = &self.model.segments[place.segment as usize];
        let count = u32::try_from(segment.len()).unwrap() - place.marker;
        assert_eq!(interval.count, count, "behind {place}");
        assert_eq!(interval.last, id(place.segment as usize, segment.len()));
        assert_eq!(interval.first, LogId::new(place.segment, place.marker + u32::from(count > 0)));
        self.model.positions.insert(name, place);
        self.model.checkpoints.insert(name, place);
        for marker in interval.first.marker..=interval.last.marker {
            if count == 0 {
                break;
            }
            let message = reader.read(LogId::new(place.segment, marker)).unwrap();
            let record = &segment[marker as usize - 1];
            assert_eq!((message.time(), message.body()), (record.time, &record.body[..]));
        }
    }

    fn read_by_id(&mut self, name: u8, place: &Place) {
        let Some(reader) = self.readers.get_mut(&name) else { return };
        let segment = usize::from(place.segment) % self.model.segments.len();
        let records = &self.model.segments[segment];
        let marker = usize::from(place.marker) % (records.len() + 2);
        let result = reader.read(id(segment, marker));
        let there = marker > 0 && marker <= records.len();
        if there && segment >= self.model.first {
            let message = result.unwrap();
            let record = &records[marker - 1];
            assert_eq!((message.time(), message.body()), (record.time, &record.body[..]));
        } else if !there {
            assert!(matches!(result, Err(Error::NoSuchRecord { .. })));
        }
    }

    fn clean(&mut self, roll: bool) {
        let end = self.model.last_id();
        let model = &self.model;
        let done = roll
            && end.marker > 0
            && !model.checkpoints.is_empty()
            && model.checkpoints.values().all(|place| *place == end);
        self.log.clean(CleanOptions::default().roll(roll)).unwrap();
        if done {
            self.model.roll();
            let next = id(self.model.current(), 0);
            self.model.checkpoints.values_mut().for_each(|place| *place = next);
        }
        // The disk has exactly the segments that the subscriber furthest behind needs.
        let stored = self.model.checkpoints.keys().map(|n| self.log.checkpoint(name_of(*n)).unwrap().segment);
        if let Some(needed) = stored.min() {
            let first = self.log.segments().unwrap()[0];
            assert!(first >= needed, "clean left segment {first}, {needed} is the first that is needed");
        }
    }

    /// Every query gives the same result as the model.
    fn compare(&self) {
        let model = &self.model;
        let meta = self.log.meta().unwrap();
        assert_eq!(u64::from(meta.segment_size), model.segment_size);
        assert_eq!(self.log.end().unwrap(), model.last_id());
        assert_eq!(self.log.start().unwrap(), id(model.first, 0));
        let used = if model.buffered { self.writer().pre_commit_used() as u64 } else { 0 };
        assert_eq!(used, if model.buffered { sum(&model.buffer) } else { 0 });
        let mut names: Vec<String> = model.checkpoints.keys().map(|n| name_of(*n)).collect();
        names.sort();
        let actual: Vec<String> =
            self.log.subscribers().unwrap().iter().map(|name| name.to_string()).collect();
        assert_eq!(actual, names);
        for (&n, &place) in &model.checkpoints {
            let actual = self.log.checkpoint(name_of(n)).unwrap();
            assert_eq!(model.normal(actual), model.normal(place), "checkpoint of {n}");
            let behind = model.behind(place);
            let bytes: u64 = behind.iter().map(|(_, record)| record.total).sum();
            let oldest = behind.first().map(|(_, record)| record.time);
            let lag = self.log.lag(name_of(n)).unwrap();
            assert_eq!(
                (lag.messages, lag.bytes, lag.oldest),
                (behind.len() as u64, bytes, oldest),
                "lag of {n}"
            );
        }
    }

    /// At the end, every appended message that is still needed exists, and nothing is damaged.
    fn finish(mut self) {
        self.end_writer(true);
        self.compare_files();
        for n in self.model.checkpoints.clone().into_keys() {
            self.open_reader(n, false);
            while self.read_batch(n) {}
        }
        self.catch_up();
        let verification = self.log.verify().unwrap();
        assert!(!verification.is_damaged(), "{:?}", verification.findings);
        let records: usize = self.model.segments[self.model.first..].iter().map(Vec::len).sum();
        assert_eq!(verification.records, records as u64);
        assert_eq!(verification.verified, records as u64);
    }

    /// The segments hold the records that the model has, at the offsets that follow from their
    /// sizes.
    fn compare_files(&self) {
        let status = self.log.status().unwrap();
        let segments = &self.model.segments[self.model.first..];
        assert_eq!(status.bytes, segments.iter().map(|segment| sum(segment)).sum::<u64>());
        assert_eq!(status.segments as usize, segments.len());
        for (n, segment) in segments.iter().enumerate() {
            let mut offset = 0;
            let mut records = segment.iter();
            let number = u32::try_from(self.model.first + n).unwrap();
            let inspection = self.log.inspect(number, |found| {
                let record = records.next().unwrap();
                assert_eq!((found.offset, found.time), (offset, record.time));
                assert_eq!(found.len as usize, record.body.len());
                offset += record.total;
            });
            assert_eq!(inspection.unwrap().bytes, offset);
            assert_eq!(records.next(), None);
            assert_eq!(std::fs::metadata(self.path.join(format!("{number:08x}"))).unwrap().len(), offset);
        }
    }
}

fn sequence(compression: Compression, segment_size: u32, pre_commit: u32, ops: &[Op]) {
    let mut run = Run::new(compression, segment_size, pre_commit);
    for op in ops {
        run.step(op);
    }
    run.finish();
}

proptest! {
    // A sequence that fails is shrunk and printed; nothing is left on disk.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_jlog_is_what_the_model_says(
        compression in prop_oneof![Just(Compression::None), Just(Compression::Lz4)],
        segment_size in prop_oneof![1..50u32, 50..400u32, 400..3000u32],
        pre_commit in prop_oneof![Just(0u32), 20..200u32, 200..1500u32],
        ops in vec(op(), 1..80),
    ) {
        sequence(compression, segment_size, pre_commit, &ops);
    }
}
