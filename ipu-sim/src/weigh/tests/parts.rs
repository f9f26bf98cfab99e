//! Parts of a program, by hand and against the whole.

use super::*;

#[test]
fn parts_take_what_their_steps_take() {
    let mut fixture = Fixture::new(1);
    let cut = |parts| AxisSplit::cut(16, &[Cut::even(parts)]);
    let mut var = |name, parts, kind| fixture.var_on(name, IpuId(0), cut(parts), kind);
    let weights = var("weights", 4, VarKind::Weight);
    let _untouched = var("untouched", 4, VarKind::Weight);
    let mut halves = || var("half", 2, VarKind::Activation);
    let [x, y, z, sum] = [halves(), halves(), halves(), halves()];
    let program = &mut fixture.program;
    let lines = ["first", "second"].map(|name| program.add_source(name, "test"));
    let arrive = |source, to| {
        Step::Exchange(Exchange {
            source,
            ipu: IpuId(0),
            copies: vec![TileCopy {
                src: program.view(weights),
                dst: program.view(to),
            }],
        })
    };
    let add = |source, output, inputs: &[VarId]| {
        let mut step = compute(Vertex::Map(MapOp::Binary(BinaryFn::Add)), output, inputs);
        let Step::Compute(set) = &mut step else {
            unreachable!("it computes")
        };
        set.source = source;
        step
    };
    let [first, second] = lines;
    let steps = vec![
        arrive(first, x),
        add(first, y, &[x, x]),
        Step::Repeat {
            count: 3,
            body: vec![arrive(second, z), add(second, sum, &[y, z])],
        },
    ];
    fixture.program.steps = steps;
    let program = &fixture.program;
    let whole = weigh(program, &machine()).unwrap();
    let parts = weigh_parts(
        program,
        &machine(),
        IpuId(0),
        &[&|line| line == first, &|line| line == second],
    );
    let sums = |category: Category| [&parts[0], &parts[1]].map(|part| part.sum(category).0);

    // Each part has the codelet, on two tiles, and the state of its vertices.
    assert_eq!(sums(Category::VertexCode), [2000, 2000]);
    assert_eq!(sums(Category::VertexInstanceState), [2 * 130, 2 * 130]);
    // Four tiles exchange, with one message to tile 0 and two to tile 1; their code belongs to the
    // first.
    let exchanged = [4 * 40 + 3 * 4, 4 * 40];
    assert_eq!(sums(Category::InternalExchangeCode), exchanged);
    // Two steps on all 32 tiles; the repeat is nobody's.
    assert_eq!(sums(Category::ControlCode), [2 * 2 * 32, 2 * 2 * 32]);
    // Both read the weights, and the second what the first made; nobody the other weights.
    assert_eq!(sums(Category::AlwaysLive(VarKind::Weight)), [32, 32]);
    assert_eq!(sums(Category::AlwaysLive(VarKind::Activation)), [0, 32]);
    let live = |part: &PartMemoryUsage| -> u64 {
        let kinds = LiveKind::ALL.into_iter().map(Category::NotAlwaysLive);
        kinds.map(|category| part.sum(category).0).sum()
    };
    assert_eq!([live(&parts[0]), live(&parts[1])], [2 * 32, 2 * 32]);

    let ipu = &whole.ipus[IpuId(0)];
    let shared = [
        Category::VertexInstanceState,
        Category::InternalExchangeCode,
    ];
    for category in shared {
        assert_eq!(sums(category).iter().sum::<u64>(), ipu.sum(category).0);
    }
}
