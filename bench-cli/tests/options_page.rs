//! `docs/options.md` says what the option table says; `UPDATE_EXPECT=1` writes it anew.

use bench_cli::args::spec::{Arity, OptionSpec, Support};
use bench_cli::args::{table, values};
use expect_test::expect_file;

const INTRODUCTION: &str = "\
# Options of `ipu-bench bert`

Names, keys, defaults and parsing are those of `bert.py`; a unique start of a name will do, the last of repeated options counts, and the command line goes over the preset (`--config`).
Keys of configuration files are the names with underscores, where the table doesn't say otherwise; of an option with a later name, that one is a key, too.
The table has the options of all [releases](releases.md) of the benchmark.
A switch takes `true` or `false`; without a word it means the value under *bare*.

What an option does here:

- **acts**: it changes the program that the machine runs, the log or the files of the run.
- **acts on values only**: it is a number in the program, which `--dump-program` shows, and moves neither time nor memory nor the log.
- **no effect**: it is accepted, a note on stderr says why nothing changes.
- **refused**: any value but the default is an error with that reason (status 2).

An option that acts may have nothing to act on: `--beta1` with SGD, `--replicated-tensor-sharding` with one replica, options of training in inference.
If the command line or the preset gives it there, a note of the same form names it.

`bench-cli/tests/options/main.rs` tries all of them; this page is checked against the table by `bench-cli/tests/options_page.rs`.
";

fn row(option: &OptionSpec) -> String {
    let usual = option.name[2..].replace('-', "_");
    let key = match option.key == usual {
        true => String::new(),
        false => format!(" (key `{}`)", option.key),
    };
    let default = option.default_value();
    let default = match default.is_null() || option.arity == Arity::None {
        true => String::new(),
        false => format!("`{}`", values::show(&default)),
    };
    let bare = match option.arity {
        Arity::Optional { bare } => format!("`{bare}`"),
        _ => String::new(),
    };
    let does = match option.support {
        Support::Acts => "acts".into(),
        Support::ActsOnValues => "acts on values only".into(),
        Support::NoEffect(reason) => format!("no effect: {reason}"),
        Support::NotYet(reason) => format!("refused: {reason}"),
    };
    let choices = match option.choices {
        [] => String::new(),
        choices => format!(" ({})", choices.join(", ")),
    };
    format!(
        "| `{}`{key} | {default} | {bare} | {}{choices} | {does} |\n",
        option.name, option.help
    )
}

#[test]
fn the_page_is_the_table() {
    let mut page = String::from(INTRODUCTION);
    for section in table::SECTIONS.iter().chain([&table::OURS]) {
        page += &format!(
            "\n## {}\n\n| option | default | bare | what it says | what it does here |\n| --- | --- | --- | --- | --- |\n",
            section.title
        );
        page.extend(section.options.iter().map(row));
    }
    expect_file!["../../docs/options.md"].assert_eq(&page);
}
