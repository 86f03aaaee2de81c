//! What a C reader has been given: messages whose memory stays where it is for as long as the C library keeps it.

use jlog_core::{Batch, LogId, Message};

use crate::abi::{jlog_message, jlog_message_header_compressed};

/// A run of messages of one segment.
#[derive(Debug)]
struct Chunk {
    first: LogId,
    headers: Vec<jlog_message_header_compressed>,
    /// Where each message ends in `bodies`.
    ends: Vec<usize>,
    bodies: Vec<u8>,
}

impl Chunk {
    fn place(&self, id: LogId) -> Option<usize> {
        let at = id.marker.checked_sub(self.first.marker)? as usize;
        (id.segment == self.first.segment && at < self.ends.len()).then_some(at)
    }
}

/// The messages that are in memory.
#[derive(Debug, Default)]
pub(crate) struct View {
    chunks: Vec<Chunk>,
}

impl View {
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }

    /// Forgets everything but the messages from `id` on, if they are in memory already.
    pub(crate) fn keep_only(&mut self, id: LogId) {
        let kept = self.chunks.iter().rposition(|chunk| chunk.place(id).is_some());
        match kept {
            Some(at) => {
                self.chunks.truncate(at + 1);
                self.chunks.drain(..at);
            }
            None => self.chunks.clear(),
        }
    }

    /// The segment whose messages are in memory.
    pub(crate) fn segment(&self) -> Option<u32> {
        self.chunks.last().map(|chunk| chunk.first.segment)
    }

    /// The id after the last one that was taken in.
    pub(crate) fn next(&self) -> Option<LogId> {
        let chunk = self.chunks.last()?;
        let count = u32::try_from(chunk.ends.len()).ok()?;
        Some(LogId::new(chunk.first.segment, chunk.first.marker.checked_add(count)?))
    }

    pub(crate) fn add_batch(&mut self, batch: &Batch<'_>, magic: u32) {
        self.add(batch.first_id(), batch.iter(), magic);
    }

    pub(crate) fn add_one(&mut self, message: Message<'_>, magic: u32) {
        self.add(message.id(), std::iter::once(message), magic);
    }

    fn add<'a>(&mut self, first: LogId, messages: impl Iterator<Item = Message<'a>>, magic: u32) {
        let mut chunk = Chunk { first, headers: Vec::new(), ends: Vec::new(), bodies: Vec::new() };
        for message in messages {
            chunk.bodies.extend_from_slice(message.body());
            chunk.ends.push(chunk.bodies.len());
            chunk.headers.push(jlog_message_header_compressed {
                reserved: magic,
                tv_sec: message.time().seconds,
                tv_usec: message.time().micros,
                // A message is never longer than a header can say.
                mlen: u32::try_from(message.body().len()).unwrap_or(u32::MAX),
                compressed_len: message.stored_len(),
            });
        }
        self.chunks.push(chunk);
    }

    /// Fills in what C gets of a message, if it is in memory: the pointers stay good until `clear`.
    pub(crate) fn fill(&self, id: LogId, out: &mut jlog_message) -> bool {
        let found = self.chunks.iter().rev().find_map(|chunk| Some((chunk, chunk.place(id)?)));
        let Some((chunk, at)) = found else { return false };
        let from = at.checked_sub(1).map_or(0, |before| chunk.ends[before]);
        let body = &chunk.bodies[from..chunk.ends[at]];
        out.aligned_header = chunk.headers[at];
        out.header = &raw mut out.aligned_header;
        out.mess_len = chunk.headers[at].mlen;
        out.mess = body.as_ptr().cast_mut().cast();
        true
    }
}
