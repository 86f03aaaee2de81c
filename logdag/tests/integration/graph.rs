//! Streams and outlets.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use logdag::{Flags, Graph, GraphError, Level, Location, Stream, StreamOptions, Value, log};

use super::{assert_complete, log_from_threads, ring};

fn outlets(graph: &Graph, name: &str) -> Vec<(String, Option<String>)> {
    graph.describe(name).unwrap().outlets
}

fn to(name: &str) -> Vec<(String, Option<String>)> {
    vec![(name.to_owned(), None)]
}

#[test]
fn what_is_there_from_the_start() {
    let graph = Graph::new();
    assert_eq!(graph.names(), ["debug", "error", "error/stacktrace", "notice", "stderr"]);
    for (name, outlet) in
        [("error", "stderr"), ("notice", "stderr"), ("debug", "stderr"), ("error/stacktrace", "error")]
    {
        assert_eq!(outlets(&graph, name), to(outlet), "{name}");
        assert_eq!(graph.describe(name).unwrap().enabled, name != "debug");
        assert_eq!(graph.find(name).unwrap().is_enabled(), name != "debug");
    }
    let stderr = graph.describe("stderr").unwrap();
    assert_eq!(stderr.kind, "stderr");
    assert_eq!(stderr.flags, Flags::new().timestamps(true));
}

#[test]
fn parents_are_made_on_the_way() {
    let graph = Graph::new();
    assert!(graph.find("error/foo").is_none());
    let deep = graph.stream("error/foo/bar").unwrap();
    assert_eq!(&*deep.name(), "error/foo/bar");
    assert_eq!(outlets(&graph, "error/foo/bar"), to("error/foo"));
    assert_eq!(outlets(&graph, "error/foo"), to("error"));
    assert!(deep.is_enabled());
    let top = graph.stream("top").unwrap();
    assert!(graph.describe("top").unwrap().enabled && !top.is_enabled());
    assert_eq!(outlets(&graph, "top"), []);
    for wrong in ["", "/", "a/", "/a", "a//b", "a\nb"] {
        assert!(matches!(graph.stream(wrong), Err(GraphError::Name(_))), "{wrong:?}");
        assert!(graph.connect("top", wrong, None).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_parent_that_comes_first_gets_lines_of_what_is_below() {
    let graph = Graph::new();
    graph.add_memory("a", 10, 1000).unwrap();
    log!(graph.stream("a/b/c").unwrap(), "from below");
    assert_eq!(ring(&graph, "a"), ["from below"]);
}

#[test]
fn two_paths_deliver_twice() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    for (from, to) in [("a", "left"), ("a", "right"), ("left", "ring"), ("right", "ring")] {
        graph.connect(from, to, None).unwrap();
    }
    log!(graph.stream("a").unwrap(), "x");
    assert_eq!(ring(&graph, "ring"), ["x", "x"]);
    assert_eq!(graph.remove_outlet("left", "ring"), 1);
    log!(graph.stream("a").unwrap(), "y");
    assert_eq!(ring(&graph, "ring"), ["x", "x", "y"]);
}

/// How long a line takes that reaches an edge with a slow filter on this many paths, and does not
/// pass it.
fn time_over_one_edge(ways: usize) -> Duration {
    let graph = Graph::new();
    graph.add_memory("ring", 1000, 1_000_000).unwrap();
    graph.add_outlet("shared", "ring", Some(r"message ~ '(\\w\\w)(?=\\1c)'")).unwrap();
    for way in 0..ways {
        graph.connect("a", &format!("way{way}"), None).unwrap();
        graph.connect(&format!("way{way}"), "shared", None).unwrap();
    }
    let stream = graph.stream("a").unwrap();
    let line = "ab".repeat(100_000);
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        log!(stream, "{line}");
        least = least.min(begun.elapsed());
    }
    assert_eq!(ring(&graph, "ring"), Vec::<String>::new());
    log!(stream, "ababc");
    assert_eq!(ring(&graph, "ring"), vec!["ababc"; ways]);
    least
}

#[test]
fn a_filter_is_evaluated_once_however_many_ways_lead_over_it() {
    let (one, many) = (time_over_one_edge(1), time_over_one_edge(50));
    assert!(one > Duration::from_micros(200), "the filter is too fast to tell: {one:?}");
    assert!(many < one * 10, "{many:?} for fifty ways, {one:?} for one");
}

#[test]
fn a_cycle_is_refused_and_nothing_changes() {
    let graph = Graph::new();
    graph.connect("a", "b", None).unwrap();
    graph.connect("b", "c", None).unwrap();
    let before: Vec<_> = graph.names().iter().map(|name| outlets(&graph, name)).collect();
    let names = graph.names();
    let Err(GraphError::Cycle { from, to, path }) = graph.connect("c", "a", None) else { panic!() };
    assert_eq!((&*from, &*to, &*path), ("c", "a", "c -> a -> b -> c"));
    let text = graph.connect("a", "a", None).unwrap_err().to_string();
    assert!(text.contains("a -> a"), "{text}");
    // A stream leads to the one above it: this closes a cycle with streams that do not exist yet.
    assert!(matches!(graph.connect("new", "new/sub", None), Err(GraphError::Cycle { .. })));
    assert_eq!(graph.names(), names);
    assert_eq!(graph.names().iter().map(|name| outlets(&graph, name)).collect::<Vec<_>>(), before);
}

/// Streams are set up one by one, as by a program without a configuration.
#[test]
fn many_streams_are_set_up_in_a_time_that_grows_with_their_number() {
    let graph = Graph::new();
    graph.add_memory("all", 100, 10_000).unwrap();
    let begun = Instant::now();
    // When each call copied the graph, these took hours.
    for n in 0..20_000 {
        let name = format!("many/{n}");
        graph.configure(&name, StreamOptions::new()).unwrap();
        graph.add_outlet(&name, "all", None).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(120), "{n}");
    }
    // Streams below it change with it.
    graph.set_enabled("all", false).unwrap();
    assert!(!graph.find("many/7").unwrap().is_enabled());
    graph.set_enabled("all", true).unwrap();
    log!(graph.find("many/7").unwrap(), "7");
    graph.add_memory("many", 100, 10_000).unwrap();
    log!(graph.find("many/8").unwrap(), "8");
    assert_eq!((ring(&graph, "all"), ring(&graph, "many")), (vec!["7".into(), "8".into()], vec!["8".into()]));
}

#[test]
fn an_outlet_that_is_refused_leaves_nothing_behind() {
    let graph = Graph::new();
    let ring_of_all = graph.add_memory("ring", 100, 10_000).unwrap();
    for n in 1..1000 {
        graph.add_outlet(&n.to_string(), &(n - 1).to_string(), None).unwrap();
    }
    graph.add_outlet("0", "ring", None).unwrap_err();
    graph.add_outlet("0", "new/a", None).unwrap_err();
    assert!(matches!(graph.add_outlet("new/b", "999", None), Err(GraphError::TooLarge(_))));
    assert!(graph.find("new").is_none() && outlets(&graph, "0").is_empty());
    // A shorter path may be extended.
    graph.remove_outlet("999", "998");
    graph.add_outlet("0", "ring", None).unwrap();
    log!(graph.find("998").unwrap(), "a");
    log!(ring_of_all, "b");
    assert_eq!(ring(&graph, "ring"), ["a", "b"]);
    assert!(matches!(graph.add_outlet("ring", "998", None), Err(GraphError::Cycle { .. })));
    assert!(outlets(&graph, "ring").is_empty());
}

#[test]
fn disabled_streams_pass_nothing_on() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.connect("a", "b", None).unwrap();
    graph.connect("b", "ring", None).unwrap();
    let stream = graph.stream("a").unwrap();
    for (name, line) in [("a", 0), ("b", 1), ("ring", 2)] {
        graph.set_enabled(name, false).unwrap();
        assert!(!stream.is_enabled(), "{name}");
        log!(stream, "not this");
        graph.set_enabled(name, true).unwrap();
        assert!(stream.is_enabled(), "{name}");
        log!(stream, "{line}");
    }
    assert_eq!(ring(&graph, "ring"), ["0", "1", "2"]);
    assert!(matches!(graph.set_enabled("none", true), Err(GraphError::UnknownStream(_))));
}

#[test]
fn flags_add_up_on_the_way() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.connect("a", "b", None).unwrap();
    graph.connect("b", "ring", None).unwrap();
    let stream = graph.stream("a").unwrap();
    let say = || stream.log(Level::Info, &Location { file: "x.rs", line: 3 }, &[], &format_args!("m"));
    say();
    graph.set_flags("b", Flags::new().facility(true)).unwrap();
    say();
    graph.set_flags("a", Flags::new().debug(true)).unwrap();
    say();
    graph.set_flags("ring", Flags::new().timestamps(true)).unwrap();
    say();
    let lines = ring(&graph, "ring");
    assert_eq!(lines[..2], ["m", "[a] m"]);
    assert!(lines[2].starts_with("[a] [t@") && lines[2].ends_with(",x.rs:3] m"), "{}", lines[2]);
    assert_eq!(lines[3].find("] [a] [t@"), Some("[2000-01-01 00:00:00.000000".len()), "{}", lines[3]);
}

#[test]
fn lines_go_on_while_the_graph_changes() {
    const LINES: usize = 10_000;
    let graph = Graph::new();
    graph.add_memory("ring", 1_000_000, 100_000_000).unwrap();
    graph.connect("kept", "ring", None).unwrap();
    let stream = graph.stream("kept").unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let changing = std::thread::spawn({
        let (graph, ended) = (graph.clone(), Arc::clone(&ended));
        move || {
            let mut rounds = 0;
            while !ended.load(Ordering::Relaxed) {
                graph.add_memory("extra", 1_000_000, 100_000_000).unwrap();
                graph.add_outlet("kept", "middle/extra", Some("message ~ '^[0-9]'")).unwrap();
                graph.connect("middle", "extra", None).unwrap();
                graph.set_enabled("middle", rounds % 2 == 0).unwrap();
                for line in ring(&graph, "extra") {
                    assert_eq!(line.split(' ').count(), 3, "a torn line: {line:?}");
                }
                graph.remove_outlet("kept", "middle/extra");
                assert!(graph.remove("extra"));
                assert!(graph.remove("middle/extra") && graph.remove("middle"));
                rounds += 1;
            }
            rounds
        }
    });
    log_from_threads(&stream, 4, LINES);
    ended.store(true, Ordering::Relaxed);
    assert!(changing.join().unwrap() > 0);
    let lines = ring(&graph, "ring");
    assert_complete(lines.iter().map(|line| &**line), 4, LINES);
}

#[test]
fn whoever_has_a_removed_stream_logs_to_nowhere() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.connect("a", "ring", None).unwrap();
    let stream = graph.stream("a").unwrap();
    assert!(graph.remove("a") && !graph.remove("a"));
    assert!(!stream.is_enabled());
    log!(stream, "lost");
    assert_eq!(ring(&graph, "ring"), Vec::<String>::new());
}

#[test]
fn lines_go_no_more_over_outlets_that_were_removed() {
    let graph = Graph::new();
    for name in ["one", "two"] {
        graph.add_memory(name, 10, 1000).unwrap();
    }
    for (to, filter) in [("one", Some("message ~ 'b'")), ("two", None)] {
        graph.add_outlet("a", to, filter).unwrap();
    }
    let below = graph.stream("a/b").unwrap();
    log!(below, "ab");
    assert_eq!((ring(&graph, "one"), ring(&graph, "two")), (vec!["ab".to_owned()], vec!["ab".to_owned()]));
    // An outlet with a filter is removed, too; others stay.
    assert_eq!(graph.remove_outlet("a", "one"), 1);
    assert_eq!(graph.remove_outlet("a", "one"), 0);
    assert_eq!(outlets(&graph, "a"), to("two"));
    log!(below, "bc");
    assert_eq!((ring(&graph, "one").len(), ring(&graph, "two")), (1, vec!["ab".into(), "bc".to_owned()]));
    graph.add_outlet("a", "one", None).unwrap();
    assert_eq!(graph.remove_outlets("a"), 2);
    assert_eq!(graph.remove_outlets("a"), 0);
    assert_eq!(outlets(&graph, "a"), []);
    assert!(!below.is_enabled());
    log!(below, "to nowhere");
    assert_eq!((ring(&graph, "one").len(), ring(&graph, "two").len()), (1, 2));
    // The stream and the outlets to it exist as before.
    assert_eq!(outlets(&graph, "a/b"), to("a"));
    graph.add_outlet("a", "two", None).unwrap();
    log!(below, "again");
    assert_eq!(ring(&graph, "two"), ["ab", "bc", "again"]);
    assert_eq!((graph.remove_outlet("none", "one"), graph.remove_outlet("a", "none")), (0, 0));
    assert_eq!(graph.remove_outlets("none"), 0);
    assert!(graph.find("none").is_none());
}

#[test]
fn arguments_are_evaluated_only_where_the_line_gets_somewhere() {
    let graph = Graph::new();
    let stream = graph.stream("a").unwrap();
    let evaluated = Cell::new(0);
    let argument = || {
        evaluated.set(evaluated.get() + 1);
        5u64
    };
    log!(stream, n = argument(); "{}", argument());
    assert_eq!(evaluated.get(), 0);
    graph.add_memory("a", 10, 1000).unwrap();
    log!(stream, n = argument(); "{}", argument());
    assert_eq!(evaluated.get(), 2);
    assert_eq!(ring(&graph, "a"), ["5"]);
}

/// A value that counts how often it is formatted, and logs meanwhile.
struct Talks(Stream, AtomicUsize);

impl fmt::Display for Talks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.fetch_add(1, Ordering::Relaxed);
        log!(self.0, "from within");
        f.write_str("outer")
    }
}

#[test]
fn what_logs_while_it_is_formatted_does_not_recurse() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 1000).unwrap();
    let talks = Talks(stream.clone(), AtomicUsize::new(0));
    log!(stream, "{talks}");
    log!(stream, "afterwards");
    assert_eq!(ring(&graph, "ring"), ["outer", "afterwards"]);
    assert_eq!(talks.1.load(Ordering::Relaxed), 1);
}

#[test]
fn a_line_that_a_filter_stops_without_its_message_is_never_formatted() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.add_outlet("a", "ring", Some("status >= 500")).unwrap();
    let stream = graph.stream("a").unwrap();
    let talks = Talks(graph.stream("nowhere").unwrap(), AtomicUsize::new(0));
    log!(stream, status = 200; "{talks}");
    assert_eq!(talks.1.load(Ordering::Relaxed), 0);
    log!(stream, status = 500; "{talks}");
    assert_eq!(talks.1.load(Ordering::Relaxed), 1);
    assert_eq!(ring(&graph, "ring"), ["outer"]);
}

#[test]
fn hooks_hear_of_lines_and_stop_them() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 1000).unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    graph.add_hook({
        let heard = Arc::clone(&heard);
        move |record| {
            heard.fetch_add(1, Ordering::Relaxed);
            !record.message().contains("secret")
        }
    });
    graph.add_hook(|record| !record.keys.contains(&("private", Value::I64(1))));
    log!(stream, "open");
    log!(stream, "a secret");
    log!(stream, private = 1; "of keys");
    log!(stream, private = 2; "of other keys");
    assert_eq!(ring(&graph, "ring"), ["open", "of other keys"]);
    assert_eq!(heard.load(Ordering::Relaxed), 4);
}

#[test]
fn a_type_may_be_registered_later() {
    let graph = Graph::new();
    let sink = logdag::SinkSpec::new("mine", "5,50");
    let options = StreamOptions::new().sink(sink);
    let stream = graph.configure("a", options).unwrap();
    assert!(!stream.is_enabled());
    graph.register("mine", |spec| Ok(Arc::new(logdag::MemorySink::from_path(&spec.path).unwrap()))).unwrap();
    assert!(stream.is_enabled());
    log!(stream, "x");
    assert_eq!(ring(&graph, "a"), ["x"]);
}
