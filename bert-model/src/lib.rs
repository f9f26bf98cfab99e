//! BERT as graphs: what a training step or an inference computes, and where.
//!
//! [`model::build`] takes a [`config::BertConfig`], a [`placement::Placement`] and
//! a [`config::Task`], and gives the forward graph of one micro-batch:
//!
//! ```text
//! ids ─ embedding ─ layer 0 ─ … ─ layer L-1 ─┬─ next sentence ─┐
//!        word,      attention,               └─ transform,     ├─ loss
//!        position,  feed-forward                vocabulary ────┘
//!        segment                                (or answers)
//! ```
//!
//! The passes of `popart_graph` make a training step of it: gradients from the
//! loss back, copies between IPUs, stashes, an optimiser for each of
//! [`model::BertModel::weights`]. [`init`] and [`data`] give the values to run it
//! on, [`optim`] the numbers of each weight's update, [`counts`] what can be said
//! without running anything.
//!
//! ```
//! use bert_model::config::{BertConfig, Mode, Task};
//! use bert_model::counts::{flops_training, parameters};
//! use bert_model::model::build;
//! use bert_model::placement::{
//!     EncoderMemory, EncoderPlacement, Execution, LayersPerIpu, Placement, PlacementOptions,
//!     Recomputation, SquadHead,
//! };
//!
//! let task = Task::Pretraining(Mode::Training);
//! let config = BertConfig { micro_batch: 8, ..BertConfig::large() };
//! let options = PlacementOptions {
//!     encoder: EncoderPlacement::Layers(LayersPerIpu {
//!         encoder_start_ipu: 0,
//!         layers_per_ipu: vec![3, 7, 7, 7],
//!     }),
//!     memory: EncoderMemory::PerIpu(vec![0.15, 0.25, 0.25, 0.25]),
//!     squad_head: SquadHead::FirstIpu,
//!     recomputation: Recomputation::FromEveryLayer,
//!     execution: Execution::Pipelined,
//! };
//! let placement = Placement::from_options(&options, config.num_layers, task)?;
//! let model = build(&config, &placement, task)?;
//!
//! assert_eq!(placement.stage_ipus(task).len(), 9);
//! // Of 24 layers, the last on each of four IPUs is sent on rather than kept.
//! assert_eq!(model.checkpoints.len(), 20);
//! assert_eq!(parameters(&config, task).0, 335_972_354);
//! assert_eq!(flops_training(&config, task).0 / 1_000_000, 241_308);
//! # Ok::<(), bert_model::error::Error>(())
//! ```
//!
//! No number of cycles appears in this crate, and it touches no file and no clock.
//! Facts are those of the published PopART application (`applications/popart/bert`
//! of graphcore/examples, v2.2.0).

pub mod config;
pub mod interface;
pub mod placement;

mod attention;
mod builder;
mod embedding;
mod encoder;
mod feed_forward;
mod heads;
mod linear;
pub mod model;
mod parts;

pub mod counts;
pub mod data;
pub mod init;
pub mod optim;

pub mod error;
