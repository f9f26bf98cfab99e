//! Config in, report out, as values: everything behind the `ipu-bench` command.
//!
//! ```text
//! words ── args ──▶ Arguments ─┐
//! preset ── config ────────────┴─▶ ResolvedConfig ──▶ RunRequest ── run ──▶ Metrics ──▶ report, log
//! ```
//!
//! [`args::table`] is the one list of options: parsing, checking, help and the resolved
//! configuration all read it. [`config`] turns the words and the preset file into a
//! [`config::ResolvedConfig`] with the typed [`config::BertOptions`]; [`run`] simulates them;
//! [`log`] and [`report`] say what came out.
//!
//! This is the only crate that opens files, prints or looks at the host's clock ([`clock`]).
//!
//! ```
//! use bench_cli::{args, config};
//!
//! let words = ["--task", "SQUAD", "--inference", "--encoder-start-ipu=0", "--micro-batch-size", "4"];
//! let given = args::parse(words.map(String::from))?;
//! let resolved = config::resolve(&given, None, "21-03-19-18-49-38")?;
//! assert_eq!(resolved.options.config.model.micro_batch, 4);
//! assert_eq!(resolved.options.config.ipus_requested(), 1);
//! # Ok::<(), bench_cli::Error>(())
//! ```

pub mod args;
pub mod clock;
pub mod compare;
pub mod config;
pub mod console;
pub mod data;
pub mod devices;
pub mod error;
pub mod inspect;
pub mod interrupt;
pub mod locks;
pub mod log;
pub mod metrics;
pub mod plan;
pub mod python;
pub mod report;
pub mod request;
pub mod run;
pub mod schema;
pub mod suite;
pub mod system;

pub use error::{Error, Result};
