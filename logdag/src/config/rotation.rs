//! The attributes of rotation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::Result;
use super::value::Given;
use crate::sink::{
    Compression, RotateAt, RotatedName, Rotation, RotationError, SinkSpec, Zone, name_of_rotated,
};
use crate::suggest::did_you_mean;

/// The smallest values for rotation, as in libmtev.
const MIN_SECONDS: u64 = 600;
const MIN_BYTES: u64 = 102_400;
/// The value that turns off an inherited setting.
const OFF: &str = "off";

/// Looks up an attribute of a stream, or of the nearest element above it that has it.
type Inherited<'i, 'a> = &'i dyn Fn(&'static str) -> Option<Given<'a>>;

fn parsed<T: FromStr<Err = RotationError>>(given: Given<'_>, known: &[&str]) -> Result<T> {
    given.text.parse().map_err(|e: RotationError| {
        given.expected(&format!("{}{}", e.expected, did_you_mean(given.text, known)))
    })
}

/// The same, but `None` for `off`.
fn parsed_or_off<T: FromStr<Err = RotationError>>(
    given: Option<Given<'_>>,
    known: &[&str],
) -> Result<Option<T>> {
    given.filter(|given| given.text != OFF).map(|given| parsed(given, known)).transpose()
}

fn zone(given: Given<'_>) -> Result<Zone> {
    given.text.parse().map_err(|e: RotationError| {
        let known = Zone::known();
        let known: Vec<&str> = known.iter().map(|name| &**name).collect();
        given.expected(&format!("{}{}", e.expected, did_you_mean(given.text, &known)))
    })
}

fn compress(given: Option<Given<'_>>, known: &[&str]) -> Result<Option<Compression>> {
    let method = parsed_or_off::<Compression>(given, known)?;
    match (given, method.filter(|method| !method.available())) {
        (Some(given), Some(method)) => {
            let why = format!("{} needs logdag's feature {}", given.shown(), method.name());
            Err(given.place.error(why))
        }
        _ => Ok(method),
    }
}

pub(super) fn read(inherited: Inherited<'_, '_>) -> Result<Rotation> {
    let size = |name: &'static str| inherited(name).map_or(Ok(0), |given| given.bytes());
    let seconds = |name: &'static str| inherited(name).map_or(Ok(0), |given| given.seconds());
    let at_least = |name: &'static str, n: u64, least: u64| match inherited(name) {
        // 0 turns off an inherited rotation.
        Some(given) if n > 0 && n < least => {
            Err(given.expected(&format!("{least} or more, or 0 for no rotation")))
        }
        _ => Ok(n),
    };
    let known: Vec<&str> = RotateAt::ALL.iter().map(|at| at.name()).collect();
    let methods: Vec<&str> = Compression::ALL.iter().map(|method| method.name()).collect();
    Ok(Rotation {
        seconds: at_least("rotate_seconds", seconds("rotate_seconds")?, MIN_SECONDS)?,
        at: parsed_or_off(inherited("rotate_at"), &known)?,
        bytes: at_least("rotate_bytes", size("rotate_bytes")?, MIN_BYTES)?,
        on_start: inherited("rotate_on_start").map_or(Ok(false), |given| given.boolean())?,
        zone: inherited("rotate_zone").map(zone).transpose()?.unwrap_or_default(),
        name: match inherited("rotate_name") {
            Some(given) => parsed(given, &["seconds", "number"])?,
            None => RotatedName::default(),
        },
        compress: compress(inherited("compress"), &methods)?,
        retain_seconds: seconds("retain_seconds")?,
        retain_bytes: size("retain_bytes")?,
        retain_count: inherited("retain_count").map_or(Ok(0), |given| given.number())?,
    })
}

/// Attributes that say when a file is rotated.
pub(super) const ROTATES: [&str; 4] = ["rotate_bytes", "rotate_seconds", "rotate_at", "rotate_on_start"];

/// Whether a value turns off an inherited setting.
pub(super) fn is_off(text: &str) -> bool {
    ["", "0", OFF, "false"].contains(&&*text.trim().to_ascii_lowercase())
}

/// Combinations that make no sense, each with the attribute that it is about. If a stream turns off
/// an inherited rotation, settings for rotated files are not doubtful: they are for other streams,
/// or for later.
pub(super) fn doubts<'a>(
    rotation: &Rotation,
    inherited: Inherited<'_, 'a>,
    switched_off: bool,
) -> Vec<(Given<'a>, String)> {
    let mut doubts = Vec::new();
    let mut doubt = |name: &'static str, why: &str| {
        if let Some(given) = inherited(name).filter(|given| !is_off(given.text)) {
            doubts.push((given, format!("{} {why}", given.shown())));
        }
    };
    if !rotation.rotates() {
        if switched_off {
            return doubts;
        }
        let why = "has no effect without rotate_bytes, rotate_seconds, rotate_at or rotate_on_start";
        for name in
            ["retain_seconds", "retain_bytes", "retain_count", "rotate_name", "rotate_zone", "compress"]
        {
            doubt(name, why);
        }
        return doubts;
    }
    let resolution = rotation.name.resolution();
    if rotation.at.is_none() && (rotation.name == RotatedName::default() || resolution.is_none()) {
        doubt("rotate_zone", "has no effect without rotate_at or a pattern in rotate_name");
    }
    if let (Some((shortest, directive)), Some(period)) = (resolution, rotation.shortest_period())
        && shortest > period
    {
        let why = format!(
            "names files for longer than a period of the rotation: they would differ only by .1, .2 and so on; expected a directive finer than {directive}"
        );
        doubt("rotate_name", &why);
    }
    doubts
}

/// The streams that rotate, by the names of their rotated files.
#[derive(Default)]
pub(super) struct RotatedNames<'s>(BTreeMap<PathBuf, &'s str>);

impl<'s> RotatedNames<'s> {
    /// Another stream whose rotated files would have the same names, if there is one.
    pub(super) fn taken(&mut self, stream: &'s str, sink: &SinkSpec) -> Option<&'s str> {
        let name = name_of_rotated(Path::new(&sink.path), &sink.rotation);
        let other = *self.0.entry(name).or_insert(stream);
        (other != stream).then_some(other)
    }
}
