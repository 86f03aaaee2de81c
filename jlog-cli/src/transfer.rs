//! `jlog export` and `jlog import`: a feed as a stream of bytes.
//!
//! The stream is a tar archive of a copy that [`Jlog::backup`](jlog_core::Jlog::backup) has made.
//! Its last entry lists the other files with their lengths and checksums, so that a truncated
//! stream is refused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jlog_core::names::Kind;
use tar::{Archive, Builder, EntryType, Header};
use tempfile::TempDir;

use crate::args::{ExportArgs, ImportArgs};
use crate::error::{Failure, Outcome};
use crate::output;
use crate::stop::Stop;
use crate::values::counted;

/// The last entry: one line for each other entry, with its CRC-32, length and name.
const LIST: &str = "jlog-export";
/// The longest list that is accepted.
const LIST_MAX: u64 = 64 << 20;
/// The process of a younger directory may not have locked it yet.
const NOT_LOCKED_YET: Duration = Duration::from_secs(60);
/// How much is copied at a time.
const PIECE: usize = 256 << 10;

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A directory for an incomplete copy, locked as long as its process runs.
struct Unfinished {
    dir: TempDir,
    _lock: File,
}

impl Unfinished {
    /// Makes one in `place`, and removes those whose processes were killed.
    fn begin(prefix: &str, place: &Path) -> io::Result<Self> {
        // A directory that cannot be removed does no harm.
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && is_left(&path).unwrap_or(false)
            {
                let _ = fs::remove_dir_all(&path);
            }
        }
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(place)?;
        let lock = File::open(dir.path())?;
        // If directories cannot be locked, none is removed.
        let _ = lock.lock();
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Whether the directory is no longer locked. One that has just been made may not be locked yet.
fn is_left(path: &Path) -> io::Result<bool> {
    let dir = File::open(path)?;
    let age = dir.metadata()?.modified()?.elapsed().unwrap_or_default();
    Ok(age > NOT_LOCKED_YET && dir.try_lock().is_ok())
}

/// `jlog export`
pub fn export(args: &ExportArgs) -> Outcome {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Failure::new(
            "cannot write an archive to a terminal: redirect it to a file or pipe it to another command",
        ));
    }
    let stop = Stop::on_signals()?;
    let log = output::options().open(&args.feed)?;
    let feed = fs::canonicalize(&args.feed)
        .map_err(|e| Failure::new(format!("cannot open {}: {e}", args.feed.display())))?;
    let place = args.tmp.clone().unwrap_or_else(|| parent(&feed).to_owned());
    let made = Unfinished::begin(".jlog-export-", &place).map_err(|e| {
        let place = place.display();
        Failure::new(format!("cannot make a copy in {place}: {e}; --tmp names another directory"))
    })?;
    let copy = made.path().join("feed");
    let copied = log.backup(&copy)?;
    let written = write(&copy, BufWriter::with_capacity(PIECE, stdout.lock()), &stop);
    made.dir
        .close()
        .map_err(|e| Failure::new(format!("cannot remove the copy in {}: {e}", place.display())))?;
    written?;
    let (segments, end) = (counted(copied.segments, "segment"), copied.end);
    output::note(&format!("{segments} exported, up to {end}"));
    Ok(ExitCode::SUCCESS)
}

/// Reads and computes the checksum; fails when it is time to stop.
struct Checked<'a, R> {
    from: R,
    crc: crc32fast::Hasher,
    len: u64,
    stop: &'a Stop,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.from.read(buf)?;
        self.crc.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }
}

fn write(copy: &Path, to: impl Write, stop: &Stop) -> Result<(), Failure> {
    let failed = |name: &Path| {
        let name = name.display().to_string();
        move |e: io::Error| Failure::new(format!("cannot read {name}: {e}"))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(copy).map_err(failed(copy))? {
        names.push(entry.map_err(failed(copy))?.file_name());
    }
    names.sort();
    let mut archive = Builder::new(to);
    let mut list = String::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        let path = copy.join(name);
        let file = File::open(&path).map_err(failed(&path))?;
        let mut header = Header::new_gnu();
        header.set_metadata(&file.metadata().map_err(failed(&path))?);
        header.set_entry_type(EntryType::Regular);
        let mut checked = Checked { from: file, crc: crc32fast::Hasher::new(), len: 0, stop };
        archive.append_data(&mut header, name, &mut checked).map_err(|e| Failure::stdout(&e))?;
        list.push_str(&format!("{:08x} {} {name}\n", checked.crc.finalize(), checked.len));
    }
    let mut header = Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o640);
    let ended = archive.append_data(&mut header, LIST, list.as_bytes()).and_then(|()| archive.into_inner());
    ended.and_then(|mut to| to.flush()).map_err(|e| Failure::stdout(&e))
}

/// `jlog import`
pub fn import(args: &ImportArgs) -> Outcome {
    let stop = Stop::on_signals()?;
    let to = &args.dir;
    let failed = |e: io::Error| Failure::new(format!("cannot make {}: {e}", to.display()));
    if fs::symlink_metadata(to).is_ok() {
        return Err(Failure::new(format!("{} exists already", to.display())));
    }
    // Only a complete feed gets the name.
    let made = Unfinished::begin(".jlog-import-", parent(to)).map_err(failed)?;
    let path = made.path().join("feed");
    fs::create_dir(&path).map_err(failed)?;
    let count = read(&path, io::stdin().lock(), &stop)?;
    let log = output::options().open(&path)?;
    let end = log.end()?;
    drop(log);
    sync(&path).map_err(failed)?;
    fs::rename(&path, to).map_err(failed)?;
    // A parent that cannot be opened for reading cannot be synced either.
    let _ = File::open(parent(to)).and_then(|parent| parent.sync_all());
    output::note(&format!("{} imported, up to {end}", counted(count, "file")));
    Ok(ExitCode::SUCCESS)
}

fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

/// Writes the archive's files to the directory; returns how many there are.
fn read(dir: &Path, from: impl Read, stop: &Stop) -> Result<u64, Failure> {
    let broken = |e: io::Error| Failure::new(format!("cannot read the archive: {e}"));
    let wrong = |why: &str| Failure::new(format!("this is not an archive of `jlog export`: {why}"));
    let mut archive = Archive::new(from);
    let mut list = String::new();
    let mut found = None;
    let mut count = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = PathBuf::from(entry.path().map_err(broken)?);
        if found.is_some() || entry.header().entry_type() != EntryType::Regular {
            return Err(wrong("it contains something other than the files of a feed"));
        }
        let name = name.to_str().unwrap_or_default();
        if name == LIST {
            let mut text = String::new();
            (&mut entry).take(LIST_MAX).read_to_string(&mut text).map_err(broken)?;
            found = Some(text);
            continue;
        }
        // A name with a directory in it is not one of ours.
        if matches!(Kind::of(OsStr::new(name)), Kind::Other | Kind::Temporary | Kind::BadCheckpoint)
            || name.contains('/')
        {
            return Err(wrong(&format!("{name:?} is not a file of a feed")));
        }
        let path = dir.join(name);
        let failed = |e: io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
        let mode = entry.header().mode().unwrap_or(0o640) & 0o777;
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut checked = Checked { from: &mut entry, crc: crc32fast::Hasher::new(), len: 0, stop };
        io::copy(&mut checked, &mut file).map_err(|e| Failure::new(format!("cannot copy {name}: {e}")))?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failed)?;
        list.push_str(&format!("{:08x} {} {name}\n", checked.crc.finalize(), checked.len));
        count += 1;
    }
    match found {
        None => Err(wrong("it is cut off")),
        Some(text) if text != list => Err(wrong("its files differ from its list")),
        Some(_) => Ok(count),
    }
}
