//! Health, and the reasons for problems.

use std::time::Duration;

use jlog_core::compat::JlogCompat;
use jlog_core::{LogId, Timestamp};
use jlog_watch::{Thresholds, Watch};
use serde_json::Value;

use crate::support::{Place, append, ask, consume, serve, until};

fn kinds(answer: &Value) -> Vec<&str> {
    answer["reasons"].as_array().unwrap().iter().map(|reason| reason["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_subscriber_that_is_too_far_behind_is_a_reason_until_it_has_caught_up() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 11);
    let server = serve(Watch::new().feeds(place.path()).thresholds(Thresholds::default().max_messages(10)));
    let not_ready = ask(&server, "/health/ready");
    assert_eq!(not_ready.status, 503);
    let answer = not_ready.json();
    assert_eq!(answer["status"], "not ready");
    let reason = &answer["reasons"][0];
    assert_eq!(reason["kind"], "subscriber_behind");
    assert_eq!(
        (reason["subscriber"].as_str(), reason["feed"].as_str()),
        (Some("s"), place.join("a").to_str())
    );
    let text = reason["text"].as_str().unwrap();
    assert!(text.ends_with("it is 11 messages behind, more than 10"), "{text}");
    consume(&log, 1);
    until("ready", || ask(&server, "/health/ready").status == 200);
    assert_eq!(ask(&server, "/health/ready").json(), serde_json::json!({ "status": "ok", "reasons": [] }));
}

#[test]
fn age_and_free_space_have_limits() {
    let place = Place::new();
    let log = place.feed("a");
    let writer = log.writer().unwrap();
    let old = Timestamp { seconds: Timestamp::now().seconds - 3600, micros: 0 };
    writer.append_batch_with_times(&[(old, "an hour old")]).unwrap();
    writer.close().unwrap();
    let thresholds = Thresholds::default().max_lag(Duration::from_secs(600)).min_free(u64::MAX);
    let server = serve(Watch::new().feeds(place.path()).thresholds(thresholds));
    let answer = ask(&server, "/health/ready").json();
    assert_eq!(kinds(&answer), ["disk_free", "subscriber_behind"]);
    let text = answer["reasons"][1]["text"].as_str().unwrap();
    assert!(text.contains("its oldest message is 36") && text.contains("more than 600 s"), "{text}");
    // The same feed is healthy with other limits.
    let thresholds = Thresholds::default().max_lag(Duration::from_secs(7200)).min_free(1);
    let server = serve(Watch::new().feeds(place.path()).thresholds(thresholds));
    assert_eq!(ask(&server, "/health/ready").status, 200);
}

#[test]
fn damage_and_losses_are_reasons() {
    let place = Place::new();
    let log = place.feed("a");
    append(&log, 50);
    log.subscribe("broken", jlog_core::Start::Beginning).unwrap();
    log.store_checkpoint("beyond", LogId::new(1000, 5)).unwrap();
    let broken = jlog_core::SubscriberName::new("broken").unwrap().checkpoint_file();
    std::fs::write(place.join("a").join(broken), "bad").unwrap();
    std::fs::remove_file(place.join("a").join("00000001")).unwrap();
    let server = serve(Watch::new().feeds(place.path()));
    let answer = ask(&server, "/health/ready").json();
    let about: Vec<(&str, &str)> = answer["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| (reason["kind"].as_str().unwrap(), reason["subscriber"].as_str().unwrap()))
        .collect();
    assert_eq!(about, [("damage", "beyond"), ("damage", "broken"), ("lost", "s")]);
    // An unknown value is not shown as 0.
    let metrics = ask(&server, "/metrics").body;
    let feed = place.join("a").display().to_string();
    for (name, sound) in [("beyond", 0), ("broken", 0), ("s", 1)] {
        let labels = format!("{{feed=\"{feed}\",subscriber=\"{name}\"}}");
        assert!(metrics.contains(&format!("jlog_subscriber_sound{labels} {sound}\n")), "{metrics}");
        assert_eq!(metrics.contains(&format!("jlog_subscriber_lag_messages{labels}")), sound == 1);
    }
}
