//! Readers of one subscriber: which of them are refused, and when a claim ends.

use std::sync::atomic::{AtomicU32, Ordering};

use jlog_core::{Claim, Error, Jlog, Reader, ReaderOptions, Start, Wait, WriterOptions};

use crate::multiprocess::Worker;
use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{new_path, shared};

const ENOLCK: i32 = 37;

fn three_messages(path: &std::path::Path) -> Jlog {
    let log = Jlog::create(path).unwrap();
    for name in ["s", "other"] {
        log.subscribe(name, Start::Beginning).unwrap();
    }
    log.writer().unwrap().append_batch(&["one", "two", "three"]).unwrap();
    log
}

fn all(mut reader: Reader) -> Vec<String> {
    let mut got = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        got.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    got
}

fn buffered() -> WriterOptions {
    WriterOptions::default().pre_commit(4096)
}

fn claiming(claim: Claim) -> ReaderOptions {
    ReaderOptions::default().claim(claim)
}

#[track_caller]
fn assert_busy(reader: Result<Reader, Error>) {
    match reader.map(|_| ()) {
        Err(error @ Error::ReaderBusy { .. }) => {
            assert!(error.to_string().contains("subscriber \"s\""), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

const MESSAGES: [&str; 3] = ["one", "two", "three"];

#[test]
fn a_second_reader_of_a_subscriber_is_refused_by_default() {
    let (_dir, path) = new_path();
    let log = three_messages(&path);
    let first = log.reader("s").unwrap();
    assert_busy(log.reader("s"));
    assert_busy(Jlog::open(&path).unwrap().reader_with("s", shared()));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_busy(log.reader("s")));
    });
    // Readers of other subscribers, and readers that need no claim, are not refused.
    assert_eq!(all(log.reader("other").unwrap()), MESSAGES);
    assert_eq!(all(log.reader_with("s", ReaderOptions::default().peek(true)).unwrap()), MESSAGES);
    assert_eq!(all(log.reader_from(&Start::Beginning, ReaderOptions::default()).unwrap()), MESSAGES);
    assert_eq!(all(log.reader_with("s", claiming(Claim::None)).unwrap()), MESSAGES);
    assert_eq!(all(log.reader_with("s", claiming(Claim::IfFree)).unwrap()), MESSAGES);
    assert_eq!(log.status().unwrap().subscribers.len(), 2);
    assert_eq!(all(first), MESSAGES);
    assert_eq!(all(log.reader("s").unwrap()), MESSAGES);
}

#[test]
fn readers_that_share_a_subscriber_get_every_message_each() {
    let (_dir, path) = new_path();
    let log = three_messages(&path);
    let sharing = [log.reader_with("s", shared()).unwrap(), log.reader_with("s", shared()).unwrap()];
    assert_busy(log.reader("s"));
    for reader in sharing {
        assert_eq!(all(reader), MESSAGES);
    }
    // Such a reader is never refused, but visible.
    let if_free = log.reader_with("s", claiming(Claim::IfFree).peek(true)).unwrap();
    assert_busy(log.reader("s"));
    let another = log.reader_with("s", shared()).unwrap();
    drop(if_free);
    assert_busy(log.reader("s"));
    drop(another);
    log.reader("s").unwrap();
}

#[test]
fn a_claim_lasts_as_long_as_what_can_store_its_checkpoint() {
    let (_dir, path) = new_path();
    let log = three_messages(&path);
    let mut reader = log.reader("s").unwrap();
    let last = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
    let mut checkpointer = reader.checkpointer().unwrap();
    drop(reader);
    assert_busy(log.reader("s"));
    checkpointer.commit(last).unwrap();
    drop(checkpointer);
    assert_eq!(all(log.reader("s").unwrap()), [""; 0]);
    // A subscriber that is removed takes the claim with it.
    let old = log.reader("s").unwrap();
    log.unsubscribe("s").unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    assert_eq!(all(log.reader("s").unwrap()), MESSAGES);
    assert!(matches!(old.check_not_replaced(), Err(Error::Unsubscribed { .. })));
}

#[test]
fn a_killed_reader_has_no_claim() {
    let (_dir, path) = new_path();
    let log = three_messages(&path);
    let mut other = Worker::start("claim", &path, &["s"]);
    assert_eq!(other.hear(), "ready");
    assert_busy(log.reader("s"));
    other.kill();
    assert_eq!(all(log.reader("s").unwrap()), MESSAGES);
}

/// When a process is killed while it starts another one, that one has a copy of the descriptor for
/// a moment.
#[test]
fn a_lock_that_a_starting_process_keeps_for_a_moment_is_waited_for() {
    let (_dir, path) = new_path();
    drop(three_messages(&path).writer_with(buffered()).unwrap());
    for name in ["cp.73", "pre_commit.guard"] {
        let copy = std::fs::File::open(path.join(name)).unwrap();
        copy.lock().unwrap();
        let asked = AtomicU32::new(0);
        let storage = Faulty::every_call(move |op| {
            if matches!(op, Op::Guard(path) if path.ends_with(name))
                && asked.fetch_add(1, Ordering::Relaxed) == 2
            {
                copy.unlock().unwrap();
            }
            Fate::Proceed
        });
        let log = Jlog::options().storage(storage).open(&path).unwrap();
        drop(log.writer_with(buffered()).unwrap());
        assert_eq!(all(log.reader("s").unwrap()), MESSAGES);
    }
}

#[test]
fn a_file_system_without_locks_is_named() {
    let (_dir, path) = new_path();
    three_messages(&path);
    let storage = Faulty::every_call(|op| match op {
        Op::Guard(path) if path.ends_with("cp.73") => Fate::FailWith(ENOLCK),
        _ => Fate::Proceed,
    });
    let log = Jlog::options().storage(storage).open(&path).unwrap();
    for options in [ReaderOptions::default(), shared()] {
        let error = log.reader_with("s", options).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOLCK));
        assert!(
            error.to_string().starts_with(&format!("cannot lock {}", path.join("cp.73").display())),
            "{error}"
        );
    }
    for claim in [Claim::None, Claim::IfFree] {
        assert_eq!(all(log.reader_with("s", claiming(claim)).unwrap()), MESSAGES);
    }
}
