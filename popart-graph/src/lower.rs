//! From a graph to a device program.
//!
//! A placed graph and the order of its operations become one [`Program`]: variables with
//! layouts, and steps. What each operation becomes is in `ops.rs` and the files next to
//! it; how steps are emitted is in `builder.rs`; this file puts them together.
//!
//! With a pipeline, every stage is a function, and a pipeline cycle calls those of the
//! active stages (PopART, `popprograms.cpp`):
//!
//! ```text
//! init
//! repeat rounds:
//!     fill:   cycles 0 .. stages - 2, each with its active stages
//!     repeat micro_batches - (stages - 1): one cycle with all stages
//!     flush:  cycles with the stages that still have micro-batches
//!     weight update
//! ```
//!
//! Without accumulation there is one round: a run is filled and flushed once, the main
//! cycle is repeated for all its micro-batches, and a stage updates weights before it ends, in
//! every cycle. Only hyper-parameters are made ready before, as part of `start`.
//!
//! Each of these is a [`Section`] of the program, which the time of a program is sorted by.
//!
//! A cycle reads the host streams of its active stages, calls them in order, hands results
//! to the host and ends with all inter-IPU copies. Operations that are recomputed form
//! functions that the forward stage and, before the first gradient that needs them, the
//! backward stage call: the same vertices write the same variables.

mod alone;
mod builder;
mod ctx;
mod gather;
mod layouts;
mod loss;
mod matmul;
mod movement;
mod norm;
mod ops;
mod options;
mod products;
mod recompute;
mod stash;
mod state;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use ipu_sim::ids::{Id, IdVec, IpuId};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    Function, FunctionId, IpuCopy, Program, RemoteBufferId, Role, SourceId, Step, Stream, StreamId,
    Transfer, VarId, VarKind,
};
use ipu_sim::vertex::MapOp;
use ipu_sim::view::View;

pub use self::alone::product_alone;
use self::builder::Builder;
use self::ctx::{Ctx, Stashes, Variables, is_variable};
use self::ops::lower_and_commit;
pub(crate) use self::options::LowerOptions;
pub use self::options::{
    Execution, HostOptions, HostStreams, OutputReturn, Prefetch, Repeats, RunStart,
};
use self::products::plan_products;
use self::recompute::Segments;
use crate::ir::{Constant, Graph, OpId, Part, Phase, StageId, TensorId, TensorKind};
use crate::passes::Outlining;
use crate::plan::{PlanCache, PlanError};
use crate::profile::{Line, LineKind, Profile, Section};

/// A program and what the host needs to run it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Program that the device runs.
    pub program: Program,
    /// Meaning of the lines and sections of the program's profile.
    pub profile: Profile,
    /// Variables that live on the device, and how their tensors see them; with
    /// [`HostStreams::Absent`] those that stand in for inputs, too.
    pub variables: Vec<(TensorId, View)>,
    /// Variables that live in streaming memory, with their buffers, and how their tensors see
    /// the copies that are loaded: a buffer holds such a copy in storage order.
    pub remote_variables: Vec<(TensorId, RemoteBufferId, View)>,
    /// Tensors that the host supplies, by stream.
    pub inputs: Vec<(TensorId, StreamId)>,
    /// Tensors that the host receives, by stream.
    pub outputs: Vec<(TensorId, StreamId)>,
    /// Values that the host writes before the first run.
    pub constants: Vec<(VarId, Constant)>,
}

/// Lowers a placed graph whose operations run in `order` for the tiles of `plans`, which plans are
/// added to.
///
/// # Errors
///
/// A product that the machine has no vertex for.
pub(crate) fn lower(
    graph: &Graph,
    order: &[OpId],
    options: &LowerOptions<'_>,
    plans: &PlanCache,
) -> Result<Lowered, PlanError> {
    plan_products(graph, plans)?;
    let n_ipus = graph
        .ops
        .values()
        .filter_map(|op| op.ipu)
        .map(|ipu| ipu.0 + 1)
        .max()
        .unwrap_or(1);
    let mut program = Program::new(n_ipus, options.replicas);
    program.outlined = options.outlining == Outlining::On;
    program.started_by_host = options.host.start == RunStart::ByHost;
    let pipelined = matches!(options.execution, Execution::Pipelined { .. });
    let mut ctx = Ctx {
        graph,
        builder: Builder::new(program, graph.parts.clone(), plans.spec()),
        plans,
        values: IdVec::from(vec![None; graph.tensors.len()]),
        constant_values: BTreeMap::new(),
        variables: Variables::of(graph),
        late_copies: pipelined.then(Vec::new),
        updates_in_stages: graph.updates_in_stages(),
        stashes: Stashes::default(),
        init: Vec::new(),
        host_reads: Vec::new(),
        constants: Vec::new(),
        prefetch: options.host.prefetch,
        host: match options.host.streams {
            HostStreams::WhereNeeded if pipelined => HostStreams::Grouped,
            streams => streams,
        },
    };
    let mut outputs = Outputs::new(&options.host);
    let steps = match options.execution {
        Execution::Sequential { repeats } => {
            one_after_the_other(&mut ctx, order, *repeats, &mut outputs)
        }
        Execution::Pipelined { stages, repeats } => {
            pipeline(&mut ctx, order, stages, *repeats, &mut outputs)
        }
    };
    let mut main = in_section(&mut ctx, Section::Start, |ctx| {
        std::mem::take(&mut ctx.init)
    });
    main.extend(steps);
    main.extend(in_section(&mut ctx, Section::Results, |_| outputs.last));
    ctx.builder.program.steps = main;
    let variables = graph
        .tensors
        .ids()
        .filter(|&id| {
            let is_stream = matches!(graph.tensors[id].kind, TensorKind::Stream);
            is_variable(graph, id) || (is_stream && options.host.streams == HostStreams::Absent)
        })
        .filter_map(|id| Some((id, ctx.values[id].as_ref()?.single()?.clone())))
        .collect();
    Ok(Lowered {
        variables,
        remote_variables: ctx.variables.remote,
        inputs: ctx.variables.streams,
        outputs: outputs.streams,
        constants: ctx.constants,
        program: ctx.builder.program,
        profile: ctx.builder.profile,
    })
}

/// The steps that `emit` gives, as a section of the program.
fn in_section(
    ctx: &mut Ctx<'_>,
    section: Section,
    emit: impl FnOnce(&mut Ctx<'_>) -> Vec<Step>,
) -> Vec<Step> {
    let steps = emit(ctx);
    if steps.is_empty() {
        return steps;
    }
    let mark = ctx.builder.section(section);
    std::iter::once(mark).chain(steps).collect()
}

/// What leaves for the host.
struct Outputs {
    returned: OutputReturn,
    buffered: u32,
    streams: Vec<(TensorId, StreamId)>,
    /// After everything else of a run.
    last: Vec<Step>,
}

impl Outputs {
    fn new(host: &HostOptions) -> Self {
        Self {
            returned: host.outputs,
            buffered: host.outputs_buffered,
            streams: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Steps that hand over the outputs among `ops`' results.
    fn steps(&mut self, ctx: &mut Ctx<'_>, lowered: &[OpId]) -> Vec<Step> {
        let outside = std::mem::take(&mut ctx.builder.steps);
        for &id in lowered {
            let op = &ctx.graph.ops[id];
            for (result, &tensor) in op.outputs.iter().enumerate() {
                if ctx.graph.outputs.contains(&tensor) {
                    ctx.builder.ipu = op.result_ipu(result).unwrap_or(IpuId(0));
                    self.hand_over(ctx, tensor);
                }
            }
        }
        std::mem::replace(&mut ctx.builder.steps, outside)
    }

    fn hand_over(&mut self, ctx: &mut Ctx<'_>, tensor: TensorId) {
        if ctx.host == HostStreams::Absent {
            return;
        }
        let value = ctx.value(tensor);
        let name = ctx.graph.tensors[tensor].name.clone();
        let line = Line::around(LineKind::HostOutput, ctx.graph.tensors[tensor].part);
        ctx.builder.source = ctx.builder.line(&name, line, Role::Work);
        let stream = ctx.builder.program.streams.push(Stream {
            name: name.clone(),
            prefetch: false,
            buffering_depth: self.buffered,
        });
        self.streams.push((tensor, stream));
        let layout = ctx.builder.spread(&value.shape(), value.dtype);
        if self.returned == OutputReturn::All {
            let var = ctx
                .builder
                .add_var(&name, value.dtype, layout, VarKind::StreamBuffer);
            let view = ctx.builder.program.view(var);
            ctx.builder.copy_to_view(&value, &view);
            movement::push_transfer(ctx, Transfer::HostWrite { stream, var });
            return;
        }
        let total = ctx
            .builder
            .new_value(&name, DType::F32, layout, VarKind::StreamBuffer);
        let var = total.parts[0].var;
        let clear = separate(ctx, |ctx| ctx.builder.fill(var, 0.0));
        ctx.init.extend(clear);
        let add = MapOp::ScaledAdd { factor: 1.0 };
        ctx.builder.map_in_place(add, &[&total, &value], 0);
        let leave = separate(ctx, |ctx| {
            movement::push_transfer(ctx, Transfer::HostWrite { stream, var })
        });
        self.last.extend(leave);
    }
}

/// The steps that `emit` emits, apart from all others.
fn separate(ctx: &mut Ctx<'_>, emit: impl FnOnce(&mut Ctx<'_>)) -> Vec<Step> {
    let outside = std::mem::take(&mut ctx.builder.steps);
    emit(ctx);
    std::mem::replace(&mut ctx.builder.steps, outside)
}

/// Lowers operations without stages: a micro-batch, repeated, then the weight update.
fn one_after_the_other(
    ctx: &mut Ctx<'_>,
    order: &[OpId],
    repeats: Repeats,
    outputs: &mut Outputs,
) -> Vec<Step> {
    let (update, micro_batch): (Vec<OpId>, Vec<OpId>) = order
        .iter()
        .partition(|&&id| ctx.graph.ops[id].phase == Phase::Update);
    let compute = lower_all(ctx, &micro_batch);
    let mut body = std::mem::take(&mut ctx.host_reads);
    body.extend(compute);
    body.extend(outputs.steps(ctx, &micro_batch));
    let outer = weight_update(ctx, &update, outputs);
    let mut batch = in_section(ctx, Section::MicroBatches, |_| {
        let mut steps = Vec::new();
        push_repeat(&mut steps, repeats.micro_batches, body);
        steps
    });
    batch.extend(in_section(ctx, Section::Update, |_| outer));
    let mut steps = Vec::new();
    push_repeat(&mut steps, repeats.rounds, batch);
    steps
}

fn weight_update(ctx: &mut Ctx<'_>, update: &[OpId], outputs: &mut Outputs) -> Vec<Step> {
    let late = ctx.late_copies.take();
    let compute = lower_all(ctx, update);
    ctx.late_copies = late;
    let mut steps = std::mem::take(&mut ctx.host_reads);
    steps.extend(compute);
    steps.extend(outputs.steps(ctx, update));
    steps
}

fn push_repeat(steps: &mut Vec<Step>, count: u32, body: Vec<Step>) {
    match count {
        0 => {}
        1 => steps.extend(body),
        _ if body.is_empty() => {}
        _ => steps.push(Step::Repeat { count, body }),
    }
}

fn lower_all(ctx: &mut Ctx<'_>, ops: &[OpId]) -> Vec<Step> {
    let outside = std::mem::take(&mut ctx.builder.steps);
    for &id in ops {
        lower_and_commit(ctx, id);
    }
    std::mem::replace(&mut ctx.builder.steps, outside)
}

/// What a stage does in a cycle.
struct StageSteps {
    from_host: Vec<Step>,
    main: FunctionId,
    to_host: Vec<Step>,
}

fn pipeline(
    ctx: &mut Ctx<'_>,
    order: &[OpId],
    stage_ipus: &IdVec<StageId, IpuId>,
    repeats: Repeats,
    outputs: &mut Outputs,
) -> Vec<Step> {
    let update: Vec<OpId> = order
        .iter()
        .copied()
        .filter(|&id| ctx.graph.ops[id].phase == Phase::Update && ctx.graph.ops[id].stage.is_none())
        .collect();
    if ctx.updates_in_stages {
        let hyper_parameters = weight_update(ctx, &update, outputs);
        ctx.init.extend(hyper_parameters);
    }
    let mut segments = Segments::of(ctx.graph, order);
    let mut stages = Vec::new();
    for stage in stage_ipus.ids() {
        let ops: Vec<OpId> = order
            .iter()
            .copied()
            .filter(|&id| ctx.graph.ops[id].stage == Some(stage))
            .collect();
        let main = segments.lower_stage(ctx, stage, &ops);
        let function = Function {
            name: format!("stage {}", stage.index()),
            steps: main,
        };
        stages.push(StageSteps {
            from_host: std::mem::take(&mut ctx.host_reads),
            main: ctx.builder.program.functions.push(function),
            to_host: outputs.steps(ctx, &ops),
        });
    }
    let copies = ctx.late_copies.take().unwrap_or_default();
    let name = "pipeline";
    let part = ctx.builder.profile.parts.add(Part::single(name));
    let line = Line::around(LineKind::PipelineCopies, Some(part));
    let copy_source = ctx.builder.line(name, line, Role::Work);
    let cycles = Cycles {
        stages: &stages,
        copies: &copies,
        copy_source,
        micro_batches: repeats.micro_batches,
    };
    let outer = match ctx.updates_in_stages {
        true => Vec::new(),
        false => weight_update(ctx, &update, outputs),
    };
    let mut round = cycles.steps(ctx);
    round.extend(in_section(ctx, Section::Update, |_| outer));
    let mut steps = Vec::new();
    push_repeat(&mut steps, repeats.rounds, round);
    steps
}

/// The cycles of a pipeline.
struct Cycles<'a> {
    stages: &'a [StageSteps],
    copies: &'a [IpuCopy],
    copy_source: SourceId,
    micro_batches: u32,
}

impl Cycles<'_> {
    fn steps(&self, ctx: &mut Ctx<'_>) -> Vec<Step> {
        let fill = self.stages.len() as u32 - 1;
        let cycles = |range: std::ops::Range<u32>| range.flat_map(|cycle| self.cycle(cycle));
        let mut steps = in_section(ctx, Section::Fill, |_| cycles(0..fill).collect());
        steps.extend(in_section(ctx, Section::Main, |_| {
            let mut main = Vec::new();
            push_repeat(&mut main, self.micro_batches - fill, self.cycle(fill));
            main
        }));
        let flush = self.micro_batches..self.micro_batches + fill;
        steps.extend(in_section(ctx, Section::Drain, |_| cycles(flush).collect()));
        steps
    }

    fn cycle(&self, cycle: u32) -> Vec<Step> {
        let active: Vec<&StageSteps> = (0u32..)
            .zip(self.stages)
            .filter(|&(stage, _)| stage <= cycle && cycle < stage + self.micro_batches)
            .map(|(_, steps)| steps)
            .collect();
        let mut steps = Vec::new();
        steps.extend(
            active
                .iter()
                .flat_map(|stage| stage.from_host.iter().cloned()),
        );
        steps.extend(active.iter().map(|stage| Step::Call(stage.main)));
        steps.extend(
            active
                .iter()
                .flat_map(|stage| stage.to_host.iter().cloned()),
        );
        if !self.copies.is_empty() {
            steps.push(Step::IpuCopies {
                source: self.copy_source,
                copies: self.copies.to_vec(),
            });
        }
        steps
    }
}
