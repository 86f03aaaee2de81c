//! The trait of destinations, and their possible answers.

use std::fmt;
#[cfg(any(feature = "kafka", feature = "nats"))]
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jlog_core::{FeedIdentity, Jlog, LogId, ReaderOptions, Start, Timestamp};

/// The id of a message at its destination: the feed, the message's segment and marker, and its
/// time. Written as `FEED:SEGMENT:MARKER:TIME`, all in hex.
///
/// The time is included because a segment and marker can be used twice: a power failure can take
/// away messages that were readable but not durable, and a feed can be restored from a copy of its
/// files. Messages that are written afterwards get the same places again, and must not be mistaken
/// for the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The feed.
    pub feed: FeedIdentity,
    /// Segment and marker.
    pub id: LogId,
    /// The message's time.
    pub time: Timestamp,
}

impl MessageId {
    /// The id as text, in one allocation: an id is written for every message.
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(68);
        // Writing to a string cannot fail.
        let _ = write!(text, "{self}");
        text
    }

    /// Parses an id; `None` if it is not the id of a message in this feed.
    pub fn parse_in(feed: FeedIdentity, text: &str) -> Option<Self> {
        let rest = text.strip_prefix(&feed.to_string())?.strip_prefix(':')?;
        let (id, time) = rest.rsplit_once(':')?;
        if time.is_empty() || !time.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let micros = u64::from_str_radix(time, 16).ok()?;
        let seconds = u32::try_from(micros / 1_000_000).ok()?;
        let time = Timestamp { seconds, micros: u32::try_from(micros % 1_000_000).ok()? };
        Some(Self { feed, id: id.parse().ok()?, time })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:x}", self.feed, self.id, self.time.as_micros())
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its id.
    pub id: MessageId,
    /// Its bytes; clones share them.
    pub body: Bytes,
}

/// The messages of one request, in the order of the feed; never empty.
pub type Shipment = Vec<Outgoing>;

/// The limits of a destination, which the shipper observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size of a message in bytes. Longer ones are refused before they are sent.
    pub message_bytes: usize,
    /// The maximum number of messages in a shipment.
    pub messages: usize,
    /// The maximum size of a shipment's messages in bytes. A longer message is sent alone.
    pub bytes: usize,
    /// The maximum number of unanswered shipments. With more than 1, a shipment that fails can
    /// arrive after later ones, unless the destination itself keeps the order.
    pub in_flight: usize,
}

impl Default for Limits {
    /// 1,000 messages and 1 MiB in a shipment, one shipment at a time, messages of any length.
    fn default() -> Self {
        Self { message_bytes: usize::MAX, messages: 1000, bytes: 1 << 20, in_flight: 1 }
    }
}

/// Why a shipment was not accepted, or not completely accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many messages at the beginning of the shipment were accepted nevertheless.
    pub accepted: usize,
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// The destination's reason, verbatim if it gave one.
    pub why: String,
}

/// How the shipper handles a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Temporary: retry, after this time if the destination named one.
    Temporary(Option<Duration>),
    /// Somebody has to fix something, here or at the destination. The shipper retries nevertheless.
    Misconfigured,
    /// Some message of the shipment is refused for good, and the destination does not say which:
    /// the shipment is halved until it is found.
    Shipment,
    /// Some messages of the shipment are refused for good and the others are accepted, and the
    /// destination does not say which. All of them are set aside or skipped, and none is sent
    /// again. If refusals [block](crate::OnReject::Block), the shipment is halved until the refused
    /// message is found, and the accepted ones arrive again.
    Some,
    /// The first message that was not accepted is refused for good; no later one was accepted.
    Message,
    /// The shipment is fine, but was not accepted because an earlier one was not. It is sent again
    /// after that one, without a wait.
    Behind,
}

impl Refusal {
    /// A temporary refusal.
    pub fn temporary(why: impl fmt::Display) -> Self {
        Self { accepted: 0, kind: RefusalKind::Temporary(None), why: why.to_string() }
    }

    /// Somebody has to fix something.
    pub fn misconfigured(why: impl fmt::Display) -> Self {
        Self { accepted: 0, kind: RefusalKind::Misconfigured, why: why.to_string() }
    }

    /// Some message of the shipment is refused for good.
    pub fn shipment(why: impl fmt::Display) -> Self {
        Self { accepted: 0, kind: RefusalKind::Shipment, why: why.to_string() }
    }

    /// Some messages of the shipment are refused for good, and it is not known which.
    pub fn some(why: impl fmt::Display) -> Self {
        Self { accepted: 0, kind: RefusalKind::Some, why: why.to_string() }
    }

    /// The first message that was not accepted is refused for good.
    pub fn message(why: impl fmt::Display) -> Self {
        Self { accepted: 0, kind: RefusalKind::Message, why: why.to_string() }
    }

    /// An earlier shipment was not accepted, and so this one was not either.
    pub fn behind() -> Self {
        let why = "one before it was not accepted".to_owned();
        Self { accepted: 0, kind: RefusalKind::Behind, why }
    }

    /// The same, with the wait that the destination asked for.
    #[must_use]
    pub fn retry_after(mut self, time: Option<Duration>) -> Self {
        if let RefusalKind::Temporary(after) = &mut self.kind {
            *after = time;
        }
        self
    }

    /// The same, after this many messages of the shipment were accepted.
    #[must_use]
    pub fn after(mut self, accepted: usize) -> Self {
        self.accepted = accepted;
        self
    }
}

/// The outcome of a shipment.
pub type Answer = BoxFuture<'static, Result<(), Refusal>>;

/// Access to the feed for a destination that is being opened.
#[derive(Debug)]
pub struct Feed {
    log: Jlog,
    identity: FeedIdentity,
    subscriber: String,
}

impl Feed {
    pub(crate) fn new(log: Jlog, identity: FeedIdentity, subscriber: String) -> Self {
        Self { log, identity, subscriber }
    }

    /// The identity of the feed.
    pub fn identity(&self) -> FeedIdentity {
        self.identity
    }

    /// The subscriber whose messages are shipped.
    pub fn subscriber(&self) -> &str {
        &self.subscriber
    }

    /// Reads a message by its id: `None` if the feed does not have it, or has another one in its
    /// place.
    pub fn read(&self, id: MessageId) -> Option<Outgoing> {
        if id.feed != self.identity {
            return None;
        }
        let mut reader = self.log.reader_from(&Start::Beginning, ReaderOptions::default().peek(true)).ok()?;
        let message = reader.read(id.id).ok()?;
        let body = Bytes::copy_from_slice(message.body());
        (message.time() == id.time).then_some(Outgoing { id, body })
    }
}

/// A destination of messages. [`Shipper`](crate::Shipper) calls it from one thread, in an
/// asynchronous runtime (`tokio`, current thread) that runs nothing else, so it may block briefly.
///
/// This one prints messages, and refuses empty ones:
///
/// ```
/// use futures_util::FutureExt;
/// use jlog_ship::{Answer, Destination, OnReject, Refusal, Shipment, Shipper};
///
/// struct Printer;
///
/// impl Destination for Printer {
///     fn name(&self) -> String {
///         "the printer".to_owned()
///     }
///
///     fn send(&mut self, shipment: Shipment) -> Answer {
///         for (n, message) in shipment.iter().enumerate() {
///             if message.body.is_empty() {
///                 let refused = Refusal::message("it is empty").after(n);
///                 return async move { Err(refused) }.boxed();
///             }
///             println!("{} {}", message.id.id, String::from_utf8_lossy(&message.body));
///         }
///         async { Ok(()) }.boxed()
///     }
/// }
///
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("paper", jlog_core::Start::Beginning)?; log.writer()?.append_batch(&["a", "", "b"])?;
/// let shipper = Shipper::new(log.path(), "paper")?.on_reject(OnReject::Skip).once(true);
/// let totals = shipper.run(Box::new(Printer))?;
/// assert_eq!((totals.read, totals.acknowledged, totals.skipped), (3, 2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Destination: Send {
    /// Its name in reports. It must not contain secrets.
    fn name(&self) -> String;

    /// Its limits; called after each [`open`](Destination::open).
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Connects: called before the first shipment, and again after each refusal, when no shipment
    /// is in flight.
    ///
    /// A destination that knows which message of this feed it accepted last returns that message's
    /// id: everything up to there counts as acknowledged and is not sent again. The destination
    /// must be sure of that ([`Feed::read`] shows whether the feed still has that message), and
    /// must have accepted everything before it.
    fn open<'a>(&'a mut self, feed: &'a Feed) -> BoxFuture<'a, Result<Option<LogId>, Refusal>> {
        let _ = feed;
        Box::pin(async { Ok(None) })
    }

    /// Sends a shipment. The call itself must not wait for the answer, but returns a future. `Ok`
    /// means that the destination is responsible for all messages, and the feed may forget them.
    ///
    /// Messages come in the order of the feed; refused ones come again before any new ones.
    fn send(&mut self, shipment: Shipment) -> Answer;

    /// Returns new notices to report, such as a value that the destination cannot use. Called after
    /// each [`send`](Destination::send).
    fn notices(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Closes the connection; nothing is in flight.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Jlog::create(dir.path().join("a")).unwrap().identity().unwrap();
        let other = Jlog::create(dir.path().join("b")).unwrap().identity().unwrap();
        let time = Timestamp { seconds: u32::MAX, micros: 999_999 };
        let id = MessageId { feed, id: LogId::new(0x2a, 7), time };
        let text = id.to_string();
        #[cfg(any(feature = "kafka", feature = "nats"))]
        assert_eq!((id.text(), id.text().capacity()), (text.clone(), 68));
        assert_eq!(MessageId::parse_in(feed, &text), Some(id));
        assert_eq!(MessageId::parse_in(other, &text), None);
        for bad in ["", &text[1..], &text[..32], &text[..50], &format!("{text}:1"), &format!("{text}g")] {
            assert_eq!(MessageId::parse_in(feed, bad), None, "{bad:?}");
        }
    }
}
