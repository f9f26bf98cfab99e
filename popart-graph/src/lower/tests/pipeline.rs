//! A pipeline that doesn't accumulate: how many cycles it has, and which weights its stages see.

use std::collections::VecDeque;

use super::*;
use crate::ir::Reduction;
use crate::passes::optimizer::rules::{
    LearningRate, OptimizerOptions, Scaling, Sgd, UpdateRule, WeightUpdate,
};
use crate::passes::{
    CollectiveMerging, OptimizerState, RecomputeMode, Sharding, SoftmaxDropoutGradient,
    StateMemory, Training,
};

/// `loss = x v w`, with `v` on IPU 0 and `w` on IPU 1: three stages.
const CHAIN: &str = r#"variable %0: f32[2] = ones "v"
variable %1: f32[2] = ones "w"
stream %2: f32[2] "x"
%3: f32[2] = mul(%2, %0) @ipu0 stage0 fwd "front"
%4: f32[2] = mul(%3, %1) @ipu1 stage1 fwd "back"
%5: f32[] = reduce_sum(%4) {axes: [0], keep_dims: false} @ipu1 stage1 fwd "loss"
inputs %2
outputs %5
"#;

const N_STAGES: u32 = 3;

const RATE: f64 = 0.25;

fn lowered(micro_batches: u32, machine: &MachineSpec) -> Lowered {
    let sgd = Sgd {
        momentum: 0.0,
        dampening: 0.0,
        velocity_scaling: 1.0,
        weight_decay: 0.0,
    };
    let update = |weight| WeightUpdate {
        weight,
        learning_rate_scale: 1.0,
        rule: UpdateRule::Sgd(sgd),
    };
    let training = Training {
        loss: TensorId(5),
        pipelining: Pipelining::On,
        recompute: RecomputeMode::Pipeline {
            checkpoints: Vec::new(),
            whole_stages: Vec::new(),
        },
        updates: micro_batches,
        optimizer: OptimizerOptions {
            weights: vec![update(TensorId(0)), update(TensorId(1))],
            joint_norms: Vec::new(),
            scaling: Scaling {
                loss_scale: 1.0,
                accumulation: 1,
                replicas: 1,
                reduction: Reduction::Sum,
            },
            learning_rate: LearningRate::Stream,
            clip_norm: None,
        },
        state: OptimizerState {
            sharding: Sharding::Off,
            memory: StateMemory::OnChip,
        },
        softmax_dropout_gradient: SoftmaxDropoutGradient::Exact,
        collective_merging: CollectiveMerging::Off,
        outlining: Outlining::On,
    };
    let options = SessionOptions {
        purpose: Purpose::Training(training),
        host: host(HostStreams::Grouped),
    };
    let graph = crate::text::parse(CHAIN).unwrap();
    let plans = PlanCache::new(machine.tile.clone());
    let compiled = compile(graph, &options, machine, &plans, Watch::nobody()).unwrap();
    assert_eq!(compiled.execution.stage_ipus().len(), N_STAGES as usize);
    assert_eq!(compiled.execution.micro_batches(), u64::from(micro_batches));
    assert!(compiled.updates_in_stages);
    let rate = compiled.learning_rate.unwrap();
    assert_eq!(compiled.graph.tensors[rate].name, "learningRate");
    compiled.lowered
}

/// How often `wanted` steps happen in a run.
fn times(lowered: &Lowered, steps: &[Step], wanted: fn(&Step) -> bool) -> u32 {
    let of_step = |step: &Step| match step {
        Step::Repeat { count, body } => count * times(lowered, body, wanted),
        Step::Call(function) => times(lowered, &lowered.program.functions[*function].steps, wanted),
        step => u32::from(wanted(step)),
    };
    steps.iter().map(of_step).sum()
}

/// `n + P - 1` cycles, each of which ends with copies; every stage runs `n` times, and the rate
/// is sent once. Beyond filling and draining, a longer run is no longer program.
#[test]
fn a_run_is_filled_and_drained_once() {
    let machine = small(4);
    let mut lengths = Vec::new();
    for n in [3, 4, 50] {
        let lowered = lowered(n, &machine);
        let steps = &lowered.program.steps;
        let count = |wanted| times(&lowered, steps, wanted);
        // The rate travels to the other IPU before the first cycle.
        let copies = count(|step| matches!(step, Step::IpuCopies { .. }));
        assert_eq!(copies, 1 + n + N_STAGES - 1);
        // An input and an output for each micro-batch.
        let transfers = count(|step| matches!(step, Step::Transfers { .. }));
        assert_eq!(transfers, 1 + 2 * n);
        lengths.push(steps.len());
    }
    assert_eq!(lengths[1], lengths[2]);
}

/// Inputs one after the other, and losses.
struct Queue<'a> {
    lowered: &'a Lowered,
    x: VecDeque<Vec<f64>>,
    losses: Vec<f64>,
}

impl Host for Queue<'_> {
    fn read(&mut self, _: ReplicaId, stream: StreamId) -> Result<Vec<f64>, StreamError> {
        let inputs = &self.lowered.inputs;
        match inputs.iter().find(|(_, id)| *id == stream) {
            Some((TensorId(2), _)) => self.x.pop_front().ok_or(StreamError::Exhausted),
            Some(_) => Ok(vec![RATE]),
            None => Err(StreamError::NotConnected),
        }
    }

    fn write(&mut self, _: ReplicaId, _: StreamId, values: Vec<f64>) -> Result<(), StreamError> {
        self.losses.extend(values);
        Ok(())
    }
}

/// `w` is updated in the stage of the loss, so each micro-batch sees it after all earlier
/// updates. `v` is updated two stages after its forward pass, so the updates of the last two
/// micro-batches are missing there. Worked out by hand, with no graph: all numbers are exact.
#[test]
fn stages_see_the_weights_that_are_there() {
    let machine = MachineSpec::shipped("mk2-m2000").unwrap();
    let machine = machine.scaled_down(2, 4).unwrap();
    let x = [[1.0, 2.0], [-1.0, 0.5], [0.5, 1.0], [2.0, -0.5], [1.0, 1.0]];
    let lowered = lowered(x.len() as u32, &machine);
    let mut memory = Memory::new(&lowered.program).unwrap();
    let mut remote = RemoteMemory::new(&lowered.program);
    for (_, view) in &lowered.variables {
        memory.write(ReplicaId(0), view.var, &[1.0, 1.0]).unwrap();
    }
    for &(var, constant) in &lowered.constants {
        let Constant::Splat(value) = constant else {
            unreachable!("there is one constant, the gradient of the loss")
        };
        let n = lowered.program.elements_of(var).0 as usize;
        memory.write(ReplicaId(0), var, &vec![value; n]).unwrap();
    }
    for step in &lowered.program.steps {
        // While the pipeline fills, stages that have done nothing yet are copied, too.
        if let Step::IpuCopies { copies, .. } = step {
            for copy in copies {
                let n = lowered.program.elements_of(copy.src).0 as usize;
                let nothing = vec![f64::NAN; n];
                memory.write(ReplicaId(0), copy.src, &nothing).unwrap();
            }
        }
    }
    let mut host = Queue {
        lowered: &lowered,
        x: x.iter().map(|x| x.to_vec()).collect(),
        losses: Vec::new(),
    };
    execute::run(&mut memory, &mut host, &mut remote).unwrap();

    // Versions of the weights: after no update, after one, ...
    let (mut v, mut w) = (vec![[1.0, 1.0]], vec![[1.0, 1.0]]);
    let mut losses = Vec::new();
    for (m, x) in x.iter().enumerate() {
        let seen = v[m.saturating_sub(2)];
        let each = |f: &dyn Fn(usize) -> f64| [f(0), f(1)];
        let front = each(&|i| x[i] * seen[i]);
        losses.push(front[0] * w[m][0] + front[1] * w[m][1]);
        let (next_v, next_w) = (
            each(&|i| v[m][i] - RATE * w[m][i] * x[i]),
            each(&|i| w[m][i] - RATE * front[i]),
        );
        v.push(next_v);
        w.push(next_w);
    }
    assert_eq!(host.losses, losses);
    for (tensor, view) in &lowered.variables {
        let got = memory.read(ReplicaId(0), view.var).unwrap();
        let want = if *tensor == TensorId(0) { &v } else { &w };
        assert_eq!(got, want[x.len()], "{tensor}");
    }
}
