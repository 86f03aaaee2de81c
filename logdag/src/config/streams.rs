//! Turns elements into streams.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checked::{BUILT_IN_TYPES, Config, Http};
use super::element::{Element, Place};
use super::error::{ConfigError, Result};
use super::rotation::{self, RotatedNames};
use super::value::Given;

use crate::filter::{Filter, Limit};
use crate::format::{Flags, Format};
use crate::graph::Graph;
use crate::level::Level;
use crate::options::{StreamConfig, StreamOptions, WhenFull};
use crate::pattern::Pattern;
use crate::redact::Redaction;
use crate::sink::{Access, METRIC_KEYS, SinkSpec, place};
use crate::suggest::{did_you_mean, nearly};

/// Attributes of a stream. Streams inherit them.
pub(super) const ATTRIBUTES: &[&str] = &[
    "name",
    "type",
    "path",
    "make_dirs",
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
    "redact",
    "redact_pattern",
    "stats",
    "dedup_seconds",
    "require_env",
    "rotate_seconds",
    "retain_seconds",
    "rotate_bytes",
    "retain_bytes",
    "retain_count",
    "rotate_at",
    "rotate_zone",
    "rotate_name",
    "rotate_on_start",
    "compress",
    "latest",
    "mode",
    "owner",
    "group",
    "when_full",
    "max_line",
    "queue_bytes",
    "drain_seconds",
];
/// Attributes of an outlet.
const OUTLET_ATTRIBUTES: &[&str] = &["name", "filter", "min_level", "limit", "sample"];
/// Attributes of a metric, without those of its outlet.
const METRIC_ATTRIBUTES: &[&str] = &[
    "name",
    "type",
    "value",
    "buckets",
    "scale",
    "labels",
    "max_series",
    "help",
    "filter",
    "min_level",
    "limit",
    "sample",
];
/// Attributes of an `<http>`.
const HTTP_ATTRIBUTES: &[&str] =
    &["address", "token_file", "tls_cert", "tls_key", "tls_client_ca", "allow_host"];
/// Elements with a meaning; all others only group.
const ELEMENTS: &[&str] = &["log", "outlet", "config", "include", "metric"];
/// The same, and the element that they are in.
const ELEMENTS_AND_LOGS: &[&str] = &["log", "logs", "outlet", "config", "include"];
/// Attributes of a `<config>`.
const CONFIG_ATTRIBUTES: &[&str] = &["id", "inherit"];
/// Keys of `<config>` that built-in types know.
const CONFIG_KEYS: &[&str] = &["segment_size", "precommit", "facility", "identifier", "timeout"];
/// The keys that are sizes of a jlog.
const JLOG_SIZES: &[&str] = &["segment_size", "precommit"];
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

/// Whether this element has the HTTP settings, perhaps with mistakes. Without any such attribute,
/// it is a group that happens to be called `http`; in TOML only if it has children.
fn is_http(element: &Element) -> bool {
    let says = element
        .attributes
        .iter()
        .any(|(name, ..)| HTTP_ATTRIBUTES.contains(&&**name) || nearly(name, HTTP_ATTRIBUTES).is_some());
    element.name == "http" && (says || element.place.source.toml && element.children.is_empty())
}

/// Whether this element was probably meant to be `<http>`.
fn is_nearly_http(element: &Element) -> bool {
    let name = nearly(&element.name, &["http"]).is_some() && element.name != "https";
    name && HTTP_ATTRIBUTES.iter().any(|name| element.attribute(name).is_some())
}

/// The HTTP settings in the root, or in a `<logs>` in it.
fn http(root: &Element) -> Result<Option<(Http, Place)>> {
    let mut found = None;
    let in_root = root.contents();
    let logs = in_root.iter().filter(|element| element.name == "logs");
    for element in in_root.iter().copied().chain(logs.flat_map(|logs| logs.contents())) {
        if !is_http(element) {
            continue;
        }
        for (name, _, place) in &element.attributes {
            if !HTTP_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &element.shown(), HTTP_ATTRIBUTES));
            }
        }
        if let Some(child) = element.children.first() {
            return Err(child.place.error(format!("{} can have only attributes", element.shown())));
        }
        if found.is_some() {
            return Err(element.place.error(format!("there is an {} already", element.shown())));
        }
        let text = |name: &str| element.attribute(name).map(|(text, _)| text.to_owned());
        if text("address").is_none_or(|address| address.trim().is_empty()) {
            let why = format!("{} without address: expected 127.0.0.1:PORT or unix:PATH", element.shown());
            return Err(element.place.error(why));
        }
        let hosts = text("allow_host").unwrap_or_default();
        let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
        let http = Http {
            address: text("address").unwrap_or_default(),
            token_file: text("token_file").map(PathBuf::from),
            tls_cert: text("tls_cert").map(PathBuf::from),
            tls_key: text("tls_key").map(PathBuf::from),
            tls_client_ca: text("tls_client_ca").map(PathBuf::from),
            allow_hosts: hosts.map(str::to_owned).collect(),
        };
        if http.tls_cert.is_some() != http.tls_key.is_some()
            || (http.tls_client_ca.is_some() && http.tls_cert.is_none())
        {
            let why = format!(
                "{}: tls_cert and tls_key belong together, and tls_client_ca needs them",
                element.shown()
            );
            return Err(element.place.error(why));
        }
        let place = element.attribute("address").map_or(&element.place, |(_, place)| place);
        found = Some((http, place.clone()));
    }
    Ok(found)
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

/// The keys that a stream or a group can have; in TOML, elements are keys, too.
fn keys_of(place: &Place) -> Vec<&'static str> {
    let elements = if place.source.toml { ELEMENTS } else { &[] };
    ATTRIBUTES.iter().chain(elements).copied().collect()
}

/// What is to be said of an attribute that streams and groups of streams do not have.
fn unknown_attribute(place: &Place, name: &str, on: &str) -> ConfigError {
    if OUTLET_ATTRIBUTES.contains(&name) && name != "name" {
        return place.error(format!("unknown attribute {name:?} on {on}: it belongs on an outlet"));
    }
    place.unknown("attribute", name, on, &keys_of(place))
}

/// Whether a text is a configuration, also one with mistakes, so that errors may quote it. The name
/// of its file does not say so: it may be a link to another one.
pub(super) fn is_configuration(text: &str, toml: bool) -> bool {
    const OURS: [&str; 6] = ["logs", "log", "outlet", "include", "metric", "http"];
    let known = |name: &str| OURS.iter().any(|element| element.eq_ignore_ascii_case(name));
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return true;
    }
    if toml {
        let mut names = text.lines().map(|line| {
            let name = line.trim_start().trim_start_matches('[').trim_start();
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            (&name[..end], name[end..].trim_start())
        });
        names.any(|(name, rest)| known(name) && rest.starts_with(['=', ']', '.']))
    } else {
        let mut names = text.split('<').skip(1).map(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).unwrap_or(rest.len());
            &rest[..end]
        });
        names.any(known)
    }
}

/// Refuses meaningless attributes of a TOML table.
pub(super) fn check_attributes(table: &Element) -> Result<()> {
    let unknown = |(name, ..): &&(String, String, Place)| !ATTRIBUTES.contains(&&**name);
    match table.attributes.iter().find(unknown) {
        None => Ok(()),
        Some((name, _, place)) => Err(unknown_attribute(place, name, &table.shown())),
    }
}

/// A path that identifies a file, however its name is written.
fn same_name(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| place(path))
}

/// Whether an attribute of a stream has an effect on a sink of a type, none being a stream without
/// one. What types of an application do with theirs is their own matter.
fn has_effect(attribute: &str, kind: Option<&str>) -> bool {
    let is_file = matches!(kind, Some("file" | "file_synch"));
    match attribute {
        _ if kind.is_some_and(|kind| !BUILT_IN_TYPES.contains(&kind)) => true,
        "path" => !matches!(kind, None | Some("stdout" | "stderr")),
        "make_dirs" => is_file || kind == Some("jlog"),
        "latest" | "mode" | "owner" | "group" => is_file,
        name if name.starts_with("rotate_") || name.starts_with("retain_") || name == "compress" => is_file,
        // Lines are written at once there.
        "when_full" | "queue_bytes" => !matches!(kind, None | Some("memory" | "metric" | "file_synch")),
        "format" | "escape" | "spans" => !matches!(kind, None | Some("metric")),
        "dedup_seconds" | "max_line" | "drain_seconds" => kind.is_some(),
        _ => true,
    }
}

/// The same for a key of the stream's `<config>`.
fn config_has_effect(key: &str, kind: &str) -> bool {
    match key {
        _ if !BUILT_IN_TYPES.contains(&kind) => true,
        "segment_size" | "precommit" => kind == "jlog",
        "facility" => kind == "syslog",
        "identifier" | "timeout" => matches!(kind, "syslog" | "journald"),
        // Keys that no type knows get a different warning.
        _ => true,
    }
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

    /// Checks an element outside `<logs>`: it belongs to the application, unless its name is
    /// probably mistyped.
    fn check_outside(&mut self, element: &'a Element, above: &[&'a Element]) {
        // The root may have any name, and the children of a config are keys.
        if above.is_empty() || above.iter().any(|above| above.name == "config") {
            return;
        }
        let shown = element.shown();
        if element.name == "log" && element.attribute("name").is_some() {
            let why = format!("{shown} is not a stream here: expected it below <logs>");
            self.outside.push((element.place.clone(), "log", why));
        }
        if above[1..].iter().all(|above| above.is_include()) && is_nearly_http(element) {
            let why = format!("{shown} means nothing: did you mean <http>?");
            self.outside.push((element.place.clone(), "http", why));
        }
        if let Some(meant) = nearly(&element.name, ELEMENTS_AND_LOGS) {
            // An element with children may have a plural as its name.
            if element.children.is_empty() || element.name != format!("{meant}s") {
                let why = format!("{shown} means nothing: did you mean <{meant}>?");
                self.outside.push((element.place.clone(), meant, why));
            }
        }
    }

    /// Checks an element above `<logs>`: it may have any attributes, and streams inherit those that
    /// are theirs.
    fn check_inherited(&mut self, element: &'a Element) {
        for (name, _, place) in &element.attributes {
            if name.len() > 3
                && let Some(meant) = nearly(name, ATTRIBUTES)
                && *name != format!("{meant}s")
            {
                let shown = if place.source.named.get() { name } else { "this" };
                let on = element.shown();
                self.warn(
                    place,
                    format!("{shown} on {on} is not an attribute of streams: did you mean {meant}?"),
                );
            }
        }
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

    /// Reports meaningless contents of a stream or an outlet.
    fn check_contents(&mut self, element: &'a Element) -> Result<()> {
        let shown = element.shown();
        if !element.text.is_empty() {
            self.warn(&element.place, format!("text in {shown} means nothing: use attributes"));
        }
        let meaningless = |child: &&Element| element.name == "outlet" && child.name != "log";
        if let Some(child) = element.children.iter().find(meaningless) {
            let why = format!("{} in {shown} means nothing: an outlet has attributes only", child.shown());
            if child.place.source.toml {
                return Err(child.place.error(why));
            }
            self.warn(&child.place, why);
        }
        Ok(())
    }

    /// Checks an element that groups. libmtev accepts everything there; in XML so do we, with a
    /// warning.
    fn check_group(&mut self, element: &'a Element, is_outermost: bool) -> Result<()> {
        // A <logs> may be in another one; but with a name, it was meant to be a stream.
        let is_stream = element.name == "logs" && !is_outermost && element.attribute("name").is_some();
        let shown = match element.place.source.toml && is_stream {
            true => "[[logs]]".to_owned(),
            false => element.shown(),
        };
        let may_group = element.name == "logs" && !is_stream;
        if let Some(meant) = nearly(&element.name, ELEMENTS).filter(|_| !may_group) {
            let meant = if element.place.source.toml { meant.to_owned() } else { format!("<{meant}>") };
            self.warn(&element.place, format!("{shown} only groups what is in it: did you mean {meant}?"));
            // Its attributes are those of the element that was meant.
            return Ok(());
        }
        if is_nearly_http(element) {
            if element.place.source.toml {
                return Err(element
                    .place
                    .error(format!("{shown} only groups what is in it: did you mean [http]?")));
            }
            self.warn(&element.place, format!("{shown} only groups what is in it: did you mean <http>?"));
            return Ok(());
        }
        for (name, _, place) in &element.attributes {
            if name == "name" {
                self.warn(place, format!("name on {shown} has no effect: only a log has a name"));
            } else if !ATTRIBUTES.contains(&&**name) {
                let error = unknown_attribute(place, name, &shown);
                if place.source.toml {
                    return Err(error);
                }
                self.warn_of(error, place);
            }
        }
        Ok(())
    }

    /// Warns about a configuration without any stream.
    fn nothing(&mut self, root: &'a Element) {
        let expected =
            "it configures nothing: expected <log> elements below <logs>, or [[log]] tables in TOML";
        let contents = root.contents();
        let logs = contents
            .into_iter()
            .find(|child| child.name != "logs" && nearly(&child.name, &["logs"]).is_some());
        match logs {
            Some(child) => {
                self.warn(&child.place, format!("{expected}; did you mean <logs> by {}?", child.shown()));
            }
            None => self.warn(&root.place, expected.to_owned()),
        }
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

    /// Warns about a stream's own attributes and keys that its type does not use. Inherited ones
    /// may be meant for other streams.
    fn check_effects(&mut self, name: &str, element: &'a Element, kind: Option<&str>) {
        // Without a type, the built-in stream keeps its sink.
        let kind = kind.or_else(|| (name == "stderr").then_some("stderr"));
        for (name, text, place) in &element.attributes {
            if has_effect(name, kind) || rotation::is_off(text) {
                continue;
            }
            let shown = Given { name, text, place, element }.shown();
            let why = match kind {
                None => format!("{shown} has no effect without a type: expected type=\"file\", for example"),
                Some(kind) => format!("{shown} has no effect on a log of type {kind}"),
            };
            self.warn(place, why);
        }
        let Some(kind) = kind else {
            // Others may take it by its id, or inherit it.
            let inherited = element.children.iter().any(Element::has_stream);
            let unused = |config: &&Element| config.attribute("id").is_none() && !inherited;
            for config in element.named("config").filter(unused) {
                let why = format!(
                    "{} has no effect without a type: expected type=\"jlog\", for example",
                    config.shown()
                );
                self.warn(&config.place, why);
            }
            return;
        };
        for key in element.named("config").flat_map(|config| &config.children) {
            if !config_has_effect(&key.name, kind) {
                let why = format!("{} in <config> has no effect on a log of type {kind}", key.name);
                self.warn(&key.place, why);
            }
        }
    }

    /// Checks the links `latest`: at the path of a log, a link would take the log's name, and a
    /// link that two logs maintain leads to either of them.
    fn check_links(&mut self) -> Result<()> {
        let is_file = |sink: &&SinkSpec| matches!(&*sink.kind, "file" | "file_synch");
        let streams = self.streams.iter().zip(&self.places);
        let sinks = streams.filter_map(|(stream, at)| {
            stream.options.sink.as_ref().filter(is_file).map(|sink| (&*stream.name, sink, at))
        });
        if sinks.clone().all(|(_, sink, _)| sink.latest.is_none()) {
            return Ok(());
        }
        let files: BTreeMap<PathBuf, &str> =
            sinks.clone().map(|(name, sink, _)| (place(Path::new(&sink.path)), name)).collect();
        let mut links: BTreeMap<PathBuf, &str> = BTreeMap::new();
        let mut shared = Vec::new();
        for (name, link, at) in sinks.filter_map(|(name, sink, at)| Some((name, sink.latest.as_ref()?, at))) {
            let found = place(link);
            if let Some(log) = files.get(&found) {
                return Err(at.error(format!(
                    "the link \"latest\" at {} has the path of the log {log:?}: expected another one",
                    link.display()
                )));
            }
            if let Some(other) = links.insert(found, name) {
                let why = format!(
                    "the log {other:?} has its link \"latest\" at {} as well: it leads to the file of the one that rotated last",
                    link.display()
                );
                shared.push((at.clone(), why));
            }
        }
        shared.into_iter().for_each(|(at, why)| self.warn(&at, why));
        Ok(())
    }

    /// Checks that no two streams rotate the same file, or have the same names for rotated files.
    fn check_files(&self) -> Result<()> {
        let mut seen: BTreeMap<PathBuf, (&str, bool)> = BTreeMap::new();
        let mut names = RotatedNames::default();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = &stream.options.sink else { continue };
            if !matches!(&*sink.kind, "file" | "file_synch") {
                continue;
            }
            let file = same_name(Path::new(&sink.path));
            let rotates = sink.rotation.rotates();
            if let Some((other, _)) = seen.get(&file).filter(|(_, other_rotates)| rotates || *other_rotates) {
                return Err(place.error(format!(
                    "the log {other:?} writes to {} as well, and it is rotated: expected a path of its own",
                    sink.path
                )));
            }
            seen.insert(file, (&stream.name, rotates));
            if rotates && let Some(other) = names.taken(&stream.name, sink) {
                return Err(place.error(format!(
                    "rotated files of the log {other:?} would have the same names: expected a rotate_name of its own, such as {{name}}-%F{{ext}}"
                )));
            }
        }
        Ok(())
    }

    /// Checks that streams on the same jlog agree on its subscribers: each would remove the
    /// other's.
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

    /// The outlets of a stream. As in libmtev, an outlet that is given twice counts once, with the
    /// first filter.
    fn outlets(&mut self, chain: Chain<'_, 'a>) -> Vec<(String, Option<Filter>)> {
        let mut outlets: Vec<(String, Option<Filter>)> = Vec::new();
        let mut known: HashMap<&str, (usize, usize)> = HashMap::new();
        let all =
            chain.iter().enumerate().flat_map(|(of, above)| above.outlets.iter().map(move |one| (of, one)));
        for (of, (name, filter, place)) in all {
            let (first_of, at) = *known.entry(name).or_insert((of, outlets.len()));
            match outlets.get(at) {
                None => outlets.push((name.clone(), filter.clone())),
                Some((_, first)) if first != filter => {
                    let counts = match first {
                        Some(first) => format!("with the filter {:?}, which takes precedence", first.text()),
                        None => "without a filter".to_owned(),
                    };
                    let is = if first_of == of { "given" } else { "inherited" };
                    self.warn(place, format!("an outlet to {name:?} is {is} already, {counts}"));
                }
                Some(_) => {}
            }
        }
        outlets
    }

    fn outlet(outlet: &Element) -> Result<(String, Option<Filter>)> {
        for (name, _, place) in &outlet.attributes {
            if !OUTLET_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &outlet.shown(), OUTLET_ATTRIBUTES));
            }
        }
        let Some((name, _)) = outlet.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(outlet.place.error("an outlet without a name: expected <outlet name=\"…\"/>"));
        };
        Ok((name.to_owned(), Self::filter(outlet)?))
    }

    /// Makes the stream of a metric, and returns it with the filter in front of it.
    fn metric(&mut self, metric: &'a Element) -> Result<(String, Option<Filter>)> {
        for (name, _, place) in &metric.attributes {
            if !METRIC_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &metric.shown(), METRIC_ATTRIBUTES));
            }
        }
        let Some((path, place)) = metric.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(metric.place.error("a metric without a name: expected <metric name=\"…\"/>"));
        };
        let filter = Self::filter(metric)?;
        let name = format!("metric/{path}");
        // A metric above several <logs> is read several times.
        if self.metrics.insert(std::ptr::from_ref(metric)) {
            let mut sink = SinkSpec { stream: name.clone(), ..SinkSpec::new("metric", path) };
            for (attribute, text, _) in &metric.attributes {
                let key = if attribute == "type" { "kind" } else { attribute };
                if METRIC_KEYS.contains(&key) {
                    sink.config.insert(key.to_owned(), text.clone());
                }
            }
            crate::sink::check(&sink).map_err(|why| metric.place.error(why))?;
            if !self.names.insert(name.clone()) {
                return Err(place.error(format!("there is a log {name:?} already")));
            }
            let options = StreamOptions { sink: Some(sink), ..StreamOptions::default() };
            self.streams.push(StreamConfig { name: name.clone(), options, outlets: Vec::new() });
            self.places.push(metric.place.clone());
        }
        Ok((name, filter))
    }

    /// The filter of an outlet, including its minimum level, sample and limit.
    fn filter(outlet: &Element) -> Result<Option<Filter>> {
        let filter = match outlet.attribute("filter") {
            None => None,
            Some((text, place)) => {
                let at = |e: crate::FilterError| {
                    let place = place.inside(e.column - 1);
                    place.error(format!("the filter, at column {}: expected {}", e.column, e.expected))
                };
                Some(Filter::parse(text).map_err(at)?)
            }
        };
        let min_level = Given::find(outlet, "min_level").map(|given| {
            Level::from_name(given.text).ok_or_else(|| given.expected("trace, debug, info, warn or error"))
        });
        let filter = match (filter, min_level.transpose()?) {
            (Some(filter), Some(level)) => Some(filter.with_min_level(level)),
            (None, Some(level)) => Some(Filter::min_level(level)),
            (filter, None) => filter,
        };
        let sample = Given::find(outlet, "sample").map(|given| {
            let number = given.text.trim().strip_prefix("1/").and_then(|n| n.trim().parse().ok());
            number.ok_or_else(|| given.expected("1/N for one of N lines, 1/10 for example"))
        });
        let limit = Given::find(outlet, "limit").map(|given| {
            given.text.parse::<Limit>().map_err(|_| given.expected("lines in a time: 100/s, 1000/min or 5/h"))
        });
        let filter = match sample.transpose()? {
            Some(one_of) => Some(filter.unwrap_or_else(Filter::all).with_sample(one_of)),
            None => filter,
        };
        let filter = match limit.transpose()? {
            Some(limit) => Some(filter.unwrap_or_else(Filter::all).with_limit(limit)),
            None => filter,
        };
        Ok(filter)
    }

    /// Warns about outlets to streams that nothing makes. (The program may still make them.)
    fn check_targets(&mut self) {
        let built_in = Graph::new().names();
        let left_out: BTreeSet<&str> = self.left_out.iter().map(|(name, _)| &**name).collect();
        let known = |name: &str| {
            self.names.contains(name) || left_out.contains(name) || built_in.iter().any(|known| known == name)
        };
        let names: Vec<&str> = self.names.iter().chain(&built_in).map(|name| &**name).collect();
        let mut unknown = Vec::new();
        for (name, place) in &self.targets {
            let parents = name.match_indices('/').map(|(at, _)| &name[..at]);
            if !parents.chain([&**name]).any(known) {
                // Each suggestion compares all names.
                let suggest = unknown.len() < MAX_SUGGESTIONS;
                let meant = if suggest { did_you_mean(name, &names) } else { String::new() };
                let why = format!("nothing defines the stream {name:?} that this outlet leads to{meant}");
                unknown.push((place.clone(), why));
            }
        }
        for (place, why) in unknown {
            self.warn(&place, why);
        }
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
