//! Compression of rotated files.
//!
//! It makes a copy under a temporary name, makes it durable, and renames it; only then does it
//! remove the original. If this is interrupted, the original still exists, and is compressed again
//! later. A lock on the original keeps two processes from compressing it at the same time, and from
//! compressing it while one of them still writes to it.

use std::fs::{File, FileTimes, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::access::{self, Ids, directory};
use super::names::{Form, Names};
use super::rename::rename_to_new;
use super::rotation::Compression;

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;

/// The result of compressing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Another process writes to it, or compresses it.
    Busy,
    /// It was removed meanwhile.
    Gone,
}

/// Replaces a file by its compressed copy.
pub(super) fn compress(original: &Path, method: Compression) -> io::Result<Outcome> {
    let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let here = |e| named(original, e);
    let file = match open(original) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Gone),
        opened => opened.map_err(here)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Outcome::Busy),
        Err(TryLockError::Error(e)) => return Err(here(e)),
    }
    // A child that is forked meanwhile shares the lock, so closing the file would not release it.
    let outcome = compress_locked(original, &file, method, named);
    let _ = file.unlock();
    outcome
}

fn open(original: &Path) -> io::Result<File> {
    // Some file systems lock only files that are open for writing.
    match File::options().read(true).append(true).open(original) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => File::open(original),
        opened => opened,
    }
}

fn compress_locked(
    original: &Path,
    file: &File,
    method: Compression,
    named: impl Fn(&Path, io::Error) -> io::Error,
) -> io::Result<Outcome> {
    let here = |e| named(original, e);
    let facts = file.metadata().map_err(here)?;
    match original.symlink_metadata() {
        Ok(there) if (there.dev(), there.ino()) == (facts.dev(), facts.ino()) => {}
        _ => return Ok(Outcome::Gone),
    }
    let (whole, part) = Names::compressed(original, method);
    if whole.symlink_metadata().is_ok() {
        // A process ended between making the copy and removing the original.
        if !same_contents(file, &whole, method).map_err(|e| named(&whole, e))? {
            let why = "it exists already, and is not a copy of the file to compress";
            return Err(named(&whole, io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
        remove_original(original).map_err(here)?;
        return Ok(Outcome::Done);
    }
    // No other process has the lock: an existing file is a leftover.
    match std::fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(&part, e)),
        _ => {}
    }
    let made = make(file, &part, method).and_then(|bytes| {
        let now = file.metadata()?;
        if now.nlink() == 0 {
            return Ok(Outcome::Gone);
        }
        if now.len() != bytes {
            return Ok(Outcome::Busy);
        }
        rename_to_new(&part, &whole)?;
        File::open(directory(&whole))?.sync_all()?;
        Ok(Outcome::Done)
    });
    if !matches!(made, Ok(Outcome::Done)) {
        // The original still exists. If only the sync after the rename failed, so does the copy.
        let _ = std::fs::remove_file(&part);
    }
    let outcome = made.map_err(|e| named(&part, e))?;
    if outcome == Outcome::Done {
        remove_original(original).map_err(here)?;
    }
    Ok(outcome)
}

/// Removes a file that has a copy, unless retention has removed it by now.
fn remove_original(original: &Path) -> io::Result<()> {
    match std::fs::remove_file(original) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a complete, durable compressed copy with the file's owner, group, mode and time. Returns
/// how many bytes of the file it contains.
fn make(file: &File, part: &Path, method: Compression) -> io::Result<u64> {
    let facts = file.metadata()?;
    let copy = access::create(part, Some(&facts), Ids::default())?;
    let bytes = encode(file, &copy, method)?;
    if let Ok(modified) = facts.modified() {
        copy.set_times(FileTimes::new().set_modified(modified))?;
    }
    copy.sync_all()?;
    Ok(bytes)
}

#[cfg(any(feature = "gzip", feature = "zstd"))]
fn pump(mut from: &File, to: &mut impl io::Write) -> io::Result<u64> {
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                bytes += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn encode(from: &File, to: &File, method: Compression) -> io::Result<u64> {
    match method {
        #[cfg(feature = "gzip")]
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
            let bytes = pump(from, &mut encoder)?;
            encoder.finish()?;
            Ok(bytes)
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            encoder.include_checksum(true)?;
            let bytes = pump(from, &mut encoder)?;
            encoder.finish()?;
            Ok(bytes)
        }
        #[cfg(not(all(feature = "gzip", feature = "zstd")))]
        _ => {
            let _ = (from, to);
            Err(unavailable(method))
        }
    }
}

fn decoder(file: File, method: Compression) -> io::Result<Box<dyn Read>> {
    match method {
        #[cfg(feature = "gzip")]
        Compression::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(file))),
        #[cfg(feature = "zstd")]
        Compression::Zstd => Ok(Box::new(zstd::Decoder::new(file)?)),
        #[cfg(not(all(feature = "gzip", feature = "zstd")))]
        _ => {
            drop(file);
            Err(unavailable(method))
        }
    }
}

/// The error for a method whose feature is off.
pub(super) fn unavailable(method: Compression) -> io::Error {
    let name = method.name();
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("compression with {name} needs logdag's feature {name}"),
    )
}

/// Whether a compressed file contains exactly this file. An unreadable one does not.
fn same_contents(mut file: &File, compressed: &Path, method: Compression) -> io::Result<bool> {
    let mut decoder = decoder(File::open(compressed)?, method)?;
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let Ok(n) = decoder.read(&mut one) else { return Ok(false) };
        if n == 0 {
            return Ok(file.read(&mut other[..1])? == 0);
        }
        match file.read_exact(&mut other[..n]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            done => done?,
        }
        if one[..n] != other[..n] {
            return Ok(false);
        }
    }
}

/// Removes incomplete compressed files, unless a process is writing them now.
pub(super) fn discard(parts: &[(PathBuf, Form)]) {
    for (part, form) in parts {
        let free = match File::open(Names::original(part, *form)) {
            Ok(original) => original.try_lock().is_ok(),
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        if free {
            // If this fails, the next call tries again.
            let _ = std::fs::remove_file(part);
        }
    }
}
