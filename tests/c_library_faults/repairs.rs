//! Faults of repairs that the C library has fixed.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jlog_core::format::Meta;
use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{Error, Event, Jlog, LogId, OnDamage, ReaderOptions, Safety, Start};
use testkit::checker::Conforming;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{Got, bodies, consume, names_with, new_path, read_all, read_on, snapshot};

use super::{a_healthy_jlog, offsets, segment_path};

#[test]
fn repair_of_a_healthy_jlog_changes_nothing() {
    let (_dir, path, log) = a_healthy_jlog();
    assert!(names_with(&path, "0000000").iter().any(|name| name.ends_with(".idx")));
    let before = snapshot(&path);
    assert_eq!(Jlog::repair(&path).unwrap(), []);
    assert_eq!(snapshot(&path), before);
    assert_eq!(log.verify().unwrap().findings, []);
}

/// Repair keeps the valid values of a damaged metastore. Invalid ones are derived from the
/// segments, or become the default.
#[test]
fn repair_keeps_valid_metadata() {
    let mut conforming = Conforming::start();
    let (_dir, _path, log) = a_healthy_jlog();
    let good = log.meta().unwrap();
    type Change = fn(&mut Vec<u8>);
    let damage: [(&str, Change, Meta); 7] = [
        ("the number of the last segment is too low", |bytes| bytes[0] = 1, good),
        ("the magic is unknown", |bytes| bytes[12..].copy_from_slice(b"????"), good),
        ("the safety is unknown", |bytes| bytes[8] = 9, Meta { safety: Safety::AlmostSafe, ..good }),
        ("the segment size is 0", |bytes| bytes[4..8].fill(0), Meta { segment_size: 4 << 20, ..good }),
        ("it is cut within the magic", |bytes| bytes.truncate(15), good),
        (
            "it is cut within the segment size",
            |bytes| bytes.truncate(6),
            Meta { segment_size: 4 << 20, safety: Safety::AlmostSafe, ..good },
        ),
        ("it is empty", Vec::clear, Meta { segment_size: 4 << 20, safety: Safety::AlmostSafe, ..good }),
    ];
    for (what, damage, expected) in damage {
        let (_dir, path, log) = a_healthy_jlog();
        let all = read_all(&log);
        let before = snapshot(&path);
        let mut bytes = before[Path::new("metastore").as_os_str()].clone();
        damage(&mut bytes);
        std::fs::write(path.join("metastore"), &bytes).unwrap();
        let done = Jlog::repair(&path).unwrap();
        assert!(matches!(&done[..], [Event::MetastoreRepaired { .. }]), "{what}: {done:?}");
        let log = Jlog::open(&path).unwrap();
        assert_eq!(log.meta().unwrap(), expected, "{what}");
        assert_eq!(read_all(&log), all, "{what}");
        for (name, bytes) in before {
            if name != "metastore" {
                assert_eq!(std::fs::read(path.join(&name)).unwrap(), bytes, "{what}: {name:?}");
            }
        }
        conforming.check(&path);
    }
}

/// Valid checkpoints do not change by a byte. Unreadable ones, whatever their size, are moved to
/// the beginning, so that nothing is skipped; others are moved to positions that exist. Checkpoints
/// of temporary subscribers are left alone, and so are those before a lost segment, whose readers
/// report the loss.
#[test]
fn repair_keeps_valid_checkpoints() {
    const UNREADABLE: [usize; 7] = [0, 1, 3, 4, 7, 9, 4096];
    let (_dir, path, log) = a_healthy_jlog();
    let end = log.end().unwrap();
    let names = ["beginning", "middle", "end", "~temporary"];
    let before = names.map(|name| log.checkpoint(name).unwrap());
    let write = |name: &str, bytes: &[u8]| {
        let name = jlog_core::SubscriberName::new(name).unwrap();
        std::fs::write(path.join(name.checkpoint_file()), bytes).unwrap();
    };
    let id_bytes = |segment: u32, marker: u32| [segment.to_le_bytes(), marker.to_le_bytes()].concat();
    for len in UNREADABLE {
        write(&format!("{len} bytes"), &vec![7; len]);
    }
    write("beyond", &id_bytes(end.segment + 1, 0));
    write("past", &id_bytes(1, 1000));
    write("~short", &[1, 2, 3]);
    write("~beyond", &id_bytes(99, 99));
    std::fs::remove_file(segment_path(&path, 0)).unwrap();
    write("gone", &id_bytes(0, 2));
    let done = Jlog::repair(&path).unwrap();
    let first_marker = log.inspect(1, |_| {}).unwrap().records;
    for len in UNREADABLE {
        let name = format!("{len} bytes");
        assert_eq!(log.checkpoint(&name).unwrap(), LogId::new(1, 0), "{name}");
        let reported = Event::CheckpointRepaired {
            subscriber: name,
            to: LogId::new(1, 0),
            why: "its checkpoint could not be read".to_owned(),
        };
        assert!(done.contains(&reported), "{len} bytes: {done:?}");
    }
    for (name, checkpoint) in [
        ("beginning", before[0]),
        ("middle", before[1]),
        ("end", before[2]),
        ("~temporary", before[3]),
        ("beyond", end),
        ("past", LogId::new(1, first_marker)),
        ("gone", LogId::new(0, 2)),
    ] {
        assert_eq!(log.checkpoint(name).unwrap(), checkpoint, "{name}");
    }
    assert!(matches!(log.checkpoint("~short"), Err(Error::Checkpoint { len: 3, .. })));
    assert_eq!(log.checkpoint("~beyond").unwrap(), LogId::new(99, 99));
}

/// Ways to damage a record.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Its header is zeroed: nothing shows that it was one record.
    Header,
    /// A byte of its body is changed.
    Body,
}

/// Ten messages in one complete segment, of which the fourth is damaged while this checkpoint is
/// stored.
fn damaged(damage: Damage, checksums: bool, done: u32) -> (tempfile::TempDir, PathBuf, Vec<Vec<u8>>) {
    let (dir, path) = new_path();
    let log = Jlog::options().checksums(checksums).create(&path).unwrap();
    let messages: Vec<Vec<u8>> = (0..10).map(|n| format!("message {n}").into_bytes()).collect();
    let writer = log.writer().unwrap();
    writer.append_batch(&messages).unwrap();
    writer.roll().unwrap();
    writer.close().unwrap();
    log.subscribe("one", Start::After(LogId::new(0, done))).unwrap();
    let at = offsets(&log, 0)[3];
    let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
    match damage {
        Damage::Header => segment.write_all_at(&[0; 16], at).unwrap(),
        Damage::Body => segment.write_all_at(b"?", at + 18).unwrap(),
    }
    (dir, path, messages)
}

/// Damages a record before or after a checkpoint, which shifts the markers after it. A subscriber
/// may then see messages again, but must not miss one.
fn no_message_is_missed(read: impl Fn(&Path) -> Vec<Got>) {
    for (damage, checksums) in [(Damage::Body, true), (Damage::Header, true), (Damage::Header, false)] {
        for done in 0..=10 {
            let (_dir, path, messages) = damaged(damage, checksums, done);
            let got = read(&path);
            let unread: Vec<&[u8]> =
                (done as usize..10).filter(|&n| n != 3).map(|n| &messages[n][..]).collect();
            assert!(
                bodies(&got).ends_with(&unread),
                "{damage:?}, checksums {checksums}, {done} messages done: got {:?}",
                got.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn repair_makes_no_subscriber_miss_a_message() {
    no_message_is_missed(|path| {
        Jlog::repair(path).unwrap();
        consume(&Jlog::open(path).unwrap(), "one")
    });
}

/// Without a repair, the reader begins at its checkpoint, and skips damage.
#[test]
fn damage_before_a_checkpoint_makes_nobody_miss_a_message() {
    no_message_is_missed(|path| {
        let options = ReaderOptions::default().on_damage(OnDamage::Skip);
        read_on(&mut Jlog::open(path).unwrap().reader_with("one", options).unwrap())
    });
}

/// No writer may start while a repair rewrites segments.
#[test]
fn repair_keeps_writers_out_until_it_is_done() {
    let (_dir, path, _) = damaged(Damage::Header, true, 0);
    let metastore = path.join("metastore");
    let free = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&free);
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Rename { .. }) && op.is_segment() {
            // The lock that a writer takes when it opens the jlog.
            let file = Posix.open(&metastore, Open::Write).unwrap();
            seen.lock().unwrap().push(file.try_guard(false).unwrap());
        }
        Fate::Proceed
    });
    Jlog::options().storage(storage).repair(&path).unwrap();
    assert_eq!(*free.lock().unwrap(), [false], "a writer could have begun while the segment was replaced");
}

#[test]
fn repair_is_refused_while_somebody_writes() {
    let (_dir, path, log) = a_healthy_jlog();
    let writer = log.writer().unwrap();
    let before = snapshot(&path);
    assert!(matches!(Jlog::repair(&path), Err(Error::WriterBusy { .. })));
    assert_eq!(snapshot(&path), before);
    writer.close().unwrap();
    assert_eq!(Jlog::repair(&path).unwrap(), []);
}
