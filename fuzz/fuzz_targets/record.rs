//! Unsound frames in a sound chain: decoding, the fold and the verdict.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hallmark_tests::hostile::record(bytes));
