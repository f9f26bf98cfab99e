//! Words of a command line, one a line, behind those of a small run: the run is simulated without a
//! panic, or refused in words.
#![no_main]

use bench_cli::clock::Date;
use bench_cli::{args, request, run};
use libfuzzer_sys::fuzz_target;

/// A run that takes milliseconds.
const SMALL: &str = include_str!("../small.txt");

fuzz_target!(|text: &str| {
    let words = SMALL.split_whitespace().chain(text.lines());
    let Ok(given) = args::parse(words.map(String::from)) else {
        return;
    };
    if given.help {
        return;
    }
    if let Ok(prepared) = request::prepare(&given, Date::now()) {
        let _ = run::simulate(prepared.first());
    }
});
