//! Hostile input: names that lead elsewhere, what is no file of ours in the place of one, other users, clocks
//! that go back, numbers at the end of their range.

use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use jlog_core::names::{self, SubscriberName};
use jlog_core::{Error, Event, Jlog, LogId, Reader, Start, Timestamp, Wait};

use crate::support::{bodies, new_path, read_all, read_on};

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

/// Does everything that opens files; whatever comes of it, it comes to an end.
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
            note(log.clean(false).map(|_| ()));
        }
    }
    note(Jlog::repair(path).map(|_| ()));
    errors
}

/// A link in the place of any of our files is not followed: what it leads to stays as it is.
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

/// Directories and FIFOs in the place of our files: a clear error, and nobody waits for anybody.
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

/// A path that is too long is told of before anything is made.
#[test]
fn a_path_that_is_too_long() {
    let (dir, _) = new_path();
    let long = dir.path().join("a/".repeat(2100));
    for error in [Jlog::create(&long).unwrap_err(), Jlog::open(&long).unwrap_err()] {
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Files of another user are told of.
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
    let told =
        |event: &Event| matches!(event, Event::ForeignOwner { path, .. } if path.ends_with("metastore"));
    assert!(log.take_events().iter().any(told));
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

/// A jlog whose last segment has this number.
fn at_number(path: &Path, number: u32) -> Jlog {
    Jlog::options().segment_size(60).create(path).unwrap();
    let mut metastore = std::fs::read(path.join("metastore")).unwrap();
    metastore[..4].copy_from_slice(&number.to_le_bytes());
    std::fs::write(path.join("metastore"), metastore).unwrap();
    Jlog::open(path).unwrap()
}

/// The last segment numbers are used, and then it is said that there are no more; what is there can be read.
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
    reader.checkpoint(got.last().unwrap().id).unwrap();
    assert!(reader.next_batch(Wait::No).unwrap().is_none());
    log.clean(false).unwrap();
    assert!(!log.verify().unwrap().is_damaged());
    log.status().unwrap();
    Jlog::repair(&path).unwrap();
    match log.writer().map(|writer| writer.append(b"more")) {
        Ok(Err(Error::OutOfSegments { .. })) | Err(Error::OutOfSegments { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Millions of numbers between two segments are stepped over at once, and a checkpoint that moves across them
/// removes what it passes without trying every number.
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
    // The next writer goes on where the metastore says.
    let writer = log.writer().unwrap();
    writer.append(b"behind").unwrap();
    writer.close().unwrap();
    let begin = Instant::now();
    let mut reader = log.reader("a").unwrap();
    let got = read_on(&mut reader);
    assert_eq!(bodies(&got), [&b"before"[..], b"behind"]);
    reader.checkpoint(got[1].id).unwrap();
    assert_eq!(log.segments().unwrap(), [3_000_000_000]);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

/// A checkpoint far beyond everything: nothing loops, nothing is removed, the next writer moves it back.
#[test]
fn a_checkpoint_beyond_everything() {
    let (_dir, path) = new_path();
    let log = small(&path);
    std::fs::write(path.join("cp.61"), [0xff; 8]).unwrap();
    assert!(log.verify().unwrap().is_damaged());
    assert!(log.reader("a").unwrap().next_batch(Wait::No).unwrap().is_none());
    log.status().unwrap();
    log.clean(false).unwrap();
    log.writer().unwrap().close().unwrap();
    let end = log.last_id().unwrap();
    assert_eq!(log.checkpoint("a").unwrap(), end);
    log.writer().unwrap().append(b"three").unwrap();
    log.writer().unwrap().flush().unwrap();
    assert_eq!(bodies(&read_on(&mut log.reader("a").unwrap())), [b"three"]);
}

/// What is not ours stays, whatever is done.
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
