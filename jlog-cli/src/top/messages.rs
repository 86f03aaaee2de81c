//! Messages of a feed that are searched or followed. A separate thread reads them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jlog_core::{Error, Jlog, Message, OnDamage, ReaderOptions, Start, Wait};

use crate::error::Failure;
use crate::output;
use crate::values::to_jiff;

/// Lines that are kept.
const KEPT: usize = 1000;
/// How many of the newest messages a search covers.
const LOOKED_AT: u64 = 1_000_000;
/// Bytes of a message that are shown.
const SHOWN: usize = 4096;
/// After this many messages, the thread checks whether anybody is still interested.
const POLL: Duration = Duration::from_millis(200);

/// A line for a message: its time and its body, with control characters escaped.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) time: String,
    pub(super) text: String,
    /// Whether it is a message, not a report.
    pub(super) is_message: bool,
}

#[derive(Debug, Default)]
struct Found {
    lines: VecDeque<Line>,
    looked_at: u64,
    matched: u64,
    /// A search has seen everything.
    complete: bool,
    news: bool,
}

/// Messages that are being read, until this is dropped.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) feed: PathBuf,
    pub(super) wanted: String,
    /// Whether new messages are shown as they arrive.
    pub(super) follows: bool,
    found: Arc<Mutex<Found>>,
    stop: Arc<AtomicBool>,
    /// The lines that are shown while the display is paused.
    paused: Option<Vec<Line>>,
}

/// The messages that are shown at one moment.
pub(super) struct Shown {
    pub(super) lines: Vec<Line>,
    pub(super) looked_at: u64,
    pub(super) matched: u64,
    pub(super) complete: bool,
    pub(super) paused: bool,
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Messages {
    /// Reads messages with this text in them.
    pub(super) fn new(feed: &Path, wanted: &str, follows: bool) -> Self {
        let messages = Self {
            feed: feed.to_owned(),
            wanted: wanted.to_owned(),
            follows,
            found: Arc::default(),
            stop: Arc::default(),
            paused: None,
        };
        let (feed, wanted) = (feed.to_owned(), Wanted::new(wanted));
        let (found, stop) = (Arc::clone(&messages.found), Arc::clone(&messages.stop));
        let reported = Arc::clone(&messages.found);
        let read = move || {
            if let Err(e) = read(&feed, &wanted, follows, &found, &stop) {
                report(&found, &e.to_string());
            }
            let mut found = lock(&found);
            (found.complete, found.news) = (true, true);
        };
        if let Err(e) = std::thread::Builder::new().name("messages".to_owned()).spawn(read) {
            report(&reported, Failure::no_thread(e).text());
        }
        messages
    }

    /// The newest messages, at most `rows` lines.
    pub(super) fn shown(&self, rows: usize) -> Shown {
        let mut found = lock(&self.found);
        found.news = false;
        let last = |lines: &mut dyn ExactSizeIterator<Item = &Line>| {
            let skipped = lines.len().saturating_sub(rows);
            lines.skip(skipped).cloned().collect()
        };
        let lines = match &self.paused {
            Some(lines) => last(&mut lines.iter()),
            None => last(&mut found.lines.iter()),
        };
        Shown {
            lines,
            looked_at: found.looked_at,
            matched: found.matched,
            complete: found.complete,
            paused: self.paused.is_some(),
        }
    }

    /// Whether something has arrived since the last display.
    pub(super) fn has_news(&self) -> bool {
        lock(&self.found).news
    }

    /// Pauses or resumes the display.
    pub(super) fn pause(&mut self) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some(lock(&self.found).lines.iter().cloned().collect()),
        };
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        // The thread ends soon. Do not wait for a file system that does not answer.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The search text. If it has no upper-case letter, case is ignored.
struct Wanted {
    text: Vec<u8>,
    ignores_case: bool,
}

impl Wanted {
    fn new(text: &str) -> Self {
        Self { text: text.as_bytes().to_vec(), ignores_case: !text.chars().any(char::is_uppercase) }
    }

    fn is_in(&self, body: &[u8]) -> bool {
        if self.text.is_empty() {
            return true;
        }
        if self.ignores_case {
            return memchr::memmem::find(&body.to_ascii_lowercase(), &self.text).is_some();
        }
        memchr::memmem::find(body, &self.text).is_some()
    }
}

fn push(found: &mut Found, line: Line) {
    if found.lines.len() == KEPT {
        found.lines.pop_front();
    }
    found.lines.push_back(line);
    found.news = true;
}

fn report(found: &Mutex<Found>, text: &str) {
    push(&mut lock(found), Line { time: String::new(), text: output::plain(text), is_message: false });
}

/// A message in a line.
fn line(message: &Message<'_>) -> Line {
    let body = message.body();
    let mut text = output::plain_bytes(&body[..body.len().min(SHOWN)]);
    if body.len() > SHOWN {
        text.push('…');
    }
    let time = to_jiff(message.time()).to_zoned(jiff::tz::TimeZone::system());
    Line { time: time.strftime("%H:%M:%S%.3f").to_string(), text, is_message: true }
}

fn read(
    feed: &Path,
    wanted: &Wanted,
    follows: bool,
    found: &Mutex<Found>,
    stop: &AtomicBool,
) -> Result<(), Error> {
    // Problems of the feed are shown among its messages.
    let log = Jlog::open(feed)?;
    let last = if wanted.text.is_empty() { KEPT as u64 } else { LOOKED_AT };
    // Nothing is changed in the feed.
    let options = ReaderOptions::default().peek(true).on_damage(OnDamage::Skip).batch_bytes(256 << 10);
    let mut reader = log.reader_from(&Start::Last(last), options)?;
    while !stop.load(Ordering::Relaxed) {
        let wait = if follows { Wait::Timeout(POLL) } else { Wait::No };
        match reader.next_batch(wait)? {
            None if follows => reader.check_not_replaced()?,
            None => return Ok(()),
            Some(batch) => {
                let matching: Vec<Line> =
                    batch.iter().filter(|message| wanted.is_in(message.body())).map(|m| line(&m)).collect();
                let mut found = lock(found);
                found.looked_at += batch.len() as u64;
                found.matched += matching.len() as u64;
                found.news = true;
                for line in matching {
                    push(&mut found, line);
                }
            }
        }
        for event in log.take_events().iter().filter(|event| event.is_damage()) {
            report(found, &event.to_string());
        }
    }
    Ok(())
}
