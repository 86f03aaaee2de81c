//! Processes killed at random moments: no acknowledged message is lost, none is torn or present
//! twice, and no checkpoint is ahead of the messages that its reader has delivered.
//!
//! `JLOG_KILL_ROUNDS` sets how many writers are killed (200 by default, over all tests of this
//! file), and `JLOG_KILL_SEED` the choices.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use jlog_core::storage::sim::Dice;
use jlog_core::{Compression, Event, Jlog, JlogOptions, LogId, Reader, Start, Wait};
use tempfile::TempDir;

use testkit::checker::Conforming;
use testkit::messages::parse;

const TESTS: u64 = 6;
const SUBSCRIBERS: [&str; 2] = ["one", "two"];

/// A process that works endlessly.
struct Worker {
    child: Child,
    stdout: BufReader<ChildStdout>,
    heard: Vec<String>,
}

impl Worker {
    fn start(task: &str, feed: &Path, arg: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args([task.as_ref(), feed.as_os_str(), arg.as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, heard: Vec::new() }
    }

    /// Waits for a line.
    fn hear(&mut self) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the worker ended by itself: {:?}", self.child.wait());
        self.heard.push(line.trim_end().to_owned());
    }

    /// Kills it (SIGKILL), and returns all complete lines that it has printed.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "the worker ended by itself: {status}");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        self.heard.extend(whole.lines().map(str::to_owned));
        std::mem::take(&mut self.heard)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // This has no effect on a process that was killed and waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The test's knowledge of a feed.
struct Known {
    /// The ids of all messages, by their numbers.
    ids: Vec<LogId>,
    /// How many messages each subscriber has delivered.
    delivered: [usize; 2],
}

impl Known {
    /// How many messages a checkpoint says are done.
    fn done(&self, checkpoint: LogId) -> usize {
        self.ids.partition_point(|id| *id <= checkpoint)
    }

    /// Reads on to the end.
    fn read_on(&mut self, reader: &mut Reader) {
        let mut last = None;
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            for message in &batch {
                let (_, seq) = parse(message.body()).expect("a message as it was written");
                assert_eq!(seq as usize, self.ids.len(), "each once and in order");
                if let Some(before) = self.ids.last() {
                    let next =
                        [LogId::new(before.segment, before.marker + 1), LogId::new(before.segment + 1, 1)];
                    assert!(next.contains(&message.id()), "{} after {before}", message.id());
                }
                self.ids.push(message.id());
            }
            last = Some(batch.last_id());
        }
        if let Some(last) = last {
            reader.commit(last).unwrap();
        }
    }

    /// Checks the messages that a reader delivered, beginning at its checkpoint.
    fn check_reader(&mut self, log: &Jlog, subscriber: usize, began: usize, lines: &[String]) {
        let name = SUBSCRIBERS[subscriber];
        for (n, line) in lines.iter().enumerate() {
            let (id, seq) = line.split_once(' ').unwrap();
            let seq: usize = seq.parse().unwrap();
            assert_eq!(seq, began + n, "{name}: in order from its checkpoint on");
            assert_eq!(id.parse::<LogId>().unwrap(), self.ids[seq], "{name}: the id of message {seq}");
        }
        self.delivered[subscriber] = self.delivered[subscriber].max(began + lines.len());
        let done = self.done(log.checkpoint(name).unwrap());
        assert!(done >= began, "{name}: its checkpoint went back from {began} to {done}");
        let delivered = self.delivered[subscriber];
        assert!(done <= delivered, "{name}: checkpoint {done} is ahead of what was delivered, {delivered}");
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn killed_at_random(options: &JlogOptions, number: u64) {
    let memory = Path::new("/dev/shm");
    let dir: TempDir =
        if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() };
    let path = dir.path().join("feed");
    let log = options.create(&path).unwrap();
    for name in SUBSCRIBERS {
        log.subscribe(name, Start::Beginning).unwrap();
    }
    log.subscribe("checker", Start::Beginning).unwrap();
    let mut checker = log.reader("checker").unwrap();
    let mut known = Known { ids: Vec::new(), delivered: [0; 2] };
    let rounds = variable("JLOG_KILL_ROUNDS").unwrap_or(200).div_ceil(TESTS);
    let seed = variable("JLOG_KILL_SEED").unwrap_or(0) * TESTS + number;
    let mut dice = Dice::new(seed);
    for round in 0..rounds {
        let began = SUBSCRIBERS.map(|name| known.done(log.checkpoint(name).unwrap()));
        let readers = SUBSCRIBERS.map(|name| Worker::start("consume-for-ever", &path, name));
        let next = known.ids.len();
        let mut writer = Worker::start("append-for-ever", &path, &next.to_string());
        // Kill sometimes while the writer opens, and otherwise when this much is acknowledged (and
        // some more that is not heard yet).
        let hear = if dice.roll(8) == 0 { 0 } else { 1 + dice.roll(250) };
        for _ in 0..hear {
            writer.hear();
        }
        // Some readers are killed before the writer, some after it.
        let order = dice.roll(3);
        let [one, two] = readers;
        let (lines, acknowledged) = match order {
            0 => {
                let lines = [one.kill(), two.kill()];
                (lines, writer.kill())
            }
            1 => {
                let first = one.kill();
                let acknowledged = writer.kill();
                ([first, two.kill()], acknowledged)
            }
            _ => {
                let acknowledged = writer.kill();
                ([one.kill(), two.kill()], acknowledged)
            }
        };
        assert!(acknowledged.len() as u64 >= hear);

        // The next writer recovers the feed.
        let writer = log.writer().unwrap();
        writer.close().unwrap();
        known.read_on(&mut checker);
        if let Some(last) = acknowledged.last() {
            let last: usize = last.parse().unwrap();
            let there = known.ids.len();
            assert!(there > last, "round {round}, seed {seed}: {last} is acknowledged, {there} are there");
            // One call, of up to 10 messages, was in progress.
            assert!(there <= last + 1 + 10, "round {round}, seed {seed}: {there} are there after {last}");
        }
        for (subscriber, lines) in lines.iter().enumerate() {
            known.check_reader(&log, subscriber, began[subscriber], lines);
        }
        for event in log.take_events() {
            let expected = matches!(
                event,
                Event::TailTruncated { .. }
                    | Event::BufferRecovered { .. }
                    | Event::BufferAlreadyFlushed { .. }
                    | Event::MetastoreUpdated { .. }
            );
            assert!(expected, "round {round}, seed {seed}: {event}");
        }
    }
    assert!(known.ids.last().is_some_and(|last| last.segment > 2), "there were rolls");
    let verification = log.verify().unwrap();
    assert!(!verification.is_damaged(), "{verification:?}");
    for (subscriber, name) in SUBSCRIBERS.into_iter().enumerate() {
        let began = known.done(log.checkpoint(name).unwrap());
        let mut reader = log.reader(name).unwrap();
        let mut lines = Vec::new();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            lines.extend(batch.iter().map(|m| format!("{} {}", m.id(), parse(m.body()).unwrap().1)));
        }
        assert_eq!(began + lines.len(), known.ids.len(), "{name} gets the rest");
        known.check_reader(&log, subscriber, began, &lines);
    }
    Conforming::start().check(&path);
}

#[test]
fn without_a_buffer() {
    killed_at_random(&Jlog::options().segment_size(3000), 0);
}

#[test]
fn without_a_buffer_or_checksums() {
    killed_at_random(&Jlog::options().segment_size(3000).checksums(false), 1);
}

#[test]
fn with_a_buffer() {
    killed_at_random(&Jlog::options().segment_size(3000).pre_commit(700), 2);
}

#[test]
fn with_a_buffer_without_checksums() {
    killed_at_random(&Jlog::options().segment_size(3000).pre_commit(700).checksums(false), 3);
}

#[test]
fn with_a_buffer_and_compression() {
    let options = Jlog::options().segment_size(2000).pre_commit(400).compression(Compression::Lz4);
    killed_at_random(&options, 4);
}

/// A process whose tasks append durably is killed again and again. Every message that a future
/// reported as durable exists, and all messages exist once and in the order of their task.
#[test]
fn tasks_that_append_durably() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let log = Jlog::options().segment_size(30_000).pre_commit(2000).create(&path).unwrap();
    log.subscribe("checker", Start::Beginning).unwrap();
    let mut checker = log.reader("checker").unwrap();
    let rounds = variable("JLOG_KILL_ROUNDS").unwrap_or(200).div_ceil(TESTS);
    let mut dice = Dice::new(variable("JLOG_KILL_SEED").unwrap_or(0));
    let mut from = 0;
    for round in 0..rounds {
        let mut worker = Worker::start("append-durably-for-ever", &path, &from.to_string());
        let hear = if dice.roll(8) == 0 { 0 } else { 1 + dice.roll(400) };
        for _ in 0..hear {
            worker.hear();
        }
        let acknowledged: Vec<u32> = worker.kill().iter().map(|line| line.parse().unwrap()).collect();
        assert!(acknowledged.len() as u64 >= hear);
        log.writer().unwrap().close().unwrap();
        let mut there = Vec::new();
        let mut last = None;
        while let Some(batch) = checker.next_batch(Wait::No).unwrap() {
            there.extend(batch.iter().map(|message| parse(message.body()).expect("as it was written").1));
            last = Some(batch.last_id());
        }
        if let Some(last) = last {
            checker.commit(last).unwrap();
        }
        for task in 0..16 {
            let of =
                |all: &[u32]| all.iter().copied().filter(|seq| (seq - from) % 16 == task).collect::<Vec<_>>();
            let there = of(&there);
            let numbers = (0..).map(|n| from + task + 16 * n).take(there.len());
            assert!(numbers.eq(there.iter().copied()), "round {round}: each once and in order: {there:?}");
            let acknowledged = of(&acknowledged).len();
            let missing = "what was acknowledged is there, and at most the one under way beside it";
            assert!((acknowledged..=acknowledged + 1).contains(&there.len()), "round {round}: {missing}");
        }
        from += 16 * (1 + there.iter().max().map_or(0, |most| (most - from) / 16));
    }
    assert!(from > 16 * 100, "it did something");
    let verification = log.verify().unwrap();
    assert!(!verification.is_damaged(), "{verification:?}");
    Conforming::start().check(&path);
}
