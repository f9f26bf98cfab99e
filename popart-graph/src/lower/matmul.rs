//! Matrix products: a plan becomes layouts, exchanges, AMP vertices and reductions.
//!
//! A plan sees a product as a 1x1 convolution of an *input* `[.., x, k]` with *weights*
//! `[.., k, o]`; swapped plans take the right operand as the input. Tiles are numbered,
//! outermost first, by group, part of k, part of x, part of o, so that both tiles of an
//! exchange pair receive the same input (PopLibs, `lib/poplin/ConvUtilInternal.cpp`). Passes
//! of a layer that share a plan number them so that each part of the weights is on the same
//! tile in all of them.
//!
//! Before the product each operand lies *at home*: spread evenly over the tiles that need
//! it, channels in groups as the AMP wants them. Variables are created so; activations are
//! rearranged. Then operands are broadcast to the tiles that share them, partial sums over
//! parts of k are exchanged, and their sum stays cut among the tiles that made them.
//! Serial splits loop over slices of the weights.

use ipu_sim::cost::partials;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Label, Labels, Operand, Role, Step, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::{MapOp, MatMulMethod, Vertex};
use smallvec::SmallVec;

use super::builder::Builder;
use super::layouts;
use super::value::Value;
use crate::plan::{JointPass, Plan};

/// Which operand of the convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `[.., x, k]`.
    Input,
    /// `[.., k, o]`.
    Weights,
}

/// What a serial loop cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serial {
    None,
    Input(u32),
    Output(u32),
}

/// How far apart the tiles of neighbouring parts of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strides {
    x: u32,
    k: u32,
    o: u32,
}

impl Strides {
    /// Outermost first: k, x, o; for gradients of a joint plan with the axis that has k's
    /// part of the layer in front (`FC_BWD_AS_CONV` and `FC_WU` in PopLibs).
    fn of(joint: Option<JointPass>, [x, k, o]: [u32; 3]) -> Self {
        match joint {
            None | Some(JointPass::Forward) => Self {
                k: x * o,
                x: o,
                o: 1,
            },
            Some(JointPass::Backward) => Self {
                x: k * o,
                k: o,
                o: 1,
            },
            Some(JointPass::Update) => Self {
                o: x * k,
                x: k,
                k: 1,
            },
        }
    }
}

/// A plan applied to a product's extents.
#[derive(Clone, Debug)]
pub(crate) struct PlannedProduct {
    /// Leading axes and how they are cut.
    batch: Vec<AxisSplit>,
    x: u32,
    k: u32,
    o: u32,
    /// Whether the right operand is the input.
    pub(crate) swapped: bool,
    parts_x: u32,
    parts_k: u32,
    parts_o: u32,
    /// From one part of an axis to the next.
    strides: Strides,
    /// The field is cut in so many positions.
    group_x: u32,
    serial: Serial,
    broadcast_input_once: bool,
    group_k: u32,
    group_o: u32,
    method: MatMulMethod,
    partials: DType,
}

/// Extents of a product `[batch.., m, k] x [batch.., k, n]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extents {
    pub(crate) batch: Vec<u32>,
    pub(crate) m: u32,
    pub(crate) k: u32,
    pub(crate) n: u32,
}

impl PlannedProduct {
    pub(crate) fn new(plan: &Plan, extents: &Extents, n_tiles: u32) -> Self {
        let splits = &plan.splits;
        let (x, o) = if plan.swap_operands {
            (extents.n, extents.m)
        } else {
            (extents.m, extents.n)
        };
        let serial = if splits.out_channels.serial > 1 {
            match divisor_up_to(o, splits.out_channels.serial as u32) {
                1 => Serial::None,
                parts => Serial::Output(parts),
            }
        } else {
            match divisor_up_to(extents.k, splits.in_channels.serial as u32) {
                1 => Serial::None,
                parts => Serial::Input(parts),
            }
        };
        let parts_x = splits.field as u32;
        let parts_k = splits.in_channels.parallel as u32;
        let parts_o = splits.out_channels.parallel as u32;
        let tiles = parts_x * parts_k * parts_o;
        Self {
            batch: cut_batch(&extents.batch, tiles, n_tiles),
            x,
            k: extents.k,
            o,
            swapped: plan.swap_operands,
            parts_x,
            parts_k,
            parts_o,
            strides: Strides::of(plan.joint, [parts_x, parts_k, parts_o]),
            group_x: match plan.joint {
                Some(_) => plan.vertex.in_channels_per_group as u32,
                None => 1,
            },
            serial,
            broadcast_input_once: splits.broadcast_input_before_loop,
            group_k: plan.vertex.in_channels_per_group as u32,
            group_o: plan.vertex.out_channels_per_group as u32,
            method: plan.vertex.method,
            partials: plan.vertex.types.partials(),
        }
    }

    /// The side that operand `index` (0 left, 1 right) is.
    pub(crate) fn side_of(&self, index: usize) -> Side {
        if (index == 1) == self.swapped {
            Side::Input
        } else {
            Side::Weights
        }
    }

    /// Channels in of one iteration.
    fn k_once(&self) -> u32 {
        match self.serial {
            Serial::Input(parts) => self.k / parts,
            Serial::None | Serial::Output(_) => self.k,
        }
    }

    /// Channels out of one iteration.
    fn o_once(&self) -> u32 {
        match self.serial {
            Serial::Output(parts) => self.o / parts,
            Serial::None | Serial::Input(_) => self.o,
        }
    }

    fn cut_k(&self) -> AxisSplit {
        cut(self.k_once(), self.parts_k, self.group_k, self.strides.k)
    }

    fn cut_x(&self) -> AxisSplit {
        cut(self.x, self.parts_x, self.group_x, self.strides.x)
    }

    fn cut_o(&self) -> AxisSplit {
        cut(self.o_once(), self.parts_o, self.group_o, self.strides.o)
    }

    /// Whether the loop slices this side.
    fn is_sliced(&self, side: Side) -> Option<u32> {
        match (self.serial, side) {
            (Serial::Input(parts), _) | (Serial::Output(parts), Side::Weights) => Some(parts),
            (Serial::None, _) | (Serial::Output(_), Side::Input) => None,
        }
    }

    /// Where one iteration's part of a side lies before it is broadcast.
    fn home_once(&self, side: Side) -> Layout {
        let (first, second, order) = match side {
            Side::Input => {
                let grains = (1, self.group_k);
                let (x, k) = share(
                    (self.cut_x(), self.cut_k()),
                    grains,
                    self.parts_o,
                    self.strides.o,
                );
                (x, k, [(1, self.group_k), (0, 1), (1, 1)])
            }
            Side::Weights => {
                let grains = (self.group_k, 1);
                let (k, o) = share(
                    (self.cut_k(), self.cut_o()),
                    grains,
                    self.parts_x,
                    self.strides.x,
                );
                (k, o, [(0, self.group_k), (1, 1), (0, 1)])
            }
        };
        self.with_batch(&[], [first, second], &order)
    }

    /// Where a whole side lies at home: `[.., x, k]` or `[.., k, o]`, with the loop's axis in front.
    pub(crate) fn home(&self, side: Side) -> Layout {
        let once = self.home_once(side);
        match self.is_sliced(side) {
            None => once,
            Some(parts) => layouts::ring(parts, &once),
        }
    }

    /// Where a side lies for the vertices: on every tile that needs it.
    fn broadcast(&self, side: Side) -> Layout {
        match side {
            Side::Input => self
                .with_batch(
                    &[],
                    [self.cut_x(), self.cut_k()],
                    &[(1, self.group_k), (0, 1), (1, 1)],
                )
                .with_copies(
                    (0..self.parts_o)
                        .map(|part| part * self.strides.o)
                        .collect(),
                ),
            Side::Weights => self
                .with_batch(
                    &[],
                    [self.cut_k(), self.cut_o()],
                    &[(0, self.group_k), (1, self.group_o), (1, 1), (0, 1)],
                )
                .with_copies(
                    (0..self.parts_x)
                        .map(|part| part * self.strides.x)
                        .collect(),
                ),
        }
    }

    fn output_order(&self) -> [(u8, u32); 3] {
        [(1, self.group_o), (0, 1), (1, 1)]
    }

    /// Where partial sums are made: `[part of k, .., x, o]`.
    fn partials_layout(&self) -> Layout {
        let parts = AxisSplit::one_each(&self.cut_k());
        self.with_batch(&[parts], [self.cut_x(), self.cut_o()], &self.output_order())
    }

    /// Where the sums lie: `[.., x, o]`, cut among the tiles that made the parts.
    fn summed_layout(&self) -> Layout {
        let stride = self.strides.k;
        let parts = self.cut_k().places.len() as u32;
        let (x, o) = share(
            (self.cut_x(), self.cut_o()),
            (1, self.group_o),
            parts,
            stride,
        );
        self.with_batch(&[], [x, o], &self.output_order())
    }

    /// Where sums of `groups` groups lie, `[group, .., x, o]`: the first on `tiles` of the tiles
    /// that made parts from the `first` on, the next ones every `span` tiles.
    fn group_layout(&self, first: u32, groups: u32, span: u32, tiles: u32) -> Layout {
        let stride = self.strides.k;
        let runs = (0..groups).map(|group| (group, 1, (first + group * span) * stride));
        let (x, o) = share(
            (self.cut_x(), self.cut_o()),
            (1, self.group_o),
            tiles,
            stride,
        );
        let groups = AxisSplit::from_runs(runs);
        self.with_batch(&[groups], [x, o], &self.output_order())
    }

    /// `[front.., batch.., last two]`, the last two stored in `order` (their axes numbered 0 and 1).
    fn with_batch(&self, front: &[AxisSplit], last: [AxisSplit; 2], order: &[(u8, u32)]) -> Layout {
        let n_before = front.len() + self.batch.len();
        let axes: Vec<AxisSplit> = front
            .iter()
            .chain(&self.batch)
            .cloned()
            .chain(last)
            .collect();
        let before = (0..n_before).map(|axis| (axis as u8, 1));
        let behind = order
            .iter()
            .map(|&(axis, block)| (axis + n_before as u8, block));
        let order: Vec<(u8, u32)> = before.chain(behind).collect();
        Layout::row_major(axes).with_order(&order)
    }

    /// A logical operand `[batch.., rows, columns]` with the axes of its home.
    pub(crate) fn in_home_axes(
        &self,
        builder: &mut Builder<'_>,
        value: &Value,
        index: usize,
    ) -> Value {
        let rank = value.shape().len();
        let side = self.side_of(index);
        // The left operand is [m, k], the right one [k, n]; swapped, both turn around.
        let value = if self.swapped {
            value.transpose(&swap_last(rank))
        } else {
            value.clone()
        };
        let Some(parts) = self.is_sliced(side) else {
            return value;
        };
        let sliced = match (self.serial, side) {
            (Serial::Input(_), Side::Input) => rank - 1,
            (Serial::Input(_), Side::Weights) => rank - 2,
            (Serial::Output(_) | Serial::None, _) => rank - 1,
        };
        let mut shape = value.shape();
        shape[sliced] /= parts;
        shape.insert(sliced, parts);
        let value = builder.reshape(&value, &shape);
        let mut order: Vec<usize> = vec![sliced];
        order.extend((0..=rank).filter(|&axis| axis != sliced));
        value.transpose(&order)
    }

    /// The output variable's value as `[batch.., m, n]`.
    fn in_product_axes(&self, value: &Value) -> Value {
        let rank = self.batch.len() + 2;
        let value = match self.serial {
            Serial::Output(parts) => {
                // [parts, batch.., x, o] -> [batch.., x, parts, o] -> [batch.., x, parts * o]
                let mut order: Vec<usize> = (1..rank).collect();
                order.extend([0, rank]);
                let value = value.transpose(&order);
                let mut shape = value.shape();
                let last = shape.pop().expect("an output has channels");
                shape[rank - 1] = parts * last;
                value
                    .reshape(&shape)
                    .expect("neighbouring axes of a variable join in a view")
            }
            Serial::None | Serial::Input(_) => value.clone(),
        };
        if self.swapped {
            value.transpose(&swap_last(rank))
        } else {
            value
        }
    }

    fn labels(&self) -> VertexLabels {
        let batch: Vec<u8> = (0..self.batch.len() as u8).collect();
        let next = batch.len() as u8;
        VertexLabels {
            batch,
            x: next,
            k: next + 1,
            o: next + 2,
            part: next + 3,
        }
    }
}

struct VertexLabels {
    batch: Vec<u8>,
    x: u8,
    k: u8,
    o: u8,
    part: u8,
}

impl VertexLabels {
    fn with(&self, front: &[u8], last: [u8; 2]) -> Vec<u8> {
        [front, &self.batch, &last].concat()
    }
}

/// `left x right` as `[batch.., m, n]` of type `output`.
pub(crate) fn matmul(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    operands: [&Value; 2],
    output: DType,
    name: &str,
) -> Value {
    let [left, right] = operands;
    let left = planned.in_home_axes(builder, left, 0);
    let right = planned.in_home_axes(builder, right, 1);
    let (input, weights) = if planned.swapped {
        (right, left)
    } else {
        (left, right)
    };
    let homes = [planned.home(Side::Input), planned.home(Side::Weights)];
    let wanted = [(&input, &homes[0]), (&weights, &homes[1])];
    let at_home = builder.rearrange_many(&wanted, &builder.part("operand"));
    let out = product_at_home(builder, planned, [at_home[0], at_home[1]], output, name);
    planned.in_product_axes(&builder.value_of(out))
}

/// The product of an input and weights that lie at home, with the axes of the plan.
pub(super) fn product_at_home(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    [input, weights]: [VarId; 2],
    output: DType,
    name: &str,
) -> VarId {
    match planned.serial {
        Serial::None => {
            let sides = broadcast(
                builder,
                planned,
                &[(Side::Input, input), (Side::Weights, weights)],
            );
            product(builder, planned, sides[0], sides[1], output, name)
        }
        Serial::Output(parts) => {
            loop_over_outputs(builder, planned, input, weights, parts, output, name)
        }
        Serial::Input(parts) => {
            loop_over_inputs(builder, planned, input, weights, parts, output, name)
        }
    }
}

fn broadcast(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    sides: &[(Side, VarId)],
) -> Vec<VarId> {
    let values: Vec<(Value, Layout)> = sides
        .iter()
        .map(|&(side, var)| (builder.value_of(var), planned.broadcast(side)))
        .collect();
    let wanted: Vec<(&Value, &Layout)> = values
        .iter()
        .map(|(value, layout)| (value, layout))
        .collect();
    builder.materialise_many(&wanted, &builder.part("broadcast"))
}

/// One iteration: AMP vertices, and the sum of their parts.
fn product(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    input: VarId,
    weights: VarId,
    output: DType,
    name: &str,
) -> VarId {
    let labels = planned.labels();
    let sums_parts = planned.cut_k().places.len() > 1;
    let amp_writes_result = !sums_parts && planned.partials == output;
    let (layout, front): (Layout, &[u8]) = if sums_parts {
        (planned.partials_layout(), &[labels.part])
    } else {
        (planned.summed_layout(), &[])
    };
    let kind = if amp_writes_result {
        VarKind::Activation
    } else {
        VarKind::Temporary
    };
    let amp_name = if amp_writes_result {
        name.to_owned()
    } else {
        builder.part("partials")
    };
    let partials = builder.add_var(&amp_name, planned.partials, layout, kind);
    builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::MatMul {
            method: planned.method,
            groups: labels
                .batch
                .iter()
                .map(|&label| Label(label))
                .collect::<Labels>(),
            field: Label(labels.x),
            input: Label(labels.k),
            output: Label(labels.o),
            input_group: planned.group_k,
            output_group: planned.group_o,
        },
        output: Operand::new(partials, &labels.with(front, [labels.x, labels.o])),
        inputs: SmallVec::from_iter([
            Operand::new(input, &labels.with(&[], [labels.x, labels.k])),
            Operand::new(weights, &labels.with(&[], [labels.k, labels.o])),
        ]),
    }]);
    if amp_writes_result {
        return partials;
    }
    builder.in_role(Role::Reduction, |builder| {
        if sums_parts {
            sum_of_parts(builder, planned, partials, output, name)
        } else {
            let parts = builder.value_of(partials);
            let cast = builder.map(MapOp::Cast, &[&parts], output, name);
            cast.parts[0].var
        }
    })
}

/// Sums partial results over parts of k: where they are many, in stages, so that a tile receives
/// few messages (PopLibs, `multiStageGroupedReduce`).
fn sum_of_parts(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    partials: VarId,
    output: DType,
    name: &str,
) -> VarId {
    let labels = planned.labels();
    let tiles = planned.cut_k().places.len() as u32;
    let stages = partials::reduce_stages(u64::from(tiles));
    let (_, before_last) = stages.split_last().expect("there is something to sum");
    let mut parts = builder.value_of(partials);
    let mut span = 1;
    for stage in before_last {
        parts = sum_groups(builder, planned, &parts, span, stage.depth as u32);
        span *= stage.depth as u32;
    }
    let summed = planned.summed_layout();
    let gathered = layouts::ring(parts.shape()[0], &summed);
    let gathered = builder.materialise(&parts, &gathered, &builder.part("gathered"));
    let sums = builder.add_var(name, output, summed, VarKind::Activation);
    builder.emit_compute(vec![VertexGroup {
        vertex: Vertex::ReducePartials {
            over: Label(labels.part),
        },
        output: Operand::new(sums, &labels.with(&[], [labels.x, labels.o])),
        inputs: SmallVec::from_iter([Operand::new(
            gathered,
            &labels.with(&[labels.part], [labels.x, labels.o]),
        )]),
    }]);
    sums
}

/// One stage: sums every `group` of the parts, `[part, .., x, o]`, each of which is already the sum
/// of what `span` tiles made; a single part left over stays as it is.
fn sum_groups(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    parts: &Value,
    span: u32,
    group: u32,
) -> Value {
    let labels = planned.labels();
    let tiles = planned.cut_k().places.len() as u32;
    let n_parts = parts.shape()[0];
    // The last part may be of fewer tiles.
    let n_whole = tiles / (group * span);
    let left = n_whole * group;
    let n_left = n_parts - left;
    // First part, number of groups, and parts of each.
    let classes = [(0, n_whole, group), (left, 1, n_left)];
    let of_several = classes
        .iter()
        .filter(|(_, groups, members)| *groups > 0 && *members > 1);
    let gathered: Vec<(Value, Layout, Layout)> = of_several
        .map(|&(first, groups, members)| {
            let window = builder.slice(parts, 0, first, first + groups * members);
            let mut shape = window.shape();
            shape[0] = members;
            shape.insert(0, groups);
            let mut order: Vec<usize> = (0..shape.len()).collect();
            order.swap(0, 1);
            let window = builder.reshape(&window, &shape).transpose(&order);
            let on_tiles = (members * span).min(tiles - first * span);
            let sums = planned.group_layout(first * span, groups, members * span, on_tiles);
            (window, layouts::ring(members, &sums), sums)
        })
        .collect();
    let wanted: Vec<(&Value, &Layout)> = gathered
        .iter()
        .map(|(window, together, _)| (window, together))
        .collect();
    let together = builder.materialise_many(&wanted, &builder.part("gathered"));
    let sums: Vec<VarId> = gathered
        .iter()
        .map(|(.., layout)| {
            let name = builder.part("partials");
            builder.add_var(&name, planned.partials, layout.clone(), VarKind::Temporary)
        })
        .collect();
    let vertices = sums.iter().zip(&together).map(|(&sums, &together)| {
        let last = [labels.x, labels.o];
        VertexGroup {
            vertex: Vertex::ReducePartials {
                over: Label(labels.part),
            },
            output: Operand::new(sums, &labels.with(&[labels.k], last)),
            inputs: SmallVec::from_iter([Operand::new(
                together,
                &labels.with(&[labels.part, labels.k], last),
            )]),
        }
    });
    builder.emit_compute(vertices.collect());
    let mut after: Vec<Value> = sums.iter().map(|&sums| builder.value_of(sums)).collect();
    if n_left == 1 {
        after.push(builder.slice(parts, 0, left, n_parts));
    }
    builder.concat(&after.iter().collect::<Vec<_>>(), 0)
}

fn loop_over_outputs(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    input: VarId,
    weights: VarId,
    parts: u32,
    output: DType,
    name: &str,
) -> VarId {
    let layout = layouts::ring(parts, &planned.summed_layout());
    let result = builder.add_var(name, output, layout, VarKind::Activation);
    // Slices are written one by one; this is where the old value ends.
    builder.in_role(Role::Slicing, |builder| builder.fill(result, 0.0));
    let once = planned
        .broadcast_input_once
        .then(|| broadcast(builder, planned, &[(Side::Input, input)])[0]);
    repeat(builder, parts, |builder, index| {
        let slice = dynamic_slice(builder, planned, Side::Weights, weights, index);
        let (input, slice) = match once {
            Some(input) => (
                input,
                broadcast(builder, planned, &[(Side::Weights, slice)])[0],
            ),
            None => {
                let sides = [(Side::Input, input), (Side::Weights, slice)];
                let sides = broadcast(builder, planned, &sides);
                (sides[0], sides[1])
            }
        };
        let name = builder.part("result_slice");
        let part = product(builder, planned, input, slice, output, &name);
        dynamic_update(builder, result, part, index);
    });
    result
}

fn loop_over_inputs(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    input: VarId,
    weights: VarId,
    parts: u32,
    output: DType,
    name: &str,
) -> VarId {
    let result = builder.add_var(name, output, planned.summed_layout(), VarKind::Activation);
    builder.in_role(Role::Reduction, |builder| builder.fill(result, 0.0));
    repeat(builder, parts, |builder, index| {
        let input = dynamic_slice(builder, planned, Side::Input, input, index);
        let weights = dynamic_slice(builder, planned, Side::Weights, weights, index);
        let sides = broadcast(
            builder,
            planned,
            &[(Side::Input, input), (Side::Weights, weights)],
        );
        let name = builder.part("result_part");
        let part = product(builder, planned, sides[0], sides[1], output, &name);
        let (sum, part) = (builder.value_of(result), builder.value_of(part));
        let add = MapOp::ScaledAdd { factor: 1.0 };
        builder.in_role(Role::Reduction, |builder| {
            builder.map_in_place(add, &[&sum, &part], 0)
        });
    });
    result
}

/// A counted loop whose body gets its index, a scalar that every tile holds.
fn repeat(builder: &mut Builder<'_>, count: u32, body: impl FnOnce(&mut Builder<'_>, VarId)) {
    let everywhere = Layout::on_every_tile(&[], builder.spec.tiles_per_ipu);
    let index = builder.add_var(
        &builder.part("loop_index"),
        DType::U32,
        everywhere,
        VarKind::Temporary,
    );
    builder.in_role(Role::Slicing, |builder| builder.fill(index, 0.0));
    let outside = std::mem::take(&mut builder.steps);
    body(builder, index);
    let counter = builder.value_of(index);
    let next = MapOp::Count {
        addend: 1,
        modulus: 0,
    };
    builder.in_role(Role::Slicing, |builder| {
        builder.map_in_place(next, &[&counter], 0)
    });
    let body = std::mem::replace(&mut builder.steps, outside);
    builder.steps.push(Step::Repeat { count, body });
}

fn dynamic_slice(
    builder: &mut Builder<'_>,
    planned: &PlannedProduct,
    side: Side,
    whole: VarId,
    index: VarId,
) -> VarId {
    let dtype = builder.program.vars[whole].dtype;
    let slice = builder.add_var(
        &builder.part("slice"),
        dtype,
        planned.home_once(side),
        VarKind::Temporary,
    );
    let labels: Vec<u8> = (0..=builder.program.layout_of(slice).axes.len() as u8).collect();
    let vertices = VertexGroup {
        vertex: Vertex::DynamicSlice { slot: Label(0) },
        output: Operand::new(slice, &labels[1..]),
        inputs: SmallVec::from_iter([Operand::new(whole, &labels), Operand::new(index, &[])]),
    };
    builder.in_role(Role::Slicing, |builder| {
        builder.emit_compute(vec![vertices])
    });
    slice
}

fn dynamic_update(builder: &mut Builder<'_>, whole: VarId, slice: VarId, index: VarId) {
    let labels: Vec<u8> = (0..builder.program.layout_of(whole).axes.len() as u8).collect();
    let vertices = VertexGroup {
        vertex: Vertex::DynamicUpdate { slot: Label(0) },
        output: Operand::new(whole, &labels),
        inputs: SmallVec::from_iter([Operand::new(slice, &labels[1..]), Operand::new(index, &[])]),
    };
    builder.in_role(Role::Slicing, |builder| {
        builder.emit_compute(vec![vertices])
    });
}

fn cut(extent: u32, parts: u32, grain: u32, tile_stride: u32) -> AxisSplit {
    AxisSplit::cut(
        extent,
        &[Cut {
            parts,
            grain,
            tile_stride,
        }],
    )
}

/// Cuts two axes further among `count` tiles, `stride` apart, so that the largest box is smallest.
fn share(
    axes: (AxisSplit, AxisSplit),
    grains: (u32, u32),
    count: u32,
    stride: u32,
) -> (AxisSplit, AxisSplit) {
    let (first, second) = axes;
    let n_first = first.extent_max().div_ceil(grains.0);
    let n_second = second.extent_max().div_ceil(grains.1);
    let parts_first = (1..=count)
        .min_by_key(|&parts| {
            let largest = |n: u32, parts: u32| u64::from(n.div_ceil(parts));
            largest(n_first, parts) * largest(n_second, count / parts)
        })
        .unwrap_or(1);
    let parts_second = count / parts_first;
    let offsets_first: Vec<u32> = (0..parts_first)
        .map(|part| part * parts_second * stride)
        .collect();
    let offsets_second: Vec<u32> = (0..parts_second).map(|part| part * stride).collect();
    (
        first.subdivide(&offsets_first, grains.0),
        second.subdivide(&offsets_second, grains.1),
    )
}

/// Cuts leading axes so that the fullest tile holds few groups, each group on `tiles` tiles.
///
/// The planner splits the product of all leading axes; here every axis is cut by itself,
/// which is the same wherever groups don't share tiles.
fn cut_batch(batch: &[u32], tiles: u32, n_tiles: u32) -> Vec<AxisSplit> {
    let available = n_tiles / tiles;
    let mut best: Option<(u64, Vec<u32>)> = None;
    for_each_split(batch, available, &mut Vec::new(), &mut |parts| {
        let fullest = batch
            .iter()
            .zip(parts)
            .map(|(&extent, &parts)| u64::from(extent.div_ceil(parts)))
            .product();
        if best.as_ref().is_none_or(|(least, _)| fullest < *least) {
            best = Some((fullest, parts.to_vec()));
        }
    });
    let parts = best.map_or_else(Vec::new, |(_, parts)| parts);
    let mut stride = tiles;
    let mut cuts: Vec<AxisSplit> = Vec::new();
    for (&extent, &parts) in batch.iter().zip(&parts).rev() {
        cuts.push(cut(extent, parts, 1, stride));
        stride *= parts;
    }
    cuts.reverse();
    cuts
}

fn for_each_split(
    batch: &[u32],
    available: u32,
    chosen: &mut Vec<u32>,
    visit: &mut impl FnMut(&[u32]),
) {
    let Some((&extent, rest)) = batch.split_first() else {
        visit(chosen);
        return;
    };
    for parts in 1..=extent.min(available) {
        chosen.push(parts);
        for_each_split(rest, available / parts, chosen, visit);
        chosen.pop();
    }
}

fn divisor_up_to(extent: u32, limit: u32) -> u32 {
    (1..=limit)
        .rev()
        .find(|&parts| extent.is_multiple_of(parts))
        .unwrap_or(1)
}

fn swap_last(rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    order
}
