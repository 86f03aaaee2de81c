//! Random graphs against an interpreter that walks them literally.

use logdag::{Flags, Graph, GraphError, Level, Location, Value};
use proptest::prelude::*;

use super::ring;

const STREAMS: usize = 8;
/// The meaning of a filter for a status and a message.
type Meaning = fn(usize, Option<i64>, &str) -> bool;
const FILTERS: [(&str, Meaning); 6] = [
    ("status >= 500", |_, status, _| status.is_some_and(|n| n >= 500)),
    ("status != 200", |_, status, _| status != Some(200)),
    ("not(exists(status))", |_, status, _| status.is_none()),
    ("message ~ '^a'", |_, _, message| message.starts_with('a')),
    ("facility = 's1'", |from, _, _| from == 1),
    ("or(message = 'b', and(status < 300, exists(status)))", |_, status, message| {
        message == "b" || status.is_some_and(|n| n < 300)
    }),
];

#[derive(Clone, Debug)]
enum Step {
    Connect(usize, usize, Option<usize>),
    Disconnect(usize, usize),
    Enable(usize, bool),
    Flags(usize, bool, bool),
    Line(usize, Option<i64>, &'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..STREAMS;
    prop_oneof![
        6 => (stream(), stream(), proptest::option::of(0..FILTERS.len()))
            .prop_map(|(from, to, filter)| Step::Connect(from, to, filter)),
        1 => (stream(), stream()).prop_map(|(from, to)| Step::Disconnect(from, to)),
        1 => (stream(), proptest::bool::weighted(0.7)).prop_map(|(s, on)| Step::Enable(s, on)),
        1 => (stream(), any::<bool>(), any::<bool>()).prop_map(|(s, f, d)| Step::Flags(s, f, d)),
        6 => (
            stream(),
            proptest::option::of(prop::sample::select(vec![100, 200, 404, 500, 503])),
            prop::sample::select(vec!["a", "ab", "b", "", "c\nd"]),
        )
            .prop_map(|(s, status, message)| Step::Line(s, status, message)),
    ]
}

struct Node {
    enabled: bool,
    flags: Flags,
    outlets: Vec<(usize, Option<usize>)>,
    /// The lines of its sink, if it has one.
    lines: Option<Vec<String>>,
}

struct Model {
    nodes: Vec<Node>,
    thread: String,
}

impl Model {
    fn reaches(&self, from: usize, to: usize) -> bool {
        from == to || self.nodes[from].outlets.iter().any(|&(next, _)| self.reaches(next, to))
    }

    fn deliver(&mut self, at: usize, flags: Flags, line: (usize, Option<i64>, &str)) {
        let node = &mut self.nodes[at];
        if !node.enabled {
            return;
        }
        let flags = flags.union(node.flags);
        let (from, status, message) = line;
        if let Some(lines) = &mut node.lines {
            let facility = if flags.facility { format!("[s{from}] ") } else { String::new() };
            let debug = if flags.debug { &*self.thread } else { "" };
            lines.push(format!("{facility}{debug}{message}"));
        }
        for (to, filter) in node.outlets.clone() {
            if filter.is_none_or(|filter| FILTERS[filter].1(from, status, message)) {
                self.deliver(to, flags, line);
            }
        }
    }

    fn enabled_below(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.enabled && (node.lines.is_some() || node.outlets.iter().any(|&(to, _)| self.enabled_below(to)))
    }
}

fn name(stream: usize) -> String {
    format!("s{stream}")
}

fn check(sinks: &[bool], steps: Vec<Step>) -> Result<(), TestCaseError> {
    let graph = Graph::new();
    let thread = std::thread::current();
    let thread = format!("[t@{}/{},m.rs:7] ", nix::unistd::gettid(), thread.name().unwrap_or(""));
    let mut model = Model { nodes: Vec::new(), thread };
    for (stream, &sink) in sinks.iter().enumerate() {
        if sink {
            graph.add_memory(&name(stream), 1_000_000, 100_000_000).unwrap();
        } else {
            graph.stream(&name(stream)).unwrap();
        }
        let lines = sink.then(Vec::new);
        model.nodes.push(Node { enabled: true, flags: Flags::default(), outlets: Vec::new(), lines });
    }
    let streams: Vec<_> = (0..STREAMS).map(|stream| graph.find(&name(stream)).unwrap()).collect();
    for step in steps {
        match step {
            Step::Connect(from, to, filter) => {
                let parsed = filter.map(|filter| logdag::Filter::parse(FILTERS[filter].0).unwrap());
                match graph.connect(&name(from), &name(to), parsed) {
                    Ok(()) => {
                        prop_assert!(!model.reaches(to, from));
                        let outlets = &mut model.nodes[from].outlets;
                        if outlets.iter().all(|&(known, _)| known != to) {
                            outlets.push((to, filter));
                        }
                    }
                    Err(GraphError::Cycle { path, .. }) => {
                        prop_assert!(model.reaches(to, from));
                        let ends = (path.starts_with(&name(from)), path.ends_with(&name(from)));
                        prop_assert_eq!(ends, (true, true), "{}", path);
                    }
                    Err(e) => prop_assert!(false, "{e}"),
                }
            }
            Step::Disconnect(from, to) => {
                let outlets = &mut model.nodes[from].outlets;
                let before = outlets.len();
                outlets.retain(|&(other, _)| other != to);
                prop_assert_eq!(graph.remove_outlet(&name(from), &name(to)), before - outlets.len());
            }
            Step::Enable(stream, enabled) => {
                graph.set_enabled(&name(stream), enabled).unwrap();
                model.nodes[stream].enabled = enabled;
            }
            Step::Flags(stream, facility, debug) => {
                let flags = Flags::new().facility(facility).debug(debug);
                graph.set_flags(&name(stream), flags).unwrap();
                model.nodes[stream].flags = flags;
            }
            Step::Line(stream, status, message) => {
                let keys: Vec<_> = status.map(|status| ("status", Value::I64(status))).into_iter().collect();
                streams[stream].log(
                    Level::Info,
                    &Location { file: "m.rs", line: 7 },
                    &keys,
                    &format_args!("{message}"),
                );
                model.deliver(stream, Flags::default(), (stream, status, message));
            }
        }
        for (stream, handle) in streams.iter().enumerate() {
            prop_assert_eq!(handle.is_enabled(), model.enabled_below(stream), "s{}", stream);
        }
    }
    for (stream, node) in model.nodes.into_iter().enumerate() {
        if let Some(lines) = node.lines {
            prop_assert_eq!(ring(&graph, &name(stream)), lines, "s{}", stream);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_lines_in_the_same_order(
        sinks in prop::collection::vec(proptest::bool::weighted(0.5), STREAMS),
        steps in prop::collection::vec(step(), 1..50),
    ) {
        check(&sinks, steps)?;
    }
}
