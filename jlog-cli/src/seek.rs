//! `jlog seek`

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use jlog_core::{Jlog, LogId, ReaderOptions, Start, SubscriberName, Timestamp, Wait};

use crate::args::SeekArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::time::Place;
use crate::values::{counted, from_jiff};

/// Where a subscriber is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the first message in the feed.
    Beginning,
    /// After the last one.
    End,
    /// To this record, or to the first one at or after a time.
    Place(Place),
}

/// `beginning`, `end`, an id or a time.
pub fn target(text: &str) -> Result<Target, String> {
    match text {
        "beginning" => Ok(Target::Beginning),
        "end" => Ok(Target::End),
        _ => crate::time::place(text)
            .map(Target::Place)
            .map_err(|expected| expected.replacen("expected", "expected beginning, end,", 1)),
    }
}

/// How far a subscriber is moved from its checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// By messages: forward, or back if negative.
    Messages(i64),
    /// To a later or earlier time.
    Time {
        /// Whether the time is earlier.
        back: bool,
        /// The time span.
        by: Duration,
    },
}

/// `+100`, `-100`, `+10min` or `-2h`.
pub fn step(text: &str) -> Result<Step, String> {
    let expected = || "expected messages or a time with a sign, such as -100, +100, -2h or +10min".to_owned();
    let (back, number) = match text.split_at_checked(1) {
        Some(("-", rest)) => (true, rest),
        Some(("+", rest)) => (false, rest),
        _ => return Err(expected()),
    };
    if number.starts_with(|c: char| !c.is_ascii_digit()) {
        return Err(expected());
    }
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        let messages: i64 = number.parse().map_err(|_| expected())?;
        return Ok(Step::Messages(if back { -messages } else { messages }));
    }
    match crate::values::age(number) {
        Ok(crate::values::Limit(Some(by))) => Ok(Step::Time { back, by }),
        _ => Err(expected()),
    }
}

/// The checkpoint with which a reader begins there.
fn resolve(log: &Jlog, name: &SubscriberName, from: LogId, args: &SeekArgs) -> Result<LogId, Failure> {
    let start = match (args.to, args.by) {
        (Some(Target::Beginning), _) => Start::Beginning,
        (Some(Target::End), _) => Start::End,
        (Some(Target::Place(Place::Id(id))), _) => Start::From(id),
        (Some(Target::Place(Place::Time(time))), _) => Start::Since(from_jiff(time)),
        (None, Some(Step::Messages(messages))) => {
            let behind = log.lag(name)?.messages;
            Start::Last(behind.saturating_add_signed(messages.saturating_neg()))
        }
        (None, Some(Step::Time { back, by })) => {
            let mut reader = log.reader_from(&Start::After(from), ReaderOptions::default())?;
            let next = reader.next_batch(Wait::No)?.and_then(|batch| Some(batch.iter().next()?.time()));
            let next = SystemTime::from(next.unwrap_or_else(Timestamp::now));
            let time = if back { next.checked_sub(by) } else { next.checked_add(by) };
            // A time outside the clock's range is before or after all messages.
            time.map_or(if back { Start::Beginning } else { Start::End }, |time| Start::Since(time.into()))
        }
        (None, None) => return Err(Failure::new("expected --to or --by")),
    };
    Ok(log.resolve(&start)?)
}

/// `jlog seek`
pub fn seek(args: &SeekArgs) -> Outcome {
    let log = output::options().open(&args.feed)?;
    let name = &args.subscriber.0;
    // The claim keeps readers away: they would overwrite this checkpoint with their own.
    let _claim = log.reader_with(name, ReaderOptions::default())?;
    let (from, before) = (log.checkpoint(name)?, log.lag(name)?.messages);
    let to = resolve(&log, name, from, args)?;
    log.set_checkpoint(name, to)?;
    let after = log.lag(name)?.messages;
    let what = match before.abs_diff(after) {
        0 => "it was there already".to_owned(),
        n if after > before => format!("{} will be delivered again", counted(n, "message")),
        n => format!("{} skipped", counted(n, "message")),
    };
    output::line(&format!("{} moved from {from} to {to}: {what}", output::plain(&name.to_string())))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_targets_are_understood() {
        for (text, expected) in [
            ("-100", Step::Messages(-100)),
            ("+7", Step::Messages(7)),
            ("-2h", Step::Time { back: true, by: Duration::from_secs(7200) }),
            ("+10min", Step::Time { back: false, by: Duration::from_secs(600) }),
        ] {
            assert_eq!(step(text), Ok(expected), "{text}");
        }
        for wrong in ["", "+", "7", "--7", "+x", "-99999999999999999999", "+1 parsec", "-none"] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
        assert_eq!(target("beginning"), Ok(Target::Beginning));
        assert_eq!(target("0:7"), Ok(Target::Place(Place::Id(LogId::new(0, 7)))));
        assert!(target("nowhere").unwrap_err().starts_with("expected beginning, end, an id such as"));
    }
}
