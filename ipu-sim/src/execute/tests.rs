//! Small programs with answers known in advance.

use super::fixtures::{check, compute, count, exchange, outcome, source, var, var_on, whole};
use super::{ExecuteError, Memory};
use crate::ids::{IpuId, TileId};
use crate::layout::fixtures::cut;
use crate::layout::{AxisSplit, Cut, Layout};
use crate::numerics::DType;
use crate::program::{
    ComputeSet, Function, FunctionId, Label, Operand, Program, Step, VarId, VertexGroup,
};
use crate::vertex::{
    BinaryFn, MAX_LABELS, MapOp, MatMulMethod, ReduceOp, Vertex, WeightLoad, labels,
};

fn amp(labels_xko: [u8; 3], input_group: u32) -> Vertex {
    let [field, input, output] = labels_xko.map(Label);
    Vertex::MatMul {
        method: MatMulMethod::Amp {
            units: 4,
            load: WeightLoad::Bits64,
        },
        groups: labels(&[]),
        field,
        input,
        output,
        input_group,
        output_group: 4,
    }
}

fn binary(f: BinaryFn) -> Vertex {
    Vertex::Map(MapOp::Binary(f))
}

const WHOLE: u8 = Label::WHOLE.0;

/// A product cut along all of its labels (2 x 2 x 3 tiles), operands in blocks, the last
/// part of k shorter than its block.
#[test]
fn a_product_is_summed_from_parts_on_many_tiles() {
    let (m, k, n) = (5, 20, 9);
    let (x_cut, o_cut) = (cut(m, 2, 1), cut(n, 3, 2));
    let k_cut = AxisSplit::cut(
        k,
        &[Cut {
            parts: 2,
            grain: 16,
            tile_stride: 6,
        }],
    );
    let program = &mut Program::new(1, 1);
    let mut add = |name: &str, dtype, layout| var(program, name, dtype, layout);
    let x_home = Layout::row_major(vec![cut(m, 5, 2), whole(k)]);
    let w_home = Layout::row_major(vec![cut(k, 7, 1), whole(n)]);
    let x = add("x", DType::F16, x_home);
    let w = add("w", DType::F16, w_home);
    let x_layout = Layout::row_major(vec![x_cut.clone(), k_cut.clone()])
        .with_order(&[(1, 16), (0, 1), (1, 1)])
        .with_copies(vec![0, 2, 4]);
    let w_layout = Layout::row_major(vec![k_cut.clone(), o_cut.clone()])
        .with_order(&[(0, 16), (1, 4), (1, 1), (0, 1)])
        .with_copies(vec![0, 1]);
    let x_there = add("x there", DType::F16, x_layout);
    let w_there = add("w there", DType::F16, w_layout);
    let parts_layout = vec![AxisSplit::one_each(&k_cut), x_cut.clone(), o_cut.clone()];
    let parts_layout =
        Layout::row_major(parts_layout).with_order(&[(2, 4), (0, 1), (1, 1), (2, 1)]);
    let parts = add("parts", DType::F32, parts_layout);
    let gathered_layout = vec![whole(2), x_cut.clone(), o_cut.clone()];
    let gathered = add("gathered", DType::F32, Layout::row_major(gathered_layout));
    let out = add("out", DType::F32, Layout::row_major(vec![x_cut, o_cut]));

    let steps = vec![
        exchange(program, &[(x, x_there), (w, w_there)]),
        compute(
            program,
            amp([0, 1, 2], 16),
            (parts, &[3, 0, 2]),
            &[(x_there, &[0, 1]), (w_there, &[1, 2])],
        ),
        exchange(program, &[(parts, gathered)]),
        compute(
            program,
            Vertex::ReducePartials { over: Label(3) },
            (out, &[0, 2]),
            &[(gathered, &[3, 0, 2])],
        ),
    ];
    program.steps = steps;
    let left: Vec<f64> = count(m * k).iter().map(|value| value % 7.0 - 3.0).collect();
    let right: Vec<f64> = count(k * n).iter().map(|value| value % 5.0 - 2.0).collect();
    let (k, n) = (k as usize, n as usize);
    let product: Vec<f64> = (0..m as usize * n)
        .map(|at| {
            (0..k)
                .map(|k_at| left[at / n * k + k_at] * right[k_at * n + at % n])
                .sum()
        })
        .collect();
    check(program, &[(x, &left), (w, &right)], out, &product);
}

/// 2048 + 1 + 1, each in a block of its own: halves lose both ones, unless f32 carries them.
#[test]
fn half_partials_are_rounded_after_every_block() {
    for (partials, input_group, expected) in [
        (DType::F16, 16, 2048.0),
        (DType::F32, 16, 2050.0),
        (DType::F16, 48, 2050.0),
    ] {
        let mut program = Program::new(1, 1);
        let row = |extent| Layout::row_major(vec![whole(1), whole(extent)]);
        let a = var(&mut program, "a", DType::F16, row(48));
        let column = Layout::row_major(vec![whole(48), whole(1)]);
        let b = var(&mut program, "b", DType::F16, column);
        let out = var(&mut program, "out", partials, row(1));
        let product = compute(
            &mut program,
            amp([0, 1, 2], input_group),
            (out, &[0, 2]),
            &[(a, &[0, 1]), (b, &[1, 2])],
        );
        program.steps = vec![product];
        let mut values = [0.0; 48];
        (values[0], values[16], values[32]) = (2048.0, 1.0, 1.0);
        check(&program, &[(a, &values), (b, &[1.0; 48])], out, &[expected]);
    }
}

#[test]
fn reductions_run_in_f32_and_round_once() {
    for (op, scale, expected) in [
        (ReduceOp::Sum, 1.0, [2050.0, 3.5]),
        (ReduceOp::Sum, -2.0, [-4100.0, -7.0]),
        (ReduceOp::Max, 1.0, [2048.0, 2.0]),
        (ReduceOp::SquareSum, 1.0 / 1024.0, [4096.0, 5.25 / 1024.0]),
    ] {
        let mut program = Program::new(1, 1);
        let layout = Layout::row_major(vec![cut(2, 2, 1), whole(3)]);
        let x = var(&mut program, "x", DType::F16, layout);
        let layout = Layout::row_major(vec![cut(2, 2, 1)]);
        let out = var(&mut program, "out", DType::F16, layout);
        let vertex = Vertex::Reduce { op, scale };
        program.steps = vec![compute(&mut program, vertex, (out, &[0]), &[(x, &[0, 1])])];
        let values = [2048.0, 1.0, 1.0, 1.0, 0.5, 2.0];
        let expected = expected.map(|value| DType::F16.round(value));
        check(&program, &[(x, &values)], out, &expected);
    }
}

/// Rows on 2, columns on 3 tiles: mean and power of a row meet from 3 tiles and go back.
#[test]
fn a_layer_is_normalised_over_several_tiles() {
    let program = &mut Program::new(1, 1);
    let (rows, columns) = (cut(2, 2, 3), cut(6, 3, 1));
    let matrix = Layout::row_major(vec![rows.clone(), columns.clone()]);
    let mut add = |name: &str, layout: &Layout| var(program, name, DType::F32, layout.clone());
    let x = add("x", &matrix);
    let parts_layout = Layout::row_major(vec![AxisSplit::one_each(&columns), rows.clone()]);
    let gathered_layout = Layout::row_major(vec![whole(3), rows.clone()]);
    let row_layout = Layout::row_major(vec![rows]);
    let back_layout = row_layout.clone().with_copies(vec![0, 1, 2]);
    let [sums, powers] = ["sums", "powers"].map(|name| add(name, &parts_layout));
    let gathered = ["gathered sums", "gathered powers"].map(|name| add(name, &gathered_layout));
    let [mean, power, deviation] = ["mean", "power", "rsd"].map(|name| add(name, &row_layout));
    let back = ["mean back", "rsd back"].map(|name| add(name, &back_layout));

    let reduce = |op, scale| Vertex::Reduce { op, scale };
    let epsilon = 0.0;
    let steps = vec![
        compute(
            program,
            reduce(ReduceOp::Sum, 1.0),
            (sums, &[2, 0]),
            &[(x, &[0, 1])],
        ),
        compute(
            program,
            reduce(ReduceOp::SquareSum, 1.0),
            (powers, &[2, 0]),
            &[(x, &[0, 1])],
        ),
        exchange(program, &[(sums, gathered[0]), (powers, gathered[1])]),
        compute(
            program,
            reduce(ReduceOp::Sum, 1.0 / 6.0),
            (mean, &[0]),
            &[(gathered[0], &[1, 0])],
        ),
        compute(
            program,
            reduce(ReduceOp::Sum, 1.0 / 6.0),
            (power, &[0]),
            &[(gathered[1], &[1, 0])],
        ),
        compute(
            program,
            Vertex::Map(MapOp::InverseStdDev { epsilon }),
            (deviation, &[0]),
            &[(mean, &[0]), (power, &[0])],
        ),
        exchange(program, &[(mean, back[0]), (deviation, back[1])]),
        compute(
            program,
            binary(BinaryFn::Sub),
            (x, &[0, 1]),
            &[(x, &[0, 1]), (back[0], &[0])],
        ),
        compute(
            program,
            binary(BinaryFn::Mul),
            (x, &[0, 1]),
            &[(x, &[0, 1]), (back[1], &[0])],
        ),
    ];
    program.steps = steps;
    let values = [
        1.0, 1.0, 1.0, 3.0, 3.0, 3.0, -4.0, 4.0, -4.0, 4.0, -4.0, 4.0,
    ];
    let normal = [
        -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0,
    ];
    check(program, &[(x, &values)], x, &normal);
}

/// A table of six rows on three tiles, whose row 0 is called 10.
#[test]
fn rows_are_gathered_and_added_to_by_the_tiles_that_hold_them() {
    let program = &mut Program::new(1, 1);
    let rows = cut(6, 3, 1);
    let on_all = |shape: &[u32]| Layout::on_every_tile(shape, 3);
    let mut add = |name: &str, dtype, layout| var(program, name, dtype, layout);
    let table_layout = Layout::row_major(vec![rows.clone(), whole(2)]);
    let table = add("table", DType::F32, table_layout);
    let index = add("index", DType::U32, on_all(&[4]));
    let update = add("update", DType::F32, on_all(&[4, 2]));
    let found_layout = vec![AxisSplit::one_each(&rows), whole(4), whole(2)];
    let found = add("found", DType::F32, Layout::row_major(found_layout));

    let (row, first_row) = (Label(0), 10);
    let steps = vec![
        compute(
            program,
            Vertex::MultiSlice { row, first_row },
            (found, &[3, 1, 2]),
            &[(table, &[0, 2]), (index, &[1])],
        ),
        compute(
            program,
            Vertex::MultiUpdateAdd {
                row,
                first_row,
                scale: 0.5,
            },
            (table, &[0, 2]),
            &[(update, &[1, 2]), (index, &[1])],
        ),
    ];
    program.steps = steps;
    let inputs: [(VarId, &[f64]); 3] = [
        (table, &count(12)),
        (index, &[11.0, 15.0, 9.0, 11.0]),
        (update, &[2.0, 4.0, 6.0, 8.0, 99.0, 99.0, 20.0, 40.0]),
    ];
    // Tile 0 finds row 1 twice, tile 1 nothing, tile 2 row 5; nobody has row 9 - 10.
    let [row_1, row_5, none] = [[2.0, 3.0], [10.0, 11.0], [0.0, 0.0]];
    let found_there = [
        [row_1, none, none, row_1],
        [none; 4],
        [none, row_5, none, none],
    ];
    check(
        program,
        &inputs,
        found,
        found_there.as_flattened().as_flattened(),
    );
    let mut updated = count(12);
    updated[2] += 11.0;
    updated[3] += 22.0;
    updated[10] += 3.0;
    updated[11] += 4.0;
    check(program, &inputs, table, &updated);
}

/// A ring of three slots, written five times and read once.
fn ring(modulus: u32) -> (Program, [VarId; 4], VarId) {
    let mut program = Program::new(1, 1);
    let data = Layout::row_major(vec![cut(4, 2, 1)]);
    let scalar = Layout::on_every_tile(&[], 2);
    let stash_layout = Layout::row_major(vec![whole(3), cut(4, 2, 1)]);
    let x = var(&mut program, "x", DType::F16, data.clone());
    let old = var(&mut program, "old", DType::F16, data);
    let stash = var(&mut program, "stash", DType::F16, stash_layout);
    let slot = var(&mut program, "slot", DType::U32, scalar.clone());
    let one = var(&mut program, "one", DType::F16, scalar);
    let add = binary(BinaryFn::Add);
    let next = Vertex::Map(MapOp::Count { addend: 1, modulus });
    let write = Vertex::DynamicUpdate { slot: Label(1) };
    let read = Vertex::DynamicSlice { slot: Label(1) };
    let body = vec![
        compute(&mut program, add, (x, &[0]), &[(x, &[0]), (one, &[])]),
        compute(
            &mut program,
            write,
            (stash, &[1, 0]),
            &[(x, &[0]), (slot, &[])],
        ),
        compute(&mut program, next, (slot, &[]), &[(slot, &[])]),
    ];
    let read = compute(
        &mut program,
        read,
        (old, &[0]),
        &[(stash, &[1, 0]), (slot, &[])],
    );
    program.steps = vec![Step::Repeat { count: 5, body }, read];
    (program, [x, slot, one, stash], old)
}

/// Repeats and calls of nothing end at once, however often they would pass.
#[test]
fn nothing_is_repeated_in_no_time() {
    let (mut program, [x, slot, one, _], old) = ring(3);
    let repeat = |body| Step::Repeat {
        count: u32::MAX,
        body,
    };
    let section = program.section("nothing");
    for next in 1..60 {
        let call = Step::Call(FunctionId(next));
        program.functions.push(Function {
            name: format!("calls {next} twice"),
            steps: vec![call.clone(), call],
        });
    }
    program.functions.push(Function::default());
    let nothing = vec![section, Step::Call(FunctionId(0)), repeat(Vec::new())];
    program.steps.insert(0, repeat(vec![repeat(nothing)]));
    let inputs: [(VarId, &[f64]); 3] =
        [(x, &[0.0, 10.0, 20.0, 30.0]), (slot, &[0.0]), (one, &[1.0])];
    check(&program, &inputs, old, &[3.0, 13.0, 23.0, 33.0]);
}

#[test]
fn a_stash_forgets_what_its_slots_are_reused_for() {
    let (program, [x, slot, one, stash], old) = ring(3);
    let inputs: [(VarId, &[f64]); 3] =
        [(x, &[0.0, 10.0, 20.0, 30.0]), (slot, &[0.0]), (one, &[1.0])];
    let slots = [
        4.0, 14.0, 24.0, 34.0, 5.0, 15.0, 25.0, 35.0, 3.0, 13.0, 23.0, 33.0,
    ];
    check(&program, &inputs, stash, &slots);
    check(&program, &inputs, old, &slots[8..]);
}

#[test]
fn a_slot_past_the_end_is_refused() {
    let (program, [x, slot, one, stash], _) = ring(0);
    let inputs: [(VarId, &[f64]); 3] = [(x, &[0.0; 4]), (slot, &[0.0]), (one, &[1.0])];
    let error = outcome(&program, &inputs, stash).unwrap_err();
    assert_eq!(error.to_string(), "`test`: `stash` has no slot 3 on tile 0");
}

#[test]
fn dropout_masks_dont_depend_on_the_layout() {
    let masked = |layout: Layout| {
        let mut program = Program::new(1, 1);
        let x = var(&mut program, "x", DType::F16, layout);
        let seed = var(
            &mut program,
            "seed",
            DType::U32,
            Layout::on_every_tile(&[2], 8),
        );
        let mut strides = [0; MAX_LABELS];
        strides[..2].copy_from_slice(&[8, 1]);
        let op = MapOp::Dropout {
            probability: 0.5,
            id: 3,
            strides,
        };
        let inputs: [(VarId, &[u8]); 2] = [(x, &[0, 1]), (seed, &[WHOLE])];
        program.steps = vec![compute(
            &mut program,
            Vertex::Map(op),
            (x, &[0, 1]),
            &inputs,
        )];
        outcome(&program, &[(x, &[1.0; 64]), (seed, &[5.0, 6.0])], x).unwrap()
    };
    let rows = masked(Layout::row_major(vec![cut(8, 3, 1), whole(8)]));
    let blocks = Layout::row_major(vec![cut(8, 2, 4), cut(8, 4, 1)]).with_order(&[(1, 1), (0, 1)]);
    assert_eq!(rows, masked(blocks));
    let kept = rows.iter().filter(|&&value| value == 2.0).count();
    let dropped = rows.iter().filter(|&&value| value == 0.0).count();
    assert!(kept > 20 && dropped > 20 && kept + dropped == 64);
}

#[test]
fn one_hot_rows_use_indices_of_the_whole_tensor() {
    let mut program = Program::new(1, 1);
    let class_layout = Layout::on_every_tile(&[2], 3);
    let class = var(&mut program, "class", DType::U32, class_layout);
    let layout = Layout::row_major(vec![whole(2), cut(5, 3, 1)]);
    let out = var(&mut program, "out", DType::F16, layout);
    let vertex = Vertex::Map(MapOp::OneHot { class: Label(7) });
    program.steps = vec![compute(
        &mut program,
        vertex,
        (out, &[0, 7]),
        &[(class, &[0])],
    )];
    let expected = [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    check(&program, &[(class, &[3.0, 0.0])], out, &expected);
}

#[test]
fn fills_and_copies_reach_every_element() {
    let mut program = Program::new(1, 1);
    let rows = Layout::row_major(vec![cut(5, 2, 1), whole(6)]);
    let columns = rows.clone().with_order(&[(1, 4), (0, 1), (1, 1)]);
    let x = var(&mut program, "x", DType::F32, rows.clone());
    let y = var(&mut program, "y", DType::F16, columns);
    let third = 1.0 / 3.0;
    program.steps = vec![
        compute(&mut program, Vertex::Fill(third), (x, &[0, 1]), &[]),
        compute(&mut program, Vertex::Copy, (y, &[0, 1]), &[(x, &[0, 1])]),
    ];
    check(&program, &[], x, &[DType::F32.round(third); 30]);
    check(&program, &[], y, &[DType::F16.round(third); 30]);
}

/// `out = x + y` where `x` lies on two tiles as the output does, and `y` elsewhere.
fn refused(y_layout: Layout, y_ipu: u32, y_labels: &[u8], expected: &str) {
    let mut program = Program::new(2, 1);
    let layout = Layout::row_major(vec![cut(4, 2, 1)]);
    let x = var(&mut program, "x", DType::F32, layout.clone());
    let out = var(&mut program, "out", DType::F32, layout);
    let elements: u32 = y_layout.shape().iter().product();
    let y = var_on(&mut program, "y", DType::F32, y_layout, IpuId(y_ipu));
    let inputs: [(VarId, &[u8]); 2] = [(x, &[0]), (y, y_labels)];
    let add = compute(&mut program, binary(BinaryFn::Add), (out, &[0]), &inputs);
    program.steps = vec![add];
    let error = outcome(&program, &[(x, &[1.0; 4]), (y, &count(elements))], out);
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn operands_that_dont_fit_are_refused() {
    let row = |axis| Layout::row_major(vec![axis]);
    refused(
        row(AxisSplit::from_runs([(0, 1, 0), (1, 3, 1)])),
        0,
        &[0],
        "`test`: `y` on tile 0 doesn't cover the indices of the other operands",
    );
    refused(
        row(AxisSplit::from_runs([(0, 2, 1), (2, 2, 0)])),
        0,
        &[0],
        "`test`: `y` on tile 0 doesn't cover the indices of the other operands",
    );
    refused(
        row(cut(4, 2, 2)),
        0,
        &[0],
        "`test`: `y` has no box on tile 1",
    );
    refused(
        row(cut(4, 2, 1)),
        1,
        &[0],
        "`test`: expected `y` on IPU 0, got IPU 1",
    );
    refused(
        row(cut(4, 2, 1)),
        0,
        &[WHOLE],
        "`test`: `y` isn't whole on tile 0",
    );
    refused(
        row(cut(4, 2, 1)),
        0,
        &[1],
        "`test`: an input has axes that `out` lacks, but nothing reduces them",
    );
    refused(
        Layout::row_major(vec![cut(2, 2, 1), cut(2, 2, 1)]),
        0,
        &[0, 1],
        "layout 1 puts two boxes on tile 1",
    );
}

#[test]
fn reading_what_nobody_wrote_names_the_variable_and_the_tile() {
    let mut program = Program::new(1, 1);
    let here = Layout::row_major(vec![cut(4, 2, 1)]);
    let there = Layout::row_major(vec![cut(4, 2, 3)]);
    let x = var(&mut program, "x", DType::F32, here.clone());
    let y = var(&mut program, "y", DType::F32, there);
    let half = program.view(x).shape.slice(0, 0, 2).unwrap();
    let half_of = |var| crate::view::View {
        var,
        shape: half.clone(),
    };
    let copies = vec![crate::program::TileCopy {
        src: half_of(x),
        dst: half_of(y),
    }];
    program.steps = vec![Step::Exchange(crate::program::Exchange {
        source: source(&mut program),
        ipu: IpuId(0),
        copies,
    })];
    let error = outcome(&program, &[(x, &count(4))], y);
    let variable = "y".to_owned();
    let tile = TileId(3);
    assert_eq!(error, Err(ExecuteError::Unwritten { variable, tile }));
}

#[test]
fn vertices_of_one_set_may_not_depend_on_each_other() {
    let mut program = Program::new(1, 1);
    let x = var(
        &mut program,
        "x",
        DType::F32,
        Layout::on_every_tile(&[4], 1),
    );
    let y = var(
        &mut program,
        "y",
        DType::F32,
        Layout::on_every_tile(&[4], 1),
    );
    let group = |vertex, output, inputs: &[VarId]| VertexGroup {
        vertex,
        output: Operand::new(output, &[0]),
        inputs: inputs.iter().map(|&var| Operand::new(var, &[0])).collect(),
    };
    let vertices = vec![
        group(Vertex::Fill(1.0), x, &[]),
        group(Vertex::Copy, y, &[x]),
    ];
    program.steps = vec![Step::Compute(ComputeSet {
        source: source(&mut program),
        ipu: IpuId(0),
        vertices,
    })];
    let error = outcome(&program, &[], y).unwrap_err();
    let expected = "`test`: `x` is written by one vertex group and used by another";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn values_that_dont_match_a_variable_are_refused() {
    let mut program = Program::new(1, 1);
    let x = var(
        &mut program,
        "x",
        DType::F32,
        Layout::on_every_tile(&[4], 2),
    );
    let mut memory = Memory::new(&program).unwrap();
    let error = memory
        .write(crate::ids::ReplicaId(0), x, &[1.0])
        .unwrap_err();
    assert_eq!(error.to_string(), "`x`: expected 4 values, got 1");
}
