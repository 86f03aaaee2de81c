//! `jlog top`: feeds in a terminal, as they change.

mod app;
mod draw;
mod messages;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use jlog_watch::{Look, Watch};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::args::TopArgs;
use crate::error::{Failure, Outcome};
use crate::output;
use crate::stop::Stop;
use app::App;
use draw::Appearance;

/// How often keys, signals and new data are checked.
const POLL: Duration = Duration::from_millis(100);

/// `jlog top`
pub fn top(args: &TopArgs) -> Outcome {
    if !output::stdout_is_terminal() {
        return Err(Failure::new(
            "stdout is not a terminal: use `jlog status --watch` to follow feeds in a script",
        ));
    }
    let stop = Stop::on_signals()?;
    let here = [".".into()];
    let places = if args.places.is_empty() { &here[..] } else { &args.places };
    let watch = places.iter().fold(Watch::new(), |watch, place| watch.feeds(place));
    let looks = looks(watch.thresholds(args.thresholds.all()), Duration::from_secs(args.interval.into()))?;
    let mut app = App::new(Appearance::of_environment());
    let fail = |e: std::io::Error| Failure::new(format!("the terminal: {e}"));
    end_with_terminal().map_err(fail)?;
    // From here on, a panic restores the terminal, too.
    let mut terminal = ratatui::try_init().map_err(fail)?;
    let outcome = (|| {
        let mut changed = true;
        while !stop.is_set() {
            if let Some(look) = looks.try_iter().last() {
                app.take(look);
                changed = true;
            }
            if app.has_news() || changed {
                terminal.draw(|frame| app.draw(frame))?;
                changed = false;
            }
            if event::poll(POLL)? {
                changed = true;
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press && app.key(key).is_break() => break,
                    _ => {}
                }
            }
        }
        Ok(())
    })();
    let restored = ratatui::try_restore();
    outcome.and(restored).map_err(fail)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when the terminal is gone. If SIGHUP is ignored, nothing else ends it, and the
/// library that reads keys would read the end of the input again and again.
fn end_with_terminal() -> std::io::Result<()> {
    let end = || {
        let stdout = std::io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
        // Nothing can be restored, and nothing was changed.
        std::process::exit(1);
    };
    std::thread::Builder::new().name("terminal".to_owned()).spawn(end).map(drop)
}

/// Reads feeds on a separate thread, since a file system may be slow, until the receiver is
/// dropped.
fn looks(watch: Watch, every: Duration) -> Result<Receiver<Look>, Failure> {
    let observer = watch.observer().map_err(Failure::no_thread)?;
    // Looks that nobody takes do not pile up.
    let (sender, looks) = sync_channel(1);
    std::thread::Builder::new()
        .name("looks".to_owned())
        .spawn(move || {
            while sender.send(observer.look()).is_ok() {
                std::thread::sleep(every);
            }
        })
        .map_err(Failure::no_thread)?;
    Ok(looks)
}

#[cfg(test)]
mod tests;
