//! A repair is atomic, whatever fails or stops it; and no other operation loses anything when one
//! of its calls fails.

mod operations;
mod readers;
mod repair;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use jlog_core::storage::{Open, Posix, Storage};
use jlog_core::{Jlog, JlogOptions, LogId, OnDamage, Reader, ReaderOptions, Start, SubscriberName, Wait};
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

/// As `check_repaired`, but one subscriber has read on.
fn check_repaired_but(path: &Path, name: &str) {
    assert_eq!(Jlog::repair(path).unwrap(), []);
    let log = Jlog::open(path).unwrap();
    assert!(!log.verify().unwrap().is_damaged());
    for (other, done) in SUBSCRIBERS.iter().filter(|(other, _)| *other != name) {
        assert_eq!(consume(&log, other), expected(*done), "{other}");
    }
}

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
