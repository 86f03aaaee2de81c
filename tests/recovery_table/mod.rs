//! One test for each row of the table in `recovery.rs`: every state is made by hand, byte for byte
//! according to FORMAT.md, and the result is checked in full.

mod buffers;
mod readers;
mod segments;
mod sidecars;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{Event, Jlog, LogId, Reader, ReaderOptions};
use tempfile::TempDir;
use testkit::checker::Checker;
use testkit::crc32;
use testkit::feeds::{consume, new_path, read_on, snapshot, unsynced};

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
    let rows: Vec<String> = include_str!("../../jlog-core/src/upkeep/recovery.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .map(|row| row.split('|').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
        .skip_while(|state| state != "---")
        .skip(1)
        .collect();
    assert_eq!(rows, ROWS.map(|(row, _)| row));
    let tests = concat!(
        include_str!("segments.rs"),
        include_str!("sidecars.rs"),
        include_str!("buffers.rs"),
        include_str!("readers.rs"),
    );
    let mut names = BTreeSet::new();
    for (row, name) in ROWS {
        assert!(tests.contains(&format!("\n#[test]\nfn {name}() {{\n")), "{row}: no test {name}");
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
