//! Hyper-parameters of one weight.

use popart_graph::ir::StageId;

use crate::interface::WeightInfo;

/// PopART's `epsilon` of Adam and LAMB when nothing is said (`adam.hpp`).
pub const EPSILON_DEFAULT: f64 = 1e-6;

/// LAMB's limit on a weight's norm when nothing is said: the largest `f16`
/// (`applications/popart/bert/bert_optimizer`).
pub const MAX_WEIGHT_NORM_DEFAULT: f64 = 65_504.0;

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Gradient descent with momentum.
    Sgd,
    /// Adam with decoupled decay; bias-corrected or not.
    Adam(Correction),
    /// LAMB; bias-corrected or not.
    Lamb(Correction),
}

/// Whether young moments are corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Divided by `1 - beta^step`.
    Bias,
    /// Left as they are (`_NO_BIAS`).
    None,
}

/// Whether rates depend on the pipeline stage
/// (`continuous_pipeline_optimizer_scaling`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageScaling {
    /// All weights alike.
    Off,
    /// Lower learning rate and higher momentum on early stages.
    On,
}

/// What a user says about the optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Which one.
    pub kind: OptimizerKind,
    /// Before any scaling; a schedule changes it between steps.
    pub learning_rate: f64,
    /// Multiplies the loss gradient, and is divided out in the update.
    pub loss_scaling: f64,
    /// Of weights that decay.
    pub weight_decay: f64,
    /// Of SGD.
    pub momentum: f64,
    /// Of SGD; `None` and 0 mean as much as the momentum.
    pub dampening: Option<f64>,
    /// Of SGD's stored velocity.
    pub velocity_scaling: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// LAMB's limit on a weight's norm.
    pub max_weight_norm: Option<f64>,
    /// Multiplies the learning rate of the head for answers.
    pub squad_lr_scale: f64,
    /// Whether rates depend on the stage.
    pub stage_scaling: StageScaling,
}

/// What the update of one weight uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HyperParameters {
    /// Step size.
    pub learning_rate: f64,
    /// Decoupled decay; 0 for biases and norms.
    pub weight_decay: f64,
    /// Decay of SGD's velocity.
    pub momentum: f64,
    /// Share of the gradient that SGD's velocity doesn't take.
    pub dampening: f64,
    /// Of SGD's stored velocity.
    pub velocity_scaling: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Clips LAMB's norm of the weight.
    pub max_weight_norm: f64,
    /// Multiplies the loss gradient.
    pub loss_scaling: f64,
}

/// The numbers for the weight `name` of a model whose last forward stage is
/// `last_stage`.
#[must_use]
pub fn hyper_parameters(
    options: &OptimizerOptions,
    name: &str,
    weight: &WeightInfo,
    last_stage: StageId,
) -> HyperParameters {
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
    let scaled_rate = options.learning_rate * (0.25 + 0.75 * depth);
    let scaled_decay = |decay: f64| match options.stage_scaling {
        StageScaling::Off => decay,
        StageScaling::On => 1.0 - (1.0 - decay) * (0.1 + 0.9 * depth),
    };
    let head_scale = match name.contains("Squad") {
        true => options.squad_lr_scale,
        false => 1.0,
    };
    HyperParameters {
        learning_rate: scaled_rate * head_scale,
        weight_decay: match weight.decays {
            true => options.weight_decay,
            false => 0.0,
        },
        momentum: scaled_decay(momentum),
        dampening: scaled_decay(dampening),
        velocity_scaling: options.velocity_scaling,
        beta1: options.beta1,
        beta2: options.beta2,
        epsilon: EPSILON_DEFAULT,
        max_weight_norm: options.max_weight_norm.unwrap_or(MAX_WEIGHT_NORM_DEFAULT),
        loss_scaling: options.loss_scaling,
    }
}

#[cfg(test)]
mod tests {
    use popart_graph::ir::TensorId;

    use super::*;
    use crate::optim::decays;

    fn options() -> OptimizerOptions {
        OptimizerOptions {
            kind: OptimizerKind::Lamb(Correction::None),
            learning_rate: 8e-4,
            loss_scaling: 4.0,
            weight_decay: 0.01,
            momentum: 0.75,
            dampening: None,
            velocity_scaling: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            max_weight_norm: None,
            squad_lr_scale: 2.0,
            stage_scaling: StageScaling::Off,
        }
    }

    fn numbers(options: &OptimizerOptions, name: &str, stage: u32) -> HyperParameters {
        let weight = WeightInfo {
            tensor: TensorId(0),
            decays: decays(name),
            stage: StageId(stage),
        };
        hyper_parameters(options, name, &weight, StageId(8))
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
            assert_eq!(
                numbers(&options(), name, 0).weight_decay,
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn unsaid_numbers_have_the_published_defaults() {
        let got = numbers(&options(), "Layer0/FF/1/W", 0);
        assert_eq!((got.momentum, got.dampening), (0.75, 0.75));
        assert_eq!((got.epsilon, got.max_weight_norm), (1e-6, 65_504.0));
        let given = OptimizerOptions {
            dampening: Some(0.5),
            max_weight_norm: Some(10.0),
            ..options()
        };
        let got = numbers(&given, "Layer0/FF/1/W", 0);
        assert_eq!((got.dampening, got.max_weight_norm), (0.5, 10.0));
    }

    #[test]
    fn rates_may_depend_on_name_and_stage() {
        assert_eq!(numbers(&options(), "Squad/SquadW", 0).learning_rate, 16e-4);
        let by_stage = OptimizerOptions {
            stage_scaling: StageScaling::On,
            ..options()
        };
        for (stage, rate, momentum) in [
            (0, 2e-4, 1.0 - 0.25 * 0.1),
            (4, 5e-4, 1.0 - 0.25 * 0.55),
            (8, 8e-4, 0.75),
        ] {
            let got = numbers(&by_stage, "Layer0/FF/1/W", stage);
            assert!((got.learning_rate - rate).abs() < 1e-18);
            assert!((got.momentum - momentum).abs() < 1e-15);
            assert_eq!(got.dampening, got.momentum);
        }
    }
}
