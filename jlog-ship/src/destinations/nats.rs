//! A stream of a NATS server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::{
    GetStreamError, GetStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, header};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jlog_core::LogId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::mapping::is_subject;
use crate::tls::Tls;
use crate::{
    Answer, Destination, Feed, Limits, Mapping, MappingKind, MessageId, Outgoing, Refusal, Shipment,
};

/// The maximum number of messages in a shipment, whose answers become one answer to the engine.
const MESSAGES: usize = 256;
/// How long connecting, and the server's answer to a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum size of a message's headers in bytes, without the stream's name: the first line, the
/// id, the expected sequence, and the headers' names.
const HEADERS: usize = 256;

/// Whether other programs write to the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatsWriters {
    /// No other program: each message names the one that must be the stream's last. Messages stay
    /// in order and arrive once, however long the shipper was away. An occasional message from
    /// another program costs only time. The default.
    #[default]
    One,
    /// Other programs write to it, too. The server recognises repeated messages by their ids within
    /// the stream's duplicate window (2 minutes by default), and a failure can change the order.
    Many,
}

/// How to publish to a stream.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The maximum number of unanswered messages; 0 means 4,096.
    pub in_flight: usize,
    /// A token.
    pub token: Option<String>,
    /// A user and a password.
    pub password: Option<(String, String)>,
    /// The contents of a credentials file, as `nsc` writes it.
    pub credentials: Option<String>,
    /// Certificates to trust besides the system's, in a PEM file.
    pub ca: Option<std::path::PathBuf>,
    /// A client certificate and its key, in PEM files.
    pub client: Option<(std::path::PathBuf, std::path::PathBuf)>,
    /// The properties to derive from messages that are JSON.
    pub mapping: Mapping,
}

/// Publishes messages to a JetStream stream, which must exist.
///
/// A message has its id in the header `Nats-Msg-Id`. After connecting, the destination asks for the
/// stream's last message: if that is from this feed, everything up to it has arrived.
///
/// A [`Mapping`] can set the subject, and headers whose names do not begin with `Nats-`. If it
/// gives no subject, or one that the stream does not accept, the URL's subject is used.
///
/// | answer | meaning |
/// |---|---|
/// | an acknowledgement | accepted |
/// | no connection, no answer, no responders, no leader, a full stream | retry |
/// | no such stream, a subject of another one, not authorized, not permitted | somebody has to fix something |
/// | too long for the server or the stream | the message is refused for good |
#[derive(Debug)]
pub struct Nats {
    shown: String,
    servers: Vec<ServerAddr>,
    tls: bool,
    stream: String,
    subject: String,
    /// The stream's subjects, if messages may have others than the URL's; empty if they are not
    /// known.
    subjects: Vec<String>,
    /// Whether a subject that the stream does not accept was reported.
    reported: bool,
    notices: Vec<String>,
    writers: NatsWriters,
    options: NatsOptions,
    limits: Limits,
    link: Option<Link>,
}

/// A connection, from opening until something fails.
#[derive(Debug)]
struct Link {
    // Kept, because dropping it ends the connection.
    _client: Client,
    jobs: mpsc::UnboundedSender<Job>,
    /// Why the connection is unusable.
    lost: watch::Receiver<Option<Refusal>>,
    /// Set after a failure: nothing more is published.
    broken: Arc<AtomicBool>,
    /// Sends a signal when the previous shipment was accepted; dropped otherwise.
    previous: Option<oneshot::Receiver<()>>,
}

/// A shipment to publish, and the channel for its acknowledgements.
struct Job {
    shipment: Vec<Publication>,
    published: oneshot::Sender<Published>,
}

/// A message with its subject and additional headers.
struct Publication {
    message: Outgoing,
    subject: String,
    headers: Vec<(String, String)>,
}

/// The pending acknowledgements, and why there are no more.
type Published = (VecDeque<PublishAckFuture>, Option<Refusal>);

impl Nats {
    /// A stream: `nats://HOST:PORT/STREAM?subject=SUBJECT`, with several servers of a cluster as
    /// `HOST:PORT,HOST:PORT`, `tls://` for TLS from the beginning, and `&writers=many` if others
    /// write to the stream, too.
    ///
    /// # Errors
    /// A description of the mistake.
    pub fn new(url: &str, options: &NatsOptions) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url:?} is not a URL"))?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(format!("{scheme}: is not a NATS scheme: expected nats or tls"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, stream) = place.split_once('/').unwrap_or((place, ""));
        if hosts.contains('@') {
            return Err("everybody can see a password in a URL: give it in a file".to_owned());
        }
        if stream.is_empty() || stream.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
            return Err(format!(
                "{stream:?} is not the name of a stream: {scheme}://{hosts}/STREAM?subject=…"
            ));
        }
        let mut servers = Vec::new();
        for host in hosts.split(',') {
            let server = format!("{scheme}://{host}").parse::<ServerAddr>();
            servers.push(server.map_err(|e| format!("{host:?} is not a server: {e}"))?);
        }
        let (mut subject, mut writers) = (None, NatsWriters::default());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("subject", text) => subject = Some(text.to_owned()),
                ("writers", "one") => writers = NatsWriters::One,
                ("writers", "many") => writers = NatsWriters::Many,
                _ => return Err(format!("{key}={value} is not known: subject=…, writers=one, writers=many")),
            }
        }
        let subject = subject.ok_or("it needs the subject of the messages: ?subject=…")?;
        if !is_subject(&subject) {
            return Err(format!("{subject:?} is not a subject that can be published to"));
        }
        options.mapping.only(&[MappingKind::Subject, MappingKind::Header])?;
        // These headers identify what is stored, and where.
        if let Some(name) =
            options.mapping.headers().find(|name| name.to_ascii_lowercase().starts_with("nats-"))
        {
            return Err(format!("the header {name} is the server's, and cannot be mapped"));
        }
        let tls = scheme == "tls" || options.ca.is_some() || options.client.is_some();
        let mut nats = Self {
            shown: format!("{scheme}://{hosts}/{stream}"),
            servers,
            tls,
            stream: stream.to_owned(),
            subject,
            subjects: Vec::new(),
            reported: false,
            notices: Vec::new(),
            writers,
            options: options.clone(),
            limits: Limits::default(),
            link: None,
        };
        if nats.options.in_flight == 0 {
            nats.options.in_flight = 4096;
        }
        nats.limits.messages = MESSAGES.min(nats.options.in_flight);
        nats.limits.in_flight = nats.options.in_flight.div_ceil(MESSAGES);
        // Finds mistakes in files before there is a server.
        nats.connect_options(watch::Sender::new(None))?;
        Ok(nats)
    }

    fn connect_options(&self, lost: watch::Sender<Option<Refusal>>) -> Result<ConnectOptions, String> {
        let NatsOptions { token, password, credentials, ca, client, .. } = &self.options;
        let mut options = ConnectOptions::new();
        if let Some(credentials) = credentials {
            options =
                options.credentials(credentials).map_err(|e| format!("the credentials are wrong: {e}"))?;
        } else if let Some(token) = token {
            options = options.token(token.clone());
        } else if let Some((user, password)) = password {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if self.tls {
            let config = Tls { ca: ca.clone(), client: client.clone() }.config()?;
            options = options.tls_client_config(config).require_tls(true);
        }
        let lost = Arc::new(lost);
        Ok(options
            .name("jlog ship")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .ping_interval(Duration::from_secs(20))
            // `open` makes a new connection, and asks what has arrived.
            .max_reconnects(self.servers.len())
            .client_capacity(1024)
            .event_callback(move |event| {
                let why = match event {
                    Event::Disconnected | Event::Closed => {
                        Some(Refusal::temporary("the connection was lost"))
                    }
                    // Only this reports a subject that we may not publish to.
                    Event::ServerError(error) => Some(Refusal::misconfigured(error)),
                    _ => None,
                };
                if let Some(why) = why {
                    lost.send_if_modified(|lost| lost.is_none() && lost.replace(why).is_none());
                }
                async {}
            }))
    }

    async fn connect(&mut self, feed: &Feed) -> Result<Option<LogId>, Refusal> {
        let (sender, lost) = watch::channel(None);
        let options = self.connect_options(sender).map_err(Refusal::misconfigured)?;
        let client = options.connect(&self.servers[..]).await.map_err(|e| match e.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::ServerParse
            | ConnectErrorKind::Tls => Refusal::misconfigured(reason(&e)),
            _ => Refusal::temporary(reason(&e)),
        })?;
        let context = jetstream::ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .max_ack_inflight(self.limits.messages * (self.limits.in_flight + 1))
            .build(client.clone());
        let stream = context.get_stream(&self.stream).await.map_err(|e| self.no_stream(&e))?;
        let info = stream.cached_info();
        let overhead = HEADERS + self.stream.len();
        let longest = client.server_info().max_payload.min(match info.config.max_message_size {
            most @ 0.. => usize::try_from(most).unwrap_or(usize::MAX),
            _ => usize::MAX,
        });
        self.limits.message_bytes = longest.saturating_sub(overhead);
        let sequence = info.state.last_sequence;
        let mut known = None;
        let expected = (self.writers == NatsWriters::One).then_some(Expected::Sequence(sequence));
        let mapped = self.options.mapping.subjects();
        if expected.is_some() && info.state.messages > 0 {
            // If both are ours, everything up to the later one has arrived.
            for subject in mapped.iter().chain([&self.subject]) {
                match stream.get_last_raw_message_by_subject(subject).await {
                    Ok(last) => known = known.max(ours(&last, feed).map(|id| id.id)),
                    // It was removed.
                    Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => {}
                    Err(e) => {
                        let why = format!("cannot read its last message: {}", reason(&e));
                        return Err(Refusal::temporary(why));
                    }
                }
            }
        }
        self.subjects = info.config.subjects.clone();
        // The server may be configured to change subjects before the stream sees them.
        if mapped.is_none() || !self.subjects.iter().any(|pattern| takes(pattern, &self.subject)) {
            self.subjects.clear();
        }
        let (jobs, due) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(false));
        let publisher =
            Publisher { context, stream: self.stream.clone(), expected, broken: Arc::clone(&broken) };
        tokio::spawn(publisher.run(due));
        self.link = Some(Link { _client: client, jobs, lost, broken, previous: None });
        Ok(known)
    }

    /// How a message is published.
    fn publication(&mut self, message: Outgoing) -> Publication {
        let mapped = self.options.mapping.of(&message);
        let mut subject = mapped.subject.unwrap_or_else(|| self.subject.clone());
        if !self.subjects.is_empty() && !self.subjects.iter().any(|pattern| takes(pattern, &subject)) {
            if !std::mem::replace(&mut self.reported, true) {
                self.notices.push(format!(
                    "the stream does not accept the subject {subject}, and maybe others: such messages go to {}",
                    self.subject
                ));
            }
            subject = self.subject.clone();
        }
        Publication { message, subject, headers: mapped.headers }
    }

    fn no_stream(&self, error: &GetStreamError) -> Refusal {
        match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Refusal::misconfigured(format!("there is no stream {}: create it first", self.stream))
            }
            GetStreamErrorKind::JetStream(error) => refused(&error),
            _ => Refusal::temporary(format!("no answer about stream {}: {}", self.stream, reason(error))),
        }
    }
}

/// An error of the server about a message or a stream.
fn refused(error: &jetstream::Error) -> Refusal {
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Refusal::message(error)
        }
        // A message with this id is in flight.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Refusal::temporary(error),
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Refusal::misconfigured(error)
        }
        _ if error.code() == 400 || error.code() == 404 => Refusal::misconfigured(error),
        _ => Refusal::temporary(error),
    }
}

/// The innermost reason.
fn reason(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The message of this feed that corresponds to a message in the stream. The feed must still have
/// it, and it must have been sent while the stream had no other writers, so that all earlier
/// messages have arrived, too.
fn ours(message: &StreamMessage, feed: &Feed) -> Option<MessageId> {
    let chained = [header::NATS_EXPECTED_LAST_MESSAGE_ID, header::NATS_EXPECTED_LAST_SEQUENCE];
    chained.into_iter().find_map(|name| message.headers.get(name))?;
    let id = MessageId::parse_in(feed.identity(), message.headers.get(header::NATS_MESSAGE_ID)?.as_str())?;
    feed.read(id).map(|message| message.id)
}

/// Whether a pattern with wildcards matches a subject.
fn takes(pattern: &str, subject: &str) -> bool {
    let mut words = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, words.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            (wanted, Some(word)) if wanted == "*" || wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

/// Waits until the connection is unusable, and returns the reason.
async fn until_lost(mut lost: watch::Receiver<Option<Refusal>>) -> Refusal {
    let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or_else(|| Refusal::temporary("the connection was lost"))
}

/// The condition on the stream's last message under which the next one is stored. After a refused
/// message, later ones are refused, too, even if others' messages have taken their sequence
/// numbers.
enum Expected {
    /// The last message must have this number, which was the last when the connection was made.
    Sequence(u64),
    /// The last message must be the one before this, which has this id.
    Id(String),
}

/// Publishes shipments in the order of the feed.
struct Publisher {
    context: Context,
    stream: String,
    /// `None` if there are other writers.
    expected: Option<Expected>,
    broken: Arc<AtomicBool>,
}

impl Publisher {
    async fn run(mut self, mut due: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = due.recv().await {
            let mut acks = VecDeque::with_capacity(job.shipment.len());
            let mut failed = None;
            for message in job.shipment {
                if self.broken.load(Ordering::Relaxed) {
                    failed = Some(Refusal::behind());
                    break;
                }
                match self.publish(message).await {
                    Ok(ack) => acks.push_back(ack),
                    Err(refusal) => {
                        self.broken.store(true, Ordering::Relaxed);
                        failed = Some(refusal);
                        break;
                    }
                }
            }
            // If this fails, nobody waits for it any more.
            let _ = job.published.send((acks, failed));
        }
    }

    async fn publish(&mut self, publication: Publication) -> Result<PublishAckFuture, Refusal> {
        let Publication { message, subject, headers } = publication;
        let id = message.id.text();
        let mut publish =
            PublishMessage::build().message_id(&id).expected_stream(&self.stream).payload(message.body);
        for (name, value) in headers {
            publish = publish.header(name, value);
        }
        if let Some(expected) = &mut self.expected {
            publish = match std::mem::replace(expected, Expected::Id(id)) {
                Expected::Sequence(last) => publish.expected_last_sequence(last),
                Expected::Id(last) => publish.expected_last_message_id(last),
            };
        }
        let sent = self.context.send_publish(subject, publish).await;
        sent.map_err(|e| match e.kind() {
            PublishErrorKind::MaxPayloadExceeded => Refusal::message(reason(&e)),
            _ => Refusal::temporary(reason(&e)),
        })
    }
}

/// The meaning of the answer to a single message.
fn not_accepted(error: &PublishError) -> Refusal {
    let said = std::error::Error::source(error).and_then(|e| e.downcast_ref::<jetstream::Error>());
    let code = said.map(jetstream::Error::error_code);
    let another_is_last =
        matches!(error.kind(), PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId)
            || code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT);
    match said {
        _ if another_is_last => Refusal::temporary(
            "something else was written to the stream, which needs writers=many unless that was an exception",
        ),
        _ if error.kind() == PublishErrorKind::StreamNotFound => {
            Refusal::temporary("nobody answers for the subject: there is no stream for it, or no leader")
        }
        Some(said) => refused(said),
        None => Refusal::temporary(reason(error)),
    }
}

impl Destination for Nats {
    fn name(&self) -> String {
        self.shown.clone()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open<'a>(&'a mut self, feed: &'a Feed) -> BoxFuture<'a, Result<Option<LogId>, Refusal>> {
        self.link = None;
        self.connect(feed).boxed()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let shipment: Vec<Publication> =
            shipment.into_iter().map(|message| self.publication(message)).collect();
        let Some(link) = &mut self.link else {
            return async { Err(Refusal::temporary("not connected")) }.boxed();
        };
        let (published, due) = oneshot::channel();
        let (accepted, after) = oneshot::channel();
        let previous = link.previous.replace(after);
        let messages = shipment.len();
        // If this fails, `due` has the error.
        let _ = link.jobs.send(Job { shipment, published });
        let (lost, broken) = (link.lost.clone(), Arc::clone(&link.broken));
        async move {
            let mut count = 0;
            let acknowledged = async {
                let (mut acks, failed) = due.await.unwrap_or_default();
                while let Some(ack) = acks.pop_front() {
                    ack.await.map_err(|e| not_accepted(&e))?;
                    count += 1;
                }
                if count == messages { Ok(()) } else { Err(failed.unwrap_or_else(Refusal::behind)) }
            };
            let outcome = tokio::select! {
                outcome = acknowledged => outcome,
                why = until_lost(lost) => Err(why),
            };
            let Err(mut refusal) = outcome else {
                // Nobody waits for it if no shipment follows this one.
                let _ = accepted.send(());
                return Ok(());
            };
            broken.store(true, Ordering::Relaxed);
            // The first shipment that failed has the reason; the others failed with it.
            if let Some(previous) = previous
                && previous.await.is_err()
            {
                refusal = Refusal::behind();
            }
            Err(refusal.after(count))
        }
        .boxed()
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.link = None;
        async {}.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_the_server_says_they_take() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.b", "a.c", false),
            ("a.b", "a", false),
        ] {
            assert_eq!(takes(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn only_subjects_and_free_headers_can_be_mapped() {
        let refused = |key: &str| {
            let mut options = NatsOptions::default();
            options.mapping.set(key, "{a}").unwrap();
            Nats::new("nats://localhost/S?subject=a", &options).unwrap_err()
        };
        assert_eq!(
            refused("header.nats-Msg-Id"),
            "the header nats-Msg-Id is the server's, and cannot be mapped"
        );
        assert_eq!(
            refused("label.a"),
            "it cannot use label.a, which is mapped; it can use subject, header.NAME"
        );
    }
}
