//! Emits steps of a program: variables, exchanges, and vertices over matching layouts.
//!
//! The rules that every operation follows are here, once:
//! - an element-wise operation happens where its first full-sized input lies, and the
//!   other inputs come there;
//! - a tensor that changes its layout is transposed on its tiles if neighbours in memory
//!   change, then exchanged;
//! - a reduction first happens on each tile, then partial results meet on the tiles that
//!   held them, cut evenly.

use ipu_sim::ids::{Id, IpuId};
use ipu_sim::layout::{AxisSplit, Layout, StorageLoop};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Exchange, Operand, Program, Role, Source, SourceId, Step, TileCopy, VarId, VarKind,
    Variable, VertexGroup,
};
use ipu_sim::spec::TileSpec;
use ipu_sim::vertex::{MapOp, ReduceOp, Vertex};
use ipu_sim::view::{View, ViewShape};
use smallvec::SmallVec;

use super::layouts;
use super::value::Value;

/// Rows of a block that is transposed at once: as many as the AMP takes channels in.
const TRANSPOSED_BLOCK: u32 = 16;

/// Emits the steps of one IPU at a time.
pub(crate) struct Builder<'a> {
    pub(crate) program: Program,
    pub(crate) spec: &'a TileSpec,
    /// Where steps go; swapped by callers that build functions.
    pub(crate) steps: Vec<Step>,
    /// IPU of what is emitted now.
    pub(crate) ipu: IpuId,
    /// Origin of what is emitted now.
    pub(crate) source: SourceId,
    /// First tile for the next small tensor, by IPU.
    next_tile: Vec<u32>,
}

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

/// Where an element-wise operation happens.
#[derive(Clone)]
struct Home {
    layout: Layout,
    view: ViewShape,
}

/// How data that moves between tiles ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// As an operand, ready for the vertices that wanted it.
    Operand,
    /// As a tensor in another layout.
    InPlace,
    /// The same, put in order by vertices on its tile.
    Assembled,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(program: Program, spec: &'a TileSpec) -> Self {
        let next_tile = vec![0; program.n_ipus as usize];
        Self {
            program,
            spec,
            steps: Vec::new(),
            ipu: IpuId(0),
            source: SourceId(0),
            next_tile,
        }
    }

    /// A name for `what` the operation at work needs on its way: `Layer3/FF/1/operand`.
    pub(crate) fn part(&self, what: &str) -> String {
        format!("{}/{what}", self.program.source(self.source).name)
    }

    pub(crate) fn add_var(
        &mut self,
        name: &str,
        dtype: DType,
        layout: Layout,
        kind: VarKind,
    ) -> VarId {
        assert!(
            layout.tile_end() <= self.spec.tiles_per_ipu,
            "`{name}` reaches past the last tile"
        );
        let layout = self.program.add_layout(layout);
        self.program.vars.push(Variable {
            name: name.to_owned(),
            dtype,
            ipu: self.ipu,
            layout,
            kind,
        })
    }

    /// A new variable seen as it is.
    pub(crate) fn new_value(
        &mut self,
        name: &str,
        dtype: DType,
        layout: Layout,
        kind: VarKind,
    ) -> Value {
        let var = self.add_var(name, dtype, layout, kind);
        self.value_of(var)
    }

    pub(crate) fn value_of(&self, var: VarId) -> Value {
        Value::of(self.program.view(var), self.program.vars[var].dtype)
    }

    /// An even layout for a tensor that no operation has an opinion on.
    pub(crate) fn spread(&mut self, shape: &[u32], dtype: DType) -> Layout {
        let mut layout = layouts::spread(shape, dtype, self.spec.tiles_per_ipu);
        let next = &mut self.next_tile[self.ipu.index()];
        let used = layout.tile_end();
        if *next + used > self.spec.tiles_per_ipu {
            *next = 0;
        }
        layout.first_tile = *next;
        *next += used;
        layout
    }

    pub(crate) fn emit_compute(&mut self, vertices: Vec<VertexGroup>) {
        self.steps.push(Step::Compute(ComputeSet {
            source: self.source,
            ipu: self.ipu,
            vertices,
        }));
    }

    /// What `emit` emits changes layouts and computes nothing: the profile tells it apart.
    fn changing_layout<T>(&mut self, emit: impl FnOnce(&mut Self) -> T) -> T {
        let work = self.source;
        let line = self.program.source(work);
        if line.role == Role::Work {
            let line = Source {
                role: Role::Layout,
                ..line.clone()
            };
            self.source = self.program.add_line(line);
        }
        let out = emit(self);
        self.source = work;
        out
    }

    pub(crate) fn emit_exchange(&mut self, copies: Vec<TileCopy>) {
        if !copies.is_empty() {
            self.steps.push(Step::Exchange(Exchange {
                source: self.source,
                ipu: self.ipu,
                copies,
            }));
        }
    }

    /// An operand in a variable of `layout`, whose axes are the tensor's.
    ///
    /// The variable it already lies in, if that has this layout.
    pub(crate) fn materialise(&mut self, value: &Value, layout: &Layout, name: &str) -> VarId {
        self.materialise_many(&[(value, layout)], name)[0]
    }

    /// Several operands at once, in one exchange phase.
    pub(crate) fn materialise_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
    ) -> Vec<VarId> {
        self.move_many(wanted, name, Arrival::Operand)
    }

    /// As [`Self::materialise`], for no vertex in particular: a change of layout.
    pub(crate) fn relay(&mut self, value: &Value, layout: &Layout, name: &str) -> VarId {
        self.changing_layout(|this| this.move_many(&[(value, layout)], name, Arrival::InPlace)[0])
    }

    /// Several tensors at once, each as a tensor of its own: what arrives in fragments is put
    /// in order on its tile, where vertices that read from many tiles would take it as it comes.
    pub(crate) fn rearrange_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
    ) -> Vec<VarId> {
        self.changing_layout(|this| this.move_many(wanted, name, Arrival::Assembled))
    }

    fn move_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
        arrival: Arrival,
    ) -> Vec<VarId> {
        let mut transposes = Vec::new();
        let mut copies = Vec::new();
        let mut assemblies = Vec::new();
        let mut vars = Vec::new();
        for (value, layout) in wanted {
            let whole = value.whole(|var| self.program.shape_of(var));
            if let Some(var) = whole.filter(|&var| self.program.layout_of(var) == *layout) {
                vars.push(var);
                continue;
            }
            let add = |this: &mut Self, name: &str| {
                this.add_var(name, value.dtype, (*layout).clone(), VarKind::Temporary)
            };
            let arrived = match arrival {
                Arrival::Operand | Arrival::InPlace => add(self, name),
                Arrival::Assembled => add(self, &self.part("arrived")),
            };
            let whole = self.program.view(arrived);
            self.copy_into(value, &whole, &mut transposes, &mut copies);
            vars.push(match arrival {
                Arrival::Operand | Arrival::InPlace => arrived,
                Arrival::Assembled => {
                    let var = add(self, name);
                    let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
                    assemblies.push(VertexGroup {
                        vertex: Vertex::Assemble,
                        output: Operand::new(var, &labels),
                        inputs: SmallVec::from_iter([Operand::new(arrived, &labels)]),
                    });
                    var
                }
            });
        }
        if !transposes.is_empty() {
            self.changing_layout(|this| this.emit_compute(transposes));
        }
        self.emit_exchange(copies);
        if !assemblies.is_empty() {
            self.emit_compute(assemblies);
        }
        vars
    }

    /// The tensor where `other`, of the same shape, lies.
    pub(crate) fn beside(&mut self, value: &Value, other: &Value) -> Value {
        let home = self.home(&[other], None);
        let operand = self.align(&[value], &home).remove(0);
        Value::of(
            View {
                var: operand.var,
                shape: home.view,
            },
            value.dtype,
        )
    }

    /// Copies a tensor into a view of the same shape.
    pub(crate) fn copy_to_view(&mut self, value: &Value, dst: &View) {
        let mut transposes = Vec::new();
        let mut copies = Vec::new();
        self.copy_into(value, dst, &mut transposes, &mut copies);
        self.changing_layout(|this| {
            if !transposes.is_empty() {
                this.emit_compute(transposes);
            }
            this.emit_exchange(copies);
        });
    }

    fn copy_into(
        &mut self,
        value: &Value,
        target: &View,
        transposes: &mut Vec<VertexGroup>,
        copies: &mut Vec<TileCopy>,
    ) {
        let mut begin = 0;
        for part in &value.parts {
            let extent = part.shape.extents().get(value.axis).copied().unwrap_or(1);
            let dst = if value.parts.len() == 1 {
                target.clone()
            } else {
                let shape = target.shape.slice(value.axis, begin, begin + extent);
                View {
                    var: target.var,
                    shape: shape.expect("parts follow each other along one axis of the target"),
                }
            };
            begin += extent;
            let src = self.with_neighbours_of(part, &dst, transposes);
            copies.push(TileCopy { src, dst });
        }
    }

    /// `part`, transposed on its tiles if `dst` wants other elements next to each other.
    fn with_neighbours_of(
        &mut self,
        part: &View,
        dst: &View,
        transposes: &mut Vec<VertexGroup>,
    ) -> View {
        let layout = self.program.layout_of(part.var).clone();
        let wanted = self
            .program
            .layout_of(dst.var)
            .innermost()
            .and_then(|inner| {
                let axis = dst.shape.axes.iter().position(|digits| {
                    digits.last().is_some_and(|digit| digit.axis == inner.axis)
                })?;
                part.shape.axes[axis].last().map(|digit| digit.axis)
            });
        let (Some(wanted), Some(inner)) = (wanted, layout.innermost()) else {
            return part.clone();
        };
        let scattered = |axis: u8| layout.axes[usize::from(axis)].extent_max() > 1;
        if wanted == inner.axis || !scattered(wanted) || !scattered(inner.axis) {
            return part.clone();
        }
        // Whole blocks, so that the vertex transposes squares of vectors.
        let extent = layout.axes[usize::from(wanted)].extent_max();
        let step = |block: u32| StorageLoop {
            axis: wanted,
            block,
        };
        let others = layout.order.iter().filter(|loop_| loop_.axis != wanted);
        let order: Vec<StorageLoop> = [step(TRANSPOSED_BLOCK.min(extent.next_multiple_of(4)))]
            .into_iter()
            .chain(others.copied())
            .chain([step(1)])
            .collect();
        let source = self.program.vars[part.var].clone();
        let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
        let transposed = self.add_var(
            &source.name,
            source.dtype,
            Layout { order, ..layout },
            VarKind::Temporary,
        );
        transposes.push(VertexGroup {
            vertex: Vertex::Copy,
            output: Operand::new(transposed, &labels),
            inputs: SmallVec::from_iter([Operand::new(part.var, &labels)]),
        });
        View {
            var: transposed,
            shape: part.shape.clone(),
        }
    }

    /// An element-wise operation on inputs of broadcastable shapes.
    pub(crate) fn map(&mut self, op: MapOp, inputs: &[&Value], dtype: DType, name: &str) -> Value {
        let home = self.home(inputs, None);
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

    /// Where an operation on `inputs` happens: where the preferred or first full-sized one lies.
    fn home(&mut self, inputs: &[&Value], preferred: Option<usize>) -> Home {
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
    fn align(&mut self, inputs: &[&Value], home: &Home) -> Vec<Operand> {
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

    /// A reshape that copies if it must: into one axis, which splits into any factors.
    pub(crate) fn reshape(&mut self, value: &Value, shape: &[u32]) -> Value {
        if let Some(value) = value.reshape(shape) {
            return value;
        }
        let elements = value.shape().iter().product();
        let flat = value.reshape(&[elements]).unwrap_or_else(|| {
            let layout = self.spread(&value.shape(), value.dtype);
            let var = self.rearrange_many(&[(value, &layout)], &self.part("reshaped"))[0];
            self.value_of(var)
                .reshape(&[elements])
                .expect("the axes of a whole variable join into one")
        });
        let layout = self.spread(&[elements], value.dtype);
        let var = self.rearrange_many(&[(&flat, &layout)], &self.part("reshaped"))[0];
        self.value_of(var)
            .reshape(shape)
            .expect("one axis splits into any factors of its extent")
    }

    /// A slice that copies if it must.
    pub(crate) fn slice(&mut self, value: &Value, axis: usize, begin: u32, end: u32) -> Value {
        value.slice(axis, begin, end).unwrap_or_else(|| {
            let layout = self.spread(&value.shape(), value.dtype);
            let var = self.relay(value, &layout, &self.part("sliced"));
            self.value_of(var)
                .slice(axis, begin, end)
                .expect("an axis of a whole variable can be cut anywhere")
        })
    }

    /// A concatenation that copies inputs that are concatenations along another axis.
    pub(crate) fn concat(&mut self, values: &[&Value], axis: usize) -> Value {
        let values: Vec<Value> = values
            .iter()
            .map(|value| {
                if value.parts.len() > 1 && value.axis != axis {
                    let layout = self.spread(&value.shape(), value.dtype);
                    let var = self.relay(value, &layout, &self.part("concatenated"));
                    self.value_of(var)
                } else {
                    (*value).clone()
                }
            })
            .collect();
        Value::concat(&values, axis).expect("parts lie along the axis of concatenation")
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
        let partial_labels: Vec<u8> = (0..n_partial_axes as u8)
            .map(|axis| n_axes + axis)
            .collect();
        let out_labels = [partial_labels.as_slice(), &kept].concat();
        let done_on_tile = n_partial_axes == 0;
        let mut partials = Vec::new();
        let mut vertices = Vec::new();
        for ((reduction, _), operand) in reductions.iter().zip(operands) {
            let (dtype, scale) = if done_on_tile {
                (reduction.dtype, reduction.scale)
            } else {
                (DType::F32, 1.0)
            };
            let kind = if done_on_tile {
                VarKind::Activation
            } else {
                VarKind::Temporary
            };
            let var = self.add_var(name, dtype, on_tile.clone(), kind);
            vertices.push(VertexGroup {
                vertex: Vertex::Reduce {
                    op: reduction.op,
                    scale,
                },
                output: Operand::new(var, &out_labels),
                inputs: SmallVec::from_iter([operand]),
            });
            partials.push(var);
        }
        self.emit_compute(vertices);
        let results = if done_on_tile {
            partials
        } else {
            let reductions: Vec<Reduction> =
                reductions.iter().map(|(reduction, _)| *reduction).collect();
            self.join_partials(partials, &reductions, n_partial_axes, name)
        };
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
        let mut vertices = Vec::new();
        let mut results = Vec::new();
        for (&var, reduction) in gathered.iter().zip(reductions) {
            let op = match reduction.op {
                ReduceOp::Max => ReduceOp::Max,
                ReduceOp::Sum | ReduceOp::SquareSum => ReduceOp::Sum,
            };
            let (dtype, scale, kind) = if last.0 {
                (reduction.dtype, reduction.scale, VarKind::Activation)
            } else {
                (DType::F32, 1.0, VarKind::Temporary)
            };
            let result = self.add_var(name, dtype, layout.clone(), kind);
            vertices.push(VertexGroup {
                vertex: Vertex::Reduce { op, scale },
                output: Operand::new(result, &result_labels),
                inputs: SmallVec::from_iter([Operand::new(var, &labels)]),
            });
            results.push(result);
        }
        self.emit_compute(vertices);
        results
    }

    /// Fills a variable with a constant.
    pub(crate) fn fill(&mut self, var: VarId, value: f64) {
        let labels: Vec<u8> = (0..self.program.layout_of(var).axes.len() as u8).collect();
        self.emit_compute(vec![VertexGroup {
            vertex: Vertex::Fill(value),
            output: Operand::new(var, &labels),
            inputs: SmallVec::new(),
        }]);
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
fn one_digit_per_axis(view: &ViewShape) -> bool {
    let mut axes: Vec<u8> = view.axes.iter().flatten().map(|digit| digit.axis).collect();
    axes.sort_unstable();
    axes.windows(2).all(|pair| pair[0] != pair[1])
        && view.axes.iter().flatten().all(|digit| digit.stride == 1)
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

/// `view` without logical `axes`; digits are renumbered to the variable axes `kept`.
fn without_axes(view: &ViewShape, axes: &[usize], kept: &[u8]) -> ViewShape {
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
                        Some(ipu_sim::view::Digit { axis, ..*digit })
                    })
                    .collect()
            })
            .collect(),
        offsets: SmallVec::from_elem(0, kept.len()),
    }
}
