//! Suggestions for mistyped names.

/// How many letters must be changed, inserted, removed or swapped with their neighbour to turn one
/// name into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

/// The nearest of the known names that differ from this one by one letter, or only in case; none
/// if the name is known.
pub(crate) fn nearly<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if known.contains(&name) {
        return None;
    }
    let lower = name.to_lowercase();
    // Comparing long names takes too long.
    let near = known.iter().copied().filter(|known| known.len().abs_diff(lower.len()) <= 1);
    let best = near.map(|known| (distance(&lower, known), known)).min_by_key(|(away, _)| *away);
    best.filter(|(away, _)| *away <= 1).map(|(_, known)| known)
}

/// `; did you mean …?` with the nearest of the known names, if one is near enough; else nothing.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    // Comparing long names takes too long.
    if name.len() > 64 {
        return String::new();
    }
    let lower = name.to_lowercase();
    let away = |known: &str| distance(&lower, &known.to_lowercase());
    let near = |known: &&&str| known.len().abs_diff(name.len()) <= 2;
    let best = known.iter().filter(near).map(|known| (away(known), known)).min();
    match best {
        Some((away, best)) if away <= (name.chars().count() / 3).clamp(1, 2) => {
            format!("; did you mean {best}?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("log", "log", 0),
            ("lgo", "log", 1),
            ("oulet", "outlet", 1),
            ("logs", "log", 1),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(did_you_mean("timestmaps", &["timestamps", "type"]), "; did you mean timestamps?");
        assert_eq!(did_you_mean("Type", &["timestamps", "type"]), "; did you mean type?");
        assert_eq!(did_you_mean("colour", &["timestamps", "type"]), "");
        assert_eq!(
            (nearly("Log", &["log"]), nearly("log", &["log"]), nearly("web", &["log"])),
            (Some("log"), None, None)
        );
        let known = ["log", "logs"];
        assert_eq!((nearly("Logs", &known), nearly("lgos", &known)), (Some("logs"), Some("logs")));
    }
}
