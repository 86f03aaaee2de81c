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

/// A key or a value as logfmt has it: between quotation marks, with escapes as in JSON, where it would not be clear how
/// far it goes.
pub(super) fn logfmt(text: &str, out: &mut Vec<u8>) {
    let is_special = |c: char| c.is_whitespace() || matches!(c, '"' | '=') || is_dangerous(c);
    let maybe = |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'=');
    let quoted = text.is_empty() || text.bytes().any(maybe) && text.chars().any(is_special);
    if !quoted {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for c in text.chars() {
        // Writing to a Vec cannot fail.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            // All of them have four digits.
            c if is_dangerous(c) => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out.push(b'"');
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
    fn keys_and_values_are_quoted_where_that_is_needed() {
        for (text, expected) in [
            ("plain", "plain"),
            ("grüße", "grüße"),
            (r"C:\dir", r"C:\dir"),
            ("'a'[1]{b}", "'a'[1]{b}"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a\u{a0}b", "\"a\u{a0}b\""),
            ("a=b", r#""a=b""#),
            (r#"a"b"#, r#""a\"b""#),
            (r"a\ b", r#""a\\ b""#),
            (r#"\""#, r#""\\\"""#),
            ("a\nb\r\t", r#""a\nb\r\t""#),
            ("\x1b[2J\u{9b}\u{202e}", r#""\u001b[2J\u009b\u202e""#),
        ] {
            let mut out = Vec::new();
            logfmt(text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text:?}");
        }
        // What is between quotation marks is a text of JSON.
        let all: String = (char::MIN..='\u{3000}').collect();
        let mut out = Vec::new();
        logfmt(&all, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), all);
        assert!(!String::from_utf8(out).unwrap().contains(is_dangerous));
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
