//! The `jlog` command with real pipes and signals; this list is the table of contents.

// Tests may fail where they stand; `support` holds what several of them need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "cli/support.rs"]
mod support;

#[path = "cli/admin.rs"]
mod admin;
#[path = "cli/c_tools.rs"]
mod c_tools;
#[path = "cli/demo.rs"]
mod demo;
#[cfg(feature = "ship")]
#[path = "cli/exec.rs"]
mod exec;
#[path = "cli/follow.rs"]
mod follow;
#[path = "cli/gone.rs"]
mod gone;
#[path = "cli/grep.rs"]
mod grep;
#[path = "cli/missing.rs"]
mod missing;
#[path = "cli/monitor.rs"]
mod monitor;
#[path = "cli/read.rs"]
mod read;
#[path = "cli/read_only.rs"]
mod read_only;
#[path = "cli/seek.rs"]
mod seek;
#[path = "cli/serve.rs"]
mod serve;
#[cfg(feature = "ship")]
#[path = "cli/ship.rs"]
mod ship;
#[cfg(feature = "ship")]
#[path = "cli/ship_config.rs"]
mod ship_config;
#[path = "cli/subscribers.rs"]
mod subscribers;
#[cfg(feature = "serve")]
#[path = "cli/systemd.rs"]
mod systemd;
#[path = "cli/tail.rs"]
mod tail;
#[cfg(feature = "top")]
#[path = "cli/top.rs"]
mod top;
#[path = "cli/transfer.rs"]
mod transfer;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/verify.rs"]
mod verify;
#[cfg(feature = "ship")]
#[path = "cli/work.rs"]
mod work;
#[path = "cli/write.rs"]
mod write;
