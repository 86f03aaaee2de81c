//! Expressions over the fields of a line.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::nested;
use crate::level::{Level, Threshold};
use crate::pattern::Pattern;
use crate::record::Record;
use crate::suggest::nearly;
use crate::value::{Parsed, Value};

#[derive(Clone, Debug)]
pub(super) enum Expression {
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Exists(Field),
    Level(Operator, Level),
    Compare(Field, Operator, Operand),
    Match(Field, bool, Pattern),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Timestamp,
    Facility,
    ThreadId,
    ThreadName,
    File,
    Line,
    Message,
    Level,
    Key(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Text(String),
    Int(i64),
    Float(f64),
}

impl Expression {
    pub(super) fn doubts(&self, doubts: &mut Vec<String>) {
        let field = match self {
            Expression::Not(inner) => return inner.doubts(doubts),
            Expression::And(all) | Expression::Or(all) => {
                return all.iter().for_each(|inner| inner.doubts(doubts));
            }
            Expression::Compare(field, _, Operand::Text(text))
                if field.is_number() && number_in(text).is_none() =>
            {
                doubts.push(format!("{} is a number, and never {text:?}", field.name()));
                return;
            }
            Expression::Match(Field::Level, _, pattern)
                if !Level::ALL.iter().any(|level| pattern.matches(level.name())) =>
            {
                let names: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
                return doubts.push(format!("no level matches: their names are {}", names.join(", ")));
            }
            Expression::Exists(field) | Expression::Compare(field, ..) | Expression::Match(field, ..) => {
                field
            }
            Expression::Level(Operator::Greater, Level::Error) => {
                return doubts.push("no level is above error".to_owned());
            }
            Expression::Level(Operator::Less, Level::Trace) => {
                return doubts.push("no level is below trace".to_owned());
            }
            Expression::Level(..) => return,
        };
        if let Field::Key(name) = field
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            && let Some(meant) = near_to_field(name)
        {
            doubts.push(format!("no line has {name} unless it is one of its keys: did you mean {meant}?"));
        }
    }
}

/// The field that a key is one letter away from, if it is not a likely name for a key itself.
fn near_to_field(name: &str) -> Option<&'static str> {
    let long = ["timestamp", "facility", "threadid", "threadname", "message", "level"];
    // Plurals are words in their own right.
    let meant = nearly(name, &long).filter(|meant| name != format!("{meant}s"));
    // Another letter turns most short words into other words (link, live, time). Here, a letter is
    // missing or doubled, or two are swapped.
    meant.or_else(|| {
        let name = name.to_ascii_lowercase();
        ["file", "line"].into_iter().find(|field| {
            let slips = (0..field.len()).flat_map(|at| {
                let (before, rest) = field.split_at(at);
                let (letter, after) = rest.split_at(1);
                let (next, end) = after.split_at(after.len().min(1));
                [
                    format!("{before}{after}"),
                    format!("{before}{letter}{rest}"),
                    format!("{before}{next}{letter}{end}"),
                ]
            });
            slips.into_iter().any(|slip| slip == name)
        })
    })
}

impl Field {
    /// Whether its values are numbers in every line.
    fn is_number(&self) -> bool {
        matches!(self, Field::Timestamp | Field::ThreadId | Field::Line)
    }

    fn name(&self) -> &str {
        match self {
            Field::Timestamp => "timestamp",
            Field::Facility => "facility",
            Field::ThreadId => "threadid",
            Field::ThreadName => "threadname",
            Field::File => "file",
            Field::Line => "line",
            Field::Message => "message",
            Field::Level => "level",
            Field::Key(key) => key,
        }
    }

    pub(super) fn of(name: &str) -> Self {
        match name {
            "timestamp" => Field::Timestamp,
            "facility" => Field::Facility,
            "threadid" => Field::ThreadId,
            "threadname" => Field::ThreadName,
            "file" => Field::File,
            "line" => Field::Line,
            "message" => Field::Message,
            "level" => Field::Level,
            key => Field::Key(key.to_owned()),
        }
    }

    /// Calls with the field's value, if there is one.
    fn with_value<R>(&self, record: &Record<'_>, work: impl FnOnce(Option<Value<'_>>) -> R) -> R {
        let nested;
        let value = match self {
            Field::Timestamp => Some(Value::U64(record.micros())),
            Field::Facility => Some(Value::Str(record.facility)),
            Field::ThreadId => Some(Value::U64(record.thread_id().into())),
            Field::ThreadName => Some(Value::Str(record.thread_name())),
            Field::File => Some(Value::Str(record.location.file)),
            Field::Line => Some(Value::U64(record.location.line.into())),
            Field::Message => Some(Value::Str(record.message())),
            Field::Level => Some(Value::Str(record.level.name())),
            // If there are several, the last one counts, as in JSON.
            Field::Key(key) => match record.keys.iter().rev().find(|(name, _)| name == key) {
                Some((_, value)) => Some(*value),
                None if key.contains('.') => {
                    nested = nested::find(record.keys, key);
                    nested.as_ref().map(Parsed::value)
                }
                None => None,
            },
        };
        work(value)
    }
}

impl Expression {
    pub(super) fn needs_message(&self) -> bool {
        match self {
            Expression::Not(inner) => inner.needs_message(),
            Expression::And(all) | Expression::Or(all) => all.iter().any(Expression::needs_message),
            Expression::Exists(_) | Expression::Level(..) => false,
            Expression::Compare(field, ..) | Expression::Match(field, ..) => *field == Field::Message,
        }
    }

    pub(super) fn holds(&self, record: &Record<'_>) -> bool {
        match self {
            Expression::Not(inner) => !inner.holds(record),
            Expression::And(all) => all.iter().all(|inner| inner.holds(record)),
            Expression::Or(all) => all.iter().any(|inner| inner.holds(record)),
            // Every line has one, and it need not be formatted for this.
            Expression::Exists(Field::Message) => true,
            Expression::Exists(field) => field.with_value(record, |value| value.is_some()),
            Expression::Level(operator, level) => operator.holds(Some(record.level.cmp(level))),
            Expression::Compare(field, operator, operand) => field.with_value(record, |value| match value {
                None => *operator == Operator::NotEqual,
                Some(value) => compare(value, operand).is_some_and(|order| operator.holds(order)),
            }),
            Expression::Match(field, wanted, pattern) => field.with_value(record, |value| match value {
                None => !wanted,
                Some(value) => pattern.matches(&text_of(value)) == *wanted,
            }),
        }
    }

    pub(super) fn threshold(&self) -> Threshold {
        let of_level = |level: Level| Threshold::from(level);
        match self {
            Expression::Level(Operator::GreaterOrEqual | Operator::Equal, level) => of_level(*level),
            Expression::Level(Operator::Greater, level) => of_level(*level).above(),
            Expression::And(all) => all.iter().map(Self::threshold).max().unwrap_or(Threshold::ALL),
            Expression::Or(all) => all.iter().map(Self::threshold).min().unwrap_or(Threshold::ALL),
            _ => Threshold::ALL,
        }
    }
}

impl Operator {
    /// Whether the operator holds for two values in this order; `None` if one is NaN: they are not
    /// equal then.
    pub(super) fn holds(self, order: Option<Ordering>) -> bool {
        let Some(order) = order else { return self == Operator::NotEqual };
        match self {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A value as text: integers in full, others as with printf's `%g`.
fn text_of(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::F64(n) => Cow::Owned(general(n)),
        other => Cow::Owned(other.to_string()),
    }
}

/// A number as with printf's `%g`: six significant digits, no trailing zeros.
pub(super) fn general(n: f64) -> String {
    if !n.is_finite() {
        return if n.is_nan() {
            "nan"
        } else if n > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    if n == 0.0 {
        return if n.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{n:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
        text.to_owned()
    };
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return trim(&format!("{n:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(digits), exponent.abs())
}

/// Parses a text that is completely a number.
fn number_in(text: &str) -> Option<Operand> {
    let (operand, rest) = number(text)?;
    rest.is_empty().then_some(operand)
}

/// The order of a value and an operand; `Some(None)` if one is NaN; `None` if they cannot be
/// compared.
fn compare(value: Value<'_>, operand: &Operand) -> Option<Option<Ordering>> {
    let left = match (value, operand) {
        (value, Operand::Text(text)) => return Some(Some(text_of(value).as_bytes().cmp(text.as_bytes()))),
        (Value::Str(text), _) => number_in(text)?,
        (Value::I64(n), _) => Operand::Int(n),
        (Value::U64(n), _) => i64::try_from(n).map_or(Operand::Float(n as f64), Operand::Int),
        (Value::F64(n), _) => Operand::Float(n),
        // A number that no other type can hold; no other JSON value begins like one.
        (Value::Json(json), _) => number_in(json.as_str())?,
        (Value::Uuid(_) | Value::Bool(_) | Value::Null, _) => return None,
    };
    let float = |operand: &Operand| match operand {
        Operand::Int(n) => *n as f64,
        Operand::Float(n) => *n,
        Operand::Text(_) => f64::NAN,
    };
    match (&left, operand) {
        (Operand::Int(a), Operand::Int(b)) => Some(Some(a.cmp(b))),
        (a, b) => Some(float(a).partial_cmp(&float(b))),
    }
}

/// A number at the beginning of a text, and what follows it.
pub(super) fn number(text: &str) -> Option<(Operand, &str)> {
    let digits = |from: usize| {
        from + text.get(from..).unwrap_or_default().bytes().take_while(u8::is_ascii_digit).count()
    };
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let start = usize::from(matches!(byte(0), Some(b'+' | b'-')));
    let mut end = digits(start);
    if end == start {
        return None;
    }
    let mut float = false;
    if byte(end) == Some(b'.') && digits(end + 1) > end + 1 {
        end = digits(end + 1);
        float = true;
    }
    if matches!(byte(end), Some(b'e' | b'E')) {
        let from = end + 1 + usize::from(matches!(byte(end + 1), Some(b'+' | b'-')));
        if digits(from) > from {
            end = digits(from);
            float = true;
        }
    }
    let (number, rest) = text.split_at(end);
    let int = (!float).then(|| number.trim_start_matches('+').parse().ok()).flatten().map(Operand::Int);
    let operand = match int {
        Some(int) => int,
        // This includes integers that are too large.
        None => Operand::Float(number.parse().ok()?),
    };
    Some((operand, rest))
}
