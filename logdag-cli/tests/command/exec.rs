//! `logdag exec`: the command, its status and its signals.

use super::*;

#[test]
fn a_command_is_run_and_its_output_and_status_passed_on() {
    let setup = Setup::new(PLAIN);
    let script = "seq 1 20000; echo trouble >&2; printf 'no end'; exit 7";
    let output = setup.exec(&["--stdout", "out", "--stderr", "err"], script);
    assert_eq!(output.status.code(), Some(7), "{:?}", texts(&output));
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).chain(["no end\n".to_owned()]).collect();
    assert!(setup.read("out.log") == expected, "lines are not those that were written");
    assert_eq!(setup.read("err.log"), "trouble\n");
    assert_eq!(texts(&output), (String::new(), String::new()));
}

#[test]
fn what_is_on_no_stream_stays_as_it_is() {
    let setup = Setup::new(PLAIN);
    let output = setup.exec(&["--stdout", "out"], "echo a; echo b >&2");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(texts(&output), (String::new(), "b\n".to_owned()));
    assert_eq!(setup.read("out.log"), "a\n");
}

#[test]
fn a_command_that_a_signal_ends_gives_128_and_its_number() {
    let setup = Setup::new(PLAIN);
    assert_eq!(setup.exec(&["--stdout", "out"], "echo a; kill -KILL $$").status.code(), Some(128 + 9));
    assert_eq!(setup.read("out.log"), "a\n");
    let output = logdag(&["exec", &setup.config, "--", "/nowhere/command"]).output().unwrap();
    assert!(!output.status.success());
    assert!(texts(&output).1.contains("/nowhere/command"), "{:?}", texts(&output));
}

#[test]
fn signals_are_passed_on_to_the_command() {
    let setup = Setup::new(PLAIN);
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let child =
        logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]).spawn().unwrap();
    setup.wait_for("out.log", "ready\n");
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(3));
    assert_eq!(setup.read("out.log"), "ready\ntold\n");
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let setup = Setup::new(PLAIN);
    let script = format!(
        "trap '' HUP; exec {} exec {} --stdout out -- sh -c 'echo ready; sleep 0.3; echo survived'",
        env!("CARGO_BIN_EXE_logdag"),
        setup.config,
    );
    let child =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    setup.wait_for("out.log", "ready\n");
    signal(&child, Signal::SIGHUP);
    assert_eq!(ended(child).status.code(), Some(0));
    assert_eq!(setup.read("out.log"), "ready\nsurvived\n");
}

#[test]
fn one_signal_ends_exec_though_a_sink_does_not_go_on() {
    let setup = Setup::new(r#"<log name="out" type="stdout" drain_seconds="1"/>"#);
    let script = "seq 100000 & while :; do sleep 1; done";
    let path = setup.path("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nothing reads from it.
    let pipe = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut command = logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]);
    let mut child = command.stdout(pipe.try_clone().unwrap()).spawn().unwrap();
    let begun = Instant::now();
    while poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], 0u8).unwrap() == 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is never full");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("one signal does not end it");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A last line without a line end is whole if the command ended by itself.
#[test]
fn the_last_line_of_a_killed_command_is_logged_as_cut() {
    let logged = |script: &str, of: &str| {
        let setup = Setup::new(PLAIN);
        setup.exec(&[of, "out"], script);
        setup.read("out.log")
    };
    let killed = "balance is 12 [cut here: the command was killed by SIGKILL]\n";
    assert_eq!(logged("printf 'a\nbalance is 12'; kill -KILL $$", "--stdout"), format!("a\n{killed}"));
    assert_eq!(logged("printf 'balance is 12' >&2; kill -KILL $$", "--stderr"), killed);
    // Shells report like this that a command was killed.
    assert_eq!(
        logged("sh -c 'printf \"balance is 12\"; kill -TERM $$'; exit $?", "--stdout"),
        format!("balance is 12 [cut here: the command ended with status {}]\n", 128 + 15)
    );
    assert_eq!(logged("printf 'a\nb\n'; kill -KILL $$", "--stdout"), "a\nb\n");
    for status in [0, 1, 127] {
        let script = format!("printf 'a\nthe last one'; exit {status}");
        assert_eq!(logged(&script, "--stdout"), "a\nthe last one\n", "status {status}");
    }
    // The command closes its output long before it ends.
    assert_eq!(logged("printf 'the last one'; exec >&-; sleep 0.3; exit 0", "--stdout"), "the last one\n");
}

/// The rest of a line of a process that the command has left behind is not lost.
#[test]
fn a_line_of_which_a_part_has_come_when_exec_is_told_to_stop_is_logged_as_cut() {
    let setup = Setup::new(PLAIN);
    // What it leaves behind ends when its input does.
    let script = r"exec 3<&0; (printf '%s\nbalance is 12' $$; exec cat <&3 2>/dev/null) & exit 0";
    let mut command = logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    setup.wait_for("out.log", "\n");
    let pid = setup.read("out.log").trim().to_owned();
    let (command, begun) = (format!("/proc/{pid}"), Instant::now());
    while std::path::Path::new(&command).exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it has not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    drop(input);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(setup.read("out.log"), format!("{pid}\nbalance is 12 [cut here: logdag was told to stop]\n"));
}
