//! Errors of texts and values, and their places.

use super::*;

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (inside, line, column, message) in [
        (r#"<log type="memory"/>"#, 2, 1, "a log without a name"),
        (r#"<log name="a"/> <log name="a"/>"#, 2, 28, "there is a log \"a\" already"),
        (r#"<log name="a" timestamps="maybe"/>"#, 2, 27, "expected on, off, true or false"),
        (r#"<log name="a" colour="red"/>"#, 2, 23, "unknown attribute \"colour\""),
        (r#"<log name="a" type="file"/>"#, 2, 1, "without a path"),
        (r#"<log name="a" type="file" path="/x" rotate_bytes="5"/>"#, 2, 51, "expected 102400 or more"),
        (r#"<log name="a" type="file" path="/x" rotate_seconds="599"/>"#, 2, 53, "expected 600 or more"),
        (r#"<log name="a" dedup_seconds="-1"/>"#, 2, 30, "expected a number"),
        (r#"<log name="a" format="xml"/>"#, 2, 23, "expected one of plain, json, event, flatbuffer"),
        (r#"<log name="a"><outlet/></log>"#, 2, 15, "an outlet without a name"),
        (r#"<log name="a"><outlet name="b" filter="x ="/></log>"#, 2, 43, "a quoted text or a number"),
        (r#"<log name="a"><outlet name="a"/></log>"#, 2, 1, "a -> a"),
        (
            r#"<log name="a"><outlet name="b"/></log><log name="b"><outlet name="a"/></log>"#,
            2,
            39,
            "b -> a -> b",
        ),
        (r#"<log name="a" require_env="=x"/>"#, 2, 28, "expected VAR"),
        (
            r#"<log name="a" type="jlog" path="/x"><config inherit="no"/></log>"#,
            2,
            54,
            "no config with the id",
        ),
        (r#"<log name="a"/></more>"#, 2, 16, "</more> closes nothing here"),
        (r#"<include file="/nowhere/at.all"/>"#, 2, 16, "cannot include"),
    ] {
        let error = logs(inside).expect_err(inside);
        assert_eq!((error.line, error.column), (line, column), "{inside}: {error}");
        assert!(error.message.contains(message), "{inside}: {error}");
        assert!(error.to_string().starts_with("app.xml:2:"), "{error}");
    }
    let error = logs(r#"<log name="a" format="xml"/>"#).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[1..], ["  <log name=\"a\" format=\"xml\"/>", "                        ^"]);
}

#[test]
fn errors_of_values_name_the_attribute_and_the_element() {
    for (inside, message) in [
        (
            "<g timestamps='maybe'><log name='a'/></g>",
            "timestamps=\"maybe\" on <g>: expected on, off, true or false",
        ),
        (
            "<log name='a' max_line='10M'/>",
            "max_line=\"10M\" on <log>: expected a number of bytes, such as 10000000, 10MB",
        ),
        ("<log name='a' max_line='0'/>", "max_line=\"0\" on <log>: expected a number of bytes, 1 or more"),
        (
            "<log name='a' dedup_seconds='soon'/>",
            "dedup_seconds=\"soon\" on <log>: expected a number of seconds",
        ),
        ("<log name='a' when_full='wait'/>", "when_full=\"wait\" on <log>: expected block or drop"),
        ("<log name='a' format='jsno'/>", "; did you mean json?"),
        ("<log name='a' name='b'/>", "duplicate attribute \"name\" on <log>"),
    ] {
        let error = logs(inside).expect_err(inside);
        assert!(error.message.contains(message), "{inside}: {error}");
    }
}

#[test]
fn an_element_that_is_closed_too_early_or_never_is_named_with_its_place() {
    for (text, line, column, message) in [
        // A mistake from an old document: an element that should group others is self-closing.
        (
            "<app>\n<logs>\n<log name='a' path='>'/>\n <!-- <log> --><outlet name='b'/>\n</log>\n</logs></app>",
            5,
            1,
            "</log> closes nothing here: <log>, which begins at line 3, column 1, was closed already, by \"/>\" at line 3, \
             column 23; expected </logs>",
        ),
        (
            "<app/>\n<logs><log name='a'/></logs>",
            2,
            1,
            "nothing may follow the root: <app>, which begins at line 1, column 1, was closed already, by \"/>\" at line 1",
        ),
        (
            "<app></app>\n<logs/>",
            2,
            1,
            "<app>, which begins at line 1, column 1, was closed already, by </app> at line 1, column 6",
        ),
        ("<app>\n<logs></app>", 2, 7, "expected </logs>, which closes <logs>, begun at line 2, column 1"),
        ("<app>\n <logs>\n<log name='a'/>\n", 1, 1, "<logs>, begun at line 2, column 2, is never closed"),
    ] {
        let error = config(text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn text_that_is_not_well_formed_is_explained() {
    for (text, column, message) in [
        ("<a><log name='x' filter='n < 5'/></a>", 28, "cannot contain \"<\": write &lt;, or close the value"),
        ("<a><log name=\"x</a>", 16, "cannot contain \"<\": write &lt;, or close the value"),
        ("<a><log name='R&D'/></a>", 16, "expected &amp; instead of \"&\""),
        ("<a><log name='&it;'/></a>", 15, "unknown entity &it;"),
        ("<a><!-- a -- b --></a>", 4, "a comment cannot contain \"--\""),
        ("<a>]]></a>", 7, "text cannot contain \"]]>\""),
        ("<!DOCTYPE a><a/>", 1, "a document type (<!DOCTYPE>) is not accepted"),
    ] {
        let error = config(text).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn an_error_shows_a_long_line_in_part() {
    let long = format!("<log name='a' path='{}' tpye='x' mode='{}'/>", "é".repeat(5000), "y".repeat(5000));
    let shown = logs(&long).unwrap_err().to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 300), "{shown}");
    let column = lines[2].find('^').unwrap();
    assert!(lines[1].chars().skip(column).collect::<String>().starts_with("x' mode="), "{shown}");
    assert!(lines[1].trim().starts_with('…') && lines[1].ends_with('…'), "{shown}");
}

/// The error for a list in the wrong place suggests the name that it may have been meant for.
#[test]
fn a_list_of_a_mistyped_name_is_reported() {
    for text in ["[[log]]\nname = 'a'\noutlets = ['b']", "[[log]]\nname = 'a'\noutlets = []"] {
        let error = Config::from_text("c.toml", text).unwrap_err().to_string();
        assert!(
            error.contains("outlets: expected a string") && error.contains("did you mean outlet?"),
            "{error}"
        );
    }
    let text = "[[logs]]\nname = 'a'\ntype = 'memory'\n[[log]]\nname = 'b'\n";
    let config = Config::from_text("c.toml", text).unwrap();
    let expected = "[[logs]] only groups what is in it: did you mean log?";
    assert_eq!(warnings(&config), [(1, 1, expected)]);
}
