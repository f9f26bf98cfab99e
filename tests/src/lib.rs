//! Does the lowered program compute what the model means?
//!
//! Whole-stack tests live in `tests/tests/`; here is what they share. A [`Case`] is a small
//! BERT, compiled by the passes for a small machine. It can be computed twice from the
//! same weights and data: by [`Case::execute`], which lowers it and runs the program tile by
//! tile, in the machine's number formats and with its sums; and by [`Case::evaluate`], which
//! evaluates the graph in `f64` and knows neither tiles nor plans.
//!
//! Left out: replicas, and state in streaming memory.

pub mod compare;
pub mod execute;

use std::collections::BTreeMap;
use std::error::Error;

use bert_model::config::{BertConfig, Task};
use bert_model::data::{MicroBatch, generated};
use bert_model::init::{generator, initial_values};
use bert_model::model::{self, BertModel};
use bert_model::placement::{
    EncoderMemory, Execution, LayersPerIpu, Placement, Recomputation, SquadHead,
};
use ipu_sim::numerics::DType;
use ipu_sim::spec::MachineSpec;
use popart_graph::eval::{EvalOptions, Inputs, PerReplica, Value, apply_updates, eval};
use popart_graph::ir::{Phase, TensorId};
use popart_graph::lower::{LowerOptions, Lowered, lower};
use popart_graph::passes::optimizer::rules::{
    Adam, LearningRate, OptimizerOptions, Scaling, Sgd, UpdateRule, WeightUpdate,
};
use popart_graph::passes::{
    self, Compiled, Inference, OptimizerState, Pipelining, RecomputeMode, Training,
};
use popart_graph::plan::PlanCache;
use popart_graph::schedule::schedule;

/// A result with whatever went wrong, for a test to show.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The learning rate of all cases, as `f32` holds it: large, so that a step shows in the weights.
pub const LEARNING_RATE: f64 = 0.0078125;

/// The loss scale of all cases; a power of two, as users take it.
pub const LOSS_SCALE: f64 = 8.0;

/// Published decay of weights (`applications/popart/bert`, pre-training presets).
const WEIGHT_DECAY: f64 = 0.01;

/// How a case runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What the model is for.
    pub task: Task,
    /// Whether stages overlap, recomputing what they can.
    pub pipelining: Pipelining,
    /// Micro-batches of a run: of the weight update, or of inference.
    pub micro_batches: u32,
    /// What is done to every weight; without effect in inference.
    pub rule: UpdateRule,
    /// What a pipeline computes again.
    pub recomputation: Recomputation,
    /// Where the encoder starts; the model has two layers and four IPUs at most.
    pub encoder_start_ipu: u32,
    /// Encoder layers of each IPU from there on; one number stands for all.
    pub layers_per_ipu: &'static [u32],
    /// Whether queries, keys and values have weights of their own.
    pub split_qkv: bool,
    /// Slices of the word table.
    pub vocab_steps: u32,
}

impl Plan {
    /// A plan whose encoder has an IPU a layer, with what the published presets choose: a
    /// pipeline recomputes from the inputs of its stages.
    #[must_use]
    pub fn new(task: Task, pipelining: Pipelining, micro_batches: u32, rule: UpdateRule) -> Self {
        let pipelined = pipelining == Pipelining::On;
        Self {
            task,
            pipelining,
            micro_batches,
            rule,
            recomputation: match pipelined {
                true => Recomputation::FromStageInput,
                false => Recomputation::Off,
            },
            // A pipeline with one more IPU would take eleven micro-batches to fill.
            encoder_start_ipu: if pipelined { 1 } else { 2 },
            layers_per_ipu: &[1],
            split_qkv: BertConfig::base().split_qkv,
            vocab_steps: 2,
        }
    }
}

/// Numbers by tensor.
pub type Tensors = BTreeMap<TensorId, Vec<f64>>;

/// What a run leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Outputs of the model: in training summed over micro-batches, else one after the other.
    pub outputs: Tensors,
    /// Variables after the run: weights, moments, accumulators.
    pub variables: Tensors,
}

/// A compiled model with its first values and data.
#[derive(Clone, Debug)]
pub struct Case {
    plan: Plan,
    /// The model, before the passes.
    pub model: BertModel,
    /// The graph of a micro-batch and an update.
    pub compiled: Compiled,
    /// First values of all variables.
    pub variables: Tensors,
    batches: Vec<MicroBatch>,
    machine: MachineSpec,
}

/// LAMB without bias correction.
#[must_use]
pub fn lamb() -> UpdateRule {
    UpdateRule::Adam(Adam {
        // The largest `f16`, the published default.
        max_weight_norm: Some(65_504.0),
        bias_correction: false,
        ..adam_numbers()
    })
}

/// Adam with bias correction.
#[must_use]
pub fn adam() -> UpdateRule {
    UpdateRule::Adam(adam_numbers())
}

/// LAMB or Adam with the other choice of bias correction.
#[must_use]
pub fn other_correction(rule: UpdateRule) -> UpdateRule {
    match rule {
        UpdateRule::Adam(adam) => UpdateRule::Adam(Adam {
            bias_correction: !adam.bias_correction,
            ..adam
        }),
        UpdateRule::Sgd(_) => rule,
    }
}

/// Gradient descent without momentum.
#[must_use]
pub fn plain_sgd() -> UpdateRule {
    UpdateRule::Sgd(Sgd {
        momentum: 0.0,
        dampening: 0.0,
        velocity_scaling: 1.0,
        weight_decay: WEIGHT_DECAY,
    })
}

/// Gradient descent with momentum.
#[must_use]
pub fn sgd() -> UpdateRule {
    UpdateRule::Sgd(Sgd {
        momentum: 0.9,
        dampening: 0.5,
        velocity_scaling: 1.0,
        weight_decay: WEIGHT_DECAY,
    })
}

fn adam_numbers() -> Adam {
    Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-6,
        weight_decay: WEIGHT_DECAY,
        bias_correction: true,
        max_weight_norm: None,
        first_moment: DType::F32,
    }
}

/// Two layers of width 64 in `f32`, with dropout and the word table in two slices.
#[must_use]
pub fn small_bert() -> BertConfig {
    BertConfig {
        micro_batch: 2,
        sequence_length: 16,
        max_positional_length: 18,
        mask_tokens: 3,
        vocab_length: 120,
        hidden_size: 64,
        ff_size: 256,
        attention_heads: 4,
        num_layers: 2,
        vocab_steps: 2,
        dtype: DType::F32,
        half_partials: false,
        ..BertConfig::base()
    }
}

/// Four IPUs of 32 tiles.
///
/// # Errors
/// The description doesn't ship.
pub fn small_machine() -> Result<MachineSpec> {
    Ok(MachineSpec::shipped("mk2-m2000")?.scaled_down(4, 32)?)
}

impl Case {
    /// Builds [`small_bert`] over four IPUs, or three with a pipeline, and puts it through the passes.
    ///
    /// # Errors
    /// The model, a pass or the machine refuses.
    pub fn new(plan: Plan) -> Result<Self> {
        let config = BertConfig {
            split_qkv: plan.split_qkv,
            vocab_steps: plan.vocab_steps,
            ..small_bert()
        };
        let pipelined = plan.pipelining == Pipelining::On;
        let layers = LayersPerIpu {
            encoder_start_ipu: plan.encoder_start_ipu,
            layers_per_ipu: plan.layers_per_ipu.to_vec(),
            memory: EncoderMemory::PoplibsDefault,
            squad_head: SquadHead::default_for(plan.task.mode()),
            recomputation: plan.recomputation,
            execution: match pipelined {
                true => Execution::Pipelined,
                false => Execution::Sequential,
            },
        };
        let placement = Placement::from_layers_per_ipu(&layers, config.num_layers, plan.task)?;
        let model = model::build(&config, &placement, plan.task)?;
        let compiled = compile(&model, &config, plan)?;
        let mut data = generator(3, "data");
        let batches = (0..plan.micro_batches)
            .map(|_| generated(&model, &config, plan.task, &mut data))
            .collect();
        let variables = initial_values(&compiled.graph, 1)?
            .into_iter()
            .map(|(id, values)| (id, values.into_iter().map(f64::from).collect()))
            .collect();
        Ok(Self {
            plan,
            model,
            compiled,
            variables,
            batches,
            machine: small_machine()?,
        })
    }

    /// Stages of the pipeline, 0 without one.
    #[must_use]
    pub fn n_stages(&self) -> u32 {
        let pipeline = self.compiled.pipeline.as_ref();
        pipeline.map_or(0, |pipeline| pipeline.stages.len() as u32)
    }

    /// The program for the small machine.
    ///
    /// # Errors
    /// The machine has no vertex for a product.
    pub fn lower(&self) -> Result<Lowered> {
        let graph = &self.compiled.graph;
        let order = schedule(graph)?.order;
        let trains = self.plan.task.trains();
        let together = trains || self.n_stages() > 0;
        let options = LowerOptions {
            replicas: 1,
            accumulation: if together { self.plan.micro_batches } else { 1 },
            batches_per_step: if together { 1 } else { self.plan.micro_batches },
            stages: self.n_stages(),
            outline: true,
            prefetch: true,
            sum_outputs: trains,
        };
        let mut plans = PlanCache::new(self.machine.tile.clone());
        Ok(lower(
            graph,
            &order,
            &options,
            &mut plans,
            &self.machine.tile,
        )?)
    }

    /// Runs the program on the small machine, once.
    ///
    /// # Errors
    /// It can't be lowered or executed.
    pub fn execute(&self) -> Result<Results> {
        let lowered = self.lower()?;
        let mut feeds = execute::Feeds::default();
        for batch in &self.batches {
            for (tensor, values) in batch {
                let element = values.iter().map(|&value| f64::from(value)).collect();
                feeds.entry(*tensor).or_default().push_back(element);
            }
        }
        if let Some(rate) = self.compiled.learning_rate {
            feeds.insert(rate, [vec![LEARNING_RATE]].into());
        }
        execute::run(&lowered, &self.variables, feeds)
    }

    /// Evaluates the graph in `f64`: every micro-batch, then the update.
    ///
    /// # Errors
    /// The graph can't be evaluated.
    pub fn evaluate(&self) -> Result<Results> {
        let graph = &self.compiled.graph;
        let options = EvalOptions {
            round_to_dtype: false,
            replicas: 1,
        };
        let mut inputs: Inputs = self.variables.clone().into_iter().map(shared).collect();
        let rate = self.compiled.learning_rate;
        inputs.extend(rate.map(|rate| shared((rate, vec![LEARNING_RATE]))));
        let sums = self.sums();
        let mut results = Results::default();
        for (number, batch) in self.batches.iter().enumerate() {
            for (tensor, values) in batch {
                inputs.insert(*tensor, PerReplica::from(values.clone()));
            }
            let values = eval(graph, &inputs, options)?;
            for output in &graph.outputs {
                let element = values[*output].on(0).as_floats();
                let all = results.outputs.entry(*output).or_default();
                if self.plan.task.trains() && number > 0 {
                    all.iter_mut().zip(element).for_each(|(sum, x)| *sum += x);
                } else {
                    all.extend(element);
                }
            }
            if number + 1 < self.batches.len() {
                for (&variable, &sum) in &sums {
                    inputs.insert(variable, values[sum].clone());
                }
            } else {
                apply_updates(graph, &values, &mut inputs);
            }
        }
        results.variables = self
            .variables
            .keys()
            .map(|id| (*id, inputs[id].on(0).as_floats().to_vec()))
            .collect();
        Ok(results)
    }

    /// What every accumulator holds after a micro-batch that isn't the last: the end of the chain
    /// of sums that starts at it.
    fn sums(&self) -> BTreeMap<TensorId, TensorId> {
        let graph = &self.compiled.graph;
        let producers = graph.producers();
        let mut sums = BTreeMap::new();
        let summing = graph
            .ops
            .values()
            .filter(|op| op.phase == Phase::Accumulate);
        for op in summing {
            let mut source = op.inputs[0];
            let mut depth = 0;
            while let Some(producer) = producers[source] {
                source = graph.ops[producer].inputs[0];
                depth += 1;
            }
            let is_updated = graph
                .updates
                .iter()
                .any(|(variable, _)| *variable == source);
            let is_weight = self
                .model
                .weights
                .iter()
                .any(|weight| weight.tensor == source);
            if is_updated && !is_weight {
                let last = sums.entry(source).or_insert((depth, op.outputs[0]));
                *last = (*last).max((depth, op.outputs[0]));
            }
        }
        let last = |(variable, (_, sum))| (variable, sum);
        sums.into_iter().map(last).collect()
    }
}

fn shared((id, values): (TensorId, Vec<f64>)) -> (TensorId, PerReplica) {
    (id, PerReplica::Same(Value::Float(values)))
}

fn compile(model: &BertModel, config: &BertConfig, plan: Plan) -> Result<Compiled> {
    let graph = model.graph.clone();
    let Some(loss) = model.loss else {
        let options = Inference {
            pipelining: plan.pipelining,
            batches_per_step: plan.micro_batches,
        };
        return Ok(passes::infer(graph, &options)?);
    };
    let training = Training {
        loss,
        checkpoints: model.checkpoints.clone(),
        pipelining: plan.pipelining,
        recompute: match (plan.pipelining, plan.recomputation) {
            (Pipelining::Off, _) | (_, Recomputation::Off) => RecomputeMode::None,
            (Pipelining::On, _) => RecomputeMode::Pipeline,
        },
        whole_stages: Vec::new(),
        batches_per_step: 1,
        optimizer: optimizer(model, config, plan),
        state: OptimizerState {
            sharded: false,
            off_chip: false,
        },
    };
    Ok(passes::train(graph, &training)?)
}

fn optimizer(model: &BertModel, config: &BertConfig, plan: Plan) -> OptimizerOptions {
    let weights = model.weights.iter().map(|weight| {
        let mut rule = plan.rule;
        if !weight.decays {
            match &mut rule {
                UpdateRule::Sgd(sgd) => sgd.weight_decay = 0.0,
                UpdateRule::Adam(adam) => adam.weight_decay = 0.0,
            }
        }
        WeightUpdate {
            weight: weight.tensor,
            learning_rate_scale: 1.0,
            rule,
        }
    });
    let joint = model
        .serialised_weights
        .iter()
        .filter(|weight| weight.joint_norm);
    OptimizerOptions {
        weights: weights.collect(),
        joint_norms: joint.map(|weight| weight.slices.clone()).collect(),
        scaling: Scaling {
            loss_scale: LOSS_SCALE,
            accumulation: plan.micro_batches,
            replicas: 1,
            reduction: config.reduction,
        },
        learning_rate: LearningRate::Stream,
    }
}
