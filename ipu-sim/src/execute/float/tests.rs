//! Rounding and exceptions of small programs.

use super::*;
use crate::execute::fixtures::{compute, var, whole};
use crate::execute::{ExecuteError, Memory, RemoteMemory, fixtures::QueueHost, run};
use crate::ids::ReplicaId;
use crate::layout::Layout;
use crate::layout::fixtures::cut;
use crate::program::{Collective, CollectiveKind, CollectiveTensor, Label, Program, Step, VarId};
use crate::vertex::{BinaryFn, MapOp, MatMulMethod, ReduceOp, UnaryFn, Vertex, WeightLoad, labels};

const SEEDED: FloatControl = seeded(7);

const fn seeded(seed: u64) -> FloatControl {
    FloatControl {
        exceptions: false,
        stochastic_rounding: Some(StochasticRounding { seed, workers: 6 }),
    }
}

const STRICT: FloatControl = FloatControl {
    exceptions: true,
    stochastic_rounding: None,
};

/// Runs a program on `inputs`, and reads `output` of every replica.
fn outcome(
    program: &Program,
    control: FloatControl,
    inputs: &[(VarId, Vec<f64>)],
    output: VarId,
) -> Result<Vec<Vec<f64>>, ExecuteError> {
    let mut memory = Memory::new(program)?.with_float_control(control);
    let replicas = || (0..program.n_replicas).map(ReplicaId);
    for replica in replicas() {
        for (var, values) in inputs {
            memory.write(replica, *var, values)?;
        }
    }
    let remote = &mut RemoteMemory::new(program);
    run(&mut memory, &mut QueueHost::default(), remote)?;
    replicas()
        .map(|replica| memory.read(replica, output))
        .collect()
}

/// `n` numbers a quarter of the way from 1 to the next f16, cast `times` times on two tiles,
/// each holding half of them twice.
fn casts(n: u32, replicas: u32, times: usize) -> (Program, VarId, VarId) {
    let mut program = Program::new(1, replicas);
    let layout = || Layout::row_major(vec![cut(n, 2, 1)]).with_copies(vec![0, 2]);
    let x = var(&mut program, "x", DType::F32, layout());
    let out = var(&mut program, "out", DType::F16, layout());
    let cast = Vertex::Map(MapOp::Cast);
    program.steps = (0..times)
        .map(|_| compute(&mut program, cast.clone(), (out, &[0]), &[(x, &[0])]))
        .collect();
    (program, x, out)
}

/// Three standard deviations of a mean of 10,000 numbers that are 1 or 1 + 1/1024.
#[test]
fn the_mean_of_rounded_numbers_is_the_number() {
    let n = 10_000;
    let (program, x, out) = casts(n, 1, 1);
    let number = 1.0 + 0.25 / 1024.0;
    let inputs = [(x, vec![number; n as usize])];
    let rounded = outcome(&program, SEEDED, &inputs, out).unwrap().remove(0);
    assert!(
        rounded
            .iter()
            .all(|&value| value == 1.0 || value == 1.0 + 1.0 / 1024.0)
    );
    let up = rounded.iter().filter(|&&value| value > 1.0).count() as f64 / f64::from(n);
    assert!(
        (up - 0.25).abs() < 3.0 * (0.25 * 0.75 / f64::from(n)).sqrt(),
        "{up}"
    );
    let nearest = outcome(&program, FloatControl::default(), &inputs, out).unwrap();
    assert!(nearest[0].iter().all(|&value| value == 1.0));
}

/// Equal seeds give equal bits, on all replicas; other seeds, tiles, workers and compute sets
/// give others.
#[test]
fn every_worker_has_a_generator_of_its_own() {
    let n = 1200;
    let run = |control, times| {
        let (program, x, out) = casts(n, 3, times);
        let inputs = [(x, vec![1.0 + 0.5 / 1024.0; n as usize])];
        outcome(&program, control, &inputs, out).unwrap()
    };
    let first = run(SEEDED, 1);
    assert_eq!(first, run(SEEDED, 1));
    assert!(first.iter().all(|replica| *replica == first[0]));
    let differ = |a: &[f64], b: &[f64]| {
        let differ = a.iter().zip(b).filter(|(a, b)| a != b).count();
        // Half of them, within four standard deviations.
        let n = a.len() as f64;
        assert!(
            (differ as f64 - n / 2.0).abs() < 2.0 * n.sqrt(),
            "{differ} of {n}"
        );
    };
    differ(&first[0], &run(seeded(8), 1)[0]);
    differ(&first[0], &run(SEEDED, 2)[0]);
    // Twelve workers on two tiles, 100 elements each.
    let workers: Vec<&[f64]> = first[0].chunks(100).collect();
    for (number, worker) in workers.iter().enumerate() {
        workers[..number]
            .iter()
            .for_each(|other| differ(worker, other));
    }
}

/// 1 and 2048 times 2^-12, each product in a block of its own: to nearest, every addition is
/// lost, where stochastically rounded partials end near 1.5.
#[test]
fn half_partials_are_rounded_stochastically_after_every_block() {
    let (rows, k) = (16, 16 * 2049);
    let mut program = Program::new(1, 1);
    let mut matrix = |name: &str, axes: [u32; 2]| {
        let layout = Layout::row_major(axes.map(whole).into());
        var(&mut program, name, DType::F16, layout)
    };
    let (a, b, out) = (
        matrix("a", [rows, k]),
        matrix("b", [k, 1]),
        matrix("out", [rows, 1]),
    );
    let product = Vertex::MatMul {
        method: MatMulMethod::Amp {
            units: 16,
            load: WeightLoad::Bits64,
        },
        groups: labels(&[]),
        field: Label(0),
        input: Label(1),
        output: Label(2),
        input_group: 16,
        output_group: 16,
    };
    program.steps = vec![compute(
        &mut program,
        product,
        (out, &[0, 2]),
        &[(a, &[0, 1]), (b, &[1, 2])],
    )];
    let row: Vec<f64> = (0..k)
        .map(|at| match at {
            0 => 1.0,
            at if at % 16 == 0 => 1.0 / 4096.0,
            _ => 0.0,
        })
        .collect();
    let inputs = [(a, row.repeat(rows as usize)), (b, vec![1.0; k as usize])];
    let nearest = outcome(&program, FloatControl::default(), &inputs, out).unwrap();
    assert_eq!(nearest[0], vec![1.0; rows as usize]);
    let rounded = outcome(&program, SEEDED, &inputs, out).unwrap().remove(0);
    let mean = rounded.iter().sum::<f64>() / f64::from(rows);
    // 2048 roundings of a quarter of 1/1024 have a standard deviation of 0.019.
    assert!((mean - 1.5).abs() < 4.0 * 0.019 / 4.0, "{mean}");
    assert!(rounded.iter().any(|value| *value != rounded[0]));
}

/// Replicas round the same sum alike, so that their weights stay equal.
#[test]
fn sums_over_replicas_are_rounded_alike() {
    let n = 600;
    let mut program = Program::new(1, 3);
    let mut half = |name: &str| {
        var(
            &mut program,
            name,
            DType::F16,
            Layout::row_major(vec![cut(n, 2, 1)]),
        )
    };
    let (x, out) = (half("x"), half("out"));
    let source = program.add_source("sum", "test");
    program.steps = vec![Step::Collective(Collective {
        source,
        kind: CollectiveKind::AllReduce,
        tensors: vec![CollectiveTensor { src: x, dst: out }],
    })];
    // The sum of three of these is a quarter of the way from one f16 to the next.
    let inputs = [(x, vec![683.5; n as usize])];
    let sums = outcome(&program, SEEDED, &inputs, out).unwrap();
    assert!(sums.iter().all(|replica| *replica == sums[0]));
    let up = sums[0].iter().filter(|&&value| value == 2052.0).count();
    let down = sums[0].iter().filter(|&&value| value == 2050.0).count();
    assert_eq!(up + down, n as usize);
    assert!((110..190).contains(&up), "{up}");
}

#[track_caller]
fn check(vertex: Vertex, operands: [f64; 2], expect: Option<FloatException>) {
    let mut program = Program::new(1, 1);
    let mut half = |name: &str| {
        let layout = Layout::row_major(vec![cut(2, 2, 3)]);
        var(&mut program, name, DType::F16, layout)
    };
    let (a, b, out) = (half("a"), half("b"), half("out"));
    let both = [(a, &[0][..]), (b, &[0][..])];
    let n_inputs = match vertex {
        Vertex::Map(MapOp::Binary(_) | MapOp::MinusIndex { .. }) => 2,
        _ => 1,
    };
    let step = compute(&mut program, vertex, (out, &[0]), &both[..n_inputs]);
    program.steps = vec![step];
    let inputs = [(a, vec![1.0, operands[0]]), (b, vec![1.0, operands[1]])];
    // Without exceptions, the program goes on.
    outcome(&program, FloatControl::default(), &inputs, out).unwrap();
    let got = outcome(&program, STRICT, &inputs, out);
    let Some(exception) = expect else {
        got.unwrap();
        return;
    };
    let error = ExecuteError::Float {
        step: "test".into(),
        variable: "out".into(),
        tile: TileId(3),
        exception,
    };
    assert_eq!(got, Err(error));
}

#[test]
fn exceptions_name_what_and_where() {
    let binary = |f| Vertex::Map(MapOp::Binary(f));
    let unary = |f| Vertex::Map(MapOp::Unary(f));
    use FloatException::{DivideByZero, Invalid, Overflow};
    check(binary(BinaryFn::Mul), [300.0, 200.0], None);
    check(binary(BinaryFn::Mul), [300.0, 300.0], Some(Overflow));
    check(binary(BinaryFn::Div), [300.0, 0.0], Some(DivideByZero));
    check(binary(BinaryFn::Div), [0.0, 0.0], Some(Invalid));
    check(unary(UnaryFn::Sqrt), [-1.0, 0.0], Some(Invalid));
    // Zero as an operand makes no overflow a division.
    check(binary(BinaryFn::Add), [65_504.0, 0.0], None);
    check(unary(UnaryFn::Square), [65_504.0, 0.0], Some(Overflow));
    // An infinity that is chosen, not computed.
    let class = Label(0);
    check(Vertex::Map(MapOp::MinusIndex { class }), [1.0, 2.0], None);
    // What isn't a number before raises nothing.
    check(binary(BinaryFn::Mul), [f64::NAN, 300.0], None);
    let scale = 4e4;
    let op = ReduceOp::Sum;
    check(Vertex::Reduce { op, scale }, [2.0, 0.0], Some(Overflow));
}
