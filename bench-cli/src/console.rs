//! Speaking to the person at the terminal: notes, errors, progress bars, color.
//!
//! All of it goes to stderr; stdout holds what a command was asked for. A reader that leaves, or a
//! full disk, stops no command: there may be files to write. What was lost is known at the end
//! ([`Console::lost`]). Color follows `--color`, and with `auto` the terminal and the
//! environment (`NO_COLOR`, `CLICOLOR`, `TERM`); progress bars hide when stderr is no terminal.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Write};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const PROGRAM: Style = Style::new().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// The streams stdout and stderr of a command, and what they didn't take.
#[derive(Debug, Default)]
pub struct Console {
    /// Nothing is said beside results and errors: neither notes nor progress bars.
    quiet: Cell<bool>,
    lost_stdout: RefCell<Option<LostOutput>>,
    lost_stderr: RefCell<Option<LostOutput>>,
}

/// Why something was not printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot print")]
pub struct LostOutput {
    source: io::Error,
}

impl Console {
    /// Says nothing beside results and errors from now on.
    pub fn silence(&self) {
        self.quiet.set(true);
    }

    /// Prints to stdout what a command was asked for.
    pub fn print(&self, text: impl fmt::Display) {
        self.print_all([text]);
    }

    /// Prints texts to stdout, one behind the other, up to the first that is lost.
    pub fn print_all(&self, texts: impl IntoIterator<Item = impl fmt::Display>) {
        let mut lost = self.lost_stdout.borrow_mut();
        if lost.is_some() {
            return;
        }
        let mut stdout = anstream::stdout().lock();
        let mut texts = texts.into_iter();
        let printed = texts.try_for_each(|text| write!(stdout, "{text}"));
        let printed = printed.and_then(|()| stdout.flush());
        *lost = printed.err().map(|source| LostOutput { source });
    }

    /// Something that the user should know, on stderr.
    pub fn note(&self, text: &str) {
        if !self.quiet.get() {
            self.warn(text);
        }
    }

    /// Something that the user must know, on stderr: quiet or not.
    pub fn warn(&self, text: &str) {
        self.say(format_args!("{PROGRAM}ipu-bench:{PROGRAM:#} {text}\n"));
    }

    /// Prints to stderr what the user asked to have there.
    pub fn say(&self, text: impl fmt::Display) {
        let mut lost = self.lost_stderr.borrow_mut();
        if lost.is_none() {
            let printed = write!(anstream::stderr(), "{text}");
            *lost = printed.err().map(|source| LostOutput { source });
        }
    }

    /// The output that was not printed, if somebody would have read it.
    pub fn lost(&self) -> Option<LostOutput> {
        let lost = [self.lost_stdout.take(), self.lost_stderr.take()];
        let mut lost = lost.into_iter().flatten();
        // A reader that left early (`| head`) is no failure of ours.
        lost.find(|lost| lost.source.kind() != ErrorKind::BrokenPipe)
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
        if self.quiet.get() {
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
