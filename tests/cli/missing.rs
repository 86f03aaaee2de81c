//! What every command reports about missing segments.

use serde_json::{Value, json};

use crate::support::{NONE, Place, lines, run};

/// Ten messages `m1` to `m10`, four to a segment, without the second segment.
fn without_a_segment(with: &[&str]) -> Place {
    let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    let place = Place::with(&["--segment-size", "72"], &messages);
    for suffix in std::iter::once(&"").chain(with) {
        std::fs::remove_file(place.feed.join(format!("00000001{suffix}"))).unwrap();
    }
    place
}

const LOST: &str = "segment 00000001 is missing, and with it 4 messages that";

#[test]
fn read_reports_the_loss_and_ends_with_3() {
    let place = without_a_segment(&[]);
    for arguments in [&["s", "--peek"][..], &["s", "-n", "6"], &["s"]] {
        let done = run(place.jlog("read", arguments), "");
        if arguments == ["s"] {
            // The subscriber has passed the missing segment.
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
            continue;
        }
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "m1\nm2\nm3\nm4\nm9\nm10\n");
        assert_eq!(done.stderr, format!("jlog: subscriber s: {LOST} it had not read\n"));
        assert_eq!(done.code, Some(3));
    }
    // A reader that does not reach the missing segment does not report it.
    let place = without_a_segment(&[]);
    let done = run(place.jlog("read", ["s", "-n", "4"]), "");
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    // Without a trace of it, the number of messages is unknown.
    let place = without_a_segment(&[".crc"]);
    let done = run(place.jlog("read", ["s"]), "");
    let expected = "jlog: subscriber s: segment 00000001 is missing, and with it at least 1 message that it had not read\n";
    assert_eq!((done.code, done.stderr.as_str()), (Some(3), expected));
}

/// The segment being written is missing, and its checksums show that it had records.
#[test]
fn read_reports_the_loss_of_the_segment_being_written() {
    let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    let place = Place::with(&["--segment-size", "72"], &messages);
    std::fs::remove_file(place.feed.join("00000002")).unwrap();
    for _ in 0..2 {
        let done = run(place.jlog("read", ["s"]), "");
        let expected = "jlog: subscriber s: segment 00000002 is missing, and with it at least 2 messages that it had not read\n";
        assert_eq!((done.code, done.stderr.as_str()), (Some(3), expected));
    }
    assert_eq!(run(place.jlog("verify", NONE), "").code, Some(3));
}

/// What is read without a subscriber lacks messages that a subscriber needs.
#[test]
fn reading_without_a_subscriber_reports_what_subscribers_have_lost() {
    let place = without_a_segment(&[]);
    for (command, arguments) in [
        ("cat", NONE.as_slice()),
        ("read", &["--from", "0:1"]),
        ("tail", &["--last", "100", "-n", "6"]),
        ("grep", &["m"]),
    ] {
        let done = run(place.jlog(command, arguments), "");
        assert_eq!(String::from_utf8(done.stdout).unwrap(), "m1\nm2\nm3\nm4\nm9\nm10\n", "{command}");
        // `tail` has a subscriber of its own while it runs.
        let subscriber = if command == "tail" { "~tail-" } else { "s: " };
        assert_eq!(lines(&done.stderr).len(), 1, "{}", done.stderr);
        assert!(done.stderr.starts_with(&format!("jlog: subscriber {subscriber}")), "{}", done.stderr);
        assert!(done.stderr.ends_with(&format!(": {LOST} it had not read\n")), "{}", done.stderr);
        assert_eq!(done.code, Some(3), "{command}");
    }
}

#[test]
fn verify_status_and_repair_report_it() {
    let place = without_a_segment(&[]);
    let before = place.snapshot();
    let done = run(place.jlog("verify", NONE), "");
    let expected = [
        format!("damaged {}: {LOST} subscriber \"s\" has not read", place.feed.display()),
        "damaged: 2 segments, 109 B, 6 intact records, 6 of them checked against checksums, 0 could not be checked"
            .to_owned(),
    ];
    assert_eq!((done.code, done.stderr.as_str()), (Some(3), ""));
    assert_eq!(lines(&String::from_utf8(done.stdout).unwrap()), expected);

    let text = place.ok("status", &[]);
    assert!(text.contains("lost 4 messages: 1 segment missing, see `jlog verify`"), "{text}");
    let status: Value = serde_json::from_str(&place.ok("status", &["-o", "json"])).unwrap();
    assert_eq!(
        status["subscribers"][0]["lost"],
        json!({
            "messages": 4, "exact": true, "segments": 1, "cut_segments": 0,
            "first_segment": "00000001", "last_segment": "00000001",
        })
    );
    assert!(place.snapshot() == before, "looking changes nothing");

    // The remains of the segment are removed; the number of its messages stays known.
    let said = run(place.jlog("clean", NONE), "");
    assert_eq!(said.stderr, format!("jlog: subscriber s: {LOST} it had not read\n"));
    assert!(!place.feed.join("00000001.crc").exists());
    assert_eq!(place.ok("repair", &[]), format!("subscriber s: {LOST} it had not read\n"));
    assert_eq!(place.ok("repair", &[]), "nothing to repair\n");
    let text = place.ok("verify", &[]);
    assert!(text.starts_with("note ") && text.contains("; repair has reported it\nsound: "), "{text}");
    assert_eq!(run(place.jlog("read", ["s"]), "").code, Some(3), "and its subscriber is told");
    assert!(place.ok("verify", &[]).starts_with("sound: "));
}

/// A segment that was cut, or is empty, is reported like a missing one.
#[test]
fn a_cut_segment_is_reported_by_every_command() {
    for (len, lost) in [
        (18, "segment 00000001 was cut, and has lost 3 messages"),
        (0, "segment 00000001 was cut, and has lost 4 messages"),
    ] {
        let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
        let place = Place::with(&["--segment-size", "72"], &messages);
        let segment = std::fs::OpenOptions::new().write(true).open(place.feed.join("00000001")).unwrap();
        segment.set_len(len).unwrap();
        let left = if len == 0 { "m1\nm2\nm3\nm4\nm9\nm10\n" } else { "m1\nm2\nm3\nm4\nm5\nm9\nm10\n" };
        // `cat` has no subscriber.
        for (command, arguments, said) in [
            ("cat", &[][..], format!("jlog: {lost}\n")),
            ("read", &["s", "--peek"][..], format!("jlog: subscriber s: {lost} that it had not read\n")),
        ] {
            let done = run(place.jlog(command, arguments), "");
            assert_eq!(String::from_utf8(done.stdout).unwrap(), left);
            assert_eq!((done.code, done.stderr), (Some(3), said), "{command}");
        }
        let done = run(place.jlog("verify", NONE), "");
        let said = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.code, Some(3));
        let first = format!("damaged {}: {lost} that subscriber \"s\" has not read", place.feed.display());
        assert!(lines(&said).contains(&first.as_str()), "{said}");
        let count = counted_as(lost);
        let text = place.ok("status", &[]);
        assert!(text.contains(&format!("lost {count}: 1 segment cut, see `jlog verify`")), "{text}");
        let status: Value = serde_json::from_str(&place.ok("status", &["-o", "json"])).unwrap();
        assert_eq!(status["subscribers"][0]["lost"]["cut_segments"], 1);
        let repaired = place.ok("repair", &[]);
        assert!(repaired.ends_with(&format!("subscriber s: {lost} that it had not read\n")), "{repaired}");
        assert_eq!(place.ok("repair", &[]), "nothing to repair\n");
        assert!(place.ok("verify", &[]).contains("; repair has reported it\nsound: "));
        assert_eq!(run(place.jlog("read", ["s"]), "").code, Some(3), "and its subscriber is told");
        assert!(place.ok("verify", &[]).starts_with("sound: "));
    }
}

/// The number of messages in a sentence about a loss.
fn counted_as(lost: &str) -> &str {
    lost.split_once("has lost ").unwrap().1
}
