//! Commands that carry messages elsewhere: to programs, workers and destinations.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use jiff::Timestamp;

use crate::time::{self, Place};
use crate::values::{self, Name};

/// A command to run for messages.
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

/// `jlog ship`
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
