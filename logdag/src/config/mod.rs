//! A graph from a configuration in XML, or in TOML.
//!
//! In XML, streams are the `<log>` elements anywhere under `<logs>`. Attributes are inherited from
//! the nearest ancestor that has them; `<outlet>` children of a stream and of all its ancestors are
//! its outlets; `<config>` children are merged from the top down. A value of the form
//! `ENV:default:{KEY}` is the variable, or the default. `<include file="f"/>` includes the contents
//! of another file's root; with `snippet="true"`, the contents of a file without a root. As in
//! libmtev, the `<include>` is an element around the included content: the outlets of an included
//! file apply to the streams in it, and so do attributes of the `<include>`. The name may be a
//! shell pattern, such as `conf.d/*.xml` or `{web,db}.xml`: then all matching files are included,
//! in the order of their names.
//!
//! Sizes (`rotate_bytes`, `retain_bytes`, `max_line`, `queue_bytes`, and the jlog's `segment_size`
//! and `precommit`) are bytes, or have a unit: `10MB`, `10MiB`. Durations (`rotate_seconds`,
//! `retain_seconds`, `dedup_seconds`) are seconds, or have one: `90s`, `12h`, `7d`. A value of 0
//! for `rotate_bytes` or `rotate_seconds` turns off an inherited rotation, as does `off` for
//! `rotate_at`. [`RotateAt`](crate::RotateAt), [`Zone`](crate::Zone),
//! [`RotatedName`](crate::RotatedName) and [`Compression`](crate::Compression) describe
//! `rotate_at`, `rotate_zone`, `rotate_name` and `compress`. `make_dirs` makes the missing
//! directories of a file or a jlog.
//!
//! `<metric name="requests" labels="status" filter="…"/>` counts the lines of the streams that it
//! is in, as an outlet to a stream `metric/requests` with a [`Metric`](crate::Metric) would.
//! `type="histogram"` with `value="KEY"` makes a histogram of a number. [`Metric`](crate::Metric)
//! describes `buckets`, `scale`, `labels`, `max_series` and `help`; `filter`, `min_level`, `limit`
//! and `sample` work as on an outlet. In TOML it is a table, or a list of tables, `metric`.
//!
//! With `<http address="127.0.0.1:8465"/>`, below the root or in `<logs>`, the command answers over
//! HTTP ([`Http`]).
//!
//! A mistake is an error. Something that libmtev accepts although it means nothing, such as an
//! element `<oulet>`, is a warning ([`Config::warnings`]); `logdag check --strict` refuses it.
//!
//! TOML has the same model: the file corresponds to `<logs>` in XML. Keys with a string, a number
//! or a boolean are attributes; `[[log]]` is a stream, `outlet` a list of names or of tables with
//! `name` and `filter`, `config` a table, `include` a list of files or of tables with `file` and
//! attributes, and every other table a group whose attributes and outlets the streams in it
//! inherit. The top level of an included TOML file applies to the streams in that file. Unknown
//! keys are errors. A file whose name ends in `.toml` is TOML; everything else is XML.
//!
//! ```toml
//! timestamps = true
//!
//! [[log]]
//! name = "logfile"
//! type = "file"
//! path = "/var/log/app.log"
//! rotate_bytes = 10_000_000
//! retain_count = 5
//!
//! [components]
//! outlet = ["stderr", { name = "logfile", filter = "status >= 500" }]
//!
//! [[components.log]]
//! name = "http/access"
//! ```

mod rotation;
mod streams;
#[cfg(feature = "toml")]
mod toml;
mod value;
#[cfg(not(all(feature = "toml", feature = "xml")))]
mod without;
mod written;
#[cfg(feature = "xml")]
mod xml;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::OFlag;

use crate::graph::{ApplyError, Graph};
use crate::options::StreamConfig;
use crate::redact::Redaction;
use crate::suggest::{did_you_mean, nearly};
use value::Given;
#[cfg(not(feature = "toml"))]
use without::toml;
#[cfg(not(feature = "xml"))]
use without::xml;
pub use written::to_toml;

/// The most bytes of a file: 16 MiB.
const MAX_FILE: u64 = 16 << 20;
/// The maximum nesting of included files.
const MAX_INCLUDES: usize = 32;
/// The most alternatives in a pattern.
const MAX_FILES: usize = 10_000;
/// The most symbolic links that are followed, as in the kernel.
const MAX_LINKS: usize = 40;
/// The maximum nesting of elements.
const MAX_DEPTH: usize = 100;

/// Attributes of an `<include>`.
const INCLUDE_ATTRIBUTES: &[&str] = &["file", "snippet"];
/// The name of the element that holds an included file. No element of a file can have this name.
const INCLUDED: &str = "included file";

/// An error shows this many characters of its line, and this many of them before the place.
const SHOWN: usize = 160;
const SHOWN_BEFORE: usize = 80;
/// Of a line that is longer than this, in bytes, an error keeps only what it shows.
const LONG_LINE: usize = 1024;

/// The built-in types.
const BUILT_IN_TYPES: &[&str] =
    &["file", "file_synch", "memory", "jlog", "stdout", "stderr", "fd", "syslog", "journald", "metric"];

/// A mistake in a configuration (or a possible one, as a warning), and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 if the file cannot be read at all.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The mistake, and what was expected.
    pub message: String,
    /// The line itself, or what is around the place in one that has more than 1024 bytes; empty for
    /// a file that is not a configuration, and for included ones, because their contents may be
    /// confidential.
    pub text: String,
    /// How many characters of the line come before the text.
    left_out: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.text.is_empty() {
            return Ok(());
        }
        // A line may be as long as the file.
        let column = self.column.saturating_sub(1) as usize;
        let from = column.saturating_sub(SHOWN_BEFORE);
        let mut chars = self
            .text
            .chars()
            .skip(from - self.left_out.min(from))
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c });
        let mut text: String = chars.by_ref().take(SHOWN).collect();
        let indent: String =
            text.chars().take(column - from).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        if chars.next().is_some() {
            text.push('…');
        }
        let (dots, space) = if from > 0 { ("…", " ") } else { ("", "") };
        write!(f, "\n  {dots}{text}\n  {space}{indent}^")
    }
}

impl std::error::Error for ConfigError {}

type Result<T> = std::result::Result<T, ConfigError>;

/// A text with its file's name.
#[derive(Clone, Debug)]
struct Source {
    file: String,
    dir: PathBuf,
    text: String,
    toml: bool,
    /// Whether errors may show its text.
    shown: bool,
    /// Whether errors may show names that are in it: it has streams or outlets, and is a
    /// configuration for sure.
    named: Cell<bool>,
    line_starts: OnceCell<Vec<usize>>,
    /// A place, and how many characters of its line come before it.
    counted: Cell<(usize, usize)>,
}

impl Source {
    fn new(path: &Path, text: String, shown: bool) -> Rc<Self> {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Rc::new(Self {
            file: path.display().to_string(),
            dir,
            text,
            toml: is_toml(path),
            shown,
            named: Cell::new(shown),
            line_starts: OnceCell::new(),
            counted: Cell::new((0, 0)),
        })
    }

    /// The place of a byte.
    fn place(self: &Rc<Self>, offset: usize) -> Place {
        Place { source: Rc::clone(self), offset }
    }
}

/// A place in a text: a byte. Lines and columns are only counted for errors.
#[derive(Clone, Debug)]
struct Place {
    source: Rc<Source>,
    offset: usize,
}

impl Place {
    fn error(&self, message: impl Into<String>) -> ConfigError {
        let (begun, line, column) = self.line_and_column();
        let (text, left_out) = if self.source.shown { self.line(begun, column) } else { ("", 0) };
        ConfigError {
            file: self.source.file.clone(),
            line,
            column,
            message: message.into(),
            text: text.to_owned(),
            left_out,
        }
    }

    /// The line that begins here, or what is around the place, and how many characters come before
    /// that.
    fn line(&self, begun: usize, column: u32) -> (&str, usize) {
        let text = &*self.source.text;
        let end_from = |from: usize, most: usize| -> usize {
            let rest = text.get(from..).unwrap_or("");
            let within = rest.char_indices().take_while(|&(_, c)| c != '\n').take(most).last();
            from + within.map_or(0, |(at, c)| at + c.len_utf8())
        };
        let end = end_from(begun, LONG_LINE + 1);
        let (from, to, left_out) = if end - begun <= LONG_LINE {
            (begun, end, 0)
        } else {
            let before = text.get(begun..self.offset).unwrap_or("");
            let kept = before.char_indices().rev().take(SHOWN_BEFORE).map(|(at, _)| at).last().unwrap_or(0);
            let left_out = (column.saturating_sub(1) as usize).saturating_sub(SHOWN_BEFORE);
            // One more shows that the line goes on.
            (begun + kept, end_from(begun + kept, SHOWN + 1), left_out)
        };
        let line = text.get(from..to).unwrap_or("");
        let ends_here = text.as_bytes().get(to) == Some(&b'\n');
        (line.strip_suffix('\r').filter(|_| ends_here).unwrap_or(line), left_out)
    }

    /// What is to be said of a name that means nothing.
    fn unknown(&self, what: &str, name: &str, on: &str, known: &[&str]) -> ConfigError {
        let shown = if self.source.named.get() { format!(" {name:?}") } else { String::new() };
        let meant = did_you_mean(name, known);
        self.error(if meant.is_empty() {
            format!("unknown {what}{shown} on {on}: expected one of {}", known.join(", "))
        } else {
            format!("unknown {what}{shown} on {on}{meant}")
        })
    }

    /// Where its line begins, the number of the line, and the column in it.
    fn line_and_column(&self) -> (usize, u32, u32) {
        let Source { text, line_starts, .. } = &*self.source;
        // Looked for once: a configuration of many streams may have many warnings.
        let starts = line_starts
            .get_or_init(|| [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect());
        let line = starts.partition_point(|&start| start <= self.offset);
        let begun = line.checked_sub(1).and_then(|at| starts.get(at)).copied().unwrap_or(0);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // A line may have many warnings, too.
        let (counted_to, counted) = self.source.counted.get();
        let (from, before) =
            if (begun..=self.offset).contains(&counted_to) { (counted_to, counted) } else { (begun, 0) };
        let column = before + text.get(from..self.offset).map_or(0, |line| line.chars().count());
        self.source.counted.set((self.offset, column));
        (begun, number(line), number(1 + column))
    }

    /// The place in the file of a character of a value that begins here.
    fn inside(&self, characters: usize) -> Place {
        let raw = self.source.text.get(self.offset..).unwrap_or("");
        // What the environment gives is not in the file.
        if raw.starts_with("ENV:") {
            return self.clone();
        }
        let before = self.source.text.get(..self.offset).unwrap_or("").trim_end_matches(['\r', '\n']);
        let escapes = self.source.toml && before.ends_with('"');
        let (mut at, mut passed) = (0, 0);
        loop {
            let rest = raw.get(at..).unwrap_or("");
            let mut chars = rest.chars();
            let (Some(first), second) = (chars.next(), chars.next()) else { break };
            if escapes && first == '\\' && second.is_some_and(char::is_whitespace) {
                // A line that continues in the next one: none of this is part of the value.
                at += rest.len() - rest[1..].trim_start().len();
                continue;
            }
            if passed == characters {
                break;
            }
            passed += 1;
            at += match first {
                '&' if !self.source.toml => rest.find(';').map_or(1, |end| end + 1),
                '\\' if escapes => match second {
                    Some('x') => 4,
                    Some('u') => 6,
                    Some('U') => 10,
                    other => 1 + other.map_or(0, char::len_utf8),
                },
                '\r' if second == Some('\n') => 2,
                _ => first.len_utf8(),
            };
        }
        Place { offset: self.offset + at, ..self.clone() }
    }
}

/// An element of XML, or its equivalent in TOML, from any file.
#[derive(Debug)]
struct Element {
    name: String,
    place: Place,
    attributes: Vec<(String, String, Place)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn empty(name: &str, place: Place) -> Self {
        Self {
            name: name.to_owned(),
            place,
            attributes: Vec::new(),
            text: String::new(),
            children: Vec::new(),
        }
    }

    /// How it is written, for errors.
    fn shown(&self) -> String {
        let known = ["log", "logs", "outlet", "config", "include", "http"].contains(&&*self.name);
        match &*self.name {
            "logs" | INCLUDED if self.place.source.toml => "the top level".to_owned(),
            "include" if self.place.source.toml => "include".to_owned(),
            "log" if self.place.source.toml => "[[log]]".to_owned(),
            _ if !known && !self.place.source.named.get() => "a group".to_owned(),
            name if self.place.source.toml => format!("[{name}]"),
            name => format!("<{name}>"),
        }
    }

    /// Whether there is a stream in it, or an outlet.
    fn configures(&self) -> bool {
        matches!(&*self.name, "log" | "outlet") && self.attribute("name").is_some()
            || self.children.iter().any(Element::configures)
    }

    fn attribute(&self, name: &str) -> Option<(&str, &Place)> {
        self.attributes.iter().find(|(key, ..)| key == name).map(|(_, value, place)| (&**value, place))
    }

    /// Whether there is a stream in it.
    fn has_stream(&self) -> bool {
        self.name == "log" || self.children.iter().any(Element::has_stream)
    }

    /// Whether its children come from other files.
    fn is_include(&self) -> bool {
        matches!(&*self.name, "include" | INCLUDED)
    }

    /// The include element around the included elements.
    fn around(self, taken: Vec<Element>) -> Element {
        let is_own = |name: &str| INCLUDE_ATTRIBUTES.contains(&name) || name == "readonly";
        let attributes = self.attributes.into_iter().filter(|(name, ..)| !is_own(name)).collect();
        Element { attributes, children: taken, text: String::new(), ..self }
    }

    /// What is in it, also in files that it includes.
    fn contents(&self) -> Vec<&Element> {
        let mut all = Vec::new();
        for child in &self.children {
            if child.is_include() {
                all.extend(child.contents());
            } else {
                all.push(child);
            }
        }
        all
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Config {
    /// In document order.
    streams: Vec<StreamConfig>,
    places: Vec<Place>,
    /// Streams that are left out, and what they require of the environment.
    left_out: Vec<(String, String)>,
    warnings: Vec<ConfigError>,
    /// What no stream writes.
    redaction: Redaction,
    /// Where to answer over HTTP, and where that stands.
    http: Option<(Http, Place)>,
}

/// Settings for answering over HTTP: an `<http>` below the root or in `<logs>`, or the table
/// `[http]`. This library does not answer itself; the command `logdag` does, and programs can with
/// the crate jlog-watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http {
    /// The address to listen at, as written.
    pub address: String,
    /// The file with the token that clients must send.
    pub token_file: Option<PathBuf>,
    /// The certificate and its chain for TLS, and its private key: both are given, or neither.
    pub tls_cert: Option<PathBuf>,
    /// The private key.
    pub tls_key: Option<PathBuf>,
    /// The authorities whose certificates clients must have.
    pub tls_client_ca: Option<PathBuf>,
    /// Names by which clients without a token may call the server (`allow_host`, with commas
    /// between them).
    pub allow_hosts: Vec<String>,
}

impl Config {
    /// Reads a file and those that it includes: regular files of up to 16 MiB. The first file may
    /// also be a pipe that the process was started with, such as `/dev/stdin`, which is read to its
    /// end.
    ///
    /// # Errors
    /// The first mistake.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read(path, true).map_err(|message| unreadable(path, message))?;
        let shown = is_toml(path) || looks_like_xml(&text);
        Self::from_source(&Source::new(path, text, shown), path)
    }

    /// Reads a text; `file` is its name in errors, and includes are relative to its directory. It
    /// is TOML if that name ends in `.toml`.
    ///
    /// # Errors
    /// The first mistake.
    pub fn from_text(file: impl AsRef<Path>, text: &str) -> Result<Self> {
        let path = file.as_ref();
        Self::from_source(&Source::new(path, text.to_owned(), true), path)
    }

    fn from_source(source: &Rc<Source>, path: &Path) -> Result<Self> {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut open = Open { files: vec![identity], doubts: Vec::new() };
        let root = if source.toml {
            let logs = toml::into_element(source, Element::empty("logs", source.place(0)), &mut open)?;
            Element { children: vec![logs], ..Element::empty("application", source.place(0)) }
        } else {
            xml::root(source, &mut open)?
        };
        let config = streams::read(&root, open.doubts)?;
        config.check_outlets()?;
        Ok(config)
    }

    /// The streams, in document order.
    pub fn streams(&self) -> &[StreamConfig] {
        &self.streams
    }

    /// The settings for answering over HTTP, if there are any.
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref().map(|(http, _)| http)
    }

    /// Makes an error about the HTTP settings, with their place.
    pub fn http_error(&self, why: impl Into<String>) -> ConfigError {
        let why = why.into();
        self.http
            .as_ref()
            .map_or_else(|| unreadable(Path::new(""), why.clone()), |(_, place)| place.error(&*why))
    }

    /// The streams that the environment leaves out, with the condition (`require_env`) that does
    /// not hold.
    pub fn left_out(&self) -> &[(String, String)] {
        &self.left_out
    }

    /// What no sink gets, whatever streams a line comes through.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// Lets lines through a stream, or not, whatever the configuration says; says whether it
    /// declares the stream.
    pub fn set_enabled(&mut self, name: &str, enabled: bool) -> bool {
        let stream = self.streams.iter_mut().find(|stream| stream.name == name);
        stream.map(|stream| stream.options.enabled = enabled).is_some()
    }

    /// What is right as far as it goes, but may not be what was meant: names that mean nothing and
    /// are near to ones that do, values that are not taken, outlets that lead nowhere. In the order
    /// of the document.
    pub fn warnings(&self) -> &[ConfigError] {
        &self.warnings
    }

    /// What is missing or in the way on this machine, as it is now, at the first stream that needs
    /// it: directories of files that no `make_dirs` has made, the users and groups that files are
    /// to belong to, and directories in the place of files.
    pub fn missing(&self) -> Vec<ConfigError> {
        let mut known = BTreeSet::new();
        let mut known_names = BTreeSet::new();
        let mut missing = Vec::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let (name, Some(sink)) = (&stream.name, &stream.options.sink) else { continue };
            for e in sink.access.missing() {
                if known_names.insert(e.to_string()) {
                    missing.push(place.error(format!("{e}, which the log {name:?} is to belong to")));
                }
            }
            for why in crate::sink::in_the_way(sink) {
                missing.push(place.error(format!("the log {name:?}: {why}")));
            }
            for (n, dir) in crate::sink::directories(sink).into_iter().enumerate() {
                let can_be_made = || dir.ancestors().find(|dir| dir.exists()).is_none_or(Path::is_dir);
                if !known.insert(dir.clone()) || dir.is_dir() || (sink.make_dirs && can_be_made()) {
                    continue;
                }
                missing.push(place.error(format!(
                    "the directory {}{} of the log {name:?} is missing: make it, or have it made with make_dirs=\"on\"",
                    dir.display(),
                    if n > 0 { " for rotated files" } else { "" },
                )));
            }
            // One that is made for the file will be there.
            if let Some(dir) = crate::sink::directory_of_latest(sink)
                && known.insert(dir.clone())
                && !dir.is_dir()
            {
                let dir = dir.display();
                missing.push(place.error(format!(
                    "the directory {dir} for the link \"latest\" of the log {name:?} is missing: make it"
                )));
            }
        }
        missing
    }

    /// Tries the outlets on a graph of their own, without any sink.
    fn check_outlets(&self) -> Result<()> {
        let bare = self.streams.iter().cloned().map(|mut stream| {
            stream.options.sink = None;
            stream
        });
        Graph::new().apply(bare.collect()).map_err(|e| self.error_of(&e))
    }

    fn error_of(&self, error: &ApplyError) -> ConfigError {
        match error.index.and_then(|stream| self.places.get(stream)) {
            Some(place) => place.error(error.to_string()),
            None => unreadable(Path::new(""), error.to_string()),
        }
    }

    /// Sets up a graph: all of it, or, where a sink cannot be opened, nothing. A stream whose type
    /// is not registered yet gets its sink when [`Graph::register`] knows the type; see
    /// [`Graph::unregistered`].
    ///
    /// # Errors
    /// A sink that cannot be opened.
    pub fn apply(&self, graph: &Graph) -> Result<()> {
        self.check_sinks()?;
        self.with_redaction(graph, || graph.apply(self.streams.clone()))
    }

    /// Puts this configuration in the place of those that were applied before, as
    /// [`Graph::replace`] does.
    ///
    /// # Errors
    /// A sink that cannot be opened; nothing is changed then.
    pub fn replace(&self, graph: &Graph) -> Result<()> {
        self.check_sinks()?;
        self.with_redaction(graph, || graph.replace(self.streams.clone()))
    }

    /// Sets up streams with what they are not to write: no line is written between the one and the
    /// other.
    fn with_redaction(
        &self,
        graph: &Graph,
        set_up: impl FnOnce() -> std::result::Result<(), ApplyError>,
    ) -> Result<()> {
        let before = graph.redaction();
        graph.set_redaction(before.union(&self.redaction));
        let done = set_up();
        graph.set_redaction(if done.is_ok() { self.redaction.clone() } else { before });
        done.map_err(|e| self.error_of(&e))
    }

    fn check_sinks(&self) -> Result<()> {
        let mut metrics = BTreeMap::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            if let Some(sink) = &stream.options.sink {
                crate::sink::check(sink).map_err(|why| place.error(why))?;
                if sink.kind == "metric"
                    && let Some(other) = metrics.insert(&*sink.path, &*stream.name)
                {
                    let why = format!("the log {other:?} has a metric of the name {:?} already", sink.path);
                    return Err(place.error(why));
                }
            }
        }
        Ok(())
    }

    /// Refuses a configuration without streams: as one in the place of another it is more likely a
    /// file that is being written.
    pub(crate) fn check_any(&self) -> Result<()> {
        if !self.streams.is_empty() || !self.left_out.is_empty() {
            return Ok(());
        }
        let first = self.warnings.first().cloned();
        Err(first.unwrap_or_else(|| unreadable(Path::new(""), "it configures nothing".to_owned())))
    }

    /// Checks that every type is registered, for programs that register none later.
    ///
    /// # Errors
    /// The first that is not, and what a sink needs and does not have.
    pub fn check_types(&self, graph: &Graph) -> Result<()> {
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = &stream.options.sink else { continue };
            if !graph.knows_type(&sink.kind) {
                return Err(place.error(format!(
                    "unknown type {:?}: expected {}, or a type that the application registers{}",
                    sink.kind,
                    BUILT_IN_TYPES.join(", "),
                    did_you_mean(&sink.kind, BUILT_IN_TYPES)
                )));
            }
        }
        self.check_sinks()
    }
}

/// Whether a text can be a configuration in XML, also one with mistakes.
fn looks_like_xml(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.is_empty() || text.starts_with('<')
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn unreadable(path: &Path, message: String) -> ConfigError {
    ConfigError {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        message,
        text: String::new(),
        left_out: 0,
    }
}

/// Opens a regular file. Others have no end, or wait for somebody; only a pipe that the program was
/// given, by a shell's `<(…)` for example, may be named.
fn open_regular(path: &Path, may_be_given: bool) -> std::result::Result<File, String> {
    if may_be_given && is_descriptor(path) {
        return File::open(path).map_err(|e| e.to_string());
    }
    let refused = |facts: &Metadata| match facts.file_type() {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("it is a directory: expected a regular file"),
        kind if kind.is_fifo() => Some("it is a FIFO: expected a regular file"),
        _ => Some("it is a device or a socket: expected a regular file"),
    };
    let refuse = |facts: Metadata| refused(&facts).map_or(Ok(()), |why| Err(why.to_owned()));
    std::fs::metadata(path).map_err(|e| e.to_string()).and_then(refuse)?;
    // It may have become another one, which must not be waited for.
    let opened = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|e| e.to_string())?;
    file.metadata().map_err(|e| e.to_string()).and_then(refuse)?;
    Ok(file)
}

/// Whether a path, or a link that it leads over, is the name of one of the process's descriptors,
/// such as `/dev/stdin`.
fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let dir = crate::sink::directory(&path);
        let Ok(dir) = dir.canonicalize() else { return false };
        if dir == Path::new("/dev/fd") || dir.starts_with("/proc") && dir.ends_with("fd") {
            return true;
        }
        let Ok(target) = std::fs::read_link(&path) else { return false };
        path = dir.join(target);
    }
    false
}

fn read(path: &Path, may_be_given: bool) -> std::result::Result<String, String> {
    let mut bytes = Vec::new();
    let file = open_regular(path, may_be_given)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

/// The files that are being read, each included by the one before, and their warnings.
struct Open {
    files: Vec<PathBuf>,
    doubts: Vec<ConfigError>,
}

impl Open {
    /// Warns about stream attributes that no stream inherits.
    fn inherited_by_none(&mut self, element: &Element, on: &str, because: &str) {
        for (name, _, place) in &element.attributes {
            if name != "name" && streams::ATTRIBUTES.contains(&&**name) {
                self.doubts.push(place.error(format!("{name} on {on} has no effect: {because}")));
            }
        }
    }
}

/// Takes in other files, each as an element: what the root of each has, or, as a snippet, what it
/// has without one.
fn include(element: &Element, source: &Source, open: &mut Open) -> Result<Vec<Element>> {
    for (name, _, place) in &element.attributes {
        let toml = element.place.source.toml;
        // What libmtev lets pass, we do, unless it was probably meant for something.
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
        open.doubts.push(error);
    }
    let Some((file, place)) = element.attribute("file") else {
        return Err(element.place.error("an include without file: expected <include file=\"…\"/>"));
    };
    let snippet = Given::find(element, "snippet").map_or(Ok(false), |given| given.boolean())?;
    let paths = included(&source.dir, file).map_err(|why| {
        let shown = if source.shown { format!(" {file}") } else { String::new() };
        place.error(format!("cannot look for files to include{shown}: {why}"))
    })?;
    if paths.is_empty() {
        let shown = if source.shown { format!("{file:?}") } else { "the pattern".to_owned() };
        open.doubts.push(place.error(format!("{shown} matches no file: nothing is included")));
    }
    paths.iter().map(|path| include_one(place, source, path, snippet, open)).collect()
}

/// Nothing is included.
#[cfg(not(any(feature = "toml", feature = "xml")))]
fn included(dir: &Path, file: &str) -> std::result::Result<Vec<PathBuf>, String> {
    Ok(vec![dir.join(file)])
}

/// The files that an include names: one, or those that match a pattern, as for libmtev.
#[cfg(any(feature = "toml", feature = "xml"))]
fn included(dir: &Path, file: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let is_pattern = |file: &str| file.contains(['*', '?', '[']);
    let literal = dir.join(file);
    if !(is_pattern(file) || file.contains('{')) || literal.exists() {
        return Ok(vec![literal]);
    }
    let dir = dir.to_str().ok_or("the name of the directory is not UTF-8")?;
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let alternatives = alternatives(file);
    if alternatives.len() == 1 && !is_pattern(file) {
        return Ok(vec![literal]);
    }
    let mut all = Vec::new();
    for file in alternatives {
        if is_pattern(&file) {
            // An absolute name is not one below the directory.
            let pattern = Path::new(&glob::Pattern::escape(dir)).join(&file);
            let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(|e| e.msg.to_owned())?;
            for path in found {
                all.push(path.map_err(|e| e.error().to_string())?);
            }
        } else {
            all.extend(Some(Path::new(dir).join(file)).filter(|path| path.exists()));
        }
    }
    Ok(all)
}

/// A name for each alternative of `{a,b}` in a pattern.
#[cfg(any(feature = "toml", feature = "xml"))]
fn alternatives(pattern: &str) -> Vec<String> {
    let Some(begin) = pattern.find('{') else { return vec![pattern.to_owned()] };
    let (mut depth, mut cuts) = (0, vec![begin]);
    let end = pattern[begin..].char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => cuts.push(begin + at),
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(begin + at)
    });
    let Some(end) = end.filter(|_| cuts.len() > 1) else { return vec![pattern.to_owned()] };
    cuts.push(end);
    let parts = cuts.windows(2).map(|cut| &pattern[cut[0] + 1..cut[1]]);
    let names = parts.map(|part| format!("{}{part}{}", &pattern[..begin], &pattern[end + 1..]));
    // One of very many alternatives is no name of a file.
    names.flat_map(|name| alternatives(&name)).take(MAX_FILES).collect()
}

fn include_one(
    place: &Place,
    source: &Source,
    path: &Path,
    snippet: bool,
    open: &mut Open,
) -> Result<Element> {
    let shown =
        if source.shown { path.display().to_string() } else { "the file that is named here".to_owned() };
    let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if open.files.contains(&identity) {
        return Err(place.error(format!("{shown} includes itself")));
    }
    if open.files.len() >= MAX_INCLUDES {
        return Err(place.error(format!("includes more than {MAX_INCLUDES} deep")));
    }
    let text = read(path, false).map_err(|why| place.error(format!("cannot include {shown}: {why}")))?;
    // The author of a configuration may not have permission to see every file that the program can
    // read.
    let included = Source::new(path, text, false);
    let taken = Element::empty(INCLUDED, included.place(0));
    open.files.push(identity);
    let taken = if included.toml {
        toml::into_element(&included, taken, open)?
    } else if snippet {
        Element { children: xml::snippet(&included, open)?, ..taken }
    } else {
        let root = xml::root(&included, open)?;
        if let Some(element) =
            ["log", "outlet", "config", "metric"].into_iter().find(|name| *name == root.name)
        {
            let why = format!(
                "the <{element}> that is the root of an included file means nothing: expected elements below a root, or \
                 snippet=\"true\" where the file is included"
            );
            open.doubts.push(root.place.error(why));
        } else if root.configures() {
            let because = "expected it on the <include>, on an element around it, or on one in the included file that \
                           has streams in it";
            open.inherited_by_none(&root, "the root of an included file", because);
        }
        Element { children: root.children, ..taken }
    };
    included.named.set(taken.configures());
    streams::check_attributes(&taken)?;
    if !taken.has_stream() {
        let because = "it is for the streams in the included file, and there are none; expected it where the file is \
                       included";
        open.inherited_by_none(&taken, "the top level of an included file", because);
        for outlet in taken.named("outlet").filter(|outlet| outlet.attribute("name").is_some()) {
            open.doubts
                .push(outlet.place.error(format!("an outlet of an included file has no effect: {because}")));
        }
    }
    open.files.pop();
    Ok(taken)
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

#[cfg(test)]
mod tests;
