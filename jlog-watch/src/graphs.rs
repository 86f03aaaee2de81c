//! Graphs of log streams.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use logdag::{Graph, StreamInfo};
use parking_lot::Mutex;

use crate::rate::Rate;

/// How long a sink that has lost lines counts as failing.
const FAILING_FOR: Duration = Duration::from_secs(60);

/// All graphs.
pub(crate) struct Graphs {
    graphs: Vec<(String, Graph)>,
    /// The history of each stream, by the number of its graph and its name.
    histories: Mutex<BTreeMap<(usize, String), History>>,
}

/// What is remembered of a stream: how many lines it had lost at the last look, when that number
/// last grew, and the lines that it writes per second.
#[derive(Clone, Copy, Default)]
struct History {
    lost: u64,
    grew: Option<Instant>,
    rate: Rate,
}

/// The state of a graph.
pub(crate) struct GraphView {
    /// Its name; empty if it is the only one.
    pub(crate) name: String,
    pub(crate) streams: Vec<StreamView>,
    /// The metrics that count its lines.
    pub(crate) metrics: Vec<logdag::MetricValues>,
}

/// The state of a stream.
pub(crate) struct StreamView {
    pub(crate) description: StreamInfo,
    /// Whether its sink has lost lines within the last minute.
    pub(crate) failing: bool,
    /// Lines that its sink writes per second.
    pub(crate) rate: Option<f64>,
}

impl GraphView {
    /// Why lines that are logged to a stream lead nowhere; `None` if they reach a sink.
    pub(crate) fn why_immaterial(&self, stream: &StreamInfo) -> Option<&'static str> {
        if !stream.enabled {
            return Some("it is disabled");
        }
        if stream.enabled_below {
            return None;
        }
        let (mut known, mut ahead) = (BTreeSet::new(), vec![stream]);
        while let Some(stream) = ahead.pop() {
            if !stream.kind.is_empty() {
                return Some("its outlets lead to streams that are disabled or accept none of its lines");
            }
            if known.insert(&*stream.name) {
                let outlets = stream.outlets.iter().map(|(to, _)| to);
                ahead.extend(outlets.filter_map(|to| {
                    let at = self.streams.binary_search_by(|other| other.description.name.cmp(to)).ok()?;
                    Some(&self.streams[at].description)
                }));
            }
        }
        Some("it leads to no sink")
    }
}

impl Graphs {
    pub(crate) fn new(graphs: Vec<(String, Graph)>) -> Self {
        Self { graphs, histories: Mutex::default() }
    }

    /// The graphs themselves.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Graph> {
        self.graphs.iter().map(|(_, graph)| graph)
    }

    /// The same with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Graph)> {
        self.graphs.iter().map(|(name, graph)| (&**name, graph))
    }

    /// The state of every graph. Sinks are not queried.
    pub(crate) fn look(&self) -> Vec<GraphView> {
        let now = Instant::now();
        let mut histories = self.histories.lock();
        let before = std::mem::take(&mut *histories);
        let look = |(n, (name, graph)): (usize, &(String, Graph))| {
            let look = |description: StreamInfo| {
                let key = (n, description.name.clone());
                let lost = description.counters.failed + description.counters.dropped;
                // It is not known when lines were lost before the first look.
                let known = before.get(&key).copied().unwrap_or(History { lost, ..History::default() });
                let grew = if lost > known.lost { Some(now) } else { known.grew };
                let mut rate = known.rate;
                #[expect(clippy::cast_precision_loss, reason = "rates need not be exact")]
                rate.look(now, description.counters.lines as f64);
                histories.insert(key, History { lost, grew, rate });
                let failing = grew.is_some_and(|at| now.saturating_duration_since(at) < FAILING_FOR);
                StreamView { description, failing, rate: rate.per_second() }
            };
            let streams = graph.describe_all().into_iter().map(look).collect();
            GraphView { name: name.clone(), streams, metrics: graph.metrics() }
        };
        self.graphs.iter().enumerate().map(look).collect()
    }
}
