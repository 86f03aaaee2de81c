//! Names and paths, which may be any bytes, as text.

use std::fmt::Write;

/// Bytes as text, without collisions: a byte that is not UTF-8 becomes `\xff`, and a backslash is
/// doubled.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            out.push_str(if c == '\\' { "\\" } else { "" });
            out.push(c);
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The bytes that are shown as this text.
pub(crate) fn parse(shown: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(shown.len()), shown.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = match behind {
            [b'\\', behind @ ..] if first == b'\\' => Some((b'\\', behind)),
            [b'x', high, low, behind @ ..] if first == b'\\' => {
                let digits = [*high, *low];
                let byte = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                byte.map(|byte| (byte, behind))
            }
            _ => None,
        };
        let (byte, behind) = escaped.unwrap_or((first, behind));
        out.push(byte);
        rest = behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_are_shown_as_different_texts() {
        assert_eq!(shown(b"billing/a b"), "billing/a b");
        assert_eq!(shown("Zähler\n".as_bytes()), "Zähler\n");
        assert_eq!(shown(b"a\xff"), "a\\xff");
        assert_eq!(shown(b"a\\xff"), "a\\\\xff");
        for name in [&b"a\\xff"[..], b"\xff\\", b"\\\\x41", "Z\u{e4}hler".as_bytes(), b"", b"\\x"] {
            assert_eq!(parse(&shown(name)), name, "{name:?}");
        }
        assert_eq!(parse("a\\xzz\\"), b"a\\xzz\\");
    }
}
