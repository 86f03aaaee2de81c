//! Lines of standard input, pipes, sockets and syslog, as text and as JSON.

use super::*;

#[test]
fn lines_of_standard_input_are_logged() {
    let setup = Setup::new(PLAIN);
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    let mut text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    input.write_all(text.as_bytes()).unwrap();
    input.write_all(b"windows\r\n\nthe last has no end").unwrap();
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    text.push_str("windows\n\nthe last has no end\n");
    assert!(setup.read("out.log") == text, "lines are not those that were given");
}

#[test]
fn messages_of_syslog_are_lines_with_levels_and_keys() {
    let logs = r#"<log name="out" type="file" path="DIR/out.log" format="event"/>
        <log name="net"><outlet name="out" filter="and(level >= 'error', sd.origin.ip = '192.0.2.1')"/></log>"#;
    let setup = Setup::new(logs);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = setup.path("dev-log");
    // A leftover socket does not matter.
    drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
    let (udp, unix) =
        (format!("net=syslog-udp:127.0.0.1:{port}"), format!("net=syslog-unix:{}", path.display()));
    let child = setup.run(&["--in", &udp, "--in", &unix, "--received"]);
    let message =
        |of: &str| format!(r#"<34>1 2003-10-11T22:14:15.003Z host su 7 - [origin ip="192.0.2.1"] by {of}"#);
    let begun = Instant::now();
    let by_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let by_unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
    while ["by udp", "by unix"].iter().any(|text| !setup.read("out.log").contains(text)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", setup.read("out.log"));
        let _ = by_udp.send_to(message("udp").replace("<34>", "<38>").as_bytes(), ("127.0.0.1", port));
        let _ = by_udp.send_to(message("udp").as_bytes(), ("127.0.0.1", port));
        let _ = by_unix.send_to(message("unix").as_bytes(), &path);
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(0));
    for line in setup.read("out.log").lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let gist =
            ["timestamp", "level", "appname", "hostname", "syslog_facility"].map(|key| event[key].clone());
        let expected = ["2003-10-11T22:14:15.003000Z", "error", "su", "host", "auth"];
        assert_eq!(serde_json::json!(gist), serde_json::json!(expected), "{line}");
        assert!(event["received"].as_str().is_some_and(|time| time > "2024"), "{line}");
    }
}

#[test]
fn what_no_line_can_have_is_not_asked_for() {
    let setup = Setup::new(PLAIN);
    let run = logdag(&["run", &setup.config, "--in", "out=stdin", "--received"]).output().unwrap();
    let exec =
        logdag(&["exec", &setup.config, "--stdout", "out", "--received", "--", "true"]).output().unwrap();
    for output in [run, exec] {
        assert_eq!(output.status.code(), Some(2), "{:?}", texts(&output));
        assert!(texts(&output).1.contains("--received has no effect"), "{:?}", texts(&output));
    }
}

const SYSLOG: &str = r#"<log name="out" type="file" path="DIR/out.log" format="event"/>
    <log name="net"><outlet name="out"/></log>"#;

/// A command that takes syslog over TCP, and its address.
fn syslog_over_tcp(setup: &Setup) -> (Child, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (setup.run(&["--in", &format!("net=syslog-tcp:{address}"), "--received"]), address)
}

fn connected(address: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(10), "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn messages_of_syslog_come_over_connections() {
    let setup = Setup::new(SYSLOG);
    let (child, address) = syslog_over_tcp(&setup);
    // A slow connection does not delay others.
    let mut slow = connected(address);
    slow.write_all(b"99 <11>slow").unwrap();
    let counted = "<34>1 2003-10-11T22:14:15.003Z host su 7 - - two\nlines";
    let mut other = connected(address);
    write!(other, "{} {counted}<11>by line\n{} {counted}", counted.len(), counted.len()).unwrap();
    other.write_all(b"<14>in ").unwrap();
    setup.wait_for("out.log", "by line");
    other.write_all(b"pieces\n7 <11>abc99 <11>gone").unwrap();
    drop(other);
    setup.wait_for("out.log", "gone");
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(0));
    drop(slow);
    let text = setup.read("out.log");
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found: Vec<(String, String)> = events
        // Messages with a time of their own also have their time of arrival.
        .inspect(|event| {
            assert_eq!(event.get("received").is_some(), event["event"] == "two\nlines", "{event}")
        })
        .map(|event| ["level", "event"].map(|key| event[key].as_str().unwrap().to_owned()).into())
        .collect();
    let expected = [
        ("error", "two\nlines"),
        ("error", "by line"),
        ("error", "two\nlines"),
        ("info", "in pieces"),
        ("error", "abc"),
        ("error", "gone [cut here: the connection ended]"),
        ("error", "slow [cut here: logdag was told to stop]"),
    ];
    assert_eq!(found, expected.map(|(level, text)| (level.to_owned(), text.to_owned())));
}

#[test]
fn connections_of_syslog_are_limited_and_end_with_the_command() {
    const MOST: usize = 512;
    let setup = Setup::new(SYSLOG);
    let (child, address) = syslog_over_tcp(&setup);
    let mut open: Vec<TcpStream> = (0..MOST).map(|_| connected(address)).collect();
    let mut refused = connected(address);
    refused.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
    // Open connections continue, and a closed one makes room for another.
    open[MOST - 1].write_all(b"<11>last\n").unwrap();
    setup.wait_for("out.log", "last");
    open.truncate(MOST / 2);
    let begun = Instant::now();
    while !setup.read("out.log").contains("again") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        // Refused until the server notices that others are gone.
        let _ = connected(address).write_all(b"<11>again\n");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0));
    let said = format!("logdag: {address}: {MOST} connections are open: further ones are refused\n");
    assert!(texts(&output).1.contains(&said), "{:?}", texts(&output));
}

#[test]
fn lines_of_pipes_and_sockets_are_logged_until_it_is_told_to_end() {
    let setup = Setup::new(PLAIN);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (fifo, unix) = (setup.path("fifo"), setup.path("socket"));
    let child = setup.run(&[
        "--in",
        &format!("out=fifo:{}", fifo.display()),
        "--in",
        &format!("out=unix:{}", unix.display()),
        "--in",
        &format!("out=udp:127.0.0.1:{port}"),
    ]);
    let begun = Instant::now();
    let mut connection = loop {
        match UnixStream::connect(&unix) {
            Ok(connection) => break connection,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(10), "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    for round in 0..2 {
        // The end of a writer is not the end of the input.
        fs::OpenOptions::new().write(true).open(&fifo).unwrap().write_all(b"of a fifo\n").unwrap();
        connection.write_all(format!("of a socket {round}\n").as_bytes()).unwrap();
        setup.wait_for("out.log", &format!("of a socket {round}\n"));
    }
    setup.wait_for("out.log", "of a fifo\n");
    // The socket exists by the time its lines do, or soon after.
    let begun = Instant::now();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    while !setup.read("out.log").contains("second of a datagram\n") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        let _ = sender.send_to(b"first of a datagram\nsecond of a datagram", ("127.0.0.1", port));
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    let text = setup.read("out.log");
    for line in ["of a fifo", "of a socket 0", "of a socket 1", "first of a datagram"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
}

const EVENTS: &str = r#"<log name="bad" type="file" path="DIR/bad.log"/>
    <log name="all" type="jlog" path="DIR/feed"/>
    <log name="events" type="file" path="DIR/events.log" format="json">
      <outlet name="bad" filter="and(status >= 500, path ~ '^/(?!health)')"/><outlet name="all"/></log>"#;

#[test]
fn lines_of_json_are_events_that_filters_see() {
    let setup = Setup::new(EVENTS);
    let lines = [
        r#"{"msg":"one","status":200,"path":"/a"}"#,
        r#"{"msg":"two","status":503,"path":"/b","took":0.25,"ok":false,"more":{"x":[1]}}"#,
        r#"{"msg":"three","status":500,"path":"/health"}"#,
        r#"{"status":502,"path":"/without"}"#,
        "no JSON",
        "[1,2]",
    ];
    let input = setup.path("input");
    fs::write(&input, lines.join("\n")).unwrap();
    let script = format!("cat {}", input.display());
    let output = setup.exec(&["--stdout", "events", "--json-field=msg"], &script);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(setup.read("bad.log"), format!("two\n{}\n", lines[3]));
    let text = setup.read("events.log");
    let parsed: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let messages: Vec<&str> = parsed.iter().map(|event| event["message"].as_str().unwrap()).collect();
    let expected = ["one", "two", "three", lines[3], "no JSON", "[1,2]"];
    assert_eq!(messages, expected);
    assert_eq!((&parsed[1]["status"], &parsed[1]["took"]), (&503.into(), &0.25.into()));
    assert_eq!(
        (&parsed[1]["more"], &parsed[1]["facility"]),
        (&serde_json::json!({ "x": [1] }), &"events".into())
    );
    let feed: Vec<String> = read_feed(&setup.path("feed"));
    assert_eq!(feed, expected);
}

#[test]
fn the_level_of_an_event_is_known_in_any_spelling() {
    let setup = Setup::new(r#"<log name="out" type="file" path="DIR/out.log" format="event"/>"#);
    let levels = [
        (r#""error""#, "error"),
        (r#""CRITICAL""#, "error"),
        ("60", "error"),
        (r#""Warning""#, "warning"),
        ("40", "warning"),
        (r#""notice""#, "info"),
        ("30", "info"),
        (r#""TRACE""#, "trace"),
        ("10", "trace"),
        ("20", "debug"),
        ("50.0", "error"),
        ("3", "error"),
        ("4", "warning"),
        ("6", "info"),
        ("7", "debug"),
        ("-1", "info"),
        (r#""whatever""#, "info"),
        ("[1]", "info"),
    ];
    let lines: Vec<String> =
        levels.iter().map(|(given, _)| format!("{{\"msg\":\"x\",\"level\":{given}}}")).collect();
    let input = setup.path("input");
    fs::write(&input, lines.join("\n")).unwrap();
    setup.exec(&["--stdout", "out", "--json-field=msg"], &format!("cat {}", input.display()));
    let events = setup.read("out.log");
    for (event, (given, level)) in events.lines().zip(levels) {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["level"], level, "{given}: {event}");
    }
    assert_eq!(events.lines().count(), levels.len());
}

#[test]
fn without_the_option_lines_of_json_are_lines() {
    let setup = Setup::new(EVENTS);
    setup.exec(&["--stdout", "events"], r#"echo '{"status":503,"path":"/b"}'"#);
    assert_eq!(setup.read("bad.log"), "");
    let event: serde_json::Value = serde_json::from_str(&setup.read("events.log")).unwrap();
    assert_eq!(event["message"], r#"{"status":503,"path":"/b"}"#);
}

#[test]
fn a_line_up_to_the_limit_is_one_and_a_longer_one_loses_nothing() {
    let setup = Setup::new(PLAIN);
    setup.exec(&["--stdout", "out", "--max-line", "8"], "echo 12345678; echo 1234567890; echo x");
    assert_eq!(setup.read("out.log"), "12345678\n12345678\n90\nx\n");
}

#[test]
fn a_line_that_has_come_in_part_is_logged_as_cut() {
    let setup = Setup::new(PLAIN);
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    write!(input, "whole\nbalance is 12").unwrap();
    setup.wait_for("out.log", "whole\n");
    signal(&child, Signal::SIGTERM);
    assert!(ended(child).status.success());
    assert_eq!(setup.read("out.log"), "whole\nbalance is 12 [cut here: logdag was told to stop]\n");
    drop(input);
    // If the input itself ends, its last line is whole without a line end.
    let mut child = setup.run(&["--in", "out=stdin"]);
    write!(child.stdin.take().unwrap(), "the last one").unwrap();
    assert!(ended(child).status.success());
    assert!(setup.read("out.log").ends_with("\nthe last one\n"));
}
