//! Streams and what connects them.

mod description;
mod ending;
#[cfg(not(feature = "shuttle"))]
pub(crate) mod fork;
#[cfg(feature = "shuttle")]
#[path = "fork_unchecked.rs"]
pub(crate) mod fork;
mod options;
mod reports;
mod sinks;
mod stream;
mod streams;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filter::{Filter, FilterError};
use crate::format::{Flags, Format};
use crate::level::Levels;
use crate::record::{Record, While};
use crate::redact::Redaction;
use crate::route::{Hooks, RecordHook, Route, TextHook};
use crate::sink::{FdSink, Sink, SinkSpec, Slot};
use crate::speculation::Speculation;
use crate::sync::{Mutex, MutexGuard};

pub use description::{FilterStats, StreamInfo};
pub use ending::DrainAtEnd;
pub use options::{ApplyError, StreamConfig, StreamOptions};
use sinks::{go_sync, makers};
pub use stream::Stream;
#[cfg(any(feature = "log", feature = "tracing"))]
pub(crate) use stream::count_reentrant;
use stream::report_reentrant;
pub(crate) use streams::MAX_NAME;
use streams::{MAX_DEPTH, MAX_WAYS, Outlet, State, Streams, check_name};

/// Why the graph could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is no stream of this name.
    #[error("there is no log stream {0:?}")]
    UnknownStream(String),
    /// There is one already.
    #[error("there is a log stream {0:?} already")]
    StreamExists(String),
    /// A stream cannot have this name.
    #[error(
        "{0:?} cannot name a log stream: it is empty, longer than {MAX_NAME} bytes, or has an empty part or a control character"
    )]
    Name(String),
    /// The edge would close a cycle.
    #[error("an outlet from {from:?} to {to:?} would close a cycle: {path}")]
    Cycle {
        /// The stream that the edge leaves.
        from: String,
        /// The stream that it leads to.
        to: String,
        /// The cycle, by names.
        path: String,
    },
    /// Lines of this stream would go too far.
    #[error(
        "lines of the log stream {0:?} would pass more than {MAX_DEPTH} streams in a row, or take more than {MAX_WAYS} ways"
    )]
    TooLarge(String),
    /// The filter of an outlet is wrong.
    #[error("the filter: {0}")]
    Filter(#[from] FilterError),
    /// A sink cannot be opened, or not do what it is to.
    #[error("log stream {stream:?} of type {kind}: {source}")]
    Sink {
        /// The stream.
        stream: String,
        /// Its type.
        kind: String,
        /// Why.
        source: io::Error,
    },
    /// Several sinks cannot do what they are to.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<GraphError>),
}

impl GraphError {
    /// All errors as one; `Ok` where there is none.
    fn all(outcomes: impl Iterator<Item = Result<(), GraphError>>) -> Result<(), GraphError> {
        let mut errors: Vec<_> = outcomes.filter_map(Result::err).collect();
        match errors.pop() {
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(GraphError::Several(errors))
            }
            None => Ok(()),
        }
    }
}

/// Makes a sink from its spec.
type Maker = Arc<dyn Fn(&SinkSpec) -> io::Result<Arc<dyn Sink>> + Send + Sync>;

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
    inner: Arc<Inner>,
}

struct Inner {
    streams: Arc<Mutex<Streams>>,
    names_changed: AtomicU64,
}

impl Inner {
    fn streams(&self) -> Known<'_> {
        let inside = fork::enter();
        Known { streams: self.streams.lock(), _inside: inside }
    }
}

/// What a graph knows, locked; for moments only.
struct Known<'a> {
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
    /// A graph with the streams that are always there: `stderr`, and `error`, `notice` and `debug` (disabled), which
    /// lead to it, and `error/stacktrace`, which leads to `error`.
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
        fork::register(&streams);
        Self { inner: Arc::new(Inner { streams, names_changed: AtomicU64::new(0) }) }
    }

    /// What it knows, of this process.
    fn streams(&self) -> Known<'_> {
        fork::renew_if_forked();
        self.inner.streams()
    }

    /// The stream of this name; made where it is not there, with an outlet to the stream that its name is below.
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

    /// The stream of this name, if it is there.
    pub fn find(&self, name: &str) -> Option<Stream> {
        let streams = self.streams();
        streams.by_name.get(name).map(|state| Stream { node: Arc::clone(&state.node) })
    }

    /// The names of all streams, in order.
    pub fn names(&self) -> Vec<String> {
        self.streams().names(|_| true)
    }

    /// The names of all streams of a type, in order.
    pub fn names_of_type(&self, kind: &str) -> Vec<String> {
        self.streams().names(|state| state.kind() == kind)
    }

    /// The names of all streams whose sinks get their lines in this format, in order.
    pub fn names_of_format(&self, format: Format) -> Vec<String> {
        self.streams().names(|state| !state.kind().is_empty() && state.options.format == format)
    }

    /// All streams as they are now, in the order of names: what was put down about them is part of their sinks' `<config>`.
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

    /// What a stream is, as it was set up.
    pub fn options(&self, name: &str) -> Option<StreamOptions> {
        self.streams().by_name.get(name).map(|state| state.options.clone())
    }

    /// Sets up a stream: it is made where it is not there, and its outlets stay. A sink that it had is closed when the
    /// last line is through.
    ///
    /// # Errors
    /// [`GraphError::Name`], [`GraphError::TooLarge`]; [`GraphError::Sink`]: nothing is changed then.
    pub fn configure(&self, name: &str, options: StreamOptions) -> Result<Stream, GraphError> {
        check_name(name)?;
        let slot = self.make_slot(name, &options, options.sink.as_ref(), None)?;
        self.stream(name)?;
        Self::begin(name, &options, slot.as_ref())?;
        Ok(self.set(name, options, slot))
    }

    fn set(&self, name: &str, options: StreamOptions, slot: Option<Arc<Slot>>) -> Stream {
        let _busy = While::busy();
        let mut streams = self.streams();
        if let Some(slot) = slot.as_ref().filter(|_| streams.asynchronous) {
            slot.go_async();
        }
        let new = streams.missing(name);
        let state = streams.make(name);
        state.options = options;
        let stream = Stream { node: Arc::clone(&state.node) };
        let old = std::mem::replace(&mut state.slot, slot.clone());
        // What the old one was given comes first: both may write to one file.
        let held = slot.as_ref().map(|slot| slot.hold());
        new.into_iter().for_each(|name| streams.resolve_one(name));
        streams.resolve_from(name);
        drop(streams);
        self.replace_sinks(vec![(old, held)]);
        stream
    }

    /// Sets up several streams: all of them, or, where a sink cannot be opened, none. Each has exactly the outlets that
    /// the list gives it, and loses those that it had. Streams that are not in the list stay as they are.
    ///
    /// # Errors
    /// The stream that cannot be set up, and what [`configure`](Graph::configure) or [`connect`](Graph::connect) says.
    pub fn apply(&self, list: Vec<StreamConfig>) -> Result<(), ApplyError> {
        let turns = Arc::clone(&self.streams().turns);
        let _one_at_a_time = turns.configuring.lock();
        let declared = list.len();
        let directory = std::env::current_dir().ok();
        self.set_up(list, declared, directory).map_err(|(n, error)| ApplyError { index: Some(n), error })
    }

    /// Sets up several streams in place of those that [`apply`](Graph::apply) and this method set up before: all
    /// of them, or none if a sink cannot be opened. Streams that are no longer in the list are restored to what
    /// they were before. Those that are in it unchanged stay as they are, including later changes
    /// (such as [`set_enabled`](Graph::set_enabled)); sinks that need not change stay open. No line is lost or
    /// written twice. Relative paths are those of the first list: they lead where they would have led then, also after the
    /// process has changed its working directory.
    ///
    /// # Errors
    /// The stream that cannot be set up, and what [`configure`](Graph::configure) or [`connect`](Graph::connect) says.
    pub fn replace(&self, list: Vec<StreamConfig>) -> Result<(), ApplyError> {
        let turns = Arc::clone(&self.streams().turns);
        let _one_at_a_time = turns.configuring.lock();
        let (undeclared, changed, directory) = {
            let streams = self.streams();
            let changed = list.iter().map(|configured| !streams.declares_as_before(configured));
            (streams.undeclared(&list), changed.collect::<Vec<bool>>(), streams.directory.clone())
        };
        let directory = directory.or_else(|| std::env::current_dir().ok());
        let places: Vec<usize> = (0..list.len()).filter(|&n| changed[n]).collect();
        let mut list: Vec<StreamConfig> =
            list.into_iter().zip(&changed).filter_map(|(one, &changed)| changed.then_some(one)).collect();
        let declared = list.len();
        list.extend(undeclared);
        self.set_up(list, declared, directory)
            .map_err(|(n, error)| ApplyError { index: places.get(n).copied(), error })
    }

    /// From `undeclared` on, the streams of the list go back to what they were before. Relative paths are those of a
    /// directory.
    fn set_up(
        &self,
        list: Vec<StreamConfig>,
        undeclared: usize,
        directory: Option<PathBuf>,
    ) -> Result<(), (usize, GraphError)> {
        // Everything that can be checked without opening a sink is checked first.
        let mut tried = self.streams().clone();
        tried.connect_all(&list, undeclared)?;
        // An unchanged sink stays open, so that nothing that it holds is lost or written out of order.
        let stays = |streams: &Streams, StreamConfig { name, options, .. }: &StreamConfig| {
            let state = streams.by_name.get(name);
            state.is_some_and(|state| state.slot.is_some() && state.options.same_sink(options))
        };
        let mut slots = Vec::new();
        for (n, configured) in list.iter().enumerate() {
            let StreamConfig { name, options, .. } = configured;
            let slot = if stays(&tried, configured) {
                None
            } else if let Some((sink, spec)) =
                tried.by_name.get(name).and_then(|state| state.reusable_sink(options))
            {
                Some(Slot::new(name, sink, spec, options))
            } else {
                self.make_slot(name, options, options.sink.as_ref(), directory.as_deref())
                    .map_err(|e| (n, e))?
            };
            slots.push(slot);
        }
        for (n, (StreamConfig { name, options, .. }, slot)) in list.iter().zip(&slots).enumerate() {
            Self::begin(name, options, slot.as_ref()).map_err(|e| (n, e))?;
        }
        let _busy = While::busy();
        let mut streams = self.streams();
        // Others may have changed the graph in the meantime.
        let mut next = streams.clone();
        next.connect_all(&list, undeclared)?;
        let mut replaced = Vec::new();
        for (configured, slot) in list.into_iter().zip(&slots) {
            if slot.is_none() && stays(&next, &configured) {
                next.make(&configured.name).options = configured.options;
                continue;
            }
            let StreamConfig { name, mut options, .. } = configured;
            let held = slot.as_ref().map(|slot| {
                if next.asynchronous {
                    slot.go_async();
                }
                slot.hold()
            });
            let state = next.make(&name);
            // What says nothing of a sink leaves the built-in one its own.
            if options.sink.is_none() && name == "stderr" {
                options.sink = state.options.sink.take();
                if let Some(sink) = options.sink.as_ref().filter(|sink| sink.kind == "stderr") {
                    let new = Slot::new(&sink.stream, Arc::new(FdSink::Stderr), sink.clone(), &options);
                    replaced.push((state.slot.replace(new), held));
                }
            } else {
                replaced.push((std::mem::replace(&mut state.slot, slot.clone()), held));
            }
            state.options = options;
        }
        next.resolve();
        next.directory = directory;
        *streams = next;
        drop(streams);
        self.report_in_time();
        self.replace_sinks(replaced);
        Ok(())
    }

    /// Removes a stream, and every outlet to it; returns whether it existed. Lines to handles of it are dropped.
    pub fn remove(&self, name: &str) -> bool {
        let mut streams = self.streams();
        let Some(state) = streams.by_name.remove(name) else { return false };
        for outlets in streams.by_name.values_mut().flat_map(State::outlet_lists) {
            outlets.retain(|outlet| outlet.to != name);
        }
        self.inner.names_changed.fetch_add(1, Ordering::Release);
        state.node.set(Route::new(name.into(), Arc::default()));
        streams.resolve();
        drop(streams);
        go_sync(state.slot.as_slice());
        true
    }

    /// Renames a stream; handles and outlets keep leading to it.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::StreamExists`], [`GraphError::Name`].
    pub fn rename_stream(&self, name: &str, new: &str) -> Result<(), GraphError> {
        let mut streams = self.streams();
        streams.rename(name, new)?;
        streams.resolve();
        self.inner.names_changed.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Counts how often a name was given to another stream, or to none.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn names_changed(&self) -> u64 {
        self.inner.names_changed.load(Ordering::Acquire)
    }

    /// Adds an outlet, creating both streams if they do not exist. An existing outlet stays as it is, with its
    /// filter: remove it first to change that.
    ///
    /// # Errors
    /// [`GraphError::Filter`], and those of [`connect`](Graph::connect).
    pub fn add_outlet(&self, from: &str, to: &str, filter: Option<&str>) -> Result<(), GraphError> {
        self.connect(from, to, filter.map(Filter::parse).transpose()?)
    }

    /// Adds an outlet, as [`add_outlet`](Graph::add_outlet) does, with a parsed filter.
    ///
    /// # Errors
    /// [`GraphError::Cycle`], [`GraphError::Name`], [`GraphError::TooLarge`]: nothing is changed then.
    pub fn connect(&self, from: &str, to: &str, filter: Option<Filter>) -> Result<(), GraphError> {
        let limited = filter.as_ref().is_some_and(Filter::is_limited);
        self.streams().connect(from, to, filter.map(Arc::new))?;
        if limited {
            self.report_in_time();
        }
        Ok(())
    }

    /// Removes the outlets from one stream to another; says how many there were.
    pub fn remove_outlet(&self, from: &str, to: &str) -> usize {
        self.change_outlets(from, |outlets| outlets.retain(|outlet| outlet.to != to))
    }

    /// Removes all outlets of a stream; says how many there were.
    pub fn remove_outlets(&self, from: &str) -> usize {
        self.change_outlets(from, Vec::clear)
    }

    fn change_outlets(&self, from: &str, change: impl Fn(&mut Vec<Outlet>)) -> usize {
        let mut streams = self.streams();
        let Some(state) = streams.by_name.get_mut(from) else { return 0 };
        let before = state.outlets.len();
        state.outlet_lists().for_each(change);
        let removed = before - state.outlets.len();
        streams.resolve();
        removed
    }

    /// Lets lines through a stream, or not.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), GraphError> {
        self.change(name, |state| state.options.enabled = enabled)
    }

    /// Changes what lines through a stream have in front.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_flags(&self, name: &str, flags: Flags) -> Result<(), GraphError> {
        self.change(name, |state| state.options.flags = flags)
    }

    /// Changes how lines look in a stream's sink, from the next one on.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_format(&self, name: &str, format: Format) -> Result<(), GraphError> {
        self.change(name, |state| {
            state.options.format = format;
            if let Some(slot) = &state.slot {
                slot.set_format(format);
            }
        })
    }

    /// Changes a stream's type and path; the sink that it had is closed when the last line is through.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`]; [`GraphError::Sink`]: nothing is changed then.
    pub fn set_type_and_path(&self, name: &str, kind: &str, path: &str) -> Result<(), GraphError> {
        let (mut options, spec) = {
            let streams = self.streams();
            let state =
                streams.by_name.get(name).ok_or_else(|| GraphError::UnknownStream(name.to_owned()))?;
            (state.options.clone(), state.spec())
        };
        let mut spec = spec.unwrap_or_else(|| SinkSpec { stream: name.to_owned(), ..SinkSpec::default() });
        (spec.kind, spec.path) = (kind.to_owned(), path.to_owned());
        let slot = self.make_slot(name, &options, Some(&spec), None)?;
        options.sink = Some(spec);
        Self::begin(name, &options, slot.as_ref())?;
        self.set(name, options, slot);
        Ok(())
    }

    /// What was put down about a stream under this key: its `<config>`, and properties that were set.
    pub fn property(&self, name: &str, key: &str) -> Option<String> {
        let streams = self.streams();
        let state = streams.by_name.get(name)?;
        let config = state.options.sink.as_ref().and_then(|sink| sink.config.get(key));
        state.properties.get(key).or(config).cloned()
    }

    /// Puts something down about a stream. Where it is part of what its sink is made from, it counts when that is opened
    /// the next time.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_property(&self, name: &str, key: &str, value: &str) -> Result<(), GraphError> {
        self.change(name, |state| {
            state.properties.insert(key.to_owned(), value.to_owned());
        })
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut State)) -> Result<(), GraphError> {
        let mut streams = self.streams();
        let state =
            streams.by_name.get_mut(name).ok_or_else(|| GraphError::UnknownStream(name.to_owned()))?;
        change(state);
        streams.resolve_from(name);
        Ok(())
    }

    /// Calls this with every line that gets anywhere, once, before its message is formatted; where it says `false`, the
    /// line goes no further.
    pub fn add_hook(&self, hook: impl Fn(&Record<'_>) -> bool + Send + Sync + 'static) {
        let hook: RecordHook = Arc::new(hook);
        self.change_hooks(|hooks| hooks.record.push(hook));
    }

    /// Calls this with every line that is written as plain text, once for each sink that gets it, as that gets it; where
    /// it says `false`, the line does not go there.
    pub fn add_text_hook(&self, hook: impl Fn(&Record<'_>, &[u8]) -> bool + Send + Sync + 'static) {
        let hook: TextHook = Arc::new(hook);
        self.change_hooks(|hooks| hooks.text.push(hook));
    }

    fn change_hooks(&self, change: impl FnOnce(&mut Hooks)) {
        let mut streams = self.streams();
        change(Arc::make_mut(&mut streams.hooks));
        streams.resolve();
    }

    /// Has streams take no lines that are less serious than this, whatever lines their outlets let pass; replaces what was set
    /// before.
    pub fn set_levels(&self, levels: Levels) {
        let mut streams = self.streams();
        streams.levels = levels;
        streams.resolve();
    }

    /// Has no sink get what this redacts, whatever streams a line comes through; replaces what was set before. Streams may have
    /// [more](StreamOptions::redaction).
    pub fn set_redaction(&self, redaction: Redaction) {
        let mut streams = self.streams();
        streams.redaction = redaction;
        streams.resolve();
    }

    /// What [`set_redaction`](Self::set_redaction) has set.
    pub fn redaction(&self) -> Redaction {
        self.streams().redaction.clone()
    }

    /// A private stream whose lines are kept until it is known whether anybody wants them: the last `max_lines`, with no
    /// more than `max_bytes` of text.
    pub fn speculate(&self, max_lines: usize, max_bytes: usize) -> Speculation {
        Speculation::new(max_lines, max_bytes)
    }

    /// What there is of a stream.
    pub fn describe(&self, name: &str) -> Option<StreamInfo> {
        let (mut description, slot) = self.describe_without_size(name)?;
        description.size = slot.and_then(|slot| slot.size());
        Some(description)
    }

    /// Describes every stream, in the order of names, without [`size`](StreamInfo::size): no sink is asked, so
    /// this waits for none, and delays logging no longer than it takes to copy the description of one stream.
    pub fn describe_all(&self) -> Vec<StreamInfo> {
        self.names().iter().filter_map(|name| Some(self.describe_without_size(name)?.0)).collect()
    }

    fn describe_without_size(&self, name: &str) -> Option<(StreamInfo, Option<Arc<Slot>>)> {
        let streams = self.streams();
        let state = streams.by_name.get(name)?;
        let slot = state.slot.clone();
        let mut spec = state.spec().unwrap_or_default();
        if let Some(slot) = &slot {
            // Where it was opened, whatever the working directory is by now.
            spec.path.clone_from(&slot.spec.path);
        }
        let outlet =
            |outlet: &Outlet| (outlet.to.clone(), outlet.filter.as_ref().map(|f| f.text().to_owned()));
        let mut config = spec.config;
        config.extend(state.properties.clone());
        let mut description = StreamInfo {
            name: name.to_owned(),
            kind: spec.kind,
            path: spec.path,
            format: state.options.format,
            flags: state.options.flags,
            escape: state.options.escape,
            spans: state.options.spans,
            redaction: streams.redaction.union(&state.options.redaction),
            enabled: state.options.enabled,
            enabled_below: Stream { node: Arc::clone(&state.node) }.is_enabled(),
            outlets: state.outlets.iter().map(outlet).collect(),
            left_out: state
                .outlets
                .iter()
                .filter_map(|outlet| Some((outlet.to.clone(), outlet.filter.as_ref()?.left_out())))
                .filter(|(_, lines)| *lines > 0)
                .collect(),
            filtered: state
                .outlets
                .iter()
                .filter(|outlet| state.options.stats && outlet.filter.is_some())
                .map(|outlet| {
                    let (lines, filtered) = outlet.passes.get();
                    (outlet.to.clone(), FilterStats { lines, filtered })
                })
                .collect(),
            config,
            stats: state.options.stats,
            counters: crate::sink::Counters::default(),
            queue: None,
            rotations: None,
            size: None,
            reentrant: state.node.reentrant.load(Ordering::Relaxed),
        };
        // A sink may ask the graph.
        drop(streams);
        if let Some(slot) = &slot {
            description.counters = slot.counters();
            description.queue = slot.queue();
            description.rotations = slot.rotations();
        }
        Some((description, slot))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a child, what is the parent's stays so.
        fork::renew_if_forked();
        let slots = self.streams().slots();
        go_sync(&slots);
        report_reentrant(0);
        let streams = self.streams();
        streams.report_unregistered();
    }
}
