//! What is watched.

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

/// What a server takes and gives at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time: 100. For one more, the oldest that waits for a request is closed.
    pub connections: usize,
    /// Live tails at the same time: 50.
    pub tails: usize,
    /// Bytes of a request's first line and headers: 16 KiB, and 8 KiB or more.
    pub header_bytes: usize,
    /// Bytes of a response's body: 64 MiB. A longer one is an error that says so, or has what fits.
    pub response_bytes: usize,
    /// Time for a client to send a request's headers, counted from the end of the request before: 30 seconds. Prometheus asks
    /// again on the connection that it has when it asks more often than this.
    pub header_time: Duration,
    /// Time for a client to take anything of a response that it keeps waiting: 10 seconds.
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
    /// How many connections there may be at the same time.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How many live tails there may be at the same time.
    #[must_use]
    pub fn tails(mut self, tails: usize) -> Self {
        self.tails = tails;
        self
    }

    /// How many bytes the body of a response may have.
    #[must_use]
    pub fn response_bytes(mut self, bytes: usize) -> Self {
        self.response_bytes = bytes;
        self
    }

    /// So much time for a request's headers.
    #[must_use]
    pub fn header_time(mut self, time: Duration) -> Self {
        self.header_time = time;
        self
    }

    /// So much time for a client that takes nothing.
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
/// // Every feed in this directory, and those that come later.
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

/// Metrics of the program itself; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SharedCollector(Arc<dyn Collector>);

impl Collector for SharedCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// What reads a configuration again.
#[derive(Clone)]
pub(crate) struct Reload(pub(crate) Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload(…)")
    }
}

/// How many changes may be under way at the same time: one may wait for a sink.
const CHANGES: usize = 4;

/// What answers are made from.
pub(crate) struct Core {
    pub(crate) feeds: Arc<Feeds>,
    #[cfg(feature = "graph")]
    pub(crate) graphs: Arc<Graphs>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) thresholds: Thresholds,
    pub(crate) started: SystemTime,
    /// One for each tail that may be open.
    pub(crate) tails: Arc<Semaphore>,
    /// Whether anything may be changed.
    pub(crate) control: bool,
    /// One for each change that may be under way.
    pub(crate) changes: Arc<Semaphore>,
    pub(crate) checks: Checks,
    pub(crate) reload: Option<Reload>,
    pub(crate) collectors: Vec<SharedCollector>,
}

/// What there is of everything at a moment.
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
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a feed, or a directory in which feeds are searched for (8 directories deep, without following symbolic links):
    /// new ones appear within 5 seconds, and those that vanish become entries with an error for an hour. It need not be there
    /// yet.
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

    /// Adds a graph. Its name tells several graphs apart; the only one may have none (`""`). One that has the name already
    /// is replaced.
    #[cfg(feature = "graph")]
    #[must_use]
    pub fn graph(mut self, name: impl Into<String>, graph: logdag::Graph) -> Self {
        let name = name.into();
        self.graphs.retain(|(known, _)| *known != name);
        self.graphs.push((name, graph));
        self
    }

    /// Answers only whoever has this token (`Authorization: Bearer TOKEN`), but for `/health/live` and the page's
    /// files, which hold nothing of feeds and logs: the page asks for the token.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Secures the connections of a server at an IP address. Where it wants certificates of clients, whoever has one
    /// may ask, from other machines as well, and [change](Watch::control) something, without a [token](Watch::token);
    /// with both, both are needed.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets a browser, or another client without a token, call this server by this name as well. `localhost` and the
    /// loopback's addresses are always allowed; other names are refused, since a page of another site could reach this
    /// server by them.
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

    /// Replaces what `/health/ready` says no at.
    #[must_use]
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Lets whoever may ask change something, too: streams and subscribers, by the API. That needs a
    /// [token](Watch::token), or a Unix socket, which is its owner's; without either, a [router](Watch::router) changes
    /// nothing.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Has this read the program's configuration again, where a client asks for it and [control](Watch::control) is
    /// allowed. Its error is for that client: why the configuration was refused.
    #[must_use]
    pub fn on_reload(mut self, reload: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.reload = Some(Reload(Arc::new(reload)));
        self
    }

    /// Adds metrics of the program itself to `/metrics`. It is asked for them at every scrape, on a thread that may block for
    /// a moment; their names must not begin as those of feeds and streams do.
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

    /// What answers, for a server of one's own: it needs a tokio runtime with time, and reads feeds
    /// on its blocking threads (4 at once, and more only where file systems do not answer).
    /// [`Limits`] of connections and time are that server's affair. Clients without a token must
    /// call it by `localhost`, a loopback address or a name that was [allowed](Watch::allow_host).
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

    /// Looks at all of it without a server, from the calling thread.
    ///
    /// # Errors
    /// The system gives no more of what a runtime needs.
    pub fn observer(&self) -> std::io::Result<Observer> {
        Observer::new(self.core(false))
    }

    /// Answers at this address from a thread of its own, until the [`Server`] is stopped or dropped.
    ///
    /// # Errors
    /// The address is taken or not allowed, or it is not local and neither a [token](Watch::token) nor a certificate of
    /// clients is asked for; no thread can be started.
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
        // By a name of another site, a browser does not get behind a handshake with our certificate.
        let core = self.core(socket || knows_clients);
        Server::start(address, router::router(core), self.limits, secure)
    }

    /// What secures connections, and whether clients show who they are.
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
