//! The metastore, and the segments that it names.

use std::os::unix::fs::FileExt;

use jlog_core::{Error, Event, Jlog, LogId, Lost, MetaFault, OnDamage, ReaderOptions, Wait};
use testkit::feeds::{consume, snapshot, unsynced};

use super::{
    Made, expect, give, metastore, metastore_of, open_and_close, owned, record, records, works_on,
    works_on_without,
};

/// "refused, nothing is changed; repair restores it"
#[test]
fn no_good_metastore() {
    let good = metastore(1);
    let with = |at: usize, n: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let states = [
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("short", Some(good[..7].to_vec())),
        ("cut within the magic", Some(good[..15].to_vec())),
        ("of unknown magic", Some(with(12, 0x1234_5678))),
        ("with a segment size of 0", Some(with(4, 0))),
        ("with an unknown safety", Some(with(8, 3))),
    ];
    let there = [(0, 1, "a"), (1, 1, "b")];
    for (what, state) in states {
        let made = Made::new(1).segment(0, record("a")).segment(1, record("b"));
        let opened_before = made.open();
        match &state {
            None => std::fs::remove_file(made.path.join("metastore")).unwrap(),
            Some(bytes) => made.write("metastore", bytes),
        }
        let before = snapshot(&made.path);
        let refused = |error: Error| {
            let right = match state {
                None => matches!(error, Error::MetastoreMissing { .. }),
                Some(_) => matches!(error, Error::Metastore { .. }),
            };
            assert!(right && error.to_string().contains(made.path.to_str().unwrap()), "{what}: {error}");
        };
        refused(Jlog::open(&made.path).unwrap_err());
        refused(Jlog::create_or_open(&made.path).unwrap_err());
        match state {
            None => refused(Jlog::create(&made.path).unwrap_err()),
            Some(_) => {
                assert!(matches!(Jlog::create(&made.path), Err(Error::AlreadyExists { .. })), "{what}")
            }
        }
        refused(opened_before.writer().unwrap_err());
        refused(opened_before.reader("one").unwrap_err());
        assert!(snapshot(&made.path) == before, "{what}: something was changed");

        let done = Jlog::options().storage(unsynced()).repair(&made.path).unwrap();
        assert!(matches!(&done[..], [Event::MetastoreRepaired { .. }]), "{what}: {done:?}");
        assert_eq!(made.read("metastore"), good, "{what}");
        match state.filter(|bytes| !bytes.is_empty()) {
            None => assert_eq!(made.broken(), [""; 0], "{what}"),
            Some(bytes) => assert_eq!(made.read("metastore.broken-0"), bytes, "{what}"),
        }
        let log = made.open();
        expect(&log, &there);
        assert_eq!(open_and_close(&log), [], "{what}");
        works_on(&log, &there, (1, 2));
    }
}

/// "it is brought up to date"
#[test]
fn metastore_behind_the_segments() {
    // Without a gap after the named segment, and with that segment gone.
    for (named, missing) in [(0, None), (1, None), (1, Some(1))] {
        let made = Made::new(named)
            .segment(0, records(&["a", "b"]))
            .segment(1, record("c"))
            .segment(2, records(&["d", "e"]));
        if let Some(missing) = missing {
            std::fs::remove_file(made.path.join(format!("{missing:08x}"))).unwrap();
        }
        let log = made.open();
        let events = open_and_close(&log);
        assert_eq!(events, [Event::MetastoreUpdated { from: named, to: 2 }]);
        assert_eq!(made.read("metastore"), metastore(2));
        let all = [(0, 1, "a"), (0, 2, "b"), (1, 1, "c"), (2, 1, "d"), (2, 2, "e")];
        let there: Vec<_> = all.into_iter().filter(|message| Some(message.0) != missing).collect();
        expect(&log, &there);
        works_on_without(&log, &there, (2, 3), missing.map_or(0, |_| 1));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// The event for a segment that was renamed.
fn stale(segment: u32, bytes: usize, made: &Made) -> Event {
    let kept = made.path.join(format!(".stale-{segment:08x}"));
    Event::StaleSegment { segment, bytes: bytes as u64, kept }
}

#[test]
fn segments_of_a_newer_feed() {
    let made = Made::new(0).segment(1, records(&["new 1"])).segment(2, records(&["new 2"]));
    made.write("00000001.idx", [0; 8]);
    made.restore("00000000", "00000001", &records(&["old"]));
    let log = made.open();
    let len = record("new 1").len();
    assert_eq!(open_and_close(&log), [stale(1, len, &made), stale(2, len, &made)]);
    assert_eq!(made.read(".stale-00000001"), records(&["new 1"]));
    assert_eq!(made.read(".stale-00000001.idx"), [0; 8]);
    assert_eq!(made.read(".stale-00000002"), records(&["new 2"]));
    assert!(!made.is_there("00000001") && !made.is_there("00000001.idx") && !made.is_there("00000002"));
    works_on(&log, &[(0, 1, "old")], (0, 2));

    // After a full segment, the next one belongs to the feed, whenever it was restored.
    let made = Made::new(0).segment(1, records(&["new"]));
    made.write("metastore", metastore_of(0, 20));
    made.restore("00000000", "00000001", &records(&["full segment"]));
    let log = made.open();
    assert_eq!(open_and_close(&log), [Event::MetastoreUpdated { from: 0, to: 1 }]);
    expect(&log, &[(0, 1, "full segment"), (1, 1, "new")]);
}

#[test]
fn segments_behind_a_gap() {
    let made = Made::new(0)
        .segment(0, records(&["zero"]))
        .segment(1, records(&["one"]))
        .segment(3, records(&["three"]))
        .segment(9, "");
    let log = made.open();
    let events = open_and_close(&log);
    let expected = [
        stale(3, record("three").len(), &made),
        stale(9, 0, &made),
        Event::MetastoreUpdated { from: 0, to: 1 },
    ];
    assert_eq!(events, expected);
    assert_eq!(made.read(".stale-00000003"), records(&["three"]));
    works_on(&log, &[(0, 1, "zero"), (1, 1, "one")], (1, 2));
}

#[test]
fn next_segment_is_there() {
    let made = Made::new(0).segment(0, records(&["zero"]));
    let log = made.open();
    let writer = log.writer().unwrap();
    // A segment is restored while the feed is being written.
    made.write("00000001", records(&["stale"]));
    writer.roll().unwrap();
    assert_eq!(log.take_events(), [stale(1, record("stale").len(), &made)]);
    // The same number once more, and an empty segment, which counts as none.
    made.write("00000002", "");
    writer.append("fresh").unwrap();
    writer.roll().unwrap();
    assert_eq!(log.take_events(), []);
    // A segment that was renamed before is not replaced.
    made.write(".stale-00000003", "older");
    made.write("00000003", records(&["stale"]));
    writer.append("last").unwrap();
    writer.roll().unwrap();
    writer.close().unwrap();
    assert_eq!(made.read(".stale-00000003"), b"older");
    assert_eq!(made.read(".stale-00000003.1"), records(&["stale"]));
    works_on(&log, &[(0, 1, "zero"), (1, 1, "fresh"), (2, 1, "last")], (3, 1));
}

/// "the segment is created, empty"
#[test]
fn metastore_before_its_segment() {
    for there in [&[][..], &[(0, 1, "a")]] {
        let mut made = Made::new(3);
        if !there.is_empty() {
            made = made.segment(0, record("a"));
        }
        let log = made.open();
        expect(&log, there);
        assert_eq!(open_and_close(&log), []);
        assert_eq!(made.read("00000003"), b"");
        assert_eq!(made.read("metastore"), metastore(3));
        expect(&log, there);
        works_on_without(&log, there, (3, 1), if there.is_empty() { 3 } else { 2 });
    }
}

/// "noted as lost; the next one is begun"
#[test]
fn metastore_before_a_lost_segment() {
    let made = Made::new(1).segment(0, record("a"));
    // An index of two records that is not closed: there may have been more.
    made.write("00000001.idx", [0u64, 17].map(u64::to_le_bytes).concat());
    let log = made.open();
    let there = [(0, 1, "a")];
    expect(&log, &there);
    let events = open_and_close(&log);
    let lost = Lost { first: 1, last: 1, segments: 1, cut: 0, messages: 2, exact: false };
    let expected = [
        Event::SegmentsLost { subscriber: "one".to_owned(), lost },
        Event::MetastoreUpdated { from: 1, to: 2 },
    ];
    assert_eq!(events, expected);
    assert!(!made.path.join("00000001.idx").exists());
    assert!(!made.path.join("00000001").exists(), "its ids are not used again");
    works_on_without(&log, &there, (2, 1), 1);
    // A segment that nobody needs is begun again.
    let made = Made::new(1).segment(0, record("a"));
    made.write("00000001.idx", [0u64, 17].map(u64::to_le_bytes).concat());
    std::fs::remove_file(made.path.join("cp.6f6e65")).unwrap();
    assert_eq!(open_and_close(&made.open()), []);
    assert_eq!(made.read("00000001"), b"");
}

/// Opens a jlog whose current segment holds `a` and `b` and then `tail`, which must be kept and
/// truncated.
fn tail_is_cut(tail: &[u8]) {
    let whole = records(&["a", "b"]);
    let made = Made::new(0).segment(0, [&whole, tail].concat());
    let there = [(0, 1, "a"), (0, 2, "b")];
    let log = made.open();
    let offset = whole.len() as u64;
    let name = format!("00000000.broken-{offset}");
    let events = open_and_close(&log);
    let (kept, bytes) = made.kept(&name);
    assert_eq!(events, [Event::TailTruncated { segment: 0, offset, len: tail.len() as u64, kept }]);
    assert_eq!(bytes, tail);
    assert_eq!(made.broken(), [name]);
    assert_eq!(made.read("00000000"), whole);
    expect(&log, &there);
    works_on(&log, &there, (0, 3));
}

/// "the tail is kept, then truncated", wherever the record ends
#[test]
fn unfinished_record() {
    let torn = record("never finished");
    for cut in [1, 3, 4, 8, 15, 16, 17, torn.len() - 1] {
        let made = Made::new(0).segment(0, [&records(&["a", "b"]), &torn[..cut]].concat());
        // A reader waits for the rest of the record, which may still be being written.
        let log = made.open();
        expect(&log, &[(0, 1, "a"), (0, 2, "b")]);
        assert_eq!(log.take_events(), []);
        tail_is_cut(&torn[..cut]);
    }
}

/// "the tail is kept, then truncated"
#[test]
fn bytes_that_are_no_record() {
    // What file systems leave of a write that a power failure interrupted, and bytes of unknown
    // origin.
    tail_is_cut(&[0; 16]);
    tail_is_cut(&[0; 5000]);
    tail_is_cut(&[0xff; 300]);
    tail_is_cut(b"these bytes are no record, and more of them than a header has");
    // A record in another format does not count as one.
    let mut other = record("from elsewhere");
    other[..4].copy_from_slice(&0x1510_6A01_u32.to_le_bytes());
    tail_is_cut(&other);
}

/// "refused, nothing is changed; repair restores it"
#[test]
fn metastore_of_another_layout() {
    for other in [0x1510_6A00_u32, 0x1510_6A01] {
        // The segment being written shows the layout or, if that is empty or missing, the one
        // before it.
        for current in [Some(record("b")), Some(Vec::new()), None] {
            let mut made = Made::new(1).segment(0, records(&["a", "aa"]));
            let mut there = vec![(0, 1, "a"), (0, 2, "aa")];
            there.extend(current.as_ref().is_some_and(|bytes| !bytes.is_empty()).then_some((1, 1, "b")));
            let next = u32::try_from(there.len()).unwrap() - 1;
            let is_there = current.is_some();
            if let Some(bytes) = current {
                made = made.segment(1, bytes);
            }
            let mut wrong = metastore(1);
            wrong[12..].copy_from_slice(&other.to_le_bytes());
            made.write("metastore", &wrong);
            let before = snapshot(&made.path);
            let error = made.open().writer().unwrap_err();
            let right = matches!(error, Error::Metastore { fault: MetaFault::OtherRecords { .. }, .. });
            assert!(right && error.to_string().contains("repair"), "{error}");
            assert!(
                snapshot(&made.path) == before,
                "something was changed: {:?}, with the current segment there: {is_there}",
                snapshot(&made.path).keys()
            );

            let done = Jlog::options().storage(unsynced()).repair(&made.path).unwrap();
            assert!(matches!(&done[..], [Event::MetastoreRepaired { .. }]), "{done:?}");
            assert_eq!(made.read("metastore.broken-0"), wrong);
            let log = made.open();
            expect(&log, &there);
            assert_eq!(open_and_close(&log), []);
            works_on(&log, &there, (1, next));
        }
    }
}

/// "it is reported; appends go behind those records, readers skip the damage"
#[test]
fn damage_before_intact_records() {
    let made = Made::new(0).segment(0, records(&["a", "bb", "c"]));
    let segment = std::fs::OpenOptions::new().write(true).open(made.path.join("00000000")).unwrap();
    segment.write_all_at(&[0; 16], 17).unwrap();
    let damaged = made.read("00000000");
    let log = made.open();
    assert_eq!(open_and_close(&log), [Event::DamageLeft { segment: 0, offset: 17 }]);
    assert_eq!(made.broken(), [""; 0]);
    assert_eq!(made.read("00000000"), damaged);
    let writer = log.writer().unwrap();
    assert_eq!(writer.append("next").unwrap().id(), Some(LogId::new(0, 4)));
    writer.close().unwrap();
    assert_eq!(made.read("00000000")[..damaged.len()], damaged);
    log.take_events();

    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = log.reader_with("one", options).unwrap();
    assert_eq!(give(&mut reader), owned(&[(0, 1, "a"), (0, 3, "c"), (0, 4, "next")]));
    assert_eq!(reader.skipped(), 18);
    let kept = made.path.join("00000000.broken-17");
    assert_eq!(std::fs::read(&kept).unwrap(), damaged[17..35]);
    assert_eq!(
        log.take_events(),
        [Event::DamageSkipped { segment: 0, offset: 17, len: 18, kept: Some(kept) }]
    );
    drop(reader);
    // A reader that does not skip reports the damage again and again, and continues when it is told
    // to skip.
    let mut reader = log.reader("one").unwrap();
    assert_eq!(reader.next_batch(Wait::No).unwrap().unwrap().last_id(), LogId::new(0, 1));
    for _ in 0..2 {
        let error = reader.next_batch(Wait::No).unwrap_err();
        assert!(matches!(error, Error::Damaged { offset: 17, len: 18, .. }), "{error}");
    }
    reader.skip_damage();
    assert_eq!(give(&mut reader), owned(&[(0, 3, "c"), (0, 4, "next")]));
    assert!(log.verify().unwrap().is_damaged());
}

/// "the file of that name is opened"
#[test]
fn segment_removed_or_replaced() {
    // Removed: the next message is the first of a new segment, and does not count as done.
    let made = Made::new(0).segment(0, records(&["a", "b"]));
    let log = made.open();
    let writer = log.writer().unwrap();
    writer.append("c").unwrap();
    assert_eq!(consume(&log, "one").len(), 3);
    log.take_events();
    std::fs::remove_file(made.path.join("00000000")).unwrap();
    assert_eq!(writer.append("d").unwrap().id(), Some(LogId::new(0, 1)));
    let moved = Event::CheckpointMovedBack {
        subscriber: "one".to_owned(),
        from: LogId::new(0, 3),
        to: LogId::new(0, 0),
    };
    assert_eq!(log.take_events(), [Event::SegmentVanished { segment: 0 }, moved]);
    writer.close().unwrap();
    expect(&log, &[(0, 1, "d")]);
    works_on(&log, &[(0, 1, "d")], (0, 2));

    // Replaced, as the C library's repair does: the next message comes after the contents of the
    // new file.
    let made = Made::new(0).segment(0, records(&["a", "b"]));
    let log = made.open();
    let writer = log.writer().unwrap();
    writer.append("c").unwrap();
    log.take_events();
    made.write("other", records(&["b", "c", "x", "y"]));
    std::fs::rename(made.path.join("other"), made.path.join("00000000")).unwrap();
    assert_eq!(writer.append("d").unwrap().id(), Some(LogId::new(0, 5)));
    assert_eq!(log.take_events(), [Event::SegmentVanished { segment: 0 }]);
    writer.close().unwrap();
    let there = [(0, 1, "b"), (0, 2, "c"), (0, 3, "x"), (0, 4, "y"), (0, 5, "d")];
    expect(&log, &there);
    works_on(&log, &there, (0, 6));
    assert_eq!(made.broken(), [""; 0]);
}
