//! Going asynchronous and back, and flushing meanwhile: nothing hangs, is lost or changes order.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logdag::{Capabilities, Graph, Lines, Rotation, Sink, SinkSpec, StreamOptions, WriteError, log};

use super::doubles::slow;
use super::{LONG, ends, typed};

#[test]
fn flush_ends_while_others_go_on_logging() {
    let graph = Graph::new();
    let (_, stream) = slow(&graph, Duration::from_millis(2), None);
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
    let (sink, stream) = slow(&graph, Duration::from_millis(20), None);
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
    let (sink, stream) = slow(&graph, Duration::from_millis(200), None);
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
    let (sink, stream) = slow(&graph, Duration::ZERO, None);
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

/// A sink that queries the graph while it writes: about all streams, or about its own.
#[derive(Debug)]
struct Asks(Graph, bool);

impl Sink for Asks {
    fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
        std::thread::sleep(Duration::from_millis(2));
        if self.1 {
            self.0.describe("asks").unwrap();
            // A sink cannot wait for itself.
            self.0.flush().unwrap();
            self.0.go_sync();
        } else {
            self.0.names();
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().may_be_asynchronous(true)
    }
}

#[test]
fn sinks_may_ask_the_graph_while_modes_change() {
    for own in [false, true] {
        assert!(
            ends(LONG, move || {
                let graph = Graph::new();
                let asked = graph.clone();
                graph.register("asks", move |_| Ok(Arc::new(Asks(asked.clone(), own)))).unwrap();
                let stream =
                    graph.configure("asks", typed("asks", Path::new(""), Rotation::default())).unwrap();
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
    let spec = SinkSpec::new("asks", "");
    let stream = graph.configure("a", StreamOptions::new().sink(spec)).unwrap();
    assert!(ends(LONG, move || {
        let thread = std::thread::spawn(move || log!(stream, "x"));
        std::thread::sleep(Duration::from_millis(30));
        graph.describe("a").unwrap();
        thread.join().unwrap();
    }));
}

#[test]
fn a_threads_lines_keep_their_order_when_its_sink_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let stream = graph.configure("file", typed("file", &path, Rotation::default())).unwrap();
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
            // A different limit makes it a different sink.
            let max_line = 1000 + n;
            let options = typed("file", &path, Rotation::default()).max_line(max_line);
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
fn what_waits_is_written_when_the_guard_of_a_graph_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let stream = graph.configure("file", typed("file", &path, Rotation::default())).unwrap();
    let drain = graph.drain_at_end();
    graph.go_async();
    (0..1000).for_each(|n| log!(stream, "{n}"));
    drop(drain);
    // The graph still exists.
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1000);
    assert!(stream.is_enabled());
}
