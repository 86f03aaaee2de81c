//! Handles of streams.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::streams::Node;
use crate::fork;
use crate::kept::KeptLine;
use crate::level::{Level, Threshold};
use crate::message::Message;
use crate::patience;
use crate::record::{Details, Location, Record, While, now_micros};
use crate::route::Route;
use crate::value::Value;

/// The time of a line without one.
const NOW: u64 = u64::MAX;

/// A stream to log to. Cheap to clone; stays valid when the graph changes.
#[derive(Clone)]
pub struct Stream {
    pub(super) node: Arc<Node>,
}

/// Lines of all streams that were left out since the last report, and the time of that report.
static UNREPORTED: AtomicU64 = AtomicU64::new(0);
static REPORTED: AtomicU64 = AtomicU64::new(0);
const REPORT_EVERY_MICROS: u64 = 10_000_000;

/// Counts a line that was left out because its thread was logging, and whose stream is not at hand.
/// A signal handler may do no more than this.
#[cfg(any(feature = "log", feature = "tracing"))]
#[cold]
pub(crate) fn count_reentrant() {
    UNREPORTED.fetch_add(1, Ordering::Relaxed);
}

/// Reports on stderr lines that were left out because their thread was logging, at most this often.
#[cold]
pub(super) fn report_reentrant(after_micros: u64) {
    let (now, last) = (now_micros(), REPORTED.load(Ordering::Relaxed));
    let due = last == 0 || now.saturating_sub(last) >= after_micros;
    if !due || REPORTED.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    let lines = UNREPORTED.swap(0, Ordering::Relaxed);
    if lines > 0 {
        let (lines, were) =
            if lines == 1 { ("1 line".to_owned(), "was") } else { (format!("{lines} lines"), "were") };
        // There is nowhere else to report it.
        patience::report(
            format!(
                "log: {lines} left out, which {were} logged while their thread was logging: in a signal handler, or within a \
                 sink, a filter or an argument\n"
            )
            .as_bytes(),
        );
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.name()).finish()
    }
}

impl Stream {
    /// A stream in no graph.
    pub(crate) fn with_route(route: Route) -> Self {
        Self { node: Node::new(route) }
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.node.route.load().facility)
    }

    /// Whether a line that is logged to it may reach a sink.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.accepts(Level::Error)
    }

    /// Whether a line of this level may reach a sink: the stream leads to one, and neither
    /// [`Graph::set_levels`](crate::Graph::set_levels) nor the filters on all ways exclude the
    /// level. The macro [`log!`](crate::log!) checks this first, and evaluates its arguments only
    /// then.
    #[inline]
    pub fn accepts(&self, level: Level) -> bool {
        Threshold::of_number(self.node.least.load(Ordering::Relaxed)).takes(level)
    }

    /// Logs a line with the current time; use [`log!`](crate::log!) to call it.
    ///
    /// A thread that is logging does not log again. A line that a signal handler, a sink, a filter
    /// or an argument logs meanwhile is left out, counted
    /// ([`StreamInfo::reentrant`](crate::StreamInfo::reentrant)) and reported on stderr. The same
    /// applies to a handler that interrupts its thread while it changes, describes or flushes a
    /// graph. So this library never deadlocks on its own locks. A signal handler that interrupts
    /// its thread elsewhere, for example within the allocator, must not log: like most functions,
    /// this one may allocate memory.
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

    /// Logs a line with another time, in microseconds since 1970 UTC.
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

    /// Logs a line with additional properties.
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
        if UNREPORTED.load(Ordering::Relaxed) > 0 {
            report_reentrant(REPORT_EVERY_MICROS);
        }
    }

    /// Arguments of two words come first, in registers, and are not stored before they are in the
    /// record: written to the stack as two words and read as one, they would stall the CPU.
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
        if UNREPORTED.load(Ordering::Relaxed) > 0 {
            report_reentrant(REPORT_EVERY_MICROS);
        }
    }

    /// Logs a line with the current time as one of another thread.
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

    /// Logs a line of the logging system about itself, without waiting for a sink: it may be about
    /// one that is stuck.
    pub(crate) fn report(&self, level: Level, message: &dyn Message) {
        if !self.accepts(level) {
            return;
        }
        fork::renew_if_forked();
        let Some(_reporting) = While::reporting() else { return };
        let route = self.node.route.load();
        let mut record = Record::at(None, &route.facility, message);
        record.level = level;
        route.run(&record);
    }

    /// Logs a line that was held, as a line of this stream.
    pub(crate) fn log_again(&self, line: &KeptLine) {
        let Some(_logging) = self.begin_line(line.level) else { return };
        let route = self.node.route.load();
        line.with_record(&route.facility, |record| route.run(record));
    }

    /// `None` if a line reaches no sink. Until the returned value is dropped, lines of this thread
    /// would come back to it, and are left out.
    #[inline]
    fn begin_line(&self, level: Level) -> Option<While> {
        if !self.accepts(level) {
            return None;
        }
        fork::renew_if_forked();
        let logging = While::logging();
        if logging.is_none() {
            // A signal handler may do no more than this.
            self.node.reentrant.fetch_add(1, Ordering::Relaxed);
            UNREPORTED.fetch_add(1, Ordering::Relaxed);
        }
        logging
    }
}
