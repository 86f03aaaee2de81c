//! Processes that fork while their threads log: the tests of logdag, which has every feature, and
//! of jlog-fork, where it has none.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fork::Fork;
use logdag::{Graph, SinkSpec, Stream, StreamOptions, WhenFull, log};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Reads the messages of the feed at a path for its subscriber `reader`, if logdag has feeds.
pub type Messages = fn(&Path) -> Vec<String>;

/// The names of the streams that [`graph`] makes.
fn streams(feed: Option<Messages>) -> Vec<&'static str> {
    let mut names = vec!["file", "synch", "ring"];
    names.extend(feed.map(|_| "feed"));
    names
}

fn graph(dir: &Path, feed: Option<Messages>) -> Graph {
    let graph = Graph::new();
    for name in streams(feed) {
        let (kind, path) = match name {
            "file" => ("file", dir.join("file.log").display().to_string()),
            "synch" => ("file_synch", dir.join("synch.log").display().to_string()),
            "ring" => ("memory", "1000000,100000000".to_owned()),
            _ => ("jlog", format!("{}(reader)", dir.join("feed").display())),
        };
        let sink = SinkSpec::new(kind, path);
        // The queue is small, so that threads wait for room again and again.
        let options = StreamOptions::new().sink(sink).queue_bytes(2000);
        graph.configure(name, options).unwrap();
    }
    graph.go_async();
    graph
}

fn lines(dir: &Path, name: &str, feed: Option<Messages>) -> Vec<String> {
    match feed {
        Some(messages) if name == "feed" => messages(&dir.join(name)),
        _ => {
            let text = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }
}

/// Runs this in a child, which must end soon and successfully.
pub fn in_child(n: usize, work: impl FnOnce()) {
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

/// Sets a flag when it is dropped: threads that log end even if what follows panics.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Children are usable and double nothing, and the parent does not notice: 1,000 forks under load.
pub fn children_are_usable_and_double_nothing(feed: Option<Messages>) {
    const FORKS: usize = 1000;
    const THREADS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let graph = graph(dir.path(), feed);
    let streams: Vec<Stream> = streams(feed).iter().map(|name| graph.stream(name).unwrap()).collect();
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
    for name in self::streams(feed).into_iter().filter(|&name| name != "ring") {
        let counters = graph.describe(name).unwrap().counters;
        assert_eq!((counters.lines, counters.dropped, counters.failed), (of_parent as u64, 0, 0), "{name}");
        let mut next: HashMap<String, usize> = HashMap::new();
        for line in lines(dir.path(), name, feed) {
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

/// A child of a process whose queue is full and stuck goes on.
pub fn a_child_of_a_stuck_process_goes_on(feed: Option<Messages>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let graph = graph(dir.path(), feed);
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
    assert_eq!(lines(dir.path(), "file", feed), ["from the child", "from its thread", "from the grandchild"]);
}
