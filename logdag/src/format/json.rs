//! Lines as JSON objects.

use std::io::Write;

use jiff::Timestamp;

use super::layout::{Flags, Layout, last_of_each, says_the_level};
use crate::record::Record;
use crate::value::Value;

fn string(text: &str, out: &mut Vec<u8>) {
    // Most texts have nothing to escape, which can be checked for several bytes at a time.
    let is_escaped = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn value(value: Value<'_>, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = match value {
        Value::Str(text) => {
            string(text, out);
            Ok(())
        }
        Value::I64(n) => serde_json::to_writer(&mut *out, &n),
        Value::U64(n) => serde_json::to_writer(&mut *out, &n),
        Value::F64(n) if n.is_finite() => serde_json::to_writer(&mut *out, &n),
        // JSON has no such numbers.
        Value::F64(_) | Value::Uuid(_) => serde_json::to_writer(&mut *out, &value.to_string()),
        Value::Bool(b) => serde_json::to_writer(&mut *out, &b),
        Value::Null => serde_json::to_writer(&mut *out, &()),
        Value::Json(json) => {
            out.extend_from_slice(json.on_one_line().as_bytes());
            Ok(())
        }
    };
}

/// Each key with its value, after a comma. JSON objects have each key once: the last one counts. A
/// key with the name of a field is renamed, unless it is a level, which the field has.
fn key_values(keys: &[(&str, Value<'_>)], is_field: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    for (key, of_key) in last_of_each(keys) {
        let takes_field = is_field(key);
        if takes_field && says_the_level(key, of_key) {
            continue;
        }
        out.push(b',');
        if takes_field {
            let mut name = format!("original_{key}");
            while keys.iter().any(|(other, _)| *other == name) {
                name.insert_str(0, "original_");
            }
            string(&name, out);
        } else {
            string(key, out);
        }
        out.push(b':');
        value(of_key, out);
    }
}

/// The spans around a line, outermost first: objects with a name and the fields.
fn spans(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"spans\":[");
    for (n, span) in record.details.spans.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b",{\"name\":" } else { b"{\"name\":" });
        string(span.name, out);
        key_values(span.fields, |key| key == "name", out);
        out.push(b'}');
    }
    out.push(b']');
}

/// The optional fields, and the keys that are not fields.
fn rest(flags: Flags, layout: Layout, record: &Record<'_>, fields: &[&str], out: &mut Vec<u8>) {
    if flags.target {
        out.extend_from_slice(b",\"target\":");
        string(record.target(), out);
    }
    let has_spans = layout.spans && !record.details.spans.is_empty();
    if has_spans {
        spans(record, out);
    }
    let is_field = |key: &str| match key {
        "target" => flags.target,
        "spans" => has_spans,
        key => fields.contains(&key),
    };
    key_values(record.keys, is_field, out);
    out.push(b'}');
}

/// A line with libmtev's field names.
pub(super) fn line(flags: Flags, layout: Layout, record: &Record<'_>, out: &mut Vec<u8>) {
    let fields = ["timestamp", "facility", "threadid", "threadname", "file", "line", "message", "level"];
    // Writing to a Vec cannot fail.
    let _ =
        write!(out, "{{\"timestamp\":\"{}.{:06}\"", record.micros() / 1_000_000, record.micros() % 1_000_000);
    out.extend_from_slice(b",\"facility\":");
    string(record.facility, out);
    let _ = write!(out, ",\"threadid\":{},\"threadname\":", record.thread_id());
    string(record.thread_name(), out);
    out.extend_from_slice(b",\"file\":");
    string(record.location.file, out);
    let _ = write!(out, ",\"line\":{},\"message\":", record.location.line);
    string(record.message(), out);
    let without_level = &fields[..fields.len() - 1];
    if flags.level {
        let _ = write!(out, ",\"level\":\"{}\"", record.level.name());
    }
    rest(flags, layout, record, if flags.level { &fields } else { without_level }, out);
}

/// The contents of a line without its time: level, message and keys.
pub(crate) fn event_body(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.level.name().as_bytes());
    string(record.message(), out);
    key_values(record.keys, |_| false, out);
}

/// A structured event.
pub(super) fn event(flags: Flags, layout: Layout, record: &Record<'_>, out: &mut Vec<u8>) {
    let micros = i64::try_from(record.micros()).unwrap_or(i64::MAX);
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"timestamp\":\"{time:.6}\",\"level\":\"{}\",\"event\":", record.level.name());
    string(record.message(), out);
    out.extend_from_slice(b",\"stream\":");
    string(record.facility, out);
    let fields = ["timestamp", "level", "event", "stream", "file", "line"];
    let without_source = &fields[..fields.len() - 2];
    if flags.source {
        out.extend_from_slice(b",\"file\":");
        string(record.location.file, out);
        let _ = write!(out, ",\"line\":{}", record.location.line);
    }
    rest(flags, layout, record, if flags.source { &fields } else { without_source }, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_serde_json() {
        let all: Vec<char> = (char::MIN..='\u{3000}').collect();
        let mut texts: Vec<String> = all.iter().map(char::to_string).collect();
        texts.extend(all.iter().map(|c| format!("a text before {c} and one behind that is as long")));
        texts.push(String::new());
        for text in texts {
            let mut out = b"x".to_vec();
            string(&text, &mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("x{}", serde_json::to_string(&text).unwrap())
            );
        }
    }
}
