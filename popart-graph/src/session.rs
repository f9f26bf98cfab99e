//! From a model's graph to the program of a machine: the one assembly of passes, schedule and
//! lowering.
//!
//! ```text
//! graph ──passes──▶ graph of a micro-batch and an update ──schedule──▶ order ──lowering──▶ program
//! ```
//!
//! All that compiles a graph does it here (PopART: `TrainingSession` and `InferenceSession`), the
//! product as well as the proof that executes what came out, so what is proved is what ships. The
//! options of every step are in [`SessionOptions`]; how the counts of micro-batches
//! and the stages of a pipeline go together is said once, in `execution`.
//!
//! Left out: whether the program fits, which is asked of it afterwards
//! ([`ipu_sim::weigh`]), and how long it takes ([`ipu_sim::engine`]).

use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Flops;

use crate::flops;
use crate::ir::{Graph, OpId, Phase, TensorId};
use crate::lower::{Execution, HostOptions, LowerOptions, Lowered, Repeats, lower};
use crate::passes::pipeline_stages::{Pipeline, PipelineDepth};
use crate::passes::{Inference, Outlining, PassError, StateMemory, Training, Watch, infer, train};
use crate::plan::{PlanCache, PlanError};
use crate::schedule::{ScheduleError, overlap_updates, schedule};

/// Why a model can't be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CompileError {
    /// A pass refuses the graph or its options.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The operations have no order.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A matrix product has no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Options of a compilation: the run that the program is for, and the host beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Whether the program trains or only runs the model.
    pub purpose: Purpose,
    /// Options of how the device and its host work together.
    pub host: HostOptions,
}

/// Purpose of a run: training or inference, each with its options.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// Training of the model: forward, backward and weight update.
    Training(Training),
    /// Inference: the forward pass only.
    Inference(Inference),
}

impl Purpose {
    fn replicas(&self) -> u32 {
        match self {
            Purpose::Training(training) => training.optimizer.scaling.replicas,
            Purpose::Inference(inference) => inference.replicas,
        }
    }

    fn outlining(&self) -> Outlining {
        match self {
            Purpose::Training(training) => training.outlining,
            Purpose::Inference(inference) => inference.outlining,
        }
    }
}

/// A program, and what those who run and explain it need to know.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The graph that was lowered: one micro-batch and one weight update.
    pub graph: Graph,
    /// The program, and which of its variables and streams the graph's tensors are.
    pub lowered: Lowered,
    /// How the micro-batches of a run follow each other, and where stages are.
    pub execution: Execution,
    /// Whether weights are updated in the stages of the pipeline, after every micro-batch.
    pub updates_in_stages: bool,
    /// The stream of the learning rate, if the host sends it.
    pub learning_rate: Option<TensorId>,
    /// Work of the matrix products of one micro-batch on every IPU of a replica; what is computed
    /// again counts once.
    pub matmul_flops: IdVec<IpuId, Flops>,
}

/// Compiles a placed forward graph for a machine.
///
/// `plans` are those of products that are known for this machine's tiles; those that are made are
/// added.
/// `watch` sees what every pass makes of the graph.
///
/// # Errors
/// What a pass says of the graph or the options, among them a pipeline with too few micro-batches;
/// a cycle in the graph; a product that the machine has no vertex for.
///
/// # Panics
/// If `plans` are those of other tiles than the machine's.
pub fn compile(
    graph: Graph,
    options: &SessionOptions,
    machine: &MachineSpec,
    plans: &PlanCache,
    mut watch: Watch<'_>,
) -> Result<Compiled, CompileError> {
    assert!(
        *plans.spec() == machine.tile,
        "plans are for the tiles of one machine"
    );
    let prepared = match &options.purpose {
        Purpose::Training(training) => train(graph, training, &mut watch)?,
        Purpose::Inference(inference) => infer(graph, inference, &mut watch)?,
    };
    let graph = prepared.graph;
    let execution = execution(&options.purpose, prepared.pipeline);
    let order = order(&graph, &options.purpose, &execution)?;
    let lower_options = LowerOptions {
        replicas: options.purpose.replicas(),
        execution: &execution,
        outlining: options.purpose.outlining(),
        host: options.host,
    };
    let lowered = lower(&graph, &order, &lower_options, plans)?;
    Ok(Compiled {
        updates_in_stages: graph.updates_in_stages(),
        learning_rate: prepared.learning_rate,
        matmul_flops: matmul_flops(&graph, lowered.program.n_ipus),
        graph,
        lowered,
        execution,
    })
}

/// How often micro-batches, and what follows them, are repeated.
///
/// A pipeline is filled and flushed as seldom as can be: for each weight update where gradients
/// are accumulated, else once a run.
fn execution(purpose: &Purpose, pipeline: Option<Pipeline>) -> Execution {
    let Some(pipeline) = pipeline else {
        let repeats = match purpose {
            Purpose::Training(training) => Repeats {
                micro_batches: training.optimizer.scaling.accumulation,
                rounds: training.updates,
            },
            Purpose::Inference(inference) => Repeats {
                micro_batches: 1,
                rounds: inference.micro_batches,
            },
        };
        return Execution::Sequential { repeats };
    };
    let repeats = match purpose {
        Purpose::Training(training) => Repeats {
            micro_batches: training.depth().micro_batches(),
            rounds: match training.depth() {
                PipelineDepth::Accumulation(_) => training.updates,
                PipelineDepth::Updates(_) | PipelineDepth::MicroBatches(_) => 1,
            },
        },
        Purpose::Inference(inference) => Repeats {
            micro_batches: inference.micro_batches,
            rounds: 1,
        },
    };
    Execution::Pipelined {
        stages: pipeline.stages,
        repeats,
    }
}

/// The order of operations, with weight updates side by side where the published application asks
/// for it (`applications/popart/bert/bert.py`): with replicas, accumulation, a pipeline and state
/// in streaming memory, but for the first IPU's. With sharded state on the chip it asks for the
/// same (`OverlapMemoryOptimized`), which pairs loads that are alike: there are none, so the order
/// stays.
fn order(
    graph: &Graph,
    purpose: &Purpose,
    execution: &Execution,
) -> Result<Vec<OpId>, ScheduleError> {
    let schedule = schedule(graph)?;
    let overlaps = match (purpose, execution) {
        (Purpose::Training(training), Execution::Pipelined { .. }) => {
            let scaling = training.optimizer.scaling;
            scaling.replicas > 1
                && scaling.accumulates()
                && training.state.memory == StateMemory::OffChip
        }
        (Purpose::Training(_), Execution::Sequential { .. }) | (Purpose::Inference(_), _) => false,
    };
    Ok(match overlaps {
        true => overlap_updates(graph, schedule, &[IpuId(0)]).order,
        false => schedule.order,
    })
}

fn matmul_flops(graph: &Graph, n_ipus: u32) -> IdVec<IpuId, Flops> {
    let mut out: IdVec<IpuId, Flops> = vec![Flops::ZERO; n_ipus as usize].into();
    for (id, op) in graph.ops.iter() {
        if op.phase != Phase::Update {
            out[op.ipu.unwrap_or(IpuId(0))] += flops::of_op(graph, id).matmul_flops;
        }
    }
    out
}
