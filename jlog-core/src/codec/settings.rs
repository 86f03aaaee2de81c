//! Settings that do not fit into the metastore: the file `settings`, one `key value` per line. A
//! jlog made by the C library has none, and that library's defaults apply.

use std::fmt::Write;
use std::time::Duration;

use crate::limits::{AtLimit, Limits, MIN_BYTES};

/// The settings of a jlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether writers keep checksums.
    pub checksums: bool,
    /// How much the jlog may hold.
    pub limits: Limits,
}

impl Settings {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "checksums {}", if self.checksums { "on" } else { "off" });
        if let Some(bytes) = self.limits.max_bytes {
            let _ = writeln!(out, "max_bytes {bytes}");
        }
        if let Some(age) = self.limits.max_age {
            let _ = writeln!(out, "max_age {}", age.as_secs());
        }
        if let Some(bytes) = self.limits.keep_free {
            let _ = writeln!(out, "keep_free {bytes}");
        }
        if self.limits.at_limit != AtLimit::default() {
            let _ = writeln!(out, "at_limit {}", self.limits.at_limit.name());
        }
        out
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// The line (from 1) and its fault.
    pub fn parse(text: &str) -> std::result::Result<Self, (usize, String)> {
        let mut settings = Self::default();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(char::is_whitespace).map(|(key, value)| (key, value.trim())) {
                Some(("checksums", "on")) => settings.checksums = true,
                Some(("checksums", "off")) => settings.checksums = false,
                Some(("checksums", _)) => {
                    return Err((i + 1, "checksums is neither on nor off".to_owned()));
                }
                Some((key @ ("max_bytes" | "max_age" | "keep_free"), value)) => {
                    let least = if key == "max_bytes" { MIN_BYTES } else { 1 };
                    let Some(n) = value.parse::<u64>().ok().filter(|&n| n >= least) else {
                        let why = format!("{key} is not a number of {least} or more");
                        return Err((i + 1, why));
                    };
                    match key {
                        "max_bytes" => settings.limits.max_bytes = Some(n),
                        "max_age" => settings.limits.max_age = Some(Duration::from_secs(n)),
                        _ => settings.limits.keep_free = Some(n),
                    }
                }
                Some(("at_limit", value)) => match AtLimit::from_name(value) {
                    Some(at_limit) => settings.limits.at_limit = at_limit,
                    None => {
                        return Err((i + 1, "at_limit is neither fail nor drop-oldest".to_owned()));
                    }
                },
                // The text is not quoted: the file may be a link to one that is not readable for
                // everybody.
                Some(_) => return Err((i + 1, "unknown setting (from a later version?)".to_owned())),
                None => return Err((i + 1, "no value: expected `key value`".to_owned())),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        for checksums in [true, false] {
            let max_age = Some(Duration::from_secs(60));
            let limits = Limits {
                max_bytes: Some(1 << 40),
                max_age,
                at_limit: AtLimit::DropOldest,
                keep_free: Some(5),
            };
            for limits in [Limits::default(), limits] {
                let settings = Settings { checksums, limits };
                assert_eq!(Settings::parse(&settings.to_text()), Ok(settings));
            }
        }
        assert_eq!(Settings::parse("# nothing\n\n"), Ok(Settings::default()));
    }

    #[test]
    fn mistakes_are_reported_by_line() {
        assert_eq!(Settings::parse("\nchecksums maybe\n").unwrap_err().0, 2);
        assert_eq!(Settings::parse("colour red").unwrap_err().0, 1);
        assert_eq!(Settings::parse("checksums").unwrap_err().0, 1);
        assert_eq!(Settings::parse("checksums on\nmax_bytes 0").unwrap_err().0, 2);
        assert_eq!(Settings::parse("max_age -1").unwrap_err().0, 1);
        assert_eq!(Settings::parse("at_limit explode").unwrap_err().0, 1);
    }
}
