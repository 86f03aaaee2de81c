//! Filters on messages.

use logdag::input::JsonLines;

use crate::Outgoing;

/// An expression over the keys of messages that are JSON objects, in the grammar of
/// [`logdag::filter`]: `and(level >= 'warn', user.id = 7)`.
///
/// `level`, `timestamp` and `message` are found as [`JsonLines`] finds them, under their usual
/// names (`severity`, `time`, `msg`, …). A message without them has the level `info` and the time
/// at which it was written. `facility`, `file`, `line`, `threadid` and `threadname` are the keys of
/// these names. If a message is not a JSON object, `message` is its text and there are no keys:
/// `exists(user)` is false then, and `user != 'x'` is true.
///
/// ```
/// use jlog_ship::{Filter, Shipper};
///
/// let filter = Filter::parse("status >= 500")?;
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("s", jlog_core::Start::Beginning)?; log.writer()?.append_batch(&["x", "{\"status\":503}"])?;
/// let shipper = Shipper::new(log.path(), "s")?.once(true).filter(move |message| filter.passes(message));
/// let totals = shipper.run(Box::new(jlog_ship::destinations::Feed::new(dir.path().join("errors"))))?;
/// assert_eq!((totals.read, totals.filtered, totals.acknowledged), (2, 1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter(logdag::Filter);

impl Filter {
    /// Parses an expression.
    ///
    /// # Errors
    /// A text with the column (from 1) and what was expected there.
    pub fn parse(text: &str) -> Result<Self, logdag::FilterError> {
        logdag::Filter::parse(text).map(Self)
    }

    /// Whether a message is shipped.
    pub fn passes(&self, message: &Outgoing) -> bool {
        let text = String::from_utf8_lossy(&message.body);
        JsonLines::new().with_record(&text, message.id.time.as_micros(), |record| self.0.passes(record))
    }
}
