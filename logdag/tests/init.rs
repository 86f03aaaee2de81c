//! One call for a whole program: `logdag::init`. Its settings belong to the process, so that each
//! test has its own process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use logdag::{InitError, InstallError, log};

/// Runs one of the programs below in a separate process, in a directory with this configuration.
fn program(name: &str, dir: &Path, config: &str, levels: &[(&str, &str)]) -> Output {
    fs::write(dir.join("app.toml"), config).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).current_dir(dir).env("LOGDAG_INIT_TEST", name);
    command.env_remove("RUST_LOG").env_remove("LOGDAG_LOG").envs(levels.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Whether this process is that program.
fn is_it(name: &str) -> bool {
    std::env::var("LOGDAG_INIT_TEST").is_ok_and(|wanted| wanted == name)
}

const CONFIG: &str = r#"
[[log]]
name = "file"
type = "file"
path = "app.log"
facility = true

[[log]]
name = "app"
outlet = "file"

[[log]]
name = "error"
outlet = "file"

[[log]]
name = "notice"
outlet = ["file", "nowhere"]
"#;

#[test]
fn the_program_with_everything() {
    if !is_it("the_program_with_everything") {
        return;
    }
    let logging = logdag::init("app.toml").unwrap();
    tracing::info!(target: "app::http", status = 200, "by tracing");
    ::log::warn!(target: "app::db", "by log");
    let stream = logging.graph().stream("app/own").unwrap();
    log!(stream, "by the macro");
    tracing::debug!(target: "app::http", "a detail");
    std::thread::Builder::new().name("worker".to_owned()).spawn(|| panic!("oh")).unwrap().join().unwrap_err();
    assert!(matches!(logdag::init("app.toml"), Err(InitError::Install(InstallError::Tracing))));
    // Waiting lines are written when the guard is dropped.
    drop(logging);
}

#[test]
fn everything_that_a_program_logs_goes_to_the_graph() {
    let dir = tempfile::tempdir().unwrap();
    let output = program("the_program_with_everything", dir.path(), CONFIG, &[("LOGDAG_LOG", "app=info")]);
    let text = fs::read_to_string(dir.path().join("app.log")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [warning, _, _, rest @ ..] = &lines[..] else { panic!("{text}") };
    assert!(
        warning.starts_with("[notice] logdag: app.toml:18:") && warning.contains("\"nowhere\""),
        "{text}"
    );
    let expected = [
        "[app/http] by tracing",
        "[app/db] by log",
        "[app/own] by the macro",
        "[error] thread worker panicked: oh",
    ];
    assert_eq!(rest, expected, "{text}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("panicked"),
        "the hook that was there is called"
    );
}

/// A program whose configured stream has a different name from what it logs.
#[test]
fn the_program_that_nobody_hears() {
    if is_it("the_program_that_nobody_hears") {
        let _logging = logdag::init("app.toml").unwrap();
        tracing::info!(target: "my_app::http", "lost");
        ::log::info!(target: "other", "lost");
    }
}

#[test]
fn a_program_whose_lines_all_went_nowhere_hears_of_it() {
    let quiet = CONFIG.replace(", \"nowhere\"", "");
    for (config, levels, reported) in [
        (&*quiet, &[][..], true),
        (&quiet, &[("RUST_LOG", "off")], false),
        (&quiet, &[("RUST_LOG", "other=off")], true),
        // Something was logged: the warning.
        (CONFIG, &[], false),
        (&quiet.replace("\"app\"", "\"other\""), &[], false),
        // The configuration makes the program log nothing.
        (&format!("{quiet}[[log]]\nname = \"my_app\"\n[[log]]\nname = \"other\"\n"), &[], false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = program("the_program_that_nobody_hears", dir.path(), config, levels);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let streams = if levels == [("RUST_LOG", "other=off")] { "my_app" } else { "my_app, other" };
        let expected = format!(
            "logdag: no line was written: the configuration leads those of the streams {streams} nowhere"
        );
        assert_eq!(said.contains(&expected), reported, "{config} {levels:?}: {said}");
        assert_eq!(said.contains("no line was written"), reported, "{said}");
    }
}

#[test]
fn the_program_with_details() {
    if is_it("the_program_with_details") {
        let _logging = logdag::init("app.toml").unwrap();
        tracing::debug!(target: "app::http", "a detail");
        tracing::trace!(target: "app::http", "a step");
    }
}

#[test]
fn levels_of_the_environment_count() {
    for (levels, expected) in [
        (&[][..], &["a detail", "a step"][..]),
        (&[("RUST_LOG", "app=debug")], &["a detail"]),
        (&[("RUST_LOG", "trace"), ("LOGDAG_LOG", "app::http=info")], &[]),
        // An invalid one is reported, and changes nothing.
        (&[("RUST_LOG", "app=loud")], &["RUST_LOG is ignored", "a detail", "a step"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        program("the_program_with_details", dir.path(), &CONFIG.replace(", \"nowhere\"", ""), levels);
        let text = fs::read_to_string(dir.path().join("app.log")).unwrap();
        assert_eq!(text.lines().count(), expected.len(), "{levels:?}: {text}");
        for (line, expected) in text.lines().zip(expected) {
            assert!(line.contains(expected), "{levels:?}: {text}");
        }
    }
}

#[test]
fn the_program_that_reloads() {
    if !is_it("the_program_that_reloads") {
        return;
    }
    let logging = logdag::init("app.toml").unwrap();
    let stream = logging.graph().stream("app").unwrap();
    log!(stream, "one");
    // In another directory, the path still means the same file.
    let dir = std::env::current_dir().unwrap();
    std::env::set_current_dir("/").unwrap();
    let path = dir.join("app.toml");
    let text = fs::read_to_string(&path).unwrap();
    let absolute = |name: &str| text.replace("app.log", dir.join(name).to_str().unwrap());
    fs::write(&path, absolute("second.log")).unwrap();
    logging.reload().unwrap();
    log!(stream, "two");
    fs::write(&path, "[[log]]\nnme = 1").unwrap();
    let error = logging.reload().unwrap_err();
    assert!(matches!(&error, InitError::Config(e) if e.line == 2), "{error}");
    log!(stream, "three");
    logging.reload_on_hangup().unwrap();
    fs::write(&path, absolute("third.log")).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
    while !dir.join("third.log").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    logging.graph().flush().unwrap();
}

#[test]
fn a_configuration_that_has_changed_is_taken_by_call_and_by_signal() {
    let dir = tempfile::tempdir().unwrap();
    program("the_program_that_reloads", dir.path(), &CONFIG.replace(", \"nowhere\"", ""), &[]);
    assert_eq!(fs::read_to_string(dir.path().join("app.log")).unwrap(), "[app] one\n");
    let second = fs::read_to_string(dir.path().join("second.log")).unwrap();
    let lines: Vec<&str> = second.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("[app] two", "[app] three"), "{second}");
    assert!(
        lines[1].contains("the configuration stays as it was: ") && lines[1].contains("\"nme\""),
        "{second}"
    );
}

#[test]
fn the_program_that_registers_no_type() {
    if is_it("the_program_that_registers_no_type") {
        let logging = logdag::init("app.toml").unwrap();
        log!(logging.graph().stream("tape").unwrap(), "a line that nothing takes");
    }
}

#[test]
fn a_type_that_was_never_registered_is_reported_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[[log]]\nname = \"tape\"\ntype = \"tape\"\n";
    let output = program("the_program_that_registers_no_type", dir.path(), config, &[]);
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "log stream tape: its type \"tape\" was never registered\n";
    assert_eq!(reported.matches(expected).count(), 1, "{reported}");
}

#[test]
fn a_configuration_that_is_wrong_sets_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.toml");
    fs::write(&path, "[[log]]\nname = 1\ntype = \"file\"").unwrap();
    let error = logdag::init(&path).unwrap_err();
    assert!(format!("{error:?}").contains("app.toml:1:1: a log of type file without a path"), "{error:?}");
    let error = logdag::init(dir.path().join("none.xml")).unwrap_err();
    assert!(error.to_string().contains("none.xml: No such file"), "{error}");
}
