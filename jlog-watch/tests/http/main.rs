//! Real servers on loopback ports and sockets, queried over HTTP; this list is the table of
//! contents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

mod access;
mod api;
mod control;
mod feeds;
mod health;
mod metrics;
#[cfg(feature = "graph")]
mod mtev;
mod page;
mod prometheus;
mod server;
mod slow_clients;
#[cfg(feature = "graph")]
mod streams;
mod tail;
#[cfg(feature = "tls")]
mod tls;
