//! The elements of files in XML and in TOML, with their places.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::{ConfigError, SHOWN, SHOWN_BEFORE};
use crate::suggest::did_you_mean;

/// If a line is longer than this, in bytes, an error keeps only the part that it shows.
pub(super) const LONG_LINE: usize = 1024;

/// The maximum nesting of elements.
pub(super) const MAX_DEPTH: usize = 100;

/// Attributes of an `<include>`.
pub(super) const INCLUDE_ATTRIBUTES: &[&str] = &["file", "snippet"];
/// The name of the element that holds an included file. No element of a file can have this name.
pub(super) const INCLUDED: &str = "included file";

/// A text with its file's name.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) dir: PathBuf,
    pub(super) text: String,
    pub(super) toml: bool,
    /// Whether another file includes it.
    #[cfg_attr(not(any(feature = "toml", feature = "xml")), expect(dead_code, reason = "nothing is parsed"))]
    pub(super) included: bool,
    /// Whether errors may show its text.
    pub(super) shown: bool,
    /// Whether errors may show names from it: it has streams or outlets, and so is certainly a
    /// configuration.
    pub(super) named: Cell<bool>,
    pub(super) line_starts: OnceCell<Vec<usize>>,
    /// The last place whose column was counted, and how many characters of its line come before it.
    pub(super) counted: Cell<(usize, usize)>,
}

impl Source {
    pub(super) fn new(path: &Path, text: String, shown: bool) -> Rc<Self> {
        Rc::new(Self::of(path, text, shown))
    }

    /// An included file. The author of a configuration may not have permission to see every file
    /// that the program can read.
    pub(super) fn included(path: &Path, text: String) -> Rc<Self> {
        Rc::new(Self { included: true, named: Cell::new(false), ..Self::of(path, text, false) })
    }

    fn of(path: &Path, text: String, shown: bool) -> Self {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Self {
            file: path.display().to_string(),
            dir,
            text,
            toml: is_toml(path),
            included: false,
            shown,
            named: Cell::new(true),
            line_starts: OnceCell::new(),
            counted: Cell::new((0, 0)),
        }
    }

    /// The error for a text that is not well-formed and must not be shown; the parser's message may
    /// quote it.
    #[cfg(any(feature = "toml", feature = "xml"))]
    pub(super) fn malformed(&self, place: &Place) -> ConfigError {
        let (language, contents) =
            if self.toml { ("TOML", "[[log]] tables") } else { ("XML", "<log> elements") };
        place.error(if self.included {
            format!("it is not well-formed {language}: check this file by itself for details")
        } else {
            format!("it is not a configuration: expected well-formed {language} with {contents}")
        })
    }

    /// The place of a byte.
    pub(super) fn place(self: &Rc<Self>, offset: usize) -> Place {
        Place { source: Rc::clone(self), offset }
    }
}

/// A place in a text: a byte offset. Lines and columns are only counted for errors.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Rc<Source>,
    pub(super) offset: usize,
}

impl Place {
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
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

    /// The line that begins at `begun`, or the part of it around the place, and how many characters
    /// are left out before that.
    pub(super) fn line(&self, begun: usize, column: u32) -> (&str, usize) {
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
            // One character more shows that the line continues.
            (begun + kept, end_from(begun + kept, SHOWN + 1), left_out)
        };
        let line = text.get(from..to).unwrap_or("");
        let ends_here = text.as_bytes().get(to) == Some(&b'\n');
        (line.strip_suffix('\r').filter(|_| ends_here).unwrap_or(line), left_out)
    }

    /// The error for a name that means nothing.
    pub(super) fn unknown(&self, what: &str, name: &str, on: &str, known: &[&str]) -> ConfigError {
        let shown = if self.source.named.get() { format!(" {name:?}") } else { String::new() };
        let meant = did_you_mean(name, known);
        self.error(if meant.is_empty() {
            format!("unknown {what}{shown} on {on}: expected one of {}", known.join(", "))
        } else {
            format!("unknown {what}{shown} on {on}{meant}")
        })
    }

    /// Where its line begins, the number of that line, and the column in it.
    pub(super) fn line_and_column(&self) -> (usize, u32, u32) {
        let Source { text, line_starts, .. } = &*self.source;
        // Found only once, because a configuration with many streams may have many warnings.
        let starts = line_starts
            .get_or_init(|| [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect());
        let line = starts.partition_point(|&start| start <= self.offset);
        let begun = line.checked_sub(1).and_then(|at| starts.get(at)).copied().unwrap_or(0);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // Count on from the last place, because a line may have many warnings, too.
        let (counted_to, counted) = self.source.counted.get();
        let (from, before) =
            if (begun..=self.offset).contains(&counted_to) { (counted_to, counted) } else { (begun, 0) };
        let column = before + text.get(from..self.offset).map_or(0, |line| line.chars().count());
        self.source.counted.set((self.offset, column));
        (begun, number(line), number(1 + column))
    }

    /// The place in the file of a character in the value that begins here.
    pub(super) fn inside(&self, characters: usize) -> Place {
        let raw = self.source.text.get(self.offset..).unwrap_or("");
        // The text of an environment variable is not in the file.
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
                // An escaped newline: this and the following white space are not part of the value.
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
pub(super) struct Element {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) attributes: Vec<(String, String, Place)>,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    pub(super) fn empty(name: &str, place: Place) -> Self {
        Self {
            name: name.to_owned(),
            place,
            attributes: Vec::new(),
            text: String::new(),
            children: Vec::new(),
        }
    }

    /// How the element is written, for errors.
    pub(super) fn shown(&self) -> String {
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

    /// Whether it contains a stream or an outlet.
    pub(super) fn configures(&self) -> bool {
        matches!(&*self.name, "log" | "outlet") && self.attribute("name").is_some()
            || self.children.iter().any(Element::configures)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<(&str, &Place)> {
        self.attributes.iter().find(|(key, ..)| key == name).map(|(_, value, place)| (&**value, place))
    }

    /// Whether it contains a stream.
    pub(super) fn has_stream(&self) -> bool {
        self.name == "log" || self.children.iter().any(Element::has_stream)
    }

    /// Whether its children come from other files.
    pub(super) fn is_include(&self) -> bool {
        matches!(&*self.name, "include" | INCLUDED)
    }

    /// The include element around the included elements.
    pub(super) fn around(self, taken: Vec<Element>) -> Element {
        let is_own = |name: &str| INCLUDE_ATTRIBUTES.contains(&name) || name == "readonly";
        let attributes = self.attributes.into_iter().filter(|(name, ..)| !is_own(name)).collect();
        Element { attributes, children: taken, text: String::new(), ..self }
    }

    /// Its children, including those from included files.
    pub(super) fn contents(&self) -> Vec<&Element> {
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

    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

pub(super) fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// Replaces `ENV:default:{KEY}` by the variable or the default.
pub(super) fn substitute(value: &str) -> String {
    let parts = value
        .strip_prefix("ENV:")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|rest| rest.rsplit_once(":{"));
    match parts {
        Some((default, key)) => std::env::var(key).unwrap_or_else(|_| default.to_owned()),
        None => value.to_owned(),
    }
}
