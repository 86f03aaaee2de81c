//! `jlog ship`: a subscriber's messages somewhere else.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jlog_core::{Jlog, LogId, Start};
use jlog_ship::destinations::{Exec, Feed, Http, HttpOptions, Loki, Nats, NatsOptions, Otlp};
use jlog_ship::{Destination, OnReject, Progress, Report, Shipper};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

use crate::args::{RejectArg, ShipArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output;
use crate::stop::Stop;
use crate::time::Place;
use crate::values::{counted, from_jiff, span};

/// `jlog ship`
pub fn run(args: &ShipArgs) -> Outcome {
    let destination = destination(args)?;
    let log = output::options().open(&args.feed)?;
    if let Some(from) = &args.from
        && !args.dry_run
    {
        let start = match *from {
            Place::Id(LogId { segment: 0, marker: 0 }) => Start::Beginning,
            Place::Id(id) => Start::From(id),
            Place::Time(time) => Start::Since(from_jiff(time)),
        };
        log.ensure_subscriber(&args.subscriber.0, start)?;
    }
    let name = args.subscriber.0.to_string();
    if let Some(path) = &args.set_aside {
        not_itself(path, &args.feed)?;
    }
    let mut shipper = Shipper::new(&args.feed, &name)
        .map_err(shipping_failed)?
        .window(args.window, usize::try_from(args.window_bytes).unwrap_or(usize::MAX))
        .once(args.once)
        .until(args.until.map(from_jiff))
        .rate(args.rate)
        .drain(Duration::from_secs(args.drain))
        .timeout(Duration::from_secs(args.timeout))
        .unwrap_set_aside(args.unwrap);
    if args.dry_run {
        return dry_run(&shipper);
    }
    shipper = shipper.on_reject(on_reject(args.on_reject, args.set_aside.as_ref()));
    let damaged = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&damaged);
    shipper = shipper.on_report(move |report| {
        if matches!(report, Report::Feed(event) if event.is_damage()) {
            told.store(true, Ordering::Relaxed);
        }
        output::note(&report.to_string());
    });
    let (stop, stopper, progress) = (Stop::on_signals()?, shipper.stopper(), shipper.progress());
    on_stop(stop, move || stopper.stop())?;
    let mut signals =
        Signals::new([SIGUSR1]).map_err(|e| Failure::new(format!("cannot handle signals: {e}")))?;
    in_thread("status", move || {
        for _ in signals.forever() {
            output::note(&status(&progress, &log, &name));
        }
    })?;
    #[cfg(feature = "serve")]
    let _metrics = crate::ship_metrics::serve(args, destination.name(), shipper.progress())?;
    let totals = shipper.run(destination).map_err(shipping_failed)?;
    output::note(&totals.to_string());
    if !totals.is_balanced() {
        return Err(Failure::new(
            "these numbers do not balance, which is a fault of this program: please report it",
        ));
    }
    let damaged = damaged.load(Ordering::Relaxed);
    Ok(if damaged { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

/// What is done about a message that is refused for good.
pub fn on_reject(on_reject: RejectArg, set_aside: Option<&PathBuf>) -> OnReject {
    match (on_reject, set_aside) {
        (RejectArg::SetAside, Some(path)) => OnReject::SetAside(path.clone()),
        (RejectArg::Skip, _) => OnReject::Skip,
        _ => OnReject::Block,
    }
}

/// The command's error for why shipping ended.
pub fn shipping_failed(error: jlog_ship::Error) -> Failure {
    match error {
        jlog_ship::Error::Feed(e) => Failure::from(e),
        other => Failure::new(other.to_string()),
    }
}

/// Fails if messages of the feed were to go into the feed itself.
pub fn not_itself(to: &Path, feed: &Path) -> Result<(), Failure> {
    let same = std::fs::canonicalize(to).ok().zip(std::fs::canonicalize(feed).ok());
    if same.is_some_and(|(to, from)| to == from) {
        let path = to.display();
        return Err(Failure::new(format!("{path} is the feed itself: its messages would never end")));
    }
    Ok(())
}

/// Does something once it is time to stop.
pub fn on_stop(stop: Stop, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    in_thread("stop", move || {
        while !stop.is_set() {
            stop.sleep(Duration::from_secs(60));
        }
        work();
    })
}

/// Does something beside the command's main thread.
fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|e| Failure::new(format!("cannot start a thread: {e}")))
}

/// How it goes, in one line.
fn status(progress: &Progress, log: &Jlog, name: &str) -> String {
    let totals = progress.totals();
    let mut text = totals.to_string();
    match log.lag(name) {
        Ok(lag) => {
            let now = SystemTime::now();
            let age = lag
                .oldest
                .and_then(|time| now.duration_since(SystemTime::from(time)).ok())
                .unwrap_or_default();
            let bytes = counted(lag.bytes, "byte");
            text.push_str(&format!(
                "; {}, {bytes}, {} behind",
                counted(lag.messages, "message"),
                span(age.as_secs())
            ));
        }
        Err(e) => text.push_str(&format!("; how far behind is not known: {e}")),
    }
    let since = |time: SystemTime| span(time.elapsed().unwrap_or_default().as_secs());
    if let Some(at) = totals.acknowledged_at {
        text.push_str(&format!("; last acknowledged {} ago", since(at)));
    }
    if let Some((at, error)) = totals.last_error {
        text.push_str(&format!("; last error {} ago: {error}", since(at)));
    }
    text
}

/// Prints what would be sent, a line each.
fn dry_run(shipper: &Shipper) -> Outcome {
    let mut out = BufWriter::new(anstream::stdout().lock());
    let mut outcome = Ok(());
    let mut count = 0;
    let shown = shipper.dry_run(|message| {
        count += 1;
        let text = String::from_utf8_lossy(&message.body);
        outcome = writeln!(out, "{} {}", message.id, output::plain(&text));
        outcome.is_ok()
    });
    match outcome.and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e)) {
        Err(failure) if !failure.is_broken_pipe() => return Err(failure),
        _ => {}
    }
    drop(out);
    shown.map_err(|e| Failure::new(e.to_string()))?;
    output::note(&format!("{} would be sent", counted(count, "message")));
    Ok(ExitCode::SUCCESS)
}

/// A secret's file: its first line.
fn secret(path: &Path) -> Result<String, Failure> {
    let failed = |why: &str| Failure::new(format!("cannot read a secret from {}: {why}", path.display()));
    let text = jlog_files::read_text(path, jlog_files::SECRET).map_err(|e| failed(&e.to_string()))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(failed("its first line is empty")),
    }
}

fn destination(args: &ShipArgs) -> Result<Box<dyn Destination>, Failure> {
    let to = args.destination.as_str();
    if let Some(path) = to.strip_prefix("jlog:") {
        if path.is_empty() {
            return Err(Failure::new("jlog: needs the path of a feed behind it"));
        }
        not_itself(path.as_ref(), &args.feed)?;
        return Ok(Box::new(Feed::new(path)));
    }
    if let Some(command) = to.strip_prefix("exec:") {
        if command.trim().is_empty() {
            return Err(Failure::new("exec: needs a command behind it"));
        }
        let mut exec = Exec::new(command).framing(args.framing.into());
        if let Some(messages) = args.batch {
            exec = exec.messages(messages as usize);
        }
        return Ok(Box::new(exec));
    }
    if to.starts_with("nats://") || to.starts_with("tls://") {
        return nats(args);
    }
    if to.starts_with("kafka://") {
        return kafka(args);
    }
    let (loki, otlp) = (to.strip_prefix("loki+"), to.strip_prefix("otlp+"));
    let url = loki.or(otlp).unwrap_or(to);
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::new(format!(
            "{to:?} is not a destination: jlog:DIRECTORY, exec:COMMAND, http://…, https://…, loki+http://…, loki+https://…, \
             otlp+http://…, otlp+https://…, nats://…, tls://… or kafka://…"
        )));
    }
    let mut options = HttpOptions::default();
    options.body = args.body.into();
    options.messages = args.batch.unwrap_or(0) as usize;
    options.in_flight = args.in_flight;
    options.token = args.token_file.as_deref().map(secret).transpose()?;
    options.password = password(args)?;
    options.headers = args.headers.clone();
    options.ca = args.ca.clone();
    options.client = args.client_cert.clone().zip(args.client_key.clone());
    if loki.is_some() {
        let loki =
            Loki::new(url, &options).map_err(|why| Failure::new(format!("cannot ship to Loki: {why}")))?;
        return Ok(Box::new(loki));
    }
    if otlp.is_some() {
        let otlp = Otlp::new(url, &options)
            .map_err(|why| Failure::new(format!("cannot ship to OpenTelemetry: {why}")))?;
        return Ok(Box::new(otlp));
    }
    let http =
        Http::new(url, &options).map_err(|why| Failure::new(format!("cannot ship over HTTP: {why}")))?;
    Ok(Box::new(http))
}

fn password(args: &ShipArgs) -> Result<Option<(String, String)>, Failure> {
    let given = args.user.as_ref().zip(args.password_file.as_deref());
    given.map(|(user, path)| Ok((user.clone(), secret(path)?))).transpose()
}

fn nats(args: &ShipArgs) -> Result<Box<dyn Destination>, Failure> {
    let mut options = NatsOptions::default();
    options.token = args.token_file.as_deref().map(secret).transpose()?;
    options.password = password(args)?;
    if let Some(path) = &args.credentials {
        let failed = |e| Failure::new(format!("cannot read credentials from {}: {e}", path.display()));
        let credentials = jlog_files::read_text(path, jlog_files::SECRET).map_err(failed)?;
        options.credentials = Some(credentials);
    }
    options.ca = args.ca.clone();
    options.client = args.client_cert.clone().zip(args.client_key.clone());
    let nats = Nats::new(&args.destination, &options)
        .map_err(|why| Failure::new(format!("cannot ship to NATS: {why}")))?;
    Ok(Box::new(nats))
}

#[cfg(feature = "kafka")]
fn kafka(args: &ShipArgs) -> Result<Box<dyn Destination>, Failure> {
    let failed = |why: String| Failure::new(format!("cannot ship to Kafka: {why}"));
    let login = args.user.is_some() || args.token_file.is_some() || args.credentials.is_some();
    if login || args.ca.is_some() || args.client_cert.is_some() {
        return Err(failed(
            "it is reached without TLS and without logging in: leave out --ca, --client-cert, --user, --token-file and --credentials".to_owned(),
        ));
    }
    let kafka =
        jlog_ship::destinations::Kafka::new(&args.destination, &Default::default()).map_err(failed)?;
    Ok(Box::new(kafka))
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &ShipArgs) -> Result<Box<dyn Destination>, Failure> {
    Err(Failure::new(
        "this jlog was built without Kafka: build one with `cargo build --release -p jlog-cli --features kafka`, \
         which needs a C compiler and make",
    ))
}
