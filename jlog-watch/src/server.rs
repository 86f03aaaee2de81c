//! A server on its own thread.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, watch};
use tokio_io_timeout::TimeoutStream;

use crate::address::Address;
use crate::feeds::THREADS;
use crate::tls::Secure;
use crate::watch::Limits;

/// How many bytes of a body a connection gets at once; the server keeps the rest until the client
/// has taken these.
const PIECE: usize = 64 << 10;
/// How long nothing is accepted after an error of the listening socket (such as too many open
/// files).
const PAUSE: Duration = Duration::from_millis(100);
/// How long a stopping server waits for reads from file systems.
const LAST_READS: Duration = Duration::from_millis(500);
/// hyper takes no smaller buffer.
const MIN_BUFFER: usize = 8192;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Other machines could connect, and nothing would keep them out.
    #[error(
        "{address} can be reached from other machines: it needs a token (a token file) or TLS with client certificates, \
         or use 127.0.0.1 or unix:PATH"
    )]
    NoToken {
        /// The address.
        address: Address,
    },
    /// Every user and every program on this machine could make changes.
    #[error(
        "{address}: changes need a token (a token file), TLS with client certificates, or a Unix socket, unix:PATH"
    )]
    ControlNeedsToken {
        /// The address.
        address: Address,
    },
    /// A Unix socket needs none.
    #[error("{address}: a Unix socket has no TLS")]
    TlsOfSocket {
        /// The address.
        address: Address,
    },
    /// The server cannot listen on this address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// The thread or the runtime cannot be started.
    #[error("cannot start a thread for the server: {0}")]
    Thread(#[source] io::Error),
}

/// A server that answers until it is stopped or dropped.
pub struct Server {
    address: Address,
    url: String,
    stop: watch::Sender<bool>,
    /// Receives pings that its thread answers, to show that it is alive.
    probes: mpsc::UnboundedSender<std::sync::mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The socket's file, and which file that is.
    socket: Option<(PathBuf, u64)>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn start(
        address: &Address,
        router: Router,
        limits: Limits,
        secure: Option<Secure>,
    ) -> Result<Self, ServeError> {
        let url = |address: &Address| match &secure {
            Some(_) => address.to_string().replacen("http:", "https:", 1),
            None => address.to_string(),
        };
        let fail = |source| ServeError::Listen { address: address.clone(), source };
        let (listener, address, socket) = match address {
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).map_err(fail)?;
                listener.set_nonblocking(true).map_err(fail)?;
                let bound = Address::Tcp(listener.local_addr().map_err(fail)?);
                (Listener::Tcp(listener), bound, None)
            }
            Address::Unix(path) => {
                let listener = bind_unix(path).map_err(fail)?;
                (Listener::Unix(listener), address.clone(), Some((path.clone(), inode(path).unwrap_or(0))))
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS)
            .thread_name("jlog-watch")
            .build()
            .map_err(ServeError::Thread)?;
        let url = url(&address);
        let (stop, stopped) = watch::channel(false);
        let (probes, mut probed) = mpsc::unbounded_channel::<std::sync::mpsc::SyncSender<()>>();
        let thread = std::thread::Builder::new()
            .name("jlog-watch".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::spawn(async move {
                        while let Some(probe) = probed.recv().await {
                            // The caller may have given up.
                            let _ = probe.try_send(());
                        }
                    });
                    match listener {
                        Listener::Tcp(listener) => {
                            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                            let accept = async || Ok(listener.accept().await?.0);
                            answer(accept, &router, limits, secure, stopped).await;
                        }
                        Listener::Unix(listener) => {
                            let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
                            let accept = async || Ok(listener.accept().await?.0);
                            answer(accept, &router, limits, secure, stopped).await;
                        }
                    }
                });
                runtime.shutdown_timeout(LAST_READS);
            })
            .map_err(ServeError::Thread)?;
        Ok(Self { address, url, stop, probes, thread: Some(thread), socket })
    }

    /// Where the server listens. For port 0, this has the port that it got.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address as clients write it: `http://…`, `https://…` or `unix:PATH`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the server's thread answers within this time. For watchdogs.
    pub fn answers(&self, within: Duration) -> bool {
        let (probe, answered) = std::sync::mpsc::sync_channel(1);
        self.probes.send(probe).is_ok() && answered.recv_timeout(within).is_ok()
    }

    /// Stops the server: its connections are closed and its thread has ended when this returns.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported.
            let _ = thread.join();
        }
        if let Some((path, file)) = self.socket.take()
            && inode(&path) == Some(file)
        {
            // It was removed meanwhile, which is the goal.
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|facts| facts.ino())
}

/// Makes a socket that only its owner can use. A socket without a listener is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    // Between binding and this call, the umask decides who may connect; such a client is treated as
    // the owner.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A client's connection.
#[derive(Default)]
struct Connection {
    /// Requests that are being answered.
    busy: AtomicUsize,
    close: Notify,
}

/// All connections, the oldest first.
struct Connections {
    all: Mutex<Vec<Arc<Connection>>>,
    max: usize,
}

impl Connections {
    /// Adds a connection. If there are too many, the oldest idle one is closed. `None` if all are
    /// busy.
    fn enter(&self) -> Option<Arc<Connection>> {
        let mut all = self.all.lock();
        if all.len() >= self.max {
            let idle = all.iter().position(|connection| connection.busy.load(Ordering::Relaxed) == 0)?;
            all.remove(idle).close.notify_one();
        }
        let connection = Arc::new(Connection::default());
        all.push(Arc::clone(&connection));
        Some(connection)
    }

    fn leave(&self, connection: &Arc<Connection>) {
        self.all.lock().retain(|other| !Arc::ptr_eq(other, connection));
    }
}

/// While this exists, a request is being answered.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is handed out in pieces, and keeps its connection busy until it is.
struct Pieces {
    body: Body,
    rest: Bytes,
    _busy: Busy,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let len = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(left.lower() + rest);
        if let Some(upper) = left.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Accepts connections and answers, until it is told to stop.
async fn answer<S>(
    accept: impl AsyncFn() -> io::Result<S>,
    router: &Router,
    limits: Limits,
    secure: Option<Secure>,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connections = Arc::new(Connections { all: Mutex::default(), max: limits.connections.max(1) });
    let mut stopped = pin!(async move {
        // The sender exists until this ends.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    loop {
        let accepted = match either(accept(), stopped.as_mut()).await {
            Some(accepted) => accepted,
            None => return,
        };
        match accepted {
            // If all connections are busy, the new one is closed; its client may try again.
            Ok(stream) => {
                if let Some(connection) = connections.enter() {
                    let (router, connections) = (router.clone(), Arc::clone(&connections));
                    let secure = secure.clone();
                    tokio::spawn(async move {
                        match secure {
                            None => serve(stream, router, limits, &connection).await,
                            Some(secure) => serve_securely(stream, secure, router, limits, &connection).await,
                        }
                        connections.leave(&connection);
                    });
                }
            }
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The result of the first future, or `None` if the second ends before it.
async fn either<T>(
    first: impl Future<Output = T>,
    mut second: Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    let mut first = pin!(first);
    std::future::poll_fn(|context| {
        if second.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        first.as_mut().poll(context).map(Some)
    })
    .await
}

/// The same after a handshake, which may take as long as a request's headers.
#[cfg(feature = "tls")]
async fn serve_securely<S>(
    stream: S,
    secure: Secure,
    router: Router,
    limits: Limits,
    connection: &Arc<Connection>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = tokio::time::timeout(limits.header_time, secure.accept(stream));
    // TLS has sent the reason to a refused client.
    if let Some(Ok(Ok(stream))) = either(handshake, pin!(connection.close.notified())).await {
        serve(stream, router, limits, connection).await;
    }
}

#[cfg(not(feature = "tls"))]
async fn serve_securely<S>(_: S, secure: Secure, _: Router, _: Limits, _: &Arc<Connection>) {
    match secure {}
}

/// Answers the requests of a connection until it ends or must be closed.
async fn serve<S>(stream: S, router: Router, limits: Limits, connection: &Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.stall_time));
    let router = TowerToHyperService::new(router);
    let of = Arc::clone(connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = Busy::new(&of);
        let answered = hyper::service::Service::call(&router, request);
        async move {
            let Ok(response): Result<Response, Infallible> = answered.await;
            Ok::<_, Infallible>(response.map(|body| Pieces { body, rest: Bytes::new(), _busy: busy }))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER));
    let serving = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    // A client that disconnects, or is too slow, is not worth a report.
    let _ = either(serving, pin!(connection.close.notified())).await;
}
