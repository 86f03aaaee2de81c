#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dropped(testkit::fuzz::Disk::chosen(), data));
