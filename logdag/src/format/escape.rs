//! Escapes characters that would break a line or control a terminal.

use std::io::Write;

use crate::message::may_be_dangerous;

/// Control characters, and characters that break a line or change its direction in some programs.
fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text on one line: dangerous characters are escaped as in Rust, `\n` or `\u{1b}`.
pub(super) fn on_one_line(text: &str, out: &mut Vec<u8>) {
    escape(text, is_dangerous, out);
}

/// A line of a message: the same, but tabs within stay.
pub(super) fn line(text: &str, out: &mut Vec<u8>) {
    escape(text, |c| c != '\t' && is_dangerous(c), out);
}

/// The same for JSON, from an offset on: there they are within strings, where an escape means the
/// same character. Those below the space are escaped already, or are white space between parts.
pub(super) fn within_json(line: &mut Vec<u8>, start: usize) {
    // Few lines have any of these bytes, and few of those have the whole character.
    let is_one = |&at: &usize| {
        let second = |n: usize| line.get(start + at + n).copied();
        match line[start + at] {
            0x7f => true,
            0xc2 => second(1).is_some_and(|byte| byte < 0xa0),
            _ => match second(1) {
                Some(0x80) => second(2).is_some_and(|byte| (0xa8..=0xae).contains(&byte)),
                Some(0x81) => second(2).is_some_and(|byte| (0xa6..=0xa9).contains(&byte)),
                _ => false,
            },
        }
    };
    let Some(first) = memchr::memchr3_iter(0x7f, 0xc2, 0xe2, &line[start..]).find(is_one) else { return };
    let rest = String::from_utf8_lossy(&line[start + first..]).into_owned();
    line.truncate(start + first);
    for c in rest.chars() {
        // Writing to a Vec cannot fail. All of them have four digits.
        let _ = match c >= '\x7f' && is_dangerous(c) {
            true => write!(line, "\\u{:04x}", u32::from(c)),
            false => write!(line, "{c}"),
        };
    }
}

/// A key or a value in logfmt: between quotation marks, with escapes as in JSON, if its end would
/// be ambiguous otherwise.
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

    /// The check of bytes alone must not miss a character.
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
        // The text between quotation marks is a JSON string.
        let all: String = (char::MIN..='\u{3000}').collect();
        let mut out = Vec::new();
        logfmt(&all, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), all);
        assert!(!String::from_utf8(out).unwrap().contains(is_dangerous));
    }

    #[test]
    fn json_stays_the_same_without_dangerous_characters() {
        let all: String = (char::MIN..='\u{3000}').collect();
        let mut line = b"\x7f".to_vec();
        let json = serde_json::to_string(&[&all]).unwrap().replacen('[', "[\t", 1);
        line.extend_from_slice(json.as_bytes());
        within_json(&mut line, 1);
        let text = String::from_utf8(line).unwrap();
        let text = text.strip_prefix('\x7f').unwrap();
        assert!(text.starts_with("[\t\"") && !text.replace('\t', "").contains(is_dangerous), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(text).unwrap(), [all]);
        for kept in ["", "grüße", "“quoted”", "â\u{2027}\u{2065}\u{a0}", "é"] {
            let mut line = kept.as_bytes().to_vec();
            within_json(&mut line, 0);
            assert_eq!(line, kept.as_bytes());
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
