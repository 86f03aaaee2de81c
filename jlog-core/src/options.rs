//! Options for creating and opening a jlog, and for writers and readers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::format::{DEFAULT_SEGMENT_SIZE, MAX_PRE_COMMIT, MAX_SEGMENT_SIZE};
use crate::event::EventHook;
use crate::limits::MIN_BYTES;
use crate::storage::{Posix, Storage};
use crate::{Compression, Error, Event, Limits, Result, Safety};

/// How a jlog is created or opened. The properties of a new jlog (segment size, pre-commit buffer,
/// compression, safety, checksums, limits) have no effect on an existing one.
///
/// ```
/// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
/// use jlog_core::{Compression, Jlog};
///
/// let log = Jlog::options()
///     .segment_size(16 << 20)
///     .pre_commit(1 << 20)
///     .compression(Compression::Lz4)
///     .on_event(|event| eprintln!("{event}"))
///     .create_or_open(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JlogOptions {
    pub(crate) segment_size: u32,
    pub(crate) pre_commit: u32,
    pub(crate) compression: Compression,
    pub(crate) safety: Safety,
    pub(crate) checksums: bool,
    pub(crate) limits: Limits,
    pub(crate) file_mode: Option<u32>,
    /// The base of the directory's mode: the umask does not apply to it, as in the C library.
    pub(crate) dir_mode: Option<u32>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) hook: Option<EventHook>,
    pub(crate) repair_in_use: bool,
}

impl Default for JlogOptions {
    fn default() -> Self {
        Self {
            segment_size: DEFAULT_SEGMENT_SIZE,
            pre_commit: 0,
            compression: Compression::None,
            safety: Safety::AlmostSafe,
            checksums: true,
            limits: Limits::default(),
            file_mode: None,
            dir_mode: None,
            storage: Arc::new(Posix),
            hook: None,
            repair_in_use: false,
        }
    }
}

/// The changes of [`Jlog::alter`](crate::Jlog::alter): by default none. A value of `None` changes
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlterOptions {
    pub(crate) segment_size: Option<u32>,
    pub(crate) pre_commit: Option<u32>,
    pub(crate) safety: Option<Safety>,
    pub(crate) limits: Option<Limits>,
    pub(crate) checksums: Option<bool>,
}

impl AlterOptions {
    /// The size in bytes at which a segment ends: 1 to 1 GiB.
    #[must_use]
    pub fn segment_size(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.segment_size = bytes.into();
        self
    }

    /// The size of the pre-commit buffer in bytes: 0 (none) to 8 MiB, and at most half of
    /// [`Limits::max_bytes`].
    #[must_use]
    pub fn pre_commit(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.pre_commit = bytes.into();
        self
    }

    /// When the metastore and checkpoints are synced.
    #[must_use]
    pub fn safety(mut self, safety: impl Into<Option<Safety>>) -> Self {
        self.safety = safety.into();
        self
    }

    /// How much the jlog may hold, as [`Jlog::set_limits`](crate::Jlog::set_limits) sets it.
    #[must_use]
    pub fn limits(mut self, limits: impl Into<Option<Limits>>) -> Self {
        self.limits = limits.into();
        self
    }

    /// Whether writers keep checksums, as [`Jlog::set_checksums`](crate::Jlog::set_checksums) sets
    /// it.
    #[must_use]
    pub fn checksums(mut self, on: impl Into<Option<bool>>) -> Self {
        self.checksums = on.into();
        self
    }
}

/// What [`Jlog::clean`](crate::Jlog::clean) does besides removing segments that no subscriber
/// needs: by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanOptions {
    pub(crate) roll: bool,
}

impl CleanOptions {
    /// Whether a current segment that every subscriber has passed is ended first, so that it can be
    /// removed; see [`Writer::roll`](crate::Writer::roll) about C writers.
    #[must_use]
    pub fn roll(mut self, yes: bool) -> Self {
        self.roll = yes;
        self
    }
}

impl fmt::Debug for JlogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JlogOptions")
            .field("segment_size", &self.segment_size)
            .field("pre_commit", &self.pre_commit)
            .field("compression", &self.compression)
            .field("safety", &self.safety)
            .field("checksums", &self.checksums)
            .field("limits", &self.limits)
            .field("file_mode", &self.file_mode)
            .finish_non_exhaustive()
    }
}

impl JlogOptions {
    /// A segment ends with the record that reaches this size in bytes: 1 to 1 GiB, 4 MiB by
    /// default.
    #[must_use]
    pub fn segment_size(mut self, bytes: u32) -> Self {
        self.segment_size = bytes;
        self
    }

    /// Size of the pre-commit buffer in bytes: 0 (none, the default) to 8 MiB, and at most half of
    /// [`Limits::max_bytes`].
    #[must_use]
    pub fn pre_commit(mut self, bytes: u32) -> Self {
        self.pre_commit = bytes;
        self
    }

    /// How bodies are stored; uncompressed by default. Cannot be changed later.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// When the metastore and checkpoints are synced.
    #[must_use]
    pub fn safety(mut self, safety: Safety) -> Self {
        self.safety = safety;
        self
    }

    /// Whether writers keep a checksum of each record; they do by default.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// How much the jlog may hold; unlimited by default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Permission bits of the files of a new jlog, whatever the umask; by default 0640 minus the
    /// umask. The directory gets x where r is set. Files that are made later have the permission
    /// bits of the metastore.
    #[must_use]
    pub fn file_mode(mut self, mode: u32) -> Self {
        (self.file_mode, self.dir_mode) = (Some(mode), Some(mode));
        self
    }

    /// Permission bits of the files of a new jlog, minus the process's umask at the time of this
    /// call.
    #[must_use]
    pub fn file_mode_under_umask(mut self, mode: u32) -> Self {
        (self.file_mode, self.dir_mode) = (Some(mode & !crate::storage::posix::umask()), Some(mode));
        self
    }

    /// The storage to use instead of the operating system's file system.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Whether a repair replaces damaged segments that another process has open for writing. (The C
    /// library opens them for writing even to read.) By default it refuses ([`Error::InUse`]): a
    /// checkpoint that such a process stores afterwards may skip messages, and what it writes is
    /// lost.
    #[must_use]
    pub fn repair_in_use(mut self, yes: bool) -> Self {
        self.repair_in_use = yes;
        self
    }

    /// Calls this with every [`Event`] as it happens, on the thread where it happens. The hook must
    /// not use the writer or reader that reports, because that may be in the middle of an
    /// operation.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hook = Some(EventHook(Arc::new(hook)));
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_segment_size(self.segment_size)?;
        check_pre_commit(self.pre_commit)?;
        check_limits(&self.limits)?;
        check_room(&self.limits, self.pre_commit.into())?;
        if let Some(mode) = self.file_mode.filter(|&mode| mode > 0o777) {
            return Err(Error::OutOfRange {
                what: "a file mode",
                value: mode.into(),
                allowed: "octal 0 to 777",
            });
        }
        Ok(())
    }
}

pub(crate) fn check_segment_size(bytes: u32) -> Result<()> {
    if (1..=MAX_SEGMENT_SIZE).contains(&bytes) {
        return Ok(());
    }
    Err(Error::OutOfRange { what: "a segment size", value: bytes.into(), allowed: "1 byte to 1 GiB" })
}

pub(crate) fn check_pre_commit(bytes: u32) -> Result<()> {
    if bytes <= MAX_PRE_COMMIT {
        return Ok(());
    }
    Err(Error::OutOfRange { what: "a pre-commit buffer", value: bytes.into(), allowed: "0 bytes to 8 MiB" })
}

/// Which other writers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Locking {
    /// Any number of processes, including C ones: every append locks the segment.
    #[default]
    MultiProcess,
    /// This writer alone: nothing is locked. A second writer of this library is refused. The C
    /// library does not know this, and must not write at the same time.
    SingleProcess,
}

/// When appended messages become durable without a call of [`sync`](crate::Writer::sync).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Never: only when [`sync`](crate::Writer::sync) is called.
    Never,
    /// A segment is synced when it is full and when the writer is closed, as in the C library.
    #[default]
    OnRoll,
    /// As `OnRoll`, but a thread of the writer syncs full segments while appending continues. When
    /// 16 segments wait for it, appending waits too. The next call returns the error of a failed
    /// sync.
    AfterRoll,
    /// A thread of the writer syncs at least this often (1 ms or more) while there is something to
    /// sync.
    Interval(Duration),
    /// Messages are durable before each append returns. Appends of several threads at the same time
    /// share writes and syncs. They bypass the pre-commit buffer, which is flushed first.
    EachAppend,
}

/// How a writer works.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// use jlog_core::{SyncPolicy, WriterOptions};
///
/// let writer = log.writer_with(WriterOptions::default().sync(SyncPolicy::EachAppend))?;
/// writer.append(b"durable when this returns")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    pub(crate) pre_commit: Option<u32>,
    pub(crate) bypass_pre_commit: bool,
    pub(crate) locking: Locking,
    pub(crate) hold_lock: Duration,
    pub(crate) sync: SyncPolicy,
    /// Whether to wait for another writer to close.
    pub(crate) waits: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            pre_commit: None,
            bypass_pre_commit: false,
            locking: Locking::default(),
            hold_lock: Duration::from_millis(1),
            sync: SyncPolicy::default(),
            waits: true,
        }
    }
}

impl WriterOptions {
    /// Sets the size of the pre-commit buffer in bytes (0 to 8 MiB, and at most half of
    /// [`Limits::max_bytes`]; 0 removes it); an old buffer is flushed first. Without this, the
    /// jlog's existing buffer is used.
    #[must_use]
    pub fn pre_commit(mut self, bytes: u32) -> Self {
        self.pre_commit = Some(bytes);
        self
    }

    /// Writes to segments directly, leaving the jlog's pre-commit buffer to another writer.
    #[must_use]
    pub fn bypass_pre_commit(mut self, bypass: bool) -> Self {
        self.bypass_pre_commit = bypass;
        self
    }

    /// Which other writers there may be.
    #[must_use]
    pub fn locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// Sets how long a writer keeps a segment's lock between appends (1 ms by default; 100 µs to
    /// 100 ms), if at least 32 of them come in a millisecond. This makes single appends two to
    /// three times as fast. Another writing process waits about this long in the worst case; once
    /// others do write, a fifth of that. Zero: every append releases the lock.
    ///
    /// A process that is stopped (SIGSTOP, a debugger) while it keeps the lock blocks the other
    /// writers. The lock ends with the process, unless a child that was forked meanwhile is still
    /// alive and has not executed another program. Independently of this option, parent and child
    /// must not use the same writer.
    #[must_use]
    pub fn hold_lock(mut self, longest: Duration) -> Self {
        let within = longest.clamp(Duration::from_micros(100), Duration::from_millis(100));
        self.hold_lock = if longest.is_zero() { longest } else { within };
        self
    }

    /// When messages become durable without a call of [`sync`](crate::Writer::sync).
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.pre_commit.map_or(Ok(()), check_pre_commit)
    }
}

/// How a reader reads segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadMethod {
    /// Reads into a buffer.
    #[default]
    Pread,
    /// Maps complete segments; the one being written is read into a buffer.
    Mmap,
}

/// What a reader does when it meets damaged bytes.
///
/// **By default it fails, also at every further call**: a consumer that does nothing about it stays
/// where it is, and segments are retained. Unsupervised consumers should use
/// [`Skip`](OnDamage::Skip), as the `jlog` command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDamage {
    /// Returns the error each time, until [`skip_damage`](crate::Reader::skip_damage) skips the
    /// damage.
    #[default]
    Fail,
    /// Skips damaged bytes, counts them ([`skipped`](crate::Reader::skipped)), keeps them in a file
    /// `….broken-<offset>`, and reports them as [`Event::DamageSkipped`].
    Skip,
}

/// What a reader does when messages that it needs are missing: dropped
/// ([`AtLimit::DropOldest`](crate::AtLimit::DropOldest)), or lost with a segment that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnMissed {
    /// Continues with the remaining messages, counts the missing ones
    /// ([`missed`](crate::Reader::missed), [`lost`](crate::Reader::lost)), and reports them as an
    /// event.
    #[default]
    Report,
    /// Counts them as well, and returns [`Error::Missed`] or [`Error::SegmentsLost`] once.
    Fail,
}

/// Which other readers of its subscriber a reader tolerates. Readers of the C library do not see
/// claims.
///
/// A claim is a lock (flock) on the checkpoint's file, taken once when the reader is opened. It
/// ends with the reader and its [`Checkpointer`](crate::Checkpointer)s, or with the process,
/// however that ends. A forked child cannot end the claim, but keeps it alive until it exits or
/// executes another program. Opening a reader therefore waits up to 0.2 seconds for a claim to end
/// before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Claim {
    /// It takes no claim: it is never refused, and does not exclude other readers.
    None,
    /// It is refused ([`Error::ReaderBusy`](crate::Error::ReaderBusy)) while another reader, of
    /// this process or another one, claims the subscriber.
    #[default]
    Alone,
    /// It is refused while another reader claims the subscriber alone. Each of the readers that
    /// share it gets every message, and the last checkpoint stored wins.
    Shared,
    /// It shares the subscriber if possible, and takes no claim otherwise: it is never refused, but
    /// exclusive readers see it. Readers of our libjlog do this, because the C library never
    /// refuses one.
    IfFree,
}

/// How a reader works.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// use jlog_core::{OnDamage, OnMissed, ReaderOptions, Start};
///
/// log.subscribe("billing", Start::Beginning)?;
/// let options = ReaderOptions::default().on_damage(OnDamage::Skip).on_missed(OnMissed::Fail);
/// let reader = log.reader_with("billing", options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReaderOptions {
    pub(crate) verify: bool,
    pub(crate) on_damage: OnDamage,
    pub(crate) on_missed: OnMissed,
    pub(crate) method: ReadMethod,
    pub(crate) batch_bytes: usize,
    pub(crate) peek: bool,
    pub(crate) claim: Claim,
    /// Whether nothing is reported, for internal reads.
    pub(crate) quiet: bool,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            verify: true,
            on_damage: OnDamage::Fail,
            on_missed: OnMissed::Report,
            method: ReadMethod::Pread,
            batch_bytes: 256 << 10,
            peek: false,
            claim: Claim::default(),
            quiet: false,
        }
    }
}

impl ReaderOptions {
    /// Whether records are checked against their checksums, if there are any; they are by default.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// What happens at damage: by default the reader fails until the damage is skipped.
    #[must_use]
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = on_damage;
        self
    }

    /// What happens when messages that the subscriber needed were dropped.
    #[must_use]
    pub fn on_missed(mut self, on_missed: OnMissed) -> Self {
        self.on_missed = on_missed;
        self
    }

    /// Whether the reader only looks: it never stores a checkpoint by itself. Other readers do so
    /// when they leave a finished segment, or find the checkpoint past the end.
    #[must_use]
    pub fn peek(mut self, peek: bool) -> Self {
        self.peek = peek;
        self
    }

    /// Which other readers of the subscriber are tolerated: none by default ([`Claim::Alone`]). A
    /// reader that has no subscriber, may not write the checkpoint, or [peeks](ReaderOptions::peek)
    /// takes no claim, except with [`Claim::IfFree`].
    #[must_use]
    pub fn claim(mut self, claim: Claim) -> Self {
        self.claim = claim;
        self
    }

    /// How bytes are read.
    #[must_use]
    pub fn read_method(mut self, method: ReadMethod) -> Self {
        self.method = method;
        self
    }

    /// The approximate maximum of a batch, in bytes of the segment (4 KiB to 64 MiB, 256 KiB by
    /// default). A longer record gets a batch of its own.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.clamp(4 << 10, 64 << 20);
        self
    }
}

/// The buffer counts towards `max_bytes` and keeps its size: what is left is for segments.
pub(crate) fn check_room(limits: &Limits, pre_commit: u64) -> Result<()> {
    if limits.max_bytes.is_none_or(|max| pre_commit <= max / 2) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        what: "a pre-commit buffer",
        value: pre_commit,
        allowed: "at most half of the limit in bytes, which it counts towards",
    })
}

pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    if let Some(value) = limits.max_bytes.filter(|&bytes| bytes < MIN_BYTES) {
        return Err(Error::OutOfRange { what: "a limit in bytes", value, allowed: "16 KiB or more" });
    }
    if let Some(age) = limits.max_age.filter(|age| age.as_secs() == 0 || age.subsec_nanos() > 0) {
        let value = age.as_secs();
        return Err(Error::OutOfRange { what: "an age limit", value, allowed: "whole seconds, 1 or more" });
    }
    Ok(())
}
