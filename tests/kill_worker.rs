//! The processes that `kills` kills.

use std::fmt::Write as _;
use std::io::Write as _;

use jlog_core::asynchronous::AsyncWriter;
use jlog_core::{Jlog, Wait};

use crate::{LONG, say};
use testkit::messages::{message, parse};

/// Appends numbered messages endlessly, singly and in batches, with flushes and syncs in between,
/// and prints the number of the last accepted one after every call.
pub(crate) fn append(feed: &str, from: u32) {
    let writer = Jlog::open(feed).unwrap().writer().unwrap();
    let mut seq = from;
    loop {
        let n = if seq.is_multiple_of(7) { 1 + seq % 9 } else { 1 };
        let bodies: Vec<Vec<u8>> = (seq..seq + n).map(|seq| message(0, seq)).collect();
        if let [body] = &bodies[..] {
            writer.append(body).unwrap();
        } else {
            writer.append_batch(&bodies).unwrap();
        }
        seq += n;
        say(seq - 1);
        if seq.is_multiple_of(13) {
            writer.flush().unwrap();
        }
        if seq.is_multiple_of(41) {
            writer.sync().unwrap();
        }
    }
}

/// Appends numbered messages endlessly from 16 tasks on two threads, and prints each number once it
/// is durable. Each task has every 16th number.
pub(crate) fn append_durably(feed: &str, from: u32) {
    const TASKS: u32 = 16;
    let log = Jlog::open(feed).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        let tasks = (0..TASKS).map(|task| {
            let writer = writer.clone();
            tokio::spawn(async move {
                for seq in (from + task..).step_by(TASKS as usize) {
                    writer.append_durable(message(0, seq)).await.unwrap();
                    say(seq);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

/// Reads endlessly: prints the id and the number of each message, and then moves the checkpoint
/// past it.
pub(crate) fn consume(feed: &str, subscriber: &str) {
    let mut reader = Jlog::open(feed).unwrap().reader(subscriber).unwrap();
    loop {
        let batch = reader.next_batch(Wait::Timeout(LONG)).unwrap().expect("woken before the time is over");
        let mut lines = String::new();
        for message in &batch {
            let (_, seq) = parse(message.body()).expect("a message as it was written");
            writeln!(lines, "{} {seq}", message.id()).unwrap();
        }
        std::io::stdout().write_all(lines.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
}
