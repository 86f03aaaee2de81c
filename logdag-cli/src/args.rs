//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use jlog_watch::{Address, AddressError, Server, Tls, Token, Watch};
use logdag::Graph;
use logdag::config::{Config, ConfigError, Http};
use logdag::input::{JsonLines, SyslogMessages};

use crate::{Failure, ctl, report};

/// Named log streams, filters and sinks from a configuration, without a line of code
#[derive(Debug, Parser)]
#[command(name = "logdag", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Check a configuration without opening anything
    ///
    /// On an error, the exit status is 1. A warning means that something is valid but probably not
    /// intended.
    Check {
        /// The configuration
        file: PathBuf,
        /// Treat warnings as errors: exit with status 1
        #[arg(long)]
        strict: bool,
        /// A type of sink that the application registers, so that it is not reported as unknown;
        /// may be given several times
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Show the graph that a configuration makes, without opening anything
    Graph {
        /// The configuration
        file: PathBuf,
        /// Print input for the command `dot`
        #[arg(long)]
        dot: bool,
        /// Print one JSON object per line for each stream
        #[arg(long, conflicts_with = "dot")]
        json: bool,
    },
    /// Show lines of files in the format `flatbuffer` as JSON objects, one per line
    ///
    /// For feeds in this format, use `jlog read -o logline`.
    Decode {
        /// The files; standard input if there are none
        files: Vec<PathBuf>,
    },
    /// Query or change the streams of a process that answers over HTTP (`logdag run` or `exec` with
    /// --http, or a program with jlog-watch)
    ///
    /// The commands of libmtev's console: show log NAME [LINES]; log details NAME; log to NAME
    /// TEXT; log connect NAME OUTLET [FILTER], with `-` for OUTLET to show the lines here; log
    /// disconnect NAME OUTLET; [no] log enable|debug|facility|timestamps NAME. Besides these: list;
    /// config, which prints the configuration as it is now; [no] log level|keys|target|source NAME;
    /// log rotate NAME; log reopen NAME; reload; verify FEED; show verify FEED. The process refuses
    /// changes unless it runs with --control.
    Ctl(ctl::CtlArgs),
    /// Log lines from inputs, until they end or a signal arrives
    ///
    /// SIGHUP reloads the configuration and reopens files; an invalid configuration is refused, and
    /// its error is logged to the stream `error`. On SIGTERM and SIGINT, logdag writes everything
    /// and ends; a second one ends it at once.
    Run {
        /// The configuration
        file: PathBuf,
        /// Which lines go to which stream: STREAM=stdin, STREAM=fifo:PATH, STREAM=unix:PATH or
        /// STREAM=udp:127.0.0.1:PORT; syslog messages (RFC 5424 and 3164):
        /// STREAM=syslog-udp:127.0.0.1:PORT, STREAM=syslog-tcp:127.0.0.1:PORT (RFC 6587, up to 512
        /// connections) or STREAM=syslog-unix:PATH, a datagram socket like /dev/log
        #[arg(long = "in", value_name = "STREAM=SOURCE", required = true, value_parser = source)]
        inputs: Vec<(String, Source)>,
        #[command(flatten)]
        lines: LineArgs,
        #[command(flatten)]
        http: HttpArgs,
    },
    /// Run a command and log its output; exit with its status
    ///
    /// Signals are passed on to the command. SIGHUP also reloads the configuration and reopens
    /// files, but it ends most commands; logdag notices moved files without it. After the command
    /// has ended, logdag continues to take lines until no other process has its outputs open, or
    /// until SIGTERM or SIGINT arrives. If one of these signals ended the command, logdag waits
    /// for at most 5 seconds. A second signal ends logdag at once. Signals that were ignored at the
    /// start (for example by `nohup`) stay ignored.
    ///
    /// A last line without a line end is logged as it is if the command ended by itself. If a
    /// signal killed the command, the line gets the mark `[cut here: …]`.
    Exec {
        /// The configuration
        file: PathBuf,
        /// The stream for its standard output; without this option, the output is not captured
        #[arg(long, value_name = "STREAM")]
        stdout: Option<String>,
        /// The stream for its standard error; without this option, the output is not captured
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

/// Whether to answer over HTTP. The configuration can say the same, but counts only at the start.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HttpArgs {
    /// Serve the state of streams and their feeds over HTTP (metrics, health, lines of memory
    /// streams), at 127.0.0.1:PORT, unix:PATH, or, with a token or client certificates, any address
    #[arg(long, value_name = "ADDRESS")]
    http: Option<Address>,
    /// Answer only clients that send the token in this file (Authorization: Bearer TOKEN)
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<PathBuf>,
    /// Answer over TLS, with this certificate and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answer only clients with a certificate that one of these authorities has issued, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Let clients change streams and subscribers over HTTP; needs a token file, client
    /// certificates, or a Unix socket
    #[arg(long)]
    control: bool,
}

impl HttpArgs {
    /// A server, if the command line or the configuration asks for one. It prints its address on
    /// standard error, because the system may have chosen the port.
    pub(crate) fn serve(
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
                let why = "--http-token-file, --tls-cert and --control need an address: give --http, too";
                return Err(why.into());
            }
            (None, None) => return Ok(None),
        };
        let mut watch = Watch::new().graph("", graph.clone());
        for stream in graph.describe_all().into_iter().filter(|stream| stream.kind == "jlog") {
            // The subscribers follow the directory.
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
        report(format_args!("logdag: listening on {}", server.url()));
        Ok(Some(server))
    }

    /// The TLS settings of the command line, or else of the configuration.
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
pub(crate) fn http_address(config: &Config, http: &Http) -> Result<Address, ConfigError> {
    http.address.parse().map_err(|e: AddressError| config.http_error(e.to_string()))
}

/// How lines are read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LineArgs {
    /// Parse lines that are JSON objects as events; the message is the value of KEY (by default:
    /// message, msg or event)
    ///
    /// Filters see nested keys, too (`user.id`). The line gets the event's level (level
    /// or severity) and its time (timestamp, @timestamp, time or ts). A key that has the name of a
    /// field of the output format gets the prefix `original_` (json: timestamp, facility, threadid,
    /// threadname, file, line, message; event: timestamp, level, event, stream).
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    json_field: Option<String>,
    /// Add the time of arrival, as the key `received`, to lines that have a time of their own:
    /// syslog messages, and events with --json-field
    #[arg(long)]
    received: bool,
    #[command(flatten)]
    pub(crate) switches: Switches,
    /// Split longer lines at this length, in bytes
    #[arg(long, value_name = "BYTES", default_value = "16777216")]
    pub(crate) max_line: NonZeroUsize,
}

impl LineArgs {
    /// How lines that may be JSON objects are read.
    pub(crate) fn json(&self) -> Option<JsonLines> {
        let lines = match &**self.json_field.as_ref()? {
            "" => JsonLines::new(),
            key => JsonLines::new().message_key(key),
        };
        Some(if self.received { lines.keep_received() } else { lines })
    }

    /// How syslog messages are logged.
    pub(crate) fn syslog(&self) -> SyslogMessages {
        let messages = SyslogMessages::new();
        if self.received { messages.keep_received() } else { messages }
    }

    /// Ends the process if an argument has no effect.
    pub(crate) fn check(&self, has_syslog: bool) {
        if self.received && self.json_field.is_none() && !has_syslog {
            let why = "--received has no effect: no line has a time of its own without --json-field or \
                       a syslog input\n";
            Args::command().error(ErrorKind::MissingRequiredArgument, why).exit();
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Stdin,
    Fifo(PathBuf),
    Unix(PathBuf),
    Udp(String),
    SyslogUdp(String),
    SyslogTcp(String),
    SyslogUnix(PathBuf),
}

impl Source {
    pub(crate) fn is_syslog(&self) -> bool {
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

/// Streams that are enabled and disabled, whatever the configuration says.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Switches {
    /// Enable this stream, even if the configuration disables it
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

    pub(crate) fn change(&self, config: &mut Config) {
        for (name, enabled) in self.all() {
            config.set_enabled(name, enabled);
        }
    }

    /// Warns about names that no line can have: they are neither a stream, nor an input, nor a
    /// parent of an input.
    pub(crate) fn check(&self, graph: &Graph, inputs: &[&str]) {
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

    /// Names of streams that no configuration declares.
    pub(crate) fn apply(&self, graph: &Graph) -> Result<(), Failure> {
        for (name, enabled) in self.all() {
            graph.stream(name)?;
            graph.set_enabled(name, enabled)?;
        }
        Ok(())
    }
}
