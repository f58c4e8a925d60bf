//! A CSV file of an earlier measurement, and what it reads as.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hallmark_tests::hostile::replay(bytes));
