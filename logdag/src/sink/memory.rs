//! A ring of the last lines.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Lines, Sink, WriteError};

/// A line in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLine {
    /// Its number, from 1: grows by one with every line.
    pub index: u64,
    /// Its time, in microseconds since 1970 UTC.
    pub micros: u64,
    /// The line.
    pub bytes: Vec<u8>,
}

/// Keeps the last lines, up to a number of lines and of bytes.
#[derive(Debug)]
pub struct MemorySink {
    max_lines: usize,
    max_bytes: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<MemoryLine>,
    bytes: usize,
    /// The number of the last line.
    last: u64,
    too_large: u64,
}

impl MemorySink {
    /// So many lines where nothing else is said.
    pub const DEFAULT_LINES: usize = 10_000;
    /// So many bytes where nothing else is said.
    pub const DEFAULT_BYTES: usize = 100_000;

    /// A ring with these limits.
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self { max_lines, max_bytes, ring: Mutex::default() }
    }

    /// A ring as a path of `LINES,BYTES` says.
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

    /// The last `n` lines, oldest first.
    pub fn last(&self, n: usize) -> Vec<MemoryLine> {
        let ring = self.ring.lock();
        let skip = ring.lines.len().saturating_sub(n);
        ring.lines.iter().skip(skip).cloned().collect()
    }

    /// The lines after the one with this index, oldest first; where it is gone, all there are.
    pub fn since(&self, index: u64) -> Vec<MemoryLine> {
        let ring = self.ring.lock();
        ring.lines.iter().filter(|line| line.index > index).cloned().collect()
    }

    /// How many lines were larger than the ring, and not kept.
    pub fn too_large(&self) -> u64 {
        self.ring.lock().too_large
    }

    fn push(&self, ring: &mut Ring, bytes: &[u8], micros: u64) {
        if bytes.len() > self.max_bytes {
            ring.too_large += 1;
            return;
        }
        let mut spare = Vec::new();
        while ring.lines.len() >= self.max_lines || ring.bytes + bytes.len() > self.max_bytes {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.bytes.len();
            spare = oldest.bytes;
        }
        spare.clear();
        spare.extend_from_slice(bytes);
        ring.bytes += bytes.len();
        ring.last += 1;
        let index = ring.last;
        ring.lines.push_back(MemoryLine { index, micros, bytes: spare });
    }
}

impl Sink for MemorySink {
    fn write(&self, lines: Lines<'_>) -> Result<(), WriteError> {
        let mut ring = self.ring.lock();
        for (bytes, micros) in lines.iter() {
            self.push(&mut ring, bytes, micros);
        }
        Ok(())
    }

    fn splits_lines(&self) -> bool {
        false
    }

    fn size(&self) -> Option<u64> {
        Some(self.ring.lock().bytes as u64)
    }

    fn memory(&self) -> Option<&MemorySink> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sink: &MemorySink, line: &str, micros: u64) {
        let ends = [(line.len(), micros)];
        sink.write(Lines { bytes: line.as_bytes(), ends: &ends, start: 0 }).unwrap();
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
    fn paths() {
        assert!(MemorySink::from_path("").is_ok());
        assert!(MemorySink::from_path("10,1000").is_ok());
        for wrong in ["0,10", "x", "10,", "10,1,2", "-1,5"] {
            assert!(MemorySink::from_path(wrong).is_err(), "{wrong}");
        }
    }
}
