//! A feed that never holds more than a mebibyte: the oldest segments are dropped, and a subscriber
//! learns how many messages it missed.

#![allow(missing_docs, clippy::print_stdout)]

use jlog_core::{AtLimit, Jlog, Limits, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let limits = Limits { max_bytes: Some(1 << 20), at_limit: AtLimit::DropOldest, ..Limits::default() };
    let log = Jlog::options().limits(limits).create(directory.path().join("feed"))?;
    log.subscribe("slow", Start::Beginning)?;

    let writer = log.writer()?;
    for n in 0..100_u32 {
        writer.append_batch(&vec![format!("message of round {n}"); 1000])?;
    }
    writer.close()?;

    let mut reader = log.reader("slow")?;
    let mut read = 0;
    while let Some(batch) = reader.next_batch(Wait::No)? {
        read += batch.len() as u64;
    }
    println!("read {read} messages, missed {}", reader.missed());
    assert_eq!(read + reader.missed(), 100_000);
    Ok(())
}
