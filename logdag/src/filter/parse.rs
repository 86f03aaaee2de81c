//! Parses expressions.

use super::expression::{Expression, Field, Operand, Operator, number};
use crate::level::Level;
use crate::pattern::Pattern;

/// The maximum nesting of expressions.
const MAX_DEPTH: usize = 100;

/// A syntax error in an expression: its place, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct FilterError {
    /// The column in characters, from 1.
    pub column: usize,
    /// What was expected.
    pub expected: String,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, at: 0 };
    let expression = parser.expression(0)?;
    parser.skip_space();
    if parser.rest().is_empty() { Ok(expression) } else { Err(parser.expected("the end of the expression")) }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, what: impl Into<String>) -> FilterError {
        self.expected_at(self.at, what)
    }

    fn expected_at(&self, at: usize, what: impl Into<String>) -> FilterError {
        FilterError { column: self.text[..at].chars().count() + 1, expected: what.into() }
    }

    fn takes(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn identifier(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let first = rest.bytes().next()?;
        if !(first.is_ascii_alphabetic() || first == b'_') {
            return None;
        }
        let len = rest.bytes().take_while(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
        self.at += len;
        Some(&rest[..len])
    }

    fn expression(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.expected(format!("no more than {MAX_DEPTH} levels")));
        }
        self.skip_space();
        let quoted = self.rest().starts_with(['\'', '"']);
        let field = if quoted {
            self.literal()?
        } else {
            match self.identifier() {
                Some(name) => name.to_owned(),
                None => return Err(self.expected("an expression: a field, not(, and(, or( or exists(")),
            }
        };
        if !quoted && matches!(&*field, "not" | "and" | "or" | "exists") && self.takes("(") {
            return self.call(&field, depth);
        }
        self.skip_space();
        self.predicate(Field::of(&field))
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Expression, FilterError> {
        if name == "exists" {
            self.skip_space();
            let field = if self.rest().starts_with(['\'', '"']) {
                self.literal()?
            } else {
                self.identifier().map(str::to_owned).ok_or_else(|| self.expected("a field"))?
            };
            return self.close().map(|()| Expression::Exists(Field::of(&field)));
        }
        let mut all = vec![self.expression(depth + 1)?];
        if name == "not" {
            self.close()?;
            return Ok(Expression::Not(Box::new(all.remove(0))));
        }
        while self.takes(",") {
            all.push(self.expression(depth + 1)?);
        }
        if !self.takes(")") {
            return Err(self.expected("\",\" or \")\""));
        }
        Ok(if name == "and" { Expression::And(all) } else { Expression::Or(all) })
    }

    fn close(&mut self) -> Result<(), FilterError> {
        if self.takes(")") { Ok(()) } else { Err(self.expected("\")\"")) }
    }

    fn predicate(&mut self, field: Field) -> Result<Expression, FilterError> {
        if self.takes("!~") {
            return self.pattern().map(|pattern| Expression::Match(field, false, pattern));
        }
        if self.takes("~") {
            return self.pattern().map(|pattern| Expression::Match(field, true, pattern));
        }
        let operators = [
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let Some((_, operator)) = operators.into_iter().find(|(token, _)| self.takes(token)) else {
            return Err(self.expected("an operator: = != ~ !~ < <= > >="));
        };
        self.skip_space();
        let start = self.at;
        let operand = if self.rest().starts_with(['\'', '"']) {
            Operand::Text(self.literal()?)
        } else {
            let Some((operand, rest)) = number(self.rest()) else {
                return Err(self.expected("a quoted text or a number"));
            };
            self.at = self.text.len() - rest.len();
            operand
        };
        if field == Field::Level {
            return self.level(start, &operand).map(|level| Expression::Level(operator, level));
        }
        Ok(Expression::Compare(field, operator, operand))
    }

    /// The level that an operand names. Syslog's numbers decrease with severity, so they would
    /// mislead here.
    fn level(&self, start: usize, operand: &Operand) -> Result<Level, FilterError> {
        let level = match operand {
            Operand::Text(name) => Level::from_name(name),
            Operand::Int(number) => Level::ALL.into_iter().find(|level| i64::from(level.number()) == *number),
            Operand::Float(_) => None,
        };
        let expected =
            "a level: 'trace', 'debug', 'info', 'warn' or 'error', or one of the numbers 10, 20, 30, 40, 50";
        level.ok_or_else(|| self.expected_at(start, expected))
    }

    fn pattern(&mut self) -> Result<Pattern, FilterError> {
        self.skip_space();
        let start = self.at;
        if !self.rest().starts_with(['\'', '"']) {
            return Err(self.expected("a quoted regular expression"));
        }
        let text = self.literal()?;
        Pattern::new(&text).map_err(|e| self.expected_at(start, format!("a regular expression ({e})")))
    }

    /// A quoted text; the parser is at its first quote.
    fn literal(&mut self) -> Result<String, FilterError> {
        let mut chars = self.rest().char_indices();
        let Some((_, quote)) = chars.next() else { return Err(self.expected("a quoted text")) };
        let start = self.at;
        let mut bytes = Vec::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at = start + at + 1;
                return String::from_utf8(bytes)
                    .map_err(|_| self.expected_at(start, "a text whose escapes give UTF-8"));
            }
            if c != '\\' {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            let wrong = |parser: &Self, at: usize| {
                parser.expected_at(
                    start + at,
                    "an escape: \\a \\b \\e \\f \\n \\r \\t \\v \\' \\\" \\\\ \\- or octal digits",
                )
            };
            let Some((at, escape)) = chars.next() else { return Err(wrong(self, at + 1)) };
            bytes.push(match escape {
                'a' => 7,
                'b' => 8,
                'e' => 27,
                'f' => 12,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 11,
                '\'' | '"' | '\\' | '-' => escape as u8,
                '0'..='7' => {
                    let mut n = escape.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        let Some(digit) = chars.clone().next().and_then(|(_, c)| c.to_digit(8)) else {
                            break;
                        };
                        n = n * 8 + digit;
                        chars.next();
                    }
                    u8::try_from(n).map_err(|_| wrong(self, at))?
                }
                _ => return Err(wrong(self, at)),
            });
        }
        Err(self.expected_at(self.text.len(), format!("the closing {quote}")))
    }
}
