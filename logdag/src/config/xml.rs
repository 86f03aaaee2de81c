//! Turns XML into elements.

use std::rc::Rc;

use super::element::{Element, MAX_DEPTH, Place, Source, substitute};
use super::error::Result;

impl Source {
    /// The place of a line and a column, both from 1.
    fn place_of(self: &Rc<Self>, line: u32, column: u32) -> Place {
        let skip = |n: u32| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
        let before: usize = self.text.split_inclusive('\n').take(skip(line)).map(str::len).sum();
        let rest = self.text.get(before..).unwrap_or("");
        let within: usize = rest.chars().take(skip(column)).map(char::len_utf8).sum();
        self.place(before + within)
    }
}

impl Place {
    /// The place for a message about another one in the same file.
    fn line_column(&self) -> String {
        let (_, line, column) = self.line_and_column();
        format!("line {line}, column {column}")
    }
}

/// The root of a text.
pub(super) fn root(source: &Rc<Source>) -> Result<Element> {
    let document = Document::parse(source, &source.text, 0)?;
    document.element(document.tree.root_element(), 0)
}

/// The elements of a text that has no root.
pub(super) fn snippet(source: &Rc<Source>) -> Result<Vec<Element>> {
    // Adding a root on the first line keeps line numbers, and moves only the columns of that line.
    let text = format!("<s>{}</s>", source.text);
    let document = Document::parse(source, &text, 3)?;
    document.children(document.tree.root_element(), 0)
}

/// Whether a text can be a configuration in XML, also one with mistakes.
fn looks_like_xml(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.is_empty() || text.starts_with('<')
}

struct Document<'a> {
    tree: roxmltree::Document<'a>,
    source: &'a Rc<Source>,
    /// How many bytes at the beginning are not in the file.
    moved: usize,
}

impl<'a> Document<'a> {
    fn parse(source: &'a Rc<Source>, text: &'a str, moved: u8) -> Result<Self> {
        let options =
            roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 1_000_000, ..Default::default() };
        if !looks_like_xml(&source.text) {
            let why = "it is not a configuration: expected XML, which begins with \"<\" (the name of a file in TOML ends in .toml)";
            return Err(source.place(0).error(why));
        }
        let tree = roxmltree::Document::parse_with_options(text, options).map_err(|e| {
            let at = e.pos();
            let column = if at.row == 1 { at.col.saturating_sub(u32::from(moved)).max(1) } else { at.col };
            let place = source.place_of(at.row, column);
            if source.shown {
                let why = explain(&e, &place);
                place.error(why)
            } else {
                source.malformed(&place)
            }
        })?;
        Ok(Self { tree, source, moved: usize::from(moved) })
    }

    fn element(&self, node: roxmltree::Node<'_, '_>, depth: usize) -> Result<Element> {
        let at = |offset: usize| self.source.place(offset.saturating_sub(self.moved));
        if depth > MAX_DEPTH {
            return Err(
                at(node.range().start).error(format!("elements nested more than {MAX_DEPTH} levels deep"))
            );
        }
        let attributes = node
            .attributes()
            .map(|a| (a.name().to_owned(), substitute(a.value()), at(a.range_value().start)))
            .collect();
        // Comments divide it into pieces.
        let texts = node.children().filter(roxmltree::Node::is_text).filter_map(|text| text.text());
        let text: String = texts.collect();
        Ok(Element {
            name: node.tag_name().name().to_owned(),
            place: at(node.range().start),
            attributes,
            text: substitute(text.trim()),
            children: self.children(node, depth + 1)?,
        })
    }

    fn children(&self, node: roxmltree::Node<'_, '_>, depth: usize) -> Result<Vec<Element>> {
        let elements = node.children().filter(roxmltree::Node::is_element);
        elements.map(|child| self.element(child, depth)).collect()
    }
}

/// Explains to the user why the text up to this place is not well-formed.
fn explain(error: &roxmltree::Error, place: &Place) -> String {
    let text = &place.source.text;
    let at = |offset: usize| place.source.place(offset).line_column();
    let end = if matches!(error, roxmltree::Error::UnclosedRootNode) { text.len() } else { place.offset };
    let ways = Ways::until(text, end);
    let closed_before = |closed: &Closed<'_>| {
        let how = if closed.by_itself { "by \"/>\"".to_owned() } else { format!("by </{}>", closed.name) };
        format!(
            "<{}>, which begins at {}, was closed already, {how} at {}",
            closed.name,
            at(closed.begun),
            at(closed.at)
        )
    };
    match error {
        roxmltree::Error::UnexpectedCloseTag(expected, found, _) => {
            let open = ways.open.last();
            let closed = ways
                .closed
                .iter()
                .rev()
                .find(|closed| closed.depth == ways.open.len() && closed.name == found);
            match (open, closed) {
                (Some((name, _)), Some(closed)) => {
                    format!("</{found}> closes nothing here: {}; expected </{name}>", closed_before(closed))
                }
                (Some((name, begun)), None) if name == expected => {
                    format!(
                        "</{found}> closes nothing here: expected </{expected}>, which closes <{expected}>, begun at {}",
                        at(*begun)
                    )
                }
                (_, Some(closed)) => format!("</{found}> closes nothing here: {}", closed_before(closed)),
                _ => format!("</{found}> closes nothing here"),
            }
        }
        roxmltree::Error::UnclosedRootNode => match ways.open.last() {
            Some((name, begun)) => format!("<{name}>, begun at {}, is never closed", at(*begun)),
            None => "the root is never closed".to_owned(),
        },
        // Text after the root.
        roxmltree::Error::UnknownToken(_) if ways.open.is_empty() && !ways.closed.is_empty() => {
            match ways.closed.iter().rev().find(|closed| closed.depth == 0) {
                Some(root) => format!("nothing may follow the root: {}", closed_before(root)),
                None => "nothing may follow the root".to_owned(),
            }
        }
        roxmltree::Error::DuplicatedAttribute(name, _) => match ways.last {
            Some(element) => format!("duplicate attribute {name:?} on <{element}>"),
            None => format!("duplicate attribute {name:?}"),
        },
        roxmltree::Error::InvalidChar(b'"' | b'\'', b'<', _) => {
            "the value of an attribute cannot contain \"<\": write &lt;, or close the value before it"
                .to_owned()
        }
        roxmltree::Error::MalformedEntityReference(_) => "expected &amp; instead of \"&\"".to_owned(),
        roxmltree::Error::UnknownEntityReference(name, _) => {
            format!("unknown entity &{name}; (write &amp; instead of \"&\")")
        }
        roxmltree::Error::InvalidComment(_) => "a comment cannot contain \"--\"".to_owned(),
        roxmltree::Error::InvalidCharacterData(_) => "text cannot contain \"]]>\": write ]]&gt;".to_owned(),
        roxmltree::Error::DtdDetected => {
            "a document type (<!DOCTYPE>) is not accepted: expected the root element".to_owned()
        }
        other => {
            // The parser's message ends with the position, which our own message begins with.
            let text = other.to_string();
            text.split(" at ").next().unwrap_or(&text).to_owned()
        }
    }
}

/// The recognisable elements of a text that is not well-formed.
#[derive(Default)]
struct Ways<'a> {
    /// The names of open elements, and where each begins.
    open: Vec<(&'a str, usize)>,
    closed: Vec<Closed<'a>>,
    /// The name of the element that began last.
    last: Option<&'a str>,
}

struct Closed<'a> {
    name: &'a str,
    begun: usize,
    /// Where it is closed.
    at: usize,
    /// Whether its only tag closes it.
    by_itself: bool,
    /// How many elements are around it.
    depth: usize,
}

impl<'a> Ways<'a> {
    /// The elements that begin before this byte.
    fn until(text: &'a str, end: usize) -> Self {
        let mut ways = Self::default();
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.find('<')) {
            let begun = at + found;
            if begun >= end {
                break;
            }
            let rest = &text[begun..];
            let behind = |end: &str| rest.find(end).map_or(text.len(), |at| begun + at + end.len());
            at = match rest.as_bytes() {
                [b'<', b'!', b'-', b'-', ..] => behind("-->"),
                [b'<', b'!', b'[', ..] => behind("]]>"),
                [b'<', b'?', ..] => behind("?>"),
                _ => {
                    let length = tag_length(rest);
                    ways.tag(&rest[..length], begun);
                    begun + length
                }
            };
        }
        ways
    }

    fn tag(&mut self, tag: &'a str, begun: usize) {
        let name = |tag: &'a str| {
            let end =
                tag.find(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '<')).unwrap_or(tag.len());
            &tag[..end]
        };
        if let Some(tag) = tag.strip_prefix("</") {
            let name = name(tag);
            // The parser stops at a tag that closes nothing.
            if let Some((_, at)) = self.open.pop_if(|(open, _)| *open == name) {
                self.close(name, at, begun, false);
            }
        } else {
            let by_itself = tag.ends_with("/>");
            let name = name(&tag[1..]);
            self.last = Some(name);
            if by_itself {
                self.close(name, begun, begun + tag.len() - 2, true);
            } else {
                self.open.push((name, begun));
            }
        }
    }

    fn close(&mut self, name: &'a str, begun: usize, at: usize, by_itself: bool) {
        self.closed.push(Closed { name, begun, at, by_itself, depth: self.open.len() });
    }
}

/// The length of a tag; a `>` in quotation marks does not end it.
fn tag_length(text: &str) -> usize {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'>') => return at + 1,
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}
