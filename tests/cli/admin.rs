//! `jlog status`, `inspect`, `verify`, `repair`, `clean`, `alter` and `meta`.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jlog_core::{LogId, Timestamp, Wait};
use nix::pty::openpty;
use serde_json::{Value, json};

use crate::support::{Done, Lines, NONE, Place, Running, end, jlog, lines, run, time};

/// Ten messages `m1` to `m10`, four to a segment, with the times 0 to 9.
fn numbered() -> Place {
    let place = Place::new(&["--segment-size", "72"]);
    let writer = place.log().writer().unwrap();
    for n in 1..=10 {
        writer.append_at(time(n - 1).0, format!("m{n}")).unwrap();
    }
    end(writer);
    place
}

fn json_of(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(text).unwrap()
}

/// The words of a line.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn status_counts_everything() {
    let place = numbered();
    place.ok("subscribe", &["ahead", "--after", "1:3"]);
    place.ok("subscribe", &["done", "--end"]);
    let mut status = json_of(&place.ok("status", &["-o", "json"]));
    let now = Timestamp::now().seconds;
    for subscriber in status["subscribers"].as_array_mut().unwrap() {
        let moved = subscriber.as_object_mut().unwrap().remove("moved").unwrap();
        let moved: jiff::Timestamp = moved.as_str().unwrap().parse().unwrap();
        assert!((i64::from(now) - moved.as_second()).abs() < 60, "{moved}");
    }
    assert_eq!(status["feed"], place.feed.to_str().unwrap());
    assert_eq!(status["first_segment"], "00000000");
    assert_eq!(status["last_segment"], "00000002");
    assert_eq!(
        (&status["segments"], &status["records"], &status["bytes"]),
        (&json!(3), &json!(10), &json!(181))
    );
    assert_eq!(status["checksums"], true);
    assert!(status["free"].as_u64().unwrap() > 0);
    let expected = json!([
        {
            "name": "ahead", "checkpoint": "00000001:00000003", "messages_behind": 3, "bytes_behind": 18 * 2 + 19,
            "oldest": time(7).1, "holds_back": false, "held_bytes": 0, "missed": 0, "lost": null,
        },
        {
            "name": "done", "checkpoint": "00000002:00000002", "messages_behind": 0, "bytes_behind": 0,
            "oldest": null, "holds_back": false, "held_bytes": 0, "missed": 0, "lost": null,
        },
        {
            "name": "s", "checkpoint": "00000000:00000000", "messages_behind": 10, "bytes_behind": 181,
            "oldest": time(0).1, "holds_back": true, "held_bytes": 72, "missed": 0, "lost": null,
        },
    ]);
    assert_eq!(status["subscribers"], expected);
}

#[test]
fn status_is_a_table_for_people() {
    let place = Place::new(&["--segment-size", "64KiB", "--pre-commit", "4KiB"]);
    let writer = place.log().writer().unwrap();
    let now = Timestamp::now();
    let old = Timestamp { seconds: now.seconds - 3 * 86_400, micros: 0 };
    for _ in 0..1234 {
        writer.append_at(old, [b'x'; 100]).unwrap();
    }
    writer.flush().unwrap();
    writer.append_at(now, "still in the buffer").unwrap();
    place.ok("subscribe", &["done", "--end"]);
    let text = place.ok("status", &[]);
    let lines: Vec<Vec<&str>> = text.lines().map(words).collect();
    assert_eq!(text.lines().next(), place.feed.to_str());
    assert_eq!(lines[1].join(" "), "segments 3 (00000000 to 00000002), 139.8 KiB, 1,234 records");
    assert_eq!(lines[2].join(" "), "pre-commit 35 B of 4.0 KiB in use");
    assert_eq!((lines[3][0], *lines[3].last().unwrap()), ("disk", "free"));
    assert_eq!(lines[4], ["subscriber", "checkpoint", "behind", "bytes", "oldest", "moved"]);
    let checkpoint = place.checkpoint("done").to_string();
    assert_eq!(lines[5][..5], ["done", &checkpoint, "0", "0", "B"]);
    assert!(lines[5].len() == 6 && lines[5][5].ends_with('s'), "{:?}", lines[5]);
    let row = lines[6].join(" ");
    assert!(row.starts_with("s 00000000:00000000 1,234 139.8 KiB 3d "), "{row}");
    assert!(row.ends_with("s holds back 134.8 KiB"), "{row}");
    assert_eq!(lines.len(), 7);
    // The columns are aligned.
    let ends: Vec<Option<usize>> = ["behind", "0  ", "1,234"]
        .iter()
        .zip(text.lines().skip(4))
        .map(|(word, line)| line.find(word).map(|at| at + word.trim_end().len()))
        .collect();
    assert!(ends[0].is_some() && ends[1..].iter().all(|end| *end == ends[0]), "{ends:?} in\n{text}");
}

#[test]
fn status_without_subscribers_says_what_that_means() {
    let place = Place::empty();
    run(place.jlog("create", NONE), "").ok();
    let text = place.ok("status", &[]);
    assert!(text.contains("no subscribers: everything is kept; add one with `jlog subscribe`"), "{text}");
    assert_eq!(json_of(&place.ok("status", &["-o", "json"]))["subscribers"], json!([]));
}

/// A feed that cannot be read does not hide the others.
#[test]
fn status_of_several_feeds_shows_each() {
    let place = numbered();
    let there = place.feed.to_str().unwrap();
    let (gone, damaged) = (format!("{there}-gone"), format!("{there}-damaged"));
    run(jlog(["write", "-q", "--create", &damaged[..]]), "message\n").text();
    std::fs::remove_file(format!("{damaged}/metastore")).unwrap();
    let Done { code, stdout, stderr } =
        run(jlog(["status", &damaged[..], there, &gone, there, "-o", "json"]), "");
    assert_eq!(code, Some(3), "{stderr}");
    let shown: Vec<Value> = lines(str::from_utf8(&stdout).unwrap())
        .into_iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown.len(), 2, "{stderr}");
    assert!(shown.iter().all(|status| status["feed"] == there && status["records"] == 10), "{shown:?}");
    assert!(stderr.contains(&gone) && stderr.contains(&damaged), "{stderr}");
}

#[test]
fn status_has_one_line_for_each_subscriber_whatever_its_name_is() {
    let place = numbered();
    for name in ["line\nbreak", "\x1b[31mred"] {
        place.log().subscribe(name, jlog_core::Start::End).unwrap();
    }
    for name in [&b"\xff"[..], b"\xfe"] {
        place.log().subscribe(name, jlog_core::Start::End).unwrap();
    }
    let text = place.ok("status", &[]);
    assert!(!text.replace('\n', "").chars().any(char::is_control), "{text:?}");
    let rows = text.lines().skip_while(|line| !line.contains("subscriber")).count() - 1;
    assert_eq!(rows, 5, "{text}");
    // A script can tell them apart.
    let status = json_of(&place.ok("status", &["-o", "json"]));
    let names: BTreeMap<String, u64> = status["subscribers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subscriber| (subscriber.to_string(), 1))
        .collect();
    assert_eq!(names.len(), 5, "{status}");
}

#[test]
fn paths_on_a_terminal_are_shown_without_controls() {
    let place = numbered();
    let odd = place.path("odd\x1b]0;title\x07\u{202e}");
    std::fs::rename(&place.feed, &odd).unwrap();
    for command in ["status", "verify"] {
        let mut command = jlog([command]);
        command.arg(&odd);
        let shown = run(command, "").text();
        assert!(!shown.contains(['\x1b', '\x07', '\u{202e}']), "{shown:?}");
    }
}

/// What a command prints to a terminal.
fn on_a_terminal(place: &Place, command: &str, variables: &[(&str, &str)]) -> String {
    let terminal = openpty(None, None).unwrap();
    let mut command = place.jlog(command, NONE);
    command.envs(variables.iter().copied()).stdout(Stdio::from(terminal.slave));
    let mut running = Running::start(&mut command);
    drop(command);
    let lines = Lines::of(std::fs::File::from(terminal.master));
    let text = lines.rest().concat();
    let done = running.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    text.replace("\r\n", "\n")
}

#[test]
fn colours_are_for_terminals_and_only_where_they_are_wanted() {
    let place = numbered();
    // All commands show the same age, however long they take.
    let checkpoint = std::fs::File::options().write(true).open(place.feed.join("cp.73")).unwrap();
    checkpoint
        .set_modified(std::time::SystemTime::now() - Duration::from_secs((100 * 24 + 12) * 3600))
        .unwrap();
    for command in ["status", "verify"] {
        let plain = place.ok(command, &[]);
        assert!(!plain.contains('\x1b'), "{plain}");
        let coloured = on_a_terminal(&place, command, &[]);
        assert!(coloured.contains("\x1b["), "{coloured}");
        assert_ne!(coloured, plain);
        let free = |text: &str| -> String {
            // Free space may change meanwhile.
            text.lines().filter(|line| !line.contains(" free")).collect()
        };
        for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let text = on_a_terminal(&place, command, &[variables]);
            assert_eq!(free(&text), free(&plain), "{variables:?}");
        }
    }
    // Errors have colours, too.
    let nowhere = Place::empty();
    let terminal = openpty(None, None).unwrap();
    let lines = Lines::of(std::fs::File::from(terminal.master.as_fd().try_clone_to_owned().unwrap()));
    let mut command = nowhere.jlog("status", NONE);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(terminal.slave));
    let mut running = Running::spawn(&mut command);
    drop(command);
    assert_eq!(running.end(), Some(1));
    let text = lines.rest().concat();
    assert!(text.contains("\x1b[") && text.lines().count() == 1, "{text:?}");
}

#[test]
fn looking_changes_nothing() {
    let place = numbered();
    // Checkpoints in the middle, at the end of a complete segment, past its end, and at the end of
    // the feed.
    for (name, after) in [("a", "0:4"), ("b", "1:2"), ("c", "1:9"), ("d", "2:2")] {
        place.ok("subscribe", &[name, "--force", "--after", after]);
    }
    place.ok("unsubscribe", &["s"]);
    let before = place.snapshot();
    for (command, arguments) in [
        ("status", &[][..]),
        ("status", &["-o", "json"]),
        ("inspect", &[]),
        ("inspect", &["00000001"]),
        ("meta", &[]),
        ("verify", &[]),
    ] {
        place.ok(command, arguments);
        let after = place.snapshot();
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{command}");
        assert!(after == before, "{command} has changed a file");
    }
}

#[test]
fn inspect_lists_segments_and_records() {
    let place = numbered();
    let text = place.ok("inspect", &[]);
    let rows: Vec<Vec<&str>> = text.lines().map(words).collect();
    assert_eq!(rows[0], ["segment", "bytes", "records", "first", "last", "index", "checksums"]);
    assert_eq!(rows[1], ["00000000", "72", "4", &time(0).1, &time(3).1, "-", "4"]);
    assert_eq!(rows[2], ["00000001", "72", "4", &time(4).1, &time(7).1, "-", "4"]);
    assert_eq!(rows[3], ["00000002", "37", "2", &time(8).1, &time(9).1, "-", "2"]);
    assert_eq!(rows.len(), 4);

    for name in ["00000002", "2"] {
        let text = place.ok("inspect", &[name]);
        let rows: Vec<Vec<&str>> = text.lines().map(words).collect();
        assert_eq!(rows[0], ["id", "offset", "time", "length", "stored"]);
        assert_eq!(rows[1], ["00000002:00000001", "0", &time(8).1, "2", "2"]);
        assert_eq!(rows[2], ["00000002:00000002", "18", &time(9).1, "3", "3"]);
        assert_eq!(rows.len(), 3);
    }
    let complaint = run(place.jlog("inspect", ["0000000a"]), "").failed(1);
    assert!(complaint.contains(place.feed.join("0000000a").to_str().unwrap()), "{complaint}");
}

#[test]
fn inspect_lists_many_records_in_aligned_columns() {
    let messages: Vec<String> = (0..3000).map(|n| "x".repeat(n % 200)).collect();
    let place = Place::with(&["--segment-size", "64MiB"], &messages);
    let text = place.ok("inspect", &["0"]);
    assert_eq!(text.lines().count(), 3001);
    let ends = |line: &str| -> Vec<usize> {
        // The ends of the right-aligned columns offset, length and stored.
        let mut ends = Vec::new();
        let mut at = 0;
        for word in words(line) {
            at += line[at..].find(word).unwrap() + word.len();
            ends.push(at);
        }
        vec![ends[1], ends[3], ends[4]]
    };
    let mut offset = 0;
    let heading = ends(text.lines().next().unwrap());
    for (n, line) in text.lines().skip(1).enumerate() {
        let row = words(line);
        let len = (n % 200).to_string();
        let id = LogId::new(0, u32::try_from(n).unwrap() + 1).to_string();
        assert_eq!([row[0], row[1], row[3], row[4]], [&id, &offset.to_string(), &len, &len]);
        offset += 16 + n % 200;
        // The first rows decide; numbers with more digits than theirs make a row longer.
        if n < 900 {
            let widened = ends(line);
            assert_eq!(widened, heading, "{line}");
        }
    }
}

#[test]
fn inspect_ends_in_order_when_nobody_reads_on() {
    let messages: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let place = Place::with(&["--segment-size", "64MiB"], &messages);
    let mut child = place
        .jlog("inspect", ["0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The command still has to write more than a pipe holds.
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn inspect_reports_a_tail_that_is_no_record() {
    let place = numbered();
    let path = place.feed.join("00000002");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(30);
    std::fs::write(&path, bytes).unwrap();
    let text = place.ok("inspect", &[]);
    assert!(text.contains("12 bytes after the last whole record"), "{text}");
}

/// Flips a bit of a file.
fn flip(place: &Place, name: &str, at: usize) {
    let path = place.feed.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn verify_names_the_record_with_a_flipped_bit() {
    let place = numbered();
    let text = place.ok("verify", &[]);
    assert_eq!(
        text,
        "sound: 3 segments, 181 B, 10 intact records, 10 of them checked against checksums, 0 could not be checked\n"
    );
    flip(&place, "00000001", 2 * 18 + 17);
    let before = place.snapshot();
    let done = run(place.jlog("verify", NONE), "");
    assert_eq!((done.code, done.stderr.as_str()), (Some(3), ""));
    let text = String::from_utf8(done.stdout).unwrap();
    let path = place.feed.join("00000001");
    let expected = [
        format!("damaged {}: offset 36: record 00000001:00000003: the checksum is wrong", path.display()),
        "damaged: 3 segments, 181 B, 9 intact records, 9 of them checked against checksums, 0 could not be checked".to_owned(),
    ];
    assert_eq!(lines(&text), expected);
    assert!(place.snapshot() == before);
}

#[test]
fn verify_finds_damage_of_every_kind() {
    // The damage, and a part of its report.
    type Damage = (fn(&Place), &'static str);
    let kinds: [Damage; 7] = [
        (|place| flip(place, "00000000", 1), "18 bytes are not a record"),
        (
            |place| std::fs::write(place.feed.join("00000002"), b"\x18\x73\x3a").unwrap(),
            "3 bytes are not a record",
        ),
        (|place| std::fs::write(place.feed.join("cp.73"), b"short").unwrap(), "has 5 bytes, not 8"),
        (|place| std::fs::write(place.feed.join("cp.73"), [9, 0, 0, 0, 1, 0, 0, 0]).unwrap(), "is beyond"),
        (|place| std::fs::write(place.feed.join("metastore"), [0; 16]).unwrap(), "metastore"),
        (|place| flip(place, "metastore", 12), "its header magic"),
        (|place| std::fs::write(place.feed.join("pre_commit"), [9, 0, 0, 0, 1]).unwrap(), "pre_commit"),
    ];
    for (damage, what) in kinds {
        let place = numbered();
        damage(&place);
        let done = run(place.jlog("verify", NONE), "");
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!((done.code, done.stderr.as_str()), (Some(3), ""), "{what}: {text}");
        assert!(
            text.lines().any(|line| line.starts_with("damaged ") && line.contains(what)),
            "{what}: {text}"
        );
    }
}

/// Runs `look` while messages of this size are written and a subscriber reads them.
fn meanwhile(options: &[&str], size: usize, look: impl FnOnce(&Place)) {
    let place = Place::new(options);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (writer, message) = (place.log().writer().unwrap(), vec![b'm'; size]);
            while !over.load(Ordering::Relaxed) {
                writer.append(&message).unwrap();
            }
            end(writer);
        });
        scope.spawn(|| {
            let mut reader = place.log().reader("s").unwrap();
            while !over.load(Ordering::Relaxed) {
                let wait = Wait::Timeout(Duration::from_millis(5));
                let last = reader.next_batch(wait).unwrap().map(|batch| batch.last_id());
                if let Some(last) = last {
                    reader.commit(last).unwrap();
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&place)));
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Verifies a feed that is being written to and read.
fn verify_meanwhile(options: &[&str], size: usize) {
    meanwhile(options, size, |place| {
        for _ in 0..40 {
            let done = run(place.jlog("verify", NONE), "");
            let text = String::from_utf8(done.stdout).unwrap();
            let findings: Vec<&str> = text.lines().filter(|line| line.starts_with("damaged")).collect();
            assert_eq!(findings, [""; 0]);
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
        }
    });
}

#[test]
fn a_large_message_that_is_being_written_is_no_damage() {
    // Verification meets half-written messages.
    verify_meanwhile(&["--segment-size", "2MiB"], 256 << 10);
}

#[test]
fn a_feed_that_moves_on_meanwhile_is_not_damaged() {
    // The last segment and the checkpoint move during a verification.
    verify_meanwhile(&["--segment-size", "1KiB"], 50);
}

#[test]
fn a_buffer_in_use_is_not_damaged() {
    verify_meanwhile(&["--segment-size", "64KiB", "--pre-commit", "4KiB"], 50);
}

#[test]
fn a_feed_that_is_being_written_can_be_looked_at() {
    meanwhile(&["--segment-size", "2KiB"], 100, |place| {
        for _ in 0..20 {
            for (command, arguments) in [
                ("status", &[][..]),
                ("status", &["-o", "json"]),
                ("inspect", &[]),
                ("meta", &[]),
                ("clean", &[]),
            ] {
                place.ok(command, arguments);
            }
        }
    });
}

#[test]
fn repair_keeps_every_intact_record() {
    let place = numbered();
    assert_eq!(place.ok("repair", &[]), "nothing to repair\n");
    flip(&place, "00000001", 17);
    flip(&place, "00000000", 18);
    let text = place.ok("repair", &[]);
    for (segment, kept) in [("00000000", "00000000.broken-18"), ("00000001", "00000001.broken-0")] {
        let expected = format!(
            "segment {segment}: 18 bytes taken out, 3 records kept; the original is {}",
            place.feed.join(kept).display()
        );
        assert!(text.lines().any(|line| line == expected), "{text}");
        assert_eq!(place.feed.join(kept).metadata().unwrap().len(), 72);
    }
    assert!(place.ok("verify", &[]).starts_with("sound: "));
    assert_eq!(words(&place.ok("read", &["s"])), ["m1", "m3", "m4", "m6", "m7", "m8", "m9", "m10"]);
    assert_eq!(place.ok("repair", &[]), "nothing to repair\n");
}

#[test]
fn repair_restores_a_lost_metastore() {
    for damage in [None, Some(&b"rubbish that is none"[..]), Some(&[])] {
        let place = numbered();
        let path = place.feed.join("metastore");
        match damage {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        let complaint = run(place.jlog("read", ["s"]), "").failed(3);
        assert!(complaint.contains(place.feed.to_str().unwrap()), "{complaint}");
        assert!(complaint.contains("`jlog repair`"), "{complaint}");
        let text = place.ok("repair", &[]);
        assert!(text.contains("metastore: "), "{text}");
        assert_eq!(lines(&place.ok("read", &["s"])).len(), 10);
        run(place.jlog("write", ["-q"]), "more\n").ok();
        assert_eq!(place.ok("read", &["s"]), "more\n");
    }
}

#[test]
fn repair_waits_for_no_writer_and_disturbs_none() {
    let place = numbered();
    let writer = place.log().writer().unwrap();
    let complaint = run(place.jlog("repair", NONE), "").failed(1);
    assert!(complaint.starts_with(&format!("{} is open for writing", place.feed.display())), "{complaint}");
    end(writer);
    assert_eq!(place.ok("repair", &[]), "nothing to repair\n");
}

#[test]
fn clean_removes_what_nobody_needs() {
    let place = numbered();
    // Subscribers need all segments.
    assert_eq!(place.ok("clean", &[]), "0 segments removed\n");
    place.ok("subscribe", &["t", "--after", "1:1"]);
    place.ok("unsubscribe", &["s"]);
    assert_eq!(place.ok("clean", &[]), "1 segment removed 00000000\n");
    assert_eq!(place.segments(), ["00000001", "00000002"]);
    assert!(!place.feed.join("00000000.crc").exists());
    // Without subscribers, everything stays: one may still be added at the beginning.
    place.ok("unsubscribe", &["t"]);
    assert_eq!(place.ok("clean", &[]), "0 segments removed\n");
    assert_eq!(place.ok("clean", &["--roll"]), "0 segments removed\n");
    assert_eq!(place.segments(), ["00000001", "00000002"]);
}

#[test]
fn clean_expires_what_is_too_old_and_refuses_to_where_nothing_expires() {
    let place = numbered();
    let refused = run(place.jlog("clean", ["--expire"]), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.complaint().contains("has no age limit"), "{}", refused.complaint());
    assert_eq!(place.unread("s").len(), 10);
    place.ok("alter", &["--max-age", "1d", "--at-limit", "drop-oldest"]);
    let done = run(place.jlog("clean", ["--expire"]), "");
    assert_eq!(done.code, Some(0));
    assert_eq!(place.unread("s"), Vec::<Vec<u8>>::new());
}

#[test]
fn clean_with_roll_gives_the_space_of_an_idle_feed_back() {
    let place = numbered();
    place.ok("read", &["s"]);
    assert_eq!(place.segments(), ["00000002"]);
    assert_eq!(place.ok("clean", &[]), "0 segments removed\n");
    let said = place.ok("clean", &["--roll"]);
    assert!(said.contains("1 segment removed"), "{said}");
    assert_eq!(place.segments(), ["00000003"]);
    assert_eq!(place.feed.join("00000003").metadata().unwrap().len(), 0);
    assert!(said.contains("00000002"), "the segment that went is named: {said}");
    run(place.jlog("write", ["-q"]), "more\n").ok();
    assert_eq!(place.ok("read", &["s"]), "more\n");
    // A subscriber that has not read everything retains it.
    run(place.jlog("write", ["-q"]), "unread\n").ok();
    place.ok("clean", &["--roll"]);
    assert_eq!(place.ok("read", &["s"]), "unread\n");
}

#[test]
fn alter_changes_what_it_is_told_to() {
    let place = numbered();
    let meta = || json_of(&place.ok("meta", &["-o", "json"]));
    assert_eq!(place.ok("alter", &["--segment-size", "1MiB"]), "");
    assert_eq!((&meta()["segment_size"], &meta()["safety"]), (&json!(1 << 20), &json!("almost-safe")));
    place.ok("alter", &["--safety", "safe", "--pre-commit", "8KiB"]);
    assert_eq!((&meta()["segment_size"], &meta()["safety"]), (&json!(1 << 20), &json!("safe")));
    assert_eq!(meta()["pre_commit_buffer"], 8192);
    place.ok("alter", &["--checksums", "off"]);
    assert_eq!(meta()["checksums"], false);
    place.ok("alter", &["--checksums", "on", "--pre-commit", "0"]);
    assert_eq!((&meta()["checksums"], &meta()["pre_commit_buffer"]), (&json!(true), &json!(0)));
    assert_eq!(lines(&place.ok("read", &["s"])).len(), 10);
}

#[test]
fn alter_of_the_buffer_loses_nothing_and_refuses_one_in_use() {
    let place = Place::new(&["--pre-commit", "4KiB"]);
    let writer = place.log().writer().unwrap();
    writer.append("one").unwrap();
    let complaint = run(place.jlog("alter", ["--pre-commit", "8KiB"]), "").failed(1);
    assert!(complaint.contains("is in use by another writer's pre-commit buffer"), "{complaint}");
    end(writer);
    let writer = place.log().writer().unwrap();
    writer.append("two").unwrap();
    // The state as if the writer had been killed: its buffer is not flushed.
    let kept = place.snapshot();
    end(writer);
    for (name, bytes) in &kept {
        std::fs::write(place.feed.join(name), bytes).unwrap();
    }
    let done = run(place.jlog("alter", ["--pre-commit", "0"]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(place.ok("read", &["s"]), "one\ntwo\n");
}

#[test]
fn meta_shows_the_metastore() {
    let place = numbered();
    let expected = [
        "segment being written  00000002",
        "segment size           72 B",
        "pre-commit buffer      none",
        "compression            none",
        "safety                 almost-safe",
        "checksums              on",
        "header magic           663a7318",
    ];
    assert_eq!(lines(&place.ok("meta", &[])), expected);
    let expected = json!({
        "segment_being_written": "00000002", "segment_size": 72, "pre_commit_buffer": 0, "compression": "none",
        "safety": "almost-safe", "checksums": true, "header_magic": "663a7318",
    });
    assert_eq!(json_of(&place.ok("meta", &["--output", "json"])), expected);
}

#[test]
fn an_old_jlog_is_read_and_repair_makes_it_writable() {
    let place = Place::empty();
    std::fs::create_dir(&place.feed).unwrap();
    std::fs::write(place.feed.join("metastore"), [0, 0, 0, 0, 0, 4, 0, 0, 1, 0, 0, 0]).unwrap();
    std::fs::write(place.feed.join("cp.73"), [0; 8]).unwrap();
    let mut segment = Vec::new();
    for body in [b"one", b"two"] {
        segment.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
        segment.extend_from_slice(body);
    }
    std::fs::write(place.feed.join("00000000"), segment).unwrap();
    assert_eq!(place.ok("read", &["s", "--peek"]), "one\ntwo\n");
    let complaint = run(place.jlog("write", ["-q"]), "three\n").failed(1);
    assert!(complaint.contains("`jlog repair` upgrades it"), "{complaint}");
    place.ok("repair", &[]);
    run(place.jlog("write", ["-q"]), "three\n").ok();
    assert_eq!(place.ok("read", &["s"]), "one\ntwo\nthree\n");
    assert_eq!(place.checkpoint("s"), LogId::new(0, 3));
}

#[test]
fn status_shows_several_feeds_and_watches_them() {
    let (one, two) = (numbered(), numbered());
    let both = |more: &[&str]| {
        let mut command = one.jlog("status", NONE);
        command.arg(&two.feed).args(more);
        command
    };
    let text = run(both(&[]), "").text();
    for place in [&one, &two] {
        assert!(text.lines().any(|line| Some(line) == place.feed.to_str()), "{text}");
    }
    let text = run(both(&["-o", "json"]), "").text();
    let feeds: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(feeds.len(), 2);
    assert_eq!(feeds[1]["feed"], two.feed.to_str().unwrap());

    let (mut watch, lines) = Running::with_lines(both(&["-o", "json", "--watch=1"]));
    let records = |line: Option<String>| json_of(&line.unwrap())["records"].as_u64().unwrap();
    assert_eq!([records(lines.next()), records(lines.next())], [10, 10]);
    two.append(&["eleventh"]);
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    while [records(lines.next()), records(lines.next())] != [10, 11] {
        assert!(std::time::Instant::now() < deadline);
    }
    // A removed feed does not hide the other.
    std::fs::remove_dir_all(&one.feed).unwrap();
    let complaints = Lines::of(watch.stderr.take().unwrap());
    assert!(complaints.next().unwrap().contains(one.feed.to_str().unwrap()));
    watch.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(watch.end(), Some(0));
}

#[test]
fn status_says_how_well_messages_are_compressed() {
    let messages: Vec<String> = (0..500).map(|n| format!("{n} {}", "the same again ".repeat(100))).collect();
    let place = Place::with(&["--compression", "lz4", "--segment-size", "4KiB"], &messages);
    let ratio = json_of(&place.ok("status", &["-o", "json"]))["compression_ratio"].as_f64().unwrap();
    assert!((20.0..200.0).contains(&ratio), "{ratio}");
    let text = place.ok("status", &[]);
    assert!(text.contains(&format!("  compression {ratio:.1} to 1 in the newest segments\n")), "{text}");
    // Nothing is said about uncompressed or missing bodies.
    for options in [&[][..], &["--compression", "lz4"]] {
        let place = Place::new(options);
        assert!(!place.ok("status", &[]).contains("compression"));
        assert_eq!(json_of(&place.ok("status", &["-o", "json"]))["compression_ratio"], Value::Null);
    }
}

/// The mode of a new feed's files: the requested one, or 640 less the umask.
#[test]
fn the_umask_counts_unless_a_mode_is_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    for (umask, args, expected) in
        [("077", "", 0o600), ("022", "", 0o640), ("077", "--mode 660", 0o660), ("000", "", 0o640)]
    {
        let dir = tempfile::tempdir().unwrap();
        let command = format!("umask {umask} && exec \"$0\" create f {args}");
        let status = std::process::Command::new("sh")
            .args(["-c", &command, env!("CARGO_BIN_EXE_jlog")])
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        for name in ["metastore", "settings", "identity"] {
            let mode = std::fs::metadata(dir.path().join("f").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{name}, umask {umask}, {args:?}");
        }
    }
}
