//! The file `<segment>.repaired`: how repairs changed a segment's markers.
//!
//! A repair takes damaged records out of a segment, and later records get smaller markers. A reader
//! that was open meanwhile has ids from before the repair; this file says what became of them. It
//! has a line for each repair: the old and the new file of the segment (device and inode of both),
//! and the markers that were taken out. At the end is a CRC-32 of all that.
//!
//! ```text
//! 64769:131 64769:140 3+1,17+2
//! crc 1f2e3d4c
//! ```

use crate::codec::names;
use crate::files::shared::Shared;
use crate::storage::{Open, read_all};
use crate::{Error, Result};

/// Device and inode of a file.
pub(crate) type Identity = (u64, u64);

/// How many repairs of a segment are remembered, the latest ones.
const MAX: usize = 64;
const MAX_LEN: usize = 64 << 20;

/// Adjacent records that were taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Marker of the first one.
    pub(crate) first: u32,
    /// How many.
    pub(crate) count: u32,
}

/// A repair of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repaired {
    pub(crate) old: Identity,
    pub(crate) new: Identity,
    pub(crate) markers: Vec<Removed>,
}

/// Merges consecutive markers, which come in ascending order.
pub(crate) fn join(markers: &[u32]) -> Vec<Removed> {
    let mut out: Vec<Removed> = Vec::new();
    for &marker in markers {
        match out.last_mut() {
            Some(last) if last.first.saturating_add(last.count) == marker => last.count += 1,
            _ => out.push(Removed { first: marker, count: 1 }),
        }
    }
    out
}

/// How many of the records that were taken out have this marker or a smaller one.
pub(crate) fn up_to(markers: &[Removed], marker: u32) -> u32 {
    let counts = markers
        .iter()
        .filter(|removed| removed.first <= marker)
        .map(|removed| removed.count.min((marker - removed.first).saturating_add(1)));
    counts.fold(0, u32::saturating_add)
}

pub(crate) fn markers_text(markers: &[Removed]) -> String {
    if markers.is_empty() {
        return "-".to_owned();
    }
    let list: Vec<String> = markers.iter().map(|r| format!("{}+{}", r.first, r.count)).collect();
    list.join(",")
}

pub(crate) fn parse_markers(text: &str) -> Option<Vec<Removed>> {
    if text == "-" {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|part| {
            let (first, count) = part.split_once('+')?;
            Some(Removed { first: first.parse().ok()?, count: count.parse().ok()? })
        })
        .collect()
}

pub(crate) fn identity_text(identity: Identity) -> String {
    format!("{}:{}", identity.0, identity.1)
}

pub(crate) fn parse_identity(text: &str) -> Option<Identity> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// The file's text. If there are too many repairs, the oldest are left out.
pub(crate) fn encode(repairs: &[Repaired]) -> String {
    let mut text = String::new();
    for repair in &repairs[repairs.len().saturating_sub(MAX)..] {
        let (old, new) = (identity_text(repair.old), identity_text(repair.new));
        text.push_str(&format!("{old} {new} {}\n", markers_text(&repair.markers)));
    }
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc {crc:08x}\n"));
    text
}

/// Reads the file's bytes; `None` if they are damaged.
fn parse(bytes: &[u8]) -> Option<Vec<Repaired>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let at = text.rfind("crc ")?;
    let (listed, crc) = text.split_at(at);
    if crc != format!("crc {:08x}\n", crc32fast::hash(listed.as_bytes())) {
        return None;
    }
    listed
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            Some(Repaired {
                old: parse_identity(words.next()?)?,
                new: parse_identity(words.next()?)?,
                markers: parse_markers(words.next()?)?,
            })
        })
        .collect()
}

/// The repairs of a segment; none if the file is damaged.
pub(crate) fn load(shared: &Shared, segment: u32) -> Result<Vec<Repaired>> {
    let name = names::repaired(segment);
    let Some(file) = shared.open_if_there(&name, Open::Read)? else { return Ok(Vec::new()) };
    let bytes = read_all(&*file, MAX_LEN).map_err(|e| Error::io("read", shared.at(&name), e))?;
    Ok(parse(&bytes).unwrap_or_default())
}

/// The marker in the file `to` of the record that had this marker in the file `from`. If it was
/// taken out, that of the record before it. `None` if no repair leads from one to the other.
pub(crate) fn follow(
    shared: &Shared,
    segment: u32,
    from: Identity,
    to: Identity,
    marker: u32,
) -> Result<Option<u32>> {
    if from == to || marker == 0 {
        return Ok(Some(marker));
    }
    Ok(walk(&load(shared, segment)?, from, to, marker))
}

fn walk(repairs: &[Repaired], from: Identity, to: Identity, mut marker: u32) -> Option<u32> {
    let mut here = from;
    for repair in repairs {
        if repair.old == here {
            marker -= up_to(&repair.markers, marker).min(marker);
            here = repair.new;
        }
    }
    (here == to).then_some(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(old: u64, new: u64, markers: &[u32]) -> Repaired {
        Repaired { old: (1, old), new: (1, new), markers: join(markers) }
    }

    #[test]
    fn markers_are_followed_through_every_repair() {
        let repairs = [repaired(7, 8, &[3, 4, 9]), repaired(8, 9, &[1])];
        assert_eq!(repairs[0].markers.len(), 2);
        let followed: Vec<Option<u32>> =
            (0..=10).map(|marker| walk(&repairs, (1, 7), (1, 9), marker)).collect();
        let expected = [0, 0, 1, 1, 1, 2, 3, 4, 5, 5, 6].map(Some);
        assert_eq!(followed, expected);
        assert_eq!(walk(&repairs, (1, 8), (1, 9), 6), Some(5));
        assert_eq!(walk(&repairs, (1, 7), (1, 8), 10), None, "that file is gone");
        assert_eq!(walk(&repairs, (1, 1), (1, 9), 10), None, "nobody knows that file");
    }

    #[test]
    fn what_is_noted_is_read_and_damage_is_nothing() {
        let repairs = vec![repaired(7, 8, &[3, 4, 9]), repaired(8, 9, &[])];
        let text = encode(&repairs);
        assert_eq!(parse(text.as_bytes()), Some(repairs));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 0x10;
            assert_eq!(parse(&damaged), None, "byte {at}");
        }
        let many: Vec<Repaired> = (0..100).map(|n| repaired(n, n + 1, &[1])).collect();
        assert_eq!(parse(encode(&many).as_bytes()).unwrap(), many[100 - MAX..]);
    }
}
