//! Changing a graph: streams, outlets, hooks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{ApplyError, GraphError};
use super::handle::Graph;
use super::stream::Stream;
use super::streams::{Outlet, State, Streams, check_name};
use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::level::Levels;
use crate::options::{StreamConfig, StreamOptions};
use crate::record::{Record, While};
use crate::redact::Redaction;
use crate::route::{Hooks, RecordHook, Route};
use crate::sink::{FdSink, SinkSpec};
use crate::slot::{Slot, TextHook, go_sync};

impl Graph {
    /// Sets up a stream: it is created if missing, and its outlets stay. A sink that it had is
    /// closed when the last line is written.
    ///
    /// # Errors
    /// [`GraphError::Name`], [`GraphError::TooLarge`]; [`GraphError::Sink`]: nothing is changed
    /// then.
    pub fn configure(&self, name: &str, options: StreamOptions) -> Result<Stream, GraphError> {
        check_name(name)?;
        let slot = self.make_slot(name, &options, options.sink.as_ref(), None)?;
        self.stream(name)?;
        Self::begin(name, &options, slot.as_ref())?;
        Ok(self.set(name, options, slot))
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
        // Lines of the old one come first: both may write to the same file.
        let held = slot.as_ref().map(|slot| slot.hold());
        new.into_iter().for_each(|name| streams.resolve_one(name));
        streams.resolve_from(name);
        drop(streams);
        self.replace_sinks(vec![(old, held)]);
        stream
    }

    /// Sets up several streams: all of them or, if a sink cannot be opened, none. Each gets exactly
    /// the outlets in the list, and loses others. Streams that are not in the list stay as they
    /// are.
    ///
    /// # Errors
    /// The stream that cannot be set up, with the error of [`configure`](Graph::configure) or
    /// [`connect`](Graph::connect).
    pub fn apply(&self, list: Vec<StreamConfig>) -> Result<(), ApplyError> {
        let turns = Arc::clone(&self.streams().turns);
        let _one_at_a_time = turns.configuring.lock();
        let declared = list.len();
        let directory = std::env::current_dir().ok();
        self.set_up(list, declared, directory).map_err(|(n, error)| ApplyError { index: Some(n), error })
    }

    /// Sets up several streams in place of those that [`apply`](Graph::apply) and this method set
    /// up before: all of them, or none if a sink cannot be opened. Streams that are no longer in
    /// the list are restored to what they were before. Streams whose entries are unchanged stay as
    /// they are, including later changes (such as [`set_enabled`](Graph::set_enabled)); sinks that
    /// need not change stay open. No line is lost or written twice. Relative paths are relative to
    /// the working directory at the time of the first list, even if the process has changed it
    /// since.
    ///
    /// # Errors
    /// The stream that cannot be set up, with the error of [`configure`](Graph::configure) or
    /// [`connect`](Graph::connect).
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

    /// From `undeclared` on, the streams of the list return to their earlier state. Relative paths
    /// are relative to a directory.
    fn set_up(
        &self,
        list: Vec<StreamConfig>,
        undeclared: usize,
        directory: Option<PathBuf>,
    ) -> Result<(), (usize, GraphError)> {
        // Everything that can be checked without opening a sink is checked first.
        let mut tried = self.streams().clone();
        tried.connect_all(&list, undeclared)?;
        // An unchanged sink stays open, so that none of its lines are lost or written out of order.
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
            // A declaration without a sink leaves the built-in stream its own.
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

    /// Removes a stream, and every outlet to it; returns whether it existed. Lines that are logged
    /// through its handles are dropped.
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

    /// Adds an outlet, creating both streams if they do not exist. An existing outlet keeps its
    /// filter: remove the outlet first to change it.
    ///
    /// # Errors
    /// [`GraphError::Filter`], and those of [`connect`](Graph::connect).
    pub fn add_outlet(&self, from: &str, to: &str, filter: Option<&str>) -> Result<(), GraphError> {
        self.connect(from, to, filter.map(Filter::parse).transpose()?)
    }

    /// Adds an outlet, as [`add_outlet`](Graph::add_outlet) does, with a parsed filter.
    ///
    /// # Errors
    /// [`GraphError::Cycle`], [`GraphError::Name`], [`GraphError::TooLarge`]: nothing is changed
    /// then.
    pub fn connect(&self, from: &str, to: &str, filter: Option<Filter>) -> Result<(), GraphError> {
        let limited = filter.as_ref().is_some_and(Filter::is_limited);
        self.streams().connect(from, to, filter.map(Arc::new))?;
        if limited {
            self.report_in_time();
        }
        Ok(())
    }

    /// Removes the outlets from one stream to another; returns their number.
    pub fn remove_outlet(&self, from: &str, to: &str) -> usize {
        self.change_outlets(from, |outlets| outlets.retain(|outlet| outlet.to != to))
    }

    /// Removes all outlets of a stream; returns their number.
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

    /// Enables or disables a stream.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), GraphError> {
        self.change(name, |state| state.options.enabled = enabled)
    }

    /// Changes what lines through a stream show besides their messages.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`].
    pub fn set_flags(&self, name: &str, flags: Flags) -> Result<(), GraphError> {
        self.change(name, |state| state.options.flags = flags)
    }

    /// Changes the format of a stream's sink, from the next line on.
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

    /// Changes a stream's type and path; the old sink is closed when the last line is written.
    ///
    /// # Errors
    /// [`GraphError::UnknownStream`]; [`GraphError::Sink`], in which case nothing changes.
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

    /// Sets a property of a stream. If its sink uses the property, it takes effect when the sink is
    /// next opened.
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

    /// Sets a hook that is called once with every line that would reach a sink, before its message
    /// is formatted. If it returns `false`, the line goes no further.
    pub fn add_hook(&self, hook: impl Fn(&Record<'_>) -> bool + Send + Sync + 'static) {
        let hook: RecordHook = Arc::new(hook);
        self.change_hooks(|hooks| hooks.record.push(hook));
    }

    /// Sets a hook that is called with every line that is written as plain text, once for each
    /// sink, as the sink would get it. If it returns `false`, the sink does not get the line.
    pub fn add_text_hook(&self, hook: impl Fn(&Record<'_>, &[u8]) -> bool + Send + Sync + 'static) {
        let hook: TextHook = Arc::new(hook);
        self.change_hooks(|hooks| hooks.text.push(hook));
    }

    fn change_hooks(&self, change: impl FnOnce(&mut Hooks)) {
        let mut streams = self.streams();
        change(Arc::make_mut(&mut streams.hooks));
        streams.resolve();
    }

    /// Sets the minimum levels of streams, whatever their outlets let pass; replaces earlier ones.
    pub fn set_levels(&self, levels: Levels) {
        let mut streams = self.streams();
        streams.levels = levels;
        streams.resolve();
    }

    /// Sets a redaction for all sinks, whatever streams a line passes; replaces an earlier one.
    /// Streams may have [more](StreamOptions::redaction).
    pub fn set_redaction(&self, redaction: Redaction) {
        let mut streams = self.streams();
        streams.redaction = redaction;
        streams.resolve();
    }

    /// The redaction that [`set_redaction`](Self::set_redaction) has set.
    pub fn redaction(&self) -> Redaction {
        self.streams().redaction.clone()
    }
}
