//! Graphs of log streams.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use jlog_watch::Watch;
use logdag::config::Config;
use logdag::{Capabilities, Graph, Lines, Sink, WriteError, log};
use serde_json::json;

use crate::support::{Place, ask, ask_with, samples, serve, until};

/// A sink that takes nothing.
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
    Config::from_text("test.xml", &config).unwrap().apply(&graph).unwrap();
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

/// Losses before the first look may be long ago.
#[test]
fn losses_before_the_first_look_are_counted_and_no_alarm() {
    let place = Place::new();
    let graph = graph_with_everything(&place);
    log!(graph.stream("bad").unwrap(), "lost");
    // Its error is the sink's error.
    let _ = graph.flush();
    let server = serve(Watch::new().graph("", graph.clone()));
    assert_eq!(ask(&server, "/health/ready").status, 200);
    assert_eq!(samples(&server)["logdag_stream_failed_lines_total{stream=\"full\"}"], 1.0);
    log!(graph.stream("bad").unwrap(), "lost");
    let _ = graph.flush();
    assert_eq!(ask(&server, "/health/ready").status, 503);
}

#[test]
fn writes_are_timed_and_rotations_counted() {
    let place = Place::new();
    let graph = graph_with_everything(&place);
    let server = serve(Watch::new().graph("", graph.clone()));
    assert_eq!(samples(&server)["logdag_stream_write_duration_seconds_count{stream=\"file\"}"], 0.0);
    let web = graph.stream("web").unwrap();
    log!(web, "one more");
    graph.flush().unwrap();
    graph.rotate("file").unwrap();
    let found = samples(&server);
    assert_eq!(found["logdag_stream_write_duration_seconds_count{stream=\"file\"}"], 1.0);
    assert_eq!(found["logdag_stream_write_duration_seconds_bucket{stream=\"file\",le=\"+Inf\"}"], 1.0);
    assert!(found["logdag_stream_write_duration_seconds_sum{stream=\"file\"}"] > 0.0);
    assert_eq!(found["logdag_stream_rotations_total{stream=\"file\"}"], 1.0);
    assert!(!found.contains_key("logdag_stream_rotations_total{stream=\"ring\"}"));
}

/// A sink that writes on request. Like a file, it does not need the times of lines.
#[derive(Debug)]
struct Stuck(Mutex<Receiver<()>>);

impl Sink for Stuck {
    fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().needs_times(false).may_be_asynchronous(true)
    }
}

#[test]
fn a_write_that_takes_long_is_seen_while_it_does() {
    let (go, released) = channel();
    let graph = Graph::new();
    let stuck = Arc::new(Stuck(Mutex::new(released)));
    graph.register("stuck", move |_| Ok(stuck.clone())).unwrap();
    let config = "<app><logs><log name=\"slow\" type=\"stuck\"/></logs></app>";
    logdag::config::Config::from_text("test.xml", config).unwrap().apply(&graph).unwrap();
    graph.go_async();
    let server = serve(Watch::new().graph("", graph.clone()));
    let slow = graph.stream("slow").unwrap();
    let age = || samples(&server)["logdag_stream_queue_age_seconds{stream=\"slow\"}"];
    assert_eq!(age(), 0.0);
    log!(slow, "one");
    until("the write has taken a while", || age() > 0.05);
    drop(go);
    until("nothing waits", || age() == 0.0);
    graph.flush().unwrap();
    let found = samples(&server);
    assert_eq!(found["logdag_stream_write_duration_seconds_bucket{stream=\"slow\",le=\"0.05\"}"], 0.0);
    assert_eq!(found["logdag_stream_write_duration_seconds_count{stream=\"slow\"}"], 1.0);
}

/// With statistics, a stream shows how many lines reached each filter, and how many did not pass.
#[test]
fn filters_are_counted_where_there_are_statistics() {
    let graph = Graph::new();
    let config = "<app><logs><log name='ring' type='memory' path='100,10000'/>\
        <log name='web' stats='on'><outlet name='ring' filter='status >= 500'/></log>\
        <log name='db'><outlet name='ring' filter='status >= 500'/></log></logs></app>";
    Config::from_text("test.xml", config).unwrap().apply(&graph).unwrap();
    for name in ["web", "db"] {
        let stream = graph.stream(name).unwrap();
        for status in [200, 404, 503] {
            log!(stream, status = status; "line");
        }
    }
    let server = serve(Watch::new().graph("", graph.clone()));
    let found = samples(&server);
    assert_eq!(found["logdag_outlet_lines_total{stream=\"web\",outlet=\"ring\"}"], 3.0);
    assert_eq!(found["logdag_outlet_filtered_lines_total{stream=\"web\",outlet=\"ring\"}"], 2.0);
    assert!(!found.contains_key("logdag_outlet_lines_total{stream=\"db\",outlet=\"ring\"}"));
    // Neither stream has a sink.
    assert_eq!(found["logdag_stream_lines_total{stream=\"web\"}"], 3.0);
    assert!(!found.contains_key("logdag_stream_lines_total{stream=\"db\"}"));
    let names_of_libmtev = ask(&server, "/mtev/stats.json?format=simple").json();
    assert_eq!(names_of_libmtev, json!({ "mtev": { "log": { "lines": { "web": 3 } } } }));
    let outlets = |name: &str| ask(&server, &format!("/api/v1/streams/{name}")).json()["outlets"].clone();
    let expected = json!([{ "name": "ring", "filter": "status >= 500", "lines": 3, "filtered": 2 }]);
    assert_eq!(outlets("web"), expected);
    assert_eq!(outlets("db"), json!([{ "name": "ring", "filter": "status >= 500" }]));
}

/// Counters and histograms that a configuration derives from lines.
#[test]
fn metrics_are_made_of_lines() {
    let config = r#"
        [[log]]
        name = "access"
        metric = [
          { name = "requests", labels = "status,level", help = "Requests\n\"\\served\"" },
          { name = "errors", filter = "status >= 500" },
          { name = "bytes", value = "size" },
          { name = "duration_seconds", type = "histogram", value = "took_ms", scale = 0.001, buckets = "0.1,1" },
        ]
    "#;
    let graph = Graph::new();
    let config = Config::from_text("test.toml", config).unwrap();
    config.apply(&graph).unwrap();
    let server = serve(Watch::new().graph("", graph.clone()).graph("other", graph.clone()));
    let access = graph.stream("access").unwrap();
    for (status, took) in [(200, 20), (200, 500), (500, 5000)] {
        log!(access, status = status, took_ms = took, size = 1.5; "served");
    }
    log!(access, status = "a\"b\\c\nd"; "odd");
    let found = samples(&server);
    for (sample, value) in [
        ("requests_total{status=\"200\",level=\"info\"}", 2.0),
        ("requests_total{status=\"500\",level=\"info\"}", 1.0),
        ("requests_total{status=\"a\\\"b\\\\c\\nd\",level=\"info\"}", 1.0),
        ("errors_total", 1.0),
        ("bytes_total", 4.5),
        ("duration_seconds_bucket{le=\"0.1\"}", 1.0),
        ("duration_seconds_bucket{le=\"1\"}", 2.0),
        ("duration_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("duration_seconds_count", 3.0),
        ("duration_seconds_count{graph=\"other\"}", 3.0),
        ("duration_seconds_sum", 5.52),
        ("logdag_metric_skipped_lines_total{metric=\"duration_seconds\"}", 1.0),
    ] {
        let got = found.get(sample).unwrap_or_else(|| panic!("{sample} in {found:#?}"));
        assert!((got - value).abs() < 1e-9, "{sample}: {got}");
    }
    // Both formats have the bucket without an upper bound, and no other.
    let open = ask_with(&server, "/metrics", "Accept: application/openmetrics-text\r\n").body;
    let bounds = |body: &str| {
        let buckets = body.lines().filter(|line| line.starts_with("duration_seconds_bucket{"));
        buckets.filter(|line| !line.contains("graph=")).count()
    };
    assert_eq!((bounds(&open), bounds(&ask(&server, "/metrics").body)), (3, 3), "{open}");
    assert!(open.contains("\nduration_seconds_bucket{le=\"+Inf\"} 3\n"), "{open}");
    // They continue when the configuration is read again.
    config.replace(&graph).unwrap();
    log!(access, status = 500; "served");
    assert!((samples(&server)["errors_total"] - 2.0).abs() < 1e-9);
    crate::metrics::lint(&server);
}
