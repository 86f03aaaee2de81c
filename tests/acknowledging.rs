//! Checkpoints that are stored while a batch is in use, by the same or another thread; batches that
//! outlive their reader.

use std::sync::mpsc;
use std::thread;

use jlog_core::{Appended, Compression, Error, IdRun, Jlog, LogId, ReaderOptions, Start, Wait};

use testkit::feeds::{new_path, shared};

fn bodies(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("message {n:06}")).collect()
}

#[test]
fn every_message_of_a_batch_is_acknowledged_while_it_is_iterated() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(200).create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(&bodies(0..100)).unwrap();
    let mut reader = log.reader_with("s", shared()).unwrap();
    let mut checkpointer = reader.checkpointer().unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        for message in &batch {
            checkpointer.commit(message.id()).unwrap();
            seen.push(String::from_utf8(message.body().to_vec()).unwrap());
            let next = log
                .reader_with("s", shared())
                .unwrap()
                .next_batch(Wait::No)
                .unwrap()
                .map(|batch| String::from_utf8(batch.iter().next().unwrap().body().to_vec()).unwrap());
            assert_eq!(next, bodies(0..100).get(seen.len()).cloned(), "the next one comes after a restart");
        }
    }
    assert_eq!(seen, bodies(0..100));
    assert_eq!(log.segments().unwrap().len(), 1, "segments that were passed are removed");
}

/// A segment is removed, whether the reader or its checkpointer is the second to pass its end.
#[test]
fn a_segment_goes_whoever_passes_its_end_first() {
    for commit_first in [true, false] {
        let (_dir, path) = new_path();
        let log = Jlog::create(&path).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append("one").unwrap();
        writer.roll().unwrap();
        let mut reader = log.reader("s").unwrap();
        let mut checkpointer = reader.checkpointer().unwrap();
        let last = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
        if commit_first {
            checkpointer.commit(last).unwrap();
        }
        assert!(reader.next_batch(Wait::No).unwrap().is_none());
        if !commit_first {
            checkpointer.commit(last).unwrap();
        }
        assert_eq!(log.segments().unwrap(), [1], "commit first: {commit_first}");
        assert_eq!(checkpointer.stored().unwrap(), LogId::new(1, 0));
        assert_eq!(reader.stored_checkpoint().unwrap(), LogId::new(1, 0));
    }
}

#[test]
fn another_thread_commits_while_the_reader_reads_on() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(4000).create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let (to_worker, batches) = mpsc::sync_channel(4);
    let options = ReaderOptions::default().batch_bytes(700);
    let mut reader = log.reader_with("s", options).unwrap();
    let mut checkpointer = reader.checkpointer().unwrap();
    let working = thread::spawn(move || {
        let mut seen = Vec::new();
        for batch in batches {
            let batch: jlog_core::OwnedBatch = batch;
            for message in &batch {
                checkpointer.commit(message.id()).unwrap();
                seen.push(String::from_utf8(message.into_body().to_vec()).unwrap());
            }
        }
        seen
    });
    let appending = {
        let log = log.clone();
        thread::spawn(move || {
            let writer = log.writer().unwrap();
            for chunk in bodies(0..5000).chunks(37) {
                writer.append_batch(chunk).unwrap();
            }
            writer.close().unwrap();
        })
    };
    let mut read = 0;
    while read < 5000 {
        let batch = reader.next_batch(Wait::Forever).unwrap().unwrap().into_owned();
        read += batch.len();
        to_worker.send(batch).unwrap();
    }
    // The handle continues to work without its reader.
    drop(reader);
    drop(to_worker);
    appending.join().unwrap();
    assert_eq!(working.join().unwrap(), bodies(0..5000));
    assert!(log.reader("s").unwrap().next_batch(Wait::No).unwrap().is_none());
    assert_eq!(log.lag("s").unwrap().messages, 0);
}

#[test]
fn a_checkpointer_refuses_what_its_reader_would() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    log.writer().unwrap().append("one").unwrap();
    let reader = log.reader("s").unwrap();
    let mut checkpointer = reader.checkpointer().unwrap();
    assert_eq!(checkpointer.subscriber().to_string(), "s");
    let beyond = LogId::new(0, 2);
    assert!(matches!(checkpointer.commit(beyond), Err(Error::NoSuchRecord { id, .. }) if id == beyond));
    let without = log.reader_from(&Start::Beginning, ReaderOptions::default()).unwrap();
    assert!(matches!(without.checkpointer(), Err(Error::NoSubscriber { .. })));

    // A new subscriber of the same name is a different subscriber.
    log.unsubscribe("s").unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    assert!(matches!(checkpointer.commit(LogId::new(0, 1)), Err(Error::Unsubscribed { .. })));
    assert!(matches!(reader.checkpointer(), Err(Error::Unsubscribed { .. })));
    assert_eq!(log.checkpoint("s").unwrap(), LogId::new(0, 0));
    log.unsubscribe("s").unwrap();
    assert!(matches!(reader.checkpointer(), Err(Error::Unsubscribed { .. })));
}

#[test]
fn owned_batches_keep_what_they_hold() {
    for compression in [Compression::None, Compression::Lz4] {
        let (_dir, path) = new_path();
        let log = Jlog::options().compression(compression).create(&path).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        let messages = ["", "one", "", "two", ""];
        writer.append_batch(&messages).unwrap();
        let mut reader = log.reader("s").unwrap();
        let batch = reader.next_batch(Wait::No).unwrap().unwrap().into_owned();
        writer.append("later").unwrap();
        assert!(reader.next_batch(Wait::No).unwrap().is_some(), "the reader's own memory is used again");
        drop((reader, writer, log, path));
        let kept: Vec<_> = batch.iter().collect();
        assert_eq!((batch.len(), batch.is_empty()), (5, false));
        assert_eq!((batch.first_id(), batch.last_id()), (LogId::new(0, 1), LogId::new(0, 5)));
        assert!(batch.bytes() >= 6);
        for (message, same) in kept.iter().zip(batch.as_batch()) {
            assert_eq!(
                (message.id(), message.time(), &message.body()[..]),
                (same.id(), same.time(), same.body())
            );
        }
        let of_clone: Vec<_> = batch.clone().iter().map(|message| message.into_body()).collect();
        drop(batch);
        assert_eq!(of_clone, messages);
    }
}

#[test]
fn a_batch_says_the_id_of_every_message() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(100).pre_commit(1000).create(&path).unwrap();
    let writer = log.writer().unwrap();
    let buffered = writer.append_batch(&["in", "the", "buffer"]).unwrap();
    assert_eq!((buffered.len(), buffered.last(), buffered.runs().count()), (3, Appended::Buffered, 0));
    writer.flush().unwrap();
    let long: Vec<Vec<u8>> = (0..30u8).map(|n| vec![n; 40]).collect();
    let placed = writer.append_batch(&long).unwrap();
    let nothing = writer.append_batch::<&str>(&[]).unwrap();
    assert!(nothing.is_empty() && nothing.id().is_none());
    writer.close().unwrap();
    let runs: Vec<IdRun> = placed.runs().collect();
    assert!(runs.len() > 5, "{runs:?}");
    assert_eq!(runs.iter().map(|run| run.count).sum::<u32>(), 30);
    assert_eq!(placed.last(), Appended::InSegment(runs[runs.len() - 1].last()));
    let mut reader = log.reader_from(&Start::Beginning, ReaderOptions::default()).unwrap();
    for (id, body) in placed.ids().zip(&long) {
        assert_eq!(reader.read(id).unwrap().body(), &body[..], "{id}");
    }
}
