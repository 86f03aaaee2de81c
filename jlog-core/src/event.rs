//! What a jlog tells of that is no error: what was found and mended, what was lost and why.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{LogId, Lost};

/// Something worth telling that did not stop the call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An unfinished record at the end of the segment being written was cut off; its bytes are kept.
    TailCut {
        /// The segment.
        segment: u32,
        /// Where the whole records end.
        offset: u64,
        /// How many bytes were cut.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// The segment being written is damaged in the middle; appends go on behind its last intact record.
    DamageLeft {
        /// The segment.
        segment: u32,
        /// Where the damage begins.
        offset: u64,
    },
    /// The metastore was behind: segments after the one it named are there. It was brought up to date.
    StorageLogAdvanced {
        /// What the metastore said.
        from: u32,
        /// The last segment on disk.
        to: u32,
    },
    /// A segment behind the one being written did not follow from it: it is left of a newer feed over which an older one
    /// was restored. It was set aside, so that its records do not come again among new ones.
    StaleSegment {
        /// The segment.
        segment: u32,
        /// Its bytes.
        bytes: u64,
        /// The file that keeps it.
        kept: PathBuf,
    },
    /// An earlier writer ended without flushing: its messages were found in the pre-commit buffer, and the writer
    /// that was just opened flushes them. If the flush fails, they stay in the buffer for the next one.
    BufferRecovered {
        /// How many.
        records: u32,
        /// Their bytes, headers included.
        bytes: u64,
    },
    /// The pre-commit buffer held messages that had reached their segment already; they were dropped from it.
    BufferAlreadyFlushed {
        /// How many.
        records: u32,
    },
    /// Bytes in the pre-commit buffer that are no whole records were cut off; they are kept.
    BufferCut {
        /// How many bytes.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// The machine has started anew since these messages were put in the pre-commit buffer, and nothing
    /// shows whether they are whole or reached their segment: they are kept aside.
    BufferSetAside {
        /// How many bytes.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// Checksums could not be written: those records are unverified.
    ChecksumsNotWritten {
        /// The segment.
        segment: u32,
        /// How many records.
        records: usize,
    },
    /// The segment being written was removed by somebody; a new one was begun in its place.
    SegmentVanished {
        /// The segment.
        segment: u32,
    },
    /// The oldest segment went, needed or not: a limit was reached.
    SegmentDropped {
        /// The segment.
        segment: u32,
        /// Records that it had.
        records: u32,
        /// Its bytes.
        bytes: u64,
    },
    /// Segments that a subscriber needed were dropped.
    Missed {
        /// The subscriber.
        subscriber: String,
        /// Up to where it had read.
        from: LogId,
        /// How many messages are gone.
        messages: u64,
    },
    /// Segments that a subscriber needs are missing, and nobody was allowed to remove them.
    SegmentsLost {
        /// The subscriber.
        subscriber: String,
        /// What is gone.
        lost: Lost,
    },
    /// A reader left out damaged bytes or a record, as it was told to.
    DamageSkipped {
        /// The segment.
        segment: u32,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The file that keeps them; `None` where they are in the segment only.
        kept: Option<PathBuf>,
    },
    /// Segments were removed before a reader without a subscriber came to them.
    SegmentsGone {
        /// The first of them.
        first: u32,
        /// The last of them.
        last: u32,
    },
    /// A checkpoint was past the end of its segment and was moved back to the end.
    CheckpointMovedBack {
        /// The subscriber.
        subscriber: String,
        /// Where it was.
        from: LogId,
        /// Where it is now.
        to: LogId,
    },
    /// A checkpoint was moved to an earlier record than it was at: the messages between them come again.
    CheckpointWentBack {
        /// The subscriber.
        subscriber: String,
        /// Where it was.
        from: LogId,
        /// Where it is now.
        to: LogId,
    },
    /// A file belongs to another user than the directory: others may be unable to write it.
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// The file's owner.
        owner: u32,
        /// The directory's owner.
        expected: u32,
    },
    /// Repair rewrote a segment without its damaged parts.
    SegmentRepaired {
        /// The segment.
        segment: u32,
        /// Records that are in it now.
        records: u32,
        /// Bytes that were taken out.
        removed: u64,
        /// The file that keeps the segment as it was.
        kept: PathBuf,
    },
    /// Repair wrote the metastore anew.
    MetastoreRepaired {
        /// What was wrong with it.
        why: String,
    },
    /// Repair wrote the settings anew.
    SettingsRepaired {
        /// What was wrong with them.
        why: String,
    },
    /// Repair moved a checkpoint.
    CheckpointRepaired {
        /// The subscriber.
        subscriber: String,
        /// Where it is now.
        to: LogId,
        /// What was wrong.
        why: String,
    },
    /// Repair removed an index or checksums that do not fit their segment; they are made anew when needed.
    SidecarRemoved {
        /// The file.
        path: PathBuf,
    },
}

impl Event {
    /// Whether a reader found something damaged or missing: what was written is not all there.
    pub fn is_damage(&self) -> bool {
        matches!(self, Event::DamageSkipped { .. } | Event::SegmentsLost { .. })
    }
}

/// A number with what it counts, in the singular or the plural.
fn counted(n: impl Into<u64>, what: &str) -> String {
    let n = n.into();
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::TailCut { segment, offset, len, kept } => write!(
                f,
                "segment {segment:08x}: cut {} of an unfinished record at offset {offset}, kept in {}",
                counted(*len, "byte"),
                kept.display()
            ),
            Event::DamageLeft { segment, offset } => write!(
                f,
                "segment {segment:08x}: damaged at offset {offset}; use `jlog repair` when nobody writes"
            ),
            Event::StorageLogAdvanced { from, to } => {
                write!(f, "metastore: segment {from:08x} was named as the last, {to:08x} is")
            }
            Event::StaleSegment { segment, bytes, kept } => write!(
                f,
                "segment {segment:08x}: {bytes} bytes are left of a newer feed over which this one was restored; set \
                 aside in {}",
                kept.display()
            ),
            Event::BufferRecovered { records, bytes } => {
                write!(
                    f,
                    "pre-commit buffer: {} ({}) of an earlier writer recovered",
                    counted(*records, "message"),
                    counted(*bytes, "byte")
                )
            }
            Event::BufferAlreadyFlushed { records } => {
                write!(f, "pre-commit buffer: {} already in the segment", counted(*records, "message"))
            }
            Event::BufferCut { len, kept } => write!(
                f,
                "pre-commit buffer: cut {} without a whole record, kept in {}",
                counted(*len, "byte"),
                kept.display()
            ),
            Event::BufferSetAside { len, kept } => write!(
                f,
                "pre-commit buffer: {} from before the machine's last start set aside in {}",
                counted(*len, "byte"),
                kept.display()
            ),
            Event::ChecksumsNotWritten { segment, records } => {
                write!(
                    f,
                    "segment {segment:08x}: checksums of {} could not be written",
                    counted(*records as u64, "record")
                )
            }
            Event::SegmentVanished { segment } => {
                write!(f, "segment {segment:08x} was removed while it was being written; begun anew")
            }
            Event::DamageSkipped { segment, offset, len, kept } => {
                let len = counted(*len, "damaged byte");
                write!(f, "segment {segment:08x}: skipped {len} at offset {offset}")?;
                kept.as_ref().map_or(Ok(()), |kept| write!(f, ", kept in {}", kept.display()))
            }
            Event::SegmentsGone { first, last } if first == last => {
                write!(f, "segment {first:08x} was removed before it was read")
            }
            Event::SegmentsGone { first, last } => {
                write!(f, "segments {first:08x} to {last:08x} were removed before they were read")
            }
            Event::SegmentDropped { segment, records, bytes } => {
                write!(
                    f,
                    "segment {segment:08x}: dropped with {} ({}), a limit was reached",
                    counted(*records, "record"),
                    counted(*bytes, "byte")
                )
            }
            Event::Missed { subscriber, from, messages } => {
                write!(
                    f,
                    "subscriber {subscriber}: missed {} behind {from}, which {} dropped",
                    counted(*messages, "message"),
                    if *messages == 1 { "was" } else { "were" }
                )
            }
            Event::SegmentsLost { subscriber, lost } => {
                write!(f, "subscriber {subscriber}: {lost} that it had not read")
            }
            Event::CheckpointMovedBack { subscriber, from, to } => {
                write!(f, "subscriber {subscriber}: checkpoint {from} is past the end, moved back to {to}")
            }
            Event::CheckpointWentBack { subscriber, from, to } => {
                write!(
                    f,
                    "subscriber {subscriber}: moved back from {from} to {to}; the messages between come again"
                )
            }
            Event::ForeignOwner { path, owner, expected } => write!(
                f,
                "{} belongs to user {owner}, the jlog to user {expected}: writers may fail; use chown",
                path.display()
            ),
            Event::SegmentRepaired { segment, records, removed, kept } => write!(
                f,
                "segment {segment:08x}: {} taken out, {} kept; as it was: {}",
                counted(*removed, "byte"),
                counted(*records, "record"),
                kept.display()
            ),
            Event::MetastoreRepaired { why } => write!(f, "metastore: {why}; written anew"),
            Event::SettingsRepaired { why } => write!(f, "settings: {why}; written anew"),
            Event::CheckpointRepaired { subscriber, to, why } => {
                write!(f, "subscriber {subscriber}: {why}; checkpoint set to {to}")
            }
            Event::SidecarRemoved { path } => {
                write!(f, "{} does not fit its segment; removed", path.display())
            }
        }
    }
}

/// Called with every event as it happens.
#[derive(Clone)]
pub(crate) struct EventHook(pub(crate) Arc<dyn Fn(&Event) + Send + Sync>);

impl EventHook {
    pub(crate) fn call(&self, event: &Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for EventHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventHook")
    }
}
