//! A vocabulary, which then reads itself as text: without a panic, and every word gets numbers
//! of the vocabulary.
#![no_main]

use bert_model::data::{Case, Tokeniser, Vocabulary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(vocabulary) = Vocabulary::parse(text) {
        let ids = Tokeniser::new(&vocabulary, Case::Lower).encode(text);
        assert!(ids.iter().all(|id| *id < vocabulary.size()));
    }
});
