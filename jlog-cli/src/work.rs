//! `jlog work`: a command for the messages of a group of workers.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jlog_core::{FeedIdentity, Group, GroupOptions, Leased, Wait, Waker};
use jlog_ship::destinations::{BlockingExec, Exec, Framing};
use jlog_ship::{MessageId, Outgoing, Refusal, RefusalKind, SetAside};
use serde_json::Value;

use crate::args::{RejectArg, WorkArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output;
use crate::ship::{not_itself, on_stop, shipping_failed};
use crate::stop::Stop;

/// How often a worker checks on a run.
const BEAT: Duration = Duration::from_millis(100);
/// How often a worker without `--follow` checks on messages that others have.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The longest wait between two deliveries of a message.
const LONGEST: Duration = Duration::from_secs(300);

/// The state that the workers of this process share.
struct Common {
    args: WorkArgs,
    identity: FeedIdentity,
    stop: Stop,
    /// When a signal asked the command to stop.
    stopped: Mutex<Option<Instant>>,
    aside: Option<Mutex<SetAside>>,
    /// Whether any run has succeeded.
    worked: AtomicBool,
    /// Why all workers must end.
    failure: Mutex<Option<Failure>>,
}

/// `jlog work`
pub fn run(args: WorkArgs) -> Outcome {
    if args.exec.trim().is_empty() {
        return Err(Failure::new("--exec needs a command"));
    }
    if let Some(path) = &args.set_aside {
        not_itself(path, &args.feed)?;
    }
    let stop = Stop::on_signals()?;
    let log = output::options().open(&args.feed)?;
    let mut options =
        GroupOptions::default().lease(Duration::from_secs(args.lease)).window(args.window as usize);
    if let Some(path) = args.key.clone() {
        options = options.key(move |body| key(&path, body));
    }
    let mut groups = Vec::new();
    for _ in 0..args.jobs {
        groups.push(log.group(&args.group.0, options.clone())?);
    }
    let wakers = groups.iter_mut().map(Group::waker).collect::<Result<Vec<Waker>, _>>()?;
    let aside = args.set_aside.clone().filter(|_| args.on_reject == RejectArg::SetAside);
    let common = Arc::new(Common {
        identity: log.identity()?,
        stop: stop.clone(),
        stopped: Mutex::new(None),
        aside: aside.map(|path| Mutex::new(SetAside::new(path))),
        worked: AtomicBool::new(false),
        failure: Mutex::new(None),
        args,
    });
    let signalled = Arc::clone(&common);
    on_stop(stop, move || {
        *signalled.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        wakers.iter().for_each(Waker::wake);
    })?;
    let mut threads = Vec::new();
    for group in groups {
        let common = Arc::clone(&common);
        let work = move || {
            let outcome = Worker::new(&common, group).and_then(|mut worker| worker.run());
            if let Err(failure) = outcome {
                let mut first = common.failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(failure);
            }
        };
        let spawned = std::thread::Builder::new().name("worker".to_owned()).spawn(work);
        threads.push(spawned.map_err(Failure::no_thread)?);
    }
    for thread in threads {
        if thread.join().is_err() {
            return Err(Failure::new("a worker ended because of a bug in this program: please report it"));
        }
    }
    if let Some(failure) = common.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    Ok(if output::damage_reported() { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

impl Common {
    /// Whether workers must not take another message.
    fn is_over(&self) -> bool {
        self.stop.is_set() || self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether the time for running commands to end is over.
    fn is_drained(&self) -> bool {
        let stopped = *self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.is_some_and(|at| at.elapsed() >= Duration::from_secs(self.args.drain))
    }
}

struct Worker<'a> {
    common: &'a Common,
    group: Group,
    exec: BlockingExec,
}

impl<'a> Worker<'a> {
    fn new(common: &'a Common, group: Group) -> Result<Self, Failure> {
        let exec = Exec::new(common.args.exec.clone()).framing(Framing::One).printing(true);
        Ok(Self { common, group, exec: BlockingExec::new(exec).map_err(shipping_failed)? })
    }

    fn run(&mut self) -> Result<(), Failure> {
        let follow = self.common.args.follow;
        let wait = if follow { Wait::Timeout(Duration::from_secs(1)) } else { Wait::No };
        while !self.common.is_over() {
            match self.group.lease(1, wait)?.pop() {
                Some(message) => self.work(&message)?,
                None if follow => {}
                None if self.group.is_done()? => return Ok(()),
                // Other workers have the messages. If they do not finish them, we will.
                None => self.common.stop.sleep(LOOK_AGAIN),
            }
        }
        Ok(())
    }

    fn work(&mut self, message: &Leased) -> Result<(), Failure> {
        let args = &self.common.args;
        let last = args.on_reject != RejectArg::Block && message.deliveries() >= args.max_deliveries;
        if args.on_reject != RejectArg::Block && message.deliveries() > args.max_deliveries {
            let why = format!("{} workers ended without finishing it", args.max_deliveries);
            return self.reject(message, &why);
        }
        let mut runs = 0;
        loop {
            let refusal = match self.run_for(message) {
                Ok(()) => {
                    self.common.worked.store(true, Ordering::Relaxed);
                    if !self.group.acknowledge(message.lease())? {
                        self.lost(message);
                    }
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            runs += 1;
            match refusal.kind {
                _ if self.common.is_drained() => {}
                RefusalKind::Misconfigured => {
                    if !self.common.worked.load(Ordering::Relaxed) {
                        self.group.give_back(message.lease(), Duration::ZERO)?;
                        let text = format!("the command {:?} cannot do its work: {}", args.exec, refusal.why);
                        return Err(Failure::new(text));
                    }
                    // This is not the message's fault, and is not counted against it.
                    self.failed(message, runs, &refusal);
                    if self.pause(message, delay(args.retry_delay, runs))? {
                        continue;
                    }
                }
                RefusalKind::Shipment | RefusalKind::Some | RefusalKind::Message => {
                    self.common.worked.store(true, Ordering::Relaxed);
                    if args.on_reject != RejectArg::Block {
                        return self.reject(message, &refusal.why);
                    }
                    self.failed(message, message.deliveries(), &refusal);
                }
                RefusalKind::Temporary(_) | RefusalKind::Behind if last => {
                    return self.reject(message, &refusal.why);
                }
                RefusalKind::Temporary(_) | RefusalKind::Behind => {
                    self.failed(message, message.deliveries(), &refusal);
                }
            }
            let after = if self.common.is_over() {
                Duration::ZERO
            } else {
                delay(args.retry_delay, message.deliveries())
            };
            self.group.give_back(message.lease(), after)?;
            return Ok(());
        }
    }

    /// Runs the command, and extends the message's lease until it ends.
    fn run_for(&mut self, message: &Leased) -> Result<(), Refusal> {
        let (common, group) = (self.common, &mut self.group);
        let args = &common.args;
        let (begun, mut extended) = (Instant::now(), Instant::now());
        let third = Duration::from_secs(args.lease) / 3;
        let id = MessageId { feed: common.identity, id: message.id(), time: message.time() };
        self.exec.run(vec![Outgoing { id, body: message.body().clone() }], BEAT, || {
            if common.is_drained() {
                return ControlFlow::Break("it was interrupted".to_owned());
            }
            if args.timeout.is_some_and(|limit| begun.elapsed() >= Duration::from_secs(limit)) {
                return ControlFlow::Break(format!("it did not end within {} s", args.timeout.unwrap_or(0)));
            }
            if extended.elapsed() >= third {
                extended = Instant::now();
                // If this fails, the message is delivered again, as after any failure.
                if !group.extend(message.lease()).unwrap_or(true) {
                    return ControlFlow::Break("another worker has the message now".to_owned());
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Waits, and extends the lease meanwhile. Returns `false` if it is time to end, or if another
    /// worker has the message.
    fn pause(&mut self, message: &Leased, time: Duration) -> Result<bool, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if self.common.is_over() || !self.group.extend(message.lease())? {
                return Ok(false);
            }
            let left = time.saturating_sub(begun.elapsed());
            self.common.stop.sleep(left.min(Duration::from_secs(self.common.args.lease) / 3));
        }
        Ok(true)
    }

    /// Handles a message that the command refuses for good.
    fn reject(&mut self, message: &Leased, why: &str) -> Result<(), Failure> {
        let (args, id) = (&self.common.args, message.id());
        if let Some(aside) = &self.common.aside {
            // Extend the lease before writing, so that no other worker writes it as well.
            if !self.group.extend(message.lease())? {
                self.lost(message);
                return Ok(());
            }
            let mut aside = aside.lock().unwrap_or_else(PoisonError::into_inner);
            let known = MessageId { feed: self.common.identity, id, time: message.time() };
            let outgoing = Outgoing { id: known, body: message.body().clone() };
            let destination = format!("exec:{}", args.exec);
            let group = args.group.0.to_string();
            let path = aside.path().display().to_string();
            if let Err(e) = aside.put(&outgoing, &args.feed, &group, &destination, why) {
                output::note(&format!("message {id} cannot be set aside in {path}: {e}; trying again"));
                self.group.give_back(message.lease(), delay(args.retry_delay, message.deliveries()))?;
                return Ok(());
            }
            output::note(&format!("message {id} was refused and set aside in {path}: {why}"));
        } else {
            output::note(&format!("message {id} was refused and skipped: {why}"));
        }
        self.group.acknowledge(message.lease())?;
        Ok(())
    }

    fn failed(&self, message: &Leased, times: u32, refusal: &Refusal) {
        // Report less and less often.
        if times.is_power_of_two() {
            let often = if times == 1 { String::new() } else { format!(" {times} times") };
            let text = format!(
                "the command failed{often} for message {}: {}; it will be delivered again",
                message.id(),
                refusal.why
            );
            output::note(&text);
        }
    }

    fn lost(&self, message: &Leased) {
        output::note(&format!(
            "message {} took longer than its lease; another worker has it now",
            message.id()
        ));
    }
}

/// How long a message waits after this many deliveries.
fn delay(first: u64, deliveries: u32) -> Duration {
    let factor = 1 << deliveries.saturating_sub(1).min(20);
    Duration::from_secs(first).saturating_mul(factor).min(LONGEST)
}

/// The path of a message's key.
pub type KeyPath = Vec<String>;

/// Parses `$.order.customer`, `order.customer`, or `/order/customer`.
pub fn key_path(text: &str) -> Result<KeyPath, String> {
    let wrong = || format!("{text:?} is not the path of a key: $.order.customer, or /order/customer");
    let names: Vec<String> = if let Some(pointer) = text.strip_prefix('/') {
        pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
    } else {
        text.strip_prefix("$.").unwrap_or(text).split('.').map(str::to_owned).collect()
    };
    if names.iter().any(|name| name.is_empty() || name.contains(['[', ']', '*', '$'])) {
        return Err(wrong());
    }
    Ok(names)
}

/// The key of a message; `None` if the message is not JSON, or has no value there.
fn key(path: &KeyPath, body: &[u8]) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let found = path.iter().try_fold(&value, |value, name| match value {
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })?;
    match found {
        Value::Null => None,
        Value::String(text) => Some(text.as_bytes().to_vec()),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_path() {
        let body = br#"{"order": {"customer": "c7", "lines": [{"n": 3}], "a.b": null}}"#;
        for (path, expected) in [
            ("$.order.customer", Some("c7")),
            ("order.customer", Some("c7")),
            ("/order/customer", Some("c7")),
            ("order.lines.0.n", Some("3")),
            ("order.lines.1.n", None),
            ("/order/a.b", None),
            ("nothing", None),
        ] {
            let found = key(&key_path(path).unwrap(), body);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        }
        assert_eq!(key(&key_path("a").unwrap(), b"no JSON"), None);
        for wrong in ["", "$", "$.", "a..b", "/", "$.a[0]", "$..a", "a.*"] {
            assert!(key_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn delays_double() {
        let all = [1, 2, 3, 10, u32::MAX].map(|deliveries| delay(1, deliveries).as_secs());
        assert_eq!(all, [1, 2, 4, 300, 300]);
        assert_eq!(delay(0, 5), Duration::ZERO);
    }
}
