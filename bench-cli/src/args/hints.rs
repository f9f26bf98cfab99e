//! What an unknown word of the command line, or an unknown key, was meant to be.
//!
//! Words that other programs and earlier releases have for the same thing are known by name
//! ([`ELSEWHERE`]); other words are compared by their spelling with options that act.

use std::fmt;

use super::spec::{OptionSpec, Support};
use super::table;
use crate::error::most_like;
use crate::python::repr;

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `BertConfig` and `TrainingArguments` of the `transformers` library.
    HuggingFace,
    /// `run_pretraining.py` and `run_squad.py` of google-research/bert.
    Google,
    /// Releases of the published application before the revision followed here.
    Earlier,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::HuggingFace => "Hugging Face's name",
            Self::Google => "a name of Google's BERT",
            Self::Earlier => "a name of earlier releases",
        })
    }
}

/// A name that something has elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignName {
    /// The name, with underscores.
    pub name: &'static str,
    /// Place that the name comes from.
    pub origin: Origin,
    /// Keys that say it here.
    here: &'static [&'static str],
    /// What else a user must know to write it here.
    note: &'static str,
}

const fn new(
    name: &'static str,
    origin: Origin,
    here: &'static [&'static str],
    note: &'static str,
) -> ForeignName {
    ForeignName {
        name,
        origin,
        here,
        note,
    }
}

/// Names from elsewhere. A name that two places have stands with the first.
pub const ELSEWHERE: &[ForeignName] = {
    use Origin::{Earlier, Google, HuggingFace};
    &[
        new("vocab_size", HuggingFace, &["vocab_length"], ""),
        new("num_hidden_layers", HuggingFace, &["num_layers"], ""),
        new("num_attention_heads", HuggingFace, &["attention_heads"], ""),
        new("intermediate_size", HuggingFace, &["ff_size__"], ""),
        new(
            "hidden_act",
            HuggingFace,
            &["activation_type"],
            "in capitals",
        ),
        new("hidden_dropout_prob", HuggingFace, &["dropout_prob"], ""),
        new(
            "attention_probs_dropout_prob",
            HuggingFace,
            &["no_attn_dropout"],
            "attention drops out as often as the rest, or never",
        ),
        new(
            "max_position_embeddings",
            HuggingFace,
            &["max_positional_length"],
            "",
        ),
        new(
            "type_vocab_size",
            HuggingFace,
            &[],
            "there are two segments",
        ),
        new("initializer_range", HuggingFace, &[], "it is 0.02"),
        new("pad_token_id", HuggingFace, &[], "it is 0"),
        new(
            "per_device_train_batch_size",
            HuggingFace,
            &["micro_batch_size"],
            "",
        ),
        new(
            "per_device_eval_batch_size",
            HuggingFace,
            &["micro_batch_size"],
            "",
        ),
        new(
            "gradient_accumulation_steps",
            HuggingFace,
            &["gradient_accumulation_factor"],
            "",
        ),
        new("num_train_epochs", HuggingFace, &["epochs"], ""),
        new("max_steps", HuggingFace, &["training_steps"], ""),
        new("warmup_steps", HuggingFace, &["lr_warmup_steps"], ""),
        new(
            "lr_scheduler_type",
            HuggingFace,
            &["learning_rate_function"],
            "",
        ),
        new("adam_beta1", HuggingFace, &["beta1"], ""),
        new("adam_beta2", HuggingFace, &["beta2"], ""),
        new("logging_steps", HuggingFace, &["steps_per_log"], ""),
        new("output_dir", HuggingFace, &["checkpoint_dir"], ""),
        new("model_type", HuggingFace, &[], "every model is BERT"),
        new(
            "architectures",
            HuggingFace,
            &["task"],
            "PRETRAINING or SQUAD",
        ),
        new(
            "model_name_or_path",
            HuggingFace,
            &["num_layers", "hidden_size", "attention_heads"],
            "the sizes and not the name, or a preset with --config",
        ),
        new(
            "torch_dtype",
            HuggingFace,
            &["popart_dtype"],
            "as FLOAT16 or FLOAT",
        ),
        new(
            "position_embedding_type",
            HuggingFace,
            &[],
            "positions are absolute",
        ),
        new(
            "use_cache",
            HuggingFace,
            &[],
            "an encoder keeps nothing between words",
        ),
        new(
            "transformers_version",
            HuggingFace,
            &[],
            "it changes nothing",
        ),
        new(
            "classifier_dropout",
            HuggingFace,
            &[],
            "there is no such head",
        ),
        new("save_total_limit", HuggingFace, &[], "no models are saved"),
        new(
            "bf16",
            HuggingFace,
            &["popart_dtype"],
            "as FLOAT16 or FLOAT",
        ),
        new(
            "max_grad_norm",
            HuggingFace,
            &["gradient_clipping_norm"],
            "of all gradients together, too",
        ),
        new(
            "warmup_ratio",
            HuggingFace,
            &["lr_warmup_steps"],
            "in steps and not as a share of them",
        ),
        new("optim", HuggingFace, &["optimizer"], "in capitals"),
        new("adam_epsilon", HuggingFace, &[], "it changes no time"),
        new(
            "per_gpu_train_batch_size",
            HuggingFace,
            &["micro_batch_size"],
            "",
        ),
        new(
            "per_gpu_eval_batch_size",
            HuggingFace,
            &["micro_batch_size"],
            "",
        ),
        new(
            "dataloader_drop_last",
            HuggingFace,
            &["no_drop_remainder"],
            "which is its opposite",
        ),
        new(
            "gradient_checkpointing",
            HuggingFace,
            &["recompute_checkpoint_every_layer"],
            "a pipeline always computes again",
        ),
        new("save_steps", HuggingFace, &[], "no models are saved"),
        new(
            "eval_steps",
            HuggingFace,
            &[],
            "validation comes after the training",
        ),
        new(
            "evaluation_strategy",
            HuggingFace,
            &["no_validation"],
            "validation comes after the training, or not at all",
        ),
        new(
            "do_eval",
            HuggingFace,
            &["no_validation"],
            "which is its opposite",
        ),
        new("fp16", HuggingFace, &["popart_dtype"], "as FLOAT16"),
        new(
            "batch_size",
            Earlier,
            &["micro_batch_size", "global_batch_size"],
            "of one replica's micro-batch, and of a whole weight update",
        ),
        new(
            "train_batch_size",
            Google,
            &["global_batch_size", "micro_batch_size"],
            "of a whole weight update, and of one replica's micro-batch",
        ),
        new("predict_batch_size", Google, &["micro_batch_size"], ""),
        new("max_seq_length", Google, &["sequence_length"], ""),
        new("max_predictions_per_seq", Google, &["mask_tokens"], ""),
        new("num_train_steps", Google, &["training_steps"], ""),
        new("num_warmup_steps", Google, &["lr_warmup_steps"], ""),
        new("input_file", Google, &["input_files"], ""),
        new("train_file", Google, &["input_files"], ""),
        new("predict_file", Google, &["input_files"], ""),
        new("do_predict", Google, &["inference"], ""),
        new(
            "do_train",
            Google,
            &["no_training"],
            "which is its opposite",
        ),
        new(
            "custom_ops",
            Earlier,
            &[],
            "the model's own operators are always there",
        ),
        new(
            "pipeline_lr_scaling",
            Earlier,
            &["continuous_pipeline_optimizer_scaling"],
            "",
        ),
        new(
            "pipeline_momentum_scaling",
            Earlier,
            &["continuous_pipeline_optimizer_scaling"],
            "",
        ),
        new(
            "max_matmul_memory",
            Earlier,
            &["available_memory_proportion"],
            "a share of a tile's memory, and no count of bytes",
        ),
    ]
};

/// Advice on an unknown word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An option or a key that is spelt alike.
    Alike {
        /// The word.
        word: String,
        /// The option, as typed or as a key.
        meant: &'static str,
    },
    /// A name from elsewhere.
    Foreign(ForeignName, Form),
}

/// Which form of a name a user wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A key of a configuration: `micro_batch_size`.
    Key,
    /// A word of the command line: `--micro-batch-size`.
    Word,
}

impl fmt::Display for Hint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alike { word, meant } => write!(out, "{}: did you mean {meant}?", repr(word)),
            Self::Foreign(foreign, form) => {
                let ForeignName { name, origin, .. } = foreign;
                let name_here = |key: &&'static str| match form {
                    Form::Key => (*key).to_string(),
                    Form::Word => option(key).map_or(*key, |option| option.name).into(),
                };
                let here: Vec<String> = foreign.here.iter().map(name_here).collect();
                write!(out, "{} is {origin}: ", repr(name))?;
                match (here.as_slice(), foreign.note) {
                    ([], note) => write!(out, "nothing says it here, for {note}"),
                    (names, "") => write!(out, "here it is {}", names.join(" and ")),
                    (names, note) => write!(out, "here it is {}, {note}", names.join(" and ")),
                }
            }
        }
    }
}

/// The option of a key, the application's or one of our own.
fn option(key: &str) -> Option<&'static OptionSpec> {
    table::by_key(key).or_else(|| table::own_by_key(key))
}

/// Hints on unknown words, each on a line of its own, so that the original's text stays whole.
#[must_use]
pub fn lines(hints: &[Hint]) -> String {
    hints.iter().map(|hint| format!("\n  {hint}")).collect()
}

/// Advice on a word, if its meaning can be told. Options that change nothing are never meant.
#[must_use]
pub fn of(word: &str, form: Form) -> Option<Hint> {
    let key = word.trim_start_matches('-').replace('-', "_");
    let key = key.to_ascii_lowercase();
    if let Some(foreign) = ELSEWHERE.iter().find(|foreign| foreign.name == key) {
        return Some(Hint::Foreign(*foreign, form));
    }
    let acts = |option: &&OptionSpec| !matches!(option.support, Support::NoEffect(_));
    let all = || table::options().chain(table::OURS.options).filter(acts);
    // As `popart_dtype` is the key of `--dtype`.
    let named = all().find(|option| option.name[2..].replace('-', "_") == key);
    let meant = match form {
        Form::Key => named
            .map(|option| option.key)
            .or_else(|| most_like(&key, all().map(|option| option.key))),
        Form::Word => {
            let name = format!("--{}", key.replace('_', "-"));
            most_like(&name, all().map(|option| option.name))
        }
    };
    // A word that is an option was refused for where it stands.
    let meant = meant.filter(|meant| *meant != word)?;
    Some(Hint::Alike {
        word: word.into(),
        meant,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_lead_to_options_that_act() {
        for (place, foreign) in ELSEWHERE.iter().enumerate() {
            let ForeignName {
                name, here, note, ..
            } = foreign;
            assert_eq!(option(name), None, "{name} is a key here");
            assert!(!here.is_empty() || !note.is_empty(), "{name}");
            for key in *here {
                let option = option(key).unwrap_or_else(|| panic!("no key {key}"));
                assert!(!matches!(option.support, Support::NoEffect(_)), "{key}");
            }
            let before = &ELSEWHERE[..place];
            assert!(before.iter().all(|other| other.name != *name), "{name}");
        }
    }

    #[test]
    fn every_word_is_told_by_name_before_spelling() {
        let check = |word: &str, form, expected: Option<&str>| {
            let hint = of(word, form).map(|hint| hint.to_string());
            assert_eq!(hint.as_deref(), expected, "{word}");
        };
        check(
            "batch_size",
            Form::Key,
            Some(
                "'batch_size' is a name of earlier releases: here it is micro_batch_size and \
                 global_batch_size, of one replica's micro-batch, and of a whole weight update",
            ),
        );
        check(
            "--vocab-size",
            Form::Word,
            Some("'vocab_size' is Hugging Face's name: here it is --vocab-length"),
        );
        check(
            "custom_ops",
            Form::Key,
            Some(
                "'custom_ops' is a name of earlier releases: nothing says it here, for the \
                 model's own operators are always there",
            ),
        );
        check(
            "warmup_ratio",
            Form::Key,
            Some(
                "'warmup_ratio' is Hugging Face's name: here it is lr_warmup_steps, in steps and \
                 not as a share of them",
            ),
        );
        check(
            "--max-grad-norm",
            Form::Word,
            Some(
                "'max_grad_norm' is Hugging Face's name: here it is --gradient-clipping-norm, of \
                 all gradients together, too",
            ),
        );
        check(
            "model_type",
            Form::Key,
            Some(
                "'model_type' is Hugging Face's name: nothing says it here, for every model is BERT",
            ),
        );
        check(
            "dtype",
            Form::Key,
            Some("'dtype': did you mean popart_dtype?"),
        );
        check(
            "metrics_jsn",
            Form::Key,
            Some("'metrics_jsn': did you mean metrics_json?"),
        );
        // Spelt like --seed, which changes nothing.
        check("seeds", Form::Key, None);
        check("--num-ffwd-split", Form::Word, None);
        check("nothing_of_the_kind", Form::Key, None);
    }
}
