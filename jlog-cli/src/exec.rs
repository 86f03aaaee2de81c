//! `jlog read --exec`: a command for a subscriber's messages.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jlog_ship::destinations::{Exec, FailedRun, Framing, Retrying};
use jlog_ship::{OnReject, Report, Shipper, Totals};

use crate::args::{ExecArgs, MessageFormat, ReadArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output;
use crate::read::LOOK_AGAIN;
use crate::ship::{not_itself, on_reject, on_stop, shipping_failed};
use crate::stop::Stop;
use crate::values::{Name, counted, from_jiff};

/// The window, as a multiple of the number of concurrent messages: how many may be done ahead of
/// the checkpoint because an older one is not.
const AHEAD: usize = 10;
/// The maximum size of a run in bytes; the window has room for one run per job.
const WINDOW_BYTES: usize = 8 << 20;

/// `jlog read --exec`
pub fn run(args: &ReadArgs, subscriber: &Name, command: &str) -> Outcome {
    if command.trim().is_empty() {
        return Err(Failure::new("--exec needs a command"));
    }
    if let Some(path) = &args.exec.set_aside {
        not_itself(path, &args.feed)?;
    }
    let framing = framing(args)?;
    let stop = Stop::on_signals()?;
    let mut said = String::new();
    loop {
        let failure = match work(args, subscriber, command, framing, &stop) {
            Err(failure) if args.wait && failure.is_absent() => failure,
            outcome => return outcome,
        };
        if said != failure.text() {
            said = failure.text().to_owned();
            output::note(&format!("{said}; waiting"));
        }
        stop.sleep(LOOK_AGAIN);
        if stop.is_set() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// How messages are separated. A run with a single message gets it unchanged.
fn framing(args: &ReadArgs) -> Result<Framing, Failure> {
    match args.output {
        MessageFormat::Cat if args.count.is_none() => Ok(Framing::One),
        MessageFormat::Cat => Ok(Framing::Lines),
        MessageFormat::Null => Ok(Framing::Null),
        MessageFormat::LengthPrefixed => Ok(Framing::LengthPrefixed),
        _ => {
            Err(Failure::new("--exec passes messages unchanged: with it, -o is cat, null or length-prefixed"))
        }
    }
}

fn work(args: &ReadArgs, subscriber: &Name, command: &str, framing: Framing, stop: &Stop) -> Outcome {
    let ExecArgs { jobs, tries, timeout, drain, .. } = args.exec;
    let jobs = jobs as usize;
    let batch = usize::try_from(args.count.unwrap_or(1)).unwrap_or(usize::MAX);
    let window = jobs.saturating_mul(batch).saturating_mul(AHEAD);
    let on_reject = on_reject(args.exec.on_reject, args.exec.set_aside.as_ref());
    let tries = (on_reject != OnReject::Block).then_some(tries);
    let damaged = Arc::new(AtomicBool::new(false));
    let found = Arc::clone(&damaged);
    let shipper = Shipper::new(&args.feed, subscriber.0.to_string())
        .map_err(shipping_failed)?
        .window(window, WINDOW_BYTES.saturating_mul(jobs))
        .once(!args.follow)
        .wait_for_feed(args.wait)
        .until(args.until.map(from_jiff))
        .drain(Duration::from_secs(drain))
        .timeout(Duration::MAX)
        .on_reject(on_reject)
        .on_report(move |report| {
            if matches!(report, Report::Feed(event) if event.is_damage()) {
                found.store(true, Ordering::Relaxed);
            }
            output::note(&report.to_string());
        });
    let stopper = shipper.stopper();
    on_stop(stop.clone(), move || stopper.stop())?;
    let failure = Arc::new(Mutex::new(None));
    let (failed, name) = (Arc::clone(&failure), command.to_owned());
    let exec = Exec::new(command).framing(framing).messages(batch).in_flight(jobs).printing(true);
    let retrying = Retrying::new(exec, shipper.stopper(), move |run| {
        if run.misconfigured && !run.worked {
            let text = format!("the command {name:?} cannot do its work: {}", run.why);
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            return ControlFlow::Break(());
        }
        // Reported less and less often.
        if run.again && run.runs.is_power_of_two() {
            output::note(&describe(run));
        }
        ControlFlow::Continue(())
    });
    let retrying = retrying.tries(tries).timeout(timeout.map(Duration::from_secs));
    let totals = shipper.run(Box::new(retrying)).map_err(shipping_failed)?;
    end(&totals)?;
    if let Some(text) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Failure::new(text));
    }
    let damaged = damaged.load(Ordering::Relaxed);
    Ok(if damaged { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

fn describe(run: &FailedRun) -> String {
    let first = run.first.id;
    let which = match run.messages {
        1 => format!("message {first}"),
        more => format!("{more} messages from {first} on"),
    };
    let runs = if run.runs == 1 { String::new() } else { format!(" {} times", run.runs) };
    format!("the command failed{runs} for {which}: {}; running it again", run.why)
}

/// Describes the messages that a stop leaves for the next run.
fn end(totals: &Totals) -> Result<(), Failure> {
    if !totals.is_balanced() {
        let text =
            format!("{totals}: that does not balance, which is a bug in this program: please report it");
        return Err(Failure::new(text));
    }
    if totals.in_flight > 0 {
        let messages = counted(totals.in_flight, "message");
        let them = if totals.in_flight == 1 { "it" } else { "them" };
        output::note(&format!("{messages} not done: next time, the command will run for {them} again"));
    }
    Ok(())
}
