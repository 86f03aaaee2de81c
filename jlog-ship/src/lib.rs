//! Carries a [jlog](jlog_core) feed somewhere else: to another feed, a command, an HTTP server, Loki,
//! a receiver of OpenTelemetry's logs, a stream of NATS, or a topic of Kafka.
//!
//! A [`Shipper`] reads one subscriber's messages and hands them to a [`Destination`]. The subscriber's checkpoint is all the
//! state there is. It moves only behind messages that the destination has acknowledged, in order, so that
//! nothing is lost when the shipper, the destination or the machine fails. What was sent and not yet acknowledged
//! then is sent again: at most the window, and nothing where the destination knows what it has.
//!
//! [`Destination`] is a trait with an example. The crate's own destinations are in [`destinations`], most of them behind a
//! feature: `exec`, `http`, `kafka`, `nats`. A [`Mapping`] takes subjects, headers, labels and the like from messages that
//! are JSON.
//!
//! Messages can be left out: [`Shipper::filter`]. With the feature `filter`, `Filter` is an expression over the keys of messages
//! that are JSON, and with `regex` its expressions may have regular expressions, by PCRE2.

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
#[cfg(any(feature = "http", feature = "nats"))]
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
