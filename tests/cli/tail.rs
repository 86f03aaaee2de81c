//! `jlog tail`.

use std::io::Write;
use std::process::Stdio;

use jlog_core::Start;
use nix::sys::signal::Signal;

use crate::support::{Lines, NONE, Place, Running, bare, close, run, until, until_full};

/// Starts a tail, waits until it has subscribed, and returns its subscriber's name.
fn tail(place: &Place, arguments: &[&str]) -> (Running, Lines, String) {
    let (tail, lines) = Running::with_lines(place.jlog("tail", arguments));
    let name = format!("~tail-{}", tail.id());
    until("the tail has subscribed", || place.subscribers().contains(&name));
    (tail, lines, name)
}

fn write(place: &Place, input: &str) {
    run(place.jlog("write", ["-q"]), input).ok();
}

#[test]
fn a_tail_shows_what_is_written_from_now_on() {
    let place = Place::with(&[], &["before"]);
    let (mut tail, lines, _) = tail(&place, &["-o", "short"]);
    write(&place, "after\n\n");
    let line = lines.next().unwrap();
    assert!(line.ends_with(" 00000000:00000002 after\n"), "{line}");
    assert!(lines.next().unwrap().ends_with(" 00000000:00000003 \n"));
    tail.signal(Signal::SIGINT);
    let done = tail.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines.rest(), [""; 0]);
    // Other subscribers are not disturbed.
    assert_eq!(place.unread("s").len(), 3);
}

#[test]
fn a_signal_removes_the_subscriber() {
    // SIGHUP arrives when the terminal is closed.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        for messages in ["", "one\ntwo\n"] {
            let place = Place::new(&[]);
            let (mut tail, lines, _) = tail(&place, &[]);
            write(&place, messages);
            for _ in messages.lines() {
                lines.next().unwrap();
            }
            tail.signal(signal);
            let done = tail.done();
            assert_eq!(place.subscribers(), ["s"], "{signal}");
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{signal}");
        }
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let place = Place::new(&[]);
    let jlog = env!("CARGO_BIN_EXE_jlog");
    let mut command = bare("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" tail \"$1\" -n 2", jlog]).arg(&place.feed);
    let (mut tail, lines) = Running::with_lines(command);
    until("it is there", || place.subscribers().len() == 2);
    tail.signal(Signal::SIGHUP);
    write(&place, "one\ntwo\n");
    assert_eq!(lines.rest(), ["one\n", "two\n"]);
    assert_eq!(tail.end(), Some(0));
}

#[test]
fn a_count_removes_the_subscriber() {
    let place = Place::new(&[]);
    let (mut tail, lines, _) = tail(&place, &["-n", "2"]);
    write(&place, "one\ntwo\nthree\n");
    assert_eq!(lines.rest(), ["one\n", "two\n"]);
    assert_eq!(tail.done().code, Some(0));
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_broken_pipe_removes_the_subscriber() {
    let place = Place::new(&[]);
    let (out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("tail", NONE);
    let mut tail = Running::start(command.stdout(pipe));
    drop(command);
    until("the tail has subscribed", || place.subscribers().len() == 2);
    close(out);
    write(&place, "one\n");
    let done = tail.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_tail_that_nobody_listens_to_ends_and_leaves_nothing() {
    let place = Place::new(&[]);
    let (_out, pipe) = std::io::pipe().unwrap();
    let ours = pipe.try_clone().unwrap();
    let mut command = place.jlog("tail", NONE);
    let mut tail = Running::start(command.stdout(pipe));
    drop(command);
    until("the tail has subscribed", || place.subscribers().len() == 2);
    write(&place, &"a line that fills a pipe\n".repeat(40_000));
    until_full(&ours);
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.done().code, Some(0));
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn what_a_killed_tail_left_goes_with_the_next_one() {
    let place = Place::new(&[]);
    let (mut killed, _lines, left) = tail(&place, &[]);
    let (mut living, _other_lines, stays) = tail(&place, &[]);
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.end(), None);
    assert!(place.subscribers().contains(&left));

    let (mut next, _next_lines, own) = tail(&place, &[]);
    let mut names = place.subscribers();
    names.sort();
    let mut expected = ["s".to_owned(), stays, own];
    expected.sort();
    assert_eq!(names, expected);
    for tail in [&mut living, &mut next] {
        tail.signal(Signal::SIGTERM);
        assert_eq!(tail.done().code, Some(0));
    }
    assert_eq!(place.subscribers(), ["s"]);
}

/// The process of a tail in another namespace cannot be seen, but it has claimed its subscriber.
#[test]
fn a_tail_that_reads_stays_though_its_process_cannot_be_seen() {
    let place = Place::new(&[]);
    let mut ended = bare("true").spawn().unwrap();
    ended.wait().unwrap();
    let name = format!("~tail-{}", ended.id());
    place.ok("subscribe", &["--", &name]);
    let log = place.log();
    let reader = log.reader(&name).unwrap();
    write(&place, "one\n");
    place.ok("tail", &["--last", "1", "-n", "1"]);
    assert!(place.subscribers().contains(&name));
    drop(reader);
    place.ok("tail", &["--last", "1", "-n", "1"]);
    assert_eq!(place.subscribers(), ["s"]);
}

/// The first process of a container has the same number each time.
#[test]
fn a_tail_with_the_number_of_another_one_reads_all_the_same() {
    let place = Place::new(&[]);
    write(&place, "one\n");
    let log = place.log();
    for claimed in [false, true] {
        let mut command = bare("sh");
        command.args(["-c", r#"echo $$; read -r _; exec "$0" tail "$1" --last 1 -n 1"#]);
        command.arg(env!("CARGO_BIN_EXE_jlog")).arg(&place.feed).stdin(Stdio::piped());
        let (mut tail, lines) = Running::with_lines(command);
        let name = format!("~tail-{}", lines.next().unwrap().trim_end());
        log.subscribe(&name, Start::Beginning).unwrap();
        let reader = claimed.then(|| log.reader(&name).unwrap());
        tail.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(lines.next().as_deref(), Some("one\n"), "claimed: {claimed}");
        assert_eq!(tail.done().code, Some(0));
        assert_eq!(place.subscribers().contains(&name), claimed);
        drop(reader);
    }
}

#[test]
fn subscribers_that_only_look_like_tails_stay() {
    let place = Place::new(&[]);
    let names = ["~tail-", "~tail-x", "~tail-1", "~tail--7", "tail-999999999", "~tail-99999999999999999999"];
    for name in names {
        place.ok("subscribe", &["--", name]);
    }
    let (mut tail, _lines, _) = tail(&place, &[]);
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.done().code, Some(0));
    let there = place.subscribers();
    assert!(names.iter().all(|name| there.contains(&(*name).to_owned())), "{there:?}");
}

#[test]
fn a_tail_begins_with_the_last_messages_when_told_to() {
    let messages: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    // Four messages to a segment.
    let place = Place::with(&["--segment-size", "72"], &messages);
    for last in [0, 1, 2, 3, 6, 7, 10, 11, 100_000_000_000] {
        let expected: Vec<String> =
            messages.iter().skip(10 - 10.min(last)).map(|m| format!("{m}\n")).collect();
        let (mut tail, lines, _) = tail(&place, &["--last", &last.to_string()]);
        for line in &expected {
            assert_eq!(lines.next().as_ref(), Some(line), "the last {last}");
        }
        tail.signal(Signal::SIGTERM);
        assert_eq!(tail.done().code, Some(0));
        assert_eq!(lines.rest(), [""; 0], "the last {last}");
    }
    // The tail continues with new messages.
    let (mut tail, lines, _) = tail(&place, &["--last", "1", "-n", "3"]);
    assert_eq!(lines.next().as_deref(), Some("m10\n"));
    write(&place, "new\nnewer\nnewest\n");
    assert_eq!(lines.rest(), ["new\n", "newer\n"]);
    assert_eq!(tail.end(), Some(0));
}

#[test]
fn a_tail_stops_at_damage_when_told_to() {
    let place = Place::with(&[], &["one", "two", "three"]);
    let path = place.feed.join("00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[19 + 16] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let done = run(place.jlog("tail", ["--last", "3", "--stop-at-damage"]), "");
    assert_eq!((done.code, done.stdout.as_slice()), (Some(1), &b"one\n"[..]));
    assert!(done.complaint().contains("is damaged at offset 19"), "{}", done.stderr);
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_tail_goes_on_behind_damage() {
    let place = Place::new(&["--segment-size", "40"]);
    let (mut tail, lines, _) = tail(&place, &["-n", "2"]);
    let path = place.feed.join("00000000");
    // A record with a wrong header and good ones after it are written at once.
    let mut bytes = vec![b'x'; 16];
    for body in [b"one", b"two"] {
        bytes.extend_from_slice(&0x663a_7318_u32.to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        bytes.extend_from_slice(body);
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(lines.rest(), ["one\n", "two\n"]);
    let done = tail.done();
    assert_eq!(done.code, Some(3));
    let kept = place.feed.join("00000000.broken-0");
    let expected =
        format!("segment 00000000: skipped 16 damaged bytes at offset 0, kept in {}", kept.display());
    assert_eq!(done.complaint(), expected);
    assert_eq!(std::fs::read(kept).unwrap(), [b'x'; 16]);
    assert_eq!(place.subscribers(), ["s"]);
}
