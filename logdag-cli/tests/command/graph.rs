//! `logdag graph`.

use super::*;

#[test]
fn the_graph_is_shown_with_filters_and_reasons() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log"/>
           <log name="a"><outlet name="f" filter="status &gt;= 500"/></log>
           <log name="off" disabled="true"><outlet name="f"/></log>
           <log name="no" disabled="true" type="memory"/><log name="near"><outlet name="no"/></log>
           <log name="left" type="memory" require_env="!PATH"/><log name="right"><outlet name="left"/></log>
           <log name="lost"/>"#,
    );
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    let file = setup.path("f.log");
    for line in [
        "a",
        "  -> f  if status >= 500",
        &format!("f  [file {}]", file.display()),
        "off  (disabled)",
        "lost  (leads to no sink)",
        "near  (what it leads to is disabled)",
        "left  (left out: require_env \"!PATH\" does not hold)",
        "right  (leads to no sink)",
        "debug  (disabled)",
        "stderr  [stderr]",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
    let (dot, _) = texts(&logdag(&["graph", "--dot", &setup.config]).output().unwrap());
    assert!(dot.starts_with("digraph logdag {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("  \"a\" -> \"f\" [label=\"status >= 500\"];\n"), "{dot}");
    assert!(dot.contains("  \"off\" [label=\"off\", style=dashed];\n"), "{dot}");
    assert!(!file.exists());
}

#[test]
fn the_graph_shows_when_files_are_rotated() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log" rotate_at="daily" retain_count="7"/><log name="a"/>"#,
    );
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    let (json, _) = texts(&logdag(&["graph", "--json", &setup.config]).output().unwrap());
    let of = |name: &str| {
        let mut streams = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        streams.find(|stream| stream["name"] == name).unwrap()["rotation"].clone()
    };
    let rotation = of("f");
    let rotation = rotation.as_str().unwrap();
    assert!(rotation.starts_with("rotates daily (") && rotation.ends_with("keeps 7 files"), "{rotation}");
    assert!(text.contains(&format!("\n  {rotation}\n")), "{text}");
    assert_eq!(of("a"), serde_json::Value::Null);
}

#[test]
fn the_graph_shows_what_is_redacted() {
    let setup = Setup::new(
        r#"<log name="f" type="memory" redact="user.mail" redact_pattern="Bearer \S+"/>
           <log name="a"><outlet name="f"/></log>"#,
    );
    let config = fs::read_to_string(&setup.config).unwrap();
    fs::write(&setup.config, config.replace("<logs>", "<logs redact=\"password\">")).unwrap();
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    for expected in
        ["f  [memory]\n  redacts password, user.mail, /Bearer \\S+/\n", "a\n  redacts password\n  -> f\n"]
    {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let (json, _) = texts(&logdag(&["graph", "--json", &setup.config]).output().unwrap());
    let of = |name: &str| {
        let streams = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let stream = streams.into_iter().find(|stream| stream["name"] == name).unwrap();
        (stream["redact"].clone(), stream["redact_pattern"].clone())
    };
    assert_eq!(of("f"), ("password,user.mail".into(), "Bearer \\S+".into()));
    assert_eq!(of("a"), ("password".into(), "".into()));
    // Without redaction, nothing is printed about it.
    let (text, _) = texts(&logdag(&["graph", &Setup::new(PLAIN).config]).output().unwrap());
    assert!(!text.contains("redacts"), "{text}");
}
