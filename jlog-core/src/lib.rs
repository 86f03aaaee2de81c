#![doc = include_str!("../FORMAT.md")]
//!
//! # Using it
//!
//! ```
//! # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
//! use std::time::Duration;
//! use jlog_core::{Jlog, Start, Wait};
//!
//! # for _ in 0..2 { // a program that starts again
//! let log = Jlog::options().segment_size(4 << 20).create_or_open(&path)?;
//! log.ensure_subscriber("billing", Start::Beginning)?;
//!
//! let writer = log.writer()?;
//! writer.append(b"hello")?;
//! writer.flush()?;
//!
//! let mut reader = log.reader("billing")?;
//! while let Some(batch) = reader.next_batch(Wait::No)? {
//!     for message in &batch {
//!         assert_eq!(message.body(), b"hello");
//!     }
//!     let last = batch.last_id();
//!     reader.checkpoint(last)?;
//! }
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod c_writers;
mod checkpoint;
pub mod checksum;
mod clock;
mod counts;
pub mod dropped;
mod error;
mod event;
mod expiry;
pub mod format;
mod id;
mod identity;
mod index;
mod jlog;
mod limits;
mod looks;
pub mod lost;
mod message;
mod meta;
pub mod names;
mod options;
mod precommit;
mod progress;
mod reader;
mod recovery;
mod renumbered;
mod repair;
mod retention;
pub mod scan;
mod settings;
mod shared;
pub mod storage;
mod survey;
#[cfg(not(feature = "shuttle"))]
mod sync;
#[cfg(feature = "shuttle")]
#[doc(hidden)]
pub mod sync;
mod verify;
mod writer;

pub use counts::SegmentCount;
pub use error::{Error, Result};
pub use event::Event;
pub use format::{Compression, Meta, MetaFault, Safety};
pub use id::{LogId, ParseLogIdError, Timestamp};
pub use index::IndexState;
pub use jlog::{Jlog, Start, Status, SubscriberStatus};
pub use limits::{AtLimit, Holder, LimitKind, Limits};
pub use lost::Lost;
pub use message::{Batch, Interval, Message, Messages};
pub use names::SubscriberName;
pub use options::{
    JlogOptions, Locking, OnDamage, OnMissed, ReadMethod, ReaderOptions, SyncPolicy, WriterOptions,
};
pub use progress::{Progress, VerifyOptions};
pub use reader::{Reader, Wait};
pub use settings::Settings;
pub use storage::Waker;
pub use verify::{Finding, Inspection, RecordInfo, Verification};
pub use writer::{Placed, Writer};
