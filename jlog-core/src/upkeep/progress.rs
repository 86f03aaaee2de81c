//! Work on all segments of a jlog: several at once, with progress, and cancellable.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::codec::names;
use crate::files::shared::Shared;
use crate::sync::Mutex;
use crate::{Error, Result};

/// How many bytes are processed between two checks for cancelling.
const TICK: u64 = 1 << 20;

/// The progress of work on all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of segments that are done.
    pub bytes: u64,
    /// Bytes of all segments when the work began.
    pub total_bytes: u64,
    /// Segments that are done.
    pub segments: u32,
    /// All segments when the work began.
    pub total_segments: u32,
}

type Hook = Arc<dyn Fn(Progress) -> ControlFlow<()> + Send + Sync>;

/// Options for checking all segments of a jlog, for [`Jlog::verify_with`](crate::Jlog::verify_with)
/// and [`JlogOptions::repair_with`](crate::JlogOptions::repair_with).
#[derive(Clone, Default)]
pub struct VerifyOptions {
    threads: Option<NonZeroUsize>,
    hook: Option<Hook>,
}

impl fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl VerifyOptions {
    /// Sets how many threads work at once, each on a different segment: the calling one, and others
    /// that end before the call returns. One by default. Each needs about a mebibyte, and memory
    /// for the checksums of its segment.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets a hook that is called after every segment and about every mebibyte, from all threads,
    /// possibly at the same time. `Break` ends the work with [`Error::Cancelled`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
    /// use std::ops::ControlFlow;
    /// use std::time::{Duration, Instant};
    /// use jlog_core::{Jlog, VerifyOptions};
    ///
    /// let log = Jlog::create(&path)?;
    /// let deadline = Instant::now() + Duration::from_secs(60);
    /// let options = VerifyOptions::default().on_progress(move |progress| {
    ///     println!("{} of {} bytes", progress.bytes, progress.total_bytes);
    ///     if Instant::now() < deadline { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// });
    /// assert!(!log.verify_with(&options)?.is_damaged());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_progress(mut self, hook: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Does `work` for each of these segments and returns the results in order. After the first
    /// error, no further segment is begun.
    pub(crate) fn run<T: Send>(
        &self,
        shared: &Shared,
        segments: &[u32],
        work: impl Fn(u32, &mut Ticker<'_>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let len = |&number: &u32| shared.facts(&names::segment(number)).map_or(0, |facts| facts.len);
        let task = Task {
            hook: self.hook.as_deref(),
            bytes: AtomicU64::new(0),
            total_bytes: if self.hook.is_some() { segments.iter().map(len).sum() } else { 0 },
            segments: AtomicU32::new(0),
            total_segments: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        };
        let done: Mutex<Vec<(usize, Result<T>)>> = Mutex::new(Vec::with_capacity(segments.len()));
        let one_after_the_other = || {
            while !task.over.load(Ordering::Relaxed)
                && let at = task.next.fetch_add(1, Ordering::Relaxed)
                && let Some(&number) = segments.get(at)
            {
                let mut ticker = Ticker { task: &task, at: 0 };
                let outcome = ticker.tick().and_then(|()| work(number, &mut ticker));
                let outcome = outcome.and_then(|value| ticker.end().map(|()| value));
                if outcome.is_err() {
                    task.over.store(true, Ordering::Relaxed);
                }
                done.lock().push((at, outcome));
            }
        };
        let threads = self.threads.map_or(1, NonZeroUsize::get).min(segments.len());
        if threads > 1 {
            std::thread::scope(|scope| {
                // One thread less if the system has no more.
                let others = (1..threads)
                    .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, one_after_the_other).ok());
                let others: Vec<_> = others.collect();
                one_after_the_other();
                drop(others);
            });
        } else {
            one_after_the_other();
        }
        let mut done = std::mem::take(&mut *done.lock());
        done.sort_unstable_by_key(|&(at, _)| at);
        // Report cancellation only if nothing else went wrong.
        let failed = |error: &Error| !matches!(error, Error::Cancelled { .. });
        if let Some(at) = done.iter().position(|(_, outcome)| outcome.as_ref().is_err_and(failed)) {
            done.swap(0, at);
        }
        let outcomes: Result<Vec<T>> = done.into_iter().map(|(_, outcome)| outcome).collect();
        outcomes.map_err(|e| match e {
            Error::Cancelled { .. } => Error::Cancelled { path: shared.path.clone() },
            other => other,
        })
    }
}

/// The state that the threads share.
struct Task<'a> {
    hook: Option<&'a (dyn Fn(Progress) -> ControlFlow<()> + Send + Sync)>,
    bytes: AtomicU64,
    total_bytes: u64,
    segments: AtomicU32,
    total_segments: u32,
    next: AtomicUsize,
    /// Whether to begin no further segment.
    over: AtomicBool,
}

/// Counts the progress within one segment.
pub(crate) struct Ticker<'a> {
    task: &'a Task<'a>,
    at: u64,
}

impl Ticker<'_> {
    /// Records that the work has reached this offset of its segment.
    pub(crate) fn at(&mut self, offset: u64) -> Result<()> {
        if offset < self.at.saturating_add(TICK) {
            return Ok(());
        }
        self.moved(offset)
    }

    /// Records that everything up to this offset, the segment's length, is done.
    pub(crate) fn moved(&mut self, offset: u64) -> Result<()> {
        self.task.bytes.fetch_add(offset.saturating_sub(self.at), Ordering::Relaxed);
        self.at = offset;
        self.tick()
    }

    fn end(&self) -> Result<()> {
        self.task.segments.fetch_add(1, Ordering::Relaxed);
        self.tick()
    }

    fn tick(&self) -> Result<()> {
        let task = self.task;
        let cancelled = task.over.load(Ordering::Relaxed)
            || task.hook.is_some_and(|hook| {
                let progress = Progress {
                    bytes: task.bytes.load(Ordering::Relaxed),
                    total_bytes: task.total_bytes,
                    segments: task.segments.load(Ordering::Relaxed),
                    total_segments: task.total_segments,
                };
                hook(progress).is_break()
            });
        if cancelled { Err(Error::Cancelled { path: std::path::PathBuf::new() }) } else { Ok(()) }
    }
}
