//! The `jlog` command with real pipes and signals; this list is the table of contents.

// Tests may fail where they stand; `support` holds what several of them need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

mod admin;
mod c_tools;
mod demo;
#[cfg(feature = "ship")]
mod exec;
mod follow;
mod gone;
mod grep;
mod missing;
mod monitor;
mod read;
mod read_only;
mod seek;
mod serve;
#[cfg(feature = "ship")]
mod ship;
#[cfg(feature = "ship")]
mod ship_config;
mod subscribers;
#[cfg(feature = "serve")]
mod systemd;
mod tail;
#[cfg(feature = "top")]
mod top;
mod transfer;
mod usage;
mod verify;
#[cfg(feature = "ship")]
mod work;
mod write;
