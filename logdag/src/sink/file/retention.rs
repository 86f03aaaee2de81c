//! Finds the rotated files in a directory and their ages, and removes the expired ones.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::names::{Form, Names, Parsed};
use super::rotation::Rotation;
use crate::fork;
use crate::sync::plain::Mutex;

/// The second in a name may be this far ahead of the clock, after many rotations in one second.
const MAX_AHEAD: u64 = 86_400;

/// The files that sinks of this process have open, by device and inode, and how many sinks have
/// each.
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

pub(super) fn is_open(facts: &Metadata) -> bool {
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
    /// The information in its name.
    pub(super) name: Parsed,
    /// When it was rotated, if known: a wrong clock may have left a name from the future, and the
    /// file's own time may be no better.
    pub(super) at: Option<u64>,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

/// The files of a directory that have names of rotated files.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Newest first.
    pub(super) rotated: Vec<Rotated>,
    /// Incomplete compressed files.
    pub(super) parts: Vec<(PathBuf, Form)>,
    /// Files that this rotation cannot have made, or that are being written to.
    pub(super) left_alone: Vec<PathBuf>,
    /// Whether `left_alone` has rotated files that another sink is writing to.
    pub(super) busy: bool,
}

impl Found {
    /// The highest number after a name; for names in seconds, the newest one that is not far in the
    /// future.
    pub(super) fn highest(&self, names: &Names, now: u64) -> u64 {
        let known = |file: &&Rotated| !names.are_seconds() || plausible(file.name.series, now);
        self.rotated.iter().filter(known).map(|file| file.name.series).max().unwrap_or(0)
    }

    /// The highest number of files whose names are for this time; without a number it is 0.
    pub(super) fn highest_of(&self, from: u64) -> Option<u64> {
        self.rotated.iter().filter(|file| file.name.from == from).map(|file| file.name.series).max()
    }
}

impl Found {
    /// Ignores files whose numbers are not in the series of their time.
    fn leave_alone_outside(&mut self, series: &BTreeMap<u64, Range<u64>>, names: &Names) {
        let outside = |path: &Path| {
            let parsed = path.file_name().and_then(|name| names.parse(name));
            parsed.is_some_and(|parsed| {
                series.get(&parsed.from).is_some_and(|series| !series.contains(&parsed.series))
            })
        };
        let rotated = self.rotated.extract_if(.., |file| outside(&file.path)).map(|file| file.path);
        let parts = self.parts.extract_if(.., |(path, _)| outside(path)).map(|(path, _)| path);
        self.left_alone.extend(rotated.chain(parts));
    }
}

pub(super) fn plausible(second: u64, now: u64) -> bool {
    second <= now.saturating_add(MAX_AHEAD)
}

/// Looks for the rotated files of a log.
pub(super) fn find(names: &Names, now: u64) -> io::Result<Found> {
    let mut found = Found::default();
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for entry in std::fs::read_dir(names.directory())? {
        let entry = entry?;
        let name = entry.file_name();
        let parsed = names.parse(&name).filter(|parsed| {
            !names.are_seconds() || plausible(parsed.from, now) || !is_date_and_hour(parsed.from)
        });
        if parsed.is_none() && !names.resembles(&name) {
            continue;
        }
        // It may have been removed by now.
        let Ok(facts) = entry.metadata() else { continue };
        if !facts.is_file() {
            continue;
        }
        let in_use = is_open(&facts);
        if let Some(Parsed { from, series, .. }) = parsed.as_ref().filter(|_| !names.are_seconds()) {
            numbers.entry(*from).or_default().push(*series);
        }
        found.busy |= in_use && parsed.is_some() && entry.path() != names.log();
        match parsed.filter(|_| !in_use) {
            Some(Parsed { form: form @ Form::Part(_), .. }) => found.parts.push((entry.path(), form)),
            Some(name) => {
                let written = u64::try_from(facts.mtime()).ok();
                let at = if plausible(name.from, now) {
                    // The name is certain, and the file's own time may be more precise.
                    Some(written.unwrap_or(name.from).clamp(name.from, name.to))
                } else {
                    written
                };
                let at = at.filter(|&at| plausible(at, now));
                found.rotated.push(Rotated { name, at, bytes: facts.len(), path: entry.path() });
            }
            None if entry.path() == names.log() => {}
            None => found.left_alone.push(entry.path()),
        }
    }
    let series = numbers.into_iter().map(|(from, numbers)| (from, Names::series(numbers))).collect();
    found.leave_alone_outside(&series, names);
    let adopted = if names.are_numbers() { newest_first(&found.rotated) } else { 0..0 };
    found.rotated.sort_by_key(|Rotated { name, at, .. }| {
        let known = plausible(name.from, now);
        // An unknown file existed before the clock was corrected, so that it is older than the
        // files that were rotated correctly in the same day (or hour).
        let order = if known { Some(name.from) } else { at.map(|at| names.begun(at)) };
        let place = match name.series {
            number if adopted.contains(&number) => adopted.end - 1 - (number - adopted.start),
            number => number,
        };
        std::cmp::Reverse((order, known, place))
    });
    found.left_alone.sort();
    Ok(found)
}

/// The numbers of files that logrotate left in the place of our series. Its number 1 is the newest,
/// so each file was written before the one with the next lower number. Our own numbers
/// follow, and are newer than all of these.
fn newest_first(rotated: &[Rotated]) -> Range<u64> {
    // A file and its compressed copy have the same time, so one entry for both is enough.
    let times: BTreeMap<u64, u64> =
        rotated.iter().filter_map(|file| Some((file.name.series, file.at?))).collect();
    // The newest one is removed last.
    if !times.contains_key(&1) {
        return 0..0;
    }
    let older = times.iter().zip(times.iter().skip(1)).take_while(|((_, at), (_, next))| next < at);
    older.last().map_or(0..0, |(_, (&last, _))| 1..last + 1)
}

/// Whether a number reads as YYYYMMDDHH, which logrotate's `dateext` gives hourly files.
fn is_date_and_hour(n: u64) -> bool {
    let (year, month, day, hour) = (n / 1_000_000, n / 10_000 % 100, n / 100 % 100, n % 100);
    (1990..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24
}

/// When files without a known time were first seen, by path.
pub(super) type FirstSeen = BTreeMap<PathBuf, u64>;

/// The reasons that currently allow removing a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reasons {
    /// The clock is trusted.
    pub(super) age: bool,
    /// Everything that can be compressed is compressed.
    pub(super) bytes: bool,
}

/// Removes rotated files that need not be kept any longer; returns how many.
pub(super) fn remove_expired(
    names: &Names,
    rotation: &Rotation,
    now: u64,
    reasons: Reasons,
    first_seen: &mut FirstSeen,
) -> io::Result<usize> {
    let &Rotation { retain_seconds, retain_bytes, retain_count, .. } = rotation;
    if !rotation.retains() {
        return Ok(0);
    }
    let rotated = find(names, now)?.rotated;
    first_seen.retain(|path, _| rotated.iter().any(|file| file.at.is_none() && file.path == *path));
    let (mut n, mut sum, mut removed, mut failed) = (0u64, 0u64, 0, None);
    let mut before: Option<PathBuf> = None;
    for Rotated { name, at, bytes, path } in rotated {
        // Until the original is removed, it and its compressed copy count as one file.
        let original = Names::original(&path, name.form);
        n += u64::from(before.as_ref() != Some(&original));
        before = Some(original);
        sum = sum.saturating_add(bytes);
        let at = at.unwrap_or_else(|| *first_seen.entry(path.clone()).or_insert(now));
        let old = reasons.age && retain_seconds > 0 && at.saturating_add(retain_seconds) < now;
        let much = reasons.bytes && retain_bytes > 0 && sum > retain_bytes;
        if old || much || (retain_count > 0 && n > retain_count) {
            // A file that cannot be removed does not prevent removing the others.
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
