//! Segments that were cut, emptied, or became shorter by the rules.

use std::path::PathBuf;
use std::sync::Arc;

use jlog_core::compat::ReaderCompat;
use jlog_core::{
    AtLimit, CleanOptions, Error, Event, Jlog, Limits, LogId, Lost, OnMissed, ReaderOptions, Start,
};
use testkit::feeds::{consume, new_path, read_on, unsynced};

use super::{FULL, Feed, is_about_a_sidecar, one};

/// The files that record the length of a segment that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Evidence {
    checksums: bool,
    index: bool,
}

const EVIDENCE: [Evidence; 4] = [
    Evidence { checksums: true, index: false },
    Evidence { checksums: false, index: true },
    Evidence { checksums: true, index: true },
    Evidence { checksums: false, index: false },
];

impl Feed {
    /// Cuts a segment at the end of a record, so that it keeps this many.
    fn cut(&self, segment: u32, keep: u32) {
        let mut end = 0;
        self.log
            .inspect(segment, |record| {
                if record.id.marker <= keep {
                    end = record.offset + u64::from(record.stored) + if self.is_lz4() { 20 } else { 16 };
                }
            })
            .unwrap();
        self.set_len(segment, end);
    }

    fn is_lz4(&self) -> bool {
        self.log.meta().unwrap().format.is_lz4()
    }

    fn set_len(&self, segment: u32, len: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(self.segment(segment)).unwrap();
        file.set_len(len).unwrap();
    }

    fn segment(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:08x}"))
    }

    /// Makes the indexes by reading through the C interface, as the C library does.
    fn index(&self) {
        self.log.subscribe("indexer", Start::Beginning).unwrap();
        let mut reader = self.log.reader("indexer").unwrap();
        while let Some(last) = Some(reader.interval().unwrap()).filter(|i| i.count > 0) {
            reader.commit(last.last).unwrap();
        }
        drop(reader);
        self.log.unsubscribe("indexer").unwrap();
    }

    /// The report of a reader without a subscriber.
    fn look_on(&self) -> (usize, Vec<Lost>) {
        let mut reader = self.log.reader_from(&Start::Beginning, ReaderOptions::default()).unwrap();
        let got = read_on(&mut reader).len();
        let reported: Vec<Lost> = std::mem::take(&mut *self.heard.lock())
            .into_iter()
            .map(|event| match event {
                Event::SegmentCut { lost } => lost,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(reported.iter().copied().reduce(Lost::and), reader.lost());
        (got, reported)
    }
}

fn cut_one(segment: u32, messages: u64, exact: bool) -> Lost {
    Lost { cut: 1, ..one(segment, messages, exact) }
}

/// The numbers in all of the `full` segments, but only the first `keep` of one of them, and in the
/// last one.
fn cut_to(full: u32, segment: u32, keep: u32) -> Vec<u32> {
    (0..=full * 5).filter(|n| n / 5 != segment || n % 5 < keep).collect()
}

/// Wherever a complete segment is cut, all operations report how many messages are gone if a file
/// shows it, before and after a repair.
#[test]
fn a_cut_segment_is_reported_with_its_messages() {
    for evidence in EVIDENCE {
        for lz4 in [false, true] {
            for segment in [0, 1, 3] {
                for keep in [0, 1, 4] {
                    let case = format!("{evidence:?}, LZ4 {lz4}, segment {segment}, {keep} kept");
                    let feed = Feed::compressed(4, evidence.checksums, lz4);
                    if evidence.index {
                        feed.index();
                    }
                    assert_eq!(feed.seen(), None, "{case}");
                    feed.cut(segment, keep);
                    is_reported(&feed, evidence, segment, keep, &case);
                }
            }
        }
    }
}

fn is_reported(feed: &Feed, evidence: Evidence, segment: u32, keep: u32, case: &str) {
    let known = evidence.checksums || evidence.index;
    let expected = match keep {
        _ if known => Some(cut_one(segment, FULL - u64::from(keep), true)),
        // Nothing more is known of a segment that exists but is empty.
        0 => Some(cut_one(segment, 1, false)),
        // Nothing shows that there was more.
        _ => None,
    };
    let left = cut_to(4, segment, keep);
    assert_eq!(feed.seen(), expected, "{case}");
    assert_eq!(feed.look_on(), (left.len(), Vec::from_iter(expected)), "{case}");
    // Cleaning leaves the evidence alone.
    feed.log.clean(CleanOptions::default()).unwrap();
    feed.log.writer().unwrap().close().unwrap();
    assert_eq!(feed.losses(), [], "{case}");
    assert_eq!(feed.seen(), expected, "{case}");

    let repaired = Jlog::repair(&feed.path).unwrap();
    let (reported, removed): (Vec<_>, Vec<_>) =
        repaired.into_iter().partition(|event| matches!(event, Event::SegmentsLost { .. }));
    let event = |lost| Event::SegmentsLost { subscriber: "s".to_owned(), lost };
    assert_eq!(reported, Vec::from_iter(expected.map(event)), "{case}");
    assert!(removed.iter().all(is_about_a_sidecar), "{case}: {removed:?}");
    let beside = |suffix: &str| feed.path.join(format!("{segment:08x}{suffix}")).exists();
    assert!(!known || !beside(".idx"), "{case}");
    // The records that remain keep their checksums.
    assert_eq!(beside(".crc"), evidence.checksums && keep > 0, "{case}");
    let checked = feed.log.verify().unwrap();
    assert_eq!(checked.verified, if evidence.checksums { checked.records } else { 0 }, "{case}");
    // Nothing is left to repair, but the subscriber still gets the report.
    assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{case}");
    let found = feed.log.verify().unwrap();
    assert!(!found.is_damaged(), "{case}");
    if expected.is_some() {
        let what = &found.findings[0].what;
        assert!(what.ends_with("\"s\" has not read; repair has reported it"), "{case}: {what}");
        assert!(what.contains("was cut, and has lost"), "{case}: {what}");
    }
    assert_eq!(feed.log.status().unwrap().subscribers[0].lost, expected, "{case}");
    assert_eq!(feed.look_on(), (left.len(), Vec::from_iter(expected)), "{case}");

    let options = ReaderOptions::default().on_missed(OnMissed::Fail);
    let mut reader = feed.log.reader_with("s", options).unwrap();
    let mut got = 0;
    let error = loop {
        match reader.next_batch(jlog_core::Wait::No) {
            Ok(Some(batch)) => got += batch.len(),
            Ok(None) => break None,
            Err(e) => break Some(e),
        }
    };
    match (error, expected) {
        (None, None) => {}
        (Some(Error::SegmentsLost { lost, subscriber, .. }), Some(expected)) => {
            assert_eq!((lost, subscriber.as_str()), (expected, "s"), "{case}");
            assert_eq!(got as u64, FULL * u64::from(segment) + u64::from(keep), "{case}");
            assert_eq!(read_on(&mut reader).len(), left.len() - got, "{case}: and goes on");
        }
        (error, _) => panic!("{case}: {error:?}"),
    }
    drop(reader);

    assert_eq!(feed.read(), (left.clone(), expected), "{case}");
    // An index that is made now does not show the cut, but the note does.
    feed.index();
    assert_eq!(feed.losses().len(), usize::from(expected.is_some()), "{case}: the other subscriber is told");
    assert_eq!(feed.read(), (left, expected), "{case}");
    // The loss is reported again until the subscriber has passed it.
    consume(&feed.log, "s");
    assert_eq!(feed.losses(), Vec::from_iter(expected.map(|lost| ("s".to_owned(), lost))), "{case}");
    assert_eq!(feed.seen(), None, "{case}");
    assert_eq!(consume(&feed.log, "s").len(), 0);
    assert_eq!(feed.losses(), []);
    assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{case}");
}

/// A loss is reported to readers through the C interface, too, and the index that shows it is not
/// rebuilt before it is noted.
#[test]
fn an_index_that_knows_of_a_cut_is_not_rebuilt_unnoted() {
    for evidence in EVIDENCE {
        for keep in [0, 3] {
            let feed = Feed::new(3, evidence.checksums);
            if evidence.index {
                feed.index();
            }
            feed.cut(1, keep);
            feed.log.subscribe("c", Start::Beginning).unwrap();
            let mut reader = feed.log.reader("c").unwrap();
            let mut got = 0;
            while let Some(next) = Some(reader.interval().unwrap()).filter(|i| i.count > 0) {
                got += next.count;
                reader.commit(next.last).unwrap();
            }
            drop(reader);
            feed.log.unsubscribe("c").unwrap();
            let known = evidence.checksums || evidence.index;
            let expected = if known {
                Some(cut_one(1, FULL - u64::from(keep), true))
            } else {
                (keep == 0).then(|| cut_one(1, 1, false))
            };
            let case = format!("{evidence:?}, {keep} kept");
            assert_eq!(got, 11 + keep, "{case}");
            assert_eq!(feed.losses(), Vec::from_iter(expected.map(|lost| ("c".to_owned(), lost))), "{case}");
            assert_eq!(feed.seen(), expected, "{case}");
            assert_eq!(feed.read(), (cut_to(3, 1, keep), expected), "{case}");
        }
    }
}

/// If a subscriber was within a segment, only what it had not read is lost, and its checkpoint
/// shows that even after a repair.
#[test]
fn what_was_read_of_a_cut_segment_is_no_loss() {
    for (done, left) in [(0, 3), (1, 3), (2, 3), (3, 2), (4, 1), (5, 0)] {
        for repaired in [false, true] {
            let feed = Feed::new(3, true);
            feed.log.set_checkpoint("s", LogId::new(1, done)).unwrap();
            feed.cut(1, 2);
            let expected = (left > 0).then(|| cut_one(1, left, true));
            let case = format!("{done} done, repaired {repaired}");
            if repaired {
                let repaired = Jlog::repair(&feed.path).unwrap();
                assert!(
                    !repaired.iter().any(|event| matches!(event, Event::CheckpointRepaired { .. })),
                    "{case}: {repaired:?}"
                );
            } else if left > 0 {
                assert_eq!(feed.seen(), expected, "{case}");
            }
            let mut numbers: Vec<u32> = (5 + done.min(2)..7).collect();
            numbers.extend(10..=15);
            assert_eq!(feed.read(), (numbers, expected), "{case}");
            let stays = if left > 0 { LogId::new(1, done) } else { LogId::new(2, 0) };
            assert_eq!(feed.log.checkpoint("s").unwrap(), stays, "{case}");
            consume(&feed.log, "s");
            assert_eq!(feed.log.status().unwrap().subscribers[0].lost, None, "{case}");
        }
    }
}

/// A segment that was cut within a record has damage at its end, and has lost the messages after
/// it.
#[test]
fn what_is_behind_a_torn_record_is_lost() {
    for keep in [0, 2, 4] {
        let feed = Feed::new(3, true);
        feed.set_len(1, 26 * keep + 20);
        let lost = (keep > 0 && keep < 4).then(|| cut_one(1, FULL - keep - 1, true));
        let status = feed.log.status().unwrap();
        assert_eq!(status.subscribers[0].lost, lost, "{keep}");
        assert!(feed.log.verify().unwrap().is_damaged(), "{keep}");
        let (numbers, reported) = feed.read();
        assert_eq!((numbers.len() as u64, reported), (11 + keep, lost), "{keep}");
        Jlog::repair(&feed.path).unwrap();
        assert!(!feed.log.verify().unwrap().is_damaged(), "{keep}");
        let (numbers, reported) = feed.read();
        assert_eq!((numbers.len() as u64, reported), (11 + keep, lost), "{keep}");
    }
}

/// Damage among the remaining records does not hide that others are gone, and is not counted as
/// lost messages.
#[test]
fn a_damaged_segment_that_was_cut_has_lost_what_is_missing() {
    for evidence in EVIDENCE {
        let feed = Feed::new(3, evidence.checksums);
        if evidence.index {
            feed.index();
        }
        feed.cut(1, 3);
        let mut bytes = std::fs::read(feed.segment(1)).unwrap();
        bytes[26..46].fill(0);
        std::fs::write(feed.segment(1), bytes).unwrap();
        let known = evidence.checksums || evidence.index;
        let expected = known.then(|| cut_one(1, 2, true));
        for round in 0..2 {
            let (numbers, lost) = feed.read();
            let left: Vec<u32> = cut_to(3, 1, 3).into_iter().filter(|n| *n != 6).collect();
            assert_eq!((numbers, lost), (left, expected), "{evidence:?}, round {round}");
            Jlog::repair(&feed.path).unwrap();
            assert!(!feed.log.verify().unwrap().is_damaged(), "{evidence:?}, round {round}");
        }
        assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{evidence:?}");
    }
}

/// Lost messages are reported even if nobody needs them: a subscriber that begins at the beginning
/// would not get them.
#[test]
fn a_cut_is_reported_without_subscribers() {
    let feed = Feed::new(3, true);
    feed.log.unsubscribe("s").unwrap();
    feed.cut(1, 2);
    feed.cut(2, 0);
    let found = feed.log.verify().unwrap();
    assert!(found.is_damaged());
    let what = &found.findings.iter().find(|finding| finding.damage).unwrap().what;
    assert_eq!(what, "segment 00000001 was cut, and has lost 3 messages");
    let lost = [cut_one(1, 3, true), cut_one(2, 5, true)];
    assert_eq!(feed.look_on(), (8, lost.to_vec()));
    let reported: Vec<Event> =
        Jlog::repair(&feed.path).unwrap().into_iter().filter(|event| !is_about_a_sidecar(event)).collect();
    assert_eq!(reported, lost.map(|lost| Event::SegmentCut { lost }));
    assert!(!feed.log.verify().unwrap().is_damaged());
    assert_eq!(Jlog::repair(&feed.path).unwrap(), []);
    // Cut the segment once more: the earlier report does not hide it.
    feed.cut(1, 1);
    let found = feed.log.verify().unwrap().findings;
    let again = found.iter().find(|finding| finding.damage).unwrap();
    assert_eq!(again.what, "segment 00000001 was cut, and has lost 4 messages");
    let reported: Vec<Event> =
        Jlog::repair(&feed.path).unwrap().into_iter().filter(|event| !is_about_a_sidecar(event)).collect();
    assert_eq!(reported, [Event::SegmentCut { lost: cut_one(1, 4, true) }]);
    assert!(!feed.log.verify().unwrap().is_damaged());
    assert_eq!(Jlog::repair(&feed.path).unwrap(), []);
    feed.log.subscribe("s", Start::Beginning).unwrap();
    let lost = Lost { first: 1, last: 2, segments: 2, cut: 2, messages: 9, exact: true };
    assert_eq!(feed.read(), (cut_to(3, 1, 1).into_iter().filter(|n| n / 5 != 2).collect(), Some(lost)));
}

/// A segment that was cut, repaired, and cut again has lost more than was reported, whichever file
/// shows it, even if a reader has made a new index meanwhile.
#[test]
fn a_second_cut_is_a_loss_of_its_own() {
    for evidence in EVIDENCE.into_iter().filter(|evidence| evidence.index || evidence.checksums) {
        for read in [false, true] {
            let case = format!("{evidence:?}, read {read}");
            let feed = Feed::new(3, evidence.checksums);
            if evidence.index {
                feed.index();
            }
            for keep in [3, 2, 0] {
                feed.cut(1, keep);
                if read {
                    feed.index();
                }
                // The loss was reported to the reader that made the index.
                feed.losses();
                let expected = cut_one(1, FULL - u64::from(keep), true);
                assert!(feed.log.verify().unwrap().is_damaged(), "{case}, {keep}");
                let reported = Jlog::repair(&feed.path).unwrap();
                let lost = Event::SegmentsLost { subscriber: "s".into(), lost: expected };
                assert!(reported.contains(&lost), "{case}, {keep}: {reported:?}");
                assert!(!feed.log.verify().unwrap().is_damaged(), "{case}, {keep}");
                assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{case}, {keep}");
                assert_eq!(feed.read(), (cut_to(3, 1, keep), Some(expected)), "{case}, {keep}");
            }
        }
    }
}

/// The same repair restores a lost metastore and finds the cut.
#[test]
fn a_cut_is_noted_where_the_metastore_is_missing() {
    let feed = Feed::new(3, true);
    feed.cut(1, 2);
    std::fs::remove_file(feed.path.join("metastore")).unwrap();
    let repaired = Jlog::repair(&feed.path).unwrap();
    let lost = |event: &Event| matches!(event, Event::SegmentsLost { lost, .. } if (lost.first, lost.messages) == (1, 3));
    assert!(repaired.iter().any(lost), "{repaired:?}");
    assert_eq!(feed.log.status().unwrap().subscribers[0].lost.unwrap().messages, 3);
}

/// If a limit drops a segment that was cut, all messages that it had count as missed.
#[test]
fn messages_of_a_cut_segment_that_is_dropped_are_missed() {
    let (_dir, path) = new_path();
    let limits = Limits { max_bytes: Some(16 << 10), at_limit: AtLimit::DropOldest, ..Limits::default() };
    let log = Jlog::options().storage(unsynced()).limits(limits).create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let write = |numbers: std::ops::Range<u32>| {
        let writer = log.writer().unwrap();
        for n in numbers {
            writer.append(format!("{n:010}")).unwrap();
        }
        writer.close().unwrap();
    };
    write(0..200);
    let first = log.segments().unwrap()[0];
    assert!(first < log.meta().unwrap().storage_log);
    let file = std::fs::OpenOptions::new().write(true).open(path.join(format!("{first:08x}"))).unwrap();
    file.set_len(26).unwrap();
    write(200..2000);
    assert!(log.segments().unwrap()[0] > first);
    let mut reader = log.reader("s").unwrap();
    let got = read_on(&mut reader);
    assert_eq!(reader.missed() + got.len() as u64, 2000);
    assert_eq!(reader.lost(), None);
}

/// Segments may have a good reason to be empty, or shorter than their index or checksums show: no
/// loss is reported.
#[test]
fn segments_that_became_shorter_by_the_rules_have_lost_nothing() {
    let sound = |feed: &Feed, left: &[u32], case: &str| {
        assert_eq!(feed.seen(), None, "{case}");
        assert_eq!(feed.look_on(), (left.len(), Vec::new()), "{case}");
        assert_eq!(feed.read(), (left.to_vec(), None), "{case}");
        let repaired = Jlog::repair(&feed.path).unwrap();
        assert!(repaired.iter().all(is_about_a_sidecar), "{case}: {repaired:?}");
        assert_eq!(feed.read(), (left.to_vec(), None), "{case}, repaired");
    };
    // The C library's repair moves the records after the damage, and empties the index.
    for (gone, records) in [(1, 1), (0, 2), (3, 1)] {
        for index in [false, true] {
            let feed = Feed::new(3, true);
            if index {
                feed.index();
            }
            let mut bytes = std::fs::read(feed.segment(1)).unwrap();
            bytes.drain(26 * gone..26 * (gone + records));
            std::fs::write(feed.segment(1), bytes).unwrap();
            if index {
                std::fs::write(feed.path.join("00000001.idx"), "").unwrap();
            }
            let gone = u32::try_from(gone).unwrap()..u32::try_from(gone + records).unwrap();
            let left: Vec<u32> = (0..16).filter(|n| n / 5 != 1 || !gone.contains(&(n % 5))).collect();
            sound(&feed, &left, &format!("moved, {gone:?} gone"));
        }
    }
    // Our repair takes everything out of a segment.
    let feed = Feed::new(3, true);
    std::fs::write(feed.segment(1), [7; 130]).unwrap();
    Jlog::repair(&feed.path).unwrap();
    assert_eq!(std::fs::metadata(feed.segment(1)).unwrap().len(), 0);
    sound(&feed, &cut_to(3, 1, 0), "emptied by a repair");
    // After a power failure, the segment being written has fewer records than its checksums, and a
    // writer opens and ends it.
    for (records, torn) in [(1, 0), (1, 9), (0, 0), (0, 9), (3, 0)] {
        for last in [0, 1] {
            let feed = Feed::new(2, true);
            feed.write(11..14);
            feed.set_len(2, 26 * records + torn);
            let writer = feed.log.writer().unwrap();
            for n in 0..last {
                writer.append(format!("{:010}", 20 + n)).unwrap();
            }
            writer.roll().unwrap();
            writer.append(format!("{:010}", 30)).unwrap();
            writer.close().unwrap();
            feed.heard.lock().clear();
            let left: Vec<u32> = (0..10 + u32::try_from(records).unwrap())
                .chain((0..last).map(|n| 20 + n))
                .chain([30])
                .collect();
            let left: Vec<u32> = left.into_iter().collect();
            sound(&feed, &left, &format!("{records} records and {torn} bytes left, {last} appended"));
        }
    }
    // A backup was restored over a newer feed, and the files beside the newer segment are left.
    for index in [false, true] {
        let feed = Feed::new(2, true);
        let backup = std::fs::read(feed.segment(2)).unwrap();
        feed.write(11..18);
        if index {
            feed.index();
        }
        let stale: Vec<_> = [".crc", ".idx"]
            .iter()
            .filter_map(|suffix| {
                let path = feed.path.join(format!("00000002{suffix}"));
                Some((path.clone(), std::fs::read(path).ok()?))
            })
            .collect();
        assert_eq!(stale.len(), 1 + usize::from(index));
        let mut meta = std::fs::read(feed.path.join("metastore")).unwrap();
        meta[0] = 2;
        std::fs::write(feed.path.join("metastore"), meta).unwrap();
        std::fs::write(feed.segment(2), backup).unwrap();
        for suffix in ["", ".crc", ".idx"] {
            let _ = std::fs::remove_file(feed.path.join(format!("00000003{suffix}")));
        }
        let log = Jlog::open(&feed.path).unwrap();
        let writer = log.writer().unwrap();
        writer.append(format!("{:010}", 20)).unwrap();
        writer.roll().unwrap();
        writer.append(format!("{:010}", 21)).unwrap();
        writer.close().unwrap();
        let left: Vec<u32> = (0..11).chain([20, 21]).collect();
        sound(&feed, &left, &format!("restored, index {index}"));
    }
}

/// A batch that finds no room is undone. If readers may have seen some of it, the segment ends. If
/// the batch was its first, it ends without a record, which is no loss.
#[test]
fn a_segment_whose_only_batch_was_taken_back_has_lost_nothing() {
    for before in [0, 2] {
        for checksums in [true, false] {
            let (_dir, path) = new_path();
            let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let rule = Arc::clone(&full);
            let storage = testkit::faulty::Faulty::storage(move |op| {
                use testkit::faulty::{Fate, Op};
                match op {
                    Op::Write { offset, .. }
                        if op.is_segment() && rule.load(std::sync::atomic::Ordering::SeqCst) =>
                    {
                        if offset < 100 {
                            Fate::AtMost(100)
                        } else {
                            Fate::Fail(std::io::ErrorKind::StorageFull)
                        }
                    }
                    _ => Fate::Proceed,
                }
            });
            let log = Jlog::options().storage(storage).checksums(checksums).create(&path).unwrap();
            log.subscribe("s", Start::Beginning).unwrap();
            let writer = log.writer().unwrap();
            for n in 0..before {
                writer.append(format!("{n:010}")).unwrap();
            }
            full.store(true, std::sync::atomic::Ordering::SeqCst);
            writer.append_batch(&[[7; 30]; 9]).unwrap_err();
            full.store(false, std::sync::atomic::Ordering::SeqCst);
            writer.append(format!("{:010}", 9)).unwrap();
            writer.close().unwrap();
            assert_eq!(log.meta().unwrap().storage_log, 1, "the segment has ended");
            assert_eq!(std::fs::metadata(path.join("00000000")).unwrap().len(), 26 * before);
            assert_eq!(log.status().unwrap().subscribers[0].lost, None);
            assert!(!log.verify().unwrap().is_damaged());
            assert_eq!(Jlog::repair(&path).unwrap(), []);
            let mut reader = log.reader("s").unwrap();
            assert_eq!(read_on(&mut reader).len() as u64, before + 1);
            assert_eq!(reader.lost(), None);
        }
    }
}
