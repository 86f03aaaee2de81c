//! `jlog ship --config`, filters and mappings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jlog_core::{LogId, Start};
use nix::sys::signal::Signal;

use crate::support::{Done, Lines, Place, Running, contents, jlog, run, until};

/// A place whose feed has these messages and two subscribers, `s` and `t`.
fn place<M: AsRef<[u8]>>(messages: &[M]) -> Place {
    let place = Place::new(&[]);
    place.log().subscribe("t", Start::Beginning).unwrap();
    place.append(messages);
    place
}

fn ship(place: &Place, text: &str, further: &[&str]) -> std::process::Command {
    let file = place.file("ship.toml", text);
    let mut command = jlog(["ship", "--config"]);
    command.arg(file).args(further);
    command
}

/// Lines of a command, in their order for each shipment.
fn lines_of<'a>(done: &'a Done, name: &str) -> Vec<&'a str> {
    let prefix = format!("jlog: {name}: ");
    done.stderr.lines().filter_map(|line| line.strip_prefix(&*prefix)).collect()
}

/// The head and the body of each request.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that accepts only well-formed requests, and keeps them.
fn server() -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let requests = Requests::default();
    let kept = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            loop {
                let mut head = String::new();
                while stream.read_line(&mut head).unwrap_or(0) > 2 {}
                let Some(first) = head.lines().next() else { break };
                assert_eq!(first, "POST /in HTTP/1.1");
                let headers = head.lines().skip(1).filter(|line| !line.is_empty());
                let headers: Vec<(String, &str)> = headers
                    .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}")))
                    .map(|(name, value)| (name.to_lowercase(), value))
                    .collect();
                let length = headers.iter().find(|(name, _)| name == "content-length").unwrap().1;
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push((head, body));
                stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
        }
    });
    (url, requests)
}

#[test]
fn a_shipment_that_fails_begins_again_after_ten_seconds_and_goes_on_counting() {
    let place = place(&["one", "two"]);
    let alone = jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Alone);
    let mut command = ship(
        &place,
        "[[ship]]\nname = 'first'\nfeed = 'feed'\nsubscriber = 's'\ndestination = 'jlog:copy'\n\n\
         [[ship]]\nfeed = 'feed'\nsubscriber = 't'\ndestination = 'jlog:other'\n",
        &[],
    );
    let reader = place.log().reader_with("s", alone).unwrap();
    let mut shipper = Running::start(&mut command);
    let lines = Lines::of(shipper.stderr.take().unwrap());
    let failed = lines.next().unwrap();
    assert!(failed.starts_with("jlog: first: ") && failed.ends_with("; restarting in 10 s\n"), "{failed}");
    let since = std::time::Instant::now();
    // The other shipper is not delayed, and this one does not retry early.
    let (copy, other) = (place.path("copy"), place.path("other"));
    until("the other shipment", || contents(&other) == ["one", "two"]);
    drop(reader);
    until("the first shipment", || contents(&copy) == ["one", "two"]);
    assert!(since.elapsed() > Duration::from_secs(9), "{:?}", since.elapsed());
    place.append(&["three"]);
    until("the third message", || contents(&copy).len() == 3);
    shipper.signal(Signal::SIGTERM);
    let rest = lines.rest();
    let totals = "jlog: first: 3 read = 3 acknowledged + 0 set aside + 0 skipped + 0 in flight\n";
    assert!(rest.iter().any(|line| line == totals), "{rest:?}");
    assert_eq!((shipper.end(), place.unread("s").len()), (Some(0), 0));
}

#[test]
fn a_shipment_that_waits_to_begin_again_stops_at_once() {
    let place = place(&["one"]);
    let alone = jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Alone);
    let _reader = place.log().reader_with("s", alone).unwrap();
    let text = "[[ship]]\nname = 'first'\nfeed = 'feed'\nsubscriber = 's'\ndestination = 'jlog:copy'\n";
    let mut shipper = Running::start(&mut ship(&place, text, &[]));
    let lines = Lines::of(shipper.stderr.take().unwrap());
    assert!(lines.next().unwrap().ends_with("; restarting in 10 s\n"));
    let since = std::time::Instant::now();
    shipper.signal(Signal::SIGTERM);
    assert_eq!(shipper.end(), Some(1));
    assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
}

#[test]
fn a_dead_destination_stalls_no_other() {
    let place = place(&["one", "two"]);
    let text = "[[ship]]\nname = 'dead'\nfeed = 'feed'\nsubscriber = 's'\ndestination = 'exec:echo not now >&2; exit 1'\ndrain = 0\n\n\
                [[ship]]\nfeed = 'feed'\nsubscriber = 't'\ndestination = 'jlog:copy'\n";
    let mut command = ship(&place, text, &[]);
    let mut shipper = Running::start(&mut command);
    let lines = Lines::of(shipper.stderr.take().unwrap());
    let copy = place.path("copy");
    until("the first messages", || contents(&copy).len() == 2);
    place.append(&["three"]);
    until("the third message", || contents(&copy).len() == 3);
    // A message arrives before it is counted, and the checkpoint follows its count.
    until("the third checkpoint", || place.checkpoint("t") == LogId::new(0, 3));
    assert!(lines.next().unwrap().starts_with("jlog: dead: exec:echo not now"));
    shipper.signal(Signal::SIGUSR1);
    let status = |name: &str, says: &str| {
        let prefix = format!("jlog: {name}: ");
        let line = loop {
            let line = lines.next().unwrap();
            if line.starts_with(&prefix) && line.contains(" read = ") {
                break line;
            }
        };
        assert!(line.contains(says), "{line}");
    };
    status("dead", "0 acknowledged");
    status(
        "feed/t",
        "3 read = 3 acknowledged + 0 set aside + 0 skipped + 0 in flight; 0 messages, 0 bytes, 0s behind",
    );
    shipper.signal(Signal::SIGTERM);
    let mut rest = lines.rest();
    rest.retain(|line| line.contains(" read = "));
    rest.sort();
    assert_eq!(shipper.end(), Some(0));
    let [dead, live] = &rest[..] else { panic!("{rest:?}") };
    // The third message may have been read or not.
    assert!(
        dead.starts_with("jlog: dead: ") && dead.contains("0 acknowledged + 0 set aside + 0 skipped + "),
        "{dead}"
    );
    assert_eq!(live, "jlog: feed/t: 3 read = 3 acknowledged + 0 set aside + 0 skipped + 0 in flight\n");
    assert_eq!((place.unread("s").len(), place.unread("t").len()), (3, 0));
    assert_eq!(contents(&copy), ["one", "two", "three"]);
}

#[test]
fn a_mistake_in_the_file_starts_nothing() {
    let place = place(&["one"]);
    let good = "[[ship]]\nfeed = 'feed'\nsubscriber = 'new'\nfrom = '0:0'\ndestination = 'jlog:copy'\n";
    let before = place.snapshot();
    let ship_of = |rest: &str| format!("{good}\n[[ship]]\nfeed = 'feed'\nsubscriber = 's'\n{rest}");
    let http = "destination = 'http://localhost/'\n";
    for (text, says) in [
        (String::new(), "has no table [[ship]]"),
        ("[[ship]\n".to_owned(), ":1: "),
        (format!("{good}\n[[shp]]\n"), ":7: shp is not known: it is [[ship]]; did you mean ship?"),
        ("[ship]\nfeed = 'feed'\n".to_owned(), ":1: ship is a list of tables: [[ship]], with two brackets"),
        (ship_of(""), ":7: [[ship]] has no destination"),
        (ship_of("destination = 'jlog:x'\nwindwo = 5"), ":11: windwo is not known; did you mean window?"),
        (
            ship_of("destination = 'jlog:x'\ntoken_file = 'x'"),
            ":11: token_file is not known; did you mean token-file?",
        ),
        (
            ship_of("destination = 'jlog:x'\nonce = true"),
            ":11: once is for all shipments: give it on the command line",
        ),
        (ship_of("destination = 'jlog:x'\nrate = 0"), ":11: rate: 0 is not in 1.."),
        (
            ship_of("destination = 'jlog:x'\nrate = [1]"),
            ":11: rate: expected a string, a number, true or false",
        ),
        (ship_of("destination = 'jlog:x'\nunwrap = 'maybe'"), ":11: unwrap: expected true or false"),
        (ship_of("destination = 'jlog:x'\nname = 7"), ":11: name: expected a string"),
        (
            ship_of("destination = 'jlog:x'\non-reject = 'blok'"),
            ":11: on-reject: \"blok\" is not one of block, set-aside, skip; did you mean block?",
        ),
        (ship_of("destination = 'jlog:x'\non-reject = 'set-aside'"), ":7: [[ship]] needs set-aside, too"),
        (ship_of("destination = 'jlog:x'\nfilter = 'level >'"), ":11: filter: "),
        (ship_of("destination = 'ftp://x'\n"), ":10: destination: \"ftp://x\" is not a destination"),
        (ship_of(&format!("{http}token-file = 'none'")), ":11: token-file: cannot read a secret from "),
        (
            ship_of(&format!("{http}token-env = 'JLOG_NOT_THERE'")),
            ":11: token-env: the environment has no variable JLOG_NOT_THERE",
        ),
        (ship_of(&format!("{http}user = 'a'")), ":7: [[ship]] needs "),
        (ship_of(&format!("{http}token-file = 'a'\nuser = 'a'\npassword-file = 'a'")), "be used together"),
        (ship_of(&format!("{http}[ship.map]\nsubjct = 'x'")), ":12: map: \"subjct\" is not known"),
        (
            ship_of(&format!("{http}[ship.map]\nkey = '{{a'")),
            ":12: map: key: in \"{a\", a { has no } after it",
        ),
        (
            ship_of(&format!("{http}[ship.map]\nlabel.a = '{{a}}'")),
            "map: cannot ship over HTTP: it cannot use label.a, which is mapped",
        ),
        (ship_of(&format!("{http}map = 'x'")), ":11: map is a table: [ship.map]"),
        (
            ship_of(http).replace("feed = 'feed'\nsubscriber = 's'", "feed = 'fed'\nsubscriber = 's'"),
            ":8: feed: ",
        ),
        (ship_of(http).replace("'s'", "'nobody'"), ":9: subscriber: "),
        (
            ship_of(http).replace("'s'", "'new'"),
            "another shipment is also called \"feed/new\": give this one a name",
        ),
        (
            ship_of(&format!("{http}name = 'other'")).replace("'s'", "'new'"),
            ":9: feed/new: another shipment has this feed and this subscriber",
        ),
    ] {
        let complaint = run(ship(&place, &text, &["--once"]), "").failed(1);
        assert!(complaint.contains("ship.toml") && complaint.contains(says), "{text}\n{complaint}");
        assert!(!place.path("copy").exists() && place.snapshot() == before, "{text}");
    }
    run(ship(&place, good, &["feed", "s", "jlog:x"]), "").refused(2, "cannot be used with");
    run(jlog(["ship"]), "").refused(2, "required");
    run(jlog(["ship", "--config", "/not/there"]), "").refused(1, "cannot read /not/there");
    assert!(
        run(ship(&place, good, &["--once"]), "").code == Some(0) && contents(&place.path("copy")) == ["one"]
    );
}

#[test]
fn everything_arrives_when_it_is_killed() {
    const MESSAGES: usize = 5_000;
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("message {n:05}")).collect();
    let place = place(&all[..100]);
    let text = "[[ship]]\nfeed = 'feed'\nsubscriber = 's'\nwindow = 200\ndestination = 'jlog:a'\n\n\
                [[ship]]\nfeed = 'feed'\nsubscriber = 't'\nwindow = 200\ndestination = 'jlog:b'\n";
    std::thread::scope(|scope| {
        scope.spawn(|| place.append(&all[100..]));
        for round in 0..20u64 {
            let mut shipper = ship(&place, text, &[]).stderr(Stdio::null()).spawn().unwrap();
            // The moment differs from round to round.
            std::thread::sleep(Duration::from_millis(5 + round * 37 % 60));
            shipper.kill().unwrap();
            shipper.wait().unwrap();
        }
    });
    let done = run(ship(&place, text, &["--once"]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for name in ["a", "b"] {
        let mut next = 0;
        for got in contents(&place.path(name)) {
            // Delivery continues from an earlier checkpoint, and leaves nothing out.
            let at = all.binary_search(&got).unwrap();
            assert!(at <= next && next - at <= 200, "{name}: {got} comes where {next} is next");
            next = at + 1;
        }
        assert_eq!(next, all.len(), "{name}");
    }
}

#[test]
fn filters_and_mappings_say_what_is_sent_and_how() {
    let bodies = [
        r#"{"level":"warn","user":{"id":7},"n":1}"#,
        r#"{"level":"info","user":{"id":7},"n":2}"#,
        "no JSON",
        r#"{"level":"error","n":3}"#,
    ];
    let place = place(&bodies);
    let (url, requests) = server();
    place.file("token", "t0ken\n");
    let text = format!(
        "[[ship]]\nname = 'loud'\nfeed = 'feed'\nsubscriber = 's'\ndestination = '{url}'\nbody = 'raw'\n\
         token-file = 'token'\nfilter = \"level >= 'warn'\"\nheader = ['X-A: 1', 'X-B: 2']\n\
         [ship.map]\nheader.X-User = '{{user.id|nobody}}'\nheader.X-Level = 'is {{{{{{level}}}}}}'\n"
    );
    let shown = String::from_utf8(run(ship(&place, &text, &["--dry-run"]), "").stdout).unwrap();
    let shown: Vec<&str> = shown.lines().map(|line| line.split_once(" header.").unwrap().1).collect();
    assert_eq!(
        shown,
        [
            format!("X-Level=is {{warn}} header.X-User=7 {}", bodies[0]),
            format!("X-Level=is {{error}} header.X-User=nobody {}", bodies[3]),
        ]
    );
    assert!(requests.lock().unwrap().is_empty() && place.unread("s").len() == 4);
    let done = run(ship(&place, &text, &["--once"]), "");
    assert_eq!(
        lines_of(&done, "loud"),
        ["4 read = 2 acknowledged + 0 set aside + 0 skipped + 2 filtered + 0 in flight"]
    );
    let taken = std::mem::take(&mut *requests.lock().unwrap());
    let got: Vec<&[u8]> = taken.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(got, [bodies[0].as_bytes(), bodies[3].as_bytes()]);
    let has = |n: usize, header: &str| taken[n].0.lines().any(|line| line.eq_ignore_ascii_case(header));
    for n in [0, 1] {
        assert!(
            has(n, "authorization: Bearer t0ken") && has(n, "x-a: 1") && has(n, "x-b: 2"),
            "{}",
            taken[n].0
        );
    }
    assert!(has(0, "x-user: 7") && has(0, "x-level: is {warn}"), "{}", taken[0].0);
    assert!(has(1, "x-user: nobody") && has(1, "x-level: is {error}"), "{}", taken[1].0);
    assert!(place.unread("s").is_empty());

    // The same on the command line.
    let arguments =
        ["t", &url, "--once", "--filter", "message ~ 'JSON'", "--map", "key=k-{n|none}", "--token-env", "T"];
    let mut command = place.jlog("ship", arguments);
    command.env("T", "fr0m");
    let done = run(command, "");
    let said = "jlog: 4 read = 1 acknowledged + 0 set aside + 0 skipped + 3 filtered + 0 in flight\n";
    assert_eq!((done.code, &*done.stderr), (Some(0), said));
    let taken = requests.lock().unwrap();
    let [(head, body)] = &taken[..] else { panic!("{taken:?}") };
    let line: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&line["body"], &line["key"]), (&"no JSON".into(), &"k-none".into()));
    assert!(head.to_lowercase().contains("authorization: bearer fr0m\r\n"), "{head}");
}

#[test]
fn the_worst_of_several_decides_how_it_ends() {
    let place = place(&["one"]);
    let held = place.log();
    let held =
        held.reader_with("s", jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Alone)).unwrap();
    let text = "[[ship]]\nfeed = 'feed'\nsubscriber = 's'\ndestination = 'jlog:a'\n\n\
                [[ship]]\nfeed = 'feed'\nsubscriber = 't'\ndestination = 'jlog:b'\n";
    let done = run(ship(&place, text, &["--once"]), "");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(lines_of(&done, "feed/s")[0].contains("reader"), "{}", done.stderr);
    assert_eq!(
        lines_of(&done, "feed/t"),
        ["1 read = 1 acknowledged + 0 set aside + 0 skipped + 0 in flight"]
    );
    assert_eq!((contents(&place.path("a")).len(), contents(&place.path("b"))), (0, vec!["one".to_owned()]));
    crate::support::close(held);
    assert_eq!(run(ship(&place, text, &["--once"]), "").code, Some(0));
    assert_eq!((contents(&place.path("a")), contents(&place.path("b")).len()), (vec!["one".to_owned()], 1));
}

#[cfg(feature = "serve")]
#[test]
fn metrics_are_those_of_all_shipments() {
    let place = place(&["one", "two"]);
    let socket = place.path("metrics");
    let text = "[[ship]]\nfeed = 'feed'\nsubscriber = 's'\ndestination = 'jlog:a'\nfilter = \"message = 'two'\"\n\n\
                [[ship]]\nfeed = 'feed'\nsubscriber = 't'\ndestination = 'exec:exit 1'\ndrain = 0\n";
    let address = format!("unix:{}", socket.display());
    let mut shipper = Running::start(&mut ship(&place, text, &["--metrics", &address]));
    let asked = || {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) else { return String::new() };
        let mut answer = String::new();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let value = |text: &str, name: &str, subscriber: &str| {
        let found = text.lines().find(|line| {
            line.starts_with(&format!("{name}{{")) && line.contains(&format!("subscriber=\"{subscriber}\""))
        });
        found.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    until("the numbers of both", || {
        let text = asked();
        value(&text, "jlog_ship_acknowledged_messages_total", "s") == Some(1.0)
            && value(&text, "jlog_ship_filtered_messages_total", "s") == Some(1.0)
            && value(&text, "jlog_ship_failing", "s") == Some(0.0)
            && value(&text, "jlog_ship_failing", "t") == Some(1.0)
            && value(&text, "jlog_ship_in_flight_messages", "t") == Some(2.0)
    });
    assert_eq!(asked().matches("# TYPE jlog_ship_read_messages").count(), 1, "{}", asked());
    shipper.signal(Signal::SIGTERM);
    assert_eq!(shipper.end(), Some(0));
}
