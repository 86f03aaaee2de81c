//! The parts that all answers share.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::response::Response;
use serde_json::{Value, json};

/// The type of JSON.
pub(crate) const JSON: &str = "application/json";

/// Headers for browsers in every answer: nothing may be loaded from elsewhere, run inline, framed,
/// cached, sniffed, or given to other sites.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A body of this type.
pub(crate) fn body(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A JSON value and a newline.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    body(status, JSON, format!("{value}\n"))
}

/// An error, as a JSON object.
pub(crate) fn error(status: StatusCode, why: impl Into<String>) -> Response {
    let mut response = json(status, &json!({ "error": why.into() }));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
