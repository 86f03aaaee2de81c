//! Bytes to values and back, without I/O: the metastore, record headers and checkpoints.
//!
//! Every integer on disk is in host byte order as the C library writes it; this crate builds on
//! little-endian machines only, so that order is spelled out. `FORMAT.md` draws the byte maps.

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::error::MetaFault;
use crate::{Error, LogId, Result, Timestamp};

#[cfg(target_endian = "big")]
compile_error!("a jlog is in host byte order; this crate writes little-endian bytes only");

/// Header magic of uncompressed jlogs.
pub const PLAIN_MAGIC: u32 = 0x663A_7318;
/// Header magic of compressed jlogs; the lowest byte names the provider.
pub const COMPRESSED_MAGIC: u32 = 0x1510_6A00;
/// Size of the metastore in bytes.
pub const METASTORE_LEN: usize = 16;
/// Size of a metastore from before header magics existed, in bytes.
pub const OLD_METASTORE_LEN: usize = 12;
/// Size of a checkpoint file in bytes.
pub const CHECKPOINT_LEN: usize = 8;
/// Size of an index entry in bytes.
pub const INDEX_ENTRY_LEN: u64 = 8;
/// Size of the header of an uncompressed record in bytes.
pub const PLAIN_HEADER_LEN: usize = 16;
/// Size of the header of a compressed record in bytes.
pub const COMPRESSED_HEADER_LEN: usize = 20;
/// Size of the counter that leads the pre-commit file, in bytes.
pub const PRE_COMMIT_HEADER_LEN: usize = 4;
/// Segment size of a new jlog unless it is set: 4 MiB.
pub const DEFAULT_SEGMENT_SIZE: u32 = 4 << 20;
/// Largest segment size that can be set: 1 GiB.
pub const MAX_SEGMENT_SIZE: u32 = 1 << 30;
/// Largest pre-commit buffer that can be set: 8 MiB.
pub const MAX_PRE_COMMIT: u32 = 8 << 20;
/// The most an LZ4 block can expand: one stored byte becomes at most 255 bytes.
const LZ4_MAX_EXPANSION: u64 = 255;

/// How bodies are stored. Chosen when a jlog is created and never changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Bodies are stored unchanged.
    #[default]
    None,
    /// Each body is one LZ4 block.
    Lz4,
    /// Bodies are stored unchanged, after the longer headers of compressed ones. The C library
    /// calls this its null provider.
    Framed,
}

/// When the metastore and the checkpoints are synced, as kept in the metastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Safety {
    /// Never.
    Unsafe,
    /// Never by itself (what the C library calls "almost safe").
    #[default]
    AlmostSafe,
    /// At every change.
    Safe,
}

impl Safety {
    /// Its number in the metastore.
    pub const fn to_u32(self) -> u32 {
        match self {
            Safety::Unsafe => 0,
            Safety::AlmostSafe => 1,
            Safety::Safe => 2,
        }
    }

    /// The safety with this number in the metastore.
    pub const fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Safety::Unsafe),
            1 => Some(Safety::AlmostSafe),
            2 => Some(Safety::Safe),
            _ => None,
        }
    }
}

/// The layout of a jlog's records, which its header magic identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFormat {
    magic: u32,
    header_len: usize,
    lz4: bool,
}

impl RecordFormat {
    /// The layout for a new jlog.
    pub const fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self { magic: PLAIN_MAGIC, header_len: PLAIN_HEADER_LEN, lz4: false },
            Compression::Framed => {
                Self { magic: COMPRESSED_MAGIC, header_len: COMPRESSED_HEADER_LEN, lz4: false }
            }
            Compression::Lz4 => {
                Self { magic: COMPRESSED_MAGIC | 1, header_len: COMPRESSED_HEADER_LEN, lz4: true }
            }
        }
    }

    /// The layout of the oldest jlogs, whose record headers carry the magic 0.
    pub const fn old() -> Self {
        Self { magic: 0, header_len: PLAIN_HEADER_LEN, lz4: false }
    }

    /// The layout of a metastore's `hdr_magic`, or `None` if it is unknown.
    pub const fn from_magic(magic: u32) -> Option<Self> {
        if magic == PLAIN_MAGIC {
            return Some(Self::new(Compression::None));
        }
        match magic ^ COMPRESSED_MAGIC {
            0 => Some(Self { magic, header_len: COMPRESSED_HEADER_LEN, lz4: false }),
            1 => Some(Self::new(Compression::Lz4)),
            _ => None,
        }
    }

    /// The magic that leads every record header.
    pub const fn magic(self) -> u32 {
        self.magic
    }

    /// Size of a record's header: 16 or 20 bytes.
    pub const fn header_len(self) -> usize {
        self.header_len
    }

    /// Whether bodies are LZ4 blocks.
    pub const fn is_lz4(self) -> bool {
        self.lz4
    }

    /// The longest message in bytes: header and stored body must fit a `u32` together.
    pub const fn max_message_len(self) -> u64 {
        u32::MAX as u64 - self.header_len as u64
    }

    /// Writes a header into the first `header_len` bytes of `out`.
    pub fn encode(self, header: &RecordHeader, out: &mut [u8]) {
        LE::write_u32(&mut out[0..4], self.magic);
        LE::write_u32(&mut out[4..8], header.time.seconds);
        LE::write_u32(&mut out[8..12], header.time.micros);
        LE::write_u32(&mut out[12..16], header.len);
        if self.header_len == COMPRESSED_HEADER_LEN {
            LE::write_u32(&mut out[16..20], header.stored);
        }
    }

    /// Reads the header at the beginning of `bytes`; `None` if the magic is not ours. `bytes` must
    /// hold at least `header_len` bytes.
    #[inline]
    pub fn decode(self, bytes: &[u8]) -> Option<RecordHeader> {
        let head = bytes.first_chunk::<PLAIN_HEADER_LEN>()?;
        if LE::read_u32(&head[0..4]) != self.magic {
            return None;
        }
        let len = LE::read_u32(&head[12..16]);
        let stored = if self.header_len == COMPRESSED_HEADER_LEN {
            LE::read_u32(bytes.get(PLAIN_HEADER_LEN..COMPRESSED_HEADER_LEN)?)
        } else {
            len
        };
        let time = Timestamp { seconds: LE::read_u32(&head[4..8]), micros: LE::read_u32(&head[8..12]) };
        Some(RecordHeader { time, len, stored })
    }

    /// The maximum number of bytes that a message of `len` bytes is stored in.
    pub(crate) fn max_stored(self, len: usize) -> usize {
        if self.lz4 { lz4_flex::block::get_maximum_output_size(len) } else { len }
    }

    /// The stored form of a message's body: the body itself, or one LZ4 block appended to
    /// `scratch`.
    pub(crate) fn store<'a>(self, body: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if !self.lz4 {
            return body;
        }
        let start = scratch.len();
        let bound = lz4_flex::block::get_maximum_output_size(body.len());
        scratch.resize(start + bound, 0);
        // The output has the size that the compressor requires, so it cannot fail. If it did, an
        // empty block would be refused on reading, and never taken for a message.
        let n = lz4_flex::block::compress_into(body, &mut scratch[start..]).unwrap_or(0);
        scratch.truncate(start + n);
        &scratch[start..]
    }

    /// Appends a record's message to `out`; `false` (with `out` unchanged) if the stored body is
    /// damaged. Never allocates more than 255 times the stored body.
    pub(crate) fn load(self, header: &RecordHeader, stored: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if !self.lz4 {
            if header.len != header.stored {
                return false;
            }
            out.extend_from_slice(stored);
            return true;
        }
        if u64::from(header.len) > stored.len() as u64 * LZ4_MAX_EXPANSION {
            return false;
        }
        let len = header.len as usize;
        out.resize(start + len, 0);
        let good = lz4_flex::block::decompress_into(stored, &mut out[start..]).is_ok_and(|n| n == len);
        if !good {
            out.truncate(start);
        }
        good
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// When the message was accepted.
    pub time: Timestamp,
    /// Length of the message in bytes.
    pub len: u32,
    /// Length of the body in the segment in bytes; differs from `len` in compressed jlogs only.
    pub stored: u32,
}

/// The metastore's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Number of the segment being written.
    pub storage_log: u32,
    /// A segment ends with the record that reaches this size, in bytes.
    pub segment_size: u32,
    /// When metastore and checkpoints are synced.
    pub safety: Safety,
    /// Layout of the records.
    pub format: RecordFormat,
}

impl Meta {
    /// The 16 bytes of a metastore.
    pub fn encode(&self) -> [u8; METASTORE_LEN] {
        let mut out = [0; METASTORE_LEN];
        LE::write_u32(&mut out[0..4], self.storage_log);
        LE::write_u32(&mut out[4..8], self.segment_size);
        LE::write_u32(&mut out[8..12], self.safety.to_u32());
        LE::write_u32(&mut out[12..16], self.format.magic());
        out
    }

    /// Reads a metastore of 16 bytes, or an old one of 12.
    ///
    /// # Errors
    /// The fault of the bytes: a wrong length, an unknown magic, the byte order of another machine,
    /// a segment size of 0, an unknown safety.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, MetaFault> {
        let format = match bytes.len() {
            METASTORE_LEN => {
                let magic = LE::read_u32(&bytes[12..16]);
                match RecordFormat::from_magic(magic) {
                    Some(format) => format,
                    None if RecordFormat::from_magic(magic.swap_bytes()).is_some() => {
                        return Err(MetaFault::ForeignByteOrder);
                    }
                    None => return Err(MetaFault::UnknownMagic(magic)),
                }
            }
            OLD_METASTORE_LEN => RecordFormat::old(),
            n => return Err(MetaFault::Length(n)),
        };
        let segment_size = LE::read_u32(&bytes[4..8]);
        if segment_size == 0 {
            return Err(MetaFault::SegmentSize);
        }
        let safety = LE::read_u32(&bytes[8..12]);
        let safety = Safety::from_u32(safety).ok_or(MetaFault::Safety(safety))?;
        Ok(Self { storage_log: LE::read_u32(&bytes[0..4]), segment_size, safety, format })
    }
}

/// The 8 bytes of a checkpoint.
pub fn encode_checkpoint(id: LogId) -> [u8; CHECKPOINT_LEN] {
    let mut out = [0; CHECKPOINT_LEN];
    LE::write_u32(&mut out[0..4], id.segment);
    LE::write_u32(&mut out[4..8], id.marker);
    out
}

/// Reads a checkpoint; `None` unless there are exactly 8 bytes.
pub fn decode_checkpoint(bytes: &[u8]) -> Option<LogId> {
    (bytes.len() == CHECKPOINT_LEN)
        .then(|| LogId { segment: LE::read_u32(&bytes[0..4]), marker: LE::read_u32(&bytes[4..8]) })
}

/// Checks a message's length before anything is written.
pub(crate) fn check_message_len(format: RecordFormat, len: usize) -> Result<u32> {
    match u32::try_from(len) {
        Ok(n) if u64::from(n) <= format.max_message_len() => Ok(n),
        _ => Err(Error::MessageTooLarge { len: len as u64, max: format.max_message_len() }),
    }
}

const _: () = assert!(METASTORE_LEN == 4 * 4 && CHECKPOINT_LEN == 2 * 4);
const _: () = assert!(PLAIN_HEADER_LEN == 4 * 4 && COMPRESSED_HEADER_LEN == 5 * 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_those_of_the_byte_map() {
        let time = Timestamp { seconds: 0x0102_0304, micros: 5 };
        let header = RecordHeader { time, len: 7, stored: 9 };
        let mut out = [0; 20];
        RecordFormat::new(Compression::Lz4).encode(&header, &mut out);
        assert_eq!(out, [0x01, 0x6a, 0x10, 0x15, 0x04, 0x03, 0x02, 0x01, 5, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(RecordFormat::new(Compression::Lz4).decode(&out), Some(header));
        assert_eq!(RecordFormat::new(Compression::None).decode(&out), None);
    }

    #[test]
    fn metastore_faults_are_told_apart() {
        let good = Meta {
            storage_log: 3,
            segment_size: 4096,
            safety: Safety::Safe,
            format: RecordFormat::new(Compression::None),
        };
        let bytes = good.encode();
        assert_eq!(Meta::decode(&bytes), Ok(good));
        assert_eq!(Meta::decode(&bytes[..12]).map(|m| m.format), Ok(RecordFormat::old()));
        assert_eq!(Meta::decode(&bytes[..15]), Err(MetaFault::Length(15)));
        let mut swapped = bytes;
        swapped[12..].reverse();
        assert_eq!(Meta::decode(&swapped), Err(MetaFault::ForeignByteOrder));
        let mut unknown = bytes;
        unknown[15] = 0;
        assert_eq!(Meta::decode(&unknown), Err(MetaFault::UnknownMagic(0x003a_7318)));
        let mut zero = bytes;
        zero[4..8].fill(0);
        assert_eq!(Meta::decode(&zero), Err(MetaFault::SegmentSize));
        let mut safety = bytes;
        safety[8] = 3;
        assert_eq!(Meta::decode(&safety), Err(MetaFault::Safety(3)));
    }

    #[test]
    fn a_lying_lz4_header_allocates_nothing() {
        let lz4 = RecordFormat::new(Compression::Lz4);
        let mut scratch = Vec::new();
        let stored = lz4.store(b"hello hello hello hello", &mut scratch).to_vec();
        let header = |len| RecordHeader {
            time: Timestamp::default(),
            len,
            stored: u32::try_from(stored.len()).unwrap(),
        };
        let mut out = b"kept".to_vec();
        assert!(!lz4.load(&header(u32::MAX), &stored, &mut out));
        assert!(!lz4.load(&header(24), &stored, &mut out));
        assert!(out.capacity() < 1 << 20);
        assert!(lz4.load(&header(23), &stored, &mut out));
        assert_eq!(out, b"kepthello hello hello hello");
    }

    #[test]
    fn message_limits_by_arithmetic() {
        let plain = RecordFormat::new(Compression::None);
        assert_eq!(check_message_len(plain, 0xffff_ffef).ok(), Some(0xffff_ffef));
        assert!(check_message_len(plain, 0xffff_fff0).is_err());
        assert!(check_message_len(plain, usize::MAX).is_err());
        let lz4 = RecordFormat::new(Compression::Lz4);
        assert_eq!(check_message_len(lz4, 0xffff_ffeb).ok(), Some(0xffff_ffeb));
        assert!(check_message_len(lz4, 0xffff_ffec).is_err());
    }
}
