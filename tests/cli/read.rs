//! `jlog read` when it ends by itself.

use std::io::Read;

use base64::Engine;
use jlog_core::LogId;
use nix::fcntl::{FcntlArg, fcntl};

use crate::support::{Lines, Place, Running, close, end, lines, run, run_to, time, until};

/// A feed whose messages have the times 0, 1, 2, …
fn timed<M: AsRef<[u8]>>(options: &[&str], messages: &[M]) -> Place {
    let place = Place::new(options);
    let writer = place.log().writer().unwrap();
    for (n, message) in (0..).zip(messages) {
        writer.append_at(time(n).0, message).unwrap();
    }
    end(writer);
    place
}

/// `count` messages `m1`, `m2`, … with the times 0, 1, 2, …; four of them to a segment.
fn numbered(count: u32) -> Place {
    let messages: Vec<String> = (1..=count).map(|n| format!("m{n}")).collect();
    timed(&["--segment-size", "72"], &messages)
}

#[test]
fn cat_and_null_give_the_bodies() {
    let messages: [&[u8]; 5] = [b"one", b"", b"two\nlines", b"\xff\0\x1b[31m", b"\xe2\x82\xac"];
    let place = timed(&[], &messages);
    let cat = run(place.jlog("read", ["s", "--peek"]), "").ok();
    assert_eq!(cat, b"one\n\ntwo\nlines\n\xff\0\x1b[31m\n\xe2\x82\xac\n");
    place.log().subscribe("after", jlog_core::Start::After(LogId::new(0, 4))).unwrap();
    let null = run(place.jlog("read", ["after", "-o", "null", "--peek"]), "").ok();
    assert_eq!(null, b"\xe2\x82\xac\0");
    let again = run(place.jlog("read", ["s", "-o", "cat"]), "").ok();
    assert_eq!(again, cat);
    assert_eq!(place.ok("read", &["s"]), "");
}

#[test]
fn null_refuses_what_a_nul_would_cut() {
    let place = numbered(3);
    place.append(&[&b"cut\0here"[..], b"after"]);
    for _ in 0..2 {
        let done = run(place.jlog("read", ["s", "-o", "null"]), "");
        assert_eq!(done.code, Some(1));
        let complaint = done.complaint();
        assert!(complaint.starts_with("message 00000000:00000004 contains a NUL byte"), "{complaint}");
        assert!(complaint.contains("-o length-prefixed"), "{complaint}");
        // The messages that were printed before are done, and no others.
        assert_eq!(place.checkpoint("s"), LogId::new(0, 3));
    }
    assert_eq!(place.unread("s"), [&b"cut\0here"[..], b"after"]);
}

#[test]
fn length_prefixed_is_what_write_takes() {
    let messages: [&[u8]; 6] =
        [b"one", b"", b"two\nlines", b"\xff\0\x1b[31m", &[0; 70_000], &[b'x'; 3 << 20]];
    let place = timed(&[], &messages);
    let out = run(place.jlog("read", ["s", "-o", "length-prefixed"]), "").ok();
    let other = Place::new(&["--compression", "lz4"]);
    run(other.jlog("write", ["-q", "--length-prefixed"]), out.as_slice()).ok();
    assert!(other.unread("s") == messages);
    let again = run(other.jlog("read", ["s", "-o", "length-prefixed"]), "").ok();
    assert!(again == out);
}

#[test]
fn short_has_time_and_id_before_the_body() {
    let place = timed(&[], &["one", "", "three"]);
    let expected = [
        format!("{} 00000000:00000001 one", time(0).1),
        format!("{} 00000000:00000002 ", time(1).1),
        format!("{} 00000000:00000003 three", time(2).1),
    ];
    assert_eq!(lines(&place.ok("read", &["s", "--output", "short"])), expected);
}

#[test]
fn json_is_an_object_a_line() {
    let all: Vec<u8> = (0..=255).collect();
    let bodies: [&[u8]; 6] =
        [b"text", b"", b"\"quoted\"\\\n\t\x01\x7f", "\u{20ac}\u{1f512}".as_bytes(), &all, b"\xc3"];
    let place = timed(&["--compression", "lz4"], &bodies);
    let text = place.ok("read", &["s", "-o", "json"]);
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), bodies.len());
    for (n, (object, body)) in (0..).zip(objects.iter().zip(bodies)) {
        assert_eq!(object["id"], LogId::new(0, n + 1).to_string());
        assert_eq!(object["time"], time(n).1);
        assert_eq!(object["size"], body.len());
        match std::str::from_utf8(body) {
            Ok(text) => {
                assert_eq!(object["body"], text);
                assert!(object.get("body_base64").is_none());
            }
            Err(_) => {
                let encoded = object["body_base64"].as_str().unwrap();
                let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
                assert_eq!(decoded, body);
                assert!(object.get("body").is_none());
            }
        }
        assert_eq!(object.as_object().unwrap().len(), 4);
    }
}

#[test]
fn hex_is_a_dump() {
    let place = timed(&[], &[&b"GET / HTTP/1.1\r\n~\x7f\x00"[..], b"", b"0123456789abcdef"]);
    let heads = [0, 1, 2].map(|n| format!("{} 00000000:0000000{}", time(n).1, n + 1));
    let expected = [
        heads[0].as_str(),
        "  00000000  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|",
        "  00000010  7e 7f 00                                         |~..|",
        &heads[1],
        &heads[2],
        "  00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  |0123456789abcdef|",
    ];
    assert_eq!(lines(&place.ok("read", &["s", "-o", "hex"])), expected);
}

#[test]
fn a_count_moves_the_checkpoint_exactly_so_far() {
    let place = numbered(10);
    assert_eq!(place.segments(), ["00000000", "00000001", "00000002"]);
    assert_eq!(place.ok("read", &["s", "-n", "0"]), "");
    assert_eq!(place.checkpoint("s"), LogId::new(0, 0));
    assert_eq!(lines(&place.ok("read", &["s", "-n", "3"])), ["m1", "m2", "m3"]);
    assert_eq!(place.checkpoint("s"), LogId::new(0, 3));
    // Reading crosses a segment's end.
    assert_eq!(lines(&place.ok("read", &["s", "--count", "3"])), ["m4", "m5", "m6"]);
    assert_eq!(place.checkpoint("s"), LogId::new(1, 2));
    assert_eq!(place.segments(), ["00000001", "00000002"]);
    // Reading ends exactly at a segment's end.
    assert_eq!(lines(&place.ok("read", &["s", "-n", "2"])), ["m7", "m8"]);
    assert_eq!(place.unread("s"), [b"m9".to_vec(), b"m10".to_vec()]);
    // The count is larger than the number of messages.
    assert_eq!(lines(&place.ok("read", &["s", "-n", "18446744073709551615"])), ["m9", "m10"]);
    assert_eq!(place.checkpoint("s"), LogId::new(2, 2));
    assert_eq!(place.ok("read", &["s"]), "");
}

#[test]
fn every_count_leaves_exactly_the_rest() {
    let all: Vec<String> = (1..=9).map(|n| format!("m{n}")).collect();
    for count in 0..=10 {
        let place = numbered(9);
        let (now, later) = all.split_at(count.min(9));
        assert_eq!(lines(&place.ok("read", &["s", "-n", &count.to_string()])), now);
        assert_eq!(lines(&place.ok("read", &["s"])), later);
    }
}

#[test]
fn peeking_leaves_everything_as_it_is() {
    let place = numbered(10);
    // A checkpoint in the middle, at the end of a segment, and at the beginning of one.
    for (n, id) in [("a", LogId::new(0, 2)), ("b", LogId::new(0, 4)), ("c", LogId::new(1, 0))] {
        place.ok("subscribe", &[n, "--after", &id.to_string()]);
    }
    place.ok("unsubscribe", &["s"]);
    let before = place.snapshot();
    assert_eq!(lines(&place.ok("read", &["a", "--peek", "-n", "2"])), ["m3", "m4"]);
    assert_eq!(lines(&place.ok("read", &["a", "--peek"])).len(), 8);
    assert_eq!(lines(&place.ok("read", &["b", "--peek", "-n", "1"])), ["m5"]);
    assert_eq!(lines(&place.ok("read", &["c", "--peek", "-n", "1"])), ["m5"]);
    place.ok("unsubscribe", &["a"]);
    // Nobody needs the first segment now, but peeking does not remove it.
    assert_eq!(lines(&place.ok("read", &["b", "--peek"])).len(), 6);
    let mut expected = before;
    expected.remove("cp.61".as_ref() as &std::ffi::OsStr);
    let after = place.snapshot();
    assert_eq!(after.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let changed: Vec<_> = after.iter().filter(|(name, bytes)| expected[*name] != **bytes).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn since_and_until_choose_by_time() {
    let since = |n: u32| time(n).1;
    let read = |arguments: &[&str]| {
        let place = numbered(10);
        let now = place.ok("read", &[&["s"], arguments].concat());
        let later = place.ok("read", &["s"]);
        [now, later].map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(read(&["--since", &since(7)]), ["m8 m9 m10", ""]);
    assert_eq!(read(&["--since", "2026-03-01T13:00:08.5+01:00"]), ["m10", ""]);
    assert_eq!(read(&["--since", &since(4), "-n", "2"]), ["m5 m6", "m7 m8 m9 m10"]);
    assert_eq!(read(&["--until", &since(3)]), ["m1 m2 m3", "m4 m5 m6 m7 m8 m9 m10"]);
    assert_eq!(read(&["--until", &since(4)]), ["m1 m2 m3 m4", "m5 m6 m7 m8 m9 m10"]);
    assert_eq!(read(&["--until", &since(0)]), ["", "m1 m2 m3 m4 m5 m6 m7 m8 m9 m10"]);
    assert_eq!(read(&["--since", &since(2), "--until", &since(6)]), ["m3 m4 m5 m6", "m7 m8 m9 m10"]);
    assert_eq!(read(&["--since", &since(6), "--until", &since(2)])[0], "");
    assert_eq!(read(&["--since", "1970-01-01T00:00:00Z"])[0], "m1 m2 m3 m4 m5 m6 m7 m8 m9 m10");
    assert_eq!(read(&["--since", &since(2), "--peek"])[1], "m1 m2 m3 m4 m5 m6 m7 m8 m9 m10");
    // Times in the far future, and long ago.
    assert_eq!(read(&["--until", "2106-01-01T00:00:00Z"])[1], "");
    assert_eq!(read(&["--since", "5000d"])[0], "m1 m2 m3 m4 m5 m6 m7 m8 m9 m10");
}

#[test]
fn since_never_goes_back_behind_the_checkpoint() {
    let place = numbered(10);
    assert_eq!(lines(&place.ok("read", &["s", "-n", "6"])).len(), 6);
    assert_eq!(lines(&place.ok("read", &["s", "--since", &time(2).1, "-n", "1"])), ["m7"]);
}

#[test]
fn how_long_ago_is_counted_from_now() {
    let place = numbered(3);
    place.append(&["just now"]);
    assert_eq!(lines(&place.ok("read", &["s", "--peek", "--since", "10min"])), ["just now"]);
    assert_eq!(lines(&place.ok("read", &["s", "--until", "10min"])), ["m1", "m2", "m3"]);
}

#[test]
fn a_file_as_stdout_takes_everything() {
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
    let place = Place::with(&[], &lines);
    let file = place.path("out");
    let done = run_to(place.jlog("read", ["s"]), std::fs::File::create(&file).unwrap());
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(std::fs::read_to_string(&file).unwrap().lines().eq(&lines));
    assert_eq!(place.unread("s").len(), 0);
}

#[test]
fn unknown_subscribers_are_reported() {
    let place = numbered(1);
    let before = place.snapshot();
    for command in ["read", "unsubscribe"] {
        let complaint = run(place.jlog(command, ["nobody"]), "").failed(1);
        let expected = format!("{} has no subscriber \"nobody\"", place.feed.display());
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
    assert!(place.snapshot() == before);
}

/// Damages a byte of the body of `m6` (the second message of the second segment).
fn damage(place: &Place) {
    let path = place.feed.join("00000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[18 + 16] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn reading_stops_before_damage_when_told_to() {
    let place = numbered(10);
    damage(&place);
    let done = run(place.jlog("read", ["s", "--stop-at-damage"]), "");
    assert_eq!(done.code, Some(1));
    assert_eq!(done.stdout, b"m1\nm2\nm3\nm4\nm5\n");
    let complaint = done.complaint();
    let path = place.feed.join("00000001");
    let expected = format!(
        "{} is damaged at offset 18: the checksum of record 00000001:00000002 is wrong",
        path.display()
    );
    assert!(complaint.starts_with(&expected), "{complaint}");
    assert!(complaint.contains("skip it, or run `jlog repair`"), "{complaint}");
    assert_eq!(place.checkpoint("s"), LogId::new(1, 1));
    // The checkpoint stays there, however often the command is tried.
    let again = run(place.jlog("read", ["s", "--stop-at-damage"]), "");
    assert_eq!(again.failed(1), complaint);
    run(place.jlog("read", ["s", "--stop-at-damage", "--skip-damage"]), "")
        .code
        .filter(|&code| code == 2)
        .unwrap();

    let done = run(place.jlog("read", ["s", "--skip-damage"]), "");
    assert_eq!((done.code, done.stdout.as_slice()), (Some(3), &b"m7\nm8\nm9\nm10\n"[..]));
    assert_eq!(place.ok("read", &["s"]), "");
}

#[test]
fn damage_is_reported_kept_and_passed() {
    let place = numbered(12);
    damage(&place);
    let path = place.feed.join("00000002");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    let (header, body) = (bytes[0], bytes[17]);
    std::fs::write(&path, &bytes).unwrap();
    let kept = [place.feed.join("00000001.broken-18"), place.feed.join("00000002.broken-0")];
    let reported = [
        format!(
            "jlog: segment 00000001: skipped 18 damaged bytes at offset 18, kept in {}\n",
            kept[0].display()
        ),
        format!(
            "jlog: segment 00000002: skipped 18 damaged bytes at offset 0, kept in {}\n",
            kept[1].display()
        ),
    ];
    // Peeking keeps no copy, and reports the same.
    let peek = run(place.jlog("read", ["s", "--peek"]), "");
    let cat = run(place.jlog("cat", crate::support::NONE), "");
    for done in [peek, cat] {
        assert_eq!(done.code, Some(3));
        assert_eq!(lines(std::str::from_utf8(&done.stdout).unwrap()).len(), 10);
        let without: String =
            reported.iter().map(|line| format!("{}\n", line.split(", kept").next().unwrap())).collect();
        assert_eq!(done.stderr, without);
        assert!(kept.iter().all(|path| !path.exists()));
    }
    let done = run(place.jlog("read", ["s"]), "");
    assert_eq!(done.code, Some(3));
    assert_eq!(
        lines(std::str::from_utf8(&done.stdout).unwrap()),
        ["m1", "m2", "m3", "m4", "m5", "m7", "m8", "m10", "m11", "m12"]
    );
    assert_eq!(done.stderr, reported.concat());
    // The segments are done and removed; the copy of the damaged bytes stays.
    assert!(!path.with_file_name("00000001").exists());
    let bytes = kept.each_ref().map(|path| std::fs::read(path).unwrap());
    assert_eq!((bytes[0].len(), &bytes[0][16..], bytes[1].len()), (18, &b"\x7d6"[..], 18));
    assert_eq!((bytes[1][0], bytes[1][17]), (header, body));
    // Nothing is reported twice.
    assert_eq!(place.ok("read", &["s"]), "");
}

#[test]
fn damage_makes_no_reader_fail_that_cannot_keep_it() {
    let place = numbered(10);
    damage(&place);
    // Something else has the name for the copy.
    std::fs::create_dir(place.feed.join("00000001.broken-18")).unwrap();
    let done = run(place.jlog("read", ["s"]), "");
    assert_eq!((done.code, lines(std::str::from_utf8(&done.stdout).unwrap()).len()), (Some(3), 9));
    assert_eq!(done.complaint(), "segment 00000001: skipped 18 damaged bytes at offset 18");
}

#[test]
fn a_broken_pipe_does_not_hide_damage() {
    let messages = vec!["x".repeat(1000); 2000];
    let place = Place::with(&[], &messages);
    let path = place.feed.join("00000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (mut out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    out.read_exact(&mut [0; 1000]).unwrap();
    close(out);
    assert_eq!(reader.done().code, Some(3));
}

#[test]
fn after_a_broken_pipe_nothing_is_lost() {
    let lines: Vec<String> =
        (1..=5000).map(|n| format!("message {n} of a feed that goes into a pipe")).collect();
    let place = Place::with(&["--segment-size", "16KiB"], &lines);
    let (mut out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    // The reader of the pipe reads something and ends, as `head -n 3` does.
    let mut bytes = vec![0; 1000];
    out.read_exact(&mut bytes).unwrap();
    close(out);
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let seen = bytes.iter().filter(|&&b| b == b'\n').count();
    let rest = place.ok("read", &["s"]);
    let first = lines.len() - rest.lines().count();
    assert!(first >= seen, "{first} messages were done, {seen} were seen");
    assert!(rest.lines().eq(&lines[first..]), "the rest begins at message {}", first + 1);
}

#[test]
fn after_a_broken_pipe_the_first_message_that_did_not_go_into_it_comes_next() {
    let lines: Vec<String> = (1..=100).map(|n| format!("{n:>999}")).collect();
    let place = Place::with(&[], &lines);
    let (mut out, pipe) = std::io::pipe().unwrap();
    // The smallest pipe holds one page, and accepts nothing more before that is read. So it has
    // exactly the first 4096 bytes of the output: four messages and the beginning of the fifth.
    if fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)) != Ok(4096) {
        eprintln!("skipped: a pipe cannot have 4096 bytes here");
        return;
    }
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    let mut bytes = vec![0; 3000];
    out.read_exact(&mut bytes).unwrap();
    assert!(bytes.ends_with(b"  3\n"));
    close(out);
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(place.checkpoint("s"), LogId::new(0, 4));
    assert!(place.ok("read", &["s"]).lines().eq(&lines[4..]));
}

#[test]
fn a_message_larger_than_the_pipe_is_done_when_all_of_it_is_out() {
    let place = Place::with(&[], &["x".repeat(1 << 20), "y".to_owned()]);
    let (mut out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    let mut bytes = vec![0; 500_000];
    out.read_exact(&mut bytes).unwrap();
    assert_eq!(place.checkpoint("s"), LogId::new(0, 0));
    close(out);
    assert_eq!(reader.done().code, Some(0));
    assert_eq!(place.checkpoint("s"), LogId::new(0, 0));
    assert_eq!(place.ok("read", &["s"]).len(), (1 << 20) + 3);
    assert_eq!(place.checkpoint("s"), LogId::new(0, 2));
}

#[test]
fn with_head_the_shell_sees_what_it_asked_for() {
    let lines: Vec<String> = (1..=20_000).map(|n| format!("message {n}")).collect();
    let place = Place::with(&[], &lines);
    let mut command = crate::support::bare("sh");
    command.args(["-c", "{ \"$0\" read \"$1\" s; echo $? >&2; } | head -n 3"]);
    command.arg(env!("CARGO_BIN_EXE_jlog")).arg(&place.feed);
    let done = run(command, "");
    assert_eq!(done.stdout, b"message 1\nmessage 2\nmessage 3\n");
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), "0\n"));
    let rest = place.ok("read", &["s"]);
    let first = lines.len() - rest.lines().count();
    assert!(first >= 3 && rest.lines().eq(&lines[first..]));
}

#[test]
fn the_checkpoint_follows_while_a_long_read_goes_on() {
    // There are many batches: the first ones are written while the rest waits for the pipe.
    let line = "l".repeat(100);
    let place = Place::with(&["--segment-size", "64KiB"], &vec![line.as_str(); 20_000]);
    let (out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("read", ["s"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    let lines = Lines::of(out);
    let first = lines.next();
    assert_eq!(first.as_deref(), Some(format!("{line}\n").as_str()));
    until("the first segments are done and gone", || {
        place.segments().first().unwrap() > &"00000003".to_owned()
    });
    assert_eq!(lines.rest().len(), 19_999);
    assert_eq!(reader.done().code, Some(0));
    assert_eq!(place.segments().len(), 1);
}

/// What a command prints to a terminal.
fn on_a_terminal(mut command: std::process::Command) -> String {
    let terminal = nix::pty::openpty(None, None).unwrap();
    command.stdout(std::process::Stdio::from(terminal.slave));
    let mut running = Running::start(&mut command);
    drop(command);
    let lines = Lines::of(std::fs::File::from(terminal.master));
    let text = lines.rest().concat();
    assert_eq!(running.done().code, Some(0));
    text.replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_no_control_characters_of_messages() {
    let messages: [&[u8]; 7] = [
        "turned \u{202e}round, \u{61c}\u{2066}".as_bytes(),
        b"\x1b]0;title\x07\x1b[31mred",
        b"over\rwritten\x08\x7f",
        "upper \u{9b}31m, \u{20ac} stays".as_bytes(),
        b"raw \x9b31m \xff",
        b"two\nlines\tand a tab",
        b"",
    ];
    let expected = [
        r"turned \u{202e}round, \u{61c}\u{2066}",
        r"\x1b]0;title\x07\x1b[31mred",
        r"over\rwritten\x08\x7f",
        "upper \\u{9b}31m, \u{20ac} stays",
        r"raw \x9b31m \xff",
        "two\nlines\tand a tab",
        "",
    ];
    let place = timed(&[], &messages);
    // Terminals replace tabs by spaces.
    let shown = on_a_terminal(place.jlog("read", ["s", "--peek"]));
    let plain: String = expected.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(shown.replace("lines   ", "lines\t"), plain);
    let shown = on_a_terminal(place.jlog("read", ["s", "--peek", "-o", "short"]));
    for text in expected {
        assert!(shown.replace("lines   ", "lines\t").contains(&format!(" {text}\n")), "{text} in {shown}");
    }
    let shown = on_a_terminal(place.jlog("cat", ["-o", "json"]));
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    for (line, message) in shown.lines().zip(messages) {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Ok(text) = std::str::from_utf8(message) {
            assert_eq!(object["body"], text);
        }
    }
    // A pipe gets them unchanged, whatever stderr is.
    let cat = run(place.jlog("read", ["s"]), "").ok();
    assert_eq!(cat, [messages.join(&b'\n'), b"\n".to_vec()].concat());
}

#[test]
fn cat_shows_everything_and_changes_nothing() {
    let place = numbered(10);
    place.ok("unsubscribe", &["s"]);
    let before = place.snapshot();
    let all: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    let cat = |arguments: &[&str]| place.ok("cat", arguments).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cat(&[]), all);
    assert_eq!(cat(&["-n", "3"]), all[..3]);
    assert_eq!(cat(&["--since", &time(6).1]), all[6..]);
    assert_eq!(cat(&["--since", &time(2).1, "--until", &time(7).1]), all[2..7]);
    assert_eq!(cat(&["--since", "2026-03-01 12:00:05", "-n", "2"]), all[5..7]);
    assert_eq!(cat(&["--until", "2026-03-01 12:00"]), [""; 0]);
    assert_eq!(cat(&["--since", "yesterday"]), [""; 0]);
    assert_eq!(cat(&["-n", "1", "-o", "short"]), [format!("{} 00000000:00000001 m1", time(0).1)]);
    assert!(place.snapshot() == before);
    let empty = Place::new(&[]);
    assert_eq!(empty.ok("cat", &[]), "");
    assert_eq!(empty.ok("cat", &["--since", "today"]), "");
}

#[test]
fn a_reader_begins_with_an_id_or_a_time_without_a_subscriber() {
    let place = numbered(10);
    place.ok("unsubscribe", &["s"]);
    let before = place.snapshot();
    let read = |from: &str, more: &[&str]| {
        let text = place.ok("read", &[&["--from", from], more].concat());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all: Vec<String> = (1..=10).map(|n| format!("m{n}")).collect();
    assert_eq!(read("00000001:00000002", &[]), all[5..]);
    assert_eq!(read("1:2", &["-n", "3"]), all[5..8]);
    assert_eq!(read("00000000:00000000", &[]), all);
    assert_eq!(read(&time(8).1, &[]), all[8..]);
    assert_eq!(read("12:00:03", &["--until", &time(5).1]), [""; 0], "today's");
    assert_eq!(read("2026-03-01 12:00:03", &["--until", &time(5).1]), all[3..5]);
    assert_eq!(read("10min", &[]), [""; 0]);
    let (mut reader, lines) = Running::with_lines(place.jlog("read", ["--from", "2:2", "-f", "-n", "2"]));
    assert_eq!(lines.next().as_deref(), Some("m10\n"));
    assert!(place.snapshot() == before);
    place.append(&["m11"]);
    assert_eq!(lines.rest(), ["m11\n"]);
    assert_eq!(reader.end(), Some(0));
    let complaint = run(place.jlog("read", ["--from", "00000003:00000001"]), "").failed(1);
    assert!(complaint.contains("has no record 00000003:00000001:"), "{complaint}");
}

#[test]
fn times_without_a_zone_are_local() {
    let place = numbered(10);
    let cat = |zone: &str, since: &str| {
        let mut command = place.jlog("cat", ["--since", since]);
        command.env("TZ", zone);
        run(command, "").text().lines().count()
    };
    assert_eq!(cat("UTC", "2026-03-01 12:00:07"), 3);
    assert_eq!(cat("Europe/Vienna", "2026-03-01 13:00:07"), 3);
    assert_eq!(cat("Europe/Vienna", "2026-03-01T12:00:07Z"), 3);
    assert_eq!(cat("America/New_York", "2026-03-01T07:00:07"), 3);
}

#[test]
fn a_second_signal_loses_nothing() {
    let lines: Vec<String> = (1..=30_000).map(|n| format!("message {n} of many")).collect();
    let place = Place::with(&[], &lines);
    // Nobody reads the output, and the command waits in the middle of a message.
    let (_out, pipe) = std::io::pipe().unwrap();
    let ours = pipe.try_clone().unwrap();
    let mut command = place.jlog("read", ["s", "-f"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    crate::support::until_full(&ours);
    reader.signal(nix::sys::signal::Signal::SIGTERM);
    reader.signal(nix::sys::signal::Signal::SIGTERM);
    // However the command ended, nothing is lost.
    assert!(matches!(reader.end(), None | Some(0)));
    assert!(place.unread("s").len() > 20_000);
}

#[test]
fn a_subscriber_has_one_reader_unless_all_share_it() {
    let place = numbered(3);
    let alone = jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Alone);
    let first = place.log().reader_with("s", alone).unwrap();
    for arguments in [&["s"][..], &["s", "--shared"]] {
        let done = run(place.jlog("read", arguments), "");
        assert_eq!(done.code, Some(1));
        let complaint = done.complaint();
        assert!(complaint.contains("another reader is reading"), "{complaint}");
        assert!(complaint.contains("subscriber \"s\"") && complaint.contains("--shared"), "{complaint}");
        assert_eq!(place.checkpoint("s"), LogId::new(0, 0));
    }
    // Reading without a subscriber does not affect any subscriber.
    assert_eq!(place.ok("read", &["s", "--peek"]), "m1\nm2\nm3\n");
    drop(first);
    let sharing = jlog_core::ReaderOptions::default().claim(jlog_core::Claim::Shared);
    let _first = place.log().reader_with("s", sharing).unwrap();
    assert_eq!(run(place.jlog("read", ["s"]), "").code, Some(1));
    assert_eq!(place.ok("read", &["s", "--shared"]), "m1\nm2\nm3\n");
    assert_eq!(place.checkpoint("s"), LogId::new(0, 3));
}

#[test]
fn what_only_programs_read_is_refused_on_a_terminal() {
    let place = timed(&[], &[b"one"]);
    for format in ["null", "length-prefixed"] {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = place.jlog("read", ["s", "--peek", "-o", format]);
        command.stdout(std::process::Stdio::from(terminal.slave));
        let done = Running::start(&mut command).done();
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains("send them to a file or a pipe"), "{}", done.stderr);
    }
}
