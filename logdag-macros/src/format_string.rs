//! Format strings: the grammar of `std::fmt`, <https://doc.rust-lang.org/std/fmt/#syntax>.

/// A piece of a format string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Literal text, with doubled braces.
    Text(String),
    /// A placeholder for a value.
    Hole(Hole),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) which: Which,
    /// The format after the colon.
    pub(crate) spec: String,
    /// The same, if it is an integer format that does not need `std::fmt`.
    pub(crate) number: Option<Number>,
}

/// Which argument.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Next,
    Place(usize),
    Name(String),
}

/// How an integer is written: with leading zeros, in hexadecimal, or both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// The variant of `Digits`.
    pub(crate) digits: &'static str,
    /// The minimum number of digits, including the sign.
    pub(crate) width: usize,
}

/// The pieces of a format string, without adjacent texts; `None` if it is invalid, or a placeholder
/// takes more than one argument (for its width or precision).
pub(crate) fn parse(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = behind;
            continue;
        }
        if brace == "}" {
            return None;
        }
        let (inside, behind) = rest.split_once('}')?;
        rest = behind;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Hole(hole(inside)?));
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Some(pieces)
}

fn hole(inside: &str) -> Option<Hole> {
    let (which, spec) = inside.trim_end().split_once(':').unwrap_or((inside.trim_end(), ""));
    let which = if which.is_empty() {
        Which::Next
    } else if which.starts_with(|c: char| c.is_ascii_digit()) {
        Which::Place(which.parse().ok()?)
    } else {
        let name = syn::parse_str::<syn::Ident>(which).ok()?;
        (name == which && !which.starts_with("r#")).then_some(())?;
        Which::Name(which.to_owned())
    };
    let number = number(spec)?;
    Some(Hole { which, spec: spec.to_owned(), number })
}

/// `None` if it is invalid; `Some(None)` if it says more, or may be for something other than a
/// number.
#[allow(clippy::option_option)]
fn number(spec: &str) -> Option<Option<Number>> {
    let mut rest = spec;
    let mut simple = true;
    let mut chars = rest.chars();
    let (first, second) = (chars.next(), chars.next());
    let is_align = |c: Option<char>| matches!(c, Some('<' | '^' | '>'));
    if let (Some(fill), true) = (first, is_align(second)) {
        rest = &rest[fill.len_utf8() + 1..];
        simple = false;
    } else if is_align(first) {
        simple = first == Some('>');
        rest = &rest[1..];
    }
    for mark in ['+', '-', '#'] {
        if let Some(behind) = rest.strip_prefix(mark) {
            rest = behind;
            simple = false;
        }
    }
    let zeros = rest.starts_with('0');
    rest = rest.strip_prefix('0').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (width, behind) = rest.split_at(end);
    let width: usize = if width.is_empty() { 0 } else { width.parse().ok()? };
    rest = behind;
    if let Some(behind) = rest.strip_prefix('.') {
        simple = false;
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        // An argument gives the number of digits.
        (end > 0).then_some(())?;
        rest = &behind[end..];
    }
    let digits = match rest {
        "" => "Decimal",
        "x" => "LowerHex",
        "X" => "UpperHex",
        "?" | "x?" | "X?" | "o" | "b" | "e" | "E" | "p" => return Some(None),
        _ => return None,
    };
    let is_for_numbers = zeros || (digits != "Decimal" && width == 0);
    // Wider ones are left to `std::fmt`, which checks their limits.
    Some((simple && is_for_numbers && width < 1000).then_some(Number { digits, width }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holes(text: &str) -> Vec<(Which, String, Option<Number>)> {
        let pieces = parse(text).unwrap();
        let hole = |piece| match piece {
            Piece::Hole(Hole { which, spec, number }) => Some((which, spec, number)),
            Piece::Text(_) => None,
        };
        pieces.into_iter().filter_map(hole).collect()
    }

    #[test]
    fn text_and_holes() {
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("{{a}}b").unwrap(), [Piece::Text("{a}b".to_owned())]);
        let pieces = parse("a{}{{{name}").unwrap();
        assert!(
            matches!(&pieces[..], [Piece::Text(a), Piece::Hole(_), Piece::Text(b), Piece::Hole(_)] if a == "a" && b == "{")
        );
        for wrong in [
            "{", "}", "a}", "{a", "{:1$}", "{:.*}", "{:w$}", "{:.p$}", "{:y}", "{:##}", "{{}", "{a b}",
            "{1a}", "{r#a}", "{ a}",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_hole_takes_and_how() {
        let number = |digits, width| Some(Number { digits, width });
        assert_eq!(
            holes("{} {0} {a} {b: }"),
            [
                (Which::Next, String::new(), None),
                (Which::Place(0), String::new(), None),
                (Which::Name("a".to_owned()), String::new(), None),
                (Which::Name("b".to_owned()), String::new(), None),
            ]
        );
        for (text, expected) in [
            ("{:08}", number("Decimal", 8)),
            ("{:>08x}", number("LowerHex", 8)),
            ("{:X}", number("UpperHex", 0)),
            ("{:0}", number("Decimal", 0)),
            ("{:8}", None),
            ("{:>8}", None),
            ("{:8x}", None),
            ("{:?}", None),
            ("{:#?}", None),
            ("{:x?}", None),
            ("{:.3}", None),
            ("{:8.3}", None),
            ("{:<8}", None),
            ("{:0>8}", None),
            ("{:é^8}", None),
            ("{:+}", None),
            ("{:#x}", None),
            ("{:e}", None),
            ("{:1000}", None),
        ] {
            let spec = text[2..text.len() - 1].to_owned();
            assert_eq!(holes(text), [(Which::Next, spec, expected)], "{text}");
        }
    }
}
