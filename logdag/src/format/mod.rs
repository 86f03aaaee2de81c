//! A line as bytes.

mod flatbuffer;
mod people;

use std::cell::RefCell;
use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::message::Text;
use crate::record::{Record, Value};

/// How a sink wants its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text with a prefix, as the flags have it.
    #[default]
    Plain,
    /// A JSON object a line, with the fields' names of libmtev.
    Json,
    /// A JSON object a line in the style of structured events.
    Event,
    /// A FlatBuffer a line: the table LogLine of `schema/logline.fbs`. Sinks whose lines follow one another without a
    /// border (files, outputs) get each behind its length: 4 bytes, little endian, from which its numbers are aligned.
    FlatBuffer,
}

impl Format {
    /// All there are.
    pub const ALL: [Format; 4] = [Format::Plain, Format::Json, Format::Event, Format::FlatBuffer];

    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::Json => "json",
            Format::Event => "event",
            Format::FlatBuffer => "flatbuffer",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

pub(crate) use people::render_for_people;

/// What the prefix of a plain line has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The time.
    pub timestamps: bool,
    /// The name of the stream that was logged to.
    pub facility: bool,
    /// Thread, file and line.
    pub debug: bool,
}

impl Flags {
    /// What either has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            timestamps: self.timestamps || other.timestamps,
            facility: self.facility || other.facility,
            debug: self.debug || other.debug,
        }
    }
}

/// Appends a line to `out`. With `split`, plain messages are split at line ends, every line gets the prefix, and every line
/// ends with a newline, and FlatBuffers come behind their length; otherwise the message stays as it is.
pub fn render(format: Format, flags: Flags, record: &Record<'_>, split: bool, out: &mut Vec<u8>) {
    match format {
        Format::Plain => plain(flags, record, split, out),
        Format::Json => {
            json(record, out);
            out.push(b'\n');
        }
        Format::Event => {
            event(record, out);
            out.push(b'\n');
        }
        Format::FlatBuffer => flatbuffer::line(record, split, out),
    }
}

fn plain(flags: Flags, record: &Record<'_>, split: bool, out: &mut Vec<u8>) {
    let start = out.len();
    if flags != Flags::default() {
        prefix(flags, record, out);
    }
    let message = out.len();
    if !split {
        return record.write_message(&mut Text::new(out));
    }
    let mut text = Text::that_looks_for_line_ends(out);
    record.write_message(&mut text);
    if !text.has_line_ends() {
        return out.push(b'\n');
    }
    if out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
    let last = out.len() - 1;
    let Some(first_end) = memchr::memchr(b'\n', &out[message..last]) else { return };
    if message == start {
        return;
    }
    // Every further line gets the prefix, too.
    let further = out.split_off(message + first_end + 1);
    for line in further.split_inclusive(|&byte| byte == b'\n') {
        out.extend_from_within(start..message);
        out.extend_from_slice(line);
    }
}

fn prefix(flags: Flags, record: &Record<'_>, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    if flags.timestamps {
        out.push(b'[');
        local_time(record.micros(), out);
        out.extend_from_slice(b"] ");
    }
    if flags.facility {
        out.push(b'[');
        on_one_line(record.facility, out);
        out.extend_from_slice(b"] ");
    }
    if flags.debug {
        let _ = write!(out, "[t@{}/", record.thread_id());
        on_one_line(record.thread_name(), out);
        out.push(b',');
        on_one_line(record.location.file, out);
        let _ = write!(out, ":{}] ", record.location.line);
    }
}

/// A text that must not break a line, or do things to a terminal: control characters are shown.
fn on_one_line(text: &str, out: &mut Vec<u8>) {
    for piece in text.split_inclusive(char::is_control) {
        match piece.char_indices().next_back().filter(|(_, c)| c.is_control()) {
            // Writing to a Vec cannot fail.
            Some((at, c)) => {
                let _ = write!(out, "{}{}", &piece[..at], c.escape_default());
            }
            None => out.extend_from_slice(piece.as_bytes()),
        }
    }
}

/// `YYYY-MM-DD HH:MM:SS.uuuuuu` in local time. The part before the dot is kept for the next line of the same second.
fn local_time(micros: u64, out: &mut Vec<u8>) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let (second, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let write = |text: &str, out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
    let kept = SECOND.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.0 != second {
            *kept = (second, second_text(second));
        }
        write(&kept.1, out);
    });
    if kept.is_err() {
        write(&second_text(second), out);
    }
    let mut digits = *b".000000";
    let mut n = fraction;
    for digit in digits[1..].iter_mut().rev() {
        // A digit is below 10.
        *digit += u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
    }
    out.extend_from_slice(&digits);
}

fn second_text(second: u64) -> String {
    let time =
        i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::MAX);
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn key_values(record: &Record<'_>, reserved: &[&str], out: &mut Vec<u8>) {
    for (i, (key, value)) in record.keys.iter().enumerate() {
        // JSON objects have each key once: the last one counts, and none takes the place of a field.
        let later = record.keys[i + 1..].iter().any(|(other, _)| other == key);
        if later || reserved.contains(key) {
            continue;
        }
        out.push(b',');
        string(key, out);
        out.push(b':');
        // Writing to a Vec cannot fail.
        let _ = match value {
            Value::Str(text) => serde_json::to_writer(&mut *out, text),
            Value::I64(n) => serde_json::to_writer(&mut *out, n),
            Value::U64(n) => serde_json::to_writer(&mut *out, n),
            Value::F64(n) => serde_json::to_writer(&mut *out, n),
            Value::Uuid(_) => serde_json::to_writer(&mut *out, &value.to_string()),
        };
    }
}

fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    let reserved = ["timestamp", "facility", "threadid", "threadname", "file", "line", "message"];
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
    key_values(record, &reserved, out);
    out.push(b'}');
}

/// What a line says, without its time: level, message and keys.
pub(crate) fn event_body(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.level.name().as_bytes());
    string(record.message(), out);
    key_values(record, &[], out);
}

fn event(record: &Record<'_>, out: &mut Vec<u8>) {
    let micros = i64::try_from(record.micros()).unwrap_or(i64::MAX);
    let time = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{{\"timestamp\":\"{time:.6}\",\"level\":\"{}\",\"event\":", record.level.name());
    string(record.message(), out);
    out.extend_from_slice(b",\"stream\":");
    string(record.facility, out);
    key_values(record, &["timestamp", "level", "event", "stream"], out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn rendered(format: Format, flags: Flags, split: bool, message: &str) -> String {
        let keys = [
            ("status", Value::I64(-3)),
            ("path", Value::Str("/a \"b\"\n")),
            ("id", Value::Uuid(*b"0123456789abcdef")),
            ("took", Value::F64(0.5)),
            ("status", Value::U64(u64::MAX)),
            ("message", Value::Str("mine")),
        ];
        let mut record = Record::new(1_700_000_000_000_042, "http/access", &message);
        record.set_thread(12, "worker");
        record.location = &crate::Location { file: "a.rs", line: 7 };
        record.keys = &keys;
        let mut out = b"before ".to_vec();
        render(format, flags, &record, split, &mut out);
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    #[test]
    fn plain_lines_have_the_prefix_that_flags_ask_for() {
        let none = Flags::default();
        assert_eq!(rendered(Format::Plain, none, false, "one\ntwo\n"), "one\ntwo\n");
        assert_eq!(rendered(Format::Plain, none, true, "one\ntwo\n"), "one\ntwo\n");
        assert_eq!(rendered(Format::Plain, none, true, ""), "\n");
        let some = Flags { facility: true, debug: true, timestamps: false };
        let prefix = "[http/access] [t@12/worker,a.rs:7] ";
        let expected = format!("{prefix}one\n{prefix}\n{prefix}two\n");
        assert_eq!(rendered(Format::Plain, some, true, "one\n\ntwo"), expected);
        let text = rendered(Format::Plain, Flags { timestamps: true, ..none }, false, "x");
        let zoned = Timestamp::from_second(1_700_000_000).unwrap().to_zoned(TimeZone::system());
        assert_eq!(text, format!("[{}.000042] x", zoned.strftime("%Y-%m-%d %H:%M:%S")));
    }

    #[test]
    fn json_is_json() {
        let text = rendered(Format::Json, Flags::default(), true, "a\n\"b\"");
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
        let parsed: Json = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "timestamp": "1700000000.000042", "facility": "http/access", "threadid": 12, "threadname": "worker",
            "file": "a.rs", "line": 7, "message": "a\n\"b\"", "path": "/a \"b\"\n",
            "id": "30313233-3435-3637-3839-616263646566", "took": 0.5, "status": u64::MAX,
        });
        assert_eq!(parsed, expected);
    }

    #[test]
    fn events_are_json_with_their_keys_on_top() {
        let parsed: Json =
            serde_json::from_str(&rendered(Format::Event, Flags::default(), true, "http.request.done"))
                .unwrap();
        assert_eq!(parsed["timestamp"], "2023-11-14T22:13:20.000042Z");
        assert_eq!(parsed["event"], "http.request.done");
        assert_eq!(parsed["level"], "info");
        assert_eq!(parsed["stream"], "http/access");
        assert_eq!(parsed["status"], u64::MAX);
        assert_eq!(parsed["message"], "mine");
    }
}
