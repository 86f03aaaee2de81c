//! The file `dropped`: segments that were dropped although a subscriber needed them, and their
//! numbers of messages.
//!
//! ```text
//!  0  u32  number of a segment
//!  4  u32  how many records it had
//!     …    repeated, numbers ascending
//!  n  u32  CRC-32 of everything before it
//! ```

use std::collections::BTreeMap;

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::codec::names;
use crate::files::shared::Shared;
use crate::storage::{Open, read_all};
use crate::{Error, LogId, Result};

/// The maximum number of segments that are remembered. Beyond `MANY`, only those that a subscriber
/// may need are remembered.
const MAX: usize = 65_536;
const MANY: usize = 1024;
const MAX_LEN: usize = MAX * 8 + 4;

/// Reads the file's bytes: segments and how many records they had; nothing if the bytes are
/// damaged.
pub fn parse(bytes: &[u8]) -> BTreeMap<u32, u32> {
    let Some((entries, crc)) = bytes.split_last_chunk::<4>() else { return BTreeMap::new() };
    if entries.len() % 8 != 0 || crc32fast::hash(entries) != u32::from_le_bytes(*crc) {
        return BTreeMap::new();
    }
    entries.chunks_exact(8).map(|entry| (LE::read_u32(&entry[..4]), LE::read_u32(&entry[4..]))).collect()
}

/// The file's bytes.
pub fn encode(dropped: &BTreeMap<u32, u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(dropped.len() * 8 + 4);
    for (segment, records) in dropped {
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&records.to_le_bytes());
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn load(shared: &Shared) -> Result<BTreeMap<u32, u32>> {
    let Some(file) = shared.open_if_there(names::DROPPED, Open::Read)? else { return Ok(BTreeMap::new()) };
    let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", shared.at(names::DROPPED), e))?;
    Ok(parse(&bytes))
}

/// Records that these segments, each with its number of records, are about to be dropped.
/// `needed_from` finds the first segment that a subscriber needs.
pub(crate) fn note(
    shared: &Shared,
    segments: &[(u32, u32)],
    needed_from: impl FnOnce() -> Result<Option<u32>>,
) -> Result<()> {
    let mut dropped = load(shared)?;
    dropped.extend(segments.iter().copied());
    if dropped.len() > MANY
        && let Some(first) = needed_from()?
    {
        dropped = dropped.split_off(&first);
    }
    while dropped.len() > MAX {
        dropped.pop_first();
    }
    shared.write_temporary(&encode(&dropped))?.rename(names::DROPPED)
}

/// How many messages after `from` were dropped with segments before `to`.
pub(crate) fn missed(shared: &Shared, from: LogId, to: u32) -> Result<u64> {
    if from.segment >= to {
        return Ok(0);
    }
    let dropped = load(shared)?;
    let done = dropped.get(&from.segment).map_or(0, |&records| records.min(from.marker));
    let all: u64 = dropped.range(from.segment..to).map(|(_, &records)| u64::from(records)).sum();
    Ok(all - u64::from(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_damage_is_no_number() {
        let dropped = BTreeMap::from([(3, 10), (4, 1), (u32::MAX, u32::MAX)]);
        let bytes = encode(&dropped);
        assert_eq!(parse(&bytes), dropped);
        assert_eq!(parse(&encode(&BTreeMap::new())), BTreeMap::new());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(parse(&damaged), BTreeMap::new(), "byte {at}");
            assert_eq!(parse(&bytes[..at]), BTreeMap::new(), "cut at {at}");
        }
    }
}
