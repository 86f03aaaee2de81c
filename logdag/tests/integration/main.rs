//! The graph and its sinks, tested from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

// Sinks that stand in for real ones.
mod doubles;

// The macros and calls of programs, hooks, speculation, pipes.
mod calls;
// Configurations: reading, the places of errors, the effect of applying one.
mod configuration;
// Streams that configurations declare, and their state before.
mod declared;
// Lines that could forge others, or control a terminal.
mod escaping;
// Files as sinks.
mod file;
// Plain lines, JSON, events, FlatBuffers.
mod formats;
// Streams, outlets, cycles, limits of the graph.
mod graph;
// Durable feeds as sinks.
mod jlog;
// Levels, and which of them streams take.
mod levels;
// Limits and samples on outlets.
mod limits;
// Lost lines are counted and reported.
mod losses;
// Format strings and arguments of `log!`.
mod messages;
// Random graphs against a model.
mod model;
// Going asynchronous and back, and flushing meanwhile.
mod modes;
// Panics of sinks and of arguments.
mod panics;
// Queues: full ones, order, the promise of a flush.
mod queue;
// Redaction.
mod redaction;
// Repetitions of lines.
mod repetitions;
// Rotation and retention.
mod rotation;
// syslog and the journal as sinks.
mod sockets;
// Sinks that do not return from a write.
mod stuck;
// Incoming syslog messages.
mod syslog_input;
// Values of JSON, and filters that reach into them.
mod values;

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use logdag::{Graph, Rotation, SinkSpec, Stream, StreamOptions};

/// How long anything may take, even on a busy machine.
const LONG: Duration = Duration::from_secs(10);

/// Whether something ends within a time. If not, its thread is left alone.
fn ends(limit: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    waiting.recv_timeout(limit).is_ok()
}

fn xml(logs: &str) -> logdag::config::Config {
    logdag::config::Config::from_text("app.xml", &format!("<app><logs>{logs}</logs></app>")).unwrap()
}

/// The lines of a ring, oldest first.
fn ring(graph: &Graph, name: &str) -> Vec<String> {
    let lines = graph.memory_last(name, usize::MAX).expect("a ring");
    lines.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect()
}

/// A stream that writes to a path.
fn typed(kind: &str, path: &Path, rotation: Rotation) -> StreamOptions {
    let path = path.to_str().unwrap().to_owned();
    let sink = SinkSpec::new(kind.to_owned(), path).rotation(rotation);
    StreamOptions::new().sink(sink)
}

/// Logs numbered lines `thread number padding` to a stream from several threads.
fn log_from_threads(stream: &Stream, threads: usize, lines: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for n in 0..lines {
                    logdag::log!(stream, "{thread} {n} {:.>20}", n);
                }
            });
        }
    });
}

/// Checks that every line of every thread exists once, whole, and in order.
fn assert_complete<'a>(lines: impl IntoIterator<Item = &'a str>, threads: usize, expected: usize) {
    let mut next = vec![0usize; threads];
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let [thread, n, padding] = fields[..] else { panic!("a torn line: {line:?}") };
        let (thread, n): (usize, usize) = (thread.parse().unwrap(), n.parse().unwrap());
        assert_eq!(padding, format!("{n:.>20}"), "a torn line: {line:?}");
        assert_eq!(n, next[thread], "of thread {thread}");
        next[thread] += 1;
    }
    assert_eq!(next, vec![expected; threads]);
}

/// Does something that must not take forever.
fn within<R: Send + 'static>(limit: Duration, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, waiting) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // If this fails, nobody waits any more.
        let _ = done.send(work());
    });
    match waiting.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().err().unwrap_or_else(|| Box::new("ended")))
        }
    }
}
