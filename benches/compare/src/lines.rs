//! The lines that loggers write: the same text for every logger, 100 bytes in a file with the
//! newline.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::work::as_f64;

/// Bytes of a line in a file: 99 of the message (for numbers below 100 million) and the newline.
pub const LINE: usize = 100;
/// Bytes after which a file is rotated.
pub const ROTATE_AT: usize = 10_000_000;

/// Calls a macro with the message's format between the macro's other arguments; the format's
/// arguments are two numbers. It is a literal, so that every logger's macros can parse it.
macro_rules! with_text {
    ($($name:ident)::+ ! ($($before:tt)*) ($($behind:tt)*)) => {
        $($name)::+!(
            $($before)*
            "{:08} 192.0.2.17 GET /archive/{:08x}/index.html 200 compatible; feed reader/1.0 (for everyone)"
            $($behind)*
        )
    };
}
pub(crate) use with_text;

/// Million lines per second, from the first call on.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Until the last call returned.
    pub taken: f64,
    /// Until all lines were in the files.
    pub written: f64,
}

/// Measures `count` lines that `log` logs and `finish` brings into the files.
pub fn rates(count: usize, log: impl FnOnce(), finish: impl FnOnce() -> Result<()>) -> Result<Rates> {
    let start = Instant::now();
    log();
    let taken = start.elapsed().as_secs_f64();
    finish()?;
    let written = start.elapsed().as_secs_f64();
    let rate = |seconds: f64| as_f64(count) / seconds / 1e6;
    Ok(Rates { taken: rate(taken), written: rate(written) })
}

/// Waits until the files of a directory have all lines (within a minute).
pub fn wait_for(dir: &Path, count: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut bytes = 0;
        for entry in std::fs::read_dir(dir)? {
            bytes += entry?.metadata()?.len();
        }
        if bytes >= (count * LINE) as u64 {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "{bytes} bytes of {count} lines came");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Checks that the files of a directory have exactly this many lines, each of the expected length.
pub fn check(dir: &Path, count: usize, who: &str) -> Result<()> {
    let (mut lines, mut bytes, mut files) = (0, 0, 0);
    for entry in std::fs::read_dir(dir)? {
        let text = std::fs::read(entry?.path())?;
        ensure!(text.chunks(LINE).all(|line| line.last() == Some(&b'\n')), "{who}: a line of another length");
        lines += text.iter().filter(|&&byte| byte == b'\n').count();
        bytes += text.len();
        files += 1;
    }
    ensure!(
        lines == count && bytes == count * LINE,
        "{who} wrote {lines} lines of {bytes} bytes in {files} files instead of {count} lines"
    );
    Ok(())
}
