//! Speaking to the person at the terminal: notes, errors, progress bars, color.
//!
//! All of it goes to stderr. Color follows `--color`, and with `auto` the terminal and the
//! environment (`NO_COLOR`, `CLICOLOR`, `TERM`); progress bars hide when stderr is no terminal.

use std::ffi::OsString;
use std::io::{self, Write};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const PROGRAM: Style = Style::new().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// How much is said beside results and errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// Nothing: neither notes nor progress bars.
    pub quiet: bool,
}

impl Console {
    /// Something that the user should know.
    ///
    /// # Errors
    ///
    /// If stderr can't be written to.
    pub fn note(&self, text: &str) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        writeln!(anstream::stderr(), "{PROGRAM}ipu-bench:{PROGRAM:#} {text}")
    }

    /// A bar for work in `len` pieces.
    #[must_use]
    pub fn bar(&self, len: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}");
        let style = style.expect("the template is well-formed");
        self.hidden_if_quiet(ProgressBar::new(len).with_style(style))
    }

    /// A sign of life for work of unknown length.
    #[must_use]
    pub fn spinner(&self) -> ProgressBar {
        self.hidden_if_quiet(ProgressBar::new_spinner())
    }

    fn hidden_if_quiet(&self, bar: ProgressBar) -> ProgressBar {
        if self.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar
    }
}

/// Prints an error to stderr. Without a stderr there is nobody to tell.
pub fn error(text: &str) {
    let mut stderr = anstream::stderr();
    let _ = writeln!(
        stderr,
        "{PROGRAM}ipu-bench:{PROGRAM:#} {ERROR}error:{ERROR:#} {text}"
    );
}

/// Prints an error in the words of `ipu-bench bert`, as the original's parser says it.
pub fn usage_error(text: &str) {
    let mut stderr = anstream::stderr();
    let _ = writeln!(
        stderr,
        "usage: PopART BERT [--option [value ...]] ... (ipu-bench bert --help lists all)\n\
         {PROGRAM}PopART BERT:{PROGRAM:#} {ERROR}error:{ERROR:#} {text}"
    );
}

/// Choice of `--color` in `words`, before anything else is known of them. A word that is no choice
/// counts as `auto`: whoever parses the words refuses it.
#[must_use]
pub fn color_from(words: &[OsString]) -> ColorChoice {
    let mut chosen = ColorChoice::Auto;
    let mut words = words.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        let choice = match word {
            "--" => break,
            "--color" => words.next(),
            _ => word.strip_prefix("--color="),
        };
        chosen = match choice {
            Some("always") => ColorChoice::Always,
            Some("never") => ColorChoice::Never,
            Some("auto") => ColorChoice::Auto,
            _ => chosen,
        };
    }
    chosen
}

/// Choice of `--color`, as clap takes it for its own messages.
#[must_use]
pub fn clap_color(choice: ColorChoice) -> clap::ColorChoice {
    match choice {
        ColorChoice::Always | ColorChoice::AlwaysAnsi => clap::ColorChoice::Always,
        ColorChoice::Never => clap::ColorChoice::Never,
        ColorChoice::Auto => clap::ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_choice_of_color_counts() {
        for (line, expected) in [
            ("bert", ColorChoice::Auto),
            ("bert --color always", ColorChoice::Always),
            ("suite --color=never", ColorChoice::Never),
            ("suite --color never --color=always", ColorChoice::Always),
            ("suite --color never --color", ColorChoice::Never),
            ("suite -- --color never", ColorChoice::Auto),
            ("suite --color blue", ColorChoice::Auto),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(color_from(&words), expected, "{line}");
        }
    }
}
