//! Requests to the server that watches feeds and log streams.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use jlog_core::{Jlog, Start};
use jlog_watch::{Token, Watch};
use logdag::Graph;
use tower::ServiceExt;

use super::Disk;

/// The token that changes need; the corpus has it.
const TOKEN: &str = "a-token-of-the-fuzzer";
/// The maximum length of an answer: what [`jlog_watch::Limits`] allow, with the text around it.
const MAX_ANSWER: usize = 32 << 20;

/// Reads `METHOD PATH`, lines of headers, an empty line, and a body; `None` if no client could send
/// that.
fn request(data: &[u8]) -> Option<Request<Body>> {
    let mut rest = data;
    let mut line = || {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\n").unwrap_or_default();
        line
    };
    let first = std::str::from_utf8(line()).ok()?;
    let (method, path) = first.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(path);
    loop {
        let line = line();
        if line.is_empty() {
            break;
        }
        let at = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    request.body(Body::from(rest.to_vec())).ok()
}

/// No request makes the server fail, or answer invalid JSON as JSON. Without the token a request
/// gets no data.
pub fn requests(_: Disk, data: &[u8]) {
    let Some(request) = request(data) else { return };
    let (path, has_token) = (request.uri().path().to_owned(), {
        let given = request.headers().get("authorization");
        given.is_some_and(|given| given.as_bytes().ends_with(TOKEN.as_bytes()))
    });
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let log = Jlog::create(&feed).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    for body in [&b"one"[..], b"\xff\x1b[2J", b"three"] {
        writer.append(body).unwrap();
    }
    writer.close().unwrap();
    let graph = Graph::new();
    let ring = graph.add_memory("ring", 10, 1000).unwrap();
    graph.add_outlet("web", "ring", Some("status >= 500")).unwrap();
    logdag::log!(ring, "a line");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let watch = Watch::new().feeds(&feed).graph("", graph).token(Token::new(TOKEN).unwrap()).control();
        let answer = watch.router().oneshot(request).await.unwrap();
        let status = answer.status();
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let known = ["/", "/page.js", "/page.css", "/icon.svg", "/health/live"];
        assert!(
            has_token || known.contains(&&*path) || !status.is_success(),
            "{path}: {status} without the token"
        );
        let kind = answer.headers().get("content-type").map(|kind| kind.as_bytes().to_vec());
        if kind.as_deref() == Some(b"text/event-stream") {
            // A tail does not end.
            return;
        }
        let body = tokio::time::timeout(Duration::from_secs(10), to_bytes(answer.into_body(), MAX_ANSWER));
        let body = body.await.unwrap().unwrap();
        if kind.as_deref() == Some(b"application/json") && !body.is_empty() {
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        }
    });
}
