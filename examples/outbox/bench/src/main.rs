//! How many requests per second the outbox answers, each after its message is durable, with several
//! stores and several numbers of connections, interleaved in one run:
//! `jlog-outbox-bench [DIR [SECONDS [ROUNDS [CONNECTIONS,.. [STORE]]]]]`. Only stores whose name
//! begins with `STORE` are run. A second table has the appends per second of the same numbers of
//! threads, without a service and without a runtime.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use jlog_core::asynchronous::AsyncWriter;
use jlog_core::{Jlog, SyncPolicy, Writer, WriterOptions};
use outbox::{Failure, Store, router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const BODY: usize = 100;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Ours: `append_durable`.
struct Async(AsyncWriter);

impl Store for Async {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        Ok(self.0.append_durable(message).await?.to_string())
    }
}

/// Ours without a sync, like yaque: messages survive the process, but not a power failure.
struct Unsynced(AsyncWriter);

impl Store for Unsynced {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        Ok(format!("{:?}", self.0.append(message).await?))
    }
}

/// Ours in the task itself, into the pre-commit buffer: messages survive the process, but not a
/// power failure, as with yaque. They become readable within 10 ms.
struct Buffered(Arc<Writer>);

impl Buffered {
    fn new(writer: Writer) -> Self {
        let writer = Arc::new(writer);
        let flushed = Arc::downgrade(&writer);
        std::thread::spawn(move || {
            while let Some(writer) = flushed.upgrade() {
                if let Err(error) = writer.flush() {
                    eprintln!("{error}");
                    return;
                }
                drop(writer);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self(writer)
    }
}

impl Store for Buffered {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        Ok(format!("{:?}", self.0.append(&message)?))
    }
}

/// Ours without the feature: threads of a pool that append with `EachAppend`.
struct Pool(Arc<Writer>);

impl Store for Pool {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        let writer = Arc::clone(&self.0);
        let placed = tokio::task::spawn_blocking(move || writer.append(&message)).await;
        Ok(format!("{:?}", placed.map_err(Failure::internal)??))
    }
}

/// The cost of a pool's threads alone: they store nothing.
struct Idle;

impl Store for Idle {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        tokio::task::spawn_blocking(move || drop(message)).await.map_err(Failure::internal)?;
        Ok("not stored".to_owned())
    }
}

type Request = (Bytes, oneshot::Sender<Result<(), String>>);

/// A thread that stores all waiting messages together, and answers.
struct Thread(mpsc::Sender<Request>);

impl Thread {
    fn start(mut store: impl FnMut(&[Request]) -> Result<(), Error> + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::channel(4096);
        std::thread::spawn(move || {
            let mut requests = Vec::new();
            while receiver.blocking_recv_many(&mut requests, 4096) > 0 {
                let stored = store(&requests).map_err(|error| error.to_string());
                for (_, answer) in requests.drain(..) {
                    // A client may be gone.
                    let _ = answer.send(stored.clone());
                }
            }
        });
        Self(sender)
    }
}

impl Store for Thread {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        let (answer, answered) = oneshot::channel();
        self.0.send((message, answer)).await.map_err(Failure::internal)?;
        answered.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
        Ok("stored".to_owned())
    }
}

/// A transaction for each message, in threads of a pool, as in programs with a connection.
struct Sqlite(Arc<Mutex<rusqlite::Connection>>);

impl Store for Sqlite {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        let connection = Arc::clone(&self.0);
        let stored = tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            connection.prepare_cached("insert into outbox (body) values (?1)")?.execute([&message[..]])
        });
        stored.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
        Ok("stored".to_owned())
    }
}

fn sqlite(dir: &Path) -> Result<rusqlite::Connection, Error> {
    let connection = rusqlite::Connection::open(dir.join("outbox.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("create table outbox (id integer primary key, body blob not null)", [])?;
    Ok(connection)
}

/// yaque's queue. It does not sync: a power failure loses messages that were answered.
struct Yaque(tokio::sync::Mutex<yaque::Sender>);

impl Store for Yaque {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        self.0.lock().await.send(&message).await.map_err(Failure::internal)?;
        Ok("stored".to_owned())
    }
}

/// What is compared: its name, and what runs it in a directory.
const STORES: [&str; 9] = [
    "jlog append_durable",
    "jlog spawn_blocking",
    "jlog batching thread",
    "spawn_blocking (no store)",
    "sqlite",
    "sqlite batching thread",
    "yaque (no sync)",
    "jlog append (no sync)",
    "jlog pre-commit buffer (no sync)",
];

async fn measure(store: &str, dir: &Path, connections: usize, time: Duration) -> Result<f64, Error> {
    let log = Jlog::create(dir.join("feed"))?;
    match store {
        "jlog append_durable" => load(Async(AsyncWriter::open(&log).await?), connections, time).await,
        "jlog append (no sync)" => load(Unsynced(AsyncWriter::open(&log).await?), connections, time).await,
        "jlog pre-commit buffer (no sync)" => {
            let log = Jlog::options().pre_commit(128 << 10).create(dir.join("buffered"))?;
            load(Buffered::new(log.writer()?), connections, time).await
        }
        "jlog spawn_blocking" => {
            let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::EachAppend))?;
            load(Pool(Arc::new(writer)), connections, time).await
        }
        "jlog batching thread" => {
            let writer = log.writer()?;
            let store = move |requests: &[Request]| {
                let bodies: Vec<&[u8]> = requests.iter().map(|(body, _)| &body[..]).collect();
                writer.append_batch(&bodies)?;
                Ok(writer.sync()?)
            };
            load(Thread::start(store), connections, time).await
        }
        "spawn_blocking (no store)" => load(Idle, connections, time).await,
        "sqlite" => load(Sqlite(Arc::new(Mutex::new(sqlite(dir)?))), connections, time).await,
        "sqlite batching thread" => {
            let mut connection = sqlite(dir)?;
            let store = move |requests: &[Request]| {
                let transaction = connection.transaction()?;
                {
                    let mut insert = transaction.prepare_cached("insert into outbox (body) values (?1)")?;
                    for (body, _) in requests {
                        insert.execute([&body[..]])?;
                    }
                }
                Ok(transaction.commit()?)
            };
            load(Thread::start(store), connections, time).await
        }
        _ => {
            let sender = yaque::Sender::open(dir.join("queue"))?;
            load(Yaque(tokio::sync::Mutex::new(sender)), connections, time).await
        }
    }
}

/// Serves with a store, and returns the answered requests per second.
async fn load(store: impl Store, connections: usize, time: Duration) -> Result<f64, Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(axum::serve(listener, router(Arc::new(store))).into_future());
    let mut request =
        format!("POST /messages HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY}\r\n\r\n").into_bytes();
    request.resize(request.len() + BODY, b'x');
    let request = Bytes::from(request);
    let began = Instant::now();
    let end = began + time;
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (mut answers, mut buffer) = (0u64, Vec::new());
                while Instant::now() < end {
                    stream.write_all(&request).await?;
                    buffer.clear();
                    while !is_whole(&buffer) {
                        if stream.read_buf(&mut buffer).await? == 0 {
                            return Err("the service closed a connection".into());
                        }
                    }
                    if !buffer.starts_with(b"HTTP/1.1 201 ") {
                        return Err(String::from_utf8_lossy(&buffer).into());
                    }
                    answers += 1;
                }
                Ok::<_, Error>(answers)
            })
        })
        .collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await??;
    }
    let rate = answers as f64 / began.elapsed().as_secs_f64();
    server.abort();
    Ok(rate)
}

/// Whether an answer with a `content-length` is complete.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    bytes.len() >= head + 4 + length.unwrap_or(0)
}

/// How threads append without a runtime: each by itself, or through a batching thread.
const WAYS: [&str; 2] = ["EachAppend", "batching thread"];

/// Appends per second of some threads, each of which waits until its message is durable.
fn measure_threads(way: &str, dir: &Path, threads: usize, time: Duration) -> Result<f64, Error> {
    let log = Jlog::create(dir.join("feed"))?;
    let body = [b'x'; BODY];
    if way == "EachAppend" {
        let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::EachAppend))?;
        return repeat(threads, time, || Ok(writer.append(&body).map(|_| ())?));
    }
    let writer = log.writer()?;
    let (sender, receiver) = std::sync::mpsc::sync_channel::<(Vec<u8>, std::sync::mpsc::SyncSender<_>)>(4096);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Only the thread holds the receiver, so that it ends with the senders.
            let receiver = receiver;
            while let Ok(first) = receiver.recv() {
                let requests: Vec<_> = std::iter::once(first).chain(receiver.try_iter().take(4095)).collect();
                let bodies: Vec<&[u8]> = requests.iter().map(|(body, _)| &body[..]).collect();
                let stored = writer.append_batch(&bodies).and_then(|_| writer.sync());
                let stored = stored.map_err(|error| error.to_string());
                for (_, answer) in &requests {
                    // The caller waits for it.
                    let _ = answer.send(stored.clone());
                }
            }
        });
        let rate = repeat(threads, time, || {
            let (answer, answered) = std::sync::mpsc::sync_channel(1);
            sender.send((body.to_vec(), answer))?;
            Ok(answered.recv()??)
        });
        drop(sender);
        rate
    })
}

/// How many times per second some threads together do this in a loop.
fn repeat(threads: usize, time: Duration, work: impl Fn() -> Result<(), Error> + Sync) -> Result<f64, Error> {
    let began = Instant::now();
    let count = std::thread::scope(|scope| {
        let count = || {
            let mut count = 0u64;
            while began.elapsed() < time {
                work()?;
                count += 1;
            }
            Ok::<_, Error>(count)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?)
            .sum::<Result<u64, Error>>()
    })?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Measures several ways in turn, each with every number of connections or threads, and prints the
/// medians.
fn compare(
    title: &str,
    ways: &[&str],
    counts: &[usize],
    rounds: usize,
    dir: &str,
    measure: impl Fn(&str, &Path, usize) -> Result<f64, Error>,
) -> Result<(), Error> {
    println!("| {title} | {} |\n|---|{}", ways.join(" | "), "---|".repeat(ways.len()));
    for &count in counts {
        let mut rates = vec![Vec::new(); ways.len()];
        for round in 0..rounds {
            for n in 0..ways.len() {
                // Each round begins with a different way, so that none always follows the same one.
                let n = (n + round) % ways.len();
                let dir = tempfile::tempdir_in(dir)?;
                rates[n].push(measure(ways[n], dir.path(), count)?);
            }
        }
        let medians: Vec<f64> = rates
            .iter_mut()
            .map(|rates| {
                rates.sort_by(f64::total_cmp);
                rates[rates.len() / 2]
            })
            .collect();
        let cells: Vec<String> =
            medians.iter().map(|rate| format!("{rate:.0} ({:.2})", medians[0] / rate)).collect();
        println!("| {count} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| ".".to_owned());
    let seconds: f64 = args.next().map_or(Ok(1.0), |n| n.parse())?;
    let rounds: usize = args.next().map_or(Ok(5), |n| n.parse())?;
    let connections = match args.next() {
        Some(some) => some.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => CONNECTIONS.to_vec(),
    };
    let wanted = args.next().unwrap_or_default();
    let stores: Vec<&str> = STORES.into_iter().filter(|store| store.starts_with(&wanted)).collect();
    if stores.is_empty() {
        return Err(format!("no store's name begins with {wanted:?}: there are {}", STORES.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(seconds);
    compare("connections", &stores, &connections, rounds, &dir, |store, dir, connections| {
        runtime.block_on(measure(store, dir, connections, time))
    })?;
    println!();
    compare("threads", &WAYS, &connections, rounds, &dir, |way, dir, threads| {
        measure_threads(way, dir, threads, time)
    })
}
