//! Splits bytes from pipes, sockets and other programs into lines.

use std::io::{self, BufRead, BufReader, Read};

/// Calls a function with every line, without its line end (`\n` or `\r\n`), until the input ends. A
/// line longer than `max_line` bytes is split there.
///
/// # Errors
/// The error of reading.
pub fn for_each_line(from: impl Read, max_line: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let max_line = max_line.max(1);
    let mut from = BufReader::with_capacity(64 << 10, from);
    let mut line = Vec::new();
    // Whether the next line is the rest of one that was cut.
    let mut cut = false;
    loop {
        // Two bytes more than allowed show that it is too long: a line end is no part of it.
        let limit = (max_line + 2).saturating_sub(line.len()) as u64;
        (&mut from).take(limit).read_until(b'\n', &mut line)?;
        let ended = line.last() == Some(&b'\n');
        if ended {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() > max_line {
            let behind = line.split_off(cut_at(&line, max_line));
            take(&line);
            line = behind;
            cut = true;
            if !ended {
                continue;
            }
        }
        // The end of a line that was split right before it is not a line.
        if !line.is_empty() || (ended && !cut) {
            take(&line);
        }
        line.clear();
        cut = false;
        if !ended {
            return Ok(());
        }
    }
}

/// Where a line that is too long is cut: before a character that would be cut in two.
fn cut_at(line: &[u8], max: usize) -> usize {
    let inside = |at: &usize| line.get(*at).is_some_and(|byte| byte & 0xC0 == 0x80);
    // A character has 4 bytes at most; a longer run of such bytes is no text.
    (max.saturating_sub(3)..=max).rev().find(|at| *at > 0 && !inside(at)).unwrap_or(max)
}
