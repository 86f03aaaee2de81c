//! Sinks that do not return from a write.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use logdag::{Filter, Graph, Rotation, Stream, StreamConfig, WhenFull, log};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{typed, within};

const LONG: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_millis(200);
const LINES: usize = 10_000;

/// A FIFO whose reader has stopped, and a file that works.
struct Setup {
    dir: tempfile::TempDir,
    graph: Graph,
    reader: File,
    stuck: Stream,
    good: Stream,
}

impl Setup {
    fn new(kind: &str, when_full: WhenFull) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = File::options().read(true).write(true).open(&path).unwrap();
        let graph = Graph::new();
        let options = |kind: &str, path: PathBuf, when_full| {
            typed(kind, &path, Rotation::default())
                .when_full(when_full)
                .drain_limit(LIMIT)
                .queue_bytes(100_000)
        };
        // Working streams whose names come before and after it.
        let good =
            graph.configure("a", options("file", dir.path().join("good.log"), WhenFull::Block)).unwrap();
        let stuck = graph.configure("b", options(kind, path, when_full)).unwrap();
        graph.go_async();
        Self { dir, graph, reader, stuck, good }
    }

    fn good_lines(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("good.log")).unwrap().lines().count()
    }
}

/// Does something that waits for at most one sink, whose limit is short.
fn soon<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let begun = Instant::now();
    let result = within(LONG, work);
    assert!(begun.elapsed() < Duration::from_secs(4), "{what}: {:?}", begun.elapsed());
    result
}

#[test]
fn nothing_that_watches_or_ends_waits_for_a_stuck_sink() {
    let setup = Setup::new("file", WhenFull::Drop);
    for n in 0..LINES {
        log!(setup.stuck, "{n} {:.>50}", n);
        log!(setup.good, "{n}");
    }
    let graph = || setup.graph.clone();
    let counters = soon("describe", {
        let graph = graph();
        move || graph.describe("b").unwrap().counters
    });
    assert!(counters.dropped > 0, "{counters:?}");
    let graph1 = graph();
    let error = soon("flush", move || graph1.flush()).unwrap_err().to_string();
    assert!(error.contains("\"b\"") && error.contains("not written yet: its sink takes longer"), "{error}");
    assert_eq!(setup.good_lines(), LINES, "the other one is flushed all the same");
    let graph1 = graph();
    std::fs::rename(setup.dir.path().join("good.log"), setup.dir.path().join("moved")).unwrap();
    let error = soon("reopen", move || graph1.reopen()).unwrap_err().to_string();
    assert!(error.contains("it is busy"), "{error}");
    log!(setup.good, "in the new file");
    for work in [Graph::rotate, |graph: &Graph, name: &str| graph.remove_expired(name).map(|_| ())] {
        let graph1 = graph();
        soon("rotate, remove_expired", move || work(&graph1, "b")).unwrap_err();
    }
    let graph1 = graph();
    soon("the guard", move || drop(graph1.drain_at_end()));
    assert_eq!(setup.good_lines(), 1);
    // Lines that are logged now cannot be written, and nobody waits.
    let (line, graph1) = (setup.stuck.clone(), graph());
    let given_up = soon("log!", move || {
        log!(line, "too late");
        graph1.describe("b").unwrap().counters
    });
    assert_eq!(given_up.lines + given_up.dropped, LINES as u64 + 1, "{given_up:?}");
    // The reader continues: the line in the middle of its write is written, and the log says what
    // is missing.
    let Setup { mut reader, stuck, graph, .. } = setup;
    let (text, counters) = within(LONG, move || {
        let mut text = String::new();
        let mut buffer = vec![0; 1 << 16];
        while !text.contains("the last one") {
            let n = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            if !text.contains("lost since") {
                log!(stuck, "again");
            } else if !text.contains("the last one") {
                log!(stuck, "the last one");
            }
        }
        (text, graph.describe("b").unwrap().counters)
    });
    let numbers = text.lines().filter_map(|line| line.split(' ').next()?.parse::<usize>().ok());
    let numbers: Vec<usize> = numbers.collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "in order, and none twice");
    assert!(text.contains(" lost since 20"), "{text}");
    assert!(counters.dropped >= (LINES - numbers.len()) as u64, "{counters:?}");
}

#[test]
fn a_graph_with_stuck_sinks_can_be_dropped_and_changed() {
    for when_full in [WhenFull::Drop, WhenFull::Block] {
        let Setup { dir, graph, stuck, good, .. } = Setup::new("file", when_full);
        // One line larger than a pipe is enough.
        log!(stuck, "{}", "x".repeat(70_000));
        log!(good, "x");
        let other = graph.clone();
        soon("remove", move || other.remove("b"));
        soon("drop", move || drop((graph, stuck, good)));
        assert_eq!(std::fs::read_to_string(dir.path().join("good.log")).unwrap(), "x\n");
    }
}

#[test]
fn a_synchronous_sink_that_is_stuck_keeps_nobody_else() {
    let setup = Setup::new("file_synch", WhenFull::Block);
    let stuck = setup.stuck.clone();
    // A synchronous call waits as long as the sink takes.
    let waiting = std::thread::spawn(move || log!(stuck, "{}", "x".repeat(70_000)));
    let begun = Instant::now();
    while setup.graph.flush().is_ok() {
        assert!(begun.elapsed() < LONG);
    }
    let graph = setup.graph.clone();
    assert!(soon("describe", move || graph.describe("b")).is_some());
    let graph = setup.graph.clone();
    soon("the guard", move || drop(graph.drain_at_end()));
    log!(setup.good, "one");
    assert_eq!(setup.good_lines(), 1);
    let mut bytes = vec![0; 70_001];
    (&setup.reader).read_exact(&mut bytes).unwrap();
    waiting.join().unwrap();
}

#[test]
fn reports_of_limits_wait_for_no_sink() {
    for queued in [true, false] {
        let Setup { graph, mut reader, stuck, dir, .. } = Setup::new("file", WhenFull::Block);
        if !queued {
            graph.go_sync();
        }
        let filter = Filter::all().with_limit("1/h".parse().unwrap());
        graph.connect("web", "b", Some(filter)).unwrap();
        let web = graph.stream("web").unwrap();
        (0..3).for_each(|n| log!(web, "web {n}"));
        let writer = std::thread::spawn(move || {
            (0..LINES).for_each(|n| log!(stuck, "{n} {:.>50}", n));
            log!(stuck, "the end");
        });
        // The thread waits once the pipe and the queue are full and nothing moves any more.
        let is_full = || {
            let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLOUT)];
            let queue = graph.describe("b").unwrap().queue;
            poll(&mut polled, PollTimeout::ZERO).unwrap() == 0
                && queue.is_none_or(|queue| queue.bytes + 500 > queue.limit)
        };
        let state = || {
            let b = graph.describe("b").unwrap();
            (b.counters.lines, b.queue.map(|queue| queue.lines))
        };
        let (begun, mut before, mut still) = (Instant::now(), state(), 0);
        while still < 3 {
            std::thread::sleep(Duration::from_millis(50));
            let now = state();
            still = if is_full() && now == before { still + 1 } else { 0 };
            assert!(begun.elapsed() < LONG, "{now:?}");
            before = now;
        }
        let graph1 = graph.clone();
        let error = soon("flush", move || graph1.flush()).unwrap_err().to_string();
        let expected = if queued { "not written yet" } else { "a report is not written" };
        assert!(error.contains(expected), "{error}");
        let text = within(LONG, move || {
            let mut text = String::new();
            let mut buffer = vec![0; 1 << 16];
            let mut new = 0;
            // The whole text is too long to search after every line.
            while !text[new..].contains("the end") {
                new = text.len().saturating_sub("the end".len());
                let n = reader.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
            writer.join().unwrap();
            drop(dir);
            text
        });
        let reported = if queued { "2 lines left out since" } else { "1 line lost since" };
        assert!(text.contains(reported));
        let lines = text.lines().filter(|line| line.contains(" ....")).count();
        assert_eq!(lines, LINES);
    }
}

/// Lines inside a sink that was given up may be written after all.
#[test]
fn as_long_as_it_is_open_which_lines_are_lost_their_number_is_an_upper_limit() {
    let Setup { dir, graph, stuck, reader, .. } = Setup::new("file", WhenFull::Drop);
    for n in 0..LINES {
        log!(stuck, "{n} {:.>50}", n);
    }
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains(": up to ") && error.contains(" lines not written yet"), "{error}");
    graph.go_sync();
    let error = graph.flush().unwrap_err().to_string();
    assert!(error.contains(": up to ") && error.contains(" lines lost: its sink has not taken"), "{error}");
    let text = within(LONG, move || read_until(&reader, " for 200ms\n"));
    let written = text.lines().filter(|line| line.contains(" ..")).count();
    let (_, report) = text.split_once("log stream b: ").unwrap();
    // The sink is back: the number is exact.
    assert!(report.starts_with(&format!("{} lines lost since ", LINES - written)), "{written}: {report}");
    let begun = Instant::now();
    while graph.describe("b").unwrap().counters.dropped != (LINES - written) as u64 {
        assert!(begun.elapsed() < LONG, "{:?}", graph.describe("b").unwrap().counters);
        std::thread::yield_now();
    }
    drop((stuck, dir));
}

/// A program that ends waits only once for a sink that was given up.
#[test]
fn an_end_waits_once_for_a_stuck_sink() {
    let limit = Duration::from_secs(3);
    let setup = Setup::new("file", WhenFull::Drop);
    let options = setup.graph.options("b").unwrap();
    setup.graph.configure("b", options.drain_limit(limit)).unwrap();
    setup.graph.go_async();
    for n in 0..LINES {
        log!(setup.stuck, "{n} {:.>50}", n);
    }
    let graph = setup.graph.clone();
    within(LONG, move || {
        graph.go_sync();
        let begun = Instant::now();
        let error = graph.flush().unwrap_err().to_string();
        assert!(error.contains("\"b\""), "{error}");
        graph.reopen_stream("b").unwrap_err();
        drop(graph.drain_at_end());
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    });
    // Once the sink is back, there is a wait for it as before.
    let Setup { mut reader, graph, .. } = setup;
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    within(LONG, move || while graph.flush().is_err() {});
}

/// What a stuck pipe's reader gets when it continues, up to this text.
fn read_until(mut reader: &File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = vec![0; 1 << 16];
    while !text.contains(end) {
        let n = reader.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    text
}

#[test]
fn lines_for_a_stuck_sink_without_a_queue_are_dropped_and_counted() {
    for synchronous in [true, false] {
        // The sink of a graph that has gone synchronous, too.
        let setup = Setup::new(if synchronous { "file_synch" } else { "file" }, WhenFull::Drop);
        if !synchronous {
            setup.graph.go_sync();
        }
        let (stuck, good, graph) = (setup.stuck.clone(), setup.good.clone(), setup.graph.clone());
        let others = soon("log!", move || {
            // There are several threads, none of which waits longer than the first.
            let others: Vec<_> = (0..3)
                .map(|_| {
                    let stuck = stuck.clone();
                    std::thread::spawn(move || (0..1000).for_each(|n| log!(stuck, "other {n} {:.>50}", n)))
                })
                .collect();
            for n in 0..LINES {
                log!(stuck, "{n} {:.>50}", n);
                log!(good, "{n}");
            }
            others.into_iter().for_each(|other| other.join().unwrap());
            graph.describe("b").unwrap().counters
        });
        setup.graph.flush().unwrap_err();
        assert_eq!(setup.good_lines(), LINES);
        assert!(others.dropped > 0 && others.failed == 0, "{others:?}");
        assert_eq!(others.lines + others.dropped, LINES as u64 + 3000, "{others:?}");
        let Setup { reader, stuck, dir, graph, .. } = setup;
        let text = within(LONG, move || {
            let logging = std::thread::spawn(move || {
                while graph.describe("b").unwrap().counters.lines == others.lines {
                    log!(stuck, "again");
                }
                log!(stuck, "the last one");
            });
            let text = read_until(&reader, "the last one");
            logging.join().unwrap();
            drop(dir);
            text
        });
        let lines = text.lines().filter(|line| line.contains(" ..")).count();
        assert_eq!(lines as u64, others.lines, "the lines before it stand whole");
        let report = text.lines().find(|line| line.contains("lost since")).unwrap_or_default();
        assert!(report.contains("its sink has not taken them for 200ms"), "{report}");
    }
}

#[test]
fn a_line_that_a_stuck_sink_took_in_part_is_a_line_of_its_own() {
    let Setup { reader, stuck, dir, .. } = Setup::new("file_synch", WhenFull::Drop);
    let long = stuck.clone();
    soon("log!", move || log!(long, "{}", "#".repeat(100_000)));
    let text = within(LONG, move || {
        let (there, stop) = mpsc::channel::<()>();
        let logging = std::thread::spawn(move || {
            // Lines that come before the reader has made room are dropped.
            while stop.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                log!(stuck, "next");
                log!(stuck, "the last one");
            }
        });
        let text = read_until(&reader, "the last one");
        drop(there);
        logging.join().unwrap();
        drop(dir);
        text
    });
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].len() < 100_000 && lines[0].bytes().all(|byte| byte == b'#'),
        "{} bytes",
        lines[0].len()
    );
    assert!(!lines[1..].iter().any(|line| line.contains('#')), "{:?}", &lines[1..]);
}

#[test]
fn a_flush_names_every_sink_that_is_stuck() {
    let Setup { dir, graph, stuck, good, reader } = Setup::new("file", WhenFull::Drop);
    let path = dir.path().join("another");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let another = File::options().read(true).write(true).open(&path).unwrap();
    let options = typed("file_synch", &path, Rotation::default()).drain_limit(LIMIT);
    let c = graph.configure("c", options).unwrap();
    log!(stuck, "{}", "x".repeat(100_000));
    let waiting = std::thread::spawn(move || log!(c, "{}", "x".repeat(70_000)));
    let error = loop {
        let flushed = graph.clone();
        match soon("flush", move || flushed.flush()) {
            Err(e) if e.to_string().contains("\"c\"") => break e.to_string(),
            _ => {}
        }
    };
    assert!(error.contains("\"b\" of type file: 1 line not written yet"), "{error}");
    assert!(error.contains("\"c\" of type file_synch: 1 line not written yet"), "{error}");
    // The end counts the lost lines, and those that are written after all.
    let ended = graph.clone();
    soon("go_sync", move || ended.go_sync());
    assert_eq!(graph.describe("c").unwrap().counters.dropped, 1);
    let mut bytes = vec![0; 70_001];
    (&another).read_exact(&mut bytes).unwrap();
    waiting.join().unwrap();
    let counters = graph.describe("c").unwrap().counters;
    assert_eq!((counters.lines, counters.dropped), (1, 0));
    drop((reader, good));
}

#[test]
fn changes_say_whose_sinks_they_wait_for() {
    let Setup { dir, graph, stuck, good, mut reader } = Setup::new("file", WhenFull::Block);
    let options = graph.options("b").unwrap();
    graph.configure("b", options.drain_limit(LONG)).unwrap();
    log!(stuck, "{}", "x".repeat(70_000));
    assert_eq!(graph.pending(), [""; 0]);
    // Once the first byte is there, the write has begun: before, nothing waits for it.
    reader.read_exact(&mut [0]).unwrap();
    let path = dir.path().join("app.toml");
    let config = |list: &str| std::fs::write(&path, list).unwrap();
    let reload = || {
        let (graph, path) = (graph.clone(), path.clone());
        std::thread::spawn(move || graph.reload(path))
    };
    // The refusal of a configuration is reported without a wait.
    config("[[log]]\nwrong = 1\n");
    let refused = within(LONG, {
        let reloading = reload();
        move || reloading.join().unwrap()
    });
    assert!(refused.unwrap_err().to_string().contains("wrong"));
    config(&format!("[[log]]\nname = \"c\"\ntype = \"file\"\npath = \"{}/c.log\"\n", dir.path().display()));
    let reloading = reload();
    let begun = Instant::now();
    while graph.pending() != ["b"] {
        assert!(begun.elapsed() < LONG);
        std::thread::yield_now();
    }
    log!(graph.stream("c").unwrap(), "it counts");
    assert!(!reloading.is_finished(), "it waits to reopen what is stuck");
    let mut bytes = vec![0; 70_000];
    reader.read_exact(&mut bytes).unwrap();
    reloading.join().unwrap().unwrap();
    graph.flush().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("c.log")).unwrap(), "it counts\n");
    assert_eq!(graph.pending(), [""; 0]);
    drop(good);
}

#[test]
fn a_stuck_sink_that_is_replaced_delays_no_other() {
    let Setup { dir, graph, stuck, good, mut reader } = Setup::new("file", WhenFull::Block);
    let options = graph.options("b").unwrap();
    graph.configure("b", options.drain_limit(LONG)).unwrap();
    log!(stuck, "{}", "x".repeat(70_000));
    let new = |name: &str, path: &str| {
        let mut options = graph.options(name).unwrap();
        options.sink.as_mut().unwrap().path = dir.path().join(path).display().to_string();
        StreamConfig::new(name.to_owned(), options)
    };
    let list = vec![new("a", "new.log"), new("b", "other.log")];
    let applied = graph.clone();
    let applying = std::thread::spawn(move || applied.apply(list).unwrap());
    let path = dir.path().join("new.log");
    while !path.exists() {
        std::thread::yield_now();
    }
    within(LONG, move || {
        while std::fs::read_to_string(&path).unwrap().is_empty() {
            log!(good, "x");
        }
    });
    assert!(!applying.is_finished(), "it waits for the sink that is stuck");
    let mut bytes = vec![0; 70_001];
    reader.read_exact(&mut bytes).unwrap();
    applying.join().unwrap();
}
