//! The log-stream graph: named streams that lines are logged to, outlets that carry them on, filters on outlets, and
//! sinks where they end up: files with rotation, memory rings, durable feeds (jlogs), the standard outputs, and what
//! an application adds.
//!
//! A line is logged to a stream with [`log!`]; it goes to the stream's own sink and to every outlet. Names are
//! hierarchical: `http/access`, where nothing else is said, leads to `http`. The graph is built by calls of [`Graph`], or
//! from a configuration in XML or TOML ([`config`]), and can change while lines flow. [`init`] sets all of it up with one
//! call.
//!
//! # Features
//!
//! - `toml` (on unless turned off), `xml`: configurations in these.
//! - `log`, `tracing`: programs that log with these crates.
//! - `jlog`: durable feeds as sinks.
//! - `regex`: regular expressions in filters and in `require_env`, by PCRE2.
//! - `flatbuffers`: the format `flatbuffer`.
//! - `signals`: `Guard::reload_on_hangup`.
//! - `full`: all of these.

mod access;
#[cfg(any(feature = "log", feature = "tracing"))]
mod bridge;
// Without a language to read, only the types that programs share with configurations are used.
#[cfg_attr(not(any(feature = "toml", feature = "xml")), allow(dead_code))]
pub mod config;
pub mod filter;
pub mod format;
mod graph;
mod hex;
mod init;
pub mod input;
mod level;
mod lines;
#[cfg(feature = "log")]
pub mod log_crate;
mod macros;
pub mod message;
mod pattern;
mod record;
mod redact;
mod route;
pub mod sink;
mod speculation;
mod sync;
#[cfg(feature = "tracing")]
pub mod tracing_layer;
mod value;

pub use access::HttpAccess;
#[cfg(any(feature = "log", feature = "tracing"))]
pub use bridge::{InstallError, install};
pub use filter::{Filter, FilterError, Limit, LimitError};
pub use format::{Flags, Format, Layout};
pub use graph::{Configured, Description, DrainAtEnd, Graph, GraphError, Stream, StreamOptions};
pub use hex::HexDump;
pub use init::{Guard, InitError, init};
pub use level::{Level, Levels, LevelsError};
pub use lines::{MAX_PIPE_LINE, Pipe, for_each_line};
pub use message::{Message, Text};
pub use record::{Details, Location, Record, Span, now_micros};
pub use redact::Redaction;
#[cfg(feature = "jlog")]
pub use sink::JlogSink;
pub use sink::{
    Access, Counters, FdSink, FileSink, Lines, MemoryLine, MemorySink, QueueStats, Rotation, Sink, SinkSpec,
    WhenFull, WriteError,
};
pub use speculation::Speculation;
pub use value::{Json, Value};
