//! Patterns for the names of rotated files.

use super::error::RotationError;

/// The suffix of an incomplete compressed file.
pub(super) const PART: &str = ".part";
const DIRECTIVES: &str = "%Y, %m, %d, %F, %H, %M, %S, %j, %G, %V, %s or %%";

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) text: String,
    /// With a slash at its end, or empty.
    pub(super) directory: String,
    pub(super) tokens: Vec<Token>,
    pub(super) unit: Unit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    /// The log's name without its extension, and the extension.
    Stem,
    Extension,
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    DayOfYear,
    IsoYear,
    IsoWeek,
    Epoch,
}

/// The shortest time that a pattern distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Field {
    pub(super) fn digits(self) -> usize {
        match self {
            Self::Year | Self::IsoYear => 4,
            Self::DayOfYear => 3,
            Self::Epoch => 10,
            _ => 2,
        }
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, RotationError> {
        let (directory, file) = text.rfind('/').map_or(("", text), |at| text.split_at(at + 1));
        if directory.contains('%') || directory.contains(['{', '}']) {
            return Err(RotationError::new("the directives in the name of the file, not in its directory"));
        }
        let mut tokens: Vec<Token> = Vec::new();
        let push = |tokens: &mut Vec<Token>, text: &str| match tokens.last_mut() {
            Some(Token::Text(last)) => last.push_str(text),
            _ => tokens.push(Token::Text(text.to_owned())),
        };
        let mut rest = file;
        while let Some(at) = rest.find(['%', '{', '}']) {
            if at > 0 {
                push(&mut tokens, &rest[..at]);
            }
            rest = &rest[at..];
            if let Some((token, after)) = [("{name}", Token::Stem), ("{ext}", Token::Extension)]
                .into_iter()
                .find_map(|(text, token)| Some((token, rest.strip_prefix(text)?)))
            {
                tokens.push(token);
                rest = after;
                continue;
            }
            let mut letters = rest.chars();
            if letters.next() != Some('%') {
                return Err(RotationError::new("{name} or {ext} in the braces of a pattern"));
            }
            let directive = letters.next();
            let field = match directive {
                Some('Y') => Field::Year,
                Some('m') => Field::Month,
                Some('d') => Field::Day,
                Some('H') => Field::Hour,
                Some('M') => Field::Minute,
                Some('S') => Field::Second,
                Some('j') => Field::DayOfYear,
                Some('G') => Field::IsoYear,
                Some('V') => Field::IsoWeek,
                Some('s') => Field::Epoch,
                Some('F') => {
                    tokens.push(Token::Field(Field::Year));
                    push(&mut tokens, "-");
                    tokens.push(Token::Field(Field::Month));
                    push(&mut tokens, "-");
                    Field::Day
                }
                Some('%') => {
                    push(&mut tokens, "%");
                    rest = letters.as_str();
                    continue;
                }
                other => {
                    let found =
                        other.map_or_else(|| "% at the end".to_owned(), |letter| format!("%{letter}"));
                    return Err(RotationError::new(format!("{DIRECTIVES} in a pattern, not {found}")));
                }
            };
            tokens.push(Token::Field(field));
            rest = letters.as_str();
        }
        if !rest.is_empty() {
            push(&mut tokens, rest);
        }
        if [".gz", ".zst", PART].iter().any(|suffix| rest.ends_with(suffix)) {
            return Err(RotationError::new(
                "a name without .gz, .zst or .part: compress adds its own ending",
            ));
        }
        let unit = unit(&tokens)?;
        Ok(Self { text: text.to_owned(), directory: directory.to_owned(), tokens, unit })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn directory(&self) -> Option<&str> {
        Some(&*self.directory).filter(|directory| !directory.is_empty())
    }

    pub(super) fn resolution(&self) -> (u64, &'static str) {
        match self.unit {
            Unit::Second => (1, "%S"),
            Unit::Minute => (60, "%M"),
            Unit::Hour => (3600, "%H"),
            Unit::Day => (86_400, "%d"),
            Unit::Week => (604_800, "%V"),
            Unit::Month => (2_592_000, "%m"),
            Unit::Year => (31_536_000, "%Y"),
        }
    }
}

/// The unit that a pattern distinguishes. No coarser unit may be missing, or different times would
/// have the same name.
fn unit(tokens: &[Token]) -> Result<Unit, RotationError> {
    use Field::{Day, DayOfYear, Epoch, Hour, IsoWeek, IsoYear, Minute, Month, Second, Year};
    let has = |field| tokens.contains(&Token::Field(field));
    if !tokens.iter().any(|token| matches!(token, Token::Field(_))) {
        return Err(RotationError::new(
            "seconds, number, or a pattern with a date in it such as {name}-%F{ext}",
        ));
    }
    let dated = has(Year) && (has(DayOfYear) || has(Month) && has(Day));
    for (fine, fine_text, there, coarse_text) in [
        (IsoWeek, "%V", has(IsoYear), "%G (the year that the week belongs to)"),
        (IsoYear, "%G", has(IsoWeek), "%V (or %Y for a year of the calendar)"),
        (Month, "%m", has(Year), "%Y"),
        (Day, "%d", has(Year) && has(Month), "%Y and %m"),
        (DayOfYear, "%j", has(Year), "%Y"),
        (Hour, "%H", dated, "the date, such as %F"),
        (Minute, "%M", has(Hour), "%H"),
        (Second, "%S", has(Minute), "%M"),
    ] {
        if has(fine) && !there {
            return Err(RotationError::new(format!(
                "{coarse_text} with {fine_text}: names of different times would be the same"
            )));
        }
    }
    Ok(if has(Epoch) || has(Second) {
        Unit::Second
    } else if has(Minute) {
        Unit::Minute
    } else if has(Hour) {
        Unit::Hour
    } else if dated {
        Unit::Day
    } else if has(IsoWeek) {
        Unit::Week
    } else if has(Month) {
        Unit::Month
    } else {
        Unit::Year
    })
}
