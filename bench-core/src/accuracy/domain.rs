//! What kind of run it is, and how far that is from the runs that were measured.

use std::collections::{BTreeMap, BTreeSet};

use bert_model::config::{Activation, Dropout, SequenceFormat, Task};
use bert_model::optim::OptimizerKind;
use bert_model::placement::{EncoderMemory, EncoderPlacement, Execution, Recomputation, SquadHead};
use ipu_sim::numerics::DType;
use ipu_sim::spec::{MachineSpec, Wiring};
use ipu_sim::units::Cycles;
use popart_graph::ir::{MemoryProportion, Phase};
use popart_graph::lower::HostStreams;
use popart_graph::passes::optimizer::rules::MomentTypes;
use popart_graph::passes::{
    CollectiveMerging, Outlining, Sharding, SoftmaxDropoutGradient, StateMemory,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{InferenceIo, RunConfig};
use crate::explain::{Explanation, IpuCycles, pass_name};
use crate::release::Release;

/// The software that a run goes through; what others measured says nothing of its domain.
const FRONT_END: &str = "front end";
const POPART: &str = "PopART";
/// How large products are.
const TOKENS: &str = "tokens of a micro-batch";
/// How large those of the head are; longer sequences have more.
const MASKED: &str = "masked tokens";
/// Least and most memory that an IPU gives to its products.
const MEMORY: [&str; 2] = ["least memory proportion", "largest memory proportion"];
/// How much of a step is what few of the measured seconds were spent on.
const UPDATE_SHARE: &str = "weight update's share of a step";

/// Sizes that follow from others: their distance counts as far as that of the others doesn't
/// cover it, which it does in the direction (1: grows with it, -1: shrinks) that it takes them.
const DERIVED: [(&str, &[(&str, f64)]); 4] = [
    (TOKENS, &[("micro-batch", 1.0), ("sequence length", 1.0)]),
    (MASKED, &[("sequence length", 1.0)]),
    (MEMORY[0], &[(MEMORY[1], 1.0)]),
    (UPDATE_SHARE, &[("accumulation factor", -1.0)]),
];

/// Shares whose rest is what was measured, so that less of them is no farther away.
const FROM_NOTHING: [&str; 1] = [UPDATE_SHARE];

/// The features of a run by name. What a run doesn't have (an optimiser in inference) is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Features(BTreeMap<String, Feature>);

/// One feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Feature {
    /// A size: what matters is how many times as large.
    Size(f64),
    /// A choice.
    Choice(String),
}

impl Features {
    /// The features of a run on a machine whose time went there.
    #[must_use]
    pub fn new(config: &RunConfig, machine: &MachineSpec, time: &Explanation) -> Self {
        let mut out = Self::default();
        out.choice(FRONT_END, POPART);
        out.add_machine(machine);
        out.add_model(config);
        out.add_session(config);
        if !config.is_inference() {
            out.add_update(config);
            out.size(UPDATE_SHARE, update_share(time));
        }
        out
    }

    /// Makes it a run through another front end than PopART's application.
    pub(crate) fn set_front_end(&mut self, front_end: &str) {
        self.choice(FRONT_END, front_end);
    }

    fn add_machine(&mut self, machine: &MachineSpec) {
        self.size("clock", machine.tile.clock.0 / 1e9);
        self.size("tiles of an IPU", machine.tile.tiles_per_ipu.into());
        self.size("matrix units", machine.tile.amp.units_f16_f16.into());
        self.size("racks", machine.n_racks().into());
        let wiring = match machine.wiring {
            Wiring::Ladder => "ladder",
            Wiring::Torus => "torus",
        };
        self.choice("wiring", wiring);
    }

    fn add_model(&mut self, config: &RunConfig) {
        let model = &config.model;
        let task = match config.task {
            Task::Pretraining(_) => "pre-training",
            Task::Squad(_) => "SQuAD",
        };
        self.choice("task", task);
        self.choice("type of weights", type_name(model.dtype));
        self.size("sequence length", model.sequence_length.into());
        self.size("hidden size", model.hidden_size.into());
        let of_head = f64::from(model.hidden_size) / f64::from(model.attention_heads);
        self.size("size of a head", of_head);
        self.size("feed-forward size", model.ff_size.into());
        self.size("layers", model.num_layers.into());
        self.size("vocabulary", model.vocab_length.into());
        self.choice("word table in pieces", on(model.vocab_steps > 1));
        if !config.is_squad() {
            self.size(MASKED, model.mask_tokens.into());
            if let SequenceFormat::Packed { sequences } = model.sequence_format {
                self.size("sequences of a pack", sequences.into());
            }
            self.choice("dense layer of the word head", on(model.cls_layer));
            self.choice("bias of the word head", on(model.projection_bias));
            // Most measured runs have it.
            if !model.next_sentence {
                self.choice("next-sentence head", "off");
            }
        }
        let activation = match model.activation {
            Activation::Gelu => "GELU",
            Activation::GeluErf => "GELU with erf",
            Activation::SigmoidGelu => "sigmoid GELU",
            Activation::Relu => "ReLU",
            Activation::LeakyRelu { .. } => "leaky ReLU",
        };
        self.choice("activation", activation);
        self.choice("split QKV", on(model.split_qkv));
        self.choice("attention biases", on(model.attention_bias));
        self.choice("split linear layers", on(model.split_linear_layers));
        let micro_batch = model.micro_batch;
        self.size("micro-batch", micro_batch.into());
        let tokens = u64::from(micro_batch) * u64::from(model.sequence_length);
        self.size(TOKENS, tokens as f64);
    }

    fn add_session(&mut self, config: &RunConfig) {
        // What was measured is of these and later releases, up to the last.
        if config.release < Release::V2_1 {
            self.choice("release", config.release.name());
        }
        let (placement, session) = (&config.placement, &config.session);
        // Heads of the measured runs are on the first IPU.
        let unwrapped = placement.squad_head == SquadHead::LastEncoderIpu;
        let ends_on_first_ipu = placement.encoder.ends_on_first_ipu(config.model.num_layers);
        if config.is_squad() && unwrapped && !ends_on_first_ipu {
            self.choice("answer head", "on the last IPU");
        }
        self.size("replicas", config.batching.replicas.into());
        self.size("IPUs of a replica", config.ipus_per_replica().into());
        let mode = if config.is_inference() {
            "inference"
        } else {
            "training"
        };
        self.choice("mode", mode);
        let execution = match placement.execution {
            Execution::Sequential => "one micro-batch at a time",
            Execution::Pipelined => "pipeline",
        };
        self.choice("execution", execution);
        if let EncoderPlacement::Halves(_) = placement.encoder {
            self.choice("placement", "half layers");
        }
        let partials = if config.model.half_partials {
            "f16"
        } else {
            "f32"
        };
        self.choice("partial sums", partials);
        self.choice("outlining", on(session.outlining == Outlining::On));
        let streams = match session.host_streams {
            HostStreams::WhereNeeded => "where needed",
            HostStreams::Grouped => "together",
            HostStreams::Absent => "none",
        };
        self.choice("host streams", streams);
        let default = [MemoryProportion::POPLIBS_DEFAULT.value()];
        let proportions = match &placement.memory {
            EncoderMemory::PoplibsDefault => default.as_slice(),
            EncoderMemory::PerIpu(shares) => shares,
        };
        let least = proportions.iter().copied().fold(f64::INFINITY, f64::min);
        let most = proportions.iter().copied().fold(0.0, f64::max);
        for (name, proportion) in MEMORY.into_iter().zip([least, most]) {
            self.size(name, proportion);
        }
        if config.is_inference() {
            let io = match session.inference_io {
                InferenceIo::Ordinary => "whole steps",
                InferenceIo::LowLatency => "low latency",
                InferenceIo::MinimumLatency => "minimum latency",
            };
            self.choice("input and output", io);
        }
    }

    fn add_update(&mut self, config: &RunConfig) {
        let (model, optimizer) = (&config.model, &config.optimizer);
        let family = match optimizer.kind {
            OptimizerKind::Sgd => "SGD",
            OptimizerKind::Adam(_) => "Adam",
            OptimizerKind::Lamb(_) => "LAMB",
        };
        self.choice("optimiser", family);
        // No published run merges any.
        if config.session.collective_merging == CollectiveMerging::On {
            self.choice("merged collectives", "on");
        }
        if optimizer.clip_norm.is_some() {
            self.choice("gradients clipped by their norm", "on");
        }
        // What acts beside some settings only says nothing of the others.
        let has_moments = optimizer.kind != OptimizerKind::Sgd;
        if has_moments {
            self.choice(
                "optimiser state off chip",
                on(config.state.memory == StateMemory::OffChip),
            );
        }
        if has_moments {
            // No measured run has another type.
            let MomentTypes { first, second } = optimizer.moments;
            for (name, dtype) in [("first moment", first), ("second moment", second)] {
                if dtype != DType::F32 {
                    self.choice(name, type_name(dtype));
                }
            }
        }
        if has_moments && config.batching.replicas > 1 {
            self.choice(
                "sharded optimiser state",
                on(config.state.sharding == Sharding::On),
            );
        }
        let joint = on(model.fully_connected_pass);
        self.choice("products planned with their gradients", joint);
        self.choice(
            "word table trained by its gather",
            on(model.update_embedding_dict),
        );
        self.choice("dropout", on(config.has_dropout()));
        if config.has_dropout() {
            self.choice(
                "attention dropout",
                on(model.dropout == Dropout::HiddenAndAttention),
            );
        }
        // No measured run has another gradient.
        let gradient = config.session.softmax_dropout_gradient;
        if model.dropout == Dropout::HiddenAndAttention
            && gradient == SoftmaxDropoutGradient::Identity
        {
            self.choice("gradient of attention dropout", "off");
        }
        if config.is_pipelined() {
            let every_layer = match config.placement.recomputation {
                Recomputation::FromEveryLayer | Recomputation::FromEveryBlock => true,
                Recomputation::Off | Recomputation::FromStageInput => false,
            };
            self.choice("checkpoint in every layer", on(every_layer));
        }
        self.size("accumulation factor", config.batching.accumulation.into());
    }

    fn size(&mut self, name: &str, size: f64) {
        self.0.insert(name.into(), Feature::Size(size));
    }

    fn choice(&mut self, name: &str, choice: &str) {
        self.0.insert(name.into(), Feature::Choice(choice.into()));
    }
}

/// Of the cycles of the IPU that is busy longest, those of the weight update; in tenths of a
/// per cent, since finer ones say nothing.
fn update_share(time: &Explanation) -> f64 {
    let busy = |ipu: &&IpuCycles| ipu.by_pass.values().copied().sum::<Cycles>();
    let Some(ipu) = time.ipus.iter().max_by_key(busy) else {
        return 0.0;
    };
    let update = ipu.by_pass.get(pass_name(Phase::Update));
    let update = update.copied().unwrap_or_default();
    let total = ipu.by_cause.total().0.max(1);
    (1e3 * update.0 as f64 / total as f64).round() / 1e3
}

fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::F32 => "f32",
        DType::U32 => "u32",
    }
}

fn on(switch: bool) -> &'static str {
    if switch { "on" } else { "off" }
}

/// What the measured runs cover: of every size a range, of every choice a few.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domain {
    sizes: BTreeMap<String, (f64, f64)>,
    choices: BTreeMap<String, BTreeSet<String>>,
}

impl Domain {
    /// The domain of the runs that were measured with PopART's application.
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a Features>) -> Self {
        let mut out = Self::default();
        let is_popart = |features: &&Features| {
            let front_end = features.0.get(FRONT_END);
            front_end.is_none_or(|front_end| *front_end == Feature::Choice(POPART.into()))
        };
        for (name, feature) in runs.filter(is_popart).flat_map(|features| &features.0) {
            match feature {
                Feature::Size(size) => {
                    let range = out.sizes.entry(name.clone()).or_insert((*size, *size));
                    *range = (range.0.min(*size), range.1.max(*size));
                    if FROM_NOTHING.contains(&name.as_str()) {
                        range.0 = 0.0;
                    }
                }
                Feature::Choice(choice) => {
                    let known = out.choices.entry(name.clone()).or_default();
                    known.insert(choice.clone());
                }
            }
        }
        out
    }

    /// How far a run is outside: octaves beyond the range of each size, and one for every choice
    /// that wasn't measured; with what it is that sets it apart.
    pub(super) fn distance(&self, features: &Features) -> (f64, Vec<String>) {
        let mut distance = 0.0;
        let mut octaves: BTreeMap<&str, f64> = BTreeMap::new();
        let mut reasons = Vec::new();
        for (name, feature) in &features.0 {
            match feature {
                Feature::Size(size) => match self.sizes.get(name) {
                    None => {
                        distance += 1.0;
                        reasons.push(format!("{name}: never measured"));
                    }
                    Some(&(least, most)) => {
                        let nearest = size.clamp(least, most);
                        if nearest != *size {
                            octaves.insert(name, libm::log2(size / nearest));
                            reasons
                                .push(format!("{name}: {size}, measured {}", range(least, most)));
                        }
                    }
                },
                Feature::Choice(choice) => {
                    let known = self.choices.get(name);
                    if !known.is_some_and(|known| known.contains(choice)) {
                        distance += 1.0;
                        reasons.push(format!("{name}: {choice} was never measured"));
                    }
                }
            }
        }
        for (name, of) in DERIVED {
            let covered = of
                .iter()
                .filter_map(|(part, sign)| Some(sign * octaves.get(part)?));
            let covered: f64 = covered.sum();
            if let Some(own) = octaves.get_mut(name) {
                *own -= covered.clamp(own.min(0.0), own.max(0.0));
            }
        }
        let octaves = octaves.values().map(|octaves| octaves.abs());
        (distance + octaves.sum::<f64>(), reasons)
    }
}

fn range(least: f64, most: f64) -> String {
    if least == most {
        least.to_string()
    } else if least == 0.0 {
        format!("at most {most}")
    } else {
        format!("{least} to {most}")
    }
}
