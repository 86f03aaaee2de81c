//! The last lines in memory, and a filter that decides which of them are errors.

#![allow(missing_docs, clippy::print_stdout)]

use logdag::{Graph, log};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let graph = Graph::new();
    graph.add_memory("recent", 1000, 1_000_000)?;
    graph.add_memory("errors", 100, 100_000)?;
    let web = graph.stream("web")?;
    graph.add_outlet("web", "recent", None)?;
    graph.add_outlet("web", "errors", Some("status >= 500"))?;
    for (path, status) in [("/", 200), ("/page/4", 503), ("/missing", 404)] {
        log!(web, path = path, status = status; "GET {path}");
    }
    for ring in ["recent", "errors"] {
        let lines = graph.memory_last(ring, 10).unwrap_or_default();
        println!("{ring}:");
        for line in lines {
            println!("  {}", String::from_utf8_lossy(&line.bytes));
        }
    }
    Ok(())
}
