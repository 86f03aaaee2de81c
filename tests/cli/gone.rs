//! Feeds and subscribers that disappear while a command follows them, and that appear later.

use nix::sys::signal::Signal;

use crate::support::{Lines, NONE, Place, Running, collect, copy_dir, run, until};

/// Starts every command that follows a feed. Each has shown the message `one` when this returns.
fn followers(place: &Place, wait: bool) -> Vec<(Running, Lines)> {
    let mut followers = Vec::new();
    place.ok("subscribe", &["peeks"]);
    for arguments in [
        &["read", "peeks", "-f", "--peek"][..],
        &["read", "s", "-f"],
        &["read", "--from", "0:1", "-f"],
        &["tail", "--last", "1"],
    ] {
        let mut command = place.jlog(arguments[0], &arguments[1..]);
        command.args(wait.then_some("--wait"));
        let (running, lines) = Running::with_lines(command);
        assert_eq!(lines.next().as_deref(), Some("one\n"), "{arguments:?}");
        followers.push((running, lines));
    }
    until("the checkpoint has followed", || place.checkpoint("s").marker == 1);
    followers
}

/// Checks that all commands end with exit code 1 and this message.
fn all_end(followers: Vec<(Running, Lines)>, says: &str) {
    for (mut running, lines) in followers {
        let done = running.done();
        assert_eq!(done.code, Some(1));
        assert!(done.complaint().contains(says), "{}", done.stderr);
        assert_eq!(lines.rest(), [""; 0]);
    }
}

#[test]
fn followers_end_when_the_feed_is_removed() {
    let place = Place::with(&[], &["one"]);
    let followers = followers(&place, false);
    std::fs::remove_dir_all(&place.feed).unwrap();
    for (mut running, lines) in followers {
        let done = running.done();
        assert_eq!(done.code, Some(1));
        // The files disappear one after the other: the checkpoint may be noticed first.
        let complaint = done.complaint();
        assert!(complaint.contains("removed"), "{complaint}");
        assert_eq!(lines.rest(), [""; 0]);
    }
    assert!(!place.feed.exists());
}

#[test]
fn followers_end_when_the_feed_is_moved_away() {
    let place = Place::with(&[], &["one"]);
    let followers = followers(&place, false);
    std::fs::rename(&place.feed, place.path("elsewhere")).unwrap();
    all_end(followers, "was removed or replaced while it was open");
}

#[test]
fn followers_end_when_another_feed_takes_its_place() {
    let place = Place::with(&[], &["one"]);
    let followers = followers(&place, false);
    // No message of the new feed is taken for one of the old feed.
    let other = place.path("other");
    run(crate::support::jlog(["create".as_ref(), other.as_os_str()]), "").ok();
    let writer = jlog_core::Jlog::open(&other).unwrap().writer().unwrap();
    writer.append_batch(&["one", "not of this feed"]).unwrap();
    crate::support::end(writer);
    std::fs::rename(&place.feed, place.path("elsewhere")).unwrap();
    std::fs::rename(&other, &place.feed).unwrap();
    for (mut running, lines) in followers {
        let done = running.done();
        assert_eq!(done.code, Some(1));
        // The command may have looked between the two renames.
        assert!(done.complaint().contains("was removed or replaced while it was open"), "{}", done.stderr);
        assert_eq!(lines.rest(), [""; 0]);
    }
}

#[test]
fn a_follower_ends_when_a_directory_above_is_moved_away() {
    let place = Place::empty();
    let above = place.path("above");
    std::fs::create_dir(&above).unwrap();
    let feed = above.join("feed");
    run(crate::support::jlog(["create".as_ref(), feed.as_os_str()]), "").ok();
    let writer = jlog_core::Jlog::open(&feed).unwrap().writer().unwrap();
    writer.append("one").unwrap();
    crate::support::end(writer);
    let mut command = crate::support::jlog(["tail", "--last=1"]);
    command.arg(&feed);
    let (mut running, lines) = Running::with_lines(command);
    assert_eq!(lines.next().as_deref(), Some("one\n"));
    std::fs::rename(&above, place.path("elsewhere")).unwrap();
    let done = running.done();
    assert_eq!(done.code, Some(1));
    assert!(done.complaint().contains("was removed or replaced while it was open"), "{}", done.stderr);
    assert_eq!(lines.rest(), [""; 0]);
}

#[test]
fn a_follower_ends_when_its_subscriber_is_removed() {
    for again in [false, true] {
        let place = Place::with(&["--segment-size", "100"], &["one"]);
        let (mut running, lines) = Running::with_lines(place.jlog("read", ["s", "-f"]));
        assert_eq!(lines.next().as_deref(), Some("one\n"));
        until("the checkpoint has followed", || place.checkpoint("s").marker == 1);
        place.ok("unsubscribe", &["s"]);
        if again {
            // A new subscriber of the same name is a different subscriber.
            place.ok("subscribe", &["s", "--end"]);
        }
        let done = running.done();
        assert_eq!(done.code, Some(1));
        let expected =
            format!("the subscriber \"s\" of {} was removed while it was being read", place.feed.display());
        assert_eq!(done.complaint(), expected);
        assert_eq!(lines.rest(), [""; 0]);
        assert_eq!(place.subscribers().len(), usize::from(again));
    }
}

#[test]
fn a_reader_whose_subscriber_is_removed_amid_data_ends() {
    let messages: Vec<String> = (1..=5000).map(|n| format!("message {n} of many")).collect();
    let place = Place::with(&["--segment-size", "16KiB"], &messages);
    place.ok("subscribe", &["other", "--end"]);
    let (out, pipe) = std::io::pipe().unwrap();
    let ours = pipe.try_clone().unwrap();
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    crate::support::until_full(&ours);
    drop(ours);
    place.ok("unsubscribe", &["s"]);
    // Nothing retains the remaining messages now.
    place.ok("clean", &[]);
    let out = collect(out);
    let done = reader.done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.complaint().contains("the subscriber \"s\""), "{}", done.stderr);
    let shown = String::from_utf8(out.join().unwrap()).unwrap();
    assert!(shown.lines().zip(&messages).all(|(shown, message)| shown == message));
}

#[test]
fn followers_go_on_with_a_new_feed_when_they_wait() {
    let place = Place::with(&[], &["one"]);
    let followers = followers(&place, true);
    std::fs::remove_dir_all(&place.feed).unwrap();
    for round in ["two", "three"] {
        // The feed appears whole, with its subscriber and messages.
        let fresh = Place::with(&[], &[round]);
        fresh.ok("subscribe", &["peeks"]);
        copy_dir(&fresh.feed, &place.path("new"));
        std::fs::rename(place.path("new"), &place.feed).unwrap();
        for (_, lines) in &followers {
            assert_eq!(lines.next(), Some(format!("{round}\n")));
        }
        run(place.jlog("write", ["-q"]), format!("after {round}\n")).ok();
        for (_, lines) in &followers {
            assert_eq!(lines.next(), Some(format!("after {round}\n")));
        }
        std::fs::rename(&place.feed, place.path(format!("was {round}"))).unwrap();
    }
    for (mut running, lines) in followers {
        running.signal(Signal::SIGTERM);
        let done = running.done();
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.lines().all(|line| line.ends_with("; waiting")), "{}", done.stderr);
        assert!(
            done.stderr.contains("was removed") || done.stderr.contains("removed or replaced"),
            "{}",
            done.stderr
        );
        assert_eq!(lines.rest(), [""; 0]);
    }
}

#[test]
fn a_feed_that_does_not_exist_yet_is_waited_for() {
    let place = Place::empty();
    let (mut tail, tail_lines) = Running::with_lines(place.jlog("tail", ["--wait", "-n", "2"]));
    let (mut read, read_lines) = Running::with_lines(place.jlog("read", ["s", "--wait", "-f", "-n", "2"]));
    let mut notes = Vec::new();
    for running in [&mut tail, &mut read] {
        let lines = Lines::of(running.stderr.take().unwrap());
        let note = lines.next().unwrap();
        assert!(note.contains("is not a jlog: the path does not exist"), "{note}");
        assert!(note.ends_with("; waiting\n"), "{note}");
        notes.push(lines);
    }
    run(place.jlog("write", ["-q", "--create"]), "one\n").ok();
    // Every message of a feed that did not exist is new.
    assert_eq!(tail_lines.next().as_deref(), Some("one\n"));
    let note = notes[1].next().unwrap();
    assert!(note.contains("has no subscriber \"s\"") && note.ends_with("; waiting\n"), "{note}");
    place.ok("subscribe", &["s"]);
    assert_eq!(read_lines.next().as_deref(), Some("one\n"));
    run(place.jlog("write", ["-q"]), "two\n").ok();
    assert_eq!(tail_lines.rest(), ["two\n"]);
    assert_eq!(read_lines.rest(), ["two\n"]);
    assert_eq!((tail.end(), read.end()), (Some(0), Some(0)));
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_feed() {
    for arguments in [&["tail"][..], &["read", "s", "-f"], &["read", "s"]] {
        let place = Place::empty();
        let mut command = place.jlog(arguments[0], &arguments[1..]);
        command.arg("--wait");
        let (mut running, lines) = Running::with_lines(command);
        let notes = Lines::of(running.stderr.take().unwrap());
        notes.next().unwrap();
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end(), Some(0));
        assert_eq!((lines.rest().len(), notes.rest().len()), (0, 0));
        assert!(!place.feed.exists());
    }
}

#[test]
fn a_tail_that_waits_subscribes_again_where_it_was() {
    let place = Place::with(&[], &["one"]);
    let (mut tail, lines) = Running::with_lines(place.jlog("tail", ["--wait"]));
    let name = format!("~tail-{}", tail.id());
    until("the tail has subscribed", || place.subscribers().contains(&name));
    run(place.jlog("write", ["-q"]), "two\n").ok();
    assert_eq!(lines.next().as_deref(), Some("two\n"));
    place.log().unsubscribe(&name).unwrap();
    until("the tail has subscribed again", || place.subscribers().contains(&name));
    run(place.jlog("write", ["-q"]), "three\n").ok();
    assert_eq!(lines.next().as_deref(), Some("three\n"));
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.done().code, Some(0));
    assert_eq!(lines.rest(), [""; 0]);
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_metastore_that_is_lost_is_no_reason_to_create_a_feed() {
    let place = Place::with(&[], &["one", "two"]);
    std::fs::remove_file(place.feed.join("metastore")).unwrap();
    let before = place.snapshot();
    for arguments in [
        &["write", "-q"][..],
        &["write", "-q", "--create"],
        &["create"],
        &["subscribe", "t"],
        &["unsubscribe", "s"],
        &["read", "s"],
        &["read", "s", "-f"],
        &["read", "--from", "0:1"],
        &["cat"],
        &["tail"],
        &["status"],
        &["inspect"],
        &["verify"],
        &["clean"],
        &["alter", "--segment-size", "1MiB"],
        &["meta"],
    ] {
        let complaint = run(place.jlog(arguments[0], &arguments[1..]), "three\n").failed(3);
        let expected = format!("{} has lost its metastore: `jlog repair` rebuilds it", place.feed.display());
        assert!(complaint.starts_with(&expected), "{arguments:?}: {complaint}");
        assert!(!complaint.contains("jlog create"), "{arguments:?}: {complaint}");
        assert!(place.snapshot() == before, "{arguments:?}");
    }
    // Repair helps, as the message says.
    assert_eq!(run(place.jlog("repair", NONE), "").code, Some(0));
    assert_eq!(place.ok("read", &["s"]), "one\ntwo\n");
}

/// A writer, and a function that writes to its standard input.
fn writer(place: &Place, arguments: &[&str]) -> (Running, impl FnMut(&str) + use<>) {
    let mut running = Running::start(&mut place.jlog("write", arguments));
    let mut stdin = running.stdin.take().unwrap();
    (running, move |text: &str| std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap())
}

/// A writer that may reopen continues in the feed that replaces its own, and loses nothing in
/// between.
#[test]
fn a_writer_goes_on_in_the_feed_that_replaces_its_own() {
    for durability in ["buffered", "durable"] {
        let place = Place::with(&[], &["one"]);
        let backup = place.path("backup");
        copy_dir(&place.feed, &backup);
        let (mut running, mut type_in) = writer(&place, &["--reopen", "--durability", durability]);
        let log = jlog_core::Jlog::open(&place.feed).unwrap();
        type_in("two\n");
        until("it is written", || log.end().unwrap().marker == 2);
        // A writer keeps its lock for a millisecond, and checks the path when it takes it again.
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::remove_dir_all(&place.feed).unwrap();
        type_in("three\n");
        // The writer waits, and does not create a feed that would be in the way of a restore.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!place.feed.exists());
        std::fs::rename(&backup, &place.feed).unwrap();
        let log = jlog_core::Jlog::open(&place.feed).unwrap();
        until("it goes on", || log.end().unwrap().marker == 2);
        type_in("four\n");
        drop(type_in);
        let done = running.done();
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let reported =
            "was replaced: writing continues in the new feed; the 1 message before went to the old one";
        assert!(done.stderr.contains(reported), "{}", done.stderr);
        assert_eq!(place.unread("s"), [&b"one"[..], b"three", b"four"]);
    }
}

/// Earlier messages are in the old feed, which nobody reads: the writer does not exit successfully.
#[test]
fn a_feed_that_is_replaced_after_the_last_message_is_reported() {
    for durability in ["buffered", "readable", "durable"] {
        for (reopen, code, says) in [
            (&[][..], 1, "was removed or replaced while it was open"),
            (&["--reopen"], 0, "was replaced after the last message: 1 message went to the old one"),
        ] {
            let place = Place::with(&[], &["one"]);
            let backup = place.path("backup");
            copy_dir(&place.feed, &backup);
            let (mut running, mut type_in) =
                writer(&place, &[&["--durability", durability][..], reopen].concat());
            let log = jlog_core::Jlog::open(&place.feed).unwrap();
            type_in("two\n");
            until("it is written", || log.end().unwrap().marker == 2);
            // Before it reads its input again, the writer may still sync, and get the error there.
            let called = format!("/proc/{}/syscall", running.id());
            until("it waits for more", || {
                std::fs::read_to_string(&called).unwrap().split(' ').nth(1) == Some("0x0")
            });
            std::fs::remove_dir_all(&place.feed).unwrap();
            std::fs::rename(&backup, &place.feed).unwrap();
            drop(type_in);
            let done = running.done();
            assert_eq!(done.code, Some(code), "{durability}: {}", done.stderr);
            assert!(done.stderr.contains(says), "{durability}: {}", done.stderr);
            if code == 1 {
                assert!(done.stderr.contains("(1 message was written before that)"), "{}", done.stderr);
            }
            assert_eq!(place.unread("s"), [b"one"]);
        }
    }
}

#[test]
fn a_writer_that_may_reopen_waits_for_its_feed_from_the_start() {
    let place = Place::with(&[], &["one"]);
    let elsewhere = place.path("elsewhere");
    std::fs::rename(&place.feed, &elsewhere).unwrap();
    let (mut running, mut type_in) = writer(&place, &["--reopen", "-q"]);
    let notes = Lines::of(running.stderr.take().unwrap());
    let note = notes.next().unwrap();
    assert!(note.ends_with("waiting up to 60 seconds for it\n"), "{note}");
    std::fs::rename(&elsewhere, &place.feed).unwrap();
    type_in("two\n");
    drop(type_in);
    assert_eq!(notes.rest(), [""; 0]);
    assert_eq!(running.end(), Some(0));
    assert_eq!(place.unread("s"), [&b"one"[..], b"two"]);
}

#[test]
fn a_writer_that_may_not_reopen_fails() {
    let place = Place::with(&[], &["one"]);
    let backup = place.path("backup");
    copy_dir(&place.feed, &backup);
    let (mut running, mut type_in) = writer(&place, &[]);
    let log = jlog_core::Jlog::open(&place.feed).unwrap();
    type_in("two\n");
    until("it is written", || log.end().unwrap().marker == 2);
    std::thread::sleep(std::time::Duration::from_millis(50));
    std::fs::remove_dir_all(&place.feed).unwrap();
    std::fs::rename(&backup, &place.feed).unwrap();
    type_in("three\n");
    drop(type_in);
    let done = running.done();
    assert_eq!(done.code, Some(1));
    assert!(done.complaint().contains("was removed or replaced"), "{}", done.stderr);
    assert_eq!(place.unread("s"), [b"one"]);
}
