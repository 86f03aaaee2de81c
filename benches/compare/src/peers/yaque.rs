//! yaque: one sending process; never syncs.

use std::path::Path;

use anyhow::{Result, anyhow};
use yaque::{QueueIter, SenderBuilder};

use crate::work::{Load, Tally};

/// Appends the load to a new queue, in batches if it has any; million messages per second.
pub fn append(path: &Path, load: &Load) -> Result<f64> {
    let mut sender = SenderBuilder::new().segment_size(4 << 20).open(path)?;
    let rate = load.timed(|| {
        if load.batch > 1 {
            load.each_batch(|batch| sender.try_send_batch(batch).map_err(|e| anyhow!("{e:?}")))
        } else {
            load.each(|body| sender.try_send(body).map_err(|e| anyhow!("{e:?}")))
        }
    })?;
    drop(sender);
    read(path, load.count)?.check(&load.tally(), "yaque")?;
    Ok(rate)
}

/// Reads this many messages from the beginning.
pub fn read(path: &Path, count: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    for body in QueueIter::open(path)?.take(count) {
        tally.add(&body?);
    }
    Ok(tally)
}
