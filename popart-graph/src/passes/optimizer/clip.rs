//! Gradients that are made smaller together where their common norm is too large.
//!
//! Over all weights of all IPUs, before anything of the update reads the gradients `g` (PopART,
//! `willow/src/transforms/clipweightgradientsbynorm.cpp`, for `ClipNormSettings::clipAllWeights`):
//!
//! ```text
//! n = square_sum(g)                               for each gradient, on its IPU
//! s = reduce_sum(concat(n, ..))                   on the IPU with most gradients
//! f = div(clip_norm, max(sqrt(s), clip_norm))     there
//! g = mul(g, f)                                   on the IPU of each gradient
//! ```
//!
//! The gradients are those that moments are made of: without the scale of the loss, unless moments
//! keep it; the norm that they may have is then larger by that scale, too. Both moments read the
//! smaller ones, as in the definition (Pascanu et al., "On the difficulty of training recurrent
//! neural networks", 2013); releases of PopART differ in whether
//! the second does.

use std::collections::BTreeMap;

use ipu_sim::ids::IpuId;
use ipu_sim::numerics::DType;

use super::error::OptimizerError;
use super::rules::{OptimizerOptions, UpdateRule};
use super::{AccumulatedGradients, Ctx, Gradient};
use crate::infer::InferError;
use crate::ir::{BinaryFn, Constant, OpKind, Part, Phase, Scope, Shape, TensorId, UnaryFn};

/// The norm and the factor, and the part that they are: they belong to the update of every weight.
const NAME: &str = "gradientNorm";

impl Ctx {
    /// Prepares the gradients of all weights with a common norm of at most `clip_norm`.
    pub(super) fn clip(
        &mut self,
        options: &OptimizerOptions,
        accumulated: &AccumulatedGradients,
        clip_norm: f64,
    ) -> Result<(), OptimizerError> {
        if clip_norm.is_nan() || clip_norm <= 0.0 {
            return Err(OptimizerError::ClipNorm { got: clip_norm });
        }
        let mut gradients: Vec<(TensorId, Gradient, Scope)> = Vec::new();
        let mut scale = 1.0;
        for update in &options.weights {
            let UpdateRule::Adam(adam) = update.rule else {
                return Err(OptimizerError::ClippedWithoutMoments);
            };
            let scope = self.scope(update.weight, accumulated[&update.weight]);
            if scope.stage.is_some() {
                return Err(OptimizerError::ClippedInStages);
            }
            if adam.moments.keep_loss_scale() {
                scale = self.scaling.loss_scale;
            }
            let gradient = self.summed(accumulated[&update.weight], &adam, &scope)?;
            gradients.push((update.weight, gradient, scope));
        }
        let Some(home) = home(&gradients) else {
            return Ok(());
        };
        let mut squares = Vec::new();
        for (_, gradient, scope) in &gradients {
            let square = self
                .graph
                .add(OpKind::SquareSum, &[gradient.value], scope)?;
            let shape = Shape::from([1]);
            squares.push(
                self.graph
                    .add(OpKind::Reshape { shape }, &[square], scope)?,
            );
        }
        let factor = self.clip_factor(&squares, clip_norm * scale, &home)?;
        let mut factors: BTreeMap<(Option<IpuId>, DType), TensorId> = BTreeMap::new();
        for (weight, gradient, scope) in gradients {
            let dtype = self.graph.tensors[gradient.value].dtype;
            let factor = match factors.get(&(scope.ipu, dtype)) {
                Some(&factor) => factor,
                None if dtype == DType::F32 => factor,
                None => {
                    let scope = Scope {
                        ipu: scope.ipu,
                        ..home.clone()
                    };
                    self.graph
                        .add(OpKind::Cast { to: dtype }, &[factor], &scope)?
                }
            };
            factors.insert((scope.ipu, dtype), factor);
            let kind = OpKind::Binary(BinaryFn::Mul);
            let value = self.graph.add(kind, &[gradient.value, factor], &scope)?;
            self.clipped.insert(weight, Gradient { value, ..gradient });
        }
        Ok(())
    }

    /// The number that gradients are multiplied with, `[] f32`, from their sums of squares, `[1]`.
    fn clip_factor(
        &mut self,
        squares: &[TensorId],
        clip_norm: f64,
        home: &Scope,
    ) -> Result<TensorId, InferError> {
        let part = Some(self.graph.parts.add(Part::single(NAME)));
        let scope = Scope {
            name: NAME.to_owned(),
            part,
            phase: Phase::Update,
            ..home.clone()
        };
        let squares = match squares {
            &[square] => square,
            squares => self
                .graph
                .add(OpKind::Concat { axis: 0 }, squares, &scope)?,
        };
        let sum = OpKind::ReduceSum {
            axes: [0].into_iter().collect(),
            keep_dims: false,
        };
        let sum = self.graph.add(sum, &[squares], &scope)?;
        let norm = self
            .graph
            .add(OpKind::Unary(UnaryFn::Sqrt), &[sum], &scope)?;
        let value = Constant::Splat(clip_norm);
        let limit = self
            .graph
            .constant("clipNorm", DType::F32, Shape::scalar(), value);
        let larger = OpKind::Binary(BinaryFn::Max);
        let larger = self.graph.add(larger, &[norm, limit], &scope)?;
        let divide = OpKind::Binary(BinaryFn::Div);
        self.graph.add(divide, &[limit, larger], &scope)
    }
}

/// Scope of the first weight on the IPU that has most gradients, the lowest of equals; so fewest
/// norms are copied.
fn home(gradients: &[(TensorId, Gradient, Scope)]) -> Option<Scope> {
    let mut counts: BTreeMap<Option<IpuId>, usize> = BTreeMap::new();
    for (_, _, scope) in gradients {
        *counts.entry(scope.ipu).or_default() += 1;
    }
    let most = counts.values().max()?;
    let (&ipu, _) = counts.iter().find(|(_, count)| *count == most)?;
    let on_it = gradients.iter().find(|(_, _, scope)| scope.ipu == ipu);
    on_it.map(|(_, _, scope)| scope.clone())
}
