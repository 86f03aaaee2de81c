//! `dedup_seconds`: what counts as a repetition, and when it is reported.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use logdag::{Graph, Rotation, StreamOptions, log};

use super::doubles::{Gate, slow};
use super::{LONG, typed};

/// The queue's thread reports repetitions when their time is over, even if nothing follows them.
#[test]
fn a_repetition_that_nothing_follows_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let reported = typed("file", &path, Rotation::default()).dedup(Duration::from_secs(1));
    let stream = graph.configure("app", reported).unwrap();
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
    // The repetition was reported: neither the next line nor the end reports it again.
    log!(stream, "another");
    graph.go_sync();
    drop((stream, graph));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "the same\nlog stream app: last line repeated 4 times\nanother\n");
}

#[test]
fn what_was_never_written_is_not_repeated() {
    let (graph, gate) = (Graph::new(), Gate::default());
    gate.open.store(true, Ordering::Release);
    gate.fails_once.store(true, Ordering::Release);
    let stream = gate.add(&graph, StreamOptions::new().dedup(Duration::from_secs(60)));
    (0..5).for_each(|_| log!(stream, "disk is full"));
    graph.flush().unwrap_err();
    let mut lines = gate.lines();
    let lost = lines.remove(1);
    assert!(lost.starts_with("log stream gate: 1 line lost since 2"), "{lost}");
    assert_eq!(lines, ["disk is full", "log stream gate: last line repeated 3 times"]);
}

#[test]
fn lines_with_other_keys_are_no_repetitions() {
    let graph = Graph::new();
    let (sink, stream) = slow(&graph, Duration::ZERO, Some(Duration::from_secs(5)));
    log!(stream, status = 200; "done");
    log!(stream, status = 500; "done");
    assert_eq!(sink.lines().len(), 2);
}

#[test]
fn looking_for_repetitions_does_not_wait_for_the_sink() {
    let graph = Graph::new();
    let (_, stream) = slow(&graph, Duration::from_millis(500), Some(Duration::from_secs(5)));
    graph.go_async();
    log!(stream, "a");
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    log!(stream, "b");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}
