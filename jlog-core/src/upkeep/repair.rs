//! Repair, which an operator runs when a jlog is damaged. It keeps every intact record and every
//! checkpoint, and saves bytes before it takes them out. Meanwhile no process may write, and no C
//! process may have a damaged segment open.
//!
//! A repair is atomic, and can be repeated. First everything is checked and every new file is
//! written under a temporary name; a failure up to this point changes nothing. Then the journal
//! gets its name, and with that the repair has happened: its steps are carried out now, or by the
//! next program that opens the jlog (see `journal`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::format::{
    COMPRESSED_HEADER_LEN, Compression, DEFAULT_SEGMENT_SIZE, METASTORE_LEN, Meta, OLD_METASTORE_LEN,
    RecordFormat, Safety,
};
use crate::codec::names::{self, Kind};
use crate::codec::settings::Settings;
use crate::error::MetaFault;
use crate::files::checkpoint;
use crate::files::checksum::{self, Verifier};
use crate::files::renumbered::{self, Repaired};
use crate::files::scan::{Place, Window, walk};
use crate::files::shared::{Shared, Temporary};
use crate::storage::{File, FileKind, Guarded, LockGuard, Open, read_all, read_up_to_at};
use crate::subscriber::SubscriberName;
use crate::upkeep::journal::{self, copy};
use crate::upkeep::progress::VerifyOptions;
use crate::upkeep::recovery;
use crate::upkeep::verify::{self, IndexCheck, proceed};
use crate::walk::lost::{self, Missing};
use crate::walk::survey::{Item, Survey};
use crate::{Error, Event, LogId, Result};

use crate::upkeep::journal::{Journal, Lock, NewSegment, Reported, Step};

/// How long a repair waits for another one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Repairs a jlog directory and returns the actions, in order.
pub(crate) fn repair(shared: &Shared, in_use: bool, options: &VerifyOptions) -> Result<Vec<Event>> {
    let dir = shared
        .storage
        .facts(&shared.path)
        .map_err(|e| shared.not_a_jlog(Error::io("open", &shared.path, e)))?;
    if dir.kind != FileKind::Directory {
        return Err(Error::NotAJlog { path: shared.path.clone(), why: "it is not a directory" });
    }
    run(shared, true, in_use, options)
}

/// Repairs metastore and checkpoints only.
pub(crate) fn repair_names(shared: &Shared) -> Result<Vec<Event>> {
    run(shared, false, true, &VerifyOptions::default())
}

/// Repairs one segment of a jlog whose metastore is sound.
pub(crate) fn repair_one(shared: &Shared, number: u32) -> Result<Vec<Event>> {
    let mut done = journal::finish(shared)?;
    let meta = crate::files::metastore::MetaReader::open(shared)?.get()?;
    let file = shared.open(&names::segment(number), Open::Read)?;
    // Nobody writes to a complete segment; and without anything to do, no writer need be kept out.
    let len = file.len().map_err(|e| Error::io("read", shared.at(&names::segment(number)), e))?;
    let last = number >= meta.storage_log;
    if last && Intact::find(shared, meta.format, number, &*file, len, last, |_| Ok(()))?.bytes == len {
        return Ok(done);
    }
    let guard = if last { guard(shared)? } else { None };
    let lock = lock(shared)?;
    journal::sweep_temporaries(shared, &lock)?;
    // Writers of this library may have it open to sync it, which does no harm.
    let mut plan = Plan::new(shared, true);
    plan.segment(number, meta.format, false, last)?;
    if !last {
        lost::note_cut(shared, meta.format, number)?;
    }
    let taken_out = std::mem::take(&mut plan.taken_out);
    done.extend(plan.carry_out(&lock)?);
    lost::taken_out(shared, &taken_out)?;
    drop(guard);
    Ok(done)
}

fn run(shared: &Shared, all: bool, in_use: bool, options: &VerifyOptions) -> Result<Vec<Event>> {
    let has_metastore = shared.is_there(names::METASTORE)?;
    let segments = shared.segments()?;
    if !has_metastore && segments.is_empty() && shared.subscribers()?.is_empty() {
        return Err(Error::NotAJlog {
            path: shared.path.clone(),
            why: "the directory has neither a metastore nor segments",
        });
    }
    // Both are held to the end. No writer opens meanwhile, and an open one refuses us.
    let guard = guard(shared)?;
    let lock = lock(shared)?;
    let mut done = Vec::new();
    journal::set_aside_damaged(shared, &lock)?;
    if shared.is_repair_pending()? {
        done = journal::roll_forward(shared, &lock)?;
    }
    journal::sweep_temporaries(shared, &lock)?;
    set_aside_stale(shared, &mut done)?;
    let mut plan = Plan::new(shared, in_use);
    plan.make(all, options)?;
    let cut = std::mem::take(&mut plan.cut);
    let taken_out = std::mem::take(&mut plan.taken_out);
    done.extend(plan.carry_out(&lock)?);
    if all {
        let reported = lost::taken_out(shared, &taken_out)
            .and_then(|()| crate::upkeep::retention::sweep(shared))
            .and_then(|_| lost::report(shared, &cut));
        let losses = match reported {
            Ok(losses) => losses,
            // The repair has happened. Losses that are not recorded as reported are reported by the
            // next one.
            Err(_) if !done.is_empty() => Vec::new(),
            Err(e) => return Err(e),
        };
        // Nothing can restore these messages; readers report the loss when they get there.
        for event in losses {
            shared.note(event.clone());
            done.push(event);
        }
    }
    drop(guard);
    Ok(done)
}

/// Renames segments left over from a newer feed, if a sound metastore identifies them. Each is a
/// separate step.
fn set_aside_stale(shared: &Shared, done: &mut Vec<Event>) -> Result<()> {
    let Ok(meta) = Meta::decode(&metastore_bytes(shared)?) else { return Ok(()) };
    let segments = shared.segments()?;
    for number in recovery::beyond(shared, meta.storage_log, meta.segment_size.into(), Some(&segments))?.stale
    {
        if let Some(event) = recovery::set_aside_stale(shared, number)? {
            shared.note(event.clone());
            done.push(event);
        }
    }
    Ok(())
}

fn metastore_bytes(shared: &Shared) -> Result<Vec<u8>> {
    match shared.open_if_there(names::METASTORE, Open::Read)? {
        None => Ok(Vec::new()),
        Some(file) => {
            read_all(&*file, METASTORE_LEN).map_err(|e| Error::io("read", shared.at(names::METASTORE), e))
        }
    }
}

/// Keeps writers out, if there is a metastore for the guard.
fn guard(shared: &Shared) -> Result<Option<Guarded>> {
    let Some(file) = shared.open_if_there(names::METASTORE, Open::Write)? else { return Ok(None) };
    let path = shared.at(names::METASTORE);
    match Guarded::take_soon(&*shared.storage, &file, true).map_err(|e| Error::io("lock", path, e))? {
        None => Err(Error::WriterBusy { path: shared.path.clone() }),
        guard => Ok(guard),
    }
}

fn lock(shared: &Shared) -> Result<Lock<'_>> {
    Lock::take(shared, PATIENCE)?.ok_or_else(|| Error::RepairBusy { path: shared.path.clone() })
}

/// The plan of a repair, and its prepared files, which are removed unless the plan is carried out.
struct Plan<'a> {
    shared: &'a Shared,
    /// Whether to replace segments that another process has open for writing.
    in_use: bool,
    /// The findings of the look at all segments, until they are used.
    looked: HashMap<u32, Looked>,
    steps: Vec<Step>,
    /// The steps that come last.
    last_steps: Vec<Step>,
    prepared: Vec<Temporary<'a>>,
    /// Names of the kept files of this repair.
    kept: Vec<String>,
    /// How many records segments have after the repair, as far as known.
    records: HashMap<u32, u32>,
    /// Segments that were cut, which was not known before.
    cut: BTreeSet<u32>,
    /// How many records are taken out of segments.
    taken_out: Vec<(u32, u32)>,
    /// A metastore that was missing keeps writers out from its first moment.
    guard: Option<Guarded>,
}

impl<'a> Plan<'a> {
    fn new(shared: &'a Shared, in_use: bool) -> Self {
        Self {
            shared,
            in_use,
            looked: HashMap::new(),
            steps: Vec::new(),
            last_steps: Vec::new(),
            prepared: Vec::new(),
            kept: Vec::new(),
            records: HashMap::new(),
            cut: BTreeSet::new(),
            taken_out: Vec::new(),
            guard: None,
        }
    }

    fn make(&mut self, all: bool, options: &VerifyOptions) -> Result<()> {
        let shared = self.shared;
        let segments = shared.segments()?;
        let old = self.is_old(&segments)?;
        let format = self.format(old, &segments)?;
        let storage_log = self.metastore(format, segments.last().copied())?;
        if all && !old {
            self.look(&segments, format, storage_log, options)?;
        }
        if all || old {
            for &number in &segments {
                self.segment(number, format, old, number >= storage_log)?;
            }
        }
        self.checkpoints(format, &segments, storage_log)?;
        if all && !old {
            // Before the files are removed that show how many records the segments had.
            self.cut = lost::note_cuts(shared, format, storage_log)?;
        }
        if all {
            self.buffer()?;
            self.settings()?;
        }
        Ok(())
    }

    /// Looks at all segments, several at once. None stays open: there may be more of them than a
    /// process may open.
    fn look(
        &mut self,
        segments: &[u32],
        format: RecordFormat,
        storage_log: u32,
        options: &VerifyOptions,
    ) -> Result<()> {
        let shared = self.shared;
        let looked = options.run(shared, segments, |number, ticker| {
            let name = names::segment(number);
            let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(None) };
            let (identity, len) = identity_and_len(shared, &name, &*file)?;
            let intact =
                Intact::find(shared, format, number, &*file, len, number >= storage_log, |offset| {
                    ticker.at(offset)
                })?;
            ticker.moved(len)?;
            Ok(Some(Looked { identity, len, intact }))
        })?;
        self.looked =
            segments.iter().copied().zip(looked).filter_map(|(n, looked)| Some((n, looked?))).collect();
        Ok(())
    }

    /// Makes the repair happen, and carries it out.
    fn carry_out(mut self, lock: &Lock<'_>) -> Result<Vec<Event>> {
        self.steps.append(&mut self.last_steps);
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared;
        let bytes = Journal::new(std::mem::take(&mut self.steps)).encode();
        let journal = self.prepare()?;
        journal.write(&bytes, 0)?;
        journal.sync()?;
        // Whenever the journal exists, so do the files that it lists.
        shared.sync_dir()?;
        let file = Arc::clone(&journal.file);
        let renamed = journal.rename(names::REPAIR_JOURNAL);
        let published = renamed.and_then(|()| shared.sync_dir());
        if let Err(e) = published {
            // It may have its name nevertheless. It must not be followed without the files that it
            // lists, nor after a power failure brings it back.
            let done = &mut [io::IoSlice::new(journal::DONE.as_bytes())];
            let _ = crate::storage::write_all_at(&*file, done, bytes.len() as u64);
            let _ = file.sync_data();
            if shared.is_repair_pending().unwrap_or(true)
                && shared
                    .remove_if_there(names::REPAIR_JOURNAL)
                    .or_else(|_| shared.remove_if_there(names::REPAIR_JOURNAL))
                    .is_err()
            {
                self.leave();
            }
            return Err(e);
        }
        self.leave();
        journal::roll_forward(shared, lock)
    }

    /// Hands the prepared files over to the journal.
    fn leave(&mut self) {
        self.prepared.drain(..).for_each(Temporary::leave);
        self.kept.clear();
    }

    fn prepare(&self) -> Result<Temporary<'a>> {
        self.shared.create_temporary_as(names::REPAIR_TEMPORARY_PREFIX)
    }

    /// Prepares a whole file.
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<Step> {
        let temporary = self.prepare()?;
        temporary.write(bytes, 0)?;
        temporary.sync()?;
        Ok(self.put_prepared(temporary, name))
    }

    fn put_prepared(&mut self, temporary: Temporary<'a>, name: &str) -> Step {
        let step = Step::Put { temporary: temporary.name().to_owned(), name: name.to_owned() };
        self.prepared.push(temporary);
        step
    }

    /// Keeps bytes that are going to be overwritten.
    fn keep_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<String> {
        let (kept, new) = self.shared.keep_broken_once(name, 0, bytes)?;
        if new {
            self.kept.push(kept.clone());
        }
        Ok(kept)
    }

    /// Whether this jlog predates header magics: its metastore is short, and its records do not
    /// contradict that.
    fn is_old(&self, segments: &[u32]) -> Result<bool> {
        Ok(metastore_bytes(self.shared)?.len() == OLD_METASTORE_LEN
            && self.segments_say(segments)?.0.is_none())
    }

    /// The layout of the first records of the segments, if all have the same one; and whether there
    /// are any bytes.
    fn segments_say(&self, segments: &[u32]) -> Result<(Option<RecordFormat>, bool)> {
        let (mut said, mut agree, mut any_bytes) = (None, true, false);
        for &number in segments {
            let name = names::segment(number);
            let Some(file) = self.shared.open_if_there(&name, Open::Read)? else { continue };
            let mut magic = [0; 4];
            let n = read_up_to_at(&*file, &mut magic, 0)
                .map_err(|e| Error::io("read", self.shared.at(&name), e))?;
            any_bytes |= n > 0;
            if n == magic.len()
                && let Some(format) = RecordFormat::from_magic(u32::from_le_bytes(magic))
            {
                agree &= said.is_none_or(|said| said == format);
                said = Some(format);
            }
        }
        Ok((said.filter(|_| agree), any_bytes))
    }

    /// The layout of the records, from the metastore or, failing that, from the segments.
    fn format(&self, old: bool, segments: &[u32]) -> Result<RecordFormat> {
        if old {
            return Ok(RecordFormat::new(Compression::None));
        }
        // The records decide: a flipped bit in the metastore must not make all of them look
        // damaged.
        let (said, any_bytes) = self.segments_say(segments)?;
        if let Some(format) = said {
            return Ok(format);
        }
        let bytes = metastore_bytes(self.shared)?;
        let path = self.shared.at(names::METASTORE);
        let fault = match Meta::decode(&bytes) {
            Ok(meta) => return Ok(meta.format),
            Err(fault @ MetaFault::ForeignByteOrder) => return Err(Error::Metastore { path, fault }),
            Err(fault) => fault,
        };
        if let Some(magic) = bytes.get(12..16).and_then(|b| b.first_chunk::<4>())
            && let Some(format) = RecordFormat::from_magic(u32::from_le_bytes(*magic))
        {
            return Ok(format);
        }
        if any_bytes {
            // Guessing would make every record look damaged.
            return Err(Error::Metastore { path, fault });
        }
        Ok(RecordFormat::new(Compression::None))
    }

    /// Plans the metastore; returns the resulting segment being written.
    fn metastore(&mut self, format: RecordFormat, last: Option<u32>) -> Result<u32> {
        let bytes = metastore_bytes(self.shared)?;
        let decoded = Meta::decode(&bytes);
        let mut why = match &decoded {
            Ok(meta) if meta.format != format => "its header magic was missing".to_owned(),
            Ok(_) => String::new(),
            Err(_) if bytes.is_empty() => "it was missing".to_owned(),
            Err(fault) => fault.to_string(),
        };
        let field = |at: usize| {
            bytes.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b))
        };
        let meta = Meta {
            storage_log: match (last, field(0)) {
                (Some(last), named) => {
                    // If there is no such segment, a writer would begin it. That is a fault only if
                    // later segments exist.
                    if named.is_some_and(|named| named < last) && why.is_empty() {
                        why = format!("it named {:08x} as the last segment", named.unwrap_or(0));
                    }
                    match named {
                        Some(named) if decoded.is_ok() && named > last => named,
                        _ => last,
                    }
                }
                (None, named) => named.unwrap_or(0),
            },
            segment_size: field(4).filter(|&size| size > 0).unwrap_or(DEFAULT_SEGMENT_SIZE),
            safety: field(8).and_then(Safety::from_u32).unwrap_or_default(),
            format,
        };
        if why.is_empty() {
            return Ok(meta.storage_log);
        }
        let name = names::METASTORE;
        let step = if bytes.is_empty() && !self.shared.is_there(name)? {
            let temporary = self.prepare()?;
            temporary.write(&meta.encode(), 0)?;
            temporary.sync()?;
            let path = self.shared.at(name);
            if temporary.file.try_guard(true).map_err(|e| Error::io("lock", path, e))? {
                self.guard = Some(Guarded::new(Arc::clone(&temporary.file)));
            }
            self.put_prepared(temporary, name)
        } else {
            if !bytes.is_empty() {
                self.keep_bytes(name, &bytes)?;
            }
            // In place, so that processes that have it mapped see the change.
            Step::Write { name: name.to_owned(), bytes: meta.encode().to_vec() }
        };
        // This step comes last: with it, the directory is a jlog.
        self.last_steps.push(step);
        self.steps.push(Step::Report(Reported::Metastore { why }));
        Ok(meta.storage_log)
    }

    /// Gives a segment a second name under which it is kept.
    fn keep_segment(&mut self, number: u32, offset: u64, identity: (u64, u64)) -> Result<String> {
        let name = names::segment(number);
        let mut keep = names::broken(&name, offset);
        for n in 1u64.. {
            match self.shared.storage.link(&self.shared.at(&name), &self.shared.at(&keep)) {
                Ok(()) => {
                    self.kept.push(keep.clone());
                    break;
                }
                // A repair that never happened has created the name.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if self.shared.facts(&keep).is_ok_and(|kept| kept.identity == identity) {
                        break;
                    }
                    keep = names::broken(&format!("{name}.{n}"), offset);
                }
                Err(e) => return Err(Error::io("keep", self.shared.at(&keep), e)),
            }
        }
        Ok(keep)
    }

    /// Gives the records of a segment from before header magics today's magic. `None` if it has no
    /// such records.
    fn upgraded(&self, number: u32, file: &Arc<dyn File>, len: u64) -> Result<Option<Temporary<'a>>> {
        let old = RecordFormat::old();
        let new = RecordFormat::new(Compression::None);
        let fail = |e| Error::io("read", self.shared.at(&names::segment(number)), e);
        let mut window = Window::default();
        let mut places = Vec::new();
        walk(&**file, old, 0, len, &mut window, |offset, header, _| places.push((offset, *header)))
            .map_err(fail)?;
        if places.is_empty() {
            // Upgraded before, or empty.
            return Ok(None);
        }
        let temporary = self.prepare()?;
        copy(&**file, 0, len, &temporary.file, 0).map_err(fail)?;
        let mut head = [0; COMPRESSED_HEADER_LEN];
        for (offset, header) in places {
            new.encode(&header, &mut head);
            temporary.write(&head[..new.header_len()], offset)?;
        }
        Ok(Some(temporary))
    }

    /// Takes damaged parts out of a segment. The new file is written next to the old one, which is
    /// kept, and gets its name when it is complete, so that processes that have the old one open
    /// are not disturbed.
    fn segment(&mut self, number: u32, format: RecordFormat, old_magic: bool, last: bool) -> Result<()> {
        let shared = self.shared;
        let name = names::segment(number);
        let fail = |e| Error::io("read", shared.at(&name), e);
        let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(()) };
        let (old, len) = identity_and_len(shared, &name, &*file)?;
        let upgraded = if old_magic { self.upgraded(number, &file, len)? } else { None };
        let from = upgraded.as_ref().map_or(&file, |temporary| &temporary.file);
        let looked = self.looked.remove(&number).filter(|looked| (looked.identity, looked.len) == (old, len));
        let intact = match looked {
            Some(looked) => looked.intact,
            None => Intact::find(shared, format, number, &**from, len, last, |_| Ok(()))?,
        };
        self.records.insert(number, intact.records);
        let removed = len - intact.bytes;
        if removed == 0 && upgraded.is_none() {
            let mut remove = |name: String| {
                self.steps.push(Step::Remove { name: name.clone() });
                self.steps.push(Step::Report(Reported::Sidecar { name }));
            };
            if intact.bad_index {
                remove(names::index(number));
            }
            if intact.stale_checksums {
                match checksum::compute(&file, format, intact.bytes).map_err(fail)? {
                    Some(run) => {
                        let step = self.put(&names::checksums(number), &checksum::encode(&[run]))?;
                        self.steps.push(step);
                        self.steps.push(Step::Report(Reported::Checksums { segment: number }));
                    }
                    // Nothing is left that they could describe.
                    None => remove(names::checksums(number)),
                }
            }
            return Ok(());
        }
        if !self.in_use && is_open_for_writing(&*file) {
            return Err(Error::InUse { path: shared.at(&name) });
        }
        let new = match upgraded {
            Some(temporary) if removed == 0 => temporary,
            upgraded => {
                let temporary = self.prepare()?;
                let from = upgraded.as_ref().map_or(&file, |temporary| &temporary.file);
                let mut to = 0;
                for &(offset, bytes) in &intact.pieces {
                    copy(&**from, offset, bytes, &temporary.file, to).map_err(fail)?;
                    to += bytes;
                }
                temporary
            }
        };
        new.sync()?;
        let identity = new.file.facts().map_err(fail)?.identity;
        let sidecar = match checksum::compute(&new.file, format, intact.bytes).map_err(fail)? {
            Some(run) if intact.had_checksums => {
                Some(self.put(&names::checksums(number), &checksum::encode(&[run]))?)
            }
            _ => None,
        };
        let taken_out = u32::try_from(intact.dropped.len()).unwrap_or(u32::MAX);
        self.taken_out.push((number, taken_out));
        let markers = renumbered::join(&intact.dropped);
        let mut repairs = renumbered::load(shared, number)?;
        repairs.push(Repaired { old, new: identity, markers: markers.clone() });
        let record = self.put(&names::repaired(number), renumbered::encode(&repairs).as_bytes())?;
        let kept = self.keep_segment(number, intact.first_damage.min(len), old)?;
        self.steps.push(Step::Segment(NewSegment {
            number,
            temporary: new.name().to_owned(),
            kept,
            old,
            old_len: len,
            new: identity,
            new_len: intact.bytes,
            records: intact.records,
            removed,
            markers,
        }));
        self.steps.push(record);
        self.steps.extend(sidecar);
        self.prepared.push(new);
        Ok(())
    }

    /// Moves checkpoints to positions that exist, except those of temporary subscribers.
    /// (Checkpoints after records that are taken out are moved when that happens.)
    fn checkpoints(&mut self, format: RecordFormat, segments: &[u32], storage_log: u32) -> Result<()> {
        let shared = self.shared;
        let first = segments.first().copied().unwrap_or(storage_log).min(storage_log);
        let names: Vec<SubscriberName> =
            shared.subscribers()?.into_iter().filter(|name| !name.is_temporary()).collect();
        let missing = Missing::find(shared, format, storage_log)?;
        let lost = missing.lost_to_all(shared, &checkpoint::all(shared)?);
        for name in names {
            let held = match checkpoint::bytes(shared, &name) {
                Ok(held) => held,
                Err(Error::UnknownSubscriber { .. }) => continue,
                Err(e) => return Err(e),
            };
            let (to, why) = match crate::codec::format::decode_checkpoint(&held) {
                // Its reader reports the loss, and continues.
                Some(id)
                    if lost.iter().any(|(loser, _)| *loser == name)
                        && !shared.is_there(&names::segment(id.segment))? =>
                {
                    continue;
                }
                Some(id) if id.segment < first => (LogId::new(first, 0), "its segment was gone".to_owned()),
                Some(id) if id.segment > storage_log => {
                    let end = LogId::new(storage_log, self.records_of(format, storage_log)?);
                    (end, format!("{id} was beyond the end"))
                }
                Some(id) => {
                    let last = if id.marker == 0 { 0 } else { self.records_of(format, id.segment)? };
                    if self.marker_after(id) <= last || missing.explains(id) {
                        continue;
                    }
                    (LogId::new(id.segment, last), format!("{id} was past the end of its segment"))
                }
                // Repeating messages is better than skipping them silently.
                None => (LogId::new(first, 0), "its checkpoint could not be read".to_owned()),
            };
            self.steps.push(Step::Checkpoint { name, holds: held, to, why });
        }
        Ok(())
    }

    /// How many records a segment has after the repair.
    fn records_of(&mut self, format: RecordFormat, number: u32) -> Result<u32> {
        if let Some(&records) = self.records.get(&number) {
            return Ok(records);
        }
        let records = match verify::inspect_with(self.shared, number, format) {
            Ok(inspection) => inspection.records,
            Err(e) if e.is_not_found() => 0,
            Err(e) => return Err(e),
        };
        self.records.insert(number, records);
        Ok(records)
    }

    /// The marker that a record has after the repair.
    fn marker_after(&self, id: LogId) -> u32 {
        let of = |step: &Step| match step {
            Step::Segment(segment) if segment.number == id.segment => {
                Some(renumbered::up_to(&segment.markers, id.marker))
            }
            _ => None,
        };
        id.marker - self.steps.iter().find_map(of).unwrap_or(0).min(id.marker)
    }

    /// Keeps unreadable settings in a file, and rebuilds them: with checksums, if there are any.
    fn settings(&mut self) -> Result<()> {
        let shared = self.shared;
        let Err(Error::Settings { path, line, why }) = Settings::load(&*shared.storage, &shared.path) else {
            return Ok(());
        };
        let file = shared.open(names::SETTINGS, Open::Read)?;
        let bytes = read_all(&*file, 64 << 10).map_err(|e| Error::io("read", &path, e))?;
        self.keep_bytes(names::SETTINGS, &bytes)?;
        let checksums = shared.list()?.iter().any(|kind| matches!(kind, Kind::Checksums(_)));
        let text = Settings { checksums, ..Settings::default() }.to_text();
        let step = self.put(names::SETTINGS, text.as_bytes())?;
        self.steps.push(step);
        self.steps.push(Step::Report(Reported::Settings { why: format!("line {line}: {why}") }));
        Ok(())
    }

    /// Keeps a pre-commit file that is too short, or whose counter exceeds its size, in another
    /// file. Writers recover from everything else.
    fn buffer(&mut self) -> Result<()> {
        let shared = self.shared;
        let Some((used, size)) = crate::files::precommit::fill(shared)? else { return Ok(()) };
        let file = shared.open(names::PRE_COMMIT, Open::Read)?;
        let fail = |e| Error::io("read", shared.at(names::PRE_COMMIT), e);
        let len = file.len().map_err(fail)?;
        if len >= 4 && used <= size {
            return Ok(());
        }
        let bytes = read_all(&*file, 129 << 20).map_err(fail)?;
        let kept = self.keep_bytes(names::PRE_COMMIT, &bytes)?;
        let step = if len < 4 {
            self.put(names::PRE_COMMIT, &[0; 4])?
        } else {
            // The writer that opens it finds the whole records in it.
            let all = u32::try_from(size).unwrap_or(0).to_le_bytes();
            Step::Write { name: names::PRE_COMMIT.to_owned(), bytes: all.to_vec() }
        };
        self.steps.push(step);
        self.steps.push(Step::Report(Reported::Buffer { len, kept }));
        Ok(())
    }
}

/// Whether a process has the file open for writing, as users of the C library have. If the system
/// cannot tell, the answer is no.
fn is_open_for_writing(file: &dyn File) -> bool {
    match file.try_lease() {
        Ok(true) => {
            // It ends with the descriptor otherwise.
            let _ = file.release_lease().or_else(|_| file.release_lease());
            false
        }
        Ok(false) => true,
        Err(_) => false,
    }
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        for kept in self.kept.drain(..) {
            // The rest is a copy of what is still there, and is not kept twice.
            let _ = self.shared.remove_if_there(&kept).or_else(|_| self.shared.remove_if_there(&kept));
        }
    }
}

/// A segment's file, and its length while no process is writing.
fn identity_and_len(shared: &Shared, name: &str, file: &dyn File) -> Result<((u64, u64), u64)> {
    let _lock = LockGuard::new(file).map_err(|e| Error::io("lock", shared.at(name), e))?;
    let facts = file.facts().map_err(|e| Error::io("read", shared.at(name), e))?;
    Ok((facts.identity, facts.len))
}

/// The findings in a segment, and its file.
struct Looked {
    identity: (u64, u64),
    len: u64,
    intact: Intact,
}

/// The intact parts of a segment.
#[derive(Default)]
struct Intact {
    /// Offset and length of stretches of intact records.
    pieces: Vec<(u64, u64)>,
    /// Markers of records that are damaged.
    dropped: Vec<u32>,
    records: u32,
    bytes: u64,
    first_damage: u64,
    had_checksums: bool,
    stale_checksums: bool,
    bad_index: bool,
}

impl Intact {
    fn find(
        shared: &Shared,
        format: RecordFormat,
        number: u32,
        file: &dyn File,
        len: u64,
        last: bool,
        mut tick: impl FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let mut cancelled = Ok(());
        let mut verifier = Verifier::load(shared, number)?;
        let mut index = IndexCheck::open(shared, number)?;
        let mut out = Self { had_checksums: !verifier.is_empty(), first_damage: len, ..Self::default() };
        Survey::new((shared, number), file, format, &mut verifier, len)
            .run(Place::default(), |item| {
                match item {
                    Item::Record(found) => {
                        cancelled = tick(found.offset);
                        // Records that were lost without a trace also shift later ones.
                        out.missing_before(found.marker);
                        out.keep(found.offset, found.total);
                        index.record(found.offset);
                    }
                    Item::Damage(stretch) => {
                        cancelled = tick(stretch.offset);
                        out.missing_before(stretch.marker);
                        out.first_damage = out.first_damage.min(stretch.offset);
                        out.dropped.push(stretch.marker);
                    }
                }
                proceed(&cancelled)
            })
            .map_err(|e| Error::io("read", shared.at(&names::segment(number)), e))?;
        cancelled?;
        out.stale_checksums = verifier.reaches_beyond(len);
        out.bad_index = index.fault(last).is_some();
        Ok(out)
    }

    /// Counts the records before this marker that were not met.
    fn missing_before(&mut self, marker: u32) {
        let met = self.records + u32::try_from(self.dropped.len()).unwrap_or(u32::MAX);
        self.dropped.extend(met + 1..marker);
    }

    fn keep(&mut self, offset: u64, total: u64) {
        match self.pieces.last_mut() {
            Some((from, bytes)) if *from + *bytes == offset => *bytes += total,
            _ => self.pieces.push((offset, total)),
        }
        self.records += 1;
        self.bytes += total;
    }
}
