//! The messages that a C reader was given. Their memory stays in place as long as it does with the
//! C library.
//!
//! Messages are handed out in the buffer that the engine read them into, and are not copied again:
//! a chunk takes over the buffer of a batch. It is our own memory and not a map of the segment,
//! because a map cannot be made safe: truncating the file would kill a program that reads a
//! message.
//!
//! A NUL byte follows each message. After a body comes the next record's header. Its first byte
//! belongs to the header magic, which is the same in all records and no longer needed, so it
//! becomes the NUL. The segment itself never changes.

use std::mem::MaybeUninit;
use std::ptr;

use jlog_core::{LogId, Message};

use crate::abi::{jlog_message, jlog_message_header_compressed};

/// The maximum memory, in bytes, of all buffers that are kept for later reads.
const SPARE: usize = 16 << 20;
const PLAIN_HEADER: usize = 16;
const COMPRESSED_HEADER: usize = 20;

/// The beginning of every `STRIDE`-th record of a chunk is noted.
const STRIDE: u32 = 64;

/// A run of records of one segment. The bodies of compressed records are decompressed after their
/// headers.
#[derive(Debug)]
struct Chunk {
    first: LogId,
    count: u32,
    /// The records, and at least one byte after them. Because C programs have pointers into it, we
    /// also write to it only through pointers.
    bytes: Vec<u8>,
    /// The offset of every `STRIDE`-th record, as far as the chunk has been read.
    marks: Vec<usize>,
    /// The record after the one that was handed out last, and its offset.
    cursor: (u32, usize),
}

impl Chunk {
    fn place(&self, id: LogId) -> Option<u32> {
        let at = id.marker.checked_sub(self.first.marker)?;
        (id.segment == self.first.segment && at < self.count).then_some(at)
    }

    /// Where a record begins.
    fn start(&mut self, at: u32, header_len: usize) -> Option<usize> {
        if self.cursor.0 == at {
            return Some(self.cursor.1);
        }
        let mark = (at / STRIDE).min(u32::try_from(self.marks.len()).ok()?.checked_sub(1)?);
        let mut begin = self.marks[mark as usize];
        for n in mark * STRIDE..at {
            begin += header_len + self.header(begin, header_len)?[3] as usize;
            self.mark(n + 1, begin);
        }
        Some(begin)
    }

    fn mark(&mut self, n: u32, begin: usize) {
        if n.is_multiple_of(STRIDE) && self.marks.len() == (n / STRIDE) as usize {
            self.marks.push(begin);
        }
    }

    /// Fills in the C messages from the cursor on, and moves the cursor. Returns their number.
    fn fill<const HEADER: usize>(&mut self, magic: u32, out: &mut [MaybeUninit<jlog_message>]) -> usize {
        let (base, len) = (self.bytes.as_mut_ptr(), self.bytes.len());
        let (first, mut begin) = self.cursor;
        let mut next = first;
        for out in out {
            let Some([_, tv_sec, tv_usec, mlen, compressed_len]) = self.header(begin, HEADER) else { break };
            let body = begin + HEADER;
            let end = body + mlen as usize;
            // There is a byte after every record.
            if end >= len {
                break;
            }
            // SAFETY: both are inside the buffer, as was just checked.
            let mess = unsafe {
                base.add(end).write(0);
                base.add(body).cast()
            };
            let aligned_header =
                jlog_message_header_compressed { reserved: magic, tv_sec, tv_usec, mlen, compressed_len };
            let out =
                out.write(jlog_message { header: ptr::null_mut(), mess_len: mlen, mess, aligned_header });
            out.header = &raw mut out.aligned_header;
            begin = end;
            next += 1;
        }
        self.cursor = (next, begin);
        (next - first) as usize
    }

    /// The numbers of the header at an offset; the last one counts only if headers are that long.
    #[inline]
    fn header(&self, begin: usize, header_len: usize) -> Option<[u32; 5]> {
        let inside = begin.checked_add(header_len).is_some_and(|end| end <= self.bytes.len());
        let number = |n: usize| {
            // SAFETY: it is inside. A pointer is used because the C program may read other bytes of
            // the buffer.
            u32::from_le(unsafe { self.bytes.as_ptr().add(begin + 4 * n).cast::<u32>().read_unaligned() })
        };
        let stored = if header_len == COMPRESSED_HEADER { 4 } else { 3 };
        inside.then(|| [0, number(1), number(2), number(3), number(stored)])
    }
}

/// The messages that are in memory.
#[derive(Debug)]
pub(crate) struct View {
    chunks: Vec<Chunk>,
    magic: u32,
    header_len: usize,
    spare: Vec<Vec<u8>>,
}

impl View {
    /// A view of a jlog with this header magic, with or without compressed bodies.
    pub(crate) fn new(magic: u32, compressed: bool) -> Self {
        let header_len = if compressed { COMPRESSED_HEADER } else { PLAIN_HEADER };
        Self { chunks: Vec::new(), magic, header_len, spare: Vec::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.forget(0..self.chunks.len());
    }

    /// Forgets everything except the messages from `id` on, if they are already in memory.
    pub(crate) fn keep_only(&mut self, id: LogId) {
        match self.chunks.iter().rposition(|chunk| chunk.place(id).is_some()) {
            Some(at) => {
                self.forget(at + 1..self.chunks.len());
                self.forget(0..at);
            }
            None => self.clear(),
        }
    }

    fn forget(&mut self, chunks: std::ops::Range<usize>) {
        let mut room = SPARE.saturating_sub(self.spare.iter().map(Vec::capacity).sum());
        for chunk in self.chunks.drain(chunks) {
            if chunk.bytes.capacity() <= room {
                room -= chunk.bytes.capacity();
                self.spare.push(chunk.bytes);
            }
        }
    }

    /// A buffer for the next read; its contents do not matter.
    pub(crate) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// The segment whose messages are in memory.
    pub(crate) fn segment(&self) -> Option<u32> {
        self.chunks.last().map(|chunk| chunk.first.segment)
    }

    /// The id after the last message in memory.
    pub(crate) fn next(&self) -> Option<LogId> {
        let chunk = self.chunks.last()?;
        Some(LogId::new(chunk.first.segment, chunk.first.marker.checked_add(chunk.count)?))
    }

    /// Adds checked records, followed by at least one byte.
    pub(crate) fn add_batch(&mut self, first: LogId, count: u32, bytes: Vec<u8>) {
        self.chunks.push(Chunk { first, count, bytes, marks: vec![0], cursor: (0, 0) });
    }

    pub(crate) fn add_one(&mut self, message: Message<'_>) {
        let mut bytes = self.spare();
        bytes.clear();
        bytes.reserve(self.header_len + message.body().len() + 1);
        // A message is never longer than its header can express.
        let len = u32::try_from(message.body().len()).unwrap_or(u32::MAX);
        for number in [self.magic, message.time().seconds, message.time().micros, len] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if self.header_len == COMPRESSED_HEADER {
            bytes.extend_from_slice(&message.stored_len().to_le_bytes());
        }
        bytes.extend_from_slice(message.body());
        bytes.push(0);
        self.add_batch(message.id(), 1, bytes);
    }

    /// Fills in the C messages from `id` on, as far as they are contiguous in memory. Returns their
    /// number. The pointers stay valid until their messages are forgotten.
    pub(crate) fn fill(&mut self, id: LogId, out: &mut [MaybeUninit<jlog_message>]) -> usize {
        let (magic, header_len) = (self.magic, self.header_len);
        let found = self.chunks.iter_mut().rev().find_map(|chunk| Some((chunk.place(id)?, chunk)));
        let Some((at, chunk)) = found else { return 0 };
        let Some(begin) = chunk.start(at, header_len) else { return 0 };
        let most = out.len().min((chunk.count - at) as usize);
        chunk.cursor = (at, begin);
        let mut done = 0;
        while done < most {
            // Up to the next mark.
            let run = (STRIDE - chunk.cursor.0 % STRIDE) as usize;
            let part = &mut out[done..most.min(done + run)];
            let wanted = part.len();
            let filled = match header_len {
                COMPRESSED_HEADER => chunk.fill::<COMPRESSED_HEADER>(magic, part),
                _ => chunk.fill::<PLAIN_HEADER>(magic, part),
            };
            done += filled;
            chunk.mark(chunk.cursor.0, chunk.cursor.1);
            if filled < wanted {
                break;
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    const MAGIC: u32 = 0x663A_7318;

    fn record(body: &str) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap();
        let mut bytes: Vec<u8> = [MAGIC, 7, 9, len].iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    fn batch(bodies: &[&str]) -> Vec<u8> {
        let mut bytes: Vec<u8> = bodies.iter().flat_map(|body| record(body)).collect();
        bytes.push(0xff);
        bytes
    }

    fn empty(count: usize) -> Vec<MaybeUninit<jlog_message>> {
        (0..count).map(|_| MaybeUninit::uninit()).collect()
    }

    #[track_caller]
    fn is(message: &MaybeUninit<jlog_message>, body: &str) {
        // SAFETY: only those that were filled in are read.
        let message = unsafe { message.assume_init_ref() };
        // SAFETY: the view is alive, and its messages end with a NUL.
        let text = unsafe { CStr::from_ptr(message.mess.cast()) };
        assert_eq!((text.to_str().unwrap(), message.mess_len as usize), (body, body.len()));
        let header = jlog_message_header_compressed {
            reserved: MAGIC,
            tv_sec: 7,
            tv_usec: 9,
            mlen: message.mess_len,
            compressed_len: message.mess_len,
        };
        assert_eq!(message.aligned_header, header);
    }

    #[test]
    fn messages_stay_and_end_with_nul_in_whatever_order_they_are_asked_for() {
        let mut view = View::new(MAGIC, false);
        let bodies = ["one", "", "three", "4", "five"];
        view.add_batch(LogId::new(3, 11), 5, batch(&bodies));
        view.add_batch(LogId::new(3, 16), 1, batch(&["six"]));
        assert_eq!((view.segment(), view.next()), (Some(3), Some(LogId::new(3, 17))));
        let mut all = empty(5);
        for at in [3, 1, 4, 0, 2, 3] {
            let marker = 11 + u32::try_from(at).unwrap();
            assert_eq!(view.fill(LogId::new(3, marker), &mut all[at..=at]), 1);
        }
        for (message, body) in all.iter().zip(bodies) {
            is(message, body);
        }
        let mut rest = empty(9);
        assert_eq!(view.fill(LogId::new(3, 13), &mut rest), 3, "up to the end of the chunk");
        for (message, body) in rest.iter().zip(&bodies[2..]) {
            is(message, body);
        }
        for (message, body) in all.iter().zip(bodies) {
            is(message, body);
        }
        assert_eq!(view.fill(LogId::new(3, 16), &mut rest), 1);
        is(&rest[0], "six");
        for other in [LogId::new(3, 10), LogId::new(3, 17), LogId::new(2, 12), LogId::new(3, 0)] {
            assert_eq!(view.fill(other, &mut rest), 0, "{other}");
        }
        view.keep_only(LogId::new(3, 16));
        assert_eq!(view.fill(LogId::new(3, 12), &mut rest), 0);
        assert_eq!(view.fill(LogId::new(3, 16), &mut rest), 1);
        view.clear();
        assert_eq!((view.segment(), view.spare.len()), (None, 2));
    }

    /// A read returns the right messages, wherever it begins and however long it is.
    #[test]
    fn any_message_of_many_is_found() {
        const COUNT: u32 = 5 * STRIDE + 7;
        let bodies: Vec<String> = (1..=COUNT).map(|n| "x".repeat(n as usize % 5) + &n.to_string()).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let mut view = View::new(MAGIC, false);
        view.add_batch(LogId::new(0, 1), COUNT, batch(&bodies));
        let mut seed = 1u32;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (from, len) = ((seed >> 8) % COUNT, (seed >> 4) as usize % 150 + 1);
            let mut out = empty(len);
            let wanted = len.min((COUNT - from) as usize);
            assert_eq!(view.fill(LogId::new(0, from + 1), &mut out), wanted);
            for (message, body) in out.iter().zip(&bodies[from as usize..][..wanted]) {
                is(message, body);
            }
        }
    }

    /// Lengths that lead outside the buffer, which the engine never accepts.
    #[test]
    fn nothing_outside_of_the_buffer_is_handed_out() {
        let whole = batch(&["one", "two"]);
        for len in 0..whole.len() {
            let mut view = View::new(MAGIC, false);
            view.add_batch(LogId::new(0, 1), 2, whole[..len].to_vec());
            let wanted = [20, 39].iter().filter(|&&needed| len >= needed).count();
            assert_eq!(view.fill(LogId::new(0, 1), &mut empty(2)), wanted, "{len}");
            assert_eq!(view.fill(LogId::new(0, 2), &mut empty(1)), usize::from(wanted == 2), "{len}");
        }
    }
}
