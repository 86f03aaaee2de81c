//! Files that are rotated by size and time, and removed by age and number.

mod access;
mod compress;
mod compressor;
mod error;
mod keeper;
mod names;
mod period;
mod rename;
mod retention;
mod rotation;
mod template;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, IsTerminal, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

pub use access::Access;
use access::Ids;
pub(crate) use access::{directory, place, resolve};
use compressor::Job;
pub(crate) use compressor::wait as wait_for_compression;
pub use error::RotationError;
use keeper::Keeper;
use names::Names;
use period::{Pair, Period, Periods, Watch};
use rename::rename_to_new;
use retention::{InUse, Reasons};
pub use rotation::{Compression, RotateAt, RotatedName, Rotation, Zone};

use super::torn::Torn;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::fork;
use crate::patience;
use crate::sync::plain::Mutex;

/// How often to check whether the path still names the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to look for files that are too old while nothing is written.
const CULL_EVERY: Duration = Duration::from_secs(60);
/// How many rotated files may wait to be made durable by a flush.
const MAX_BEHIND: usize = 8;

/// How often, a millisecond each time, this process waits for another one that rotates in the same
/// directory before it continues without the lock.
const MAX_TURNS: u32 = 100;

/// The files that this process has opened, for rotation at its start.
static STARTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The clocks, so that tests can have their own.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Seconds since 1970.
    wall: fn() -> u64,
    /// Seconds since the machine started, including those during which it slept.
    steady: fn() -> u64,
}

impl Clock {
    const REAL: Self = Self { wall: now, steady };

    fn both(self) -> Pair {
        Pair { wall: (self.wall)(), steady: (self.steady)() }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn steady() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    time.map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0))
}

/// Appends lines to a file, and rotates it. `type="file"` gives a stream one; `examples/rotated.rs`
/// shows it.
#[derive(Debug)]
pub struct FileSink {
    /// Absolute: the process may change its directory.
    path: PathBuf,
    /// Rotate with the line that reaches this many bytes, or never.
    bytes: u64,
    periods: Periods,
    keeper: Arc<Keeper>,
    first: Ids,
    asynchronous: bool,
    clock: Clock,
    files: Mutex<Files>,
    /// Bytes in the file, readable without waiting for a write.
    size: AtomicU64,
    /// How often this process has rotated the file.
    rotations: AtomicU64,
    /// A symbolic link that names the file being written.
    latest: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Files {
    current: Option<Current>,
    /// Earlier files that are not known to be durable, oldest first.
    behind: Vec<File>,
    /// Why one of them could not be made durable, until this is taken.
    failed: Option<io::Error>,
    /// The directory has names that are not known to be durable.
    renamed: bool,
    /// A failure to rename, link or remove files that lost no line, until this is taken.
    trouble: Option<io::Error>,
    /// When the sink last looked for files that are too old while nothing was written.
    culled: Option<Instant>,
    /// The number, or the second, in the name of the last rotated file: later files have higher
    /// ones.
    last_number: u64,
    /// The name of the last rotated file without its number, if names have times.
    last_base: OsString,
    /// The latest time that the clock has shown at a rotation.
    latest_clock: u64,
}

#[derive(Debug)]
struct Current {
    /// Dropped before the file is closed, because another file may get its inode then.
    _in_use: InUse,
    file: File,
    /// Where the path led when it was opened: rotation renames this, and not a link to it.
    target: PathBuf,
    names: Arc<Names>,
    identity: (u64, u64),
    /// Whether this is a regular file: others (a FIFO, a device) are neither rotated nor truncated.
    regular: bool,
    torn: Torn,
    len: u64,
    /// Whether there are lines that are not known to be durable.
    dirty: bool,
    /// The period of its lines.
    period: Period,
    /// When the sink last checked that the path still names this file; `None` if it must check
    /// before the next line.
    looked: Option<Instant>,
    /// When a rotation last failed: it is tried again after a while.
    retry: Option<Instant>,
}

impl Current {
    fn is_to_be_looked_at(&self) -> bool {
        self.looked.is_none_or(|last| last.elapsed() >= LOOK_EVERY)
    }
}

impl FileSink {
    /// Opens the file, creating it if missing. With `asynchronous`, the sink may get a queue. A
    /// relative path is relative to the current working directory, even if the process changes it
    /// later.
    ///
    /// # Errors
    /// What the system says; the text names the path.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation, asynchronous: bool) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, &Access::default(), asynchronous, Clock::REAL)
    }

    /// The same, with the access of a new file.
    ///
    /// # Errors
    /// There is no such user or group, or what the system says; the text names the path.
    pub fn open_with_access(
        path: impl Into<PathBuf>,
        rotation: Rotation,
        access: &Access,
        asynchronous: bool,
    ) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, access, asynchronous, Clock::REAL)
    }

    /// How often this process has rotated the file.
    pub(crate) fn rotations(&self) -> u64 {
        self.rotations.load(Relaxed)
    }

    /// Files whose names look like those of rotated files of a log, but that its rotation cannot
    /// have made: retention leaves them alone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn left_alone(path: &Path, rotation: &Rotation) -> io::Result<Vec<PathBuf>> {
        let rotation = Rotation { zone: Zone::UTC, ..rotation.clone() };
        let names = Names::new(&rotation, &resolve(&std::path::absolute(path)?));
        Ok(retention::find(&names, now())?.left_alone)
    }

    /// Maintains a symbolic link with this name to the file being written.
    ///
    /// # Errors
    /// The link cannot be made, or the log itself or something else has this name; the text names
    /// it.
    pub fn with_latest(mut self, link: impl Into<PathBuf>) -> io::Result<Self> {
        let link = std::path::absolute(link.into())?;
        // A log that is itself a link would become a link to itself.
        if place(&link) == place(&self.path) {
            let why = format!("{}: the log itself has this name", link.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        self.latest = Some(link);
        self.link_latest()?;
        Ok(self)
    }

    fn link_latest(&self) -> io::Result<()> {
        let Some(link) = &self.latest else { return Ok(()) };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", link.display()));
        let same_directory = directory(link).canonicalize().ok() == directory(&self.path).canonicalize().ok();
        let target = match self.path.file_name().filter(|_| same_directory) {
            Some(name) => PathBuf::from(name),
            None => self.path.canonicalize().map_err(|e| self.named(e))?,
        };
        match std::fs::read_link(link) {
            Ok(there) if there == target => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                let why = "there is something other than a symbolic link";
                return Err(named(io::Error::new(io::ErrorKind::AlreadyExists, why)));
            }
            _ => {}
        }
        // Replaced in one step, so that the name always exists.
        let mut fresh = link.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let made = std::os::unix::fs::symlink(target, &fresh).and_then(|()| std::fs::rename(&fresh, link));
        made.map_err(|e| {
            // It may not exist.
            let _ = std::fs::remove_file(&fresh);
            named(e)
        })
    }

    fn open_with(
        path: PathBuf,
        rotation: Rotation,
        access: &Access,
        asynchronous: bool,
        clock: Clock,
    ) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        if let Some(method) = rotation.compress.filter(|method| !method.available()) {
            return Err(named(compress::unavailable(method)));
        }
        let first = access.look_up().map_err(named)?;
        let path = std::path::absolute(&path).map_err(named)?;
        let sink = Self {
            path,
            bytes: rotation.bytes,
            periods: Periods::new(&rotation),
            keeper: Arc::new(Keeper::new(rotation, clock.both())),
            first,
            asynchronous,
            clock,
            files: Mutex::default(),
            size: AtomicU64::new(0),
            rotations: AtomicU64::new(0),
            latest: None,
        };
        {
            let files = &mut *sink.files.lock();
            let target = resolve(&sink.path);
            let now = (sink.clock.wall)();
            let names = Names::new(&sink.keeper.rotation, &target);
            let found = retention::find(&names, now).unwrap_or_default();
            compress::discard(&found.parts);
            finish_rotation(&target, &found);
            files.last_number = found.highest(&names, now);
            files.latest_clock = now;
            // If a process ended in the middle of a rotation, there is no current file whose access
            // to copy.
            let before = found.rotated.first().and_then(|newest| newest.path.metadata().ok());
            sink.open_again(files, before.as_ref()).map_err(|e| {
                let dir = directory(&target);
                if e.kind() != io::ErrorKind::NotFound || dir.is_dir() {
                    return e;
                }
                let why = format!("{e}: create the directory {}, or set make_dirs", dir.display());
                io::Error::new(e.kind(), why)
            })?;
            if let Some(current) = &mut files.current {
                // Before its first line, others may rotate it: the sink that this one replaces, or
                // another process.
                current.looked = None;
            }
            sink.order_compression(files);
        }
        Ok(sink)
    }

    /// Orders the compression of rotated files, if it is configured.
    fn order_compression(&self, files: &mut Files) {
        let Some(current) = files.current.as_ref().filter(|_| self.keeper.rotation.compress.is_some()) else {
            return;
        };
        let now = self.clock.both();
        let believed = self.keeper.believes(now);
        let job = Job {
            keeper: Arc::clone(&self.keeper),
            names: Arc::clone(&current.names),
            now: now.wall,
            believed,
        };
        if let Err(e) = compressor::order(job) {
            let why = format!("{}: rotated files cannot be compressed: {e}", self.path.display());
            files.trouble = Some(io::Error::new(e.kind(), why));
            self.keeper.kept.lock().left = Some(Instant::now());
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    fn open_current(&self, before: Option<&Metadata>, known: Option<&Arc<Names>>) -> io::Result<Current> {
        let open = || -> io::Result<Current> {
            let target = resolve(&self.path);
            let file = self.open_file(&target, before)?;
            let facts = file.metadata()?;
            let now = (self.clock.wall)();
            let begun =
                if facts.len() > 0 { u64::try_from(facts.mtime()).unwrap_or(0).min(now) } else { now };
            let names = match known.filter(|names| names.log() == target) {
                Some(names) => Arc::clone(names),
                None => Arc::new(Names::new(&self.keeper.rotation, &target)),
            };
            Ok(Current {
                target,
                names,
                identity: (facts.dev(), facts.ino()),
                _in_use: InUse::new(&facts),
                regular: facts.is_file(),
                torn: Torn::default(),
                len: facts.len(),
                dirty: false,
                period: self.periods.of(begun),
                looked: Some(Instant::now()),
                retry: None,
                file,
            })
        };
        open().map_err(|e| self.named(e))
    }

    /// Opens the file. If rotated files are compressed, locks it, so that no process compresses it
    /// while this one writes to it.
    fn open_file(&self, target: &Path, before: Option<&Metadata>) -> io::Result<File> {
        let mut file = access::open(target, before, self.first)?;
        if self.keeper.rotation.compress.is_none() {
            return Ok(file);
        }
        for _ in 0..MAX_TURNS {
            let facts = file.metadata()?;
            // If files cannot be locked, none is compressed. A lock that others hold on the log
            // itself means nothing.
            let _ = file.try_lock_shared();
            match target.metadata() {
                Ok(there) if (there.dev(), there.ino()) == (facts.dev(), facts.ino()) => break,
                // It was rotated between these steps, and a process may be compressing it.
                _ => file = access::open(target, before, self.first)?,
            }
        }
        Ok(file)
    }

    /// Opens the path again. A new file gets the access of the file that was open or, if there was
    /// none, of `before`.
    fn open_again(&self, files: &mut Files, before: Option<&Metadata>) -> io::Result<()> {
        let was = files.current.as_ref().and_then(|current| current.file.metadata().ok());
        let known = files.current.as_ref().map(|current| &current.names);
        let fresh = self.open_current(was.as_ref().or(before), known)?;
        self.size.store(fresh.len, Relaxed);
        files.renamed = true;
        if let Some(old) = files.current.replace(fresh) {
            if self.keeper.rotation.compress.is_some() {
                // It may stay open, here and in a forked child, but nothing more is written to it.
                let _ = old.file.unlock();
            }
            if old.regular && old.dirty {
                files.behind.push(old.file);
            }
        }
        if files.behind.len() > MAX_BEHIND {
            let oldest = files.behind.remove(0);
            files.failed = oldest.sync_data().err().or(files.failed.take());
        }
        // If the link cannot be made now, it is made the next time.
        files.trouble = self.link_latest().err().or(files.trouble.take());
        Ok(())
    }

    /// The open file, or a new one if it was moved away or removed.
    fn current<'a>(&self, files: &'a mut Files) -> io::Result<&'a mut Current> {
        let gone = match &files.current {
            Some(current) => current.is_to_be_looked_at() && self.identity() != Some(current.identity),
            None => true,
        };
        if gone && let Err(e) = self.open_again(files, None) {
            // The open file takes lines until a new one can be made, if it still has a name.
            let named = |current: &Current| current.file.metadata().is_ok_and(|facts| facts.nlink() > 0);
            if !files.current.as_ref().is_some_and(named) {
                return Err(e);
            }
        }
        match &mut files.current {
            Some(current) => {
                if current.is_to_be_looked_at() {
                    current.looked = Some(Instant::now());
                    // It may have been truncated.
                    current.len = current.file.metadata().map_or(current.len, |facts| facts.len());
                    self.size.store(current.len, Relaxed);
                }
                Ok(current)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        let facts = std::fs::metadata(&self.path).ok()?;
        Some((facts.dev(), facts.ino()))
    }

    /// Renames the file to the next name for rotated files, and begins a new one.
    fn rotate_locked(&self, files: &mut Files) -> io::Result<()> {
        let Some(current) = files.current.as_ref().filter(|current| current.regular) else { return Ok(()) };
        let (names, period) = (Arc::clone(&current.names), current.period);
        let turn = Turn::take(directory(&current.target));
        let there = self.identity();
        if there.is_some() && there != Some(current.identity) {
            // Another process has rotated it: the path now names a different file.
            return self.open_again(files, None);
        }
        let now = (self.clock.wall)();
        if !retention::plausible(files.latest_clock, now) {
            // The clock was wrong and has been corrected: names need not continue from there.
            if names.are_seconds() {
                files.last_number = 0;
            }
            files.latest_clock = now;
        }
        files.latest_clock = files.latest_clock.max(now);
        let used_up = || io::Error::other(format!("{}: all numbers are used up", self.path.display()));
        if names.are_seconds() {
            let mut second = now.max(files.last_number.saturating_add(1));
            second = second.clamp(*names::SECONDS.start(), *names::SECONDS.end());
            // Two rotations in one second must not overwrite each other's files.
            while !self.rename_unless_taken(files, &names, &names.path(&names.base(second), 0))? {
                second = second.saturating_add(1);
            }
            files.last_number = second;
        } else {
            // The lines are from a period that is over, or from the one that the clock shows.
            let base = names.base(now.clamp(period.start, period.end - 1));
            // Other processes may have used higher numbers, and lower ones may be free again.
            let found = retention::find(&names, now).unwrap_or_default();
            let mut last = match names.parse(&base) {
                Some(parsed) => found.highest_of(parsed.from),
                None => Some(found.highest(&names, now)),
            };
            if names.are_numbers() || base == files.last_base {
                last = last.max(Some(files.last_number));
            }
            let mut number = last.map_or(Some(0), Names::next_number).ok_or_else(used_up)?;
            while !self.rename_unless_taken(files, &names, &names.path(&base, number))? {
                number = Names::next_number(number).ok_or_else(used_up)?;
            }
            (files.last_number, files.last_base) = (number, base);
        }
        drop(turn);
        self.rotations.fetch_add(1, Relaxed);
        // If an expired file cannot be removed now, it stays until the next time.
        files.trouble = self.apply_retention(files, false).err().or(files.trouble.take());
        self.order_compression(files);
        Ok(())
    }

    fn rename_unless_taken(&self, files: &mut Files, names: &Names, to: &Path) -> io::Result<bool> {
        Ok(!names.is_taken(to) && self.rename_locked(files, |_| to.to_owned())?)
    }

    /// Whether the period of the file's lines is over.
    #[cold]
    fn period_is_over(&self, current: &mut Current) -> bool {
        let now = self.clock.both();
        if !self.keeper.believes(now) {
            return false;
        }
        if current.period.contains(now.wall) {
            return false;
        }
        if Watch::is_ahead(current.period.start, now.wall) {
            // The clock was wrong when the file was begun.
            current.period = self.periods.of(now.wall);
        }
        // A clock that was put back a little will reach the file's period again.
        now.wall >= current.period.end
    }

    /// Rotates the file if it is full or its period is over.
    fn rotate_if_due(&self, files: &mut Files) -> io::Result<()> {
        let current = self.current(files)?;
        let full = self.bytes > 0 && current.len >= self.bytes;
        if !full && current.period.contains((self.clock.wall)()) {
            return Ok(());
        }
        self.look_closer(files)
    }

    /// The same for a file that seems to be full or from another period.
    #[cold]
    fn look_closer(&self, files: &mut Files) -> io::Result<()> {
        let due = |files: &mut Files| -> io::Result<bool> {
            let current = self.current(files)?;
            let now = (self.clock.wall)();
            let outside = !current.period.contains(now);
            if outside && current.len == 0 {
                current.period = self.periods.of(now);
            }
            let tried = current.retry.is_some_and(|last| last.elapsed() < LOOK_EVERY);
            if current.len == 0 || !current.regular || tried {
                return Ok(false);
            }
            Ok((self.bytes > 0 && current.len >= self.bytes) || (outside && self.period_is_over(current)))
        };
        if !due(files)? {
            return Ok(());
        }
        // Another process may have rotated it: its new file must not be rotated for the size of
        // ours.
        if self.identity() != files.current.as_ref().map(|current| current.identity) {
            // The open file takes lines until a new one can be opened.
            if self.open_again(files, None).is_err() || !due(files)? {
                return Ok(());
            }
        }
        if let Err(e) = self.rotate_locked(files) {
            let why = format!("{e}: {} cannot be rotated, and keeps growing", self.path.display());
            files.trouble = Some(io::Error::new(e.kind(), why));
            if let Some(current) = &mut files.current {
                current.retry = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Renames the file and begins a new one. Returns `false` if the name is taken.
    fn rename_locked(&self, files: &mut Files, name: impl FnOnce(&Path) -> PathBuf) -> io::Result<bool> {
        let Some(current) = files.current.as_ref().filter(|current| current.regular) else {
            return Ok(true);
        };
        let to = name(&current.target);
        match rename_to_new(&current.target, &to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            // It was moved or removed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.identity().is_none() => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", to.display()))),
            Ok(()) => {}
        }
        self.open_again(files, None)?;
        Ok(true)
    }

    /// Removes the rotated files that retention does not keep. With `all`, the limit in bytes also
    /// applies to files that may be compressed soon.
    fn apply_retention(&self, files: &mut Files, all: bool) -> io::Result<usize> {
        let Some(current) = &files.current else { return Ok(0) };
        let now = self.clock.both();
        let by_age = self.keeper.rotation.retain_seconds > 0;
        let bytes = all || self.keeper.rotation.compress.is_none();
        let reasons = Reasons { age: by_age && self.keeper.believes(now), bytes };
        self.keeper.remove_expired(&current.names, now.wall, reasons)
    }

    /// How many of the lines fit into the file before it is rotated.
    fn fitting(&self, len: u64, lines: Lines<'_>) -> usize {
        if self.bytes == 0 || len >= self.bytes {
            return lines.len();
        }
        let before = lines.ends.partition_point(|&(end, _)| len + ((end - lines.start) as u64) < self.bytes);
        // Including the line that reaches the limit.
        (before + 1).min(lines.len())
    }
}

/// The directory of a log's rotated files, if they are not in the log's own.
pub(super) fn rotated_directory(path: &Path, rotation: &Rotation) -> Option<PathBuf> {
    let below = rotation.name.directory()?;
    let log = resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    Some(directory(&log).join(below))
}

/// A path that a rotated file of a log can have. It is the same for logs whose rotated files have
/// the same names.
pub(crate) fn name_of_rotated(path: &Path, rotation: &Rotation) -> PathBuf {
    let rotation = Rotation { zone: Zone::UTC, ..rotation.clone() };
    let names =
        Names::new(&rotation, &resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned())));
    names.path(&names.base(*names::SECONDS.start()), 1)
}

/// Removes the log's name from a file that also has a name for a rotated one: a crash interrupted
/// the rotation between the two steps of `link_to_new`.
fn finish_rotation(target: &Path, found: &retention::Found) {
    let identity =
        |path: &Path| path.symlink_metadata().ok().map(|facts| (facts.dev(), facts.ino(), facts.nlink()));
    let Some((dev, ino, links)) = identity(target).filter(|(_, _, links)| *links > 1) else { return };
    if found.rotated.iter().any(|file| identity(&file.path) == Some((dev, ino, links))) {
        // The rotated file keeps the lines. If this fails, new lines are added to them.
        let _ = std::fs::remove_file(target);
    }
}

/// While this lives, other processes that rotate a file in the directory wait.
struct Turn(Option<File>);

impl Turn {
    fn take(directory: &Path) -> Self {
        // If the directory cannot be locked, or a process does not release the lock, the file is
        // rotated without it.
        let Ok(lock) = File::open(directory) else { return Self(None) };
        for _ in 0..MAX_TURNS {
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
        }
        Self(Some(lock))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lock) = &self.0 {
            // Closing it is not enough: a child that was forked meanwhile has it open, too.
            let _ = lock.unlock();
        }
    }
}

impl Sink for FileSink {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let mut files = self.files.lock();
        let mut rest = *lines;
        let mut written = 0;
        while !rest.is_empty() {
            let fail = |error| WriteError { written, error };
            self.rotate_if_due(&mut files).map_err(fail)?;
            let current = self.current(&mut files).map_err(fail)?;
            current.dirty = true;
            let (now, later) = rest.split(self.fitting(current.len, rest));
            if !current.regular {
                current.torn.write(&current.file, &now).map_err(|WriteError { written: there, error }| {
                    WriteError { written: written + there, error: self.named(error) }
                })?;
                (written, rest) = (written + now.len(), later);
                continue;
            }
            if let Err((done, error)) = patience::write_all(&current.file, now.bytes()) {
                let (whole, keep) = now.whole_within(done);
                current.len += done as u64;
                // Remove a partial line, unless something was written after it.
                let part = (done - keep) as u64;
                let end = current.file.stream_position();
                if part > 0
                    && current.regular
                    && let (Ok(end), Ok(facts)) = (end, current.file.metadata())
                    && end == facts.len()
                    && current.file.set_len(end - part).is_ok()
                {
                    current.len -= part;
                }
                self.size.store(current.len, Relaxed);
                return Err(WriteError { written: written + whole, error: self.named(error) });
            }
            current.len += now.bytes().len() as u64;
            self.size.store(current.len, Relaxed);
            written += now.len();
            rest = later;
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let rotation = &self.keeper.rotation;
        let needs_ticks = rotation.by_time() || rotation.retain_seconds > 0 || rotation.compress.is_some();
        let is_terminal = |current: &Current| !current.regular && current.file.is_terminal();
        Capabilities::default()
            .needs_times(false)
            .may_be_asynchronous(self.asynchronous)
            .needs_ticks(needs_ticks)
            .is_terminal(self.files.lock().current.as_ref().is_some_and(is_terminal))
    }

    fn begin(&self) -> io::Result<()> {
        let first = {
            let _inside = fork::enter();
            STARTED.lock().insert(self.path.clone())
        };
        if !first || !self.keeper.rotation.on_start {
            return Ok(());
        }
        let mut files = self.files.lock();
        if files.current.as_ref().is_some_and(|current| current.len > 0) {
            self.rotate_locked(&mut files)?;
        }
        Ok(())
    }

    fn tick(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let rotation = &self.keeper.rotation;
        // If the file was moved or removed, leave it: the next line begins a new one.
        let now = (self.clock.wall)();
        let over = |current: &Current| {
            current.len > 0 && !current.period.contains(now) && self.identity() == Some(current.identity)
        };
        if files.current.as_ref().is_some_and(over) {
            self.rotate_if_due(&mut files)?;
        }
        let due = files.culled.is_none_or(|last| last.elapsed() >= CULL_EVERY);
        if rotation.retain_seconds > 0 && due {
            files.culled = Some(Instant::now());
            self.apply_retention(&mut files, false)?;
        }
        let left = self.keeper.kept.lock().left;
        if left.is_some_and(|since| since.elapsed() >= CULL_EVERY) {
            self.order_compression(&mut files);
            self.apply_retention(&mut files, true)?;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<io::Error> {
        let trouble = self.files.lock().trouble.take();
        trouble.or_else(|| self.keeper.kept.lock().trouble.take())
    }

    fn flush(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let Files { current, behind, failed, renamed, .. } = &mut *files;
        if let Some(error) = failed.take() {
            return Err(self.named(error));
        }
        while let Some(file) = behind.first() {
            file.sync_data().map_err(|e| self.named(e))?;
            behind.remove(0);
        }
        let Some(current) = current.as_mut().filter(|current| current.regular) else { return Ok(()) };
        if current.dirty {
            current.file.sync_data().map_err(|e| self.named(e))?;
            current.dirty = false;
        }
        if *renamed {
            File::open(directory(&current.target))
                .and_then(|dir| dir.sync_all())
                .map_err(|e| self.named(e))?;
            *renamed = false;
        }
        Ok(())
    }

    fn reopen(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.current.as_ref().is_some_and(|current| self.identity() == Some(current.identity)) {
            return Ok(());
        }
        self.open_again(&mut files, None)
    }

    fn rotate(&self) -> io::Result<()> {
        self.rotate_locked(&mut self.files.lock())
    }

    fn rotate_to(&self, to: &Path) -> io::Result<()> {
        match self.rename_locked(&mut self.files.lock(), |_| to.to_owned())? {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", to.display())))
            }
        }
    }

    fn remove_expired(&self) -> io::Result<usize> {
        self.apply_retention(&mut self.files.lock(), true)
    }

    fn size(&self) -> Option<u64> {
        Some(self.size.load(Relaxed))
    }
}

#[cfg(test)]
mod tests;
