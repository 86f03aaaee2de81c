//! Syslog messages, one per datagram or frame.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Unit, Zoned};

use super::json::rfc3339;
use crate::graph::Stream;
use crate::level::Level;
use crate::record::{Details, Location, now_micros};
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
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Unambiguous abbreviations of time zones, with their minutes east of UTC.
const ZONES: [(&str, i16); 30] = [
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("Z", 0),
    ("WET", 0),
    ("WEST", 60),
    ("CET", 60),
    ("CEST", 120),
    ("MEZ", 60),
    ("MESZ", 120),
    ("EET", 120),
    ("EEST", 180),
    ("MSK", 180),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
    ("AKST", -540),
    ("AKDT", -480),
    ("HST", -600),
    ("JST", 540),
    ("KST", 540),
    ("AEST", 600),
    ("AEDT", 660),
    ("NZST", 720),
    ("NZDT", 780),
];
/// The default priority of a message: facility `user`, severity notice.
const PRIORITY: u8 = 13;

/// Logs a message of RFC 5424 or RFC 3164, one datagram or frame. Its severity becomes the line's
/// level, and its time the line's time. (A time of RFC 3164 is in this year and the local time zone
/// unless it says otherwise; a time of RFC 3339, as rsyslog forwards it, is accepted, too.) The
/// rest becomes keys: `syslog_facility`, `severity` (a number), `hostname`, `appname`, `procid`,
/// `msgid`, `sequence` (the number that Cisco devices give a message), and `sd`, the structured
/// data as an object of objects. A message in neither format is logged unchanged.
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
    SyslogMessages::new().log(stream, message);
}

/// Logs syslog messages, with more options than [`log_syslog`].
///
/// ```
/// use logdag::{Graph, input::SyslogMessages};
///
/// let graph = Graph::new();
/// let ring = graph.add_memory("ring", 10, 1000)?;
/// graph.add_outlet("net", "ring", Some("exists(received)"))?;
/// let message = b"<34>1 2003-10-11T22:14:15.003Z host su - ID47 - failed for lonvick";
/// SyslogMessages::new().keep_received().log(&graph.stream("net")?, message);
/// assert_eq!(graph.memory_last("ring", 1).unwrap_or_default()[0].bytes, b"failed for lonvick");
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyslogMessages {
    received: bool,
}

impl SyslogMessages {
    /// The same behaviour as [`log_syslog`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the key `received`, with the time of arrival, to messages that have a time of their
    /// own.
    #[must_use]
    pub fn keep_received(self) -> Self {
        Self { received: true }
    }

    /// Logs a message, one datagram or frame.
    pub fn log(&self, stream: &Stream, message: &[u8]) {
        let text = String::from_utf8_lossy(message);
        let text = text.trim_end_matches(['\n', '\r', '\0']);
        let (priority, rest) = priority(text).unwrap_or((PRIORITY, text));
        let parsed = rest
            .strip_prefix("1 ")
            .and_then(Parsed::of_5424)
            .unwrap_or_else(|| Parsed::of_3164(rest, &Zoned::now()));
        let mut keys: Vec<(&str, Value<'_>)> = Vec::new();
        if rest.len() < text.len() {
            let facility = FACILITIES.get(usize::from(priority / 8)).copied().unwrap_or("unknown");
            keys.push(("syslog_facility", Value::Str(facility)));
            keys.push(("severity", Value::U64((priority % 8).into())));
        }
        let names = ["hostname", "appname", "procid", "msgid"];
        let texts = [parsed.hostname, parsed.appname, parsed.procid, parsed.msgid];
        keys.extend(names.into_iter().zip(texts).filter_map(|(name, text)| Some((name, Value::Str(text?)))));
        keys.extend(parsed.sequence.map(|number| ("sequence", Value::U64(number))));
        keys.extend(parsed.data.as_deref().map(|data| ("sd", Value::Json(Json::trusted(data)))));
        let received = (self.received && parsed.micros.is_some()).then(|| rfc3339(now_micros()));
        keys.extend(received.as_deref().map(|time| ("received", Value::Str(time))));
        let details = Details { micros: parsed.micros, ..Details::NONE };
        let level = Level::from_severity(priority % 8);
        stream.log_with(&details, level, &Location::UNKNOWN, &keys, &parsed.message);
    }
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
    sequence: Option<u64>,
    /// The structured data, as JSON.
    data: Option<String>,
    message: Cow<'a, str>,
}

impl<'a> Parsed<'a> {
    /// Parses what follows the version.
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
        Some(Self { micros, hostname, appname, procid, msgid, sequence: None, data, message })
    }

    /// Parses a time, a host and a tag, each if it exists.
    fn of_3164(text: &'a str, now: &Zoned) -> Self {
        let whole = Self { message: text.into(), ..Self::default() };
        let device = of_device(text, now).unwrap_or(Device { text, ..Device::default() });
        let Device { sequence, hostname, text } = device;
        let whole = Self { sequence, hostname, ..whole };
        let Some((micros, rest)) = time_of_3339(text).or_else(|| local_time(text, now)) else {
            let tag = tag(text).filter(|&(name, _, message)| is_tag(text, name, message));
            return match tag {
                Some((appname, procid, message)) => {
                    Self { appname: Some(appname), procid, message: message.into(), ..whole }
                }
                None => whole,
            };
        };
        let (host, rest) = host(rest);
        let (appname, procid, message) = match tag(rest) {
            Some((appname, procid, message)) => (Some(appname), procid, message),
            None => (None, None, rest),
        };
        let hostname = hostname.or(host);
        Self { micros, hostname, appname, procid, message: message.into(), ..whole }
    }
}

/// What Cisco devices write before the time.
#[derive(Default)]
struct Device<'a> {
    sequence: Option<u64>,
    hostname: Option<&'a str>,
    /// What follows.
    text: &'a str,
}

/// `123: 000045: host: *`, all of it optional, before a time or a message that begins with `%`.
fn of_device<'a>(text: &'a str, now: &Zoned) -> Option<Device<'a>> {
    let (mut sequence, mut rest) = (None, text);
    let number = |text: &'a str| -> Option<(u64, &'a str)> {
        let (number, rest) = text.split_once(": ")?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        Some((number.parse().ok().filter(|_| digits)?, rest))
    };
    // The device's message count, and the sequence number of this message.
    while let Some((n, behind)) = number(rest) {
        (sequence, rest) = (Some(n), behind);
    }
    // Without a number, its colon is still there.
    let colon = rest.strip_prefix(": ");
    let sure = sequence.is_some() || colon.is_some();
    rest = colon.unwrap_or(rest);
    let follows = |text: &'a str| -> Option<&'a str> {
        if text.starts_with('%') {
            return sure.then_some(text);
        }
        // These mark a clock that is not set, or not synchronised.
        let unmarked = text.strip_prefix(['*', '.']);
        let time = unmarked.unwrap_or(text);
        let (_, behind) = local_time(time, now).or_else(|| time_of_3339(time))?;
        (sure || unmarked.is_some() || behind.starts_with('%')).then_some(time)
    };
    if let Some(text) = follows(rest) {
        return Some(Device { sequence, hostname: None, text });
    }
    let (name, mut behind) = rest.split_once(": ")?;
    if name.is_empty() || name.contains(' ') {
        return None;
    }
    if let Some((n, rest)) = number(behind) {
        (sequence, behind) = (Some(n), rest);
    }
    Some(Device { sequence, hostname: Some(name), text: follows(behind)? })
}

/// The host after a time, and what follows. Local messages have no host.
fn host(text: &str) -> (Option<&str>, &str) {
    let text = text.strip_prefix(": ").unwrap_or(text);
    let word = text.split(' ').next().unwrap_or_default();
    let behind = text.get(word.len() + 1..).unwrap_or_default();
    let address = word.strip_suffix(':').unwrap_or(word);
    if is_ipv6(address) || address.parse::<IpAddr>().is_ok() {
        return (Some(address), behind.strip_prefix(": ").unwrap_or(behind));
    }
    match tag(text) {
        // A device gives its own name, and then the message's tag.
        Some((name, None, message)) if message.starts_with('%') && tag(message).is_some() => {
            (Some(name), message)
        }
        None if !word.is_empty() && text.contains(' ') => {
            (Some(word), behind.strip_prefix(": ").unwrap_or(behind))
        }
        _ => (None, text),
    }
}

/// An address, in brackets or not, with a zone or not.
fn is_ipv6(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = inside.split_once('%').map_or(inside, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

/// Whether the text before the first colon of a message without a time is a tag, and not part of an
/// address or a time of day.
fn is_tag(text: &str, name: &str, message: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    let is_address = is_ipv6(word.strip_suffix(':').unwrap_or(word)) || message.starts_with("//");
    let is_time = name.bytes().all(|byte| byte.is_ascii_digit())
        && word.len() > name.len() + 1
        && message.starts_with(|c: char| c.is_ascii_digit());
    !is_address && !is_time
}

/// `name[number]: ` or `name: `, and what follows.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (tag, rest) = text.split_once(':')?;
    let message = rest.strip_prefix(' ').unwrap_or(rest);
    let (name, number) = match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some((name, number)) => (name, Some(number)),
        None => (tag, None),
    };
    // Quotation marks and braces are from JSON.
    let is_name = !name.is_empty() && !name.contains([' ', '[', ']', '"', '\'', '{', '}']);
    is_name.then_some((name, number, message))
}

/// `yyyy-mm-ddThh:mm:ss+hh:mm `, and what follows.
fn time_of_3339(text: &str) -> Option<(Option<u64>, &str)> {
    let (stamp, rest) = text.split_once(' ')?;
    let time = stamp.parse::<Timestamp>().ok().filter(|_| stamp.as_bytes().get(10) == Some(&b'T'))?;
    Some((u64::try_from(time.as_microsecond()).ok(), rest))
}

/// `Mmm dd hh:mm:ss `, with or without a fraction, and what follows. A year may come before the
/// month, after the day or after the time. Without one, the year is this one or, if the time would
/// then be tomorrow or later, the previous one. The time may be followed by a zone; the default is
/// the local zone. Some devices put a colon after all of this.
fn local_time<'a>(text: &'a str, now: &Zoned) -> Option<(Option<u64>, &'a str)> {
    let word = |text: &'a str| text.split_once(' ');
    let year_before = |text: &'a str| word(text).and_then(|(word, rest)| Some((year_of(word)?, rest)));
    let (mut year, text) = year_before(text).map_or((None, text), |(year, rest)| (Some(year), rest));
    let (month, text) = word(text)?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let (day, text) = word(text.strip_prefix(' ').unwrap_or(text))?;
    let day = day.parse::<i8>().ok().filter(|_| day.bytes().all(|byte| byte.is_ascii_digit()))?;
    let text = match year_before(text) {
        Some((found, rest)) => {
            year = Some(found);
            rest
        }
        None => text,
    };
    let (clock, mut rest) = word(text)?;
    let mut ended = clock.ends_with(':');
    let clock = clock.strip_suffix(':').unwrap_or(clock);
    let clock = clock.parse::<Time>().ok().filter(|_| clock.get(2..3) == Some(":") && clock.len() >= 8)?;
    let mut zone = None;
    while !ended && let Some((next, behind)) = word(rest) {
        let bare = next.strip_suffix(':').unwrap_or(next);
        match (year_of(bare), zone_of(bare)) {
            (Some(found), _) if year.is_none() => year = Some(found),
            (_, Some(found)) if zone.is_none() => zone = Some(found),
            // An unknown abbreviation of a zone between a device's time and message.
            _ if bare.len() < next.len() && behind.starts_with('%') && is_abbreviation(bare) => {}
            _ => break,
        }
        (ended, rest) = (bare.len() < next.len(), behind);
    }
    let zone = zone.unwrap_or_else(|| now.time_zone().clone());
    let now = now.with_time_zone(zone.clone());
    let at = |year| {
        let day = Date::new(year, i8::try_from(month + 1).ok()?, day).ok()?;
        day.to_datetime(clock).to_zoned(zone.clone()).ok()
    };
    let micros = |time: Zoned| u64::try_from(time.timestamp().as_microsecond()).ok();
    if let Some(year) = year {
        return Some((at(year).and_then(micros), rest));
    }
    let is_ahead = |time: &Zoned| now.until((Unit::Hour, time)).is_ok_and(|span| span.get_hours() >= 24);
    let time = match at(now.year()) {
        Some(time) if !is_ahead(&time) => Some(time),
        _ => at(now.year() - 1),
    };
    Some((time.and_then(micros), rest))
}

/// A year in four digits.
fn year_of(text: &str) -> Option<i16> {
    let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|year| digits && (1970..2200).contains(year))
}

/// Letters that may be the short name of a zone.
fn is_abbreviation(text: &str) -> bool {
    (2..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A zone by its abbreviation, or as `+hh`, `+hhmm` or `+hh:mm`.
fn zone_of(text: &str) -> Option<TimeZone> {
    let fixed = |minutes: i16| Some(TimeZone::fixed(Offset::from_seconds(i32::from(minutes) * 60).ok()?));
    if let Some((_, minutes)) = ZONES.into_iter().find(|(name, _)| *name == text) {
        return fixed(minutes);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = text[1..].replacen(':', "", 1);
    let number: i16 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    match digits.len() {
        2 if number < 24 => fixed(sign * number * 60),
        4 if number < 2400 && number % 100 < 60 => fixed(sign * (number / 100 * 60 + number % 100)),
        _ => None,
    }
}

/// Structured data as a JSON object, and the message after it.
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
            let parsed = Parsed::of_3164(text, &Zoned::now());
            let found = (parsed.micros, parsed.hostname, parsed.appname, &*parsed.message);
            assert_eq!(found, (micros, host, tag, message), "{text}");
        }
    }

    #[test]
    fn devices_hosts_and_zones_are_understood() {
        let now: Zoned = "2026-11-26T10:00:00+00:00[UTC]".parse().unwrap();
        for (text, time, sequence, host, tag, message) in [
            // IPv6.
            ("Oct 11 22:14:15 2001:db8::1 su[42]: hi", "10-11T22:14:15Z", None, "2001:db8::1", "su", "hi"),
            ("Oct 11 22:14:15 fe80::1%eth0 su: hi", "10-11T22:14:15Z", None, "fe80::1%eth0", "su", "hi"),
            ("Oct 11 22:14:15 [::1]: hi there", "10-11T22:14:15Z", None, "[::1]", "", "hi there"),
            ("2026-10-11T22:14:15Z ::1 su: hi", "10-11T22:14:15Z", None, "::1", "su", "hi"),
            ("Oct 11 22:14:15 192.0.2.7: su: hi", "10-11T22:14:15Z", None, "192.0.2.7", "su", "hi"),
            // Devices.
            (
                "123: sw1: *Mar  1 00:01:02: %SYS-5-X: up",
                "03-01T00:01:02Z",
                Some(123),
                "sw1",
                "%SYS-5-X",
                "up",
            ),
            (
                "123: *Mar  1 00:01:02.5 UTC: %SYS-5-X: up",
                "03-01T00:01:02.5Z",
                Some(123),
                "",
                "%SYS-5-X",
                "up",
            ),
            ("9: 000123: .Mar 1 00:01:02 CET: %A-5-X: up", "02-28T23:01:02Z", Some(123), "", "%A-5-X", "up"),
            (
                "9: 2001:db8::1: 7: Mar  1 00:01:02: %A-5-X: a",
                "03-01T00:01:02Z",
                Some(7),
                "2001:db8::1",
                "%A-5-X",
                "a",
            ),
            (": 2026 Mar  1 00:01:02 XST: %A-5-X: up", "03-01T00:01:02Z", None, "", "%A-5-X", "up"),
            ("17: %SYS-5-RESTART: again", "", Some(17), "", "%SYS-5-RESTART", "again"),
            (
                "Mar  1 2026 00:01:02 asa : %ASA-6-3: Built",
                "03-01T00:01:02Z",
                None,
                "asa",
                "%ASA-6-3",
                "Built",
            ),
            ("Mar  1 00:01:02 sw1: %A-5-X: up", "03-01T00:01:02Z", None, "sw1", "%A-5-X", "up"),
            ("sw1: Mar  1 00:01:02: %A-5-X: up", "03-01T00:01:02Z", None, "sw1", "%A-5-X", "up"),
            // Zones and years after the time.
            ("Oct 11 22:14:15 CEST host su: hi", "10-11T20:14:15Z", None, "host", "su", "hi"),
            ("Oct 11 22:14:15 +0200 host su: hi", "10-11T20:14:15Z", None, "host", "su", "hi"),
            ("Oct 11 22:14:15 -03:30 host su: hi", "10-12T01:44:15Z", None, "host", "su", "hi"),
            ("Oct 11 22:14:15 2026 host su: hi", "10-11T22:14:15Z", None, "host", "su", "hi"),
            ("Oct 11 22:14:15 UTC 2026 host su: hi", "10-11T22:14:15Z", None, "host", "su", "hi"),
            ("Oct 11 22:14:15.25 2026 PDT: host su: hi", "10-12T05:14:15.25Z", None, "host", "su", "hi"),
            // Texts that only look like one of these.
            ("Oct 11 22:14:15 CRON: hi", "10-11T22:14:15Z", None, "", "CRON", "hi"),
            ("Oct 11 22:14:15 WEB su: hi", "10-11T22:14:15Z", None, "WEB", "su", "hi"),
            ("app: Oct 11 22:14:15 began", "", None, "", "app", "Oct 11 22:14:15 began"),
            ("2001:db8::1 said hello", "", None, "", "", "2001:db8::1 said hello"),
            ("http://example.com is down", "", None, "", "", "http://example.com is down"),
            ("12: monkeys", "", None, "", "12", "monkeys"),
            ("12:34:56 began", "", None, "", "", "12:34:56 began"),
            ("su:hi", "", None, "", "su", "hi"),
            (r#"{"a":"b"}"#, "", None, "", "", r#"{"a":"b"}"#),
            (r#"Oct 11 22:14:15 host {"a":"b"}"#, "10-11T22:14:15Z", None, "host", "", r#"{"a":"b"}"#),
        ] {
            let parsed = Parsed::of_3164(text, &now);
            let time = Some(time).filter(|time| !time.is_empty());
            let time =
                time.map(|time| format!("2026-{time}").parse::<Timestamp>().unwrap().as_microsecond() as u64);
            let or_none = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            assert_eq!(
                (parsed.micros, parsed.sequence, parsed.hostname.map(str::to_owned)),
                (time, sequence, or_none(host)),
                "{text}"
            );
            assert_eq!(
                (parsed.appname.map(str::to_owned), &*parsed.message),
                (or_none(tag), message),
                "{text}"
            );
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
