//! The calls that change, describe and end a graph.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logdag::{
    Format, Graph, GraphError, Level, Location, Rotation, SinkSpec, StreamConfig, StreamOptions, Value,
    WhenFull, config::Config, fatal, log, terminate,
};

use super::{ring, typed};

#[test]
fn a_stream_takes_another_name_with_everything_that_leads_to_it() {
    let graph = Graph::new();
    let old = graph.add_memory("old", 10, 1000).unwrap();
    let source = graph.stream("source").unwrap();
    graph.add_outlet("source", "old", None).unwrap();
    graph.set_flags("old", logdag::Flags::new().facility(true)).unwrap();
    graph.rename_stream("old", "new").unwrap();
    log!(old, "by its handle");
    log!(source, "by its outlet");
    assert_eq!(ring(&graph, "new"), ["[new] by its handle", "[source] by its outlet"]);
    assert!(graph.find("old").is_none());
    assert_eq!(&*old.name(), "new");
    assert!(matches!(graph.rename_stream("old", "x"), Err(GraphError::UnknownStream(name)) if name == "old"));
    assert!(
        matches!(graph.rename_stream("new", "source"), Err(GraphError::StreamExists(name)) if name == "source")
    );
    assert!(matches!(graph.rename_stream("new", "a//b"), Err(GraphError::Name(_))));
    assert_eq!(&*graph.find("new").unwrap().name(), "new");
}

#[test]
fn options_and_properties_are_reported_as_they_were_set() {
    let graph = Graph::new();
    let mut sink = SinkSpec::new("memory", "5,500");
    sink.config.insert("colour".to_owned(), "red".to_owned());
    let options = StreamOptions::new()
        .sink(sink)
        .format(Format::Json)
        .dedup(Duration::from_secs(3))
        .when_full(WhenFull::Drop);
    graph.configure("m", options).unwrap();
    let reported = graph.options("m").unwrap();
    assert_eq!(
        (reported.format, reported.dedup, reported.when_full),
        (Format::Json, Some(Duration::from_secs(3)), Some(WhenFull::Drop))
    );
    assert_eq!(graph.property("m", "colour").as_deref(), Some("red"));
    graph.set_property("m", "colour", "blue").unwrap();
    graph.set_property("m", "owner", "me").unwrap();
    assert_eq!(graph.property("m", "colour").as_deref(), Some("blue"));
    assert_eq!(graph.property("m", "nothing"), None);
    assert!(graph.set_property("none", "a", "b").is_err());
    assert_eq!(graph.names_of_type("memory"), ["m"]);

    graph.add_outlet("m", "stderr", Some("status >= 500")).unwrap();
    graph.set_enabled("stderr", false).unwrap();
    log!(graph.find("m").unwrap(), "12345");
    let reported: serde_json::Value = serde_json::from_str(&graph.describe("m").unwrap().to_json()).unwrap();
    let size = graph.memory_last("m", 1).unwrap()[0].bytes.len();
    let expected = serde_json::json!({
        "name": "m", "type": "memory", "path": "5,500", "format": "json", "enabled": true, "enabled_below": true,
        "debugging": false, "timestamps": false, "facility": false, "level": false, "keys": false, "target": false,
        "source": false, "spans": true, "escape": true, "redact": "", "redact_pattern": "",
        "stats": { "lines": 1, "bytes": size, "dropped": 0, "failed": 0, "repeated": 0, "size": size },
        "config": { "colour": "blue", "owner": "me" },
        "outlets": [{ "name": "stderr", "filter": "status >= 500" }],
    });
    assert_eq!(reported, expected);
}

#[test]
fn type_and_path_can_be_changed_while_lines_flow() {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    let stream = graph.configure("s", typed("file", &dir.path().join("one"), Rotation::default())).unwrap();
    log!(stream, "1");
    let two = dir.path().join("two");
    graph.set_type_and_path("s", "file_synch", two.to_str().unwrap()).unwrap();
    log!(stream, "2");
    let error = graph.set_type_and_path("s", "file", "/no/such/directory/log").unwrap_err();
    assert!(error.to_string().contains("/no/such/directory/log"), "{error}");
    log!(stream, "3");
    assert_eq!(std::fs::read_to_string(dir.path().join("one")).unwrap(), "1\n");
    assert_eq!(std::fs::read_to_string(&two).unwrap(), "2\n3\n");
    assert_eq!(graph.describe("s").unwrap().kind, "file_synch");
}

#[test]
fn sinks_are_reopened_one_by_one_and_by_type() {
    let dir = tempfile::tempdir().unwrap();
    let graph = Graph::new();
    let path = |name: &str| dir.path().join(name);
    for (name, kind) in [("a", "file"), ("b", "file_synch"), ("c", "file_synch")] {
        graph.configure(name, typed(kind, &path(name), Rotation::default())).unwrap();
    }
    let moved = || {
        for name in ["a", "b", "c"] {
            let _ = std::fs::rename(path(name), path(&format!("{name}.moved")));
        }
    };
    moved();
    graph.reopen_stream("a").unwrap();
    assert_eq!(["a", "b", "c"].map(|name| path(name).exists()), [true, false, false]);
    moved();
    graph.reopen_type("file_synch").unwrap();
    assert_eq!(["a", "b", "c"].map(|name| path(name).exists()), [false, true, true]);
    assert!(matches!(graph.reopen_stream("none"), Err(GraphError::UnknownStream(_))));
    assert!(graph.reopen_stream("error").unwrap_err().to_string().contains("it has no sink"));
}

#[test]
fn what_was_written_is_rotated_to_a_name_and_expires() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let rotation = Rotation::new().retain_count(1);
    let stream = graph.configure("s", typed("file", &path, rotation)).unwrap();
    graph.go_async();
    log!(stream, "one");
    graph.rotate_to("s", &dir.path().join("mine")).unwrap();
    log!(stream, "two");
    let error = graph.rotate_to("s", &dir.path().join("mine")).unwrap_err().to_string();
    assert!(error.contains("mine exists already"), "{error}");
    graph.flush().unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("mine")).unwrap(), "one\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    for (suffix, text) in [("1700000007", "a"), ("1700000008", "b")] {
        std::fs::write(dir.path().join(format!("log.{suffix}")), text).unwrap();
    }
    assert_eq!(graph.remove_expired("s").unwrap(), 1);
    assert!(!dir.path().join("log.1700000007").exists() && dir.path().join("log.1700000008").exists());
    assert!(graph.rotate_to("stderr", &path).is_err());
}

#[test]
fn a_link_leads_to_the_file_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("log"), dir.path().join("latest"));
    let graph = Graph::new();
    let with_link = |link: &std::path::Path| {
        let mut options = typed("file", &path, Rotation::default());
        options.sink.as_mut().unwrap().latest = Some(link.to_owned());
        options
    };
    let stream = graph.configure("s", with_link(&link)).unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), std::path::Path::new("log"));
    log!(stream, "one");
    std::fs::remove_file(&link).unwrap();
    graph.rotate("s").unwrap();
    log!(stream, "two");
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "two\n");
    // The contents of the existing file stay.
    let other = dir.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    let error = graph.configure("t", with_link(&other)).unwrap_err().to_string();
    assert!(error.contains("other") && error.contains("other than a symbolic link"), "{error}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    let elsewhere = tempfile::tempdir().unwrap();
    graph.configure("t", with_link(&elsewhere.path().join("latest"))).unwrap();
    assert_eq!(std::fs::read_to_string(elsewhere.path().join("latest")).unwrap(), "two\n");
}

#[test]
fn speculation_is_committed_with_times_and_keys_or_forgotten() {
    let graph = Graph::new();
    let target = graph.add_memory("target", 10, 10_000).unwrap();
    graph.add_memory("broken", 10, 10_000).unwrap();
    graph.add_outlet("target", "broken", Some("status >= 500")).unwrap();
    let forgotten = graph.speculate(10, 1000);
    log!(forgotten.stream(), "nobody wants it");
    assert_eq!(forgotten.roll_back(), 1);
    drop(graph.speculate(10, 1000));
    let speculation = graph.speculate(10, 1000);
    let on_its_own = speculation.stream().clone();
    on_its_own.log_at(
        5,
        Level::Info,
        &Location { file: "a.rs", line: 1 },
        &[("status", Value::I64(200))],
        &format_args!("fine {}", 1),
    );
    on_its_own.log_at(
        6,
        Level::Info,
        &Location { file: "a.rs", line: 2 },
        &[("status", Value::I64(503))],
        &format_args!("broken"),
    );
    log!(target, "in between");
    assert_eq!((speculation.len(), speculation.is_empty(), speculation.dropped()), (2, false, 0));
    assert_eq!(ring(&graph, "target"), ["in between"]);
    assert_eq!(speculation.commit(&target), 2);
    log!(on_its_own, "too late");
    assert_eq!(ring(&graph, "target"), ["in between", "fine 1", "broken"]);
    assert_eq!(ring(&graph, "broken"), ["broken"]);
    let times: Vec<u64> = graph.memory_last("target", 2).unwrap().iter().map(|line| line.micros).collect();
    assert_eq!(times, [5, 6]);
}

#[test]
fn speculation_keeps_to_its_limits() {
    let graph = Graph::new();
    let target = graph.add_memory("target", 10, 10_000).unwrap();
    let by_lines = graph.speculate(2, 10_000);
    for n in 0..5 {
        log!(by_lines.stream(), "{n}");
    }
    assert_eq!((by_lines.len(), by_lines.dropped()), (2, 3));
    by_lines.commit(&target);
    assert_eq!(ring(&graph, "target"), ["3", "4"]);
    let none = graph.speculate(0, 10_000);
    log!(none.stream(), "x");
    let too_large = graph.speculate(10, 100);
    log!(too_large.stream(), "{}", "x".repeat(101));
    assert_eq!((none.len(), too_large.len(), too_large.dropped()), (0, 0, 1));
    // The names of threads and files count towards the bytes.
    let by_bytes = graph.speculate(100, 400);
    for n in 0..20 {
        by_bytes.stream().log(Level::Info, &Location::UNKNOWN, &[], &format_args!("{n} {}", "x".repeat(100)));
    }
    assert!(by_bytes.len() <= 3, "{}", by_bytes.len());
}

#[test]
fn what_a_child_writes_to_a_pipe_is_logged_line_by_line() {
    let graph = Graph::new();
    let stream = graph.add_memory("out", 100, 1_000_000).unwrap();
    let pipe = stream.pipe().unwrap();
    let script =
        "echo one; printf 'two\\r\\n\\n\\377\\n'; head -c 70000 /dev/zero | tr '\\0' x; echo; printf rest";
    let status = Command::new("sh")
        .args(["-c", script])
        .stdout(pipe.writer().unwrap())
        .stderr(pipe.writer().unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    pipe.finish().unwrap();
    let expected =
        ["one", "two", "", "\u{fffd}", &"x".repeat(64 << 10), &"x".repeat(70_000 - (64 << 10)), "rest"];
    assert_eq!(ring(&graph, "out"), expected);
}

/// The targets of this process's file descriptors.
fn open_here() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close descriptors meanwhile.
    entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
}

/// The targets of a child process's descriptors.
fn open_in_a_child() -> Vec<PathBuf> {
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done; true";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found: Vec<PathBuf> = String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect();
    // At least standard input, output and error.
    assert!(found.len() >= 3, "{found:?}");
    found
}

#[test]
fn a_child_gets_none_of_the_file_descriptors() {
    if !Path::new("/proc/self/fd").exists() {
        eprintln!("skipped: there is no /proc/self/fd");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (file, synch, feed) = (dir.join("file.log"), dir.join("synch.log"), dir.join("feed"));
    let graph = Graph::new();
    graph.go_async();
    let streams = [("file", &file), ("file_synch", &synch), ("jlog", &feed)]
        .map(|(kind, path)| graph.configure(kind, typed(kind, path, Rotation::default())).unwrap());
    let pipe = graph.add_memory("out", 10, 1000).unwrap().pipe().unwrap();
    let writer = pipe.writer().unwrap();
    let its_name = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let pipe_name = its_name(pipe.as_fd().as_raw_fd());
    assert_eq!(its_name(writer.as_raw_fd()), pipe_name);
    // The files as first opened, and after each kind of reopening.
    for round in ["opened", "rotated", "moved"] {
        match round {
            "rotated" => ["file", "file_synch"].iter().for_each(|name| graph.rotate(name).unwrap()),
            "moved" => {
                [&file, &synch].iter().for_each(|path| std::fs::rename(path, dir.join("moved")).unwrap());
                graph.reopen().unwrap();
            }
            _ => {}
        }
        streams.iter().for_each(|stream| log!(stream, "{round}"));
        graph.flush().unwrap();
        let here = open_here();
        for path in [&file, &synch, &feed, &pipe_name] {
            assert!(here.iter().any(|open| open.starts_with(path)), "{path:?} is not open: {here:?}");
        }
        let inherited = open_in_a_child();
        for path in [&dir, &pipe_name] {
            assert!(!inherited.iter().any(|open| open.starts_with(path)), "{round}: {inherited:?}");
        }
    }
    // Only its holder keeps the pipe open.
    drop(writer);
    pipe.finish().unwrap();
}

#[test]
fn text_hooks_hear_of_plain_lines_and_stop_them_at_a_sink() {
    let graph = Graph::new();
    let plain = graph.add_memory("plain", 10, 1000).unwrap();
    let sink = SinkSpec::new("memory", "");
    let options = StreamOptions::new().sink(sink).format(Format::Json);
    graph.configure("json", options).unwrap();
    graph.add_outlet("plain", "json", None).unwrap();
    graph.set_flags("plain", logdag::Flags::new().facility(true)).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    graph.add_text_hook(move |record, text| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let secret = text.contains("secret");
        hears.lock().unwrap().push(format!("{} {text}", record.facility));
        !secret
    });
    log!(plain, "open");
    log!(plain, "a secret");
    assert_eq!(ring(&graph, "plain"), ["[plain] open"]);
    assert_eq!(graph.memory_last("json", 10).unwrap().len(), 2);
    assert_eq!(*heard.lock().unwrap(), ["plain [plain] open", "plain [plain] a secret"]);
}

#[test]
fn a_line_above_the_limit_is_counted_and_not_written() {
    let graph = Graph::new();
    let sink = SinkSpec::new("memory", "");
    let options = StreamOptions::new().sink(sink).max_line(10);
    let stream = graph.configure("short", options).unwrap();
    log!(stream, "{}", "x".repeat(11));
    log!(stream, "{}", "y".repeat(10));
    assert_eq!(ring(&graph, "short"), ["y".repeat(10)]);
    let counters = graph.describe("short").unwrap().counters;
    assert_eq!((counters.lines, counters.failed), (1, 1));
}

#[test]
fn ways_that_multiply_are_refused_and_nothing_changes() {
    let graph = Graph::new();
    graph.add_memory("end", 10, 1000).unwrap();
    // Every diamond doubles the number of paths.
    let mut from = "end".to_owned();
    let mut refused = None;
    for n in 0..40 {
        let top = format!("d{n}");
        let made = [("l", &from), ("r", &from)].into_iter().try_for_each(|(side, to)| {
            graph.add_outlet(&format!("{side}{n}"), to, None)?;
            graph.add_outlet(&top, &format!("{side}{n}"), None)
        });
        if let Err(e) = made {
            refused = Some((n, e));
            break;
        }
        from = top;
    }
    let (n, error) = refused.expect("a limit");
    assert!(matches!(error, GraphError::TooLarge(_)), "{error}");
    assert!((8..16).contains(&n), "{n}");
    log!(graph.find(&from).unwrap(), "x");
    assert_eq!(graph.describe("end").unwrap().counters.lines, 1 << n);
}

#[test]
fn a_very_long_chain_is_refused() {
    let graph = Graph::new();
    graph.add_memory("0", 10, 1000).unwrap();
    let link = |n: usize| {
        StreamConfig::new(n.to_string(), StreamOptions::default()).outlet((n - 1).to_string(), None)
    };
    let error = graph.apply((1..=1000).map(link).collect()).unwrap_err().error;
    assert!(matches!(error, GraphError::TooLarge(_)), "{error}");
    assert!(graph.find("1").is_none());
    graph.apply((1..=999).map(link).collect()).unwrap();
    assert!(
        matches!(graph.add_outlet("1000", "999", None), Err(GraphError::TooLarge(name)) if name == "1000")
    );
    assert!(graph.find("1000").is_none());
    log!(graph.find("999").unwrap(), "from afar");
    assert_eq!(ring(&graph, "0"), ["from afar"]);
    let long = ["x"; 200].join("/");
    assert!(matches!(graph.stream(&long), Err(GraphError::Name(_))));
}

/// Not a test by itself: the process of `bad_ends_lose_nothing`.
#[test]
fn come_to_a_bad_end() {
    let Ok(path) = std::env::var("LOGDAG_BAD_END") else { return };
    let graph = Graph::new();
    let stream = graph.configure("file", typed("file", path.as_ref(), Rotation::default())).unwrap();
    graph.log_panics(&stream);
    graph.go_async();
    for n in 0..1000 {
        log!(stream, "line {n}");
    }
    if std::env::var_os("LOGDAG_BY_PANIC").is_some() {
        // Nothing is unwound, and nobody else writes the waiting lines.
        let _ = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(|| panic!("so {}", "be it"))
            .unwrap()
            .join();
        std::process::abort();
    }
    if std::env::var_os("LOGDAG_TERMINATES").is_some() {
        terminate!(graph, stream, "port {} is taken", 80);
    }
    fatal!(graph, stream, "no more {}", "memory");
}

#[test]
fn bad_ends_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, last, signal, code) in [
        ("LOGDAG_BY_PANIC", "thread worker panicked: so be it", Some(6), None),
        ("LOGDAG_IS_FATAL", "no more memory", Some(6), None),
        // This corresponds to libmtev's mtevTerminate.
        ("LOGDAG_TERMINATES", "port 80 is taken", None, Some(2)),
    ] {
        let path = dir.path().join(variable);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "calls::come_to_a_bad_end", "--test-threads=1"])
            .env("LOGDAG_BAD_END", &path)
            .env(variable, "1");
        let output = command.output().unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!((output.status.signal(), output.status.code()), (signal, code), "{output:?}");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut expected: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
        expected.push(last.to_owned());
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}

/// Not a test by itself: the process of `lines_left_out_are_reported_at_the_end`.
#[test]
fn end_without_another_line() {
    struct Logs(logdag::Stream);
    impl std::fmt::Display for Logs {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            log!(self.0, "within");
            f.write_str("argument")
        }
    }
    if std::env::var_os("LOGDAG_ENDS").is_some() {
        let graph = Graph::new();
        let stream = graph.add_memory("ring", 10, 1000).unwrap();
        // The first report comes at once.
        (0..3).for_each(|_| log!(stream, "{}", Logs(stream.clone())));
    }
}

#[test]
fn lines_left_out_are_reported_at_the_end() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let exact = ["--exact", "calls::end_without_another_line", "--test-threads=1"];
    let output = command.args(exact).env("LOGDAG_ENDS", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let reported: Vec<&str> = said.lines().filter_map(|line| line.split(" left out").next()).collect();
    assert_eq!(reported, ["log: 1 line", "log: 2 lines"], "{said}");
}

/// As in libmtev, statistics count the lines that reach a stream, and need no sink.
#[test]
fn lines_that_come_to_a_stream_with_statistics_are_counted() {
    let config = |more: &str| {
        let text = format!(
            "<app><logs><log name='ring' type='memory'/><log name='ring/2' type='memory' stats='on'/>\
             <log name='both' stats='on'><outlet name='ring'/><outlet name='ring/2' filter='n > 1'/></log>\
             <log name='web' stats='on'><outlet name='both' min_level='info'/><outlet name='ring/2'/></log>\
             <log name='off' stats='on' disabled='true'><outlet name='ring'/></log>\
             <log name='nowhere' stats='on'/><log name='without'><outlet name='both'/></log>{more}</logs></app>"
        );
        Config::from_text("test.xml", &text).unwrap()
    };
    let graph = Graph::new();
    config("").apply(&graph).unwrap();
    let log = |name: &str| {
        let stream = graph.stream(name).unwrap();
        for (n, level) in [(1u64, Level::Info), (2, Level::Debug), (3, Level::Error)] {
            log!(stream, level, n = n; "line");
        }
    };
    let received = |name: &str| graph.describe(name).unwrap().received;
    for name in ["web", "off", "nowhere", "without"] {
        log(name);
    }
    assert_eq!(received("web"), Some(3));
    assert_eq!(received("both"), Some(2 + 3));
    // The lines come over two outlets of two streams.
    assert_eq!(received("ring/2"), Some(1 + 3 + 2));
    assert_eq!(received("off"), Some(0));
    assert_eq!(received("nowhere"), Some(0));
    assert!(!graph.stream("nowhere").unwrap().is_enabled());
    assert_eq!((received("ring"), received("without")), (None, None));
    let reported: serde_json::Value =
        serde_json::from_str(&graph.describe("web").unwrap().to_json()).unwrap();
    assert_eq!(reported["stats"]["received"], 3);
    // The counts continue when the configuration is read again.
    config("<log name='new'/>").replace(&graph).unwrap();
    log("web");
    assert_eq!((received("web"), received("both")), (Some(6), Some(5 + 2)));
}
