//! A file with a queue that is rotated by size: nothing is lost, and the newest three files are
//! kept.

#![allow(missing_docs, clippy::print_stdout)]

use logdag::config::Config;
use logdag::{Graph, log};

const CONFIGURATION: &str = r#"
[[log]]
name = "app"
type = "file"
path = "PATH"
timestamps = true
level = true
rotate_bytes = "100KiB"
retain_count = 3
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("app.log");
    let graph = Graph::new();
    let text = CONFIGURATION.replace("PATH", &path.display().to_string());
    Config::from_text("rotated.toml", &text)?.apply(&graph)?;
    graph.go_async();
    let app = graph.stream("app")?;
    for n in 0..20_000 {
        log!(app, "line {n} of the example");
    }
    // Everything is written and durable when this returns.
    graph.flush()?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        files.push((entry.file_name(), entry.metadata()?.len()));
    }
    files.sort();
    for (name, bytes) in &files {
        println!("{:>9} {}", bytes, name.to_string_lossy());
    }
    assert_eq!(files.len(), 4);
    Ok(())
}
