//! Feeds that hold log lines as FlatBuffers.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use jlog_core::{Jlog, Start};
use logdag::config::Config;
use logdag::{Graph, log};

#[test]
fn log_lines_of_a_feed_are_shown_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let log = Jlog::create_or_open(&feed).unwrap();
    log.subscribe("reader", Start::Beginning).unwrap();
    let path = feed.to_str().unwrap();
    let config = format!("[[log]]\nname = 'web'\ntype = 'jlog'\npath = '{path}'\nformat = 'flatbuffer'");
    let graph = Graph::new();
    Config::from_text("c.toml", &config).unwrap().apply(&graph).unwrap();
    log!(graph.stream("web").unwrap(), status = 503, path = "/a"; "no\nanswer");
    graph.flush().unwrap();
    log.writer().unwrap().append("no log line").unwrap();
    let read = ["read", path, "reader", "-o", "logline"];
    let output = Command::new(env!("CARGO_BIN_EXE_jlog")).args(read).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gist = ["facility", "message", "status", "path"].map(|key| lines[0][key].clone());
    assert_eq!(serde_json::json!(gist), serde_json::json!(["web", "no\nanswer", 503, "/a"]));
    assert_eq!((lines.len(), lines[1]["body"].as_str()), (2, Some("no log line")));
}
