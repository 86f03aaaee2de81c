//! Times on the command line.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use jlog_core::LogId;

/// The expected formats, for errors.
const EXPECTED: &str = "expected a time such as 14:00, yesterday, \"2026-11-25 10:00\" or 2026-11-25T10:00:00Z, or how \
                        long ago such as 10min";

/// A time. Those without a zone are local.
///
/// - RFC 3339: `2026-11-25T10:00:00Z`;
/// - `2026-11-25 10:00`, with or without seconds, and `2026-11-25` for its beginning;
/// - `14:00` and `14:00:30`: of today;
/// - `now`, `today`, `yesterday`, the last two with a time as well: `yesterday 14:00`;
/// - `@1764064800`: seconds since 1970;
/// - how long ago: `10min`, `2h`, `1d`, `1h 30min ago`.
pub fn time(text: &str) -> Result<Timestamp, String> {
    at(text.trim(), &Zoned::now()).ok_or_else(|| EXPECTED.to_owned())
}

/// The same, as of this moment, in its zone.
fn at(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let zone = now.time_zone();
    let local = |at: DateTime| at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    if let Some(seconds) = text.strip_prefix('@') {
        return Timestamp::from_second(seconds.parse().ok()?).ok();
    }
    if text.eq_ignore_ascii_case("now") {
        return Some(now.timestamp());
    }
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let day = match first.to_ascii_lowercase().as_str() {
        "today" => Some(now.date()),
        "yesterday" => Some(now.date().checked_sub(1.day()).ok()?),
        _ => None,
    };
    if let Some(day) = day {
        return local(day.to_datetime(if rest.is_empty() { Time::midnight() } else { clock(rest.trim())? }));
    }
    if let Some(time) = clock(text) {
        return local(now.date().to_datetime(time));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) && first.contains('-') {
        return match text.parse::<DateTime>() {
            Ok(at) => local(at),
            Err(_) => local(text.parse::<Date>().ok()?.to_datetime(Time::midnight())),
        };
    }
    let ago: jiff::Span = text.parse().ok()?;
    // Compute in a zone without clock changes, so that a day is 24 hours.
    let utc = now.timestamp().to_zoned(TimeZone::UTC);
    utc.checked_sub(ago.abs()).ok().map(|at| at.timestamp())
}

/// A time of day.
fn clock(text: &str) -> Option<Time> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b'.');
    if !digits || !text.contains(':') {
        return None;
    }
    text.parse().ok()
}

/// Where to begin reading: a record's id, or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With this record.
    Id(LogId),
    /// With the first record at or after this time.
    Time(Timestamp),
}

/// An id such as `0000002a:00000001`, or a [`time`].
pub fn place(text: &str) -> Result<Place, String> {
    // 14:00 is a time; an id that could be one has all its digits.
    let whole = text.split_once(':').is_some_and(|(a, b)| (a.len(), b.len()) == (8, 8));
    if whole && let Ok(id) = text.parse() {
        return Ok(Place::Id(id));
    }
    match (time(text), text.parse()) {
        (Ok(time), _) => Ok(Place::Time(time)),
        (Err(_), Ok(id)) => Ok(Place::Id(id)),
        (Err(_), Err(_)) => Err(format!("expected an id such as 0000002a:00000001, or {}", &EXPECTED[9..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_people_write_them() {
        // A zone whose clock goes forward in March and back in October.
        let now: Zoned = "2026-03-30T09:30:00[Europe/Vienna]".parse().unwrap();
        let gives = |text: &str| at(text, &now).map(|at| at.to_string());
        for (text, expected) in [
            ("14:00", "2026-03-30T12:00:00Z"),
            ("09:05:30", "2026-03-30T07:05:30Z"),
            ("now", "2026-03-30T07:30:00Z"),
            ("today", "2026-03-29T22:00:00Z"),
            // Before the change: one hour off, not two.
            ("yesterday", "2026-03-28T23:00:00Z"),
            ("Yesterday 14:00", "2026-03-29T12:00:00Z"),
            ("today 08:15", "2026-03-30T06:15:00Z"),
            ("2026-11-25 10:00", "2026-11-25T09:00:00Z"),
            ("2026-11-25T10:00:30.5", "2026-11-25T09:00:30.5Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-11-25T10:00:00Z", "2026-11-25T10:00:00Z"),
            ("2026-11-25 10:00-05:00", "2026-11-25T15:00:00Z"),
            ("@1764064800", "2025-11-25T10:00:00Z"),
            ("10min", "2026-03-30T07:20:00Z"),
            ("1h 30min ago", "2026-03-30T06:00:00Z"),
            ("1d", "2026-03-29T07:30:00Z"),
            // A time that the clock skips becomes the next valid one.
            ("2026-03-29 02:30", "2026-03-29T01:30:00Z"),
        ] {
            assert_eq!(gives(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in
            ["", "soon", "25:00", "14", "14:61", "2026-13-01", "yesterday noon", "@x", "1:2:3:4", "-"]
        {
            assert_eq!(gives(wrong), None, "{wrong}");
            assert!(time(wrong).is_err());
        }
    }

    #[test]
    fn an_id_and_a_time_of_day_are_told_apart() {
        assert_eq!(place("0000002a:00000001"), Ok(Place::Id(LogId::new(42, 1))));
        assert_eq!(place("0:1"), Ok(Place::Id(LogId::new(0, 1))));
        assert!(matches!(place("14:00"), Ok(Place::Time(_))));
        assert!(matches!(place("10min"), Ok(Place::Time(_))));
        assert!(place("somewhere").unwrap_err().contains("an id such as"));
    }
}
