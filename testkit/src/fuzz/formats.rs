//! Lines of any kind in every format, and reading them again.

use logdag::format::render;
use logdag::{Flags, Format, Json as Nested, Layout, Level, Location, Record, Value};
use serde_json::{Map, Value as Json};

use super::{Disk, Input};

use crate::logline::logdag::{LogLine, Value as Type, root_as_log_line};

/// Names of keys besides the generated ones; some are fields of lines.
const KEYS: [&str; 16] = [
    "a",
    "b",
    "",
    "timestamp",
    "facility",
    "threadid",
    "threadname",
    "file",
    "line",
    "message",
    "level",
    "event",
    "stream",
    "ä\n",
    "\"",
    "a",
];
/// The maximum length of a text.
const TEXT: usize = 64;

/// A line that the bytes describe.
pub fn formats(_: Disk, data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let flags = Flags::new()
        .timestamps(flags & 1 > 0)
        .facility(flags & 2 > 0)
        .debug(flags & 4 > 0)
        .level(flags & 8 > 0);
    let level = Level::ALL[input.below(Level::ALL.len())];
    let micros = match input.below(4) {
        0 => 1_700_000_000_000_042,
        1 => u64::from(input.byte()),
        2 => bits(&mut input) >> 12,
        _ => bits(&mut input),
    };
    let [message, facility, thread_name, file] = std::array::from_fn(|_| text(&mut input));
    let (thread_id, line) = (u32::from(input.byte()) << input.below(25), u32::from(input.byte()));
    let kinds: Vec<(String, Kind)> = (0..input.below(8)).map(|_| key(&mut input)).collect();
    let keys: Vec<(&str, Value<'_>)> = kinds.iter().map(|(key, kind)| (&**key, kind.value())).collect();
    let location = Location { file: &file, line };
    let mut record = Record::new(micros, &facility, &message);
    record.set_thread(thread_id, &thread_name);
    record.location = &location;
    (record.level, record.keys) = (level, &keys);
    for split in [false, true] {
        plain(&record, flags, split);
        objects(&record, flags, split);
    }
    flatbuffers(&record, flags);
}

fn bits(input: &mut Input<'_>) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|_| input.byte()))
}

fn text(input: &mut Input<'_>) -> String {
    let len = input.below(TEXT).min(input.0.len());
    let (text, rest) = input.0.split_at(len);
    input.0 = rest;
    String::from_utf8_lossy(text).into_owned()
}

/// A value, with its text if it is one.
enum Kind {
    Text(String),
    Other(Value<'static>),
}

impl Kind {
    fn value(&self) -> Value<'_> {
        match self {
            Kind::Text(text) => Value::Str(text),
            Kind::Other(value) => *value,
        }
    }
}

fn key(input: &mut Input<'_>) -> (String, Kind) {
    let key = match input.below(KEYS.len() + 2) {
        n if n < KEYS.len() => KEYS[n].to_owned(),
        _ => text(input),
    };
    let nested = ["[]", "{\"a\":[1,null]}"];
    let value = match input.below(11) {
        0 => Value::I64(i64::from_le_bytes(bits(input).to_le_bytes())),
        1 => Value::I64(i64::from(input.byte()) - 128),
        2 => Value::U64(bits(input)),
        3 => Value::F64(f64::from_bits(bits(input))),
        4 => Value::F64([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324][input.below(5)]),
        5 => Value::Uuid(std::array::from_fn(|_| input.byte())),
        6 => Value::Bool(input.byte() & 1 > 0),
        7 => Value::Null,
        8 => Value::Json(Nested::new(nested[input.below(2)]).expect("JSON")),
        _ => return (key, Kind::Text(text(input))),
    };
    (key, Kind::Other(value))
}

fn rendered(format: Format, record: &Record<'_>, flags: Flags, split: bool) -> String {
    String::from_utf8(bytes(format, record, flags, split)).expect("UTF-8")
}

fn bytes(format: Format, record: &Record<'_>, flags: Flags, split: bool) -> Vec<u8> {
    let before = b"before ";
    let mut out = before.to_vec();
    let layout = Layout { split, escape: false, spans: true };
    render(format, flags, layout, record, &mut out);
    assert!(out.starts_with(before), "what is there already stays");
    out.split_off(before.len())
}

/// One by one, and several in a row with their lengths.
fn flatbuffers(record: &Record<'_>, flags: Flags) {
    let alone = bytes(Format::FlatBuffer, record, flags, false);
    flatbuffer(&root_as_log_line(&alone).expect("a line"), record);

    let location = Location { file: record.thread_name(), line: !record.location.line };
    let mut other = Record::new(!record.micros(), record.location.file, &"\n");
    other.set_thread(!record.thread_id(), record.facility);
    other.location = &location;
    other.keys = &record.keys[record.keys.len() / 2..];
    let mut out = Vec::new();
    for record in [record, &other, record] {
        render(Format::FlatBuffer, flags, Layout::default(), record, &mut out);
    }
    let mut rest = &out[..];
    for record in [record, &other, record] {
        let (length, behind) = rest.split_first_chunk().expect("a length");
        let length = usize::try_from(u32::from_le_bytes(*length)).expect("a length");
        flatbuffer(&root_as_log_line(&behind[..length]).expect("a line"), record);
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
}

/// Every given key must be in the line, in the same order.
fn flatbuffer(line: &LogLine<'_>, record: &Record<'_>) {
    let numbers = (line.timestamp(), line.threadid(), line.line());
    assert_eq!(numbers, (record.micros(), record.thread_id(), record.location.line));
    let texts = [line.file(), line.threadname(), line.facility(), line.message()];
    assert_eq!(
        texts,
        [record.location.file, record.thread_name(), record.facility, record.message()].map(Some)
    );
    assert_eq!(line.kv().is_some(), !record.keys.is_empty());
    let pairs = line.kv().unwrap_or_default();
    assert_eq!(pairs.len(), record.keys.len());
    for (pair, (key, value)) in pairs.iter().zip(record.keys) {
        assert_eq!(pair.key(), Some(*key));
        let same = match *value {
            Value::I64(n) => pair.value_as_long_value().map(|read| read.value()) == Some(n),
            Value::U64(n) => pair.value_as_ulong_value().map(|read| read.value()) == Some(n),
            // Bit by bit: a zero keeps its sign, although it is the default.
            Value::F64(n) => {
                pair.value_as_double_value().map(|read| read.value().to_bits()) == Some(n.to_bits())
            }
            Value::Str(text) => pair.value_as_string_value().and_then(|read| read.value()) == Some(text),
            Value::Uuid(bytes) => {
                let read = pair.value_as_uuidvalue().and_then(|read| read.value());
                read.map(|read| read.bytes().to_vec()) == Some(bytes.to_vec())
            }
            // The table has no types for these.
            other => {
                let text = other.to_string();
                pair.value_as_string_value().and_then(|read| read.value()) == Some(&text)
            }
        };
        assert!(same, "{key:?}: {value:?}, read as {pair:?}");
        let kind = match value {
            Value::I64(_) => Type::LongValue,
            Value::U64(_) => Type::ULongValue,
            Value::F64(_) => Type::DoubleValue,
            Value::Uuid(_) => Type::UUIDValue,
            _ => Type::StringValue,
        };
        assert_eq!(pair.value_type(), kind);
    }
}

/// A name without line ends.
fn on_one_line(name: &str) -> String {
    let dangerous =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.chars().map(|c| if dangerous(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

fn plain(record: &Record<'_>, flags: Flags, split: bool) {
    let out = rendered(Format::Plain, record, flags, split);
    let mut prefix = String::new();
    if flags.timestamps {
        // The time zone is unknown; the fraction is the same everywhere.
        let len = "[2023-11-14 22:13:20.000042] ".len();
        prefix.push_str(&out[..len]);
        let shape: String = prefix.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "[0000-00-00 00:00:00.000000] ", "{out:?}");
        assert_eq!(prefix[21..27], format!("{:06}", record.micros() % 1_000_000), "{out:?}");
    }
    if flags.level {
        prefix.push_str(&format!("[{}] ", record.level.name()));
    }
    if flags.facility {
        prefix.push_str(&format!("[{}] ", on_one_line(record.facility)));
    }
    if flags.debug {
        let Location { file, line } = record.location;
        let (thread_name, file) = (on_one_line(record.thread_name()), on_one_line(file));
        let thread_id = record.thread_id();
        prefix.push_str(&format!("[t@{thread_id}/{thread_name},{file}:{line}] "));
    }
    let message = record.message();
    if !split {
        assert_eq!(out, prefix + message);
        return;
    }
    // A newline at the end is kept, or added if it is missing.
    let whole = message.strip_suffix('\n').unwrap_or(message);
    let lines = whole.split('\n').map(|line| format!("{prefix}{line}\n"));
    assert_eq!(out, lines.collect::<String>());

    let mut out = Vec::new();
    render(Format::Plain, flags, Layout::default(), record, &mut out);
    let out = String::from_utf8(out).expect("UTF-8");
    // Of control characters only line ends and tabs are left, and a tab marks each further line of
    // a message.
    assert!(out.ends_with('\n') && out.matches('\n').count() == whole.split('\n').count(), "{out:?}");
    assert!(on_one_line(&out.replace(['\n', '\t'], "")) == out.replace(['\n', '\t'], ""), "{out:?}");
    for (n, line) in out.lines().enumerate() {
        assert_eq!(line.starts_with('\t'), n > 0, "{out:?}");
    }
}

fn objects(record: &Record<'_>, flags: Flags, split: bool) {
    let seconds = record.micros() / 1_000_000;
    let micros = format!("{:06}", record.micros() % 1_000_000);
    let mut fields: Vec<(&str, Json)> = vec![
        ("timestamp", format!("{seconds}.{micros}").into()),
        ("facility", record.facility.into()),
        ("threadid", record.thread_id().into()),
        ("threadname", record.thread_name().into()),
        ("file", record.location.file.into()),
        ("line", record.location.line.into()),
        ("message", record.message().into()),
    ];
    fields.extend(flags.level.then(|| ("level", record.level.name().into())));
    object(&rendered(Format::Json, record, flags, split), &fields, record);

    let out = rendered(Format::Event, record, flags, split);
    // Calendars end with the year 9999: later lines have some time, in the right shape.
    let time = if seconds < 253_402_200_000 {
        utc(seconds, &micros)
    } else {
        let parsed: Json = serde_json::from_str(&out).expect("JSON");
        parsed["timestamp"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(time.len(), "2023-11-14T22:13:20.000042Z".len(), "{out:?}");
    let fields: [(&str, Json); 4] = [
        ("timestamp", time.into()),
        ("level", record.level.name().into()),
        ("event", record.message().into()),
        ("stream", record.facility.into()),
    ];
    object(&out, &fields, record);
}

/// A line must have these fields, and the keys after them.
fn object(out: &str, fields: &[(&str, Json)], record: &Record<'_>) {
    assert_eq!(out.find('\n'), Some(out.len() - 1), "one line: {out:?}");
    let mut wanted: Map<String, Json> = Map::new();
    for (key, value) in record.keys {
        let value = match value {
            Value::Str(text) => Json::from(*text),
            Value::I64(n) => Json::from(*n),
            Value::U64(n) => Json::from(*n),
            Value::F64(n) if n.is_finite() => Json::from(*n),
            Value::Bool(b) => Json::from(*b),
            Value::Null => Json::Null,
            Value::Json(nested) => serde_json::from_str(nested.as_str()).expect("JSON"),
            // JSON has only finite numbers.
            _ => Json::from(value.to_string()),
        };
        // The last of equal keys counts, in its place.
        wanted.shift_remove(*key);
        wanted.insert((*key).to_owned(), value);
    }
    let mut all: Map<String, Json> =
        fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    for (key, value) in wanted {
        let mut name = key.clone();
        if fields.iter().any(|(field, _)| *field == key) {
            // The field has the level already.
            if key == "level" && is_level(&value) {
                continue;
            }
            while name == key || record.keys.iter().any(|(other, _)| *other == name) {
                name.insert_str(0, "original_");
            }
        }
        all.insert(name, value);
    }
    let parsed: Map<String, Json> = serde_json::from_str(out).unwrap_or_else(|e| panic!("{out:?}: {e}"));
    assert!(parsed.keys().eq(all.keys()), "{out:?}, expected {all:?}");
    for ((key, read), wanted) in parsed.iter().zip(all.values()) {
        match (read.as_f64(), wanted.as_f64()) {
            // The fast parser may lose the last bits; the text as a whole is compared below.
            (Some(a), Some(b)) if wanted.is_f64() => {
                assert!(a.to_bits().abs_diff(b.to_bits()) <= 8, "{key}: {out:?}, expected {b:?}");
            }
            _ => assert_eq!(read, wanted, "{key}: {out:?}"),
        }
    }
    // The text has nothing that readers of JSON ignore, such as a key that occurs twice.
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            format!("\\u{:04x}", u32::from(c))
        }
        c => c.to_string(),
    };
    let expected: String = serde_json::to_string(&all).unwrap().chars().map(escaped).collect();
    assert_eq!(out.trim_end_matches('\n'), expected);
}

/// Whether a value names a level, or is the number of one.
fn is_level(value: &Json) -> bool {
    let number = match value {
        Json::String(text) if Level::from_name(text).is_some() => return true,
        Json::String(text) => text.trim().parse().ok(),
        Json::Number(number) => number.as_f64(),
        _ => None,
    };
    number.and_then(Level::from_number).is_some()
}

/// RFC 3339, counted day by day.
fn utc(seconds: u64, micros: &str) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
    };
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute, second, day) = (second / 3600, second / 60 % 60, second % 60, days + 1);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros}Z")
}
