//! A graph compiler in the manner of PopART: from a graph of tensors to a program of tiles.
//!
//! ```text
//! ir ──passes──▶ ir, placed, with gradients, copies, stashes, updates
//!  │                 │ schedule: an order of its operations
//!  │ eval            ▼
//!  ▼              lower ◀── plan: how each matrix product is cut
//! values             │
//!                    ▼
//!              ipu_sim::program
//! ```
//!
//! The graph ([`ir`]) is data; each question about operations has one file with one answer
//! for each kind ([`infer`], [`flops`], [`eval`], [`grad`], [`text`], [`lower`]).
//! Nothing here knows of BERT, and only [`lower`] knows of tiles.
//!
//! [`session::compile`] is the way from a model to a program. Here a product of two matrices is
//! compiled for inference of eight micro-batches, and timed:
//!
//! ```
//! use ipu_sim::engine::{self, Mode, Options};
//! use ipu_sim::ids::IpuId;
//! use ipu_sim::numerics::DType;
//! use ipu_sim::spec::MachineSpec;
//! use popart_graph::ir::{Graph, MatMulPass, MemoryProportion, OpKind, Partials, Piece, Scope, Shape};
//! use popart_graph::lower::{HostOptions, HostStreams, OutputReturn, Prefetch, RunStart};
//! use popart_graph::passes::{Inference, Outlining, Pipelining, Watch};
//! use popart_graph::plan::PlanCache;
//! use popart_graph::session::{self, Purpose, SessionOptions};
//!
//! let mut graph = Graph::default();
//! let x = graph.stream("x", DType::F16, Shape::from([1024, 1024]));
//! let w = graph.variable("w", DType::F16, Shape::from([1024, 4096]), None);
//! let product = OpKind::MatMul {
//!     pass: MatMulPass::InferenceFwd,
//!     available_memory_proportion: MemoryProportion::POPLIBS_DEFAULT,
//!     partials: Partials::Half,
//!     piece: Piece::Whole,
//! };
//! let on_ipu_0 = Scope { ipu: Some(IpuId(0)), ..Scope::named("FF/1") };
//! let y = graph.add(product, &[x, w], &on_ipu_0)?;
//! graph.outputs.push(y);
//!
//! let options = SessionOptions {
//!     purpose: Purpose::Inference(Inference {
//!         pipelining: Pipelining::Off,
//!         replicas: 1,
//!         micro_batches: 8,
//!         outlining: Outlining::On,
//!     }),
//!     host: HostOptions {
//!         streams: HostStreams::Grouped,
//!         prefetch: Prefetch::Ahead(1),
//!         outputs_buffered: 1,
//!         outputs: OutputReturn::All,
//!         start: RunStart::ByHost,
//!     },
//! };
//! let machine = MachineSpec::shipped("mk2-m2000")?;
//! let plans = PlanCache::new(machine.tile.clone());
//! let compiled = session::compile(graph, &options, &machine, &plans, Watch::nobody())?;
//! assert_eq!(compiled.matmul_flops[IpuId(0)].0, 2 * 1024 * 1024 * 4096);
//!
//! let options = Options { mode: Mode::Folded, trace_depth: 0 };
//! let time = engine::time(&compiled.lowered.program, &machine, options)?;
//! // The planner's estimate leaves out launches, rearrangement and the host.
//! assert!(time.total.0 > compiled.execution.micro_batches() * 89_516);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod eval;
pub mod flops;
pub mod grad;
pub mod infer;
pub mod ir;
pub mod text;
pub mod verify;

pub mod lower;
pub mod passes;
pub mod plan;
pub mod profile;
pub mod schedule;
pub mod session;

pub mod error;
#[cfg(test)]
mod testing;
