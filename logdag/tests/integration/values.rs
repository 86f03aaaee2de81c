//! Values of JSON: they pass through unchanged, and filters reach into them.

use logdag::input::JsonLines;
use logdag::{
    Filter, Format, Graph, Json, Level, Location, Record, SinkSpec, Stream, StreamOptions, Value, log,
};
use serde_json::json;

use super::ring;

fn rings(format: Format) -> (Graph, Stream) {
    let graph = Graph::new();
    let sink = SinkSpec::new("memory", "");
    let stream = graph.configure("ring", StreamOptions::new().sink(sink).format(format));
    (graph, stream.unwrap())
}

const EVERYTHING: &str = r#"{"message":"m","t":true,"n":null,"a":[1, {"b":[]}],"o":{"x":{"y":1e400}},"big":123456789012345678901234567890,"huge":1e400,"long":0.1234567890123456789,"f":1.5,"i":-3,"s":"\u00e9\n"}"#;

#[test]
fn what_comes_in_as_json_goes_out_as_it_was() {
    for (format, own) in [(Format::Json, 7), (Format::Event, 4)] {
        let (graph, stream) = rings(format);
        JsonLines::new().log(&stream, EVERYTHING);
        let line = ring(&graph, "ring").remove(0);
        for part in [
            r#""t":true"#,
            r#""n":null"#,
            r#""a":[1, {"b":[]}]"#,
            r#""o":{"x":{"y":1e400}}"#,
            r#""big":123456789012345678901234567890"#,
            r#""huge":1e400"#,
            r#""long":0.1234567890123456789"#,
            r#""f":1.5"#,
            r#""i":-3"#,
            "\"s\":\"é\\n\"",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        // The other members are the line's own, and the message occurs once.
        let parsed: serde_json::Value = serde_json::from_str(&line.replace("1e400", "0")).unwrap();
        assert_eq!(parsed.as_object().unwrap().len(), 10 + own, "{line}");
        let message = if format == Format::Event { "event" } else { "message" };
        assert_eq!(parsed[message], "m");
    }
}

#[test]
fn filters_reach_into_values() {
    let line = r#"{"message":"m","user":{"name":"x","tags":["a","b\n"],"a.b":{"c":2}},"a.b":1,"deep":{"a":{"a":1},"a.a":2},"n":1e400,"ok":true,"gone":null}"#;
    for (filter, expected) in [
        ("user.name = 'x'", true),
        ("user.name != 'x'", false),
        ("user.tags.1 = 'b\\n'", true),
        ("user.tags.2 = 'c'", false),
        ("exists(user.tags)", true),
        ("exists(user.tags.7)", false),
        ("user.a.b.c = 2", true),
        ("a.b = 1", true),
        ("deep.a.a = 2", true),
        ("user ~ '\"name\":\"x\"'", true),
        ("user.none != 1", true),
        ("user.none = 1", false),
        ("user > 3", false),
        ("n > 1000", true),
        ("n = '1e400'", true),
        ("ok = 'true'", true),
        ("ok = 1", false),
        ("gone = 'null'", true),
        ("exists(gone)", true),
        ("message = 'm'", true),
    ] {
        let graph = Graph::new();
        graph.add_memory("ring", 10, 1000).unwrap();
        graph.add_outlet("web", "ring", Some(filter)).unwrap();
        JsonLines::new().log(&graph.stream("web").unwrap(), line);
        assert_eq!(ring(&graph, "ring").len() == 1, expected, "{filter}");
    }
}

#[test]
fn a_number_that_cannot_be_held_costs_an_event_nothing_else() {
    let (graph, stream) = rings(Format::Event);
    JsonLines::new().log(&stream, r#"{"message":"m","level":"error","n":1e400}"#);
    let line = ring(&graph, "ring").remove(0);
    assert!(line.contains(r#""level":"error","event":"m""#) && line.contains(r#""n":1e400"#), "{line}");
}

#[test]
fn an_event_has_its_own_time_and_level() {
    let (graph, stream) = rings(Format::Event);
    let input = JsonLines::new().keep_received();
    for line in [
        r#"{"message":"m","timestamp":"2023-11-14T22:13:20.5Z","level":"fatal"}"#,
        r#"{"msg":"m","time":1700000000500,"level":40}"#,
        r#"{"event":"m","ts":1700000000.5,"severity":"7"}"#,
    ] {
        input.log(&stream, line);
    }
    let parsed: Vec<serde_json::Value> =
        ring(&graph, "ring").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (event, level) in parsed.iter().zip(["error", "warning", "debug"]) {
        assert_eq!(
            (&event["timestamp"], &event["event"]),
            (&"2023-11-14T22:13:20.500000Z".into(), &"m".into())
        );
        assert_eq!(event["level"], level);
        let received = event["received"].as_str().unwrap();
        assert!(received > "2024" && received.ends_with('Z'), "{received}");
    }
    let lines = graph.memory_last("ring", 10).unwrap();
    assert!(lines.iter().all(|line| line.micros == 1_700_000_000_500_000));
    // If the value is not a time, the line gets the time of receipt, and the value is not lost.
    input.log(&stream, r#"{"message":"m","timestamp":"noon"}"#);
    let event: serde_json::Value = serde_json::from_str(&ring(&graph, "ring")[3]).unwrap();
    assert_eq!((&event["original_timestamp"], event.get("received")), (&"noon".into(), None));
    assert!(event["timestamp"].as_str().unwrap() > "2024");
}

#[test]
fn keys_with_the_names_of_fields_are_not_lost() {
    for (format, input, expected) in [
        (
            Format::Event,
            r#"{"message":"m","level":"weird","event":"e","stream":7,"original_stream":8,"file":"f","half":"\ud800x"}"#,
            r#""level":"info","event":"m","stream":"ring","original_level":"weird","original_event":"e","original_original_stream":7,"original_stream":8,"file":"f","half":"\ud800x"}"#,
        ),
        (
            Format::Event,
            r#"{"message":"m","level":"fatal"}"#,
            r#""level":"error","event":"m","stream":"ring"}"#,
        ),
        (
            Format::Json,
            r#"{"msg":"m","line":[12],"level":"weird"}"#,
            r#""message":"m","original_line":[12],"level":"weird"}"#,
        ),
    ] {
        let (graph, stream) = rings(format);
        JsonLines::new().log(&stream, input);
        let line = ring(&graph, "ring").remove(0);
        assert!(line.trim_end().ends_with(expected), "{line}");
    }
}

#[test]
fn what_is_no_object_is_a_line_as_it_is() {
    let (graph, stream) = rings(Format::Plain);
    let lines = ["[1,2]", "{\"a\":1} x", "{\"a\":}", "", "text", "{\"no message\":1}", "{\"message\":5}"];
    lines.iter().for_each(|line| JsonLines::new().log(&stream, line));
    assert_eq!(ring(&graph, "ring"), [&lines[..6], &["5"]].concat());
}

#[test]
fn values_of_programs_keep_their_types() {
    let (graph, stream) = rings(Format::Json);
    let nested = Json::new(r#"{"a":[true]}"#).unwrap();
    log!(stream, ok = true, none = None::<u32>, some = Some("x"), nested = nested; "m");
    let keys = [("nan", Value::F64(f64::NAN)), ("inf", Value::F64(f64::NEG_INFINITY))];
    stream.log(Level::Info, &Location::UNKNOWN, &keys, &"m");
    let lines = ring(&graph, "ring");
    let parsed = |n: usize| serde_json::from_str::<serde_json::Value>(&lines[n]).unwrap();
    let expected = json!({ "ok": true, "none": null, "some": "x", "nested": { "a": [true] } });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&parsed(0)[key], value);
    }
    assert_eq!((&parsed(1)["nan"], &parsed(1)["inf"]), (&"NaN".into(), &"-inf".into()));
}

#[test]
#[cfg(feature = "tracing")]
fn values_of_tracing_keep_their_types() {
    use tracing_subscriber::layer::SubscriberExt;
    let (graph, _) = rings(Format::Event);
    let subscriber =
        tracing_subscriber::registry().with(logdag::tracing_layer::GraphLayer::new(graph.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let outer = tracing::info_span!("outer", id = 1, ok = false);
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner", id = 2, wide = u128::MAX);
        let _inner = inner.enter();
        tracing::trace!(target: "ring", ok = true, n = i128::from(u64::MAX), "m");
    });
    let line = ring(&graph, "ring").remove(0);
    for part in [
        r#""level":"trace","event":"m""#,
        r#""spans":[{"name":"outer","id":1,"ok":false},{"name":"inner","id":2,"wide":340282366920938463463374607431768211455}]"#,
        r#","id":2,"ok":true,"#,
        r#""wide":340282366920938463463374607431768211455"#,
        r#""n":18446744073709551615"#,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn a_number_that_is_none_is_not_equal_to_any() {
    let keys = [("x", Value::F64(f64::NAN))];
    let arguments = format_args!("m");
    let mut record = Record::new(1, "a", &arguments);
    record.keys = &keys;
    assert!(!Filter::parse("x = 1").unwrap().passes(&record));
    assert!(Filter::parse("x != 1").unwrap().passes(&record), "as doubles compare everywhere");
}
