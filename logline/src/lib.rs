//! Reads log lines in FlatBuffers: the table LogLine of `logdag/schema/logline.fbs`, which logdag
//! and libmtev write.
//!
//! ```
//! # fn show(bytes: &[u8]) -> Result<(), logline::Error> {
//! let line = logline::LogLine::parse(bytes)?;
//! println!("{} {}: {}", line.timestamp, line.facility, line.message);
//! # Ok(()) }
//! # assert!(show(b"not a line").is_err());
//! ```
//!
//! Bytes from any origin are safe: bytes that are not a line cause an [`Error`], never a panic, and
//! memory stays within a small multiple of their length.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};

/// The largest line that is read, in bytes.
pub const MAX_LINE: u32 = 256 << 20;

/// Keys may share their texts, but their total length is limited to this many times the given
/// bytes.
const MAX_SHARED: usize = 16;

/// Why bytes are not a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log line: {what} at byte {at} is out of bounds")]
pub struct Error {
    /// The part that was expected.
    what: &'static str,
    /// The offset, from 0.
    at: usize,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A number with a fraction.
    F64(f64),
    /// Text.
    Str(Cow<'a, str>),
    /// A UUID: 16 bytes, or whatever was written in its place.
    Uuid(&'a [u8]),
    /// No value, or one of an unknown type.
    Unknown,
}

/// A line. In text that is not UTF-8, U+FFFD replaces invalid bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine<'a> {
    /// The time, in microseconds since 1970 UTC.
    pub timestamp: u64,
    /// The system's id of the thread.
    pub thread_id: u32,
    /// The line in the source file.
    pub line: u32,
    /// The source file.
    pub file: Cow<'a, str>,
    /// The name of the thread.
    pub thread_name: Cow<'a, str>,
    /// The stream that was logged to.
    pub facility: Cow<'a, str>,
    /// The message.
    pub message: Cow<'a, str>,
    /// Keys with their values.
    pub keys: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// The bytes of one FlatBuffer.
#[derive(Clone, Copy)]
struct Buffer<'a>(&'a [u8]);

/// A table: its offset, and that of the list of its fields.
#[derive(Clone, Copy)]
struct Table<'a> {
    buffer: Buffer<'a>,
    at: usize,
    fields: usize,
    fields_len: usize,
}

impl<'a> Buffer<'a> {
    fn array<const N: usize>(self, at: usize, what: &'static str) -> Result<[u8; N], Error> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(Error { what, at })
    }

    fn u32(self, at: usize, what: &'static str) -> Result<u32, Error> {
        self.array(at, what).map(u32::from_le_bytes)
    }

    /// The target of the offset at this place.
    fn follow(self, at: usize, what: &'static str) -> Result<usize, Error> {
        let offset = self.u32(at, what)?;
        let to = usize::try_from(offset).ok().and_then(|offset| at.checked_add(offset));
        to.filter(|&to| to < self.0.len()).ok_or(Error { what, at })
    }

    fn table(self, at: usize) -> Result<Table<'a>, Error> {
        let what = "a table";
        let back = i32::from_le_bytes(self.array(at, what)?);
        let fields = i64::try_from(at).ok().map(|at| at - i64::from(back));
        let fields = fields.and_then(|at| usize::try_from(at).ok()).ok_or(Error { what, at })?;
        let fields_len: usize = u16::from_le_bytes(self.array(fields, what)?).into();
        // Two lengths come before the fields.
        if fields_len < 4 {
            return Err(Error { what: "the list of a table's fields", at: fields });
        }
        Ok(Table { buffer: self, at, fields, fields_len })
    }

    /// The bytes of a vector or a string.
    fn bytes(self, at: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let len = usize::try_from(self.u32(at, what)?).map_err(|_| Error { what, at })?;
        let bytes = self.0.get(at + 4..).and_then(|rest| rest.get(..len));
        bytes.ok_or(Error { what, at })
    }
}

impl<'a> Table<'a> {
    /// The place of the field with this id, if it is present.
    fn field(self, id: usize) -> Result<Option<usize>, Error> {
        let entry = 4 + 2 * id;
        if entry + 2 > self.fields_len {
            return Ok(None);
        }
        let offset: usize = u16::from_le_bytes(self.buffer.array(self.fields + entry, "a field")?).into();
        Ok((offset > 0).then_some(self.at + offset))
    }

    fn number<const N: usize>(self, id: usize, what: &'static str) -> Result<[u8; N], Error> {
        self.field(id)?.map_or(Ok([0; N]), |at| self.buffer.array(at, what))
    }

    fn text(self, id: usize, what: &'static str) -> Result<Cow<'a, str>, Error> {
        self.bytes(id, what).map(|bytes| String::from_utf8_lossy(bytes.unwrap_or_default()))
    }

    fn bytes(self, id: usize, what: &'static str) -> Result<Option<&'a [u8]>, Error> {
        let Some(at) = self.field(id)? else { return Ok(None) };
        self.buffer.bytes(self.buffer.follow(at, what)?, what).map(Some)
    }

    /// A key with its value.
    fn pair(self) -> Result<(Cow<'a, str>, Value<'a>), Error> {
        let key = self.text(0, "a key")?;
        let [kind] = self.number(1, "the type of a value")?;
        let Some(at) = self.field(2)? else { return Ok((key, Value::Unknown)) };
        let table = self.buffer.table(self.buffer.follow(at, "a value")?)?;
        let value = match kind {
            1 => Value::I64(i64::from_le_bytes(table.number(0, "a number")?)),
            2 => Value::U64(u64::from_le_bytes(table.number(0, "a number")?)),
            3 => Value::F64(f64::from_le_bytes(table.number(0, "a number")?)),
            4 => Value::Str(table.text(0, "a text")?),
            5 => Value::Uuid(table.bytes(0, "a UUID")?.unwrap_or_default()),
            _ => Value::Unknown,
        };
        Ok((key, value))
    }
}

impl<'a> LogLine<'a> {
    /// Parses the bytes of one FlatBuffer.
    ///
    /// # Errors
    /// The bytes are not a line.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let buffer = Buffer(bytes);
        let table = buffer.table(buffer.follow(0, "the root")?)?;
        let mut keys = Vec::new();
        if let Some(at) = table.field(7)? {
            let what = "the keys";
            let pairs = buffer.follow(at, what)?;
            let count = usize::try_from(buffer.u32(pairs, what)?).unwrap_or(usize::MAX);
            // The count may be wrong: each key is checked when it is read.
            let mut texts = 0;
            for n in 0..count {
                let at = buffer.follow(pairs + 4 + 4 * n, what)?;
                let pair = buffer.table(at)?.pair()?;
                texts += pair.0.len() + if let Value::Str(text) = &pair.1 { text.len() } else { 0 };
                if texts / MAX_SHARED > bytes.len() {
                    return Err(Error { what: "a text that very many keys share", at });
                }
                keys.push(pair);
            }
        }
        Ok(Self {
            timestamp: u64::from_le_bytes(table.number(0, "the time")?),
            thread_id: u32::from_le_bytes(table.number(1, "the thread")?),
            line: u32::from_le_bytes(table.number(2, "the line")?),
            file: table.text(3, "the file")?,
            thread_name: table.text(4, "the thread's name")?,
            facility: table.text(5, "the facility")?,
            message: table.text(6, "the message")?,
            keys,
        })
    }

    /// Appends the line as a JSON object, as in logdag's format `json`. If several keys have the
    /// same name, the last one counts. A key with the name of a field gets the prefix `original_`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let fields = ["timestamp", "facility", "threadid", "threadname", "file", "line", "message"];
        let (seconds, micros) = (self.timestamp / 1_000_000, self.timestamp % 1_000_000);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{{\"timestamp\":\"{seconds}.{micros:06}\"");
        let text = |name: &str, text: &str, out: &mut Vec<u8>| {
            out.push(b',');
            let _ = serde_json::to_writer(&mut *out, name);
            out.push(b':');
            let _ = serde_json::to_writer(out, text);
        };
        text("facility", &self.facility, out);
        let _ = write!(out, ",\"threadid\":{}", self.thread_id);
        text("threadname", &self.thread_name, out);
        text("file", &self.file, out);
        let _ = write!(out, ",\"line\":{}", self.line);
        text("message", &self.message, out);
        let last: HashMap<&str, usize> =
            self.keys.iter().enumerate().map(|(n, (key, _))| (&**key, n)).collect();
        for (n, (key, value)) in self.keys.iter().enumerate() {
            if last.get(&**key) != Some(&n) {
                continue;
            }
            let mut key = Cow::Borrowed(&**key);
            if fields.contains(&&*key) {
                // As in logdag's own JSON lines.
                key = format!("original_{key}").into();
                while last.contains_key(&*key) {
                    key.to_mut().insert_str(0, "original_");
                }
            }
            match value {
                Value::Str(value) => text(&key, value, out),
                Value::Uuid(bytes) => text(&key, &uuid(bytes), out),
                // JSON cannot represent such numbers.
                Value::F64(n) if !n.is_finite() => text(&key, &n.to_string(), out),
                number => {
                    out.push(b',');
                    let _ = serde_json::to_writer(&mut *out, &*key);
                    out.push(b':');
                    let _ = match number {
                        Value::I64(n) => serde_json::to_writer(&mut *out, n),
                        Value::U64(n) => serde_json::to_writer(&mut *out, n),
                        Value::F64(n) => serde_json::to_writer(&mut *out, n),
                        _ => serde_json::to_writer(&mut *out, &()),
                    };
                }
            }
        }
        out.push(b'}');
        escape_dangerous(out, start);
    }
}

/// Escapes, from an offset on, characters that break a line or change its direction in some
/// programs, or that a terminal interprets. JSON has them only within strings, where an escape
/// means the same character. (logdag's own JSON lines do the same.)
fn escape_dangerous(json: &mut Vec<u8>, start: usize) {
    let is_dangerous =
        |c| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // The byte that all of them begin with.
    if !json[start..].iter().any(|byte| matches!(byte, 0x7f | 0xc2 | 0xe2)) {
        return;
    }
    let text = String::from_utf8_lossy(&json[start..]).into_owned();
    json.truncate(start);
    for c in text.chars() {
        // Writing to a Vec cannot fail.
        let _ = if is_dangerous(c) { write!(json, "\\u{:04x}", u32::from(c)) } else { write!(json, "{c}") };
    }
}

/// A UUID as text: in five groups if it has 16 bytes, and as hex digits otherwise.
fn uuid(bytes: &[u8]) -> String {
    let grouped = bytes.len() == 16;
    let digits = |(n, byte): (usize, &u8)| {
        let dash = if grouped && matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
        format!("{dash}{byte:02x}")
    };
    bytes.iter().enumerate().map(digits).collect()
}

/// Calls `take` with the bytes of every line of a file in which each line follows its length (4
/// bytes, little-endian).
///
/// # Errors
/// An error of reading or of `take`; an incomplete last line; a line longer than [`MAX_LINE`].
/// Earlier lines have been passed to `take`.
pub fn for_each(mut from: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut at = 0u64;
    loop {
        line.clear();
        (&mut from).take(4).read_to_end(&mut line)?;
        let wrong =
            |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("at byte {at}: {what}"));
        let Some(length) = line.first_chunk() else {
            return if line.is_empty() {
                Ok(())
            } else {
                Err(wrong("the length of a line is cut off".to_owned()))
            };
        };
        let length = u32::from_le_bytes(*length);
        if length > MAX_LINE {
            return Err(wrong(format!(
                "a line of {length} bytes: this is not a file of length-prefixed FlatBuffers"
            )));
        }
        line.clear();
        (&mut from).take(length.into()).read_to_end(&mut line)?;
        if line.len() as u64 != u64::from(length) {
            return Err(wrong(format!("a line is cut: {} of {length} bytes are there", line.len())));
        }
        take(&line).map_err(|e| io::Error::new(e.kind(), format!("at byte {at}: {e}")))?;
        at += 4 + u64::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_kind_are_no_line_and_do_no_harm() {
        let mut seed = 1u64;
        for len in 0..400usize {
            let bytes: Vec<u8> = (0..len)
                .map(|n| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n as u64 | 1);
                    // Small numbers are offsets within the bytes.
                    u8::try_from(seed >> 56).unwrap() & if seed & 1 == 0 { 0x0f } else { 0 }
                })
                .collect();
            // Whatever it is.
            let _ = LogLine::parse(&bytes);
        }
        for bytes in [&[][..], &[4], &[0, 0, 0, 0], &[255; 64]] {
            assert!(LogLine::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn json_has_no_characters_that_a_terminal_heeds() {
        let all: String = (char::MIN..='\u{3000}').collect();
        let line = LogLine {
            timestamp: 1,
            thread_id: 2,
            line: 3,
            file: "".into(),
            thread_name: "".into(),
            facility: "grüße”".into(),
            message: all.as_str().into(),
            keys: Vec::new(),
        };
        let mut out = b"\x7f".to_vec();
        line.write_json(&mut out);
        let text = String::from_utf8(out).unwrap();
        let json = text.strip_prefix('\x7f').unwrap();
        assert!(!json.contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)), "{json}");
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&read["message"], &read["facility"]), (&all.into(), &"grüße”".into()));
    }

    #[test]
    fn files_that_are_cut_are_reported_by_place() {
        let lines = |bytes: &[u8]| {
            let mut taken = Vec::new();
            let result = for_each(bytes, |line| {
                taken.push(line.to_vec());
                Ok(())
            });
            (taken, result.map_err(|e| e.to_string()))
        };
        let two = [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes()].concat();
        assert_eq!(lines(&two), (vec![b"ab".to_vec(), Vec::new()], Ok(())));
        let (taken, error) = lines(&two[..5]);
        assert_eq!(
            (taken.len(), error.unwrap_err()),
            (0, "at byte 0: a line is cut: 1 of 2 bytes are there".to_owned())
        );
        let (taken, error) = lines(&two[..8]);
        assert_eq!(
            (taken.len(), error.unwrap_err()),
            (1, "at byte 6: the length of a line is cut off".to_owned())
        );
        assert!(lines(b"plain text").1.unwrap_err().contains("length-prefixed FlatBuffers"));
    }
}
