//! Health checks, with the reasons for problems.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::feeds::{Facts, FeedView};
use crate::respond;
use crate::watch::{Core, View};

/// When `/health/ready` reports a problem. A limit that is `None` is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// The maximum age of a message that a subscriber has not done. Default: `None`.
    pub max_lag: Option<Duration>,
    /// The maximum number of messages that a subscriber may be behind. Default: `None`.
    pub max_messages: Option<u64>,
    /// The minimum number of free bytes on a feed's file system. Default: `None`.
    pub min_free: Option<u64>,
    /// The minimum time until a feed's file system, or its limit, is full at the rate of the last
    /// minute. Default: 10 minutes.
    pub full_within: Option<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_lag: None,
            max_messages: None,
            min_free: None,
            full_within: Some(Duration::from_secs(600)),
        }
    }
}

impl Thresholds {
    /// Reports subscribers whose oldest message is older than this.
    #[must_use]
    pub fn max_lag(mut self, age: Duration) -> Self {
        self.max_lag = Some(age);
        self
    }

    /// Reports subscribers that are behind by more messages than this.
    #[must_use]
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = Some(messages);
        self
    }

    /// Reports file systems with fewer free bytes than this.
    #[must_use]
    pub fn min_free(mut self, bytes: u64) -> Self {
        self.min_free = Some(bytes);
        self
    }

    /// Reports file systems and limits that will be full within this time; `None`: never.
    #[must_use]
    pub fn full_within(mut self, time: Option<Duration>) -> Self {
        self.full_within = time;
        self
    }
}

/// A problem: its kind, the object that has it, and a sentence.
#[derive(Debug, PartialEq)]
pub(crate) struct Reason {
    kind: &'static str,
    about: [(&'static str, String); 2],
    pub(crate) text: String,
}

impl Reason {
    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), self.kind.into());
        for (key, value) in self.about.iter().filter(|(key, _)| !key.is_empty()) {
            object.insert((*key).to_owned(), value.as_str().into());
        }
        object.insert("text".to_owned(), self.text.as_str().into());
        Value::Object(object)
    }
}

/// A number with what it counts.
fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// The problems, worst first.
pub(crate) fn reasons(view: &View, thresholds: &Thresholds) -> Vec<Reason> {
    let mut found = Vec::new();
    for feed in &view.feeds {
        match feed.facts() {
            // A feed that is gone from a directory of feeds was removed on purpose.
            Err(_) if feed.gone => {}
            Err(text) => {
                let kind = if feed.reading.damaged { "damage" } else { "feed_unreadable" };
                found.push(Reason { kind, about: about(feed, None), text });
            }
            Ok(facts) => of_feed(feed, facts, thresholds, &mut found),
        }
    }
    #[cfg(feature = "graph")]
    for graph in &view.graphs {
        for stream in graph.streams.iter().filter(|stream| stream.failing) {
            let counters = stream.description.counters;
            let about = [("stream", stream.description.name.clone()), of_graph(&graph.name)];
            let text = format!(
                "log stream {} has lost lines within the last minute: {} failed and {} dropped so far",
                stream.description.name,
                counted(counters.failed, "line"),
                counters.dropped
            );
            found.push(Reason { kind: "sink_failing", about, text });
        }
    }
    let order =
        ["damage", "lost", "feed_unreadable", "sink_failing", "disk_free", "disk_full", "subscriber_behind"];
    found.sort_by_key(|reason| order.iter().position(|kind| *kind == reason.kind));
    found
}

#[cfg(feature = "graph")]
fn of_graph(name: &str) -> (&'static str, String) {
    if name.is_empty() { ("", String::new()) } else { ("graph", name.to_owned()) }
}

fn about(feed: &FeedView, subscriber: Option<&str>) -> [(&'static str, String); 2] {
    let subscriber =
        subscriber.map_or_else(|| ("", String::new()), |subscriber| ("subscriber", subscriber.to_owned()));
    [("feed", feed.name.clone()), subscriber]
}

fn of_feed(feed: &FeedView, facts: &Facts, thresholds: &Thresholds, found: &mut Vec<Reason>) {
    let free = facts.status.free;
    if let Some(least) = thresholds.min_free.filter(|least| free < *least) {
        let text = format!("{free} bytes are free on the file system of {}, fewer than {least}", feed.name);
        found.push(Reason { kind: "disk_free", about: about(feed, None), text });
    }
    let soon = |time: &Duration| thresholds.full_within.is_some_and(|within| *time < within);
    if let Some(time) = facts.full_in.filter(soon) {
        let text = format!(
            "the disk or the limit of {} will be full in {} at the rate of the last minute",
            feed.name,
            seconds(time)
        );
        found.push(Reason { kind: "disk_full", about: about(feed, None), text });
    }
    for subscriber in &facts.subscribers {
        let (name, status) = (subscriber.name(), &subscriber.status);
        let mut push = |kind: &'static str, text: String| {
            found.push(Reason {
                kind,
                about: about(feed, Some(name)),
                text: format!("subscriber {name:?} of {}: {text}", feed.name),
            });
        };
        match status.checkpoint {
            None => push("damage", "its checkpoint cannot be read".to_owned()),
            Some(id) if !subscriber.sound => {
                push("damage", format!("its checkpoint {id} is past the end {}", facts.end));
            }
            Some(_) => {}
        }
        if let Some(lost) = status.lost {
            let at_least = if lost.exact { "" } else { "at least " };
            push(
                "lost",
                format!("{at_least}{} lost with missing segments", counted(lost.messages, "message")),
            );
        }
        let age = Duration::try_from_secs_f64(subscriber.age).unwrap_or_default();
        if let Some(limit) = thresholds.max_lag.filter(|limit| age > *limit) {
            let text = format!("its oldest message is {} old, more than {}", seconds(age), seconds(limit));
            push("subscriber_behind", text);
        }
        if let Some(limit) = thresholds.max_messages.filter(|limit| status.messages > *limit) {
            push(
                "subscriber_behind",
                format!("it is {} behind, more than {limit}", counted(status.messages, "message")),
            );
        }
    }
}

/// `GET /health/live`: this process answers.
pub(crate) async fn live(State(core): State<Arc<Core>>) -> Response {
    let up = core.started.elapsed().unwrap_or_default();
    respond::json(StatusCode::OK, &json!({ "status": "ok", "up_seconds": up.as_secs() }))
}

/// `GET /health/ready`: 200 if there is no problem, otherwise 503 with the reasons.
pub(crate) async fn ready(State(core): State<Arc<Core>>) -> Response {
    /// Reasons beyond this number are only counted.
    const MAX: usize = 1000;
    let view = core.view().await;
    let reasons = reasons(&view, &core.thresholds);
    let (code, status) = match reasons.is_empty() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let shown: Vec<Value> = reasons.iter().take(MAX).map(Reason::json).collect();
    let mut answer = json!({ "status": status, "reasons": shown });
    if reasons.len() > MAX {
        answer["reasons_left_out"] = (reasons.len() - MAX).into();
    }
    respond::json(code, &answer)
}
