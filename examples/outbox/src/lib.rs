//! An outbox: a service accepts messages over HTTP, makes each durable before it answers, and
//! delivers them to another service that may fail. No accepted message is lost, whichever process
//! is killed; a message may be delivered twice.
//!
//! [`router`] is the side that accepts; [`Courier`] is the side that delivers.

mod courier;
mod metrics;
mod service;

pub use courier::{Courier, CourierOptions};
pub use metrics::Counters;
pub use service::{Failure, Feed, Store, router};

/// The subscriber that the courier reads as.
pub const SUBSCRIBER: &str = "courier";
