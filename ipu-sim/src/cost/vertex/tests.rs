//! Vertices against the laws they are said to follow, worked by hand.

use smallvec::SmallVec;

use super::*;
use crate::layout::Extents;
use crate::program::Labels;
use crate::spec::fixtures::gc200;
use crate::units::Bytes;
use crate::vertex::{
    BinaryFn, MapOp, MatMulMethod, ReduceOp, UnaryFn, WeightLoad, WorkerSeeds, labels,
};
use DType::{F16, F32, U32};

/// Labels with extents, outermost first, and the element type.
type Operand<'a> = (&'a [(u8, u32)], DType);

struct Box {
    labels: Labels,
    extents: Extents,
    order: Vec<StorageLoop>,
    dtype: DType,
}

impl Box {
    /// Stored row by row.
    fn new((axes, dtype): Operand<'_>) -> Self {
        let numbers: Vec<u8> = axes.iter().map(|&(label, _)| label).collect();
        Self {
            labels: labels(&numbers),
            extents: axes.iter().map(|&(_, extent)| extent).collect(),
            order: (0..axes.len() as u8)
                .map(|axis| StorageLoop { axis, block: 1 })
                .collect(),
            dtype,
        }
    }

    fn size(&self) -> OperandSize<'_> {
        OperandSize {
            labels: &self.labels,
            extents: &self.extents,
            shape: &self.extents,
            order: &self.order,
            dtype: self.dtype,
        }
    }
}

fn tile_cycles(vertex: &Vertex, in_place: Option<usize>, output: &Box, inputs: &[Box]) -> u64 {
    let sizes = VertexSizes {
        output: output.size(),
        inputs: inputs.iter().map(Box::size).collect(),
        in_place,
    };
    cycles(vertex, &sizes, &gc200()).0
}

#[track_caller]
fn check(vertex: Vertex, output: Operand<'_>, inputs: &[Operand<'_>], expected: u64) {
    let inputs: Vec<Box> = inputs.iter().map(|&input| Box::new(input)).collect();
    let got = tile_cycles(&vertex, None, &Box::new(output), &inputs);
    assert_eq!(got, expected, "{vertex:?}");
}

#[track_caller]
fn check_in_place(op: MapOp, operands: &[Operand<'_>], expected: u64) {
    let inputs: Vec<Box> = operands.iter().map(|&input| Box::new(input)).collect();
    let vertex = Vertex::Map(op);
    let got = tile_cycles(&vertex, Some(0), &Box::new(operands[0]), &inputs);
    assert_eq!(got, expected, "{vertex:?}");
}

/// Sizes of `n` elements along label 0.
fn flat(n: u32) -> [(u8, u32); 1] {
    [(0, n)]
}

#[test]
fn amp_counts_groups_of_channels() {
    // 20 input channels are two groups of 16, 16 output channels one: PopLibs
    // ConvPartial1x1 of 24 positions, 4 for each worker, 16 units, f16 partials.
    let vertex = Vertex::MatMul {
        method: MatMulMethod::Amp {
            units: 16,
            load: WeightLoad::Bits64,
        },
        groups: Labels::new(),
        field: Label(0),
        input: Label(1),
        output: Label(2),
        input_group: 16,
        output_group: 16,
    };
    // Inner passes: 6 (37 + 4 - 7) + 14 = 218 and 6 (38 + 4 - 7) + 14 = 224 cycles;
    // 50 + 6 (7 + 3) + 13 + (15 + 19 + 6 + 64 + 224) + (11 + 18 + 7 + 64 + 218).
    let output: Operand<'_> = (&[(0, 24), (2, 16)], F16);
    let inputs: [Operand<'_>; 2] = [(&[(0, 24), (1, 20)], F16), (&[(1, 20), (2, 16)], F16)];
    check(vertex, output, &inputs, 50 + 60 + 13 + 328 + 318);
}

#[test]
fn partials_are_contiguous_if_whole_loops_fit() {
    let vertex = || Vertex::ReducePartials { over: Label(3) };
    // 48 f16 of 4 partials, 3 of them added: 33 + 6 (20 + (2 x 3 + 9) x 1).
    check(
        vertex(),
        (&flat(48), F16),
        &[(&[(3, 4), (0, 48)], F16)],
        33 + 6 * 35,
    );
    // 50 don't fill loops of 8: 6 + 1 loops, one for each worker: 6 (32 + 2 x 4 + 11 + 3 x 4 + 8).
    check(
        vertex(),
        (&flat(50), F16),
        &[(&[(3, 4), (0, 50)], F16)],
        6 * (32 + 8 + 11 + 20),
    );
    // 3,072 f16 of 8: 43,008 B arrive, more than a sixteenth of the memory:
    // 6 (32 + (3 x 8 + 8) x 64).
    check(
        vertex(),
        (&flat(3072), F16),
        &[(&[(3, 8), (0, 3072)], F16)],
        6 * (32 + 32 * 64),
    );
}

#[test]
fn seeds_of_workers_take_the_same_each_way() {
    let seed: Operand<'_> = (&flat(2), U32);
    let saved: Operand<'_> = (&flat(24), U32);
    let step = Vertex::WorkerSeeds;
    check(step(WorkerSeeds::Save), saved, &[], 14 + 27 * 6);
    check(step(WorkerSeeds::Set), seed, &[seed], 14 + 27 * 6);
    check(step(WorkerSeeds::Restore), saved, &[saved], 14 + 27 * 6);
}

#[test]
fn one_operation_takes_its_own_vertex() {
    // 712 f16, 119 for a worker: 30 vectors.
    let whole: Operand<'_> = (&flat(712), F16);
    let add = || MapOp::Binary(BinaryFn::Add);
    check(
        Vertex::Map(add()),
        whole,
        &[whole, whole],
        11 + 6 * (26 + 30 * 3),
    );
    check_in_place(add(), &[whole, whole], 11 + 6 * (58 + 30 * 3));
    check(
        Vertex::Map(MapOp::Unary(UnaryFn::Exp)),
        whole,
        &[whole],
        11 + 9 + 6 * (33 + 30 * 4),
    );
    // Broadcast scalar: 30 passes of 1 + 1.
    let scalar: Operand<'_> = (&[], F16);
    check(
        Vertex::Map(MapOp::Binary(BinaryFn::Mul)),
        whole,
        &[whole, scalar],
        11 + 6 * (20 + 30 * 2),
    );
    let double = MapOp::Scale { factor: 2.0 };
    check(Vertex::Map(double), whole, &[whole], 11 + 6 * (20 + 30 * 2));
}

#[test]
fn vectors_are_inner_or_outer_by_storage() {
    let (spec, data): (_, Operand<'_>) = (gc200(), (&[(0, 12), (1, 16)], F16));
    let add = |vector: Operand<'_>| {
        let inputs = [Box::new(data), Box::new(vector)];
        let op = Vertex::Map(MapOp::Binary(BinaryFn::Add));
        Cycles(tile_cycles(&op, None, &Box::new(data), &inputs))
    };
    use crate::cost::elementwise::Destination;
    use crate::cost::elementwise::vector_inner::{VectorInner, VectorInnerOp, vector_inner};
    let bias = VectorInner {
        length: 16,
        repeats: 12,
    };
    assert_eq!(
        add((&[(1, 16)], F16)),
        vector_inner(VectorInnerOp::Add, F16, Destination::New, bias, &spec)
    );
    // 12 rows of 16, 2 for each worker: 11 + 6 (15 + 2 (7 + floor(2 (16 + 3) / 4))).
    assert_eq!(add((&[(0, 12)], F16)), Cycles(11 + 6 * (15 + 2 * (7 + 9))));
}

#[test]
fn gelu_into_a_new_tensor_copies_first() {
    let whole: Operand<'_> = (&flat(600), F16);
    let inputs = [Box::new(whole)];
    let gelu = Vertex::Map(MapOp::Unary(UnaryFn::Gelu));
    let new = tile_cycles(&gelu, None, &Box::new(whole), &inputs);
    let in_place = tile_cycles(&gelu, Some(0), &Box::new(whole), &inputs);
    assert_eq!(new - in_place, 288 + 150);
}

#[test]
fn optimisers_are_fused_or_scaled_sums() {
    // 1200 f32, 100 vectors for each worker. Moment: 2 loads, one of them f16 with a
    // conversion, 3 operations, store, branch.
    let moment: Operand<'_> = (&flat(1200), F32);
    let gradient: Operand<'_> = (&flat(1200), F16);
    let average = MapOp::MovingAverage {
        factor: 0.9,
        square: false,
    };
    let per_vector = 1 + (1 + 1) + 3 + 1 + 1;
    check_in_place(
        average,
        &[moment, gradient],
        11 + 6 * (58 + 100 * per_vector),
    );
    // m / (sqrt(v) + epsilon) + decay w: 3 loads, 10 + 10 + 3, store, branch.
    let updater = MapOp::AdamUpdater {
        epsilon: 1e-6,
        decay: Some(0.01),
        correction: None,
    };
    check(
        Vertex::Map(updater),
        moment,
        &[moment, moment, moment],
        11 + 6 * (58 + 100 * 28),
    );
    // Accumulation of gradients: 1200 f16 are 300 vectors, 50 for each worker:
    // 21 + 6 + 11 + 7 + 12 + 6 (15 + 6 + 3 x 49 + 2 + 1 + 1).
    let add = MapOp::ScaledAdd { factor: 1.0 };
    check_in_place(add, &[gradient, gradient], 57 + 6 * 172);
}

#[test]
fn rearrangements_transpose_and_broadcasts_copy() {
    let spec = gc200();
    let copy = |order: &[(u8, u32)]| {
        let input = Box::new((&[(0, 32), (1, 48)], F16));
        let mut output = Box::new((&[(0, 32), (1, 48)], F16));
        output.order = order
            .iter()
            .map(|&(axis, block)| StorageLoop { axis, block })
            .collect();
        Cycles(tile_cycles(&Vertex::Copy, None, &output, &[input]))
    };
    let bytes = Bytes(32 * 48 * 2);
    assert_eq!(copy(&[(0, 1), (1, 1)]), memory::copy(bytes, &spec));
    // Blocks of 16 channels side by side stay runs of 16 elements.
    assert_eq!(copy(&[(1, 16), (0, 1), (1, 1)]), memory::copy(bytes, &spec));
    // Blocks of 16 rows: two matrices of 16 x 48.
    use crate::cost::memory::transpose::{Transpose, transpose};
    let matrices = Transpose {
        rows: 16,
        columns: 48,
        matrices: 2,
    };
    assert_eq!(
        copy(&[(0, 16), (1, 1), (0, 1)]),
        transpose(F16, matrices, &spec)
    );
}

#[test]
fn reductions_share_outputs_or_partials() {
    let sum = |op| Vertex::Reduce { op, scale: 1.0 };
    let matrix: Operand<'_> = (&[(0, 12), (1, 96)], F16);
    // Rows, 2 outputs for each worker: 17 + 2 x 96 / 4 + 12 x 2.
    check(
        sum(ReduceOp::Sum),
        (&[(0, 12)], F32),
        &[matrix],
        6 * (17 + 48 + 24),
    );
    // Columns, 16 outputs for each worker, in 4 columns of 4: 3 + 7 + 3 + 11 each.
    check(
        sum(ReduceOp::Sum),
        (&[(1, 96)], F32),
        &[matrix],
        6 * (16 + 4 * (3 + 7 + 3 + 11)),
    );
    // One output: 6 workers take 96 of 576 f32, then one takes their 6 results.
    check(
        sum(ReduceOp::Sum),
        (&[], F32),
        &[(&flat(576), F32)],
        6 * ((9 + 48 + 5 + 3) + (9 + 3 + 5 + 2 + 3)),
    );
}

#[test]
fn slices_find_only_their_share_of_the_rows() {
    let table = Box::new((&[(1, 100), (2, 64)], F16));
    let indices = Box::new((&flat(60), U32));
    let output = Box::new((&[(0, 60), (2, 64)], F16));
    let vertex = Vertex::MultiSlice {
        row: Label(1),
        first_row: 0,
    };
    let slice = |whole: [u32; 2]| {
        let mut table = table.size();
        table.shape = &whole;
        let sizes = VertexSizes {
            output: output.size(),
            inputs: SmallVec::from_iter([table, indices.size()]),
            in_place: None,
        };
        cycles(&vertex, &sizes, &gc200()).0
    };
    // 10 indices for each worker, rows of 64 in words of 2: all of them, or a tenth.
    assert_eq!(slice([100, 64]), 6 * (30 + 10 * (19 + 64)));
    assert_eq!(slice([1000, 64]), 6 * (30 + (19 + 64) + 9 * 8));
}

#[test]
fn the_ring_of_a_stash_moves_one_slot() {
    let slot: Operand<'_> = (&[(0, 1), (1, 712)], F16);
    let ring: Operand<'_> = (&[(2, 9), (0, 1), (1, 712)], F16);
    let counter: Operand<'_> = (&[], U32);
    // 119 elements of a worker are 29 vectors: 25 + 6 (39 + 24 + 2 x 29).
    let expected = 25 + 6 * (39 + 24 + 58);
    let slice = Vertex::DynamicSlice { slot: Label(2) };
    check(slice, slot, &[ring, counter], expected);
    let update = Vertex::DynamicUpdate { slot: Label(2) };
    check(update, ring, &[slot, counter], expected);
}

#[test]
fn every_expression_has_a_cost_in_every_type_it_is_used_in() {
    let class = Label(1);
    let (matrix, rows) = ([(0u8, 8u32), (1, 40)], [(0u8, 8u32)]);
    for dtype in [F16, F32] {
        let data: Operand<'_> = (&matrix, dtype);
        let scalar: Operand<'_> = (&[], F32);
        let index: Operand<'_> = (&rows, U32);
        let cases: Vec<(MapOp, Vec<Operand<'_>>)> = vec![
            (MapOp::Cast, vec![(&matrix, U32)]),
            (MapOp::Cast, vec![(&rows, dtype)]),
            (MapOp::OneHot { class }, vec![index]),
            (MapOp::Pick { class }, vec![index, data]),
            (MapOp::MinusIndex { class }, vec![data, (&rows, dtype)]),
            (
                MapOp::SoftmaxNllGrad {
                    class,
                    ignore: Some(0),
                },
                vec![data, index, scalar],
            ),
            (MapOp::Counts { ignore: Some(0) }, vec![(&matrix, U32)]),
            (
                MapOp::SequenceMask {
                    position: class,
                    first: 4,
                },
                vec![index, index],
            ),
            (
                MapOp::ClampedLog {
                    epsilon: 1e-4,
                    factor: -1.0,
                },
                vec![data],
            ),
            (MapOp::InverseStdDev { epsilon: 1e-3 }, vec![data, data]),
            (
                MapOp::LambUpdate {
                    max_weight_norm: 1.0,
                },
                vec![data, data, scalar, scalar, scalar],
            ),
            (
                MapOp::Descend {
                    scale: 1.0,
                    decay: 0.01,
                },
                vec![data, data, scalar],
            ),
            (
                MapOp::Blend {
                    first: 0.9,
                    second: 0.1,
                },
                vec![data, data],
            ),
            (MapOp::Unary(UnaryFn::Gelu), vec![(&matrix, F32)]),
            (MapOp::Binary(BinaryFn::Sub), vec![data, (&rows, F32)]),
            (MapOp::Binary(BinaryFn::Div), vec![data, (&rows, dtype)]),
            (MapOp::Binary(BinaryFn::Equal), vec![data, data]),
        ];
        for (op, inputs) in cases {
            let inputs: Vec<Box> = inputs.iter().map(|&input| Box::new(input)).collect();
            let cycles = tile_cycles(&Vertex::Map(op), None, &Box::new(data), &inputs);
            assert!((50..40_000).contains(&cycles), "{op:?} {dtype:?}: {cycles}");
        }
        for f in [
            UnaryFn::Neg,
            UnaryFn::Abs,
            UnaryFn::Exp,
            UnaryFn::Log,
            UnaryFn::Square,
            UnaryFn::Sqrt,
            UnaryFn::Rsqrt,
            UnaryFn::Reciprocal,
            UnaryFn::Tanh,
            UnaryFn::Sigmoid,
            UnaryFn::Relu,
            UnaryFn::Gelu,
            UnaryFn::GeluErf,
        ] {
            for mixed in [F16, F32] {
                let inputs = [Box::new((&matrix, mixed)), Box::new(data)];
                let grad = Vertex::Map(MapOp::UnaryGrad(f));
                let cycles = tile_cycles(&grad, None, &Box::new(data), &inputs);
                assert!((50..40_000).contains(&cycles), "{f:?} {dtype:?}: {cycles}");
            }
        }
    }
    let step: Operand<'_> = (&[], U32);
    let count = MapOp::Count {
        addend: 1,
        modulus: 3,
    };
    check_in_place(count, &[step], 11 + 6 * (58 + 7) + 11 + 6 * (58 + 292));
}
