//! Syslog messages over a connection (RFC 6587).

use std::io::{self, BufRead, BufReader, Read};

/// The maximum number of digits in a message's length.
const MAX_DIGITS: usize = 9;

/// Calls `take` with every message of a syslog connection, until the connection ends. Each message
/// either follows its length (octet counting) or ends with a newline. Empty messages are left out.
/// A message of more than `max_message` bytes is split there.
///
/// `take` gets a message and whether it is whole. It is not if the connection ended before all the
/// bytes of its length had come.
///
/// ```
/// let mut messages = Vec::new();
/// let connection = &b"17 <13>counted\nlines<13>one\n<13>two\n99 <13>cut"[..];
/// logdag::input::for_each_syslog_message(connection, 1000, |message, whole| {
///     messages.push((String::from_utf8_lossy(message).into_owned(), whole));
/// })?;
/// let expected = [("<13>counted\nlines", true), ("<13>one", true), ("<13>two", true), ("<13>cut", false)];
/// assert_eq!(messages, expected.map(|(message, whole)| (message.to_owned(), whole)));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// A read error. The part of a message that was received is passed to `take` first.
pub fn for_each_syslog_message(
    from: impl Read,
    max_message: usize,
    mut take: impl FnMut(&[u8], bool),
) -> io::Result<()> {
    let max = max_message.max(1);
    let mut from = BufReader::with_capacity(64 << 10, from);
    let mut message = Vec::new();
    loop {
        message.clear();
        let ended = match length(&mut from, &mut message) {
            Ok(Start::Counted(length)) => counted(&mut from, length, max, &mut message, &mut take),
            Ok(Start::Line) => line(&mut from, max, &mut message, &mut take),
            Ok(Start::End) => Ok(true),
            Err(e) => Err(e),
        };
        match ended {
            Ok(false) => {}
            Ok(true) => return Ok(()),
            Err(e) => {
                give(&message, false, &mut take);
                return Err(e);
            }
        }
    }
}

enum Start {
    /// A message of this many bytes follows.
    Counted(usize),
    /// The message continues to the end of its line; its first bytes have been read.
    Line,
    End,
}

/// Reads a message's length. If it has none, the bytes in `read` are the beginning of the message.
fn length(from: &mut impl BufRead, read: &mut Vec<u8>) -> io::Result<Start> {
    loop {
        let Some(&next) = fill(from)?.first() else {
            return Ok(if read.is_empty() { Start::End } else { Start::Line });
        };
        match next {
            b'0' if read.is_empty() => return Ok(Start::Line),
            b'0'..=b'9' if read.len() < MAX_DIGITS => read.push(next),
            b' ' if !read.is_empty() => {
                let length = read.iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
                read.clear();
                from.consume(1);
                return Ok(Start::Counted(length));
            }
            _ => return Ok(Start::Line),
        }
        from.consume(1);
    }
}

/// Takes a message of this length. Returns whether the connection has ended.
fn counted(
    from: &mut impl BufRead,
    mut left: usize,
    max: usize,
    message: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8], bool),
) -> io::Result<bool> {
    while left > 0 {
        let buffer = fill(from)?;
        if buffer.is_empty() {
            give(message, false, take);
            return Ok(true);
        }
        let n = buffer.len().min(left).min(max - message.len());
        message.extend_from_slice(&buffer[..n]);
        from.consume(n);
        left -= n;
        if left == 0 || message.len() == max {
            give(message, true, take);
            message.clear();
        }
    }
    Ok(false)
}

/// Takes a message that ends with its line. Returns whether the connection has ended.
fn line(
    from: &mut impl BufRead,
    max: usize,
    message: &mut Vec<u8>,
    take: &mut impl FnMut(&[u8], bool),
) -> io::Result<bool> {
    loop {
        let buffer = fill(from)?;
        if buffer.is_empty() {
            give(message, true, take);
            return Ok(true);
        }
        let room = max.saturating_sub(message.len());
        let window = &buffer[..buffer.len().min(room)];
        let end = window.iter().position(|&byte| byte == b'\n');
        let n = end.unwrap_or(window.len());
        message.extend_from_slice(&window[..n]);
        from.consume(n + usize::from(end.is_some()));
        if end.is_some() {
            give(message, true, take);
            return Ok(false);
        }
        if message.len() >= max {
            give(message, true, take);
            message.clear();
        }
    }
}

fn give(message: &[u8], whole: bool, take: &mut impl FnMut(&[u8], bool)) {
    let trailer = message.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r' | b'\0')).count();
    let message = &message[..message.len() - trailer];
    if !message.is_empty() {
        take(message, whole);
    }
}

/// The bytes that can be read now; none at the end.
fn fill(from: &mut impl BufRead) -> io::Result<&[u8]> {
    // Called again below, where a buffer that is not empty is returned at once.
    while let Err(e) = from.fill_buf() {
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    from.fill_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives this many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn messages(bytes: &[u8], at_once: usize, max: usize) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        for_each_syslog_message(Slow(bytes, at_once), max, |message, whole| {
            assert!(message.len() <= max);
            all.push((String::from_utf8_lossy(message).into_owned(), whole));
        })
        .unwrap();
        all
    }

    #[test]
    fn messages_are_counted_or_end_with_a_line_however_they_come() {
        for (bytes, max, expected) in [
            ("", 100, &[][..]),
            ("5 <13>a7 <13>b\nc", 100, &[("<13>a", true), ("<13>b\nc", true)][..]),
            (
                "<13>a\n<13>b\r\n\n\n<13>c\0\n<13>d",
                100,
                &[("<13>a", true), ("<13>b", true), ("<13>c", true), ("<13>d", true)],
            ),
            // A newline after a counted message; both kinds in one connection.
            ("5 <13>a\n<13>b\n6 <13>c\n", 100, &[("<13>a", true), ("<13>b", true), ("<13>c", true)]),
            // An incomplete message is reported as cut.
            ("10 <13>a", 100, &[("<13>a", false)]),
            ("10", 100, &[("10", true)]),
            ("10 ", 100, &[]),
            // No lengths.
            (
                "007 a\n12a b\n1234567890 c\n",
                100,
                &[("007 a", true), ("12a b", true), ("1234567890 c", true)],
            ),
            ("0 a\n5\n", 100, &[("0 a", true), ("5", true)]),
            // Too long.
            ("7 abcdefg<13>\n", 3, &[("abc", true), ("def", true), ("g", true), ("<13", true), (">", true)]),
            ("123456789 a", 3, &[("a", false)]),
            ("abcdef\n", 3, &[("abc", true), ("def", true)]),
        ] {
            for at_once in [1, 2, 3, 1000] {
                let expected: Vec<_> =
                    expected.iter().map(|&(message, whole)| (message.to_owned(), whole)).collect();
                assert_eq!(messages(bytes.as_bytes(), at_once, max), expected, "{bytes:?} {at_once}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_and_messages_do_not_depend_on_how_they_come(
            bytes in proptest::collection::vec(proptest::sample::select(&b"<>0123 a\n\r"[..]), 0..200),
            max in 10_usize..40,
        ) {
            let all = messages(&bytes, 1000, max);
            for at_once in [1, 3, 7] {
                proptest::prop_assert_eq!(&messages(&bytes, at_once, max), &all);
            }
            let letters = |text: &str| text.bytes().filter(|byte| *byte == b'a').count();
            let given = letters(std::str::from_utf8(&bytes).unwrap());
            proptest::prop_assert_eq!(all.iter().map(|(text, _)| letters(text)).sum::<usize>(), given);
        }
    }
}
