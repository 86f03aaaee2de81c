//! Faults that a review has found, each with a test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use logdag::config::Config;
use logdag::{
    Format, Graph, Lines, Rotation, Sink, SinkSpec, StreamOptions, WhenFull, WriteError, for_each_line, log,
};

const LONG: Duration = Duration::from_secs(10);

/// Whether something ends within a time; it is left alone if it does not.
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    waiting.recv_timeout(LONG).is_ok()
}

fn options(kind: &str, path: &Path, rotation: Rotation) -> StreamOptions {
    let path = path.to_str().unwrap().to_owned();
    let sink = SinkSpec { kind: kind.to_owned(), path, rotation, ..SinkSpec::default() };
    StreamOptions { sink: Some(sink), ..StreamOptions::default() }
}

fn xml(logs: &str) -> Config {
    Config::from_text("app.xml", &format!("<app><logs>{logs}</logs></app>")).unwrap()
}

/// The queue's thread tells of repetitions when their time is over, though nothing follows them.
#[test]
fn a_repetition_that_nothing_follows_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let told = StreamOptions { dedup_seconds: 1, ..options("file", &path, Rotation::default()) };
    let stream = graph.configure("app", told).unwrap();
    graph.go_async();
    for _ in 0..5 {
        log!(stream, "the same");
    }
    let begun = Instant::now();
    let mut text = String::new();
    while begun.elapsed() < LONG && text.lines().count() < 2 {
        std::thread::sleep(Duration::from_millis(20));
        text = std::fs::read_to_string(&path).unwrap();
    }
    assert_eq!(text, "the same\nlog stream app: last line repeated 4 times\n");
    // It has been told: neither the next line nor the end tells of it again.
    log!(stream, "another");
    graph.go_sync();
    drop((stream, graph));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "the same\nlog stream app: last line repeated 4 times\nanother\n");
}

/// A configuration that no longer declares a stream gives it back the outlets that it had before.
#[test]
fn outlets_that_a_configuration_takes_away_are_gone() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.add_memory("app", 10, 1000).unwrap();
    let texts = |name: &str| -> Vec<Vec<u8>> {
        graph.memory_last(name, 10).unwrap().into_iter().map(|line| line.bytes).collect()
    };
    let stream = graph.stream("app/http").unwrap();
    log!(stream, "a");
    xml("<log name='app/http'><outlet name='ring'/></log>").apply(&graph).unwrap();
    log!(stream, "b");
    xml("<log name='app/http'><outlet name='ring'/><outlet name='app'/></log>").apply(&graph).unwrap();
    log!(stream, "c");
    xml("").replace(&graph).unwrap();
    log!(stream, "d");
    // What a program has connected is not a configuration's to take away, whenever that was.
    graph.add_outlet("app/http", "ring", None).unwrap();
    xml("").replace(&graph).unwrap();
    log!(stream, "e");
    assert_eq!(texts("app"), [b"a", b"c", b"d", b"e"]);
    assert_eq!(texts("ring"), [b"b", b"c", b"e"]);
    graph.add_memory("third", 10, 1000).unwrap();
    xml("<log name='app/http'><outlet name='ring'/></log>").apply(&graph).unwrap();
    graph.add_outlet("app/http", "third", None).unwrap();
    log!(stream, "f");
    // And what it has taken away does not come back.
    assert_eq!(graph.remove_outlet("app/http", "app"), 0);
    xml("").replace(&graph).unwrap();
    log!(stream, "g");
    assert_eq!(texts("app"), [b"a", b"c", b"d", b"e"]);
    assert_eq!(texts("ring"), [b"b", b"c", b"e", b"f", b"g"]);
    assert_eq!(texts("third"), [b"f", b"g"]);
}

/// Nothing is logged: a file that was moved away or removed is not made again, and nobody hears of a directory that is gone.
#[test]
fn a_sink_with_nothing_to_write_makes_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let rotation = Rotation { seconds: 600, retain_seconds: 600, ..Rotation::default() };
    let stream = graph.configure("app", options("file", &path, rotation)).unwrap();
    graph.go_async();
    log!(stream, "a");
    graph.flush().unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!path.exists());
    log!(stream, "b");
    graph.flush().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
    graph.go_sync();
}

/// Lines that keep coming do not keep old files from being removed.
#[test]
fn old_files_go_while_lines_trickle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let old = dir.path().join("log.1000000000");
    fs::write(&old, "old\n").unwrap();
    let graph = Graph::new();
    let rotation = Rotation { bytes: 1 << 30, retain_seconds: 1, ..Rotation::default() };
    let stream = graph.configure("app", options("file", &path, rotation)).unwrap();
    graph.go_async();
    let begun = Instant::now();
    while old.exists() {
        assert!(begun.elapsed() < LONG, "it is still there");
        log!(stream, "a");
        std::thread::sleep(Duration::from_millis(50));
    }
    graph.go_sync();
}

fn messages(dir: &Path, subscriber: &str) -> Vec<String> {
    let mut reader = jlog_core::Jlog::open(dir).unwrap().reader(subscriber).unwrap();
    let mut out = Vec::new();
    while let Some(batch) = reader.next_batch(jlog_core::Wait::No).unwrap() {
        out.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    out
}

/// Writes when it is opened, and keeps the lines; the first write fails where that is wanted.
#[derive(Clone, Debug, Default)]
struct Gate {
    open: Arc<AtomicBool>,
    fails_once: Arc<AtomicBool>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn add(&self, graph: &Graph, options: StreamOptions) -> logdag::Stream {
        let gate = self.clone();
        graph.register("gate", move |_| Ok(Arc::new(gate.clone()))).unwrap();
        let sink = SinkSpec { kind: "gate".to_owned(), ..SinkSpec::default() };
        graph.configure("gate", StreamOptions { sink: Some(sink), ..options }).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Sink for Gate {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        while !self.open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.fails_once.swap(false, Ordering::AcqRel) {
            return Err(std::io::Error::other("once").into());
        }
        let lines = lines.iter().map(|(line, _)| String::from_utf8(line.to_vec()).unwrap());
        self.lines.lock().unwrap().extend(lines);
        Ok(())
    }

    fn splits_lines(&self) -> bool {
        false
    }

    fn may_be_asynchronous(&self) -> bool {
        true
    }
}

#[test]
fn empty_lines_fill_a_queue() {
    let (graph, gate) = (Graph::new(), Gate::default());
    let when_full = Some(WhenFull::Drop);
    let stream = gate.add(&graph, StreamOptions { queue_bytes: 1000, when_full, ..StreamOptions::default() });
    graph.go_async();
    (0..10_000).for_each(|_| log!(stream, ""));
    let dropped = graph.describe("gate").unwrap().counters.dropped;
    assert!(dropped > 9_800, "{dropped}");
    gate.open.store(true, Ordering::Release);
    graph.flush().unwrap();
}

/// Asks the graph while it writes: about all streams, or about its own.
#[derive(Debug)]
struct Asks(Graph, bool);

impl Sink for Asks {
    fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
        std::thread::sleep(Duration::from_millis(2));
        if self.1 {
            self.0.describe("asks").unwrap();
            // It cannot wait for itself.
            self.0.flush().unwrap();
            self.0.go_sync();
        } else {
            self.0.names();
        }
        Ok(())
    }

    fn may_be_asynchronous(&self) -> bool {
        true
    }
}

#[test]
fn sinks_may_ask_the_graph_while_modes_change() {
    for own in [false, true] {
        assert!(
            ends(move || {
                let graph = Graph::new();
                let asked = graph.clone();
                graph.register("asks", move |_| Ok(Arc::new(Asks(asked.clone(), own)))).unwrap();
                let stream =
                    graph.configure("asks", options("asks", Path::new(""), Rotation::default())).unwrap();
                log!(stream, "synchronous");
                for _ in 0..20 {
                    graph.go_async();
                    (0..5).for_each(|_| log!(stream, "x"));
                    std::thread::scope(|scope| {
                        scope.spawn(|| graph.go_sync());
                        scope.spawn(|| graph.go_async());
                    });
                }
                graph.go_sync();
                assert_eq!(graph.describe("asks").unwrap().counters.lines, 101);
            }),
            "its own: {own}"
        );
    }
}

#[test]
fn a_panic_of_an_argument_is_logged_and_loses_nothing() {
    struct Bad;
    impl std::fmt::Display for Bad {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("in an argument")
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let stream = graph.configure("file", options("file", &path, Rotation::default())).unwrap();
    graph.log_panics(&stream);
    graph.go_async();
    log!(stream, "before");
    let logging = stream.clone();
    let thread = std::thread::Builder::new().name("worker".to_owned());
    thread.spawn(move || log!(logging, "torn {Bad}")).unwrap().join().unwrap_err();
    // Nobody has flushed but the panic hook.
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nthread worker panicked: in an argument\n");
    log!(stream, "after");
    graph.flush().unwrap();
    assert!(fs::read_to_string(&path).unwrap().ends_with("argument\nafter\n"));
}

#[test]
fn what_is_larger_than_a_ring_is_counted_as_lost() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 10).unwrap();
    log!(stream, "more than ten bytes");
    let counters = graph.describe("ring").unwrap().counters;
    assert_eq!((counters.lines, counters.bytes, counters.failed), (0, 0, 1));
}

#[test]
fn a_threads_lines_keep_their_order_when_its_sink_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let stream = graph.configure("file", options("file", &path, Rotation::default())).unwrap();
    graph.go_async();
    let stop = AtomicBool::new(false);
    let logged = std::thread::scope(|scope| {
        let logging = scope.spawn(|| {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                log!(stream, "{n} {:100}", "");
                n += 1;
            }
            n
        });
        for n in 0..100 {
            // Another limit, so that it is another sink.
            let max_line = 1000 + n;
            let options = StreamOptions { max_line, ..options("file", &path, Rotation::default()) };
            graph.configure("file", options).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        logging.join().unwrap()
    });
    graph.go_sync();
    let text = fs::read_to_string(&path).unwrap();
    let numbers: Vec<u64> =
        text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..logged), "lost or out of order");
}

#[test]
fn a_configuration_that_is_applied_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let config = xml(&format!(
        "<log name='ring' type='memory'/><log name='feed' type='jlog' path='{}(s)'><outlet name='ring'/></log>",
        feed.display()
    ));
    let graph = Graph::new();
    config.apply(&graph).unwrap();
    graph.go_async();
    let stream = graph.find("feed").unwrap();
    for n in 0..300 {
        log!(stream, "{n}");
        if n % 10 == 0 {
            config.apply(&graph).unwrap();
        }
    }
    graph.flush().unwrap();
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(messages(&feed, "s"), expected);
    assert_eq!(graph.memory_last("ring", 1000).unwrap().len(), 300);
}

#[test]
fn an_apply_that_fails_takes_no_subscriber_away() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let log = jlog_core::Jlog::options().create_or_open(&feed).unwrap();
    log.subscribe("precious", jlog_core::Start::Beginning).unwrap();
    let feed = feed.display();
    let failing =
        format!("<log name='f' type='jlog' path='{feed}(s)'/><log name='g' type='file' path='/nowhere/x'/>");
    let graph = Graph::new();
    xml(&failing).apply(&graph).unwrap_err();
    let names = |log: &jlog_core::Jlog| -> Vec<String> {
        log.subscribers().unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&log), ["precious"]);
    assert!(graph.find("f").is_none());
    xml(&format!("<log name='f' type='jlog' path='{feed}(s)'/>")).apply(&graph).unwrap();
    assert_eq!(names(&log), ["s"]);
}

#[test]
fn attributes_of_the_built_in_stream_count() {
    let graph = Graph::new();
    xml("<log name='stderr' format='json' dedup_seconds='5' disabled='true'/>").apply(&graph).unwrap();
    let told = graph.describe("stderr").unwrap();
    assert_eq!((told.format, told.flags.timestamps, &*told.kind), (Format::Json, true, "stderr"));
    assert_eq!(graph.options("stderr").unwrap().dedup_seconds, 5);
    xml("<log name='stderr' timestamps='off'/>").apply(&graph).unwrap();
    assert!(!graph.describe("stderr").unwrap().flags.timestamps);
}

#[test]
fn numbers_of_other_files_are_no_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(dir.path().join(format!("log.{}", u64::MAX)), "").unwrap();
    fs::write(dir.path().join("log.202611211200"), "").unwrap();
    let graph = Graph::new();
    let rotation = Rotation { bytes: 10, ..Rotation::default() };
    let stream = graph.configure("file", options("file_synch", &path, rotation)).unwrap();
    (0..10).for_each(|n| log!(stream, "line {n} is long"));
    assert_eq!(graph.describe("file").unwrap().counters.failed, 0);
    let now = logdag::now_micros() / 1_000_000;
    let ours = fs::read_dir(dir.path()).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("log.")?.parse::<u64>().ok().filter(|second| second.abs_diff(now) < 1000)
    });
    assert_eq!(ours.count(), 9);
}

#[test]
fn what_a_link_leads_to_is_put_aside_not_the_link() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, real) = (dir.path().join("log"), elsewhere.path().join("real"));
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let graph = Graph::new();
    let rotation = Rotation { bytes: 10, retain_count: 2, ..Rotation::default() };
    let stream = graph.configure("file", options("file_synch", &path, rotation)).unwrap();
    (0..10).for_each(|n| log!(stream, "line {n} is long"));
    assert_eq!(fs::read_link(&path).unwrap(), real);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 3);
}

#[test]
fn a_pipe_whose_reader_is_slow_gets_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // Opened for both, so that nobody waits for anybody.
    let mut reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let graph = Graph::new();
    let stream = graph.configure("fifo", options("file", &path, Rotation::default())).unwrap();
    graph.go_async();
    let line = |n: usize| format!("{n} {}\n", "y".repeat(100));
    let expected: String = (0..5000).map(line).collect();
    let length = expected.len();
    let reading = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        let mut bytes = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    });
    (0..5000).for_each(|n| log!(stream, "{n} {}", "y".repeat(100)));
    assert_eq!(reading.join().unwrap(), expected);
    graph.flush().unwrap();
    assert_eq!(graph.describe("fifo").unwrap().counters.failed, 0);
}

#[test]
fn what_was_never_written_is_not_repeated() {
    let (graph, gate) = (Graph::new(), Gate::default());
    gate.open.store(true, Ordering::Release);
    gate.fails_once.store(true, Ordering::Release);
    let stream = gate.add(&graph, StreamOptions { dedup_seconds: 60, ..StreamOptions::default() });
    (0..5).for_each(|_| log!(stream, "disk is full"));
    graph.flush().unwrap_err();
    let mut lines = gate.lines();
    let lost = lines.remove(1);
    assert!(lost.starts_with("log stream gate: 1 line lost since 2"), "{lost}");
    assert_eq!(lines, ["disk is full", "log stream gate: last line repeated 3 times"]);
}

#[test]
fn a_synchronous_feed_keeps_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let graph = Graph::new();
    let config = format!(
        "<log name='f' type='jlog' path='{}(s)'><config><precommit>100000</precommit></config></log>",
        feed.display()
    );
    xml(&config).apply(&graph).unwrap();
    let stream = graph.find("f").unwrap();
    graph.go_async();
    log!(stream, "queued");
    graph.go_sync();
    log!(stream, "written");
    assert_eq!(messages(&feed, "s"), ["queued", "written"]);
}

#[test]
fn a_flush_tells_of_lines_that_were_lost() {
    let graph = Graph::new();
    let stream =
        graph.configure("full", options("file", Path::new("/dev/full"), Rotation::default())).unwrap();
    graph.go_async();
    log!(stream, "precious");
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("1 line lost"), "{error}");
    // It was told, and nothing is lost since.
    graph.flush().unwrap();
}

#[test]
fn what_waits_is_written_when_the_guard_of_a_graph_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let stream = graph.configure("file", options("file", &path, Rotation::default())).unwrap();
    let drain = graph.drain_at_end();
    graph.go_async();
    (0..1000).for_each(|n| log!(stream, "{n}"));
    drop(drain);
    // The graph is still there.
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1000);
    assert!(stream.is_material());
}

#[test]
fn a_message_as_long_as_allowed_is_written_with_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let flags = logdag::Flags { facility: true, timestamps: true, debug: true, ..Default::default() };
    let allowed = StreamOptions { max_line: 100, flags, ..options("file_synch", &path, Rotation::default()) };
    let stream = graph.configure("file", allowed).unwrap();
    log!(stream, "{}", "x".repeat(101));
    log!(stream, "{}", "y".repeat(100));
    let text = fs::read_to_string(&path).unwrap();
    let (line, told) = text.split_once('\n').unwrap();
    assert!(line.ends_with(&format!("] {}", "y".repeat(100))) && !text.contains("xxx"), "{text}");
    assert!(told.contains("log stream file: 1 line lost since 2"), "{told}");
    assert_eq!(graph.describe("file").unwrap().counters.failed, 1);
}

#[test]
fn lines_are_cut_between_characters_and_line_ends_are_no_part_of_them() {
    let lines = |text: &[u8], max: usize| {
        let mut lines = Vec::new();
        for_each_line(text, max, |line| lines.push(line.to_vec())).unwrap();
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines(b"1234\r\nab\r\n", 4), ["1234", "ab"]);
    assert_eq!(lines(b"12345\r\n\n123456789", 4), ["1234", "5", "", "1234", "5678", "9"]);
    assert_eq!(lines("xéééé\né".as_bytes(), 4), ["xé", "éé", "é", "é"]);
    assert_eq!(lines(b"1234\n", 4), ["1234"]);
    assert_eq!(lines(b"12\r34\r", 4), ["12\r3", "4\r"]);
    assert_eq!(lines(b"", 4), Vec::<String>::new());
}
