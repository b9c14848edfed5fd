#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_parser_tests::addresses_annotation(bytes));
