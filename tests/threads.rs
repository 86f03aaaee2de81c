//! Several threads of one process use one jlog: each message exists once, in its thread's order;
//! threads share syncs; waiting threads are woken. These tests also run under a thread sanitizer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jlog_core::compat::WriterCompat;
use jlog_core::storage::Storage;
use jlog_core::storage::sim::SimStorage;
use jlog_core::{
    CleanOptions, Compression, Error, Jlog, Locking, OnDamage, ReadMethod, Reader, ReaderOptions, Start,
    SyncPolicy, Wait, Writer, WriterOptions,
};

use testkit::checker::Conforming;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{Got, new_path, read_all, read_on, unsynced};
use testkit::messages::{message, parse};

/// How many threads write at the same time.
const WRITERS: u32 = 4;
/// If a wait takes this long, nothing has ended it.
const PATIENCE: Duration = Duration::from_secs(50);

/// Runs something that must not hang, and whose threads must not outlive it.
fn without_hanging(work: impl FnOnce() + Send + 'static) {
    let (done, result) = channel();
    let thread = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match result.recv_timeout(Duration::from_secs(120)) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// Counts messages: those of every writer must come in order, without a gap.
#[derive(Default)]
struct Tally(BTreeMap<u32, u32>);

impl Tally {
    fn take(&mut self, body: &[u8]) {
        let (writer, seq) = parse(body).expect("as it was written");
        let next = self.0.entry(writer).or_default();
        assert_eq!(seq, *next, "the next message of writer {writer}");
        *next += 1;
    }

    fn of(got: &[Got]) -> Self {
        let mut tally = Self::default();
        got.iter().for_each(|message| tally.take(&message.body));
        tally
    }

    /// Checks the number of messages of each writer.
    fn assert(&self, writers: u32, each: u32) {
        assert_eq!(self.0, (0..writers).map(|writer| (writer, each)).collect::<BTreeMap<_, _>>());
    }

    fn count(&self) -> u32 {
        self.0.values().sum()
    }
}

/// Does the same work in this many threads. Each gets its number.
fn in_threads(threads: u32, work: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        for n in 0..threads {
            let work = &work;
            scope.spawn(move || work(n));
        }
    });
}

/// Appends the messages of a writer, some alone and some in batches.
fn append_all(writer: &Writer, number: u32, each: u32) {
    let mut seq = 0;
    while seq < each {
        let n = if seq % 5 == 0 { 3.min(each - seq) } else { 1 };
        let bodies: Vec<Vec<u8>> = (seq..seq + n).map(|seq| message(number, seq)).collect();
        match &bodies[..] {
            [body] => writer.append(body).unwrap(),
            _ => writer.append_batch(&bodies).unwrap().last(),
        };
        seq += n;
    }
}

/// A disk in memory with a root directory.
fn simulated() -> SimStorage {
    let disk = SimStorage::new();
    disk.create_dir(Path::new("/"), 0o750).unwrap();
    disk
}

#[test]
fn threads_append_to_one_writer() {
    without_hanging(|| {
        let mut conforming = Conforming::start();
        for (locking, pre_commit, compression) in [
            (Locking::MultiProcess, 0, Compression::None),
            (Locking::MultiProcess, 300, Compression::None),
            (Locking::SingleProcess, 0, Compression::Lz4),
            (Locking::SingleProcess, 300, Compression::Lz4),
        ] {
            let (_dir, path) = new_path();
            let log = Jlog::options()
                .storage(unsynced())
                .segment_size(2000)
                .pre_commit(pre_commit)
                .compression(compression)
                .create(&path)
                .unwrap();
            let options = WriterOptions::default().locking(locking);
            let writer = log.writer_with(options).unwrap();
            in_threads(WRITERS, |n| append_all(&writer, n, 300));
            assert_eq!(writer.accepted(), u64::from(WRITERS) * 300);
            writer.close().unwrap();
            Tally::of(&read_all(&log)).assert(WRITERS, 300);
            let verified = log.verify().unwrap();
            assert!(!verified.is_damaged(), "{:?}", verified.findings);
            assert_eq!(verified.verified, verified.records, "each has its checksum");
            conforming.check(&path);
        }
    });
}

/// Appends single messages until far fewer locks were taken than messages appended. Returns the
/// number of messages.
fn append_until_the_lock_is_kept(writer: &Writer, number: u32, locks: &AtomicUsize) -> u32 {
    let begun = Instant::now();
    let mut appended = 0;
    while begun.elapsed() < PATIENCE {
        let before = locks.load(Ordering::Relaxed);
        for _ in 0..200 {
            writer.append(message(number, appended)).unwrap();
            appended += 1;
        }
        if locks.load(Ordering::Relaxed) - before < 120 {
            return appended;
        }
    }
    panic!("the lock is never kept");
}

/// A new jlog that counts how often a segment is locked.
fn log_that_counts_locks(path: &Path) -> (Jlog, Arc<AtomicUsize>) {
    let locks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&locks);
    let storage = Faulty::storage(move |op| match op {
        Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
        Op::Lock(_) if op.is_segment() => {
            counted.fetch_add(1, Ordering::Relaxed);
            Fate::Proceed
        }
        _ => Fate::Proceed,
    });
    (Jlog::options().storage(storage).create(path).unwrap(), locks)
}

/// If appends follow each other closely, one lock serves many of them. A writer that has nothing
/// more to append releases it, and each of two writers continues where the other one ended.
#[test]
fn a_lock_that_is_kept_is_given_back() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let (log, locks) = log_that_counts_locks(&path);
        let (one, other) = (log.writer().unwrap(), log.writer().unwrap());
        let mut appended = append_until_the_lock_is_kept(&one, 0, &locks);
        // If the lock were not released, these appends would wait forever.
        for seq in 0..500 {
            other.append(message(1, seq)).unwrap();
            if seq % 100 == 0 {
                one.append(message(0, appended)).unwrap();
                appended += 1;
            }
        }
        drop(one);
        let got = read_all(&log);
        let tally = Tally::of(&got);
        assert_eq!(tally.0, BTreeMap::from([(0, appended), (1, 500)]));
        let verified = log.verify().unwrap();
        assert!(!verified.is_damaged(), "{:?}", verified.findings);
        drop(other);
        Conforming::start().check(&path);
    });
}

/// A writer that appends without a pause lets others append, too.
#[test]
fn a_writer_that_never_pauses_does_not_keep_others_out() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let (log, locks) = log_that_counts_locks(&path);
        let (one, other) = (log.writer().unwrap(), log.writer().unwrap());
        let done = AtomicBool::new(false);
        let appended = std::thread::scope(|scope| {
            let one = scope.spawn(|| {
                let mut appended = append_until_the_lock_is_kept(&one, 0, &locks);
                while !done.load(Ordering::Relaxed) {
                    one.append(message(0, appended)).unwrap();
                    appended += 1;
                }
                appended
            });
            for seq in 0..50 {
                other.append(message(1, seq)).unwrap();
                // Some pauses are so long that the other writer again keeps the lock for the whole
                // time.
                std::thread::sleep(Duration::from_millis(if seq % 10 == 0 { 150 } else { 1 }));
            }
            done.store(true, Ordering::Relaxed);
            one.join().unwrap()
        });
        let got = read_all(&log);
        assert_eq!(Tally::of(&got).0, BTreeMap::from([(0, appended), (1, 50)]));
    });
}

#[test]
fn no_lock_is_kept_where_none_is_to_be() {
    let (_dir, path) = new_path();
    let (log, locks) = log_that_counts_locks(&path);
    let writer = log.writer_with(WriterOptions::default().hold_lock(Duration::ZERO)).unwrap();
    let before = locks.load(Ordering::Relaxed);
    for seq in 0..2000 {
        writer.append(message(0, seq)).unwrap();
    }
    assert_eq!(locks.load(Ordering::Relaxed) - before, 2000);
}

/// A batch stays in one piece, whatever the other threads do.
#[test]
fn nothing_comes_between_the_messages_of_a_batch() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().storage(unsynced()).segment_size(3000).create(&path).unwrap();
        let writer = log.writer().unwrap();
        in_threads(WRITERS, |n| {
            for batch in 0..60 {
                let bodies: Vec<_> = (batch * 5..batch * 5 + 5).map(|seq| message(n, seq)).collect();
                writer.append_batch(&bodies).unwrap();
            }
        });
        let got = read_all(&log);
        Tally::of(&got).assert(WRITERS, 300);
        for batch in got.chunks(5) {
            let of: Vec<u32> = batch.iter().map(|message| parse(&message.body).unwrap().0).collect();
            assert!(of.iter().all(|writer| *writer == of[0]), "{of:?}");
        }
    });
}

#[test]
fn threads_append_with_writers_of_their_own() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().storage(unsynced()).segment_size(1500).create(&path).unwrap();
        in_threads(WRITERS, |n| {
            let writer = log.writer().unwrap();
            append_all(&writer, n, 200);
            writer.close().unwrap();
        });
        Tally::of(&read_all(&log)).assert(WRITERS, 200);
        assert!(!log.verify().unwrap().is_damaged());
    });
}

#[test]
fn segments_are_ended_while_threads_append() {
    without_hanging(|| {
        for pre_commit in [0, 200] {
            let (_dir, path) = new_path();
            let log = Jlog::options()
                .storage(unsynced())
                .segment_size(4000)
                .pre_commit(pre_commit)
                .create(&path)
                .unwrap();
            let writer = log.writer().unwrap();
            let left = AtomicUsize::new(WRITERS as usize);
            let rolls = AtomicUsize::new(0);
            in_threads(WRITERS + 3, |n| {
                if n < WRITERS {
                    append_all(&writer, n, 300);
                    left.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                while left.load(Ordering::Relaxed) > 0 {
                    match n - WRITERS {
                        0 => {
                            writer.roll().unwrap();
                            rolls.fetch_add(1, Ordering::Relaxed);
                        }
                        1 => writer.flush().unwrap(),
                        _ => {
                            writer.set_segment_size(1000 + 1000 * (writer.segment() % 4)).unwrap();
                            assert!(writer.pre_commit_used() <= writer.pre_commit_size());
                        }
                    }
                    std::thread::yield_now();
                }
            });
            assert!(rolls.into_inner() > 0);
            writer.close().unwrap();
            assert!(log.segments().unwrap().len() > 5);
            Tally::of(&read_all(&log)).assert(WRITERS, 300);
            assert!(!log.verify().unwrap().is_damaged());
        }
    });
}

/// On the disk of this test, a sync takes so long that the other threads wait for the next one.
#[test]
fn threads_that_sync_share_the_syncs() {
    const THREADS: u32 = 8;
    const EACH: u32 = 40;
    without_hanging(|| {
        for (policy, pre_commit) in
            [(SyncPolicy::EachAppend, 0), (SyncPolicy::EachAppend, 400), (SyncPolicy::OnRoll, 0)]
        {
            let (_dir, path) = new_path();
            let syncs = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&syncs);
            let storage = Faulty::storage(move |op| match op {
                Op::Sync(_) if op.is_segment() => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                    Fate::Pretend
                }
                Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
                _ => Fate::Proceed,
            });
            let log = Jlog::options().storage(storage).pre_commit(pre_commit).create(&path).unwrap();
            let writer = log.writer_with(WriterOptions::default().sync(policy)).unwrap();
            syncs.store(0, Ordering::Relaxed);
            in_threads(THREADS, |n| {
                for seq in 0..EACH {
                    writer.append(message(n, seq)).unwrap();
                    if policy != SyncPolicy::EachAppend {
                        writer.sync().unwrap();
                    }
                }
            });
            let syncs = syncs.load(Ordering::Relaxed);
            assert!(syncs >= EACH as usize, "every append of a thread needs one: {syncs}");
            assert!(syncs < (THREADS * EACH / 2) as usize, "{syncs} syncs for {} appends", THREADS * EACH);
            writer.close().unwrap();
            Tally::of(&read_all(&log)).assert(THREADS, EACH);
        }
    });
}

/// A thread that another one writes for gets its own message's id or its own error. A failed write
/// affects only the threads whose messages were in it, and a message exists exactly if its append
/// succeeded.
#[test]
fn each_thread_hears_of_its_own_message() {
    const EACH: u32 = 150;
    without_hanging(|| {
        for (pre_commit, compression) in
            [(0, Compression::None), (0, Compression::Lz4), (400, Compression::None)]
        {
            let (_dir, path) = new_path();
            let writes = AtomicUsize::new(0);
            let storage = Faulty::storage(move |op| match op {
                Op::Write { .. } if op.is_segment() => {
                    match writes.fetch_add(1, Ordering::Relaxed) % 7 {
                        3 => Fate::Fail(std::io::ErrorKind::StorageFull),
                        // Give other threads a moment to begin to wait.
                        _ => {
                            std::thread::sleep(Duration::from_micros(300));
                            Fate::Proceed
                        }
                    }
                }
                Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
                _ => Fate::Proceed,
            });
            let options = Jlog::options().storage(storage).segment_size(3000).compression(compression);
            let log = options.pre_commit(pre_commit).create(&path).unwrap();
            log.subscribe("keeper", Start::Beginning).unwrap();
            let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::EachAppend)).unwrap();
            let reported = parking_lot::Mutex::new(Vec::new());
            let failed = AtomicUsize::new(0);
            in_threads(8, |n| {
                for seq in 0..EACH {
                    let body = message(n, seq);
                    match writer.append(&body) {
                        Ok(placed) => reported.lock().push((placed.id(), body)),
                        Err(Error::DiskFull { .. }) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => panic!("{e}"),
                    }
                }
            });
            drop(writer);
            let (mut reported, failed) = (reported.into_inner(), failed.into_inner());
            assert!(failed > 0, "no write has failed");
            let mut there: Vec<_> = read_all(&log).into_iter().map(|got| (Some(got.id), got.body)).collect();
            reported.sort();
            there.sort();
            assert_eq!(reported, there);
            assert_eq!(reported.len() + failed, 8 * EACH as usize);
        }
    });
}

/// Messages that are reported as durable are durable at that moment, whichever thread did the sync:
/// the power may fail right then.
#[test]
fn what_a_shared_sync_has_promised_survives() {
    use jlog_core::storage::sim::Dice;

    const EACH: u32 = 12;
    without_hanging(|| {
        for seed in 0..6 {
            let disk = simulated();
            // No buffer and no rolls: the simulated disk reads maps without coordination with the
            // threads that write to them.
            let log = Jlog::options().storage(Arc::new(disk.clone())).create("/feed").unwrap();
            log.subscribe("keeper", Start::Beginning).unwrap();
            // On the simulated disk, nobody can wait for a lock, so this writer takes none.
            let options = WriterOptions::default().locking(Locking::SingleProcess);
            let writer = log.writer_with(options.sync(SyncPolicy::EachAppend)).unwrap();
            disk.record();
            let promised = parking_lot::Mutex::new(Vec::new());
            in_threads(WRITERS, |n| {
                for seq in 0..EACH {
                    writer.append(message(n, seq)).unwrap();
                    // All changes from here on come after the promise.
                    promised.lock().push((disk.calls(), n, seq));
                }
            });
            let promised = promised.into_inner();
            for moment in disk.moments().iter().step_by(7) {
                let after = moment.after_power_loss(&mut Dice::new(seed ^ (moment.calls << 8)));
                let log = Jlog::options().storage(Arc::new(after)).open("/feed").unwrap();
                log.writer().unwrap().close().unwrap();
                let options = ReaderOptions::default().on_damage(OnDamage::Skip);
                let mut keeper = log.reader_with("keeper", options).unwrap();
                let there: Vec<_> =
                    read_on(&mut keeper).iter().map(|got| parse(&got.body).unwrap()).collect();
                for &(_, n, seq) in promised.iter().filter(|(calls, ..)| *calls <= moment.calls) {
                    let times = there.iter().filter(|at| **at == (n, seq)).count();
                    assert_eq!(times, 1, "message {seq} of thread {n}, before call {}", moment.calls + 1);
                }
            }
        }
    });
}

/// Reads until every message of every writer has arrived. No wait may time out.
fn read_until_all(mut reader: Reader, writers: u32, each: u32) -> Tally {
    let mut tally = Tally::default();
    while tally.count() < writers * each {
        let mut last = None;
        {
            let batch = reader.next_batch(Wait::Timeout(PATIENCE)).unwrap();
            let batch = batch.expect("woken before the time is over");
            for message in &batch {
                tally.take(message.body());
                last = Some(message.id());
            }
        }
        reader.commit(last.unwrap()).unwrap();
    }
    assert!(reader.next_batch(Wait::No).unwrap().is_none(), "nothing else is there");
    // If the last message has filled its segment, the end is in the next one.
    let end = reader.position();
    reader.commit(end).unwrap();
    tally
}

#[test]
fn readers_wait_while_threads_append() {
    without_hanging(|| {
        for pre_commit in [0, 300] {
            let (_dir, path) = new_path();
            let log = Jlog::options()
                .storage(unsynced())
                .segment_size(3000)
                .pre_commit(pre_commit)
                .create(&path)
                .unwrap();
            let writer = log.writer().unwrap();
            let readers: Vec<Reader> = ["pread", "mmap", "small"]
                .into_iter()
                .enumerate()
                .map(|(n, name)| {
                    log.subscribe(name, Start::Beginning).unwrap();
                    let method = if n == 1 { ReadMethod::Mmap } else { ReadMethod::Pread };
                    let options = ReaderOptions::default().read_method(method);
                    log.reader_with(name, if n == 2 { options.batch_bytes(4096) } else { options }).unwrap()
                })
                .collect();
            std::thread::scope(|scope| {
                let threads: Vec<_> = readers
                    .into_iter()
                    .map(|reader| scope.spawn(move || read_until_all(reader, WRITERS, 250)))
                    .collect();
                in_threads(WRITERS, |n| {
                    for seq in 0..250 {
                        writer.append(message(n, seq)).unwrap();
                        if seq % 50 == 0 {
                            // By then, the readers have reached the end and wait.
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                    writer.flush().unwrap();
                });
                for thread in threads {
                    thread.join().unwrap().assert(WRITERS, 250);
                }
            });
            // All subscribers are done with everything: only the segment being written is left.
            log.clean(CleanOptions::default()).unwrap();
            assert_eq!(log.segments().unwrap(), [writer.segment()]);
        }
    });
}

/// A waker ends one wait, the current or the next one, and loses no message.
#[test]
fn wakers_disturb_nothing() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().storage(unsynced()).segment_size(2000).create(&path).unwrap();
        let writer = log.writer().unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let mut reader = log.reader("one").unwrap();
        let waker = reader.waker().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (waker, stop) = (waker.clone(), &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        waker.wake();
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            scope.spawn(|| append_all(&writer, 0, 500));
            let mut tally = Tally::default();
            while tally.count() < 500 {
                // `None` comes from the waker.
                if let Some(batch) = reader.next_batch(Wait::Forever).unwrap() {
                    batch.iter().for_each(|message| tally.take(message.body()));
                }
            }
            // There is nothing left to read: only a waker ends this wait.
            assert!(reader.next_batch(Wait::Forever).unwrap().is_none());
            stop.store(true, Ordering::Relaxed);
            tally.assert(1, 500);
        });
        drop(reader);
        waker.wake();
    });
}

/// The thread that syncs at an interval does so while others append, and ends with the writer.
#[test]
fn a_ticking_writer_is_used_by_threads() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let log =
            Jlog::options().storage(unsynced()).segment_size(2000).pre_commit(300).create(&path).unwrap();
        let every = SyncPolicy::Interval(Duration::from_millis(1));
        for round in 0..3 {
            let writer = log.writer_with(WriterOptions::default().sync(every)).unwrap();
            in_threads(WRITERS, |n| append_all(&writer, round * WRITERS + n, 100));
            if round == 0 { writer.close().unwrap() } else { drop(writer) }
        }
        Tally::of(&read_all(&log)).assert(3 * WRITERS, 100);
    });
}

/// While a full segment is synced, appending continues until 16 segments wait. All of them are
/// synced in the end.
#[test]
fn appending_goes_on_while_a_full_segment_is_synced() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let (open, entered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let synced = Arc::new(AtomicUsize::new(0));
        let (gate, waits, counted) = (Arc::clone(&open), Arc::clone(&entered), Arc::clone(&synced));
        let storage = Faulty::storage(move |op| match op {
            Op::Sync(_) if op.is_segment() => {
                waits.store(true, Ordering::Release);
                while !gate.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                counted.fetch_add(1, Ordering::Relaxed);
                Fate::Pretend
            }
            Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
            _ => Fate::Proceed,
        });
        let log = Jlog::options().storage(storage).segment_size(100).create(&path).unwrap();
        let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::AfterRoll)).unwrap();
        let appended = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let appending = scope.spawn(|| {
                for n in 0..40u8 {
                    // Each message fills its segment.
                    writer.append([n; 100]).unwrap();
                    appended.fetch_add(1, Ordering::Relaxed);
                }
            });
            // The sync is blocked, so these appends return while it runs.
            while appended.load(Ordering::Relaxed) < 15 || !entered.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(appended.load(Ordering::Relaxed), 15, "the 16th waits");
            assert_eq!(synced.load(Ordering::Relaxed), 0);
            open.store(true, Ordering::Release);
            appending.join().unwrap();
        });
        writer.close().unwrap();
        assert!(synced.load(Ordering::Relaxed) >= 40, "{synced:?}");
        let bodies: Vec<Vec<u8>> = read_all(&log).into_iter().map(|got| got.body).collect();
        assert_eq!(bodies, (0..40u8).map(|n| vec![n; 100]).collect::<Vec<_>>());
    });
}

/// A sync that fails in the background is reported by the next call, and stays failed.
#[test]
fn a_sync_that_fails_in_the_background_is_reported() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let storage = Faulty::storage(|op| match op {
            Op::Sync(_) if op.is_segment() => Fate::Fail(std::io::ErrorKind::Other),
            _ => Fate::Proceed,
        });
        let log = Jlog::options().storage(storage).segment_size(100).create(&path).unwrap();
        let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::AfterRoll)).unwrap();
        let failed = loop {
            match writer.append([1; 100]) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => break e,
            }
        };
        assert!(matches!(failed, Error::SyncFailed { .. }), "{failed}");
        assert!(matches!(writer.append("x"), Err(Error::SyncFailed { .. })));
        assert!(matches!(writer.close(), Err(Error::SyncFailed { .. })));
    });
}

/// Many threads query one jlog while others write to it.
#[test]
fn a_jlog_is_asked_while_threads_append() {
    without_hanging(|| {
        let (_dir, path) = new_path();
        let log = Jlog::options().storage(unsynced()).segment_size(2000).create(&path).unwrap();
        log.subscribe("keeper", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let left = AtomicUsize::new(WRITERS as usize);
        in_threads(WRITERS + 2, |n| {
            if n < WRITERS {
                append_all(&writer, n, 200);
                left.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let name = format!("asks {n}");
            let mut records = 0;
            while left.load(Ordering::Relaxed) > 0 {
                log.subscribe(&name, Start::Beginning).unwrap();
                let status = log.status().unwrap();
                assert!(status.records >= records, "records are gone");
                records = status.records;
                assert!(log.lag("keeper").unwrap().messages <= u64::from(WRITERS * 200));
                assert!(log.end().unwrap().segment <= writer.segment());
                let verified = log.verify().unwrap();
                assert!(!verified.is_damaged(), "{:?}", verified.findings);
                assert!(log.unsubscribe(&name).unwrap());
                log.take_events();
            }
        });
        assert_eq!(log.lag("keeper").unwrap().messages, u64::from(WRITERS * 200));
        Tally::of(&read_all(&log)).assert(WRITERS, 200);
    });
}
