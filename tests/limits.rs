//! A jlog with a limit: back-pressure, or the oldest messages are dropped and this is reported to
//! every subscriber.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jlog_core::compat::WriterCompat;
use jlog_core::{
    AlterOptions, AtLimit, CleanOptions, Error, Event, Jlog, LimitKind, Limits, LogId, OnMissed, Reader,
    ReaderOptions, Start, Timestamp, Wait, Writer, WriterOptions,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{new_path, shared, unsynced};

const MAX: u64 = 64 << 10;

fn options(at_limit: AtLimit) -> jlog_core::JlogOptions {
    let limits = Limits { max_bytes: Some(MAX), at_limit, ..Limits::default() };
    Jlog::options().storage(unsynced()).limits(limits)
}

fn message(n: u32) -> Vec<u8> {
    let mut body = format!("{n:08} ").into_bytes();
    body.resize(100 + n as usize % 50, b'x');
    body
}

fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(&body[..8]).unwrap().parse().unwrap()
}

/// Bytes of all files that count towards a limit.
fn counted(path: &Path) -> u64 {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let counts =
        |name: &str| !matches!(name, "metastore" | "settings" | "identity" | "dropped" | "pre_commit.guard");
    names
        .filter(|entry| counts(entry.file_name().to_str().unwrap()))
        .filter(|entry| !entry.file_name().to_str().unwrap().starts_with("cp."))
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

/// Appends until the jlog is full; returns the number of the first message that was refused.
fn fill(writer: &Writer, from: u32) -> u32 {
    for n in from..from + 100_000 {
        match writer.append(message(n)) {
            Ok(_) => {}
            Err(Error::AtCapacity { .. }) => return n,
            Err(e) => panic!("{e}"),
        }
    }
    panic!("it never gets full");
}

fn read_some(reader: &mut Reader, at_most: usize) -> Vec<u32> {
    let mut got = Vec::new();
    let mut last = None;
    while got.len() < at_most {
        let Some(batch) = reader.next_batch(Wait::No).unwrap() else { break };
        for message in &batch {
            assert_eq!(message.body(), self::message(number(message.body())));
            got.push(number(message.body()));
            last = Some(message.id());
            if got.len() == at_most {
                break;
            }
        }
    }
    if let Some(last) = last {
        reader.commit(last).unwrap();
        reader.seek(last).unwrap();
    }
    got
}

fn back_pressure(pre_commit: u32) {
    let (_dir, path) = new_path();
    let log = options(AtLimit::Fail).pre_commit(pre_commit).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let mut reader = log.reader("slow").unwrap();
    let mut writer = log.writer().unwrap();
    let mut next = 0;
    let mut got = Vec::new();
    for round in 0..6 {
        next = fill(&writer, next);
        assert!(next > 100, "there is room for some: {next}");
        writer.flush().unwrap();
        assert!(counted(&path) <= MAX + MAX / 16, "{} bytes", counted(&path));
        // The jlog is still full after it is opened again.
        if round % 2 == 1 {
            writer.close().unwrap();
            writer = log.writer().unwrap();
            assert!(matches!(writer.append(vec![0; 9000]), Err(Error::AtCapacity { .. })));
        }
        // An operation that frees nothing changes nothing.
        assert!(matches!(writer.append(vec![0; 9000]), Err(Error::AtCapacity { .. })));
        got.extend(read_some(&mut reader, 200));
    }
    next = fill(&writer, next);
    writer.flush().unwrap();
    got.extend(read_some(&mut reader, usize::MAX));
    assert_eq!(got, (0..next).collect::<Vec<_>>(), "accepted is read, exactly");
}

#[test]
fn a_full_jlog_refuses_until_subscribers_catch_up() {
    back_pressure(0);
}

#[test]
fn a_full_jlog_with_a_buffer_refuses_until_subscribers_catch_up() {
    back_pressure(4096);
}

#[test]
fn of_a_batch_whole_segments_are_accepted() {
    for pre_commit in [0, 4096] {
        let (_dir, path) = new_path();
        let log = options(AtLimit::Fail).pre_commit(pre_commit).create(&path).unwrap();
        log.subscribe("slow", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let batch: Vec<Vec<u8>> = (0..1000).map(message).collect();
        let refused = writer.append_batch(&batch).unwrap_err();
        assert!(matches!(refused, Error::AtCapacity { .. }), "{refused}");
        let accepted = u32::try_from(writer.accepted()).unwrap();
        assert!((300..500).contains(&accepted), "{accepted}");
        assert!(counted(&path) <= MAX + MAX / 16);
        let got = read_some(&mut log.reader("slow").unwrap(), usize::MAX);
        assert_eq!(got, (0..accepted).collect::<Vec<_>>(), "and the writer says how many");
        writer.append_batch(&batch[accepted as usize..accepted as usize + 100]).unwrap();
        assert_eq!(writer.accepted(), u64::from(accepted) + 100);
    }
}

#[test]
fn the_error_names_who_holds_back() {
    let (_dir, path) = new_path();
    let log = options(AtLimit::Fail).create(&path).unwrap();
    log.subscribe("stuck one", Start::Beginning).unwrap();
    log.subscribe("quick", Start::End).unwrap();
    let writer = log.writer().unwrap();
    let n = fill(&writer, 0);
    read_some(&mut log.reader("quick").unwrap(), usize::MAX);
    let text = writer.append(message(n)).unwrap_err().to_string();
    assert!(text.contains("\"stuck one\" still needs segment 00000000"), "{text}");
    let status = log.status().unwrap();
    let held: Vec<(String, bool, bool)> =
        status.subscribers.iter().map(|s| (s.name.to_string(), s.holds_back, s.held > MAX / 2)).collect();
    assert_eq!(held, [("quick".to_owned(), false, false), ("stuck one".to_owned(), true, true)]);
    // When the subscriber is removed, so are the segments that only it needed.
    assert!(log.unsubscribe("stuck one").unwrap());
    writer.append(message(n)).unwrap();
    assert!(counted(&path) < MAX / 2);
}

#[test]
fn the_oldest_is_dropped_and_subscribers_learn_what_they_missed() {
    let (_dir, path) = new_path();
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let log = options(AtLimit::DropOldest)
        .on_event(move |event| heard.lock().push(event.clone()))
        .create(&path)
        .unwrap();
    for name in ["tell", "fail", "quick"] {
        log.subscribe(name, Start::Beginning).unwrap();
    }
    let options = ReaderOptions::default().on_missed(OnMissed::Fail);
    let mut fail = log.reader_with("fail", options).unwrap();
    let mut quick = log.reader("quick").unwrap();
    assert_eq!(fail.next_batch(Wait::No).unwrap().map(|batch| batch.len()), None);
    let writer = log.writer().unwrap();
    let mut seen = Vec::new();
    for n in 0..3000 {
        writer.append(message(n)).unwrap();
        assert!(counted(&path) <= MAX + MAX / 16, "{} bytes after message {n}", counted(&path));
        if n % 100 == 99 {
            seen.extend(read_some(&mut quick, usize::MAX));
        }
    }
    assert_eq!(seen, (0..3000).collect::<Vec<_>>(), "who keeps up misses nothing");
    let status = log.status().unwrap();
    let missed = |name: &str| status.subscribers.iter().find(|s| s.name.to_string() == name).unwrap().missed;
    let reported =
        events.lock().iter().any(|event| matches!(event, Event::SegmentDropped { segment: 0, .. }));
    assert!(reported);

    let mut report = log.reader("tell").unwrap();
    let got = read_some(&mut report, usize::MAX);
    assert_eq!(got.first().copied(), u32::try_from(report.missed()).ok());
    assert_eq!(got, (got[0]..3000).collect::<Vec<_>>());
    let reporting =
        Event::Missed { subscriber: "tell".to_owned(), from: LogId::new(0, 0), messages: report.missed() };
    assert!(events.lock().contains(&reporting));

    assert_eq!(missed("fail"), report.missed());
    match fail.next_batch(Wait::No) {
        Err(Error::Missed { messages, .. }) => assert_eq!(messages, report.missed()),
        other => panic!("{other:?}"),
    }
    assert_eq!(read_some(&mut fail, usize::MAX), got, "and goes on with what there is");
    assert!(!log.verify().unwrap().is_damaged());
}

#[test]
fn messages_get_only_so_old() {
    let (_dir, path) = new_path();
    let limits =
        Limits { max_age: Some(Duration::from_secs(60)), at_limit: AtLimit::DropOldest, ..Limits::default() };
    let make = || Jlog::options().storage(unsynced()).segment_size(1000);
    let log = make().limits(limits).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let ago = |seconds: u32| Timestamp { seconds: Timestamp::now().seconds - seconds, micros: 0 };
    let writer = log.writer_with(WriterOptions::default()).unwrap();
    for n in 0..30 {
        writer.append_at(ago(100 - n), message(n)).unwrap();
    }
    writer.close().unwrap();
    let writer = log.writer().unwrap();
    writer.append(message(30)).unwrap();
    let mut reader = log.reader("slow").unwrap();
    let got = read_some(&mut reader, usize::MAX);
    assert_eq!(u64::from(got[0]), reader.missed());
    assert_eq!(got, (got[0]..31).collect::<Vec<_>>());
    // Messages 0 to 30 are 100 s to 71 s old; those in complete segments were dropped.
    assert!((20..=30).contains(&got[0]), "{got:?}");

    // With the other choice, nothing is dropped, and nothing is accepted.
    log.set_limits(Limits { at_limit: AtLimit::Fail, ..limits }).unwrap();
    let log = make().open(&path).unwrap();
    log.subscribe("stuck", Start::Beginning).unwrap();
    writer.close().unwrap();
    let writer = log.writer_with(WriterOptions::default()).unwrap();
    for n in 31..60 {
        writer.append_at(ago(100), message(n)).unwrap();
    }
    writer.close().unwrap();
    let writer = log.writer().unwrap();
    let refused = writer.append(message(60)).unwrap_err();
    assert!(matches!(refused, Error::AtCapacity { .. }), "{refused}");
    let mut stuck = log.reader("stuck").unwrap();
    assert_eq!(read_some(&mut stuck, usize::MAX).last(), Some(&59));
}

fn aged(max: u64, at_limit: AtLimit) -> Limits {
    Limits { max_age: Some(Duration::from_secs(max)), at_limit, ..Limits::default() }
}

/// This many seconds ago, or ahead if the number is negative.
fn ago(seconds: i64) -> Timestamp {
    Timestamp { seconds: u32::try_from(i64::from(Timestamp::now().seconds) - seconds).unwrap(), micros: 0 }
}

fn numbers(log: &Jlog) -> Vec<u32> {
    testkit::feeds::read_all(log).iter().map(|got| number(&got.body)).collect()
}

#[test]
fn what_is_too_old_goes_though_nobody_writes() {
    for how in ["clean", "a reader that waits"] {
        let (_dir, path) = new_path();
        let limits = aged(60, AtLimit::DropOldest);
        let log = Jlog::options().storage(unsynced()).segment_size(1000).create(&path).unwrap();
        log.subscribe("slow", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        for n in 0..20 {
            writer.append_at(ago(200 - i64::from(n)), message(n)).unwrap();
        }
        writer.roll().unwrap();
        // A pause precedes these messages, which end a segment. They are too old, too, but the
        // message after them is not.
        for n in 20..22 {
            writer.append_at(ago(100), message(n)).unwrap();
        }
        writer.roll().unwrap();
        writer.append_at(ago(5), message(22)).unwrap();
        writer.close().unwrap();
        log.set_limits(limits).unwrap();
        if how == "clean" {
            log.clean(CleanOptions::default()).unwrap();
        } else {
            log.subscribe("server", Start::End).unwrap();
            let mut server = log.reader("server").unwrap();
            for _ in 0..2 {
                assert!(server.next_batch(Wait::Timeout(Duration::from_millis(50))).unwrap().is_none());
            }
        }
        assert_eq!(numbers(&log), [22], "{how}");
        let mut slow = log.reader("slow").unwrap();
        assert_eq!(read_some(&mut slow, usize::MAX), [22], "{how}");
        assert_eq!(slow.missed(), 22, "{how}");
    }
}

#[test]
fn what_is_too_old_in_the_segment_being_written_goes_as_well() {
    let (_dir, path) = new_path();
    let log =
        Jlog::options().storage(unsynced()).limits(aged(60, AtLimit::DropOldest)).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch_with_times(&[(ago(100), message(0)), (ago(90), message(1))]).unwrap();
    writer.close().unwrap();
    assert_eq!(log.clean(CleanOptions::default()).unwrap(), [0]);
    assert_eq!(numbers(&log), [0u32; 0]);

    // After a pause, a message does not join old ones.
    let writer = log.writer().unwrap();
    writer.append_at(ago(50), message(2)).unwrap();
    writer.close().unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch(&[message(3)]).unwrap();
    assert_eq!(log.segments().unwrap().len(), 2);
    assert_eq!(numbers(&log), [2, 3]);
}

#[test]
fn a_clock_that_was_ahead_pins_nothing() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).segment_size(1).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    // The clock is a year ahead for a while, and is then corrected.
    for (n, seconds) in [(0, 200), (1, 190), (2, -31_536_000), (3, -31_536_001), (4, 100), (5, 70), (6, 10)] {
        writer.append_at(ago(seconds), message(n)).unwrap();
    }
    writer.close().unwrap();
    log.set_limits(aged(60, AtLimit::DropOldest)).unwrap();
    log.clean(CleanOptions::default()).unwrap();
    assert_eq!(numbers(&log), [6]);
}

/// A clock that was behind for a while, for example after a start without a battery, costs no young
/// messages.
#[test]
fn a_clock_that_was_behind_drops_nothing_young() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).segment_size(1).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let behind = 1_000_000_000;
    for (n, seconds) in [(0, 100), (1, 30), (2, behind), (3, behind - 5), (4, 10)] {
        writer.append_at(ago(seconds), message(n)).unwrap();
    }
    writer.close().unwrap();
    log.set_limits(aged(60, AtLimit::DropOldest)).unwrap();
    log.clean(CleanOptions::default()).unwrap();
    assert_eq!(numbers(&log), [1, 2, 3, 4]);
}

#[test]
fn at_an_age_writing_fails_where_that_is_asked_for() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).limits(aged(60, AtLimit::Fail)).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append_at(ago(100), message(0)).unwrap();
    writer.close().unwrap();
    // The old message is in the segment being written, and somebody needs it.
    let writer = log.writer().unwrap();
    for _ in 0..3 {
        match writer.append(message(1)) {
            Err(Error::AtCapacity { kind: LimitKind::Age, used, limit, holders, .. }) => {
                assert!((100..160).contains(&used) && limit == 60, "{used} {limit}");
                assert_eq!(holders.len(), 1);
                assert_eq!((holders[0].name.to_string(), holders[0].messages), ("slow".to_owned(), 1));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read_some(&mut log.reader("slow").unwrap(), usize::MAX), [0]);
    writer.append(message(1)).unwrap();
}

#[test]
fn so_much_stays_free_on_the_file_system() {
    let (_dir, path) = new_path();
    let log = options(AtLimit::Fail).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append(message(0)).unwrap();
    log.set_limits(Limits { keep_free: Some(1), ..Limits::default() }).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    writer.append(message(1)).unwrap();
    log.set_limits(Limits { keep_free: Some(u64::MAX / 2), ..Limits::default() }).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    for _ in 0..2 {
        match writer.append(message(2)) {
            Err(Error::AtCapacity { kind: LimitKind::Free, limit, holders, .. }) => {
                assert_eq!((limit, holders.len(), holders[0].messages), (u64::MAX / 2, 1, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    log.set_limits(Limits::default()).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    writer.append(message(2)).unwrap();
    assert_eq!(numbers(&log), [0, 1, 2]);
}

#[test]
fn a_change_reaches_writers_at_work() {
    for pre_commit in [0, 4096] {
        let (_dir, path) = new_path();
        let log = Jlog::options()
            .storage(unsynced())
            .pre_commit(pre_commit)
            .checksums(false)
            .create(&path)
            .unwrap();
        log.subscribe("slow", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append(message(0)).unwrap();
        let other = Jlog::open(&path).unwrap();
        other.set_limits(Limits { max_bytes: Some(MAX), ..Limits::default() }).unwrap();
        other.set_checksums(true).unwrap();
        assert_eq!(log.limits().max_bytes, Some(MAX));
        std::thread::sleep(Duration::from_millis(120));
        let n = fill(&writer, 1);
        assert!((300..600).contains(&n), "{n}");
        writer.flush().unwrap();
        assert!(counted(&path) <= MAX + MAX / 16, "{}", counted(&path));
        assert!(log.verify().unwrap().verified >= u64::from(n) - 2, "they have checksums, too");
        other.set_limits(Limits::default()).unwrap();
        std::thread::sleep(Duration::from_millis(120));
        writer.append(message(n)).unwrap();
    }
}

#[test]
fn the_error_lists_those_that_are_behind_and_nobody_else() {
    let (_dir, path) = new_path();
    let log = options(AtLimit::Fail).create(&path).unwrap();
    for name in ["a done", "b behind", "c further behind"] {
        log.subscribe(name, Start::Beginning).unwrap();
    }
    let writer = log.writer().unwrap();
    let n = fill(&writer, 0);
    read_some(&mut log.reader("a done").unwrap(), usize::MAX);
    read_some(&mut log.reader("b behind").unwrap(), 5);
    match writer.append(message(n)) {
        Err(Error::AtCapacity { kind: LimitKind::Bytes, used, limit, wanted, holders, .. }) => {
            assert!(used <= limit && limit == MAX && used + wanted > limit, "{used} {limit} {wanted}");
            let listed: Vec<(String, u64)> =
                holders.iter().map(|holder| (holder.name.to_string(), holder.messages)).collect();
            let n = u64::from(n);
            assert_eq!(listed, [("c further behind".to_owned(), n), ("b behind".to_owned(), n - 5)]);
        }
        other => panic!("{other:?}"),
    }
    let text = writer.append(message(n)).unwrap_err().to_string();
    assert!(text.contains(&format!("({} messages behind)", n - 5)), "{text}");
    assert!(!text.contains("a done"), "{text}");
}

/// Repeated refusals do not look at every file each time.
#[test]
fn a_refusal_is_cheap() {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = Arc::clone(&calls);
    let storage = Faulty::storage(move |op| {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if matches!(op, Op::Sync(_) | Op::SyncDir(_)) { Fate::Pretend } else { Fate::Proceed }
    });
    let (_dir, path) = new_path();
    let limits = Limits { max_bytes: Some(MAX), ..Limits::default() };
    let log = Jlog::options().storage(storage).limits(limits).segment_size(200).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let n = fill(&writer, 0);
    assert!(log.segments().unwrap().len() > 100);
    calls.store(0, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..1000 {
        assert!(matches!(writer.append(message(n)), Err(Error::AtCapacity { .. })));
    }
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls < 10_000, "{calls} calls for 1000 refusals");
    // The refusals end when the subscriber has moved on.
    read_some(&mut log.reader("slow").unwrap(), 50);
    writer.append(message(n)).unwrap();
}

/// A process that is being started has its parent's files open until it runs its program. It does
/// not count as a C writer.
#[test]
fn a_file_that_is_open_for_a_moment_is_no_c_writer() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).create(&path).unwrap();
    let writer = log.writer().unwrap();
    writer.append(message(0)).unwrap();
    let open = std::fs::File::options().read(true).write(true).open(path.join("pre_commit")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(open);
        });
        writer.roll().unwrap();
    });
    assert_eq!(log.meta().unwrap().storage_log, 1);
}

/// A process that uses the C library has the buffer's file open as long as it writes.
#[test]
fn no_segment_ends_early_under_a_c_writer() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).segment_size(100_000).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append(message(0)).unwrap();
    let c_writer = std::fs::File::options().read(true).write(true).open(path.join("pre_commit")).unwrap();
    let refused = |result: Result<(), Error>| match result {
        Err(e @ Error::CWriter { .. }) => assert!(e.to_string().contains("C library"), "{e}"),
        other => panic!("{other:?}"),
    };
    refused(log.alter(AlterOptions::default().segment_size(200_000)));
    refused(writer.set_segment_size(200_000));
    refused(writer.roll());
    assert_eq!(log.meta().unwrap().segment_size, 100_000);
    // A C process notices that its segment is full when the size is made smaller.
    log.alter(AlterOptions::default().segment_size(90_000)).unwrap();
    // A limit, with which segments end at an eighth of its bytes, does not end it either.
    log.set_limits(Limits { max_bytes: Some(512 << 10), ..Limits::default() }).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    for n in 1..600 {
        writer.append(message(n)).unwrap();
    }
    assert_eq!(log.segments().unwrap(), [0]);
    drop(c_writer);
    log.alter(AlterOptions::default().segment_size(200_000)).unwrap();
    writer.roll().unwrap();
    assert_eq!(log.segments().unwrap(), [0, 1]);
    assert_eq!(numbers(&log), (0..600).collect::<Vec<_>>());
}

#[test]
fn complete_segments_are_not_counted_again() {
    let reads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = Arc::clone(&reads);
    let storage = Faulty::storage(move |op| {
        let read = matches!(op, Op::Read { .. }) && (op.is_segment() || op.name().ends_with(".crc"));
        counting.fetch_add(usize::from(read), std::sync::atomic::Ordering::Relaxed);
        if matches!(op, Op::Sync(_) | Op::SyncDir(_)) { Fate::Pretend } else { Fate::Proceed }
    });
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).segment_size(2000).create(&path).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..1500 {
        writer.append(message(n)).unwrap();
    }
    writer.close().unwrap();
    assert!(log.segments().unwrap().len() > 80);
    let reads_of = |what: &dyn Fn()| {
        reads.store(0, std::sync::atomic::Ordering::Relaxed);
        what();
        reads.load(std::sync::atomic::Ordering::Relaxed)
    };
    let segments = log.segments().unwrap().len();
    let first = reads_of(&|| assert_eq!(log.lag("slow").unwrap().messages, 1500));
    assert!(first < segments + 20, "one header of each segment's checksums: {first}");
    let again = reads_of(&|| assert_eq!(log.lag("slow").unwrap().messages, 1500));
    assert!(again < 20, "{again}");
    // Segments that are not covered are counted as before, and changed ones are counted again.
    std::fs::remove_file(path.join("00000003.crc")).unwrap();
    let fresh = Jlog::open(&path).unwrap();
    assert_eq!(fresh.status().unwrap().records, 1500);
    assert_eq!(fresh.status().unwrap().records, 1500);
    let bytes = std::fs::read(path.join("00000003")).unwrap();
    std::fs::write(path.join("00000003"), &bytes[..0]).unwrap();
    assert!(fresh.status().unwrap().records < 1500);
}

/// A buffer counts towards the limit and keeps its size: one that takes all of it would leave no
/// room for messages.
#[test]
fn a_buffer_leaves_room_for_messages_below_the_limit() {
    const HALF: u32 = 32 << 10;
    let (_dir, path) = new_path();
    let refused =
        |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::OutOfRange { .. })), "{outcome:?}");
    let limited = |max_bytes| Limits { max_bytes: Some(max_bytes), ..Limits::default() };
    refused(options(AtLimit::Fail).pre_commit(HALF + 1).create(&path).map(drop));
    assert!(!path.exists());
    let log = options(AtLimit::Fail).pre_commit(HALF).create(&path).unwrap();
    refused(log.alter(AlterOptions::default().pre_commit(HALF + 1)));
    refused(log.writer_with(WriterOptions::default().pre_commit(HALF + 1)).map(drop));
    refused(log.set_limits(limited(MAX - 1)));
    refused(log.alter(AlterOptions::default().limits(limited(MAX - 1))));
    refused(log.alter(AlterOptions::default().limits(limited(2 * MAX)).pre_commit(2 * HALF + 1)));
    assert_eq!((log.limits().max_bytes, log.pre_commit().unwrap()), (Some(MAX), Some((0, HALF.into()))));
    assert!(fill(&log.writer().unwrap(), 0) > 100, "there is room for some");
    assert!(counted(&path) <= MAX + MAX / 16, "{} bytes", counted(&path));
    // Change both at once, and back to the smaller values.
    log.alter(AlterOptions::default().limits(limited(2 * MAX)).pre_commit(2 * HALF)).unwrap();
    log.alter(AlterOptions::default().limits(limited(MAX)).pre_commit(HALF)).unwrap();
    // An existing invalid combination is no reason to refuse another change.
    let raw = std::fs::read_to_string(path.join("settings")).unwrap();
    std::fs::write(path.join("settings"), raw.replace(&MAX.to_string(), "16384")).unwrap();
    assert_eq!(log.limits().max_bytes, Some(16384));
    log.set_limits(Limits { keep_free: Some(1), ..log.limits() }).unwrap();
    log.writer_with(WriterOptions::default().pre_commit(HALF)).unwrap();
    log.alter(AlterOptions::default().pre_commit(HALF)).unwrap();
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let (_dir, path) = new_path();
    let limits = Limits { max_bytes: Some(100), ..Limits::default() };
    assert!(matches!(Jlog::options().limits(limits).create(&path), Err(Error::OutOfRange { .. })));
    assert!(!path.exists());
    let limits = Limits { max_age: Some(Duration::from_millis(10)), ..Limits::default() };
    assert!(matches!(Jlog::options().limits(limits).create(&path), Err(Error::OutOfRange { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever subscribers and writers do, every message is either read by a subscriber or
    /// reported to it as missed.
    #[test]
    fn read_and_missed_is_everything(
        work in prop::collection::vec((0..3u8, 1..200u32), 1..80),
        pre_commit in prop::sample::select(vec![0, 2000]),
    ) {
        let (_dir, path) = new_path();
        let log = options(AtLimit::DropOldest).pre_commit(pre_commit).segment_size(3000).create(&path).unwrap();
        let mut readers = Vec::new();
        for name in ["a", "b"] {
            log.subscribe(name, Start::Beginning).unwrap();
            readers.push((log.reader_with(name, shared()).unwrap(), 0u64, 0u64));
        }
        let mut writer = log.writer().unwrap();
        let mut next = 0u32;
        for (what, n) in work {
            match what {
                0 => {
                    for _ in 0..n * 3 {
                        writer.append(message(next)).unwrap();
                        next += 1;
                    }
                }
                1 => {
                    let (reader, read, _) = &mut readers[n as usize % 2];
                    *read += read_some(reader, n as usize).len() as u64;
                }
                _ => {
                    writer.close().unwrap();
                    writer = log.writer().unwrap();
                    let (reader, _, missed) = &mut readers[n as usize % 2];
                    *missed += reader.missed();
                    *reader = log.reader_with(reader.subscriber().unwrap(), shared()).unwrap();
                }
            }
            prop_assert!(counted(&path) <= MAX + MAX / 16);
        }
        writer.close().unwrap();
        for (mut reader, read, missed) in readers {
            let read = read + read_some(&mut reader, usize::MAX).len() as u64;
            prop_assert_eq!(read + missed + reader.missed(), u64::from(next));
        }
    }
}
