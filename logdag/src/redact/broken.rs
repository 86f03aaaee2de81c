//! Texts that contain JSON but are not JSON: cut off, continued from somewhere else, or with words
//! around it.

use std::borrow::Cow;

use super::{MAX_DEPTH, REDACTED};

/// Replaces the values of the hidden names; `None` if there is none. A name is the text between
/// quotation marks before a colon. A value whose end is unclear extends to the end of the text.
pub(super) fn redact(text: &str, hides: impl Fn(&str) -> bool) -> Option<String> {
    let mut out = String::new();
    let mut kept = 0;
    // The marks that may have opened a text, each within the previous one.
    let mut before: Vec<Mark> = Vec::new();
    let mut at = 0;
    while let Some(mark) = Mark::next(text, at) {
        at = mark.end;
        before.truncate(before.partition_point(|other| other.escapes <= mark.escapes));
        let opening = before.pop_if(|opening| opening.escapes == mark.escapes);
        before.push(mark);
        let Some(opening) = opening else { continue };
        let Some(value) = behind_colon(text, mark.end) else { continue };
        if !hides(&decoded(&text[opening.end..mark.start])) {
            continue;
        }
        let (quote, end) = end_of_value(text, value, mark.escapes);
        out.push_str(&text[kept..value]);
        let quote = quote.unwrap_or(&text[mark.start..mark.end]);
        out.extend([quote, REDACTED, quote]);
        (kept, at) = (end, end);
        before.clear();
    }
    (kept > 0).then(|| out + &text[kept..])
}

/// A quotation mark with the backslashes before it, which occur in JSON strings that contain JSON.
#[derive(Clone, Copy)]
struct Mark {
    escapes: usize,
    start: usize,
    end: usize,
}

impl Mark {
    fn next(text: &str, from: usize) -> Option<Self> {
        let bytes = &text.as_bytes()[from..];
        let quote = memchr::memchr(b'"', bytes)?;
        let escapes = bytes[..quote].iter().rev().take_while(|&&byte| byte == b'\\').count();
        let end = from + quote + 1;
        Some(Self { escapes, start: end - 1 - escapes, end })
    }
}

fn skip_space(text: &str, from: usize) -> usize {
    let rest = &text.as_bytes()[from..];
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Where the value begins, if there is a colon.
fn behind_colon(text: &str, from: usize) -> Option<usize> {
    let colon = skip_space(text, from);
    (text.as_bytes().get(colon) == Some(&b':')).then(|| skip_space(text, colon + 1))
}

/// A name without the escapes of JSON, however often it has been escaped, up to the maximum depth.
fn decoded(name: &str) -> Cow<'_, str> {
    let mut name = Cow::Borrowed(name);
    for _ in 0..MAX_DEPTH {
        if !name.contains('\\') {
            break;
        }
        match serde_json::from_str::<String>(&format!("\"{name}\"")) {
            Ok(plain) => name = Cow::Owned(plain),
            Err(_) => break,
        }
    }
    name
}

/// The quotation mark of a value, if any, and where the value ends, in a text whose quotation marks
/// have this number of `escapes`.
fn end_of_value(text: &str, from: usize, escapes: usize) -> (Option<&str>, usize) {
    let is_end = |mark: &Mark| mark.escapes <= escapes;
    let marks = |from: usize| {
        std::iter::successors(Mark::next(text, from), |mark| Mark::next(text, mark.end)).find(is_end)
    };
    match Mark::next(text, from) {
        Some(opening) if opening.start == from => {
            let end = marks(opening.end).map_or(text.len(), |mark| mark.end);
            (Some(&text[opening.start..opening.end]), end)
        }
        _ if text[from..].starts_with(['{', '[']) => (None, end_of_container(text, from, escapes)),
        _ => {
            let over = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '"' | '\\');
            (None, text[from..].find(over).map_or(text.len(), |length| from + length))
        }
    }
}

/// Where an object or an array ends.
fn end_of_container(text: &str, from: usize, escapes: usize) -> usize {
    let (mut depth, mut within_text, mut at) = (0_u32, false, from);
    loop {
        let mark = Mark::next(text, at);
        let until = mark.map_or(text.len(), |mark| mark.start);
        if !within_text {
            for (place, byte) in text.bytes().enumerate().take(until).skip(at) {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => continue,
                }
                if depth == 0 {
                    return place + 1;
                }
            }
        }
        match mark {
            None => return text.len(),
            // The surrounding text ends.
            Some(mark) if mark.escapes < escapes => return mark.start,
            Some(mark) => {
                within_text ^= mark.escapes == escapes;
                at = mark.end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(name: &str) -> bool {
        matches!(name, "pin" | "a\"b")
    }

    #[test]
    fn values_of_hidden_names_go_wherever_the_text_was_cut() {
        for (text, expected) in [
            (r#"{"pin":"1234","b":1"#, r#"{"pin":"[redacted]","b":1"#),
            (r#"{"pin":"12"#, r#"{"pin":"[redacted]""#),
            (r#"{"pin" : 1234"#, r#"{"pin" : "[redacted]""#),
            (r#"{"pin":1234}}"#, r#"{"pin":"[redacted]"}}"#),
            (r#"{"pin":"#, r#"{"pin":"[redacted]""#),
            (r#"ept","pin":"1\"2","c":""#, r#"ept","pin":"[redacted]","c":""#),
            (r#"got {"pin":{"x":["}"],"y":{}},"c":1} there"#, r#"got {"pin":"[redacted]","c":1} there"#),
            (r#"{"pin":[1,[2],{"a":"\"]"}"#, r#"{"pin":"[redacted]""#),
            (r#"{"p\u0069n":null, "pin": true ]"#, r#"{"p\u0069n":"[redacted]", "pin": "[redacted]" ]"#),
            (r#"{"a\"b":1,"#, r#"{"a\"b":"[redacted]","#),
            (
                r#"{"body":"{\"pin\":\"1\\\"2\",\"c\":1}","d""#,
                r#"{"body":"{\"pin\":\"[redacted]\",\"c\":1}","d""#,
            ),
            (r#"{"body":"{\"pin\":{\"a\":\"x","d":1"#, r#"{"body":"{\"pin\":\"[redacted]\"","d":1"#),
            (r#"{"body":"{\"pin\":[1","d":"e"#, r#"{"body":"{\"pin\":\"[redacted]\"","d":"e"#),
        ] {
            assert_eq!(redact(text, hides).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "\"", r#"{"pin""#, r#"{"b":"pin"#, r#"["pin","b"]x"#, "pin: 7", r#"{"spin":1"#, "é\"é\":é"]
        {
            assert_eq!(redact(text, hides), None, "{text}");
        }
    }
}
