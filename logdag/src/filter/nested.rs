//! Finds values within JSON values by dotted names.

use serde_json::value::RawValue;

use crate::value::{Members, Parsed, Value};

/// The value at a dotted name: a key, and names of members or indexes (from 0) within its value. If
/// names contain dots, the longest existing one counts.
pub(super) fn find<'a>(keys: &[(&str, Value<'a>)], path: &str) -> Option<Parsed<'a>> {
    splits(path).find_map(|(key, rest)| {
        let (_, value) = keys.iter().rev().find(|(name, _)| *name == key)?;
        let Value::Json(json) = value else { return None };
        within(serde_json::from_str(json.as_str()).ok()?, rest)
    })
}

/// A name and what follows it, for each dot from the last one on.
fn splits(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.rmatch_indices('.').map(|(at, _)| (&path[..at], &path[at + 1..]))
}

fn within<'a>(value: &'a RawValue, path: &str) -> Option<Parsed<'a>> {
    let whole = member(value, path).map(Parsed::of);
    whole.or_else(|| splits(path).find_map(|(name, rest)| within(member(value, name)?, rest)))
}

/// A member of an object, or an item of an array.
fn member<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    match value.get().as_bytes().first()? {
        b'{' => {
            let Members(members) = serde_json::from_str(value.get()).ok()?;
            // If there are several, the last one counts.
            members.into_iter().rev().find(|(member, _)| member == name).map(|(_, value)| value)
        }
        b'[' => {
            let place: usize = name.parse().ok()?;
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            items.get(place).copied()
        }
        _ => None,
    }
}
