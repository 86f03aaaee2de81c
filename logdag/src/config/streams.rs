//! Elements as streams.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fancy_regex::Regex;

use super::{Config, Element, Place, Result};
use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::graph::{Configured, StreamOptions};
use crate::level::Level;
use crate::sink::{Access, Rotation, SinkSpec, WhenFull};

/// Smallest values that rotation may have, as libmtev has them.
const MIN_ROTATE_SECONDS: u64 = 600;
const MIN_ROTATE_BYTES: u64 = 102_400;
const ATTRIBUTES: &[&str] = &[
    "name",
    "type",
    "path",
    "format",
    "disabled",
    "debug",
    "facility",
    "timestamps",
    "level",
    "keys",
    "target",
    "source",
    "spans",
    "escape",
    "stats",
    "dedup_seconds",
    "require_env",
    "rotate_seconds",
    "retain_seconds",
    "rotate_bytes",
    "retain_bytes",
    "retain_count",
    "latest",
    "mode",
    "owner",
    "group",
    "when_full",
    "max_line",
    "queue_bytes",
];

/// The streams below a root.
pub(super) fn read(root: &Element) -> Result<Config> {
    let mut reader = Reader {
        streams: Vec::new(),
        places: Vec::new(),
        left_out: Vec::new(),
        names: BTreeSet::new(),
        configs: BTreeMap::new(),
    };
    collect_configs(root, &mut reader.configs);
    reader.find_logs(root, &mut Vec::new())?;
    reader.check_files()?;
    reader.check_jlogs()?;
    Ok(Config { streams: reader.streams, places: reader.places, left_out: reader.left_out })
}

pub(super) fn boolean(text: &str, place: &Place) -> Result<bool> {
    match &*text.to_ascii_lowercase() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(place.error(format!("{text:?}: expected on, off, true or false"))),
    }
}

fn number(text: &str, place: &Place) -> Result<u64> {
    text.trim().parse().map_err(|_| place.error(format!("{text:?}: expected a number")))
}

/// Permission bits of a file, as `chmod` takes them.
fn mode(text: &str, place: &Place) -> Result<u32> {
    let mode = u32::from_str_radix(text.trim(), 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| place.error(format!("{text:?}: expected an octal mode, 0 to 777 (for example 640)")))
}

fn collect_configs<'a>(element: &'a Element, out: &mut BTreeMap<String, &'a Element>) {
    if let Some((id, _)) = element.attribute("id").filter(|_| element.name == "config") {
        out.insert(id.to_owned(), element);
    }
    for child in &element.children {
        collect_configs(child, out);
    }
}

/// Whether a condition on the environment holds.
fn environment_holds(text: &str, place: &Place) -> Result<bool> {
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let at = text.find(['=', '~']);
    let name = &text[..at.unwrap_or(text.len())];
    if name.is_empty() {
        return Err(place.error("expected VAR, VAR=value or VAR~regex, with or without a leading !"));
    }
    let value = std::env::var(name).ok();
    let holds = match at {
        None => value.is_some(),
        Some(at) if text[at..].starts_with('=') => value.as_deref() == Some(&text[at + 1..]),
        Some(at) => {
            let regex = Regex::new(&text[at + 1..])
                .map_err(|e| place.error(format!("expected a regular expression ({e})")))?;
            value.is_some_and(|value| regex.is_match(&value).unwrap_or(false))
        }
    };
    Ok(holds != negated)
}

/// A path by which a file is known, however it is written.
fn same_name(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = match (dir.canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    };
    path.canonicalize().unwrap_or(named)
}

struct Reader<'a> {
    streams: Vec<Configured>,
    places: Vec<Place>,
    left_out: Vec<(String, String)>,
    names: BTreeSet<String>,
    configs: BTreeMap<String, &'a Element>,
}

impl<'a> Reader<'a> {
    fn find_logs(&mut self, element: &'a Element, above: &mut Vec<&'a Element>) -> Result<()> {
        let inside = element.name == "logs";
        above.push(element);
        for child in &element.children {
            if inside { self.find_streams(child, above)? } else { self.find_logs(child, above)? }
        }
        above.pop();
        Ok(())
    }

    fn find_streams(&mut self, element: &'a Element, above: &mut Vec<&'a Element>) -> Result<()> {
        above.push(element);
        if element.name == "log" {
            self.stream(above)?;
        }
        for child in &element.children {
            self.find_streams(child, above)?;
        }
        above.pop();
        Ok(())
    }

    /// The stream that the last of these elements describes; the others are above it.
    fn stream(&mut self, chain: &[&'a Element]) -> Result<()> {
        let Some(element) = chain.last() else { return Ok(()) };
        for (name, _, place) in &element.attributes {
            if !ATTRIBUTES.contains(&&**name) {
                return Err(place.error(format!(
                    "unknown attribute {name:?}: expected one of {}",
                    ATTRIBUTES.join(", ")
                )));
            }
        }
        for ancestor in chain {
            if let Some((text, place)) = ancestor.attribute("require_env")
                && !environment_holds(text, place)?
            {
                let name = element.attribute("name").map_or("", |(name, _)| name);
                self.left_out.push((name.to_owned(), text.to_owned()));
                return Ok(());
            }
        }
        let Some((name, place)) = element.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(element.place.error("a log without a name: expected <log name=\"…\"/>"));
        };
        if !self.names.insert(name.to_owned()) {
            return Err(place.error(format!("there is a log {name:?} already")));
        }
        let options = self.options(name, element, chain)?;
        let outlets = Self::outlets(chain)?;
        self.streams.push(Configured { name: name.to_owned(), options, outlets });
        self.places.push(element.place.clone());
        Ok(())
    }

    fn options(&self, name: &str, element: &Element, chain: &[&'a Element]) -> Result<StreamOptions> {
        let inherited = |name: &str| chain.iter().rev().find_map(|element| element.attribute(name));
        let or = |attribute: Option<(&str, &Place)>, otherwise: bool| {
            attribute.map_or(Ok(otherwise), |(text, place)| boolean(text, place))
        };
        let flag = |name: &str| inherited(name).map_or(Ok(false), |(text, place)| boolean(text, place));
        let count = |name: &str| inherited(name).map_or(Ok(0), |(text, place)| number(text, place));
        let at_least = |name: &str, least: u64| match inherited(name) {
            None => Ok(0),
            Some((text, place)) => match number(text, place)? {
                n if n >= least => Ok(n),
                n => Err(place.error(format!("{name} is {n}: expected {least} or more"))),
            },
        };
        let format = match inherited("format") {
            None => Format::Plain,
            Some((text, place)) => Format::from_name(text).ok_or_else(|| {
                let known = Format::ALL.map(Format::name).join(", ");
                place.error(format!("unknown format {text:?}: expected one of {known}"))
            })?,
        };
        let when_full = match inherited("when_full") {
            None => None,
            Some(("block", _)) => Some(WhenFull::Block),
            Some(("drop", _)) => Some(WhenFull::Drop),
            Some((text, place)) => return Err(place.error(format!("{text:?}: expected block or drop"))),
        };
        let rotation = Rotation {
            seconds: at_least("rotate_seconds", MIN_ROTATE_SECONDS)?,
            bytes: at_least("rotate_bytes", MIN_ROTATE_BYTES)?,
            retain_seconds: count("retain_seconds")?,
            retain_bytes: count("retain_bytes")?,
            retain_count: count("retain_count")?,
        };
        let config = self.merged_config(chain)?;
        let kind = inherited("type").map(|(kind, _)| kind.to_owned()).filter(|kind| !kind.is_empty());
        let sink = match kind {
            None => None,
            Some(kind) => {
                let path = inherited("path").map_or("", |(path, _)| path).to_owned();
                if path.is_empty() && matches!(&*kind, "file" | "file_synch" | "jlog") {
                    let why = format!("a log of type {kind} without a path: expected path=\"…\"");
                    return Err(element.place.error(why));
                }
                let latest = inherited("latest").map(|(link, _)| PathBuf::from(link));
                let text = |name: &str| inherited(name).map(|(text, _)| text.to_owned());
                let mode = inherited("mode").map(|(text, place)| mode(text, place)).transpose()?;
                let access = Access { mode, owner: text("owner"), group: text("group") };
                Some(SinkSpec { stream: name.to_owned(), kind, path, config, rotation, access, latest })
            }
        };
        flag("stats")?;
        let bytes = |name: &str, default: usize| match inherited(name) {
            None => Ok(default),
            Some((text, place)) => match usize::try_from(number(text, place)?) {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(place.error(format!("{text:?}: expected a number of bytes, 1 or more"))),
            },
        };
        Ok(StreamOptions {
            sink,
            format,
            flags: Flags {
                // The built-in stream has them from the start.
                timestamps: if name == "stderr" && inherited("timestamps").is_none() {
                    true
                } else {
                    flag("timestamps")?
                },
                facility: flag("facility")?,
                debug: flag("debug")?,
                level: flag("level")?,
                keys: flag("keys")?,
                target: flag("target")?,
                source: flag("source")?,
            },
            // Configurations in XML are libmtev's, whose lines are split, and nothing else.
            escape: or(inherited("escape"), element.place.source.toml)?,
            spans: or(inherited("spans"), true)?,
            disabled: flag("disabled")?,
            dedup_seconds: count("dedup_seconds")?,
            when_full,
            max_line: bytes("max_line", StreamOptions::MAX_LINE)?,
            queue_bytes: bytes("queue_bytes", StreamOptions::QUEUE_BYTES)?,
        })
    }

    /// Two streams on one file would put it aside under each other.
    fn check_files(&self) -> Result<()> {
        let mut seen: BTreeMap<PathBuf, (&str, bool)> = BTreeMap::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = &stream.options.sink else { continue };
            if !matches!(&*sink.kind, "file" | "file_synch") {
                continue;
            }
            let file = same_name(Path::new(&sink.path));
            let rotates = sink.rotation.bytes > 0 || sink.rotation.seconds > 0;
            if let Some((other, _)) = seen.get(&file).filter(|(_, other_rotates)| rotates || *other_rotates) {
                return Err(place.error(format!(
                    "the log {other:?} writes to {} as well, and it is rotated: expected a path of its own",
                    sink.path
                )));
            }
            seen.insert(file, (&stream.name, rotates));
        }
        Ok(())
    }

    /// Two streams on one jlog must agree on its subscribers: each would remove those of the other.
    fn check_jlogs(&self) -> Result<()> {
        let mut seen: BTreeMap<PathBuf, (&str, &str)> = BTreeMap::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = stream.options.sink.as_ref().filter(|sink| sink.kind == "jlog") else {
                continue;
            };
            let at = sink.path.find('(').unwrap_or(sink.path.len());
            let (dir, subscribers) = sink.path.split_at(at);
            let (other, theirs) =
                *seen.entry(same_name(Path::new(dir))).or_insert((&stream.name, subscribers));
            if subscribers != theirs {
                return Err(place.error(format!(
                    "the log {other:?} writes to {dir} as well, with the subscribers {theirs:?}: expected the same ones"
                )));
            }
        }
        Ok(())
    }

    fn outlets(chain: &[&'a Element]) -> Result<Vec<(String, Option<Filter>)>> {
        let mut outlets = Vec::new();
        for outlet in chain.iter().flat_map(|element| element.named("outlet")) {
            if let Some((name, _, place)) = outlet
                .attributes
                .iter()
                .find(|(name, ..)| !matches!(&**name, "name" | "filter" | "min_level"))
            {
                return Err(
                    place.error(format!("unknown attribute {name:?}: expected name, filter or min_level"))
                );
            }
            let Some((name, _)) = outlet.attribute("name").filter(|(name, _)| !name.is_empty()) else {
                return Err(outlet.place.error("an outlet without a name: expected <outlet name=\"…\"/>"));
            };
            let filter = match outlet.attribute("filter") {
                None => None,
                Some((text, place)) => {
                    let at = |e: crate::FilterError| {
                        let place = place.inside(e.column - 1);
                        place
                            .error(format!("the filter, at its column {}: expected {}", e.column, e.expected))
                    };
                    Some(Filter::parse(text).map_err(at)?)
                }
            };
            let min_level = match outlet.attribute("min_level") {
                None => None,
                Some((text, place)) => Some(Level::from_name(text).ok_or_else(|| {
                    place.error(format!("{text:?}: expected trace, debug, info, warn or error"))
                })?),
            };
            let filter = match (filter, min_level) {
                (Some(filter), Some(level)) => Some(filter.with_min_level(level)),
                (None, Some(level)) => Some(Filter::min_level(level)),
                (filter, None) => filter,
            };
            outlets.push((name.to_owned(), filter));
        }
        Ok(outlets)
    }

    /// The `<config>` of a stream: from the top down, the deepest wins.
    fn merged_config(&self, chain: &[&'a Element]) -> Result<BTreeMap<String, String>> {
        let mut merged = BTreeMap::new();
        for config in chain.iter().flat_map(|element| element.named("config")) {
            // Itself, and those that it takes in, one after the other: what is nearer comes later.
            let mut configs = vec![config];
            let mut seen = BTreeSet::new();
            let mut last = config;
            while let Some((id, place)) = last.attribute("inherit") {
                let Some(other) = self.configs.get(id) else {
                    return Err(place.error(format!("there is no config with the id {id:?}")));
                };
                if !seen.insert(id) {
                    return Err(place.error(format!("config {id:?} inherits itself")));
                }
                configs.push(other);
                last = other;
            }
            for child in configs.iter().rev().flat_map(|config| &config.children) {
                merged.insert(child.name.clone(), child.text.clone());
            }
        }
        Ok(merged)
    }
}
