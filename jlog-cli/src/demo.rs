//! `jlog demo`: a real access log becomes a feed.

use std::path::PathBuf;
use std::process::ExitCode;

use jlog_core::{Jlog, Start, Wait};

use crate::admin;
use crate::args::DemoArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::values::{counted, grouped, human};

/// 6,050 lines by a web server; see `demo/README.md`.
const ACCESS_LOG: &[u8] = include_bytes!("../demo/access.log");

/// `jlog demo`
pub fn run(args: &DemoArgs) -> Outcome {
    let directory = directory(args)?;
    let fail = |what: &str, e: std::io::Error| Failure::new(format!("cannot {what}: {e}"));
    let log_file = directory.join("access.log");
    std::fs::write(&log_file, ACCESS_LOG).map_err(|e| fail("write the access log", e))?;
    let feed = directory.join("feed");

    let lines: Vec<&[u8]> =
        ACCESS_LOG.strip_suffix(b"\n").unwrap_or(ACCESS_LOG).split(|&b| b == b'\n').collect();
    say(&format!(
        "A web server's access log: {} ({} lines)",
        log_file.display(),
        grouped(lines.len() as u64)
    ))?;

    // Small segments, so that there are several.
    let log = Jlog::options().segment_size(128 << 10).create(&feed)?;
    log.subscribe("billing", Start::Beginning)?;
    log.subscribe("audit", Start::Beginning)?;
    say(&format!("A feed with two subscribers, billing and audit: {}", feed.display()))?;

    let writer = log.writer()?;
    for batch in lines.chunks(1000) {
        writer.append_batch(batch)?;
    }
    writer.close()?;
    let status = log.status()?;
    say(&format!(
        "Every line is a message now: {}, {} in {}",
        counted(status.records, "record"),
        human(status.bytes),
        counted(status.segments.into(), "segment")
    ))?;

    let all = read(&log, "billing", u64::MAX)?;
    let half = read(&log, "audit", lines.len() as u64 / 2)?;
    say(&format!("billing has read all {}, audit half of them: {}", grouped(all), grouped(half)))?;
    say("The segments that both have read are removed. These are left:\n")?;
    output::print(admin::status_text(&log, &log.status()?).as_bytes())?;

    let shown = feed.display().to_string();
    let feed = shlex::try_quote(&shown).map_or_else(|_| shown.clone(), std::borrow::Cow::into_owned);
    say("\nTry next (`cargo run --release -p jlog-cli --` stands for jlog unless it is installed):")?;
    for line in [
        format!("jlog read {feed} audit -n 3 -o short"),
        format!("jlog read {feed} audit --peek -o json | head -1"),
        format!("jlog tail {feed} &"),
        format!("echo 'hello from the command line' | jlog write {feed}"),
        format!("jlog status {feed}"),
        format!("jlog verify {feed}"),
    ] {
        say(&format!("  {line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<(), Failure> {
    output::line(text)
}

fn directory(args: &DemoArgs) -> Result<PathBuf, Failure> {
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir(directory).map_err(|e| {
                Failure::new(format!(
                    "cannot create {}: {e}; name a directory that does not exist",
                    directory.display()
                ))
            })?;
            Ok(directory.clone())
        }
        None => Ok(tempfile::Builder::new()
            .prefix("jlog-demo-")
            .tempdir()
            .map_err(|e| Failure::new(format!("cannot create a temporary directory: {e}")))?
            .keep()),
    }
}

fn read(log: &Jlog, subscriber: &str, limit: u64) -> Result<u64, Failure> {
    let mut reader = log.reader(subscriber)?;
    let mut left = limit;
    while left > 0 {
        let Some(batch) = reader.next_batch(Wait::No)? else { break };
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(batch.len());
        let last = batch.iter().nth(take - 1).map(|message| message.id());
        left -= take as u64;
        if let Some(last) = last {
            reader.commit(last)?;
        }
    }
    Ok(limit - left)
}
