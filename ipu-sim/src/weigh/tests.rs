//! Small programs, weighed by hand.

use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::layout::{AxisSplit, Cut, Layout};
use crate::numerics::DType;
use crate::program::{
    ComputeSet, Exchange, Function, FunctionId, IpuCopy, Label, Labels, Operand, Role, Source,
    SourceId, Step, TileCopy, VarKind, Variable, VertexGroup,
};
use crate::spec::fixtures::small;
use crate::vertex::{BinaryFn, MapOp, MatMulMethod, Vertex, WeightLoad};

/// Four IPUs of 32 tiles; code and state take round numbers of bytes.
fn machine() -> MachineSpec {
    let mut machine = small();
    let memory = &mut machine.memory;
    memory.loader = Bytes(0);
    memory.stack_worker = Bytes(0);
    memory.stack_supervisor = Bytes(0);
    memory.vertex_state_base = Bytes(100);
    memory.vertex_state_per_edge = Bytes(10);
    memory.vertex_code_per_type = Bytes(1_000);
    memory.exchange_code_per_phase = Bytes(40);
    memory.exchange_code_per_fragment = Bytes(4);
    memory.control_code_per_step = Bytes(2);
    machine
}

mod categories;
mod parts;

/// What lives on IPU 0 and on one of its tiles.
fn live_curve(program: &Program, tile: TileId) -> Vec<LivePoint> {
    live_curves(program, &machine(), &[(IpuId(0), tile)]).remove(0)
}

/// A program whose variables are vectors of f16 on tile 0.
struct Fixture {
    program: Program,
}

impl Fixture {
    fn new(n_ipus: u32) -> Self {
        let mut program = Program::new(n_ipus, 1);
        program.add_source("work", "test");
        Self { program }
    }

    /// A variable of `elements` f16.
    fn var(&mut self, name: &str, elements: u32, kind: VarKind) -> VarId {
        self.var_on(name, IpuId(0), AxisSplit::whole(elements), kind)
    }

    fn var_on(&mut self, name: &str, ipu: IpuId, axis: AxisSplit, kind: VarKind) -> VarId {
        let layout = self.program.add_layout(Layout::row_major(vec![axis]));
        self.program.vars.push(Variable {
            name: name.into(),
            dtype: DType::F16,
            ipu,
            layout,
            kind,
        })
    }

    fn activations<const N: usize>(&mut self, elements: [u32; N]) -> [VarId; N] {
        let mut number = 0;
        elements.map(|elements| {
            number += 1;
            self.var(&format!("x{number}"), elements, VarKind::Activation)
        })
    }

    fn function(&mut self, name: &str, steps: Vec<Step>) -> Step {
        Step::Call(self.program.functions.push(Function {
            name: name.into(),
            steps,
        }))
    }

    /// The fullest moment of variables on tile 0, by IPU 0's steps.
    #[track_caller]
    fn check(&mut self, steps: Vec<Step>, not_always_live: u64) -> IpuMemoryUsage {
        self.program.steps = steps;
        let weight = weigh(&self.program, &machine()).unwrap();
        let ipu = weight.ipus[IpuId(0)].clone();
        assert_eq!(ipu.not_always_live()[0], Bytes(not_always_live));
        for (tile, &total) in ipu.tiles.iter().enumerate() {
            let tile = TileId(tile as u32);
            let sum: Bytes = Category::all().map(|category| ipu.on(category, tile)).sum();
            assert_eq!(sum, total);
        }
        ipu
    }
}

fn compute(vertex: Vertex, output: VarId, inputs: &[VarId]) -> Step {
    let operands: SmallVec<[Operand; 4]> =
        inputs.iter().map(|&var| Operand::new(var, &[0])).collect();
    Step::Compute(ComputeSet {
        source: SourceId(0),
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex,
            output: Operand::new(output, &[0]),
            inputs: operands,
        }],
    })
}

/// Writes `var`.
fn write(var: VarId) -> Step {
    compute(Vertex::Fill(0.0), var, &[])
}

/// Reads `from` and writes `to`.
fn read(from: VarId, to: VarId) -> Step {
    compute(Vertex::Copy, to, &[from])
}

fn repeat(body: Vec<Step>) -> Step {
    Step::Repeat { count: 3, body }
}

#[test]
fn values_that_do_not_live_together_share_memory() {
    let mut fixture = Fixture::new(1);
    let [a, b, c] = fixture.activations([100, 50, 60]);
    // a with b: 300 bytes, b with c: 220.
    let ipu = fixture.check(vec![write(a), read(a, b), read(b, c)], 300);
    assert_eq!(ipu.max_tile, TileId(0));
    assert_eq!(ipu.fullest_at[0].step, "work");
    let names: Vec<&str> = ipu.largest.iter().map(|var| var.name.as_str()).collect();
    assert_eq!(names, ["x1:test", "x2:test"]);
}

#[test]
fn a_value_written_anew_is_another_value() {
    let mut fixture = Fixture::new(1);
    let [a, b, c] = fixture.activations([100, 1000, 10]);
    // a doesn't live while b is alone.
    let steps = vec![
        write(a),
        read(a, c),
        write(b),
        read(b, c),
        write(a),
        read(a, c),
    ];
    fixture.check(steps, 2020);
}

#[test]
fn values_in_repeats_live_as_long_as_a_pass_needs_them() {
    let mut fixture = Fixture::new(1);
    let [carried, passing, before, after, out] = fixture.activations([1, 10, 100, 1000, 10_000]);
    // All of the repeat: `carried`, which each pass reads first; `before`, which each pass
    // needs; `after`, which may come from any pass. `passing` lives at the step between.
    let body = vec![
        read(before, out),
        read(carried, passing),
        read(passing, carried),
        write(after),
    ];
    let steps = vec![
        write(before),
        write(carried),
        repeat(body),
        read(after, out),
    ];
    // Steps of the repeat: 1 + 100 + 1000 elements; `out` at the first, where it is written
    // for nobody, is the largest.
    fixture.check(steps, 2 * (1 + 100 + 1000 + 10_000));
    let no_out = vec![
        write(before),
        write(carried),
        repeat(vec![
            read(before, passing),
            read(carried, passing),
            read(passing, carried),
            write(after),
        ]),
        read(after, passing),
    ];
    fixture.check(no_out, 2 * (1 + 10 + 100 + 1000));
}

#[test]
fn partial_writes_keep_what_is_there() {
    let mut fixture = Fixture::new(1);
    let [whole, half, other] = fixture.activations([100, 50, 1000]);
    let part = |fixture: &Fixture, begin| {
        let mut dst = fixture.program.view(whole);
        dst.shape = dst.shape.slice(0, begin, begin + 50).unwrap();
        Step::Exchange(Exchange {
            source: SourceId(0),
            ipu: IpuId(0),
            copies: vec![TileCopy {
                src: fixture.program.view(half),
                dst,
            }],
        })
    };
    let steps = vec![
        write(half),
        part(&fixture, 0),
        write(other),
        write(half),
        part(&fixture, 50),
        read(whole, half),
    ];
    fixture.check(steps, 200 + 2000);
}

#[test]
fn a_callee_counts_what_only_it_knows() {
    let mut fixture = Fixture::new(1);
    let [outer, inner, deep, x] = fixture.activations([100, 20, 3, 1]);
    let leaf = fixture.function("leaf", vec![write(deep), read(deep, x)]);
    let body = vec![write(inner), leaf.clone(), read(inner, x), leaf];
    let stage = fixture.function("stage", body);
    // Outside the call of `stage` `outer` lives; inside `inner`; inside `deep` and `x`.
    let steps = vec![write(outer), stage.clone(), read(outer, x), stage];
    let ipu = fixture.check(steps, 2 * (100 + 20 + 3 + 1));
    let path: Vec<String> = ipu.fullest_at.iter().map(ToString::to_string).collect();
    assert_eq!(
        path,
        ["call of stage", "call of leaf in stage", "work in leaf"]
    );
}

#[test]
fn arguments_and_results_live_in_the_caller() {
    let mut fixture = Fixture::new(1);
    let [argument, result, local, other] = fixture.activations([1, 10, 100, 1000]);
    let body = vec![read(argument, local), read(local, result)];
    let call = fixture.function("layer", body);
    // The result of the first call is dead when `other` lives.
    let steps = vec![
        write(argument),
        call.clone(),
        read(result, argument),
        write(other),
        write(argument),
        call,
        read(result, argument),
    ];
    fixture.check(steps.clone(), 2 * 1000);
    fixture.check(steps[..3].to_vec(), 2 * (1 + 10 + 100));
}

#[test]
fn the_curve_walks_a_function_once_and_peaks_where_the_weight_does() {
    let mut fixture = Fixture::new(1);
    let [outer, inner, x] = fixture.activations([100, 20, 1]);
    let body = vec![write(inner), read(inner, x)];
    let layer = fixture.function("layer", body);
    let steps = vec![write(outer), layer.clone(), read(outer, x), layer];
    let peak = fixture.check(steps, 2 * (100 + 20 + 1)).tiles[0];
    let curve = live_curve(&fixture.program, TileId(0));
    let bytes: Vec<u64> = curve.iter().map(|point| point.on_tile.total().0).collect();
    // Write; in the call: write, read; read; the second call as one.
    assert_eq!(bytes, [200, 240, 242, 202, 42]);
    let code = peak.0 - 242;
    let ipu = &weigh(&fixture.program, &machine()).unwrap().ipus[IpuId(0)];
    assert_eq!(ipu.tiles[0].0, 242 + code);
    assert!(curve.iter().all(|point| point.on_ipu == point.on_tile));
    let names: Vec<String> = curve.iter().map(|point| point.step.to_string()).collect();
    assert_eq!(
        names[1..],
        ["work in layer", "work in layer", "work", "call of layer"]
    );
}

#[test]
fn what_outlives_a_run_is_always_live() {
    let mut fixture = Fixture::new(2);
    let weight = fixture.var("weight", 500, VarKind::Weight);
    let [old, new] = fixture.activations([7, 3]);
    // `old` is read before it is written: it comes from an earlier run.
    let ipu = fixture.check(vec![read(old, new), read(weight, old)], 2 * 3);
    let on = |kind| ipu.on(Category::AlwaysLive(kind), TileId(0));
    assert_eq!(on(VarKind::Weight), Bytes(1000));
    assert_eq!(on(VarKind::Activation), Bytes(14));
    assert!(ipu.largest[0].always_live);
}

#[test]
fn code_is_counted_once_for_outlined_steps_that_are_alike() {
    let mut fixture = Fixture::new(2);
    let cut = |parts| AxisSplit::cut(16, &[Cut::even(parts)]);
    let a = fixture.var_on("a", IpuId(0), cut(4), VarKind::Activation);
    let b = fixture.var_on("b", IpuId(0), cut(2), VarKind::Activation);
    let c = fixture.var_on("c", IpuId(1), cut(4), VarKind::CopyBuffer);
    let add = || Vertex::Map(MapOp::Binary(BinaryFn::Add));
    let exchange = Step::Exchange(Exchange {
        source: SourceId(0),
        ipu: IpuId(0),
        copies: vec![TileCopy {
            src: fixture.program.view(a),
            dst: fixture.program.view(b),
        }],
    });
    let called = fixture.function(
        "body",
        vec![write(a), compute(add(), a, &[a, a]), exchange.clone()],
    );
    let copy = Step::IpuCopies {
        source: SourceId(0),
        copies: vec![IpuCopy { src: a, dst: c }],
    };
    let steps = vec![
        called.clone(),
        called,
        repeat(vec![compute(add(), a, &[a, a]), exchange]),
        copy,
    ];
    let ipu = fixture.check(steps.clone(), 2 * (4 + 8));
    let on = |category, tile| ipu.on(category, TileId(tile)).0;
    // Fill and add, on each of four tiles.
    assert_eq!(on(Category::VertexCode, 0), 2000);
    assert_eq!(on(Category::VertexCode, 4), 0);
    // A fill of one edge, two adds of three.
    assert_eq!(on(Category::VertexInstanceState, 3), 110 + 2 * 130);
    // Tile 0 keeps 4 elements and gets 4 in a message, whose code both exchanges use; tile 2
    // only sends. All four copy.
    let exchanged = |tile| on(Category::InternalExchangeCode, tile);
    assert_eq!([exchanged(0), exchanged(2)], [(40 + 4) + 40, 2 * 40]);
    for tile in [0, 2] {
        assert_eq!(on(Category::GlobalExchangeCode, tile), 40);
        assert_eq!(on(Category::GlobalExchangePacketHeader, tile), 4);
        assert_eq!(on(Category::HostExchangeCode, tile), 0);
        assert_eq!(on(Category::HostExchangePacketHeader, tile), 0);
    }
    // Three steps in the function, two calls, a repeat, its two steps, a copy; on every tile.
    assert_eq!(on(Category::ControlCode, 31), 9 * 2);

    fixture.program.outlined = true;
    let ipu = fixture.check(steps, 2 * (4 + 8));
    let on = |category, tile| ipu.on(category, TileId(tile)).0;
    // One add and one exchange are enough.
    assert_eq!(on(Category::VertexInstanceState, 3), 110 + 130);
    let exchanged = |tile| on(Category::InternalExchangeCode, tile);
    assert_eq!([exchanged(0), exchanged(2)], [40 + 4, 40]);
    assert_eq!(on(Category::GlobalExchangeCode, 2), 40);
    // The repeat's two steps are one call.
    assert_eq!(on(Category::ControlCode, 31), 8 * 2);

    // What is copied for a call belongs to its place.
    for source in fixture.program.sources.values_mut() {
        source.role = Role::Call;
    }
    let ipu = fixture.check(fixture.program.steps.clone(), 2 * (4 + 8));
    let on = |category, tile| ipu.on(category, TileId(tile)).0;
    assert_eq!(on(Category::VertexInstanceState, 3), 110 + 2 * 130);
    assert_eq!(on(Category::ControlCode, 31), 9 * 2);
    let weight = weigh(&fixture.program, &machine()).unwrap();
    let other = &weight.ipus[IpuId(1)];
    assert_eq!(
        other.on(Category::AlwaysLive(VarKind::CopyBuffer), TileId(3)),
        Bytes(8)
    );
    assert_eq!(other.on(Category::ControlCode, TileId(3)), Bytes(4 * 2));
    assert_eq!(other.fullest_at, []);
}

#[test]
fn the_verdict_names_tile_step_and_variables() {
    let mut fixture = Fixture::new(1);
    let weight = fixture.var("weight", 300_000, VarKind::Weight);
    let [x] = fixture.activations([30_000]);
    fixture.program.steps = vec![read(weight, x)];
    let weight = weigh(&fixture.program, &machine()).unwrap();
    let error = weight.verdict().unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of memory on IPU 0, tile 0: expected at most 638976 B, got 661122 B (22146 B too \
         many) at work; largest: `weight` 600000 B, `x1:test` 60000 B"
    );
    let mut roomy = machine();
    roomy.tile.memory = Bytes(700_000);
    assert_eq!(weigh(&fixture.program, &roomy).unwrap().verdict(), Ok(()));
}

/// A product of `[rows, 16] x [16, 16]` on tile 0; the coefficients are `weights`.
fn product(fixture: &mut Fixture, weights: VarId, load: WeightLoad) -> Step {
    let mut matrix = |name: &str, rows| {
        let axes = vec![AxisSplit::whole(rows), AxisSplit::whole(16)];
        let layout = fixture.program.add_layout(Layout::row_major(axes));
        fixture.program.vars.push(Variable {
            name: name.into(),
            dtype: DType::F16,
            ipu: IpuId(0),
            layout,
            kind: VarKind::Activation,
        })
    };
    let (input, output) = (matrix("input", 8), matrix("output", 8));
    Step::Compute(ComputeSet {
        source: SourceId(0),
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: Vertex::MatMul {
                method: MatMulMethod::Amp { units: 16, load },
                groups: Labels::new(),
                field: Label(0),
                input: Label(1),
                output: Label(2),
                input_group: 16,
                output_group: 16,
            },
            output: Operand::new(output, &[0, 2]),
            inputs: [Operand::new(input, &[0, 1]), Operand::new(weights, &[1, 2])]
                .into_iter()
                .collect(),
        }],
    })
}

/// Coefficients of 512 B in `n` variables of a kind, each multiplied by after it is written.
fn products(n: u32, kind: VarKind, load: WeightLoad) -> Program {
    let mut fixture = Fixture::new(1);
    let mut steps = Vec::new();
    for number in 0..n {
        let axes = vec![AxisSplit::whole(16), AxisSplit::whole(16)];
        let layout = fixture.program.add_layout(Layout::row_major(axes));
        let weights = fixture.program.vars.push(Variable {
            name: format!("w{number}"),
            dtype: DType::F16,
            ipu: IpuId(0),
            layout,
            kind,
        });
        steps.push(Step::Compute(ComputeSet {
            source: SourceId(0),
            ipu: IpuId(0),
            vertices: vec![VertexGroup {
                vertex: Vertex::Fill(0.0),
                output: Operand::new(weights, &[0, 1]),
                inputs: SmallVec::new(),
            }],
        }));
        steps.push(product(&mut fixture, weights, load));
    }
    fixture.program.steps = steps;
    fixture.program
}

/// Two of three coefficients of 512 B fit 1100 B of interleaved memory, of which the loader has 50.
#[test]
fn wide_loads_want_interleaved_memory() {
    let mut machine = machine();
    machine.memory.loader = Bytes(50);
    machine.memory.interleaved = Bytes(1_100);
    let verdict = |n, kind, load| {
        let weight = weigh(&products(n, kind, load), &machine).unwrap();
        let needed = weight.ipus[IpuId(0)].fullest(Region::Interleaved).1;
        (
            needed.0,
            weight.verdict().err().map(|error| error.to_string()),
        )
    };
    use WeightLoad::{Bits64, Bits128};
    assert_eq!(verdict(3, VarKind::Weight, Bits64), (50, None));
    assert_eq!(verdict(2, VarKind::Weight, Bits128), (50 + 1_024, None));
    let (needed, refusal) = verdict(3, VarKind::Weight, Bits128);
    assert_eq!(needed, 50 + 1_536);
    assert_eq!(
        refusal.unwrap(),
        "out of interleaved memory on IPU 0, tile 0: expected at most 1100 B, got 1586 B (486 B \
         too many); largest: `w0` 512 B, `w1` 512 B, `w2` 512 B"
    );
    // What doesn't live at the same time shares memory there as well.
    assert_eq!(verdict(3, VarKind::Activation, Bits128), (50 + 512, None));
}

#[test]
fn code_wants_executable_memory() {
    let mut fixture = Fixture::new(1);
    let [x, y] = fixture.activations([8, 8]);
    fixture.program.steps = vec![write(x), read(x, y)];
    let mut machine = machine();
    // Two types of vertices and two steps.
    machine.memory.executable = Bytes(2_004);
    let verdict = |machine: &MachineSpec| weigh(&fixture.program, machine).unwrap().verdict();
    assert_eq!(verdict(&machine), Ok(()));
    machine.memory.executable = Bytes(2_003);
    let error = verdict(&machine).unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of executable memory on IPU 0, tile 0: expected at most 2003 B, got 2004 B (1 B too \
         many); largest: vertex_code 2000 B, control_code 4 B"
    );
    // A tile that is too full as a whole says so first.
    machine.tile.memory = Bytes(1_000);
    assert_eq!(verdict(&machine).unwrap_err().region, Region::Tile);
}

/// What a random step does: variables by number, two functions, repeats.
#[derive(Clone, Debug)]
enum Random {
    Write(usize),
    Read(usize, usize),
    Call(usize),
    Repeat(Vec<Random>),
}

fn random_steps(depth: u32, n_callees: usize) -> BoxedStrategy<Vec<Random>> {
    let var = 0usize..5;
    let mut one = prop_oneof![
        var.clone().prop_map(Random::Write),
        (var.clone(), var).prop_map(|(from, to)| Random::Read(from, to)),
    ]
    .boxed();
    if n_callees > 0 {
        one = prop_oneof![3 => one, 1 => (0..n_callees).prop_map(Random::Call)].boxed();
    }
    if depth > 0 {
        let body = random_steps(depth - 1, n_callees).prop_map(Random::Repeat);
        one = prop_oneof![4 => one, 1 => body].boxed();
    }
    prop::collection::vec(one, 1..7).boxed()
}

fn made(vars: &[VarId], steps: &[Random]) -> Vec<Step> {
    steps
        .iter()
        .map(|step| match step {
            Random::Write(var) => write(vars[*var]),
            Random::Read(from, to) => read(vars[*from], vars[*to]),
            Random::Call(id) => Step::Call(FunctionId(*id as u32)),
            Random::Repeat(body) => repeat(made(vars, body)),
        })
        .collect()
}

/// The steps as they run, repeats and calls written out.
fn unrolled<'a>(program: &'a Program, steps: &'a [Step], out: &mut Vec<&'a Step>) {
    for step in steps {
        match step {
            Step::Repeat { count, body } => {
                for _ in 0..*count {
                    unrolled(program, body, out);
                }
            }
            Step::Call(id) => unrolled(program, &program.functions[*id].steps, out),
            _ => out.push(step),
        }
    }
}

/// The most bytes that values take which are still read, found by running backwards.
fn true_peak(program: &Program) -> u64 {
    let mut steps = Vec::new();
    unrolled(program, &program.steps, &mut steps);
    let mut live = std::collections::BTreeSet::new();
    let mut peak = 0;
    for step in steps.into_iter().rev() {
        let accesses = access::accesses(program, step);
        live.extend(accesses.keys().copied());
        let bytes = live.iter().map(|&var| program.bytes_of(var).0).sum();
        peak = peak.max(bytes);
        for (var, access) in accesses {
            if access.replaces {
                live.remove(&var);
            }
        }
    }
    peak
}

/// What lives at every step of a program without repeats and calls: of every variable the
/// elements that a tile holds, counted one by one.
fn live_by_hand(program: &Program) -> Vec<[u64; 32]> {
    live_by_hand_of(program, &|_| true)
}

/// The same of the variables that `counts` picks.
fn live_by_hand_of(program: &Program, counts: &dyn Fn(VarId) -> bool) -> Vec<[u64; 32]> {
    let accesses: Vec<_> = program
        .steps
        .iter()
        .map(|step| access::accesses(program, step))
        .collect();
    let mut out = vec![[0; 32]; accesses.len()];
    for (id, var) in program.vars.iter().filter(|(id, _)| counts(*id)) {
        let layout = program.layout_of(id);
        let touched = |at: usize| accesses[at].get(&id).copied();
        let lasts = (0..accesses.len())
            .find_map(touched)
            .is_some_and(|first| first.reads);
        for (at, tiles) in out.iter_mut().enumerate() {
            // It lives if this step touches it, or a later one needs what an earlier one left.
            let before = (0..at).rev().any(|at| touched(at).is_some());
            let after = (at + 1..accesses.len()).find_map(touched);
            let needed = before && after.is_some_and(|next| !next.replaces);
            if !lasts && (touched(at).is_some() || needed) {
                let axis = &layout.axes[0];
                for index in 0..axis.extent() {
                    let place = axis.range_of(index).place;
                    let tile = axis.places[place as usize].tile;
                    tiles[tile as usize] += var.dtype.size().0;
                }
            }
        }
    }
    out
}

/// A read or a write of one of five variables, by number.
fn straight_line() -> impl Strategy<Value = Vec<Random>> {
    let var = 0usize..5;
    let one = prop_oneof![
        var.clone().prop_map(Random::Write),
        (var.clone(), var).prop_map(|(from, to)| Random::Read(from, to)),
    ];
    prop::collection::vec(one, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Every tile, every step: what is weighed is what a walk over all elements finds.
    #[test]
    fn programs_without_repeats_weigh_what_they_hold(
        steps in straight_line(),
        cuts in prop::array::uniform5(1u32..8),
    ) {
        let mut fixture = Fixture::new(1);
        let vars: Vec<VarId> = cuts
            .iter()
            .zip([3, 17, 64, 100, 31])
            .map(|(&parts, extent)| {
                let cut = Cut { parts, grain: 2, tile_stride: 4 };
                let axis = AxisSplit::cut(extent, &[cut]);
                fixture.var_on("x", IpuId(0), axis, VarKind::Activation)
            })
            .collect();
        fixture.program.steps = made(&vars, &steps);
        let live = live_by_hand(&fixture.program);
        let weight = weigh(&fixture.program, &machine()).unwrap();
        let weight = &weight.ipus[IpuId(0)];
        for tile in 0..32 {
            let expect = live.iter().map(|tiles| tiles[tile]).max();
            let got = weight.not_always_live()[tile];
            prop_assert_eq!(Some(got.0), expect, "tile {}", tile);
            let curve = live_curve(&fixture.program, TileId(tile as u32));
            let curve: Vec<(u64, u64)> = curve
                .iter()
                .map(|point| (point.on_ipu.total().0, point.on_tile.total().0))
                .collect();
            let expect: Vec<(u64, u64)> = live
                .iter()
                .map(|tiles| (tiles.iter().sum(), tiles[tile]))
                .collect();
            prop_assert_eq!(curve, expect, "tile {}", tile);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_value_that_is_needed_is_forgotten(
        main in random_steps(2, 3),
        c in random_steps(1, 2),
        b in random_steps(1, 1),
        a in random_steps(1, 0),
    ) {
        let mut fixture = Fixture::new(1);
        let vars = fixture.activations([1, 10, 100, 1000, 10_000]);
        for steps in [a, b, c] {
            fixture.function("f", made(&vars, &steps));
        }
        fixture.program.steps = made(&vars, &main);
        let weight = weigh(&fixture.program, &machine()).unwrap();
        let weight = &weight.ipus[IpuId(0)];
        let tile = TileId(0);
        let passing = weight.not_always_live()[0];
        let curve = live_curve(&fixture.program, tile);
        let highest = curve.iter().map(|point| point.on_tile.total()).max();
        prop_assert_eq!(highest, Some(passing));
        let counted = passing + weight.on(Category::AlwaysLive(VarKind::Activation), tile);
        // Twice the elements in bytes; and no variable is counted twice.
        prop_assert!(counted.0 >= true_peak(&fixture.program));
        prop_assert!(counted.0 <= 2 * 11_111);
    }
}
