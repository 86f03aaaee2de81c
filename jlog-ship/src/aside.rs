//! The feed of messages that a destination refused for good.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use jlog_core::{FeedIdentity, Jlog, LogId, Result, Timestamp, Writer};
use serde_json::{Value, json};

use crate::{MessageId, Outgoing};

/// Writes messages that were refused for good to a feed of their own, which is created when the first message needs it.
///
/// A record of it is a line of JSON that says why and whence, and behind its line end the message as it was. Its
/// time is that of the message.
#[derive(Debug)]
pub struct SetAside {
    path: PathBuf,
    writer: Option<Writer>,
}

impl SetAside {
    /// The feed at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, writer: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a message there, with the feed and the subscriber that it comes from, the destination and the reason; it is
    /// durable when this returns. `jlog ship --unwrap` and [`unwrap_set_aside`](crate::unwrap_set_aside) give it back
    /// as it was.
    ///
    /// # Errors
    /// Those of creating or opening the feed, and of writing to it. The next call tries again.
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

/// The message that a record of a set-aside feed holds, as it was; `None` for a record that holds none.
pub fn unwrap(record: &Bytes) -> Option<Outgoing> {
    let end = record.iter().position(|&byte| byte == b'\n')?;
    let about: Value = serde_json::from_slice(&record[..end]).ok()?;
    let text = about.get("id")?.as_str()?;
    let feed = text.get(..32)?.parse::<FeedIdentity>().ok()?;
    let id = MessageId::parse_in(feed, text)?;
    Some(Outgoing { id, body: record.slice(end + 1..) })
}

/// The message of a set-aside record; a record that holds none is sent as it is.
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
