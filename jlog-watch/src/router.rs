//! Which request gets which answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;

use crate::api;
use crate::health;
use crate::metrics;
use crate::mtev;
use crate::page;
use crate::respond::{self, error};
use crate::watch::Core;

/// A request has a body no longer than this.
const MAX_BODY: u64 = 64 << 10;

pub(crate) fn router(core: Arc<Core>) -> Router {
    let router = Router::new();
    #[cfg(feature = "graph")]
    let router = router.route("/eventer/logs/{*file}", get(mtev::ring));
    router
        .merge(page::router())
        .nest("/api/v1", api::router(core.control))
        .route("/capa.json", get(mtev::capabilities))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/mtev/stats.json", get(mtev::stats))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            error(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here; whether anything can be changed was decided when the server was started")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&core), guard))
        .with_state(core)
}

/// Refuses who may not ask, and tells browsers what not to do with answers.
async fn guard(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut response = match core.access.check(request.uri(), request.headers()) {
        Err((status, why)) => error(status, why),
        Ok(()) if length.is_some_and(|length| length > MAX_BODY) => {
            error(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too long")
        }
        Ok(()) => next.run(request).await,
    };
    respond::protect(response.headers_mut());
    response
}
