//! Lost and dropped lines are counted and reported; no line is lost without need.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use logdag::{Graph, Rotation, StreamOptions, WhenFull, for_each_line, log};

use super::doubles::Gate;
use super::typed;

#[test]
fn empty_lines_fill_a_queue() {
    let (graph, gate) = (Graph::new(), Gate::default());
    let when_full = Some(WhenFull::Drop);
    let stream = gate.add(&graph, StreamOptions::new().queue_bytes(1000).when_full(when_full));
    graph.go_async();
    (0..10_000).for_each(|_| log!(stream, ""));
    let dropped = graph.describe("gate").unwrap().counters.dropped;
    assert!(dropped > 9_800, "{dropped}");
    gate.open.store(true, Ordering::Release);
    graph.flush().unwrap();
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
fn a_flush_reports_lines_that_were_lost() {
    let graph = Graph::new();
    let stream = graph.configure("full", typed("file", Path::new("/dev/full"), Rotation::default())).unwrap();
    graph.go_async();
    log!(stream, "precious");
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("1 line lost"), "{error}");
    // The loss was reported, and nothing has been lost since.
    graph.flush().unwrap();
}

#[test]
fn what_cannot_be_made_durable_can_be_flushed() {
    let graph = Graph::new();
    let stream =
        graph.configure("null", typed("file_synch", Path::new("/dev/null"), Rotation::default())).unwrap();
    log!(stream, "x");
    graph.flush().unwrap();
}

#[test]
fn a_message_as_long_as_allowed_is_written_with_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let flags = logdag::Flags::new().facility(true).timestamps(true).debug(true);
    let allowed = typed("file_synch", &path, Rotation::default()).max_line(100).flags(flags);
    let stream = graph.configure("file", allowed).unwrap();
    log!(stream, "{}", "x".repeat(101));
    log!(stream, "{}", "y".repeat(100));
    let text = fs::read_to_string(&path).unwrap();
    let (line, reported) = text.split_once('\n').unwrap();
    assert!(line.ends_with(&format!("] {}", "y".repeat(100))) && !text.contains("xxx"), "{text}");
    assert!(reported.contains("log stream file: 1 line lost since 2"), "{reported}");
    assert_eq!(graph.describe("file").unwrap().counters.failed, 1);
}

#[test]
fn a_pipe_whose_reader_is_slow_gets_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // Opened for reading and writing, so that opening does not wait.
    let mut reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let graph = Graph::new();
    let stream = graph.configure("fifo", typed("file", &path, Rotation::default())).unwrap();
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
