//! What is suspicious and what is not.

use super::*;

#[test]
fn what_means_nothing_but_is_near_to_something_is_a_warning() {
    for (inside, line, column, message) in [
        ("<oulet name='stderr'/>", 2, 1, "<oulet> only groups what is in it: did you mean <outlet>?"),
        ("<Log name='a'/>", 2, 1, "<Log> only groups what is in it: did you mean <log>?"),
        ("<confg/>", 2, 1, "did you mean <config>?"),
        ("<inculde file='x'/>", 2, 1, "did you mean <include>?"),
        ("<g timestmaps='on'/>", 2, 16, "unknown attribute \"timestmaps\" on <g>; did you mean timestamps?"),
        ("<g name='a'/>", 2, 10, "name on <g> has no effect"),
        (
            "<log name='b'><outlet name='stdrr'/></log>",
            2,
            15,
            "\"stdrr\" that this outlet leads to; did you mean stderr?",
        ),
        ("<log name='b'><outlet name='x/y'/></log>", 2, 15, "nothing defines the stream \"x/y\""),
        (
            "<log name='b'><outlet name='stderr'><filter>a = 1</filter></outlet></log>",
            2,
            37,
            "<filter> in <outlet> means nothing: an outlet has attributes only",
        ),
        ("<log name='b'><outlet name='stderr'>a = 1</outlet></log>", 2, 15, "text in <outlet> means nothing"),
        ("<log name='b'>x.log<outlet name='stderr'/></log>", 2, 1, "text in <log> means nothing"),
        ("<htp address='127.0.0.1:1'/>", 2, 1, "<htp> only groups what is in it: did you mean <http>?"),
        (
            "<log name='b' path='x'/>",
            2,
            21,
            "path=\"x\" on <log> has no effect without a type: expected type=",
        ),
        ("<log name='b' mode='600'/>", 2, 21, "mode=\"600\" on <log> has no effect without a type"),
        ("<log name='b' format='json'/>", 2, 23, "format=\"json\" on <log> has no effect without a type"),
        (
            "<log name='b'><config><precommit>5</precommit></config></log>",
            2,
            15,
            "<config> has no effect without a type: expected type=\"jlog\"",
        ),
        ("<log name='stderr' path='x'/>", 2, 26, "path=\"x\" on <log> has no effect on a log of type stderr"),
        (
            "<log name='b' type='file' path='x'><config><timeout>5</timeout></config></log>",
            2,
            44,
            "timeout in <config> has no effect on a log of type file",
        ),
        (
            "<log name='b' type='journald'><config><facility>daemon</facility></config></log>",
            2,
            39,
            "facility in <config> has no effect on a log of type journald",
        ),
        ("<log name='b' type='memory' rotate_bytes='1MB'/>", 2, 43, "no effect on a log of type memory"),
        ("<log name='b' type='memory' when_full='drop'/>", 2, 40, "no effect on a log of type memory"),
        ("<log name='b' type='jlog' path='x' mode='600'/>", 2, 42, "no effect on a log of type jlog"),
        ("<log name='b' type='stdout' path='x'/>", 2, 35, "no effect on a log of type stdout"),
        ("<config inherti='x'/>", 2, 18, "unknown attribute \"inherti\" on <config>; did you mean inherit?"),
        (
            "<log name='b'><outlet name='stderr' filter='level ~ \"errr\"'/></log>",
            2,
            45,
            "no level matches: their names are trace, debug, info, warning, error",
        ),
        ("<log name='b'><outlet name='stderr' filter='lvel = 1'/></log>", 2, 45, "did you mean level?"),
        ("<log name='b'><outlet name='stderr' filter='lin = 1'/></log>", 2, 45, "did you mean line?"),
        ("<log name='b'><outlet name='stderr' filter='exists(fle)'/></log>", 2, 45, "did you mean file?"),
        ("<log name='b'><outlet name='stderr' filter='Flie = 1'/></log>", 2, 45, "did you mean file?"),
        (
            "<log name='b' type='file' path='x' retain_bytes='5MB'/>",
            2,
            50,
            "has no effect without rotate_bytes",
        ),
        (
            "<log name='b' type='file' path='x'><config><segmnt_size>5</segmnt_size></config></log>",
            2,
            44,
            "unknown key \"segmnt_size\" on <config>; did you mean segment_size?",
        ),
        (
            "<g><outlet name='stderr' filter='n = 1'/><log name='b'><outlet name='stderr'/></log></g>",
            2,
            56,
            "an outlet to \"stderr\" is inherited already, with the filter \"n = 1\", which takes precedence",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='n = 1'/><outlet name='stderr'/></log>",
            2,
            53,
            "an outlet to \"stderr\" is given already, with the filter \"n = 1\", which takes precedence",
        ),
        ("<logs name='b'/>", 2, 1, "<logs> only groups what is in it: did you mean <log>?"),
        (
            "<log name='b'><outlet name='stderr' filter='or(x = 1, threadid = \"abc\")'/></log>",
            2,
            45,
            "the filter: threadid is a number, and never \"abc\"",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='not(levle = \"error\")'/></log>",
            2,
            45,
            "the filter: no line has levle unless it is one of its keys: did you mean level?",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='facilty ~ \"^a\"'/></log>",
            2,
            45,
            "did you mean facility?",
        ),
        ("<log name='b'><outlet name='stderr' filter='line >= \"x\"'/></log>", 2, 45, "line is a number"),
        (
            "<log name='b'><outlet name='stderr' filter='level > \"error\"'/></log>",
            2,
            45,
            "no level is above",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='levl = \"error\"'/></log>",
            2,
            45,
            "did you mean level?",
        ),
    ] {
        let config = logs(&format!("{inside}<log name='left' type='memory'/>")).expect(inside);
        let [(l, c, reported)] = warnings(&config)[..] else { panic!("{inside}: {:?}", config.warnings()) };
        assert_eq!((l, c), (line, column), "{inside}: {reported}");
        assert!(reported.contains(message), "{inside}: {reported}");
    }
    let config = config("<app><lgos><log name='a'/></lgos></app>").unwrap();
    let [(1, 6, reported)] = warnings(&config)[..] else { panic!("{:?}", config.warnings()) };
    assert!(
        reported.contains("it configures nothing") && reported.contains("did you mean <logs>"),
        "{reported}"
    );
}

/// Elements outside `<logs>` are the application's; a mistyped name must not pass as one of them.
#[test]
fn mistakes_outside_logs_are_warnings_too() {
    for (app, expected) in [
        ("<app><includ file='x'/>LOGS</app>", Some("<includ> means nothing: did you mean <include>?")),
        ("<app>LOGS<oulet name='stderr'/></app>", Some("<oulet> means nothing: did you mean <outlet>?")),
        ("<app>LOGS<Log name='b'/></app>", Some("<Log> means nothing: did you mean <log>?")),
        ("<app>LOGS<log name='b'/></app>", Some("<log> is not a stream here: expected it below <logs>")),
        ("<app>LOGS<lgos/></app>", Some("<lgos> means nothing: did you mean <logs>?")),
        ("<app><part><Config/></part>LOGS</app>", Some("<Config> means nothing: did you mean <config>?")),
        ("<app><includes file='x'/>LOGS</app>", Some("<includes> means nothing: did you mean <include>?")),
        ("<app><htp address='1'/>LOGS</app>", Some("<htp> means nothing: did you mean <http>?")),
        ("<app timestmaps='on'>LOGS</app>", Some("is not an attribute of streams: did you mean timestamps?")),
        // These are the application's.
        (
            "<blog><https address='x'/><configs><config/></configs><part><config><lag>5</lag></config></part>LOGS</blog>",
            None,
        ),
        ("<app user='x' pat='y'><http port='80'/><eventer><config/></eventer>LOGS</app>", None),
    ] {
        let text = app.replace("LOGS", "<logs><log name='a' type='memory'/></logs>");
        let config = config(&text).expect(app);
        match (&warnings(&config)[..], expected) {
            ([], None) => {}
            ([(.., reported)], Some(expected)) => assert!(reported.contains(expected), "{app}: {reported}"),
            (reported, _) => panic!("{app}: {reported:?}"),
        }
    }
    for (app, expected) in [
        (
            "<app><http adress='x'/>LOGS</app>",
            "unknown attribute \"adress\" on <http>; did you mean address?",
        ),
        ("<app><logs><http address='1' tls_cert='x'/></logs></app>", "tls_cert and tls_key belong together"),
        ("<app><logs><http token_fil='x'/></logs></app>", "on <http>; did you mean token_file?"),
        ("<app><include file='/x' snipet='on'/></app>", "on <include>; did you mean snippet?"),
    ] {
        let error = config(&app.replace("LOGS", "<logs><log name='a'/></logs>")).expect_err(app);
        assert!(error.message.contains(expected), "{app}: {error}");
    }
    for (text, expected) in [
        ("[htp]\naddress = '127.0.0.1:1'", "[htp] only groups what is in it: did you mean [http]?"),
        (
            "[[log]]\nname = 'a'\noutlet = { name = 'stderr', filter = { a = 1 } }",
            "[filter] in [outlet] means nothing: an outlet has attributes only",
        ),
        ("include = { file = '/x', colour = 1 }", "unknown attribute \"colour\" on include"),
        (
            "include = { file = '/x', fromat = 'json' }",
            "unknown attribute \"fromat\" on include; did you mean format?",
        ),
        (
            "include = { file = '/x', log = { name = 'a' } }",
            "[[log]] means nothing: include has attributes only",
        ),
    ] {
        let error = Config::from_text("a.toml", text).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_means_something_or_nothing_at_all_is_no_warning() {
    for inside in [
        // Turning off the rotation makes inherited settings, or settings for later, ineffective on
        // purpose.
        "<g type='file' rotate_bytes='1MB' retain_count='3'><log name='a' path='x'/><log name='b' path='y' rotate_bytes='0'/>
         <log name='c' path='z' rotate_bytes='0' retain_count='5'/><log name='d' type='memory' rotate_bytes='0'/></g>",
        "<g path='x' mode='600' when_full='drop'><log name='a'/><log name='b' type='memory' path='1,2'/></g>",
        "<log name='a' type='tape' path='x' rotate_bytes='1MB' mode='600'/>",
        "<log name='stderr' format='json' when_full='drop' timestamps='on'/><log name='a' timestamps='on' stats='on'/>",
        "<log name='a' type='syslog'><config><facility>daemon</facility><timeout>5</timeout></config></log>",
        "<log name='a'><outlet name='stderr' filter='level ~ &quot;(?i)^ERR|warning&quot;'/></log>",
        // Groups may have any name, and elements above <logs> are the application's.
        "<console_output timestamps='on'><error><log name='a'/></error></console_output>",
        // Streams below a stream make it known, and the environment may leave a stream out.
        "<log name='a'><outlet name='error/x/y'/><outlet name='b/c'/><outlet name='d'/></log><log name='b'/>
         <log name='d' require_env='!PATH'/>",
        "<g retain_bytes='5MB'><log name='a' type='file' path='x' rotate_bytes='1MB'/><log name='b'/></g>",
        "<log name='a' type='tape'><config><speed>5</speed></config></log>",
        "<g><outlet name='stderr'/><log name='b'><outlet name='stderr'/></log></g>",
        "<config><precommit>5</precommit></config><log name='a' type='memory'/>",
        "<log name='a'><outlet name='stderr' filter='and(threadid = \"7\", lines > 5, messages = 1, link = 2)'/></log>",
    ] {
        let config =
            config(&format!("<app lockfile='x'><eventer/><logs>{inside}</logs></app>")).expect(inside);
        assert_eq!(config.warnings(), [], "{inside}");
    }
}

/// Many warnings about one long line do not each keep the whole line.
#[test]
fn warnings_about_a_long_line_keep_what_they_show() {
    let outlets: String = (0..600).map(|n| format!("<outlet name='é{n}'/>")).collect();
    let config = logs(&format!("<log name='hub'>{outlets}</log>")).unwrap();
    for (n, warning) in config.warnings().iter().enumerate() {
        let kept = warning.text.chars().count();
        assert!(kept <= SHOWN + 1, "{}", warning.text);
        let shown = warning.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        let at: String = lines[1].chars().skip(caret).collect();
        assert!(at.starts_with(&format!("<outlet name='é{n}'")), "{shown}");
    }
    assert_eq!(config.warnings().len(), 600);
}
