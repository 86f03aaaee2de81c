//! Messages and lines as they arrive, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
#[cfg(feature = "graph")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jlog_core::{Error, Event, Jlog, LogId, Reader, Start, Wait};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::messages::{Wanted, message_json, options};
use super::{at, pick, unavailable};
use crate::feeds::{Feed, Unavailable};
#[cfg(feature = "graph")]
use crate::mtev::parameter;
use crate::respond::{self, error};
use crate::watch::Core;

/// How long finding a place in a feed may take.
const OPENING: Duration = Duration::from_secs(2);
/// How often the server checks for new messages.
const POLL: Duration = Duration::from_millis(250);
/// How often something is written to an idle client, to notice whether it is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pieces of events that wait for a client. More is read from the feed or ring only when the client
/// has taken them.
const AHEAD: usize = 1;
/// The approximate bytes of messages in one piece. It is small because many clients may each have
/// one waiting.
const PIECE: usize = 64 << 10;
/// The event of a longer message has no body.
const MAX_BODY: usize = 1 << 20;
/// A client that is behind by more messages gets the newest ones, and the number of those that were
/// left out.
const MAX_BEHIND: u64 = 10_000;

/// An event: its name (none for messages and lines), the id to resume after, and a JSON value.
fn event(name: Option<&str>, id: Option<String>, data: &Value) -> String {
    let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    // This JSON contains no line end.
    format!("{name}{id}data: {data}\n\n")
}

/// Writes events to a client.
struct Client {
    events: mpsc::Sender<Result<Bytes, Infallible>>,
    wrote: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    /// A client and its answer; an error if there are too many.
    fn new(core: &Core) -> Result<(Self, Response), Box<Response>> {
        let Ok(permit) = Arc::clone(&core.tails).try_acquire_owned() else {
            let why = "too many tails are open: try again later";
            return Err(Box::new(error(StatusCode::SERVICE_UNAVAILABLE, why)));
        };
        let (events, received) = mpsc::channel(AHEAD);
        let body = Body::from_stream(ReceiverStream::new(received));
        let client = Self { events, wrote: Instant::now(), _permit: permit };
        Ok((client, respond::body(StatusCode::OK, "text/event-stream", body)))
    }

    /// Sends events; `false` if the client is gone.
    async fn send(&mut self, text: String) -> bool {
        self.wrote = Instant::now();
        text.is_empty() || self.events.send(Ok(Bytes::from(text))).await.is_ok()
    }

    /// Waits until it is time to check again; `false` if the client is gone.
    async fn wait(&mut self) -> bool {
        if tokio::time::timeout(POLL, self.events.closed()).await.is_ok() {
            return false;
        }
        self.wrote.elapsed() < KEEP_ALIVE || self.send(":\n\n".to_owned()).await
    }
}

/// Where a client that was connected before wants to resume.
fn last_event(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok().filter(|id| !id.is_empty())
}

/// `GET /api/v1/feeds/{feed}/tail`
pub(super) async fn feed(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let feeds = core.feeds.look().await;
    let parsed = pick(&feeds, &name)
        .and_then(|feed| Ok((at(&core, feed)?, Wanted::parse(query.as_deref(), Start::End)?)));
    let (feed, mut wanted) = match parsed {
        Ok(parsed) => parsed,
        Err(response) => return *response,
    };
    if let Some(id) = last_event(&headers).and_then(|id| id.parse().ok()) {
        wanted.start_after(id);
    }
    let tail = match feed.request(OPENING, move |feed| Tail::open(&feed.open()?, wanted)).await {
        Ok(Ok(tail)) => tail,
        Ok(Err(e)) => return error(StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
        Err(why) => return *unavailable(why),
    };
    match Client::new(&core) {
        Ok((client, response)) => {
            tokio::spawn(follow(feed, tail, client));
            response
        }
        Err(response) => *response,
    }
}

/// A feed that is followed.
struct Tail {
    log: Jlog,
    reader: Reader,
    wanted: Wanted,
    /// An event to send before anything else.
    before: String,
}

impl Tail {
    fn open(log: &Jlog, wanted: Wanted) -> Result<Self, Error> {
        let mut before = String::new();
        let reader = match log.reader_from(&wanted.start(), options().batch_bytes(PIECE)) {
            // The feed was recreated after the client saw this id: everything in it is new to the
            // client.
            Err(Error::NoSuchRecord { id, .. }) => {
                let why =
                    format!("{id} is past the end: these messages begin with the first one in the feed");
                before = event(Some("restarted"), None, &json!({ "text": why }));
                log.reader_from(&Start::Beginning, options().batch_bytes(PIECE))?
            }
            other => other?,
        };
        Ok(Self { log: log.clone(), reader, wanted, before })
    }

    /// The events of new messages, and whether there may be more right away.
    fn look(&mut self) -> Result<(String, bool), Error> {
        let mut out = std::mem::take(&mut self.before);
        self.skip_if_far_behind(&mut out)?;
        let more = match self.reader.next_batch(Wait::No)? {
            None => {
                // Do not wait for a feed that was removed or replaced.
                self.reader.check_not_replaced()?;
                false
            }
            Some(batch) => {
                for message in &batch {
                    if self.wanted.takes(message.body()) {
                        out.push_str(&event(
                            None,
                            Some(message.id().to_string()),
                            &message_json(&message, MAX_BODY),
                        ));
                    }
                }
                true
            }
        };
        for reported in self.log.take_events() {
            match reported {
                Event::SegmentsRemoved { .. } => {
                    out.push_str(&event(Some("left_out"), None, &json!({ "text": reported.to_string() })));
                }
                Event::SegmentCut { lost } | Event::SegmentsLost { lost, .. } => {
                    let data = json!({ "lost_messages": lost.messages, "text": reported.to_string() });
                    out.push_str(&event(Some("damage"), None, &data));
                }
                Event::DamageSkipped { len, .. } => {
                    let data = json!({ "damaged_bytes": len, "text": reported.to_string() });
                    out.push_str(&event(Some("damage"), None, &data));
                }
                _ => {}
            }
        }
        Ok((out, more))
    }

    /// A client that is too slow resumes near the end.
    fn skip_if_far_behind(&mut self, out: &mut String) -> Result<(), Error> {
        let (here, end) = (self.reader.position(), self.log.end()?);
        if here.segment == end.segment && u64::from(end.marker.saturating_sub(here.marker)) <= MAX_BEHIND {
            return Ok(());
        }
        let there = self.log.resolve(&Start::Last(MAX_BEHIND / 2))?;
        // Too little to skip: the place MAX_BEHIND before the end is not after this one.
        if self.log.resolve(&Start::Last(MAX_BEHIND))? <= here {
            return Ok(());
        }
        let left_out = self.between(here, there)?;
        self.reader.seek(there)?;
        let text = format!("{left_out} messages were left out");
        out.push_str(&event(Some("left_out"), None, &json!({ "messages": left_out, "text": text })));
        Ok(())
    }

    /// Messages from one place to a later one.
    fn between(&self, from: LogId, to: LogId) -> Result<u64, Error> {
        let segments = self.log.status()?.each_segment;
        let whole = segments.iter().filter(|segment| (from.segment..to.segment).contains(&segment.number));
        let whole: u64 = whole.map(|segment| u64::from(segment.records)).sum();
        Ok((whole + u64::from(to.marker)).saturating_sub(from.marker.into()))
    }
}

/// Follows a feed as long as the client is connected.
async fn follow(feed: Arc<Feed>, mut tail: Tail, mut client: Client) {
    loop {
        let looked = feed.request(OPENING, move |_| {
            let looked = tail.look();
            (tail, looked)
        });
        let looked = match looked.await {
            Ok((back, looked)) => {
                tail = back;
                looked
            }
            Err(Unavailable::Busy(why)) => {
                client.send(event(Some("ended"), None, &json!({ "error": why }))).await;
                return;
            }
            Err(Unavailable::Internal) => return,
        };
        match looked {
            Ok((events, more)) => {
                if !client.send(events).await || (!more && !client.wait().await) {
                    return;
                }
            }
            Err(e) => {
                let last = event(Some("ended"), None, &json!({ "error": e.to_string() }));
                client.send(last).await;
                return;
            }
        }
    }
}

/// `GET /api/v1/streams/{stream}/tail`: the lines of a memory stream, or the lines that are logged
/// from now on to any other stream, or that pass `filter`. For the latter, the graph gets a memory
/// stream until the client disconnects, which needs permission for changes.
#[cfg(feature = "graph")]
pub(super) async fn stream(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = parameter(query.as_deref(), "graph");
    let filter = parameter(query.as_deref(), "filter");
    let found = core.graphs.named().find(|(graph_name, graph)| {
        wanted.as_ref().is_none_or(|wanted| wanted == graph_name) && graph.find(&name).is_some()
    });
    let Some(graph) = found.map(|(_, graph)| graph.clone()) else {
        return error(StatusCode::NOT_FOUND, super::no_stream(&name));
    };
    let Some(newest) = graph.memory_newest(&name).filter(|_| filter.is_none()) else {
        return connected(&core, graph, name, filter).await;
    };
    let last = match super::number(query.as_deref(), "last", 0, u64::MAX) {
        Ok(last) => last,
        Err(response) => return *response,
    };
    let after = last_event(&headers).and_then(|id| id.parse().ok());
    match Client::new(&core) {
        Ok((client, response)) => {
            tokio::spawn(async move {
                follow_ring(&graph, &name, after.unwrap_or(newest.saturating_sub(last)), true, client).await;
            });
            response
        }
        Err(response) => *response,
    }
}

/// The tail of a stream that keeps no lines, or of the lines that pass a filter.
#[cfg(feature = "graph")]
async fn connected(core: &Core, graph: logdag::Graph, name: String, filter: Option<String>) -> Response {
    if !core.control {
        let why = "without --control, only memory streams can be tailed, and only without a filter";
        return error(StatusCode::FORBIDDEN, why);
    }
    let (client, response) = match Client::new(core) {
        Ok(accepted) => accepted,
        Err(response) => return *response,
    };
    match super::control::change(core, move || Listener::connect(graph, &name, filter.as_deref())).await {
        Ok(Ok(listener)) => {
            tokio::spawn(async move {
                follow_ring(&listener.graph, &listener.ring, 0, false, client).await;
            });
            response
        }
        Ok(Err(e)) => error(StatusCode::BAD_REQUEST, e.to_string()),
        Err(response) => *response,
    }
}

/// A memory stream for a listener, removed when this is dropped.
#[cfg(feature = "graph")]
struct Listener {
    graph: logdag::Graph,
    ring: String,
}

#[cfg(feature = "graph")]
impl Listener {
    /// The lines, and their bytes, that may wait for a slow client.
    const KEEPS: (usize, usize) = (10_000, 256 << 10);

    fn connect(graph: logdag::Graph, to: &str, filter: Option<&str>) -> Result<Self, logdag::GraphError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let ring = loop {
            let name = format!("live-tail-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            if graph.find(&name).is_none() {
                break name;
            }
        };
        graph.add_memory(&ring, Self::KEEPS.0, Self::KEEPS.1)?;
        let listener = Self { graph, ring };
        listener.graph.add_outlet(to, &listener.ring, filter)?;
        Ok(listener)
    }
}

#[cfg(feature = "graph")]
impl Drop for Listener {
    fn drop(&mut self) {
        // A reload may have removed it.
        self.graph.remove(&self.ring);
    }
}

/// Follows a memory stream as long as it exists and the client is connected. Its lines have ids if
/// a client can resume after them.
#[cfg(feature = "graph")]
async fn follow_ring(graph: &logdag::Graph, name: &str, mut after: u64, ids: bool, mut client: Client) {
    // A client that was connected before a restart gets all lines.
    if graph.memory_newest(name).is_some_and(|newest| newest < after) {
        after = 0;
    }
    let mut begun = !ids;
    loop {
        let Some(lines) = graph.memory_piece(name, after, 256, PIECE) else {
            let gone = json!({ "error": format!("the memory stream {name} is gone") });
            client.send(event(Some("ended"), None, &gone)).await;
            return;
        };
        let mut events = String::new();
        if let Some(first) = lines.first() {
            // Before the first piece, the client has not missed anything.
            let left_out = first.index.saturating_sub(after + 1);
            if begun && left_out > 0 {
                let text = format!("{left_out} lines were left out");
                events.push_str(&event(Some("left_out"), None, &json!({ "lines": left_out, "text": text })));
            }
        }
        begun = true;
        for line in &lines {
            let data = json!({
                "index": line.index,
                "time": super::rfc3339(std::time::SystemTime::UNIX_EPOCH
                    .checked_add(Duration::from_micros(line.micros))
                    .unwrap_or(std::time::SystemTime::UNIX_EPOCH)
                    .into()),
                "line": String::from_utf8_lossy(&line.bytes),
            });
            events.push_str(&event(None, ids.then(|| line.index.to_string()), &data));
            after = line.index;
        }
        if !client.send(events).await || (lines.is_empty() && !client.wait().await) {
            return;
        }
    }
}
