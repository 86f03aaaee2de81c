//! The feed of messages that a destination refused for good.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use jlog_core::{FeedIdentity, Jlog, LogId, Result, Timestamp, Writer};
use serde_json::{Value, json};

use crate::{MessageId, Outgoing};

/// Writes messages that were refused for good to a separate feed, which is created when the first
/// message needs it.
///
/// A record in it is a line of JSON with the reason and the origin, followed by the original
/// message. Its time is that of the message.
#[derive(Debug)]
pub struct SetAside {
    path: PathBuf,
    writer: Option<Writer>,
}

impl SetAside {
    /// Sets messages aside into the feed at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, writer: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a message, with the feed and the subscriber that it comes from, the destination and
    /// the reason. It is durable when this returns. `jlog ship --unwrap` and
    /// [`unwrap_set_aside`](crate::unwrap_set_aside) restore the original.
    ///
    /// # Errors
    /// The feed cannot be created, opened or written to. The next call tries again.
    pub fn put(
        &mut self,
        message: &Outgoing,
        source: &Path,
        subscriber: &str,
        destination: &str,
        why: &str,
    ) -> Result<()> {
        let written = self.try_put(message, source, subscriber, destination, why);
        if written.is_err() {
            // A writer whose sync failed never succeeds again.
            self.writer = None;
        }
        written
    }

    fn try_put(
        &mut self,
        message: &Outgoing,
        source: &Path,
        subscriber: &str,
        destination: &str,
        why: &str,
    ) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Jlog::create_or_open(&self.path)?.writer()?),
        };
        let about = json!({
            "id": message.id.to_string(),
            "feed": source.display().to_string(),
            "subscriber": subscriber,
            "destination": destination,
            "reason": why,
        });
        let mut record = about.to_string().into_bytes();
        record.push(b'\n');
        record.extend_from_slice(&message.body);
        writer.append_at(message.id.time, record)?;
        writer.sync()
    }
}

/// The original message in a record of a set-aside feed; `None` if the record has none.
pub fn unwrap(record: &Bytes) -> Option<Outgoing> {
    let end = record.iter().position(|&byte| byte == b'\n')?;
    let about: Value = serde_json::from_slice(&record[..end]).ok()?;
    let text = about.get("id")?.as_str()?;
    let feed = text.get(..32)?.parse::<FeedIdentity>().ok()?;
    let id = MessageId::parse_in(feed, text)?;
    Some(Outgoing { id, body: record.slice(end + 1..) })
}

/// The message in a set-aside record. A record that has none is sent unchanged.
pub(crate) fn outgoing(
    feed: FeedIdentity,
    id: LogId,
    time: Timestamp,
    body: Bytes,
    wrapped: bool,
) -> Outgoing {
    let inner = if wrapped { unwrap(&body) } else { None };
    inner.unwrap_or(Outgoing { id: MessageId { feed, id, time }, body })
}
