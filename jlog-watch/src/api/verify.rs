//! Feeds that are verified in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use jlog_core::{Progress, Verification, VerifyOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{pick, rfc3339};
use crate::feeds::Feed;
use crate::respond::{self, error};
use crate::watch::Core;

/// How many findings are shown; further ones are only counted.
const MAX_FINDINGS: usize = 1000;

/// The verifications of feeds, by name.
pub(crate) type Checks = Mutex<BTreeMap<String, Check>>;

/// The result of the last verification for a feed's segments.
pub(super) struct Verdict {
    /// The segment that was being written when the verification began: it and later ones may have
    /// changed since.
    writing: u32,
    damaged: BTreeSet<u32>,
}

impl Verdict {
    /// The verification of a feed, if there was one.
    pub(super) fn of(checks: &Checks, feed: &str) -> Option<Self> {
        match checks.lock().get(feed)? {
            Check::Done { writing, outcome: Ok(found), .. } => {
                let damaged = found.findings.iter().filter(|finding| finding.damage);
                let damaged = damaged.filter_map(|finding| {
                    let name = finding.path.file_name()?.to_str()?;
                    let number =
                        name.get(..8).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
                    u32::from_str_radix(number, 16).ok()
                });
                Some(Self { writing: *writing, damaged: damaged.collect() })
            }
            _ => None,
        }
    }

    /// "sound", "damaged" or "unchecked".
    pub(super) fn on(verdict: Option<&Self>, segment: u32) -> &'static str {
        match verdict {
            Some(verdict) if verdict.damaged.contains(&segment) => "damaged",
            Some(verdict) if segment < verdict.writing => "sound",
            _ => "unchecked",
        }
    }
}

/// The progress of a verification.
#[derive(Debug)]
pub(crate) enum Check {
    Running(Progress),
    Done {
        at: SystemTime,
        /// The segment that was being written when it began.
        writing: u32,
        outcome: Result<Verification, String>,
    },
}

pub(super) fn reading() -> Router<Arc<Core>> {
    Router::new().route("/feeds/{feed}/verify", get(shown))
}

pub(super) fn changing() -> Router<Arc<Core>> {
    Router::new().route("/feeds/{feed}/verify", post(begin))
}

fn json_of(check: Option<&Check>) -> Value {
    match check {
        None => json!({ "state": "never" }),
        Some(Check::Running(progress)) => json!({
            "state": "running",
            "bytes": progress.bytes,
            "total_bytes": progress.total_bytes,
            "segments": progress.segments,
            "total_segments": progress.total_segments,
        }),
        Some(Check::Done { at, outcome: Err(why), .. }) => {
            json!({ "state": "failed", "at": rfc3339((*at).into()), "error": why })
        }
        Some(Check::Done { at, outcome: Ok(found), .. }) => {
            let findings = found.findings.iter().take(MAX_FINDINGS);
            let findings: Vec<Value> = findings
                .map(|finding| json!({ "text": finding.to_string(), "damage": finding.damage }))
                .collect();
            json!({
                "state": "done",
                "at": rfc3339((*at).into()),
                "damaged": found.is_damaged(),
                "segments": found.segments,
                "bytes": found.bytes,
                "messages": found.records,
                "checked_messages": found.verified,
                "findings_left_out": found.findings.len() - findings.len(),
                "findings": findings,
            })
        }
    }
}

/// `GET /api/v1/feeds/{feed}/verify`
async fn shown(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    let feeds = core.feeds.look().await;
    match pick(&feeds, &name) {
        Ok(feed) => respond::json(StatusCode::OK, &json_of(core.checks.lock().get(&feed.name))),
        Err(response) => *response,
    }
}

/// `POST /api/v1/feeds/{feed}/verify`: starts a verification, unless one is running. One feed at a
/// time, on one core.
async fn begin(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response {
    let feeds = core.feeds.look().await;
    let view = match pick(&feeds, &name) {
        Ok(view) => view,
        Err(response) => return *response,
    };
    let Some(feed) = core.feeds.find(&view.name) else {
        return error(StatusCode::SERVICE_UNAVAILABLE, view.facts().err().unwrap_or_default());
    };
    let writing = view.facts().map_or(0, |facts| facts.status.meta.storage_log);
    let mut checks = core.checks.lock();
    let running = checks.iter().find(|(_, check)| matches!(check, Check::Running(_)));
    match running.map(|(name, _)| name) {
        Some(running) if *running == feed.name => {}
        Some(running) => {
            return error(StatusCode::CONFLICT, format!("{running} is being verified: try again later"));
        }
        None => {
            checks.insert(feed.name.clone(), Check::Running(Progress::default()));
            drop(checks);
            let (weak, of, name) = (Arc::downgrade(&core), Arc::clone(&feed), feed.name.clone());
            // It may take hours, so it must not occupy a thread that others wait for.
            let begun = std::thread::Builder::new().name("jlog-watch-verify".to_owned()).spawn(move || {
                let note = move |check: Check| match weak.upgrade() {
                    // The server has ended.
                    None => ControlFlow::Break(()),
                    Some(core) => {
                        core.checks.lock().insert(name.clone(), check);
                        ControlFlow::Continue(())
                    }
                };
                let outcome = verify(&of, note.clone());
                let _ = note(Check::Done { at: SystemTime::now(), writing, outcome });
            });
            checks = core.checks.lock();
            if let Err(e) = begun {
                let outcome = Err(format!("cannot start a thread: {e}"));
                checks.insert(feed.name.clone(), Check::Done { at: SystemTime::now(), writing, outcome });
            }
        }
    }
    respond::json(StatusCode::ACCEPTED, &json_of(checks.get(&feed.name)))
}

/// Verifies a feed. Errors and panics are returned as text.
fn verify(
    feed: &Feed,
    note: impl Fn(Check) -> ControlFlow<()> + Send + Sync + 'static,
) -> Result<Verification, String> {
    let options = VerifyOptions::default().on_progress(move |progress| note(Check::Running(progress)));
    let verified =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| feed.open()?.verify_with(&options)));
    verified.map_err(|_| "an internal error".to_owned())?.map_err(|e| e.to_string())
}
