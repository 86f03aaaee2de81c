//! Panics of sinks and of arguments: no other line is lost.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use logdag::{Graph, Rotation, log};

use super::doubles::slow;
use super::{LONG, ends, typed};

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
    let stream = graph.configure("file", typed("file", &path, Rotation::default())).unwrap();
    graph.log_panics(&stream);
    graph.go_async();
    log!(stream, "before");
    let logging = stream.clone();
    let thread = std::thread::Builder::new().name("worker".to_owned());
    thread.spawn(move || log!(logging, "torn {Bad}")).unwrap().join().unwrap_err();
    // Only the panic hook has flushed.
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\nthread worker panicked: in an argument\n");
    log!(stream, "after");
    graph.flush().unwrap();
    assert!(fs::read_to_string(&path).unwrap().ends_with("argument\nafter\n"));
}

#[test]
fn a_panic_of_a_sink_loses_no_line_that_waits_behind_it() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::from_millis(50), None);
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
    let (reported, lines): (Vec<&str>, Vec<&str>) =
        lines.iter().map(|line| &**line).partition(|line| line.starts_with("log stream"));
    assert_eq!(lines, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(matches!(&reported[..], [one] if one.contains("slow: 1 line lost since 2")), "{reported:?}");
}

#[test]
fn after_a_panic_of_its_sink_a_stream_goes_asynchronous_again() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::ZERO, None);
    graph.go_async();
    log!(stream, "panic");
    std::thread::sleep(Duration::from_millis(100));
    graph.go_async();
    sink.delay_micros.store(500_000, Ordering::Relaxed);
    let begun = Instant::now();
    log!(stream, "x");
    assert!(begun.elapsed() < Duration::from_millis(300), "the caller writes himself");
}
