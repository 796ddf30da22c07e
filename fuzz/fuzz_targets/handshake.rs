//! Any messages as the peer's part in a handshake.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| procession_fuzz::handshake(bytes));
