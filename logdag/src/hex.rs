//! Hex dumps.

use std::fmt;

/// The default and the maximum number of bytes in a row.
const ROW: usize = 16;
const MAX_ROW: usize = 256;

/// Bytes as rows of 16, or of the formatter's width, up to 256 (`{:8}` is libmtev's): offset,
/// hexadecimal, and as text if there is some. Log it as part of a message; sinks that split
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
/// let text = format!("{:8}", HexDump(b"GET / HTTP"));
/// assert_eq!(
///     text,
///     "00000000  47 45 54 20  2f 20 48 54  |GET / HT|\n\
///      00000008  54 50                     |TP|"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HexDump<'a>(pub &'a [u8]);

impl fmt::Display for HexDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = f.width().unwrap_or(ROW).clamp(1, MAX_ROW);
        for (n, row) in self.0.chunks(width).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{:08x} ", n * width)?;
            for at in 0..width {
                if at % width.div_ceil(2) == 0 {
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
