//! Topics of librdkafka's mock cluster, on loopback, read by another client: Python's
//! `confluent-kafka`, which has its own librdkafka. The tests are skipped if no Python has it,
//! unless `JLOG_REQUIRE_KAFKA` is set. `JLOG_KAFKA_PYTHON` names the Python.
//!
//! Unlike a real cluster, the mock ignores the sequence numbers of idempotent producers. If
//! requests fail while others are in flight, the tests therefore allow one request at a time, or
//! recognise duplicates by their ids.

#![allow(clippy::unwrap_used, clippy::print_stderr)]
#![cfg(feature = "kafka")]

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jlog_core::{Jlog, LogId, Start, Timestamp};
use jlog_ship::destinations::{Kafka, KafkaOptions};
use jlog_ship::{OnReject, Shipper, Totals};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Error};
use serde_json::Value;
use testkit::programs::skip;

use self::support::{Running, append, feed, shipper, texts, until};

#[cfg(feature = "kafka-ssl")]
mod authority;
#[cfg(feature = "kafka-ssl")]
#[path = "kafka/secured.rs"]
mod secured;
mod support;

/// A Python that has `confluent-kafka`; `None`, with a message, if there is none and none is
/// required.
fn python() -> Option<String> {
    let python = std::env::var("JLOG_KAFKA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there = Command::new(&python)
        .args(["-c", "import confluent_kafka"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        skip("KAFKA", &format!("{python} does not have confluent-kafka"));
    }
    there.then_some(python)
}

struct Cluster {
    python: String,
    mock: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    /// Starts a cluster with a topic `t` of one partition.
    fn start() -> Option<Self> {
        let cluster = Self::without_topic()?;
        cluster.mock.create_topic("t", 1, 1).unwrap();
        Some(cluster)
    }

    fn without_topic() -> Option<Self> {
        Some(Self { python: python()?, mock: MockCluster::new(1).unwrap() })
    }

    fn url(&self) -> String {
        // One request at a time, and a short wait before reconnecting.
        self.url_with("max.in.flight=1&linger.ms=1&reconnect.backoff.max.ms=100")
    }

    fn url_with(&self, query: &str) -> String {
        format!("kafka://{}/t?{query}", self.mock.bootstrap_servers())
    }

    /// Sets the answers to the next produce requests.
    fn produce_errors(&self, errors: &[Error]) {
        self.mock.request_errors(RDKafkaApiKey::Produce, errors);
    }

    fn records(&self) -> Vec<Record> {
        self.records_from(0)
    }

    /// The records from this offset on.
    fn records_from(&self, offset: usize) -> Vec<Record> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/read.py");
        let servers = self.mock.bootstrap_servers();
        let read =
            Command::new(&self.python).args([script, &servers, "t", &offset.to_string()]).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        String::from_utf8(read.stdout).unwrap().lines().map(Record::parse).collect()
    }

    fn contents(&self) -> Vec<String> {
        self.records().into_iter().map(|record| record.body).collect()
    }
}

#[derive(Debug)]
struct Record {
    partition: u64,
    key: Option<String>,
    time: u64,
    id: String,
    kind: Option<String>,
    body: String,
}

impl Record {
    fn parse(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            partition: json["partition"].as_u64().unwrap(),
            key: text(&json["key"]),
            time: json["time"].as_u64().unwrap(),
            id: text(&json["headers"]["jlog-id"]).unwrap(),
            kind: text(&json["headers"]["kind"]),
            body: text(&json["body"]).unwrap(),
        }
    }
}

fn kafka(url: &str) -> Box<Kafka> {
    Box::new(Kafka::new(url, &KafkaOptions::default()).unwrap())
}

fn ship_once(log: &Jlog, url: &str) -> Totals {
    support::ship_once(log, kafka(url))
}

#[test]
fn records_have_the_messages_with_their_ids_and_times() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(5000);
    let time = Timestamp { seconds: 1_700_000_000, micros: 123_456 };
    log.writer().unwrap().append_at(time, "then").unwrap();
    assert_eq!(ship_once(&log, &cluster.url_with("")).acknowledged, 5001);
    let records = cluster.records();
    let mut expected = texts(0..5000);
    expected.push("then".to_owned());
    assert_eq!(records.iter().map(|record| record.body.clone()).collect::<Vec<_>>(), expected);
    let identity = log.identity().unwrap();
    assert!(records[1].id.starts_with(&format!("{identity}:00000000:00000002:")), "{records:?}");
    assert_eq!(records.iter().map(|record| &record.id).collect::<HashSet<_>>().len(), 5001);
    assert_eq!((records[5000].time, &records[5000].key), (1_700_000_000_123, &None));
}

#[test]
fn several_partitions_have_everything_and_a_key_has_one() {
    let Some(cluster) = Cluster::without_topic() else { return };
    cluster.mock.create_topic("t", 4, 1).unwrap();
    let (_dir, log) = feed(3000);
    ship_once(&log, &cluster.url_with("compression.type=lz4"));
    let records = cluster.records();
    let number = |record: &Record| record.body["message ".len()..].parse::<usize>().unwrap();
    for pair in records.windows(2).filter(|pair| pair[0].partition == pair[1].partition) {
        assert!(number(&pair[0]) < number(&pair[1]), "{pair:?}");
    }
    let mut numbers: Vec<usize> = records.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..3000).collect::<Vec<_>>());

    append(&log, 3000..3100);
    ship_once(&log, &cluster.url_with("key=the+key"));
    let records = cluster.records();
    let keyed: Vec<&Record> =
        records.iter().filter(|record| record.key.as_deref() == Some("the key")).collect();
    assert!(keyed.iter().all(|record| record.partition == keyed[0].partition));
    let bodies: Vec<String> = keyed.iter().map(|record| record.body.clone()).collect();
    assert_eq!(bodies, texts(3000..3100));
}

#[test]
fn keys_times_and_headers_come_from_the_message() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(0);
    let lines = [r#"{"shop":7,"at":"2024-01-02T03:04:05.678Z","kind":"new"}"#, "no JSON"];
    log.writer().unwrap().append_batch(&lines).unwrap();
    let mut options = KafkaOptions::default();
    for (key, template) in [("key", "shop {shop}"), ("timestamp", "{at}"), ("header.kind", "{kind}")] {
        options.mapping.set(key, template).unwrap();
    }
    let url = cluster.url_with("key=other");
    shipper(&log).once(true).run(Box::new(Kafka::new(&url, &options).unwrap())).unwrap();
    let records = cluster.records();
    assert_eq!(records[0].key.as_deref(), Some("shop 7"));
    assert_eq!((records[0].time, records[0].kind.as_deref()), (1_704_164_645_678, Some("new")));
    assert_eq!((records[1].key.as_deref(), &records[1].kind), (Some("other"), &None));
    let written: u64 = u64::from_str_radix(records[1].id.rsplit(':').next().unwrap(), 16).unwrap();
    assert_eq!(records[1].time, written / 1000);

    for (key, says) in [
        ("header.jlog-id", "the header jlog-id has the id of a message, and cannot be mapped"),
        ("subject", "it cannot use subject, which is mapped; it can use key, timestamp, header.NAME"),
    ] {
        let mut options = KafkaOptions::default();
        options.mapping.set(key, "{a}").unwrap();
        assert_eq!(Kafka::new(&url, &options).unwrap_err(), says);
    }
}

/// Messages that the producer holds while its broker is away arrive once, although the engine got
/// refusals and sent them again.
#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(1000);
    let running = Running::start(shipper(&log), kafka(&cluster.url()));
    running.until_acknowledged(1000);
    cluster.mock.broker_down(-1).unwrap();
    append(&log, 1000..3000);
    running.until_reported("does not accept messages: ");
    until(|| running.progress.totals().failing);
    // The outage lasts longer than one refusal.
    append(&log, 3000..4000);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(running.progress.totals().acknowledged, 1000);
    cluster.mock.broker_up(-1).unwrap();
    running.until_acknowledged(4000);
    let why = running.reports.lock().unwrap().clone();
    assert!(
        why.iter().any(|why| why.contains("Connection refused") || why.contains("disconnected")),
        "{why:?}"
    );
    assert!(why.last().unwrap().ends_with("accepts messages again"), "{why:?}");
    running.end();
    assert_eq!(cluster.contents(), texts(0..4000));
}

/// The engine gives up shipments, and messages that the producer still has are not sent twice.
#[test]
fn answers_that_are_late_come_once() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(300);
    cluster.mock.broker_round_trip_time(-1, Duration::from_millis(400)).unwrap();
    let running = Running::start(shipper(&log).timeout(Duration::from_millis(1500)), kafka(&cluster.url()));
    until(|| running.progress.totals().in_flight == 300);
    cluster.mock.broker_round_trip_time(-1, Duration::from_millis(2500)).unwrap();
    running.until_reported("no answer within 1.5 s");
    cluster.mock.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    running.until_acknowledged(300);
    running.end();
    assert_eq!(cluster.contents(), texts(0..300));
}

#[test]
fn errors_of_requests_change_neither_order_nor_number() {
    use Error::*;
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(100);
    let running = Running::start(shipper(&log), kafka(&cluster.url()));
    running.until_acknowledged(100);
    let mut next = 100;
    for errors in [
        &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION][..],
        &[RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
        &[
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RD_KAFKA_RESP_ERR_NO_ERROR,
            RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        ],
        // Permanent errors, after which the producer is unusable.
        &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
        &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        &[RD_KAFKA_RESP_ERR_UNKNOWN, RD_KAFKA_RESP_ERR_UNKNOWN],
    ] {
        cluster.produce_errors(errors);
        append(&log, next..next + 1500);
        next += 1500;
        running.until_acknowledged(next as u64);
    }
    running.until_reported("until something is fixed: TopicAuthorizationFailed");
    running.until_reported("OutOfOrderSequenceNumber");
    assert_eq!(running.end().acknowledged, next as u64);
    assert_eq!(cluster.contents(), texts(0..next));
}

/// The producer repeats requests by itself without reporting that.
#[test]
fn errors_that_go_on_are_reported_and_waited_for() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(100);
    cluster.produce_errors(&[Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1000]);
    let running = Running::start(shipper(&log), kafka(&cluster.url()));
    running.until_reported("does not accept messages: Broker: Not enough in-sync replicas; trying again");
    assert_eq!(running.progress.totals().acknowledged, 0);
    cluster.mock.clear_request_errors(RDKafkaApiKey::Produce);
    running.until_acknowledged(100);
    assert!(running.reports.lock().unwrap().last().unwrap().ends_with("accepts messages again"));
    running.end();
    assert_eq!(cluster.contents(), texts(0..100));
}

#[test]
fn a_topic_that_is_not_there_is_waited_for_and_not_made() {
    let Some(cluster) = Cluster::without_topic() else { return };
    let (_dir, log) = feed(200);
    let running = Running::start(shipper(&log), kafka(&cluster.url()));
    running.until_reported("until something is fixed: there is no topic t: create it first");
    until(|| running.progress.totals().refusals > 3);
    assert_eq!(running.progress.totals().acknowledged, 0);
    cluster.mock.create_topic("t", 1, 1).unwrap();
    running.until_acknowledged(200);

    cluster.mock.topic_error("t", Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    cluster.produce_errors(&[Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    append(&log, 200..400);
    running.until_reported("until something is fixed: topic t: TopicAuthorizationFailed");
    assert_eq!(running.progress.totals().acknowledged, 200);
    cluster.mock.topic_error("t", Error::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    running.until_acknowledged(400);
    assert_eq!(running.end().acknowledged, 400);
    assert_eq!(cluster.contents(), texts(0..400));
}

#[test]
fn a_message_that_is_too_long_is_set_aside_before_it_is_sent() {
    let Some(cluster) = Cluster::start() else { return };
    let (dir, log) = feed(1000);
    log.writer().unwrap().append("x".repeat(5000)).unwrap();
    append(&log, 1000..2000);
    let aside = dir.path().join("aside");
    let url = format!("{}&message.max.bytes=4096", cluster.url());
    let running = Running::start(shipper(&log).on_reject(OnReject::SetAside(aside.clone())), kafka(&url));
    running.until_acknowledged(2000);
    running.until_reported("with 5000 bytes it is longer than message.max.bytes");
    assert_eq!(running.end().set_aside, 1);
    assert_eq!(cluster.contents(), texts(0..2000));
    assert_eq!(Jlog::open(&aside).unwrap().end().unwrap(), LogId::new(0, 1));
}

/// The cluster refuses requests for good, whatever they contain, until it has refused a single
/// message.
#[test]
fn a_message_that_the_broker_refuses_is_searched_for() {
    let Some(cluster) = Cluster::start() else { return };
    let (dir, log) = feed(1000);
    let aside = dir.path().join("aside");
    let running =
        Running::start(shipper(&log).on_reject(OnReject::SetAside(aside.clone())), kafka(&cluster.url()));
    running.until_acknowledged(1000);
    // The message is sent with others, then among 8, 4 and 2, and then alone.
    cluster.produce_errors(&[Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 5]);
    append(&log, 1000..1008);
    running.until_acknowledged(1007);
    append(&log, 1008..3000);
    running.until_acknowledged(2999);
    running.until_reported("was refused and set aside in");
    running.until_reported("MessageSizeTooLarge");
    assert_eq!(running.end().set_aside, 1);
    let mut expected = texts(0..3000);
    expected.remove(1000);
    assert_eq!(cluster.contents(), expected);
    assert_eq!(Jlog::open(&aside).unwrap().end().unwrap(), LogId::new(0, 1));
}

#[test]
fn a_full_queue_is_waited_for() {
    let Some(cluster) = Cluster::start() else { return };
    let (_dir, log) = feed(2000);
    let totals = ship_once(&log, &format!("{}&queue.buffering.max.messages=300", cluster.url()));
    assert_eq!((totals.acknowledged, totals.refusals), (2000, 0));
    assert_eq!(cluster.contents(), texts(0..2000));
}

#[test]
fn a_destination_that_is_away_holds_up_no_other_and_ends_in_time() {
    let (Some(away), Some(there)) = (Cluster::start(), Cluster::start()) else { return };
    let (_dir, log) = feed(0);
    log.subscribe("away", Start::Beginning).unwrap();
    let slow = Shipper::new(log.path(), "away").unwrap().drain(Duration::from_millis(300));
    let slow = Running::start(slow, kafka(&away.url()));
    let fast = Running::start(shipper(&log), kafka(&there.url()));
    append(&log, 0..100);
    slow.until_acknowledged(100);
    away.mock.broker_down(-1).unwrap();
    append(&log, 100..5000);
    fast.until_acknowledged(5000);
    assert_eq!((slow.progress.totals().acknowledged, fast.end().in_flight), (100, 0));
    let begun = Instant::now();
    assert_eq!(slow.end().acknowledged, 100);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((away.mock.broker_up(-1).unwrap(), there.contents()), ((), texts(0..5000)));
    assert_eq!(away.contents(), texts(0..100));

    // The next shipper continues.
    let next = Shipper::new(log.path(), "away").unwrap().once(true);
    assert_eq!(next.run(kafka(&away.url())).unwrap().acknowledged, 4900);
    assert_eq!(away.contents(), texts(0..5000));
}

#[test]
fn a_cluster_that_is_not_there_is_reported_soon() {
    let (_dir, log) = feed(10);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let running = Running::start(shipper(&log), kafka(&format!("kafka://{address}/t")));
    let begun = Instant::now();
    running.until_reported("Connection refused");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(running.end().acknowledged, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Ships, if the test below has started this process.
#[test]
fn ship_in_a_process() {
    let Ok(arguments) = std::env::var("JLOG_TEST_SHIP") else { return };
    let (path, url) = arguments.split_once(' ').unwrap();
    shipper(&Jlog::open(path).unwrap()).window(1000, 1 << 20).run(kafka(url)).unwrap();
}

/// The cluster keeps only the last 5 MiB. A reader that is too late for some of them fails.
const BACKLOG: u64 = 10_000;

/// Whichever process is killed at whatever moment, every message arrives; duplicates have the same
/// id, and there are no more of them than the window allows.
#[test]
fn nothing_is_lost_when_shippers_are_killed_and_brokers_go_away() {
    let Some(cluster) = Cluster::start() else { return };
    // Slow answers: something is in flight whenever a process is killed.
    cluster.mock.broker_round_trip_time(-1, Duration::from_millis(10)).unwrap();
    let (_dir, log) = feed(100);
    let rounds: usize = std::env::var("JLOG_KAFKA_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let done = AtomicBool::new(false);
    let mut records = Vec::new();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut next = 100;
            while !done.load(Ordering::Relaxed) {
                // The messages that are shipped at the end must fit into what the cluster keeps.
                if log.lag("s").unwrap().messages < BACKLOG {
                    append(&log, next..next + 50);
                    next += 50;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            next
        });
        for round in 0..rounds {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["ship_in_a_process", "--exact"]);
            command.env("JLOG_TEST_SHIP", format!("{} {}", log.path().display(), cluster.url()));
            let mut shipper = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The moment differs from round to round.
            std::thread::sleep(Duration::from_millis(40 + (round * 37 % 250) as u64));
            if round % 3 == 0 {
                cluster.mock.broker_down(-1).unwrap();
                std::thread::sleep(Duration::from_millis((round * 53 % 40) as u64));
                cluster.mock.broker_up(-1).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
            shipper.kill().unwrap();
            shipper.wait().unwrap();
            if round % 4 == 3 {
                records.extend(cluster.records_from(records.len()));
            }
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    ship_once(&log, &cluster.url());
    records.extend(cluster.records_from(records.len()));
    let (mut seen, mut first) = (HashSet::new(), Vec::new());
    for record in &records {
        if seen.insert(record.id.clone()) {
            first.push(record.body.clone());
        }
    }
    let expected = texts(0..written);
    let wrong = first.iter().zip(&expected).position(|(got, expected)| got != expected);
    assert_eq!((wrong, first.len()), (None, expected.len()));
    // A broker that goes away can also lose answers.
    let twice = records.len() - first.len();
    assert!(twice <= (rounds + rounds.div_ceil(3)) * 1000, "{twice} came twice");
    eprintln!("{written} messages, {twice} of them twice");
}

#[test]
fn wrong_urls_are_reported() {
    for (url, says) in [
        ("kafka:///t", "\"\" names no brokers: kafka://HOST:PORT,HOST:PORT/TOPIC"),
        ("kafka://h:9092", "\"\" is not the name of a topic: kafka://h:9092/TOPIC"),
        ("kafka://h/a%20b", "\"a%20b\" is not the name of a topic"),
        ("kafka+tls:///t", "names no brokers: kafka"),
        ("http://h/t", "\"http://h/t\" is not a kafka:// or kafka+tls:// URL"),
        ("kafka://a:b@h/t", "everybody can see a password in a URL"),
        ("kafka://h/t?acks=1", "acks=1 is not known: key=…, sasl.mechanism=…, and librdkafka's batch.size, "),
        ("kafka://h/t?linger.ms=soon", "linger.ms=soon: Invalid value for configuration property"),
        (
            "kafka://h/t?compression.type=zip",
            "compression.type=zip: Invalid value \"zip\" for configuration property",
        ),
    ] {
        let error = Kafka::new(url, &KafkaOptions::default()).unwrap_err();
        assert!(error.contains(says), "{url}: {error}");
    }
}
