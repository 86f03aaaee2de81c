//! Checks a jlog without changing it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::codec::format::RecordFormat;
use crate::codec::names::{self, Kind};
use crate::files::checksum::Verifier;
use crate::files::scan::{Place, Window, walk};
use crate::files::shared::Shared;
use crate::files::{checkpoint, index, metastore as meta, precommit};
use crate::plural::counted;
use crate::storage::{File, LockGuard, Open, read_all};
use crate::subscriber::SubscriberName;
use crate::upkeep::progress::{Ticker, VerifyOptions};
use crate::walk::lost;
use crate::walk::lost::Missing;
use crate::walk::survey::{Fault, Item, Survey};
use crate::{Error, LogId, Lost, Result, Timestamp};

/// A finding: damage, or something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The offset, if it is about a place.
    pub offset: Option<u64>,
    /// The affected record, or the next one after the place.
    pub id: Option<LogId>,
    /// What is wrong.
    pub what: String,
    /// Whether data or checkpoints are damaged. Otherwise nothing is lost: the next writer or
    /// reader fixes it, or it is harmless.
    pub damage: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, "offset {offset}: ")?;
        }
        if let Some(id) = self.id {
            write!(f, "record {id}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Number of segments checked.
    pub segments: u32,
    /// Intact records.
    pub records: u64,
    /// Intact records that were checked against a checksum. The others have none, or none that
    /// describes them.
    pub verified: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Whether data or checkpoints are damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage)
    }
}

/// A record in the list of `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its id.
    pub id: LogId,
    /// Its offset in the segment.
    pub offset: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Length of the message in bytes.
    pub len: u32,
    /// Length of the stored body in bytes.
    pub stored: u32,
}

/// The summary of a segment by `inspect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Number of the segment.
    pub segment: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its whole records before any damage.
    pub records: u32,
    /// The offset of their end.
    pub whole_until: u64,
    /// Time of the first record.
    pub first: Option<Timestamp>,
    /// Time of the last whole record.
    pub last: Option<Timestamp>,
    /// The contents of its index, if there is a valid one.
    pub index: Option<crate::IndexState>,
    /// How many records its checksums cover.
    pub checksummed: u32,
}

/// At most this many findings of a segment are listed; further ones are only counted.
const FINDINGS_MAX: usize = 1000;

/// Checks everything.
pub(crate) fn verify(shared: &Shared, options: &VerifyOptions) -> Result<Verification> {
    let mut out = Verification::default();
    let metastore = shared.at(names::METASTORE);
    if let Some(fault) = meta::fault(shared)? {
        out.findings.push(Finding {
            path: metastore.clone(),
            offset: None,
            id: None,
            what: fault.to_string(),
            damage: true,
        });
        return Ok(out);
    }
    // In this order: a segment that is begun meanwhile is not beyond the one in the metastore.
    let segments = shared.segments()?;
    let meta = meta::MetaReader::open(shared)?.get()?;
    let mut note = |path: PathBuf, what: String, damage: bool| {
        out.findings.push(Finding { path, offset: None, id: None, what, damage });
    };
    if let Some(&last) = segments.last()
        && last > meta.storage_log
        && meta::MetaReader::open(shared)?.get_locked()?.storage_log < last
    {
        let what = format!("names {:08x} as the last segment, but {last:08x} exists", meta.storage_log);
        note(metastore, what, true);
    }
    for (path, owner, expected) in foreign_owners(shared)? {
        note(path, format!("belongs to user {owner}, the directory to user {expected}"), false);
    }
    let mut records = std::collections::HashMap::new();
    let checked = options.run(shared, &segments, |number, ticker| {
        verify_segment(shared, meta.format, number, meta.storage_log, ticker)
    })?;
    for (&number, (last, part)) in segments.iter().zip(checked) {
        records.insert(number, last);
        out.segments += part.segments;
        out.records += part.records;
        out.verified += part.verified;
        out.bytes += part.bytes;
        out.findings.extend(part.findings);
    }
    verify_no_gaps(shared, &mut out)?;
    verify_checkpoints(shared, &records, &mut out)?;
    verify_buffer(shared, meta.format, &mut out)?;
    Ok(out)
}

/// Looks for missing segments: lost ones, and those that are only worth a note.
fn verify_no_gaps(shared: &Shared, out: &mut Verification) -> Result<()> {
    // A loss is reported once, from the point of view of the subscriber that is furthest behind.
    let mut losses: BTreeMap<u32, (Lost, Vec<SubscriberName>)> = BTreeMap::new();
    let missing = lost::now(shared)?;
    let mut cut: Vec<Lost> = missing.cut().collect();
    for (name, lost) in missing.lost_to_all(shared, &checkpoint::all(shared)?) {
        for lost in lost {
            cut.retain(|cut| !(lost.first..=lost.last).contains(&cut.first));
            let (most, names) = losses.entry(lost.last).or_insert_with(|| (lost, Vec::new()));
            if (lost.segments, lost.messages) > (most.segments, most.messages) {
                *most = lost;
            }
            names.push(name.clone());
        }
    }
    let segments = shared.segments()?;
    for pair in segments.windows(2) {
        let gap = pair[0] + 1..pair[1];
        if !gap.is_empty() && losses.range(gap.clone()).next().is_none() {
            let what = match gap.len() {
                1 => format!("segment {:08x} is missing; no subscriber needs it", gap.start),
                _ => format!(
                    "segments {:08x} to {:08x} are missing; no subscriber needs them",
                    gap.start,
                    gap.end - 1
                ),
            };
            out.findings.push(Finding {
                path: shared.path.clone(),
                offset: None,
                id: None,
                what,
                damage: false,
            });
        }
    }
    for (lost, names) in losses.into_values() {
        let who = match &names[..] {
            [name] => format!("subscriber {:?} has", name.to_string()),
            [name, _] => format!("subscriber {:?} and 1 other have", name.to_string()),
            [name, others @ ..] => {
                format!("subscriber {:?} and {} others have", name.to_string(), others.len())
            }
            [] => continue,
        };
        out.findings.push(loss(shared, &missing, &lost, format!("{lost} that {who} not read")));
    }
    // These need no subscriber: cut segments that nobody needs are findings, too.
    out.findings.extend(cut.iter().map(|lost| loss(shared, &missing, lost, lost.to_string())));
    Ok(())
}

/// A loss. One that repair has reported cannot be repaired.
fn loss(shared: &Shared, missing: &Missing, lost: &Lost, what: String) -> Finding {
    let reported = missing.is_reported(lost);
    let what = if reported { format!("{what}; repair has reported it") } else { what };
    Finding { path: shared.path.clone(), offset: None, id: None, what, damage: !reported }
}

fn foreign_owners(shared: &Shared) -> Result<Vec<(PathBuf, u32, u32)>> {
    let dir = shared.storage.facts(&shared.path).map_err(|e| Error::io("look at", &shared.path, e))?;
    let names = shared.storage.list(&shared.path).map_err(|e| Error::io("list", &shared.path, e))?;
    Ok(names
        .into_iter()
        .filter(|name| Kind::of(name) != Kind::Other)
        .filter_map(|name| {
            let path = shared.path.join(name);
            let owner = shared.storage.facts(&path).ok()?.owner;
            (owner != dir.owner).then_some((path, owner, dir.owner))
        })
        .collect())
}

/// Checks one segment; returns the marker of its last record, and the findings.
fn verify_segment(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    storage_log: u32,
    ticker: &mut Ticker<'_>,
) -> Result<(u32, Verification)> {
    let mut out = Verification::default();
    let name = names::segment(number);
    let path = shared.at(&name);
    let fail = |e| Error::io("read", path.clone(), e);
    let file = match shared.open(&name, Open::Read) {
        Ok(file) => file,
        // Passed by every subscriber and removed meanwhile.
        Err(e) if e.is_not_found() => return Ok((0, out)),
        Err(Error::NotAFile { found, .. }) => {
            let what = format!("is {found}, not a segment");
            out.findings.push(Finding { path, offset: None, id: None, what, damage: true });
            return Ok((0, out));
        }
        Err(e) => return Err(e),
    };
    let being_written = number >= storage_log;
    let len = {
        // Under the segment's lock nobody is writing.
        let _lock = being_written.then(|| LockGuard::new(&*file)).transpose().map_err(fail)?;
        file.len().map_err(fail)?
    };
    let mut verifier = Verifier::load(shared, number)?;
    out.segments += 1;
    out.bytes += len;
    let mut last = 0;
    let mut whole = true;
    let mut further = 0;
    let mut cancelled = Ok(());
    let mut index = IndexCheck::open(shared, number)?;
    let mut foreign = 0u64;
    Survey::new((shared, number), &*file, format, &mut verifier, len)
        .run(Place::default(), |item| {
            match item {
                Item::Record(found) => {
                    cancelled = ticker.at(found.offset);
                    last = found.marker;
                    out.records += 1;
                    out.verified += u64::from(found.verified);
                    foreign += u64::from(found.foreign_until.is_some());
                    index.record(found.offset);
                }
                Item::Damage(stretch) => {
                    cancelled = ticker.at(stretch.offset);
                    whole = false;
                    let unfinished = stretch.fault == Fault::Unfinished && being_written;
                    if !unfinished {
                        last = stretch.marker + (stretch.records - 1);
                    }
                    if out.findings.len() >= FINDINGS_MAX {
                        further += 1;
                        return proceed(&cancelled);
                    }
                    let what = match stretch.fault {
                        Fault::Checksum => "the checksum is wrong".to_owned(),
                        Fault::Compression => "the compressed body is wrong".to_owned(),
                        Fault::Unfinished if unfinished => format!(
                            "{} of a torn record; if nobody is writing it, the next \
                             writer truncates it",
                            counted(stretch.len, "byte")
                        ),
                        Fault::NoRecord | Fault::Unfinished if stretch.len == 1 => {
                            "1 byte is not a record".to_owned()
                        }
                        Fault::NoRecord | Fault::Unfinished => {
                            format!("{} bytes are not a record", stretch.len)
                        }
                    };
                    out.findings.push(Finding {
                        path: path.clone(),
                        offset: Some(stretch.offset),
                        id: Some(LogId::new(number, stretch.marker)),
                        what,
                        damage: !unfinished,
                    });
                }
            }
            proceed(&cancelled)
        })
        .map_err(fail)?;
    cancelled?;
    ticker.moved(len)?;
    if further > 0 {
        out.findings.push(Finding {
            path: path.clone(),
            offset: None,
            id: None,
            what: format!("{further} more damaged places"),
            damage: true,
        });
    }
    if foreign > 0 {
        out.findings.push(Finding {
            path: shared.at(&names::checksums(number)),
            offset: None,
            id: None,
            what: format!(
                "its checksums describe other records than {foreign} of those in it: another program has \
                 truncated or moved records"
            ),
            damage: false,
        });
    }
    if verifier.reaches_beyond(len) && file.len().map_err(fail)? == len {
        out.findings.push(Finding {
            path: shared.at(&names::checksums(number)),
            offset: None,
            id: None,
            what: "checksums cover more than the segment holds: records were truncated, or moved by another \
                   program's repair"
                .to_owned(),
            damage: false,
        });
    }
    if whole && let Some(what) = index.fault(being_written) {
        out.findings.push(Finding {
            path: shared.at(&names::index(number)),
            offset: None,
            id: None,
            what: format!("{what}; it is rebuilt when it is needed"),
            damage: false,
        });
    }
    Ok((last, out))
}

/// Whether a survey continues.
pub(crate) fn proceed(cancelled: &Result<()>) -> ControlFlow<()> {
    if cancelled.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Compares an index with the records of its segment as they are read.
pub(crate) struct IndexCheck {
    file: Option<std::sync::Arc<dyn File>>,
    len: u64,
    records: u64,
    disagrees: bool,
    window: Window,
}

impl IndexCheck {
    /// Opens a segment's index, if it has one.
    pub(crate) fn open(shared: &Shared, number: u32) -> Result<Self> {
        let name = names::index(number);
        let file = shared.open_if_there(&name, Open::Read)?;
        let len = match &file {
            Some(file) => file.len().map_err(|e| Error::io("read", shared.at(&name), e))?,
            None => 0,
        };
        Ok(Self { file, len, records: 0, disagrees: false, window: Window::default() })
    }

    fn entry(&mut self, n: u64) -> Option<u64> {
        let bytes = self.window.at(&**self.file.as_ref()?, n * 8, 8).ok()?;
        bytes.first_chunk::<8>().map(|entry| u64::from_le_bytes(*entry))
    }

    /// Checks that the next record begins here.
    pub(crate) fn record(&mut self, offset: u64) {
        let n = self.records;
        self.records += 1;
        if (n + 1) * 8 <= self.len {
            // A closing 0 before the last record disagrees as well.
            self.disagrees |= self.entry(n) != Some(offset);
        }
    }

    /// The index's fault, after the last record.
    pub(crate) fn fault(&mut self, being_written: bool) -> Option<&'static str> {
        self.file.as_ref()?;
        let entries = self.len / 8;
        let closed = entries > 1 && self.entry(entries - 1) == Some(0);
        if !self.len.is_multiple_of(8) {
            Some("its size is not a multiple of 8")
        } else if self.disagrees || entries > self.records + u64::from(closed) {
            Some("it disagrees with its segment")
        } else if closed && being_written {
            Some("it is closed, but its segment is being written")
        } else {
            None
        }
    }
}

fn verify_checkpoints(
    shared: &Shared,
    records: &std::collections::HashMap<u32, u32>,
    out: &mut Verification,
) -> Result<()> {
    for kind in shared.list()? {
        let Kind::Checkpoint(name) = kind else { continue };
        let path = shared.at(&name.checkpoint_file());
        let what = match checkpoint::read(shared, &name) {
            Err(Error::UnknownSubscriber { .. }) => None,
            Err(Error::Checkpoint { len, .. }) => {
                Some((format!("has {}, not 8", counted(len, "byte")), true))
            }
            Err(Error::NotAFile { found, .. }) => Some((format!("is {found}"), true)),
            Err(e) => return Err(e),
            Ok(None) => {
                Some(("is empty: it is being created, or its creation was interrupted".to_owned(), false))
            }
            Ok(Some(id)) => {
                // Both may have moved on since the segments were looked at.
                let meta = meta::MetaReader::open(shared)?.get()?;
                let last = || inspect_with(shared, id.segment, meta.format).map_or(u32::MAX, |i| i.records);
                if id.segment > meta.storage_log {
                    Some((format!("{id} is beyond the segment being written"), true))
                } else if records.get(&id.segment).is_some_and(|&last| id.marker > last) && id.marker > last()
                {
                    Some((
                        format!("{id} is past the end of its segment; the next writer moves it back"),
                        false,
                    ))
                } else {
                    None
                }
            }
        };
        if let Some((what, damage)) = what {
            out.findings.push(Finding { path, offset: None, id: None, what, damage });
        }
    }
    Ok(())
}

fn verify_buffer(shared: &Shared, format: RecordFormat, out: &mut Verification) -> Result<()> {
    let path = shared.at(names::PRE_COMMIT);
    let file = match shared.open_if_there(names::PRE_COMMIT, Open::Read) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(()),
        Err(Error::NotAFile { found, .. }) => {
            let what = format!("is {found}");
            out.findings.push(Finding { path, offset: None, id: None, what, damage: true });
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    let bytes = read_all(&*file, 129 << 20).map_err(|e| Error::io("read", &path, e))?;
    let (what, damage) = match bytes.split_first_chunk::<4>() {
        None => (Some(format!("has {}, not at least 4", counted(bytes.len() as u64, "byte"))), true),
        Some((used, buffer)) => {
            let used = u32::from_le_bytes(*used) as usize;
            match buffer.get(..used) {
                None => (Some(format!("says that {used} of its {} bytes are in use", buffer.len())), true),
                Some(used) => {
                    let (_, whole) = precommit::whole_records(format, used);
                    let rest = used.len() - whole;
                    let what = format!(
                        "ends with {} of an incomplete record; if nobody is writing, the next writer \
                         truncates and keeps them",
                        counted(rest as u64, "byte")
                    );
                    ((rest > 0).then_some(what), false)
                }
            }
        }
    };
    if let Some(what) = what {
        out.findings.push(Finding { path, offset: None, id: None, what, damage });
    }
    Ok(())
}

/// Examines one segment. `each` gets every whole record before any damage.
pub(crate) fn inspect(shared: &Shared, number: u32, each: impl FnMut(RecordInfo)) -> Result<Inspection> {
    let format = meta::MetaReader::open(shared)?.get()?.format;
    inspect_each(shared, number, format, each)
}

/// Examines these segments, and leaves out missing ones.
pub(crate) fn inspect_all(
    shared: &Shared,
    segments: &[u32],
    options: &VerifyOptions,
) -> Result<Vec<Inspection>> {
    let format = meta::MetaReader::open(shared)?.get()?.format;
    let found = options.run(shared, segments, |number, ticker| {
        let found = match inspect_with(shared, number, format) {
            // Removed meanwhile.
            Err(e) if e.is_not_found() => return Ok(None),
            found => found?,
        };
        ticker.moved(found.bytes)?;
        Ok(Some(found))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Examines one segment whose layout is known.
pub(crate) fn inspect_with(shared: &Shared, number: u32, format: RecordFormat) -> Result<Inspection> {
    inspect_each(shared, number, format, |_| {})
}

fn inspect_each(
    shared: &Shared,
    number: u32,
    format: RecordFormat,
    mut each: impl FnMut(RecordInfo),
) -> Result<Inspection> {
    let name = names::segment(number);
    let fail = |e| Error::io("read", shared.at(&name), e);
    let file = shared.open(&name, Open::Read)?;
    let bytes = file.len().map_err(fail)?;
    let (mut first, mut last) = (None, None);
    let mut marker = 0;
    let walked = walk(&*file, format, 0, bytes, &mut Window::default(), |offset, header, _| {
        marker += 1;
        first = first.or(Some(header.time));
        last = Some(header.time);
        each(RecordInfo {
            id: LogId::new(number, marker),
            offset,
            time: header.time,
            len: header.len,
            stored: header.stored,
        });
    })
    .map_err(fail)?;
    let verifier = Verifier::load(shared, number)?;
    let checksummed = verifier.checksummed_within(bytes);
    Ok(Inspection {
        segment: number,
        bytes,
        records: walked.records,
        whole_until: walked.offset,
        first,
        last,
        index: index::state(shared, number)?,
        checksummed: u32::try_from(checksummed).unwrap_or(u32::MAX),
    })
}
