//! Reports of what outlet limits have left out, logged to the outlets' targets.
//!
//! A report comes before the next line that passes, and with a flush. If the graph has threads, one
//! of them reports without waiting for either. A report never waits for a full queue or a busy
//! sink.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::handle::Graph;
use super::streams::Streams;
use crate::filter::{Filter, LeftOut};
use crate::fork;
use crate::level::Level;
use crate::record::{Record, While, now_micros};
use crate::route::Route;
use crate::sync::{Mutex, spawn};

/// How often the thread checks for something to report.
const EVERY: Duration = Duration::from_secs(1);

/// Reports and their targets.
pub(super) struct Reports(Vec<(String, String, Arc<Route>)>);

/// Takes what limits have left out; `unreported` gets it for one outlet.
pub(super) fn take(streams: &Streams, unreported: impl Fn(&Filter) -> Option<LeftOut>) -> Reports {
    let outlets = streams.by_name.iter().flat_map(|(name, state)| {
        let filters = state.outlets.iter().filter_map(|outlet| Some((&outlet.to, outlet.filter.as_ref()?)));
        filters.map(move |(to, filter)| (name, to, filter))
    });
    let report = |(name, to, filter): (&String, &String, &Arc<Filter>)| {
        let node = &streams.by_name.get(to)?.node;
        Some((name.clone(), unreported(filter)?.to_string(), Arc::clone(&*node.route.load())))
    };
    Reports(outlets.filter_map(report).collect())
}

impl Reports {
    /// Logs them. Requires: this thread does not log.
    pub(super) fn log(self) {
        for (name, text, route) in self.0 {
            let mut record = Record::new(now_micros(), &name, &text);
            record.level = Level::Warn;
            route.run(&record);
        }
    }
}

impl Graph {
    /// Logs what limits have left out.
    pub(super) fn report_left_out(&self) {
        // In the middle of a line, the report would come back to it.
        let Some(_reporting) = While::reporting() else { return };
        let reports = take(&self.streams(), Filter::unreported);
        reports.log();
    }

    /// Starts the thread that reports what limits leave out, if the graph has threads and limits.
    pub(super) fn report_in_time(&self) {
        let mut streams = self.streams();
        // A model checker's thread that sleeps forever would block the others.
        if streams.reporting || !is_wanted(&streams) || cfg!(feature = "shuttle") {
            return;
        }
        let graph = Arc::downgrade(&self.inner.streams);
        // Without a thread, reports come with the next line or flush.
        streams.reporting = spawn("log-limits".to_owned(), move || report_every_second(&graph)).is_ok();
    }
}

fn is_wanted(streams: &Streams) -> bool {
    let mut outlets = streams.by_name.values().flat_map(|state| &state.outlets);
    streams.asynchronous
        && outlets.any(|outlet| outlet.filter.as_ref().is_some_and(|filter| filter.is_limited()))
}

/// The thread's work. It does not keep a graph alive, because dropping its last handle waits for
/// its queues.
fn report_every_second(graph: &Weak<Mutex<Streams>>) {
    let Some(_reporting) = While::reporting() else { return };
    loop {
        std::thread::sleep(EVERY);
        let Some(graph) = graph.upgrade() else { return };
        let reports = {
            let _inside = fork::enter();
            let mut streams = graph.lock();
            if !is_wanted(&streams) {
                streams.reporting = false;
                return;
            }
            take(&streams, Filter::unreported_if_due)
        };
        drop(graph);
        reports.log();
    }
}
