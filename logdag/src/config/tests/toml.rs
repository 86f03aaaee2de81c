//! Configurations in TOML.

use super::*;

#[test]
fn errors_in_toml_name_the_place() {
    for (text, line, column, message) in [
        ("x = ", 1, 5, "string values must be quoted"),
        ("[[log]]\nname = \"a\"\nformat = \"xml\"", 3, 11, "expected one of plain"),
        ("[[log]]\ntype = \"memory\"", 1, 1, "a log without a name"),
        ("[[log]]\nname = [\"a\"]", 2, 9, "name: expected a string"),
        ("[[log]]\nname = \"a\"\noutlet = { filter = \"x = 1\" }", 3, 10, "an outlet without a name"),
        (
            "[[log]]\nname = \"a\"\noutlet = { name = \"b\", filter = 'x =' }",
            3,
            37,
            "a quoted text or a number",
        ),
        ("[[log]]\nname = \"a\"\noutlet = [[1]]", 3, 11, "expected a string, or a table with name"),
        ("[[log]]\nname = \"a\"\nconfig = { x = [] }", 3, 16, "expected a string, a number"),
        ("include = \"/nowhere/at.all\"", 1, 12, "cannot include"),
        (
            "[[log]]\nname = \"a\"\nlimit = \"5/s\"",
            3,
            10,
            "unknown attribute \"limit\" on [[log]]: it belongs on an outlet",
        ),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn the_place_of_a_filters_error_in_every_kind_of_string() {
    for (filter, line, column) in [
        (r#""a = 1 x""#, 3, 40),
        (r#"'a = "\\" x'"#, 3, 43),
        (r#"'m ~ "\\\\\\\\" x'"#, 3, 49),
        (r#""\u0061 = 1 x""#, 3, 45),
        (r#""\U00000061 = 1 x""#, 3, 49),
        (r#""\x61 = 1 x""#, 3, 43),
        (r#""""a = 1 x""""#, 3, 42),
        (r#"'''a = 1 x'''"#, 3, 42),
        ("'''\na = 1 x'''", 4, 7),
        ("\"\"\"\r\na = 1 x\"\"\"", 4, 7),
        ("\"\"\"a = \\\n    1 x\"\"\"", 4, 7),
    ] {
        let text = format!("[[log]]\nname = \"a\"\noutlet = {{ name = \"b\", filter = {filter} }}\n\n");
        let error = Config::from_text("app.toml", &text).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{filter}: {error}");
    }
}

#[test]
fn toml_is_taken_in_the_order_in_which_it_stands() {
    let text =
        "[b.c]\n[[b.c.log]]\nname = \"1\"\n[a]\n[[a.log]]\nname = \"2\"\n[b]\n[[b.log]]\nname = \"3\"\n";
    let config = Config::from_text("app.toml", text).unwrap();
    // The streams of one table stay together.
    assert_eq!(config.streams().iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["1", "3", "2"]);
    let text = "[[log]]\nname = \"a\"\nzebra = 1\napple = 1\n";
    let error = Config::from_text("app.toml", text).unwrap_err();
    assert_eq!((error.line, error.column), (3, 9), "{error}");
}

#[test]
fn values_in_toml_are_those_of_xml() {
    let text = r#"
            [[log]]
            name = "a"
            type = "jlog"
            path = "/x"
            retain_bytes = 0xffff_ffff_ffff_ffff
            config = { inherit = "ENV:big:{LOGDAG_NOT_THERE}" }
            [other.config]
            id = "big"
            segment_size = " 1000 "
            "#;
    let config = Config::from_text("app.toml", text).unwrap();
    let sink = config.streams()[0].options.sink.as_ref().unwrap();
    assert_eq!(sink.config["segment_size"], "1000");
    assert_eq!(sink.rotation.retain_bytes, u64::MAX);
    for mistaken in ["log = \"a\"", "timestamps = []", "[g]\nconfig = 5"] {
        let error = Config::from_text("app.toml", mistaken).unwrap_err();
        assert!(error.message.contains("expected a string, a number, true, false, or tables"), "{error}");
    }
}

#[test]
fn unknown_keys_in_toml_are_errors() {
    for (text, line, message) in [
        (
            "timestmaps = true\n[[log]]\nname = \"a\"",
            1,
            "unknown attribute \"timestmaps\" on the top level; did you mean timestamps?",
        ),
        (
            "[g]\ncolour = 1\n[[g.log]]\nname = \"a\"",
            2,
            "unknown attribute \"colour\" on [g]: expected one of name, type",
        ),
        (
            "includ = \"x\"\n[[log]]\nname = \"a\"",
            1,
            "unknown attribute \"includ\" on the top level; did you mean include?",
        ),
        (
            "[[log]]\nname = \"a\"\noutlt = \"x\"",
            3,
            "unknown attribute \"outlt\" on [[log]]; did you mean outlet?",
        ),
        ("[[log]]\nname = \"a\"\npth = \"x\"", 3, "unknown attribute \"pth\" on [[log]]; did you mean path?"),
        (
            "[[log]]\nname = \"a\"\noutlet = { name = \"error\", fliter = \"x = 1\" }",
            3,
            "did you mean filter?",
        ),
        (
            "[[log]]\nname = \"a\"\ntimestamps = \"maybe\"",
            3,
            "timestamps = \"maybe\" in [[log]]: expected on, off",
        ),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
    for (text, message) in [
        ("[[log]]\nname = 'a'\n name = 'b'\n", "duplicate key \"name\" in [[log]]"),
        ("timestamps = true\ntimestamps = true", "duplicate key \"timestamps\" in the top level"),
        ("[http]\nadress = 'x'", "unknown attribute \"adress\" on [http]; did you mean address?"),
        ("[http]\ntoken_file = 'x'", "[http] without address: expected 127.0.0.1:PORT or unix:PATH"),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!(error.message, message);
    }
    let config = Config::from_text("app.toml", "[[lgo]]\nname = \"a\"").unwrap();
    assert!(
        config
            .warnings()
            .iter()
            .any(|w| w.message.contains("[lgo] only groups what is in it: did you mean log?"))
    );
}
