//! Logs events to a durable feed, and reads them as a subscriber.

#![allow(missing_docs, clippy::print_stdout)]

use jlog_core::{Jlog, Wait};
use logdag::config::Config;
use logdag::{Graph, error, info};

const CONFIGURATION: &str = r#"
[[log]]
name = "alerts"
type = "jlog"
path = "FEED(pager)"
format = "event"

[[log]]
name = "app"
outlet = [{ name = "alerts", min_level = "error" }]
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let feed = directory.path().join("feed");
    let graph = Graph::new();
    let text = CONFIGURATION.replace("FEED", &feed.display().to_string());
    Config::from_text("feed.toml", &text)?.apply(&graph)?;
    graph.go_async();
    let app = graph.stream("app")?;
    info!(app, "started");
    error!(app, disk = "sda"; "out of space");
    graph.flush()?;

    let mut reader = Jlog::open(&feed)?.reader("pager")?;
    let mut alerts = 0;
    while let Some(batch) = reader.next_batch(Wait::No)? {
        for message in &batch {
            print!("{}", String::from_utf8_lossy(message.body()));
            alerts += 1;
        }
    }
    assert_eq!(alerts, 1);
    Ok(())
}
