//! Rotated files: their names, clocks that jump, compression, several processes.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn rotation(name: &str, zone: &str) -> Rotation {
    Rotation { name: name.parse().unwrap(), zone: zone.parse().unwrap(), ..Rotation::default() }
}

/// Seconds since 1970 of a time in a zone.
fn at(zone: &str, text: &str) -> u64 {
    let zone = jiff::tz::TimeZone::get(zone).unwrap();
    period::second(zone.to_timestamp(text.parse().unwrap()).unwrap())
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = fs::File::open(path).unwrap();
    match path.extension().and_then(|ext| ext.to_str()) {
        Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap(),
        Some("zst") => zstd::Decoder::new(file).unwrap().read_to_string(&mut text).unwrap(),
        _ => { file }.read_to_string(&mut text).unwrap(),
    };
    text
}

/// The names in a directory, and what the files have in them.
fn contents(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), unpacked(&entry.path())))
        .collect()
}

#[track_caller]
fn assert_contents(dir: &Path, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
    assert_eq!(contents(dir), expected);
}

/// Writes lines, each at a time of day in a zone.
fn write_by_day(setup: &Setup, zone: &str, lines: &[(&str, &str)]) {
    for &(time, text) in lines {
        setup.write_at(at(zone, time) - BASE, text);
    }
}

#[test]
fn days_end_at_midnight_of_the_zone_and_name_the_files() {
    let zone = "Europe/Berlin";
    NOW.set(at(zone, "2026-03-28T12:00") - BASE);
    let rotation = Rotation { at: Some(RotateAt::Daily), ..rotation("app-%Y-%m-%d.log", zone) };
    let setup = Setup::here(rotation);
    write_by_day(
        &setup,
        zone,
        &[
            ("2026-03-28T12:00", "a\n"),
            ("2026-03-28T23:59:59", "b\n"),
            ("2026-03-29T00:00", "c\n"),
            ("2026-03-29T23:59:59", "d\n"),
            ("2026-03-30T00:00", "e\n"),
            // Nothing was logged for days: it has the date of its lines.
            ("2026-10-25T00:00", "f\n"),
            ("2026-10-25T23:59:59", "g\n"),
            ("2026-10-26T00:00", "h\n"),
        ],
    );
    assert_contents(
        setup.dir.path(),
        &[
            ("app-2026-03-28.log", "a\nb\n"),
            ("app-2026-03-29.log", "c\nd\n"),
            ("app-2026-03-30.log", "e\n"),
            ("app-2026-10-25.log", "f\ng\n"),
            ("log", "h\n"),
        ],
    );
}

#[test]
fn an_hour_that_comes_twice_has_two_files_and_their_order() {
    let zone = "Europe/Berlin";
    let two = at(zone, "2026-10-25T02:00");
    NOW.set(two - BASE);
    let rotation = Rotation { at: Some(RotateAt::Hourly), retain_count: 2, ..rotation("log-%F.%H", zone) };
    let setup = Setup::here(rotation);
    for (second, text) in [
        (two - 1, "one\n"),
        (two, "two\n"),
        (two + 3599, "still\n"),
        (two + 3600, "again\n"),
        (two + 7200, "three\n"),
    ] {
        setup.write_at(second - BASE, text);
    }
    assert_contents(
        setup.dir.path(),
        &[("log-2026-10-25.02", "two\nstill\n"), ("log-2026-10-25.02.1", "again\n"), ("log", "three\n")],
    );
    // 2:00 to 2:30 does not exist.
    let zone = "Australia/Lord_Howe";
    NOW.set(at(zone, "2026-10-04T01:30") - BASE);
    let setup = Setup::here(Rotation { at: Some(RotateAt::Hourly), ..self::rotation("log-%F.%H", zone) });
    write_by_day(
        &setup,
        zone,
        &[
            ("2026-10-04T01:59:59", "a\n"),
            ("2026-10-04T02:30", "b\n"),
            ("2026-10-04T02:59:59", "c\n"),
            ("2026-10-04T03:00", "d\n"),
        ],
    );
    assert_contents(
        setup.dir.path(),
        &[("log-2026-10-04.01", "a\n"), ("log-2026-10-04.02", "b\nc\n"), ("log", "d\n")],
    );
}

#[test]
fn names_that_are_taken_get_numbers_that_go_up() {
    let zone = "UTC";
    NOW.set(at(zone, "2026-11-25T12:00") - BASE);
    let rotation = Rotation { bytes: 2, retain_count: 3, ..rotation("log-%F", zone) };
    let setup = Setup::here(rotation.clone());
    setup.write_at(NOW.get(), "a\nb\nc\nd\ne\n");
    assert_contents(
        setup.dir.path(),
        &[
            ("log-2026-11-25.1", "b\n"),
            ("log-2026-11-25.2", "c\n"),
            ("log-2026-11-25.3", "d\n"),
            ("log", "e\n"),
        ],
    );
    // Another process continues from there, also with a compressed file.
    fs::rename(setup.dir.path().join("log-2026-11-25.3"), setup.dir.path().join("moved")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(setup.dir.path().join("log-2026-11-25.3.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    gzip.write_all(b"d\n").unwrap();
    gzip.finish().unwrap();
    let setup = setup.again(rotation);
    setup.write_at(NOW.get(), "f\n");
    assert_contents(
        setup.dir.path(),
        &[
            ("log-2026-11-25.2", "c\n"),
            ("log-2026-11-25.3.gz", "d\n"),
            ("log-2026-11-25.4", "e\n"),
            ("log", "f\n"),
            ("moved", "d\n"),
        ],
    );
}

#[test]
fn numbers_go_up_over_restarts_and_leave_dates_alone() {
    let rotation = Rotation { bytes: 2, retain_count: 2, ..rotation("number", "utc") };
    let setup = Setup::new(rotation.clone());
    for other in ["log.20261101", "log.01", "log.0", "log.1700000000"] {
        fs::write(setup.dir.path().join(other), "theirs").unwrap();
    }
    setup.write_at(10_000, "a\nb\n");
    let setup = setup.again(rotation.clone());
    setup.write_at(10_000, "c\nd\n");
    let theirs = ["log.0", "log.01", "log.1700000000", "log.20261101"];
    let mut expected = theirs.map(|name| (name, "theirs")).to_vec();
    expected.extend([("log.2", "b\n"), ("log.3", "c\n"), ("log", "d\n")]);
    assert_contents(setup.dir.path(), &expected);
    assert_eq!(
        FileSink::left_alone(&setup.dir.path().join("log"), &rotation).unwrap(),
        theirs.map(|name| setup.dir.path().join(name))
    );
    // Order comes from the numbers, whatever the files' times are.
    let file = fs::File::options().append(true).open(setup.dir.path().join("log.2")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(BASE + 90_000)).unwrap();
    setup.write_at(10_000, "e\n");
    expected.retain(|(name, _)| !["log.2", "log"].contains(name));
    expected.extend([("log.4", "d\n"), ("log", "e\n")]);
    assert_contents(setup.dir.path(), &expected);
}

/// logrotate's number 1 is its newest file: programs that switch from it lose the oldest ones
/// first.
#[test]
fn what_logrotate_has_numbered_the_other_way_round_goes_in_the_order_of_its_age() {
    let rotation = Rotation { bytes: 2, retain_count: 4, ..rotation("number", "utc") };
    let setup = Setup::new(rotation.clone());
    for (name, text, age) in
        [("log.1", "a day", 1), ("log.2", "2 days", 2), ("log.3.gz", "3 days", 3), ("log.4.gz", "4 days", 4)]
    {
        let mut file = fs::File::create(setup.dir.path().join(name)).unwrap();
        if name.ends_with(".gz") {
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(text.as_bytes()).unwrap();
            file = gzip.finish().unwrap();
        } else {
            file.write_all(text.as_bytes()).unwrap();
        }
        file.set_modified(UNIX_EPOCH + Duration::from_secs(BASE - age * 86_400)).unwrap();
    }
    setup.write_at(10_000, "a\nb\n");
    assert_contents(
        setup.dir.path(),
        &[("log.1", "a day"), ("log.2", "2 days"), ("log.3.gz", "3 days"), ("log.5", "a\n"), ("log", "b\n")],
    );
    let setup = setup.again(rotation);
    setup.write_at(20_000, "c\nd\n");
    assert_contents(
        setup.dir.path(),
        &[("log.1", "a day"), ("log.5", "a\n"), ("log.6", "b\n"), ("log.7", "c\n"), ("log", "d\n")],
    );
}

#[test]
fn numbers_of_others_are_neither_continued_nor_removed_nor_compressed() {
    for compress in [None, Some(Compression::Gzip)] {
        let rotation = Rotation { bytes: 2, retain_count: 1, compress, ..rotation("number", "utc") };
        let setup = Setup::new(rotation.clone());
        let theirs = ["log.1126", "log.2020", "log.261101", "log.4711", "log.4799.gz.part"];
        for other in theirs {
            fs::write(setup.dir.path().join(other), "theirs").unwrap();
        }
        setup.write_at(10_000, "a\nb\nc\n");
        let setup = setup.again(rotation.clone());
        setup.write_at(10_000, "d\n");
        setup.sink.flush().unwrap();
        compressor::wait(Instant::now() + LONG);
        setup.sink.remove_expired().unwrap();
        let found = contents(setup.dir.path());
        for other in theirs {
            let left = found.get(other);
            assert!(
                left.is_some_and(|text| text == "theirs") || other.ends_with("part") && compress.is_none()
            );
        }
        let rotated = if compress.is_some() { "log.3.gz" } else { "log.3" };
        assert!(found.contains_key(rotated), "{found:?}");
        assert_eq!(found.len(), theirs.len() + 2, "{found:?}");
        let left = FileSink::left_alone(&setup.dir.path().join("log"), &rotation).unwrap();
        assert!(left.contains(&setup.dir.path().join("log.2020")), "{left:?}");
    }
}

#[test]
fn numbers_of_others_behind_a_date_are_left_alone_too() {
    let rotation = Rotation { bytes: 2, retain_count: 1, ..rotation("log-%F", "utc") };
    let setup = Setup::new(rotation);
    let theirs = ["log-2023-11-15.4711", "log-2023-11-15.2020", "log-2023-11-14.5000"];
    for other in theirs {
        fs::write(setup.dir.path().join(other), "theirs").unwrap();
    }
    setup.write_at(10_000, "a\nb\nc\n");
    let mut expected = theirs.map(|name| (name, "theirs")).to_vec();
    expected.extend([("log-2023-11-15.1", "b\n"), ("log", "c\n")]);
    assert_contents(setup.dir.path(), &expected);
}

#[test]
fn numbers_go_on_from_those_of_another_process() {
    for name in ["number", "log-%F"] {
        let rotation = Rotation { bytes: 2, retain_count: 2, ..rotation(name, "utc") };
        let setup = Setup::new(rotation.clone());
        let other = open(&setup.dir, rotation);
        setup.write_at(10_000, "a\n");
        other.rotate().unwrap();
        setup.sink.reopen().unwrap();
        setup.write_at(10_000, "b\nc\nd\ne\n");
        other.reopen().unwrap();
        // Its own number was the first one, and some after that are free again.
        other.rotate().unwrap();
        // What the first one still had open was none to be removed.
        setup.sink.reopen().unwrap();
        setup.sink.remove_expired().unwrap();
        let found = contents(setup.dir.path());
        let texts: Vec<&str> = found.values().map(|text| &**text).collect();
        assert_eq!(texts, ["", "d\n", "e\n"], "{name}: {found:?}");
    }
}

#[test]
fn a_clock_that_goes_back_and_comes_again_rotates_nothing() {
    let rotation = Rotation { seconds: 600, retain_count: 2, ..Rotation::default() };
    for (back, steady) in [(2_000, 10_010), (9_000, 10_010), (300, 10_010)] {
        let setup = Setup::new(rotation.clone());
        setup.write_at(9_600, "a\n");
        setup.write_at(10_200, "b\n");
        PASSED.set(Some(steady));
        // Less than an hour, or more.
        setup.write_at(10_200 - back, "c\n");
        setup.sink.tick().unwrap();
        PASSED.set(None);
        setup.write_at(10_210, "d\n");
        setup.assert_files(&[("10200", "a\n"), ("", "b\nc\nd\n")]);
        // The file's period ends when it would have ended.
        setup.write_at(10_800, "e\n");
        setup.assert_files(&[("10200", "a\n"), ("10800", "b\nc\nd\n"), ("", "e\n")]);
    }
}

#[test]
fn a_clock_that_is_wrong_by_a_year_for_a_while_costs_nothing() {
    const YEAR: u64 = 31_536_000;
    let days = Rotation { at: Some(RotateAt::Daily), zone: Zone::UTC, ..Rotation::default() };
    for rotation in
        [Rotation { retain_count: 2, ..days.clone() }, Rotation { retain_seconds: 900_000, ..days }]
    {
        let setup = Setup::new(rotation);
        setup.put(5_000, 1);
        setup.put(5_001, 1);
        let there = setup.files();
        setup.write_at(10_000, "a\n");
        PASSED.set(Some(10_100));
        for wrong in [10_100 + YEAR, 10_110 + YEAR, 10_120 + YEAR] {
            setup.write_at(wrong, "b\n");
            setup.sink.files.lock().culled = None;
            setup.sink.tick().unwrap();
        }
        PASSED.set(Some(12_000));
        setup.write_at(12_000, "c\n");
        assert_eq!(setup.files()[..2], there[..2]);
        assert_eq!(setup.files()[2].1, "a\nb\nb\nb\nc\n");
        // Where it stays so, it is believed after an hour: the machine had no time before.
        PASSED.set(Some(12_100));
        setup.write_at(12_100 + YEAR, "d\n");
        PASSED.set(Some(12_100 + 3600));
        setup.write_at(12_100 + 3600 + YEAR, "e\n");
        assert_eq!(setup.files().last().unwrap().1, "e\n");
        PASSED.set(None);
    }
}

/// The names of a day's files say only the day, and a file from the future was written in it, too.
#[test]
fn names_from_the_future_do_not_make_files_newer_than_those_of_the_same_day() {
    for name in ["log-%F", "log-%F.%H", "log-%G-%V", "log-%Y"] {
        let setup = Setup::new(Rotation { bytes: 2, retain_count: 3, ..rotation(name, "UTC") });
        let names = Names::new(&rotation(name, "UTC"), &setup.dir.path().join("log"));
        for n in 0..3 {
            let future = names.path(&names.base(4_102_444_800), n);
            touch(&future, BASE + 10_000);
        }
        let old = names.path(&names.base(BASE - 70_000_000), 0);
        touch(&old, BASE - 70_000_000);
        setup.write_at(10_000, "a\nb\nc\nd\n");
        let kept: Vec<String> = contents(setup.dir.path()).into_values().collect();
        assert_eq!(kept, ["d\n", "a\n", "b\n", "c\n"], "{name}: {:?}", contents(setup.dir.path()));
        // Of those that are not from today, the ones from the future are newer.
        touch(&names.path(&names.base(4_102_444_800), 0), BASE - 30_000_000);
        touch(&old, BASE - 70_000_000);
        for entry in fs::read_dir(setup.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if fs::metadata(&path).unwrap().len() > 0 && !path.ends_with("log") {
                fs::remove_file(path).unwrap();
            }
        }
        setup.write_at(10_001, "e\nf\n");
        assert!(names.path(&names.base(4_102_444_800), 0).exists() && !old.exists(), "{name}");
    }
}

#[test]
fn a_clock_that_was_ahead_when_the_file_was_begun_does_not_keep_it_for_ever() {
    let setup = Setup::new(Rotation { seconds: 600, ..Rotation::default() });
    setup.write_at(900_000, "a\n");
    PASSED.set(Some(900_010));
    setup.write_at(20_000, "b\n");
    // An hour later it is believed, and the period of the clock is that of the file.
    PASSED.set(Some(903_620));
    setup.write_at(23_610, "c\n");
    PASSED.set(Some(904_210));
    setup.write_at(24_210, "d\n");
    PASSED.set(None);
    setup.assert_files(&[("24210", "a\nb\nc\n"), ("", "d\n")]);
}

#[test]
fn what_is_there_is_rotated_at_the_start_of_a_process_and_only_then() {
    let rotation = Rotation { on_start: true, ..Rotation::default() };
    NOW.set(10_000);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "before\n").unwrap();
    let setup = Setup { sink: open(&dir, rotation.clone()), dir };
    setup.sink.begin().unwrap();
    setup.write_at(10_000, "a\n");
    setup.assert_files(&[("10000", "before\n"), ("", "a\n")]);
    // A configuration that is read again opens it again.
    let setup = setup.again(rotation.clone());
    setup.sink.begin().unwrap();
    setup.write_at(10_001, "b\n");
    setup.assert_files(&[("10000", "before\n"), ("", "a\nb\n")]);
    // Of an empty file there is nothing to rotate.
    let setup = Setup::new(rotation);
    setup.sink.begin().unwrap();
    setup.assert_files(&[("", "")]);
}

fn wait(setup: &Setup) {
    compressor::wait(Instant::now() + LONG);
    assert!(setup.sink.trouble().is_none());
}

#[test]
fn rotated_files_are_compressed_and_counted_as_they_are() {
    for (method, suffix) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
        let line = format!("{}\n", "x".repeat(50_000));
        // Four of them are small enough when they are compressed, and not before.
        let rotation = Rotation {
            bytes: 50_000,
            compress: Some(method),
            retain_bytes: 101_000,
            ..rotation("number", "utc")
        };
        let setup = Setup::new(rotation);
        let log = setup.dir.path().join("log");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o640)).unwrap();
        let given = std::os::unix::fs::chown(&log, Some(12_345), Some(23_456)).is_ok();
        for _ in 0..5 {
            setup.write_at(10_000, &line);
            wait(&setup);
        }
        let names = ["log.1", "log.2", "log.3", "log.4"].map(|name| format!("{name}.{suffix}"));
        let mut expected: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &*line)).collect();
        expected.push(("log", &line));
        assert_contents(setup.dir.path(), &expected);
        for name in &names {
            let facts = fs::metadata(setup.dir.path().join(name)).unwrap();
            assert!(facts.len() < 1000, "{}", facts.len());
            assert_eq!(facts.mode() & 0o7777, 0o640);
            assert!(!given || (facts.uid(), facts.gid()) == (12_345, 23_456));
        }
    }
}

#[test]
fn count_and_age_are_those_of_compressed_files_too() {
    let compressed = |name: &Path| {
        let mut encoder =
            flate2::write::GzEncoder::new(fs::File::create(name).unwrap(), flate2::Compression::fast());
        encoder.write_all(b"old\n").unwrap();
        encoder.finish().unwrap();
    };
    for limit in [
        Rotation { retain_count: 2, ..Rotation::default() },
        Rotation { retain_seconds: 500, ..Rotation::default() },
    ] {
        let setup = Setup::new(Rotation { compress: Some(Compression::Zstd), ..limit });
        // It has nothing to compress, and removes nothing when it is opened.
        wait(&setup);
        for second in [9_000, 9_600, 9_700] {
            compressed(&setup.dir.path().join(format!("log.{}.gz", BASE + second)));
        }
        // Of one that no rotation has made nothing is known.
        fs::write(setup.dir.path().join("log.9.gz"), "theirs").unwrap();
        assert_eq!(setup.sink.remove_expired().unwrap(), 1);
        let names: Vec<String> = fs::read_dir(setup.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() > 10)
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(!names.iter().any(|name| name.contains(&(BASE + 9_000).to_string())), "{names:?}");
        assert!(setup.dir.path().join("log.9.gz").exists());
    }
}

#[test]
fn what_a_crash_left_is_finished_or_discarded() {
    let rotation = Rotation { compress: Some(Compression::Gzip), ..rotation("number", "utc") };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let gzip = |name: &str, text: &str| {
        let mut encoder =
            flate2::write::GzEncoder::new(fs::File::create(file(name)).unwrap(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    };
    NOW.set(10_000);
    // The copy is whole, and the original was not removed yet.
    fs::write(file("log.1"), "one\n").unwrap();
    gzip("log.1.gz", "one\n");
    // The copy was being made.
    fs::write(file("log.2"), "two\n").unwrap();
    fs::write(file("log.2.gz.part"), "half").unwrap();
    // The original was removed meanwhile.
    fs::write(file("log.3.gz.part"), "half").unwrap();
    let setup = Setup { sink: open(&dir, rotation.clone()), dir };
    wait(&setup);
    assert_contents(setup.dir.path(), &[("log.1.gz", "one\n"), ("log.2.gz", "two\n"), ("log", "")]);
    // What has the name of the copy and is none stays, and so does the file.
    let Setup { sink, dir } = setup;
    drop(sink);
    let file = |name: &str| dir.path().join(name);
    for (text, copy) in
        [("three\n", "other\n"), ("three\n", "three\nand more\n"), ("three\nand more\n", "three\n")]
    {
        fs::write(file("log.3"), text).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(
            fs::File::create(file("log.3.gz")).unwrap(),
            flate2::Compression::fast(),
        );
        encoder.write_all(copy.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let sink = open(&dir, rotation.clone());
        compressor::wait(Instant::now() + LONG);
        let trouble = sink.trouble().unwrap().to_string();
        assert!(trouble.contains("log.3.gz: it exists already"), "{trouble}");
        let found = contents(dir.path());
        assert_eq!((&*found["log.3"], &*found["log.3.gz"]), (text, copy));
    }
}

#[test]
fn a_file_that_somebody_writes_to_is_not_compressed() {
    let rotation = Rotation { bytes: 2, compress: Some(Compression::Gzip), ..rotation("number", "utc") };
    let setup = Setup::new(rotation.clone());
    let other = open(&setup.dir, rotation);
    let put = |text: &str| {
        other.write(&Lines { bytes: text.as_bytes(), ends: &[(text.len(), 0)], start: 0 }).unwrap();
    };
    // It has just asked whether the file is still there.
    put("x");
    setup.write_at(10_000, "a\nb\n");
    compressor::wait(Instant::now() + LONG);
    // It does not know of the rotation yet.
    put("-");
    assert_contents(setup.dir.path(), &[("log.1", "xa\n-"), ("log", "b\n")]);
    other.reopen().unwrap();
    let left =
        std::mem::replace(&mut setup.sink.keeper.kept.lock().left, Instant::now().checked_sub(CULL_EVERY));
    assert!(left.is_some(), "it is tried again");
    setup.sink.tick().unwrap();
    wait(&setup);
    assert_contents(setup.dir.path(), &[("log.1.gz", "xa\n-"), ("log", "b\n")]);
}

/// A sink that was opened while another one had the file, and gets its first line after that one
/// has rotated it, begins with the new file.
#[test]
fn the_first_line_goes_to_the_file_that_is_there_then() {
    let rotation = Rotation { bytes: 2, ..rotation("number", "utc") };
    let setup = Setup::new(rotation.clone());
    let next = open(&setup.dir, rotation);
    setup.write_at(10_000, "a\nb\n");
    let text = "c\n";
    next.write(&Lines { bytes: text.as_bytes(), ends: &[(text.len(), 0)], start: 0 }).unwrap();
    assert_contents(setup.dir.path(), &[("log.1", "a\n"), ("log.2", "b\n"), ("log", "c\n")]);
}

#[test]
fn a_full_disk_leaves_the_original_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: a file system cannot be mounted here");
        return;
    }
    let unmount = || Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    // It cannot be made smaller.
    let mut random = 88_172_645_463_325_252_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[4]
    })
    .take(600_000)
    .collect();
    fs::write(dir.path().join("log.1"), &bytes).unwrap();
    let rotation = Rotation { compress: Some(Compression::Zstd), ..rotation("number", "utc") };
    let sink = open(&dir, rotation);
    compressor::wait(Instant::now() + LONG);
    let trouble = sink.trouble().unwrap().to_string();
    assert!(trouble.contains("No space left") && trouble.contains("log.1 is not compressed"), "{trouble}");
    assert_eq!(fs::read(dir.path().join("log.1")).unwrap(), bytes);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing half made stays");
    // There is room again.
    let room = fs::metadata(dir.path().join("log.1")).is_ok()
        && Command::new("mount").args(["-o", "remount,size=4m"]).arg(dir.path()).status().unwrap().success();
    assert!(room);
    sink.keeper.kept.lock().left = Instant::now().checked_sub(CULL_EVERY);
    sink.tick().unwrap();
    compressor::wait(Instant::now() + LONG);
    let mut text = Vec::new();
    let copy = fs::File::open(dir.path().join("log.1.zst")).unwrap();
    zstd::Decoder::new(copy).unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text, bytes);
    assert!(!dir.path().join("log.1").exists());
    drop(sink);
    unmount();
}

#[test]
fn a_file_that_is_removed_when_its_copy_is_there_is_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..50 {
        let original = dir.path().join(format!("log.{n}"));
        fs::write(&original, "x\n".repeat(1000)).unwrap();
        let copy = dir.path().join(format!("log.{n}.gz"));
        std::thread::scope(|scope| {
            // As retention does in another thread.
            scope.spawn(|| {
                while original.exists() && !copy.exists() {
                    std::hint::spin_loop();
                }
                let _ = fs::remove_file(&original);
            });
            let outcome = compress::compress(&original, Compression::Gzip).unwrap();
            assert_eq!(outcome, compress::Outcome::Done);
        });
        assert_eq!(unpacked(&copy), "x\n".repeat(1000));
        assert!(!original.exists());
    }
}

#[test]
fn a_name_is_never_taken_from_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for rename in [rename_to_new, rename::link_to_new] {
        fs::write(&from, "from").unwrap();
        fs::write(&to, "to").unwrap();
        assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_contents(dir.path(), &[("from", "from"), ("to", "to")]);
        fs::remove_file(&to).unwrap();
        rename(&from, &to).unwrap();
        assert_contents(dir.path(), &[("to", "from")]);
    }
}

#[test]
fn a_rotation_that_was_cut_short_between_two_names_is_finished() {
    let rotation = Rotation { bytes: 2, ..Rotation::default() };
    let setup = Setup::new(rotation.clone());
    setup.write_at(10_000, "a\n");
    fs::hard_link(setup.dir.path().join("log"), setup.rotated(10_000)).unwrap();
    let setup = setup.again(rotation);
    setup.write_at(10_001, "b\nc\n");
    setup.assert_files(&[("10000", "a\n"), ("10001", "b\n"), ("", "c\n")]);
}

/// Each has its own lock and sink, as processes have.
#[test]
fn several_that_rotate_one_file_lose_and_split_nothing() {
    const LINES: usize = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rotation =
        Rotation { bytes: 2_000, compress: Some(Compression::Zstd), ..rotation("{name}-%F", "utc") };
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (path, rotation) = (&path, &rotation);
            scope.spawn(move || {
                let sink = FileSink::open(path, rotation.clone(), false).unwrap();
                for n in 0..LINES {
                    let line = format!("{writer} {n}\n");
                    sink.write(&Lines { bytes: line.as_bytes(), ends: &[(line.len(), 0)], start: 0 })
                        .unwrap();
                }
            });
        }
    });
    // Whatever could not be compressed while others had it open is, once more.
    let sink = FileSink::open(&path, rotation, false).unwrap();
    compressor::wait(Instant::now() + LONG);
    assert!(sink.trouble().is_none());
    let found = contents(dir.path());
    let mut lines: Vec<&str> = found.values().flat_map(|text| text.lines()).collect();
    lines.sort_unstable();
    let mut expected: Vec<String> =
        (0..3).flat_map(|writer| (0..LINES).map(move |n| format!("{writer} {n}"))).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    let rotated = found.iter().filter(|(name, _)| *name != "log");
    assert!(rotated.clone().count() > 5);
    for (name, text) in rotated {
        assert!(name.ends_with(".zst"), "{name}");
        assert!(text.len() >= 2_000, "{name} was rotated too early: {}", text.len());
    }
}

#[test]
fn a_directory_that_is_missing_keeps_the_file_growing() {
    let rotation = Rotation { bytes: 2, ..rotation("old/{name}-%F", "utc") };
    let setup = Setup::new(rotation);
    setup.write_at(10_000, "a\nb\n");
    let trouble = setup.sink.trouble().unwrap().to_string();
    assert!(trouble.contains("old/log-2023-11-15") && trouble.contains("keeps growing"), "{trouble}");
    assert_contents(setup.dir.path(), &[("log", "a\nb\n")]);
    fs::create_dir(setup.dir.path().join("old")).unwrap();
    setup.sink.rotate().unwrap();
    assert_contents(setup.dir.path(), &[("log", "")]);
    assert_contents(&setup.dir.path().join("old"), &[("log-2023-11-15", "a\nb\n")]);
}

/// A directory in which nothing can be made, renamed or removed, by root either.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn make(path: &'a Path) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(path).output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(path))
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        // It stays where it is then.
        let _ = Command::new("chattr").arg("-i").arg(self.0).status();
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_costs_no_line() {
    let rotation = Rotation { bytes: 2, compress: Some(Compression::Gzip), ..rotation("number", "utc") };
    let setup = Setup::new(rotation);
    // Nothing else is on its way.
    wait(&setup);
    fs::write(setup.dir.path().join("log.1"), "one\n").unwrap();
    let Some(immutable) = Immutable::make(setup.dir.path()) else {
        eprintln!("skipped: no directory can be made immutable here");
        return;
    };
    setup.write_at(10_000, "a\nb\n");
    let trouble = setup.sink.trouble().unwrap().to_string();
    assert!(trouble.contains("not permitted") && trouble.contains("keeps growing"), "{trouble}");
    setup.sink.order_compression(&mut setup.sink.files.lock());
    compressor::wait(Instant::now() + LONG);
    let trouble = setup.sink.trouble().unwrap().to_string();
    assert!(trouble.contains("log.1 is not compressed"), "{trouble}");
    assert_contents(setup.dir.path(), &[("log.1", "one\n"), ("log", "a\nb\n")]);
    drop(immutable);
    setup.sink.files.lock().current.as_mut().unwrap().retry = None;
    setup.write_at(10_000, "c\n");
    wait(&setup);
    assert_contents(setup.dir.path(), &[("log.1.gz", "one\n"), ("log.2.gz", "a\nb\n"), ("log", "c\n")]);
}
