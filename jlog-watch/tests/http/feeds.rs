//! Feeds that appear, change, disappear, and cannot be read.

use std::os::unix::fs::PermissionsExt;

use jlog_core::{Jlog, Start};
use jlog_watch::Watch;

use crate::support::{Place, append, ask, consume, samples, serve, until};

#[test]
fn figures_are_exact_and_the_same_after_a_restart() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 100);
    consume(&log, 30);
    let bytes = log.status().unwrap().bytes;
    for _ in 0..2 {
        let server = serve(Watch::new().feeds(place.join("a")));
        let found = samples(&server);
        assert_eq!(found[&place.of_s("jlog_subscriber_lag_messages", "a")], 70.0);
        // A header of 16 bytes and a body of 12.
        assert_eq!(found[&place.of_s("jlog_subscriber_lag_bytes", "a")], 70.0 * 28.0);
        assert_eq!(found[&place.of("jlog_feed_stored_bytes", "a")], bytes as f64);
        let age = found[&place.of_s("jlog_subscriber_lag_seconds", "a")];
        assert!((0.0..60.0).contains(&age), "{age}");
        assert_eq!(found[&place.of_s("jlog_subscriber_holds_oldest", "a")], 1.0);
        assert_eq!(found[&place.of_s("jlog_subscriber_missed_messages", "a")], 0.0);
        assert_eq!(found[&place.of("jlog_feed_up", "a")], 1.0);
        // Nothing has happened since this server first looked.
        assert_eq!(found[&place.of("jlog_feed_appended_messages_total", "a")], 0.0);
        assert_eq!(found[&place.of_s("jlog_subscriber_consumed_messages_total", "a")], 0.0);
        assert!(found.values().all(|value| *value >= 0.0), "{found:?}");
    }
}

#[test]
fn what_any_writer_and_reader_does_is_counted() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 10);
    let server = serve(Watch::new().feeds(place.path()));
    let appended = place.of("jlog_feed_appended_messages_total", "a");
    let rolled = place.of("jlog_feed_rolled_segments_total", "a");
    let consumed = place.of_s("jlog_subscriber_consumed_messages_total", "a");
    assert_eq!(samples(&server)[&appended], 0.0);
    let before = log.meta().unwrap().storage_log;
    append(&log, 100);
    consume(&log, 60);
    let after = log.meta().unwrap().storage_log;
    until("100 messages appended", || samples(&server)[&appended] == 100.0);
    let found = samples(&server);
    assert_eq!(found[&rolled], f64::from(after - before));
    assert_eq!(found[&consumed], 60.0);
    assert_eq!(found[&place.of_s("jlog_subscriber_lag_messages", "a")], 50.0);
    // A subscriber that goes back has consumed nothing.
    log.set_checkpoint("s", log.start().unwrap()).unwrap();
    until("a larger lag", || samples(&server)[&place.of_s("jlog_subscriber_lag_messages", "a")] > 50.0);
    assert_eq!(samples(&server)[&consumed], 60.0);
    // Read to the end, nothing is old.
    let left = log.lag("s").unwrap().messages;
    consume(&log, usize::try_from(left).unwrap());
    until("no lag", || samples(&server)[&place.of_s("jlog_subscriber_lag_messages", "a")] == 0.0);
    let found = samples(&server);
    assert_eq!(found[&place.of_s("jlog_subscriber_lag_seconds", "a")], 0.0);
    assert_eq!(found[&place.of_s("jlog_subscriber_catch_up_seconds", "a")], 0.0);
    assert_eq!(found[&place.of_s("jlog_subscriber_holds_oldest", "a")], 0.0);
}

#[test]
fn feeds_of_a_directory_come_and_go() {
    let place = Place::new();
    place.feed("a");
    std::fs::create_dir_all(place.join("deep/er")).unwrap();
    place.feed("deep/er/b");
    std::os::unix::fs::symlink(place.path(), place.join("deep/loop")).unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let up = |feed: &str| samples(&server).get(&place.of("jlog_feed_up", feed)).copied();
    assert_eq!((up("a"), up("deep/er/b"), up("c")), (Some(1.0), Some(1.0), None));
    assert_eq!(up("deep/loop/a"), None);
    append(&place.feed("c"), 3);
    until("a new feed", || up("c") == Some(1.0));
    std::fs::remove_dir_all(place.join("a")).unwrap();
    until("a feed that is gone", || up("a") == Some(0.0));
    let found = samples(&server);
    assert!(!found.contains_key(&place.of("jlog_feed_stored_messages", "a")));
    assert_eq!(found[&place.of("jlog_feed_stored_messages", "c")], 3.0);
    // If it is recreated, it is another feed that starts from the beginning.
    append(&place.feed("a"), 7);
    until("a feed made again", || {
        samples(&server).get(&place.of("jlog_feed_stored_messages", "a")) == Some(&7.0)
    });
    // A directory without feeds is not an error: they may be created later.
    std::fs::create_dir(place.join("none")).unwrap();
    let server = serve(Watch::new().feeds(place.join("none")));
    assert_eq!(ask(&server, "/health/ready").status, 200);
}

#[test]
fn a_feed_that_cannot_be_read_hides_no_other() {
    let place = Place::new();
    place.feed("good");
    place.feed("bad");
    std::fs::write(place.join("bad/metastore"), "short").unwrap();
    let locked = place.feed("locked");
    let server = serve(
        Watch::new().feeds(place.path()).feeds(place.join("missing")).feeds(place.join("good/metastore")),
    );
    drop(locked);
    std::fs::set_permissions(place.join("locked"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let found = samples(&server);
    assert_eq!(found[&place.of("jlog_feed_up", "good")], 1.0);
    for feed in ["bad", "missing", "good/metastore"] {
        assert_eq!(found[&place.of("jlog_feed_up", feed)], 0.0, "{feed}");
    }
    let ready = ask(&server, "/health/ready");
    assert_eq!(ready.status, 503);
    let reasons = ready.json()["reasons"].clone();
    let kind = |feed: &str| {
        let feed = place.join(feed).display().to_string();
        let reason = reasons.as_array().unwrap().iter().find(|reason| reason["feed"] == *feed);
        reason.map(|reason| reason["kind"].as_str().unwrap().to_owned())
    };
    assert_eq!(kind("bad").as_deref(), Some("damage"));
    assert_eq!(kind("missing").as_deref(), Some("feed_unreadable"));
    assert_eq!(kind("good"), None);
    std::fs::set_permissions(place.join("locked"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn names_of_any_bytes_are_told_apart() {
    let place = Place::new();
    let log = Jlog::create(place.join("odd")).unwrap();
    let names: [&[u8]; 5] = [b"quote\"", b"line\nend", b"\xff", b"\\xff", "Zähler".as_bytes()];
    log.subscribe_all(&names, Start::Beginning).unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let body = ask(&server, "/metrics").body;
    for name in ["quote\\\"", "line\\nend", "\\\\xff", "\\\\\\\\xff", "Zähler"] {
        let line = format!("subscriber=\"{name}\"}} 0\n");
        assert!(body.contains(&line), "{line}: {body}");
    }
}
