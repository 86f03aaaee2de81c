//! Names and paths, which may be any bytes, as text.

use std::fmt::Write;

/// Bytes as text, different ones as different texts: what is no UTF-8 comes as `\xff`, and a backslash doubled.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_are_shown_as_different_texts() {
        assert_eq!(shown(b"billing/a b"), "billing/a b");
        assert_eq!(shown("Zähler\n".as_bytes()), "Zähler\n");
        assert_eq!(shown(b"a\xff"), "a\\xff");
        assert_eq!(shown(b"a\\xff"), "a\\\\xff");
    }
}
