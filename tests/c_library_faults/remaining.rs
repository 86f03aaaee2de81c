//! Faults that the C library still has: section 6 of the specification.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jlog_core::compat::ReaderCompat;
use jlog_core::storage::{Open, Storage};
use jlog_core::{
    AlterOptions, Appended, CleanOptions, Compression, Error, Event, Jlog, Lag, Limits, LogId, MetaFault,
    OnDamage, ReaderOptions, Safety, Start, Wait, WriterOptions,
};
use testkit::checker::Conforming;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{Got, bodies, body, consume, new_path, read_all, read_on, snapshot, time};

use super::{
    COMPRESSIONS, a_healthy_jlog, add_bytes, eight_segments, offsets, plain_record, read_by_interval,
    segment_path, within_a_minute,
};

/// 6.1: a message larger than the pre-commit buffer must not overwrite what was flushed before it.
/// These are the eleven messages of the golden directory `big-message`, of which the reference
/// keeps eight.
#[test]
fn messages_larger_than_the_buffer_overwrite_nothing() {
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
        let log = Jlog::options().storage(Faulty::read_only()).open(&path).unwrap();
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
        let log = Jlog::options().storage(Faulty::read_only()).open(&path).unwrap();
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
            let [Event::TailTruncated { segment: 0, offset: 133, len, kept }] = &events[..] else {
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
    let mut conforming = Conforming::start();
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
    let mut conforming = Conforming::start();
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
    let conforming = RefCell::new(Conforming::start());
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
