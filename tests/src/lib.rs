//! Does the lowered program compute what the model means?
//!
//! Whole-stack tests live in `tests/tests/`; here is what they share. A [`Case`] is a small
//! BERT, compiled by the passes for a small machine as its [`Plan`] says. It can be computed
//! twice from the same weights and data: by [`Case::execute`], which lowers it and runs the
//! program tile by tile, in the machine's number formats and with its sums; and by
//! [`Case::evaluate`], which evaluates the graph in `f64` and knows neither tiles nor plans. What
//! the passes themselves may get wrong is left to [`plain`], which trains the model without them.

pub mod compare;
pub mod evaluate;
pub mod execute;
pub mod matrix;
pub mod plain;
pub mod plan;
pub mod shards;
pub mod stale;

use std::collections::BTreeMap;
use std::error::Error;

use bert_model::config::BertConfig;
use bert_model::data::{MicroBatch, generated};
use bert_model::init::{generator, initial_values};
use bert_model::model::{self, BertModel};
use bert_model::optim::{GradientSums, weight_updates};
use bert_model::placement::Recomputation;
use ipu_sim::ids::{IpuId, ReplicaId};
use ipu_sim::spec::MachineSpec;
use popart_graph::ir::TensorId;
use popart_graph::lower::{HostStreams, LowerOptions, Lowered, lower};
use popart_graph::passes::optimizer::rules::{LearningRate, OptimizerOptions};
use popart_graph::passes::{self, Compiled, Inference, Pipelining, RecomputeMode, Training};
use popart_graph::plan::PlanCache;
use popart_graph::schedule::{overlap_updates, schedule};

pub use plan::{Plan, small_machine};

/// A result with whatever went wrong, for a test to show.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Of the data. Where as many sequences have a label of one class as of the other, gradients of
/// their class cancel down to no digit that both computations agree on; where no word is masked,
/// the projection learns nothing. With this seed, 2, 4, 7, 12 and 21 of the first 2, 4, 8, 16 and
/// 32 sequences are of one class, and the first have masked words.
const DATA_SEED: u64 = 69;

/// Numbers by tensor.
pub type Tensors = BTreeMap<TensorId, Vec<f64>>;

/// What a run leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Outputs of the model, one replica after the other: in training summed over
    /// micro-batches, else one after the other.
    pub outputs: Tensors,
    /// Variables after the run, the same on all replicas: weights, moments put together from
    /// their shards, accumulators.
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
    /// First values of all variables; of shards, those of any of them.
    pub variables: Tensors,
    /// By micro-batch and replica.
    batches: Vec<Vec<MicroBatch>>,
    machine: MachineSpec,
}

impl Case {
    /// Builds [`plan::small_bert`] as `plan` wants it and puts it through the passes.
    ///
    /// # Errors
    /// The model, a pass or the machine refuses.
    pub fn new(plan: Plan) -> Result<Self> {
        let config = plan.config();
        let model = model::build(&config, &plan.placement()?, plan.task)?;
        let compiled = compile(&model, &config, plan)?;
        let mut data = generator(DATA_SEED, "data");
        let batches = (0..plan.updates * plan.micro_batches)
            .map(|_| {
                let on_each =
                    (0..plan.replicas).map(|_| generated(&model, &config, plan.task, &mut data));
                on_each.collect()
            })
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
            machine: small_machine(plan.n_ipus, plan.n_tiles)?,
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
        let mut schedule = schedule(graph)?;
        if self.plan.state.off_chip {
            schedule = overlap_updates(graph, schedule, &[IpuId(0)]);
        }
        let order = schedule.order;
        let trains = self.plan.task.trains();
        let (micro_batches, updates) = (self.plan.micro_batches, self.plan.updates);
        // Inference runs all its micro-batches as those of one update, or as updates.
        let (accumulation, batches_per_step) = match trains || self.n_stages() > 0 {
            true => (micro_batches, updates),
            false => (1, micro_batches),
        };
        let options = LowerOptions {
            replicas: self.plan.replicas,
            accumulation,
            batches_per_step,
            stages: self.n_stages(),
            outline: self.plan.outline,
            prefetch: true,
            host: HostStreams::Grouped,
            sum_outputs: trains,
        };
        let tile = &self.machine.tile;
        let mut plans = PlanCache::new(tile.clone());
        Ok(lower(graph, &order, &options, &mut plans, tile)?)
    }

    /// Runs the program on the small machine, once.
    ///
    /// # Errors
    /// It can't be lowered or executed.
    pub fn execute(&self) -> Result<Results> {
        execute::run(self, &self.lower()?, self.feeds())
    }

    /// What the host sends.
    #[must_use]
    pub fn feeds(&self) -> execute::Feeds {
        let mut feeds = execute::Feeds::default();
        for on_each in &self.batches {
            for (replica, batch) in (0..).map(ReplicaId).zip(on_each) {
                for (tensor, values) in batch {
                    let element = values.iter().map(|&value| f64::from(value)).collect();
                    feeds
                        .entry((replica, *tensor))
                        .or_default()
                        .push_back(element);
                }
            }
        }
        if let Some(rate) = self.compiled.learning_rate {
            let rates = match self.compiled.graph.updates_in_stages() {
                true => &[plan::LEARNING_RATE_IN_STAGES],
                false => &plan::LEARNING_RATES[..self.plan.updates as usize],
            };
            for replica in (0..self.plan.replicas).map(ReplicaId) {
                let elements = rates.iter().map(|&rate| vec![rate]).collect();
                feeds.insert((replica, rate), elements);
            }
        }
        feeds
    }

    /// Evaluates the graph in `f64`: every micro-batch, then the update.
    ///
    /// # Errors
    /// The graph can't be evaluated.
    pub fn evaluate(&self) -> Result<Results> {
        evaluate::run(self)
    }
}

fn compile(model: &BertModel, config: &BertConfig, plan: Plan) -> Result<Compiled> {
    let graph = model.graph.clone();
    let Some(loss) = model.loss else {
        let options = Inference {
            pipelining: plan.pipelining,
            batches_per_step: plan.micro_batches,
            outline: plan.outline,
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
        batches_per_step: plan.updates,
        optimizer: optimizer(model, config, plan),
        state: plan.state,
        merge_collectives: plan.merge_collectives,
        outline: plan.outline,
    };
    Ok(passes::train(graph, &training)?)
}

fn optimizer(model: &BertModel, config: &BertConfig, plan: Plan) -> OptimizerOptions {
    let sums = GradientSums {
        accumulation: plan.micro_batches,
        replicas: plan.replicas,
        reduction: config.reduction,
    };
    weight_updates(&plan.optimizer, model, sums, LearningRate::Stream)
}
