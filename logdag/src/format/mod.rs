//! The formats of lines.

mod escape;
#[cfg(feature = "flatbuffers")]
mod flatbuffer;
mod json;
mod layout;
mod people;
mod plain;

use crate::record::Record;

/// The format of a sink's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Text with a prefix, according to the flags.
    #[default]
    Plain,
    /// One JSON object per line, with libmtev's field names.
    Json,
    /// One JSON object per line, in the style of structured events.
    Event,
    /// One FlatBuffer per line: the table LogLine of `schema/logline.fbs`. In sinks whose lines are
    /// not separated otherwise (files, outputs), each follows its length: 4 bytes, little endian,
    /// after which it is aligned by itself. `logdag decode` and the crate `logline` read it.
    #[cfg(feature = "flatbuffers")]
    FlatBuffer,
}

impl Format {
    /// All formats.
    pub const ALL: &[Format] = &[
        Format::Plain,
        Format::Json,
        Format::Event,
        #[cfg(feature = "flatbuffers")]
        Format::FlatBuffer,
    ];

    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::Json => "json",
            Format::Event => "event",
            #[cfg(feature = "flatbuffers")]
            Format::FlatBuffer => "flatbuffer",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name() == name)
    }
}

pub(crate) use json::event_body;
pub(crate) use layout::last_of_each;
pub use layout::{Flags, Layout};
pub(crate) use people::render_for_people;

/// Appends a line to `out`.
pub fn render(format: Format, flags: Flags, layout: Layout, record: &Record<'_>, out: &mut Vec<u8>) {
    match format {
        Format::Plain => plain::line(flags, layout, record, out),
        Format::Json | Format::Event => {
            let start = out.len();
            if format == Format::Json {
                json::line(flags, layout, record, out);
            } else {
                json::event(flags, layout, record, out);
            }
            escape::within_json(out, start);
            out.push(b'\n');
        }
        #[cfg(feature = "flatbuffers")]
        Format::FlatBuffer => flatbuffer::line(record, layout.split, out),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use serde_json::{Value as Parsed, json};

    use super::*;
    use crate::level::Level;
    use crate::record::{Details, Span};
    use crate::value::Json;
    use crate::value::Value;

    const LIBMTEV: Layout = Layout { split: true, escape: false, spans: true };
    const WHOLE: Layout = Layout { split: false, escape: true, spans: true };

    fn rendered(format: Format, flags: Flags, layout: Layout, message: &str) -> String {
        let keys = [
            ("status", Value::I64(-3)),
            ("path", Value::Str("/a \"b\"\n")),
            ("id", Value::Uuid(*b"0123456789abcdef")),
            ("took", Value::F64(0.5)),
            ("none", Value::F64(f64::NAN)),
            ("ok", Value::Bool(false)),
            ("nil", Value::Null),
            ("tags", Value::Json(Json::trusted("[1,\n{\"a\":1e400}]"))),
            ("status", Value::U64(u64::MAX)),
            ("message", Value::Str("mine")),
        ];
        let fields = [("request", Value::U64(7)), ("name", Value::Str("x"))];
        let spans = [Span { name: "outer", fields: &[] }, Span { name: "inner", fields: &fields }];
        let details = Details { target: "my_app::http", spans: &spans, ..Details::NONE };
        let mut record = Record::new(1_700_000_000_000_042, "http/access", &message);
        record.set_thread(12, "worker");
        record.location = &crate::Location { file: "a.rs", line: 7 };
        (record.keys, record.level) = (&keys, Level::Warn);
        record.details = &details;
        let mut out = b"before ".to_vec();
        render(format, flags, layout, &record, &mut out);
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    fn parsed(format: Format, flags: Flags, layout: Layout, message: &str) -> Parsed {
        let text = rendered(format, flags, layout, message);
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text}");
        // The parser in this test cannot represent the number.
        serde_json::from_str(&text.replace("1e400", "\"1e400\"")).unwrap()
    }

    #[test]
    fn plain_lines_have_the_prefix_that_flags_ask_for() {
        let none = Flags::default();
        assert_eq!(rendered(Format::Plain, none, WHOLE, "one\ntwo\x1b\n"), "one\ntwo\x1b\n");
        assert_eq!(rendered(Format::Plain, none, LIBMTEV, "one\ntwo\n"), "one\ntwo\n");
        assert_eq!(rendered(Format::Plain, none, LIBMTEV, ""), "\n");
        let some = Flags { facility: true, debug: true, ..none };
        let prefix = "[http/access] [t@12/worker,a.rs:7] ";
        let expected = format!("{prefix}one\n{prefix}\n{prefix}two\n");
        assert_eq!(rendered(Format::Plain, some, LIBMTEV, "one\n\ntwo"), expected);
        let text = rendered(Format::Plain, Flags { timestamps: true, ..none }, WHOLE, "x");
        let zoned = Timestamp::from_second(1_700_000_000).unwrap().to_zoned(TimeZone::system());
        assert_eq!(text, format!("[{}.000042] x", zoned.strftime("%Y-%m-%d %H:%M:%S")));
        let more = Flags { level: true, facility: true, target: true, ..none };
        let text = rendered(Format::Plain, more, LIBMTEV, "x");
        assert_eq!(text, "[warning] [http/access] [my_app::http] x\n");
    }

    #[test]
    fn plain_lines_have_keys_behind_their_messages() {
        let keys = Flags { keys: true, ..Flags::default() };
        let expected = " path=\"/a \\\"b\\\"\\n\" id=30313233-3435-3637-3839-616263646566 took=0.5 \
                        none=NaN ok=false nil=null tags=\"[1, {\\\"a\\\":1e400}]\" status=18446744073709551615 message=mine";
        assert_eq!(rendered(Format::Plain, keys, Layout::default(), "a"), format!("a{expected}\n"));
        assert_eq!(rendered(Format::Plain, keys, LIBMTEV, "a\n"), format!("a{expected}\n"));
        assert_eq!(rendered(Format::Plain, keys, Layout::default(), "a\nb\n"), format!("a\n\tb{expected}\n"));
        assert_eq!(rendered(Format::Plain, keys, WHOLE, "a"), format!("a{expected}"));
    }

    #[test]
    fn an_escaped_line_is_no_other_and_does_nothing_to_a_terminal() {
        let none = Flags::default();
        let facility = Flags { facility: true, ..none };
        for (flags, message, expected) in [
            (none, "fine", "fine\n"),
            (none, "", "\n"),
            (none, "é “quoted” \t tab", "é “quoted” \t tab\n"),
            (none, "one\n", "one\n"),
            (none, "one\r\ntwo", "one\n\ttwo\n"),
            (none, "\ttab first", "\\ttab first\n"),
            (none, "a\n\n\tb", "a\n\t\n\t\tb\n"),
            (facility, "\ttab first", "[http/access] \ttab first\n"),
            (facility, "a\n[error] forged", "[http/access] a\n\t[error] forged\n"),
            (facility, "\x1b]0;title\x07 \r\u{9b}31m", "[http/access] \\u{1b}]0;title\\u{7} \\r\\u{9b}31m\n"),
            (facility, "a\u{2028}b\u{202e}c", "[http/access] a\\u{2028}b\\u{202e}c\n"),
        ] {
            assert_eq!(rendered(Format::Plain, flags, Layout::default(), message), expected, "{message:?}");
        }
    }

    #[test]
    fn json_is_json() {
        let mut expected = json!({
            "timestamp": "1700000000.000042", "facility": "http/access", "threadid": 12, "threadname": "worker",
            "file": "a.rs", "line": 7, "message": "a\n\"b\"", "path": "/a \"b\"\n",
            "id": "30313233-3435-3637-3839-616263646566", "took": 0.5, "status": u64::MAX, "none": "NaN",
            "ok": false, "nil": null, "tags": [1, { "a": "1e400" }], "original_message": "mine",
        });
        let lean = Layout { spans: false, ..Layout::default() };
        assert_eq!(parsed(Format::Json, Flags::default(), lean, "a\n\"b\""), expected);
        expected["level"] = "warning".into();
        expected["target"] = "my_app::http".into();
        expected["spans"] =
            json!([{ "name": "outer" }, { "name": "inner", "request": 7, "original_name": "x" }]);
        let more = Flags { level: true, target: true, ..Flags::default() };
        assert_eq!(parsed(Format::Json, more, Layout::default(), "a\n\"b\""), expected);
    }

    /// The table for many keys and the comparison of few give the same result: the last key of a
    /// name counts, at its place.
    #[test]
    fn of_keys_with_one_name_the_last_one_counts_however_many_there_are() {
        for n in [3, 10, 32, 33, 1000] {
            let names: Vec<String> = (0..n).map(|key| format!("k{}", key % (n - 1))).collect();
            let keys: Vec<(&str, Value<'_>)> =
                names.iter().enumerate().map(|(place, name)| (&**name, Value::U64(place as u64))).collect();
            let mut record = Record::new(0, "s", &"m");
            record.keys = &keys;
            let mut out = Vec::new();
            render(Format::Event, Flags::default(), Layout::default(), &record, &mut out);
            let members: Vec<String> = (1..n).map(|key| format!("\"k{}\":{key}", key % (n - 1))).collect();
            let expected = format!("\"stream\":\"s\",{}}}\n", members.join(","));
            assert!(out.ends_with(expected.as_bytes()), "{n}: {}", String::from_utf8_lossy(&out));
            out.clear();
            render(Format::Plain, Flags { keys: true, ..Flags::default() }, WHOLE, &record, &mut out);
            let pairs: Vec<String> = (1..n).map(|key| format!("k{}={key}", key % (n - 1))).collect();
            assert_eq!(String::from_utf8_lossy(&out), format!("m {}", pairs.join(" ")));
        }
    }

    #[test]
    fn events_are_json_with_their_keys_on_top() {
        let more = Flags { source: true, target: true, ..Flags::default() };
        let event = parsed(Format::Event, more, Layout::default(), "http.request.done");
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20.000042Z", "level": "warning", "event": "http.request.done",
            "stream": "http/access", "file": "a.rs", "line": 7, "target": "my_app::http",
            "spans": [{ "name": "outer" }, { "name": "inner", "request": 7, "original_name": "x" }],
            "path": "/a \"b\"\n", "id": "30313233-3435-3637-3839-616263646566", "took": 0.5, "none": "NaN",
            "ok": false, "nil": null, "tags": [1, { "a": "1e400" }], "status": u64::MAX, "message": "mine",
        });
        assert_eq!(event, expected);
        let plain = parsed(Format::Event, Flags::default(), Layout { spans: false, ..LIBMTEV }, "x");
        for absent in ["file", "line", "target", "spans"] {
            assert_eq!(plain.get(absent), None);
        }
    }
}
