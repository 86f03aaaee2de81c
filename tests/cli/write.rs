//! `jlog write` and `jlog create`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use jlog_core::WriterOptions;
use nix::sys::signal::Signal;

use crate::support::{NONE, Place, Running, end, jlog, run, until};

fn bodies(place: &Place) -> Vec<String> {
    place.unread("s").iter().map(|body| body.escape_ascii().to_string()).collect()
}

fn meta(place: &Place) -> serde_json::Value {
    serde_json::from_str(&place.ok("meta", &["-o", "json"])).unwrap()
}

#[test]
fn each_line_is_a_message() {
    let place = Place::new(&[]);
    let done = run(place.jlog("write", NONE), b"one\n\nthree\r\n \tfour\0\xff\nlast".to_vec());
    assert_eq!((done.code, done.stdout.len()), (Some(0), 0));
    let (summary, rest) = done.stderr.split_once(" in ").unwrap();
    assert_eq!(summary, "5 messages, 21 B");
    assert!(rest.ends_with(" messages/s)\n"), "{rest}");
    assert_eq!(bodies(&place), ["one", "", "three\\r", " \\tfour\\x00\\xff", "last"]);
}

#[test]
fn bytes_that_are_no_text_and_a_last_line_end_are_kept_as_they_are() {
    let place = Place::new(&[]);
    run(place.jlog("write", ["-q"]), b"\xff\xfe\n\n\n".to_vec()).ok();
    assert_eq!(bodies(&place), ["\\xff\\xfe", "", ""]);
    // Empty input has no message.
    run(place.jlog("write", ["-q"]), "").ok();
    assert_eq!(bodies(&place).len(), 3);
}

#[test]
fn files_come_in_order_and_a_dash_is_stdin() {
    let place = Place::new(&[]);
    let first = place.file("first", "1\n2");
    let last = place.file("last", "5\n");
    let mut command = place.jlog("write", [first.as_os_str(), "-".as_ref(), last.as_os_str()]);
    command.arg("--quiet");
    run(command, "3\n4").ok();
    assert_eq!(bodies(&place), ["1", "2", "3", "4", "5"]);
}

#[test]
fn files_are_opened_before_anything_is_written() {
    let place = Place::new(&[]);
    let good = place.file("good", "1\n");
    let missing = place.path("missing");
    let done = run(place.jlog("write", [&good, &missing]), "");
    let complaint = done.failed(1);
    assert!(complaint.starts_with(&format!("cannot read {}: ", missing.display())), "{complaint}");
    let directory = place.path("");
    let complaint = run(place.jlog("write", [&good, &directory]), "").failed(1);
    assert_eq!(complaint, format!("cannot read {}: it is a directory", directory.display()));
    assert_eq!(bodies(&place), NONE);
}

#[test]
fn messages_may_end_with_nul_bytes() {
    let place = Place::new(&[]);
    run(place.jlog("write", ["-q", "-0"]), "a\nb\0\0c\0d").ok();
    assert_eq!(bodies(&place), ["a\\nb", "", "c", "d"]);
}

#[test]
fn each_file_may_be_one_message() {
    let place = Place::new(&[]);
    let files = [place.file("text", "a\nb\n"), place.file("empty", ""), place.file("bytes", [0, 255, 10])];
    let mut command = place.jlog("write", &files);
    command.args(["-q", "--whole"]);
    run(command, "").ok();
    run(place.jlog("write", ["-q", "--whole"]), "stdin\n").ok();
    assert_eq!(bodies(&place), ["a\\nb\\n", "", "\\x00\\xff\\n", "stdin\\n"]);
}

fn prefixed(messages: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_le_bytes());
        out.extend_from_slice(message);
    }
    out
}

#[test]
fn messages_may_follow_their_length() {
    let place = Place::new(&[]);
    let long = vec![b'x'; 600_000];
    let input = prefixed(&[b"a\nb", b"", b"\0", &long, b"end"]);
    run(place.jlog("write", ["-q", "--length-prefixed"]), input).ok();
    let got = place.unread("s");
    assert_eq!(got, [&b"a\nb"[..], b"", b"\0", &long, b"end"]);
}

#[test]
fn a_length_without_its_message_is_an_error_that_says_what_was_written() {
    for cut in [1, 3, 4, 8] {
        let place = Place::new(&[]);
        let input = prefixed(&[b"first", b"second", b"third"]);
        let keep = input.len() - cut;
        let file = place.file("input", &input[..keep]);
        let mut command = place.jlog("write", [&file]);
        command.args(["-q", "--length-prefixed"]);
        let complaint = run(command, "").failed(1);
        let expected = format!("{} ends within a message: 2 messages were written before it", file.display());
        assert_eq!(complaint, expected, "{cut} bytes missing");
        assert_eq!(bodies(&place), ["first", "second"]);
    }
    // A length of nearly 4 GiB allocates no memory for bytes that do not arrive.
    let place = Place::new(&[]);
    let complaint = run(
        place.jlog("write", ["-q", "--length-prefixed", "--max-message", "4294967295"]),
        b"\xf0\xff\xff\xffabc".to_vec(),
    );
    assert!(complaint.failed(1).starts_with("stdin ends within a message: 0 messages"));
}

#[test]
fn lines_of_any_length_come_through() {
    let place = Place::new(&["--segment-size", "1MiB"]);
    // Lengths around the sizes in which input is read, and far beyond.
    let lengths = [0, 262_143, 262_144, 262_145, 524_288, 3_000_000, 1, 70_000];
    let letter = |i: usize| b'a' + u8::try_from(i).unwrap();
    let lines: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, &len)| vec![letter(i); len]).collect();
    run(place.jlog("write", ["-q"]), lines.join(&b'\n')).ok();
    assert!(place.unread("s") == lines);
    // The messages come out unchanged.
    let out = run(place.jlog("read", ["s"]), "").ok();
    assert!(out == [lines.join(&b'\n'), b"\n".to_vec()].concat());
}

#[test]
fn a_slow_input_is_not_kept_waiting_for_more() {
    let place = Place::new(&[]);
    let mut command = place.jlog("write", NONE);
    let mut writer = Running::start(command.stdout(Stdio::null()));
    let mut stdin = writer.stdin.take().unwrap();
    for n in 1..=3 {
        write!(stdin, "line {n}\nunfinished ").unwrap();
        until("the line can be read", || place.unread("s").len() == n);
    }
    drop(stdin);
    let done = writer.done();
    assert_eq!(done.code, Some(0));
    assert!(done.stderr.starts_with("4 messages, "), "{}", done.stderr);
    let expected = ["line 1", "unfinished line 2", "unfinished line 3", "unfinished "];
    assert_eq!(bodies(&place), expected);
}

#[test]
fn what_came_in_before_a_signal_is_there() {
    for (signal, options) in
        [(Signal::SIGINT, &[][..]), (Signal::SIGKILL, &["--pre-commit", "64KiB"]), (Signal::SIGTERM, &[])]
    {
        let place = Place::new(options);
        let mut command = place.jlog("write", ["--durability", "buffered"]);
        let mut writer = Running::start(command.stdout(Stdio::null()));
        let mut stdin = writer.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\nthr").unwrap();
        let log = place.log();
        until("both lines are accepted", || {
            let status = log.status().unwrap();
            status.records == 2 || status.pre_commit.is_some_and(|(used, _)| used == 2 * (16 + 3))
        });
        writer.signal(signal);
        writer.end();
        let done = run(place.jlog("write", ["-q"]), "after\n");
        assert_eq!(done.code, Some(0));
        if options.is_empty() {
            assert_eq!(done.stderr, "");
        } else {
            let said = done.complaint();
            assert_eq!(said, "pre-commit buffer: 2 messages (38 bytes) of an earlier writer recovered");
        }
        assert_eq!(bodies(&place), ["one", "two", "after"], "{signal}");
    }
}

#[test]
fn every_durability_keeps_every_message_once_and_in_order() {
    for pre_commit in ["0", "256", "1MiB"] {
        let place = Place::new(&["--pre-commit", pre_commit]);
        let mut expected = Vec::new();
        for level in ["buffered", "readable", "durable", "buffered", "durable"] {
            let input: String = (0..20).map(|n| format!("{level} {n}\n")).collect();
            expected.extend(input.lines().map(str::to_owned));
            let done = run(place.jlog("write", ["-q", "--durability", level]), input);
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            if level != "buffered" {
                assert_eq!(bodies(&place), expected, "{level} with {pre_commit}");
            }
        }
        assert_eq!(place.ok("verify", &[]).split(':').next(), Some("sound"));
    }
}

#[test]
fn a_second_writer_leaves_the_buffer_alone_with_direct() {
    let place = Place::new(&["--pre-commit", "4KiB"]);
    let first = place.log().writer_with(WriterOptions::default()).unwrap();
    first.append("buffered").unwrap();
    let complaint = run(place.jlog("write", ["-q"]), "refused\n").failed(1);
    assert!(complaint.contains(&format!("{}/pre_commit", place.feed.display())), "{complaint}");
    assert!(complaint.contains("`jlog write --direct`"), "{complaint}");
    run(place.jlog("write", ["-q", "--direct"]), "direct\n").ok();
    assert_eq!(bodies(&place), ["direct"]);
    end(first);
    assert_eq!(bodies(&place), ["direct", "buffered"]);
}

#[test]
fn a_missing_feed_is_only_created_when_asked_for() {
    let place = Place::empty();
    let complaint = run(place.jlog("write", ["-q"]), "one\n").failed(1);
    assert!(complaint.starts_with(&format!("{} is not a jlog", place.feed.display())), "{complaint}");
    assert!(complaint.contains("jlog create") && complaint.contains("--create"), "{complaint}");
    assert!(!place.feed.exists());

    run(place.jlog("write", ["-q", "--create"]), "one\n").ok();
    run(place.jlog("write", ["-q", "--create"]), "two\n").ok();
    place.ok("subscribe", &["s"]);
    assert_eq!(bodies(&place), ["one", "two"]);
}

#[test]
fn create_takes_every_option() {
    let options = [
        "--segment-size=64KiB",
        "--pre-commit=8KiB",
        "--compression=lz4",
        "--safety=safe",
        "--no-checksums",
        "--mode=600",
    ];
    let created = Place::new(&options);
    let written = Place::empty();
    let mut command = written.jlog("write", options);
    command.args(["-q", "--create"]);
    run(command, "squeezed ".repeat(100)).ok();
    written.ok("subscribe", &["s"]);
    for place in [&created, &written] {
        let meta = meta(place);
        assert_eq!(meta["segment_size"], 64 << 10);
        assert_eq!(meta["pre_commit_buffer"], 8 << 10);
        assert_eq!(meta["compression"], "lz4");
        assert_eq!(meta["safety"], "safe");
        assert_eq!(meta["checksums"], false);
        assert_eq!(meta["header_magic"], "15106a01");
        let mode = |name: &str| place.feed.join(name).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("metastore"), mode("pre_commit")), (0o700, 0o600, 0o600));
    }
    assert_eq!(bodies(&written), ["squeezed ".repeat(100)]);
    assert!(written.feed.join("00000000").metadata().unwrap().len() < 200);
    assert!(!written.feed.join("00000000.crc").exists());
}

#[test]
fn create_has_the_defaults_of_the_format() {
    let place = Place::new(&[]);
    let meta = meta(&place);
    assert_eq!((&meta["segment_size"], &meta["pre_commit_buffer"]), (&(4 << 20).into(), &0.into()));
    assert_eq!((&meta["compression"], &meta["safety"]), (&"none".into(), &"almost-safe".into()));
    assert_eq!((&meta["checksums"], &meta["header_magic"]), (&true.into(), &"663a7318".into()));
    let mode = |name: &str| place.feed.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("metastore")), (0o750, 0o640));
}

#[test]
fn create_touches_nothing_that_is_there() {
    let place = Place::with(&[], &["kept"]);
    let before = place.snapshot();
    for arguments in [&[][..], &["--segment-size", "1KiB"]] {
        let complaint = run(place.jlog("create", arguments), "").failed(1);
        let path = place.feed.display();
        let expected = format!("cannot create a jlog in {path}: it is a jlog already; ");
        assert!(complaint.starts_with(&expected), "{complaint}");
    }
    assert!(place.snapshot() == before);

    let file = place.file("file", "precious");
    let complaint = run(jlog(["create".as_ref(), file.as_os_str()]), "").failed(1);
    assert!(complaint.contains("it is not a directory"), "{complaint}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");

    let full = place.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("other"), "precious").unwrap();
    let complaint = run(jlog(["create".as_ref(), full.as_os_str()]), "").failed(1);
    assert!(complaint.contains("the directory is not empty"), "{complaint}");
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);

    let nowhere = place.path("no/such/feed");
    let complaint = run(jlog(["create".as_ref(), nowhere.as_os_str()]), "").failed(1);
    assert!(complaint.contains(nowhere.to_str().unwrap()), "{complaint}");

    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    run(jlog(["create".as_ref(), empty.as_os_str()]), "").ok();
    assert!(empty.join("metastore").is_file());
}

#[test]
fn writers_in_several_processes_share_a_feed() {
    let place = Place::new(&["--segment-size", "4KiB"]);
    let writers: Vec<_> = (0..3)
        .map(|w| {
            let command = place.jlog("write", ["-q"]);
            let input: String = (0..500).map(|n| format!("{w} {n}\n")).collect();
            std::thread::spawn(move || run(command, input).ok())
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let got = bodies(&place);
    assert_eq!(got.len(), 1500);
    for w in 0..3 {
        let own: Vec<&String> = got.iter().filter(|line| line.starts_with(&format!("{w} "))).collect();
        let expected: Vec<String> = (0..500).map(|n| format!("{w} {n}")).collect();
        assert!(own.into_iter().eq(&expected), "writer {w}");
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_while_it_comes() {
    let long = "x".repeat(3 << 20);
    for (framing, input) in [
        (&[][..], format!("one\ntwo\n{long}\nthree\n").into_bytes()),
        (&["-0"], format!("one\0two\0{long}\0three\0").into_bytes()),
        (
            &["--length-prefixed"],
            ["one", "two", &long, "three"]
                .iter()
                .flat_map(|m| [&u32::try_from(m.len()).unwrap().to_le_bytes(), m.as_bytes()].concat())
                .collect(),
        ),
    ] {
        let place = Place::new(&[]);
        let done = run(place.jlog("write", [framing, &["--max-message", "2MiB"]].concat()), input.as_slice());
        assert_eq!(done.code, Some(1));
        let expected = "message 3 of the input is longer than 2.0 MiB: --max-message allows more (2 messages were \
                        written before it)";
        assert_eq!(done.complaint(), expected, "{framing:?}");
        assert_eq!(bodies(&place), ["one", "two"]);
        // A message of exactly the maximum length is accepted.
        let place = Place::new(&[]);
        run(place.jlog("write", [framing, &["-q", "--max-message", "3MiB"]].concat()), input).ok();
        assert_eq!(place.unread("s").iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3 << 20, 5]);
    }
    let place = Place::new(&[]);
    let done = run(place.jlog("write", ["--whole", "--max-message", "1KiB"]), "x".repeat(1025));
    assert!(done.failed(1).starts_with("message 1 of the input is longer than 1.0 KiB"));
    assert_eq!(bodies(&place), [""; 0]);
}

#[test]
fn an_endless_line_ends_at_the_limit() {
    let place = Place::new(&[]);
    let Ok(zeros) = std::fs::File::open("/dev/zero") else { return };
    let mut command = place.jlog("write", NONE);
    let mut writer = Running::spawn(command.stdin(zeros).stdout(Stdio::null()).stderr(Stdio::piped()));
    let done = writer.done();
    assert_eq!(done.code, Some(1));
    assert!(
        done.complaint().starts_with("message 1 of the input is longer than 64.0 MiB"),
        "{}",
        done.stderr
    );
    assert_eq!(bodies(&place), [""; 0]);
}
