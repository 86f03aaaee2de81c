//! `jlog grep`, and `jlog cat` from one place to another.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Place, Running, run, until_full};

/// Messages over many segments.
fn numbered(n: u32) -> Place {
    let messages: Vec<String> =
        (0..n).map(|n| format!("message {n} {}", if n % 100 == 7 { "Seven" } else { "x" })).collect();
    Place::with(&["--segment-size", "2KiB"], &messages)
}

#[test]
fn what_matches_is_shown_in_order_whatever_the_segments() {
    let place = numbered(5000);
    assert!(place.segments().len() > 50);
    let before = place.snapshot();
    let expected: String = (0..50).map(|n| format!("message {} Seven\n", n * 100 + 7)).collect();
    assert_eq!(place.ok("grep", &["Seven"]), expected);
    assert_eq!(place.ok("grep", &["-i", "SEVEN$"]), expected);
    assert_eq!(place.ok("grep", &["-c", "Seven"]), "50\n");
    assert_eq!(place.ok("grep", &["-c", "-v", "Seven"]), "4950\n");
    assert_eq!(place.ok("grep", &["^message 12[34] "]), "message 123 x\nmessage 124 x\n");
    let json = place.ok("grep", &["-o", "json", "message 4999 "]);
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(object["body"], "message 4999 x");
    assert_eq!(place.snapshot(), before, "nothing is changed");
    // Without a match, nothing is printed.
    let none = run(place.jlog("grep", ["nothing like it"]), "");
    assert_eq!((none.code, none.stdout.len(), &*none.stderr), (Some(1), 0, ""));
    assert_eq!(run(place.jlog("grep", ["-c", "nothing like it"]), "").stdout, b"0\n");
    assert_eq!(run(place.jlog("grep", ["--since", "now", "Seven"]), "").code, Some(1));
    assert_eq!(place.ok("grep", &["--since", "1h", "-c", "Seven"]), "50\n");
    assert_eq!(run(place.jlog("grep", ["--until", "1h", "Seven"]), "").code, Some(1));
    // The argument is a pattern, or with an option a text.
    let texts = Place::with(&[], &["a.b", "axb", "a\u{ff}b"]);
    assert_eq!(texts.ok("grep", &["a.b"]), "a.b\naxb\naÿb\n");
    assert_eq!(texts.ok("grep", &["-F", "a.b"]), "a.b\n");
    let complaint = run(texts.jlog("grep", ["("]), "").failed(2);
    assert!(complaint.contains("the pattern \"(\""), "{complaint}");
    assert_eq!(run(crate::support::jlog(["grep", "/nonexistent", "x"]), "").code, Some(2));
}

#[test]
fn messages_around_a_match_are_shown_across_segments() {
    let place = numbered(400);
    let shown = place.ok("grep", &["-C", "1", "Seven"]);
    let expected: Vec<String> = (0..4)
        .map(|n| {
            let at = n * 100 + 7;
            format!("message {} x\nmessage {at} Seven\nmessage {} x\n", at - 1, at + 1)
        })
        .collect();
    assert_eq!(shown, expected.join("--\n"));
    // No separator is printed between groups if it could be taken for a message.
    let shown = place.ok("grep", &["-C", "0", "-o", "null", "Seven"]);
    assert_eq!(shown.matches('\0').count(), 4);
    let shown = place.ok("grep", &["-C", "1", "-o", "null", "Seven"]);
    assert_eq!((shown.matches('\0').count(), shown.contains("--")), (12, false));
    // Messages around two matches are shown once.
    let shown = place.ok("grep", &["-C", "2", "^message (3|5) "]);
    let expected: String =
        (1..=7).map(|n| format!("message {n} {}\n", if n == 7 { "Seven" } else { "x" })).collect();
    assert_eq!(shown, expected);
}

#[test]
fn damage_is_reported_and_passed() {
    let place = numbered(1000);
    let segment = place.feed.join(&place.segments()[3]);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let done = run(place.jlog("grep", ["-c", "message"]), "");
    assert_eq!((done.code, &*done.stdout), (Some(3), &b"999\n"[..]), "{}", done.stderr);
    assert!(done.stderr.contains(&place.segments()[3]), "{}", done.stderr);
}

#[test]
fn a_search_whose_reader_goes_away_ends() {
    let place = numbered(20_000);
    let mut command = place.jlog("grep", ["message"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_interrupted_search_does_not_say_that_nothing_matches() {
    let place = numbered(20_000);
    for arguments in [&["message"][..], &["-C", "1", "message"]] {
        // Nobody reads the output, and most segments are not searched.
        let (_out, pipe) = std::io::pipe().unwrap();
        let ours = pipe.try_clone().unwrap();
        let mut command = place.jlog("grep", arguments);
        let mut search = Running::start(command.stdout(pipe));
        drop(command);
        until_full(&ours);
        search.signal(Signal::SIGTERM);
        let done = search.done();
        assert_eq!(done.code, Some(2), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains("interrupted"), "{}", done.stderr);
    }
}

#[test]
fn cat_shows_what_is_between_two_places() {
    let place = numbered(200);
    let ids = place.ok("cat", &["-o", "short"]);
    let ids: Vec<&str> = ids.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    let shown = place.ok("cat", &["--from", ids[110], "--to", ids[112]]);
    assert_eq!(shown, "message 110 x\nmessage 111 x\nmessage 112 x\n");
    assert_eq!(place.ok("cat", &["--from", ids[199]]), "message 199 x\n");
    assert_eq!(place.ok("cat", &["--to", ids[0]]), "message 0 x\n");
    assert_eq!(place.ok("cat", &["--from", "1h"]).lines().count(), 200);
    assert_eq!(place.ok("cat", &["--to", "1h"]), "");
    assert_eq!(run(place.jlog("cat", ["--from", ids[0], "--since", "1h"]), "").code, Some(2));
}
