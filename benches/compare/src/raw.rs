//! What the kernel allows: bare writes and reads.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// When the bare writes sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawSync {
    /// Never.
    Never,
    /// Each file when it has the length of a segment, and the last one at the end.
    OnRoll,
    /// After each write.
    Each,
}

/// Writes `total` bytes in pieces of `piece` bytes, beginning a new file whenever one has the
/// length of a segment; returns seconds. With `allocated`, files get their blocks and length
/// beforehand.
pub fn write(dir: &Path, total: u64, piece: usize, sync: RawSync, allocated: bool) -> Result<f64> {
    const SEGMENT: u64 = 4 << 20;
    let bytes = vec![b'm'; piece];
    let open = |number: u64| -> Result<File> {
        Ok(OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(dir.join(format!("{number:08x}")))?)
    };
    if allocated {
        for number in 0..=total / SEGMENT {
            let file = open(number)?;
            file.write_all_at(&vec![0; usize::try_from(SEGMENT)? + piece], 0)?;
            file.sync_all()?;
        }
    }
    let start = std::time::Instant::now();
    let (mut number, mut offset, mut done) = (0, 0, 0);
    let mut file = open(number)?;
    while done < total {
        file.write_all_at(&bytes, offset)?;
        offset += piece as u64;
        done += piece as u64;
        if sync == RawSync::Each {
            file.sync_data()?;
        }
        if offset >= SEGMENT {
            if sync == RawSync::OnRoll {
                file.sync_data()?;
            }
            number += 1;
            offset = 0;
            file = open(number)?;
        }
    }
    if sync == RawSync::OnRoll {
        file.sync_data()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Reads these files, one after the other, in pieces of `piece` bytes; returns seconds.
pub fn read(files: &[PathBuf], piece: usize) -> Result<f64> {
    let mut bytes = vec![0; piece];
    let start = std::time::Instant::now();
    for path in files {
        let (file, mut offset) = (File::open(path)?, 0);
        loop {
            let n = file.read_at(&mut bytes, offset)?;
            if n == 0 {
                break;
            }
            offset += n as u64;
        }
    }
    Ok(start.elapsed().as_secs_f64())
}
