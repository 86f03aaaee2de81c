//! Damage that real disks cause: pages that were never written, pages of another segment, pages in
//! the wrong place, garbage after the end; several at once, with and without checksums, plain and
//! compressed, in a copied directory (whose inodes differ from those that the checksums name).
//!
//! `JLOG_PAGE_CASES` sets how many cases are tried (a few hundred by default; CI tries thousands),
//! and `JLOG_PAGE_SEED` where they begin. A failure names its case.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use jlog_core::format::PLAIN_MAGIC;
use jlog_core::storage::sim::Dice;
use jlog_core::{Compression, Event, Jlog, LogId, OnDamage, ReadMethod, ReaderOptions, Start, Wait, names};

const PAGE: usize = 4096;
const SEGMENTS: u32 = 20;
/// How long one case may take. It takes milliseconds; a loaded machine may stop it for a while.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// How much time of a processor one case may take.
const WORK_LIMIT: Duration = Duration::from_secs(5);
/// More calls than any reader here needs.
const CALLS: usize = 20_000;

/// A record as it was written.
struct Written {
    id: LogId,
    from: usize,
    to: usize,
    body: Vec<u8>,
}

/// A feed of complete segments.
struct Feed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    checksums: bool,
    segments: BTreeMap<u32, Vec<u8>>,
    written: Vec<Written>,
}

impl Feed {
    fn new(compression: Compression, checksums: bool, dice: &mut Dice) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed");
        let options = Jlog::options().segment_size(16_384).compression(compression).checksums(checksums);
        let log = options.create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        // Records with any alignment, records that fill pages exactly, and records larger than a
        // page.
        let kind = dice.roll(4);
        let mut n = 0;
        while log.end().unwrap().segment < SEGMENTS {
            let writer = log.writer().unwrap();
            for _ in 0..1 + dice.roll(400) {
                let len = match kind {
                    0 => 48,
                    1 => 20 + dice.roll(200),
                    2 if dice.roll(20) == 0 => 5000,
                    _ => 100,
                };
                let mut body = format!("message {n:06} ").into_bytes();
                while body.len() < usize::try_from(len).unwrap() {
                    body.push(b'a' + u8::try_from(dice.roll(26)).unwrap());
                }
                writer.append(&body).unwrap();
                n += 1;
            }
            writer.close().unwrap();
        }
        let writer = log.writer().unwrap();
        writer.roll().unwrap();
        writer.close().unwrap();
        let mut segments = BTreeMap::new();
        let mut places = Vec::new();
        let last = log.end().unwrap().segment;
        for number in log.segments().unwrap() {
            segments.insert(number, fs::read(path.join(names::segment(number))).unwrap());
            let header = if compression == Compression::Lz4 { 20 } else { 16 };
            log.inspect(number, |record| {
                let from = usize::try_from(record.offset).unwrap();
                places.push((record.id, from, from + header + record.stored as usize));
            })
            .unwrap();
        }
        segments.retain(|&number, bytes| number < last && !bytes.is_empty());
        let mut written = Vec::new();
        let mut reader = log.reader("a").unwrap();
        let mut place = places.into_iter();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            for message in &batch {
                let (id, from, to) = place.next().unwrap();
                assert_eq!(id, message.id());
                written.push(Written { id, from, to, body: message.body().to_vec() });
            }
        }
        assert!(place.next().is_none());
        Self { _dir: dir, path, checksums, segments, written }
    }

    /// Copies the feed with some segments changed. All files get new inodes.
    fn copy(&self, to: &Path, changed: &BTreeMap<u32, Vec<u8>>) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(&self.path).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        for (&number, bytes) in changed {
            fs::write(to.join(names::segment(number)), bytes).unwrap();
        }
    }
}

/// Damages one segment. Returns a description of the damage.
fn damage(feed: &Feed, number: u32, bytes: &mut Vec<u8>, dice: &mut Dice) -> String {
    let pages = bytes.len().div_ceil(PAGE);
    let page = |dice: &mut Dice| usize::try_from(dice.roll(pages as u64)).unwrap();
    let at = page(dice);
    let range = |page: usize, len: usize| page * PAGE..((page + 1) * PAGE).min(len);
    match dice.roll(7) {
        0 => {
            let range = range(at, bytes.len());
            bytes[range].fill(0);
            format!("{number:08x}: page {at} zeroed")
        }
        1 => {
            bytes[at * PAGE..].fill(0);
            format!("{number:08x}: zeroed from page {at} on")
        }
        2 => {
            let numbers: Vec<u32> = feed.segments.keys().copied().filter(|&other| other != number).collect();
            let other = numbers[usize::try_from(dice.roll(numbers.len() as u64)).unwrap()];
            let stale = &feed.segments[&other];
            let range = range(at, bytes.len().min(stale.len()));
            if !range.is_empty() {
                bytes[range.clone()].copy_from_slice(&stale[range]);
            }
            format!("{number:08x}: page {at} is that of {other:08x}")
        }
        3 => {
            let from = page(dice);
            let len = range(from, bytes.len()).len().min(range(at, bytes.len()).len());
            bytes.copy_within(from * PAGE..from * PAGE + len, at * PAGE);
            format!("{number:08x}: page {from} copied over page {at}")
        }
        4 => {
            let other = page(dice);
            let len = range(other, bytes.len()).len().min(range(at, bytes.len()).len());
            for n in 0..len {
                bytes.swap(at * PAGE + n, other * PAGE + n);
            }
            format!("{number:08x}: pages {at} and {other} swapped")
        }
        5 => {
            let len = 1 + dice.roll(2 * PAGE as u64);
            for _ in 0..len {
                bytes.push(u8::try_from(dice.roll(256)).unwrap());
            }
            format!("{number:08x}: {len} bytes of garbage behind the end")
        }
        _ => {
            let range = range(at, bytes.len());
            for byte in &mut bytes[range] {
                *byte = u8::try_from(dice.roll(256)).unwrap();
            }
            format!("{number:08x}: page {at} is garbage")
        }
    }
}

/// The messages that a reader that skips damage gets, and whether it met any damage. No segment
/// became shorter, so only damaged messages are lost.
fn read(path: &Path, method: ReadMethod, what: &str) -> (Vec<(LogId, Vec<u8>)>, bool) {
    let log = Jlog::open(path).unwrap();
    let options = ReaderOptions::default().on_damage(OnDamage::Skip).read_method(method);
    let mut reader = log.reader_with("a", options).unwrap();
    let mut got = Vec::new();
    for _ in 0..CALLS {
        let Some(batch) = reader.next_batch(Wait::No).unwrap_or_else(|e| panic!("{what}: {e}")) else {
            assert_eq!(reader.lost(), None, "{what}");
            return (got, reader.skipped() > 0);
        };
        got.extend(batch.iter().map(|message| (message.id(), message.body().to_vec())));
    }
    panic!("{what}: the reader does not come to an end");
}

/// Whether a header in the changed bytes of a segment claims this record as part of its body.
fn claimed(bytes: &[u8], was: &[u8], record: &Written) -> bool {
    let (magic, header) = (was[..4].to_vec(), if was[..4] == PLAIN_MAGIC.to_le_bytes() { 16 } else { 20 });
    (0..record.from).any(|at| {
        let head = &bytes[at..at + header];
        let changed = was.get(at..at + header) != Some(head);
        let len = u32::from_le_bytes(*head.last_chunk().unwrap()) as usize;
        changed && head[..4] == magic && at + header + len > record.from
    })
}

fn case(feed: &Feed, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut changed = BTreeMap::new();
    let mut what = format!("seed {seed}, checksums {}", feed.checksums);
    for _ in 0..1 + dice.roll(4) {
        let numbers: Vec<u32> = feed.segments.keys().copied().collect();
        let number = numbers[usize::try_from(dice.roll(numbers.len() as u64)).unwrap()];
        let bytes = changed.entry(number).or_insert_with(|| feed.segments[&number].clone());
        what += "; ";
        what += &damage(feed, number, bytes, &mut dice);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    feed.copy(&path, &changed);
    let touched = |record: &Written| {
        changed.get(&record.id.segment).is_some_and(|bytes| {
            bytes[record.from..record.to] != feed.segments[&record.id.segment][record.from..record.to]
        })
    };
    let method = if dice.roll(2) == 0 { ReadMethod::Pread } else { ReadMethod::Mmap };
    // Verify first: a reader passes a segment of which nothing is left, and then nobody needs it.
    let verified = Jlog::open(&path).unwrap().verify().unwrap();
    let (got, skipped) = read(&path, method, &what);
    for pair in got.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{what}: {} comes before {}", pair[0].0, pair[1].0);
    }
    assert_eq!(verified.is_damaged(), skipped, "{what}: {:?}", verified.findings);
    let cut = verified
        .findings
        .iter()
        .find(|finding| finding.what.contains("cut") || finding.what.contains("lost"));
    assert!(cut.is_none(), "{what}: {cut:?}");
    assert_eq!(verified.records, got.len() as u64, "{what}: {:?}", verified.findings);
    let whole: Vec<&Written> = feed.written.iter().filter(|record| !touched(record)).collect();
    if feed.checksums {
        // Readers get only messages that were written, each under its id.
        let expected: BTreeMap<LogId, &[u8]> =
            whole.iter().map(|record| (record.id, &record.body[..])).collect();
        for (id, body) in &got {
            assert_eq!(expected.get(id).copied(), Some(&body[..]), "{what}: {id} was not written like that");
        }
        assert_eq!(got.len(), whole.len(), "{what}");
    } else {
        // A header in a damaged page may claim the following bytes as its body, and nothing shows
        // that they are not.
        let claimed = |record: &Written| {
            let number = record.id.segment;
            changed.get(&number).is_some_and(|bytes| claimed(bytes, &feed.segments[&number], record))
        };
        let bodies: BTreeSet<&[u8]> = got.iter().map(|(_, body)| &body[..]).collect();
        let lost: Vec<LogId> = whole
            .iter()
            .filter(|record| !bodies.contains(&record.body[..]) && !claimed(record))
            .map(|record| record.id)
            .collect();
        assert!(lost.is_empty(), "{what}: {lost:?} are lost");
    }
    let done = Jlog::repair(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
    let lost = |event: &Event| matches!(event, Event::SegmentsLost { .. } | Event::SegmentCut { .. });
    assert!(!done.iter().any(lost), "{what}: {done:?}");
    let (repaired, skipped) = read(&path, method, &what);
    assert!(!skipped, "{what}: damaged after a repair");
    let bodies =
        |got: &[(LogId, Vec<u8>)]| -> Vec<Vec<u8>> { got.iter().map(|(_, body)| body.clone()).collect() };
    assert_eq!(bodies(&repaired), bodies(&got), "{what}: repaired");
    let verified = Jlog::open(&path).unwrap().verify().unwrap();
    assert!(!verified.is_damaged(), "{what}: {:?}", verified.findings);
}

/// How much time of a processor this thread has used: unlike that of a clock, it does not depend on
/// what else the machine does.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn cases(compression: Compression, checksums: bool) {
    let setting = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
    };
    let (count, first) = (setting("JLOG_PAGE_CASES", 400) / 4, setting("JLOG_PAGE_SEED", 1));
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let mut feed = Feed::new(compression, checksums, &mut Dice::new(first));
        for seed in first..first + count {
            if seed % 50 == 0 {
                feed = Feed::new(compression, checksums, &mut Dice::new(seed));
            }
            let before = used();
            case(&feed, seed);
            let took = used() - before;
            assert!(took < WORK_LIMIT, "seed {seed} took {took:?} of a processor");
            sender.send(seed).unwrap();
        }
    });
    let mut done = first.saturating_sub(1);
    loop {
        match receiver.recv_timeout(CASE_LIMIT) {
            Ok(seed) => done = seed,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("{compression:?}, checksums {checksums}: the case behind seed {done} hangs")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(done, first + count - 1);
}

#[test]
fn plain_with_checksums() {
    cases(Compression::None, true);
}

#[test]
fn compressed_with_checksums() {
    cases(Compression::Lz4, true);
}

#[test]
fn plain_without_checksums() {
    cases(Compression::None, false);
}

#[test]
fn compressed_without_checksums() {
    cases(Compression::Lz4, false);
}
