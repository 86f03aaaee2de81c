//! Turns elements into streams.

mod check;
mod http;
mod known;
mod outlets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checked::{BUILT_IN_TYPES, Config};
use super::element::{Element, Place};
use super::error::{ConfigError, Result};
use super::rotation;
use super::value::Given;
use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::options::{StreamConfig, StreamOptions, WhenFull};
use crate::pattern::Pattern;
use crate::redact::Redaction;
use crate::sink::{Access, METRIC_KEYS, SinkSpec, place};
use crate::suggest::did_you_mean;
use http::{http, is_http};
pub(super) use known::{ATTRIBUTES, check_attributes, is_configuration};
use known::{CONFIG_ATTRIBUTES, CONFIG_KEYS, JLOG_SIZES, unknown_attribute};

/// The largest pre-commit buffer; a larger number counts as this.
const MAX_PRE_COMMIT: i128 = 8 << 20;
/// How many unknown names of streams get suggestions.
const MAX_SUGGESTIONS: usize = 20;
/// The largest segment.
const MAX_SEGMENT: i128 = 1 << 30;

/// Reads the streams below a root. `doubts` are the warnings about its files so far.
pub(super) fn read(root: &Element, doubts: Vec<ConfigError>) -> Result<Config> {
    let mut reader = Reader { warnings: doubts, ..Reader::default() };
    collect_configs(root, &mut reader.configs);
    reader.find_logs(root, &mut Vec::new())?;
    reader.check_files()?;
    reader.check_links()?;
    reader.check_jlogs()?;
    reader.check_targets();
    let nothing = reader.streams.is_empty() && reader.left_out.is_empty();
    for (place, meant, message) in std::mem::take(&mut reader.outside) {
        // If there are no streams at all, `nothing` reports that below.
        if !(nothing && matches!(meant, "log" | "logs")) {
            reader.warn(&place, message);
        }
    }
    if nothing {
        reader.nothing(root);
    }
    let Reader { streams, places, left_out, mut warnings, .. } = reader;
    // In document order.
    warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    let redaction = redaction_of_all(root, &Redaction::new())?;
    let http = http(root)?;
    Ok(Config { streams, places, left_out, warnings, redaction, http })
}

fn collect_configs<'a>(element: &'a Element, out: &mut BTreeMap<String, &'a Element>) {
    if let Some((id, _)) = element.attribute("id").filter(|_| element.name == "config") {
        out.insert(id.to_owned(), element);
    }
    for child in &element.children {
        collect_configs(child, out);
    }
}

/// Makes a redaction from its attributes.
fn redaction(keys: Option<Given<'_>>, pattern: Option<Given<'_>>) -> Result<Redaction> {
    let redaction = keys.map_or_else(Redaction::new, |keys| Redaction::new().keys(keys.text));
    match pattern.filter(|pattern| !pattern.text.is_empty()) {
        None => Ok(redaction),
        Some(given) => {
            redaction.pattern(given.text).map_err(|e| given.expected(&format!("a regular expression ({e})")))
        }
    }
}

/// The redaction for all streams, declared or not: everything on `<logs>` elements and on the
/// elements above them.
fn redaction_of_all(element: &Element, above: &Redaction) -> Result<Redaction> {
    let own = redaction(Given::find(element, "redact"), Given::find(element, "redact_pattern"))?;
    let own = above.union(&own);
    if element.name == "logs" {
        return Ok(own);
    }
    let below = element.children.iter().map(|child| redaction_of_all(child, &own));
    below.into_iter().try_fold(Redaction::new(), |all, one| Ok(all.union(&one?)))
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
            let pattern = Pattern::new(&text[at + 1..])
                .map_err(|e| place.error(format!("expected a regular expression ({e})")))?;
            value.is_some_and(|value| pattern.matches(&value))
        }
    };
    Ok(holds != negated)
}

/// A path that identifies a file, however its name is written.
fn same_name(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| place(path))
}

#[derive(Default)]
struct Reader<'a> {
    streams: Vec<StreamConfig>,
    places: Vec<Place>,
    left_out: Vec<(String, String)>,
    names: BTreeSet<String>,
    configs: BTreeMap<String, &'a Element>,
    /// The metrics that have their streams already.
    metrics: BTreeSet<*const Element>,
    /// The streams that outlets lead to, and the place of the first such outlet.
    targets: BTreeMap<String, Place>,
    /// Warnings about elements outside `<logs>`: the place, what was probably meant, and the text.
    outside: Vec<(Place, &'static str, String)>,
    warnings: Vec<ConfigError>,
    warned: BTreeSet<(String, usize, String)>,
}

/// An element on the way to a stream, with what the streams in it inherit, which is collected once
/// and not for every stream.
struct Above<'a> {
    element: &'a Element,
    outlets: Vec<(String, Option<Filter>, &'a Place)>,
    configs: Vec<&'a Element>,
}

type Chain<'c, 'a> = &'c [Above<'a>];

impl<'a> Reader<'a> {
    fn warn(&mut self, place: &Place, message: String) {
        // Warn once about what many streams inherit.
        if self.warned.insert((place.source.file.clone(), place.offset, message.clone())) {
            self.warnings.push(place.error(message));
        }
    }

    fn warn_of(&mut self, error: ConfigError, place: &Place) {
        self.warn(place, error.message);
    }

    fn find_logs(&mut self, element: &'a Element, above: &mut Vec<&'a Element>) -> Result<()> {
        if element.name == "logs" {
            above.iter().for_each(|element| self.check_inherited(element));
            above.push(element);
            self.check_group(element, true)?;
            let mut chain = above.iter().map(|element| self.above(element)).collect::<Result<Vec<_>>>()?;
            for child in &element.children {
                self.find_streams(child, &mut chain)?;
            }
        } else {
            self.check_outside(element, above);
            above.push(element);
            for child in &element.children {
                self.find_logs(child, above)?;
            }
        }
        above.pop();
        Ok(())
    }

    fn find_streams(&mut self, element: &'a Element, above: &mut Vec<Above<'a>>) -> Result<()> {
        match &*element.name {
            // Its children are keys.
            "config" | "metric" => return Ok(()),
            "http" if is_http(element) => return Ok(()),
            "log" | "outlet" => self.check_contents(element)?,
            _ => self.check_group(element, false)?,
        }
        above.push(self.above(element)?);
        if element.name == "log" {
            self.stream(above)?;
        }
        for child in &element.children {
            self.find_streams(child, above)?;
        }
        above.pop();
        Ok(())
    }

    fn above(&mut self, element: &'a Element) -> Result<Above<'a>> {
        let mut outlets: Vec<(String, Option<Filter>, &Place)> = Vec::new();
        let leads = |child: &&Element| matches!(&*child.name, "outlet" | "metric");
        for child in element.children.iter().filter(leads) {
            let is_metric = child.name == "metric";
            let (name, filter) = if is_metric { self.metric(child)? } else { Self::outlet(child)? };
            if let Some((filter, (_, place))) = filter.as_ref().zip(child.attribute("filter")) {
                for doubt in filter.doubts() {
                    self.warn(place, format!("the filter: {doubt}"));
                }
            }
            if !is_metric {
                self.targets.entry(name.clone()).or_insert_with(|| child.place.clone());
            }
            outlets.push((name, filter, &child.place));
        }
        let configs: Vec<&Element> = element.named("config").collect();
        for (name, _, place) in configs.iter().flat_map(|config| &config.attributes) {
            if !CONFIG_ATTRIBUTES.contains(&&**name) {
                self.warn_of(place.unknown("attribute", name, "<config>", CONFIG_ATTRIBUTES), place);
            }
        }
        Ok(Above { element, outlets, configs })
    }

    /// Reads the stream that the last of these elements describes; the others are above it.
    fn stream(&mut self, chain: Chain<'_, 'a>) -> Result<()> {
        let Some(Above { element, .. }) = chain.last() else { return Ok(()) };
        for (name, _, place) in &element.attributes {
            if !ATTRIBUTES.contains(&&**name) {
                return Err(unknown_attribute(place, name, &element.shown()));
            }
        }
        for Above { element: ancestor, .. } in chain {
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
        let outlets = self.outlets(chain);
        self.streams.push(StreamConfig { name: name.to_owned(), options, outlets });
        self.places.push(element.place.clone());
        Ok(())
    }

    fn options(&mut self, name: &str, element: &'a Element, chain: Chain<'_, 'a>) -> Result<StreamOptions> {
        let inherited = |name: &'static str| {
            let found = |Above { element, .. }: &Above<'a>| Given::find(element, name);
            chain.iter().rev().find_map(found)
        };
        let flag = |name: &'static str| inherited(name).map_or(Ok(false), |given| given.boolean());
        let or =
            |name: &'static str, otherwise| inherited(name).map_or(Ok(otherwise), |given| given.boolean());
        let seconds = |name: &'static str| inherited(name).map_or(Ok(0), |given| given.seconds());
        let format = match inherited("format") {
            None => Format::Plain,
            Some(given) => Format::from_name(given.text).ok_or_else(|| {
                let known: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
                let mut expected = format!("one of {}{}", known.join(", "), did_you_mean(given.text, &known));
                if given.text == "flatbuffer" {
                    expected.push_str(" (this one needs logdag's feature flatbuffers)");
                }
                given.expected(&expected)
            })?,
        };
        let when_full = match inherited("when_full") {
            None => None,
            Some(Given { text: "block", .. }) => Some(WhenFull::Block),
            Some(Given { text: "drop", .. }) => Some(WhenFull::Drop),
            Some(given) => return Err(given.expected("block or drop")),
        };
        let rotation = rotation::read(&inherited)?;
        let make_dirs = flag("make_dirs")?;
        let merged = self.merged_config(chain)?;
        let kind = inherited("type").map(|given| given.text.to_owned()).filter(|kind| !kind.is_empty());
        self.check_effects(name, element, kind.as_deref());
        let sink = match kind {
            None => None,
            Some(kind) => {
                let path = inherited("path").map_or("", |given| given.text).to_owned();
                if path.is_empty() && matches!(&*kind, "file" | "file_synch" | "jlog" | "fd") {
                    let why = format!("a log of type {kind} without a path: expected path=\"…\"");
                    return Err(element.place.error(why));
                }
                if matches!(&*kind, "file" | "file_synch") {
                    let above = |name: &str| {
                        let mut values = chain.iter().rev().filter_map(|above| above.element.attribute(name));
                        let off = values.next().is_some_and(|(text, _)| rotation::is_off(text));
                        off && values.any(|(text, _)| !rotation::is_off(text))
                    };
                    let switched_off = rotation::ROTATES.into_iter().any(above);
                    for (given, why) in rotation::doubts(&rotation, &inherited, switched_off) {
                        self.warn(given.place, why);
                    }
                }
                let latest = inherited("latest").map(|given| PathBuf::from(given.text));
                let config = self.config_of(&kind, merged)?;
                let text = |name: &'static str| inherited(name).map(|given| given.text.to_owned());
                let mode = inherited("mode").map(|given| given.mode()).transpose()?;
                let access = Access { mode, owner: text("owner"), group: text("group") };
                Some(SinkSpec {
                    stream: name.to_owned(),
                    kind,
                    path,
                    config,
                    rotation,
                    access,
                    latest,
                    make_dirs,
                })
            }
        };
        let bytes = |name: &'static str, default: usize| match inherited(name) {
            None => Ok(default),
            Some(given) => match usize::try_from(given.bytes()?) {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(given.expected("a number of bytes, 1 or more")),
            },
        };
        Ok(StreamOptions {
            sink,
            format,
            flags: Flags {
                // The built-in stream has timestamps by default.
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
            // Configurations in XML are libmtev's, which splits lines and escapes nothing.
            escape: or("escape", element.place.source.toml)?,
            spans: or("spans", true)?,
            redaction: redaction(inherited("redact"), inherited("redact_pattern"))?,
            enabled: !flag("disabled")?,
            stats: flag("stats")?,
            dedup: Some(seconds("dedup_seconds")?).filter(|&n| n > 0).map(Duration::from_secs),
            when_full,
            drain_limit: match inherited("drain_seconds") {
                None => StreamOptions::DRAIN_LIMIT,
                Some(_) => Duration::from_secs(seconds("drain_seconds")?),
            },
            max_line: bytes("max_line", StreamOptions::MAX_LINE)?,
            queue_bytes: bytes("queue_bytes", StreamOptions::QUEUE_BYTES)?,
        })
    }

    /// The `<config>` of a stream as its sink gets it.
    fn config_of(
        &mut self,
        kind: &str,
        merged: BTreeMap<String, &'a Element>,
    ) -> Result<BTreeMap<String, String>> {
        let mut config = BTreeMap::new();
        for (key, child) in merged {
            let mut text = child.text.clone();
            let known = CONFIG_KEYS.contains(&&*key) || (kind == "metric" && METRIC_KEYS.contains(&&*key));
            if BUILT_IN_TYPES.contains(&kind) && !known {
                let error = child.place.unknown("key", &key, "<config>", CONFIG_KEYS);
                self.warn_of(error, &child.place);
            }
            if kind == "jlog" && JLOG_SIZES.contains(&&*key) {
                let given =
                    Given { name: &child.name, text: &child.text, place: &child.place, element: child };
                let number = given.any_bytes()?;
                let (taken, instead) = match &*key {
                    "segment_size" if !(1..=MAX_SEGMENT).contains(&number) => {
                        (None, format!("expected 1 to {MAX_SEGMENT}; segments keep the size that they have"))
                    }
                    "precommit" if number < 0 => (Some(0), "expected 0 or more; 0 is used".to_owned()),
                    "precommit" if number > MAX_PRE_COMMIT => {
                        (Some(MAX_PRE_COMMIT), format!("the maximum, {MAX_PRE_COMMIT}, is used"))
                    }
                    _ => (Some(number), String::new()),
                };
                if !instead.is_empty() {
                    let text =
                        if child.place.source.shown { format!(" is {}", child.text) } else { String::new() };
                    self.warn(&child.place, format!("{key}{text}: {instead}"));
                }
                let Some(taken) = taken else { continue };
                text = taken.to_string();
            }
            config.insert(key, text);
        }
        Ok(config)
    }

    /// The keys of a stream's `<config>`, merged from the top down; the deepest wins.
    fn merged_config(&self, chain: Chain<'_, 'a>) -> Result<BTreeMap<String, &'a Element>> {
        let mut merged = BTreeMap::new();
        for config in chain.iter().flat_map(|above| &above.configs) {
            // The config, then those that it inherits, each after the one that inherits it.
            let mut configs = vec![*config];
            let mut seen = BTreeSet::new();
            let mut last = *config;
            while let Some((id, place)) = last.attribute("inherit") {
                let Some(other) = self.configs.get(id) else {
                    let id = if place.source.named.get() {
                        format!("the id {id:?}")
                    } else {
                        "this id".to_owned()
                    };
                    return Err(place.error(format!("there is no config with {id}")));
                };
                if !seen.insert(id) {
                    return Err(place.error(format!("config {id:?} inherits itself")));
                }
                configs.push(other);
                last = other;
            }
            for child in configs.iter().rev().flat_map(|config| &config.children) {
                merged.insert(child.name.clone(), child);
            }
        }
        Ok(merged)
    }
}
