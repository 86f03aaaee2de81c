//! The pre-commit buffer of a writer.

use std::io::IoSlice;

use super::{Core, Inner, len_u32};
use crate::precommit::{self, Guard, PreCommit};
use crate::recovery;
use crate::storage::write_all_at;
use crate::{Error, Event, Result};

impl Core {
    /// Appends what the buffer holds to the segment, in one piece, and empties it.
    pub(super) fn flush_buffer(&self, inner: &mut Inner) -> Result<()> {
        let Some(mut buffer) = inner.buffer.take() else { return Ok(()) };
        let outcome = self.flush_taken(inner, &mut buffer);
        inner.buffer = Some(buffer);
        outcome
    }

    fn flush_taken(&self, inner: &mut Inner, buffer: &mut PreCommit) -> Result<()> {
        if buffer.is_foreign() {
            buffer.adopt(&self.shared, self.format)?;
        }
        if buffer.is_empty() {
            buffer.end_flush();
            return Ok(());
        }
        self.complete_flush(inner, buffer)?;
        if buffer.is_empty() {
            return Ok(());
        }
        self.in_segment(inner, |core, inner| {
            let Some(current) = &mut inner.current else { return Ok(()) };
            let (number, start) = (current.number, current.end);
            buffer.begin_flush(core.format, number, start);
            match write_all_at(&*current.file, &mut [IoSlice::new(buffer.bytes())], start) {
                Ok(()) => {
                    current.end += buffer.bytes().len() as u64;
                    inner.group.extend_from_slice(buffer.records());
                    core.commit_group(inner)?;
                    buffer.end_flush();
                    Ok(())
                }
                Err(e) => {
                    // Whole records that are there may have been read: they stay, and leave the buffer.
                    let there = current.file.len().unwrap_or(start).saturating_sub(start);
                    let (records, bytes) = buffer.first_records(there);
                    let end = start + bytes as u64;
                    if current.file.set_len(end).is_ok() {
                        current.end = end;
                        inner.group.extend_from_slice(&buffer.records()[..records]);
                        core.commit_group(inner)?;
                        buffer.drop_first(records);
                        buffer.abandon_flush();
                    } else {
                        inner.suspect = true;
                        buffer.doubt_flush(number, start);
                    }
                    Err(Error::io("write", core.path_of(number), e))
                }
            }
        })
    }

    /// Opens the pre-commit buffer, completes a flush that was cut short, flushes what an earlier writer left, and
    /// gives the buffer its size.
    pub(super) fn open_buffer(&self, inner: &mut Inner, size: Option<u32>) -> Result<()> {
        let there = precommit::size_on_disk(&self.shared)?;
        if size.map_or(there.unwrap_or(0), u64::from) == 0 && there.unwrap_or(0) == 0 {
            // The C library's writers leave an empty one. It is not needed: a writer opens without it as well.
            let _ = precommit::create_empty(&self.shared);
            return Ok(());
        }
        let mut guard = Guard::take(&self.shared)?;
        // From here on no other process makes or replaces the file.
        let there = precommit::size_on_disk(&self.shared)?;
        let wanted = size.map_or(there.unwrap_or(0), u64::from);
        if there.is_some() {
            let mut buffer = PreCommit::open(&self.shared, self.format, guard, self.keeps_checksums())?;
            self.complete_flush(inner, &mut buffer)?;
            if there == Some(wanted) {
                if !buffer.is_empty() {
                    self.shared.note(Event::BufferRecovered {
                        records: len_u32(buffer.records().len()),
                        bytes: buffer.bytes().len() as u64,
                    });
                    // What survived its writer becomes readable without waiting for another message. If that
                    // fails, the messages stay in the buffer, and the next append or flush reports the error.
                    let _ = self.flush_taken(inner, &mut buffer);
                }
                inner.buffer = Some(buffer);
                return Ok(());
            }
            self.flush_taken(inner, &mut buffer)?;
            buffer.close();
            guard = buffer.into_guard();
        }
        precommit::create(&self.shared, u32::try_from(wanted).unwrap_or(0))?;
        if wanted > 0 {
            inner.buffer = Some(PreCommit::open(&self.shared, self.format, guard, self.keeps_checksums())?);
        }
        Ok(())
    }

    /// A flush was cut short, by the end of an earlier writer or by an error: finds out how much of it reached
    /// its segment.
    fn complete_flush(&self, inner: &mut Inner, buffer: &mut PreCommit) -> Result<()> {
        let Some(place) = buffer.unfinished else { return Ok(()) };
        self.in_segment(inner, |core, _| {
            // Opening the segment has cut a record that was not finished: what is there is whole.
            let there = if place.written {
                Some(buffer.bytes().len() as u64)
            } else {
                // If the segment was removed, it is unknown what was written. Twice is better than never.
                recovery::flushed_bytes(&core.shared, place.segment, place.offset, buffer.bytes())?
            };
            let (records, _) = buffer.first_records(there.unwrap_or(0));
            if records > 0 {
                core.shared.note(Event::BufferAlreadyFlushed { records: len_u32(records) });
            }
            buffer.drop_first(records);
            buffer.abandon_flush();
            Ok(())
        })
    }
}
