//! Requests that are refused, and the answers to browsers.

use jlog_watch::Watch;

use crate::support::{Place, ask, ask_with, connect, send, serve, socket_address};

#[test]
fn other_sites_and_names_get_nothing() {
    let place = Place::new();
    place.feed("secret");
    let server = serve(Watch::new().feeds(place.path()).allow_host("feeds.example"));
    let with = |headers: &str| {
        send(connect(&server), &format!("GET /metrics HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"))
    };
    // A page whose name now resolves to this address.
    let rebound = with("Host: evil.example\r\n");
    assert_eq!(rebound.status, 421);
    assert!(!rebound.body.contains("secret"));
    assert_eq!(with("Host: feeds.example:80\r\n").status, 200);
    let port = socket_address(&server).port();
    let foreign = with(&format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"));
    assert_eq!(foreign.status, 403);
    assert!(!foreign.body.contains("secret"));
    let own = with(&format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"));
    assert!(own.status == 200 && own.body.contains("secret"));
    assert!(!own.headers.contains_key("access-control-allow-origin"));
}

#[test]
fn every_answer_tells_browsers_what_not_to_do() {
    let server = serve(Watch::new());
    for (path, status) in
        [("/metrics", 200), ("/health/ready", 200), ("/nothing", 404), ("/../etc/passwd", 404)]
    {
        let answer = ask(&server, path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
}

#[test]
fn what_is_no_question_or_too_long_is_refused() {
    let server = serve(Watch::new());
    let host = socket_address(&server);
    let with = |start: &str, headers: &str| {
        send(
            connect(&server),
            &format!("{start} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"),
        )
        .status
    };
    assert_eq!(with("POST /metrics", "Content-Length: 0\r\n"), 405);
    assert_eq!(with("DELETE /health/live", ""), 405);
    assert_eq!(with("HEAD /metrics", ""), 200);
    assert_eq!(with("GET /metrics", "Content-Length: 1000000\r\n"), 413);
    assert_eq!(with("GET /metrics", &format!("X: {}\r\n", "x".repeat(20_000))), 431);
    assert!(matches!(with(&format!("GET /{}", "x".repeat(20_000)), ""), 414 | 431));
    assert_eq!(with("GET /metrics", &"X: y\r\n".repeat(200)), 431);
    assert_eq!(send(connect(&server), "nonsense\r\n\r\n").status, 400);
    // The server continues to answer.
    assert_eq!(ask_with(&server, "/health/live", "").status, 200);
}
