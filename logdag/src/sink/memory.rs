//! A ring of the last lines.

use std::io;

use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::record::While;
use crate::sync::plain::Mutex;

/// A line in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLine {
    /// Its number. Lines are numbered from 1.
    pub index: u64,
    /// Its time, in microseconds since 1970 UTC.
    pub micros: u64,
    /// The line.
    pub bytes: Vec<u8>,
}

/// Keeps the last lines, up to a number of lines and of bytes. `type="memory"` and a path
/// `LINES,BYTES`, or [`Graph::add_memory`](crate::Graph::add_memory), give a stream one;
/// `examples/ring.rs` shows it.
#[derive(Debug)]
pub struct MemorySink {
    max_lines: usize,
    max_bytes: usize,
    name: Box<str>,
    ring: Mutex<Ring>,
}

/// Lets a debugger find a ring in the memory of a process or in a core: `dist/gdb/logdag.py`
/// searches for the mark, and reads this and the fields after it. Addresses are stored as numbers,
/// so that their layout does not depend on the compiler.
#[derive(Debug, Default)]
#[repr(C)]
struct Shown {
    mark: [u8; 16],
    /// Its own address: stale copies elsewhere in memory do not match theirs.
    place: usize,
    /// Address and length of its name, of its bytes and, counted in slots, of its slots.
    name: [usize; 2],
    bytes: [usize; 2],
    slots: [usize; 2],
}

/// The last two bytes are the version of what follows.
const MARK: [u8; 16] = *b"logdag\xff\xa7ring\x5e\xd1\x00\x01";

/// The bytes of all lines without gaps, and where each begins, so that a line needs no allocation.
#[derive(Debug, Default)]
#[repr(C)]
struct Ring {
    shown: Shown,
    /// The slot of the oldest line.
    first: usize,
    /// Number of lines.
    count: usize,
    /// The number of the last line.
    last: u64,
    /// A circular buffer that grows to what the lines need.
    bytes: Vec<u8>,
    /// A circular buffer that grows with the number of lines.
    slots: Vec<Kept>,
    /// Where the next line begins.
    end: usize,
    /// Bytes of all lines.
    used: usize,
    /// Bytes of all lines so far, including those that are gone.
    taken: u64,
    too_large: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Kept {
    start: usize,
    len: usize,
    micros: u64,
}

impl Ring {
    /// The slot of the n-th line, counted from the oldest.
    fn slot(&self, n: usize) -> usize {
        let slot = self.first + n;
        if slot < self.slots.len() { slot } else { slot - self.slots.len() }
    }

    fn kept(&self, skip: usize) -> impl Iterator<Item = (usize, Kept)> {
        (skip..self.count).map(|n| (n, self.slots[self.slot(n)]))
    }

    fn line(&self, place: usize, kept: Kept) -> MemoryLine {
        let index = self.last - (self.count - 1 - place) as u64;
        let mut bytes = Vec::with_capacity(kept.len);
        // A line that passes the end of the buffer continues at its beginning.
        let at_end = kept.len.min(self.bytes.len() - kept.start);
        bytes.extend_from_slice(&self.bytes[kept.start..kept.start + at_end]);
        bytes.extend_from_slice(&self.bytes[..kept.len - at_end]);
        MemoryLine { index, micros: kept.micros, bytes }
    }

    fn lines(&self, skip: usize) -> Vec<MemoryLine> {
        self.kept(skip).map(|(place, kept)| self.line(place, kept)).collect()
    }

    /// Makes room for a line next to those that stay.
    #[cold]
    fn grow(&mut self, len: usize, limit: usize) {
        let mut bytes = self.bytes_for(len, limit);
        let mut slots = Vec::with_capacity(self.slots.len().max(2 * self.count).max(16));
        for line in self.lines(0) {
            slots.push(Kept { start: bytes.len(), len: line.bytes.len(), micros: line.micros });
            bytes.extend_from_slice(&line.bytes);
        }
        self.end = bytes.len();
        bytes.resize(bytes.capacity().min(limit), 0);
        slots.resize(slots.capacity(), Kept::default());
        (self.first, self.bytes, self.slots) = (0, bytes, slots);
        self.shown.bytes = [self.bytes.as_ptr().addr(), self.bytes.len()];
        self.shown.slots = [self.slots.as_ptr().addr(), self.slots.len()];
    }

    /// An empty buffer for the lines that stay and one more of this length. It has the size of the
    /// present buffer if that is enough.
    fn bytes_for(&self, len: usize, limit: usize) -> Vec<u8> {
        let needed = self.used + len;
        let room =
            if needed > self.bytes.len() { needed.next_power_of_two().min(limit) } else { self.bytes.len() };
        Vec::with_capacity(room)
    }

    fn push(&mut self, line: &[u8], micros: u64, limit: usize) {
        if self.used + line.len() > self.bytes.len() || self.count == self.slots.len() {
            self.grow(line.len(), limit);
        }
        let start = self.end;
        match self.bytes.get_mut(start..start + line.len()) {
            Some(room) => {
                room.copy_from_slice(line);
                self.end += line.len();
            }
            None => {
                let (at_end, at_start) = line.split_at(self.bytes.len() - start);
                self.bytes[start..].copy_from_slice(at_end);
                self.bytes[..at_start.len()].copy_from_slice(at_start);
                self.end = at_start.len();
            }
        }
        let slot = self.slot(self.count);
        self.slots[slot] = Kept { start, len: line.len(), micros };
        // It may have moved since the last line.
        self.shown.place = std::ptr::from_ref(self).addr();
        self.count += 1;
        self.used += line.len();
        self.last += 1;
        self.taken += line.len() as u64;
    }

    /// Removes the oldest line. Returns its length.
    fn pop(&mut self) -> Option<usize> {
        self.count = self.count.checked_sub(1)?;
        let oldest = self.slots[self.first].len;
        self.first = if self.first + 1 < self.slots.len() { self.first + 1 } else { 0 };
        Some(oldest)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shown.place = 0;
        // Otherwise the compiler would not write it, because nothing reads it any more.
        std::hint::black_box(&self.shown);
    }
}

impl MemorySink {
    /// The default number of lines.
    pub const DEFAULT_LINES: usize = 10_000;
    /// The default number of bytes.
    pub const DEFAULT_BYTES: usize = 100_000;

    /// A ring with these limits.
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        let mut ring = Ring::default();
        ring.shown.mark = MARK;
        Self { max_lines, max_bytes, name: Box::default(), ring: Mutex::new(ring) }
    }

    /// Makes its name visible to debuggers.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self.ring.lock().shown.name = [self.name.as_ptr().addr(), self.name.len()];
        self
    }

    /// A ring with the limits of a path `LINES,BYTES`.
    ///
    /// # Errors
    /// What was expected.
    pub fn from_path(path: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "LINES,BYTES: two numbers of 1 or more";
        if path.is_empty() {
            return Ok(Self::new(Self::DEFAULT_LINES, Self::DEFAULT_BYTES));
        }
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&n| n > 0).ok_or(EXPECTED);
        let (lines, bytes) = match path.split_once(',') {
            Some((lines, bytes)) => (number(lines)?, number(bytes)?),
            None => (number(path)?, Self::DEFAULT_BYTES),
        };
        Ok(Self::new(lines, bytes))
    }

    /// Whether nobody is reading or writing it at the moment.
    #[cfg(not(feature = "shuttle"))]
    pub(crate) fn is_free(&self) -> bool {
        self.ring.try_lock().is_some()
    }

    /// The last `n` lines, oldest first.
    pub fn last(&self, n: usize) -> Vec<MemoryLine> {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        ring.lines(ring.count.saturating_sub(n))
    }

    /// The lines after the one with this index, oldest first; all lines if that one is no longer
    /// there.
    pub fn since(&self, index: u64) -> Vec<MemoryLine> {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        let newer = usize::try_from(ring.last.saturating_sub(index)).unwrap_or(usize::MAX);
        ring.lines(ring.count.saturating_sub(newer))
    }

    /// Some of the lines after the one with this index, oldest first; from the oldest on if that
    /// line is gone. Returns up to `max_lines`, and stops once they have `max_bytes`, but returns
    /// at least one. Logging threads wait during the copy, so read a large ring in several pieces.
    pub fn piece(&self, index: u64, max_lines: usize, max_bytes: usize) -> Vec<MemoryLine> {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        let all = ring.count;
        let newer = ring.last.checked_sub(index).map_or(all, |newer| usize::try_from(newer).unwrap_or(all));
        let skip = all.saturating_sub(newer);
        let mut bytes = 0;
        let wanted = ring.kept(skip).take(max_lines).take_while(|(_, kept)| {
            let more = bytes < max_bytes.max(1);
            bytes += kept.len;
            more
        });
        wanted.map(|(place, kept)| ring.line(place, kept)).collect()
    }

    /// The number of the newest line; 0 if there was none yet.
    pub fn newest(&self) -> u64 {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        ring.last
    }

    /// How many lines and bytes it has taken so far.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        (ring.last, ring.taken)
    }

    /// How many lines were not kept because they were larger than the ring.
    pub fn too_large(&self) -> u64 {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        ring.too_large
    }

    /// Adds a line. Returns `false` if it is larger than the ring.
    fn push(&self, ring: &mut Ring, line: &[u8], micros: u64) -> bool {
        if line.len() > self.max_bytes {
            ring.too_large += 1;
            return false;
        }
        let mut used = ring.used;
        while ring.count >= self.max_lines || used + line.len() > self.max_bytes {
            let Some(oldest) = ring.pop() else { break };
            used -= oldest;
        }
        ring.used = used;
        ring.push(line, micros, self.max_bytes);
        true
    }
}

impl Sink for MemorySink {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let mut ring = self.ring.lock();
        for (written, (bytes, micros)) in lines.iter().enumerate() {
            if !self.push(&mut ring, bytes, micros) {
                let why =
                    format!("a line of {} bytes is larger than the ring: {}", bytes.len(), self.max_bytes);
                return Err(WriteError { written, error: io::Error::new(io::ErrorKind::InvalidInput, why) });
            }
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false)
    }

    fn size(&self) -> Option<u64> {
        let (_busy, ring) = (While::busy(), self.ring.lock());
        Some(ring.used as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn write(sink: &MemorySink, line: &str, micros: u64) {
        let ends = [(line.len(), micros)];
        // An error means a line that is larger than the ring, which is counted.
        let _ = sink.write(&Lines { bytes: line.as_bytes(), ends: &ends, start: 0 });
    }

    fn texts(lines: &[MemoryLine]) -> Vec<(u64, &str)> {
        lines.iter().map(|line| (line.index, std::str::from_utf8(&line.bytes).unwrap())).collect()
    }

    #[test]
    fn neither_limit_is_ever_exceeded() {
        let sink = MemorySink::new(3, 10);
        for (n, line) in ["a", "b", "c", "d", "eeeeeeee", "fffffffffff", "gg"].into_iter().enumerate() {
            write(&sink, line, n as u64);
            let all = sink.last(100);
            assert!(all.len() <= 3 && all.iter().map(|line| line.bytes.len()).sum::<usize>() <= 10);
        }
        assert_eq!(texts(&sink.last(9)), [(5, "eeeeeeee"), (6, "gg")]);
        assert_eq!(texts(&sink.last(1)), [(6, "gg")]);
        assert_eq!(texts(&sink.since(0)), [(5, "eeeeeeee"), (6, "gg")]);
        assert_eq!(texts(&sink.since(5)), [(6, "gg")]);
        assert_eq!(sink.too_large(), 1);
        assert_eq!(sink.last(1)[0].micros, 6);
    }

    #[test]
    fn pieces_one_after_the_other_are_the_whole_ring() {
        let sink = MemorySink::new(50, 1000);
        for n in 1..=60 {
            write(&sink, &format!("line {n}"), n);
        }
        let whole = sink.last(100);
        for (max_lines, max_bytes) in [(7, 1000), (1000, 30), (1, 0)] {
            let (mut pieces, mut at) = (Vec::new(), 0);
            loop {
                let piece = sink.piece(at, max_lines, max_bytes);
                let Some(last) = piece.last() else { break };
                assert!(piece.len() <= max_lines);
                assert!(piece[1..].iter().map(|line| line.bytes.len()).sum::<usize>() <= max_bytes);
                at = last.index;
                pieces.extend(piece);
            }
            assert_eq!(pieces, whole);
        }
        assert_eq!(sink.newest(), 60);
        // A place past the end: it may come from another ring.
        assert_eq!(sink.piece(61, 1, 100)[0].index, 11);
    }

    proptest::proptest! {
        /// The ring keeps the same lines as a plain list.
        #[test]
        fn it_is_a_list_whose_oldest_lines_go(
            (max_lines, max_bytes) in (1usize..6, 1usize..40),
            lines in proptest::collection::vec("[a-z]{0,14}", 0..60),
        ) {
            let sink = MemorySink::new(max_lines, max_bytes);
            let mut model: VecDeque<(u64, String)> = VecDeque::new();
            let mut index = 0;
            for line in lines {
                write(&sink, &line, 7);
                if line.len() > max_bytes {
                    continue;
                }
                index += 1;
                model.push_back((index, line));
                let bytes = |model: &VecDeque<(u64, String)>| model.iter().map(|(_, line)| line.len()).sum::<usize>();
                while model.len() > max_lines || bytes(&model) > max_bytes {
                    model.pop_front();
                }
                let kept = sink.last(usize::MAX);
                let expected: Vec<(u64, &str)> = model.iter().map(|(n, line)| (*n, &**line)).collect();
                proptest::prop_assert_eq!(texts(&kept), expected.clone());
                proptest::prop_assert_eq!(sink.size(), Some(bytes(&model) as u64));
                let newer: Vec<(u64, &str)> = expected.into_iter().filter(|(n, _)| *n + 2 > index).collect();
                let since = sink.since(index.saturating_sub(2));
                proptest::prop_assert_eq!(texts(&since), newer);
            }
        }
    }

    #[test]
    fn paths() {
        assert!(MemorySink::from_path("").is_ok());
        assert!(MemorySink::from_path("10,1000").is_ok());
        for wrong in ["0,10", "x", "10,", "10,1,2", "-1,5"] {
            assert!(MemorySink::from_path(wrong).is_err(), "{wrong}");
        }
    }
}
