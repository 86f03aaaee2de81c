//! Filters, against a slow interpreter of the grammar.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;

use logdag::{Filter, Location, Record, Value};

use super::{Disk, Input, switches};

/// The names that generated expressions ask for; some are keys of the records, some are fields of
/// every line.
const NAMES: [&str; 16] = [
    "a",
    "b",
    "c",
    "d",
    "e.f",
    "_g",
    "not",
    "exists",
    "ä ",
    "timestamp",
    "facility",
    "threadid",
    "threadname",
    "file",
    "line",
    "message",
];
const TEXTS: [&str; 16] = [
    "",
    "a",
    "100000",
    "0",
    "12",
    "0012",
    "-1.5e+3",
    "99999999999999999999",
    "1e400",
    "nan",
    "inf",
    "0.25",
    "1e+06",
    "ü'\"\\\n",
    "x",
    "00000000-0000-0000-0000-000000000000",
];
const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "+12",
    "12",
    "0.25",
    "-1.5e+3",
    "1e-5",
    "1e+400",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "1e+06",
    "100000.5",
    "1700000000000001",
    "7",
];
const OPERATORS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
/// The parser must accept expressions nested this deep.
const DEPTH: usize = 100;

/// An expression of the grammar.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Exists(String),
    Text(String, &'static str, String),
    Number(String, &'static str, String),
    /// The interpreter does not know its result.
    Regex,
}

/// Any text, or an expression that the bytes describe.
pub fn filter(_: Disk, data: &[u8]) {
    let (mode, rest) = switches(data);
    if mode & 1 == 0 {
        if let Ok(text) = std::str::from_utf8(rest) {
            check(text, None, &fixed_keys());
        }
        return;
    }
    let mut input = Input(rest);
    let keys = (0..input.below(6)).map(|_| (NAMES[input.below(9)], value(&mut input))).collect::<Vec<_>>();
    let tree = generate(&mut input, 0);
    let mut text = String::new();
    print(&tree, &mut input, &mut text);
    check(&text, Some(&tree), &keys);
}

fn fixed_keys() -> Vec<(&'static str, Value<'static>)> {
    vec![
        ("a", Value::I64(-3)),
        ("b", Value::U64(u64::MAX)),
        ("c", Value::F64(0.25)),
        ("d", Value::Str("0012")),
        ("a", Value::I64(503)),
        ("e.f", Value::Uuid(*b"0123456789abcdef")),
        ("_g", Value::F64(f64::NEG_INFINITY)),
        ("not", Value::Str("x")),
    ]
}

fn value(input: &mut Input<'_>) -> Value<'static> {
    let bits = |input: &mut Input<'_>| u64::from_le_bytes(std::array::from_fn(|_| input.byte()));
    match input.below(9) {
        0 => Value::I64(i64::from(input.byte()) - 128),
        1 => Value::I64(i64::from_le_bytes(bits(input).to_le_bytes())),
        2 => Value::U64(input.byte().into()),
        3 => Value::U64(bits(input)),
        4 => Value::F64(f64::from_bits(bits(input))),
        5 => Value::F64(f64::from(input.byte()) / 4.0),
        // Numbers of about six digits, which `%g` prints with or without an exponent.
        6 => Value::F64(f64::from(u32::try_from(bits(input) >> 40).unwrap()) / 8.0),
        7 => Value::Uuid([input.byte(); 16]),
        _ => Value::Str(TEXTS[input.below(TEXTS.len())]),
    }
}

fn generate(input: &mut Input<'_>, depth: usize) -> Tree {
    let name = |input: &mut Input<'_>| NAMES[input.below(NAMES.len())].to_owned();
    let kind = input.below(if depth < 8 { 8 } else { 4 });
    let many = |input: &mut Input<'_>| (0..=input.below(3)).map(|_| generate(input, depth + 1)).collect();
    match kind {
        0 => Tree::Exists(name(input)),
        1 => {
            let (name, operator) = (name(input), OPERATORS[input.below(OPERATORS.len())]);
            Tree::Text(name, operator, TEXTS[input.below(TEXTS.len())].to_owned())
        }
        2 | 3 => {
            let (name, operator) = (name(input), OPERATORS[input.below(OPERATORS.len())]);
            Tree::Number(name, operator, NUMBERS[input.below(NUMBERS.len())].to_owned())
        }
        4 => Tree::Not(Box::new(generate(input, depth + 1))),
        5 | 6 => Tree::And(many(input)),
        _ => Tree::Or(many(input)),
    }
}

fn print(tree: &Tree, input: &mut Input<'_>, out: &mut String) {
    let space = |input: &mut Input<'_>, out: &mut String| {
        out.push_str(["", "", "", " ", "\t", "\r\n"][input.below(6)]);
    };
    space(input, out);
    let (call, inner) = match tree {
        Tree::Not(inner) => ("not", std::slice::from_ref(&**inner)),
        Tree::And(all) => ("and", &all[..]),
        Tree::Or(all) => ("or", &all[..]),
        Tree::Exists(name) => {
            out.push_str("exists");
            space(input, out);
            out.push('(');
            space(input, out);
            print_name(name, input, out);
            space(input, out);
            out.push(')');
            return;
        }
        Tree::Text(name, operator, value) | Tree::Number(name, operator, value) => {
            print_name(name, input, out);
            space(input, out);
            out.push_str(operator);
            space(input, out);
            if matches!(tree, Tree::Text(..)) {
                print_literal(value, input, out)
            } else {
                out.push_str(value)
            }
            space(input, out);
            return;
        }
        Tree::Regex => unreachable!("not generated"),
    };
    out.push_str(call);
    space(input, out);
    out.push('(');
    for (n, inner) in inner.iter().enumerate() {
        out.push_str(if n > 0 { "," } else { "" });
        print(inner, input, out);
    }
    out.push(')');
    space(input, out);
}

fn print_name(name: &str, input: &mut Input<'_>, out: &mut String) {
    if name.is_ascii() && input.below(3) > 0 { out.push_str(name) } else { print_literal(name, input, out) }
}

fn print_literal(text: &str, input: &mut Input<'_>, out: &mut String) {
    let quote = if input.below(2) == 0 { '\'' } else { '"' };
    out.push(quote);
    for c in text.chars() {
        match (c, input.below(4)) {
            ('\n', 0) => out.push_str("\\n"),
            ('\\', _) => out.push_str("\\\\"),
            ('-', 0) => out.push_str("\\-"),
            (_, 1) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("\\{b:03o}"))),
            _ if c == quote => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// A message that counts how often it is formatted.
struct Message<'a>(&'a Cell<u32>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.set(self.0.get() + 1);
        f.write_str("GET /index.html")
    }
}

fn check(text: &str, wanted: Option<&Tree>, keys: &[(&str, Value<'_>)]) {
    let parsed = Filter::parse(text);
    let mut parser = Parser { rest: text };
    let tree = parser.expression(0).filter(|_| parser.skipped().is_empty());
    if let Some(wanted) = wanted {
        assert_eq!(tree.as_ref(), Some(wanted), "{text:?}: the interpreter itself");
        assert!(parsed.is_ok(), "{text:?} is an expression: {parsed:?}");
    }
    let filter = match parsed {
        Ok(filter) => filter,
        Err(e) => {
            assert!((1..=text.chars().count() + 1).contains(&e.column), "{text:?}: column {}", e.column);
            assert!(!e.expected.is_empty() && e.to_string().contains(&e.column.to_string()));
            // The grammar allows invalid regular expressions, and texts that name no level.
            let excused = e.expected.contains("regular expression") || e.expected.contains("a level");
            assert!(tree.is_none() || excused, "{text:?} is an expression: {e}");
            return;
        }
    };
    let tree = tree.unwrap_or_else(|| panic!("{text:?} is no expression, and was accepted"));
    assert_eq!(filter.text(), text);
    let again = Filter::parse(filter.text()).unwrap();
    for keys in [keys, &[]] {
        let formatted = Cell::new(0);
        let message = Message(&formatted);
        let arguments = format_args!("{message}");
        let mut record = Record::new(1_700_000_000_000_001, "http/access", &arguments);
        record.set_thread(7, "worker");
        (record.location, record.keys) = (&Location { file: "main.rs", line: 42 }, keys);
        let passes = filter.passes(&record);
        assert!(formatted.get() <= u32::from(filter.needs_message()), "{text:?}: it needs no message");
        assert_eq!(again.passes(&record), passes, "{text:?}, parsed again");
        if let Some(wanted) = holds(&tree, &record) {
            assert_eq!(passes, wanted, "{text:?} with {keys:?}");
        }
    }
}

/// Whether the expression is true of a record; `None` if the interpreter cannot tell.
fn holds(tree: &Tree, record: &Record<'_>) -> Option<bool> {
    let all = |all: &[Tree]| all.iter().map(|tree| holds(tree, record)).collect::<Option<Vec<bool>>>();
    Some(match tree {
        Tree::Not(inner) => !holds(inner, record)?,
        Tree::And(inner) => all(inner)?.into_iter().all(|holds| holds),
        Tree::Or(inner) => all(inner)?.into_iter().any(|holds| holds),
        Tree::Exists(name) => get(name, record).is_some(),
        // Levels are compared by severity.
        Tree::Text(name, ..) | Tree::Number(name, ..) if name == "level" => return None,
        Tree::Text(name, operator, text) => match get(name, record) {
            None => *operator == "!=",
            Some(value) => decide(operator, Some(printed(value).as_bytes().cmp(text.as_bytes()))),
        },
        Tree::Number(name, operator, number) => match get(name, record) {
            None => *operator == "!=",
            Some(value) => {
                let left = match value {
                    Value::Str(text) => match Number::split(text) {
                        Some((number, "")) => number,
                        _ => return Some(false),
                    },
                    Value::I64(n) => Number::Int(n),
                    // A number outside i64 can only be a double.
                    Value::U64(n) => i64::try_from(n).map_or(Number::Double(n as f64), Number::Int),
                    Value::F64(n) => Number::Double(n),
                    _ => return Some(false),
                };
                let (right, _) = Number::split(number)?;
                let order = left.order(&right);
                // Comparisons with a NaN are unspecified.
                order?;
                decide(operator, order)
            }
        },
        Tree::Regex => return None,
    })
}

fn decide(operator: &str, order: Option<Ordering>) -> bool {
    match operator {
        "=" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        ">" => order == Some(Ordering::Greater),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn get<'a>(name: &str, record: &'a Record<'_>) -> Option<Value<'a>> {
    Some(match name {
        "timestamp" => Value::U64(record.micros()),
        "facility" => Value::Str(record.facility),
        "threadid" => Value::U64(record.thread_id().into()),
        "threadname" => Value::Str(record.thread_name()),
        "file" => Value::Str(record.location.file),
        "line" => Value::U64(record.location.line.into()),
        "message" => Value::Str(record.message()),
        "level" => Value::Str(record.level.name()),
        _ => record.keys.iter().rfind(|(key, _)| *key == name)?.1,
    })
}

fn printed(value: Value<'_>) -> String {
    match value {
        Value::Str(text) => text.to_owned(),
        Value::I64(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::F64(n) => general(n),
        Value::Uuid(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        }
        other => other.to_string(),
    }
}

/// `%g`: rounds all the digits to six, half to even.
fn general(n: f64) -> String {
    let sign = if n.is_sign_negative() && !n.is_nan() { "-" } else { "" };
    if n.is_nan() || n.is_infinite() || n == 0.0 {
        return format!(
            "{sign}{}",
            if n.is_nan() {
                "nan"
            } else if n == 0.0 {
                "0"
            } else {
                "inf"
            }
        );
    }
    let all = format!("{:.1074}", n.abs());
    let (whole, fraction) = all.split_once('.').unwrap();
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let first = digits.iter().position(|&digit| digit > 0).unwrap();
    let mut exponent = i32::try_from(whole.len()).unwrap() - 1 - i32::try_from(first).unwrap();
    let mut kept: Vec<u8> = digits[first..].iter().copied().chain([0; 6]).take(6).collect();
    let behind = &digits[digits.len().min(first + 6)..];
    let tie = behind.first() == Some(&5) && behind[1..].iter().all(|&digit| digit == 0);
    if behind.first().is_some_and(|&digit| digit >= 5) && (!tie || kept[5] % 2 == 1) {
        let mut at = 6;
        while at > 0 && kept[at - 1] == 9 {
            kept[at - 1] = 0;
            at -= 1;
        }
        if at > 0 {
            kept[at - 1] += 1;
        } else {
            kept = vec![1, 0, 0, 0, 0, 0];
            exponent += 1;
        }
    }
    let mut text: String = kept.iter().map(|digit| char::from(digit + b'0')).collect();
    let short = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    if !(-4..6).contains(&exponent) {
        text.insert(1, '.');
        let e = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{}e{e}{:02}", short(&text), exponent.abs());
    }
    match usize::try_from(exponent) {
        Ok(before) => text.insert(before + 1, '.'),
        Err(_) => text.insert_str(0, &format!("0.{}", "0".repeat(exponent.unsigned_abs() as usize - 1))),
    }
    // A number with six digits before the point keeps its zeros.
    format!(
        "{sign}{}",
        if text.ends_with('.') { text.trim_end_matches('.').to_owned() } else { short(&text) }
    )
}

enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    /// A number at the beginning of a text, and what follows it. The sign of the exponent may be
    /// left out.
    fn split(text: &str) -> Option<(Self, &str)> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let sign = usize::from(text.starts_with(['-', '+']));
        let mut len = sign + digits(&text[sign..]);
        if len == sign {
            return None;
        }
        let whole = len;
        if let Some(fraction) = text[len..].strip_prefix('.')
            && digits(fraction) > 0
        {
            len += 1 + digits(fraction);
        }
        if let Some(exponent) = text[len..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if digits(unsigned) > 0 {
                len += 1 + exponent.len() - unsigned.len() + digits(unsigned);
            }
        }
        let (number, rest) = text.split_at(len);
        let int = if len == whole { number.parse().ok() } else { None };
        Some((int.map_or_else(|| Number::Double(number.parse().unwrap()), Number::Int), rest))
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
            (Number::Int(a), Number::Double(b)) => (*a as f64).partial_cmp(b),
            (Number::Double(a), Number::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Number::Double(a), Number::Double(b)) => a.partial_cmp(b),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skipped(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn takes(&mut self, token: &str) -> Option<()> {
        self.rest = self.skipped().strip_prefix(token)?;
        Some(())
    }

    fn field(&mut self) -> Option<String> {
        if self.skipped().starts_with(['\'', '"']) {
            return self.literal();
        }
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        self.rest = rest;
        Some(name.to_owned())
    }

    fn literal(&mut self) -> Option<String> {
        let mut chars = self.skipped().chars();
        let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut bytes = Vec::new();
        loop {
            match chars.next()? {
                c if c == quote => break,
                '\\' => match chars.next()? {
                    'a' => bytes.push(0x07),
                    'b' => bytes.push(0x08),
                    't' => bytes.push(0x09),
                    'n' => bytes.push(0x0a),
                    'v' => bytes.push(0x0b),
                    'f' => bytes.push(0x0c),
                    'r' => bytes.push(0x0d),
                    'e' => bytes.push(0x1b),
                    c @ ('\'' | '"' | '\\' | '-') => bytes.extend(c.to_string().bytes()),
                    c @ '0'..='7' => {
                        let mut octal = c.to_string();
                        while octal.len() < 3 && chars.as_str().starts_with(|c: char| c.is_digit(8)) {
                            octal.push(chars.next()?);
                        }
                        bytes.push(u8::from_str_radix(&octal, 8).ok()?);
                    }
                    _ => return None,
                },
                c => bytes.extend(c.to_string().bytes()),
            }
        }
        self.rest = chars.as_str();
        String::from_utf8(bytes).ok()
    }

    fn expression(&mut self, depth: usize) -> Option<Tree> {
        if depth > DEPTH {
            return None;
        }
        let calls = !self.skipped().starts_with(['\'', '"']);
        let field = self.field()?;
        if calls && ["not", "and", "or", "exists"].contains(&&*field) && self.takes("(").is_some() {
            if field == "exists" {
                let field = self.field()?;
                return self.takes(")").map(|()| Tree::Exists(field));
            }
            let mut inner = vec![self.expression(depth + 1)?];
            while field != "not" && self.takes(",").is_some() {
                inner.push(self.expression(depth + 1)?);
            }
            self.takes(")")?;
            return Some(match &*field {
                "not" => Tree::Not(Box::new(inner.remove(0))),
                "and" => Tree::And(inner),
                _ => Tree::Or(inner),
            });
        }
        if self.takes("~").is_some() || self.takes("!~").is_some() {
            return self.literal().map(|_| Tree::Regex);
        }
        let operator = ["!=", "<=", ">=", "=", "<", ">"].into_iter().find(|op| self.takes(op).is_some())?;
        if self.skipped().starts_with(['\'', '"']) {
            return Some(Tree::Text(field, operator, self.literal()?));
        }
        let (_, rest) = Number::split(self.rest)?;
        let number = self.rest[..self.rest.len() - rest.len()].to_owned();
        self.rest = rest;
        Some(Tree::Number(field, operator, number))
    }
}
