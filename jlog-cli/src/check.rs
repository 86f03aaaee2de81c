//! `jlog verify` and `jlog repair`: checks of whole feeds, on all cores, with a progress bar.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::OnceLock;

use indicatif::ProgressBar;
use jlog_core::{Error, JlogOptions, Progress, Verification, VerifyOptions};

use crate::args::{FeedArgs, RepairArgs};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output::{self, BAD, GOOD, WARN};
use crate::stop::Stop;
use crate::values::{counted, grouped, human};

/// Runs a check with a progress bar, until it is done or a signal ends it.
fn with_progress<T>(work: impl FnOnce(&VerifyOptions) -> Result<T, Error>) -> Result<T, Failure> {
    let stop = Stop::on_signals()?;
    let bar: std::sync::Arc<OnceLock<Option<ProgressBar>>> = std::sync::Arc::default();
    let shown = std::sync::Arc::clone(&bar);
    let options = VerifyOptions::default()
        .threads(std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN))
        .on_progress(move |progress: Progress| {
            if let Some(bar) = shown.get_or_init(|| output::progress_bar(progress.total_bytes)) {
                bar.set_position(progress.bytes);
            }
            if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    let outcome = work(&options);
    if let Some(Some(bar)) = bar.get() {
        bar.finish_and_clear();
    }
    Ok(outcome?)
}

/// `jlog verify`
pub fn verify(args: &FeedArgs) -> Outcome {
    // A damaged metastore is a finding here, not an error.
    let log = match output::options().open(&args.feed) {
        Ok(log) => log,
        Err(e @ (Error::Metastore { .. } | Error::Settings { .. })) => {
            output::print(format!("{BAD}damaged{BAD:#} {}\n", output::plain(&e.to_string())).as_bytes())?;
            return Ok(ExitCode::from(DAMAGED));
        }
        Err(e) => return Err(e.into()),
    };
    let found = with_progress(|options| log.verify_with(options))?;
    let mut text = String::new();
    for finding in &found.findings {
        let (style, word) = if finding.damage { (BAD, "damaged") } else { (WARN, "note") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{style}{word}{style:#} {}", output::plain(&finding.to_string()));
    }
    let (style, word) = if found.is_damaged() { (BAD, "damaged") } else { (GOOD, "sound") };
    let _ = writeln!(text, "{style}{word}{style:#}: {}", summary(&found));
    output::print(text.as_bytes())?;
    Ok(if found.is_damaged() { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}

fn summary(found: &Verification) -> String {
    format!(
        "{}, {}, {}, {} of them checked against checksums, {} could not be checked",
        counted(found.segments.into(), "segment"),
        human(found.bytes),
        counted(found.records, "intact record"),
        grouped(found.verified),
        grouped(found.records - found.verified),
    )
}

/// `jlog repair`
pub fn repair(args: &RepairArgs) -> Outcome {
    let options = JlogOptions::default().repair_in_use(args.force);
    let done = with_progress(|how| options.repair_with(&args.feed, how))?;
    let mut text = String::new();
    for event in &done {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", output::plain(&event.to_string()));
    }
    if done.is_empty() {
        text.push_str("nothing to repair\n");
    }
    output::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
