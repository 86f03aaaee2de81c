//! Checkpoints, and complete segments that readers find.

use jlog_core::{Event, LogId, Lost};
use testkit::feeds::{consume, snapshot};

use super::{
    Made, TIME, expect, give, open_and_close, owned, record, records, run, works_on, works_on_without,
};

/// "it is moved back to the end before anything is appended"
#[test]
fn checkpoint_past_the_end() {
    for past in [(0, 4), (0, u32::MAX), (1, 0), (7, 3), (u32::MAX, u32::MAX)] {
        let made = Made::new(0).segment(0, records(&["a", "b", "c"])).checkpoint(past.0, past.1);
        made.write("cp.74776f", [[0; 4], 1u32.to_le_bytes()].concat());
        let before = snapshot(&made.path);
        let log = made.open();
        expect(&log, &[]);
        assert!(snapshot(&made.path) == before, "{past:?}: looking changes nothing");
        let end = LogId::new(0, 3);
        let from = LogId::new(past.0, past.1);
        let moved = Event::CheckpointMovedBack { subscriber: "one".to_owned(), from, to: end };
        assert_eq!(open_and_close(&log), [moved]);
        assert_eq!(made.read("cp.6f6e65"), [[0; 4], 3u32.to_le_bytes()].concat());
        assert_eq!(made.read("cp.74776f"), [[0; 4], 1u32.to_le_bytes()].concat(), "the other one stays");
        expect(&log, &[]);
        works_on(&log, &[], (0, 4));
        let got = give(&mut log.reader("two").unwrap());
        assert_eq!(got, owned(&[(0, 2, "b"), (0, 3, "c"), (0, 4, "next")]));
    }
    // A checkpoint at the end, or in the segment that is just being begun, stays.
    for (named, good) in [(0, (0, 3)), (1, (1, 0))] {
        let mut made = Made::new(named).segment(0, records(&["a", "b", "c"])).checkpoint(good.0, good.1);
        if named == 1 {
            made = made.segment(1, "");
        }
        let log = made.open();
        assert_eq!(open_and_close(&log), []);
        works_on(&log, &[], (good.0, good.1 + 1));
    }
}

/// "the reader goes on with the next segment there is"
#[test]
fn checkpoint_of_a_segment_that_is_gone() {
    for done in [(0, 0), (0, 9), (1, 2)] {
        let made =
            Made::new(5).segment(3, records(&["a", "b"])).segment(5, record("c")).checkpoint(done.0, done.1);
        let log = made.open();
        let there = [(3, 1, "a"), (3, 2, "b"), (5, 1, "c")];
        expect(&log, &there);
        assert_eq!(open_and_close(&log), []);
        let stored = [done.0.to_le_bytes(), done.1.to_le_bytes()].concat();
        assert_eq!(made.read("cp.6f6e65"), stored, "a writer does not move it");
        expect(&log, &there);
        works_on_without(&log, &there, (5, 2), if done.0 == 0 { 4 } else { 3 });
        assert_eq!(log.segments().unwrap(), [5]);
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// "readers skip and report it"
#[test]
fn complete_segment_ends_within_a_record() {
    let torn = record("never finished");
    for cut in [1, 15, 16, torn.len() - 1] {
        let bytes = [&records(&["a", "b"]), &torn[..cut]].concat();
        let made = Made::new(1).segment(0, &bytes).segment(1, record("c"));
        let log = made.open();
        assert_eq!(open_and_close(&log), [], "a writer has no business there");
        let there = [(0, 1, "a"), (0, 2, "b"), (1, 1, "c")];
        expect(&log, &there);
        let skipped = [Event::DamageSkipped { segment: 0, offset: 34, len: cut as u64, kept: None }];
        assert_eq!(log.take_events(), skipped, "a reader that fails on damage reports it, too");
        assert_eq!(made.read("00000000"), bytes);
        assert_eq!(made.broken(), [""; 0]);
        let writer = log.writer().unwrap();
        assert_eq!(writer.append("next").unwrap().id(), Some(LogId::new(1, 2)));
        writer.close().unwrap();
        expect(&log, &[(0, 1, "a"), (0, 2, "b"), (1, 1, "c"), (1, 2, "next")]);
        assert_eq!(consume(&log, "one").len(), 4);
        assert_eq!(log.segments().unwrap(), [1], "a segment that is passed can go");
    }
}

/// "readers report a loss"
#[test]
fn complete_segment_that_was_cut() {
    let all = ["a", "b", "c"].map(record);
    for left in [0, 1] {
        for beside in ["00000000.idx", "00000000.crc", "00000000.none"] {
            let made = Made::new(1).segment(0, all[..left].concat()).segment(1, record("d"));
            // A closed index lists all records, checksums only those that they cover.
            let inode = made.inode("00000000");
            let (had, exact) = match beside {
                "00000000.idx" => {
                    made.write(beside, [0u64, 17, 34, 0].map(u64::to_le_bytes).concat());
                    (3, true)
                }
                "00000000.crc" => {
                    made.write(beside, run(0, 1, inode, TIME, &all));
                    (3, false)
                }
                _ => (1, false),
            };
            let what = format!("{beside}, {left} left");
            let messages = (had - left) as u64;
            let lost = Lost { first: 0, last: 0, segments: 1, cut: 1, messages, exact };
            let lost = (messages > 0).then_some(lost);
            let log = made.open();
            assert_eq!(open_and_close(&log), [], "{what}: a writer has no business there");
            assert_eq!(log.status().unwrap().subscribers[0].lost, lost, "{what}");
            assert_eq!(log.verify().unwrap().is_damaged(), lost.is_some(), "{what}");
            let before = snapshot(&made.path);
            let mut there = vec![(0, 1, "a"); left];
            there.push((1, 1, "d"));
            let mut reader = log.reader("one").unwrap();
            assert_eq!(give(&mut reader), owned(&there), "{what}");
            assert_eq!(reader.lost(), lost, "{what}");
            let reported = lost.map(|lost| Event::SegmentsLost { subscriber: "one".to_owned(), lost });
            assert_eq!(log.take_events(), Vec::from_iter(reported), "{what}");
            // If nothing is lost, the subscriber has passed the empty segment.
            assert!(lost.is_none() || snapshot(&made.path) == before, "{what}");
        }
    }
}
