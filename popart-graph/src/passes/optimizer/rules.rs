//! How each weight is updated, and the factors that follow from it.
//!
//! Formulas: PopART, `willow/include/popart/{sgd,adam}.hpp` and
//! `willow/src/compoundscalarhelper.cpp`.

use ipu_sim::numerics::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::OptimizerError;
use crate::ir::{Reduction, TensorId};

/// How the weights of a model are updated.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// Every weight that is trained, once.
    pub weights: Vec<WeightUpdate>,
    /// Weights that are slices of one: LAMB takes one norm over the slices of each group.
    pub joint_norms: Vec<Vec<TensorId>>,
    /// Factors of the gradients, and what they are summed over.
    pub scaling: Scaling,
    /// Where the learning rate comes from.
    pub learning_rate: LearningRate,
    /// Largest norm of all gradients together, those of larger norm are made smaller alike; `None`
    /// for no limit. Only with moments, and not where weights are updated in the stages of a
    /// pipeline.
    pub clip_norm: Option<f64>,
}

/// The learning rate of a weight update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearningRate {
    /// Sent by the host: a schedule may change it between steps.
    Stream,
    /// Known when compiling.
    Constant(f64),
}

/// The update of one weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightUpdate {
    /// The variable.
    pub weight: TensorId,
    /// Multiplies the learning rate for this weight.
    pub learning_rate_scale: f64,
    /// Rule of the update.
    pub rule: UpdateRule,
}

/// An optimiser with its hyper-parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// Gradient descent.
    Sgd(Sgd),
    /// Adam or LAMB.
    Adam(Adam),
}

/// Gradient descent; with momentum, gradients are accumulated in the velocity itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Decay of the velocity; 0 drops it.
    pub momentum: f64,
    /// Share of the gradient that isn't taken.
    pub dampening: f64,
    /// Factor of the velocity as it is stored.
    pub velocity_scaling: f64,
    /// Decay of the weight.
    pub weight_decay: f64,
}

/// Adam or LAMB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of the weight; 0 drops it.
    pub weight_decay: f64,
    /// Treatment of the moments of Adam and LAMB in early steps.
    pub correction: Correction,
    /// LAMB's limit on the norm of a weight. `None`, and 0 as in PopART, is Adam.
    pub max_weight_norm: Option<f64>,
    /// Types of the moments.
    pub moments: MomentTypes,
}

/// Types in which Adam and LAMB keep their moments.
///
/// PopART's are `accl1Type` and `accl2Type` (`adam.hpp`). With a first moment in `f16` both moments
/// keep the loss scale, so that small values don't vanish (`scaledOptimizerState`, which the
/// published application switches on with it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MomentTypes {
    /// Type of the first moment, the average of gradients.
    pub first: DType,
    /// Type of the second moment, the average of squared gradients.
    pub second: DType,
}

impl MomentTypes {
    /// Moments in `f32`, with the true values of the gradients (the default of PopART).
    pub const FLOAT: Self = Self {
        first: DType::F32,
        second: DType::F32,
    };

    /// First moment in `f16`, second in `f32` (`use_half_optimizer_state` of the published application).
    pub const HALF_FIRST: Self = Self {
        first: DType::F16,
        second: DType::F32,
    };

    /// Moments in `f16` (`lamb_accl_dtype` of Graphcore's submission to MLPerf Training v2.0).
    pub const HALF: Self = Self {
        first: DType::F16,
        second: DType::F16,
    };

    /// Whether the moments keep the loss scale.
    #[must_use]
    pub fn keep_loss_scale(self) -> bool {
        self.first == DType::F16
    }
}

/// Treatment of the moments of Adam and LAMB, which start from zero, in early steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// They are divided by `1 - beta^step`.
    Bias,
    /// They stay as they are (`_NO_BIAS`).
    None,
}

/// Factors in a gradient, and the samples that it is summed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor of the loss.
    pub loss_scale: f64,
    /// Micro-batches of a weight update; 1: gradients aren't accumulated.
    pub accumulation: u32,
    /// Data-parallel copies.
    pub replicas: u32,
    /// How micro-batches and replicas are combined.
    pub reduction: Reduction,
}

impl Scaling {
    /// Whether gradients of several micro-batches are added up.
    #[must_use]
    pub fn accumulates(&self) -> bool {
        self.accumulation > 1
    }

    pub(crate) fn check(&self) -> Result<(), OptimizerError> {
        let got = self.loss_scale;
        if got.is_nan() || got <= 0.0 {
            return Err(OptimizerError::LossScale { got });
        }
        if self.accumulation == 0 {
            return Err(OptimizerError::NoMicroBatch);
        }
        if self.replicas == 0 {
            return Err(OptimizerError::NoReplica);
        }
        Ok(())
    }

    /// By what the sum over micro-batches is divided.
    fn accumulation_divisor(&self) -> f64 {
        match self.reduction {
            Reduction::Mean => self.accumulation.into(),
            Reduction::Sum => 1.0,
        }
    }

    /// Turns the sum over micro-batches and replicas into the gradient, but for the loss
    /// scale.
    pub(crate) fn reduction_factor(&self) -> f64 {
        let replicas = match self.reduction {
            Reduction::Mean => f64::from(self.replicas),
            Reduction::Sum => 1.0,
        };
        1.0 / (self.accumulation_divisor() * replicas)
    }

    /// By how much velocities are larger after they are summed over replicas: without
    /// accumulation it is the gradients that are summed.
    pub(crate) fn velocity_replicas(&self) -> f64 {
        if self.accumulates() {
            self.replicas.into()
        } else {
            1.0
        }
    }
}

impl Sgd {
    /// What a gradient is multiplied with when it is added to the velocity.
    pub(crate) fn velocity_factor(&self, scaling: &Scaling) -> f64 {
        let replicas = f64::from(scaling.replicas);
        let replication = match (scaling.accumulates(), scaling.reduction) {
            (true, Reduction::Sum) => replicas,
            (false, Reduction::Mean) => 1.0 / replicas,
            (true, Reduction::Mean) | (false, Reduction::Sum) => 1.0,
        };
        (1.0 - self.dampening) * self.velocity_scaling * replication
            / (scaling.loss_scale * scaling.accumulation_divisor())
    }
}
