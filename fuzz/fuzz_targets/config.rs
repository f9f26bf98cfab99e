//! A configuration file: read and resolved without a panic.
#![no_main]

use bench_cli::{args, config};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((values, _)) = args::json::parse("a.json", text) {
        let _ = config::resolve(&args::Arguments::default(), Some(&values), "date");
    }
});
