#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::config(bytes.get(..bodies::MOST).unwrap_or(bytes));
});
