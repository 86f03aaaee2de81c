#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::lz4_records(testkit::fuzz::Disk::chosen(), data));
