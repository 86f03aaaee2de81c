//! Turns TOML into elements.

use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::element::{Element, MAX_DEPTH, Place, Source, substitute};
use super::error::{ConfigError, Result};
use crate::suggest::did_you_mean;

/// Adds the contents of a text to an element.
pub(super) fn into_element(source: &Rc<Source>, element: Element) -> Result<Element> {
    let table = DeTable::parse(&source.text).map_err(|e| {
        let place = source.place(e.span().map_or(0, |span| span.start));
        if source.shown {
            let message = e.message().lines().collect::<Vec<_>>().join(", ");
            place.error(if message == "duplicate key" { duplicate(source, place.offset) } else { message })
        } else {
            source.malformed(&place)
        }
    })?;
    Reader { source }.fill(element, table.get_ref(), 0)
}

/// The error for a key that is given twice: which key, and in which table.
fn duplicate(source: &Source, offset: usize) -> String {
    let (before, rest) = source.text.split_at_checked(offset).unwrap_or((&source.text, ""));
    let key = rest.split(['=', ']', '\n']).next().unwrap_or("").trim().trim_matches('"');
    let header = before.lines().rev().map(str::trim).find(|line| line.starts_with('['));
    let table = header.and_then(|line| line.split('#').next()).unwrap_or("the top level").trim_end();
    format!("duplicate key {key:?} in {table}")
}

const EXPECTED: &str =
    "expected a string, a number, true, false, or tables; only outlet and include are lists of strings";

struct Reader<'a> {
    source: &'a Rc<Source>,
}

impl Reader<'_> {
    fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        self.source.place(spanned.span().start)
    }

    /// The error for a value of a type that means nothing here.
    fn unexpected(&self, place: &Place, name: &str) -> ConfigError {
        let shown = if self.source.shown { format!("{name}: ") } else { String::new() };
        place.error(format!("{shown}{EXPECTED}{}", did_you_mean(name, &["include", "log", "outlet"])))
    }

    fn fill(&self, mut element: Element, table: &DeTable<'_>, depth: usize) -> Result<Element> {
        let mut children: Vec<(usize, Element)> = Vec::new();
        for (key, value) in table {
            let name = key.get_ref();
            if let Some(text) = scalar(value.get_ref()) {
                if matches!(&**name, "include" | "outlet" | "log" | "config") {
                    children.push((value.span().start, self.item(name, value, depth)?));
                } else {
                    element.attributes.push((name.to_string(), substitute(&text), self.value_place(value)));
                }
                continue;
            }
            let alone = [value.clone()];
            let items: &[Spanned<DeValue<'_>>] = match value.get_ref() {
                DeValue::Array(items)
                    if items.is_empty() && !matches!(&**name, "include" | "outlet" | "log" | "metric") =>
                {
                    return Err(self.unexpected(&self.place(value), name));
                }
                DeValue::Array(items) => items,
                _ => &alone,
            };
            for item in items {
                children.push((first_byte(item), self.item(name, item, depth)?));
            }
        }
        element.attributes.sort_by_key(|(_, _, place)| place.offset);
        // In document order.
        children.sort_by_key(|(at, _)| *at);
        element.children.extend(children.into_iter().map(|(_, child)| child));
        Ok(element)
    }

    /// A child: a table or, if a name is enough, a text.
    fn item(&self, name: &str, item: &Spanned<DeValue<'_>>, depth: usize) -> Result<Element> {
        let element = Element::empty(name, self.place(item));
        match item.get_ref() {
            _ if depth >= MAX_DEPTH => {
                Err(element.place.error(format!("tables nested more than {MAX_DEPTH} levels deep")))
            }
            DeValue::Table(table) if name == "config" => self.config(element, table),
            DeValue::Table(table) => self.fill(element, table, depth + 1),
            value => {
                let key = match name {
                    "outlet" => "name",
                    "include" => "file",
                    _ => return Err(self.unexpected(&element.place, name)),
                };
                let Some(text) = scalar(value) else {
                    return Err(element.place.error(format!("expected a string, or a table with {key}")));
                };
                let attribute = (key.to_owned(), substitute(&text), self.value_place(item));
                Ok(Element { attributes: vec![attribute], ..element })
            }
        }
    }

    /// Turns keys into children with a text each, as in XML.
    fn config(&self, mut element: Element, table: &DeTable<'_>) -> Result<Element> {
        for (key, value) in table {
            let place = self.place(value);
            let Some(text) = scalar(value.get_ref()) else {
                return Err(place.error("expected a string, a number, true or false"));
            };
            let name = key.get_ref().to_string();
            if matches!(&*name, "id" | "inherit") {
                element.attributes.push((name, substitute(&text), place));
            } else {
                let child = Element::empty(&name, place);
                element.children.push(Element { text: substitute(text.trim()), ..child });
            }
        }
        Ok(element)
    }

    /// Where the text of a value begins: behind its quotation marks, and the line end behind three
    /// of them.
    fn value_place(&self, value: &Spanned<DeValue<'_>>) -> Place {
        let mut place = self.place(value);
        let text = self.source.text.get(value.span()).unwrap_or("");
        let quotes = if text.starts_with(r#"""""#) || text.starts_with("'''") {
            let line_end = |end: &str| text.get(3..).is_some_and(|rest| rest.starts_with(end));
            3 + if line_end("\r\n") { 2 } else { usize::from(line_end("\n")) }
        } else {
            usize::from(text.starts_with(['"', '\'']))
        };
        place.offset += quotes;
        place
    }
}

/// Where a value begins; a table may begin with a subtable before its own header.
fn first_byte(value: &Spanned<DeValue<'_>>) -> usize {
    let inside: Option<usize> = match value.get_ref() {
        DeValue::Table(table) => table.values().map(first_byte).min(),
        DeValue::Array(items) => items.iter().map(first_byte).min(),
        _ => None,
    };
    inside.map_or(value.span().start, |inside| inside.min(value.span().start))
}

/// A value that would be an attribute's text in XML.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(n) => {
            let number = i128::from_str_radix(n.as_str(), n.radix());
            Some(number.map_or_else(|_| n.to_string(), |n| n.to_string()))
        }
        DeValue::Float(n) => Some(n.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
