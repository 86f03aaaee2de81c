//! Levels of lines, and the minimum levels of streams.

use crate::value::Value;
use std::fmt;

/// The level of a line, in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Every step, for detailed debugging.
    Trace,
    /// For debugging.
    Debug,
    /// Normal operation.
    #[default]
    Info,
    /// Something that needs attention.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// All levels, the least serious first.
    pub const ALL: [Level; 5] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warning",
            Level::Error => "error",
        }
    }

    /// The level of a name that loggers use, in any case: `warn` and `WARNING`, `notice`, `crit`,
    /// `fatal`, …
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match &*name.trim().to_ascii_lowercase() {
            "trace" | "finest" | "finer" | "verbose" | "silly" => Level::Trace,
            "debug" | "fine" | "dbg" => Level::Debug,
            "info" | "information" | "informational" | "notice" | "log" | "config" | "default" => Level::Info,
            "warning" | "warn" => Level::Warn,
            "error" | "err" | "severe" | "critical" | "crit" | "alert" | "emergency" | "emerg" | "fatal"
            | "panic" | "dpanic" => Level::Error,
            _ => return None,
        })
    }

    /// A level by its name or number, the latter also as text.
    pub(crate) fn of_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Str(text) => {
                Level::from_name(text).or_else(|| text.trim().parse().ok().and_then(Level::from_number))
            }
            value => Level::from_number(value.as_number()?),
        }
    }

    /// The level of a number: of pino and bunyan from 10 on (30 is info), of syslog below (6 is
    /// info). Numbers between those of pino belong to the next lower one.
    pub fn from_number(number: f64) -> Option<Self> {
        Some(match number {
            0.0..4.0 | 50.0.. => Level::Error,
            4.0..5.0 | 40.0..50.0 => Level::Warn,
            5.0..7.0 | 30.0..40.0 => Level::Info,
            7.0..8.0 | 20.0..30.0 => Level::Debug,
            10.0..20.0 => Level::Trace,
            _ => return None,
        })
    }

    /// The level of a syslog severity: 0 is an emergency, 7 is for debugging.
    pub const fn from_severity(severity: u8) -> Self {
        match severity {
            0..=3 => Level::Error,
            4 => Level::Warn,
            5 | 6 => Level::Info,
            _ => Level::Debug,
        }
    }

    /// Its syslog severity: 3 for an error, 4, 6, and 7 for debug and trace.
    pub const fn severity(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }

    /// Its number in filters, as pino has them: 10 for trace, 50 for an error.
    pub const fn number(self) -> u8 {
        10 * (self as u8 + 1)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The minimum level of a stream: a level's number, or [`NOTHING`](Threshold::NOTHING).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Threshold(u8);

impl Threshold {
    /// Every line is taken.
    pub(crate) const ALL: Self = Self(Level::Trace as u8);
    /// No line is.
    pub(crate) const NOTHING: Self = Self(Level::Error as u8 + 1);

    pub(crate) const fn from(level: Level) -> Self {
        Self(level as u8)
    }

    /// The levels above the minimum.
    pub(crate) const fn above(self) -> Self {
        if self.0 < Self::NOTHING.0 { Self(self.0 + 1) } else { self }
    }

    #[inline]
    pub(crate) const fn takes(self, level: Level) -> bool {
        level as u8 >= self.0
    }

    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    #[inline]
    pub(crate) const fn of_number(number: u8) -> Self {
        Self(number)
    }
}

/// An invalid text of [`Levels`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{directive:?}: expected LEVEL, STREAM=LEVEL or STREAM, with a level of off, error, warn, info, debug, trace"
)]
pub struct LevelsError {
    /// The invalid part.
    pub directive: String,
}

/// The minimum levels of streams, by name, in the syntax that Rust programs read from `RUST_LOG`.
///
/// ```
/// use logdag::{Graph, Level, log};
///
/// let graph = Graph::new();
/// graph.add_memory("web", 10, 1000)?;
/// let (web, pool) = (graph.stream("web")?, graph.stream("web/db/pool")?);
/// graph.set_levels("info,web::db=warn".parse()?);
/// assert!(web.accepts(Level::Info) && !web.accepts(Level::Debug));
/// assert!(pool.accepts(Level::Warn) && !pool.accepts(Level::Info));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Directives are separated by commas. `LEVEL` is for all streams, `STREAM=LEVEL` for one and those
/// below it, `STREAM` is short for `STREAM=trace`; the longest matching name counts, and the last
/// of equal ones. `::` in a name is `/`. Streams without a directive are not restricted. A
/// directive only restricts: it never lets a line pass that an outlet's filter holds back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Names (the empty one for all), and the minimum levels of their streams.
    directives: Vec<(String, u8)>,
}

impl Levels {
    /// The minimum level of a stream.
    pub(crate) fn of(&self, stream: &str) -> Threshold {
        let is_for = |name: &str| {
            let rest = stream.strip_prefix(name);
            rest.is_some_and(|rest| name.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let fitting = self.directives.iter().filter(|(name, _)| is_for(name));
        fitting.max_by_key(|(name, _)| name.len()).map_or(Threshold::ALL, |&(_, least)| Threshold(least))
    }

    /// Whether there is no directive.
    pub fn is_empty(&self) -> bool {
        self.directives.is_empty()
    }

    /// The levels of the first of these variables that is set and not empty; none if none is.
    ///
    /// # Errors
    /// A directive is invalid.
    pub fn from_env(variables: &[&str]) -> Result<Self, LevelsError> {
        let text = variables.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
        text.as_deref().unwrap_or_default().parse()
    }
}

impl std::str::FromStr for Levels {
    type Err = LevelsError;

    fn from_str(text: &str) -> Result<Self, LevelsError> {
        let mut levels = Self::default();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let wrong = || LevelsError { directive: directive.to_owned() };
            let (name, least) = match directive.split_once('=') {
                Some((name, level)) => (name.trim(), least(level.trim()).ok_or_else(wrong)?),
                None => match least(directive) {
                    Some(least) => ("", least),
                    None => (directive, Threshold::ALL),
                },
            };
            let name = name.replace("::", "/");
            // Filters of spans, fields and messages, which other crates accept, would be
            // misunderstood here.
            let is_name = !name.contains(['[', ']', '{', '}', '=']) && !name.split('/').any(str::is_empty);
            if !name.is_empty() && !is_name {
                return Err(wrong());
            }
            levels.directives.push((name, least.number()));
        }
        Ok(levels)
    }
}

/// A level by the names that it has in directives; any other name is a stream's.
fn least(level: &str) -> Option<Threshold> {
    let strict = ["trace", "debug", "info", "warn", "warning", "error"];
    if level.eq_ignore_ascii_case("off") {
        return Some(Threshold::NOTHING);
    }
    strict.iter().any(|name| level.eq_ignore_ascii_case(name)).then_some(())?;
    Level::from_name(level).map(Threshold::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (name, level) in [
            ("TRACE", Some(Level::Trace)),
            ("Warn", Some(Level::Warn)),
            ("warning", Some(Level::Warn)),
            ("fatal", Some(Level::Error)),
            (" notice ", Some(Level::Info)),
            ("errr", None),
            ("", None),
        ] {
            assert_eq!(Level::from_name(name), level, "{name}");
        }
        for (number, level) in [
            (0.0, Some(Level::Error)),
            (4.0, Some(Level::Warn)),
            (6.0, Some(Level::Info)),
            (7.0, Some(Level::Debug)),
            (8.0, None),
            (10.0, Some(Level::Trace)),
            (20.0, Some(Level::Debug)),
            (35.0, Some(Level::Info)),
            (60.0, Some(Level::Error)),
            (-1.0, None),
            (f64::NAN, None),
        ] {
            assert_eq!(Level::from_number(number), level, "{number}");
        }
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
            assert_eq!(Level::from_number(f64::from(level.number())), Some(level));
        }
    }

    #[test]
    fn the_longest_name_counts() {
        let levels: Levels = "warn, web=debug ,web::db::pool=off,db,noisy=TRACE,noisy=error".parse().unwrap();
        for (stream, expected) in [
            ("other", Some(Level::Warn)),
            ("web", Some(Level::Debug)),
            ("web/http", Some(Level::Debug)),
            ("website", Some(Level::Warn)),
            ("web/db/pool/x", None),
            ("db/x", Some(Level::Trace)),
            ("noisy", Some(Level::Error)),
        ] {
            let least = Level::ALL.into_iter().find(|&level| levels.of(stream).takes(level));
            assert_eq!(least, expected, "{stream}");
        }
        assert_eq!("".parse::<Levels>().unwrap(), Levels::default());
        for wrong in ["a=loud", "a=", "[span]=debug", "a[x{y=z}]=info", "info/regex/"] {
            assert_eq!(wrong.parse::<Levels>().unwrap_err().directive, wrong, "{wrong}");
        }
    }
}
