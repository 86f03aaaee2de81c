//! The handle of a jlog.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::codec::format::Meta;
use crate::codec::names::{self, Kind};
use crate::codec::settings::Settings;
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::count_cache::CountCache;
use crate::files::metastore::{MetaReader, Metastore};
use crate::files::shared::Shared;
use crate::files::{identity, precommit, renumbered};
use crate::looks::Looks;
use crate::options::{JlogOptions, ReaderOptions, WriterOptions, check_limits, check_room};
use crate::reader::Reader;
use crate::storage::FileKind;
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::upkeep::progress::VerifyOptions;
use crate::upkeep::retention::Passing;
use crate::upkeep::verify::{Inspection, RecordInfo, Verification};
use crate::upkeep::{journal, repair, retention, verify};
use crate::walk::{counts, lost};
use crate::writer::{Writer, c_writers};
use crate::{AlterOptions, CleanOptions, Error, Event, Limits, LogId, Result, Safety};

/// Permission bits of the files of a new jlog, as in the C library.
const DEFAULT_FILE_MODE: u32 = 0o640;

/// Where a new subscriber begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first record.
    Beginning,
    /// With messages that are written from now on.
    End,
    /// After this record; (segment, 0) is before the first of that segment.
    After(LogId),
    /// At this subscriber's checkpoint.
    CopyOf(SubscriberName),
    /// With this record; (segment, 0) is before the first of that segment.
    From(LogId),
    /// With the last N messages that exist now, or all if there are fewer. A damaged stretch counts
    /// as the number of records that it replaces.
    Last(u64),
    /// With the first message of this time or later, as [`Reader::seek_time`] finds it.
    Since(crate::Timestamp),
}

/// A jlog: a directory of segments, and its subscribers.
///
/// The handle keeps no file open; writers and readers do, and may outlive it. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Jlog {
    pub(crate) shared: Arc<Shared>,
    /// The subscribers' places at the last look.
    pub(crate) looks: Arc<Looks>,
}

impl Jlog {
    /// Options to create or open a jlog with.
    pub fn options() -> JlogOptions {
        JlogOptions::default()
    }

    /// Creates a jlog with the default options.
    ///
    /// # Errors
    /// As [`JlogOptions::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().create(path)
    }

    /// Opens a jlog.
    ///
    /// # Errors
    /// As [`JlogOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Opens a jlog, or creates it with the default options.
    ///
    /// # Errors
    /// As [`JlogOptions::create_or_open`].
    pub fn create_or_open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().create_or_open(path)
    }

    /// Takes damage out, and keeps every intact record and every checkpoint; upgrades a jlog that
    /// predates header magics. The bytes taken out are kept in files named `….broken-<offset>`.
    /// Returns the actions as events.
    ///
    /// # Errors
    /// [`Error::WriterBusy`] if there is a writer; [`Error::RepairBusy`] during another repair;
    /// [`Error::InUse`] if a process that uses the C library has a damaged segment open;
    /// [`Error::NotAJlog`]; [`Error::Metastore`] if the layout of records cannot be determined;
    /// [`Error::Io`], [`Error::DiskFull`]. After an error, either nothing has changed, or the next
    /// program that opens the jlog finishes the repair.
    pub fn repair(path: impl AsRef<Path>) -> Result<Vec<Event>> {
        Self::options().repair(path)
    }

    fn shared(options: &JlogOptions, path: &Path, settings: Settings) -> Result<Shared> {
        if path.as_os_str().is_empty() || crate::storage::posix::path_too_long(path) {
            let why = std::io::Error::from(std::io::ErrorKind::InvalidFilename);
            return Err(Error::io("open", path, why));
        }
        Ok(Shared {
            storage: Arc::clone(&options.storage),
            path: path.to_owned(),
            file_mode: options
                .file_mode
                .unwrap_or_else(|| DEFAULT_FILE_MODE & !crate::storage::posix::umask()),
            settings,
            hook: options.hook.clone(),
            counts: CountCache::default(),
            finish_repair: journal::finish,
            first: AtomicU32::new(0),
            events: Mutex::new(Vec::new()),
        })
    }

    fn with(shared: Arc<Shared>) -> Self {
        Self { shared, looks: Arc::default() }
    }

    pub(crate) fn create_with(options: &JlogOptions, path: &Path) -> Result<Self> {
        options.check()?;
        let settings = Settings { checksums: options.checksums, limits: options.limits };
        let shared = Self::shared(options, path, settings.clone())?;
        let exists = |why| Err(Error::AlreadyExists { path: path.to_owned(), why });
        // As in the C library, the umask does not apply to the directory.
        let mode = options.dir_mode.unwrap_or(DEFAULT_FILE_MODE);
        let dir_mode = mode | (mode & 0o444) >> 2;
        let made = match shared.storage.create_dir(path, dir_mode) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let facts = shared.storage.facts(path).map_err(|e| Error::io("create", path, e))?;
                if facts.kind != FileKind::Directory {
                    return exists("it is not a directory");
                }
                if shared.exists(names::METASTORE) {
                    return exists("it is a jlog already");
                }
                // Another process may be creating it right now; its files do no harm.
                let foreign = shared.list()?.into_iter().any(|kind| {
                    !matches!(kind, Kind::Temporary | Kind::Settings | Kind::PreCommit | Kind::Identity)
                });
                if foreign && shared.has_remains() {
                    return Err(Error::MetastoreMissing { path: path.to_owned() });
                }
                if foreign {
                    return exists("the directory is not empty");
                }
                false
            }
            Err(e) => return Err(Error::io("create", path, e)),
        };
        let meta = Meta {
            storage_log: 0,
            segment_size: options.segment_size,
            safety: options.safety,
            format: crate::codec::format::RecordFormat::new(options.compression),
        };
        let fill = || -> Result<bool> {
            // Nothing is replaced: others may be creating the same jlog, and one may have begun to
            // write.
            if settings != Settings::default() {
                shared.write_temporary(settings.to_text().as_bytes())?.publish_new(names::SETTINGS)?;
            }
            if options.pre_commit > 0 {
                precommit::create_new(&shared, options.pre_commit)?;
            }
            identity::create(&shared)?;
            // The metastore comes last: with it, the directory is a jlog.
            let published = shared.write_temporary(&meta.encode())?.publish_new(names::METASTORE)?;
            shared.sync_dir()?;
            if let Some(parent) = path.parent() {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                // A parent that cannot be opened for reading cannot be synced either.
                let _ = shared.storage.sync_dir(parent);
            }
            Ok(published)
        };
        match fill() {
            Ok(true) => Ok(Self::with(Arc::new(shared))),
            Ok(false) => exists("it is a jlog already"),
            Err(e) => {
                if made && !shared.exists(names::METASTORE) {
                    // Leave nothing half-done.
                    let _ = shared.remove_if_there(names::SETTINGS);
                    let _ = shared.remove_if_there(names::PRE_COMMIT);
                    let _ = shared.remove_if_there(names::IDENTITY);
                    let _ = shared.storage.remove_dir(path);
                }
                Err(e)
            }
        }
    }

    pub(crate) fn open_with(options: &JlogOptions, path: &Path) -> Result<Self> {
        let bare = Self::shared(options, path, Settings::default())?;
        journal::finish(&bare)?;
        MetaReader::open(&bare)?.get()?;
        let settings = Settings::load(&*options.storage, path)?;
        let file_mode = match options.file_mode {
            Some(mode) => mode,
            None => bare.facts(names::METASTORE).map_or(bare.file_mode, |facts| facts.mode & 0o777),
        };
        Ok(Self::with(Arc::new(Shared { settings, file_mode, ..bare })))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The feed's identity, which does not depend on its path. Together with their ids, it lets a
    /// receiver distinguish messages. A feed of the C library without an identity gets one now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
    /// let log = jlog_core::Jlog::create(&path)?;
    /// let before = log.identity()?;
    /// assert_eq!(jlog_core::Jlog::open(&path)?.identity()?, before);
    /// std::fs::remove_dir_all(&path)?;
    /// assert_ne!(jlog_core::Jlog::create(&path)?.identity()?, before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`] if it has none and none can be made, or if it cannot be
    /// read.
    pub fn identity(&self) -> Result<crate::FeedIdentity> {
        if let Some(identity) = identity::read(&self.shared) {
            return Ok(identity);
        }
        identity::create(&self.shared)?;
        identity::read(&self.shared).ok_or_else(|| {
            let wrong =
                std::io::Error::other("it does not hold 32 hex digits; remove the file, and another is made");
            Error::io("read", self.shared.at(names::IDENTITY), wrong)
        })
    }

    /// The events since the last call; at most 1,000 are kept. The hook of
    /// [`JlogOptions::on_event`] gets the same events at once.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.shared.events.lock())
    }

    /// Opens a writer with the default options.
    ///
    /// # Errors
    /// As [`writer_with`](Jlog::writer_with).
    pub fn writer(&self) -> Result<Writer> {
        self.writer_with(WriterOptions::default())
    }

    /// Opens a writer. It first recovers what an earlier writer left unfinished, and reports that
    /// as events.
    ///
    /// # Errors
    /// [`Error::PreCommitBusy`] and [`Error::WriterBusy`], each after waiting up to 0.2 seconds for
    /// the other writer; [`Error::OldMetastore`], [`Error::OutOfRange`], [`Error::DiskFull`],
    /// [`Error::Io`].
    pub fn writer_with(&self, options: WriterOptions) -> Result<Writer> {
        options.check()?;
        if options.pre_commit.is_some() && !options.bypass_pre_commit {
            let limits = self.limits();
            self.check_buffer(options.pre_commit, &limits, &limits)?;
        }
        Writer::open(Arc::clone(&self.shared), &options)
    }

    /// Opens a reader for a subscriber, with the default options.
    ///
    /// # Errors
    /// As [`reader_with`](Jlog::reader_with).
    pub fn reader(&self, subscriber: impl AsRef<[u8]>) -> Result<Reader> {
        self.reader_with(subscriber, ReaderOptions::default())
    }

    /// Opens a reader for a subscriber; it begins at the subscriber's checkpoint.
    ///
    /// # Errors
    /// [`Error::UnknownSubscriber`], [`Error::SubscriberName`], [`Error::Checkpoint`],
    /// [`Error::Io`]; [`Error::ReaderBusy`] while another reader has the subscriber and the two do
    /// not share it ([`ReaderOptions::claim`]).
    pub fn reader_with(&self, subscriber: impl AsRef<[u8]>, options: ReaderOptions) -> Result<Reader> {
        Reader::open(Arc::clone(&self.shared), SubscriberName::new(subscriber)?, options)
    }

    /// Opens a reader without a subscriber: it has no checkpoint, retains no segment, and writes
    /// nothing, so it needs no write permission. It reports segments that are removed before it
    /// reads them, and continues after them: as [`Event::SegmentsLost`] if a subscriber needed them
    /// (an error with [`OnMissed::Fail`](crate::OnMissed::Fail)), otherwise as
    /// [`Event::SegmentsRemoved`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
    /// use jlog_core::{Jlog, ReaderOptions, Start, Wait};
    ///
    /// let log = Jlog::create(&path)?;
    /// log.writer()?.append_batch(&["one", "two", "three"])?;
    ///
    /// let mut reader = log.reader_from(&Start::Last(2), ReaderOptions::default())?;
    /// let batch = reader.next_batch(Wait::No)?.expect("there are messages");
    /// assert!(batch.iter().map(|message| message.body()).eq([&b"two"[..], b"three"]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`resolve`](Jlog::resolve).
    pub fn reader_from(&self, start: &Start, options: ReaderOptions) -> Result<Reader> {
        let after = self.resolve(start)?;
        Reader::open_at(Arc::clone(&self.shared), after, options)
    }

    /// Adds a subscriber.
    ///
    /// # Errors
    /// [`Error::SubscriberExists`], [`Error::SubscriberName`], [`Error::NoSuchRecord`] (an id past
    /// the end), [`Error::UnknownSubscriber`] (of a copy), [`Error::DiskFull`], [`Error::Io`].
    pub fn subscribe(&self, name: impl AsRef<[u8]>, start: Start) -> Result<LogId> {
        self.subscribe_all(&[name], start)
    }

    /// Adds several subscribers that begin at the same place, and returns that place. All are
    /// added, or none.
    ///
    /// This costs less than [`subscribe`](Jlog::subscribe) for each: the place is found once, and
    /// the directory is synced once.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
    /// use jlog_core::{Jlog, Start};
    ///
    /// let log = Jlog::create(&path)?;
    /// log.subscribe_all(&["billing", "search"], Start::End)?;
    /// assert_eq!(log.subscribers()?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Jlog::subscribe); [`Error::SubscriberExists`] also if a name is given
    /// twice.
    pub fn subscribe_all<N: AsRef<[u8]>>(&self, names: &[N], start: Start) -> Result<LogId> {
        let names: Vec<SubscriberName> = names.iter().map(SubscriberName::new).collect::<Result<_, _>>()?;
        if let Some(name) = names.iter().find(|name| checkpoint::exists(&self.shared, name)) {
            return Err(Error::SubscriberExists { path: self.shared.path.clone(), name: name.to_string() });
        }
        journal::finish(&self.shared)?;
        let file =
            |id: LogId| self.shared.facts(&names::segment(id.segment)).map(|facts| facts.identity).ok();
        let mut id = self.resolve(&start)?;
        let mut of = file(id);
        if !matches!(start, Start::CopyOf(_)) {
            lost::begins(&self.shared, id)?;
        }
        loop {
            checkpoint::create_all(&self.shared, &names, id)?;
            let now = file(id);
            if !self.shared.is_repair_pending()? && now == of {
                return Ok(id);
            }
            // A repair has happened in between: the id may belong to another record by now, or was
            // translated already.
            for name in &names {
                self.shared.remove_if_there(&name.checkpoint_file())?;
            }
            journal::finish(&self.shared)?;
            let now = file(id);
            if let (Some(from), Some(to)) = (of, now) {
                let marker = renumbered::follow(&self.shared, id.segment, from, to, id.marker)?;
                let stale = || Error::StaleId { path: self.shared.path.clone(), id };
                id.marker = marker.ok_or_else(stale)?;
            }
            of = now;
        }
    }

    /// Adds a subscriber if it does not exist, and leaves it where it is otherwise, for programs
    /// that restart. Returns whether it was added.
    ///
    /// # Errors
    /// As [`subscribe`](Jlog::subscribe), except [`Error::SubscriberExists`].
    pub fn ensure_subscriber(&self, name: impl AsRef<[u8]>, start: Start) -> Result<bool> {
        match self.subscribe(name, start) {
            Ok(_) => Ok(true),
            Err(Error::SubscriberExists { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The id after which a subscriber with this start begins.
    ///
    /// # Errors
    /// As [`subscribe`](Jlog::subscribe).
    pub fn resolve(&self, start: &Start) -> Result<LogId> {
        match start {
            Start::Beginning => self.start(),
            Start::End => self.end(),
            Start::After(id) => {
                counts::check_id(&self.shared, &self.meta()?, *id)?;
                Ok(*id)
            }
            Start::CopyOf(other) => self.checkpoint(other),
            Start::From(id) => {
                let before = LogId::new(id.segment, id.marker.saturating_sub(1));
                self.resolve(&Start::After(before)).map_err(|e| match e {
                    // The record before it was not requested.
                    Error::NoSuchRecord { path, .. } => Error::NoSuchRecord { path, id: *id },
                    other => other,
                })
            }
            Start::Last(count) => self.before_last(*count),
            Start::Since(time) => {
                let options = ReaderOptions::default().peek(true);
                let mut reader = Reader::open_at(Arc::clone(&self.shared), self.start()?, options)?;
                reader.seek_time(*time)?;
                Ok(reader.position())
            }
        }
    }

    /// The place before the last N records. Reads the segments that hold them.
    fn before_last(&self, count: u64) -> Result<LogId> {
        let meta = self.meta()?;
        let mut left = count;
        let mut segments = self.segments()?;
        segments.retain(|&number| number <= meta.storage_log);
        for &number in segments.iter().rev() {
            let records = counts::of(&self.shared, meta.format, number, meta.storage_log)?.records;
            match u32::try_from(left).ok().and_then(|left| records.checked_sub(left)) {
                Some(before) => return Ok(LogId::new(number, before)),
                None => left -= u64::from(records),
            }
        }
        self.start()
    }

    /// Removes a subscriber; returns whether it existed. Segments that only it needed stay until
    /// [`clean`](Jlog::clean) or the next checkpoint of another subscriber.
    ///
    /// # Errors
    /// [`Error::SubscriberName`], [`Error::Io`].
    pub fn unsubscribe(&self, name: impl AsRef<[u8]>) -> Result<bool> {
        let name = SubscriberName::new(name)?;
        let was_there = self.shared.remove_if_there(&name.checkpoint_file())?;
        // If this fails, the remaining file does not affect a subscriber that is added later.
        self.shared.remove_if_there(&name.group_file())?;
        Ok(was_there)
    }

    /// The subscribers' names, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn subscribers(&self) -> Result<Vec<SubscriberName>> {
        self.shared.subscribers()
    }

    /// Whether there is such a subscriber.
    ///
    /// # Errors
    /// [`Error::SubscriberName`].
    pub fn has_subscriber(&self, name: impl AsRef<[u8]>) -> Result<bool> {
        Ok(checkpoint::exists(&self.shared, &SubscriberName::new(name)?))
    }

    /// A subscriber's checkpoint.
    ///
    /// # Errors
    /// [`Error::UnknownSubscriber`], [`Error::Checkpoint`], [`Error::Io`].
    pub fn checkpoint(&self, name: impl AsRef<[u8]>) -> Result<LogId> {
        let id = checkpoint::read(&self.shared, &SubscriberName::new(name)?)?;
        // A checkpoint that the C library is creating right now counts as the beginning.
        id.map_or_else(|| self.start(), Ok)
    }

    /// Sets a subscriber's checkpoint, adding the subscriber if it is missing. If it moves forward,
    /// segments that no subscriber needs any more are removed. If it moves back, removed segments
    /// stay removed, and [`Event::CheckpointRewound`] reports it.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] (past the end), [`Error::SubscriberName`], [`Error::Io`],
    /// [`Error::DiskFull`].
    pub fn set_checkpoint(&self, name: impl AsRef<[u8]>, id: LogId) -> Result<()> {
        counts::check_id(&self.shared, &self.meta()?, id)?;
        self.store_checkpoint(name, id)
    }

    /// See [`JlogCompat`](crate::compat::JlogCompat).
    pub(crate) fn store_checkpoint(&self, name: impl AsRef<[u8]>, id: LogId) -> Result<()> {
        let name = SubscriberName::new(name)?;
        let meta = self.meta()?;
        let checkpoint = match Checkpoint::open(&self.shared, &name) {
            Err(Error::UnknownSubscriber { .. }) => {
                lost::begins(&self.shared, id)?;
                checkpoint::create_all(&self.shared, std::slice::from_ref(&name), id)?;
                // As if it had begun at the beginning: segments that were kept for lack of a
                // subscriber can go.
                let first = self.start()?;
                return retention::remove_passed(
                    &self.shared,
                    first,
                    id,
                    meta.storage_log,
                    &mut Passing::default(),
                );
            }
            other => other?,
        };
        if checkpoint.get().ok().flatten().is_some_and(|old| id.segment < old.segment) {
            // If there is no space to record it, lost messages are reported once too often.
            let _ = lost::begins(&self.shared, id);
        }
        // A group cannot always tell a checkpoint that went back from one that it was storing when
        // it was killed.
        self.shared.remove_if_there(&name.group_file())?;
        let old = checkpoint.set(&self.shared, meta.safety, || Ok(id))?.1.unwrap_or(id);
        if id < old {
            let subscriber = name.to_string();
            self.shared.note(Event::CheckpointRewound { subscriber, from: old, to: id });
        }
        retention::remove_passed(&self.shared, old, id, meta.storage_log, &mut Passing::default())
    }

    /// All subscribers with their checkpoints; `None` for one that cannot be read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn checkpoints(&self) -> Result<Vec<(SubscriberName, Option<LogId>)>> {
        checkpoint::all(&self.shared)
    }

    /// Takes damaged parts out of one segment, as [`repair`](Jlog::repair) does; returns what was
    /// done.
    ///
    /// # Errors
    /// As [`repair`](Jlog::repair).
    pub fn repair_segment(&self, number: u32) -> Result<Vec<Event>> {
        repair::repair_one(&self.shared, number)
    }

    /// Repairs metastore and checkpoints only; returns what was done.
    ///
    /// # Errors
    /// As [`repair`](Jlog::repair).
    pub fn repair_names(path: impl AsRef<Path>) -> Result<Vec<Event>> {
        repair::repair_names(&Self::shared(&Self::options(), path.as_ref(), Settings::default())?)
    }

    /// The contents of a segment's index; `None` if there is none, or it is damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn index_state(&self, segment: u32) -> Result<Option<crate::IndexState>> {
        crate::files::index::state(&self.shared, segment)
    }

    /// The metastore's values.
    ///
    /// # Errors
    /// [`Error::NotAJlog`], [`Error::Metastore`], [`Error::Io`].
    pub fn meta(&self) -> Result<Meta> {
        MetaReader::open(&self.shared)?.get()
    }

    /// Whether writers keep checksums.
    pub fn checksums(&self) -> bool {
        self.settings().checksums
    }

    /// Changes whether writers keep checksums. Running writers follow within a fraction of a
    /// second. No record loses its checksum.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`].
    pub fn set_checksums(&self, on: bool) -> Result<()> {
        self.change_settings(|settings| settings.checksums = on)
    }

    /// How much the jlog may hold.
    pub fn limits(&self) -> Limits {
        self.settings().limits
    }

    /// Changes how much the jlog may hold. Running writers follow within a tenth of a second of
    /// their next append.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Io`], [`Error::DiskFull`].
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        check_limits(&limits)?;
        self.check_buffer(None, &limits, &self.limits())?;
        self.change_settings(|settings| settings.limits = limits)
    }

    /// Fails if the pre-commit buffer, which gets this size if there is one, leaves too little room
    /// below these limits. A buffer and a limit that stay as they are were accepted before.
    fn check_buffer(&self, size: Option<u32>, limits: &Limits, current: &Limits) -> Result<()> {
        let there = precommit::size_on_disk(&self.shared)?.unwrap_or(0);
        let size = size.map_or(there, u64::from);
        if size == there && limits.max_bytes == current.max_bytes {
            return Ok(());
        }
        check_room(limits, size)
    }

    /// The current settings, or those from when the jlog was opened if they can no longer be read.
    pub(crate) fn settings(&self) -> Settings {
        let shared = &self.shared;
        Settings::load(&*shared.storage, &shared.path).unwrap_or_else(|_| shared.settings.clone())
    }

    fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        // Others may have changed another setting since this jlog was opened.
        let mut settings = Settings::load(&*self.shared.storage, &self.shared.path)?;
        change(&mut settings);
        settings.store(&self.shared)
    }

    /// Bytes in use and size of the pre-commit buffer; `None` if there has been no writer yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pre_commit(&self) -> Result<Option<(u64, u64)>> {
        precommit::fill(&self.shared)
    }

    /// The numbers of the segments on disk, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn segments(&self) -> Result<Vec<u32>> {
        self.shared.segments()
    }

    /// The id before the first record, where a subscriber that wants everything begins.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start(&self) -> Result<LogId> {
        Ok(LogId::new(self.shared.first_segment()?, 0))
    }

    /// The last record, or (segment, 0) if the last segment is empty.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn end(&self) -> Result<LogId> {
        let meta = self.meta()?;
        Ok(LogId::new(
            meta.storage_log,
            counts::of(&self.shared, meta.format, meta.storage_log, meta.storage_log)?.records,
        ))
    }

    /// Changes settings, for all writers from now on. Everything is checked before anything is
    /// changed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
    /// use jlog_core::AlterOptions;
    ///
    /// log.alter(AlterOptions::default().segment_size(1 << 20).pre_commit(64 << 10))?;
    /// assert_eq!(log.meta()?.segment_size, 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; [`Error::Settings`] if the limits that the jlog has cannot be read;
    /// [`Error::PreCommitBusy`] if a writer uses the buffer; [`Error::CWriter`] if the
    /// segment size would be raised while a C process writes; [`Error::Replaced`];
    /// [`Error::OldMetastore`]; [`Error::DiskFull`], [`Error::Io`].
    pub fn alter(&self, options: AlterOptions) -> Result<()> {
        let AlterOptions { segment_size, pre_commit, safety, limits, checksums } = options;
        segment_size.map_or(Ok(()), crate::options::check_segment_size)?;
        pre_commit.map_or(Ok(()), crate::options::check_pre_commit)?;
        limits.as_ref().map_or(Ok(()), check_limits)?;
        let kept_elsewhere = limits.is_some() || checksums.is_some();
        let current = if kept_elsewhere {
            Settings::load(&*self.shared.storage, &self.shared.path)?.limits
        } else {
            self.limits()
        };
        self.check_buffer(pre_commit, &limits.unwrap_or(current), &current)?;
        let metastore = Metastore::open(&self.shared)?;
        if segment_size.is_some_and(|bytes| bytes > metastore.segment_size()) {
            // Taken again below. While it is held, no writer can change the buffer.
            drop(c_writers::keep_out(&self.shared, crate::writer::RAISE, c_writers::PATIENCE)?);
        }
        if let Some(bytes) = pre_commit {
            Writer::open(Arc::clone(&self.shared), &WriterOptions::default().pre_commit(bytes))?.close()?;
        }
        if let Some(bytes) = segment_size {
            let raised = bytes > metastore.segment_size();
            let _kept_out = if raised {
                Some(c_writers::keep_out(&self.shared, crate::writer::RAISE, c_writers::PATIENCE)?)
            } else {
                None
            };
            metastore.set_segment_size(bytes)?;
        }
        if let Some(safety) = safety {
            metastore.set_safety(safety)?;
        }
        metastore.sync()?;
        if kept_elsewhere {
            self.change_settings(|settings| {
                settings.limits = limits.unwrap_or(settings.limits);
                settings.checksums = checksums.unwrap_or(settings.checksums);
            })?;
        }
        // Make sure that the feed at the path was changed, not one that was there a moment ago.
        metastore.check_named(&self.shared)
    }

    /// Removes segments that no subscriber needs, and files of unfinished changes; returns the
    /// segments' numbers. Without any subscriber, all segments stay. With
    /// [`AtLimit::DropOldest`](crate::AtLimit), messages older than [`Limits::max_age`] are removed
    /// as well.
    ///
    /// # Errors
    /// As [`writer_with`](Jlog::writer_with) with [`CleanOptions::roll`]; [`Error::Io`].
    pub fn clean(&self, options: CleanOptions) -> Result<Vec<u32>> {
        let before = self.shared.segments()?;
        retention::release_killed_backups(&self.shared)?;
        if options.roll {
            self.roll_if_done()?;
        }
        crate::writer::expire::run(&self.shared)?;
        retention::clean(&self.shared, self.meta()?.storage_log)?;
        let left = self.shared.segments()?;
        Ok(before.into_iter().filter(|number| left.binary_search(number).is_err()).collect())
    }

    fn roll_if_done(&self) -> Result<()> {
        let end = self.end()?;
        let checkpoints = checkpoint::all(&self.shared)?;
        let done = !checkpoints.is_empty() && checkpoints.iter().all(|(_, id)| *id == Some(end));
        if end.marker == 0 || !done {
            return Ok(());
        }
        let writer = self.writer_with(WriterOptions::default().bypass_pre_commit(true))?;
        writer.roll()?;
        let next = writer.segment();
        writer.close()?;
        for (name, _) in checkpoints {
            // Only if it has not moved: the subscriber may have continued.
            let (to, safety) = (LogId::new(next, 0), Safety::AlmostSafe);
            Checkpoint::open(&self.shared, &name)?.move_from(&self.shared, end, to, safety, || true)?;
        }
        Ok(())
    }

    /// Checks every record, index, checkpoint and the metastore, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`]. Damage is not an error here, but a finding.
    pub fn verify(&self) -> Result<Verification> {
        self.verify_with(&VerifyOptions::default())
    }

    /// As [`verify`](Jlog::verify), with several threads, progress, or a way to cancel it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`].
    pub fn verify_with(&self, options: &VerifyOptions) -> Result<Verification> {
        verify::verify(&self.shared, options)
    }

    /// Summarises a segment; `each` gets every whole record.
    ///
    /// # Errors
    /// [`Error::Io`] (not found: there is no such segment).
    pub fn inspect(&self, segment: u32, each: impl FnMut(RecordInfo)) -> Result<Inspection> {
        verify::inspect(&self.shared, segment, each)
    }

    /// Summarises several segments, in the given order. Missing segments are left out.
    ///
    /// Costs less than [`inspect`](Jlog::inspect) for each, and can use several threads.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cancelled`].
    pub fn inspect_all(&self, segments: &[u32], options: &VerifyOptions) -> Result<Vec<Inspection>> {
        verify::inspect_all(&self.shared, segments, options)
    }

    /// Bytes of all files in the directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn raw_size(&self) -> Result<u64> {
        let names =
            self.shared.storage.list(&self.shared.path).map_err(|e| Error::io("list", self.path(), e))?;
        Ok(names
            .iter()
            .filter_map(|name| self.shared.storage.facts(&self.shared.path.join(name)).ok())
            .filter(|facts| facts.kind == FileKind::Regular)
            .map(|facts| facts.len)
            .sum())
    }
}

impl JlogOptions {
    /// Creates a jlog: the path must not exist, or be an empty directory.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::MetastoreMissing`], [`Error::OutOfRange`], [`Error::Io`],
    /// [`Error::DiskFull`].
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Jlog> {
        Jlog::create_with(self, path.as_ref())
    }

    /// Opens an existing jlog.
    ///
    /// # Errors
    /// [`Error::NotAJlog`], [`Error::MetastoreMissing`], [`Error::Metastore`], [`Error::Settings`],
    /// [`Error::Io`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Jlog> {
        Jlog::open_with(self, path.as_ref())
    }

    /// Opens the jlog, or creates it if there is none. If several processes try at once, one
    /// creates it.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`open`](Self::open).
    pub fn create_or_open(&self, path: impl AsRef<Path>) -> Result<Jlog> {
        match self.open(path.as_ref()) {
            Err(Error::NotAJlog { .. }) => match self.create(path.as_ref()) {
                Err(Error::AlreadyExists { .. }) => self.open(path.as_ref()),
                other => other,
            },
            other => other,
        }
    }

    /// Repairs a jlog; see [`Jlog::repair`].
    ///
    /// # Errors
    /// As [`Jlog::repair`].
    pub fn repair(&self, path: impl AsRef<Path>) -> Result<Vec<Event>> {
        self.repair_with(path, &VerifyOptions::default())
    }

    /// As [`repair`](Jlog::repair), with several threads, progress, or a way to cancel it while
    /// segments are checked, which takes most of the time.
    ///
    /// # Errors
    /// As [`Jlog::repair`]; [`Error::Cancelled`].
    pub fn repair_with(&self, path: impl AsRef<Path>, options: &VerifyOptions) -> Result<Vec<Event>> {
        let shared = Jlog::shared(self, path.as_ref(), Settings::default())?;
        repair::repair(&shared, self.repair_in_use, options)
    }
}
