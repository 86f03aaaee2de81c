//! Real servers on loopback ports and sockets, queried over HTTP; this list is the table of
//! contents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "http/support.rs"]
mod support;

#[path = "http/access.rs"]
mod access;
#[path = "http/api.rs"]
mod api;
#[path = "http/control.rs"]
mod control;
#[path = "http/feeds.rs"]
mod feeds;
#[path = "http/health.rs"]
mod health;
#[path = "http/metrics.rs"]
mod metrics;
#[cfg(feature = "graph")]
#[path = "http/mtev.rs"]
mod mtev;
#[path = "http/page.rs"]
mod page;
#[path = "http/prometheus.rs"]
mod prometheus;
#[path = "http/server.rs"]
mod server;
#[path = "http/slow_clients.rs"]
mod slow_clients;
#[cfg(feature = "graph")]
#[path = "http/streams.rs"]
mod streams;
#[path = "http/tail.rs"]
mod tail;
#[cfg(feature = "tls")]
#[path = "http/tls.rs"]
mod tls;
