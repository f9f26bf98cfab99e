//! No input makes a parser panic: options, configurations, machine descriptions, graphs as text.
//!
//! Inputs are random, and near misses: what is right, with a few characters changed, or a file cut
//! short. `fuzz/` has the same targets for runs without end.

use std::sync::OnceLock;

use bench_cli::clock::Date;
use bench_cli::{args, compile, config, request};
use ipu_sim::spec::MachineSpec;
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
        let mut watch = |_: &'static str, graph: &_| {
            text.get_or_insert_with(|| popart_graph::text::print(graph));
        };
        compile::compile_watched(&request.options, &request.machine.spec, &mut watch)
            .expect("it is small");
        text.expect("the model was seen")
    })
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
        if let Ok(values) = config::file::parse("a.json", &near) {
            let _ = config::resolve(&args::Given::default(), Some(&values), "date");
        }
        let _ = config::file::parse("a.json", &text);
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
}
