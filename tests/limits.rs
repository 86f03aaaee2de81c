//! A jlog that may hold so much and no more: back-pressure, or the oldest goes and everybody is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jlog_core::{
    AtLimit, Error, Event, Jlog, Limits, LogId, OnMissed, Reader, ReaderOptions, Start, Timestamp, Wait,
    Writer, WriterOptions,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::support::{new_path, unsynced};

const MAX: u64 = 64 << 10;

fn options(at_limit: AtLimit) -> jlog_core::JlogOptions {
    let limits = Limits { max_bytes: Some(MAX), max_age: None, at_limit };
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

/// Bytes of everything that a limit speaks of.
fn counted(path: &Path) -> u64 {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let counts = |name: &str| !matches!(name, "metastore" | "settings" | "dropped" | "pre_commit.guard");
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
        reader.checkpoint(last).unwrap();
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
        // It is as full after it was opened anew.
        if round % 2 == 1 {
            writer.close().unwrap();
            writer = log.writer().unwrap();
            assert!(matches!(writer.append(vec![0; 9000]), Err(Error::AtCapacity { .. })));
        }
        // What frees nothing changes nothing.
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
    // Once it is gone, so is what only it needed.
    assert!(log.unsubscribe("stuck one").unwrap());
    writer.append(message(n)).unwrap();
    assert!(counted(&path) < MAX / 2);
}

#[test]
fn the_oldest_goes_and_whoever_needed_it_is_told() {
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
    let told = events.lock().iter().any(|event| matches!(event, Event::SegmentDropped { segment: 0, .. }));
    assert!(told);

    let mut tell = log.reader("tell").unwrap();
    let got = read_some(&mut tell, usize::MAX);
    assert_eq!(got.first().copied(), u32::try_from(tell.missed()).ok());
    assert_eq!(got, (got[0]..3000).collect::<Vec<_>>());
    let telling =
        Event::Missed { subscriber: "tell".to_owned(), from: LogId::new(0, 0), messages: tell.missed() };
    assert!(events.lock().contains(&telling));

    assert_eq!(missed("fail"), tell.missed());
    match fail.next_batch(Wait::No) {
        Err(Error::Missed { messages, .. }) => assert_eq!(messages, tell.missed()),
        other => panic!("{other:?}"),
    }
    assert_eq!(read_some(&mut fail, usize::MAX), got, "and goes on with what there is");
    assert!(!log.verify().unwrap().is_damaged());
}

#[test]
fn messages_get_only_so_old() {
    let (_dir, path) = new_path();
    let limits =
        Limits { max_bytes: None, max_age: Some(Duration::from_secs(60)), at_limit: AtLimit::DropOldest };
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
    // Of messages 0 to 30, aged 100 s to 71 s, those went whose segment is followed by another.
    assert!((20..=30).contains(&got[0]), "{got:?}");

    // The other choice: nothing goes, and nothing is accepted.
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

    /// Whatever subscribers and writers do: what one has read and what it was told that it missed is everything.
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
            readers.push((log.reader(name).unwrap(), 0u64, 0u64));
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
                    *reader = log.reader(reader.subscriber().unwrap().as_bytes()).unwrap();
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
