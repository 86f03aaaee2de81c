//! The values of attributes.

use jiff::{Span, SpanRelativeTo};

use super::element::{Element, Place};
use super::error::{ConfigError, Result};

/// An attribute, and where it was found.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) place: &'a Place,
    pub(super) element: &'a Element,
}

impl<'a> Given<'a> {
    pub(super) fn find(element: &'a Element, name: &'a str) -> Option<Self> {
        element.attribute(name).map(|(text, place)| Self { name, text, place, element })
    }

    /// The attribute as errors show it.
    pub(super) fn shown(&self) -> String {
        let Self { name, text, element, .. } = self;
        if !self.place.source.shown {
            format!("{name} on {}", element.shown())
        } else if self.place.source.toml {
            format!("{name} = {text:?} in {}", element.shown())
        } else {
            format!("{name}={text:?} on {}", element.shown())
        }
    }

    pub(super) fn expected(&self, what: &str) -> ConfigError {
        self.place.error(format!("{}: expected {what}", self.shown()))
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        match &*self.text.to_ascii_lowercase() {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(self.expected("on, off, true or false")),
        }
    }

    pub(super) fn number(&self) -> Result<u64> {
        self.text.trim().parse().map_err(|_| self.expected("a number"))
    }

    /// Permission bits of a file, as `chmod` takes them.
    pub(super) fn mode(&self) -> Result<u32> {
        let mode = u32::from_str_radix(self.text.trim(), 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| self.expected("an octal mode, 0 to 777, such as 640"))
    }

    /// A number of bytes, with a unit if there is one.
    pub(super) fn bytes(&self) -> Result<u64> {
        bytes(self.text).ok_or_else(|| {
            if is_too_large(self.text, bytes) {
                self.expected("no more than 18446744073709551615 bytes")
            } else {
                self.expected(BYTES)
            }
        })
    }

    /// The same, but negative numbers and too large ones are allowed.
    pub(super) fn any_bytes(&self) -> Result<i128> {
        let text = self.text.trim();
        let (sign, size) = match text.strip_prefix('-') {
            Some(size) => (-1, size),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let number = match bytes(size) {
            Some(number) => Some(sign * i128::from(number)),
            None => is_too_large(size, bytes).then_some(sign * i128::from(u64::MAX)),
        };
        number.ok_or_else(|| self.expected(BYTES))
    }

    /// A number of seconds, or a duration with units; at least a second, or 0.
    pub(super) fn seconds(&self) -> Result<u64> {
        seconds(self.text).ok_or_else(|| {
            if is_too_large(self.text, seconds) {
                self.expected(
                    "no more than 18446744073709551615 seconds, or less than 20000 years with units",
                )
            } else {
                self.expected("a number of seconds, or a duration such as 90s, 30m, 12h or 7d")
            }
        })
    }
}

const BYTES: &str = "a number of bytes, such as 10000000, 10MB or 10MiB";

/// Whether a text would be right if its numbers were smaller.
fn is_too_large(text: &str, parse: fn(&str) -> Option<u64>) -> bool {
    let mut small = String::new();
    for c in text.chars() {
        if !c.is_ascii_digit() {
            small.push(c);
        } else if !small.ends_with('1') {
            small.push('1');
        }
    }
    parse(&small).is_some()
}

/// Bytes: a number, or one with a unit: kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of
/// 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(|&b| b.is_ascii_digit() || b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match &*unit.trim_start().to_ascii_lowercase() {
        "" => return number.parse().ok(),
        "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    // A fraction is rounded down to whole bytes.
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(part.parse::<u64>().ok()?).checked_mul(u128::from(factor))? / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let span: Span = text.parse().ok()?;
    // A day has 24 hours; months have no fixed length.
    let seconds = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.as_secs();
    u64::try_from(seconds).ok().filter(|&seconds| seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            (" 10000 ", Some(10_000)),
            ("10MB", Some(10_000_000)),
            ("10 mb", Some(10_000_000)),
            ("10MiB", Some(10 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2kB", Some(2000)),
            ("7B", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("17000000TiB", None),
            ("10M", None),
            ("MB", None),
            ("", None),
            ("1.", None),
            ("1.5", None),
            (".5MB", None),
            ("1.2.3MB", None),
            ("-1", None),
            ("-1MB", None),
            ("1e6", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
            let too_large = matches!(text, "18446744073709551616" | "17000000TiB");
            assert_eq!(expected.is_none() && is_too_large(text, bytes), too_large, "{text:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("604800", Some(604_800)),
            ("7d", Some(604_800)),
            ("1w", Some(604_800)),
            ("90s", Some(90)),
            ("30m", Some(1800)),
            ("12h", Some(43_200)),
            ("1h 30m", Some(5400)),
            ("7 days", Some(604_800)),
            ("1month", None),
            ("10ms", None),
            ("-7d", None),
            ("-1", None),
            ("", None),
            ("soon", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999d", None),
            ("1h 99999999999999999999m", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
            let too_large = text.contains("18446744073709551616") || text.contains("99999999999");
            assert_eq!(expected.is_none() && is_too_large(text, seconds), too_large, "{text:?}");
        }
    }
}
