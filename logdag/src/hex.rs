//! Bytes for people to look at.

use std::fmt;

/// Bytes in a row.
const ROW: usize = 16;

/// Bytes as rows of 16: offset, hexadecimal, and text where there is some. Log it as part of a message; sinks that split
/// messages at line ends give each row its own prefix.
///
/// ```
/// use logdag::HexDump;
///
/// let text = HexDump(b"GET / HTTP/1.1\r\n\r\n").to_string();
/// assert_eq!(
///     text,
///     "00000000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|\n\
///      00000010  0d 0a                                             |..|"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HexDump<'a>(pub &'a [u8]);

impl fmt::Display for HexDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, row) in self.0.chunks(ROW).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{:08x} ", n * ROW)?;
            for at in 0..ROW {
                if at % (ROW / 2) == 0 {
                    f.write_str(" ")?;
                }
                match row.get(at) {
                    Some(byte) => write!(f, "{byte:02x} ")?,
                    None => f.write_str("   ")?,
                }
            }
            f.write_str(" |")?;
            for &byte in row {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
                write!(f, "{shown}")?;
            }
            f.write_str("|")?;
        }
        Ok(())
    }
}
