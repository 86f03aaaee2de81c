//! Copies of records of the next segments.

use std::io;
use std::sync::Arc;

use crate::codec::format::{RecordFormat, RecordHeader};
use crate::files::checksum::header_hash;
use crate::files::scan::Window;
use crate::storage::File;

/// With more equal headers than this, a record is taken for a copy.
const MAX_EQUAL: usize = 64;
/// The smallest piece that a disk writes.
const SECTOR: u64 = 512;

/// Records of the next segments that another one may be a copy of.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    /// Their checksums, in order.
    pub(super) crcs: Arc<[u32]>,
    /// The hash of each one's header, the number of its file and where it begins there, in order.
    pub(super) headers: Arc<[(u32, usize, u64)]>,
    pub(super) files: Arc<[Arc<dyn File>]>,
}

impl Copies {
    /// Whether the record of a file that begins at `offset`, with `total` bytes, is a copy of one
    /// of these, or what is left of a copy that lost its end.
    pub(super) fn have(
        &self,
        (file, format): (&dyn File, RecordFormat),
        (offset, total): (u64, u64),
        header: &RecordHeader,
        crc: u32,
    ) -> io::Result<bool> {
        if self.crcs.binary_search(&crc).is_ok() {
            return Ok(true);
        }
        let hash = header_hash(header);
        let first = self.headers.partition_point(|&(other, ..)| other < hash);
        let equal = self.headers[first..].iter().take_while(|&&(other, ..)| other == hash);
        let head_len = format.header_len() as u64;
        for (n, &(_, other, at)) in equal.enumerate() {
            if n == MAX_EQUAL {
                return Ok(true);
            }
            let same = same_bytes((file, offset), (&*self.files[other], at), total)?;
            // What replaces the end of a copy begins with a sector. Other records may have an equal
            // header and, by chance, an equal first byte of the body, most likely with LZ4.
            let sector = (offset + same) / SECTOR * SECTOR;
            if same > head_len + 1 || sector >= offset + head_len {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How many bytes from one place on equal those from another place on; `most` is the maximum.
fn same_bytes((one, from): (&dyn File, u64), (other, at): (&dyn File, u64), most: u64) -> io::Result<u64> {
    let (mut a, mut b) = (Window::of(4096), Window::of(4096));
    let mut same = 0;
    while same < most {
        let want = usize::try_from(most - same).unwrap_or(4096).min(4096);
        let a = a.at(one, from + same, want)?;
        let b = b.at(other, at + same, want)?;
        let len = want.min(a.len()).min(b.len());
        let equal = a[..len].iter().zip(&b[..len]).take_while(|(a, b)| a == b).count();
        same += equal as u64;
        if equal < want {
            break;
        }
    }
    Ok(same)
}
