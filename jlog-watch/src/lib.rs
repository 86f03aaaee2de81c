#![doc = include_str!("../README.md")]

mod access;
mod address;
mod api;
mod changes;
mod feeds;
#[cfg(feature = "graph")]
mod graphs;
mod health;
mod metrics;
mod mtev;
mod names;
mod observe;
mod page;
mod rate;
mod respond;
mod router;
mod samples;
mod server;
mod tls;
mod watch;

pub use access::{Token, TokenError};
pub use address::{Address, AddressError};
pub use health::Thresholds;
pub use observe::{FeedFigures, FeedState, Look, Observer, SubscriberState};
/// For [`Watch::collector`].
pub use prometheus_client;
pub use server::{ServeError, Server};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
pub use watch::{Limits, Watch};
