//! walrus: one process. It takes its directory from the environment and leaves threads behind, so
//! it works in a child process. It is read one by one: its bulk read (0.2.0) leaves out messages
//! where a block of 10 MiB ends.

use std::path::Path;

use anyhow::{Result, ensure};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::child::Child;
use crate::ours;
use crate::work::{Load, Tally};

/// Appends to a new log and reads it, in a child; million messages per second of both.
pub fn run(dir: &Path, load: &Load, len: usize) -> Result<(f64, f64)> {
    let arguments = [
        "walrus".to_owned(),
        format!("--count={}", load.count),
        format!("--batch={}", load.batch),
        format!("--len={len}"),
    ];
    let mut child = Child::start(&arguments, &[("WALRUS_DATA_DIR", dir.as_os_str())])?;
    let figures = child.figures()?;
    ensure!(figures.len() == 2, "walrus gave {figures:?}");
    Ok((figures[0], figures[1]))
}

/// What the child does.
pub fn work(count: usize, batch: usize, len: usize) -> Result<Vec<f64>> {
    let load = Load::new(len, count, batch);
    let log = Walrus::with_consistency_and_schedule(
        ReadConsistency::AtLeastOnce { persist_every: u32::MAX },
        FsyncSchedule::NoFsync,
    )?;
    let append = load.timed(|| {
        if batch > 1 {
            load.each_batch(|bodies| Ok(log.batch_append_for_topic("t", bodies)?))
        } else {
            load.each(|body| Ok(log.append_for_topic("t", body)?))
        }
    })?;
    let mut tally = Tally::default();
    // The end is in a block that is still being written; there walrus stores its position for each
    // message.
    let most = count as u64 / 10 * 9;
    let ((), seconds) = ours::seconds(|| read_to(&log, most, &mut tally))?;
    read_to(&log, count as u64, &mut tally)?;
    tally.check(&load.tally(), "walrus")?;
    Ok(vec![append, load.rate(seconds) * 0.9])
}

/// Reads until it has this many messages, or until there are none left.
fn read_to(log: &Walrus, count: u64, tally: &mut Tally) -> Result<()> {
    while tally.messages < count
        && let Some(entry) = log.read_next("t", true)?
    {
        tally.add(&entry.data);
    }
    Ok(())
}
