//! Levels: in filters, on outlets, on streams, and in lines.

use logdag::config::Config;
use logdag::{Filter, Format, Graph, Level, StreamConfig, debug, error, info, log, trace, warn};
use serde_json::Value as Json;

use super::ring;

/// Logs a line of each level.
fn one_of_each(graph: &Graph, stream: &str) {
    let stream = graph.stream(stream).unwrap();
    trace!(stream, "t");
    debug!(stream, n = 1; "d");
    info!(stream, "i");
    warn!(stream, n = 1; "w{}", "");
    error!(stream, "e");
}

#[test]
fn a_filter_knows_the_order_of_levels() {
    for (filter, expected) in [
        ("level = 'error'", "e"),
        ("level != 'debug'", "tiwe"),
        ("level >= 'warn'", "we"),
        ("level >= 'WARNING'", "we"),
        ("level > 'warn'", "e"),
        ("level < 'info'", "td"),
        ("level <= 'debug'", "td"),
        ("level >= 40", "we"),
        ("not(level >= 'info')", "td"),
        ("level ~ '^warn'", "w"),
        ("level !~ 'e'", "iw"),
        ("exists(level)", "tdiwe"),
        ("and(level >= 'debug', or(level = 'fatal', n = 1))", "dwe"),
    ] {
        let graph = Graph::new();
        graph.add_memory("ring", 10, 1000).unwrap();
        graph.add_outlet("web", "ring", Some(filter)).unwrap();
        one_of_each(&graph, "web");
        assert_eq!(ring(&graph, "ring").concat(), expected, "{filter}");
    }
}

#[test]
fn a_level_that_there_is_not_is_a_mistake() {
    for (wrong, column) in [("level = 'errr'", 9), ("and(a=1, level >= 4)", 19), ("level = 35.5", 9)] {
        let error = Filter::parse(wrong).unwrap_err();
        assert_eq!(error.column, column, "{error}");
        assert!(error.expected.contains("'warn'"), "{error}");
    }
}

#[test]
fn an_outlet_takes_a_least_level_in_every_configuration() {
    let xml = r#"<app><logs><log name="ring" type="memory"/>
        <log name="a"><outlet name="ring" min_level="warn"/></log>
        <log name="b"><outlet name="ring" min_level="debug" filter="n = 1"/></log></logs></app>"#;
    let toml = r#"
        [[log]]
        name = "ring"
        type = "memory"
        [[log]]
        name = "a"
        outlet = [{ name = "ring", min_level = "warn" }]
        [[log]]
        name = "b"
        outlet = [{ name = "ring", min_level = "debug", filter = "n = 1" }]"#;
    let built = |graph: &Graph| {
        graph.add_memory("ring", 100, 1000).unwrap();
        let stream = |name: &str, filter| {
            StreamConfig::new(name.to_owned(), Default::default()).outlet("ring", Some(filter))
        };
        let by_number = Filter::parse("n = 1").unwrap().with_min_level(Level::Debug);
        graph.apply(vec![stream("a", Filter::min_level(Level::Warn)), stream("b", by_number)]).unwrap();
    };
    for way in ["xml", "toml", "built"] {
        let graph = Graph::new();
        match way {
            "xml" => Config::from_text("c.xml", xml).unwrap().apply(&graph).unwrap(),
            "toml" => Config::from_text("c.toml", toml).unwrap().apply(&graph).unwrap(),
            _ => built(&graph),
        }
        one_of_each(&graph, "a");
        assert_eq!(ring(&graph, "ring").concat(), "we", "{way}");
        one_of_each(&graph, "b");
        assert_eq!(ring(&graph, "ring").concat(), "wedw", "{way}");
        let shown = |name: &str| graph.describe(name).unwrap().outlets[0].1.clone().unwrap();
        assert_eq!(shown("a"), "level >= 'warning'", "{way}");
        assert_eq!(shown("b"), "and(level >= 'debug', n = 1)", "{way}");
    }
    let wrong = xml.replace("\"warn\"", "\"wran\"");
    let error = Config::from_text("c.xml", &wrong).unwrap_err().to_string();
    assert!(error.contains("c.xml:2:") && error.contains("expected trace, debug, info"), "{error}");
}

#[test]
fn nothing_is_evaluated_for_a_level_that_gets_nowhere() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.add_memory("all", 10, 1000).unwrap();
    graph.add_outlet("web", "inner", Some("and(status > 1, level > 'info')")).unwrap();
    graph.add_outlet("inner", "ring", Some("or(level >= 'error', level = 'info')")).unwrap();
    let web = graph.stream("web").unwrap();
    let mut asked = Vec::new();
    for level in Level::ALL {
        log!(web, level; "{}", { asked.push(level); 1 });
    }
    assert_eq!(asked, [Level::Warn, Level::Error]);
    // Another stream leads to a sink for all levels.
    graph.add_outlet("web", "all", None).unwrap();
    assert!(web.accepts(Level::Trace));
    graph.set_enabled("all", false).unwrap();
    assert!(!web.accepts(Level::Info) && web.is_enabled());
}

#[test]
fn levels_as_in_rust_log_are_those_of_streams() {
    let graph = Graph::new();
    graph.add_memory("ring", 100, 1000).unwrap();
    for name in ["web", "db/pool", "other"] {
        graph.add_outlet(name, "ring", None).unwrap();
    }
    graph.set_levels("info,web=trace,db::pool=warn".parse().unwrap());
    ["web", "db/pool/x", "other", "new/one"].iter().for_each(|name| one_of_each(&graph, name));
    assert_eq!(ring(&graph, "ring").concat(), "tdiwe we iwe".replace(' ', ""));
    // A filter still has its effect, and later streams take the level, too.
    graph.add_outlet("web/late", "ring", Some("level >= 'info'")).unwrap();
    graph.set_levels("off,web::late=debug".parse().unwrap());
    ["other", "web/late"].iter().for_each(|name| one_of_each(&graph, name));
    let late = ring(&graph, "ring").concat()[10..].to_owned();
    assert_eq!(late, "diiwwee", "by the outlet of its own, and by way of web");
    graph.set_levels(Default::default());
    one_of_each(&graph, "other");
    assert!(ring(&graph, "ring").concat().ends_with("tdiwe"));
}

#[test]
fn lines_show_levels_and_keys_where_that_is_asked_for() {
    let config = |name: &str, attributes: &str| {
        let xml = format!(
            r#"<app><logs><log name="ring" type="memory" format="{name}" {attributes}/></logs></app>"#
        );
        let graph = Graph::new();
        Config::from_text("c.xml", &xml).unwrap().apply(&graph).unwrap();
        warn!(graph.stream("ring").unwrap(), status = 503, ok = false; "no answer");
        let line = ring(&graph, "ring").remove(0);
        (line, graph.describe("ring").unwrap())
    };
    let (line, description) = config("plain", r#"level="on" keys="on""#);
    assert_eq!(line, "[warning] no answer status=503 ok=false");
    let reported: Json = serde_json::from_str(&description.to_json()).unwrap();
    assert_eq!(
        (&reported["level"], &reported["keys"], &reported["target"]),
        (&true.into(), &true.into(), &false.into())
    );
    let (line, _) = config("plain", "");
    assert_eq!(line, "no answer");
    let json = |attributes| serde_json::from_str::<Json>(&config("json", attributes).0).unwrap();
    assert_eq!(json(r#"level="on""#)["level"], "warning");
    assert_eq!(json("").get("level"), None);
    assert_eq!(Format::ALL.len(), 4);
}
