//! A consumer that waits for messages without polling, and can be told to stop.

#![allow(missing_docs, clippy::print_stdout)]

use jlog_core::{Jlog, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let log = Jlog::create(directory.path().join("feed"))?;
    log.subscribe("worker", Start::Beginning)?;
    let mut reader = log.reader("worker")?;
    let waker = reader.waker()?;

    let worker = std::thread::spawn(move || -> jlog_core::Result<usize> {
        let mut read = 0;
        // `None` means that the waker was used.
        while let Some(batch) = reader.next_batch(Wait::Forever)? {
            read += batch.len();
            let last = batch.last_id();
            reader.commit(last)?;
        }
        Ok(read)
    });

    let writer = log.writer()?;
    for n in 0..1000 {
        writer.append(format!("job {n}"))?;
    }
    writer.close()?;
    while log.lag("worker")?.messages > 0 {
        std::thread::yield_now();
    }
    waker.wake();
    let read = worker.join().map_err(|_| "the worker panicked")??;
    println!("the worker has done {read} jobs");
    assert_eq!(read, 1000);
    Ok(())
}
