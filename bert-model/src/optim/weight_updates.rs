//! What does the optimiser of a model do to each of its weights?
//!
//! Source: `applications/popart/bert/bert_optimizer` of the published application, whose options
//! these are. Left out: the operations, which `popart_graph::passes::optimizer` adds, and the
//! learning rate itself, of which only a factor depends on the weight.

use ipu_sim::ids::Id;
use popart_graph::ir::{Reduction, StageId};
use popart_graph::passes::optimizer::rules::{
    self, Adam, Correction, LearningRate, MomentTypes, Scaling, Sgd, UpdateRule, WeightUpdate,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interface::WeightInfo;
use crate::model::BertModel;
use crate::optim::is_added;

/// PopART's `epsilon` of Adam and LAMB when nothing is said (`adam.hpp`).
const EPSILON_DEFAULT: f64 = 1e-6;

/// LAMB's limit on a weight's norm when nothing is said: the largest `f16`
/// (`applications/popart/bert/bert_optimizer`).
const MAX_WEIGHT_NORM_DEFAULT: f64 = 65_504.0;

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Gradient descent with momentum.
    Sgd,
    /// Adam with decoupled decay; bias-corrected or not.
    Adam(Correction),
    /// LAMB; bias-corrected or not.
    Lamb(Correction),
}

/// Whether rates depend on the pipeline stage
/// (`continuous_pipeline_optimizer_scaling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageScaling {
    /// All weights alike.
    Off,
    /// Lower learning rate and higher momentum on early stages.
    On,
}

/// Which weights LAMB scales by the quotient of their norm and that of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LambNorms {
    /// All.
    OfAll,
    /// Those that aren't added, biases and shifts of norms, which step as with Adam: the application
    /// gives them a largest norm of 0, and PopART then leaves the norms out.
    OfFactors,
}

/// Options of the optimiser that a user gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerOptions {
    /// Kind of the optimiser.
    pub kind: OptimizerKind,
    /// Factor of the loss gradient, divided out in the update.
    pub loss_scaling: f64,
    /// Decay of the weights that decay.
    pub weight_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Dampening of SGD; `None` and 0 mean as much as the momentum.
    pub dampening: Option<f64>,
    /// Factor of SGD's stored velocity.
    pub velocity_scaling: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Types of the moments of Adam and LAMB; SGD has none.
    pub moments: MomentTypes,
    /// LAMB's limit on a weight's norm.
    pub max_weight_norm: Option<f64>,
    /// Largest norm of the gradients of all weights together (`gradient_clipping_norm`); those of a
    /// larger one are made smaller alike.
    pub clip_norm: Option<f64>,
    /// Multiplies the learning rate of the head for answers.
    pub squad_lr_scale: f64,
    /// Whether rates depend on the stage.
    pub stage_scaling: StageScaling,
}

/// Samples that the gradients of one weight update are summed over, and the way they are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradientSums {
    /// Micro-batches of a replica.
    pub accumulation: u32,
    /// Data-parallel copies.
    pub replicas: u32,
    /// How micro-batches and replicas are combined.
    pub reduction: Reduction,
}

/// The updates of all weights of a model, as the pass that builds them takes them.
#[must_use]
pub fn weight_updates(
    options: &OptimizerOptions,
    norms: LambNorms,
    model: &BertModel,
    sums: GradientSums,
    learning_rate: LearningRate,
) -> rules::OptimizerOptions {
    let last_stage = StageId::from_index(model.placement.stages.len() - 1);
    let update = |weight: &WeightInfo| {
        let name = &model.graph.tensors[weight.tensor].name;
        weight_update(options, norms, name, weight, last_stage)
    };
    let joint = model.serialised_weights.iter();
    let joint = joint.filter(|weight| weight.joint_norm);
    rules::OptimizerOptions {
        weights: model.weights.iter().map(update).collect(),
        joint_norms: joint.map(|weight| weight.slices.clone()).collect(),
        scaling: Scaling {
            loss_scale: options.loss_scaling,
            accumulation: sums.accumulation,
            replicas: sums.replicas,
            reduction: sums.reduction,
        },
        learning_rate,
        clip_norm: options.clip_norm,
    }
}

/// The update of the weight `name` of a model whose last forward stage is `last_stage`.
fn weight_update(
    options: &OptimizerOptions,
    norms: LambNorms,
    name: &str,
    weight: &WeightInfo,
    last_stage: StageId,
) -> WeightUpdate {
    let momentum = options.momentum;
    let dampening = match options.dampening {
        None | Some(0.0) => momentum,
        Some(dampening) => dampening,
    };
    let depth = match (options.stage_scaling, last_stage) {
        (StageScaling::Off, _) | (_, StageId(0)) => 1.0,
        (StageScaling::On, last) => f64::from(weight.stage.0) / f64::from(last.0),
    };
    // Both formulas leave the last stage as it is.
    let of_stage = 0.25 + 0.75 * depth;
    let scaled_decay = |decay: f64| match options.stage_scaling {
        StageScaling::Off => decay,
        StageScaling::On => 1.0 - (1.0 - decay) * (0.1 + 0.9 * depth),
    };
    let of_head = match name.contains("Squad") {
        true => options.squad_lr_scale,
        false => 1.0,
    };
    let weight_decay = match weight.decays {
        true => options.weight_decay,
        false => 0.0,
    };
    let adam = |correction, max_weight_norm| {
        UpdateRule::Adam(Adam {
            beta1: options.beta1,
            beta2: options.beta2,
            epsilon: EPSILON_DEFAULT,
            weight_decay,
            correction,
            max_weight_norm,
            moments: options.moments,
        })
    };
    WeightUpdate {
        weight: weight.tensor,
        learning_rate_scale: of_stage * of_head,
        rule: match options.kind {
            OptimizerKind::Sgd => UpdateRule::Sgd(Sgd {
                momentum: scaled_decay(momentum),
                dampening: scaled_decay(dampening),
                velocity_scaling: options.velocity_scaling,
                weight_decay,
            }),
            OptimizerKind::Adam(correction) => adam(correction, None),
            OptimizerKind::Lamb(correction) => {
                let limit = match norms == LambNorms::OfFactors && is_added(name) {
                    true => 0.0,
                    false => options.max_weight_norm.unwrap_or(MAX_WEIGHT_NORM_DEFAULT),
                };
                adam(correction, Some(limit))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use popart_graph::ir::TensorId;

    use super::*;
    use crate::config::{BertConfig, Mode, Task};
    use crate::model::build;
    use crate::optim::decays;
    use crate::placement::tests::published;

    const SGD: OptimizerOptions = OptimizerOptions {
        kind: OptimizerKind::Sgd,
        loss_scaling: 4.0,
        weight_decay: 0.01,
        momentum: 0.75,
        dampening: None,
        velocity_scaling: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        moments: MomentTypes::FLOAT,
        max_weight_norm: None,
        clip_norm: None,
        squad_lr_scale: 2.0,
        stage_scaling: StageScaling::Off,
    };

    fn update(options: &OptimizerOptions, name: &str, stage: u32) -> WeightUpdate {
        let weight = WeightInfo {
            tensor: TensorId(0),
            decays: decays(name),
            stage: StageId(stage),
        };
        weight_update(options, LambNorms::OfAll, name, &weight, StageId(8))
    }

    fn sgd(options: &OptimizerOptions, name: &str, stage: u32) -> Sgd {
        match update(options, name, stage).rule {
            UpdateRule::Sgd(sgd) => sgd,
            UpdateRule::Adam(adam) => panic!("{adam:?}"),
        }
    }

    fn adam(options: &OptimizerOptions) -> Adam {
        match update(options, "Layer0/FF/1/W", 0).rule {
            UpdateRule::Adam(adam) => adam,
            UpdateRule::Sgd(sgd) => panic!("{sgd:?}"),
        }
    }

    #[test]
    fn biases_and_norms_are_spared_from_decay() {
        for (name, expected) in [
            ("Layer0/FF/1/W", 0.01),
            ("Layer0/FF/1/B", 0.0),
            ("Layer0/Attention/QKV", 0.01),
            ("Layer0/Attention/QKV_Bias", 0.0),
            ("Embedding/Gamma", 0.0),
            ("Embedding/Beta", 0.0),
            ("Embedding/Embedding_Dict/split3", 0.01),
            ("NSP/PoolB", 0.0),
        ] {
            assert_eq!(sgd(&SGD, name, 0).weight_decay, expected, "{name}");
        }
    }

    #[test]
    fn unsaid_numbers_have_the_published_defaults() {
        let got = sgd(&SGD, "Layer0/FF/1/W", 0);
        assert_eq!((got.momentum, got.dampening), (0.75, 0.75));
        let of_zero = OptimizerOptions {
            dampening: Some(0.0),
            ..SGD
        };
        assert_eq!(sgd(&of_zero, "Layer0/FF/1/W", 0).dampening, 0.75);
        let lamb = OptimizerOptions {
            kind: OptimizerKind::Lamb(Correction::None),
            ..SGD
        };
        let got = adam(&lamb);
        assert_eq!((got.epsilon, got.max_weight_norm), (1e-6, Some(65_504.0)));
        let given = OptimizerOptions {
            dampening: Some(0.5),
            max_weight_norm: Some(10.0),
            ..lamb
        };
        assert_eq!(adam(&given).max_weight_norm, Some(10.0));
        let given = OptimizerOptions {
            kind: OptimizerKind::Sgd,
            ..given
        };
        assert_eq!(sgd(&given, "Layer0/FF/1/W", 0).dampening, 0.5);
    }

    #[test]
    fn lamb_is_adam_with_a_limit_on_norms() {
        for correction in [Correction::None, Correction::Bias] {
            let of = |kind| adam(&OptimizerOptions { kind, ..SGD });
            let got = of(OptimizerKind::Adam(correction));
            assert_eq!((got.correction, got.max_weight_norm), (correction, None));
            let limited = Adam {
                max_weight_norm: Some(65_504.0),
                ..got
            };
            assert_eq!(of(OptimizerKind::Lamb(correction)), limited);
        }
    }

    #[test]
    fn lamb_may_leave_out_norms_of_what_is_added() {
        let task = Task::Pretraining(Mode::Training);
        let config = BertConfig {
            num_layers: 24,
            ..BertConfig::large()
        };
        let model = build(&config, &published(0, &[3, 7, 7, 7], 24, task), task).unwrap();
        let lamb = OptimizerOptions {
            kind: OptimizerKind::Lamb(Correction::None),
            ..SGD
        };
        let sums = GradientSums {
            accumulation: 2,
            replicas: 1,
            reduction: Reduction::Mean,
        };
        let without = |norms| {
            let got = weight_updates(&lamb, norms, &model, sums, LearningRate::Stream);
            let limit = |update: &&WeightUpdate| match update.rule {
                UpdateRule::Adam(adam) => adam.max_weight_norm == Some(0.0),
                UpdateRule::Sgd(sgd) => panic!("{sgd:?}"),
            };
            let spared: Vec<_> = got.weights.iter().filter(limit).copied().collect();
            spared
        };
        assert_eq!(without(LambNorms::OfAll), []);
        let spared = without(LambNorms::OfFactors);
        // Four of each layer; of the embedding's norm one, of the word head two, of the pair's two.
        assert_eq!(spared.len(), 4 * 24 + 1 + 2 + 2);
        for update in spared {
            let name = &model.graph.tensors[update.weight].name;
            assert!(is_added(name) && !decays(name), "{name}");
        }
    }

    #[test]
    fn rates_may_depend_on_name_and_stage() {
        let head = update(&SGD, "Squad/SquadW", 0);
        assert_eq!(head.learning_rate_scale, 2.0);
        let by_stage = OptimizerOptions {
            stage_scaling: StageScaling::On,
            ..SGD
        };
        for (stage, scale, momentum) in [
            (0, 0.25, 1.0 - 0.25 * 0.1),
            (4, 0.625, 1.0 - 0.25 * 0.55),
            (8, 1.0, 0.75),
        ] {
            let got = update(&by_stage, "Layer0/FF/1/W", stage);
            assert_eq!(got.learning_rate_scale, scale);
            let got = sgd(&by_stage, "Layer0/FF/1/W", stage);
            assert!((got.momentum - momentum).abs() < 1e-15);
            assert_eq!(got.dampening, got.momentum);
        }
    }

    #[test]
    fn every_weight_is_updated_once_and_pieces_of_one_share_a_norm() {
        let task = Task::Pretraining(Mode::Training);
        let config = BertConfig {
            vocab_steps: 3,
            ..BertConfig::tiny()
        };
        let model = build(&config, &published(0, &[1], 2, task), task).unwrap();
        let sums = GradientSums {
            accumulation: 16,
            replicas: 2,
            reduction: Reduction::Mean,
        };
        let got = weight_updates(&SGD, LambNorms::OfAll, &model, sums, LearningRate::Stream);
        let updated: Vec<TensorId> = got.weights.iter().map(|update| update.weight).collect();
        let weights: Vec<TensorId> = model.weights.iter().map(|info| info.tensor).collect();
        assert_eq!(updated, weights);
        let [slices] = got.joint_norms.as_slice() else {
            panic!("the word table alone is in pieces: {:?}", got.joint_norms);
        };
        assert_eq!(slices.len(), 3);
        let scaling = (
            got.scaling.loss_scale,
            got.scaling.accumulation,
            got.scaling.replicas,
        );
        assert_eq!(scaling, (4.0, 16, 2));
    }
}
