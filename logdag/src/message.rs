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
pub struct Text<'a>(&'a mut Vec<u8>);

impl<'a> Text<'a> {
    /// What is written goes to the end of this.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends this.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Appends a whole number, with a sign where it is negative, and with zeros or blanks before it up to a width.
    #[inline]
    fn push_number(&mut self, negative: bool, digits: &[u8], width: usize, zeros: bool) {
        let missing = width.saturating_sub(digits.len() + usize::from(negative));
        let len = self.0.len();
        if zeros {
            if negative {
                self.0.push(b'-');
            }
            self.0.resize(len + usize::from(negative) + missing, b'0');
        } else {
            self.0.resize(len + missing, b' ');
            if negative {
                self.0.push(b'-');
            }
        }
        self.0.extend_from_slice(digits);
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
            Ok(byte) if byte.is_ascii() => self.0.push(byte),
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

/// An argument of a format string. Its own methods are found where its type has them; behind a further reference are those that
/// take everything.
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

#[doc(hidden)]
pub trait PutText {
    fn put(&self, text: &mut Text<'_>, otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> fmt::Result;
}

#[doc(hidden)]
pub trait PutNumber {
    fn put_number(
        &self,
        text: &mut Text<'_>,
        digits: Digits,
        width: usize,
        zeros: bool,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

#[doc(hidden)]
pub trait PutAnything {
    fn put(&self, text: &mut Text<'_>, otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> fmt::Result;

    fn put_number(
        &self,
        text: &mut Text<'_>,
        digits: Digits,
        width: usize,
        zeros: bool,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result;
}

impl<T: Plain + ?Sized> PutText for Argument<'_, T> {
    #[inline]
    fn put(&self, text: &mut Text<'_>, _: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> fmt::Result {
        self.0.put(text);
        Ok(())
    }
}

impl<T: Number + ?Sized> PutNumber for Argument<'_, T> {
    #[inline]
    fn put_number(
        &self,
        text: &mut Text<'_>,
        digits: Digits,
        width: usize,
        zeros: bool,
        _: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        match digits {
            Digits::Decimal => {
                let (negative, number) = self.0.parts();
                put_decimal(text, negative, number, width, zeros);
            }
            Digits::LowerHex => put_hex(text, self.0.bits(), b"0123456789abcdef", width, zeros),
            Digits::UpperHex => put_hex(text, self.0.bits(), b"0123456789ABCDEF", width, zeros),
        }
        Ok(())
    }
}

impl<T: ?Sized> PutAnything for &Argument<'_, T> {
    #[inline]
    fn put(&self, text: &mut Text<'_>, otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> fmt::Result {
        otherwise(text)
    }

    #[inline]
    fn put_number(
        &self,
        text: &mut Text<'_>,
        _: Digits,
        _: usize,
        _: bool,
        otherwise: impl FnOnce(&mut Text<'_>) -> fmt::Result,
    ) -> fmt::Result {
        otherwise(text)
    }
}

fn put_decimal(text: &mut Text<'_>, negative: bool, number: u64, width: usize, zeros: bool) {
    text.push_number(negative, itoa::Buffer::new().format(number).as_bytes(), width, zeros);
}

fn put_hex(text: &mut Text<'_>, number: u64, digits: &[u8; 16], width: usize, zeros: bool) {
    let mut all = [b'0'; 16];
    let mut rest = number;
    let mut first = all.len();
    while rest != 0 || first == all.len() {
        first -= 1;
        all[first] = digits[(rest & 0xf) as usize];
        rest >>= 4;
    }
    text.push_number(false, &all[first..], width, zeros);
}

macro_rules! numbers {
    ($($types:ident)+: $self:ident, $parts:expr, $bits:expr) => {$(
        impl Plain for $types {
            #[inline]
            fn put(&self, text: &mut Text<'_>) {
                text.push(itoa::Buffer::new().format(*self));
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
