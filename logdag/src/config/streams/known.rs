//! Names that mean something in a configuration, and what each has an effect on.

use crate::config::checked::BUILT_IN_TYPES;
use crate::config::element::{Element, Place};
use crate::config::error::{ConfigError, Result};

/// Attributes of a stream. Streams inherit them.
pub(in crate::config) const ATTRIBUTES: &[&str] = &[
    "name",
    "type",
    "path",
    "make_dirs",
    "format",
    "disabled",
    "debug",
    "facility",
    "timestamps",
    "level",
    "keys",
    "target",
    "source",
    "spans",
    "escape",
    "redact",
    "redact_pattern",
    "stats",
    "dedup_seconds",
    "require_env",
    "rotate_seconds",
    "retain_seconds",
    "rotate_bytes",
    "retain_bytes",
    "retain_count",
    "rotate_at",
    "rotate_zone",
    "rotate_name",
    "rotate_on_start",
    "compress",
    "latest",
    "mode",
    "owner",
    "group",
    "when_full",
    "max_line",
    "queue_bytes",
    "drain_seconds",
];
/// Attributes of an outlet.
pub(super) const OUTLET_ATTRIBUTES: &[&str] = &["name", "filter", "min_level", "limit", "sample"];
/// Attributes of a metric, without those of its outlet.
pub(super) const METRIC_ATTRIBUTES: &[&str] = &[
    "name",
    "type",
    "value",
    "buckets",
    "scale",
    "labels",
    "max_series",
    "help",
    "filter",
    "min_level",
    "limit",
    "sample",
];
/// Attributes of an `<http>`.
pub(super) const HTTP_ATTRIBUTES: &[&str] =
    &["address", "token_file", "tls_cert", "tls_key", "tls_client_ca", "allow_host"];
/// Elements with a meaning; all others only group.
pub(super) const ELEMENTS: &[&str] = &["log", "outlet", "config", "include", "metric"];
/// The same, and the element that they are in.
pub(super) const ELEMENTS_AND_LOGS: &[&str] = &["log", "logs", "outlet", "config", "include"];
/// Attributes of a `<config>`.
pub(super) const CONFIG_ATTRIBUTES: &[&str] = &["id", "inherit"];
/// Keys of `<config>` that built-in types know.
pub(super) const CONFIG_KEYS: &[&str] = &["segment_size", "precommit", "facility", "identifier", "timeout"];
/// The keys that are sizes of a jlog.
pub(super) const JLOG_SIZES: &[&str] = &["segment_size", "precommit"];
/// The keys that a stream or a group can have; in TOML, elements are keys, too.
pub(super) fn keys_of(place: &Place) -> Vec<&'static str> {
    let elements = if place.source.toml { ELEMENTS } else { &[] };
    ATTRIBUTES.iter().chain(elements).copied().collect()
}

/// What is to be said of an attribute that streams and groups of streams do not have.
pub(super) fn unknown_attribute(place: &Place, name: &str, on: &str) -> ConfigError {
    if OUTLET_ATTRIBUTES.contains(&name) && name != "name" {
        return place.error(format!("unknown attribute {name:?} on {on}: it belongs on an outlet"));
    }
    place.unknown("attribute", name, on, &keys_of(place))
}

/// Whether a text is a configuration, also one with mistakes, so that errors may quote it. The name
/// of its file does not say so: it may be a link to another one.
pub(in crate::config) fn is_configuration(text: &str, toml: bool) -> bool {
    const OURS: [&str; 6] = ["logs", "log", "outlet", "include", "metric", "http"];
    let known = |name: &str| OURS.iter().any(|element| element.eq_ignore_ascii_case(name));
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return true;
    }
    if toml {
        let mut names = text.lines().map(|line| {
            let name = line.trim_start().trim_start_matches('[').trim_start();
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            (&name[..end], name[end..].trim_start())
        });
        names.any(|(name, rest)| known(name) && rest.starts_with(['=', ']', '.']))
    } else {
        let mut names = text.split('<').skip(1).map(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).unwrap_or(rest.len());
            &rest[..end]
        });
        names.any(known)
    }
}

/// Refuses meaningless attributes of a TOML table.
pub(in crate::config) fn check_attributes(table: &Element) -> Result<()> {
    let unknown = |(name, ..): &&(String, String, Place)| !ATTRIBUTES.contains(&&**name);
    match table.attributes.iter().find(unknown) {
        None => Ok(()),
        Some((name, _, place)) => Err(unknown_attribute(place, name, &table.shown())),
    }
}

/// Whether an attribute of a stream has an effect on a sink of a type, none being a stream without
/// one. What types of an application do with theirs is their own matter.
pub(super) fn has_effect(attribute: &str, kind: Option<&str>) -> bool {
    let is_file = matches!(kind, Some("file" | "file_synch"));
    match attribute {
        _ if kind.is_some_and(|kind| !BUILT_IN_TYPES.contains(&kind)) => true,
        "path" => !matches!(kind, None | Some("stdout" | "stderr")),
        "make_dirs" => is_file || kind == Some("jlog"),
        "latest" | "mode" | "owner" | "group" => is_file,
        name if name.starts_with("rotate_") || name.starts_with("retain_") || name == "compress" => is_file,
        // Lines are written at once there.
        "when_full" | "queue_bytes" => !matches!(kind, None | Some("memory" | "metric" | "file_synch")),
        "format" | "escape" | "spans" => !matches!(kind, None | Some("metric")),
        "dedup_seconds" | "max_line" | "drain_seconds" => kind.is_some(),
        _ => true,
    }
}

/// The same for a key of the stream's `<config>`.
pub(super) fn config_has_effect(key: &str, kind: &str) -> bool {
    match key {
        _ if !BUILT_IN_TYPES.contains(&kind) => true,
        "segment_size" | "precommit" => kind == "jlog",
        "facility" => kind == "syslog",
        "identifier" | "timeout" => matches!(kind, "syslog" | "journald"),
        // Keys that no type knows get a different warning.
        _ => true,
    }
}
