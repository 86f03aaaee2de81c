//! A repair is atomic, whatever fails or stops it; and no other operation loses anything when one
//! of its calls fails.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use jlog_core::storage::sim::{Dice, SimStorage};
use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{
    AlterOptions, CleanOptions, Error, Event, GroupOptions, Jlog, JlogOptions, LogId, OnDamage, Reader,
    ReaderOptions, Safety, Start, SubscriberName, Wait, WriterOptions,
};

use testkit::faulty::{Fate, Faulty, Op};

const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;
const ERRORS: [i32; 4] = [EIO, ENOSPC, EINTR, EAGAIN];

/// No call may take longer than this.
const HANGS: Duration = Duration::from_secs(20);

fn options(storage: &Arc<dyn Storage>) -> JlogOptions {
    Jlog::options().storage(Arc::clone(storage))
}

fn message(n: usize) -> String {
    format!("message {n} {}", "x".repeat(n % 7 * 3))
}

/// The numbers of the damaged messages, and of the message after which each subscriber must
/// continue.
const DAMAGED: [usize; 3] = [2, 7, 8];
const SUBSCRIBERS: [(&str, usize); 6] =
    [("first", 0), ("early", 2), ("before", 7), ("within", 8), ("behind", 10), ("last", 18)];
/// A subscriber whose checkpoint cannot be read: after a repair, it gets everything.
const UNREADABLE: &str = "unreadable";
const MESSAGES: usize = 18;

/// A jlog of three segments of six messages, two of them damaged.
fn make(storage: &Arc<dyn Storage>, path: &Path) {
    let log = options(storage).create(path).unwrap();
    let writer = log.writer().unwrap();
    let mut ids = vec![LogId::new(0, 0)];
    let mut places = Vec::new();
    let mut offset = 0;
    for n in 0..MESSAGES {
        if n % 6 == 0 && n > 0 {
            writer.roll().unwrap();
            offset = 0;
        }
        let id = writer.append(message(n)).unwrap().id().unwrap();
        ids.push(id);
        places.push((id.segment, offset));
        offset += 16 + message(n).len() as u64;
    }
    writer.close().unwrap();
    for (name, done) in SUBSCRIBERS {
        log.subscribe(name, Start::After(ids[done])).unwrap();
    }
    log.subscribe(UNREADABLE, Start::Beginning).unwrap();
    let checkpoint = SubscriberName::new(UNREADABLE).unwrap().checkpoint_file();
    let checkpoint = storage.open(&path.join(checkpoint), Open::Write).unwrap();
    checkpoint.set_len(4).unwrap();
    checkpoint.sync_data().unwrap();
    for n in DAMAGED {
        let (segment, offset) = places[n];
        let file = storage.open(&path.join(format!("{segment:08x}")), Open::Write).unwrap();
        // One record is damaged in its body, the others in their header.
        let at = if n == 2 { offset + 18 } else { offset };
        file.write_at(&[IoSlice::new(b"\x01\x02\x03")], at).unwrap();
        file.sync_data().unwrap();
    }
    // Sync everything, because power fails later.
    for name in storage.list(path).unwrap() {
        storage.open(&path.join(name), Open::Write).unwrap().sync_data().unwrap();
    }
    storage.sync_dir(path).unwrap();
}

/// A temporary directory, in memory if the system supports that: these tests sync thousands of
/// times.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn expected(done: usize) -> Vec<String> {
    (done..MESSAGES).filter(|n| !DAMAGED.contains(n)).map(message).collect()
}

fn read_on(reader: &mut Reader) -> Vec<String> {
    let mut got = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        got.extend(batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()));
    }
    got
}

fn consume(log: &Jlog, name: &str) -> Vec<String> {
    let options = ReaderOptions::default().on_damage(OnDamage::Skip).peek(true);
    read_on(&mut log.reader_with(name, options).unwrap())
}

/// Checks that every subscriber gets the messages that it has not had, once, whether the jlog was
/// repaired or not.
fn check_messages(storage: &Arc<dyn Storage>, path: &Path, what: &str) {
    let log = options(storage).open(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (name, done) in SUBSCRIBERS {
        assert_eq!(consume(&log, name), expected(done), "{what}: {name}");
    }
}

fn names(storage: &Arc<dyn Storage>, path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        storage.list(path).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Files that exist only during an operation.
fn left_over(names: &[String]) -> Vec<&String> {
    let unfinished = |name: &&String| {
        name.starts_with(".tmp-") || matches!(name.as_str(), "repair.journal" | "repair.lock")
    };
    names.iter().filter(unfinished).collect()
}

/// Checks that a repair without faults ends in a sound jlog, whatever its state was.
fn check_repaired(storage: &Arc<dyn Storage>, path: &Path, what: &str) {
    options(storage).repair(path).unwrap_or_else(|e| panic!("{what}: repaired again: {e}"));
    assert_eq!(options(storage).repair(path).unwrap(), [], "{what}: nothing is left to repair");
    check_messages(storage, path, what);
    let log = options(storage).open(path).unwrap();
    assert_eq!(consume(&log, UNREADABLE), expected(0), "{what}");
    let found = log.verify().unwrap();
    assert!(!found.is_damaged(), "{what}: {:?}", found.findings);
    assert_eq!(found.records, (MESSAGES - DAMAGED.len()) as u64, "{what}");
    assert_eq!(found.verified, found.records, "{what}: the checksums stay");
    let names = names(storage, path);
    assert_eq!(left_over(&names), Vec::<&String>::new(), "{what}");
    let kept = |stem: &str| names.iter().filter(|name| name.starts_with(stem)).count();
    assert_eq!((kept("00000000.broken-"), kept("00000001.broken-")), (1, 1), "{what}: {names:?}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Fails the test if the work does not end.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = channel();
    let thread = std::thread::spawn(move || done.send(work()).unwrap());
    match outcome.recv_timeout(HANGS) {
        Ok(outcome) => {
            thread.join().unwrap();
            outcome
        }
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => panic!("{what}: no outcome"),
        },
    }
}

/// The description of a call, for messages.
fn describe(op: Op<'_>) -> String {
    format!("{op:?}").replace(op_dir(op).as_str(), "…")
}

fn op_dir(op: Op<'_>) -> String {
    op.path().parent().map(|dir| dir.display().to_string()).unwrap_or_default()
}

/// Does something again and again on copies of a jlog, each time with a different call failing,
/// until every call has failed once.
fn each_fault<T: Send + 'static>(
    template: &Path,
    operation: impl Fn(&Arc<dyn Storage>, &Path) -> T + Send + Sync + 'static,
    check: impl Fn(&Path, T, &str),
) -> u64 {
    let operation = Arc::new(operation);
    let mut runs = 0;
    for error in ERRORS {
        for at in 0.. {
            let dir = scratch();
            let path = dir.path().join("feed");
            copy(template, &path);
            let calls = AtomicU64::new(0);
            let failed = Arc::new(std::sync::Mutex::new(None));
            let hit = Arc::clone(&failed);
            let storage = Faulty::every_call(move |op| {
                if calls.fetch_add(1, Ordering::Relaxed) != at {
                    return Fate::Proceed;
                }
                *hit.lock().unwrap() = Some(describe(op));
                Fate::FailWith(error)
            });
            let (work, to) = (Arc::clone(&operation), path.clone());
            let outcome = in_time(&format!("error {error} of call {at}"), move || work(&storage, &to));
            let Some(op) = failed.lock().unwrap().take() else { break };
            runs += 1;
            check(&path, outcome, &format!("error {error} of call {at}, {op}"));
        }
    }
    runs
}

fn posix() -> Arc<dyn Storage> {
    Arc::new(Posix)
}

fn template() -> (tempfile::TempDir, PathBuf) {
    let dir = scratch();
    let path = dir.path().join("feed");
    make(&posix(), &path);
    (dir, path)
}

#[test]
fn a_repair_happens_or_does_not_whichever_call_fails() {
    let (_dir, path) = template();
    let before = names(&posix(), &path);
    let done = std::sync::Mutex::new((0, 0, 0));
    let runs = each_fault(
        &path,
        |storage, path| options(storage).repair(path).map_err(|e| e.to_string()),
        |path, outcome, what| {
            let storage = posix();
            let now = names(&storage, path);
            let happened = now.iter().any(|name| name == "repair.journal");
            let mut counts = done.lock().unwrap();
            match &outcome {
                Ok(_) => counts.0 += 1,
                Err(_) if happened => counts.1 += 1,
                Err(_) => {
                    counts.2 += 1;
                    assert_eq!(now, before, "{what}: {outcome:?} and nothing has changed");
                }
            }
            if outcome.is_ok() {
                assert_eq!(left_over(&now), Vec::<&String>::new(), "{what}");
            }
            // A copy has different inodes, and must be repairable, too.
            let copied = path.with_extension("copy");
            copy(path, &copied);
            check_messages(&storage, path, what);
            let after = names(&storage, path);
            assert_eq!(left_over(&after), Vec::<&String>::new(), "{what}: whoever opens it finishes it");
            check_repaired(&storage, path, what);
            check_repaired(&storage, &copied, &format!("{what}, copied"));
        },
    );
    let (succeeded, finished_later, nothing) = *done.lock().unwrap();
    assert!(runs > 400, "{runs} faults");
    assert!(
        succeeded > 0 && finished_later > 20 && nothing > 100,
        "{succeeded} {finished_later} {nothing} of {runs}"
    );
}

/// Tries the state of the disk after a kill or a power failure at each call that changes it.
#[test]
fn a_repair_happens_or_does_not_whenever_it_is_stopped() {
    let disk = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let path = Path::new("/feed");
    make(&storage, path);
    disk.record();
    options(&storage).repair(path).unwrap();
    let moments = disk.moments();
    assert!(moments.len() > 50, "{} moments", moments.len());
    for (n, moment) in moments.iter().enumerate() {
        for seed in 0..6 {
            let mut dice = Dice::new(1000 * n as u64 + seed);
            let (after, cause) = match seed {
                0 => (moment.after_kill(&mut dice), "killed"),
                _ => (moment.after_power_loss(&mut dice), "power lost"),
            };
            let storage: Arc<dyn Storage> = Arc::new(after);
            let what = format!("{cause} at call {n}, seed {seed}");
            // The next process is a subscriber, a writer, or another repair.
            match (n as u64 + seed) % 3 {
                0 => check_messages(&storage, path, &what),
                1 => drop(options(&storage).open(path).unwrap().writer().unwrap()),
                _ => {}
            }
            // A part of an interrupted write may be left, but only under its temporary name.
            check_repaired(&storage, path, &what);
        }
    }
}

/// A second stop, while a process finishes what the first one has left.
#[test]
fn what_finishes_a_repair_can_be_stopped_too() {
    let disk = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let path = Path::new("/feed");
    make(&storage, path);
    disk.record();
    options(&storage).repair(path).unwrap();
    let mut stopped = 0;
    for (n, moment) in disk.moments().iter().enumerate() {
        let again = moment.after_power_loss(&mut Dice::new(n as u64));
        let storage: Arc<dyn Storage> = Arc::new(again.clone());
        if !names(&storage, path).contains(&"repair.journal".to_owned()) {
            continue;
        }
        again.record();
        options(&storage).open(path).unwrap();
        for (m, moment) in again.moments().iter().enumerate() {
            stopped += 1;
            for seed in 0..2 {
                let mut dice = Dice::new(seed + 7 * m as u64);
                let disk =
                    if seed == 0 { moment.after_kill(&mut dice) } else { moment.after_power_loss(&mut dice) };
                let storage: Arc<dyn Storage> = Arc::new(disk);
                check_repaired(&storage, path, &format!("stopped at {n}, then at {m}, seed {seed}"));
            }
        }
    }
    assert!(stopped > 100, "{stopped}");
}

/// A file system that stops at a call: this call and every later one fail.
fn stopping(when: impl Fn(Op<'_>) -> bool + Send + Sync + 'static) -> Arc<dyn Storage> {
    let stopped = AtomicU64::new(0);
    Faulty::every_call(move |op| {
        if stopped.load(Ordering::Relaxed) == 1 || when(op) {
            stopped.store(1, Ordering::Relaxed);
            return Fate::FailWith(EIO);
        }
        Fate::Proceed
    })
}

/// Stops a repair after it took effect, before it has moved any file.
fn interrupted(path: &Path) {
    let journal = |op: Op<'_>| matches!(op, Op::Rename { .. }) && op.name() == "repair.journal";
    let seen = AtomicU64::new(0);
    let storage = stopping(move |op| {
        seen.load(Ordering::Relaxed) >= 1
            && matches!(op, Op::SyncDir(_))
            && seen.fetch_add(1, Ordering::Relaxed) == 2
            || (journal(op) && {
                seen.store(1, Ordering::Relaxed);
                false
            })
    });
    assert!(options(&storage).repair(path).is_err());
    assert!(path.join("repair.journal").exists());
}

#[test]
fn a_repair_that_was_cut_short_is_finished_by_whoever_opens_the_jlog() {
    let (_dir, template) = template();
    for opener in ["reader", "writer", "verify", "lag", "repair"] {
        let dir = scratch();
        let path = dir.path().join("feed");
        copy(&template, &path);
        // The jlog was opened before.
        let log = Jlog::open(&path).unwrap();
        interrupted(&path);
        match opener {
            "reader" => drop(log.reader("first").unwrap()),
            "writer" => drop(log.writer().unwrap()),
            "verify" => assert!(!Jlog::open(&path).unwrap().verify().unwrap().is_damaged()),
            "lag" => assert_eq!(Jlog::open(&path).unwrap().lag("first").unwrap().messages, 15),
            _ => {
                let done = Jlog::repair(&path).unwrap();
                let segments =
                    done.iter().filter(|event| matches!(event, Event::SegmentRepaired { .. })).count();
                assert_eq!(segments, 2, "it reports what it has finished: {done:?}");
            }
        }
        assert_eq!(left_over(&names(&posix(), &path)), Vec::<&String>::new(), "{opener}");
        check_repaired(&posix(), &path, opener);
    }
}

/// The subscriber stores its checkpoint after the repair took effect and before it is finished.
#[test]
fn a_reader_that_was_open_finishes_a_repair_before_it_stores_anything() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", ReaderOptions::default().on_damage(OnDamage::Skip)).unwrap();
    let batch = reader.next_batch(Wait::No).unwrap().unwrap();
    let last = batch.last_id();
    let seen = batch.iter().count();
    interrupted(&path);
    reader.commit(last).unwrap();
    assert_eq!(consume(&log, "first"), expected(0)[seen..]);
    check_repaired_but(&path, "first");
}

/// As `check_repaired`, but one subscriber has read on.
fn check_repaired_but(path: &Path, name: &str) {
    assert_eq!(Jlog::repair(path).unwrap(), []);
    let log = Jlog::open(path).unwrap();
    assert!(!log.verify().unwrap().is_damaged());
    for (other, done) in SUBSCRIBERS.iter().filter(|(other, _)| *other != name) {
        assert_eq!(consume(&log, other), expected(*done), "{other}");
    }
}

#[test]
fn who_may_not_write_hears_that_a_repair_is_not_finished() {
    let (_dir, path) = template();
    interrupted(&path);
    // A read-only file system.
    let storage = Faulty::every_call(|op| if op.changes() { Fate::FailWith(30) } else { Fate::Proceed });
    let error = options(&storage).open(&path).unwrap_err();
    assert!(matches!(error, Error::RepairUnfinished { .. }), "{error}");
    assert!(error.to_string().contains("run `jlog repair`"), "{error}");
    check_repaired(&posix(), &path, "afterwards");
}

#[test]
fn a_damaged_journal_is_kept_aside_and_everything_is_looked_at_again() {
    let (_dir, path) = template();
    interrupted(&path);
    let journal = path.join("repair.journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[30] ^= 4;
    std::fs::write(&journal, &bytes).unwrap();
    let error = Jlog::open(&path).unwrap_err();
    assert!(error.to_string().contains("its journal is damaged"), "{error}");
    check_repaired(&posix(), &path, "with a damaged journal");
    assert_eq!(std::fs::read(path.join("repair.journal.broken-0")).unwrap(), bytes);
}

/// Messages that a C writer appends after the repair took effect and before it is finished are in
/// the old file.
#[test]
fn what_was_appended_since_is_taken_along() {
    let (_dir, path) = template();
    interrupted(&path);
    let segment = path.join("00000002");
    let mut bytes = std::fs::read(&segment).unwrap();
    // An undamaged segment is not replaced, and keeps what is appended. The damaged one before it
    // must not lose it either.
    let damaged = path.join("00000001");
    let mut old = std::fs::read(&damaged).unwrap();
    let record = bytes[..16 + message(12).len()].to_vec();
    old.extend_from_slice(&record);
    bytes.extend_from_slice(&record);
    std::fs::write(&damaged, &old).unwrap();
    std::fs::write(&segment, &bytes).unwrap();
    let log = Jlog::open(&path).unwrap();
    let mut all = expected(0);
    let behind = all.iter().position(|m| *m == message(12)).unwrap();
    all.push(message(12));
    all.insert(behind, message(12));
    assert_eq!(consume(&log, "first"), all);
}

#[test]
fn two_repairs_exclude_each_other_even_without_a_metastore() {
    let (_dir, path) = template();
    std::fs::remove_file(path.join("metastore")).unwrap();
    let (other, outcomes) = (path.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let heard = Arc::clone(&outcomes);
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Rename { .. }) && (op.name() == "repair.journal" || op.name() == "metastore") {
            let outcome = Jlog::repair(&other).map_err(|e| e.to_string());
            heard.lock().unwrap().push(outcome);
        }
        Fate::Proceed
    });
    let done = options(&storage).repair(&path).unwrap();
    assert!(done.iter().any(|event| matches!(event, Event::MetastoreRepaired { .. })), "{done:?}");
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes.iter() {
        let error = outcome.as_ref().unwrap_err();
        assert!(error.contains("is being repaired by another process"), "{error}");
    }
    check_repaired(&posix(), &path, "after two");
}

/// The leftovers of a lost segment can only be read with a metastore. They do not keep repair from
/// rebuilding a lost one.
#[test]
fn what_is_left_of_a_lost_segment_stops_no_repair_of_the_metastore() {
    let (_dir, path) = template();
    for name in ["metastore", "00000001"] {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    let done = Jlog::repair(&path).unwrap();
    assert!(done.iter().any(|event| matches!(event, Event::MetastoreRepaired { .. })), "{done:?}");
    assert!(done.iter().any(|event| matches!(event, Event::SegmentsLost { .. })), "{done:?}");
    assert!(!path.join("00000001.crc").exists());
    let left: Vec<String> = expected(0).into_iter().filter(|m| !(6..12).any(|n| *m == message(n))).collect();
    assert_eq!(consume(&Jlog::open(&path).unwrap(), "first"), left);
}

/// The next writer removes what a repair left that was killed before it took effect.
#[test]
fn what_a_killed_repair_has_prepared_is_swept() {
    let (_dir, path) = template();
    for name in [".tmp-repair-1-1", "repair.lock"] {
        std::fs::write(path.join(name), "left").unwrap();
    }
    drop(Jlog::open(&path).unwrap().writer().unwrap());
    assert_eq!(left_over(&names(&posix(), &path)), Vec::<&String>::new());
}

/// Only C processes open segments for writing to read them, and nobody could translate the
/// checkpoints that they store after the repair.
#[test]
fn a_repair_is_refused_while_a_c_process_has_a_damaged_segment_open() {
    let (_dir, path) = template();
    let before = names(&posix(), &path);
    let log = Jlog::open(&path).unwrap();
    let mut ours = log.reader_with("first", skipping()).unwrap();
    let (first, _) = read_some(&mut ours, 1);
    for (number, damaged) in [(0, true), (1, true), (2, false)] {
        let segment = path.join(format!("{number:08x}"));
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
        let copied = path.with_extension(format!("copy {number}"));
        if damaged {
            let error = Jlog::repair(&path).unwrap_err();
            assert!(matches!(&error, Error::InUse { path } if *path == segment), "{error}");
            assert_eq!(names(&posix(), &path), before);
            drop(open);
        } else {
            copy(&path, &copied);
            let _open = std::fs::OpenOptions::new().write(true).open(copied.join("00000002")).unwrap();
            check_repaired(&posix(), &copied, "with a sound segment open");
        }
    }
    let _open = std::fs::OpenOptions::new().write(true).open(path.join("00000001")).unwrap();
    Jlog::options().repair_in_use(true).repair(&path).unwrap();
    check_repaired(&posix(), &path, "all the same");
    assert_eq!(read_some(&mut ours, 99).0, expected(0)[first.len()..]);
}

/// A subscriber that is added during a repair begins at the requested record.
#[test]
fn a_subscriber_that_comes_during_a_repair_begins_at_its_record() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let (at, other) = (path.clone(), Arc::new(std::sync::Mutex::new(())));
    // The repair runs after the subscriber's place was found, and before it is added.
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Link { .. })
            && op.name().starts_with("cp.")
            && let Ok(_once) = other.try_lock()
        {
            Jlog::repair(&at).unwrap();
        }
        Fate::Proceed
    });
    let after = LogId::new(1, 5);
    options(&storage).open(&path).unwrap().subscribe("new", Start::After(after)).unwrap();
    assert_eq!(consume(&log, "new"), expected(11));
    check_repaired(&posix(), &path, "afterwards");
}

// Readers that are open during a repair.

fn skipping() -> ReaderOptions {
    ReaderOptions::default().on_damage(OnDamage::Skip).batch_bytes(1)
}

/// Reads this many messages, one by one; returns them and the last one's id.
fn read_some(reader: &mut Reader, count: usize) -> (Vec<String>, LogId) {
    let (mut got, mut last) = (Vec::new(), reader.position());
    while got.len() < count {
        let Some(batch) = reader.next_batch(Wait::No).unwrap() else { break };
        last = batch.last_id();
        got.extend(batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()));
    }
    (got, last)
}

/// For every number of messages read before a repair, and checkpoints stored before and after it,
/// this reader and the next one skip nothing and repeat nothing.
#[test]
fn a_reader_at_work_keeps_its_place_through_a_repair() {
    let (_dir, template) = template();
    let all = expected(0);
    for read in 0..=all.len() {
        for stored_before in [false, true] {
            for stored_after in [false, true] {
                let what = format!("{read} read, stored before: {stored_before}, after: {stored_after}");
                let dir = scratch();
                let path = dir.path().join("feed");
                copy(&template, &path);
                let log = Jlog::open(&path).unwrap();
                let mut reader = log.reader_with("first", skipping()).unwrap();
                let mut done = 0;
                let (mut got, mut last) = read_some(&mut reader, read / 2);
                if stored_before {
                    reader.commit(last).unwrap();
                    done = got.len();
                }
                if read > got.len() {
                    let (more, id) = read_some(&mut reader, read - got.len());
                    got.extend(more);
                    last = id;
                }
                Jlog::repair(&path).unwrap();
                if stored_after {
                    reader.commit(last).unwrap();
                    done = got.len();
                }
                assert_eq!(consume(&log, "first"), all[done..], "{what}: the next reader");
                let (rest, end) = read_some(&mut reader, usize::MAX);
                got.extend(rest);
                assert_eq!(got, all, "{what}: the same reader");
                reader.commit(end).unwrap();
                assert_eq!(consume(&log, "first"), Vec::<String>::new(), "{what}: everything is done");
                check_repaired_but(&path, "first");
                let writer = log.writer().unwrap();
                writer.append("news").unwrap();
                writer.close().unwrap();
                assert_eq!(read_some(&mut reader, 9).0, ["news"], "{what}");
                assert_eq!(consume(&log, "first"), ["news"], "{what}");
            }
        }
    }
}

/// Two repairs, one after the other, and a reader that has noticed neither.
#[test]
fn an_id_is_followed_through_several_repairs() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", skipping()).unwrap();
    let (got, last) = read_some(&mut reader, 9);
    Jlog::repair(&path).unwrap();
    // Damage the first record of the segment that the reader is in.
    let file = Posix.open(&path.join("00000001"), Open::Write).unwrap();
    file.write_at(&[IoSlice::new(b"\x01\x02\x03")], 0).unwrap();
    drop(file);
    Jlog::repair(&path).unwrap();
    reader.commit(last).unwrap();
    assert_eq!(consume(&log, "first"), expected(0)[got.len()..]);
    assert_eq!(read_some(&mut reader, 99).0, expected(0)[got.len()..]);
}

/// Another file has taken a segment's place, and nothing shows the earlier ids of its records.
#[test]
fn an_id_of_a_segment_that_was_replaced_is_refused() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", skipping()).unwrap();
    let (_, last) = read_some(&mut reader, 9);
    let before = log.checkpoint("first").unwrap();
    let segment = path.join("00000001");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(path.join("new"), bytes).unwrap();
    std::fs::rename(path.join("new"), &segment).unwrap();
    let error = reader.commit(last).unwrap_err();
    assert!(matches!(error, Error::StaleId { id, .. } if id == last), "{error}");
    assert_eq!(log.checkpoint("first").unwrap(), before);
}

/// A reader that continues in the old file must not use the new checksums for it: damaged records
/// there stay damaged.
#[test]
fn the_new_checksums_are_not_used_beside_the_old_segment() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    for n in 0..6 {
        let mut reader = log.reader_with("first", skipping()).unwrap();
        let (mut got, _) = read_some(&mut reader, n);
        if n == 1 {
            Jlog::repair(&path).unwrap();
        }
        got.extend(read_some(&mut reader, 99).0);
        assert_eq!(got, expected(0), "{n}");
    }
}

/// Markers are translated as long as the segment exists.
#[test]
fn the_record_of_a_repair_goes_with_its_segment() {
    let (_dir, path) = template();
    Jlog::repair(&path).unwrap();
    let records = || -> Vec<String> {
        names(&posix(), &path).into_iter().filter(|name| name.ends_with(".repaired")).collect()
    };
    assert_eq!(records(), ["00000000.repaired", "00000001.repaired"]);
    let log = Jlog::open(&path).unwrap();
    for (name, _) in SUBSCRIBERS.iter().chain([&(UNREADABLE, 0)]) {
        log.set_checkpoint(name, LogId::new(1, 0)).unwrap();
    }
    assert_eq!(records(), ["00000001.repaired"]);
}

// Every other operation, while each of its calls fails once.

/// A sound jlog, its messages, and what its subscriber has left to read.
fn sound() -> (tempfile::TempDir, PathBuf) {
    let dir = scratch();
    let path = dir.path().join("feed");
    let log = Jlog::options().segment_size(120).safety(Safety::Safe).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..8 {
        writer.append(message(n)).unwrap();
    }
    writer.close().unwrap();
    (dir, path)
}

fn check_sound(path: &Path, what: &str) -> Jlog {
    let log = Jlog::open(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = log.verify().unwrap();
    assert!(!found.is_damaged(), "{what}: {:?}", found.findings);
    let names = names(&posix(), path);
    assert_eq!(left_over(&names), Vec::<&String>::new(), "{what}");
    log
}

#[test]
fn nothing_acknowledged_is_lost_whichever_call_of_a_writer_fails() {
    let (_dir, path) = sound();
    for buffer in [0, 64] {
        let runs = each_fault(
            &path,
            move |storage, path| {
                let mut acknowledged = Vec::new();
                let mut synced = false;
                let append = |acknowledged: &mut Vec<String>, synced: &mut bool| -> jlog_core::Result<()> {
                    let log = options(storage).open(path)?;
                    let writer = log.writer_with(WriterOptions::default().pre_commit(buffer))?;
                    for n in 100..106 {
                        writer.append(message(n))?;
                        acknowledged.push(message(n));
                    }
                    writer.sync()?;
                    *synced = true;
                    writer.close()
                };
                let outcome = append(&mut acknowledged, &mut synced).map_err(|e| e.to_string());
                (outcome, acknowledged)
            },
            |path, (outcome, acknowledged), what| {
                // The next writer moves the buffer's contents to a segment.
                Jlog::open(path).unwrap().writer().unwrap().close().unwrap();
                let log = check_sound(path, what);
                let got = consume(&log, "one");
                let mut wanted: Vec<String> = (0..8).map(message).collect();
                wanted.extend(acknowledged);
                let more = got.len() - wanted.len().min(got.len());
                assert_eq!(got[..wanted.len().min(got.len())], wanted, "{what}: {outcome:?}");
                assert!(more <= 1, "{what}: {outcome:?}: {got:?}");
            },
        );
        assert!(runs > 100, "{runs}");
    }
}

#[test]
fn nothing_is_skipped_whichever_call_of_a_reader_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            let mut done = Vec::new();
            let mut attempted = Vec::new();
            let mut kept = None;
            let read = |done: &mut Vec<String>,
                        attempted: &mut Vec<String>,
                        kept: &mut Option<Reader>|
             -> jlog_core::Result<()> {
                let log = options(storage).open(path)?;
                let reader = kept.insert(log.reader_with("one", ReaderOptions::default().batch_bytes(1))?);
                loop {
                    let Some(batch) = reader.next_batch(Wait::No)? else { return Ok(()) };
                    let got: Vec<String> =
                        batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()).collect();
                    let last = batch.last_id();
                    attempted.extend(got.iter().cloned());
                    reader.commit(last)?;
                    done.extend(got);
                }
            };
            let outcome = read(&mut done, &mut attempted, &mut kept).map_err(|e| e.to_string());
            // The first reader is still open, with any locks that it has.
            let rest = consume(&Jlog::open(path).unwrap(), "one");
            (outcome, done, attempted, rest)
        },
        |path, (outcome, done, attempted, rest), what| {
            let all: Vec<String> = (0..8).map(message).collect();
            let done_all = [done, rest.clone()].concat();
            // A checkpoint may have been stored although storing it failed.
            let attempted_all = [attempted, rest].concat();
            assert!(done_all == all || attempted_all == all, "{what}: {outcome:?} {done_all:?}");
            check_sound(path, what);
        },
    );
    assert!(runs > 100, "{runs}");
}

#[test]
fn no_administrative_command_does_harm_whichever_of_its_calls_fails() {
    type Command = fn(&Jlog) -> jlog_core::Result<()>;
    let commands: [(&str, Command); 13] = [
        ("verify", |log| log.verify().map(|_| ())),
        ("clean", |log| log.clean(CleanOptions::default()).map(|_| ())),
        ("clean and roll", |log| log.clean(CleanOptions::default().roll(true)).map(|_| ())),
        ("alter", |log| {
            log.alter(AlterOptions::default().segment_size(4096).pre_commit(512).safety(Safety::AlmostSafe))
        }),
        ("limits", |log| log.set_checksums(false)),
        ("subscribe", |log| log.subscribe("new", Start::Beginning).map(|_| ())),
        ("status", |log| log.status().map(|_| ())),
        ("meta", |log| log.meta().map(|_| ())),
        ("inspect", |log| log.inspect(0, |_| ()).map(|_| ())),
        ("unsubscribe", |log| log.unsubscribe("two").map(|_| ())),
        ("seek", |log| log.set_checkpoint("two", LogId::new(1, 1))),
        ("cat", |log| {
            let mut reader = log.reader_from(&Start::Beginning, ReaderOptions::default())?;
            let mut got = Vec::new();
            while let Some(batch) = reader.next_batch(Wait::No)? {
                got.extend(batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()));
            }
            assert_eq!(got, (0..8).map(message).collect::<Vec<_>>(), "it ends without an error");
            Ok(())
        }),
        ("work", |log| {
            let mut group = log.group("two", GroupOptions::default())?;
            for leased in group.lease(100, Wait::No)? {
                assert!(group.acknowledge(leased.lease())?);
            }
            Ok(())
        }),
    ];
    let (_dir, path) = sound();
    Jlog::open(&path).unwrap().subscribe("two", Start::Beginning).unwrap();
    for (name, command) in commands {
        let runs = each_fault(
            &path,
            move |storage, path| {
                let outcome = options(storage).open(path).and_then(|log| command(&log));
                outcome.map_err(|e| e.to_string())
            },
            |path, outcome, what| {
                let what = format!("{name}: {what}: {outcome:?}");
                let log = check_sound(path, &what);
                let all: Vec<String> = (0..8).map(message).collect();
                assert_eq!(consume(&log, "one"), all, "{what}");
                let two = log.has_subscriber("two").unwrap().then(|| consume(&log, "two"));
                match name {
                    "unsubscribe" => {
                        assert!(two.is_none() || outcome.is_err(), "{what}");
                        assert!(two.is_none_or(|two| two == all), "{what}");
                    }
                    "seek" => {
                        let two = two.unwrap();
                        assert!(two == all[5..] || outcome.is_err() && two == all, "{what}: {two:?}");
                    }
                    // What was not acknowledged is delivered again.
                    "work" => {
                        let two = two.unwrap();
                        assert!(
                            all.ends_with(&two) && (outcome.is_err() || two.is_empty()),
                            "{what}: {two:?}"
                        );
                    }
                    _ => assert_eq!(two, Some(all), "{what}"),
                }
                if name == "subscribe" {
                    let ids: BTreeMap<String, Option<LogId>> =
                        log.checkpoints().unwrap().into_iter().map(|(n, id)| (n.to_string(), id)).collect();
                    assert!(ids.get("new").is_none_or(|id| *id == Some(LogId::new(0, 0))), "{what}");
                    assert!(outcome.is_err() || ids.contains_key("new"), "{what}");
                }
                log.writer().unwrap().append("more").unwrap();
                assert_eq!(consume(&log, "one").last().map(String::as_str), Some("more"), "{what}");
            },
        );
        assert!(runs > 8, "{name}: {runs}");
    }
}

/// A jlog that is created exists and is sound, or nothing is left of it that keeps another attempt
/// from creating it.
#[test]
fn a_jlog_is_created_or_can_be_created_again_whichever_call_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            options(storage).create(path.with_file_name("new")).map(drop).map_err(|e| e.to_string())
        },
        |path, outcome, what| {
            let new = path.with_file_name("new");
            let log = match outcome {
                Ok(()) => Jlog::open(&new).unwrap_or_else(|e| panic!("{what}: {e}")),
                Err(_) => Jlog::create_or_open(&new).unwrap_or_else(|e| panic!("{what}: {e}")),
            };
            log.subscribe("s", Start::Beginning).unwrap();
            log.writer().unwrap().append("first").unwrap();
            assert_eq!(consume(&log, "s"), ["first"], "{what}");
            check_sound(&new, what);
        },
    );
    assert!(runs > 8, "{runs}");
}

/// A copy is whole, or does not exist; and the jlog that is copied stays as it is.
#[test]
fn a_copy_is_whole_or_does_not_exist_whichever_call_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            let log = options(storage).open(path).map_err(|e| e.to_string())?;
            log.backup(path.with_file_name("copy")).map(drop).map_err(|e| e.to_string())
        },
        |path, outcome, what| {
            let all: Vec<String> = (0..8).map(message).collect();
            let copy = path.with_file_name("copy");
            assert!(outcome.is_err() || copy.exists(), "{what}");
            if copy.exists() {
                assert_eq!(consume(&check_sound(&copy, what), "one"), all, "{what}: {outcome:?}");
            }
            let log = check_sound(path, what);
            assert_eq!(consume(&log, "one"), all, "{what}");
            // A copy that succeeds leaves the next one nothing to tidy up.
            let _ = std::fs::remove_dir_all(&copy);
            log.backup(&copy).unwrap_or_else(|e| panic!("{what}: {e}"));
            let dir: Vec<_> =
                std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(dir.len(), 2, "{what}: {dir:?}");
        },
    );
    assert!(runs > 50, "{runs}");
}
