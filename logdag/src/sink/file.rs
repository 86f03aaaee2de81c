//! Files, put aside by size and time, and removed when they are old or too many.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parking_lot::Mutex;

use super::{Lines, Sink, WriteError};

/// How often it is looked whether the path still names the file that is open.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked, while nothing is written, for files that have grown too old.
const CULL_EVERY: Duration = Duration::from_secs(60);
/// So many files that were put aside wait to be made durable by a flush.
const MAX_BEHIND: usize = 8;
/// Names of files that were put aside may be so far ahead of the clock: many in one second, or a clock that was set back.
const MAX_AHEAD_SECONDS: u64 = 86_400;
/// Permission bits of new files, less what the process's mask takes.
const FILE_MODE: u32 = 0o664;

/// When a file is put aside, and which of those that were put aside are kept. 0 is never, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// At multiples of so many seconds.
    pub seconds: u64,
    /// With the line that reaches so many bytes.
    pub bytes: u64,
    /// Files put aside longer ago than so many seconds go.
    pub retain_seconds: u64,
    /// Newest first, files after which the sum exceeds so many bytes go.
    pub retain_bytes: u64,
    /// Newest first, files after so many go.
    pub retain_count: u64,
}

/// What tells the time, in seconds since 1970.
pub(crate) type Clock = fn() -> u64;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Appends lines to a file.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    rotation: Rotation,
    asynchronous: bool,
    clock: Clock,
    files: Mutex<Files>,
    /// The number that the last file put aside has: later ones have higher ones.
    last_aside: AtomicU64,
    /// A symbolic link that names the file being written.
    latest: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Files {
    current: Option<Current>,
    /// What was written to before and is not known to be durable, oldest first.
    behind: Vec<File>,
    /// Why some of it could not be made durable, until somebody asks.
    failed: Option<io::Error>,
    /// The directory has names that are not known to be durable.
    renamed: bool,
    /// What could not be done with names, though lines were written, until somebody asks.
    trouble: Option<io::Error>,
    /// When it was last looked, with nothing to write, for files that have grown too old.
    culled: Option<Instant>,
}

#[derive(Debug)]
struct Current {
    file: File,
    identity: (u64, u64),
    /// Others (a FIFO, a device) are neither put aside nor cut.
    regular: bool,
    len: u64,
    /// There are lines that are not known to be durable.
    dirty: bool,
    /// Which period it was begun in.
    period: u64,
    looked: Instant,
    /// It could not be put aside: tried again after a while.
    retry: Option<Instant>,
}

impl FileSink {
    /// Opens the file, making it if it is not there. With `asynchronous`, the sink may get a queue.
    ///
    /// # Errors
    /// What the system says; the text names the path.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation, asynchronous: bool) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, asynchronous, now)
    }

    /// Keeps a symbolic link with this name that leads to the file being written.
    ///
    /// # Errors
    /// It cannot be made, or something else has this name; the text names it.
    pub fn with_latest(mut self, link: impl Into<PathBuf>) -> io::Result<Self> {
        self.latest = Some(link.into());
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
                let why = "there is something that is no symbolic link";
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

    pub(crate) fn open_with(
        path: PathBuf,
        rotation: Rotation,
        asynchronous: bool,
        clock: Clock,
    ) -> io::Result<Self> {
        let last_aside = AtomicU64::new(0);
        let files = Mutex::default();
        // Not a link is put aside, but what it leads to.
        let path = if rotation.bytes > 0 || rotation.seconds > 0 { resolved(path) } else { path };
        let sink = Self { path, rotation, asynchronous, clock, files, last_aside, latest: None };
        sink.begin(&mut sink.files.lock())?;
        // A number from far in the future is no time of ours.
        let latest = (sink.clock)().saturating_add(MAX_AHEAD_SECONDS);
        let aside = sink.aside().unwrap_or_default();
        let newest = aside.into_iter().map(|(second, ..)| second).find(|&second| second <= latest);
        sink.last_aside.store(newest.unwrap_or(0), Relaxed);
        Ok(sink)
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }

    fn open_current(&self) -> io::Result<Current> {
        let open = || -> io::Result<Current> {
            // What is no regular file (a FIFO that nobody reads) must not make anybody wait.
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(FILE_MODE)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&self.path)?;
            // Written to, it may make its queue's thread wait: lines are not lost for want of a reader that is slow.
            let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?) - OFlag::O_NONBLOCK;
            fcntl(&file, FcntlArg::F_SETFL(flags))?;
            let facts = file.metadata()?;
            let begun =
                if facts.len() > 0 { u64::try_from(facts.mtime()).unwrap_or(0) } else { (self.clock)() };
            Ok(Current {
                identity: (facts.dev(), facts.ino()),
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

    /// Opens the path anew, with the owner and group of the file that was open.
    fn begin(&self, files: &mut Files) -> io::Result<()> {
        let fresh = self.open_current()?;
        files.renamed = true;
        if let Some(old) = files.current.replace(fresh) {
            if let Some(fresh) = &files.current {
                keep_owner(&old.file, &fresh.file);
            }
            if old.regular && old.dirty {
                files.behind.push(old.file);
            }
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
        if gone && let Err(e) = self.begin(files) {
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
                    // Somebody may have cut it.
                    current.len = current.file.metadata().map_or(current.len, |facts| facts.len());
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

    /// Puts the file aside as `path.<seconds>` and begins a new one.
    fn rotate_locked(&self, files: &mut Files) -> io::Result<()> {
        let mut second = (self.clock)().max(self.last_aside.load(Relaxed).saturating_add(1));
        // Two in one second must not overwrite one another.
        while !self.put_aside_locked(files, &with_suffix(&self.path, second))? {
            second = second.saturating_add(1);
        }
        self.last_aside.store(second, Relaxed);
        // What is too old stays until the next time, if it cannot be removed now.
        files.trouble = self.cull_locked().err().or(files.trouble.take());
        Ok(())
    }

    /// Puts the file aside if it is full or its period is over.
    fn rotate_if_due(&self, files: &mut Files) -> io::Result<()> {
        let due = {
            let current = self.current(files)?;
            let period = self.period((self.clock)());
            if current.len == 0 {
                current.period = period;
            }
            let full = self.rotation.bytes > 0 && current.len >= self.rotation.bytes;
            let over = self.rotation.seconds > 0 && current.period != period;
            let tried = current.retry.is_some_and(|last| last.elapsed() < LOOK_EVERY);
            (full || over) && current.len > 0 && current.regular && !tried
        };
        if due && let Err(e) = self.rotate_locked(files) {
            let why = format!("{e}: {} cannot be put aside, and grows on", self.path.display());
            files.trouble = Some(io::Error::new(e.kind(), why));
            if let Some(current) = &mut files.current {
                current.retry = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Gives the file another name and begins a new one; `false` where that name is taken.
    fn put_aside_locked(&self, files: &mut Files, aside: &Path) -> io::Result<bool> {
        if files.current.as_ref().is_some_and(|current| !current.regular) {
            return Ok(true);
        }
        match rename_to_new(&self.path, aside) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            // Somebody else has moved or removed it.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.identity().is_none() => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", aside.display()))),
            Ok(()) => {}
        }
        self.begin(files)?;
        Ok(true)
    }

    /// The files that were put aside, newest first: when, bytes, path.
    fn aside(&self) -> io::Result<Vec<(u64, u64, PathBuf)>> {
        let Some(name) = self.path.file_name() else { return Ok(Vec::new()) };
        let mut prefix = name.to_owned();
        prefix.push(".");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory(&self.path))? {
            let entry = entry?;
            let name = entry.file_name();
            let suffix = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            let second = suffix
                .filter(|digits| digits.iter().all(u8::is_ascii_digit))
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            if let Some(second) = second
                && let Ok(facts) = entry.metadata()
                && facts.is_file()
            {
                found.push((second, facts.len(), entry.path()));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn cull_locked(&self) -> io::Result<usize> {
        let Rotation { retain_seconds, retain_bytes, retain_count, .. } = self.rotation;
        let now = (self.clock)();
        let (mut sum, mut removed, mut failed) = (0u64, 0, None);
        for (n, (second, bytes, path)) in (1u64..).zip(self.aside()?) {
            sum = sum.saturating_add(bytes);
            let old = retain_seconds > 0 && second.saturating_add(retain_seconds) < now;
            if old || (retain_bytes > 0 && sum > retain_bytes) || (retain_count > 0 && n > retain_count) {
                // One that cannot be removed does not keep the others.
                match std::fs::remove_file(&path) {
                    Ok(()) => removed += 1,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        failed = failed.or(Some(io::Error::new(e.kind(), format!("{}: {e}", path.display()))))
                    }
                }
            }
        }
        failed.map_or(Ok(removed), Err)
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

/// Gives a new file the owner and group of the one that it follows, where that is allowed.
fn keep_owner(old: &File, new: &File) {
    if let (Ok(was), Ok(is)) = (old.metadata(), new.metadata())
        && (was.uid(), was.gid()) != (is.uid(), is.gid())
    {
        // An ordinary user cannot: the file is his then.
        let _ = std::os::unix::fs::fchown(new, Some(was.uid()), Some(was.gid()));
    }
}

/// Where a symbolic link leads to, if it leads anywhere.
fn resolved(path: PathBuf) -> PathBuf {
    let link = path.symlink_metadata().is_ok_and(|facts| facts.file_type().is_symlink());
    match path.canonicalize() {
        Ok(target) if link => target,
        _ => path,
    }
}

/// The directory that a path's last name is in.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file a name that nobody has.
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
                // No line stays in part, if nobody else has written behind it.
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
                return Err(WriteError { written: written + whole, error: self.named(error) });
            }
            current.len += now.bytes().len() as u64;
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
            self.cull_locked()?;
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
            File::open(directory(&self.path)).and_then(|dir| dir.sync_all()).map_err(|e| self.named(e))?;
            *renamed = false;
        }
        Ok(())
    }

    fn reopen(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.current.as_ref().is_some_and(|current| self.identity() == Some(current.identity)) {
            return Ok(());
        }
        self.begin(&mut files)
    }

    fn rotate(&self) -> io::Result<()> {
        self.rotate_locked(&mut self.files.lock())
    }

    fn put_aside(&self, to: &Path) -> io::Result<()> {
        match self.put_aside_locked(&mut self.files.lock(), to)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already", to.display()),
            )),
        }
    }

    fn cull(&self) -> io::Result<usize> {
        let _one_at_a_time = self.files.lock();
        self.cull_locked()
    }

    fn size(&self) -> Option<u64> {
        self.files.lock().current.as_ref().map(|current| current.len)
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

    fn clock() -> u64 {
        NOW.get()
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
            let sink = FileSink::open_with(dir.path().join("log"), rotation, false, clock).unwrap();
            Self { dir, sink }
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
                    let suffix = name.strip_prefix("log").unwrap().trim_start_matches('.').to_owned();
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

        /// Puts a file aside that was so at a second.
        fn put(&self, suffix: &str, bytes: usize) {
            fs::write(self.dir.path().join(format!("log.{suffix}")), "x".repeat(bytes)).unwrap();
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
        let at = UNIX_EPOCH + Duration::from_secs(9_000);
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        let rotation = Rotation { seconds: 600, ..Rotation::default() };
        let sink = FileSink::open_with(path, rotation, false, clock).unwrap();
        let setup = Setup { dir, sink };
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
        setup.put("10001", 3);
        setup.write_at(10_000, "a\nb\nc\n");
        setup.assert_files(&[("10000", "a\n"), ("10001", "xxx"), ("10002", "b\n"), ("", "c\n")]);
    }

    #[test]
    fn what_is_too_old_goes() {
        let setup = Setup::new(Rotation { retain_seconds: 100, ..Rotation::default() });
        for suffix in ["9899", "9900", "9999", "1", "text", "12a", ""] {
            setup.put(suffix, 1);
        }
        fs::write(setup.dir.path().join("other.1"), "").unwrap();
        fs::create_dir(setup.dir.path().join("log.2")).unwrap();
        assert_eq!(setup.sink.cull().unwrap(), 2);
        for (name, there) in [
            ("log.1", false),
            ("log.9899", false),
            ("log.9900", true),
            ("log.9999", true),
            ("log.text", true),
            ("log.12a", true),
            ("log.", true),
            ("log.2", true),
            ("other.1", true),
            ("log", true),
        ] {
            assert_eq!(setup.dir.path().join(name).exists(), there, "{name}");
        }
    }

    #[test]
    fn time_that_passes_ends_a_period_and_a_files_life() {
        let setup = Setup::new(Rotation { seconds: 600, retain_seconds: 1000, ..Rotation::default() });
        assert!(setup.sink.needs_ticks());
        setup.put("9000", 1);
        setup.write_at(10_000, "a\n");
        NOW.set(10_199);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("", "a\n")]);
        NOW.set(10_200);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("10200", "a\n"), ("", "")]);
        // Nothing was written: there is nothing to put aside.
        NOW.set(10_800);
        setup.sink.tick().unwrap();
        setup.assert_files(&[("10200", "a\n"), ("", "")]);
        // Nothing is put aside any more that would take the old ones away.
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
        for suffix in ["9", "10", "8", "7"] {
            setup.put(suffix, 10);
        }
        assert_eq!(setup.sink.cull().unwrap(), 2);
        assert_eq!(setup.suffixes(), ["9", "10", ""]);
        let setup = Setup::new(Rotation { retain_count: 3, ..Rotation::default() });
        for suffix in ["9", "10", "8", "7"] {
            setup.put(suffix, 10);
        }
        assert_eq!(setup.sink.cull().unwrap(), 1);
        assert_eq!(setup.suffixes(), ["8", "9", "10", ""]);
    }

    #[test]
    fn retention_goes_with_rotation_and_leaves_the_current_file() {
        let rotation = Rotation { seconds: 600, retain_bytes: 1, retain_seconds: 1, ..Rotation::default() };
        let setup = Setup::new(rotation);
        setup.put("5", 1);
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
