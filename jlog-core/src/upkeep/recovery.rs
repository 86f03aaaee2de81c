//! Recovery: what opening a jlog for writing does in every state that a crash or another process
//! can leave.
//!
//! | state found | what is done |
//! |---|---|
//! | metastore missing, damaged, of unknown magic | refused, nothing is changed; repair restores it |
//! | metastore names a segment before the last on disk (power failure) | it is updated |
//! | … which was restored from a backup over a newer feed | those segments are renamed to `.stale-*` |
//! | … and after those there is a gap, and more | the segments after the gap are renamed |
//! | the next segment exists when it is begun | it is renamed, unless it is empty |
//! | metastore names a segment that does not exist, and there is none after it | the segment is created, empty |
//! | … of which checksums or an index are left, and a subscriber needs it | noted as lost; the next one is begun |
//! | current segment ends within a record | the tail is kept, then truncated |
//! | current segment ends in bytes that are not a record | the tail is kept, then truncated |
//! | metastore names another layout than the records have | refused, nothing is changed; repair restores it |
//! | current segment is damaged, and intact records follow | it is reported; appends go behind those records, readers skip the damage |
//! | current segment removed or replaced while it is written | the file of that name is opened |
//! | checksums cover more than the segment holds | those runs are dropped |
//! | checksums of records that others have truncated, moved or replaced | no damage is reported, and a writer drops them |
//! | index disagrees with the segment | it is not used, and is rebuilt when it is needed |
//! | pre-commit buffer with whole records | they are flushed at once |
//! | … with a torn record | it is kept, then truncated |
//! | … damaged in the middle | the damage is kept, the records around it are flushed |
//! | … whose flush was interrupted | what reached the segment is not written again |
//! | … and whose segment was removed | written again, unless it is known to have been written |
//! | … open when the machine stopped, with a fingerprint that fits | as if the machine had not stopped |
//! | … with one that does not | it is kept in a file: some of its pages may be older than others |
//! | … used by the C library since | its records are treated as that library treats them |
//! | checkpoint past the end of the jlog | it is moved back to the end before anything is appended |
//! | checkpoint of a segment that was removed | the reader continues with the next segment, and reports a loss |
//! | complete segment ends within a record (power failure) | readers skip and report it |
//! | complete segment holds fewer records than its index or checksums list, or none | readers report a loss |
//!
//! Bytes are kept in `<file>.broken-<offset>`; a renamed segment is `.stale-<segment>`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec::format::{RecordFormat, Safety};
use crate::codec::names;
use crate::codec::names::Kind;
use crate::error::MetaFault;
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::checksum::{self, Verifier};
use crate::files::scan::{Place, Stop, WINDOW, Window, walk};
use crate::files::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::walk::survey::{self, Item, Survey};
use crate::{Error, Event, LogId, Result};

/// Files that belong to another user than the directory: path, owner, directory's owner.
pub(crate) fn foreign_owners(shared: &Shared) -> Result<Vec<(PathBuf, u32, u32)>> {
    let dir = shared.storage.facts(&shared.path).map_err(|e| Error::io("look at", &shared.path, e))?;
    let fixed = [names::METASTORE, names::PRE_COMMIT, names::PRE_COMMIT_GUARD, names::SETTINGS];
    Ok(fixed
        .iter()
        .filter_map(|name| Some((name, shared.facts(name).ok()?)))
        .filter(|(_, facts)| facts.owner != dir.owner)
        .map(|(name, facts)| (shared.at(name), facts.owner, dir.owner))
        .collect())
}

/// The fate of the segments after the one that the metastore names.
#[derive(Debug, Default)]
pub(crate) struct Beyond {
    /// The last segment that follows from the one named.
    pub(crate) last: u32,
    /// The segments that do not follow.
    pub(crate) stale: Vec<u32>,
}

/// Examines the segments after the one that the metastore names, which is full at `full` bytes.
/// After a power failure, the metastore may be older than they are. But if a backup was restored
/// over a newer feed, they are left over from that one. A crash leaves no gap, and only a restore
/// changes a segment after the next one was begun. (If a restored segment is full, the next one
/// follows from it.)
///
/// `all` is the list of all segments, if known: only then are segments after a gap looked for.
pub(crate) fn beyond(shared: &Shared, number: u32, full: u64, all: Option<&[u32]>) -> Result<Beyond> {
    let Ok(current) = shared.facts(&names::segment(number)) else {
        // Every subscriber had passed it, and it was removed; the last of all is the one being
        // written.
        let last = shared.segments()?.last().copied().unwrap_or(number).max(number);
        return Ok(Beyond { last, stale: Vec::new() });
    };
    let mut last = number;
    while let Some(next) = last.checked_add(1)
        && let Ok(facts) = shared.facts(&names::segment(next))
    {
        if last == number && current.len < full && current.changed > facts.changed && facts.len > 0 {
            break;
        }
        last = next;
    }
    let mut stale: Vec<u32> = all.unwrap_or_default().iter().copied().filter(|&n| n > last).collect();
    if let Some(next) = last.checked_add(1).filter(|next| !stale.contains(next))
        && shared.exists(&names::segment(next))
    {
        stale.push(next);
    }
    Ok(Beyond { last, stale })
}

/// Renames a segment that is left over from a newer feed, with its index and checksums.
pub(crate) fn set_aside_stale(shared: &Shared, number: u32) -> Result<Option<Event>> {
    let name = names::segment(number);
    let Ok(facts) = shared.facts(&name) else { return Ok(None) };
    let mut keep = names::stale(&name);
    for n in 1u64.. {
        if !shared.exists(&keep) {
            break;
        }
        keep = names::stale(&format!("{name}.{n}"));
    }
    let rename = |from: &str, to: &str| match shared.storage.rename(&shared.at(from), &shared.at(to)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("rename", shared.at(from), e)),
        _ => Ok(()),
    };
    // The segment comes last: if this is interrupted, it starts over.
    rename(&names::index(number), &format!("{keep}.idx"))?;
    rename(&names::checksums(number), &format!("{keep}.crc"))?;
    rename(&name, &keep)?;
    shared.sync_dir()?;
    Ok(Some(Event::StaleSegment { segment: number, bytes: facts.len, kept: shared.at(&keep) }))
}

/// Finds the end of a segment whose lock is held, from `known` on, and truncates the remains of an
/// interrupted write. Damage that is followed by intact records stays: they can be read, and the
/// next records follow them.
pub(crate) fn mend_tail(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    file: &Arc<dyn File>,
    known: Place,
) -> Result<Place> {
    let name = names::segment(number);
    let fail = |e| Error::io("read", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    let from = if known.offset <= len { known } else { Place::default() };
    let (end, stop) = survey::count(&**file, format, from, len).map_err(fail)?;
    if stop == Stop::End {
        return Ok(end);
    }
    let mut verifier = Verifier::load(shared, number)?;
    let mut tail = None;
    let mut damage: Option<u64> = None;
    let mut damaged_until = None;
    // From the last whole record on: if its checksum is wrong, its length may be damaged, and what
    // follows may be the rest of it.
    let before = match verifier.covered_prefix(&**file, format) {
        _ if verifier.is_empty() => end,
        Some((_, proven)) if proven == end.offset => end,
        _ if from.offset < end.offset => last_record(&**file, format, from, end).map_err(fail)?,
        _ => last_record(&**file, format, Place::default(), end).map_err(fail)?,
    };
    Survey::new((shared, number), &**file, format, &mut verifier, len)
        .run(before, |item| {
            match item {
                Item::Damage(stretch)
                    if stretch.offset + stretch.len == len && damaged_until != Some(stretch.offset) =>
                {
                    tail = Some(stretch);
                }
                Item::Damage(stretch) => {
                    damage = damage.or(Some(stretch.offset));
                    damaged_until = Some(stretch.offset + stretch.len);
                }
                Item::Record(_) => {}
            }
            ControlFlow::Continue(())
        })
        .map_err(fail)
        .and_then(|behind| {
            if let Some(offset) = damage {
                shared.note(Event::DamageLeft { segment: number, offset });
            }
            let Some(stretch) = tail else { return Ok(behind) };
            let kept = keep_tail(shared, &**file, number, stretch.offset, len)?;
            // First, so that checksums never list what was truncated here.
            settle_checksums(shared, format, number, &**file, stretch.offset)?;
            file.set_len(stretch.offset).map_err(|e| Error::io("cut", shared.at(&name), e))?;
            shared.note(Event::TailTruncated {
                segment: number,
                offset: stretch.offset,
                len: stretch.len,
                kept: shared.at(&kept),
            });
            Ok(Place { marker: stretch.marker - 1, offset: stretch.offset })
        })
}

/// Where the last of the records between two places begins.
fn last_record(file: &dyn File, format: RecordFormat, from: Place, end: Place) -> std::io::Result<Place> {
    if from.offset == end.offset {
        return Ok(end);
    }
    let mut last = from.offset;
    walk(file, format, from.offset, end.offset, &mut Window::default(), |offset, _, _| last = offset)?;
    Ok(Place { marker: end.marker.saturating_sub(1), offset: last })
}

/// Makes sure that the segment or, if it is empty, the one before it, has records of this layout:
/// because of a flipped bit in the metastore, a writer must not truncate or hide everything.
pub(crate) fn check_layout(shared: &Shared, number: u32, format: RecordFormat) -> Result<()> {
    let mut fault = None;
    for segment in [Some(number), number.checked_sub(1)].into_iter().flatten() {
        let name = names::segment(segment);
        let Some(file) = shared.open_if_there(&name, Open::Read)? else { continue };
        let fail = |e| Error::io("read", shared.at(&name), e);
        let mut magic = [0; 4];
        let n = read_up_to_at(&*file, &mut magic, 0).map_err(fail)?;
        let found = u32::from_le_bytes(magic);
        if n == magic.len() && found == format.magic() {
            return Ok(());
        }
        // A record of another layout, and more of them after it.
        let Some(other) = RecordFormat::from_magic(found).filter(|_| n == magic.len()) else { continue };
        let len = file.len().map_err(fail)?;
        let walked = walk(&*file, other, 0, len, &mut Window::default(), |_, _, _| {}).map_err(fail)?;
        if walked.records > 1 || walked.stop == Stop::End {
            fault = fault.or(Some(MetaFault::OtherRecords { magic: format.magic(), segment, found }));
        }
    }
    fault.map_or(Ok(()), |fault| Err(Error::Metastore { path: shared.at(names::METASTORE), fault }))
}

/// Moves back checkpoints that are past the end of the feed: a power failure can take the last
/// records, and new records must not count as done. (`number` is the segment being written, which
/// has this many records.)
///
/// `listed` has the directory's names, if known. `storage_log` is called again for each: a C writer
/// rolls without the segment's lock, and a checkpoint in the next segment is then valid.
pub(crate) fn pull_back_checkpoints(
    shared: &Shared,
    number: u32,
    records: u32,
    listed: Option<Vec<Kind>>,
    storage_log: impl Fn() -> u32,
) -> Result<()> {
    let end = LogId::new(number, records);
    let checkpoints = match listed {
        Some(kinds) => checkpoint::of(shared, kinds)?,
        None => checkpoint::all(shared)?,
    };
    for (name, id) in checkpoints {
        let Some(from) = id.filter(|&id| id > end) else { continue };
        let checkpoint = match Checkpoint::open(shared, &name) {
            Err(Error::UnknownSubscriber { .. }) => continue,
            other => other?,
        };
        if checkpoint.move_from(shared, from, end, Safety::Safe, || storage_log() == number)? {
            shared.note(Event::CheckpointMovedBack { subscriber: name.to_string(), from, to: end });
        }
    }
    Ok(())
}

fn keep_tail(shared: &Shared, file: &dyn File, number: u32, from: u64, to: u64) -> Result<String> {
    let name = names::segment(number);
    let keep = names::broken(&name, from);
    if !shared.exists(&keep) {
        let temporary = shared.create_temporary()?;
        let mut window = Window::default();
        let mut at = from;
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW);
            let bytes = window.at(file, at, want).map_err(|e| Error::io("read", shared.at(&name), e))?;
            let n = bytes.len().min(want);
            if n == 0 {
                break;
            }
            temporary.write(&bytes[..n], at - from)?;
            at += n as u64;
        }
        temporary.sync()?;
        temporary.rename(&keep)?;
        shared.sync_dir()?;
        return Ok(keep);
    }
    // A file with bytes from there exists. Equal bytes are not kept twice; others get another name.
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX)];
    let n = read_up_to_at(file, &mut bytes, from).map_err(|e| Error::io("read", shared.at(&name), e))?;
    shared.keep_broken(&name, from, &bytes[..n])
}

/// Drops checksums that do not match a segment that ends at `end`, before more runs are appended.
pub(crate) fn settle_checksums(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    file: &dyn File,
    end: u64,
) -> Result<()> {
    // In this order: runs that reach beyond the end may show that records were moved.
    drop_foreign_checksums(shared, format, number, file, end)?;
    drop_stale_checksums(shared, number, end)
}

/// Drops checksums of records that the segment, which ends at `end`, no longer has.
pub(crate) fn drop_stale_checksums(shared: &Shared, number: u32, end: u64) -> Result<()> {
    let verifier = Verifier::load(shared, number)?;
    if verifier.reaches_beyond(end) {
        // A full disk must not keep a writer from opening; without the sidecar, no record looks
        // damaged either.
        let fail = |e| Error::io("read", shared.at(&names::checksums(number)), e);
        let runs = verifier.runs_within(end).map_err(fail)?;
        if checksum::replace(shared, number, &runs).is_err() {
            shared.remove_if_there(&names::checksums(number))?;
        }
    }
    Ok(())
}

/// Drops checksums that describe other records than those in the segment, if nothing is damaged:
/// followed by more runs, they would make intact records look damaged.
fn drop_foreign_checksums(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    file: &dyn File,
    end: u64,
) -> Result<()> {
    let fail = |e| Error::io("read", shared.at(&names::segment(number)), e);
    let mut verifier = Verifier::load(shared, number)?;
    if verifier.is_empty() || verifier.last_before(file, format, end).map_err(fail)?.is_some() {
        return Ok(());
    }
    let (mut foreign, mut damaged) = (Vec::new(), false);
    Survey::new((shared, number), file, format, &mut verifier, end)
        .run(Place::default(), |item| {
            match item {
                Item::Record(found) if found.foreign_until.is_some() => {
                    foreign.push((found.offset, found.offset + found.total));
                }
                Item::Record(_) => {}
                Item::Damage(_) => damaged = true,
            }
            if damaged { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(fail)?;
    if damaged || foreign.is_empty() {
        return Ok(());
    }
    let mut runs = verifier.runs_within(end).map_err(fail)?;
    runs.retain(|run| {
        let next = foreign.partition_point(|&(_, end)| end <= run.offset);
        foreign.get(next).is_none_or(|&(begin, _)| begin >= run.end())
    });
    // Without the sidecar, no record looks damaged either.
    if checksum::replace(shared, number, &runs).is_err() {
        shared.remove_if_there(&names::checksums(number))?;
    }
    Ok(())
}

/// How many bytes at the beginning of `bytes` are in a segment at `offset`; `None` if the segment
/// is gone.
pub(crate) fn flushed_bytes(shared: &Shared, number: u32, offset: u64, bytes: &[u8]) -> Result<Option<u64>> {
    let name = names::segment(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
    let mut there = vec![0; bytes.len()];
    let n = read_up_to_at(&*file, &mut there, offset).map_err(|e| Error::io("read", shared.at(&name), e))?;
    let same = there[..n].iter().zip(bytes).take_while(|(a, b)| a == b).count();
    Ok(Some(same as u64))
}
