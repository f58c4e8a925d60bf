//! What comes over the pipe between a run and a worker, both ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hallmark_tests::hostile::message(bytes));
