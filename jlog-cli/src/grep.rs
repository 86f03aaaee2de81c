//! `jlog grep`

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::thread;

use jlog_core::{Jlog, LogId, Message, OnDamage, Reader, ReaderOptions, Start, Timestamp, Wait};
use regex::bytes::{Regex, RegexBuilder};

use crate::args::{GrepArgs, MessageFormat};
use crate::error::{DAMAGED, Failure, Outcome};
use crate::output::{self, MessageOutput};
use crate::stop::Stop;
use crate::values::from_jiff;

/// The exit code if no message matches.
const NO_MATCH: u8 = 1;
/// The exit code of a failure, as in grep: 1 means that nothing matches.
pub const FAILED: u8 = 2;
/// How many segments each thread searches ahead of the one being printed.
const AHEAD: usize = 2;

/// The pattern and its options.
struct Search {
    pattern: Regex,
    invert: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    format: MessageFormat,
    count: bool,
}

/// The matches of a segment.
struct Found {
    matches: u64,
    out: MessageOutput,
}

/// Whether a search continues with the next message.
enum Next {
    Match,
    Other,
    /// Before the searched range.
    Before,
    /// After it.
    End,
}

impl Search {
    fn new(args: &GrepArgs) -> Result<Self, Failure> {
        let text = if args.fixed { regex::escape(&args.pattern) } else { args.pattern.clone() };
        let pattern = RegexBuilder::new(&text)
            .case_insensitive(args.ignore_case)
            .build()
            .map_err(|e| Failure::new(format!("the pattern {:?}: {e}", args.pattern)))?;
        Ok(Self {
            pattern,
            invert: args.invert_match,
            since: args.since.map(from_jiff),
            until: args.until.map(from_jiff),
            format: args.output,
            count: args.count,
        })
    }

    fn judge(&self, message: &Message<'_>) -> Next {
        match message.time() {
            time if self.until.is_some_and(|until| time >= until) => Next::End,
            time if self.since.is_some_and(|since| time < since) => Next::Before,
            _ if self.pattern.is_match(message.body()) != self.invert => Next::Match,
            _ => Next::Other,
        }
    }

    fn reader(&self, log: &Jlog, start: &Start) -> Result<Reader, Failure> {
        Ok(log.reader_from(start, ReaderOptions::default().on_damage(OnDamage::Skip))?)
    }

    /// Searches one segment, from its beginning or, in the first one, from `start`.
    fn segment(&self, log: &Jlog, start: &Start, segment: u32, stop: &Ended<'_>) -> Result<Found, Failure> {
        let mut reader = self.reader(log, start)?;
        let mut found = Found { matches: 0, out: MessageOutput::new(self.format)? };
        while !stop.is_set()
            && let Some(batch) = reader.next_batch(Wait::No)?
        {
            for message in batch.iter() {
                if message.id().segment > segment {
                    return Ok(found);
                }
                match self.judge(&message) {
                    Next::Match => {
                        found.matches += 1;
                        if !self.count {
                            found.out.push(&message)?;
                        }
                    }
                    Next::End => return Ok(found),
                    Next::Other | Next::Before => {}
                }
            }
        }
        Ok(found)
    }
}

/// How far ahead the threads may search, and whether they must stop, because a signal came or the
/// rest is not wanted.
struct Ended<'a> {
    stop: &'a Stop,
    over: AtomicBool,
    /// How many parts were printed. Matches in the others are kept in memory.
    printed: Mutex<usize>,
    moved: Condvar,
}

impl Ended<'_> {
    fn is_set(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.stop.is_set()
    }

    /// Waits until this part may be searched; `false` at the end.
    fn wait_for(&self, part: usize, ahead: usize) -> bool {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let too_far = |printed: &mut usize| part >= *printed + ahead && !self.over.load(Ordering::Relaxed);
        drop(self.moved.wait_while(printed, too_far));
        !self.is_set()
    }

    fn printed(&self, parts: usize) {
        *self.printed.lock().unwrap_or_else(PoisonError::into_inner) = parts;
        self.moved.notify_all();
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        // A thread that is about to wait has the lock.
        drop(self.printed.lock());
        self.moved.notify_all();
    }
}

/// Where each segment's part of the search begins.
fn parts(log: &Jlog, search: &Search) -> Result<Vec<(u32, Start)>, Failure> {
    let first = match search.since {
        Some(since) => log.resolve(&Start::Since(since))?,
        None => log.resolve(&Start::Beginning)?,
    };
    let later = log.segments()?.into_iter().filter(|&segment| segment > first.segment);
    let later = later.map(|segment| (segment, Start::After(LogId::new(segment, 0))));
    Ok(std::iter::once((first.segment, Start::After(first))).chain(later).collect())
}

/// Searches segments in several threads, and prints the matches in order. Returns their number.
fn search_all(log: &Jlog, search: &Search, stop: &Stop) -> Result<u64, Failure> {
    let parts = parts(log, search)?;
    let ended = Ended { stop, over: AtomicBool::new(false), printed: Mutex::new(0), moved: Condvar::new() };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(parts.len()).max(1);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (found, results) = mpsc::channel();
        let mut started = 0;
        for _ in 0..threads {
            let (found, parts, next, ended) = (found.clone(), &parts, &next, &ended);
            let search = move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((segment, start)) = parts.get(n) else { return };
                    if !ended.wait_for(n, threads * AHEAD) {
                        return;
                    }
                    let outcome = search.segment(log, start, *segment, ended);
                    if found.send((n, outcome)).is_err() {
                        return;
                    }
                }
            };
            match thread::Builder::new().spawn_scoped(scope, search) {
                Ok(_) => started += 1,
                // Those that have started do the work of the others.
                Err(_) if started > 0 => break,
                Err(e) => return Err(Failure::no_thread(e)),
            }
        }
        drop(found);
        let (mut waiting, mut matches, mut printed) = (BTreeMap::new(), 0, 0);
        let outcome = results.into_iter().try_for_each(|(n, outcome)| {
            waiting.insert(n, outcome?);
            while let Some(mut found) = waiting.remove(&printed) {
                matches += found.matches;
                printed += 1;
                found.out.flush(stop).1?;
                ended.printed(printed);
            }
            Ok(())
        });
        ended.end();
        outcome.map(|()| matches)
    })
}

/// Searches messages in sequence, and also prints those around a match. Returns the number of
/// matches.
fn search_with_context(log: &Jlog, search: &Search, around: u64, stop: &Stop) -> Result<u64, Failure> {
    let start = search.since.map_or(Start::Beginning, Start::Since);
    let mut reader = search.reader(log, &start)?;
    let keep = usize::try_from(around).unwrap_or(usize::MAX);
    // The last messages that were not printed, each rendered by itself.
    let mut before: VecDeque<MessageOutput> = VecDeque::new();
    let (mut matches, mut after, mut gap, mut any) = (0, 0, false, false);
    // In the other formats, a separator would be taken for a message.
    let separated = matches!(search.format, MessageFormat::Cat | MessageFormat::Short | MessageFormat::Hex);
    let empty = MessageOutput::new(search.format)?;
    let mut spare = None;
    while !stop.is_set()
        && let Some(batch) = reader.next_batch(Wait::No)?
    {
        for message in batch.iter() {
            let matched = match search.judge(&message) {
                Next::End => return Ok(matches),
                Next::Before => continue,
                Next::Match => true,
                Next::Other => false,
            };
            let mut out: MessageOutput = spare.take().unwrap_or_else(|| empty.clone());
            out.push(&message)?;
            if matched {
                matches += 1;
                if gap && any && separated {
                    output::line("--")?;
                }
                for mut earlier in before.drain(..) {
                    earlier.flush(stop).1?;
                }
                out.flush(stop).1?;
                (after, gap, any) = (around, false, true);
            } else if after > 0 {
                out.flush(stop).1?;
                after -= 1;
            } else if keep > 0 {
                if before.len() >= keep {
                    spare = before.pop_front().map(MessageOutput::emptied);
                    gap = true;
                }
                before.push_back(out);
            }
        }
    }
    Ok(matches)
}

/// `jlog grep`
pub fn grep(args: &GrepArgs) -> Outcome {
    let search = Search::new(args)?;
    let stop = Stop::on_signals()?;
    let log = output::options().open(&args.feed)?;
    let searched = match args.context.filter(|&lines| lines > 0 && !args.count) {
        // The messages around a match may be in other segments.
        Some(around) => search_with_context(&log, &search, around, &stop),
        None => search_all(&log, &search, &stop),
    };
    let matches = match searched {
        Err(failure) if failure.is_broken_pipe() => return Ok(ExitCode::SUCCESS),
        searched => searched?,
    };
    if stop.is_set() {
        // Unsearched messages may match, so neither the number nor exit code 1 would be true.
        return Err(Failure::new("the search was interrupted; not all messages were searched"));
    }
    if args.count {
        output::line(&matches.to_string())?;
    }
    Ok(match matches {
        _ if output::damage_reported() => ExitCode::from(DAMAGED),
        0 => ExitCode::from(NO_MATCH),
        _ => ExitCode::SUCCESS,
    })
}
