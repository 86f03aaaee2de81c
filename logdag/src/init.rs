//! One call to set up logging for a whole program, and one to reload its configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError};
use crate::graph::{DrainAtEnd, Graph, GraphError};
#[cfg(any(feature = "log", feature = "tracing"))]
use crate::install::{InstallError, install};
use crate::level::{Level, Levels};
use crate::patience;

/// Environment variables with the levels of streams; the first one that is set counts.
const LEVELS: [&str; 2] = ["LOGDAG_LOG", "RUST_LOG"];

/// Why logging could not be set up or reloaded.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The configuration is wrong, or a sink cannot be opened.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A sink cannot be reopened.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The program has a logger or a subscriber already.
    #[cfg(any(feature = "log", feature = "tracing"))]
    #[error(transparent)]
    Install(#[from] InstallError),
    /// No more threads, or no more handlers of signals.
    #[error("cannot wait for SIGHUP: {0}")]
    Signal(std::io::Error),
}

/// The text, because `main` shows an error in this form.
impl fmt::Debug for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Sets up logging for a program from a configuration in TOML or XML, as a graph with queues. With
/// the features `tracing` and `log`, lines that the program logs with these crates go to it. Panics
/// are logged to the stream `error`. The variable `LOGDAG_LOG`, or else `RUST_LOG`, sets levels
/// (`web=debug,db::pool=warn`; see [`Levels`]). Warnings about the configuration or an invalid
/// variable are logged to the stream `notice`.
///
/// Keep the returned guard until the end of `main`, where it writes what waits in queues.
///
/// ```no_run
/// let logging = logdag::init("web.toml")?;
/// let web = logging.graph().stream("web")?;
/// logdag::log!(web, status = 503, path = "/page/4"; "request");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`InitError::Config`]; `InitError::Install` if the program has a logger or a subscriber already.
/// Nothing is changed then.
pub fn init(config: impl AsRef<Path>) -> Result<Guard, InitError> {
    let path = config.as_ref();
    let config = Config::from_file(path)?;
    let graph = Graph::new();
    config.apply(&graph)?;
    // Absolute, so that it stays the same file if the working directory changes.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    #[cfg(any(feature = "log", feature = "tracing"))]
    let drain = install(&graph)?;
    #[cfg(not(any(feature = "log", feature = "tracing")))]
    let drain = graph.drain_at_end();
    for warning in config.warnings() {
        graph.say("notice", Level::Warn, &format_args!("logdag: {warning}"));
    }
    graph.take_levels();
    graph.go_async();
    if let Ok(error) = graph.stream("error") {
        graph.log_panics(&error);
    }
    Ok(Guard { drain: Some(drain), graph, path })
}

/// The guard of [`init`], which writes what waits in queues when it is dropped.
#[derive(Debug)]
#[must_use = "queued lines are written when this is dropped"]
pub struct Guard {
    graph: Graph,
    path: PathBuf,
    drain: Option<DrainAtEnd>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.drain = None;
        self.graph.report_unheard();
    }
}

impl Guard {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Reloads the configuration, as [`Graph::reload`] does.
    ///
    /// # Errors
    /// Those of [`Graph::reload`].
    pub fn reload(&self) -> Result<(), InitError> {
        self.graph.reload(&self.path)
    }

    /// From now on, SIGHUP reloads the configuration and reopens files, which is all that
    /// logrotate's `postrotate` needs. It no longer ends the program, even when its terminal is
    /// closed.
    ///
    /// # Errors
    /// [`InitError::Signal`].
    #[cfg(feature = "signals")]
    pub fn reload_on_hangup(&self) -> Result<(), InitError> {
        let signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP]);
        let mut signals = signals.map_err(InitError::Signal)?;
        let (graph, path) = (self.graph.clone(), self.path.clone());
        let wait = move || {
            for _ in signals.forever() {
                // Its error is in the log.
                let _ = graph.reload(&path);
            }
        };
        let thread = std::thread::Builder::new().name("log-hangup".to_owned()).spawn(wait);
        thread.map(|_| ()).map_err(InitError::Signal)
    }
}

impl Graph {
    /// Reads a configuration and replaces the previous one, as [`Config::replace`] does, then
    /// reopens files that were moved away. Every type must be registered by now. If the
    /// configuration is invalid, the old one stays in force, the error is logged to the stream
    /// `error`, and files are reopened nevertheless (those that are being written to, at the end of
    /// the write).
    ///
    /// # Errors
    /// [`InitError::Config`]; [`InitError::Graph`] if a sink cannot be reopened.
    pub fn reload(&self, config: impl AsRef<Path>) -> Result<(), InitError> {
        self.reload_with(config, |_| {})
    }

    /// The same, with changes to the configuration before it is applied.
    ///
    /// # Errors
    /// Those of [`reload`](Graph::reload).
    pub fn reload_with(
        &self,
        config: impl AsRef<Path>,
        change: impl FnOnce(&mut Config),
    ) -> Result<(), InitError> {
        let path = config.as_ref();
        let replace = || {
            let mut config = Config::from_file(path)?;
            change(&mut config);
            config.check_any()?;
            config.check_types(self)?;
            config.replace(self)?;
            for warning in config.warnings() {
                self.say("notice", Level::Warn, &format_args!("logdag: {warning}"));
            }
            Ok::<(), ConfigError>(())
        };
        let replaced = replace().map_err(InitError::from);
        if let Err(e) = &replaced {
            let text = format_args!("logdag: the configuration stays as it was: {e}");
            self.say("error", Level::Error, &text);
        }
        // The caller learns at once that it was refused.
        let reopened = if replaced.is_ok() { self.reopen() } else { self.reopen_at_once() };
        let reopened = reopened.map_err(InitError::from);
        if let Err(e) = &reopened {
            self.say("error", Level::Error, &format_args!("logdag: {e}"));
        }
        replaced.and(reopened)
    }

    /// Applies the levels of the environment, if there are any.
    fn take_levels(&self) {
        let set = |name| Some((name, std::env::var(name).ok().filter(|text| !text.trim().is_empty())?));
        let Some((name, text)) = LEVELS.into_iter().find_map(set) else { return };
        match text.parse::<Levels>() {
            Ok(levels) => self.set_levels(levels),
            // A mistake in a variable must not stop a service.
            Err(e) => self.say("notice", Level::Warn, &format_args!("logdag: {name} is ignored: {e}")),
        }
    }

    /// Reports something about logging in the log or, if that leads nowhere, on stderr.
    fn say(&self, stream: &str, level: Level, text: &fmt::Arguments<'_>) {
        match self.stream(stream) {
            Ok(stream) if stream.accepts(level) => stream.report(level, text),
            // There is nowhere else to report it.
            _ => patience::report(format!("{text}\n").as_bytes()),
        }
    }
}
