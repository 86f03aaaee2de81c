//! The output of `graph` and `decode`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use logdag::config::Config;
use logdag::{Graph, Redaction, SinkSpec};

use crate::Failure;

/// How a graph is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Dot,
    Json,
}

/// The graph of a configuration, without opening its sinks.
pub(crate) fn show(config: &Config, shape: Shape) -> Result<String, Failure> {
    use std::fmt::Write;
    let graph = Graph::new();
    let mut bare = config.streams().to_vec();
    let mut unknown = BTreeSet::new();
    for stream in &mut bare {
        match &mut stream.options.sink {
            Some(sink) if graph.has_type(&sink.kind) => {
                // A ring replaces every sink, because it opens nothing.
                sink.kind = "memory".to_owned();
                sink.path = String::new();
            }
            sink => unknown.extend(sink.take().map(|_| stream.name.clone())),
        }
    }
    graph.apply(bare).map_err(|e| e.error)?;
    graph.set_redaction(config.redaction().clone());
    let mut out = String::new();
    // Writing to a String cannot fail.
    if shape == Shape::Dot {
        out.push_str("digraph logdag {\n  rankdir=LR;\n  node [shape=box];\n");
    }
    let sinks = config.streams().iter().filter_map(|s| Some((&*s.name, s.options.sink.as_ref()?)));
    let sinks: BTreeMap<&str, &SinkSpec> = sinks.collect();
    let left_out: BTreeMap<&str, &String> =
        config.left_out().iter().map(|(name, why)| (&**name, why)).collect();
    for name in graph.names() {
        let Some(mut stream) = graph.describe(&name) else { continue };
        let sink = sinks.get(&*name).copied();
        let rotation = sink.map_or_else(String::new, |sink| sink.rotation.to_string());
        if shape == Shape::Json {
            if let Some(sink) = sink {
                (stream.kind, stream.path) = (sink.kind.clone(), sink.path.clone());
            }
            // `to_json` writes an object.
            let mut json: serde_json::Value = serde_json::from_str(&stream.to_json()).unwrap_or_default();
            if !rotation.is_empty() {
                json["rotation"] = rotation.into();
            }
            let _ = writeln!(out, "{json}");
            continue;
        }
        let sink = sink.map(|sink| format!("{} {}", sink.kind, sink.path).trim().to_owned());
        let sink = sink.or_else(|| (!stream.kind.is_empty()).then(|| stream.kind.clone()));
        let why = if !stream.enabled {
            Some("disabled".to_owned())
        } else if unknown.contains(&name) {
            Some("its type is not one of logdag's own".to_owned())
        } else if let Some(condition) = left_out.get(&*name).filter(|_| sink.is_none()) {
            Some(format!("left out: require_env {condition:?} does not hold"))
        } else if !stream.enabled_below {
            let why = if leads_to_a_sink(&graph, &name) {
                "what it leads to is disabled"
            } else {
                "leads to no sink"
            };
            Some(why.to_owned())
        } else {
            None
        };
        if shape == Shape::Dot {
            let label = sink.map_or_else(|| name.clone(), |sink| format!("{name}: {sink}"));
            let style = if why.is_some() { ", style=dashed" } else { "" };
            let _ = writeln!(out, "  {name:?} [label={}{style}];", quoted(&label));
            for (to, filter) in &stream.outlets {
                let label = filter.as_ref().map_or_else(String::new, |f| format!(" [label={}]", quoted(f)));
                let _ = writeln!(out, "  {name:?} -> {to:?}{label};");
            }
            continue;
        }
        let _ = write!(out, "{name}");
        let _ = sink.map(|sink| write!(out, "  [{sink}]"));
        let _ = why.map(|why| write!(out, "  ({why})"));
        out.push('\n');
        if !rotation.is_empty() {
            let _ = writeln!(out, "  {rotation}");
        }
        out.push_str(&redacted(&stream.redaction));
        for (to, filter) in &stream.outlets {
            let _ = match filter {
                Some(filter) => writeln!(out, "  -> {to}  if {filter}"),
                None => writeln!(out, "  -> {to}"),
            };
        }
    }
    if shape == Shape::Dot {
        out.push_str("}\n");
    }
    Ok(out)
}

/// The line that shows what is redacted in a stream's lines; empty if nothing is.
fn redacted(redaction: &Redaction) -> String {
    if redaction.is_empty() {
        return String::new();
    }
    let (keys, patterns) = redaction.parts();
    let patterns = patterns.into_iter().map(|pattern| format!("/{pattern}/"));
    let all: Vec<String> = keys.into_iter().map(str::to_owned).chain(patterns).collect();
    format!("  redacts {}\n", all.join(", "))
}

/// Whether a stream, or one that it leads to, has a sink, enabled or not.
fn leads_to_a_sink(graph: &Graph, name: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![name.to_owned()];
    while let Some(name) = ahead.pop() {
        let Some(stream) = graph.describe(&name) else { continue };
        if !stream.kind.is_empty() {
            return true;
        }
        if seen.insert(name) {
            ahead.extend(stream.outlets.into_iter().map(|(to, _)| to));
        }
    }
    false
}

/// Shows every whole line, even if the file ends within a line.
pub(crate) fn decode(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut decode = |name: &str, from: &mut dyn Read| -> Result<(), Failure> {
        let mut broken = None;
        let read = logline::for_each(io::BufReader::new(from), |line| {
            let parsed = logline::LogLine::parse(line);
            let line = parsed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let mut text = Vec::new();
            line.write_json(&mut text);
            text.push(b'\n');
            out.write_all(&text).inspect_err(|e| broken = Some(e.kind()))
        });
        match broken {
            // A reader that has closed the pipe is no error.
            Some(io::ErrorKind::BrokenPipe) => Ok(()),
            Some(_) => read.map_err(|e| format!("standard output: {e}").into()),
            None => read.map_err(|e| format!("{name}: {e}").into()),
        }
    };
    let decoded = if files.is_empty() {
        decode("standard input", &mut io::stdin().lock())
    } else {
        files.iter().try_for_each(|file| {
            let mut opened = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
            decode(&file.display().to_string(), &mut opened)
        })
    };
    match out.flush() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}").into()),
        _ => decoded.map(|()| ExitCode::SUCCESS),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
