//! `jlog subscribe` and `jlog unsubscribe`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use jlog_core::{LogId, Start};

use crate::support::{Place, lines, run};

/// Ten messages, four to a segment.
fn numbered() -> Place {
    let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    Place::with(&["--segment-size", "72"], &messages)
}

#[test]
fn a_subscriber_begins_where_it_is_told_to() {
    let place = numbered();
    for (name, arguments, id, messages) in [
        ("first", &[][..], LogId::new(0, 0), 10),
        ("last", &["--end"], LogId::new(2, 2), 0),
        ("after", &["--after", "00000001:00000003"], LogId::new(1, 3), 3),
        ("short", &["--after", "1:0"], LogId::new(1, 0), 6),
        ("copy", &["--copy", "after"], LogId::new(1, 3), 3),
    ] {
        let said = place.ok("subscribe", &[&[name], arguments].concat());
        assert_eq!(said, format!("{name} begins after {id}\n"));
        assert_eq!(place.checkpoint(name), id);
        assert_eq!(place.unread(name).len(), messages, "{name}");
    }
    assert_eq!(place.subscribers(), ["after", "copy", "first", "last", "s", "short"]);
}

#[test]
fn a_subscriber_that_is_there_is_moved_only_when_asked_to() {
    let place = numbered();
    place.ok("subscribe", &["t"]);
    let complaint = run(place.jlog("subscribe", ["t", "--end"]), "").failed(1);
    let expected = format!("{} already has a subscriber \"t\"", place.feed.display());
    assert!(complaint.starts_with(&expected), "{complaint}");
    // The error says what to do.
    assert!(complaint.contains("--move"), "{complaint}");
    assert_eq!(place.unread("t").len(), 10);

    assert_eq!(place.ok("subscribe", &["t", "--move", "--end"]), "t begins after 00000002:00000002\n");
    assert_eq!(place.unread("t").len(), 0);
    // Moving back is reported.
    assert_eq!(run(place.jlog("subscribe", ["t", "--move", "--after", "0:1"]), "").code, Some(0));
    assert_eq!(place.unread("t").len(), 9);
    assert_eq!(run(place.jlog("subscribe", ["t", "--move"]), "").code, Some(0));
    assert_eq!(place.unread("t").len(), 10);
    place.ok("subscribe", &["new", "--move", "--copy", "t"]);
    assert_eq!(place.unread("new").len(), 10);
}

#[test]
fn many_subscribers_are_added_at_once_or_none() {
    let place = numbered();
    let names: Vec<String> = (0..300).map(|n| format!("many-{n:03}")).collect();
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = place.snapshot();

    // A name that exists, or is given twice, in a later group of names.
    place.log().subscribe(&names[250], Start::Beginning).unwrap();
    let complaint = run(place.jlog("subscribe", &list), "").failed(1);
    assert!(complaint.contains("\"many-250\""), "{complaint}");
    place.log().unsubscribe(&names[250]).unwrap();
    run(place.jlog("subscribe", list.iter().chain(&["many-070"])), "").failed(1);
    assert_eq!(place.subscribers(), ["s"]);
    assert_eq!(place.snapshot().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());

    place.ok("subscribe", &[&list[..], &["--after", "1:2"]].concat());
    for name in &names {
        assert_eq!(place.checkpoint(name), LogId::new(1, 2), "{name}");
    }
    // Only the checkpoints were added.
    assert_eq!(place.snapshot().len(), before.len() + names.len());
}

#[test]
fn moving_the_last_subscriber_forward_frees_segments() {
    let place = numbered();
    place.ok("subscribe", &["t"]);
    place.ok("subscribe", &["t", "--move", "--end"]);
    assert_eq!(place.segments().len(), 3);
    place.ok("subscribe", &["s", "--move", "--after", "1:1"]);
    assert_eq!(place.segments(), ["00000001", "00000002"]);
    assert_eq!(lines(&place.ok("read", &["s"])), ["m6", "m7", "m8", "m9", "m10"]);
}

#[test]
fn a_place_that_is_not_there_is_refused() {
    let place = numbered();
    let before = place.snapshot();
    for arguments in [
        &["t", "--after", "3:0"][..],
        &["t", "--after", "2:3"],
        &["t", "--after", "0:5"],
        &["s", "--move", "--after", "2:3"],
        &["t", "--after", "ffffffff:ffffffff"],
    ] {
        let complaint = run(place.jlog("subscribe", arguments), "").failed(1);
        assert!(complaint.contains("has no record"), "{complaint}");
        assert!(complaint.contains(place.feed.to_str().unwrap()), "{complaint}");
    }
    let complaint = run(place.jlog("subscribe", ["t", "--copy", "nobody"]), "").failed(1);
    assert!(complaint.contains("has no subscriber \"nobody\""), "{complaint}");
    assert!(place.snapshot() == before);
}

#[test]
fn a_subscriber_that_is_removed_is_gone() {
    let place = numbered();
    place.ok("subscribe", &["t"]);
    assert_eq!(place.ok("unsubscribe", &["t"]), "");
    assert_eq!(place.subscribers(), ["s"]);
    run(place.jlog("unsubscribe", ["t"]), "").failed(1);
}

#[test]
fn names_may_have_any_bytes() {
    let place = Place::with(&[], &["one"]);
    let long = "n".repeat(126);
    let names: [&[u8]; 10] = [
        b"two words",
        b"../../etc/passwd",
        b"-f",
        b"~temporary",
        "\u{dc}ml\u{e4}ut \u{1f512}".as_bytes(),
        b"\xff\xfe",
        b"\xff\xfd",
        b"line\nbreak",
        b"\x1b[31mred",
        long.as_bytes(),
    ];
    for name in names {
        let mut command = place.jlog("subscribe", ["--"]);
        command.arg(OsStr::from_bytes(name));
        let done = run(command, "");
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", name.escape_ascii());
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(place.feed.join(format!("cp.{hex}")).is_file());
    }
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 1, "nothing beside the feed");
    for name in names {
        let mut command = place.jlog("read", ["--"]);
        command.arg(OsStr::from_bytes(name));
        assert_eq!(run(command, "").text(), "one\n", "{}", name.escape_ascii());
        let mut command = place.jlog("unsubscribe", ["--"]);
        command.arg(OsStr::from_bytes(name));
        run(command, "").ok();
    }
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn what_is_said_of_a_name_is_one_plain_line() {
    let place = Place::with(&[], &["one"]);
    for name in ["line\nbreak", "\x1b[31mred", "tab\tbell\x07"] {
        let said = run(place.jlog("subscribe", [name]), "").text();
        assert_eq!(said.lines().count(), 1, "{said:?}");
        assert!(!said.trim_end().chars().any(char::is_control), "{said:?}");
        let complaint = run(place.jlog("subscribe", [name]), "").failed(1);
        assert!(!complaint.chars().any(char::is_control), "{complaint:?}");
    }
}

#[test]
fn an_id_past_the_end_is_taken_only_when_that_is_asked_for() {
    let place = numbered();
    assert_eq!(run(place.jlog("subscribe", ["t", "--force"]), "").code, Some(2), "--force is about an id");
    assert_eq!(
        place.ok("subscribe", &["t", "--force", "--after", "2:9"]),
        "t begins after 00000002:00000009\n"
    );
    assert_eq!(place.checkpoint("t"), LogId::new(2, 9));
    let complaint = run(place.jlog("subscribe", ["t", "--force", "--after", "2:8"]), "").failed(1);
    assert!(complaint.contains("--move"), "{complaint}");
    place.ok("subscribe", &["s", "--force", "--move", "--after", "2:9"]);
    assert_eq!(place.checkpoint("s"), LogId::new(2, 9));
}

#[test]
fn a_move_back_is_reported() {
    let place = numbered();
    place.ok("subscribe", &["t", "--end"]);
    let done = run(place.jlog("subscribe", ["t", "--move", "--after", "1:1"]), "");
    assert_eq!(done.stdout, b"t begins after 00000001:00000001\n");
    let reported = "subscriber t: moved back from 00000002:00000002 to 00000001:00000001";
    assert!(done.stderr.contains(reported), "{}", done.stderr);
    let done = run(place.jlog("subscribe", ["t", "--move", "--end"]), "");
    assert_eq!(done.stderr, "");
}

#[test]
fn a_script_that_subscribes_may_run_twice() {
    let place = numbered();
    assert_eq!(
        place.ok("subscribe", &["t", "--if-missing", "--after", "0:2"]),
        "t begins after 00000000:00000002\n"
    );
    place.ok("read", &["t", "-n", "3"]);
    let said = place.ok("subscribe", &["t", "--if-missing", "--after", "0:2"]);
    assert_eq!(said, "t exists already, after 00000001:00000001\n");
    assert_eq!(place.checkpoint("t"), LogId::new(1, 1));
    assert_eq!(run(place.jlog("subscribe", ["t", "--if-missing", "--move"]), "").code, Some(2));
}

#[test]
fn a_subscriber_begins_at_a_time() {
    let place = Place::new(&["--segment-size", "72"]);
    let writer = place.log().writer().unwrap();
    for n in 0..10 {
        writer.append_at(crate::support::time(n).0, format!("m{n}")).unwrap();
    }
    crate::support::end(writer);
    for (n, since) in [(0, "yesterday"), (10, "2026-03-01"), (4, "2026-03-01 12:00:06")] {
        place.ok("subscribe", &["t", "--since", since]);
        assert_eq!(place.unread("t").len(), n, "{since}");
        place.ok("unsubscribe", &["t"]);
    }
}

#[test]
fn unknown_subscribers_come_with_the_names_that_are_meant() {
    let place = numbered();
    place.ok("unsubscribe", &["s"]);
    let complaint = |name: &str| {
        let all: Vec<String> = [
            &["read", name][..],
            &["read", name, "-f"],
            &["unsubscribe", name],
            &["subscribe", "new", "--copy", name],
        ]
        .iter()
        .map(|arguments| run(place.jlog(arguments[0], &arguments[1..]), "").failed(1))
        .collect();
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0].clone()
    };
    let feed = place.feed.display();
    let none = format!("{feed} has no subscriber \"biling\": it has none; add one with `jlog subscribe`");
    assert_eq!(complaint("biling"), none);
    for name in ["audit", "billing"] {
        place.ok("subscribe", &[name]);
    }
    let meant = format!(
        "{feed} has no subscriber \"biling\": did you mean \"billing\"? it has \"audit\", \"billing\"; \
         `jlog subscribe` adds one"
    );
    assert_eq!(complaint("biling"), meant);
    assert!(complaint("BILLING").contains("did you mean \"billing\"?"));
    let other = complaint("something else");
    assert!(!other.contains("did you mean") && other.contains("it has \"audit\", \"billing\""), "{other}");
}

#[test]
fn no_complaint_names_a_function() {
    let place = numbered();
    let nowhere = place.path("no/such/feed");
    let mut complaints = vec![
        run(place.jlog("subscribe", ["s"]), "").failed(1),
        run(place.jlog("read", ["nobody"]), "").failed(1),
        run(place.jlog("create", crate::support::NONE), "").failed(1),
        run(place.jlog("read", ["--from", "00000009:00000001"]), "").failed(1),
        run(crate::support::jlog(["status".as_ref(), nowhere.as_os_str()]), "").failed(1),
    ];
    let complaint = run(crate::support::jlog(["create".as_ref(), nowhere.as_os_str()]), "").failed(1);
    let above = place.path("no/such");
    assert!(
        complaint.ends_with(&format!("; there is no directory {}: create it first", above.display())),
        "{complaint}"
    );
    complaints.push(complaint);
    for complaint in complaints {
        assert!(!complaint.contains("::"), "{complaint}");
    }
}

#[test]
fn several_subscribers_are_added_together_or_not_at_all() {
    let place = Place::with(&[], &["one", "two"]);
    let said = place.ok("subscribe", &["a", "b", "c", "--end"]);
    let expected = ["a", "b", "c"].map(|name| format!("{name} begins after 00000000:00000002\n")).concat();
    assert_eq!(said, expected);

    run(place.jlog("subscribe", ["d", "a", "e"]), "").failed(1);
    run(place.jlog("subscribe", ["f", "g", "f"]), "").failed(1);
    assert_eq!(place.subscribers(), ["a", "b", "c", "s"]);

    place.ok("subscribe", &["a", "d", "--if-missing"]);
    assert_eq!(place.subscribers(), ["a", "b", "c", "d", "s"]);
    assert_eq!(place.log().checkpoint("a").unwrap().marker, 2);
    assert_eq!(place.log().checkpoint("d").unwrap().marker, 0);
}
