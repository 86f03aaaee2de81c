//! Commands that create, alter, copy and repair feeds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use crate::values::{self, Limit};

use super::watch::FactFormat;

/// A feed and nothing else.
#[derive(Debug, ClapArgs)]
pub struct FeedArgs {
    /// The feed's directory
    pub feed: PathBuf,
}

/// `jlog repair`
#[derive(Debug, ClapArgs)]
pub struct RepairArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Replace damaged segments even if a program that uses the C library has them open (it may
    /// lose its place)
    #[arg(long)]
    pub force: bool,
}

/// The settings of a new feed.
#[derive(Debug, ClapArgs)]
pub struct NewFeed {
    /// A segment ends with the record that reaches this size (1 byte to 1 GiB)
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = values::size)]
    pub segment_size: u32,
    /// Collect messages in a buffer of this size that survives the process (up to 8 MiB; 0: none)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub pre_commit: Option<u32>,
    /// How messages are stored
    #[arg(long, value_enum, default_value_t)]
    pub compression: CompressionArg,
    /// When the metastore and the checkpoints are synced to disk
    #[arg(long, value_enum, default_value_t)]
    pub safety: SafetyArg,
    /// Keep no checksums; damage to messages then goes unnoticed
    #[arg(long)]
    pub no_checksums: bool,
    /// How much the feed may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Permissions of the files, whatever the umask is; by default 640 minus the umask
    #[arg(long, value_name = "OCTAL", value_parser = values::mode)]
    pub mode: Option<u32>,
}

/// Limits of a feed.
#[derive(Debug, ClapArgs)]
pub struct LimitArgs {
    /// The feed never holds more than this (16 KiB or more; none: no limit)
    #[arg(long, value_name = "SIZE", value_parser = values::limit)]
    pub max_bytes: Option<Limit<u64>>,
    /// Messages older than this are removed, a whole segment at a time (90s, 12h, 7d; none: no
    /// limit)
    ///
    /// Programs that write, wait for messages or run `jlog clean` remove them. With --at-limit
    /// fail, messages that a subscriber still needs are kept, and writing fails.
    #[arg(long, value_name = "AGE", value_parser = values::age)]
    pub max_age: Option<Limit<Duration>>,
    /// Leave this much free on the file system (none: no limit)
    #[arg(long, value_name = "SIZE", value_parser = values::limit)]
    pub keep_free: Option<Limit<u64>>,
    /// What happens at a limit
    #[arg(long, value_enum)]
    pub at_limit: Option<AtLimitArg>,
}

/// What happens at a limit.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AtLimitArg {
    /// Writing fails until subscribers have caught up
    Fail,
    /// The oldest segments are dropped; subscribers learn how many messages they missed
    DropOldest,
}

/// Compression.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum CompressionArg {
    /// Not compressed
    #[default]
    None,
    /// LZ4 blocks
    Lz4,
}

/// Safety.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum SafetyArg {
    /// Never
    Unsafe,
    /// When the system does it
    #[default]
    AlmostSafe,
    /// At every change
    Safe,
}

/// `jlog create`
#[derive(Debug, ClapArgs)]
pub struct CreateArgs {
    /// The feed's directory; it must be empty or not exist
    pub feed: PathBuf,
    /// The settings of the feed.
    #[command(flatten)]
    pub new: NewFeed,
}

/// `jlog meta`
#[derive(Debug, ClapArgs)]
pub struct MetaArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The output format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: FactFormat,
}

/// `jlog inspect`
#[derive(Debug, ClapArgs)]
pub struct InspectArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// A segment (8 hex digits): list its records
    #[arg(value_parser = segment)]
    pub segment: Option<u32>,
}

fn segment(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16).map_err(|_| "expected a segment such as 0000002a".to_owned())
}

/// `jlog clean`
#[derive(Debug, ClapArgs)]
pub struct CleanArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Also end the segment being written, if all subscribers have passed all of it
    #[arg(long)]
    pub roll: bool,
    /// Fail if the feed has no age limit (--max-age). Messages older than the limit are dropped
    /// with or without this option
    #[arg(long)]
    pub expire: bool,
}

/// `jlog backup`
#[derive(Debug, ClapArgs)]
pub struct BackupArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The directory to make
    pub dir: PathBuf,
}

/// `jlog export`
#[derive(Debug, ClapArgs)]
pub struct ExportArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The directory for the copy, which is as large as the feed; by default the one that the feed
    /// is in
    #[arg(long, value_name = "DIRECTORY")]
    pub tmp: Option<PathBuf>,
}

/// `jlog import`
#[derive(Debug, ClapArgs)]
pub struct ImportArgs {
    /// The directory to make
    pub dir: PathBuf,
}

/// `jlog alter`
#[derive(Debug, ClapArgs)]
pub struct AlterArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Size at which segments end
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub segment_size: Option<u32>,
    /// Size of the pre-commit buffer (0: none)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub pre_commit: Option<u32>,
    /// When the metastore and the checkpoints are synced to disk
    #[arg(long, value_enum)]
    pub safety: Option<SafetyArg>,
    /// Whether writers keep checksums
    #[arg(long, value_enum)]
    pub checksums: Option<OnOff>,
    /// How much the feed may hold.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// On
    On,
    /// Off
    Off,
}

/// `jlog demo`
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// Where to put it; by default a new temporary directory
    pub directory: Option<PathBuf>,
}
