//! What lines are logged to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::streams::Node;
use crate::lines::Pipe;
use crate::record::{Level, Record, Value, While, with_thread};
use crate::route::Route;
use crate::speculation::KeptLine;

/// The time of a line that nobody has given one.
const NOW: u64 = u64::MAX;

/// A stream to log to. Cheap to clone; works on when the graph changes.
#[derive(Clone)]
pub struct Stream {
    pub(super) node: Arc<Node>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.name()).finish()
    }
}

impl Stream {
    /// One in no graph.
    pub(crate) fn with_route(route: Route) -> Self {
        Self { node: Node::new(route) }
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.node.route.load().facility)
    }

    /// Whether a line that is logged to it gets anywhere. The macro [`log!`](crate::log!) asks first, and evaluates
    /// nothing where it does not.
    #[inline]
    pub fn is_material(&self) -> bool {
        self.node.material.load(Ordering::Relaxed)
    }

    /// Logs a line of this moment; [`log!`](crate::log!) is the way to call it.
    #[inline]
    pub fn log(
        &self,
        level: Level,
        file: &str,
        line: u32,
        keys: &[(&str, Value<'_>)],
        arguments: fmt::Arguments<'_>,
    ) {
        self.log_line(keys, file, &arguments, NOW, level, line);
    }

    /// Logs a line of another moment, in microseconds since 1970 UTC.
    pub fn log_at(
        &self,
        micros: u64,
        level: Level,
        file: &str,
        line: u32,
        keys: &[(&str, Value<'_>)],
        arguments: fmt::Arguments<'_>,
    ) {
        self.log_line(keys, file, &arguments, micros.min(NOW - 1), level, line);
    }

    /// What takes two words comes first, in registers: written to the stack as two and read as one, it would have to wait.
    fn log_line(
        &self,
        keys: &[(&str, Value<'_>)],
        file: &str,
        arguments: &fmt::Arguments<'_>,
        micros: u64,
        level: Level,
        line: u32,
    ) {
        self.with_route_of_a_line(|route| {
            with_thread(|thread_id, thread_name| {
                let mut record = Record::at((micros != NOW).then_some(micros), &route.facility, arguments);
                (record.thread_id, record.thread_name) = (thread_id, thread_name);
                (record.level, record.file, record.line, record.keys) = (level, file, line, keys);
                record.asked_once = route.steps.len() == 1;
                route.run(&record);
            });
        });
    }

    /// Logs a line that was kept, as a line of this stream.
    pub(crate) fn log_again(&self, line: &KeptLine) {
        self.with_route_of_a_line(|route| line.with_record(&route.facility, |record| route.run(record)));
    }

    fn with_route_of_a_line(&self, work: impl FnOnce(&Route)) {
        if !self.is_material() {
            return;
        }
        // What this thread logs from here on would come back to it.
        let Some(_logging) = While::logging() else { return };
        work(&self.node.route.load());
    }

    /// A file descriptor for a child process: its lines are logged to this stream.
    ///
    /// # Errors
    /// No more file descriptors, or no more threads.
    pub fn pipe(&self) -> io::Result<Pipe> {
        Pipe::new(self.clone())
    }
}
