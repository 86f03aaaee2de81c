//! The writing side.

mod appended;
mod appender;
mod batch;
mod buffer;
pub(crate) mod c_writers;
mod durability;
pub(crate) mod expire;
mod group;
mod leader;
mod lease;
mod limiter;
mod limits;
mod returning;
mod segment;
mod state;
mod tail;
mod unsynced;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::codec::settings::Settings;
use crate::files::checksum::Pending;
use crate::files::metastore::Metastore;
use crate::files::precommit::PreCommit;
use crate::files::shared::Shared;
use crate::options::{Locking, SyncPolicy, WriterOptions};
use crate::sync::{Condvar, Mutex};
use crate::upkeep::retention;
use crate::{Error, Result, Timestamp};

pub use appended::{Appended, AppendedBatch, IdRun};
use durability::Ticker;
use group::Group;
use lease::Lease;
use limiter::Limiter;
use state::{Appender, Core, Subscribers};
use tail::{Room, Tail};
use unsynced::{Background, Syncing, Unsynced};
use watch::Watch;

/// How often checksums are written out with [`SyncPolicy::EachAppend`].
const CHECKSUMS_EVERY: Duration = Duration::from_millis(10);

/// The action that is refused while a C process writes.
pub(crate) const RAISE: &str = "raise the segment size of";

/// Appends messages to a jlog. Many threads may use it at once (by reference), next to any number
/// of other writers, in this process or others, including C ones.
///
/// Three levels: a message is *buffered* when `append` returns (with a pre-commit buffer: it
/// survives the process), *readable* after [`flush`](Writer::flush) (at once without a buffer), and
/// *durable* after [`sync`](Writer::sync): it survives power loss.
///
/// ```
/// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
/// let log = jlog_core::Jlog::create(&path)?;
/// let writer = log.writer()?;
/// writer.append(b"hello")?;
/// writer.append_batch(&["a", "batch", "of", "messages"])?;
/// writer.sync()?;
/// writer.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    core: Arc<Core>,
    ticker: Option<Ticker>,
    closed: bool,
}

impl Writer {
    pub(crate) fn open(shared: Arc<Shared>, options: &WriterOptions) -> Result<Self> {
        let multi = options.locking == Locking::MultiProcess;
        let (meta, guard) = loop {
            crate::upkeep::journal::finish(&shared)?;
            let meta = Metastore::open(&shared)?;
            let Some(guard) = meta.guard(&shared, !multi, options.waits)? else {
                return Err(Error::WriterBusy { path: shared.path.clone() });
            };
            // From here on no repair begins.
            if !shared.is_repair_pending()? {
                break (meta, guard);
            }
        };
        // The stamp is taken first, so that a change in between is noticed.
        let stamp = crate::files::settings::stamp(&shared);
        let settings = Settings::load(&*shared.storage, &shared.path)?;
        let format = meta.format();
        let deferred = shared.storage.is_shared();
        let lease = if multi && deferred { options.hold_lock } else { Duration::ZERO };
        // C processes leave files behind when they remove segments: remove those. On a disk that
        // cannot be written, they stay.
        let swept = retention::sweep(&shared).ok();
        let core = Core {
            checksums: AtomicBool::new(settings.checksums),
            meta,
            _guard: guard,
            format,
            multi,
            policy: options.sync,
            appender: Mutex::new(Appender {
                tail: Tail::Unknown,
                subscribers: Subscribers::Unchecked(None),
                lease: Lease::new(lease, returning::give_back_in_time),
                buffer: None,
                pending: Pending::new(if deferred { CHECKSUMS_EVERY } else { Duration::ZERO }),
                limiter: Limiter::new(settings.limits),
                watch: Watch::new(stamp),
                unsynced: Unsynced::default(),
                was_full: false,
                written: 1,
                accepted: 0,
                scratch: Vec::new(),
            }),
            group: Group::default(),
            syncing: Mutex::new(Syncing::default()),
            synced: Condvar::new(),
            background: Background::default(),
            sync_failed: AtomicBool::new(false),
            shared,
        };
        core.report_foreign_owners();
        if let Some(swept) = swept {
            swept.report(&core.shared);
            core.appender.lock().subscribers = Subscribers::Unchecked(Some(swept.kinds));
        }
        core.lock(&mut core.appender.lock(), Room::Wanted)?.done();
        core.meta.identify(&core.shared);
        if !options.bypass_pre_commit {
            core.open_buffer(&mut core.appender.lock(), options.pre_commit)?;
        }
        let core = Arc::new(core);
        core.appender.lock().lease.belongs_to(&core);
        let ticker = Ticker::start(&core)?;
        Ok(Self { core, ticker, closed: false })
    }

    /// Appends a message with the current time.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`]; [`Error::AtCapacity`], [`Error::DiskFull`] (then no part of the
    /// message is stored); [`Error::Io`]; [`Error::SyncFailed`] after a failed sync, or if another
    /// thread panicked while it synced for this one.
    pub fn append(&self, message: impl AsRef<[u8]>) -> Result<Appended> {
        self.append_at(Timestamp::now(), message)
    }

    /// Appends a message with a given time.
    ///
    /// # Errors
    /// As [`append`](Writer::append).
    pub fn append_at(&self, time: Timestamp, message: impl AsRef<[u8]>) -> Result<Appended> {
        self.core.append(time, message.as_ref())
    }

    /// Appends messages with the current time, in order, in as few writes as possible, and without
    /// messages of this writer's other threads between them (within one segment, also without
    /// messages of other processes).
    ///
    /// A batch may span segments, as single appends would. Within a segment it is all or nothing:
    /// after an error, the records in the segments that were filled before are stored, and none in
    /// the segment that failed.
    ///
    /// The result has the id of every message, unless they are still in the pre-commit buffer.
    ///
    /// # Errors
    /// As [`append`](Writer::append); a message that is too large fails the whole batch before
    /// anything is written.
    pub fn append_batch<M: AsRef<[u8]>>(&self, messages: &[M]) -> Result<AppendedBatch> {
        self.append_batch_at(Timestamp::now(), messages)
    }

    /// Appends a batch with a given time for all its messages.
    ///
    /// # Errors
    /// As [`append_batch`](Writer::append_batch).
    pub fn append_batch_at<M: AsRef<[u8]>>(&self, time: Timestamp, messages: &[M]) -> Result<AppendedBatch> {
        self.core.append_batch(messages.len(), |n| (time, messages[n].as_ref()))
    }

    /// Appends a batch of messages, each with its own time.
    ///
    /// # Errors
    /// As [`append_batch`](Writer::append_batch).
    pub fn append_batch_with_times<M: AsRef<[u8]>>(
        &self,
        messages: &[(Timestamp, M)],
    ) -> Result<AppendedBatch> {
        self.core.append_batch(messages.len(), |n| (messages[n].0, messages[n].1.as_ref()))
    }

    /// Makes every message appended so far readable: moves the contents of the pre-commit buffer to
    /// a segment.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]: the messages stay in the buffer.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Makes every message appended so far readable, as [`flush`](Writer::flush) does, at the cost
    /// of an append. Checksums may follow later, with one of the next appends or flushes, or when
    /// the writer is closed. (If the process is killed before that, the messages are stored but
    /// stay unverified.) Use this if you flush after every message.
    ///
    /// # Errors
    /// As [`flush`](Writer::flush).
    pub fn flush_buffer(&self) -> Result<()> {
        self.core.flush_lightly()
    }

    /// Makes every message appended with this writer so far durable, and with them everything else
    /// in the segment being written. Threads that call it at the same time share the work.
    ///
    /// # Errors
    /// As [`flush`](Writer::flush), and [`Error::SyncFailed`]: once a sync has failed, this writer
    /// never again reports anything as durable.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Checks that the feed that was opened still exists, as appending does when it takes the
    /// segment's lock. Costs one `stat` of a path, and a read of the small file with the feed's
    /// identity.
    ///
    /// # Errors
    /// [`Error::Replaced`] if the feed is no longer at its path; [`Error::Io`].
    pub fn check_not_replaced(&self) -> Result<()> {
        self.core.meta.check_feed(&self.core.shared)
    }

    /// Ends the segment being written, unless it is empty, and begins the next one. This is refused
    /// while a C process writes: it would not notice, and would continue to write to a segment that
    /// readers may have passed.
    ///
    /// # Errors
    /// [`Error::CWriter`]; [`Error::DiskFull`], [`Error::Io`], [`Error::OutOfSegments`].
    pub fn roll(&self) -> Result<()> {
        let core = &*self.core;
        core.flush()?;
        let _kept_out = core.keep_out("roll", c_writers::PATIENCE)?;
        let mut appender = core.appender.lock();
        core.lock(&mut appender, Room::Wanted)?.end_early()?;
        core.lock(&mut appender, Room::Wanted)?.done();
        core.after_roll(appender)
    }

    /// See [`WriterCompat`](crate::compat::WriterCompat).
    pub(crate) fn set_segment_size(&self, bytes: u32) -> Result<()> {
        crate::options::check_segment_size(bytes)?;
        let raised = bytes > self.core.meta.segment_size();
        let _kept_out = if raised { Some(self.core.keep_out(RAISE, c_writers::PATIENCE)?) } else { None };
        self.core.meta.set_segment_size(bytes)?;
        self.core.meta.check_named(&self.core.shared)
    }

    /// See [`WriterCompat`](crate::compat::WriterCompat).
    pub(crate) fn set_safety(&self, safety: crate::Safety) -> Result<()> {
        self.core.meta.set_safety(safety)?;
        self.core.meta.check_named(&self.core.shared)
    }

    /// Size of the pre-commit buffer in bytes; 0 without one.
    pub fn pre_commit_size(&self) -> usize {
        self.core.appender.lock().buffer.as_ref().map_or(0, PreCommit::capacity)
    }

    /// Bytes in the pre-commit buffer that are not flushed yet.
    pub fn pre_commit_used(&self) -> usize {
        self.core.appender.lock().buffer.as_ref().map_or(0, PreCommit::used)
    }

    /// How many messages this writer has accepted. After an error, this shows how many messages of
    /// a batch were accepted.
    pub fn accepted(&self) -> u64 {
        self.core.appender.lock().accepted
    }

    /// Number of the segment being written.
    pub fn segment(&self) -> u32 {
        self.core.meta.storage_log()
    }

    /// Flushes and syncs everything (with [`SyncPolicy::Never`]: flushes only) and ends the writer.
    /// Dropping a writer flushes as well, but cannot report errors: messages that could not be
    /// flushed stay in the pre-commit buffer for the next writer.
    ///
    /// # Errors
    /// As [`sync`](Writer::sync).
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        self.ticker = None;
        let _ending = Ending(&self.core);
        if self.core.policy == SyncPolicy::Never { self.core.flush() } else { self.core.sync() }
    }
}

/// For code that appends on behalf of others.
#[cfg(feature = "async")]
impl Writer {
    /// Whether every append is durable when it returns.
    pub(crate) fn syncs_each_append(&self) -> bool {
        self.core.goes_past_buffer()
    }

    /// Appends messages as [`append`](Writer::append) would one by one, in as few writes as
    /// possible, without syncing. Returns the outcome of each, and the count for
    /// [`wait_durable`](Writer::wait_durable) that includes them.
    pub(crate) fn place_each<'m>(
        &self,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
        past_buffer: bool,
    ) -> (Vec<Result<Appended>>, u64) {
        if self.core.check_sync_failed().is_err() {
            let failed = (0..count).map(|_| self.core.check_sync_failed().and(Ok(Appended::Buffered)));
            return (failed.collect(), 0);
        }
        let placed = self.core.place_all(count, message, past_buffer);
        self.core.after_placing();
        placed
    }

    /// Appends a batch as [`append_batch`](Writer::append_batch) does, without syncing. Returns its
    /// place, and the count for [`wait_durable`](Writer::wait_durable) that includes it.
    pub(crate) fn place_batch<M: AsRef<[u8]>>(
        &self,
        time: Timestamp,
        messages: &[M],
        past_buffer: bool,
    ) -> Result<(AppendedBatch, u64)> {
        self.core.check_sync_failed()?;
        let mut placed = AppendedBatch::default();
        let mut appender = self.core.appender.lock();
        let message = |n: usize| (time, messages[n].as_ref());
        let add = |last, count| placed.add(last, count);
        self.core.place_batch(&mut appender, messages.len(), message, past_buffer, add)?;
        let written = appender.written;
        drop(appender);
        self.core.after_placing();
        Ok((placed, written))
    }

    /// Waits until everything appended up to this count is durable.
    pub(crate) fn wait_durable(&self, count: u64) -> Result<()> {
        self.core.wait_durable(count)
    }
}

/// Closes the writer even if an event's hook panics before.
struct Ending<'a>(&'a Core);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.closed {
            self.ticker = None;
            let _ending = Ending(&self.core);
            // An error has no caller to go to; the messages stay in the buffer (see `close`).
            let _ = self.core.flush();
        }
    }
}
