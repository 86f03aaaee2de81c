//! Similar faults: read-only operations must not change anything, and nothing may make a subscriber
//! miss a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jlog_core::compat::JlogCompat;
use jlog_core::{Error, Jlog, LogId, Start, Wait};
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{bodies, consume, new_path, read_all, snapshot};

use super::{eight_segments, segment_path};

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
    writer.append("later").unwrap();
    writer.close().unwrap();
    assert_eq!(bodies(&read_all(&log)), [&b"durable"[..], b"perhaps", b"later"]);
}
