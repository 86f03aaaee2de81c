//! Tracks which file of a segment each id refers to that a reader has handed out.
//!
//! A repair replaces a segment's file with one in which records may have other markers. An id that
//! was handed out before refers to a record in the old file; it is translated when it comes back as
//! a checkpoint.

use std::collections::BTreeMap;

use crate::codec::names;
use crate::files::renumbered::{self, Identity};
use crate::files::shared::Shared;
use crate::{Error, LogId, Result};

/// If there are more segments than this, the oldest are forgotten.
const MAX_SEGMENTS: usize = 4096;

/// The records of one file that a reader has seen.
#[derive(Clone, Copy, Debug)]
struct Generation {
    file: Identity,
    /// The largest marker handed out.
    given: u32,
}

#[derive(Debug, Default)]
pub(super) struct Generations(BTreeMap<u32, Vec<Generation>>);

impl Generations {
    /// Records that the reader has this file of the segment open.
    pub(super) fn opened(&mut self, segment: u32, file: Identity) {
        let files = self.0.entry(segment).or_default();
        if files.last().is_none_or(|last| last.file != file) {
            files.push(Generation { file, given: 0 });
        }
        if self.0.len() > MAX_SEGMENTS {
            self.0.pop_first();
        }
    }

    /// Records that everything up to this record was handed out, from the file that was opened
    /// last.
    pub(super) fn gave(&mut self, last: LogId) {
        if let Some(generation) = self.0.get_mut(&last.segment).and_then(|files| files.last_mut()) {
            generation.given = generation.given.max(last.marker);
        }
    }

    /// The file that an id refers to; `None` if the reader has not handed it out. If two files have
    /// had a record with this id, it refers to the older one: then messages are delivered again,
    /// and none is skipped.
    pub(super) fn of(&self, id: LogId) -> Option<Identity> {
        let files = self.0.get(&id.segment)?;
        files.iter().find(|generation| id.marker <= generation.given).or(files.last()).map(|g| g.file)
    }

    /// Forgets everything up to this id, which is done.
    pub(super) fn done(&mut self, id: LogId) {
        self.0 = self.0.split_off(&id.segment);
        if let Some(files) = self.0.get_mut(&id.segment)
            && let Some(newest) = files.len().checked_sub(1)
        {
            let open = files.iter().position(|generation| id.marker < generation.given);
            files.drain(..open.unwrap_or(newest));
        }
    }
}

impl Generations {
    /// Whether this record was handed out.
    pub(super) fn has_given(&self, id: LogId) -> bool {
        self.0.get(&id.segment).is_some_and(|files| files.iter().any(|file| id.marker <= file.given))
    }

    /// The current id of a record that was handed out.
    ///
    /// # Errors
    /// [`Error::StaleId`] if that is not known.
    pub(super) fn current_id(&self, shared: &Shared, id: LogId) -> Result<LogId> {
        let Some(from) = self.of(id).filter(|_| id.marker > 0) else { return Ok(id) };
        let name = names::segment(id.segment);
        let to = match shared.facts(&name) {
            Ok(facts) => facts.identity,
            // Every subscriber has passed it, and it was removed.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(id),
            Err(e) => return Err(Error::io("look at", shared.at(&name), e)),
        };
        renumbered::follow(shared, id.segment, from, to, id.marker)?
            .map(|marker| LogId::new(id.segment, marker))
            .ok_or_else(|| Error::StaleId { path: shared.path.clone(), id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Identity = (1, 7);
    const NEW: Identity = (1, 8);

    #[test]
    fn an_id_is_about_the_file_that_it_was_read_from() {
        let mut generations = Generations::default();
        assert_eq!(generations.of(LogId::new(3, 1)), None);
        generations.opened(3, OLD);
        generations.gave(LogId::new(3, 10));
        generations.opened(3, OLD);
        generations.opened(3, NEW);
        generations.gave(LogId::new(3, 12));
        let of = |generations: &Generations, marker| generations.of(LogId::new(3, marker));
        assert_eq!(of(&generations, 10), Some(OLD));
        assert_eq!(of(&generations, 11), Some(NEW));
        assert_eq!(of(&generations, 99), Some(NEW));
        generations.done(LogId::new(3, 9));
        assert_eq!(of(&generations, 10), Some(OLD));
        // Once the last record of the old file is done, the same id can only refer to the new file.
        generations.done(LogId::new(3, 10));
        assert_eq!(of(&generations, 10), Some(NEW));
        generations.opened(4, OLD);
        generations.done(LogId::new(4, 0));
        assert_eq!((of(&generations, 10), generations.of(LogId::new(4, 1))), (None, Some(OLD)));
        for segment in 0..10_000 {
            generations.opened(segment, OLD);
        }
        assert_eq!(generations.0.len(), MAX_SEGMENTS);
    }
}
