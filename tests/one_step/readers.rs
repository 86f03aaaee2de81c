//! Readers that are open during a repair.

use std::io::IoSlice;

use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{Error, Jlog, LogId};

use super::{
    SUBSCRIBERS, UNREADABLE, check_repaired_but, consume, copy, expected, names, posix, read_some, scratch,
    skipping, template,
};

/// For every number of messages read before a repair, and checkpoints stored before and after it,
/// this reader and the next one skip nothing and repeat nothing.
#[test]
fn a_reader_at_work_keeps_its_place_through_a_repair() {
    let (_dir, template) = template();
    let all = expected(0);
    for read in 0..=all.len() {
        for stored_before in [false, true] {
            for stored_after in [false, true] {
                let what = format!("{read} read, stored before: {stored_before}, after: {stored_after}");
                let dir = scratch();
                let path = dir.path().join("feed");
                copy(&template, &path);
                let log = Jlog::open(&path).unwrap();
                let mut reader = log.reader_with("first", skipping()).unwrap();
                let mut done = 0;
                let (mut got, mut last) = read_some(&mut reader, read / 2);
                if stored_before {
                    reader.commit(last).unwrap();
                    done = got.len();
                }
                if read > got.len() {
                    let (more, id) = read_some(&mut reader, read - got.len());
                    got.extend(more);
                    last = id;
                }
                Jlog::repair(&path).unwrap();
                if stored_after {
                    reader.commit(last).unwrap();
                    done = got.len();
                }
                assert_eq!(consume(&log, "first"), all[done..], "{what}: the next reader");
                let (rest, end) = read_some(&mut reader, usize::MAX);
                got.extend(rest);
                assert_eq!(got, all, "{what}: the same reader");
                reader.commit(end).unwrap();
                assert_eq!(consume(&log, "first"), Vec::<String>::new(), "{what}: everything is done");
                check_repaired_but(&path, "first");
                let writer = log.writer().unwrap();
                writer.append("news").unwrap();
                writer.close().unwrap();
                assert_eq!(read_some(&mut reader, 9).0, ["news"], "{what}");
                assert_eq!(consume(&log, "first"), ["news"], "{what}");
            }
        }
    }
}

/// Two repairs, one after the other, and a reader that has noticed neither.
#[test]
fn an_id_is_followed_through_several_repairs() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", skipping()).unwrap();
    let (got, last) = read_some(&mut reader, 9);
    Jlog::repair(&path).unwrap();
    // Damage the first record of the segment that the reader is in.
    let file = Posix.open(&path.join("00000001"), Open::Write).unwrap();
    file.write_at(&[IoSlice::new(b"\x01\x02\x03")], 0).unwrap();
    drop(file);
    Jlog::repair(&path).unwrap();
    reader.commit(last).unwrap();
    assert_eq!(consume(&log, "first"), expected(0)[got.len()..]);
    assert_eq!(read_some(&mut reader, 99).0, expected(0)[got.len()..]);
}

/// Another file has taken a segment's place, and nothing shows the earlier ids of its records.
#[test]
fn an_id_of_a_segment_that_was_replaced_is_refused() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", skipping()).unwrap();
    let (_, last) = read_some(&mut reader, 9);
    let before = log.checkpoint("first").unwrap();
    let segment = path.join("00000001");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(path.join("new"), bytes).unwrap();
    std::fs::rename(path.join("new"), &segment).unwrap();
    let error = reader.commit(last).unwrap_err();
    assert!(matches!(error, Error::StaleId { id, .. } if id == last), "{error}");
    assert_eq!(log.checkpoint("first").unwrap(), before);
}

/// A reader that continues in the old file must not use the new checksums for it: damaged records
/// there stay damaged.
#[test]
fn the_new_checksums_are_not_used_beside_the_old_segment() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    for n in 0..6 {
        let mut reader = log.reader_with("first", skipping()).unwrap();
        let (mut got, _) = read_some(&mut reader, n);
        if n == 1 {
            Jlog::repair(&path).unwrap();
        }
        got.extend(read_some(&mut reader, 99).0);
        assert_eq!(got, expected(0), "{n}");
    }
}

/// Markers are translated as long as the segment exists.
#[test]
fn the_record_of_a_repair_goes_with_its_segment() {
    let (_dir, path) = template();
    Jlog::repair(&path).unwrap();
    let records = || -> Vec<String> {
        names(&posix(), &path).into_iter().filter(|name| name.ends_with(".repaired")).collect()
    };
    assert_eq!(records(), ["00000000.repaired", "00000001.repaired"]);
    let log = Jlog::open(&path).unwrap();
    for (name, _) in SUBSCRIBERS.iter().chain([&(UNREADABLE, 0)]) {
        log.set_checkpoint(name, LogId::new(1, 0)).unwrap();
    }
    assert_eq!(records(), ["00000001.repaired"]);
}
