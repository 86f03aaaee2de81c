#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jlog_fuzz::requests(jlog_fuzz::Disk::chosen(), data));
