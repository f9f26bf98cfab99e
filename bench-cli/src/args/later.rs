//! Options that only later versions of the benchmark have, and what to use in their place.
//!
//! Names: `applications/popart/bert/bert.py` of graphcore/examples, tags v2.4 to v2.6. Command
//! lines and presets of those versions come here, too; they are refused, and told why.

use std::fmt;

/// An option that the version followed here doesn't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaterOption {
    /// Name of the option, dashes included.
    pub name: &'static str,
    /// What has its place here, if anything.
    instead: Option<&'static str>,
}

/// Every option of later versions of the application that this one doesn't have.
pub const LATER: &[LaterOption] = &[
    new("--use-packed-sequence-format", None),
    new("--max-sequences-per-pack", None),
    new("--squad-wrap-final-layer", None),
    new("--use-half-optimizer-state", None),
    new("--disable-attention-dropout-bwd", None),
];

const fn new(name: &'static str, instead: Option<&'static str>) -> LaterOption {
    LaterOption { name, instead }
}

impl fmt::Display for LaterOption {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, instead } = self;
        write!(
            out,
            "{name} is an option of later versions of the benchmark"
        )?;
        match instead {
            Some(instead) => write!(out, ": {instead}"),
            None => write!(out, ", with nothing in its place here"),
        }
    }
}

/// The one that a word of the command line or a key of a configuration names.
#[must_use]
pub fn named(word: &str) -> Option<LaterOption> {
    let name = word.trim_start_matches('-').replace('_', "-");
    let found = LATER.iter().find(|later| later.name[2..] == name);
    found.copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::table;

    #[test]
    fn words_and_keys_name_them() {
        for word in [
            "--use-half-optimizer-state",
            "use_half_optimizer_state",
            "--use_half_optimizer_state",
        ] {
            assert_eq!(named(word).unwrap().name, "--use-half-optimizer-state");
        }
        assert_eq!(named("--device-tiles"), None);
    }

    #[test]
    fn none_is_an_option_here() {
        for later in LATER {
            assert_eq!(table::by_name(later.name), None, "{}", later.name);
        }
    }
}
