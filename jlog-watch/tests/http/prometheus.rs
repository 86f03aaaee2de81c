//! Prometheus itself, and the rules in `dist/prometheus`.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jlog_watch::Watch;
use serde_json::Value;
use testkit::programs;

use crate::support::{Place, append, ask, consume, send, serve, socket_address, until};

/// How long Prometheus may take to start, to scrape and to evaluate.
const PATIENCE: Duration = Duration::from_secs(60);

fn dist() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist/prometheus")
}

/// Whether a program of Debian's package prometheus is installed; fails if it is required and
/// missing.
pub(crate) fn is_there(program: &str) -> bool {
    let there =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    programs::is_there(there, program, "PROMTOOL", "prometheus")
}

#[test]
fn rules_do_what_they_say() {
    if !is_there("promtool") {
        return;
    }
    for arguments in [
        ["check", "rules", "jlog.rules.yml"],
        ["test", "rules", "jlog.rules.test.yml"],
        ["check", "rules", "service.rules.yml"],
        ["test", "rules", "service.rules.test.yml"],
    ] {
        let done = Command::new("promtool").args(arguments).current_dir(dist()).output().unwrap();
        let said =
            [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(done.status.success(), "{arguments:?}: {said}");
    }
}

/// Rules and panels about metrics that do not exist would never show anything.
#[cfg(feature = "graph")]
#[test]
fn rules_and_panels_are_about_metrics_that_there_are() {
    let place = Place::new();
    let limits =
        jlog_core::Limits { max_bytes: Some(1 << 20), keep_free: Some(1), ..jlog_core::Limits::default() };
    let log = jlog_core::Jlog::options().limits(limits).create(place.join("a")).unwrap();
    log.subscribe("s", jlog_core::Start::Beginning).unwrap();
    let graph = crate::streams::graph_with_everything(&place);
    // Filters are counted if statistics are on.
    graph.configure("counted", logdag::StreamOptions::new().stats(true)).unwrap();
    graph.add_outlet("counted", "ring", Some("status >= 500")).unwrap();
    let server = serve(Watch::new().feeds(place.path()).graph("", graph));
    let mut metrics = String::new();
    until("estimates", || {
        append(&log, 10);
        log.set_checkpoint("s", log.end().unwrap()).unwrap();
        metrics = ask(&server, "/metrics").body;
        metrics.contains("jlog_feed_full_in_seconds{")
            && metrics.contains("jlog_subscriber_catch_up_seconds{")
    });
    let rules = std::fs::read_to_string(dist().join("jlog.rules.yml")).unwrap();
    let dashboard = std::fs::read_to_string(dist().join("../grafana/jlog.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() > 20);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    asked.extend(variables.iter().filter_map(|variable| variable["definition"].as_str()));
    for (text, least) in [(rules, 10), (asked.join("\n"), 20)] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        // `jlog ship` has metrics of its own.
        let ours = |word: &&str| {
            (word.starts_with("jlog_") || word.starts_with("logdag_")) && !word.starts_with("jlog_ship_")
        };
        let names: BTreeSet<&str> = words.filter(ours).collect();
        for name in &names {
            assert!(metrics.contains(&format!("\n{name}{{")), "there is no metric {name}");
        }
        assert!(names.len() > least, "{names:?}");
    }
}

/// A Prometheus, ended when it is dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(place: &Place, target: SocketAddr, rules: &str) -> Self {
        let rules_file = place.join("rules.yml");
        std::fs::write(&rules_file, rules).unwrap();
        let config = place.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: feeds, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules_file.display()
        );
        std::fs::write(&config, text).unwrap();
        // A port that was free a moment ago, because Prometheus cannot choose one itself.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", place.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = self.address;
        let answer = send(stream, &format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"));
        serde_json::from_str(&answer.body).ok()
    }

    fn until(&mut self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let answer = self.get(path);
            if answer.as_ref().is_some_and(&holds) {
                return;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "Prometheus has ended");
            assert!(begun.elapsed() < PATIENCE, "{what} never came: {answer:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_and_a_rule_fires_while_a_subscriber_stands_still() {
    if !is_there("prometheus") {
        return;
    }
    let place = Place::new();
    let log = place.feed("feed");
    let server = serve(Watch::new().feeds(place.join("feed")));
    let rules = "groups: [{name: feeds, rules: [{alert: Behind, expr: jlog_subscriber_lag_messages > 2}]}]\n";
    let mut prometheus = Prometheus::start(&place, socket_address(&server), rules);
    let lag = "/api/v1/query?query=jlog_subscriber_lag_messages";
    let is = |answer: &Value, n: &str| answer["data"]["result"][0]["value"][1] == n;
    prometheus.until("a lag of 0", lag, |answer| is(answer, "0"));
    let found = prometheus.get(lag).unwrap();
    let labels = &found["data"]["result"][0]["metric"];
    assert_eq!(
        (labels["subscriber"].as_str(), labels["feed"].as_str()),
        (Some("s"), place.join("feed").to_str())
    );
    append(&log, 5);
    prometheus.until("a lag of 5", lag, |answer| is(answer, "5"));
    let alerts = "/api/v1/alerts";
    let firing = |answer: &Value| answer["data"]["alerts"][0]["state"] == "firing";
    prometheus.until("an alert", alerts, firing);
    consume(&log, 5);
    let quiet = |answer: &Value| answer["data"]["alerts"].as_array().is_some_and(Vec::is_empty);
    prometheus.until("an end of the alert", alerts, quiet);
    // What it scraped as OpenMetrics is complete, including counters.
    let consumed = "/api/v1/query?query=jlog_subscriber_consumed_messages_total";
    prometheus.until("5 messages consumed", consumed, |answer| is(answer, "5"));
}
