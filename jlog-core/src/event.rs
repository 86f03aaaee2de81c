//! Events: reports of a jlog that are not errors, such as repairs and losses.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::LogId;
use crate::loss::Lost;
use crate::plural::counted;

/// Something to report that did not stop the call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A torn record at the end of the segment being written was truncated; its bytes are kept.
    TailTruncated {
        /// The segment.
        segment: u32,
        /// Where the whole records end.
        offset: u64,
        /// Number of bytes that were truncated.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// The segment being written is damaged in the middle; appends continue after its last intact
    /// record.
    DamageLeft {
        /// The segment.
        segment: u32,
        /// Where the damage begins.
        offset: u64,
    },
    /// The metastore was out of date: later segments than the one it named exist. It was updated.
    MetastoreUpdated {
        /// What the metastore said.
        from: u32,
        /// The last segment on disk.
        to: u32,
    },
    /// A segment after the one being written does not follow from it: it is left over from a newer
    /// feed that an older one was restored over. It was renamed, so that its records do not appear
    /// among new ones.
    StaleSegment {
        /// The segment.
        segment: u32,
        /// Its bytes.
        bytes: u64,
        /// The file that keeps it.
        kept: PathBuf,
    },
    /// An earlier writer ended without flushing. Its messages were found in the pre-commit buffer,
    /// and the writer that was just opened flushes them. If that fails, they stay for the next
    /// writer.
    BufferRecovered {
        /// Number of messages.
        records: u32,
        /// Their bytes, headers included.
        bytes: u64,
    },
    /// The pre-commit buffer held messages that were already in their segment; they were removed
    /// from it.
    BufferAlreadyFlushed {
        /// Number of messages.
        records: u32,
    },
    /// Bytes in the pre-commit buffer that are not whole records were truncated; they are kept.
    BufferTruncated {
        /// Number of bytes.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// The machine was restarted after these messages were put in the pre-commit buffer, and it is
    /// not known whether they are whole or reached their segment. They are kept in a separate file.
    BufferSetAside {
        /// Number of bytes.
        len: u64,
        /// The file that keeps them.
        kept: PathBuf,
    },
    /// Checksums could not be written; these records are unverified.
    ChecksumsNotWritten {
        /// The segment.
        segment: u32,
        /// Number of records.
        records: usize,
    },
    /// Another program removed the segment being written; a new one was begun in its place.
    SegmentVanished {
        /// The segment.
        segment: u32,
    },
    /// The oldest segment was dropped, needed or not, because a limit was reached.
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
        /// Its checkpoint before.
        from: LogId,
        /// Number of messages that were dropped.
        messages: u64,
    },
    /// Segments that a subscriber needs are missing, although no limit or rule allowed their
    /// removal, or were cut.
    SegmentsLost {
        /// The subscriber.
        subscriber: String,
        /// What is lost.
        lost: Lost,
    },
    /// A segment was cut: it has lost the records at its end, or all of them. Reported if no
    /// subscriber is affected: by readers without one, and by repair; otherwise
    /// [`SegmentsLost`](Event::SegmentsLost) is reported.
    SegmentCut {
        /// What is lost, in this one segment.
        lost: Lost,
    },
    /// A reader skipped damaged bytes or a damaged record, because of its options.
    DamageSkipped {
        /// The segment.
        segment: u32,
        /// Where the damage begins.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// The file that keeps them; `None` if they are in the segment only.
        kept: Option<PathBuf>,
    },
    /// Segments that no subscriber needs were removed before a reader without a subscriber reached
    /// them.
    SegmentsRemoved {
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
    /// A checkpoint was moved back: the messages in between are delivered again.
    CheckpointRewound {
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
    /// Repair rebuilt the metastore.
    MetastoreRepaired {
        /// What was wrong with it.
        why: String,
    },
    /// Repair rebuilt the settings. Limits are gone; checksums are on if there were any.
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
    /// Repair removed an index that does not fit its segment (it is rebuilt when needed), or the
    /// checksums of a segment without any record.
    SidecarRemoved {
        /// The file.
        path: PathBuf,
    },
    /// Repair replaced checksums that list more than their segment holds with those of its records.
    ChecksumsReplaced {
        /// The segment.
        segment: u32,
    },
}

impl Event {
    /// Whether a reader found damage or a loss: not everything that was written can be read.
    pub fn is_damage(&self) -> bool {
        matches!(self, Event::DamageSkipped { .. } | Event::SegmentsLost { .. } | Event::SegmentCut { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::TailTruncated { segment, offset, len, kept } => write!(
                f,
                "segment {segment:08x}: truncated {} of a torn record at offset {offset}, kept in {}",
                counted(*len, "byte"),
                kept.display()
            ),
            Event::DamageLeft { segment, offset } => write!(
                f,
                "segment {segment:08x}: damaged at offset {offset}; run `jlog repair` when nobody is writing"
            ),
            Event::MetastoreUpdated { from, to } => {
                write!(f, "metastore: updated; it named {from:08x} as the last segment instead of {to:08x}")
            }
            Event::StaleSegment { segment, bytes, kept } => write!(
                f,
                "segment {segment:08x}: {} left over from a newer feed that this one was restored over, renamed to {}",
                counted(*bytes, "byte"),
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
            Event::BufferTruncated { len, kept } => write!(
                f,
                "pre-commit buffer: truncated {} of an incomplete record, kept in {}",
                counted(*len, "byte"),
                kept.display()
            ),
            Event::BufferSetAside { len, kept } => write!(
                f,
                "pre-commit buffer: {} from before the machine's last start, kept in {}",
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
                write!(f, "segment {segment:08x} was removed while it was being written; a new one was begun")
            }
            Event::DamageSkipped { segment, offset, len, kept } => {
                let len = counted(*len, "damaged byte");
                write!(f, "segment {segment:08x}: skipped {len} at offset {offset}")?;
                kept.as_ref().map_or(Ok(()), |kept| write!(f, ", kept in {}", kept.display()))
            }
            Event::SegmentsRemoved { first, last } if first == last => {
                write!(f, "segment {first:08x} was removed before it was read")
            }
            Event::SegmentsRemoved { first, last } => {
                write!(f, "segments {first:08x} to {last:08x} were removed before they were read")
            }
            Event::SegmentDropped { segment, records, bytes } => {
                write!(
                    f,
                    "segment {segment:08x}: dropped with {} ({}) because a limit was reached",
                    counted(*records, "record"),
                    counted(*bytes, "byte")
                )
            }
            Event::Missed { subscriber, from, messages } => {
                write!(
                    f,
                    "subscriber {subscriber}: missed {} after {from}, which {} dropped",
                    counted(*messages, "message"),
                    if *messages == 1 { "was" } else { "were" }
                )
            }
            Event::SegmentsLost { subscriber, lost } => {
                write!(f, "subscriber {subscriber}: {lost} that it had not read")
            }
            Event::SegmentCut { lost } => write!(f, "{lost}"),
            Event::CheckpointMovedBack { subscriber, from, to } => {
                write!(f, "subscriber {subscriber}: checkpoint {from} is past the end, moved back to {to}")
            }
            Event::CheckpointRewound { subscriber, from, to } => {
                write!(
                    f,
                    "subscriber {subscriber}: moved back from {from} to {to}; the messages in between are delivered again"
                )
            }
            Event::ForeignOwner { path, owner, expected } => write!(
                f,
                "{} belongs to user {owner}, the jlog to user {expected}: writers may fail; use chown",
                path.display()
            ),
            Event::SegmentRepaired { segment, records, removed, kept } => write!(
                f,
                "segment {segment:08x}: {} taken out, {} kept; the original is {}",
                counted(*removed, "byte"),
                counted(*records, "record"),
                kept.display()
            ),
            Event::MetastoreRepaired { why } => write!(f, "metastore: {why}; rebuilt"),
            Event::SettingsRepaired { why } => {
                write!(f, "settings: {why}; rebuilt without limits: set those again with `jlog alter`")
            }
            Event::CheckpointRepaired { subscriber, to, why } => {
                write!(f, "subscriber {subscriber}: {why}; checkpoint set to {to}")
            }
            Event::SidecarRemoved { path } => {
                write!(f, "{} does not fit its segment; removed", path.display())
            }
            Event::ChecksumsReplaced { segment } => {
                write!(
                    f,
                    "segment {segment:08x}: its checksums listed more than it holds; replaced by those of its records"
                )
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
