//! What several tests need.

use std::path::PathBuf;

/// The directories that the C library has written: `JLOG_GOLDEN`, or `../shared/golden` beside the
/// repository. `None`, and a line that says so, where they are absent.
pub fn golden_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("JLOG_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden")),
        PathBuf::from,
    );
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: no golden directories at {} (set JLOG_GOLDEN)", dir.display());
    None
}
