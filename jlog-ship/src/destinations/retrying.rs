//! A command whose failed runs are repeated individually, while others continue.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;

use crate::backoff::Backoff;
use crate::destinations::Exec;
use crate::{Answer, Destination, Limits, MessageId, Refusal, RefusalKind, Shipment, Stopper};

/// A failed run of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRun {
    /// The first message of the run.
    pub first: MessageId,
    /// How many messages the run had.
    pub messages: usize,
    /// How many runs for them have failed so far.
    pub runs: u32,
    /// Whether somebody has to fix something, for example if the command is missing.
    pub misconfigured: bool,
    /// Whether any run of this command has succeeded.
    pub worked: bool,
    /// Whether the same messages get another run.
    pub again: bool,
    /// The command's error output and its status.
    pub why: String,
}

type OnFailure = Arc<dyn Fn(&FailedRun) -> ControlFlow<()> + Send + Sync>;

/// Runs an [`Exec`] command. If a run fails temporarily, it is repeated after a growing pause,
/// while other runs continue within the shipper's [window](crate::Shipper::window). When the last
/// try has failed, the messages of the run are refused for good; if there are several, the failing
/// ones are searched for, with one run for each part.
///
/// The shipper's own [time limit](crate::Shipper::timeout) covers all tries together and should be
/// long.
#[derive(Clone)]
pub struct Retrying {
    exec: Exec,
    stopper: Stopper,
    tries: Option<u32>,
    timeout: Option<Duration>,
    backoff: (Duration, Duration),
    on_failure: OnFailure,
    worked: Arc<AtomicBool>,
    /// Messages that have used up their tries, in runs with others.
    exhausted: Arc<Mutex<BTreeSet<MessageId>>>,
}

impl fmt::Debug for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("exec", &self.exec).finish_non_exhaustive()
    }
}

impl Retrying {
    /// Repeats failed runs of this command until the shipper is stopped. The thread that ships
    /// calls `told` for each failure; [`ControlFlow::Break`] stops the shipper.
    pub fn new(
        exec: Exec,
        stopper: Stopper,
        on_failure: impl Fn(&FailedRun) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            exec,
            stopper,
            tries: None,
            timeout: None,
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
            on_failure: Arc::new(on_failure),
            worked: Arc::default(),
            exhausted: Arc::default(),
        }
    }

    /// Sets how many runs messages get before they are refused for good, at least 1; unlimited by
    /// default. Runs that fail because somebody has to fix something do not count.
    #[must_use]
    pub fn tries(mut self, tries: Option<u32>) -> Self {
        self.tries = tries.map(|tries| tries.max(1));
        self
    }

    /// Sets how long a run may take before it is killed and counts as failed; unlimited by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the first and the longest pause between runs: 100 ms and 30 s by default.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first.max(Duration::from_millis(1)), longest.max(first));
        self
    }

    async fn run(&mut self, shipment: &Shipment) -> Result<(), Refusal> {
        let answer = self.exec.send(shipment.clone());
        let Some(limit) = self.timeout else { return answer.await };
        let late = |_| Err(Refusal::temporary(format!("it did not end within {} s", limit.as_secs_f64())));
        tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
    }

    async fn run_until_done(mut self, shipment: Shipment) -> Result<(), Refusal> {
        let Some(&first) = shipment.first().map(|message| &message.id) else { return Ok(()) };
        let mut stop = self.stopper.subscribe();
        let mut backoff = Backoff::new(self.backoff.0, self.backoff.1);
        let known = self.exhausted.lock().unwrap_or_else(PoisonError::into_inner).contains(&first);
        let tries = if known { Some(1) } else { self.tries };
        let (mut runs, mut counted) = (0, 0);
        loop {
            let refusal = match self.run(&shipment).await {
                Ok(()) => {
                    self.worked.store(true, Ordering::Relaxed);
                    self.forget(&shipment);
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            let misconfigured = match refusal.kind {
                RefusalKind::Temporary(_) | RefusalKind::Behind => false,
                RefusalKind::Misconfigured => true,
                RefusalKind::Shipment | RefusalKind::Some | RefusalKind::Message => {
                    // The command ran, and refused a message.
                    self.worked.store(true, Ordering::Relaxed);
                    return Err(refusal);
                }
            };
            runs += 1;
            counted += u32::from(!misconfigured);
            let again = misconfigured || tries.is_none_or(|tries| counted < tries);
            let failed = FailedRun {
                first,
                messages: shipment.len(),
                runs,
                misconfigured,
                worked: self.worked.load(Ordering::Relaxed),
                again,
                why: refusal.why.clone(),
            };
            if (self.on_failure)(&failed).is_break() {
                self.stopper.stop();
            }
            if !again {
                if shipment.len() > 1 {
                    let mut exhausted = self.exhausted.lock().unwrap_or_else(PoisonError::into_inner);
                    exhausted.extend(shipment.iter().map(|message| message.id));
                } else {
                    self.forget(&shipment);
                }
                return Err(Refusal::shipment(refusal.why));
            }
            tokio::select! {
                biased;
                // The next shipper delivers them again.
                _ = stop.wait_for(|&stop| stop) => return Err(Refusal::behind()),
                () = tokio::time::sleep(backoff.wait(None)) => {}
            }
        }
    }

    fn forget(&self, shipment: &Shipment) {
        let mut exhausted = self.exhausted.lock().unwrap_or_else(PoisonError::into_inner);
        for message in shipment {
            exhausted.remove(&message.id);
        }
    }
}

impl Destination for Retrying {
    fn name(&self) -> String {
        self.exec.name()
    }

    fn limits(&self) -> Limits {
        self.exec.limits()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        self.clone().run_until_done(shipment).boxed()
    }
}
