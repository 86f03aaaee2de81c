//! Messages that were read.

use bytes::Bytes;

use crate::codec::format::RecordFormat;
use crate::{LogId, Timestamp};

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub(crate) id: LogId,
    pub(crate) time: Timestamp,
    pub(crate) stored: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Its id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// When it was accepted, or the time that was given with it.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Bytes of the stored body: compressed, if the jlog is.
    pub fn stored_len(&self) -> u32 {
        self.stored
    }

    /// The bytes that were appended.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// Messages of one segment, in order, borrowed from the reader.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) format: RecordFormat,
    /// Whether the bodies are decompressed.
    pub(crate) plain: bool,
    pub(crate) segment: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl<'a> Batch<'a> {
    /// How many messages there are; never 0.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Never true: a batch holds at least one message.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The id of the first message.
    pub fn first_id(&self) -> LogId {
        LogId::new(self.segment, self.first)
    }

    /// The id of the last message, which is the checkpoint after the whole batch.
    pub fn last_id(&self) -> LogId {
        LogId::new(self.segment, self.first + (self.count - 1))
    }

    /// The messages.
    pub fn iter(&self) -> Messages<'a> {
        Messages {
            rest: self.bytes,
            format: self.format,
            plain: self.plain,
            segment: self.segment,
            next: self.first,
            left: self.count,
        }
    }
}

impl Batch<'_> {
    /// The same messages, in their own memory, so that they do not borrow from the reader. Copies
    /// them once.
    pub fn into_owned(self) -> OwnedBatch {
        OwnedBatch {
            bytes: Bytes::copy_from_slice(self.bytes),
            format: self.format,
            plain: self.plain,
            segment: self.segment,
            first: self.first,
            count: self.count,
        }
    }
}

/// Messages of one segment, in order, in their own memory: cheap to clone, and can be sent to other
/// threads.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("billing", jlog_core::Start::Beginning)?; log.writer()?.append_batch(&["a", "b"])?;
/// use jlog_core::Wait;
///
/// let mut reader = log.reader("billing")?;
/// let batch = reader.next_batch(Wait::No)?.unwrap().into_owned();
/// let bodies = std::thread::spawn(move || batch.iter().map(|message| message.into_body()).collect::<Vec<_>>());
/// assert_eq!(bodies.join().unwrap(), ["a", "b"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OwnedBatch {
    bytes: Bytes,
    format: RecordFormat,
    plain: bool,
    segment: u32,
    first: u32,
    count: u32,
}

impl OwnedBatch {
    /// The messages as a batch that borrows them.
    pub fn as_batch(&self) -> Batch<'_> {
        Batch {
            bytes: &self.bytes,
            format: self.format,
            plain: self.plain,
            segment: self.segment,
            first: self.first,
            count: self.count,
        }
    }

    /// How many messages there are; never 0.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Never true: a batch holds at least one message.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How much memory it takes, in bytes: that of all its messages with their headers.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The id of the first message.
    pub fn first_id(&self) -> LogId {
        self.as_batch().first_id()
    }

    /// The id of the last message, which is the checkpoint after the whole batch.
    pub fn last_id(&self) -> LogId {
        self.as_batch().last_id()
    }

    /// The messages. Their bodies share this batch's memory, which is freed when the last of them
    /// is dropped.
    pub fn iter(&self) -> OwnedMessages<'_> {
        OwnedMessages { batch: &self.bytes, messages: self.as_batch().iter() }
    }
}

impl<'a> IntoIterator for &'a OwnedBatch {
    type Item = OwnedMessage;
    type IntoIter = OwnedMessages<'a>;

    fn into_iter(self) -> OwnedMessages<'a> {
        self.iter()
    }
}

/// A message whose body can be kept, shared and sent without copying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedMessage {
    id: LogId,
    time: Timestamp,
    body: Bytes,
}

impl OwnedMessage {
    /// Its id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// When it was accepted, or the time that was given with it.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The bytes that were appended.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The bytes that were appended.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

/// The messages of an owned batch.
#[derive(Clone, Debug)]
pub struct OwnedMessages<'a> {
    batch: &'a Bytes,
    messages: Messages<'a>,
}

impl Iterator for OwnedMessages<'_> {
    type Item = OwnedMessage;

    fn next(&mut self) -> Option<OwnedMessage> {
        let Message { id, time, body, .. } = self.messages.next()?;
        let body = self.batch.slice_ref(body);
        Some(OwnedMessage { id, time, body })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.messages.size_hint()
    }
}

impl ExactSizeIterator for OwnedMessages<'_> {}

impl<'a> IntoIterator for &Batch<'a> {
    type Item = Message<'a>;
    type IntoIter = Messages<'a>;

    fn into_iter(self) -> Messages<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for Batch<'a> {
    type Item = Message<'a>;
    type IntoIter = Messages<'a>;

    fn into_iter(self) -> Messages<'a> {
        self.iter()
    }
}

/// The messages of a batch.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    format: RecordFormat,
    plain: bool,
    segment: u32,
    next: u32,
    left: u32,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        if self.left == 0 {
            return None;
        }
        let header = self.format.decode(self.rest)?;
        let head = self.format.header_len();
        let end = head + if self.plain { header.len } else { header.stored } as usize;
        let body = self.rest.get(head..end)?;
        self.rest = &self.rest[end..];
        let id = LogId::new(self.segment, self.next);
        self.next = self.next.wrapping_add(1);
        self.left -= 1;
        Some(Message { id, time: header.time, stored: header.stored, body })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Messages<'_> {}

/// The records that a subscriber has before it in one segment, as the C library counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first record after the checkpoint, or the checkpoint itself if there is none.
    pub first: LogId,
    /// The last record of that segment.
    pub last: LogId,
    /// How many there are.
    pub count: u32,
}
