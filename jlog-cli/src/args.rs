//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::Timestamp;
use jlog_core::LogId;

use crate::seek;
use crate::time::{self, Place};
use crate::values::{self, Limit, Name};

/// A durable local feed: write messages once, read them with many subscribers, each at its own
/// pace.
#[derive(Debug, Parser)]
#[command(name = "jlog", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a feed
    Create(CreateArgs),
    /// Write messages from files or standard input, one per line
    Write(WriteArgs),
    /// Add a subscriber
    Subscribe(SubscribeArgs),
    /// Remove a subscriber
    Unsubscribe(UnsubscribeArgs),
    /// Move a subscriber's checkpoint, back or forward
    ///
    /// A subscriber cannot be moved while a reader is open.
    Seek(SeekArgs),
    /// Read a subscriber's next messages and move its checkpoint past them (exit code 3: some
    /// messages were damaged or lost)
    Read(ReadArgs),
    /// Show all messages, without a subscriber and without changing the feed
    Cat(CatArgs),
    /// Show the messages that match a pattern, without a subscriber and without changing the feed
    /// (exit code 1: no message matches; 2: the search failed; 3: some messages are damaged or
    /// lost)
    Grep(GrepArgs),
    /// Show messages as they are written, without a subscriber
    Tail(TailArgs),
    /// Show segments, subscribers, and how far each subscriber is behind
    Status(StatusArgs),
    /// Check how far subscribers are behind, for monitoring systems: prints one line, and exits
    /// with 0 (ok), 1 (warning), 2 (critical) or 3 (unknown)
    Check(CheckArgs),
    /// Serve the state of feeds over HTTP: metrics for Prometheus, and health
    ///
    /// Runs until SIGINT or SIGTERM. Nothing can be changed over HTTP without --control.
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Show feeds in a terminal as they change: lag, rates, the worst problem first; search and
    /// follow messages
    ///
    /// Keys: Up and Down choose, Enter opens a feed's subscribers, / searches its messages, t
    /// follows them, ? shows all keys, q quits. Changes nothing.
    #[cfg(feature = "top")]
    Top(TopArgs),
    /// Send a subscriber's messages to another feed, a command or a server, and move its checkpoint
    /// past those that were acknowledged (exit code 3: some messages were damaged or lost)
    ///
    /// Runs until SIGINT or SIGTERM. Messages that the destination refuses for the moment are
    /// retried. SIGUSR1 prints the progress.
    #[cfg(feature = "ship")]
    Ship(Box<ShipArgs>),
    /// Run a command for a subscriber's messages, shared with other workers (exit code 3: some
    /// messages were damaged or lost)
    ///
    /// You can start any number of workers with the same options on the same machine. Each message
    /// is leased to one worker, and is done when the command ends with status 0. When the command
    /// fails, or its worker is killed, the message is delivered again. A message can be processed
    /// twice.
    #[cfg(feature = "ship")]
    Work(Box<WorkArgs>),
    /// List segments, or the records of one
    Inspect(InspectArgs),
    /// Check every record, index and checkpoint (exit code 3: damage found)
    Verify(FeedArgs),
    /// Take damage out of a feed; what is taken out is kept in files beside it
    Repair(RepairArgs),
    /// Remove segments that no subscriber needs
    Clean(CleanArgs),
    /// Copy a feed while others write to it and read from it
    ///
    /// The copy has the same messages, subscribers and settings. It is complete and on disk when
    /// the command exits with 0; otherwise it does not exist. It does not contain messages in a
    /// writer's pre-commit buffer, because they are not readable yet. During the copy, a subscriber
    /// called jlog-backup-… keeps segments from being removed.
    #[command(visible_alias = "copy")]
    Backup(BackupArgs),
    /// Write a feed to standard output as a tar archive while others write to it and read from it
    ///
    /// The archive keeps messages with their ids and times, checkpoints and settings. The feed is
    /// copied first, as by `jlog backup`, so that a slow output does not retain segments.
    Export(ExportArgs),
    /// Make a feed from an archive of `jlog export` on standard input; it is complete and on disk,
    /// or does not exist
    Import(ImportArgs),
    /// Change segment size, pre-commit buffer, safety, checksums or limits
    Alter(AlterArgs),
    /// Show the metastore
    Meta(MetaArgs),
    /// Try it: a real access log becomes a feed with two subscribers
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages
    Man {
        /// An existing directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

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

/// A command to run for messages.
#[cfg(feature = "ship")]
#[derive(Debug, ClapArgs)]
pub struct ExecArgs {
    /// Run this shell command for each message, with the message on its standard input. The
    /// checkpoint moves when the command exits with status 0
    ///
    /// With -n N, a run gets up to N messages, as lines or in the format that -o names. Its
    /// environment has JLOG_FIRST_ID, JLOG_LAST_ID and JLOG_MESSAGES. Status 65 refuses a message
    /// for good. After any other status, the command runs again for the same messages, after
    /// growing pauses of up to 30 seconds. Messages that were not done when the process or the
    /// machine stopped are delivered again.
    #[arg(long, value_name = "COMMAND", requires = "subscriber",
          conflicts_with_all = ["peek", "shared", "from", "since", "stop_at_damage"])]
    pub exec: Option<String>,
    /// Run this many commands at a time; with more than 1, messages are done in any order
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub jobs: u32,
    /// What happens to a message that the command refuses, or for which it has failed --tries times
    #[arg(long, value_enum, default_value_t, requires = "exec")]
    pub on_reject: RejectArg,
    /// How many times the command runs for a message before the message is set aside or skipped;
    /// runs that cannot start (status 126, 127 or 78) do not count
    #[arg(long, value_name = "N", default_value_t = 10, requires = "exec", value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// The feed for messages that are set aside; it is created when needed
    #[arg(long, value_name = "DIRECTORY", requires = "exec", required_if_eq("on_reject", "set-aside"))]
    pub set_aside: Option<PathBuf>,
    /// Seconds after which a run is killed and counts as failed; by default there is no limit
    #[arg(long, value_name = "SECONDS", requires = "exec", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Seconds to let runs finish after SIGTERM or SIGINT before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "exec")]
    pub drain: u64,
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

/// `jlog ship`
#[cfg(feature = "ship")]
#[derive(Debug, ClapArgs)]
pub struct ShipArgs {
    /// Run the shipments in this TOML file: a table `[[ship]]` for each feed, subscriber and
    /// destination, with the options below as keys
    ///
    /// Shipments are independent of each other. Paths in the file are relative to its directory.
    /// Nothing starts if the file has a mistake.
    #[arg(long, value_name = "FILE", conflicts_with = "ShipmentArgs")]
    pub config: Option<PathBuf>,
    /// Ship the messages that exist now, then end
    #[arg(long)]
    pub once: bool,
    /// Show what would be sent, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Answer `/metrics` here, as `jlog serve` does, with the shipper's counters: 127.0.0.1:PORT or
    /// unix:PATH; port 0 picks a free one
    #[cfg(feature = "serve")]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<jlog_watch::Address>,
    /// The shipment, if there is no file.
    #[command(flatten)]
    pub shipment: Option<ShipmentArgs>,
}

/// A feed, a subscriber, a destination, and how messages get there.
#[cfg(feature = "ship")]
#[derive(Clone, Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("password").args(["password_file", "password_env"]))]
pub struct ShipmentArgs {
    /// The feed's directory
    #[arg(required = false, required_unless_present = "config")]
    pub feed: PathBuf,
    /// The subscriber whose messages are shipped; nothing else should read as this subscriber
    #[arg(required = false, required_unless_present = "config")]
    pub subscriber: Name,
    /// jlog:DIRECTORY (another feed), exec:COMMAND (which gets batches on its standard input),
    /// http://… or https://…, a Loki stream: loki+http://HOST:PORT?LABEL=VALUE (loki+https://…
    /// with TLS), a receiver of OpenTelemetry logs: otlp+http://HOST:PORT?service.name=NAME
    /// (otlp+https://… with TLS), a NATS stream: nats://HOST:PORT/STREAM?subject=SUBJECT
    /// (tls://… with TLS), or a Kafka topic: kafka://HOST:PORT,HOST:PORT/TOPIC
    /// (kafka+tls://… with TLS)
    #[arg(required = false, required_unless_present = "config")]
    pub destination: String,
    /// Add the subscriber if it is missing, beginning with this record or this time (0:0: with the
    /// first message); an existing one stays where it is
    #[arg(long, value_name = "ID|TIME", value_parser = time::place)]
    pub from: Option<Place>,
    /// Stop before the first message of this time or later
    #[arg(long, value_name = "TIME", value_parser = time::time)]
    pub until: Option<Timestamp>,
    /// Ship only messages whose JSON keys match this expression: "and(level >= 'warn', user.id =
    /// 7)"
    #[arg(long, value_name = "EXPR", value_parser = values::filter)]
    pub filter: Option<jlog_ship::Filter>,
    /// Take the subject, key, timestamp, severity, header.NAME, attribute.NAME or label.NAME from
    /// the message's JSON: subject=orders.{country|none}
    #[arg(long = "map", value_name = "KEY=TEMPLATE", value_parser = values::map)]
    pub map: Vec<(String, String)>,
    /// Send at most this many messages per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Messages that may be unacknowledged at a time: at most this many arrive twice after a crash
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub window: usize,
    /// The same limit in bytes
    #[arg(long, value_name = "SIZE", value_parser = values::size, default_value = "8MiB")]
    pub window_bytes: u32,
    /// What happens to a message that the destination refuses for good
    #[arg(long, value_enum, default_value_t)]
    pub on_reject: RejectArg,
    /// The feed for messages that are set aside; it is created when needed
    #[arg(long, value_name = "DIRECTORY", required_if_eq("on_reject", "set-aside"))]
    pub set_aside: Option<PathBuf>,
    /// The feed holds messages that were set aside: send them in their original form
    #[arg(long)]
    pub unwrap: bool,
    /// Maximum number of messages in a request, or in a run of the command
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Seconds to wait for answers after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain: u64,
    /// Seconds to wait for an answer before trying again
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// How messages are separated on a command's standard input
    #[arg(long, value_enum, default_value_t)]
    pub framing: FramingArg,
    /// What an HTTP request contains
    #[arg(long, value_enum, default_value_t)]
    pub body: BodyArg,
    /// Concurrent HTTP requests; with more than 1, failures can change the order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub in_flight: usize,
    /// A file whose first line is a token, for `Authorization: Bearer`, or NATS
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub token_file: Option<PathBuf>,
    /// The environment variable that has the token
    #[arg(long, value_name = "VARIABLE", conflicts_with_all = ["user", "token_file"])]
    pub token_env: Option<String>,
    /// A user, for `Authorization: Basic`, NATS, or Kafka (SASL), with --password-file or
    /// --password-env
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// A file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// The environment variable that has the user's password
    #[arg(long, value_name = "VARIABLE", requires = "user")]
    pub password_env: Option<String>,
    /// A NATS credentials file, as `nsc` writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "token_file", "token_env"])]
    pub credentials: Option<PathBuf>,
    /// A header for every HTTP request; not for secrets, because other users can see the command
    /// line
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = values::header)]
    pub headers: Vec<(String, String)>,
    /// Certificates to trust besides the system's, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A client certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// `jlog work`
#[cfg(feature = "ship")]
#[derive(Debug, ClapArgs)]
pub struct WorkArgs {
    /// The feed's directory
    pub feed: PathBuf,
    /// The subscriber whose messages are shared
    pub group: Name,
    /// Run this shell command for each message, with the message on its standard input. Status 0:
    /// the message is done; 65: it is refused for good; any other: it is delivered again later
    #[arg(long, value_name = "COMMAND")]
    pub exec: String,
    /// Continue with messages as they are written; without this option, end when all are done
    #[arg(short, long)]
    pub follow: bool,
    /// How many workers there are in this process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub jobs: u32,
    /// Process messages with the same value at this JSON path in order: $.order.customer, or
    /// /order/customer
    #[arg(long, value_name = "PATH", value_parser = crate::work::key_path)]
    pub key: Option<crate::work::KeyPath>,
    /// Seconds after which another worker gets the message of a worker that has died
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub lease: u64,
    /// Seconds before a message for which the command failed is delivered again; doubled each time,
    /// up to five minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub retry_delay: u64,
    /// What happens to a message that the command refuses, or that was delivered --max-deliveries
    /// times without being done
    #[arg(long, value_enum, default_value_t)]
    pub on_reject: RejectArg,
    /// How many times a message is delivered before it is set aside or skipped
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_deliveries: u32,
    /// The feed for messages that are set aside; it is created when needed
    #[arg(long, value_name = "DIRECTORY", required_if_eq("on_reject", "set-aside"))]
    pub set_aside: Option<PathBuf>,
    /// Allow at most this many messages from the oldest one that is not done to the newest one that
    /// a worker has
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// Seconds after which a run is killed and counts as failed; by default there is no limit
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Seconds to let runs finish after SIGTERM or SIGINT before they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain: u64,
}

/// What happens to a message that is refused for good.
#[cfg(feature = "ship")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RejectArg {
    /// It is retried forever, and later messages wait
    #[default]
    Block,
    /// It is appended to the feed of --set-aside, with the reason
    SetAside,
    /// It is reported and skipped
    Skip,
}

/// How messages are separated on a command's standard input.
#[cfg(feature = "ship")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FramingArg {
    /// Each follows its length (4 bytes, little-endian), as `write --length-prefixed` reads them
    #[default]
    LengthPrefixed,
    /// Each ends with a newline; a message that contains one is refused
    Lines,
    /// Each ends with a NUL byte; a message that contains one is refused
    Null,
    /// Each in a run of its own
    One,
}

#[cfg(feature = "ship")]
impl From<FramingArg> for jlog_ship::destinations::Framing {
    fn from(framing: FramingArg) -> Self {
        match framing {
            FramingArg::LengthPrefixed => Self::LengthPrefixed,
            FramingArg::Lines => Self::Lines,
            FramingArg::Null => Self::Null,
            FramingArg::One => Self::One,
        }
    }
}

/// What an HTTP request contains.
#[cfg(feature = "ship")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BodyArg {
    /// Many messages, one line of JSON each, with id and time
    #[default]
    Ndjson,
    /// Many messages, one line each, unchanged
    Lines,
    /// One message, unchanged
    Raw,
    /// One message in JSON, with id and time
    Json,
    /// Many messages, as a batch of CloudEvents
    Cloudevents,
}

#[cfg(feature = "ship")]
impl From<BodyArg> for jlog_ship::destinations::HttpBody {
    fn from(body: BodyArg) -> Self {
        match body {
            BodyArg::Ndjson => Self::Ndjson,
            BodyArg::Lines => Self::Lines,
            BodyArg::Raw => Self::Raw,
            BodyArg::Json => Self::Json,
            BodyArg::Cloudevents => Self::CloudEvents,
        }
    }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
