//! `logdag check`: what is right, wrong, or of no use.

use super::*;

#[test]
fn a_right_configuration_is_checked_and_nothing_opened() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log"/><log name="j" type="jlog" path="DIR/feed(a)"/>"#,
    );
    let output = logdag(&["check", &setup.config]).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(out.contains("2 streams"), "{out}");
    assert!(!setup.path("f.log").exists() && !setup.path("feed").exists());
}

#[test]
fn the_examples_are_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logdag/examples");
    let (mut checked, mut directories) = (0, vec![examples]);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "xml" || extension == "toml") {
                let output =
                    logdag(&["check", "--strict"]).arg(&path).env("APP_FEED", "/nowhere").output().unwrap();
                assert!(output.status.success(), "{output:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 8);
}

#[test]
fn the_example_in_toml_is_the_one_in_xml() {
    let shown = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logdag/examples").join(name);
        texts(&logdag(&["graph", "--json"]).arg(path).output().unwrap()).0
    };
    let (xml, toml) = (shown("web.xml"), shown("web.toml"));
    assert_eq!(xml, toml);
    let line = xml.lines().find(|line| line.contains("\"name\":\"web\"")).unwrap();
    let web: serde_json::Value = serde_json::from_str(line).unwrap();
    let outlets = serde_json::json!([{ "name": "feed" }, { "name": "errors", "filter": "status >= 500" }]);
    assert_eq!(web["outlets"], outlets);
}

#[test]
fn a_wrong_configuration_is_reported_with_place_and_line() {
    for (inside, column, message) in [
        (r#"<log name="a" format="xml"/>"#, 23, "format=\"xml\" on <log>"),
        (r#"<log name="a" colour="red"/>"#, 23, "unknown attribute"),
        (r#"<log type="file" path="/x"/>"#, 1, "without a name"),
        (r#"<log name="a" type="tape"/>"#, 1, "unknown type \"tape\""),
        (r#"<log name="a" type="file"/>"#, 1, "without a path"),
        (r#"<log name="a" type="file" path="/x" rotate_bytes="5"/>"#, 51, "102400"),
        (r#"<log name="a"><outlet name="b" filter="x = "/></log>"#, 44, "a quoted text or a number"),
        (r#"<log name="a"/><log name="a"/>"#, 27, "already"),
        (r#"<log name="a"><outlet name="a"/></log>"#, 1, "cycle"),
        (r#"<log name="a"/></b>"#, 16, "closes nothing"),
        (r#"<include file="none.xml"/>"#, 16, "none.xml"),
        (r#"<include file="app.xml"/>"#, 16, "includes itself"),
        (r#"<log name="a" require_env="!"/>"#, 28, "expected VAR"),
    ] {
        let setup = Setup::new(inside);
        for command in [vec!["check", &setup.config], vec!["run", &setup.config, "--in", "a=stdin"]] {
            let output = logdag(&command).output().unwrap();
            let (out, err) = texts(&output);
            assert_eq!((output.status.code(), &*out), (Some(1), ""), "{inside}: {err}");
            let lines: Vec<&str> = err.lines().collect();
            let place = format!("logdag: {}:2:{column}: ", setup.config);
            assert!(lines[0].starts_with(&place) && lines[0].contains(message), "{inside}: {err}");
            let text = lines[lines.len() - 2];
            assert_eq!(text.strip_prefix("  "), Some(inside));
            assert_eq!(lines[lines.len() - 1], format!("{}^", " ".repeat(column + 1)), "{err}");
        }
    }
    let output = logdag(&["check", "/nowhere/app.xml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("/nowhere/app.xml: No such file"), "{:?}", texts(&output));
}

#[test]
fn a_sink_that_cannot_be_opened_is_reported_with_place_and_path() {
    let setup = Setup::new("<log name=\"a\"/>\n<log name=\"b\" type=\"file\" path=\"DIR/none/b.log\"/>");
    let output = logdag(&["run", &setup.config, "--in", "a=stdin"]).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.starts_with(&format!("logdag: {}:3:1: ", setup.config)), "{err}");
    assert!(err.contains(&format!("{}: No such file", setup.path("none/b.log").display())), "{err}");
}

#[test]
fn a_stream_that_leads_nowhere_is_told_of() {
    let setup =
        Setup::new(&format!(r#"{PLAIN}<log name="off" type="file" path="DIR/off.log" disabled="on"/>"#));
    for (stream, why) in [("uot", "is not in the configuration"), ("off", "is disabled")] {
        let output = setup.exec(&["--stdout", stream], "echo a");
        assert_eq!(output.status.code(), Some(0));
        let err = texts(&output).1;
        assert!(err.contains(&format!("{stream:?} {why}")), "{err}");
    }
    assert_eq!(texts(&setup.exec(&["--stdout", "out"], "echo a")).1, "");
}

#[test]
fn warnings_are_counted_and_refused_where_that_is_wanted() {
    let setup = Setup::new("<lgo name='a'/>\n<log name='b' type='file' path='DIR/none/b.log'/>");
    for (strict, code) in [(&[][..], 0), (&["--strict"][..], 1)] {
        let output = logdag(&[&["check", &setup.config][..], strict].concat()).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert_eq!(out, format!("{}: 1 stream, 2 warnings\n", setup.config));
        let warning = format!("logdag: warning: {}:", setup.config);
        let lines: Vec<&str> = err.lines().filter(|line| line.starts_with(&warning)).collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].ends_with(":2:1: <lgo> only groups what is in it: did you mean <log>?"), "{err}");
        assert!(
            lines[1].contains(":3:1: the directory ") && lines[1].contains("/none of the log \"b\""),
            "{err}"
        );
    }
    // The type may belong to the application.
    let own = Setup::new("<log name='b' type='tape' path='x'/>");
    for (more, code) in [(&[][..], 1), (&["--type", "disk"], 1), (&["--type", "disk", "--type", "tape"], 0)] {
        let output = logdag(&[&["check", "--strict", &own.config][..], more].concat()).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(
            (output.status.code(), out.contains("no problems")),
            (Some(code), code == 0),
            "{out}{err}"
        );
        assert_eq!(err.contains("unknown type \"tape\""), code == 1, "{err}");
    }
    let nothing = Setup::new("");
    let output = logdag(&["check", &nothing.config]).output().unwrap();
    assert!(texts(&output).1.contains("it configures nothing"), "{:?}", texts(&output));
}

#[test]
fn a_file_that_cannot_be_rotated_is_reported() {
    let name = "n".repeat(250);
    let setup =
        Setup::new(&format!(r#"<log name="out" type="file" path="DIR/{name}" rotate_bytes="102400"/>"#));
    let output = setup.exec(&["--stdout", "out"], "seq 30000; sleep 0.1; echo last");
    let err = texts(&output).1;
    assert!(err.contains("cannot be rotated") && err.contains(&name), "{err}");
    let expected: String = (1..=30_000).map(|n| format!("{n}\n")).chain(["last\n".to_owned()]).collect();
    assert!(setup.read(&name) == expected);
}

#[test]
fn what_makes_no_sense_is_reported() {
    let setup = Setup::new(PLAIN);
    for wrong in [
        "out",
        "out=tape",
        "out=fifo:",
        "out=udp:1",
        "out=syslog-udp:1",
        "out=syslog-tcp:1",
        "out=syslog-unix:",
    ] {
        let output = logdag(&["run", &setup.config, "--in", wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(texts(&output).1.contains("expected STREAM="), "{wrong}: {:?}", texts(&output));
    }
    let output = logdag(&["run", &setup.config, "--in", "out=stdin", "--max-line", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output =
        logdag(&["run", &setup.config, "--in", &format!("out=fifo:{}", setup.config)]).output().unwrap();
    assert!(texts(&output).1.contains("it is not a FIFO"), "{:?}", texts(&output));
    let none = Path::new("/nowhere/fifo");
    let output = logdag(&["run", &setup.config, "--in", &format!("out=fifo:{}", none.display())]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("/nowhere/fifo"), "{:?}", texts(&output));
    let output = logdag(&["run", &setup.config, "--in", "out//x=stdin"]).output().unwrap();
    assert!(texts(&output).1.contains("\"out//x\""), "{:?}", texts(&output));
}
