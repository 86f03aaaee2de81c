//! `jlog work`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use jlog_core::LogId;
use nix::sys::signal::Signal;

use crate::support::{Place, Running, jlog, run, until};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn behind(place: &Place) -> u64 {
    place.log().lag("s").unwrap().messages
}

#[test]
fn several_workers_do_each_message_once() {
    let all: Vec<String> = (0..60).map(|n| format!("message {n:02}")).collect();
    let place = Place::with(&["--segment-size", "512"], &all);
    let out = place.path("out");
    let command = format!("read -r m || :; echo \"$m\" >> {}", out.display());
    let mut workers: Vec<Running> = (0..3)
        .map(|_| Running::start(&mut place.jlog("work", ["s", "--exec", &command, "--jobs", "2"])))
        .collect();
    for worker in &mut workers {
        let done = worker.done();
        assert_eq!((done.code, &*done.stderr), (Some(0), ""));
    }
    let mut got: Vec<String> = text(&out).lines().map(str::to_owned).collect();
    got.sort();
    assert_eq!(got, all);
    assert_eq!(behind(&place), 0);
    place.append(&["later"]);
    assert_eq!(place.ok("read", &["s"]), "later\n", "it is a subscriber like others");
}

#[test]
fn a_message_comes_again_and_is_set_aside_when_it_fails_for_good() {
    let place = Place::with(&[], &["1", "fails", "refused", "4"]);
    let (out, aside) = (place.path("out"), place.path("aside"));
    let command = format!(
        "read -r m || :; echo $m >> {}; case $m in fails) exit 1;; refused) echo never >&2; exit 65;; esac",
        out.display()
    );
    let arguments = [
        "s",
        "--exec",
        &command,
        "--retry-delay",
        "0",
        "--max-deliveries",
        "3",
        "--on-reject",
        "set-aside",
        "--set-aside",
    ];
    let done = run(place.jlog("work", arguments.iter().map(AsRef::as_ref).chain([aside.as_os_str()])), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains(
            "the command failed for message 00000000:00000002: it ended with exit status: 1; it will be delivered again"
        ),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("message 00000000:00000003 was refused and set aside in"),
        "{}",
        done.stderr
    );
    let mut got: Vec<String> = text(&out).lines().map(str::to_owned).collect();
    got.sort();
    assert_eq!(got, ["1", "4", "fails", "fails", "fails", "refused"]);
    let kept = run(jlog([Path::new("cat"), &aside]), "").text();
    let reasons = ["it ended with exit status: 1", "never (exit status: 65)"];
    assert!(reasons.iter().all(|reason| kept.contains(&format!("\"reason\":\"{reason}\""))), "{kept}");
    assert!(kept.contains("\nfails\n") && kept.contains("\nrefused\n"), "{kept}");
    assert_eq!(behind(&place), 0);
    let skips = run(place.jlog("work", ["s", "--exec", "exit 65", "--on-reject", "skip"]), "");
    assert_eq!((skips.code, &*skips.stderr), (Some(0), ""));
}

#[test]
fn a_message_whose_worker_is_killed_comes_again() {
    let place = Place::with(&[], &["one"]);
    let at = place.path("at").display().to_string();
    let command = format!(
        "echo $$ >> {at}.begun; test $(wc -l < {at}.begun) = 1 || exit 0; until [ -e {at}.go ]; do sleep 0.01; done"
    );
    let mut killed =
        Running::spawn(place.jlog("work", ["s", "--exec", &command, "--lease", "1"]).stderr(Stdio::null()));
    until("the first run", || !text(format!("{at}.begun").as_ref()).is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let done = run(place.jlog("work", ["s", "--exec", &command, "--lease", "1"]), "");
    assert_eq!((done.code, behind(&place)), (Some(0), 0), "{}", done.stderr);
    assert_eq!(text(format!("{at}.begun").as_ref()).lines().count(), 2);
    // The first run does not know that its worker is gone.
    place.file("at.go", "");
    let process = text(format!("{at}.begun").as_ref()).lines().next().unwrap().to_owned();
    until("its end", || !lives(&process));
}

/// Whether a process exists and has not ended.
fn lives(process: &str) -> bool {
    let stat = text(format!("/proc/{process}/stat").as_ref());
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_worker_keeps_what_takes_longer_than_a_lease() {
    let place = Place::with(&[], &["one"]);
    let at = place.path("at").display().to_string();
    let command = format!("echo x >> {at}.begun; sleep 3");
    let arguments = ["s", "--exec", &command, "--lease", "1"];
    let mut first = Running::start(&mut place.jlog("work", arguments));
    until("the first run", || !text(format!("{at}.begun").as_ref()).is_empty());
    let other = run(place.jlog("work", arguments), "");
    let first = first.done();
    assert_eq!([(first.code, &*first.stderr), (other.code, &*other.stderr)], [(Some(0), ""); 2]);
    assert_eq!((text(format!("{at}.begun").as_ref()).as_str(), behind(&place)), ("x\n", 0));
}

#[test]
fn a_signal_ends_workers_and_what_is_not_done_comes_again_at_once() {
    let place = Place::with(&[], &["one", "two"]);
    let at = place.path("at").display().to_string();
    let command = format!("echo $$ >> {at}.pids; until [ -e {at}.go ]; do sleep 0.01; done; exit 0");
    let mut working = Running::start(
        &mut place.jlog("work", ["s", "-f", "--exec", &command, "--jobs", "2", "--drain", "0"]),
    );
    until("two runs", || text(format!("{at}.pids").as_ref()).lines().count() == 2);
    working.signal(Signal::SIGTERM);
    let done = working.done();
    assert_eq!((done.code, &*done.stderr, behind(&place)), (Some(0), "", 2));
    for process in text(format!("{at}.pids").as_ref()).lines() {
        until("its end", || !lives(process));
    }
    assert_eq!(place.ok("work", &["s", "--exec", "cat; echo", "--lease", "600"]), "one\ntwo\n");
}

#[test]
fn what_is_wrong_is_reported() {
    let place = Place::with(&[], &["one"]);
    let itself = place.feed.to_str().unwrap();
    for (arguments, code, says) in [
        (vec!["s", "--exec", "/not/there"], 1, "the command \"/not/there\" cannot do its work: "),
        (vec!["s", "--exec", ""], 1, "--exec needs a command"),
        (vec!["s"], 2, "--exec <COMMAND>"),
        (vec!["s", "--exec", "cat", "--key", "$.a[0]"], 2, "is not the path of a key"),
        (vec!["s", "--exec", "cat", "--on-reject", "set-aside"], 2, "--set-aside <DIRECTORY>"),
        (
            vec!["s", "--exec", "cat", "--on-reject", "set-aside", "--set-aside", itself],
            1,
            "is the feed itself",
        ),
        (vec!["nobody", "--exec", "cat"], 1, "has no subscriber \"nobody\""),
    ] {
        run(place.jlog("work", &arguments), "").refused(code, says);
    }
    assert_eq!((behind(&place), place.checkpoint("s")), (1, LogId::default()));
    let begun = place.path("begun");
    let command = format!("touch {}; sleep 1000; exit 0", begun.display());
    let mut working =
        Running::spawn(&mut place.jlog("work", ["s", "-f", "--exec", &command, "--drain", "0"]));
    until("it works", || begun.exists());
    let refused = run(place.jlog("read", ["s"]), "").failed(1);
    assert!(refused.contains("another reader"), "{refused}");
    working.signal(Signal::SIGTERM);
    assert_eq!(working.end(), Some(0));
}

/// Whichever workers are killed at whatever moment, each message is processed, and the messages of
/// one key are processed in order.
#[test]
fn nothing_is_lost_when_workers_are_killed() {
    const MESSAGES: usize = 300;
    const KEYS: usize = 7;
    let all: Vec<String> =
        (0..MESSAGES).map(|n| format!("{{\"n\":{n},\"k\":\"key {}\"}}", n % KEYS)).collect();
    let place = Place::with(&["--segment-size", "2KiB"], &all);
    let out = place.path("out");
    // One write per run, so that lines of concurrent runs stay whole.
    let command = format!("read -r m || :; echo \"$m\" >> {}", out.display());
    let arguments =
        ["s", "-f", "--exec", &command, "--jobs", "2", "--key", "$.k", "--lease", "1", "--window", "40"];
    let kills: usize = std::env::var("JLOG_KILL_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let start = || Running::spawn(place.jlog("work", arguments).stderr(Stdio::null()));
    let mut workers: Vec<Running> = (0..3).map(|_| start()).collect();
    let lines = || text(&out).lines().count();
    for kill in 0..kills {
        // Kill at different moments: when a certain number of further messages is done.
        let until_then = (lines() + 1 + kill % 5 * 3).min(MESSAGES);
        until("some more messages", || lines() >= until_then);
        let worker = &mut workers[kill % 3];
        worker.kill().unwrap();
        worker.wait().unwrap();
        *worker = start();
    }
    until("the end", || behind(&place) == 0);
    for worker in &mut workers {
        worker.signal(Signal::SIGTERM);
        assert_eq!(worker.end(), Some(0));
    }
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    let mut runs = 0;
    for line in text(&out).lines() {
        let n = all.iter().position(|message| message == line).unwrap();
        let before = last.insert(n % KEYS, n);
        // Each message is the next one of its key, or a repeated earlier one: none is left out.
        assert!(n < KEYS || before.is_some_and(|before| n <= before + KEYS), "{n} after {before:?}");
        runs += 1;
    }
    let output = text(&out);
    let mut done: Vec<&str> = output.lines().collect();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), MESSAGES);
    // Only the messages of the two jobs of a killed process are processed twice.
    assert!(runs <= MESSAGES + 2 * kills, "{runs} runs for {MESSAGES} messages and {kills} kills");
}
