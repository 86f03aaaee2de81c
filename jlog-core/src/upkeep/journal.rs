//! The journal that makes a repair atomic: the file `repair.journal`.
//!
//! Repair first writes every new file under a temporary name, and then this list of steps. Once the
//! list has its name, the repair has happened: the next program that opens the jlog carries out the
//! steps from the beginning, and repeats them until they succeed. Before that, nothing has changed.
//! The journal is text, one step per line:
//!
//! ```text
//! jlog repair 1
//! segment NUMBER TEMPORARY KEPT DEV:INODE LENGTH DEV:INODE LENGTH RECORDS REMOVED MARKERS
//! put TEMPORARY NAME
//! remove NAME
//! write NAME BYTES
//! checkpoint NAME BYTES ID WHY
//! told WHAT …
//! crc CRC-32 of everything before this line
//! moved CRC-32 NAME BYTES ID WHY
//! done
//! ```
//!
//! `moved` lines are appended while the steps are carried out, each before its checkpoint is
//! written, so that no checkpoint is moved twice. `done` says that only the journal itself remains
//! to be removed.

use std::io::{self, IoSlice};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::format::{METASTORE_LEN, decode_checkpoint};
use crate::codec::names::{self, Kind};
use crate::files::checkpoint::Checkpoint;
use crate::files::renumbered::{
    Identity, Removed, identity_text, markers_text, parse_identity, parse_markers, up_to,
};
use crate::files::scan::WINDOW;
use crate::files::shared::Shared;
use crate::storage::{File, Guarded, LockGuard, Open, read_all, read_up_to_at, write_all_at};
use crate::subscriber::SubscriberName;
use crate::{Error, Event, LogId, Result};

const FIRST_LINE: &str = "jlog repair 1";
/// The last line of a journal that must not be followed any more.
pub(crate) const DONE: &str = "done\n";
/// The longest journal.
const MAX_LEN: usize = 256 << 20;
/// How long a caller waits for another process to finish a repair.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same if only others can finish it.
const PATIENCE_OF_READERS: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A segment that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewSegment {
    pub(crate) number: u32,
    pub(crate) temporary: String,
    /// The name under which the old one is kept.
    pub(crate) kept: String,
    pub(crate) old: Identity,
    pub(crate) old_len: u64,
    pub(crate) new: Identity,
    pub(crate) new_len: u64,
    pub(crate) records: u32,
    /// How many bytes are taken out.
    pub(crate) removed: u64,
    /// The markers of the records that are taken out.
    pub(crate) markers: Vec<Removed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Segment(NewSegment),
    /// Gives a temporary file its name.
    Put {
        temporary: String,
        name: String,
    },
    Remove {
        name: String,
    },
    /// Writes these bytes to the beginning of a file that others have mapped.
    Write {
        name: String,
        bytes: Vec<u8>,
    },
    /// Moves a checkpoint if it holds these bytes.
    Checkpoint {
        name: SubscriberName,
        holds: Vec<u8>,
        to: LogId,
        why: String,
    },
    Report(Reported),
}

/// An event to report when everything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    Metastore { why: String },
    Settings { why: String },
    Buffer { len: u64, kept: String },
    Sidecar { name: String },
    Checksums { segment: u32 },
}

/// A checkpoint that was moved, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moved {
    name: SubscriberName,
    held: Vec<u8>,
    to: LogId,
    why: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) steps: Vec<Step>,
    moved: Vec<Moved>,
    done: bool,
    /// Where the next line is appended.
    end: usize,
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * MAX_LEN {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Text as the last thing of a line.
fn line_end(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A name that a journal may use: one of the files of a jlog, in its directory.
fn own_name(text: &str) -> Option<String> {
    let ours = !matches!(Kind::of(text.as_ref()), Kind::Other | Kind::RepairJournal | Kind::RepairLock);
    (ours && !text.contains('/')).then(|| text.to_owned())
}

fn temporary_name(text: &str) -> Option<String> {
    own_name(text).filter(|name| Kind::of(name.as_ref()) == Kind::RepairTemporary)
}

fn subscriber(text: &str) -> Option<SubscriberName> {
    if let Kind::Checkpoint(name) = Kind::of(text.as_ref()) { Some(name) } else { None }
}

impl Step {
    fn to_line(&self) -> String {
        match self {
            Step::Segment(s) => format!(
                "segment {:08x} {} {} {} {} {} {} {} {} {}",
                s.number,
                s.temporary,
                s.kept,
                identity_text(s.old),
                s.old_len,
                identity_text(s.new),
                s.new_len,
                s.records,
                s.removed,
                markers_text(&s.markers),
            ),
            Step::Put { temporary, name } => format!("put {temporary} {name}"),
            Step::Remove { name } => format!("remove {name}"),
            Step::Write { name, bytes } => format!("write {name} {}", hex(bytes)),
            Step::Checkpoint { name, holds, to, why } => {
                format!("checkpoint {} {} {to} {}", name.checkpoint_file(), hex(holds), line_end(why))
            }
            Step::Report(Reported::Metastore { why }) => format!("told metastore {}", line_end(why)),
            Step::Report(Reported::Settings { why }) => format!("told settings {}", line_end(why)),
            Step::Report(Reported::Buffer { len, kept }) => format!("told buffer {len} {kept}"),
            Step::Report(Reported::Sidecar { name }) => format!("told sidecar {name}"),
            Step::Report(Reported::Checksums { segment }) => format!("told checksums {segment}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let step = match word {
            "segment" => {
                let number = words.next()?;
                let Kind::Segment(number) = Kind::of(number.as_ref()) else { return None };
                Step::Segment(NewSegment {
                    number,
                    temporary: temporary_name(words.next()?)?,
                    kept: own_name(words.next()?)?,
                    old: parse_identity(words.next()?)?,
                    old_len: words.next()?.parse().ok()?,
                    new: parse_identity(words.next()?)?,
                    new_len: words.next()?.parse().ok()?,
                    records: words.next()?.parse().ok()?,
                    removed: words.next()?.parse().ok()?,
                    markers: parse_markers(words.next()?)?,
                })
            }
            "put" => Step::Put { temporary: temporary_name(words.next()?)?, name: own_name(words.next()?)? },
            "remove" => Step::Remove { name: own_name(words.next()?)? },
            "write" => Step::Write { name: own_name(words.next()?)?, bytes: unhex(words.next()?)? },
            "checkpoint" => {
                let moved = Moved::parse(rest)?;
                return Some(Step::Checkpoint {
                    name: moved.name,
                    holds: moved.held,
                    to: moved.to,
                    why: moved.why,
                });
            }
            "told" => {
                let (what, rest) = rest.split_once(' ')?;
                let why = rest.to_owned();
                return Some(Step::Report(match what {
                    "metastore" => Reported::Metastore { why },
                    "settings" => Reported::Settings { why },
                    "buffer" => {
                        let (len, kept) = rest.split_once(' ')?;
                        Reported::Buffer { len: len.parse().ok()?, kept: own_name(kept)? }
                    }
                    "sidecar" => Reported::Sidecar { name: own_name(rest)? },
                    "checksums" => Reported::Checksums { segment: rest.parse().ok()? },
                    _ => return None,
                }));
            }
            _ => return None,
        };
        words.next().is_none().then_some(step)
    }
}

impl Moved {
    fn to_text(&self) -> String {
        format!("{} {} {} {}", self.name.checkpoint_file(), hex(&self.held), self.to, line_end(&self.why))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        Some(Self {
            name: subscriber(parts.next()?)?,
            held: unhex(parts.next()?)?,
            to: LogId::from_str(parts.next()?).ok()?,
            why: parts.next()?.to_owned(),
        })
    }
}

impl Journal {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// The bytes that are published.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for step in &self.steps {
            text.push_str(&step.to_line());
            text.push('\n');
        }
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc {crc:08x}\n"));
        text.into_bytes()
    }

    /// Reads a journal; `None` if it is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let crc = memchr::memmem::find(bytes, b"\ncrc ")? + 1;
        let listed = std::str::from_utf8(&bytes[..crc]).ok()?;
        let crc_line = bytes.get(crc..crc + b"crc 00000000\n".len())?;
        if crc_line != format!("crc {:08x}\n", crc32fast::hash(listed.as_bytes())).as_bytes() {
            return None;
        }
        let mut lines = listed.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut journal = Self { steps: lines.map(Step::parse).collect::<Option<_>>()?, ..Self::default() };
        journal.end = crc + crc_line.len();
        // A line that was being appended when the machine stopped is missing.
        while let Some(rest) = bytes.get(journal.end..)
            && let Some(len) = memchr::memchr(b'\n', rest)
            && let Ok(line) = std::str::from_utf8(&rest[..len])
        {
            if line == DONE.trim_end() {
                journal.done = true;
            } else if let Some(text) = line.strip_prefix("moved ")
                && let Some((crc, text)) = text.split_once(' ')
                && crc == format!("{:08x}", crc32fast::hash(text.as_bytes()))
                && let Some(moved) = Moved::parse(text)
            {
                journal.moved.push(moved);
            } else {
                break;
            }
            journal.end += len + 1;
        }
        Some(journal)
    }

    fn segments(&self) -> impl Iterator<Item = &NewSegment> {
        self.steps.iter().filter_map(|step| if let Step::Segment(s) = step { Some(s) } else { None })
    }

    /// The new place of a checkpoint with these bytes, and the reason; `None` if it stays.
    fn target(&self, name: &SubscriberName, held: &[u8]) -> Option<(LogId, String)> {
        let planned = self.steps.iter().find_map(|step| match step {
            Step::Checkpoint { name: planned, holds, to, why } if planned == name && holds == held => {
                Some((*to, why.clone()))
            }
            _ => None,
        });
        planned.or_else(|| {
            let id = decode_checkpoint(held)?;
            let segment = self.segments().find(|segment| segment.number == id.segment)?;
            let marker = id.marker - up_to(&segment.markers, id.marker).min(id.marker);
            (marker != id.marker)
                .then(|| (LogId::new(id.segment, marker), "records before it were damaged".to_owned()))
        })
    }
}

/// The right to repair, which one process has at a time: a guard on the file `repair.lock`, which
/// exists only while the process has that right.
#[derive(Debug)]
pub(crate) struct Lock<'a> {
    shared: &'a Shared,
    _guard: Guarded,
}

impl<'a> Lock<'a> {
    /// Takes it; `None` if another process has it.
    pub(crate) fn try_take(shared: &'a Shared) -> Result<Option<Self>> {
        let path = shared.at(names::REPAIR_LOCK);
        loop {
            let file = shared.open(names::REPAIR_LOCK, Open::Create(shared.file_mode))?;
            // Try twice: without the guard, the file's owner is unknown, and the file would stay.
            let taken = file.try_guard(true).or_else(|_| file.try_guard(true));
            if !taken.map_err(|e| Error::io("lock", &path, e))? {
                return Ok(None);
            }
            let guard = Guarded::new(file);
            let ours = guard.file().facts().or_else(|_| guard.file().facts());
            let ours = ours.map_err(|e| Error::io("lock", &path, e))?.identity;
            // The previous owner has removed the file, perhaps after it was opened here.
            if shared.facts(names::REPAIR_LOCK).is_ok_and(|facts| facts.identity == ours) {
                return Ok(Some(Self { shared, _guard: guard }));
            }
        }
    }

    /// Takes it, waiting at most this long for another owner.
    pub(crate) fn take(shared: &'a Shared, patience: Duration) -> Result<Option<Self>> {
        let begun = Instant::now();
        loop {
            match Self::try_take(shared)? {
                None if begun.elapsed() < patience => std::thread::sleep(POLL),
                other => return Ok(other),
            }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let name = names::REPAIR_LOCK;
        // A file that stays does no harm: the guard ends with this process.
        let _ = self.shared.remove_if_there(name).or_else(|_| self.shared.remove_if_there(name));
    }
}

/// Finishes an interrupted repair, or waits for the process that does. Returns what it did.
///
/// # Errors
/// [`Error::RepairUnfinished`] if it cannot be finished here, or takes too long.
pub(crate) fn finish(shared: &Shared) -> Result<Vec<Event>> {
    let begun = Instant::now();
    while shared.is_repair_pending()? {
        let unfinished = |why| Error::RepairUnfinished { path: shared.path.clone(), why };
        match Lock::try_take(shared) {
            Ok(Some(lock)) => {
                if shared.is_repair_pending()? {
                    return roll_forward(shared, &lock);
                }
            }
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(POLL),
            Ok(None) => return Err(unfinished("another process is working on it")),
            // A process with permission to write may be finishing it.
            Err(Error::Io { source, .. }) if is_refused(&source) => {
                if begun.elapsed() >= PATIENCE_OF_READERS {
                    return Err(unfinished("it must be finished by a user who has permission to write"));
                }
                std::thread::sleep(POLL);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Vec::new())
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Reads the existing journal.
fn load(shared: &Shared) -> Result<(Arc<dyn File>, Journal)> {
    let path = shared.at(names::REPAIR_JOURNAL);
    let file = shared.open(names::REPAIR_JOURNAL, Open::Write)?;
    let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", &path, e))?;
    let damaged = || Error::RepairUnfinished { path: shared.path.clone(), why: "its journal is damaged" };
    Ok((file, Journal::parse(&bytes).ok_or_else(damaged)?))
}

/// Renames a journal that cannot be read; the damage that it listed is searched for again.
pub(crate) fn set_aside_damaged(shared: &Shared, _lock: &Lock<'_>) -> Result<()> {
    if !shared.is_repair_pending()? || !matches!(load(shared), Err(Error::RepairUnfinished { .. })) {
        return Ok(());
    }
    let file = shared.open(names::REPAIR_JOURNAL, Open::Read)?;
    let path = shared.at(names::REPAIR_JOURNAL);
    let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", &path, e))?;
    shared.keep_broken(names::REPAIR_JOURNAL, 0, &bytes)?;
    shared.remove_if_there(names::REPAIR_JOURNAL)?;
    shared.sync_dir()
}

/// Carries out the journal from the beginning; finished steps are left as they are.
pub(crate) fn roll_forward(shared: &Shared, lock: &Lock<'_>) -> Result<Vec<Event>> {
    let (file, mut journal) = load(shared)?;
    let mut events = Vec::new();
    if !journal.done && !is_void(shared, &journal)? {
        // After a power failure, the journal must exist before any of its effects.
        shared.sync_dir()?;
        move_checkpoints(shared, &*file, &mut journal)?;
        for step in &journal.steps {
            apply(shared, step)?;
        }
        shared.sync_dir()?;
        events = journal.events(shared);
        for event in &events {
            shared.note(event.clone());
        }
        // A journal whose removal a power failure undoes must not be followed again.
        append(shared, &*file, &mut journal, DONE)?;
    }
    sweep_temporaries(shared, lock)?;
    shared
        .remove_if_there(names::REPAIR_JOURNAL)
        .or_else(|_| shared.remove_if_there(names::REPAIR_JOURNAL))?;
    // If a power failure brings the journal back, its last line is `done`.
    let _ = shared.sync_dir();
    Ok(events)
}

/// Removes the files of a repair that never happened.
pub(crate) fn sweep_temporaries(shared: &Shared, _lock: &Lock<'_>) -> Result<()> {
    for name in shared.names()? {
        if Kind::of(&name) == Kind::RepairTemporary
            && let Some(name) = name.to_str()
        {
            shared.remove_if_there(name).or_else(|_| shared.remove_if_there(name))?;
        }
    }
    Ok(())
}

/// Whether a journal was withdrawn, and a power failure has undone that: the files that it names do
/// not exist.
fn is_void(shared: &Shared, journal: &Journal) -> Result<bool> {
    for segment in journal.segments() {
        let name = names::segment(segment.number);
        let there = match shared.facts(&name) {
            Ok(facts) => facts,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("look at", shared.at(&name), e)),
        };
        let replaced = there.identity == segment.new || there.len == segment.new_len;
        if journal.moved.is_empty() && !replaced && !shared.is_there(&segment.temporary)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn append(shared: &Shared, file: &dyn File, journal: &mut Journal, line: &str) -> Result<()> {
    let path = || shared.at(names::REPAIR_JOURNAL);
    write_all_at(file, &mut [IoSlice::new(line.as_bytes())], journal.end as u64)
        .map_err(|e| Error::io("write", path(), e))?;
    file.sync_data().map_err(|e| Error::io("sync", path(), e))?;
    journal.end += line.len();
    Ok(())
}

fn move_checkpoints(shared: &Shared, file: &dyn File, journal: &mut Journal) -> Result<()> {
    for name in shared.subscribers()? {
        let checkpoint = match Checkpoint::open(shared, &name) {
            Ok(checkpoint) => checkpoint,
            // Unsubscribed meanwhile, or never one.
            Err(Error::UnknownSubscriber { .. } | Error::NotAFile { .. }) => continue,
            Err(e) => return Err(e),
        };
        checkpoint.repair(|held| {
            if let Some(moved) = journal.moved.iter().find(|moved| moved.name == name) {
                // Its current contents were stored after it was moved.
                return Ok((moved.held == held).then_some(moved.to));
            }
            let Some((to, why)) = journal.target(&name, held) else { return Ok(None) };
            let moved = Moved { name: name.clone(), held: held.to_vec(), to, why };
            let text = moved.to_text();
            let line = format!("moved {:08x} {text}\n", crc32fast::hash(text.as_bytes()));
            append(shared, file, journal, &line)?;
            journal.moved.push(moved);
            Ok(Some(to))
        })?;
    }
    Ok(())
}

fn apply(shared: &Shared, step: &Step) -> Result<()> {
    match step {
        Step::Segment(segment) => replace_segment(shared, segment),
        Step::Put { temporary, name } => put(shared, temporary, name),
        Step::Remove { name } => shared.remove_if_there(name).map(|_| ()),
        Step::Write { name, bytes } => {
            let path = shared.at(name);
            let fail = |e| Error::io("write", &path, e);
            let file = shared.open(name, Open::Write)?;
            let _lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &path, e))?;
            write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).map_err(fail)?;
            if name == names::METASTORE {
                file.set_len(METASTORE_LEN as u64).map_err(fail)?;
            }
            file.sync_data().map_err(fail)
        }
        Step::Checkpoint { .. } | Step::Report(_) => Ok(()),
    }
}

fn put(shared: &Shared, temporary: &str, name: &str) -> Result<()> {
    let (from, to) = (shared.at(temporary), shared.at(name));
    match shared.storage.rename(&from, &to) {
        Ok(()) => Ok(()),
        // It has its name already.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("create", to, e)),
    }
}

fn replace_segment(shared: &Shared, segment: &NewSegment) -> Result<()> {
    if !shared.is_there(&segment.temporary)? {
        return Ok(());
    }
    let name = names::segment(segment.number);
    let path = shared.at(&name);
    let fail = |e| Error::io("read", &path, e);
    let Some(old) = shared.open_if_there(&name, Open::Read)? else {
        // Passed by every subscriber, and removed meanwhile.
        return shared.remove_if_there(&segment.temporary).map(|_| ());
    };
    // A C writer may be waiting that began before the repair was interrupted.
    let _lock = LockGuard::new(&*old).map_err(|e| Error::io("lock", &path, e))?;
    let len = old.len().map_err(fail)?;
    if len > segment.old_len {
        // Bytes that were written since.
        let new = shared.open(&segment.temporary, Open::Write)?;
        copy(&*old, segment.old_len, len - segment.old_len, &new, segment.new_len).map_err(fail)?;
        new.sync_data().map_err(|e| Error::io("sync", shared.at(&segment.temporary), e))?;
    }
    shared.remove_if_there(&names::index(segment.number))?;
    shared.remove_if_there(&names::checksums(segment.number))?;
    put(shared, &segment.temporary, &name)
}

impl Journal {
    /// The actions so far, in order.
    fn events(&self, shared: &Shared) -> Vec<Event> {
        let reported = self.steps.iter().filter_map(|step| match step {
            Step::Segment(s) => Some(Event::SegmentRepaired {
                segment: s.number,
                records: s.records,
                removed: s.removed,
                kept: shared.at(&s.kept),
            }),
            Step::Report(Reported::Metastore { why }) => Some(Event::MetastoreRepaired { why: why.clone() }),
            Step::Report(Reported::Settings { why }) => Some(Event::SettingsRepaired { why: why.clone() }),
            Step::Report(Reported::Buffer { len, kept }) => {
                Some(Event::BufferTruncated { len: *len, kept: shared.at(kept) })
            }
            Step::Report(Reported::Sidecar { name }) => Some(Event::SidecarRemoved { path: shared.at(name) }),
            &Step::Report(Reported::Checksums { segment }) => Some(Event::ChecksumsReplaced { segment }),
            _ => None,
        });
        let moved = self.moved.iter().map(|moved| Event::CheckpointRepaired {
            subscriber: moved.name.to_string(),
            to: moved.to,
            why: moved.why.clone(),
        });
        reported.chain(moved).collect()
    }
}

/// Removes the files of a repair that was interrupted before anything had changed. Leaves them if a
/// repair is running.
pub(crate) fn sweep(shared: &Shared) -> Result<()> {
    if let Some(lock) = Lock::try_take(shared)?
        && !shared.is_repair_pending()?
    {
        sweep_temporaries(shared, &lock)?;
    }
    Ok(())
}

pub(crate) fn copy(from: &dyn File, offset: u64, len: u64, to: &Arc<dyn File>, at: u64) -> io::Result<()> {
    let mut buf = vec![0; WINDOW];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(WINDOW).min(WINDOW);
        let n = read_up_to_at(from, &mut buf[..want], offset + done)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(&**to, &mut [io::IoSlice::new(&buf[..n])], at + done)?;
        done += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let name = SubscriberName::new("one").unwrap();
        Journal::new(vec![
            Step::Segment(NewSegment {
                number: 0xab,
                temporary: ".tmp-repair-1-2".to_owned(),
                kept: "000000ab.broken-17".to_owned(),
                old: (1, 2),
                old_len: 99,
                new: (1, 3),
                new_len: 70,
                records: 4,
                removed: 29,
                markers: vec![Removed { first: 3, count: 1 }, Removed { first: 7, count: 2 }],
            }),
            Step::Put { temporary: ".tmp-repair-1-3".to_owned(), name: "000000ab.repaired".to_owned() },
            Step::Remove { name: "000000ac.idx".to_owned() },
            Step::Write { name: "metastore".to_owned(), bytes: vec![0, 1, 0xfe] },
            Step::Checkpoint {
                name: name.clone(),
                holds: Vec::new(),
                to: LogId::new(1, 2),
                why: "it was\nempty".to_owned(),
            },
            Step::Report(Reported::Metastore { why: "it was missing".to_owned() }),
            Step::Report(Reported::Settings { why: "line 1: what?".to_owned() }),
            Step::Report(Reported::Buffer { len: 3, kept: "pre_commit.broken-0".to_owned() }),
            Step::Report(Reported::Sidecar { name: "000000ac.idx".to_owned() }),
            Step::Report(Reported::Checksums { segment: 0xac }),
        ])
    }

    #[test]
    fn a_journal_is_read_as_it_is_written() {
        let bytes = journal().encode();
        let mut expected = journal();
        expected.end = bytes.len();
        let Some(Step::Checkpoint { why, .. }) = expected.steps.get_mut(4) else { unreachable!() };
        *why = "it was empty".to_owned();
        assert_eq!(Journal::parse(&bytes).unwrap(), expected);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x04;
            assert_eq!(Journal::parse(&damaged), None, "byte {at}");
            assert_eq!(Journal::parse(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn what_was_appended_counts_as_far_as_it_is_whole() {
        let mut bytes = journal().encode();
        let moved = Moved {
            name: SubscriberName::new("two").unwrap(),
            held: vec![1; 8],
            to: LogId::new(0xab, 2),
            why: "so".to_owned(),
        };
        let text = moved.to_text();
        let line = format!("moved {:08x} {text}\n", crc32fast::hash(text.as_bytes()));
        let begun = bytes.len();
        bytes.extend_from_slice(line.as_bytes());
        for at in begun..bytes.len() {
            let parsed = Journal::parse(&bytes[..at]).unwrap();
            assert_eq!((parsed.moved, parsed.end), (Vec::new(), begun), "cut at {at}");
        }
        bytes.extend_from_slice(b"done\n");
        let parsed = Journal::parse(&bytes).unwrap();
        assert_eq!((parsed.moved, parsed.done, parsed.end), (vec![moved], true, bytes.len()));
    }

    #[test]
    fn a_journal_names_nothing_but_files_of_the_jlog() {
        for line in [
            "put .tmp-repair-1 ../x",
            "put .tmp-repair-1 repair.journal",
            "put .tmp-repair-/x metastore",
            "put metastore settings",
            "put .tmp-repair-1 x",
            "remove x",
            "remove /etc/passwd",
            "write x 00",
            "write metastore 0",
            "segment 1 .tmp-repair-1 00000001.broken-1 1:1 1 1:2 1 1 1 -",
            "told buffer 1 x",
            "unknown step",
        ] {
            assert_eq!(Step::parse(line), None, "{line}");
        }
    }

    #[test]
    fn checkpoints_go_where_their_records_went() {
        let name = SubscriberName::new("one").unwrap();
        let target = |segment: u32, marker: u32| {
            let held = crate::codec::format::encode_checkpoint(LogId::new(segment, marker));
            journal().target(&name, &held).map(|(to, _)| to)
        };
        assert_eq!(target(0xab, 2), None);
        assert_eq!(target(0xac, 20), None);
        assert_eq!(target(0xab, 3), Some(LogId::new(0xab, 2)));
        assert_eq!(target(0xab, 9), Some(LogId::new(0xab, 6)));
        assert_eq!(journal().target(&name, b""), Some((LogId::new(1, 2), "it was\nempty".to_owned())));
        assert_eq!(journal().target(&SubscriberName::new("two").unwrap(), b""), None);
    }
}
