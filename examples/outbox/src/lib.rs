//! An outbox: a service accepts messages over HTTP, makes each durable before it answers, and delivers them to another
//! service that may fail. Nothing that was accepted is lost, whatever is killed; a message may be delivered twice.
//!
//! [`router`] is the side that accepts, [`Courier`] the one that delivers.

mod courier;
mod metrics;
mod service;

pub use courier::{Courier, CourierOptions};
pub use metrics::Counters;
pub use service::{Failure, Feed, Store, router};

/// The subscriber for which messages are delivered.
pub const SUBSCRIBER: &str = "courier";
