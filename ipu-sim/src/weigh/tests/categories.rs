//! What memory is taken by: every rule by hand, and that parts make the whole.

use super::*;
use crate::layout::StorageLoop;
use crate::program::{
    Collective, CollectiveKind, CollectiveTensor, RemoteBuffer, Stream, Transfer,
};

/// Sources that work, change layouts, and copy for calls.
fn with_roles(fixture: &mut Fixture) -> [SourceId; 3] {
    [Role::Work, Role::Layout, Role::Call].map(|role| {
        fixture.program.sources.push(Source {
            name: "work".into(),
            kind: "test".into(),
            role,
        })
    })
}

/// The steps of somebody else.
fn by(source: SourceId, mut step: Step) -> Step {
    match &mut step {
        Step::Compute(set) => set.source = source,
        Step::Exchange(exchange) => exchange.source = source,
        _ => {}
    }
    step
}

fn exchange(program: &Program, from: VarId, to: VarId) -> Step {
    Step::Exchange(Exchange {
        source: SourceId(0),
        ipu: IpuId(0),
        copies: vec![TileCopy {
            src: program.view(from),
            dst: program.view(to),
        }],
    })
}

#[test]
fn variables_are_there_for_what_touches_them() {
    let mut fixture = Fixture::new(2);
    let [work, layout, call] = with_roles(&mut fixture);
    let mut var = |name, kind| fixture.var(name, 8, kind);
    use VarKind::{Activation, Temporary};
    let result = var("result", Activation);
    let [loaded, read_in, summed, handed] =
        ["loaded", "read", "summed", "handed"].map(|name| var(name, Activation));
    let [operand, scattered, ordered, moved, turned] =
        ["operand", "scattered", "ordered", "moved", "turned"].map(|name| var(name, Temporary));
    let [partial, kept] = ["partial", "kept"].map(|name| var(name, Temporary));
    let arrived = fixture.var_on("arrived", IpuId(1), AxisSplit::whole(8), Activation);
    let program = &mut fixture.program;
    let stream = program.streams.push(Stream {
        name: "tokens".into(),
        prefetch: true,
        buffering_depth: 1,
    });
    let buffer = program.remote_buffers.push(RemoteBuffer {
        name: "moments".into(),
        bytes: Bytes(16),
    });
    let transfers = vec![
        Transfer::HostRead {
            stream,
            var: read_in,
        },
        Transfer::RemoteLoad {
            buffer,
            var: loaded,
        },
    ];
    program.steps = vec![
        Step::Transfers {
            source: work,
            transfers,
        },
        // Updated in place after it was loaded: still what was loaded.
        write(loaded),
        Step::Collective(Collective {
            source: work,
            kind: CollectiveKind::AllReduce,
            tensors: vec![CollectiveTensor {
                src: result,
                dst: summed,
            }],
        }),
        Step::IpuCopies {
            source: work,
            copies: vec![IpuCopy {
                src: result,
                dst: arrived,
            }],
        },
        by(call, read(result, handed)),
        exchange(program, result, operand),
        compute(Vertex::Map(MapOp::Cast), result, &[operand]),
        exchange(program, result, scattered),
        compute(Vertex::Assemble, ordered, &[scattered]),
        by(layout, exchange(program, result, moved)),
        compute(Vertex::Map(MapOp::Cast), result, &[moved]),
        read(result, turned),
        write(partial),
        exchange(program, partial, result),
        write(kept),
        compute(Vertex::Map(MapOp::Cast), result, &[kept]),
    ];
    let kinds = kinds::kinds(program);
    let expected = [
        (result, LiveKind::Variable),
        (loaded, LiveKind::RemoteBuffer),
        (read_in, LiveKind::StreamBuffer),
        (summed, LiveKind::CollectiveBuffer),
        (arrived, LiveKind::GlobalMessage),
        (handed, LiveKind::CallCopy),
        (operand, LiveKind::Message),
        (scattered, LiveKind::Rearrangement),
        (ordered, LiveKind::Rearrangement),
        (moved, LiveKind::Rearrangement),
        (turned, LiveKind::Rearrangement),
        (partial, LiveKind::OutputEdge),
        (kept, LiveKind::Variable),
    ];
    for (var, kind) in expected {
        assert_eq!(kinds[var], kind, "{}", program.vars[var].name);
    }
    assert_eq!(expected.len(), program.vars.len());
    let found: std::collections::BTreeSet<LiveKind> = kinds.values().copied().collect();
    assert_eq!(found.len(), LiveKind::ALL.len(), "a rule without a case");
}

/// A vertex takes 100 B and 10 B an edge; which of them are lists depends on its codelet.
#[test]
fn state_of_vertices_is_told_apart_by_codelet() {
    let check = |vertex: Vertex, n_inputs: usize, expected: [u64; 3]| {
        let mut fixture = Fixture::new(1);
        let vars = fixture.activations([8, 8, 8]);
        let group = match &compute(vertex, vars[0], &vars[1..=n_inputs]) {
            Step::Compute(set) => set.vertices[0].clone(),
            _ => unreachable!(),
        };
        let found = state::state(&fixture.program, &group, &machine().memory);
        let categories = found.map(|(category, _)| category);
        assert_eq!(categories, Category::VERTEX_STATE);
        assert_eq!(found.map(|(_, bytes)| bytes), expected);
    };
    let product = |method| Vertex::MatMul {
        method,
        groups: Labels::new(),
        field: Label(0),
        input: Label(1),
        output: Label(2),
        input_group: 16,
        output_group: 16,
    };
    let load = WeightLoad::Bits64;
    let amp = MatMulMethod::Amp { units: 16, load };
    check(Vertex::Fill(0.0), 0, [110, 0, 0]);
    check(Vertex::Map(MapOp::Binary(BinaryFn::Add)), 2, [130, 0, 0]);
    check(product(amp), 2, [100, 30, 0]);
    check(product(MatMulMethod::OuterProduct), 2, [120, 10, 0]);
    check(Vertex::ReducePartials { over: Label(0) }, 1, [110, 10, 0]);
    check(Vertex::Copy, 1, [100, 0, 20]);
}

#[test]
fn a_copy_that_transposes_has_no_descriptor() {
    let mut fixture = Fixture::new(1);
    let mut matrix = |order: [u8; 2]| {
        let axes = vec![AxisSplit::whole(4), AxisSplit::whole(8)];
        let order = order.map(|axis| StorageLoop { axis, block: 1 });
        let layout = fixture.program.add_layout(Layout {
            order: order.into_iter().collect(),
            ..Layout::row_major(axes)
        });
        fixture.program.vars.push(Variable {
            name: "matrix".into(),
            dtype: DType::F16,
            ipu: IpuId(0),
            layout,
            kind: VarKind::Activation,
        })
    };
    let [rows, columns] = [[0, 1], [1, 0]].map(&mut matrix);
    let descriptors = |fixture: &mut Fixture, from, to| {
        let groups = vec![VertexGroup {
            vertex: Vertex::Copy,
            output: Operand::new(to, &[0, 1]),
            inputs: [Operand::new(from, &[0, 1])].into_iter().collect(),
        }];
        fixture.program.steps = vec![Step::Compute(ComputeSet {
            source: SourceId(0),
            ipu: IpuId(0),
            vertices: groups,
        })];
        let ipu = &weigh(&fixture.program, &machine()).unwrap().ipus[IpuId(0)];
        ipu.on(Category::CopyDescriptor, TileId(0)).0
    };
    assert_eq!(descriptors(&mut fixture, rows, rows), 20);
    assert_eq!(descriptors(&mut fixture, rows, columns), 0);
}

#[test]
fn names_are_distinct_and_poplars_are_all_there() {
    let names: Vec<String> = Category::all().map(Category::name).collect();
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    // Names that users of Poplar's analysis library have.
    let theirs = "constant controlCode controlId controlTable copyDescriptor globalExchangeCode \
        globalExchangePacketHeader globalMessage hostExchangeCode hostExchangePacketHeader \
        hostMessage instrumentationResults internalExchangeCode message multiple outputEdge \
        rearrangement sharedCodeStorage sharedDataStorage stack variable vectorListDescriptor \
        vertexCode vertexFieldData vertexInstanceState";
    let ours: std::collections::BTreeSet<&str> = Category::all()
        .filter_map(Category::poplar)
        .chain(UNMODELLED_CATEGORIES.iter().map(|category| category.poplar))
        .collect();
    let ours: Vec<&str> = ours.into_iter().collect();
    assert_eq!(
        ours.join(" "),
        theirs.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    let weighed: Vec<&str> = Category::all().filter_map(Category::poplar).collect();
    assert!(
        UNMODELLED_CATEGORIES
            .iter()
            .all(|category| !weighed.contains(&category.poplar))
    );
}

/// Steps over five variables of which some are results and some on the way, on tiles of their
/// own, so that tiles are fullest at different steps.
fn mixed(cuts: [u32; 5], steps: &[Random]) -> Fixture {
    let mut fixture = Fixture::new(1);
    let vars: Vec<VarId> = cuts
        .iter()
        .zip([3, 17, 64, 100, 31])
        .enumerate()
        .map(|(number, (&parts, extent))| {
            let cut = Cut {
                parts,
                grain: 2,
                tile_stride: 4,
            };
            let kind = match number % 2 {
                0 => VarKind::Activation,
                _ => VarKind::Temporary,
            };
            fixture.var_on("x", IpuId(0), AxisSplit::cut(extent, &[cut]), kind)
        })
        .collect();
    fixture.program.steps = made(&vars, steps);
    fixture
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// At every step and on every tile kinds hold what a walk over elements finds of their
    /// variables alone, and the weight is that of the tile's first fullest step.
    #[test]
    fn kinds_are_told_apart_at_every_tiles_own_moment(
        steps in straight_line(),
        cuts in prop::array::uniform5(1u32..8),
    ) {
        let fixture = mixed(cuts, &steps);
        let program = &fixture.program;
        let of_kind = kinds::kinds(program);
        let by_hand: Vec<(LiveKind, Vec<[u64; 32]>)> = LiveKind::ALL
            .into_iter()
            .map(|kind| (kind, live_by_hand_of(program, &|var| of_kind[var] == kind)))
            .collect();
        let all = live_by_hand(program);
        let weight = &weigh(program, &machine()).unwrap().ipus[IpuId(0)];
        for tile in 0..32 {
            let id = TileId(tile as u32);
            let most = all.iter().map(|tiles| tiles[tile]).max().unwrap_or(0);
            let at = all.iter().position(|tiles| tiles[tile] == most).unwrap_or(0);
            let curve = live_curve(program, id);
            for (kind, live) in &by_hand {
                let found = weight.on(Category::NotAlwaysLive(*kind), id).0;
                prop_assert_eq!(found, live[at][tile], "{:?} on {}", kind, id);
                for (point, tiles) in curve.iter().zip(live) {
                    prop_assert_eq!(point.on_tile.on(*kind).0, tiles[tile]);
                    prop_assert_eq!(point.on_ipu.on(*kind).0, tiles.iter().sum::<u64>());
                }
            }
        }
    }
}
