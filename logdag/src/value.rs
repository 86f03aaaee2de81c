//! The values of keys.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A number with a fraction.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// A key without a value.
    Null,
    /// A UUID.
    Uuid([u8; 16]),
    /// Any other JSON value, as written: an array, an object, or a number or text that no other
    /// variant can hold.
    Json(Json<'a>),
}

impl Value<'_> {
    /// The value as a number, if it is one.
    pub(crate) fn as_number(self) -> Option<f64> {
        match self {
            Value::I64(n) => Some(n as f64),
            Value::U64(n) => Some(n as f64),
            Value::F64(n) => Some(n),
            // A number with more digits than the other types can hold.
            Value::Json(json) => json.as_str().parse().ok(),
            Value::Str(_) | Value::Bool(_) | Value::Null | Value::Uuid(_) => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(text) => f.write_str(text),
            Value::I64(n) => n.fmt(f),
            Value::U64(n) => n.fmt(f),
            Value::F64(n) => n.fmt(f),
            Value::Bool(b) => b.fmt(f),
            Value::Null => f.write_str("null"),
            Value::Uuid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
            Value::Json(json) => f.write_str(json.as_str()),
        }
    }
}

/// A text that is one JSON value.
///
/// ```
/// use logdag::{Json, Value};
///
/// let tags = Json::new(r#"["a", {"b": 1}]"#).ok_or("JSON")?;
/// assert_eq!(Value::Json(tags).to_string(), r#"["a", {"b": 1}]"#);
/// assert_eq!(Json::new("[1,"), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// The text, if it is one JSON value; white space around it is removed.
    pub fn new(text: &'a str) -> Option<Self> {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        Some(Self(raw.get()))
    }

    /// A text that is known to be JSON.
    pub(crate) fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The value as a JSON text on one line.
    pub(crate) fn on_one_line(self) -> Cow<'a, str> {
        // Between the parts of JSON, line ends are white space, and within texts they are escaped.
        if memchr::memchr2(b'\n', b'\r', self.0.as_bytes()).is_some() {
            Cow::Owned(self.0.replace(['\n', '\r'], " "))
        } else {
            Cow::Borrowed(self.0)
        }
    }
}

/// A value that was read from a JSON text, owned if it had to be decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed<'a> {
    Text(Cow<'a, str>),
    Other(Value<'a>),
}

impl<'a> Parsed<'a> {
    /// The value of a JSON text.
    pub(crate) fn of(raw: &'a RawValue) -> Self {
        let text = raw.get();
        Parsed::Other(match text.as_bytes().first() {
            // Half a surrogate pair is valid JSON, but not text: it stays as it was written.
            Some(b'"') => match decoded(text) {
                Some(decoded) => return Parsed::Text(decoded),
                None => Value::Json(Json::trusted(text)),
            },
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') => Value::Null,
            Some(b'[' | b'{') | None => Value::Json(Json::trusted(text)),
            Some(_) => number(text),
        })
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Parsed::Text(text) => Value::Str(text),
            Parsed::Other(value) => *value,
        }
    }
}

/// The members of a JSON object, in its order.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The name of a member.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// The contents of a JSON string, if they are text.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    match text.get(1..text.len().saturating_sub(1)) {
        Some(inside) if memchr::memchr(b'\\', inside.as_bytes()).is_none() => Some(Cow::Borrowed(inside)),
        _ => serde_json::from_str(text).ok().map(Cow::Owned),
    }
}

/// A JSON number; as it was written if no other type can hold exactly this number.
fn number(text: &str) -> Value<'_> {
    if text == "-0" {
        // No integer has this sign, and a float would come out as -0.0.
        return Value::Json(Json::trusted(text));
    }
    if !text.contains(['.', 'e', 'E']) {
        let signed = text.parse().map(Value::I64);
        return signed.or_else(|_| text.parse().map(Value::U64)).unwrap_or(Value::Json(Json::trusted(text)));
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && decimal(&format!("{n:e}")) == decimal(text) => Value::F64(n),
        _ => Value::Json(Json::trusted(text)),
    }
}

/// A decimal number's sign, digits without zeros around them, and the exponent of the first one;
/// `None` if the exponent is too large to parse.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse::<i32>().ok()?.into();
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let zeros = all.bytes().take_while(|&byte| byte == b'0').count();
    let digits = all.trim_matches('0').to_owned();
    let first = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
    let exponent = if digits.is_empty() { 0 } else { exponent + first };
    Some((negative, digits, exponent))
}

/// A value that outlives the call that logged it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnedValue {
    Str(String),
    Json(String),
    /// A value without a text.
    Plain(Value<'static>),
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Str(text) => OwnedValue::Str(text.to_owned()),
            Value::Json(json) => OwnedValue::Json(json.as_str().to_owned()),
            Value::I64(n) => OwnedValue::Plain(Value::I64(n)),
            Value::U64(n) => OwnedValue::Plain(Value::U64(n)),
            Value::F64(n) => OwnedValue::Plain(Value::F64(n)),
            Value::Bool(b) => OwnedValue::Plain(Value::Bool(b)),
            Value::Null => OwnedValue::Plain(Value::Null),
            Value::Uuid(bytes) => OwnedValue::Plain(Value::Uuid(bytes)),
        }
    }
}

impl OwnedValue {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            OwnedValue::Str(text) => Value::Str(text),
            OwnedValue::Json(text) => Value::Json(Json::trusted(text)),
            OwnedValue::Plain(value) => *value,
        }
    }

    /// An integer of any size.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn of_integer(n: i128) -> Self {
        if let Ok(n) = i64::try_from(n) {
            OwnedValue::Plain(Value::I64(n))
        } else if let Ok(n) = u64::try_from(n) {
            OwnedValue::Plain(Value::U64(n))
        } else {
            OwnedValue::Json(n.to_string())
        }
    }
}

/// Owned keys in the form that a line has.
pub(crate) fn borrowed<K: AsRef<str>>(keys: &[(K, OwnedValue)]) -> Vec<(&str, Value<'_>)> {
    keys.iter().map(|(key, value)| (key.as_ref(), value.value())).collect()
}

macro_rules! from {
    ($($from:ty => $variant:ident as $to:ty),* $(,)?) => {$(
        impl From<$from> for Value<'_> {
            fn from(n: $from) -> Self {
                Value::$variant(<$to>::from(n))
            }
        }
    )*};
}

from!(i8 => I64 as i64, i16 => I64 as i64, i32 => I64 as i64, i64 => I64 as i64,
      u8 => U64 as u64, u16 => U64 as u64, u32 => U64 as u64, u64 => U64 as u64,
      f32 => F64 as f64, f64 => F64 as f64, bool => Bool as bool);

impl From<usize> for Value<'_> {
    fn from(n: usize) -> Self {
        Value::U64(n as u64)
    }
}

impl From<isize> for Value<'_> {
    fn from(n: isize) -> Self {
        Value::I64(n as i64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Str(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Str(text)
    }
}

impl From<[u8; 16]> for Value<'_> {
    fn from(uuid: [u8; 16]) -> Self {
        Value::Uuid(uuid)
    }
}

impl<'a> From<Json<'a>> for Value<'a> {
    fn from(json: Json<'a>) -> Self {
        Value::Json(json)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_that_is_exactly_it_or_stays_as_it_was_written() {
        let raw = |text: &'static str| Value::Json(Json::trusted(text));
        for (text, expected) in [
            ("0", Value::I64(0)),
            ("-0", raw("-0")),
            ("-0.0", Value::F64(-0.0)),
            ("-5", Value::I64(-5)),
            ("9223372036854775808", Value::U64(1 << 63)),
            ("18446744073709551616", raw("18446744073709551616")),
            ("-9223372036854775809", raw("-9223372036854775809")),
            ("1.5", Value::F64(1.5)),
            ("1.50", Value::F64(1.5)),
            ("1e3", Value::F64(1000.0)),
            ("0.001", Value::F64(0.001)),
            ("0.0", Value::F64(0.0)),
            ("1e400", raw("1e400")),
            ("1e-400", raw("1e-400")),
            ("1e99999999999", raw("1e99999999999")),
            ("0.1000000000000000055511151231257827", raw("0.1000000000000000055511151231257827")),
            ("12345678901234567890.5", raw("12345678901234567890.5")),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(number("-0").as_number().map(f64::is_sign_negative), Some(true));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for wrong in ["", "[", "{\"a\":}", "1 2", "nul", "'a'"] {
            assert_eq!(Json::new(wrong), None, "{wrong}");
        }
        assert_eq!(Json::new(" 1e400 ").map(Json::as_str), Some("1e400"));
    }
}
