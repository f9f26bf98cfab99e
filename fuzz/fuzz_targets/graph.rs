//! A graph as text: read without a panic, and what can be read reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use popart_graph::{text, verify};

fuzz_target!(|source: &str| {
    if let Ok(graph) = text::parse(source) {
        assert_eq!(text::parse(&text::print(&graph)), Ok(graph.clone()));
        let _ = verify::verify(&graph, verify::Form::Logical);
    }
});
