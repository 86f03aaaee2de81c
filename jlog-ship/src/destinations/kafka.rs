//! A Kafka topic.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jlog_core::LogId;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::task::spawn_blocking;

use self::ledger::{Claim, Ledger, State};
use crate::{
    Answer, Destination, Feed, Limits, Mapping, MappingKind, Outgoing, Refusal, RefusalKind, Shipment,
};

mod ledger;
mod security;

/// The header that has a message's id.
const ID: &str = "jlog-id";
/// The maximum number of messages in a shipment, whose delivery reports become one answer to the
/// engine.
const MESSAGES: usize = 1000;
/// The maximum number of shipments in flight; the shipper's window limits their messages.
const IN_FLIGHT: usize = 64;
/// How long to wait for an answer about the topic, and for the last delivery reports of a producer
/// that is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// If there is no delivery for this long, an error that librdkafka keeps retrying is reported.
const STALLED: Duration = Duration::from_secs(2);
/// The producer's properties that the URL may set, by librdkafka's names. Properties that guard
/// against loss are not among them.
const PROPERTIES: [&str; 9] = [
    "batch.size",
    "client.id",
    "compression.type",
    "linger.ms",
    "max.in.flight",
    "message.max.bytes",
    "partitioner",
    "queue.buffering.max.messages",
    "reconnect.backoff.max.ms",
];

/// How to produce to a topic.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct KafkaOptions {
    /// The key, time and headers of records, by the JSON of their messages.
    pub mapping: Mapping,
    /// A user and a password, for SASL. Takes the feature `kafka-ssl`.
    pub password: Option<(String, String)>,
    /// For TLS, certificates to trust besides the system's, in a PEM file.
    pub ca: Option<PathBuf>,
    /// For TLS, a client certificate and its key, in PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mapping, password, ca, client } = self;
        let user = password.as_ref().map(|(user, _)| user);
        let mut options = f.debug_struct("KafkaOptions");
        options.field("mapping", mapping).field("user", &user).field("ca", ca).field("client", client);
        options.finish_non_exhaustive()
    }
}

/// Produces records to a Kafka topic, which must exist.
///
/// A record has the message's bytes, its time, and its id in the header `jlog-id`. Records with the
/// same key go to the same partition, which keeps their order. The producer is idempotent: a
/// cluster gets each message once, and each partition gets them in order, however long the cluster
/// was away. Only if this process ends, or Kafka cannot tell what has arrived, can messages arrive
/// twice: at most one window, with the same ids.
///
/// | answer | meaning |
/// |---|---|
/// | a delivery report, from all in-sync replicas | accepted |
/// | no connection, no leader, no answer, too few replicas | the producer keeps trying; after 2 seconds, the error is reported |
/// | no such topic, not authorized | somebody has to fix something |
/// | too long for the producer or the broker, not a valid record | the message is refused for good |
pub struct Kafka {
    shown: String,
    topic: String,
    key: Option<String>,
    mapping: Mapping,
    config: ClientConfig,
    /// What may be wrong if brokers end connections.
    hint: &'static str,
    limits: Limits,
    ledger: Arc<Ledger>,
    producer: Option<ThreadedProducer<Context>>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl Kafka {
    /// A topic: `kafka://HOST:PORT,HOST:PORT/TOPIC`, or `kafka+tls://…`, with `?key=TEXT` for a key
    /// that all records get, and properties of librdkafka's producer, such as
    /// `&compression.type=lz4&message.max.bytes=2000000`. `&sasl.mechanism=` is `SCRAM-SHA-512`
    /// unless it is `SCRAM-SHA-256` or, with TLS, `PLAIN`.
    ///
    /// TLS, and a user with a password, take the feature `kafka-ssl`.
    ///
    /// # Errors
    /// A description of the mistake.
    pub fn new(url: &str, options: &KafkaOptions) -> Result<Self, String> {
        let (scheme, rest) = url
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "kafka" | "kafka+tls"))
            .ok_or_else(|| format!("{url:?} is not a kafka:// or kafka+tls:// URL"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, topic) = place.split_once('/').unwrap_or((place, ""));
        if hosts.contains('@') {
            return Err("everybody can see a password in a URL: give it in a file".to_owned());
        }
        if hosts.split(',').any(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(format!("{hosts:?} names no brokers: {scheme}://HOST:PORT,HOST:PORT/TOPIC"));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(known) || matches!(topic, "." | "..") {
            return Err(format!("{topic:?} is not the name of a topic: {scheme}://{hosts}/TOPIC"));
        }
        let mut config = ClientConfig::new();
        let (mut key, mut mechanism) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "key" => key = Some(value.into_owned()),
                "sasl.mechanism" => mechanism = Some(value.into_owned()),
                _ if PROPERTIES.contains(&&*name) => drop(config.set(name, value)),
                _ => {
                    return Err(format!(
                        "{name}={value} is not known: key=…, sasl.mechanism=…, and librdkafka's {}",
                        PROPERTIES.join(", ")
                    ));
                }
            }
        }
        options.mapping.only(&[MappingKind::Key, MappingKind::Timestamp, MappingKind::Header])?;
        if options.mapping.headers().any(|name| name == ID) {
            return Err(format!("the header {ID} has the id of a message, and cannot be mapped"));
        }
        for (name, value) in security::properties(scheme == "kafka+tls", options, mechanism.as_deref())? {
            config.set(name, value);
        }
        // Only librdkafka's log says why the producer repeats a request.
        config.set("debug", "msg");
        config.set_log_level(RDKafkaLogLevel::Debug);
        for (name, value) in [
            ("bootstrap.servers", hosts),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // After a refused message, later ones of its partition are not accepted until its fate
            // is known.
            ("enable.gapless.guarantee", "true"),
            // No limit: a message that the producer has given up might have arrived anyway, and
            // would then arrive twice. Errors without deliveries show that a broker is away.
            ("message.timeout.ms", "0"),
            // A mistyped name must not create a topic.
            ("allow.auto.create.topics", "false"),
            ("enable.metrics.push", "false"),
        ] {
            config.set(name, value);
        }
        // Finds mistakes in properties before there is a broker.
        config.create_native_config().map_err(|e| match e {
            KafkaError::ClientConfig(_, why, name, _) if security::is_secret(&name) => {
                format!("{name}: {why}")
            }
            KafkaError::ClientConfig(_, why, name, value) => format!("{name}={value}: {why}"),
            e => e.to_string(),
        })?;
        Ok(Self {
            shown: format!("{scheme}://{hosts}/{topic}"),
            topic: topic.to_owned(),
            key,
            mapping: options.mapping.clone(),
            config,
            hint: match (scheme, &options.password) {
                ("kafka", None) => "the brokers may require TLS (kafka+tls://…) or a login",
                ("kafka", Some(_)) => "the brokers may require TLS (kafka+tls://…)",
                _ => "these may be listeners without TLS (kafka://…)",
            },
            limits: Limits { messages: MESSAGES, in_flight: IN_FLIGHT, ..Limits::default() },
            ledger: Arc::default(),
            producer: None,
        })
    }

    async fn connect(&mut self) -> Result<(), Refusal> {
        let failed = self.ledger.page().failed;
        if let Some(producer) = self.producer.take_if(|_| failed) {
            // Messages in flight may still arrive.
            let _ = spawn_blocking(move || producer.flush(PATIENCE)).await;
        }
        let producer = match &self.producer {
            Some(producer) => producer.clone(),
            None => {
                let (ledger, generation) = (Arc::clone(&self.ledger), self.ledger.begin());
                let context = Context { ledger, generation, hint: self.hint };
                let producer = ThreadedProducer::from_config_and_context(&self.config, context)
                    .map_err(|e| Refusal::misconfigured(reason(&e)))?;
                self.producer.insert(producer).clone()
            }
        };
        let topic = self.topic.clone();
        let asked = spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), PATIENCE)?;
            let topic = metadata.topics().first();
            let leaders = topic.is_some_and(|topic| topic.partitions().iter().any(|p| p.leader() >= 0));
            Ok::<_, KafkaError>((topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from), leaders))
        });
        let asked = tokio::select! {
            asked = asked => asked,
            // The thread continues to query, but not for long.
            why = self.ledger.stalled(STALLED) => return Err(why),
        };
        let (error, leaders) = match asked {
            Ok(Ok(answered)) => answered,
            Ok(Err(e)) => {
                return Err(self.ledger.trouble().unwrap_or_else(|| Refusal::temporary(reason(&e))));
            }
            Err(e) => return Err(Refusal::temporary(e)),
        };
        let topic = &self.topic;
        match error {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(Refusal::misconfigured(format!("there is no topic {topic}: create it first")));
            }
            Some(code) => return Err(refusal(code, &format!("topic {topic}: {code}"))),
            None if !leaders => {
                return Err(Refusal::temporary(format!("no partition of topic {topic} has a leader")));
            }
            None => {}
        }
        let suspicious = self.ledger.reopen();
        self.limits.in_flight = if suspicious { 1 } else { IN_FLIGHT };
        Ok(())
    }

    /// Hands a message to the producer, unless the producer already has it, and returns its number.
    fn produce(&self, message: &Outgoing, claim: &Arc<Claim>) -> Result<usize, Refusal> {
        let Some(producer) = &self.producer else { return Err(Refusal::temporary("not connected")) };
        let (number, new) = self.ledger.page().enter(message.id, claim);
        if !new {
            return Ok(number);
        }
        let id = message.id.text();
        let mapped = self.mapping.of(message);
        let micros = mapped.micros.unwrap_or(message.id.time.as_micros());
        let mut headers = OwnedHeaders::new_with_capacity(1 + mapped.headers.len());
        headers = headers.insert(Header { key: ID, value: Some(&id) });
        for (name, value) in &mapped.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        let mut record = BaseRecord::with_opaque_to(&self.topic, number)
            .payload(&message.body[..])
            .timestamp(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
            .headers(headers);
        if let Some(key) = mapped.key.as_ref().or(self.key.as_ref()) {
            record = record.key(key);
        }
        let Err((error, _)) = producer.send(record) else { return Ok(number) };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut page = self.ledger.page();
        let first = page.take_back(number);
        page.broken = true;
        if code == RDKafkaErrorCode::MessageSizeTooLarge {
            let bytes = message.body.len();
            return Err(Refusal::message(format!("with {bytes} bytes it is longer than message.max.bytes")));
        }
        let full = code == RDKafkaErrorCode::QueueFull;
        page.failed |= !full;
        Err(match self.ledger.trouble() {
            // Earlier messages of the shipment are still in flight, and will give the reason.
            _ if !first => Refusal::behind(),
            _ if full => Refusal::temporary("the producer's queue is full"),
            Some(trouble) => trouble,
            None => refusal(code, &code.to_string()),
        })
    }
}

impl Destination for Kafka {
    fn name(&self) -> String {
        self.shown.clone()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open<'a>(&'a mut self, _feed: &'a Feed) -> BoxFuture<'a, Result<Option<LogId>, Refusal>> {
        async { self.connect().await.map(|()| None) }.boxed()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        if self.ledger.page().broken {
            return async { Err(Refusal::behind()) }.boxed();
        }
        let mut due = Due {
            ledger: Arc::clone(&self.ledger),
            claim: Arc::new(Claim::default()),
            numbers: VecDeque::with_capacity(shipment.len()),
            accepted: 0,
            alone: self.limits.in_flight == 1,
            stopped: None,
        };
        for message in &shipment {
            match self.produce(message, &due.claim) {
                Ok(number) => due.numbers.push_back(number),
                Err(refusal) => {
                    due.stopped = Some(refusal);
                    break;
                }
            }
        }
        let (ledger, claim) = (Arc::clone(&self.ledger), Arc::clone(&due.claim));
        async move {
            let stalled = ledger.stalled(STALLED);
            tokio::pin!(stalled);
            loop {
                if let Some(outcome) = due.outcome() {
                    return outcome;
                }
                tokio::select! {
                    () = claim.reported() => {}
                    why = &mut stalled => return due.give_up(why),
                }
            }
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        let producer = self.producer.take();
        async {
            // Stopping its threads takes a moment.
            let _ = spawn_blocking(move || drop(producer)).await;
        }
        .boxed()
    }
}

/// The refusal for an error that is not about a single message.
fn refusal(code: RDKafkaErrorCode, why: &str) -> Refusal {
    use RDKafkaErrorCode as Code;
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::GaplessGuarantee => Refusal::behind(),
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp => Refusal::shipment(why),
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::PolicyViolation
        | Code::SecurityDisabled
        | Code::InvalidRequiredAcks
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => Refusal::misconfigured(why),
        _ => Refusal::temporary(why),
    }
}

/// librdkafka's description of an error.
fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientCreation(why) => why.clone(),
        error => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// Why a request is repeated, if a line of librdkafka's log says so.
fn repeated(line: &str) -> Option<&str> {
    let (_, error) = line.split_once(" encountered error: ")?;
    let (why, actions) = error.rsplit_once(" (actions ")?;
    // Other events are delivery reports.
    (actions.contains("Retry") || actions.contains("Refresh")).then_some(why)
}

/// Listens to a producer.
struct Context {
    ledger: Arc<Ledger>,
    generation: u32,
    /// What may be wrong if brokers end connections.
    hint: &'static str,
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "MSGSET"
            && let Some(why) = repeated(text)
            && self.generation == self.ledger.page().generation
        {
            self.ledger.hear(Refusal::temporary(why), true);
        }
    }

    fn error(&self, error: KafkaError, why: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut page = self.ledger.page();
        if self.generation != page.generation {
            return;
        }
        page.failed |= code == RDKafkaErrorCode::Fatal;
        // Why brokers are down is more informative than the fact that all of them are.
        self.ledger.hear(connection(code, why, self.hint), code != RDKafkaErrorCode::AllBrokersDown);
    }
}

/// The refusal for an error of a connection, without what differs from one try to the next, and
/// without the names of librdkafka's options and OpenSSL's files.
fn connection(code: RDKafkaErrorCode, why: &str, hint: &str) -> Refusal {
    let why = match why.rsplit_once(" (after ") {
        Some((why, state)) if state.ends_with(')') => why,
        _ => why,
    };
    if let Some((before, reason)) = why.split_once("SSL routines::") {
        let place = before.rfind(": ").map_or(before, |at| &before[..at]);
        let place = place.strip_suffix(": SSL handshake failed").unwrap_or(place);
        let reason = match reason {
            _ if reason.starts_with("certificate verify failed") => {
                "no trusted authority vouches for the broker's certificate, for this name and this time"
            }
            _ => reason,
        };
        return Refusal::misconfigured(format!("{place}: {reason}"));
    }
    let (text, plain) = match why.split_once(": connecting to a PLAINTEXT broker listener?") {
        Some((text, _)) => (text, true),
        None => (why, false),
    };
    let ended = ["Send failed", "Receive failed", "Disconnected"].iter().any(|what| text.contains(what));
    let text = match ended || code == RDKafkaErrorCode::AllBrokersDown {
        // Brokers say nothing to a client that they do not understand.
        true => format!("{text}; if this goes on, {hint}"),
        false => text.to_owned(),
    };
    if plain { Refusal::misconfigured(text) } else { refusal(code, &text) }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut page = self.ledger.page();
        let Err((error, _)) = result else {
            page.report(number, State::Written);
            return self.ledger.hear_nothing();
        };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if self.generation == page.generation {
            (page.failed, page.broken) = (true, true);
        }
        page.poisoned += usize::from(refusal(code, "").kind == RefusalKind::Shipment);
        page.report(number, State::Failed(code));
    }
}

/// The pending answer to a shipment.
struct Due {
    ledger: Arc<Ledger>,
    claim: Arc<Claim>,
    /// The numbers of its messages, without those that were accepted.
    numbers: VecDeque<usize>,
    accepted: usize,
    /// Whether no other shipment was in flight with it.
    alone: bool,
    /// Why no more were accepted.
    stopped: Option<Refusal>,
}

impl Due {
    /// The answer, once it is known.
    fn outcome(&mut self) -> Option<Result<(), Refusal>> {
        let mut page = self.ledger.page();
        let before = self.accepted;
        while let Some(&number) = self.numbers.front()
            && page.state(number) == State::Written
        {
            page.settle(number);
            self.numbers.pop_front();
            self.accepted += 1;
        }
        let was_suspicious = page.suspects > 0;
        page.suspects = page.suspects.saturating_sub(self.accepted - before);
        let refusal = match self.numbers.front().map(|&number| page.state(number)) {
            Some(State::Failed(code)) => refusal(code, &code.to_string()),
            Some(_) => return None,
            None => match self.stopped.take() {
                Some(refusal) => refusal,
                // All suspects have been sent. Opening the destination again restores its limits.
                None if was_suspicious && page.suspects == 0 => Refusal::behind(),
                None => return Some(Ok(())),
            },
        };
        let refusal = match refusal.kind {
            // Messages of other shipments were refused with it: first, each must be sent alone.
            RefusalKind::Shipment if !self.alone => Refusal::behind(),
            RefusalKind::Temporary(_) | RefusalKind::Misconfigured if page.reported => Refusal::behind(),
            _ => refusal,
        };
        page.reported |= refusal.kind != RefusalKind::Behind;
        if refusal.kind == RefusalKind::Shipment && self.numbers.len() == 1 {
            page.suspects = page.suspects.saturating_sub(1);
        }
        Some(Err(refusal.after(self.accepted)))
    }

    /// The answer if this failure blocks the rest.
    fn give_up(&mut self, why: Refusal) -> Result<(), Refusal> {
        if let Some(outcome) = self.outcome() {
            return outcome;
        }
        let mut page = self.ledger.page();
        page.broken = true;
        // The others are blocked for the same reason.
        let why = if std::mem::replace(&mut page.reported, true) { Refusal::behind() } else { why };
        Err(why.after(self.accepted))
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        let mut page = self.ledger.page();
        for &number in &self.numbers {
            page.release(number, &self.claim);
        }
    }
}
