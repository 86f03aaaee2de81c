//! `jlog top` in a real terminal of 80 columns and 24 lines.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::programs::skip;

use crate::support::{Place, bare, jlog, run, until};

/// A terminal with a shell in it, until this is dropped.
struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// `None`, with a message, if there is no tmux and none is required.
    fn start(place: &Place, script: &str) -> Option<Self> {
        if bare("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            skip("TMUX", "tmux is missing (Debian's package tmux)");
            return None;
        }
        let tmux = Self { socket: place.path("tmux") };
        let mut command = tmux.command();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", script]);
        assert!(command.env("LC_ALL", "C.UTF-8").status().unwrap().success());
        Some(tmux)
    }

    fn command(&self) -> Command {
        let mut command = bare("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).env("LC_ALL", "C.UTF-8");
        command
    }

    fn screen(&self) -> String {
        run(
            {
                let mut c = self.command();
                c.args(["capture-pane", "-p"]);
                c
            },
            "",
        )
        .text()
    }

    fn keys(&self, keys: &[&str]) {
        assert!(self.command().arg("send-keys").args(keys).status().unwrap().success());
    }

    fn until(&self, text: &str) -> String {
        let mut screen = String::new();
        until(text, || {
            screen = self.screen();
            screen.contains(text)
        });
        screen
    }

    /// The process that the shell runs.
    fn child(&self) -> Pid {
        let mut command = self.command();
        command.args(["display-message", "-p", "#{pane_pid}"]);
        let shell = run(command, "").text();
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // tmux may have ended already.
        let _ = self.command().arg("kill-server").stderr(Stdio::null()).status();
    }
}

/// Runs `jlog top`, and prints the terminal's settings afterwards.
fn script(place: &Place) -> String {
    let jlog = env!("CARGO_BIN_EXE_jlog");
    format!(
        "echo before; '{jlog}' top '{}'; echo \"ended with $?\"; stty -a | grep -o ' icanon'; sleep 60",
        place.path("").display()
    )
}

#[test]
fn it_shows_feeds_and_leaves_the_terminal_as_it_was() {
    let place = Place::with(&[], &["one", "two \x1b]0;title\x07", "three"]);
    let Some(tmux) = Tmux::start(&place, &script(&place)) else { return };
    let screen = tmux.until("Furthest behind");
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("jlog top  1 feed, 1 subscriber"), "{screen}");
    assert!(lines[4].contains("/feed") && lines[4].contains(" 3 "), "{screen}");
    assert!(!screen.contains("before"), "{screen}");
    tmux.keys(&["Enter"]);
    let screen = tmux.until("done/s");
    assert!(screen.contains("3 messages in 1 segment"), "{screen}");
    tmux.keys(&["t"]);
    let screen = tmux.until("(following)");
    assert!(
        screen.contains("two \\u{1b}]0;title\\u{7}") || tmux.until("two").contains("\\u{1b}]0;title"),
        "{screen}"
    );
    place.append(&["four"]);
    tmux.until("four");
    tmux.keys(&["/"]);
    tmux.until("search for:");
    tmux.keys(&["THREE", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "three", "Enter"]);
    tmux.until("with \"three\": 1 of the newest 4 messages");
    tmux.keys(&["q"]);
    let screen = tmux.until(" icanon");
    assert!(screen.contains("before") && screen.contains("ended with 0"), "{screen}");
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::with(&[], &["one"]);
        let Some(tmux) = Tmux::start(&place, &script(&place)) else { return };
        tmux.until("Furthest behind");
        kill(tmux.child(), signal).unwrap();
        let screen = tmux.until(" icanon");
        assert!(screen.contains("before") && screen.contains("ended with 0"), "{screen}");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let place = Place::with(&[], &["one"]);
    let mut command = jlog(["top"]);
    command.arg(&place.feed);
    let complaint = run(command, "").failed(1);
    assert!(complaint.contains("stdout is not a terminal: use `jlog status --watch`"), "{complaint}");
}

#[test]
fn it_ends_with_its_terminal_though_a_hangup_is_ignored() {
    let place = Place::with(&[], &["one"]);
    let Some(tmux) = Tmux::start(&place, &format!("trap '' HUP; {}", script(&place))) else { return };
    tmux.until("Furthest behind");
    let top = tmux.child();
    drop(tmux);
    until("the end of jlog top", || kill(top, None).is_err());
}
