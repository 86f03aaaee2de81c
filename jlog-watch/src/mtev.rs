//! libmtev's REST interface: rings, statistics and capabilities, in the formats that its clients
//! know.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "graph")]
use axum::extract::Path;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use nix::sys::utsname::uname;
use serde_json::{Map, json};

use crate::respond;
use crate::watch::Core;

/// A parameter of a query.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `GET /capa.json`
pub(crate) async fn capabilities(State(core): State<Arc<Core>>) -> Response {
    let bits = usize::BITS;
    let run = uname().map_or_else(
        |e| json!({ "bitwidth": bits, "error": e.to_string() }),
        |run| {
            json!({
                "bitwidth": bits,
                "sysname": run.sysname().to_string_lossy(),
                "nodename": run.nodename().to_string_lossy(),
                "release": run.release().to_string_lossy(),
                "version": run.version().to_string_lossy(),
                "machine": run.machine().to_string_lossy(),
            })
        },
    );
    let version = env!("CARGO_PKG_VERSION");
    let mut features = Map::new();
    let here = ["metrics", "health", "feeds"].into_iter();
    let here = here.chain(cfg!(feature = "graph").then_some("logs")).chain(core.control.then_some("control"));
    for feature in here {
        features.insert(feature.to_owned(), json!({ "version": version }));
    }
    respond::json(
        StatusCode::OK,
        &json!({
            "version": version,
            "unameBuild": { "bitwidth": bits, "sysname": std::env::consts::OS, "machine": std::env::consts::ARCH },
            "unameRun": run,
            "features": features,
            "current_time": millis(SystemTime::now()),
            "services": {},
            "modules": {},
        }),
    )
}

/// `GET /mtev/stats.json?format=simple|tagged`
pub(crate) async fn stats(State(core): State<Arc<Core>>, RawQuery(query): RawQuery) -> Response {
    let format = parameter(query.as_deref(), "format");
    let counted = counted(&core);
    let leaf = |lines: u64| match format.as_deref() {
        Some("simple") => lines.into(),
        _ => json!({ "_type": "L", "_value": lines }),
    };
    let mut out = Map::new();
    if format.as_deref() == Some("tagged") {
        for (name, lines) in counted {
            let key = format!("{name}|ST[framework:logdag,mtev:log,units:messages]");
            out.insert(key, leaf(lines));
        }
        return respond::json(StatusCode::OK, &out.into());
    }
    for (name, lines) in counted {
        out.insert(name, leaf(lines));
    }
    respond::json(StatusCode::OK, &json!({ "mtev": { "log": { "lines": out } } }))
}

/// The streams with statistics, with the lines that came to them. If several graphs have a stream
/// of the same name, the first counts.
#[cfg(feature = "graph")]
fn counted(core: &Core) -> Vec<(String, u64)> {
    let mut known = std::collections::BTreeSet::new();
    let streams = core.graphs.look().into_iter().flat_map(|graph| graph.streams);
    streams
        .filter_map(|stream| Some((stream.description.received?, stream.description.name)))
        .filter(|(_, name)| known.insert(name.clone()))
        .map(|(received, name)| (name, received))
        .collect()
}

#[cfg(not(feature = "graph"))]
fn counted(_: &Core) -> Vec<(String, u64)> {
    Vec::new()
}

/// `GET /eventer/logs/NAME.json?last=N` or `?since=I`: lines of a ring, the oldest first; without
/// either, all of them.
///
/// The header `x-process-start` (milliseconds since 1970) tells clients that numbering has
/// restarted.
#[cfg(feature = "graph")]
pub(crate) async fn ring(
    State(core): State<Arc<Core>>,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(name) = file.strip_suffix(".json").map(str::to_owned) else {
        return respond::error(StatusCode::NOT_FOUND, "there is nothing here");
    };
    // Read numbers as C programs do: anything else is 0.
    let number = |key: &str| {
        let text = parameter(query.as_deref(), key)?;
        Some(text.trim().parse::<u64>().unwrap_or(0))
    };
    let wanted = match (number("since"), number("last")) {
        (Some(index), _) => Wanted::Since(index),
        (None, Some(lines)) if lines > 0 => Wanted::Last(lines),
        _ => Wanted::Since(0),
    };
    let started = millis(core.started);
    let named = name.clone();
    let read = tokio::task::spawn_blocking(move || {
        let limit = core.limits.response_bytes;
        core.graphs.all().find_map(|graph| lines(graph, &name, wanted, limit))
    });
    let Ok(Some(body)) = read.await else {
        return respond::json(StatusCode::NOT_FOUND, &json!({ "error": format!("log '{named}' not found") }));
    };
    let mut response = respond::body(StatusCode::OK, respond::JSON, body);
    response.headers_mut().insert("x-process-start", started.into());
    response
}

/// Which lines of a ring are wanted.
#[cfg(feature = "graph")]
#[derive(Clone, Copy)]
enum Wanted {
    /// Those after this one; all if it is not in the ring.
    Since(u64),
    /// This many of the newest.
    Last(u64),
}

/// The lines as an array. If there are too many, one end is cut: a client that asks for the lines
/// since an index gets the oldest, and can continue after them; one that asks for the last lines
/// gets the newest. `None` if there is no such ring.
#[cfg(feature = "graph")]
fn lines(graph: &logdag::Graph, name: &str, wanted: Wanted, limit: usize) -> Option<String> {
    /// Logging threads wait while this much is copied.
    const PIECE: (usize, usize) = (256, 64 << 10);
    let newest = graph.memory_newest(name)?;
    let mut at = match wanted {
        Wanted::Since(index) => index,
        Wanted::Last(lines) => newest.saturating_sub(lines),
    };
    let (mut out, mut bytes) = (std::collections::VecDeque::new(), 2);
    'pieces: loop {
        let piece = graph.memory_piece(name, at, PIECE.0, PIECE.1)?;
        let Some(last) = piece.last() else { break };
        at = last.index;
        for line in piece {
            let mut text = String::from_utf8_lossy(&line.bytes).into_owned();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            let object = json!({ "idx": line.index, "whence": line.micros / 1000, "line": text }).to_string();
            bytes += object.len() + 1;
            out.push_back(object);
            while bytes > limit {
                let gone = match wanted {
                    Wanted::Since(_) => out.pop_back(),
                    Wanted::Last(_) => out.pop_front(),
                };
                bytes -= gone.map_or(bytes, |gone| gone.len() + 1);
                if matches!(wanted, Wanted::Since(_)) {
                    break 'pieces;
                }
            }
        }
        // Leave lines that are logged meanwhile for the next request: a busy ring has no end.
        if at >= newest {
            break;
        }
    }
    let lines: Vec<String> = out.into();
    Some(format!("[{}]", lines.join(",")))
}
