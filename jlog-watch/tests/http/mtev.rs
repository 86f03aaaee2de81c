//! libmtev's REST interface.

use jlog_watch::{Limits, Watch};
use logdag::{Graph, log};
use serde_json::{Value, json};

use crate::support::{ask, serve};

fn graph() -> Graph {
    let graph = Graph::new();
    let config = "<app><logs>\
        <log name=\"plain\" stats=\"on\"/>\
        <log name=\"internal\" type=\"memory\" path=\"5,10000\" stats=\"on\"/>\
        <log name=\"http/access\" type=\"memory\" path=\"100000,10000000\" stats=\"on\"/>\
        <log name=\"quiet\" type=\"memory\"/>\
        <log name=\"noring\"/></logs></app>";
    logdag::config::Config::from_text("test.xml", config).unwrap().apply(&graph).unwrap();
    let internal = graph.stream("internal").unwrap();
    for n in 1..=7 {
        log!(internal, "line \"{}\"", n);
    }
    graph
}

fn indexes(lines: &Value) -> Vec<u64> {
    lines.as_array().unwrap().iter().map(|line| line["idx"].as_u64().unwrap()).collect()
}

#[test]
fn rings_are_arrays_of_lines() {
    let server = serve(Watch::new().graph("", graph()));
    let ask = |query: &str| ask(&server, &format!("/eventer/logs/internal.json{query}"));
    let all = ask("");
    let lines = all.json();
    assert_eq!(indexes(&lines), [3, 4, 5, 6, 7]);
    assert_eq!(lines[0]["line"], "line \"3\"\n");
    assert!(lines[0]["whence"].as_u64().unwrap() > 1_600_000_000_000);
    assert!(all.headers["x-process-start"].parse::<u64>().unwrap() > 1_600_000_000_000);
    assert_eq!(indexes(&ask("?last=2").json()), [6, 7]);
    assert_eq!(indexes(&ask("?last=100").json()), [3, 4, 5, 6, 7]);
    assert_eq!(indexes(&ask("?since=5").json()), [6, 7]);
    assert_eq!(indexes(&ask("?since=5&last=4").json()), [6, 7]);
    assert_eq!(indexes(&ask("?since=7").json()), [0u64; 0]);
    // A client that has outlived a restart.
    assert_eq!(indexes(&ask("?since=8").json()), [3, 4, 5, 6, 7]);
    assert_eq!(indexes(&ask("?since=1").json()), [3, 4, 5, 6, 7]);
    assert_eq!(indexes(&ask("?last=x").json()), [3, 4, 5, 6, 7]);
}

#[test]
fn what_is_no_ring_is_not_found() {
    let server = serve(Watch::new().graph("", graph()));
    assert_eq!(ask(&server, "/eventer/logs/http/access.json").json(), json!([]));
    assert_eq!(ask(&server, "/eventer/logs/http%2Faccess.json").json(), json!([]));
    for name in ["none", "noring", "stderr", "it's/<b>"] {
        let answer =
            ask(&server, &format!("/eventer/logs/{}.json", name.replace('<', "%3C").replace('>', "%3E")));
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json(), json!({ "error": format!("log '{name}' not found") }));
    }
    assert_eq!(ask(&server, "/eventer/logs/internal").status, 404);
}

#[test]
fn a_long_ring_comes_in_what_fits() {
    let graph = graph();
    let access = graph.stream("http/access").unwrap();
    for n in 0..20_000 {
        log!(access, "request {}", n);
    }
    let server = serve(Watch::new().graph("", graph).limits(Limits::default().response_bytes(100_000)));
    // Asking since a line, again and again, returns everything.
    let (mut at, mut rounds) = (0, 0);
    while at < 20_000 {
        let answer = ask(&server, &format!("/eventer/logs/http/access.json?since={at}"));
        assert!(answer.body.len() <= 100_000);
        let got = indexes(&answer.json());
        assert_eq!(got[0], at + 1);
        at = *got.last().unwrap();
        rounds += 1;
    }
    assert!(rounds > 5);
    let last = indexes(&ask(&server, "/eventer/logs/http/access.json?last=15000").json());
    assert!(last.len() > 100 && *last.last().unwrap() == 20_000);
}

#[test]
fn statistics_have_three_shapes_and_only_the_streams_that_ask_for_them() {
    let server = serve(Watch::new().graph("", graph()));
    let leaf = |n: u64| json!({ "_type": "L", "_value": n });
    let stats = |query: &str| ask(&server, &format!("/mtev/stats.json{query}")).json();
    // As in libmtev, streams without a sink are included.
    let lines = json!({ "http/access": leaf(0), "internal": leaf(7), "plain": leaf(0) });
    assert_eq!(stats(""), json!({ "mtev": { "log": { "lines": lines } } }));
    let simple = json!({ "http/access": 0, "internal": 7, "plain": 0 });
    assert_eq!(stats("?format=simple"), json!({ "mtev": { "log": { "lines": simple } } }));
    let tagged = json!({
        "http/access|ST[framework:logdag,mtev:log,units:messages]": leaf(0),
        "internal|ST[framework:logdag,mtev:log,units:messages]": leaf(7),
        "plain|ST[framework:logdag,mtev:log,units:messages]": leaf(0),
    });
    assert_eq!(stats("?format=tagged"), tagged);
}

#[test]
fn capabilities_say_what_this_is() {
    let server = serve(Watch::new());
    let capabilities = ask(&server, "/capa.json").json();
    assert_eq!(capabilities["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(capabilities["unameRun"]["sysname"], "Linux");
    assert!(capabilities["current_time"].as_u64().unwrap() > 1_600_000_000_000);
    let features = capabilities["features"].as_object().unwrap();
    assert!(features.contains_key("metrics") && !features.contains_key("control"));
}
