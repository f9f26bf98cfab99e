//! Optimisers as chains of operations.
//!
//! **Assumes** a graph with gradients, accumulated by [`super::accumulate()`].
//! **Guarantees** for each weight, on its IPU and in [`Phase::Update`]: the sum over
//! replicas, the gradient without its scale, new moments, the step, and the new weight; the
//! variables take these values, and accumulators become zero. With accumulation these
//! operations have no stage: they are the outer fragment. Without, those of a pipeline are in
//! the stage of the gradient, in which its last part is made (PopART's normal context); what
//! only depends on the learning rate has none, for that stays the same during a run.
//! **Leaves alone** forward and backward operations. Running it twice updates everything
//! twice, which the verifier refuses.
//!
//! The chain of Adam and LAMB (PopART, `willow/src/transforms/adamdecompose.cpp`):
//!
//! ```text
//! s = all_reduce(sum)                       with replicas
//! g = scale(cast(s))                        cast only if both moments are f32
//! m, v = adam_moment(Accl1, g), adam_moment(Accl2, g)
//! sum = zero(s)
//! x = adam_updater(m, v, [w], [step])
//! w = lamb_update(w, x, |w|^2, |x|^2, rate) | adam_update(w, x, rate)
//! ```
//!
//! With a limit on the norm of all gradients, every `g` is multiplied with one number before that
//! (`clip`).
//!
//! Of SGD without momentum (`sgd0decompose.cpp`): `w = sgd_update(w, s, rate)`; with
//! (`sgd1decompose.cpp`): `v = all_reduce(velocity)`, `w = sgd_update(w, v, rate)`,
//! `velocity = sgd_momentum(v, w)`, where the decay uses the new weight.
//!
//! Sums, all-reduced sums and zeros are meant to be one place in memory: each reads the one
//! before as its first operand and nothing else reads that afterwards.
//!
//! ```text
//! before
//! variable %0: f16[2] = zeros "w"
//! stream %1: f16[2] "g"
//! variable %2: f16[2] = zeros "Accum___w"
//! %3: f16[2] = neg(%1) @ipu0 bwd "gradient"
//! %4: f16[2] = accumulate(%2, %3) {factor: 1.0} @ipu0 acc "sum"
//! inputs %1
//! update %2 = %4
//! after
//! variable %0: f16[2] = zeros "w"
//! stream %1: f16[2] "g"
//! variable %2: f16[2] = zeros "Accum___w"
//! constant %5: f32[] = splat(0.5) "learningRate"
//! variable %8: f32[2] = zeros "Accl1___w"
//! variable %10: f32[2] = zeros "Accl2___w"
//! %3: f16[2] = neg(%1) @ipu0 bwd "gradient"
//! %4: f16[2] = accumulate(%2, %3) {factor: 1.0} @ipu0 acc "sum"
//! %6: f32[2] = cast(%4) {to: f32} @ipu0 upd "w"
//! %7: f32[2] = scale(%6) {factor: 0.03125} @ipu0 upd "w"
//! %9: f32[2] = adam_moment(%8, %7) {beta: 0.9, square: false} @ipu0 upd "w"
//! %11: f32[2] = adam_moment(%10, %7) {beta: 0.99, square: true} @ipu0 upd "w"
//! %12: f16[2] = zero(%4) @ipu0 upd "w"
//! %13: f16[2] = adam_updater(%9, %11, %0) {epsilon: 1e-6, weight_decay: 0.01} @ipu0 upd "w"
//! %14: f32[] = square_sum(%0) @ipu0 upd "w"
//! %15: f32[] = square_sum(%13) @ipu0 upd "w"
//! %16: f16[2] = lamb_update(%0, %13, %14, %15, %5) {max_weight_norm: 65504.0} @ipu0 upd "w"
//! inputs %1
//! update %2 = %12
//! update %8 = %9
//! update %10 = %11
//! update %0 = %16
//! ```

mod clip;
pub mod error;
pub mod rules;

use std::collections::BTreeMap;

use ipu_sim::ids::{IdVec, IpuId};
use ipu_sim::numerics::DType;

use self::error::OptimizerError;
use self::rules::{
    Adam, Correction, LearningRate, MomentTypes, OptimizerOptions, Scaling, Sgd, UpdateRule,
    WeightUpdate,
};
use super::accumulate::{Accumulated, AccumulatedGradients, beside};
use crate::infer::InferError;
use crate::ir::{
    BiasCorrection, BinaryFn, Constant, Graph, OpId, OpKind, Part, Phase, Scope, Shape, TensorId,
};

/// Adds the weight update; gives the stream of the learning rate, if there is one.
///
/// # Errors
/// A hyper-parameter is out of its range.
///
/// # Panics
/// If a weight has no gradient.
pub fn optimizer(
    mut graph: Graph,
    accumulated: &AccumulatedGradients,
    options: &OptimizerOptions,
) -> Result<(Graph, Option<TensorId>), OptimizerError> {
    options.scaling.check()?;
    let rate = learning_rate(&mut graph, options.learning_rate);
    let producers = graph.producers();
    let accumulators = graph.update_positions();
    let mut ctx = Ctx {
        graph,
        scaling: options.scaling,
        rate,
        scaled_rates: BTreeMap::new(),
        one: None,
        producers,
        accumulators,
        clipped: BTreeMap::new(),
    };
    if let Some(clip_norm) = options.clip_norm {
        ctx.clip(options, accumulated, clip_norm)?;
    }
    for group in groups(options) {
        match group[0].rule {
            UpdateRule::Sgd(sgd) => {
                for update in group {
                    ctx.sgd(update, sgd, accumulated[&update.weight])?;
                }
            }
            UpdateRule::Adam(_) => ctx.adam(&group, accumulated)?,
        }
    }
    let streamed = options.learning_rate == LearningRate::Stream;
    Ok((ctx.graph, streamed.then_some(rate)))
}

/// The learning rate, and the part that it is: it belongs to the update of every weight.
const LEARNING_RATE: &str = "learningRate";

fn learning_rate(graph: &mut Graph, rate: LearningRate) -> TensorId {
    let (dtype, shape) = (DType::F32, Shape::scalar());
    match rate {
        LearningRate::Stream => {
            let stream = graph.stream(LEARNING_RATE, dtype, shape);
            let part = graph.parts.add(Part::single(LEARNING_RATE));
            graph.tensors[stream].part = Some(part);
            stream
        }
        LearningRate::Constant(rate) => {
            graph.constant(LEARNING_RATE, dtype, shape, Constant::Splat(rate))
        }
    }
}

/// The weights in order, those that share a norm together at the first of them.
fn groups(options: &OptimizerOptions) -> Vec<Vec<&WeightUpdate>> {
    let joint = options.joint_norms.iter().enumerate();
    let joint: BTreeMap<TensorId, usize> = joint
        .flat_map(|(norm, weights)| weights.iter().map(move |&weight| (weight, norm)))
        .collect();
    let mut groups: Vec<Vec<&WeightUpdate>> = Vec::new();
    let mut group_of_norm = BTreeMap::new();
    for update in &options.weights {
        let norm = joint.get(&update.weight);
        let norm = norm.filter(|_| matches!(update.rule, UpdateRule::Adam(_)));
        let next = groups.len();
        let group = norm.map_or(next, |norm| *group_of_norm.entry(norm).or_insert(next));
        if group == next {
            groups.push(Vec::new());
        }
        groups[group].push(update);
    }
    groups
}

/// A weight update under construction.
struct Ctx {
    graph: Graph,
    scaling: Scaling,
    rate: TensorId,
    /// Learning rates by scale (its bits) and IPU.
    scaled_rates: BTreeMap<(u64, Option<IpuId>), TensorId>,
    /// The number by which steps advance.
    one: Option<TensorId>,
    /// Of the tensors before the update.
    producers: IdVec<TensorId, Option<OpId>>,
    /// Where [`Graph::updates`] has the accumulators.
    accumulators: BTreeMap<TensorId, usize>,
    /// Gradients by weight, where they are prepared all together before the first update.
    clipped: BTreeMap<TensorId, Gradient>,
}

/// The gradient of a weight over all micro-batches and replicas.
#[derive(Clone, Copy, Debug)]
struct Gradient {
    /// The sum, as it was accumulated.
    sum: TensorId,
    /// What moments are made of.
    value: TensorId,
}

/// The chain of one weight up to its last operation.
struct Pending {
    weight: TensorId,
    x: TensorId,
    rate: TensorId,
    scope: Scope,
    max_weight_norm: Option<f64>,
}

impl Ctx {
    fn scope(&self, weight: TensorId, accumulated: Accumulated) -> Scope {
        let beside = beside(&self.graph, self.producers[accumulated.value], weight);
        Scope {
            stage: match self.scaling.accumulates() {
                true => None,
                false => beside.stage,
            },
            phase: Phase::Update,
            ..beside
        }
    }

    fn rate(&mut self, scale: f64, scope: &Scope) -> Result<TensorId, InferError> {
        if scale == 1.0 {
            return Ok(self.rate);
        }
        let key = (scale.to_bits(), scope.ipu);
        if let Some(&rate) = self.scaled_rates.get(&key) {
            return Ok(rate);
        }
        let scope = Scope {
            name: LEARNING_RATE.to_owned(),
            stage: None,
            part: Some(self.graph.parts.add(Part::single(LEARNING_RATE))),
            ..scope.clone()
        };
        let rate = self
            .graph
            .add(OpKind::Scale { factor: scale }, &[self.rate], &scope)?;
        self.scaled_rates.insert(key, rate);
        Ok(rate)
    }

    /// The sum over replicas.
    fn reduced(&mut self, value: TensorId, scope: &Scope) -> Result<TensorId, InferError> {
        if self.scaling.replicas == 1 {
            return Ok(value);
        }
        self.graph.add(OpKind::AllReduce, &[value], scope)
    }

    /// Lets an accumulator take `value` instead of what it holds after a micro-batch.
    fn set_accumulator(&mut self, variable: TensorId, value: TensorId) {
        let position = self.accumulators.get(&variable);
        let position = *position.expect("accumulators are updated");
        self.graph.updates[position].1 = value;
    }

    fn clear(
        &mut self,
        accumulated: Accumulated,
        sum: TensorId,
        scope: &Scope,
    ) -> Result<(), InferError> {
        if let Some(variable) = accumulated.variable {
            let zero = self.graph.add(OpKind::Zero, &[sum], scope)?;
            self.set_accumulator(variable, zero);
        }
        Ok(())
    }

    fn sgd(
        &mut self,
        update: &WeightUpdate,
        sgd: Sgd,
        accumulated: Accumulated,
    ) -> Result<(), InferError> {
        let weight = update.weight;
        let scope = self.scope(weight, accumulated);
        let rate = self.rate(update.learning_rate_scale, &scope)?;
        let kept = 1.0 - sgd.dampening;
        if sgd.momentum == 0.0 {
            let sum = self.reduced(accumulated.value, &scope)?;
            let kind = OpKind::SgdUpdate {
                scale: kept * self.scaling.reduction_factor() / self.scaling.loss_scale,
                weight_decay: kept * sgd.weight_decay,
            };
            let updated = self.graph.add(kind, &[weight, sum, rate], &scope)?;
            self.graph.update(weight, updated);
            return self.clear(accumulated, sum, &scope);
        }
        let replicas = self.scaling.velocity_replicas();
        let velocity = match self.scaling.accumulates() {
            true => self.reduced(accumulated.value, &scope)?,
            false => accumulated.value,
        };
        let kind = OpKind::SgdUpdate {
            scale: 1.0 / (sgd.velocity_scaling * replicas),
            weight_decay: 0.0,
        };
        let updated = self.graph.add(kind, &[weight, velocity, rate], &scope)?;
        self.graph.update(weight, updated);
        let kind = OpKind::SgdMomentum {
            momentum: sgd.momentum / replicas,
            weight_decay: kept * sgd.weight_decay * sgd.velocity_scaling,
        };
        let next = self.graph.add(kind, &[velocity, updated], &scope)?;
        let variable = accumulated.variable.expect("velocities are variables");
        self.set_accumulator(variable, next);
        Ok(())
    }

    /// Updates weights that share a norm, or a single one.
    fn adam(
        &mut self,
        group: &[&WeightUpdate],
        all: &AccumulatedGradients,
    ) -> Result<(), InferError> {
        let mut pending = Vec::new();
        let mut norms: Option<[TensorId; 2]> = None;
        // Weights that share a norm wait for the last of their gradients.
        let scope = |update: &WeightUpdate| self.scope(update.weight, all[&update.weight]);
        let stage = group.iter().map(|update| scope(update).stage).max();
        for update in group {
            let UpdateRule::Adam(adam) = update.rule else {
                unreachable!("groups hold weights with moments");
            };
            let mut chain_scope = self.scope(update.weight, all[&update.weight]);
            chain_scope.stage = stage.flatten();
            let chain = self.direction(update, &adam, all[&update.weight], chain_scope)?;
            if chain.max_weight_norm.is_some() {
                let mut squares = [chain.weight, chain.x];
                for square in &mut squares {
                    *square = self
                        .graph
                        .add(OpKind::SquareSum, &[*square], &chain.scope)?;
                }
                norms = Some(match norms {
                    None => squares,
                    Some([w, x]) => [
                        self.sum(w, squares[0], &chain.scope)?,
                        self.sum(x, squares[1], &chain.scope)?,
                    ],
                });
            }
            pending.push(chain);
        }
        for chain in pending {
            let Pending {
                weight,
                x,
                rate,
                scope,
                ..
            } = chain;
            let updated = match (chain.max_weight_norm, norms) {
                (Some(max_weight_norm), Some([w_squared, x_squared])) => self.graph.add(
                    OpKind::LambUpdate { max_weight_norm },
                    &[weight, x, w_squared, x_squared, rate],
                    &scope,
                )?,
                _ => self
                    .graph
                    .add(OpKind::AdamUpdate, &[weight, x, rate], &scope)?,
            };
            self.graph.update(weight, updated);
        }
        Ok(())
    }

    fn sum(
        &mut self,
        left: TensorId,
        right: TensorId,
        scope: &Scope,
    ) -> Result<TensorId, InferError> {
        self.graph
            .add(OpKind::Binary(BinaryFn::Add), &[left, right], scope)
    }

    /// The chain from the sum of gradients to the direction `x` of a step.
    fn direction(
        &mut self,
        update: &WeightUpdate,
        adam: &Adam,
        accumulated: Accumulated,
        scope: Scope,
    ) -> Result<Pending, InferError> {
        let weight = update.weight;
        let rate = self.rate(update.learning_rate_scale, &scope)?;
        let Gradient {
            sum,
            value: gradient,
        } = match self.clipped.get(&weight) {
            Some(&clipped) => clipped,
            None => self.summed(accumulated, adam, &scope)?,
        };
        let first = (adam.moments.first, adam.beta1, false);
        let second = (adam.moments.second, adam.beta2, true);
        let m = self.moment("Accl1___", weight, gradient, first, &scope)?;
        let v = self.moment("Accl2___", weight, gradient, second, &scope)?;
        self.clear(accumulated, sum, &scope)?;
        let mut operands = vec![m, v];
        let decays = adam.weight_decay != 0.0;
        if decays {
            operands.push(weight);
        }
        let bias_correction = match adam.correction {
            Correction::Bias => Some(BiasCorrection {
                beta1: adam.beta1,
                beta2: adam.beta2,
            }),
            Correction::None => None,
        };
        if bias_correction.is_some() {
            operands.push(self.step(weight, &scope)?);
        }
        let loss_scale = match adam.moments.keep_loss_scale() {
            true => self.scaling.loss_scale,
            false => 1.0,
        };
        let kind = OpKind::AdamUpdater {
            epsilon: adam.epsilon * loss_scale,
            weight_decay: decays.then_some(adam.weight_decay),
            bias_correction,
        };
        Ok(Pending {
            weight,
            x: self.graph.add(kind, &operands, &scope)?,
            rate,
            scope,
            max_weight_norm: adam.max_weight_norm.filter(|&norm| norm != 0.0),
        })
    }

    /// The gradient of a weight over all replicas.
    fn summed(
        &mut self,
        accumulated: Accumulated,
        adam: &Adam,
        scope: &Scope,
    ) -> Result<Gradient, InferError> {
        let sum = self.reduced(accumulated.value, scope)?;
        let value = self.gradient(sum, adam, scope)?;
        Ok(Gradient { sum, value })
    }

    /// The gradient, without the factors that it was made with.
    fn gradient(
        &mut self,
        sum: TensorId,
        adam: &Adam,
        scope: &Scope,
    ) -> Result<TensorId, InferError> {
        let mut factor = self.scaling.reduction_factor();
        let mut gradient = sum;
        if !adam.moments.keep_loss_scale() {
            factor /= self.scaling.loss_scale;
            let is_half = self.graph.tensors[sum].dtype == DType::F16;
            if is_half && adam.moments == MomentTypes::FLOAT {
                let to = DType::F32;
                gradient = self.graph.add(OpKind::Cast { to }, &[sum], scope)?;
            }
        }
        self.graph.add(OpKind::Scale { factor }, &[gradient], scope)
    }

    /// A moment's new value; its variable is like the weight, in its own type.
    fn moment(
        &mut self,
        prefix: &str,
        weight: TensorId,
        gradient: TensorId,
        (dtype, beta, square): (DType, f64, bool),
        scope: &Scope,
    ) -> Result<TensorId, InferError> {
        let shape = self.graph.tensors[weight].shape.clone();
        let variable = self.graph.variable_beside(weight, prefix, dtype, shape);
        let kind = OpKind::AdamMoment { beta, square };
        let value = self.graph.add(kind, &[variable, gradient], scope)?;
        self.graph.update(variable, value);
        Ok(value)
    }

    /// The number of this update, counted from 1.
    fn step(&mut self, weight: TensorId, scope: &Scope) -> Result<TensorId, InferError> {
        let one = match self.one {
            Some(one) => one,
            None => {
                let value = Constant::Splat(1.0);
                self.graph
                    .constant("one", DType::F32, Shape::scalar(), value)
            }
        };
        self.one = Some(one);
        let scalar = Shape::scalar();
        let step = self
            .graph
            .variable_beside(weight, "Step___", DType::F32, scalar);
        let next = self.sum(step, one, scope)?;
        self.graph.update(step, next);
        Ok(next)
    }
}

#[cfg(test)]
mod tests;
