//! The matrix products of a graph, as the planner sees them, and their plans.

use ipu_sim::numerics::DType;
use ipu_sim::vertex::WeightLoad;

use super::ctx::Ctx;
use super::matmul::{Extents, PlannedProduct};
use crate::ir::{Graph, Op, OpKind};
use crate::plan::{MatMulShape, Pass, PlanCache, PlanError, PlanOptions, PlanRequest};

/// Plans every matrix product of a graph that `plans` doesn't know yet.
///
/// # Errors
///
/// A product that the machine has no vertex for.
pub(crate) fn plan_products(graph: &Graph, plans: &PlanCache) -> Result<(), PlanError> {
    let requests: Vec<_> = graph
        .ops
        .values()
        .filter_map(|op| plan_request(graph, op))
        .map(|(request, _)| request)
        .collect();
    plans.fill(&requests)
}

/// The plan request of a matrix product of the graph.
pub(crate) fn plan_request(graph: &Graph, op: &Op) -> Option<(PlanRequest, Extents)> {
    let OpKind::MatMul {
        pass,
        available_memory_proportion,
        partials,
        ..
    } = &op.kind
    else {
        return None;
    };
    let left = graph.tensors[op.inputs[0]].shape.dims();
    let right = graph.tensors[op.inputs[1]].shape.dims();
    let rank = left.len();
    let extents = Extents {
        batch: left[..rank - 2].to_vec(),
        m: left[rank - 2],
        k: left[rank - 1],
        n: right[rank - 1],
    };
    let operand = graph.tensors[op.inputs[0]].dtype;
    let output = graph.tensors[op.outputs[0]].dtype;
    let request = PlanRequest {
        shape: MatMulShape {
            groups: extents
                .batch
                .iter()
                .map(|&extent| u64::from(extent))
                .product(),
            m: extents.m.into(),
            k: extents.k.into(),
            n: extents.n.into(),
        },
        options: PlanOptions {
            pass: match pass {
                crate::ir::MatMulPass::None => Pass::None,
                crate::ir::MatMulPass::InferenceFwd => Pass::InferenceFwd,
                crate::ir::MatMulPass::TrainingFwd => Pass::TrainingFwd,
                crate::ir::MatMulPass::TrainingBwd => Pass::TrainingBwd,
                crate::ir::MatMulPass::TrainingWu => Pass::TrainingWu,
            },
            operand,
            partials: match (partials, operand) {
                (crate::ir::Partials::Half, DType::F16) => DType::F16,
                _ => DType::F32,
            },
            output,
            available_memory_proportion: available_memory_proportion.value(),
            weight_load: WeightLoad::Bits64,
        },
    };
    Some((request, extents))
}

/// The plan of a matrix product, applied to its extents.
pub(crate) fn planned(ctx: &Ctx<'_>, op: &Op) -> PlannedProduct {
    let (request, extents) = plan_request(ctx.graph, op).expect("the operation is a product");
    let plan = ctx
        .plans
        .get(&request)
        .expect("every product was planned before lowering");
    PlannedProduct::new(&plan, &extents, ctx.spec().tiles_per_ipu)
}
