//! A file system that a test controls. It passes every call on to the real one, unless a rule makes
//! the call fail or transfer fewer bytes than requested.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::storage::{Facts, File, Map, Open, Posix, Storage, Watch};

/// A call that is about to be passed on. Paths are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// A file is opened, or created.
    Open(&'a Path, Open),
    /// Bytes of a file are read.
    #[allow(missing_docs)]
    Read { path: &'a Path, offset: u64, len: usize },
    /// Bytes of a file are written.
    #[allow(missing_docs)]
    Write { path: &'a Path, offset: u64, len: usize, file_len: u64 },
    /// A write has been passed on and is about to return.
    #[allow(missing_docs)]
    Wrote { path: &'a Path },
    /// A file is cut or extended.
    #[allow(missing_docs)]
    SetLen { path: &'a Path, to: u64 },
    /// Space is reserved for a file.
    #[allow(missing_docs)]
    Allocate { path: &'a Path, to: u64, file_len: u64 },
    /// A file is synced.
    Sync(&'a Path),
    /// A file is locked.
    Lock(&'a Path),
    /// A directory is synced.
    SyncDir(&'a Path),
    /// A directory is created.
    Create(&'a Path),
    /// A file is removed.
    Remove(&'a Path),
    /// A file is renamed.
    #[allow(missing_docs)]
    Rename { from: &'a Path, to: &'a Path },
    /// A file gets a second name.
    #[allow(missing_docs)]
    Link { from: &'a Path, to: &'a Path },
    // Reported only to a rule for every call.
    /// Facts about a path, or of an open file.
    Facts(&'a Path),
    /// A directory is listed.
    List(&'a Path),
    /// A file is mapped.
    Map(&'a Path),
    /// A mapping is protected against a file that is cut.
    Guard(&'a Path),
    /// That protection ends.
    ReleaseGuard(&'a Path),
    /// A lock is released.
    Unlock(&'a Path),
    /// The free space of a file system is asked for.
    Space(&'a Path),
    /// Changes of a directory are watched.
    Watch(&'a Path),
}

impl Op<'_> {
    /// The path of the file that the call changes or reads.
    pub fn path(&self) -> &Path {
        match self {
            Op::Open(path, _)
            | Op::Sync(path)
            | Op::Lock(path)
            | Op::SyncDir(path)
            | Op::Create(path)
            | Op::Remove(path)
            | Op::Read { path, .. }
            | Op::Write { path, .. }
            | Op::Wrote { path }
            | Op::SetLen { path, .. }
            | Op::Allocate { path, .. }
            | Op::Facts(path)
            | Op::List(path)
            | Op::Map(path)
            | Op::Guard(path)
            | Op::ReleaseGuard(path)
            | Op::Unlock(path)
            | Op::Space(path)
            | Op::Watch(path) => path,
            Op::Rename { to, .. } | Op::Link { to, .. } => to,
        }
    }

    /// The name of that file, without its directory.
    pub fn name(&self) -> &str {
        self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether the call is about a segment: a name of 8 hex digits.
    pub fn is_segment(&self) -> bool {
        let name = self.name();
        name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// Whether the call changes anything on the disk.
    pub fn changes(&self) -> bool {
        match self {
            Op::Open(_, how) => *how != Open::Read,
            Op::Write { .. }
            | Op::SetLen { .. }
            | Op::Allocate { .. }
            | Op::Create(_)
            | Op::Remove(_)
            | Op::Rename { .. }
            | Op::Link { .. } => true,
            _ => false,
        }
    }

    /// Whether the call needs room on the disk that it does not have yet.
    pub fn needs_room(&self) -> bool {
        match *self {
            Op::Open(path, Open::Create(_)) => !path.exists(),
            Op::Open(_, Open::CreateNew(_)) | Op::Create(_) | Op::Link { .. } => true,
            Op::Write { offset, len, file_len, .. } => offset + len as u64 > file_len,
            Op::Allocate { to, file_len, .. } => to > file_len,
            _ => false,
        }
    }
}

/// The effect of a rule on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on.
    Proceed,
    /// A read or write moves at most this many bytes.
    AtMost(usize),
    /// It fails, and does nothing.
    Fail(io::ErrorKind),
    /// The same, with this error number of the system.
    FailWith(i32),
    /// It reports success, and does nothing (for syncs).
    Pretend,
}

type Rule = Arc<dyn Fn(Op<'_>) -> Fate + Send + Sync>;

/// The real file system under a rule.
#[derive(Clone)]
pub struct Faulty {
    rule: Rule,
    /// Whether the rule gets every call.
    every: bool,
}

impl Faulty {
    /// A file system under this rule, as [`jlog_core::JlogOptions::storage`] takes it.
    pub fn storage(rule: impl Fn(Op<'_>) -> Fate + Send + Sync + 'static) -> Arc<dyn Storage> {
        Arc::new(Self { rule: Arc::new(rule), every: false })
    }

    /// The same, with a rule that gets every call, including those that change nothing. (Accesses
    /// to mapped bytes are not reported.)
    pub fn every_call(rule: impl Fn(Op<'_>) -> Fate + Send + Sync + 'static) -> Arc<dyn Storage> {
        Arc::new(Self { rule: Arc::new(rule), every: true })
    }

    /// A file system that cannot be written to.
    pub fn read_only() -> Arc<dyn Storage> {
        Self::storage(|op| match op.changes() {
            true => Fate::Fail(io::ErrorKind::ReadOnlyFilesystem),
            false => Fate::Proceed,
        })
    }

    fn decide(&self, op: Op<'_>) -> io::Result<Fate> {
        match (self.rule)(op) {
            Fate::Fail(kind) => Err(kind.into()),
            Fate::FailWith(number) => Err(io::Error::from_raw_os_error(number)),
            fate => Ok(fate),
        }
    }

    fn look(&self, op: Op<'_>) -> io::Result<()> {
        if self.every { self.decide(op).map(|_| ()) } else { Ok(()) }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl Storage for Faulty {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.decide(Op::Open(path, how))?;
        let inner = Posix.open(path, how)?;
        Ok(Arc::new(FaultyFile { inner, path: path.to_owned(), faulty: self.clone() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.look(Op::List(dir))?;
        Posix.list(dir)
    }

    fn facts(&self, path: &Path) -> io::Result<Facts> {
        self.look(Op::Facts(path))?;
        Posix.facts(path)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.decide(Op::Create(path))?;
        Posix.create_dir(path, mode)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.decide(Op::Remove(path))?;
        Posix.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.decide(Op::Remove(path))?;
        Posix.remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.decide(Op::Rename { from, to })?;
        Posix.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.decide(Op::Link { from, to })?;
        Posix.link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.decide(Op::SyncDir(dir))? {
            Fate::Pretend => Ok(()),
            _ => Posix.sync_dir(dir),
        }
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        self.look(Op::Space(dir))?;
        Posix.available_space(dir)
    }

    fn boot_id(&self) -> u64 {
        Posix.boot_id()
    }

    fn watch(&self, dir: &Path) -> io::Result<Box<dyn Watch>> {
        self.look(Op::Watch(dir))?;
        Posix.watch(dir)
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    faulty: Faulty,
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = match self.faulty.decide(Op::Read { path: &self.path, offset, len: buf.len() })? {
            Fate::AtMost(n) => n.min(buf.len()),
            _ => buf.len(),
        };
        self.inner.read_at(&mut buf[..n], offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let op = Op::Write { path: &self.path, offset, len, file_len: self.inner.len()? };
        let written = match self.faulty.decide(op)? {
            Fate::AtMost(n) if n < len => {
                let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(n).collect();
                self.inner.write_at(&[IoSlice::new(&bytes)], offset)
            }
            _ => self.inner.write_at(bufs, offset),
        };
        self.faulty.decide(Op::Wrote { path: &self.path })?;
        written
    }

    fn links_when_opened(&self) -> u64 {
        self.inner.links_when_opened()
    }

    fn facts(&self) -> io::Result<Facts> {
        self.faulty.look(Op::Facts(&self.path))?;
        self.inner.facts()
    }

    fn set_len(&self, to: u64) -> io::Result<()> {
        self.faulty.decide(Op::SetLen { path: &self.path, to })?;
        self.inner.set_len(to)
    }

    fn allocate(&self, to: u64) -> io::Result<()> {
        self.faulty.decide(Op::Allocate { path: &self.path, to, file_len: self.inner.len()? })?;
        self.inner.allocate(to)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.faulty.decide(Op::Sync(&self.path))? {
            Fate::Pretend => Ok(()),
            _ => self.inner.sync_data(),
        }
    }

    fn lock(&self) -> io::Result<()> {
        self.faulty.decide(Op::Lock(&self.path))?;
        self.inner.lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.faulty.look(Op::Unlock(&self.path))?;
        self.inner.unlock()
    }

    fn try_guard(&self, exclusive: bool) -> io::Result<bool> {
        self.faulty.look(Op::Guard(&self.path))?;
        self.inner.try_guard(exclusive)
    }

    fn try_lease(&self) -> io::Result<bool> {
        self.inner.try_lease()
    }

    fn release_lease(&self) -> io::Result<()> {
        self.inner.release_lease()
    }

    fn release_guard(&self) -> io::Result<()> {
        self.faulty.look(Op::ReleaseGuard(&self.path))?;
        self.inner.release_guard()
    }

    fn map(&self, len: usize) -> io::Result<Map> {
        self.faulty.look(Op::Map(&self.path))?;
        self.inner.map(len)
    }
}
