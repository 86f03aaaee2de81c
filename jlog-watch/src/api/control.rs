//! Requests that change something. They need permission from the server's options.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{post, put};
use jlog_core::{Error, Jlog, LogId, Start};
use serde_json::{Map, Value, json};

use super::{at, bad, pick, unavailable};
use crate::names;
use crate::respond::{self, error};
use crate::watch::Core;

/// How long a change waits for changes in progress.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this time, the client that requested a reload is told that it is still in progress.
const RELOAD: Duration = Duration::from_secs(1);

pub(super) fn router() -> Router<Arc<Core>> {
    let router = Router::new()
        .route("/feeds/{feed}/subscribers/{subscriber}", put(put_subscriber).delete(delete_subscriber))
        .route("/reload", post(reload))
        .merge(super::verify::changing());
    #[cfg(feature = "graph")]
    let router = router.merge(streams::router());
    router
}

/// The members of a body, which is an object or empty. Unknown members are an error.
fn members(body: &Bytes, known: &[&str]) -> Result<Map<String, Value>, Box<Response>> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let members: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| bad(format!("the body: expected a JSON object: {e}")))?;
    match members.keys().find(|key| !known.contains(&&***key)) {
        Some(key) => Err(bad(format!("the body: unknown member {key:?}: expected {}", known.join(", ")))),
        None => Ok(members),
    }
}

fn boolean(members: &Map<String, Value>, name: &str) -> Result<Option<bool>, Box<Response>> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(bad(format!("{name}: {other}: expected true or false"))),
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Box<Response>> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(other) => Err(bad(format!("{name}: {other}: expected a string"))),
    }
}

fn internal() -> Box<Response> {
    Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, "an internal error"))
}

/// Runs something that may block, a few at a time.
#[cfg(feature = "graph")]
pub(super) async fn change<T: Send + 'static>(
    core: &Core,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Response>> {
    begin(core, work).await?.await.map_err(|_| internal())
}

/// Starts something that may block.
async fn begin<T: Send + 'static>(
    core: &Core,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<tokio::task::JoinHandle<T>, Box<Response>> {
    let permit = tokio::time::timeout(PATIENCE, Arc::clone(&core.changes).acquire_owned());
    let busy = |_| {
        let why = "other changes are under way and do not end: try again later";
        Box::new(error(StatusCode::SERVICE_UNAVAILABLE, why))
    };
    let permit = permit.await.map_err(busy)?.map_err(|_| internal())?;
    Ok(tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    }))
}

fn refused(e: &Error) -> Response {
    let status = match e {
        Error::SubscriberExists { .. } => StatusCode::CONFLICT,
        Error::UnknownSubscriber { .. } => StatusCode::NOT_FOUND,
        Error::NoSuchRecord { .. } | Error::SubscriberName { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, e.to_string())
}

fn start(at: &str) -> Option<Start> {
    match at {
        "beginning" => Some(Start::Beginning),
        "end" => Some(Start::End),
        id if id.parse::<LogId>().is_ok() => id.parse().ok().map(Start::After),
        time => {
            let time: jiff::Timestamp = time.parse().ok()?;
            Some(Start::Since(std::time::SystemTime::from(time).into()))
        }
    }
}

/// Opens the feed and runs something with it.
async fn with_feed<T: Send + 'static>(
    core: &Core,
    name: &str,
    work: impl FnOnce(Jlog) -> Result<T, Error> + Send + 'static,
) -> Result<T, Box<Response>> {
    let feeds = core.feeds.look().await;
    let view = pick(&feeds, name)?;
    let done = at(core, view)?.request(PATIENCE, move |feed| feed.open().and_then(work)).await;
    done.map_err(unavailable)?.map_err(|e| Box::new(refused(&e)))
}

/// `PUT /api/v1/feeds/{feed}/subscribers/{subscriber}` with `at` (by default the beginning) and
/// `move`.
async fn put_subscriber(
    State(core): State<Arc<Core>>,
    Path((feed, subscriber)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let asked = members(&body, &["at", "move"]).and_then(|members| {
        let at = text(&members, "at")?.unwrap_or("beginning");
        let expected = || bad(format!("at: {at:?}: expected beginning, end, an id, or a time in RFC 3339"));
        Ok((start(at).ok_or_else(expected)?, boolean(&members, "move")?.unwrap_or(false)))
    });
    let (start, moves) = match asked {
        Ok(asked) => asked,
        Err(response) => return *response,
    };
    let name = names::parse(&subscriber);
    let done = with_feed(&core, &feed, move |log| {
        if moves && log.has_subscriber(&name)? {
            let id = log.resolve(&start)?;
            log.set_checkpoint(&name, id)?;
            return Ok((StatusCode::OK, id));
        }
        Ok((StatusCode::CREATED, log.subscribe(&name, start)?))
    });
    match done.await {
        Ok((status, id)) => {
            respond::json(status, &json!({ "subscriber": subscriber, "checkpoint": id.to_string() }))
        }
        Err(response) => *response,
    }
}

/// `DELETE /api/v1/feeds/{feed}/subscribers/{subscriber}`
async fn delete_subscriber(
    State(core): State<Arc<Core>>,
    Path((feed, subscriber)): Path<(String, String)>,
) -> Response {
    let name = names::parse(&subscriber);
    match with_feed(&core, &feed, move |log| log.unsubscribe(&name)).await {
        Ok(true) => respond::json(StatusCode::OK, &json!({ "subscriber": subscriber })),
        Ok(false) => error(StatusCode::NOT_FOUND, format!("there is no subscriber {subscriber:?}")),
        Err(response) => *response,
    }
}

/// `POST /api/v1/reload`: reloads the configuration. If a sink delays it, the answer says which.
async fn reload(State(core): State<Arc<Core>>) -> Response {
    let Some(reload) = core.reload.clone() else {
        return error(StatusCode::NOT_FOUND, "there is no configuration to reload here");
    };
    let under_way = match begin(&core, move || (reload.0)()).await {
        Ok(under_way) => under_way,
        Err(response) => return *response,
    };
    match tokio::time::timeout(RELOAD, under_way).await {
        Ok(Ok(Ok(()))) => respond::json(StatusCode::OK, &json!({ "reloaded": true })),
        Ok(Ok(Err(why))) => error(StatusCode::BAD_REQUEST, why),
        Ok(Err(_)) => *internal(),
        // It continues even if the client disconnects.
        Err(_) => {
            let pending = json!({ "reloaded": false, "pending": pending(&core) });
            respond::json(StatusCode::ACCEPTED, &pending)
        }
    }
}

/// The streams whose sinks changes wait for.
#[cfg(feature = "graph")]
fn pending(core: &Core) -> Vec<String> {
    core.graphs.all().flat_map(logdag::Graph::pending).collect()
}

#[cfg(not(feature = "graph"))]
fn pending(_: &Core) -> Vec<String> {
    Vec::new()
}

#[cfg(feature = "graph")]
mod streams {
    //! Log streams.

    use axum::extract::RawQuery;
    use axum::routing::patch;
    use logdag::{Flags, Graph, GraphError, Level, Location};

    use super::*;
    use crate::mtev::parameter;

    pub(super) fn router() -> Router<Arc<Core>> {
        Router::new()
            .route("/streams/{stream}", patch(change_stream))
            .route("/streams/{stream}/log", post(log_line))
            .route("/streams/{stream}/rotate", post(rotate))
            .route("/streams/{stream}/reopen", post(reopen))
            .route("/streams/{stream}/outlets/{outlet}", put(put_outlet).delete(delete_outlet))
    }

    fn refused(e: &GraphError) -> Box<Response> {
        let status = match e {
            GraphError::UnknownStream(_) => StatusCode::NOT_FOUND,
            GraphError::Sink { source, .. } if source.kind() != std::io::ErrorKind::Unsupported => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Box::new(error(status, e.to_string()))
    }

    /// The graph that has a stream of this name.
    fn graph_of(core: &Core, stream: &str, query: Option<&str>) -> Result<Graph, Box<Response>> {
        let wanted = parameter(query, "graph");
        let is = |name: &str, graph: &Graph| {
            wanted.as_ref().is_none_or(|wanted| wanted == name) && graph.find(stream).is_some()
        };
        let found = core.graphs.named().find(|(name, graph)| is(name, graph));
        found.map(|(_, graph)| graph.clone()).ok_or_else(|| {
            let why = super::super::no_stream(stream);
            Box::new(error(StatusCode::NOT_FOUND, why))
        })
    }

    /// Runs something with a stream's graph, and returns the outcome.
    async fn with_graph(
        core: &Core,
        stream: &str,
        query: Option<&str>,
        work: impl FnOnce(&Graph) -> Result<(), GraphError> + Send + 'static,
    ) -> Response {
        let done = async {
            let graph = graph_of(core, stream, query)?;
            change(core, move || work(&graph)).await?.map_err(|e| refused(&e))
        };
        match done.await {
            Ok(()) => respond::json(StatusCode::OK, &json!({ "stream": stream })),
            Err(response) => *response,
        }
    }

    type Named = (State<Arc<Core>>, Path<String>, RawQuery);

    const FLAGS: [&str; 7] = ["debugging", "timestamps", "facility", "level", "keys", "target", "source"];

    /// `PATCH /api/v1/streams/{stream}` with `enabled` and flags.
    async fn change_stream((State(core), Path(name), RawQuery(query)): Named, body: Bytes) -> Response {
        let mut known = vec!["enabled"];
        known.extend(FLAGS);
        let asked = members(&body, &known).and_then(|members| {
            let flags: Vec<Option<bool>> =
                FLAGS.iter().map(|flag| boolean(&members, flag)).collect::<Result<_, _>>()?;
            let enabled = boolean(&members, "enabled")?;
            if members.is_empty() {
                return Err(bad(format!("nothing to change: give {}", known.join(", "))));
            }
            Ok((enabled, flags))
        });
        let (enabled, changed) = match asked {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        let stream = name.clone();
        with_graph(&core, &name, query.as_deref(), move |graph| {
            if changed.iter().any(Option::is_some) {
                let known = graph.options(&stream).ok_or(GraphError::UnknownStream(stream.clone()))?;
                graph.set_flags(&stream, merged(known.flags, &changed))?;
            }
            enabled.map_or(Ok(()), |enabled| graph.set_enabled(&stream, enabled))
        })
        .await
    }

    /// The new values of flags, in the order of [`FLAGS`].
    fn merged(mut flags: Flags, changed: &[Option<bool>]) -> Flags {
        let all = [
            &mut flags.debug,
            &mut flags.timestamps,
            &mut flags.facility,
            &mut flags.level,
            &mut flags.keys,
            &mut flags.target,
            &mut flags.source,
        ];
        for (flag, change) in all.into_iter().zip(changed) {
            *flag = change.unwrap_or(*flag);
        }
        flags
    }

    /// `POST /api/v1/streams/{stream}/log` with `text` and `level`.
    async fn log_line((State(core), Path(name), RawQuery(query)): Named, body: Bytes) -> Response {
        let asked = members(&body, &["text", "level"]).and_then(|members| {
            let line = text(&members, "text")?.ok_or_else(|| bad("text is missing".to_owned()))?;
            let level = text(&members, "level")?.unwrap_or("info");
            let level = Level::from_name(level).ok_or_else(|| {
                bad(format!("level: {level:?}: expected trace, debug, info, warn or error"))
            })?;
            Ok((line.to_owned(), level))
        });
        let (line, level) = match asked {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        let stream = name.clone();
        with_graph(&core, &name, query.as_deref(), move |graph| {
            let stream = graph.find(&stream).ok_or(GraphError::UnknownStream(stream))?;
            stream.log(level, &Location::UNKNOWN, &[], &format_args!("{line}"));
            Ok(())
        })
        .await
    }

    /// `POST /api/v1/streams/{stream}/rotate`
    async fn rotate((State(core), Path(name), RawQuery(query)): Named) -> Response {
        let stream = name.clone();
        with_graph(&core, &name, query.as_deref(), move |graph| graph.rotate(&stream)).await
    }

    /// `POST /api/v1/streams/{stream}/reopen`
    async fn reopen((State(core), Path(name), RawQuery(query)): Named) -> Response {
        let stream = name.clone();
        with_graph(&core, &name, query.as_deref(), move |graph| graph.reopen_stream(&stream)).await
    }

    type Between = (State<Arc<Core>>, Path<(String, String)>, RawQuery);

    /// `PUT /api/v1/streams/{stream}/outlets/{outlet}` with `filter`.
    async fn put_outlet((State(core), Path((from, to)), RawQuery(query)): Between, body: Bytes) -> Response {
        let filter =
            members(&body, &["filter"]).and_then(|members| Ok(text(&members, "filter")?.map(str::to_owned)));
        let checked = filter.and_then(|filter| {
            let graph = graph_of(&core, &from, query.as_deref())?;
            // A mistyped name must not create a stream.
            if graph.find(&to).is_none() {
                return Err(refused(&GraphError::UnknownStream(to.clone())));
            }
            let outlets = graph.describe(&from).map(|stream| stream.outlets).unwrap_or_default();
            match outlets.into_iter().find(|(name, _)| *name == to) {
                Some((_, there)) if there != filter => {
                    let why = format!(
                        "{from} leads to {to} already, with another filter: remove that outlet first"
                    );
                    Err(Box::new(error(StatusCode::CONFLICT, why)))
                }
                _ => Ok(filter),
            }
        });
        match checked {
            Ok(filter) => {
                let (stream, outlet) = (from.clone(), to);
                with_graph(&core, &from, query.as_deref(), move |graph| {
                    graph.add_outlet(&stream, &outlet, filter.as_deref())
                })
                .await
            }
            Err(response) => *response,
        }
    }

    /// `DELETE /api/v1/streams/{stream}/outlets/{outlet}`
    async fn delete_outlet((State(core), Path((from, to)), RawQuery(query)): Between) -> Response {
        match graph_of(&core, &from, query.as_deref()) {
            Err(response) => *response,
            Ok(graph) if graph.remove_outlet(&from, &to) == 0 => {
                error(StatusCode::NOT_FOUND, format!("{from} has no outlet to {to}"))
            }
            Ok(_) => respond::json(StatusCode::OK, &json!({ "stream": from })),
        }
    }
}
