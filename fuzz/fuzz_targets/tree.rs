#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| settee_fuzz::tree(bytes));
