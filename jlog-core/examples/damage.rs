//! A reader that reports damage and continues after it, and the repair that takes it out.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use jlog_core::{Jlog, OnDamage, ReaderOptions, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("feed");
    let log = Jlog::create(&path)?;
    log.subscribe("billing", Start::Beginning)?;
    let writer = log.writer()?;
    writer.append_batch(&["one", "two", "three"])?;
    writer.close()?;

    // Overwrite a byte of the second message, as a failing disk might.
    let segment = path.join("00000000");
    let mut bytes = std::fs::read(&segment)?;
    bytes[35] ^= 1;
    std::fs::write(&segment, bytes)?;

    let log = Jlog::options().on_event(|event| eprintln!("{event}")).open(&path)?;
    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = log.reader_with("billing", options)?;
    let mut read = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No)? {
        read.extend(batch.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()));
    }
    println!("read {read:?}, skipped {} bytes", reader.skipped());
    assert_eq!(read, ["one", "three"]);

    Jlog::repair(&path)?;
    assert!(log.verify()?.findings.is_empty());
    Ok(())
}
