#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::checksums(testkit::fuzz::Disk::chosen(), data));
