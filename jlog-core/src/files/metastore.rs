//! The metastore as a shared map: every process sees a roll at once.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::codec::format::{METASTORE_LEN, Meta, OLD_METASTORE_LEN, RecordFormat, Safety};
use crate::codec::names;
use crate::error::MetaFault;
use crate::files::identity::{self, FeedIdentity};
use crate::files::shared::Shared;
use crate::storage::{File, Guarded, LockGuard, Map, Open, read_all};
use crate::{Error, Result};

/// The metastore, open for reading.
#[derive(Debug)]
pub(crate) struct MetaReader {
    file: Arc<dyn File>,
    path: PathBuf,
    named: (u64, u64),
}

impl MetaReader {
    pub(crate) fn open(shared: &Shared) -> Result<Self> {
        let file = shared.open(names::METASTORE, Open::Read).map_err(|e| shared.not_a_jlog(e))?;
        let path = shared.at(names::METASTORE);
        let named = identity_of(&*file, &path)?;
        Ok(Self { file, path, named })
    }

    /// Makes sure that the feed at the path is still the one that was opened.
    pub(crate) fn check_named(&self, shared: &Shared) -> Result<()> {
        check_named(shared, self.named)
    }

    /// Reads it while no segment is being begun: a segment exists before the metastore names it.
    pub(crate) fn get_locked(&self) -> Result<Meta> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        self.get()
    }

    /// Reads and checks it.
    pub(crate) fn get(&self) -> Result<Meta> {
        let bytes = read_all(&*self.file, METASTORE_LEN).map_err(|e| Error::io("read", &self.path, e))?;
        Meta::decode(&bytes).map_err(|fault| Error::Metastore { path: self.path.clone(), fault })
    }
}

/// The metastore, open for a writer.
#[derive(Debug)]
pub(crate) struct Metastore {
    file: Arc<dyn File>,
    map: Map,
    path: PathBuf,
    format: RecordFormat,
    named: (u64, u64),
    /// The feed's identity, once it is known, if it has one.
    feed: OnceLock<Option<FeedIdentity>>,
}

fn identity_of(file: &dyn File, path: &Path) -> Result<(u64, u64)> {
    Ok(file.facts().map_err(|e| Error::io("read", path, e))?.identity)
}

/// Checks that the metastore at the path is this file. While it is open, no other file gets its
/// inode.
fn check_named(shared: &Shared, named: (u64, u64)) -> Result<()> {
    match shared.facts(names::METASTORE) {
        Ok(facts) if facts.identity == named => Ok(()),
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io("look at", shared.at(names::METASTORE), e))
        }
        _ => Err(Error::Replaced { path: shared.path.clone() }),
    }
}

const STORAGE_LOG: usize = 0;
const SEGMENT_SIZE: usize = 4;
const SAFETY: usize = 8;

impl Metastore {
    /// Opens and checks it. An old one (12 bytes) cannot be written.
    pub(crate) fn open(shared: &Shared) -> Result<Self> {
        let file = shared.open(names::METASTORE, Open::Write).map_err(|e| shared.not_a_jlog(e))?;
        let path = shared.at(names::METASTORE);
        let bytes = read_all(&*file, METASTORE_LEN).map_err(|e| Error::io("read", &path, e))?;
        if bytes.len() == OLD_METASTORE_LEN {
            return Err(Error::OldMetastore { path: shared.path.clone() });
        }
        let meta = Meta::decode(&bytes).map_err(|fault| Error::Metastore { path: path.clone(), fault })?;
        let map = file.map(METASTORE_LEN).map_err(|e| Error::io("map", &path, e))?;
        let named = identity_of(&*file, &path)?;
        Ok(Self { file, map, path, format: meta.format, named, feed: OnceLock::new() })
    }

    /// Remembers the feed's identity, which is created if missing.
    pub(crate) fn identify(&self, shared: &Shared) {
        self.feed.get_or_init(|| identity::ensure(shared));
    }

    /// Makes sure that the feed at the path is still the one that was opened: by the metastore's
    /// path, which costs one call.
    pub(crate) fn check_named(&self, shared: &Shared) -> Result<()> {
        check_named(shared, self.named)
    }

    /// The same, but also by the feed's identity: another feed may have been copied over this one's
    /// files.
    pub(crate) fn check_feed(&self, shared: &Shared) -> Result<()> {
        self.check_named(shared)?;
        let Some(Some(ours)) = self.feed.get() else { return Ok(()) };
        match identity::read(shared) {
            Some(there) if there != *ours => Err(Error::Replaced { path: shared.path.clone() }),
            _ => Ok(()),
        }
    }

    pub(crate) fn format(&self) -> RecordFormat {
        self.format
    }

    pub(crate) fn storage_log(&self) -> u32 {
        self.map.load_u32(STORAGE_LOG)
    }

    pub(crate) fn segment_size(&self) -> u32 {
        self.map.load_u32(SEGMENT_SIZE)
    }

    pub(crate) fn safety(&self) -> Safety {
        Safety::from_u32(self.map.load_u32(SAFETY)).unwrap_or_default()
    }

    /// Takes the guard through which writers see each other, exclusively or shared; waits briefly
    /// for it if `wait` is set.
    pub(crate) fn guard(&self, shared: &Shared, exclusive: bool, wait: bool) -> Result<Option<Guarded>> {
        let taken = if wait {
            Guarded::take_soon(&*shared.storage, &self.file, exclusive)
        } else {
            self.file.try_guard(exclusive).map(|taken| taken.then(|| Guarded::new(Arc::clone(&self.file))))
        };
        taken.map_err(|e| Error::io("lock", &self.path, e))
    }

    fn changed(&self) -> Result<()> {
        if self.safety() == Safety::Safe {
            self.map.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        }
        Ok(())
    }

    /// Under the metastore's lock, makes `next` the segment being written if `from` still is.
    /// `create` makes the new segment first, so that the metastore never names a segment that does
    /// not exist.
    pub(crate) fn advance(&self, from: u32, create: impl FnOnce(u32) -> Result<()>) -> Result<()> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        if self.storage_log() != from {
            return Ok(());
        }
        let next = from.checked_add(1).ok_or_else(|| Error::OutOfSegments {
            path: self.path.parent().map(PathBuf::from).unwrap_or_default(),
        })?;
        create(next)?;
        self.map.store_u32(STORAGE_LOG, next);
        self.changed()
    }

    /// Runs something under the metastore's lock, if this is still the segment being written.
    pub(crate) fn while_it_is(&self, number: u32, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        if self.storage_log() == number { work() } else { Ok(()) }
    }

    /// Sets the number of the segment being written, if it is still `from`; returns whether it was.
    pub(crate) fn set_storage_log(&self, from: u32, to: u32) -> Result<bool> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        let still = self.storage_log() == from;
        if still {
            self.map.store_u32(STORAGE_LOG, to);
            self.changed()?;
        }
        Ok(still)
    }

    pub(crate) fn set_segment_size(&self, size: u32) -> Result<()> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        self.map.store_u32(SEGMENT_SIZE, size);
        self.changed()
    }

    pub(crate) fn set_safety(&self, safety: Safety) -> Result<()> {
        let _lock = LockGuard::new(&*self.file).map_err(|e| Error::io("lock", &self.path, e))?;
        self.map.store_u32(SAFETY, safety.to_u32());
        self.changed()
    }

    /// Makes the metastore durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.map.sync().map_err(|e| Error::io("sync", &self.path, e))
    }
}

/// The fault of a metastore, for repair; `None` if it is sound.
pub(crate) fn fault(shared: &Shared) -> Result<Option<MetaFault>> {
    let file = shared.open(names::METASTORE, Open::Read)?;
    let bytes =
        read_all(&*file, METASTORE_LEN).map_err(|e| Error::io("read", shared.at(names::METASTORE), e))?;
    Ok(Meta::decode(&bytes).err())
}
