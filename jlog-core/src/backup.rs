//! Copies a feed while others write to it and read from it.
//!
//! A temporary subscriber retains the segments. Checkpoints are copied before the data, so that
//! none is past the end of the copy, and each sidecar before its segment, so that it lists nothing
//! that the copy lacks. The copy is made under another name next to its destination, and renamed
//! when all of it is synced.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use crate::codec::names::{self, Kind};
use crate::files::metastore::MetaReader;
use crate::files::shared::Shared;
use crate::files::{checkpoint, dropped};
use crate::jlog::Jlog;
use crate::storage::{Guarded, LockGuard, Open};
use crate::upkeep::retention;
use crate::upkeep::retention::BACKUP_PREFIX;
use crate::{Error, LogId, Result, Start, SubscriberName, WriterOptions};

/// The extent of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// How many segments.
    pub segments: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The id of the last message.
    pub end: LogId,
}

impl Jlog {
    /// Copies the feed to a new directory, while others may write to it and read from it. The copy
    /// is a separate feed, with a new identity, the same settings and the same subscribers, except
    /// temporary ones. It has every message that was readable when the backup began, perhaps some
    /// later ones, and no message from the pre-commit buffer of an open writer: flush that writer
    /// first. The copy is complete and on disk, or does not exist.
    ///
    /// Meanwhile a subscriber called `jlog-backup-…` keeps segments from being removed. If a backup
    /// is killed, the next backup or [`clean`](Jlog::clean) removes its subscriber. Its unfinished
    /// directory, which is next to `to` and called `.NAME.unfinished-…`, is not removed.
    ///
    /// Files and directory keep their modes, and their owners and groups if the process may set
    /// them.
    ///
    /// Costs one pass over the data. Damage is copied as it is.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
    /// use jlog_core::Jlog;
    ///
    /// let log = Jlog::create(&path)?;
    /// log.writer()?.append("kept")?;
    /// let copied = log.backup(dir.path().join("copy"))?;
    /// assert_eq!(copied.segments, 1);
    /// assert_eq!(Jlog::open(dir.path().join("copy"))?.end()?, copied.end);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if `to` exists or is inside the feed; [`Error::DiskFull`],
    /// [`Error::Io`]; those of opening the feed for writing.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<Backup> {
        run(self, &self.shared, to.as_ref())
    }
}

/// Retains the feed's segments until it is dropped. A process that can lock the checkpoint of its
/// subscriber knows that the backup was killed.
struct Holder<'a> {
    shared: &'a Arc<Shared>,
    name: SubscriberName,
    _guard: Guarded,
}

impl<'a> Holder<'a> {
    fn new(log: &Jlog, shared: &'a Arc<Shared>) -> Result<Self> {
        let name =
            SubscriberName::new(format!("{BACKUP_PREFIX}{}-{:08x}", std::process::id(), random(shared)?))?;
        log.subscribe(name.as_bytes(), Start::Beginning)?;
        let file = shared.open(&name.checkpoint_file(), Open::Read)?;
        // Nobody else knows the name.
        file.try_guard(true).map_err(|e| Error::io("lock", shared.at(&name.checkpoint_file()), e))?;
        Ok(Self { shared, name, _guard: Guarded::new(file) })
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        // If it cannot be removed now, the next backup or clean removes it.
        let _ = self.shared.remove_if_there(&self.name.checkpoint_file());
        let _ = MetaReader::open(self.shared)
            .and_then(|meta| meta.get())
            .and_then(|meta| retention::clean(self.shared, meta.storage_log));
    }
}

fn random(shared: &Shared) -> Result<u32> {
    getrandom::u32().map_err(|e| Error::io("name a copy of", &shared.path, io::Error::other(e)))
}

/// The directory in which the copy is made; removed unless the copy is complete.
struct Unfinished {
    path: PathBuf,
    complete: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.complete {
            // If it cannot be removed, its name shows what it is.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Checks that a copy can be made there; returns its parent directory.
fn parent_of(shared: &Shared, to: &Path) -> Result<PathBuf> {
    let refuse = |why| Err(Error::AlreadyExists { path: to.to_owned(), why });
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(|e| Error::io("copy to", to, e))?;
    let feed = fs::canonicalize(&shared.path).map_err(|e| Error::io("read", &shared.path, e))?;
    if parent.starts_with(feed) {
        return refuse("it is inside the feed that is to be copied");
    }
    match fs::symlink_metadata(to) {
        Ok(_) => refuse("something with this name already exists"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(parent),
        Err(e) => Err(Error::io("look at", to, e)),
    }
}

fn run(log: &Jlog, shared: &Arc<Shared>, to: &Path) -> Result<Backup> {
    let parent = parent_of(shared, to)?;
    let Some(name) = to.file_name() else {
        return Err(Error::AlreadyExists { path: to.to_owned(), why: "it has no name" });
    };
    let holder = match retention::release_killed_backups(shared).and_then(|()| Holder::new(log, shared)) {
        Ok(holder) => Some(holder),
        // Without write permission, segments cannot be retained. A segment that is removed
        // meanwhile is an error.
        Err(Error::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            None
        }
        Err(e) => return Err(e),
    };
    let hidden = format!(".{}.unfinished-{:08x}", name.to_string_lossy(), random(shared)?);
    let mut unfinished = Unfinished { path: parent.join(hidden), complete: false };
    let backup = copy(log, shared, &unfinished.path)?;
    drop(holder);
    fs::rename(&unfinished.path, to).map_err(|e| Error::io("rename to", to, e))?;
    unfinished.complete = true;
    // A parent that cannot be opened for reading cannot be synced either.
    let _ = File::open(&parent).and_then(|parent| parent.sync_all());
    Ok(backup)
}

fn copy(log: &Jlog, shared: &Arc<Shared>, to: &Path) -> Result<Backup> {
    let checkpoints = checkpoints(shared)?;
    // Messages that killed writers left in the buffer become readable. An open writer keeps those
    // in its buffer.
    if let Ok(writer) = log.writer() {
        writer.close()?;
    }
    let meta = log.meta()?;
    let copied = Jlog::options()
        .checksums(log.checksums())
        .limits(log.limits())
        .file_mode(shared.mode())
        .create(to)?;
    let kinds = shared.list()?;
    let mut backup = Backup { segments: 0, bytes: 0, end: LogId::default() };
    for number in names::segments(&kinds).into_iter().filter(|&number| number <= meta.storage_log) {
        copy_file(shared, to, &names::checksums(number), None)?;
        let name = names::segment(number);
        // A segment that is being written ends with a whole record while its lock is held.
        let mut len = None;
        if number == meta.storage_log
            && let Ok(file) = shared.open(&name, Open::Write)
        {
            let fail = |e| Error::io("read", shared.at(&name), e);
            let _lock = LockGuard::new(&*file).map_err(fail)?;
            len = Some(file.len().map_err(fail)?);
        }
        match copy_file(shared, to, &name, len)? {
            Some(bytes) => {
                backup.segments += 1;
                backup.bytes += bytes;
            }
            // Old segments may be dropped meanwhile, because of a limit.
            None if dropped::load(shared)?.contains_key(&number) => {}
            None => return Err(Error::io("read", shared.at(&name), io::ErrorKind::NotFound.into())),
        }
    }
    for kind in &kinds {
        if let Kind::Passed(number) = kind {
            copy_file(shared, to, &names::passed(*number), None)?;
        }
    }
    for name in [names::DROPPED, names::LOST] {
        copy_file(shared, to, name, None)?;
    }
    copied.shared.write_temporary(&meta.encode())?.rename(names::METASTORE)?;
    let copied = Jlog::open(to)?;
    for (name, id) in checkpoints {
        checkpoint::create_all(&copied.shared, &[name], id)?;
    }
    // Truncates a torn record of a killed writer, and writes nothing else.
    copied.writer_with(WriterOptions::default().bypass_pre_commit(true))?.close()?;
    backup.end = copied.end()?;
    keep_access(shared, to)?;
    sync_all(to)?;
    Ok(backup)
}

/// The checkpoints of all subscribers that a copy has. One that cannot be read is an error: the copy
/// would lack its subscriber.
fn checkpoints(shared: &Shared) -> Result<Vec<(SubscriberName, LogId)>> {
    let mut checkpoints = Vec::new();
    for name in shared.subscribers()? {
        if name.is_temporary() || name.as_bytes().starts_with(BACKUP_PREFIX.as_bytes()) {
            continue;
        }
        match checkpoint::read(shared, &name) {
            // Unsubscribed meanwhile.
            Err(Error::UnknownSubscriber { .. }) => {}
            // One without an id is being created.
            id => checkpoints.extend(id?.map(|id| (name, id))),
        }
    }
    Ok(checkpoints)
}

/// Copies a file, or its first bytes; `None` if it does not exist.
fn copy_file(shared: &Shared, to: &Path, name: &str, len: Option<u64>) -> Result<Option<u64>> {
    let from = shared.at(name);
    // Neither a link nor anything that could block.
    if shared.open_if_there(name, Open::Read)?.is_none() {
        return Ok(None);
    }
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let source = match File::options().read(true).custom_flags(flags).open(&from) {
        Ok(source) => source,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", from, e)),
    };
    let to = to.join(name);
    let fail = |e| Error::io("write", &to, e);
    let mut copy = File::create(&to).map_err(fail)?;
    let bytes = io::copy(&mut source.take(len.unwrap_or(u64::MAX)), &mut copy).map_err(fail)?;
    let mode = fs::metadata(&from).map_err(fail)?.permissions();
    copy.set_permissions(mode).map_err(fail)?;
    Ok(Some(bytes))
}

/// Gives the copy the owners and groups of the feed's files, if this process may, and the
/// directory's mode: a copy that root makes and puts in the feed's place must not lock its owner
/// out.
fn keep_access(shared: &Shared, to: &Path) -> Result<()> {
    let feed = fs::metadata(&shared.path).map_err(|e| Error::io("look at", &shared.path, e))?;
    let fail = |e| Error::io("look at", to, e);
    for entry in fs::read_dir(to).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let like = fs::symlink_metadata(shared.path.join(entry.file_name())).unwrap_or_else(|_| feed.clone());
        give(&entry.path(), &like);
    }
    give(to, &feed);
    fs::set_permissions(to, feed.permissions()).map_err(|e| Error::io("change the mode of", to, e))
}

fn give(path: &Path, like: &fs::Metadata) {
    // Without permission to give it away, it may still be given to the group.
    if lchown(path, Some(like.uid()), Some(like.gid())).is_err() {
        let _ = lchown(path, None, Some(like.gid()));
    }
}

/// Makes every file of a directory durable, and the directory.
fn sync_all(dir: &Path) -> Result<()> {
    let fail = |e| Error::io("sync", dir, e);
    for entry in fs::read_dir(dir).map_err(fail)? {
        File::open(entry.map_err(fail)?.path()).and_then(|file| file.sync_all()).map_err(fail)?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)
}
