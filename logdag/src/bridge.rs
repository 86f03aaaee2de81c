//! Shared by the bridges from `log` and `tracing`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fork;
use crate::graph::{Graph, MAX_NAME, Stream, count_reentrant};
use crate::patience;
use crate::record::{Doing, While};
use crate::sync::plain::RwLock;

/// How many targets (or a few more) are remembered; further ones, and very long ones, are looked up
/// in the graph each time.
const MAX_KNOWN: usize = 4096;
/// The maximum number of streams that targets create: unbounded names (such as a request's number
/// in a target) must not take unbounded memory. Lines of further targets are logged to the nearest
/// existing parent stream.
const MAX_MADE: usize = 4096;

/// The streams of targets, so that the graph need not be asked for every event.
#[derive(Debug)]
pub(crate) struct Targets {
    graph: Graph,
    /// The table belongs to this process, not to a child, where the lock may be held by a thread
    /// that does not exist.
    forks: u32,
    known: RwLock<Known>,
    /// The number of streams that were created for targets.
    made: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// The streams are valid while the graph's counter is the same.
    of: u64,
    streams: HashMap<Box<str>, Stream>,
}

impl Targets {
    pub(crate) fn new(graph: Graph) -> Self {
        Self { graph, forks: fork::forks(), known: RwLock::default(), made: AtomicUsize::new(0) }
    }

    #[cfg(feature = "log")]
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The stream of a target; `None` if the graph refuses it.
    ///
    /// A signal handler may have interrupted its thread here, or while it holds a lock of the
    /// graph. Then this does not wait, and returns the stream only if that needs no lock. The line
    /// is left out in any case.
    pub(crate) fn stream(&self, target: &str) -> Option<Stream> {
        if Doing::now() != Doing::Other {
            return self.at_hand(target);
        }
        let _busy = While::busy();
        if fork::forks() != self.forks {
            return self.look_up(&stream_name(target));
        }
        let now = self.graph.names_changed();
        let full = {
            let known = self.known.read();
            if known.of == now
                && let Some(stream) = known.streams.get(target)
            {
                return Some(stream.clone());
            }
            known.of == now && known.streams.len() >= MAX_KNOWN
        };
        let stream = self.look_up(&stream_name(target))?;
        if !full && target.len() <= MAX_NAME {
            let mut known = self.known.write();
            if known.of != now {
                *known = Known { of: now, ..Known::default() };
            }
            known.streams.insert(target.into(), stream.clone());
        }
        Some(stream)
    }

    /// The same for a line, which is counted as left out if its stream is not returned.
    pub(crate) fn stream_of_line(&self, target: &str) -> Option<Stream> {
        let stream = self.stream(target);
        if stream.is_none() && Doing::now() != Doing::Other {
            count_reentrant();
        }
        stream
    }

    fn at_hand(&self, target: &str) -> Option<Stream> {
        if fork::forks() != self.forks {
            return None;
        }
        let known = self.known.try_read()?;
        known.streams.get(target).filter(|_| known.of == self.graph.names_changed()).cloned()
    }
}

impl Targets {
    /// The stream of this name, created if missing, or the nearest parent if too many have been
    /// created.
    fn look_up(&self, name: &str) -> Option<Stream> {
        if let Some(stream) = self.graph.find(name) {
            return Some(stream);
        }
        // Missing parents are created with it.
        let above = name.match_indices('/').filter(|&(at, _)| self.graph.find(&name[..at]).is_none());
        let new = 1 + above.count();
        let made = self.made.fetch_add(new, Ordering::Relaxed);
        if made < MAX_MADE {
            return self.graph.stream(name).ok();
        }
        // So that the counter never overflows.
        self.made.store(MAX_MADE + 1, Ordering::Relaxed);
        if made != MAX_MADE + 1 {
            // There is nowhere else to report it.
            patience::report(
                format!(
                    "log: targets have made {MAX_MADE} streams: lines of other targets, such as {name}, \
                     go to the nearest parent stream, or else to the stream log\n"
                )
                .as_bytes(),
            );
        }
        let above = name.rmatch_indices('/').find_map(|(at, _)| self.graph.find(&name[..at]));
        above.or_else(|| self.graph.stream(OTHER).ok())
    }
}

/// The stream of targets that name no stream.
const OTHER: &str = "log";

/// The stream of a target: `my_app::http` is `my_app/http`. Characters that cannot be part of a
/// name are left out.
fn stream_name(target: &str) -> String {
    let parts = target.split(['/', ':']).filter(|part| !part.is_empty());
    let mut name: String = parts.collect::<Vec<_>>().join("/").replace(char::is_control, "_");
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
    }
    let name = name.trim_end_matches('/');
    if name.is_empty() { OTHER.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_finds_the_stream_that_has_its_name_now() {
        let graph = Graph::new();
        graph.add_memory("app", 10, 1000).unwrap();
        let targets = Targets::new(graph.clone());
        let log = |text: &str| {
            let stream = targets.stream("app::http").unwrap();
            crate::log!(stream, "{text}");
        };
        let there = || -> Vec<Vec<u8>> {
            graph.memory_last("app", 10).unwrap().into_iter().map(|line| line.bytes).collect()
        };
        log("a");
        log("b");
        // A removed stream leads nowhere; the target now names a new one.
        graph.remove("app/http");
        log("c");
        graph.rename_stream("app/http", "other").unwrap();
        graph.remove_outlets("other");
        log("d");
        assert_eq!(there(), [b"a", b"b", b"c", b"d"]);
    }

    /// A signal handler may interrupt its thread within the table, or within the graph.
    #[test]
    fn a_handler_waits_for_no_lock_of_its_own_thread() {
        use std::sync::{Arc, mpsc};
        use std::time::Duration;

        let graph = Graph::new();
        graph.add_memory("app", 10, 1000).unwrap();
        let targets = Arc::new(Targets::new(graph.clone()));
        let known = targets.stream("app").unwrap();
        let held = targets.known.write();
        let (found, finding) = mpsc::channel();
        let theirs = Arc::clone(&targets);
        std::thread::spawn(move || {
            let busy = While::busy();
            let first = theirs.stream_of_line("app").map(|stream| stream.name());
            found.send(first).unwrap();
            drop(busy);
        });
        let first = finding.recv_timeout(Duration::from_secs(20)).expect("it waits for the table");
        assert_eq!(first, None);
        drop(held);

        // For a known stream, the line is counted; an unknown one is not created.
        let busy = While::busy();
        let names = graph.names().len();
        crate::log!(targets.stream_of_line("app").unwrap(), "in a handler");
        assert!(targets.stream_of_line("unknown").is_none());
        drop(busy);
        assert_eq!(graph.names().len(), names);
        assert_eq!(graph.describe("app").unwrap().reentrant, 1);
        assert!(graph.memory_last("app", 1).unwrap().is_empty());
        crate::log!(known, "behind it");
        assert_eq!(&*targets.stream_of_line("unknown").unwrap().name(), "unknown");
    }

    #[test]
    fn names_without_end_make_no_streams_without_end() {
        let graph = Graph::new();
        graph.add_memory("app", 100_000, 10_000_000).unwrap();
        graph.add_memory("log", 10, 1000).unwrap();
        let targets = Targets::new(graph.clone());
        for n in 0..20_000 {
            crate::log!(targets.stream(&format!("app::request::{n}")).unwrap(), "{n}");
        }
        let names = graph.names().len();
        assert!((MAX_MADE..MAX_MADE + 100).contains(&names), "{names}");
        let lines = graph.memory_last("app", 100_000).unwrap();
        let expected = (0..20_000).map(|n: usize| n.to_string().into_bytes());
        assert!(lines.into_iter().map(|line| line.bytes).eq(expected), "none is lost");
        // A known target keeps its stream, and one without a parent stream goes to the stream of
        // targets without a name.
        assert_eq!(&*targets.stream("app::request::7").unwrap().name(), "app/request/7");
        crate::log!(targets.stream("elsewhere").unwrap(), "from elsewhere");
        assert_eq!(graph.memory_last("log", 1).unwrap()[0].bytes, b"from elsewhere");
    }

    #[test]
    fn every_target_names_a_stream() {
        for (target, name) in [
            ("my_app::http", "my_app/http"),
            ("", "log"),
            ("https://x", "https/x"),
            ("a/", "a"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(stream_name(target), name, "{target:?}");
        }
        let graph = crate::Graph::new();
        for long in ["x".repeat(300), "é".repeat(200), format!("{}/b", "x".repeat(254))] {
            assert!(graph.stream(&stream_name(&long)).is_ok(), "{long}");
        }
    }
}
