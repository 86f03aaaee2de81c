//! Files that include others.

use std::path::{Path, PathBuf};

use super::element::{Element, INCLUDE_ATTRIBUTES, INCLUDED, Place, Source};
use super::error::{ConfigError, Result};
use super::value::Given;
use super::{files, streams, toml, xml};
use crate::suggest::nearly;

/// The maximum nesting of included files.
const MAX_INCLUDES: usize = 32;

/// The files that are being read, each included by the one before, and their warnings.
pub(super) struct Open {
    pub(super) files: Vec<PathBuf>,
    pub(super) doubts: Vec<ConfigError>,
}

impl Open {
    /// An element in which the contents of files replace the elements that include them, in
    /// document order.
    pub(super) fn expanded(&mut self, element: Element, source: &Source) -> Result<Element> {
        // In the TOML table `config`, `include` may be a key.
        if source.toml && element.name == "config" {
            return Ok(element);
        }
        let expanded = |child: Element| {
            if child.name != "include" {
                return self.expanded(child, source);
            }
            let taken = self.include(&child, source)?;
            Ok(child.around(taken))
        };
        let children = element.children.into_iter().map(expanded).collect::<Result<_>>()?;
        Ok(Element { children, ..element })
    }

    /// Reads the included files. Each becomes an element with the contents of the file's root or,
    /// for a snippet, of the file.
    fn include(&mut self, element: &Element, source: &Source) -> Result<Vec<Element>> {
        for (name, _, place) in &element.attributes {
            let toml = element.place.source.toml;
            // Accept what libmtev accepts, unless it is probably a mistyped name.
            let doubtful = if toml {
                !streams::ATTRIBUTES.contains(&&**name)
            } else {
                nearly(name, INCLUDE_ATTRIBUTES).is_some()
            };
            if doubtful && !INCLUDE_ATTRIBUTES.contains(&&**name) {
                let known = INCLUDE_ATTRIBUTES.iter().chain(if toml { streams::ATTRIBUTES } else { &[] });
                let known: Vec<&str> = known.copied().collect();
                return Err(place.unknown("attribute", name, &element.shown(), &known));
            }
        }
        if let Some(child) = element.children.first() {
            let why = format!("{} means nothing: {} has attributes only", child.shown(), element.shown());
            let error = child.place.error(why);
            if element.place.source.toml {
                return Err(error);
            }
            self.doubts.push(error);
        }
        let Some((file, place)) = element.attribute("file") else {
            return Err(element.place.error("an include without file: expected <include file=\"…\"/>"));
        };
        let snippet = Given::find(element, "snippet").map_or(Ok(false), |given| given.boolean())?;
        let paths = files::included(&source.dir, file).map_err(|why| {
            let shown = if source.shown { format!(" {file}") } else { String::new() };
            place.error(format!("cannot look for files to include{shown}: {why}"))
        })?;
        if paths.is_empty() {
            let shown = if source.shown { format!("{file:?}") } else { "the pattern".to_owned() };
            self.doubts.push(place.error(format!("{shown} matches no file: nothing is included")));
        }
        paths.iter().map(|path| self.include_one(place, source, path, snippet)).collect()
    }

    fn include_one(&mut self, place: &Place, source: &Source, path: &Path, snippet: bool) -> Result<Element> {
        let shown =
            if source.shown { path.display().to_string() } else { "the file that is named here".to_owned() };
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.files.contains(&identity) {
            return Err(place.error(format!("{shown} includes itself")));
        }
        if self.files.len() >= MAX_INCLUDES {
            return Err(place.error(format!("includes nested more than {MAX_INCLUDES} levels deep")));
        }
        let text =
            files::read(path, false).map_err(|why| place.error(format!("cannot include {shown}: {why}")))?;
        let included = Source::included(path, text);
        let taken = Element::empty(INCLUDED, included.place(0));
        self.files.push(identity);
        let taken = if included.toml {
            self.expanded(toml::into_element(&included, taken)?, &included)?
        } else if snippet {
            let children = xml::snippet(&included)?;
            self.expanded(Element { children, ..taken }, &included)?
        } else {
            let root = self.expanded(xml::root(&included)?, &included)?;
            if let Some(element) =
                ["log", "outlet", "config", "metric"].into_iter().find(|name| *name == root.name)
            {
                let why = format!(
                    "the <{element}> that is the root of an included file means nothing: expected elements below a root, or \
                     snippet=\"true\" where the file is included"
                );
                self.doubts.push(root.place.error(why));
            } else if root.configures() {
                let because = "expected it on the <include>, on an element around it, or on one in the included file that \
                               has streams in it";
                self.inherited_by_none(&root, "the root of an included file", because);
            }
            Element { children: root.children, ..taken }
        };
        included.named.set(taken.configures());
        streams::check_attributes(&taken)?;
        if !taken.has_stream() {
            let because = "it is for the streams in the included file, and there are none; expected it where the file is \
                           included";
            self.inherited_by_none(&taken, "the top level of an included file", because);
            for outlet in taken.named("outlet").filter(|outlet| outlet.attribute("name").is_some()) {
                self.doubts.push(
                    outlet.place.error(format!("an outlet of an included file has no effect: {because}")),
                );
            }
        }
        self.files.pop();
        Ok(taken)
    }

    /// Warns about stream attributes that no stream inherits.
    fn inherited_by_none(&mut self, element: &Element, on: &str, because: &str) {
        for (name, _, place) in &element.attributes {
            if name != "name" && streams::ATTRIBUTES.contains(&&**name) {
                self.doubts.push(place.error(format!("{name} on {on} has no effect: {because}")));
            }
        }
    }
}
