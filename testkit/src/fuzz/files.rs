//! The other files of a jlog with any contents, and any names.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::unix::ffi::OsStrExt;

use jlog_core::format::{OLD_METASTORE_LEN, RecordFormat};
use jlog_core::names::{self, Kind};
use jlog_core::storage::Open;
use jlog_core::{Error, LogId, Meta, Settings, Start, SubscriberName};

use super::everything::{LAST, bodies, is_subsequence, look, read_all, read_on, try_everything, write};
use super::feed::{Feed, MESSAGES, Template, messages, record};
use super::segments::leading;
use super::{Disk, switches, take};

/// The bytes as a metastore.
///
/// Switches: 1 of a compressed jlog; 2 there is none; 128 written to before it is repaired.
pub fn metastore(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let decoded = Meta::decode(bytes);
    if let Ok(meta) = &decoded
        && bytes.len() != OLD_METASTORE_LEN
    {
        assert_eq!(meta.encode(), bytes);
    }
    let feed = Feed::new(disk, if switches & 1 != 0 { Template::Lz4 } else { Template::Plain });
    let format = feed.open().unwrap().meta().unwrap().format;
    if switches & 2 != 0 {
        feed.remove(names::METASTORE);
    } else {
        feed.put(names::METASTORE, bytes);
    }
    // If the metastore names a known layout, that one is used, whatever the segments look like.
    let named = bytes.get(12..16).and_then(|magic| magic.first_chunk::<4>());
    let named = named.and_then(|magic| RecordFormat::from_magic(u32::from_le_bytes(*magic)));
    let misled = switches & 2 == 0 && named.is_some_and(|named| named != format);
    let wanted = if misled { Vec::new() } else { messages() };
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as the checkpoint of a subscriber.
///
/// Switch: 128 written to before it is repaired.
pub fn checkpoint(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let name = SubscriberName::new("s").unwrap();
    feed.put(&name.checkpoint_file(), bytes);
    let log = feed.open().unwrap();
    // A subscriber that needs everything keeps it.
    log.subscribe("keeper", Start::Beginning).unwrap();
    let all = messages();
    if let Ok(mut reader) = log.reader(&name) {
        let got = read_on(&mut reader).expect("the segments are sound");
        let got = bodies(&got);
        assert!(all.ends_with(&got.iter().map(|body| body.to_vec()).collect::<Vec<_>>()));
        // Messages that were read can be acknowledged, unless they lie past the end of the jlog.
        match reader.commit(reader.position()) {
            Ok(()) | Err(Error::NoSuchRecord { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    try_everything(&feed, switches & 128 != 0, &all);
    log.checkpoint(&name).expect("a repaired checkpoint can be read");
}

/// The bytes as the pre-commit buffer that a writer has left, with its guard.
///
/// Switches: 1 the first 48 bytes are the guard; 2 the bytes are bodies of whole records; 4 of a
/// compressed jlog; 8 the guard is a C library's (none).
pub fn pre_commit(disk: Disk, data: &[u8]) {
    let (switches, mut bytes) = switches(data);
    let lz4 = switches & 4 != 0;
    let feed = Feed::new(disk, if lz4 { Template::Lz4 } else { Template::Buffered });
    let format = feed.open().unwrap().meta().unwrap().format;
    if switches & 1 != 0 {
        let (guard, rest) = bytes.split_at(bytes.len().min(52));
        feed.put(names::PRE_COMMIT_GUARD, guard);
        bytes = rest;
    } else if switches & 8 != 0 {
        feed.remove(names::PRE_COMMIT_GUARD);
    }
    let mut buffer = bytes.to_vec();
    if switches & 2 != 0 {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let len = usize::try_from(take(&mut bytes, 1)).unwrap().min(bytes.len());
            records.extend(record(format, &bytes[..len]));
            bytes = &bytes[len..];
        }
        buffer = u32::try_from(records.len()).unwrap().to_le_bytes().to_vec();
        buffer.extend(records);
    }
    feed.put(names::PRE_COMMIT, &buffer);
    let log = feed.open().unwrap();
    // Errors are what a damaged buffer gives.
    let _ = look(&log);
    let all = messages();
    let got = read_all(&log).expect("a buffer disturbs no reader");
    assert!(bodies(&got).iter().eq(&all), "the segments are as they were");
    if write(&log).is_ok() {
        let got = read_all(&log).unwrap();
        let got = bodies(&got);
        assert!(is_subsequence(&all, &got), "the segments keep what they have");
        assert_eq!(got.last(), Some(&LAST), "what was accepted is read");
        if switches & 9 == 8 && !lz4 && buffer.len() >= 4 {
            // Without a guard, every whole record in the buffer is new, also an intact one after
            // damage.
            let used = u32::from_le_bytes(*buffer.first_chunk::<4>().unwrap()) as usize;
            let used = used.min(buffer.len() - 4);
            let mut left: Vec<Vec<u8>> =
                leading(format, &buffer[4..4 + used]).into_iter().map(|(_, body)| body).collect();
            let whole: usize = left.iter().map(|body| format.header_len() + body.len()).sum();
            if whole < used {
                // Its length may be what is damaged.
                left.pop();
            }
            let expected: Vec<Vec<u8>> = all.iter().cloned().chain(left).chain([LAST.to_vec()]).collect();
            assert!(is_subsequence(&expected, &got), "recovered: {got:?}\nexpected: {expected:?}");
            assert!(whole < used || got.len() == expected.len(), "nothing else is there: {got:?}");
        }
    }
    try_everything(&feed, false, &all);
}

/// The bytes as settings.
///
/// Switch: 128 written to before it is repaired.
pub fn settings(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let text = String::from_utf8_lossy(bytes);
    let parsed = Settings::parse(&text);
    match &parsed {
        Ok(settings) => assert_eq!(Settings::parse(&settings.to_text()), parsed),
        Err((line, why)) => {
            assert!(*line >= 1 && *line <= text.lines().count());
            assert!(!why.is_empty());
        }
    }
    let feed = Feed::new(disk, Template::Plain);
    feed.put(names::SETTINGS, bytes);
    match feed.open() {
        Ok(log) => {
            let got = read_all(&log).unwrap();
            assert!(bodies(&got).iter().eq(&messages()));
            match write(&log) {
                Ok(written) => assert!(written),
                // The messages may be older than the settings allow.
                Err(Error::AtCapacity { .. }) => assert!(log.limits().is_some()),
                Err(e) => panic!("{e}"),
            }
            assert!(!log.verify().unwrap().is_damaged());
        }
        Err(Error::Settings { line, .. }) => assert!(line >= 1),
        Err(e) => panic!("settings are the only thing that is wrong: {e}"),
    }
    // Repair cannot know what unknown settings mean: it leaves them alone.
    let repaired = feed.options().repair(&feed.path);
    if parsed.is_ok() && bytes.len() < 1000 {
        repaired.unwrap();
        // Messages that a limit refuses or drops are not expected.
        if !parsed.is_ok_and(|settings| settings.limits.is_some()) {
            try_everything(&feed, switches & 128 != 0, &messages());
        }
    }
}

/// The bytes as the list of dropped segments, or of lost ones.
///
/// Switches: 1 their checksum is corrected; 2 they are the list of lost segments; 128 written to
/// before it is repaired.
pub fn dropped(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let mut list = if switches & 2 != 0 { b"jpl1".to_vec() } else { Vec::new() };
    list.extend_from_slice(bytes);
    if switches & 1 != 0 {
        list.extend_from_slice(&crate::crc32(&list).to_le_bytes());
    }
    let feed = Feed::new(disk, Template::Plain);
    if switches & 2 != 0 {
        let read = jlog_core::internals::Noted::parse(&list);
        assert_eq!(jlog_core::internals::Noted::parse(&read.encode()), read);
        feed.put(names::LOST, &list);
        try_everything(&feed, switches & 128 != 0, &messages());
        return;
    }
    let read = jlog_core::internals::dropped::parse(&list);
    assert_eq!(jlog_core::internals::dropped::parse(&jlog_core::internals::dropped::encode(&read)), read);
    assert!(read.len() <= list.len() / 8);
    feed.put(names::DROPPED, &list);
    try_everything(&feed, switches & 128 != 0, &messages());
}

/// The bytes as names: of files, of subscribers, of records.
///
/// Switch: 128 written to before it is repaired.
pub fn names(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let kind = Kind::of(OsStr::from_bytes(bytes));
    let text = std::str::from_utf8(bytes).ok();
    let same = match &kind {
        Kind::Segment(n) => text == Some(&names::segment(*n)),
        Kind::Index(n) => text == Some(&names::index(*n)),
        Kind::Checksums(n) => text == Some(&names::checksums(*n)),
        Kind::Checkpoint(name) => text == Some(&name.checkpoint_file()),
        _ => true,
    };
    assert!(same, "{kind:?} is not called {}", bytes.escape_ascii());
    if let Some(id) = text.and_then(|text| text.parse::<LogId>().ok()) {
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    let feed = Feed::new(disk, Template::Plain);
    let log = feed.open().unwrap();
    let wrong = bytes.is_empty() || bytes.len() > SubscriberName::MAX_LEN || bytes.contains(&0);
    match SubscriberName::new(bytes) {
        Ok(name) => {
            assert!(!wrong);
            assert_eq!(Kind::of(OsStr::new(&name.checkpoint_file())), Kind::Checkpoint(name.clone()));
            if bytes != b"s" && bytes != b"t" {
                log.subscribe(&name, Start::Beginning).unwrap();
                assert!(log.has_subscriber(&name).unwrap());
                assert_eq!(log.lag(&name).unwrap().messages, MESSAGES as u64);
                assert!(log.unsubscribe(&name).unwrap());
            }
        }
        Err(_) => assert!(wrong),
    }

    // A file with this name among those of the jlog.
    let mut file = bytes.to_vec();
    file.iter_mut().filter(|byte| matches!(**byte, b'/' | 0)).for_each(|byte| *byte = b'_');
    file.truncate(255);
    let file = OsStr::from_bytes(&file);
    let path = feed.path.join(file);
    if file.is_empty() || file == "." || file == ".." || feed.storage.facts(&path).is_ok() {
        return;
    }
    let content = b"somebody's";
    let handle = feed.storage.open(&path, Open::CreateNew(0o640)).unwrap();
    handle.write_at(&[IoSlice::new(content)], 0).unwrap();
    drop(handle);
    try_everything(&feed, switches & 128 != 0, &messages());
    if matches!(Kind::of(file), Kind::Other | Kind::Broken | Kind::Stale) {
        let mut there = [0; 100];
        let n = feed.storage.open(&path, Open::Read).unwrap().read_at(&mut there, 0).unwrap();
        assert_eq!(&there[..n], content, "files of others are left alone");
    }
}
