//! The sinks of the streams: their types, opening them, and operations on all of them.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::GraphError;
use super::handle::Graph;
use super::stream::report_reentrant;
use super::streams::State;
use crate::options::StreamOptions;
use crate::record::Doing;
use crate::sink::{MemoryLine, MemorySink, MetricSink, MetricValues, Sink, SinkSpec, directories};
use crate::slot::{Slot, go_sync};
use crate::sync::MutexGuard;

/// The replaced sink, if there was one, and a guard that holds the new one.
pub(super) type Replaced<'a> = (Option<Arc<Slot>>, Option<MutexGuard<'a, ()>>);

/// Marks a stream whose sink a change waits for, until this is dropped.
struct Pending<'a> {
    graph: &'a Graph,
    stream: String,
}

impl<'a> Pending<'a> {
    fn new(graph: &'a Graph, slot: &Slot) -> Self {
        let stream = slot.stream.clone();
        *graph.streams().pending.entry(stream.clone()).or_default() += 1;
        Self { graph, stream }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut streams = self.graph.streams();
        if let Some(changes) = streams.pending.get_mut(&self.stream) {
            *changes -= 1;
            if *changes == 0 {
                streams.pending.remove(&self.stream);
            }
        }
    }
}

/// The same with absolute paths, from this directory or else from the working directory: a forked
/// child may reopen the sink after the process has changed that.
fn absolute(spec: &SinkSpec, directory: Option<&Path>) -> io::Result<SinkSpec> {
    let absolute = |path: &Path| match directory {
        Some(directory) => std::path::absolute(directory.join(path)),
        None => std::path::absolute(path),
    };
    let mut spec = spec.clone();
    if matches!(&*spec.kind, "file" | "file_synch" | "jlog") && !spec.path.is_empty() {
        let path = absolute(Path::new(&spec.path))?.into_os_string().into_string();
        spec.path = path.map_err(|path| {
            let why = format!("{}: it is not UTF-8", path.display());
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
    }
    spec.latest = spec.latest.map(|link| absolute(&link)).transpose()?;
    Ok(spec)
}

impl Graph {
    /// Ends the queues of replaced sinks. Their lines come first, because an old and a new sink may
    /// write to the same file: the new one is held until then. No stream waits for another's sink.
    pub(super) fn replace_sinks(&self, replaced: Vec<Replaced<'_>>) {
        let stopped = replaced.into_iter().filter_map(|(old, held)| {
            let old = old?;
            old.stop();
            let deadline = old.deadline();
            Some((old, held, deadline, None))
        });
        let mut waiting: Vec<_> = stopped.collect();
        let mut pause = Duration::from_micros(50);
        while !waiting.is_empty() {
            let now = Instant::now();
            waiting.retain_mut(|(old, held, deadline, pending)| {
                // A model checker has no time that passes.
                let over = old.has_ended() || now >= *deadline || cfg!(feature = "shuttle");
                if over {
                    old.go_sync(*deadline);
                    drop(held.take());
                } else {
                    pending.get_or_insert_with(|| Pending::new(self, old));
                }
                !over
            });
            if !waiting.is_empty() {
                std::thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(5));
            }
        }
    }

    /// The streams whose sinks a change waits for now, sorted: [`replace`](Graph::replace) and
    /// [`apply`](Graph::apply) wait for the lines of an old sink, [`reopen`](Graph::reopen) for a
    /// write in progress. The change already applies to all other streams.
    pub fn pending(&self) -> Vec<String> {
        self.streams().pending.keys().cloned().collect()
    }

    /// Adds a type of sink: `make` opens one from its spec. Existing streams of this type get their
    /// sinks.
    ///
    /// # Errors
    /// The first of them that cannot be opened.
    pub fn register(
        &self,
        kind: &str,
        make: impl Fn(&SinkSpec) -> io::Result<Arc<dyn Sink>> + Send + Sync + 'static,
    ) -> Result<(), GraphError> {
        let waiting = {
            let mut streams = self.streams();
            streams.makers.insert(kind.to_owned(), Arc::new(make));
            streams.names(|state| state.kind() == kind && state.slot.is_none())
        };
        waiting.iter().map(|name| self.open_sink(name)).fold(Ok(()), Result::and)
    }

    /// Whether this is a type of sink.
    pub fn has_type(&self, kind: &str) -> bool {
        self.streams().makers.contains_key(kind)
    }

    /// The streams whose type is not registered (yet), with that type. Their lines are not written.
    pub fn unregistered(&self) -> Vec<(String, String)> {
        let streams = self.streams();
        streams.unregistered().map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    }

    /// Opens the sink of a stream that has none yet.
    fn open_sink(&self, name: &str) -> Result<(), GraphError> {
        let options = self.streams().by_name.get(name).map(|state| (state.options.clone(), state.spec()));
        let Some((options, spec)) = options else { return Ok(()) };
        let slot = self.make_slot(name, &options, spec.as_ref(), None)?;
        Self::begin(name, &options, slot.as_ref())?;
        let mut streams = self.streams();
        let asynchronous = streams.asynchronous;
        let Some(state) = streams.by_name.get_mut(name).filter(|state| state.slot.is_none()) else {
            return Ok(());
        };
        if let Some(slot) = slot.as_ref().filter(|_| asynchronous) {
            slot.go_async();
        }
        state.slot = slot;
        streams.resolve();
        Ok(())
    }

    /// Opens a sink; a relative path is relative to this directory, or else to the working
    /// directory. The function that makes it may use the graph.
    pub(super) fn make_slot(
        &self,
        name: &str,
        options: &StreamOptions,
        spec: Option<&SinkSpec>,
        directory: Option<&Path>,
    ) -> Result<Option<Arc<Slot>>, GraphError> {
        let Some(spec) = spec else { return Ok(None) };
        let maker = self.streams().makers.get(&spec.kind).cloned();
        // A type that is not registered yet may be registered later.
        let Some(make) = maker else { return Ok(None) };
        let spec =
            absolute(spec, directory).map_err(|source| GraphError::of_sink(name, &spec.kind, source))?;
        for dir in directories(&spec).into_iter().filter(|_| spec.make_dirs) {
            std::fs::create_dir_all(&dir).map_err(|e| {
                let why = io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
                GraphError::of_sink(name, &spec.kind, why)
            })?;
        }
        let sink = make(&spec).map_err(|source| GraphError::of_sink(name, &spec.kind, source))?;
        Ok(Some(Slot::new(name, sink, spec, options)))
    }

    /// Tells an opened sink that it will be written to.
    pub(super) fn begin(
        name: &str,
        options: &StreamOptions,
        slot: Option<&Arc<Slot>>,
    ) -> Result<(), GraphError> {
        let kind = options.sink.as_ref().map_or("", |sink| &sink.kind);
        slot.map_or(Ok(()), |slot| slot.sink.begin())
            .map_err(|source| GraphError::of_sink(name, kind, source))
    }

    /// Gives a queue and a thread to every sink that may have them, and to later sinks as well.
    /// Does nothing from within a sink.
    ///
    /// A process may fork afterwards. The child has no threads: its graph is synchronous, every
    /// sink is reopened when the child first logs or uses the graph, counters begin at 0, and the
    /// parent writes the lines in the queues. The child may call this itself. (A child that can no
    /// longer reach the directory of its files, for example after `chroot`, loses its lines and
    /// reports that.)
    pub fn go_async(&self) {
        self.change_mode(true, |slots| slots.iter().for_each(Slot::go_async));
    }

    /// Writes everything that waits in queues and ends their threads; from then on, logging threads
    /// write themselves. Does nothing from within a sink. Lines that a sink has not taken within
    /// its stream's [`drain_limit`](StreamOptions::drain_limit) are counted as dropped and
    /// reported, also by the next [`flush`](Graph::flush).
    pub fn go_sync(&self) {
        self.change_mode(false, go_sync);
    }

    fn change_mode(&self, asynchronous: bool, change: impl Fn(&[Arc<Slot>])) {
        if Doing::now() == Doing::Writing {
            return;
        }
        let turns = Arc::clone(&self.streams().turns);
        let _one_at_a_time = turns.mode.lock();
        // Sinks may ask the graph meanwhile.
        let slots = {
            let mut streams = self.streams();
            streams.asynchronous = asynchronous;
            streams.slots()
        };
        change(&slots);
        self.report_in_time();
    }

    /// Writes everything that was logged so far and makes it durable.
    ///
    /// # Errors
    /// The sinks that fail, take longer than their streams'
    /// [`drain_limit`](StreamOptions::drain_limit), or have lost lines since the last flush; the
    /// others are flushed nevertheless.
    pub fn flush(&self) -> Result<(), GraphError> {
        report_reentrant(0);
        self.report_left_out();
        let slots = self.slots(|_| true);
        // All of them write at the same time, so that none is delayed by another.
        let begun: Vec<_> = slots.iter().map(|(_, slot)| (slot.start_flush(), slot.deadline())).collect();
        GraphError::all(slots.iter().zip(begun).map(|((kind, slot), (flush, deadline))| {
            let flushed = slot.finish_flush(flush, deadline);
            flushed.map_err(|source| GraphError::of_sink(&slot.stream, kind, source))
        }))
    }

    /// Reopens every sink whose file was moved away.
    ///
    /// # Errors
    /// The errors of the sinks that cannot be reopened; the others are reopened nevertheless. A
    /// sink that is being written to for longer than its stream's
    /// [`drain_limit`](StreamOptions::drain_limit) is reopened when the write ends.
    pub fn reopen(&self) -> Result<(), GraphError> {
        self.reopen_those(|_| true, true)
    }

    /// The same for all sinks of a type.
    ///
    /// # Errors
    /// The sinks that cannot be reopened; the others are reopened nevertheless.
    pub fn reopen_type(&self, kind: &str) -> Result<(), GraphError> {
        self.reopen_those(|state| state.kind() == kind, true)
    }

    /// The same for one stream.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::Sink`].
    pub fn reopen_stream(&self, name: &str) -> Result<(), GraphError> {
        self.with_sink(name, |slot| slot.reopen(slot.deadline()))
    }

    fn slots(&self, wanted: impl Fn(&State) -> bool) -> Vec<(String, Arc<Slot>)> {
        let streams = self.streams();
        let wanted = streams.by_name.values().filter(|state| wanted(state));
        wanted.filter_map(|state| Some((state.kind().to_owned(), state.slot.clone()?))).collect()
    }

    /// The same without waiting: sinks that are being written to are reopened when the write ends,
    /// and then report errors on stderr.
    pub(crate) fn reopen_at_once(&self) -> Result<(), GraphError> {
        self.reopen_those(|_| true, false)
    }

    fn reopen_those(&self, wanted: impl Fn(&State) -> bool, waits: bool) -> Result<(), GraphError> {
        let slots = self.slots(wanted);
        let now = Instant::now();
        // Busy sinks come last, so that the others do not wait for them.
        let (mut busy, mut outcomes) = (Vec::new(), Vec::new());
        for (kind, slot) in &slots {
            match slot.reopen(now) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    if waits {
                        busy.push((kind, slot, slot.deadline(), Pending::new(self, slot)));
                    }
                }
                done => outcomes.push((kind, slot, done)),
            }
        }
        outcomes.extend(
            busy.into_iter().map(|(kind, slot, deadline, _pending)| (kind, slot, slot.reopen(deadline))),
        );
        let named = |(kind, slot, done): (&String, &Arc<Slot>, io::Result<()>)| {
            done.map_err(|source| GraphError::of_sink(&slot.stream, kind, source))
        };
        GraphError::all(outcomes.into_iter().map(named))
    }

    fn with_sink<R>(&self, name: &str, work: impl FnOnce(&Slot) -> io::Result<R>) -> Result<R, GraphError> {
        let (kind, slot) = {
            let streams = self.streams();
            let state = streams.by_name.get(name);
            let state = state.ok_or_else(|| GraphError::UnknownStream(name.to_owned()))?;
            (state.kind().to_owned(), state.slot.clone())
        };
        let none = || io::Error::new(io::ErrorKind::Unsupported, "it has no sink");
        slot.ok_or_else(none)
            .and_then(|slot| work(&slot))
            .map_err(|source| GraphError::of_sink(name, &kind, source))
    }

    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.streams().by_name.get(name)?.slot.clone()
    }

    /// Rotates a stream's sink: a file gets the next name according to its
    /// [`Rotation`](crate::Rotation).
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::Sink`].
    pub fn rotate(&self, name: &str) -> Result<(), GraphError> {
        self.with_sink(name, |slot| {
            let deadline = slot.deadline();
            slot.finish_drain(slot.start_drain(), deadline)?;
            slot.with_sink(deadline, Sink::rotate)
        })
    }

    /// Rotates a stream's sink to this name, unless it exists already.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::Sink`].
    pub fn rotate_to(&self, name: &str, to: &Path) -> Result<(), GraphError> {
        self.with_sink(name, |slot| {
            let deadline = slot.deadline();
            slot.finish_drain(slot.start_drain(), deadline)?;
            slot.with_sink(deadline, |sink| sink.rotate_to(to))
        })
    }

    /// Removes expired rotated files; returns their number.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`], [`GraphError::Sink`].
    pub fn remove_expired(&self, name: &str) -> Result<usize, GraphError> {
        self.with_sink(name, |slot| slot.with_sink(slot.deadline(), Sink::remove_expired))
    }

    /// The last lines of a memory stream, oldest first; `None` if it is not one.
    pub fn memory_last(&self, name: &str, n: usize) -> Option<Vec<MemoryLine>> {
        self.slot(name)?.ring().map(|ring| ring.last(n))
    }

    /// The lines of a memory stream after the one with this index; `None` if it is not one.
    pub fn memory_since(&self, name: &str, index: u64) -> Option<Vec<MemoryLine>> {
        self.slot(name)?.ring().map(|ring| ring.since(index))
    }

    /// A piece of a memory stream, as [`MemorySink::piece`] returns it; `None` if it is not one.
    pub fn memory_piece(
        &self,
        name: &str,
        index: u64,
        max_lines: usize,
        max_bytes: usize,
    ) -> Option<Vec<MemoryLine>> {
        self.slot(name)?.ring().map(|ring| ring.piece(index, max_lines, max_bytes))
    }

    /// The values of the streams with a [`Metric`](crate::Metric), sorted by name.
    pub fn metrics(&self) -> Vec<MetricValues> {
        let slots = self.slots(|state| state.kind() == "metric");
        let sinks =
            slots.iter().filter_map(|(_, slot)| (&*slot.sink as &dyn Any).downcast_ref::<MetricSink>());
        sinks.map(MetricSink::values).collect()
    }

    /// The number of a memory stream's newest line; `None` if it is not one.
    pub fn memory_newest(&self, name: &str) -> Option<u64> {
        self.slot(name)?.ring().map(MemorySink::newest)
    }
}
