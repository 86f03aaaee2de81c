//! Files in the format `flatbuffer`, as people read them.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use logdag::config::Config;
use logdag::{Graph, log};

fn decode(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_logdag")).arg("decode").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn lines_are_shown_up_to_where_a_file_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let shown = path.to_str().unwrap();
    let config = format!("[[log]]\nname = 'l'\ntype = 'file'\npath = '{shown}'\nformat = 'flatbuffer'");
    let graph = Graph::new();
    Config::from_text("c.toml", &config).unwrap().apply(&graph).unwrap();
    let stream = graph.stream("l").unwrap();
    for n in 0..3 {
        log!(stream, n = n; "line\n{n}");
    }
    let output = decode(&[shown, shown]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line["message"], &line["facility"]), (&format!("line\n{}", n % 3).into(), &"l".into()));
        assert_eq!(
            (&line["n"], &line["threadid"]),
            (&(n % 3).into(), &nix::unistd::gettid().as_raw().into())
        );
    }
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let output = decode(&[shown]);
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 2));
    let error = text(&output.stderr);
    assert!(error.contains(shown) && error.contains("a line is cut"), "{error}");
    std::fs::write(&path, "this is text\n").unwrap();
    let error = text(&decode(&[shown]).stderr);
    assert!(error.contains("length-prefixed FlatBuffers"), "{error}");
    let error = text(&decode(&["/nowhere/log"]).stderr);
    assert!(error.contains("/nowhere/log: No such file"), "{error}");
}
