//! Regular expressions of PCRE2, matched on bytes as in libmtev: `\w`, `\d`, `.` and `(?i)` apply
//! to ASCII.

#[cfg(feature = "regex")]
use pcre2::bytes::{Regex, RegexBuilder};

/// Without the feature `regex` there are no patterns.
#[cfg(not(feature = "regex"))]
#[derive(Clone, Debug)]
pub(crate) enum Pattern {}

#[cfg(not(feature = "regex"))]
impl Pattern {
    pub(crate) fn new(_: &str) -> Result<Self, String> {
        Err("regular expressions need logdag's feature regex".to_owned())
    }

    pub(crate) fn matches(&self, _: &str) -> bool {
        match *self {}
    }

    pub(crate) fn replace(&self, _: &str, _: &str) -> Result<Option<String>, GivenUp> {
        match *self {}
    }
}

/// Settings of every pattern: lines end with a newline whatever the library was built for, and a
/// match that backtracks more often than this is given up.
#[cfg(feature = "regex")]
const SETTINGS: &str = "(*LF)(*LIMIT_MATCH=100000)";
/// The maximum memory for backtracking.
#[cfg(feature = "regex")]
const MAX_STACK: usize = 1 << 20;

/// A regular expression.
#[cfg(feature = "regex")]
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

#[cfg(feature = "regex")]
impl Pattern {
    /// Compiles a pattern. If its first flags include `u`, as in `(?u)` or `(?iu)`, it matches
    /// Unicode characters.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let (unicode, text) = unicode(text);
        let compiled = RegexBuilder::new()
            .utf(unicode)
            .ucp(unicode)
            .jit_if_available(true)
            .max_jit_stack_size(Some(MAX_STACK))
            .build(&format!("{SETTINGS}{text}"));
        compiled.map(Self).map_err(|e| {
            let at = e.offset().and_then(|at| at.checked_sub(SETTINGS.len()));
            let why = e.to_string();
            // The offset in the error's own text includes the settings.
            let why = why.rsplit_once(": ").map_or(&*why, |(_, why)| why);
            at.map_or_else(|| why.to_owned(), |at| format!("{why}, at byte {}", at + 1))
        })
    }

    /// Whether it matches somewhere; a search that takes too long counts as no match.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes()).unwrap_or(false)
    }
}

/// The search takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp;

#[cfg(feature = "regex")]
impl Pattern {
    /// Replaces every match in a text; `None` without a match.
    pub(crate) fn replace(&self, text: &str, with: &str) -> Result<Option<String>, GivenUp> {
        let (mut out, mut end) = (Vec::new(), 0);
        for found in self.0.find_iter(text.as_bytes()) {
            let found = found.map_err(|_| GivenUp)?;
            // Empty matches replace nothing.
            if found.start() < found.end() {
                out.extend_from_slice(&text.as_bytes()[end..found.start()]);
                out.extend_from_slice(with.as_bytes());
                end = found.end();
            }
        }
        if end == 0 {
            return Ok(None);
        }
        out.extend_from_slice(&text.as_bytes()[end..]);
        // A match may end within a character.
        Ok(Some(String::from_utf8_lossy(&out).into_owned()))
    }
}

/// Whether the flags at a pattern's beginning include `u`, and the pattern without it.
#[cfg(feature = "regex")]
fn unicode(text: &str) -> (bool, String) {
    let flags = text.strip_prefix("(?").and_then(|rest| rest.split_once(')'));
    match flags {
        Some((flags, rest))
            if flags.contains('u') && flags.bytes().all(|flag| flag.is_ascii_alphabetic()) =>
        {
            (true, format!("(?{}){rest}", flags.replace('u', "")))
        }
        _ => (false, text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libmtev_matches() {
        for (pattern, text, expected) in [
            // `$`: the end, and the line end before it.
            ("b$", "ab", true),
            ("b$", "ab\n", true),
            ("b$", "ab\n\n", false),
            ("b$", "ab\r\n", false),
            ("b\\z", "ab\n", false),
            ("b\\Z", "ab\n", true),
            ("^b", "a\nb", false),
            ("(?m)^b$", "a\nb\nc", true),
            ("$.", "a", false),
            ("a.b", "a\nb", false),
            ("(?s)a.b", "a\nb", true),
            // Classes apply to ASCII and bytes.
            ("^\\w+$", "naïve", false),
            ("\\d", "٣", false),
            ("\\s", "\u{a0}", false),
            ("^.$", "é", false),
            ("^..$", "é", true),
            ("(?i)É", "é", false),
            ("(?i)k", "\u{212a}", false),
            ("é", "café", true),
            ("\\bfé", "café fé", true),
            ("[[:alpha:]]+7", "x7", true),
            // Unicode on request.
            ("(?u)^\\w+$", "naïve", true),
            ("(?u)^.$", "é", true),
            ("(?iu)É", "é", true),
            ("(?ui)^.\\d$", "É٣", true),
            // What other libraries lack.
            ("^\\Qa.b*\\E$", "a.b*", true),
            ("\\Qa.b", "axb", false),
            ("a\\cAb", "a\x01b", true),
            ("a\\101", "aA", true),
            ("a\\o{101}", "aA", true),
            ("\\0", "a\0", true),
            ("^(a)(b)?\\1$", "aa", true),
            ("^(\\((?:[^()]|(?1))*\\))$", "(a(b)c)", true),
            ("^(?>a+)ab", "aaab", false),
            ("^a++b", "aab", true),
            ("(?<=a)b", "ab", true),
            ("foo\\Kbar", "foobar", true),
            ("\\h\\R", "\t\r\n", true),
            ("", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(text), expected, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn what_takes_for_ever_is_given_up() {
        let begun = std::time::Instant::now();
        assert!(!Pattern::new("^(a+)+$").unwrap().matches(&format!("{}b", "a".repeat(5000))));
        assert!(!Pattern::new("(x+x+)+y").unwrap().matches(&"x".repeat(5000)));
        assert!(begun.elapsed().as_secs() < 20);
    }

    #[test]
    fn mistakes_are_reported_by_place() {
        for (pattern, expected) in [("a(b", "at byte 4"), ("a[", "at byte 3"), ("*", "at byte")] {
            let error = Pattern::new(pattern).unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }
}
