//! Handling of writes that were cut short.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::traits::{Lines, WriteError};
use crate::patience;

/// Whether the last line was written only in part because the reader stopped: the next output then
/// begins a new line.
#[derive(Debug, Default)]
pub(super) struct Torn(AtomicBool);

impl Torn {
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Writes lines in one piece, so that other programs on the same terminal do not write between
    /// them. On failure, returns how many of the lines were written.
    pub(super) fn write(&self, to: impl AsFd, lines: &Lines<'_>) -> Result<(), WriteError> {
        let to = to.as_fd();
        if self.0.load(Relaxed) {
            patience::write_all(to, b"\n").map_err(|(_, e)| e)?;
            self.0.store(false, Relaxed);
        }
        patience::write_all(to, lines.bytes()).map_err(|(done, error)| {
            let (written, whole) = lines.whole_within(done);
            self.0.store(done > whole, Relaxed);
            WriteError { written, error }
        })
    }
}
