//! Plain lines: a prefix and a message.

use std::cell::RefCell;
use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::escape::{self, logfmt, on_one_line};
use super::layout::{Flags, Layout, last_of_each, says_the_level};
use crate::message::Text;
use crate::record::Record;
use crate::value::Value;

/// The beginning of a further line of an escaped message; first lines never begin with it.
const CONTINUED: u8 = b'\t';

pub(super) fn line(flags: Flags, layout: Layout, record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if flags != Flags::default() {
        prefix(flags, record, out);
    }
    let message = out.len();
    if !layout.split {
        record.write_message(&mut Text::new(out));
        if flags.keys {
            keys(flags, record, out);
        }
        return;
    }
    let mut text =
        if layout.escape { Text::that_looks_for_controls(out) } else { Text::that_looks_for_line_ends(out) };
    record.write_message(&mut text);
    let found = text.found();
    if found {
        if layout.escape {
            escape_message(start, message, out);
        } else if flags.keys && out[message..].ends_with(b"\n") {
            out.pop();
        }
    }
    if flags.keys {
        keys(flags, record, out);
    }
    if layout.escape || out.last() != Some(&b'\n') || out.len() == message {
        out.push(b'\n');
    }
    if found && !layout.escape {
        repeat_prefix(start, message, out);
    }
}

/// Escapes a message of a line that begins at `start`, and marks its further lines.
fn escape_message(start: usize, message: usize, out: &mut Vec<u8>) {
    let written = out.split_off(message);
    let written = String::from_utf8_lossy(&written);
    for (n, line) in written.strip_suffix('\n').unwrap_or(&written).split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if n > 0 {
            out.extend_from_slice(&[b'\n', CONTINUED]);
        } else if start == message
            && let Some(rest) = line.strip_prefix(char::from(CONTINUED))
        {
            // Without a prefix, it would seem to be part of the previous line.
            out.extend_from_slice(br"\t");
            escape::line(rest, out);
            continue;
        }
        escape::line(line, out);
    }
}

/// Adds the prefix to every further line.
fn repeat_prefix(start: usize, message: usize, out: &mut Vec<u8>) {
    if message == start {
        return;
    }
    let last = out.len() - 1;
    let Some(first_end) = memchr::memchr(b'\n', &out[message..last]) else { return };
    let further = out.split_off(message + first_end + 1);
    for line in further.split_inclusive(|&byte| byte == b'\n') {
        out.extend_from_within(start..message);
        out.extend_from_slice(line);
    }
}

fn prefix(flags: Flags, record: &Record<'_>, out: &mut Vec<u8>) {
    let part = |text: &str, out: &mut Vec<u8>| {
        out.push(b'[');
        on_one_line(text, out);
        out.extend_from_slice(b"] ");
    };
    if flags.timestamps {
        out.push(b'[');
        local_time(record.micros(), out);
        out.extend_from_slice(b"] ");
    }
    if flags.level {
        part(record.level.name(), out);
    }
    if flags.facility {
        part(record.facility, out);
    }
    if flags.target {
        part(record.target(), out);
    }
    if flags.debug {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "[t@{}/", record.thread_id());
        on_one_line(record.thread_name(), out);
        out.push(b',');
        on_one_line(record.location.file, out);
        let _ = write!(out, ":{}] ", record.location.line);
    }
}

/// The keys after a message, as logfmt. A key that is the level is left out if the level is shown
/// separately.
fn keys(flags: Flags, record: &Record<'_>, out: &mut Vec<u8>) {
    for (key, value) in last_of_each(record.keys) {
        if flags.level && says_the_level(key, value) {
            continue;
        }
        out.push(b' ');
        logfmt(key, out);
        out.push(b'=');
        match value {
            Value::Json(json) => logfmt(&json.on_one_line(), out),
            value => key_value(value, out),
        }
    }
}

/// A value after its key.
pub(super) fn key_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Str(text) => logfmt(text, out),
        Value::Json(json) => on_one_line(&json.on_one_line(), out),
        other => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// `YYYY-MM-DD HH:MM:SS.uuuuuu` in local time. The part before the dot is cached for the next line
/// of the same second.
pub(super) fn local_time(micros: u64, out: &mut Vec<u8>) {
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
