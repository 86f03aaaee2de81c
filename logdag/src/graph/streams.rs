//! The graph's record of its streams, from which the routes of lines are computed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use super::error::{GraphError, MAX_DEPTH, MAX_NAME, MAX_WAYS};
use crate::filter::Filter;
use crate::format::Flags;
use crate::level::{Levels, Threshold};
use crate::options::{StreamConfig, StreamOptions};
use crate::patience;
use crate::redact::Redaction;
use crate::route::{Hooks, Passes, Route, Step};
use crate::sink::{Sink, SinkSpec};
use crate::slot::Slot;
use crate::sync::{Mutex, Swap};

/// Makes a sink from its spec.
pub(super) type Maker = Arc<dyn Fn(&SinkSpec) -> io::Result<Arc<dyn Sink>> + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Streams {
    pub(super) by_name: BTreeMap<String, State>,
    pub(super) makers: BTreeMap<String, Maker>,
    pub(super) asynchronous: bool,
    /// Whether a thread reports what limits leave out.
    pub(super) reporting: bool,
    pub(super) turns: Arc<Turns>,
    /// The edges of the graph; `None` if they are not known.
    pub(super) above: Option<Above>,
    /// How many changes wait for each stream's sink.
    pub(super) pending: BTreeMap<String, usize>,
    pub(super) hooks: Arc<Hooks>,
    /// Whether streams without a registered type were reported.
    pub(super) reported: Arc<AtomicBool>,
    /// The levels of streams, by name.
    pub(super) levels: Levels,
    /// What is redacted for all sinks.
    pub(super) redaction: Redaction,
    /// The base of relative paths in configurations: the working directory when the first one was
    /// applied.
    pub(super) directory: Option<PathBuf>,
}

/// For each stream, those with an outlet to it, including some that had one. So a change examines
/// only the affected streams.
pub(super) type Above = HashMap<String, Vec<String>>;

/// Locks for operations that only one thread performs at a time, and that may take long.
#[derive(Default)]
pub(super) struct Turns {
    /// Switching between the synchronous and the asynchronous mode.
    pub(super) mode: Mutex<()>,
    /// Applying a configuration.
    pub(super) configuring: Mutex<()>,
}

/// A stream, as the graph keeps it.
#[derive(Clone)]
pub(super) struct State {
    pub(super) node: Arc<Node>,
    pub(super) options: StreamOptions,
    pub(super) outlets: Vec<Outlet>,
    /// Its declaration in a configuration, and its earlier state.
    pub(super) declared: Option<Declared>,
    pub(super) slot: Option<Arc<Slot>>,
    /// Lines that came to it, if it has statistics.
    pub(super) received: Arc<AtomicU64>,
    /// Properties that an application has set.
    pub(super) properties: BTreeMap<String, String>,
}

/// A stream that a configuration declares.
#[derive(Clone)]
pub(super) struct Declared {
    by: Arc<StreamConfig>,
    /// The state to which the stream returns when a configuration no longer declares it.
    options: StreamOptions,
    outlets: Vec<Outlet>,
}

#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) to: String,
    pub(super) filter: Option<Arc<Filter>>,
    /// Counted if the stream has statistics.
    pub(super) passes: Arc<Passes>,
}

/// The state that logging to a stream reads.
pub(super) struct Node {
    /// The number of the lowest level whose lines may reach a sink.
    pub(super) least: AtomicU8,
    pub(super) route: Swap<Route>,
    /// Lines that a thread logged while it was already logging: in a signal handler, or within a
    /// sink.
    pub(super) reentrant: AtomicU64,
}

impl Node {
    pub(super) fn new(route: Route) -> Arc<Self> {
        let least = AtomicU8::new(route.threshold().number());
        Arc::new(Self { least, route: Swap::new(route), reentrant: AtomicU64::new(0) })
    }

    pub(super) fn set(&self, route: Route) {
        let least = route.threshold().number();
        self.route.store(route);
        self.least.store(least, Ordering::Release);
    }
}

impl State {
    pub(super) fn new(name: &str, options: StreamOptions) -> Self {
        Self {
            node: Node::new(Route::new(name.into(), Arc::default())),
            options,
            outlets: Vec::new(),
            declared: None,
            slot: None,
            received: Arc::default(),
            properties: BTreeMap::new(),
        }
    }

    /// Its outlets, and those that it may get again.
    pub(super) fn outlet_lists(&mut self) -> impl Iterator<Item = &mut Vec<Outlet>> {
        std::iter::once(&mut self.outlets).chain(self.declared.as_mut().map(|declared| &mut declared.outlets))
    }

    /// Its type; empty without a sink.
    pub(super) fn kind(&self) -> &str {
        self.options.sink.as_ref().map_or("", |sink| &sink.kind)
    }

    /// Its sink, if these options change only what is in front of it. In this way, a ring keeps its
    /// lines, a metric its counts, and a jlog its writer, of which only one can buffer. An old and
    /// a new queue can write to the sink at once.
    pub(super) fn reusable_sink(&self, options: &StreamOptions) -> Option<(Arc<dyn Sink>, SinkSpec)> {
        let slot = self.slot.as_ref().filter(|_| self.options.sink == options.sink)?;
        matches!(self.kind(), "memory" | "metric" | "jlog")
            .then(|| (Arc::clone(&slot.sink), slot.spec.clone()))
    }

    /// The spec of its sink; properties that were set are part of its `<config>`.
    pub(super) fn spec(&self) -> Option<SinkSpec> {
        let mut spec = self.options.sink.clone()?;
        spec.config.extend(self.properties.clone());
        Some(spec)
    }
}

/// Adds an outlet; returns whether it is new. A second outlet to the same stream is the same
/// outlet, with the first one's filter.
fn add_once(outlets: &mut Vec<Outlet>, outlet: Outlet) -> bool {
    let new = !outlets.iter().any(|known| known.to == outlet.to);
    if new {
        outlets.push(outlet);
    }
    new
}

pub(super) fn check_name(name: &str) -> Result<(), GraphError> {
    let wrong =
        name.len() > MAX_NAME || name.split('/').any(str::is_empty) || name.chars().any(char::is_control);
    if wrong { Err(GraphError::Name(name.to_owned())) } else { Ok(()) }
}

/// The fault of the outlets.
pub(super) enum Fault<'a> {
    /// These streams form a cycle: each leads to the next, and the last to the first.
    Cycle(Vec<&'a str>),
    /// Lines of this stream would pass too many streams in a row, or take too many paths.
    TooLarge(&'a str),
}

impl From<Fault<'_>> for GraphError {
    fn from(fault: Fault<'_>) -> Self {
        match fault {
            Fault::Cycle(mut cycle) => {
                cycle.extend(cycle.first().copied());
                cycle_error(cycle)
            }
            Fault::TooLarge(stream) => GraphError::TooLarge(stream.to_owned()),
        }
    }
}

/// The error for a cycle.
fn cycle_error(path: Vec<&str>) -> GraphError {
    let name = |n: usize| path.get(n).map_or_else(String::new, |name| (*name).to_owned());
    GraphError::Cycle { from: name(0), to: name(1), path: path.join(" -> ") }
}

impl Streams {
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.by_name.values().filter_map(|state| state.slot.clone()).collect()
    }

    /// The streams whose type was not registered, with that type.
    pub(super) fn unregistered(&self) -> impl Iterator<Item = (&str, &str)> {
        let waiting = self.by_name.iter().filter(|(_, state)| state.slot.is_none());
        waiting.map(|(name, state)| (&**name, state.kind())).filter(|(_, kind)| !kind.is_empty())
    }

    /// Reports on stderr, once, streams that wrote nothing because their type was not registered.
    pub(super) fn report_unregistered(&self) {
        if self.reported.swap(true, Ordering::Relaxed) {
            return;
        }
        for (name, kind) in self.unregistered() {
            // There is nowhere else to report it.
            let text = format!("log stream {name}: its type {kind:?} was never registered\n");
            patience::report(text.as_bytes());
        }
    }

    /// Undeclared streams that lead nowhere, if no sink was given a line.
    pub(super) fn unheard(&self) -> Vec<&str> {
        let counters = self.by_name.values().filter_map(|state| Some(state.slot.as_ref()?.counters()));
        if counters.into_iter().any(|of| of.lines + of.failed + of.dropped > 0) {
            return Vec::new();
        }
        let unheard = self.by_name.iter().filter(|(name, state)| {
            let takes_any = self.levels.of(name) != Threshold::NOTHING;
            let is_bare = state.outlets.is_empty() && state.kind().is_empty() && state.declared.is_none();
            !name.contains('/') && is_bare && takes_any
        });
        unheard.map(|(name, _)| &**name).collect()
    }

    /// Creates a stream and its parents, if missing.
    pub(super) fn make(&mut self, name: &str) -> &mut State {
        let mut missing = name;
        while !self.by_name.contains_key(missing) {
            let mut state = State::new(missing, StreamOptions::default());
            let parent = missing.rsplit_once('/').map(|(parent, _)| parent);
            if let (Some(above), Some(parent)) = (&mut self.above, parent) {
                above.entry(parent.to_owned()).or_default().push(missing.to_owned());
            }
            state.outlets.extend(parent.map(|to| Outlet {
                to: to.to_owned(),
                filter: None,
                passes: Arc::default(),
            }));
            self.by_name.insert(missing.to_owned(), state);
            let Some(parent) = parent else { break };
            missing = parent;
        }
        self.by_name.entry(name.to_owned()).or_insert_with(|| State::new(name, StreamOptions::default()))
    }

    /// The streams that must be created so that this one exists, from the top down. Only their own
    /// children lead to them.
    pub(super) fn missing<'a>(&self, name: &'a str) -> Vec<&'a str> {
        let cuts = name.match_indices('/').map(|(at, _)| &name[..at]).chain([name]);
        cuts.filter(|name| !self.by_name.contains_key(*name)).collect()
    }

    /// Removes streams that were just created.
    pub(super) fn unmake(&mut self, new: &[&str]) {
        for name in new {
            self.by_name.remove(*name);
        }
        self.above = None;
    }

    /// Adds an outlet, creating both streams if missing. On an error, nothing is changed.
    pub(super) fn connect(
        &mut self,
        from: &str,
        to: &str,
        filter: Option<Arc<Filter>>,
    ) -> Result<(), GraphError> {
        check_name(from)?;
        check_name(to)?;
        let mut new = self.missing(from);
        self.make(from);
        new.extend(self.missing(to));
        self.make(to);
        if let Some(mut path) = self.path(to, from) {
            path.insert(0, from);
            let cycle = cycle_error(path);
            self.unmake(&new);
            return Err(cycle);
        }
        let outlet = Outlet { to: to.to_owned(), filter, passes: Arc::default() };
        let lists = self.make(from).outlet_lists();
        let added: Vec<bool> = lists.map(|outlets| add_once(outlets, outlet.clone())).collect();
        if let Some(above) = self.above.as_mut().filter(|_| added.contains(&true)) {
            above.entry(to.to_owned()).or_default().push(from.to_owned());
        }
        let changed = self.with_those_above(from);
        let measured = self.measure(changed.iter().map(String::as_str)).map_err(GraphError::from);
        if measured.is_err() {
            for (outlets, added) in self.make(from).outlet_lists().zip(added) {
                outlets.truncate(outlets.len() - usize::from(added));
            }
            self.unmake(&new);
            return measured;
        }
        for name in changed.iter().map(String::as_str).chain(new) {
            self.resolve_one(name);
        }
        Ok(())
    }

    /// A stream and all streams that lead to it, directly or not.
    fn with_those_above(&mut self, name: &str) -> Vec<String> {
        let by_name = &self.by_name;
        let above = self.above.get_or_insert_with(|| {
            let mut above = Above::new();
            for (from, state) in by_name {
                for outlet in &state.outlets {
                    above.entry(outlet.to.clone()).or_default().push(from.clone());
                }
            }
            above
        });
        let (mut all, mut known) = (vec![name], HashSet::from([name]));
        let mut next = 0;
        while let Some(&name) = all.get(next) {
            let direct = above.get(name).into_iter().flatten();
            all.extend(direct.map(String::as_str).filter(|name| known.insert(*name)));
            next += 1;
        }
        all.into_iter().map(str::to_owned).collect()
    }

    /// The streams that the previous configuration declares and this list does not, in their
    /// earlier state.
    pub(super) fn undeclared(&self, list: &[StreamConfig]) -> Vec<StreamConfig> {
        let listed: HashSet<&str> = list.iter().map(|one| &*one.name).collect();
        let before = |(name, state): (&String, &State)| {
            let declared = state.declared.as_ref().filter(|_| !listed.contains(&**name))?;
            let outlet = |outlet: &Outlet| (outlet.to.clone(), outlet.filter.as_deref().cloned());
            Some(StreamConfig {
                name: name.clone(),
                options: declared.options.clone(),
                outlets: declared.outlets.iter().map(outlet).collect(),
            })
        };
        self.by_name.iter().filter_map(before).collect()
    }

    /// Whether the configuration before this one declares a stream in the same way.
    pub(super) fn declares_as_before(&self, configured: &StreamConfig) -> bool {
        let declared = self.by_name.get(&configured.name).and_then(|state| state.declared.as_ref());
        declared.is_some_and(|declared| *declared.by == *configured)
    }

    /// Adds the streams of a list, without sinks, and replaces their outlets with those of the
    /// list. From `undeclared` on, the streams return to their earlier state.
    pub(super) fn connect_all(
        &mut self,
        list: &[StreamConfig],
        undeclared: usize,
    ) -> Result<(), (usize, GraphError)> {
        for (n, configured) in list.iter().enumerate() {
            check_name(&configured.name).map_err(|e| (n, e))?;
            let state = self.make(&configured.name);
            let outlets = std::mem::take(&mut state.outlets);
            if n >= undeclared {
                state.declared = None;
                continue;
            }
            let by = Arc::new(configured.clone());
            match &mut state.declared {
                Some(declared) => declared.by = by,
                None => state.declared = Some(Declared { by, options: state.options.clone(), outlets }),
            }
        }
        for (n, StreamConfig { name, outlets, .. }) in list.iter().enumerate() {
            // A name or a stream may appear twice: the first of equal outlets counts.
            let mut known: HashSet<&str> = HashSet::with_capacity(outlets.len());
            let mut new = Vec::with_capacity(outlets.len());
            for (to, filter) in outlets {
                check_name(to).map_err(|e| (n, e))?;
                self.make(to);
                if known.insert(to) {
                    let filter = filter.clone().map(Arc::new);
                    new.push(Outlet { to: to.clone(), filter, passes: Arc::default() });
                }
            }
            let all = &mut self.make(name).outlets;
            if all.is_empty() {
                *all = new;
            } else {
                new.into_iter().for_each(|outlet| _ = add_once(all, outlet));
            }
        }
        self.measure(self.by_name.keys().map(String::as_str)).map_err(|fault| match fault {
            Fault::Cycle(cycle) => {
                // The last of the list on it is reported.
                let on_it = |(n, configured): (usize, &StreamConfig)| {
                    Some((n, cycle.iter().position(|name| *name == configured.name)?))
                };
                let (n, at) = list.iter().enumerate().filter_map(on_it).next_back().unwrap_or((0, 0));
                (n, cycle_error(cycle.iter().cycle().skip(at).take(cycle.len() + 1).copied().collect()))
            }
            Fault::TooLarge(name) => {
                let at = list.iter().position(|configured| configured.name == name);
                (at.unwrap_or(0), GraphError::TooLarge(name.to_owned()))
            }
        })
    }

    /// A path along outlets, by names.
    fn path<'a>(&'a self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut came_from: HashMap<&str, Option<&'a str>> = HashMap::from([(from, None)]);
        let mut ahead = vec![from];
        while let Some(name) = ahead.pop() {
            if name == to {
                let back = std::iter::successors(Some(name), |at| came_from.get(at).copied().flatten());
                let mut path: Vec<&str> = back.collect();
                path.reverse();
                return Some(path);
            }
            for outlet in self.by_name.get(name).into_iter().flat_map(|state| &state.outlets) {
                came_from.entry(&outlet.to).or_insert_with(|| {
                    ahead.push(&outlet.to);
                    Some(name)
                });
            }
        }
        None
    }

    /// Checks that lines of these streams pass no cycle, and neither too many streams nor too many
    /// ways.
    pub(super) fn measure<'a>(&'a self, streams: impl IntoIterator<Item = &'a str>) -> Result<(), Fault<'a>> {
        // The longest way and the number of ways from each stream; `None` while the stream itself
        // is being visited.
        let mut known: HashMap<&str, Option<(usize, usize)>> = HashMap::new();
        let outlets = |name: &str| self.by_name.get(name).map_or(&[][..], |state| &state.outlets);
        for stream in streams {
            let mut ahead = vec![(stream, 0)];
            while let Some((name, next)) = ahead.last_mut() {
                let name = *name;
                if *next == 0 && known.get(name).is_some_and(Option::is_some) {
                    ahead.pop();
                    continue;
                }
                known.entry(name).or_default();
                if let Some(outlet) = outlets(name).get(*next) {
                    *next += 1;
                    match known.get(&*outlet.to) {
                        None => ahead.push((&outlet.to, 0)),
                        Some(Some(_)) => {}
                        Some(None) => {
                            let way = ahead.iter().map(|&(name, _)| name);
                            return Err(Fault::Cycle(way.skip_while(|name| *name != outlet.to).collect()));
                        }
                    }
                    continue;
                }
                let (mut depth, mut ways) = (0, 0usize);
                for outlet in outlets(name) {
                    let (further, more) = known.get(&*outlet.to).copied().flatten().unwrap_or_default();
                    depth = depth.max(further);
                    ways = ways.saturating_add(more);
                }
                let (depth, ways) = (depth + 1, ways.saturating_add(1));
                if depth > MAX_DEPTH || ways > MAX_WAYS {
                    return Err(Fault::TooLarge(name));
                }
                known.insert(name, Some((depth, ways)));
                ahead.pop();
            }
        }
        Ok(())
    }

    /// Recomputes where lines of every stream go, whatever has changed.
    pub(super) fn resolve(&mut self) {
        self.above = None;
        for name in self.by_name.keys() {
            self.resolve_one(name);
        }
    }

    /// The same if a stream has changed, but no outlet.
    pub(super) fn resolve_from(&mut self, name: &str) {
        for name in self.with_those_above(name) {
            self.resolve_one(&name);
        }
    }

    /// The same for one stream that no other leads to.
    pub(super) fn resolve_one(&self, name: &str) {
        let Some(state) = self.by_name.get(name) else { return };
        let mut route = Route::new(name.into(), Arc::clone(&self.hooks));
        self.follow(name, Flags::default(), &Arc::new(self.redaction.clone()), &mut route);
        route.takes(self.levels.of(name));
        state.node.set(route);
    }

    fn follow(&self, name: &str, flags: Flags, redaction: &Arc<Redaction>, route: &mut Route) {
        let Some(state) = self.by_name.get(name).filter(|state| state.options.enabled) else { return };
        let flags = flags.union(state.options.flags);
        let more = &state.options.redaction;
        let united = (!more.is_empty()).then(|| Arc::new(redaction.union(more)));
        let redaction = united.as_ref().unwrap_or(redaction);
        let before = route.steps.len();
        if state.options.stats {
            route.steps.push(Step::Count(Arc::clone(&state.received)));
        }
        let counted = route.steps.len();
        if let Some(slot) = &state.slot {
            let redaction = (!redaction.is_empty()).then(|| Arc::clone(redaction));
            route.steps.push(Step::Deliver { slot: Arc::clone(slot), flags, redaction });
        }
        for (n, outlet) in state.outlets.iter().enumerate() {
            let at = route.steps.len();
            if let Some(filter) = &outlet.filter {
                let edge = route.edge(name, n);
                let passes = state.options.stats.then(|| Arc::clone(&outlet.passes));
                route.steps.push(Step::Filter { filter: Arc::clone(filter), edge, behind: 0, passes });
            }
            let begun = route.steps.len();
            self.follow(&outlet.to, flags, redaction, route);
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
        if route.steps.len() == counted {
            // Nothing is logged to what leads nowhere.
            route.steps.truncate(before);
        }
    }

    /// Renames a stream; outlets to it stay.
    pub(super) fn rename(&mut self, old: &str, new: &str) -> Result<(), GraphError> {
        check_name(new)?;
        if self.by_name.contains_key(new) {
            return Err(GraphError::StreamExists(new.to_owned()));
        }
        let state = self.by_name.remove(old).ok_or_else(|| GraphError::UnknownStream(old.to_owned()))?;
        for outlet in self.by_name.values_mut().flat_map(State::outlet_lists).flatten() {
            if outlet.to == old {
                new.clone_into(&mut outlet.to);
            }
        }
        self.by_name.insert(new.to_owned(), state);
        Ok(())
    }

    /// The names of the streams that a condition holds for.
    pub(super) fn names(&self, wanted: impl Fn(&State) -> bool) -> Vec<String> {
        self.by_name.iter().filter(|(_, state)| wanted(state)).map(|(name, _)| name.clone()).collect()
    }
}
