//! Lines that are JSON objects.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::format::last_of_each;
use crate::graph::Stream;
use crate::level::Level;
use crate::record::{Details, Location, MESSAGE_KEYS, Record, now_micros};
use crate::value::{Members, Parsed, Value};

/// Keys for the level.
const LEVEL_KEYS: [&str; 2] = ["level", "severity"];
/// Keys for the time, in this order.
const TIME_KEYS: [&str; 4] = ["timestamp", "@timestamp", "time", "ts"];
/// Numbers from the year 2000 on, in seconds since 1970, are taken for times. Smaller numbers may
/// be durations.
const FIRST_SECOND: f64 = 946_684_800.0;

/// Logs lines that are JSON objects as events: their members become keys, with their types.
///
/// The event's own level (`level` or `severity`, a name or a number of pino, bunyan or syslog) and
/// its own time (`timestamp`, `@timestamp`, `time` or `ts`; RFC 3339, or seconds, milli-, micro- or
/// nanoseconds since 1970) become those of the line. A line that is not a JSON object is logged
/// unchanged.
///
/// ```
/// use logdag::{Graph, input::JsonLines};
///
/// let graph = Graph::new();
/// let ring = graph.add_memory("ring", 10, 1000)?;
/// graph.add_outlet("web", "ring", Some("and(level >= 'error', user.id = 7)"))?;
/// let web = graph.stream("web")?;
/// JsonLines::new().log(&web, r#"{"level":"fatal","msg":"no more memory","user":{"id":7}}"#);
/// JsonLines::new().log(&web, r#"{"level":"info","msg":"hello","user":{"id":7}}"#);
/// let lines = graph.memory_last("ring", 10).unwrap_or_default();
/// assert_eq!(lines.len(), 1);
/// assert_eq!(lines[0].bytes, b"no more memory");
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonLines {
    message_key: Option<String>,
    received: bool,
}

impl JsonLines {
    /// The message is the value of `message`, `msg` or `event`, whichever comes first in this
    /// order.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message is the value of this key.
    #[must_use]
    pub fn message_key(self, key: &str) -> Self {
        Self { message_key: Some(key.to_owned()), ..self }
    }

    /// Adds the key `received`, with the time of arrival, to lines that have a time of their own.
    #[must_use]
    pub fn keep_received(self) -> Self {
        Self { received: true, ..self }
    }

    /// Logs a line.
    pub fn log(&self, stream: &Stream, line: &str) {
        let Ok(Members(members)) = serde_json::from_str(line) else {
            return stream.log(Level::Info, &Location::UNKNOWN, &[], &line);
        };
        let members: Vec<(&str, Parsed<'_>)> =
            members.iter().map(|(name, value)| (&**name, Parsed::of(value))).collect();
        let Event { level, time, message_key, text } = self.event(&members, line);
        let received = (self.received && time.is_some()).then(|| rfc3339(now_micros()));
        let mut keys: Vec<(&str, Value<'_>)> = Vec::with_capacity(members.len() + 1);
        for (name, value) in &members {
            match *name {
                name if Some(name) == message_key => {}
                // This is the line's time. As a key, it would be left out of formats that write
                // the time under this name.
                "timestamp" if time.is_some() => {}
                "timestamp" => keys.push(("original_timestamp", value.value())),
                name => keys.push((name, value.value())),
            }
        }
        keys.extend(received.as_deref().map(|time| ("received", Value::Str(time))));
        // Sinks and filters differ in what they do with two values for a name: give them one.
        let keys: Vec<(&str, Value<'_>)> = last_of_each(&keys).collect();
        let details = Details { micros: time, ..Details::NONE };
        stream.log_with(&details, level, &Location::UNKNOWN, &keys, &text);
    }

    /// Calls a function with a line as a [`Filter`](crate::Filter) sees it, and logs nothing. Every
    /// member is a key, and `facility`, `file`, `line`, `threadid` and `threadname` are taken from
    /// the members of these names, so a line that was written as JSON is filtered as it was when it
    /// was logged. A line without its own time gets the given one, in microseconds since 1970.
    ///
    /// ```
    /// use logdag::{Filter, input::JsonLines};
    ///
    /// let filter = Filter::parse("and(level >= 'error', facility = 'web')")?;
    /// let passes = |line| JsonLines::new().with_record(line, 0, |record| filter.passes(record));
    /// assert!(passes(r#"{"severity":"crit","facility":"web"}"#));
    /// assert!(!passes("web: error"));
    /// # Ok::<(), logdag::FilterError>(())
    /// ```
    pub fn with_record<R>(&self, line: &str, micros: u64, work: impl FnOnce(&Record<'_>) -> R) -> R {
        let members = match serde_json::from_str(line) {
            Ok(Members(members)) => members,
            Err(_) => Vec::new(),
        };
        let members: Vec<(&str, Parsed<'_>)> =
            members.iter().map(|(name, value)| (&**name, Parsed::of(value))).collect();
        let event = self.event(&members, line);
        let text = |key: &str| match last(&members, key) {
            Some((_, Value::Str(text))) => text,
            _ => "",
        };
        let number = |key: &str| match last(&members, key) {
            Some((_, Value::I64(n))) => u32::try_from(n).unwrap_or(0),
            _ => 0,
        };
        let keys: Vec<(&str, Value<'_>)> =
            members.iter().map(|(name, value)| (*name, value.value())).collect();
        let location = Location { file: text("file"), line: number("line") };
        let mut record = Record::new(event.time.unwrap_or(micros), text("facility"), &event.text);
        record.set_thread(number("threadid"), text("threadname"));
        record.location = &location;
        record.level = event.level;
        record.keys = &keys;
        work(&record)
    }

    fn event<'a>(&self, members: &'a [(&'a str, Parsed<'a>)], line: &'a str) -> Event<'a> {
        let first = |keys: &[&'static str]| keys.iter().find_map(|key| last(members, key));
        let level = first(&LEVEL_KEYS).and_then(|(_, value)| Level::of_value(value)).unwrap_or_default();
        let time =
            TIME_KEYS.iter().find_map(|key| last(members, key).and_then(|(_, value)| micros_of(value)));
        let message = match &self.message_key {
            Some(key) => last(members, key),
            None => first(&MESSAGE_KEYS),
        };
        let (message_key, text) = match message {
            Some((key, Value::Str(text))) => (Some(key), Cow::Borrowed(text)),
            Some((key, value)) => (Some(key), Cow::Owned(value.to_string())),
            // Not a JSON object: the line itself is the message.
            None => (None, Cow::Borrowed(line)),
        };
        Event { level, time, message_key, text }
    }
}

/// The properties of a line that is a JSON object.
struct Event<'a> {
    level: Level,
    time: Option<u64>,
    message_key: Option<&'a str>,
    text: Cow<'a, str>,
}

/// A member; if several have the same name, the last one counts.
fn last<'a>(members: &'a [(&'a str, Parsed<'a>)], key: &str) -> Option<(&'a str, Value<'a>)> {
    let found = members.iter().rev().find(|(name, _)| *name == key);
    found.map(|(name, value)| (*name, value.value()))
}

/// A time as text, in UTC with microseconds.
pub(super) fn rfc3339(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    format!("{:.6}", time.unwrap_or_default())
}

/// A time in microseconds since 1970.
fn micros_of(value: Value<'_>) -> Option<u64> {
    let Value::Str(text) = value else { return micros_of_number(value) };
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_microsecond()).ok();
    }
    // As a float, the fraction of a second would lose digits.
    if let Some((seconds, fraction)) = text.split_once('.')
        && fraction.len() == 6
        && let (Ok(seconds), Ok(fraction)) = (seconds.parse::<u64>(), fraction.parse::<u64>())
        && seconds as f64 >= FIRST_SECOND
    {
        return seconds.checked_mul(1_000_000)?.checked_add(fraction);
    }
    match text.parse::<u64>() {
        Ok(n) => micros_of_number(Value::U64(n)),
        Err(_) => micros_of_number(Value::F64(text.parse().ok()?)),
    }
}

fn micros_of_number(value: Value<'_>) -> Option<u64> {
    // The ranges of plausible times in these units do not overlap.
    let integer = match value {
        Value::I64(n) => u64::try_from(n).ok(),
        Value::U64(n) => Some(n),
        _ => None,
    };
    if let Some(n) = integer {
        return match n as f64 {
            n if n < FIRST_SECOND => None,
            n if n < 1e11 => integer?.checked_mul(1_000_000),
            n if n < 1e14 => integer?.checked_mul(1_000),
            n if n < 1e17 => integer,
            _ => Some(n / 1_000),
        };
    }
    let n = value.as_number()?;
    let micros = match n {
        n if n.is_nan() || n < FIRST_SECOND => return None,
        n if n < 1e11 => n * 1e6,
        n if n < 1e14 => n * 1e3,
        n if n < 1e17 => n,
        n => n / 1e3,
    };
    // From the year 2000 on, and small enough for nanoseconds in a u64.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (micros < 9.2e18).then_some(micros.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Json;

    #[test]
    fn times_of_all_kinds() {
        let expected = 1_700_000_000_123_456;
        for value in [
            Value::Str("2023-11-14T22:13:20.123456Z"),
            Value::Str("2023-11-14T23:13:20.123456+01:00"),
            Value::Str("2023-11-14 22:13:20.123456Z"),
            Value::Str("1700000000.123456"),
            Value::Str(" 1700000000123456 "),
            Value::U64(1_700_000_000_123_456),
            Value::I64(1_700_000_000_123_456_789),
            Value::F64(1_700_000_000.123_456),
            Value::F64(1_700_000_000_123.456),
            Value::Json(Json::trusted("1700000000.1234560000000001")),
        ] {
            assert_eq!(micros_of(value), Some(expected), "{value:?}");
        }
        assert_eq!(micros_of(Value::I64(1_700_000_000)), Some(1_700_000_000_000_000));
        assert_eq!(micros_of(Value::I64(1_700_000_000_123)), Some(1_700_000_000_123_000));
        for none in [
            Value::Str("yesterday"),
            Value::Str(""),
            Value::Str("12:00"),
            Value::Str("1969-12-31T23:59:59Z"),
            Value::I64(12),
            Value::I64(-1_700_000_000),
            Value::F64(0.25),
            Value::F64(f64::NAN),
            Value::F64(f64::INFINITY),
            Value::F64(1e300),
            Value::Bool(true),
            Value::Null,
        ] {
            assert_eq!(micros_of(none), None, "{none:?}");
        }
    }
}
