//! Ships a [jlog](jlog_core) feed to another feed, a command, an HTTP server, Loki, a receiver of
//! OpenTelemetry logs, a NATS stream, or a Kafka topic.
//!
//! A [`Shipper`] reads one subscriber's messages and hands them to a [`Destination`]. The
//! subscriber's checkpoint is the only state. It moves only past messages that the destination has
//! acknowledged, in order, so nothing is lost when the shipper, the destination or the machine
//! fails. Messages that were sent but not acknowledged are sent again: at most one window, and none
//! if the destination knows what it has.
//!
//! [`Destination`] is a trait with an example. The crate's own destinations are in
//! [`destinations`], most of them behind a feature: `exec`, `http`, `kafka` (with TLS and
//! SASL: `kafka-ssl`), `nats`. A [`Mapping`] derives subjects, headers, labels and other properties
//! from messages that are JSON.
//!
//! [`Shipper::filter`] leaves messages out. With the feature `filter`, `Filter` is an expression
//! over the keys of messages that are JSON, and with `regex`, it may have regular expressions, with
//! PCRE2.

mod aside;
mod backoff;
mod counters;
mod destination;
pub mod destinations;
#[cfg(feature = "filter")]
mod filter;
mod mapping;
mod report;
mod shipper;
mod source;
#[cfg(any(feature = "http", feature = "kafka-ssl", feature = "nats"))]
mod tls;

pub use aside::{SetAside, unwrap as unwrap_set_aside};
pub use backoff::Backoff;
pub use counters::{Progress, Totals};
pub use destination::{
    Answer, Destination, Feed, Limits, MessageId, Outgoing, Refusal, RefusalKind, Shipment,
};
#[cfg(feature = "filter")]
pub use filter::Filter;
pub use mapping::{Mapped, MappedValue, Mapping, MappingKind};
pub use report::Report;
pub use shipper::{Error, OnReject, Shipper, Stopper};
