//! `ipu-bench data`: files of training data, made and looked into.
//!
//! Options that the original's record maker has keep their names and defaults
//! (`applications/popart/bert/bert_data/create_pretraining_data.py`), and so have those of its packer
//! (`packed_bert_data` in later releases).

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::data::{DataError, Replace, benchmark, inspect, packs, pretraining, vocabulary};
use bert_model::data::{
    Case, Leftovers, PackForm, PackLayout, PackingRecipe, Recipe, RecordLayout,
};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

pub(super) fn command(command: Command) -> Command {
    command
        .about("Make training data, or look into it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(benchmark_command())
        .subcommand(pretraining_command())
        .subcommand(pack_command())
        .subcommand(inspect_command())
        .subcommand(vocabulary_command())
}

fn benchmark_command() -> Command {
    Command::new("benchmark")
        .about("Write the files that the published command lines read, 1.1 GB")
        .arg(
            super::path_option("out", "Folder to fill; name it as $DATASETS_DIR")
                .value_name("DIR")
                .required(true),
        )
        .arg(force())
}

fn pretraining_command() -> Command {
    Command::new("pretraining")
        .about("Make records of sentence pairs with masked words from text")
        .arg(input_file())
        .arg(
            text_option(
                "output-file",
                "Files to write, separated by commas; records go to each in turn",
            )
            .required(true),
        )
        .arg(
            super::path_option("vocab-file", "WordPiece vocabulary, a token a line").required(true),
        )
        .arg(lower_case())
        .arg(number("sequence-length", "128", "Positions of a sequence"))
        .arg(number(
            "mask-tokens",
            "20",
            "Masked words of a sequence at the most",
        ))
        .arg(number(
            "duplication-factor",
            "6",
            "Copies of the text, each with pairs and masks of its own",
        ))
        .arg(share(
            "mlm-prob",
            "0.15",
            "Share of the words that are masked",
        ))
        .arg(share(
            "short-seq-prob",
            "0.1",
            "Share of the documents that make short sequences",
        ))
        .arg(
            Arg::new("max-samples")
                .long("max-samples")
                .value_name("INT")
                .value_parser(value_parser!(i64))
                .allow_negative_numbers(true)
                .default_value("-1")
                .help("Records at the most; -1 for all"),
        )
        .arg(number(
            "pad-position-value",
            "384",
            "Position of unused slots",
        ))
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("INT")
                .value_parser(value_parser!(u64))
                .default_value("1984")
                .help("Where all draws come from"),
        )
        .arg(force())
}

fn pack_command() -> Command {
    Command::new("pack")
        .about("Put several sequences into each row, of records that `data pretraining` made")
        .arg(
            text_option(
                "input-glob",
                "Files of records: names or patterns, separated by commas",
            )
            .required(true),
        )
        .arg(
            super::path_option("output-dir", "Folder to fill: duplication_0, and so on")
                .value_name("DIR")
                .required(true),
        )
        .arg(number("max-sequence-length", "512", "Positions of a row"))
        .arg(number(
            "mlm-tokens",
            "76",
            "Masked words of a sequence at the most",
        ))
        .arg(number(
            "max-sequences-per-pack",
            "3",
            "Sequences of a pack at the most",
        ))
        .arg(number(
            "unpacked-dataset-duplication-factor",
            "1",
            "Copies of the text that the records hold; each is packed into a file of its own",
        ))
        .arg(
            Arg::new("drop-unpacked-remainder")
                .long("drop-unpacked-remainder")
                .value_name("BOOL")
                .value_parser(value_parser!(bool))
                .default_value("true")
                .help("Drop sequences that the best mixture of lengths leaves over; else each gets a row with padding"),
        )
        .arg(
            Arg::new("random-seed")
                .long("random-seed")
                .value_name("INT")
                .value_parser(value_parser!(u64))
                .default_value("12345")
                .help("Where all draws come from"),
        )
        .arg(form().default_value("v2.3"))
        .arg(force())
}

/// The form of packs.
fn form() -> Arg {
    Arg::new("form")
        .long("form")
        .value_name("RELEASE")
        .value_parser(["v2.1", "v2.3"])
        .help("Form of the packs: of v2.1 and v2.2, or of v2.3 and later")
}

/// What was chosen of [`form`].
fn chosen_form(matches: &ArgMatches) -> Option<PackForm> {
    let word = matches.get_one::<String>("form")?;
    Some(match word.as_str() {
        "v2.1" => PackForm::Slots,
        _ => PackForm::Slices,
    })
}

fn inspect_command() -> Command {
    Command::new("inspect")
        .about("Show records or packs as text")
        .arg(
            Arg::new("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("a file of pre-training records, or of packs of them"),
        )
        .arg(number("sequence-length", "128", "Positions of a sequence"))
        .arg(
            Arg::new("mask-tokens")
                .long("mask-tokens")
                .value_name("INT")
                .value_parser(value_parser!(u32))
                .help("Masked words of a sequence at the most [default: 20, 56 or 76 for 128, 384 or 512]"),
        )
        .arg(
            Arg::new("max-sequences-per-pack")
                .long("max-sequences-per-pack")
                .value_name("INT")
                .value_parser(value_parser!(u32))
                .help("Sequences of a pack at the most, if the file holds packs"),
        )
        .arg(form().requires("max-sequences-per-pack").help(
            "Form of the packs: of v2.1 and v2.2, or of v2.3 and later [default: the one that the size of the file fits]",
        ))
        .arg(super::path_option(
            "vocab-file",
            "Vocabulary that names the tokens; without, numbers are shown",
        ))
        .arg(
            Arg::new("count")
                .short('n')
                .long("count")
                .value_name("INT")
                .value_parser(value_parser!(u64))
                .default_value("3")
                .help("Records to show"),
        )
        .arg(
            Arg::new("first")
                .long("first")
                .value_name("INT")
                .value_parser(value_parser!(u64))
                .default_value("0")
                .help("Number of the first one"),
        )
}

fn vocabulary_command() -> Command {
    Command::new("vocabulary")
        .about("Make a WordPiece vocabulary of the words of a text")
        .arg(input_file())
        .arg(super::output_option("output-file", "File to write, a token a line").required(true))
        .arg(lower_case())
        .arg(number("size", "30400", "Tokens at the most"))
        .arg(force())
}

fn text_option(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATHS").help(help)
}

fn input_file() -> Arg {
    let help = "Text, a sentence a line, a blank line between documents: names or patterns, separated by commas";
    text_option("input-file", help).required(true)
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("INT")
        .value_parser(value_parser!(u32))
        .default_value(default)
        .help(help)
}

fn share(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("FLOAT")
        .value_parser(value_parser!(f64))
        .default_value(default)
        .help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn lower_case() -> Arg {
    switch("do-lower-case", "Make letters small and drop their accents")
}

fn force() -> Arg {
    switch("force", "Replace files that are there")
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let text = match matches.subcommand().expect("clap demands a subcommand") {
        ("benchmark", matches) => run_benchmark(matches, console)?,
        ("pretraining", matches) => run_pretraining(matches, console)?,
        ("pack", matches) => run_pack(matches, console)?,
        ("inspect", matches) => run_inspect(matches)?,
        (_, matches) => run_vocabulary(matches)?,
    };
    console.print(text);
    Ok(ExitCode::SUCCESS)
}

fn run_benchmark(matches: &ArgMatches, console: &Console) -> anyhow::Result<String> {
    let out = super::path(matches, "out").expect("it is required");
    let bar = bytes(console.bar(0))?;
    let files = &benchmark::RECORD_FILES;
    let paths = benchmark::write(out, files, replace(matches), &bar)?;
    let mut text = String::new();
    for (place, path) in paths.iter().enumerate() {
        let _ = match files.get(place) {
            Some(file) => writeln!(
                text,
                "{}: {} records of {} bytes",
                path.display(),
                file.records,
                file.layout.bytes()
            ),
            None => writeln!(text, "{}", path.display()),
        };
    }
    Ok(text)
}

/// A bar that counts bytes.
fn bytes(bar: ProgressBar) -> anyhow::Result<ProgressBar> {
    let template = "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}";
    Ok(bar.with_style(ProgressStyle::with_template(template)?))
}

fn run_pretraining(matches: &ArgMatches, console: &Console) -> anyhow::Result<String> {
    let layout = RecordLayout {
        sequence_length: *value(matches, "sequence-length"),
        mask_tokens: *value(matches, "mask-tokens"),
    };
    let request = pretraining::Request {
        input_files: value::<String>(matches, "input-file").clone(),
        output_files: value::<String>(matches, "output-file").clone(),
        vocabulary: value::<PathBuf>(matches, "vocab-file").clone(),
        case: case(matches),
        recipe: Recipe {
            layout,
            mask_probability: *value(matches, "mlm-prob"),
            short_sequence_probability: *value(matches, "short-seq-prob"),
            pad_position: *value(matches, "pad-position-value"),
            seed: *value(matches, "seed"),
        },
        copies: u64::from(*value::<u32>(matches, "duplication-factor")),
        samples_max: match *value::<i64>(matches, "max-samples") {
            -1 => None,
            most @ 1.. => Some(most.unsigned_abs()),
            none => return Err(bench_cli::Error::Data(DataError::MaxSamples(none)).into()),
        },
        replace: replace(matches),
    };
    let made = pretraining::make(&request, &console.bar(0))?;
    let mut text = format!("{} documents, {} tokens\n", made.documents, made.tokens);
    for (path, records) in &made.files {
        let _ = writeln!(
            text,
            "{}: {records} records of {} bytes",
            path.display(),
            layout.bytes()
        );
    }
    Ok(text)
}

fn run_pack(matches: &ArgMatches, console: &Console) -> anyhow::Result<String> {
    let layout = PackLayout {
        sequence_length: *value(matches, "max-sequence-length"),
        mask_tokens: *value(matches, "mlm-tokens"),
        sequences: *value(matches, "max-sequences-per-pack"),
        form: chosen_form(matches).expect("it has a default"),
    };
    let request = packs::Request {
        input_files: value::<String>(matches, "input-glob").clone(),
        output: value::<PathBuf>(matches, "output-dir").clone(),
        recipe: PackingRecipe {
            layout,
            leftovers: match value::<bool>(matches, "drop-unpacked-remainder") {
                true => Leftovers::Drop,
                false => Leftovers::Pad,
            },
            seed: *value(matches, "random-seed"),
        },
        copies: *value(matches, "unpacked-dataset-duplication-factor"),
        replace: replace(matches),
    };
    let made = packs::make(&request, &console.bar(0))?;
    let mut text = format!(
        "{} sequences: {} packed, {} left over, {} in packs with too many masked words\n\
         {} packs, {:.3} sequences each on average; {} padding sequences\n",
        made.records,
        made.packed,
        made.dropped,
        made.crowded,
        made.packs(),
        made.packed as f64 / made.packs() as f64,
        made.padding,
    );
    if made.unread > 0 {
        let _ = writeln!(
            text,
            "{} sequences behind the last whole copy are in none",
            made.unread
        );
    }
    for (path, packs) in &made.files {
        let _ = writeln!(
            text,
            "{}: {packs} packs of {} bytes",
            path.display(),
            layout.bytes()
        );
    }
    Ok(text)
}

fn run_inspect(matches: &ArgMatches) -> anyhow::Result<String> {
    let sequence_length = *value(matches, "sequence-length");
    let mask_tokens = match matches.get_one::<u32>("mask-tokens") {
        Some(&given) => given,
        None => inspect::usual_mask_tokens(sequence_length)?,
    };
    let file = value::<PathBuf>(matches, "FILE").clone();
    let layout = match matches.get_one::<u32>("max-sequences-per-pack") {
        None => inspect::RowLayout::Record(RecordLayout {
            sequence_length,
            mask_tokens,
        }),
        Some(&sequences) => {
            let form = chosen_form(matches);
            let layout = PackLayout {
                sequence_length,
                mask_tokens,
                sequences,
                form: form.unwrap_or(PackForm::Slices),
            };
            inspect::RowLayout::Pack(match form {
                Some(_) => layout,
                None => packs::layout_of(&file, layout)?,
            })
        }
    };
    let request = inspect::Request {
        file,
        layout,
        vocabulary: super::path(matches, "vocab-file").map(PathBuf::from),
        first: *value(matches, "first"),
        count: *value(matches, "count"),
    };
    let records = request.layout.count(&request.file)?;
    // The first of an empty file is asked for by nobody: 0 is the default.
    if request.first > 0 && request.first >= records {
        let (path, first) = (request.file, request.first);
        let error = DataError::BehindTheEnd {
            path,
            first,
            records,
        };
        return Err(bench_cli::Error::Data(error).into());
    }
    Ok(inspect::show(&request)?)
}

fn run_vocabulary(matches: &ArgMatches) -> anyhow::Result<String> {
    let output = super::path(matches, "output-file").expect("it is required");
    let tokens = vocabulary::write(
        value::<String>(matches, "input-file"),
        output,
        case(matches),
        *value(matches, "size"),
        replace(matches),
    )?;
    Ok(format!("{}: {tokens} tokens\n", output.display()))
}

/// A value that is required or has a default.
fn value<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> &'a T {
    matches.get_one(name).expect("clap has a value for it")
}

fn case(matches: &ArgMatches) -> Case {
    match matches.get_flag("do-lower-case") {
        true => Case::Lower,
        false => Case::Keep,
    }
}

fn replace(matches: &ArgMatches) -> Replace {
    match matches.get_flag("force") {
        true => Replace::Yes,
        false => Replace::No,
    }
}
