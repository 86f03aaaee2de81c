//! Messages that are older than a jlog keeps them.
//!
//! Segments go in their order. Stamps in the future, from a clock that was ahead, are ignored: such a message is not younger
//! than those behind it. Stamps from a clock that was behind make nothing old that was written before.

use std::sync::Arc;
use std::time::Duration;

use crate::format::{COMPRESSED_HEADER_LEN, RecordFormat};
use crate::limits::AtLimit;
use crate::meta::MetaReader;
use crate::options::WriterOptions;
use crate::scan::{Window, walk};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::writer::Writer;
use crate::{Error, Result, Timestamp, counts, names, retention};

/// The first message of a segment is at most this part of the largest age older than its last one.
const PART: u32 = 8;

/// What is too old at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    now: Timestamp,
    max: Duration,
}

impl Ages {
    pub(crate) fn now(max: Duration) -> Self {
        Self { now: Timestamp::now(), max }
    }

    /// How old something of this time is, in seconds; `None` of a time that is still to come.
    pub(crate) fn of(&self, time: Timestamp) -> Option<u64> {
        self.now.seconds.checked_sub(time.seconds).map(u64::from)
    }

    fn older(&self, time: Timestamp, than: Duration) -> bool {
        self.of(time).is_some_and(|age| age > than.as_secs())
    }

    /// Whether a segment that begins with a message of this time is to end.
    pub(crate) fn is_to_end(&self, first: Timestamp) -> bool {
        self.older(first, self.max / PART)
    }

    /// Whether all messages of a complete segment are too old. Its last one decides; where that is from the future, the next
    /// one that is not, in a later segment, which is younger. A stamp that is older than the one before it may be that of a
    /// clock that was behind: it makes nothing older that comes before it.
    pub(crate) fn has_expired(
        &self,
        shared: &Shared,
        format: RecordFormat,
        number: u32,
        segments: &[u32],
    ) -> Result<bool> {
        if let Some(time) = last_time(shared, format, number)?.filter(|&time| self.of(time).is_some()) {
            return Ok(self.older(time, self.max));
        }
        for &later in segments.iter().filter(|&&later| later > number) {
            match first_time(shared, format, later)? {
                Some(time) if self.of(time).is_some() => return Ok(self.older(time, self.max)),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The time of a segment's first record.
pub(crate) fn first_time(shared: &Shared, format: RecordFormat, number: u32) -> Result<Option<Timestamp>> {
    let name = names::segment(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
    time_at(shared, format, &*file, number, 0)
}

fn time_at(
    shared: &Shared,
    format: RecordFormat,
    file: &dyn File,
    number: u32,
    offset: u64,
) -> Result<Option<Timestamp>> {
    let mut head = [0; COMPRESSED_HEADER_LEN];
    let n = read_up_to_at(file, &mut head, offset)
        .map_err(|e| Error::io("read", shared.at(&names::segment(number)), e))?;
    Ok(format.decode(&head[..n]).map(|header| header.time))
}

/// The time of a segment's last whole record before any damage.
fn last_time(shared: &Shared, format: RecordFormat, number: u32) -> Result<Option<Timestamp>> {
    let name = names::segment(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
    let fail = |e| Error::io("read", shared.at(&name), e);
    let facts = file.facts().map_err(fail)?;
    if let Some(offset) = counts::covered(shared, number, &facts).map(|run| run.last) {
        return time_at(shared, format, &*file, number, offset);
    }
    let len = facts.len;
    let mut last = None;
    walk(&*file, format, 0, len, &mut Window::default(), |_, header, _| last = Some(header.time))
        .map_err(fail)?;
    Ok(last)
}

/// Ends a segment whose first message is old enough, and removes segments that are too old, as the settings
/// say: those that nobody needs, and with `drop-oldest` also those that a subscriber needs.
pub(crate) fn run(shared: &Arc<Shared>) -> Result<()> {
    let limits = Settings::load(&*shared.storage, &shared.path)?.limits;
    let Some(max) = limits.max_age else { return Ok(()) };
    let meta = MetaReader::open(shared)?.get()?;
    let ages = Ages::now(max);
    if first_time(shared, meta.format, meta.storage_log)?.is_some_and(|time| ages.is_to_end(time)) {
        let writer = Writer::open(Arc::clone(shared), &WriterOptions::default().bypass_pre_commit(true))?;
        // Where a C process writes, its segment ends when it is full.
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
