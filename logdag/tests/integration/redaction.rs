//! Redacted values are written nowhere.

use logdag::config::Config;
use logdag::input::JsonLines;
use logdag::{Details, Format, Graph, Json, Level, Location, Redaction, Span, Value, log};

use super::ring;

const CARD: &str = "4111111111111111";

/// Logs secrets in every place where they can occur.
fn log_secrets(graph: &Graph, stream: &str) {
    let stream = graph.stream(stream).unwrap();
    let nested = r#"{"a":[{"PassWord":{"x":"hunter2"}},"card 4111111111111111",4111111111111111],"of 4111111111111111":1,"fine":1.50}"#;
    let fields = [("password", Value::Str("hunter2")), ("id", Value::U64(7))];
    let spans = [Span { name: "login", fields: &fields }];
    let details = Details { spans: &spans, ..Details::NONE };
    let keys = [
        ("password", Value::Str("hunter2")),
        ("Authorization", Value::U64(12345)),
        ("nested", Value::Json(Json::new(nested).unwrap())),
        ("card", Value::U64(4_111_111_111_111_111)),
        ("mail", Value::Str("fine@example.org")),
        ("status", Value::I64(200)),
        ("of 4111111111111111", Value::Bool(true)),
    ];
    stream.log_with(&details, Level::Info, &Location::UNKNOWN, &keys, &format_args!("card {CARD} of {CARD}"));
    log!(stream, r#"{{"user":{{"mail":"hunter2@example.org","mails":1}},"password":"hunter2"}}"#);
    log!(stream, "nothing to hide");
}

fn redaction() -> Redaction {
    Redaction::new().keys("password, authorization,user.mail").pattern(r"\b4\d{15}\b").unwrap()
}

fn assert_hidden(graph: &Graph, format: Format) {
    let lines = ring(graph, "ring");
    let all = lines.concat();
    for secret in ["hunter2", "12345", CARD] {
        assert!(!all.contains(secret), "{format:?}: {secret}: {all}");
    }
    assert_eq!(lines.len(), 3);
    assert!(all.contains("nothing to hide"), "{all}");
    if format == Format::Event {
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let expected = serde_json::json!({
            "event": "card [redacted] of [redacted]", "password": "[redacted]", "Authorization": "[redacted]",
            "nested": { "a": [{ "PassWord": "[redacted]" }, "card [redacted]", "[redacted]"], "of [redacted]": 1, "fine": 1.5 },
            "of [redacted]": true,
            "card": "[redacted]", "mail": "fine@example.org", "status": 200,
            "spans": [{ "name": "login", "password": "[redacted]", "id": 7 }],
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&first[key], value, "{key}");
        }
        assert!(lines[0].contains("\"fine\":1.50"), "as it was written: {}", lines[0]);
        let second: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        let message = r#"{"user":{"mail":"[redacted]","mails":1},"password":"[redacted]"}"#;
        assert_eq!(second["event"], message);
    }
}

#[test]
fn secrets_are_in_no_format() {
    for format in [Format::Plain, Format::Json, Format::Event] {
        let graph = Graph::new();
        graph.add_memory("ring", 10, 10_000).unwrap();
        graph.set_format("ring", format).unwrap();
        graph.set_flags("ring", logdag::Flags::new().keys(true)).unwrap();
        graph.set_redaction(redaction());
        log_secrets(&graph, "ring");
        assert_hidden(&graph, format);
    }
}

#[test]
fn a_configuration_redacts_by_stream_or_everywhere() {
    let attributes = r#"redact="password,authorization,user.mail" redact_pattern="\b4\d{15}\b""#;
    let logs = r#"<log name="ring" type="memory" format="event"/>
        <log name="other" type="memory" format="event"/>"#;
    let everywhere = format!("<a><logs {attributes}>{logs}</logs></a>");
    let by_sink = format!(
        "<a><logs>{}</logs></a>",
        logs.replace(r#"name="ring""#, &format!(r#"name="ring" {attributes}"#))
    );
    let by_source =
        format!("<a><logs>{logs}<log name=\"web\" {attributes}><outlet name=\"ring\"/></log></logs></a>");
    let toml = "redact = 'password,authorization,user.mail'\nredact_pattern = '\\b4\\d{15}\\b'\n\
                [[log]]\nname = 'ring'\ntype = 'memory'\nformat = 'event'\n";
    for (file, text, all) in [
        ("c.xml", &*everywhere, true),
        ("c.xml", &by_sink, false),
        ("c.xml", &by_source, false),
        ("c.toml", toml, true),
    ] {
        let graph = Graph::new();
        Config::from_text(file, text).unwrap().apply(&graph).unwrap();
        // No configuration declares this stream.
        graph.add_memory("undeclared", 10, 10_000).unwrap();
        graph.set_format("undeclared", Format::Event).unwrap();
        if !text.contains("web") {
            graph.add_outlet("web", "ring", None).unwrap();
        }
        graph.add_outlet("web", "undeclared", Some("password = 'hunter2'")).unwrap();
        log_secrets(&graph, "web");
        assert_hidden(&graph, Format::Event);
        let hidden = !ring(&graph, "undeclared").concat().contains("hunter2");
        assert_eq!((ring(&graph, "undeclared").len(), hidden), (1, all || text == by_source), "{text}");
        let described = |name: &str| graph.describe(name).unwrap().to_json();
        assert_eq!(described("undeclared").contains("user.mail"), all, "{text}");
    }
    let wrong = everywhere.replace("\\b4", "(4");
    let error = Config::from_text("c.xml", &wrong).unwrap_err().to_string();
    assert!(error.contains("redact_pattern") && error.contains("regular expression"), "{error}");
}

#[test]
fn a_raw_line_of_json_is_redacted_whatever_key_its_message_has() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_redaction(redaction());
    JsonLines::new().message_key("absent").log(&stream, r#"{"a":{"password":"hunter2"},"msg":"m"}"#);
    assert_eq!(ring(&graph, "ring"), [r#"{"a":{"password":"[redacted]"},"msg":"m"}"#]);
}

#[test]
fn names_are_found_in_every_kind_of_json() {
    let redaction = Redaction::new().keys("user.mail,password,msg.pin").pattern(r#""code":\d+"#).unwrap();
    for (message, expected) in [
        (r#"{"user":{"mail":"x"}}"#, r#"{"user":{"mail":"[redacted]"}}"#),
        (r#"{"user.mail":"x"}"#, r#"{"user.mail":"[redacted]"}"#),
        (r#"{"a":{"user.mail":"x"}}"#, r#"{"a":{"user.mail":"[redacted]"}}"#),
        (r#"{"user":[{"mail":"x"}]}"#, r#"{"user":[{"mail":"[redacted]"}]}"#),
        (
            r#"[{"user":{"mail":"x"}},{"password":1}]"#,
            r#"[{"user":{"mail":"[redacted]"}},{"password":"[redacted]"}]"#,
        ),
        (r#" [1,[{"password":{}}]]"#, r#"[1,[{"password":"[redacted]"}]]"#),
        // JSON in a text.
        (r#"{"b":"{\"user\":{\"mail\":\"x\"}}"}"#, r#"{"b":"{\"user\":{\"mail\":\"[redacted]\"}}"}"#),
        // An event's message, and an event that is the message.
        (r#"{"pin":1,"password":2}"#, r#"{"pin":"[redacted]","password":"[redacted]"}"#),
        (r#"{"msg":{"pin":1}}"#, r#"{"msg":{"pin":"[redacted]"}}"#),
        // A pattern also applies to the text of JSON.
        (r#"{"code":17,"password":1}"#, r#"{[redacted],"password":"[redacted]"}"#),
        // Other members of these names stay.
        (r#"{"user":{"x":{"mail":1}},"mail":2}"#, r#"{"user":{"x":{"mail":1}},"mail":2}"#),
        // Text around the JSON.
        (r#"{"password":1} and more"#, r#"{"password":"[redacted]"} and more"#),
    ] {
        let graph = Graph::new();
        let stream = graph.add_memory("ring", 10, 10_000).unwrap();
        graph.set_redaction(redaction.clone());
        log!(stream, "{message}");
        assert_eq!(ring(&graph, "ring"), [expected]);
    }
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_redaction(redaction);
    graph.set_format("ring", Format::Event).unwrap();
    JsonLines::new().log(
        &stream,
        r#"{"msg":{"pin":1,"user":{"mail":2}},"user":{"mail":3},"user.mail":4,"body":"[{\"password\":5}]"}"#,
    );
    let event: serde_json::Value = serde_json::from_str(&ring(&graph, "ring")[0]).unwrap();
    assert_eq!(event["event"], r#"{"pin":"[redacted]","user":{"mail":"[redacted]"}}"#);
    assert_eq!(event["user"], serde_json::json!({ "mail": "[redacted]" }));
    assert_eq!(
        (&event["user.mail"], &event["body"]),
        (&"[redacted]".into(), &r#"[{"password":"[redacted]"}]"#.into())
    );
}

#[test]
fn speculation_and_deep_values_are_no_way_round() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_format("ring", Format::Event).unwrap();
    graph.set_redaction(redaction());
    let kept = graph.speculate(10, 10_000);
    log!(kept.stream(), password = "hunter2"; "card {CARD}");
    kept.commit(&stream);
    let deep = format!("{}{{\"password\":\"hunter2\"}}{}", "[".repeat(100), "]".repeat(100));
    log!(stream, deep = Json::new(&deep).unwrap(); "m");
    let all = ring(&graph, "ring").concat();
    assert!(!all.contains("hunter2") && !all.contains(CARD) && all.contains("[redacted]"), "{all}");
}

#[test]
fn a_line_that_was_cut_off_has_no_secrets_and_redacted_names_stay_different() {
    let graph = Graph::new();
    let stream = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_format("ring", Format::Event).unwrap();
    graph.set_redaction(redaction());
    JsonLines::new().log(&stream, r#"{"id":1,"password":"hunter2","user":{"mail":"hunter2@exam"#);
    let names = r#"{"4111111111111111":1,"4222222222222222":2,"[redacted] 2":3}"#;
    let keys = [
        ("nested", Value::Json(Json::new(names).unwrap())),
        ("4111111111111111", Value::I64(4)),
        ("4222222222222222", Value::I64(5)),
    ];
    stream.log(Level::Info, &Location::UNKNOWN, &keys, &"m");
    let events: Vec<serde_json::Value> =
        ring(&graph, "ring").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], r#"{"id":1,"password":"[redacted]","user":{"mail":"[redacted]""#);
    let nested = serde_json::json!({ "[redacted]": 1, "[redacted] 3": 2, "[redacted] 2": 3 });
    assert_eq!(events[1]["nested"], nested);
    assert_eq!((&events[1]["[redacted]"], &events[1]["[redacted] 2"]), (&4.into(), &5.into()));
}
