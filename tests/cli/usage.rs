//! Wrong command lines, help, completions and man pages.

use crate::support::{NONE, Place, bare, close, jlog, run, run_to};

const COMMANDS: [&str; 20] = [
    "create",
    "write",
    "subscribe",
    "unsubscribe",
    "read",
    "cat",
    "tail",
    "status",
    "check",
    "serve",
    "ship",
    "inspect",
    "verify",
    "repair",
    "clean",
    "alter",
    "meta",
    "demo",
    "completions",
    "man",
];

#[test]
fn wrong_command_lines_end_with_2_and_change_nothing() {
    let place = Place::with(&[], &["one"]);
    let before = place.snapshot();
    let feed = place.feed.to_str().unwrap();
    let long_name = "n".repeat(127);
    for arguments in [
        &[][..],
        &["nonsense"],
        &["read"],
        &["read", feed],
        &["read", feed, ""],
        &["read", feed, &long_name],
        &["read", feed, "s", "extra"],
        &["read", feed, "s", "-n"],
        &["read", feed, "s", "-n", "-1"],
        &["read", feed, "s", "-n", "many"],
        &["read", feed, "s", "-o", "xml"],
        &["read", feed, "s", "--since", "soon"],
        &["read", feed, "s", "--from", "10min"],
        &["read", feed, "--from", "somewhere"],
        &["cat", feed, "s"],
        &["tail", feed, "--last", "some"],
        &["read", feed, "s", "--until", "2026-13-01T00:00:00Z"],
        &["write", feed, "-0", "--whole"],
        &["write", feed, "--whole", "--length-prefixed"],
        &["write", feed, "--durability", "eternal"],
        &["subscribe", feed],
        &["subscribe", feed, "t", "--end", "--after", "0:1"],
        &["subscribe", feed, "t", "--after", "1"],
        &["subscribe", feed, "t", "--after", "0:000000001"],
        &["subscribe", feed, "t", "--copy", ""],
        &["create", feed, "--segment-size", "large"],
        &["create", feed, "--segment-size", "5GiB"],
        &["create", feed, "--mode", "999"],
        &["create", feed, "--compression", "zip"],
        &["inspect", feed, "xyz"],
        &["alter", feed, "--safety", "none"],
        &["status", feed, "-o", "yaml"],
        &["serve"],
        &["serve", feed, "--http", "somewhere"],
        &["completions", "csh"],
    ] {
        let done = run(jlog(arguments), "");
        assert_eq!((done.code, done.stdout.len()), (Some(2), 0), "{arguments:?}: {}", done.stderr);
        assert_ne!(done.stderr, "", "{arguments:?}");
    }
    let complaint = run(place.jlog("alter", NONE), "").failed(2);
    assert!(complaint.starts_with("nothing to change: give --segment-size"), "{complaint}");
    assert!(place.snapshot() == before);
}

#[test]
fn values_out_of_range_are_reported_with_the_range() {
    let place = Place::new(&[]);
    let other = Place::empty();
    for (arguments, says) in [
        (["--segment-size", "0"], "a segment size of 0 is out of range: 1 byte to 1 GiB"),
        (["--segment-size", "2GiB"], "a segment size of 2147483648 is out of range: 1 byte to 1 GiB"),
        (["--pre-commit", "9MiB"], "a pre-commit buffer of 9437184 is out of range: 0 bytes to 8 MiB"),
    ] {
        assert_eq!(run(other.jlog("create", arguments), "").failed(1), says);
        assert!(!other.feed.exists());
        let before = place.snapshot();
        assert_eq!(run(place.jlog("alter", arguments), "").failed(1), says);
        assert!(place.snapshot() == before);
    }
}

#[test]
fn what_is_no_feed_is_reported_by_every_command() {
    let place = Place::empty();
    let plain = place.path("plain");
    std::fs::create_dir(&plain).unwrap();
    let file = place.file("file", "text");
    for (path, why) in [
        (&place.feed, "the path does not exist"),
        (&plain, "the directory has no metastore"),
        (&file, "it is not a directory"),
    ] {
        for arguments in [
            &["write", "-q"][..],
            &["subscribe", "s"],
            &["unsubscribe", "s"],
            &["read", "s"],
            &["read", "s", "-f"],
            &["tail"],
            &["cat"],
            &["status"],
            &["inspect"],
            &["inspect", "00000000"],
            &["verify"],
            &["repair"],
            &["clean"],
            &["clean", "--roll"],
            &["alter", "--segment-size", "1MiB"],
            &["meta"],
        ] {
            let (command, rest) = arguments.split_first().unwrap();
            let mut command = jlog([command]);
            command.arg(path).args(rest);
            let complaint = run(command, "").failed(1);
            let what = format!("{} is not a jlog: ", path.display());
            assert!(complaint.starts_with(&what), "{arguments:?}: {complaint}");
            assert!(complaint.contains("create one with `jlog create`"), "{arguments:?}: {complaint}");
            // Repair also accepts a directory whose metastore is lost.
            if arguments[0] != "repair" || path != &plain {
                assert!(complaint.contains(why), "{arguments:?}: {complaint}");
            }
        }
        assert!(!place.feed.exists());
        assert_eq!(std::fs::read_dir(&plain).unwrap().count(), 0);
        assert_eq!(std::fs::read(&file).unwrap(), b"text");
    }
}

#[test]
fn a_complaint_is_one_line_whatever_the_path_is() {
    let place = Place::empty();
    for name in ["line\nbreak", "\x1b[31mred", "bell\x07"] {
        let path = place.path(name);
        let complaint = run(jlog(["status".as_ref(), path.as_os_str()]), "").failed(1);
        assert!(!complaint.chars().any(char::is_control), "{complaint:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let help = run(jlog(["--help"]), "").text();
    for command in COMMANDS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
        let own = run(jlog([command, "--help"]), "").text();
        assert!(own.contains(&format!("Usage: jlog {command}")), "{own}");
    }
    assert!(run(jlog(["--version"]), "").text().starts_with("jlog "));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(jlog(["completions", shell]), "").text();
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("length-prefixed"), "{shell}");
        // Installed shells check whether they can parse the completions.
        let place = Place::empty();
        let file = place.file("script", script);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|directory| directory.join(shell).is_file());
        if matches!(shell, "bash" | "fish" | "zsh") && there {
            let mut check = bare(shell);
            check.arg("-n").arg(file);
            run(check, "").ok();
        }
    }
}

#[test]
fn every_command_has_a_man_page() {
    let place = Place::empty();
    let directory = place.path("man");
    std::fs::create_dir(&directory).unwrap();
    run(jlog(["man".as_ref(), directory.as_os_str()]), "").ok();
    for command in COMMANDS {
        let page = std::fs::read_to_string(directory.join(format!("jlog-{command}.1"))).unwrap();
        assert!(page.contains(".TH jlog-"), "{command}: {page}");
        let (_, examples) = page.split_once(".SH EXAMPLES\n").unwrap();
        assert!(examples.contains(&format!("jlog {command}")), "{command}: {examples}");
    }
    // A viewer omits a line that begins like a request but is not one.
    let requests = [".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".nf", ".fi", ".br", ".ie", ".el"];
    for page in std::fs::read_dir(&directory).unwrap() {
        let path = page.unwrap().path();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let word = line.split(' ').next().unwrap_or_default();
            let is_text = !line.starts_with(['.', '\'']);
            assert!(is_text || requests.contains(&word), "{}: {line}", path.display());
        }
    }
    let main = std::fs::read_to_string(directory.join("jlog.1")).unwrap();
    assert!(main.contains("jlog\\-read(1)"), "{main}");
    let missing = place.path("missing");
    let complaint = run(jlog(["man".as_ref(), missing.as_os_str()]), "").failed(1);
    assert!(complaint.starts_with(&format!("cannot write man pages to {}: ", missing.display())));
}

#[test]
fn a_reader_of_our_output_that_went_away_is_no_error() {
    let place = Place::with(&[], &["one"]);
    let feed = place.feed.to_str().unwrap();
    for arguments in [
        &["status", feed][..],
        &["status", feed, "-o", "json"],
        &["inspect", feed],
        &["meta", feed],
        &["verify", feed],
        &["completions", "bash"],
        &["read", feed, "s"],
        &["subscribe", feed, "t"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        close(reader);
        let done = run_to(jlog(arguments), writer);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::with(&[], &["one"]);
    for arguments in [&["status"][..], &["meta"], &["read", "s"]] {
        let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
            eprintln!("skipped: no /dev/full");
            return;
        };
        let (command, rest) = arguments.split_first().unwrap();
        let done = run_to(place.jlog(command, rest), full);
        assert_eq!(done.code, Some(1));
        assert!(done.complaint().starts_with("cannot write to stdout: "), "{}", done.stderr);
    }
    assert_eq!(place.unread("s"), [b"one"]);
}
