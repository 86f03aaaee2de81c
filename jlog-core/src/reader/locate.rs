//! Finding the place of a record by its marker.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::state::{Segment, open};
use crate::codec::format::RecordFormat;
use crate::codec::names;
use crate::files::checksum::{Suspect, Verdict, Verifier};
use crate::files::index;
use crate::files::renumbered::Identity;
use crate::files::scan::{Place, Step, Window, record_crc, step, walk};
use crate::files::shared::Shared;
use crate::storage::File;
use crate::walk::survey::{Fault, Item, Survey};
use crate::{Error, Result, Timestamp};

/// A place in a segment, as readers number its records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Located {
    pub(super) place: Place,
    /// Records up to here are not verified, because the checksums there describe other records.
    pub(super) foreign_until: u64,
}

/// The place where the record after `marker` begins, or the place after the last record if there
/// are fewer. An index, or a walk over headers, is enough if the checksums confirm the result.
/// Otherwise everything before the place is checked, from `known` on if that is before it.
pub(super) fn locate(
    shared: &Shared,
    format: RecordFormat,
    segment: &Segment,
    marker: u32,
    known: Option<Located>,
) -> Result<Located> {
    if marker == 0 {
        return Ok(Located::default());
    }
    let mut search = Search::new(shared, format, segment, Verifier::load(shared, segment.number)?);
    let located = match search.directly(marker, Place::default()) {
        Ok(Some((end, _))) => Ok(end),
        Ok(None) => search.thoroughly(marker, known),
        Err(e) => Err(e),
    };
    located.map_err(|e| search.error(e))
}

/// A search in an open segment.
struct Search<'a> {
    shared: &'a Shared,
    format: RecordFormat,
    number: u32,
    file: Arc<dyn File>,
    verifier: Verifier,
    /// What was read last, in walks and around single records.
    walked: Window,
    record: Window,
}

impl<'a> Search<'a> {
    fn new(shared: &'a Shared, format: RecordFormat, segment: &Segment, verifier: Verifier) -> Self {
        let (number, file) = (segment.number, Arc::clone(&segment.file));
        let (walked, record) = (Window::default(), Window::of(4096));
        Self { shared, format, number, file, verifier, walked, record }
    }

    fn error(&self, e: io::Error) -> Error {
        Error::io("read", self.shared.at(&names::segment(self.number)), e)
    }

    /// The place after the record `marker`, and whether nothing is damaged before it, by the index
    /// or by a walk over headers from `sure` on; `None` if the checksums do not confirm it.
    fn directly(&mut self, marker: u32, sure: Place) -> io::Result<Option<(Located, bool)>> {
        let Self { shared, format, number, file, verifier, walked, record } = self;
        let (shared, format, number, file) = (*shared, *format, *number, &**file);
        if let Some(offset) = index::after(shared, number, file, format, marker) {
            let place = Place { marker, offset };
            let listed = |before: Place| {
                Ok(index::after(shared, number, file, format, before.marker) == Some(before.offset))
            };
            if is_confirmed(verifier, file, format, place, record, listed)? {
                return Ok(Some((Located { place, foreign_until: 0 }, true)));
            }
        }
        let anchor = verifier.anchor(file, format, marker);
        let anchor = anchor.map_or_else(Place::default, |(marker, offset)| Place { marker, offset });
        let from = if sure.marker <= marker && sure.marker > anchor.marker { sure } else { anchor };
        let mut end = Located { place: from, foreign_until: 0 };
        let to = file.len()?;
        let mut survey = Survey::new((shared, number), file, format, verifier, to).by_headers();
        survey.window = std::mem::take(walked);
        let damaged = walk_to(&mut survey, marker, &mut end)?;
        *walked = survey.window;
        let leads_here = |before: Place| {
            let walked =
                walk(file, format, before.offset, end.place.offset, &mut Window::default(), |_, _, _| ())?;
            let here = Place { marker: before.marker.saturating_add(walked.records), offset: walked.offset };
            Ok(here == end.place)
        };
        let accepted = verifier.is_empty()
            || !damaged && is_confirmed(verifier, file, format, end.place, record, leads_here)?;
        Ok(accepted.then_some((end, !damaged)))
    }

    /// The same by checking everything before the place, from `known` on if that is before it.
    fn thoroughly(&mut self, marker: u32, known: Option<Located>) -> io::Result<Located> {
        let mut end = known.filter(|known| known.place.marker <= marker).unwrap_or_default();
        let to = self.file.len()?;
        let segment = (self.shared, self.number);
        let mut survey = Survey::new(segment, &*self.file, self.format, &mut self.verifier, to);
        walk_to(&mut survey, marker, &mut end)?;
        Ok(end)
    }

    /// What is at a place, as a reader that verifies no checksums sees it; `None` at the end.
    fn next(&mut self, place: Place) -> io::Result<Option<Item>> {
        let mut unverified = Verifier::default();
        let (segment, to) = ((self.shared, self.number), self.file.len()?);
        let mut survey = Survey::new(segment, &*self.file, self.format, &mut unverified, to).by_headers();
        survey.window = std::mem::take(&mut self.record);
        let mut first = None;
        survey.run(place, |item| {
            first = Some(item);
            ControlFlow::Break(())
        })?;
        self.record = survey.window;
        Ok(first)
    }
}

/// Finds places in a segment, in the order of their markers, so that no record is walked over
/// twice.
pub(crate) struct Finder<'a> {
    search: Search<'a>,
    identity: Identity,
    /// The last place that was found.
    last: Place,
}

impl<'a> Finder<'a> {
    /// `None` if the segment does not exist.
    ///
    /// # Errors
    /// The segment or its sidecar cannot be read.
    pub(crate) fn open(shared: &'a Shared, format: RecordFormat, number: u32) -> Result<Option<Self>> {
        let Some(mut segment) = open(shared, number, true)? else { return Ok(None) };
        let verifier = std::mem::take(&mut segment.verifier);
        let search = Search::new(shared, format, &segment, verifier);
        Ok(Some(Self { search, identity: segment.identity, last: Place::default() }))
    }

    /// The segment's file.
    pub(crate) fn file(&self) -> Identity {
        self.identity
    }

    /// The place after the record `marker`, and the time of the next record if there is one. `None`
    /// if only a reader can know: there is damage, or too few records, or nothing follows although
    /// the segment is `complete`.
    ///
    /// # Errors
    /// The segment or its sidecar cannot be read.
    pub(crate) fn find(&mut self, marker: u32, complete: bool) -> Result<Option<(Place, Option<Timestamp>)>> {
        self.look(marker, complete).map_err(|e| self.search.error(e))
    }

    fn look(&mut self, marker: u32, complete: bool) -> io::Result<Option<(Place, Option<Timestamp>)>> {
        let place = match marker {
            0 => Place::default(),
            _ => match self.search.directly(marker, self.last)? {
                Some((Located { place, foreign_until: 0 }, true)) if place.marker == marker => place,
                _ => return Ok(None),
            },
        };
        self.last = place;
        Ok(match self.search.next(place)? {
            Some(Item::Record(found)) => Some((place, Some(found.header.time))),
            None if !complete => Some((place, None)),
            Some(Item::Damage(_)) | None => None,
        })
    }
}

/// Whether checksums show that a record with the next marker begins at this place or, if none
/// covers it, that `leads_here` holds for the place after the last earlier record that has a
/// checksum.
fn is_confirmed(
    verifier: &mut Verifier,
    file: &dyn File,
    format: RecordFormat,
    place: Place,
    window: &mut Window,
    leads_here: impl FnOnce(Place) -> io::Result<bool>,
) -> io::Result<bool> {
    let Place { marker, offset } = place;
    if verifier.covers(offset) {
        let left = file.len()?.saturating_sub(offset);
        let Step::Record(_, total) = step(format, window.at(file, offset, format.header_len())?, left) else {
            return Ok(false);
        };
        let crc = record_crc(file, offset, total, window)?;
        let suspect = Suspect { marker: marker.saturating_add(1), offset, total };
        return Ok(verifier.check(suspect, || crc)? == Verdict::Good);
    }
    match verifier.last_before(file, format, offset)? {
        None => Ok(false),
        Some(before) if before == Place::default() => Ok(true),
        Some(before) => Ok(before == place || leads_here(before)?),
    }
}

/// Walks to the record `marker`, and returns whether there was damage. Bytes after damage are
/// judged separately, as in reading.
fn walk_to(survey: &mut Survey<'_>, marker: u32, end: &mut Located) -> io::Result<bool> {
    let mut damaged = false;
    loop {
        let mut goes_on = false;
        survey.foreign_until = end.foreign_until;
        survey.run(end.place, |item| {
            let behind = item.behind();
            let (unfinished, foreign_until) = match item {
                Item::Record(found) => (false, found.foreign_until.unwrap_or(0)),
                Item::Damage(stretch) => {
                    damaged = true;
                    (stretch.fault == Fault::Unfinished, 0)
                }
            };
            if unfinished || behind.marker > marker {
                goes_on = false;
                return ControlFlow::Break(());
            }
            *end = Located { place: behind, foreign_until };
            goes_on = matches!(item, Item::Damage(_)) && behind.marker < marker;
            if goes_on || behind.marker == marker {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if !goes_on {
            return Ok(damaged);
        }
    }
}
