//! The directories that the C library wrote are read as its own reader read them (`expected.json`
//! in each), unless that is wrong: those differences are listed here, with reasons.

use std::path::{Path, PathBuf};

use jlog_core::compat::ReaderCompat;
use jlog_core::{AlterOptions, Event, Jlog, LogId, OnDamage, Reader, ReaderOptions, Timestamp, Wait};
use serde_json::Value;

use testkit::checker::check_strictly;
use testkit::feeds::{Row, copy_dir, golden_dir, names_with, new_path, read_on, rows, snapshot};

/// The time of the messages that the tests add.
const NEWS: Timestamp = Timestamp { seconds: 1_700_000_000, micros: 1 };

/// A golden directory and what the C library read from it.
struct Golden {
    jlog: PathBuf,
    expected: Value,
}

impl Golden {
    /// `None` if there are no golden directories.
    fn load(name: &str) -> Option<Self> {
        let dir = golden_dir()?.join(name);
        let expected = std::fs::read(dir.join("expected.json")).unwrap();
        Some(Self { jlog: dir.join("jlog"), expected: serde_json::from_slice(&expected).unwrap() })
    }

    fn subscribers(&self) -> Vec<Vec<u8>> {
        self.expected["reads"].as_object().unwrap().keys().map(|name| name_bytes(name)).collect()
    }

    fn read(&self, subscriber: &[u8]) -> &Value {
        let reads = self.expected["reads"].as_object().unwrap();
        reads.iter().find(|(name, _)| name_bytes(name) == subscriber).unwrap().1
    }

    fn messages(&self, subscriber: &[u8]) -> Vec<Row> {
        rows(&self.read(subscriber)["messages"])
    }
}

/// The bytes of a name, which the expectations contain as Latin-1.
fn name_bytes(name: &str) -> Vec<u8> {
    name.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// The segments among file names.
fn segments_of<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let segments = names.filter(|name| name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut segments: Vec<u32> = segments.map(|name| u32::from_str_radix(name, 16).unwrap()).collect();
    segments.sort_unstable();
    segments
}

fn to_rows(reader: &mut Reader) -> Vec<Row> {
    read_on(reader).iter().map(|message| message.row()).collect()
}

/// Reads to the end, with a checkpoint after every batch.
fn consume(reader: &mut Reader) -> Vec<Row> {
    let mut out = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        out.extend(batch.iter().map(|message| Row::new(message.id(), message.time(), message.body())));
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
    out
}

/// Reads a golden directory for each of its subscribers, each from a separate copy, and expects the
/// messages that the C library read, the segments that it left, and the checkpoints as listed.
fn reads_as_expected(name: &str) {
    let Some(golden) = Golden::load(name) else { return };
    let meta: String =
        std::fs::read(golden.jlog.join("metastore")).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(golden.expected["metastore"], Value::String(meta));
    let subscribers = golden.subscribers();
    for subscriber in &subscribers {
        let expected = golden.messages(subscriber);
        assert_eq!(golden.read(subscriber)["errors"], serde_json::json!([]));
        for options in [
            ReaderOptions::default(),
            ReaderOptions::default().read_method(jlog_core::ReadMethod::Mmap).batch_bytes(4096),
        ] {
            let (_dir, path) = new_path();
            copy_dir(&golden.jlog, &path);
            let log = Jlog::open(&path).unwrap();
            for (other, checkpoint) in golden.expected["checkpoints"].as_object().unwrap() {
                let part = |i: usize| u32::from_str_radix(checkpoint[i].as_str().unwrap(), 16).unwrap();
                let checkpoint = LogId::new(part(0), part(1));
                assert_eq!(log.checkpoint(name_bytes(other)).unwrap(), checkpoint, "{name} {other}");
            }
            let mut names: Vec<_> =
                log.subscribers().unwrap().iter().map(|name| name.as_bytes().to_vec()).collect();
            names.sort();
            let mut all = subscribers.clone();
            all.sort();
            assert_eq!(names, all, "{name}");
            if golden.expected["writer_opened_before_reading"] == Value::Bool(true) {
                let writer = log.writer().unwrap();
                writer.flush().unwrap();
                writer.close().unwrap();
            }
            let mut reader = log.reader_with(subscriber, options).unwrap();
            assert_eq!(consume(&mut reader), expected, "{name}, subscriber {subscriber:?}");
            let after = golden.read(subscriber)["files_after"].as_array().unwrap();
            let after = segments_of(after.iter().map(|name| name.as_str().unwrap()));
            assert_eq!(log.segments().unwrap(), after, "{name}: segments left after {subscriber:?}");
            // The next reader starts after the acknowledged messages.
            drop(reader);
            assert_eq!(to_rows(&mut log.reader(subscriber).unwrap()), [], "{name} {subscriber:?}");
        }
        reads_by_id(&golden, subscriber, &expected);
    }
}

/// Checks that the low-level interval finds every message of a subscriber, and that it can be read
/// by its id.
fn reads_by_id(golden: &Golden, subscriber: &[u8], expected: &[Row]) {
    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let log = Jlog::open(&path).unwrap();
    if golden.expected["writer_opened_before_reading"] == Value::Bool(true) {
        log.writer().unwrap().close().unwrap();
    }
    let mut reader = log.reader(subscriber).unwrap();
    let mut got = Vec::new();
    loop {
        let interval = reader.interval().unwrap();
        if interval.count == 0 {
            break;
        }
        assert_eq!(interval.last.segment, interval.first.segment);
        assert_eq!(interval.last.marker - interval.first.marker + 1, interval.count);
        for marker in interval.first.marker..=interval.last.marker {
            let message = reader.read(LogId::new(interval.first.segment, marker)).unwrap();
            got.push(Row::new(message.id(), message.time(), message.body()));
        }
        reader.commit(interval.last).unwrap();
    }
    assert_eq!(got, expected);
}

#[test]
fn plain_small() {
    reads_as_expected("plain-small");
}

#[test]
fn plain_multi() {
    reads_as_expected("plain-multi");
}

#[test]
fn lz4_multi() {
    reads_as_expected("lz4-multi");
}

#[test]
fn precommit_clean() {
    reads_as_expected("precommit-clean");
}

#[test]
fn precommit_crash() {
    reads_as_expected("precommit-crash");
    let Some(golden) = Golden::load("precommit-crash") else { return };
    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let log = Jlog::open(&path).unwrap();
    // Opening for writing flushes the buffer's contents, once.
    let writer = log.writer().unwrap();
    let recovered = log.take_events().into_iter().any(
        |event| matches!(event, Event::BufferRecovered { records, .. } if records as usize == golden.messages(b"one").len()),
    );
    assert!(recovered);
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), golden.messages(b"one"));
    writer.flush().unwrap();
    writer.close().unwrap();
    log.writer().unwrap().close().unwrap();
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), golden.messages(b"one"));
}

#[test]
fn safety_safe() {
    reads_as_expected("safety-safe");
}

#[test]
fn odd_subscribers() {
    reads_as_expected("odd-subscribers");
    let Some(golden) = Golden::load("odd-subscribers") else { return };
    assert!(golden.subscribers().contains(&"sübscriber".as_bytes().to_vec()));
    assert!(golden.subscribers().contains(&b"a b/c".to_vec()));
}

#[test]
fn end_subscriber() {
    reads_as_expected("end-subscriber");
}

#[test]
fn missing_segment() {
    reads_as_expected("missing-segment");
}

#[test]
fn checkpoint_past_end() {
    reads_as_expected("checkpoint-past-end");
    let Some(golden) = Golden::load("checkpoint-past-end") else { return };
    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let log = Jlog::open(&path).unwrap();
    let end = log.end().unwrap();
    let mut reader = log.reader("one").unwrap();
    assert_eq!(to_rows(&mut reader), []);
    assert_eq!(log.checkpoint("one").unwrap(), end, "the reader moves the checkpoint back to the end");
    let from: LogId = "00000000:00000063".parse().unwrap();
    let moved = Event::CheckpointMovedBack { subscriber: "one".to_owned(), from, to: end };
    assert_eq!(log.take_events(), [moved]);
    // No new message is missed.
    log.writer().unwrap().append_at(NEWS, "news").unwrap();
    let news = Row::new(LogId::new(end.segment, end.marker + 1), NEWS, b"news");
    assert_eq!(to_rows(&mut reader), [news]);
}

/// Opening for writing truncates the torn record, keeps its bytes, and continues after the whole
/// records.
fn torn(name: &str) {
    reads_as_expected(name);
    let Some(golden) = Golden::load(name) else { return };
    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let segment = std::fs::read(path.join("00000000")).unwrap();
    let log = Jlog::open(&path).unwrap();
    let writer = log.writer().unwrap();
    let events = log.take_events();
    let [Event::TailTruncated { segment: 0, offset, len, kept }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(offset + len, segment.len() as u64);
    let offset = usize::try_from(*offset).unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), segment[offset..]);
    writer.append_at(NEWS, "news").unwrap();
    writer.close().unwrap();
    let mut expected = golden.messages(b"one");
    let id = LogId::new(0, u32::try_from(expected.len()).unwrap() + 1);
    expected.push(Row::new(id, NEWS, b"news"));
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), expected);
    if let Some((good, report)) = check_strictly(&path) {
        assert!(good, "{}", report["problems"]);
    }
}

#[test]
fn torn_header() {
    torn("torn-header");
}

#[test]
fn torn_tail() {
    torn("torn-tail");
}

/// The reference overwrote three of the eleven messages when it wrote this directory (spec, section
/// 6, 1). They are nowhere in it, so only the others can be read; `c_library_faults` tests that our
/// writer keeps all eleven.
#[test]
fn big_message() {
    reads_as_expected("big-message");
    let Some(golden) = Golden::load("big-message") else { return };
    let seconds: Vec<u32> =
        golden.messages(b"one").iter().map(|row| row.time.seconds - 1_700_000_000).collect();
    assert_eq!(seconds, [1, 3, 4, 5, 6, 7, 9, 10], "0, 2 and 8 are lost");
}

/// The reference loses an intact record next to the damaged one (spec, section 6, 9): it delivers
/// 58 of 60 messages, ours 59, before and after a repair.
#[test]
fn garbage_middle() {
    let Some(golden) = Golden::load("garbage-middle") else { return };
    let reference = golden.messages(b"one");
    assert_eq!(reference.len(), 58);
    // Reading past the damage delivers 59 messages, including those of the reference, in order.
    // Records keep their original markers until a repair has taken the damaged one out.
    let agrees = |got: &[Row], repaired: bool| {
        assert_eq!(got.len(), 59);
        let neighbour: Vec<&Row> =
            got.iter().filter(|row| !reference.iter().any(|r| r.content() == row.content())).collect();
        assert_eq!(neighbour.len(), 1, "{neighbour:?}");
        assert!([4, 5].contains(&(neighbour[0].time.seconds - 1_700_000_000)), "{neighbour:?}");
        let others = got.iter().filter(|row| row.content() != neighbour[0].content());
        assert!(others.map(Row::content).eq(reference.iter().map(Row::content)));
        for (segment, rows) in [0, 1].map(|n| (n, got.iter().filter(move |row| row.id.segment == n))) {
            for (row, marker) in rows.zip(1..) {
                let missing = u32::from(!repaired && segment == 0 && marker > 5);
                assert_eq!(row.id, LogId::new(segment, marker + missing));
            }
        }
    };

    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader("one").unwrap();
    let mut got = Vec::new();
    let error = loop {
        match reader.next_batch(Wait::No) {
            Ok(Some(batch)) => {
                got.extend(
                    batch.iter().map(|message| Row::new(message.id(), message.time(), message.body())),
                );
            }
            Ok(None) => panic!("the damage went unnoticed"),
            Err(error) => break error,
        }
    };
    assert!(error.is_damage(), "{error}");
    reader.skip_damage();
    got.extend(to_rows(&mut reader));
    agrees(&got, false);
    drop(reader);
    let skipping = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = log.reader_with("one", skipping).unwrap();
    assert_eq!(to_rows(&mut reader), got);
    assert!(reader.skipped() >= 16);

    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let before = std::fs::read(path.join("00000000")).unwrap();
    let done = Jlog::repair(&path).unwrap();
    let [Event::SegmentRepaired { segment: 0, kept, removed, records }] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!(std::fs::read(kept).unwrap(), before, "the segment as it was is kept");
    assert_eq!(*removed, before.len() as u64 - std::fs::metadata(path.join("00000000")).unwrap().len());
    let log = Jlog::open(&path).unwrap();
    assert_eq!(log.inspect(0, |_| {}).unwrap().records, *records);
    let repaired = to_rows(&mut log.reader("one").unwrap());
    agrees(&repaired, true);
    assert!(
        repaired.iter().map(Row::content).eq(got.iter().map(Row::content)),
        "what a skipping reader sees"
    );
    assert_eq!(Jlog::repair(&path).unwrap(), [], "there is nothing left to repair");
    if let Some((good, report)) = check_strictly(&path) {
        assert!(good, "{}", report["problems"]);
        assert_eq!(rows(&report["messages"]), repaired);
    }
}

/// The reference cannot read a jlog from before header magics (its index finds no record with the
/// magic that it guesses, and then reports FILE_CORRUPT). Such a jlog must open and read (spec,
/// section 1), and only an explicit repair upgrades it.
#[test]
fn metastore_12() {
    let Some(golden) = Golden::load("metastore-12") else { return };
    assert_eq!(golden.messages(b"one"), []);
    let (_dir, path) = new_path();
    copy_dir(&golden.jlog, &path);
    let before = snapshot(&path);
    let expected = old_records(&before[Path::new("00000000").as_os_str()]);
    assert!(!expected.is_empty());
    let log = Jlog::open(&path).unwrap();
    assert_eq!(log.meta().unwrap().format.magic(), 0);
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), expected);
    assert!(matches!(log.writer(), Err(jlog_core::Error::OldMetastore { .. })));
    assert!(matches!(
        log.alter(AlterOptions::default().segment_size(4096)),
        Err(jlog_core::Error::OldMetastore { .. })
    ));
    assert_eq!(snapshot(&path), before, "neither reading nor a refused writer changes anything");

    Jlog::repair(&path).unwrap();
    assert_eq!(std::fs::metadata(path.join("metastore")).unwrap().len(), 16);
    assert_eq!(names_with(&path, "metastore.broken-").len(), 1, "the old metastore is kept");
    let log = Jlog::open(&path).unwrap();
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), expected);
    log.writer().unwrap().append_at(NEWS, "news").unwrap();
    let mut expected = expected;
    let id = LogId::new(0, u32::try_from(expected.len()).unwrap() + 1);
    expected.push(Row::new(id, NEWS, b"news"));
    assert_eq!(to_rows(&mut log.reader("one").unwrap()), expected);
    if let Some((good, report)) = check_strictly(&path) {
        assert!(good, "{}", report["problems"]);
        assert_eq!(rows(&report["messages"]), expected);
    }
}

/// Decodes the records of an old segment: each has 16 bytes of magic 0, seconds, microseconds and
/// length, followed by the body.
fn old_records(mut bytes: &[u8]) -> Vec<Row> {
    let mut out = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let field = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        assert_eq!(field(0), 0);
        let (body, rest) = rest.split_at(field(12) as usize);
        let id = LogId::new(0, u32::try_from(out.len()).unwrap() + 1);
        out.push(Row::new(id, Timestamp { seconds: field(4), micros: field(8) }, body));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    out
}

/// Fails if a directory has no test above.
#[test]
fn every_golden_directory_has_its_test() {
    let Some(dir) = golden_dir() else { return };
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let tested = [
        "big-message",
        "checkpoint-past-end",
        "end-subscriber",
        "garbage-middle",
        "lz4-multi",
        "metastore-12",
        "missing-segment",
        "odd-subscribers",
        "plain-multi",
        "plain-small",
        "precommit-clean",
        "precommit-crash",
        "safety-safe",
        "torn-header",
        "torn-tail",
    ];
    assert_eq!(names, tested);
}
