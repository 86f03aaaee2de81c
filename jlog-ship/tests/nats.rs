//! Streams of real NATS servers, which each test starts on its own port. The tests are skipped
//! without `nats-server`, unless `JLOG_REQUIRE_NATS` is set. `JLOG_NATS_SERVER` names another
//! program to start.

#![allow(clippy::unwrap_used, clippy::print_stderr)]
#![cfg(feature = "nats")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use jlog_core::{AtLimit, Jlog, Limits, LogId, Start};
use jlog_ship::destinations::{Nats, NatsOptions};
use jlog_ship::{OnReject, Totals};
use testkit::programs::skip;

use self::support::{PATIENCE, Running, append, feed, shipper, texts, until};

mod support;

/// A server that is killed when it is dropped.
struct Server {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    config: String,
    child: Option<Child>,
}

impl Server {
    /// `None`, with a message, if there is none and none is required.
    fn start(config: &str) -> Option<Self> {
        let named = std::env::var_os("JLOG_NATS_SERVER").map(PathBuf::from);
        let program = [named, Some("nats-server".into()), Some("/usr/sbin/nats-server".into())]
            .into_iter()
            .flatten()
            .find(|name| Command::new(name).arg("-v").stdout(Stdio::null()).status().is_ok());
        let Some(program) = program else {
            skip("NATS", "nats-server is missing (Debian's package nats-server)");
            return None;
        };
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self { program, dir, port, config: config.to_owned(), child: None };
        server.restart();
        Some(server)
    }

    /// Starts the server again on the same port.
    fn restart(&mut self) {
        self.kill();
        let file = self.dir.path().join("config");
        std::fs::write(&file, &self.config).unwrap();
        loop {
            let mut command = Command::new(&self.program);
            command.arg("-js").args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
            command.arg("-sd").arg(self.dir.path()).arg("-c").arg(&file);
            let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
            let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
            // The port may not be free yet.
            loop {
                let hello = TcpStream::connect(("127.0.0.1", self.port)).ok().and_then(|stream| {
                    let mut line = String::new();
                    BufReader::new(stream).read_line(&mut line).ok().map(|_| line)
                });
                if hello.is_some_and(|hello| hello.starts_with("INFO")) {
                    self.child = Some(child);
                    return;
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        format!("nats://{}/S?subject=a.b", self.address())
    }

    /// Does something with the server as a separate client.
    fn with<T>(&self, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = async_nats::ConnectOptions::new().token("secret".to_owned());
            work(jetstream::new(options.connect(self.address()).await.unwrap())).await
        })
    }

    /// A stream `S` of the subjects `a.>`, whose duplicate window is too short to help.
    fn stream(&self, change: impl FnOnce(&mut Config)) {
        let mut config =
            Config { name: "S".to_owned(), subjects: vec!["a.>".to_owned()], ..Config::default() };
        config.duplicate_window = Duration::from_millis(100);
        change(&mut config);
        self.with(async |context| drop(context.create_stream(config).await.unwrap()));
    }

    fn contents(&self) -> Vec<String> {
        self.messages().into_iter().map(|(_, text)| text).collect()
    }

    fn messages(&self) -> Vec<(HeaderMap, String)> {
        self.with(async |context| all(&context.get_stream("S").await.unwrap()).await)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The messages of a stream, in its order.
async fn stored(stream: &Stream) -> Vec<async_nats::Message> {
    let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let count = usize::try_from(stream.get_info().await.unwrap().state.messages).unwrap();
    let mut all = Vec::new();
    while all.len() < count {
        let mut batch = consumer.fetch().max_messages(1000).messages().await.unwrap();
        while let Some(message) = batch.next().await {
            all.push(message.unwrap().message);
        }
    }
    all
}

fn text(message: &async_nats::Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

async fn all(stream: &Stream) -> Vec<(HeaderMap, String)> {
    let headers = |message: &async_nats::Message| message.headers.clone().unwrap_or_default();
    stored(stream).await.iter().map(|message| (headers(message), text(message))).collect()
}

fn nats(url: &str) -> Box<Nats> {
    Box::new(Nats::new(url, &NatsOptions::default()).unwrap())
}

fn ship_once(log: &Jlog, url: &str) -> Totals {
    support::ship_once(log, nats(url))
}

#[test]
fn messages_arrive_with_their_ids_and_are_known_after_the_duplicate_window() {
    let Some(mut server) = Server::start("") else { return };
    server.stream(|_| {});
    let (_dir, log) = feed(5000);
    // This subscriber retains the segments that the other one has passed.
    log.subscribe("keeps", Start::Beginning).unwrap();
    assert_eq!(ship_once(&log, &server.url()).acknowledged, 5000);
    let got = server.messages();
    assert_eq!(got.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), texts(0..5000));
    let id = got[1].0.get("Nats-Msg-Id").unwrap().to_string();
    assert!(id.starts_with(&format!("{}:00000000:00000002:", log.identity().unwrap())), "{id}");

    // The duplicate window is over, and a restarted server has forgotten all ids.
    std::thread::sleep(Duration::from_millis(300));
    server.restart();
    log.set_checkpoint("s", LogId::new(0, 17)).unwrap();
    append(&log, 5000..5010);
    let totals = ship_once(&log, &server.url());
    assert_eq!((totals.acknowledged, totals.known), (5010 - 17, 5000 - 17));
    assert_eq!(server.contents(), texts(0..5010));
}

/// Ships, if the test below has started this process.
#[test]
fn ship_in_a_process() {
    let Ok(arguments) = std::env::var("JLOG_TEST_SHIP") else { return };
    let (path, url) = arguments.split_once(' ').unwrap();
    shipper(&Jlog::open(path).unwrap()).window(1000, 1 << 20).run(nats(url)).unwrap();
}

/// Whichever process is killed at whatever moment, every message arrives once, in order.
#[test]
fn nothing_is_lost_or_doubled_when_shipper_and_server_are_killed() {
    let Some(mut server) = Server::start("") else { return };
    server.stream(|_| {});
    let (_dir, log) = feed(100);
    let rounds: usize = std::env::var("JLOG_NATS_KILL_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut next = 100;
            while !done.load(Ordering::Relaxed) {
                append(&log, next..next + 50);
                next += 50;
                std::thread::sleep(Duration::from_millis(5));
            }
            next
        });
        for round in 0..rounds {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["ship_in_a_process", "--exact"]);
            command.env("JLOG_TEST_SHIP", format!("{} {}", log.path().display(), server.url()));
            let mut shipper = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The moment differs from round to round.
            std::thread::sleep(Duration::from_millis(20 + (round * 37 % 150) as u64));
            if round % 3 > 0 {
                server.kill();
                std::thread::sleep(Duration::from_millis((round * 53 % 40) as u64));
            }
            if round % 3 < 2 {
                shipper.kill().unwrap();
            }
            if server.child.is_none() {
                server.restart();
            }
            if round % 3 == 2 {
                // The shipper recovers by itself.
                std::thread::sleep(Duration::from_millis(60));
                shipper.kill().unwrap();
            }
            shipper.wait().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    ship_once(&log, &server.url());
    let (got, expected) = (server.contents(), texts(0..written));
    let wrong = got.iter().zip(&expected).position(|(got, expected)| got != expected);
    assert_eq!(
        (wrong, got.len()),
        (None, expected.len()),
        "around: {:?}",
        wrong.map(|at| &got[at - 1..at + 2])
    );
}

#[test]
fn a_full_stream_is_waited_for() {
    let Some(server) = Server::start("") else { return };
    server.stream(|config| (config.max_messages, config.discard) = (10, DiscardPolicy::New));
    let (_dir, log) = feed(25);
    let running = Running::start(shipper(&log), nats(&server.url()));
    let mut got = Vec::new();
    for count in [10, 20, 25] {
        until(|| running.acknowledged() == count && (count == 25 || running.progress.totals().failing));
        got.extend(server.contents());
        server.with(async |context| context.get_stream("S").await.unwrap().purge().await.unwrap());
    }
    assert!(running.reported("does not accept messages: maximum messages exceeded"), "{:?}", running.reports);
    assert_eq!(running.end().acknowledged, 25);
    assert_eq!(got, texts(0..25));
}

#[test]
fn a_message_that_is_too_long_is_set_aside() {
    let Some(server) = Server::start("max_payload: 4096") else { return };
    server.stream(|_| {});
    let (dir, log) = feed(1000);
    let long = "x".repeat(4090);
    log.writer().unwrap().append(&long).unwrap();
    append(&log, 1000..2000);
    let aside = dir.path().join("aside");
    let on_reject = OnReject::SetAside(aside.clone());
    let running = Running::start(shipper(&log).on_reject(on_reject), nats(&server.url()));
    until(|| running.acknowledged() == 2000);
    assert!(running.reported("it has 4090 bytes, and nats://"), "{:?}", running.reports);

    // A limit that the stream gets later is known only to the server.
    server.with(async |context| {
        let mut config = context.get_stream("S").await.unwrap().cached_info().config.clone();
        config.max_message_size = 1000;
        context.update_stream(config).await.unwrap();
    });
    append(&log, 2000..2500);
    log.writer().unwrap().append("y".repeat(2000)).unwrap();
    append(&log, 2500..3000);
    until(|| running.acknowledged() == 3000);
    assert!(running.reported("message size exceeds maximum allowed"), "{:?}", running.reports);
    assert_eq!(running.end().set_aside, 2);
    assert_eq!(server.contents(), texts(0..3000));
    assert_eq!(Jlog::open(&aside).unwrap().end().unwrap(), LogId::new(0, 2));
}

#[test]
fn a_stream_that_is_made_again_gets_what_is_left() {
    let Some(server) = Server::start("") else { return };
    let (_dir, log) = feed(100);
    let running = Running::start(shipper(&log), nats(&server.url()));
    until(|| running.reported("until something is fixed: there is no stream S"));
    server.stream(|_| {});
    until(|| running.acknowledged() == 100);
    server.with(async |context| assert!(context.delete_stream("S").await.unwrap().success));
    append(&log, 100..300);
    until(|| running.progress.totals().failing);
    server.stream(|_| {});
    until(|| running.acknowledged() == 300);
    running.end();
    assert_eq!(server.contents(), texts(100..300));
}

#[test]
fn a_feed_that_is_made_again_is_another_one() {
    let Some(server) = Server::start("") else { return };
    server.stream(|_| {});
    let (_dir, log) = feed(10);
    ship_once(&log, &server.url());
    let path = log.path().to_owned();
    std::fs::remove_dir_all(&path).unwrap();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    append(&log, 10..25);
    assert_eq!((ship_once(&log, &server.url()).known, server.contents()), (0, texts(0..25)));
}

#[test]
fn what_an_outage_makes_the_feed_drop_is_all_that_is_missing() {
    let Some(mut server) = Server::start("") else { return };
    server.stream(|_| {});
    let (_dir, log) = feed(100);
    log.set_limits(Limits { max_bytes: Some(100_000), at_limit: AtLimit::DropOldest, ..Limits::default() })
        .unwrap();
    let running = Running::start(shipper(&log), nats(&server.url()));
    until(|| running.acknowledged() == 100);
    server.kill();
    for n in 1..100 {
        append(&log, n * 100..(n + 1) * 100);
    }
    until(|| running.progress.totals().failing);
    server.restart();
    until(|| log.lag("s").unwrap().messages == 0);
    running.end();
    let got = server.contents();
    let all = texts(0..10_000);
    // The messages of the window arrive, and so does the end of the feed.
    let place = |text: &String| all.iter().position(|other| other == text).unwrap();
    assert_eq!((&got[..100], got.last()), (&all[..100], all.last()));
    assert!(got.len() < 10_000 && got.is_sorted_by_key(place), "{}", got.len());
    assert!(got.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn who_may_not_publish_is_told_to_change_something() {
    let config = "authorization { users = [
        { user: may, password: pw },
        { user: reads, password: pw, permissions: { publish: [\"$JS.API.>\"], subscribe: [\">\"] } } ] }";
    let Some(server) = Server::start(config) else { return };
    let (_dir, log) = feed(3);
    let options = |user: &str, password: &str| {
        let mut options = NatsOptions::default();
        options.password = Some((user.to_owned(), password.to_owned()));
        options
    };
    let run = |options: &NatsOptions, says: &str| {
        let destination = Box::new(Nats::new(&server.url(), options).unwrap());
        let running = Running::start(shipper(&log), destination);
        let begun = Instant::now();
        while !running.reported(says) {
            assert!(begun.elapsed() < PATIENCE, "{says:?} is not in {:?}", running.reports);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(running.end().acknowledged, 0);
    };
    run(&options("may", "wrong"), "authorization violation");
    run(&options("may", "pw"), "until something is fixed: there is no stream S");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let login = async_nats::ConnectOptions::with_user_and_password("may".to_owned(), "pw".to_owned());
        let context = jetstream::new(login.connect(server.address()).await.unwrap());
        let config = Config { name: "S".to_owned(), subjects: vec!["a.>".to_owned()], ..Config::default() };
        context.create_stream(config).await.unwrap();
    });
    run(&options("reads", "pw"), "Permissions Violation for Publish to \"a.b\"");
    let destination = Box::new(Nats::new(&server.url(), &options("may", "pw")).unwrap());
    assert_eq!(shipper(&log).once(true).run(destination).unwrap().acknowledged, 3);
}

#[test]
fn a_subject_of_another_stream_is_reported() {
    let Some(server) = Server::start("") else { return };
    server.stream(|_| {});
    server.with(async |context| {
        let config = Config { name: "T".to_owned(), subjects: vec!["other".to_owned()], ..Config::default() };
        context.create_stream(config).await.unwrap();
    });
    let (_dir, log) = feed(3);
    let url = format!("nats://{}/S?subject=other", server.address());
    let running = Running::start(shipper(&log), nats(&url));
    until(|| running.reported("until something is fixed: expected stream does not match"));
    running.end();
}

#[test]
fn shippers_share_a_stream_when_they_are_told_to() {
    let Some(server) = Server::start("") else { return };
    server.stream(|config| config.duplicate_window = Duration::from_secs(60));
    let feeds: Vec<_> = (0..3).map(|_| feed(3000)).collect();
    std::thread::scope(|scope| {
        for (n, (_, log)) in feeds.iter().enumerate() {
            let url = format!("nats://{}/S?subject=a.{n}&writers=many", server.address());
            scope.spawn(move || {
                ship_once(log, &url);
                log.set_checkpoint("s", LogId::new(0, 100)).unwrap();
                ship_once(log, &url);
            });
        }
    });
    let mut got = server.contents();
    got.sort();
    let mut expected = [texts(0..3000), texts(0..3000), texts(0..3000)].concat();
    expected.sort();
    assert!(got == expected, "{} instead of {}", got.len(), expected.len());
}

#[test]
fn somebody_else_who_writes_costs_nothing_but_time() {
    let Some(server) = Server::start("") else { return };
    server.stream(|_| {});
    let (_dir, log) = feed(0);
    let running = Running::start(shipper(&log), nats(&server.url()));
    for n in 0..20 {
        append(&log, n * 100..(n + 1) * 100);
        server.with(async |context| {
            context.publish("a.other", "other".into()).await.unwrap().await.unwrap();
        });
    }
    until(|| running.acknowledged() == 2000);
    running.end();
    let got: Vec<String> = server.contents().into_iter().filter(|text| text != "other").collect();
    let expected = texts(0..2000);
    assert_eq!(got.iter().zip(&expected).position(|(got, expected)| got != expected), None);
    assert_eq!(got.len(), expected.len());
}

#[test]
fn urls_that_are_wrong_are_reported() {
    for (url, says) in [
        ("nats://localhost/?subject=a", "\"\" is not the name of a stream"),
        ("nats://localhost/S.T?subject=a", "\"S.T\" is not the name of a stream"),
        ("nats://localhost/S", "it needs the subject"),
        ("nats://localhost/S?subject=a.*", "\"a.*\" is not a subject that can be published to"),
        ("nats://localhost/S?subject=a..b", "\"a..b\" is not a subject"),
        ("nats://localhost/S?subject=a&x=y", "x=y is not known"),
        ("nats://me:secret@localhost/S?subject=a", "give it in a file"),
        ("nats://local host/S?subject=a", "\"local host\" is not a server"),
        ("http://localhost/S?subject=a", "http: is not a NATS scheme"),
    ] {
        let error = Nats::new(url, &NatsOptions::default()).unwrap_err();
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
    }
}

/// Subjects and headers of messages, in the stream's order.
fn published(server: &Server) -> Vec<(String, String, Option<String>)> {
    server.with(async |context| {
        let stored = stored(&context.get_stream("S").await.unwrap()).await;
        let header =
            |message: &async_nats::Message| Some(message.headers.as_ref()?.get("X-Customer")?.to_string());
        stored.iter().map(|message| (message.subject.to_string(), text(message), header(message))).collect()
    })
}

#[test]
fn messages_have_subjects_and_headers_of_their_own_and_arrive_once() {
    let Some(mut server) = Server::start("") else { return };
    server.stream(|config| {
        config.subjects = vec!["a.b".to_owned(), "a.country.*".to_owned(), "a.x.few".to_owned()]
    });
    let (_dir, log) = feed(0);
    let bodies = [
        r#"{"country":"de","customer":"x"}"#,
        r#"{"country":"f r.*","customer":"ü"}"#,
        r#"{"customer":""}"#,
        "no JSON",
        r#"{"country":"at"}"#,
    ];
    log.writer().unwrap().append_batch(&bodies).unwrap();
    let mut options = NatsOptions::default();
    options.mapping.set("subject", "a.country.{country}").unwrap();
    options.mapping.set("header.X-Customer", "{customer}").unwrap();
    let ship = || {
        let destination = Box::new(Nats::new(&server.url(), &options).unwrap());
        shipper(&log).once(true).run(destination).unwrap()
    };
    assert_eq!(ship().acknowledged, 5);
    let header = |text: &str| Some(text.to_owned());
    let expected = [
        ("a.country.de", bodies[0], header("x")),
        ("a.country.f_r__", bodies[1], header("ü")),
        ("a.b", bodies[2], None),
        ("a.b", bodies[3], None),
        ("a.country.at", bodies[4], None),
    ];
    let expected = expected.map(|(subject, text, header)| (subject.to_owned(), text.to_owned(), header));
    assert_eq!(published(&server), expected);

    // Wherever the checkpoint is, the stream's last message shows what has arrived, whatever its
    // subject is.
    log.set_checkpoint("s", LogId::new(0, 1)).unwrap();
    let totals = ship();
    assert_eq!((totals.acknowledged, totals.known), (4, 4));
    log.writer().unwrap().append_batch(&["last"]).unwrap();
    assert_eq!(ship().acknowledged, 1);
    log.set_checkpoint("s", LogId::new(0, 2)).unwrap();
    let totals = ship();
    assert_eq!((totals.acknowledged, totals.known), (4, 4));
    assert_eq!(published(&server).len(), 6);

    // A subject that the stream does not take delays nothing.
    log.writer().unwrap().append_batch(&[r#"{"country":"many"}"#, r#"{"country":"few"}"#]).unwrap();
    let mut options = NatsOptions::default();
    options.mapping.set("subject", "a.x.{country}").unwrap();
    let running = Running::start(shipper(&log), Box::new(Nats::new(&server.url(), &options).unwrap()));
    until(|| running.acknowledged() == 2);
    assert!(
        running.reported(
            "the stream does not accept the subject a.x.many, and maybe others: such messages go to a.b"
        ),
        "{:?}",
        running.reports
    );
    running.end();
    let subjects: Vec<String> = published(&server).into_iter().skip(6).map(|(subject, ..)| subject).collect();
    assert_eq!(subjects, ["a.b", "a.x.few"]);
    server.kill();
}
