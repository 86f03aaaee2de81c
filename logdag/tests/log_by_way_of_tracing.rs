//! With its default features, `tracing_subscriber`'s `init` takes over the crate `log`.

#![allow(clippy::unwrap_used)]

use logdag::tracing_layer::GraphLayer;
use logdag::{Format, Graph};
use tracing_subscriber::layer::SubscriberExt;

/// The only test of its process, because both are set for good.
#[test]
fn records_arrive_as_they_would_without_tracing_between() {
    let graph = Graph::new();
    graph.add_memory("my_app", 10, 10_000).unwrap();
    graph.set_format("my_app", Format::Event).unwrap();
    let flags = logdag::Flags::new().source(true).target(true);
    graph.set_flags("my_app", flags).unwrap();
    tracing_log::LogTracer::init().unwrap();
    let subscriber = tracing_subscriber::registry().with(GraphLayer::new(graph.clone()).alone());
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let span = tracing::info_span!("request", id = 7);
    span.in_scope(|| log::warn!(target: "my_app::http", "from log {}", 1));
    let line = line!() - 1;
    tracing::info!(target: "my_app::http", "from tracing");

    let lines = graph.memory_last("my_app", 10).unwrap();
    let parsed = |n: usize| serde_json::from_slice::<serde_json::Value>(&lines[n].bytes).unwrap();
    let mut event = parsed(0);
    assert!(event.as_object_mut().unwrap().remove("timestamp").is_some());
    let expected = serde_json::json!({
        "level": "warning", "event": "from log 1", "stream": "my_app/http", "file": file!(), "line": line,
        "target": "my_app::http", "spans": [{ "name": "request", "id": 7 }], "id": 7,
    });
    assert_eq!(event, expected);
    assert_eq!(parsed(1)["event"], "from tracing");
    // The bridge itself has no stream.
    assert!(graph.find("log").is_none() && lines.len() == 2);
    // Installing a graph now returns an error that names the conflict.
    let error = logdag::install(&graph).unwrap_err().to_string();
    assert!(error.contains("GraphLayer"), "{error}");
}
