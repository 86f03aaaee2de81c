//! Commands that write, find and read messages.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use jiff::Timestamp;
use jlog_core::LogId;

use crate::seek;
use crate::time::{self, Place};
use crate::values::{self, Name};

#[cfg(feature = "ship")]
use super::deliver::ExecArgs;
use super::feeds::NewFeed;

/// `jlog write`
#[derive(Debug, ClapArgs)]
pub struct WriteArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Files to read; standard input if there are none, or for -
    pub files: Vec<PathBuf>,
    /// Create the feed if it does not exist
    #[arg(long)]
    pub create: bool,
    /// Messages end with NUL bytes instead of newlines
    #[arg(short = '0', long = "null", group = "framing")]
    pub null: bool,
    /// Each file is one message
    #[arg(long, group = "framing")]
    pub whole: bool,
    /// Each message follows its length (4 bytes, little-endian)
    #[arg(long, group = "framing")]
    pub length_prefixed: bool,
    /// What is guaranteed for every message when the command ends
    #[arg(long, value_enum, default_value_t)]
    pub durability: DurabilityArg,
    /// Leave the pre-commit buffer to another writer
    #[arg(long)]
    pub direct: bool,
    /// When the feed is replaced, for example by a restored backup, continue in the new one,
    /// beginning with the message that was being written; wait up to 60 seconds for a feed that is
    /// missing, at the start or later. Without this, writing fails
    #[arg(long)]
    pub reopen: bool,
    /// Refuse longer messages; no part of such a message is written
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = values::size)]
    pub max_message: u32,
    /// No summary, no progress bar
    #[arg(short, long)]
    pub quiet: bool,
    /// The settings of a feed that --create makes.
    #[command(flatten)]
    pub new: NewFeed,
}

/// Durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// It survives the end of the process (it is in the pre-commit buffer, if the feed has one)
    Buffered,
    /// Subscribers see it (it is in a segment)
    #[default]
    Readable,
    /// It survives a power failure (it is synced to disk)
    Durable,
}

/// `jlog subscribe`
#[derive(Debug, ClapArgs)]
pub struct SubscribeArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The subscribers' names; without --move, --if-missing and --force, either all of them are
    /// added or none
    #[arg(required = true, value_name = "SUBSCRIBER")]
    pub subscribers: Vec<Name>,
    /// Begin with the messages that are written from now on
    #[arg(long, group = "start")]
    pub end: bool,
    /// Begin after this record
    #[arg(long, value_name = "ID", group = "start")]
    pub after: Option<LogId>,
    /// Begin where this subscriber is
    #[arg(long, value_name = "SUBSCRIBER", group = "start")]
    pub copy: Option<Name>,
    /// Begin with the first message of this time or later: 14:00, yesterday, "2026-11-25 10:00",
    /// RFC 3339, or 10min (ago)
    #[arg(long, value_name = "TIME", value_parser = time::time, group = "start")]
    pub since: Option<Timestamp>,
    /// Move the subscriber there if it exists
    #[arg(long, conflicts_with = "if_missing")]
    pub r#move: bool,
    /// Leave the subscriber where it is if it exists
    #[arg(long)]
    pub if_missing: bool,
    /// Accept an id past the end, as the C library does; messages up to it will be skipped
    #[arg(long, requires = "after")]
    pub force: bool,
}

/// `jlog unsubscribe`
#[derive(Debug, ClapArgs)]
pub struct UnsubscribeArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The subscriber's name
    pub subscriber: Name,
}

/// `jlog seek`
#[derive(Debug, ClapArgs)]
pub struct SeekArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The subscriber's name
    pub subscriber: Name,
    /// Continue with the first message in the feed, after the last one, with this record, or with
    /// the first message of this time or later
    #[arg(long, value_name = "beginning|end|ID|TIME", value_parser = seek::target, required_unless_present = "by",
          conflicts_with = "by")]
    pub to: Option<seek::Target>,
    /// Go back or forward by this many messages, or by this much time from the next message: -100,
    /// +100, -2h, +10min
    #[arg(long, value_name = "±N|±TIME", value_parser = seek::step, allow_hyphen_values = true)]
    pub by: Option<seek::Step>,
}

/// `jlog grep`
#[derive(Debug, ClapArgs)]
pub struct GrepArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// A regular expression in the syntax of the regex crate; it is matched against the bytes of
    /// messages
    pub pattern: String,
    /// The pattern is plain text, not a regular expression
    #[arg(short = 'F', long = "fixed-strings")]
    pub fixed: bool,
    /// Ignore case
    #[arg(short, long)]
    pub ignore_case: bool,
    /// Show the messages that do not match
    #[arg(short = 'v', long)]
    pub invert_match: bool,
    /// Show only how many messages match
    #[arg(short, long)]
    pub count: bool,
    /// Also show this many messages before and after each match
    #[arg(short = 'C', long, value_name = "N")]
    pub context: Option<u64>,
    /// Search messages of this time or later: 14:00, yesterday, "2026-11-25 10:00", RFC 3339, or
    /// 10min (ago)
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub since: Option<Timestamp>,
    /// Stop before the first message of this time or later
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub until: Option<Timestamp>,
    /// How messages are shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: MessageFormat,
}

/// How messages are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MessageFormat {
    /// The message and a newline
    #[default]
    Cat,
    /// Time, id, message
    Short,
    /// One JSON object per line
    Json,
    /// Time, id, and a hex dump
    Hex,
    /// The message and a NUL byte; a message that contains one is refused
    Null,
    /// Log lines of logdag or libmtev in the format `flatbuffer`, as JSON; other messages as with
    /// `json`
    Logline,
    /// The length (4 bytes, little-endian) and the message, as `write --length-prefixed` reads it
    LengthPrefixed,
}

/// `jlog read`
#[derive(Debug, ClapArgs)]
pub struct ReadArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The subscriber's name
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub subscriber: Option<Name>,
    /// Stop after this many messages; with --exec: pass up to this many to each run of the command
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Continue with messages as they are written
    #[arg(short, long)]
    pub follow: bool,
    /// Wait for a feed or a subscriber that does not exist yet, and for a new one when it is
    /// removed
    #[arg(long)]
    pub wait: bool,
    /// Leave the checkpoint where it is
    #[arg(long)]
    pub peek: bool,
    /// Allow other readers of the subscriber that also use this option; each of them gets every
    /// message
    #[arg(long, requires = "subscriber")]
    pub shared: bool,
    /// Begin with this record, or with the first one of this time or later; needs no subscriber and
    /// does not change the feed
    #[arg(long, value_name = "ID|TIME", value_parser = time::place)]
    pub from: Option<Place>,
    /// Only messages from this time on: 14:00, yesterday, "2026-11-25 10:00", RFC 3339, or how long
    /// ago (10min)
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub since: Option<Timestamp>,
    /// Only messages before this time
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub until: Option<Timestamp>,
    /// Stop with an error before damage, instead of reporting it and continuing after it
    #[arg(long)]
    pub stop_at_damage: bool,
    /// Accepted without effect: it is the default.
    #[arg(long, hide = true, conflicts_with = "stop_at_damage")]
    pub skip_damage: bool,
    /// How messages are shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: MessageFormat,
    /// The command to run, if any.
    #[cfg(feature = "ship")]
    #[command(flatten)]
    pub exec: ExecArgs,
}

/// `jlog cat`
#[derive(Debug, ClapArgs)]
pub struct CatArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Stop after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Begin with this record, or with the first message of this time or later
    #[arg(long, value_name = "ID|TIME", value_parser = time::place, conflicts_with = "since")]
    pub from: Option<Place>,
    /// End with this record, or before the first message of this time or later
    #[arg(long, value_name = "ID|TIME", value_parser = time::place, conflicts_with = "until")]
    pub to: Option<Place>,
    /// Only messages from this time on: 14:00, yesterday, "2026-11-25 10:00", RFC 3339, or how long
    /// ago (10min)
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub since: Option<Timestamp>,
    /// Only messages before this time
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub until: Option<Timestamp>,
    /// Stop with an error before damage, instead of reporting it and continuing after it
    #[arg(long)]
    pub stop_at_damage: bool,
    /// How messages are shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: MessageFormat,
}

/// `jlog tail`
#[derive(Debug, ClapArgs)]
pub struct TailArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// Stop after this many messages
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Begin with the last N messages
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub last: u64,
    /// Wait for a feed that does not exist yet, and for a new one when it is removed
    #[arg(long)]
    pub wait: bool,
    /// Stop with an error before damage, instead of reporting it and continuing after it
    #[arg(long)]
    pub stop_at_damage: bool,
    /// How messages are shown
    #[arg(short, long, value_enum, default_value_t)]
    pub output: MessageFormat,
}
