//! Commands that show the state of feeds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use crate::values::{self, Limit, Name};

/// The output format of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FactFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// `jlog status`
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// The feeds' directories
    #[arg(required = true, value_name = "FEED")]
    pub feeds: Vec<PathBuf>,
    /// Refresh every SECONDS (2 by default)
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub watch: Option<u16>,
    /// The output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: FactFormat,
}

/// `jlog check`
#[derive(Debug, ClapArgs)]
pub struct CheckArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Check only these subscribers; a missing one is critical
    #[arg(long = "subscriber", value_name = "SUBSCRIBER")]
    pub subscribers: Vec<Name>,
    /// Critical if a subscriber's oldest message is older than this (90s, 10min, 7d)
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub max_lag: Option<Limit<Duration>>,
    /// Critical if a subscriber is more than this many messages behind
    #[arg(long, value_name = "N")]
    pub max_messages: Option<u64>,
    /// Critical if less than this is free on the file system (500MiB, 1GiB)
    #[arg(long, value_name = "SIZE", value_parser = values::limit)]
    pub min_free: Option<Limit<u64>>,
    /// Like --max-lag, but a warning
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub warn_lag: Option<Limit<Duration>>,
    /// Like --max-messages, but a warning
    #[arg(long, value_name = "N")]
    pub warn_messages: Option<u64>,
    /// Like --min-free, but a warning
    #[arg(long, value_name = "SIZE", value_parser = values::limit)]
    pub warn_free: Option<Limit<u64>>,
}

/// `jlog serve`
#[cfg(feature = "serve")]
#[derive(Debug, ClapArgs)]
pub struct ServeArgs {
    /// Feeds, or directories to search for feeds; new feeds are picked up automatically
    #[arg(required = true, value_name = "FEED|DIR")]
    pub places: Vec<PathBuf>,
    /// Where to listen: 127.0.0.1:PORT, unix:PATH, or, with a token or client certificates, any
    /// address; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8465")]
    pub http: jlog_watch::Address,
    /// Answer only clients that send the token in this file (Authorization: Bearer TOKEN)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Answer over TLS, with this certificate and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Answer only clients with a certificate that one of these authorities has issued, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Let clients add, move and remove subscribers; needs a token file, client certificates, or a
    /// Unix socket
    #[arg(long)]
    pub control: bool,
    /// Also accept this host name from clients without a token
    #[arg(long = "allow-host", value_name = "NAME")]
    pub allow_hosts: Vec<String>,
    /// When the server is not ready.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// The limits beyond which there is a problem.
#[cfg(any(feature = "serve", feature = "top"))]
#[derive(Debug, ClapArgs)]
pub struct ThresholdArgs {
    /// A problem (not ready) if a subscriber's oldest message is older than this (90s, 10min, 7d)
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub max_lag: Option<Limit<Duration>>,
    /// A problem (not ready) if a subscriber is more than this many messages behind
    #[arg(long, value_name = "N")]
    pub max_messages: Option<u64>,
    /// A problem (not ready) if less than this is free on a feed's file system (500MiB, 1GiB)
    #[arg(long, value_name = "SIZE", value_parser = values::limit)]
    pub min_free: Option<Limit<u64>>,
    /// A problem (not ready) if a disk or a feed's limit will be full within this time, at the rate
    /// of the last minute (none: never)
    #[arg(long, value_name = "TIME", value_parser = values::age, default_value = "10min")]
    pub full_within: Limit<Duration>,
}

#[cfg(any(feature = "serve", feature = "top"))]
impl ThresholdArgs {
    /// All of these limits.
    pub fn all(&self) -> jlog_watch::Thresholds {
        let mut all = jlog_watch::Thresholds::default().full_within(self.full_within.0);
        if let Some(age) = self.max_lag.and_then(|limit| limit.0) {
            all = all.max_lag(age);
        }
        if let Some(messages) = self.max_messages {
            all = all.max_messages(messages);
        }
        if let Some(bytes) = self.min_free.and_then(|limit| limit.0) {
            all = all.min_free(bytes);
        }
        all
    }
}

/// `jlog top`
#[cfg(feature = "top")]
#[derive(Debug, ClapArgs)]
pub struct TopArgs {
    /// Feeds, and directories to search for feeds; the current directory by default
    #[arg(value_name = "FEED|DIR")]
    pub places: Vec<PathBuf>,
    /// Refresh every SECONDS
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
    /// The limits beyond which there is a problem.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}
