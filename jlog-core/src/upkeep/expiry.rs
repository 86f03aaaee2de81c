//! Messages that exceed a jlog's age limit.
//!
//! Segments are dropped in order. Timestamps in the future, from a clock that was ahead, are
//! ignored: such a message is not younger than later ones. Timestamps from a clock that was behind
//! do not make earlier messages old.

use std::time::Duration;

use crate::codec::format::{COMPRESSED_HEADER_LEN, RecordFormat};
use crate::codec::names;
use crate::files::scan::{Window, walk};
use crate::files::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::walk::counts;
use crate::{Error, Result, Timestamp};

/// The first message of a segment is older than its last one by at most this fraction of the age
/// limit.
const PART: u32 = 8;

/// Decides what is too old at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    now: Timestamp,
    max: Duration,
}

impl Ages {
    pub(crate) fn now(max: Duration) -> Self {
        Self { now: Timestamp::now(), max }
    }

    /// The age of something with this time, in seconds; `None` for a time in the future.
    pub(crate) fn of(&self, time: Timestamp) -> Option<u64> {
        self.now.seconds.checked_sub(time.seconds).map(u64::from)
    }

    fn older(&self, time: Timestamp, than: Duration) -> bool {
        self.of(time).is_some_and(|age| age > than.as_secs())
    }

    /// Whether a segment that begins with a message of this time must end.
    pub(crate) fn is_to_end(&self, first: Timestamp) -> bool {
        self.older(first, self.max / PART)
    }

    /// Whether all messages of a complete segment are too old. Its last message decides or, if that
    /// is from the future, the next one that is not, in a later segment, which is younger. A
    /// timestamp older than the one before it may be from a clock that was behind: it makes no
    /// earlier message older.
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
