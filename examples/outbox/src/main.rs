//! The command: serves until SIGTERM or SIGINT, then finishes the work in progress.

#![allow(clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use jlog_core::asynchronous::AsyncWriter;
use jlog_core::{Jlog, Start};
use outbox::{Counters, Courier, CourierOptions, Feed, SUBSCRIBER, router};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Accepts messages over HTTP, makes them durable, and delivers them to another service.
#[derive(Parser)]
struct Args {
    /// The feed's directory; created if it is missing
    feed: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The service that messages are posted to, as HOST:PORT
    #[arg(long)]
    to: String,
    /// How many deliveries may be in progress at the same time
    #[arg(long, default_value_t = 16)]
    at_once: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outbox: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before anything is accepted: no signal is lost from here on.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Opened once, before there are requests that opening could delay.
    let report = |event: &jlog_core::Event| eprintln!("outbox: {event}");
    let log = Jlog::options().on_event(report).create_or_open(&args.feed)?;
    log.ensure_subscriber(SUBSCRIBER, Start::Beginning)?;
    let writer = AsyncWriter::open(&log).await?;
    let counters = Arc::new(Counters::default());
    let feed = Feed { log: log.clone(), writer: writer.clone(), counters: Arc::clone(&counters) };

    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    eprintln!("outbox: listening on {}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(false);
    let options = CourierOptions { to: args.to, at_once: args.at_once.max(1), window: 1000 };
    let mut delivering = tokio::spawn(Courier::open(&log, options, counters).await?.run(stopped.clone()));
    let mut until = stopped;
    let serving = axum::serve(listener, router(Arc::new(feed))).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which also ends the service.
        let _ = until.wait_for(|stop| *stop).await;
    });
    let mut serving = tokio::spawn(serving.into_future());

    // Without its courier, the service would accept messages that nobody delivers.
    let early = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut delivering => Some(ended),
    };
    // Requests in progress get their answers; deliveries in progress are finished.
    stop.send_replace(true);
    (&mut serving).await??;
    match early {
        Some(ended) => ended??,
        None => delivering.await??,
    }
    writer.close().await?;
    Ok(())
}
