//! A graph from a configuration in XML.
//!
//! Streams are the `<log>` elements anywhere under `<logs>`. Attributes are inherited from the nearest ancestor that has
//! them; `<outlet>` children of a stream and of all its ancestors are its outlets; `<config>` children are merged from
//! the top down. A value of the form `ENV:default:{KEY}` is the variable, or the default. `<include file="f"/>` takes in
//! the root of another file, `snippet="true"` what it has without a root.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fancy_regex::Regex;

use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::graph::{Configured, Graph, StreamOptions};
use crate::sink::{Rotation, SinkSpec, WhenFull};

/// Files include one another no deeper than this.
const MAX_INCLUDES: usize = 32;
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
    "stats",
    "dedup_seconds",
    "require_env",
    "rotate_seconds",
    "retain_seconds",
    "rotate_bytes",
    "retain_bytes",
    "retain_count",
    "when_full",
];

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where the file cannot be read at all.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong, and what was expected.
    pub message: String,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        let before = self.text.chars().take(self.column.saturating_sub(1) as usize);
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(f, "\n  {}\n  {indent}^", self.text)
    }
}

impl std::error::Error for ConfigError {}

type Result<T> = std::result::Result<T, ConfigError>;

/// A text with its file's name.
#[derive(Debug)]
struct Source {
    file: String,
    dir: PathBuf,
    text: String,
}

/// A place in a text.
#[derive(Clone, Debug)]
struct Place {
    source: Rc<Source>,
    line: u32,
    column: u32,
}

impl Place {
    fn error(&self, message: impl Into<String>) -> ConfigError {
        let line = usize::try_from(self.line.saturating_sub(1)).unwrap_or(0);
        ConfigError {
            file: self.source.file.clone(),
            line: self.line,
            column: self.column,
            message: message.into(),
            text: self.source.text.lines().nth(line).unwrap_or("").to_owned(),
        }
    }
}

/// An element, whatever file it comes from.
#[derive(Debug)]
struct Element {
    name: String,
    place: Place,
    attributes: Vec<(String, String, Place)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<(&str, &Place)> {
        self.attributes.iter().find(|(key, ..)| key == name).map(|(_, value, place)| (&**value, place))
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// A configuration that was read and found to be right.
#[derive(Debug)]
pub struct Config {
    streams: Vec<Configured>,
    places: Vec<Place>,
}

impl Config {
    /// Reads a file, with those that it includes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut open = Vec::new();
        let path = path.as_ref();
        let source = Rc::new(read(path).map_err(|message| unreadable(path, message))?);
        Self::from_source(&source, &mut open, path)
    }

    /// Reads a text; `file` is what errors call it, and includes are relative to its directory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_text(file: impl AsRef<Path>, text: &str) -> Result<Self> {
        let path = file.as_ref();
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let source = Rc::new(Source { file: path.display().to_string(), dir, text: text.to_owned() });
        Self::from_source(&source, &mut Vec::new(), path)
    }

    fn from_source(source: &Rc<Source>, open: &mut Vec<PathBuf>, path: &Path) -> Result<Self> {
        open.push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let root = parse(source, false, open)?;
        let root =
            root.into_iter().next().ok_or_else(|| unreadable(path, "it has no root element".to_owned()))?;
        let mut reader = Reader { streams: Vec::new(), places: Vec::new(), configs: BTreeMap::new() };
        collect_configs(&root, &mut reader.configs);
        reader.find_logs(&root, &mut Vec::new())?;
        let config = Self { streams: reader.streams, places: reader.places };
        config.check_cycles()?;
        Ok(config)
    }

    /// The streams, in the order of the document.
    pub fn streams(&self) -> &[Configured] {
        &self.streams
    }

    /// Tries the outlets on a graph of their own, without any sink.
    fn check_cycles(&self) -> Result<()> {
        let bare = self.streams.iter().cloned().map(|mut stream| {
            stream.options.sink = None;
            stream
        });
        Graph::new().apply(bare.collect()).map_err(|(n, e)| self.places[n].error(e.to_string()))
    }

    /// Sets up a graph: all of it, or, where a sink cannot be opened, nothing.
    ///
    /// # Errors
    /// A type that is not registered, or a sink that cannot be opened.
    pub fn apply(&self, graph: &Graph) -> Result<()> {
        self.check_types(graph)?;
        graph.apply(self.streams.clone()).map_err(|(n, e)| self.places[n].error(e.to_string()))
    }

    /// Checks that every type is registered.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_types(&self, graph: &Graph) -> Result<()> {
        for (stream, place) in self.streams.iter().zip(&self.places) {
            if let Some(sink) = stream.options.sink.as_ref().filter(|sink| !graph.knows_type(&sink.kind)) {
                return Err(place.error(format!(
                    "unknown type {:?}: expected file, file_synch, memory, jlog, stdout, stderr, or a type that the \
                     application registers",
                    sink.kind
                )));
            }
            if let Some(sink) = &stream.options.sink {
                crate::sink::check(sink).map_err(|why| place.error(why))?;
            }
        }
        Ok(())
    }
}

fn unreadable(path: &Path, message: String) -> ConfigError {
    ConfigError { file: path.display().to_string(), line: 0, column: 0, message, text: String::new() }
}

fn read(path: &Path) -> std::result::Result<Source, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line} is not UTF-8")
    })?;
    Ok(Source {
        file: path.display().to_string(),
        dir: path.parent().unwrap_or(Path::new("")).to_owned(),
        text,
    })
}

/// Parses a text; a snippet may have several elements on top.
fn parse(source: &Rc<Source>, snippet: bool, open: &mut Vec<PathBuf>) -> Result<Vec<Element>> {
    let wrapped;
    // A root on the snippet's first line leaves lines as they are, and moves columns of the first one.
    let (text, moved) = if snippet {
        wrapped = format!("<s>{}</s>", source.text);
        (&wrapped, 3)
    } else {
        (&source.text, 0)
    };
    let place = |pos: roxmltree::TextPos| Place {
        source: Rc::clone(source),
        line: pos.row,
        column: if pos.row == 1 { pos.col.saturating_sub(moved).max(1) } else { pos.col },
    };
    let options =
        roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 1_000_000, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options)
        .map_err(|e| place(e.pos()).error(explain(&e)))?;
    let root = document.root_element();
    if snippet {
        children(root, &document, &place, source, open)
    } else {
        Ok(vec![element(root, &document, &place, source, open)?])
    }
}

/// What a user needs to hear of text that is no XML.
fn explain(error: &roxmltree::Error) -> String {
    match error {
        roxmltree::Error::UnexpectedCloseTag(expected, found, _) => {
            format!(
                "</{found}> closes nothing here: expected </{expected}> (is an element closed twice, or by \"/>\"?)"
            )
        }
        other => {
            // The parser's text ends with the position, which stands before it already.
            let text = other.to_string();
            text.split(" at ").next().unwrap_or(&text).to_owned()
        }
    }
}

type PlaceOf<'a> = dyn Fn(roxmltree::TextPos) -> Place + 'a;

fn element(
    node: roxmltree::Node<'_, '_>,
    document: &roxmltree::Document<'_>,
    place: &PlaceOf<'_>,
    source: &Rc<Source>,
    open: &mut Vec<PathBuf>,
) -> Result<Element> {
    let at = |offset: usize| place(document.text_pos_at(offset));
    let attributes = node
        .attributes()
        .map(|a| (a.name().to_owned(), substitute(a.value()), at(a.range_value().start)))
        .collect();
    Ok(Element {
        name: node.tag_name().name().to_owned(),
        place: at(node.range().start),
        attributes,
        text: substitute(node.text().unwrap_or("").trim()),
        children: children(node, document, place, source, open)?,
    })
}

fn children(
    node: roxmltree::Node<'_, '_>,
    document: &roxmltree::Document<'_>,
    place: &PlaceOf<'_>,
    source: &Rc<Source>,
    open: &mut Vec<PathBuf>,
) -> Result<Vec<Element>> {
    let mut out = Vec::new();
    for child in node.children().filter(roxmltree::Node::is_element) {
        let child = element(child, document, place, source, open)?;
        if child.name == "include" {
            out.extend(include(&child, source, open)?);
        } else {
            out.push(child);
        }
    }
    Ok(out)
}

fn include(element: &Element, source: &Source, open: &mut Vec<PathBuf>) -> Result<Vec<Element>> {
    let Some((file, place)) = element.attribute("file") else {
        return Err(element.place.error("an include without file: expected <include file=\"…\"/>"));
    };
    let snippet = match element.attribute("snippet") {
        Some((text, place)) => boolean(text, place)?,
        None => false,
    };
    let path = source.dir.join(file);
    let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
    if open.contains(&identity) {
        return Err(place.error(format!("{} includes itself", path.display())));
    }
    if open.len() >= MAX_INCLUDES {
        return Err(place.error(format!("includes more than {MAX_INCLUDES} deep")));
    }
    let included =
        read(&path).map_err(|why| place.error(format!("cannot include {}: {why}", path.display())))?;
    open.push(identity);
    let parsed = parse(&Rc::new(included), snippet, open)?;
    open.pop();
    Ok(if snippet { parsed } else { parsed.into_iter().flat_map(|root| root.children).collect() })
}

/// Puts a variable in place of `ENV:default:{KEY}`.
fn substitute(value: &str) -> String {
    let parts = value
        .strip_prefix("ENV:")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|rest| rest.rsplit_once(":{"));
    match parts {
        Some((default, key)) => std::env::var(key).unwrap_or_else(|_| default.to_owned()),
        None => value.to_owned(),
    }
}

fn boolean(text: &str, place: &Place) -> Result<bool> {
    match &*text.to_ascii_lowercase() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(place.error(format!("{text:?}: expected on, off, true or false"))),
    }
}

fn number(text: &str, place: &Place) -> Result<u64> {
    text.trim().parse().map_err(|_| place.error(format!("{text:?}: expected a number")))
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

struct Reader<'a> {
    streams: Vec<Configured>,
    places: Vec<Place>,
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
                return Ok(());
            }
        }
        let Some((name, place)) = element.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(element.place.error("a log without a name: expected <log name=\"…\"/>"));
        };
        if self.streams.iter().any(|stream| stream.name == name) {
            return Err(place.error(format!("there is a log {name:?} already")));
        }
        let options = self.options(name, chain)?;
        let outlets = Self::outlets(chain)?;
        self.streams.push(Configured { name: name.to_owned(), options, outlets });
        self.places.push(element.place.clone());
        Ok(())
    }

    fn options(&self, name: &str, chain: &[&'a Element]) -> Result<StreamOptions> {
        let inherited = |name: &str| chain.iter().rev().find_map(|element| element.attribute(name));
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
                place.error(format!("unknown format {text:?}: expected plain, json or event"))
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
        let kind = inherited("type").map(|(kind, _)| kind.to_owned()).filter(|kind| !kind.is_empty());
        let sink = match kind {
            None => None,
            Some(kind) => {
                let path = inherited("path").map_or("", |(path, _)| path).to_owned();
                if path.is_empty() && matches!(&*kind, "file" | "file_synch" | "jlog") {
                    let place = chain.last().map(|element| &element.place);
                    let why = format!("a log of type {kind} without a path: expected path=\"…\"");
                    return Err(place
                        .map_or_else(|| unreadable(Path::new(""), why.clone()), |p| p.error(why.clone())));
                }
                let config = self.merged_config(chain)?;
                Some(SinkSpec { stream: name.to_owned(), kind, path, config, rotation })
            }
        };
        flag("stats")?;
        Ok(StreamOptions {
            sink,
            format,
            flags: Flags {
                timestamps: flag("timestamps")?,
                facility: flag("facility")?,
                debug: flag("debug")?,
            },
            disabled: flag("disabled")?,
            dedup_seconds: count("dedup_seconds")?,
            when_full,
        })
    }

    fn outlets(chain: &[&'a Element]) -> Result<Vec<(String, Option<Filter>)>> {
        let mut outlets = Vec::new();
        for outlet in chain.iter().flat_map(|element| element.named("outlet")) {
            if let Some((name, _, place)) =
                outlet.attributes.iter().find(|(name, ..)| !matches!(&**name, "name" | "filter"))
            {
                return Err(place.error(format!("unknown attribute {name:?}: expected name or filter")));
            }
            let Some((name, _)) = outlet.attribute("name").filter(|(name, _)| !name.is_empty()) else {
                return Err(outlet.place.error("an outlet without a name: expected <outlet name=\"…\"/>"));
            };
            let filter = match outlet.attribute("filter") {
                None => None,
                Some((text, place)) => {
                    let at = |e: crate::FilterError| {
                        let mut place = place.clone();
                        // Escapes in the attribute can move it further to the right.
                        let column = u32::try_from(e.column - 1).unwrap_or(0);
                        place.column += column;
                        place
                            .error(format!("the filter, at its column {}: expected {}", e.column, e.expected))
                    };
                    Some(Filter::parse(text).map_err(at)?)
                }
            };
            outlets.push((name.to_owned(), filter));
        }
        Ok(outlets)
    }

    /// The `<config>` of a stream: from the top down, the deepest wins.
    fn merged_config(&self, chain: &[&'a Element]) -> Result<BTreeMap<String, String>> {
        let mut merged = BTreeMap::new();
        for config in chain.iter().flat_map(|element| element.named("config")) {
            self.merge(config, &mut merged, 0)?;
        }
        Ok(merged)
    }

    fn merge(&self, config: &Element, merged: &mut BTreeMap<String, String>, depth: usize) -> Result<()> {
        if let Some((id, place)) = config.attribute("inherit") {
            let Some(other) = self.configs.get(id) else {
                return Err(place.error(format!("there is no config with the id {id:?}")));
            };
            if depth >= MAX_INCLUDES {
                return Err(place.error(format!("config {id:?} inherits itself")));
            }
            self.merge(other, merged, depth + 1)?;
        }
        for child in &config.children {
            merged.insert(child.name.clone(), child.text.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        Config::from_text("app.xml", text)
    }

    fn logs(inside: &str) -> Result<Config> {
        config(&format!("<app><logs>\n{inside}\n</logs></app>"))
    }

    #[test]
    fn attributes_are_inherited_outlets_add_up_and_config_is_merged() {
        let config = logs(
            r#"<a type="jlog" path="/x" timestamps="on" facility="off">
                 <config id="big"><segment_size>1000</segment_size><precommit>5</precommit></config>
                 <outlet name="one"/>
                 <b format="json">
                   <log name="l" facility="TRUE"><outlet name="two" filter="status >= 500"/>
                     <config><precommit>7</precommit></config></log>
                   <log name="m" type="memory" path="1,2" timestamps="off"/>
                 </b>
               </a>
               <log name="n" type="jlog" path="/y"><config inherit="big"><precommit>9</precommit></config></log>"#,
        )
        .unwrap();
        let [l, m, n] = config.streams() else { panic!("three streams") };
        let sink = l.options.sink.as_ref().unwrap();
        assert_eq!((&*sink.kind, &*sink.path, l.options.format), ("jlog", "/x", Format::Json));
        assert_eq!(l.options.flags, Flags { timestamps: true, facility: true, debug: false });
        assert_eq!(sink.config["segment_size"], "1000");
        assert_eq!(sink.config["precommit"], "7");
        let outlets: Vec<_> = l.outlets.iter().map(|(to, f)| (&**to, f.as_ref().map(Filter::text))).collect();
        assert_eq!(outlets, [("one", None), ("two", Some("status >= 500"))]);
        assert_eq!(m.outlets.len(), 1);
        assert_eq!(m.options.sink.as_ref().unwrap().kind, "memory");
        assert!(!m.options.flags.timestamps);
        let config = &n.options.sink.as_ref().unwrap().config;
        assert_eq!((&*config["segment_size"], &*config["precommit"]), ("1000", "9"));
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        for (inside, line, column, message) in [
            (r#"<log type="memory"/>"#, 2, 1, "a log without a name"),
            (r#"<log name="a"/> <log name="a"/>"#, 2, 28, "there is a log \"a\" already"),
            (r#"<log name="a" timestamps="maybe"/>"#, 2, 27, "expected on, off, true or false"),
            (r#"<log name="a" colour="red"/>"#, 2, 23, "unknown attribute \"colour\""),
            (r#"<log name="a" type="file"/>"#, 2, 1, "without a path"),
            (r#"<log name="a" type="file" path="/x" rotate_bytes="5"/>"#, 2, 51, "expected 102400 or more"),
            (r#"<log name="a" type="file" path="/x" rotate_seconds="599"/>"#, 2, 53, "expected 600 or more"),
            (r#"<log name="a" dedup_seconds="-1"/>"#, 2, 30, "expected a number"),
            (r#"<log name="a" format="xml"/>"#, 2, 23, "expected plain, json or event"),
            (r#"<log name="a"><outlet/></log>"#, 2, 15, "an outlet without a name"),
            (r#"<log name="a"><outlet name="b" filter="x ="/></log>"#, 2, 43, "a quoted text or a number"),
            (r#"<log name="a"><outlet name="a"/></log>"#, 2, 1, "a -> a"),
            (
                r#"<log name="a"><outlet name="b"/></log><log name="b"><outlet name="a"/></log>"#,
                2,
                39,
                "b -> a -> b",
            ),
            (r#"<log name="a" require_env="=x"/>"#, 2, 28, "expected VAR"),
            (
                r#"<log name="a" type="jlog" path="/x"><config inherit="no"/></log>"#,
                2,
                54,
                "no config with the id",
            ),
            (r#"<log name="a"/></more>"#, 2, 16, "</more> closes nothing here"),
            (r#"<include file="/nowhere/at.all"/>"#, 2, 16, "cannot include"),
        ] {
            let error = logs(inside).expect_err(inside);
            assert_eq!((error.line, error.column), (line, column), "{inside}: {error}");
            assert!(error.message.contains(message), "{inside}: {error}");
            assert!(error.to_string().starts_with("app.xml:2:"), "{error}");
        }
        let error = logs(r#"<log name="a" format="xml"/>"#).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines[1..], ["  <log name=\"a\" format=\"xml\"/>", "                        ^"]);
    }

    #[test]
    fn the_environment_decides() {
        // PATH is there in every test; the other name is in none.
        let config = logs(
            r#"<log name="a" require_env="PATH"/><log name="b" require_env="!PATH"/>
               <log name="c" require_env="PATH~."/><log name="d" require_env="PATH=nothing"/>
               <log name="e" require_env="!LOGDAG_NOT_THERE"/>
               <g require_env="LOGDAG_NOT_THERE"><log name="f"/></g>
               <log name="g" type="memory" path="ENV:3,4:{LOGDAG_NOT_THERE}"/>"#,
        )
        .unwrap();
        let names: Vec<&str> = config.streams().iter().map(|stream| &*stream.name).collect();
        assert_eq!(names, ["a", "c", "e", "g"]);
        assert_eq!(config.streams()[3].options.sink.as_ref().unwrap().path, "3,4");
    }

    #[test]
    fn files_are_included_and_never_round_and_round() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("root.xml", "<r><log name=\"b\"/></r>");
        write("snippet.xml", "<log name=\"c\"/><log name=\"d\" format=\"no\"/>");
        write("loop.xml", "<app><logs><include file=\"loop.xml\"/></logs></app>");
        write("app.xml", "<app><logs><include file=\"root.xml\"/><log name=\"a\"/></logs></app>");
        let config = Config::from_file(dir.path().join("app.xml")).unwrap();
        let names: Vec<&str> = config.streams().iter().map(|stream| &*stream.name).collect();
        assert_eq!(names, ["b", "a"]);
        let error = Config::from_file(dir.path().join("loop.xml")).unwrap_err();
        assert!(error.message.contains("includes itself"), "{error}");
        write("app.xml", "<app><logs><include file=\"snippet.xml\" snippet=\"true\"/></logs></app>");
        let error = Config::from_file(dir.path().join("app.xml")).unwrap_err();
        assert!(error.file.ends_with("snippet.xml"), "{error}");
        assert_eq!((error.line, error.column), (1, 38), "{error}");
        let error = Config::from_file(dir.path().join("none.xml")).unwrap_err();
        assert!(error.to_string().contains("none.xml: No such file"), "{error}");
    }

    #[test]
    fn the_sample_works() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../examples/sample.xml").replace("/var/log", dir.path().to_str().unwrap());
        let config = config(&text).unwrap();
        let graph = Graph::new();
        config.apply(&graph).unwrap();
        graph.set_enabled("stderr", false).unwrap();
        let example = graph.find("error/example").unwrap();
        crate::log!(example, "it {}", "works");
        crate::log!(graph.find("http/access").unwrap(), status = 200; "GET /");
        assert!(!graph.find("debug/example").unwrap().is_material());
        graph.flush().unwrap();
        let log = std::fs::read_to_string(dir.path().join("app.log")).unwrap();
        assert!(log.starts_with('[') && log.ends_with("] it works\n"), "{log}");
        let feed = jlog_core::Jlog::open(dir.path().join("app-http.feed")).unwrap();
        feed.subscribe("s", jlog_core::Start::Beginning).unwrap();
        let mut reader = feed.reader("s").unwrap();
        let batch = reader.next_batch(jlog_core::Wait::No).unwrap().unwrap();
        assert_eq!(batch.iter().map(|m| m.body().to_vec()).collect::<Vec<_>>(), [b"GET /".to_vec()]);
        // The ring is there only where the environment asks for it.
        assert!(graph.describe("internal").unwrap().kind.is_empty());
    }
}
