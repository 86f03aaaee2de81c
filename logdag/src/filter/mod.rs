//! Filters on edges: an expression over the fields of a line.
//!
//! ```text
//! EXPR  := PRED | not(EXPR) | and(EXPR, ...) | or(EXPR, ...)
//! PRED  := FIELD OP VALUE | exists(FIELD)
//! OP    := = != ~ !~ < <= > >=
//! ```
//! Fields are timestamp (microseconds), facility, threadid, threadname, file, line, message, level,
//! and any key. A quoted value is compared as text, bytewise; a number as a number; `~` takes
//! regular expressions of PCRE2, matched on bytes as in libmtev (`\w`, `.` and `(?i)` apply to
//! ASCII unless the expression begins with `(?u)`); a match that takes too long counts as none. A
//! missing field makes `!=` and `!~` true, everything else false.
//!
//! Levels have an order: `level >= 'warn'` is true for warnings and errors. A filter names them as
//! loggers do (`warn`, `WARNING`, `fatal`, …: [`Level::from_name`](crate::Level::from_name)), or
//! with pino's numbers (`level >= 40`).
//!
//! A dotted name that is not a key reaches into keys with JSON values: `user.name = 'x'`,
//! `items.0.price > 5`.

mod expression;
mod gate;
mod nested;
mod parse;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::level::{Level, Threshold};
use crate::record::Record;

use expression::{Expression, Operator};
use gate::Gate;
pub(crate) use gate::LeftOut;
pub use gate::{Limit, LimitError};
pub use parse::FilterError;

/// A filter of an outlet: a compiled expression, and limits on the number of lines.
#[derive(Clone)]
pub struct Filter {
    text: String,
    /// The expression without limits; empty if every line passes.
    expression_text: String,
    expression: Expression,
    needs_message: bool,
    gate: Option<Arc<Gate>>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.text)
    }
}

/// The same text is the same filter.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Filter {
    /// Parses an expression.
    ///
    /// # Errors
    /// The column (from 1) and what was expected there.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let expression = parse::parse(text)?;
        let needs_message = expression.needs_message();
        let text = text.to_owned();
        Ok(Self { expression_text: text.clone(), text, expression, needs_message, gate: None })
    }

    /// A filter that lets every line pass, as a base for limits.
    pub fn all() -> Self {
        Self {
            text: String::new(),
            expression_text: String::new(),
            expression: Expression::And(Vec::new()),
            needs_message: false,
            gate: None,
        }
    }

    /// Adds a limit on the lines that pass per time. Lines that it leaves out are counted, and
    /// reported in a separate line to the outlet's target: before the next line that passes, and
    /// when the graph is flushed. Clones share the limit.
    #[must_use]
    pub fn with_limit(self, limit: Limit) -> Self {
        let sample = self.gate.as_ref().map_or(0, |gate| gate.sample);
        self.with_gate(Gate::new(Some(limit), sample), &format!("limit {limit}"))
    }

    /// Lets only one in `n` lines pass, beginning with the first. Lines that it leaves out are
    /// counted. A limit applies to the lines of the sample. Clones share the counter.
    #[must_use]
    pub fn with_sample(self, one_of: NonZeroU64) -> Self {
        let limit = self.gate.as_ref().and_then(|gate| gate.limit);
        self.with_gate(Gate::new(limit, one_of.get()), &format!("sample 1/{one_of}"))
    }

    fn with_gate(self, gate: Gate, shown: &str) -> Self {
        let before = if self.text.is_empty() { String::new() } else { self.text + ", " };
        Self { text: before + shown, gate: Some(Arc::new(gate)), ..self }
    }

    /// How many lines its limit and its sample have left out.
    pub fn left_out(&self) -> u64 {
        self.gate.as_ref().map_or(0, |gate| gate.left_out())
    }

    /// The lines that its limit has left out since the last call.
    pub(crate) fn unreported(&self) -> Option<LeftOut> {
        self.gate.as_ref()?.unreported()
    }

    /// The same, if it is time to report it.
    pub(crate) fn unreported_if_due(&self) -> Option<LeftOut> {
        self.gate.as_ref()?.unreported_if_due()
    }

    /// Whether it has a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.limit.is_some())
    }

    /// The original expression, and its limits.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression alone, the limit, and the `n` of the sample; 0 without one.
    pub(crate) fn parts(&self) -> (&str, Option<Limit>, u64) {
        let gate = self.gate.as_ref();
        (&self.expression_text, gate.and_then(|gate| gate.limit), gate.map_or(0, |gate| gate.sample))
    }

    /// Whether it uses the message, which must then be formatted first.
    pub fn needs_message(&self) -> bool {
        self.needs_message
    }

    /// Adds a minimum level.
    #[must_use]
    pub fn with_min_level(self, level: Level) -> Self {
        let least = Self::min_level(level);
        let and = |text: &str| match text {
            "" => least.text.clone(),
            text => format!("and({}, {text})", least.text),
        };
        Self {
            text: and(&self.text),
            expression_text: and(&self.expression_text),
            expression: Expression::And(vec![least.expression, self.expression]),
            needs_message: self.needs_message,
            gate: self.gate,
        }
    }

    /// Lines of a level or more serious ones.
    pub fn min_level(level: Level) -> Self {
        let text = format!("level >= '{level}'");
        Self {
            expression_text: text.clone(),
            text,
            expression: Expression::Level(Operator::GreaterOrEqual, level),
            needs_message: false,
            gate: None,
        }
    }

    /// Less serious lines never pass.
    pub(crate) fn threshold(&self) -> Threshold {
        self.expression.threshold()
    }

    /// Doubts about a valid expression: comparisons of numbers with texts, and names one letter
    /// away from those of fields.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        self.expression.doubts(&mut doubts);
        doubts
    }

    /// Whether a line passes. A line that passes counts for a limit or a sample.
    pub fn passes(&self, record: &Record<'_>) -> bool {
        self.expression.holds(record) && self.gate.as_ref().is_none_or(|gate| gate.passes())
    }
}

#[cfg(test)]
mod tests {
    use super::expression::general;
    use super::*;
    use crate::value::Value;

    fn passes(filter: &str, keys: &[(&str, Value<'_>)]) -> bool {
        let path = "/index.html";
        let arguments = format_args!("GET {path}");
        let mut record = Record::new(1_700_000_000_000_001, "http/access", &arguments);
        record.set_thread(7, "");
        record.location = &crate::Location { file: "main.rs", line: 42 };
        record.keys = keys;
        Filter::parse(filter).unwrap_or_else(|e| panic!("{filter}: {e}")).passes(&record)
    }

    #[test]
    fn fields_and_operators() {
        let keys = [
            ("status", Value::I64(503)),
            ("took", Value::F64(0.25)),
            ("code", Value::Str("0012")),
            ("big", Value::U64(u64::MAX)),
        ];
        for (filter, expected) in [
            ("status >= 500", true),
            ("status<500", false),
            ("status = '503'", true),
            ("status != \"503\"", false),
            ("took = '0.25'", true),
            ("took < 0.3", true),
            ("took < 1", true),
            ("code = 12", true),
            ("code = '12'", false),
            ("big > 9223372036854775807", true),
            ("facility = 'http/access'", true),
            ("'facility' ~ '^http/'", true),
            ("message ~ 'index\\\\.(?=html)'", true),
            ("message !~ 'index'", false),
            ("message ~ '(?i)get'", true),
            ("line = 42", true),
            ("threadid > 6", true),
            ("timestamp > 1700000000000000", true),
            ("exists(status)", true),
            ("exists(nothing)", false),
            ("nothing = 1", false),
            ("nothing != 1", true),
            ("nothing !~ 'x'", true),
            ("nothing ~ 'x'", false),
            ("nothing <= 3", false),
            ("and(status >= 500, or(took > 1, not(exists(nothing))))", true),
            ("not( and( status>=500 , took>1 ) )", true),
            ("message > 5", false),
            ("code < '0013'", true),
            ("code < 'A'", true),
            ("message = 'GET \\57index.html'", true),
        ] {
            assert_eq!(passes(filter, &keys), expected, "{filter}");
        }
    }

    #[test]
    fn doubles_are_printed_as_by_printf() {
        for (n, text) in [
            (0.0, "0"),
            (100.0, "100"),
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (-2.5, "-2.5"),
            (999_999.5, "1e+06"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(general(n), text);
        }
    }

    #[test]
    fn only_the_message_has_to_be_formatted() {
        assert!(!Filter::parse("and(a=1,exists(message))").unwrap().needs_message());
        assert!(Filter::parse("or(a=1,not(message~'x'))").unwrap().needs_message());
    }

    #[test]
    fn mistakes_are_reported_by_column() {
        for (filter, column, expected) in [
            ("", 1, "an expression"),
            ("status", 7, "an operator"),
            ("status = ", 10, "a quoted text or a number"),
            ("status = 5 x", 12, "the end"),
            ("and(a=1", 8, "\",\" or \")\""),
            ("and(a=1,", 9, "an expression"),
            ("a ~ 5", 5, "a quoted regular expression"),
            ("a = 'x", 7, "the closing '"),
            ("a ~ '('", 5, "a regular expression"),
            ("a = 'x\\q'", 8, "an escape"),
            ("exists(", 8, "a field"),
            ("é = 1", 1, "an expression"),
        ] {
            let error = Filter::parse(filter).unwrap_err();
            assert_eq!(error.column, column, "{filter}: {error}");
            assert!(error.expected.contains(expected), "{filter}: {error}");
        }
        let deep = format!("{}a=1{}", "not(".repeat(10_000), ")".repeat(10_000));
        assert!(Filter::parse(&deep).is_err(), "no stack is used up");
    }
}
