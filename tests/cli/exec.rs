//! `jlog read --exec`.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Place, Running, jlog, run, until};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_command_runs_for_each_message_and_the_checkpoint_follows() {
    let place = Place::with(&[], &["one\ntwo", "", "three"]);
    let out = place.path("out");
    let command = format!("cat >> {0}; echo \"|$JLOG_MESSAGES\" >> {0}; echo printed", out.display());
    assert_eq!(place.ok("read", &["s", "--exec", &command]), "printed\nprinted\nprinted\n");
    assert_eq!(text(&out), "one\ntwo|1\n|1\nthree|1\n");
    assert!(place.unread("s").is_empty());
    assert_eq!(place.ok("read", &["s", "--exec", "exit 1"]), "", "there is nothing to do");
}

#[test]
fn a_run_gets_a_batch_in_the_chosen_form() {
    let place = Place::with(&[], &["1", "2", "3"]);
    let out = place.path("out");
    let command = format!("cat >> {0}; echo \"|$JLOG_MESSAGES\" >> {0}", out.display());
    place.ok("read", &["s", "-n", "2", "--exec", &command]);
    assert_eq!(text(&out), "1\n2\n|2\n3\n|1\n");
    for (form, expected) in [
        ("null", &b"1\x002\x003\x00|3\n"[..]),
        ("length-prefixed", b"\x01\0\0\x001\x01\0\0\x002\x01\0\0\x003|3\n"),
    ] {
        std::fs::remove_file(&out).unwrap();
        place.ok("seek", &["s", "--to", "end"]);
        place.append(&["1", "2", "3"]);
        place.ok("read", &["s", "-n", "9", "-o", form, "--exec", &command]);
        assert_eq!(std::fs::read(&out).unwrap(), expected);
    }
}

#[test]
fn a_command_that_fails_runs_again_until_it_succeeds() {
    let place = Place::with(&[], &["one", "two"]);
    let (out, tried) = (place.path("out"), place.path("tried"));
    let command = format!(
        "echo x >> {1}; test $(wc -l < {1}) -gt 3 || {{ echo not yet >&2; exit 9; }}; cat >> {0}",
        out.display(),
        tried.display()
    );
    let done = run(place.jlog("read", ["s", "--exec", &command]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let said = "jlog: the command failed for message 00000000:00000001: not yet (exit status: 9); running it again\n";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(
        done.stderr.contains("failed 2 times for message") && !done.stderr.contains("3 times"),
        "{}",
        done.stderr
    );
    assert_eq!((text(&out).as_str(), text(&tried).lines().count()), ("onetwo", 5));
    assert!(place.unread("s").is_empty());
}

#[test]
fn a_poison_message_is_found_in_its_batch_and_set_aside() {
    let place = Place::with(&[], &["1", "2", "bad", "4", "5"]);
    let (out, aside) = (place.path("out"), place.path("aside"));
    // The command fails without blaming the message.
    let command = format!("cat > {0}.now; grep -q bad {0}.now && exit 1; cat {0}.now >> {0}", out.display());
    let arguments =
        ["s", "-n", "5", "--exec", &command, "--tries", "2", "--on-reject", "set-aside", "--set-aside"];
    let done = run(place.jlog("read", arguments.iter().map(AsRef::as_ref).chain([aside.as_os_str()])), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("message 00000000:00000003 was refused and set aside in"),
        "{}",
        done.stderr
    );
    assert_eq!(text(&out), "1\n2\n4\n5\n");
    let kept = run(jlog([Path::new("cat"), &aside]), "").text();
    assert!(
        kept.ends_with("\nbad\n") && kept.contains("\"reason\":\"it ended with exit status: 1\""),
        "{kept}"
    );
    assert!(place.unread("s").is_empty());
}

#[test]
fn a_message_that_is_refused_at_once_is_skipped_or_holds_up_those_behind_it() {
    let place = Place::with(&[], &["1", "bad", "3"]);
    let out = place.path("out");
    let command = format!("read -r m; test \"$m\" != bad || exit 65; echo $m >> {}", out.display());
    let mut blocked = place.jlog("read", ["s", "--exec", &command]);
    let mut blocked = Running::spawn(blocked.stderr(Stdio::null()));
    until("the first one", || behind(&place) == 2);
    blocked.signal(Signal::SIGTERM);
    assert_eq!((blocked.end(), text(&out).as_str()), (Some(0), "1\n"));
    let done = run(place.jlog("read", ["s", "--exec", &command, "--on-reject", "skip"]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("message 00000000:00000002 was refused and skipped"), "{}", done.stderr);
    assert_eq!((text(&out).as_str(), place.unread("s").len()), ("1\n3\n", 0));
}

/// Whether a process has ended, even if nobody has waited for it.
fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[test]
fn commands_end_with_the_process_that_runs_them_even_if_it_is_killed() {
    let place = Place::with(&[], &["1"]);
    for (command, arguments) in [("read", &["s", "--exec"][..]), ("work", &["s", "--exec"]), ("ship", &["s"])]
    {
        let pids = place.path("pids");
        let _ = std::fs::remove_file(&pids);
        let script = format!(
            "sleep 1000 & a=$!; (sleep 1000) & echo $$ $a $! > {0}.new; mv {0}.new {0}; wait",
            pids.display()
        );
        let script = if command == "ship" { format!("exec:{script}") } else { script };
        let arguments = arguments.iter().copied().chain([&*script]);
        let mut running = Running::spawn(place.jlog(command, arguments).stderr(Stdio::null()));
        until("the command", || pids.exists());
        let started = text(&pids);
        let started: Vec<&str> = started.split_whitespace().collect();
        assert_eq!(started.len(), 3, "{command}: {started:?}");
        assert!(started.iter().all(|pid| !has_ended(pid)), "{command}");
        running.signal(Signal::SIGKILL);
        running.end();
        until("the end of all processes", || started.iter().all(|pid| has_ended(pid)));
    }
}

#[test]
fn a_command_that_is_not_there_is_named_and_nothing_is_done() {
    let place = Place::with(&[], &["1", "2"]);
    for (command, status) in [("/not/there --at all", 127), ("/etc/passwd", 126)] {
        let done = run(place.jlog("read", ["s", "--exec", command]), "");
        assert_eq!(done.code, Some(1));
        let expected = format!("jlog: the command \"{command}\" cannot do its work: ");
        let line = done.stderr.lines().find(|line| line.starts_with(&expected));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("(exit status: {status})"))),
            "{}",
            done.stderr
        );
    }
    assert_eq!(place.unread("s").len(), 2);
}

#[test]
fn jobs_end_in_any_order_and_the_checkpoint_is_in_order() {
    let place = Place::with(&[], &["1", "2", "3", "4"]);
    let at = place.path("at").display().to_string();
    // The first run waits for all others, which end long before it.
    let command = format!(
        "read -r n || :; if [ $n = 1 ]; then until [ -e {at}.go ]; do sleep 0.01; done; fi; echo $n >> {at}.out"
    );
    let mut jobs = Running::spawn(&mut place.jlog("read", ["s", "-f", "--exec", &command, "--jobs", "2"]));
    until("the others", || text(format!("{at}.out").as_ref()).lines().count() == 3);
    assert_eq!(behind(&place), 4, "the oldest one is not done");
    place.file("at.go", "");
    until("the checkpoint", || behind(&place) == 0);
    assert!(text(format!("{at}.out").as_ref()).ends_with("1\n"));
    jobs.signal(Signal::SIGINT);
    assert_eq!(jobs.end(), Some(0));
}

#[test]
fn a_command_need_not_read_its_input() {
    let large = vec![b'x'; 3 << 20];
    let place = Place::with(&[], &[&large[..], b"two"]);
    assert_eq!(place.ok("read", &["s", "--exec", "exec echo done"]), "done\ndone\n");
    assert!(place.unread("s").is_empty());
}

#[test]
fn a_run_that_hangs_is_killed_when_its_time_is_over_and_comes_again() {
    let place = Place::with(&[], &["one"]);
    let first = place.path("first");
    let command = format!("test -e {0} && exit 0; touch {0}; sleep 1000; exit 0", first.display());
    let done = run(place.jlog("read", ["s", "--exec", &command, "--timeout", "1"]), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("it did not end within 1 s; running it again"), "{}", done.stderr);
    assert!(place.unread("s").is_empty());
}

/// How many messages the checkpoint covers, as seen from outside the reader.
fn behind(place: &Place) -> u64 {
    place.log().lag("s").unwrap().messages
}

/// Whether a process exists and has not ended.
fn lives(process: &str) -> bool {
    let stat = text(format!("/proc/{process}/stat").as_ref());
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_signal_lets_runs_end_and_kills_those_that_do_not() {
    for (signal, drain, left) in [(Signal::SIGTERM, "600", 0), (Signal::SIGINT, "0", 1)] {
        let place = Place::with(&[], &["one"]);
        let at = place.path("at").display().to_string();
        let command = format!(
            "echo $$ > {at}.new; mv {at}.new {at}.pid; until [ -e {at}.go ]; do sleep 0.01; done; exit 0"
        );
        let mut working = place.jlog("read", ["s", "-f", "--exec", &command, "--drain", drain]);
        let mut working = Running::start(&mut working);
        until("the run", || !text(format!("{at}.pid").as_ref()).is_empty());
        working.signal(signal);
        if left == 0 {
            place.file("at.go", "");
        }
        let done = working.done();
        assert_eq!((done.code, place.unread("s").len()), (Some(0), left), "{}", done.stderr);
        let said = if left == 0 {
            ""
        } else {
            "jlog: 1 message not done: next time, the command will run for it again\n"
        };
        assert_eq!(done.stderr, said);
        let process = text(format!("{at}.pid").as_ref());
        until("its end", || !lives(process.trim()));
    }
}

/// Whichever process is killed at whatever moment, the command has succeeded for every message.
#[test]
fn nothing_is_lost_when_it_is_killed() {
    const MESSAGES: usize = 400;
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("message {n:03}")).collect();
    let place = Place::with(&["--segment-size", "4KiB"], &all);
    let out = place.path("out");
    // One write per run, so that lines of concurrent runs stay whole.
    let command = format!("cat >> {}", out.display());
    let arguments = ["s", "-n", "5", "--jobs", "3", "--exec", &command];
    let rounds: usize = std::env::var("JLOG_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let before = text(&out).lines().count();
        let mut working = Running::spawn(place.jlog("read", arguments).stderr(Stdio::null()));
        // Kill at different moments: when a certain number of further messages is done.
        until("some messages, or the end", || {
            text(&out).lines().count() > before + round % 7 * 5 || working.try_wait().unwrap().is_some()
        });
        working.kill().unwrap();
        working.wait().unwrap();
        let done = MESSAGES - usize::try_from(behind(&place)).unwrap();
        // A run that was in progress may still write.
        until("what is behind the checkpoint", || {
            let out = text(&out);
            all[..done].iter().all(|message| out.contains(&format!("{message}\n")))
        });
    }
    let done = run(place.jlog("read", arguments), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut got: Vec<String> = text(&out).lines().map(str::to_owned).collect();
    let runs = got.len();
    got.sort();
    got.dedup();
    assert_eq!(got, all);
    // Three concurrent runs of five messages, and ten times as many that were done after an older
    // message that was not.
    assert!(runs <= MESSAGES + rounds * 3 * 5 * 10, "{runs} messages in {rounds} rounds");
    assert!(place.unread("s").is_empty());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let place = Place::with(&[], &["one"]);
    let itself = place.feed.to_str().unwrap();
    for (arguments, code, says) in [
        (vec!["s", "--jobs", "2"], 2, "--exec <COMMAND>"),
        (vec!["s", "--exec", "cat", "--peek"], 2, "cannot be used with"),
        (vec!["--from", "0:1", "--exec", "cat"], 2, "cannot be used with"),
        (vec!["s", "--exec", "cat", "--on-reject", "set-aside"], 2, "--set-aside <DIRECTORY>"),
        (vec!["s", "--exec", "cat", "--jobs", "0"], 2, "0 is not in 1..=1000"),
        (vec!["s", "--exec", " "], 1, "--exec needs a command"),
        (vec!["s", "--exec", "cat", "-o", "json"], 1, "-o is cat, null or length-prefixed"),
        (
            vec!["s", "--exec", "cat", "--on-reject", "set-aside", "--set-aside", itself],
            1,
            "is the feed itself",
        ),
        (vec!["nobody", "--exec", "cat"], 1, "has no subscriber \"nobody\""),
    ] {
        run(place.jlog("read", &arguments), "").refused(code, says);
    }
    assert_eq!(place.unread("s"), [b"one"]);
}

#[test]
fn a_feed_that_comes_later_is_waited_for() {
    let place = Place::empty();
    let out = place.path("out");
    let command = format!("cat >> {}", out.display());
    let mut waiting = Running::start(&mut place.jlog("read", ["s", "-f", "--wait", "--exec", &command]));
    place.ok("create", &[]);
    place.ok("subscribe", &["s"]);
    place.append(&["one"]);
    until("the message", || text(&out) == "one");
    waiting.signal(Signal::SIGTERM);
    let done = waiting.done();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}
