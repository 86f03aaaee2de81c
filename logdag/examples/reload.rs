//! A configuration that replaces another one while lines flow.

#![allow(missing_docs, clippy::print_stdout, clippy::expect_used)]

use logdag::config::Config;
use logdag::{Graph, debug};

const QUIET: &str = r#"
[[log]]
name = "ring"
type = "memory"

[[log]]
name = "app"
outlet = [{ name = "ring", min_level = "info" }]
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = Graph::new();
    Config::from_text("app.toml", QUIET)?.apply(&graph)?;
    let app = graph.stream("app")?;
    debug!(app, "before: nobody wants this line");

    let verbose = QUIET.replace("min_level = \"info\"", "min_level = \"debug\"");
    Config::from_text("app.toml", &verbose)?.replace(&graph)?;
    debug!(app, "after: this one is kept");

    // A wrong configuration is refused as a whole, and the old one stays in force.
    let wrong = verbose.replace("min_level", "min_levle");
    println!("{}", Config::from_text("app.toml", &wrong).expect_err("an unknown key"));
    debug!(app, "still kept");

    let lines = graph.memory_last("ring", 10).unwrap_or_default();
    assert_eq!(lines.len(), 2);
    Ok(())
}
