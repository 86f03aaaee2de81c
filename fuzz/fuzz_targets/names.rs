#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::names(testkit::fuzz::Disk::chosen(), data));
