//! Processes that fork while their threads log. A separate test binary, so that other tests do not
//! interfere. jlog-fork has the same tests, with a logdag that has no features.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fork::Fork;
#[cfg(feature = "jlog")]
use jlog_core::{Jlog, Wait};
use logdag::{Graph, SinkSpec, Stream, StreamOptions, WhenFull, log};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[cfg(feature = "jlog")]
const STREAMS: &[&str] = &["file", "synch", "ring", "feed"];
#[cfg(not(feature = "jlog"))]
const STREAMS: &[&str] = &["file", "synch", "ring"];

fn graph(dir: &Path) -> Graph {
    let graph = Graph::new();
    for (name, kind, path) in [
        ("file", "file", dir.join("file.log").display().to_string()),
        ("synch", "file_synch", dir.join("synch.log").display().to_string()),
        ("ring", "memory", "1000000,100000000".to_owned()),
        #[cfg(feature = "jlog")]
        ("feed", "jlog", format!("{}(reader)", dir.join("feed").display())),
    ] {
        let sink = SinkSpec::new(kind.to_owned(), path);
        // The queue is small, so that threads wait for room again and again.
        let options = StreamOptions::new().sink(sink).queue_bytes(2000);
        graph.configure(name, options).unwrap();
    }
    graph.go_async();
    graph
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    #[cfg(feature = "jlog")]
    if name == "feed" {
        return messages(dir);
    }
    let text = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[cfg(feature = "jlog")]
fn messages(dir: &Path) -> Vec<String> {
    let mut reader = Jlog::open(dir.join("feed")).unwrap().reader("reader").unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    all
}

/// Runs this in a child, which must end soon and successfully.
fn in_child(n: usize, work: impl FnOnce()) {
    match fork::fork().unwrap() {
        Fork::Child => {
            let done = catch_unwind(AssertUnwindSafe(work));
            std::process::exit(if done.is_ok() { 0 } else { 1 })
        }
        Fork::Parent(pid) => {
            let (pid, begun) = (Pid::from_raw(pid), Instant::now());
            loop {
                match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::StillAlive if begun.elapsed() < Duration::from_secs(30) => {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    WaitStatus::StillAlive => {
                        kill(pid, Signal::SIGKILL).unwrap();
                        waitpid(pid, None).unwrap();
                        panic!("child {n} hangs");
                    }
                    status => return assert_eq!(status, WaitStatus::Exited(pid, 0), "child {n}"),
                }
            }
        }
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn children_are_usable_and_double_nothing_and_the_parent_does_not_notice() {
    const FORKS: usize = 1000;
    const THREADS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let graph = graph(dir.path());
    let streams: Vec<Stream> = STREAMS.iter().map(|name| graph.stream(name).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let logged: Vec<usize> = std::thread::scope(|scope| {
        let thread = |thread: usize| {
            let (streams, graph, stop) = (&streams, &graph, &stop);
            move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    streams.iter().for_each(|stream| log!(stream, "parent {thread} {n}"));
                    n += 1;
                    // Locks of the graph may also be held at the time of a fork.
                    graph.describe("file").unwrap();
                    graph.stream(&format!("file/{thread}")).unwrap();
                    std::thread::sleep(Duration::from_micros(300));
                }
                n
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(thread(n))).collect();
        // Stops the threads even if a child fails, so that nobody waits for them forever.
        let stopping = Stop(&stop);
        for n in 0..FORKS {
            in_child(n, || {
                streams.iter().for_each(|stream| log!(stream, "child {n} 0"));
                graph.flush().unwrap();
                let counters = graph.describe("file").unwrap().counters;
                assert_eq!((counters.lines, counters.dropped, counters.failed), (1, 0, 0));
                assert_eq!(graph.memory_last("ring", 1).unwrap()[0].bytes, format!("child {n} 0").as_bytes());
                if n % 10 == 0 {
                    graph.go_async();
                    streams.iter().for_each(|stream| log!(stream, "child {n} 1"));
                    graph.go_sync();
                    drop(graph.drain_at_end());
                }
            });
        }
        drop(stopping);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    graph.flush().unwrap();
    let of_parent: usize = logged.iter().sum();
    for name in STREAMS.iter().copied().filter(|&name| name != "ring") {
        let counters = graph.describe(name).unwrap().counters;
        assert_eq!((counters.lines, counters.dropped, counters.failed), (of_parent as u64, 0, 0), "{name}");
        let mut next: HashMap<String, usize> = HashMap::new();
        for line in lines(dir.path(), name) {
            let (who, n) = line.rsplit_once(' ').unwrap();
            let next = next.entry(who.to_owned()).or_default();
            assert_eq!(n.parse::<usize>().unwrap(), *next, "{name}: {line}");
            *next += 1;
        }
        let expected = (0..THREADS).map(|n| (format!("parent {n}"), logged[n]));
        let children = (0..FORKS).map(|n| (format!("child {n}"), if n % 10 == 0 { 2 } else { 1 }));
        let expected: HashMap<String, usize> = expected.chain(children).collect();
        assert_eq!(next, expected, "{name}");
    }
}

#[test]
fn a_child_of_a_process_whose_queue_is_full_and_stuck_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let graph = graph(dir.path());
    let sink = SinkSpec::new("file", path.display().to_string());
    let when_full = Some(WhenFull::Drop);
    let drain_limit = Duration::from_millis(100);
    let options = StreamOptions::new().sink(sink).when_full(when_full).drain_limit(drain_limit);
    let stuck = graph.configure("stuck", options).unwrap();
    (0..10_000).for_each(|_| log!(stuck, "{}", "x".repeat(1000)));
    let file = graph.stream("file").unwrap();
    in_child(0, || {
        log!(file, "from the child");
        graph.flush().unwrap();
        graph.go_async();
        log!(file, "from its thread");
        assert_eq!(graph.describe("stuck").unwrap().counters.dropped, 0);
        drop(graph.drain_at_end());
        // A grandchild is a child, too.
        in_child(1, || {
            log!(file, "from the grandchild");
            drop(graph.clone());
        });
    });
    in_child(2, || drop((graph.clone(), reader.try_clone())));
    assert_eq!(lines(dir.path(), "file"), ["from the child", "from its thread", "from the grandchild"]);
}

#[cfg(feature = "gzip")]
#[test]
fn children_that_rotate_and_compress_lose_and_double_nothing() {
    use std::io::Read;

    use logdag::{Compression, Rotation};

    const FORKS: usize = 60;
    const OF_CHILD: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let rotation =
            Rotation::new().bytes(20_000).name("number".parse().unwrap()).compress(Compression::Gzip);
        let path = dir.path().join("app.log").display().to_string();
        let sink = SinkSpec::new("file", path).rotation(rotation);
        let graph = Graph::new();
        let options = StreamOptions::new().sink(sink);
        let app = graph.configure("app", options).unwrap();
        graph.go_async();
        (graph, app)
    };
    let (graph, app) = open();
    let stop = AtomicBool::new(false);
    let logged = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                log!(app, "parent {n}");
                n += 1;
                std::thread::sleep(Duration::from_micros(100));
            }
            n
        });
        let stopping = Stop(&stop);
        for child in 0..FORKS {
            in_child(child, || {
                (0..OF_CHILD).for_each(|n| log!(app, "child {child} {n} {:.>80}", n));
                drop(graph.drain_at_end());
            });
        }
        drop(stopping);
        thread.join().unwrap()
    });
    drop(graph.drain_at_end());
    drop((graph, app));
    // Files that could not be compressed while another process had them open are compressed by the
    // next one. (The children of the other tests have them open for a while, too.)
    let plain = || {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().unwrap() != "gz").count()
    };
    let begun = Instant::now();
    while plain() > 1 && begun.elapsed() < Duration::from_secs(60) {
        let (graph, app) = open();
        drop(graph.drain_at_end());
        drop((graph, app));
    }
    let mut lines: Vec<String> = Vec::new();
    let mut compressed = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut text = String::new();
        let mut file = std::fs::File::open(&path).unwrap();
        if path.extension().unwrap() == "gz" {
            compressed += 1;
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            assert_eq!(path.file_name().unwrap(), "app.log");
            file.read_to_string(&mut text).unwrap();
        }
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(compressed > 10, "{compressed}");
    let of_children =
        (0..FORKS).flat_map(|child| (0..OF_CHILD).map(move |n| format!("child {child} {n} {:.>80}", n)));
    let mut expected: Vec<String> = (0..logged).map(|n| format!("parent {n}")).chain(of_children).collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines.len(), expected.len());
    assert!(lines == expected);
}

/// A forked child has its parent's descriptors and their locks: what it drops must not release the
/// parent's locks.
#[cfg(feature = "jlog")]
#[test]
fn a_child_does_not_end_the_claims_of_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Jlog::create(dir.path().join("feed")).unwrap();
    feed.subscribe("s", jlog_core::Start::Beginning).unwrap();
    let alone = jlog_core::WriterOptions::default().locking(jlog_core::Locking::SingleProcess);
    let writer = feed.writer_with(alone).unwrap();
    let reader = feed.reader("s").unwrap();
    let (mut readers, mut writers) = (Some(reader), Some(writer));
    in_child(0, || drop((readers.take(), writers.take())));
    assert!(matches!(feed.reader("s"), Err(jlog_core::Error::ReaderBusy { .. })));
    assert!(matches!(feed.writer(), Err(jlog_core::Error::WriterBusy { .. })));
    drop((readers, writers));
    feed.reader("s").unwrap();
    feed.writer().unwrap();
}
