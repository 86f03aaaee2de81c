//! Lines that are held until it is known whether anybody wants them.

use std::sync::Arc;

use super::handle::Graph;
use super::stream::Stream;
use crate::kept::Kept;
use crate::route::{Route, Step};

/// Lines that are logged provisionally, and then committed to a stream or discarded. Dropping this
/// without committing discards them.
///
/// ```
/// use logdag::{Graph, log};
///
/// let graph = Graph::new();
/// let errors = graph.add_memory("errors", 100, 10_000)?;
/// let details = graph.speculate(1000, 100_000);
/// log!(details.stream(), "read the request");
/// log!(details.stream(), "asked the database");
/// // Only now it turns out that the details are of interest.
/// assert_eq!(details.commit(&errors), 2);
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Debug)]
pub struct Speculation {
    stream: Stream,
    kept: Arc<Kept>,
}

impl Speculation {
    pub(crate) fn new(max_lines: usize, max_bytes: usize) -> Self {
        let kept = Arc::new(Kept::new(max_lines, max_bytes));
        let mut route = Route::new("speculation".into(), Arc::default());
        route.steps.push(Step::Keep(Arc::clone(&kept)));
        Self { stream: Stream::with_route(route), kept }
    }

    /// The stream to log to: private, in no graph.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many lines had to go because there was no room for them.
    pub fn dropped(&self) -> u64 {
        self.kept.dropped()
    }

    /// Logs the lines to a stream, oldest first and with their own times, threads and places;
    /// returns their number, or 0 if the stream leads nowhere, in which case they are discarded.
    /// Lines that are logged to [`stream`](Self::stream) afterwards are discarded.
    pub fn commit(self, to: &Stream) -> usize {
        if !to.is_enabled() {
            return 0;
        }
        let lines = self.kept.take();
        for line in &lines {
            to.log_again(line);
        }
        lines.len()
    }

    /// Discards the lines; returns their number.
    pub fn roll_back(self) -> usize {
        self.len()
    }
}

impl Graph {
    /// A private stream whose lines are held until it is known whether anybody wants them: the last
    /// `max_lines`, with at most `max_bytes` of text.
    pub fn speculate(&self, max_lines: usize, max_bytes: usize) -> Speculation {
        Speculation::new(max_lines, max_bytes)
    }
}
