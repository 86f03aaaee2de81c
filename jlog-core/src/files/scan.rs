//! Turns bytes into records, or says where and why they stop. The first half is pure; the second
//! reads a segment through a window of bounded size.

use std::io;

use crate::codec::format::{RecordFormat, RecordHeader};
use crate::storage::{File, read_up_to_at};

/// Where a survey begins: after this many records, at this offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) marker: u32,
    pub(crate) offset: u64,
}

/// What an offset of a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole record with this header and total length (header and body).
    Record(RecordHeader, u64),
    /// The segment ends here.
    End,
    /// A record begins here and does not end inside the segment, or less than a header is left.
    Torn,
    /// No record begins here.
    Corrupt,
}

/// Examines the record that begins with `head`, with `left` bytes from there to the segment's end.
/// `head` must hold at least a header, or all remaining bytes.
pub fn step(format: RecordFormat, head: &[u8], left: u64) -> Step {
    if left == 0 {
        return Step::End;
    }
    if left < format.header_len() as u64 || head.len() < format.header_len() {
        return Step::Torn;
    }
    match format.decode(head) {
        None => Step::Corrupt,
        Some(header) => {
            let total = format.header_len() as u64 + u64::from(header.stored);
            if total > left { Step::Torn } else { Step::Record(header, total) }
        }
    }
}

/// The record that `bytes` begin with, if they hold all of it.
#[inline]
pub fn whole(format: RecordFormat, bytes: &[u8]) -> Option<&[u8]> {
    let stored = format.decode(bytes)?.stored;
    bytes.get(..format.header_len().checked_add(usize::try_from(stored).ok()?)?)
}

/// How many consecutive whole records `bytes` begins with, and where the last one begins and ends.
pub fn whole_records(format: RecordFormat, bytes: &[u8]) -> (u32, usize, usize) {
    let (mut count, mut last, mut end) = (0u32, 0, 0);
    while let Some(record) = whole(format, &bytes[end..]) {
        (last, end) = (end, end + record.len());
        count = count.saturating_add(1);
    }
    (count, last, end)
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the end of the bytes, after a whole record.
    End,
    /// At a record that does not end inside the bytes.
    Torn,
    /// At bytes that are not a record.
    Corrupt,
}

/// Where a walk ended: everything before `offset` is whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// End of the last whole record.
    pub offset: u64,
    /// Number of records walked over.
    pub records: u32,
    /// Why it ended there.
    pub stop: Stop,
}

/// A piece of a file in memory that moves along with a scan.
#[derive(Debug)]
pub(crate) struct Window {
    buf: Vec<u8>,
    start: u64,
    /// How much of the buffer holds bytes of the file.
    len: usize,
    ahead: usize,
}

/// Bytes that a window reads at once.
pub(crate) const WINDOW: usize = 256 << 10;

impl Default for Window {
    fn default() -> Self {
        Self::of(WINDOW)
    }
}

impl Window {
    /// A window that reads this many bytes at once.
    pub(crate) fn of(ahead: usize) -> Self {
        Self { buf: Vec::new(), start: 0, len: 0, ahead }
    }

    /// Forgets its contents. Keeps the memory, unless that is more than it reads at once.
    pub(crate) fn empty(&mut self) {
        (self.start, self.len) = (0, 0);
        self.buf.truncate(self.ahead);
        self.buf.shrink_to(self.ahead);
    }

    /// The bytes from `offset` on: at least `need` of them, unless the file ends before that.
    pub(crate) fn at(&mut self, file: &dyn File, offset: u64, need: usize) -> io::Result<&[u8]> {
        let end = self.start + self.len as u64;
        let inside = offset >= self.start && offset + need as u64 <= end;
        if !inside {
            // At most the file's length: in a feed with many small segments, most files are far
            // shorter than a window.
            let left = file.len()?.saturating_sub(offset);
            let want = need.max(self.ahead).min(usize::try_from(left).unwrap_or(usize::MAX));
            if self.buf.len() < want {
                self.buf.resize(want, 0);
            }
            self.len = 0;
            self.len = read_up_to_at(file, &mut self.buf[..want], offset)?;
            self.start = offset;
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(self.len);
        Ok(&self.buf[skip.min(self.len)..self.len])
    }
}

/// Walks over the records of `file` between `from` (where a record begins) and `to`.
/// `each` is called with every record's offset, header and total length.
pub(crate) fn walk(
    file: &dyn File,
    format: RecordFormat,
    from: u64,
    to: u64,
    window: &mut Window,
    mut each: impl FnMut(u64, &RecordHeader, u64),
) -> io::Result<Walked> {
    let mut offset = from;
    let mut records = 0;
    let header_len = format.header_len();
    loop {
        let bytes =
            window.at(file, offset, header_len.min(usize::try_from(to - offset).unwrap_or(header_len)))?;
        // Process every record in the window before it is moved.
        let mut rest = bytes;
        loop {
            let stop = match step(format, rest, to - offset) {
                Step::Record(header, total) => {
                    each(offset, &header, total);
                    offset += total;
                    records = u32::saturating_add(records, 1);
                    match usize::try_from(total).ok().and_then(|t| rest.get(t..)) {
                        Some(more) if more.len() >= header_len || offset == to => {
                            rest = more;
                            continue;
                        }
                        _ => break,
                    }
                }
                Step::End => Stop::End,
                Step::Torn => Stop::Torn,
                Step::Corrupt => Stop::Corrupt,
            };
            return Ok(Walked { offset, records, stop });
        }
    }
}

/// The CRC-32 of a record's bytes, header included, read through the window.
pub(crate) fn record_crc(file: &dyn File, offset: u64, total: u64, window: &mut Window) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = offset;
    let end = offset + total;
    while at < end {
        let need = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
        let bytes = window.at(file, at, need)?;
        let n = bytes.len().min(need);
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&bytes[..n]);
        at += n as u64;
    }
    Ok(hasher.finalize())
}

/// A candidate for `judge`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) header: RecordHeader,
}

/// Finds the first record at or after `from` in a damaged segment that ends at `to`.
///
/// A candidate has the right magic and ends inside the segment. `judge` may know by a checksum that
/// it is a record (`Some(true)`) or that it is not (`Some(false)`). Otherwise it counts if the
/// segment ends after it or another valid header follows, as in the C library.
pub(crate) fn next_record(
    file: &dyn File,
    format: RecordFormat,
    from: u64,
    to: u64,
    window: &mut Window,
    mut judge: impl FnMut(Candidate, &mut Window) -> io::Result<Option<bool>>,
) -> io::Result<Option<u64>> {
    // The oldest records carry the magic 0, which identifies nothing.
    if format.magic() == 0 {
        return Ok(None);
    }
    let header_len = format.header_len() as u64;
    let magic = format.magic().to_le_bytes();
    let finder = memchr::memmem::Finder::new(&magic);
    let mut at = from;
    let mut scratch = Window::default();
    while at + header_len <= to {
        let left = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW);
        let bytes = window.at(file, at, left)?;
        let bytes = &bytes[..bytes.len().min(left)];
        let Some(found) = finder.find(bytes) else {
            if bytes.len() < left || bytes.len() <= magic.len() {
                return Ok(None);
            }
            // The magic may cross the window's end.
            at += (bytes.len() - magic.len() + 1) as u64;
            continue;
        };
        let offset = at + found as u64;
        at = offset + 1;
        let head = scratch.at(file, offset, format.header_len())?;
        let Step::Record(header, total) = step(format, head, to - offset) else { continue };
        let good = match judge(Candidate { offset, total, header }, &mut scratch)? {
            Some(known) => known,
            None => {
                let next = offset + total;
                let head = scratch.at(file, next, format.header_len())?;
                next == to || (to - next >= header_len && format.decode(head).is_some())
            }
        };
        if good {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Timestamp;
    use crate::codec::format::Compression;
    use crate::storage::{Open, Posix, Storage};

    fn segment(bodies: &[&[u8]]) -> Vec<u8> {
        let format = RecordFormat::new(Compression::None);
        let mut out = Vec::new();
        for body in bodies {
            let len = u32::try_from(body.len()).unwrap();
            let mut head = [0; 16];
            format.encode(&RecordHeader { time: Timestamp::default(), len, stored: len }, &mut head);
            out.extend_from_slice(&head);
            out.extend_from_slice(body);
        }
        out
    }

    fn scan(bytes: &[u8]) -> (Walked, Vec<u64>, Option<u64>) {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(bytes).unwrap();
        let file = Posix.open(temp.path(), Open::Read).unwrap();
        let format = RecordFormat::new(Compression::None);
        let to = bytes.len() as u64;
        let mut offsets = Vec::new();
        let mut window = Window::default();
        let walked = walk(&*file, format, 0, to, &mut window, |offset, _, _| offsets.push(offset)).unwrap();
        let next = next_record(&*file, format, walked.offset, to, &mut window, |_, _| Ok(None)).unwrap();
        (walked, offsets, next)
    }

    #[test]
    fn whole_torn_and_corrupt_are_told_apart() {
        let bytes = segment(&[b"", b"abc", b"de"]);
        let (walked, offsets, _) = scan(&bytes);
        assert_eq!(walked, Walked { offset: 53, records: 3, stop: Stop::End });
        assert_eq!(offsets, [0, 16, 35]);
        for cut in 36..53 {
            assert_eq!(scan(&bytes[..cut]).0, Walked { offset: 35, records: 2, stop: Stop::Torn });
        }
        let mut damaged = bytes.clone();
        damaged[16] ^= 1;
        let (walked, _, next) = scan(&damaged);
        assert_eq!(walked, Walked { offset: 16, records: 1, stop: Stop::Corrupt });
        assert_eq!(next, Some(35));
        assert_eq!(scan(&[]).0, Walked { offset: 0, records: 0, stop: Stop::End });
    }

    #[test]
    fn a_window_over_a_short_file_is_short() {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(b"0123456789").unwrap();
        let file = Posix.open(temp.path(), Open::Read).unwrap();
        let mut window = Window::default();
        assert_eq!(window.at(&*file, 3, 2).unwrap(), b"3456789");
        assert!(window.buf.capacity() < 1024, "{}", window.buf.capacity());
        assert_eq!(window.at(&*file, 8, 16).unwrap(), b"89");
        assert_eq!(window.at(&*file, 10, 16).unwrap(), b"");
        assert_eq!(window.at(&*file, 99, 16).unwrap(), b"");
        // It has grown.
        temp.write_all(b"abc").unwrap();
        assert_eq!(window.at(&*file, 9, 16).unwrap(), b"9abc");
    }

    #[test]
    fn records_larger_than_the_window_are_stepped_over() {
        let big = vec![7; 3 * WINDOW + 1];
        let bytes = segment(&[b"x", &big, b"y", &big, b"z"]);
        let (walked, offsets, _) = scan(&bytes);
        assert_eq!((walked.records, walked.stop), (5, Stop::End));
        assert_eq!(offsets[3] - offsets[2], 17);
        let mut damaged = bytes.clone();
        damaged[17] = 0;
        assert_eq!(scan(&damaged).2, Some(offsets[2]));
    }
}
