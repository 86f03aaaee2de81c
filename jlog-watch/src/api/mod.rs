//! `/api/v1`: feeds and streams as JSON. `openapi.json` describes the answers, and a test compares
//! them.

mod control;
mod messages;
mod tail;
mod verify;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use jlog_core::Timestamp;
use serde_json::{Value, json};

use crate::feeds::{Facts, Feed, FeedView, Subscriber, Unavailable};
#[cfg(feature = "graph")]
use crate::graphs::{GraphView, StreamView};
use crate::mtev::parameter;
use crate::respond::{self, error};
use crate::watch::Core;

pub(crate) use verify::Checks;

const OPEN_API: &str = include_str!("../../openapi.json");

pub(crate) fn router(control: bool) -> Router<Arc<Core>> {
    let router = Router::new()
        .route("/openapi.json", get(async || respond::body(StatusCode::OK, respond::JSON, OPEN_API)))
        .route("/feeds", get(feeds))
        .route("/feeds/{feed}", get(feed))
        .route("/feeds/{feed}/subscribers", get(subscribers))
        .route("/feeds/{feed}/segments", get(segments))
        .route("/feeds/{feed}/messages", get(messages::messages))
        .route("/feeds/{feed}/tail", get(tail::feed))
        .merge(verify::reading());
    #[cfg(feature = "graph")]
    let router = router
        .route("/config", get(config))
        .route("/streams", get(streams))
        .route("/streams/{stream}", get(stream))
        .route("/streams/{stream}/tail", get(tail::stream));
    if control { router.merge(control::router()) } else { router }
}

/// A number in a query; the default if it is missing.
fn number(query: Option<&str>, name: &str, otherwise: u64, most: u64) -> Result<u64, Box<Response>> {
    match parameter(query, name) {
        None => Ok(otherwise),
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| *n <= most)
            .ok_or_else(|| bad(format!("{name}={text}: expected a number, at most {most}"))),
    }
}

fn bad(why: String) -> Box<Response> {
    Box::new(error(StatusCode::BAD_REQUEST, why))
}

/// A time in RFC 3339, in microseconds.
fn rfc3339(time: Timestamp) -> Value {
    let micros = i64::try_from(time.as_micros()).ok();
    match micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()) {
        Some(time) => format!("{time:.6}").into(),
        None => Value::Null,
    }
}

/// A number with three decimals; null for `None`.
fn rounded(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 1000.0).round() / 1000.0))
}

/// The view of the feed of this name, or of the only one whose path ends in it.
fn pick<'a>(feeds: &'a [FeedView], name: &str) -> Result<&'a FeedView, Box<Response>> {
    if let Some(feed) = feeds.iter().find(|feed| feed.name == name) {
        return Ok(feed);
    }
    let mut ending = feeds.iter().filter(|feed| feed.name.rsplit('/').next() == Some(name));
    match (ending.next(), ending.next()) {
        (Some(feed), None) => Ok(feed),
        (Some(_), Some(_)) => Err(Box::new(error(
            StatusCode::NOT_FOUND,
            format!("several feeds are called {name:?}: give the whole path, with %2F for its slashes"),
        ))),
        (None, _) => Err(Box::new(error(
            StatusCode::NOT_FOUND,
            format!("there is no feed {name:?}: /api/v1/feeds lists them"),
        ))),
    }
}

/// The feed itself, for a request that uses it. An error if its file system does not answer.
fn at(core: &Core, view: &FeedView) -> Result<Arc<Feed>, Box<Response>> {
    let found = core.feeds.find(&view.name).filter(|_| view.stuck.is_none());
    found.ok_or_else(|| unavailable(Unavailable::Busy(view.facts().err().unwrap_or_default())))
}

fn unavailable(why: Unavailable) -> Box<Response> {
    Box::new(match why {
        Unavailable::Busy(why) => error(StatusCode::SERVICE_UNAVAILABLE, why),
        Unavailable::Internal => error(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"),
    })
}

fn feed_json(feed: &FeedView) -> Value {
    let age = rounded(feed.reading.at.map(|at| at.elapsed().as_secs_f64()));
    let facts = match feed.facts() {
        Err(why) => return json!({ "feed": feed.name, "up": false, "error": why, "read_age_seconds": age }),
        Ok(facts) => facts,
    };
    let Facts { status, .. } = facts;
    let limits = status.limits;
    json!({
        "feed": feed.name,
        "up": true,
        "read_age_seconds": age,
        "segments": status.segments,
        "bytes": status.bytes,
        "messages": status.records,
        "first_segment": format!("{:08x}", status.first_segment),
        "last_id": facts.end.to_string(),
        "segment_size": status.meta.segment_size,
        "compressed": status.meta.format.is_lz4(),
        "checksums": status.checksums,
        "pre_commit": status.pre_commit.map(|(used, size)| json!({ "used": used, "size": size })),
        "limits": {
            "max_bytes": limits.max_bytes,
            "max_age_seconds": limits.max_age.map(|age| age.as_secs()),
            "keep_free": limits.keep_free,
            "at_limit": limits.at_limit.name(),
        },
        "disk_free": status.free,
        "full_in_seconds": rounded(facts.full_in.map(|time| time.as_secs_f64())),
        "kept_files": facts.kept.0,
        "kept_bytes": facts.kept.1,
        "appended_messages": facts.appended,
        "appended_bytes": facts.appended_bytes,
        "messages_per_second": rounded(facts.rate),
        "subscribers": facts.subscribers.len(),
    })
}

fn subscriber_json(subscriber: &Subscriber) -> Value {
    let status = &subscriber.status;
    let sound = subscriber.sound;
    json!({
        "subscriber": subscriber.name(),
        "checkpoint": status.checkpoint.map(|id| id.to_string()),
        "sound": sound,
        "lag_messages": sound.then_some(status.messages),
        "lag_bytes": sound.then_some(status.bytes),
        "lag_seconds": rounded(sound.then_some(subscriber.age)),
        "oldest": status.oldest.map(rfc3339),
        "moved": status.moved.map(rfc3339),
        "holds_oldest": status.holds_back,
        "held_bytes": status.held,
        "missed_messages": status.missed,
        "lost_messages": status.lost.map_or(0, |lost| lost.messages),
        "consumed_messages": subscriber.consumed,
        "messages_per_second": rounded(subscriber.rate.per_second()),
        "catch_up_seconds": rounded(subscriber.catches_up_in.map(|time| time.as_secs_f64())),
    })
}

/// The part of a list that fits into an answer.
fn limited(core: &Core, name: &str, all: Vec<Value>) -> Response {
    let (mut bytes, mut shown) = (100, Vec::new());
    let count = all.len();
    for value in all {
        // Serialised once more as a part of the whole.
        bytes += value.to_string().len() + 1;
        if bytes > core.limits.response_bytes {
            break;
        }
        shown.push(value);
    }
    let left_out = count - shown.len();
    respond::json(StatusCode::OK, &json!({ name: shown, "left_out": left_out }))
}

/// `GET /api/v1/feeds`
async fn feeds(State(core): State<Arc<Core>>) -> Response {
    let feeds = core.feeds.look().await;
    limited(&core, "feeds", feeds.iter().map(feed_json).collect())
}

/// `GET /api/v1/feeds/{feed}`
async fn feed(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    let feeds = core.feeds.look().await;
    match pick(&feeds, &name) {
        Ok(feed) => respond::json(StatusCode::OK, &feed_json(feed)),
        Err(response) => *response,
    }
}

/// The feed and its state, or an answer with the error if it cannot be read.
fn readable<'a>(feeds: &'a [FeedView], name: &str) -> Result<(&'a FeedView, &'a Facts), Box<Response>> {
    let feed = pick(feeds, name)?;
    let facts = feed.facts().map_err(|why| Box::new(error(StatusCode::SERVICE_UNAVAILABLE, why)))?;
    Ok((feed, facts))
}

/// `GET /api/v1/feeds/{feed}/subscribers`
async fn subscribers(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    let feeds = core.feeds.look().await;
    match readable(&feeds, &name) {
        Ok((_, facts)) => {
            limited(&core, "subscribers", facts.subscribers.iter().map(subscriber_json).collect())
        }
        Err(response) => *response,
    }
}

/// `GET /api/v1/feeds/{feed}/segments`: newest first.
async fn segments(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let feeds = core.feeds.look().await;
    let limit = number(query.as_deref(), "limit", 1000, 100_000);
    let ((feed, facts), limit) = match readable(&feeds, &name).and_then(|found| Ok((found, limit?))) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let writing = facts.status.meta.storage_log;
    let verdict = verify::Verdict::of(&core.checks, &feed.name);
    let all = &facts.status.each_segment;
    let shown = all.iter().rev().take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|segment| {
        // A subscriber whose checkpoint cannot be read may need everything.
        let needs = |subscriber: &&Subscriber| match subscriber.status.checkpoint {
            Some(id) => id.segment <= segment.number && subscriber.status.messages > 0,
            None => true,
        };
        json!({
            "segment": format!("{:08x}", segment.number),
            "messages": segment.records,
            "bytes": segment.bytes,
            "being_written": segment.number == writing,
            "state": verify::Verdict::on(verdict.as_ref(), segment.number),
            "needed_by": facts.subscribers.iter().filter(needs).count(),
        })
    });
    let shown: Vec<Value> = shown.collect();
    let left_out = all.len() - shown.len();
    respond::json(StatusCode::OK, &json!({ "segments": shown, "left_out": left_out }))
}

#[cfg(feature = "graph")]
fn stream_json(graph: &GraphView, stream: &StreamView) -> Value {
    let description = &stream.description;
    // `to_json` writes an object.
    let mut object: Value = serde_json::from_str(&description.to_json()).unwrap_or_default();
    if let Some(stats) = object.get_mut("stats").and_then(Value::as_object_mut) {
        // Sinks are not asked for their sizes.
        stats.shift_remove("size");
    }
    object["graph"] = graph.name.as_str().into();
    object["counted"] = description.stats.into();
    object["lines_per_second"] = rounded(stream.rate);
    object["failing"] = stream.failing.into();
    object["why_immaterial"] = graph.why_immaterial(description).into();
    object["queue"] = description.queue.map_or(Value::Null, |queue| {
        let age = queue.oldest_micros.map(|oldest| logdag::now_micros().saturating_sub(oldest) / 1000);
        json!({ "lines": queue.lines, "bytes": queue.bytes, "limit": queue.limit, "age_ms": age })
    });
    object
}

/// `GET /api/v1/streams`
#[cfg(feature = "graph")]
async fn streams(State(core): State<Arc<Core>>) -> Response {
    let graphs = core.graphs.look();
    let streams =
        graphs.iter().flat_map(|graph| graph.streams.iter().map(|stream| stream_json(graph, stream)));
    limited(&core, "streams", streams.collect())
}

/// `GET /api/v1/config?graph=NAME`: the current streams of a graph, as a configuration.
#[cfg(feature = "graph")]
async fn config(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let wanted = parameter(query.as_deref(), "graph");
    let found = core.graphs.named().find(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name));
    match found {
        Some((_, graph)) => respond::json(StatusCode::OK, &json!({ "toml": logdag::config::to_toml(graph) })),
        None => error(StatusCode::NOT_FOUND, "there is no such graph here"),
    }
}

/// `GET /api/v1/streams/{stream}?graph=NAME`
#[cfg(feature = "graph")]
async fn stream(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = parameter(query.as_deref(), "graph");
    for graph in core.graphs.look() {
        if wanted.as_ref().is_some_and(|wanted| *wanted != graph.name) {
            continue;
        }
        if let Some(stream) = graph.streams.iter().find(|stream| stream.description.name == name) {
            return respond::json(StatusCode::OK, &stream_json(&graph, stream));
        }
    }
    error(StatusCode::NOT_FOUND, no_stream(&name))
}

#[cfg(feature = "graph")]
fn no_stream(name: &str) -> String {
    format!("there is no log stream {name:?}: `logdag ctl list` and /api/v1/streams list them")
}
