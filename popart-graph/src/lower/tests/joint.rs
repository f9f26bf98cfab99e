//! A layer whose passes share one plan: its values, and weights that stay on their tiles.

use std::collections::BTreeSet;

use ipu_sim::exchange::pieces::Side;
use ipu_sim::exchange::{Fabric, traffic};
use ipu_sim::program::VarId;
use ipu_sim::units::Bytes;
use ipu_sim::vertex::Vertex;

use super::*;
use crate::plan::JointPass;

/// `y = x w` and both of its gradients, with operands `[groups, m, k] x [groups, k, n]`.
fn layer(dtype: DType, [g, m, k, n]: [u32; 4], proportion: f64) -> Graph {
    let t = match dtype {
        DType::F16 => "f16",
        DType::F32 | DType::U32 => "f32",
    };
    let options = |pass| {
        format!("{{pass: training_{pass}, proportion: {proportion}, partials: half, piece: whole}}")
    };
    let (fwd, bwd, wu) = (options("fwd"), options("bwd"), options("wu"));
    let text = format!(
        r#"stream %0: {t}[{g},{m},{k}] "x"
stream %1: {t}[{g},{m},{n}] "dy"
variable %2: {t}[{g},{k},{n}] "w"
%3: {t}[{g},{m},{n}] = matmul(%0, %2) {fwd} fwd "y"
%4: {t}[{g},{n},{k}] = transpose(%2) {{perm: [0, 2, 1]}} bwd "w_t"
%5: {t}[{g},{m},{k}] = matmul(%1, %4) {bwd} bwd "dx"
%6: {t}[{g},{k},{m}] = transpose(%0) {{perm: [0, 2, 1]}} bwd "x_t"
%7: {t}[{g},{k},{n}] = matmul(%6, %1) {wu} bwd "dw"
inputs %0, %1
outputs %3, %5, %7
"#
    );
    let mut graph = crate::text::parse(&text).unwrap();
    for op in graph.ops.values_mut() {
        op.ipu = Some(IpuId(0));
    }
    graph
}

/// What became of a layer.
struct Outcome {
    joint: Vec<Option<JointPass>>,
    iterations: u64,
    /// Bytes that tiles receive of the weights, however these are arranged.
    moved: Bytes,
    /// Whether the gradient of the weights lies where these lie.
    gradient_beside_weights: bool,
}

fn outcome(graph: &Graph, tiles: u32) -> Outcome {
    let machine = MachineSpec::shipped("mk2-m2000").unwrap();
    let machine = machine.scaled_down(1, tiles).unwrap();
    let plans = PlanCache::new(machine.tile.clone());
    let lowered = forward(graph, &machine, HostStreams::Grouped, &plans).lowered;
    let requests = graph.ops.values();
    let requests = requests.filter_map(|op| super::super::products::plan_request(graph, op));
    let chosen: Vec<_> = requests
        .map(|(request, _)| plans.get(&request).unwrap())
        .collect();
    let program = &lowered.program;
    assert!(program.functions.is_empty());
    let (_, weights) = &lowered.variables[0];
    let mut holders = BTreeSet::from([weights.var]);
    let mut moved = Bytes::ZERO;
    let fabric = Fabric::new(&machine.exchange, tiles);
    follow(&program.steps, &mut holders, &mut |copy| {
        let side =
            |view: &'_ ipu_sim::view::View| (program.layout_of(view.var), view.shape.clone());
        let ((from, seen_from), (to, seen_to)) = (side(&copy.src), side(&copy.dst));
        let (from, to) = (
            Side {
                layout: from,
                view: &seen_from,
            },
            Side {
                layout: to,
                view: &seen_to,
            },
        );
        let element = program.vars[copy.src.var].dtype.size();
        moved += traffic(from, to, element, &fabric).bytes_received();
    });
    let gradient = program
        .vars
        .ids()
        .find(|&var| program.vars[var].name == "dw")
        .unwrap();
    Outcome {
        joint: chosen.iter().map(|plan| plan.joint).collect(),
        iterations: chosen[0].splits.iterations(),
        moved,
        gradient_beside_weights: program.layout_of(gradient) == program.layout_of(weights.var),
    }
}

/// Calls `copied` for all copies of what `holders` hold, and adds those who hold it then.
fn follow(
    steps: &[Step],
    holders: &mut BTreeSet<VarId>,
    copied: &mut impl FnMut(&ipu_sim::program::TileCopy),
) {
    for step in steps {
        match step {
            Step::Exchange(exchange) => {
                for copy in &exchange.copies {
                    if holders.contains(&copy.src.var) {
                        copied(copy);
                        holders.insert(copy.dst.var);
                    }
                }
            }
            Step::Compute(set) => {
                for group in &set.vertices {
                    let arranges = matches!(
                        group.vertex,
                        Vertex::Copy | Vertex::Assemble | Vertex::DynamicSlice { .. }
                    );
                    if arranges && holders.contains(&group.inputs[0].var) {
                        holders.insert(group.output.var);
                    }
                }
            }
            Step::Repeat { body, .. } => follow(body, holders, copied),
            Step::IpuCopies { .. }
            | Step::Transfers { .. }
            | Step::Collective(_)
            | Step::Call(_)
            | Step::Section(_) => {}
        }
    }
}

/// Layers of few tokens share one plan, and so do some with little memory, in a serial loop.
#[test]
fn weights_of_a_joint_layer_stay_on_their_tiles() {
    let mut any_serial = false;
    for (dtype, sizes, proportion, tiles) in [
        (DType::F16, [1, 4, 64, 64], 0.6, 4),
        (DType::F16, [1, 1, 128, 32], 0.6, 4),
        (DType::F16, [1, 8, 64, 128], 0.6, 16),
        (DType::F16, [2, 32, 64, 256], 0.6, 16),
        (DType::F32, [1, 4, 16, 64], 0.6, 4),
        // Not all tiles have as much.
        (DType::F16, [1, 5, 112, 80], 0.6, 12),
        (DType::F16, [1, 128, 256, 256], 0.01, 64),
    ] {
        let graph = layer(dtype, sizes, proportion);
        let outcome = outcome(&graph, tiles);
        let expect = JointPass::ALL.map(Some);
        assert_eq!(outcome.joint, expect, "{sizes:?} on {tiles} tiles");
        assert_eq!(outcome.moved, Bytes::ZERO, "{sizes:?} on {tiles} tiles");
        assert!(outcome.gradient_beside_weights, "{sizes:?}");
        any_serial |= outcome.iterations > 1;
        check(graph, tiles, 1e-5);
    }
    assert!(any_serial, "no joint plan had a serial split");
}

/// Groups of channels that don't fill up are right in all passes.
#[test]
fn joint_layers_with_padding_compute_their_values() {
    let mut n_joint = 0;
    for m in [1, 3, 8] {
        for k in [24, 40] {
            for n in [20, 72] {
                for tiles in [2, 6] {
                    for dtype in [DType::F16, DType::F32] {
                        let graph = layer(dtype, [1, m, k, n], 0.6);
                        n_joint += u32::from(outcome(&graph, tiles).joint[0].is_some());
                        check(graph, tiles, 1e-5);
                    }
                }
            }
        }
    }
    assert!(n_joint > 0);
}

/// What the measure above says where weights do move.
#[test]
fn weights_of_separate_plans_move() {
    let graph = layer(DType::F16, [1, 256, 64, 64], 0.6);
    let outcome = outcome(&graph, 16);
    assert_eq!(outcome.joint, [None; 3]);
    assert!(outcome.moved > Bytes::ZERO);
    check(graph, 16, 1e-5);
}
