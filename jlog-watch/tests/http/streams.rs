//! Graphs of log streams.

use std::io;
use std::sync::Arc;

use jlog_watch::Watch;
use logdag::{Graph, Lines, Sink, WriteError, log};

use crate::support::{Place, ask, samples, serve};

/// Takes nothing.
#[derive(Debug)]
struct Full;

impl Sink for Full {
    fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
        Err(io::Error::new(io::ErrorKind::StorageFull, "there is no room").into())
    }
}

/// A graph whose every counter has something to count.
pub(crate) fn graph_with_everything(place: &Place) -> Graph {
    let graph = Graph::new();
    graph.register("full", |_| Ok(Arc::new(Full))).unwrap();
    let config = format!(
        "<app><logs><log name=\"ring\" type=\"memory\" path=\"100,10000\"/>\
         <log name=\"file\" type=\"file\" path=\"{}\"/><log name=\"full\" type=\"full\"/>\
         <log name=\"web\"><outlet name=\"ring\" limit=\"1/h\"/><outlet name=\"file\"/></log>\
         <log name=\"bad\"><outlet name=\"full\"/></log></logs></app>",
        place.join("file.log").display()
    );
    logdag::config::Config::from_text("test.xml", &config).unwrap().apply(&graph).unwrap();
    let web = graph.stream("web").unwrap();
    for n in 0..3 {
        log!(web, "line {}", n);
    }
    graph.go_async();
    graph
}

#[test]
fn streams_are_counted() {
    let place = Place::new();
    let graph = graph_with_everything(&place);
    let server = serve(Watch::new().graph("", graph.clone()).graph("other", Graph::new()));
    let found = samples(&server);
    assert_eq!(found["logdag_stream_written_lines_total{stream=\"file\"}"], 3.0);
    assert_eq!(found["logdag_stream_written_bytes_total{stream=\"file\"}"], 21.0);
    assert_eq!(found["logdag_stream_written_lines_total{stream=\"ring\"}"], 1.0);
    assert_eq!(found["logdag_outlet_left_out_lines_total{stream=\"web\",outlet=\"ring\"}"], 2.0);
    assert_eq!(found["logdag_stream_failed_lines_total{stream=\"full\"}"], 0.0);
    assert_eq!(found["logdag_stream_queue_bytes{stream=\"file\"}"], 0.0);
    assert_eq!(found["logdag_stream_queue_limit_bytes{stream=\"file\"}"], (8 << 20) as f64);
    assert_eq!(found["logdag_stream_material{stream=\"web\"}"], 1.0);
    assert_eq!(found["logdag_stream_enabled{stream=\"debug\"}"], 0.0);
    assert_eq!(found["logdag_stream_enabled{stream=\"debug\",graph=\"other\"}"], 0.0);
    assert!(!found.contains_key("logdag_stream_written_lines_total{stream=\"web\"}"));
    assert_eq!(ask(&server, "/health/ready").status, 200);

    // A sink that fails is a reason not to be ready.
    let bad = graph.stream("bad").unwrap();
    log!(bad, "lost");
    let answer = ask(&server, "/health/ready");
    assert_eq!(answer.status, 503, "{}", answer.body);
    let reason = answer.json()["reasons"][0].clone();
    assert_eq!((reason["kind"].as_str(), reason["stream"].as_str()), (Some("sink_failing"), Some("full")));
    assert_eq!(samples(&server)["logdag_stream_failed_lines_total{stream=\"full\"}"], 1.0);
}
