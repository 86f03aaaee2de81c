//! Configurations: any text, elements that the bytes describe, or a model that is written in XML
//! and in TOML.

use std::collections::HashMap;

use logdag::config::{Config, ConfigError};
use logdag::{Filter, Graph, Level, Location, StreamConfig, StreamInfo, StreamOptions};

use super::{Disk, Input, model, switches};

/// No such directory exists, so that nothing is included.
pub(super) const XML: &str = "/nowhere/at.all/app.xml";
pub(super) const TOML: &str = "/nowhere/at.all/app.toml";

const ELEMENTS: [&str; 10] =
    ["log", "outlet", "log", "outlet", "g", "log", "config", "include", "segment_size", "logs"];
pub(super) const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "a/b", "a/b/c", "error", "stderr", "debug", "error/x", "", "notice/\u{e4}"];
/// Attributes, some with values that only they have.
pub(super) const ATTRIBUTES: [(&str, &[&str]); 17] = [
    ("type", &["memory", "file", "file_synch", "jlog", "stdout", "stderr", "mine", ""]),
    ("path", &["/nowhere/at.all/x", "10,1000", "0", "", "/nowhere/at.all/feed(a,~b,*)"]),
    ("format", &["plain", "json", "event", "xml"]),
    ("filter", &["a = 1", "not(message ~ 'x')", "and(line &gt; 1,\n exists(b))", "a &lt; ", "b='\u{e4}"]),
    ("disabled", &["true", "off"]),
    ("debug", &["ON", "maybe"]),
    ("facility", &["on", "false"]),
    ("timestamps", &["True", "ENV:off:{LOGDAG_NOT_THERE}"]),
    ("stats", &["on"]),
    ("dedup_seconds", &["5", "18446744073709551616"]),
    ("require_env", &["PATH", "!PATH", "PATH~^/", "LOGDAG_NOT_THERE=x", "PATH~(", "=x"]),
    ("rotate_seconds", &["600", "599", " 86400 "]),
    ("retain_bytes", &["0", "18446744073709551615"]),
    ("when_full", &["block", "drop", "no"]),
    ("id", &["a", "b", "c"]),
    ("inherit", &["a", "b", "c", "d"]),
    ("file", &["x.xml"]),
];

/// A document.
pub fn config(_: Disk, data: &[u8]) {
    let (mode, rest) = switches(data);
    match mode & 3 {
        1 => check(XML, &elements(rest)),
        3 => model::both(rest),
        raw => {
            if let Ok(text) = std::str::from_utf8(rest) {
                check(if raw == 0 { XML } else { TOML }, text);
            }
        }
    }
}

/// A document in XML, with errors of every kind.
fn elements(data: &[u8]) -> String {
    let mut input = Input(data);
    let mut text = "<app>\n<logs>".to_owned();
    let mut open = vec!["app", "logs"];
    while !input.0.is_empty() && text.len() < 4096 {
        match input.below(4) {
            0 if open.len() > 2 => text.push_str(&format!("</{}>", open.pop().unwrap_or_default())),
            1 => text.push_str(["\n", " 5 ", "\t", "<!-- - -->", "\r\n", "\u{e4}", "&amp;"][input.below(7)]),
            _ => {
                let name = ELEMENTS[input.below(ELEMENTS.len())];
                text.push_str(&format!("<{name}"));
                if matches!(name, "log" | "outlet") && input.below(20) > 0 {
                    text.push_str(&format!(" name=\"{}\"", NAMES[input.below(NAMES.len())]));
                }
                let mut last = 0;
                for _ in 0..input.below(3) {
                    // In ascending order no attribute occurs twice.
                    last += 1 + input.below(6);
                    let Some((key, values)) = ATTRIBUTES.get(last - 1) else { break };
                    text.push_str(&format!(" {key}=\"{}\"", values[input.below(values.len())]));
                }
                if input.below(2) == 0 {
                    text.push_str("/>");
                } else {
                    text.push('>');
                    open.push(name);
                }
            }
        }
    }
    open.iter().rev().for_each(|name| text.push_str(&format!("</{name}>")));
    text
}

fn check(file: &str, text: &str) {
    // An absolute path could include anything.
    let leads_away = ["\"/", "'/", "\n/", "&#", "\\", "ENV:"].iter().any(|s| text.contains(s));
    if leads_away && text.contains("include") {
        return;
    }
    match Config::from_text(file, text) {
        Ok(config) => {
            // This opens nothing.
            let _ = config.check_types(&Graph::new()).inspect_err(|e| check_error(file, text, e));
            apply(text, &config);
        }
        Err(e) => check_error(file, text, &e),
    }
}

pub(super) fn check_error(file: &str, text: &str, e: &ConfigError) {
    let shown = e.to_string();
    assert!(shown.starts_with(file) && e.file == file, "{e}");
    assert!(!e.message.is_empty() && shown.contains(&e.message));
    if e.line == 0 {
        assert!(file == XML && e.text.is_empty() && e.message.contains("no root"), "it was read: {e}");
        return;
    }
    let line = text.split('\n').nth(e.line as usize - 1).unwrap_or_else(|| panic!("no such line: {shown}"));
    let shown_line = text.lines().nth(e.line as usize - 1).unwrap_or("");
    assert!(if line.len() > 1024 { shown_line.contains(&e.text) } else { shown_line == e.text }, "{e:?}");
    let columns = 1..=line.chars().count() + 1;
    assert!(columns.contains(&(e.column as usize)), "no such column:\n{shown}");
}

/// Sets a graph up, with rings instead of all sinks, and logs to it.
pub(super) fn apply(text: &str, config: &Config) {
    let graph = Graph::new();
    // A ring in place of stderr, so that its lines can be counted.
    let ring = logdag::SinkSpec::new("memory", "");
    let options = StreamOptions::new().sink(ring);
    graph.configure("stderr", options).unwrap();
    let mut list = config.streams().to_vec();
    for stream in &mut list {
        if let Some(sink) = stream.options.sink.as_mut().filter(|sink| graph.has_type(&sink.kind)) {
            (sink.kind, sink.path) = ("memory".to_owned(), String::new());
        }
    }
    graph.apply(list.clone()).unwrap_or_else(|e| panic!("{e}: what was read can be set up: {text}"));
    let everything = |graph: &Graph| {
        graph.names().iter().map(|name| format!("{:?}", graph.describe(name).unwrap())).collect::<Vec<_>>()
    };
    let before = everything(&graph);
    graph.apply(list.clone()).unwrap();
    assert_eq!(everything(&graph), before, "the second time nothing changes: {text}");
    for stream in &list {
        let found = graph.describe(&stream.name).unwrap();
        let outlets = stream
            .outlets
            .iter()
            .map(|(to, filter)| (to.clone(), filter.as_ref().map(|f| f.text().to_owned())));
        assert!(stream.outlets.is_empty() || outlets.eq(found.outlets), "{text}");
        for (_, filter) in &stream.outlets {
            assert!(filter.as_ref().is_none_or(|filter| Filter::parse(filter.text()).is_ok()));
        }
    }
    let certain = list.iter().all(|StreamConfig { options, outlets, .. }| {
        options.dedup.is_none()
            && options.max_line >= 1 << 16
            && outlets.iter().all(|(_, filter)| filter.is_none())
    });
    let names = graph.names();
    let described: HashMap<&str, StreamInfo> =
        names.iter().map(|name| (&**name, graph.describe(name).unwrap())).collect();
    let rings: Vec<&str> =
        names.iter().map(|name| &**name).filter(|name| described[name].kind == "memory").collect();
    let lines = || rings.iter().map(|ring| graph.describe(ring).unwrap().counters.lines).sum::<u64>();
    let mut known = HashMap::new();
    for name in &names {
        let written = lines();
        graph.stream(name).unwrap().log(Level::Info, &Location { file: "a.rs", line: 1 }, &[], &"x");
        let ways = ways(&described, name, &mut known);
        assert_eq!(described[&**name].enabled_below, ways > 0, "{name}: {text}");
        assert!(!certain || lines() - written == ways, "{name}: {text}");
    }
    graph.go_async();
    graph.flush().unwrap();
    graph.go_sync();
}

/// The number of paths from a line to a sink.
fn ways<'a>(
    described: &'a HashMap<&str, StreamInfo>,
    name: &'a str,
    known: &mut HashMap<&'a str, u64>,
) -> u64 {
    if let Some(ways) = known.get(name) {
        return *ways;
    }
    let stream = &described[name];
    let mut sum = 0;
    if stream.enabled {
        sum = u64::from(stream.kind == "memory");
        sum += stream.outlets.iter().map(|(to, _)| ways(described, to, known)).sum::<u64>();
    }
    known.insert(name, sum);
    sum
}
