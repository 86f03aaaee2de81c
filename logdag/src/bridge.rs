//! What the ways in from `log` and `tracing` share.

/// The stream of a target: `my_app::http` is `my_app/http`.
pub(crate) fn stream_name(target: &str) -> String {
    target.split("::").filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}
