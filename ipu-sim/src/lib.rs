//! A cycle-approximate simulator of Graphcore IPUs and IPU-PODs, behind a device driver.
//!
//! A machine is a description ([`spec`]); what it runs is a [`program`]: variables with
//! layouts on tiles, and steps over them. One program has three readers:
//!
//! ```text
//!                    ┌──▶ engine   how many cycles, and where they go
//! program ───────────┼──▶ weigh    how many bytes on every tile, and whether they fit
//!  + machine         └──▶ execute  which values, computed on tile memory
//! ```
//!
//! There is no second path: no cycle is charged for work that the program doesn't contain,
//! and no value is computed by work that isn't charged. A driver ([`device`]) stands in
//! front, as for real hardware: devices are attached, loaded, run and read.
//!
//! Two additions on one tile, timed and executed:
//!
//! ```
//! use ipu_sim::engine::{self, Mode, Options};
//! use ipu_sim::execute::{self, Host, Memory, RemoteMemory};
//! use ipu_sim::ids::{IpuId, ReplicaId};
//! use ipu_sim::layout::{AxisSplit, Layout};
//! use ipu_sim::numerics::DType;
//! use ipu_sim::program::*;
//! use ipu_sim::spec::MachineSpec;
//! use ipu_sim::vertex::{BinaryFn, MapOp, Vertex};
//!
//! // Four numbers on tile 0 of a machine with one IPU and one replica.
//! let mut program = Program::new(1, 1);
//! let layout = program.add_layout(Layout::row_major(vec![AxisSplit::whole(4)]));
//! let source = program.add_source("sum", "add");
//! let x = program.vars.push(Variable {
//!     name: "x".into(),
//!     dtype: DType::F32,
//!     ipu: IpuId(0),
//!     layout,
//!     kind: VarKind::Weight,
//! });
//! // x = x + x, twice.
//! let add = Step::Compute(ComputeSet {
//!     source,
//!     ipu: IpuId(0),
//!     vertices: vec![VertexGroup {
//!         vertex: Vertex::Map(MapOp::Binary(BinaryFn::Add)),
//!         output: Operand::new(x, &[0]),
//!         inputs: [Operand::new(x, &[0]), Operand::new(x, &[0])].into_iter().collect(),
//!     }],
//! });
//! program.steps = vec![Step::Repeat { count: 2, body: vec![add] }];
//!
//! let machine = MachineSpec::shipped("mk2-m2000")?;
//! let options = Options { mode: Mode::Folded, trace_depth: 0 };
//! let once = engine::time(&program, &machine, options)?.total;
//! program.steps.extend(program.steps.clone());
//! assert_eq!(engine::time(&program, &machine, options)?.total, once * 2);
//!
//! let mut memory = Memory::new(&program)?;
//! memory.write(ReplicaId(0), x, &[1.0, 2.0, 3.0, 4.0])?;
//! # struct NoHost;
//! # impl Host for NoHost {
//! #     fn read(&mut self, _: ReplicaId, _: StreamId) -> Result<Vec<f64>, execute::StreamError> {
//! #         Err(execute::StreamError::NotConnected)
//! #     }
//! #     fn write(&mut self, _: ReplicaId, _: StreamId, _: Vec<f64>) -> Result<(), execute::StreamError> {
//! #         Err(execute::StreamError::NotConnected)
//! #     }
//! # }
//! execute::run(&mut memory, &mut NoHost, &mut RemoteMemory::new(&program))?;
//! assert_eq!(memory.read(ReplicaId(0), x)?, [16.0, 32.0, 48.0, 64.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod ids;
pub mod numerics;
pub mod spec;
pub mod topology;
pub mod units;

pub mod exchange;
pub mod layout;
pub mod program;
pub mod text;
pub mod vertex;
pub mod view;

pub mod cost;
pub mod device;
pub mod engine;
pub mod execute;
pub mod trace;
pub mod weigh;

pub mod error;
