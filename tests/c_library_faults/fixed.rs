//! Faults that the C library has fixed.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use jlog_core::compat::ReaderCompat;
use jlog_core::format::Meta;
use jlog_core::{
    AlterOptions, CleanOptions, Compression, Jlog, LogId, ReaderOptions, Safety, Start, WriterOptions,
};
use testkit::checker::Conforming;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{bodies, body, consume, names_with, new_path, read_all, read_on};

use super::{
    COMPRESSIONS, add_bytes, eight_segments, offsets, plain_record, read_by_interval, segment_path,
    within_a_minute,
};

/// A process that has a segment open writes to it after another process has rolled. By then, the
/// reader must not have left the segment, and its index must not have been closed.
#[test]
fn late_writes_are_not_skipped() {
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
