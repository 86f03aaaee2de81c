//! The feeds and graphs that are watched.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::Semaphore;

use crate::access::{Access, Token};
use crate::address::Address;
use crate::api::Checks;
use crate::feeds::{FeedView, Feeds};
#[cfg(feature = "graph")]
use crate::graphs::{GraphView, Graphs};
use crate::health::Thresholds;
use crate::observe::Observer;
use crate::router;
use crate::server::{ServeError, Server};
use crate::tls::Secure;

/// The limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time: 100. One more closes the oldest idle one.
    pub connections: usize,
    /// Live tails at the same time: 50.
    pub tails: usize,
    /// Bytes of a request's first line and headers: 16 KiB; the minimum is 8 KiB.
    pub header_bytes: usize,
    /// Bytes of a response's body: 64 MiB. A longer response becomes an error that says so, or is
    /// cut to fit.
    pub response_bytes: usize,
    /// Time for a client to send a request's headers, counted from the end of the previous request:
    /// 30 seconds. Prometheus reuses its connection if it scrapes more often than this.
    pub header_time: Duration,
    /// Time within which a client must read more of a pending response: 10 seconds.
    pub stall_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100,
            tails: 50,
            header_bytes: 16 << 10,
            response_bytes: 64 << 20,
            header_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Sets how many connections there may be at the same time.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how many live tails there may be at the same time.
    #[must_use]
    pub fn tails(mut self, tails: usize) -> Self {
        self.tails = tails;
        self
    }

    /// Sets how many bytes the body of a response may have.
    #[must_use]
    pub fn response_bytes(mut self, bytes: usize) -> Self {
        self.response_bytes = bytes;
        self
    }

    /// Sets the time for a request's headers.
    #[must_use]
    pub fn header_time(mut self, time: Duration) -> Self {
        self.header_time = time;
        self
    }

    /// Sets the time for a client that reads nothing.
    #[must_use]
    pub fn stall_time(mut self, time: Duration) -> Self {
        self.stall_time = time;
        self
    }
}

/// Feeds and graphs, and how they are shown.
///
/// ```
/// # let dir = tempfile::tempdir()?; let feeds = dir.path().to_owned();
/// use jlog_watch::Watch;
///
/// // Every feed in this directory, and those that appear later.
/// let server = Watch::new().feeds(feeds).serve(&"127.0.0.1:0".parse()?)?;
/// println!("{}/metrics", server.address());
/// server.stop();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Watch {
    roots: Vec<PathBuf>,
    #[cfg(feature = "graph")]
    graphs: Vec<(String, logdag::Graph)>,
    token: Option<Token>,
    hosts: Vec<String>,
    limits: Limits,
    thresholds: Thresholds,
    control: bool,
    reload: Option<Reload>,
    collectors: Vec<SharedCollector>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Tls>,
}

/// Metrics of the program itself; clones share one registry.
#[derive(Clone, Debug)]
pub(crate) struct SharedCollector(Arc<dyn Collector>);

impl Collector for SharedCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// Reloads a configuration.
#[derive(Clone)]
pub(crate) struct Reload(pub(crate) Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload(…)")
    }
}

/// How many changes may be in progress at the same time: one may wait for a sink.
const CHANGES: usize = 4;

/// The data that answers are made from.
pub(crate) struct Core {
    pub(crate) feeds: Arc<Feeds>,
    #[cfg(feature = "graph")]
    pub(crate) graphs: Arc<Graphs>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) thresholds: Thresholds,
    pub(crate) started: SystemTime,
    /// One permit for each tail that may be open.
    pub(crate) tails: Arc<Semaphore>,
    /// Whether changes are allowed.
    pub(crate) control: bool,
    /// One permit for each change that may be in progress.
    pub(crate) changes: Arc<Semaphore>,
    pub(crate) checks: Checks,
    pub(crate) reload: Option<Reload>,
    pub(crate) collectors: Vec<SharedCollector>,
}

/// The state of everything at one moment.
pub(crate) struct View {
    pub(crate) feeds: Vec<FeedView>,
    #[cfg(feature = "graph")]
    pub(crate) graphs: Vec<GraphView>,
    pub(crate) collectors: Vec<SharedCollector>,
}

impl Core {
    pub(crate) async fn view(&self) -> View {
        View {
            feeds: self.feeds.look().await,
            #[cfg(feature = "graph")]
            graphs: self.graphs.look(),
            collectors: self.collectors.clone(),
        }
    }
}

impl Watch {
    /// Makes a watch without feeds and graphs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a feed, or a directory to search for feeds (8 directories deep, without following
    /// symbolic links). New feeds appear within 5 seconds, and feeds that disappear become entries
    /// with an error for an hour. The path need not exist yet.
    #[must_use]
    pub fn feeds(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // The process may change its directory.
        let path = std::path::absolute(&path).unwrap_or(path);
        if !self.roots.contains(&path) {
            self.roots.push(path);
        }
        self
    }

    /// Adds a graph. Its name distinguishes several graphs; a single graph needs none (`""`). A
    /// graph of the same name is replaced.
    #[cfg(feature = "graph")]
    #[must_use]
    pub fn graph(mut self, name: impl Into<String>, graph: logdag::Graph) -> Self {
        let name = name.into();
        self.graphs.retain(|(known, _)| *known != name);
        self.graphs.push((name, graph));
        self
    }

    /// Answers only clients that send this token (`Authorization: Bearer TOKEN`), except for
    /// `/health/live` and the page's files, which contain nothing from feeds and logs: the page
    /// asks for the token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Uses TLS for a server at an IP address. If it requires client certificates, a client with
    /// one may connect from other machines and make [changes](Watch::control) without a
    /// [token](Watch::token); if a token is set as well, both are needed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Also allows this host name in requests without a token. `localhost` and loopback addresses
    /// are always allowed. Other names are refused, because another site's page could use them to
    /// reach this server.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces the thresholds of `/health/ready`.
    #[must_use]
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Lets clients change streams and subscribers through the API. That needs a
    /// [token](Watch::token), client certificates, or a Unix socket, which only its owner can use;
    /// without a token, a [router](Watch::router) changes nothing.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Sets the function that reloads the program's configuration when a client requests it and
    /// [control](Watch::control) is allowed. Its error tells that client why the configuration was
    /// refused.
    #[must_use]
    pub fn on_reload(mut self, reload: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.reload = Some(Reload(Arc::new(reload)));
        self
    }

    /// Adds the program's own metrics to `/metrics`. The collector is called at every scrape, on a
    /// thread that may block for a moment. The names of its metrics must not have the prefixes of
    /// those of feeds and streams.
    #[must_use]
    pub fn collector(mut self, collector: impl Collector) -> Self {
        self.collectors.push(SharedCollector(Arc::new(collector)));
        self
    }

    fn core(&self, any_host: bool) -> Arc<Core> {
        Arc::new(Core {
            feeds: Feeds::new(self.roots.clone()),
            #[cfg(feature = "graph")]
            graphs: Arc::new(Graphs::new(self.graphs.clone())),
            access: Access { token: self.token.clone(), hosts: self.hosts.clone(), any_host },
            limits: self.limits,
            thresholds: self.thresholds,
            started: SystemTime::now(),
            tails: Arc::new(Semaphore::new(self.limits.tails)),
            control: self.control && (any_host || self.token.is_some()),
            changes: Arc::new(Semaphore::new(CHANGES)),
            checks: Checks::default(),
            reload: self.reload.clone(),
            collectors: self.collectors.clone(),
        })
    }

    /// A router for a server of your own. It needs a tokio runtime with time, and reads feeds on
    /// its blocking threads (4 at once, and more only if file systems do not answer). That server
    /// must enforce the [`Limits`] of connections and time. Clients without a token must use
    /// `localhost`, a loopback address or an [allowed](Watch::allow_host) name as the host.
    ///
    /// ```
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let watch = jlog_watch::Watch::new().feeds("/var/spool/feeds");
    /// let app = axum::Router::new().nest("/watch", watch.router());
    /// # let _ = (app, listener); Ok(()) }
    /// ```
    pub fn router(&self) -> Router {
        router::router(self.core(false))
    }

    /// Returns an observer, which reads everything without a server, from the calling thread.
    ///
    /// # Errors
    /// The system lacks the resources for a runtime.
    pub fn observer(&self) -> std::io::Result<Observer> {
        Observer::new(self.core(false))
    }

    /// Serves at this address from a separate thread, until the [`Server`] is stopped or dropped.
    ///
    /// # Errors
    /// The address is taken or not permitted; it is not local, and neither a [token](Watch::token)
    /// nor client certificates are required; no thread can be started.
    pub fn serve(&self, address: &Address) -> Result<Server, ServeError> {
        let (secure, knows_clients) = self.secure();
        let asks = self.token.is_some() || knows_clients;
        if !address.is_local() && !asks {
            return Err(ServeError::NoToken { address: address.clone() });
        }
        let socket = matches!(address, Address::Unix(_));
        if socket && secure.is_some() {
            return Err(ServeError::TlsOfSocket { address: address.clone() });
        }
        if self.control && !asks && !socket {
            return Err(ServeError::ControlNeedsToken { address: address.clone() });
        }
        // For another site's name, a browser's handshake with our certificate fails.
        let core = self.core(socket || knows_clients);
        Server::start(address, router::router(core), self.limits, secure)
    }

    /// The TLS configuration, and whether clients must have a certificate.
    #[cfg(feature = "tls")]
    fn secure(&self) -> (Option<Secure>, bool) {
        let tls = self.tls.as_ref();
        (tls.map(crate::tls::Tls::secure), tls.is_some_and(crate::tls::Tls::needs_client_certificates))
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn secure(&self) -> (Option<Secure>, bool) {
        (None, false)
    }
}
