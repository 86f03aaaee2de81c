//! `/api/v1`, and the description of it.

use std::collections::{BTreeMap, BTreeSet};

use jlog_core::{Jlog, Start, Timestamp};
use jlog_watch::{Limits, Watch};
use serde_json::{Value, json};

use crate::support::{Place, append, ask, consume, serve};

/// Checks a value against a schema of OpenAPI 3.1, as far as our schemas need it.
pub(crate) fn check(schema: &Value, value: &Value, all: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = all.pointer(name.strip_prefix('#').unwrap()).unwrap();
        return check(schema, value, all, at);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().map(|kind| kind.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap_or_else(|| panic!("{at}: a schema without a type: {schema}"))],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_u64() && types.contains(&"integer") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&is), "{at}: {value} is no {types:?}");
    if let Some(known) = schema["enum"].as_array() {
        assert!(known.contains(value), "{at}: {value} is none of {known:?}");
    }
    if schema["format"] == "date-time"
        && let Some(text) = value.as_str()
    {
        text.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("{at}: {text}: {e}"));
    }
    for item in value.as_array().into_iter().flatten() {
        check(&schema["items"], item, all, &format!("{at}[]"));
    }
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(name.as_str().unwrap()), "{at}: {name} is missing in {value}");
    }
    for (key, value) in object {
        let at = format!("{at}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(schema), _) => check(schema, value, all, &at),
            (None, Value::Bool(false)) => panic!("{at} is not described"),
            (None, schema) if schema.is_object() => check(schema, value, all, &at),
            (None, _) => {}
        }
    }
}

fn encoded(path: &std::path::Path) -> String {
    path.to_str().unwrap().replace('/', "%2F")
}

#[test]
fn every_answer_is_as_the_description_says() {
    let place = Place::new();
    append(&place.feed("busy"), 100);
    let limits = jlog_core::Limits { max_bytes: Some(1 << 20), ..Default::default() };
    let full = Jlog::options().pre_commit(4096).limits(limits).create(place.join("full")).unwrap();
    full.subscribe("odd\u{7}", Start::Beginning).unwrap();
    full.writer().unwrap().append(b"\xff\x00").unwrap();
    place.feed("bad");
    std::fs::write(place.join("bad/cp.73"), "short").unwrap();
    place.feed("gone");
    std::fs::write(place.join("gone/metastore"), "short").unwrap();
    let watch = Watch::new().feeds(place.path());
    #[cfg(feature = "graph")]
    let watch = watch.graph("", crate::streams::graph_with_everything(&place));
    let server = serve(watch);
    let description = ask(&server, "/api/v1/openapi.json").json();
    let mut asked = BTreeSet::new();
    let mut check_path = |pattern: &str, path: &str, expected: u16| {
        let answer = ask(&server, &format!("/api/v1{path}"));
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        let responses = &description["paths"][pattern]["get"]["responses"];
        let schema = &responses[expected.to_string()]["content"]["application/json"]["schema"];
        check(schema, &answer.json(), &description, path);
        asked.insert(pattern.to_owned());
    };
    check_path("/openapi.json", "/openapi.json", 200);
    check_path("/feeds", "/feeds", 200);
    for feed in ["busy", "full", "bad"] {
        check_path("/feeds/{feed}", &format!("/feeds/{feed}"), 200);
        check_path("/feeds/{feed}/subscribers", &format!("/feeds/{feed}/subscribers"), 200);
        check_path("/feeds/{feed}/segments", &format!("/feeds/{feed}/segments?limit=3"), 200);
        check_path("/feeds/{feed}/messages", &format!("/feeds/{feed}/messages"), 200);
    }
    check_path("/feeds/{feed}", &format!("/feeds/{}", encoded(&place.join("busy"))), 200);
    check_path("/feeds/{feed}", "/feeds/gone", 200);
    check_path("/feeds/{feed}", "/feeds/none", 404);
    check_path("/feeds/{feed}/subscribers", "/feeds/gone/subscribers", 503);
    check_path("/feeds/{feed}/segments", "/feeds/busy/segments?limit=x", 400);
    check_path("/feeds/{feed}/messages", "/feeds/gone/messages", 503);
    check_path("/feeds/{feed}/messages", "/feeds/busy/messages?after=ffffffff:00000001", 404);
    for wrong in ["after=x", "since=soon", "last=x", "limit=10001", "regex=(", "after=0:1&last=1"] {
        check_path("/feeds/{feed}/messages", &format!("/feeds/busy/messages?{wrong}"), 400);
    }
    check_path("/feeds/{feed}/tail", "/feeds/none/tail", 404);
    check_path("/feeds/{feed}/verify", "/feeds/busy/verify", 200);
    check_path("/feeds/{feed}/verify", "/feeds/none/verify", 404);
    #[cfg(feature = "graph")]
    {
        check_path("/config", "/config", 200);
        check_path("/config", "/config?graph=none", 404);
        check_path("/streams", "/streams", 200);
        check_path("/streams/{stream}", "/streams/error%2Fstacktrace", 200);
        check_path("/streams/{stream}", "/streams/none", 404);
        check_path("/streams/{stream}/tail", "/streams/none/tail", 404);
        check_path("/streams/{stream}/tail", "/streams/web/tail", 403);
        let paths = description["paths"].as_object().unwrap().iter();
        let described: BTreeSet<String> =
            paths.filter(|(_, path)| path["get"].is_object()).map(|(path, _)| path.clone()).collect();
        assert_eq!(asked, described, "what is described is what was asked for");
    }
}

fn bodies(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap()).collect()
}

#[test]
fn messages_are_found_by_place_time_and_content() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 30);
    let writer = log.writer().unwrap();
    let late = Timestamp { seconds: 4_000_000_000, micros: 0 };
    writer.append_batch_with_times(&[(late, "a late one")]).unwrap();
    writer.close().unwrap();
    let before = std::fs::read_dir(place.join("a")).unwrap().count();
    append(&place.feed("long"), 150);
    let server = serve(Watch::new().feeds(place.path()));
    let find = |query: &str| ask(&server, &format!("/api/v1/feeds/a/messages?{query}")).json();
    let last = find("last=2");
    assert_eq!(bodies(&last), ["message 0029", "a late one"]);
    assert_eq!((last["complete"].as_bool(), last["looked_at"].as_u64()), (Some(true), Some(2)));
    assert_eq!(find("after=00000000:00000000&limit=2")["next"], "00000000:00000002");
    // The pieces together are everything.
    let (mut all, mut after) = (Vec::new(), "00000000:00000000".to_owned());
    loop {
        let piece = find(&format!("after={after}&limit=7"));
        all.extend(bodies(&piece).into_iter().map(str::to_owned));
        piece["next"].as_str().unwrap().clone_into(&mut after);
        if piece["complete"] == true {
            break;
        }
    }
    let expected: Vec<String> = (0..30).map(|n| format!("message {n:04}")).collect();
    assert_eq!(all[..30], expected);
    assert_eq!(bodies(&find("since=2090-01-01T00:00:00Z")), ["a late one"]);
    assert_eq!(bodies(&find("last=100&contains=e+0012")), ["message 0012"]);
    assert_eq!(
        bodies(&find("last=100&regex=%5Emessage+00.7%24")),
        ["message 0007", "message 0017", "message 0027"]
    );
    assert_eq!(bodies(&find("last=100&regex=7%24&contains=02")), ["message 0027"]);
    // Nothing in the feed has changed.
    assert_eq!(std::fs::read_dir(place.join("a")).unwrap().count(), before);

    // A search goes through everything; without one, the last messages are returned.
    let find = |query: &str| ask(&server, &format!("/api/v1/feeds/long/messages{query}")).json();
    for query in ["?contains=0007", "?regex=0007%24"] {
        let found = find(query);
        assert_eq!(bodies(&found), ["message 0007"], "{query}");
        assert_eq!((found["complete"].as_bool(), found["looked_at"].as_u64()), (Some(true), Some(150)));
    }
    assert_eq!(bodies(&find(""))[0], "message 0050");
}

#[test]
fn an_answer_holds_what_fits_and_a_message_that_does_not_is_in_nobodys_way() {
    let place = Place::new();
    let log = place.feed("a");
    let writer = log.writer().unwrap();
    let long = "x".repeat(5000);
    writer.append_batch(&["one", &long, "two"]).unwrap();
    writer.close().unwrap();
    let server = serve(Watch::new().feeds(place.path()).limits(Limits::default().response_bytes(2000)));
    let (mut found, mut after) = (Vec::new(), "00000000:00000000".to_owned());
    for _ in 0..10 {
        let answer = ask(&server, &format!("/api/v1/feeds/a/messages?after={after}"));
        assert!(answer.body.len() <= 2000);
        let answer = answer.json();
        found.extend(answer["messages"].as_array().unwrap().clone());
        answer["next"].as_str().unwrap().clone_into(&mut after);
        if answer["complete"] == true {
            break;
        }
    }
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!((&found[0]["body"], &found[2]["body"]), (&json!("one"), &json!("two")));
    assert_eq!((found[1]["too_large"].as_bool(), found[1]["size"].as_u64()), (Some(true), Some(5000)));
}

#[test]
fn damage_is_stepped_over_and_counted() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 3);
    let path = place.join("a/00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    // In the body of the second message.
    bytes[28 + 20] ^= 0x20;
    std::fs::write(&path, bytes).unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let answer = ask(&server, "/api/v1/feeds/a/messages").json();
    assert_eq!(bodies(&answer), ["message 0000", "message 0002"]);
    assert_eq!(answer["damaged_bytes"], 28);
    let kept = std::fs::read_dir(place.join("a")).unwrap().flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("broken"));
    assert_eq!(kept.count(), 0);
}

#[test]
fn subscribers_and_segments_are_exact() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 20);
    consume(&log, 10);
    let server = serve(Watch::new().feeds(place.path()));
    let subscribers = ask(&server, "/api/v1/feeds/a/subscribers").json();
    let s = &subscribers["subscribers"][0];
    assert_eq!((&s["subscriber"], &s["lag_messages"], &s["sound"]), (&json!("s"), &json!(10), &json!(true)));
    assert_eq!(s["checkpoint"], log.checkpoint("s").unwrap().to_string());
    let segments = ask(&server, "/api/v1/feeds/a/segments").json();
    let found: BTreeMap<String, (u64, u64, bool)> = segments["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| {
            let name = segment["segment"].as_str().unwrap().to_owned();
            let number = |key: &str| segment[key].as_u64().unwrap();
            (name, (number("messages"), number("needed_by"), segment["being_written"].as_bool().unwrap()))
        })
        .collect();
    let expected = [("00000001".to_owned(), (8, 1, false)), ("00000002".to_owned(), (4, 1, true))];
    assert_eq!(found, BTreeMap::from(expected));
}
