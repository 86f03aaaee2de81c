//! Descriptions of streams, for people and tools.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::handle::Graph;
use super::stream::Stream;
use super::streams::Outlet;
use crate::format::{Flags, Format};
use crate::redact::Redaction;
use crate::slot::{Counters, QueueStats, Slot};

/// The counters of an outlet's filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterStats {
    /// Lines that reached it.
    pub lines: u64,
    /// Lines that did not pass.
    pub filtered: u64,
}

/// The description of a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
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
    /// Whether plain lines have control characters escaped there.
    pub escape: bool,
    /// Whether `json` and `event` include the spans around a line there.
    pub spans: bool,
    /// What is removed from lines through it before a sink gets them.
    pub redaction: Redaction,
    /// Whether lines go through it.
    pub enabled: bool,
    /// Whether a line that is logged to it reaches a sink.
    pub enabled_below: bool,
    /// Its outlets: names, and the text of filters.
    pub outlets: Vec<(String, Option<String>)>,
    /// Lines that limits and samples of outlets have left out, by the outlets' names.
    pub left_out: BTreeMap<String, u64>,
    /// Lines that reached the filters of outlets, and how many of them did not pass, by the
    /// outlets' names, if [`stats`](StreamInfo::stats) is on. Lines of levels that no outlet
    /// accepts are not counted: they are dropped earlier.
    pub filtered: BTreeMap<String, FilterStats>,
    /// Its `<config>`, with the properties that were set.
    pub config: BTreeMap<String, String>,
    /// Whether libmtev's statistics include it
    /// ([`StreamOptions::stats`](crate::StreamOptions::stats)).
    pub stats: bool,
    /// Lines that came to it on any path and could reach a sink from there, if
    /// [`stats`](StreamInfo::stats) is on. A stream without a sink counts, too.
    pub received: Option<u64>,
    /// The counters of its sink.
    pub counters: Counters,
    /// The state of its queue; `None` without one.
    pub queue: Option<QueueStats>,
    /// How often its file was rotated; `None` without one.
    pub rotations: Option<u64>,
    /// The size of its sink, in bytes.
    pub size: Option<u64>,
    /// Lines that were left out because their thread was already logging, in a signal handler or
    /// within a sink.
    pub reentrant: u64,
}

impl StreamInfo {
    /// A JSON object: `name`, `type`, `path`, `format`, `enabled`, `enabled_below` (whether a line
    /// reaches a sink), `debugging`, `timestamps`, `facility`, `level`, `keys`, `target`, `source`,
    /// `spans`, `escape`, `redact`, `redact_pattern`, `stats` (`lines`, `bytes`, `dropped`,
    /// `failed`, `repeated`, and `size`, which may be null; `reentrant`, if there are any;
    /// `received`, if statistics are on), `config` (an object of strings), and `outlets` (objects
    /// with `name` and, if there are any, `filter` and `left_out`, the lines that a limit or a
    /// sample held back; with `stats`, `lines` that reached the filter, and `filtered` that did not
    /// pass it).
    pub fn to_json(&self) -> String {
        let outlet = |(name, filter): &(String, Option<String>)| {
            let mut outlet = json!({ "name": name });
            if let Some(filter) = filter {
                outlet["filter"] = filter.as_str().into();
            }
            if let Some(lines) = self.left_out.get(name) {
                outlet["left_out"] = (*lines).into();
            }
            if let Some(FilterStats { lines, filtered }) = self.filtered.get(name) {
                (outlet["lines"], outlet["filtered"]) = ((*lines).into(), (*filtered).into());
            }
            outlet
        };
        let Counters { lines, bytes, dropped, failed, repeated } = self.counters;
        let (keys, patterns) = self.redaction.parts();
        let config: Map<String, Value> =
            self.config.iter().map(|(key, value)| (key.clone(), Value::from(&**value))).collect();
        let mut json = json!({
            "name": self.name,
            "type": self.kind,
            "path": self.path,
            "format": self.format.name(),
            "enabled": self.enabled,
            "enabled_below": self.enabled_below,
            "debugging": self.flags.debug,
            "timestamps": self.flags.timestamps,
            "facility": self.flags.facility,
            "level": self.flags.level,
            "keys": self.flags.keys,
            "target": self.flags.target,
            "source": self.flags.source,
            "spans": self.spans,
            "escape": self.escape,
            "redact": keys.join(","),
            "redact_pattern": patterns.join("|"),
            "stats": {
                "lines": lines, "bytes": bytes, "dropped": dropped, "failed": failed, "repeated": repeated,
                "size": self.size,
            },
            "config": config,
            "outlets": self.outlets.iter().map(outlet).collect::<Vec<Value>>(),
        });
        if self.reentrant > 0 {
            json["stats"]["reentrant"] = self.reentrant.into();
        }
        if let Some(received) = self.received {
            json["stats"]["received"] = received.into();
        }
        json.to_string()
    }
}

impl Graph {
    /// The description of a stream.
    pub fn describe(&self, name: &str) -> Option<StreamInfo> {
        let (mut description, slot) = self.describe_without_size(name)?;
        description.size = slot.and_then(|slot| slot.size());
        Some(description)
    }

    /// Describes every stream, sorted by name, without [`size`](StreamInfo::size). It queries no
    /// sink, so it waits for none, and delays logging only while it copies the description of one
    /// stream.
    pub fn describe_all(&self) -> Vec<StreamInfo> {
        self.names().iter().filter_map(|name| Some(self.describe_without_size(name)?.0)).collect()
    }

    fn describe_without_size(&self, name: &str) -> Option<(StreamInfo, Option<Arc<Slot>>)> {
        let streams = self.streams();
        let state = streams.by_name.get(name)?;
        let slot = state.slot.clone();
        let mut spec = state.spec().unwrap_or_default();
        if let Some(slot) = &slot {
            // The path where it was opened, whatever the working directory is now.
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
            received: state.options.stats.then(|| state.received.load(Ordering::Relaxed)),
            counters: Counters::default(),
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
