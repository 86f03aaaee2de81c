//! A configuration that was read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::element::Place;
use super::error::{ConfigError, Result, unreadable};
use crate::graph::{ApplyError, Graph};
use crate::options::StreamConfig;
use crate::redact::Redaction;
use crate::suggest::did_you_mean;

/// The built-in types.
pub(super) const BUILT_IN_TYPES: &[&str] =
    &["file", "file_synch", "memory", "jlog", "stdout", "stderr", "fd", "syslog", "journald", "metric"];

/// A configuration that was read and checked.
#[derive(Debug)]
pub struct Config {
    /// In document order.
    pub(super) streams: Vec<StreamConfig>,
    pub(super) places: Vec<Place>,
    /// Streams that are left out, and what they require of the environment.
    pub(super) left_out: Vec<(String, String)>,
    pub(super) warnings: Vec<ConfigError>,
    /// What no stream may write.
    pub(super) redaction: Redaction,
    /// Where to serve HTTP, and the place of that setting.
    pub(super) http: Option<(Http, Place)>,
}

/// Settings for serving HTTP: an `<http>` below the root or in `<logs>`, or the table `[http]`.
/// This library has no server; the command `logdag` does, and programs can use the crate
/// jlog-watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http {
    /// The address to listen at, as written.
    pub address: String,
    /// The file with the token that clients must send.
    pub token_file: Option<PathBuf>,
    /// The certificate and its chain for TLS. It is given together with the private key.
    pub tls_cert: Option<PathBuf>,
    /// The private key.
    pub tls_key: Option<PathBuf>,
    /// The certificate authorities; clients must have a certificate from one of them.
    pub tls_client_ca: Option<PathBuf>,
    /// Host names that clients without a token may use for the server (`allow_host`, separated by
    /// commas).
    pub allow_hosts: Vec<String>,
}

impl Config {
    /// The streams, in document order.
    pub fn streams(&self) -> &[StreamConfig] {
        &self.streams
    }

    /// The settings for serving HTTP, if there are any.
    pub fn http(&self) -> Option<&Http> {
        self.http.as_ref().map(|(http, _)| http)
    }

    /// Makes an error about the HTTP settings, with their place.
    pub fn http_error(&self, why: impl Into<String>) -> ConfigError {
        let why = why.into();
        self.http
            .as_ref()
            .map_or_else(|| unreadable(Path::new(""), why.clone()), |(_, place)| place.error(&*why))
    }

    /// The streams that the environment leaves out, with the condition (`require_env`) that does
    /// not hold.
    pub fn left_out(&self) -> &[(String, String)] {
        &self.left_out
    }

    /// What no sink may get, whatever streams a line comes through.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// Enables or disables a stream, whatever the configuration says. Returns whether the
    /// configuration declares the stream.
    pub fn set_enabled(&mut self, name: &str, enabled: bool) -> bool {
        let stream = self.streams.iter_mut().find(|stream| stream.name == name);
        stream.map(|stream| stream.options.enabled = enabled).is_some()
    }

    /// What is valid but may not be what was meant: names that mean nothing but resemble ones that
    /// do, values that are ignored, outlets that lead nowhere. In document order.
    pub fn warnings(&self) -> &[ConfigError] {
        &self.warnings
    }

    /// What is missing or in the way on this machine at the moment, each at the first stream that
    /// needs it: directories of files that `make_dirs` does not make, the users and groups that
    /// files will belong to, and directories at the paths of files.
    pub fn missing(&self) -> Vec<ConfigError> {
        let mut known = BTreeSet::new();
        let mut known_names = BTreeSet::new();
        let mut missing = Vec::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let (name, Some(sink)) = (&stream.name, &stream.options.sink) else { continue };
            for e in sink.access.missing() {
                if known_names.insert(e.to_string()) {
                    missing.push(place.error(format!("{e}, which should own the log {name:?}")));
                }
            }
            for why in crate::sink::in_the_way(sink) {
                missing.push(place.error(format!("the log {name:?}: {why}")));
            }
            for (n, dir) in crate::sink::directories(sink).into_iter().enumerate() {
                let can_be_made = || dir.ancestors().find(|dir| dir.exists()).is_none_or(Path::is_dir);
                if !known.insert(dir.clone()) || dir.is_dir() || (sink.make_dirs && can_be_made()) {
                    continue;
                }
                missing.push(place.error(format!(
                    "the directory {}{} of the log {name:?} is missing: create it, or set make_dirs=\"on\"",
                    dir.display(),
                    if n > 0 { " for rotated files" } else { "" },
                )));
            }
            // If the directory is made for the file, it will exist.
            if let Some(dir) = crate::sink::directory_of_latest(sink)
                && known.insert(dir.clone())
                && !dir.is_dir()
            {
                let dir = dir.display();
                missing.push(place.error(format!(
                    "the directory {dir} for the link \"latest\" of the log {name:?} is missing: create it"
                )));
            }
        }
        missing
    }

    /// Tries the outlets on a separate graph without sinks.
    pub(super) fn check_outlets(&self) -> Result<()> {
        let bare = self.streams.iter().cloned().map(|mut stream| {
            stream.options.sink = None;
            stream
        });
        Graph::new().apply(bare.collect()).map_err(|e| self.error_of(&e))
    }

    fn error_of(&self, error: &ApplyError) -> ConfigError {
        match error.index.and_then(|stream| self.places.get(stream)) {
            Some(place) => place.error(error.to_string()),
            None => unreadable(Path::new(""), error.to_string()),
        }
    }

    /// Sets up a graph: all of it or, if a sink cannot be opened, nothing. A stream whose type is
    /// not registered yet gets its sink once [`Graph::register`] has registered the type; see
    /// [`Graph::unregistered`].
    ///
    /// # Errors
    /// A sink that cannot be opened.
    pub fn apply(&self, graph: &Graph) -> Result<()> {
        self.check_sinks()?;
        self.with_redaction(graph, || graph.apply(self.streams.clone()))
    }

    /// Replaces all configurations that were applied before, as [`Graph::replace`] does.
    ///
    /// # Errors
    /// A sink that cannot be opened; then nothing changes.
    pub fn replace(&self, graph: &Graph) -> Result<()> {
        self.check_sinks()?;
        self.with_redaction(graph, || graph.replace(self.streams.clone()))
    }

    /// Sets up streams together with their redaction, so that no line is written in between.
    fn with_redaction(
        &self,
        graph: &Graph,
        set_up: impl FnOnce() -> std::result::Result<(), ApplyError>,
    ) -> Result<()> {
        let before = graph.redaction();
        graph.set_redaction(before.union(&self.redaction));
        let done = set_up();
        graph.set_redaction(if done.is_ok() { self.redaction.clone() } else { before });
        done.map_err(|e| self.error_of(&e))
    }

    fn check_sinks(&self) -> Result<()> {
        let mut metrics = BTreeMap::new();
        for (stream, place) in self.streams.iter().zip(&self.places) {
            if let Some(sink) = &stream.options.sink {
                crate::sink::check(sink).map_err(|why| place.error(why))?;
                if sink.kind == "metric"
                    && let Some(other) = metrics.insert(&*sink.path, &*stream.name)
                {
                    let why = format!("the log {other:?} already has a metric named {:?}", sink.path);
                    return Err(place.error(why));
                }
            }
        }
        Ok(())
    }

    /// Refuses a configuration without streams: as a replacement for another one, it is more likely
    /// a file that is still being written.
    pub(crate) fn check_any(&self) -> Result<()> {
        if !self.streams.is_empty() || !self.left_out.is_empty() {
            return Ok(());
        }
        let first = self.warnings.first().cloned();
        Err(first.unwrap_or_else(|| unreadable(Path::new(""), "it configures nothing".to_owned())))
    }

    /// Checks that every type is registered, for programs that register none later.
    ///
    /// # Errors
    /// The first type that is not registered, or what a sink needs and does not have.
    pub fn check_types(&self, graph: &Graph) -> Result<()> {
        for (stream, place) in self.streams.iter().zip(&self.places) {
            let Some(sink) = &stream.options.sink else { continue };
            if !graph.has_type(&sink.kind) {
                return Err(place.error(format!(
                    "unknown type {:?}: expected {}, or a type that the application registers{}",
                    sink.kind,
                    BUILT_IN_TYPES.join(", "),
                    did_you_mean(&sink.kind, BUILT_IN_TYPES)
                )));
            }
        }
        self.check_sinks()
    }
}
