//! Graphs of log streams.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use logdag::{Description, Graph};
use parking_lot::Mutex;

/// A sink that has lost lines counts as failing for so long.
const FAILING_FOR: Duration = Duration::from_secs(60);

/// All graphs.
pub(crate) struct Graphs {
    graphs: Vec<(String, Graph)>,
    /// Of each stream, by the number of its graph and its name.
    losses: Mutex<BTreeMap<(usize, String), Losses>>,
}

/// Lines that a stream had lost when it was last looked at, and when that last grew.
#[derive(Clone, Copy, Default)]
struct Losses {
    lines: u64,
    grew: Option<Instant>,
}

/// What there is of a graph.
pub(crate) struct GraphView {
    /// Its name; empty for the only one.
    pub(crate) name: String,
    pub(crate) streams: Vec<StreamView>,
}

/// What there is of a stream.
pub(crate) struct StreamView {
    pub(crate) description: Description,
    /// Whether its sink has lost lines within the last minute.
    pub(crate) failing: bool,
}

impl Graphs {
    pub(crate) fn new(graphs: Vec<(String, Graph)>) -> Self {
        Self { graphs, losses: Mutex::default() }
    }

    /// The graphs themselves.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Graph> {
        self.graphs.iter().map(|(_, graph)| graph)
    }

    /// What there is of every graph. No sink is asked.
    pub(crate) fn look(&self) -> Vec<GraphView> {
        let now = Instant::now();
        let mut losses = self.losses.lock();
        let before = std::mem::take(&mut *losses);
        let look = |(n, (name, graph)): (usize, &(String, Graph))| {
            let look = |description: Description| {
                let key = (n, description.name.clone());
                let lost = description.counters.failed + description.counters.dropped;
                let known = before.get(&key).copied().unwrap_or_default();
                let grew = if lost > known.lines { Some(now) } else { known.grew };
                losses.insert(key, Losses { lines: lost, grew });
                let failing = grew.is_some_and(|at| now.saturating_duration_since(at) < FAILING_FOR);
                StreamView { description, failing }
            };
            let streams = graph.describe_all().into_iter().map(look).collect();
            GraphView { name: name.clone(), streams }
        };
        self.graphs.iter().enumerate().map(look).collect()
    }
}
