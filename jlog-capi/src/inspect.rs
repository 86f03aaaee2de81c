//! The output of `jlog_inspect_datafile` on stderr, in the format of the C tools.

use std::ffi::c_int;
use std::io::Write;

use jlog_core::format::RecordFormat;
use jlog_core::names;

use crate::abi;
use crate::ctx::{Ctx, Fault, Outcome};

/// 0 if the segment is sound, 1 if it is damaged.
pub(crate) fn inspect(ctx: &Ctx, segment: u32, verbose: bool) -> Outcome<c_int> {
    let format =
        ctx.log()?.meta().map_err(|e| Fault::new(abi::META_OPEN, e.raw_os_error().unwrap_or(0)))?.format;
    let fail = |e: std::io::Error| Fault::new(abi::FILE_OPEN, e.raw_os_error().unwrap_or(libc::EIO));
    let bytes = std::fs::read(ctx.path().join(names::segment(segment))).map_err(fail)?;
    // If stderr is closed, there is nowhere to report it.
    let mut err = std::io::stderr().lock();
    Ok(c_int::from(!report(&bytes, format, verbose, &mut err)))
}

/// Whether the segment is sound.
fn report(bytes: &[u8], format: RecordFormat, verbose: bool, out: &mut impl Write) -> bool {
    let head = format.header_len();
    let number =
        |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
    let (mut at, mut n) = (0, 0);
    while at + head <= bytes.len() {
        n += 1;
        let magic = number(at);
        if magic != format.magic() {
            let _ = writeln!(out, "Message {n} at [{at}] has invalid reserved value {magic}");
            return false;
        }
        let stored = number(at + head - 4);
        let mut line = format!("Message {n} at [{at}] of ({head}+{stored})");
        let next = at + head + stored as usize;
        if next > bytes.len() {
            line.push_str(" OFF THE END!");
            let _ = writeln!(out, "{line}");
            return false;
        }
        if verbose {
            let time = local_time(number(at + 4));
            let _ = write!(out, "{line}\n\ttime: {time}\n\tmlen: {}\n", number(at + 12));
        }
        at = next;
    }
    if at < bytes.len() {
        let _ = writeln!(out, "{} bytes of junk at the end", bytes.len() - at);
        return false;
    }
    true
}

/// A time in the program's locale.
fn local_time(seconds: u32) -> String {
    let time = libc::time_t::from(seconds);
    let mut text = [0u8; 128];
    // SAFETY: all of it is ours, and the length is that of the buffer.
    let len = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const time, &raw mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c"%c".as_ptr(), &raw const parts)
    };
    String::from_utf8_lossy(&text[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use jlog_core::Timestamp;
    use jlog_core::format::{Compression, RecordHeader};

    use super::*;

    #[test]
    fn lines_are_those_of_the_c_library() {
        let format = RecordFormat::new(Compression::None);
        let mut bytes = Vec::new();
        for body in [&b"one"[..], b"three"] {
            let len = u32::try_from(body.len()).unwrap();
            let mut head = [0; 16];
            format.encode(&RecordHeader { time: Timestamp::default(), len, stored: len }, &mut head);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(body);
        }
        let reported = |bytes: &[u8], verbose| {
            let mut out = Vec::new();
            let sound = report(bytes, format, verbose, &mut out);
            (sound, String::from_utf8(out).unwrap())
        };
        assert_eq!(reported(&bytes, false), (true, String::new()));
        let (sound, text) = reported(&bytes, true);
        assert!(sound && text.starts_with("Message 1 at [0] of (16+3)\n\ttime: "), "{text}");
        assert!(text.contains("\n\tmlen: 3\nMessage 2 at [19] of (16+5)\n"), "{text}");
        assert_eq!(reported(&bytes[..30], false), (false, "11 bytes of junk at the end\n".to_owned()));
        let (sound, text) = reported(&bytes[..36], false);
        assert_eq!((sound, &*text), (false, "Message 2 at [19] of (16+5) OFF THE END!\n"));
        bytes[19] = 0;
        let (sound, text) = reported(&bytes, false);
        assert_eq!((sound, &*text), (false, "Message 2 at [19] has invalid reserved value 1715106560\n"));
    }
}
