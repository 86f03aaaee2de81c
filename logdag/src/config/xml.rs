//! XML as elements.

use std::path::PathBuf;
use std::rc::Rc;

use super::{Element, MAX_DEPTH, Result, Source, include, substitute};

/// The root of a text.
pub(super) fn root(source: &Rc<Source>, open: &mut Vec<PathBuf>) -> Result<Element> {
    let document = Document::parse(source, &source.text, 0)?;
    document.element(document.tree.root_element(), open, 0)
}

/// The elements of a text that has no root.
pub(super) fn snippet(source: &Rc<Source>, open: &mut Vec<PathBuf>) -> Result<Vec<Element>> {
    // A root on the first line leaves lines as they are, and moves columns of the first one.
    let text = format!("<s>{}</s>", source.text);
    let document = Document::parse(source, &text, 3)?;
    document.children(document.tree.root_element(), open, 0)
}

struct Document<'a> {
    tree: roxmltree::Document<'a>,
    source: &'a Rc<Source>,
    /// So many bytes at the beginning are not in the file.
    moved: usize,
}

impl<'a> Document<'a> {
    fn parse(source: &'a Rc<Source>, text: &'a str, moved: u8) -> Result<Self> {
        let options =
            roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 1_000_000, ..Default::default() };
        let tree = roxmltree::Document::parse_with_options(text, options).map_err(|e| {
            let at = e.pos();
            let column = if at.row == 1 { at.col.saturating_sub(u32::from(moved)).max(1) } else { at.col };
            source.place_of(at.row, column).error(explain(&e))
        })?;
        Ok(Self { tree, source, moved: usize::from(moved) })
    }

    fn element(
        &self,
        node: roxmltree::Node<'_, '_>,
        open: &mut Vec<PathBuf>,
        depth: usize,
    ) -> Result<Element> {
        let at = |offset: usize| self.source.place(offset.saturating_sub(self.moved));
        if depth > MAX_DEPTH {
            return Err(
                at(node.range().start).error(format!("elements more than {MAX_DEPTH} deep in one another"))
            );
        }
        let attributes = node
            .attributes()
            .map(|a| (a.name().to_owned(), substitute(a.value()), at(a.range_value().start)))
            .collect();
        // Comments cut it in pieces.
        let texts = node.children().filter(roxmltree::Node::is_text).filter_map(|text| text.text());
        let text: String = texts.collect();
        Ok(Element {
            name: node.tag_name().name().to_owned(),
            place: at(node.range().start),
            attributes,
            text: substitute(text.trim()),
            children: self.children(node, open, depth + 1)?,
        })
    }

    fn children(
        &self,
        node: roxmltree::Node<'_, '_>,
        open: &mut Vec<PathBuf>,
        depth: usize,
    ) -> Result<Vec<Element>> {
        let mut out = Vec::new();
        for child in node.children().filter(roxmltree::Node::is_element) {
            let child = self.element(child, open, depth)?;
            if child.name == "include" {
                out.extend(include(&child, self.source, open)?.children);
            } else {
                out.push(child);
            }
        }
        Ok(out)
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
