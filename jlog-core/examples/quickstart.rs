//! Writes messages, makes them durable, and reads them as a subscriber: the code in README.

#![allow(missing_docs, clippy::print_stdout)]

use std::time::Duration;

use jlog_core::{Jlog, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    std::env::set_current_dir(&directory)?;

    let log = Jlog::create_or_open("feed")?;
    log.ensure_subscriber("billing", Start::Beginning)?;

    let writer = log.writer()?; // Send + Sync; other processes may write, too
    writer.append(b"hello")?; // subscribers see it when this returns
    writer.append_batch(&["many", "at", "once"])?;
    writer.sync()?; // all of it survives a power failure when this returns
    writer.close()?;

    let mut reader = log.reader("billing")?;
    while let Some(batch) = reader.next_batch(Wait::Timeout(Duration::from_secs(1)))? {
        for message in &batch {
            println!("{} {}", message.id(), String::from_utf8_lossy(message.body()));
        }
        let last = batch.last_id();
        reader.commit(last)?; // everything up to here is done
    }
    Ok(())
}
