//! Groups of workers ([`jlog_core::Group`]): their effects on the file, the checkpoint and the
//! feed. A model in jlog-core checks their rules, and the tests of `jlog work` kill workers.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jlog_core::{
    AtLimit, Claim, Error, Group, GroupOptions, Jlog, Leased, Limits, LogId, ReaderOptions, Start, Wait,
};
use tempfile::TempDir;

fn feed(messages: u32) -> (TempDir, Jlog) {
    let dir = tempfile::tempdir().unwrap();
    let log = Jlog::options().segment_size(256).create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    append(&log, 0..messages);
    (dir, log)
}

fn append(log: &Jlog, messages: std::ops::Range<u32>) {
    let bodies: Vec<String> = messages.map(|n| format!("message {n}")).collect();
    log.writer().unwrap().append_batch(&bodies).unwrap();
}

fn group(log: &Jlog) -> Group {
    log.group("s", GroupOptions::default()).unwrap()
}

fn lease(group: &mut Group, most: usize) -> Vec<Leased> {
    group.lease(most, Wait::No).unwrap()
}

/// The numbers of messages.
fn numbers(leased: &[Leased]) -> Vec<u32> {
    let number = |message: &Leased| {
        let text = String::from_utf8(message.body().to_vec()).unwrap();
        text.strip_prefix("message ").unwrap().parse().unwrap()
    };
    leased.iter().map(number).collect()
}

fn behind(log: &Jlog) -> u64 {
    log.lag("s").unwrap().messages
}

fn file(log: &Jlog) -> std::path::PathBuf {
    log.path().join("gr.73")
}

#[test]
fn the_checkpoint_follows_the_oldest_message_that_is_not_done() {
    let (_dir, log) = feed(50);
    let (mut a, mut b) = (group(&log), group(&log));
    let of_a = lease(&mut a, 10);
    let of_b = lease(&mut b, 100);
    assert_eq!((numbers(&of_a), numbers(&of_b)), ((0..10).collect(), (10..50).collect()));
    for message in of_b.iter().rev() {
        assert!(b.acknowledge(message.lease()).unwrap());
    }
    assert_eq!(behind(&log), 50);
    for (n, message) in (1..).zip(&of_a[..9]) {
        assert!(a.acknowledge(message.lease()).unwrap());
        assert_eq!(behind(&log), 50 - n);
    }
    assert!(!a.is_done().unwrap() && a.acknowledge(of_a[9].lease()).unwrap());
    assert_eq!((behind(&log), a.is_done().unwrap(), lease(&mut b, 1).len()), (0, true, 0));
    assert_eq!(log.segments().unwrap().len(), 1, "segments that everybody has passed are gone");
    append(&log, 50..51);
    assert_eq!(numbers(&lease(&mut a, 5)), [50]);
}

#[test]
fn what_workers_have_survives_them_and_comes_again_in_time() {
    let (_dir, log) = feed(3);
    let options = GroupOptions::default().lease(Duration::from_millis(200));
    let mut gone = log.group("s", options.clone()).unwrap();
    let had = gone.lease(2, Wait::No).unwrap();
    drop(gone);
    let mut next = log.group("s", options.clone()).unwrap();
    assert_eq!(numbers(&next.lease(9, Wait::No).unwrap()), [2]);
    let mut again = Vec::new();
    while again.len() < 2 {
        again.extend(
            next.lease(9, Wait::Forever)
                .unwrap()
                .into_iter()
                .filter(|message| message.id() != LogId::new(0, 3)),
        );
    }
    again.sort_by_key(Leased::id);
    again.dedup_by_key(|message| message.id());
    assert!(again.iter().all(|message| message.deliveries() >= 2));
    let mut late = log.group("s", options).unwrap();
    assert!(
        had.iter().all(|message| !late.acknowledge(message.lease()).unwrap()),
        "they are another worker's"
    );
}

#[test]
fn messages_of_a_key_come_one_after_the_other_and_the_window_is_kept() {
    let (_dir, log) = feed(30);
    // Even numbers have one key, odd ones none.
    let key = |body: &[u8]| (body.last()? % 2 == 0).then(|| b"even".to_vec());
    let mut group = log.group("s", GroupOptions::default().key(key).window(10)).unwrap();
    let mut first = lease(&mut group, 100);
    assert_eq!(numbers(&first), [0, 1, 3, 5, 7, 9], "ten are looked at");
    let even = first.remove(0);
    assert!(group.give_back(even.lease(), Duration::ZERO).unwrap());
    let again = lease(&mut group, 100);
    assert_eq!((numbers(&again), again[0].deliveries()), (vec![0], 2));
    assert!(group.acknowledge(again[0].lease()).unwrap());
    assert_eq!(numbers(&lease(&mut group, 100)), [2]);
    for odd in first {
        assert!(group.acknowledge(odd.lease()).unwrap());
    }
    assert_eq!(numbers(&lease(&mut group, 100)), [11], "the window begins with the second message");
}

#[test]
fn a_wait_ends_with_a_message_a_return_or_the_waker() {
    let (_dir, log) = feed(1);
    let (mut a, mut b) = (group(&log), group(&log));
    let had = lease(&mut a, 1);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let first = numbers(&b.lease(1, Wait::Forever).unwrap());
            let second = numbers(&b.lease(1, Wait::Forever).unwrap());
            (first, second)
        });
        append(&log, 1..2);
        a.give_back(had[0].lease(), Duration::from_millis(20)).unwrap();
        let (first, second) = waits.join().unwrap();
        assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([vec![0], vec![1]]));
    });
    let waker = b.waker().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| b.lease(1, Wait::Forever).unwrap().len());
        waker.wake();
        assert_eq!(waits.join().unwrap(), 0);
    });
    assert!(group(&log).lease(1, Wait::Timeout(Duration::from_millis(10))).unwrap().is_empty());
}

#[test]
fn a_subscriber_that_is_moved_makes_the_group_start_over() {
    let (_dir, log) = feed(20);
    log.subscribe("keeps segments", Start::Beginning).unwrap();
    let mut group = group(&log);
    let had = lease(&mut group, 5);
    for message in &had[..2] {
        assert!(group.acknowledge(message.lease()).unwrap());
    }
    for place in [Start::Beginning, Start::Last(5), Start::Beginning] {
        let first = if place == Start::Beginning { 0 } else { 15 };
        let id = log.resolve(&place).unwrap();
        log.set_checkpoint("s", id).unwrap();
        let again = lease(&mut group, 1);
        assert_eq!((numbers(&again), again[0].deliveries()), (vec![first], 1));
        assert!(!group.acknowledge(had[3].lease()).unwrap(), "the lease is void");
    }
    // The C library, which does not know groups, moves the checkpoint.
    let had = lease(&mut group, 2);
    assert!(had.iter().all(|message| group.acknowledge(message.lease()).unwrap()));
    let mut of_c = [0; 8];
    of_c[4..].copy_from_slice(&7u32.to_le_bytes());
    std::fs::write(log.path().join("cp.73"), of_c).unwrap();
    assert_eq!(numbers(&lease(&mut group, 1)), [7]);
}

#[test]
fn a_subscriber_that_is_removed_or_a_feed_that_is_ends_it() {
    let (dir, log) = feed(2);
    let mut group = group(&log);
    let had = lease(&mut group, 1);
    assert!(file(&log).exists());
    log.unsubscribe("s").unwrap();
    assert!(!file(&log).exists());
    assert!(matches!(group.acknowledge(had[0].lease()), Err(Error::Unsubscribed { .. })));
    log.subscribe("s", Start::Beginning).unwrap();
    assert!(matches!(group.lease(1, Wait::No), Err(Error::Unsubscribed { .. })), "another one has the name");
    let mut new = log.group("s", GroupOptions::default()).unwrap();
    assert_eq!(numbers(&lease(&mut new, 5)), [0, 1]);
    std::fs::remove_dir_all(dir.path().join("feed")).unwrap();
    assert!(new.lease(1, Wait::No).is_err());
    assert!(log.group("nobody", GroupOptions::default()).is_err());
}

#[test]
fn workers_and_a_reader_that_wants_to_be_alone_refuse_each_other() {
    let (_dir, log) = feed(1);
    let reader = log.reader("s").unwrap();
    assert!(matches!(log.group("s", GroupOptions::default()), Err(Error::ReaderBusy { .. })));
    drop(reader);
    let _group = group(&log);
    assert!(matches!(log.reader("s"), Err(Error::ReaderBusy { .. })));
    log.reader_with("s", ReaderOptions::default().claim(Claim::Shared)).unwrap();
}

/// Damage to the file costs the leases in it, but no message.
#[test]
fn a_file_that_is_cut_or_damaged_loses_no_message() {
    let cut = |path: &Path, len: u64| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap()
    };
    let (_dir, log) = feed(4);
    let mut before = group(&log);
    let had = lease(&mut before, 2);
    assert!(before.acknowledge(had[0].lease()).unwrap());
    let len = std::fs::metadata(file(&log)).unwrap().len();
    // A killed process has written only a part of the last record, which says that the checkpoint
    // is stored.
    cut(&file(&log), len - 1);
    let mut next = group(&log);
    assert_eq!(numbers(&lease(&mut next, 9)), [2, 3]);
    assert!(next.acknowledge(had[1].lease()).unwrap());
    assert_eq!(behind(&log), 2);
    for damage in [0usize, 10, 60, 100] {
        let mut bytes = std::fs::read(file(&log)).unwrap();
        bytes[damage] ^= 0x55;
        std::fs::write(file(&log), bytes).unwrap();
        let mut next = group(&log);
        let again = lease(&mut next, 9);
        let all: BTreeSet<u32> = numbers(&again).into_iter().collect();
        assert!(all.is_subset(&BTreeSet::from([2, 3])), "{all:?}");
        for message in &again {
            next.give_back(message.lease(), Duration::ZERO).unwrap();
        }
    }
    for content in [&b""[..], b"x", &[0; 4096]] {
        std::fs::write(file(&log), content).unwrap();
        let mut next = group(&log);
        assert_eq!(numbers(&lease(&mut next, 9)), [2, 3]);
    }
    // The earlier worker has read another file.
    assert!(lease(&mut before, 9).is_empty());
}

#[test]
fn the_file_stays_small() {
    let (_dir, log) = feed(0);
    let (mut a, mut b) = (group(&log), group(&log));
    for round in 0..40 {
        append(&log, round * 200..(round + 1) * 200);
        for worker in [&mut a, &mut b] {
            for message in lease(worker, 100) {
                assert!(worker.acknowledge(message.lease()).unwrap());
            }
        }
    }
    assert_eq!(behind(&log), 0);
    assert!(std::fs::metadata(file(&log)).unwrap().len() < 300 << 10);
}

#[test]
fn messages_that_are_dropped_hold_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: Some(64 << 10), at_limit: AtLimit::DropOldest, ..Limits::default() };
    let log = Jlog::options().segment_size(4096).limits(limits).create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    append(&log, 0..10);
    let mut group = group(&log);
    let had = lease(&mut group, 5);
    append(&log, 10..10_000);
    assert!(!group.acknowledge(had[0].lease()).unwrap(), "its segment is gone");
    let (mut last, mut count) = (None, 0);
    loop {
        let some = lease(&mut group, 500);
        let Some(message) = some.last() else { break };
        last = numbers(std::slice::from_ref(message)).pop();
        count += some.len();
        for message in some {
            assert!(group.acknowledge(message.lease()).unwrap());
        }
    }
    assert!(count > 100, "{count}");
    assert_eq!((last, behind(&log)), (Some(9_999), 0));
}

#[test]
fn a_repair_that_renumbers_messages_makes_the_group_start_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = Jlog::create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    append(&log, 0..10);
    let mut worker = group(&log);
    let had = lease(&mut worker, 10);
    assert!(worker.acknowledge(had[0].lease()).unwrap() && worker.acknowledge(had[8].lease()).unwrap());
    // The header of the fourth message.
    let segment = log.path().join("00000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[3 * (16 + 9) + 2] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    Jlog::repair(log.path()).unwrap();
    assert!(!worker.acknowledge(had[9].lease()).unwrap(), "its id means another message, or none");
    let again = numbers(&lease(&mut worker, 20));
    assert_eq!(again, [1, 2, 4, 5, 6, 7, 8, 9]);
}
