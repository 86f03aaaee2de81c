//! Segments that are missing.

use jlog_core::compat::{JlogCompat, ReaderCompat};
use jlog_core::{
    AtLimit, CleanOptions, Error, Event, Jlog, Limits, LogId, Lost, OnMissed, ReaderOptions, Start,
    WriterOptions,
};
use testkit::feeds::{bodies, consume, names_with, new_path, read_on, shared, unsynced};

use super::{FULL, Feed, one, remove};

/// Readers report the loss of the segment being written, too, if a file beside it shows that it had
/// records: once each, also when a writer begins the next segment.
#[test]
fn the_loss_of_the_segment_being_written_is_reported() {
    let feed = Feed::new(2, true);
    feed.write(11..13);
    feed.remove(2, &[]);
    let expected = Some(one(2, 3, false));
    assert_eq!(feed.seen(), expected);
    assert_eq!(feed.read(), ((0..10).collect(), expected));
    assert_eq!(feed.read(), ((0..10).collect(), expected), "until the subscriber has passed it");

    let mut failing = feed.log.reader_with("s", shared().on_missed(OnMissed::Fail)).unwrap();
    let mut failures = 0;
    let mut read = 0;
    loop {
        match failing.next_batch(jlog_core::Wait::No) {
            Ok(Some(batch)) => read += batch.len(),
            Ok(None) => break,
            Err(Error::SegmentsLost { subscriber, lost, .. }) => {
                assert_eq!((subscriber.as_str(), Some(lost)), ("s", expected));
                failures += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!((read, failures), (10, 1));

    let mut follower = feed.log.reader_with("s", shared()).unwrap();
    assert_eq!(read_on(&mut follower).len(), 10);
    assert_eq!(follower.lost(), expected);
    feed.write(13..14);
    assert_eq!(bodies(&read_on(&mut follower)), [format!("{:010}", 13).as_bytes()]);
    assert_eq!(follower.lost(), expected, "it is counted once");
    feed.losses();
    // A fresh reader sees the same after the writer has begun the next segment.
    assert_eq!(feed.read(), ((0..10).chain([13]).collect(), expected));
}

/// The same if the segment before it is missing as well, or if the files beside it were swept.
#[test]
fn the_loss_of_the_segment_being_written_is_reported_once() {
    let feed = Feed::new(2, true);
    feed.remove(1, &[]);
    feed.remove(2, &[]);
    let both = Some(one(1, 5, true).and(one(2, 1, false)));
    assert_eq!(feed.seen(), both);
    assert_eq!(feed.read(), ((0..5).collect(), both));

    let feed = Feed::new(2, true);
    feed.remove(2, &[]);
    feed.log.clean(CleanOptions::default()).unwrap();
    feed.losses();
    assert!(!feed.path.join("00000002.crc").exists());
    let last = Some(one(2, 1, false));
    assert_eq!(feed.seen(), last);
    assert_eq!(feed.read(), ((0..10).collect(), last));
}

/// Without records in it, the segment being written is just not there yet.
#[test]
fn a_segment_that_was_never_begun_is_no_loss() {
    let feed = Feed::new(2, true);
    feed.remove(2, &[".crc"]);
    assert_eq!(feed.read(), ((0..10).collect(), None));
}

/// A reader without a subscriber reports what a subscriber has lost, and what nobody needed as
/// removed.
#[test]
fn readers_without_a_subscriber_report_the_losses_of_others() {
    let feed = Feed::new(3, true);
    feed.remove(1, &[]);
    let read = || {
        let mut reader = feed.log.reader_from(&Start::Beginning, ReaderOptions::default()).unwrap();
        (read_on(&mut reader).len(), reader.lost())
    };
    let expected = one(1, 5, true);
    assert_eq!(read(), (11, Some(expected)));
    assert_eq!(feed.losses(), [("s".to_owned(), expected)]);
    // Nobody needs it any more.
    consume(&feed.log, "s");
    feed.heard.lock().clear();
    assert_eq!(read().1, None);
    assert_eq!(feed.losses(), []);
}

/// The numbers in all of the `full` segments except those that are missing, and in the last one.
fn but(full: u32, missing: &[u32]) -> Vec<u32> {
    (0..=full * 5).filter(|n| !missing.contains(&(n / 5))).collect()
}

/// Wherever a segment is missing, and whatever is left of it, all operations report the same, and
/// the files that are left of it are not removed before the number of its messages is noted.
#[test]
fn a_missing_segment_is_reported_with_its_messages() {
    // The files that the feed has, the files that are removed with the segment, and whether the
    // number is then known.
    for (checksums, index, with, exact) in [
        (true, false, &[][..], true),
        (true, true, &[".crc"], true),
        (false, true, &[], true),
        (true, false, &[".crc"], false),
        (false, false, &[], false),
    ] {
        for missing in [0, 1, 3] {
            let feed = Feed::new(4, checksums);
            if index {
                // Reading through the C interface makes indexes, as with the C library.
                feed.log.subscribe("indexer", Start::Beginning).unwrap();
                let mut reader = feed.log.reader("indexer").unwrap();
                while let Some(last) = Some(reader.interval().unwrap()).filter(|i| i.count > 0) {
                    reader.commit(last.last).unwrap();
                }
                feed.log.unsubscribe("indexer").unwrap();
            }
            assert_eq!(feed.seen(), None);
            feed.remove(missing, with);
            let expected = one(missing, if exact { FULL } else { 1 }, exact);
            let case = format!("{checksums} {index} {with:?} {missing}");
            assert_eq!(feed.seen(), Some(expected), "{case}");

            // Operations that remove the leftovers report the loss once, too, and it stays known.
            feed.log.clean(CleanOptions::default()).unwrap();
            let swept = feed.losses();
            assert_eq!(swept, if exact { vec![("s".to_owned(), expected)] } else { vec![] }, "{case}");
            feed.log.clean(CleanOptions::default()).unwrap();
            feed.log.writer().unwrap().close().unwrap();
            assert_eq!(feed.losses(), [], "{case}");
            for suffix in [".crc", ".idx"] {
                let left = feed.path.join(format!("{missing:08x}{suffix}"));
                assert!(!left.exists(), "{case}: {suffix}");
            }
            assert_eq!(feed.seen(), Some(expected), "{case}");
            let repaired = Jlog::repair(&feed.path).unwrap();
            let event = Event::SegmentsLost { subscriber: "s".to_owned(), lost: expected };
            assert_eq!(repaired, [event], "{case}");
            // Nothing is left to repair, but the subscriber still gets the report.
            assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{case}");
            let found = feed.log.verify().unwrap();
            assert!(!found.is_damaged(), "{case}");
            assert!(
                found.findings[0].what.ends_with("\"s\" has not read; repair has reported it"),
                "{found:?}"
            );
            assert_eq!(feed.log.status().unwrap().subscribers[0].lost, Some(expected), "{case}");

            let options = ReaderOptions::default().on_missed(OnMissed::Fail);
            let mut reader = feed.log.reader_with("s", options).unwrap();
            let mut got = 0;
            let error = loop {
                match reader.next_batch(jlog_core::Wait::No) {
                    Ok(Some(batch)) => got += batch.len(),
                    Ok(None) => panic!("{case}: no error after {got} messages"),
                    Err(e) => break e,
                }
            };
            assert_eq!(got as u64, FULL * u64::from(missing), "{case}");
            assert!(
                matches!(&error, Error::SegmentsLost { lost, subscriber, .. } if (*lost, subscriber.as_str()) == (expected, "s")),
                "{case}: {error}"
            );
            assert_eq!(reader.lost(), Some(expected));
            assert_eq!(read_on(&mut reader).len() as u64, FULL * u64::from(3 - missing) + 1, "and goes on");
            drop(reader);

            assert_eq!(feed.read(), (but(4, &[missing]), Some(expected)), "{case}");
            // The loss is reported again until the subscriber has passed it.
            consume(&feed.log, "s");
            assert_eq!(feed.losses(), [("s".to_owned(), expected)], "{case}");
            assert_eq!(feed.seen(), None, "{case}");
            assert_eq!(consume(&feed.log, "s").len(), 0);
            assert_eq!(feed.losses(), []);
            assert_eq!(Jlog::repair(&feed.path).unwrap(), [], "{case}");
        }
    }
}

#[test]
fn several_missing_segments_are_summed_up() {
    let feed = Feed::new(12, true);
    for segment in [3, 4, 7] {
        feed.remove(segment, &[]);
    }
    let expected = Lost { first: 3, last: 7, segments: 3, cut: 0, messages: 3 * FULL, exact: true };
    assert_eq!(feed.seen(), Some(expected));
    std::fs::remove_file(feed.path.join("00000004.crc")).unwrap();
    let expected = Lost { messages: 2 * FULL + 1, exact: false, ..expected };
    assert_eq!(feed.seen(), Some(expected));
    let found = feed.log.verify().unwrap().findings;
    let texts: Vec<String> = found.iter().map(|finding| finding.what.clone()).collect();
    assert_eq!(
        texts,
        [
            "segments 00000003 to 00000004 are missing, and with them at least 6 messages that subscriber \"s\" has not read",
            "segment 00000007 is missing, and with it 5 messages that subscriber \"s\" has not read",
        ]
    );
    assert_eq!(feed.read(), (but(12, &[3, 4, 7]), Some(expected)));
    // Now everything after the first segments is missing, except the last message.
    for segment in [5, 6, 8, 9, 10, 11] {
        feed.remove(segment, &[".crc"]);
    }
    let (numbers, lost) = feed.read();
    assert_eq!(numbers, but(12, &[3, 4, 5, 6, 7, 8, 9, 10, 11]));
    let lost = lost.unwrap();
    assert_eq!((lost.first, lost.last, lost.segments, lost.messages), (3, 11, 9, 2 * FULL + 7));
    assert_eq!(feed.seen(), Some(lost));
}

/// If a subscriber was within a segment, only what it had not read is lost.
#[test]
fn what_was_read_of_a_missing_segment_is_no_loss() {
    for (done, left) in [(0, 5), (2, 3), (4, 1), (5, 0)] {
        let feed = Feed::new(3, true);
        feed.log.set_checkpoint("s", LogId::new(1, done)).unwrap();
        feed.remove(1, &[]);
        let expected = (left > 0).then(|| one(1, left, true));
        assert_eq!(feed.seen(), expected, "{done}");
        assert_eq!(feed.read(), ((10..=15).collect(), expected), "{done}");
        // Without a trace of it, the number of remaining messages is unknown.
        std::fs::remove_file(feed.path.join("00000001.crc")).unwrap();
        let expected = one(1, u64::from(done == 0), false);
        assert_eq!(feed.read(), ((10..=15).collect(), Some(expected)), "{done}");
    }
}

#[test]
fn what_every_subscriber_has_passed_is_no_loss() {
    let feed = Feed::new(6, true);
    feed.log.subscribe("ahead", Start::After(LogId::new(5, 0))).unwrap();
    feed.log.set_checkpoint("s", LogId::new(3, 2)).unwrap();
    assert_eq!(feed.log.segments().unwrap(), [3, 4, 5, 6]);
    assert_eq!(feed.seen(), None);
    // Segments before a subscriber's checkpoint may be missing, even if its reader seeks there.
    let mut reader = feed.log.reader("s").unwrap();
    reader.seek(LogId::new(0, 0)).unwrap();
    assert_eq!(read_on(&mut reader).len(), 16);
    assert_eq!(reader.lost(), None);
    drop(reader);
    // The same holds for a subscriber that is added at, or moved back to, a place that is gone.
    for n in 0..4 {
        let early = LogId::new(1, n);
        match n {
            0 => _ = feed.log.subscribe("late", Start::After(early)).unwrap(),
            1 => feed.log.set_checkpoint("s", early).unwrap(),
            2 => feed.log.reader("s").unwrap().commit(early).unwrap(),
            _ => feed.log.store_checkpoint("~tail", early).unwrap(),
        }
        assert_eq!(feed.seen(), None, "{n}");
        assert_eq!(feed.read().1, None, "{n}");
        assert_eq!(feed.log.status().unwrap().subscribers.iter().find_map(|s| s.lost), None, "{n}");
    }
    // Repair moves the checkpoints that are before everything; that is no loss.
    let repaired = Jlog::repair(&feed.path).unwrap();
    assert!(repaired.iter().all(|event| matches!(event, Event::CheckpointRepaired { .. })), "{repaired:?}");
    // What is missing after segments that the rules removed is still a loss, even if a file name of
    // a newer feed is left.
    std::fs::write(feed.path.join("passed.00000006"), "").unwrap();
    feed.remove(4, &[]);
    assert_eq!(feed.seen(), Some(one(4, FULL, true)));
    assert_eq!(
        feed.read(),
        (
            [&(15..20).collect::<Vec<_>>()[..], &(25..=30).collect::<Vec<_>>()].concat(),
            Some(one(4, FULL, true))
        )
    );
}

/// A power failure can bring back an older checkpoint although the segments after it were removed
/// for good.
#[test]
fn what_went_by_the_rules_is_no_loss_to_an_older_checkpoint() {
    let feed = Feed::new(6, true);
    let checkpoint = feed.path.join("cp.73");
    let before = std::fs::read(&checkpoint).unwrap();
    let mut reader = feed.log.reader_with("s", shared()).unwrap();
    for segment in [2, 4] {
        reader.commit(LogId::new(segment, 1)).unwrap();
        assert_eq!(feed.log.segments().unwrap()[0], segment);
        std::fs::write(&checkpoint, &before).unwrap();
        assert_eq!(feed.seen(), None);
        assert_eq!(feed.read(), ((segment * 5..31).collect(), None));
    }
    assert!(feed.path.join("passed.00000004").exists());
    assert!(!feed.path.join("passed.00000002").exists());
    assert_eq!(names_with(&feed.path, "passed").len(), 1);
}

/// The C library removes the segments between an old and a new checkpoint, and leaves older ones
/// that nobody needs. Then a later subscriber finds a gap.
#[test]
fn a_gap_that_is_there_when_a_subscriber_begins_is_no_loss_to_it() {
    let feed = Feed::new(6, true);
    feed.log.unsubscribe("s").unwrap();
    feed.remove(2, &[]);
    feed.remove(3, &[".crc"]);
    let found = feed.log.verify().unwrap();
    assert!(!found.is_damaged());
    let notes: Vec<_> = found.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(notes, ["segments 00000002 to 00000003 are missing; no subscriber needs them"]);
    feed.log.subscribe("s", Start::Beginning).unwrap();
    assert_eq!(feed.seen(), None);
    assert_eq!(feed.read(), (but(6, &[2, 3]), None));
    // A copy of a subscriber that lost something has the same loss.
    feed.remove(4, &[]);
    feed.log.subscribe("copy", Start::CopyOf(feed.log.subscribers().unwrap()[0].clone())).unwrap();
    feed.log.subscribe("later", Start::Beginning).unwrap();
    let status = feed.log.status().unwrap();
    for subscriber in status.subscribers {
        assert_eq!(subscriber.lost, Some(one(4, FULL, true)), "{}", subscriber.name);
    }
    let text = feed.log.verify().unwrap().findings[0].what.clone();
    assert!(text.ends_with("5 messages that subscriber \"copy\" and 2 others have not read"), "{text}");
}

#[test]
fn what_a_limit_dropped_is_missed_not_lost() {
    let (_dir, path) = new_path();
    let limits = Limits { max_bytes: Some(16 << 10), at_limit: AtLimit::DropOldest, ..Limits::default() };
    let log = Jlog::options().storage(unsynced()).limits(limits).create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer_with(WriterOptions::default()).unwrap();
    for n in 0..2000 {
        writer.append(format!("{n:010}")).unwrap();
    }
    writer.close().unwrap();
    let first = log.segments().unwrap()[0];
    assert!(first > 0);
    assert_eq!(log.status().unwrap().subscribers[0].lost, None);
    assert!(!log.verify().unwrap().is_damaged());
    // A lost segment between dropped ones is distinguished from them.
    let second = log.segments().unwrap()[1];
    let records = u64::from(log.inspect(second, |_| {}).unwrap().records);
    remove(&path, second, &[]);
    let mut reader = log.reader("s").unwrap();
    let got = read_on(&mut reader);
    let lost = reader.lost().unwrap();
    assert_eq!((lost.first, lost.segments, lost.messages, lost.exact), (second, 1, records, true));
    assert_eq!(reader.missed() + lost.messages + got.len() as u64, 2000);
    assert!(log.verify().unwrap().is_damaged());
}

/// If the segment being written is gone but its checksums are left, new messages get other ids, and
/// the loss is reported to the subscriber.
#[test]
fn the_ids_of_a_lost_segment_are_not_used_again() {
    let feed = Feed::new(2, true);
    feed.write(11..14);
    feed.log.set_checkpoint("s", LogId::new(2, 1)).unwrap();
    feed.remove(2, &[]);
    assert_eq!(feed.seen(), Some(one(2, 3, false)));
    feed.write(14..16);
    assert_eq!(feed.losses(), [("s".to_owned(), one(2, 4, false))], "what there was, read or not");
    assert_eq!(feed.seen(), Some(one(2, 3, false)));
    assert_eq!(feed.log.checkpoint("s").unwrap(), LogId::new(2, 1));
    let (numbers, lost) = feed.read();
    assert_eq!((numbers, lost), (vec![14, 15], Some(one(2, 3, false))));
    assert_eq!(feed.log.end().unwrap(), LogId::new(3, 2));
    // If nobody needs the segment, it is begun again as before.
    let feed = Feed::new(2, true);
    feed.log.unsubscribe("s").unwrap();
    feed.remove(2, &[]);
    feed.write(14..16);
    assert_eq!(feed.losses(), []);
    assert_eq!(feed.log.end().unwrap(), LogId::new(2, 2));
}

/// On a disk that is full or cannot be written, the leftovers of a lost segment stay.
#[test]
fn what_cannot_be_noted_is_not_swept() {
    let feed = Feed::new(3, true);
    feed.remove(1, &[]);
    std::fs::create_dir(feed.path.join("lost")).unwrap();
    assert!(feed.log.clean(CleanOptions::default()).is_err());
    assert!(feed.path.join("00000001.crc").exists());
    std::fs::remove_dir(feed.path.join("lost")).unwrap();
    feed.log.clean(CleanOptions::default()).unwrap();
    assert_eq!(feed.losses(), [("s".to_owned(), one(1, FULL, true))]);
    assert!(!feed.path.join("00000001.crc").exists());
    assert_eq!(feed.seen(), Some(one(1, FULL, true)));
    assert_eq!(bodies(&consume(&feed.log, "s")).len(), 11);
}

/// Large segment numbers in a hostile metastore or checkpoint cost no time.
#[test]
fn a_gap_of_billions_is_counted_at_once() {
    let feed = Feed::new(1, true);
    let mut meta = std::fs::read(feed.path.join("metastore")).unwrap();
    meta[..4].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    std::fs::write(feed.path.join("metastore"), meta).unwrap();
    let lost = feed.seen().unwrap();
    assert_eq!((lost.first, lost.last, lost.segments), (2, u32::MAX - 2, u32::MAX - 3));
    assert_eq!((lost.messages, lost.exact), (u64::from(u32::MAX - 3), false));
    assert_eq!(feed.read(), ((0..6).collect(), Some(lost)));
}
