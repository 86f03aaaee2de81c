//! What lines are logged to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fork;
use super::streams::Node;
use crate::level::{Level, Threshold};
use crate::lines::Pipe;
use crate::message::Message;
use crate::record::{Details, Location, Record, While};
use crate::route::Route;
use crate::speculation::KeptLine;
use crate::value::Value;

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

    /// Whether a line that is logged to it may get anywhere.
    #[inline]
    pub fn is_material(&self) -> bool {
        self.takes(Level::Error)
    }

    /// Whether a line of this level may get anywhere: it leads to a sink, and neither the levels that the graph was told
    /// ([`Graph::set_levels`](crate::Graph::set_levels)) nor the filters on all ways keep back whatever has this level. The
    /// macro [`log!`](crate::log!) asks first, and evaluates nothing where it does not.
    #[inline]
    pub fn takes(&self, level: Level) -> bool {
        Threshold::of_number(self.node.least.load(Ordering::Relaxed)).takes(level)
    }

    /// Logs a line of this moment; [`log!`](crate::log!) is the way to call it.
    #[inline]
    pub fn log(
        &self,
        level: Level,
        location: &Location<'_>,
        keys: &[(&str, Value<'_>)],
        message: &dyn Message,
    ) {
        self.log_line(keys, message, location, NOW, level);
    }

    /// Logs a line of another moment, in microseconds since 1970 UTC.
    pub fn log_at(
        &self,
        micros: u64,
        level: Level,
        location: &Location<'_>,
        keys: &[(&str, Value<'_>)],
        message: &dyn Message,
    ) {
        self.log_line(keys, message, location, micros.min(NOW - 1), level);
    }

    /// Logs a line of which more is known.
    pub fn log_with(
        &self,
        details: &Details<'_>,
        level: Level,
        location: &Location<'_>,
        keys: &[(&str, Value<'_>)],
        message: &dyn Message,
    ) {
        let Some(_logging) = self.begin_line(level) else { return };
        let route = self.node.route.load();
        let mut record = Record::at(details.micros, &route.facility, message);
        (record.location, record.level, record.keys) = (location, level, keys);
        record.details = details;
        record.asked_once = route.steps.len() == 1;
        route.run(&record);
    }

    /// What takes two words comes first, in registers, and is not kept anywhere before it is in the record: written to the
    /// stack as two and read as one, it would have to wait.
    fn log_line(
        &self,
        keys: &[(&str, Value<'_>)],
        message: &dyn Message,
        location: &Location<'_>,
        micros: u64,
        level: Level,
    ) {
        let Some(_logging) = self.begin_line(level) else { return };
        let route = self.node.route.load();
        let mut record = Record::at((micros != NOW).then_some(micros), &route.facility, message);
        (record.location, record.level, record.keys) = (location, level, keys);
        record.asked_once = route.steps.len() == 1;
        route.run(&record);
    }

    /// Logs a line of this moment as one of another thread.
    pub(crate) fn log_of_thread(
        &self,
        id: u32,
        name: &str,
        level: Level,
        location: &Location<'_>,
        message: &dyn Message,
    ) {
        let Some(_logging) = self.begin_line(level) else { return };
        let route = self.node.route.load();
        let mut record = Record::at(None, &route.facility, message);
        (record.location, record.level) = (location, level);
        record.set_thread(id, name);
        route.run(&record);
    }

    /// Logs a line that was kept, as a line of this stream.
    pub(crate) fn log_again(&self, line: &KeptLine) {
        let Some(_logging) = self.begin_line(line.level) else { return };
        let route = self.node.route.load();
        line.with_record(&route.facility, |record| route.run(record));
    }

    /// `None` where a line gets nowhere. What this thread logs until what this returns is dropped would come back to it.
    #[inline]
    fn begin_line(&self, level: Level) -> Option<While> {
        if !self.takes(level) {
            return None;
        }
        fork::renew_if_forked();
        While::logging()
    }

    /// A file descriptor for a child process: its lines are logged to this stream.
    ///
    /// # Errors
    /// No more file descriptors, or no more threads.
    pub fn pipe(&self) -> io::Result<Pipe> {
        Pipe::new(self.clone())
    }
}
