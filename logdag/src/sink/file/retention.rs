//! Rotated files: which of those in a directory are ours, how old each is, and which go.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Rotation;
use super::access::directory;
use crate::graph::fork;
use crate::sync::plain::Mutex;

/// The second in a name may be this far ahead of the clock: there were many rotations in one second.
const MAX_AHEAD: u64 = 86_400;
/// Suffixes that a rotation makes: seconds of ten digits. Shorter ones are numbers and dates that others have given.
pub(super) const OURS: std::ops::RangeInclusive<u64> = 1_000_000_000..=9_999_999_999;

/// The files that sinks of this process have open, by device and inode, and how many have each.
static OPEN: Mutex<BTreeMap<(u64, u64), usize>> = Mutex::new(BTreeMap::new());

/// While this lives, a file is open for writing, and retention leaves it alone.
#[derive(Debug)]
pub(super) struct InUse((u64, u64));

impl InUse {
    pub(super) fn new(facts: &Metadata) -> Self {
        let identity = (facts.dev(), facts.ino());
        let _inside = fork::enter();
        *OPEN.lock().entry(identity).or_default() += 1;
        Self(identity)
    }
}

fn is_open(facts: &Metadata) -> bool {
    let _inside = fork::enter();
    OPEN.lock().contains_key(&(facts.dev(), facts.ino()))
}

impl Drop for InUse {
    fn drop(&mut self) {
        let _inside = fork::enter();
        let mut open = OPEN.lock();
        if let Some(count) = open.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.0);
            }
        }
    }
}

/// A file that was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rotated {
    /// The second in its name.
    pub(super) second: u64,
    /// When it was rotated, as far as that can be known: a clock that was wrong has left a name from the future, and maybe
    /// no better time in the file itself.
    pub(super) at: Option<u64>,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

/// What is in a directory under the name of a log.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Newest first.
    pub(super) rotated: Vec<Rotated>,
    /// Files that this rotation cannot have made, or that are being written to.
    pub(super) left_alone: Vec<PathBuf>,
}

impl Found {
    /// The newest second in a name that is not far in the future.
    pub(super) fn newest_second(&self, now: u64) -> u64 {
        self.rotated
            .iter()
            .map(|file| file.second)
            .filter(|&second| plausible(second, now))
            .max()
            .unwrap_or(0)
    }
}

pub(super) fn plausible(second: u64, now: u64) -> bool {
    second <= now.saturating_add(MAX_AHEAD)
}

/// Looks for the rotated files of a log.
pub(super) fn find(log: &Path, now: u64) -> io::Result<Found> {
    let mut found = Found::default();
    let Some(name) = log.file_name() else { return Ok(found) };
    let mut prefix = name.to_owned();
    prefix.push(".");
    for entry in std::fs::read_dir(directory(log))? {
        let entry = entry?;
        let name = entry.file_name();
        let suffix = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let Some(digits) =
            suffix.filter(|suffix| !suffix.is_empty() && suffix.iter().all(u8::is_ascii_digit))
        else {
            continue;
        };
        // It may have been removed by now.
        let Ok(facts) = entry.metadata() else { continue };
        if !facts.is_file() {
            continue;
        }
        let second = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let second = second.filter(|&second| OURS.contains(&second) && digits.len() == 10);
        let second = second.filter(|&second| plausible(second, now) || !is_date_and_hour(second));
        let in_use = is_open(&facts);
        match second.filter(|_| !in_use) {
            Some(second) => {
                let written = u64::try_from(facts.mtime()).ok();
                let at = [Some(second), written].into_iter().flatten().find(|&at| plausible(at, now));
                found.rotated.push(Rotated { second, at, bytes: facts.len(), path: entry.path() });
            }
            None => found.left_alone.push(entry.path()),
        }
    }
    // One of which nothing is known was there before the clock was set right.
    found.rotated.sort_by_key(|file| std::cmp::Reverse((file.at, plausible(file.second, now), file.second)));
    found.left_alone.sort();
    Ok(found)
}

/// Whether a number reads as YYYYMMDDHH, which logrotate's `dateext` makes of hourly files.
fn is_date_and_hour(n: u64) -> bool {
    let (year, month, day, hour) = (n / 1_000_000, n / 10_000 % 100, n / 100 % 100, n % 100);
    (1990..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24
}

/// When files of which no time is known were first seen, by path.
pub(super) type FirstSeen = BTreeMap<PathBuf, u64>;

/// Removes rotated files that are not to be kept any longer; says how many.
pub(super) fn remove_expired(
    log: &Path,
    rotation: &Rotation,
    now: u64,
    first_seen: &mut FirstSeen,
) -> io::Result<usize> {
    let Rotation { retain_seconds, retain_bytes, retain_count, .. } = *rotation;
    if (retain_seconds, retain_bytes, retain_count) == (0, 0, 0) {
        return Ok(0);
    }
    let rotated = find(log, now)?.rotated;
    first_seen.retain(|path, _| rotated.iter().any(|file| file.at.is_none() && file.path == *path));
    let (mut sum, mut removed, mut failed) = (0u64, 0, None);
    for (n, Rotated { at, bytes, path, .. }) in (1u64..).zip(rotated) {
        sum = sum.saturating_add(bytes);
        let at = at.unwrap_or_else(|| *first_seen.entry(path.clone()).or_insert(now));
        let old = retain_seconds > 0 && at.saturating_add(retain_seconds) < now;
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
