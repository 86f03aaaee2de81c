//! The command `logdag`: checks configurations, shows the graph they make, and logs lines of files, pipes,
//! sockets and other programs.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod ctl;
mod man;
mod notify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use jlog_watch::{Address, AddressError, Server, Tls, Token, Watch};
use logdag::config::{Config, ConfigError, Http};
use logdag::input::{JsonLines, SyslogMessages, for_each_syslog_message};
use logdag::{FileSink, Graph, Level, Location, Redaction, SinkSpec, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGXFSZ,
};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;
use socket2::{SockRef, TcpKeepalive};

/// Named log streams, filters and sinks, from a configuration, without a line of code
#[derive(Debug, Parser)]
#[command(name = "logdag", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check a configuration without opening anything
    ///
    /// Errors end with status 1. Warnings are about what is valid but probably not what was meant.
    Check {
        /// The configuration
        file: PathBuf,
        /// Treat warnings as errors: end with status 1
        #[arg(long)]
        strict: bool,
        /// A type of sink that the application registers, and that is not unknown then; may be given several times
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Show the graph that a configuration makes, without opening anything
    Graph {
        /// The configuration
        file: PathBuf,
        /// As input for the command `dot`
        #[arg(long)]
        dot: bool,
        /// As a JSON object for each stream, one a line
        #[arg(long, conflicts_with = "dot")]
        json: bool,
    },
    /// Show lines of files in the format `flatbuffer` as JSON objects, one a line
    ///
    /// Feeds in this format are shown by `jlog read -o logline`.
    Decode {
        /// The files; standard input if there are none
        files: Vec<PathBuf>,
    },
    /// Ask a process that answers over HTTP (`logdag run` or `exec` with --http, or one with jlog-watch) about its
    /// streams, or change them
    ///
    /// The words are those of libmtev's console: list; show log NAME [LINES]; log details NAME; log to NAME TEXT; log
    /// connect NAME OUTLET [FILTER]; log disconnect NAME OUTLET; [no] log
    /// enable|debug|facility|timestamps|level|keys|target|source NAME; log rotate NAME; log reopen NAME. Besides these:
    /// reload; verify FEED; show verify FEED. Changes need --control there.
    Ctl(ctl::CtlArgs),
    /// Log lines of inputs, until they end or a signal arrives
    ///
    /// SIGHUP reloads the configuration and reopens files; a wrong configuration is refused, and its error
    /// logged to the stream `error`. SIGTERM and SIGINT write everything and end; a second one ends at once.
    Run {
        /// The configuration
        file: PathBuf,
        /// Which lines go to which stream: STREAM=stdin, STREAM=fifo:PATH, STREAM=unix:PATH or STREAM=udp:127.0.0.1:PORT;
        /// messages of syslog (RFC 5424 and 3164): STREAM=syslog-udp:127.0.0.1:PORT, STREAM=syslog-tcp:127.0.0.1:PORT
        /// (RFC 6587, up to 512 connections) or STREAM=syslog-unix:PATH, a datagram socket like /dev/log
        #[arg(long = "in", value_name = "STREAM=SOURCE", required = true, value_parser = source)]
        inputs: Vec<(String, Source)>,
        #[command(flatten)]
        lines: LineArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Run a command and log what it writes; end with its exit status
    ///
    /// Signals are passed on to the command. SIGHUP also reloads the configuration and reopens files, but most commands
    /// end with it; files that were moved away are noticed without it. After the command has ended, lines are taken
    /// until no other process has its outputs open; SIGTERM and SIGINT end that, or, if one of them has ended the
    /// command, 5 seconds. A second one ends at once. Signals that were ignored at the start (by `nohup`, for example)
    /// stay ignored.
    Exec {
        /// The configuration
        file: PathBuf,
        /// The stream for its standard output, which is left alone otherwise
        #[arg(long, value_name = "STREAM")]
        stdout: Option<String>,
        /// The stream for its standard error, which is left alone otherwise
        #[arg(long, value_name = "STREAM")]
        stderr: Option<String>,
        #[command(flatten)]
        lines: LineArgs,
        #[command(flatten)]
        http: HttpArgs,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// An existing directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

/// Whether to answer over HTTP; the configuration can say the same, and is read for it at the start only.
#[derive(Clone, Debug, clap::Args)]
struct HttpArgs {
    /// Answer over HTTP how streams and the feeds that they write to are (metrics, health, lines of memory streams), at
    /// 127.0.0.1:PORT, unix:PATH, or, with a token or certificates of clients, any address
    #[arg(long, value_name = "ADDRESS")]
    http: Option<Address>,
    /// Answer only clients that send the token in this file (Authorization: Bearer TOKEN)
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<PathBuf>,
    /// Answer over TLS, with this certificate and those that lead to its authority, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answer only clients with a certificate that one of these authorities has issued, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Let clients change streams and subscribers over HTTP; needs a token file, certificates of clients, or a socket
    #[arg(long)]
    control: bool,
}

impl HttpArgs {
    /// A server, if the command line or the configuration asks for one. It says on standard error where it listens: the
    /// port may be one that the system chose.
    fn serve(
        &self,
        config: &Config,
        graph: &Graph,
        reload: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Option<Server>, Failure> {
        let configured = config.http();
        let address = match (&self.http, configured) {
            (Some(address), _) => address.clone(),
            (None, Some(http)) => http_address(config, http)?,
            (None, None) if self.http_token_file.is_some() || self.tls_cert.is_some() || self.control => {
                let why = "--http-token-file, --tls-cert or --control without an address: give --http, too";
                return Err(why.into());
            }
            (None, None) => return Ok(None),
        };
        let mut watch = Watch::new().graph("", graph.clone());
        for stream in graph.describe_all().into_iter().filter(|stream| stream.kind == "jlog") {
            // The subscribers are behind the directory.
            watch = watch.feeds(stream.path.split('(').next().unwrap_or_default());
        }
        for host in configured.into_iter().flat_map(|http| &http.allow_hosts) {
            watch = watch.allow_host(host);
        }
        let token_file = configured.and_then(|http| http.token_file.as_ref());
        if let Some(file) = self.http_token_file.as_ref().or(token_file) {
            watch = watch.token(Token::from_file(file)?);
        }
        if let Some(tls) = self.tls(configured)? {
            watch = watch.tls(tls);
        }
        if self.control {
            watch = watch.control().on_reload(reload);
        }
        let server = watch.serve(&address)?;
        report(format_args!("logdag: listening at {}", server.url()));
        Ok(Some(server))
    }

    /// What the command line says of TLS, or else the configuration.
    fn tls(&self, configured: Option<&Http>) -> Result<Option<Tls>, Failure> {
        let given = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key, self.tls_client_ca.as_deref())),
            _ => configured.and_then(|http| {
                Some((http.tls_cert.as_ref()?, http.tls_key.as_ref()?, http.tls_client_ca.as_deref()))
            }),
        };
        let Some((certificate, key, client_ca)) = given else { return Ok(None) };
        Ok(Some(Tls::from_files(certificate, key, client_ca)?))
    }
}

/// The address that a configuration gives.
fn http_address(config: &Config, http: &Http) -> Result<Address, ConfigError> {
    http.address.parse().map_err(|e: AddressError| config.http_error(e.to_string()))
}

/// How lines are taken.
#[derive(Clone, Debug, clap::Args)]
struct LineArgs {
    /// Take lines that are JSON objects as events; the message is the value of KEY (by default: message, msg or event)
    ///
    /// Filters see the keys, also within values (`user.id`). The line has the event's level (level or
    /// severity) and its time (timestamp, @timestamp, time or ts). Keys that have the name of a field of a
    /// format have `original_` in front in its lines (json: timestamp, facility, threadid, threadname, file,
    /// line, message; event: timestamp, level, event, stream).
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    json_field: Option<String>,
    /// Add the time of arrival to lines that have a time of their own, as the key `received`: messages of syslog, and events
    /// with --json-field
    #[arg(long)]
    received: bool,
    #[command(flatten)]
    switches: Switches,
    /// Split longer lines at this length, in bytes
    #[arg(long, value_name = "BYTES", default_value = "16777216")]
    max_line: NonZeroUsize,
}

impl LineArgs {
    /// How lines are read that may be JSON objects.
    fn json(&self) -> Option<JsonLines> {
        let lines = match &**self.json_field.as_ref()? {
            "" => JsonLines::new(),
            key => JsonLines::new().message_key(key),
        };
        Some(if self.received { lines.keep_received() } else { lines })
    }

    /// How messages of syslog are logged.
    fn syslog(&self) -> SyslogMessages {
        let messages = SyslogMessages::new();
        if self.received { messages.keep_received() } else { messages }
    }

    /// Ends the process where an argument has no effect.
    fn check(&self, has_syslog: bool) {
        if self.received && self.json_field.is_none() && !has_syslog {
            let why = "--received has no effect: no line has a time of its own without --json-field or an input of syslog\n";
            Args::command().error(ErrorKind::MissingRequiredArgument, why).exit();
        }
    }
}

#[derive(Clone, Debug)]
enum Source {
    Stdin,
    Fifo(PathBuf),
    Unix(PathBuf),
    Udp(String),
    SyslogUdp(String),
    SyslogTcp(String),
    SyslogUnix(PathBuf),
}

impl Source {
    fn is_syslog(&self) -> bool {
        matches!(self, Self::SyslogUdp(_) | Self::SyslogTcp(_) | Self::SyslogUnix(_))
    }
}

fn source(text: &str) -> Result<(String, Source), String> {
    let expected = "expected STREAM=stdin, STREAM=fifo:PATH, STREAM=unix:PATH, STREAM=udp:HOST:PORT, \
                    STREAM=syslog-udp:HOST:PORT, STREAM=syslog-tcp:HOST:PORT or STREAM=syslog-unix:PATH";
    let (stream, source) = text.split_once('=').ok_or(expected)?;
    let source = match source.split_once(':') {
        None if source == "stdin" => Source::Stdin,
        Some(("fifo", path)) if !path.is_empty() => Source::Fifo(path.into()),
        Some(("unix", path)) if !path.is_empty() => Source::Unix(path.into()),
        Some(("udp", address)) if address.contains(':') => Source::Udp(address.to_owned()),
        Some(("syslog-udp", address)) if address.contains(':') => Source::SyslogUdp(address.to_owned()),
        Some(("syslog-tcp", address)) if address.contains(':') => Source::SyslogTcp(address.to_owned()),
        Some(("syslog-unix", path)) if !path.is_empty() => Source::SyslogUnix(path.into()),
        _ => return Err(expected.to_owned()),
    };
    Ok((stream.to_owned(), source))
}

/// What went wrong, as it is reported.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // Before anything else: a signal that comes early would end the process.
    match Heeded::by_the_command().and_then(|heeded| work(Args::parse().command, heeded)) {
        Ok(code) => code,
        Err(e) => {
            report(format_args!("logdag: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// The signals that a command heeds from its start on.
enum Heeded {
    Run(Signals),
    Exec(EndAtOnce, SignalsInfo<WithOrigin>),
    /// They do what they do by default.
    None,
}

impl Heeded {
    /// Those of the command that the first argument names: the other arguments are not looked at yet.
    fn by_the_command() -> Result<Self, Failure> {
        Ok(match std::env::args_os().nth(1) {
            Some(command) if command == "run" => Self::Run(signals_of_run()?),
            Some(command) if command == "exec" => {
                let (end_at_once, signals) = signals_of_exec()?;
                Self::Exec(end_at_once, signals)
            }
            _ => Self::None,
        })
    }
}

fn signals_of_run() -> Result<Signals, Failure> {
    // It may be told to reload before it has read anything.
    let signals = Signals::new(heeded(&[SIGHUP]))?;
    EndAtOnce::new()?.count_from_here()?;
    for signal in heeded(&[SIGTERM, SIGINT]) {
        signals.add_signal(signal)?;
    }
    Ok(signals)
}

fn signals_of_exec() -> Result<(EndAtOnce, SignalsInfo<WithOrigin>), Failure> {
    let forwarded = [SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH];
    Ok((EndAtOnce::new()?, SignalsInfo::new(heeded(&forwarded))?))
}

fn work(task: Task, heeded: Heeded) -> Result<ExitCode, Failure> {
    match task {
        Task::Check { file, strict, types } => check(&file, strict, &types),
        Task::Graph { file, dot, json } => {
            let shape = if dot {
                Shape::Dot
            } else if json {
                Shape::Json
            } else {
                Shape::Text
            };
            let text = show(&Config::from_file(&file)?, shape)?;
            // A reader that has closed the pipe is no error.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Task::Decode { files } => decode(&files),
        Task::Ctl(args) => ctl::ctl(&args),
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "logdag", &mut script);
            // A reader that has closed the pipe is no error.
            let _ = io::stdout().write_all(&script);
            Ok(ExitCode::SUCCESS)
        }
        Task::Man { directory } => {
            man::write(&directory)
                .map_err(|e| format!("cannot write man pages to {}: {e}", directory.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { file, inputs, lines, http } => {
            lines.check(inputs.iter().any(|(_, source)| source.is_syslog()));
            let signals = match heeded {
                Heeded::Run(signals) => signals,
                _ => signals_of_run()?,
            };
            run(signals, &file, inputs, &lines, &http)
        }
        Task::Exec { file, stdout, stderr, lines, http, command } => {
            lines.check(false);
            let signals = match heeded {
                Heeded::Exec(end_at_once, signals) => (end_at_once, signals),
                _ => signals_of_exec()?,
            };
            exec(signals, &file, (stdout, stderr), &lines, &http, &command)
        }
    }
}

/// Names the files beside a log that look like rotated ones, but will never be removed.
fn note_what_retention_leaves(stream: &str, sink: Option<&SinkSpec>) {
    let Some(sink) = sink.filter(|sink| matches!(&*sink.kind, "file" | "file_synch")) else { return };
    if !sink.rotation.retains() {
        return;
    }
    // Opening the file will report a directory that cannot be read.
    for path in FileSink::left_alone(Path::new(&sink.path), &sink.rotation).unwrap_or_default() {
        let path = path.display();
        println!("note: log {stream:?}: retention leaves {path} alone: this rotation has not made it");
    }
}

fn check(file: &Path, strict: bool, types: &[String]) -> Result<ExitCode, Failure> {
    let config = Config::from_file(file)?;
    let graph = Graph::new();
    for kind in types {
        graph.register(kind, |_| Err(io::ErrorKind::Unsupported.into()))?;
    }
    config.check_types(&graph)?;
    if let Some(http) = config.http() {
        http_address(&config, http)?;
    }
    let missing = config.missing();
    let mut warnings = 0_u64;
    for warning in config.warnings().iter().chain(&missing) {
        warn(warning);
        warnings += 1;
    }
    let found = if warnings == 0 { "all right".to_owned() } else { counted(warnings, "warning") };
    println!("{}: {}, {found}", file.display(), counted(config.streams().len() as u64, "stream"));
    for stream in config.streams() {
        note_what_retention_leaves(&stream.name, stream.options.sink.as_ref());
    }
    Ok(if strict && warnings > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says something on standard error, and does not wait for a reader that has stopped.
fn report(what: std::fmt::Arguments<'_>) {
    logdag::report_on_stderr(&format!("{what}\n"));
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn warn(warning: &ConfigError) {
    report(format_args!("logdag: warning: {warning}"));
}

/// How a graph is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Dot,
    Json,
}

/// The graph of a configuration, without its sinks being opened.
fn show(config: &Config, shape: Shape) -> Result<String, Failure> {
    use std::fmt::Write;
    let graph = Graph::new();
    let mut bare = config.streams().to_vec();
    let mut unknown = BTreeSet::new();
    for stream in &mut bare {
        match &mut stream.options.sink {
            Some(sink) if graph.knows_type(&sink.kind) => {
                // A ring replaces every sink, because it opens nothing.
                sink.kind = "memory".to_owned();
                sink.path = String::new();
            }
            sink => unknown.extend(sink.take().map(|_| stream.name.clone())),
        }
    }
    graph.apply(bare).map_err(|e| e.error)?;
    graph.set_redaction(config.redaction().clone());
    let mut out = String::new();
    // Writing to a String cannot fail.
    if shape == Shape::Dot {
        out.push_str("digraph logdag {\n  rankdir=LR;\n  node [shape=box];\n");
    }
    let sinks = config.streams().iter().filter_map(|s| Some((&*s.name, s.options.sink.as_ref()?)));
    let sinks: BTreeMap<&str, &SinkSpec> = sinks.collect();
    let left_out: BTreeMap<&str, &String> =
        config.left_out().iter().map(|(name, why)| (&**name, why)).collect();
    for name in graph.names() {
        let Some(mut stream) = graph.describe(&name) else { continue };
        let sink = sinks.get(&*name).copied();
        let rotation = sink.map_or_else(String::new, |sink| sink.rotation.to_string());
        if shape == Shape::Json {
            if let Some(sink) = sink {
                (stream.kind, stream.path) = (sink.kind.clone(), sink.path.clone());
            }
            // It is an object: it has just been made so.
            let mut json: serde_json::Value = serde_json::from_str(&stream.to_json()).unwrap_or_default();
            if !rotation.is_empty() {
                json["rotation"] = rotation.into();
            }
            let _ = writeln!(out, "{json}");
            continue;
        }
        let sink = sink.map(|sink| format!("{} {}", sink.kind, sink.path).trim().to_owned());
        let sink = sink.or_else(|| (!stream.kind.is_empty()).then(|| stream.kind.clone()));
        let why = if !stream.enabled {
            Some("disabled".to_owned())
        } else if unknown.contains(&name) {
            Some("its type is none of logdag's own".to_owned())
        } else if let Some(condition) = left_out.get(&*name).filter(|_| sink.is_none()) {
            Some(format!("left out: require_env {condition:?} does not hold"))
        } else if !stream.enabled_below {
            let why = if leads_to_a_sink(&graph, &name) {
                "what it leads to is disabled"
            } else {
                "leads to no sink"
            };
            Some(why.to_owned())
        } else {
            None
        };
        if shape == Shape::Dot {
            let label = sink.map_or_else(|| name.clone(), |sink| format!("{name}: {sink}"));
            let style = if why.is_some() { ", style=dashed" } else { "" };
            let _ = writeln!(out, "  {name:?} [label={}{style}];", quoted(&label));
            for (to, filter) in &stream.outlets {
                let label = filter.as_ref().map_or_else(String::new, |f| format!(" [label={}]", quoted(f)));
                let _ = writeln!(out, "  {name:?} -> {to:?}{label};");
            }
            continue;
        }
        let _ = write!(out, "{name}");
        let _ = sink.map(|sink| write!(out, "  [{sink}]"));
        let _ = why.map(|why| write!(out, "  ({why})"));
        out.push('\n');
        if !rotation.is_empty() {
            let _ = writeln!(out, "  {rotation}");
        }
        out.push_str(&redacted(&stream.redaction));
        for (to, filter) in &stream.outlets {
            let _ = match filter {
                Some(filter) => writeln!(out, "  -> {to}  if {filter}"),
                None => writeln!(out, "  -> {to}"),
            };
        }
    }
    if shape == Shape::Dot {
        out.push_str("}\n");
    }
    Ok(out)
}

/// The line that shows what is redacted in a stream's lines; nothing where nothing is.
fn redacted(redaction: &Redaction) -> String {
    if redaction.is_empty() {
        return String::new();
    }
    let (keys, patterns) = redaction.parts();
    let patterns = patterns.into_iter().map(|pattern| format!("/{pattern}/"));
    let all: Vec<String> = keys.into_iter().map(str::to_owned).chain(patterns).collect();
    format!("  redacts {}\n", all.join(", "))
}

/// Whether a stream has a sink, or one that it leads to has, enabled or not.
fn leads_to_a_sink(graph: &Graph, name: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![name.to_owned()];
    while let Some(name) = ahead.pop() {
        let Some(stream) = graph.describe(&name) else { continue };
        if !stream.kind.is_empty() {
            return true;
        }
        if seen.insert(name) {
            ahead.extend(stream.outlets.into_iter().map(|(to, _)| to));
        }
    }
    false
}

/// Shows every whole line, also of a file that ends within a line.
fn decode(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut decode = |name: &str, from: &mut dyn Read| -> Result<(), Failure> {
        let mut broken = None;
        let read = logline::for_each(io::BufReader::new(from), |line| {
            let parsed = logline::LogLine::parse(line);
            let line = parsed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let mut text = Vec::new();
            line.write_json(&mut text);
            text.push(b'\n');
            out.write_all(&text).inspect_err(|e| broken = Some(e.kind()))
        });
        match broken {
            // A reader that has closed the pipe is no error.
            Some(io::ErrorKind::BrokenPipe) => Ok(()),
            Some(_) => read.map_err(|e| format!("standard output: {e}").into()),
            None => read.map_err(|e| format!("{name}: {e}").into()),
        }
    };
    let decoded = if files.is_empty() {
        decode("standard input", &mut io::stdin().lock())
    } else {
        files.iter().try_for_each(|file| {
            let mut opened = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
            decode(&file.display().to_string(), &mut opened)
        })
    };
    match out.flush() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}").into()),
        _ => decoded.map(|()| ExitCode::SUCCESS),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Streams that are switched on and off, whatever the configuration says.
#[derive(Clone, Debug, clap::Args)]
struct Switches {
    /// Enable this stream, although the configuration disables it
    #[arg(short = 'l', long = "enable", value_name = "STREAM")]
    on: Vec<String>,
    /// Disable this stream
    #[arg(short = 'L', long = "disable", value_name = "STREAM")]
    off: Vec<String>,
}

impl Switches {
    fn all(&self) -> impl Iterator<Item = (&str, bool)> {
        let on = self.on.iter().map(|name| (&**name, true));
        on.chain(self.off.iter().map(|name| (&**name, false)))
    }

    fn change(&self, config: &mut Config) {
        for (name, enabled) in self.all() {
            config.set_enabled(name, enabled);
        }
    }

    /// Warns of names that no line can have: no stream that there is, no input, and none that an input is below.
    fn check(&self, graph: &Graph, inputs: &[&str]) {
        for (name, enabled) in self.all() {
            let leads_here = |input: &&str| {
                input.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if graph.find(name).is_none() && !inputs.iter().any(leads_here) {
                let switch = if enabled { "-l" } else { "-L" };
                report(format_args!(
                    "logdag: warning: {switch} {name}: the configuration has no such stream (`logdag graph` lists those it has)"
                ));
            }
        }
    }

    /// Those of streams that no configuration declares.
    fn apply(&self, graph: &Graph) -> Result<(), Failure> {
        for (name, enabled) in self.all() {
            graph.stream(name)?;
            graph.set_enabled(name, enabled)?;
        }
        Ok(())
    }
}

fn open(
    file: &Path,
    inputs: &[&str],
    switches: &Switches,
    http: &HttpArgs,
) -> Result<(Graph, Option<Server>), Failure> {
    let mut config = Config::from_file(file)?;
    switches.change(&mut config);
    let graph = Graph::new();
    config.warnings().iter().for_each(warn);
    // No type is registered later.
    config.check_types(&graph)?;
    config.apply(&graph)?;
    switches.check(&graph, inputs);
    switches.apply(&graph)?;
    graph.go_async();
    let (again, configuration, all) = (graph.clone(), file.to_owned(), switches.clone());
    let server = http.serve(&config, &graph, move || reload(&again, &configuration, &all))?;
    Ok((graph, server))
}

/// Reloads the configuration and reopens files. Errors go to the log, too.
fn reload(graph: &Graph, file: &Path, switches: &Switches) -> Result<(), String> {
    notify::reloading();
    let reloaded = graph.reload_with(file, |config| switches.change(config)).map_err(|e| e.to_string());
    if reloaded.is_ok()
        && let Err(e) = switches.apply(graph)
    {
        report(format_args!("logdag: {e}"));
    }
    match &reloaded {
        Ok(()) => notify::ready("The configuration was read again"),
        Err(e) => notify::ready(&format!("The configuration was refused, and the one before is in use: {e}")),
    }
    reloaded
}

/// Takes lines, and logs them.
#[derive(Clone)]
struct Lines {
    stream: Stream,
    json: Option<JsonLines>,
    syslog: SyslogMessages,
    max_line: usize,
}

impl Lines {
    fn new(graph: &Graph, stream: &str, args: &LineArgs) -> Result<Self, Failure> {
        let name = stream;
        let known = graph.describe(name);
        let stream = graph.stream(name)?;
        if !stream.is_enabled() {
            let what = match known {
                Some(known) if !known.enabled => "is disabled",
                Some(_) => "leads to no sink",
                None => "is not in the configuration, and leads to no sink",
            };
            report(format_args!("logdag: the stream {name:?} {what}: its lines go nowhere"));
        }
        Ok(Self { stream, json: args.json(), syslog: args.syslog(), max_line: args.max_line.get() })
    }

    /// Logs every line until the input ends. A line that is too long continues in the next one.
    fn take_all(&self, from: impl Read) -> io::Result<()> {
        logdag::for_each_line(from, self.max_line, |line| self.take(line))
    }

    /// The same until it is told to end. An incomplete line is then logged and marked as cut.
    fn take_until_told(&self, from: Until<impl Read + AsFd>) -> io::Result<()> {
        let told = Arc::clone(&from.told);
        logdag::for_each_line(from, self.max_line, |line| {
            // The input is read on only when all whole lines are taken.
            if told.load(Ordering::Acquire) {
                let text = String::from_utf8_lossy(line);
                let cut = format_args!("{text} [cut here: logdag was told to end]");
                self.stream.log(Level::Info, &Location::UNKNOWN, &[], &cut);
            } else {
                self.take(line);
            }
        })
    }

    fn take(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        match &self.json {
            Some(json) => json.log(&self.stream, &text),
            None => self.stream.log(Level::Info, &Location::UNKNOWN, &[], &text),
        }
    }
}

/// Whether the terminal has sent a signal (Ctrl-C, a new size) to the command as well, as to our whole process
/// group.
/// A hangup goes to the leader of a session only, which may be us.
fn has_it_too(command: nix::unistd::Pid, signal: i32) -> bool {
    matches!(signal, SIGINT | SIGQUIT | SIGWINCH)
        && nix::unistd::getpgid(Some(command)).is_ok_and(|group| group == nix::unistd::getpgrp())
}

fn run(
    mut signals: Signals,
    file: &Path,
    inputs: Vec<(String, Source)>,
    args: &LineArgs,
    http: &HttpArgs,
) -> Result<ExitCode, Failure> {
    // It answers until everything is written.
    let names: Vec<&str> = inputs.iter().map(|(stream, _)| &**stream).collect();
    let (graph, _server) = open(file, &names, &args.switches, http)?;
    let (stop, ending) = Stop::new()?;
    let mut threads = Vec::new();
    let what = format!("Logs lines of {}", counted(inputs.len() as u64, "input"));
    for (stream, source) in inputs {
        let lines = Lines::new(&graph, &stream, args)?;
        threads.push(start(source, lines, stop.clone())?);
    }
    // Inputs that end end the command; sockets never do.
    notify::ping(&graph)?;
    notify::ready(&what);
    let handle = signals.handle();
    let inputs = std::thread::spawn(move || {
        for thread in threads {
            // What a thread had to say it has said.
            let _ = thread.join();
        }
        handle.close();
    });
    // On a thread of its own: a sink that a reload waits for does not delay the end.
    let reloads = Reloads::start(&graph, file, &args.switches);
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        reloads.reload();
    }
    notify::tell(&[NotifyState::Stopping]);
    // What has been sent so far is taken, if it ends.
    drop(ending);
    let begun = Instant::now();
    while !inputs.is_finished() && begun.elapsed() < LAST_LINES {
        std::thread::sleep(Duration::from_millis(5));
    }
    let finished = finish(&graph);
    reloads.finish(begun + LAST_LINES);
    finished
}

/// Reloads the configuration whenever that is asked for, one at a time.
struct Reloads {
    asked: mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Reloads {
    fn start(graph: &Graph, file: &Path, switches: &Switches) -> Self {
        // What is asked for twice while one is under way is done once.
        let (asked, reloads) = mpsc::sync_channel(1);
        let (graph, file, switches) = (graph.clone(), file.to_owned(), switches.clone());
        let thread = std::thread::spawn(move || {
            for () in reloads {
                // The log has said so.
                let _ = reload(&graph, &file, &switches);
            }
        });
        Self { asked, thread }
    }

    fn reload(&self) {
        let _ = self.asked.try_send(());
    }

    /// Waits for one that is under way: it may still say which lines a sink has not taken.
    fn finish(self, deadline: Instant) {
        drop(self.asked);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The signals that were ignored at the start, by `nohup` for example, as bits.
static IGNORED: LazyLock<u64> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
});

/// Those of the signals that were not ignored at the start: others stay ignored, also for the command that is run.
fn heeded(signals: &[i32]) -> Vec<i32> {
    signals.iter().copied().filter(|signal| *IGNORED >> (signal - 1) & 1 == 0).collect()
}

/// A way out where a sink keeps everything from being written: the second signal.
struct EndAtOnce {
    told: Arc<AtomicBool>,
    signals: Vec<i32>,
}

impl EndAtOnce {
    fn new() -> io::Result<Self> {
        let (told, signals) = (Arc::new(AtomicBool::new(false)), heeded(&[SIGTERM, SIGINT]));
        for &signal in &signals {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&told))?;
        }
        // A file that may not grow is a sink that fails.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { told, signals })
    }

    /// The next signal is the first one.
    fn count_from_here(&self) -> io::Result<()> {
        for &signal in &self.signals {
            // What is asked for first is done first: the first signal does not find itself.
            signal_hook::flag::register(signal, Arc::clone(&self.told))?;
        }
        Ok(())
    }
}

/// How long the command takes what was sent before it was told to end.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Tells inputs to end: a pipe whose other end is closed then.
#[derive(Clone)]
struct Stop(Arc<io::PipeReader>);

impl Stop {
    fn new() -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self(Arc::new(reader)), writer))
    }

    /// Waits until there is something to read, or until it is to end and there is nothing.
    fn wait_for(&self, input: BorrowedFd<'_>) -> io::Result<bool> {
        let ready = |poll: &PollFd<'_>| poll.any().unwrap_or(true);
        loop {
            let mut polled =
                [PollFd::new(input, PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            if ready(&polled[0]) || ready(&polled[1]) {
                return Ok(ready(&polled[0]));
            }
        }
    }
}

/// An input that ends when it is told to and there is nothing more to read.
struct Until<R> {
    input: R,
    stop: Stop,
    /// It has ended because it was told to.
    told: Arc<AtomicBool>,
}

impl<R> Until<R> {
    fn new(input: R, stop: Stop) -> Self {
        Self { input, stop, told: Arc::default() }
    }
}

impl<R: Read + AsFd> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.wait_for(self.input.as_fd())? {
            return self.input.read(buffer);
        }
        self.told.store(true, Ordering::Release);
        Ok(0)
    }
}

/// Writes everything that was taken.
fn finish(graph: &Graph) -> Result<ExitCode, Failure> {
    let drained = graph.drain_at_end();
    graph.go_sync();
    graph.flush()?;
    drop(drained);
    let lost: u64 =
        graph.names().iter().filter_map(|name| graph.describe(name)).map(|d| d.counters.failed).sum();
    if lost > 0 {
        return Err(format!("{} could not be written", counted(lost, "line")).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn start(source: Source, lines: Lines, stop: Stop) -> Result<std::thread::JoinHandle<()>, Failure> {
    let named = |path: &Path, e: io::Error| -> Failure { format!("{}: {e}", path.display()).into() };
    Ok(match source {
        Source::Stdin => {
            // Not through the standard library's buffer: what is in there cannot be polled.
            let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            std::thread::spawn(move || tell("stdin", lines.take_until_told(Until::new(input, stop))))
        }
        Source::Fifo(path) => {
            if !path.exists() {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o660))
                    .map_err(|e| named(&path, e.into()))?;
            }
            // Opened for writing as well, so that it does not end when a writer closes it.
            let input = File::options().read(true).write(true).open(&path).map_err(|e| named(&path, e))?;
            if !input.metadata().is_ok_and(|facts| facts.file_type().is_fifo()) {
                return Err(format!("{}: it is not a FIFO", path.display()).into());
            }
            let what = path.display().to_string();
            std::thread::spawn(move || tell(&what, lines.take_until_told(Until::new(input, stop))))
        }
        Source::Unix(path) => {
            let left_over = UnixStream::connect(&path).err();
            remove_left_over(&path, left_over).map_err(|e| named(&path, e))?;
            let listener = UnixListener::bind(&path).map_err(|e| named(&path, e))?;
            std::thread::spawn(move || {
                take_connections(&listener, &path.display().to_string(), &lines, &stop)
            })
        }
        Source::Udp(address) => {
            let socket = UdpSocket::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            std::thread::spawn(move || {
                let take = |datagram: &[u8]| lines.take_all(datagram);
                take_datagrams(&address, &socket, |buffer| socket.recv(buffer), &stop, take);
            })
        }
        Source::SyslogUdp(address) => {
            let socket = UdpSocket::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            std::thread::spawn(move || {
                take_datagrams(
                    &address,
                    &socket,
                    |buffer| socket.recv(buffer),
                    &stop,
                    |datagram| {
                        lines.syslog.log(&lines.stream, datagram);
                        Ok(())
                    },
                );
            })
        }
        Source::SyslogTcp(address) => {
            let listener = TcpListener::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            // A connection that is gone before it is accepted must not be waited for.
            listener.set_nonblocking(true)?;
            std::thread::spawn(move || take_syslog_connections(&listener, &address, &lines, &stop))
        }
        Source::SyslogUnix(path) => {
            let left_over = UnixDatagram::unbound().and_then(|socket| socket.connect(&path)).err();
            remove_left_over(&path, left_over).map_err(|e| named(&path, e))?;
            let socket = UnixDatagram::bind(&path).map_err(|e| named(&path, e))?;
            std::thread::spawn(move || {
                let what = path.display().to_string();
                take_datagrams(
                    &what,
                    &socket,
                    |buffer| socket.recv(buffer),
                    &stop,
                    |datagram| {
                        lines.syslog.log(&lines.stream, datagram);
                        Ok(())
                    },
                );
            })
        }
    })
}

/// Removes a socket without a listener, as connecting to it has shown.
fn remove_left_over(path: &Path, connected: Option<io::Error>) -> io::Result<()> {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    let refused = connected.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if socket && refused { std::fs::remove_file(path) } else { Ok(()) }
}

/// Takes datagrams until it is to end and there are no more.
fn take_datagrams(
    what: &str,
    socket: &impl AsFd,
    receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    stop: &Stop,
    take: impl Fn(&[u8]) -> io::Result<()>,
) {
    let mut datagram = vec![0; 64 << 10];
    while stop.wait_for(socket.as_fd()).unwrap_or(false) {
        let taken = receive(&mut datagram).and_then(|n| take(&datagram[..n]));
        if taken.is_err() {
            tell(what, taken);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn tell(what: &str, outcome: io::Result<()>) {
    if let Err(e) = outcome {
        report(format_args!("logdag: {what}: {e}"));
    }
}

fn take_connections(listener: &UnixListener, what: &str, lines: &Lines, stop: &Stop) {
    let mut connections: Vec<std::thread::JoinHandle<()>> = Vec::new();
    while stop.wait_for(listener.as_fd()).unwrap_or(false) {
        connections.retain(|connection| !connection.is_finished());
        match listener.accept() {
            Ok((input, _)) => {
                let (lines, stop, what) = (lines.clone(), stop.clone(), what.to_owned());
                connections.push(std::thread::spawn(move || {
                    tell(&what, lines.take_until_told(Until::new(input, stop)))
                }));
            }
            Err(e) => {
                tell(what, Err(e));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    for connection in connections {
        // What it had to say it has said.
        let _ = connection.join();
    }
}

/// How many connections carry syslog to one address at a time.
const SYSLOG_CONNECTIONS: usize = 512;
/// The most bytes of one of their messages: that many may wait for each connection.
const SYSLOG_MESSAGE: usize = 256 << 10;
/// A connection that is silent for this long is asked whether its peer is still there.
const SYSLOG_KEEPALIVE: Duration = Duration::from_secs(60);

/// Takes messages of syslog of all who connect. Further connections are refused while there are too many.
fn take_syslog_connections(listener: &TcpListener, what: &str, lines: &Lines, stop: &Stop) {
    let mut connections: Vec<std::thread::JoinHandle<()>> = Vec::new();
    let mut refuses = false;
    while stop.wait_for(listener.as_fd()).unwrap_or(false) {
        connections.retain(|connection| !connection.is_finished());
        let accepted = listener.accept().and_then(|(input, peer)| {
            if connections.len() >= SYSLOG_CONNECTIONS {
                if !std::mem::replace(&mut refuses, true) {
                    let why = format!("{SYSLOG_CONNECTIONS} connections are open: further ones are refused");
                    tell(what, Err(io::Error::other(why)));
                }
                return Ok(());
            }
            refuses = false;
            // Peers that are gone without a word do not keep a place for ever.
            SockRef::from(&input).set_tcp_keepalive(&TcpKeepalive::new().with_time(SYSLOG_KEEPALIVE))?;
            let (lines, stop) = (lines.clone(), stop.clone());
            let take = move || tell(&peer.to_string(), take_syslog_messages(input, &lines, stop));
            connections.push(std::thread::Builder::new().spawn(take)?);
            Ok(())
        });
        match accepted {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(e) => {
                tell(what, Err(e));
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(()) => {}
        }
    }
    for connection in connections {
        // What it had to say it has said.
        let _ = connection.join();
    }
}

/// Takes messages until the connection ends, or until it is told to end. What is not whole is marked as cut.
fn take_syslog_messages(input: TcpStream, lines: &Lines, stop: Stop) -> io::Result<()> {
    let from = Until::new(input, stop);
    let told = Arc::clone(&from.told);
    for_each_syslog_message(from, lines.max_line.min(SYSLOG_MESSAGE), |message, whole| {
        let why = match (told.load(Ordering::Acquire), whole) {
            (true, _) => "logdag was told to end",
            (false, false) => "the connection ended",
            (false, true) => return lines.syslog.log(&lines.stream, message),
        };
        lines.syslog.log(&lines.stream, &[message, format!(" [cut here: {why}]").as_bytes()].concat());
    })
}

fn exec(
    (end_at_once, mut signals): (EndAtOnce, SignalsInfo<WithOrigin>),
    file: &Path,
    (stdout, stderr): (Option<String>, Option<String>),
    args: &LineArgs,
    http: &HttpArgs,
    command: &[std::ffi::OsString],
) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::SUCCESS) };
    // It answers until everything is written.
    let names: Vec<&str> = stdout.iter().chain(&stderr).map(String::as_str).collect();
    let (graph, _server) = open(file, &names, &args.switches, http)?;
    let out = stdout.map(|stream| Lines::new(&graph, &stream, args)).transpose()?;
    let err = stderr.map(|stream| Lines::new(&graph, &stream, args)).transpose()?;
    let pipe = |lines: &Option<Lines>| if lines.is_some() { Stdio::piped() } else { Stdio::inherit() };
    let spawned = Command::new(program).args(arguments).stdout(pipe(&out)).stderr(pipe(&err)).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            report(format_args!("logdag: cannot run {}: {e}", Path::new(program).display()));
            // As shells do.
            return Ok(ExitCode::from(if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 }));
        }
    };
    let pid = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw)?;
    notify::ping(&graph)?;
    notify::ready(&format!("Runs {}", Path::new(program).display()));
    let handle = signals.handle();
    let (again, configuration, switches) = (graph.clone(), file.to_owned(), args.switches.clone());
    let (gone, told_to_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_gone, end) = (Arc::clone(&gone), Arc::clone(&told_to_end));
    // The command was told to end, and so were we.
    let told_before = Arc::new(AtomicBool::new(false));
    let before = Arc::clone(&told_before);
    let forwarding = std::thread::spawn(move || {
        for origin in signals.forever() {
            let signal = origin.signal;
            if is_gone.load(Ordering::Acquire) {
                if matches!(signal, SIGTERM | SIGINT | SIGQUIT) {
                    end.store(true, Ordering::Release);
                }
                continue;
            }
            if signal == SIGHUP {
                // The log has said so.
                let _ = reload(&again, &configuration, &switches);
            }
            if matches!(signal, SIGTERM | SIGINT) {
                before.store(true, Ordering::Release);
            }
            if !(origin.cause == Cause::Kernel && has_it_too(pid, signal))
                && let Ok(signal) = nix::sys::signal::Signal::try_from(signal)
            {
                // It may have ended just now.
                let _ = nix::sys::signal::kill(pid, signal);
            }
        }
    });
    let mut taking = Vec::new();
    if let (Some(lines), Some(pipe)) = (out, child.stdout.take()) {
        taking.push(std::thread::spawn(move || lines.take_all(pipe)));
    }
    if let (Some(lines), Some(pipe)) = (err, child.stderr.take()) {
        taking.push(std::thread::spawn(move || lines.take_all(pipe)));
    }
    let status = child.wait()?;
    // The number of an ended process may be reused: from here on signals are for us.
    gone.store(true, Ordering::Release);
    notify::tell(&[NotifyState::Stopping]);
    end_at_once.count_from_here()?;
    let ended = Instant::now();
    for thread in taking {
        // The pipes end when every process that has them open does, or a signal ends the wait. One that ended the
        // command ends it after a while: a sink may not take what is there.
        let waits = || {
            let over = told_before.load(Ordering::Acquire) && ended.elapsed() >= LAST_LINES;
            !over && !told_to_end.load(Ordering::Acquire)
        };
        while !thread.is_finished() && waits() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished()
            && let Ok(Err(e)) = thread.join()
        {
            report(format_args!("logdag: {e}"));
        }
    }
    handle.close();
    let _ = forwarding.join();
    if let Err(e) = finish(&graph) {
        // The command's own end is what callers ask for.
        report(format_args!("logdag: {e}"));
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
