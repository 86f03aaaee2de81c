//! The page at `/`: three files and an icon, in the program itself.

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use crate::respond;

/// The paths of the page's files. They contain nothing from feeds or logs, so a browser may get
/// them before it has a token.
pub(crate) const PATHS: [&str; 4] = ["/", "/page.js", "/page.css", "/icon.svg"];

fn file(kind: &'static str, text: &'static str) -> Response {
    respond::body(StatusCode::OK, kind, text)
}

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let html = async || file("text/html; charset=utf-8", include_str!("../assets/index.html"));
    let script = async || file("text/javascript; charset=utf-8", include_str!("../assets/page.js"));
    let style = async || file("text/css; charset=utf-8", include_str!("../assets/page.css"));
    let icon = async || file("image/svg+xml", include_str!("../assets/icon.svg"));
    let [at_html, at_script, at_style, at_icon] = PATHS;
    Router::new()
        .route(at_html, get(html))
        .route(at_script, get(script))
        .route(at_style, get(style))
        .route(at_icon, get(icon))
}
