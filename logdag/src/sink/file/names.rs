//! Names of rotated files: generating them, and recognising exactly the names that could have been
//! generated.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, ISOWeekDate, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::access::directory;
use super::period::{self, LAST_SECOND};
use super::rotation::{Compression, Naming, Rotation};
use super::template::{Field, PART, Template, Token, Unit};

/// The range of seconds in names: ten digits. Shorter ones are other programs' numbers and dates.
pub(super) const SECONDS: std::ops::RangeInclusive<u64> = 1_000_000_000..=9_999_999_999;
/// The highest number in a name.
const MAX_NUMBER: u64 = 999_999_999;
/// Numbers that read as dates, in ascending order; no series contains them. They are MMDD, years,
/// all numbers of 6 digits (YYYYMM, YYMMDD), YYYYDDD, and all numbers of 8 digits (YYYYMMDD).
const LIKE_DATES: [std::ops::Range<u64>; 5] =
    [1001..1232, 1900..2200, 100_000..1_000_000, 1_900_000..2_200_000, 10_000_000..100_000_000];
/// How many consecutive numbers may be missing in a series.
const MAX_MISSING: u64 = 9;
/// A single number as high as this one does not count as a series.
const ALONE: u64 = 1000;

/// A name that a rotation can have generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The first and the last second at which it is generated; for numbers, the whole range.
    pub(super) from: u64,
    pub(super) to: u64,
    /// The number after the name. Of two names for the same time, the higher number is newer.
    pub(super) series: u64,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Compressed(Compression),
    /// An incomplete compressed file.
    Part(Compression),
}

/// The names of the rotated files of one log.
#[derive(Debug)]
pub(super) struct Names {
    log: PathBuf,
    directory: PathBuf,
    style: Style,
    zone: TimeZone,
    knows_compressed: bool,
}

#[derive(Debug)]
enum Style {
    Seconds,
    Number,
    Pattern(Vec<Piece>, Unit),
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Field(Field),
}

impl Names {
    pub(super) fn new(rotation: &Rotation, log: &Path) -> Self {
        let mut dir = directory(log).to_owned();
        let style = match &rotation.name.0 {
            Naming::Seconds => Style::Seconds,
            Naming::Number => Style::Number,
            Naming::Pattern(template) => {
                dir.push(&template.directory);
                Style::Pattern(pieces(template, log), template.unit)
            }
        };
        Self {
            log: log.to_owned(),
            directory: dir,
            // Only patterns need it, and looking it up is slow.
            zone: match style {
                Style::Pattern(..) => rotation.zone.time_zone(),
                _ => TimeZone::UTC,
            },
            style,
            knows_compressed: rotation.knows_compressed(),
        }
    }

    /// The log that is rotated.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The directory of the rotated files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn are_seconds(&self) -> bool {
        matches!(self.style, Style::Seconds)
    }

    pub(super) fn are_numbers(&self) -> bool {
        matches!(self.style, Style::Number)
    }

    /// Whether a foreign name could be taken for one of a rotated file.
    pub(super) fn resembles(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        let endings = [".part", ".gz", ".zst"];
        let whole = endings.iter().fold(name, |name, end| name.strip_suffix(end.as_bytes()).unwrap_or(name));
        let suffix = whole.strip_prefix(&*self.prefix());
        if suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.iter().all(u8::is_ascii_digit)) {
            return true;
        }
        match &self.style {
            Style::Pattern(pieces, _) => match pieces.first() {
                Some(Piece::Text(text)) => {
                    let rest = name.strip_prefix(&**text);
                    rest.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn prefix(&self) -> Vec<u8> {
        let mut prefix = self.log.file_name().unwrap_or_default().as_bytes().to_owned();
        prefix.push(b'.');
        prefix
    }

    /// The name for a time, without a number after it.
    pub(super) fn base(&self, at: u64) -> OsString {
        let mut name = Vec::new();
        match &self.style {
            Style::Seconds => {
                name = self.prefix();
                name.extend(at.clamp(*SECONDS.start(), *SECONDS.end()).to_string().bytes());
            }
            Style::Number => name = self.log.file_name().unwrap_or_default().as_bytes().to_owned(),
            Style::Pattern(pieces, _) => {
                let at = at.min(LAST_SECOND);
                let civil = self.zone.to_datetime(period::timestamp(at));
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => name.extend(text),
                        Piece::Field(field) => {
                            let mut text = String::new();
                            // Writing to a string does not fail.
                            let _ =
                                write!(text, "{:0width$}", value(*field, civil, at), width = field.digits());
                            name.extend(text.bytes());
                        }
                    }
                }
            }
        }
        OsString::from_vec(name)
    }

    /// The first second with the same name, but for the number after it.
    pub(super) fn begun(&self, at: u64) -> u64 {
        self.parse(&self.base(at)).map_or(at, |parsed| parsed.from)
    }

    /// The number that follows this one; `None` after the last one.
    pub(super) fn next_number(number: u64) -> Option<u64> {
        let next = number.saturating_add(1);
        let next = date_like(next).map_or(next, |dates| dates.end);
        (next <= MAX_NUMBER).then_some(next)
    }

    /// Selects, from numbers after names in any order, the series of this rotation: consecutive
    /// numbers, except for a few whose files were removed. If there are several such runs, it is
    /// the longest, and of equally long ones the lowest. A single high number is foreign (a process
    /// id, or a ticket number).
    pub(super) fn series(mut numbers: Vec<u64>) -> std::ops::Range<u64> {
        numbers.sort_unstable();
        numbers.dedup();
        let mut runs: Vec<&[u64]> =
            numbers.chunk_by(|&one, &next| ordinal(next) - ordinal(one) <= MAX_MISSING + 1).collect();
        runs.retain(|run| run.len() > 1 || run.first().is_some_and(|&only| only < ALONE));
        // `max_by_key` returns the last of several equal ones.
        let longest = runs.into_iter().rev().max_by_key(|run| run.len());
        match longest {
            Some(&[first, .., last]) => first..last + 1,
            Some(&[only]) => only..only + 1,
            _ => 0..0,
        }
    }

    /// The path with this name and number; 0 means no number.
    pub(super) fn path(&self, base: &OsStr, number: u64) -> PathBuf {
        let mut name = base.to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        self.directory.join(name)
    }

    /// Whether a file with this path exists, or a compressed one that was made from it.
    pub(super) fn is_taken(&self, path: &Path) -> bool {
        let compressed = Compression::ALL.iter().filter(|_| self.knows_compressed);
        path.symlink_metadata().is_ok()
            || compressed.into_iter().any(|method| with(path, method.suffix()).symlink_metadata().is_ok())
    }

    /// The path of a compressed file, and its path until it is complete.
    pub(super) fn compressed(original: &Path, method: Compression) -> (PathBuf, PathBuf) {
        let whole = with(original, method.suffix());
        let part = with(&whole, PART);
        (whole, part)
    }

    /// The file that this one was, or is being, made from.
    pub(super) fn original(path: &Path, form: Form) -> PathBuf {
        let (method, part) = match form {
            Form::Plain => return path.to_owned(),
            Form::Compressed(method) => (method, ""),
            Form::Part(method) => (method, PART),
        };
        let name = path.file_name().unwrap_or_default().as_bytes();
        let len = name.len().saturating_sub(method.suffix().len() + part.len());
        path.with_file_name(OsStr::from_bytes(&name[..len]))
    }

    /// The parts of a file's name, if a rotation can have generated it.
    pub(super) fn parse(&self, name: &OsStr) -> Option<Parsed> {
        let name = name.as_bytes();
        let (whole, part) = match name.strip_suffix(PART.as_bytes()) {
            Some(whole) => (whole, true),
            None => (name, false),
        };
        let compressed = Compression::ALL.into_iter().filter(|_| self.knows_compressed);
        let suffix = compressed
            .into_iter()
            .find_map(|method| Some((whole.strip_suffix(method.suffix().as_bytes())?, method)));
        let (name, form) = match (suffix, part) {
            (Some((name, method)), false) => (name, Form::Compressed(method)),
            (Some((name, method)), true) => (name, Form::Part(method)),
            (None, _) => (name, Form::Plain),
        };
        let (from, to, series) = self.parse_plain(name)?;
        Some(Parsed { from, to, series, form })
    }

    fn parse_plain(&self, name: &[u8]) -> Option<(u64, u64, u64)> {
        match &self.style {
            Style::Seconds => {
                let digits = name.strip_prefix(&*self.prefix()).filter(|digits| digits.len() == 10)?;
                let second = number(digits).filter(|second| SECONDS.contains(second))?;
                Some((second, second, second))
            }
            Style::Number => Some((0, u64::MAX, series(name.strip_prefix(&*self.prefix())?)?)),
            Style::Pattern(pieces, unit) => {
                let (fields, rest) = Fields::read(pieces, name)?;
                let series = match rest.split_first() {
                    None => 0,
                    Some((b'.', rest)) => series(rest)?,
                    Some(_) => return None,
                };
                let (from, to) = fields.times(*unit, &self.zone)?;
                // Even a readable name is ours only if it would be generated.
                let made = self.base(from);
                let base = &name[..name.len() - rest.len()];
                (from <= to && made.as_bytes() == base).then_some((from, to, series))
            }
        }
    }
}

fn pieces(template: &Template, log: &Path) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for token in &template.tokens {
        let text = match token {
            Token::Text(text) => text.as_bytes().to_owned(),
            Token::Stem => log.file_stem().unwrap_or_default().as_bytes().to_owned(),
            Token::Extension => log.extension().map_or(Vec::new(), |ext| [b".", ext.as_bytes()].concat()),
            Token::Field(field) => {
                pieces.push(Piece::Field(*field));
                continue;
            }
        };
        match pieces.last_mut() {
            Some(Piece::Text(last)) => last.extend(text),
            _ => pieces.push(Piece::Text(text)),
        }
    }
    pieces
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn value(field: Field, civil: DateTime, second: u64) -> u64 {
    let positive = |n: i64| u64::try_from(n).unwrap_or(0);
    match field {
        Field::Year => positive(civil.year().into()),
        Field::Month => positive(civil.month().into()),
        Field::Day => positive(civil.day().into()),
        Field::Hour => positive(civil.hour().into()),
        Field::Minute => positive(civil.minute().into()),
        Field::Second => positive(civil.second().into()),
        Field::DayOfYear => positive(civil.day_of_year().into()),
        Field::IsoYear => positive(civil.iso_week_date().year().into()),
        Field::IsoWeek => positive(civil.iso_week_date().week().into()),
        Field::Epoch => second.clamp(*SECONDS.start(), *SECONDS.end()),
    }
}

/// A number in decimal digits, and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then_some(digits)?.parse().ok()
}

/// The number after a name.
fn series(digits: &[u8]) -> Option<u64> {
    let series = number(digits).filter(|_| !digits.starts_with(b"0"))?;
    (series <= MAX_NUMBER && date_like(series).is_none()).then_some(series)
}

/// The range of date-like numbers that contains this one.
fn date_like(number: u64) -> Option<std::ops::Range<u64>> {
    LIKE_DATES.into_iter().find(|dates| dates.contains(&number))
}

/// The position of a number in a series, which skips dates.
fn ordinal(number: u64) -> u64 {
    let before = LIKE_DATES.into_iter().filter(|dates| dates.start <= number);
    number - before.map(|dates| dates.end.min(number) - dates.start).sum::<u64>()
}

/// What a name says about its time.
#[derive(Default)]
struct Fields {
    year: Option<u64>,
    month: Option<u64>,
    day: Option<u64>,
    hour: Option<u64>,
    minute: Option<u64>,
    second: Option<u64>,
    day_of_year: Option<u64>,
    iso_year: Option<u64>,
    iso_week: Option<u64>,
    epoch: Option<u64>,
}

impl Fields {
    /// The fields, and what follows them.
    fn read<'a>(pieces: &[Piece], name: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (mut fields, mut rest) = (Self::default(), name);
        for piece in pieces {
            rest = match piece {
                Piece::Text(text) => rest.strip_prefix(&**text)?,
                Piece::Field(field) => {
                    let (digits, after) = rest.split_at_checked(field.digits())?;
                    *fields.slot(*field) = Some(number(digits)?);
                    after
                }
            };
        }
        Some((fields, rest))
    }

    fn slot(&mut self, field: Field) -> &mut Option<u64> {
        match field {
            Field::Year => &mut self.year,
            Field::Month => &mut self.month,
            Field::Day => &mut self.day,
            Field::Hour => &mut self.hour,
            Field::Minute => &mut self.minute,
            Field::Second => &mut self.second,
            Field::DayOfYear => &mut self.day_of_year,
            Field::IsoYear => &mut self.iso_year,
            Field::IsoWeek => &mut self.iso_week,
            Field::Epoch => &mut self.epoch,
        }
    }

    /// The first and the last second with these fields.
    fn times(&self, unit: Unit, zone: &TimeZone) -> Option<(u64, u64)> {
        if let Some(epoch) = self.epoch {
            return Some((epoch, epoch));
        }
        let small = |n: Option<u64>| i8::try_from(n.unwrap_or(0)).ok();
        let or_one = |n: Option<u64>| small(n.or(Some(1)));
        let date = if unit == Unit::Week {
            let week = small(self.iso_week)?;
            ISOWeekDate::new(i16::try_from(self.iso_year?).ok()?, week, jiff::civil::Weekday::Monday)
                .ok()?
                .date()
        } else {
            let year = i16::try_from(self.year?).ok()?;
            match (self.month, self.day_of_year) {
                (None, Some(day)) => {
                    Date::new(year, 1, 1).ok()?.with().day_of_year(i16::try_from(day).ok()?).build().ok()?
                }
                (month, _) => Date::new(year, or_one(month)?, or_one(self.day)?).ok()?,
            }
        };
        let time = Time::new(small(self.hour)?, small(self.minute)?, small(self.second)?, 0).ok()?;
        let start = date.to_datetime(time);
        let length = match unit {
            Unit::Second => 1.second(),
            Unit::Minute => 1.minute(),
            Unit::Hour => 1.hour(),
            Unit::Day => 1.day(),
            Unit::Week => 1.week(),
            Unit::Month => 1.month(),
            Unit::Year => 1.year(),
        };
        let (from, _) = moments(zone, start)?;
        let to = match start.checked_add(length) {
            // If the clock is put back and shows a time twice, the period ends with the last.
            Ok(end) => moments(zone, end)?.1.checked_sub(1)?,
            Err(_) => LAST_SECOND,
        };
        Some((from, to))
    }
}

/// The first and the last second at which local clocks show a time. If clocks skip it, both are the
/// second of the jump.
fn moments(zone: &TimeZone, civil: DateTime) -> Option<(u64, u64)> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let seconds = |timestamp: jiff::Timestamp| u64::try_from(timestamp.as_second()).ok();
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => {
            let at = seconds(offset.to_timestamp(civil).ok()?)?;
            Some((at, at))
        }
        AmbiguousOffset::Fold { before, after } => {
            Some((seconds(before.to_timestamp(civil).ok()?)?, seconds(after.to_timestamp(civil).ok()?)?))
        }
        AmbiguousOffset::Gap { before, .. } => {
            let past = before.to_timestamp(civil).ok()?.checked_add(1.second()).ok()?;
            let at = seconds(zone.preceding(past).next()?.timestamp())?;
            Some((at, at))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Zone;
    use super::*;

    fn names(name: &str, zone: &str) -> Names {
        let rotation = Rotation {
            name: name.parse().unwrap(),
            zone: zone.parse().unwrap(),
            compress: Some(Compression::Gzip),
            ..Rotation::default()
        };
        Names::new(&rotation, Path::new("/logs/app.log"))
    }

    fn made(names: &Names, at: u64, number: u64) -> String {
        names.path(&names.base(at), number).display().to_string()
    }

    /// 2026-10-25T00:59:59Z: a second later Berlin's clocks are put back to 2:00.
    const OCTOBER: u64 = 1_792_889_999;

    #[test]
    fn names_have_the_time_of_their_zone() {
        for (name, zone, expected) in [
            ("seconds", "utc", "/logs/app.log.1792889999"),
            ("app-%Y-%m-%d.log", "utc", "/logs/app-2026-10-25.log"),
            ("{name}-%F{ext}", "Europe/Berlin", "/logs/app-2026-10-25.log"),
            ("old/app.%F_%H.%M.%S", "Europe/Berlin", "/logs/old/app.2026-10-25_02.59.59"),
            ("%Y%j-%s-100%%", "utc", "/logs/2026298-1792889999-100%"),
            ("app-%G-W%V", "Australia/Lord_Howe", "/logs/app-2026-W43"),
            ("/elsewhere/{name}.%Y", "utc", "/elsewhere/app.2026"),
        ] {
            assert_eq!(made(&names(name, zone), OCTOBER, 0), expected);
        }
        assert_eq!(made(&names("number", "utc"), OCTOBER, 7), "/logs/app.log.7");
        assert_eq!(made(&names("app-%F.log", "utc"), OCTOBER, 12), "/logs/app-2026-10-25.log.12");
        // Names without an extension.
        let rotation =
            Rotation { name: "{name}-%F{ext}".parse().unwrap(), zone: Zone::UTC, ..Rotation::default() };
        let bare = Names::new(&rotation, Path::new("/logs/messages"));
        assert_eq!(made(&bare, OCTOBER, 0), "/logs/messages-2026-10-25");
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for (pattern, expected) in [
            ("second", "seconds, number, or a pattern with a date"),
            ("app.log", "seconds, number, or a pattern with a date"),
            ("", "seconds, number, or a pattern with a date"),
            ("app-%Y-%m-%D.log", "not %D"),
            ("app-%Y%", "not % at the end"),
            ("app-%Y-{host}", "{name} or {ext}"),
            ("%Y/app-%m-%d.log", "not in its directory"),
            ("app-%m-%d.log", "%Y with %m"),
            ("app-%Y-%d.log", "%Y and %m with %d"),
            ("app-%H.log", "the date, such as %F with %H"),
            ("app-%Y-W%V.log", "%G (the year that the week belongs to) with %V"),
            ("app-%G.log", "%V (or %Y for a year of the calendar) with %G"),
            ("app-%F-%M.log", "%H with %M"),
            ("app-%F.log.gz", "without .gz"),
        ] {
            let error = pattern.parse::<super::super::RotatedName>().unwrap_err().to_string();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let berlin = names("app-%F.%H.log", "Europe/Berlin");
        for (name, ours) in [
            ("app-2026-10-25.02.log", true),
            ("app-2026-10-25.02.log.1", true),
            ("app-2026-10-25.02.log.12.gz", true),
            ("app-2026-10-25.02.log.zst", true),
            // There was no such hour.
            ("app-2026-03-29.02.log", false),
            ("app-2026-02-29.02.log", false),
            ("app-2026-10-25.24.log", false),
            ("app-2026-10-25.2.log", false),
            ("app-2026-10-25.02.log.0", false),
            ("app-2026-10-25.02.log.01", false),
            ("app-2026-10-25.02.log.20261025", false),
            ("app-2026-10-25.02.log.1.2", false),
            ("app-2026-10-25.02.log.gz.1", false),
            ("app-2026-10-25.02.log.part", false),
            ("app-2026-10-25.02.log.bz2", false),
            ("app-+026-10-25.02.log", false),
            ("app.log", false),
        ] {
            assert_eq!(berlin.parse(OsStr::new(name)).is_some(), ours, "{name}");
        }
        let numbers = names("number", "utc");
        for (name, ours) in [
            ("app.log.1", true),
            ("app.log.9999999", true),
            ("app.log.100000000", true),
            ("app.log.1.gz", true),
            ("app.log.0", false),
            ("app.log.01", false),
            ("app.log.1000", true),
            ("app.log.1126", false),
            ("app.log.1232", true),
            ("app.log.2020", false),
            ("app.log.202611", false),
            ("app.log.261101", false),
            ("app.log.2026330", false),
            ("app.log.20261101", false),
            ("app.log.1792889999", false),
            ("app.log", false),
        ] {
            assert_eq!(numbers.parse(OsStr::new(name)).is_some(), ours, "{name}");
        }
        assert_eq!(
            [0, 1, 9_999_999, 999_999_999].map(Names::next_number),
            [Some(1), Some(2), Some(100_000_000), None]
        );
        assert_eq!(
            [1000, 1899, 99_999, 1_899_999].map(Names::next_number),
            [Some(1232), Some(2200), Some(1_000_000), Some(2_200_000)]
        );
        // Without either attribute, compressed files belong to another archive.
        let plain = Names::new(&Rotation::default(), Path::new("/logs/app.log"));
        assert!(plain.parse(OsStr::new("app.log.1792889999")).is_some());
        assert!(plain.parse(OsStr::new("app.log.1792889999.gz")).is_none());
    }

    #[test]
    fn a_series_is_of_numbers_that_follow_on_one_another() {
        for (numbers, expected) in [
            (&[][..], 0..0),
            (&[1], 1..2),
            (&[57], 57..58),
            (&[4711], 0..0),
            (&[4711, 4712], 4711..4713),
            (&[6, 7, 5, 4711], 5..8),
            (&[1, 4711], 1..2),
            (&[1, 2, 998, 999, 1000, 1232], 998..1233),
            (&[1899, 2200], 1899..2201),
            // Some are removed.
            (&[5, 6, 8, 18], 5..19),
            (&[5, 6, 17], 5..7),
            (&[1, 2, 41, 42], 1..3),
            // A file and its compressed copy.
            (&[41, 41, 7, 8], 7..9),
        ] {
            assert_eq!(Names::series(numbers.to_vec()), expected, "{numbers:?}");
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let dates = ["%Y", "%Y-%m", "%Y%m%d", "%F", "%Y.%j", "%G-W%V", "%s"];
        let times = ["", "T%H", "-%H%M", ".%H.%M.%S"];
        let head = "[a-z0-9.%_-]{0,4}".prop_map(|text| text.replace('%', "%%"));
        let tail =
            prop_oneof![Just(String::new()), Just("{ext}".to_owned()), "[.][a-f0-9]{1,4}", "[0-9]{1,3}"];
        (head, 0..dates.len(), 0..times.len(), tail).prop_map(move |(head, date, time, tail)| {
            let time = if matches!(date, 2..=4) { times[time] } else { "" };
            format!("{head}{}{time}{tail}", dates[date])
        })
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![1 => Just("seconds".to_owned()), 1 => Just("number".to_owned()), 8 => pattern()]
    }

    fn any_zone() -> impl Strategy<Value = String> {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
        prop_oneof![
            Just("Europe/Berlin".to_owned()),
            Just("Australia/Lord_Howe".to_owned()),
            prop::sample::select(names)
        ]
    }

    proptest! {
        /// Every generated name is recognised, with its time and number, in every form.
        #[test]
        fn recognition_is_the_inverse_of_naming(
            name in any_name(),
            zone in any_zone(),
            at in 1_000_000_000_u64..4_200_000_000,
            number in prop_oneof![0_u64..20, Just(9_999_999), Just(100_000_000)],
        ) {
            let names = names(&name, &zone);
            // Seconds have no number after them, and numbers are never 0.
            let number = match name.as_str() { "seconds" => 0, "number" => number.max(1), _ => number };
            let path = names.path(&names.base(at), number);
            let (whole, part) = Names::compressed(&path, Compression::Zstd);
            for (path, form) in [
                (&path, Form::Plain),
                (&whole, Form::Compressed(Compression::Zstd)),
                (&part, Form::Part(Compression::Zstd)),
            ] {
                let parsed = names.parse(path.file_name().unwrap());
                let Some(parsed) = parsed else { panic!("{} is not recognised", path.display()) };
                prop_assert_eq!(parsed.form, form);
                prop_assert!(parsed.from <= at && at <= parsed.to, "{} {:?}", path.display(), parsed);
                if name != "seconds" {
                    prop_assert_eq!(parsed.series, number);
                }
                prop_assert_eq!(Names::original(path, form), names.path(&names.base(at), number));
            }
        }

        /// Every recognised name would be generated in exactly this form.
        #[test]
        fn only_what_can_be_made_is_recognised(
            name in any_name(),
            zone in any_zone(),
            at in 1_000_000_000_u64..4_200_000_000,
            number in 0_u64..20,
            changes in prop::collection::vec((0_usize..40, prop::sample::select(b"0123456789.-aTgzst".to_vec())), 1..4),
        ) {
            let names = names(&name, &zone);
            let made = names.path(&names.base(at), number);
            let mut foreign = made.file_name().unwrap().as_bytes().to_owned();
            for (position, letter) in changes {
                let position = position % (foreign.len() + 1);
                if position == foreign.len() { foreign.push(letter) } else { foreign[position] = letter }
            }
            if let Some(parsed) = names.parse(OsStr::from_bytes(&foreign)) {
                let number = if names.are_seconds() { 0 } else { parsed.series };
                let again = names.path(&names.base(parsed.from), number);
                let again = match parsed.form {
                    Form::Plain => again,
                    Form::Compressed(method) => Names::compressed(&again, method).0,
                    Form::Part(method) => Names::compressed(&again, method).1,
                };
                prop_assert_eq!(again.file_name().unwrap().as_bytes(), &*foreign);
            }
        }
    }
}
