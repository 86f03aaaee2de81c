//! Files beside a segment with any contents: its index, its checksums.

use jlog_core::LogId;
use jlog_core::compat::ReaderCompat;
use jlog_core::names;

use super::everything::{bodies, read_all, try_everything};
use super::feed::{Feed, Template, messages};
use super::{Disk, edit, switches, take};
use crate::crc32;

/// The bytes as an index with any contents.
///
/// Switches: 1 of the segment being written; 2 the bytes are changes to the right one; 128 written
/// to before it is repaired.
pub fn index(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let segment = feed.segment(switches & 1 != 0);
    let name = names::index(segment);
    let mut entries = bytes.to_vec();
    if switches & 2 != 0 {
        let records = feed.records(segment);
        entries = records.iter().flat_map(|(at, ..)| (*at as u64).to_le_bytes()).collect();
        if switches & 1 == 0 {
            entries.extend([0; 8]);
        }
        edit(&mut entries, bytes);
    }
    feed.put(&name, &entries);
    let log = feed.open().unwrap();
    let all = messages();
    let check = |what: &str| {
        let got = read_all(&log).expect("an index is never needed");
        assert!(bodies(&got).iter().eq(&all), "{what}: {got:?}");
    };
    check("with the index as it is");
    let mut reader = log.reader("s").unwrap();
    let interval = reader.interval().expect("a bad index is rebuilt");
    assert_eq!((interval.first, interval.count), (LogId::new(0, 1), interval.last.marker));
    drop(reader);
    check("after the index was brought up to date");
    assert!(!log.verify().unwrap().is_damaged());
    try_everything(&feed, switches & 128 != 0, &all);
}

/// A sidecar whose runs are well-formed, with contents from the bytes: right or wrong.
fn runs(mut data: &[u8], inode: u64, segment: &[u8], records: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let first = usize::try_from(take(&mut data, 1)).unwrap() % (records.len() + 1);
        let count = usize::try_from(take(&mut data, 1)).unwrap() % 16;
        let lies = take(&mut data, 1);
        let covered = &records[first..(first + count).min(records.len())];
        let begin = covered.first().map_or(segment.len(), |record| record.0);
        let end = covered.last().map_or(begin, |record| record.0 + record.1);
        let last = covered.last().map_or(begin, |record| record.0);
        let lie = |truth: u64, bit: u32, data: &mut &[u8]| {
            if lies >> bit & 1 == 1 { take(data, 8) } else { truth }
        };
        let mut crcs: Vec<u8> = Vec::new();
        for n in 0..count {
            let truth = covered.get(n).map_or(0, |(at, len, _)| crc32(&segment[*at..at + len]));
            let crc = if lies >> 6 & 1 == 1 { take(&mut data, 4) } else { truth.into() };
            crcs.extend_from_slice(&crc.to_le_bytes()[..4]);
        }
        let mut header = Vec::new();
        header.extend_from_slice(b"jcr1");
        header.extend_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
        header.extend_from_slice(&lie(begin as u64, 0, &mut data).to_le_bytes());
        header.extend_from_slice(&lie((end - begin) as u64, 1, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(last as u64, 2, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(inode, 3, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(first as u64 + 1, 4, &mut data).to_le_bytes()[..4]);
        header.extend_from_slice(&crc32(&crcs).to_le_bytes());
        let crc = crc32(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        out.extend(header);
        out.extend(crcs);
    }
    out
}

/// The bytes as checksums.
///
/// Switches: 1 of the segment being written; 2 well-formed, with contents from the bytes; 4 of
/// another segment; 128 written to before it is repaired.
pub fn checksums(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let segment = feed.segment(switches & 1 != 0);
    let name = names::segment(segment);
    let well_formed = switches & 2 != 0;
    let mut sidecar = bytes.to_vec();
    let mut foreign = false;
    if well_formed {
        let mut inode = feed.storage.facts(&feed.path.join(&name)).unwrap().identity.1;
        foreign = switches & 4 != 0;
        inode ^= u64::from(foreign);
        sidecar = runs(bytes, inode, &feed.get(&name).unwrap(), &feed.records(segment));
    }
    feed.put(&names::checksums(segment), &sidecar);
    let log = feed.open().unwrap();
    let all = messages();
    let got = read_all(&log).expect("checksums never make a jlog unreadable");
    assert!(got.iter().all(|(_, body)| all.contains(body)), "a body that was never written: {got:?}");
    let mut wanted = all.clone();
    if well_formed && !foreign {
        // They may accuse any record here, but none in other segments.
        let (before, after) = feed.elsewhere(segment);
        wanted = [before, after].concat();
    } else {
        assert!(bodies(&got).iter().eq(&all), "no good checksums, and yet messages are missing: {got:?}");
        let verified = log.verify().unwrap();
        assert!(!verified.is_damaged(), "{:?}", verified.findings);
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}
