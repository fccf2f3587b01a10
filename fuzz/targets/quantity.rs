#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::quantity(bytes.get(..bodies::MOST).unwrap_or(bytes));
});
