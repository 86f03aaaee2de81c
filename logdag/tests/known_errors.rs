//! Faults that logdag has had, each with the test that found it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use logdag::{Graph, Lines, Rotation, Sink, SinkSpec, Stream, StreamOptions, WriteError, log};

const LONG: Duration = Duration::from_secs(5);

/// Whether something ends within a time; it is left alone if it does not.
fn ends(limit: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    waiting.recv_timeout(limit).is_ok()
}

fn options(kind: &str, path: &Path, rotation: Rotation) -> StreamOptions {
    let path = path.to_str().unwrap().to_owned();
    let sink = SinkSpec { kind: kind.to_owned(), path, rotation, ..SinkSpec::default() };
    StreamOptions { sink: Some(sink), ..StreamOptions::default() }
}

/// Takes its time, and panics with the line `panic`.
#[derive(Debug, Default)]
struct Slow {
    delay_micros: AtomicU64,
    lines: Mutex<Vec<String>>,
}

impl Slow {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Slow {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        std::thread::sleep(Duration::from_micros(self.delay_micros.load(Ordering::Relaxed)));
        for (line, _) in lines.iter() {
            let line = String::from_utf8_lossy(line).trim_end().to_owned();
            assert_ne!(line, "panic", "the sink that panics in this test");
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        Ok(())
    }

    fn may_be_asynchronous(&self) -> bool {
        true
    }
}

fn slow(graph: &Graph, delay: Duration, dedup_seconds: u64) -> (Arc<Slow>, Stream) {
    let sink = Arc::new(Slow::default());
    sink.delay_micros.store(u64::try_from(delay.as_micros()).unwrap(), Ordering::Relaxed);
    let made = Arc::clone(&sink);
    graph.register("slow", move |_| Ok(Arc::<Slow>::clone(&made))).unwrap();
    let spec = SinkSpec { kind: "slow".to_owned(), ..SinkSpec::default() };
    let options = StreamOptions { sink: Some(spec), dedup_seconds, ..StreamOptions::default() };
    let stream = graph.configure("slow", options).unwrap();
    (sink, stream)
}

#[test]
fn retention_removes_the_oldest_when_a_second_has_many_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let rotation = Rotation { bytes: 1, retain_count: 3, ..Rotation::default() };
    let graph = Graph::new();
    let stream = graph.configure("app", options("file_synch", &path, rotation)).unwrap();
    for n in 0..10 {
        log!(stream, "{n}");
    }
    let mut kept: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| fs::read_to_string(e.unwrap().path()).unwrap()).collect();
    kept.sort();
    assert_eq!(
        kept,
        ["6\n", "7\n", "8\n", "9\n"],
        "the newest three that were put aside, and the current one"
    );
}

#[test]
fn a_file_that_cannot_be_put_aside_is_written_to_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // With the suffix the name is too long.
    let path = dir.path().join("n".repeat(250));
    let rotation = Rotation { bytes: 10, ..Rotation::default() };
    let graph = Graph::new();
    let stream = graph.configure("app", options("file_synch", &path, rotation)).unwrap();
    for n in 0..20 {
        log!(stream, "{n}");
    }
    assert_eq!(graph.describe("app").unwrap().counters.failed, 0);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 20);
}

#[test]
fn only_regular_files_are_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let rotation = Rotation { bytes: 10, ..Rotation::default() };
    let graph = Graph::new();
    let stream = graph.configure("app", options("file_synch", &path, rotation)).unwrap();
    for n in 0..20 {
        log!(stream, "{n}");
    }
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo(), "as /dev/null would be removed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_made_durable_can_be_flushed() {
    let graph = Graph::new();
    let stream =
        graph.configure("null", options("file_synch", Path::new("/dev/null"), Rotation::default())).unwrap();
    log!(stream, "x");
    graph.flush().unwrap();
}

#[test]
fn flush_ends_while_others_go_on_logging() {
    let graph = Graph::new();
    let (_, stream) = slow(&graph, Duration::from_millis(2), 0);
    graph.go_async();
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                log!(stream, "x");
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
    std::thread::sleep(Duration::from_millis(20));
    let flushed = ends(LONG, {
        let graph = graph.clone();
        move || graph.flush().unwrap()
    });
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    assert!(flushed, "what was logged before was written long ago");
}

#[test]
fn a_threads_lines_keep_their_order_when_it_goes_synchronous() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::from_millis(20), 0);
    graph.go_async();
    log!(stream, "0");
    std::thread::sleep(Duration::from_millis(5));
    for n in 1..50 {
        log!(stream, "{n}");
    }
    let going = std::thread::spawn({
        let graph = graph.clone();
        move || graph.go_sync()
    });
    std::thread::sleep(Duration::from_millis(2));
    for n in 50..60 {
        log!(stream, "{n}");
    }
    going.join().unwrap();
    let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    assert_eq!(sink.lines(), expected);
}

#[test]
fn flush_waits_for_the_queue_while_it_goes_synchronous() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::from_millis(200), 0);
    graph.go_async();
    log!(stream, "0");
    std::thread::sleep(Duration::from_millis(20));
    log!(stream, "1");
    let going = std::thread::spawn({
        let graph = graph.clone();
        move || graph.go_sync()
    });
    std::thread::sleep(Duration::from_millis(20));
    graph.flush().unwrap();
    let written = sink.lines().len();
    going.join().unwrap();
    assert_eq!(written, 2);
}

#[test]
fn going_back_and_forth_from_several_threads_hangs_nobody_and_loses_nothing() {
    const ROUNDS: usize = 4000;
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::ZERO, 0);
    let ended = ends(LONG, move || {
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (graph, stream, start) = (&graph, &stream, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..ROUNDS {
                        if thread % 2 == 0 {
                            graph.go_async()
                        } else {
                            graph.go_sync()
                        }
                        log!(stream, "x");
                    }
                });
            }
        });
        graph.flush().unwrap();
    });
    assert!(ended);
    assert_eq!(sink.lines().len(), 4 * ROUNDS);
}

#[test]
fn a_panic_of_a_sink_loses_no_line_that_waits_behind_it() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::from_millis(50), 0);
    graph.go_async();
    log!(stream, "panic");
    std::thread::sleep(Duration::from_millis(10));
    for n in 0..10 {
        log!(stream, "{n}");
    }
    assert!(ends(LONG, {
        let graph = graph.clone();
        move || graph.go_sync()
    }));
    let counters = graph.describe("slow").unwrap().counters;
    assert_eq!((counters.failed, counters.dropped), (1, 0), "it blocks: nothing is dropped");
    let lines = sink.lines();
    let (told, lines): (Vec<&str>, Vec<&str>) =
        lines.iter().map(|line| &**line).partition(|line| line.starts_with("log stream"));
    assert_eq!(lines, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(matches!(&told[..], [one] if one.contains("slow: 1 line lost since 2")), "{told:?}");
}

#[test]
fn after_a_panic_of_its_sink_a_stream_goes_asynchronous_again() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::ZERO, 0);
    graph.go_async();
    log!(stream, "panic");
    std::thread::sleep(Duration::from_millis(100));
    graph.go_async();
    sink.delay_micros.store(500_000, Ordering::Relaxed);
    let begun = Instant::now();
    log!(stream, "x");
    assert!(begun.elapsed() < Duration::from_millis(300), "the caller writes himself");
}

#[test]
fn lines_with_other_keys_are_no_repetitions() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::ZERO, 5);
    log!(stream, status = 200; "done");
    log!(stream, status = 500; "done");
    assert_eq!(sink.lines().len(), 2);
}

#[test]
fn looking_for_repetitions_does_not_wait_for_the_sink() {
    let graph = Graph::new();
    let (_, stream) = slow(&graph, Duration::from_millis(500), 5);
    graph.go_async();
    log!(stream, "a");
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    log!(stream, "b");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[test]
fn a_stream_whose_sink_cannot_be_opened_is_not_made() {
    let graph = Graph::new();
    let before = graph.names();
    let path = Path::new("/nowhere/app.log");
    assert!(graph.configure("a/b", options("file", path, Rotation::default())).is_err());
    assert_eq!(graph.names(), before, "nothing is changed then");
}

#[test]
fn a_sink_may_ask_the_graph_while_it_is_described() {
    #[derive(Debug)]
    struct Asks(Graph);
    impl Sink for Asks {
        fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
            std::thread::sleep(Duration::from_millis(100));
            self.0.names();
            Ok(())
        }
    }
    let graph = Graph::new();
    let inner = graph.clone();
    graph.register("asks", move |_| Ok(Arc::new(Asks(inner.clone())))).unwrap();
    let spec = SinkSpec { kind: "asks".to_owned(), ..SinkSpec::default() };
    let stream = graph.configure("a", StreamOptions { sink: Some(spec), ..Default::default() }).unwrap();
    assert!(ends(LONG, move || {
        let thread = std::thread::spawn(move || log!(stream, "x"));
        std::thread::sleep(Duration::from_millis(30));
        graph.describe("a").unwrap();
        thread.join().unwrap();
    }));
}
