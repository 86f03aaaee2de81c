//! Several processes that use one jlog: writers, subscribers, and some that are killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jlog_core::{
    AlterOptions, CleanOptions, Compression, Error, Event, Jlog, JlogOptions, Locking, LogId, Start,
    SyncPolicy, Wait, WriterOptions,
};

use testkit::checker::Conforming;
use testkit::feeds::{bodies, consume, new_path, read_all, read_on, unsynced};
use testkit::messages::{message, parse};

/// A process of ours. It is killed when the test ends before it does.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(task: &str, feed: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
            .arg(task)
            .arg(feed)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, lines }
    }

    /// The next line that it prints.
    pub(crate) fn hear(&mut self) -> String {
        self.lines.next().expect("the worker ended").unwrap()
    }

    /// Waits until it has finished its task.
    fn finish(&mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// Kills it (SIGKILL), and returns its output that was not read yet.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // This has no effect on a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four writers, 25,000 messages each, and three subscribers, all at once: every subscriber reads
/// every message once, in each writer's order, and all read the same.
fn four_writers_and_three_subscribers(options: JlogOptions, how: [&str; 4]) {
    const COUNT: u32 = 25_000;
    let (_dir, path) = new_path();
    let log = options.create(&path).unwrap();
    let names = ["one", "two", "three"];
    for name in names {
        log.subscribe(name, Start::Beginning).unwrap();
    }
    let total = (4 * COUNT).to_string();
    let readers = names.map(|name| {
        let mut worker = Worker::start("read", &path, &[name, &total]);
        std::thread::spawn(move || {
            let mut read = Vec::new();
            for _ in 0..4 * COUNT {
                let line = worker.hear();
                let words: Vec<&str> = line.split(' ').collect();
                let id: LogId = words[0].parse().unwrap();
                read.push((id, words[1].parse::<u32>().unwrap(), words[2].parse::<u32>().unwrap()));
            }
            worker.finish();
            read
        })
    });
    let count = COUNT.to_string();
    let mut writers: Vec<Worker> = how
        .iter()
        .zip(["0", "1", "2", "3"])
        .map(|(how, writer)| Worker::start("write", &path, &[writer, &count, how]))
        .collect();
    writers.iter_mut().for_each(Worker::finish);
    let [first, second, third] = readers.map(|reader| reader.join().unwrap());

    let mut next = [0; 4];
    for &(_, writer, seq) in &first {
        let next = &mut next[writer as usize];
        assert_eq!(seq, *next, "writer {writer}");
        *next += 1;
    }
    assert_eq!(next, [COUNT; 4]);
    for pair in first.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        let follows = after == LogId::new(before.segment, before.marker + 1)
            || after == LogId::new(before.segment + 1, 1);
        assert!(follows, "{after} after {before}");
    }
    assert!(first == second && second == third, "all subscribers read the same");
    let last = first.last().unwrap().0;
    assert!(last.segment > 20, "the segments were small enough for many rolls: {last}");
    for name in names {
        assert_eq!(log.lag(name).unwrap(), jlog_core::Lag::default());
    }
    // Everything is done: only the segment being written and perhaps the one before are left.
    log.clean(CleanOptions::default()).unwrap();
    assert!(log.segments().unwrap().iter().all(|&segment| segment >= last.segment));
    assert_eq!(log.verify().unwrap().findings, []);
    Conforming::start().check(&path);
}

#[test]
fn writers_and_subscribers_at_once() {
    let options = Jlog::options().segment_size(64 << 10);
    four_writers_and_three_subscribers(options, ["singly", "singly", "batches", "singly"]);
}

#[test]
fn writers_and_subscribers_at_once_one_with_a_buffer() {
    let options = Jlog::options().segment_size(40_000).pre_commit(4096).compression(Compression::Lz4);
    four_writers_and_three_subscribers(options, ["buffered", "singly", "batches", "singly"]);
}

/// Threads that share a writer, and another writer in the same process, also keep their order.
#[test]
fn threads_at_once() {
    const COUNT: u32 = 2000;
    for pre_commit in [0, 2000] {
        let (_dir, path) = new_path();
        let options = Jlog::options().storage(unsynced()).segment_size(10_000).pre_commit(pre_commit);
        let log = options.create(&path).unwrap();
        let shared = log.writer().unwrap();
        let other = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let writer = if n < 3 { &shared } else { &other };
                scope.spawn(move || {
                    for seq in (0..COUNT).step_by(2) {
                        writer.append(message(n, seq)).unwrap();
                        writer.append_batch(&[message(n, seq + 1)]).unwrap();
                        if seq % 200 == 0 {
                            writer.sync().unwrap();
                        }
                    }
                });
            }
        });
        shared.close().unwrap();
        other.close().unwrap();
        let mut next = [0; 4];
        for got in read_all(&log) {
            let (writer, seq) = parse(&got.body).unwrap();
            assert_eq!(seq, next[writer as usize], "thread {writer}, buffer {pre_commit}");
            next[writer as usize] += 1;
        }
        assert_eq!(next, [COUNT; 4]);
        assert_eq!(log.verify().unwrap().findings, []);
    }
}

/// The next writer takes over the buffer of a killed one; each of its messages arrives once.
#[test]
fn a_killed_writers_buffer_is_recovered_once() {
    for (count, pre_commit) in [(1, 4000), (20, 4000), (500, 4000)] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(pre_commit).segment_size(10_000).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let mut worker = Worker::start("hold", &path, &[&count.to_string()]);
        assert_eq!(worker.hear(), "ready");
        let (used, _) = log.status().unwrap().pre_commit.unwrap();
        assert!(used > 0);
        worker.kill();
        let before = read_on(&mut log.reader("one").unwrap()).len();
        let writer = log.writer().unwrap();
        let events = log.take_events();
        let [Event::BufferRecovered { records, bytes }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((before + *records as usize, *bytes), (count as usize, used));
        // All messages can be read before anything else is written.
        assert_eq!(read_on(&mut log.reader("one").unwrap()).len(), count as usize);
        writer.append("of the next writer").unwrap();
        writer.close().unwrap();
        drop(log.writer().unwrap());
        let mut expected: Vec<Vec<u8>> = (0..count).map(|seq| message(0, seq)).collect();
        expected.push(b"of the next writer".to_vec());
        assert_eq!(bodies(&consume(&log, "one")), expected);
        assert_eq!(log.take_events(), []);
        Conforming::start().check(&path);
    }
}

/// If a writer is killed at any point of a flush, the next one completes it. Nothing is lost or
/// duplicated, whether or not another process has written in between.
#[test]
fn a_flush_that_was_cut_short_is_completed_once() {
    const COUNT: u32 = 8;
    let all: Vec<Vec<u8>> = (0..COUNT).map(|seq| message(0, seq)).collect();
    let ends: Vec<usize> =
        all.iter().scan(0, |end, body| Some(std::mem::replace(end, *end + 16 + body.len()))).collect();
    let total: usize = all.iter().map(|body| 16 + body.len()).sum();
    let mut conforming = Conforming::start();
    for bytes in [0, 1, 15, 16, 17, ends[1], ends[3] + 5, ends[4] - 1, ends[4], total - 1, total] {
        for other_writes in [false, true] {
            let (_dir, path) = new_path();
            let log = Jlog::options().pre_commit(4000).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let mut worker = Worker::start("stop-in-flush", &path, &[&COUNT.to_string(), &bytes.to_string()]);
            assert_eq!(worker.hear(), "stopped");
            assert_eq!(std::fs::metadata(path.join("00000000")).unwrap().len(), bytes as u64);
            worker.kill();
            if other_writes {
                let other = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
                other.append("of another").unwrap();
                other.close().unwrap();
            }
            let writer = log.writer().unwrap();
            writer.append("next").unwrap();
            writer.close().unwrap();
            let got = consume(&log, "one");
            let mut got = bodies(&got);
            if other_writes {
                let at = got.iter().position(|body| *body == b"of another").unwrap();
                let whole = ends.iter().skip(1).chain([&total]).filter(|&&end| end <= bytes).count();
                assert_eq!(at, whole, "behind the records that were whole when {bytes} bytes were written");
                got.remove(at);
            }
            let mut expected = all.clone();
            expected.push(b"next".to_vec());
            assert_eq!(got, expected, "killed after {bytes} bytes; another wrote: {other_writes}");
            conforming.check(&path);
        }
    }
}

/// As before, but before the next writer opens the jlog, others have filled, read and removed the
/// segment of the flush. Messages that had not reached it must not be taken for written.
#[test]
fn a_flush_that_was_cut_short_is_not_lost_with_its_segment() {
    const COUNT: u32 = 8;
    for bytes in [0, 1, 40] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(4000).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let mut worker = Worker::start("stop-in-flush", &path, &[&COUNT.to_string(), &bytes.to_string()]);
        assert_eq!(worker.hear(), "stopped");
        worker.kill();
        let other = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
        other.append("of another").unwrap();
        other.roll().unwrap();
        other.append("of another").unwrap();
        other.close().unwrap();
        let mut got = consume(&log, "one");
        assert_eq!(log.segments().unwrap(), [1]);
        log.writer().unwrap().close().unwrap();
        got.extend(consume(&log, "one"));
        for seq in 0..COUNT {
            assert!(bodies(&got).contains(&&message(0, seq)[..]), "message {seq} is lost ({bytes} bytes)");
        }
    }
}

/// A writer that is killed at any moment loses nothing that it has acknowledged, and nothing
/// arrives twice.
#[test]
fn killed_at_any_moment() {
    for (compression, pre_commit) in
        [(Compression::None, 1500), (Compression::Lz4, 600), (Compression::None, 0)]
    {
        let (_dir, path) = new_path();
        let options = Jlog::options().segment_size(4000).pre_commit(pre_commit).compression(compression);
        let log = options.create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let mut next = 0;
        for round in 0..8 {
            let mut worker = Worker::start("acknowledge", &path, &[&next.to_string()]);
            let mut acknowledged = next;
            for _ in 0..1 + round * round * 13 {
                assert_eq!(worker.hear(), acknowledged.to_string());
                acknowledged += 1;
            }
            for line in worker.kill() {
                // The last line may be incomplete.
                if line == acknowledged.to_string() {
                    acknowledged += 1;
                }
            }
            log.writer().unwrap().close().unwrap();
            for got in consume(&log, "one") {
                assert_eq!(parse(&got.body), Some((0, next)), "round {round}, buffer {pre_commit}");
                next += 1;
            }
            // One more message may have been appended without its acknowledgement arriving.
            assert!(
                next == acknowledged || next == acknowledged + 1,
                "{next} of {acknowledged} acknowledged"
            );
        }
        assert_eq!(log.verify().unwrap().findings, []);
        Conforming::start().check(&path);
    }
}

#[test]
fn a_second_process_is_refused_the_buffer() {
    let (_dir, path) = new_path();
    let log = Jlog::options().pre_commit(4000).create(&path).unwrap();
    let mut worker = Worker::start("hold", &path, &["3"]);
    assert_eq!(worker.hear(), "ready");
    assert!(matches!(log.writer(), Err(Error::PreCommitBusy { .. })));
    assert!(matches!(log.alter(AlterOptions::default().pre_commit(0)), Err(Error::PreCommitBusy { .. })));
    // Until the writer ends, only it uses its buffer.
    let other = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
    other.append("past the buffer").unwrap();
    worker.finish();
    let ours = log.writer().unwrap();
    let mut worker = Worker::start("try", &path, &["buffered"]);
    assert!(worker.hear().starts_with("PreCommitBusy"));
    worker.finish();
    let mut worker = Worker::start("try", &path, &["past-the-buffer"]);
    assert_eq!(worker.hear(), "written");
    worker.finish();
    ours.append("last").unwrap();
    ours.close().unwrap();
    let mut expected = vec![b"past the buffer".to_vec()];
    expected.extend((0..3).map(|seq| message(0, seq)));
    expected.extend([message(9, 0), b"last".to_vec()]);
    assert_eq!(bodies(&read_all(&log)), expected);
}

#[test]
fn a_process_that_wants_to_be_alone_learns_of_others() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let writer = log.writer().unwrap();
    let answer = |how: &str| {
        let mut worker = Worker::start("try", &path, &[how]);
        let answer = worker.hear();
        worker.finish();
        answer.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(answer("alone"), "WriterBusy");
    assert_eq!(answer("past-the-buffer"), "written");
    drop(writer);
    assert_eq!(answer("alone"), "written");
    let alone = log.writer_with(WriterOptions::default().locking(Locking::SingleProcess)).unwrap();
    assert_eq!(answer("past-the-buffer"), "WriterBusy");
    assert_eq!(answer("alone"), "WriterBusy");
    assert!(matches!(Jlog::repair(&path), Err(Error::WriterBusy { .. })));
    drop(alone);
    assert_eq!(read_all(&log).len(), 2);
}

/// When a writer is killed while it starts a program, that process has its guard until the program
/// runs.
#[test]
fn a_writer_that_is_about_to_go_is_waited_for() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let alone = || log.writer_with(WriterOptions::default().locking(Locking::SingleProcess));
    let waits_for_it = |open: &dyn Fn() -> Result<(), Error>| {
        // On a busy machine, the process may be too late.
        (0..20).any(|_| {
            let leaving = alone().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    drop(leaving);
                });
                open().is_ok()
            })
        })
    };
    assert!(waits_for_it(&|| alone().map(drop)), "another that wants to be alone");
    assert!(waits_for_it(&|| log.writer().map(drop)), "one beside others");
    assert!(waits_for_it(&|| Jlog::repair(&path).map(drop)), "a repair");
}

/// An append wakes a subscriber in another process, even if it begins a new segment.
#[test]
fn a_subscriber_in_another_process_is_woken() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(150).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let mut worker = Worker::start("echo", &path, &["one"]);
    assert_eq!(worker.hear(), "ready");
    let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::Never)).unwrap();
    for n in 0..300 {
        let body = format!("message {n}");
        writer.append(&body).unwrap();
        // The worker is usually waiting when the next message is appended; if a wait times out, the
        // worker ends.
        assert_eq!(worker.hear(), body);
    }
    writer.append("end").unwrap();
    assert_eq!(worker.hear(), "end");
    worker.finish();
    // Another process wakes this one.
    log.subscribe("two", Start::End).unwrap();
    let mut reader = log.reader("two").unwrap();
    assert!(reader.next_batch(Wait::No).unwrap().is_none());
    let mut worker = Worker::start("try", &path, &["past-the-buffer"]);
    let batch = reader.next_batch(Wait::Timeout(std::time::Duration::from_secs(50))).unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().body(), message(9, 0));
    worker.finish();
}

/// A writer that was closed or dropped releases its locks at once, even while another thread of its
/// process starts other processes (which inherit its files, and with them its locks, for a moment).
#[test]
fn a_writer_lets_go_while_processes_are_started() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).pre_commit(100).create(&path).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        }
    });
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..400 {
        let locking = if n % 2 == 0 { Locking::SingleProcess } else { Locking::MultiProcess };
        let options = WriterOptions::default().locking(locking).sync(SyncPolicy::Never);
        match log.writer_with(options) {
            Ok(writer) if n % 4 < 2 => writer.close().unwrap(),
            Ok(writer) => drop(writer),
            Err(error) => *refused.entry(error.to_string()).or_default() += 1,
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(refused.is_empty(), "of 400 writers, one after the other, refused: {refused:?}");
}
