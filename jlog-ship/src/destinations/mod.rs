//! The destinations that come with this crate.

#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "http")]
mod http;
mod jlog;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "http")]
mod loki;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "http")]
mod otlp;
#[cfg(feature = "http")]
mod post;
#[cfg(feature = "exec")]
mod retrying;

#[cfg(feature = "exec")]
pub use exec::{BlockingExec, Exec, Framing};
#[cfg(feature = "http")]
pub use http::{Http, HttpBody, HttpOptions};
pub use jlog::Feed;
#[cfg(feature = "kafka")]
pub use kafka::{Kafka, KafkaOptions};
#[cfg(feature = "http")]
pub use loki::Loki;
#[cfg(feature = "nats")]
pub use nats::{Nats, NatsOptions, NatsWriters};
#[cfg(feature = "http")]
pub use otlp::Otlp;
#[cfg(feature = "exec")]
pub use retrying::{FailedRun, Retrying};
