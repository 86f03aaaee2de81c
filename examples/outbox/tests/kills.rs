//! The service is killed (SIGKILL) under load, again and again, while the service that it delivers
//! to fails at random: every message that it has accepted is delivered unchanged. Then SIGTERM
//! drains it.
//!
//! `OUTBOX_KILL_ROUNDS` sets how often it is killed (10 by default).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIENTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a request or an answer: its first line, and its body.
fn read_message(stream: &mut BufReader<TcpStream>) -> std::io::Result<(String, Vec<u8>)> {
    let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Err(eof());
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(eof());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first, body))
}

/// The service that messages are delivered to: of eight requests, one is refused and one gets no
/// answer (though the message is taken), at random.
struct Unreliable {
    address: SocketAddr,
    got: Arc<Mutex<HashSet<Vec<u8>>>>,
}

impl Unreliable {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(HashSet::new()));
        let taking = Arc::clone(&got);
        std::thread::spawn(move || {
            let mut dice = 0x9e37_79b9_7f4a_7c15u64;
            for stream in listener.incoming() {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let (fate, taking) = (dice % 8, Arc::clone(&taking));
                std::thread::spawn(move || {
                    let Ok(stream) = stream else { return };
                    let mut stream = BufReader::new(stream);
                    let Ok((_, body)) = read_message(&mut stream) else { return };
                    let answer = match fate {
                        0 => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
                        fate => {
                            taking.lock().unwrap().insert(body);
                            if fate == 1 {
                                return;
                            }
                            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
                        }
                    };
                    // The other side may have been killed.
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                });
            }
        });
        Self { address, got }
    }
}

struct Outbox {
    child: Child,
    address: SocketAddr,
}

impl Outbox {
    fn start(feed: &Path, to: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outbox"))
            .arg(feed)
            .args(["--listen", "127.0.0.1:0", "--at-once", "32", "--to", &to.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some(address) = line.strip_prefix("outbox: listening on ") {
                break address.parse().unwrap();
            }
        };
        // What it reports later must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, address }
    }

    fn metric(&self, name: &str) -> u64 {
        let mut stream = BufReader::new(TcpStream::connect(self.address).unwrap());
        stream.get_mut().write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let (_, body) = read_message(&mut stream).unwrap();
        let text = String::from_utf8(body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // This has no effect on a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts messages until the service is gone or the caller stops it; returns the accepted ones.
fn post_until_the_end(address: SocketAddr, name: &str, count: &AtomicU64, stop: &AtomicBool) -> Vec<Vec<u8>> {
    let mut accepted = Vec::new();
    let Ok(stream) = TcpStream::connect(address) else { return accepted };
    let mut stream = BufReader::new(stream);
    for n in 0.. {
        let body = format!("{name} {n} {}", "x".repeat(n % 50)).into_bytes();
        let head = format!("POST /messages HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        let sent = stream.get_mut().write_all(&[head.as_bytes(), &body].concat());
        let Ok((status, _)) = sent.and_then(|()| read_message(&mut stream)) else { break };
        assert!(status.starts_with("HTTP/1.1 201 "), "{status}");
        accepted.push(body);
        count.fetch_add(1, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    accepted
}

/// Waits until the condition holds, or fails.
fn wait_until(what: &str, so: impl Fn() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs clients against the service, and calls `end` once it has accepted `many` messages.
fn under_load(
    outbox: &mut Outbox,
    round: u64,
    many: u64,
    end: impl FnOnce(&mut Child, &AtomicBool),
) -> Vec<Vec<u8>> {
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = outbox.address;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (count, stop) = (&count, &stop);
                scope.spawn(move || post_until_the_end(address, &format!("{round}-{client}"), count, stop))
            })
            .collect();
        wait_until("messages are accepted", || count.load(Ordering::SeqCst) >= many);
        end(&mut outbox.child, &stop);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn nothing_accepted_is_lost() {
    let rounds = std::env::var("OUTBOX_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let unreliable = Unreliable::start();
    let mut accepted = Vec::new();
    for round in 0..rounds {
        let mut outbox = Outbox::start(&feed, unreliable.address);
        accepted
            .extend(under_load(&mut outbox, round, 40 + 37 * (round % 8), |child, _| child.kill().unwrap()));
    }

    // On SIGTERM under load, it answers every accepted request, and exits successfully.
    let mut outbox = Outbox::start(&feed, unreliable.address);
    accepted.extend(under_load(&mut outbox, rounds, 100, |child, stop| {
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        stop.store(true, Ordering::SeqCst);
    }));
    assert!(outbox.child.wait().unwrap().success());

    // The remaining messages are delivered after another start.
    let mut outbox = Outbox::start(&feed, unreliable.address);
    wait_until("everything is delivered", || outbox.metric("outbox_lag_messages") == 0);
    kill(Pid::from_raw(outbox.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(outbox.child.wait().unwrap().success());

    assert!(accepted.len() as u64 >= 40 * rounds + 100);
    let got = unreliable.got.lock().unwrap();
    let lost: Vec<String> = accepted
        .iter()
        .filter(|body| !got.contains(*body))
        .map(|body| String::from_utf8_lossy(body).into_owned())
        .collect();
    assert_eq!(lost, Vec::<String>::new(), "accepted and not delivered");
}
