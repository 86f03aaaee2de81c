//! Errors, with advice on what to do.

use std::io;
use std::path::PathBuf;

use crate::LogId;
use crate::limits::{Holder, LimitKind};
use crate::loss::Lost;
use crate::plural::counted;
use crate::subscriber::SubscriberNameError;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which a call can fail. The text says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "open", "write", …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system is full, or the quota is used up. Nothing half-written remains.
    #[error(
        "no space left to {action} {}: free space there, or let subscribers read on so that passed segments are removed",
        path.display()
    )]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path does not exist, or is a directory without a metastore.
    #[error("{} is not a jlog: {why}; create one with `jlog create`", path.display())]
    NotAJlog {
        /// The path.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The directory has segments or checkpoints, but no metastore: it was lost.
    /// [`Jlog::repair`](crate::Jlog::repair) rebuilds it.
    #[error("{} has lost its metastore: `jlog repair` rebuilds it from what is there", path.display())]
    MetastoreMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The path exists already.
    #[error("cannot create a jlog in {}: {why}; open it, or choose another path", path.display())]
    AlreadyExists {
        /// The path.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// The metastore is damaged, or from another kind of machine. It was not changed.
    #[error("{} is not a valid metastore: {fault}; `jlog repair` restores it if that is possible", path.display())]
    Metastore {
        /// The metastore.
        path: PathBuf,
        /// What is wrong with it.
        fault: MetaFault,
    },
    /// The jlog predates header magics: it can be read, but not written.
    #[error("{} is older than header magics: it can be read; `jlog repair` upgrades it for writing", path.display())]
    OldMetastore {
        /// The jlog.
        path: PathBuf,
    },
    /// The settings file has an entry that this version does not know.
    #[error("{}:{line}: {why}", path.display())]
    Settings {
        /// The settings file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// The path of one of the jlog's files leads to something other than a regular file.
    #[error("{} is {found}, not a regular file: remove it, then try again", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// One of the jlog's files has another name outside its directory: a hard link. Writing would
    /// also change the file under that name, which may be a backup or belong to another user.
    /// Nothing was changed.
    #[error(
        "{} has another name outside the jlog (a hard link), and writing would change that file as well: while \
         nothing uses the jlog, replace it with a copy (`cp -p` to another name, then `mv` back)",
        path.display()
    )]
    HardLinked {
        /// The path.
        path: PathBuf,
    },
    /// An option is out of range.
    #[error("{what} of {value} is out of range: {allowed}")]
    OutOfRange {
        /// The option.
        what: &'static str,
        /// The value given.
        value: u64,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// The name is not valid for a subscriber.
    #[error(transparent)]
    SubscriberName(#[from] SubscriberNameError),
    /// There is no such subscriber.
    #[error("{} has no subscriber {name:?}: add it with `jlog subscribe`", path.display())]
    UnknownSubscriber {
        /// The jlog.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The subscriber was removed while a reader read for it: nothing keeps the segments that it
    /// needs.
    #[error("the subscriber {name:?} of {} was removed while it was being read", path.display())]
    Unsubscribed {
        /// The jlog.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A reader without a subscriber has no checkpoint.
    #[error("this reader of {} has no subscriber, and no checkpoint", path.display())]
    NoSubscriber {
        /// The jlog.
        path: PathBuf,
    },
    /// The subscriber exists already.
    #[error(
        "{} already has a subscriber {name:?}: `jlog subscribe --if-missing` leaves it where it is, --move moves it",
        path.display()
    )]
    SubscriberExists {
        /// The jlog.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A checkpoint file has the wrong size.
    #[error(
        "{} is not a valid checkpoint: it has {}, not 8; `jlog repair` moves it to the first message",
        path.display(),
        counted(*len, "byte")
    )]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Its size.
        len: u64,
    },
    /// There is no record with this id: not any more, or not yet.
    #[error("{} has no record {id}: `jlog status` shows where the feed ends, `jlog inspect` lists its records", path.display())]
    NoSuchRecord {
        /// The jlog.
        path: PathBuf,
        /// The id.
        id: LogId,
    },
    /// A message is too large for a record.
    #[error("a message of {len} bytes is too large: a record holds at most {max}")]
    MessageTooLarge {
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// All segment numbers are used up.
    #[error("{} has used all 4294967295 segment numbers: create a new jlog", path.display())]
    OutOfSegments {
        /// The jlog.
        path: PathBuf,
    },
    /// A limit of the jlog is reached: the message was not accepted.
    #[error("{} is at capacity: {}", path.display(), at_capacity(*kind, *used, *limit, *wanted, holders))]
    AtCapacity {
        /// The jlog.
        path: PathBuf,
        /// Which limit.
        kind: LimitKind,
        /// How much of it is used.
        used: u64,
        /// The limit.
        limit: u64,
        /// Bytes that were to be added.
        wanted: u64,
        /// The subscribers that still need the oldest segment, the one that is furthest behind
        /// first. Empty if there is no subscriber, or all have read everything.
        holders: Vec<Holder>,
    },
    /// A process that uses the C library has the jlog open for writing. Meanwhile, segments cannot
    /// be closed early, and their size cannot be raised: the process would continue to write to a
    /// segment that subscribers have passed.
    #[error(
        "cannot {action} {} while a process that uses the C library has it open for writing: subscribers would not see what \
         it writes; stop it first",
        path.display()
    )]
    CWriter {
        /// The jlog.
        path: PathBuf,
        /// What was to be done: "roll", "raise the segment size of".
        action: &'static str,
    },
    /// Segments that this subscriber needed were dropped, because a limit was reached. The next
    /// call continues with the messages that are left.
    #[error(
        "{} dropped {} after {from} that subscriber {subscriber:?} had not read",
        path.display(),
        counted(*messages, "message")
    )]
    Missed {
        /// The jlog.
        path: PathBuf,
        /// The subscriber.
        subscriber: String,
        /// Its checkpoint before.
        from: LogId,
        /// Number of messages that were dropped.
        messages: u64,
    },
    /// Segments that a subscriber needs are missing, although no limit or rule allowed their
    /// removal. The next call continues with the messages that are left.
    #[error(
        "{}: {lost} that subscriber {subscriber:?} had not read; put the segments back from a backup, or read on",
        path.display()
    )]
    SegmentsLost {
        /// The jlog.
        path: PathBuf,
        /// The subscriber.
        subscriber: String,
        /// What is lost.
        lost: Lost,
    },
    /// Another writer owns the pre-commit buffer.
    #[error(
        "{} is in use by another writer's pre-commit buffer: write through that one, or without the buffer \
         (`jlog write --direct`)",
        path.display()
    )]
    PreCommitBusy {
        /// The guard of the buffer.
        path: PathBuf,
    },
    /// There is another writer, and one of the two must be the only one.
    #[error("{} is open for writing elsewhere, and one of the writers must be the only one", path.display())]
    WriterBusy {
        /// The jlog.
        path: PathBuf,
    },
    /// Another reader claims this subscriber, and the two do not share it
    /// ([`ReaderOptions::claim`](crate::ReaderOptions::claim)).
    #[error(
        "another reader is reading {} for subscriber {subscriber:?}: stop it, add a subscriber for this one \
         (`jlog subscribe`), or let both share the subscriber and get every message (`jlog read --shared`)",
        path.display()
    )]
    ReaderBusy {
        /// The jlog.
        path: PathBuf,
        /// The subscriber.
        subscriber: String,
    },
    /// A process that uses the C library has a damaged segment open. Nothing was changed.
    #[error(
        "{} is open in another process, which would lose its place or its messages: stop the programs that use the C \
         library there, or repair it regardless (`jlog repair --force`)",
        path.display()
    )]
    InUse {
        /// The segment.
        path: PathBuf,
    },
    /// Another process is repairing the jlog.
    #[error("{} is being repaired by another process: try again when it is done", path.display())]
    RepairBusy {
        /// The jlog.
        path: PathBuf,
    },
    /// A repair was interrupted after it had happened, and cannot be finished here.
    #[error("a repair of {} is not finished ({why}): run `jlog repair`", path.display())]
    RepairUnfinished {
        /// The jlog.
        path: PathBuf,
        /// Why it cannot be finished.
        why: &'static str,
    },
    /// The record was read from a segment that was replaced since, and it is not known which record
    /// it is now. Nothing was stored.
    #[error(
        "record {id} was read from a segment of {} that has since been replaced, and nothing says what became of it: \
         read again from the stored checkpoint",
        path.display()
    )]
    StaleId {
        /// The jlog.
        path: PathBuf,
        /// The id.
        id: LogId,
    },
    /// Bytes in a segment are not records.
    #[error(
        "{} is damaged at offset {offset} (before record {id}): {} not a record; \
         skip them, or run `jlog repair`",
        path.display(),
        if *len == 1 { "1 byte is".to_owned() } else { format!("{len} bytes are") }
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// The id of the next intact record.
        id: LogId,
        /// How many bytes are damaged.
        len: u64,
    },
    /// A record's bytes are not those that were written.
    #[error(
        "{} is damaged at offset {offset}: the checksum of record {id} is wrong; skip it, or run `jlog repair`",
        path.display()
    )]
    ChecksumMismatch {
        /// The segment.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The record.
        id: LogId,
    },
    /// A compressed body does not decompress to what its header says.
    #[error(
        "{} is damaged at offset {offset}: the compressed body of record {id} is wrong; skip it, or run `jlog repair`",
        path.display()
    )]
    Compressed {
        /// The segment.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The record.
        id: LogId,
    },
    /// The feed was removed, moved away, or replaced by another one (such as a restored backup)
    /// while it was open. Messages that were written before are in the old feed. A message that was
    /// refused with this error is not, or was not acknowledged. To continue, open the jlog again,
    /// and append that message again.
    #[error(
        "{} was removed or replaced while it was open: the feed that is there now is another one; open it again to work with that",
        path.display()
    )]
    Replaced {
        /// The jlog.
        path: PathBuf,
    },
    /// The writer or the reader is closed
    /// ([`AsyncWriter::close`](crate::asynchronous::AsyncWriter::close),
    /// [`AsyncReader::close`](crate::asynchronous::AsyncReader::close)). Nothing was done.
    #[cfg(feature = "async")]
    #[error("this writer or reader of {} is closed: open another one", path.display())]
    Closed {
        /// The jlog.
        path: PathBuf,
    },
    /// The caller cancelled the work. Nothing was changed.
    #[error("the work on {} was cancelled", path.display())]
    Cancelled {
        /// The jlog.
        path: PathBuf,
    },
    /// An earlier sync failed: the messages that it covered may be lost, and a retry would only
    /// seem to succeed.
    #[error("an earlier sync of {} failed ({why}): open the jlog again to see what is left", path.display())]
    SyncFailed {
        /// The jlog.
        path: PathBuf,
        /// The first failure.
        why: String,
    },
}

/// Why bytes are not a metastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaFault {
    /// Neither 16 bytes nor (from before header magics) 12.
    #[error("it has {0} bytes, not 16")]
    Length(usize),
    /// The magic is one that neither we nor the C library write.
    #[error("its header magic {0:08x} is unknown")]
    UnknownMagic(u32),
    /// The magic is right, but in the other byte order.
    #[error("it was written on a machine with the other byte order")]
    ForeignByteOrder,
    /// A segment size of 0 would never hold a record.
    #[error("its segment size is 0")]
    SegmentSize,
    /// The records have another magic.
    #[error("its header magic is {magic:08x}, and segment {segment:08x} has records of magic {found:08x}")]
    OtherRecords {
        /// The magic that the metastore names.
        magic: u32,
        /// The segment.
        segment: u32,
        /// The magic of its first record.
        found: u32,
    },
    /// A safety other than 0, 1 and 2.
    #[error("its safety {0} is unknown")]
    Safety(u32),
}

fn at_capacity(kind: LimitKind, used: u64, limit: u64, wanted: u64, holders: &[Holder]) -> String {
    let what = match kind {
        LimitKind::Bytes => format!("{used} of {limit} bytes are in use, and {wanted} more are wanted"),
        LimitKind::Age => format!("the oldest messages are {used} s old, and the limit is {limit} s"),
        LimitKind::Free => {
            format!(
                "{used} bytes are free on the file system, {limit} are to stay free, and {wanted} are wanted"
            )
        }
    };
    if holders.is_empty() && kind == LimitKind::Free {
        return format!(
            "{what}; no subscriber has anything to read: free some space on the file system, or change the limit \
             (`jlog alter --keep-free`)"
        );
    }
    if holders.is_empty() {
        return format!(
            "{what}; no subscriber has anything to read, so what is there is kept for new ones: change the limit \
             (`jlog alter`), or add a subscriber, so that the segments that it has passed are removed"
        );
    }
    let list: Vec<String> = holders.iter().take(10).map(ToString::to_string).collect();
    let more = match holders.len().saturating_sub(10) {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    format!(
        "{what}; {}{more}; let subscribers read on, remove those that are no longer used (`jlog unsubscribe`), or change the \
         limit (`jlog alter`)",
        list.join(", ")
    )
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { action, path, source }
            }
            _ => Error::Io { action, path, source },
        }
    }

    /// The system's error number, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether this reports damaged bytes in a segment, which a reader can skip.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. } | Error::ChecksumMismatch { .. } | Error::Compressed { .. })
    }

    /// Whether the feed or the subscriber does not exist, or not any more. It may appear later.
    pub fn is_gone(&self) -> bool {
        matches!(
            self,
            Error::NotAJlog { .. }
                | Error::MetastoreMissing { .. }
                | Error::Replaced { .. }
                | Error::Unsubscribed { .. }
                | Error::UnknownSubscriber { .. }
        )
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
