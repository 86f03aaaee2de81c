//! What the ways in from `log` and `tracing` share.

use crate::record::Value;

/// A value that was visited and is kept until its line is logged.
#[derive(Clone, Debug)]
pub(crate) enum Owned {
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
}

/// Keys as a line has them.
pub(crate) fn borrowed<K: AsRef<str>>(keys: &[(K, Owned)]) -> Vec<(&str, Value<'_>)> {
    keys.iter()
        .map(|(key, value)| {
            let value = match value {
                Owned::I64(n) => Value::I64(*n),
                Owned::U64(n) => Value::U64(*n),
                Owned::F64(n) => Value::F64(*n),
                Owned::Text(text) => Value::Str(text),
            };
            (key.as_ref(), value)
        })
        .collect()
}

/// The stream of a target: `my_app::http` is `my_app/http`.
pub(crate) fn stream_name(target: &str) -> String {
    target.split("::").filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}
