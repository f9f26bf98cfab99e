//! No input makes a parser panic: options, configurations, machine descriptions, graphs as text,
//! records, questions and vocabularies.
//!
//! Inputs are random, and near misses: what is right, with a few characters changed, or a file cut
//! short. `fuzz/` has the same targets for runs without end (`cargo xtask fuzz`).

use std::path::Path;
use std::sync::OnceLock;

use bench_cli::clock::Date;
use bench_cli::data::{benchmark, inspect, questions};
use bench_cli::{args, config, request, run};
use bench_core::compile::compile;
use bert_model::config::Mode;
use bert_model::data::squad::{self, Example};
use bert_model::data::{Case, Corpus, Recipe, Record, RecordLayout, RecordMaker};
use bert_model::data::{Tokeniser, Vocabulary};
use ipu_sim::spec::MachineSpec;
use popart_graph::ir::Graph;
use popart_graph::passes::Watch;
use proptest::prelude::*;

/// A change of a text at a place between its start (0) and its end (1).
#[derive(Clone, Debug)]
enum Edit {
    Insert(f64, String),
    Remove(f64),
    Cut(f64),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0.0..1.0, "[ -~\n\u{e9}\u{1F600}]{1,3}").prop_map(|(at, text)| Edit::Insert(at, text)),
        4 => (0.0..1.0).prop_map(Edit::Remove),
        2 => (0.0..1.0, "(-1|0|1e999|18446744073709551616|null|%9|\\[|\\{)")
            .prop_map(|(at, text)| Edit::Insert(at, text)),
        1 => (0.0..1.0).prop_map(Edit::Cut),
    ];
    prop::collection::vec(edit, 1..4)
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for edit in edits {
        let place = |at: &f64| (at * letters.len() as f64) as usize;
        match edit {
            Edit::Insert(at, text) => {
                let at = place(at);
                letters.splice(at..at, text.chars());
            }
            Edit::Remove(at) if !letters.is_empty() => {
                letters.remove(place(at));
            }
            Edit::Remove(_) => {}
            Edit::Cut(at) => letters.truncate(place(at)),
        }
    }
    letters.into_iter().collect()
}

/// A word of a command line: an option, a start of one, with or without a value, or a value.
fn word() -> impl Strategy<Value = String> {
    let names: Vec<&str> = args::table::options()
        .chain(args::table::OURS.options)
        .map(|option| option.name)
        .collect();
    let value = prop_oneof![
        Just(String::new()),
        "(-?[0-9]{1,20}|[0-9]e[0-9]{1,3}|nan|-inf|true|f|0:0.1|[{][}]|--|-|-x|=)",
        "\\PC{0,8}",
    ];
    let name = prop::sample::select(names);
    prop_oneof![
        3 => name.clone().prop_map(String::from),
        2 => (name.clone(), value.clone()).prop_map(|(name, value)| format!("{name}={value}")),
        1 => (name, 2..40_usize).prop_map(|(name, end)| name.chars().take(end).collect()),
        3 => value,
    ]
}

/// A line that can be resolved, but for the numbers in it.
fn numbers() -> impl Strategy<Value = Vec<String>> {
    let keyed = args::table::options().filter(|option| {
        use bench_cli::args::spec::Kind;
        matches!(option.kind, Kind::Int | Kind::Float)
    });
    let names: Vec<&str> = keyed.map(|option| option.name).collect();
    let number = prop_oneof![
        Just(i64::MAX),
        Just(i64::MIN),
        Just(i64::from(u32::MAX)),
        -3..100_i64,
    ];
    let option = (prop::sample::select(names), number)
        .prop_map(|(name, number)| vec![name.to_string(), number.to_string()]);
    prop::collection::vec(option, 0..6).prop_map(|options| options.concat())
}

fn resolve(words: Vec<String>) {
    if let Ok(given) = args::parse(words) {
        let _ = request::prepare(&given, Date::now());
    }
}

fn preset() -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../configs/mk2/pretrain_large_128.json"
    );
    std::fs::read_to_string(folder).expect("the preset ships")
}

/// The graph of a small model as text.
fn graph() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let line = "--task SQUAD --inference --num-layers 1 --layers-per-ipu 1 \
                    --encoder-start-ipu 0 --hidden-size 8 --attention-heads 2 \
                    --sequence-length 8 --vocab-length 16";
        let given = args::parse(line.split_whitespace().map(String::from));
        let prepared = request::prepare(&given.expect("it is right"), Date::now());
        let request = prepared.expect("it is right").request;
        let mut text = None;
        let mut watch = |_: &'static str, graph: &Graph| {
            text.get_or_insert_with(|| popart_graph::text::print(graph));
        };
        let machine = &request.machine.spec;
        let plans = run::plans_for(machine);
        compile(
            &request.options.config,
            machine,
            &plans,
            Watch::by(&mut watch),
        )
        .expect("it is small");
        text.expect("the model was seen")
    })
}

const SMALL: RecordLayout = RecordLayout {
    sequence_length: 16,
    mask_tokens: 3,
};

fn vocabulary() -> &'static Vocabulary {
    static SHIPPED: OnceLock<Vocabulary> = OnceLock::new();
    SHIPPED.get_or_init(|| Vocabulary::parse(benchmark::VOCABULARY).expect("it ships"))
}

/// Two records of the shipped text.
fn records() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let recipe = Recipe {
            layout: SMALL,
            mask_probability: 0.15,
            short_sequence_probability: 0.1,
            pad_position: 384,
            seed: 1,
        };
        let corpus = Corpus::of_text(benchmark::TEXT, &Tokeniser::new(vocabulary(), Case::Lower));
        let maker = RecordMaker::new(corpus, vocabulary(), recipe).expect("it is right");
        let mut bytes = Vec::new();
        for record in maker.copy(0).iter().take(2) {
            record.write(&mut bytes);
        }
        bytes
    })
}

/// Reads the bytes as records of that form, in memory and from a file.
fn read_records(bytes: &[u8], layout: RecordLayout) -> Result<(), TestCaseError> {
    for chunk in bytes.chunks(layout.bytes()) {
        let Ok(record) = Record::from_bytes(layout, chunk) else {
            prop_assert_ne!(chunk.len(), layout.bytes());
            continue;
        };
        let mut again = Vec::new();
        record.write(&mut again);
        prop_assert_eq!(&again, chunk);
        // What has no fault is a text: positions count from 0.
        let tokens = record.in_text_order();
        let counted = (0..)
            .zip(&tokens)
            .all(|(place, token)| token.position == place);
        prop_assert!(counted || record.fault().is_some());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("records");
    std::fs::write(&file, bytes)?;
    let shown = inspect::show(&inspect::Request {
        file,
        layout: inspect::RowLayout::Record(layout),
        vocabulary: None,
        first: 0,
        count: 10,
    });
    prop_assert_eq!(shown.is_ok(), bytes.len().is_multiple_of(layout.bytes()));
    Ok(())
}

/// Reads a file of questions and cuts it into features.
fn read_questions(text: &str) {
    let Ok(found) = questions::parse(Path::new("questions.json"), text) else {
        return;
    };
    for mode in [Mode::Training, Mode::Inference] {
        let examples = found.iter().map(|question| Example::read(question, mode));
        let examples: Vec<Example> = examples.flatten().flatten().collect();
        let tokeniser = Tokeniser::new(vocabulary(), Case::Lower);
        squad::features(&examples, &tokeniser, vocabulary(), 128).expect("there is room");
    }
}

proptest! {
    #[test]
    fn command_lines(words in prop::collection::vec(word(), 0..8)) {
        resolve(words);
    }

    #[test]
    fn numbers_of_command_lines(words in numbers()) {
        resolve([vec!["--epochs".into(), "1".into()], words].concat());
    }

    #[test]
    fn configurations(edits in edits(), text in "\\PC{0,40}") {
        let near = edited(&preset(), &edits);
        if let Ok((values, _)) = args::json::parse("a.json", &near) {
            let _ = config::resolve(&args::Arguments::default(), Some(&values), "date");
        }
        let _ = args::json::parse("a.json", &text);
    }

    #[test]
    fn machine_descriptions(edits in edits(), text in "\\PC{0,40}") {
        let machine = MachineSpec::shipped("mk2-m2000").expect("it ships");
        let _ = MachineSpec::from_toml(&edited(&machine.to_toml(), &edits));
        let _ = MachineSpec::from_toml(&text);
    }

    #[test]
    fn graphs(edits in edits(), text in "\\PC{0,40}") {
        if let Ok(graph) = popart_graph::text::parse(&edited(graph(), &edits)) {
            // What could be read can be written, and reads the same.
            let again = popart_graph::text::parse(&popart_graph::text::print(&graph));
            prop_assert_eq!(again, Ok(graph.clone()));
            let _ = popart_graph::verify::verify(&graph, popart_graph::verify::Form::Logical);
        }
        let _ = popart_graph::text::parse(&text);
    }

    #[test]
    fn record_files(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        sequence_length in 1..20_u32,
        mask_tokens in 0..24_u32,
    ) {
        read_records(&bytes, RecordLayout { sequence_length, mask_tokens })?;
    }

    #[test]
    fn near_records(changes in prop::collection::vec((0.0..1.0, any::<u8>()), 0..4), end in 0.0..2.0) {
        let mut bytes = records().to_vec();
        let length = bytes.len() as f64;
        for (at, value) in changes {
            bytes[(at * length) as usize] = value;
        }
        bytes.truncate((end * length) as usize);
        read_records(&bytes, SMALL)?;
    }

    #[test]
    fn question_files(edits in edits(), text in "\\PC{0,40}") {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/sample/dev-v1.1.json");
        let shipped = std::fs::read_to_string(shipped)?;
        read_questions(&edited(&shipped, &edits));
        read_questions(&text);
    }

    #[test]
    fn vocabularies(edits in edits(), text in "\\PC{0,40}") {
        for vocabulary in [edited(benchmark::VOCABULARY, &edits), text.clone()] {
            if let Ok(vocabulary) = Vocabulary::parse(&vocabulary) {
                let ids = Tokeniser::new(&vocabulary, Case::Keep).encode(&text);
                prop_assert!(ids.iter().all(|id| *id < vocabulary.size()));
            }
        }
    }
}
