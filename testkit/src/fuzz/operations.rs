//! The bytes as operations on one jlog, including kills and power failures, compared with a plain
//! model: a list of messages, and the position of each subscriber.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::format::RecordFormat;
use jlog_core::storage::sim::{Dice, Moment, SimStorage};
use jlog_core::storage::{Posix, Storage};
use jlog_core::{
    AlterOptions, Appended, Claim, CleanOptions, Compression, Jlog, JlogOptions, LogId, OnDamage, ReadMethod,
    Reader, ReaderOptions, Safety, Start, SubscriberName, SyncPolicy, Wait, Writer, WriterOptions,
};
use tempfile::TempDir;

use super::everything::{EVERYTHING, is_subsequence, look, read_all, read_on};
use super::feed::record;
use super::{Disk, Input};

/// The maximum number of operations.
const OPERATIONS: usize = 80;
/// The maximum number of subscribers.
const SUBSCRIBERS: u8 = 4;

/// A message, and its promised state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    /// Identifies the entry in the model.
    serial: u32,
    body: Vec<u8>,
    /// It survives a power failure, and is then read once.
    durable: bool,
    /// It has survived a power failure, and survives the next.
    on_disk: bool,
    /// It was in the pre-commit buffer: after a power failure it may be read twice.
    was_buffered: bool,
    /// The open writer has put it into a segment.
    own: bool,
    /// Its id, once it is known.
    id: Option<LogId>,
}

/// A subscriber's position: how many of the model's messages it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subscriber {
    done: usize,
    /// The positions that may be stored after a power failure.
    possible: Vec<usize>,
    /// It survives a power failure.
    sure: bool,
}

/// The model of a jlog, without files.
#[derive(Clone, Debug, Default)]
struct Model {
    /// The messages that are or were in segments, in order.
    messages: Vec<Sent>,
    /// How many of them were removed with their segments.
    first: usize,
    /// The messages in the pre-commit buffer.
    buffered: Vec<Sent>,
    subscribers: BTreeMap<u8, Subscriber>,
    /// Removed subscribers, which a power failure may bring back.
    gone: BTreeMap<u8, Subscriber>,
    serials: u32,
}

impl Model {
    fn accept(&mut self) -> u32 {
        self.serials += 1;
        self.serials
    }

    fn flush(&mut self, own: bool) {
        self.messages.extend(self.buffered.drain(..).map(|sent| Sent { own, ..sent }));
    }

    /// The first message that a subscriber has not acknowledged.
    fn needed(&self) -> usize {
        self.subscribers.values().map(|subscriber| subscriber.done).min().unwrap_or(self.first)
    }

    /// All entries, in the order in which they will be read.
    fn all(&self) -> impl Iterator<Item = &Sent> {
        self.messages.iter().chain(&self.buffered)
    }

    /// Forgets which messages the open writer has written, because it is gone.
    fn disown(&mut self) {
        self.messages.iter_mut().for_each(|sent| sent.own = false);
    }
}

/// Where the jlog is.
enum Ground {
    Simulated(SimStorage),
    /// A directory for the jlog and for its copies; the number of the present one.
    Real(TempDir, u32),
}

impl Ground {
    fn new(disk: Disk) -> Self {
        match disk {
            Disk::Simulated => {
                let storage = SimStorage::new();
                storage.create_dir(Path::new("/"), 0o750).unwrap();
                storage.sync_dir(Path::new("/")).unwrap();
                Ground::Simulated(storage)
            }
            Disk::Real => {
                let memory = Path::new("/dev/shm");
                let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
                Ground::Real(directory.unwrap(), 0)
            }
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Ground::Simulated(_) => "/feed".into(),
            Ground::Real(directory, n) => directory.path().join(format!("feed-{n}")),
        }
    }

    fn options(&self) -> JlogOptions {
        let storage: Arc<dyn Storage> = match self {
            Ground::Simulated(storage) => Arc::new(storage.clone()),
            Ground::Real(..) => Arc::new(Posix),
        };
        JlogOptions::default().storage(storage)
    }

    /// Records the moments from now on, on a simulated disk.
    fn record(&self) {
        if let Ground::Simulated(storage) = self {
            storage.record();
        }
    }

    fn moments(&self) -> Vec<Moment> {
        match self {
            Ground::Simulated(storage) => storage.moments(),
            Ground::Real(..) => Vec::new(),
        }
    }

    /// Continues with the disk as a crash at this moment leaves it. On a real disk, the crash is a
    /// kill that happens now: every file is copied as it is, maps included, while the writer has
    /// them open.
    fn crash(&mut self, moment: Option<&Moment>, power_lost: bool, dice: &mut Dice) {
        let from = self.path();
        match self {
            Ground::Simulated(storage) => {
                let Some(moment) = moment else { return };
                *storage = if power_lost { moment.after_power_loss(dice) } else { moment.after_kill(dice) };
            }
            Ground::Real(_, n) => {
                *n += 1;
                let to = self.path();
                std::fs::create_dir(&to).unwrap();
                for entry in std::fs::read_dir(&from).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
                }
            }
        }
    }
}

/// A jlog at work, and the model that it is compared with.
struct Run {
    ground: Ground,
    log: Jlog,
    writer: Option<Writer>,
    policy: SyncPolicy,
    /// The writer bypasses the pre-commit buffer.
    bypasses: bool,
    /// Readers, and up to which message they have read.
    readers: BTreeMap<u8, (Reader, usize)>,
    model: Model,
    compression: Compression,
    safety: Safety,
    /// How many records the complete segments have.
    counts: BTreeMap<u32, usize>,
    /// Power failed since the last repair: complete segments may end within a record.
    torn: bool,
}

/// The bytes as operations: first how the jlog is created, then what is done with it.
pub fn operations(disk: Disk, data: &[u8]) {
    let mut input = Input(data);
    let mut run = Run::new(disk, &mut input);
    for _ in 0..OPERATIONS {
        if input.0.is_empty() {
            break;
        }
        let op = input.byte();
        if op % 32 >= 29 {
            run.crash(op / 32, &mut input);
        } else {
            run.step(op, &mut input);
        }
    }
    run.finish();
}

fn name_of(n: u8) -> SubscriberName {
    SubscriberName::new(format!("s{n}")).unwrap()
}

impl Run {
    fn new(disk: Disk, input: &mut Input<'_>) -> Self {
        let ground = Ground::new(disk);
        let switches = input.byte();
        let compression = match switches & (1 | 64) {
            0 => Compression::None,
            64 => Compression::Framed,
            _ => Compression::Lz4,
        };
        let safety = if switches & 2 != 0 { Safety::Safe } else { Safety::AlmostSafe };
        let segment_size = segment_size(input);
        let pre_commit = if switches & 8 != 0 { pre_commit(input) } else { 0 };
        let log = ground
            .options()
            .compression(compression)
            .safety(safety)
            .checksums(switches & 4 == 0)
            .segment_size(segment_size)
            .pre_commit(pre_commit)
            .create(ground.path())
            .unwrap();
        let mut run = Self {
            ground,
            log,
            writer: None,
            policy: SyncPolicy::Never,
            bypasses: false,
            readers: BTreeMap::new(),
            model: Model::default(),
            compression,
            safety,
            counts: BTreeMap::new(),
            torn: false,
        };
        run.open_writer(switches >> 4);
        run
    }

    /// Does one operation on both.
    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        match op % 32 {
            0..=5 => self.append(input),
            6..=8 => self.append_batch(input),
            9 => self.flush(),
            10 => self.sync(),
            11 => {
                if let Some(writer) = &self.writer {
                    writer.roll().unwrap();
                    self.flushed();
                }
            }
            12 => self.end_writer(op & 32 != 0),
            13 => {
                self.end_writer(op & 32 != 0);
                self.open_writer(op >> 6);
            }
            14 => self.subscribe(input),
            15 => self.unsubscribe(input),
            16 => self.open_reader(input),
            17..=19 => self.read(input),
            20 => self.checkpoint(input),
            21 => {
                let name = input.byte() % SUBSCRIBERS;
                if let (Some((reader, _)), Some(subscriber)) =
                    (self.readers.get(&name), self.model.subscribers.get_mut(&name))
                {
                    reader.sync_checkpoint().unwrap();
                    subscriber.possible = vec![subscriber.done];
                }
            }
            22 => self.set_checkpoint(input),
            23 => self.seek(input),
            24 => self.clean(op & 32 != 0),
            25 => self.repair(),
            26 => self.log.alter(AlterOptions::default().segment_size(segment_size(input))).unwrap(),
            27 => self.alter_pre_commit(input),
            _ => self.verify(),
        }
        self.compare();
    }

    fn body(&mut self, input: &mut Input<'_>) -> Sent {
        let serial = self.model.accept();
        let (kind, len) = (input.byte(), usize::from(input.byte()));
        let mut body = serial.to_le_bytes().to_vec();
        match kind % 4 {
            0 => body.extend((0..len / 8).map(|i| u8::try_from((i * 7 + len) % 251).unwrap())),
            1 => body.extend(b"text ".iter().cycle().take(len)),
            2 => body.extend(record(RecordFormat::new(self.compression), b"a record within a record")),
            _ => body.extend((0..2 * len).map(|i| u8::try_from((i * i * 31 + len) % 251).unwrap())),
        }
        Sent { serial, body, durable: false, on_disk: false, was_buffered: false, own: true, id: None }
    }

    /// The size of a record, and its maximum size.
    fn sizes(&self, body: &[u8]) -> (usize, usize) {
        match self.compression {
            Compression::None => (16 + body.len(), 16 + body.len()),
            Compression::Framed => (20 + body.len(), 20 + body.len()),
            _ => {
                let bound = lz4_flex::block::get_maximum_output_size(body.len());
                (20 + lz4_flex::block::compress(body).len(), 20 + bound)
            }
        }
    }

    fn append(&mut self, input: &mut Input<'_>) {
        let Some(writer) = self.writer.as_ref() else { return };
        let used = writer.pre_commit_used();
        let sent = self.body(input);
        let placed = self.writer.as_ref().unwrap().append(&sent.body).unwrap();
        self.appended(used, placed, vec![sent]);
    }

    fn append_batch(&mut self, input: &mut Input<'_>) {
        let Some(writer) = self.writer.as_ref() else { return };
        let used = writer.pre_commit_used();
        let sent: Vec<Sent> = (0..input.byte() % 8).map(|_| self.body(input)).collect();
        let bodies: Vec<&[u8]> = sent.iter().map(|sent| &sent.body[..]).collect();
        let placed = self.writer.as_ref().unwrap().append_batch(&bodies).unwrap().last();
        self.appended(used, placed, sent);
    }

    /// Adds messages that were accepted while `used` bytes of the buffer were in use.
    fn appended(&mut self, used: usize, placed: Appended, mut sent: Vec<Sent>) {
        let writer = self.writer.as_ref().unwrap();
        let capacity = writer.pre_commit_size();
        let sizes: Vec<(usize, usize)> = sent.iter().map(|sent| self.sizes(&sent.body)).collect();
        let size: usize = sizes.iter().map(|(size, _)| size).sum();
        let bound: usize = sizes.iter().map(|(_, bound)| bound).sum();
        match placed {
            Appended::Buffered => {
                assert!(capacity > 0 || sent.is_empty(), "there is no buffer");
                assert!(self.policy != SyncPolicy::EachAppend || sent.is_empty(), "it is not in a segment");
                assert!(size <= capacity || sent.is_empty());
                if used + bound.max(size) > capacity && used + size != writer.pre_commit_used() {
                    self.model.flush(true);
                }
                sent.iter_mut().for_each(|sent| sent.was_buffered = true);
                self.model.buffered.append(&mut sent);
            }
            Appended::InSegment(id) => {
                let past = self.policy == SyncPolicy::EachAppend;
                assert!(past || bound > capacity, "it would have fitted in the buffer");
                if capacity > 0 {
                    self.model.flush(true);
                }
                sent.last_mut().unwrap().id = Some(id);
                self.model.messages.append(&mut sent);
            }
        }
        if self.policy == SyncPolicy::EachAppend {
            self.synced();
        }
    }

    fn flush(&mut self) {
        if let Some(writer) = &self.writer {
            writer.flush().unwrap();
            self.flushed();
        }
    }

    fn sync(&mut self) {
        if let Some(writer) = &self.writer {
            writer.sync().unwrap();
            self.synced();
        }
    }

    fn flushed(&mut self) {
        if !self.bypasses {
            self.model.flush(true);
        }
    }

    /// What this writer has appended is durable, and so is the rest of the segment being written.
    fn synced(&mut self) {
        self.flushed();
        self.compare();
        let current = self.log.meta().unwrap().storage_log;
        for sent in &mut self.model.messages {
            sent.durable |= sent.own || sent.id.is_some_and(|id| id.segment == current);
        }
    }

    fn end_writer(&mut self, close: bool) {
        let Some(writer) = self.writer.take() else { return };
        if close {
            writer.close().unwrap();
            if self.policy == SyncPolicy::Never { self.flushed() } else { self.synced() }
        } else {
            drop(writer);
            self.flushed();
        }
        self.model.disown();
    }

    fn open_writer(&mut self, how: u8) {
        self.policy = [SyncPolicy::OnRoll, SyncPolicy::Never, SyncPolicy::EachAppend, SyncPolicy::Never]
            [usize::from(how % 4)];
        // Only this option makes a writer bypass a buffer that is not empty.
        self.bypasses = how % 4 == 3;
        let options = WriterOptions::default().sync(self.policy).bypass_pre_commit(self.bypasses);
        self.writer = Some(self.log.writer_with(options).unwrap());
        // Opening a writer makes readable what an earlier one has left in the buffer.
        self.flushed();
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        let (name, start) = (input.byte() % SUBSCRIBERS, input.byte());
        let other = start / 4 % SUBSCRIBERS;
        let (start, done) = match start % 4 {
            0 => (Start::Beginning, Some(self.model.first)),
            1 => (Start::End, Some(self.model.messages.len())),
            2 => {
                let done = self.choose(self.model.messages.len(), input);
                (Start::After(self.place(done)), Some(done))
            }
            _ => {
                let done = self.model.subscribers.get(&other).map(|subscriber| subscriber.done);
                (Start::CopyOf(name_of(other)), done)
            }
        };
        let result = self.log.subscribe(name_of(name), start);
        let Some(done) = done.filter(|_| !self.model.subscribers.contains_key(&name)) else {
            assert!(result.is_err());
            return;
        };
        result.unwrap();
        self.model.gone.remove(&name);
        self.model.subscribers.insert(name, Subscriber { done, possible: vec![done], sure: true });
    }

    fn unsubscribe(&mut self, input: &mut Input<'_>) {
        let name = input.byte() % SUBSCRIBERS;
        self.readers.remove(&name);
        let was_there = self.model.subscribers.remove(&name);
        assert_eq!(self.log.unsubscribe(name_of(name)).unwrap(), was_there.is_some());
        if let Some(subscriber) = was_there {
            self.model.gone.insert(name, subscriber);
        }
    }

    fn open_reader(&mut self, input: &mut Input<'_>) {
        let (name, switches) = (input.byte() % SUBSCRIBERS, input.byte());
        let method = if switches & 1 != 0 { ReadMethod::Mmap } else { ReadMethod::Pread };
        let options = self.reading().read_method(method).batch_bytes(4096);
        self.readers.remove(&name);
        let result = self.log.reader_with(name_of(name), options);
        match self.model.subscribers.get(&name) {
            Some(subscriber) => {
                self.readers.insert(name, (result.unwrap(), subscriber.done));
            }
            None => assert!(result.is_err()),
        }
    }

    /// Readers skip damage only after a power failure, which can tear the end of a segment. Claims
    /// are shared, because `done_by` reads as a subscriber that may have a reader.
    fn reading(&self) -> ReaderOptions {
        let on_damage = if self.torn { OnDamage::Skip } else { OnDamage::Fail };
        ReaderOptions::default().on_damage(on_damage).claim(Claim::Shared)
    }

    /// Reads a batch, which must be the model's next messages.
    fn read(&mut self, input: &mut Input<'_>) {
        let Some((reader, at)) = self.readers.get_mut(&(input.byte() % SUBSCRIBERS)) else { return };
        let Some(batch) = reader.next_batch(Wait::No).unwrap() else {
            assert_eq!((*at).max(self.model.first), self.model.messages.len(), "nothing was read");
            return;
        };
        let rest = &self.model.messages[*at..];
        // A reader that went back may still have a removed segment open.
        if rest.first().is_none_or(|next| next.id != Some(batch.first_id())) {
            *at = (*at).max(self.model.first);
        }
        let rest = &self.model.messages[*at..];
        assert!(!batch.is_empty() && batch.len() <= rest.len(), "more is read than there is");
        for (message, sent) in batch.iter().zip(rest) {
            assert_eq!((Some(message.id()), message.body()), (sent.id, &sent.body[..]));
        }
        *at += batch.len();
    }

    /// Chooses how many messages are done: of those on disk, up to `end`.
    fn choose(&self, end: usize, input: &mut Input<'_>) -> usize {
        let first = self.model.first.min(end);
        first + input.below(end - first + 1)
    }

    /// The id of the last of this many messages.
    fn place(&self, done: usize) -> LogId {
        let first = LogId::new(self.log.segments().unwrap().first().copied().unwrap_or(0), 0);
        match done.checked_sub(1).filter(|&last| last >= self.model.first) {
            Some(last) => self.model.messages[last].id.unwrap(),
            None => first,
        }
    }

    fn checkpoint(&mut self, input: &mut Input<'_>) {
        let (name, all) = (input.byte() % SUBSCRIBERS, !input.byte().is_multiple_of(4));
        let Some((_, at)) = self.readers.get(&name) else { return };
        let at = (*at).max(self.model.first);
        let done = if all { at } else { self.choose(at, input) };
        let place = self.place(done);
        self.readers.get_mut(&name).unwrap().0.commit(place).unwrap();
        self.stored(name, done);
    }

    fn stored(&mut self, name: u8, done: usize) {
        let fresh = Subscriber { done, possible: Vec::new(), sure: true };
        let subscriber = self.model.subscribers.entry(name).or_insert(fresh);
        subscriber.done = done;
        if self.safety == Safety::Safe {
            subscriber.possible.clear();
        }
        subscriber.possible.push(done);
    }

    /// Sets a checkpoint from outside. The subscriber's reader, if there is one, is closed.
    fn set_checkpoint(&mut self, input: &mut Input<'_>) {
        let name = input.byte() % SUBSCRIBERS;
        self.readers.remove(&name);
        let done = self.choose(self.model.messages.len(), input);
        self.log.set_checkpoint(name_of(name), self.place(done)).unwrap();
        self.model.gone.remove(&name);
        self.stored(name, done);
    }

    fn seek(&mut self, input: &mut Input<'_>) {
        let (name, rewind) = (input.byte() % SUBSCRIBERS, !input.byte().is_multiple_of(2));
        let done = if rewind {
            self.model.subscribers.get(&name).map_or(0, |subscriber| subscriber.done)
        } else {
            self.choose(self.model.messages.len(), input)
        };
        let place = self.place(done);
        let Some((reader, at)) = self.readers.get_mut(&name) else { return };
        if rewind {
            reader.rewind().unwrap()
        } else {
            reader.seek(place).unwrap()
        }
        *at = done;
    }

    fn clean(&mut self, roll: bool) {
        self.log.clean(CleanOptions::default().roll(roll)).unwrap();
        self.compare();
        let stored = self.model.subscribers.keys().map(|&n| self.log.checkpoint(name_of(n)).unwrap().segment);
        if let (Some(needed), Some(first)) = (stored.min(), self.log.segments().unwrap().first()) {
            assert!(*first >= needed, "segment {first} is left, {needed} is the first that is needed");
        }
    }

    /// Repairs the jlog, which is refused while a writer is open.
    fn repair(&mut self) {
        if self.writer.is_some() {
            assert!(self.ground.options().repair(self.ground.path()).is_err(), "a writer is there");
            return;
        }
        let done = self.ground.options().repair(self.ground.path()).unwrap();
        assert!(self.torn || done.is_empty(), "there is nothing to repair: {done:?}");
        self.torn = false;
        let verified = self.log.verify().unwrap();
        assert!(!verified.is_damaged(), "a repaired jlog is sound: {:?}", verified.findings);
    }

    /// Changes the size of the buffer, unless a writer is open.
    fn alter_pre_commit(&mut self, input: &mut Input<'_>) {
        let bytes = pre_commit(input);
        if self.writer.is_some() {
            return;
        }
        self.log.alter(AlterOptions::default().pre_commit(bytes)).unwrap();
        self.model.flush(false);
    }

    /// Runs every check on the jlog.
    fn verify(&mut self) {
        // A reader may move a checkpoint to the next segment, so that one can be removed.
        self.compare();
        let verified = self.log.verify().unwrap();
        assert!(self.torn || !verified.is_damaged(), "{:?}", verified.findings);
        let there = self.model.messages.len() - self.model.first;
        assert_eq!(verified.records, there as u64);
        for (name, subscriber) in &self.model.subscribers {
            let lag = self.model.messages.len() - subscriber.done.max(self.model.first);
            assert_eq!(self.log.lag(name_of(*name)).unwrap().messages, lag as u64, "of subscriber {name}");
        }
        look(&self.log).unwrap();
    }

    /// Checks that the segments hold as many records as the model, and that no id changes.
    fn compare(&mut self) {
        let current = self.log.meta().unwrap().storage_log;
        let mut ids = Vec::new();
        for segment in self.log.segments().unwrap() {
            let count = match self.counts.get(&segment) {
                Some(count) => *count,
                None => usize::try_from(self.log.inspect(segment, |_| {}).unwrap().records).unwrap(),
            };
            if segment < current {
                self.counts.insert(segment, count);
            }
            ids.extend((1..=count).map(|marker| LogId::new(segment, u32::try_from(marker).unwrap())));
        }
        let all = self.model.messages.len();
        assert!(ids.len() <= all, "{} records are there, of {all}", ids.len());
        let first = all - ids.len();
        assert!(first >= self.model.first, "what was removed is back");
        assert!(first <= self.model.needed().max(self.model.first), "messages are gone that are needed");
        self.model.first = first;
        for (sent, id) in self.model.messages[first..].iter_mut().zip(ids) {
            assert_eq!(*sent.id.get_or_insert(id), id, "a message changes its id");
        }
    }

    /// The process is killed or the power fails, in the middle of an operation or after one.
    fn crash(&mut self, how: u8, input: &mut Input<'_>) {
        let simulated = matches!(self.ground, Ground::Simulated(_));
        let power_lost = how & 1 != 0 && simulated;
        let before = self.model.clone();
        self.ground.record();
        if how & 2 != 0 && simulated {
            let op = input.byte();
            self.step(op, input);
        }
        let moments = self.ground.moments();
        let at = input.below(moments.len().max(1));
        let mut dice = Dice::new(input.byte().into());
        // No operation was in progress: everything is as promised.
        let whole = how & 2 == 0 || at + 1 >= moments.len();
        self.readers.clear();
        self.ground.crash(moments.get(at), power_lost, &mut dice);
        // Dropping it changes only the disk from before the crash.
        self.writer = None;
        self.log = self.ground.options().open(self.ground.path()).unwrap();
        self.counts.clear();
        let before = if whole { self.model.clone() } else { before };
        self.model.disown();
        self.torn |= power_lost;
        let seen = read_all(&self.log).unwrap();
        if whole && !power_lost && how & 4 != 0 {
            // The buffer keeps its contents.
            let there = self.model.messages[self.model.first..].iter().map(|sent| &sent.body);
            assert!(seen.iter().map(|(_, body)| body).eq(there), "what is in segments is there");
            self.compare();
            return;
        }
        self.open_writer(if how & 4 == 0 { 0 } else { 1 });
        self.writer.as_ref().unwrap().flush().unwrap();
        let found = read_all(&self.log).unwrap();
        assert!(found.starts_with(&seen), "what was read before there was a writer stays");
        if power_lost {
            self.after_power_failure(&before, &found, seen.len());
        } else {
            self.after_kill(&before, &found);
        }
        self.compare();
    }

    /// Checks that everything accepted exists once and in order, followed by some or all of what
    /// was in progress.
    fn after_kill(&mut self, before: &Model, found: &[(LogId, Vec<u8>)]) {
        let after = std::mem::take(&mut self.model);
        let accepted: BTreeSet<u32> = before.all().map(|sent| sent.serial).collect();
        let mut fresh = after.all().filter(|sent| !accepted.contains(&sent.serial)).peekable();
        let first = match found.first() {
            Some((_, body)) => before.messages.iter().position(|sent| sent.body == *body),
            None => None,
        };
        let first = first.unwrap_or(before.messages.len());
        assert!(first >= before.first || found.is_empty());
        assert!(
            first <= before.needed().max(after.needed()).max(before.first),
            "messages are gone that are needed"
        );
        let mut messages = before.messages.clone();
        let (there, rest) = found.split_at(found.len().min(messages.len() - first));
        assert!(
            messages[first..].iter().map(|sent| &sent.body).eq(there.iter().map(|(_, body)| body)),
            "what was in segments is there"
        );
        let mut buffered = before.buffered.iter().peekable();
        for (_, body) in rest {
            let next = match buffered.next_if(|sent| sent.body == *body) {
                Some(sent) => sent,
                None => fresh.next_if(|sent| sent.body == *body).expect("each once, and in order"),
            };
            messages.push(Sent { durable: false, own: true, ..next.clone() });
        }
        assert_eq!(buffered.next(), None, "what was in the buffer is there");
        for (sent, (id, _)) in messages[first..].iter_mut().zip(found) {
            sent.id = Some(*id);
        }
        self.model.serials = after.serials;
        self.model.messages = messages;
        self.model.disown();
        self.model.first = first;
        self.model.gone = before.gone.clone();
        let found_names = self.found_names();
        for name in 0..SUBSCRIBERS {
            let (old, new) = (before.subscribers.get(&name), after.subscribers.get(&name));
            if !found_names.contains(&name) {
                assert!(old.is_none() || new.is_none(), "subscriber {name} is gone");
                if let Some(old) = old {
                    self.model.gone.insert(name, old.clone());
                }
                continue;
            }
            let done = self.done_by(name, first, found);
            let may = [old, new].into_iter().flatten().map(|subscriber| subscriber.done.max(first));
            assert!(may.clone().any(|may| may == done), "subscriber {name} has done {done}, not {may:?}");
            let mut possible = old.or(new).unwrap().possible.clone();
            possible.push(done);
            let sure = old.is_some_and(|old| old.sure);
            self.model.subscribers.insert(name, Subscriber { done, possible, sure });
        }
    }

    /// Checks that everything durable exists once and in order, and nothing that was never written.
    /// The first `on_disk` messages were readable before a writer was opened.
    fn after_power_failure(&mut self, before: &Model, found: &[(LogId, Vec<u8>)], on_disk: usize) {
        let durable: BTreeSet<u32> =
            before.all().filter(|sent| sent.durable).map(|sent| sent.serial).collect();
        let all: Vec<Sent> = self
            .model
            .all()
            .map(|sent| Sent { durable: durable.contains(&sent.serial), ..sent.clone() })
            .collect();
        // How often each body may occur; one that was never written may not.
        let mut times: BTreeMap<&[u8], usize> = BTreeMap::new();
        for sent in &all {
            let twice = sent.was_buffered && !sent.durable;
            *times.entry(&sent.body).or_default() += if twice { 2 } else { 1 };
        }
        for (id, body) in found {
            let left = times.get_mut(&body[..]).unwrap_or_else(|| panic!("{id} was never written"));
            assert!(*left > 0, "{id} is there too often");
            *left -= 1;
        }
        let bodies = |sent: &mut dyn Iterator<Item = &Sent>| -> Vec<Vec<u8>> {
            sent.map(|sent| sent.body.clone()).collect()
        };
        let found_bodies: Vec<&[u8]> = found.iter().map(|(_, body)| &body[..]).collect();
        let must = bodies(&mut all[self.model.first..].iter().filter(|sent| sent.durable || sent.on_disk));
        assert!(is_subsequence(&must, &found_bodies), "durable messages are lost");
        // Messages that were never in the buffer are in order.
        let buffered: BTreeSet<&[u8]> =
            all.iter().filter(|sent| sent.was_buffered).map(|sent| &sent.body[..]).collect();
        let direct = bodies(&mut all.iter().filter(|sent| !buffered.contains(&sent.body[..])));
        let direct: Vec<&[u8]> = direct.iter().map(|body| &body[..]).collect();
        let found_direct: Vec<Vec<u8>> =
            found_bodies.iter().filter(|body| !buffered.contains(*body)).map(|body| body.to_vec()).collect();
        assert!(is_subsequence(&found_direct, &direct), "each once, and in order");

        let is_durable: BTreeSet<&[u8]> =
            all.iter().filter(|sent| sent.durable).map(|sent| &sent.body[..]).collect();
        let after = std::mem::take(&mut self.model);
        self.model.serials = after.serials;
        for (n, (id, body)) in found.iter().enumerate() {
            let sent = Sent {
                serial: self.model.accept(),
                body: body.clone(),
                durable: is_durable.contains(&body[..]),
                on_disk: n < on_disk,
                was_buffered: buffered.contains(&body[..]),
                own: false,
                id: Some(*id),
            };
            self.model.messages.push(sent);
        }
        let found_names = self.found_names();
        for name in 0..SUBSCRIBERS {
            let (old, new) = (before.subscribers.get(&name), after.subscribers.get(&name));
            if !found_names.contains(&name) {
                let sure = old.is_some_and(|old| old.sure) && new.is_some();
                assert!(!sure, "subscriber {name} is gone");
                continue;
            }
            let gone = before.gone.get(&name).into_iter().chain(after.gone.get(&name));
            let possible: Vec<usize> = [old, new]
                .into_iter()
                .flatten()
                .chain(gone)
                .flat_map(|subscriber| subscriber.possible.iter().copied())
                .collect();
            let most = possible.iter().copied().max().expect("somebody has subscribed");
            let least = possible.iter().copied().min().unwrap();
            let done = self.done_by(name, 0, found);
            for (_, body) in &found[..done] {
                let passed = all[..most].iter().any(|sent| sent.body == *body);
                assert!(passed, "subscriber {name} is past what it has not done");
            }
            for (_, body) in &found[done..] {
                let again = all[..least].iter().any(|sent| sent.durable && sent.body == *body);
                assert!(!again, "a durable checkpoint of subscriber {name} went back");
            }
            self.model.subscribers.insert(name, Subscriber { done, possible: vec![done], sure: true });
        }
    }

    fn found_names(&self) -> Vec<u8> {
        let names = self.log.subscribers().unwrap();
        assert!(names.iter().all(|name| name.to_string() != EVERYTHING));
        (0..SUBSCRIBERS).filter(|&n| names.contains(&name_of(n))).collect()
    }

    /// How many messages a subscriber has done, found by reading the rest; the messages before
    /// `first` no longer exist.
    fn done_by(&self, name: u8, first: usize, found: &[(LogId, Vec<u8>)]) -> usize {
        let mut reader = self.log.reader_with(name_of(name), self.reading()).unwrap();
        let rest = read_on(&mut reader).unwrap();
        assert!(found.ends_with(&rest), "subscriber {name} reads something else");
        first + found.len() - rest.len()
    }

    /// Checks that at the end everything is readable, also after a repair and cleaning.
    fn finish(mut self) {
        let was_torn = self.torn;
        if self.writer.is_none() {
            self.open_writer(0);
        } else if self.bypasses {
            self.end_writer(true);
            self.open_writer(0);
        }
        self.end_writer(true);
        self.compare();
        self.check_all();
        if was_torn {
            self.repair();
            self.check_all();
        }
        self.verify();
        self.clean(true);
        self.check_all();
        self.verify();
    }

    /// Checks that everything is read once and in order, for every subscriber.
    fn check_all(&mut self) {
        assert!(self.model.buffered.is_empty());
        let found = read_all(&self.log).unwrap();
        self.compare();
        let there = self.model.messages[self.model.first..].iter();
        assert!(found.iter().map(|(_, body)| body).eq(there.map(|sent| &sent.body)), "everything is there");
        for (name, subscriber) in &self.model.subscribers {
            let done = self.done_by(*name, self.model.first, &found);
            assert_eq!(done, subscriber.done.max(self.model.first), "of subscriber {name}");
        }
    }
}

fn segment_size(input: &mut Input<'_>) -> u32 {
    20 + u32::from(input.byte()) * 4
}

/// A buffer size of 0 to 300 bytes.
fn pre_commit(input: &mut Input<'_>) -> u32 {
    u32::try_from(input.below(301)).unwrap()
}
