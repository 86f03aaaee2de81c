#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::scanner(testkit::fuzz::Disk::chosen(), data));
