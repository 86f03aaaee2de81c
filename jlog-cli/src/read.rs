//! `jlog read` and `jlog tail`.

use std::process::ExitCode;

use jlog_core::{Jlog, OnDamage, Reader, ReaderOptions, Start, Wait};

use crate::args::{MessageFormat, ReadArgs, TailArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output::{self, MessageOutput};
use crate::stop::Stop;
use crate::values::from_jiff;

/// What is read, and how.
struct Job {
    count: Option<u64>,
    follow: bool,
    peek: bool,
    since: Option<jlog_core::Timestamp>,
    until: Option<jlog_core::Timestamp>,
    format: MessageFormat,
}

/// `jlog read`
pub fn run(args: &ReadArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    let on_damage = if args.skip_damage { OnDamage::Skip } else { OnDamage::Fail };
    let options = ReaderOptions::default().on_damage(on_damage).peek(args.peek);
    let mut reader = log.reader_with(&args.subscriber.0, options)?;
    let since = args.since.map(from_jiff);
    if let Some(since) = since {
        // Never back behind the checkpoint: what is done stays done.
        let start = reader.position();
        reader.seek_time(since)?;
        if reader.position() < start {
            reader.seek(start)?;
        }
    }
    let stop = Stop::on_signals()?;
    stop.also_wake(reader.waker()?);
    let job = Job {
        count: args.count,
        follow: args.follow,
        peek: args.peek,
        since,
        until: args.until.map(from_jiff),
        format: args.output,
    };
    let outcome = copy(&mut reader, &job, &stop);
    finish(outcome, &reader)
}

/// `jlog tail`
pub fn tail(args: &TailArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    remove_dead_tails(&log)?;
    // Before the subscriber is there, so that no signal leaves it behind.
    let stop = Stop::on_signals()?;
    let name = format!("{TAIL_PREFIX}{}", std::process::id());
    log.subscribe(&name, Start::End)?;
    let tail = Tail { log: &log, name: &name };
    let mut reader = log.reader_with(&name, ReaderOptions::default().on_damage(OnDamage::Skip))?;
    stop.also_wake(reader.waker()?);
    let job =
        Job { count: args.count, follow: true, peek: false, since: None, until: None, format: args.output };
    let outcome = copy(&mut reader, &job, &stop);
    drop(tail);
    finish(outcome, &reader)
}

/// What the names of `jlog tail`'s subscribers begin with; the process follows.
const TAIL_PREFIX: &str = "~tail-";

/// Removes the subscribers of tails that were killed.
fn remove_dead_tails(log: &Jlog) -> Result<(), Failure> {
    for name in log.subscribers()? {
        let process = std::str::from_utf8(name.as_bytes())
            .ok()
            .and_then(|name| name.strip_prefix(TAIL_PREFIX))
            .and_then(|process| process.parse::<u32>().ok())
            .and_then(|process| i32::try_from(process).ok())
            .filter(|&process| process > 0);
        if let Some(process) = process
            && nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None)
                == Err(nix::errno::Errno::ESRCH)
        {
            log.unsubscribe(&name)?;
        }
    }
    Ok(())
}

/// Removes the temporary subscriber.
struct Tail<'a> {
    log: &'a Jlog,
    name: &'a str,
}

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.log.unsubscribe(self.name) {
            output::complain(&e.to_string());
        }
    }
}

fn finish(outcome: Result<(), Failure>, reader: &Reader) -> Outcome {
    match outcome {
        Err(failure) if !failure.is_broken_pipe() => Err(failure),
        _ if reader.lost().is_some() => Ok(ExitCode::from(DAMAGED)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Copies messages to stdout. The checkpoint follows what has gone out.
fn copy(reader: &mut Reader, job: &Job, stop: &Stop) -> Result<(), Failure> {
    let mut out = MessageOutput::new();
    let mut left = job.count.unwrap_or(u64::MAX);
    let wait = if job.follow { Wait::Forever } else { Wait::No };
    while left > 0 && !stop.is_set() {
        let Some(batch) = reader.next_batch(wait)? else {
            if job.follow {
                continue;
            }
            return Ok(());
        };
        for message in batch.iter() {
            if left == 0 {
                break;
            }
            if job.until.is_some_and(|until| message.time() >= until) {
                left = 0;
            } else if job.since.is_some_and(|since| message.time() < since) {
                out.pass_over(message.id());
            } else {
                out.push(&message, job.format);
                left -= 1;
            }
        }
        let (done, outcome) = out.flush(stop);
        if let Some(id) = done
            && !job.peek
        {
            reader.checkpoint(id)?;
        }
        outcome?;
    }
    Ok(())
}
