//! What the graph and its sinks do, seen from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod calls;
mod declared;
mod escaping;
mod file;
mod formats;
mod graph;
mod jlog;
mod levels;
mod limits;
mod messages;
mod model;
mod queue;
mod redaction;
mod sockets;
mod stuck;
mod syslog_input;
mod values;

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use logdag::{Graph, Rotation, SinkSpec, Stream, StreamOptions};

/// The lines of a ring, oldest first.
fn ring(graph: &Graph, name: &str) -> Vec<String> {
    let lines = graph.memory_last(name, usize::MAX).expect("a ring");
    lines.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect()
}

/// A stream that writes to a path.
fn typed(kind: &str, path: &Path, rotation: Rotation) -> StreamOptions {
    let path = path.to_str().unwrap().to_owned();
    let sink = SinkSpec { kind: kind.to_owned(), path, rotation, ..SinkSpec::default() };
    StreamOptions { sink: Some(sink), ..StreamOptions::default() }
}

/// Has several threads log numbered lines `thread number padding` to a stream.
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

/// Every line of every thread is there once, whole, and behind the one before it.
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

/// Does something that must not take for ever.
fn within<R: Send + 'static>(limit: Duration, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, waiting) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // Nobody waits any longer if this fails.
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
