//! Looking at a jlog without changing it.

use std::fmt;
use std::path::PathBuf;

use crate::checksum::{Verdict, Verifier};
use crate::format::{COMPRESSED_HEADER_LEN, RecordFormat};
use crate::names::{self, Kind};
use crate::scan::{Stop, Window, next_record, record_crc, walk};
use crate::shared::Shared;
use crate::storage::{File, Open, read_all, read_up_to_at};
use crate::{Error, LogId, Result, Timestamp, checkpoint, index, meta, precommit};

/// Something that is wrong, or that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it, if it is about a place.
    pub offset: Option<u64>,
    /// The record that is concerned, or the next one behind the place.
    pub id: Option<LogId>,
    /// What is wrong.
    pub what: String,
    /// Whether data or checkpoints are damaged. Otherwise nothing is lost: what is wrong is mended by the
    /// next writer or reader, or does no harm.
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

/// What a check of a jlog gave.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Segments looked at.
    pub segments: u32,
    /// Intact records.
    pub records: u64,
    /// Intact records whose checksum was checked.
    pub verified: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Verification {
    /// Whether data or checkpoints are damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage)
    }
}

/// A record, as `inspect` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its id.
    pub id: LogId,
    /// Where it begins in its segment.
    pub offset: u64,
    /// When it was accepted.
    pub time: Timestamp,
    /// Length of the message in bytes.
    pub len: u32,
    /// Length of the stored body in bytes.
    pub stored: u32,
}

/// What `inspect` tells of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Number of the segment.
    pub segment: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its whole records before any damage.
    pub records: u32,
    /// Where they end.
    pub whole_until: u64,
    /// Time of the first record.
    pub first: Option<Timestamp>,
    /// Time of the last whole record.
    pub last: Option<Timestamp>,
    /// What its index lists, if there is one that can be understood.
    pub index: Option<crate::IndexState>,
    /// How many records its checksums cover.
    pub checksummed: u32,
}

/// Checks everything there is.
pub(crate) fn verify(shared: &Shared) -> Result<Verification> {
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
    let meta = meta::MetaReader::open(shared)?.get()?;
    let segments = shared.segments()?;
    let mut note = |path: PathBuf, what: String, damage: bool| {
        out.findings.push(Finding { path, offset: None, id: None, what, damage });
    };
    if let Some(&last) = segments.last()
        && last > meta.storage_log
    {
        let what = format!("names {:08x} as the last segment, but {last:08x} is there", meta.storage_log);
        note(metastore, what, true);
    }
    for pair in segments.windows(2) {
        if pair[1] != pair[0] + 1 {
            let what = format!("segments are missing between {:08x} and {:08x}", pair[0], pair[1]);
            note(shared.path.clone(), what, false);
        }
    }
    for (path, owner, expected) in foreign_owners(shared)? {
        note(path, format!("belongs to user {owner}, the directory to user {expected}"), false);
    }
    let mut records = std::collections::HashMap::new();
    for number in segments {
        let count = verify_segment(shared, meta.format, number, meta.storage_log, &mut out)?;
        records.insert(number, count);
    }
    verify_checkpoints(shared, meta.storage_log, &records, &mut out)?;
    verify_buffer(shared, meta.format, &mut out)?;
    Ok(out)
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

fn verify_segment(
    shared: &Shared,
    format: RecordFormat,
    number: u32,
    storage_log: u32,
    out: &mut Verification,
) -> Result<u32> {
    let name = names::segment(number);
    let path = shared.at(&name);
    let fail = |e| Error::io("read", path.clone(), e);
    let file = match shared.open(&name, Open::Read) {
        Ok(file) => file,
        // Read by everybody and removed meanwhile.
        Err(e) if e.is_not_found() => return Ok(0),
        Err(Error::NotAFile { found, .. }) => {
            let what = format!("is {found}, not a segment");
            out.findings.push(Finding { path, offset: None, id: None, what, damage: true });
            return Ok(0);
        }
        Err(e) => return Err(e),
    };
    let mut verifier = Verifier::load(shared, number);
    let len = file.len().map_err(fail)?;
    out.segments += 1;
    out.bytes += len;
    let mut window = Window::default();
    let mut body = Vec::new();
    let (mut marker, mut from, mut whole) = (0u32, 0u64, true);
    let mut offsets = Vec::new();
    loop {
        let mut places = Vec::new();
        let walked = walk(&*file, format, from, len, &mut window, |offset, header, total| {
            places.push((offset, *header, total));
        })
        .map_err(fail)?;
        for (offset, header, total) in places {
            marker += 1;
            offsets.push(offset);
            let id = LogId::new(number, marker);
            let crc = record_crc(&*file, offset, total, &mut window).map_err(fail)?;
            let what = match verifier.check(&*file, format, marker, offset, crc).map_err(fail)? {
                Verdict::Wrong => Some("the checksum is wrong"),
                verdict => {
                    let readable = !format.is_lz4() || {
                        let stored = &mut vec![0; header.stored as usize];
                        let n = read_up_to_at(&*file, stored, offset + COMPRESSED_HEADER_LEN as u64);
                        body.clear();
                        n.map_err(fail)? == stored.len() && format.load(&header, stored, &mut body)
                    };
                    if readable {
                        out.records += 1;
                        out.verified += u64::from(verdict == Verdict::Good);
                    }
                    (!readable).then_some("the compressed body is wrong")
                }
            };
            if let Some(what) = what {
                out.findings.push(Finding {
                    path: path.clone(),
                    offset: Some(offset),
                    id: Some(id),
                    what: what.to_owned(),
                    damage: true,
                });
            }
        }
        if walked.stop == Stop::End {
            break;
        }
        whole = false;
        let next = next_record(&*file, format, walked.offset + 1, len, &mut window, |candidate, window| {
            if !verifier.covers(candidate.offset) {
                return Ok(None);
            }
            Ok(Some(verifier.lists(record_crc(&*file, candidate.offset, candidate.total, window)?)))
        })
        .map_err(fail)?;
        let end = next.unwrap_or(len);
        let bytes = end - walked.offset;
        let unfinished = next.is_none() && number >= storage_log;
        let what = if unfinished {
            format!("{bytes} bytes of an unfinished record at the end; the next writer cuts them")
        } else {
            format!("{bytes} bytes are no record")
        };
        out.findings.push(Finding {
            path: path.clone(),
            offset: Some(walked.offset),
            id: Some(LogId::new(number, marker + 1)),
            what,
            damage: true,
        });
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    if verifier.reaches_beyond(len) {
        out.findings.push(Finding {
            path: shared.at(&names::checksums(number)),
            offset: None,
            id: None,
            what: "checksums cover more than the segment holds: records were cut, or moved by another \
                   program's repair"
                .to_owned(),
            damage: false,
        });
    }
    if whole {
        verify_index(shared, number, storage_log, &offsets, out)?;
    }
    Ok(marker)
}

fn verify_index(
    shared: &Shared,
    number: u32,
    storage_log: u32,
    offsets: &[u64],
    out: &mut Verification,
) -> Result<()> {
    let name = names::index(number);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(()) };
    let fault = index_fault(&*file, number >= storage_log, offsets)
        .map_err(|e| Error::io("read", shared.at(&name), e))?;
    if let Some(what) = fault {
        out.findings.push(Finding {
            path: shared.at(&name),
            offset: None,
            id: None,
            what: format!("{what}; it is made anew when it is needed"),
            damage: false,
        });
    }
    Ok(())
}

/// What is wrong with an index, given where the segment's records begin.
pub(crate) fn index_fault(
    file: &dyn File,
    being_written: bool,
    offsets: &[u64],
) -> std::io::Result<Option<&'static str>> {
    let bytes = read_all(file, (offsets.len() + 2) * 8)?;
    let (entries, rest) = bytes.as_chunks::<8>();
    let mut entries: Vec<u64> = entries.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
    let closed = entries.len() > 1 && entries.last() == Some(&0);
    if closed {
        entries.pop();
    }
    Ok(if !rest.is_empty() {
        Some("its size is no multiple of 8")
    } else if offsets.get(..entries.len()) != Some(&entries[..]) {
        Some("it disagrees with its segment")
    } else if closed && entries.len() != offsets.len() {
        Some("it is closed and does not list all records")
    } else if closed && being_written {
        Some("it is closed though its segment is being written")
    } else {
        None
    })
}

fn verify_checkpoints(
    shared: &Shared,
    storage_log: u32,
    records: &std::collections::HashMap<u32, u32>,
    out: &mut Verification,
) -> Result<()> {
    for kind in shared.list()? {
        let Kind::Checkpoint(name) = kind else { continue };
        let path = shared.at(&name.checkpoint_file());
        let what = match checkpoint::read(shared, &name) {
            Err(Error::UnknownSubscriber { .. }) => None,
            Err(Error::Checkpoint { len, .. }) => Some((format!("has {len} bytes, not 8"), true)),
            Err(Error::NotAFile { found, .. }) => Some((format!("is {found}"), true)),
            Err(e) => return Err(e),
            Ok(None) => Some(("is empty: being created, or its creation was cut short".to_owned(), false)),
            Ok(Some(id)) if id.segment > storage_log => {
                Some((format!("{id} lies beyond the segment being written"), true))
            }
            Ok(Some(id)) if records.get(&id.segment).is_some_and(|&last| id.marker > last) => {
                Some((format!("{id} is past the end of its segment; the reader moves it back"), false))
            }
            Ok(Some(_)) => None,
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
    let what = match bytes.split_first_chunk::<4>() {
        None => Some(format!("has {} bytes, not at least 4", bytes.len())),
        Some((used, buffer)) => {
            let used = u32::from_le_bytes(*used) as usize;
            match buffer.get(..used) {
                None => Some(format!("says that {used} of its {} bytes are in use", buffer.len())),
                Some(used) => {
                    let (_, whole) = precommit::whole_records(format, used);
                    (whole < used.len()).then(|| {
                        format!("{} of {} bytes in use are no whole record", used.len() - whole, used.len())
                    })
                }
            }
        }
    };
    if let Some(what) = what {
        // A writer may be adding a record while we look.
        out.findings.push(Finding { path, offset: None, id: None, what, damage: true });
    }
    Ok(())
}

/// Looks at one segment. `each` gets every whole record before any damage.
pub(crate) fn inspect(shared: &Shared, number: u32, each: impl FnMut(RecordInfo)) -> Result<Inspection> {
    let format = meta::MetaReader::open(shared)?.get()?.format;
    inspect_each(shared, number, format, each)
}

/// Looks at one segment whose layout is known.
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
    let verifier = Verifier::load(shared, number);
    let checksummed = verifier.runs_within(bytes).iter().map(|run| run.crcs.len()).sum::<usize>();
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
