//! `jlog ship` to another feed and to a command.

use std::process::Stdio;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::Signal;

use crate::support::{Lines, Place, Running, close, contents, jlog, run, until};

#[test]
fn a_feed_is_shipped_once_and_its_numbers_balance() {
    let place = Place::with(&[], &["one", "two", "three"]);
    let to = place.path("copy");
    let destination = format!("jlog:{}", to.display());
    let dry = run(place.jlog("ship", ["s", &destination, "--dry-run"]), "");
    let shown = String::from_utf8(dry.stdout).unwrap();
    assert_eq!((dry.code, &*dry.stderr), (Some(0), "jlog: 3 messages would be sent\n"));
    assert!(
        shown.lines().nth(1).unwrap().contains(":00000000:00000002:") && shown.contains(" two\n"),
        "{shown}"
    );
    assert_eq!((to.exists(), place.unread("s").len()), (false, 3));

    let done = run(place.jlog("ship", ["s", &destination, "--once"]), "");
    let said = "jlog: 3 read = 3 acknowledged + 0 set aside + 0 skipped + 0 in flight\n";
    assert_eq!((done.code, &*done.stderr), (Some(0), said));
    assert_eq!(contents(&to), ["one", "two", "three"]);
    assert!(place.unread("s").is_empty());

    run(place.jlog("ship", ["new", &destination, "--once", "--from", "0:3"]), "");
    assert_eq!(contents(&to), ["one", "two", "three", "three"]);
}

/// A progress bar appears while the shipper catches up, but not if stderr is no terminal, or if
/// there is little to do.
#[test]
fn a_bar_shows_how_it_catches_up() {
    let many: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let place = Place::with(&[], &many);
    let shown = |subscriber: &str| {
        let terminal = openpty(None, None).unwrap();
        let lines = Lines::of(std::fs::File::from(terminal.master));
        let arguments =
            [subscriber, "exec:cat >/dev/null; sleep 0.2", "--once", "--from", "0:0", "--batch", "5000"];
        let mut command = place.jlog("ship", arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(terminal.slave));
        let mut shipper = Running::spawn(&mut command);
        close(command);
        let text = lines.rest().concat();
        assert_eq!(shipper.end(), Some(0));
        text
    };
    let text = shown("s");
    assert!(text.contains("of 20,000 messages"), "{text}");
    assert!(text.contains("20000 read = 20000 acknowledged"), "{text}");
    // Nothing is left to do.
    let text = shown("s");
    assert!(!text.contains("messages,") && text.contains("0 read = 0 acknowledged"), "{text}");
    let done = run(place.jlog("ship", ["t", "exec:cat >/dev/null", "--once", "--from", "0:0"]), "");
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn wrong_destinations_are_reported() {
    let place = Place::with(&[], &["one"]);
    let itself = format!("jlog:{}", place.feed.display());
    for (arguments, says) in [
        (
            vec!["s", "ftp://x"],
            "\"ftp://x\" is not a destination: jlog:DIRECTORY, exec:COMMAND, http://…, https://…, loki+http://…, loki+https://…, otlp+http://…, otlp+https://…, nats://…, tls://…, kafka://… or kafka+tls://…",
        ),
        (vec!["s", "nats://h/S"], "cannot ship to NATS: it needs the subject of the messages: ?subject=…"),
        (vec!["s", "nats://a:b@h/S?subject=x"], "everybody can see a password in a URL"),
        (
            vec!["s", "nats://h/S?subject=x", "--credentials", "/not/there"],
            "cannot read credentials from /not/there: No such file",
        ),
        (vec!["s", "loki+http://h/"], "cannot ship to Loki: it needs at least one label: ?job=…"),
        (vec!["s", "loki+ftp://h/?job=a"], "\"loki+ftp://h/?job=a\" is not a destination"),
        (
            vec!["s", "otlp+http://h/"],
            "cannot ship to OpenTelemetry: it needs the name of the service: ?service.name=…",
        ),
        #[cfg(feature = "kafka")]
        (
            vec!["s", "kafka://h:9092"],
            "cannot ship to Kafka: \"\" is not the name of a topic: kafka://h:9092/TOPIC",
        ),
        #[cfg(feature = "kafka")]
        (
            vec!["s", "kafka://h/t", "--token-env", "PATH"],
            "cannot ship to Kafka: it has no tokens and no credentials files: log in with --user",
        ),
        #[cfg(all(feature = "kafka", not(feature = "kafka-ssl")))]
        (
            vec!["s", "kafka+tls://h/t"],
            "built without TLS and SASL for Kafka: build one with \
             `cargo build --release -p jlog-cli --features kafka-ssl`",
        ),
        #[cfg(feature = "kafka-ssl")]
        (
            vec!["s", "kafka://h/t", "--ca", "ca.pem"],
            "cannot ship to Kafka: certificates are for TLS: kafka+tls://…",
        ),
        #[cfg(feature = "kafka-ssl")]
        (
            vec!["s", "kafka+tls://h/t", "--ca", "/not/there"],
            "cannot ship to Kafka: cannot read certificates from /not/there: No such file",
        ),
        #[cfg(not(feature = "kafka"))]
        (
            vec!["s", "kafka://h/t"],
            "this jlog was built without Kafka: build one with `cargo build --release -p jlog-cli --features kafka`",
        ),
        #[cfg(not(feature = "kafka"))]
        (
            vec!["s", "kafka+tls://h/t"],
            "this jlog was built without Kafka: build one with `cargo build --release -p jlog-cli --features kafka-ssl`",
        ),
        (vec!["s", "jlog:"], "jlog: needs the path of a feed after it"),
        (vec!["s", "http://a:b@c/"], "cannot ship over HTTP: everybody can see a password in a URL"),
        (vec!["s", &itself], "is the feed itself"),
        (vec!["nobody", "jlog:x"], "has no subscriber \"nobody\""),
    ] {
        let complaint = run(place.jlog("ship", arguments), "").failed(1);
        assert!(complaint.contains(says), "{complaint}");
    }
    assert_eq!(place.unread("s"), [b"one"]);
}

#[test]
fn messages_that_are_refused_are_set_aside_and_sent_again() {
    let place = Place::with(&[], &["1", "bad", "2"]);
    let (out, aside) = (place.path("out"), place.path("aside"));
    let aside = aside.to_str().unwrap();
    let command = format!(
        "exec:if test -e {0}.fixed; then cat >> {0}; else tee {0}.now | grep -q bad && exit 65; cat {0}.now >> {0}; fi",
        out.display()
    );
    let arguments =
        ["s", &command, "--once", "--framing", "lines", "--on-reject", "set-aside", "--set-aside", aside];
    let done = run(place.jlog("ship", arguments), "");
    assert!(
        done.stderr.contains("3 read = 2 acknowledged + 1 set aside + 0 skipped + 0 in flight"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("message 00000000:00000002 was refused and set aside in"),
        "{}",
        done.stderr
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "1\n2\n");
    place.file("out.fixed", "");
    let again =
        ["ship", aside, "again", &command, "--once", "--framing", "lines", "--unwrap", "--from", "0:0"];
    let done = run(jlog(again), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "1\n2\nbad\n");
}

#[test]
fn sigterm_ends_it_and_the_next_one_goes_on() {
    let place = Place::with(&[], &["one"]);
    let to = place.path("copy");
    let destination = format!("jlog:{}", to.display());
    let mut shipper = Running::spawn(&mut place.jlog("ship", ["s", &destination]));
    until("the first message", || contents(&to).len() == 1);
    place.append(&["two"]);
    until("the second message", || contents(&to).len() == 2);
    shipper.signal(Signal::SIGTERM);
    assert_eq!(shipper.end(), Some(0));
    place.append(&["three"]);
    run(place.jlog("ship", ["s", &destination, "--once"]), "");
    assert_eq!(contents(&to), ["one", "two", "three"]);
}

/// Whichever process is killed at whatever moment, every message arrives, in order; only messages
/// in the window arrive again.
#[test]
fn nothing_is_lost_when_it_is_killed() {
    const MESSAGES: usize = 20_000;
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("message {n:05}")).collect();
    let place = Place::with(&["--segment-size", "64KiB"], &all[..100]);
    let to = place.path("copy");
    let destination = format!("jlog:{}", to.display());
    let rounds: u64 = std::env::var("JLOG_KILL_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| place.append(&all[100..]));
        for round in 0..rounds {
            let mut command = place.jlog("ship", ["s", &destination, "--window", "500"]);
            let mut shipper = command.stderr(Stdio::null()).spawn().unwrap();
            // The moment differs from round to round.
            std::thread::sleep(Duration::from_millis(5 + round * 37 % 60));
            shipper.kill().unwrap();
            shipper.wait().unwrap();
        }
    });
    let done = run(place.jlog("ship", ["s", &destination, "--window", "500", "--once"]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let got = contents(&to);
    let mut next = 0;
    let mut again = 0;
    for text in &got {
        if next < all.len() && *text == all[next] {
            next += 1;
            continue;
        }
        // Delivery went back to an earlier checkpoint.
        let at = all.binary_search(text).unwrap();
        assert!(at < next && next - at <= 500, "{text} comes after {}", all[next - 1]);
        next = at + 1;
        again += 1;
    }
    assert_eq!(next, all.len());
    assert!(again <= rounds, "{again} times back in {rounds} rounds");
    assert!(place.unread("s").is_empty());
}

/// The metrics of a shipper that listens on this socket.
#[cfg(feature = "serve")]
fn metrics(socket: &std::path::Path) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return String::new() };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).unwrap();
    answer
}

#[cfg(feature = "serve")]
#[test]
fn metrics_say_what_became_of_messages() {
    let place = Place::with(&[], &["one", "bad", "two"]);
    let (socket, fixed) = (place.path("metrics"), place.path("fixed"));
    let command = format!(
        "exec:read -r line; test $line != bad && exit 0; test -e {} || exit 1; exit 65",
        fixed.display()
    );
    let address = format!("unix:{}", socket.display());
    let mut command = place.jlog(
        "ship",
        ["s", &command, "--framing", "lines", "--batch", "1", "--on-reject", "skip", "--metrics", &address],
    );
    let mut shipper = Running::spawn(&mut command);
    let labels = format!("{{feed=\"{}\",subscriber=\"s\",destination=", place.feed.display());
    let says = |name: &str, value: f64| {
        let sample = format!("{name}{labels}");
        let text = metrics(&socket);
        let line = text.lines().find(|line| line.starts_with(&sample));
        let said = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        said == Some(value)
    };
    until("the refusal", || says("jlog_ship_failing", 1.0));
    assert!(says("jlog_ship_acknowledged_messages_total", 1.0), "{}", metrics(&socket));
    assert!(says("jlog_ship_skipped_messages_total", 0.0));
    place.file("fixed", "");
    // Samples are not taken at one instant, so all are waited for.
    for (name, value) in [
        ("jlog_ship_acknowledged_messages_total", 2.0),
        ("jlog_ship_read_messages_total", 3.0),
        ("jlog_ship_skipped_messages_total", 1.0),
        ("jlog_ship_acknowledged_bytes_total", 6.0),
        ("jlog_ship_in_flight_messages", 0.0),
        ("jlog_ship_failing", 0.0),
    ] {
        until(name, || says(name, value));
    }
    until("the feed's own", || metrics(&socket).contains("jlog_subscriber_lag_messages"));
    // Rules and panels about metrics that do not exist would never show anything.
    for file in ["prometheus/jlog.rules.yml", "grafana/jlog.json"] {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(file);
        let asked = std::fs::read_to_string(&file).unwrap();
        let words = asked.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: std::collections::BTreeSet<&str> =
            words.filter(|word| word.starts_with("jlog_ship_")).collect();
        assert!(names.len() >= 3, "{names:?}");
        let there = metrics(&socket);
        for name in names {
            assert!(there.contains(&format!("\n{name}{{")), "{} asks for {name}", file.display());
        }
    }
    shipper.signal(Signal::SIGTERM);
    assert_eq!((shipper.end(), socket.exists()), (Some(0), false));
}

#[cfg(feature = "serve")]
#[test]
fn metrics_are_not_shown_to_other_machines() {
    let place = Place::with(&[], &["one"]);
    let destination = format!("jlog:{}", place.path("copy").display());
    let done = run(place.jlog("ship", ["s", &destination, "--once", "--metrics", "0.0.0.0:0"]), "").failed(1);
    assert!(done.contains("no metrics: http://0.0.0.0:0 can be reached from other machines"), "{done}");
    assert_eq!(place.unread("s"), [b"one"]);
}
