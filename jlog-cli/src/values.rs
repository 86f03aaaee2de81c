//! Values on the command line: sizes, ages, names; and numbers as they are printed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{TypedValueParser, ValueParserFactory};
use jiff::Timestamp;
use jlog_core::SubscriberName;

/// A size such as `4MiB`, up to 4 GiB.
pub fn size(text: &str) -> Result<u32, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "expected a size such as 65536, 64KiB or 4MiB".to_owned())?;
    u32::try_from(size.as_u64()).map_err(|_| "larger than 4 GiB".to_owned())
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T>(pub Option<T>);

/// A limit in bytes such as `2GiB`; `none` for no limit.
pub fn limit(text: &str) -> Result<Limit<u64>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let size: ByteSize =
        text.parse().map_err(|_| "expected a size such as 500MiB or 2GiB, or none".to_owned())?;
    Ok(Limit(Some(size.as_u64())))
}

/// A time span such as `12h` or `7d`, in whole seconds; `none` for no limit.
pub fn age(text: &str) -> Result<Limit<Duration>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let expected = "expected a time such as 90s, 12h or 7d, or none";
    let span: jiff::Span = text.parse().map_err(|_| expected.to_owned())?;
    let seconds = span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours()));
    match seconds {
        // A float represents whole seconds in this range exactly.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(seconds) if (1.0..1e10).contains(&seconds) => Ok(Limit(Some(Duration::from_secs(seconds as u64)))),
        _ => Err(expected.to_owned()),
    }
}

/// A file mode in octal.
pub fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "expected permission bits in octal, such as 640".to_owned())
}

/// A subscriber's name: any bytes.
#[derive(Clone, Debug)]
pub struct Name(pub SubscriberName);

impl ValueParserFactory for Name {
    type Parser = NameParser;

    fn value_parser() -> NameParser {
        NameParser
    }
}

/// Parses a [`Name`].
#[derive(Clone)]
pub struct NameParser;

impl TypedValueParser for NameParser {
    type Value = Name;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Name, clap::Error> {
        let bytes = OsString::from(value).into_vec();
        SubscriberName::new(&bytes).map(Name).map_err(|e| {
            let what = argument.map_or_else(String::new, |a| format!(" for {a}"));
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("invalid value{what}: {e}\n"))
                .with_cmd(command)
        })
    }
}

/// A record's time for jiff.
pub fn to_jiff(time: jlog_core::Timestamp) -> Timestamp {
    i64::try_from(time.as_micros()).ok().and_then(|t| Timestamp::from_microsecond(t).ok()).unwrap_or_default()
}

/// A time as in records; times before 1970 become 1970.
pub fn from_jiff(time: Timestamp) -> jlog_core::Timestamp {
    std::time::SystemTime::from(time).into()
}

/// A size for people.
pub fn human(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// An HTTP header: a name, a colon and a value.
#[cfg(feature = "ship")]
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// The condition for a message to be shipped.
#[cfg(feature = "ship")]
pub fn filter(text: &str) -> Result<jlog_ship::Filter, String> {
    jlog_ship::Filter::parse(text).map_err(|e| e.to_string())
}

/// A valid entry of a mapping.
#[cfg(feature = "ship")]
pub fn map(text: &str) -> Result<(String, String), String> {
    let (key, template) = text.split_once('=').ok_or("an entry is KEY=TEMPLATE")?;
    jlog_ship::Mapping::new().set(key, template)?;
    Ok((key.to_owned(), template.to_owned()))
}

/// A number with thousands separated.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with what it counts, in the singular or the plural.
pub fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// A time span for people, in its largest unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ages_and_modes() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("4KiB"), Ok(4096));
        assert!(size("4 elephants").is_err());
        assert!(size("5GiB").is_err());
        assert!(size("-1").is_err());
        assert_eq!(mode("640"), Ok(0o640));
        assert!(mode("888").is_err());
        assert_eq!(limit("2GiB"), Ok(Limit(Some(2 << 30))));
        assert_eq!(limit("none"), Ok(Limit(None)));
        assert!(limit("much").is_err());
        assert_eq!(age("12h"), Ok(Limit(Some(Duration::from_secs(12 * 3600)))));
        assert_eq!(age("7d"), Ok(Limit(Some(Duration::from_secs(7 * 86_400)))));
        assert_eq!(age("none"), Ok(Limit(None)));
        for wrong in ["", "0s", "-3h", "soon", "10ms"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
        assert_eq!(counted(1_000, "record"), "1,000 records");
    }
}
