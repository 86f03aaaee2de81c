//! Segments that are missing: what is a loss is reported with the number of messages, what went by the rules is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::{
    AtLimit, CleanOptions, Error, Event, Jlog, Limits, LogId, Lost, OnMissed, ReaderOptions, Start,
    WriterOptions,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::support::{bodies, consume, names_with, new_path, read_on, shared, unsynced};

/// Messages in a full segment.
const FULL: u64 = 5;
const SEGMENT_SIZE: u32 = 5 * (16 + 10);

/// A jlog of full segments and one that is being written, with one message; each message is its number.
struct Feed {
    _dir: TempDir,
    path: PathBuf,
    log: Jlog,
    heard: Arc<Mutex<Vec<Event>>>,
}

impl Feed {
    fn new(full: u32, checksums: bool) -> Self {
        let (dir, path) = new_path();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&heard);
        let options = Jlog::options().storage(unsynced()).segment_size(SEGMENT_SIZE).checksums(checksums);
        let log = options.on_event(move |event| hook.lock().push(event.clone())).create(&path).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        let feed = Self { _dir: dir, path, log, heard };
        feed.write(0..full * 5 + 1);
        assert_eq!(feed.log.segments().unwrap(), (0..=full).collect::<Vec<_>>());
        feed
    }

    fn write(&self, numbers: std::ops::Range<u32>) {
        let writer = self.log.writer().unwrap();
        for n in numbers {
            writer.append(format!("{n:010}")).unwrap();
        }
        writer.close().unwrap();
    }

    fn remove(&self, segment: u32, with: &[&str]) {
        remove(&self.path, segment, with);
    }

    fn losses(&self) -> Vec<(String, Lost)> {
        std::mem::take(&mut *self.heard.lock())
            .into_iter()
            .filter_map(|event| match event {
                Event::SegmentsLost { subscriber, lost } => Some((subscriber, lost)),
                _ => None,
            })
            .collect()
    }

    /// What is lost to `s`, as everybody says who looks without changing anything.
    fn seen(&self) -> Option<Lost> {
        let status = self.log.status().unwrap();
        let lost = status.subscribers.iter().find(|s| s.name.to_string() == "s").unwrap().lost;
        let found = self.log.verify().unwrap();
        let damage: Vec<_> = found.findings.iter().filter(|finding| finding.damage).collect();
        assert_eq!(damage.is_empty(), lost.is_none(), "{damage:?}");
        assert!(damage.iter().all(|finding| finding.what.contains("missing")), "{damage:?}");
        assert_eq!(self.losses(), [], "status and verify tell nobody else");
        lost
    }

    /// Reads everything for `s`; returns the numbers of the messages and what the reader says that it lost.
    fn read(&self) -> (Vec<u32>, Option<Lost>) {
        let mut reader = self.log.reader_with("s", shared()).unwrap();
        let got = read_on(&mut reader);
        let numbers = got.iter().map(|m| std::str::from_utf8(&m.body).unwrap().parse().unwrap());
        let told = self.losses().into_iter().map(|(subscriber, lost)| {
            assert_eq!(subscriber, "s");
            lost
        });
        assert_eq!(told.reduce(Lost::and), reader.lost(), "what is counted is told");
        (numbers.collect(), reader.lost())
    }
}

fn remove(path: &Path, segment: u32, with: &[&str]) {
    for suffix in std::iter::once(&"").chain(with) {
        std::fs::remove_file(path.join(format!("{segment:08x}{suffix}"))).unwrap();
    }
}

fn one(segment: u32, messages: u64, exact: bool) -> Lost {
    Lost { first: segment, last: segment, segments: 1, messages, exact }
}

/// The numbers in all segments of `full` but those that are missing, and in the last one.
fn but(full: u32, missing: &[u32]) -> Vec<u32> {
    (0..=full * 5).filter(|n| !missing.contains(&(n / 5))).collect()
}

/// Wherever a segment is missing, and whatever is left of it: everybody reports it alike, and nothing that is
/// left of it is swept away before its number is noted.
#[test]
fn a_missing_segment_is_reported_with_its_messages() {
    // What the feed keeps, what is removed with the segment, and whether the number is known then.
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
                // Made as the C library makes it, by reading through it.
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

            // What sweeps reports it, too, once, and afterwards it is known as well as before.
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
            // Nothing is left to be repaired; the subscriber is told all the same.
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
            // Told again until the subscriber is past it, not afterwards.
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
    let expected = Lost { first: 3, last: 7, segments: 3, messages: 3 * FULL, exact: true };
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
    // Everything behind the first one, and nothing but the last message is left.
    for segment in [5, 6, 8, 9, 10, 11] {
        feed.remove(segment, &[".crc"]);
    }
    let (numbers, lost) = feed.read();
    assert_eq!(numbers, but(12, &[3, 4, 5, 6, 7, 8, 9, 10, 11]));
    let lost = lost.unwrap();
    assert_eq!((lost.first, lost.last, lost.segments, lost.messages), (3, 11, 9, 2 * FULL + 7));
    assert_eq!(feed.seen(), Some(lost));
}

/// Where a subscriber was within a segment, only what it had not read is lost.
#[test]
fn what_was_read_of_a_missing_segment_is_no_loss() {
    for (done, left) in [(0, 5), (2, 3), (4, 1), (5, 0)] {
        let feed = Feed::new(3, true);
        feed.log.set_checkpoint("s", LogId::new(1, done)).unwrap();
        feed.remove(1, &[]);
        let expected = (left > 0).then(|| one(1, left, true));
        assert_eq!(feed.seen(), expected, "{done}");
        assert_eq!(feed.read(), ((10..=15).collect(), expected), "{done}");
        // Without a trace of it, nobody knows how many were left.
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
    // A reader that looks back behind its checkpoint has no right to what is there.
    let mut reader = feed.log.reader("s").unwrap();
    reader.seek(LogId::new(0, 0)).unwrap();
    assert_eq!(read_on(&mut reader).len(), 16);
    assert_eq!(reader.lost(), None);
    drop(reader);
    // Nor has one that is added, or moved back, to where there is nothing any more.
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
    // Repair moves those that are before everything; nothing of it is a loss.
    let repaired = Jlog::repair(&feed.path).unwrap();
    assert!(repaired.iter().all(|event| matches!(event, Event::CheckpointRepaired { .. })), "{repaired:?}");
    // What is missing behind what went by the rules still is a loss, also where a name is left of a newer feed.
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

/// A power failure can bring an older checkpoint back when the segments behind it have gone for good.
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

/// The C library removes what lies between an old and a new checkpoint, and leaves older segments that nobody
/// needs: a later subscriber finds a gap then.
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
    // A copy of a subscriber that lost something has lost it, too.
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
    // One that is lost between others is told apart from those that were dropped.
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

/// The segment being written is gone, and its checksums are left: what is written next gets other ids, and the
/// subscriber is told what it has lost.
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
    // Where nobody needs it, it is begun again as before.
    let feed = Feed::new(2, true);
    feed.log.unsubscribe("s").unwrap();
    feed.remove(2, &[]);
    feed.write(14..16);
    assert_eq!(feed.losses(), []);
    assert_eq!(feed.log.end().unwrap(), LogId::new(2, 2));
}

/// A full disk, or one that cannot be written, keeps what is left of a lost segment.
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

/// Numbers that a hostile metastore or checkpoint names cost no time.
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
