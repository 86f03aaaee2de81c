//! Repair: what an operator asks for when a jlog is damaged. Every intact record and every checkpoint stays;
//! what is taken out is kept aside first. Nobody may write meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::checkpoint::{self, Checkpoint};
use crate::checksum::{self, Run, Verifier};
use crate::format::{
    COMPRESSED_HEADER_LEN, Compression, DEFAULT_SEGMENT_SIZE, METASTORE_LEN, Meta, MetaFault,
    OLD_METASTORE_LEN, RecordFormat, Safety,
};
use crate::names::{self, Kind, SubscriberName};
use crate::scan::{WINDOW, Window, walk};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::storage::{File, FileKind, Guarded, LockGuard, Open, read_all, read_up_to_at};
use crate::survey::{Item, Place, Survey};
use crate::verify::{self, IndexCheck};
use crate::{Error, Event, LogId, Result, recovery};

/// Repairs a jlog directory and returns what was done, in order.
pub(crate) fn repair(shared: &Shared) -> Result<Vec<Event>> {
    let dir = shared
        .storage
        .facts(&shared.path)
        .map_err(|e| shared.not_a_jlog(Error::io("open", &shared.path, e)))?;
    if dir.kind != FileKind::Directory {
        return Err(Error::NotAJlog { path: shared.path.clone(), why: "it is not a directory" });
    }
    let mut repair = Repair { shared, done: Vec::new() };
    repair.run(true)?;
    Ok(repair.done)
}

/// Repairs metastore and checkpoints only.
pub(crate) fn repair_names(shared: &Shared) -> Result<Vec<Event>> {
    let mut repair = Repair { shared, done: Vec::new() };
    repair.run(false)?;
    Ok(repair.done)
}

/// Repairs one segment of a jlog whose metastore is sound.
pub(crate) fn repair_one(shared: &Shared, number: u32) -> Result<Vec<Event>> {
    let mut repair = Repair { shared, done: Vec::new() };
    let meta = crate::meta::MetaReader::open(shared)?.get()?;
    let file = shared.open(&names::segment(number), Open::Read)?;
    // Nobody writes to a complete segment, nor needs to be kept out where there is nothing to do.
    let len = file.len().map_err(|e| Error::io("read", shared.at(&names::segment(number)), e))?;
    let last = number >= meta.storage_log;
    if last && Intact::find(shared, meta.format, number, &*file, len, last)?.bytes == len {
        return Ok(repair.done);
    }
    let _guard = if last { repair.guard()? } else { None };
    repair.repair_segment(number, meta.format, number >= meta.storage_log)?;
    Ok(repair.done)
}

struct Repair<'a> {
    shared: &'a Shared,
    done: Vec<Event>,
}

impl Repair<'_> {
    fn note(&mut self, event: Event) {
        self.shared.note(event.clone());
        self.done.push(event);
    }

    fn run(&mut self, all: bool) -> Result<()> {
        let shared = self.shared;
        let has_metastore = shared.exists(names::METASTORE);
        let segments = shared.segments()?;
        if !has_metastore && segments.is_empty() && shared.subscribers()?.is_empty() {
            return Err(Error::NotAJlog {
                path: shared.path.clone(),
                why: "the directory has neither a metastore nor segments",
            });
        }
        // Held to the end, so that no writer begins; one that is there refuses us.
        let mut guard = self.guard()?;
        let segments = self.set_aside_stale(segments)?;
        let last = segments.last().copied();
        let old = self.is_old(&segments)?;
        let format = self.format(old, &segments)?;
        if old {
            for &number in &segments {
                self.upgrade_segment(number)?;
            }
        }
        self.repair_metastore(format, last)?;
        if guard.is_none() {
            guard = self.guard()?;
        }
        let storage_log = crate::meta::MetaReader::open(shared)?.get()?.storage_log;
        for number in if all { segments } else { Vec::new() } {
            self.repair_segment(number, format, number >= storage_log)?;
        }
        self.repair_checkpoints(format)?;
        if all {
            self.repair_buffer()?;
            self.repair_settings()?;
            crate::retention::sweep(shared)?;
            // Nothing brings them back; their subscribers are told when they come there.
            for (subscriber, lost) in crate::lost::report(shared)? {
                self.note(Event::SegmentsLost { subscriber: subscriber.to_string(), lost });
            }
        }
        drop(guard);
        Ok(())
    }

    /// Sets segments aside that are left of a newer feed, where a sound metastore tells them from others; returns those
    /// that stay.
    fn set_aside_stale(&mut self, segments: Vec<u32>) -> Result<Vec<u32>> {
        let Ok(meta) = Meta::decode(&self.metastore_bytes()?) else { return Ok(segments) };
        let stale =
            recovery::beyond(self.shared, meta.storage_log, meta.segment_size.into(), Some(&segments))?.stale;
        for &number in &stale {
            if let Some(event) = recovery::set_aside_stale(self.shared, number)? {
                self.note(event);
            }
        }
        Ok(segments.into_iter().filter(|number| !stale.contains(number)).collect())
    }

    /// Keeps writers out, if there is a metastore to do it with.
    fn guard(&self) -> Result<Option<Guarded>> {
        let Some(file) = self.shared.open_if_there(names::METASTORE, Open::Write)? else { return Ok(None) };
        let path = self.shared.at(names::METASTORE);
        if !file.try_guard(true).map_err(|e| Error::io("lock", path, e))? {
            return Err(Error::WriterBusy { path: self.shared.path.clone() });
        }
        Ok(Some(Guarded(file)))
    }

    fn metastore_bytes(&self) -> Result<Vec<u8>> {
        match self.shared.open_if_there(names::METASTORE, Open::Read)? {
            None => Ok(Vec::new()),
            Some(file) => read_all(&*file, METASTORE_LEN)
                .map_err(|e| Error::io("read", self.shared.at(names::METASTORE), e)),
        }
    }

    /// Whether this is a jlog from before header magics: its metastore is short, and its records do not say
    /// otherwise.
    fn is_old(&self, segments: &[u32]) -> Result<bool> {
        Ok(self.metastore_bytes()?.len() == OLD_METASTORE_LEN && self.segments_say(segments)?.0.is_none())
    }

    /// The layout that the first records of the segments have, if they all have one and the same; and whether
    /// there are any bytes.
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

    /// The layout of the records: as the metastore says, or, where it does not, as the segments show.
    fn format(&self, old: bool, segments: &[u32]) -> Result<RecordFormat> {
        if old {
            return Ok(RecordFormat::new(Compression::None));
        }
        // The records know best: a metastore with a changed bit must not make all of them look damaged.
        let (said, any_bytes) = self.segments_say(segments)?;
        if let Some(format) = said {
            return Ok(format);
        }
        let bytes = self.metastore_bytes()?;
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

    fn repair_metastore(&mut self, format: RecordFormat, last: Option<u32>) -> Result<()> {
        let bytes = self.metastore_bytes()?;
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
                    // Without a segment of that number a writer would begin one: that is no fault, unless
                    // segments behind it are there.
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
            return Ok(());
        }
        let name = names::METASTORE;
        if bytes.is_empty() {
            self.shared.replace_file(name, &meta.encode())?;
        } else {
            // In place: whoever has it mapped sees the change.
            let path = self.shared.at(name);
            let file = self.shared.open(name, Open::Write)?;
            let _lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &path, e))?;
            let fail = |e| Error::io("write", &path, e);
            self.shared.keep_broken(name, 0, &bytes)?;
            crate::storage::write_all_at(&*file, &mut [io::IoSlice::new(&meta.encode())], 0).map_err(fail)?;
            file.set_len(METASTORE_LEN as u64).map_err(fail)?;
            file.sync_data().map_err(fail)?;
        }
        self.note(Event::MetastoreRepaired { why });
        Ok(())
    }

    /// Gives the records of a segment from before header magics the magic of today.
    fn upgrade_segment(&mut self, number: u32) -> Result<()> {
        let old = RecordFormat::old();
        let new = RecordFormat::new(Compression::None);
        let name = names::segment(number);
        let fail = |e| Error::io("read", self.shared.at(&name), e);
        let Some(file) = self.shared.open_if_there(&name, Open::Read)? else { return Ok(()) };
        let len = file.len().map_err(fail)?;
        let mut window = Window::default();
        let mut places = Vec::new();
        walk(&*file, old, 0, len, &mut window, |offset, header, _| places.push((offset, *header)))
            .map_err(fail)?;
        if places.is_empty() {
            // Upgraded by a repair that was cut short, or empty.
            return Ok(());
        }
        let temporary = self.shared.create_temporary()?;
        copy(&*file, 0, len, &temporary.file, 0).map_err(fail)?;
        let mut head = [0; COMPRESSED_HEADER_LEN];
        for (offset, header) in places {
            new.encode(&header, &mut head);
            temporary.write(&head[..new.header_len()], offset)?;
        }
        temporary.sync()?;
        let kept = self.keep_segment(number, 0)?;
        temporary.rename(&name)?;
        self.shared.sync_dir()?;
        let records = verify::inspect_with(self.shared, number, new)?.records;
        let kept = self.shared.at(&kept);
        self.note(Event::SegmentRepaired { segment: number, records, removed: 0, kept });
        Ok(())
    }

    /// Gives a segment a second name under which it is kept.
    fn keep_segment(&self, number: u32, offset: u64) -> Result<String> {
        let name = names::segment(number);
        let mut keep = names::broken(&name, offset);
        for n in 1u64.. {
            match self.shared.storage.link(&self.shared.at(&name), &self.shared.at(&keep)) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    keep = names::broken(&format!("{name}.{n}"), offset);
                }
                Err(e) => return Err(Error::io("keep", self.shared.at(&keep), e)),
            }
        }
        Ok(keep)
    }

    /// Takes damaged parts out of a segment. The segment is made anew beside the old one, which is kept, and
    /// takes its name when it is whole: nobody who has the old one open or mapped is disturbed.
    fn repair_segment(&mut self, number: u32, format: RecordFormat, last: bool) -> Result<()> {
        let shared = self.shared;
        let name = names::segment(number);
        let fail = |e| Error::io("read", shared.at(&name), e);
        let file = match shared.open(&name, Open::Write) {
            Ok(file) => file,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let _lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", shared.at(&name), e))?;
        let len = file.len().map_err(fail)?;
        let intact = Intact::find(shared, format, number, &*file, len, last)?;
        let removed = len - intact.bytes;
        if removed > 0 {
            let kept = self.keep_segment(number, intact.first_damage)?;
            let temporary = shared.create_temporary()?;
            let mut to = 0;
            for &(from, bytes) in &intact.pieces {
                copy(&*file, from, bytes, &temporary.file, to).map_err(fail)?;
                to += bytes;
            }
            temporary.sync()?;
            // First, so that a checkpoint is never ahead of its record: a crash in between shows some
            // messages twice, and skips none.
            for (subscriber, id) in checkpoint::all(shared)? {
                let Some(id) = id.filter(|id| id.segment == number) else { continue };
                let before = intact.dropped.iter().filter(|&&marker| marker <= id.marker).count();
                let moved = LogId::new(number, id.marker - u32::try_from(before).unwrap_or(id.marker));
                if moved != id {
                    Checkpoint::open(shared, &subscriber)?.set(moved, Safety::Safe)?;
                    self.note(Event::CheckpointRepaired {
                        subscriber: subscriber.to_string(),
                        to: moved,
                        why: "records before it were damaged".to_owned(),
                    });
                }
            }
            shared.remove_if_there(&names::index(number))?;
            shared.remove_if_there(&names::checksums(number))?;
            temporary.rename(&name)?;
            shared.sync_dir()?;
            if intact.had_checksums {
                let file = shared.open(&name, Open::Read)?;
                let runs: Vec<Run> =
                    checksum::compute(&file, format, to).map_err(fail)?.into_iter().collect();
                checksum::replace(shared, number, &runs)?;
            }
            let kept = shared.at(&kept);
            self.note(Event::SegmentRepaired { segment: number, records: intact.records, removed, kept });
            return Ok(());
        }
        if intact.stale_checksums {
            shared.remove_if_there(&names::checksums(number))?;
            self.note(Event::SidecarRemoved { path: shared.at(&names::checksums(number)) });
        }
        if intact.bad_index {
            shared.remove_if_there(&names::index(number))?;
            self.note(Event::SidecarRemoved { path: shared.at(&names::index(number)) });
        }
        Ok(())
    }

    /// Moves checkpoints into the range of what there is. Those of temporary subscribers are left alone.
    fn repair_checkpoints(&mut self, format: RecordFormat) -> Result<()> {
        let shared = self.shared;
        let storage_log = crate::meta::MetaReader::open(shared)?.get()?.storage_log;
        let segments = shared.segments()?;
        let first = segments.first().copied().unwrap_or(storage_log).min(storage_log);
        let records = |number: u32| -> Result<u32> {
            match verify::inspect_with(shared, number, format) {
                Ok(inspection) => Ok(inspection.records),
                Err(e) if e.is_not_found() => Ok(0),
                Err(e) => Err(e),
            }
        };
        let names: Vec<SubscriberName> = shared
            .list()?
            .into_iter()
            .filter_map(|kind| if let Kind::Checkpoint(name) = kind { Some(name) } else { None })
            .filter(|name| !name.is_temporary())
            .collect();
        let lost = crate::lost::all(shared)?;
        for name in names {
            let (to, why) = match checkpoint::read(shared, &name) {
                // Its reader reports what it has lost, and moves on.
                Ok(Some(id))
                    if lost.iter().any(|(loser, _)| *loser == name)
                        && !shared.exists(&names::segment(id.segment)) =>
                {
                    continue;
                }
                Ok(Some(id)) if id.segment < first => {
                    (LogId::new(first, 0), "its segment was gone".to_owned())
                }
                Ok(Some(id)) if id.segment > storage_log => {
                    (LogId::new(storage_log, records(storage_log)?), format!("{id} was beyond the end"))
                }
                Ok(Some(id)) => {
                    let last = if id.marker == 0 { 0 } else { records(id.segment)? };
                    if id.marker <= last {
                        continue;
                    }
                    (LogId::new(id.segment, last), format!("{id} was past the end of its segment"))
                }
                // Messages again are better than messages left out without a word.
                Ok(None) | Err(Error::Checkpoint { .. }) => {
                    (LogId::new(first, 0), "its checkpoint could not be read".to_owned())
                }
                Err(Error::UnknownSubscriber { .. }) => continue,
                Err(e) => return Err(e),
            };
            let checkpoint = Checkpoint::open(shared, &name)?;
            checkpoint.set(to, Safety::Safe)?;
            self.note(Event::CheckpointRepaired { subscriber: name.to_string(), to, why });
        }
        Ok(())
    }

    /// Settings that cannot be read are kept aside and made anew: with checksums, if there are any.
    fn repair_settings(&mut self) -> Result<()> {
        let shared = self.shared;
        let Err(Error::Settings { path, line, why }) = Settings::load(&*shared.storage, &shared.path) else {
            return Ok(());
        };
        let file = shared.open(names::SETTINGS, Open::Read)?;
        let bytes = read_all(&*file, 64 << 10).map_err(|e| Error::io("read", &path, e))?;
        shared.keep_broken(names::SETTINGS, 0, &bytes)?;
        let checksums = shared.list()?.iter().any(|kind| matches!(kind, Kind::Checksums(_)));
        Settings { checksums, ..Settings::default() }.store(shared)?;
        self.note(Event::SettingsRepaired { why: format!("line {line}: {why}") });
        Ok(())
    }

    /// A pre-commit file that is too short to be one, or says that it holds more than it can, is kept aside;
    /// writers mend everything else.
    fn repair_buffer(&mut self) -> Result<()> {
        let shared = self.shared;
        let Some((used, size)) = crate::precommit::fill(shared)? else { return Ok(()) };
        let file = shared.open(names::PRE_COMMIT, Open::Write)?;
        let path = shared.at(names::PRE_COMMIT);
        let fail = |e| Error::io("write", &path, e);
        let len = file.len().map_err(fail)?;
        if len >= 4 && used <= size {
            return Ok(());
        }
        let bytes = read_all(&*file, 129 << 20).map_err(fail)?;
        let kept = shared.keep_broken(names::PRE_COMMIT, 0, &bytes)?;
        if len < 4 {
            crate::precommit::create(shared, 0)?;
        } else {
            // The writer that opens it finds the whole records in all of it.
            let all = u32::try_from(size).unwrap_or(0).to_le_bytes();
            crate::storage::write_all_at(&*file, &mut [io::IoSlice::new(&all)], 0).map_err(fail)?;
        }
        self.note(Event::BufferCut { len, kept: shared.at(&kept) });
        Ok(())
    }
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
    ) -> Result<Self> {
        let mut verifier = Verifier::load(shared, number);
        let mut index = IndexCheck::open(shared, number)?;
        let mut out = Self { had_checksums: !verifier.is_empty(), first_damage: len, ..Self::default() };
        Survey { file, format, verifier: &mut verifier, to: len, check: true }
            .run(Place::default(), |item| {
                match item {
                    Item::Record(found) => {
                        // Records that were lost without a trace shift those behind them, too.
                        out.missing_before(found.marker);
                        out.keep(found.offset, found.total);
                        index.record(found.offset);
                    }
                    Item::Damage(stretch) => {
                        out.missing_before(stretch.marker);
                        out.first_damage = out.first_damage.min(stretch.offset);
                        out.dropped.push(stretch.marker);
                    }
                }
                ControlFlow::Continue(())
            })
            .map_err(|e| Error::io("read", shared.at(&names::segment(number)), e))?;
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

fn copy(from: &dyn File, offset: u64, len: u64, to: &Arc<dyn File>, at: u64) -> io::Result<()> {
    let mut buf = vec![0; WINDOW];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(WINDOW).min(WINDOW);
        let n = read_up_to_at(from, &mut buf[..want], offset + done)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crate::storage::write_all_at(&**to, &mut [io::IoSlice::new(&buf[..n])], at + done)?;
        done += n as u64;
    }
    Ok(())
}
