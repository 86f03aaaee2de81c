#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::pre_commit(testkit::fuzz::Disk::chosen(), data));
