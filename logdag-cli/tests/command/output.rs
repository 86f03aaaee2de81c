//! Where lines go, and options of the command line.

use super::*;

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = logdag(&["completions", shell]).output().unwrap();
        let (script, errors) = texts(&done);
        assert!(done.status.success(), "{shell}: {errors}");
        for command in ["check", "graph", "run", "exec", "decode", "ctl", "completions", "man", "strict"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        // Installed shells check the completions.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|directory| directory.join(shell).is_file());
        if matches!(shell, "bash" | "fish" | "zsh") && there {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("script");
            fs::write(&file, &script).unwrap();
            let check = Command::new(shell).arg("-n").arg(file).output().unwrap();
            assert!(check.status.success(), "{shell}: {}", texts(&check).1);
        }
    }
    let done = logdag(&["completions", "csh"]).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    assert!(texts(&done).1.contains("csh"));
}

#[test]
fn everything_comes_through_to_a_feed() {
    let setup = Setup::new(r#"<log name="feed" type="jlog" path="DIR/feed(reader)"/>"#);
    let mut child = setup.run(&["--in", "feed=stdin"]);
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = (0..20_000).map(|n| format!("message {n}")).collect();
    input.write_all(lines.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    let read: Vec<String> = read_feed(&setup.path("feed"));
    assert!(read == lines, "messages are not the lines that were given");
}

#[test]
fn times_are_those_of_the_place() {
    if !Path::new("/usr/share/zoneinfo/America/New_York").exists() {
        eprintln!("skipped: the system knows no time zones");
        return;
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = |zone: &str, second: u64| {
        let output = Command::new("date")
            .env("TZ", zone)
            .args(["-d", &format!("@{second}"), "+[%Y-%m-%d %H:%M:%S."])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        texts(&output).0.trim_end().to_owned()
    };
    let zones = ["America/New_York", "UTC"];
    assert_ne!(date(zones[0], now()), date(zones[1], now()));
    for zone in zones {
        let setup = Setup::new(r#"<log name="out" type="file" path="DIR/out.log" timestamps="on"/>"#);
        let begun = now();
        let output = logdag(&["exec", &setup.config, "--stdout", "out", "--", "echo", "hello"])
            .env("TZ", zone)
            .output()
            .unwrap();
        let ended = now();
        assert!(output.status.success(), "{output:?}");
        let line = setup.read("out.log");
        let (time, rest) = line.split_at("[YYYY-MM-DD HH:MM:SS.".len());
        let expected: Vec<String> = (begun..=ended).map(|second| date(zone, second)).collect();
        assert!(expected.iter().any(|expected| expected == time), "{zone}: {line:?} at {expected:?}");
        let micros = rest.strip_suffix("] hello\n").unwrap();
        assert!(micros.len() == 6 && micros.bytes().all(|digit| digit.is_ascii_digit()), "{line:?}");
    }
}

#[test]
fn streams_are_switched_on_and_off_by_options() {
    let setup = Setup::new(
        r#"<log name="on" type="file" path="DIR/on.log" disabled="true"/>
           <log name="off" type="file" path="DIR/off.log"/>
           <log name="in"><outlet name="on"/><outlet name="off"/><outlet name="debug"/></log>"#,
    );
    let script = "echo a line";
    setup.exec(&["--stdout", "in"], script);
    assert_eq!((&*setup.read("on.log"), &*setup.read("off.log")), ("", "a line\n"));
    let output = setup.exec(&["--stdout", "in", "-l", "on", "-L", "off", "-l", "debug"], script);
    assert_eq!((&*setup.read("on.log"), &*setup.read("off.log")), ("a line\n", "a line\n"));
    assert!(texts(&output).1.ends_with("] a line\n"), "debug leads to stderr: {:?}", texts(&output));
    let output = setup.exec(&["--stdout", "in", "-l", "no//name"], script);
    assert!(texts(&output).1.contains("\"no//name\""), "{:?}", texts(&output));
    let output = setup.exec(&["--stdout", "in/put", "-l", "in", "-L", "of", "-l", "in/put"], script);
    let warning =
        "logdag: warning: -L of: the configuration has no such stream (`logdag graph` lists those it has)\n";
    assert_eq!(texts(&output).1, warning);
}

#[test]
fn lines_go_to_any_file_descriptor_that_the_process_has() {
    let setup = Setup::new(
        r#"<log name="out" type="fd" path="3" timestamps="off"><outlet name="pipe"/></log><log name="pipe" type="fd" path="4"/>"#,
    );
    let script = format!(
        "(exec {} exec {} --stdout out -- seq 3 3>>{} 4>&1) | sed 's/^/piped /'",
        env!("CARGO_BIN_EXE_logdag"),
        setup.config,
        setup.path("three").display()
    );
    fs::write(setup.path("three"), "before\n").unwrap();
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(texts(&output), ("piped 1\npiped 2\npiped 3\n".to_owned(), String::new()));
    assert_eq!(setup.read("three"), "before\n1\n2\n3\n");
    let output = setup.exec(&["--stdout", "out"], "echo");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("file descriptor 3: the process was not started with it"),
        "{:?}",
        texts(&output)
    );
    // Lines there would come back as input.
    let input = Setup::new(r#"<log name="out" type="fd" path="0"/>"#);
    let mut child = input.run(&["--in", "out=stdin"]);
    let _ = child.stdin.take().unwrap().write_all(b"hello\n");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(1));
    let (_, err) = texts(&output);
    assert!(err.contains("file descriptor 0: it is open for reading only"), "{err}");
    let wrong = Setup::new(r#"<log name="out" type="fd" path="three"/>"#);
    let output = logdag(&["check", &wrong.config]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("\"three\": expected the number of a file descriptor"),
        "{:?}",
        texts(&output)
    );
}
