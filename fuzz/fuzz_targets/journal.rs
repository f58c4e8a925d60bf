//! The file of a journal: headers, checks, chain and frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hallmark_tests::hostile::journal(bytes));
