//! Lines of any kind in every format, and what can be read from them again.

use logdag::format::render;
use logdag::{Flags, Format, Level, Record, Value};
use serde_json::{Map, Value as Json};

use super::{Disk, Input};

/// Names that keys have, next to those made up: fields of lines are among them.
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
/// A text is no longer than this.
const TEXT: usize = 64;

/// A line that the bytes describe.
pub fn formats(_: Disk, data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let flags = Flags { timestamps: flags & 1 > 0, facility: flags & 2 > 0, debug: flags & 4 > 0 };
    let level = [Level::Debug, Level::Info, Level::Warn, Level::Error][input.below(4)];
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
    let arguments = format_args!("{message}");
    let mut record = Record::new(micros, &facility, &arguments);
    (record.thread_id, record.thread_name, record.file, record.line) = (thread_id, &thread_name, &file, line);
    (record.level, record.keys) = (level, &keys);
    for split in [false, true] {
        plain(&record, flags, split);
        objects(&record, flags, split);
    }
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

/// A value that has its text.
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
    let value = match input.below(8) {
        0 => Value::I64(i64::from_le_bytes(bits(input).to_le_bytes())),
        1 => Value::I64(i64::from(input.byte()) - 128),
        2 => Value::U64(bits(input)),
        3 => Value::F64(f64::from_bits(bits(input))),
        4 => Value::F64([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324][input.below(5)]),
        5 => Value::Uuid(std::array::from_fn(|_| input.byte())),
        _ => return (key, Kind::Text(text(input))),
    };
    (key, Kind::Other(value))
}

fn rendered(format: Format, record: &Record<'_>, flags: Flags, split: bool) -> String {
    let before = b"before ";
    let mut out = before.to_vec();
    render(format, flags, record, split, &mut out);
    assert!(out.starts_with(before), "what is there already stays");
    String::from_utf8(out.split_off(before.len())).expect("UTF-8")
}

/// A name that breaks no line.
fn on_one_line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

fn plain(record: &Record<'_>, flags: Flags, split: bool) {
    let out = rendered(Format::Plain, record, flags, split);
    let mut prefix = String::new();
    if flags.timestamps {
        // Where the clocks are, nobody knows; the fraction is the same everywhere.
        let len = "[2023-11-14 22:13:20.000042] ".len();
        prefix.push_str(&out[..len]);
        let shape: String = prefix.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "[0000-00-00 00:00:00.000000] ", "{out:?}");
        assert_eq!(prefix[21..27], format!("{:06}", record.micros() % 1_000_000), "{out:?}");
    }
    if flags.facility {
        prefix.push_str(&format!("[{}] ", on_one_line(record.facility)));
    }
    if flags.debug {
        let Record { thread_id, thread_name, file, line, .. } = record;
        let (thread_name, file) = (on_one_line(thread_name), on_one_line(file));
        prefix.push_str(&format!("[t@{thread_id}/{thread_name},{file}:{line}] "));
    }
    let message = record.message();
    if !split {
        assert_eq!(out, prefix + message);
        return;
    }
    // One newline at the end is there already, or is added.
    let whole = message.strip_suffix('\n').unwrap_or(message);
    let lines = whole.split('\n').map(|line| format!("{prefix}{line}\n"));
    assert_eq!(out, lines.collect::<String>());
}

fn objects(record: &Record<'_>, flags: Flags, split: bool) {
    let seconds = record.micros() / 1_000_000;
    let micros = format!("{:06}", record.micros() % 1_000_000);
    let fields: [(&str, Json); 7] = [
        ("timestamp", format!("{seconds}.{micros}").into()),
        ("facility", record.facility.into()),
        ("threadid", record.thread_id.into()),
        ("threadname", record.thread_name.into()),
        ("file", record.file.into()),
        ("line", record.line.into()),
        ("message", record.message().into()),
    ];
    object(&rendered(Format::Json, record, flags, split), &fields, record);

    let out = rendered(Format::Event, record, flags, split);
    let level = match record.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warning",
        Level::Error => "error",
    };
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
        ("level", level.into()),
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
            // There is no number in JSON that is not finite.
            Value::F64(n) => Json::from(*n),
            Value::Uuid(_) => Json::from(value.to_string()),
        };
        // The last one counts, and stands where it stood.
        wanted.shift_remove(*key);
        wanted.insert((*key).to_owned(), value);
    }
    let mut all: Map<String, Json> =
        fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    all.extend(wanted.into_iter().filter(|(key, _)| fields.iter().all(|(field, _)| field != key)));
    let parsed: Map<String, Json> = serde_json::from_str(out).unwrap_or_else(|e| panic!("{out:?}: {e}"));
    assert!(parsed.keys().eq(all.keys()), "{out:?}, expected {all:?}");
    for ((key, read), wanted) in parsed.iter().zip(all.values()) {
        match (read.as_f64(), wanted.as_f64()) {
            // The last bits may be lost in reading, which is quick; the text as a whole is compared below.
            (Some(a), Some(b)) if wanted.is_f64() => {
                assert!(a.to_bits().abs_diff(b.to_bits()) <= 8, "{key}: {out:?}, expected {b:?}");
            }
            _ => assert_eq!(read, wanted, "{key}: {out:?}"),
        }
    }
    // The text has nothing that readers of JSON pass over: no key is there twice.
    assert_eq!(out.trim_end_matches('\n'), serde_json::to_string(&all).unwrap());
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
