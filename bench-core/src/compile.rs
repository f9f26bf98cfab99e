//! From a run to its program: the model, then the compiler's one session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bert_model::model::{self, BertModel};
use bert_model::optim::{self, GradientSums, LambNorms};
use bert_model::placement::{EncoderPlacement, Placement};
use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::program::{Program, StreamId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Bytes, Flops};
use popart_graph::ir::{Graph, OpKind, Reduction, TensorKind};
use popart_graph::lower::{HostOptions, OutputReturn, Prefetch, RunStart};
use popart_graph::passes::optimizer::rules::{LearningRate, OptimizerOptions};
use popart_graph::passes::{Inference, OptimizerState, Pipelining, Training, Watch};
use popart_graph::plan::PlanCache;
use popart_graph::profile::Profile;
use popart_graph::session::{self, Purpose, SessionOptions};

use crate::config::{InferenceIo, RunConfig};
use crate::error::{Error, LargePart, Result, TooLarge};
use crate::explain::StagePlacement;
use crate::explain::pipeline::Movable;
use crate::release::Release;

/// A program and what it is for.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program, which a device may share.
    pub program: Arc<Program>,
    /// Meaning of the lines of the program's profile.
    pub profile: Profile,
    /// The stream that a micro-batch reads first, and the one it writes last; none of a run that
    /// doesn't talk to its host.
    pub ends: Option<(StreamId, StreamId)>,
    /// Where stages run, and how many micro-batches of a replica a step has.
    pub placed: StagePlacement,
    /// Work of the graph's matrix products on every IPU in one micro-batch, nothing twice.
    pub matmul_flops: IdVec<IpuId, Flops>,
}

/// Compiles a run for a machine. `plans` are those of products that are known for its tiles; those
/// that had to be made are added. `watch` sees the model's graph and what every pass makes of it.
///
/// # Errors
///
/// A configuration that breaks a rule; a model that can't be built, placed, planned or pipelined as
/// asked, or that no plan could make fit; a machine with too few IPUs.
///
/// # Panics
///
/// If `plans` are those of other tiles than the machine's.
pub fn compile(
    config: &RunConfig,
    machine: &MachineSpec,
    plans: &PlanCache,
    mut watch: Watch<'_>,
) -> Result<Compiled> {
    config.check()?;
    let (needed, available) = (config.ipus_requested(), machine.n_ipus);
    if needed > available {
        return Err(Error::TooFewIpus {
            needed,
            available,
            machine: machine.name.clone(),
        });
    }
    let model = model(config)?;
    if config.is_pipelined() && model.placement.stages.len() < 2 {
        return Err(Error::OneStage);
    }
    watch.show("model", &model.graph);
    refuse_hopeless(&model.graph, machine)?;
    let options = SessionOptions {
        purpose: match config.is_inference() {
            true => Purpose::Inference(inference(config)),
            false => Purpose::Training(training(config, &model)),
        },
        host: host(config),
    };
    let compiled = session::compile(model.graph, &options, machine, plans, watch)?;
    let lowered = compiled.lowered;
    let read = lowered.inputs.first().map(|&(_, stream)| stream);
    let write = lowered.outputs.last().map(|&(_, stream)| stream);
    Ok(Compiled {
        placed: StagePlacement {
            stage_ipus: compiled.execution.stage_ipus(),
            micro_batches: compiled.execution.micro_batches(),
            updates_in_stages: compiled.updates_in_stages,
            movable: match config.placement.encoder {
                EncoderPlacement::Layers(_) => Movable::Layer,
                EncoderPlacement::Halves(_) => Movable::HalfLayer,
            },
        },
        matmul_flops: compiled.matmul_flops,
        ends: read.zip(write),
        profile: lowered.profile,
        program: Arc::new(lowered.program),
    })
}

/// The model of a run, placed.
///
/// # Errors
///
/// A model that can't be built or placed.
pub(crate) fn model(config: &RunConfig) -> Result<BertModel> {
    let (task, layers) = (config.task, config.model.num_layers);
    let placement = Placement::from_options(&config.placement, layers, task);
    let placement = placement.map_err(bert_model::error::Error::from)?;
    Ok(model::build(&config.model, &placement, task)?)
}

/// Refuses a model that no plan can make fit: one of whose matrix products alone fills its IPU,
/// since both operands and the result lie there at the same time, or whose weights do. Compiling
/// would only take longer to find out.
fn refuse_hopeless(graph: &Graph, machine: &MachineSpec) -> Result<()> {
    let tile = &machine.tile;
    let available = tile.memory * u64::from(tile.tiles_per_ipu);
    for op in graph.ops.values() {
        if matches!(op.kind, OpKind::MatMul { .. }) {
            let tensors = op.inputs.iter().chain(&op.outputs);
            let bytes = tensors.map(|&id| u128::from(graph.tensors[id].bytes().0));
            check_size(LargePart::Product(op.name.clone()), bytes.sum(), available)?;
        }
    }
    for (ipu, bytes) in weights_by_ipu(graph) {
        check_size(LargePart::Weights(ipu), bytes.0.into(), available)?;
    }
    Ok(())
}

fn check_size(part: LargePart, needed: u128, available: Bytes) -> Result<()> {
    match needed > u128::from(available.0) {
        true => Err(Error::TooLarge(TooLarge {
            part,
            needed,
            available,
        })),
        false => Ok(()),
    }
}

/// Bytes of the variables that operations on each IPU read.
fn weights_by_ipu(graph: &Graph) -> BTreeMap<IpuId, Bytes> {
    let mut bytes: BTreeMap<IpuId, Bytes> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for op in graph.ops.values() {
        let ipu = op.ipu.unwrap_or(IpuId(0));
        for &input in &op.inputs {
            let tensor = &graph.tensors[input];
            if matches!(tensor.kind, TensorKind::Variable { .. }) && seen.insert((ipu, input)) {
                *bytes.entry(ipu).or_default() += tensor.bytes();
            }
        }
    }
    bytes
}

fn pipelining(config: &RunConfig) -> Pipelining {
    match config.is_pipelined() {
        true => Pipelining::On,
        false => Pipelining::Off,
    }
}

fn inference(config: &RunConfig) -> Inference {
    Inference {
        pipelining: pipelining(config),
        replicas: config.batching.replicas,
        micro_batches: config.batching.batches_per_step,
        outlining: config.session.outlining,
    }
}

fn training(config: &RunConfig, model: &BertModel) -> Training {
    Training {
        loss: model.loss.expect("a model for training has a loss"),
        pipelining: pipelining(config),
        recompute: model.recompute_mode(),
        updates: config.batching.batches_per_step,
        optimizer: optimizer(config, model),
        state: OptimizerState {
            sharding: config.state.sharding,
            memory: config.state.memory,
        },
        softmax_dropout_gradient: config.session.softmax_dropout_gradient,
        collective_merging: config.session.collective_merging,
        outlining: config.session.outlining,
    }
}

fn host(config: &RunConfig) -> HostOptions {
    HostOptions {
        streams: config.session.host_streams,
        prefetch: prefetch(config),
        outputs_buffered: match config.release >= Release::V2_5 {
            true => config.session.buffering_depth,
            false => 1,
        },
        outputs: match config.is_inference() {
            true => OutputReturn::All,
            false => OutputReturn::Sum,
        },
        start: RunStart::ByHost,
    }
}

/// How far the host reads ahead: one batch as long as the application leaves it to the library,
/// three in v2.4, as many as asked from v2.5 on, where only a depth of one keeps anything from being
/// read ahead (PopART of SDK 2.5 does not look whether it may).
fn prefetch(config: &RunConfig) -> Prefetch {
    let minimum = config.session.inference_io == InferenceIo::MinimumLatency;
    let depth = match config.release {
        release if release >= Release::V2_5 => config.session.buffering_depth,
        Release::V2_4 if !minimum => 3,
        _ => 1,
    };
    match minimum && depth == 1 {
        true => Prefetch::Off,
        false => Prefetch::Ahead(depth),
    }
}

/// How gradients are combined: up to v2.2 the application asks for their mean only where it
/// accumulates some, and replicas alone are summed.
fn reduction(config: &RunConfig) -> Reduction {
    match config.release <= Release::V2_2 && config.batching.accumulation == 1 {
        true => Reduction::Sum,
        false => config.model.reduction,
    }
}

/// Which weights LAMB scales by their norms: from v2.3 on not those that are added.
fn lamb_norms(config: &RunConfig) -> LambNorms {
    match config.release >= Release::V2_3 {
        true => LambNorms::OfFactors,
        false => LambNorms::OfAll,
    }
}

fn optimizer(config: &RunConfig, model: &BertModel) -> OptimizerOptions {
    let sums = GradientSums {
        accumulation: config.batching.accumulation,
        replicas: config.batching.replicas,
        reduction: reduction(config),
    };
    // As in the application, a rate that no schedule changes is compiled in.
    let rate = match config.learning_rate.changes() {
        true => LearningRate::Stream,
        false => LearningRate::Constant(config.learning_rate.rate),
    };
    let norms = lamb_norms(config);
    optim::weight_updates(&config.optimizer, norms, model, sums, rate)
}
