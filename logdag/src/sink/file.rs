//! Files, put aside by size and time, and removed when they are old or too many.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{Lines, Sink, WriteError};

/// How often it is looked whether the path still names the file that is open.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    file: File,
    identity: (u64, u64),
    len: u64,
    /// Which period it was begun in.
    period: u64,
    looked: Instant,
}

impl FileSink {
    /// Opens the file, making it if it is not there. With `asynchronous`, the sink may get a queue.
    ///
    /// # Errors
    /// What the system says; the text names the path.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation, asynchronous: bool) -> io::Result<Self> {
        Self::open_with(path.into(), rotation, asynchronous, now)
    }

    pub(crate) fn open_with(
        path: PathBuf,
        rotation: Rotation,
        asynchronous: bool,
        clock: Clock,
    ) -> io::Result<Self> {
        let sink = Self { path, rotation, asynchronous, clock, current: Mutex::new(None) };
        *sink.current.lock() = Some(sink.open_current()?);
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
                .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
                .open(&self.path)?;
            let facts = file.metadata()?;
            let begun =
                if facts.len() > 0 { u64::try_from(facts.mtime()).unwrap_or(0) } else { (self.clock)() };
            Ok(Current {
                identity: (facts.dev(), facts.ino()),
                len: facts.len(),
                period: self.period(begun),
                looked: Instant::now(),
                file,
            })
        };
        open().map_err(|e| self.named(e))
    }

    fn period(&self, seconds: u64) -> u64 {
        seconds.checked_div(self.rotation.seconds).unwrap_or(0)
    }

    /// The file that is open, or a new one where it was moved away or removed.
    fn current<'a>(&self, slot: &'a mut Option<Current>) -> io::Result<&'a mut Current> {
        let gone = slot.as_ref().is_some_and(|current| {
            current.looked.elapsed() >= LOOK_EVERY && self.identity() != Some(current.identity)
        });
        if gone || slot.is_none() {
            let fresh = self.open_current()?;
            if let Some(old) = slot.as_ref().filter(|_| gone) {
                keep_owner(&old.file, &fresh.file);
            }
            *slot = Some(fresh);
        }
        match slot {
            Some(current) => {
                if current.looked.elapsed() >= LOOK_EVERY {
                    current.looked = Instant::now();
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
    fn rotate_locked(&self, slot: &mut Option<Current>) -> io::Result<()> {
        let mut second = (self.clock)();
        let aside = loop {
            let aside = with_suffix(&self.path, second);
            // Two in one second must not overwrite one another.
            match std::fs::hard_link(&self.path, &aside) {
                Ok(()) => break Some(aside),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => second += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break None,
                // A file system without second names.
                Err(_) if !aside.exists() => {
                    std::fs::rename(&self.path, &aside).map_err(|e| self.named(e))?;
                    break None;
                }
                Err(_) => second += 1,
            }
        };
        if aside.is_some() {
            std::fs::remove_file(&self.path).map_err(|e| self.named(e))?;
        }
        let fresh = self.open_current()?;
        if let Some(old) = slot.as_ref() {
            keep_owner(&old.file, &fresh.file);
        }
        *slot = Some(fresh);
        // What is too old stays until the next time, if it cannot be removed now.
        let _ = self.cull_locked();
        Ok(())
    }

    /// The files that were put aside, newest first: when, bytes, path.
    fn aside(&self) -> io::Result<Vec<(u64, u64, PathBuf)>> {
        let Some(name) = self.path.file_name() else { return Ok(Vec::new()) };
        let mut prefix = name.to_owned();
        prefix.push(".");
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let suffix = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
            let second = suffix
                .filter(|digits| digits.iter().all(u8::is_ascii_digit))
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            if let (Some(second), Ok(facts)) = (second, entry.metadata())
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
        let (mut sum, mut removed) = (0u64, 0);
        for (n, (second, bytes, path)) in (1u64..).zip(self.aside()?) {
            sum = sum.saturating_add(bytes);
            let old = retain_seconds > 0 && second.saturating_add(retain_seconds) < now;
            if old || (retain_bytes > 0 && sum > retain_bytes) || (retain_count > 0 && n > retain_count) {
                std::fs::remove_file(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// How many of the lines go into the file as it is.
    fn fitting(&self, len: u64, lines: Lines<'_>) -> usize {
        if self.rotation.bytes == 0 {
            return lines.len();
        }
        let before =
            lines.ends.partition_point(|&(end, _)| len + ((end - lines.start) as u64) < self.rotation.bytes);
        // With the one that reaches the limit.
        (before + 1).min(lines.len())
    }
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

fn with_suffix(path: &Path, second: u64) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{second}"));
    name.into()
}

impl Sink for FileSink {
    fn write(&self, lines: Lines<'_>) -> Result<(), WriteError> {
        let mut slot = self.current.lock();
        let mut rest = lines;
        let mut written = 0;
        while !rest.is_empty() {
            let fail = |error| WriteError { written, error };
            let due = {
                let current = self.current(&mut slot).map_err(fail)?;
                let full = self.rotation.bytes > 0 && current.len >= self.rotation.bytes;
                let over = self.rotation.seconds > 0 && current.period != self.period((self.clock)());
                (full || over) && current.len > 0
            };
            if due {
                self.rotate_locked(&mut slot).map_err(fail)?;
            }
            let current = self.current(&mut slot).map_err(fail)?;
            let (now, later) = rest.split(self.fitting(current.len, rest));
            if let Err(error) = current.file.write_all(now.bytes()) {
                // No line stays in part, if nobody else has written behind it.
                let len = current.file.metadata().map_or(current.len, |facts| facts.len());
                let there = len.saturating_sub(current.len);
                let whole = now.ends.partition_point(|&(end, _)| (end - now.start) as u64 <= there);
                let keep = whole.checked_sub(1).map_or(0, |last| (now.ends[last].0 - now.start) as u64);
                if there <= now.bytes().len() as u64 && current.file.set_len(current.len + keep).is_ok() {
                    current.len += keep;
                } else {
                    current.len = len;
                }
                return Err(WriteError { written: written + whole, error: self.named(error) });
            }
            current.len += now.bytes().len() as u64;
            written += now.len();
            rest = later;
        }
        Ok(())
    }

    fn may_be_asynchronous(&self) -> bool {
        self.asynchronous
    }

    fn flush(&self) -> io::Result<()> {
        match &*self.current.lock() {
            Some(current) => current.file.sync_data().map_err(|e| self.named(e)),
            None => Ok(()),
        }
    }

    fn reopen(&self) -> io::Result<()> {
        let mut slot = self.current.lock();
        if slot.as_ref().is_some_and(|current| self.identity() == Some(current.identity)) {
            return Ok(());
        }
        let fresh = self.open_current()?;
        if let Some(old) = slot.as_ref() {
            keep_owner(&old.file, &fresh.file);
        }
        *slot = Some(fresh);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        self.rotate_locked(&mut self.current.lock())
    }

    fn cull(&self) -> io::Result<usize> {
        let _one_at_a_time = self.current.lock();
        self.cull_locked()
    }

    fn size(&self) -> Option<u64> {
        self.current.lock().as_ref().map(|current| current.len)
    }
}
