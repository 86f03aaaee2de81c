//! `jlog read`, `jlog cat` and `jlog tail`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use jlog_core::{
    Claim, Error, Jlog, LogId, OnDamage, Reader, ReaderOptions, Start, SubscriberName, Timestamp, Wait,
};

use crate::args::{CatArgs, MessageFormat, ReadArgs, TailArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output::{self, MessageOutput};
use crate::stop::Stop;
use crate::time::Place;
use crate::values::from_jiff;

/// How often we check for a feed that does not exist.
pub const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What to read, and how.
struct Job {
    /// How many messages are still to be shown.
    left: u64,
    follow: bool,
    /// Whether to wait for a feed that does not exist.
    wait: bool,
    /// Whether the subscriber's checkpoint follows the messages that were written.
    store: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The last record that is shown.
    last: Option<LogId>,
}

/// `jlog read`
pub fn run(args: &ReadArgs) -> Outcome {
    #[cfg(feature = "ship")]
    if let (Some(command), Some(subscriber)) = (&args.exec.exec, &args.subscriber) {
        return crate::exec::run(args, subscriber, command);
    }
    let claim = if args.shared { Claim::Shared } else { Claim::Alone };
    let options = reader_options(args.stop_at_damage).peek(args.peek).claim(claim);
    let since = args.since.map(from_jiff);
    let mut job = Job {
        left: args.count.unwrap_or(u64::MAX),
        follow: args.follow,
        wait: args.wait,
        store: args.subscriber.is_some() && !args.peek,
        since,
        until: args.until.map(from_jiff),
        last: None,
    };
    let mut start = match args.from {
        Some(Place::Id(id)) => Start::From(id),
        Some(Place::Time(time)) => Start::Since(from_jiff(time)),
        None => Start::Beginning,
    };
    let store = job.store;
    job.run(args.output, |_| {
        let log = output::options().open(&args.feed)?;
        let Some(subscriber) = &args.subscriber else {
            let reader = log.reader_from(&start, options)?;
            // Ids of this feed mean nothing in a feed that replaces it.
            start = Start::Beginning;
            return Ok(Source { reader, tail: None });
        };
        let mut reader = log.reader_with(&subscriber.0, options)?;
        if store && let Err(e) = reader.check_writable() {
            return Err(Failure::from(e)
                .or("; --peek reads without moving the checkpoint, `jlog cat` without a subscriber"));
        }
        if let Some(since) = since {
            // Never begin before the checkpoint: messages that are done stay done.
            let start = reader.position();
            reader.seek_time(since)?;
            if reader.position() < start {
                reader.seek(start)?;
            }
        }
        Ok(Source { reader, tail: None })
    })
}

/// `jlog cat`
pub fn cat(args: &CatArgs) -> Outcome {
    let (since, from) = match args.from {
        Some(Place::Time(time)) => (Some(time), None),
        Some(Place::Id(id)) => (None, Some(id)),
        None => (args.since, None),
    };
    let (until, last) = match args.to {
        Some(Place::Time(time)) => (Some(time), None),
        Some(Place::Id(id)) => (None, Some(id)),
        None => (args.until, None),
    };
    let since = since.map(from_jiff);
    let mut job = Job {
        left: args.count.unwrap_or(u64::MAX),
        follow: false,
        wait: false,
        store: false,
        since,
        until: until.map(from_jiff),
        last,
    };
    job.run(args.output, |_| {
        let log = output::options().open(&args.feed)?;
        let start = from.map(Start::From).or(since.map(Start::Since)).unwrap_or(Start::Beginning);
        let reader = log.reader_from(&start, reader_options(args.stop_at_damage))?;
        Ok(Source { reader, tail: None })
    })
}

/// `jlog tail`
pub fn tail(args: &TailArgs) -> Outcome {
    let options = reader_options(args.stop_at_damage);
    let mut job = Job {
        left: args.count.unwrap_or(u64::MAX),
        follow: true,
        wait: args.wait,
        store: true,
        since: None,
        until: None,
        last: None,
    };
    job.run(args.output, |waited| {
        let log = output::options().open(&args.feed)?;
        let start = match waited {
            Waited::Not => Start::Last(args.last),
            // In a feed that did not exist before, all messages are new.
            Waited::ForFeed => Start::Beginning,
            Waited::Since(id) => Start::After(id),
        };
        remove_dead_tails(&log);
        let mut number = 0;
        loop {
            let name = tail_name(number);
            match log.subscribe(&name, start.clone()) {
                Ok(_) => {}
                // A tail of another process namespace, such as another container, has this process
                // number.
                Err(Error::SubscriberExists { .. }) => {
                    number += 1;
                    continue;
                }
                // Then no segments are retained for this reader.
                Err(e) if cannot_write(&e) => {
                    return Ok(Source { reader: log.reader_from(&start, options)?, tail: None });
                }
                Err(e) => return Err(e.into()),
            }
            // Created before the reader, so that no error leaves the subscriber behind.
            let tail = Tail { log: log.clone(), name: name.clone() };
            match log.reader_with(&name, options) {
                Ok(reader) => return Ok(Source { reader, tail: Some(tail) }),
                // Until a reader claims the subscriber, another tail may mistake it for one that a
                // killed tail has left.
                Err(Error::ReaderBusy { .. } | Error::UnknownSubscriber { .. }) if number < TRIES => {
                    number += 1;
                }
                Err(e) => return Err(e.into()),
            }
        }
    })
}

fn reader_options(stop_at_damage: bool) -> ReaderOptions {
    let on_damage = if stop_at_damage { OnDamage::Fail } else { OnDamage::Skip };
    ReaderOptions::default().on_damage(on_damage)
}

/// Whether a change was refused for lack of permission or space.
fn cannot_write(error: &Error) -> bool {
    match error {
        Error::DiskFull { .. } => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        }
        _ => false,
    }
}

/// The prefix of the names of `jlog tail`'s subscribers. The process id follows, and a number if
/// that name is taken.
const TAIL_PREFIX: &str = "~tail-";
/// How many names are tried while others remove them.
const TRIES: u32 = 100;

fn tail_name(number: u32) -> String {
    let process = std::process::id();
    match number {
        0 => format!("{TAIL_PREFIX}{process}"),
        _ => format!("{TAIL_PREFIX}{process}-{number}"),
    }
}

/// The process id in the name of a tail's subscriber.
fn tail_process(name: &SubscriberName) -> Option<i32> {
    let rest = std::str::from_utf8(name.as_bytes()).ok()?.strip_prefix(TAIL_PREFIX)?;
    let process = match rest.split_once('-') {
        Some((process, number)) => number.parse::<u32>().ok().map(|_| process)?,
        None => rest,
    };
    process.parse::<u32>().ok().and_then(|process| i32::try_from(process).ok()).filter(|&process| process > 0)
}

/// Removes the subscribers of tails that were killed, if that is possible.
fn remove_dead_tails(log: &Jlog) {
    for name in log.subscribers().unwrap_or_default() {
        let Some(process) = tail_process(&name) else { continue };
        let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None)
            == Err(nix::errno::Errno::ESRCH);
        // This process may have the number of one that is gone, or that runs in another process
        // namespace.
        if !gone && u32::try_from(process).ok() != Some(std::process::id()) {
            continue;
        }
        // A living tail has claimed its subscriber, even a tail that we cannot see, such as one in
        // another container. A checkpoint that we cannot write says nothing about claims.
        if let Ok(reader) = log.reader_with(&name, ReaderOptions::default())
            && reader.check_writable().is_ok()
        {
            // Without permission to remove it, leave that to a tail that has permission.
            let _ = log.unsubscribe(&name);
        }
    }
}

/// Removes the temporary subscriber.
struct Tail {
    log: Jlog,
    name: String,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Err(e) = self.log.unsubscribe(&self.name) {
            output::complain(&e.to_string());
        }
    }
}

/// The source of messages.
struct Source {
    reader: Reader,
    /// Removes its subscriber when it is dropped.
    tail: Option<Tail>,
}

/// What the command waited for before it opened a feed.
#[derive(Clone, Copy)]
enum Waited {
    Not,
    ForFeed,
    /// The feed is the same; it was read up to here.
    Since(LogId),
}

impl Job {
    /// Opens the source and copies its messages to stdout, repeatedly if it waits for another feed.
    fn run(&mut self, format: MessageFormat, open: impl FnMut(Waited) -> Result<Source, Failure>) -> Outcome {
        // Handled before there is a subscriber, so that no signal leaves one behind.
        let stop = Stop::on_signals()?;
        match self.run_all(&mut MessageOutput::new(format)?, &stop, open) {
            Err(failure) if !failure.is_broken_pipe() => Err(failure),
            _ if output::damage_reported() => Ok(ExitCode::from(DAMAGED)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn run_all(
        &mut self,
        out: &mut MessageOutput,
        stop: &Stop,
        mut open: impl FnMut(Waited) -> Result<Source, Failure>,
    ) -> Result<(), Failure> {
        let mut waited = Waited::Not;
        let mut unsubscribed: Option<Reader> = None;
        // Report what we wait for once, and again when it changes.
        let mut said = String::new();
        while !stop.is_set() {
            if let Some(reader) = unsubscribed.take() {
                // When a feed is removed, its subscriber may disappear first.
                let removed = matches!(reader.check_not_replaced(), Err(Error::Replaced { .. }));
                waited = if removed { Waited::ForFeed } else { Waited::Since(reader.position()) };
            }
            let failure = match open(waited) {
                Ok(mut source) => {
                    let _tail = source.tail;
                    said.clear();
                    stop.also_wake(source.reader.waker()?);
                    match self.copy(&mut source.reader, out, stop) {
                        Ok(()) => return Ok(()),
                        Err(failure) => {
                            waited = Waited::ForFeed;
                            if failure.is_unsubscribed() {
                                unsubscribed = Some(source.reader);
                            }
                            failure
                        }
                    }
                }
                Err(failure) => {
                    waited = Waited::ForFeed;
                    failure
                }
            };
            if !self.wait || !failure.is_absent() {
                return Err(failure);
            }
            if said != failure.text() {
                said = failure.text().to_owned();
                output::note(&format!("{said}; waiting"));
            }
            stop.sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Copies messages to stdout. The checkpoint follows what was written.
    fn copy(&mut self, reader: &mut Reader, out: &mut MessageOutput, stop: &Stop) -> Result<(), Failure> {
        let store = self.store && reader.subscriber().is_some();
        let wait = if self.follow { Wait::Forever } else { Wait::No };
        while self.left > 0 && !stop.is_set() {
            let Some(batch) = reader.next_batch(wait)? else {
                if self.follow {
                    continue;
                }
                return Ok(());
            };
            let mut done = None;
            let mut outcome = Ok(());
            for message in batch.iter() {
                if self.left == 0 {
                    break;
                }
                if self.until.is_some_and(|until| message.time() >= until)
                    || self.last.is_some_and(|last| message.id() > last)
                {
                    self.left = 0;
                } else if self.since.is_some_and(|since| message.time() < since) {
                    out.pass_over(message.id());
                } else if out.is_large(&message) {
                    self.left -= 1;
                    let (whole, flushed) = out.flush_with(&message, stop);
                    (done, outcome) = (whole.or(done), flushed);
                    if outcome.is_err() || stop.is_set() {
                        break;
                    }
                } else if let Err(refused) = out.push(&message) {
                    outcome = Err(refused);
                    break;
                } else {
                    self.left -= 1;
                }
            }
            let (whole, flushed) = out.flush(stop);
            let done = whole.or(done);
            if let Some(id) = done
                && store
            {
                reader.commit(id)?;
            }
            flushed.and(outcome)?;
        }
        Ok(())
    }
}
