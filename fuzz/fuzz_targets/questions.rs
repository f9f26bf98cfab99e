//! A file of questions: read and cut into features without a panic.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use bench_cli::data::{benchmark, questions};
use bert_model::config::Mode;
use bert_model::data::squad::{self, Example};
use bert_model::data::{Case, Tokeniser, Vocabulary};
use libfuzzer_sys::fuzz_target;

static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| Vocabulary::parse(benchmark::VOCABULARY).expect("it ships"));
static TOKENISER: LazyLock<Tokeniser> = LazyLock::new(|| Tokeniser::new(&VOCABULARY, Case::Lower));

fuzz_target!(|text: &str| {
    let Ok(found) = questions::parse(Path::new("questions.json"), text) else {
        return;
    };
    for mode in [Mode::Training, Mode::Inference] {
        let examples = found.iter().map(|question| Example::read(question, mode));
        let examples: Vec<Example> = examples.flatten().flatten().collect();
        squad::features(&examples, &TOKENISER, &VOCABULARY, 128).expect("there is room");
    }
});
