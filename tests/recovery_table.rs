//! One test for each row of the table in `recovery.rs`: every state is made by hand, byte for byte
//! according to FORMAT.md, and the result is checked in full.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use jlog_core::compat::ReaderCompat;
use jlog_core::internals::read_runs;
use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{
    Error, Event, Jlog, LogId, Lost, MetaFault, OnDamage, Reader, ReaderOptions, Timestamp, Wait,
};
use tempfile::TempDir;

use crate::support::{Checker, consume, crc32, new_path, read_on, snapshot, unsynced};

/// The rows of the table, in order, and the test of each.
const ROWS: [(&str, &str); 27] = [
    ("metastore missing, damaged, of unknown magic", "no_good_metastore"),
    ("metastore names a segment before the last on disk (power failure)", "metastore_behind_the_segments"),
    ("… which was restored from a backup over a newer feed", "segments_of_a_newer_feed"),
    ("… and after those there is a gap, and more", "segments_behind_a_gap"),
    ("the next segment exists when it is begun", "next_segment_is_there"),
    (
        "metastore names a segment that does not exist, and there is none after it",
        "metastore_before_its_segment",
    ),
    (
        "… of which checksums or an index are left, and a subscriber needs it",
        "metastore_before_a_lost_segment",
    ),
    ("current segment ends within a record", "unfinished_record"),
    ("current segment ends in bytes that are not a record", "bytes_that_are_no_record"),
    ("metastore names another layout than the records have", "metastore_of_another_layout"),
    ("current segment is damaged, and intact records follow", "damage_before_intact_records"),
    ("current segment removed or replaced while it is written", "segment_removed_or_replaced"),
    ("checksums cover more than the segment holds", "checksums_of_more_than_there_is"),
    ("checksums of records that others have truncated, moved or replaced", "checksums_of_other_records"),
    ("index disagrees with the segment", "index_that_does_not_fit"),
    ("pre-commit buffer with whole records", "buffer_with_whole_records"),
    ("… with a torn record", "buffer_with_an_unfinished_record"),
    ("… damaged in the middle", "buffer_damaged_in_the_middle"),
    ("… whose flush was interrupted", "flush_that_was_cut_short"),
    ("… and whose segment was removed", "flush_to_a_segment_that_is_gone"),
    ("… open when the machine stopped, with a fingerprint that fits", "buffer_that_survived_the_machine"),
    ("… with one that does not", "buffer_that_did_not_survive_the_machine"),
    ("… used by the C library since", "buffer_used_by_the_c_library"),
    ("checkpoint past the end of the jlog", "checkpoint_past_the_end"),
    ("checkpoint of a segment that was removed", "checkpoint_of_a_segment_that_is_gone"),
    ("complete segment ends within a record (power failure)", "complete_segment_ends_within_a_record"),
    (
        "complete segment holds fewer records than its index or checksums list, or none",
        "complete_segment_that_was_cut",
    ),
];

/// Finds rows without a test, and tests without a row.
#[test]
fn every_row_has_its_test() {
    let rows: Vec<String> = include_str!("../jlog-core/src/upkeep/recovery.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .map(|row| row.split('|').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
        .skip_while(|state| state != "---")
        .skip(1)
        .collect();
    assert_eq!(rows, ROWS.map(|(row, _)| row));
    let here = include_str!("recovery_table.rs");
    let mut names = BTreeSet::new();
    for (row, name) in ROWS {
        assert!(here.contains(&format!("\n#[test]\nfn {name}() {{\n")), "{row}: no test {name}");
        assert!(names.insert(name), "{row}: {name} is the test of another row, too");
    }
}

const MAGIC: u32 = 0x663A_7318;
/// When the messages were accepted, in seconds since 1970.
const TIME: u32 = 1_700_000_000;

/// An uncompressed record of this second.
fn record_at(seconds: u32, body: &str) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let mut bytes: Vec<u8> = [MAGIC, seconds, 5, len].iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

fn record(body: &str) -> Vec<u8> {
    record_at(TIME, body)
}

fn records(bodies: &[&str]) -> Vec<u8> {
    bodies.iter().flat_map(|body| record(body)).collect()
}

/// The fingerprint of records according to FORMAT.md.
fn fingerprint(bodies: &[&str]) -> u32 {
    bodies
        .iter()
        .fold(0u32, |f, body| (f.rotate_left(5) ^ crc32(&record(body))).wrapping_mul(0x9E37_79B1) | 1)
}

/// The checksums of consecutive records from `offset` on, as in a sidecar.
fn run(offset: u64, marker: u32, inode: u64, written: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let bytes: usize = records.iter().map(Vec::len).sum();
    let last = offset + (bytes - records.last().unwrap().len()) as u64;
    let crcs: Vec<u8> = records.iter().flat_map(|record| crc32(record).to_le_bytes()).collect();
    let mut out = Vec::new();
    out.extend(0x3172_636a_u32.to_le_bytes());
    out.extend(u32::try_from(records.len()).unwrap().to_le_bytes());
    for n in [offset, bytes as u64, last, inode] {
        out.extend(n.to_le_bytes());
    }
    for n in [marker, written, crc32(&crcs)] {
        out.extend(n.to_le_bytes());
    }
    out.extend(crc32(&out).to_le_bytes());
    out.extend(crcs);
    out
}

/// A directory under construction, at first without our files, as the C library leaves one.
struct Made {
    _dir: TempDir,
    path: PathBuf,
}

impl Made {
    /// A metastore that names this segment, and a subscriber `one` that has done nothing.
    fn new(storage_log: u32) -> Self {
        let (dir, path) = new_path();
        std::fs::create_dir(&path).unwrap();
        let made = Self { _dir: dir, path };
        made.write("metastore", metastore(storage_log));
        made.checkpoint(0, 0)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path.join(name)).unwrap()
    }

    fn is_there(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    fn segment(self, number: u32, bytes: impl AsRef<[u8]>) -> Self {
        self.write(&format!("{number:08x}"), bytes);
        self
    }

    /// Writes a file so that the file system's clock shows it as newer than another one.
    fn restore(&self, name: &str, newer_than: &str, bytes: &[u8]) {
        let changed = |name: &str| {
            let facts = std::fs::metadata(self.path.join(name)).unwrap();
            (facts.ctime(), facts.ctime_nsec())
        };
        self.write(name, bytes);
        while changed(name) <= changed(newer_than) {
            self.write(name, bytes);
        }
    }

    fn checkpoint(self, segment: u32, marker: u32) -> Self {
        self.write("cp.6f6e65", [segment.to_le_bytes(), marker.to_le_bytes()].concat());
        self
    }

    /// Adds a pre-commit buffer of 200 bytes with these records.
    fn buffer(self, bytes: &[u8]) -> Self {
        let mut file = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        file.extend_from_slice(bytes);
        file.resize(4 + 200, 0);
        self.write("pre_commit", file);
        self
    }

    fn guard(self, guard: Guard) -> Self {
        self.write("pre_commit.guard", guard.bytes());
        self
    }

    fn open(&self) -> Jlog {
        Jlog::options().storage(unsynced()).open(&self.path).unwrap()
    }

    /// The path and the contents of a file that was kept.
    fn kept(&self, name: &str) -> (PathBuf, Vec<u8>) {
        (self.path.join(name), self.read(name))
    }

    fn broken(&self) -> Vec<String> {
        let names = snapshot(&self.path).into_keys().map(|name| name.into_string().unwrap());
        names.filter(|name| name.contains(".broken-")).collect()
    }

    fn inode(&self, name: &str) -> u64 {
        Posix.open(&self.path.join(name), Open::Read).unwrap().facts().unwrap().identity.1
    }
}

fn metastore(storage_log: u32) -> Vec<u8> {
    metastore_of(storage_log, 4 << 20)
}

fn metastore_of(storage_log: u32, segment_size: u32) -> Vec<u8> {
    [storage_log, segment_size, 1, MAGIC].iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// The contents of `pre_commit.guard`; by default those of a writer that was killed before it
/// flushed anything.
#[derive(Clone, Copy)]
struct Guard {
    state: u32,
    boot: u64,
    segment: u32,
    bytes: u32,
    offset: u64,
    flushed: u32,
    done: u32,
    open: u32,
    fingerprint: u32,
    done_fingerprint: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            state: 0,
            boot: Posix.boot_id(),
            segment: 0,
            bytes: 0,
            offset: 0,
            flushed: 0,
            done: 0,
            open: 1,
            fingerprint: 0,
            done_fingerprint: 0,
        }
    }
}

impl Guard {
    /// The guard of a writer that was killed while it flushed these messages from its buffer to
    /// this place.
    fn flushing(bodies: &[&str], segment: u32, offset: usize, state: u32) -> Self {
        Self {
            state,
            segment,
            bytes: u32::try_from(records(bodies).len()).unwrap(),
            offset: offset as u64,
            flushed: fingerprint(bodies),
            fingerprint: fingerprint(bodies),
            ..Self::default()
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut add = |bytes: &[u8]| out.extend_from_slice(bytes);
        add(b"jpg1");
        add(&self.state.to_le_bytes());
        add(&self.boot.to_le_bytes());
        add(&self.segment.to_le_bytes());
        add(&self.bytes.to_le_bytes());
        add(&self.offset.to_le_bytes());
        for n in [self.flushed, self.done, self.open, self.fingerprint, self.done_fingerprint] {
            add(&n.to_le_bytes());
        }
        assert_eq!(out.len(), 52);
        out
    }
}

type Message<'a> = (u32, u32, &'a str);

/// The messages of a reader: segment, marker, and body of each.
fn give(reader: &mut Reader) -> Vec<(u32, u32, String)> {
    let got = read_on(reader).into_iter();
    got.map(|got| (got.id.segment, got.id.marker, String::from_utf8(got.body).unwrap())).collect()
}

fn owned(messages: &[Message<'_>]) -> Vec<(u32, u32, String)> {
    messages.iter().map(|&(segment, marker, body)| (segment, marker, body.to_owned())).collect()
}

/// The pending messages of subscriber `one`, read without changing anything.
#[track_caller]
fn expect(log: &Jlog, expected: &[Message<'_>]) {
    let mut reader = log.reader_with("one", ReaderOptions::default().peek(true)).unwrap();
    assert_eq!(give(&mut reader), owned(expected));
}

/// Opens a writer and closes it again; returns the reported repairs.
fn open_and_close(log: &Jlog) -> Vec<Event> {
    log.take_events();
    log.writer().unwrap().close().unwrap();
    log.take_events()
}

thread_local! {
    /// The independent reader of the format, if there is one. Each test has its own, and starts it
    /// once.
    static CHECKER: RefCell<Option<Checker>> = RefCell::new(Checker::start());
}

/// Checks that an independent reader of the format finds nothing wrong except the gaps that a state
/// was made with.
#[track_caller]
fn conforms(log: &Jlog) {
    let segments = log.segments().unwrap();
    let gaps: Vec<String> = segments
        .windows(2)
        .filter(|pair| pair[0] + 1 < pair[1])
        .map(|pair| format!("gap between segments {:08x} and {:08x}", pair[0], pair[1]))
        .collect();
    CHECKER.with_borrow_mut(|checker| {
        if let Some(checker) = checker {
            assert_eq!(checker.report(log.path())["problems"], serde_json::json!(gaps));
        }
    });
}

/// Checks that the jlog continues to work: an appended message gets this id and is read after the
/// existing ones, nothing more is repaired, the subscriber can commit everything, and an
/// independent reader of the format finds nothing wrong.
#[track_caller]
fn works_on(log: &Jlog, there: &[Message<'_>], next: (u32, u32)) {
    works_on_without(log, there, next, 0);
}

/// The same if this many segments are lost, which is reported until the subscriber has passed them.
#[track_caller]
fn works_on_without(log: &Jlog, there: &[Message<'_>], next: (u32, u32), lost: u32) {
    let writer = log.writer().unwrap();
    writer.append("next").unwrap();
    writer.close().unwrap();
    let mut expected = there.to_vec();
    expected.push((next.0, next.1, "next"));
    expect(log, &expected);
    assert_eq!(log.end().unwrap(), LogId::new(next.0, next.1));
    log.take_events();
    assert_eq!(open_and_close(log), []);
    let found = log.verify().unwrap();
    let damage: Vec<_> = found.findings.iter().filter(|finding| finding.damage).collect();
    assert!(damage.iter().all(|finding| finding.what.contains(" missing, and with ")), "{damage:?}");
    assert_eq!(damage.is_empty(), lost == 0, "{damage:?}");
    assert_eq!(log.status().unwrap().subscribers[0].lost.map_or(0, |lost| lost.segments), lost);
    conforms(log);
    assert_eq!(consume(log, "one").len(), expected.len());
    expect(log, &[]);
    assert!(!log.verify().unwrap().is_damaged(), "{:?}", log.verify().unwrap().findings);
}

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
        assert_eq!(events, [Event::StorageLogAdvanced { from: named, to: 2 }]);
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
    assert_eq!(open_and_close(&log), [Event::StorageLogAdvanced { from: 0, to: 1 }]);
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
        Event::StorageLogAdvanced { from: 0, to: 1 },
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
        Event::StorageLogAdvanced { from: 1, to: 2 },
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
    assert_eq!(events, [Event::TailCut { segment: 0, offset, len: tail.len() as u64, kept }]);
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

/// The runs of the sidecar of segment 0: offset, marker, and number of records.
fn runs(made: &Made) -> Vec<(u64, u32, usize)> {
    let sidecar = Posix.open(&made.path.join("00000000.crc"), Open::Read).unwrap();
    let runs = read_runs(&*sidecar).unwrap();
    runs.iter().map(|run| (run.offset, run.marker, run.crcs.len())).collect()
}

/// "those runs are dropped"
#[test]
fn checksums_of_more_than_there_is() {
    let [a, b, c] = ["a", "b", "c"].map(record);
    // What a power failure has left of the segment, and the runs that still describe all of it.
    let all = [(0, 1, "a"), (0, 2, "b")];
    let states = [([&a[..], &b].concat(), 2), (a.clone(), 1), (Vec::new(), 0)];
    for (left, count) in states {
        let there = &all[..count];
        let made = Made::new(0).segment(0, &left);
        let inode = made.inode("00000000");
        let behind = run(17, 2, inode, TIME, &[b.clone(), c.clone()]);
        made.write("00000000.crc", [run(0, 1, inode, TIME, std::slice::from_ref(&a)), behind].concat());
        assert_eq!(runs(&made), [(0, 1, 1), (17, 2, 2)]);
        let log = made.open();
        expect(&log, there);
        assert_eq!(open_and_close(&log), []);
        if count == 0 {
            assert!(!made.is_there("00000000.crc"));
        } else {
            assert_eq!(runs(&made), [(0, 1, 1)]);
        }
        assert_eq!(made.read("00000000"), left);
        let marker = u32::try_from(there.len()).unwrap() + 1;
        works_on(&log, there, (0, marker));
    }
}

/// "they accuse nobody"
#[test]
fn checksums_of_other_records() {
    let [a, b, c] = ["a", "b", "c"].map(record);
    let later = |body| record_at(TIME + 100, body);
    let abc = [a.clone(), b.clone(), c.clone()];
    let cut = [&a[..], &later("of another length")].concat();
    let replaced = [&a[..], &later("B"), &later("C")].concat();
    let moved = [&b[..], &c].concat();
    let moved_and_more = [&b[..], &c, &later("d")].concat();
    let states: [(&str, Vec<u8>, &[Message<'_>]); 4] = [
        ("cut, and others behind", cut, &[(0, 1, "a"), (0, 2, "of another length")]),
        ("replaced by as long ones", replaced, &[(0, 1, "a"), (0, 2, "B"), (0, 3, "C")]),
        ("the first taken out", moved, &[(0, 1, "b"), (0, 2, "c")]),
        ("and as long a one behind", moved_and_more, &[(0, 1, "b"), (0, 2, "c"), (0, 3, "d")]),
    ];
    for (what, bytes, there) in states {
        // In the same file, and in another one that has taken its name.
        for same_file in [true, false] {
            let made = Made::new(0).segment(0, &bytes);
            let inode = made.inode("00000000") + u64::from(!same_file);
            made.write("00000000.crc", run(0, 1, inode, TIME + 1, &abc));
            let log = made.open();
            expect(&log, there);
            assert!(!log.verify().unwrap().is_damaged(), "{what}, the same file: {same_file}");
            assert_eq!(open_and_close(&log), [], "{what}, the same file: {same_file}");
            assert_eq!(made.read("00000000"), bytes, "{what}, the same file: {same_file}");
            expect(&log, there);
            works_on(&log, there, (0, u32::try_from(there.len()).unwrap() + 1));
            assert_eq!(made.broken(), [""; 0]);
        }
    }
}

/// "it is not used, and is rebuilt when it is needed"
#[test]
fn index_that_does_not_fit() {
    let entries = |offsets: &[u64]| offsets.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let states = [
        ("of other records", entries(&[0, 20, 40])),
        ("too long", entries(&[0, 17, 35, 54, 70])),
        ("beyond the end", entries(&[0, 17, 1 << 40])),
        ("closed too early", entries(&[0, 17, 0])),
        ("cut within an entry", entries(&[0, 17])[..13].to_vec()),
        ("zeros", vec![0; 24]),
        ("all bits set", vec![0xff; 24]),
    ];
    for (what, index) in states {
        // The subscriber has done the first two, so an index would be used to find its place.
        let made = Made::new(0).segment(0, records(&["a", "bb", "ccc"])).checkpoint(0, 2);
        made.write("00000000.idx", &index);
        let log = made.open();
        expect(&log, &[(0, 3, "ccc")]);
        assert_eq!(open_and_close(&log), [], "{what}");
        let writer = log.writer().unwrap();
        assert_eq!(writer.append("d").unwrap().id(), Some(LogId::new(0, 4)), "{what}");
        writer.close().unwrap();
        expect(&log, &[(0, 3, "ccc"), (0, 4, "d")]);
        assert_eq!(made.read("00000000.idx"), index, "{what}: nobody has needed it so far");
        let mut reader = log.reader("one").unwrap();
        let interval = reader.interval().unwrap();
        assert_eq!((interval.first, interval.last), (LogId::new(0, 3), LogId::new(0, 4)), "{what}");
        assert_eq!(made.read("00000000.idx"), entries(&[0, 17, 35, 54]), "{what}");
        drop(reader);
        works_on(&log, &[(0, 3, "ccc"), (0, 4, "d")], (0, 5));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// Opens a writer for a buffer that has exactly the messages `left` after recovery: opening flushes
/// them, and nothing has to be written first. Before that, segment `to.0` must have `to.1` records.
#[track_caller]
fn buffer_is_flushed(
    made: &Made,
    expected: &[Event],
    there: &[Message<'_>],
    left: &[&str],
    to: (u32, u32),
) -> Jlog {
    let log = made.open();
    let writer = log.writer().unwrap();
    assert_eq!(log.take_events(), expected);
    let mut now = there.to_vec();
    now.extend((to.1 + 1..).zip(left).map(|(marker, body)| (to.0, marker, *body)));
    expect(&log, &now);
    assert_eq!(made.read("pre_commit")[..4], [0; 4]);
    writer.flush().unwrap();
    assert_eq!(log.take_events(), []);
    expect(&log, &now);
    writer.close().unwrap();
    let marker = to.1 + u32::try_from(left.len()).unwrap() + 1;
    works_on(&log, &now, (to.0, marker));
    log
}

fn recovered(bodies: &[&str]) -> Event {
    let bytes = records(bodies).len() as u64;
    Event::BufferRecovered { records: u32::try_from(bodies.len()).unwrap(), bytes }
}

/// "they are flushed at once"
#[test]
fn buffer_with_whole_records() {
    let left = ["b", "", "c"];
    let fits = Guard { fingerprint: fingerprint(&left), ..Guard::default() };
    for guard in [None, Some(fits)] {
        let mut made = Made::new(0).segment(0, record("a")).buffer(&records(&left));
        if let Some(guard) = guard {
            made = made.guard(guard);
        }
        let bytes = made.read("00000000");
        let log = made.open();
        drop(log);
        assert_eq!(made.read("00000000"), bytes, "opening to read flushes nothing");
        buffer_is_flushed(&made, &[recovered(&left)], &[(0, 1, "a")], &left, (0, 1));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// "it is kept, then truncated"
#[test]
fn buffer_with_an_unfinished_record() {
    let torn = record("never finished");
    for cut in [1, 15, 16, torn.len() - 1] {
        for left in [&["b", "c"][..], &[]] {
            let whole = records(left);
            let held = [&whole, &torn[..cut]].concat();
            let made = Made::new(0).segment(0, record("a")).buffer(&held);
            let name = format!("pre_commit.broken-{}", whole.len());
            let kept = made.path.join(&name);
            let mut events = vec![Event::BufferCut { len: cut as u64, kept }];
            events.extend((!left.is_empty()).then(|| recovered(left)));
            buffer_is_flushed(&made, &events, &[(0, 1, "a")], left, (0, 1));
            assert_eq!(made.read(&name), torn[..cut]);
            assert_eq!(made.broken(), [name]);
        }
    }
}

/// "the damage is kept, the records around it are flushed"
#[test]
fn buffer_damaged_in_the_middle() {
    let held = ["b", "cc", "ddd", "e"];
    for guarded in [false, true] {
        let mut bytes = records(&held);
        bytes[17..17 + 16].fill(0);
        let damage = bytes[17..17 + 18].to_vec();
        let mut made = Made::new(0).segment(0, record("a")).buffer(&bytes);
        if guarded {
            made = made.guard(Guard { fingerprint: fingerprint(&held), ..Guard::default() });
        }
        let left = ["b", "ddd", "e"];
        let kept = made.path.join("pre_commit.broken-17");
        let events = [Event::BufferCut { len: 18, kept }, recovered(&left)];
        buffer_is_flushed(&made, &events, &[(0, 1, "a")], &left, (0, 1));
        assert_eq!(made.read("pre_commit.broken-17"), damage);
        assert_eq!(made.broken(), ["pre_commit.broken-17"]);
    }
}

/// "what reached the segment is not written again", however much that is
#[test]
fn flush_that_was_cut_short() {
    const HELD: [&str; 3] = ["b", "cc", "ddd"];
    let flushed = records(&HELD);
    for reached in 0..=flushed.len() {
        let made = Made::new(0)
            .segment(0, [&record("a"), &flushed[..reached]].concat())
            .buffer(&flushed)
            .guard(Guard::flushing(&HELD, 0, 17, 1));
        let whole = (1..=3).take_while(|&n| records(&HELD[..n]).len() <= reached).count();
        let end = 17 + records(&HELD[..whole]).len();
        let torn = 17 + reached - end;
        let name = format!("00000000.broken-{end}");
        let mut events = Vec::new();
        if torn > 0 {
            let kept = made.path.join(&name);
            events.push(Event::TailCut { segment: 0, offset: end as u64, len: torn as u64, kept });
        }
        let records_there = u32::try_from(whole).unwrap();
        events.extend((whole > 0).then_some(Event::BufferAlreadyFlushed { records: records_there }));
        events.extend((whole < 3).then(|| recovered(&HELD[whole..])));
        let mut there = vec![(0, 1, "a")];
        there.extend((2..).zip(HELD).take(whole).map(|(marker, body)| (0, marker, body)));
        buffer_is_flushed(&made, &events, &there, &HELD[whole..], (0, 1 + records_there));
        if torn > 0 {
            assert_eq!(made.read(&name), flushed[reached - torn..reached]);
        }
        assert_eq!(made.broken().len(), usize::from(torn > 0));
    }
}

/// "written again, unless it is known to have been written"
#[test]
fn flush_to_a_segment_that_is_gone() {
    let held = ["b", "c"];
    for (state, left) in [(1, &held[..]), (2, &[])] {
        let made = Made::new(1)
            .segment(1, record("x"))
            .checkpoint(1, 0)
            .buffer(&records(&held))
            .guard(Guard::flushing(&held, 0, 17, state));
        let event = if state == 1 { recovered(&held) } else { Event::BufferAlreadyFlushed { records: 2 } };
        buffer_is_flushed(&made, &[event], &[(1, 1, "x")], left, (1, 1));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// "as if the machine had gone on"
#[test]
fn buffer_that_survived_the_machine() {
    let held = ["b", "c"];
    let boot = Posix.boot_id() ^ 1;
    // Nothing was being flushed.
    let made = Made::new(0).segment(0, record("a")).buffer(&records(&held)).guard(Guard {
        boot,
        fingerprint: fingerprint(&held),
        ..Guard::default()
    });
    buffer_is_flushed(&made, &[recovered(&held)], &[(0, 1, "a")], &held, (0, 1));
    assert_eq!(made.broken(), [""; 0]);
    // The counter points between two records: the fingerprint shows where they end.
    let made = Made::new(0).segment(0, record("a")).buffer(&records(&held)[..33]).guard(Guard {
        boot,
        fingerprint: fingerprint(&["b"]),
        ..Guard::default()
    });
    buffer_is_flushed(&made, &[recovered(&["b"])], &[(0, 1, "a")], &["b"], (0, 1));
    assert_eq!(made.broken(), [""; 0]);
    // One record of the flush had reached the segment.
    let made = Made::new(0)
        .segment(0, records(&["a", "b"]))
        .buffer(&records(&held))
        .guard(Guard { boot, ..Guard::flushing(&held, 0, 17, 1) });
    let events = [Event::BufferAlreadyFlushed { records: 1 }, recovered(&["c"])];
    buffer_is_flushed(&made, &events, &[(0, 1, "a"), (0, 2, "b")], &["c"], (0, 2));
    assert_eq!(made.broken(), [""; 0]);
}

/// "it is kept in a file: some of its pages may be older than others"
#[test]
fn buffer_that_did_not_survive_the_machine() {
    let held = ["b", "c"];
    let boot = Posix.boot_id() ^ 1;
    let mut torn = records(&held);
    torn.pop();
    let guard = Guard { boot, ..Guard::default() };
    let states = [
        ("other records than were put in it", records(&held), fingerprint(&["b", "d"])),
        ("no fingerprint was kept", records(&held), 0),
        ("one of more records", records(&held), fingerprint(&["b", "c", "d"])),
        ("one of fewer records", records(&held), fingerprint(&["b"])),
        ("the last one is not whole", torn, fingerprint(&held)),
        ("nothing that it was", vec![0; 100], fingerprint(&held)),
    ];
    for (what, bytes, fingerprint) in states {
        let made = Made::new(0).segment(0, record("a")).buffer(&bytes).guard(Guard { fingerprint, ..guard });
        let kept = made.path.join("pre_commit.broken-0");
        let events = [Event::BufferSetAside { len: bytes.len() as u64, kept }];
        buffer_is_flushed(&made, &events, &[(0, 1, "a")], &[], (0, 1));
        assert_eq!(made.read("pre_commit.broken-0"), bytes, "{what}");
        assert_eq!(made.broken(), ["pre_commit.broken-0"], "{what}");
    }
}

/// "its records are taken as that library takes them"
#[test]
fn buffer_used_by_the_c_library() {
    let held = ["x", "y"];
    let bytes = records(&held);
    // Our writer's guard describes records that no longer exist.
    let old = ["b", "c"];
    let states = [
        ("it flushed as many bytes", Guard::flushing(&old, 0, 0, 1)),
        ("and said that they were written", Guard::flushing(&old, 0, 0, 2)),
        (
            "a part of it was in a segment",
            Guard { done: 17, done_fingerprint: fingerprint(&["b"]), ..Guard::default() },
        ),
        (
            "it was closed before the machine stopped",
            Guard { open: 0, boot: Posix.boot_id() ^ 1, ..Guard::default() },
        ),
    ];
    for (what, guard) in states {
        let made = Made::new(0).segment(0, records(&old)).buffer(&bytes).guard(guard);
        buffer_is_flushed(&made, &[recovered(&held)], &[(0, 1, "b"), (0, 2, "c")], &held, (0, 2));
        assert_eq!(made.broken(), [""; 0], "{what}");
    }
    // The buffer was flushed and filled again while our writer had it open.
    let made = Made::new(0).segment(0, record("a")).buffer(&[]);
    let log = made.open();
    let writer = log.writer().unwrap();
    writer.append_at(Timestamp { seconds: TIME, micros: 5 }, "b").unwrap();
    let segment = std::fs::OpenOptions::new().append(true).open(made.path.join("00000000")).unwrap();
    std::io::Write::write_all(&mut &segment, &record("b")).unwrap();
    let buffer = std::fs::OpenOptions::new().write(true).open(made.path.join("pre_commit")).unwrap();
    buffer.write_all_at(&bytes, 4).unwrap();
    buffer.write_all_at(&u32::try_from(bytes.len()).unwrap().to_le_bytes(), 0).unwrap();
    log.take_events();
    writer.append("d").unwrap();
    writer.close().unwrap();
    let there = [(0, 1, "a"), (0, 2, "b"), (0, 3, "x"), (0, 4, "y"), (0, 5, "d")];
    expect(&log, &there);
    assert_eq!(made.broken(), [""; 0]);
    works_on(&log, &there, (0, 6));
}

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
