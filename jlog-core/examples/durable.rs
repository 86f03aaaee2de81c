//! Threads whose messages survive a power failure when `append` returns. They share the syncs.

#![allow(missing_docs, clippy::print_stdout)]

use std::time::{Duration, Instant};

use jlog_core::{Jlog, Start, SyncPolicy, Wait, WriterOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let log = Jlog::create(directory.path().join("feed"))?;
    log.subscribe("audit", Start::Beginning)?;

    let options = WriterOptions::default().sync(SyncPolicy::EachAppend);
    let writer = log.writer_with(options)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let writer = &writer;
                scope.spawn(move || {
                    (0..25).try_for_each(|n| writer.append(format!("{thread}/{n}")).map(|_| ()))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    println!("200 durable messages in {:?}", start.elapsed());
    writer.close()?;

    let mut reader = log.reader("audit")?;
    let mut read = 0;
    while let Some(batch) = reader.next_batch(Wait::Timeout(Duration::ZERO))? {
        read += batch.len();
    }
    assert_eq!(read, 200);
    Ok(())
}
