//! Calls that behave like those of the C library, for programs that offer its interface.
//!
//! They accept values that this crate otherwise refuses, and use the C library's notion of a
//! subscriber's place. Rust programs do not need them.

use crate::{Interval, Jlog, LogId, Reader, Result, Safety, Writer, WriterOptions};

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Jlog {}
    impl Sealed for crate::Reader {}
    impl Sealed for crate::Writer {}
    impl Sealed for crate::WriterOptions {}
}

/// Extends [`Jlog`].
pub trait JlogCompat: sealed::Sealed {
    /// As [`Jlog::set_checkpoint`], but accepts an id past the end. Messages that are written later
    /// are skipped up to it, unless a writer that opens finds the checkpoint past the end and moves
    /// it back.
    ///
    /// # Errors
    /// [`Error::SubscriberName`](crate::Error::SubscriberName), [`Error::Io`](crate::Error::Io),
    /// [`Error::DiskFull`](crate::Error::DiskFull).
    fn store_checkpoint(&self, name: impl AsRef<[u8]>, id: LogId) -> Result<()>;
}

impl JlogCompat for Jlog {
    fn store_checkpoint(&self, name: impl AsRef<[u8]>, id: LogId) -> Result<()> {
        Self::store_checkpoint(self, name, id)
    }
}

/// Extends [`Reader`].
pub trait ReaderCompat: sealed::Sealed {
    /// Stores a checkpoint whether there is such a record or not. Removes segments that no
    /// subscriber needs, but never the one being written.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`](crate::Error::NoSubscriber) for a reader without one;
    /// [`Error::Io`](crate::Error::Io), [`Error::DiskFull`](crate::Error::DiskFull).
    fn store_checkpoint(&mut self, id: LogId) -> Result<()>;

    /// What the C library calls the interval: the records after the checkpoint in the first segment
    /// that has any, or has none yet. Moves the checkpoint to a later segment when the ones before
    /// are done, and back when it is past the end, as that library does. The reader's position
    /// moves to the checkpoint.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io).
    fn interval(&mut self) -> Result<Interval>;

    /// The place before the next records after `id`, and the last record of their segment. The
    /// place is `id` itself, or the beginning of a later segment if `id`'s segment has no more
    /// records. The reader's position moves there. Damaged stretches count, as in the markers of
    /// later records.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    fn next_after(&mut self, id: LogId) -> Result<(LogId, LogId)>;
}

impl ReaderCompat for Reader {
    fn store_checkpoint(&mut self, id: LogId) -> Result<()> {
        Self::store_checkpoint(self, id)
    }

    fn interval(&mut self) -> Result<Interval> {
        Self::interval(self)
    }

    fn next_after(&mut self, id: LogId) -> Result<(LogId, LogId)> {
        Self::next_after(self, id)
    }
}

/// Extends [`Writer`].
pub trait WriterCompat: sealed::Sealed {
    /// Changes the segment size (bytes, 1 to 1 GiB) for all writers from now on, as [`Jlog::alter`]
    /// does.
    ///
    /// # Errors
    /// As [`Jlog::alter`].
    fn set_segment_size(&self, bytes: u32) -> Result<()>;

    /// Changes when metastore and checkpoints are synced, as [`Jlog::alter`] does.
    ///
    /// # Errors
    /// As [`Jlog::alter`].
    fn set_safety(&self, safety: Safety) -> Result<()>;
}

impl WriterCompat for Writer {
    fn set_segment_size(&self, bytes: u32) -> Result<()> {
        Self::set_segment_size(self, bytes)
    }

    fn set_safety(&self, safety: Safety) -> Result<()> {
        Self::set_safety(self, safety)
    }
}

/// Extends [`WriterOptions`].
pub trait WriterOptionsCompat: sealed::Sealed {
    /// Does not wait for another writer to close, for a program that then writes next to it.
    #[must_use]
    fn at_once(self) -> Self;
}

impl WriterOptionsCompat for WriterOptions {
    fn at_once(mut self) -> Self {
        self.waits = false;
        self
    }
}
