//! Crashes at every call that changes the disk, in simulated storage: afterwards, everything that
//! was promised exists, and nothing else.
//!
//! `JLOG_CRASH_STATES` sets how many states are tried (20,000 by default, over all tests of this
//! file), and `JLOG_CRASH_SEED` the first seed; a failure names the seed, the call and the kind of
//! crash.

use std::path::Path;
use std::sync::Arc;

use jlog_core::storage::sim::{Dice, Moment, SimStorage};
use jlog_core::{
    CleanOptions, Compression, Event, Jlog, LogId, OnDamage, Reader, ReaderOptions, Safety, Start,
    SyncPolicy, Wait, Writer, WriterOptions,
};

const FEED: &str = "/feed";

/// The promises that a workload got, each with the number of changing calls before it.
#[derive(Debug, Default)]
struct Reported {
    /// The messages that the writer accepted: (calls before, calls after, number of the message).
    accepted: Vec<(u64, u64, u32)>,
    /// How many messages can be read.
    readable: Vec<(u64, usize)>,
    /// How many messages are durable.
    durable: Vec<(u64, usize)>,
    /// The consumer's checkpoints: (calls before, calls after, messages done, whether it was
    /// durable).
    checkpoints: Vec<(u64, u64, usize, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    segment_size: u32,
    pre_commit: u32,
    compression: Compression,
    safety: Safety,
    checksums: bool,
    policy: SyncPolicy,
    /// Whether a subscriber that never moves retains every segment.
    keeper: bool,
}

impl Setup {
    fn new(dice: &mut Dice) -> Self {
        Self {
            segment_size: 150 + u32::try_from(dice.roll(600)).unwrap(),
            pre_commit: [0, 0, 200, 700][usize::try_from(dice.roll(4)).unwrap()],
            compression: if dice.roll(4) == 0 { Compression::Lz4 } else { Compression::None },
            safety: if dice.roll(3) == 0 { Safety::Safe } else { Safety::AlmostSafe },
            checksums: dice.roll(3) > 0,
            policy: match dice.roll(3) {
                0 => SyncPolicy::Never,
                1 => SyncPolicy::OnRoll,
                _ => SyncPolicy::EachAppend,
            },
            keeper: dice.roll(3) > 0,
        }
    }

    fn writer(&self, log: &Jlog) -> Writer {
        log.writer_with(WriterOptions::default().sync(self.policy)).unwrap()
    }
}

/// A message that contains its number, with its own length and content.
fn message(number: u32) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    let len = usize::try_from(number.wrapping_mul(2_654_435_761) >> 24).unwrap() / 2;
    body.extend((0..len).map(|i| u8::try_from((i * 7 + number as usize) % 251).unwrap()));
    body
}

fn number(body: &[u8]) -> u32 {
    let number = u32::from_le_bytes(*body.first_chunk().unwrap());
    assert_eq!(body, message(number), "message {number} is not what was written");
    number
}

fn open(disk: &SimStorage) -> Jlog {
    Jlog::options().storage(Arc::new(disk.clone())).open(FEED).unwrap()
}

fn consumer(log: &Jlog) -> Reader {
    log.reader_with("consumer", ReaderOptions::default().on_damage(OnDamage::Skip)).unwrap()
}

/// Does some work, and keeps the state of the disk before each changing call.
fn work(setup: Setup, dice: &mut Dice) -> (Vec<Moment>, Reported) {
    let disk = SimStorage::new();
    disk_root(&disk);
    let log = Jlog::options()
        .storage(Arc::new(disk.clone()))
        .segment_size(setup.segment_size)
        .pre_commit(setup.pre_commit)
        .compression(setup.compression)
        .safety(setup.safety)
        .checksums(setup.checksums)
        .create(FEED)
        .unwrap();
    log.subscribe("consumer", Start::Beginning).unwrap();
    if setup.keeper {
        log.subscribe("keeper", Start::Beginning).unwrap();
    }
    disk.record();
    let mut reported = Reported::default();
    let mut next = 0;
    let mut read = 0;
    let mut writer = setup.writer(&log);
    let mut reader = consumer(&log);
    let buffered = setup.pre_commit > 0;
    for _ in 0..12 + dice.roll(14) {
        let before = disk.calls();
        match dice.roll(12) {
            0..5 => {
                let n = if dice.roll(3) == 0 { 1 + dice.roll(6) } else { 1 };
                let numbers: Vec<u32> = (0..n)
                    .map(|_| {
                        next += 1;
                        next - 1
                    })
                    .collect();
                let bodies: Vec<Vec<u8>> = numbers.iter().map(|&n| message(n)).collect();
                if let [body] = &bodies[..] {
                    writer.append(body).unwrap();
                } else {
                    writer.append_batch(&bodies).unwrap();
                }
                let after = disk.calls();
                reported.accepted.extend(numbers.iter().map(|&number| (before, after, number)));
                if !buffered {
                    reported.readable.push((after, next as usize));
                }
                if setup.policy == SyncPolicy::EachAppend {
                    reported.readable.push((after, next as usize));
                    reported.durable.push((after, next as usize));
                }
            }
            5 => {
                writer.flush().unwrap();
                reported.readable.push((disk.calls(), next as usize));
            }
            6 => {
                writer.sync().unwrap();
                reported.readable.push((disk.calls(), next as usize));
                reported.durable.push((disk.calls(), next as usize));
            }
            7 | 8 => {
                let mut last = None;
                if let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                    for message in &batch {
                        assert_eq!(number(message.body()) as usize, read, "read in order");
                        read += 1;
                    }
                    last = Some(batch.last_id());
                }
                if let Some(last) = last {
                    reader.commit(last).unwrap();
                    let durable = setup.safety == Safety::Safe;
                    reported.checkpoints.push((before, disk.calls(), read, durable));
                }
            }
            9 => {
                writer.roll().unwrap();
                reported.readable.push((disk.calls(), next as usize));
            }
            10 => {
                if setup.policy == SyncPolicy::Never {
                    // The next writer does not know what this one has not synced.
                    writer.sync().unwrap();
                    reported.durable.push((disk.calls(), next as usize));
                }
                // Closing and dropping both leave nothing in the buffer.
                if dice.roll(2) == 0 {
                    writer.close().unwrap();
                } else {
                    drop(writer);
                }
                reported.readable.push((disk.calls(), next as usize));
                writer = setup.writer(&log);
            }
            _ => {
                log.clean(CleanOptions::default()).unwrap();
            }
        }
    }
    let moments = disk.moments();
    drop(writer);
    (moments, reported)
}

/// Makes the disk's root directory, which exists from the start.
fn disk_root(disk: &SimStorage) {
    use jlog_core::storage::Storage;
    disk.create_dir(Path::new("/"), 0o755).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
}

fn held<T: Copy>(facts: &[(u64, T)], calls: u64) -> Option<T> {
    facts.iter().rev().find(|(after, _)| *after <= calls).map(|(_, fact)| *fact)
}

/// Reads everything from a checkpoint on.
fn read_all(log: &Jlog, subscriber: &str) -> Vec<u32> {
    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = log.reader_with(subscriber, options).unwrap();
    let mut numbers = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        numbers.extend(batch.iter().map(|message| number(message.body())));
    }
    numbers
}

/// Opens the state after a crash, and checks it against the promises until then.
fn check(disk: &SimStorage, setup: Setup, reported: &Reported, calls: u64, power_lost: bool) {
    let log = open(disk);
    // Even before a writer recovers anything, a reader sees whole messages in order.
    let before_writer = read_all(&log, "consumer");
    assert!(before_writer.is_sorted_by(|a, b| a < b), "a reader before the writer: {before_writer:?}");

    let writer = setup.writer(&log);
    writer.flush().unwrap();
    let accepted: Vec<u32> = reported
        .accepted
        .iter()
        .filter(|(_, after, _)| *after <= calls)
        .map(|(.., number)| *number)
        .collect();
    let in_flight: Vec<u32> = reported
        .accepted
        .iter()
        .filter(|(before, after, _)| *before <= calls && *after > calls)
        .map(|(.., number)| *number)
        .collect();
    let durable = held(&reported.durable, calls).unwrap_or(0);
    let readable = held(&reported.readable, calls).unwrap_or(0);

    // The consumer's checkpoint is the last one it stored or the one it was storing. After a power
    // failure, it may be an earlier one, but not before the last durable one.
    let done: Vec<_> = reported.checkpoints.iter().filter(|(_, after, ..)| *after <= calls).collect();
    let least = match power_lost {
        false => done.last().map_or(0, |(_, _, messages, _)| *messages),
        true => done.iter().rev().find(|(.., durable)| *durable).map_or(0, |(_, _, messages, _)| *messages),
    };
    let most = reported
        .checkpoints
        .iter()
        .rfind(|(before, ..)| *before <= calls)
        .map_or(0, |(_, _, messages, _)| *messages);

    let rest = read_all(&log, "consumer");
    assert!(rest.is_sorted_by(|a, b| a < b), "each once and in order: {rest:?}");
    for number in &rest {
        assert!(accepted.contains(number) || in_flight.contains(number), "message {number} was not written");
    }
    let must = if power_lost { durable } else { accepted.len() };
    for number in most..must {
        assert!(
            rest.contains(&u32::try_from(number).unwrap()),
            "message {number} is lost (accepted {}, readable {readable}, durable {durable}): {rest:?}",
            accepted.len()
        );
    }
    if let Some(first) = rest.first()
        && !power_lost
    {
        assert!(*first as usize >= least, "the checkpoint went back: {first} < {least}");
        assert!(*first as usize <= most.max(least), "the checkpoint went forward: {first} > {most}");
    }
    if power_lost {
        for number in 0..must.min(least) {
            assert!(!rest.contains(&u32::try_from(number).unwrap()), "a durable checkpoint went back");
        }
    }
    if setup.keeper {
        let all = read_all(&log, "keeper");
        assert!(all.is_sorted_by(|a, b| a < b), "each once and in order: {all:?}");
        let expected: Vec<u32> = (0..u32::try_from(must).unwrap()).collect();
        let there: Vec<u32> = all.iter().copied().filter(|number| (*number as usize) < must).collect();
        assert_eq!(there, expected, "what must be there");
        if !power_lost {
            let more: Vec<u32> = all[must..].to_vec();
            assert_eq!(more, in_flight[..more.len()], "a part of what was under way");
        }
    }

    // The feed continues to work.
    let mut reader = consumer(&log);
    while reader.next_batch(Wait::No).unwrap().is_some() {}
    for number in 1_000_000..1_000_003 {
        writer.append(message(number)).unwrap();
    }
    writer.sync().unwrap();
    let mut new = Vec::new();
    let mut last = LogId::default();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        new.extend(batch.iter().map(|message| number(message.body())));
        last = batch.last_id();
    }
    assert_eq!(new, [1_000_000, 1_000_001, 1_000_002], "messages after the crash");
    reader.commit(last).unwrap();
    drop(reader);
    writer.close().unwrap();
    assert_eq!(read_all(&log, "consumer"), [0u32; 0], "nothing is left to read");
    for event in log.take_events() {
        if !power_lost {
            assert!(
                !matches!(event, Event::BufferSetAside { .. } | Event::DamageLeft { .. }),
                "not after a kill: {event}"
            );
        }
    }
}

fn run(power_lost: bool, share: u64) {
    let parse = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let states: u64 = parse("JLOG_CRASH_STATES").unwrap_or(20_000) / share;
    let mut seed: u64 = parse("JLOG_CRASH_SEED").unwrap_or(if power_lost { 1 << 32 } else { 0 });
    let variants = if power_lost { 4 } else { 2 };
    let mut tried = 0;
    while tried < states {
        let mut dice = Dice::new(seed);
        let setup = Setup::new(&mut dice);
        let (moments, reported) = work(setup, &mut dice);
        for moment in &moments {
            for variant in 0..variants {
                let mut fate = Dice::new(seed ^ (moment.calls << 8) ^ variant);
                let disk = if power_lost {
                    moment.after_power_loss(&mut fate)
                } else {
                    moment.after_kill(&mut fate)
                };
                let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    check(&disk, setup, &reported, moment.calls, power_lost);
                }));
                if let Err(panic) = checked {
                    eprintln!(
                        "seed {seed}, before call {}, variant {variant}, power lost: {power_lost}, {setup:?}",
                        moment.calls + 1
                    );
                    std::panic::resume_unwind(panic);
                }
                tried += 1;
            }
        }
        seed += 1;
    }
    eprintln!("{tried} states, seeds up to {seed}");
}

#[test]
fn after_a_kill_everything_accepted_is_there_once() {
    run(false, 2);
}

#[test]
fn after_a_power_failure_everything_durable_is_there_once() {
    run(true, 2);
}
