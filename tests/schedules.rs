//! Group commit, roll and wake-up under many schedules of their threads, which a checker (shuttle)
//! chooses. A schedule in which no thread can continue fails, too. Run with
//! `cargo test -p jlog-tests --features shuttle --test schedules`; `JLOG_SCHEDULES` sets the number
//! of schedules.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use jlog_core::asynchronous::{AsyncWriter, AsyncWriterOptions};
use jlog_core::storage::Storage;
use jlog_core::storage::sim::{Dice, SimStorage};
use jlog_core::{Error, Jlog, Start, SyncPolicy, Wait, Writer, WriterOptions};
use shuttle::future::block_on;
use shuttle::thread;

const FEED: &str = "/feed";

fn check(test: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("JLOG_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    // Half of the schedules change threads rarely, which finds the rarest orders.
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    shuttle::check_random(move || test(), schedules / 2);
    shuttle::check_pct(move || again(), schedules / 2, 3);
}

fn feed(segment_size: u32) -> (SimStorage, Jlog) {
    let disk = SimStorage::new();
    disk.create_dir(Path::new("/"), 0o755).unwrap();
    let options = Jlog::options().storage(Arc::new(disk.clone())).segment_size(segment_size);
    let log = options.create(FEED).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    (disk, log)
}

fn read_all(disk: &SimStorage) -> Vec<String> {
    let log = Jlog::options().storage(Arc::new(disk.clone())).open(FEED).unwrap();
    // A writer recovers the state after the power failure.
    log.writer().unwrap().close().unwrap();
    let mut reader = log.reader("s").unwrap();
    let mut out = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        out.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    out
}

/// The worst state of the disk after a power failure now.
fn after_power_loss(disk: &SimStorage, seed: u64) -> SimStorage {
    disk.record();
    // Any changing call records the state before it.
    disk.create_dir(Path::new(&format!("/moment-{seed}")), 0o755).unwrap();
    disk.moments().pop().unwrap().after_power_loss(&mut Dice::new(seed))
}

fn writer(log: &Jlog, sync: SyncPolicy) -> Arc<Writer> {
    Arc::new(log.writer_with(WriterOptions::default().sync(sync)).unwrap())
}

/// Threads whose appends are durable when they return share syncs, with rolls in between, and
/// nothing is reported as durable that is not.
fn durable_when_it_returns(segment_size: u32) {
    check(move || {
        let (disk, log) = feed(segment_size);
        let writer = writer(&log, SyncPolicy::EachAppend);
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let (writer, disk) = (Arc::clone(&writer), disk.clone());
                thread::spawn(move || {
                    for n in 0..2 {
                        let message = format!("{t}-{n}");
                        writer.append(&message).unwrap();
                        if t == 0 {
                            let there = read_all(&after_power_loss(&disk, n));
                            assert!(there.contains(&message), "{message} is durable: {there:?}");
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let there = read_all(&after_power_loss(&disk, 7));
        for t in 0..3 {
            let own: Vec<&String> = there.iter().filter(|m| m.starts_with(&format!("{t}-"))).collect();
            assert_eq!(own, [&format!("{t}-0"), &format!("{t}-1")], "once, and in order");
        }
        assert_eq!(there.len(), 6);
    });
}

#[test]
fn durable_appends_share_syncs() {
    durable_when_it_returns(4096);
}

#[test]
fn durable_appends_and_rolls() {
    durable_when_it_returns(40);
}

/// Once a sync has failed, nothing is reported as durable, and no thread waits forever.
#[test]
fn a_failed_sync_is_everybodys() {
    check(|| {
        let (disk, log) = feed(4096);
        let writer = writer(&log, SyncPolicy::Never);
        for t in 0..3 {
            writer.append(format!("{t}")).unwrap();
        }
        disk.fail_from(Some(disk.calls()));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let writer = Arc::clone(&writer);
                thread::spawn(move || writer.sync().is_err())
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        disk.fail_from(None);
        assert!(matches!(writer.sync(), Err(Error::SyncFailed { .. })), "and it stays so");
    });
}

/// A waiting reader gets every message, whatever happens between its look and its wait, even across
/// rolls.
#[test]
fn no_wake_up_is_lost() {
    for segment_size in [4096, 40] {
        check(move || {
            let (_, log) = feed(segment_size);
            let writer = writer(&log, SyncPolicy::Never);
            let reading = {
                let log = log.clone();
                thread::spawn(move || {
                    let mut reader = log.reader("s").unwrap();
                    let mut got = Vec::new();
                    while got.len() < 4 {
                        let batch = reader.next_batch(Wait::Forever).unwrap().unwrap();
                        got.extend(batch.iter().map(|message| message.body().to_vec()));
                    }
                    got
                })
            };
            for n in 0..4u8 {
                writer.append([n; 20]).unwrap();
            }
            let expected: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 20]).collect();
            assert_eq!(reading.join().unwrap(), expected);
        });
    }
}

/// While other threads append, rolling and flushing keep each thread's messages in order, each
/// once.
#[test]
fn rolls_and_flushes_while_others_append() {
    check(|| {
        let (disk, log) = feed(100);
        let writer = Arc::new(log.writer_with(WriterOptions::default().pre_commit(120)).unwrap());
        let appending: Vec<_> = (0..2)
            .map(|t| {
                let writer = Arc::clone(&writer);
                thread::spawn(move || {
                    for n in 0..4 {
                        writer.append(format!("{t}-{n}")).unwrap();
                    }
                })
            })
            .collect();
        let rolling = {
            let writer = Arc::clone(&writer);
            thread::spawn(move || {
                writer.roll().unwrap();
                writer.flush().unwrap();
            })
        };
        for thread in appending {
            thread.join().unwrap();
        }
        rolling.join().unwrap();
        drop(writer);
        let there = read_all(&disk);
        assert_eq!(there.len(), 8, "{there:?}");
        for t in 0..2 {
            let own: Vec<&String> = there.iter().filter(|m| m.starts_with(&format!("{t}-"))).collect();
            assert!(own.is_sorted() && own.len() == 4, "{there:?}");
        }
    });
}

/// One thread appends the messages of futures, and there is room for few of them. Each message
/// exists once, in the order of its task, and is durable when its future says so. Dropping the last
/// handle, or a close, waits for all of them.
fn tasks_append(options: AsyncWriterOptions, close: bool) {
    check(move || {
        let (disk, log) = feed(100);
        let writer = AsyncWriter::new(&log, log.writer().unwrap(), options);
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let (writer, disk) = (writer.clone(), disk.clone());
                thread::spawn(move || {
                    for n in 0..2 {
                        let message = format!("{t}-{n}");
                        if t == 0 {
                            block_on(writer.append_durable(message.clone())).unwrap();
                            let there = read_all(&after_power_loss(&disk, n));
                            assert!(there.contains(&message), "{message} is durable: {there:?}");
                        } else {
                            block_on(writer.append(message)).unwrap();
                        }
                    }
                })
            })
            .collect();
        if !close {
            drop(writer.clone());
        }
        for thread in threads {
            thread.join().unwrap();
        }
        if close {
            block_on(writer.close()).unwrap();
            assert!(matches!(block_on(writer.append("late")), Err(Error::Closed { .. })));
        } else {
            // The writer's thread ends some time after its last handle; every append has been
            // answered before.
            drop(writer);
        }
        let mut reader = log.reader("s").unwrap();
        let mut there = Vec::new();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            there.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
        }
        assert_eq!(there.len(), 6, "{there:?}");
        for t in 0..3 {
            let own: Vec<&String> = there.iter().filter(|m| m.starts_with(&format!("{t}-"))).collect();
            assert_eq!(own, [&format!("{t}-0"), &format!("{t}-1")], "once, and in order");
        }
    });
}

#[test]
fn tasks_append_with_room() {
    tasks_append(AsyncWriterOptions::default(), true);
}

#[test]
fn tasks_append_when_there_is_room_for_one() {
    tasks_append(AsyncWriterOptions::default().max_messages(1), true);
}

#[test]
fn tasks_append_and_nobody_closes() {
    tasks_append(AsyncWriterOptions::default().max_messages(2), false);
}

/// Futures are dropped at any moment: each message exists once or not at all, no other task waits
/// forever, and all room is free again.
#[test]
fn tasks_that_are_dropped() {
    use std::pin::pin;
    use std::task::{Context, Waker};
    check(|| {
        let (_, log) = feed(4096);
        let options = AsyncWriterOptions::default().max_messages(1);
        let writer = AsyncWriter::new(&log, log.writer().unwrap(), options);
        let dropping = {
            let writer = writer.clone();
            thread::spawn(move || {
                for n in 0..2 {
                    let mut future = pin!(writer.append(format!("dropped {n}")));
                    let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
            })
        };
        let appending = {
            let writer = writer.clone();
            thread::spawn(move || {
                for n in 0..2 {
                    block_on(writer.append(format!("kept {n}"))).unwrap();
                }
            })
        };
        dropping.join().unwrap();
        appending.join().unwrap();
        block_on(writer.append_batch(["last", "of all"])).unwrap();
        block_on(writer.close()).unwrap();
        let mut reader = log.reader("s").unwrap();
        let mut there = Vec::new();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            there.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
        }
        let kept: Vec<&String> = there.iter().filter(|message| !message.starts_with("dropped")).collect();
        assert_eq!(kept, ["kept 0", "kept 1", "last", "of all"]);
        let dropped: Vec<&String> = there.iter().filter(|message| message.starts_with("dropped")).collect();
        assert!(dropped.is_sorted_by(|a, b| a < b), "once at most, and in order: {there:?}");
    });
}
