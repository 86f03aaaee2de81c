//! flexi_logger: a queue and a thread behind the macros of the crate log.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flexi_logger::{
    Cleanup, Criterion, DeferredNow, FileSpec, LogSpecification, Logger, Naming, Record, WriteMode,
};

use crate::lines::{self, ROTATE_AT, Rates, rates, with_text};

/// Writes nothing before the message. The time is read only if it is needed, which it is not here.
fn plain(out: &mut dyn Write, _: &mut DeferredNow, record: &Record<'_>) -> std::io::Result<()> {
    write!(out, "{}", record.args())
}

/// Lines to files that are rotated by size; all files are kept.
pub fn rotated(dir: &Path, count: usize) -> Result<Rates> {
    // The queue has no limit: the logging thread never waits, and unwritten lines are held in
    // memory.
    let (logger, handle) = Logger::with(LogSpecification::info())
        .log_to_file(FileSpec::default().directory(dir).basename("log"))
        .format_for_files(plain)
        .rotate(Criterion::Size(ROTATE_AT as u64), Naming::Numbers, Cleanup::Never)
        .write_mode(WriteMode::Async)
        .build()?;
    log::set_max_level(log::LevelFilter::Info);
    let log = || {
        for n in 0..count {
            with_text!(log::info!(logger: logger,)(, n, n));
        }
    };
    let rates = rates(count, log, || {
        handle.shutdown();
        Ok(())
    })?;
    lines::check(dir, count, "flexi_logger")?;
    Ok(rates)
}
