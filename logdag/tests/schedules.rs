//! The queue, the change of modes and the change of routes under many schedules of their threads,
//! which a checker (shuttle) chooses. A schedule in which no thread can continue fails, too. Run
//! with `cargo test -p logdag --no-default-features --features shuttle --test schedules` (the
//! command would not work with a checker's locks); `LOGDAG_SCHEDULES` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::{Arc, Mutex};

use logdag::{Capabilities, Graph, Lines, Sink, SinkSpec, Stream, StreamOptions, WhenFull, WriteError, log};
use shuttle::thread;

fn check(test: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("LOGDAG_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    // Half of the schedules change threads rarely, which finds the rarest orders.
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    shuttle::check_random(move || test(), schedules / 2);
    shuttle::check_pct(move || again(), schedules / 2, 3);
}

/// A sink that keeps its lines, and lets other threads run in the middle of a write.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Kept {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Kept {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        for (line, _) in lines.iter() {
            thread::yield_now();
            self.0.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).may_be_asynchronous(true)
    }
}

fn options(kind: &str, when_full: WhenFull) -> StreamOptions {
    let sink = SinkSpec::new(kind.to_owned(), "");
    // Two of the lines below fill the queue.
    StreamOptions::new().sink(sink).when_full(when_full).queue_bytes(7)
}

fn add(graph: &Graph, name: &str, when_full: WhenFull) -> (Stream, Kept) {
    let kept = Kept::default();
    let sink = kept.clone();
    graph.register(name, move |_| -> io::Result<Arc<dyn Sink>> { Ok(Arc::new(sink.clone())) }).unwrap();
    (graph.configure(name, options(name, when_full)).unwrap(), kept)
}

/// Logs `<thread> <n>` for each of this many numbers.
fn lines_of(stream: &Stream, number: usize, count: usize) -> thread::JoinHandle<()> {
    let stream = stream.clone();
    thread::spawn(move || {
        for n in 0..count {
            log!(stream, "{number} {n}");
        }
    })
}

/// Checks that every line of every thread exists once, and in order.
fn assert_complete(lines: &[String], threads: usize, count: usize) {
    for number in 0..threads {
        let of_thread: Vec<String> =
            lines.iter().filter(|line| line.starts_with(&format!("{number} "))).cloned().collect();
        let expected: Vec<String> = (0..count).map(|n| format!("{number} {n}")).collect();
        assert_eq!(of_thread, expected, "{lines:?}");
    }
    assert_eq!(lines.len(), threads * count, "{lines:?}");
}

#[test]
fn a_queue_that_blocks_loses_and_reorders_nothing() {
    check(|| {
        let graph = Graph::new();
        let (stream, kept) = add(&graph, "q", WhenFull::Block);
        graph.go_async();
        let threads: Vec<_> = (0..3).map(|number| lines_of(&stream, number, 3)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        graph.go_sync();
        assert_complete(&kept.lines(), 3, 3);
    });
}

#[test]
fn nothing_is_lost_while_it_goes_back_and_forth_between_modes() {
    check(|| {
        let graph = Graph::new();
        let (stream, kept) = add(&graph, "q", WhenFull::Block);
        let threads: Vec<_> = (0..2).map(|number| lines_of(&stream, number, 3)).collect();
        let changing = {
            let graph = graph.clone();
            thread::spawn(move || {
                graph.go_async();
                graph.go_sync();
                graph.go_async();
            })
        };
        threads.into_iter().chain([changing]).for_each(|thread| thread.join().unwrap());
        graph.go_sync();
        assert_complete(&kept.lines(), 2, 3);
    });
}

#[test]
fn what_is_dropped_is_counted_and_reported() {
    check(|| {
        let graph = Graph::new();
        let (stream, kept) = add(&graph, "q", WhenFull::Drop);
        graph.go_async();
        let threads: Vec<_> = (0..2).map(|number| lines_of(&stream, number, 4)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        graph.go_sync();
        let lines = kept.lines();
        let reported: u64 = lines
            .iter()
            .filter_map(|line| line.strip_prefix("log stream q: ")?.split(' ').next()?.parse::<u64>().ok())
            .sum();
        let written = lines.iter().filter(|line| !line.starts_with("log stream")).count() as u64;
        let counters = graph.describe("q").unwrap().counters;
        assert_eq!((written + reported, reported), (8, counters.dropped), "{lines:?}");
    });
}

#[test]
fn a_flush_covers_what_was_logged_before_it() {
    check(|| {
        let graph = Graph::new();
        let (stream, kept) = add(&graph, "q", WhenFull::Block);
        graph.go_async();
        let other = lines_of(&stream, 1, 3);
        log!(stream, "0 0");
        log!(stream, "0 1");
        graph.flush().unwrap();
        let written = kept.lines();
        assert!(["0 0", "0 1"].iter().all(|line| written.iter().any(|there| there == line)), "{written:?}");
        other.join().unwrap();
        graph.go_sync();
    });
}

#[test]
fn a_line_goes_the_old_way_or_the_new_way_and_then_only_the_new_one() {
    check(|| {
        let graph = Graph::new();
        let (_, one) = add(&graph, "one", WhenFull::Block);
        let (_, two) = add(&graph, "two", WhenFull::Block);
        let stream = graph.stream("source").unwrap();
        graph.add_outlet("source", "one", None).unwrap();
        graph.add_outlet("source", "two", None).unwrap();
        graph.go_async();
        let logging = lines_of(&stream, 0, 4);
        let changing = {
            let (graph, stream) = (graph.clone(), stream.clone());
            thread::spawn(move || {
                graph.remove_outlet("source", "one");
                log!(stream, "1 behind");
            })
        };
        logging.join().unwrap();
        changing.join().unwrap();
        graph.go_sync();
        let expected: Vec<String> = (0..4).map(|n| format!("0 {n}")).collect();
        let of_thread = |lines: Vec<String>| -> Vec<String> {
            lines.into_iter().filter(|line| line.starts_with('0')).collect()
        };
        assert!(!one.lines().contains(&"1 behind".to_owned()));
        assert!(two.lines().contains(&"1 behind".to_owned()));
        assert_eq!(of_thread(two.lines()), expected);
        let there = of_thread(one.lines());
        assert_eq!(there, expected[..there.len()]);
    });
}

#[test]
fn a_sink_that_is_replaced_gets_what_was_accepted_for_it() {
    check(|| {
        let graph = Graph::new();
        let (stream, old) = add(&graph, "q", WhenFull::Block);
        graph.go_async();
        let logging = lines_of(&stream, 0, 4);
        let new = Kept::default();
        let sink = new.clone();
        graph
            .register("other", move |_| -> io::Result<Arc<dyn Sink>> { Ok(Arc::new(sink.clone())) })
            .unwrap();
        graph.configure("q", options("other", WhenFull::Block)).unwrap();
        logging.join().unwrap();
        graph.go_sync();
        let mut lines = old.lines();
        lines.extend(new.lines());
        assert_complete(&lines, 1, 4);
    });
}

/// A stream that leaves out repetitions. By the checker's clock, their time is always over.
fn repeating() -> (Graph, Stream, Kept) {
    let graph = Graph::new();
    let kept = Kept::default();
    let sink = kept.clone();
    graph.register("kept", move |_| -> io::Result<Arc<dyn Sink>> { Ok(Arc::new(sink.clone())) }).unwrap();
    let options =
        options("kept", WhenFull::Block).dedup(std::time::Duration::from_secs(1)).queue_bytes(1 << 20);
    let stream = graph.configure("q", options).unwrap();
    (graph, stream, kept)
}

const REPEATED: &str = "log stream q: last line repeated 1 time";

#[test]
fn a_repetition_is_reported_behind_its_line() {
    check(|| {
        let (graph, stream, kept) = repeating();
        graph.go_async();
        log!(stream, "a");
        log!(stream, "a");
        graph.go_sync();
        drop((stream, graph));
        let lines = kept.lines();
        assert!(lines == ["a", REPEATED] || lines == ["a", "a"], "{lines:?}");
    });
}

#[test]
fn a_repetition_is_reported_before_the_next_line() {
    check(|| {
        let (graph, stream, kept) = repeating();
        log!(stream, "a");
        log!(stream, "a");
        graph.go_async();
        let ending = {
            let graph = graph.clone();
            thread::spawn(move || graph.go_sync())
        };
        log!(stream, "b");
        ending.join().unwrap();
        drop((stream, graph));
        assert_eq!(kept.lines(), ["a", REPEATED, "b"]);
    });
}

#[test]
fn a_flush_has_reported_repetitions() {
    check(|| {
        let (graph, stream, kept) = repeating();
        log!(stream, "a");
        log!(stream, "a");
        graph.go_async();
        graph.flush().unwrap();
        assert_eq!(kept.lines(), ["a", REPEATED]);
        graph.go_sync();
    });
}
