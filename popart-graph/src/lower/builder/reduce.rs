//! Reductions: first on each tile, then partial results meet on the tiles that held them, cut
//! evenly.

use ipu_sim::layout::{AxisSplit, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Operand, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{ReduceOp, Vertex};
use ipu_sim::view::{View, ViewShape};
use smallvec::SmallVec;

use super::Builder;
use super::elementwise::{Home, one_digit_per_axis, without_axes};
use crate::lower::layouts;
use crate::lower::value::Value;

/// What to make of a reduction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduction {
    pub(crate) op: ReduceOp,
    /// Applied to the result.
    pub(crate) scale: f64,
    /// Element type of the result.
    pub(crate) dtype: DType,
}

/// Whether a stage of a reduction gives its result.
#[derive(Clone, Copy)]
struct Last(bool);

impl Builder<'_> {
    /// One reduction of one tensor.
    pub(crate) fn reduce_one(
        &mut self,
        value: &Value,
        reduction: Reduction,
        axes: &[usize],
        name: &str,
    ) -> Value {
        self.reduce(&[(reduction, value)], axes, name)
            .pop()
            .expect("one reduction has one result")
    }

    /// The sum of a tensor over some axes.
    pub(crate) fn sum(&mut self, value: &Value, axes: &[usize], dtype: DType, name: &str) -> Value {
        let reduction = Reduction {
            op: ReduceOp::Sum,
            scale: 1.0,
            dtype,
        };
        self.reduce_one(value, reduction, axes, name)
    }

    /// Several reductions of one tensor over the same axes, which disappear from the results.
    pub(crate) fn reduce(
        &mut self,
        reductions: &[(Reduction, &Value)],
        axes: &[usize],
        name: &str,
    ) -> Vec<Value> {
        let values: Vec<&Value> = reductions.iter().map(|(_, value)| *value).collect();
        let home = self.reduction_home(&values);
        let operands = self.align(&values, &home);
        let is_reduced = |axis: u8| {
            axes.iter().any(|&logical| {
                home.view.axes[logical]
                    .iter()
                    .any(|digit| digit.axis == axis)
            })
        };
        let n_axes = home.layout.axes.len() as u8;
        let (reduced, kept): (Vec<u8>, Vec<u8>) = (0..n_axes).partition(|&axis| is_reduced(axis));
        let view = without_axes(&home.view, axes, &kept);
        let on_tile = partials_layout(&home.layout, &reduced, &kept);
        let n_partial_axes = on_tile.axes.len() - kept.len();
        // Labels: axes of the home variable, then one per axis of partial results.
        let partial_labels = (0..n_partial_axes as u8).map(|axis| n_axes + axis);
        let out_labels: Vec<u8> = partial_labels.chain(kept).collect();
        let last = Last(n_partial_axes == 0);
        let wanted: Vec<Reduction> = reductions.iter().map(|(wanted, _)| *wanted).collect();
        let partials = self.stage(&wanted, operands, (&on_tile, &out_labels), last, name);
        let results = self.join_partials(partials, &wanted, n_partial_axes, name);
        results
            .into_iter()
            .map(|var| {
                let dtype = self.program.vars[var].dtype;
                Value::of(
                    View {
                        var,
                        shape: view.clone(),
                    },
                    dtype,
                )
            })
            .collect()
    }

    fn reduction_home(&mut self, values: &[&Value]) -> Home {
        let home = self.home(values, None);
        if one_digit_per_axis(&home.view) {
            return home;
        }
        let shape = values[0].shape();
        Home {
            layout: self.spread(&shape, values[0].dtype),
            view: ViewShape::identity(&shape),
        }
    }

    /// Joins partial results, one axis of them after the other, the innermost first.
    fn join_partials(
        &mut self,
        mut partials: Vec<VarId>,
        reductions: &[Reduction],
        n_partial_axes: usize,
        name: &str,
    ) -> Vec<VarId> {
        for axis in (0..n_partial_axes).rev() {
            let layout = self.program.layout_of(partials[0]).clone();
            if let Some(groups) = layouts::joined_in_groups(&layout, axis, self.spec.tiles_per_ipu)
            {
                let rest = Last(false);
                partials = self.join_stage(&partials, reductions, axis, &groups, rest, name);
            }
            let layout = self.program.layout_of(partials[0]).clone();
            let joined = layouts::shared_among(&layout, axis);
            partials = self.join_stage(&partials, reductions, axis, &joined, Last(axis == 0), name);
        }
        partials
    }

    /// Exchanges partial results to `joined` and adds up there what `axis` has on each tile.
    fn join_stage(
        &mut self,
        partials: &[VarId],
        reductions: &[Reduction],
        axis: usize,
        joined: &Layout,
        last: Last,
        name: &str,
    ) -> Vec<VarId> {
        let values: Vec<Value> = partials.iter().map(|&var| self.value_of(var)).collect();
        let wanted: Vec<(&Value, &Layout)> = values.iter().map(|value| (value, joined)).collect();
        let gathered = self.materialise_many(&wanted, &self.part("gathered"));
        // Labels: the axes of what is gathered, then the axis of what is left of `axis`.
        let labels: Vec<u8> = (0..joined.axes.len() as u8).collect();
        let mut result_axes = joined.axes.clone();
        let mut result_labels = labels.clone();
        let alone = joined.axes[axis].places.len() == 1;
        let base = if alone {
            joined.axes[axis].places[0].tile
        } else {
            0
        };
        if alone {
            result_axes.remove(axis);
            result_labels.remove(axis);
        } else {
            result_axes[axis] = AxisSplit::one_each(&joined.axes[axis]);
            result_labels[axis] = joined.axes.len() as u8;
        }
        let layout = Layout {
            first_tile: joined.first_tile + base,
            ..Layout::row_major(result_axes)
        };
        let rest = |reduction: &Reduction| Reduction {
            op: match reduction.op {
                ReduceOp::Max => ReduceOp::Max,
                ReduceOp::Sum | ReduceOp::SquareSum => ReduceOp::Sum,
            },
            ..*reduction
        };
        let rest: Vec<Reduction> = reductions.iter().map(rest).collect();
        let operands = gathered.iter().map(|&var| Operand::new(var, &labels));
        self.stage(
            &rest,
            operands.collect(),
            (&layout, &result_labels),
            last,
            name,
        )
    }

    /// One compute set that reduces every operand on its tiles, to results of that layout.
    fn stage(
        &mut self,
        reductions: &[Reduction],
        operands: Vec<Operand>,
        (layout, labels): (&Layout, &[u8]),
        last: Last,
        name: &str,
    ) -> Vec<VarId> {
        let mut vertices = Vec::new();
        let mut results = Vec::new();
        for (reduction, operand) in reductions.iter().zip(operands) {
            let (dtype, scale, kind) = match last {
                Last(true) => (reduction.dtype, reduction.scale, VarKind::Activation),
                Last(false) => (DType::F32, 1.0, VarKind::Temporary),
            };
            let result = self.add_var(name, dtype, layout.clone(), kind);
            vertices.push(VertexGroup {
                vertex: Vertex::Reduce {
                    op: reduction.op,
                    scale,
                },
                output: Operand::new(result, labels),
                inputs: SmallVec::from_iter([operand]),
            });
            results.push(result);
        }
        self.emit_compute(vertices);
        results
    }
}

/// Partial results of reducing the axes `reduced`, on the tiles where the elements lie.
///
/// Axes: one for every reduced axis that lies in several places, then the kept ones.
fn partials_layout(layout: &Layout, reduced: &[u8], kept: &[u8]) -> Layout {
    let partial = reduced
        .iter()
        .map(|&axis| &layout.axes[usize::from(axis)])
        .filter(|split| split.places.len() > 1)
        .map(AxisSplit::one_each);
    let rest = kept
        .iter()
        .map(|&axis| layout.axes[usize::from(axis)].clone());
    let alone: u32 = reduced
        .iter()
        .map(|&axis| &layout.axes[usize::from(axis)])
        .filter(|split| split.places.len() == 1)
        .map(|split| split.places[0].tile)
        .sum();
    Layout {
        first_tile: layout.first_tile + alone,
        copies: layout.copies.clone(),
        ..Layout::row_major(partial.chain(rest).collect())
    }
}
