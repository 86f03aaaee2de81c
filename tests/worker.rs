//! A process that writes or reads a jlog, for the tests that need several. Its arguments are its
//! task, and it reports on stdout, line by line.

// It may panic: its test fails then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
mod async_worker;
mod kill_worker;

use std::io::{BufWriter, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jlog_core::{Jlog, Locking, Wait, Writer, WriterOptions};

use testkit::faulty::{Fate, Faulty, Op};
use testkit::messages::{message, parse};

/// Longer than any wait in a test that does not hang.
const LONG: Duration = Duration::from_secs(50);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["write", feed, writer, count, how] => write(feed, number(writer), number(count), how),
        ["read", feed, subscriber, count] => read(feed, subscriber, number(count)),
        ["acknowledge", feed, from] => acknowledge(feed, number(from)),
        ["hold", feed, count] => hold(feed, number(count)),
        ["claim", feed, subscriber] => claim(feed, subscriber),
        ["stop-in-flush", feed, count, bytes] => stop_in_flush(feed, number(count), number(bytes).into()),
        ["echo", feed, subscriber] => echo(feed, subscriber),
        ["try", feed, how] => try_to_write(feed, how),
        ["try-all", feed, subscriber] => try_all(feed, subscriber),
        ["append-for-ever", feed, from] => kill_worker::append(feed, number(from)),
        ["append-durably-for-ever", feed, from] => kill_worker::append_durably(feed, number(from)),
        ["async-threads", feed] => async_worker::threads(feed),
        ["async-fork", feed] => async_worker::fork(feed),
        ["consume-for-ever", feed, subscriber] => kill_worker::consume(feed, subscriber),
        _ => panic!("unknown task {args:?}"),
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap()
}

fn say(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn past_the_buffer() -> WriterOptions {
    WriterOptions::default().bypass_pre_commit(true)
}

/// Appends numbered messages: one by one past the pre-commit buffer, in batches, or through the
/// buffer.
fn write(feed: &str, writer: u32, count: u32, how: &str) {
    let log = Jlog::open(feed).unwrap();
    match how {
        "batches" => {
            let to = log.writer_with(past_the_buffer()).unwrap();
            let mut seq = 0;
            while seq < count {
                let end = count.min(seq + 1 + seq % 40);
                let batch: Vec<Vec<u8>> = (seq..end).map(|seq| message(writer, seq)).collect();
                to.append_batch(&batch).unwrap();
                seq = end;
            }
            to.close().unwrap();
        }
        "singly" => append_all(log.writer_with(past_the_buffer()).unwrap(), writer, count),
        "buffered" => append_all(log.writer().unwrap(), writer, count),
        _ => panic!("{how:?}"),
    }
}

fn append_all(to: Writer, writer: u32, count: u32) {
    for seq in 0..count {
        to.append(message(writer, seq)).unwrap();
    }
    to.close().unwrap();
}

/// Reads this many messages as they come, with a checkpoint after every batch, and prints each
/// one's id, writer and number.
fn read(feed: &str, subscriber: &str, count: u32) {
    let log = Jlog::open(feed).unwrap();
    let mut reader = log.reader(subscriber).unwrap();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut got = 0;
    while got < count {
        let batch = reader.next_batch(Wait::Timeout(LONG)).unwrap().expect("woken before the time is over");
        for message in &batch {
            let (writer, seq) = parse(message.body()).expect("a message as it was written");
            writeln!(out, "{} {writer} {seq}", message.id()).unwrap();
            got += 1;
        }
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
    out.flush().unwrap();
}

/// Appends numbered messages endlessly, and prints each number when its append has returned.
fn acknowledge(feed: &str, from: u32) {
    let writer = Jlog::open(feed).unwrap().writer().unwrap();
    for seq in from.. {
        writer.append(message(0, seq)).unwrap();
        say(seq);
    }
}

/// Appends messages, then keeps the writer open until its input ends.
fn hold(feed: &str, count: u32) {
    let writer = Jlog::open(feed).unwrap().writer().unwrap();
    for seq in 0..count {
        writer.append(message(0, seq)).unwrap();
    }
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    writer.close().unwrap();
}

/// Opens a reader, and keeps it until it is told to stop.
fn claim(feed: &str, subscriber: &str) {
    let reader = Jlog::open(feed).unwrap().reader(subscriber).unwrap();
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(reader);
}

/// Appends messages that all fit into the buffer, and flushes it. When this many bytes have been
/// written to the segment, reports that, and blocks forever within the write.
fn stop_in_flush(feed: &str, count: u32, bytes: u64) {
    let left = AtomicU64::new(bytes);
    let stop = || -> ! {
        say("stopped");
        loop {
            std::thread::park();
        }
    };
    let storage = Faulty::storage(move |op| match op {
        Op::Write { len, .. } if op.is_segment() => match left.load(Ordering::SeqCst) {
            0 => stop(),
            n => {
                let n = usize::try_from(n).unwrap().min(len);
                left.fetch_sub(n as u64, Ordering::SeqCst);
                Fate::AtMost(n)
            }
        },
        Op::Wrote { .. } if op.is_segment() && left.load(Ordering::SeqCst) == 0 => stop(),
        _ => Fate::Proceed,
    });
    let writer = Jlog::options().storage(storage).open(feed).unwrap().writer().unwrap();
    for seq in 0..count {
        writer.append(message(0, seq)).unwrap();
    }
    writer.flush().unwrap();
    say("flushed");
}

/// Prints each message as soon as it arrives.
fn echo(feed: &str, subscriber: &str) {
    let mut reader = Jlog::open(feed).unwrap().reader(subscriber).unwrap();
    say("ready");
    loop {
        let batch = reader.next_batch(Wait::Timeout(LONG)).unwrap().expect("woken before the time is over");
        for message in &batch {
            say(String::from_utf8(message.body().to_vec()).unwrap());
            if message.body() == b"end" {
                return;
            }
        }
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
}

/// Opens a writer, appends a message, and reports the result.
fn try_to_write(feed: &str, how: &str) {
    let options = match how {
        "buffered" => WriterOptions::default(),
        "past-the-buffer" => past_the_buffer(),
        "alone" => past_the_buffer().locking(Locking::SingleProcess),
        _ => panic!("{how:?}"),
    };
    match Jlog::open(feed).unwrap().writer_with(options).and_then(|writer| {
        writer.append(message(9, 0))?;
        writer.close()
    }) {
        Ok(()) => say("written"),
        Err(error) => say(format_args!("{error:?}")),
    }
}

/// Makes each kind of call, and reports the results, one per line.
fn try_all(feed: &str, subscriber: &str) {
    let outcome = |call: &str, result: jlog_core::Result<()>| match result {
        Ok(()) => say(format_args!("{call}: ok")),
        Err(error) => say(format_args!("{call}: {error}")),
    };
    let log = match Jlog::open(feed) {
        Ok(log) => log,
        Err(error) => return outcome("open", Err(error)),
    };
    outcome("open", Ok(()));
    outcome("status", log.status().map(|_| ()));
    let mut last = None;
    let read = log.reader(subscriber).and_then(|mut reader| {
        while let Some(batch) = reader.next_batch(Wait::No)? {
            last = Some(batch.last_id());
        }
        Ok(())
    });
    outcome("read", read);
    if let Some(last) = last {
        let checkpoint = log.reader(subscriber).and_then(|mut reader| reader.commit(last));
        outcome("checkpoint", checkpoint);
    }
    let append = log.writer().and_then(|writer| {
        writer.append("three")?;
        writer.close()
    });
    outcome("append", append);
}
