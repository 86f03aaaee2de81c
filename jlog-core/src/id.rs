//! Ids and times.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The id of a record: its segment's number and its marker in that segment, counted from 1.
///
/// As a checkpoint it means that everything up to and including that record is done; marker 0 means
/// that nothing of the segment is. Written and parsed as `0000002a:00000007` (both in hex).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Number of the segment.
    pub segment: u32,
    /// Place in the segment, from 1; 0 is before its first record.
    pub marker: u32,
}

impl LogId {
    /// An id from its two numbers.
    pub const fn new(segment: u32, marker: u32) -> Self {
        Self { segment, marker }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{:08x}", self.segment, self.marker)
    }
}

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: expected two hex numbers of up to 8 digits, such as 0000002a:00000007")]
pub struct ParseLogIdError(String);

impl FromStr for LogId {
    type Err = ParseLogIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let right = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            right.then(|| u32::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(segment, marker)| Some(LogId::new(number(segment)?, number(marker)?)))
            .ok_or_else(|| ParseLogIdError(text.to_owned()))
    }
}

/// A record's time, as on disk: seconds and microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds; the format ends in the year 2106.
    pub seconds: u32,
    /// Microseconds within the second.
    pub micros: u32,
}

impl Timestamp {
    /// The current time. A clock before 1970 gives 0, one after 2106 the last second of the format.
    pub fn now() -> Self {
        let micros = Self::now_micros();
        match u32::try_from(micros / 1_000_000) {
            // Below a million.
            Ok(seconds) => Self { seconds, micros: u32::try_from(micros % 1_000_000).unwrap_or(0) },
            Err(_) => Self { seconds: u32::MAX, micros: 999_999 },
        }
    }

    /// The current time, in microseconds since 1970, from which [`now`](Self::now) makes a
    /// timestamp. A clock before 1970 gives 0.
    pub fn now_micros() -> u64 {
        crate::clock::now_nanos() / 1000
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> u64 {
        self.seconds as u64 * 1_000_000 + self.micros as u64
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: u32::try_from(since.as_secs()).unwrap_or(u32::MAX), micros: since.subsec_micros() }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(time.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_and_parsed_in_hex() {
        let id = LogId::new(42, 7);
        assert_eq!(id.to_string(), "0000002a:00000007");
        assert_eq!("0000002a:00000007".parse(), Ok(id));
        assert_eq!("2A:7".parse(), Ok(id));
        for bad in ["", ":", "1", "1:", ":1", "1:2:3", "g:1", "+1:1", "123456789:1", " 1:1"] {
            assert!(bad.parse::<LogId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_survive_the_trip_to_system_time() {
        let time = Timestamp { seconds: u32::MAX, micros: 999_999 };
        assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(5)), Timestamp::default());
    }
}
