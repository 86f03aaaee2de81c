#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::syslog(testkit::fuzz::Disk::chosen(), data));
