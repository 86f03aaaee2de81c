//! Feeds that can be read but not written.

use nix::sys::signal::Signal;

use crate::support::{Lines, Place, Running, bare, lines, run, until};

/// `jlog <arguments>` with the feed (`FEED` among the arguments) mounted read-only; `None` if that
/// is not possible here. The command sees what is written from outside.
fn read_only(place: &Place, arguments: &[&str]) -> Option<std::process::Command> {
    let mount = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    let inside = |script: &str| {
        let mut command = bare("unshare");
        command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_jlog")]).arg(&place.feed);
        command
    };
    if !inside(&format!("{{ {mount} && ! touch \"$1/x\"; }} 2>/dev/null")).status().is_ok_and(|s| s.success())
    {
        eprintln!("skipped: nothing can be mounted here");
        return None;
    }
    let words: Vec<&str> =
        arguments.iter().map(|&argument| if argument == "FEED" { "\"$1\"" } else { argument }).collect();
    Some(inside(&format!("{mount} && exec \"$0\" {}", words.join(" "))))
}

#[test]
fn a_tail_needs_no_permission_to_write() {
    let place = Place::with(&["--segment-size", "100"], &["one", "two"]);
    let before = place.snapshot();
    let Some(command) = read_only(&place, &["tail", "FEED", "--last", "1"]) else { return };
    let (mut tail, lines) = Running::with_lines(command);
    assert_eq!(lines.next().as_deref(), Some("two\n"));
    assert!(place.snapshot() == before);
    for n in 0..20 {
        place.append(&[format!("message {n}")]);
        assert_eq!(lines.next(), Some(format!("message {n}\n")));
    }
    tail.signal(Signal::SIGTERM);
    let done = tail.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines.rest(), [""; 0]);
    assert_eq!(place.subscribers(), ["s"]);
}

#[test]
fn a_reader_without_a_subscriber_says_which_segments_went_before_it() {
    let messages: Vec<String> = (1..=12).map(|n| format!("{n:0>1000}")).collect();
    // Each segment has one message; the pipe takes a few of them.
    let place = Place::with(&["--segment-size", "1000"], &messages);
    let (out, pipe) = std::io::pipe().unwrap();
    if nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)) != Ok(4096) {
        eprintln!("skipped: a pipe cannot have 4096 bytes here");
        return;
    }
    let ours = pipe.try_clone().unwrap();
    let mut command = place.jlog("cat", crate::support::NONE);
    let mut cat = Running::start(command.stdout(pipe));
    drop(command);
    crate::support::until_full(&ours);
    drop(ours);
    place.ok("read", &["s", "-n", "10"]);
    assert_eq!(place.segments().len(), 4);
    let shown = Lines::of(out).rest();
    let done = cat.done();
    assert_eq!(done.code, Some(0));
    let gone = done.complaint();
    let first = shown.len() - 3;
    let expected = format!("segments {first:08x} to 00000008 were removed before they were read");
    assert_eq!(gone, expected);
    assert!((1..8).contains(&first), "{first}");
    let expected = messages[..first].iter().chain(&messages[9..]).map(|m| format!("{m}\n"));
    assert!(shown.into_iter().eq(expected));
}

#[test]
fn a_reader_that_cannot_store_its_checkpoint_says_so_first() {
    let place = Place::with(&[], &["one", "two"]);
    for arguments in [&["read", "FEED", "s"][..], &["read", "FEED", "s", "-f"]] {
        let Some(command) = read_only(&place, arguments) else { return };
        let complaint = run(command, "").failed(1);
        let expected = format!("cannot write {}: ", place.feed.join("cp.73").display());
        assert!(complaint.starts_with(&expected), "{complaint}");
        assert!(complaint.contains("read-only") && complaint.contains("--peek"), "{complaint}");
        assert!(complaint.contains("`jlog cat`"), "{complaint}");
    }
    for arguments in
        [&["read", "FEED", "s", "--peek"][..], &["cat", "FEED"], &["read", "FEED", "--from", "0:1"]]
    {
        let command = read_only(&place, arguments).unwrap();
        assert_eq!(lines(&run(command, "").text()), ["one", "two"], "{arguments:?}");
    }
}

#[test]
fn damage_is_passed_where_it_cannot_be_kept() {
    let place = Place::with(&[], &["one", "two", "three"]);
    let path = place.feed.join("00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[19 + 16] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let Some(command) = read_only(&place, &["tail", "FEED", "--last", "3", "-n", "2"]) else { return };
    let done = run(command, "");
    assert_eq!((done.code, done.stdout.as_slice()), (Some(3), &b"one\nthree\n"[..]));
    assert_eq!(done.complaint(), "segment 00000000: skipped 19 damaged bytes at offset 19");
}

#[test]
fn a_change_is_refused_with_the_name_of_the_feed() {
    let place = Place::with(&[], &["one"]);
    for arguments in
        [&["subscribe", "FEED", "t"][..], &["write", "FEED", "-q"], &["unsubscribe", "FEED", "s"]]
    {
        let Some(command) = read_only(&place, arguments) else { return };
        let complaint = run(command, "two\n").failed(1);
        assert!(complaint.contains(place.feed.to_str().unwrap()), "{complaint}");
        assert!(!complaint.contains("/~"), "no temporary file is named: {complaint}");
    }
    until("nothing has changed", || place.unread("s") == [b"one"]);
}
