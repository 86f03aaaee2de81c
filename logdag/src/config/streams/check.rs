//! What a configuration says that has no effect, or cannot be meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::http::is_nearly_http;
use super::known::{
    ATTRIBUTES, ELEMENTS, ELEMENTS_AND_LOGS, config_has_effect, has_effect, unknown_attribute,
};
use super::{MAX_SUGGESTIONS, Reader, same_name};
use crate::config::element::Element;
use crate::config::error::Result;
use crate::config::rotation::{self, RotatedNames};
use crate::config::value::Given;
use crate::graph::Graph;
use crate::sink::{SinkSpec, place};
use crate::suggest::{did_you_mean, nearly};

impl<'a> Reader<'a> {
    /// Checks an element outside `<logs>`: it belongs to the application, unless its name is
    /// probably mistyped.
    pub(super) fn check_outside(&mut self, element: &'a Element, above: &[&'a Element]) {
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
    pub(super) fn check_inherited(&mut self, element: &'a Element) {
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

    /// Reports meaningless contents of a stream or an outlet.
    pub(super) fn check_contents(&mut self, element: &'a Element) -> Result<()> {
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
    pub(super) fn check_group(&mut self, element: &'a Element, is_outermost: bool) -> Result<()> {
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
    pub(super) fn nothing(&mut self, root: &'a Element) {
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

    /// Warns about a stream's own attributes and keys that its type does not use. Inherited ones
    /// may be meant for other streams.
    pub(super) fn check_effects(&mut self, name: &str, element: &'a Element, kind: Option<&str>) {
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
    pub(super) fn check_links(&mut self) -> Result<()> {
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
    pub(super) fn check_files(&self) -> Result<()> {
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
    pub(super) fn check_jlogs(&self) -> Result<()> {
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

    /// Warns about outlets to streams that nothing makes. (The program may still make them.)
    pub(super) fn check_targets(&mut self) {
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
}
