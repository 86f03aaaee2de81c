//! A model of how writers, readers and the removal of segments interact. A model checker runs all
//! its interleavings: every change that other processes can see is a separate step, and a process
//! may be killed at any step.
//!
//! The model covers what the processes do with their files; steps are named after the functions
//! that take them. A second test drops each of the [`Rules`] in turn: then a property must fail.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, HasDiscoveries, Model, Property};

const WRITERS: usize = 2;
const READERS: usize = 2;
/// A segment with this many records is full.
const FULL: usize = 2;

/// What keeps the processes from harming each other.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// A writer that has locked a segment checks that it is still the one being written
    /// (`acquire`, `open_tail`).
    rechecks: bool,
    /// A writer appends to a segment, and ends it, only while it has the segment's lock (`lock`).
    locks: bool,
    /// A record that a killed writer has not finished is truncated before others are appended
    /// (`mend_tail`).
    mends: bool,
    /// The next segment is created before the metastore names it (`advance`).
    creates_first: bool,
    /// A segment is created only while the metastore names it (`open_tail`).
    creates_the_last: bool,
    /// A metastore that is behind the segments is moved forward only while nobody appends
    /// (`open_tail`).
    follows_locked: bool,
    /// A reader asks the metastore whether a segment is complete before it looks where the segment
    /// ends (`look`).
    asks_first: bool,
    /// A reader removes what no subscriber needs, not what it has passed itself
    /// (`furthest_behind`).
    asks_all: bool,
}

const RULES: Rules = Rules {
    rechecks: true,
    locks: true,
    mends: true,
    creates_first: true,
    creates_the_last: true,
    follows_locked: true,
    asks_first: true,
    asks_all: true,
};

/// A feed to explore.
struct Feed {
    rules: Rules,
    /// How many messages each writer has.
    messages: [u8; WRITERS],
    /// How many processes may be killed.
    kills: u8,
    /// How many segments may be ended before they are full.
    early: u8,
}

/// Segment and marker.
type Id = (u8, u8);
/// A message: its writer, and how many messages that writer had left.
type Message = (u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Record {
    Whole(Message),
    /// Its writer has not written all of it.
    Unfinished,
}

/// A segment's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct File {
    records: Vec<Record>,
    /// The writer that has its lock.
    locked: Option<usize>,
    /// The file no longer has a name.
    removed: bool,
}

impl File {
    /// The number of whole records before the first unfinished one.
    fn end(&self) -> u8 {
        let whole = self.records.iter().take_while(|record| matches!(record, Record::Whole(_)));
        u8::try_from(whole.count()).unwrap()
    }
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The segment that the metastore names.
    storage_log: u8,
    /// The writer that has the metastore's lock.
    metastore: Option<usize>,
    /// All files that ever existed, by the number of the segment. A number can have a second file
    /// after the first was removed.
    files: BTreeMap<(u8, u8), File>,
    checkpoints: [Id; READERS],
    writers: [Writer; WRITERS],
    readers: [Reader; READERS],
    kills: u8,
    early: u8,
    /// The appended messages, by id. [`World::twice`] is set if a message gets the id of another.
    appended: BTreeMap<Id, Message>,
    twice: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    /// How many messages it has not appended.
    left: u8,
    tail: Option<Tail>,
    step: WriterStep,
}

/// The segment that a writer knows, and where it ends as far as the writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tail {
    file: (u8, u8),
    records: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriterStep {
    Idle,
    /// `open_tail` has read this number from the metastore.
    OpenTail(u8),
    /// `recovery::beyond` has found no segment after it.
    Beyond(u8),
    /// `recovery::beyond` has found this later segment.
    Follow(u8, u8),
    Opened((u8, u8)),
    OpenedLocked((u8, u8)),
    /// `acquire` has locked the segment it knows.
    Locked,
    /// The segment is locked, it is the one being written, and its end is known.
    Acquired,
    /// Half of the record is written.
    Append,
    /// The writer will end the segment.
    Roll,
    /// `advance` has the metastore's lock.
    Advance,
    /// `advance` has made the first of its two changes.
    Advanced,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reader {
    position: Id,
    /// The ids of the messages that it got.
    given: BTreeSet<Id>,
    step: ReaderStep,
    /// The subscriber that needed the oldest segment when this reader last looked
    /// (`Passing::holder`).
    holder: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ReaderStep {
    Idle,
    /// `look` has read the number of the segment being written; without the rule, the number of
    /// records.
    Look(u8),
    /// `remove_passed` from this segment to that one.
    RemovePassed {
        from: u8,
        to: u8,
    },
    /// `furthest_behind` has looked at `seen` checkpoints, and `needed` is the first segment that
    /// they need.
    FurthestBehind {
        from: u8,
        to: u8,
        seen: usize,
        needed: u8,
        holder: usize,
    },
    /// `remove_before`
    RemoveBefore(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// The next step of a writer.
    Write(usize),
    /// It ends the segment before it is full.
    EndEarly(usize),
    KillWriter(usize),
    /// The next step of a reader.
    Read(usize),
    Commit(usize),
    KillReader(usize),
}

impl World {
    fn named(&self, number: u8) -> Option<(u8, u8)> {
        let mut files = self.files.range((number, 0)..=(number, u8::MAX));
        files.find(|(_, file)| !file.removed).map(|(&id, _)| id)
    }

    /// Opens a segment's file, or creates it.
    fn create(&mut self, number: u8) -> (u8, u8) {
        self.named(number).unwrap_or_else(|| {
            let before = self.files.range((number, 0)..=(number, u8::MAX)).count();
            let id = (number, u8::try_from(before).unwrap());
            self.files.insert(id, File::default());
            id
        })
    }

    fn segments(&self) -> impl Iterator<Item = u8> {
        self.files.iter().filter(|(_, file)| !file.removed).map(|(&(number, _), _)| number)
    }

    fn file(&mut self, id: (u8, u8)) -> &mut File {
        self.files.get_mut(&id).unwrap()
    }

    fn try_lock(&mut self, id: (u8, u8), writer: usize, rules: Rules) -> bool {
        let file = self.file(id);
        let free = file.locked.is_none() || !rules.locks;
        if free {
            file.locked = Some(writer);
        }
        free
    }

    fn release(&mut self, writer: usize) {
        for file in self.files.values_mut().filter(|file| file.locked == Some(writer)) {
            file.locked = None;
        }
    }

    /// Finds the end of a locked segment, and truncates an unfinished record there.
    fn mend_tail(&mut self, id: (u8, u8), rules: Rules) -> u8 {
        let file = self.file(id);
        let end = file.end();
        if rules.mends {
            file.records.truncate(usize::from(end));
        }
        u8::try_from(file.records.len()).unwrap()
    }

    /// The next step with a locked segment that is the one being written.
    fn acquired(&mut self, n: usize, file: (u8, u8), rules: Rules) -> WriterStep {
        let records = self.mend_tail(file, rules);
        self.writers[n].tail = Some(Tail { file, records });
        if usize::from(records) < FULL { WriterStep::Acquired } else { WriterStep::Roll }
    }

    /// Takes the next step of a writer; `None` if it has to wait.
    fn write(&mut self, n: usize, rules: Rules) -> Option<()> {
        let Writer { left, tail, step } = self.writers[n].clone();
        let next = match step {
            WriterStep::Idle if left == 0 => return None,
            WriterStep::Idle => match tail {
                None => WriterStep::OpenTail(self.storage_log),
                Some(tail) if self.try_lock(tail.file, n, rules) => WriterStep::Locked,
                Some(_) => return None,
            },
            WriterStep::OpenTail(number) => {
                let last = match self.named(number) {
                    None => self.segments().max().unwrap_or(number).max(number),
                    Some(_) => (number..).take_while(|&n| n == number || self.named(n).is_some()).last()?,
                };
                if last == number { WriterStep::Beyond(number) } else { WriterStep::Follow(number, last) }
            }
            // `Metastore::set_storage_log`
            WriterStep::Follow(from, to) => {
                let locked = self.named(from).is_some_and(|id| self.files[&id].locked.is_some());
                if self.metastore.is_some() || rules.follows_locked && locked {
                    return None;
                }
                if self.storage_log == from {
                    self.storage_log = to;
                }
                WriterStep::Idle
            }
            WriterStep::Beyond(number) => match self.named(number) {
                Some(file) => WriterStep::Opened(file),
                None if !rules.creates_the_last => WriterStep::Opened(self.create(number)),
                // `Metastore::while_it_is`
                None if self.metastore.is_some() => return None,
                None => {
                    if self.storage_log == number {
                        self.create(number);
                    }
                    WriterStep::Idle
                }
            },
            WriterStep::Opened(file) if self.try_lock(file, n, rules) => WriterStep::OpenedLocked(file),
            WriterStep::Opened(_) => return None,
            WriterStep::OpenedLocked(file) => {
                let is_it = self.storage_log == file.0 && self.named(file.0) == Some(file);
                if is_it || !rules.rechecks {
                    self.acquired(n, file, rules)
                } else {
                    self.release(n);
                    WriterStep::Idle
                }
            }
            WriterStep::Locked => {
                let tail = tail?;
                let is_it = self.storage_log == tail.file.0 && !self.files[&tail.file].removed;
                if is_it || !rules.rechecks {
                    self.acquired(n, tail.file, rules)
                } else {
                    self.release(n);
                    self.writers[n].tail = None;
                    WriterStep::Idle
                }
            }
            WriterStep::Acquired => {
                let tail = tail?;
                let records = &mut self.file(tail.file).records;
                records.truncate(usize::from(tail.records));
                records.push(Record::Unfinished);
                WriterStep::Append
            }
            WriterStep::Append => {
                let tail = tail?;
                let message = (u8::try_from(n).unwrap(), left);
                let at = usize::from(tail.records);
                // It writes where the record begins, whatever is there.
                let records = &mut self.file(tail.file).records;
                records.truncate(at + 1);
                match records.get_mut(at) {
                    Some(record) => *record = Record::Whole(message),
                    None => self.twice = true,
                }
                let id = (tail.file.0, tail.records + 1);
                self.twice |= self.appended.insert(id, message).is_some();
                self.writers[n].left -= 1;
                self.writers[n].tail = Some(Tail { records: tail.records + 1, ..tail });
                if at + 1 < FULL {
                    self.release(n);
                    WriterStep::Idle
                } else {
                    WriterStep::Roll
                }
            }
            WriterStep::Roll if self.metastore.is_some() => return None,
            WriterStep::Roll => {
                if self.storage_log == tail?.file.0 {
                    self.metastore = Some(n);
                    WriterStep::Advance
                } else {
                    self.release(n);
                    self.writers[n].tail = None;
                    WriterStep::Idle
                }
            }
            WriterStep::Advance => {
                if rules.creates_first {
                    self.create(tail?.file.0 + 1);
                } else {
                    self.storage_log = tail?.file.0 + 1;
                }
                WriterStep::Advanced
            }
            WriterStep::Advanced => {
                if rules.creates_first {
                    self.storage_log = tail?.file.0 + 1;
                } else {
                    self.create(tail?.file.0 + 1);
                }
                self.metastore = None;
                self.release(n);
                self.writers[n].tail = None;
                WriterStep::Idle
            }
        };
        self.writers[n].step = next;
        Some(())
    }

    /// Moves a reader that has read its segment to the next one, if the segment is complete:
    /// `storage_log` is what the reader knows of the metastore.
    fn pass(&mut self, k: usize, storage_log: u8) {
        let number = self.readers[k].position.0;
        if number < storage_log {
            let next = self.segments().find(|&n| n > number).unwrap_or(storage_log).min(storage_log);
            self.readers[k].position = (next, 0);
        }
    }

    /// Takes the next step of a reader.
    fn read(&mut self, k: usize, rules: Rules) -> Option<()> {
        let (number, marker) = self.readers[k].position;
        let there = self.named(number).map_or(0, |id| self.files[&id].end());
        let next = match self.readers[k].step.clone() {
            ReaderStep::Idle => ReaderStep::Look(if rules.asks_first { self.storage_log } else { there }),
            ReaderStep::Look(before) => {
                let (end, storage_log) =
                    if rules.asks_first { (there, before) } else { (before, self.storage_log) };
                if end > marker {
                    self.readers[k].given.extend((marker + 1..=end).map(|marker| (number, marker)));
                    self.readers[k].position.1 = end;
                } else {
                    self.pass(k, storage_log);
                }
                ReaderStep::Idle
            }
            ReaderStep::RemovePassed { from, to } => match self.readers[k].holder {
                Some(holder) if self.checkpoints[holder].0 <= from => ReaderStep::Idle,
                _ if !rules.asks_all => ReaderStep::RemoveBefore(to),
                _ => ReaderStep::FurthestBehind { from, to, seen: 0, needed: u8::MAX, holder: 0 },
            },
            ReaderStep::FurthestBehind { to, seen, needed, holder, .. } if seen == READERS => {
                self.readers[k].holder = Some(holder);
                ReaderStep::RemoveBefore(to.min(needed))
            }
            ReaderStep::FurthestBehind { from, to, seen, needed, holder } => {
                let segment = self.checkpoints[seen].0;
                let (needed, holder) = if segment < needed { (segment, seen) } else { (needed, holder) };
                ReaderStep::FurthestBehind { from, to, seen: seen + 1, needed, holder }
            }
            ReaderStep::RemoveBefore(end) => {
                let first = self.segments().next().filter(|&first| first < end);
                if let Some(id) = first.and_then(|first| self.named(first)) {
                    self.file(id).removed = true;
                    ReaderStep::RemoveBefore(end)
                } else {
                    ReaderStep::Idle
                }
            }
        };
        self.readers[k].step = next;
        Some(())
    }

    /// `Storing::store`
    fn commit(&mut self, k: usize) {
        let (old, new) = (self.checkpoints[k], self.readers[k].position);
        let to = new.0.min(self.storage_log);
        self.checkpoints[k] = new;
        self.readers[k].step =
            if old.0 < to { ReaderStep::RemovePassed { from: old.0, to } } else { ReaderStep::Idle };
    }
}

impl Model for Feed {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let writer = |left| Writer { left, tail: None, step: WriterStep::Idle };
        let reader =
            Reader { position: (0, 0), given: BTreeSet::new(), step: ReaderStep::Idle, holder: None };
        vec![World {
            storage_log: 0,
            metastore: None,
            files: BTreeMap::from([((0, 0), File::default())]),
            checkpoints: [(0, 0); READERS],
            writers: self.messages.map(writer),
            readers: [reader.clone(), reader],
            kills: self.kills,
            early: self.early,
            appended: BTreeMap::new(),
            twice: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (n, writer) in world.writers.iter().enumerate() {
            actions.push(Action::Write(n));
            if world.early > 0
                && writer.step == WriterStep::Acquired
                && writer.tail.is_some_and(|tail| tail.records > 0)
            {
                actions.push(Action::EndEarly(n));
            }
            if world.kills > 0 && writer.step != WriterStep::Idle {
                actions.push(Action::KillWriter(n));
            }
        }
        for (k, reader) in world.readers.iter().enumerate() {
            actions.push(Action::Read(k));
            if reader.step == ReaderStep::Idle && reader.position > world.checkpoints[k] {
                actions.push(Action::Commit(k));
            }
            if world.kills > 0 && (reader.step != ReaderStep::Idle || reader.position > world.checkpoints[k])
            {
                actions.push(Action::KillReader(k));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Write(n) => next.write(n, self.rules)?,
            Action::EndEarly(n) => {
                next.writers[n].step = WriterStep::Roll;
                next.early -= 1;
            }
            Action::KillWriter(n) => {
                next.release(n);
                next.metastore = next.metastore.filter(|&holder| holder != n);
                next.writers[n] = Writer { left: next.writers[n].left, tail: None, step: WriterStep::Idle };
                next.kills -= 1;
            }
            Action::Read(k) => next.read(k, self.rules)?,
            Action::Commit(k) => next.commit(k),
            Action::KillReader(k) => {
                let given = std::mem::take(&mut next.readers[k].given);
                let position = next.checkpoints[k];
                next.readers[k] = Reader { position, given, step: ReaderStep::Idle, holder: None };
                next.kills -= 1;
            }
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was appended stays where it is", |_: &Self, world: &World| {
                !world.twice
                    && world.appended.iter().all(|(&(number, marker), message)| {
                        world.named(number).is_none_or(|id| {
                            world.files[&id].records.get(usize::from(marker) - 1)
                                == Some(&Record::Whole(*message))
                        })
                    })
            }),
            Property::always("a reader passes nothing that it was not given", |_: &Self, world: &World| {
                world.readers.iter().all(|reader| {
                    let mut passed = world.appended.range(..=reader.position);
                    passed.all(|(id, _)| reader.given.contains(id))
                })
            }),
            Property::always("nothing is removed that a subscriber needs", |_: &Self, world: &World| {
                let mut gone = world.appended.keys().filter(|id| world.named(id.0).is_none());
                gone.all(|&id| world.checkpoints.iter().all(|&checkpoint| id <= checkpoint))
            }),
            Property::always("the segment that the metastore names is there", |_: &Self, world: &World| {
                world.named(world.storage_log).is_some()
            }),
            Property::always("a segment that was removed does not come back", |_: &Self, world: &World| {
                world.files.keys().all(|&(_, times)| times == 0)
            }),
            Property::always("a checkpoint passes nothing that was not given", |_: &Self, world: &World| {
                world.checkpoints.iter().zip(&world.readers).all(|(checkpoint, reader)| {
                    world.appended.range(..=checkpoint).all(|(id, _)| reader.given.contains(id))
                })
            }),
            Property::sometimes(
                "everything is read, and only the last segment is left",
                |_: &Self, world: &World| {
                    let done = world.writers.iter().all(|writer| writer.left == 0);
                    let all = world.appended.keys().next_back();
                    done && world.checkpoints.iter().all(|checkpoint| Some(checkpoint) >= all)
                        && world.segments().count() == 1
                },
            ),
            Property::sometimes("a killed writer leaves half of a record", |_: &Self, world: &World| {
                world
                    .files
                    .values()
                    .any(|file| file.locked.is_none() && file.records.contains(&Record::Unfinished))
            }),
            Property::sometimes(
                "a killed writer leaves the metastore behind the segments",
                |_: &Self, world: &World| {
                    world.metastore.is_none() && world.named(world.storage_log + 1).is_some()
                },
            ),
        ]
    }
}

fn feed(rules: Rules) -> Feed {
    Feed { rules, messages: [2, 1], kills: 1, early: 1 }
}

#[test]
fn two_writers_and_two_readers() {
    let checker = feed(RULES).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done() && checker.unique_state_count() > 100_000, "{}", checker.unique_state_count());
}

#[test]
fn each_rule_is_needed() {
    for (rules, property) in [
        (Rules { rechecks: false, ..RULES }, "a reader passes nothing that it was not given"),
        (Rules { locks: false, ..RULES }, "what was appended stays where it is"),
        (Rules { mends: false, ..RULES }, "a reader passes nothing that it was not given"),
        (Rules { creates_first: false, ..RULES }, "the segment that the metastore names is there"),
        (Rules { creates_the_last: false, ..RULES }, "a segment that was removed does not come back"),
        (Rules { follows_locked: false, ..RULES }, "a reader passes nothing that it was not given"),
        (Rules { asks_first: false, ..RULES }, "a reader passes nothing that it was not given"),
        (Rules { asks_all: false, ..RULES }, "nothing is removed that a subscriber needs"),
    ] {
        // One thread, so that the states that are reached before the first failure are always the
        // same.
        let checker = feed(rules).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let broken: Vec<&str> = checker.discoveries().into_keys().collect();
        assert!(broken.contains(&property), "{rules:?}: {broken:?}");
    }
}
