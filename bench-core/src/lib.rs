//! The benchmark as a library: a configuration of BERT and a machine in, metrics out.
//!
//! ```text
//! RunConfig ────┐
//! MachineSpec ──┼──▶ evaluate ──▶ Metrics: sequences per second, latency, memory of every IPU,
//! PlanCache ◀───┘                          where cycles went, how far to trust all that
//! ```
//!
//! [`evaluate`](evaluate::evaluate) is a pure function: it attaches no device, opens no file, reads
//! no clock and prints nothing, and the same input gives the same metrics on every computer. The
//! `ipu-bench` command is one user of it; a search, a sweep or a binding are others.
//!
//! # One run
//!
//! A [`RunConfig`](config::RunConfig) says everything that shapes a run. It comes from a preset that
//! ships ([`presets`]), from the keys of a published configuration file that shape a run
//! ([`RunConfig::from_keys`](config::RunConfig::from_keys), which refuses others: keep those that
//! [`is_key`](config::keys::is_key) knows), or from `RunConfig::default()`. Its fields can be set like
//! those of any struct.
//!
//! ```
//! use bench_core::evaluate::evaluate;
//! use bench_core::explain::cause::Cause;
//! use bench_core::presets;
//! use ipu_sim::spec::MachineSpec;
//! use popart_graph::plan::PlanCache;
//! use serde_json::Map;
//!
//! // BERT-Large, phase 1 of pre-training, as published: 4 replicas of 4 IPUs.
//! let config = presets::run("pretrain_large_128", &Map::new()).expect("it ships")?;
//! assert_eq!(config.ipus_requested(), 16);
//!
//! let machine = MachineSpec::shipped("mk2-pod16")?;
//! let plans = PlanCache::new(machine.tile.clone());
//! let metrics = evaluate(&config, &machine, &plans)?;
//!
//! // How fast, and does it fit?
//! assert_eq!(format!("{:.1}", metrics.throughput_sequences_per_second), "3623.7");
//! assert!(metrics.fits);
//!
//! // Where does the step go on IPU 1, which has seven layers, and on IPU 0 with embedding and loss?
//! let percent = |ipu: usize, cause| {
//!     let cycles = metrics.time.ipus[ipu].by_cause.on(cause);
//!     cycles.0 * 100 / metrics.step_cycles.0
//! };
//! assert_eq!(percent(1, Cause::Compute), 59);
//! assert_eq!(percent(1, Cause::InternalExchange), 19);
//! assert_eq!(percent(1, Cause::IdleImbalance), 0);
//! assert_eq!(percent(0, Cause::IdleImbalance), 32);
//! # Ok::<(), bench_core::Error>(())
//! ```
//!
//! # Many runs
//!
//! Most of a first evaluation is planning of matrix products. A [`PlanCache`] keeps the plans of a
//! machine's tiles; threads share it by reference, and what is in it changes no metrics. Would
//! BERT-Large be faster with equally many layers on every IPU?
//!
//! ```
//! # use bench_core::evaluate::evaluate;
//! # use bench_core::presets;
//! # use ipu_sim::spec::MachineSpec;
//! # use popart_graph::plan::PlanCache;
//! # use serde_json::Map;
//! use bert_model::placement::{EncoderPlacement, LayersPerIpu};
//!
//! let published = presets::run("pretrain_large_128", &Map::new()).expect("it ships")?;
//! let mut even = published.clone();
//! even.placement.encoder = EncoderPlacement::Layers(LayersPerIpu {
//!     encoder_start_ipu: 0,
//!     layers_per_ipu: vec![6, 6, 6, 6], // 3, 7, 7, 7 as published
//! });
//!
//! let machine = MachineSpec::shipped("mk2-pod16")?;
//! let plans = PlanCache::new(machine.tile.clone());
//! let (published, even) = std::thread::scope(|scope| {
//!     let other = scope.spawn(|| evaluate(&even, &machine, &plans));
//!     let one = evaluate(&published, &machine, &plans);
//!     (one, other.join().expect("it doesn't panic"))
//! });
//! let (published, even) = (published?, even?);
//! assert!(even.fits && even.step_cycles > published.step_cycles);
//!
//! // The reason: embedding and loss are on IPU 0, which now comes last in every pipeline cycle.
//! let pipeline = even.time.pipeline.expect("the run is pipelined");
//! assert_eq!(pipeline.bounds, [pipeline.cycles, 0, 0, 0]);
//! let better = pipeline.best_move.expect("moving a layer helps");
//! assert_eq!((better.from, better.to), (0, 1));
//! # Ok::<(), bench_core::Error>(())
//! ```
//!
//! A machine may have other constants than those that ship:
//! [`MachineSpec::with`](ipu_sim::spec::MachineSpec::with) changes one by its key. Plans depend on a
//! machine's tiles, not on its links: another clock or memory needs a cache of its own, and `evaluate`
//! panics if it gets one for other tiles.
//!
//! # What to read next
//!
//! 1. [`config`]: what a run is, and [`config::keys`], its written form; [`release`]: which release of
//!    the published application it follows.
//! 2. [`metrics`] and [`measure`]: what comes out, and the one definition of throughput and latency.
//! 3. [`explain`]: where the cycles of a step went, and [`utilisation`], how much of the peak is used.
//! 4. [`evaluate`](mod@evaluate) and [`compile`]: the way from a run to its metrics, for those who want
//!    the program itself.
//! 5. [`accuracy`]: the interval around a throughput, and [`validate`]: the simulator against what
//!    was measured.
//! 6. [`advise`]: settings that make a model fit, and [`sensitivity`]: what each constant of a machine
//!    does to a run.
//! 7. [`suite`]: the eighteen runs of the published benchmark, and [`learning_rate`]: the rate of a
//!    step, for logs.
//!
//! A run that doesn't fit still has metrics, which say where and by how much. Only a model that no
//! plan could make fit is an [`Error`] (`TooLarge`), found before it is compiled.
//!
//! [`PlanCache`]: popart_graph::plan::PlanCache

pub mod config;
pub mod presets;
pub mod release;

pub mod compile;
pub mod evaluate;

pub mod explain;
pub mod headroom;
pub mod measure;
pub mod metrics;
pub mod utilisation;

pub mod accuracy;
pub mod advise;
pub mod learning_rate;
pub mod sensitivity;
pub mod suite;
pub mod validate;

pub mod error;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
