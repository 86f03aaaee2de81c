//! Tasks of an async program append durably and share syncs, and one reads as a stream; run with
//! `--features async`.

#![allow(missing_docs, clippy::print_stdout)]

use jlog_core::asynchronous::{AsyncReader, AsyncWriter};
use jlog_core::{Jlog, Start};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    tokio::runtime::Builder::new_current_thread().build()?.block_on(tasks(&directory.path().join("feed")))
}

async fn tasks(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let log = Jlog::create_or_open(path)?;
    log.ensure_subscriber("billing", Start::Beginning)?;

    let writer = AsyncWriter::open(&log).await?;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.append_durable(format!("request {n}")).await })
        })
        .collect();
    for task in tasks {
        let id = task.await??; // it survives a power failure now
        println!("{id}");
    }

    let mut reader = AsyncReader::open(&log, "billing").await?;
    let mut seen = 0;
    while seen < 100 {
        let Some(batch) = reader.next_batch().await else { break };
        let batch = batch?; // owns its messages, and is cheap to clone
        for message in &batch {
            println!("{} {}", message.id(), String::from_utf8_lossy(message.body()));
        }
        seen += batch.len();
        reader.commit(batch.last_id()).await?; // everything up to here is done
    }
    writer.close().await?;
    Ok(())
}
