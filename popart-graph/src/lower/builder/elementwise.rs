//! Element-wise operations: each happens where its first full-sized input lies, and the other
//! inputs come there.

use ipu_sim::layout::{Layout, StorageLoop};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Operand, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{MapOp, Vertex};
use ipu_sim::view::{Digit, View, ViewShape};
use smallvec::SmallVec;

use super::Builder;
use crate::lower::value::Value;

/// Where an element-wise operation happens.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) layout: Layout,
    pub(super) view: ViewShape,
}

impl Builder<'_> {
    /// An element-wise operation on inputs of broadcastable shapes.
    pub(crate) fn map(&mut self, op: MapOp, inputs: &[&Value], dtype: DType, name: &str) -> Value {
        let home = self.home(inputs, None);
        let var = self.add_var(name, dtype, home.layout.clone(), VarKind::Activation);
        self.map_into(op, inputs, &home, var)
    }

    /// The same where input `place` lies, which has the shape of the result.
    pub(crate) fn map_at(
        &mut self,
        op: MapOp,
        inputs: &[&Value],
        place: usize,
        dtype: DType,
        name: &str,
    ) -> Value {
        let home = self.home(inputs, Some(place));
        let var = self.add_var(name, dtype, home.layout.clone(), VarKind::Activation);
        self.map_into(op, inputs, &home, var)
    }

    /// The same with further operands that the caller has placed.
    pub(crate) fn map_with(
        &mut self,
        op: MapOp,
        inputs: &[&Value],
        extra: &[Operand],
        dtype: DType,
        name: &str,
    ) -> Value {
        let home = self.home(inputs, None);
        let var = self.add_var(name, dtype, home.layout.clone(), VarKind::Activation);
        self.map_onto(op, inputs, extra, &home, var)
    }

    /// The same, written over input `target`, which nothing else may need any more.
    pub(crate) fn map_in_place(&mut self, op: MapOp, inputs: &[&Value], target: usize) -> Value {
        let home = self.home(inputs, Some(target));
        let var = match inputs[target].single() {
            Some(view) if view.shape == home.view => view.var,
            _ => {
                let dtype = inputs[target].dtype;
                let name = self.part("result");
                self.add_var(&name, dtype, home.layout.clone(), VarKind::Activation)
            }
        };
        self.map_into(op, inputs, &home, var)
    }

    /// An operation that makes a tensor of `shape` out of smaller ones; label n is axis n.
    pub(crate) fn map_to_shape(
        &mut self,
        op: MapOp,
        inputs: &[&Value],
        shape: &[u32],
        dtype: DType,
        name: &str,
    ) -> Value {
        let layout = self.spread(shape, dtype);
        let home = Home {
            view: ViewShape::identity(shape),
            layout: layout.clone(),
        };
        let var = self.add_var(name, dtype, layout, VarKind::Activation);
        self.map_into(op, inputs, &home, var)
    }

    fn map_into(&mut self, op: MapOp, inputs: &[&Value], home: &Home, var: VarId) -> Value {
        self.map_onto(op, inputs, &[], home, var)
    }

    fn map_onto(
        &mut self,
        op: MapOp,
        inputs: &[&Value],
        extra: &[Operand],
        home: &Home,
        var: VarId,
    ) -> Value {
        let operands = self.align(inputs, home);
        let axes: SmallVec<[u8; 4]> = (0..home.layout.axes.len() as u8).collect();
        self.emit_compute(vec![VertexGroup {
            vertex: Vertex::Map(op),
            output: Operand::new(var, &axes),
            inputs: operands.into_iter().chain(extra.iter().cloned()).collect(),
        }]);
        Value::of(
            View {
                var,
                shape: home.view.clone(),
            },
            self.program.vars[var].dtype,
        )
    }

    /// The tensor where `other`, of the same shape, lies.
    pub(crate) fn beside(&mut self, value: &Value, other: &Value) -> Value {
        let home = self.home(&[other], None);
        let operand = self.align(&[value], &home).remove(0);
        // Axes of one index aren't walked, and so not brought along.
        let kept: Vec<u8> = operand.labels.iter().map(|label| label.0).collect();
        let shape = without_axes(&home.view, &[], &kept);
        let var = operand.var;
        Value::of(View { var, shape }, value.dtype)
    }

    /// Where an operation on `inputs` happens: where the preferred or first full-sized one lies.
    pub(super) fn home(&mut self, inputs: &[&Value], preferred: Option<usize>) -> Home {
        let shape = broadcast_shape(inputs);
        let full: Vec<&Value> = preferred
            .map(|index| inputs[index])
            .into_iter()
            .chain(inputs.iter().copied())
            .filter(|value| value.shape() == shape)
            .collect();
        let all_alike = inputs.iter().all(|value| {
            value.parts.len() == 1
                && value.parts[0].shape == inputs[0].parts[0].shape
                && self.layout_of(value) == self.layout_of(inputs[0])
        });
        let direct = full.iter().find(|value| {
            value.single().is_some_and(|view| {
                let shape = self.program.shape_of(view.var);
                covers_whole(&view.shape, &shape) && (all_alike || one_digit_per_axis(&view.shape))
            })
        });
        if let Some(view) = direct.and_then(|value| value.single()) {
            return Home {
                layout: self.program.layout_of(view.var).clone(),
                view: view.shape.clone(),
            };
        }
        let dtype = inputs[0].dtype;
        let layout = self.spread(&shape, dtype);
        Home {
            view: ViewShape::identity(&shape),
            layout,
        }
    }

    fn layout_of(&self, value: &Value) -> &Layout {
        self.program.layout_of(value.parts[0].var)
    }

    /// Brings every input to the tiles of `home`.
    pub(super) fn align(&mut self, inputs: &[&Value], home: &Home) -> Vec<Operand> {
        let mut operands: Vec<Option<Operand>> = Vec::new();
        let mut moves: Vec<(usize, Value, Layout, Vec<u8>)> = Vec::new();
        for (index, value) in inputs.iter().enumerate() {
            if let Some(view) = value.single()
                && view.shape == home.view
                && *self.program.layout_of(view.var) == home.layout
            {
                let axes: Vec<u8> = (0..home.layout.axes.len() as u8).collect();
                operands.push(Some(Operand::new(view.var, &axes)));
                continue;
            }
            let (moved, kept) = self.in_home_axes(value, &home.view);
            let layout = projected(&home.layout, &kept);
            operands.push(None);
            moves.push((index, moved, layout, kept));
        }
        let wanted: Vec<(&Value, &Layout)> = moves
            .iter()
            .map(|(_, value, layout, _)| (value, layout))
            .collect();
        // What is broadcast stays small and goes to the vertices as it arrives.
        let whole = |(_, layout): &(&Value, &Layout)| layout.axes.len() == home.layout.axes.len();
        let vars = if wanted.iter().all(whole) {
            self.rearrange_many(&wanted, &self.part("operand"))
        } else {
            self.materialise_many(&wanted, &self.part("operand"))
        };
        for ((index, _, _, kept), var) in moves.iter().zip(vars) {
            operands[*index] = Some(Operand::new(var, kept));
        }
        operands
            .into_iter()
            .map(|operand| operand.expect("every input was placed"))
            .collect()
    }

    /// `value` with the axes of the home variable that it has, and which those are.
    fn in_home_axes(&mut self, value: &Value, home: &ViewShape) -> (Value, Vec<u8>) {
        let extents = value.shape();
        let missing = home.axes.len() - extents.len();
        let mut digits = Vec::new();
        for (axis, logical) in home.axes.iter().enumerate().skip(missing) {
            let extent: u32 = logical.iter().map(|digit| digit.extent).product();
            if extents[axis - missing] == extent {
                digits.extend(logical.iter().copied());
            }
        }
        let shape: Vec<u32> = digits.iter().map(|digit| digit.extent).collect();
        let split = self.reshape(value, &shape);
        let mut order: Vec<usize> = (0..digits.len()).collect();
        order.sort_by_key(|&position| digits[position].axis);
        let kept = order
            .iter()
            .map(|&position| digits[position].axis)
            .collect();
        (split.transpose(&order), kept)
    }
}

fn broadcast_shape(inputs: &[&Value]) -> Vec<u32> {
    let rank = inputs
        .iter()
        .map(|value| value.shape().len())
        .max()
        .unwrap_or(0);
    let mut shape = vec![1; rank];
    for value in inputs {
        let extents = value.shape();
        let missing = rank - extents.len();
        for (axis, extent) in extents.into_iter().enumerate() {
            shape[axis + missing] = shape[axis + missing].max(extent);
        }
    }
    shape
}

/// `layout` for operands that have only the axes `kept`, in the same storage order.
fn projected(layout: &Layout, kept: &[u8]) -> Layout {
    let keep: Vec<usize> = kept.iter().map(|&axis| usize::from(axis)).collect();
    let order = layout
        .order
        .iter()
        .filter_map(|step| {
            let axis = kept.iter().position(|&axis| axis == step.axis)? as u8;
            Some(StorageLoop { axis, ..*step })
        })
        .collect();
    Layout {
        order,
        ..layout.project(&keep)
    }
}

/// Whether a view shows every element of a variable of `shape` once.
fn covers_whole(view: &ViewShape, shape: &[u32]) -> bool {
    let elements: u32 = shape.iter().product();
    let seen: u32 = view
        .axes
        .iter()
        .flatten()
        .map(|digit| digit.extent)
        .product();
    let repeats = view
        .axes
        .iter()
        .flatten()
        .any(|digit| digit.stride == 0 && digit.extent > 1);
    seen == elements && !repeats
}

/// Whether every axis of the variable is walked by one digit.
pub(super) fn one_digit_per_axis(view: &ViewShape) -> bool {
    let mut axes: Vec<u8> = view.axes.iter().flatten().map(|digit| digit.axis).collect();
    axes.sort_unstable();
    axes.windows(2).all(|pair| pair[0] != pair[1])
        && view.axes.iter().flatten().all(|digit| digit.stride == 1)
}

/// `view` without logical `axes`; digits are renumbered to the variable axes `kept`.
pub(super) fn without_axes(view: &ViewShape, axes: &[usize], kept: &[u8]) -> ViewShape {
    let renumber = |axis: u8| kept.iter().position(|&candidate| candidate == axis);
    ViewShape {
        axes: view
            .axes
            .iter()
            .enumerate()
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, digits)| {
                digits
                    .iter()
                    .filter_map(|digit| {
                        let axis = renumber(digit.axis)? as u8;
                        Some(Digit { axis, ..*digit })
                    })
                    .collect()
            })
            .collect(),
        offsets: SmallVec::from_elem(0, kept.len()),
    }
}
