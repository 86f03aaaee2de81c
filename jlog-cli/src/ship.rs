//! `jlog ship`: sends a subscriber's messages to a destination.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jlog_core::{Jlog, LogId, Start};
use jlog_ship::destinations::{Exec, Feed, Http, HttpOptions, Loki, Nats, NatsOptions, Otlp};
use jlog_ship::{Destination, Mapping, OnReject, Progress, Report, Shipper, Stopper};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

use crate::args::{RejectArg, ShipArgs, ShipmentArgs};
use crate::error::{DAMAGED, Failure, Outcome, USAGE};
use crate::output;
use crate::ship_config;
use crate::stop::Stop;
use crate::time::Place;
use crate::values::{counted, from_jiff, span};

/// How long one of several shipments waits after an error before it restarts.
const BEGIN_AGAIN: Duration = Duration::from_secs(10);

/// The progress bar is shown if at least this many messages are to be shipped.
const MANY: u64 = 10_000;

/// A shipment whose options have been checked.
pub struct Shipment {
    /// The prefix of lines about it: empty if it is the only one.
    pub prefix: String,
    pub args: ShipmentArgs,
    mapping: Mapping,
    secrets: Secrets,
    log: Jlog,
    #[cfg(feature = "serve")]
    pub name_of_destination: String,
    /// Present until it is used: some of its files, such as pipes, can be read only once.
    destination: Mutex<Option<Box<dyn Destination>>>,
    pub progress: Progress,
}

impl Shipment {
    /// Checks all options before anything starts, and changes nothing. An error names the option to
    /// change.
    pub fn check(prefix: String, args: ShipmentArgs) -> Result<Self, (&'static str, Failure)> {
        let about = |option: &'static str| move |failure: Failure| (option, failure);
        let secrets = Secrets::read(&args)?;
        let mapping = mapping(&args).map_err(about("map"))?;
        let destination = destination(&args, &mapping, &secrets).map_err(|failure| {
            // If it can be used without the mapping, the mapping is wrong.
            let usable = destination(&args, &Mapping::new(), &secrets).is_ok();
            (if usable { "map" } else { "destination" }, failure)
        })?;
        let log = output::options().open(&args.feed).map_err(|e| ("feed", e.into()))?;
        if args.from.is_none() {
            log.checkpoint(&args.subscriber.0).map_err(|e| ("subscriber", e.into()))?;
        }
        if let Some(path) = &args.set_aside {
            not_itself(path, &args.feed).map_err(about("set-aside"))?;
        }
        Ok(Self {
            prefix,
            args,
            mapping,
            secrets,
            log,
            #[cfg(feature = "serve")]
            name_of_destination: destination.name(),
            destination: Mutex::new(Some(destination)),
            progress: Progress::default(),
        })
    }

    fn name(&self) -> String {
        self.args.subscriber.0.to_string()
    }

    fn note(&self, text: &str) {
        output::note(&format!("{}{text}", self.prefix));
    }

    /// Adds the subscriber if requested.
    fn subscribe(&self) -> Result<(), Failure> {
        let start = match self.args.from {
            None => return Ok(()),
            Some(Place::Id(LogId { segment: 0, marker: 0 })) => Start::Beginning,
            Some(Place::Id(id)) => Start::From(id),
            Some(Place::Time(time)) => Start::Since(from_jiff(time)),
        };
        self.log.ensure_subscriber(&self.args.subscriber.0, start)?;
        Ok(())
    }

    fn shipper(&self, once: bool) -> Result<Shipper, Failure> {
        let args = &self.args;
        let mut shipper = Shipper::new(&args.feed, self.name())
            .map_err(shipping_failed)?
            .window(args.window, usize::try_from(args.window_bytes).unwrap_or(usize::MAX))
            .once(once)
            .until(args.until.map(from_jiff))
            .rate(args.rate)
            .drain(Duration::from_secs(args.drain))
            .timeout(Duration::from_secs(args.timeout))
            .unwrap_set_aside(args.unwrap)
            .on_reject(on_reject(args.on_reject, args.set_aside.as_ref()))
            .progress_of(&self.progress);
        if let Some(filter) = args.filter.clone() {
            shipper = shipper.filter(move |message| filter.passes(message));
        }
        Ok(shipper)
    }

    /// Ships until stopped or done, and reports what became of the messages. Returns whether some
    /// were damaged or lost.
    fn run(&self, once: bool, stopper: &OnceStopper) -> Result<bool, Failure> {
        let damaged = Arc::new(AtomicBool::new(false));
        let (found, prefix) = (Arc::clone(&damaged), self.prefix.clone());
        let shipper = self.shipper(once)?.on_report(move |report| {
            let lost = match report {
                Report::Feed(event) => event.is_damage(),
                Report::Abandoned { .. } => true,
                _ => false,
            };
            if lost {
                found.store(true, Ordering::Relaxed);
            }
            output::note(&format!("{prefix}{report}"));
        });
        stopper.set(shipper.stopper());
        let checked = self.destination.lock().unwrap_or_else(PoisonError::into_inner).take();
        let destination = match checked {
            Some(checked) => checked,
            None => destination(&self.args, &self.mapping, &self.secrets)?,
        };
        let totals = shipper.run(destination).map_err(shipping_failed)?;
        self.note(&totals.to_string());
        if !totals.is_balanced() {
            return Err(Failure::new(
                "these numbers do not balance, which is a bug in this program: please report it",
            ));
        }
        Ok(damaged.load(Ordering::Relaxed))
    }

    /// The same, but one of several shipments restarts after an error, until it is time to stop.
    fn run_on(&self, once: bool, stop: &Stop, stopper: &OnceStopper) -> Result<bool, Failure> {
        loop {
            let failure = match self.run(once, stopper) {
                Err(failure) if !self.prefix.is_empty() => failure,
                outcome => return outcome,
            };
            let failure = failure.before(&self.prefix);
            if once || stop.is_set() {
                return Err(failure);
            }
            self.progress.failed(failure.text());
            let seconds = BEGIN_AGAIN.as_secs();
            output::complain(&format!("{}; restarting in {seconds} s", failure.text()));
            stop.sleep(BEGIN_AGAIN);
            if stop.is_set() {
                return Err(failure);
            }
        }
    }

    /// Prints what would be sent, one line per message.
    fn dry_run(&self) -> Result<(), Failure> {
        let mut out = BufWriter::new(anstream::stdout().lock());
        let mut outcome = Ok(());
        let mut count = 0;
        let shown = self.shipper(true)?.dry_run(|message| {
            count += 1;
            let text = String::from_utf8_lossy(&message.body);
            let mut mapped = self.mapping.of(message).to_string();
            if !mapped.is_empty() {
                mapped.push(' ');
            }
            let line = format!("{}{} {mapped}{text}", self.prefix, message.id);
            outcome = writeln!(out, "{}", output::plain(&line));
            outcome.is_ok()
        });
        outcome.and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))?;
        drop(out);
        shown.map_err(|e| Failure::new(e.to_string()))?;
        self.note(&format!("{} would be sent", counted(count, "message")));
        Ok(())
    }
}

/// Stops a shipment: the shipper that is running, or the next one if none is.
#[derive(Default)]
struct OnceStopper(Mutex<(bool, Option<Stopper>)>);

impl OnceStopper {
    fn set(&self, stopper: Stopper) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            stopper.stop();
        }
        state.1 = Some(stopper);
    }

    fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(stopper) = &state.1 {
            stopper.stop();
        }
    }
}

/// `jlog ship`
pub fn run(args: &ShipArgs) -> Outcome {
    let shipments = match (&args.config, &args.shipment) {
        (Some(file), _) => ship_config::read(file)?,
        (None, Some(one)) => {
            vec![Shipment::check(String::new(), one.clone()).map_err(|(_, failure)| failure)?]
        }
        (None, None) => {
            return Err(Failure::new("nothing to ship: give a feed, or --config").with_code(USAGE));
        }
    };
    if args.dry_run {
        for shipment in &shipments {
            match shipment.dry_run() {
                Err(failure) if failure.is_broken_pipe() => break,
                shown => shown?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    for shipment in &shipments {
        shipment.subscribe().map_err(|failure| failure.before(&shipment.prefix))?;
    }
    let shipments = Arc::new(shipments);
    let stoppers: Vec<Arc<OnceStopper>> = shipments.iter().map(|_| Arc::default()).collect();
    let stop = Stop::on_signals()?;
    let all = stoppers.clone();
    on_stop(stop.clone(), move || all.iter().for_each(|stopper| stopper.stop()))?;
    let mut signals =
        Signals::new([SIGUSR1]).map_err(|e| Failure::new(format!("cannot handle signals: {e}")))?;
    let shown = Arc::clone(&shipments);
    in_thread("status", move || {
        for _ in signals.forever() {
            for shipment in &*shown {
                shipment.note(&status(&shipment.progress, &shipment.log, &shipment.name()));
            }
        }
    })?;
    #[cfg(feature = "serve")]
    let _metrics = crate::ship_metrics::serve(args.metrics.as_ref(), &shipments)?;
    let ended = AtomicBool::new(false);
    let outcomes: Vec<Result<bool, Failure>> = std::thread::scope(|scope| {
        let bar = output::stderr_is_terminal().then(|| {
            let work = || catching_up(&shipments, &ended);
            std::thread::Builder::new().name("bar".to_owned()).spawn_scoped(scope, work)
        });
        let started: Vec<_> = shipments
            .iter()
            .zip(&stoppers)
            .map(|(shipment, stopper)| {
                let (stop, once) = (&stop, args.once);
                let work = move || shipment.run_on(once, stop, stopper);
                std::thread::Builder::new().name("ship".to_owned()).spawn_scoped(scope, work)
            })
            .collect();
        if started.iter().any(Result::is_err) {
            stoppers.iter().for_each(|stopper| stopper.stop());
        }
        let end = |thread: std::io::Result<std::thread::ScopedJoinHandle<'_, _>>| match thread
            .map(|it| it.join())
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(Failure::new("a shipment ended because of a bug in this program: please report it"))
            }
            Err(e) => Err(Failure::no_thread(e)),
        };
        let outcomes = started.into_iter().map(end).collect();
        ended.store(true, Ordering::Release);
        // If its thread could not start, only the bar is missing.
        if let Some(Ok(bar)) = bar {
            bar.thread().unpark();
        }
        outcomes
    });
    end(outcomes)
}

/// Shows the progress through the messages that existed at the start, if there are many.
fn catching_up(shipments: &[Shipment], ended: &AtomicBool) {
    // If the lag is not known, something else reports it.
    let behind = shipments.iter().filter_map(|shipment| shipment.log.lag(shipment.name()).ok());
    let total: u64 = behind.map(|lag| lag.messages).sum();
    if total < MANY {
        return;
    }
    let bar = output::MessageBar::new(total);
    loop {
        let done: u64 = shipments
            .iter()
            .map(|shipment| shipment.progress.totals())
            .map(|totals| totals.read.saturating_sub(totals.in_flight))
            .sum();
        if done >= total || ended.load(Ordering::Acquire) {
            return;
        }
        bar.set(done);
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The exit code for all shipments together. Reports every failure but the last, which it returns.
fn end(outcomes: Vec<Result<bool, Failure>>) -> Outcome {
    let mut code = ExitCode::SUCCESS;
    let mut failed: Option<Failure> = None;
    for outcome in outcomes {
        match outcome {
            Ok(false) => {}
            Ok(true) => code = ExitCode::from(DAMAGED),
            Err(failure) => {
                if let Some(before) = failed.replace(failure) {
                    before.report();
                }
            }
        }
    }
    failed.map_or(Ok(code), Err)
}

/// What happens to a message that is refused for good.
pub fn on_reject(on_reject: RejectArg, set_aside: Option<&PathBuf>) -> OnReject {
    match (on_reject, set_aside) {
        (RejectArg::SetAside, Some(path)) => OnReject::SetAside(path.clone()),
        (RejectArg::Skip, _) => OnReject::Skip,
        _ => OnReject::Block,
    }
}

/// The command's error for the end of a shipment.
pub fn shipping_failed(error: jlog_ship::Error) -> Failure {
    match error {
        jlog_ship::Error::Feed(e) => Failure::from(e),
        other => Failure::new(other.to_string()),
    }
}

/// Fails if messages of the feed would be appended to the feed itself.
pub fn not_itself(to: &Path, feed: &Path) -> Result<(), Failure> {
    let same = std::fs::canonicalize(to).ok().zip(std::fs::canonicalize(feed).ok());
    if same.is_some_and(|(to, from)| to == from) {
        let path = to.display();
        return Err(Failure::new(format!("{path} is the feed itself: shipping would never end")));
    }
    Ok(())
}

/// Runs something once it is time to stop.
pub fn on_stop(stop: Stop, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    in_thread("stop", move || {
        while !stop.is_set() {
            stop.sleep(Duration::from_secs(60));
        }
        work();
    })
}

/// Runs something in another thread.
fn in_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(Failure::no_thread)
}

/// The progress, in one line.
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
        Err(e) => text.push_str(&format!("; the lag is not known: {e}")),
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

/// A secret's file: its first line.
fn secret(path: &Path) -> Result<String, Failure> {
    let failed = |why: &str| Failure::new(format!("cannot read a secret from {}: {why}", path.display()));
    let text = jlog_files::read_text(path, jlog_files::SECRET).map_err(|e| failed(&e.to_string()))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(failed("its first line is empty")),
    }
}

/// A secret from the environment.
fn variable(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err(Failure::new(format!("the environment variable {name} is empty"))),
        Err(_) => {
            Err(Failure::new(format!("the environment has no variable {name}, or its value is not text")))
        }
    }
}

fn mapping(args: &ShipmentArgs) -> Result<Mapping, Failure> {
    let mut mapping = Mapping::new();
    for (key, template) in &args.map {
        mapping.set(key, template).map_err(|why| Failure::new(format!("cannot map: {why}")))?;
    }
    Ok(mapping)
}

fn destination(
    args: &ShipmentArgs,
    mapping: &Mapping,
    secrets: &Secrets,
) -> Result<Box<dyn Destination>, Failure> {
    let to = args.destination.as_str();
    if let Some(path) = to.strip_prefix("jlog:") {
        if path.is_empty() {
            return Err(Failure::new("jlog: needs the path of a feed after it"));
        }
        not_itself(path.as_ref(), &args.feed)?;
        mapping.only(&[]).map_err(|why| Failure::new(format!("cannot ship to a feed: {why}")))?;
        return Ok(Box::new(Feed::new(path)));
    }
    if let Some(command) = to.strip_prefix("exec:") {
        if command.trim().is_empty() {
            return Err(Failure::new("exec: needs a command after it"));
        }
        mapping.only(&[]).map_err(|why| Failure::new(format!("cannot ship to a command: {why}")))?;
        let mut exec = Exec::new(command).framing(args.framing.into());
        if let Some(messages) = args.batch {
            exec = exec.messages(messages as usize);
        }
        return Ok(Box::new(exec));
    }
    if to.starts_with("nats://") || to.starts_with("tls://") {
        return nats(args, mapping, secrets);
    }
    if to.starts_with("kafka://") || to.starts_with("kafka+tls://") {
        return kafka(args, mapping, secrets);
    }
    let (loki, otlp) = (to.strip_prefix("loki+"), to.strip_prefix("otlp+"));
    let url = loki.or(otlp).unwrap_or(to);
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Failure::new(format!(
            "{to:?} is not a destination: jlog:DIRECTORY, exec:COMMAND, http://…, https://…, loki+http://…, loki+https://…, \
             otlp+http://…, otlp+https://…, nats://…, tls://…, kafka://… or kafka+tls://…"
        )));
    }
    let mut options = HttpOptions::default();
    options.body = args.body.into();
    options.messages = args.batch.unwrap_or(0) as usize;
    options.in_flight = args.in_flight;
    options.mapping = mapping.clone();
    options.token = secrets.token.clone();
    options.password = secrets.password.clone();
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

/// A secret from a file or from the environment, if there is one.
fn either(file: Option<&Path>, variable_name: Option<&str>) -> Result<Option<String>, Failure> {
    match (file, variable_name) {
        (Some(path), _) => secret(path).map(Some),
        (None, Some(name)) => variable(name).map(Some),
        (None, None) => Ok(None),
    }
}

/// The secrets of a shipment. Each is read once.
struct Secrets {
    token: Option<String>,
    password: Option<(String, String)>,
    credentials: Option<String>,
}

impl Secrets {
    /// An error names the option to change.
    fn read(args: &ShipmentArgs) -> Result<Self, (&'static str, Failure)> {
        let file_or = |given: bool, file, variable| if given { file } else { variable };
        let token = either(args.token_file.as_deref(), args.token_env.as_deref());
        let option = file_or(args.token_file.is_some(), "token-file", "token-env");
        let token = token.map_err(|failure| (option, failure))?;
        let password = either(args.password_file.as_deref(), args.password_env.as_deref());
        let option = file_or(args.password_file.is_some(), "password-file", "password-env");
        let password = args.user.clone().zip(password.map_err(|failure| (option, failure))?);
        let credentials = args.credentials.as_deref().map(|path| {
            jlog_files::read_text(path, jlog_files::SECRET).map_err(|e| {
                let why = format!("cannot read credentials from {}: {e}", path.display());
                ("credentials", Failure::new(why))
            })
        });
        Ok(Self { token, password, credentials: credentials.transpose()? })
    }
}

fn nats(args: &ShipmentArgs, mapping: &Mapping, secrets: &Secrets) -> Result<Box<dyn Destination>, Failure> {
    let mut options = NatsOptions::default();
    options.mapping = mapping.clone();
    options.token = secrets.token.clone();
    options.password = secrets.password.clone();
    options.credentials = secrets.credentials.clone();
    options.ca = args.ca.clone();
    options.client = args.client_cert.clone().zip(args.client_key.clone());
    let nats = Nats::new(&args.destination, &options)
        .map_err(|why| Failure::new(format!("cannot ship to NATS: {why}")))?;
    Ok(Box::new(nats))
}

#[cfg(feature = "kafka")]
fn kafka(args: &ShipmentArgs, mapping: &Mapping, secrets: &Secrets) -> Result<Box<dyn Destination>, Failure> {
    let failed = |why: String| Failure::new(format!("cannot ship to Kafka: {why}"));
    let mut options = jlog_ship::destinations::KafkaOptions::default();
    options.mapping = mapping.clone();
    options.password = secrets.password.clone();
    options.ca = args.ca.clone();
    options.client = args.client_cert.clone().zip(args.client_key.clone());
    if secrets.token.is_some() || secrets.credentials.is_some() {
        return Err(failed(
            "it has no tokens and no credentials files: log in with --user and --password-file or --password-env"
                .to_owned(),
        ));
    }
    #[cfg(not(feature = "kafka-ssl"))]
    if args.destination.starts_with("kafka+tls://")
        || options.ca.is_some()
        || options.client.is_some()
        || options.password.is_some()
    {
        return Err(failed(
            "this jlog was built without TLS and SASL for Kafka: build one with \
             `cargo build --release -p jlog-cli --features kafka-ssl`, which needs a C compiler, make, and OpenSSL's headers"
                .to_owned(),
        ));
    }
    let kafka = jlog_ship::destinations::Kafka::new(&args.destination, &options).map_err(failed)?;
    Ok(Box::new(kafka))
}

#[cfg(not(feature = "kafka"))]
fn kafka(args: &ShipmentArgs, _: &Mapping, _: &Secrets) -> Result<Box<dyn Destination>, Failure> {
    let secured = args.user.is_some() || args.ca.is_some() || args.destination.starts_with("kafka+tls://");
    let (feature, headers) = if secured { ("kafka-ssl", ", OpenSSL's headers") } else { ("kafka", "") };
    Err(Failure::new(format!(
        "this jlog was built without Kafka: build one with \
         `cargo build --release -p jlog-cli --features {feature}`, which needs a C compiler{headers} and make"
    )))
}
