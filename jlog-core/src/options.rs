//! What can be chosen when a jlog is created or opened, and for writers and readers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::format::{DEFAULT_SEGMENT_SIZE, MAX_PRE_COMMIT, MAX_SEGMENT_SIZE};
use crate::event::EventHook;
use crate::limits::MIN_BYTES;
use crate::storage::{Posix, Storage};
use crate::{Compression, Error, Event, Limits, Result, Safety};

/// How a jlog is created or opened. What belongs to a new jlog (segment size, pre-commit buffer,
/// compression, safety, checksums, limits) has no effect on one that exists.
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
    /// What the directory's mode is made of: the umask does not concern it, as in the C library.
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

/// What [`Jlog::alter`](crate::Jlog::alter) changes: by default nothing, and nothing where a value is `None`.
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

    /// The size of the pre-commit buffer in bytes: 0 (none) to 8 MiB.
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

    /// Whether writers keep checksums, as [`Jlog::set_checksums`](crate::Jlog::set_checksums) sets it.
    #[must_use]
    pub fn checksums(mut self, on: impl Into<Option<bool>>) -> Self {
        self.checksums = on.into();
        self
    }
}

/// What [`Jlog::clean`](crate::Jlog::clean) does besides removing what no subscriber needs: by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanOptions {
    pub(crate) roll: bool,
}

impl CleanOptions {
    /// Whether a current segment that every subscriber has passed is ended first, so that it can be removed;
    /// see [`Writer::roll`](crate::Writer::roll) about C writers.
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
    /// A segment ends with the record that reaches this size in bytes: 1 to 1 GiB, 4 MiB by default.
    #[must_use]
    pub fn segment_size(mut self, bytes: u32) -> Self {
        self.segment_size = bytes;
        self
    }

    /// Size of the pre-commit buffer in bytes: 0 (none, the default) to 8 MiB.
    #[must_use]
    pub fn pre_commit(mut self, bytes: u32) -> Self {
        self.pre_commit = bytes;
        self
    }

    /// How bodies are stored; not at all compressed by default. Cannot be changed later.
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

    /// How much the jlog may hold; by default as much as there is room for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Permission bits of the files of a new jlog, whatever the umask; by default 0640 less the umask. The directory
    /// gets x where r is set. What is made later in a jlog has the permission bits of its metastore.
    #[must_use]
    pub fn file_mode(mut self, mode: u32) -> Self {
        (self.file_mode, self.dir_mode) = (Some(mode), Some(mode));
        self
    }

    /// Permission bits of the files of a new jlog, less those that the process's umask takes away when this is called.
    #[must_use]
    pub fn file_mode_under_umask(mut self, mode: u32) -> Self {
        (self.file_mode, self.dir_mode) = (Some(mode & !crate::storage::posix::umask()), Some(mode));
        self
    }

    /// Where files are kept, if not in the operating system's file system.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Whether a repair replaces damaged segments that another process has open for writing. (The C library
    /// opens them for writing even to read.) By default it refuses ([`Error::InUse`]): a checkpoint that
    /// such a process stores afterwards may skip messages, and what it writes is lost.
    #[must_use]
    pub fn repair_in_use(mut self, yes: bool) -> Self {
        self.repair_in_use = yes;
        self
    }

    /// Calls this with every [`Event`] as it happens, from the thread in which it does. The hook must not use the
    /// writer or reader that it hears of: that one may be in the middle of something.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hook = Some(EventHook(Arc::new(hook)));
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_segment_size(self.segment_size)?;
        check_pre_commit(self.pre_commit)?;
        check_limits(&self.limits)?;
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

/// Who else may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Locking {
    /// Any number of processes, C ones too: every append locks the segment.
    #[default]
    MultiProcess,
    /// This writer alone: nothing is locked. A second writer of this library is refused. The C library does
    /// not know this, and must not write at the same time.
    SingleProcess,
}

/// When appended messages become durable without a call of [`sync`](crate::Writer::sync).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Never: only when [`sync`](crate::Writer::sync) is called.
    Never,
    /// A segment when it is full, and when the writer is closed, as the C library does.
    #[default]
    OnRoll,
    /// As `OnRoll`, but a thread that the writer starts syncs full segments while appending goes on. When
    /// 16 segments wait for it, appending waits too. The next call returns the error of a failed sync.
    AfterRoll,
    /// At least this often (1 ms or more) while there is something to sync, from a thread that the writer
    /// starts.
    Interval(Duration),
    /// Before every append returns. Appends of several threads at the same time share writes and syncs.
    /// They go past the pre-commit buffer, which is flushed first.
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
    /// Whether another writer that is in the way is waited for.
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
    /// Gives the pre-commit buffer this size (0 to 8 MiB; 0 removes it); what the old one holds is flushed
    /// first. Without it, the buffer that the jlog has is used.
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

    /// Who else may write.
    #[must_use]
    pub fn locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// For how long a writer keeps a segment's lock from one append to the next (1 ms by default; 100 µs to 100 ms) when
    /// at least 32 of them come in a millisecond, which makes single appends two to three times as fast. Another process
    /// that writes waits about this long in the worst case; where others do write, it is a fifth of that. Zero: every append
    /// gives the lock back.
    ///
    /// A process that is stopped (SIGSTOP, a debugger) while it keeps the lock stops the other writers as well. One that
    /// ends, however it does, keeps none, unless a child lives on that was forked while the lock was kept and has not
    /// executed another program. A child does not keep the lock itself; a writer must not be used by parent and child at the
    /// same time, with or without this.
    #[must_use]
    pub fn hold_lock(mut self, longest: Duration) -> Self {
        let within = longest.clamp(Duration::from_micros(100), Duration::from_millis(100));
        self.hold_lock = if longest.is_zero() { longest } else { within };
        self
    }

    /// When messages are made durable without being asked to be.
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
pub enum ReadMethod {
    /// Reads into a buffer.
    #[default]
    Pread,
    /// Maps complete segments; the one being written is read into a buffer.
    Mmap,
}

/// What a reader does when it meets damaged bytes.
///
/// **By default it fails, at every further call too**: a consumer that does nothing about it stays where it
/// is, and segments are retained. Consumers without supervision use [`Skip`](OnDamage::Skip), as the
/// `jlog` command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// Returns the error each time, until [`skip_damage`](crate::Reader::skip_damage) skips the damage.
    #[default]
    Fail,
    /// Skips what is damaged, counts it ([`skipped`](crate::Reader::skipped)), keeps it in a file
    /// `….broken-<offset>`, and reports it as [`Event::DamageSkipped`].
    Skip,
}

/// What a reader does when messages that it needs are missing: dropped
/// ([`AtLimit::DropOldest`](crate::AtLimit::DropOldest)), or lost with a segment that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnMissed {
    /// Continues with the messages that are left, counts the missing ones
    /// ([`missed`](crate::Reader::missed), [`lost`](crate::Reader::lost)), and reports them as an event.
    #[default]
    Tell,
    /// Counts them as well, and returns [`Error::Missed`] or [`Error::SegmentsLost`] once.
    Fail,
}

/// Which other readers of its subscriber a reader tolerates. Readers of the C library do not see claims.
///
/// A claim is a lock of the system (flock) on the checkpoint's file, taken once when the reader is opened. It ends with
/// the reader and its [`Checkpointer`](crate::Checkpointer)s, or with the process, however that ends. A child that was
/// forked meanwhile cannot end it, but keeps it while it lives on without executing another program. Opening a reader
/// therefore waits up to 0.2 seconds for a claim to end before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Claim {
    /// It takes no claim: it is never refused, and refuses nobody.
    None,
    /// It is refused ([`Error::ReaderBusy`](crate::Error::ReaderBusy)) while another reader, of this process or another
    /// one, claims the subscriber.
    #[default]
    Alone,
    /// It is refused while another reader claims the subscriber alone. Each of the readers that share it gets every
    /// message, and the last checkpoint stored wins.
    Shared,
    /// It shares the subscriber if that is possible and takes no claim otherwise: it is never refused, but readers that
    /// want to be alone see it. Readers of our libjlog do this, because the C library never refuses one.
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
    /// Whether nothing is reported: for a look of our own.
    pub(crate) quiet: bool,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            verify: true,
            on_damage: OnDamage::Fail,
            on_missed: OnMissed::Tell,
            method: ReadMethod::Pread,
            batch_bytes: 256 << 10,
            peek: false,
            claim: Claim::default(),
            quiet: false,
        }
    }
}

impl ReaderOptions {
    /// Whether records are checked against their checksums, where there are any; they are by default.
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

    /// Whether the reader only looks: it never stores a checkpoint by itself, as others do when they leave a
    /// segment that is done with or find the checkpoint past the end.
    #[must_use]
    pub fn peek(mut self, peek: bool) -> Self {
        self.peek = peek;
        self
    }

    /// Which other readers of the subscriber are tolerated: none by default ([`Claim::Alone`]). A reader that has no
    /// subscriber or may not write the checkpoint takes no claim, nor does one that [peeks](ReaderOptions::peek), except
    /// with [`Claim::IfFree`].
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

    /// About how many bytes of a segment a batch takes at most (4 KiB to 64 MiB, 256 KiB by default); a
    /// longer record comes in a batch of its own.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes.clamp(4 << 10, 64 << 20);
        self
    }
}

pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    if let Some(value) = limits.max_bytes.filter(|&bytes| bytes < MIN_BYTES) {
        return Err(Error::OutOfRange { what: "a limit in bytes", value, allowed: "16 KiB or more" });
    }
    if let Some(age) = limits.max_age.filter(|age| age.as_secs() == 0 || age.subsec_nanos() > 0) {
        let value = age.as_secs();
        return Err(Error::OutOfRange { what: "a limit of age", value, allowed: "whole seconds, 1 or more" });
    }
    Ok(())
}
