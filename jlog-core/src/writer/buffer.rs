//! The pre-commit buffer of a writer.

use std::io::IoSlice;

use super::state::{Appender, Core};
use super::tail::{Room, len_u32};
use crate::files::precommit::{self, Guard, PreCommit};
use crate::storage::write_all_at;
use crate::upkeep::recovery;
use crate::{Error, Event, Result};

impl Core {
    /// Appends the buffer's contents to the segment in one piece, and empties it.
    pub(super) fn flush_buffer(&self, appender: &mut Appender) -> Result<()> {
        let Some(mut buffer) = appender.buffer.take() else { return Ok(()) };
        let outcome = self.flush_taken(appender, &mut buffer);
        appender.buffer = Some(buffer);
        outcome
    }

    fn flush_taken(&self, appender: &mut Appender, buffer: &mut PreCommit) -> Result<()> {
        if buffer.is_foreign() {
            buffer.adopt(&self.shared, self.format)?;
        }
        if buffer.is_empty() {
            buffer.end_flush();
            return Ok(());
        }
        self.complete_flush(appender, buffer)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let mut segment = self.lock(appender, Room::Wanted)?;
        let (number, start) = (segment.number(), segment.end());
        buffer.begin_flush(self.format, number, start);
        let error = match write_all_at(segment.file(), &mut [IoSlice::new(buffer.bytes())], start) {
            Ok(()) => {
                segment.set_end(start + buffer.bytes().len() as u64);
                segment.count_flushed(start, buffer.records());
                buffer.end_flush();
                segment.done();
                return Ok(());
            }
            Err(e) => e,
        };
        // Readers may have seen the whole records in the segment: these stay there, and leave the
        // buffer.
        let there = segment.file().len().unwrap_or(start).saturating_sub(start);
        let (records, bytes) = buffer.first_records(there);
        let end = start + bytes as u64;
        if segment.file().set_len(end).is_ok() {
            segment.set_end(end);
            segment.count_flushed(start, &buffer.records()[..records]);
            buffer.drop_first(records);
            buffer.abandon_flush();
        } else {
            segment.suspect();
            buffer.doubt_flush(number, start);
        }
        Err(Error::io("write", self.path_of(number), error))
    }

    /// Opens the pre-commit buffer, completes an interrupted flush, flushes the records of an
    /// earlier writer, and sets the buffer's size.
    pub(super) fn open_buffer(&self, appender: &mut Appender, size: Option<u32>) -> Result<()> {
        let there = precommit::size_on_disk(&self.shared)?;
        if size.map_or(there.unwrap_or(0), u64::from) == 0 && there.unwrap_or(0) == 0 {
            // Make an empty one, as the C library's writers do. If that fails, the writer opens
            // without it.
            let _ = precommit::create_empty(&self.shared);
            return Ok(());
        }
        let mut guard = Guard::take(&self.shared)?;
        // From here on no other process makes or replaces the file.
        let there = precommit::size_on_disk(&self.shared)?;
        let wanted = size.map_or(there.unwrap_or(0), u64::from);
        if there.is_some() {
            let mut buffer = PreCommit::open(&self.shared, self.format, guard, self.keeps_checksums())?;
            self.complete_flush(appender, &mut buffer)?;
            if there == Some(wanted) {
                if !buffer.is_empty() {
                    self.shared.note(Event::BufferRecovered {
                        records: len_u32(buffer.records().len()),
                        bytes: buffer.bytes().len() as u64,
                    });
                    // Messages that survived their writer become readable without waiting for
                    // another message. If that fails, they stay in the buffer, and the next append
                    // or flush reports the error.
                    let _ = self.flush_taken(appender, &mut buffer);
                }
                appender.buffer = Some(buffer);
                return Ok(());
            }
            self.flush_taken(appender, &mut buffer)?;
            buffer.close();
            guard = buffer.into_guard();
        }
        precommit::create(&self.shared, u32::try_from(wanted).unwrap_or(0))?;
        if wanted > 0 {
            appender.buffer =
                Some(PreCommit::open(&self.shared, self.format, guard, self.keeps_checksums())?);
        }
        Ok(())
    }

    /// Finds out how much of an interrupted flush reached its segment. Flushes are interrupted by
    /// errors, or by the end of an earlier writer.
    fn complete_flush(&self, appender: &mut Appender, buffer: &mut PreCommit) -> Result<()> {
        let Some(place) = buffer.unfinished else { return Ok(()) };
        let segment = self.lock(appender, Room::Wanted)?;
        // Opening the segment has truncated an unfinished record: the remaining ones are whole.
        let there = if place.written {
            Some(buffer.bytes().len() as u64)
        } else {
            // If the segment was removed, it is unknown what was written. Writing twice is better
            // than never.
            recovery::flushed_bytes(&self.shared, place.segment, place.offset, buffer.bytes())?
        };
        let (records, _) = buffer.first_records(there.unwrap_or(0));
        if records > 0 {
            self.shared.note(Event::BufferAlreadyFlushed { records: len_u32(records) });
        }
        buffer.drop_first(records);
        buffer.abandon_flush();
        segment.done();
        Ok(())
    }
}
