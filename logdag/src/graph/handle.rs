//! The handle of a graph, and how it shows its streams.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::error::GraphError;
use super::makers::makers;
use super::stream::{Stream, report_reentrant};
use super::streams::{Outlet, State, Streams, check_name};
use crate::fork;
use crate::format::{Flags, Format};
use crate::options::{StreamConfig, StreamOptions};
use crate::sink::{FdSink, SinkSpec};
use crate::slot::{Slot, go_sync};
use crate::sync::{Mutex, MutexGuard};

/// A graph of log streams. Cheap to clone: clones are the same graph.
///
/// ```
/// use logdag::{Graph, log};
///
/// let graph = Graph::new();
/// graph.add_memory("ring", 100, 10_000)?;
/// let access = graph.stream("http/access")?;
/// graph.add_outlet("http/access", "ring", Some("status >= 500"))?;
/// log!(access, status = 200; "GET {}", "/");
/// log!(access, status = 503; "GET {}", "/broken");
/// let lines = graph.memory_last("ring", 10).unwrap_or_default();
/// assert_eq!(lines.len(), 1);
/// assert_eq!(lines[0].bytes, b"GET /broken");
/// # Ok::<(), logdag::GraphError>(())
/// ```
#[derive(Clone)]
pub struct Graph {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) streams: Arc<Mutex<Streams>>,
    pub(super) names_changed: AtomicU64,
}

impl Inner {
    pub(super) fn streams(&self) -> Known<'_> {
        let inside = fork::enter();
        Known { streams: self.streams.lock(), _inside: inside }
    }
}

/// The state of a graph, locked for short times only.
pub(super) struct Known<'a> {
    streams: MutexGuard<'a, Streams>,
    _inside: fork::Inside,
}

impl Deref for Known<'_> {
    type Target = Streams;

    fn deref(&self) -> &Streams {
        &self.streams
    }
}

impl DerefMut for Known<'_> {
    fn deref_mut(&mut self) -> &mut Streams {
        &mut self.streams
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("streams", &self.names()).finish()
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// A graph with the built-in streams: `stderr`; `error`, `notice` and `debug` (disabled), which
    /// lead to it; and `error/stacktrace`, which leads to `error`.
    pub fn new() -> Self {
        let mut streams = Streams { makers: makers(), ..Streams::default() };
        let sink = SinkSpec { stream: "stderr".to_owned(), kind: "stderr".to_owned(), ..SinkSpec::default() };
        let flags = Flags { timestamps: true, ..Flags::default() };
        let options = StreamOptions { sink: Some(sink), flags, ..StreamOptions::default() };
        let stderr = streams.make("stderr");
        let spec = options.sink.clone().unwrap_or_default();
        stderr.slot = Some(Slot::new("stderr", Arc::new(FdSink::Stderr), spec, &options));
        stderr.options = options;
        for (name, to) in
            [("error", "stderr"), ("notice", "stderr"), ("debug", "stderr"), ("error/stacktrace", "error")]
        {
            let state = streams.make(name);
            state.outlets = vec![Outlet { to: to.to_owned(), filter: None, passes: Arc::default() }];
            state.options.enabled = name != "debug";
        }
        streams.resolve();
        let streams = Arc::new(Mutex::new(streams));
        fork::register(Arc::<Mutex<Streams>>::clone(&streams));
        Self { inner: Arc::new(Inner { streams, names_changed: AtomicU64::new(0) }) }
    }

    /// Its state, for this process.
    pub(super) fn streams(&self) -> Known<'_> {
        fork::renew_if_forked();
        self.inner.streams()
    }

    /// The stream of this name; created if missing, with an outlet to its parent.
    ///
    /// # Errors
    /// [`GraphError::Name`], [`GraphError::TooLarge`].
    pub fn stream(&self, name: &str) -> Result<Stream, GraphError> {
        check_name(name)?;
        let mut streams = self.streams();
        if let Some(state) = streams.by_name.get(name) {
            return Ok(Stream { node: Arc::clone(&state.node) });
        }
        let new = streams.missing(name);
        let node = Arc::clone(&streams.make(name).node);
        if let Err(e) = streams.measure([name]).map_err(GraphError::from) {
            streams.unmake(&new);
            return Err(e);
        }
        for name in new {
            streams.resolve_one(name);
        }
        Ok(Stream { node })
    }

    /// The stream of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<Stream> {
        let streams = self.streams();
        streams.by_name.get(name).map(|state| Stream { node: Arc::clone(&state.node) })
    }

    /// The names of all streams, sorted.
    pub fn names(&self) -> Vec<String> {
        self.streams().names(|_| true)
    }

    /// The names of all streams of a type, sorted.
    pub fn names_of_type(&self, kind: &str) -> Vec<String> {
        self.streams().names(|state| state.kind() == kind)
    }

    /// The names of all streams whose sinks get their lines in this format, sorted.
    pub fn names_of_format(&self, format: Format) -> Vec<String> {
        self.streams().names(|state| !state.kind().is_empty() && state.options.format == format)
    }

    /// The current configuration of all streams, sorted by name. Properties that were set are part
    /// of their sinks' `<config>`.
    pub fn configs(&self) -> Vec<StreamConfig> {
        let streams = self.streams();
        let config = |(name, state): (&String, &State)| StreamConfig {
            name: name.clone(),
            options: StreamOptions { sink: state.spec(), ..state.options.clone() },
            outlets: state
                .outlets
                .iter()
                .map(|outlet| (outlet.to.clone(), outlet.filter.as_deref().cloned()))
                .collect(),
        };
        streams.by_name.iter().map(config).collect()
    }

    /// The options of a stream.
    pub fn options(&self, name: &str) -> Option<StreamOptions> {
        self.streams().by_name.get(name).map(|state| state.options.clone())
    }

    /// Counts how often the stream of a name has changed.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn names_changed(&self) -> u64 {
        self.inner.names_changed.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The property of a stream with this key: from its `<config>`, or set later.
    pub fn property(&self, name: &str, key: &str) -> Option<String> {
        let streams = self.streams();
        let state = streams.by_name.get(name)?;
        let config = state.options.sink.as_ref().and_then(|sink| sink.config.get(key));
        state.properties.get(key).or(config).cloned()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a child, leave the parent's sinks alone.
        fork::renew_if_forked();
        let slots = self.streams().slots();
        go_sync(&slots);
        report_reentrant(0);
        let streams = self.streams();
        streams.report_unregistered();
    }
}
