#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::operations(testkit::fuzz::Disk::chosen(), data));
