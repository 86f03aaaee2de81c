//! Finds the records at the beginning of some bytes, checks them and decompresses them.

use super::state::Segment;
use crate::codec::format::{RecordFormat, RecordHeader};
use crate::files::checksum::{Suspect, Verdict};
use crate::files::scan::{Step, step, whole, whole_records};

/// The bytes at a reader's position, to be scanned.
pub(super) struct Scan<'a> {
    pub(super) format: RecordFormat,
    pub(super) segment: &'a mut Segment,
    pub(super) verify: bool,
    pub(super) marker: u32,
    pub(super) offset: u64,
    /// Bytes from the offset to the segment's end.
    pub(super) left: u64,
    /// Whether the segment is no longer written to.
    pub(super) complete: bool,
}

pub(super) enum Scanned {
    Records {
        count: u32,
        bytes: usize,
        plain_bytes: usize,
    },
    /// The first record is longer than the bytes given.
    Longer(u64),
    Torn,
    Corrupt,
    /// A record that does not match the checksums: a survey decides whether it is damaged.
    Doubtful,
    WrongBlock,
}

impl Scan<'_> {
    /// Finds the whole, intact records at the beginning of `bytes`. Decompresses compressed ones
    /// into `plain`, until that holds more than `limit`.
    pub(super) fn run(self, bytes: &[u8], plain: &mut Vec<u8>, limit: usize) -> std::io::Result<Scanned> {
        let check = self.verify && !self.segment.verifier.is_empty();
        let header_len = self.format.header_len();
        let mut at = 0;
        let mut count = 0;
        // The last record, if no checksum covers it: its offsets in the bytes and in `plain`.
        let mut unproven: Option<(usize, usize)> = None;
        plain.clear();
        // Many good records are checked at once; the others are checked one by one.
        let mut quickly = check;
        if !check && !self.format.is_lz4() && self.segment.accepted.end <= self.offset {
            let (whole, last, end) = whole_records(self.format, bytes);
            (count, at) = (whole, end);
            unproven = (whole > 0).then_some((last, 0));
        }
        let stop = loop {
            if quickly {
                let first = Suspect {
                    marker: self.marker.saturating_add(count).saturating_add(1),
                    offset: self.offset + at as u64,
                    total: 0,
                };
                // Compressed records that do not fit into `plain` are checked again later, so only
                // a few are checked at a time.
                let most = if self.format.is_lz4() { 32 } else { u32::MAX };
                let (good, end) = self.segment.verifier.check_all(first, &bytes[at..], self.format, most)?;
                if good > 0 {
                    unproven = None;
                }
                if !self.format.is_lz4() {
                    count += good;
                    at += end;
                } else if let Some(stop) = self.unpack_all(bytes, good, (&mut count, &mut at), plain, limit) {
                    break stop;
                }
            }
            let rest = &bytes[at..];
            let (header, total) = match step(self.format, rest, self.left - at as u64) {
                Step::Record(header, total) => (header, total),
                // Less than a header in these bytes, more in the segment.
                Step::Torn if self.left > bytes.len() as u64 && rest.len() < header_len => {
                    break Scanned::Longer(header_len as u64);
                }
                Step::End | Step::Torn => break Scanned::Torn,
                Step::Corrupt => break Scanned::Corrupt,
            };
            let Some(record) = usize::try_from(total).ok().and_then(|total| rest.get(..total)) else {
                break Scanned::Longer(total);
            };
            let offset = self.offset + at as u64;
            let accepted = self.segment.accepted.contains(&offset);
            unproven = (!accepted).then_some((at, plain.len()));
            if check && !accepted {
                let marker = self.marker.saturating_add(count).saturating_add(1);
                let suspect = Suspect { marker, offset, total };
                match self.segment.verifier.check(suspect, || crc32fast::hash(record))? {
                    Verdict::Good => {
                        unproven = None;
                        quickly = true;
                    }
                    Verdict::Uncovered => quickly = false,
                    Verdict::Doubtful => break Scanned::Doubtful,
                }
            }
            if self.format.is_lz4() && !unpack(self.format, &header, record, plain) {
                break Scanned::WrongBlock;
            }
            at += record.len();
            count += 1;
            if plain.len() > limit || at == bytes.len() {
                break Scanned::Torn;
            }
        };
        // If no record follows, its own length may be damaged.
        let unfollowed = match stop {
            Scanned::Corrupt => true,
            // If the torn record has a header, the record before it ends where it should.
            Scanned::Torn => self.complete && at < bytes.len() && self.format.decode(&bytes[at..]).is_none(),
            _ => false,
        };
        if unfollowed && let Some((start, plain_start)) = unproven {
            if count <= 1 {
                return Ok(Scanned::Corrupt);
            }
            plain.truncate(plain_start);
            return Ok(Scanned::Records { count: count - 1, bytes: start, plain_bytes: plain.len() });
        }
        if count > 0 {
            return Ok(Scanned::Records { count, bytes: at, plain_bytes: plain.len() });
        }
        Ok(stop)
    }

    /// Decompresses this many whole records into `plain`, and moves the count and the offset past
    /// them. If it stops early, returns why.
    fn unpack_all(
        &self,
        bytes: &[u8],
        records: u32,
        (count, at): (&mut u32, &mut usize),
        plain: &mut Vec<u8>,
        limit: usize,
    ) -> Option<Scanned> {
        for _ in 0..records {
            let rest = &bytes[*at..];
            let (Some(header), Some(record)) = (self.format.decode(rest), whole(self.format, rest)) else {
                break;
            };
            if !unpack(self.format, &header, record, plain) {
                return Some(Scanned::WrongBlock);
            }
            *at += record.len();
            *count += 1;
            if plain.len() > limit {
                return Some(Scanned::Torn);
            }
        }
        None
    }
}

/// Adds a compressed record to `plain`, with its body decompressed. If that fails, returns `false`
/// and adds nothing.
fn unpack(format: RecordFormat, header: &RecordHeader, record: &[u8], plain: &mut Vec<u8>) -> bool {
    let start = plain.len();
    let (head, body) = record.split_at(format.header_len());
    plain.extend_from_slice(head);
    let unpacked = format.load(header, body, plain);
    if !unpacked {
        plain.truncate(start);
    }
    unpacked
}
