//! Hostile input: names that lead elsewhere, special files in the place of ours, other users,
//! clocks that go back, numbers at the end of their range.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jlog_core::SubscriberName;
use jlog_core::compat::ReaderCompat;
use jlog_core::names;
use jlog_core::{
    AlterOptions, CleanOptions, Error, Event, Jlog, Limits, LogId, Reader, Start, Timestamp, Wait,
};

use testkit::crc32;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{bodies, new_path, read_all, read_on, snapshot};

const FILES: [&str; 7] =
    ["metastore", "00000001", "00000001.crc", "00000001.idx", "cp.61", "pre_commit", "settings"];

/// A jlog of two segments with a subscriber `a` and a buffer.
fn small(path: &Path) -> Jlog {
    let log = Jlog::options().segment_size(100).pre_commit(4096).create(path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append(vec![b'x'; 100]).unwrap();
    writer.flush().unwrap();
    writer.append(b"two").unwrap();
    writer.close().unwrap();
    log
}

/// Calls everything that opens files. Returns the errors, and must not hang.
fn try_everything(path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |outcome: Result<(), Error>| errors.extend(outcome.err());
    let read = |reader: &mut Reader| -> Result<(), Error> {
        for _ in 0..100 {
            match reader.next_batch(Wait::No) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {}
                Err(e) if e.is_damage() => reader.skip_damage(),
                Err(e) => return Err(e),
            }
        }
        panic!("a reader does not come to an end");
    };
    match Jlog::open(path) {
        Err(e) => note(Err(e)),
        Ok(log) => {
            note(log.verify().map(|_| ()));
            note(log.status().map(|_| ()));
            note(log.reader("a").and_then(|mut reader| {
                reader.interval()?;
                read(&mut reader)
            }));
            note(log.writer().and_then(|writer| {
                writer.append(b"three")?;
                writer.close()
            }));
            note(log.clean(CleanOptions::default()).map(|_| ()));
        }
    }
    note(Jlog::repair(path).map(|_| ()));
    errors
}

/// A link in the place of one of our files is not followed: its target does not change.
#[test]
fn symbolic_links_are_refused() {
    for name in FILES {
        let (dir, path) = new_path();
        drop(small(&path));
        let target = dir.path().join("target");
        let ours = path.join(name);
        let before = if ours.exists() { std::fs::read(&ours).unwrap() } else { b"not ours".to_vec() };
        std::fs::write(&target, &before).unwrap();
        if ours.exists() {
            std::fs::remove_file(&ours).unwrap();
        }
        symlink(&target, &ours).unwrap();
        let errors = try_everything(&path);
        assert_eq!(std::fs::read(&target).unwrap(), before, "{name}: what the link leads to");
        if !name.ends_with(".crc") && !name.ends_with(".idx") {
            let refused = errors.iter().any(|e| matches!(e, Error::NotAFile { path, .. } if *path == ours));
            let repaired = !std::fs::symlink_metadata(&ours).unwrap().is_symlink();
            assert!(refused || repaired, "{name}: {errors:?}");
        }
    }
}

/// A file that also has a name outside the directory is not written to: it may be another user's,
/// or part of a backup.
#[test]
fn hard_linked_files_are_refused() {
    for name in FILES.into_iter().chain(["00000002", "00000002.crc"]) {
        let (dir, path) = new_path();
        drop(small(&path));
        let ours = path.join(name);
        if !ours.exists() {
            std::fs::write(&ours, b"").unwrap();
        }
        let outside = dir.path().join("outside");
        std::fs::hard_link(&ours, &outside).unwrap();
        let before = std::fs::read(&outside).unwrap();

        let errors = try_everything(&path);
        assert_eq!(std::fs::read(&outside).unwrap(), before, "{name}: what is outside was changed");
        // The other files are never written to, or are replaced by new files.
        let must = ["metastore", "00000002", "cp.61", "pre_commit"].contains(&name);
        let reported = errors.iter().any(|e| matches!(e, Error::HardLinked { path } if path == &ours));
        assert!(reported || !must || name == "cp.61", "{name}: {errors:?}");
        // Read-only operations continue.
        let log = Jlog::open(&path);
        if must {
            let log = log.unwrap();
            let found = log.verify().unwrap().findings;
            assert!(!found.iter().any(|finding| finding.damage), "{name}: {found:?}");
            assert_eq!(log.subscribers().unwrap().len(), 1);
            let mut reader = log.reader("a").unwrap();
            let last = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
            let stored = reader.commit(last);
            assert_eq!(
                matches!(stored, Err(Error::HardLinked { .. })),
                name == "cp.61",
                "{name}: {stored:?}"
            );
        }
    }
}

/// A file with a name outside may have stricter permissions than the jlog's files: its contents are
/// not copied into one of them.
#[test]
fn nothing_of_a_hard_linked_file_is_kept() {
    const SECRET: &str = "root:secret:hash of some length";
    for name in ["settings", "00000000", "00000001", "pre_commit"] {
        let (dir, path) = new_path();
        drop(small(&path));
        let outside = dir.path().join("outside");
        std::fs::write(&outside, SECRET).unwrap();
        let _ = std::fs::remove_file(path.join(name));
        std::fs::hard_link(&outside, path.join(name)).unwrap();
        try_everything(&path);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), SECRET, "{name}");
        let identity = |path: &Path| std::fs::metadata(path).unwrap().ino();
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap().path();
            let reported = std::fs::read(&entry).unwrap().windows(11).any(|part| part == b"root:secret");
            // The file itself may stay under any name.
            assert!(!reported || identity(&entry) == identity(&outside), "{name}: {}", entry.display());
        }
    }
}

/// Files may have two names within the directory, as they do while they are made and repaired.
#[test]
fn hard_links_within_the_directory_are_allowed() {
    let (_dir, path) = new_path();
    let log = small(&path);
    std::fs::hard_link(path.join("metastore"), path.join("metastore.kept")).unwrap();
    let writer = log.writer().unwrap();
    writer.append(b"three").unwrap();
    writer.close().unwrap();
    assert_eq!(bodies(&read_all(&log)).last().unwrap(), b"three");
    assert_eq!(read_all(&log).len(), 3);
}

/// Directories and FIFOs in the place of our files: a clear error, and nothing blocks.
#[test]
fn directories_and_fifos_are_refused() {
    for name in FILES {
        for fifo in [false, true] {
            let (_dir, path) = new_path();
            drop(small(&path));
            let ours = path.join(name);
            let _ = std::fs::remove_file(&ours);
            if fifo {
                assert!(Command::new("mkfifo").arg(&ours).status().unwrap().success());
            } else {
                std::fs::create_dir(&ours).unwrap();
            }
            for error in try_everything(&path) {
                assert!(!error.to_string().is_empty(), "{name}, fifo: {fifo}");
                let named = error.to_string().contains(name) || error.to_string().contains("feed");
                assert!(named, "{name}, fifo: {fifo}: {error}");
            }
            let kind = std::fs::symlink_metadata(&ours).unwrap().file_type();
            if name != "pre_commit" && name != "settings" {
                assert!(if fifo { kind.is_fifo() } else { kind.is_dir() }, "{name}: it stays");
            }
        }
    }
}

/// No subscriber's name leads out of the directory.
#[test]
fn names_lead_nowhere() {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let outside = snapshot_names(dir.path());
    for name in ["..", ".", "/", "../../etc/passwd", "a/b", "\n", "\u{1b}[31m", "%n%s", "~", "cp.61"] {
        log.subscribe(name, Start::Beginning).unwrap();
        assert!(log.has_subscriber(name).unwrap());
        assert!(path.join(SubscriberName::new(name).unwrap().checkpoint_file()).is_file());
        assert!(log.unsubscribe(name).unwrap());
    }
    for name in [&b""[..], b"a\0b", &[b'a'; 127]] {
        assert!(matches!(log.subscribe(name, Start::Beginning), Err(Error::SubscriberName { .. })));
    }
    assert_eq!(snapshot_names(dir.path()), outside);
}

fn snapshot_names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A path that is too long is reported before anything is made.
#[test]
fn a_path_that_is_too_long() {
    let (dir, _) = new_path();
    let long = dir.path().join("a/".repeat(2100));
    for error in [Jlog::create(&long).unwrap_err(), Jlog::open(&long).unwrap_err()] {
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The longest path that leaves room for all of our names works completely; for a longer one,
/// nothing is made.
#[test]
fn the_longest_path_there_can_be() {
    // 4,096 bytes with the closing NUL, and `/` and 255 bytes for the name of the longest
    // checkpoint.
    const LONGEST: usize = 4096 - 1 - 256;
    let (dir, path) = new_path();
    let component = dir.path().join("x".repeat(256));
    for error in [Jlog::create(&component).unwrap_err(), Jlog::open(&component).unwrap_err()] {
        let named = error.to_string().contains(component.to_str().unwrap());
        assert!(named && matches!(error, Error::Io { .. }), "{error}");
    }
    let mut parent = path;
    while parent.as_os_str().len() + 202 < LONGEST {
        parent.push("d".repeat(100));
    }
    std::fs::create_dir_all(&parent).unwrap();
    let room = LONGEST - parent.as_os_str().len() - 1;
    let too_long = parent.join("f".repeat(room + 1));
    assert!(matches!(Jlog::create(&too_long), Err(Error::Io { .. })));
    assert!(matches!(Jlog::open(&too_long), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 0);
    let longest = parent.join("f".repeat(room));
    let log = Jlog::options().pre_commit(100).create(&longest).unwrap();
    let name = [b'n'; 126];
    log.subscribe(name, Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append("one").unwrap();
    writer.roll().unwrap();
    writer.append("two").unwrap();
    writer.close().unwrap();
    let mut reader = log.reader(name).unwrap();
    reader.interval().unwrap();
    let got = read_on(&mut reader);
    assert_eq!(bodies(&got), [b"one", b"two"]);
    reader.commit(got[1].id).unwrap();
    assert_eq!(log.segments().unwrap(), [1]);
    assert_eq!(log.verify().unwrap().findings, []);
}

/// A user and a group without privileges.
const NOBODY: u32 = 65534;

/// Makes each kind of call for subscriber `a` in a process of a user without privileges. Returns
/// the result of each; `None` if no such process is possible.
fn as_plain_user(path: &Path) -> Option<BTreeMap<String, String>> {
    let home = path.parent().unwrap();
    let worker = home.join("worker");
    if !worker.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_worker"), &worker).unwrap();
    }
    let mut command = Command::new(&worker);
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        chown(home, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = match command.arg("try-all").arg(path).arg("a").output() {
        Ok(output) => output,
        Err(e) => {
            eprintln!("skipped: nobody else can run the worker ({e})");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    Some(said.lines().map(|line| line.split_once(": ").unwrap()).map(|(k, v)| (k.into(), v.into())).collect())
}

/// Files that may not be read or written are reported by name; everything that does not need them
/// works; and nothing is lost.
#[test]
fn without_permission() {
    type Failing = &'static [(&'static str, &'static str)];
    const ALL: [&str; 5] = ["open", "status", "read", "checkpoint", "append"];
    // A file (or the directory), its permissions, the calls that then fail, and what they name.
    let states: [(&str, u32, Failing); 11] = [
        ("metastore", 0o600, &[]),
        ("", 0, &[("open", "feed/metastore")]),
        ("", 0o100, &[("status", "feed"), ("checkpoint", "feed"), ("append", "feed")]),
        ("metastore", 0, &[("open", "feed/metastore")]),
        ("metastore", 0o400, &[("append", "feed/metastore")]),
        ("settings", 0, &[("open", "feed/settings")]),
        ("cp.61", 0o400, &[("checkpoint", "feed/cp.61")]),
        ("cp.61", 0, &[("read", "feed/cp.61")]),
        ("00000000", 0, &[("status", "feed/00000000"), ("read", "feed/00000000")]),
        ("00000001", 0o400, &[("append", "feed/00000001")]),
        ("pre_commit", 0, &[("status", "feed/pre_commit"), ("append", "feed/pre_commit")]),
    ];
    let (_dir, path) = new_path();
    let as_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut wrong = Vec::new();
    for (file, mode, failing) in states {
        let log = small(&path);
        log.subscribe("b", Start::Beginning).unwrap();
        if as_root {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            for entry in std::fs::read_dir(&path).unwrap() {
                chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let target = if file.is_empty() { path.clone() } else { path.join(file) };
        let usual = std::fs::metadata(&target).unwrap().permissions();
        std::fs::set_permissions(&target, PermissionsExt::from_mode(mode)).unwrap();
        let said = as_plain_user(&path);
        std::fs::set_permissions(&target, usual).unwrap();
        let Some(said) = said else { return };

        let what = format!("{file:?} with {mode:o}");
        for call in ALL {
            let right = match (said.get(call), failing.iter().find(|(name, _)| *name == call)) {
                (Some(outcome), None) => outcome == "ok",
                (Some(outcome), Some((_, culprit))) => {
                    let culprit = path.with_file_name(culprit);
                    outcome.contains(culprit.to_str().unwrap()) && outcome.contains("ermission denied")
                }
                // Without a jlog, there is nothing to try, and without a message, no checkpoint.
                (None, _) => said["open"] != "ok" || call == "checkpoint" && said["read"] != "ok",
            };
            if !right {
                wrong.push(format!("{what}: {call}: {:?}", said.get(call)));
            }
        }
        let mut expected = vec![vec![b'x'; 100], b"two".to_vec()];
        expected.extend((said.get("append").is_some_and(|said| said == "ok")).then(|| b"three".to_vec()));
        assert_eq!(bodies(&read_on(&mut log.reader("b").unwrap())), expected, "{what}");
        assert_eq!(log.pre_commit().unwrap(), Some((0, 4096)), "{what}");
        assert!(!log.verify().unwrap().is_damaged(), "{what}");
        assert!(snapshot(&path).keys().all(|name| !name.to_string_lossy().starts_with(".tmp-")), "{what}");
        log.writer().unwrap().close().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// With ten thousand subscribers, opening a writer and asking for the status take a few calls for
/// each of them; everything else takes no more calls than with one.
#[test]
fn ten_thousand_subscribers() {
    const COUNT: u32 = 10_000;
    const EACH: u64 = COUNT as u64;
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let storage = Faulty::storage(move |op| {
        counter.fetch_add(1, Ordering::Relaxed);
        if matches!(op, Op::Sync(_) | Op::SyncDir(_)) { Fate::Pretend } else { Fate::Proceed }
    });
    let calls = || calls.swap(0, Ordering::Relaxed);
    let heard = Arc::new(AtomicU64::new(0));
    let moved = Arc::clone(&heard);
    let (_dir, path) = new_path();
    let options = Jlog::options().segment_size(100).storage(storage).on_event(move |event| {
        assert!(matches!(event, Event::CheckpointMovedBack { .. }), "{event}");
        moved.fetch_add(1, Ordering::Relaxed);
    });
    let log = options.create(&path).unwrap();
    log.writer().unwrap().append_batch(&["first", "second"]).unwrap();
    let name = |n: u32| format!("s{n:04}");
    let set = |n: u32, segment: u32, marker: u32| {
        let file = SubscriberName::new(name(n)).unwrap().checkpoint_file();
        std::fs::write(path.join(file), [segment.to_le_bytes(), marker.to_le_bytes()].concat()).unwrap();
    };
    // Every fourth checkpoint is past the end.
    let done = |n: u32| [0, 1, 2, 7][n as usize % 4];
    (0..COUNT).for_each(|n| set(n, 0, done(n)));

    calls();
    let writer = log.writer().unwrap();
    let took = calls();
    assert!(took < 12 * EACH, "opening a writer took {took} calls");
    assert_eq!(heard.load(Ordering::Relaxed), EACH / 4);
    assert_eq!(log.take_events().len(), 1000, "so many are kept");
    assert_eq!(log.checkpoint(name(7)).unwrap(), LogId::new(0, 2));

    for n in 0..10 {
        writer.append(format!("message {n} of some length, so that there are segments")).unwrap();
    }
    writer.roll().unwrap();
    writer.append("last").unwrap();
    let took = calls();
    assert!(took < 1000, "ten appends and their rolls took {took} calls");
    let segments = log.segments().unwrap();
    assert!(segments.len() > 5);

    let mut reader = log.reader(name(0)).unwrap();
    let got = read_on(&mut reader);
    assert_eq!(got.len(), 13);
    calls();
    for got in &got {
        reader.commit(got.id).unwrap();
    }
    let took = calls();
    assert!(took < 6 * EACH, "who is behind was asked for once: {took} calls");
    assert_eq!(log.segments().unwrap(), segments, "others need them");

    calls();
    let status = log.status().unwrap();
    let took = calls();
    assert!(took < 60 * EACH, "status took {took} calls");
    assert_eq!(status.subscribers.len(), COUNT as usize);
    for (n, subscriber) in (0..).zip(&status.subscribers) {
        assert_eq!(subscriber.name, SubscriberName::new(name(n)).unwrap());
        let messages = if n == 0 { 0 } else { 13 - u64::from(done(n).min(2)) };
        assert_eq!(subscriber.messages, messages, "{n}");
        assert_eq!(subscriber.holds_back, n != 0, "{n}");
    }

    // The last subscriber that needs them moves on.
    let end = log.end().unwrap();
    (1..COUNT - 1).for_each(|n| set(n, end.segment, end.marker));
    let mut reader = log.reader(name(COUNT - 1)).unwrap();
    let got = read_on(&mut reader);
    assert_eq!(got.len(), 11);
    calls();
    reader.commit(got[10].id).unwrap();
    let took = calls();
    assert!(took < 6 * EACH, "the last checkpoint took {took} calls");
    assert_eq!(log.segments().unwrap(), [end.segment]);
    assert_eq!(log.clean(CleanOptions::default()).unwrap(), [0; 0]);
    assert_eq!(log.subscribers().unwrap().len(), COUNT as usize);
    writer.close().unwrap();
}

/// Files of another user are reported.
#[test]
fn other_peoples_files() {
    let (_dir, path) = new_path();
    let log = small(&path);
    let chown = Command::new("chown").arg("65534").arg(path.join("metastore")).output();
    if !chown.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file can be given away (that needs root)");
        return;
    }
    log.writer().unwrap().close().unwrap();
    let reported =
        |event: &Event| matches!(event, Event::ForeignOwner { path, .. } if path.ends_with("metastore"));
    assert!(log.take_events().iter().any(reported));
    let found = log.verify().unwrap();
    assert!(found.findings.iter().any(|finding| finding.path.ends_with("metastore") && !finding.damage));
}

/// A clock that goes back: messages stay in the order in which they were accepted.
#[test]
fn clocks_that_go_back() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(200).create(&path).unwrap();
    let writer = log.writer().unwrap();
    let seconds = [u32::MAX, 5, 0, 1_700_000_000, 4, u32::MAX, 3, 2, 1, 0];
    for (n, seconds) in seconds.into_iter().enumerate() {
        let time = Timestamp { seconds, micros: 999_999 };
        writer.append_at(time, format!("message {n} of some length, so that there are segments")).unwrap();
    }
    writer.close().unwrap();
    assert!(log.segments().unwrap().len() > 2);
    let got = read_all(&log);
    assert_eq!(got.iter().map(|got| got.time.seconds).collect::<Vec<_>>(), seconds);
    assert_eq!(log.verify().unwrap().findings, []);
    log.writer().unwrap().close().unwrap();
    assert_eq!(read_all(&log), got, "a writer takes nothing for torn");
}

/// If a sidecar was written when the clock was far ahead or far behind, intact records are not
/// accused, and a changed byte is noticed.
#[test]
fn checksums_of_another_time() {
    for written in [0, u32::MAX] {
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch(&["one", "two", "three"]).unwrap();
        writer.close().unwrap();
        let mut sidecar = std::fs::read(path.join("00000000.crc")).unwrap();
        sidecar[44..48].copy_from_slice(&written.to_le_bytes());
        let crc = crc32(&sidecar[..52]);
        sidecar[52..56].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path.join("00000000.crc"), sidecar).unwrap();
        let writer = log.writer().unwrap();
        writer.append("four").unwrap();
        writer.close().unwrap();
        assert_eq!(bodies(&read_all(&log)), [&b"one"[..], b"two", b"three", b"four"]);
        let found = log.verify().unwrap();
        assert_eq!((found.findings, found.verified), (Vec::new(), 4), "written at {written}");
        // Change a record that an intact one follows in its run.
        let segment = std::fs::OpenOptions::new().write(true).open(path.join("00000000")).unwrap();
        segment.write_all_at(b"?", 19 + 17).unwrap();
        let mut reader = log.reader("a").unwrap();
        assert_eq!(reader.next_batch(Wait::No).unwrap().unwrap().last_id(), LogId::new(0, 1));
        let error = reader.next_batch(Wait::No).unwrap_err();
        assert!(matches!(error, Error::ChecksumMismatch { offset: 19, .. }), "{written}: {error}");
        reader.skip_damage();
        assert_eq!(bodies(&read_on(&mut reader)), [&b"three"[..], b"four"]);
    }
}

/// A message's time may be ahead of the clock when its checksum is written, because the clock was
/// set back, or because the caller chose it. Once that time has come, a changed byte is noticed as
/// before.
#[test]
fn damage_is_noticed_when_the_time_has_come() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let ahead = Timestamp { seconds: Timestamp::now().seconds + 4, micros: 0 };
    writer.append_at(ahead, "as it was written").unwrap();
    writer.close().unwrap();
    let segment = std::fs::OpenOptions::new().write(true).open(path.join("00000000")).unwrap();
    segment.write_all_at(b"X", 20).unwrap();
    let look = || log.reader("a").unwrap().next_batch(Wait::No).map(|batch| batch.map(|batch| batch.len()));
    let damaged = |found: Result<_, Error>| matches!(found, Err(Error::ChecksumMismatch { .. }));
    assert!(damaged(look()));
    while Timestamp::now() < ahead {
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = look();
    assert!(matches!(found, Err(Error::ChecksumMismatch { .. })), "{found:?}");
    assert!(log.verify().unwrap().is_damaged());
}

/// A jlog whose last segment has this number.
fn at_number(path: &Path, number: u32) -> Jlog {
    Jlog::options().segment_size(60).create(path).unwrap();
    let mut metastore = std::fs::read(path.join("metastore")).unwrap();
    metastore[..4].copy_from_slice(&number.to_le_bytes());
    std::fs::write(path.join("metastore"), metastore).unwrap();
    Jlog::open(path).unwrap()
}

/// The last segment numbers are used, and then an error says that there are no more. What is stored
/// can still be read.
#[test]
fn segment_numbers_run_out() {
    let (_dir, path) = new_path();
    let log = at_number(&path, u32::MAX - 1);
    log.subscribe("a", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let mut accepted = Vec::new();
    let mut refused = 0;
    for n in 0..20 {
        let body = format!("message {n:03}, longer than half a segment");
        match writer.append(&body) {
            Ok(_) => accepted.push(body.into_bytes()),
            Err(Error::OutOfSegments { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(accepted.len() >= 2 && refused > 0, "{} accepted", accepted.len());
    assert!(matches!(writer.roll(), Err(Error::OutOfSegments { .. })));
    drop(writer);
    let mut reader = log.reader("a").unwrap();
    let got = read_on(&mut reader);
    assert_eq!(bodies(&got), accepted.iter().map(Vec::as_slice).collect::<Vec<_>>());
    reader.commit(got.last().unwrap().id).unwrap();
    assert!(reader.next_batch(Wait::No).unwrap().is_none());
    log.clean(CleanOptions::default()).unwrap();
    assert!(!log.verify().unwrap().is_damaged());
    log.status().unwrap();
    Jlog::repair(&path).unwrap();
    match log.writer().map(|writer| writer.append(b"more")) {
        Ok(Err(Error::OutOfSegments { .. })) | Err(Error::OutOfSegments { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// If the last segment has too little room for a batch, the messages that filled it are stored, and
/// the rest is not.
#[test]
fn a_batch_that_runs_out_of_segments() {
    let (_dir, path) = new_path();
    let log = at_number(&path, u32::MAX);
    let writer = log.writer().unwrap();
    let messages = [[b'0'; 20], [b'1'; 20], [b'2'; 20]];
    assert!(matches!(writer.append_batch(&messages), Err(Error::OutOfSegments { .. })));
    drop(writer);
    let got = read_all(&log);
    assert_eq!(bodies(&got), [&messages[0], &messages[1]]);
    assert_eq!(got[1].id, LogId::new(u32::MAX, 2));
    assert_eq!(log.segments().unwrap(), [u32::MAX]);
    assert_eq!(log.verify().unwrap().findings, []);
}

/// A message that fills the last segment is accepted like any other: it can be flushed, made
/// durable, and has its checksum.
#[test]
fn a_full_last_segment_is_made_durable() {
    for buffer in [0, 200] {
        let (_dir, path) = new_path();
        drop(at_number(&path, u32::MAX));
        let log = Jlog::open(&path).unwrap();
        log.alter(AlterOptions::default().pre_commit(buffer)).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch(&[[b'0'; 30], [b'1'; 30]]).unwrap();
        let outcomes = [writer.flush(), writer.sync(), writer.close()];
        assert!(outcomes.iter().all(Result::is_ok), "with a buffer of {buffer}: {outcomes:?}");
        assert_eq!(bodies(&read_all(&log)), [[b'0'; 30], [b'1'; 30]]);
        assert_eq!(log.verify().unwrap().verified, 2, "with a buffer of {buffer}");
    }
}

/// When the last segment is full, the contents of the pre-commit buffer stay there, whatever
/// writers are opened and closed. With larger segments, there is room for them.
#[test]
fn a_buffer_that_runs_out_of_segments() {
    let (_dir, path) = new_path();
    drop(at_number(&path, u32::MAX));
    let log = Jlog::open(&path).unwrap();
    log.alter(AlterOptions::default().pre_commit(200)).unwrap();
    let writer = log.writer().unwrap();
    let first = [[b'0'; 30], [b'1'; 30]];
    writer.append_batch(&first).unwrap();
    // The flush fills the last segment (the test before this one checks its result).
    let _ = writer.flush();
    writer.append("buffered").unwrap();
    writer.append("with it").unwrap();
    assert!(matches!(writer.flush(), Err(Error::OutOfSegments { .. })));
    assert!(matches!(writer.append([b'2'; 190]), Err(Error::OutOfSegments { .. })), "too large for the rest");
    assert!(matches!(writer.sync(), Err(Error::OutOfSegments { .. })));
    assert!(matches!(writer.close(), Err(Error::OutOfSegments { .. })));
    let used = Some(((16 + 8) + (16 + 7), 200));
    for _ in 0..2 {
        assert!(matches!(log.writer(), Err(Error::OutOfSegments { .. })));
        assert_eq!(log.pre_commit().unwrap(), used);
    }
    assert!(!log.verify().unwrap().is_damaged());
    assert_eq!(bodies(&read_all(&log)), first);
    log.alter(AlterOptions::default().segment_size(1000)).unwrap();
    let writer = log.writer().unwrap();
    writer.append("room").unwrap();
    writer.close().unwrap();
    let expected = [&first[0][..], &first[1], b"buffered", b"with it", b"room"];
    let got = read_all(&log);
    assert_eq!(bodies(&got), expected);
    assert_eq!(got[4].id, LogId::new(u32::MAX, 5));
}

/// Readers skip millions of numbers between two segments at once, and a checkpoint that moves
/// across them removes the segments that it passes without trying every number.
#[test]
fn a_gap_of_millions() {
    let (_dir, path) = new_path();
    let log = at_number(&path, 7);
    log.subscribe("a", Start::After(LogId::new(7, 0))).unwrap();
    log.writer().unwrap().append(b"before").unwrap();
    let mut metastore = std::fs::read(path.join("metastore")).unwrap();
    metastore[..4].copy_from_slice(&3_000_000_000u32.to_le_bytes());
    std::fs::write(path.join("metastore"), metastore).unwrap();
    std::fs::write(path.join(names::segment(3_000_000_000)), b"").unwrap();
    // The next writer continues where the metastore says.
    let writer = log.writer().unwrap();
    writer.append(b"behind").unwrap();
    writer.close().unwrap();
    let begin = Instant::now();
    let mut reader = log.reader("a").unwrap();
    let got = read_on(&mut reader);
    assert_eq!(bodies(&got), [&b"before"[..], b"behind"]);
    reader.commit(got[1].id).unwrap();
    assert_eq!(log.segments().unwrap(), [3_000_000_000]);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

/// With a checkpoint far beyond everything, nothing loops and nothing is removed, and the next
/// writer moves it back.
#[test]
fn a_checkpoint_beyond_everything() {
    let (_dir, path) = new_path();
    let log = small(&path);
    std::fs::write(path.join("cp.61"), [0xff; 8]).unwrap();
    assert!(log.verify().unwrap().is_damaged());
    assert!(log.reader("a").unwrap().next_batch(Wait::No).unwrap().is_none());
    log.status().unwrap();
    log.clean(CleanOptions::default()).unwrap();
    log.writer().unwrap().close().unwrap();
    let end = log.end().unwrap();
    assert_eq!(log.checkpoint("a").unwrap(), end);
    log.writer().unwrap().append(b"three").unwrap();
    log.writer().unwrap().flush().unwrap();
    assert_eq!(bodies(&read_on(&mut log.reader("a").unwrap())), [b"three"]);
}

/// No operation removes foreign files.
#[test]
fn foreign_files_are_left_alone() {
    let (_dir, path) = new_path();
    drop(small(&path));
    let foreign = [
        "README",
        "0000000",
        "000000001",
        "0000000G",
        "cp.XYZ",
        "00000000.bak",
        ".hidden",
        "cp.",
        "0000000A",
    ];
    for name in foreign {
        std::fs::write(path.join(name), format!("this is {name}")).unwrap();
    }
    std::fs::create_dir(path.join("lost+found")).unwrap();
    assert!(try_everything(&path).is_empty());
    for name in foreign {
        assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), format!("this is {name}"));
    }
    assert!(path.join("lost+found").is_dir());
    assert_eq!(Jlog::open(&path).unwrap().subscribers().unwrap().len(), 1);
}

/// An emptied settings file does not mean the defaults: a limit would be gone without notice.
#[test]
fn emptied_settings_are_reported() {
    let (_dir, path) = new_path();
    let log = small(&path);
    log.set_limits(Limits { max_bytes: Some(1 << 20), ..Limits::default() }).unwrap();
    drop(log);
    std::fs::write(path.join("settings"), b"").unwrap();
    let error = Jlog::open(&path).unwrap_err();
    assert!(matches!(&error, Error::Settings { line: 1, .. }), "{error}");
    assert!(error.to_string().contains("settings") && error.to_string().contains("empty"), "{error}");
    let reported = Jlog::repair(&path).unwrap();
    assert!(
        reported.iter().any(|event| event.to_string().contains("it is empty; rebuilt without limits")),
        "{reported:?}"
    );
    let log = Jlog::open(&path).unwrap();
    assert_eq!(log.limits(), Limits::default());
    assert_eq!(bodies(&read_all(&log)).last().unwrap(), b"two");
}
