//! Characters that must not break a line, or do things to a terminal.

use std::io::Write;

use crate::message::may_be_dangerous;

/// Control characters; and those that break a line or turn its direction in some programs.
fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text on one line: dangerous characters are escaped as Rust has them, `\n` or `\u{1b}`.
pub(super) fn on_one_line(text: &str, out: &mut Vec<u8>) {
    escape(text, is_dangerous, out);
}

/// A line of a message: the same, but tabs within stay.
pub(super) fn line(text: &str, out: &mut Vec<u8>) {
    escape(text, |c| c != '\t' && is_dangerous(c), out);
}

/// The same for JSON on a line, where all of them are within texts.
pub(crate) fn within_json(line: &mut Vec<u8>) {
    let end = line.len() - usize::from(line.ends_with(b"\n"));
    if !line[..end].iter().fold(false, |found, &byte| found | may_be_dangerous(byte)) {
        return;
    }
    let text = String::from_utf8_lossy(line).into_owned();
    line.clear();
    let (text, line_end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    for c in text.chars() {
        // Writing to a Vec cannot fail. All of them have four digits.
        let _ = match is_dangerous(c) {
            true => write!(line, "\\u{:04x}", u32::from(c)),
            false => write!(line, "{c}"),
        };
    }
    line.extend_from_slice(line_end.as_bytes());
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool, out: &mut Vec<u8>) {
    if !text.bytes().fold(false, |found, byte| found | may_be_dangerous(byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}", c.escape_default());
        rest = &rest[at + c.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look at bytes only must not miss one.
    #[test]
    fn every_dangerous_character_is_one_by_its_first_byte() {
        for c in (char::MIN..=char::MAX).filter(|&c| is_dangerous(c)) {
            assert!(may_be_dangerous(c.encode_utf8(&mut [0; 4]).as_bytes()[0]), "{c:?}");
        }
    }

    #[test]
    fn nothing_dangerous_is_left() {
        let all: String = (char::MIN..='\u{3000}').collect();
        let mut out = Vec::new();
        on_one_line(&all, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains(is_dangerous));
        for kept in ['é', '\u{2027}', '“', '\u{2065}', 'z', ' '] {
            assert!(out.contains(kept), "{kept:?}");
        }
        assert!(out.contains("\\u{9b}") && out.contains("\\r") && out.contains("\\u{202e}"), "{out}");
    }
}
