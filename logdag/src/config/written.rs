//! Writes a graph as a configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::filter::Filter;
use crate::graph::Graph;
use crate::options::{StreamConfig, WhenFull};
use crate::redact::Redaction;
use crate::sink::{RotatedName, Rotation, Zone};

/// Writes the current streams of a graph as a configuration in TOML. Reading it gives a graph with
/// the same streams, outlets and filters. Built-in streams are left out unless they were changed.
///
/// Settings that only a program can make are left out: hooks, levels of the environment, and
/// registered types (their streams name the type). Durations, and the periods of limits, are
/// rounded up to seconds.
///
/// ```
/// use logdag::{Graph, SinkSpec, StreamOptions};
///
/// let graph = Graph::new();
/// graph.configure("ring", StreamOptions::new().sink(SinkSpec::memory(100, 10_000)))?;
/// graph.add_outlet("app", "ring", Some("status >= 500"))?;
/// let text = logdag::config::to_toml(&graph);
/// assert!(text.contains("outlet = [{ name = \"ring\", filter = \"status >= 500\" }]"), "{text}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_toml(graph: &Graph) -> String {
    let mut out = String::new();
    let redaction = graph.redaction();
    write_redaction(&mut out, &redaction);
    let built_in: BTreeMap<String, StreamConfig> =
        Graph::new().configs().into_iter().map(|stream| (stream.name.clone(), stream)).collect();
    for stream in graph.configs() {
        if built_in.get(&stream.name) != Some(&stream) {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str("[[log]]\n");
            write_stream(&mut out, &stream, &redaction);
        }
    }
    out
}

/// A text in quotation marks.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{key} = {value}");
}

fn write_redaction(out: &mut String, redaction: &Redaction) {
    let (keys, patterns) = redaction.parts();
    if !keys.is_empty() {
        line(out, "redact", quoted(&keys.join(",")));
    }
    match &*patterns {
        [] => {}
        [one] => line(out, "redact_pattern", quoted(one)),
        many => {
            let all: Vec<String> = many.iter().map(|pattern| format!("(?:{pattern})")).collect();
            line(out, "redact_pattern", quoted(&all.join("|")));
        }
    }
}

/// Seconds, rounded up.
fn seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn write_rotation(out: &mut String, rotation: &Rotation) {
    let numbers = [
        ("rotate_seconds", rotation.seconds),
        ("rotate_bytes", rotation.bytes),
        ("retain_seconds", rotation.retain_seconds),
        ("retain_bytes", rotation.retain_bytes),
        ("retain_count", rotation.retain_count),
    ];
    for (key, n) in numbers.into_iter().filter(|(_, n)| *n > 0) {
        line(out, key, n);
    }
    if let Some(at) = rotation.at {
        line(out, "rotate_at", quoted(at.name()));
    }
    if rotation.on_start {
        line(out, "rotate_on_start", true);
    }
    if rotation.zone != Zone::default() {
        line(out, "rotate_zone", quoted(&rotation.zone.to_string()));
    }
    if rotation.name != RotatedName::default() {
        line(out, "rotate_name", quoted(&rotation.name.to_string()));
    }
    if let Some(method) = rotation.compress {
        line(out, "compress", quoted(method.name()));
    }
}

fn write_stream(out: &mut String, stream: &StreamConfig, of_all: &Redaction) {
    let StreamConfig { name, options, outlets } = stream;
    line(out, "name", quoted(name));
    if let Some(sink) = &options.sink {
        line(out, "type", quoted(&sink.kind));
        if !sink.path.is_empty() {
            line(out, "path", quoted(&sink.path));
        }
        if sink.make_dirs {
            line(out, "make_dirs", true);
        }
        write_rotation(out, &sink.rotation);
        if let Some(latest) = &sink.latest {
            line(out, "latest", quoted(&latest.to_string_lossy()));
        }
        if let Some(mode) = sink.access.mode {
            line(out, "mode", quoted(&format!("{mode:o}")));
        }
        for (key, id) in [("owner", &sink.access.owner), ("group", &sink.access.group)] {
            if let Some(id) = id {
                line(out, key, quoted(id));
            }
        }
    }
    if options.format != crate::format::Format::default() {
        line(out, "format", quoted(options.format.name()));
    }
    let flags = options.flags;
    // The built-in stream has timestamps by default.
    if flags.timestamps || name == "stderr" {
        line(out, "timestamps", flags.timestamps);
    }
    let on = [
        ("facility", flags.facility),
        ("debug", flags.debug),
        ("level", flags.level),
        ("keys", flags.keys),
        ("target", flags.target),
        ("source", flags.source),
        ("stats", options.stats),
        ("disabled", !options.enabled),
    ];
    for (key, _) in on.into_iter().filter(|(_, on)| *on) {
        line(out, key, true);
    }
    for (key, _) in [("escape", options.escape), ("spans", options.spans)].into_iter().filter(|(_, on)| !on) {
        line(out, key, false);
    }
    if options.redaction != *of_all {
        write_redaction(out, &options.redaction);
    }
    if let Some(within) = options.dedup {
        line(out, "dedup_seconds", seconds(within));
    }
    if let Some(when_full) = options.when_full {
        line(out, "when_full", quoted(if when_full == WhenFull::Drop { "drop" } else { "block" }));
    }
    for (key, n, otherwise) in [
        ("max_line", options.max_line, crate::StreamOptions::MAX_LINE),
        ("queue_bytes", options.queue_bytes, crate::StreamOptions::QUEUE_BYTES),
    ] {
        if n != otherwise {
            line(out, key, n.max(1));
        }
    }
    if options.drain_limit != crate::StreamOptions::DRAIN_LIMIT {
        line(out, "drain_seconds", seconds(options.drain_limit));
    }
    if !outlets.is_empty() {
        let outlets: Vec<String> =
            outlets.iter().map(|(to, filter)| written_outlet(to, filter.as_ref())).collect();
        line(out, "outlet", format_args!("[{}]", outlets.join(", ")));
    }
    if let Some(sink) = options.sink.as_ref().filter(|sink| !sink.config.is_empty()) {
        let config: Vec<String> =
            sink.config.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
        line(out, "config", format_args!("{{ {} }}", config.join(", ")));
    }
}

fn written_outlet(to: &str, filter: Option<&Filter>) -> String {
    let Some(filter) = filter else { return quoted(to) };
    let (expression, limit, sample) = filter.parts();
    let mut out = format!("{{ name = {}", quoted(to));
    // Writing to a String cannot fail.
    if !expression.is_empty() {
        let _ = write!(out, ", filter = {}", quoted(expression));
    }
    if sample > 0 {
        let _ = write!(out, ", sample = \"1/{sample}\"");
    }
    if let Some(limit) = limit {
        let _ = write!(out, ", limit = \"{}/{}s\"", limit.lines, seconds(limit.per).max(1));
    }
    out + " }"
}

#[cfg(all(test, feature = "toml"))]
mod tests {
    use super::*;
    use crate::config::Config;

    const EVERYTHING: &str = r#"
redact = "password,token"

[[log]]
name = "file"
type = "file"
path = "/nowhere/a \"b\"\\c\u0007.log"
make_dirs = true
rotate_bytes = "10MB"
rotate_at = "daily"
rotate_zone = "Europe/Berlin"
rotate_name = "{name}-%F{ext}"
rotate_on_start = true
retain_count = 5
retain_bytes = "1GiB"
retain_seconds = "7d"
latest = "/nowhere/latest"
mode = "640"
owner = "root"
group = "root"
format = "json"
debug = true
level = true
keys = true
target = true
source = true
facility = true
timestamps = true
dedup_seconds = 5
when_full = "drop"
max_line = 1000
queue_bytes = 2000
drain_seconds = 7
stats = true
escape = false
spans = false
redact = "secret"
redact_pattern = "[0-9]{16}"

[[log]]
name = "ring"
type = "memory"
path = "10,1000"
disabled = true

[[log]]
name = "stderr"
timestamps = false

[[log]]
name = "feed"
type = "jlog"
path = "/nowhere/feed(a,*)"
config = { segment_size = "1000", precommit = "64" }

[[log]]
name = "metric/took_seconds"
type = "metric"
path = "took_seconds"
config = { kind = "histogram", value = "took", buckets = "0.1,1", scale = "0.001", labels = "a,level", help = "x", max_series = "7" }

[[log]]
name = "ä/b"
outlet = ["stderr", { name = "ring", filter = "and(a > 1, b = 'x\"y')", min_level = "warn", sample = "1/10", limit = "100/min" }, { name = "file", limit = "3/s" }, { name = "feed", min_level = "error" }]
"#;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let read = |text: &str| Config::from_text("a.toml", text).unwrap();
        let first = read(EVERYTHING);
        let mut text = String::new();
        write_redaction(&mut text, first.redaction());
        for stream in first.streams() {
            text.push_str("[[log]]\n");
            write_stream(&mut text, stream, first.redaction());
        }
        let second = read(&text);
        assert_eq!(second.streams(), first.streams(), "{text}");
        assert_eq!(second.redaction(), first.redaction());
        assert_eq!(second.warnings(), [], "{text}");
    }

    #[test]
    fn changes_of_a_running_graph_are_in_it() {
        let graph = Graph::new();
        assert_eq!(to_toml(&graph), "");
        let config =
            "[[log]]\nname = \"ring\"\ntype = \"memory\"\npath = \"10,1000\"\n\n[[log]]\nname = \"app\"\n";
        Config::from_text("a.toml", config).unwrap().apply(&graph).unwrap();
        graph.add_outlet("app", "ring", Some("status >= 500")).unwrap();
        graph.add_outlet("app", "stderr", None).unwrap();
        graph.set_enabled("ring", false).unwrap();
        graph.set_flags("stderr", crate::Flags::default()).unwrap();
        graph.set_property("ring", "note", "of \"ours\"").unwrap();
        let text = to_toml(&graph);
        let again = Graph::new();
        Config::from_text("b.toml", &text).unwrap().apply(&again).unwrap();
        assert_eq!(again.configs(), graph.configs(), "{text}");
        assert_eq!(to_toml(&again), text);
        let (options, app) = (again.options("ring").unwrap(), again.describe("app").unwrap());
        assert!(!options.enabled);
        assert_eq!(
            app.outlets,
            [("ring".to_owned(), Some("status >= 500".to_owned())), ("stderr".to_owned(), None)]
        );
    }
}
