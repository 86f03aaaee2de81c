//! Measures the cost of open live tails:
//! `cargo run --release -p jlog-watch --example tail_cost [TAILS [MESSAGES]]`.
//!
//! The clients follow one feed. At first nothing is appended, and then the given number of 100-byte
//! messages per second.

#![allow(clippy::print_stdout, clippy::expect_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use jlog_core::Jlog;
use jlog_watch::{Address, Limits, Watch};
use support::{cpu, resident_kib};

/// How long each phase takes.
const TIME: Duration = Duration::from_secs(10);

/// Opens a tail, and waits until it is established.
fn open(address: &Address) -> TcpStream {
    let Address::Tcp(address) = address else { unreachable!("it listens at a port") };
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET /api/v1/feeds/feed/tail HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("send");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    stream.set_nonblocking(true).expect("nonblocking");
    stream
}

/// Takes all pending events; returns the number of messages, each of which is an event with an id.
fn take(streams: &mut [TcpStream], buffer: &mut [u8]) -> usize {
    let mut messages = 0;
    for stream in streams {
        loop {
            match stream.read(buffer) {
                Ok(0) => panic!("a tail has ended"),
                Ok(n) => messages += buffer[..n].windows(4).filter(|bytes| bytes == b"\nid:").count(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
    messages
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (tails, messages) = (arguments.next().unwrap_or(50), arguments.next().unwrap_or(100));
    let dir = tempfile::tempdir()?;
    let log = Jlog::create(dir.path().join("feed"))?;
    log.subscribe("s", jlog_core::Start::Beginning)?;
    let writer = log.writer()?;
    writer.append_batch(&vec![[b'x'; 100]; 10_000])?;
    let limits = Limits::default().tails(tails + 1).connections(tails + 10);
    let server = Watch::new().feeds(dir.path()).limits(limits).serve(&"127.0.0.1:0".parse()?)?;
    drop(open(server.address()));
    let (before, _) = resident_kib();
    let mut streams: Vec<TcpStream> = (0..tails).map(|_| open(server.address())).collect();
    let mut buffer = vec![0; 1 << 16];
    for each_second in [0, messages] {
        take(&mut streams, &mut buffer);
        let (begun, spent) = (Instant::now(), cpu());
        let (mut appended, mut taken) = (0, 0);
        while begun.elapsed() < TIME {
            std::thread::sleep(Duration::from_millis(10));
            let due = begun.elapsed().as_millis() * each_second as u128 / 1000;
            while (appended as u128) < due {
                writer.append([b'x'; 100])?;
                appended += 1;
            }
            taken += take(&mut streams, &mut buffer);
        }
        let spent = cpu() - spent;
        // The server checks the feed four times a second.
        std::thread::sleep(Duration::from_secs(1));
        taken += take(&mut streams, &mut buffer);
        println!(
            "{tails} tails, {each_second} messages a second: {:.2} % of a core, {} KiB more memory, about {taken} events of {} taken",
            100.0 * spent.as_secs_f64() / TIME.as_secs_f64(),
            resident_kib().0.saturating_sub(before),
            appended * tails
        );
    }
    Ok(())
}
