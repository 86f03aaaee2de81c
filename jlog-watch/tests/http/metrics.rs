//! `/metrics` as Prometheus reads it.

use std::io::Write;
use std::process::{Command, Stdio};

use jlog_watch::{Limits, Server, Watch};

use crate::support::{Place, append, ask, ask_with, serve};

#[test]
fn promtool_finds_nothing_wrong() {
    let place = Place::new();
    append(&place.feed("a"), 20);
    place.feed("b");
    std::fs::write(place.join("b/metastore"), "bad").unwrap();
    let limits = jlog_core::Limits { max_bytes: Some(1 << 20), keep_free: Some(1), ..Default::default() };
    let limited = jlog_core::Jlog::options().limits(limits).pre_commit(4096).create(place.join("c")).unwrap();
    append(&limited, 5);
    let watch = Watch::new().feeds(place.path());
    #[cfg(feature = "graph")]
    let watch = watch.graph("", crate::streams::graph_with_everything(&place));
    lint(&serve(watch));
}

/// Checks a server's metrics with promtool.
pub(crate) fn lint(server: &Server) {
    if !crate::prometheus::is_there("promtool") {
        return;
    }
    let answer = ask(server, "/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "{text}\n{}", answer.body);
}

#[test]
fn both_formats_have_the_same_samples() {
    let place = Place::new();
    append(&place.feed("a"), 20);
    let server = serve(Watch::new().feeds(place.path()));
    let names = |body: &str| -> Vec<String> {
        // Estimates exist from the second look on.
        let is_estimate = |line: &str| line.contains("_full_in_") || line.contains("_catch_up_");
        let lines = body.lines().filter(|line| !line.starts_with('#') && !is_estimate(line));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let plain = ask(&server, "/metrics");
    let open =
        ask_with(&server, "/metrics", "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with("# EOF\n") && !plain.body.contains("# EOF"));
    assert_eq!(names(&plain.body), names(&open.body));
    assert!(open.body.contains("# UNIT jlog_subscriber_lag_seconds seconds\n"));
    assert!(plain.body.contains("# TYPE jlog_feed_appended_messages_total counter\n"));
}

#[test]
fn metrics_that_are_too_long_are_an_error() {
    let place = Place::new();
    place.feed("a");
    let server = serve(Watch::new().feeds(place.path()).limits(Limits::default().response_bytes(100)));
    let answer = ask(&server, "/metrics");
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["error"], "the metrics have more than 100 bytes");
}
