//! All commands except those that read, write and check messages.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use base64::Engine;
use comfy_table::{CellAlignment, Table, presets};
use jlog_core::compat::JlogCompat;
use jlog_core::{
    AlterOptions, AtLimit, CleanOptions, Compression, Error, Inspection, Jlog, JlogOptions, Limits, LogId,
    Lost, Meta, ReaderOptions, Safety, Start, Status, SubscriberName, Timestamp, VerifyOptions, Wait,
};
use serde_json::{Value, json};

use crate::args::{
    AlterArgs, AtLimitArg, BackupArgs, CleanArgs, CompressionArg, CreateArgs, FactFormat, InspectArgs,
    LimitArgs, MetaArgs, NewFeed, OnOff, SafetyArg, StatusArgs, SubscribeArgs, UnsubscribeArgs,
};
use crate::error::{Failure, Outcome, USAGE};
use crate::output::{self, BAD, GOOD, HEADING, Rows, WARN};
use crate::stop::Stop;
use crate::values::{counted, from_jiff, grouped, human, span, to_jiff};

/// The options for a new feed, from the command line.
pub fn options(new: &NewFeed) -> JlogOptions {
    let options = output::options()
        .segment_size(new.segment_size)
        .pre_commit(new.pre_commit.unwrap_or(0))
        .compression(match new.compression {
            CompressionArg::None => Compression::None,
            CompressionArg::Lz4 => Compression::Lz4,
        })
        .safety(safety(new.safety))
        .checksums(!new.no_checksums)
        .limits(limits(&new.limits, Limits::default()));
    match new.mode {
        Some(mode) => options.file_mode(mode),
        None => options,
    }
}

/// The current limits, with the changes from the command line.
fn limits(args: &LimitArgs, there: Limits) -> Limits {
    Limits {
        max_bytes: args.max_bytes.map_or(there.max_bytes, |limit| limit.0),
        max_age: args.max_age.map_or(there.max_age, |limit| limit.0),
        keep_free: args.keep_free.map_or(there.keep_free, |limit| limit.0),
        at_limit: args.at_limit.map_or(there.at_limit, |at_limit| match at_limit {
            AtLimitArg::Fail => AtLimit::Fail,
            AtLimitArg::DropOldest => AtLimit::DropOldest,
        }),
    }
}

fn safety(arg: SafetyArg) -> Safety {
    match arg {
        SafetyArg::Unsafe => Safety::Unsafe,
        SafetyArg::AlmostSafe => Safety::AlmostSafe,
        SafetyArg::Safe => Safety::Safe,
    }
}

fn safety_name(safety: Safety) -> &'static str {
    match safety {
        Safety::Unsafe => "unsafe",
        Safety::AlmostSafe => "almost-safe",
        Safety::Safe => "safe",
    }
}

/// `jlog create`
pub fn create(args: &CreateArgs) -> Outcome {
    options(&args.new).create(&args.feed)?;
    Ok(ExitCode::SUCCESS)
}

/// `jlog subscribe`
pub fn subscribe(args: &SubscribeArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    let start = if args.end {
        Start::End
    } else if let Some(id) = args.after {
        Start::After(id)
    } else if let Some(other) = &args.copy {
        Start::CopyOf(other.0.clone())
    } else if let Some(since) = args.since {
        Start::Since(from_jiff(since))
    } else {
        Start::Beginning
    };
    if !(args.r#move || args.if_missing || args.force) {
        let names: Vec<&SubscriberName> = args.subscribers.iter().map(|name| &name.0).collect();
        let id = log.subscribe_all(&names, start)?;
        let lines: Vec<String> = names.iter().map(|name| begins(name, id)).collect();
        output::line(&lines.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    for name in &args.subscribers {
        output::line(&subscribe_one(&log, &name.0, &start, args)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn begins(name: &SubscriberName, id: LogId) -> String {
    format!("{} begins after {id}", output::plain(&name.to_string()))
}

/// Adds or moves a subscriber, which may exist already, and prints where it begins.
fn subscribe_one(
    log: &Jlog,
    name: &SubscriberName,
    start: &Start,
    args: &SubscribeArgs,
) -> Result<String, Failure> {
    let there = log.has_subscriber(name)?;
    let id = if let Some(id) = args.after.filter(|_| args.force && (args.r#move || !there)) {
        log.store_checkpoint(name, id)?;
        id
    } else if args.r#move && there {
        let id = log.resolve(start)?;
        log.set_checkpoint(name, id)?;
        id
    } else {
        match log.subscribe(name, start.clone()) {
            Err(Error::SubscriberExists { .. }) if args.if_missing => {
                let id = log.checkpoint(name)?;
                return Ok(format!("{} exists already, after {id}", output::plain(&name.to_string())));
            }
            other => other?,
        }
    };
    Ok(begins(name, id))
}

/// `jlog unsubscribe`
pub fn unsubscribe(args: &UnsubscribeArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    if log.unsubscribe(&args.subscriber.0)? {
        return Ok(ExitCode::SUCCESS);
    }
    let (path, name) = (log.path().to_owned(), args.subscriber.0.to_string());
    Err(Error::UnknownSubscriber { path, name }.into())
}

fn meta_rows(
    meta: &Meta,
    pre_commit: Option<(u64, u64)>,
    checksums: bool,
) -> Vec<(&'static str, String, Value)> {
    let compression = if meta.format.is_lz4() { "lz4" } else { "none" };
    let size = pre_commit.map_or(0, |(_, size)| size);
    vec![
        (
            "segment being written",
            format!("{:08x}", meta.storage_log),
            format!("{:08x}", meta.storage_log).into(),
        ),
        ("segment size", human(meta.segment_size.into()), meta.segment_size.into()),
        ("pre-commit buffer", if size == 0 { "none".to_owned() } else { human(size) }, size.into()),
        ("compression", compression.to_owned(), compression.into()),
        ("safety", safety_name(meta.safety).to_owned(), safety_name(meta.safety).into()),
        ("checksums", if checksums { "on" } else { "off" }.to_owned(), checksums.into()),
        (
            "header magic",
            format!("{:08x}", meta.format.magic()),
            format!("{:08x}", meta.format.magic()).into(),
        ),
    ]
}

/// `jlog meta`
pub fn meta(args: &MetaArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    let rows = meta_rows(&log.meta()?, log.pre_commit()?, log.checksums());
    let mut text = String::new();
    match args.output {
        FactFormat::Text => {
            for (label, value, _) in rows {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label:<22} {value}");
            }
        }
        FactFormat::Json => {
            let object: serde_json::Map<String, Value> =
                rows.into_iter().map(|(label, _, value)| (label.replace([' ', '-'], "_"), value)).collect();
            let _ = writeln!(text, "{}", Value::Object(object));
        }
    }
    output::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// `jlog status`
pub fn status(args: &StatusArgs) -> Outcome {
    let Some(seconds) = args.watch else {
        let mut text = String::new();
        let mut failures = Vec::new();
        for feed in &args.feeds {
            // A feed that cannot be read must not hide the others.
            match status_of(feed, args.output) {
                Ok(status) => text.push_str(&status),
                Err(failure) => failures.push(failure),
            }
        }
        output::print(text.as_bytes())?;
        failures.sort_by_key(Failure::code);
        let Some(worst) = failures.pop() else { return Ok(ExitCode::SUCCESS) };
        for failure in failures {
            failure.report();
        }
        return Err(worst);
    };
    let stop = Stop::on_signals()?;
    while !stop.is_set() {
        let mut text = String::new();
        if args.output == FactFormat::Text {
            // Clears a terminal; does nothing elsewhere.
            text.push_str(if output::stdout_is_terminal() { "\x1b[H\x1b[2J" } else { "" });
        }
        for feed in &args.feeds {
            match status_of(feed, args.output) {
                Ok(status) => text.push_str(&status),
                // A removed feed may come back, and must not hide the others.
                Err(failure) => output::complain(failure.text()),
            }
        }
        match output::print(text.as_bytes()) {
            Err(failure) if failure.is_broken_pipe() => break,
            other => other?,
        }
        stop.sleep(Duration::from_secs(seconds.into()));
    }
    Ok(ExitCode::SUCCESS)
}

fn status_of(feed: &Path, format: FactFormat) -> Result<String, Failure> {
    let log = output::options().open(feed)?;
    let status = log.status()?;
    Ok(match format {
        FactFormat::Text => status_text(&log, &status),
        FactFormat::Json => {
            let mut object = status_json(feed, &status);
            object["compression_ratio"] = compression(&log, &status).into();
            format!("{object}\n")
        }
    })
}

fn table(heading: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(heading);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The status as text for people.
pub fn status_text(log: &Jlog, status: &Status) -> String {
    let mut text = String::new();
    let last = status.meta.storage_log;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{HEADING}{}{HEADING:#}", output::plain(&log.path().display().to_string()));
    let _ = writeln!(
        text,
        "  segments    {} ({:08x} to {last:08x}), {}, {}",
        status.segments,
        status.first_segment,
        human(status.bytes),
        counted(status.records, "record")
    );
    if let Some((used, size)) = status.pre_commit.filter(|(_, size)| *size > 0) {
        let _ = writeln!(text, "  pre-commit  {} of {} in use", human(used), human(size));
    }
    if let Some(ratio) = compression(log, status) {
        let _ = writeln!(text, "  compression {ratio:.1} to 1 in the newest segments");
    }
    let _ = writeln!(text, "  disk        {} free", human(status.free));
    if status.limits.is_some() {
        let bytes = status.limits.max_bytes.map(human);
        let old = status.limits.max_age.map(|age| format!("{} old", span(age.as_secs())));
        let free = status.limits.keep_free.map(|bytes| format!("{} free", human(bytes)));
        let limits: Vec<String> = bytes.into_iter().chain(old).chain(free).collect();
        let then = match status.limits.at_limit {
            AtLimit::Fail => "writing fails",
            AtLimit::DropOldest => "the oldest segments are dropped",
        };
        let _ = writeln!(text, "  limit       {}, then {then}", limits.join(", "));
    }
    if status.subscribers.is_empty() {
        let _ = writeln!(text, "  no subscribers: everything is kept; add one with `jlog subscribe`");
        return text;
    }
    let mut rows =
        table(&["subscriber", "checkpoint", "behind", "bytes", "oldest", "moved", ""], &[2, 3, 4, 5]);
    let now = jiff::Timestamp::now();
    for subscriber in &status.subscribers {
        let ago = |time: Option<Timestamp>| time.map_or_else(String::new, |time| age(now, to_jiff(time)));
        rows.add_row(vec![
            output::plain(&subscriber.name.to_string()),
            subscriber.checkpoint.map_or_else(|| "unreadable".to_owned(), |id| id.to_string()),
            grouped(subscriber.messages),
            human(subscriber.bytes),
            ago(subscriber.oldest),
            ago(subscriber.moved),
            match (subscriber.checkpoint, subscriber.lost) {
                (Some(id), _) if id.segment > last => "beyond the end: see `jlog verify`".to_owned(),
                (_, Some(lost)) => loss(lost),
                _ if subscriber.missed > 0 => format!("missed {}", counted(subscriber.missed, "message")),
                _ if subscriber.held > 0 => format!("holds back {}", human(subscriber.held)),
                _ if subscriber.holds_back => "holds back the oldest segment".to_owned(),
                _ => String::new(),
            },
        ]);
    }
    for (i, line) in rows.to_string().lines().enumerate() {
        let style = match status.subscribers.get(i.wrapping_sub(1)) {
            None => HEADING,
            Some(s) if s.checkpoint.is_none_or(|id| id.segment > last) || s.lost.is_some() => BAD,
            Some(s) if s.messages == 0 => GOOD,
            Some(s) if s.holds_back => WARN,
            Some(_) => Style::new(),
        };
        let _ = writeln!(text, "  {style}{}{style:#}", line.trim_end());
    }
    text
}

/// The compression ratio in the last segments of a compressed feed: bytes of messages per byte on
/// disk. It reads at most a few megabytes, however large the feed is.
fn compression(log: &Jlog, status: &Status) -> Option<f64> {
    const ENOUGH: u64 = 8 << 20;
    if !status.meta.format.is_lz4() {
        return None;
    }
    let from = status.meta.storage_log.saturating_sub(4).max(status.first_segment);
    let options = ReaderOptions::default().verify(false).peek(true);
    let mut reader = log.reader_from(&Start::From(LogId::new(from, 0)), options).ok()?;
    let (mut plain, mut stored) = (0, 0);
    // Damage is for `verify` to report.
    while stored < ENOUGH
        && let Ok(Some(batch)) = reader.next_batch(Wait::No)
    {
        for message in &batch {
            plain += message.body().len() as u64;
            stored += u64::from(message.stored_len());
        }
    }
    (stored > 0).then(|| plain as f64 / stored as f64)
}

/// A loss, described in a few words.
fn loss(lost: Lost) -> String {
    let at_least = if lost.exact { "" } else { "at least " };
    let messages = counted(lost.messages, "message");
    let (segments, missing) = (counted(u64::from(lost.segments), "segment"), lost.segments - lost.cut);
    let what = match (missing, lost.cut) {
        (_, 0) => "missing",
        (0, _) => "cut",
        _ => "missing or cut",
    };
    format!("lost {at_least}{messages}: {segments} {what}, see `jlog verify`")
}

fn age(now: jiff::Timestamp, then: jiff::Timestamp) -> String {
    span(u64::try_from(now.as_second() - then.as_second()).unwrap_or(0))
}

fn status_json(feed: &Path, status: &Status) -> Value {
    let subscribers: Vec<Value> = status
        .subscribers
        .iter()
        .map(|s| {
            // A name may be any bytes.
            let (key, name) = match std::str::from_utf8(s.name.as_bytes()) {
                Ok(name) => ("name", name.to_owned()),
                Err(_) => {
                    ("name_base64", base64::engine::general_purpose::STANDARD.encode(s.name.as_bytes()))
                }
            };
            json!({
                key: name,
                "checkpoint": s.checkpoint.map(|id| id.to_string()),
                "messages_behind": s.messages,
                "bytes_behind": s.bytes,
                "oldest": s.oldest.map(|t| format!("{:.6}", to_jiff(t))),
                "moved": s.moved.map(|t| format!("{:.0}", to_jiff(t))),
                "holds_back": s.holds_back,
                "held_bytes": s.held,
                "missed": s.missed,
                "lost": s.lost.map(|lost| json!({
                    "messages": lost.messages,
                    "exact": lost.exact,
                    "segments": lost.segments,
                    "cut_segments": lost.cut,
                    "first_segment": format!("{:08x}", lost.first),
                    "last_segment": format!("{:08x}", lost.last),
                })),
            })
        })
        .collect();
    json!({
        "feed": feed.display().to_string(),
        "first_segment": format!("{:08x}", status.first_segment),
        "last_segment": format!("{:08x}", status.meta.storage_log),
        "segments": status.segments,
        "bytes": status.bytes,
        "records": status.records,
        "pre_commit_used": status.pre_commit.map(|(used, _)| used),
        "pre_commit_size": status.pre_commit.map(|(_, size)| size),
        "free": status.free,
        "checksums": status.checksums,
        "max_bytes": status.limits.max_bytes,
        "keep_free": status.limits.keep_free,
        "max_age": status.limits.max_age.map(|age| age.as_secs()),
        "at_limit": status.limits.at_limit.name(),
        "subscribers": subscribers,
    })
}

/// `jlog inspect`
pub fn inspect(args: &InspectArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    match args.segment {
        Some(segment) => inspect_records(&log, segment)?,
        None => inspect_segments(&log)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect_records(log: &Jlog, segment: u32) -> Result<(), Failure> {
    let mut rows = Rows::new(&["id", "offset", "time", "length", "stored"], &[1, 3, 4]);
    let mut outcome = Ok(());
    log.inspect(segment, |record| {
        // If one row cannot be printed, later rows cannot either.
        if outcome.is_ok() {
            outcome = rows.push(vec![
                record.id.to_string(),
                record.offset.to_string(),
                format!("{:.6}", to_jiff(record.time)),
                record.len.to_string(),
                record.stored.to_string(),
            ]);
        }
    })?;
    outcome?;
    rows.finish()
}

/// Rows are printed after this many segments.
const INSPECTED_AT_ONCE: usize = 1000;

fn inspect_segments(log: &Jlog) -> Result<(), Failure> {
    let heading = ["segment", "bytes", "records", "first", "last", "index", "checksums", ""];
    let mut rows = Rows::new(&heading, &[1, 2, 6]);
    let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
    let options = VerifyOptions::default().threads(threads);
    let found = |part: &[u32]| log.inspect_all(part, &options);
    for found in log.segments()?.chunks(INSPECTED_AT_ONCE).map(found) {
        for segment in found? {
            rows.push(segment_row(&segment))?;
        }
    }
    rows.finish()
}

fn segment_row(found: &Inspection) -> Vec<String> {
    let time =
        |t: Option<jlog_core::Timestamp>| t.map_or_else(|| "-".to_owned(), |t| format!("{:.6}", to_jiff(t)));
    let behind = found.bytes - found.whole_until;
    vec![
        format!("{:08x}", found.segment),
        found.bytes.to_string(),
        found.records.to_string(),
        time(found.first),
        time(found.last),
        found.index.map_or_else(
            || "-".to_owned(),
            |index| format!("{}{}", index.last, if index.closed { " closed" } else { "" }),
        ),
        found.checksummed.to_string(),
        if behind > 0 {
            format!("{} after the last whole record", counted(behind, "byte"))
        } else {
            String::new()
        },
    ]
}

/// `jlog clean`
pub fn clean(args: &CleanArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    if args.expire && log.limits().max_age.is_none() {
        return Err(Failure::new(format!(
            "{} has no age limit, so no message expires: set one with `jlog alter --max-age`",
            args.feed.display()
        )));
    }
    let removed = log.clean(CleanOptions::default().roll(args.roll))?;
    let list: Vec<String> = removed.iter().map(|segment| format!(" {segment:08x}")).collect();
    output::line(&format!("{} removed{}", counted(removed.len() as u64, "segment"), list.concat()))?;
    Ok(ExitCode::SUCCESS)
}

/// `jlog backup`
pub fn backup(args: &BackupArgs) -> Outcome {
    let copied = output::options().open(&args.feed)?.backup(&args.dir)?;
    output::line(&format!(
        "{} copied, {}, up to {}",
        counted(copied.segments, "segment"),
        counted(copied.bytes, "byte"),
        copied.end
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `jlog alter`
pub fn alter(args: &AlterArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    let changed = limits(&args.limits, log.limits());
    let limited = args.limits.max_bytes.is_some()
        || args.limits.max_age.is_some()
        || args.limits.keep_free.is_some()
        || args.limits.at_limit.is_some();
    let changes = (args.segment_size, args.pre_commit, args.safety, args.checksums);
    if let (None, None, None, None) = changes
        && !limited
    {
        output::complain(
            "nothing to change: give --segment-size, --pre-commit, --safety, --checksums, --max-bytes, --max-age, \
             --keep-free or --at-limit",
        );
        return Ok(ExitCode::from(USAGE));
    }
    log.alter(
        AlterOptions::default()
            .segment_size(args.segment_size)
            .pre_commit(args.pre_commit)
            .safety(args.safety.map(safety))
            .limits(limited.then_some(changed))
            .checksums(args.checksums.map(|checksums| checksums == OnOff::On)),
    )?;
    Ok(ExitCode::SUCCESS)
}
