#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::filter(testkit::fuzz::Disk::chosen(), data));
