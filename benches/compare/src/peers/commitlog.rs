//! commitlog: one process; never syncs messages (at a roll it syncs its index).

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::work::{Load, Tally};

/// A log with segments of this size.
pub fn open(path: &Path, segment: usize) -> Result<CommitLog> {
    let mut options = LogOptions::new(path);
    options.segment_max_bytes(segment).message_max_bytes(64 << 20);
    Ok(CommitLog::new(options)?)
}

/// Appends the load, in batches if it has any.
pub fn write(log: &mut CommitLog, load: &Load) -> Result<()> {
    if load.batch > 1 {
        let mut buf = MessageBuf::default();
        load.each_batch(|batch| {
            buf.clear();
            for body in batch {
                buf.push(body).map_err(|e| anyhow!("{e:?}"))?;
            }
            log.append(&mut buf)?;
            Ok(())
        })?;
    } else {
        load.each(|body| Ok(log.append_msg(body).map(|_| ())?))?;
    }
    log.flush()?;
    ensure!(log.next_offset() == load.count as u64, "commitlog lost messages");
    Ok(())
}

/// Appends the load to a new log; million messages per second.
pub fn append(path: &Path, load: &Load) -> Result<f64> {
    let mut log = open(path, 4 << 20)?;
    load.timed(|| write(&mut log, load))
}

/// Reads everything.
pub fn read(log: &CommitLog) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut next = 0;
    loop {
        let messages = log.read(next, ReadLimit::max_bytes(256 << 10))?;
        if messages.is_empty() {
            return Ok(tally);
        }
        for message in messages.iter() {
            tally.add(message.payload());
        }
        next += messages.len() as u64;
    }
}
