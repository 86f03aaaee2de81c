//! What is done in every state that a crash or another process can leave, when a jlog is opened for writing.
//!
//! | state found | what is done |
//! |---|---|
//! | metastore missing, damaged, of unknown magic | refused, nothing is changed; repair restores it |
//! | metastore names a segment before the last on disk (power failure) | it is brought up to date |
//! | metastore names a segment that is not there | the segment is created, empty |
//! | current segment ends within a record | the tail is kept aside, then cut |
//! | current segment is damaged, and records follow | it is closed as it is, a new one begun |
//! | current segment ends in bytes that are no record, and none follows | the tail is kept aside, then cut |
//! | current segment removed while it is written | it is begun anew |
//! | checksums cover more than the segment holds | those runs are dropped |
//! | index disagrees with the segment | it is not believed; whoever needs it makes it anew |
//! | pre-commit buffer with whole records | they stay, the next flush appends them |
//! | … with an unfinished record | that is kept aside, then cut |
//! | … whose flush was cut short | what reached the segment is not written again |
//! | … from before the machine's last start | kept aside: nothing shows whether it is whole, or new |
//! | checkpoint past the end of its segment | the reader moves it back to the end |
//! | checkpoint of a segment that is gone | the reader goes on with the next segment there is |
//!
//! What is kept aside is called `<file>.broken-<offset>`.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checksum::{self, Verifier};
use crate::format::RecordFormat;
use crate::scan::{Stop, WINDOW, Window, next_record, walk};
use crate::shared::Shared;
use crate::storage::{File, Open, read_up_to_at};
use crate::{Error, Event, Result, index, names};

/// How a segment that is about to be written ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With a whole record.
    Whole { records: u32, end: u64 },
    /// There is damage before its end.
    Damaged { offset: u64 },
}

/// Files among the fixed ones that belong to another user than the directory: path, owner, directory's owner.
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

/// The last segment of those that follow `number` on disk without a gap.
pub(crate) fn last_in_a_row(shared: &Shared, number: u32) -> u32 {
    let mut last = number;
    while let Some(next) = last.checked_add(1)
        && shared.exists(&names::segment(next))
    {
        last = next;
    }
    last
}

/// How many records are known to be in a segment without looking at them, and where they end: by its
/// checksums or its index.
pub(crate) fn known_tail(shared: &Shared, number: u32, file: &dyn File, format: RecordFormat) -> (u32, u64) {
    let len = file.len().unwrap_or(0);
    let covered = Verifier::load(shared, number).covered_prefix();
    let indexed = index::tail(shared, number, file, format).unwrap_or((0, 0));
    let known = if indexed.1 > covered.1 { indexed } else { covered };
    if known.1 <= len { known } else { (0, 0) }
}

/// Finds the end of a segment whose lock is held, from `known` on, and cuts an unfinished tail.
pub(crate) fn mend_tail(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    file: &Arc<dyn File>,
    known: (u32, u64),
) -> Result<Tail> {
    let name = names::segment(number);
    let fail = |e| Error::io("read", shared.at(&name), e);
    let len = file.len().map_err(fail)?;
    let (records, from) = if known.1 <= len { known } else { (0, 0) };
    let mut window = Window::default();
    let walked = walk(&**file, format, from, len, &mut window, |_, _, _| {}).map_err(fail)?;
    let records = records.saturating_add(walked.records);
    if walked.stop == Stop::End {
        return Ok(Tail::Whole { records, end: walked.offset });
    }
    if next_record(&**file, format, walked.offset + 1, len, &mut window, |_, _| Ok(None))
        .map_err(fail)?
        .is_some()
    {
        return Ok(Tail::Damaged { offset: walked.offset });
    }
    let cut = len - walked.offset;
    let kept = keep_tail(shared, &**file, number, walked.offset, len)?;
    file.set_len(walked.offset).map_err(|e| Error::io("cut", shared.at(&name), e))?;
    shared.note(Event::TailCut { segment: number, offset: walked.offset, len: cut, kept: shared.at(&kept) });
    Ok(Tail::Whole { records, end: walked.offset })
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
    // One is kept from there already. The same bytes are not kept twice, others get a name of their own.
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX)];
    let n = read_up_to_at(file, &mut bytes, from).map_err(|e| Error::io("read", shared.at(&name), e))?;
    shared.keep_broken(&name, from, &bytes[..n])
}

/// Drops checksums of records that the segment, which ends at `end`, no longer has.
pub(crate) fn drop_stale_checksums(shared: &Shared, number: u32, end: u64) -> Result<()> {
    let verifier = Verifier::load(shared, number);
    if verifier.reaches_beyond(end) {
        // A full disk must not keep a writer from opening: without the sidecar nothing is accused either.
        if checksum::replace(shared, number, &verifier.runs_within(end)).is_err() {
            shared.remove_if_there(&names::checksums(number))?;
        }
    }
    Ok(())
}

/// How many bytes of `bytes`, from their beginning, stand in a segment at `offset`. A segment that is gone was
/// read by everybody, and so had them all.
pub(crate) fn flushed_bytes(shared: &Shared, number: u32, offset: u64, bytes: &[u8]) -> Result<u64> {
    let name = names::segment(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(bytes.len() as u64) };
    let mut there = vec![0; bytes.len()];
    let n = read_up_to_at(&*file, &mut there, offset).map_err(|e| Error::io("read", shared.at(&name), e))?;
    let same = there[..n].iter().zip(bytes).take_while(|(a, b)| a == b).count();
    Ok(same as u64)
}
