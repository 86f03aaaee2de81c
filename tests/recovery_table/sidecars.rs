//! Checksums and indexes.

use jlog_core::LogId;
use jlog_core::compat::ReaderCompat;
use jlog_core::internals::read_runs;
use jlog_core::storage::{Open, Posix, Storage};

use super::{Made, Message, TIME, expect, open_and_close, record, record_at, records, run, works_on};

/// The runs of the sidecar of segment 0: offset, marker, and number of records.
fn runs(made: &Made) -> Vec<(u64, u32, usize)> {
    let sidecar = Posix.open(&made.path.join("00000000.crc"), Open::Read).unwrap();
    let runs = read_runs(&*sidecar).unwrap();
    runs.iter().map(|run| (run.offset, run.marker, run.crcs.len())).collect()
}

/// "those runs are dropped"
#[test]
fn checksums_of_more_than_there_is() {
    let [a, b, c] = ["a", "b", "c"].map(record);
    // What a power failure has left of the segment, and the runs that still describe all of it.
    let all = [(0, 1, "a"), (0, 2, "b")];
    let states = [([&a[..], &b].concat(), 2), (a.clone(), 1), (Vec::new(), 0)];
    for (left, count) in states {
        let there = &all[..count];
        let made = Made::new(0).segment(0, &left);
        let inode = made.inode("00000000");
        let behind = run(17, 2, inode, TIME, &[b.clone(), c.clone()]);
        made.write("00000000.crc", [run(0, 1, inode, TIME, std::slice::from_ref(&a)), behind].concat());
        assert_eq!(runs(&made), [(0, 1, 1), (17, 2, 2)]);
        let log = made.open();
        expect(&log, there);
        assert_eq!(open_and_close(&log), []);
        if count == 0 {
            assert!(!made.is_there("00000000.crc"));
        } else {
            assert_eq!(runs(&made), [(0, 1, 1)]);
        }
        assert_eq!(made.read("00000000"), left);
        let marker = u32::try_from(there.len()).unwrap() + 1;
        works_on(&log, there, (0, marker));
    }
}

/// "they accuse nobody"
#[test]
fn checksums_of_other_records() {
    let [a, b, c] = ["a", "b", "c"].map(record);
    let later = |body| record_at(TIME + 100, body);
    let abc = [a.clone(), b.clone(), c.clone()];
    let cut = [&a[..], &later("of another length")].concat();
    let replaced = [&a[..], &later("B"), &later("C")].concat();
    let moved = [&b[..], &c].concat();
    let moved_and_more = [&b[..], &c, &later("d")].concat();
    let states: [(&str, Vec<u8>, &[Message<'_>]); 4] = [
        ("cut, and others behind", cut, &[(0, 1, "a"), (0, 2, "of another length")]),
        ("replaced by as long ones", replaced, &[(0, 1, "a"), (0, 2, "B"), (0, 3, "C")]),
        ("the first taken out", moved, &[(0, 1, "b"), (0, 2, "c")]),
        ("and as long a one behind", moved_and_more, &[(0, 1, "b"), (0, 2, "c"), (0, 3, "d")]),
    ];
    for (what, bytes, there) in states {
        // In the same file, and in another one that has taken its name.
        for same_file in [true, false] {
            let made = Made::new(0).segment(0, &bytes);
            let inode = made.inode("00000000") + u64::from(!same_file);
            made.write("00000000.crc", run(0, 1, inode, TIME + 1, &abc));
            let log = made.open();
            expect(&log, there);
            assert!(!log.verify().unwrap().is_damaged(), "{what}, the same file: {same_file}");
            assert_eq!(open_and_close(&log), [], "{what}, the same file: {same_file}");
            assert_eq!(made.read("00000000"), bytes, "{what}, the same file: {same_file}");
            expect(&log, there);
            works_on(&log, there, (0, u32::try_from(there.len()).unwrap() + 1));
            assert_eq!(made.broken(), [""; 0]);
        }
    }
}

/// "it is not used, and is rebuilt when it is needed"
#[test]
fn index_that_does_not_fit() {
    let entries = |offsets: &[u64]| offsets.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let states = [
        ("of other records", entries(&[0, 20, 40])),
        ("too long", entries(&[0, 17, 35, 54, 70])),
        ("beyond the end", entries(&[0, 17, 1 << 40])),
        ("closed too early", entries(&[0, 17, 0])),
        ("cut within an entry", entries(&[0, 17])[..13].to_vec()),
        ("zeros", vec![0; 24]),
        ("all bits set", vec![0xff; 24]),
    ];
    for (what, index) in states {
        // The subscriber has done the first two, so an index would be used to find its place.
        let made = Made::new(0).segment(0, records(&["a", "bb", "ccc"])).checkpoint(0, 2);
        made.write("00000000.idx", &index);
        let log = made.open();
        expect(&log, &[(0, 3, "ccc")]);
        assert_eq!(open_and_close(&log), [], "{what}");
        let writer = log.writer().unwrap();
        assert_eq!(writer.append("d").unwrap().id(), Some(LogId::new(0, 4)), "{what}");
        writer.close().unwrap();
        expect(&log, &[(0, 3, "ccc"), (0, 4, "d")]);
        assert_eq!(made.read("00000000.idx"), index, "{what}: nobody has needed it so far");
        let mut reader = log.reader("one").unwrap();
        let interval = reader.interval().unwrap();
        assert_eq!((interval.first, interval.last), (LogId::new(0, 3), LogId::new(0, 4)), "{what}");
        assert_eq!(made.read("00000000.idx"), entries(&[0, 17, 35, 54]), "{what}");
        drop(reader);
        works_on(&log, &[(0, 3, "ccc"), (0, 4, "d")], (0, 5));
        assert_eq!(made.broken(), [""; 0]);
    }
}
