//! Segments with any contents.

use jlog_core::Compression;
use jlog_core::compat::ReaderCompat;
use jlog_core::format::{COMPRESSED_MAGIC, OLD_METASTORE_LEN, RecordFormat, RecordHeader};
use jlog_core::internals::scan::{Step, step};
use jlog_core::names;

use super::everything::{bodies, is_subsequence, read_all, try_everything};
use super::feed::{Feed, Template, head};
use super::{Disk, edit, switches, take};

/// Headers and stored bodies of the whole records at the beginning of some bytes.
pub(super) fn leading(format: RecordFormat, bytes: &[u8]) -> Vec<(RecordHeader, Vec<u8>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Step::Record(header, total) = step(format, &bytes[at..], (bytes.len() - at) as u64) {
        let end = at + usize::try_from(total).unwrap();
        out.push((header, bytes[at + format.header_len()..end].to_vec()));
        at = end;
    }
    out
}

/// The bytes as a segment, or as changes to one.
///
/// Switches: 1, 2 the layout; 4 the segment being written; 8 its checksums stay; 16 it has an
/// index; 32 the bytes are changes; 128 written to before it is repaired.
pub fn scanner(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let formats = [
        RecordFormat::new(Compression::None),
        RecordFormat::new(Compression::Lz4),
        RecordFormat::from_magic(COMPRESSED_MAGIC).unwrap(),
        RecordFormat::old(),
    ];
    let format = formats[usize::from(switches & 3)];
    for at in 0..bytes.len().min(64) {
        let left = bytes.len() - at;
        match step(format, &bytes[at..], left as u64) {
            Step::Record(header, total) => {
                assert_eq!(total, format.header_len() as u64 + u64::from(header.stored));
                assert!(total <= left as u64);
            }
            Step::End => panic!("{left} bytes are left"),
            Step::Torn | Step::Corrupt => {}
        }
    }
    // In the layouts that no jlog of ours has, the other segments have another layout.
    let feed = Feed::new(disk, if format.is_lz4() { Template::Lz4 } else { Template::Plain });
    let segment = feed.segment(switches & 4 != 0);
    let name = names::segment(segment);
    let original = feed.get(&name).unwrap();
    let records = feed.records(segment);
    let (before, after) = feed.elsewhere(segment);
    if switches & 16 != 0 {
        feed.open().unwrap().reader("s").unwrap().interval().unwrap();
    }
    let changed = switches & 32 != 0;
    let segment_bytes = if changed {
        let mut edited = original.clone();
        edit(&mut edited, bytes);
        edited
    } else {
        bytes.to_vec()
    };
    feed.put(&name, &segment_bytes);
    let checked = switches & 8 != 0;
    if !checked {
        feed.remove(&names::checksums(segment));
    }
    let mut wanted = before;
    match switches & 3 {
        0 if checked && changed => {
            // The checksums show which records are intact.
            wanted.extend(
                records
                    .into_iter()
                    .filter(|(at, len, _)| segment_bytes.get(*at..at + len) == original.get(*at..at + len))
                    .map(|(.., body)| body),
            );
            wanted.extend(after);
        }
        0 => {
            wanted.extend(leading(format, &segment_bytes).into_iter().map(|(_, body)| body));
            wanted.extend(after);
        }
        1 => wanted.extend(after),
        2 => {
            let mut meta = feed.get(names::METASTORE).unwrap();
            meta[12..].copy_from_slice(&format.magic().to_le_bytes());
            feed.put(names::METASTORE, &meta);
            wanted.clear();
        }
        _ => {
            let meta = feed.get(names::METASTORE).unwrap();
            feed.put(names::METASTORE, &meta[..OLD_METASTORE_LEN]);
            wanted.clear();
        }
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as compressed records: valid ones, ones with a false length, and arbitrary bytes.
///
/// Switches: 1 in the segment being written; 128 written to before it is repaired.
pub fn lz4_records(disk: Disk, data: &[u8]) {
    let (switches, mut bytes) = switches(data);
    let feed = Feed::new(disk, Template::Lz4);
    let format = RecordFormat::new(Compression::Lz4);
    let segment = feed.segment(switches & 1 != 0);
    let (before, after) = feed.elsewhere(segment);
    let mut placed = Vec::new();
    while !bytes.is_empty() {
        let kind = take(&mut bytes, 1);
        let len = usize::try_from(take(&mut bytes, 1)).unwrap().min(bytes.len());
        let (body, rest) = bytes.split_at(len);
        bytes = rest;
        match kind % 4 {
            // A valid record.
            0 => {
                let body = body.repeat(1 + usize::try_from(kind / 4).unwrap());
                let stored = lz4_flex::block::compress(&body);
                let [len, stored_len] = [body.len(), stored.len()].map(|n| u32::try_from(n).unwrap());
                placed.extend(head(format, len, stored_len));
                placed.extend(stored);
            }
            // One whose length may be false.
            1 => {
                let claimed = u32::try_from(take(&mut bytes, 4)).unwrap();
                placed.extend(head(format, claimed, u32::try_from(body.len()).unwrap()));
                placed.extend_from_slice(body);
            }
            // One whose stored length may be false.
            2 => {
                let claimed = u32::try_from(take(&mut bytes, 4)).unwrap();
                placed.extend(head(format, u32::try_from(body.len()).unwrap(), claimed));
                placed.extend_from_slice(body);
            }
            _ => placed.extend_from_slice(body),
        }
    }
    feed.put(&names::segment(segment), &placed);
    feed.remove(&names::checksums(segment));
    let mut whole = leading(format, &placed);
    let covered: usize = whole.iter().map(|(_, stored)| format.header_len() + stored.len()).sum();
    if covered < placed.len() {
        // What follows the last record is none: the last one's length may be false.
        whole.pop();
    }
    let good = whole.into_iter().filter_map(|(header, stored)| {
        // A block decompresses to at most 255 times its own length.
        let len = usize::try_from(header.len).unwrap();
        let body = (len <= 255 * stored.len()).then(|| lz4_flex::block::decompress(&stored, len).ok())??;
        (body.len() == len).then_some(body)
    });
    let wanted: Vec<Vec<u8>> = before.into_iter().chain(good).chain(after).collect();
    if let Ok(all) = feed.open().and_then(|log| read_all(&log)) {
        assert!(is_subsequence(&wanted, &bodies(&all)), "good records are read: {all:?}\nwanted: {wanted:?}");
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}
