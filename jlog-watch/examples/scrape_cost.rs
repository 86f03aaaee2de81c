//! Measures the cost of a scrape per second:
//! `cargo run --release -p jlog-watch --example scrape_cost [FEEDS [SUBSCRIBERS [MOVING]]]`.
//!
//! Each feed has 10,000 messages. Every second, a given number of its subscribers move, and one
//! message is appended.

#![allow(clippy::print_stdout, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use jlog_core::{Jlog, LogId, Start};
use jlog_watch::{Address, Watch};
use support::{cpu, resident_kib};

/// The duration in seconds. The first scrapes decide whether changes are followed, and do not
/// count.
const ROUNDS: u32 = 20;
const FIRST: u32 = 3;

fn more_than(before: (u64, u64)) -> String {
    let now = resident_kib();
    let (own, all) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    format!("{own} KiB more memory of its own, {all} KiB with code")
}

fn scrape(address: &Address) -> usize {
    let Address::Tcp(address) = address else { return 0 };
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("send");
    // The client's share of the cost should be small.
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer).expect("receive") {
            0 => return total,
            n => total += n,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let mut number = |otherwise| arguments.next().unwrap_or(otherwise);
    let (feeds, subscribers, moving) = (number(100), number(100), number(0));
    let dir = tempfile::tempdir()?;
    let names: Vec<String> = (0..subscribers).map(|n| format!("subscriber-{n}")).collect();
    let mut logs = Vec::new();
    for n in 0..feeds {
        let log = Jlog::options().segment_size(256 << 10).create(dir.path().join(format!("feed-{n}")))?;
        log.subscribe_all(&names, Start::Beginning)?;
        let writer = log.writer()?;
        writer.append_batch(&vec![[b'x'; 50]; 10_000])?;
        for (n, name) in names.iter().enumerate() {
            let first = u32::try_from(n * 20 + 1)?;
            log.set_checkpoint(name, LogId::new(0, first))?;
        }
        logs.push((log, writer));
    }
    let before = resident_kib();
    let server = Watch::new().feeds(dir.path()).serve(&"127.0.0.1:0".parse()?)?;
    println!("{feeds} feeds, {subscribers} subscribers each, {moving} of them move each second");
    let begun = (Instant::now(), cpu());
    let bytes = scrape(server.address());
    println!(
        "first scrape: {} bytes, {:?}, {:?} of a core, {}",
        bytes,
        begun.0.elapsed(),
        cpu() - begun.1,
        more_than(before)
    );
    let (mut spent, mut taken) = (Duration::ZERO, Duration::ZERO);
    for round in 0..FIRST + ROUNDS {
        for (log, writer) in &logs {
            writer.append(b"one more")?;
            for name in names.iter().take(moving) {
                log.set_checkpoint(name, LogId::new(0, 2100 + round))?;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        let begun = (Instant::now(), cpu());
        scrape(server.address());
        if round >= FIRST {
            taken += begun.0.elapsed();
            spent += cpu() - begun.1;
        }
    }
    println!(
        "each further scrape: {:?}, {:?} of a core, {}",
        taken / ROUNDS,
        spent / ROUNDS,
        more_than(before)
    );
    let idle = cpu();
    std::thread::sleep(Duration::from_secs(10));
    println!("at rest, in 10 s: {:?} of a core", cpu() - idle);
    Ok(())
}
