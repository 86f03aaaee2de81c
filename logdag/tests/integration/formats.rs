//! Lines as other programs read them: readers generated from the schema, JSON parsers, and the
//! jlog's consumers.

use flatbuffers::{Verifiable, Verifier, VerifierOptions};
use logdag::{Format, Graph, HexDump, Level, Location, SinkSpec, StreamOptions, Value, log};

use super::typed;

use testkit::logline::logdag::{LogLine, Value as Kind, root_as_log_line};

/// A line's keys, as text.
fn keys(line: &LogLine<'_>) -> Vec<(String, String)> {
    let keys = line.kv().unwrap_or_default();
    keys.iter()
        .map(|pair| {
            let value = match pair.value_type() {
                Kind::LongValue => format!("i64 {}", pair.value_as_long_value().unwrap().value()),
                Kind::ULongValue => format!("u64 {}", pair.value_as_ulong_value().unwrap().value()),
                Kind::DoubleValue => format!("f64 {}", pair.value_as_double_value().unwrap().value()),
                Kind::StringValue => {
                    format!("str {}", pair.value_as_string_value().unwrap().value().unwrap())
                }
                Kind::UUIDValue => {
                    let bytes = pair.value_as_uuidvalue().unwrap().value().unwrap().bytes().to_vec();
                    format!("uuid {}", String::from_utf8(bytes).unwrap())
                }
                other => panic!("no value: {other:?}"),
            };
            (pair.key().unwrap().to_owned(), value)
        })
        .collect()
}

fn ring_of(format: Format) -> (Graph, logdag::Stream) {
    let graph = Graph::new();
    let sink = SinkSpec::new("memory", "");
    let options = StreamOptions::new().sink(sink).format(format);
    let stream = graph.configure("ring/of", options).unwrap();
    (graph, stream)
}

#[test]
fn flatbuffers_are_read_by_what_is_generated_from_the_schema() {
    let (graph, stream) = ring_of(Format::FlatBuffer);
    let fields = [
        ("min", Value::I64(i64::MIN)),
        ("none", Value::I64(0)),
        ("max", Value::U64(u64::MAX)),
        ("half", Value::F64(0.5)),
        ("sign", Value::F64(-0.0)),
        ("sign of JSON", Value::Json(logdag::Json::new("-0").unwrap())),
        ("text", Value::Str("ä\n")),
        ("empty", Value::Str("")),
        ("id", Value::Uuid(*b"0123456789abcdef")),
    ];
    stream.log_at(
        1_700_000_000_000_042,
        Level::Warn,
        &Location { file: "src/a.rs", line: 7 },
        &fields,
        &format_args!("one\n{}", 2),
    );
    stream.log_at(1, Level::Info, &Location::UNKNOWN, &[], &format_args!(""));
    let lines = graph.memory_last("ring/of", 9).unwrap();
    let first = root_as_log_line(&lines[0].bytes).unwrap();
    assert_eq!(first.timestamp(), 1_700_000_000_000_042);
    assert_eq!((first.file(), first.line()), (Some("src/a.rs"), 7));
    assert_eq!((first.facility(), first.message()), (Some("ring/of"), Some("one\n2")));
    let this = std::thread::current();
    assert_eq!(first.threadname(), Some(this.name().unwrap()));
    assert_eq!(first.threadid(), nix::unistd::gettid().as_raw() as u32);
    let expected = [
        ("min", "i64 -9223372036854775808"),
        ("none", "i64 0"),
        ("max", "u64 18446744073709551615"),
        ("half", "f64 0.5"),
        ("sign", "f64 -0"),
        ("sign of JSON", "f64 -0"),
        ("text", "str ä\n"),
        ("empty", "str "),
        ("id", "uuid 0123456789abcdef"),
    ];
    assert_eq!(keys(&first), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let second = root_as_log_line(&lines[1].bytes).unwrap();
    assert_eq!((second.timestamp(), second.message(), second.kv().is_none()), (1, Some(""), true));
}

#[test]
fn flatbuffers_in_a_file_come_behind_their_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    let options = typed("file", &dir.path().join("l"), Default::default()).format(Format::FlatBuffer);
    let stream = graph.configure("l", options).unwrap();
    for n in 0..100 {
        log!(stream, n = n; "line\n{}", "x".repeat(n));
    }
    let bytes = std::fs::read(dir.path().join("l")).unwrap();
    let mut rest = &bytes[..];
    for n in 0..100usize {
        let (length, behind) = rest.split_first_chunk::<4>().unwrap();
        let length = u32::from_le_bytes(*length) as usize;
        let line = root_as_log_line(&behind[..length]).unwrap();
        assert_eq!(line.message().unwrap(), format!("line\n{}", "x".repeat(n)));
        assert_eq!(keys(&line), [("n".to_owned(), format!("u64 {n}"))]);
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
}

#[test]
fn what_reads_flatbuffers_again_finds_what_json_would_have_said() {
    let (graph, stream) = ring_of(Format::FlatBuffer);
    let (json_graph, json_stream) = ring_of(Format::Json);
    let nested = logdag::Json::new("[1,{}]").unwrap();
    let keys = [
        ("min", Value::I64(i64::MIN)),
        ("max", Value::U64(u64::MAX)),
        ("half", Value::F64(0.5)),
        ("sign", Value::F64(-0.0)),
        ("nan", Value::F64(f64::NAN)),
        ("text", Value::Str("ä\n\"")),
        ("id", Value::Uuid(*b"0123456789abcdef")),
        ("message", Value::Str("not mine")),
        ("half", Value::F64(0.25)),
    ];
    let location = Location { file: "src/a.rs", line: 7 };
    for stream in [&stream, &json_stream] {
        stream.log_at(1_700_000_000_000_042, Level::Warn, &location, &keys, &"one\ntwo");
        stream.log_at(0, Level::Warn, &Location::UNKNOWN, &[], &"");
    }
    // The table has no types for these, so they become texts.
    log!(stream, ok = true, nested = nested; "");
    let lines = graph.memory_last("ring/of", 9).unwrap();
    for (line, json) in lines.iter().zip(json_graph.memory_last("ring/of", 9).unwrap()) {
        let mut out = Vec::new();
        logline::LogLine::parse(&line.bytes).unwrap().write_json(&mut out);
        out.push(b'\n');
        assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(json.bytes).unwrap());
    }
    let text = |text: &'static str| logline::Value::Str(text.into());
    let typeless = logline::LogLine::parse(&lines[2].bytes).unwrap();
    assert_eq!(typeless.keys, [("ok".into(), text("true")), ("nested".into(), text("[1,{}]"))]);
    // Whatever is cut or changed, the result is an error or another line, and nothing worse.
    let bytes = &lines[0].bytes;
    for at in 0..bytes.len() {
        let _ = logline::LogLine::parse(&bytes[..at]);
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let _ = logline::LogLine::parse(&changed);
        }
    }
}

#[test]
fn a_cut_flatbuffer_is_refused_by_the_verifier() {
    // The tests above mean something only because the verifier can refuse.
    let (graph, stream) = ring_of(Format::FlatBuffer);
    log!(stream, key = "value"; "message");
    let bytes = &graph.memory_last("ring/of", 1).unwrap()[0].bytes;
    assert!(root_as_log_line(&bytes[..bytes.len() - 8]).is_err());
    let options = VerifierOptions::default();
    let mut verifier = Verifier::new(&options, bytes);
    assert!(LogLine::run_verifier(&mut verifier, 0).is_err());
}

#[test]
fn a_format_can_be_changed_while_lines_flow() {
    let (graph, stream) = ring_of(Format::Plain);
    log!(stream, "one");
    graph.set_format("ring/of", Format::Json).unwrap();
    log!(stream, "two");
    let lines = graph.memory_last("ring/of", 2).unwrap();
    assert_eq!(lines[0].bytes, b"one");
    let parsed: serde_json::Value = serde_json::from_slice(&lines[1].bytes).unwrap();
    assert_eq!(parsed["message"], "two");
    assert_eq!(graph.names_of_format(Format::Json), ["ring/of"]);
    assert_eq!(graph.names_of_format(Format::Plain), ["stderr"]);
}

#[test]
fn a_hex_dump_has_a_prefix_on_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    let path = dir.path().join("l");
    let options = typed("file", &path, Default::default()).escape(false);
    let stream = graph.configure("l", options).unwrap();
    graph.set_flags("l", logdag::Flags::new().facility(true)).unwrap();
    log!(stream, "packet\n{}", HexDump(&[0x41; 20]));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        "[l] packet\n\
         [l] 00000000  41 41 41 41 41 41 41 41  41 41 41 41 41 41 41 41  |AAAAAAAAAAAAAAAA|\n\
         [l] 00000010  41 41 41 41                                       |AAAA|\n"
    );
}
