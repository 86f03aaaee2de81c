//! The side that delivers messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use jlog_core::asynchronous::{AsyncReader, Committer};
use jlog_core::{AckWindow, LogId, OnDamage, OwnedMessage, ReaderOptions};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Counters;

/// A delivery that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A message whose delivery has no result after this time is delivered again.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a failed delivery is postponed: initially, and at most.
const BACKOFF: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(5)];

/// How messages are delivered.
#[derive(Clone, Debug)]
pub struct CourierOptions {
    /// The other service, as host and port.
    pub to: String,
    /// How many deliveries may be in progress at the same time.
    pub at_once: usize,
    /// How many messages may be delivered after the oldest undelivered one.
    pub window: usize,
}

/// What readers of an outbox do about damage: every accepted message that can be read is delivered,
/// and events report the rest.
pub(crate) fn reader_options() -> ReaderOptions {
    ReaderOptions::default().on_damage(OnDamage::Skip)
}

/// Posts every message to another service, in any order, until that service takes it.
pub struct Courier {
    options: CourierOptions,
    counters: Arc<Counters>,
    reader: AsyncReader,
    committer: Committer,
    window: AckWindow<OwnedMessage>,
    /// Messages that were read but are not in the window yet, in reverse order.
    read: Vec<OwnedMessage>,
    deliveries: JoinSet<(LogId, bool)>,
    committed: Option<LogId>,
}

impl Courier {
    /// A courier that reads for [`SUBSCRIBER`](crate::SUBSCRIBER).
    ///
    /// # Errors
    /// When its reader cannot be opened.
    pub async fn open(
        log: &jlog_core::Jlog,
        options: CourierOptions,
        counters: Arc<Counters>,
    ) -> jlog_core::Result<Self> {
        let reading = jlog_core::asynchronous::AsyncReaderOptions::default().reader(reader_options());
        let reader = AsyncReader::open_with(log, crate::SUBSCRIBER, reading).await?;
        Ok(Self {
            committer: reader.committer(),
            reader,
            window: AckWindow::new(options.window.max(options.at_once), WINDOW_TIMEOUT),
            options,
            counters,
            read: Vec::new(),
            deliveries: JoinSet::new(),
            committed: None,
        })
    }

    /// Delivers until `stop` becomes true; then finishes the deliveries in progress and stores the
    /// checkpoint. Undelivered messages stay in the feed.
    ///
    /// # Errors
    /// When the feed cannot be read, or the checkpoint cannot be stored.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> jlog_core::Result<()> {
        while !*stop.borrow() {
            self.hand_out();
            let wants_more = self.read.is_empty() && !self.window.is_full();
            let next_timeout = self.window.next_timeout().map(tokio::time::Instant::from_std);
            let timeout = tokio::time::sleep_until(next_timeout.unwrap_or_else(tokio::time::Instant::now));
            tokio::select! {
                _ = stop.changed() => {}
                Some(delivery) = self.deliveries.join_next() => self.take_note(delivery.ok()).await?,
                Some(batch) = self.reader.next_batch(), if wants_more => {
                    self.read = batch?.iter().collect();
                    self.read.reverse();
                }
                () = timeout, if next_timeout.is_some() && self.deliveries.len() < self.options.at_once => {}
            }
        }
        while let Some(delivery) = self.deliveries.join_next().await {
            self.take_note(delivery.ok()).await?;
        }
        self.committer.sync().await
    }

    /// Starts as many deliveries as are allowed: first the repeated ones, then new ones.
    fn hand_out(&mut self) {
        let now = Instant::now();
        while self.deliveries.len() < self.options.at_once {
            let (message, deliveries) = if let Some(again) = self.window.redeliver(now) {
                (again.message.clone(), again.deliveries)
            } else if self.window.is_full() {
                return;
            } else if let Some(message) = self.read.pop() {
                // There is room, and messages are read in order: the window does not refuse it.
                let _ = self.window.deliver(message.id(), message.clone(), now);
                (message, 1)
            } else {
                return;
            };
            let to = self.options.to.clone();
            self.deliveries.spawn(async move {
                let id = message.id();
                let delivered = tokio::time::timeout(REQUEST_TIMEOUT, post(&to, message)).await;
                let taken = matches!(delivered, Ok(Ok(status)) if status.is_success());
                if !taken {
                    let [first, most] = BACKOFF;
                    tokio::time::sleep((first * 2u32.saturating_pow(deliveries.min(10) - 1)).min(most)).await;
                }
                (id, taken)
            });
        }
    }

    async fn take_note(&mut self, delivery: Option<(LogId, bool)>) -> jlog_core::Result<()> {
        // After a panic, the message is delivered again when its time is over.
        let Some((id, taken)) = delivery else { return Ok(()) };
        if !taken {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.window.give_back(id);
            return Ok(());
        }
        if self.window.acknowledge(id).is_some() {
            self.counters.delivered.fetch_add(1, Ordering::Relaxed);
        }
        let checkpoint = self.window.checkpoint();
        if let Some(id) = checkpoint.filter(|_| checkpoint != self.committed) {
            self.committer.commit(id).await?;
            self.committed = checkpoint;
        }
        Ok(())
    }
}

/// Posts a message; the id lets the other side recognise duplicates.
async fn post(
    to: &str,
    message: OwnedMessage,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post("/")
        .header(header::HOST, to)
        .header("idempotency-key", message.id().to_string())
        .body(Body::from(message.into_body()))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        // The connection ends when its sender is dropped.
        drop(sender);
        Ok::<_, hyper::Error>(response.status())
    };
    let (status, _) = tokio::join!(exchange, connection);
    Ok(status?)
}
