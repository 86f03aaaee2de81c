//! Checkpoint files.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::codec::format::{CHECKPOINT_LEN, Safety, decode_checkpoint, encode_checkpoint};
use crate::codec::names::{self, Kind};
use crate::files::renumbered::Identity;
use crate::files::shared::{Refused, Shared, Temporary};
use crate::options::Claim;
use crate::storage::{File, Guarded, LockGuard, Open, read_all, write_all_at};
use crate::subscriber::SubscriberName;
use crate::{Error, LogId, Result};

/// A subscriber's checkpoint file, open.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Why it cannot be written, if it cannot.
    refused: Option<Refused>,
}

impl Checkpoint {
    /// Opens it, for writing if that is allowed.
    pub(crate) fn open(shared: &Shared, name: &SubscriberName) -> Result<Self> {
        let file_name = name.checkpoint_file();
        let (file, refused) = shared
            .open_best(&file_name)
            .map_err(|e| if e.is_not_found() { unknown_subscriber(shared, name) } else { e })?;
        Ok(Self { file, path: shared.at(&file_name), refused })
    }

    /// Claims it for a reader until the guard is dropped. `None` if the file cannot be written:
    /// such a reader stores nothing, so it needs no claim.
    pub(crate) fn claim(
        &self,
        shared: &Shared,
        name: &SubscriberName,
        claim: Claim,
    ) -> Result<Option<Guarded>> {
        if self.refused.is_some() || claim == Claim::None {
            return Ok(None);
        }
        if claim == Claim::IfFree {
            let taken = self.file.try_guard(false).unwrap_or(false);
            return Ok(taken.then(|| Guarded::new(Arc::clone(&self.file))));
        }
        let taken = Guarded::take_soon(&*shared.storage, &self.file, claim == Claim::Alone)
            .map_err(|e| Error::io("lock", &self.path, e))?;
        let busy = || Error::ReaderBusy { path: shared.path.clone(), subscriber: name.to_string() };
        taken.ok_or_else(busy).map(Some)
    }

    /// Reads it under its lock. `None` for an empty file, which the C library is creating.
    pub(crate) fn get(&self) -> Result<Option<LogId>> {
        let _lock = self.lock()?;
        self.get_locked()
    }

    /// The same, with the device and inode of the checkpoint's segment, if that exists. Waits for a
    /// repair, or finishes it.
    pub(crate) fn get_with_file(&self, shared: &Shared) -> Result<Option<(LogId, Option<Identity>)>> {
        loop {
            let lock = self.lock()?;
            let Some(id) = self.get_locked()? else { return Ok(None) };
            let name = names::segment(id.segment);
            let file = || shared.facts(&name).ok().map(|facts| facts.identity);
            let before = file();
            if !shared.is_repair_pending()? {
                // A repair moves checkpoints before it replaces segments: this one has done both,
                // or neither.
                if file() == before {
                    return Ok(Some((id, before)));
                }
                continue;
            }
            drop(lock);
            (shared.finish_repair)(shared)?;
        }
    }

    fn get_locked(&self) -> Result<Option<LogId>> {
        let bytes = read_all(&*self.file, CHECKPOINT_LEN).map_err(|e| Error::io("read", &self.path, e))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        decode_checkpoint(&bytes)
            .map(Some)
            .ok_or_else(|| Error::Checkpoint { path: self.path.clone(), len: self.file.len().unwrap_or(0) })
    }

    /// Stores the value that `choose` returns under the checkpoint's lock; returns it and the
    /// previous one. Extends or cuts the file to its proper size.
    pub(crate) fn set(
        &self,
        shared: &Shared,
        safety: Safety,
        mut choose: impl FnMut() -> Result<LogId>,
    ) -> Result<(LogId, Option<LogId>)> {
        self.check_allowed()?;
        loop {
            let lock = self.lock()?;
            if !shared.is_repair_pending()? {
                let id = choose()?;
                let old = self.get_locked().unwrap_or(None);
                self.write(id)?;
                if safety == Safety::Safe {
                    self.sync()?;
                }
                return Ok((id, old));
            }
            drop(lock);
            (shared.finish_repair)(shared)?;
        }
    }

    /// Passes its bytes to `decide`, up to one more than fit, and stores the result durably. For
    /// repair only, which others wait for; use `set` elsewhere.
    pub(crate) fn repair(&self, decide: impl FnOnce(&[u8]) -> Result<Option<LogId>>) -> Result<()> {
        self.check_allowed()?;
        let _lock = self.lock()?;
        let held = read_all(&*self.file, CHECKPOINT_LEN).map_err(|e| Error::io("read", &self.path, e))?;
        let Some(id) = decide(&held)? else { return Ok(()) };
        self.write(id)?;
        self.sync()
    }

    fn write(&self, id: LogId) -> Result<()> {
        let fail = |e| Error::io("write", &self.path, e);
        write_all_at(&*self.file, &mut [IoSlice::new(&encode_checkpoint(id))], 0).map_err(fail)?;
        if self.file.len().map_err(fail)? != CHECKPOINT_LEN as u64 {
            self.file.set_len(CHECKPOINT_LEN as u64).map_err(fail)?;
        }
        Ok(())
    }

    /// Stores it if it is still `from` and a further condition holds under the checkpoint's lock.
    /// Returns whether it was.
    pub(crate) fn move_from(
        &self,
        shared: &Shared,
        from: LogId,
        to: LogId,
        safety: Safety,
        holds: impl Fn() -> bool,
    ) -> Result<bool> {
        self.check_allowed()?;
        let _lock = self.lock()?;
        if self.get_locked()? != Some(from) || shared.is_repair_pending()? || !holds() {
            return Ok(false);
        }
        self.write(to)?;
        if safety == Safety::Safe {
            self.sync()?;
        }
        Ok(true)
    }

    /// Fails if the file is read-only.
    pub(crate) fn check_allowed(&self) -> Result<()> {
        match self.refused {
            None => Ok(()),
            Some(Refused::System(why)) => Err(Error::io("write", &self.path, why.into())),
            Some(Refused::HardLinked) => Err(Error::HardLinked { path: self.path.clone() }),
        }
    }

    /// Whether the file was unlinked: the subscriber was removed.
    pub(crate) fn is_removed(&self) -> Result<bool> {
        Ok(self.file.facts().map_err(|e| Error::io("look at", &self.path, e))?.links == 0)
    }

    /// Whether it is the same file as another one that is open.
    pub(crate) fn is_file_of(&self, other: &Self) -> Result<bool> {
        let identity = |of: &Self| of.file.facts().map_err(|e| Error::io("look at", &of.path, e));
        Ok(identity(self)?.identity == identity(other)?.identity)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))
    }

    fn lock(&self) -> Result<LockGuard<'_>> {
        LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))
    }
}

/// How many new checkpoints are written, synced and renamed together. Each keeps a file open until
/// then.
const TOGETHER: usize = 64;

/// How many threads sync them: file systems commit the requests of several threads together.
const SYNCING: usize = 16;

/// Creates checkpoints at the same place: all of them, or none. Each is whole from the first
/// moment, and the directory is synced once.
pub(crate) fn create_all(shared: &Shared, names: &[SubscriberName], id: LogId) -> Result<()> {
    let mut created = 0;
    let mut groups = names.chunks(TOGETHER);
    if let Err(e) = groups.try_for_each(|group| create_group(shared, group, id, &mut created)) {
        for name in &names[..created] {
            // The first error matters more, and the subscriber was not announced.
            let _ = shared.remove_if_there(&name.checkpoint_file());
        }
        return Err(e);
    }
    shared.sync_dir()
}

/// Creates these checkpoints in their order until one fails, and counts them.
fn create_group(shared: &Shared, names: &[SubscriberName], id: LogId, created: &mut usize) -> Result<()> {
    let exists =
        |name: &SubscriberName| Error::SubscriberExists { path: shared.path.clone(), name: name.to_string() };
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        if shared.exists(&name.checkpoint_file()) {
            return Err(exists(name));
        }
        let file = shared.create_temporary()?;
        file.write(&encode_checkpoint(id), 0)?;
        files.push(file);
    }
    sync_all(shared, &files)?;
    for (name, file) in names.iter().zip(files) {
        if !file.publish_new(&name.checkpoint_file())? {
            return Err(exists(name));
        }
        *created += 1;
    }
    Ok(())
}

fn sync_all(shared: &Shared, files: &[Temporary<'_>]) -> Result<()> {
    let sync = |files: &[Temporary<'_>]| files.iter().try_for_each(Temporary::sync);
    // A simulation counts calls, whose order must not depend on threads.
    if files.len() == 1 || !shared.storage.is_shared() {
        return sync(files);
    }
    thread::scope(|scope| {
        let start = |part| thread::Builder::new().spawn_scoped(scope, move || sync(part));
        let parts = files.chunks(files.len().div_ceil(SYNCING).max(1));
        let started: Vec<_> = parts.map(|part| (part, start(part))).collect();
        started.into_iter().try_for_each(|(part, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No more threads are available.
            Err(_) => sync(part),
        })
    })
}

pub(crate) fn unknown_subscriber(shared: &Shared, name: &SubscriberName) -> Error {
    Error::UnknownSubscriber { path: shared.path.clone(), name: name.to_string() }
}

/// The checkpoints of all subscribers, read in sequence. A checkpoint that is being created or
/// cannot be read is `None`: the segments that its subscriber needs are unknown.
pub(crate) fn all(shared: &Shared) -> Result<Vec<(SubscriberName, Option<LogId>)>> {
    of(shared, shared.list()?)
}

/// The same, of these files of the directory.
pub(crate) fn of(shared: &Shared, kinds: Vec<Kind>) -> Result<Vec<(SubscriberName, Option<LogId>)>> {
    let mut names: Vec<SubscriberName> = kinds
        .into_iter()
        .filter_map(|kind| if let Kind::Checkpoint(name) = kind { Some(name) } else { None })
        .collect();
    names.sort();
    let mut out = Vec::new();
    for name in names {
        match read(shared, &name) {
            Ok(id) => out.push((name, id)),
            // Unsubscribed meanwhile.
            Err(Error::UnknownSubscriber { .. }) => {}
            Err(_) => out.push((name, None)),
        }
    }
    Ok(out)
}

/// One subscriber's checkpoint.
pub(crate) fn read(shared: &Shared, name: &SubscriberName) -> Result<Option<LogId>> {
    Checkpoint::open(shared, name)?.get()
}

/// The bytes of a checkpoint, and one more if there is one, so that a file that is too long shows.
pub(crate) fn bytes(shared: &Shared, name: &SubscriberName) -> Result<Vec<u8>> {
    let checkpoint = Checkpoint::open(shared, name)?;
    let _lock = checkpoint.lock()?;
    read_all(&*checkpoint.file, CHECKPOINT_LEN).map_err(|e| Error::io("read", &checkpoint.path, e))
}

/// Whether a checkpoint file of this subscriber exists, whatever its contents.
pub(crate) fn exists(shared: &Shared, name: &SubscriberName) -> bool {
    shared.open(&name.checkpoint_file(), Open::Read).is_ok()
}
