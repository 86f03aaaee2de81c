//! Messages of syslog, as they come in datagrams.

use std::borrow::Cow;

use jiff::civil::{Date, Time};
use jiff::{Timestamp, Unit, Zoned};

use crate::graph::Stream;
use crate::level::Level;
use crate::record::{Details, Location};
use crate::value::{Json, Value};

/// Names of facilities, by their numbers.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];
/// What a message is of where it does not say: `user`, and a notice.
const PRIORITY: u8 = 13;

/// Logs a message of RFC 5424 or RFC 3164, one datagram or frame. Its severity is the line's level, its time (of RFC 3164: in
/// this year, unless it says which, and the local time zone; or a time of RFC 3339, as rsyslog forwards it) the line's time. The rest are keys: `syslog_facility`, `severity` (a number), `hostname`,
/// `appname`, `procid`, `msgid`, and `sd`, the structured data as an object of objects. What is neither is logged as it is.
///
/// ```
/// use logdag::{Graph, input};
///
/// let graph = Graph::new();
/// let ring = graph.add_memory("ring", 10, 1000)?;
/// graph.add_outlet("net", "ring", Some("and(level >= 'error', appname = 'su', sd.origin.ip = '192.0.2.1')"))?;
/// let message = br#"<34>1 2003-10-11T22:14:15.003Z host su - ID47 [origin ip="192.0.2.1"] failed for lonvick"#;
/// input::log_syslog(&graph.stream("net")?, message);
/// assert_eq!(graph.memory_last("ring", 1).unwrap_or_default()[0].bytes, b"failed for lonvick");
/// # Ok::<(), logdag::GraphError>(())
/// ```
pub fn log_syslog(stream: &Stream, message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    let text = text.trim_end_matches(['\n', '\r', '\0']);
    let (priority, rest) = priority(text).unwrap_or((PRIORITY, text));
    let parsed = rest.strip_prefix("1 ").and_then(Parsed::of_5424).unwrap_or_else(|| Parsed::of_3164(rest));
    let mut keys: Vec<(&str, Value<'_>)> = Vec::new();
    if rest.len() < text.len() {
        let facility = FACILITIES.get(usize::from(priority / 8)).copied().unwrap_or("unknown");
        keys.push(("syslog_facility", Value::Str(facility)));
        keys.push(("severity", Value::U64((priority % 8).into())));
    }
    let names = ["hostname", "appname", "procid", "msgid"];
    let texts = [parsed.hostname, parsed.appname, parsed.procid, parsed.msgid];
    keys.extend(names.into_iter().zip(texts).filter_map(|(name, text)| Some((name, Value::Str(text?)))));
    keys.extend(parsed.data.as_deref().map(|data| ("sd", Value::Json(Json::trusted(data)))));
    let details = Details { micros: parsed.micros, ..Details::NONE };
    let level = Level::from_severity(priority % 8);
    stream.log_with(&details, level, &Location::UNKNOWN, &keys, &parsed.message);
}

/// The number between angle brackets, and what follows.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let digits = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|&number: &u8| digits && number < 192)?;
    Some((number, rest))
}

#[derive(Debug, Default, PartialEq)]
struct Parsed<'a> {
    micros: Option<u64>,
    hostname: Option<&'a str>,
    appname: Option<&'a str>,
    procid: Option<&'a str>,
    msgid: Option<&'a str>,
    /// The structured data, as JSON.
    data: Option<String>,
    message: Cow<'a, str>,
}

impl<'a> Parsed<'a> {
    /// What follows the version.
    fn of_5424(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ' ');
        let mut part = || parts.next().map(|part| Some(part).filter(|part| *part != "-"));
        let (time, hostname, appname, procid, msgid) = (part()?, part()?, part()?, part()?, part()?);
        let micros = match time {
            None => None,
            Some(time) => Some(u64::try_from(time.parse::<Timestamp>().ok()?.as_microsecond()).ok()?),
        };
        let (data, message) = structured(parts.next()?)?;
        let message = message.strip_prefix('\u{feff}').unwrap_or(message).into();
        Some(Self { micros, hostname, appname, procid, msgid, data, message })
    }

    /// Whatever is there of a time, a host and a tag.
    fn of_3164(text: &'a str) -> Self {
        let whole = Self { message: text.into(), ..Self::default() };
        let Some((micros, rest)) = time_of_3339(text).or_else(|| local_time(text, &Zoned::now())) else {
            return match tag(text) {
                Some((appname, procid, message)) => {
                    Self { appname: Some(appname), procid, message: message.into(), ..whole }
                }
                None => whole,
            };
        };
        // Locally, there is no host.
        let (hostname, rest) = match (tag(rest), rest.split_once(' ')) {
            (None, Some((host, rest))) if !host.is_empty() => (Some(host), rest),
            _ => (None, rest),
        };
        let (appname, procid, message) = match tag(rest) {
            Some((appname, procid, message)) => (Some(appname), procid, message),
            None => (None, None, rest),
        };
        Self { micros, hostname, appname, procid, message: message.into(), ..whole }
    }
}

/// `name[number]: ` or `name: `, and what follows.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (tag, rest) = text.split_once(':')?;
    let message = rest.strip_prefix(' ').unwrap_or(rest);
    let (name, number) = match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some((name, number)) => (name, Some(number)),
        None => (tag, None),
    };
    let is_name = !name.is_empty() && !name.contains([' ', '[', ']']);
    is_name.then_some((name, number, message))
}

/// `yyyy-mm-ddThh:mm:ss+hh:mm `, and what follows.
fn time_of_3339(text: &str) -> Option<(Option<u64>, &str)> {
    let (stamp, rest) = text.split_once(' ')?;
    let time = stamp.parse::<Timestamp>().ok().filter(|_| stamp.as_bytes().get(10) == Some(&b'T'))?;
    Some((u64::try_from(time.as_microsecond()).ok(), rest))
}

/// `Mmm dd hh:mm:ss `, with or without a fraction, and what follows. Without a year behind the day it is this year or, where
/// that were tomorrow or later, the last one. Some devices put a colon behind the time.
fn local_time<'a>(text: &'a str, now: &Zoned) -> Option<(Option<u64>, &'a str)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (month, text) = text.split_at_checked(3)?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let (day, text) = (text.get(1..3)?.trim_start().parse::<i8>().ok()?, text.get(3..)?.strip_prefix(' ')?);
    let with_year = text
        .split_once(' ')
        .and_then(|(year, rest)| Some((year.parse::<i16>().ok().filter(|_| year.len() == 4)?, rest)));
    let (year, text) = with_year.map_or((None, text), |(year, rest)| (Some(year), rest));
    let (clock, rest) = text.split_once(' ')?;
    let clock = clock.strip_suffix(':').unwrap_or(clock);
    let clock = clock.parse::<Time>().ok().filter(|_| clock.get(2..3) == Some(":") && clock.len() >= 8)?;
    let at = |year| {
        let day = Date::new(year, i8::try_from(month + 1).ok()?, day).ok()?;
        day.to_datetime(clock).to_zoned(now.time_zone().clone()).ok()
    };
    let micros = |time: Zoned| u64::try_from(time.timestamp().as_microsecond()).ok();
    if let Some(year) = year {
        return Some((at(year).and_then(micros), rest));
    }
    let this = at(now.year());
    let is_ahead = |time: &Zoned| now.until((Unit::Hour, time)).is_ok_and(|span| span.get_hours() >= 24);
    let time = match this {
        Some(time) if !is_ahead(&time) => Some(time),
        _ => at(now.year() - 1),
    };
    Some((time.and_then(micros), rest))
}

/// Structured data as a JSON object, and the message behind it.
fn structured(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some((None, message_behind(rest)?));
    }
    let mut elements = serde_json::Map::new();
    let mut rest = text;
    while let Some(inside) = rest.strip_prefix('[') {
        let end = inside.find([' ', ']'])?;
        let (id, mut behind) = inside.split_at(end);
        let mut parameters = serde_json::Map::new();
        while let Some(parameter) = behind.strip_prefix(' ') {
            let (name, value) = parameter.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            parameters.insert(name.to_owned(), value.into());
            behind = after;
        }
        elements.insert(id.to_owned(), parameters.into());
        rest = behind.strip_prefix(']')?;
    }
    if elements.is_empty() {
        return None;
    }
    Some((Some(serde_json::Value::from(elements).to_string()), message_behind(rest)?))
}

fn message_behind(rest: &str) -> Option<&str> {
    if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') }
}

/// A value up to its closing quotation mark, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_time_of_rfc_3339_is_no_tag() {
        for (text, micros, host, tag, message) in [
            (
                "2026-11-26T15:03:11.5+01:00 host su[7]: hi",
                Some(1_795_701_791_500_000),
                Some("host"),
                Some("su"),
                "hi",
            ),
            ("2026-11-26T14:03:11Z su: hi", Some(1_795_701_791_000_000), None, Some("su"), "hi"),
            ("2026-11-26: x", None, None, Some("2026-11-26"), "x"),
            ("2026-11-26 14:03:11Z x", None, None, None, "2026-11-26 14:03:11Z x"),
        ] {
            let parsed = Parsed::of_3164(text);
            let found = (parsed.micros, parsed.hostname, parsed.appname, &*parsed.message);
            assert_eq!(found, (micros, host, tag, message), "{text}");
        }
    }

    #[test]
    fn the_year_is_the_one_that_makes_sense() {
        let now: Zoned = "2026-01-02T10:00:00+00:00[UTC]".parse().unwrap();
        for (text, expected) in [
            ("Jan  2 09:59:58.25 x", Some("2026-01-02T09:59:58.25Z")),
            ("Jan  2 2019 09:59:58 x", Some("2019-01-02T09:59:58Z")),
            ("Jan  2 2019 09:59:58: x", Some("2019-01-02T09:59:58Z")),
            ("Jan  2 09:59:58 x", Some("2026-01-02T09:59:58Z")),
            ("Jan  3 09:00:00 x", Some("2026-01-03T09:00:00Z")),
            ("Dec 31 23:59:59 x", Some("2025-12-31T23:59:59Z")),
            ("Feb 30 00:00:00 x", None),
            ("Feb 29 2023 00:00:00 x", None),
        ] {
            let (micros, rest) = local_time(text, &now).unwrap();
            let expected = expected.map(|time| time.parse::<Timestamp>().unwrap().as_microsecond() as u64);
            assert_eq!((micros, rest), (expected, "x"), "{text}");
        }
        for none in [
            "Jan  2",
            "Foo  2 09:59:58 x",
            "Jan  2 09:59:58",
            "Jan xx 09:59:58 x",
            "Jan  2 95958 x",
            "Jan  2 09:59 x",
            "ééééééééé",
        ] {
            assert_eq!(local_time(none, &now), None, "{none}");
        }
        assert_eq!(now.time_zone(), &TimeZone::UTC);
    }
}
