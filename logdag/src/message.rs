//! Messages before they are text.
//!
//! [`log!`](crate::log!) makes a [`Message`] from its format string and arguments; the result of
//! `format_args!` is one, too. `format_args!` is slow with zero-padded and hexadecimal integers,
//! because it writes digit by digit: this module writes them instead.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

#[doc(hidden)]
pub use logdag_macros::message;

/// Something that can be written as text, any number of times.
pub trait Message {
    /// Writes it.
    ///
    /// # Errors
    /// A part of it cannot be formatted. What was written before that stays.
    fn write_to(&self, text: &mut Text<'_>) -> fmt::Result;

    /// Its text, if it is text already.
    fn as_str(&self) -> Option<&str> {
        None
    }
}

impl Message for fmt::Arguments<'_> {
    fn write_to(&self, text: &mut Text<'_>) -> fmt::Result {
        text.write_fmt(*self)
    }

    fn as_str(&self) -> Option<&str> {
        fmt::Arguments::as_str(self)
    }
}

macro_rules! messages {
    ($($text:ty),*) => {$(
        impl Message for $text {
            fn write_to(&self, text: &mut Text<'_>) -> fmt::Result {
                text.push(self);
                Ok(())
            }

            fn as_str(&self) -> Option<&str> {
                Some(self)
            }
        }
    )*};
}

messages!(&str, String, Cow<'_, str>);

/// Text that grows.
#[derive(Debug)]
pub struct Text<'a> {
    bytes: &'a mut Vec<u8>,
    looks_for: LooksFor,
    found: bool,
}

/// What a [`Text`] looks for in what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LooksFor {
    Nothing,
    LineEnds,
    Controls,
}

/// Whether a byte may belong to a character that must not reach a terminal or break a line: every
/// control character, and the first bytes of those beyond ASCII (`format::is_dangerous` decides).
#[inline]
pub(crate) const fn may_be_dangerous(byte: u8) -> bool {
    byte < b' ' || matches!(byte, 0x7f | 0xc2 | 0xe2)
}

impl<'a> Text<'a> {
    /// A text that appends to these bytes.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, looks_for: LooksFor::Nothing, found: false }
    }

    /// The same; afterwards [`found`](Self::found) shows whether line ends were written. It looks
    /// for them in the arguments, because reading back what was only just written would stall.
    pub(crate) fn that_looks_for_line_ends(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, looks_for: LooksFor::LineEnds, found: false }
    }

    /// The same for bytes that [may be dangerous](may_be_dangerous).
    pub(crate) fn that_looks_for_controls(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, looks_for: LooksFor::Controls, found: false }
    }

    /// Whether what it looks for may have been written.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Appends a text.
    #[inline]
    pub fn push(&mut self, text: &str) {
        match self.looks_for {
            LooksFor::Nothing => {}
            LooksFor::LineEnds => self.found |= memchr::memchr(b'\n', text.as_bytes()).is_some(),
            // Without an early exit, the compiler checks many bytes at once.
            LooksFor::Controls => {
                self.found |= text.bytes().fold(false, |found, byte| found | may_be_dangerous(byte));
            }
        }
        self.push_printable(text);
    }

    /// Appends a text that is printable ASCII.
    #[doc(hidden)]
    #[inline]
    pub fn push_printable(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Appends a number: these digits without leading zeros, with a sign if it is negative, and
    /// zeros up to a width.
    fn push_number(&mut self, negative: bool, digits: &[u8], width: usize) {
        let leading_zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        let digits = &digits[leading_zeros.min(digits.len() - 1)..];
        if negative {
            self.bytes.push(b'-');
        }
        let missing = width.saturating_sub(digits.len() + usize::from(negative));
        self.bytes.resize(self.bytes.len() + missing, b'0');
        self.bytes.extend_from_slice(digits);
    }
}

impl fmt::Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }

    #[inline]
    fn write_char(&mut self, c: char) -> fmt::Result {
        // The zeros and blanks before numbers are written one by one.
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => {
                self.found |= may_be_dangerous(byte);
                self.bytes.push(byte);
            }
            _ => self.push(c.encode_utf8(&mut [0; 4])),
        }
        Ok(())
    }
}

/// What `log!` makes from a format string and its arguments.
#[doc(hidden)]
pub struct Formatted<F>(F);

impl<F: Fn(&mut Text<'_>) -> fmt::Result> Formatted<F> {
    #[inline]
    pub fn new(write: F) -> Self {
        Self(write)
    }
}

impl<F: Fn(&mut Text<'_>) -> fmt::Result> Message for Formatted<F> {
    fn write_to(&self, text: &mut Text<'_>) -> fmt::Result {
        (self.0)(text)
    }
}

/// An argument of a format string. A call of [`Put`]'s method resolves to the implementation for
/// this type if the argument is a number, and to the one for a reference to it otherwise. The
/// method has an unusual name because traits of the caller may have methods for every type.
#[doc(hidden)]
#[derive(Debug)]
pub struct Argument<'a, T: ?Sized>(pub &'a T);

/// Integers; and the other primitive types, so that the type of a literal need not be known yet.
#[doc(hidden)]
pub trait Number {
    /// Whether it is negative, and its absolute value.
    fn parts(&self) -> Option<(bool, u64)>;
    /// Its bits.
    fn bits(&self) -> Option<u64>;
}

/// The digits of a number.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digits {
    Decimal,
    LowerHex,
    UpperHex,
}

#[doc(hidden)]
pub trait Put {
    /// Writes an integer, padded with zeros to a width; `otherwise` writes all other arguments.
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        digits: Digits,
        width: usize,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

impl<T: Number + ?Sized> Put for Argument<'_, T> {
    #[inline]
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        digits: Digits,
        width: usize,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        match (digits, self.0.parts(), self.0.bits()) {
            (Digits::Decimal, Some((negative, number)), _) => put_decimal(text, negative, number, width),
            (Digits::LowerHex, _, Some(bits)) => put_hexadecimal(text, bits, b'a', width),
            (Digits::UpperHex, _, Some(bits)) => put_hexadecimal(text, bits, b'A', width),
            _ => return otherwise(text),
        }
        Ok(())
    }
}

impl<T: ?Sized> Put for &Argument<'_, T> {
    #[inline]
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        _: Digits,
        _: usize,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        otherwise(text)
    }
}

/// `0` eight times, one in each byte.
const ZEROS: u64 = 0x3030_3030_3030_3030;
/// Numbers below this have at most eight decimal digits.
const GROUP: u64 = 100_000_000;

/// The eight digits of a number below 10^8, the first in the lowest byte. The numbers side by side
/// in one word are split into halves, three times. The digits are computed in a register and stored
/// together, so they can be copied without a stall, unlike bytes stored one by one. Both ideas are
/// from Paul Khuong, "How to print integers really fast" (2017).
const fn decimal(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    (tens | ((twos - tens * 10) << 8)) | ZEROS
}

/// The same for the hexadecimal digits of a number below 2^32; `ten` is `a` or `A`.
const fn hexadecimal(number: u64, ten: u8) -> u64 {
    let fours = (number | (number << 16)) & 0x0000_ffff_0000_ffff;
    let twos = (fours | (fours << 8)) & 0x00ff_00ff_00ff_00ff;
    let ones = (twos | (twos << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = ((ones + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (ones + ZEROS + above_nine * (ten - b'9' - 1) as u64).swap_bytes()
}

#[inline]
fn put_decimal(text: &mut Text<'_>, negative: bool, number: u64, width: usize) {
    if number < GROUP && width <= 8 && !negative {
        put_eight(text, decimal(number), width);
    } else {
        put_long_decimal(text, negative, number, width);
    }
}

fn put_long_decimal(text: &mut Text<'_>, negative: bool, number: u64, width: usize) {
    let groups = [number / GROUP / GROUP, number / GROUP % GROUP, number % GROUP];
    text.push_number(negative, groups.map(|group| decimal(group).to_le_bytes()).as_flattened(), width);
}

#[inline]
fn put_hexadecimal(text: &mut Text<'_>, number: u64, ten: u8, width: usize) {
    if number >> 32 == 0 && width <= 8 {
        put_eight(text, hexadecimal(number, ten), width);
    } else {
        put_long_hexadecimal(text, number, ten, width);
    }
}

fn put_long_hexadecimal(text: &mut Text<'_>, number: u64, ten: u8, width: usize) {
    let halves = [number >> 32, number & 0xffff_ffff];
    text.push_number(false, halves.map(|half| hexadecimal(half, ten).to_le_bytes()).as_flattened(), width);
}

/// Writes a number from a word with its eight digits, the first in the lowest byte: without leading
/// zeros, but with at least `least` (up to eight) digits.
fn put_eight(text: &mut Text<'_>, digits: u64, least: usize) {
    let leading_zeros = ((digits ^ ZEROS).trailing_zeros() / 8) as usize;
    let first = leading_zeros.min(8 - least.clamp(1, 8));
    text.bytes.extend_from_slice(&digits.to_le_bytes()[first..]);
}

macro_rules! numbers {
    ($($types:ident)+: $self:ident, $parts:expr, $bits:expr) => {$(
        impl Number for $types {
            // For one of the types it is none.
            #[allow(clippy::unnecessary_cast)]
            #[inline]
            fn parts(&$self) -> Option<(bool, u64)> {
                $parts
            }

            #[allow(clippy::unnecessary_cast)]
            #[inline]
            fn bits(&$self) -> Option<u64> {
                $bits
            }
        }
    )+};
}

numbers!(i8 i16 i32 i64 isize: self, Some((*self < 0, self.unsigned_abs() as u64)), Some(self.cast_unsigned() as u64));
numbers!(u8 u16 u32 u64 usize: self, Some((false, *self as u64)), Some(*self as u64));
numbers!(i128 u128 f32 f64: self, None, None);

impl<T: Number + ?Sized> Number for &T {
    #[inline]
    fn parts(&self) -> Option<(bool, u64)> {
        (**self).parts()
    }

    #[inline]
    fn bits(&self) -> Option<u64> {
        (**self).bits()
    }
}
