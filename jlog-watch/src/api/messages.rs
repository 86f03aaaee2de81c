//! The messages of a feed, selected by place, time and content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use jlog_core::{Error, Jlog, LogId, Message, OnDamage, ReaderOptions, Start, Wait};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::{at, bad, number, pick, rfc3339, unavailable};
use crate::mtev::parameter;
use crate::respond::{self, error};
use crate::watch::Core;

/// How long a request may search messages.
const TIME: Duration = Duration::from_secs(2);
/// Memory that a regular expression may take.
const REGEX_BYTES: usize = 1 << 20;
const MAX_MESSAGES: u64 = 10_000;

/// The messages that a request wants.
pub(super) struct Wanted {
    start: Start,
    contains: Option<Vec<u8>>,
    regex: Option<Regex>,
}

impl Wanted {
    pub(super) fn parse(query: Option<&str>, otherwise: Start) -> Result<Self, Box<Response>> {
        let places = ["after", "since", "last"].map(|name| (name, parameter(query, name)));
        let mut start = None;
        for (name, value) in places {
            let Some(value) = value else { continue };
            if start.is_some() {
                return Err(bad("expected one of after, since and last".to_owned()));
            }
            let wrong = |expected: &str| bad(format!("{name}={value}: expected {expected}"));
            start = Some(match name {
                "after" => {
                    let id: LogId = value.parse().map_err(|_| wrong("an id such as 0000002a:00000001"))?;
                    Start::After(id)
                }
                "since" => {
                    let time: jiff::Timestamp =
                        value.parse().map_err(|_| wrong("a time such as 2026-11-25T10:00:00Z"))?;
                    Start::Since(std::time::SystemTime::from(time).into())
                }
                _ => Start::Last(number(query, "last", 0, u64::MAX)?),
            });
        }
        let contains = parameter(query, "contains").map(String::into_bytes);
        let regex = parameter(query, "regex").map(|pattern| {
            let built =
                RegexBuilder::new(&pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build();
            built.map_err(|e| bad(format!("regex: {e}")))
        });
        Ok(Self { start: start.unwrap_or(otherwise), contains, regex: regex.transpose()? })
    }

    pub(super) fn start(&self) -> Start {
        self.start.clone()
    }

    pub(super) fn start_after(&mut self, id: LogId) {
        self.start = Start::After(id);
    }

    /// Whether a message matches.
    pub(super) fn takes(&self, body: &[u8]) -> bool {
        let contains = |text: &Vec<u8>| memchr::memmem::find(body, text).is_some();
        self.contains.as_ref().is_none_or(contains)
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(body))
    }
}

/// The options for reading without changing anything in the feed.
pub(super) fn options() -> ReaderOptions {
    ReaderOptions::default().peek(true).on_damage(OnDamage::Skip).batch_bytes(256 << 10)
}

/// A message as an object. A body of more than `most` bytes is left out. A body that is not UTF-8
/// is encoded in base64.
pub(super) fn message_json(message: &Message<'_>, most: usize) -> Value {
    let mut object = json!({
        "id": message.id().to_string(),
        "time": rfc3339(message.time()),
        "size": message.body().len(),
    });
    if message.body().len() > most {
        object["too_large"] = true.into();
        return object;
    }
    match std::str::from_utf8(message.body()) {
        Ok(text) => object["body"] = text.into(),
        Err(_) => {
            use base64::Engine;
            object["body_base64"] = base64::engine::general_purpose::STANDARD.encode(message.body()).into();
        }
    }
    object
}

/// `GET /api/v1/feeds/{feed}/messages`
pub(super) async fn messages(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let feeds = core.feeds.look().await;
    let query = query.as_deref();
    let parsed = pick(&feeds, &name).and_then(|feed| {
        // A search goes through as much as one request can.
        let searched = ["contains", "regex"].iter().any(|name| parameter(query, name).is_some());
        let wanted = Wanted::parse(query, if searched { Start::Beginning } else { Start::Last(100) })?;
        Ok((at(&core, feed)?, wanted, number(query, "limit", 100, MAX_MESSAGES)?))
    });
    let (feed, wanted, limit) = match parsed {
        Ok(parsed) => parsed,
        Err(response) => return *response,
    };
    let bytes = core.limits.response_bytes;
    match feed.request(TIME, move |feed| read(&feed.open()?, &wanted, limit, bytes)).await {
        Ok(Ok(found)) => respond::json(StatusCode::OK, &found),
        Ok(Err(e @ Error::NoSuchRecord { .. })) => error(StatusCode::NOT_FOUND, e.to_string()),
        Ok(Err(e)) => error(StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
        Err(why) => *unavailable(why),
    }
}

fn read(log: &Jlog, wanted: &Wanted, limit: u64, bytes: usize) -> Result<Value, Error> {
    let begun = Instant::now();
    let mut reader = log.reader_from(&wanted.start(), options())?;
    let mut next = reader.position();
    let (mut found, mut looked_at, mut size) = (Vec::new(), 0u64, 200);
    let mut complete = false;
    'reading: while begun.elapsed() < TIME {
        let Some(batch) = reader.next_batch(Wait::No)? else {
            complete = true;
            break;
        };
        for message in &batch {
            if wanted.takes(message.body()) {
                if found.len() as u64 >= limit {
                    break 'reading;
                }
                let object = message_json(&message, bytes);
                // Serialised once more as a part of the whole.
                size += object.to_string().len() + 1;
                if size > bytes {
                    if found.is_empty() {
                        // It would block all messages after it.
                        found.push(message_json(&message, 0));
                        next = message.id();
                        looked_at += 1;
                    }
                    break 'reading;
                }
                found.push(object);
            }
            next = message.id();
            looked_at += 1;
        }
    }
    Ok(json!({
        "messages": found,
        "next": next.to_string(),
        "complete": complete,
        "looked_at": looked_at,
        "damaged_bytes": reader.skipped(),
    }))
}
