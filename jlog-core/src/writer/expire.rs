//! Ends and removes segments that are too old, for waiting readers and for cleaning.

use std::sync::Arc;

use crate::codec::settings::Settings;
use crate::files::metastore::MetaReader;
use crate::files::shared::Shared;
use crate::limits::AtLimit;
use crate::options::WriterOptions;
use crate::upkeep::expiry::{Ages, first_time};
use crate::upkeep::retention;
use crate::writer::Writer;
use crate::{Error, Result};

/// Ends the segment being written if its first message is old enough, and removes segments that the
/// settings call too old: those that nobody needs and, with `drop-oldest`, also those that a
/// subscriber needs.
pub(crate) fn run(shared: &Arc<Shared>) -> Result<()> {
    let limits = Settings::load(&*shared.storage, &shared.path)?.limits;
    let Some(max) = limits.max_age else { return Ok(()) };
    let meta = MetaReader::open(shared)?.get()?;
    let ages = Ages::now(max);
    if first_time(shared, meta.format, meta.storage_log)?.is_some_and(|time| ages.is_to_end(time)) {
        let writer = Writer::open(Arc::clone(shared), &WriterOptions::default().bypass_pre_commit(true))?;
        // If a C process writes, its segment ends only when it is full.
        match writer.roll() {
            Ok(()) | Err(Error::CWriter { .. }) => writer.close()?,
            Err(e) => return Err(e),
        }
    }
    let last = MetaReader::open(shared)?.get()?.storage_log;
    retention::clean(shared, last)?;
    if limits.at_limit == AtLimit::DropOldest {
        let segments = shared.segments()?;
        retention::drop_oldest(shared, meta.format, last, |number, _| {
            ages.has_expired(shared, meta.format, number, &segments)
        })?;
    }
    Ok(())
}
