//! `ipu-bench plan`: how a matrix product is cut over the tiles.

use std::process::ExitCode;

use bench_cli::console::Console;
use bench_cli::{plan, report, system};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ipu_sim::numerics::DType;
use ipu_sim::vertex::WeightLoad;
use popart_graph::plan::{MatMulShape, Pass};

pub(super) fn command(command: Command) -> Command {
    let extent = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .required(true)
            .value_parser(value_parser!(u64).range(1..=plan::EXTENT_MAX))
            .help(help)
    };
    let choice = |name: &'static str, values: &[&'static str], help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(values.to_vec())
            .default_value(values[0])
            .help(help)
    };
    command
        .about("Plan a matrix product [M, K] x [K, N] of f16 over the tiles of an IPU")
        .arg(extent("M", "rows of the left operand"))
        .arg(extent("K", "summed dimension"))
        .arg(extent("N", "columns of the right operand"))
        .arg(
            Arg::new("groups")
                .long("groups")
                .value_parser(value_parser!(u64).range(1..=plan::EXTENT_MAX))
                .default_value("1")
                .help("independent products"),
        )
        .arg(choice(
            "partials",
            &["half", "float"],
            "type of partial sums",
        ))
        .arg(
            Arg::new("proportion")
                .long("proportion")
                .value_parser(value_parser!(f64))
                .allow_negative_numbers(true)
                .default_value("0.6")
                .help("share of a tile's memory for temporary data; 0 asks for the least memory"),
        )
        .arg(choice(
            "pass",
            &["fwd", "bwd", "wu", "inference", "none"],
            "what the product is part of",
        ))
        .arg(choice(
            "weight-load",
            &["64", "128"],
            "bits of a load of coefficients; 128 want them in interleaved memory",
        ))
        .arg(
            Arg::new("count")
                .long("count")
                .value_parser(value_parser!(u64).range(1..=100))
                .default_value("5")
                .help("plans to show, runners-up included"),
        )
        .arg(
            Arg::new("system")
                .long("system")
                .default_value("mk2-m2000")
                .help("a shipped system or a description file"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("print JSON instead of a table"),
        )
}

pub(super) fn run(matches: &ArgMatches, console: &Console) -> anyhow::Result<ExitCode> {
    let number = |name: &str| {
        *matches
            .get_one::<u64>(name)
            .expect("clap has a value for it")
    };
    let word = |name: &str| {
        let word = matches.get_one::<String>(name);
        word.expect("clap has a value for it").as_str()
    };
    let request = plan::Request {
        shape: MatMulShape {
            groups: number("groups"),
            m: number("M"),
            k: number("K"),
            n: number("N"),
        },
        partials: match word("partials") {
            "half" => DType::F16,
            _ => DType::F32,
        },
        proportion: *matches
            .get_one("proportion")
            .expect("clap has a value for it"),
        pass: match word("pass") {
            "fwd" => Pass::TrainingFwd,
            "bwd" => Pass::TrainingBwd,
            "wu" => Pass::TrainingWu,
            "inference" => Pass::InferenceFwd,
            _ => Pass::None,
        },
        weight_load: match word("weight-load") {
            "128" => WeightLoad::Bits128,
            _ => WeightLoad::Bits64,
        },
        count: number("count") as usize,
    };
    let machine = system::choose(Some(word("system")), 1)?;
    let plans = plan::plans(&request, &machine.spec)?;
    let text = match matches.get_flag("json") {
        true => report::json::text(&plans),
        false => plans.text(),
    };
    console.print(text);
    Ok(ExitCode::SUCCESS)
}
