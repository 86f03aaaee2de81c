//! Shared by everything that works on a jlog directory: its path, and access to its files.

use std::ffi::OsString;
use std::io;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::codec::names::{self, Kind};
use crate::codec::settings::Settings;
use crate::event::{Event, EventHook};
use crate::files::count_cache::CountCache;
use crate::storage::{Facts, File, FileKind, NotRegular, Open, Storage, read_all, write_all_at};
use crate::subscriber::SubscriberName;
use crate::sync::Mutex;
use crate::{Error, Result};

/// A jlog directory.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) path: PathBuf,
    pub(crate) file_mode: u32,
    pub(crate) settings: Settings,
    pub(crate) hook: Option<EventHook>,
    /// How many records complete segments have.
    pub(crate) counts: CountCache,
    /// Finishes a repair that has happened. It needs every kind of file, and files need it, so it
    /// is a hook.
    pub(crate) finish_repair: fn(&Shared) -> Result<Vec<Event>>,
    /// The first segment at the last check.
    pub(crate) first: AtomicU32,
    /// Events that were not taken yet.
    pub(crate) events: Mutex<Vec<Event>>,
}

/// Why a file may only be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    /// The system does not allow more.
    System(io::ErrorKind),
    /// It has a name outside the directory.
    HardLinked,
}

/// How often the names of a file with several names are counted, because they may change meanwhile.
const LINK_LOOKS: usize = 3;
/// How many events are kept until they are taken.
const EVENTS_MAX: usize = 1000;

impl Shared {
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens one of our files. A file with another name elsewhere is not opened for writing.
    pub(crate) fn open(&self, name: &str, how: Open) -> Result<Arc<dyn File>> {
        let path = self.at(name);
        let file = self.storage.open(&path, how).map_err(|e| open_error(path, e))?;
        if matches!(how, Open::Write | Open::Create(_)) && self.has_name_elsewhere(name, &*file)? {
            return Err(Error::HardLinked { path: self.at(name) });
        }
        Ok(file)
    }

    /// Whether a file has names outside the jlog's directory. Ours briefly have two there, while
    /// they are made or repaired.
    fn has_name_elsewhere(&self, name: &str, file: &dyn File) -> Result<bool> {
        if file.links_when_opened() <= 1 {
            return Ok(false);
        }
        for _ in 0..LINK_LOOKS {
            let facts = file.facts().map_err(|e| Error::io("look at", self.at(name), e))?;
            if facts.links <= 1 {
                return Ok(false);
            }
            let is_same = |name: &OsString| {
                self.storage.facts(&self.path.join(name)).is_ok_and(|other| other.identity == facts.identity)
            };
            let here = self.names()?.iter().filter(|name| is_same(name)).count() as u64;
            // A name that disappeared meanwhile was one of ours: counting again finds fewer.
            if here >= facts.links {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens one of our files if it exists.
    pub(crate) fn open_if_there(&self, name: &str, how: Open) -> Result<Option<Arc<dyn File>>> {
        match self.open(name, how) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens one of our files for reading and writing, or for reading if writing is not allowed,
    /// and returns the reason.
    pub(crate) fn open_best(&self, name: &str) -> Result<(Arc<dyn File>, Option<Refused>)> {
        match self.open(name, Open::Write) {
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok((self.open(name, Open::Read)?, Some(Refused::System(source.kind()))))
            }
            Err(Error::HardLinked { .. }) => Ok((self.open(name, Open::Read)?, Some(Refused::HardLinked))),
            other => Ok((other?, None)),
        }
    }

    pub(crate) fn facts(&self, name: &str) -> io::Result<Facts> {
        self.storage.facts(&self.at(name))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.facts(name).is_ok()
    }

    /// The names of all files in the directory.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        self.storage.list(&self.path).map_err(|e| Error::io("list", &self.path, e))
    }

    /// Whether a repair has happened that is not finished.
    pub(crate) fn is_repair_pending(&self) -> Result<bool> {
        match self.is_there(names::REPAIR_JOURNAL) {
            // If the file cannot be checked, nothing else can be done either, and the caller gets
            // that error.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            other => other,
        }
    }

    /// Whether a file exists; fails if that cannot be determined.
    pub(crate) fn is_there(&self, name: &str) -> Result<bool> {
        match self.facts(name) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(Error::io("look at", self.at(name), e)),
        }
    }

    /// The mode of new files: the current mode of the metastore.
    pub(crate) fn mode(&self) -> u32 {
        self.facts(names::METASTORE).map_or(self.file_mode, |facts| facts.mode & 0o777)
    }

    /// Every file of the directory, with its kind.
    pub(crate) fn list(&self) -> Result<Vec<Kind>> {
        Ok(self.names()?.iter().map(|name| Kind::of(name)).collect())
    }

    /// The numbers of the segments on disk, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u32>> {
        Ok(names::segments(&self.list()?))
    }

    /// The number of the first segment on disk; 0 if there is none. The directory is listed only if
    /// the first segment has disappeared since the last check.
    pub(crate) fn first_segment(&self) -> Result<u32> {
        let there = |number: u32| self.exists(&names::segment(number));
        let known = self.first.load(Ordering::Relaxed);
        if there(known) && known.checked_sub(1).is_none_or(|before| !there(before)) {
            return Ok(known);
        }
        let first = self.segments()?.first().copied().unwrap_or(0);
        self.first.store(first, Ordering::Relaxed);
        Ok(first)
    }

    /// The names of all subscribers, in order.
    pub(crate) fn subscribers(&self) -> Result<Vec<SubscriberName>> {
        let mut names: Vec<SubscriberName> = self
            .list()?
            .into_iter()
            .filter_map(|kind| if let Kind::Checkpoint(name) = kind { Some(name) } else { None })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes a file; returns whether it existed.
    pub(crate) fn remove_if_there(&self, name: &str) -> Result<bool> {
        match self.storage.remove(&self.at(name)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // A read-only file system refuses this even if there is no such file.
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem && !self.is_there(name)? => Ok(false),
            Err(e) => Err(Error::io("remove", self.at(name), e)),
        }
    }

    /// Removes a segment with its index and checksums; returns whether the segment existed.
    pub(crate) fn remove_segment(&self, number: u32) -> Result<bool> {
        let was_there = self.remove_if_there(&names::segment(number))?;
        self.remove_if_there(&names::index(number))?;
        self.remove_if_there(&names::checksums(number))?;
        self.remove_if_there(&names::repaired(number))?;
        Ok(was_there)
    }

    pub(crate) fn sync_dir(&self) -> Result<()> {
        self.storage.sync_dir(&self.path).map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Writes a whole new file under a temporary name, durably.
    pub(crate) fn write_temporary(&self, bytes: &[u8]) -> Result<Temporary<'_>> {
        let temporary = self.create_temporary()?;
        temporary.write(bytes, 0)?;
        temporary.sync()?;
        Ok(temporary)
    }

    /// Makes an empty file under a temporary name.
    pub(crate) fn create_temporary(&self) -> Result<Temporary<'_>> {
        self.create_temporary_as(names::TEMPORARY_PREFIX)
    }

    /// The same; its name begins with this.
    pub(crate) fn create_temporary_as(&self, prefix: &str) -> Result<Temporary<'_>> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{prefix}{}-{n}", std::process::id());
            match self.open(&name, Open::CreateNew(self.mode())) {
                Ok(file) => return Ok(Temporary { shared: self, name: Some(name), file }),
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                // The temporary name would not help the caller: the directory refuses the file.
                Err(Error::Io { source, .. }) => {
                    return Err(Error::io("create a file in", &self.path, source));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Replaces a file as a whole, durably.
    pub(crate) fn replace_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_temporary(bytes)?.rename(name)?;
        self.sync_dir()
    }

    /// Keeps bytes that are about to be cut from `name` at `offset`. The same bytes are kept only
    /// once. Returns the name under which they are kept. Nothing is kept of a file that has another
    /// name elsewhere, because not everybody who may read the jlog's files may read that one.
    pub(crate) fn keep_broken(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<String> {
        self.keep_broken_once(name, offset, bytes).map(|(keep, _)| keep)
    }

    /// The same; also returns whether they were not kept before.
    pub(crate) fn keep_broken_once(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(String, bool)> {
        if let Some(file) = self.open_if_there(name, Open::Read)?
            && self.has_name_elsewhere(name, &*file)?
        {
            return Err(Error::HardLinked { path: self.at(name) });
        }
        let mut keep = names::broken(name, offset);
        for n in 1u64.. {
            match self.open_if_there(&keep, Open::Read)? {
                None => break,
                Some(file) => {
                    let there =
                        read_all(&*file, bytes.len()).map_err(|e| Error::io("read", self.at(&keep), e))?;
                    if there == bytes {
                        return Ok((keep, false));
                    }
                }
            }
            keep = names::broken(&format!("{name}.{n}"), offset);
        }
        let temporary = self.write_temporary(bytes)?;
        temporary.rename(&keep)?;
        self.sync_dir()?;
        Ok((keep, true))
    }

    /// Reports an event.
    pub(crate) fn note(&self, event: Event) {
        if let Some(hook) = &self.hook {
            hook.call(&event);
        }
        let mut events = self.events.lock();
        if events.len() < EVENTS_MAX {
            events.push(event);
        }
    }

    /// Turns "there is no metastore" into a helpful error for new users.
    pub(crate) fn not_a_jlog(&self, error: Error) -> Error {
        if !error.is_not_found() {
            return match error {
                Error::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                    self.no_jlog("it is not a directory")
                }
                other => other,
            };
        }
        match self.storage.facts(&self.path) {
            Err(_) => self.no_jlog("the path does not exist"),
            Ok(facts) if facts.kind != FileKind::Directory => self.no_jlog("it is not a directory"),
            Ok(_) if self.has_remains() => Error::MetastoreMissing { path: self.path.clone() },
            Ok(_) => self.no_jlog("the directory has no metastore"),
        }
    }

    /// Whether the directory has segments or checkpoints, as a jlog whose metastore is missing has.
    pub(crate) fn has_remains(&self) -> bool {
        let ours = |kind: &Kind| matches!(kind, Kind::Segment(_) | Kind::Checkpoint(_));
        self.list().is_ok_and(|kinds| kinds.iter().any(ours))
    }

    fn no_jlog(&self, why: &'static str) -> Error {
        Error::NotAJlog { path: self.path.clone(), why }
    }
}

/// Distinguishes a file that is not a regular one from other failures.
pub(crate) fn open_error(path: PathBuf, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<NotRegular>()) {
        Some(NotRegular(kind)) => Error::NotAFile { path, found: kind.describe() },
        None => Error::io("open", path, error),
    }
}

/// A file that is removed again unless it gets its final name.
#[derive(Debug)]
pub(crate) struct Temporary<'a> {
    shared: &'a Shared,
    name: Option<String>,
    pub(crate) file: Arc<dyn File>,
}

impl Temporary<'_> {
    fn path(&self) -> PathBuf {
        self.shared.at(self.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Leaves it under its temporary name.
    pub(crate) fn leave(mut self) {
        self.name = None;
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&*self.file, &mut [IoSlice::new(bytes)], offset)
            .map_err(|e| Error::io("write", self.path(), e))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync", self.path(), e))
    }

    /// Renames it to `to`, replacing an existing file.
    pub(crate) fn rename(mut self, to: &str) -> Result<()> {
        let to = self.shared.at(to);
        self.shared.storage.rename(&self.path(), &to).map_err(|e| Error::io("create", to, e))?;
        self.name = None;
        Ok(())
    }

    /// Renames it to `to` unless that is taken; returns whether it was free.
    pub(crate) fn publish_new(self, name: &str) -> Result<bool> {
        let to = self.shared.at(name);
        // Not with a rename that refuses to replace: not every file system has one, and a hard link
        // does the same.
        match self.shared.storage.link(&self.path(), &to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // All that a file system without hard links can do.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
                    && self.shared.storage.facts(&to).is_err() =>
            {
                self.rename(name).map(|()| true)
            }
            Err(e) => Err(Error::io("create", to, e)),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // The first error is being returned already. A later sweep removes the file.
            let _ = self.shared.remove_if_there(&name).or_else(|_| self.shared.remove_if_there(&name));
        }
    }
}
