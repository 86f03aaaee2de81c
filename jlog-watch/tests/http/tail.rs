//! Messages and lines as they arrive.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use jlog_watch::{Limits, Server, Watch};
use serde_json::Value;

#[cfg(feature = "graph")]
use crate::support::ask_with;
use crate::support::{Place, append, ask, connect, serve, socket_address, until};

/// A client of server-sent events.
struct Events(BufReader<TcpStream>);

#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    fn open(server: &Server, path: &str, last_id: Option<&str>) -> Self {
        let last_id = last_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        Self::open_with(server, path, &last_id)
    }

    /// Opens it with further header lines, each with its line end.
    fn open_with(server: &Server, path: &str, headers: &str) -> Self {
        let mut stream = connect(server);
        let host = socket_address(server);
        // HTTP/1.0 avoids chunks, which can end anywhere.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n{headers}\r\n").unwrap();
        let mut events = Self(BufReader::new(stream));
        assert_eq!(events.line(), "HTTP/1.0 200 OK");
        let mut kind = String::new();
        loop {
            let line = events.line();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-type: ") {
                value.clone_into(&mut kind);
            }
        }
        assert_eq!(kind, "text/event-stream");
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "it has ended");
        line.trim_end().to_owned()
    }

    /// The next event.
    fn next(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let line = self.line();
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event.name);
            } else if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut event.id);
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = serde_json::from_str(data).unwrap();
                return event;
            }
        }
    }
}

#[test]
fn a_feed_is_followed_and_gone_on_with() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 3);
    let server = serve(Watch::new().feeds(place.path()));
    let mut events = Events::open(&server, "/api/v1/feeds/a/tail?last=1", None);
    let first = events.next();
    assert_eq!((first.data["body"].as_str(), &*first.name), (Some("message 0002"), ""));
    append(&log, 20);
    for n in 0..20 {
        let event = events.next();
        assert_eq!(event.data["body"], format!("message {n:04}"));
        assert_eq!(event.data["id"], *event.id);
    }
    drop(events);
    // The client also gets messages that arrived while it was away.
    append(&log, 1);
    let mut events = Events::open(&server, "/api/v1/feeds/a/tail", Some(&first.id));
    for n in (0..20).chain([0]) {
        assert_eq!(events.next().data["body"], format!("message {n:04}"));
    }
    let mut found = Events::open(&server, "/api/v1/feeds/a/tail?last=100&contains=0013", None);
    assert_eq!(found.next().data["body"], "message 0013");
    // This adds no subscriber.
    assert_eq!(log.subscribers().unwrap().len(), 1);

    // The feed was recreated: the id means nothing there.
    let mut late = Events::open(&server, "/api/v1/feeds/a/tail", Some("00001000:00000001"));
    assert_eq!(late.next().name, "restarted");
    assert_eq!(late.next().data["body"], "message 0000");

    std::fs::remove_dir_all(place.join("a")).unwrap();
    let ended = events.next();
    assert_eq!(ended.name, "ended");
    assert!(ended.data["error"].as_str().unwrap().contains("/a"), "{ended:?}");
}

#[test]
fn who_is_far_behind_goes_on_near_the_end_and_is_reported() {
    let place = Place::new();
    let log = jlog_core::Jlog::create(place.join("a")).unwrap();
    let writer = log.writer().unwrap();
    let bodies: Vec<String> = (0..30_000).map(|n| format!("message {n:05}")).collect();
    writer.append_batch(&bodies).unwrap();
    writer.close().unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let mut events = Events::open(&server, "/api/v1/feeds/a/tail", Some("00000000:00000001"));
    let reported = events.next();
    assert_eq!((&*reported.name, reported.data["messages"].as_u64()), ("left_out", Some(24_999)));
    for n in 25_000..30_000 {
        assert_eq!(events.next().data["body"], format!("message {n:05}"));
    }
}

#[test]
fn what_a_subscriber_has_lost_is_reported() {
    let place = Place::new();
    let log = jlog_core::Jlog::options().segment_size(120).create(place.join("a")).unwrap();
    log.subscribe("s", jlog_core::Start::Beginning).unwrap();
    append(&log, 12);
    let in_segment = |segment: u32| log.inspect(segment, |_| ()).unwrap().records;
    let (before, lost) = (in_segment(0), in_segment(1));
    std::fs::remove_file(place.join("a").join("00000001")).unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let mut events = Events::open(&server, "/api/v1/feeds/a/tail", Some("00000000:00000001"));
    let expected: Vec<String> =
        (1..before).chain(before + lost..12).map(|n| format!("message {n:04}")).collect();
    let (reports, messages): (Vec<Event>, Vec<Event>) =
        (0..=expected.len()).map(|_| events.next()).partition(|event| event.name == "damage");
    let bodies: Vec<&str> = messages.iter().filter_map(|event| event.data["body"].as_str()).collect();
    assert_eq!(bodies, expected);
    let reported: Vec<Option<u64>> =
        reports.iter().map(|event| event.data["lost_messages"].as_u64()).collect();
    assert_eq!(reported, [Some(lost.into())]);
}

#[test]
fn open_tails_have_a_limit_and_keep_nobody_from_asking() {
    let place = Place::new();
    place.feed("a");
    let limits = Limits::default().tails(3).connections(4);
    let server = serve(Watch::new().feeds(place.path()).limits(limits));
    let mut tails: Vec<Events> =
        (0..3).map(|_| Events::open(&server, "/api/v1/feeds/a/tail", None)).collect();
    let refused = ask(&server, "/api/v1/feeds/a/tail");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("too many tails"));
    assert_eq!(ask(&server, "/metrics").status, 200);
    // A client that leaves makes room.
    tails.pop();
    until("room for a tail", || {
        let mut stream = connect(&server);
        let host = socket_address(&server);
        write!(stream, "GET /api/v1/feeds/a/tail HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line == "HTTP/1.1 200 OK\r\n"
    });
    server.stop();
}

#[cfg(feature = "graph")]
#[test]
fn a_ring_is_followed_and_what_went_before_it_was_seen_is_reported() {
    use logdag::{Graph, log};

    let graph = Graph::new();
    let ring = graph.add_memory("http/ring", 50, 100_000).unwrap();
    log!(ring, "before");
    let server = serve(Watch::new().graph("", graph.clone()));
    let path = "/api/v1/streams/http%2Fring/tail";
    let mut events = Events::open(&server, &format!("{path}?last=1"), None);
    let first = events.next();
    assert_eq!((first.data["line"].as_str(), &*first.id), (Some("before"), "1"));
    log!(ring, "after \"{}\"", 1);
    assert_eq!(events.next().data["line"], "after \"1\"");
    // Lines arrive faster than the server looks: most are gone by then.
    for n in 0..1000 {
        log!(ring, "line {}", n);
    }
    let mut seen = 2;
    loop {
        let event = events.next();
        match &*event.name {
            "left_out" => seen += event.data["lines"].as_u64().unwrap(),
            _ => seen += 1,
        }
        if event.data["line"] == "line 999" {
            break;
        }
        assert!(seen <= 1002);
    }
    assert_eq!(seen, 1002);
    // A client from before a restart gets everything.
    let mut events = Events::open(&server, path, Some("5000"));
    assert_eq!(events.next().data["line"], "line 950");
    graph.remove("http/ring");
    let mut name = String::new();
    while name != "ended" {
        name = events.next().name;
    }
}

#[test]
fn a_message_that_is_too_long_for_a_tail_is_reported() {
    let place = Place::new();
    let log = jlog_core::Jlog::create(place.join("a")).unwrap();
    let writer = log.writer().unwrap();
    writer.append(vec![b'x'; (1 << 20) + 1]).unwrap();
    writer.append("short").unwrap();
    writer.close().unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let mut events = Events::open(&server, "/api/v1/feeds/a/tail?last=2", None);
    let long = events.next().data;
    assert_eq!((long["too_large"].as_bool(), long["size"].as_u64()), (Some(true), Some((1 << 20) + 1)));
    assert!(long["body"].is_null());
    assert_eq!(events.next().data["body"], "short");
}

#[cfg(feature = "graph")]
#[test]
fn any_stream_is_listened_to_where_something_may_be_changed() {
    use logdag::{Graph, log};

    const TOKEN: &str = "0123456789abcdef0123";
    let graph = Graph::new();
    let ring = graph.add_memory("ring", 50, 100_000).unwrap();
    graph.add_outlet("web", "ring", None).unwrap();
    let web = graph.find("web").unwrap();
    let token = || jlog_watch::Token::new(TOKEN).unwrap();
    let watch = Watch::new().graph("", graph.clone()).token(token());
    let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
    let read_only = serve(watch.clone());
    for path in ["/api/v1/streams/web/tail", "/api/v1/streams/ring/tail?filter=n%20%3D%201"] {
        let refused = ask_with(&read_only, path, &authorized);
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    let server = serve(watch.control());
    let wrong = ask_with(&server, "/api/v1/streams/web/tail?filter=n%20%3D", &authorized);
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"].as_str().unwrap().contains("column"), "{}", wrong.body);
    assert_eq!(ask_with(&server, "/api/v1/streams/none/tail", &authorized).status, 404);
    let rings = || graph.describe_all().iter().filter(|stream| stream.name.starts_with("live-tail-")).count();
    assert_eq!(rings(), 0);

    log!(web, "before");
    let mut all = Events::open_with(&server, "/api/v1/streams/web/tail", &authorized);
    let mut some = Events::open_with(&server, "/api/v1/streams/web/tail?filter=n%20%3D%202", &authorized);
    until("two listeners", || graph.describe("web").unwrap().outlets.len() == 3);
    for n in 1..=2 {
        log!(web, n = n; "line");
    }
    for _ in 1..=2 {
        let event = all.next();
        assert_eq!((event.data["line"].as_str(), &*event.id), (Some("line"), ""));
    }
    assert_eq!(some.next().data["index"], 1);
    // The ring has what it would have had anyway.
    assert_eq!(graph.memory_newest("ring"), Some(3));
    drop((all, some));
    until("no listener", || rings() == 0);
    assert_eq!(graph.describe("web").unwrap().outlets.len(), 1);
    drop(ring);
}
