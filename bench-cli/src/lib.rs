//! The command line behind `ipu-bench`: words and files in, log lines, tables and reports out.
//!
//! ```text
//! words ──── args ──▶ Arguments ─┐
//! preset ── config ──────────────┴─▶ BertOptions ── run ──▶ Report ──▶ log, report
//!                                         │          │
//!                                         ▼          ▼
//!                              bench_core: RunConfig ──▶ Metrics
//! ```
//!
//! What a run is and what comes of it are [`bench_core`]'s; this crate adds what a person at a
//! terminal needs, and is the only one that opens files, prints or looks at the host's clock
//! ([`clock`]). [`args::table`](mod@args::table) is the one list of options. [`config`] turns words and
//! preset into typed [`BertOptions`](config::BertOptions), which render the arguments that reports
//! repeat; [`mod@run`] simulates them on a device; [`log`] and [`report`] say what came out.
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
pub mod files;
pub mod inspect;
pub mod interrupt;
pub mod launch;
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
pub mod text;

pub use error::{Error, Result};
