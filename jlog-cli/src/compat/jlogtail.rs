//! `jlogtail PATH`: shows messages that are written from now on.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use jlog_core::{Error, JlogOptions, OnDamage, ReaderOptions, Start, Wait};

use super::jlogctl::error_name;
use crate::error::{Failure, Outcome};

/// Runs it.
pub fn run(arguments: &[OsString]) -> Outcome {
    let [_, path] = arguments else {
        let name = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "usage: {name} /path/to/jlog");
        return Ok(ExitCode::FAILURE);
    };
    let failed = |e: &Error| {
        let (code, name) = error_name(e, Path::new(path));
        let _ = writeln!(std::io::stderr(), "jlog_ctx_open_reader failed: {code} {name}");
        Ok(ExitCode::FAILURE)
    };
    let log = match JlogOptions::default().open(path) {
        Ok(log) => log,
        Err(e) => return failed(&e),
    };
    // The C tool removes its subscriber before it reads, so it retains no segments either.
    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = match log.reader_from(&Start::End, options) {
        Ok(reader) => reader,
        Err(e) => return failed(&e),
    };
    loop {
        let Some(batch) = reader.next_batch(Wait::Forever)? else { continue };
        let mut out = std::io::stdout().lock();
        for message in &batch {
            let body = message.body();
            let shown = if body.is_empty() {
                out.write_all(b"... empty message ...\n")
            } else {
                let end = memchr::memchr(0, body).unwrap_or(body.len());
                let newline: &[u8] = if body.last() == Some(&b'\n') { b"" } else { b"\n" };
                out.write_all(&body[..end]).and_then(|()| out.write_all(newline))
            };
            shown.and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))?;
        }
    }
}
