//! Every file name in a jlog directory, built and parsed.

use std::ffi::OsStr;

use crate::subscriber::{CHECKPOINT_PREFIX, GROUP_PREFIX, SubscriberName};

/// The metastore.
pub const METASTORE: &str = "metastore";
/// The pre-commit buffer.
pub const PRE_COMMIT: &str = "pre_commit";
/// Ours: which process owns the pre-commit buffer, and the destination of its current flush.
pub const PRE_COMMIT_GUARD: &str = "pre_commit.guard";
/// Ours: settings that do not fit into the metastore.
pub const SETTINGS: &str = "settings";
/// Ours: the feed's identity.
pub const IDENTITY: &str = "identity";
/// Ours: segments that were dropped although a subscriber needed them.
pub const DROPPED: &str = "dropped";
/// Ours: segments that are missing although a subscriber needs them.
pub const LOST: &str = "lost";
/// Ours: the remaining steps of a repair that has happened.
pub const REPAIR_JOURNAL: &str = "repair.journal";
/// Ours: the lock file of a repair that runs or is being finished.
pub const REPAIR_LOCK: &str = "repair.lock";
/// The prefix of files that a repair prepares.
pub const REPAIR_TEMPORARY_PREFIX: &str = ".tmp-repair-";
/// The prefix of files being written, which get their final name when they are complete.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The prefix of files left over from a newer feed that an older one was restored over.
const STALE_PREFIX: &str = ".stale-";
const PASSED_PREFIX: &str = "passed.";
const INDEX_SUFFIX: &str = ".idx";
const CHECKSUMS_SUFFIX: &str = ".crc";
const REPAIRED_SUFFIX: &str = ".repaired";
const BROKEN_INFIX: &str = ".broken-";

/// A segment's file name: 8 lower-case hex digits.
pub fn segment(number: u32) -> String {
    format!("{number:08x}")
}

/// The file name of a segment's index.
pub fn index(number: u32) -> String {
    format!("{number:08x}{INDEX_SUFFIX}")
}

/// The file name of a segment's checksums.
pub fn checksums(number: u32) -> String {
    format!("{number:08x}{CHECKSUMS_SUFFIX}")
}

/// The file whose name records that segments before this one were removed because no subscriber
/// needed them.
pub fn passed(number: u32) -> String {
    format!("{PASSED_PREFIX}{number:08x}")
}

/// The name of the file that says what repairs did to a segment's markers.
pub fn repaired(number: u32) -> String {
    format!("{number:08x}{REPAIRED_SUFFIX}")
}

/// The file that keeps the bytes cut from `file` at `offset`.
pub fn broken(file: &str, offset: u64) -> String {
    format!("{file}{BROKEN_INFIX}{offset}")
}

/// The new name of a segment, its index or its checksums, left over from a newer feed.
pub fn stale(file: &str) -> String {
    format!("{STALE_PREFIX}{file}")
}

/// The segments among these files, in order.
pub(crate) fn segments(kinds: &[Kind]) -> Vec<u32> {
    let number = |kind: &Kind| if let Kind::Segment(n) = kind { Some(*n) } else { None };
    let mut segments: Vec<u32> = kinds.iter().filter_map(number).collect();
    segments.sort_unstable();
    segments
}

/// The kind of a file in a jlog directory, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The metastore.
    Metastore,
    /// A segment.
    Segment(u32),
    /// A segment's index.
    Index(u32),
    /// A segment's checksums.
    Checksums(u32),
    /// What repairs did to a segment's markers.
    Repaired(u32),
    /// A subscriber's checkpoint.
    Checkpoint(SubscriberName),
    /// `cp.` followed by something that is not a name in lower-case hex.
    BadCheckpoint,
    /// The state of a group of workers.
    Group(SubscriberName),
    /// The pre-commit buffer.
    PreCommit,
    /// The guard of the pre-commit buffer.
    PreCommitGuard,
    /// The settings.
    Settings,
    /// The feed's identity.
    Identity,
    /// The list of segments that were dropped.
    Dropped,
    /// The list of segments that were lost.
    Lost,
    /// Segments before this one were removed because nobody needed them.
    Passed(u32),
    /// Bytes that were cut from a damaged file and kept.
    Broken,
    /// Left over from a newer feed that an older one was restored over.
    Stale,
    /// The remaining steps of a repair that has happened.
    RepairJournal,
    /// Exists while a repair runs.
    RepairLock,
    /// A file that a repair has prepared.
    RepairTemporary,
    /// A file that was being written when its writer ended.
    Temporary,
    /// Not one of jlog's files.
    Other,
}

impl Kind {
    /// Parses a file name.
    pub fn of(name: &OsStr) -> Self {
        let Some(text) = name.to_str() else { return Kind::Other };
        // Most names of a large directory.
        if let Some(kind) = Self::of_segment(text) {
            return kind;
        }
        match text {
            METASTORE => return Kind::Metastore,
            PRE_COMMIT => return Kind::PreCommit,
            PRE_COMMIT_GUARD => return Kind::PreCommitGuard,
            SETTINGS => return Kind::Settings,
            IDENTITY => return Kind::Identity,
            DROPPED => return Kind::Dropped,
            LOST => return Kind::Lost,
            REPAIR_JOURNAL => return Kind::RepairJournal,
            REPAIR_LOCK => return Kind::RepairLock,
            _ => {}
        }
        if let Some(hex) = text.strip_prefix(CHECKPOINT_PREFIX) {
            return SubscriberName::from_hex(hex).map_or(Kind::BadCheckpoint, Kind::Checkpoint);
        }
        if let Some(name) = text.strip_prefix(GROUP_PREFIX).and_then(SubscriberName::from_hex) {
            return Kind::Group(name);
        }
        if text.starts_with(REPAIR_TEMPORARY_PREFIX) {
            return Kind::RepairTemporary;
        }
        if text.starts_with(TEMPORARY_PREFIX) {
            return Kind::Temporary;
        }
        if text.starts_with(STALE_PREFIX) {
            return Kind::Stale;
        }
        if let Some((stem, offset)) = text.rsplit_once(BROKEN_INFIX) {
            let ours = offset.bytes().all(|b| b.is_ascii_digit()) && !offset.is_empty();
            return if ours && !stem.is_empty() { Kind::Broken } else { Kind::Other };
        }
        text.strip_prefix(PASSED_PREFIX).and_then(number).map_or(Kind::Other, Kind::Passed)
    }

    /// A segment, its index or its checksums.
    fn of_segment(text: &str) -> Option<Self> {
        let (stem, suffix) = text.split_at_checked(8)?;
        let kind = match suffix {
            "" => Kind::Segment,
            INDEX_SUFFIX => Kind::Index,
            CHECKSUMS_SUFFIX => Kind::Checksums,
            REPAIRED_SUFFIX => Kind::Repaired,
            _ => return None,
        };
        number(stem).map(kind)
    }
}

/// A segment's number as it is written in names.
fn number(text: &str) -> Option<u32> {
    let right = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    right.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_built() {
        let kind = |name: &str| Kind::of(OsStr::new(name));
        assert_eq!(kind(&segment(0xabc)), Kind::Segment(0xabc));
        assert_eq!(kind(&index(u32::MAX)), Kind::Index(u32::MAX));
        assert_eq!(kind(&checksums(0)), Kind::Checksums(0));
        assert_eq!(kind(&passed(0xabc)), Kind::Passed(0xabc));
        assert_eq!(kind(&repaired(0xabc)), Kind::Repaired(0xabc));
        assert_eq!(kind(&format!("{REPAIR_TEMPORARY_PREFIX}1-2")), Kind::RepairTemporary);
        assert_eq!(kind(&format!("{TEMPORARY_PREFIX}1-2")), Kind::Temporary);
        assert_eq!(kind(&broken("00000000", 17)), Kind::Broken);
        assert_eq!(kind("cp.6f6e65"), Kind::Checkpoint(SubscriberName::new("one").unwrap()));
        assert_eq!(kind("gr.6f6e65"), Kind::Group(SubscriberName::new("one").unwrap()));
        for other in [
            "gr.6",
            "gr.",
            "0000000A",
            "000000000",
            "0000000",
            "00000000.idy",
            "x.broken-",
            ".broken-1",
            "x",
            "0000000é",
        ] {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
        for bad in ["cp.", "cp.6", "cp.6F", "cp.00", "cp.zz"] {
            assert_eq!(kind(bad), Kind::BadCheckpoint, "{bad}");
        }
    }
}
