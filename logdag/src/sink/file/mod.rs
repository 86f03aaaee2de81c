//! Files, rotated by size and time, and removed when they are old or too many.

mod access;
mod retention;

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use access::Access;
use access::{Ids, directory, resolve};
use retention::{FirstSeen, InUse};

use super::{Lines, Sink, WriteError};
use crate::sync::plain::Mutex;

/// How often to check whether the path still names the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often to look for files that are too old while nothing is written.
const CULL_EVERY: Duration = Duration::from_secs(60);
/// How many rotated files may wait to be made durable by a flush.
const MAX_BEHIND: usize = 8;

/// When a file is rotated, and which rotated files are kept. 0 is never, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Rotate at multiples of this many seconds.
    pub seconds: u64,
    /// Rotate with the line that reaches this many bytes.
    pub bytes: u64,
    /// Remove files that were rotated longer ago than this many seconds.
    pub retain_seconds: u64,
    /// Remove the oldest files while all have more than this many bytes together.
    pub retain_bytes: u64,
    /// Keep at most this many files.
    pub retain_count: u64,
}

/// The clock, in seconds since 1970.
pub(crate) type Clock = fn() -> u64;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Appends lines to a file, and rotates it. Streams get one by `type="file"`; `examples/rotated.rs` shows it.
#[derive(Debug)]
pub struct FileSink {
    /// Absolute: the process may change its directory.
    path: PathBuf,
    rotation: Rotation,
    first: Ids,
    asynchronous: bool,
    clock: Clock,
    files: Mutex<Files>,
    /// Bytes in the file, readable without waiting for a write.
    size: AtomicU64,
    /// A symbolic link that names the file being written.
    latest: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Files {
    current: Option<Current>,
    /// What was written to before and is not known to be durable, oldest first.
    behind: Vec<File>,
    /// Why some of it could not be made durable, until that is taken.
    failed: Option<io::Error>,
    /// The directory has names that are not known to be durable.
    renamed: bool,
    /// What failed with names although lines were written, until that is taken.
    trouble: Option<io::Error>,
    /// When it last looked for files that are too old while nothing was written.
    culled: Option<Instant>,
    /// The second that the last rotated file has in its name: later ones have higher ones.
    last_second: u64,
    /// The latest time that the clock has shown at a rotation.
    latest_clock: u64,
    first_seen: FirstSeen,
}

#[derive(Debug)]
struct Current {
    file: File,
    /// Where the path led when it was opened: this is renamed, not a link to it.
    target: PathBuf,
    identity: (u64, u64),
    _in_use: InUse,
    /// Others (a FIFO, a device) are neither rotated nor cut.
    regular: bool,
    len: u64,
    /// There are lines that are not known to be durable.
    dirty: bool,
    /// Which period it was begun in.
    period: u64,
    looked: Instant,
    /// It could not be rotated: tried again after a while.
    retry: Option<Instant>,
}

impl FileSink {
    /// Opens the file, creating it if it is not there. With `asynchronous`, the sink may get a queue. A relative path is
    /// taken from the directory that the process is in now, whatever directory it changes to later.
    ///
    /// # Errors
    /// What the system says; the text names the path.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation, asynchronous: bool) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, &Access::default(), asynchronous, now)
    }

    /// The same, with the access that the file gets where there is none yet.
    ///
    /// # Errors
    /// There is no such user or group, or what the system says; the text names the path.
    pub fn open_with_access(
        path: impl Into<PathBuf>,
        rotation: Rotation,
        access: &Access,
        asynchronous: bool,
    ) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, access, asynchronous, now)
    }

    /// Files beside a log that have its name and a number behind it, but that its rotation cannot have made: retention
    /// leaves them alone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn left_alone(path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(retention::find(&resolve(&std::path::absolute(path)?), now())?.left_alone)
    }

    /// Keeps a symbolic link with this name that leads to the file being written.
    ///
    /// # Errors
    /// It cannot be made, or something else has this name; the text names it.
    pub fn with_latest(mut self, link: impl Into<PathBuf>) -> io::Result<Self> {
        self.latest = Some(std::path::absolute(link.into())?);
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
        // In one step, so that the name is always there.
        let mut fresh = link.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let made = std::os::unix::fs::symlink(target, &fresh).and_then(|()| std::fs::rename(&fresh, link));
        made.map_err(|e| {
            // It may never have been made.
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
        let first = access.look_up().map_err(named)?;
        let path = std::path::absolute(&path).map_err(named)?;
        let (files, size) = (Mutex::default(), AtomicU64::new(0));
        let sink = Self { path, rotation, first, asynchronous, clock, files, size, latest: None };
        {
            let files = &mut *sink.files.lock();
            let target = resolve(&sink.path);
            let now = (sink.clock)();
            let found = retention::find(&target, now).unwrap_or_default();
            files.last_second = found.newest_second(now);
            files.latest_clock = now;
            // A process that ended in the middle of a rotation has left no file that the next one could be like.
            let before = found.rotated.first().and_then(|newest| newest.path.metadata().ok());
            sink.begin(files, before.as_ref())?;
        }
        Ok(sink)
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    fn open_current(&self, before: Option<&Metadata>) -> io::Result<Current> {
        let open = || -> io::Result<Current> {
            let target = resolve(&self.path);
            let file = access::open(&target, before, self.first)?;
            let facts = file.metadata()?;
            let begun =
                if facts.len() > 0 { u64::try_from(facts.mtime()).unwrap_or(0) } else { (self.clock)() };
            Ok(Current {
                target,
                identity: (facts.dev(), facts.ino()),
                _in_use: InUse::new(&facts),
                regular: facts.is_file(),
                len: facts.len(),
                dirty: false,
                period: self.period(begun),
                looked: Instant::now(),
                retry: None,
                file,
            })
        };
        open().map_err(|e| self.named(e))
    }

    fn period(&self, seconds: u64) -> u64 {
        seconds.checked_div(self.rotation.seconds).unwrap_or(0)
    }

    /// Opens the path again, with the access of the file that was open, or of the one that it follows.
    fn begin(&self, files: &mut Files, before: Option<&Metadata>) -> io::Result<()> {
        let was = files.current.as_ref().and_then(|current| current.file.metadata().ok());
        let fresh = self.open_current(was.as_ref().or(before))?;
        self.size.store(fresh.len, Relaxed);
        files.renamed = true;
        if let Some(old) = files.current.replace(fresh)
            && old.regular
            && old.dirty
        {
            files.behind.push(old.file);
        }
        if files.behind.len() > MAX_BEHIND {
            let oldest = files.behind.remove(0);
            files.failed = oldest.sync_data().err().or(files.failed.take());
        }
        // It is made the next time, if it cannot be now.
        files.trouble = self.link_latest().err().or(files.trouble.take());
        Ok(())
    }

    /// The file that is open, or a new one where it was moved away or removed.
    fn current<'a>(&self, files: &'a mut Files) -> io::Result<&'a mut Current> {
        let gone = match &files.current {
            Some(current) => {
                current.looked.elapsed() >= LOOK_EVERY && self.identity() != Some(current.identity)
            }
            None => true,
        };
        if gone && let Err(e) = self.begin(files, None) {
            // The file that is open takes lines until a new one can be made, if it has a name.
            let named = |current: &Current| current.file.metadata().is_ok_and(|facts| facts.nlink() > 0);
            if !files.current.as_ref().is_some_and(named) {
                return Err(e);
            }
        }
        match &mut files.current {
            Some(current) => {
                if current.looked.elapsed() >= LOOK_EVERY {
                    current.looked = Instant::now();
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

    /// Renames the file to `path.<seconds>` and begins a new one.
    fn rotate_locked(&self, files: &mut Files) -> io::Result<()> {
        let now = (self.clock)();
        if !retention::plausible(files.latest_clock, now) {
            // The clock was wrong and was corrected: names need not continue from there.
            files.last_second = 0;
            files.latest_clock = now;
        }
        files.latest_clock = files.latest_clock.max(now);
        let mut second = now.max(files.last_second.saturating_add(1));
        second = second.clamp(*retention::OURS.start(), *retention::OURS.end());
        // Two in one second must not overwrite one another.
        while !self.rename_locked(files, |target| with_suffix(target, second))? {
            second = second.saturating_add(1);
        }
        files.last_second = second;
        // What is too old stays until the next time, if it cannot be removed now.
        files.trouble = self.remove_expired(files).err().or(files.trouble.take());
        Ok(())
    }

    /// Rotates the file if it is full or its period is over.
    fn rotate_if_due(&self, files: &mut Files) -> io::Result<()> {
        let due = |files: &mut Files| -> io::Result<bool> {
            let current = self.current(files)?;
            let period = self.period((self.clock)());
            if current.len == 0 {
                current.period = period;
            }
            let full = self.rotation.bytes > 0 && current.len >= self.rotation.bytes;
            let over = self.rotation.seconds > 0 && current.period != period;
            let tried = current.retry.is_some_and(|last| last.elapsed() < LOOK_EVERY);
            Ok((full || over) && current.len > 0 && current.regular && !tried)
        };
        if !due(files)? {
            return Ok(());
        }
        // Another process may have rotated it: its new file is not rotated for the size of ours.
        if self.identity() != files.current.as_ref().map(|current| current.identity) {
            // The file that is open takes lines until a new one can be opened.
            if self.begin(files, None).is_err() || !due(files)? {
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

    /// Gives the file another name and begins a new one; `false` where that name is taken.
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
        self.begin(files, None)?;
        Ok(true)
    }

    fn remove_expired(&self, files: &mut Files) -> io::Result<usize> {
        let Files { current: Some(current), first_seen, .. } = files else { return Ok(0) };
        retention::remove_expired(&current.target, &self.rotation, (self.clock)(), first_seen)
    }

    /// How many of the lines go into the file as it is.
    fn fitting(&self, len: u64, lines: Lines<'_>) -> usize {
        if self.rotation.bytes == 0 || len >= self.rotation.bytes {
            return lines.len();
        }
        let before =
            lines.ends.partition_point(|&(end, _)| len + ((end - lines.start) as u64) < self.rotation.bytes);
        // With the one that reaches the limit.
        (before + 1).min(lines.len())
    }
}

/// Appends bytes; where that fails, says how many of them are there.
fn write_all(mut file: &File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err((done, e)),
        }
    }
    Ok(())
}

/// Gives a file an unused name.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use nix::errno::Errno;
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // A kernel or a file system without that call.
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            done => return Ok(done?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)
}

fn with_suffix(path: &Path, second: u64) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{second}"));
    name.into()
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
            if let Err((done, error)) = write_all(&current.file, now.bytes()) {
                let whole = now.ends.partition_point(|&(end, _)| end - now.start <= done);
                let keep = whole.checked_sub(1).map_or(0, |last| now.ends[last].0 - now.start);
                current.len += done as u64;
                // No part of a line stays, unless something was written behind it.
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

    fn needs_times(&self) -> bool {
        false
    }

    fn may_be_asynchronous(&self) -> bool {
        self.asynchronous
    }

    fn needs_ticks(&self) -> bool {
        self.rotation.seconds > 0 || self.rotation.retain_seconds > 0
    }

    fn tick(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        // Where the file was moved or removed, the next line begins a new one.
        let period = self.period((self.clock)());
        let over = |current: &Current| {
            current.len > 0 && current.period != period && self.identity() == Some(current.identity)
        };
        if self.rotation.seconds > 0 && files.current.as_ref().is_some_and(over) {
            self.rotate_if_due(&mut files)?;
        }
        let due = files.culled.is_none_or(|last| last.elapsed() >= CULL_EVERY);
        if self.rotation.retain_seconds > 0 && due {
            files.culled = Some(Instant::now());
            self.remove_expired(&mut files)?;
        }
        Ok(())
    }

    fn trouble(&self) -> Option<io::Error> {
        self.files.lock().trouble.take()
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
        self.begin(&mut files, None)
    }

    fn rotate(&self) -> io::Result<()> {
        self.rotate_locked(&mut self.files.lock())
    }

    fn put_aside(&self, to: &Path) -> io::Result<()> {
        match self.rename_locked(&mut self.files.lock(), |_| to.to_owned())? {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", to.display())))
            }
        }
    }

    fn cull(&self) -> io::Result<usize> {
        self.remove_expired(&mut self.files.lock())
    }

    fn size(&self) -> Option<u64> {
        Some(self.size.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    /// Seconds in these tests are counted from here: a multiple of all periods, and in the range of names.
    const BASE: u64 = 1_699_999_800;

    fn clock() -> u64 {
        BASE + NOW.get()
    }

    fn open(dir: &tempfile::TempDir, rotation: Rotation) -> FileSink {
        FileSink::open_with(dir.path().join("log"), rotation, &Access::default(), false, clock).unwrap()
    }

    struct Setup {
        dir: tempfile::TempDir,
        sink: FileSink,
    }

    impl Setup {
        /// A sink at second 10,000.
        fn new(rotation: Rotation) -> Self {
            NOW.set(10_000);
            let dir = tempfile::tempdir().unwrap();
            Self { sink: open(&dir, rotation), dir }
        }

        fn write_at(&self, second: u64, text: &str) {
            NOW.set(second);
            let bytes = text.as_bytes();
            let ends: Vec<(usize, u64)> =
                memchr::memchr_iter(b'\n', bytes).map(|at| (at + 1, second * 1_000_000)).collect();
            self.sink.write(&Lines { bytes, ends: &ends, start: 0 }).unwrap();
        }

        /// Suffixes and texts, the current file last.
        fn files(&self) -> Vec<(String, String)> {
            let mut all: Vec<(String, String)> = fs::read_dir(self.dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| {
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    let suffix = name.strip_prefix("log").unwrap().trim_start_matches('.');
                    let second = suffix.parse().ok().and_then(|second: u64| second.checked_sub(BASE));
                    let suffix = second.map_or(suffix.to_owned(), |second| second.to_string());
                    (suffix, fs::read_to_string(&path).unwrap())
                })
                .collect();
            all.sort_by_key(|(suffix, _)| suffix.parse().unwrap_or(u64::MAX));
            all
        }

        fn assert_files(&self, expected: &[(&str, &str)]) {
            let files = self.files();
            let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
            assert_eq!(files, expected);
        }

        /// The path of the file that was rotated at a second.
        fn rotated(&self, second: u64) -> PathBuf {
            self.dir.path().join(format!("log.{}", BASE + second))
        }

        fn put(&self, second: u64, bytes: usize) {
            fs::write(self.rotated(second), "x".repeat(bytes)).unwrap();
        }

        fn suffixes(&self) -> Vec<String> {
            self.files().into_iter().map(|(suffix, _)| suffix).collect()
        }
    }

    #[test]
    fn a_period_ends_at_multiples_of_its_length() {
        let setup = Setup::new(Rotation { seconds: 600, ..Rotation::default() });
        for (second, text) in
            [(10_000, "a\n"), (10_199, "b\n"), (10_200, "c\n"), (10_799, "d\n"), (12_345, "e\nf\n")]
        {
            setup.write_at(second, text);
        }
        setup.assert_files(&[("10200", "a\nb\n"), ("12345", "c\nd\n"), ("", "e\nf\n")]);
    }

    #[test]
    fn an_older_file_is_put_aside_by_the_first_line() {
        NOW.set(10_000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "old\n").unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(BASE + 9_000);
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        let rotation = Rotation { seconds: 600, ..Rotation::default() };
        let setup = Setup { sink: open(&dir, rotation), dir };
        setup.write_at(10_001, "new\n");
        setup.assert_files(&[("10001", "old\n"), ("", "new\n")]);
    }

    #[test]
    fn the_line_that_reaches_the_limit_is_the_last_one() {
        let setup = Setup::new(Rotation { bytes: 6, ..Rotation::default() });
        setup.write_at(10_000, "12\n45\n");
        setup.assert_files(&[("", "12\n45\n")]);
        setup.write_at(10_001, "1\n3\n5\n7\n9\n");
        setup.write_at(10_002, "longer than the limit\nx\n");
        setup.assert_files(&[
            ("10001", "12\n45\n"),
            ("10002", "1\n3\n5\n"),
            ("10003", "7\n9\nlonger than the limit\n"),
            ("", "x\n"),
        ]);
    }

    #[test]
    fn two_in_one_second_take_the_next_free_one() {
        let setup = Setup::new(Rotation { bytes: 2, ..Rotation::default() });
        setup.put(10_001, 3);
        setup.write_at(10_000, "a\nb\nc\n");
        setup.assert_files(&[("10000", "a\n"), ("10001", "xxx"), ("10002", "b\n"), ("", "c\n")]);
    }

    #[test]
    fn what_is_too_old_goes() {
        let setup = Setup::new(Rotation { retain_seconds: 100, ..Rotation::default() });
        let mut expected = Vec::new();
        for (second, kept) in [(1, false), (9_899, false), (9_900, true), (9_999, true)] {
            setup.put(second, 1);
            expected.push((setup.rotated(second), kept));
        }
        for name in ["log", "log.1", "log.text", "log.12a", "log.", "other.1700000000"] {
            let path = setup.dir.path().join(name);
            fs::write(&path, "").unwrap();
            expected.push((path, true));
        }
        fs::create_dir(setup.rotated(2)).unwrap();
        expected.push((setup.rotated(2), true));
        assert_eq!(setup.sink.cull().unwrap(), 2);
        for (path, kept) in expected {
            assert_eq!(path.exists(), kept, "{}", path.display());
        }
    }

    fn touch(path: &Path, second: u64) {
        let file = File::options().append(true).create(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    #[test]
    fn names_that_a_rotation_cannot_have_made_are_left_alone() {
        let rotation =
            Rotation { retain_seconds: 1, retain_bytes: 1, retain_count: 1, ..Rotation::default() };
        let setup = Setup::new(rotation);
        let names =
            ["1", "2", "20261101", "2026110114", "202611011415", "01700000000", "99999999999", "999999999"];
        let mut left: Vec<PathBuf> =
            names.iter().map(|name| setup.dir.path().join(format!("log.{name}"))).collect();
        left.iter().for_each(|path| touch(path, 1));
        // A file that is being written to, whatever its name.
        let live = setup.rotated(3);
        let other = FileSink::open_with(live.clone(), rotation, &Access::default(), false, clock).unwrap();
        left.push(live);
        left.sort();
        setup.put(5, 1);
        setup.write_at(10_000, "a\n");
        setup.sink.rotate().unwrap();
        assert!(left.iter().all(|path| path.exists()));
        assert!(!setup.rotated(5).exists());
        assert_eq!(retention::find(&setup.sink.path, clock()).unwrap().left_alone, left);
        // It is no longer written to: it is a rotated file like others.
        drop(other);
        assert_eq!(setup.sink.cull().unwrap(), 1);
        assert!(!setup.rotated(3).exists());
    }

    #[test]
    fn a_clock_that_was_wrong_costs_nothing() {
        const WRONG: u64 = 4_102_444_800;
        // The names are from the future; the files' own times may be right, or as wrong.
        for modified in [BASE + 10_000, WRONG] {
            let rotation = Rotation { bytes: 2, retain_count: 3, retain_seconds: 100, ..Rotation::default() };
            let setup = Setup::new(rotation);
            let future = [0, 1, 2].map(|n| setup.dir.path().join(format!("log.{}", WRONG + n)));
            future.iter().for_each(|path| touch(path, modified));
            setup.write_at(10_000, "a\nb\nc\n");
            assert_eq!(setup.suffixes().len(), 4, "{:?}", setup.files());
            setup.write_at(10_000, "d\ne\n");
            let kept = [("10001", "b\n"), ("10002", "c\n"), ("10003", "d\n"), ("", "e\n")];
            setup.assert_files(&kept);
            // Those that nothing pushes out go when they have been there long enough.
            future.iter().for_each(|path| touch(path, modified));
            setup.sink.cull().unwrap();
            setup.assert_files(&kept);
            let setup = Setup::new(Rotation { retain_seconds: 100, ..Rotation::default() });
            let future = setup.dir.path().join(format!("log.{WRONG}"));
            touch(&future, modified);
            for (second, there) in [(10_000, true), (10_100, true), (10_101, false)] {
                NOW.set(second);
                setup.sink.cull().unwrap();
                assert_eq!(future.exists(), there, "{second}");
            }
        }
    }

    #[test]
    fn names_come_back_from_the_future_with_the_clock() {
        let setup = Setup::new(Rotation { bytes: 2, ..Rotation::default() });
        setup.write_at(500_000_000, "a\nb\n");
        setup.write_at(10_000, "c\nd\n");
        setup.assert_files(&[("10000", "b\n"), ("10001", "c\n"), ("500000000", "a\n"), ("", "d\n")]);
        // A clock at 1970 also makes names that retention knows, and none twice.
        NOW.set(0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rotation = Rotation { bytes: 2, retain_count: 2, ..Rotation::default() };
        let sink = FileSink::open_with(path.clone(), rotation, &Access::default(), false, || 7).unwrap();
        let ends = [2, 4, 6, 8].map(|end| (end, 0));
        sink.write(&Lines { bytes: b"a\nb\nc\nd\n", ends: &ends, start: 0 }).unwrap();
        let text = |second: u64| fs::read_to_string(with_suffix(&path, second)).ok();
        assert_eq!(
            [0, 1, 2].map(|n| text(1_000_000_000 + n)),
            [None, Some("b\n".into()), Some("c\n".into())]
        );
    }

    #[test]
    fn time_that_passes_ends_a_period_and_a_files_life() {
        let setup = Setup::new(Rotation { seconds: 600, retain_seconds: 1000, ..Rotation::default() });
        assert!(setup.sink.needs_ticks());
        setup.put(9_000, 1);
        setup.write_at(10_000, "a\n");
        NOW.set(10_199);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("", "a\n")]);
        NOW.set(10_200);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("10200", "a\n"), ("", "")]);
        // Nothing was written: there is nothing to rotate.
        NOW.set(10_800);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("10200", "a\n"), ("", "")]);
        // Nothing is rotated any more that would remove the old ones.
        setup.sink.files.lock().culled = None;
        NOW.set(11_201);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("", "")]);
        assert!(
            !Setup::new(Rotation { bytes: 10, retain_count: 1, ..Rotation::default() }).sink.needs_ticks()
        );
    }

    #[test]
    fn bytes_and_count_keep_the_newest() {
        let setup = Setup::new(Rotation { retain_bytes: 25, ..Rotation::default() });
        for second in [9, 10, 8, 7] {
            setup.put(second, 10);
        }
        assert_eq!(setup.sink.cull().unwrap(), 2);
        assert_eq!(setup.suffixes(), ["9", "10", ""]);
        let setup = Setup::new(Rotation { retain_count: 3, ..Rotation::default() });
        for second in [9, 10, 8, 7] {
            setup.put(second, 10);
        }
        assert_eq!(setup.sink.cull().unwrap(), 1);
        assert_eq!(setup.suffixes(), ["8", "9", "10", ""]);
    }

    #[test]
    fn retention_goes_with_rotation_and_leaves_the_current_file() {
        let rotation = Rotation { seconds: 600, retain_bytes: 1, retain_seconds: 1, ..Rotation::default() };
        let setup = Setup::new(rotation);
        setup.put(5, 1);
        setup.write_at(10_000, "a line of more than a byte\n");
        assert_eq!(setup.suffixes(), ["5", ""]);
        setup.write_at(20_000, "another one\n");
        setup.assert_files(&[("", "another one\n")]);
        NOW.set(90_000);
        setup.sink.cull().unwrap();
        setup.assert_files(&[("", "another one\n")]);
    }

    /// What ought to hold and did not when this was written.
    mod found {
        use super::*;

        #[test]
        fn an_empty_file_belongs_to_the_period_of_its_first_line() {
            let setup = Setup::new(Rotation { seconds: 600, ..Rotation::default() });
            // Nothing was logged in the period that it was opened in.
            setup.write_at(10_300, "a\n");
            setup.write_at(10_301, "b\n");
            setup.assert_files(&[("", "a\nb\n")]);
        }

        #[test]
        fn names_go_up_though_older_ones_were_removed() {
            let setup = Setup::new(Rotation { bytes: 2, retain_count: 2, ..Rotation::default() });
            setup.write_at(10_000, "a\nb\nc\nd\ne\n");
            let texts: Vec<String> = setup.files().into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts, ["c\n", "d\n", "e\n"]);
        }
    }
}
