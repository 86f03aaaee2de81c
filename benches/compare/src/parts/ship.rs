//! Shipping to a destination that acknowledges at once, to JetStream and Kafka next to their bare
//! clients, and what a shipper uses: part 14, or `--only ship`.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, context::PublishAckFuture, message::PublishMessage};
use futures_util::FutureExt as _;
use jlog_core::{Jlog, Start};
use jlog_ship::destinations::{Nats, NatsOptions};
use jlog_ship::{Answer, Destination, Limits, Shipment, Shipper};

use crate::child::{Child, ready};
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::parts::delivery::processor_time;
use crate::parts::scale::largest_size;
use crate::report::{Line, Report, Target};
use crate::work::{Contender, Context, Load, MESSAGE, Sample, alternate, find};

/// The most unacknowledged messages, for JetStream.
const WINDOW: usize = 4096;

/// A destination that acknowledges at once.
struct AtOnce;

impl Destination for AtOnce {
    fn name(&self) -> String {
        "a destination that acknowledges at once".to_owned()
    }

    fn limits(&self) -> Limits {
        Limits { in_flight: 4, ..Limits::default() }
    }

    fn send(&mut self, _: Shipment) -> Answer {
        async { Ok(()) }.boxed()
    }
}

/// A feed with these messages, all of them for the subscriber `ship`.
fn filled(feed: &Path, load: &Load) -> Result<Jlog> {
    let log = ours::fill(feed, &Setup::default(), load)?;
    log.subscribe("ship", Start::Beginning)?;
    Ok(log)
}

/// Ships everything, and returns million messages per second.
fn ship(dir: &Path, load: &Load, destination: Box<dyn Destination>) -> Result<f64> {
    let log = filled(&dir.join("feed"), load)?;
    let start = Instant::now();
    let totals = Shipper::new(log.path(), "ship")?.once(true).run(destination)?;
    let rate = load.rate(start.elapsed().as_secs_f64());
    ensure!(totals.acknowledged == load.count as u64 && totals.is_balanced(), "{totals}");
    Ok(rate)
}

/// Part 14.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::new(MESSAGE, context.size(5_000_000, 50_000), 1000);
    let mut contenders = [Contender::new("ours", |dir| ship(dir, &load, Box::new(AtOnce)))];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    report.line(Line {
        part: 14,
        work: "shipping to a destination that acknowledges at once, 1000 per shipment".to_owned(),
        unit: "M/s",
        ours: samples.into_iter().next().context("no rounds")?,
        reference: None,
        target: Target::AtLeast(1.0),
    })?;
    jetstream(context, report)?;
    #[cfg(feature = "kafka")]
    kafka::run(context, report)?;
    #[cfg(not(feature = "kafka"))]
    report.note("Kafka was not compared: the feature `kafka` was not built.")?;
    cost(context, report)
}

/// Runs in the child process: ships the backlog, then idles. Returns the share of a core that the
/// idle shipper uses, in percent, and the process's peak memory in MiB.
pub fn follow(feed: &Path, count: usize, rest: f64) -> Result<Vec<f64>> {
    let shipper = Shipper::new(feed, "ship")?;
    let (progress, stopper) = (shipper.progress(), shipper.stopper());
    let run = std::thread::spawn(move || shipper.run(Box::new(AtOnce)));
    while progress.totals().acknowledged < count as u64 {
        ensure!(!run.is_finished(), "the shipper ended early: {}", progress.totals());
        std::thread::sleep(Duration::from_millis(1));
    }
    ready()?;
    let (start, used) = (Instant::now(), processor_time()?);
    std::thread::sleep(Duration::from_secs_f64(rest));
    let share = (processor_time()? - used) / start.elapsed().as_secs_f64() * 100.0;
    stopper.stop();
    let totals = run.join().map_err(|_| anyhow::anyhow!("the shipper panicked"))??;
    ensure!(totals.acknowledged == count as u64, "{totals}");
    Ok(vec![share, largest_size()?])
}

/// What a shipper uses, in a separate process.
fn cost(context: &Context, report: &mut Report) -> Result<()> {
    let (mut shares, mut sizes) = (Vec::new(), Vec::new());
    let bytes: usize = context.size(1 << 30, 16 << 20);
    for _ in 0..context.rounds {
        let dir = context.temp()?;
        let feed = dir.path().join("feed");
        let load = Load::new(MESSAGE, bytes / MESSAGE, 1000);
        drop(filled(&feed, &load)?);
        let arguments = [
            "ship".to_owned(),
            format!("--feed={}", feed.display()),
            format!("--count={}", load.count),
            format!("--rest={}", context.size(10.0, 1.0)),
        ];
        let mut child = Child::start(&arguments, &[])?;
        child.wait_ready()?;
        child.go()?;
        let figures = child.figures()?;
        let [share, size] = figures[..] else { anyhow::bail!("the shipper gave {} figures", figures.len()) };
        shares.push(share);
        sizes.push(size);
    }
    let backlog = bytes >> 20;
    for (work, unit, values, limit) in [
        ("a shipper at rest, share of a core".to_owned(), "%", shares, 0.1),
        (format!("largest memory of a process that ships a backlog of {backlog} MiB"), "MiB", sizes, 32.0),
    ] {
        let ours = Sample::new("ours", values);
        report.line(Line { part: 14, work, unit, ours, reference: None, target: Target::AtMost(limit) })?;
    }
    Ok(())
}

/// A nats-server with JetStream; dropping it kills the server.
struct Server {
    process: std::process::Child,
    address: String,
}

impl Server {
    /// Starts one; `None` if none is installed.
    fn start(dir: &Path) -> Result<Option<Self>> {
        let named = std::env::var_os("JLOG_NATS_SERVER").map(PathBuf::from);
        let programs = [named, Some("nats-server".into()), Some("/usr/sbin/nats-server".into())];
        let starts = |name: &PathBuf| Command::new(name).arg("-v").stdout(Stdio::null()).status().is_ok();
        let Some(program) = programs.into_iter().flatten().find(starts) else { return Ok(None) };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program);
        command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(dir);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { process, address: format!("127.0.0.1:{port}") };
        while TcpStream::connect(&server.address).is_err() {
            ensure!(server.process.try_wait()?.is_none(), "nats-server ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(server))
    }

    /// Creates the empty stream `S` of the subject `s`.
    async fn stream(&self) -> Result<jetstream::Context> {
        let context = jetstream::new(async_nats::connect(&self.address).await?);
        // The first time, there is none.
        let _ = context.delete_stream("S").await;
        let subjects = vec!["s".to_owned()];
        let config = jetstream::stream::Config { name: "S".to_owned(), subjects, ..Default::default() };
        context.create_stream(config).await?;
        Ok(context)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn jetstream(context: &Context, report: &mut Report) -> Result<()> {
    let dir = context.temp()?;
    let Some(server) = Server::start(dir.path())? else {
        return report
            .note("JetStream was not compared: there is no nats-server (JLOG_NATS_SERVER names one).");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = Load::new(MESSAGE, context.size(400_000, 10_000), 1000);
    let bare = |with_ids: bool| {
        runtime.block_on(async {
            let context = server.stream().await?;
            let body = bytes::Bytes::from(vec![b'm'; MESSAGE]);
            let start = Instant::now();
            let mut answers = VecDeque::<PublishAckFuture>::with_capacity(WINDOW);
            let mut last = None;
            for n in 0..load.count {
                if answers.len() == WINDOW
                    && let Some(oldest) = answers.pop_front()
                {
                    oldest.await?;
                }
                let mut message = PublishMessage::build().payload(body.clone());
                if with_ids {
                    let id = format!("0123456789abcdef0123456789abcdef:00000000:{n:08x}:{n:016x}");
                    message = message.message_id(&id).expected_stream("S");
                    if let Some(last) = last.replace(id) {
                        message = message.expected_last_message_id(last);
                    }
                }
                answers.push_back(context.send_publish("s", message).await?);
            }
            for answer in answers {
                answer.await?;
            }
            Ok(load.rate(start.elapsed().as_secs_f64()))
        })
    };
    let ours = |dir: &Path| {
        runtime.block_on(server.stream())?;
        let mut options = NatsOptions::default();
        options.in_flight = WINDOW;
        let url = format!("nats://{}/S?subject=s", server.address);
        ship(dir, &load, Box::new(Nats::new(&url, &options).map_err(anyhow::Error::msg)?))
    };
    let mut contenders = [
        Contender::new("ours", ours),
        Contender::new("async-nats", |_: &Path| bare(false)),
        Contender::new("async-nats with the same headers", |_: &Path| bare(true)),
    ];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    for reference in &samples[1..] {
        report.line(Line {
            part: 14,
            work: format!("shipping to JetStream, {WINDOW} messages in flight"),
            unit: "M/s",
            ours: find(&samples, "ours").context("no rounds")?.clone(),
            reference: Some(reference.clone()),
            target: Target::Times(0.9),
        })?;
    }
    Ok(())
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use jlog_ship::destinations::{Kafka, KafkaOptions};
    use rdkafka::ClientContext;
    use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
    use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

    use super::*;

    /// As many as a shipper has in flight.
    const IN_FLIGHT: usize = 10_000;

    /// Counts what was delivered, and what was not.
    #[derive(Clone, Default)]
    struct Delivered(Arc<(AtomicUsize, AtomicUsize)>);

    impl ClientContext for Delivered {}

    impl ProducerContext for Delivered {
        type DeliveryOpaque = ();

        fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
            let count = if result.is_ok() { &self.0.0 } else { &self.0.1 };
            count.fetch_add(1, Relaxed);
        }
    }

    /// The idempotent producer by itself, with as much in flight and a header of the same length.
    fn bare(servers: &str, load: &Load) -> Result<f64> {
        let delivered = Delivered::default();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("enable.idempotence", "true").set("acks", "all");
        let producer = ThreadedProducer::from_config_and_context(&config, delivered.clone())?;
        let start = Instant::now();
        let mut sent = 0;
        load.each(|body| {
            while sent - delivered.0.0.load(Relaxed) >= IN_FLIGHT {
                ensure!(delivered.0.1.load(Relaxed) == 0, "a message was not delivered");
                std::thread::sleep(Duration::from_micros(100));
            }
            let id = format!("0123456789abcdef0123456789abcdef:00000000:{sent:08x}:{sent:x}");
            let header = Header { key: "jlog-id", value: Some(&id) };
            let headers = OwnedHeaders::new_with_capacity(1).insert(header);
            let record: BaseRecord<'_, (), [u8], ()> = BaseRecord::to("t").payload(body).headers(headers);
            producer.send(record).map_err(|(error, _)| error)?;
            sent += 1;
            Ok(())
        })?;
        producer.flush(Duration::from_secs(60))?;
        ensure!(delivered.0.0.load(Relaxed) == load.count, "not all messages were delivered");
        Ok(load.rate(start.elapsed().as_secs_f64()))
    }

    pub fn run(context: &Context, report: &mut Report) -> Result<()> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic("t", 1, 1)?;
        let servers = cluster.bootstrap_servers();
        let load = Load::new(MESSAGE, context.size(1_000_000, 20_000), 1);
        let url = format!("kafka://{servers}/t");
        let ours = |dir: &Path| {
            let kafka = Kafka::new(&url, &KafkaOptions::default()).map_err(anyhow::Error::msg)?;
            ship(dir, &load, Box::new(kafka))
        };
        let mut contenders =
            [Contender::new("ours", ours), Contender::new("rdkafka", |_: &Path| bare(&servers, &load))];
        let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
        report.line(Line {
            part: 14,
            work: format!(
                "shipping to Kafka (a mock cluster in this process), {IN_FLIGHT} messages in flight"
            ),
            unit: "M/s",
            ours: find(&samples, "ours").context("no rounds")?.clone(),
            reference: find(&samples, "rdkafka").cloned(),
            target: Target::Times(0.91),
        })
    }
}
