//! What a writer knows of the segment being written.

use std::sync::Arc;

use crate::storage::File;

/// The segment being written.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) file: Arc<dyn File>,
    /// Where its whole records ended when its lock was last held.
    pub(super) end: u64,
    pub(super) records: u32,
}

/// The state of the segment being written.
#[derive(Debug, Default)]
pub(super) enum Tail {
    /// Unknown: the next use opens the segment that the metastore names.
    #[default]
    Unknown,
    Open(Segment),
    /// It must end before anything is appended to it: readers may have seen records that were
    /// undone.
    MustRoll(Segment),
    /// A failed write could not be undone: the segment is opened again, which finds its end.
    Suspect(Segment),
}

impl Tail {
    pub(super) fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Unknown => None,
            Self::Open(segment) | Self::MustRoll(segment) | Self::Suspect(segment) => Some(segment),
        }
    }

    pub(super) fn segment_mut(&mut self) -> Option<&mut Segment> {
        match self {
            Self::Unknown => None,
            Self::Open(segment) | Self::MustRoll(segment) | Self::Suspect(segment) => Some(segment),
        }
    }

    /// Takes the state, and leaves it unknown.
    pub(super) fn take(&mut self) -> Option<Segment> {
        match std::mem::take(self) {
            Self::Unknown => None,
            Self::Open(segment) | Self::MustRoll(segment) | Self::Suspect(segment) => Some(segment),
        }
    }

    pub(super) fn becomes(&mut self, state: fn(Segment) -> Self) {
        if let Some(segment) = self.take() {
            *self = state(segment);
        }
    }
}

/// Whether the segment must have room for another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Wanted,
    /// It may be a full segment that could not be ended.
    Any,
}

/// Converts a length that was checked to fit.
pub(super) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
