//! Periods after which a file is rotated, and whether the clock can be believed.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::rotation::{RotateAt, Rotation};

/// The last second that the calendar covers: the end of the year 9999, in any zone.
pub(super) const LAST_SECOND: u64 = 253_402_207_199;
/// If a clock has jumped by more than this, in seconds, it was wrong before or is wrong now.
const MAX_STEP: u64 = 3600;
/// How long such a clock must run before it is believed.
const BELIEVED_AFTER: u64 = 3600;

/// The seconds from `start` up to but excluding `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Period {
    /// The period of files that are not rotated by time.
    const EVER: Self = Self { start: 0, end: u64::MAX };

    pub(super) fn contains(self, second: u64) -> bool {
        self.start <= second && second < self.end
    }
}

pub(super) fn timestamp(second: u64) -> Timestamp {
    let second = i64::try_from(second.min(LAST_SECOND)).unwrap_or_default();
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn second(timestamp: Timestamp) -> u64 {
    u64::try_from(timestamp.as_second()).unwrap_or(0)
}

/// The kinds of periods.
#[derive(Debug)]
pub(super) struct Periods {
    seconds: u64,
    calendar: Option<(RotateAt, TimeZone)>,
}

impl Periods {
    pub(super) fn new(rotation: &Rotation) -> Self {
        let calendar = rotation.at.map(|at| (at, rotation.zone.time_zone()));
        Self { seconds: rotation.seconds, calendar }
    }

    /// The period that contains a time.
    pub(super) fn of(&self, second: u64) -> Period {
        let mut period = Period::EVER;
        if let Some(n) = second.checked_div(self.seconds) {
            let start = n * self.seconds;
            period = Period { start, end: start.saturating_add(self.seconds) };
        }
        if let Some((at, zone)) = self.calendar.as_ref().filter(|_| second <= LAST_SECOND) {
            let other = of_calendar(*at, zone, second);
            period = Period { start: period.start.max(other.start), end: period.end.min(other.end) };
        }
        period
    }
}

/// The latest change of the clock up to a time, and the next one after it.
fn transitions(zone: &TimeZone, at: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let past = at.checked_add(1.second()).ok();
    let before = past.and_then(|past| zone.preceding(past).next());
    (before.map(|transition| transition.timestamp()), zone.following(at).next().map(|next| next.timestamp()))
}

fn of_calendar(at: RotateAt, zone: &TimeZone, now: u64) -> Period {
    let moment = timestamp(now);
    let civil = zone.to_datetime(moment);
    let midnight = |date: Option<Date>| -> Option<u64> {
        // If it falls into a gap, the day begins after the gap.
        Some(second(date?.to_zoned(zone.clone()).ok()?.timestamp()))
    };
    let from_to = |from: Option<Date>, to: Option<Date>| -> Period {
        Period { start: midnight(from).unwrap_or(0), end: midnight(to).unwrap_or(u64::MAX) }
    };
    let date = civil.date();
    let period = match at {
        RotateAt::Hourly => {
            let into =
                u64::from(civil.minute().unsigned_abs()) * 60 + u64::from(civil.second().unsigned_abs());
            let start = now.saturating_sub(into);
            // If the clock is changed, one hour ends early and another begins late.
            let (before, next) = transitions(zone, moment);
            Period {
                start: before.map_or(start, |before| start.max(second(before))),
                end: next.map_or(start + 3600, |next| second(next).min(start + 3600)),
            }
        }
        RotateAt::Daily => from_to(Some(date), date.tomorrow().ok()),
        RotateAt::Weekly => {
            let monday = i64::from(date.weekday().to_monday_zero_offset());
            let monday = date.checked_sub(monday.days()).ok();
            from_to(monday, monday.and_then(|monday| monday.checked_add(7.days()).ok()))
        }
        RotateAt::Monthly => from_to(Some(date.first_of_month()), date.last_of_month().tomorrow().ok()),
    };
    if period.contains(now) {
        return period;
    }
    // A place that moves across the date line repeats a day: the second of them ends with the next
    // change at the latest.
    let (before, next) = transitions(zone, moment);
    let start = before.map_or(now, second);
    Period { start, end: next.map_or(now + 1, second).min(start.saturating_add(86_400)).max(now + 1) }
}

/// Compares the clock with a monotonic one. Rotation and removal by time wait until the clock is
/// believed.
#[derive(Debug)]
pub(super) struct Watch {
    believed: Pair,
    /// Since when the clocks disagree, if they do.
    doubted: Option<Pair>,
}

/// The readings of two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// Seconds since 1970.
    pub(super) wall: u64,
    /// Seconds since the machine started.
    pub(super) steady: u64,
}

impl Pair {
    fn fits(self, later: Self) -> bool {
        let passed = later.steady.saturating_sub(self.steady);
        self.wall.saturating_add(passed).abs_diff(later.wall) <= MAX_STEP
    }
}

impl Watch {
    pub(super) fn new(now: Pair) -> Self {
        Self { believed: now, doubted: None }
    }

    /// Whether the clock can be believed now.
    pub(super) fn believes(&mut self, now: Pair) -> bool {
        if self.believed.fits(now) {
            *self = Self::new(now);
            return true;
        }
        match self.doubted {
            Some(since) if since.fits(now) => {
                let long = now.steady.saturating_sub(since.steady) >= BELIEVED_AFTER;
                if long {
                    *self = Self::new(now);
                }
                long
            }
            _ => {
                self.doubted = Some(now);
                false
            }
        }
    }

    /// Whether a time is so far ahead of the clock that the clock must have been wrong when the
    /// time was taken.
    pub(super) fn is_ahead(time: u64, now: u64) -> bool {
        time > now.saturating_add(MAX_STEP)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(zone: &TimeZone, text: &str) -> u64 {
        second(zone.to_timestamp(text.parse::<DateTime>().unwrap()).unwrap())
    }

    /// The lengths of the periods from one time to another.
    fn lengths(calendar: RotateAt, zone: &TimeZone, from: u64, to: u64) -> Vec<u64> {
        let (mut now, mut lengths) = (from, Vec::new());
        while now < to {
            let period = of_calendar(calendar, zone, now);
            assert_eq!(period.start, now, "nothing is left out, and nothing is in two");
            lengths.push(period.end - period.start);
            now = period.end;
        }
        assert_eq!(now, to);
        lengths
    }

    #[test]
    fn days_have_23_to_25_hours() {
        let berlin = zone("Europe/Berlin");
        for (from, to, hours) in [
            ("2026-03-28T00:00", "2026-03-31T00:00", [24, 23, 24]),
            ("2026-10-24T00:00", "2026-10-27T00:00", [24, 25, 24]),
        ] {
            let (from, to) = (at(&berlin, from), at(&berlin, to));
            assert_eq!(lengths(RotateAt::Daily, &berlin, from, to), hours.map(|hours| hours * 3600));
        }
        let howe = zone("Australia/Lord_Howe");
        let (from, to) = (at(&howe, "2026-04-05T00:00"), at(&howe, "2026-04-06T00:00"));
        assert_eq!(lengths(RotateAt::Daily, &howe, from, to), [88_200]);
        let (from, to) = (at(&howe, "2026-10-04T00:00"), at(&howe, "2026-10-05T00:00"));
        assert_eq!(lengths(RotateAt::Daily, &howe, from, to), [84_600]);
        // There is no midnight: the day begins at 1:00.
        let beirut = zone("Asia/Beirut");
        let (from, to) = (at(&beirut, "2026-03-28T00:00"), at(&beirut, "2026-03-29T01:00"));
        assert_eq!(lengths(RotateAt::Daily, &beirut, from, to), [86_400]);
        // There was no 30 December 2011.
        let apia = zone("Pacific/Apia");
        let (from, to) = (at(&apia, "2011-12-29T00:00"), at(&apia, "2012-01-01T00:00"));
        assert_eq!(lengths(RotateAt::Daily, &apia, from, to), [86_400, 86_400]);
    }

    #[test]
    fn hours_begin_when_the_clock_shows_it() {
        let berlin = zone("Europe/Berlin");
        for (from, to, hours) in
            [("2026-03-29T00:00", "2026-03-29T05:00", 4), ("2026-10-25T00:00", "2026-10-25T05:00", 6)]
        {
            let found = lengths(RotateAt::Hourly, &berlin, at(&berlin, from), at(&berlin, to));
            assert_eq!(found, vec![3600; hours]);
        }
        let howe = zone("Australia/Lord_Howe");
        // 2:00 was 1:30 again; and 2:00 was 2:30.
        for (from, to, expected) in [
            ("2026-04-05T00:00", "2026-04-05T03:00", [3600, 3600, 1800, 3600]),
            ("2026-10-04T00:00", "2026-10-04T04:00", [3600, 3600, 1800, 3600]),
        ] {
            assert_eq!(lengths(RotateAt::Hourly, &howe, at(&howe, from), at(&howe, to)), expected);
        }
        let kathmandu = zone("Asia/Kathmandu");
        let period = of_calendar(RotateAt::Hourly, &kathmandu, at(&kathmandu, "2026-06-01T10:20"));
        assert_eq!(period.start, at(&kathmandu, "2026-06-01T10:00"));
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let berlin = zone("Europe/Berlin");
        let of = |calendar| of_calendar(calendar, &berlin, at(&berlin, "2026-11-25T12:00"));
        let expected = |start, end| Period { start: at(&berlin, start), end: at(&berlin, end) };
        assert_eq!(of(RotateAt::Weekly), expected("2026-11-23T00:00", "2026-11-30T00:00"));
        assert_eq!(of(RotateAt::Monthly), expected("2026-11-01T00:00", "2026-12-01T00:00"));
    }

    #[test]
    fn both_kinds_end_a_period() {
        let rotation = Rotation {
            seconds: 50_000,
            at: Some(RotateAt::Daily),
            zone: super::super::Zone::UTC,
            ..Rotation::default()
        };
        let periods = Periods::new(&rotation);
        assert_eq!(periods.of(0), Period { start: 0, end: 50_000 });
        assert_eq!(periods.of(50_000), Period { start: 50_000, end: 86_400 });
        assert_eq!(periods.of(86_400), Period { start: 86_400, end: 100_000 });
        assert_eq!(Periods::new(&Rotation::default()).of(5), Period::EVER);
    }

    #[test]
    fn a_clock_that_jumps_is_believed_after_an_hour() {
        let pair = |wall, steady| Pair { wall, steady };
        let mut watch = Watch::new(pair(1_000_000, 100));
        assert!(watch.believes(pair(1_000_900, 1000)));
        // An hour is summer time set by hand, or a correction.
        assert!(watch.believes(pair(1_004_500, 1000)));
        assert!(!watch.believes(pair(31_000_000, 1100)));
        assert!(!watch.believes(pair(31_003_599, 4699)));
        // It was wrong only for a while.
        assert!(watch.believes(pair(1_008_200, 4700)));
        assert!(!watch.believes(pair(0, 4800)));
        assert!(!watch.believes(pair(3599, 8399)));
        assert!(watch.believes(pair(3600, 8400)));
    }

    proptest! {
        /// In any zone, the period of any time contains that time, and every time in it has the
        /// same period.
        #[test]
        fn times_have_one_period(zone in 0_usize..1000, now in 0_u64..4_200_000_000, part in 0.0..1.0_f64, n in 0_usize..4) {
            let names: Vec<_> = jiff::tz::db().available().collect();
            let zone = TimeZone::get(names[zone % names.len()].as_str()).unwrap();
            let calendar = RotateAt::ALL[n];
            let period = of_calendar(calendar, &zone, now);
            prop_assert!(period.contains(now), "{period:?}");
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let other = period.start + ((period.end - period.start) as f64 * part) as u64;
            prop_assert_eq!(of_calendar(calendar, &zone, other), period);
        }
    }
}
