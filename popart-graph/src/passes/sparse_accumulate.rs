//! Gradients of tables that are added row by row.
//!
//! **Assumes** a graph with accumulators. **Guarantees** that the gradient of a gather is
//! added to its accumulator by the rows that were gathered, without a dense gradient, also
//! where the gather read a transpose; where a gradient is a sum of which a term is that of a
//! gather or of another stage, its terms are added one after the other. **Leaves alone**
//! everything else, as sums over stages without accumulation: their terms, added at different
//! times, would be in different updates (PopART ties gathers only with accumulation); and the
//! operations that nothing needs any more, for [`super::prune()`]. Running it twice
//! changes nothing more.
//!
//! ```text
//! d = gather_grad(dy, indices)        ->   a = sparse_accumulate(accumulator, dy, indices)
//! a = accumulate(accumulator, d)
//! ```
//!
//! So BERT's embedding and its projection, which share one weight, share one accumulator
//! (PopART's patterns `TiedGatherAccumulate` and `SparseAccumulate`, and the transform
//! `InplaceAccumulateGradPartials`).
//!
//! ```text
//! before
//! variable %0: f32[3,2] = zeros "Accum___table"
//! stream %1: f32[4,2] "dy"
//! stream %2: u32[4] "indices"
//! %3: f32[3,2] = gather_grad(%1, %2) {first_row: 0, rows: 3} @ipu0 bwd "d"
//! %4: f32[3,2] = accumulate(%0, %3) {factor: 1.0} @ipu0 acc "sum"
//! inputs %1, %2
//! update %0 = %4
//! after
//! variable %0: f32[3,2] = zeros "Accum___table"
//! stream %1: f32[4,2] "dy"
//! stream %2: u32[4] "indices"
//! %3: f32[3,2] = gather_grad(%1, %2) {first_row: 0, rows: 3} @ipu0 bwd "d"
//! %4: f32[3,2] = sparse_accumulate(%0, %1, %2) {first_row: 0, factor: 1.0} @ipu0 acc "sum"
//! inputs %1, %2
//! update %0 = %4
//! ```

use ipu_sim::ids::IdVec;
use smallvec::{SmallVec, smallvec};

use super::optimizer::rules::Scaling;
use crate::infer::InferError;
use crate::ir::{BinaryFn, Graph, Op, OpId, OpKind, Phase, Scope, TensorId};

/// Adds gradients of gathers to their accumulators row by row.
///
/// # Errors
/// None on a well-formed graph.
pub fn sparse_accumulate(mut graph: Graph, scaling: &Scaling) -> Result<Graph, InferError> {
    let made = Made {
        producers: graph.producers(),
        readers: graph.consumers(),
    };
    let sums: Vec<OpId> = graph
        .ops
        .iter()
        .filter(|(_, op)| matches!(op.kind, OpKind::Accumulate { .. }))
        .map(|(id, _)| id)
        .collect();
    for sum in sums {
        let Some(mut terms) = terms(&graph, &made, graph.ops[sum].inputs[1]) else {
            continue;
        };
        let stage = |term: &GradientTerm| graph.ops[term.beside].stage;
        let several_stages = terms.iter().any(|term| stage(term) != stage(&terms[0]));
        if several_stages && !scaling.accumulates() {
            continue;
        }
        if several_stages || terms.iter().any(|term| term.rows.is_some()) {
            terms.sort_by_key(|term| (stage(term), term.rows.is_some()));
            add_terms(&mut graph, sum, &terms)?;
        }
    }
    Ok(graph)
}

/// Term of a gradient that is a sum.
#[derive(Clone, Copy, Debug)]
struct GradientTerm {
    value: TensorId,
    /// The operation beside which it is added.
    beside: OpId,
    /// If it is the gradient of a gather.
    rows: Option<Rows>,
}

/// The gradient of a gather.
#[derive(Clone, Copy, Debug)]
struct Rows {
    gather_grad: OpId,
    /// Whether the gather read the weight's transpose.
    transposed: bool,
}

/// Where tensors come from and go to.
struct Made {
    producers: IdVec<TensorId, Option<OpId>>,
    readers: IdVec<TensorId, SmallVec<[OpId; 4]>>,
}

/// The terms that a gradient is the sum of; a sum that is read elsewhere too is one term, for it
/// is made anyway; `None` if an operation doesn't make one of them.
fn terms(graph: &Graph, made: &Made, value: TensorId) -> Option<Vec<GradientTerm>> {
    let beside = made.producers[value]?;
    let op = &graph.ops[beside];
    let rows = match &op.kind {
        OpKind::Binary(BinaryFn::Add) if made.readers[value].len() == 1 && alike(graph, op) => {
            let left = terms(graph, made, op.inputs[0]);
            let right = terms(graph, made, op.inputs[1]);
            if let (Some(mut all), Some(right)) = (left, right) {
                all.extend(right);
                return Some(all);
            }
            None
        }
        OpKind::GatherGrad { .. } => Some(Rows {
            gather_grad: beside,
            transposed: false,
        }),
        OpKind::Transpose { perm } if perm.as_slice() == [1, 0] => made.producers[op.inputs[0]]
            .filter(|&from| matches!(graph.ops[from].kind, OpKind::GatherGrad { .. }))
            .map(|gather_grad| Rows {
                gather_grad,
                transposed: true,
            }),
        _ => None,
    };
    Some(vec![GradientTerm {
        value,
        beside,
        rows,
    }])
}

/// Whether operands have the shape of the result, so that nothing is stretched.
fn alike(graph: &Graph, op: &Op) -> bool {
    let shape = |id: TensorId| &graph.tensors[id].shape;
    op.inputs
        .iter()
        .all(|&id| shape(id) == shape(op.outputs[0]))
}

/// Replaces the operation `sum`, which adds a gradient, by some that add its terms. The last
/// one takes its place, so that the final value stays the same tensor.
fn add_terms(graph: &mut Graph, sum: OpId, terms: &[GradientTerm]) -> Result<(), InferError> {
    let Op {
        kind: OpKind::Accumulate { factor },
        inputs,
        outputs,
        name,
        part: of_weight,
        purpose,
        ..
    } = graph.ops[sum].clone()
    else {
        unreachable!("sums are accumulations");
    };
    let mut accumulator = inputs[0];
    for (position, term) in terms.iter().enumerate() {
        let scope = Scope {
            name: name.clone(),
            part: of_weight,
            phase: Phase::Accumulate,
            purpose,
            ..graph.ops[term.beside].scope()
        };
        let (before, (kind, operands), after) = match term.rows {
            None => (
                None,
                (OpKind::Accumulate { factor }, smallvec![term.value]),
                None,
            ),
            Some(rows) => {
                let swap = || OpKind::Transpose {
                    perm: smallvec![1, 0],
                };
                (
                    rows.transposed.then(swap),
                    add_rows(graph, rows.gather_grad, factor),
                    rows.transposed.then(swap),
                )
            }
        };
        if let Some(before) = before {
            accumulator = graph.add(before, &[accumulator], &scope)?;
        }
        let mut operands: SmallVec<[TensorId; 4]> = operands;
        operands.insert(0, accumulator);
        let (kind, operands) = match after {
            None => (kind, operands),
            Some(after) => (after, smallvec![graph.add(kind, &operands, &scope)?]),
        };
        if position + 1 < terms.len() {
            accumulator = graph.add(kind, &operands, &scope)?;
        } else {
            graph.ops[sum] = Op {
                kind,
                inputs: operands,
                outputs: outputs.clone(),
                name: scope.name,
                ipu: scope.ipu,
                stage: scope.stage,
                part: scope.part,
                phase: scope.phase,
                recompute: scope.recompute,
                purpose: scope.purpose,
            };
        }
    }
    Ok(())
}

/// What adds the rows of a gather's gradient, and its operands after the accumulator.
fn add_rows(graph: &Graph, gather_grad: OpId, factor: f64) -> (OpKind, SmallVec<[TensorId; 4]>) {
    let op = &graph.ops[gather_grad];
    let OpKind::GatherGrad { first_row, .. } = op.kind else {
        unreachable!("it was found as the gradient of a gather");
    };
    (
        OpKind::SparseAccumulate { first_row, factor },
        op.inputs.clone(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;

    use super::*;
    use crate::eval::{EvalOptions, Inputs, eval};
    use crate::ir::Reduction;
    use crate::passes::prune::prune;
    use crate::testing::check_header;
    use crate::text::{parse, print};
    use crate::verify::{Form, verify};

    /// A table `[2, 3]` that a product reads, and a gather reads transposed.
    const TIED: &str = r#"variable %0: f32[2,3] = zeros "Accum___w"
stream %1: f32[2,3] "dense"
stream %2: f32[4,2] "dy"
stream %3: u32[4] "indices"
%4: f32[2,3] = scale(%1) {factor: 2.0} @ipu0 stage4 bwd "projection"
%5: f32[3,2] = gather_grad(%2, %3) {first_row: 0, rows: 3} @ipu0 stage8 bwd "gather"
%6: f32[2,3] = transpose(%5) {perm: [1, 0]} @ipu0 stage8 bwd "transpose"
%7: f32[2,3] = add(%4, %6) @ipu0 stage8 bwd "sum"
%8: f32[2,3] = accumulate(%0, %7) {factor: 0.5} @ipu0 stage8 acc "Accum___w"
inputs %1, %2, %3
update %0 = %8
"#;

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("sparse_accumulate.rs"), |graph| {
            sparse_accumulate(graph, &scaling(8)).unwrap()
        });
    }

    fn scaling(accumulation: u32) -> Scaling {
        Scaling {
            loss_scale: 1.0,
            accumulation,
            replicas: 1,
            reduction: Reduction::Sum,
        }
    }

    /// Rows of a later stage would come into the update of another micro-batch.
    #[test]
    fn without_accumulation_parts_of_several_stages_stay_together() {
        let graph = parse(TIED).unwrap();
        assert_eq!(
            sparse_accumulate(graph.clone(), &scaling(1)).unwrap(),
            graph
        );
    }

    #[test]
    fn a_tied_table_adds_rows_to_the_dense_gradient() {
        let graph = sparse_accumulate(parse(TIED).unwrap(), &scaling(8)).unwrap();
        assert_eq!(
            sparse_accumulate(graph.clone(), &scaling(8)).unwrap(),
            graph
        );
        let (graph, _) = prune(graph);
        verify(&graph, Form::Logical).unwrap();
        expect![[r#"
            variable %0: f32[2,3] = zeros "Accum___w"
            stream %1: f32[2,3] "dense"
            stream %2: f32[4,2] "dy"
            stream %3: u32[4] "indices"
            %4: f32[2,3] = scale(%1) {factor: 2.0} @ipu0 stage4 bwd "projection"
            %9: f32[2,3] = accumulate(%0, %4) {factor: 0.5} @ipu0 stage4 acc "Accum___w"
            %10: f32[3,2] = transpose(%9) {perm: [1,0]} @ipu0 stage8 acc "Accum___w"
            %11: f32[3,2] = sparse_accumulate(%10, %2, %3) {first_row: 0, factor: 0.5} @ipu0 stage8 acc "Accum___w"
            %8: f32[2,3] = transpose(%11) {perm: [1,0]} @ipu0 stage8 acc "Accum___w"
            inputs %1, %2, %3
            update %0 = %8
        "#]].assert_eq(&print(&graph));
    }

    #[test]
    fn the_sum_stays_the_same() {
        let inputs: Inputs = BTreeMap::from([
            (TensorId(0), vec![1.0; 6].into()),
            (TensorId(1), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0].into()),
            (
                TensorId(2),
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0].into(),
            ),
            (TensorId(3), vec![2_u32, 0, 2, 7].into()),
        ]);
        let options = EvalOptions {
            round_to_dtype: false,
            replicas: 1,
        };
        let before = parse(TIED).unwrap();
        let after = sparse_accumulate(before.clone(), &scaling(8)).unwrap();
        let (_, value) = before.updates[0];
        assert_eq!(
            eval(&after, &inputs, options).unwrap()[value],
            eval(&before, &inputs, options).unwrap()[value]
        );
    }

    #[test]
    fn other_gradients_stay() {
        let text = r#"variable %0: f32[2,3] = zeros "Accum___w"
stream %1: f32[2,3] "dense"
%2: f32[2,3] = scale(%1) {factor: 2.0} @ipu0 stage4 bwd "a"
%3: f32[2,3] = scale(%1) {factor: 3.0} @ipu0 stage4 bwd "b"
%4: f32[2,3] = add(%2, %3) @ipu0 stage4 bwd "sum"
%5: f32[2,3] = accumulate(%0, %4) {factor: 1.0} @ipu0 stage4 acc "Accum___w"
inputs %1
update %0 = %5
"#;
        let graph = parse(text).unwrap();
        assert_eq!(
            sparse_accumulate(graph.clone(), &scaling(8)).unwrap(),
            graph
        );
    }
}
