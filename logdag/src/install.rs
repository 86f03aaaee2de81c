//! Connects a graph with the crates `log` and `tracing` in one call.

use crate::graph::{DrainAtEnd, Graph};
#[cfg(feature = "log")]
use crate::log_crate::Logger;
#[cfg(feature = "tracing")]
use crate::tracing_layer::GraphLayer;

/// Why a graph could not be installed. Nothing is installed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The crate `log` has a logger.
    #[error(
        "the crate log has a logger already: install the graph first, or initialise the other one without it (tracing_subscriber's \
         feature tracing-log)"
    )]
    Log,
    /// `tracing` has a subscriber.
    #[error(
        "tracing has a subscriber already: install the graph first, or add a GraphLayer to that subscriber"
    )]
    Tracing,
}

/// Sends everything that the process logs with the crates `log` and `tracing` to a graph, from
/// every thread. It combines [`Logger::install`](crate::log_crate::Logger::install) and a
/// [`GraphLayer`](crate::tracing_layer::GraphLayer). (With only one of the features `log` and
/// `tracing`, only that one.) Neither is ever dropped: keep the returned value until the end of
/// `main`, where it writes what waits in queues.
///
/// ```no_run
/// use logdag::{Graph, Levels, config::Config};
///
/// let graph = Graph::new();
/// Config::from_file("web.toml")?.apply(&graph)?;
/// graph.set_levels(Levels::from_env(&["LOGDAG_LOG", "RUST_LOG"])?);
/// graph.go_async();
/// let _drain = logdag::install(&graph)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `tracing` has a subscriber already, or `log` has a logger.
pub fn install(graph: &Graph) -> Result<DrainAtEnd, InstallError> {
    #[cfg(feature = "tracing")]
    if tracing_core::dispatcher::has_been_set() {
        return Err(InstallError::Tracing);
    }
    #[cfg(feature = "log")]
    let drain = Logger::install(graph.clone()).map_err(|_| InstallError::Log)?;
    #[cfg(not(feature = "log"))]
    let drain = graph.drain_at_end();
    #[cfg(feature = "tracing")]
    {
        use tracing_subscriber::layer::SubscriberExt;
        let layer = GraphLayer::new(graph.clone()).alone();
        let dispatch = tracing_core::Dispatch::new(tracing_subscriber::registry().with(layer));
        tracing_core::dispatcher::set_global_default(dispatch).map_err(|_| InstallError::Tracing)?;
    }
    Ok(drain)
}
