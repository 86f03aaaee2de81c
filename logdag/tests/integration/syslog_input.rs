//! Incoming syslog messages.

use logdag::input::{SyslogMessages, log_syslog};
use logdag::{Format, Graph};

/// The event that a message becomes, without its stream.
fn event(message: &str) -> serde_json::Value {
    let graph = Graph::new();
    let ring = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_format("ring", Format::Event).unwrap();
    log_syslog(&ring, message.as_bytes());
    let line = super::ring(&graph, "ring").remove(0);
    let mut event: serde_json::Value = serde_json::from_str(&line).unwrap();
    event.as_object_mut().unwrap().remove("stream");
    event
}

#[test]
fn rfc_5424_becomes_level_time_message_and_keys() {
    let message = concat!(
        r#"<165>1 2003-10-11T22:14:15.003+02:00 mymachine.example.com evntslog 17 ID47 "#,
        r#"[exampleSDID@32473 iut="3" eventSource="a \"b\" \\ \]"][empty] "#,
        "\u{feff}An application event\n"
    );
    let expected = serde_json::json!({
        "timestamp": "2003-10-11T20:14:15.003000Z", "level": "info", "event": "An application event",
        "syslog_facility": "local4", "severity": 5, "hostname": "mymachine.example.com", "appname": "evntslog",
        "procid": "17", "msgid": "ID47",
        "sd": { "exampleSDID@32473": { "iut": "3", "eventSource": "a \"b\" \\ ]" }, "empty": {} },
    });
    assert_eq!(event(message), expected);
    let bare = event("<11>1 - - - - - -");
    assert_eq!((&bare["level"], &bare["event"], bare.get("sd")), (&"error".into(), &"".into(), None));
    assert!(bare["timestamp"].as_str().unwrap() > "2024");
}

#[test]
fn rfc_3164_becomes_the_same_as_far_as_it_goes() {
    let full = event("<34>Oct 11 22:14:15 mymachine su[42]: 'su root' failed: for lonvick");
    let gist = ["level", "event", "syslog_facility", "severity", "hostname", "appname", "procid"];
    let expected =
        ["error", "'su root' failed: for lonvick", "auth", "2", "mymachine", "su", "42"].map(String::from);
    assert_eq!(
        gist.map(|key| full[key].as_str().map_or_else(|| full[key].to_string(), str::to_owned)),
        expected
    );
    assert!(full["timestamp"].as_str().unwrap().contains("-1"), "{full}");
    let local = event("<13>Oct 11 22:14:15 su: hello");
    assert_eq!(
        (&local["appname"], &local["event"], local.get("hostname")),
        (&"su".into(), &"hello".into(), None)
    );
    let no_time = event("<12>su: hello");
    assert_eq!(
        (&no_time["level"], &no_time["appname"], &no_time["event"]),
        (&"warning".into(), &"su".into(), &"hello".into())
    );
}

#[test]
fn the_time_of_receipt_is_kept_beside_the_one_that_a_message_has() {
    let graph = Graph::new();
    let ring = graph.add_memory("ring", 10, 10_000).unwrap();
    graph.set_format("ring", Format::Event).unwrap();
    for message in ["<34>1 2003-10-11T22:14:15.003Z h a - - - x", "<34>Oct 11 22:14:15 h a: x", "<34>a: x"] {
        SyslogMessages::new().keep_received().log(&ring, message.as_bytes());
    }
    let events = super::ring(&graph, "ring").into_iter().map(|line| serde_json::from_str(&line).unwrap());
    let events: Vec<serde_json::Value> = events.collect();
    for (event, has_time) in events.iter().zip([true, true, false]) {
        let received = event.get("received").map(|time| time.as_str().unwrap());
        assert_eq!(received.is_some(), has_time, "{event}");
        assert!(
            received.is_none_or(|time| time > "2024" && time.ends_with('Z') && event["timestamp"] != time)
        );
    }
}

#[test]
fn whatever_else_comes_is_a_line_as_it_is() {
    for text in [
        "",
        "hello there",
        "<",
        "<>x",
        "<999>x",
        "<1",
        "<13>",
        "<13>1 2003 x",
        "<13>1 - - - - - [a b=\"c",
        "<13>1 - - - - - [a b=\"c\\",
        "<13>1 - - - - - [",
        "<13>1 notime h a p m - x",
        "<13>Oct 99 99:99:99 h t: x",
    ] {
        let event = event(text);
        let message = event["event"].as_str().unwrap();
        assert!(text.ends_with(message), "{text:?}: {event}");
    }
}
