//! okaywal: every commit is synced; threads share syncs.

use std::path::Path;

use anyhow::Result;
use okaywal::{Configuration, LogVoid};

/// Appends `each` messages from this many threads, one entry per message; appends per second.
///
/// Its files keep the default sizes (1 MiB, filled with zeroes before they are used, recycled after
/// 768 KiB), which suit it better than larger ones.
pub fn durable(path: &Path, threads: usize, each: usize, body: &[u8]) -> Result<f64> {
    let log = Configuration::default_for(path).open(LogVoid)?;
    let seconds = crate::parts::durable::in_threads(threads, || {
        for _ in 0..each {
            let mut entry = log.begin_entry()?;
            entry.write_chunk(body)?;
            entry.commit()?;
        }
        Ok(())
    })?;
    log.shutdown()?;
    Ok(crate::work::as_f64(threads * each) / seconds)
}
