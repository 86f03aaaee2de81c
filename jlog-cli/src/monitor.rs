//! `jlog check`: one line and an exit code, as monitoring systems expect of plugins.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use jlog_core::{Error, JlogOptions, Status, SubscriberStatus, Timestamp};

use crate::args::CheckArgs;
use crate::error::Outcome;
use crate::output;
use crate::values::{counted, human, span};

/// The severity; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Warning => "WARNING",
            State::Critical => "CRITICAL",
            State::Unknown => "UNKNOWN",
        }
    }
}

/// The exit code if the feed could not be checked, or the command line is wrong.
pub const UNKNOWN: u8 = State::Unknown as u8;

/// A problem.
type Problem = (State, String);

/// `jlog check`
pub fn check(args: &CheckArgs) -> Outcome {
    // Only the one line may be printed; it contains what other commands report separately.
    let status = JlogOptions::default().open(&args.feed).and_then(|log| log.status());
    let (problems, fine, figures) = match &status {
        Err(e) => (vec![(state_of(e), e.to_string())], String::new(), String::new()),
        Ok(status) => {
            let chosen = |subscriber: &&SubscriberStatus| {
                args.subscribers.is_empty() || args.subscribers.iter().any(|name| name.0 == subscriber.name)
            };
            let subscribers: Vec<&SubscriberStatus> = status.subscribers.iter().filter(chosen).collect();
            let now = Timestamp::now();
            let problems = problems(args, status, &subscribers, now);
            (problems, summary(status, &subscribers, now), figures(args, status, &subscribers, now))
        }
    };
    let state = problems.iter().map(|(state, _)| *state).max().unwrap_or(State::Ok);
    let mut texts: Vec<&str> = Vec::new();
    for state in [State::Unknown, State::Critical, State::Warning] {
        texts.extend(problems.iter().filter(|(of, _)| *of == state).map(|(_, text)| &**text));
    }
    let text = if texts.is_empty() { fine } else { texts.join("; ") };
    let figures = if figures.is_empty() { figures } else { format!(" | {figures}") };
    output::line(&format!("JLOG {}: {}{figures}", state.name(), one_line(&text)))?;
    Ok(ExitCode::from(state as u8))
}

/// A missing or damaged feed is a finding. Missing permissions say nothing about the feed.
fn state_of(error: &Error) -> State {
    match error {
        Error::NotAJlog { .. }
        | Error::MetastoreMissing { .. }
        | Error::Metastore { .. }
        | Error::Settings { .. }
        | Error::Replaced { .. } => State::Critical,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => State::Critical,
        e if e.is_damage() => State::Critical,
        _ => State::Unknown,
    }
}

/// Text without line ends and without the vertical bar that introduces the figures.
fn one_line(text: &str) -> String {
    output::plain(text).replace('|', "\\x7c")
}

/// Critical beyond one limit, a warning beyond the other.
fn beyond<T: PartialOrd>(value: T, warn: Option<T>, critical: Option<T>) -> Option<(State, T)> {
    match (critical, warn) {
        (Some(limit), _) if value > limit => Some((State::Critical, limit)),
        (_, Some(limit)) if value > limit => Some((State::Warning, limit)),
        _ => None,
    }
}

/// Age of the oldest message that a subscriber has not done.
fn age(subscriber: &SubscriberStatus, now: Timestamp) -> Duration {
    let oldest = subscriber.oldest.unwrap_or(now);
    Duration::from_micros(now.as_micros().saturating_sub(oldest.as_micros()))
}

fn problems(
    args: &CheckArgs,
    status: &Status,
    subscribers: &[&SubscriberStatus],
    now: Timestamp,
) -> Vec<Problem> {
    let mut found = Vec::new();
    for name in &args.subscribers {
        if !subscribers.iter().any(|subscriber| subscriber.name == name.0) {
            found.push((State::Critical, format!("there is no subscriber {}", name.0)));
        }
    }
    for subscriber in subscribers {
        let name = subscriber.name.to_string();
        match subscriber.checkpoint {
            None => found.push((State::Critical, format!("{name}: its checkpoint cannot be read"))),
            Some(id) if id.segment > status.meta.storage_log => {
                found.push((State::Critical, format!("{name}: its checkpoint {id} is past the end")));
            }
            Some(_) => {}
        }
        if let Some(lost) = subscriber.lost {
            let at_least = if lost.exact { "" } else { "at least " };
            let text = format!("{name}: {at_least}{} lost", counted(lost.messages, "message"));
            found.push((State::Critical, text));
        }
        let lag = age(subscriber, now);
        let limits = (args.warn_lag.and_then(|limit| limit.0), args.max_lag.and_then(|limit| limit.0));
        if let Some((state, limit)) = beyond(lag, limits.0, limits.1) {
            let text = format!(
                "{name}: its oldest message is {} old, more than {}",
                span(lag.as_secs()),
                span(limit.as_secs())
            );
            found.push((state, text));
        }
        if let Some((state, limit)) = beyond(subscriber.messages, args.warn_messages, args.max_messages) {
            let text =
                format!("{name}: {} behind, more than {limit}", counted(subscriber.messages, "message"));
            found.push((state, text));
        }
    }
    let below = |limit: Option<crate::values::Limit<u64>>| {
        limit.and_then(|limit| limit.0).filter(|limit| status.free < *limit)
    };
    let free = match (below(args.min_free), below(args.warn_free)) {
        (Some(limit), _) => Some((State::Critical, limit)),
        (None, limit) => limit.map(|limit| (State::Warning, limit)),
    };
    found.extend(
        free.map(|(state, limit)| {
            (state, format!("{} free, less than {}", human(status.free), human(limit)))
        }),
    );
    found
}

/// The text if there is no problem.
fn summary(status: &Status, subscribers: &[&SubscriberStatus], now: Timestamp) -> String {
    let mut text = counted(subscribers.len() as u64, "subscriber");
    let behind = subscribers.iter().filter(|subscriber| subscriber.messages > 0);
    // Writing to a String cannot fail.
    let _ = match behind.max_by_key(|subscriber| (age(subscriber, now), subscriber.messages)) {
        Some(last) => write!(
            text,
            ", furthest behind {}: {}, {}",
            last.name,
            counted(last.messages, "message"),
            span(age(last, now).as_secs())
        ),
        None => write!(text, ", none behind"),
    };
    let _ = write!(text, "; {}, {} free", human(status.bytes), human(status.free));
    text
}

/// Figures in the format of monitoring systems: label=value with its
/// unit;warning;critical;minimum;maximum.
fn figures(args: &CheckArgs, status: &Status, subscribers: &[&SubscriberStatus], now: Timestamp) -> String {
    let mut out = String::new();
    let mut figure = |label: &str, value: String, warn: String, critical: String, most: String| {
        let label = one_line(label).replace('\'', "''").replace('=', "_");
        let tail = format!("{value};{warn};{critical};0;{most}");
        let separator = if out.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(out, "{separator}'{label}'={}", tail.trim_end_matches(';'));
    };
    let text = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let seconds = |limit: Option<crate::values::Limit<Duration>>| {
        text(limit.and_then(|limit| limit.0).map(|limit| limit.as_secs()))
    };
    // An open-ended range: values below it are too low.
    let least = |limit: Option<crate::values::Limit<u64>>| {
        limit.and_then(|limit| limit.0).map_or_else(String::new, |limit| format!("{limit}:"))
    };
    for subscriber in subscribers {
        let name = &subscriber.name;
        let lag = format!("{:.3}s", age(subscriber, now).as_secs_f64());
        figure(&format!("{name} lag"), lag, seconds(args.warn_lag), seconds(args.max_lag), String::new());
        figure(
            &format!("{name} messages"),
            subscriber.messages.to_string(),
            text(args.warn_messages),
            text(args.max_messages),
            String::new(),
        );
        let bytes = format!("{}B", subscriber.bytes);
        figure(&format!("{name} bytes"), bytes, String::new(), String::new(), String::new());
    }
    let (size, free) = (format!("{}B", status.bytes), format!("{}B", status.free));
    figure("size", size, String::new(), String::new(), text(status.limits.max_bytes));
    figure("free", free, least(args.warn_free), least(args.min_free), String::new());
    out
}
