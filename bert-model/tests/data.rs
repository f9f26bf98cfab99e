//! Data against what the published application makes of the same text.
//!
//! The golden files are not part of the repository: `IPU_BENCH_GOLDEN` names their folder, beside
//! which lie the text and the vocabulary they were made of. Without it every test is reported as
//! ignored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bert_model::config::Mode;
use bert_model::data::squad::{self, Answer, Example, Feature, Question};
use bert_model::data::{
    Case, Corpus, Field, Recipe, Record, RecordLayout, RecordMaker, Token, Tokeniser, Vocabulary,
};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

fn main() -> ExitCode {
    let golden = std::env::var_os("IPU_BENCH_GOLDEN").map(PathBuf::from);
    let trial = |name: &str, test: fn(&Path)| {
        let folder = golden.clone();
        let run = move || {
            test(&folder.expect("ignored without it"));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(golden.is_none())
    };
    let trials = vec![
        trial("tokens_of_every_case", tokens_of_every_case),
        trial(
            "golden_records_keep_our_rules",
            golden_records_keep_our_rules,
        ),
        trial(
            "our_records_are_like_the_golden_ones",
            our_records_are_like_the_golden_ones,
        ),
        trial("features_of_questions", features_of_questions),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn text_of(golden: &Path, name: &str) -> String {
    std::fs::read_to_string(golden.join(name)).unwrap()
}

fn google_vocabulary(golden: &Path) -> Vocabulary {
    Vocabulary::parse(&text_of(golden, "../bert-base-uncased-vocab.txt")).unwrap()
}

fn tokens_of_every_case(golden: &Path) {
    let vocabulary = google_vocabulary(golden);
    let cases: Vec<Value> = serde_json::from_str(&text_of(golden, "tokeniser_cases.json")).unwrap();
    assert!(!cases.is_empty());
    for (case, key) in [(Case::Lower, "lower"), (Case::Keep, "nolower")] {
        let tokeniser = Tokeniser::new(&vocabulary, case);
        for golden in &cases {
            let text = golden["text"].as_str().unwrap();
            let ids = tokeniser.encode(text);
            let tokens: Vec<&str> = ids
                .iter()
                .map(|&id| vocabulary.token(id).unwrap())
                .collect();
            assert_eq!(Value::from(tokens), golden[key], "{text:?}");
            if case == Case::Lower {
                assert_eq!(Value::from(ids), golden["lower_ids"], "{text:?}");
            }
        }
    }
}

/// A golden file of records and what it was made of.
struct Golden {
    file: &'static str,
    vocabulary: Vocabulary,
    text: String,
    case: Case,
    layout: RecordLayout,
    pad_position: u32,
    copies: u64,
    /// The original stopped at so many records, which is fewer than it could have made.
    cut: bool,
}

fn golden_files(golden: &Path) -> Vec<Golden> {
    let text = text_of(golden, "../sample_text.txt");
    let sample = |file, sequence_length, mask_tokens| Golden {
        file,
        vocabulary: google_vocabulary(golden),
        text: text.clone(),
        case: Case::Lower,
        layout: RecordLayout {
            sequence_length,
            mask_tokens,
        },
        pad_position: 384,
        copies: 6,
        cut: false,
    };
    let lines: Vec<&str> = text.lines().take(20).collect();
    vec![
        sample("sample_text_s128_m20_d6.bin", 128, 20),
        sample("sample_text_s384_m56_d6.bin", 384, 56),
        Golden {
            vocabulary: Vocabulary::parse(&text_of(golden, "sample_20_lines_vocab.txt")).unwrap(),
            text: lines.join("\n"),
            pad_position: 32,
            copies: 1,
            cut: true,
            ..sample("sample_20_lines_s32_m2.bin", 32, 2)
        },
    ]
}

impl Golden {
    fn corpus(&self) -> Corpus {
        Corpus::of_text(&self.text, &Tokeniser::new(&self.vocabulary, self.case))
    }

    fn records(&self, folder: &Path) -> Vec<Record> {
        let bytes = std::fs::read(folder.join(self.file)).unwrap();
        assert_eq!(bytes.len() % self.layout.bytes(), 0);
        bytes
            .chunks_exact(self.layout.bytes())
            .map(|bytes| Record::from_bytes(self.layout, bytes).unwrap())
            .collect()
    }

    fn ours(&self, copies: u64) -> Vec<Record> {
        let maker = self.maker();
        (0..copies).flat_map(|copy| maker.copy(copy)).collect()
    }

    fn maker(&self) -> RecordMaker<'_> {
        let recipe = Recipe {
            layout: self.layout,
            mask_probability: 0.15,
            short_sequence_probability: 0.1,
            pad_position: self.pad_position,
            seed: 1984,
        };
        RecordMaker::new(self.corpus(), &self.vocabulary, recipe).unwrap()
    }

    /// Standard deviation of the number of records that a copy gives.
    fn spread(&self, copies: u64) -> f64 {
        let mean = self.ours(copies).len() as f64 / copies as f64;
        let maker = self.maker();
        let squares = (0..copies).map(|copy| (maker.copy(copy).len() as f64 - mean).powi(2));
        (squares.sum::<f64>() / copies as f64).sqrt()
    }

    /// Checks the form of a record, that its words are words of the text, and that its parts
    /// follow each other there if it says so.
    fn check(&self, record: &Record, documents: &[Vec<u32>]) {
        let vocabulary = &self.vocabulary;
        assert_eq!(record.fault(), None);
        let tokens = record.in_text_order();
        let [masked, end] = [Field::Masked, Field::End].map(|field| record.get(field)[0] as usize);
        let (s, m) = (
            self.layout.sequence_length as usize,
            self.layout.mask_tokens as usize,
        );
        assert!(masked >= 1 && masked <= m && end <= s && end > m);
        assert!(
            (0..)
                .zip(&tokens)
                .all(|(place, token)| token.position == place)
        );
        let unused = (masked..m).chain(end..s);
        for slot in unused {
            let fields = [Field::Words, Field::Positions, Field::Segments];
            let values = fields.map(|field| record.get(field)[slot]);
            assert_eq!(values, [0, self.pad_position, 0], "slot {slot}");
        }
        assert!(
            record.get(Field::Labels)[masked..]
                .iter()
                .all(|&label| label == 0)
        );
        let positions = &record.get(Field::Positions)[..masked];
        assert!(
            positions.is_sorted(),
            "masked words in the order of the text"
        );
        assert_eq!(masked, masks_of(tokens.len(), self.layout));

        let was = |token: &Token| token.label.unwrap_or(token.word);
        let words: Vec<u32> = tokens.iter().map(was).collect();
        let second = tokens.iter().position(|token| token.segment == 1).unwrap();
        assert!(tokens[second..].iter().all(|token| token.segment == 1));
        let (first, second) = words.split_at(second);
        let [classifier, first @ .., separator] = first else {
            panic!("no first part: {first:?}");
        };
        let [second @ .., last] = second else {
            panic!("no second part");
        };
        let special = [*classifier, *separator, *last];
        let expected = [
            vocabulary.classifier,
            vocabulary.separator,
            vocabulary.separator,
        ];
        assert_eq!(special, expected);
        let places = |part: &[u32]| -> Vec<(usize, usize)> {
            let in_document = |(number, document): (usize, &Vec<u32>)| {
                let places = document.windows(part.len()).enumerate();
                let found = places.filter(|(_, window)| *window == part);
                found.map(|(place, _)| (number, place)).collect::<Vec<_>>()
            };
            documents.iter().enumerate().flat_map(in_document).collect()
        };
        let (of_first, of_second) = (places(first), places(second));
        assert!(
            !of_first.is_empty() && !of_second.is_empty(),
            "not of the text"
        );
        if record.get(Field::RandomNext) == [0] {
            let follows = of_first.iter().any(|(document, place)| {
                let behind = place + first.len();
                let mut found = of_second.iter();
                found.any(|(other, place)| other == document && *place >= behind)
            });
            assert!(follows, "the second part follows the first nowhere");
        } else {
            assert_eq!(record.get(Field::RandomNext), [1]);
        }
    }

    fn documents(&self) -> Vec<Vec<u32>> {
        let tokeniser = Tokeniser::new(&self.vocabulary, self.case);
        let documents = self.text.split("\n\n");
        documents
            .map(|document| {
                document
                    .lines()
                    .flat_map(|line| tokeniser.encode(line))
                    .collect()
            })
            .collect()
    }
}

fn masks_of(length: usize, layout: RecordLayout) -> usize {
    let (s, m) = (layout.sequence_length as usize, layout.mask_tokens as usize);
    let share = (length as f64 * 0.15).round_ties_even() as usize;
    share.max(1).min(m).max((length + m).saturating_sub(s))
}

fn golden_records_keep_our_rules(golden: &Path) {
    for file in golden_files(golden) {
        let documents = file.documents();
        let records = file.records(golden);
        assert!(!records.is_empty());
        records
            .iter()
            .for_each(|record| file.check(record, &documents));
        file.ours(20)
            .iter()
            .for_each(|record| file.check(record, &documents));
    }
}

/// What is counted over many records, as shares.
struct Shares {
    /// Records of a copy.
    records: f64,
    /// Words of a record.
    length: f64,
    /// Masked words that are hidden, and that stay as they are.
    hidden: f64,
    kept: f64,
    /// Records whose second part is a random one.
    random_next: f64,
}

impl Shares {
    fn of(records: &[Record], copies: u64, mask: u32) -> Self {
        let count = records.len() as f64;
        let tokens: Vec<Token> = records.iter().flat_map(Record::in_text_order).collect();
        let masked: Vec<&Token> = tokens
            .iter()
            .filter(|token| token.label.is_some())
            .collect();
        let share = |rule: &dyn Fn(&Token) -> bool| {
            masked.iter().filter(|token| rule(token)).count() as f64 / masked.len() as f64
        };
        let random = records
            .iter()
            .map(|record| record.get(Field::RandomNext)[0]);
        Self {
            records: count / copies as f64,
            length: tokens.len() as f64 / count,
            hidden: share(&|token| token.word == mask),
            kept: share(&|token| token.label == Some(token.word)),
            random_next: f64::from(random.sum::<u32>()) / count,
        }
    }
}

fn our_records_are_like_the_golden_ones(golden: &Path) {
    for file in golden_files(golden) {
        let mask = file.vocabulary.mask;
        let theirs = Shares::of(&file.records(golden), file.copies, mask);
        let copies = 400;
        let ours = Shares::of(&file.ours(copies), copies, mask);
        let near = |what: &str, ours: f64, theirs: f64, within: f64| {
            let name = file.file;
            assert!(
                (ours - theirs).abs() <= within,
                "{name}: {what}: {ours}, golden {theirs}"
            );
        };
        // Three standard deviations of what so few golden records can be off.
        let golden_records = theirs.records * file.copies as f64;
        let of_records = 3.0 * (0.25 / golden_records).sqrt();
        let slots = golden_records * f64::from(file.layout.mask_tokens);
        let of_slots = |share: f64| 3.0 * (share * (1.0 - share) / slots).sqrt() + 0.02;
        near("hidden", ours.hidden, theirs.hidden, of_slots(0.8));
        near("kept", ours.kept, theirs.kept, of_slots(0.1));
        near(
            "random next",
            ours.random_next,
            theirs.random_next,
            of_records,
        );
        near("length", ours.length, theirs.length, 0.15 * theirs.length);
        if !file.cut {
            // So few copies of so short a text may differ by as much.
            let of_copies = 3.0 * file.spread(copies) / (file.copies as f64).sqrt();
            near("records", ours.records, theirs.records, of_copies);
        }
        // The rule that the original's own long test has for files of its kind.
        near("hidden or replaced", 1.0 - ours.hidden, 0.2, 0.01);
    }
}

fn questions(text: &str) -> Vec<Question> {
    let file: Value = serde_json::from_str(text).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let articles = list(&file["data"]).into_iter();
    let paragraphs = articles.flat_map(|article| list(&article["paragraphs"]));
    let read = |paragraph: Value| {
        let question = |asked: &Value| Question {
            id: text(&asked["id"]),
            question: text(&asked["question"]),
            context: text(&paragraph["context"]),
            answers: list(&asked["answers"])
                .iter()
                .map(|answer| Answer {
                    text: text(&answer["text"]),
                    start: answer["answer_start"].as_u64().unwrap() as usize,
                })
                .collect(),
        };
        list(&paragraph["qas"])
            .iter()
            .map(question)
            .collect::<Vec<_>>()
    };
    paragraphs.flat_map(read).collect()
}

/// Examples and features of one of the tiny files.
fn tiny(golden: &Path, mode: Mode, sequence_length: u32) -> (Vec<Example>, Vec<Feature>) {
    let name = match mode {
        Mode::Training => "../tiny_squad_train_v1.1.json",
        Mode::Inference => "../tiny_squad_dev_v1.1.json",
    };
    let vocabulary = google_vocabulary(golden);
    let tokeniser = Tokeniser::new(&vocabulary, Case::Lower);
    let read = |question: &Question| Example::read(question, mode).unwrap().unwrap();
    let examples: Vec<Example> = questions(&text_of(golden, name)).iter().map(read).collect();
    let features = squad::features(&examples, &tokeniser, &vocabulary, sequence_length).unwrap();
    (examples, features)
}

fn features_of_questions(golden: &Path) {
    let expected: Value =
        serde_json::from_str(&text_of(golden, "tiny_squad_features.json")).unwrap();
    for (key, mode, sequence_length) in [
        ("train_128", Mode::Training, 128),
        ("train_384", Mode::Training, 384),
        ("dev_128", Mode::Inference, 128),
        ("dev_384", Mode::Inference, 384),
    ] {
        let (_, features) = tiny(golden, mode, sequence_length);
        let ours: Vec<Value> = features
            .iter()
            .map(|feature| {
                serde_json::json!({
                    "unique_id": feature.unique_id,
                    "example_index": feature.example,
                    "doc_span_index": feature.window,
                    "input_ids": feature.input_ids,
                    "segment_ids": feature.segments,
                    "padding_start_index": feature.padding_start,
                    "start_position": feature.answer.map(|(start, _)| start),
                    "end_position": feature.answer.map(|(_, end)| end),
                    "max_context": [feature.max_context.start, feature.max_context.len()],
                })
            })
            .collect();
        assert!(!ours.is_empty());
        assert_eq!(Value::from(ours), expected[key], "{key}");
    }
}
