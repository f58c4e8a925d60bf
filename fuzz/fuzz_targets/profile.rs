//! The text of a profile: accepted or refused in one clear line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hallmark_tests::hostile::profile(bytes));
