//! A checksum is bound to the place of its record: the bytes there must be those that were written
//! there, and runs of checksums for other records accuse no record.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use jlog_core::format::RecordFormat;
use jlog_core::storage::sim::Dice;
use jlog_core::{
    Compression, Jlog, LogId, OnDamage, ReaderOptions, RecordInfo, Start, Timestamp, Wait, WriterOptions,
    names,
};

use testkit::feeds::{copy_dir, golden_dir, new_path};

fn segment(path: &Path) -> std::path::PathBuf {
    path.join(names::segment(0))
}

/// The records of segment 0.
fn records(path: &Path) -> Vec<RecordInfo> {
    let mut records = Vec::new();
    Jlog::open(path).unwrap().inspect(0, |record| records.push(record)).unwrap();
    records
}

/// Appends a message as a writer without checksums does.
fn append_without_checksums(path: &Path, body: &[u8]) {
    append_without_checksums_at(path, Timestamp::now(), body);
}

fn append_without_checksums_at(path: &Path, time: Timestamp, body: &[u8]) {
    append_to(&segment(path), time, body);
}

fn append_to(segment: &Path, time: Timestamp, body: &[u8]) {
    let format = RecordFormat::new(Compression::None);
    let mut bytes = vec![0; 16];
    let len = u32::try_from(body.len()).unwrap();
    let header = jlog_core::format::RecordHeader { time, len, stored: len };
    format.encode(&header, &mut bytes);
    bytes.extend_from_slice(body);
    std::fs::OpenOptions::new().create(true).append(true).open(segment).unwrap().write_all(&bytes).unwrap();
}

/// The messages that a reader that skips damage gets, with ids, and how many bytes it skips. Fails
/// if that takes long.
fn read(path: &Path, subscriber: &'static str) -> (Vec<(LogId, Vec<u8>)>, u64) {
    let path = path.to_owned();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let options = ReaderOptions::default().on_damage(OnDamage::Skip);
        let log = Jlog::open(path).unwrap();
        let mut reader = log.reader_with(subscriber, options).unwrap();
        let mut got = Vec::new();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            got.extend(batch.iter().map(|message| (message.id(), message.body().to_vec())));
        }
        let skipped = reader.skipped();
        // The caller may then read as the same subscriber.
        drop(reader);
        sender.send((got, skipped)).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(30)).expect("the reader comes to an end")
}

fn bodies(path: &Path) -> Vec<Vec<u8>> {
    read(path, "a").0.into_iter().map(|(_, body)| body).collect()
}

fn feed(messages: &[&[u8]], per_run: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    for run in messages.chunks(per_run) {
        let writer = log.writer().unwrap();
        writer.append_batch(run).unwrap();
        writer.close().unwrap();
    }
    (dir, path)
}

/// After a power failure, ext4 and XFS can leave a tail that was never written. The record that
/// reaches into it is not delivered, not counted as intact, and not kept.
#[test]
fn a_body_that_was_never_written_is_damage() {
    let messages: Vec<Vec<u8>> =
        (0..60).map(|n| format!("message {n:03} {}", "x".repeat(120)).into_bytes()).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    for per_run in [1, 7, 60] {
        let (_dir, path) = feed(&messages, per_run);
        let whole = records(&path)
            .iter()
            .filter(|record| record.offset + 16 + u64::from(record.stored) <= 4096)
            .count();
        assert!((20..40).contains(&whole));
        let len = std::fs::metadata(segment(&path)).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(segment(&path)).unwrap();
        file.write_all_at(&vec![0; usize::try_from(len - 4096).unwrap()], 4096).unwrap();
        // A repair is refused while a process has the segment open for writing.
        drop(file);
        assert_eq!(bodies(&path), &messages[..whole], "{per_run} records a run");
        let verified = Jlog::open(&path).unwrap().verify().unwrap();
        assert!(verified.is_damaged());
        assert_eq!((verified.records, verified.verified), (whole as u64, whole as u64));
        Jlog::repair(&path).unwrap();
        assert_eq!(bodies(&path), &messages[..whole]);
        assert!(!Jlog::open(&path).unwrap().verify().unwrap().is_damaged());
    }
}

/// One flipped digit makes a message identical to another one.
#[test]
fn a_record_that_looks_like_another_one_is_found() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let messages: Vec<String> = (1..=5000).map(|n| n.to_string()).collect();
    let time = Timestamp::now();
    for message in &messages {
        writer.append_at(time, message).unwrap();
    }
    writer.close().unwrap();
    let record = records(&path)[2499];
    let file = std::fs::OpenOptions::new().write(true).open(segment(&path)).unwrap();
    file.write_all_at(b"3", record.offset + 16).unwrap();
    let verified = log.verify().unwrap();
    let findings: Vec<_> = verified.findings.iter().filter_map(|finding| finding.id).collect();
    assert_eq!(findings, [record.id]);
    assert_eq!((verified.records, verified.verified), (4999, 4999));
    let got = bodies(&path);
    assert_eq!(got.len(), 4999);
    assert!(
        got.iter().zip(messages.iter().filter(|message| *message != "2500")).all(|(a, b)| a == b.as_bytes())
    );
}

/// In feeds of identical and nearly identical messages, every change that a reader would see is
/// found: records that were swapped, copied over others or taken from another feed, and changed
/// bytes.
#[test]
fn every_visible_change_is_found() {
    for seed in 1..400 {
        let mut dice = Dice::new(seed);
        let count = 2 + usize::try_from(dice.roll(30)).unwrap();
        let time = Timestamp::now();
        let messages: Vec<Vec<u8>> = (0..count).map(|_| format!("m{}", dice.roll(4)).into_bytes()).collect();
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        let mut writer = log.writer().unwrap();
        for message in &messages {
            let micros = u32::try_from(dice.roll(3)).unwrap();
            writer.append_at(Timestamp { micros, ..time }, message).unwrap();
            if dice.roll(4) == 0 {
                writer.close().unwrap();
                writer = log.writer().unwrap();
            }
        }
        writer.close().unwrap();
        let was = std::fs::read(segment(&path)).unwrap();
        let mut bytes = was.clone();
        let place = |dice: &mut Dice| 18 * usize::try_from(dice.roll(count as u64)).unwrap();
        let (a, b) = (place(&mut dice), place(&mut dice));
        match dice.roll(4) {
            0 => (0..18).for_each(|n| bytes.swap(a + n, b + n)),
            1 => bytes.copy_within(a..a + 18, b),
            2 => bytes[a + 17] ^= 1 << dice.roll(8),
            _ => bytes[a + 4] ^= 1 << dice.roll(8),
        }
        std::fs::write(segment(&path), &bytes).unwrap();
        let changed: Vec<u32> = (0..count)
            .filter(|n| bytes[18 * n..][..18] != was[18 * n..][..18])
            .map(|n| u32::try_from(n).unwrap() + 1)
            .collect();
        let verified = log.verify().unwrap();
        let found: Vec<u32> =
            verified.findings.iter().filter(|f| f.damage).filter_map(|f| f.id).map(|id| id.marker).collect();
        // Damaged records next to each other are one finding.
        assert_eq!(found.is_empty(), changed.is_empty(), "seed {seed}");
        assert!(
            found.iter().all(|marker| changed.contains(marker)),
            "seed {seed}: {found:?}, changed {changed:?}"
        );
        assert_eq!(verified.records, (count - changed.len()) as u64, "seed {seed}");
        let markers: Vec<u32> = read(&path, "a").0.iter().map(|(id, _)| id.marker).collect();
        let rest: Vec<u32> = (1..=u32::try_from(count).unwrap()).filter(|n| !changed.contains(n)).collect();
        assert_eq!(markers, rest, "seed {seed}");
    }
}

/// The tail of a segment is lost but its checksums are not, and a writer without checksums appends.
/// Its records are read, are not accused, and survive a repair, whether they are as long as the
/// lost ones or not.
#[test]
fn records_appended_to_a_cut_segment_are_not_accused() {
    let messages: Vec<String> = (0..30).map(|n| format!("message {n:04}")).collect();
    let messages: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    for per_run in [1, 4, 30] {
        for (keep, torn) in [(14, 0), (14, 5), (29, 0), (0, 0), (20, 20)] {
            for body in [
                &b"appended 000"[..],
                b"appended, and longer than the ones before by a good deal: 012345678901",
            ] {
                let (_dir, path) = feed(&messages, per_run);
                let cut = records(&path)[keep].offset + torn;
                std::fs::OpenOptions::new().write(true).open(segment(&path)).unwrap().set_len(cut).unwrap();
                for _ in 0..3 {
                    append_without_checksums(&path, body);
                }
                let mut expected = messages[..keep].to_vec();
                expected.extend([body; 3]);
                let what = format!("{per_run} a run, {keep} kept and {torn} bytes, appended {}", body.len());
                assert_eq!(bodies(&path), expected, "{what}");
                let verified = Jlog::open(&path).unwrap().verify().unwrap();
                assert_eq!(verified.is_damaged(), torn > 0, "{what}: {:?}", verified.findings);
                assert_eq!(verified.records, expected.len() as u64, "{what}");
                Jlog::repair(&path).unwrap();
                assert_eq!(bodies(&path), expected, "{what}, repaired");
            }
        }
    }
}

/// The same if the time of the appended record differs from that of the lost one in a single byte,
/// as if that byte were damaged: the rest of the record shows that it is another one.
#[test]
fn an_appended_record_whose_time_differs_by_a_byte_is_not_accused() {
    for byte in 0..3 {
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        // A time in the near future with zero low bits: a run is as old as its latest record.
        let now = Timestamp::now();
        let next = (now.micros >> 17) + 1;
        let (seconds, micros) = if next > 7 { (now.seconds + 1, 0) } else { (now.seconds, next << 17) };
        let writer = log.writer().unwrap();
        writer.append_at(Timestamp { seconds, micros }, "message 0000").unwrap();
        writer.close().unwrap();
        std::fs::OpenOptions::new().write(true).open(segment(&path)).unwrap().set_len(0).unwrap();
        let later = Timestamp { seconds, micros: micros | 1 << (8 * byte) };
        while Timestamp::now() < later {
            std::thread::sleep(Duration::from_millis(5));
        }
        append_without_checksums_at(&path, later, b"appended 000");
        assert_eq!(bodies(&path), [b"appended 000"], "byte {byte}");
        assert!(!Jlog::open(&path).unwrap().verify().unwrap().is_damaged(), "byte {byte}");
    }
}

/// After a repair that takes records out and moves the rest up without updating the checksums, no
/// record is accused: moved records are recognised by their neighbours.
#[test]
fn moved_records_are_not_accused() {
    let messages: Vec<String> = (0..40).map(|n| format!("message {n:04}")).collect();
    let messages: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    for per_run in [1, 7, 40] {
        for gone in [0..1, 5..6, 5..9, 37..39] {
            for appended in [0, 2] {
                let (_dir, path) = feed(&messages, per_run);
                let mut bytes = std::fs::read(segment(&path)).unwrap();
                bytes.drain(28 * gone.start..28 * gone.end);
                std::fs::write(segment(&path), bytes).unwrap();
                for _ in 0..appended {
                    append_without_checksums(&path, b"later");
                }
                let mut expected = messages.clone();
                expected.drain(gone.clone());
                expected.extend(vec![&b"later"[..]; appended]);
                let what = format!("{per_run} a run, {gone:?} taken out, {appended} appended");
                assert_eq!(bodies(&path), expected, "{what}");
                let verified = Jlog::open(&path).unwrap().verify().unwrap();
                assert!(!verified.is_damaged(), "{what}: {:?}", verified.findings);
                let markers: Vec<u32> = read(&path, "a").0.iter().map(|(id, _)| id.marker).collect();
                assert!(markers.iter().copied().eq(1..=u32::try_from(expected.len()).unwrap()), "{what}");
            }
        }
    }
}

/// The same in a segment to which writers with and without checksums appended in turn: uncovered
/// records move to where the runs list others, and listed records move to where there is no run.
/// The records that are taken out were not covered, as if a killed C writer had torn them.
#[test]
fn moved_records_among_uncovered_ones_are_not_accused() {
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        let mut messages: Vec<(Vec<u8>, bool)> = Vec::new();
        for turn in 0..10 + dice.roll(20) {
            let covered = dice.roll(2) == 0;
            let most = if dice.roll(4) == 0 { 20 } else { 2 };
            let n = 1 + dice.roll(most);
            let body = |n: u64, length: u64| {
                format!("{turn} {n} {}", "x".repeat(usize::try_from(length).unwrap())).into_bytes()
            };
            // Batches of equally long messages have equal headers.
            let width = dice.roll(2) * 40;
            let batch: Vec<Vec<u8>> = (0..n).map(|n| body(n, dice.roll(width + 1))).collect();
            if covered {
                let writer = log.writer().unwrap();
                writer.append_batch(&batch).unwrap();
                writer.close().unwrap();
            } else {
                batch.iter().for_each(|body| append_without_checksums(&path, body));
            }
            messages.extend(batch.into_iter().map(|body| (body, covered)));
        }
        let places = records(&path);
        let mut bytes = std::fs::read(segment(&path)).unwrap();
        let mut gone: Vec<usize> = Vec::new();
        let uncovered: Vec<usize> = (0..messages.len()).filter(|&n| !messages[n].1).collect();
        for _ in 0..=dice.roll(3) {
            gone.extend(uncovered.get(usize::try_from(dice.roll(uncovered.len() as u64)).unwrap()));
        }
        gone.sort_unstable();
        gone.dedup();
        for &n in gone.iter().rev() {
            let at = usize::try_from(places[n].offset).unwrap();
            bytes.drain(at..at + 16 + places[n].stored as usize);
            messages.remove(n);
        }
        std::fs::write(segment(&path), bytes).unwrap();
        let mut expected: Vec<Vec<u8>> = messages.into_iter().map(|(body, _)| body).collect();
        let what = format!("seed {seed}, {gone:?} taken out");
        // The next segment may begin with messages whose time is from this one, because they had to
        // wait.
        if dice.roll(2) == 0 {
            log.writer().unwrap().roll().unwrap();
            let waited = usize::try_from(dice.roll(places.len() as u64)).unwrap();
            append_to(&path.join(names::segment(1)), places[waited].time, b"waited");
            expected.push(b"waited".to_vec());
            let writer = log.writer().unwrap();
            writer.append(b"did not").unwrap();
            writer.close().unwrap();
            expected.push(b"did not".to_vec());
        }
        let verified = Jlog::open(&path).unwrap().verify().unwrap();
        assert!(!verified.is_damaged(), "{what}: {:?}", verified.findings);
        assert_eq!(bodies(&path), expected, "{what}");
        assert_eq!(verified.records, expected.len() as u64, "{what}");
    }
}

/// By how much the first record of the next segment is older than some records of this one, because
/// it was made before them and then waited for the lock.
const OLDER: Duration = Duration::from_millis(300);

fn from_micros(micros: u64) -> Timestamp {
    let part = |n: u64| u32::try_from(n).unwrap();
    Timestamp { seconds: part(micros / 1_000_000), micros: part(micros % 1_000_000) }
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    from_micros(time.as_micros() - u64::try_from(by.as_micros()).unwrap())
}

/// Appends a message with checksums.
fn append_at(log: &Jlog, time: Timestamp, body: &[u8]) {
    let writer = log.writer().unwrap();
    writer.append_at(time, body).unwrap();
    writer.close().unwrap();
}

/// Records without checksums that a repair without checksums moved are not accused, although the
/// next segment begins with an older record, because a batch that waited for the lock reaches into
/// it.
#[test]
fn moved_records_younger_than_the_next_segment_are_not_accused() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let (_dir, path) = new_path();
        let log = Jlog::options().segment_size(4000).create(&path).unwrap();
        log.subscribe("a", Start::Beginning).unwrap();
        let start = before(Timestamp::now(), 2 * OLDER).as_micros();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut places: Vec<(usize, usize)> = Vec::new();
        // All records are younger than the batch.
        let (first, turns) = (dice.roll(2) == 0, 6 + dice.roll(20));
        for turn in 0..turns {
            let time = from_micros(start + 1000 + 10 * turn);
            let width = usize::try_from(dice.roll(40)).unwrap();
            let body = format!("{turn:02} {}", "x".repeat(width)).into_bytes();
            // Listed records come first, last, or nowhere.
            let listed = dice.roll(3) == 0 || first && turn == 0;
            let at = std::fs::metadata(segment(&path)).map_or(0, |facts| facts.len());
            if listed {
                append_at(&log, time, &body);
            } else {
                append_without_checksums_at(&path, time, &body);
                places.push((expected.len(), usize::try_from(at).unwrap()));
            }
            expected.push(body);
        }
        let batch: Vec<Vec<u8>> = (0..200).map(|n| format!("batch {n:04} {seed}").into_bytes()).collect();
        let writer = log.writer().unwrap();
        writer.append_batch_at(from_micros(start), &batch).unwrap();
        writer.close().unwrap();
        assert!(log.end().unwrap().segment > 0);
        expected.extend(batch);
        let what = format!("seed {seed}");
        if !places.is_empty() {
            // A record that a killed writer tore is taken out.
            let (n, at) = places[usize::try_from(dice.roll(places.len() as u64)).unwrap()];
            let mut bytes = std::fs::read(segment(&path)).unwrap();
            bytes.drain(at..at + 16 + expected[n].len());
            std::fs::write(segment(&path), bytes).unwrap();
            expected.remove(n);
        }
        let verified = Jlog::open(&path).unwrap().verify().unwrap();
        assert!(!verified.is_damaged(), "{what}: {:?}", verified.findings);
        assert_eq!(verified.records, expected.len() as u64, "{what}");
        assert_eq!(bodies(&path), expected, "{what}");
    }
}

/// A segment whose tail was lost, and the next one, which begins with an older record, followed by
/// one that is younger than everything before it.
fn cut_before_an_older_segment() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    append_at(&log, before(Timestamp::now(), 2 * OLDER), b"kept 00");
    append_at(&log, before(Timestamp::now(), 2 * OLDER), b"lost 00");
    std::thread::sleep(Duration::from_millis(5));
    let writer = log.writer().unwrap();
    writer.roll().unwrap();
    writer.append_at(before(Timestamp::now(), OLDER), "older 0").unwrap();
    writer.append("young 0").unwrap();
    writer.close().unwrap();
    std::fs::OpenOptions::new().write(true).open(segment(&path)).unwrap().set_len(16 + 7).unwrap();
    let next = std::fs::read(path.join(names::segment(1))).unwrap();
    (dir, path, next[23..46].to_vec())
}

/// The same for records that were appended after the tail of a segment was lost.
#[test]
fn appended_records_younger_than_the_next_segment_are_not_accused() {
    let (_dir, path, young) = cut_before_an_older_segment();
    // A time between the run of this segment and the young record of the next one.
    let (seconds, micros) = (&young[4..8], &young[8..12]);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let time = Timestamp { seconds: number(seconds), micros: number(micros) };
    append_without_checksums_at(&path, before(time, Duration::from_micros(1)), b"later 0");
    let verified = Jlog::open(&path).unwrap().verify().unwrap();
    assert!(!verified.is_damaged(), "{:?}", verified.findings);
    let expected: [&[u8]; 4] = [b"kept 00", b"later 0", b"older 0", b"young 0"];
    assert_eq!(bodies(&path), expected);
}

/// Copies of the next segment's records are accused, whatever that segment begins with, even if the
/// originals were overwritten and only the checksums list them.
#[test]
fn copies_of_young_records_of_the_next_segment_are_found() {
    for gone in [false, true] {
        let (_dir, path, young) = cut_before_an_older_segment();
        let mut bytes = std::fs::read(segment(&path)).unwrap();
        bytes.extend_from_slice(&young);
        std::fs::write(segment(&path), bytes).unwrap();
        if gone {
            let next = path.join(names::segment(1));
            let mut bytes = std::fs::read(&next).unwrap();
            bytes[23..46].fill(0);
            std::fs::write(next, bytes).unwrap();
        }
        let verified = Jlog::open(&path).unwrap().verify().unwrap();
        let damaged: Vec<_> = verified.findings.iter().filter(|finding| finding.damage).collect();
        assert!(
            damaged.iter().any(|finding| finding.path == segment(&path) && finding.offset == Some(23)),
            "{gone}: {:?}",
            verified.findings
        );
        let mut expected: Vec<&[u8]> = vec![b"kept 00", b"older 0"];
        expected.extend((!gone).then_some(&b"young 0"[..]));
        assert_eq!(bodies(&path), expected);
    }
}

/// A segment with checksums of the first layout has a page of another segment: reading ends.
#[test]
fn a_stale_page_does_not_keep_a_reader_for_ever() {
    let Some(case) = golden_dir().map(|dir| dir.join("../cases/skip-damage-hangs/jlog")) else { return };
    if !case.is_dir() {
        eprintln!("skipped: no directory {}", case.display());
        return;
    }
    let (_dir, path) = new_path();
    copy_dir(&case, &path);
    let (got, skipped) = read(&path, "a");
    assert!(skipped > 0 && !got.is_empty());
    assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let verified = Jlog::open(&path).unwrap().verify().unwrap();
    assert!(verified.is_damaged());
    assert!(verified.records >= got.len() as u64);
    Jlog::repair(&path).unwrap();
    let (repaired, skipped) = read(&path, "a");
    assert_eq!(skipped, 0);
    assert!(got.iter().map(|(_, body)| body).eq(repaired.iter().map(|(_, body)| body)));
}

/// An unreadable sidecar is an error, and does not count as a missing one.
#[test]
fn an_unreadable_sidecar_is_an_error() {
    let (_dir, path) = feed(&[b"one", b"two"], 2);
    std::fs::remove_file(path.join(names::checksums(0))).unwrap();
    std::fs::create_dir(path.join(names::checksums(0))).unwrap();
    let log = Jlog::open(&path).unwrap();
    assert!(log.verify().is_err());
    assert!(log.reader("a").unwrap().next_batch(Wait::No).is_err());
    std::fs::remove_dir(path.join(names::checksums(0))).unwrap();
    assert_eq!(log.verify().unwrap().verified, 0);
    let _ = log.writer_with(WriterOptions::default()).unwrap();
    assert_eq!(bodies(&path), [b"one", b"two"]);
}
