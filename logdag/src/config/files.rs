//! Reads the files of a configuration, and finds those that it includes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// The maximum size of a file: 16 MiB.
pub(super) const MAX_FILE: u64 = 16 << 20;

/// The maximum number of alternatives in a pattern.
const MAX_FILES: usize = 10_000;

/// The maximum number of symbolic links that are followed, as in the kernel.
const MAX_LINKS: usize = 40;

pub(super) fn read(path: &Path, may_be_given: bool) -> std::result::Result<String, String> {
    let mut bytes = Vec::new();
    let file = open_regular(path, may_be_given)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line} is not UTF-8")
    })
}

/// Opens a regular file. Other files may have no end, or make the program wait. The only exception
/// is a pipe that the program was given, for example by a shell's `<(…)`.
fn open_regular(path: &Path, may_be_given: bool) -> std::result::Result<File, String> {
    if may_be_given && is_descriptor(path) {
        return File::open(path).map_err(|e| e.to_string());
    }
    let refused = |facts: &Metadata| match facts.file_type() {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("it is a directory: expected a regular file"),
        kind if kind.is_fifo() => Some("it is a FIFO: expected a regular file"),
        _ => Some("it is a device or a socket: expected a regular file"),
    };
    let refuse = |facts: Metadata| refused(&facts).map_or(Ok(()), |why| Err(why.to_owned()));
    std::fs::metadata(path).map_err(|e| e.to_string()).and_then(refuse)?;
    // The file may have been replaced meanwhile: do not wait for a FIFO.
    let opened = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|e| e.to_string())?;
    file.metadata().map_err(|e| e.to_string()).and_then(refuse)?;
    Ok(file)
}

/// Whether a path, or a link on the way, names one of the process's descriptors, such as
/// `/dev/stdin`.
pub(super) fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let dir = crate::sink::directory(&path);
        let Ok(dir) = dir.canonicalize() else { return false };
        if dir == Path::new("/dev/fd") || dir.starts_with("/proc") && dir.ends_with("fd") {
            return true;
        }
        let Ok(target) = std::fs::read_link(&path) else { return false };
        path = dir.join(target);
    }
    false
}

/// Nothing is included.
#[cfg(not(any(feature = "toml", feature = "xml")))]
pub(super) fn included(dir: &Path, file: &str) -> std::result::Result<Vec<PathBuf>, String> {
    Ok(vec![dir.join(file)])
}

/// The files that an include names: one file or, as in libmtev, all that match a pattern.
#[cfg(any(feature = "toml", feature = "xml"))]
pub(super) fn included(dir: &Path, file: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let is_pattern = |file: &str| file.contains(['*', '?', '[']);
    let literal = dir.join(file);
    if !(is_pattern(file) || file.contains('{')) || literal.exists() {
        return Ok(vec![literal]);
    }
    let dir = dir.to_str().ok_or("the name of the directory is not UTF-8")?;
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let alternatives = alternatives(file);
    if alternatives.len() == 1 && !is_pattern(file) {
        return Ok(vec![literal]);
    }
    let mut all = Vec::new();
    for file in alternatives {
        if is_pattern(&file) {
            // `join` keeps an absolute name as it is.
            let pattern = Path::new(&glob::Pattern::escape(dir)).join(&file);
            let found = glob::glob_with(&pattern.to_string_lossy(), options).map_err(|e| e.msg.to_owned())?;
            for path in found {
                all.push(path.map_err(|e| e.error().to_string())?);
            }
        } else {
            all.extend(Some(Path::new(dir).join(file)).filter(|path| path.exists()));
        }
    }
    Ok(all)
}

/// A name for each alternative of `{a,b}` in a pattern.
#[cfg(any(feature = "toml", feature = "xml"))]
fn alternatives(pattern: &str) -> Vec<String> {
    let Some(begin) = pattern.find('{') else { return vec![pattern.to_owned()] };
    let (mut depth, mut cuts) = (0, vec![begin]);
    let end = pattern[begin..].char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => cuts.push(begin + at),
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(begin + at)
    });
    let Some(end) = end.filter(|_| cuts.len() > 1) else { return vec![pattern.to_owned()] };
    cuts.push(end);
    let parts = cuts.windows(2).map(|cut| &pattern[cut[0] + 1..cut[1]]);
    let names = parts.map(|part| format!("{}{part}{}", &pattern[..begin], &pattern[end + 1..]));
    // No file name has that many alternatives.
    names.flat_map(|name| alternatives(&name)).take(MAX_FILES).collect()
}
