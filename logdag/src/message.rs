//! Messages before they are text.
//!
//! [`log!`](crate::log!) makes a [`Message`] of its format string and arguments. Text, characters and whole numbers are
//! written by what stands here, in a third of the time that `std::fmt` takes; everything else goes through that. The
//! result is the same.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

#[doc(hidden)]
pub use logdag_macros::message;

/// Something that can be written as text, as often as it is asked to.
pub trait Message {
    /// Writes it.
    ///
    /// # Errors
    /// A part of it cannot be formatted. What was written before that stays.
    fn write_to(&self, text: &mut Text<'_>) -> fmt::Result;

    /// The same, where it is text already.
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
    /// Somebody wants to know whether there are line ends.
    looks: bool,
    has_line_ends: bool,
}

impl<'a> Text<'a> {
    /// What is written goes to the end of this.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, looks: false, has_line_ends: false }
    }

    /// The same; it is known then [whether there are line ends](Self::has_line_ends) in what was written. They are looked
    /// for in what comes, as what was only just written cannot be read at once.
    pub(crate) fn that_looks_for_line_ends(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, looks: true, has_line_ends: false }
    }

    pub(crate) fn has_line_ends(&self) -> bool {
        self.has_line_ends
    }

    /// Appends this.
    #[inline]
    pub fn push(&mut self, text: &str) {
        if self.looks {
            self.has_line_ends |= memchr::memchr(b'\n', text.as_bytes()).is_some();
        }
        self.push_within_line(text);
    }

    /// Appends this, in which there is no line end.
    #[doc(hidden)]
    #[inline]
    pub fn push_within_line(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Appends a number: these digits but for zeros before them, with a sign where it is negative, and zeros or blanks up to a
    /// width.
    fn push_number(&mut self, negative: bool, digits: &[u8], spec: Spec) {
        let leading_zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        let digits = &digits[leading_zeros.min(digits.len() - 1)..];
        let missing = spec.width.saturating_sub(digits.len() + usize::from(negative));
        if negative && spec.zeros {
            self.bytes.push(b'-');
        }
        self.bytes.resize(self.bytes.len() + missing, if spec.zeros { b'0' } else { b' ' });
        if negative && !spec.zeros {
            self.bytes.push(b'-');
        }
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
        // Zeros and blanks before numbers come one by one.
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => {
                self.has_line_ends |= byte == b'\n';
                self.bytes.push(byte);
            }
            _ => self.push(c.encode_utf8(&mut [0; 4])),
        }
        Ok(())
    }
}

/// What `log!` makes of a format string and its arguments.
#[doc(hidden)]
pub struct Formatted<F>(F);

impl<F: Fn(&mut Text<'_>) -> fmt::Result> Formatted<F> {
    #[inline]
    pub fn new(write: F) -> Self {
        Self(write)
    }
}

impl<F> fmt::Debug for Formatted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Formatted")
    }
}

impl<F: Fn(&mut Text<'_>) -> fmt::Result> Message for Formatted<F> {
    fn write_to(&self, text: &mut Text<'_>) -> fmt::Result {
        (self.0)(text)
    }
}

/// An argument of a format string. The methods of [`PutText`] and [`PutNumber`] are found where its type has them; behind a
/// further reference are those that take everything. Traits of the caller may have methods for every type, too: hence the
/// names.
#[doc(hidden)]
#[derive(Debug)]
pub struct Argument<'a, T: ?Sized>(pub &'a T);

/// What is written without `std::fmt`, as `{}` writes it.
#[doc(hidden)]
pub trait Plain {
    fn put(&self, text: &mut Text<'_>);
}

/// Whole numbers.
#[doc(hidden)]
pub trait Number: Plain {
    /// Whether it is negative, and how far from zero.
    fn parts(&self) -> (bool, u64);
    /// Its bits, as it has them.
    fn bits(&self) -> u64;
}

/// The digits of a number.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digits {
    Decimal,
    LowerHex,
    UpperHex,
}

/// How a whole number is written.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    digits: Digits,
    width: usize,
    zeros: bool,
}

impl Spec {
    const PLAIN: Self = Self::new(Digits::Decimal, 0, false);

    #[inline]
    pub const fn new(digits: Digits, width: usize, zeros: bool) -> Self {
        Self { digits, width, zeros }
    }

    /// How many of eight digits are written at least, where that and zeros before them are all there is to it.
    #[inline]
    const fn least_of_eight(self) -> Option<usize> {
        match self.width {
            0 | 1 => Some(1),
            2..=8 if self.zeros => Some(self.width),
            _ => None,
        }
    }
}

#[doc(hidden)]
pub trait PutText {
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

#[doc(hidden)]
pub trait PutNumber {
    fn logdag_put_number(
        &self,
        text: &mut Text<'_>,
        spec: Spec,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

#[doc(hidden)]
pub trait PutAnything {
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;

    fn logdag_put_number(
        &self,
        text: &mut Text<'_>,
        spec: Spec,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

impl<T: Plain + ?Sized> PutText for Argument<'_, T> {
    #[inline]
    fn logdag_put(&self, text: &mut Text<'_>, _: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> fmt::Result {
        self.0.put(text);
        Ok(())
    }
}

impl<T: Number + ?Sized> PutNumber for Argument<'_, T> {
    #[inline]
    fn logdag_put_number(
        &self,
        text: &mut Text<'_>,
        spec: Spec,
        _: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        match spec.digits {
            Digits::Decimal => {
                let (negative, number) = self.0.parts();
                put_decimal(text, negative, number, spec);
            }
            Digits::LowerHex => put_hexadecimal(text, self.0.bits(), u64::from(b'a' - b'9' - 1), spec),
            Digits::UpperHex => put_hexadecimal(text, self.0.bits(), u64::from(b'A' - b'9' - 1), spec),
        }
        Ok(())
    }
}

impl<T: ?Sized> PutAnything for &Argument<'_, T> {
    #[inline]
    fn logdag_put(
        &self,
        text: &mut Text<'_>,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        otherwise(text)
    }

    #[inline]
    fn logdag_put_number(
        &self,
        text: &mut Text<'_>,
        _: Spec,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        otherwise(text)
    }
}

/// `0` eight times, one in each byte.
const ZEROS: u64 = 0x3030_3030_3030_3030;
/// Eight decimal digits are enough for what is below this.
const GROUP: u64 = 100_000_000;

/// The eight digits of a number below 10^8, the first in the lowest byte. In one word, numbers side by side are split into
/// their halves, three times; digits that are computed in a register and stored at once are there to be copied at once, unlike
/// bytes stored one by one. Both are from Paul Khuong, "How to print integers really fast" (2017).
const fn decimal(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    (tens | ((twos - tens * 10) << 8)) | ZEROS
}

/// The eight digits of a number below 2^32, likewise; `letters` is how much further `a` or `A` is from `9` than a digit
/// would be.
const fn hexadecimal(number: u64, letters: u64) -> u64 {
    let fours = (number | (number << 16)) & 0x0000_ffff_0000_ffff;
    let twos = (fours | (fours << 8)) & 0x00ff_00ff_00ff_00ff;
    let ones = (twos | (twos << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = ((ones + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (ones + ZEROS + above_nine * letters).swap_bytes()
}

#[inline]
fn put_decimal(text: &mut Text<'_>, negative: bool, number: u64, spec: Spec) {
    match spec.least_of_eight() {
        Some(least) if number < GROUP && !negative => put_eight(text, decimal(number), least),
        _ => put_long_decimal(text, negative, number, spec),
    }
}

fn put_long_decimal(text: &mut Text<'_>, negative: bool, number: u64, spec: Spec) {
    let groups = [number / GROUP / GROUP, number / GROUP % GROUP, number % GROUP];
    text.push_number(negative, groups.map(|group| decimal(group).to_le_bytes()).as_flattened(), spec);
}

#[inline]
fn put_hexadecimal(text: &mut Text<'_>, number: u64, letters: u64, spec: Spec) {
    match spec.least_of_eight() {
        Some(least) if number >> 32 == 0 => put_eight(text, hexadecimal(number, letters), least),
        _ => put_long_hexadecimal(text, number, letters, spec),
    }
}

fn put_long_hexadecimal(text: &mut Text<'_>, number: u64, letters: u64, spec: Spec) {
    let halves = [number >> 32, number & 0xffff_ffff];
    text.push_number(false, halves.map(|half| hexadecimal(half, letters).to_le_bytes()).as_flattened(), spec);
}

/// Writes a number of eight digits, which stand in a word from the lowest byte on: without zeros before it, but so many
/// digits at least.
fn put_eight(text: &mut Text<'_>, digits: u64, least: usize) {
    let leading_zeros = ((digits ^ ZEROS).trailing_zeros() / 8) as usize;
    let first = leading_zeros.min(8 - least);
    text.bytes.extend_from_slice(&digits.to_le_bytes()[first..]);
}

macro_rules! numbers {
    ($($types:ident)+: $self:ident, $parts:expr, $bits:expr) => {$(
        impl Plain for $types {
            #[inline]
            fn put(&self, text: &mut Text<'_>) {
                let (negative, number) = self.parts();
                put_decimal(text, negative, number, Spec::PLAIN);
            }
        }

        impl Number for $types {
            // For one of the types it is none.
            #[allow(clippy::unnecessary_cast)]
            #[inline]
            fn parts(&$self) -> (bool, u64) {
                $parts
            }

            #[allow(clippy::unnecessary_cast)]
            #[inline]
            fn bits(&$self) -> u64 {
                $bits as u64
            }
        }
    )+};
}

numbers!(i8 i16 i32 i64 isize: self, (*self < 0, self.unsigned_abs() as u64), self.cast_unsigned());
numbers!(u8 u16 u32 u64 usize: self, (false, *self as u64), *self);

macro_rules! plain_texts {
    ($($text:ty),*) => {$(
        impl Plain for $text {
            #[inline]
            fn put(&self, text: &mut Text<'_>) {
                text.push(self);
            }
        }
    )*};
}

plain_texts!(str, String, Box<str>, Cow<'_, str>);

impl Plain for char {
    #[inline]
    fn put(&self, text: &mut Text<'_>) {
        text.push(self.encode_utf8(&mut [0; 4]));
    }
}

impl Plain for bool {
    #[inline]
    fn put(&self, text: &mut Text<'_>) {
        text.push(if *self { "true" } else { "false" });
    }
}

impl<T: Plain + ?Sized> Plain for &T {
    #[inline]
    fn put(&self, text: &mut Text<'_>) {
        (**self).put(text);
    }
}

impl<T: Number + ?Sized> Number for &T {
    #[inline]
    fn parts(&self) -> (bool, u64) {
        (**self).parts()
    }

    #[inline]
    fn bits(&self) -> u64 {
        (**self).bits()
    }
}
