//! The options of rotation: when it happens, the names of rotated files, and which are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::error::RotationError;
use super::template::Template;

/// When a file is rotated, what happens to rotated files, and which of them are kept. By default,
/// files are never rotated, and all are kept.
///
/// By day, named by date, compressed, and kept for a month:
///
/// ```
/// use logdag::{RotateAt, Rotation};
///
/// let rotation = Rotation::new()
///     .at(RotateAt::Daily)
///     .zone("Europe/Berlin".parse()?)
///     .name("app-%Y-%m-%d.log".parse()?)
///     // .compress(logdag::Compression::Gzip), with the feature `gzip`
///     .retain_count(30);
/// assert!(rotation.rotates());
/// assert!("app-%m-%d.log".parse::<logdag::RotatedName>().is_err(), "names of two years would be the same");
/// # Ok::<(), logdag::RotationError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    // In these numbers, 0 means never, or all.
    pub(crate) seconds: u64,
    pub(crate) at: Option<RotateAt>,
    pub(crate) bytes: u64,
    pub(crate) on_start: bool,
    pub(crate) zone: Zone,
    pub(crate) name: RotatedName,
    pub(crate) compress: Option<Compression>,
    pub(crate) retain_seconds: u64,
    pub(crate) retain_bytes: u64,
    pub(crate) retain_count: u64,
}

impl Rotation {
    /// Files are never rotated, and rotated ones are kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rotate at multiples of this time since 1970 UTC, in whole seconds; less than a second means
    /// never.
    #[must_use]
    pub fn every(self, time: Duration) -> Self {
        Self { seconds: time.as_secs(), ..self }
    }

    /// Rotate when a period of the calendar ends in the [`zone`](Rotation::zone).
    #[must_use]
    pub fn at(self, at: RotateAt) -> Self {
        Self { at: Some(at), ..self }
    }

    /// Rotate with the line that reaches this many bytes; 0 means never.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// Whether to rotate an existing file when this process first opens it. A
    /// [`Graph`](crate::Graph) does so by itself; for a sink without a graph, call
    /// [`Sink::begin`](crate::Sink::begin).
    #[must_use]
    pub fn on_start(self, yes: bool) -> Self {
        Self { on_start: yes, ..self }
    }

    /// The time zone for [`at`](Rotation::at) and for the names of rotated files: UTC by default.
    #[must_use]
    pub fn zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }

    /// The names of rotated files: by default those of libmtev.
    #[must_use]
    pub fn name(self, name: RotatedName) -> Self {
        Self { name, ..self }
    }

    /// How a separate thread compresses rotated files. Existing ones are compressed, too.
    #[must_use]
    pub fn compress(self, method: Compression) -> Self {
        Self { compress: Some(method), ..self }
    }

    /// Remove files that were rotated longer ago than this, in whole seconds; less than a second
    /// keeps all.
    #[must_use]
    pub fn retain_for(self, time: Duration) -> Self {
        Self { retain_seconds: time.as_secs(), ..self }
    }

    /// Remove the oldest files while all together have more than this many bytes. Compressed files
    /// count with their compressed size. 0 keeps all.
    #[must_use]
    pub fn retain_bytes(self, bytes: u64) -> Self {
        Self { retain_bytes: bytes, ..self }
    }

    /// Keep at most this many files; 0 keeps all.
    #[must_use]
    pub fn retain_count(self, files: u64) -> Self {
        Self { retain_count: files, ..self }
    }

    /// Whether files are rotated without an explicit call.
    pub fn rotates(&self) -> bool {
        self.by_time() || self.bytes > 0 || self.on_start
    }

    /// Whether there is a limit that removes rotated files.
    pub fn retains(&self) -> bool {
        (self.retain_seconds, self.retain_bytes, self.retain_count) != (0, 0, 0)
    }

    pub(super) fn by_time(&self) -> bool {
        self.seconds > 0 || self.at.is_some()
    }

    /// Whether compressed files count as rotated ones. A rotation that sets neither compression nor
    /// names leaves them alone, as libmtev does.
    pub(super) fn knows_compressed(&self) -> bool {
        self.compress.is_some() || self.name != RotatedName::default()
    }

    /// The approximate length of the shortest period, in seconds.
    pub(crate) fn shortest_period(&self) -> Option<u64> {
        let calendar = self.at.map(|at| match at {
            RotateAt::Hourly => 3600,
            RotateAt::Daily => 86_400,
            RotateAt::Weekly => 604_800,
            RotateAt::Monthly => 2_592_000,
        });
        [calendar, Some(self.seconds).filter(|&seconds| seconds > 0)].into_iter().flatten().min()
    }
}

/// In words:
/// `rotates daily (Europe/Berlin) to {name}-%F{ext}, compresses with gzip, keeps 30 files`. Empty
/// if nothing is rotated.
impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rotates() {
            return Ok(());
        }
        let mut when = Vec::new();
        if self.on_start {
            when.push("at the start".to_owned());
        }
        if let Some(at) = self.at {
            when.push(format!("{} ({})", at.name(), self.zone));
        }
        if self.seconds > 0 {
            when.push(format!("every {} s", self.seconds));
        }
        if self.bytes > 0 {
            when.push(format!("at {} bytes", self.bytes));
        }
        write!(f, "rotates {}", when.join(", "))?;
        if self.name != RotatedName::default() {
            write!(f, " to {}", self.name)?;
        }
        if let Some(method) = self.compress {
            write!(f, ", compresses with {}", method.name())?;
        }
        let kept =
            [(self.retain_count, "files"), (self.retain_bytes, "bytes"), (self.retain_seconds, "seconds")];
        let one =
            |n, what: &str| if n == 1 { what.trim_end_matches('s').to_owned() } else { what.to_owned() };
        let kept: Vec<String> =
            kept.iter().filter(|(n, _)| *n > 0).map(|&(n, what)| format!("{n} {}", one(n, what))).collect();
        if kept.is_empty() { Ok(()) } else { write!(f, ", keeps {}", kept.join(", ")) }
    }
}

/// A calendar period. It begins by local time: at the full hour, at midnight, at midnight before
/// Monday, or at midnight before the first of a month. An hour that the end of summer time repeats
/// counts separately; a day of 23 or 25 hours is one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotateAt {
    /// `hourly`
    Hourly,
    /// `daily`
    Daily,
    /// `weekly`
    Weekly,
    /// `monthly`
    Monthly,
}

impl RotateAt {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

impl FromStr for RotateAt {
    type Err = RotationError;

    fn from_str(text: &str) -> Result<Self, RotationError> {
        let found = Self::ALL.into_iter().find(|at| at.name() == text);
        found.ok_or_else(|| RotationError::new("hourly, daily, weekly or monthly"))
    }
}

/// How rotated files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// `gzip`: files end in `.gz`. It needs the feature `gzip`.
    Gzip,
    /// `zstd`: files end in `.zst`. It needs the feature `zstd`.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// Its name in configurations, which is also the name of the feature that it needs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Whether its feature is on.
    pub fn available(self) -> bool {
        match self {
            Self::Gzip => cfg!(feature = "gzip"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// What is added to the name of a compressed file.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

impl FromStr for Compression {
    type Err = RotationError;

    fn from_str(text: &str) -> Result<Self, RotationError> {
        let found = Self::ALL.into_iter().find(|method| method.name() == text);
        found.ok_or_else(|| RotationError::new("gzip or zstd"))
    }
}

/// A time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone(Of);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Of {
    #[default]
    Local,
    Named(TimeZone),
}

impl Zone {
    /// The zone of this machine: `TZ`, or else `/etc/localtime`. The default.
    pub const LOCAL: Self = Self(Of::Local);
    /// Coordinated universal time.
    pub const UTC: Self = Self(Of::Named(TimeZone::UTC));

    pub(super) fn time_zone(&self) -> TimeZone {
        match &self.0 {
            Of::Local => TimeZone::system(),
            Of::Named(zone) => zone.clone(),
        }
    }

    /// Names of zones that this machine knows.
    pub(crate) fn known() -> Vec<String> {
        let names = jiff::tz::db().available();
        let fixed = ["local", "utc"].map(str::to_owned);
        fixed.into_iter().chain(names.map(|name| name.as_str().to_owned())).collect()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Of::Local => "local",
            Of::Named(zone) if *zone == TimeZone::UTC => "utc",
            Of::Named(zone) => zone.iana_name().unwrap_or("local"),
        })
    }
}

impl FromStr for Zone {
    type Err = RotationError;

    /// `local`, `utc`, or a name of the time zone database such as `Europe/Berlin`.
    fn from_str(text: &str) -> Result<Self, RotationError> {
        match text {
            "local" => Ok(Self::LOCAL),
            "utc" | "UTC" => Ok(Self::UTC),
            name => TimeZone::get(name).map(|zone| Self(Of::Named(zone))).map_err(|_| {
                let missing = jiff::tz::db().is_definitively_empty();
                let why = if missing { " (there is no time zone database on this machine)" } else { "" };
                let what = "local, utc, or a name of the time zone database such as Europe/Berlin";
                RotationError::new(format!("{what}{why}"))
            }),
        }
    }
}

/// The names of rotated files.
///
/// - `seconds`, the default and libmtev's: `PATH.SECONDS`, with the ten digits of the time of the
///   rotation.
/// - `number`: `PATH.1`, `PATH.2` and so on. Numbers go up, and a file keeps its own: the highest
///   is the newest. Numbers that would read as dates are left out: 1001 to 1231 (MMDD), 1900 to
///   2199 (years), 1,900,000 to 2,199,999 (YYYYDDD), and all of 6 or 8 digits. Files count as
///   rotated ones only if their numbers are consecutive; up to 9 may be missing in between. If
///   there are several such runs, the longest counts, or of equally long ones the lowest; a single
///   number from 1000 on is not a run. Retention, compression and numbering leave all other files
///   alone.
/// - a pattern such as `app-%Y-%m-%d.log`: the name of a file in the log's directory, or a path
///   relative to it. The time in the name is that of the rotation, but never later than the period
///   of the lines: a file that is rotated at midnight has the date of the day that is over. If a
///   name is taken, `.1`, `.2` and so on follow it, under the same rules as `number`.
///
/// Directives of patterns are `%Y` `%m` `%d` `%F` (for `%Y-%m-%d`) `%H` `%M` `%S`, `%j` (day of the
/// year), `%G` and `%V` (year and week of ISO 8601), `%s` (seconds since 1970) and `%%`. `{name}`
/// and `{ext}` are the log's own name without its extension, and the extension with its dot:
/// `{name}-%F{ext}` fits any log. Directives are allowed in the file's name, not in its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotatedName(pub(super) Naming);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Naming {
    #[default]
    Seconds,
    Number,
    Pattern(Template),
}

impl RotatedName {
    /// The directory in a pattern, if it has one.
    pub(super) fn directory(&self) -> Option<&str> {
        match &self.0 {
            Naming::Pattern(template) => template.directory(),
            _ => None,
        }
    }

    /// If its names have times, the approximate shortest time that they distinguish, in seconds,
    /// and the directive for it.
    pub(crate) fn resolution(&self) -> Option<(u64, &'static str)> {
        match &self.0 {
            Naming::Seconds => Some((1, "%s")),
            Naming::Number => None,
            Naming::Pattern(template) => Some(template.resolution()),
        }
    }
}

impl FromStr for RotatedName {
    type Err = RotationError;

    fn from_str(text: &str) -> Result<Self, RotationError> {
        Ok(Self(match text {
            "seconds" => Naming::Seconds,
            "number" => Naming::Number,
            pattern => Naming::Pattern(Template::parse(pattern)?),
        }))
    }
}

impl fmt::Display for RotatedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Naming::Seconds => "seconds",
            Naming::Number => "number",
            Naming::Pattern(template) => template.text(),
        })
    }
}
