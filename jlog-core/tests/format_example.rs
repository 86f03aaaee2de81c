//! The worked example of FORMAT.md is what the writer writes.

#![allow(clippy::unwrap_used)]

use jlog_core::{Jlog, Timestamp};

/// The bytes of a dump under the heading `name` in FORMAT.md.
fn dump(name: &str) -> Vec<u8> {
    let document = include_str!("../FORMAT.md");
    let example = &document[document.find("## Worked example").unwrap()..];
    let mut bytes = Vec::new();
    let mut inside = false;
    for line in example.lines() {
        if inside {
            let Some((_, row)) = line.split_once("  ") else { break };
            bytes.extend(row.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
        inside |= line == name;
    }
    bytes
}

#[test]
fn the_worked_example_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    let log = Jlog::create(&path).unwrap();
    let writer = log.writer().unwrap();
    writer.append_at(Timestamp { seconds: 1_700_000_000, micros: 5 }, "hello").unwrap();
    writer.append_at(Timestamp { seconds: 1_700_000_001, micros: 5 }, "").unwrap();
    writer.close().unwrap();
    assert_eq!(dump("metastore"), std::fs::read(path.join("metastore")).unwrap());
    assert_eq!(dump("00000000"), std::fs::read(path.join("00000000")).unwrap());
    assert_eq!(dump("00000000").len(), 37);
}
