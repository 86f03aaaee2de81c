//! A graph from a configuration in XML, or in TOML.
//!
//! In XML, streams are the `<log>` elements anywhere under `<logs>`. Attributes are inherited from the nearest ancestor
//! that has them; `<outlet>` children of a stream and of all its ancestors are its outlets; `<config>` children are merged
//! from the top down. A value of the form `ENV:default:{KEY}` is the variable, or the default. `<include file="f"/>` takes
//! in the root of another file, `snippet="true"` what it has without a root.
//!
//! TOML has the same model: the file is what `<logs>` is in XML. Keys with a text, a number or a boolean are attributes;
//! `[[log]]` is a stream, `outlet` a list of names or of tables with `name` and `filter`, `config` a table, `include` a
//! list of files, and every other table a group whose attributes and outlets the streams in it inherit. A file whose name
//! ends in `.toml` is TOML; everything else is XML.
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

mod streams;
mod toml;
mod xml;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::graph::{Configured, Graph};

/// A file has no more bytes than this: 16 MiB.
const MAX_FILE: u64 = 16 << 20;
/// Files include one another no deeper than this.
const MAX_INCLUDES: usize = 32;
/// Elements are in one another no deeper than this.
const MAX_DEPTH: usize = 100;

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
    toml: bool,
}

impl Source {
    fn new(path: &Path, text: String) -> Rc<Self> {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Rc::new(Self { file: path.display().to_string(), dir, text, toml: is_toml(path) })
    }

    /// The place of a byte.
    fn place(self: &Rc<Self>, offset: usize) -> Place {
        Place { source: Rc::clone(self), offset }
    }

    /// The place of a line and a column, both from 1.
    fn place_of(self: &Rc<Self>, line: u32, column: u32) -> Place {
        let skip = |n: u32| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let before: usize = self.text.split_inclusive('\n').take(skip(line)).map(str::len).sum();
        let rest = self.text.get(before..).unwrap_or("");
        let within: usize = rest.chars().take(skip(column)).map(char::len_utf8).sum();
        self.place(before + within)
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
        let text = &self.source.text;
        let before = text.get(..self.offset).unwrap_or(text);
        let begun = before.rfind('\n').map_or(0, |at| at + 1);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ConfigError {
            file: self.source.file.clone(),
            line: number(1 + before.matches('\n').count()),
            column: number(1 + before.get(begun..).map_or(0, |line| line.chars().count())),
            message: message.into(),
            text: text.get(begun..).and_then(|rest| rest.lines().next()).unwrap_or("").to_owned(),
        }
    }

    /// The place of a character of a value that begins here, as it stands in the file.
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
                // A line that goes on in the next one: none of this is part of the value.
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

/// An element of XML, or what stands for one, whatever file it comes from.
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
        let path = path.as_ref();
        let source = read(path).map_err(|message| unreadable(path, message))?;
        Self::from_source(&source, path)
    }

    /// Reads a text; `file` is what errors call it, and includes are relative to its directory. It is TOML if that name
    /// ends in `.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_text(file: impl AsRef<Path>, text: &str) -> Result<Self> {
        let path = file.as_ref();
        Self::from_source(&Source::new(path, text.to_owned()), path)
    }

    fn from_source(source: &Rc<Source>, path: &Path) -> Result<Self> {
        let mut open = vec![path.canonicalize().unwrap_or_else(|_| path.to_owned())];
        let root = if source.toml {
            let place = source.place(0);
            let logs = Element {
                name: "logs".to_owned(),
                place: place.clone(),
                attributes: Vec::new(),
                text: String::new(),
                children: Vec::new(),
            };
            let logs = toml::into_element(source, logs, &mut open)?;
            Element {
                name: "application".to_owned(),
                place,
                attributes: Vec::new(),
                text: String::new(),
                children: vec![logs],
            }
        } else {
            xml::root(source, &mut open)?
        };
        let (streams, places) = streams::read(&root)?;
        let config = Self { streams, places };
        config.check_outlets()?;
        Ok(config)
    }

    /// The streams, in the order of the document.
    pub fn streams(&self) -> &[Configured] {
        &self.streams
    }

    /// Tries the outlets on a graph of their own, without any sink.
    fn check_outlets(&self) -> Result<()> {
        let bare = self.streams.iter().cloned().map(|mut stream| {
            stream.options.sink = None;
            stream
        });
        Graph::new().apply(bare.collect()).map_err(|(n, e)| self.error_of(n, e.to_string()))
    }

    fn error_of(&self, stream: usize, why: String) -> ConfigError {
        match self.places.get(stream) {
            Some(place) => place.error(why),
            None => unreadable(Path::new(""), why),
        }
    }

    /// Sets up a graph: all of it, or, where a sink cannot be opened, nothing.
    ///
    /// # Errors
    /// A type that is not registered, or a sink that cannot be opened.
    pub fn apply(&self, graph: &Graph) -> Result<()> {
        self.check_types(graph)?;
        graph.apply(self.streams.clone()).map_err(|(n, e)| self.error_of(n, e.to_string()))
    }

    /// Checks that every type is registered.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_types(&self, graph: &Graph) -> Result<()> {
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = &stream.options.sink else { continue };
            if !graph.knows_type(&sink.kind) {
                return Err(place.error(format!(
                    "unknown type {:?}: expected file, file_synch, memory, jlog, stdout, stderr, or a type that the \
                     application registers",
                    sink.kind
                )));
            }
            crate::sink::check(sink).map_err(|why| place.error(why))?;
        }
        Ok(())
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn unreadable(path: &Path, message: String) -> ConfigError {
    ConfigError { file: path.display().to_string(), line: 0, column: 0, message, text: String::new() }
}

fn read(path: &Path) -> std::result::Result<Rc<Source>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    // A device has no end.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line} is not UTF-8")
    })?;
    Ok(Source::new(path, text))
}

/// Takes in another file: what its root has, or, as a snippet, what it has without one.
fn include(element: &Element, source: &Source, open: &mut Vec<PathBuf>) -> Result<Element> {
    let Some((file, place)) = element.attribute("file") else {
        return Err(element.place.error("an include without file: expected <include file=\"…\"/>"));
    };
    let snippet = match element.attribute("snippet") {
        Some((text, place)) => streams::boolean(text, place)?,
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
    let taken = Element {
        name: "include".to_owned(),
        place: included.place(0),
        attributes: Vec::new(),
        text: String::new(),
        children: Vec::new(),
    };
    open.push(identity);
    let taken = if included.toml {
        toml::into_element(&included, taken, open)?
    } else if snippet {
        Element { children: xml::snippet(&included, open)?, ..taken }
    } else {
        Element { children: xml::root(&included, open)?.children, ..taken }
    };
    open.pop();
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
mod tests {
    use super::*;
    use crate::filter::Filter;
    use crate::format::{Flags, Format};

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
            (r#"<log name="a" format="xml"/>"#, 2, 23, "expected one of plain, json, event, flatbuffer"),
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

    /// What matters of a configuration, for comparing.
    fn gist(config: &Config) -> Vec<String> {
        let outlet =
            |(to, filter): &(String, Option<Filter>)| format!("{to} {:?}", filter.as_ref().map(Filter::text));
        let one = |stream: &Configured| {
            let outlets: Vec<String> = stream.outlets.iter().map(outlet).collect();
            format!("{} {:?} {outlets:?}", stream.name, stream.options)
        };
        config.streams().iter().map(one).collect()
    }

    #[test]
    fn the_same_in_toml() {
        let xml = logs(
            r#"<log name="f" type="file" path="3,4" rotate_bytes="200000" retain_bytes="1000000" retain_count="3"
                    timestamps="on" latest="/x/latest" when_full="drop" max_line="99"/>
               <web timestamps="true"><outlet name="f"/><outlet name="stderr" filter="status &gt;= 500"/>
                 <config id="big"><segment_size>1000</segment_size></config>
                 <log name="http/access" type="jlog" path="ENV:/d(*):{LOGDAG_NOT_THERE}"><config><precommit>7</precommit></config></log>
                 <deeper><log name="http/error" disabled="TRUE"><outlet name="error"/></log></deeper></web>
               <log name="n" type="jlog" path="/y"><config inherit="big"/></log>"#,
        );
        let toml = Config::from_text(
            "app.toml",
            r#"
            [[log]]
            name = "f"
            type = "file"
            path = "3,4"
            rotate_bytes = 200_000
            retain_bytes = 0xF4240
            retain_count = 3
            timestamps = true
            latest = "/x/latest"
            when_full = "drop"
            max_line = 99

            [web]
            timestamps = true
            outlet = ["f", { name = "stderr", filter = "status >= 500" }]
            config = { id = "big", segment_size = 1000 }

            [[web.log]]
            name = "http/access"
            type = "jlog"
            path = "ENV:/d(*):{LOGDAG_NOT_THERE}"
            config.precommit = 7

            [[web.deeper.log]]
            name = "http/error"
            disabled = true
            outlet = "error"

            [[log]]
            name = "n"
            type = "jlog"
            path = "/y"
            config = { inherit = "big" }
            "#,
        );
        assert_eq!(gist(&toml.unwrap()), gist(&xml.unwrap()));
    }

    #[test]
    fn errors_in_toml_name_the_place() {
        for (text, line, column, message) in [
            ("x = ", 1, 5, "string values must be quoted"),
            ("[[log]]\nname = \"a\"\nformat = \"xml\"", 3, 11, "expected one of plain"),
            ("[[log]]\ntype = \"memory\"", 1, 1, "a log without a name"),
            ("[[log]]\nname = [\"a\"]", 2, 9, "name: expected a text"),
            ("[[log]]\nname = \"a\"\noutlet = { filter = \"x = 1\" }", 3, 10, "an outlet without a name"),
            (
                "[[log]]\nname = \"a\"\noutlet = { name = \"b\", filter = 'x =' }",
                3,
                37,
                "a quoted text or a number",
            ),
            ("[[log]]\nname = \"a\"\noutlet = [[1]]", 3, 11, "expected a text, or a table with name"),
            ("[[log]]\nname = \"a\"\nconfig = { x = [] }", 3, 16, "expected a text, a number"),
            ("include = \"/nowhere/at.all\"", 1, 12, "cannot include"),
        ] {
            let error = Config::from_text("app.toml", text).expect_err(text);
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn the_place_of_a_filters_error_in_every_kind_of_string() {
        for (filter, line, column) in [
            (r#""a = 1 x""#, 3, 40),
            (r#"'a = "\\" x'"#, 3, 43),
            (r#"'m ~ "\\\\\\\\" x'"#, 3, 49),
            (r#""\u0061 = 1 x""#, 3, 45),
            (r#""\U00000061 = 1 x""#, 3, 49),
            (r#""\x61 = 1 x""#, 3, 43),
            (r#""""a = 1 x""""#, 3, 42),
            (r#"'''a = 1 x'''"#, 3, 42),
            ("'''\na = 1 x'''", 4, 7),
            ("\"\"\"\r\na = 1 x\"\"\"", 4, 7),
            ("\"\"\"a = \\\n    1 x\"\"\"", 4, 7),
        ] {
            let text = format!("[[log]]\nname = \"a\"\noutlet = {{ name = \"b\", filter = {filter} }}\n\n");
            let error = Config::from_text("app.toml", &text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{filter}: {error}");
        }
    }

    #[test]
    fn toml_is_taken_in_the_order_in_which_it_stands() {
        let text =
            "[b.c]\n[[b.c.log]]\nname = \"1\"\n[a]\n[[a.log]]\nname = \"2\"\n[b]\n[[b.log]]\nname = \"3\"\n";
        let config = Config::from_text("app.toml", text).unwrap();
        // What belongs to one table stays together.
        assert_eq!(config.streams().iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["1", "3", "2"]);
        let text = "[[log]]\nname = \"a\"\nzebra = 1\napple = 1\n";
        let error = Config::from_text("app.toml", text).unwrap_err();
        assert_eq!((error.line, error.column), (3, 9), "{error}");
    }

    #[test]
    fn values_in_toml_are_those_of_xml() {
        let text = r#"
            [[log]]
            name = "a"
            type = "jlog"
            path = "/x"
            retain_bytes = 0xffff_ffff_ffff_ffff
            config = { inherit = "ENV:big:{LOGDAG_NOT_THERE}" }
            [other.config]
            id = "big"
            segment_size = " 1000 "
            "#;
        let config = Config::from_text("app.toml", text).unwrap();
        let sink = config.streams()[0].options.sink.as_ref().unwrap();
        assert_eq!(sink.config["segment_size"], "1000");
        assert_eq!(sink.rotation.retain_bytes, u64::MAX);
        for mistaken in ["log = \"a\"", "timestamps = []", "[g]\nconfig = 5"] {
            let error = Config::from_text("app.toml", mistaken).unwrap_err();
            assert!(error.message.contains("expected a text, a number, true, false, or tables"), "{error}");
        }
    }

    #[test]
    fn xml_and_toml_include_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.toml", "include = [\"b.xml\"]\n[[log]]\nname = \"a\"\n");
        write("b.xml", "<r><log name=\"b\"/><include file=\"c.toml\"/></r>");
        write("c.toml", "[[log]]\nname = \"c\"\n");
        let names = |file: &str| -> Vec<String> {
            let config = Config::from_file(dir.path().join(file)).unwrap();
            config.streams().iter().map(|stream| stream.name.clone()).collect()
        };
        assert_eq!(names("a.toml"), ["b", "c", "a"]);
        write("c.toml", "include = \"a.toml\"");
        let error = Config::from_file(dir.path().join("a.toml")).unwrap_err();
        assert!(error.message.contains("includes itself"), "{error}");
        assert!(error.file.ends_with("c.toml"), "{error}");
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_refused() {
        let deep = format!("{}<log name=\"a\"/>{}", "<g>".repeat(200), "</g>".repeat(200));
        assert!(logs(&deep).unwrap_err().message.contains("100 deep"));
        let deep = format!("[{}log]\nname = \"a\"", "g.".repeat(200));
        let error = Config::from_text("app.toml", &deep).unwrap_err();
        assert!(error.message.contains("deep") || error.message.contains("recursion"), "{error}");
        let error = logs("<include file=\"/dev/zero\"/>").unwrap_err();
        assert!(error.message.contains("more than 16777216 bytes"), "{error}");
    }

    #[test]
    fn configs_that_inherit_one_another_are_refused() {
        let error = logs(
            r#"<config id="a" inherit="b"/><config id="b" inherit="a"/>
               <log name="l" type="jlog" path="/x"><config inherit="a"/></log>"#,
        )
        .unwrap_err();
        assert!(error.message.contains("config \"b\" inherits itself"), "{error}");
    }

    #[test]
    fn two_streams_on_one_file_that_is_rotated_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let other = dir.path().join("./log");
        let text = |rotation: &str| {
            let (path, other) = (path.display(), other.display());
            format!(
                "<log name=\"a\" type=\"file\" path=\"{path}\"/>\n<log name=\"b\" type=\"file_synch\" path=\"{other}\" {rotation}/>"
            )
        };
        assert!(logs(&text("")).is_ok());
        let error = logs(&text("rotate_bytes=\"200000\"")).unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.message.contains("the log \"a\" writes to"), "{error}");
    }

    #[test]
    fn the_sample_works() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            include_str!("../../examples/sample.xml").replace("/var/log", dir.path().to_str().unwrap());
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
