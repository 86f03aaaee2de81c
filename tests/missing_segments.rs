//! Segments that are missing or were cut: losses are reported with the number of messages, and what
//! the rules removed is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::{
    AtLimit, CleanOptions, Compression, Error, Event, Jlog, Limits, LogId, Lost, OnDamage, OnMissed,
    ReaderOptions, Start, WriterOptions,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use testkit::feeds::{bodies, consume, names_with, new_path, read_on, shared, unsynced};

/// Messages in a full segment.
const FULL: u64 = 5;
const SEGMENT_SIZE: u32 = 5 * (16 + 10);
/// The same with compression, where a message takes one byte more: none of them is compressible.
const LZ4_SEGMENT_SIZE: u32 = 5 * (20 + 11);

/// A jlog of full segments and one that is being written, with one message. The body of each
/// message is its number.
struct Feed {
    _dir: TempDir,
    path: PathBuf,
    log: Jlog,
    heard: Arc<Mutex<Vec<Event>>>,
}

impl Feed {
    fn new(full: u32, checksums: bool) -> Self {
        Self::compressed(full, checksums, false)
    }

    fn compressed(full: u32, checksums: bool, lz4: bool) -> Self {
        let (dir, path) = new_path();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&heard);
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let size = if lz4 { LZ4_SEGMENT_SIZE } else { SEGMENT_SIZE };
        let options = Jlog::options()
            .storage(unsynced())
            .segment_size(size)
            .checksums(checksums)
            .compression(compression);
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

    /// The loss of `s`, as every read-only operation reports it.
    fn seen(&self) -> Option<Lost> {
        let status = self.log.status().unwrap();
        let lost = status.subscribers.iter().find(|s| s.name.to_string() == "s").unwrap().lost;
        let found = self.log.verify().unwrap();
        let damage: Vec<_> = found.findings.iter().filter(|finding| finding.damage).collect();
        assert_eq!(damage.is_empty(), lost.is_none(), "{damage:?}");
        assert!(
            damage.iter().all(|finding| finding.what.contains("missing") || finding.what.contains("was cut")),
            "{damage:?}"
        );
        assert_eq!(self.losses(), [], "status and verify tell nobody else");
        lost
    }

    /// Reads everything for `s`. Returns the numbers of the messages and the loss that the reader
    /// reports.
    fn read(&self) -> (Vec<u32>, Option<Lost>) {
        let mut reader = self.log.reader_with("s", shared().on_damage(OnDamage::Skip)).unwrap();
        let got = read_on(&mut reader);
        let numbers = got.iter().map(|m| std::str::from_utf8(&m.body).unwrap().parse().unwrap());
        let reported = self.losses().into_iter().map(|(subscriber, lost)| {
            assert_eq!(subscriber, "s");
            lost
        });
        assert_eq!(reported.reduce(Lost::and), reader.lost(), "what is counted is told");
        (numbers.collect(), reader.lost())
    }
}

fn remove(path: &Path, segment: u32, with: &[&str]) {
    for suffix in std::iter::once(&"").chain(with) {
        std::fs::remove_file(path.join(format!("{segment:08x}{suffix}"))).unwrap();
    }
}

fn one(segment: u32, messages: u64, exact: bool) -> Lost {
    Lost { first: segment, last: segment, segments: 1, cut: 0, messages, exact }
}

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

/// Whether repair removed an index or checksums that list more than there is, or replaced the
/// checksums.
fn is_about_a_sidecar(event: &Event) -> bool {
    matches!(event, Event::SidecarRemoved { .. } | Event::ChecksumsReplaced { .. })
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
