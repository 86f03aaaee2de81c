//! `jlog serve`: feeds over HTTP, until a signal ends it.

use std::process::ExitCode;
use std::time::Duration;

use jlog_watch::{ServeError, Tls, Token, Watch};
use sd_notify::NotifyState;

use crate::args::ServeArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::stop::Stop;

/// Notifies systemd, if it has started us and asked for it.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        output::complain(&format!("cannot notify systemd: {e}"));
    }
}

/// `jlog serve`
pub fn serve(args: &ServeArgs) -> Outcome {
    let stop = Stop::on_signals()?;
    let mut watch = args.places.iter().fold(Watch::new(), |watch, place| watch.feeds(place));
    for host in &args.allow_hosts {
        watch = watch.allow_host(host);
    }
    if let Some(file) = &args.token_file {
        watch = watch.token(Token::from_file(file).map_err(|e| Failure::new(e.to_string()))?);
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let tls = Tls::from_files(certificate, key, args.tls_client_ca.as_deref());
        watch = watch.tls(tls.map_err(|e| Failure::new(e.to_string()))?);
    }
    if args.control {
        watch = watch.control();
    }
    let failed = |e: ServeError| {
        let hint = matches!(e, ServeError::NoToken { .. } | ServeError::ControlNeedsToken { .. })
            .then_some("; see --token-file and --tls-client-ca");
        Failure::new(e.to_string()).or(hint.unwrap_or_default())
    };
    let server = watch.thresholds(args.thresholds.all()).serve(&args.http).map_err(failed)?;
    match output::line(&format!("listening on {}", output::plain(server.url()))) {
        // The reader has closed the pipe, which is not an error.
        Err(failure) if failure.is_broken_pipe() => {}
        other => other?,
    }
    let status = format!("Listening on {}", output::plain(server.url()));
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    while !stop.is_set() {
        stop.sleep(watchdog.unwrap_or(Duration::from_secs(60)));
        if let Some(patience) = watchdog
            && server.answers(patience)
        {
            notify(&[NotifyState::Watchdog]);
        }
    }
    notify(&[NotifyState::Stopping]);
    server.stop();
    Ok(ExitCode::SUCCESS)
}
