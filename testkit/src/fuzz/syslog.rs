//! Connections that carry messages of syslog.

use std::io::{self, Read};

use logdag::Graph;
use logdag::input::{for_each_syslog_message, log_syslog};

use super::Disk;

/// A connection that gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buffer.len());
        let (now, later) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }
}

fn messages(bytes: &[u8], at_once: usize, max: usize) -> Vec<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    for_each_syslog_message(Slow(bytes, at_once), max, |message, whole| {
        assert!(!message.is_empty() && message.len() <= max);
        all.push((message.to_vec(), whole));
    })
    .unwrap();
    all
}

/// The first byte determines how long messages may be. However the other bytes are split, the
/// messages are the same, only the last may be incomplete, and each can be logged.
pub fn syslog(_: Disk, data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    // At least as long as a length.
    let max = 10 + usize::from(first);
    let all = messages(bytes, bytes.len().max(1), max);
    for at_once in [1, 2, 7] {
        assert_eq!(messages(bytes, at_once, max), all);
    }
    assert!(all.iter().rev().skip(1).all(|(_, whole)| *whole));
    assert!(all.iter().map(|(message, _)| message.len()).sum::<usize>() <= bytes.len());
    let graph = Graph::new();
    let ring = graph.add_memory("ring", all.len() + 1, 1 << 20).unwrap();
    for (message, _) in &all {
        log_syslog(&ring, message);
    }
    assert_eq!(graph.memory_last("ring", usize::MAX).unwrap().len(), all.len());
}
