//! The writing side.

mod budget;
mod buffer;
mod group;
mod hold;
mod placed;
mod segment;
mod sync;

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::checksum::{self, Pending, Sums};
use crate::format::{COMPRESSED_HEADER_LEN, RecordFormat, RecordHeader, check_message_len};
use crate::meta::Metastore;
use crate::names::Kind;
use crate::options::{Locking, SyncPolicy, WriterOptions};
use crate::precommit::PreCommit;
use crate::settings::{self, Settings};
use crate::shared::Shared;
use crate::storage::{File, Guarded, write_all_at};
use crate::sync::{Condvar, Mutex};
use crate::{Error, Event, Limits, LogId, Result, Timestamp, names};
use crate::{c_writers, recovery, repair, retention};

use budget::Budget;
use group::Group;
use hold::Hold;
pub use placed::{IdRun, Placed, PlacedBatch};
use sync::{Background, Syncing, Ticker};

/// Records are gathered up to about this size before they are written.
const PIECE: usize = 1 << 20;
/// Bodies from this size on are written from where they are, not copied.
const LARGE_BODY: usize = 64 << 10;
/// The same for a single message: a copy of this size costs less than a write of two pieces.
const SMALL_BODY: usize = 2 << 10;

/// With [`SyncPolicy::EachAppend`], checksums are written out this often.
const CHECKSUMS_EVERY: Duration = Duration::from_millis(10);

/// How often a writer whose appends take no lock checks that its feed is still there, in microseconds.
const LOOK_EVERY: u64 = 1000;
/// How often it checks whether the settings have changed, in microseconds.
const SETTINGS_EVERY: u64 = 100_000;
/// After this many appends, a writer reads the clock, whatever the times of the messages are.
const LOOK_EVERY_APPENDS: u64 = 1024;
/// What is not done while a C process writes.
pub(crate) const RAISE: &str = "raise the segment size of";
/// How long it is believed that a C process writes.
const C_WRITER_FOR: Duration = Duration::from_secs(1);

/// Appends messages to a jlog. Usable from many threads at once (by reference), and next to any number of
/// other writers, in this process or others, C ones too.
///
/// Three levels: a message is *buffered* when `append` returns (with a pre-commit buffer: it survives the
/// process), *readable* after [`flush`](Writer::flush) (at once without a buffer), and *durable* after
/// [`sync`](Writer::sync): it survives power loss.
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

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    meta: Metastore,
    /// Tells other writers of this one.
    _guard: Guarded,
    format: RecordFormat,
    multi: bool,
    checksums: AtomicBool,
    policy: SyncPolicy,
    inner: Mutex<Inner>,
    group: Group,
    syncing: Mutex<Syncing>,
    synced: Condvar,
    background: Background,
    sync_failed: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    current: Option<Current>,
    buffer: Option<PreCommit>,
    hold: Hold,
    pending: Pending,
    budget: Budget,
    /// Segments that this writer has let go of and that are not synced yet.
    filled: Vec<Filled>,
    /// How many segments were opened, and how many of them had been when the directory was last synced.
    names_made: u64,
    names_durable: u64,
    /// The next append begins a new segment: readers may have seen records that were taken back.
    must_roll: bool,
    /// The last write found no room.
    was_full: bool,
    /// A failed write could not be taken back: the segment's end must be found again.
    suspect: bool,
    /// Checkpoints may be past the end of the segment that is opened next.
    look_at_checkpoints: bool,
    /// What the directory had when the writer was opened, until that was looked at.
    listed: Option<Vec<Kind>>,
    limits: Limits,
    /// What the settings file was when it was read.
    settings: Option<settings::Stamp>,
    /// When it was last looked whether it is that still.
    settings_looked: Looked,
    /// A C process writes: until then, segments end when they are full, whatever limits say.
    c_writer_until: Option<Instant>,
    /// Counts the appends.
    written: u64,
    /// Counts the messages.
    accepted: u64,
    /// When the writer last looked whether its feed is still there.
    looked: Looked,
    scratch: Vec<u8>,
    /// Where the records being written begin.
    group_start: u64,
    /// Total length and checksum of the records being written.
    group: Vec<Sums>,
}

/// When a writer last looked at something that it looks at now and then.
#[derive(Debug)]
struct Looked {
    /// By the time of a message, in microseconds, and by the count of appends.
    micros: u64,
    written: u64,
    at: Instant,
    /// The last look failed: the next append looks as well.
    failed: bool,
}

impl Looked {
    fn now() -> Self {
        Self { micros: Timestamp::now().as_micros(), written: 0, at: Instant::now(), failed: false }
    }

    /// Whether it is time to look again. Most appends find that out by the times of their messages, which cost nothing.
    fn is_due(&mut self, time: Timestamp, written: u64, every: u64) -> bool {
        let micros = time.as_micros();
        if self.failed {
            return true;
        }
        if micros.abs_diff(self.micros) < every && written - self.written < LOOK_EVERY_APPENDS {
            return false;
        }
        (self.micros, self.written) = (micros, written);
        // Messages may have any times.
        let due = self.at.elapsed() >= Duration::from_micros(every);
        if due {
            self.at = Instant::now();
        }
        due
    }
}

/// The segment being written.
#[derive(Debug)]
struct Current {
    number: u32,
    file: Arc<dyn File>,
    /// Where its whole records ended when we last held its lock.
    end: u64,
    records: u32,
}

#[derive(Debug, Clone)]
struct Filled {
    number: u32,
    file: Option<Arc<dyn File>>,
}

/// A record, encoded but for its place.
struct Encoded<'a> {
    head: [u8; COMPRESSED_HEADER_LEN],
    head_len: usize,
    body: &'a [u8],
}

impl Encoded<'_> {
    /// Its checksum, of its two parts; of a record in one piece, `crc32fast::hash` is faster.
    fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.head());
        hasher.update(self.body);
        hasher.finalize()
    }

    /// What its checksums are made of; `crc` is not asked where none are kept.
    #[inline]
    fn sums(&self, keep: bool, crc: impl FnOnce(&Self) -> u32) -> Sums {
        let (crc, head) = if keep { (crc(self), checksum::encoded_hash(self.head())) } else { (0, 0) };
        Sums { len: len_u32(self.len()), crc, head }
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    fn len(&self) -> usize {
        self.head_len + self.body.len()
    }
}

impl Writer {
    pub(crate) fn open(shared: Arc<Shared>, options: &WriterOptions) -> Result<Self> {
        let multi = options.locking == Locking::MultiProcess;
        let (meta, guard) = loop {
            repair::finish(&shared)?;
            let meta = Metastore::open(&shared)?;
            let Some(guard) = meta.try_guard(!multi)? else {
                return Err(Error::WriterBusy { path: shared.path.clone() });
            };
            // From here on no repair begins.
            if !repair::is_pending(&shared)? {
                break (meta, guard);
            }
        };
        // In this order: a change meanwhile is noticed.
        let stamp = settings::stamp(&shared);
        let settings = Settings::load(&*shared.storage, &shared.path)?;
        let format = meta.format();
        let simulated = shared.storage.is_simulated();
        let keeps = multi && !simulated && !cfg!(feature = "shuttle");
        let hold = if keeps { options.hold_lock } else { Duration::ZERO };
        let core = Core {
            checksums: AtomicBool::new(settings.checksums),
            meta,
            _guard: guard,
            format,
            multi,
            policy: options.sync,
            inner: Mutex::new(Inner {
                current: None,
                buffer: None,
                hold: Hold::new(hold),
                pending: Pending::new(if simulated { Duration::ZERO } else { CHECKSUMS_EVERY }),
                budget: Budget::default(),
                filled: Vec::new(),
                names_made: 0,
                names_durable: 0,
                must_roll: false,
                was_full: false,
                suspect: false,
                look_at_checkpoints: true,
                listed: None,
                // What the last writer left counts as one.
                written: 1,
                accepted: 0,
                limits: settings.limits,
                settings: stamp,
                settings_looked: Looked::now(),
                c_writer_until: None,
                looked: Looked::now(),
                scratch: Vec::new(),
                group_start: 0,
                group: Vec::new(),
            }),
            group: Group::default(),
            syncing: Mutex::new(Syncing::default()),
            synced: Condvar::new(),
            background: Background::default(),
            sync_failed: AtomicBool::new(false),
            shared,
        };
        core.warn_of_foreign_owners();
        // What C processes leave of segments that they remove; a disk that cannot be written keeps it.
        core.inner.lock().listed = retention::sweep(&core.shared).ok().map(|swept| {
            swept.report(&core.shared);
            swept.kinds
        });
        core.in_segment(&mut core.inner.lock(), |_, _| Ok(()))?;
        core.meta.identify(&core.shared);
        if !options.bypass_pre_commit {
            core.open_buffer(&mut core.inner.lock(), options.pre_commit)?;
        }
        let core = Arc::new(core);
        core.inner.lock().hold.belongs_to(&core);
        let ticker = Ticker::start(&core)?;
        Ok(Self { core, ticker, closed: false })
    }

    /// Appends a message with the time it is now.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`]; [`Error::AtCapacity`], [`Error::DiskFull`] (the message is not there then, nor any part of it);
    /// [`Error::Io`]; [`Error::SyncFailed`] after a sync that failed, or where another thread that was to sync for this one panicked.
    pub fn append(&self, message: impl AsRef<[u8]>) -> Result<Placed> {
        self.append_at(Timestamp::now(), message)
    }

    /// Appends a message with a given time.
    ///
    /// # Errors
    /// As [`append`](Writer::append).
    pub fn append_at(&self, time: Timestamp, message: impl AsRef<[u8]>) -> Result<Placed> {
        self.core.append(time, message.as_ref())
    }

    /// Appends messages with the time it is now, in order, in as few writes as possible, and with nothing of
    /// this writer's other threads between them (in one segment, nothing of other processes either).
    ///
    /// A batch may cross into further segments, as single appends would. For the records of one segment it is
    /// all or nothing: when an error comes back, those of the segments filled before are there, and of the
    /// failed segment none.
    ///
    /// The result has the id of every message, where they have ids already.
    ///
    /// # Errors
    /// As [`append`](Writer::append); a message that is too large fails the batch before anything is written.
    pub fn append_batch<M: AsRef<[u8]>>(&self, messages: &[M]) -> Result<PlacedBatch> {
        self.append_batch_at(Timestamp::now(), messages)
    }

    /// Appends a batch with a given time for all its messages.
    ///
    /// # Errors
    /// As [`append_batch`](Writer::append_batch).
    pub fn append_batch_at<M: AsRef<[u8]>>(&self, time: Timestamp, messages: &[M]) -> Result<PlacedBatch> {
        self.core.append_batch(messages.len(), |n| (time, messages[n].as_ref()))
    }

    /// Appends a batch of messages that have a time each.
    ///
    /// # Errors
    /// As [`append_batch`](Writer::append_batch).
    pub fn append_batch_with_times<M: AsRef<[u8]>>(
        &self,
        messages: &[(Timestamp, M)],
    ) -> Result<PlacedBatch> {
        self.core.append_batch(messages.len(), |n| (messages[n].0, messages[n].1.as_ref()))
    }

    /// Makes every message appended so far readable: puts what the pre-commit buffer holds in a segment.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]: the messages stay in the buffer.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Makes every message appended so far readable, as [`flush`](Writer::flush) does, at the cost of an append: their
    /// checksums may follow later, with one of the next appends or flushes, or at the end of the writer. (In a process that
    /// is killed before, those messages are there, but stay unverified.) For those who call it after every message.
    ///
    /// # Errors
    /// As [`flush`](Writer::flush).
    pub fn flush_buffer(&self) -> Result<()> {
        self.core.flush_lightly()
    }

    /// Makes every message that was appended with this writer so far durable, and with it everything in the segment
    /// being written. Threads that call it at the same time share the work.
    ///
    /// # Errors
    /// As [`flush`](Writer::flush), and [`Error::SyncFailed`]: once a sync has failed, this writer never says
    /// again that something is durable.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Ends the segment being written, unless it is empty, and begins the next one. This is refused while a C
    /// process writes: it would not notice, and go on writing to a segment that readers may have passed.
    ///
    /// # Errors
    /// [`Error::CWriter`]; [`Error::DiskFull`], [`Error::Io`], [`Error::OutOfSegments`].
    pub fn roll(&self) -> Result<()> {
        let core = &*self.core;
        core.flush()?;
        let _kept_out = core.keep_out("roll", c_writers::PATIENCE)?;
        let mut inner = core.inner.lock();
        core.in_segment(&mut inner, |_, inner| {
            inner.must_roll = inner.current.as_ref().is_some_and(|current| current.end > 0);
            Ok(())
        })?;
        core.in_segment(&mut inner, |_, _| Ok(()))?;
        core.after_roll(inner)
    }

    /// Changes the segment size (bytes, 1 to 1 GiB) for all writers from now on. While a C process writes, it cannot be
    /// raised: that process may have an earlier segment open, which would no longer be full.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::CWriter`], [`Error::Replaced`], [`Error::Io`].
    pub fn set_segment_size(&self, bytes: u32) -> Result<()> {
        crate::options::check_segment_size(bytes)?;
        let raised = bytes > self.core.meta.segment_size();
        let _kept_out = if raised { Some(self.core.keep_out(RAISE, c_writers::PATIENCE)?) } else { None };
        self.core.meta.set_segment_size(bytes)?;
        self.core.meta.check_named(&self.core.shared)
    }

    /// Changes when metastore and checkpoints are synced.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_safety(&self, safety: crate::Safety) -> Result<()> {
        self.core.meta.set_safety(safety)?;
        self.core.meta.check_named(&self.core.shared)
    }

    /// Size of the pre-commit buffer in bytes; 0 without one.
    pub fn pre_commit_size(&self) -> usize {
        self.core.inner.lock().buffer.as_ref().map_or(0, PreCommit::capacity)
    }

    /// Bytes in the pre-commit buffer that are not flushed yet.
    pub fn pre_commit_used(&self) -> usize {
        self.core.inner.lock().buffer.as_ref().map_or(0, PreCommit::used)
    }

    /// How many messages this writer has accepted: after an error, up to where a batch was.
    pub fn accepted(&self) -> u64 {
        self.core.inner.lock().accepted
    }

    /// Number of the segment being written.
    pub fn segment(&self) -> u32 {
        self.core.meta.storage_log()
    }

    /// Flushes and syncs everything (with [`SyncPolicy::Never`]: flushes only) and ends the writer.
    /// Dropping a writer flushes as well, but cannot report errors: what could not be flushed then stays in the
    /// pre-commit buffer for the next writer.
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

/// The end of a writer comes, though an event's hook panics before.
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

impl Core {
    fn warn_of_foreign_owners(&self) {
        for (path, owner, expected) in recovery::foreign_owners(&self.shared).unwrap_or_default() {
            self.shared.note(Event::ForeignOwner { path, owner, expected });
        }
    }

    /// Keeps C processes from writing, if any may.
    fn keep_out(&self, action: &'static str, patience: Duration) -> Result<Option<c_writers::KeptOut>> {
        self.meta.check_named(&self.shared)?;
        if self.multi { c_writers::keep_out(&self.shared, action, patience).map(Some) } else { Ok(None) }
    }

    fn keeps_checksums(&self) -> bool {
        self.checksums.load(Ordering::Relaxed)
    }

    fn path_of(&self, segment: u32) -> std::path::PathBuf {
        self.shared.at(&names::segment(segment))
    }

    fn encode<'a>(&self, time: Timestamp, body: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Encoded<'a>> {
        let len = check_message_len(self.format, body.len())?;
        let stored = self.format.store(body, scratch);
        let stored_len = check_message_len(self.format, stored.len())?;
        let mut head = [0; COMPRESSED_HEADER_LEN];
        self.format.encode(&RecordHeader { time, len, stored: stored_len }, &mut head);
        Ok(Encoded { head, head_len: self.format.header_len(), body: stored })
    }

    fn append(&self, time: Timestamp, body: &[u8]) -> Result<Placed> {
        self.check_sync_failed()?;
        if self.policy == SyncPolicy::EachAppend && body.len() < LARGE_BODY {
            return self.append_with_others(time, body);
        }
        self.append_alone(time, body)
    }

    fn append_alone(&self, time: Timestamp, body: &[u8]) -> Result<Placed> {
        let mut scratch = Vec::new();
        let record = self.encode(time, body, &mut scratch)?;
        let mut inner = self.inner.lock();
        let placed = self.place(&mut inner, time, &record)?;
        self.finish(inner)?;
        Ok(placed)
    }

    /// What is looked at now and then: whether the settings have changed, and, where appends take no lock, whether the feed
    /// at the path is still this one.
    fn look_now_and_then(&self, inner: &mut Inner, time: Timestamp) -> Result<()> {
        let written = inner.written;
        if inner.settings_looked.is_due(time, written, SETTINGS_EVERY)
            && let Some((settings, stamp)) = Settings::reload(&self.shared, inner.settings)
        {
            inner.settings = stamp;
            inner.limits = settings.limits;
            inner.budget = Budget::default();
            self.checksums.store(settings.checksums, Ordering::Relaxed);
        }
        if (!self.multi || inner.buffer.is_some()) && inner.looked.is_due(time, written, LOOK_EVERY) {
            let named = self.meta.check_named(&self.shared);
            inner.looked.failed = named.is_err();
            named?;
        }
        Ok(())
    }

    /// Puts a record in the buffer or the segment.
    fn place(&self, inner: &mut Inner, time: Timestamp, record: &Encoded<'_>) -> Result<Placed> {
        inner.pending.saw(time);
        self.look_now_and_then(inner, time)?;
        if inner.limits.is_some() {
            self.admit_anew(inner, record.len() as u64)?;
        }
        if inner.buffer.is_some() {
            // What is synced at once goes past the buffer: a message that cannot be written must not stay in it.
            let past = self.policy == SyncPolicy::EachAppend;
            if past || !inner.buffer.as_ref().is_some_and(|b| !b.is_foreign() && b.fits(record.len())) {
                self.flush_buffer(inner)?;
            }
            if let Some(buffer) = inner.buffer.as_mut().filter(|b| !past && b.fits(record.len())) {
                buffer.push(record.head(), record.body);
                inner.written += 1;
                inner.accepted += 1;
                return Ok(Placed::Buffered);
            }
        }
        let id = self.in_segment(inner, |core, inner| core.write_one(inner, record))?;
        inner.accepted += 1;
        Ok(Placed::InSegment(id))
    }

    /// Appends this many messages, which `message` gives with their times.
    fn append_batch<'m>(
        &self,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> Result<PlacedBatch> {
        self.check_sync_failed()?;
        let mut inner = self.inner.lock();
        let mut placed = PlacedBatch::default();
        self.place_batch(&mut inner, count, message, |last, count| placed.add(last, count))?;
        self.finish(inner)?;
        Ok(placed)
    }

    /// Puts messages in the buffer or in segments, and returns where the last one of each group is, and how many
    /// the group has.
    fn place_batch<'m>(
        &self,
        inner: &mut Inner,
        count: usize,
        message: impl Fn(usize) -> (Timestamp, &'m [u8]),
        mut placed: impl FnMut(Placed, usize),
    ) -> Result<()> {
        let (mut bound, mut latest) = (0usize, Timestamp::default());
        for n in 0..count {
            let (time, body) = message(n);
            latest = latest.max(time);
            check_message_len(self.format, body.len())?;
            let most = self.format.header_len().saturating_add(self.format.max_stored(body.len()));
            bound = bound.saturating_add(most);
        }
        inner.pending.saw(latest);
        self.look_now_and_then(inner, latest)?;
        let past = self.policy == SyncPolicy::EachAppend;
        let fits = |buffer: &PreCommit| !past && bound <= buffer.capacity();
        if inner.limits.is_some() {
            if inner.buffer.as_ref().is_some_and(fits) {
                self.admit_anew(inner, bound as u64)?;
            } else if count > 0 {
                self.admit_ages(inner, 0)?;
            }
        }
        if let Some(buffer) = inner.buffer.as_ref().filter(|_| !past) {
            if bound <= buffer.capacity() && (buffer.is_foreign() || !buffer.fits(bound)) {
                self.flush_buffer(inner)?;
            }
            if inner.buffer.as_ref().is_some_and(|buffer| buffer.fits(bound)) {
                let mut scratch = Vec::new();
                for n in 0..count {
                    scratch.clear();
                    let (time, body) = message(n);
                    let record = self.encode(time, body, &mut scratch)?;
                    if let Some(buffer) = &mut inner.buffer {
                        buffer.push(record.head(), record.body);
                    }
                }
                inner.written += 1;
                inner.accepted += count as u64;
                placed(Placed::Buffered, count);
                return Ok(());
            }
        }
        self.flush_buffer(inner)?;
        let mut done = 0;
        while done < count {
            let (id, n) = self.in_segment(inner, |core, inner| {
                if inner.limits.is_some() {
                    let bytes = core.first_group(inner, done..count, &message);
                    core.admit(inner, bytes)?;
                }
                core.write_group(inner, done..count, &message)
            })?;
            inner.accepted += n as u64;
            done += n;
            placed(Placed::InSegment(id), n);
        }
        Ok(())
    }

    /// At most how many bytes those of the messages take that belong in the current segment.
    fn first_group<'m>(
        &self,
        inner: &Inner,
        range: std::ops::Range<usize>,
        message: &impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> u64 {
        let end = inner.current.as_ref().map_or(0, |current| current.end);
        let room = self.segment_size(inner).saturating_sub(end);
        let mut bytes = 0u64;
        for n in range {
            bytes += (self.format.header_len() + self.format.max_stored(message(n).1.len())) as u64;
            if bytes >= room {
                break;
            }
        }
        bytes
    }

    /// Writes one record.
    fn write_one(&self, inner: &mut Inner, record: &Encoded<'_>) -> Result<LogId> {
        if record.body.len() > SMALL_BODY {
            inner.group.push(record.sums(self.keeps_checksums(), Encoded::crc));
            self.write(inner, &mut [IoSlice::new(record.head()), IoSlice::new(record.body)])?;
        } else {
            let mut whole = std::mem::take(&mut inner.scratch);
            whole.clear();
            whole.extend_from_slice(record.head());
            whole.extend_from_slice(record.body);
            inner.group.push(record.sums(self.keeps_checksums(), |_| crc32fast::hash(&whole)));
            let written = self.write(inner, &mut [IoSlice::new(&whole)]);
            inner.scratch = whole;
            written?;
        }
        self.commit_group(inner)
    }

    /// Writes the messages that belong in the current segment; returns the last one's id and their number.
    fn write_group<'m>(
        &self,
        inner: &mut Inner,
        range: std::ops::Range<usize>,
        message: &impl Fn(usize) -> (Timestamp, &'m [u8]),
    ) -> Result<(LogId, usize)> {
        let limit = self.segment_size(inner);
        let checksums = self.keeps_checksums();
        let mut scratch = std::mem::take(&mut inner.scratch);
        scratch.clear();
        let mut compressed = Vec::new();
        let mut end = inner.current.as_ref().map_or(0, |current| current.end);
        let mut taken = 0;
        let mut outcome = Ok(());
        for n in range {
            compressed.clear();
            let (time, body) = message(n);
            let record = match self.encode(time, body, &mut compressed) {
                Ok(record) => record,
                Err(e) => {
                    outcome = Err(e);
                    break;
                }
            };
            taken += 1;
            end += record.len() as u64;
            let begun = scratch.len();
            scratch.extend_from_slice(record.head());
            let full = end >= limit;
            let large = record.body.len() >= LARGE_BODY;
            if !large {
                scratch.extend_from_slice(record.body);
            }
            inner.group.push(record.sums(checksums, |record| {
                if large { record.crc() } else { crc32fast::hash(&scratch[begun..]) }
            }));
            if large {
                outcome = self.write(inner, &mut [IoSlice::new(&scratch), IoSlice::new(record.body)]);
                scratch.clear();
            } else if scratch.len() >= PIECE {
                outcome = self.write(inner, &mut [IoSlice::new(&scratch)]);
                scratch.clear();
            }
            if outcome.is_err() || full {
                break;
            }
        }
        if outcome.is_ok() && !scratch.is_empty() {
            outcome = self.write(inner, &mut [IoSlice::new(&scratch)]);
        }
        scratch.clear();
        scratch.shrink_to(2 * PIECE);
        inner.scratch = scratch;
        match outcome {
            Ok(()) => Ok((self.commit_group(inner)?, taken)),
            Err(e) => {
                // A part of the group may be in the segment although a later one failed.
                take_back(inner);
                Err(e)
            }
        }
    }

    /// Puts bytes behind what the group has written so far. When that fails, nothing of the group stays.
    fn write(&self, inner: &mut Inner, bufs: &mut [IoSlice<'_>]) -> Result<()> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let Some(current) = &mut inner.current else { return Ok(()) };
        // After a write for which there was no room, the next one is not tried before there is: each try would
        // end its segment.
        let hopeless = inner.was_full
            && self.shared.storage.available_space(&self.shared.path).is_ok_and(|free| free < total as u64);
        let written = if hopeless {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            write_all_at(&*current.file, bufs, current.end)
        };
        match written {
            Ok(()) => {
                inner.was_full = false;
                current.end += total as u64;
                Ok(())
            }
            Err(e) => {
                inner.was_full = true;
                let path = self.path_of(current.number);
                take_back(inner);
                Err(Error::io("write", path, e))
            }
        }
    }

    /// Counts the group's records as written and returns the id of the last one.
    fn commit_group(&self, inner: &mut Inner) -> Result<LogId> {
        let Some(current) = &mut inner.current else { return Ok(LogId::default()) };
        let mut offset = inner.group_start;
        let checksums = self.keeps_checksums();
        for &sums in &inner.group {
            current.records += 1;
            if checksums {
                inner.pending.push(current.records, offset, sums);
            }
            offset += u64::from(sums.len);
        }
        inner.group.clear();
        inner.written += 1;
        let id = LogId::new(current.number, current.records);
        if inner.pending.is_full() {
            self.write_out(inner);
        }
        Ok(id)
    }

    fn flush(&self) -> Result<()> {
        self.check_sync_failed()?;
        let mut inner = self.inner.lock();
        self.flush_buffer(&mut inner)?;
        self.write_out_pending(&mut inner)?;
        if self.is_full(&inner) {
            // The segment size was made smaller. A roll that fails is tried again by the next append.
            let _ = self.in_segment(&mut inner, |_, _| Ok(()));
        }
        self.after_roll(inner)
    }

    /// Flushes the buffer; checksums are written out when they are due.
    fn flush_lightly(&self) -> Result<()> {
        self.check_sync_failed()?;
        let mut inner = self.inner.lock();
        self.flush_buffer(&mut inner)?;
        if inner.pending.is_due() {
            self.write_out_pending(&mut inner)?;
        }
        self.after_roll(inner)
    }

    /// Writes out the checksums that are pending for the current segment.
    fn write_out_pending(&self, inner: &mut Inner) -> Result<()> {
        if !inner.pending.is_some() {
            return Ok(());
        }
        self.in_segment_with(inner, false, |core, inner| {
            core.write_out(inner);
            Ok(())
        })
    }

    /// The last thing a writer does.
    fn end(&self) {
        let thread = self.inner.lock().hold.stop();
        if let Some(thread) = thread {
            // A panic in it has been printed.
            let _ = thread.join();
        }
        let mut inner = self.inner.lock();
        // Only the checksums are at stake: those records stay unverified.
        let _ = self.write_out_pending(&mut inner);
        self.release(&mut inner);
        if let Some(buffer) = &inner.buffer
            && buffer.is_empty()
        {
            buffer.close();
        }
    }
}

/// Cuts what the group has written. Where readers may have seen whole records of it, the segment ends here:
/// other records must not get their ids.
fn take_back(inner: &mut Inner) {
    let first = inner.group.first().map_or(0, |sums| u64::from(sums.len));
    let several = inner.group.len() > 1;
    let Some(current) = &mut inner.current else { return };
    let start = inner.group_start;
    let len = current.file.len().unwrap_or(u64::MAX);
    if len <= start {
        current.end = start;
        return;
    }
    if current.file.set_len(start).is_ok() {
        current.end = start;
        inner.must_roll |= several && len - start >= first;
    } else {
        inner.suspect = true;
    }
}

/// A length that was checked to fit.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
