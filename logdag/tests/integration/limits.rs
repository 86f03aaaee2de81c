//! Outlets that limit or sample their lines.

use std::time::{Duration, Instant};

use logdag::config::Config;
use logdag::{Filter, Graph, error, log};

use super::ring;

const XML: &str = r#"<a><logs><log name="ring" type="memory"/>
    <log name="web"><outlet name="ring" limit="3/h" filter="n >= 0"/></log></logs></a>"#;
const TOML: &str = "[[log]]\nname = 'ring'\ntype = 'memory'\n[[log]]\nname = 'web'\n\
                    outlet = { name = 'ring', limit = '3/h', filter = 'n >= 0' }";

#[test]
fn a_limit_leaves_out_counts_and_reports() {
    for way in ["c.xml", "c.toml", "built"] {
        let graph = Graph::new();
        match way {
            "c.xml" => Config::from_text(way, XML).unwrap().apply(&graph).unwrap(),
            "c.toml" => Config::from_text(way, TOML).unwrap().apply(&graph).unwrap(),
            _ => {
                graph.add_memory("ring", 100, 10_000).unwrap();
                let filter = Filter::parse("n >= 0").unwrap().with_limit("3/h".parse().unwrap());
                graph.connect("web", "ring", Some(filter)).unwrap();
            }
        }
        let web = graph.stream("web").unwrap();
        // Lines that do not pass the filter itself do not count.
        (0..5).for_each(|_| log!(web, n = -1; "no"));
        (0..10).for_each(|n| log!(web, n = n; "{n}"));
        assert_eq!(ring(&graph, "ring"), ["0", "1", "2"], "{way}");
        // A change of the graph does not reset the counts.
        graph.add_memory("other", 10, 1000).unwrap();
        log!(web, n = 10; "10");
        let described: serde_json::Value =
            serde_json::from_str(&graph.describe("web").unwrap().to_json()).unwrap();
        let expected = serde_json::json!([{ "name": "ring", "filter": "n >= 0, limit 3/h", "left_out": 8 }]);
        assert_eq!(described["outlets"], expected, "{way}");
        graph.flush().unwrap();
        graph.flush().unwrap();
        let lines = ring(&graph, "ring");
        assert_eq!(lines.len(), 4, "reported once: {lines:?}");
        assert!(
            lines[3].starts_with("8 lines left out since 20") && lines[3].ends_with("limit 3/h"),
            "{lines:?}"
        );
    }
}

#[test]
fn the_report_comes_before_the_next_line_that_passes() {
    let graph = Graph::new();
    graph.add_memory("ring", 100, 10_000).unwrap();
    let filter = Filter::all().with_limit("1/s".parse().unwrap());
    graph.connect("web", "ring", Some(filter)).unwrap();
    let web = graph.stream("web").unwrap();
    let begun = std::time::Instant::now();
    while ring(&graph, "ring").len() < 3 {
        assert!(begun.elapsed().as_secs() < 20, "it never opens again");
        error!(web, "x");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let lines = ring(&graph, "ring");
    assert!(lines[0] == "x" && lines[1].contains("left out") && lines[2] == "x", "{lines:?}");
    let counted: u64 = lines[1].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(counted, graph.describe("web").unwrap().left_out["ring"]);
}

#[test]
fn a_sample_is_every_nth_line() {
    let xml = XML.replace("limit=\"3/h\" filter=\"n >= 0\"", "sample=\"1/4\" limit=\"2/h\"");
    let graph = Graph::new();
    Config::from_text("c.xml", &xml).unwrap().apply(&graph).unwrap();
    let web = graph.stream("web").unwrap();
    (0..20).for_each(|n| log!(web, "{n}"));
    assert_eq!(ring(&graph, "ring"), ["0", "4"]);
    let web = graph.describe("web").unwrap();
    assert_eq!((web.left_out["ring"], web.outlets[0].1.as_deref()), (18, Some("sample 1/4, limit 2/h")));
    for (attribute, expected) in
        [("limit=\"3\"", "100/s"), ("sample=\"0.1\"", "1/10"), ("sample=\"1/0\"", "1/10")]
    {
        let wrong = XML.replace("limit=\"3/h\"", attribute);
        let error = Config::from_text("c.xml", &wrong).unwrap_err().to_string();
        assert!(error.contains("c.xml:2:") && error.contains(expected), "{error}");
    }
}

#[test]
fn with_threads_a_report_needs_no_next_line() {
    for asynchronous_first in [true, false] {
        let graph = Graph::new();
        graph.add_memory("ring", 100, 10_000).unwrap();
        if asynchronous_first {
            graph.go_async();
        }
        graph.connect("web", "ring", Some(Filter::all().with_limit("3/h".parse().unwrap()))).unwrap();
        if !asynchronous_first {
            graph.go_async();
        }
        let web = graph.stream("web").unwrap();
        (0..10).for_each(|n| log!(web, "{n}"));
        let begun = Instant::now();
        while ring(&graph, "ring").len() < 4 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is never reported");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ring(&graph, "ring")[3].starts_with("7 lines left out since 20"));
        // Reports are no more frequent than passing lines; a flush does not wait for one.
        log!(web, "10");
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(ring(&graph, "ring").len(), 4);
        graph.flush().unwrap();
        let lines = ring(&graph, "ring");
        assert!(lines.len() == 5 && lines[4].starts_with("1 line left out since 20"), "{lines:?}");
    }
}
