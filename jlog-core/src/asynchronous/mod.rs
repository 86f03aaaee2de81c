//! Writers and readers for async programs: futures and a stream, for any runtime (feature `async`).
//!
//! Nothing here blocks an executor. A thread makes the blocking calls: each [`AsyncWriter`] and
//! each [`AsyncReader`] has at most one. It starts when there is work, and ends after about a
//! second without any.
//!
//! ```
//! # async fn example(path: &std::path::Path) -> jlog_core::Result<()> {
//! use jlog_core::asynchronous::{AsyncReader, AsyncWriter};
//! use jlog_core::{Jlog, Start};
//!
//! let log = Jlog::create_or_open(path)?;
//! log.ensure_subscriber("billing", Start::Beginning)?;
//!
//! let writer = AsyncWriter::open(&log).await?; // clone it for other tasks
//! writer.append("hello").await?;
//! let id = writer.append_durable("survives a power failure").await?;
//!
//! let mut reader = AsyncReader::open(&log, "billing").await?;
//! while let Some(batch) = reader.next_batch().await {
//!     let batch = batch?;
//!     for message in &batch {
//!         println!("{} {:?}", message.id(), message.body());
//!     }
//!     reader.commit(batch.last_id()).await?; // everything up to here is done
//! #   if batch.last_id() >= id { break }
//! }
//! reader.close().await?;
//! writer.close().await?;
//! # Ok(())
//! # }
//! # let dir = tempfile::tempdir()?;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(example(&dir.path().join("feed")))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Dropped futures
//!
//! A future does nothing before it is polled. Its work is then done completely or not at all, and
//! dropping the future does no harm:
//!
//! | future | if it is dropped after it was polled |
//! |---|---|
//! | `append`, `append_durable`, `append_batch`, … | The messages are appended if they had been accepted, and never if they waited for room. |
//! | `try_append`, `try_append_durable` | The message was accepted by the call. It is appended. |
//! | `flush`, `sync`, `close` of a writer | It is done, unless it waited for room. |
//! | `commit` and the other calls of a reader and a committer | It is done. |
//! | `close` of a reader | It is done. Dropped before it was polled, the reader is dropped. |
//! | [`AsyncReader::next_batch`] | No batch is lost: the next call returns it. |
//! | `open` | What was opened is dropped again. |
//!
//! # Forks
//!
//! A forked child has none of the threads: every call there fails. Open writers and readers again
//! in the child.

mod hand_over;
mod reader;
mod writer;

pub use reader::{AsyncReader, AsyncReaderOptions, Committer, Opening};
pub use writer::{AsyncWriter, AsyncWriterOptions, NotAccepted, Outcome};
