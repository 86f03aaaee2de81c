//! One test for each fault that the C library has had, fixed or not: this library must have none of
//! them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jlog_core::compat::JlogCompat;
use jlog_core::compat::ReaderCompat;
use jlog_core::format::{Meta, RecordFormat, RecordHeader};
use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{
    AlterOptions, Appended, CleanOptions, Compression, Error, Event, Jlog, Lag, Limits, LogId, MetaFault,
    OnDamage, Reader, ReaderOptions, Safety, Start, Wait, WriterOptions,
};

use crate::faulty::{Fate, Faulty, Op};
use crate::support::{
    Conforming, Got, bodies, body, consume, names_with, new_path, read_all, read_on, snapshot, time,
};

const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];

fn segment_path(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{number:08x}"))
}

/// The bytes of a record of an uncompressed jlog.
fn plain_record(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let mut record = vec![0; 16];
    let header = RecordHeader { time: time(0), len, stored: len };
    RecordFormat::new(Compression::None).encode(&header, &mut record);
    record.extend_from_slice(body);
    record
}

/// Appends bytes to a file as another process would: at its end.
fn add_bytes(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Where each record of a segment begins, and where the last one ends.
fn offsets(log: &Jlog, segment: u32) -> Vec<u64> {
    let mut offsets = Vec::new();
    let inspection = log.inspect(segment, |record| offsets.push(record.offset)).unwrap();
    offsets.push(inspection.whole_until);
    offsets
}

/// The messages that the low-level calls read: interval by interval, every record by its id, with a
/// checkpoint after each.
fn read_by_interval(reader: &mut Reader) -> Vec<Got> {
    let mut got = Vec::new();
    loop {
        let interval = reader.interval().unwrap();
        if interval.count == 0 {
            return got;
        }
        for marker in interval.first.marker..=interval.last.marker {
            let message = reader.read(LogId::new(interval.first.segment, marker)).unwrap();
            got.push(Got { id: message.id(), time: message.time(), body: message.body().to_vec() });
        }
        reader.commit(interval.last).unwrap();
    }
}

/// Runs something that must not hang.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match result.recv_timeout(Duration::from_secs(60)) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

// What the C library has fixed.

/// A process that has a segment open writes to it after another process has rolled. By then, the
/// reader must not have left the segment, and its index must not have been closed.
#[test]
fn late_writes_are_not_skipped() {
    let mut conforming = Conforming::new();
    let (_dir, path) = new_path();
    let log = Jlog::options().checksums(false).create(&path).unwrap();
    log.subscribe("batches", Start::Beginning).unwrap();
    log.subscribe("intervals", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch(&["a", "b"]).unwrap();
    let mut batches = log.reader("batches").unwrap();
    let mut intervals = log.reader("intervals").unwrap();
    assert_eq!(bodies(&read_on(&mut batches)), [b"a", b"b"]);
    assert_eq!(intervals.interval().unwrap().count, 2);
    writer.append("c").unwrap();
    writer.roll().unwrap();
    writer.append("e").unwrap();
    add_bytes(&segment_path(&path, 0), &plain_record(b"d"));
    assert_eq!(bodies(&read_on(&mut batches)), [b"c", b"d", b"e"]);
    assert_eq!(bodies(&read_by_interval(&mut intervals)), [b"a", b"b", b"c", b"d", b"e"]);
    conforming.check(&path);
}

/// As before, but the index was already closed: it then disagrees with its segment, and is rebuilt.
#[test]
fn a_closed_index_that_is_too_short_is_made_again() {
    let mut conforming = Conforming::new();
    let (_dir, path) = new_path();
    let log = Jlog::options().checksums(false).create(&path).unwrap();
    log.subscribe("first", Start::Beginning).unwrap();
    log.subscribe("second", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch(&["a", "b"]).unwrap();
    writer.roll().unwrap();
    writer.append("d").unwrap();
    assert_eq!(log.reader("first").unwrap().interval().unwrap().count, 2);
    assert!(log.inspect(0, |_| {}).unwrap().index.unwrap().closed);
    add_bytes(&segment_path(&path, 0), &plain_record(b"c"));
    let mut reader = log.reader("second").unwrap();
    assert_eq!(bodies(&read_by_interval(&mut reader)), [b"a", b"b", b"c", b"d"]);
    let index = log.inspect(0, |_| {}).unwrap().index.unwrap();
    assert_eq!((index.last, index.closed), (3, true));
    conforming.check(&path);
}

/// Resizing the pre-commit buffer flushes it, with the locks that a flush takes.
#[test]
fn resizing_the_pre_commit_buffer_does_not_deadlock() {
    within_a_minute(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().segment_size(300).pre_commit(1000).create(&path).unwrap();
        let direct = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
        let mut expected = Vec::new();
        for (n, size) in [500, 2000, 0, 100, 64 << 10, 1].into_iter().enumerate() {
            // The segment is full, so that the flush also rolls, while another writer uses it.
            let writer = log.writer().unwrap();
            for i in 0..3 {
                let message = body((10 * n + i) as u64, 100);
                writer.append(&message).unwrap();
                expected.push(message);
            }
            // The process is killed without a close or a drop, and its buffer stays.
            writer.flush().unwrap();
            drop(writer);
            let message = body(n as u64, 60);
            direct.append(&message).unwrap();
            expected.push(message);
            log.alter(AlterOptions::default().pre_commit(size)).unwrap();
            let writer = log.writer_with(WriterOptions::default().pre_commit(size + 50)).unwrap();
            assert_eq!(writer.pre_commit_size(), usize::try_from(size).unwrap() + 50);
            writer.append("s").unwrap();
            expected.push(b"s".to_vec());
            drop(writer);
        }
        assert_eq!(bodies(&read_all(&log)), expected);
    });
}

/// The contents of the old buffer go to the segment before the new buffer begins.
#[test]
fn resizing_keeps_what_the_buffer_holds() {
    let mut conforming = Conforming::new();
    for size in [0, 1, 100, 4096] {
        let (_dir, path) = new_path();
        let log = Jlog::options().pre_commit(1000).checksums(false).create(&path).unwrap();
        let writer = log.writer().unwrap();
        writer.append("flushed").unwrap();
        drop(writer);
        // The state that a killed C process leaves.
        let records = [plain_record(b"left"), plain_record(b"behind")].concat();
        let buffer = std::fs::OpenOptions::new().write(true).open(path.join("pre_commit")).unwrap();
        buffer.write_all_at(&records, 4).unwrap();
        buffer.write_all_at(&u32::try_from(records.len()).unwrap().to_le_bytes(), 0).unwrap();
        assert_eq!(log.status().unwrap().pre_commit, Some((records.len() as u64, 1000)));
        log.alter(AlterOptions::default().pre_commit(size)).unwrap();
        assert_eq!(log.status().unwrap().pre_commit, Some((0, size.into())));
        assert_eq!(bodies(&read_all(&log)), [&b"flushed"[..], b"left", b"behind"]);
        conforming.check(&path);
    }
}

/// The read side never opens the metastore for writing, and never changes it.
#[test]
fn readers_do_not_write_the_metastore() {
    let (_dir, path) = new_path();
    Jlog::options().segment_size(100).safety(Safety::Safe).create(&path).unwrap();
    let log = Jlog::open(&path).unwrap();
    log.subscribe("other", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(&[body(1, 90), body(2, 90), body(3, 40)]).unwrap();
    let before = std::fs::read(path.join("metastore")).unwrap();
    let changed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&changed);
    let storage = Faulty::storage(move |op| {
        if op.changes() {
            seen.lock().unwrap().push(op.name().to_owned());
        }
        Fate::Proceed
    });
    let log = Jlog::options().storage(storage).open(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let mut reader = log.reader("one").unwrap();
    assert_eq!(read_on(&mut reader).len(), 3);
    reader.interval().unwrap();
    reader.commit(LogId::new(1, 1)).unwrap();
    log.set_checkpoint("other", LogId::new(2, 1)).unwrap();
    log.lag("one").unwrap();
    log.status().unwrap();
    log.verify().unwrap();
    log.clean(CleanOptions::default()).unwrap();
    assert!(log.unsubscribe("one").unwrap());
    let changed = changed.lock().unwrap();
    assert!(changed.iter().any(|name| name == "cp.6f6e65"), "{changed:?}");
    assert!(!changed.iter().any(|name| name == "metastore"), "{changed:?}");
    assert_eq!(std::fs::read(path.join("metastore")).unwrap(), before);
}

/// A flush that ends a segment must not leave an empty one behind.
#[test]
fn a_flush_leaves_no_empty_segment() {
    let mut conforming = Conforming::new();
    for buffer in [96, 100, 128, 192, 1000] {
        let (_dir, path) = new_path();
        // Records have 32 bytes: with some of the buffers, a flush ends exactly at the segment's
        // end.
        let log = Jlog::options().segment_size(96).pre_commit(buffer).create(&path).unwrap();
        let mut n = 0;
        for _ in 0..3 {
            let writer = log.writer().unwrap();
            for _ in 0..20 {
                writer.append(format!("message {n:08}")).unwrap();
                n += 1;
                if n % 7 == 0 {
                    writer.flush().unwrap();
                    writer.flush().unwrap();
                }
            }
            writer.close().unwrap();
        }
        let segments = log.segments().unwrap();
        for &segment in &segments[..segments.len() - 1] {
            assert!(log.inspect(segment, |_| {}).unwrap().bytes >= 96, "segment {segment}, buffer {buffer}");
        }
        let got = read_all(&log);
        let expected: Vec<Vec<u8>> = (0..n).map(|n| format!("message {n:08}").into_bytes()).collect();
        assert_eq!(bodies(&got), expected);
        conforming.check(&path);
    }
}

/// Seven complete segments and the one being written, each with one message.
fn eight_segments() -> (tempfile::TempDir, PathBuf, Jlog) {
    let (dir, path) = new_path();
    let log = Jlog::options().segment_size(50).create(&path).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..7 {
        writer.append(format!("message {n}, long enough to fill a segment")).unwrap();
    }
    writer.append("message 7").unwrap();
    writer.close().unwrap();
    assert_eq!(log.segments().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    (dir, path, log)
}

/// Readers skip any number of missing segments, wherever they are missing.
#[test]
fn any_number_of_missing_segments_is_stepped_over() {
    for missing in
        [&[1][..], &[1, 2], &[2, 3, 4], &[0, 1, 2], &[1, 3, 5], &[5, 6], &[6], &[0, 1, 2, 3, 4, 5, 6]]
    {
        for by_interval in [false, true] {
            let (_dir, path, log) = eight_segments();
            log.subscribe("one", Start::Beginning).unwrap();
            for &segment in missing {
                std::fs::remove_file(segment_path(&path, segment)).unwrap();
            }
            let mut reader = log.reader("one").unwrap();
            let got = if by_interval { read_by_interval(&mut reader) } else { read_on(&mut reader) };
            let left: Vec<u32> = (0..8).filter(|n| !missing.contains(n)).collect();
            assert_eq!(
                got.iter().map(|m| m.id).collect::<Vec<_>>(),
                left.iter().map(|&n| LogId::new(n, 1)).collect::<Vec<_>>(),
                "without {missing:?}, by interval: {by_interval}"
            );
            for (message, n) in got.iter().zip(left) {
                assert!(message.body.starts_with(format!("message {n}").as_bytes()));
            }
            // Messages that are written now are read, too.
            log.writer().unwrap().append("news").unwrap();
            assert_eq!(bodies(&read_on(&mut reader)).last(), Some(&&b"news"[..]));
        }
    }
}

/// Readers also skip runs of empty segments, which a killed process can leave.
#[test]
fn any_number_of_empty_segments_is_stepped_over() {
    for by_interval in [false, true] {
        let (_dir, path, log) = eight_segments();
        log.subscribe("one", Start::Beginning).unwrap();
        for segment in [1, 2, 3, 6] {
            std::fs::write(segment_path(&path, segment), "").unwrap();
        }
        let mut reader = log.reader("one").unwrap();
        let got = if by_interval { read_by_interval(&mut reader) } else { read_on(&mut reader) };
        assert_eq!(got.iter().map(|m| m.id.segment).collect::<Vec<_>>(), [0, 4, 5, 7]);
        reader.commit(LogId::new(7, 1)).unwrap();
        assert_eq!(log.segments().unwrap(), [7]);
    }
}

/// Many compressed messages at once: each comes back whole, whatever its neighbours are.
#[test]
fn bulk_reads_of_compressed_messages() {
    let mut conforming = Conforming::new();
    let (_dir, path) = new_path();
    let log = Jlog::options().compression(Compression::Lz4).segment_size(20_000).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let messages: Vec<Vec<u8>> = (0..300u64)
        .map(|n| match n % 5 {
            0 => Vec::new(),
            1 => vec![b'a'; usize::try_from(n).unwrap() * 37],
            2 => (0..n).flat_map(|i| (i * n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect(),
            3 => vec![0],
            _ => body(n, 100),
        })
        .collect();
    let writer = log.writer().unwrap();
    writer.append_batch(&messages[..150]).unwrap();
    for message in &messages[150..] {
        writer.append(message).unwrap();
    }
    writer.close().unwrap();
    for bytes in [0, 10_000, 1 << 20] {
        for method in [jlog_core::ReadMethod::Pread, jlog_core::ReadMethod::Mmap] {
            let options = ReaderOptions::default().batch_bytes(bytes).read_method(method);
            let mut reader = log.reader_with("one", options).unwrap();
            assert!(bodies(&read_on(&mut reader)) == messages, "batches of {bytes}, {method:?}");
        }
    }
    let mut reader = log.reader("one").unwrap();
    assert!(bodies(&read_by_interval(&mut reader)) == messages);
    conforming.check(&path);
}

/// The whole life of a jlog on a file system that follows a rule: two writers, a roll, batches, the
/// buffer, indexes, checkpoints, a torn tail, a repair.
fn a_life_under(rule: impl Fn(Op<'_>) -> Fate + Send + Sync + Clone + 'static) {
    let mut conforming = Conforming::new();
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let options = Jlog::options().storage(Faulty::storage(rule.clone())).segment_size(700);
        let log = options.clone().compression(compression).pre_commit(300).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        log.subscribe("two", Start::Beginning).unwrap();
        let mut expected = Vec::new();
        let mut append = |writer: &jlog_core::Writer, n: u64| {
            let batch = [body(n, 50), body(n + 1, 0), body(n + 2, 400)];
            writer.append(&batch[2]).unwrap();
            writer.append_batch(&batch).unwrap();
            writer.append_batch(&batch[..2]).unwrap();
            writer.flush().unwrap();
            for i in [2, 0, 1, 2, 0, 1] {
                expected.push(batch[i].clone());
            }
        };
        let writer = log.writer().unwrap();
        let other = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
        append(&writer, 1);
        append(&other, 2);
        writer.sync().unwrap();
        writer.roll().unwrap();
        append(&writer, 3);
        other.close().unwrap();
        writer.close().unwrap();
        let last = log.end().unwrap().segment;
        add_bytes(&segment_path(&path, last), &[1, 2, 3]);
        let writer = log.writer().unwrap();
        append(&writer, 4);
        writer.close().unwrap();
        assert_eq!(names_with(&path, &format!("{last:08x}.broken-")).len(), 1);
        let mut reader = log.reader("one").unwrap();
        assert!(bodies(&read_on(&mut reader)) == expected);
        assert!(bodies(&read_by_interval(&mut reader)) == expected);
        assert_eq!(log.checkpoint("one").unwrap(), log.end().unwrap());
        assert_eq!(log.verify().unwrap().findings, []);
        conforming.check(&path);
        // A damaged header in the first segment, and a metastore that is behind.
        let at = offsets(&log, 0)[1];
        let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
        segment.write_all_at(&[0; 4], at).unwrap();
        drop(segment);
        let meta = Meta { storage_log: 0, ..log.meta().unwrap() };
        std::fs::write(path.join("metastore"), meta.encode()).unwrap();
        options.repair(&path).unwrap();
        let log = options.open(&path).unwrap();
        expected.remove(1);
        assert!(bodies(&consume(&log, "two")) == expected);
        conforming.check(&path);
    }
}

/// Writes and reads that transfer a single byte are continued.
#[test]
fn short_writes_and_reads() {
    a_life_under(|op| match op {
        Op::Write { .. } | Op::Read { .. } => Fate::AtMost(1),
        Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
        _ => Fate::Proceed,
    });
}

/// Calls that a signal interrupts are repeated: every other one is.
#[test]
fn interrupted_calls() {
    let calls = Arc::new(AtomicU64::new(0));
    a_life_under(move |op| match op {
        Op::Write { .. } | Op::Read { .. } => match calls.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Fate::Fail(std::io::ErrorKind::Interrupted),
            _ => Fate::AtMost(7),
        },
        Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
        _ => Fate::Proceed,
    });
}

/// A jlog with checkpoints and settings of all kinds, none of them wrong.
fn a_healthy_jlog() -> (tempfile::TempDir, PathBuf, Jlog) {
    let (dir, path) = new_path();
    let options = Jlog::options().segment_size(333).safety(Safety::Safe).pre_commit(100);
    let log = options.create(&path).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..40 {
        writer.append_at(time(n), body(n.into(), 40)).unwrap();
    }
    writer.close().unwrap();
    log.subscribe("beginning", Start::Beginning).unwrap();
    log.subscribe("middle", Start::After(LogId::new(2, 3))).unwrap();
    log.subscribe("end", Start::End).unwrap();
    log.subscribe("~temporary", Start::After(LogId::new(1, 1))).unwrap();
    log.reader("beginning").unwrap().interval().unwrap();
    log.reader("end").unwrap().interval().unwrap();
    (dir, path, log)
}

#[test]
fn repair_of_a_healthy_jlog_changes_nothing() {
    let (_dir, path, log) = a_healthy_jlog();
    assert!(names_with(&path, "0000000").iter().any(|name| name.ends_with(".idx")));
    let before = snapshot(&path);
    assert_eq!(Jlog::repair(&path).unwrap(), []);
    assert_eq!(snapshot(&path), before);
    assert_eq!(log.verify().unwrap().findings, []);
}

/// Repair keeps the valid values of a damaged metastore. Invalid ones are derived from the
/// segments, or become the default.
#[test]
fn repair_keeps_valid_metadata() {
    let mut conforming = Conforming::new();
    let (_dir, _path, log) = a_healthy_jlog();
    let good = log.meta().unwrap();
    type Change = fn(&mut Vec<u8>);
    let damage: [(&str, Change, Meta); 7] = [
        ("the number of the last segment is too low", |bytes| bytes[0] = 1, good),
        ("the magic is unknown", |bytes| bytes[12..].copy_from_slice(b"????"), good),
        ("the safety is unknown", |bytes| bytes[8] = 9, Meta { safety: Safety::AlmostSafe, ..good }),
        ("the segment size is 0", |bytes| bytes[4..8].fill(0), Meta { segment_size: 4 << 20, ..good }),
        ("it is cut within the magic", |bytes| bytes.truncate(15), good),
        (
            "it is cut within the segment size",
            |bytes| bytes.truncate(6),
            Meta { segment_size: 4 << 20, safety: Safety::AlmostSafe, ..good },
        ),
        ("it is empty", Vec::clear, Meta { segment_size: 4 << 20, safety: Safety::AlmostSafe, ..good }),
    ];
    for (what, damage, expected) in damage {
        let (_dir, path, log) = a_healthy_jlog();
        let all = read_all(&log);
        let before = snapshot(&path);
        let mut bytes = before[Path::new("metastore").as_os_str()].clone();
        damage(&mut bytes);
        std::fs::write(path.join("metastore"), &bytes).unwrap();
        let done = Jlog::repair(&path).unwrap();
        assert!(matches!(&done[..], [Event::MetastoreRepaired { .. }]), "{what}: {done:?}");
        let log = Jlog::open(&path).unwrap();
        assert_eq!(log.meta().unwrap(), expected, "{what}");
        assert_eq!(read_all(&log), all, "{what}");
        for (name, bytes) in before {
            if name != "metastore" {
                assert_eq!(std::fs::read(path.join(&name)).unwrap(), bytes, "{what}: {name:?}");
            }
        }
        conforming.check(&path);
    }
}

/// Valid checkpoints do not change by a byte. Unreadable ones, whatever their size, are moved to
/// the beginning, so that nothing is skipped; others are moved to positions that exist. Checkpoints
/// of temporary subscribers are left alone, and so are those before a lost segment, whose readers
/// report the loss.
#[test]
fn repair_keeps_valid_checkpoints() {
    const UNREADABLE: [usize; 7] = [0, 1, 3, 4, 7, 9, 4096];
    let (_dir, path, log) = a_healthy_jlog();
    let end = log.end().unwrap();
    let names = ["beginning", "middle", "end", "~temporary"];
    let before = names.map(|name| log.checkpoint(name).unwrap());
    let write = |name: &str, bytes: &[u8]| {
        let name = jlog_core::SubscriberName::new(name).unwrap();
        std::fs::write(path.join(name.checkpoint_file()), bytes).unwrap();
    };
    let id_bytes = |segment: u32, marker: u32| [segment.to_le_bytes(), marker.to_le_bytes()].concat();
    for len in UNREADABLE {
        write(&format!("{len} bytes"), &vec![7; len]);
    }
    write("beyond", &id_bytes(end.segment + 1, 0));
    write("past", &id_bytes(1, 1000));
    write("~short", &[1, 2, 3]);
    write("~beyond", &id_bytes(99, 99));
    std::fs::remove_file(segment_path(&path, 0)).unwrap();
    write("gone", &id_bytes(0, 2));
    let done = Jlog::repair(&path).unwrap();
    let first_marker = log.inspect(1, |_| {}).unwrap().records;
    for len in UNREADABLE {
        let name = format!("{len} bytes");
        assert_eq!(log.checkpoint(&name).unwrap(), LogId::new(1, 0), "{name}");
        let reported = Event::CheckpointRepaired {
            subscriber: name,
            to: LogId::new(1, 0),
            why: "its checkpoint could not be read".to_owned(),
        };
        assert!(done.contains(&reported), "{len} bytes: {done:?}");
    }
    for (name, checkpoint) in [
        ("beginning", before[0]),
        ("middle", before[1]),
        ("end", before[2]),
        ("~temporary", before[3]),
        ("beyond", end),
        ("past", LogId::new(1, first_marker)),
        ("gone", LogId::new(0, 2)),
    ] {
        assert_eq!(log.checkpoint(name).unwrap(), checkpoint, "{name}");
    }
    assert!(matches!(log.checkpoint("~short"), Err(Error::Checkpoint { len: 3, .. })));
    assert_eq!(log.checkpoint("~beyond").unwrap(), LogId::new(99, 99));
}

/// Ways to damage a record.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Its header is zeroed: nothing shows that it was one record.
    Header,
    /// A byte of its body is changed.
    Body,
}

/// Ten messages in one complete segment, of which the fourth is damaged while this checkpoint is
/// stored.
fn damaged(damage: Damage, checksums: bool, done: u32) -> (tempfile::TempDir, PathBuf, Vec<Vec<u8>>) {
    let (dir, path) = new_path();
    let log = Jlog::options().checksums(checksums).create(&path).unwrap();
    let messages: Vec<Vec<u8>> = (0..10).map(|n| format!("message {n}").into_bytes()).collect();
    let writer = log.writer().unwrap();
    writer.append_batch(&messages).unwrap();
    writer.roll().unwrap();
    writer.close().unwrap();
    log.subscribe("one", Start::After(LogId::new(0, done))).unwrap();
    let at = offsets(&log, 0)[3];
    let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
    match damage {
        Damage::Header => segment.write_all_at(&[0; 16], at).unwrap(),
        Damage::Body => segment.write_all_at(b"?", at + 18).unwrap(),
    }
    (dir, path, messages)
}

/// A damaged record before a checkpoint shifts the markers after it. A subscriber may then see
/// messages again, but must not miss one.
#[test]
fn repair_makes_no_subscriber_miss_a_message() {
    for (damage, checksums) in [(Damage::Body, true), (Damage::Header, true), (Damage::Header, false)] {
        for done in 0..=10 {
            let (_dir, path, messages) = damaged(damage, checksums, done);
            Jlog::repair(&path).unwrap();
            let got = consume(&Jlog::open(&path).unwrap(), "one");
            let unread: Vec<&[u8]> =
                (done as usize..10).filter(|&n| n != 3).map(|n| &messages[n][..]).collect();
            assert!(
                bodies(&got).ends_with(&unread),
                "{damage:?}, checksums {checksums}, {done} messages done: got {:?}",
                got.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect::<Vec<_>>()
            );
        }
    }
}

/// The same without a repair: the reader begins at its checkpoint, and skips damage.
#[test]
fn damage_before_a_checkpoint_makes_nobody_miss_a_message() {
    for (damage, checksums) in [(Damage::Body, true), (Damage::Header, true), (Damage::Header, false)] {
        for done in 0..=10 {
            let (_dir, path, messages) = damaged(damage, checksums, done);
            let log = Jlog::open(&path).unwrap();
            let options = ReaderOptions::default().on_damage(OnDamage::Skip);
            let got = read_on(&mut log.reader_with("one", options).unwrap());
            let unread: Vec<&[u8]> =
                (done as usize..10).filter(|&n| n != 3).map(|n| &messages[n][..]).collect();
            assert!(
                bodies(&got).ends_with(&unread),
                "{damage:?}, checksums {checksums}, {done} messages done: got {:?}",
                got.iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect::<Vec<_>>()
            );
        }
    }
}

/// No writer may start while a repair rewrites segments.
#[test]
fn repair_keeps_writers_out_until_it_is_done() {
    let (_dir, path, _) = damaged(Damage::Header, true, 0);
    let metastore = path.join("metastore");
    let free = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&free);
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Rename { .. }) && op.is_segment() {
            // The lock that a writer takes when it opens the jlog.
            let file = Posix.open(&metastore, Open::Write).unwrap();
            seen.lock().unwrap().push(file.try_guard(false).unwrap());
        }
        Fate::Proceed
    });
    Jlog::options().storage(storage).repair(&path).unwrap();
    assert_eq!(*free.lock().unwrap(), [false], "a writer could have begun while the segment was replaced");
}

#[test]
fn repair_is_refused_while_somebody_writes() {
    let (_dir, path, log) = a_healthy_jlog();
    let writer = log.writer().unwrap();
    let before = snapshot(&path);
    assert!(matches!(Jlog::repair(&path), Err(Error::WriterBusy { .. })));
    assert_eq!(snapshot(&path), before);
    writer.close().unwrap();
    assert_eq!(Jlog::repair(&path).unwrap(), []);
}

// The faults that the C library still has: section 6 of the specification.

/// 6.1: a message larger than the pre-commit buffer must not overwrite what was flushed before it.
/// These are the eleven messages of the golden directory `big-message`, of which the reference
/// keeps eight.
#[test]
fn messages_larger_than_the_buffer_overwrite_nothing() {
    let mut conforming = Conforming::new();
    let sizes = [100, 5000, 200, 512, 508, 493, 492, 491, 30, 70_000, 1];
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let options = Jlog::options().segment_size(1024).pre_commit(512).compression(compression);
        let log = options.create(&path).unwrap();
        let writer = log.writer().unwrap();
        let messages: Vec<Vec<u8>> = sizes.iter().zip(0..).map(|(&len, n)| body(n, len)).collect();
        for (message, n) in messages.iter().zip(0..) {
            writer.append_at(time(n), message).unwrap();
        }
        writer.close().unwrap();
        let got = read_all(&log);
        assert!(bodies(&got) == messages, "{compression:?}: {} messages", got.len());
        assert!(got.iter().map(|message| message.time).eq((0..11).map(time)));
        conforming.check(&path);
    }
}

/// A rule for a disk that is full, or has room for this many bytes.
#[derive(Clone)]
struct Room(Arc<AtomicU64>);

impl Room {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    fn storage(&self) -> Arc<dyn Storage> {
        let room = self.0.clone();
        Faulty::storage(move |op| {
            let left = room.load(Ordering::SeqCst);
            if left == u64::MAX || !op.needs_room() {
                return Fate::Proceed;
            }
            match op {
                Op::Write { offset, len, file_len, .. } if left > 0 => {
                    let inside = file_len.saturating_sub(offset);
                    let more = left.min(offset + len as u64 - file_len.max(offset));
                    room.store(left - more, Ordering::SeqCst);
                    Fate::AtMost(usize::try_from(inside + more).unwrap())
                }
                _ => Fate::Fail(std::io::ErrorKind::StorageFull),
            }
        })
    }
}

/// 6.2: on a full disk, everything can be read, checkpoints move, and segments are removed.
#[test]
fn a_full_disk_can_be_read_and_freed() {
    let mut conforming = Conforming::new();
    for by_interval in [false, true] {
        let (_dir, path, log) = eight_segments();
        let all = read_all(&log);
        for name in ["one", "two"] {
            log.subscribe(name, Start::Beginning).unwrap();
        }
        drop(log);
        let room = Room::new();
        room.set(0);
        let log = Jlog::options().storage(room.storage()).open(&path).unwrap();
        assert!(matches!(log.subscribe("three", Start::End), Err(Error::DiskFull { .. })));
        for (name, left) in [("one", 8), ("two", 1)] {
            let mut reader = log.reader(name).unwrap();
            if by_interval {
                assert_eq!(read_by_interval(&mut reader), all, "{name}");
            } else {
                let mut got = Vec::new();
                while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                    got.extend(batch.iter().map(|m| (m.id(), m.body().to_vec())));
                    let last = batch.last_id();
                    reader.commit(last).unwrap();
                }
                assert!(got.iter().eq(all.iter().map(|m| (m.id, m.body.clone())).collect::<Vec<_>>().iter()));
            }
            assert_eq!(log.checkpoint(name).unwrap(), LogId::new(7, 1));
            assert_eq!(log.segments().unwrap().len(), left);
        }
        assert_eq!(log.lag("one").unwrap(), Lag::default());
        assert_eq!(log.verify().unwrap().findings, []);
        conforming.check(&path);
        // With room again, everything continues.
        room.set(u64::MAX);
        log.writer().unwrap().append("news").unwrap();
        assert_eq!(bodies(&consume(&log, "one")), [b"news"]);
    }
}

/// 6.2: of a message that does not fit on the disk, no part is stored; one that fits later is
/// stored once.
#[test]
fn an_append_on_a_full_disk_leaves_nothing_behind() {
    let mut conforming = Conforming::new();
    let batch = [body(1, 40), body(2, 0), body(3, 50)];
    for pre_commit in [0, 400] {
        for bytes in (0..150).step_by(6) {
            let (_dir, path) = new_path();
            let room = Room::new();
            let options = Jlog::options().storage(room.storage()).pre_commit(pre_commit).checksums(false);
            let log = options.create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let writer = log.writer().unwrap();
            writer.append("before").unwrap();
            writer.flush().unwrap();
            let whole = std::fs::read(segment_path(&path, 0)).unwrap();
            room.set(bytes);
            let buffered = pre_commit > 0;
            let outcome = writer.append_batch(&batch).and_then(|_| writer.flush());
            if bytes < 138 {
                assert!(matches!(outcome, Err(Error::DiskFull { .. })), "{bytes}: {outcome:?}");
                let there = std::fs::read(segment_path(&path, 0)).unwrap();
                let rows = read_on(&mut log.reader("one").unwrap());
                let read = bodies(&rows);
                if buffered {
                    // Each record that the buffer has accepted is either in the segment or in the
                    // buffer.
                    let fit = [56, 72].iter().filter(|&&end| end <= bytes).count();
                    let mut expected = vec![&b"before"[..]];
                    expected.extend(batch[..fit].iter().map(|message| &message[..]));
                    assert_eq!(read, expected, "{bytes}");
                    assert_eq!(there.len(), whole.len() + [0, 56, 72][fit]);
                } else {
                    assert_eq!(there, whole, "{bytes}");
                    assert_eq!(read, [b"before"]);
                }
            } else {
                outcome.unwrap();
            }
            room.set(u64::MAX);
            writer.append("after").unwrap();
            writer.close().unwrap();
            let mut expected = vec![&b"before"[..]];
            if buffered || bytes >= 138 {
                expected.extend(batch.iter().map(|message| &message[..]));
            }
            expected.push(b"after");
            assert_eq!(bodies(&consume(&log, "one")), expected, "{bytes}");
            conforming.check(&path);
        }
    }
}

/// 6.2: a roll that finds no room for another segment does not undo the append, and is done later.
#[test]
fn a_roll_on_a_full_disk_is_made_up_for() {
    let mut conforming = Conforming::new();
    let (_dir, path) = new_path();
    let room = Room::new();
    let log = Jlog::options().storage(room.storage()).segment_size(100).create(&path).unwrap();
    let writer = log.writer().unwrap();
    writer.append("before").unwrap();
    // There is room for the record, but not for another file.
    room.set(116);
    assert_eq!(writer.append(body(1, 100)).unwrap(), Appended::InSegment(LogId::new(0, 2)));
    assert_eq!(writer.segment(), 0);
    assert!(matches!(writer.append("refused"), Err(Error::DiskFull { .. })));
    room.set(u64::MAX);
    assert_eq!(writer.append("after").unwrap(), Appended::InSegment(LogId::new(1, 1)));
    writer.close().unwrap();
    assert_eq!(bodies(&read_all(&log)), [&b"before"[..], &body(1, 100), b"after"]);
    conforming.check(&path);
}

/// 6.2: on a read-only disk, everything can be read; operations that would have to write fail with
/// an error that says so.
#[test]
fn a_read_only_disk_can_be_read() {
    for done in [LogId::new(0, 0), LogId::new(0, 1), LogId::new(3, 1)] {
        let (_dir, path, log) = eight_segments();
        log.subscribe("one", Start::After(done)).unwrap();
        let all = read_all(&log);
        let unread: Vec<Got> = all.iter().filter(|message| message.id > done).cloned().collect();
        let before = snapshot(&path);
        let storage = Faulty::storage(|op| match op.changes() {
            true => Fate::Fail(std::io::ErrorKind::ReadOnlyFilesystem),
            false => Fate::Proceed,
        });
        let log = Jlog::options().storage(storage).open(&path).unwrap();
        let mut reader = log.reader("one").unwrap();
        assert_eq!(read_on(&mut reader), unread);
        assert_eq!(reader.position(), LogId::new(7, 1));
        for message in &all {
            let read = reader.read(message.id).unwrap();
            assert_eq!((read.time(), read.body()), (message.time, &message.body[..]));
        }
        assert_eq!(log.lag("one").unwrap().messages, unread.len() as u64);
        assert_eq!(log.status().unwrap().records, 8);
        assert_eq!(log.verify().unwrap().findings, []);
        assert!(matches!(reader.commit(LogId::new(7, 1)), Err(Error::Io { .. })));
        assert!(matches!(log.writer(), Err(Error::Io { .. })));
        assert!(matches!(log.subscribe("two", Start::End), Err(Error::Io { .. })));
        assert!(matches!(log.unsubscribe("one"), Err(Error::Io { .. })));
        assert_eq!(snapshot(&path), before);
    }
}

/// 6.2: the low-level interval also works on a read-only disk.
#[test]
fn intervals_can_be_read_from_a_read_only_disk() {
    for done in [LogId::new(0, 0), LogId::new(0, 1), LogId::new(3, 1), LogId::new(7, 1)] {
        let (_dir, path, log) = eight_segments();
        log.subscribe("one", Start::After(done)).unwrap();
        let before = snapshot(&path);
        let storage = Faulty::storage(|op| match op.changes() {
            true => Fate::Fail(std::io::ErrorKind::ReadOnlyFilesystem),
            false => Fate::Proceed,
        });
        let log = Jlog::options().storage(storage).open(&path).unwrap();
        let mut reader = log.reader("one").unwrap();
        let interval = reader.interval().unwrap();
        let segment = if done.marker == 0 { 0 } else { (done.segment + 1).min(7) };
        assert_eq!((interval.last, interval.count), (LogId::new(segment, 1), u32::from(done.segment < 7)));
        assert!(
            reader.read(interval.last).unwrap().body().starts_with(format!("message {segment}").as_bytes())
        );
        assert_eq!(snapshot(&path), before);
    }
}

/// 6.3: the next writer truncates, keeps and reports a torn record, wherever it was cut. Everything
/// before and after it is read.
#[test]
fn a_torn_record_does_not_hide_what_follows() {
    let torn = plain_record(b"never finished");
    for cut in 1..torn.len() {
        for with_writer in [false, true] {
            let (_dir, path) = new_path();
            let log = Jlog::options().segment_size(2000).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let messages: Vec<Vec<u8>> = (0..14).map(|n| body(n, 3)).collect();
            let writer = log.writer().unwrap();
            writer.append_batch(&messages[..7]).unwrap();
            // A writer that is open while another process is killed during its write, or one that
            // is opened later.
            let writer = if with_writer {
                writer
            } else {
                writer.close().unwrap();
                drop(log.take_events());
                add_bytes(&segment_path(&path, 0), &torn[..cut]);
                log.writer().unwrap()
            };
            if with_writer {
                add_bytes(&segment_path(&path, 0), &torn[..cut]);
            }
            writer.append_batch(&messages[7..]).unwrap();
            let events = log.take_events();
            let [Event::TailCut { segment: 0, offset: 133, len, kept }] = &events[..] else {
                panic!("{events:?}")
            };
            assert_eq!(*len, cut as u64);
            assert_eq!(std::fs::read(kept).unwrap(), torn[..cut]);
            assert_eq!(bodies(&read_on(&mut log.reader("one").unwrap())), messages);
            writer.close().unwrap();
            assert_eq!(log.verify().unwrap().findings, []);
        }
    }
}

/// 6.4: with checksums, reading and repair notice every changed byte of a record, and it costs only
/// this record.
#[test]
fn a_changed_byte_costs_one_message_and_is_noticed() {
    let mut conforming = Conforming::new();
    for compression in COMPRESSIONS {
        let (_dir, path) = new_path();
        let log = Jlog::options().compression(compression).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let messages: Vec<Vec<u8>> = (0..7).map(|n| body(n, 40 + usize::try_from(n).unwrap())).collect();
        let writer = log.writer().unwrap();
        writer.append_batch(&messages).unwrap();
        writer.roll().unwrap();
        writer.close().unwrap();
        let places = offsets(&log, 0);
        let whole = snapshot(&path);
        let segment = &whole[Path::new("00000000").as_os_str()];
        let file = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
        for n in [0, 3, 6] {
            let others: Vec<&[u8]> = (0..7).filter(|&i| i != n).map(|i| &messages[i][..]).collect();
            for at in places[n]..places[n + 1] {
                for flip in [0x01, 0x80, 0xff] {
                    let at = usize::try_from(at).unwrap();
                    let what = format!("{compression:?}, record {n}, byte {at} ^ {flip:02x}");
                    file.write_all_at(&[segment[at] ^ flip], at as u64).unwrap();
                    let mut reader = log.reader("one").unwrap();
                    let error = loop {
                        match reader.next_batch(Wait::No) {
                            Ok(Some(_)) => {}
                            Ok(None) => panic!("{what}: not noticed"),
                            Err(error) => break error,
                        }
                    };
                    assert!(error.is_damage(), "{what}: {error}");
                    drop(reader);
                    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
                    let got = read_on(&mut log.reader_with("one", options).unwrap());
                    assert_eq!(bodies(&got), others, "{what}");
                    assert!(log.verify().unwrap().is_damaged(), "{what}");
                    file.write_all_at(&segment[at..=at], at as u64).unwrap();
                }
            }
            // Repair once for every field of the header and for the body.
            for at in [0, 4, 8, 12, 15, 16, 20, 39] {
                let (_dir, copy) = new_path();
                std::fs::create_dir(&copy).unwrap();
                let at = usize::try_from(places[n]).unwrap() + at;
                for (name, bytes) in &whole {
                    let mut bytes = bytes.clone();
                    if name == "00000000" {
                        bytes[at] ^= 0x21;
                    }
                    std::fs::write(copy.join(name), bytes).unwrap();
                }
                Jlog::repair(&copy).unwrap();
                let got = read_all(&Jlog::open(&copy).unwrap());
                assert_eq!(bodies(&got), others, "{compression:?}, record {n}, byte {at} repaired");
                conforming.check(&copy);
            }
        }
    }
}

/// 6.5: two pre-commit writers would damage each other. The second one is refused, with advice.
#[test]
fn a_second_pre_commit_writer_is_refused() {
    let (_dir, path) = new_path();
    let log = Jlog::options().pre_commit(1000).create(&path).unwrap();
    let first = log.writer().unwrap();
    first.append("in the buffer").unwrap();
    for options in [WriterOptions::default(), WriterOptions::default().pre_commit(2000)] {
        let error = Jlog::open(&path).unwrap().writer_with(options).unwrap_err();
        assert!(matches!(error, Error::PreCommitBusy { .. }), "{error}");
        assert!(error.to_string().contains("`jlog write --direct`"), "{error}");
    }
    // If one of several settings is refused, none is changed.
    let all = AlterOptions::default().checksums(false).segment_size(4096).safety(Safety::Safe);
    let limits = Limits { max_bytes: Some(1 << 20), ..Limits::default() };
    let before = (log.meta().unwrap(), log.limits(), log.checksums());
    let refused = log.alter(all.pre_commit(0).limits(limits));
    assert!(matches!(refused, Err(Error::PreCommitBusy { .. })), "{refused:?}");
    let tiny = Limits { max_bytes: Some(1), ..Limits::default() };
    let refused = log.alter(all.limits(tiny));
    assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{refused:?}");
    assert_eq!((log.meta().unwrap(), log.limits(), log.checksums()), before);
    let second = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
    assert_eq!(second.append("past the buffer").unwrap(), Appended::InSegment(LogId::new(0, 1)));
    first.flush().unwrap();
    assert_eq!(bodies(&read_all(&log)), [&b"past the buffer"[..], b"in the buffer"]);
    drop(first);
    log.writer().unwrap().append("next").unwrap();
    assert_eq!(read_all(&log).len(), 3);
}

/// 6.6: `clean` never removes the segment being written, whoever subscribes, and removes nothing at
/// all without subscribers.
#[test]
fn clean_never_removes_the_segment_being_written() {
    for roll in [false, true] {
        let (_dir, _path, log) = eight_segments();
        let writer = log.writer().unwrap();
        assert_eq!(log.clean(CleanOptions::default().roll(roll)).unwrap().len(), 0);
        assert_eq!(log.segments().unwrap().len(), 8, "without a subscriber everything stays");
        log.subscribe("one", Start::End).unwrap();
        log.clean(CleanOptions::default()).unwrap();
        assert_eq!(log.segments().unwrap(), [7]);
        writer.append("news").unwrap();
        assert_eq!(bodies(&read_all(&log)), [&b"message 7"[..], b"news"]);
        assert_eq!(bodies(&consume(&log, "one")), [b"news"]);
        log.clean(CleanOptions::default().roll(roll)).unwrap();
        assert_eq!(log.segments().unwrap(), [if roll { 8 } else { 7 }]);
        writer.append("more").unwrap();
        assert_eq!(bodies(&consume(&log, "one")), [b"more"]);
    }
}

/// 6.7: a subscriber that waits is woken by an append, a flush, and a roll.
#[test]
fn a_waiting_reader_is_woken() {
    within_a_minute(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().segment_size(200).pre_commit(100).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let (said, heard) = channel();
        let mut reader = log.reader("one").unwrap();
        let thread = std::thread::spawn(move || {
            let mut wakeful = 0;
            while wakeful < 300 {
                let batch = reader.next_batch(Wait::Timeout(Duration::from_secs(50))).unwrap();
                for message in batch.expect("woken before the time is over").iter() {
                    wakeful += 1;
                    said.send(message.body().to_vec()).unwrap();
                }
            }
        });
        for n in 0..300u32 {
            let message = format!("message {n}").into_bytes();
            writer.append(&message).unwrap();
            writer.flush().unwrap();
            // The next message is written when this one has been read, when the reader is usually
            // waiting.
            assert_eq!(heard.recv().unwrap(), message);
        }
        thread.join().unwrap();
    });
}

/// 6.7: a waker ends a wait without a limit.
#[test]
fn a_waker_ends_a_wait() {
    within_a_minute(|| {
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        log.writer().unwrap();
        let mut reader = log.reader("one").unwrap();
        let waker = reader.waker().unwrap();
        let thread = std::thread::spawn(move || {
            assert!(reader.next_batch(Wait::Forever).unwrap().is_none());
            reader
        });
        waker.wake();
        let mut reader = thread.join().unwrap();
        log.writer().unwrap().append("news").unwrap();
        assert_eq!(reader.next_batch(Wait::Forever).unwrap().unwrap().len(), 1);
        drop(reader);
        waker.wake();
    });
}

/// 6.8: names of new segments and checkpoints are durable when the call that promises it returns.
#[test]
fn new_files_are_synced_with_their_directory() {
    #[derive(Debug, Clone, PartialEq)]
    enum Did {
        Named(String),
        Wrote(String),
        Synced(String),
        SyncedDir,
    }
    let (_dir, path) = new_path();
    let did = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&did);
    let storage = Faulty::storage(move |op| {
        let name = op.name().to_owned();
        let step = match op {
            Op::Open(path, Open::Create(_)) if !path.exists() => Did::Named(name),
            Op::Rename { .. } | Op::Link { .. } => Did::Named(name),
            Op::Write { .. } => Did::Wrote(name),
            Op::Sync(_) => Did::Synced(name),
            Op::SyncDir(_) => Did::SyncedDir,
            _ => return Fate::Proceed,
        };
        seen.lock().unwrap().push(step);
        Fate::Proceed
    });
    // Whether a sync of the directory follows every new name, and a sync of the file every write.
    let durable = |wanted: &dyn Fn(&str) -> bool| {
        let did = did.lock().unwrap();
        for (i, step) in did.iter().enumerate() {
            let synced = match step {
                Did::Named(name) if wanted(name) => did[i..].contains(&Did::SyncedDir),
                Did::Wrote(name) if wanted(name) => did[i..].contains(&Did::Synced(name.clone())),
                _ => true,
            };
            assert!(synced, "{step:?} is not durable: {did:?}");
        }
    };
    let is_segment = |name: &str| name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let log = Jlog::options().storage(storage).segment_size(100).safety(Safety::Safe).create(&path).unwrap();
    durable(&|name| ["metastore", "settings", "pre_commit"].contains(&name));
    log.subscribe("one", Start::Beginning).unwrap();
    durable(&|name| name.starts_with("cp."));
    log.set_checkpoint("two", LogId::new(0, 0)).unwrap();
    durable(&|name| name.starts_with("cp."));
    let writer = log.writer().unwrap();
    writer.append("first").unwrap();
    writer.sync().unwrap();
    durable(&is_segment);
    writer.append_batch(&[body(1, 90), body(2, 90), body(3, 10)]).unwrap();
    writer.sync().unwrap();
    durable(&is_segment);
    let named: BTreeSet<String> = did
        .lock()
        .unwrap()
        .iter()
        .filter_map(|step| if let Did::Named(name) = step { Some(name.clone()) } else { None })
        .collect();
    assert!(["00000000", "00000001", "00000002"].iter().all(|name| named.contains(*name)), "{named:?}");
    writer.append_batch(&[body(4, 90), body(5, 10)]).unwrap();
    writer.close().unwrap();
    durable(&is_segment);
    // With safety 2, a checkpoint is durable when the call returns.
    let mut reader = log.reader("one").unwrap();
    reader.next_batch(Wait::No).unwrap();
    reader.commit(LogId::new(0, 1)).unwrap();
    durable(&|name| name.starts_with("cp."));
}

/// 6.9: a damaged header costs this record and not its neighbour, even without checksums.
#[test]
fn a_damaged_header_costs_no_neighbour() {
    let mut conforming = Conforming::new();
    for compression in COMPRESSIONS {
        for n in 1..6 {
            let (_dir, path) = new_path();
            let log = Jlog::options().compression(compression).checksums(false).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let messages: Vec<Vec<u8>> = (0..7).map(|n| body(n, 30)).collect();
            let writer = log.writer().unwrap();
            writer.append_batch(&messages).unwrap();
            writer.roll().unwrap();
            writer.close().unwrap();
            let at = offsets(&log, 0)[n];
            let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
            segment.write_all_at(&[0; 16], at).unwrap();
            drop(segment);
            let others: Vec<&[u8]> = (0..7).filter(|&i| i != n).map(|i| &messages[i][..]).collect();
            let options = ReaderOptions::default().on_damage(OnDamage::Skip);
            let got = read_on(&mut log.reader_with("one", options).unwrap());
            assert_eq!(bodies(&got), others, "{compression:?}, record {n} read");
            Jlog::repair(&path).unwrap();
            assert_eq!(bodies(&read_all(&log)), others, "{compression:?}, record {n} repaired");
            conforming.check(&path);
        }
    }
}

/// Makes the length of one of seven records too large, in all relevant ways, without checksums, and
/// expects that `look` finds all others. They are intact, and can be found by their headers and
/// those of their successors, as section 5 says (a record counts only if another header, or the end
/// of the file, follows).
fn with_a_damaged_length(look: impl Fn(&Jlog, &Path) -> Vec<Got>) {
    for (compression, at_length) in [(Compression::None, 12), (Compression::Lz4, 16)] {
        // The length reaches into the next record's header or body, or past whole records.
        for more in [1, 7, 20, 60, 130, 10_000] {
            for n in [0, 3, 5] {
                let (_dir, path) = new_path();
                let options = Jlog::options().compression(compression).checksums(false);
                let log = options.create(&path).unwrap();
                log.subscribe("one", Start::Beginning).unwrap();
                let messages: Vec<Vec<u8>> = (0..7).map(|n| body(n, 50)).collect();
                let writer = log.writer().unwrap();
                writer.append_batch(&messages).unwrap();
                writer.roll().unwrap();
                writer.close().unwrap();
                let at = usize::try_from(offsets(&log, 0)[n]).unwrap() + at_length;
                let bytes = std::fs::read(segment_path(&path, 0)).unwrap();
                let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + more;
                let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
                segment.write_all_at(&length.to_le_bytes(), at as u64).unwrap();
                drop(segment);
                let got = look(&log, &path);
                let lost: Vec<usize> =
                    (0..7).filter(|&i| i != n && !bodies(&got).contains(&&messages[i][..])).collect();
                assert!(lost.is_empty(), "{compression:?}, record {n} is {more} too long: {lost:?} are lost");
            }
        }
    }
}

/// 6.9: a repair finds the neighbours of a record whose length is too large.
#[test]
fn a_damaged_length_costs_no_neighbour_when_repaired() {
    let conforming = RefCell::new(Conforming::new());
    with_a_damaged_length(|log, path| {
        Jlog::repair(path).unwrap();
        conforming.borrow_mut().check(path);
        read_all(log)
    });
}

/// 6.9: a reader that skips damage finds them, too.
#[test]
fn a_damaged_length_costs_no_neighbour_when_read() {
    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    with_a_damaged_length(|log, _| read_on(&mut log.reader_with("one", options).unwrap()));
}

/// 6.10: every operation refuses a metastore with an unknown magic, and changes nothing.
#[test]
fn an_unknown_magic_is_refused_and_nothing_changed() {
    let (_dir, path, _) = a_healthy_jlog();
    let mut bytes = std::fs::read(path.join("metastore")).unwrap();
    bytes[12..].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    std::fs::write(path.join("metastore"), bytes).unwrap();
    let before = snapshot(&path);
    let refused = |result: Result<Jlog, Error>| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Metastore { fault: MetaFault::UnknownMagic(0x1234_5678), .. }),
            "{error}"
        );
        assert!(error.to_string().contains("repair"), "{error}");
    };
    refused(Jlog::open(&path));
    refused(Jlog::create_or_open(&path));
    assert!(matches!(Jlog::create(&path), Err(Error::AlreadyExists { .. })));
    assert_eq!(snapshot(&path), before);
    // The magic becomes unknown while the jlog is open.
    let (_dir, path, log) = a_healthy_jlog();
    let mut bytes = std::fs::read(path.join("metastore")).unwrap();
    bytes[12..].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    std::fs::write(path.join("metastore"), bytes).unwrap();
    let before = snapshot(&path);
    assert!(matches!(log.writer(), Err(Error::Metastore { .. })));
    assert!(matches!(log.reader("end"), Err(Error::Metastore { .. })));
    assert!(matches!(log.alter(AlterOptions::default().segment_size(1000)), Err(Error::Metastore { .. })));
    assert!(log.verify().unwrap().is_damaged());
    assert_eq!(snapshot(&path), before);
}

// Similar faults: read-only operations must not change anything, and nothing may make a subscriber
// miss a message.

/// Asking for the lag of subscribers changes nothing, wherever their checkpoints are.
#[test]
fn status_lag_and_verify_change_nothing() {
    let (_dir, path, log) = eight_segments();
    log.subscribe("at the end of a segment", Start::After(LogId::new(2, 1))).unwrap();
    // Everything is retained for this subscriber.
    log.subscribe("beginning", Start::Beginning).unwrap();
    log.store_checkpoint("past the end of a segment", LogId::new(4, 9)).unwrap();
    log.store_checkpoint("past the end", LogId::new(7, 9)).unwrap();
    log.unsubscribe("beginning").unwrap();
    log.subscribe("end", Start::End).unwrap();
    let before = snapshot(&path);
    let status = log.status().unwrap();
    assert_eq!((status.records, status.segments), (8, 8));
    let lags: Vec<u64> = status.subscribers.iter().map(|subscriber| subscriber.messages).collect();
    assert_eq!(lags, [5, 0, 0, 3], "{:?}", status.subscribers);
    for subscriber in status.subscribers {
        log.lag(&subscriber.name).unwrap();
    }
    log.verify().unwrap();
    log.inspect(2, |_| {}).unwrap();
    log.raw_size().unwrap();
    let after = snapshot(&path);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(after == before, "a checkpoint was moved");
}

/// After a power failure, the current segment may have lost some or all of its records, and a
/// checkpoint may be past its end. Messages that are appended then must not count as done.
#[test]
fn a_checkpoint_past_the_end_does_not_swallow_new_messages() {
    for left in [5, 3, 0] {
        let (_dir, path) = new_path();
        let log = Jlog::options().checksums(false).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch(&["0", "1", "2", "3", "4", "5", "6", "7"]).unwrap();
        writer.close().unwrap();
        assert_eq!(consume(&log, "one").len(), 8);
        let segment = std::fs::OpenOptions::new().write(true).open(segment_path(&path, 0)).unwrap();
        segment.set_len(17 * left).unwrap();
        let log = Jlog::open(&path).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch(&["a", "b", "c", "d"]).unwrap();
        writer.close().unwrap();
        assert_eq!(bodies(&consume(&log, "one")), [b"a", b"b", b"c", b"d"], "{left} records were left");
    }
}

/// The same if the whole segment is gone, including its name.
#[test]
fn a_vanished_segment_does_not_swallow_new_messages() {
    for with_writer in [false, true] {
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append_batch(&["0", "1", "2", "3"]).unwrap();
        assert_eq!(consume(&log, "one").len(), 4);
        let writer = if with_writer {
            std::fs::remove_file(segment_path(&path, 0)).unwrap();
            writer
        } else {
            writer.close().unwrap();
            std::fs::remove_file(segment_path(&path, 0)).unwrap();
            log.writer().unwrap()
        };
        writer.append_batch(&["a", "b", "c"]).unwrap();
        writer.close().unwrap();
        assert_eq!(bodies(&consume(&log, "one")), [b"a", b"b", b"c"], "with a writer: {with_writer}");
    }
}

/// A checkpoint that was set back from outside stays there: a reader that continues with the next
/// segment does not move it.
#[test]
fn a_reader_does_not_undo_a_checkpoint_that_was_set_from_outside() {
    let (_dir, _path, log) = eight_segments();
    log.subscribe("one", Start::Beginning).unwrap();
    let mut reader = log.reader("one").unwrap();
    let first = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
    reader.commit(first).unwrap();
    // "All of it again, please."
    log.set_checkpoint("one", LogId::new(0, 0)).unwrap();
    reader.next_batch(Wait::No).unwrap();
    drop(reader);
    assert_eq!(log.checkpoint("one").unwrap(), LogId::new(0, 0));
    assert_eq!(consume(&log, "one").len(), 8);
}

/// After a failed sync, nothing is reported as durable: the data that it covered may be lost.
#[test]
fn a_failed_sync_stays_failed() {
    let (_dir, path) = new_path();
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let storage = Faulty::storage(move |op| match op {
        Op::Sync(_) if op.is_segment() && switch.load(Ordering::SeqCst) => {
            Fate::Fail(std::io::ErrorKind::Other)
        }
        _ => Fate::Proceed,
    });
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    let writer = log.writer().unwrap();
    writer.append("durable").unwrap();
    writer.sync().unwrap();
    broken.store(true, Ordering::SeqCst);
    writer.append("perhaps").unwrap();
    assert!(writer.sync().is_err());
    broken.store(false, Ordering::SeqCst);
    assert!(matches!(writer.sync(), Err(Error::SyncFailed { .. })));
    assert!(matches!(writer.append("refused"), Err(Error::SyncFailed { .. })));
    assert!(matches!(writer.close(), Err(Error::SyncFailed { .. })));
    let writer = log.writer().unwrap();
    writer.append("anew").unwrap();
    writer.close().unwrap();
    assert_eq!(bodies(&read_all(&log)), [&b"durable"[..], b"perhaps", b"anew"]);
}
