//! Streams and what connects them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::record::{Level, Logging, Record, Value, now_micros, with_thread};
use crate::route::{Route, Step};
use crate::sink::{
    Counters, FdSink, FileSink, JlogSink, MemoryLine, MemorySink, Sink, SinkSpec, Slot, WhenFull,
};

/// Why the graph could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// There is no stream of this name.
    #[error("there is no log stream {0:?}")]
    UnknownStream(String),
    /// A stream cannot have this name.
    #[error("{0:?} cannot name a log stream: it is empty, or has an empty part or a control character")]
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
    /// A sink could not be opened.
    #[error("log stream {stream:?} of type {kind}: {source}")]
    Sink {
        /// The stream.
        stream: String,
        /// Its type.
        kind: String,
        /// Why.
        source: io::Error,
    },
}

/// Makes a sink from its spec.
type Maker = Arc<dyn Fn(&SinkSpec) -> io::Result<Arc<dyn Sink>> + Send + Sync>;
/// Hears of lines; one that says `false` stops the line.
type Hook = Arc<dyn Fn(&Record<'_>) -> bool + Send + Sync>;

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
    streams: Mutex<Streams>,
    hooks: ArcSwap<Vec<Hook>>,
}

#[derive(Default)]
struct Streams {
    by_name: BTreeMap<String, State>,
    makers: BTreeMap<String, Maker>,
    asynchronous: bool,
}

/// A stream, as the graph keeps it.
struct State {
    node: Arc<Node>,
    enabled: bool,
    flags: Flags,
    outlets: Vec<Outlet>,
    slot: Option<Arc<Slot>>,
    spec: SinkSpec,
    format: Format,
    dedup_seconds: u64,
    when_full: Option<WhenFull>,
}

impl State {
    fn set_options(&mut self, name: &str, options: StreamOptions, with_sink: bool) {
        self.enabled = !options.disabled;
        self.flags = options.flags;
        self.dedup_seconds = options.dedup_seconds;
        self.when_full = options.when_full;
        if with_sink {
            self.format = options.format;
            self.spec = options.sink.unwrap_or(SinkSpec { stream: name.to_owned(), ..SinkSpec::default() });
        }
    }
}

#[derive(Clone)]
struct Outlet {
    to: String,
    filter: Option<Arc<Filter>>,
}

/// What logging to a stream looks at.
struct Node {
    name: Arc<str>,
    material: AtomicBool,
    route: ArcSwap<Route>,
    graph: std::sync::Weak<Inner>,
}

/// A stream to log to. Cheap to clone; works on when the graph changes.
#[derive(Clone)]
pub struct Stream {
    node: Arc<Node>,
}

/// What a stream is.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// What it writes to, if anything.
    pub sink: Option<SinkSpec>,
    /// How lines look there.
    pub format: Format,
    /// What lines through it have in front.
    pub flags: Flags,
    /// Whether lines go through it.
    pub disabled: bool,
    /// A line that is the one before it again within so many seconds is counted, not written.
    pub dedup_seconds: u64,
    /// What happens when its queue is full; blocking where nothing is said.
    pub when_full: Option<WhenFull>,
}

/// A stream to be set up with others at once.
#[derive(Clone, Debug)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub options: StreamOptions,
    /// Where its lines go on to; where there are none, the outlets that it has stay.
    pub outlets: Vec<(String, Option<Filter>)>,
}

/// What there is of a stream, for people and tools.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its type; empty without a sink.
    pub kind: String,
    /// Its path.
    pub path: String,
    /// Its format.
    pub format: Format,
    /// Its flags.
    pub flags: Flags,
    /// Whether lines go through it.
    pub enabled: bool,
    /// Whether a line that is logged to it gets anywhere.
    pub material: bool,
    /// Its outlets: names, and the text of filters.
    pub outlets: Vec<(String, Option<String>)>,
    /// What its sink has written.
    pub counters: Counters,
    /// Bytes in what it writes to.
    pub size: Option<u64>,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("streams", &self.names()).finish()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.node.name).finish()
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

fn check_name(name: &str) -> Result<(), GraphError> {
    let wrong = name.split('/').any(str::is_empty) || name.chars().any(char::is_control);
    if wrong { Err(GraphError::Name(name.to_owned())) } else { Ok(()) }
}

impl Graph {
    /// A graph with the streams that are always there: `stderr`, and `error`, `notice` and `debug` (disabled), which
    /// lead to it, and `error/stacktrace`, which leads to `error`.
    pub fn new() -> Self {
        let inner = Arc::new(Inner { streams: Mutex::default(), hooks: ArcSwap::default() });
        let graph = Self { inner };
        let streams = &mut graph.inner.streams.lock();
        let flags = Flags { timestamps: true, ..Flags::default() };
        let spec = SinkSpec { stream: "stderr".to_owned(), kind: "stderr".to_owned(), ..SinkSpec::default() };
        let slot =
            Slot::new("stderr".to_owned(), Arc::new(FdSink::Stderr), Format::Plain, WhenFull::Block, 0);
        let stderr = graph.state("stderr");
        streams.by_name.insert("stderr".to_owned(), State { flags, spec, slot: Some(slot), ..stderr });
        for (name, to) in
            [("error", "stderr"), ("notice", "stderr"), ("debug", "stderr"), ("error/stacktrace", "error")]
        {
            let outlets = vec![Outlet { to: to.to_owned(), filter: None }];
            let state = State { outlets, enabled: name != "debug", ..graph.state(name) };
            streams.by_name.insert(name.to_owned(), state);
        }
        for (kind, sink) in [("stderr", FdSink::Stderr), ("stdout", FdSink::Stdout)] {
            streams.makers.insert(kind.to_owned(), Arc::new(move |_| Ok(Arc::new(sink))));
        }
        let file = |asynchronous| -> Maker {
            Arc::new(move |spec: &SinkSpec| {
                Ok(Arc::new(FileSink::open(&spec.path, spec.rotation, asynchronous)?))
            })
        };
        streams.makers.insert("file".to_owned(), file(true));
        streams.makers.insert("file_synch".to_owned(), file(false));
        streams.makers.insert(
            "memory".to_owned(),
            Arc::new(|spec| {
                let sink = MemorySink::from_path(&spec.path);
                Ok(Arc::new(sink.map_err(|expected| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("{:?}: expected {expected}", spec.path),
                    )
                })?))
            }),
        );
        streams.makers.insert("jlog".to_owned(), Arc::new(|spec| Ok(Arc::new(JlogSink::open(spec)?))));
        streams.resolve();
        graph.clone()
    }

    fn state(&self, name: &str) -> State {
        State {
            node: Arc::new(Node {
                name: name.into(),
                material: AtomicBool::new(false),
                route: ArcSwap::default(),
                graph: Arc::downgrade(&self.inner),
            }),
            enabled: true,
            flags: Flags::default(),
            outlets: Vec::new(),
            slot: None,
            spec: SinkSpec { stream: name.to_owned(), ..SinkSpec::default() },
            format: Format::Plain,
            dedup_seconds: 0,
            when_full: None,
        }
    }

    /// Adds a type of sink: `make` opens one from its spec. Streams of this type that are there already get theirs.
    ///
    /// # Errors
    /// The first of them that cannot be opened.
    pub fn register(
        &self,
        kind: &str,
        make: impl Fn(&SinkSpec) -> io::Result<Arc<dyn Sink>> + Send + Sync + 'static,
    ) -> Result<(), GraphError> {
        let mut streams = self.inner.streams.lock();
        streams.makers.insert(kind.to_owned(), Arc::new(make));
        let waiting: Vec<String> = streams
            .by_name
            .iter()
            .filter(|(_, state)| state.spec.kind == kind && state.slot.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        let mut outcome = Ok(());
        for name in waiting {
            outcome = outcome.and(streams.open_sink(&name));
        }
        streams.resolve();
        outcome
    }

    /// Whether this is a type of sink.
    pub fn knows_type(&self, kind: &str) -> bool {
        self.inner.streams.lock().makers.contains_key(kind)
    }

    /// The stream of this name; made where it is not there, with an outlet to the stream that its name is below.
    ///
    /// # Errors
    /// [`GraphError::Name`].
    pub fn stream(&self, name: &str) -> Result<Stream, GraphError> {
        check_name(name)?;
        let mut streams = self.inner.streams.lock();
        if let Some(state) = streams.by_name.get(name) {
            return Ok(Stream { node: Arc::clone(&state.node) });
        }
        self.make(&mut streams, name);
        streams.resolve();
        streams
            .by_name
            .get(name)
            .map(|state| Stream { node: Arc::clone(&state.node) })
            .ok_or_else(|| GraphError::Name(name.to_owned()))
    }

    /// Makes a stream and those that its name is below.
    fn make(&self, streams: &mut Streams, name: &str) {
        let mut name = name;
        while !streams.by_name.contains_key(name) {
            let mut state = self.state(name);
            let parent = name.rsplit_once('/').map(|(parent, _)| parent);
            state.outlets.extend(parent.map(|to| Outlet { to: to.to_owned(), filter: None }));
            streams.by_name.insert(name.to_owned(), state);
            let Some(parent) = parent else { break };
            name = parent;
        }
    }

    /// The stream of this name, if it is there.
    pub fn find(&self, name: &str) -> Option<Stream> {
        let streams = self.inner.streams.lock();
        streams.by_name.get(name).map(|state| Stream { node: Arc::clone(&state.node) })
    }

    /// The names of all streams, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner.streams.lock().by_name.keys().cloned().collect()
    }

    /// Sets up a stream: it is made where it is not there, and its outlets stay. A sink that it had is closed when the
    /// last line is through.
    ///
    /// # Errors
    /// [`GraphError::Name`]; [`GraphError::Sink`]: nothing is changed then.
    pub fn configure(&self, name: &str, options: StreamOptions) -> Result<Stream, GraphError> {
        check_name(name)?;
        let mut streams = self.inner.streams.lock();
        let asynchronous = streams.asynchronous;
        let slot = match &options.sink {
            Some(spec) => {
                streams.make_slot(name, spec, options.format, options.dedup_seconds, options.when_full)?
            }
            None => None,
        };
        self.make(&mut streams, name);
        let node = streams.by_name.get(name).map(|state| Arc::clone(&state.node));
        let stream = Stream { node: node.ok_or_else(|| GraphError::Name(name.to_owned()))? };
        let Some(state) = streams.by_name.get_mut(name) else { return Ok(stream) };
        state.set_options(name, options, true);
        if let Some(slot) = slot.as_ref().filter(|_| asynchronous) {
            slot.go_async();
        }
        let old = std::mem::replace(&mut state.slot, slot);
        streams.resolve();
        drop(streams);
        if let Some(old) = old {
            old.go_sync();
        }
        Ok(stream)
    }

    /// Sets up several streams, whose outlets replace those that they have: all of it, or, where a sink cannot be opened,
    /// nothing.
    ///
    /// # Errors
    /// The place in the list, and what [`configure`](Graph::configure) or [`connect`](Graph::connect) says.
    pub fn apply(&self, list: Vec<Configured>) -> Result<(), (usize, GraphError)> {
        for (n, configured) in list.iter().enumerate() {
            check_name(&configured.name).map_err(|e| (n, e))?;
            for (to, _) in &configured.outlets {
                check_name(to).map_err(|e| (n, e))?;
            }
        }
        let mut streams = self.inner.streams.lock();
        let mut slots = Vec::new();
        for (n, Configured { name, options, .. }) in list.iter().enumerate() {
            let slot = match &options.sink {
                Some(spec) => streams
                    .make_slot(name, spec, options.format, options.dedup_seconds, options.when_full)
                    .map_err(|e| (n, e))?,
                None => None,
            };
            slots.push(slot);
        }
        // Cycles are looked for before anything is changed that others see.
        let kept: BTreeMap<String, Vec<Outlet>> =
            streams.by_name.iter().map(|(name, state)| (name.clone(), state.outlets.clone())).collect();
        for Configured { name, outlets, .. } in &list {
            self.make(&mut streams, name);
            if let Some(state) = streams.by_name.get_mut(name).filter(|_| !outlets.is_empty()) {
                state.outlets.clear();
            }
        }
        for (n, Configured { name, outlets, .. }) in list.iter().enumerate() {
            for (to, filter) in outlets {
                self.make(&mut streams, to);
                if let Some(mut path) = streams.path(to, name) {
                    streams.by_name.retain(|name, _| kept.contains_key(name));
                    for (name, outlets) in kept {
                        if let Some(state) = streams.by_name.get_mut(&name) {
                            state.outlets = outlets;
                        }
                    }
                    path.insert(0, name.clone());
                    let (from, to) = (name.clone(), to.clone());
                    return Err((n, GraphError::Cycle { from, to, path: path.join(" -> ") }));
                }
                if let Some(state) = streams.by_name.get_mut(name) {
                    state.outlets.push(Outlet { to: to.clone(), filter: filter.clone().map(Arc::new) });
                }
            }
        }
        let asynchronous = streams.asynchronous;
        let mut old = Vec::new();
        for (Configured { name, options, .. }, slot) in list.into_iter().zip(slots) {
            let Some(state) = streams.by_name.get_mut(&name) else { continue };
            // What says nothing of a sink leaves the built-in ones theirs.
            let replaces = options.sink.is_some() || state.spec.kind != "stderr";
            if let Some(slot) = slot.as_ref().filter(|_| asynchronous) {
                slot.go_async();
            }
            if replaces {
                old.extend(std::mem::replace(&mut state.slot, slot));
            }
            state.set_options(&name, options, replaces);
        }
        streams.resolve();
        drop(streams);
        for slot in old {
            slot.go_sync();
        }
        Ok(())
    }

    /// Adds a stream that keeps its last lines.
    ///
    /// # Errors
    /// As [`configure`](Graph::configure).
    pub fn add_memory(&self, name: &str, lines: usize, bytes: usize) -> Result<Stream, GraphError> {
        let path = format!("{lines},{bytes}");
        let sink =
            SinkSpec { stream: name.to_owned(), kind: "memory".to_owned(), path, ..SinkSpec::default() };
        self.configure(name, StreamOptions { sink: Some(sink), ..StreamOptions::default() })
    }

    /// Removes a stream, and every outlet to it; says whether it was there. Whoever has it still logs to nowhere.
    pub fn remove(&self, name: &str) -> bool {
        let mut streams = self.inner.streams.lock();
        let Some(state) = streams.by_name.remove(name) else { return false };
        for other in streams.by_name.values_mut() {
            other.outlets.retain(|outlet| outlet.to != name);
        }
        state.node.set(Route::default());
        streams.resolve();
        drop(streams);
        if let Some(slot) = state.slot {
            slot.go_sync();
        }
        true
    }

    /// Adds an outlet, making both streams where they are not there.
    ///
    /// # Errors
    /// [`GraphError::Cycle`], [`GraphError::Name`].
    pub fn add_outlet(&self, from: &str, to: &str, filter: Option<&str>) -> Result<(), AddOutletError> {
        let filter = filter.map(Filter::parse).transpose()?;
        self.connect(from, to, filter)?;
        Ok(())
    }

    /// Adds an outlet with a filter that is parsed already.
    ///
    /// # Errors
    /// [`GraphError::Cycle`], [`GraphError::Name`].
    pub fn connect(&self, from: &str, to: &str, filter: Option<Filter>) -> Result<(), GraphError> {
        check_name(from)?;
        check_name(to)?;
        let mut streams = self.inner.streams.lock();
        // What the new streams' names are below leads on, too: the cycle is looked for with them.
        let before: Vec<String> = streams.by_name.keys().cloned().collect();
        self.make(&mut streams, from);
        self.make(&mut streams, to);
        if let Some(mut path) = streams.path(to, from) {
            streams.by_name.retain(|name, _| before.binary_search(name).is_ok());
            path.insert(0, from.to_owned());
            return Err(GraphError::Cycle {
                from: from.to_owned(),
                to: to.to_owned(),
                path: path.join(" -> "),
            });
        }
        if let Some(state) = streams.by_name.get_mut(from) {
            state.outlets.push(Outlet { to: to.to_owned(), filter: filter.map(Arc::new) });
        }
        streams.resolve();
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

    fn change_outlets(&self, from: &str, change: impl FnOnce(&mut Vec<Outlet>)) -> usize {
        let mut streams = self.inner.streams.lock();
        let Some(state) = streams.by_name.get_mut(from) else { return 0 };
        let before = state.outlets.len();
        change(&mut state.outlets);
        let removed = before - state.outlets.len();
        streams.resolve();
        removed
    }

    /// Lets lines through a stream, or not.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), GraphError> {
        self.change(name, |state| state.enabled = enabled)
    }

    /// Changes what lines through a stream have in front.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_flags(&self, name: &str, flags: Flags) -> Result<(), GraphError> {
        self.change(name, |state| state.flags = flags)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut State)) -> Result<(), GraphError> {
        let mut streams = self.inner.streams.lock();
        let state =
            streams.by_name.get_mut(name).ok_or_else(|| GraphError::UnknownStream(name.to_owned()))?;
        change(state);
        streams.resolve();
        Ok(())
    }

    /// Calls this with every line that gets anywhere; where it says `false`, the line goes no further.
    pub fn add_hook(&self, hook: impl Fn(&Record<'_>) -> bool + Send + Sync + 'static) {
        let hook: Hook = Arc::new(hook);
        self.inner.hooks.rcu(|hooks| {
            let mut hooks = Vec::clone(hooks);
            hooks.push(Arc::clone(&hook));
            hooks
        });
    }

    /// Gives every sink that may have one a queue and a thread of its own, and those that come later, too.
    pub fn go_async(&self) {
        let mut streams = self.inner.streams.lock();
        streams.asynchronous = true;
        for slot in streams.slots() {
            slot.go_async();
        }
    }

    /// Writes everything that waits in queues and ends their threads; whoever logs writes from then on.
    pub fn go_sync(&self) {
        let slots = {
            let mut streams = self.inner.streams.lock();
            streams.asynchronous = false;
            streams.slots()
        };
        for slot in slots {
            slot.go_sync();
        }
    }

    /// Writes everything that was logged so far and makes it durable.
    ///
    /// # Errors
    /// The first sink that cannot; the others are flushed all the same.
    pub fn flush(&self) -> Result<(), GraphError> {
        self.each(|slot| slot.flush())
    }

    /// Has every sink open anew what was moved away.
    ///
    /// # Errors
    /// The first sink that cannot; the others do all the same.
    pub fn reopen(&self) -> Result<(), GraphError> {
        self.each(|slot| slot.sink.reopen())
    }

    fn each(&self, work: impl Fn(&Slot) -> io::Result<()>) -> Result<(), GraphError> {
        let slots = self.inner.streams.lock().slots();
        let mut outcome = Ok(());
        for slot in slots {
            let done = work(&slot).map_err(|source| GraphError::Sink {
                stream: slot.stream.clone(),
                kind: self.describe(&slot.stream).map(|d| d.kind).unwrap_or_default(),
                source,
            });
            outcome = outcome.and(done);
        }
        outcome
    }

    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.inner.streams.lock().by_name.get(name)?.slot.clone()
    }

    /// Puts aside what a stream's sink has written so far.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::Sink`].
    pub fn rotate(&self, name: &str) -> Result<(), GraphError> {
        let slot = self.slot(name).ok_or_else(|| GraphError::UnknownStream(name.to_owned()))?;
        slot.drain();
        let kind = String::new();
        slot.sink.rotate().map_err(|source| GraphError::Sink { stream: name.to_owned(), kind, source })
    }

    /// The last lines of a memory stream, oldest first; `None` where it is none.
    pub fn memory_last(&self, name: &str, n: usize) -> Option<Vec<MemoryLine>> {
        self.slot(name)?.sink.memory().map(|ring| ring.last(n))
    }

    /// The lines of a memory stream after the one with this index; `None` where it is none.
    pub fn memory_since(&self, name: &str, index: u64) -> Option<Vec<MemoryLine>> {
        self.slot(name)?.sink.memory().map(|ring| ring.since(index))
    }

    /// What there is of a stream.
    pub fn describe(&self, name: &str) -> Option<Description> {
        let streams = self.inner.streams.lock();
        let state = streams.by_name.get(name)?;
        let slot = state.slot.clone();
        let mut description = Description {
            name: name.to_owned(),
            kind: state.spec.kind.clone(),
            path: state.spec.path.clone(),
            format: state.format,
            flags: state.flags,
            enabled: state.enabled,
            material: state.node.material.load(Ordering::Relaxed),
            outlets: state
                .outlets
                .iter()
                .map(|outlet| (outlet.to.clone(), outlet.filter.as_ref().map(|f| f.text().to_owned())))
                .collect(),
            counters: Counters::default(),
            size: None,
        };
        // A sink may ask the graph.
        drop(streams);
        if let Some(slot) = slot {
            description.counters = slot.counters();
            description.size = slot.sink.size();
        }
        Some(description)
    }
}

/// Why an outlet could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddOutletError {
    /// The filter is wrong.
    #[error("the filter: {0}")]
    Filter(#[from] crate::filter::FilterError),
    /// The graph does not allow it.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl From<AddOutletError> for GraphError {
    fn from(error: AddOutletError) -> Self {
        match error {
            AddOutletError::Graph(error) => error,
            AddOutletError::Filter(error) => GraphError::Sink {
                stream: String::new(),
                kind: "outlet".to_owned(),
                source: io::Error::new(io::ErrorKind::InvalidInput, error),
            },
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for slot in self.streams.get_mut().slots() {
            slot.go_sync();
        }
    }
}

impl Streams {
    fn slots(&self) -> Vec<Arc<Slot>> {
        self.by_name.values().filter_map(|state| state.slot.clone()).collect()
    }

    fn make_slot(
        &self,
        name: &str,
        spec: &SinkSpec,
        format: Format,
        dedup_seconds: u64,
        when_full: Option<WhenFull>,
    ) -> Result<Option<Arc<Slot>>, GraphError> {
        // A type that is not registered yet may be so later.
        let Some(make) = self.makers.get(&spec.kind) else { return Ok(None) };
        let sink = make(spec).map_err(|source| GraphError::Sink {
            stream: name.to_owned(),
            kind: spec.kind.clone(),
            source,
        })?;
        Ok(Some(Slot::new(name.to_owned(), sink, format, when_full.unwrap_or_default(), dedup_seconds)))
    }

    fn open_sink(&mut self, name: &str) -> Result<(), GraphError> {
        let Some(state) = self.by_name.get(name) else { return Ok(()) };
        let slot = self.make_slot(name, &state.spec, state.format, state.dedup_seconds, state.when_full)?;
        if let Some(slot) = slot.as_ref().filter(|_| self.asynchronous) {
            slot.go_async();
        }
        if let Some(state) = self.by_name.get_mut(name) {
            state.slot = slot;
        }
        Ok(())
    }

    /// A path along outlets, by names.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut seen = std::collections::BTreeSet::new();
        let mut stack = vec![vec![from.to_owned()]];
        while let Some(path) = stack.pop() {
            let Some(last) = path.last() else { continue };
            if last == to {
                return Some(path);
            }
            if !seen.insert(last.clone()) {
                continue;
            }
            for outlet in self.by_name.get(last).map(|state| &state.outlets).into_iter().flatten() {
                let mut longer = path.clone();
                longer.push(outlet.to.clone());
                stack.push(longer);
            }
        }
        None
    }

    /// Works out anew where lines of every stream go.
    fn resolve(&self) {
        for state in self.by_name.values() {
            let mut route = Route::default();
            self.follow(&state.node.name, Flags::default(), &mut route);
            state.node.set(route);
        }
    }

    fn follow(&self, name: &str, flags: Flags, route: &mut Route) {
        let Some(state) = self.by_name.get(name).filter(|state| state.enabled) else { return };
        let flags = flags.union(state.flags);
        if let Some(slot) = &state.slot {
            route.steps.push(Step::Deliver { slot: Arc::clone(slot), flags });
        }
        for (n, outlet) in state.outlets.iter().enumerate() {
            let at = route.steps.len();
            if let Some(filter) = &outlet.filter {
                let edge = route.edge(name, n);
                route.steps.push(Step::Filter { filter: Arc::clone(filter), edge, behind: 0 });
            }
            let begun = route.steps.len();
            self.follow(&outlet.to, flags, route);
            if route.steps.len() == begun {
                // It leads nowhere.
                route.steps.truncate(at);
            } else if outlet.filter.is_some() {
                let end = route.steps.len();
                if let Some(Step::Filter { behind, .. }) = route.steps.get_mut(at) {
                    *behind = end;
                }
            }
        }
    }
}

impl Node {
    fn set(&self, route: Route) {
        let material = !route.steps.is_empty();
        self.route.store(Arc::new(route));
        self.material.store(material, Ordering::Release);
    }
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Whether a line that is logged to it gets anywhere. The macro [`log!`](crate::log!) asks first, and evaluates
    /// nothing where it does not.
    #[inline]
    pub fn is_material(&self) -> bool {
        self.node.material.load(Ordering::Relaxed)
    }

    /// Logs a line of this moment; [`log!`](crate::log!) is the way to call it.
    pub fn log(
        &self,
        level: Level,
        file: &str,
        line: u32,
        keys: &[(&str, Value<'_>)],
        arguments: fmt::Arguments<'_>,
    ) {
        self.log_at(now_micros(), level, file, line, keys, arguments);
    }

    /// Logs a line of another moment, in microseconds since 1970 UTC.
    pub fn log_at(
        &self,
        micros: u64,
        level: Level,
        file: &str,
        line: u32,
        keys: &[(&str, Value<'_>)],
        arguments: fmt::Arguments<'_>,
    ) {
        if !self.is_material() {
            return;
        }
        // What this thread logs from here on would come back to it.
        let Some(_logging) = Logging::begin() else { return };
        with_thread(|thread_id, thread_name| {
            let mut record = Record::new(micros, &self.node.name, arguments);
            (record.thread_id, record.thread_name) = (thread_id, thread_name);
            (record.level, record.file, record.line, record.keys) = (level, file, line, keys);
            if let Some(graph) = self.node.graph.upgrade() {
                let hooks = graph.hooks.load();
                if !hooks.iter().all(|hook| hook(&record)) {
                    return;
                }
            }
            self.node.route.load().run(&record);
        });
    }
}
