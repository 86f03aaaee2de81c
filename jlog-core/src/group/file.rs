//! The group's file: a header, followed by the changes in order. FORMAT.md describes it.
//!
//! A process locks the file before it reads or changes it. It appends a change in one write; the
//! next process truncates what a killed one has left of a change. When the file has grown, a
//! shorter one is written under another name and renamed.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian as LE};

use super::state::{Change, GroupState};
use crate::files::shared::Shared;
use crate::storage::{File, Open, read_up_to_at, write_all_at};
use crate::subscriber::SubscriberName;
use crate::{Error, LogId, Result};

const MAGIC: &[u8; 8] = b"jlggrp1\n";
const HEADER: usize = 56;
/// The longest change.
const LONGEST: usize = 38;
/// A file that is longer than this, and than `GROWN` times what its messages need, is replaced by a
/// shorter one.
const LARGE: u64 = 256 << 10;
const GROWN: u64 = 4;
/// How much of the file is read at a time.
const PIECE: usize = 64 << 10;

/// What a group's file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// When the machine was started.
    pub boot: u64,
    /// The file of the checkpoint: a subscriber that was removed and added again has another one.
    pub checkpoint: (u64, u64),
}

/// The file as it was last read.
#[derive(Debug)]
pub(super) struct GroupFile {
    pub file: Arc<dyn File>,
    about: About,
    /// The end of the changes that `state` includes.
    read: u64,
    pub state: GroupState,
}

fn put_id(out: &mut Vec<u8>, id: LogId) {
    out.extend_from_slice(&id.segment.to_le_bytes());
    out.extend_from_slice(&id.marker.to_le_bytes());
}

fn id_at(bytes: &[u8], at: usize) -> Option<LogId> {
    let bytes = bytes.get(at..at + 8)?;
    Some(LogId::new(LE::read_u32(bytes), LE::read_u32(&bytes[4..])))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).map(LE::read_u64)
}

fn with_crc(mut bytes: Vec<u8>, from: usize) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[from..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Appends the encoded form of a change.
pub(super) fn encode(change: &Change, out: &mut Vec<u8>) {
    let from = out.len();
    match *change {
        Change::Segment { number, file } => {
            out.push(1);
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&file.0.to_le_bytes());
            out.extend_from_slice(&file.1.to_le_bytes());
        }
        Change::Take { id, key, deliveries } => {
            out.push(if key.is_some() { 3 } else { 2 });
            put_id(out, id);
            out.extend_from_slice(&key.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&deliveries.to_le_bytes());
        }
        Change::Lease { id, lease, until, time, delivers } => {
            out.push(if delivers { 4 } else { 5 });
            put_id(out, id);
            out.extend_from_slice(&lease.to_le_bytes());
            out.extend_from_slice(&until.to_le_bytes());
            out.extend_from_slice(&time.to_le_bytes());
        }
        Change::Return { id, until, time } => {
            out.push(6);
            put_id(out, id);
            out.extend_from_slice(&until.to_le_bytes());
            out.extend_from_slice(&time.to_le_bytes());
        }
        Change::Acknowledge { id } => {
            out.push(7);
            put_id(out, id);
        }
        Change::Commit { id } => {
            out.push(8);
            put_id(out, id);
        }
    }
    *out = with_crc(std::mem::take(out), from);
}

/// The change at the beginning of some bytes, and its length; `None` if there is no whole one.
pub(super) fn decode(bytes: &[u8]) -> Option<(Change, usize)> {
    let id = || id_at(bytes, 1);
    let kind = *bytes.first()?;
    let (change, len) = match kind {
        1 => {
            let number = bytes.get(1..5).map(LE::read_u32)?;
            (Change::Segment { number, file: (u64_at(bytes, 5)?, u64_at(bytes, 13)?) }, 21)
        }
        2 | 3 => {
            let key = if kind == 3 { Some(u64_at(bytes, 9)?) } else { None };
            let deliveries = bytes.get(17..21).map(LE::read_u32)?;
            (Change::Take { id: id()?, key, deliveries }, 21)
        }
        4 | 5 => {
            let (lease, until, time) = (u64_at(bytes, 9)?, u64_at(bytes, 17)?, u64_at(bytes, 25)?);
            (Change::Lease { id: id()?, lease, until, time, delivers: kind == 4 }, 33)
        }
        6 => (Change::Return { id: id()?, until: u64_at(bytes, 9)?, time: u64_at(bytes, 17)? }, 25),
        7 => (Change::Acknowledge { id: id()? }, 9),
        8 => (Change::Commit { id: id()? }, 9),
        _ => return None,
    };
    let crc = bytes.get(len..len + 4).map(LE::read_u32)?;
    (crc == crc32fast::hash(&bytes[..len])).then_some((change, len + 4))
}

/// A random number for the first lease in a file that replaces an unreadable one, so that no
/// earlier lease has the number of a later one.
pub(super) fn any_lease(shared: &Shared, file_name: &str) -> Result<u64> {
    let number = getrandom::u32();
    number
        .map(|n| u64::from(n) << 24)
        .map_err(|e| Error::io("create", shared.at(file_name), io::Error::other(e)))
}

fn encode_file(about: About, state: &GroupState) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for number in [about.boot, about.checkpoint.0, about.checkpoint.1, state.next_lease] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put_id(&mut out, state.done);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for change in [Change::Commit { id: state.committed }].iter().chain(&state.changes()) {
        encode(change, &mut out);
    }
    out
}

fn decode_header(bytes: &[u8]) -> Option<(About, GroupState)> {
    let crc = bytes.get(48..52).map(LE::read_u32)?;
    if bytes.len() < HEADER || &bytes[..8] != MAGIC || crc != crc32fast::hash(&bytes[..48]) {
        return None;
    }
    let about = About { boot: u64_at(bytes, 8)?, checkpoint: (u64_at(bytes, 16)?, u64_at(bytes, 24)?) };
    Some((about, GroupState::new(id_at(bytes, 40)?, u64_at(bytes, 32)?)))
}

impl GroupFile {
    /// Opens the file, or creates it with this checkpoint. It is not read yet.
    pub fn open(shared: &Shared, name: &SubscriberName, about: About, checkpoint: LogId) -> Result<Self> {
        let file_name = name.group_file();
        loop {
            if let Some(file) = shared.open_if_there(&file_name, Open::Write)? {
                return Ok(Self { file, about, read: 0, state: GroupState::default() });
            }
            let state = GroupState::new(checkpoint, any_lease(shared, &file_name)?);
            // Another process may be creating it at this moment: the first one stays.
            shared.write_temporary(&encode_file(about, &state))?.publish_new(&file_name)?;
        }
    }

    /// Whether the file still has its name. Requires: file locked.
    pub fn is_named(&self, shared: &Shared, name: &SubscriberName) -> bool {
        let named = shared.facts(&name.group_file()).map(|facts| facts.identity);
        let ours = self.file.facts().map(|facts| facts.identity);
        named.ok().zip(ours.ok()).is_some_and(|(named, ours)| named == ours)
    }

    /// Reads the changes of others. `false` if the file belongs to another subscriber, and must be
    /// replaced.
    pub fn refresh(&mut self, path: &Path) -> Result<bool> {
        let fail = |e| Error::io("read", path, e);
        if self.read == 0 {
            let mut header = [0; HEADER];
            let n = read_up_to_at(&*self.file, &mut header, 0).map_err(fail)?;
            let Some((about, state)) = decode_header(&header[..n]) else { return Ok(false) };
            // After a power failure, other messages may have got the ids of those that it took
            // away.
            if about != self.about {
                return Ok(false);
            }
            (self.state, self.read) = (state, HEADER as u64);
            self.catch_up(path)?;
            return Ok(true);
        }
        let len = self.file.len().map_err(fail)?;
        if len < self.read {
            // Another process has truncated damage.
            self.read = 0;
            return self.refresh(path);
        }
        if len > self.read {
            self.catch_up(path)?;
        }
        Ok(true)
    }

    fn catch_up(&mut self, path: &Path) -> Result<()> {
        let fail = |e| Error::io("read", path, e);
        let mut buffer = vec![0; PIECE];
        loop {
            let n = read_up_to_at(&*self.file, &mut buffer, self.read).map_err(fail)?;
            let mut at = 0;
            while let Some((change, len)) = decode(&buffer[at..n]) {
                self.state.apply(&change);
                at += len;
            }
            self.read += at as u64;
            if n < PIECE || n - at > LONGEST {
                // A killed process has left part of a change: the next change replaces it.
                if at < n {
                    self.file.set_len(self.read).map_err(|e| Error::io("cut", path, e))?;
                }
                return Ok(());
            }
        }
    }

    /// Appends changes after those that were read, and applies them.
    pub fn append(&mut self, path: &Path, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for change in changes {
            encode(change, &mut bytes);
        }
        let written = write_all_at(&*self.file, &mut [IoSlice::new(&bytes)], self.read);
        if let Err(e) = written {
            // All of them, or none.
            let _ = self.file.set_len(self.read);
            return Err(Error::io("write", path, e));
        }
        self.read += bytes.len() as u64;
        for change in changes {
            self.state.apply(change);
        }
        Ok(())
    }

    pub fn has_grown(&self) -> bool {
        let needed = (HEADER + 2 * LONGEST * self.state.entries.len()) as u64;
        self.read > LARGE && self.read > needed * GROWN
    }

    /// Replaces the file with a new one that has this state. The old one stays locked, and
    /// processes that wait for it will find that it was replaced.
    pub fn replace(&self, shared: &Shared, name: &SubscriberName, state: &GroupState) -> Result<()> {
        shared.write_temporary(&encode_file(self.about, state))?.rename(&name.group_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        let id = LogId::new(3, 4);
        vec![
            Change::Segment { number: 3, file: (5, u64::MAX) },
            Change::Take { id, key: None, deliveries: 7 },
            Change::Take { id, key: Some(0), deliveries: 0 },
            Change::Lease { id, lease: 1, until: 2, time: 3, delivers: true },
            Change::Lease { id, lease: 1, until: u64::MAX, time: 3, delivers: false },
            Change::Return { id, until: 9, time: 8 },
            Change::Acknowledge { id },
            Change::Commit { id },
        ]
    }

    #[test]
    fn changes_are_read_as_they_are_written_and_only_whole() {
        for change in changes() {
            let mut bytes = Vec::new();
            encode(&change, &mut bytes);
            assert!(bytes.len() <= LONGEST);
            assert_eq!(decode(&bytes), Some((change, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]), None);
            }
            for at in 0..bytes.len() {
                bytes[at] ^= 0x40;
                assert_eq!(decode(&bytes), None);
                bytes[at] ^= 0x40;
            }
        }
    }

    #[test]
    fn the_header_is_read_as_it_is_written() {
        let about = About { boot: 1, checkpoint: (2, 3) };
        let state = GroupState::new(LogId::new(4, 5), 6);
        let bytes = encode_file(about, &state);
        assert_eq!(decode_header(&bytes), Some((about, state)));
        for at in 0..52 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(decode_header(&bytes), None);
        }
        assert_eq!(decode_header(&bytes[..HEADER - 1]), None);
    }
}
