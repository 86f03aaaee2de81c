//! A writer's record of its limits.

use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::{Holder, LimitKind};

/// How long a C process is assumed to write after it was noticed.
const C_WRITER_FOR: Duration = Duration::from_secs(1);

/// The limits, and a writer's record of the jlog's size.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    pub(super) limits: Limits,
    /// A C process writes: until this time, segments end when they are full, whatever the limits.
    c_writer_until: Option<Instant>,
    /// Bytes of everything that counts, except the segment being written; `None` until counted.
    pub(super) others: Option<u64>,
    /// When ages were last checked.
    pub(super) ages: Option<Instant>,
    /// How many bytes may be written, and until when, before free space is checked again.
    pub(super) free: Option<(u64, Instant)>,
    pub(super) refused: Option<Refusal>,
}

/// Why an append was refused; valid while nothing has changed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) since: Instant,
    /// When the directory last changed.
    pub(super) directory: i128,
    pub(super) kind: LimitKind,
    pub(super) used: u64,
    pub(super) limit: u64,
    pub(super) holders: Vec<Holder>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether there is any limit.
    pub(super) fn is_some(&self) -> bool {
        self.limits.is_some()
    }

    /// The size at which a segment ends, where segments of `size` are configured.
    pub(super) fn segment_size(&self, size: u64) -> u64 {
        let early = self.limits.is_some() && self.c_writer_until.is_none_or(|until| Instant::now() >= until);
        if early { self.limits.segment_size(size) } else { size }
    }

    /// Records that a C process writes: for a while, segments end only when they are full.
    pub(super) fn note_c_writer(&mut self) {
        self.c_writer_until = Some(Instant::now() + C_WRITER_FOR);
    }

    /// Segments were begun or removed: count again next time.
    pub(super) fn forget(&mut self) {
        self.others = None;
        self.refused = None;
    }
}
