//! Feeds: finding and reading them, away from the thread that answers requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jlog_core::names::{Kind, METASTORE};
use jlog_core::{Error, Jlog, LogId, SegmentCount, Status, SubscriberStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::changes::{Changes, Names};
use crate::names::shown;
use crate::rate::Rate;
use crate::samples::is_plain;

/// Data that was read more recently than this is not read again.
const FRESH: Duration = Duration::from_millis(500);
/// How often directories are searched for feeds.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// How deep feeds are searched for, and in how many directories.
const MAX_DEPTH: usize = 8;
const MAX_DIRECTORIES: usize = 100_000;
/// After this time, a feed that has disappeared from a directory is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// How many feeds are read at the same time.
const WORKERS: usize = 4;
/// A file system that does not answer blocks a thread for each of its feeds. Each blocked thread is
/// replaced, up to this many.
const MAX_WORKERS: usize = 24;
/// How many requests may read one feed's messages, or change it, at the same time.
const REQUESTS: usize = 4;
/// The blocking threads that a server needs: to read feeds, and for requests to feeds that do not
/// answer.
pub(crate) const THREADS: usize = MAX_WORKERS + 16 * REQUESTS;
/// One thread is enough while it reads a feed in this time and all feeds in that one: usually
/// little has changed. Each further thread takes about a mebibyte, because glibc gives it memory of
/// its own.
const ONE_ALONE: Duration = Duration::from_millis(20);
const ALL_ALONE: Duration = Duration::from_millis(500);
/// The longest time that a request waits for a read.
const PATIENCE: Duration = Duration::from_secs(3);
/// Each feed is read completely at least this often, whatever inotify reports; not all feeds at
/// once.
const WHOLE_EVERY: u64 = 45;
const WHOLE_SPREAD: u64 = 30;
/// How often reported changes are taken, as long as clients ask at least this often: watching also
/// costs writers time.
const NOTE_EVERY: Duration = Duration::from_millis(250);
const FOLLOW_FOR: Duration = Duration::from_secs(20);

/// A feed as it was last read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Without its subscribers, which have their own field.
    pub(crate) status: Status,
    /// The last record of the segment being written.
    pub(crate) end: LogId,
    /// Files that keep bytes cut from damaged ones: their number and size.
    pub(crate) kept: (u64, u64),
    /// Messages and bytes appended, and segments finished, since the feed was first read.
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) rolled: u64,
    /// Messages appended per second.
    pub(crate) rate: Option<f64>,
    /// When the disk or the feed's limit will be full at this rate.
    pub(crate) full_in: Option<Duration>,
    /// Sorted by name.
    pub(crate) subscribers: Vec<Subscriber>,
}

/// The state of a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    /// Its name as it is shown, if that differs from the name's bytes.
    shown: Option<Box<str>>,
    /// Whether it may stand in a label as it is.
    plain: bool,
    pub(crate) status: SubscriberStatus,
    /// Age of the oldest message that it has not done, in seconds; 0 if it has done all.
    pub(crate) age: f64,
    /// Messages that it has done since the feed was first read.
    pub(crate) consumed: u64,
    /// Messages that it does per second.
    pub(crate) rate: Rate,
    /// When it will have caught up at this rate.
    pub(crate) catches_up_in: Option<Duration>,
    /// Whether its checkpoint is valid.
    pub(crate) sound: bool,
}

/// The last data read from a feed.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// When the feed was read; `None` before the first time.
    pub(crate) at: Option<Instant>,
    pub(crate) facts: Result<Arc<Facts>, String>,
    /// Whether it cannot be read because it is damaged.
    pub(crate) damaged: bool,
}

/// A feed, or a former one.
pub(crate) struct Feed {
    path: PathBuf,
    /// The feed's name as it is shown.
    pub(crate) name: String,
    history: Mutex<History>,
    latest: Mutex<Reading>,
    /// The changes in its directory.
    changed: Arc<Names>,
    /// One permit for each request that may use it.
    requests: Arc<Semaphore>,
}

/// Why a request to a feed failed.
pub(crate) enum Unavailable {
    /// It does not answer, or is busy with other requests.
    Busy(String),
    /// A panic.
    Internal,
}

/// What is remembered between reads.
#[derive(Default)]
struct History {
    log: Option<Jlog>,
    /// The end at the last read, and its offset in the segment.
    end: Option<(LogId, u64)>,
    appended: u64,
    appended_bytes: u64,
    rolled: u64,
    /// Messages and bytes of an average segment.
    usual: (u64, u64),
    rate: Rate,
    free: Rate,
    bytes: Rate,
    /// Its identity when it could last be read.
    last: Option<Arc<Facts>>,
    kept: (u64, u64),
    /// The directory that was last read completely, and when.
    whole: Option<((u64, u64), Instant)>,
    /// Whether following changes is worthwhile: it costs a writer about a microsecond per write,
    /// and saves us a check of each subscriber. It is, as long as fewer messages per second arrive
    /// than there are subscribers.
    calm: bool,
    looked: Option<Instant>,
}

impl Feed {
    fn new(path: PathBuf) -> Arc<Self> {
        let name = shown(path.as_os_str().as_bytes());
        let latest = Reading { at: None, facts: Err("it has not been read yet".to_owned()), damaged: false };
        let (history, latest, changed) = (Mutex::default(), Mutex::new(latest), Arc::default());
        let requests = Arc::new(Semaphore::new(REQUESTS));
        Arc::new(Self { path, name, history, latest, changed, requests })
    }

    /// The last data read.
    pub(crate) fn latest(&self) -> Reading {
        self.latest.lock().clone()
    }

    /// The feed itself, opened again.
    pub(crate) fn open(&self) -> Result<Jlog, Error> {
        Jlog::open(&self.path)
    }

    /// Runs something with the feed that may block, on a blocking thread. The call waits for the
    /// given time and some seconds more. If the file system does not answer, the thread stays
    /// blocked; only a few can be.
    pub(crate) async fn request<T: Send + 'static>(
        self: &Arc<Self>,
        takes: Duration,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let busy = |_| Unavailable::Busy(format!("{} does not answer in time: try again later", self.name));
        let done = async {
            let permit =
                Arc::clone(&self.requests).acquire_owned().await.map_err(|_| Unavailable::Internal)?;
            let feed = Arc::clone(self);
            let done = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work(&feed)
            });
            done.await.map_err(|_| Unavailable::Internal)
        };
        tokio::time::timeout(takes + PATIENCE, done).await.map_err(busy)?
    }

    fn is_due(&self, now: Instant) -> bool {
        self.latest.lock().at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH)
    }

    /// Reads the feed, or only what has changed, if that is known. May block as long as the file
    /// system does.
    fn read(&self, changes: &Mutex<Option<Changes>>) {
        let mut history = self.history.lock();
        let changed = self.changed(&mut history, changes);
        let read = history.read(&self.path, changed.as_ref()).map(Arc::new);
        match &read {
            Ok(facts) => history.last = Some(Arc::clone(facts)),
            // The next time, there may be another feed at the path.
            Err(_) => {
                (history.log, history.whole) = (None, None);
                self.leave(changes);
            }
        }
        drop(history);
        let damaged = match &read {
            Err(Error::Metastore { .. } | Error::MetastoreMissing { .. } | Error::Settings { .. }) => true,
            Err(e) => e.is_damage(),
            Ok(_) => false,
        };
        let facts = read.map_err(|e| e.to_string());
        *self.latest.lock() = Reading { at: Some(Instant::now()), facts, damaged };
    }

    /// The files that have changed since the last read; `None` if any file may have.
    fn changed(&self, history: &mut History, changes: &Mutex<Option<Changes>>) -> Option<BTreeSet<OsString>> {
        let now = Instant::now();
        let identity = std::fs::metadata(&self.path).map(|facts| (facts.dev(), facts.ino())).ok();
        let known = history.whole.filter(|&(known, _)| Some(known) == identity);
        let recent = |&((_, file), at): &((u64, u64), Instant)| {
            (now - at).as_secs() < WHOLE_EVERY + file % WHOLE_SPREAD
        };
        let taken = self.changed.take();
        if history.calm && known.as_ref().is_some_and(recent) && taken.is_some() {
            return taken;
        }
        if known.is_none() || !history.calm {
            self.leave(changes);
        }
        if history.calm && !self.changed.are_followed() {
            // Changes from here on are reported; before that, anything may have changed.
            Changes::follow(changes, &self.path, &self.changed);
            self.changed.take();
        }
        history.whole = identity.map(|identity| (identity, now));
        None
    }

    fn leave(&self, changes: &Mutex<Option<Changes>>) {
        if self.changed.are_followed()
            && let Some(changes) = &mut *changes.lock()
        {
            changes.leave(&self.changed);
        }
    }
}

impl History {
    fn read(&mut self, path: &Path, changed: Option<&BTreeSet<OsString>>) -> Result<Facts, Error> {
        let log = match &self.log {
            Some(log) => log,
            None => self.log.insert(Jlog::open(path)?),
        };
        let mut status = match changed {
            Some(changed) => log.status_after(changed.iter().map(OsString::as_os_str))?,
            None => log.status()?,
        };
        // The figures include the reported changes.
        log.take_events();
        let now = Instant::now();
        let is_kept = |name: &OsString| matches!(Kind::of(name), Kind::Broken | Kind::Stale);
        if changed.is_none_or(|changed| changed.iter().any(is_kept)) {
            self.kept = kept(path);
        }
        let writing = status.meta.storage_log;
        let last = status.each_segment.iter().rfind(|segment| segment.number == writing);
        let (end_records, end_bytes) = last.map_or((0, 0), |segment| (segment.records, segment.bytes));
        let end = LogId::new(writing, end_records);
        let before = self.end.replace((end, end_bytes));
        let complete = || status.each_segment.iter().filter(|segment| segment.number < writing);
        let number = complete().count() as u64;
        if number > 0 {
            let records: u64 = complete().map(|segment| u64::from(segment.records)).sum();
            let bytes: u64 = complete().map(|segment| segment.bytes).sum();
            self.usual = (records.div_ceil(number), bytes.div_ceil(number));
        }
        // If the end went back, it is another feed, and counting starts over.
        let (appended, bytes, rolled) = match before {
            Some((before, bytes)) if before <= end => {
                let (messages, bytes) =
                    appended_since(before, bytes, &status.each_segment, writing, self.usual);
                (messages, bytes, u64::from(writing - before.segment))
            }
            Some(_) => (status.records, status.bytes, 0),
            None => (0, 0, 0),
        };
        let since = self.looked.replace(now).map(|before| now.saturating_duration_since(before));
        let worth = |since: Duration| (status.subscribers.len() as u128) * since.as_millis() / 1000;
        self.calm = since.is_some_and(|since| u128::from(appended) <= worth(since));
        self.appended_bytes += bytes;
        self.rolled += rolled;
        self.appended += appended;
        #[expect(clippy::cast_precision_loss, reason = "rates need not be exact")]
        {
            self.rate.look(now, self.appended as f64);
            self.free.look(now, status.free as f64);
            self.bytes.look(now, status.bytes as f64);
        }
        let rate = self.rate.per_second();
        let full_in = self.full_in(&status);
        let clock = jlog_core::Timestamp::now();
        let mut known = self.last.iter().flat_map(|last| &last.subscribers).peekable();
        let all = std::mem::take(&mut status.subscribers);
        let subscribers = all.into_iter().map(|status| {
            while known.next_if(|known| known.status.name < status.name).is_some() {}
            let before = known.next_if(|known| known.status.name == status.name);
            Subscriber::new(before, status, appended, rate, writing, now, clock)
        });
        let subscribers = subscribers.collect();
        Ok(Facts {
            status,
            end,
            kept: self.kept,
            appended: self.appended,
            appended_bytes: self.appended_bytes,
            rolled: self.rolled,
            rate,
            full_in,
            subscribers,
        })
    }

    fn full_in(&self, status: &Status) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let in_seconds = |left: u64, per_second: Option<f64>| {
            let per_second = per_second.filter(|&per_second| per_second > 0.0)?;
            Duration::try_from_secs_f64(left as f64 / per_second).ok()
        };
        let free = status.free.saturating_sub(status.limits.keep_free.unwrap_or(0));
        let disk = in_seconds(free, self.free.per_second().map(|change| -change));
        let limit = status
            .limits
            .max_bytes
            .and_then(|max| in_seconds(max.saturating_sub(status.bytes), self.bytes.per_second()));
        disk.into_iter().chain(limit).min()
    }
}

impl Subscriber {
    /// Its name, as it is shown.
    pub(crate) fn name(&self) -> &str {
        // Without a separate text, the name's bytes are text.
        self.shown.as_deref().or_else(|| std::str::from_utf8(self.status.name.as_bytes()).ok()).unwrap_or("")
    }

    /// Its name as a label's value, if nothing in it must be escaped.
    pub(crate) fn plain_name(&self) -> Option<&[u8]> {
        self.plain.then(|| self.status.name.as_bytes())
    }

    fn new(
        before: Option<&Self>,
        status: SubscriberStatus,
        appended: u64,
        appended_rate: Option<f64>,
        writing: u32,
        now: Instant,
        clock: jlog_core::Timestamp,
    ) -> Self {
        let consumed = before.map_or(0, |before| {
            let had = &before.status;
            let moved = had.checkpoint.is_some() && had.checkpoint != status.checkpoint;
            // Messages that are no longer ahead of the subscriber were done, unless they were
            // dropped first.
            let done = (had.messages + appended).saturating_sub(status.messages).saturating_sub(had.missed);
            before.consumed + if moved { done } else { 0 }
        });
        let mut rate = before.map(|before| before.rate).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "rates need not be exact")]
        rate.look(now, consumed as f64);
        let catches_up_in = match (status.messages, rate.per_second(), appended_rate) {
            (0, ..) => Some(Duration::ZERO),
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            (behind, Some(done), Some(more)) if done > more => {
                Duration::try_from_secs_f64(behind as f64 / (done - more)).ok()
            }
            _ => None,
        };
        #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit")]
        let age = status
            .oldest
            .map_or(0.0, |oldest| clock.as_micros().saturating_sub(oldest.as_micros()) as f64 / 1e6);
        let sound = status.checkpoint.is_some_and(|id| id.segment <= writing);
        let (shown, plain) = match before {
            Some(before) => (before.shown.clone(), before.plain),
            None => {
                let name = status.name.as_bytes();
                let text = shown(name);
                let plain = text.as_bytes() == name && is_plain(&text);
                (Some(text.into_boxed_str()).filter(|text| text.as_bytes() != name), plain)
            }
        };
        Self { shown, plain, status, age, consumed, rate, catches_up_in, sound }
    }
}

/// Messages and bytes after an earlier end. A segment that was made and removed since then counts
/// as an average one.
fn appended_since(
    before: LogId,
    bytes_before: u64,
    segments: &[SegmentCount],
    writing: u32,
    usual: (u64, u64),
) -> (u64, u64) {
    let there: Vec<_> = segments.iter().filter(|segment| segment.number >= before.segment).collect();
    // The segment being written may not exist yet.
    let complete = there.iter().filter(|segment| segment.number < writing).count() as u64;
    let gone = u64::from(writing - before.segment).saturating_sub(complete);
    let of_there = there.iter().fold((0, 0), |(messages, bytes), segment| {
        (messages + u64::from(segment.records), bytes + segment.bytes)
    });
    let messages = of_there.0 + gone * usual.0;
    let bytes = of_there.1 + gone * usual.1;
    (messages.saturating_sub(before.marker.into()), bytes.saturating_sub(bytes_before))
}

/// Files in a feed that keep bytes cut from others: their number and size.
fn kept(path: &Path) -> (u64, u64) {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let kept = entries.filter(|entry| matches!(Kind::of(&entry.file_name()), Kind::Broken | Kind::Stale));
    kept.filter_map(|entry| entry.metadata().ok())
        .fold((0, 0), |(files, bytes), facts| (files + 1, bytes + facts.len()))
}

fn is_feed(dir: &Path) -> bool {
    dir.join(METASTORE).is_file()
}

/// The feeds below a directory, which may itself be one. Symbolic links below it are not followed.
fn search(root: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut ahead = vec![(root.to_owned(), 0)];
    let mut looked_at = 0;
    while let Some((dir, depth)) = ahead.pop() {
        looked_at += 1;
        if looked_at > MAX_DIRECTORIES {
            return Err(format!("{} has more than {MAX_DIRECTORIES} directories", root.display()));
        }
        if is_feed(&dir) {
            found.push(dir);
            continue;
        }
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if depth == 0 => return Err(format!("cannot look for feeds in {}: {e}", dir.display())),
            // A directory that is removed meanwhile, or that we may not read, must not hide others.
            Err(_) => continue,
        };
        if depth < MAX_DEPTH {
            let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            ahead.extend(dirs.map(|entry| (entry.path(), depth + 1)));
        }
    }
    Ok(())
}

/// All feeds.
pub(crate) struct Feeds {
    roots: Vec<PathBuf>,
    state: Mutex<State>,
    /// Signals that something was read.
    changed: Notify,
    /// Reported changes of the directories; `None` while no client asks.
    changes: Mutex<Option<Changes>>,
}

#[derive(Default)]
struct State {
    feeds: BTreeMap<PathBuf, Known>,
    /// Places without a feed, and why.
    troubles: BTreeMap<PathBuf, String>,
    queue: VecDeque<Job>,
    /// The jobs in progress and their start times, by increasing number.
    running: BTreeMap<u64, (Job, Instant)>,
    next: u64,
    workers: usize,
    searched: Option<Instant>,
    searching: bool,
    /// When a client last asked.
    looked: Option<Instant>,
}

struct Known {
    feed: Arc<Feed>,
    /// Since when it has been missing.
    gone: Option<Instant>,
    /// In the queue, or being read.
    pending: bool,
}

#[derive(Clone)]
enum Job {
    Search,
    Read(Arc<Feed>),
}

/// The state of a place that was given or found.
#[derive(Clone, Debug)]
pub(crate) struct FeedView {
    pub(crate) name: String,
    pub(crate) reading: Reading,
    /// Whether it was found in a directory of feeds, and has disappeared.
    pub(crate) gone: bool,
    /// Since when it is being read, if that takes too long.
    pub(crate) stuck: Option<Duration>,
}

impl FeedView {
    /// Its state, or why that is unknown.
    pub(crate) fn facts(&self) -> Result<&Facts, String> {
        match (&self.reading.facts, self.stuck) {
            (_, Some(since)) => Err(format!("reading {} has taken {} s so far", self.name, since.as_secs())),
            (Ok(facts), None) => Ok(facts),
            (Err(why), None) => Err(why.clone()),
        }
    }
}

impl Feeds {
    /// Feeds at these places, which are feeds, or directories with feeds in them.
    pub(crate) fn new(roots: Vec<PathBuf>) -> Arc<Self> {
        let (state, changed, changes) = (Mutex::default(), Notify::new(), Mutex::default());
        Arc::new(Self { roots, state, changed, changes })
    }

    /// The feed of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Feed>> {
        let state = self.state.lock();
        state.feeds.values().find(|known| known.feed.name == name).map(|known| Arc::clone(&known.feed))
    }

    /// The state of every feed, read just now unless that takes too long.
    pub(crate) async fn look(self: &Arc<Self>) -> Vec<FeedView> {
        if self.roots.is_empty() {
            return Vec::new();
        }
        self.begin();
        // This also waits for reads that others start a little later, and for those that had to
        // wait for a thread.
        let begun = tokio::time::Instant::now();
        let deadline = begun + PATIENCE + PATIENCE / 6;
        let mut started = None;
        loop {
            // Register before checking whether there is something to wait for, so that nothing is
            // missed.
            let changed = self.changed.notified();
            if !self.is_busy() {
                break;
            }
            let soon = deadline.min(tokio::time::Instant::now() + ONE_ALONE);
            if tokio::time::timeout_at(soon, changed).await.is_err() {
                if soon == deadline {
                    break;
                }
                let before = started.replace(self.state.lock().next);
                if before == started || begun.elapsed() >= ALL_ALONE {
                    self.help(WORKERS);
                }
            }
        }
        self.views()
    }

    /// Queues the reads that are due, and ensures that threads perform them.
    fn begin(self: &Arc<Self>) {
        self.note();
        let now = Instant::now();
        let mut state = self.state.lock();
        state.looked = Some(now);
        if !state.searching && state.searched.is_none_or(|at| now - at >= SEARCH_EVERY) {
            state.searching = true;
            state.queue.push_back(Job::Search);
        }
        state.queue_due(now);
        drop(state);
        self.help(1);
    }

    /// Ensures that this many threads work on the queue.
    fn help(self: &Arc<Self>, workers: usize) {
        let mut state = self.state.lock();
        let stuck = state.stuck();
        while state.workers < (stuck + workers.min(state.queue.len())).min(MAX_WORKERS) {
            state.workers += 1;
            let feeds = Arc::clone(self);
            tokio::task::spawn_blocking(move || feeds.work());
        }
    }

    /// Takes the reported changes of the directories, and continues as long as clients ask.
    fn note(self: &Arc<Self>) {
        let mut changes = self.changes.lock();
        if let Some(changes) = &mut *changes {
            changes.note();
            return;
        }
        *changes = Changes::new();
        if changes.is_none() {
            return;
        }
        let feeds = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(NOTE_EVERY).await;
                let Some(feeds) = feeds.upgrade() else { return };
                let looked = feeds.state.lock().looked;
                let mut changes = feeds.changes.lock();
                if looked.is_none_or(|looked| looked.elapsed() >= FOLLOW_FOR) {
                    *changes = None;
                    return;
                }
                if let Some(changes) = &mut *changes {
                    changes.note();
                }
            }
        });
    }

    /// Whether there is something to wait for.
    fn is_busy(&self) -> bool {
        let state = self.state.lock();
        let stuck = state.stuck();
        state.running.len() > stuck || (!state.queue.is_empty() && stuck < MAX_WORKERS)
    }

    /// Works on the queue.
    fn work(&self) {
        let mut state = self.state.lock();
        while let Some(job) = state.queue.pop_front() {
            let number = state.next;
            state.next += 1;
            state.running.insert(number, (job.clone(), Instant::now()));
            drop(state);
            // A panic would leave the job there, and its feed unread forever.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &job {
                Job::Search => self.search(),
                Job::Read(feed) => feed.read(&self.changes),
            }));
            state = self.state.lock();
            state.running.remove(&number);
            match job {
                Job::Search => {
                    state.searching = false;
                    state.searched = Some(Instant::now());
                }
                Job::Read(feed) => {
                    if done.is_err() {
                        let facts = Err("it cannot be read: an internal error".to_owned());
                        *feed.latest.lock() = Reading { at: Some(Instant::now()), facts, damaged: false };
                    }
                    if let Some(known) = state.feeds.get_mut(&feed.path) {
                        known.pending = false;
                    }
                }
            }
            if state.queue.is_empty() {
                self.changed.notify_waiters();
            }
        }
        state.workers -= 1;
        drop(state);
        self.changed.notify_waiters();
    }

    fn search(&self) {
        let (mut found, mut troubles) = (Vec::new(), BTreeMap::new());
        for root in &self.roots {
            if let Err(trouble) = search(root, &mut found) {
                troubles.insert(root.clone(), trouble);
            }
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        for known in state.feeds.values_mut() {
            known.gone.get_or_insert(now);
        }
        for path in found {
            let known = state.feeds.entry(path).or_insert_with_key(|path| Known {
                feed: Feed::new(path.clone()),
                gone: None,
                pending: false,
            });
            known.gone = None;
        }
        state.feeds.retain(|_, known| known.gone.is_none_or(|since| now - since < FORGET_AFTER));
        // A feed that is gone reports that itself.
        troubles.retain(|root, _| !state.feeds.keys().any(|path| path.starts_with(root)));
        state.troubles = troubles;
        state.queue_due(now);
    }

    fn views(&self) -> Vec<FeedView> {
        let state = self.state.lock();
        let stuck: BTreeMap<&Path, Duration> = state
            .running
            .values()
            .filter_map(|(job, since)| match job {
                Job::Read(feed) => Some((&*feed.path, since.elapsed())),
                Job::Search => None,
            })
            .filter(|(_, since)| *since >= PATIENCE)
            .collect();
        let feeds = state.feeds.iter().map(|(path, known)| FeedView {
            name: known.feed.name.clone(),
            reading: known.feed.latest(),
            gone: known.gone.is_some() && !self.roots.contains(path),
            stuck: stuck.get(&**path).copied(),
        });
        let troubles = state.troubles.iter().map(|(root, why)| FeedView {
            name: shown(root.as_os_str().as_bytes()),
            reading: Reading { at: state.searched, facts: Err(why.clone()), damaged: false },
            gone: false,
            stuck: None,
        });
        feeds.chain(troubles).collect()
    }
}

impl State {
    /// How many jobs take too long.
    fn stuck(&self) -> usize {
        self.running.values().filter(|(_, since)| since.elapsed() >= PATIENCE).count()
    }

    fn queue_due(&mut self, now: Instant) {
        for known in self.feeds.values_mut().filter(|known| !known.pending && known.feed.is_due(now)) {
            known.pending = true;
            self.queue.push_back(Job::Read(Arc::clone(&known.feed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_came_and_went_count_as_usual_ones() {
        let segment = |number, records| SegmentCount { number, records, bytes: u64::from(records) * 10 };
        let since = |before, segments: &[SegmentCount]| {
            appended_since(before, u64::from(before.marker) * 10, segments, 5, (8, 80))
        };
        assert_eq!(since(LogId::new(5, 2), &[segment(4, 8), segment(5, 7)]), (5, 50));
        assert_eq!(since(LogId::new(4, 3), &[segment(4, 9), segment(5, 7)]), (13, 130));
        assert_eq!(since(LogId::new(2, 3), &[segment(5, 1)]), (22, 220));
        // The segment being written does not exist yet.
        assert_eq!(since(LogId::new(4, 7), &[segment(4, 8)]), (1, 10));
        assert_eq!(since(LogId::new(5, 0), &[]), (0, 0));
    }

    /// Only changed files are read, and changes are seen at once.
    #[test]
    fn changes_are_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("feed"), dir.path().join(".other"));
        let make = |path: &Path, names: &[&str], messages: usize| {
            let log = Jlog::create(path).unwrap();
            log.subscribe_all(names, jlog_core::Start::Beginning).unwrap();
            log.writer().unwrap().append_batch(&vec!["x"; messages]).unwrap();
            log
        };
        let log = make(&path, &["a", "b"], 3);
        let feeds = Feeds::new(vec![path.clone()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let look = || {
            std::thread::sleep(FRESH);
            let views = runtime.block_on(feeds.look());
            let facts = views[0].facts().map(|facts| {
                let of = |s: &Subscriber| (s.name().to_owned(), s.status.messages, s.consumed);
                (facts.kept.0, facts.appended, facts.subscribers.iter().map(of).collect::<Vec<_>>())
            });
            facts.ok()
        };
        let with = |kept, appended, subscribers: &[(&str, u64, u64)]| {
            let of = |&(name, lag, done): &(&str, u64, u64)| (name.to_owned(), lag, done);
            Some((kept, appended, subscribers.iter().map(of).collect::<Vec<_>>()))
        };
        assert_eq!(look(), with(0, 0, &[("a", 3, 0), ("b", 3, 0)]));
        log.set_checkpoint("b", LogId::new(0, 2)).unwrap();
        assert_eq!(look(), with(0, 0, &[("a", 3, 0), ("b", 1, 2)]));
        log.writer().unwrap().append("x").unwrap();
        assert_eq!(look(), with(0, 1, &[("a", 4, 0), ("b", 2, 2)]));
        assert_eq!(look(), with(0, 1, &[("a", 4, 0), ("b", 2, 2)]));
        log.unsubscribe("a").unwrap();
        log.subscribe("c", jlog_core::Start::End).unwrap();
        std::fs::write(path.join("metastore.broken-00000000"), "x").unwrap();
        assert_eq!(look(), with(1, 1, &[("b", 2, 2), ("c", 0, 0)]));
        // Another feed in its place.
        drop(log);
        let log = make(&other, &["c"], 1);
        std::fs::rename(&path, dir.path().join(".old")).unwrap();
        assert_eq!(look(), None);
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(look().unwrap().2, [("c".to_owned(), 1, 0)]);
        let log = Jlog::open(&path).inspect(|_| drop(log)).unwrap();
        log.set_checkpoint("c", LogId::new(0, 1)).unwrap();
        assert_eq!(look().unwrap().2[0].1, 0);
    }

    /// Requests to a feed that does not answer block only a few threads, and time out.
    #[test]
    fn requests_to_a_feed_that_does_not_answer_end() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Feed::new(dir.path().to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = feed.history.lock();
        let ask = || {
            let feed = Arc::clone(&feed);
            async move { feed.request(Duration::ZERO, |feed| drop(feed.history.lock())).await }
        };
        let asked: Vec<_> = (0..=REQUESTS).map(|_| runtime.spawn(ask())).collect();
        for asked in asked {
            let ended = runtime.block_on(asked).unwrap();
            assert!(matches!(ended, Err(Unavailable::Busy(why)) if why.contains("does not answer in time")));
        }
        drop(held);
        assert!(runtime.block_on(ask()).is_ok());
    }

    /// A file system that does not answer affects only the feeds on it.
    #[test]
    fn a_feed_that_does_not_answer_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c", "d", "e", "f"];
        for name in names {
            Jlog::create(dir.path().join(name)).unwrap();
        }
        let feeds = Feeds::new(vec![dir.path().to_owned()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let look = || {
            let views = runtime.block_on(feeds.look());
            views.iter().map(|view| view.facts().map(|_| ())).collect::<Vec<_>>()
        };
        assert_eq!(look(), names.map(|_| Ok(())));
        // As many as are read at the same time.
        let of = |name| feeds.find(&dir.path().join(name).display().to_string()).unwrap();
        let stuck = ["a", "b", "c", "d"].map(of);
        assert_eq!(stuck.len(), WORKERS);
        let held = stuck.each_ref().map(|feed| feed.history.lock());
        std::thread::sleep(FRESH);
        let begun = Instant::now();
        let found = look();
        assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        for found in &found[..4] {
            assert!(found.as_ref().unwrap_err().contains("has taken 3 s so far"), "{found:?}");
        }
        let age = |name| of(name).latest().at.unwrap().elapsed();
        assert!(age("e") < PATIENCE && age("f") < PATIENCE, "they were read since");
        // Later requests do not wait for it.
        std::thread::sleep(FRESH);
        let begun = Instant::now();
        let found = look();
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), names.map(|name| name > "d"));
        // When it answers, the feed is back.
        drop(held);
        let begun = Instant::now();
        while look().iter().any(Result::is_err) {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
