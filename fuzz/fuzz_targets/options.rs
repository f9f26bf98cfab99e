//! Words of a command line, one a line: parsed and resolved without a panic.
#![no_main]

use bench_cli::clock::Date;
use bench_cli::{args, request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(given) = args::parse(text.lines().map(String::from)) {
        let _ = request::prepare(&given, Date::now());
    }
});
