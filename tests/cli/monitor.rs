//! `jlog check`, as monitoring systems call it.

use std::os::unix::fs::PermissionsExt;

use jlog_core::compat::JlogCompat;
use jlog_core::{LogId, Start, Timestamp};

use crate::support::{Place, jlog, run};

/// The exit code, the text before the bar, and the figures after it.
fn check(place: &Place, arguments: &[&str]) -> (i32, String, Vec<String>) {
    let done = run(place.jlog("check", arguments), "");
    assert_eq!(done.stderr, "");
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let (said, figures) = text.trim_end().split_once(" | ").unwrap_or((text.trim_end(), ""));
    let figures = figures.split(" '").map(|figure| figure.trim_start_matches('\'').to_owned()).collect();
    (done.code.unwrap(), said.to_owned(), figures)
}

#[test]
fn limits_make_warnings_and_critical_states() {
    let place = Place::new(&[]);
    let (code, said, _) = check(&place, &["--max-messages", "0"]);
    assert_eq!(code, 0);
    assert!(said.starts_with("JLOG OK: 1 subscriber, none behind; "), "{said}");
    let old = Timestamp { seconds: Timestamp::now().seconds - 300, micros: 0 };
    let writer = place.log().writer().unwrap();
    writer.append_batch_with_times(&[(old, "one"), (old, "two"), (old, "three")]).unwrap();
    writer.close().unwrap();
    let (code, said, figures) = check(&place, &[]);
    assert_eq!(code, 0);
    assert!(said.starts_with("JLOG OK: 1 subscriber, furthest behind s: 3 messages, 5min; "), "{said}");
    assert!(figures[0].starts_with("s lag'=30") && figures[0].ends_with("s;;;0"), "{figures:?}");
    assert_eq!(figures[1..3], ["s messages'=3;;;0", "s bytes'=59B;;;0"]);
    assert!(figures[3].starts_with("size'=59B;;;0") && figures[4].starts_with("free'="), "{figures:?}");
    for (arguments, code, said) in [
        (&["--max-messages", "3"][..], 0, "JLOG OK: "),
        (&["--max-messages", "2"], 2, "JLOG CRITICAL: s: 3 messages behind, more than 2"),
        (
            &["--warn-messages", "2", "--max-messages", "3"],
            1,
            "JLOG WARNING: s: 3 messages behind, more than 2",
        ),
        (&["--max-lag", "10min"], 0, "JLOG OK: "),
        (&["--max-lag", "2min"], 2, "JLOG CRITICAL: s: its oldest message is 5min old, more than 2min"),
        (&["--warn-lag", "2min"], 1, "JLOG WARNING: s: its oldest message is 5min old, more than 2min"),
        (&["--min-free", "1KiB"], 0, "JLOG OK: "),
        (&["--subscriber", "s", "--max-messages", "3"], 0, "JLOG OK: "),
        (&["--subscriber", "t"], 2, "JLOG CRITICAL: there is no subscriber t"),
        // The worst comes first.
        (
            &["--warn-lag", "2min", "--max-messages", "1"],
            2,
            "JLOG CRITICAL: s: 3 messages behind, more than 1; s: its oldest message is 5min old, more than 2min",
        ),
    ] {
        let done = check(&place, arguments);
        assert_eq!(done.0, code, "{arguments:?}: {}", done.1);
        assert!(done.1.starts_with(said), "{arguments:?}: {}", done.1);
    }
    let (code, said, figures) =
        check(&place, &["--min-free", "1000000GiB", "--warn-free", "1TiB", "--max-messages", "9"]);
    assert_eq!(code, 2);
    assert!(said.contains(" free, less than "), "{said}");
    assert_eq!(figures[1], "s messages'=3;;9;0");
    assert!(figures[4].ends_with("B;1099511627776:;1073741824000000:;0"), "{figures:?}");
}

#[test]
fn what_is_damaged_or_gone_is_critical_and_what_cannot_be_seen_unknown() {
    let place = Place::new(&[]);
    let log = place.log();
    log.subscribe("bad", Start::Beginning).unwrap();
    log.subscribe("a|b\n'=c", Start::Beginning).unwrap();
    place.append(&["one"]);
    log.store_checkpoint("beyond", LogId::new(9, 9)).unwrap();
    std::fs::write(place.feed.join("cp.626164"), "x").unwrap();
    let (code, said, figures) = check(&place, &[]);
    assert_eq!(code, 2);
    assert_eq!(
        said,
        "JLOG CRITICAL: bad: its checkpoint cannot be read; beyond: its checkpoint 00000009:00000009 is past the end"
    );
    // A name cannot forge figures or lines.
    assert!(figures.contains(&"a\\x7cb\\n''_c messages'=1;;;0".to_owned()), "{figures:?}");

    std::fs::write(place.feed.join("metastore"), "x").unwrap();
    let (code, said, _) = check(&place, &[]);
    assert!(code == 2 && said.starts_with("JLOG CRITICAL: "), "{said}");
    let missing = Place::empty();
    let (code, said, figures) = check(&missing, &[]);
    assert!(code == 2 && said.contains("feed") && figures == [""], "{said}");
    if !nix::unistd::geteuid().is_root() {
        std::fs::set_permissions(&place.feed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let (code, said, _) = check(&place, &[]);
        std::fs::set_permissions(&place.feed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(code == 3 && said.starts_with("JLOG UNKNOWN: "), "{said}");
    }
}

#[test]
fn a_wrong_command_line_is_no_critical_state() {
    let place = Place::new(&[]);
    for arguments in [&["check"][..], &["check", "x", "--max-lag", "soon"], &["check", "x", "y"]] {
        let done = run(jlog(arguments), "");
        assert_eq!(done.code, Some(3), "{arguments:?}");
        assert_ne!(done.stderr, "");
    }
    assert_eq!(run(jlog(["check", "--help"]), "").code, Some(0));
    let before = place.snapshot();
    check(&place, &["--max-lag", "1s"]);
    assert!(place.snapshot() == before);
}
