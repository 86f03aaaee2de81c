//! Redaction: values that must not be written anywhere.

mod broken;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::value::RawValue;

use crate::pattern::Pattern;
use crate::record::{Details, MESSAGE_KEYS, Record, Span};
use crate::value::{Json, Members, Value};

/// What replaces redacted values.
const REDACTED: &str = "[redacted]";
const REDACTED_JSON: &str = "\"[redacted]\"";
/// Values nested deeper than this are redacted as a whole.
const MAX_DEPTH: usize = 64;

/// Replaces values of keys, by name, and matches of regular expressions with `[redacted]` before
/// any sink, ring, feed or text hook gets a line. Filters, and hooks that get a line before its
/// text, see the original line.
///
/// ```
/// use logdag::{Graph, Redaction, log};
///
/// let graph = Graph::new();
/// graph.set_redaction(Redaction::new().keys("password, user.mail").pattern(r"\b\d{16}\b")?);
/// let ring = graph.add_memory("ring", 10, 1000)?;
/// log!(ring, password = "secret"; "card 4111111111111111");
/// assert_eq!(graph.memory_last("ring", 1).unwrap_or_default()[0].bytes, b"card [redacted]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Names of keys ignore case. Within JSON (JSON values, and messages and strings that are JSON
/// objects or arrays), names apply at any depth, and dotted names are paths from the key or from
/// the root of the text: `user.mail` is the member `mail` of `user`, also in each item of an array,
/// and a key named `user.mail`. In a text that contains JSON but is not JSON (it was cut off, or is
/// surrounded by other text), a name applies wherever it is in quotation marks before a colon, and
/// only the last part of a dotted name counts. Patterns apply to messages, to names of keys and to
/// values; names that redaction would make equal get a number. A text that takes too long to search
/// is redacted completely.
#[derive(Clone, Default)]
pub struct Redaction {
    keys: Vec<String>,
    patterns: Vec<(String, Pattern)>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.patterns.iter().map(|(text, _)| &**text).collect();
        f.debug_struct("Redaction").field("keys", &self.keys).field("patterns", &patterns).finish()
    }
}

impl PartialEq for Redaction {
    fn eq(&self, other: &Self) -> bool {
        let texts = |of: &Self| of.patterns.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>();
        self.keys == other.keys && texts(self) == texts(other)
    }
}

impl Eq for Redaction {}

impl Redaction {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the values of these keys: names separated by commas.
    #[must_use]
    pub fn keys(mut self, names: &str) -> Self {
        for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            if !name.is_empty() && !self.keys.contains(&name) {
                self.keys.push(name);
            }
        }
        self
    }

    /// Adds the matches of this regular expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn pattern(mut self, text: &str) -> Result<Self, String> {
        let pattern = Pattern::new(text)?;
        if self.patterns.iter().all(|(known, _)| known != text) {
            self.patterns.push((text.to_owned(), pattern));
        }
        Ok(self)
    }

    /// Whether there is nothing to redact.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.patterns.is_empty()
    }

    /// The names of keys and the regular expressions.
    pub fn parts(&self) -> (Vec<&str>, Vec<&str>) {
        let keys = self.keys.iter().map(|key| &**key).collect();
        (keys, self.patterns.iter().map(|(text, _)| &**text).collect())
    }

    /// The union of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.keys.extend(other.keys.iter().filter(|key| !self.keys.contains(key)).cloned());
        let is_new = |text: &str| self.patterns.iter().all(|(known, _)| known != text);
        both.patterns.extend(other.patterns.iter().filter(|(text, _)| is_new(text)).cloned());
        both
    }

    /// Calls a function with the redacted line.
    pub(crate) fn apply<R>(&self, record: &Record<'_>, work: impl FnOnce(&Record<'_>) -> R) -> R {
        let message = self.message(record.message());
        let keys = self.values(record.keys);
        let spans: Vec<_> = record.details.spans.iter().map(|span| self.values(span.fields)).collect();
        let unchanged = matches!(message, Cow::Borrowed(_))
            && [&keys]
                .into_iter()
                .chain(&spans)
                .flatten()
                .all(|new| new.name.is_none() && new.value.is_none());
        if unchanged {
            return work(record);
        }
        let keys = replaced(record.keys, &keys);
        let fields: Vec<_> =
            record.details.spans.iter().zip(&spans).map(|(span, new)| replaced(span.fields, new)).collect();
        let spans = record.details.spans.iter().zip(&fields);
        let spans: Vec<Span<'_>> = spans.map(|(span, fields)| Span { name: span.name, fields }).collect();
        let details = Details { micros: None, target: record.details.target, spans: &spans };
        let mut redacted = Record::new(record.micros(), record.facility, &message);
        redacted.set_thread(record.thread_id(), record.thread_name());
        (redacted.location, redacted.level) = (record.location, record.level);
        (redacted.keys, redacted.details) = (&keys, &details);
        work(&redacted)
    }

    /// Whether the value of a name is redacted; `path` consists of all names from the key on.
    fn hides(&self, name: &str, path: &str) -> bool {
        self.keys.iter().any(|key| key.eq_ignore_ascii_case(name) || key.eq_ignore_ascii_case(path))
    }

    /// The same, if the context of the value is unknown.
    fn hides_anywhere(&self, name: &str) -> bool {
        let last = |key: &str| key.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(name));
        self.keys.iter().any(|key| key.eq_ignore_ascii_case(name) || last(key))
    }

    fn message<'a>(&self, message: &'a str) -> Cow<'a, str> {
        let mut message = self.text_or_json(message, "", 0);
        // In an event it may have been the value of one of these keys, where paths begin.
        for key in MESSAGE_KEYS {
            let is_below = |name: &String| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
            if self.keys.iter().any(is_below)
                && let Cow::Owned(redacted) = self.text_or_json(&message, key, 0)
            {
                message = Cow::Owned(redacted);
            }
        }
        message
    }

    /// Redacts a text, which may be a JSON object or array, or contain one.
    fn text_or_json<'a>(&self, text: &'a str, path: &str, depth: usize) -> Cow<'a, str> {
        let may_be_json = !self.keys.is_empty() && text.trim_start().starts_with(['{', '[']);
        let json = may_be_json.then(|| serde_json::from_str::<&RawValue>(text).ok()).flatten();
        let redacted = match json {
            Some(raw) => self.json(raw, path, depth),
            None if self.keys.is_empty() => None,
            None => broken::redact(text, |name| self.hides_anywhere(name)),
        };
        match redacted {
            None => self.text(text),
            // A pattern may match across several values.
            Some(redacted) => Cow::Owned(self.text(&redacted).into_owned()),
        }
    }

    /// What replaces each key.
    fn values(&self, keys: &[(&str, Value<'_>)]) -> Vec<NewKey> {
        let names = self.names(keys.iter().map(|(key, _)| *key));
        let new = |((key, value), name): (&(&str, Value<'_>), Option<String>)| NewKey {
            name,
            value: self.value(key, *value),
        };
        keys.iter().zip(names).map(new).collect()
    }

    /// What replaces each name of an object. Names stay different, so that none replaces another.
    fn names<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<Option<String>> {
        let new = |name: &str| match self.text(name) {
            Cow::Borrowed(_) => None,
            Cow::Owned(name) => Some(name),
        };
        let mut replaced: Vec<Option<String>> = names.clone().map(new).collect();
        if replaced.iter().all(Option::is_none) {
            return replaced;
        }
        let stays = names.clone().zip(&replaced).filter(|(_, new)| new.is_none());
        let mut taken: HashSet<String> = stays.map(|(name, _)| name.to_owned()).collect();
        let mut known: HashMap<&str, String> = HashMap::new();
        let mut numbers: HashMap<String, u64> = HashMap::new();
        for (name, new) in names.zip(&mut replaced) {
            let Some(new) = new else { continue };
            if let Some(known) = known.get(name) {
                new.clone_from(known);
                continue;
            }
            let number = numbers.entry(new.clone()).or_insert(1);
            let plain = new.clone();
            while !taken.insert(new.clone()) {
                *number += 1;
                *new = format!("{plain} {number}");
            }
            known.insert(name, new.clone());
        }
        replaced
    }

    fn value(&self, key: &str, value: Value<'_>) -> Option<New> {
        if self.hides(key, key) {
            return Some(New::Text(REDACTED.to_owned()));
        }
        let text = |text: &str| match self.text(text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(New::Text(text)),
        };
        match value {
            Value::Str(value) => self.text_value(value, key, 0).map(New::Text),
            Value::Json(json) => match serde_json::from_str::<&RawValue>(json.as_str()) {
                Ok(raw) => self.json(raw, key, 0).map(New::Json),
                Err(_) => Some(New::Text(REDACTED.to_owned())),
            },
            _ if self.patterns.is_empty() => None,
            other => text(&other.to_string()),
        }
    }

    /// What replaces a text that is the value of a name. If the text is JSON, paths begin with the
    /// name or at the text's root.
    fn text_value(&self, text: &str, path: &str, depth: usize) -> Option<String> {
        let from_name = self.text_or_json(text, path, depth);
        let from_root = self.text_or_json(&from_name, "", depth);
        match (from_root, &from_name) {
            (Cow::Owned(text), _) => Some(text),
            (Cow::Borrowed(_), Cow::Owned(text)) => Some(text.clone()),
            (Cow::Borrowed(_), Cow::Borrowed(_)) => None,
        }
    }

    /// Redacts what the patterns match in a text.
    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (_, pattern) in &self.patterns {
            match pattern.replace(&text, REDACTED) {
                Ok(None) => {}
                Ok(Some(replaced)) => text = Cow::Owned(replaced),
                Err(_) => return Cow::Owned(REDACTED.to_owned()),
            }
        }
        text
    }

    /// Redacts a JSON value; `None` if it stays as it is.
    fn json(&self, raw: &RawValue, path: &str, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return Some(REDACTED_JSON.to_owned());
        }
        let mut changed = false;
        let mut list = Vec::new();
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_else(|_| REDACTED_JSON.to_owned());
        let mut take = |name: Option<(&str, Option<String>)>, value: &RawValue, new: Option<String>| {
            changed |= new.is_some() || matches!(name, Some((_, Some(_))));
            let before =
                name.map_or_else(String::new, |(old, new)| quoted(new.as_deref().unwrap_or(old)) + ":");
            list.push(before + new.as_deref().unwrap_or(value.get()));
        };
        let (open, close) = match raw.get().as_bytes().first() {
            Some(b'{') => {
                let Ok(Members(members)) = serde_json::from_str(raw.get()) else {
                    return Some(REDACTED_JSON.to_owned());
                };
                let names = self.names(members.iter().map(|(name, _)| &**name));
                for ((name, value), new_name) in members.iter().zip(names) {
                    let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    let new = if self.hides(name, &path) {
                        Some(REDACTED_JSON.to_owned())
                    } else {
                        self.json(value, &path, depth + 1)
                    };
                    take(Some((name, new_name)), value, new);
                }
                ('{', '}')
            }
            Some(b'[') => {
                let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
                    return Some(REDACTED_JSON.to_owned());
                };
                items.into_iter().for_each(|item| take(None, item, self.json(item, path, depth + 1)));
                ('[', ']')
            }
            Some(b'"') => {
                let text: String = serde_json::from_str(raw.get()).ok()?;
                return self.text_value(&text, path, depth + 1).map(|text| quoted(&text));
            }
            _ => {
                return match self.text(raw.get()) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(text) => Some(quoted(&text)),
                };
            }
        };
        changed.then(|| format!("{open}{}{close}", list.join(",")))
    }
}

/// What replaces a value.
enum New {
    Text(String),
    Json(String),
}

/// What replaces the name and the value of a key; `None` keeps them.
struct NewKey {
    name: Option<String>,
    value: Option<New>,
}

fn replaced<'a>(keys: &[(&'a str, Value<'a>)], new: &'a [NewKey]) -> Vec<(&'a str, Value<'a>)> {
    let key = |((name, old), new): (&(&'a str, Value<'a>), &'a NewKey)| {
        let value = match &new.value {
            None => *old,
            Some(New::Text(text)) => Value::Str(text),
            Some(New::Json(text)) => Value::Json(Json::trusted(text)),
        };
        (new.name.as_deref().unwrap_or(name), value)
    };
    keys.iter().zip(new).map(key).collect()
}
