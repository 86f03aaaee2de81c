//! One call for the crates `log` and `tracing`.

#![allow(clippy::unwrap_used)]

use logdag::{Format, Graph};

/// The only test of its process, because both are set for good.
#[test]
fn one_call_takes_what_log_and_tracing_say_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let sink = logdag::SinkSpec::new("file", path.to_str().unwrap().to_owned());
    let options = logdag::StreamOptions::new().sink(sink).format(Format::Event);
    graph.configure("my_app", options).unwrap();
    graph.set_levels("my_app::quiet=warn".parse().unwrap());
    graph.go_async();
    let drain = logdag::install(&graph).unwrap();
    std::thread::spawn(|| {
        log::debug!(target: "my_app::http", ok = true; "from log");
        tracing::trace!(target: "my_app::http", ok = false, "from tracing");
        log::info!(target: "my_app::quiet", "quiet");
        tracing::info!(target: "my_app::quiet", x = panic_if_asked(), "quiet");
    })
    .join()
    .unwrap();
    drop(drain);
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gist: Vec<_> = events.iter().map(|event| (&event["level"], &event["event"], &event["ok"])).collect();
    assert_eq!(
        gist,
        [
            (&"debug".into(), &"from log".into(), &true.into()),
            (&"trace".into(), &"from tracing".into(), &false.into()),
        ]
    );
    assert!(logdag::install(&graph).is_err());
}

fn panic_if_asked() -> u32 {
    panic!("nothing is evaluated for a level that gets nowhere")
}
