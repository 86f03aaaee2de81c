//! Rings, repetitions, and queues before sinks that are slow or fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use logdag::{
    Capabilities, Graph, Lines, Location, Rotation, Sink, SinkSpec, Stream, StreamOptions, WhenFull,
    WriteError, log,
};

use super::{assert_complete, log_from_threads, ring, typed, within};

const LONG: Duration = Duration::from_secs(20);

/// A sink that keeps its lines after it has waited at a gate, for a time, or forever.
#[derive(Debug, Default)]
struct Slow {
    closed: Mutex<bool>,
    opened: Condvar,
    delay: Duration,
    panics: AtomicBool,
    lines: Mutex<Vec<String>>,
}

impl Slow {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.trim_end().to_owned()).collect()
    }

    /// A stream with this sink.
    fn stream(self: &Arc<Self>, graph: &Graph, name: &str, when_full: Option<WhenFull>) -> Stream {
        let sink = Arc::clone(self);
        graph.register(name, move |_| Ok(Arc::<Slow>::clone(&sink))).unwrap();
        let sink = SinkSpec::new(name.to_owned(), "");
        graph.configure(name, StreamOptions::new().sink(sink).when_full(when_full)).unwrap()
    }
}

impl Sink for Slow {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
        drop(closed);
        std::thread::sleep(self.delay);
        assert!(!self.panics.load(Ordering::Relaxed), "the sink that panics in this test");
        let texts = lines.iter().map(|(line, _)| String::from_utf8(line.to_vec()).unwrap());
        self.lines.lock().unwrap().extend(texts);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().may_be_asynchronous(true)
    }
}

#[test]
fn rings_are_read_by_number_and_by_index() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 3, 10).unwrap();
    for n in 0..5 {
        log!(stream, "l{n}");
    }
    log!(stream, "eleven byte");
    assert_eq!(ring(&graph, "ring"), ["l2", "l3", "l4"]);
    let since = |index| {
        let lines = graph.memory_since("ring", index).unwrap();
        lines.iter().map(|line| line.index).collect::<Vec<_>>()
    };
    assert_eq!(since(4), [5]);
    assert_eq!(since(0), [3, 4, 5]);
    assert_eq!(since(5), Vec::<u64>::new());
    assert_eq!(graph.memory_last("ring", 2).unwrap().len(), 2);
    assert_eq!(graph.describe("ring").unwrap().size, Some(6));
    stream.log_at(42, logdag::Level::Info, &Location::UNKNOWN, &[], &format_args!("nine byte"));
    let last = graph.memory_last("ring", 9).unwrap();
    assert_eq!((last.len(), last[0].micros, &*last[0].bytes), (1, 42, &b"nine byte"[..]));
    assert!(graph.memory_last("stderr", 1).is_none());
}

fn repeating(graph: &Graph) -> Stream {
    let path = "100,10000".to_owned();
    let sink = SinkSpec::new("memory", path);
    let options = StreamOptions::new().sink(sink).dedup(Duration::from_secs(5));
    graph.configure("ring", options).unwrap()
}

#[test]
fn repetitions_are_counted_and_reported() {
    let graph = Graph::new();
    let stream = repeating(&graph);
    for line in ["a", "a", "a", "b", "b", "a"] {
        log!(stream, "{line}");
    }
    let reported = |times| format!("log stream ring: last line repeated {times}");
    assert_eq!(ring(&graph, "ring"), ["a", &reported("2 times"), "b", &reported("1 time"), "a"]);
    assert_eq!(graph.describe("ring").unwrap().counters.repeated, 3);
    log!(stream, "a");
    graph.flush().unwrap();
    assert_eq!(ring(&graph, "ring")[5..], [reported("1 time")]);
}

#[test]
fn only_what_comes_soon_enough_is_a_repetition() {
    let graph = Graph::new();
    let stream = repeating(&graph);
    for second in [100, 104, 106, 107] {
        stream.log_at(second * 1_000_000, logdag::Level::Info, &Location::UNKNOWN, &[], &format_args!("a"));
    }
    let lines = ring(&graph, "ring");
    assert_eq!((lines.len(), &*lines[0], &*lines[2]), (3, "a", "a"), "{lines:?}");
    // The same line from another stream is a different line.
    graph.connect("b", "ring", None).unwrap();
    log!(graph.stream("b").unwrap(), "x");
    log!(stream, "x");
    assert_eq!(ring(&graph, "ring").iter().filter(|line| *line == "x").count(), 2);
}

#[test]
fn dropped_lines_are_counted_and_reported_in_the_log() {
    let graph = Graph::new();
    let slow = Arc::new(Slow::default());
    slow.set(true);
    let stream = slow.stream(&graph, "slow", Some(WhenFull::Drop));
    graph.go_async();
    let padding = "x".repeat(1 << 20);
    within(LONG, {
        let stream = stream.clone();
        move || (0..40).for_each(|n| log!(stream, "{n} {padding}"))
    });
    slow.set(false);
    graph.flush().unwrap();
    let counters = graph.describe("slow").unwrap().counters;
    assert!((20..=33).contains(&counters.dropped), "{counters:?}");
    log!(stream, "goes on");
    graph.go_sync();
    let lines = slow.lines();
    let (reported, others): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("dropped"));
    let reported: u64 = reported
        .iter()
        .map(|line| {
            let rest = line.strip_prefix("log stream slow: ").unwrap();
            let (number, rest) = rest.split_once(' ').unwrap();
            assert!(rest.starts_with("lines dropped since 20"), "{line}");
            number.parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(reported, counters.dropped);
    assert_eq!(others.len() as u64, 40 - counters.dropped + 1);
    assert_eq!(others.last().unwrap().as_str(), "goes on");
}

#[test]
fn a_full_queue_that_blocks_loses_nothing() {
    let graph = Graph::new();
    let slow = Arc::new(Slow { delay: Duration::from_millis(2), ..Slow::default() });
    let stream = slow.stream(&graph, "slow", None);
    graph.go_async();
    let padding = "x".repeat(1 << 20);
    within(LONG, move || {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (stream, padding) = (&stream, &padding);
                scope.spawn(move || (0..12).for_each(|n| log!(stream, "{thread} {n} {padding}")));
            }
        });
        graph.flush().unwrap();
        assert_eq!(graph.describe("slow").unwrap().counters.dropped, 0);
    });
    let mut next = [0; 3];
    for line in slow.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let thread: usize = fields[0].parse().unwrap();
        assert_eq!((fields[1].parse(), fields[2].len()), (Ok(next[thread]), 1 << 20));
        next[thread] += 1;
    }
    assert_eq!(next, [12; 3]);
}

#[test]
fn everything_is_written_after_flush_after_going_synchronous_and_at_the_end() {
    let slow = Arc::new(Slow { delay: Duration::from_millis(20), ..Slow::default() });
    let graph = Graph::new();
    let stream = slow.stream(&graph, "slow", None);
    graph.go_async();
    let say = |from: usize| (from..from + 100).for_each(|n| log!(stream, "{n}"));
    say(0);
    graph.flush().unwrap();
    assert_eq!(slow.lines().len(), 100);
    say(100);
    graph.go_sync();
    assert_eq!(slow.lines().len(), 200);
    log!(stream, "200");
    assert_eq!(slow.lines().len(), 201);
    graph.go_async();
    (201..300).for_each(|n| log!(stream, "{n}"));
    drop(graph);
    assert_eq!(slow.lines(), (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    log!(stream, "after the graph");
    assert_eq!(slow.lines().len(), 301);
}

#[test]
fn a_removed_or_replaced_sink_gets_what_waits_for_it() {
    let slow = Arc::new(Slow { delay: Duration::from_millis(20), ..Slow::default() });
    let graph = Graph::new();
    let stream = slow.stream(&graph, "slow", None);
    graph.go_async();
    (0..50).for_each(|n| log!(stream, "{n}"));
    graph.add_memory("slow", 1000, 100_000).unwrap();
    assert_eq!(slow.lines().len(), 50);
    (50..60).for_each(|n| log!(stream, "{n}"));
    assert_eq!(ring(&graph, "slow").len(), 10);
    slow.stream(&graph, "slow", None);
    (60..90).for_each(|n| log!(stream, "{n}"));
    assert!(graph.remove("slow"));
    assert_eq!(slow.lines().len(), 80);
}

#[test]
fn lines_arrive_while_it_goes_back_and_forth_between_modes() {
    const LINES: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let graph = Graph::new();
    let stream = graph.configure("app", typed("file", &path, Rotation::default())).unwrap();
    within(LONG, move || {
        let (ended, changing) = (Arc::new(AtomicBool::new(false)), graph.clone());
        let flag = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                changing.go_async();
                std::thread::sleep(Duration::from_micros(200));
                changing.go_sync();
            }
        });
        log_from_threads(&stream, 4, LINES);
        ended.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        graph.flush().unwrap();
    });
    // Another test checks the order of a thread's lines across a change of mode.
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| {
        let mut fields = line.split(' ').map(|field| field.parse::<u64>().unwrap_or(0));
        (fields.next(), fields.next())
    });
    assert_complete(lines, 4, LINES);
}

#[test]
fn a_sink_that_panics_hangs_nobody_and_stops_no_other() {
    let graph = Graph::new();
    let (bad, good) = (Arc::new(Slow::default()), Arc::new(Slow::default()));
    bad.panics.store(true, Ordering::Relaxed);
    let bad_stream = bad.stream(&graph, "bad", None);
    good.stream(&graph, "good", None);
    graph.connect("bad", "good", None).unwrap();
    graph.go_async();
    within(LONG, move || {
        log!(bad_stream, "one");
        let error = graph.flush().unwrap_err().to_string();
        assert!(error.contains("1 line lost: the sink panicked"), "{error}");
        bad.panics.store(false, Ordering::Relaxed);
        log!(bad_stream, "two");
        graph.flush().unwrap();
        graph.go_sync();
        assert_eq!(good.lines(), ["one", "two"]);
        let lines = bad.lines();
        assert_eq!((lines.len(), &*lines[0]), (2, "two"));
        let (lost, why) = ("log stream bad: 1 line lost since 2", ": the sink panicked");
        assert!(lines[1].starts_with(lost) && lines[1].ends_with(why), "{lines:?}");
    });
}

#[test]
fn a_sink_that_fails_is_counted_and_stops_no_other() {
    #[derive(Debug)]
    struct Fails;
    impl Sink for Fails {
        fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
            Err(WriteError { written: lines.len() / 2, error: std::io::ErrorKind::StorageFull.into() })
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::default().may_be_asynchronous(true)
        }
    }
    let graph = Graph::new();
    graph.register("fails", |_| Ok(Arc::new(Fails))).unwrap();
    let sink = SinkSpec::new("fails", "");
    let stream = graph.configure("a", StreamOptions::new().sink(sink)).unwrap();
    graph.add_memory("ring", 100, 1000).unwrap();
    graph.connect("a", "ring", None).unwrap();
    graph.go_async();
    (0..50).for_each(|n| log!(stream, "{n}"));
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains("lines lost: no storage space"), "{error}");
    // The loss was reported once.
    graph.flush().unwrap();
    let counters = graph.describe("a").unwrap().counters;
    assert_eq!(counters.lines + counters.failed, 50);
    assert!(counters.failed >= 25);
    assert_eq!(ring(&graph, "ring").len(), 50);
}

#[test]
fn what_is_logged_in_the_middle_of_a_line_is_counted() {
    /// An argument that logs, like a signal handler that interrupts a line.
    struct Logs(Stream);
    impl std::fmt::Display for Logs {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            log!(self.0, "within");
            f.write_str("argument")
        }
    }
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 1000).unwrap();
    let other = graph.add_memory("other", 10, 1000).unwrap();
    for _ in 0..3 {
        log!(stream, "with an {}", Logs(other.clone()));
    }
    assert_eq!(ring(&graph, "ring"), ["with an argument"; 3]);
    assert!(ring(&graph, "other").is_empty());
    let reported = graph.describe("other").unwrap();
    assert_eq!((reported.reentrant, graph.describe("ring").unwrap().reentrant), (3, 0));
    assert!(reported.to_json().contains("\"reentrant\":3"), "{}", reported.to_json());
}

/// Simulates a signal handler that interrupts a thread while it describes a graph: that thread
/// holds the locks itself.
#[test]
fn what_is_logged_while_a_sink_is_asked_is_left_out_and_counted() {
    /// A sink that logs to its own stream when asked for its size.
    #[derive(Debug, Default)]
    struct Asked(OnceLock<Stream>);
    impl Sink for Asked {
        fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
            Ok(())
        }

        fn size(&self) -> Option<u64> {
            self.0.get().map(|stream| log!(stream, "within"))?;
            Some(7)
        }
    }
    let (graph, sink) = (Graph::new(), Arc::new(Asked::default()));
    let made = Arc::clone(&sink);
    graph.register("asked", move |_| Ok(Arc::<Asked>::clone(&made))).unwrap();
    let stream = graph.configure("asked", StreamOptions::new().sink(SinkSpec::new("asked", ""))).unwrap();
    sink.0.set(stream.clone()).unwrap();
    let described = std::thread::spawn({
        let graph = graph.clone();
        move || [graph.describe("asked").unwrap().size, graph.describe("asked").unwrap().size]
    });
    let begun = Instant::now();
    while !described.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it waits for itself");
        std::thread::yield_now();
    }
    assert_eq!(described.join().unwrap(), [Some(7); 2]);
    log!(stream, "outside");
    // Lines are counted before the sink is asked.
    let described = graph.describe("asked").unwrap();
    assert_eq!((described.reentrant, described.counters.lines), (2, 1));
}
