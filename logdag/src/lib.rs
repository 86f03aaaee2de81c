//! Named log streams, filters and sinks. A line is logged to a stream; it goes to the stream's own
//! sink and through outlets, with or without filters, to other streams. Sinks are files with
//! rotation, memory rings, durable feeds (jlogs), syslog, the journal, the standard outputs, and
//! custom types. The graph works as in libmtev.
//!
//! ```
//! use logdag::{Graph, log};
//!
//! let graph = Graph::new();
//! graph.add_memory("recent", 1000, 1_000_000)?;
//! let access = graph.stream("http/access")?; // leads to the stream `http` unless declared otherwise
//! graph.add_outlet("http/access", "recent", Some("status >= 500"))?;
//! log!(access, status = 503, path = "/page/4"; "request failed");
//! assert_eq!(graph.memory_last("recent", 10).unwrap_or_default().len(), 1);
//! # Ok::<(), logdag::GraphError>(())
//! ```
//!
//! Most programs need one call: [`init`] reads a configuration in TOML or XML ([`config`]),
//! connects `tracing` and `log`, and starts queues; dropping its guard writes what waits in queues.
//! The graph can change while lines flow ([`Graph`], [`Guard::reload`]).
//!
//! # Guarantees
//!
//! - Lines of a thread keep their order in every sink.
//! - A line is lost only if its sink fails, or its queue is full and set to drop. Both are counted
//!   ([`Counters`]) and reported in the log itself.
//! - [`Graph::flush`] returns when all earlier lines are written, and durable where the sink can do
//!   that.
//! - A new configuration applies completely or not at all; no line is lost or duplicated.
//! - A line to a disabled stream, or of a level that reaches no sink, costs about a nanosecond.
//!
//! # Features
//!
//! - `toml` (on by default), `xml`: configurations in these languages.
//! - `log`, `tracing`: programs that log with these crates.
//! - `jlog`: durable feeds as sinks.
//! - `regex`: regular expressions in filters and in `require_env`, by PCRE2.
//! - `flatbuffers`: the format `flatbuffer`.
//! - `gzip`, `zstd`: rotated files are compressed.
//! - `signals`: `Guard::reload_on_hangup`.
//! - `full`: all of these.
//! - `shuttle`: locks whose schedules a checker chooses, for the tests of this crate.
//!
//! Complete programs are in the directory `examples`; README.md is the guide.

mod access;
#[cfg(any(feature = "log", feature = "tracing"))]
mod bridge;
// Without a language to read, only the types that programs share with configurations are used.
#[cfg_attr(not(any(feature = "toml", feature = "xml")), allow(dead_code))]
pub mod config;
pub mod filter;
#[cfg(not(feature = "shuttle"))]
mod fork;
#[cfg(feature = "shuttle")]
#[path = "fork_unchecked.rs"]
mod fork;
pub mod format;
mod graph;
mod hex;
mod init;
pub mod input;
#[cfg(any(feature = "log", feature = "tracing"))]
mod install;
mod kept;
mod level;
mod lines;
#[cfg(feature = "log")]
pub mod log_crate;
mod macros;
pub mod message;
mod options;
mod patience;
mod pattern;
mod record;
mod redact;
mod route;
pub mod sink;
mod slot;
mod suggest;
mod sync;
#[cfg(feature = "tracing")]
pub mod tracing_layer;
mod value;

pub use access::HttpAccess;
pub use filter::{Filter, FilterError, Limit, LimitError};
pub use format::{Flags, Format, Layout};
pub use graph::{
    ApplyError, DrainAtEnd, FilterStats, Graph, GraphError, MAX_PIPE_LINE, Pipe, Speculation, Stream,
    StreamInfo,
};
pub use hex::HexDump;
pub use init::{Guard, InitError, init};
#[cfg(any(feature = "log", feature = "tracing"))]
pub use install::{InstallError, install};
pub use level::{Level, Levels, LevelsError};
pub use lines::for_each_line;
pub use message::{Message, Text};
pub use options::{StreamConfig, StreamOptions, WhenFull};
pub use patience::report_on_stderr;
pub use record::{Details, Location, Record, Span, now_micros};
pub use redact::Redaction;
#[cfg(feature = "jlog")]
pub use sink::JlogSink;
pub use sink::{
    Access, Capabilities, Compression, FdSink, FileSink, Lines, MemoryLine, MemorySink, Metric, MetricSeries,
    MetricValues, RotateAt, RotatedName, Rotation, RotationError, Sink, SinkSpec, WriteError, Zone,
};
pub use slot::{Counters, QueueStats, WriteTimes};
pub use value::{Json, Value};
