//! A durable local feed in a directory: programs append messages, and any number of subscribers
//! read them, each at its own pace and with its own checkpoint. Segments that every subscriber has
//! passed are removed. There is no server. The format is that of the C library libjlog 2.x, and C
//! programs may use the same directory at the same time.
//!
//! ```
//! # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
//! use jlog_core::{Jlog, Start, Wait};
//!
//! # for _ in 0..2 { // a program that starts again
//! let log = Jlog::options().segment_size(4 << 20).create_or_open(&path)?;
//! log.ensure_subscriber("billing", Start::Beginning)?;
//!
//! let writer = log.writer()?;
//! writer.append(b"hello")?;
//! writer.sync()?;
//!
//! let mut reader = log.reader("billing")?;
//! while let Some(batch) = reader.next_batch(Wait::No)? {
//!     for message in &batch {
//!         assert_eq!(message.body(), b"hello");
//!     }
//!     let last = batch.last_id();
//!     reader.commit(last)?;
//! }
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - When [`Writer::append`] returns, the message survives the end of the process; when
//!   [`Writer::flush`] returns, subscribers see it; when [`Writer::sync`] returns, it survives a
//!   power failure. [`SyncPolicy`] says which of these happens by itself.
//! - At each of these levels, every message is present exactly once, whole, and in the order in
//!   which its writer appended it.
//! - A checkpoint never moves past a message that was not delivered.
//! - A record that a checksum covers is delivered exactly as it was written, or not at all. Damage
//!   and losses are reported ([`Event`], [`Error`]), never skipped silently.
//!
//! The module `documentation::reliability` has the exact guarantees, the assumptions and the tests;
//! `documentation::format` specifies every byte.
//!
//! # Features
//!
//! None is on by default, and programs need none.
//!
//! - `async`: `asynchronous` has writers and readers for async programs.
//! - `typed`: `typed` appends and reads values with serde, as JSON or postcard.
//! - `internals`, `testing` and `shuttle` are for the tests and fuzz targets of this project: the
//!   file parsers, a simulated disk that crashes at any call and knows what was synced, and locks
//!   whose schedules a model checker chooses. These items are not documented, and may change in any
//!   release.
//!
//! # Platform
//!
//! Linux on little-endian machines. Complete programs are in the directory `examples`.

mod ack;
#[cfg(feature = "async")]
#[cfg_attr(docsrs, doc(cfg(feature = "async")))]
pub mod asynchronous;
mod backup;
mod clock;
mod codec;
#[doc(hidden)]
pub mod compat;
mod error;
mod event;
mod files;
mod group;
mod id;
mod jlog;
mod limits;
mod looks;
mod loss;
mod message;
#[cfg(test)]
mod model;
mod options;
mod plural;
mod reader;
mod status;
#[cfg(not(any(test, feature = "internals")))]
mod storage;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod storage;
mod subscriber;
#[cfg(not(feature = "shuttle"))]
mod sync;
#[cfg(feature = "shuttle")]
#[doc(hidden)]
pub mod sync;
#[cfg(feature = "typed")]
#[cfg_attr(docsrs, doc(cfg(feature = "typed")))]
pub mod typed;
mod upkeep;
mod walk;
mod writer;

pub use ack::{AckWindow, NotDelivered, Redelivery};
pub use backup::Backup;
pub use codec::format::{self, Compression, Meta, Safety};
pub use codec::names;
pub use codec::settings::Settings;
pub use error::{Error, MetaFault, Result};
pub use event::Event;
pub use files::identity::{FeedIdentity, ParseFeedIdentityError};
pub use files::index::IndexState;
pub use group::{Group, GroupOptions, Lease, Leased};
pub use id::{LogId, ParseLogIdError, Timestamp};
pub use jlog::{Jlog, Start};
pub use limits::{AtLimit, Holder, LimitKind, Limits};
pub use loss::Lost;
pub use message::{Batch, Interval, Message, Messages, OwnedBatch, OwnedMessage, OwnedMessages};
pub use options::{
    AlterOptions, Claim, CleanOptions, JlogOptions, Locking, OnDamage, OnMissed, ReadMethod, ReaderOptions,
    SyncPolicy, WriterOptions,
};
pub use reader::{Checkpointer, Reader, Wait};
pub use status::{Lag, Status, SubscriberStatus};
pub use storage::Waker;
pub use subscriber::{SubscriberName, SubscriberNameError};
pub use upkeep::progress::{Progress, VerifyOptions};
pub use upkeep::verify::{Finding, Inspection, RecordInfo, Verification};
pub use walk::counts::SegmentCount;
pub use writer::{Appended, AppendedBatch, IdRun, Writer};

/// Internals for tests and fuzz targets. Nothing in it is stable.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::files::checksum::{Run, read_runs};
    pub use crate::files::{dropped, scan};
    pub use crate::loss::Records;
    pub use crate::walk::lost::Noted;
}

/// Documents; these modules have no items.
#[cfg(doc)]
pub mod documentation {
    #[doc = include_str!("../FORMAT.md")]
    pub mod format {}

    #[doc = include_str!("../RELIABILITY.md")]
    pub mod reliability {}
}
