//! `jlog seek`

use jlog_core::LogId;

use crate::support::{Place, run};

/// Ten messages, four to a segment.
fn numbered() -> Place {
    let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    Place::with(&["--segment-size", "72"], &messages)
}

#[test]
fn a_subscriber_is_moved_to_a_place_or_by_a_number() {
    let place = numbered();
    place.ok("subscribe", &["keep"]);
    for (arguments, to, said, next) in [
        (&["--to", "0:3"][..], LogId::new(0, 2), "2 messages skipped", Some("m3")),
        (&["--by", "+4"], LogId::new(1, 2), "4 messages skipped", Some("m7")),
        (&["--by", "-1"], LogId::new(1, 1), "1 message will be delivered again", Some("m6")),
        (&["--by=-5"], LogId::new(0, 0), "5 messages will be delivered again", Some("m1")),
        (&["--by", "-5"], LogId::new(0, 0), "it was there already", Some("m1")),
        (&["--to", "end"], LogId::new(2, 2), "10 messages skipped", None),
        (&["--by", "+100"], LogId::new(2, 2), "it was there already", None),
        (&["--to", "beginning"], LogId::new(0, 0), "10 messages will be delivered again", Some("m1")),
        (&["--by", "+1h"], LogId::new(2, 2), "10 messages skipped", None),
        (&["--by", "-1h"], LogId::new(0, 0), "10 messages will be delivered again", Some("m1")),
        (&["--to", "10min"], LogId::new(0, 0), "it was there already", Some("m1")),
    ] {
        let from = place.checkpoint("s");
        let done = run(place.jlog("seek", [&["s"], arguments].concat()), "");
        assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
        let expected = format!("s moved from {from} to {to}: {said}\n");
        assert_eq!(String::from_utf8(done.stdout).unwrap(), expected, "{arguments:?}");
        assert_eq!(place.checkpoint("s"), to, "{arguments:?}");
        assert_eq!(
            place.unread("s").first().map(|body| String::from_utf8(body.clone()).unwrap()).as_deref(),
            next
        );
    }
}

#[test]
fn what_cannot_be_moved_stays_where_it_is() {
    let place = numbered();
    run(place.jlog("seek", ["s", "--to", "1:1"]), "").ok();
    let there = place.checkpoint("s");
    // Past the end, in a segment that does not exist, and an invalid place.
    for arguments in [
        &["--to", "2:9"][..],
        &["--to", "9:1"],
        &["--to", "nowhere"],
        &["--by", "5"],
        &[],
        &["--by", "+1", "--to", "end"],
    ] {
        let done = run(place.jlog("seek", [&["s"], arguments].concat()), "");
        assert!(matches!(done.code, Some(1 | 2)), "{arguments:?}: {done:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty());
        assert_eq!(place.checkpoint("s"), there, "{arguments:?}");
    }
    // The message names the id that was given.
    let complaint = run(place.jlog("seek", ["s", "--to", "2:9"]), "").failed(1);
    assert!(complaint.contains("has no record 00000002:00000009:"), "{complaint}");
    let complaint = run(place.jlog("seek", ["t", "--to", "end"]), "").failed(1);
    assert!(complaint.contains("has no subscriber \"t\""), "{complaint}");
    // A reader in use would overwrite the new checkpoint with its own.
    let log = place.log();
    let reader = log.reader("s").unwrap();
    let complaint = run(place.jlog("seek", ["s", "--to", "end"]), "").failed(1);
    assert!(complaint.contains("\"s\"") && complaint.contains("another reader"), "{complaint}");
    assert_eq!(place.checkpoint("s"), there);
    drop(reader);
    run(place.jlog("seek", ["s", "--to", "end"]), "").ok();
}
