//! Reads feeds for programs that show them without HTTP.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jlog_core::{AtLimit, LogId};
use tokio::runtime::Runtime;

use crate::feeds::{Facts, FeedView, Subscriber, THREADS};
use crate::health::reasons;
use crate::names;
use crate::watch::Core;

/// Reads the feeds and graphs of a [`Watch`](crate::Watch) on request.
///
/// ```
/// # let dir = tempfile::tempdir()?; let feeds = dir.path().to_owned();
/// # jlog_core::Jlog::create(feeds.join("access"))?;
/// let observer = jlog_watch::Watch::new().feeds(feeds).observer()?;
/// for feed in observer.look().feeds {
///     let figures = feed.figures?;
///     println!("{}: {} messages", feed.name, figures.messages);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Observer {
    core: Arc<Core>,
    runtime: Option<Runtime>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// The state of the feeds and streams at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Look {
    /// Every feed, sorted by path. A directory that cannot be searched is an entry with an error,
    /// too.
    pub feeds: Vec<FeedState>,
    /// The reasons that `/health/ready` would give, worst first, each in a sentence.
    pub problems: Vec<String>,
}

/// A feed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedState {
    /// Its path as text: a byte that is not UTF-8 becomes `\xff`, and a backslash is doubled.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its state, or why that is unknown.
    pub figures: Result<FeedFigures, String>,
}

/// Figures of a feed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedFigures {
    /// Segments on disk.
    pub segments: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Messages in them.
    pub messages: u64,
    /// The last message of the segment being written.
    pub end: LogId,
    /// Messages appended per second, over about the last minute; `None` before the second look.
    pub messages_per_second: Option<f64>,
    /// Bytes free on the file system.
    pub disk_free: u64,
    /// The limit in bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// What happens at a limit.
    pub at_limit: AtLimit,
    /// The time until the disk or the limit is full, at the rate of the last minute.
    pub full_in: Option<Duration>,
    /// Its subscribers, sorted by name.
    pub subscribers: Vec<SubscriberState>,
}

/// A subscriber.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriberState {
    /// Its name as text, like that of a feed.
    pub name: String,
    /// Whether its checkpoint can be read and is not past the end. If not, its lag means nothing.
    pub sound: bool,
    /// Its checkpoint, if it can be read.
    pub checkpoint: Option<LogId>,
    /// Messages that it has not done.
    pub lag_messages: u64,
    /// Their size in bytes, with headers.
    pub lag_bytes: u64,
    /// The age of the oldest of them.
    pub lag: Duration,
    /// Messages done per second, over about the last minute; `None` before the second look.
    pub messages_per_second: Option<f64>,
    /// The time until it has caught up, at the rate of the last minute.
    pub catches_up_in: Option<Duration>,
    /// Messages that were dropped before it reached them.
    pub missed: u64,
    /// A lower bound of the messages that are gone although it had not read them.
    pub lost: u64,
    /// Size of the segments that only it needs, in bytes.
    pub held: u64,
}

impl Observer {
    pub(crate) fn new(core: Arc<Core>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(THREADS)
            .thread_name("jlog-watch")
            .build()?;
        Ok(Self { core, runtime: Some(runtime) })
    }

    /// Reads the feeds that are due (each at most every half second), and waits for 3 seconds at
    /// most: a feed whose file system does not answer becomes an entry with an error.
    ///
    /// # Panics
    /// Within an asynchronous runtime: it blocks.
    pub fn look(&self) -> Look {
        let Some(runtime) = &self.runtime else { return Look::default() };
        let view = runtime.block_on(self.core.view());
        Look {
            feeds: view.feeds.iter().map(FeedState::new).collect(),
            problems: reasons(&view, &self.core.thresholds).into_iter().map(|reason| reason.text).collect(),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Do not wait for a file system that does not answer.
            runtime.shutdown_background();
        }
    }
}

impl FeedState {
    fn new(view: &FeedView) -> Self {
        let path = std::ffi::OsString::from_vec(names::parse(&view.name)).into();
        Self { name: view.name.clone(), path, figures: view.facts().map(FeedFigures::new) }
    }
}

impl FeedFigures {
    fn new(facts: &Facts) -> Self {
        let status = &facts.status;
        Self {
            segments: status.segments.into(),
            bytes: status.bytes,
            messages: status.records,
            end: facts.end,
            messages_per_second: facts.rate,
            disk_free: status.free,
            max_bytes: status.limits.max_bytes,
            at_limit: status.limits.at_limit,
            full_in: facts.full_in,
            subscribers: facts.subscribers.iter().map(SubscriberState::new).collect(),
        }
    }
}

impl SubscriberState {
    fn new(subscriber: &Subscriber) -> Self {
        let status = &subscriber.status;
        Self {
            name: subscriber.name().to_owned(),
            sound: subscriber.sound,
            checkpoint: status.checkpoint,
            lag_messages: status.messages,
            lag_bytes: status.bytes,
            lag: Duration::try_from_secs_f64(subscriber.age).unwrap_or_default(),
            messages_per_second: subscriber.rate.per_second(),
            catches_up_in: subscriber.catches_up_in,
            missed: status.missed,
            lost: status.lost.map_or(0, |lost| lost.messages),
            held: status.held,
        }
    }
}
