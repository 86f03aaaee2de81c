//! Checkpoint files.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use crate::format::{CHECKPOINT_LEN, Safety, decode_checkpoint, encode_checkpoint};
use crate::names::{Kind, SubscriberName};
use crate::shared::Shared;
use crate::storage::{File, LockGuard, Open, read_all, write_all_at};
use crate::{Error, LogId, Result};

/// A subscriber's checkpoint file, open.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Why it cannot be written, where that is so.
    refused: Option<std::io::ErrorKind>,
}

impl Checkpoint {
    /// Opens it, for writing where that is allowed.
    pub(crate) fn open(shared: &Shared, name: &SubscriberName) -> Result<Self> {
        let file_name = name.checkpoint_file();
        let (file, refused) = shared
            .open_best(&file_name)
            .map_err(|e| if e.is_not_found() { unknown_subscriber(shared, name) } else { e })?;
        Ok(Self { file, path: shared.at(&file_name), refused })
    }

    /// Creates it, whole from the first moment.
    pub(crate) fn create(shared: &Shared, name: &SubscriberName, id: LogId) -> Result<()> {
        let exists = || Error::SubscriberExists { path: shared.path.clone(), name: name.to_string() };
        if shared.exists(&name.checkpoint_file()) {
            return Err(exists());
        }
        let temporary = shared.write_temporary(&encode_checkpoint(id))?;
        if !temporary.publish_new(&name.checkpoint_file())? {
            return Err(exists());
        }
        shared.sync_dir()
    }

    /// Reads it under its lock. A file without any bytes is one that the C library is creating:
    /// `None` then.
    pub(crate) fn get(&self) -> Result<Option<LogId>> {
        let _lock = self.lock()?;
        self.get_locked()
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

    /// Stores it under its lock and returns what it was. Extends or cuts the file to its right size.
    pub(crate) fn set(&self, id: LogId, safety: Safety) -> Result<Option<LogId>> {
        let fail = |e| Error::io("write", &self.path, e);
        self.check_allowed()?;
        let _lock = self.lock()?;
        let old = self.get_locked().unwrap_or(None);
        write_all_at(&*self.file, &mut [IoSlice::new(&encode_checkpoint(id))], 0).map_err(fail)?;
        if self.file.len().map_err(fail)? != CHECKPOINT_LEN as u64 {
            self.file.set_len(CHECKPOINT_LEN as u64).map_err(fail)?;
        }
        if safety == Safety::Safe {
            self.sync()?;
        }
        Ok(old)
    }

    /// Stores it if it is `from` still; says whether it was.
    pub(crate) fn move_from(&self, from: LogId, to: LogId, safety: Safety) -> Result<bool> {
        self.move_from_if(from, to, safety, || true)
    }

    /// The same, if under the checkpoint's lock something else holds, too.
    pub(crate) fn move_from_if(
        &self,
        from: LogId,
        to: LogId,
        safety: Safety,
        holds: impl Fn() -> bool,
    ) -> Result<bool> {
        self.check_allowed()?;
        let _lock = self.lock()?;
        if self.get_locked()? != Some(from) || !holds() {
            return Ok(false);
        }
        write_all_at(&*self.file, &mut [IoSlice::new(&encode_checkpoint(to))], 0)
            .map_err(|e| Error::io("write", &self.path, e))?;
        if safety == Safety::Safe {
            self.sync()?;
        }
        Ok(true)
    }

    /// Fails where the file can only be read.
    pub(crate) fn check_allowed(&self) -> Result<()> {
        self.refused.map_or(Ok(()), |why| Err(Error::io("write", &self.path, why.into())))
    }

    /// Whether the file has lost its name: the subscriber was removed.
    pub(crate) fn is_removed(&self) -> Result<bool> {
        Ok(self.file.facts().map_err(|e| Error::io("look at", &self.path, e))?.links == 0)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))
    }

    fn lock(&self) -> Result<LockGuard<'_>> {
        LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))
    }
}

pub(crate) fn unknown_subscriber(shared: &Shared, name: &SubscriberName) -> Error {
    Error::UnknownSubscriber { path: shared.path.clone(), name: name.to_string() }
}

/// The checkpoints of all subscribers, read one after the other. One that is being created or cannot be read
/// comes as `None`: nobody knows what it needs.
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

/// Whether a file of this subscriber is there, whatever it holds.
pub(crate) fn exists(shared: &Shared, name: &SubscriberName) -> bool {
    shared.open(&name.checkpoint_file(), Open::Read).is_ok()
}
