//! Sizes, durations and rotation.

use super::*;

#[test]
fn sizes_and_durations_have_units_and_0_turns_inherited_rotation_off() {
    let config = logs(
        "<g type='file' rotate_bytes='10MiB' rotate_seconds='1d' retain_seconds='7d' retain_bytes='1.5GB'>
           <log name='a' path='a' dedup_seconds='1m' queue_bytes='2kB' max_line='1MB'/>
           <log name='b' path='b' rotate_bytes='0' retain_bytes='0'/>
           <log name='c' path='c' rotate_bytes='0' rotate_seconds='0' retain_seconds='0' retain_bytes='0'/></g>",
    )
    .unwrap();
    let options: Vec<_> = config.streams().iter().map(|stream| &stream.options).collect();
    let rotation = |n: usize| options[n].sink.as_ref().unwrap().rotation.clone();
    let of = |seconds, bytes, retain_seconds, retain_bytes| crate::Rotation {
        seconds,
        bytes,
        retain_seconds,
        retain_bytes,
        ..rotation(2)
    };
    assert_eq!(rotation(0), of(86_400, 10 << 20, 604_800, 1_500_000_000));
    assert_eq!(rotation(1), of(86_400, 0, 604_800, 0));
    assert_eq!(rotation(2), of(0, 0, 0, 0));
    assert_eq!(
        (options[0].dedup, options[0].queue_bytes, options[0].max_line),
        (Some(std::time::Duration::from_secs(60)), 2000, 1_000_000)
    );
    assert_eq!(config.warnings(), []);
}

#[test]
fn sizes_of_jlogs_that_are_out_of_range_are_not_taken() {
    for (key, given, taken, warned) in [
        ("segment_size", "1000", Some("1000"), false),
        ("segment_size", "1MiB", Some("1048576"), false),
        ("segment_size", "0", None, true),
        ("segment_size", "-5", None, true),
        ("segment_size", "-1MiB", None, true),
        ("segment_size", "+1000", Some("1000"), false),
        ("segment_size", "1073741825", None, true),
        ("segment_size", "99999999999999999999", None, true),
        ("precommit", "128KiB", Some("131072"), false),
        ("precommit", "0", Some("0"), false),
        ("precommit", "-1", Some("0"), true),
        ("precommit", "-128KiB", Some("0"), true),
        ("precommit", "999999999999999999999999999999999999999999", Some("8388608"), true),
        ("precommit", "9000000", Some("8388608"), true),
    ] {
        let inside =
            format!("<log name='a' type='jlog' path='x'><config><{key}>{given}</{key}></config></log>");
        let config = logs(&inside).expect(&inside);
        let sink = config.streams()[0].options.sink.as_ref().unwrap();
        assert_eq!(sink.config.get(key).map(|text| &**text), taken, "{inside}");
        assert_eq!(config.warnings().len(), usize::from(warned), "{inside}: {:?}", config.warnings());
    }
    let error = logs("<log name='a' type='jlog' path='x'><config><precommit>much</precommit></config></log>")
        .unwrap_err();
    assert!(
        error.message.contains("precommit=\"much\" on <precommit>: expected a number of bytes"),
        "{error}"
    );
}

#[test]
fn attributes_of_rotation_are_read_and_inherited() {
    use crate::{Compression, RotateAt};
    let config = logs(
        "<g type='file' rotate_at='daily' rotate_zone='Europe/Berlin' rotate_name='{name}-%F{ext}' compress='zstd'>
           <log name='a' path='/x/a.log'/>
           <log name='b' path='/x/b.log' rotate_at='off' compress='off' rotate_on_start='on' rotate_name='number'
                rotate_zone='local'/></g>",
    )
    .unwrap();
    let rotation = |n: usize| config.streams()[n].options.sink.as_ref().unwrap().rotation.clone();
    let expected = crate::Rotation {
        at: Some(RotateAt::Daily),
        zone: "Europe/Berlin".parse().unwrap(),
        name: "{name}-%F{ext}".parse().unwrap(),
        compress: Some(Compression::Zstd),
        ..crate::Rotation::default()
    };
    assert_eq!(rotation(0), expected);
    assert_eq!(
        rotation(0).to_string(),
        "rotates daily (Europe/Berlin) to {name}-%F{ext}, compresses with zstd"
    );
    let expected =
        crate::Rotation { on_start: true, name: "number".parse().unwrap(), ..crate::Rotation::default() };
    assert_eq!(rotation(1), expected);
    // A zone that nothing uses is reported, even the default.
    let [(.., reported)] = warnings(&config)[..] else { panic!("{:?}", config.warnings()) };
    assert_eq!(
        reported,
        "rotate_zone=\"local\" on <log> has no effect without rotate_at or a pattern in rotate_name"
    );
    let toml = Config::from_text(
        "app.toml",
        "[[log]]\nname = 'a'\ntype = 'file'\npath = 'a'\nrotate_at = 'hourly'\nrotate_on_start = true\n\
         retain_count = 1\nrotate_zone = 'utc'",
    )
    .unwrap();
    let rotation = &toml.streams()[0].options.sink.as_ref().unwrap().rotation;
    assert_eq!(rotation.to_string(), "rotates at the start, hourly (utc), keeps 1 file");
    assert_eq!(toml.warnings(), []);
}

#[test]
fn rotations_that_mean_nothing_are_refused() {
    for (attributes, expected) in [
        (
            "rotate_at='dialy'",
            "rotate_at=\"dialy\" on <log>: expected hourly, daily, weekly or monthly; did you mean daily?",
        ),
        (
            "rotate_zone='Europe/Berln'",
            "rotate_zone=\"Europe/Berln\" on <log>: expected local, utc, or a name of the time zone database such as \
             Europe/Berlin; did you mean Europe/Berlin?",
        ),
        ("compress='gzp'", "compress=\"gzp\" on <log>: expected gzip or zstd; did you mean gzip?"),
        ("rotate_on_start='yes'", "rotate_on_start=\"yes\" on <log>: expected on, off, true or false"),
        ("rotate_name='nubmer'", "such as {name}-%F{ext}; did you mean number?"),
        ("rotate_name='a-%Y-%D'", "in a pattern, not %D"),
        (
            "rotate_name='a-%H'",
            "expected the date, such as %F with %H: names of different times would be the same",
        ),
        ("rotate_name='%Y/a-%m'", "expected the directives in the name of the file, not in its directory"),
        ("rotate_names='number'", "did you mean rotate_name?"),
    ] {
        let error = logs(&format!("<log name='a' type='file' path='a' rotate_bytes='1MB' {attributes}/>"));
        let error = error.expect_err(attributes);
        assert!(error.message.contains(expected), "{attributes}: {error}");
    }
    let same = |name: &str, other: &str| {
        logs(&format!(
            "<g type='file' rotate_bytes='1MB'><log name='a' path='/x/a.log' rotate_name='{name}'/>
             <log name='b' path='/x/b.log' rotate_name='{other}' rotate_zone='Asia/Tokyo'/></g>"
        ))
    };
    let error = same("app-%F", "app-%F").unwrap_err().message;
    assert!(error.contains("rotated files of the log \"a\" would have the same names"), "{error}");
    assert!(same("{name}-%F", "{name}-%F").is_ok());
    assert!(same("app-%F", "app-%F.log").is_ok());
    assert!(same("number", "number").is_ok());
}

#[test]
fn rotations_that_are_of_no_use_are_warned_of() {
    let none = "has no effect without rotate_bytes, rotate_seconds, rotate_at or rotate_on_start";
    for (attributes, expected) in [
        ("compress='gzip'", Some(none)),
        ("rotate_name='number'", Some(none)),
        ("rotate_zone='utc'", Some(none)),
        ("retain_count='3'", Some(none)),
        ("compress='off' retain_count='0'", None),
        ("rotate_on_start='on' compress='gzip' retain_count='3'", None),
        ("rotate_at='daily' rotate_name='a-%Y-%m'", Some("expected a directive finer than %m")),
        ("rotate_at='hourly' rotate_name='a-%F'", Some("expected a directive finer than %d")),
        ("rotate_seconds='2h' rotate_name='a-%F'", Some("expected a directive finer than %d")),
        ("rotate_at='weekly' rotate_name='a-%Y-%m'", Some("expected a directive finer than %m")),
        ("rotate_at='weekly' rotate_name='a-%G-W%V'", None),
        ("rotate_at='monthly' rotate_name='a-%Y-%m'", None),
        ("rotate_at='daily' rotate_name='a-%Y%j' rotate_zone='utc'", None),
        ("rotate_at='daily' rotate_name='number'", None),
        ("rotate_bytes='1MB' rotate_name='a-%Y-%m'", None),
        ("rotate_bytes='1MB' rotate_zone='utc'", Some("without rotate_at or a pattern in rotate_name")),
    ] {
        let config = logs(&format!("<log name='a' type='file' path='a' {attributes}/>")).unwrap();
        match (&warnings(&config)[..], expected) {
            ([], None) => {}
            ([(.., reported)], Some(expected)) => {
                assert!(reported.contains(expected), "{attributes}: {reported}")
            }
            (reported, _) => panic!("{attributes}: {reported:?}"),
        }
    }
}
