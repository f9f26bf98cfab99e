//! Where gradients of several micro-batches are added up.
//!
//! **Assumes** a graph with gradients.
//! **Guarantees** for each weight a variable like it, `Accum___<weight>`, and an operation
//! that adds the gradient to it, in the gradient's stage and on its IPU. SGD with momentum
//! adds to the velocity itself, `Accl___<weight>`, also without accumulation (PopART, SGD1).
//! **Leaves alone** everything else; without accumulation, other optimisers use the gradient
//! as it is. Running it twice adds everything twice.
//!
//! The accumulator's update says what it holds after a micro-batch; [`super::optimizer()`]
//! replaces it by what it holds after the weight update.
//!
//! ```text
//! before
//! variable %0: f16[2] = zeros "w"
//! stream %1: f16[2] "dy"
//! %2: f16[2] = mul(%0, %1) @ipu1 stage2 bwd "gradient"
//! inputs %1
//! after
//! variable %0: f16[2] = zeros "w"
//! stream %1: f16[2] "dy"
//! variable %3: f16[2] = zeros "Accum___w"
//! %2: f16[2] = mul(%0, %1) @ipu1 stage2 bwd "gradient"
//! %4: f16[2] = accumulate(%3, %2) {factor: 1.0} @ipu1 stage2 acc "Accum___w"
//! inputs %1
//! update %3 = %4
//! ```

use indexmap::IndexMap;

use super::differentiate::Gradients;
use super::optimizer::error::OptimizerError;
use super::optimizer::rules::{OptimizerOptions, UpdateRule};
use crate::ir::{Graph, Op, OpId, OpKind, Phase, Purpose, Recompute, Scope, TensorId};

/// Gradient that a weight update starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulated {
    /// The sum of gradients, or the velocity, or just the gradient.
    pub value: TensorId,
    /// The variable that holds it between micro-batches, if there is one.
    pub variable: Option<TensorId>,
}

/// Gradients that weight updates start from, by weight.
pub type AccumulatedGradients = IndexMap<TensorId, Accumulated>;

/// Adds accumulators where the options ask for them.
///
/// # Errors
/// An option is out of its range.
///
/// # Panics
/// If a weight has no gradient.
pub fn accumulate(
    mut graph: Graph,
    gradients: &Gradients,
    options: &OptimizerOptions,
) -> Result<(Graph, AccumulatedGradients), OptimizerError> {
    options.scaling.check()?;
    let producers = graph.producers();
    let mut accumulated = AccumulatedGradients::new();
    for update in &options.weights {
        let gradient = *gradients
            .get(&update.weight)
            .expect("every weight has a gradient");
        let (prefix, factor) = match update.rule {
            UpdateRule::Sgd(sgd) if sgd.momentum != 0.0 => {
                ("Accl___", sgd.velocity_factor(&options.scaling))
            }
            _ if options.scaling.accumulates() => ("Accum___", 1.0),
            _ => {
                let value = gradient;
                accumulated.insert(
                    update.weight,
                    Accumulated {
                        value,
                        variable: None,
                    },
                );
                continue;
            }
        };
        let mut scope = beside(&graph, producers[gradient], update.weight);
        let mut gradient = gradient;
        if options.scaling.replicas > 1 && !options.scaling.accumulates() {
            gradient = graph.add(OpKind::AllReduce, &[gradient], &scope)?;
        }
        scope.phase = Phase::Accumulate;
        let weight = graph.tensors[update.weight].ty();
        let variable = graph.variable_beside(update.weight, prefix, weight.dtype, weight.shape);
        scope.name.clone_from(&graph.tensors[variable].name);
        let value = graph.add(OpKind::Accumulate { factor }, &[variable, gradient], &scope)?;
        graph.update(variable, value);
        let variable = Some(variable);
        accumulated.insert(update.weight, Accumulated { value, variable });
    }
    Ok((graph, accumulated))
}

/// The place of a value, as part of the weight it is for; that of the weight if no operation makes
/// it.
pub(super) fn beside(graph: &Graph, producer: Option<OpId>, weight: TensorId) -> Scope {
    let reads = |op: &&Op| op.inputs.contains(&weight);
    let op = match producer {
        Some(op) => Some(&graph.ops[op]),
        None => graph.ops.values().find(reads),
    };
    Scope {
        name: graph.tensors[weight].name.clone(),
        ipu: op.and_then(|op| op.ipu),
        stage: op.and_then(|op| op.stage),
        part: graph.tensors[weight].part,
        phase: Phase::Backward,
        recompute: Recompute::Checkpoint,
        purpose: Purpose::General,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::ir::Reduction;
    use crate::passes::optimizer::rules::{LearningRate, Scaling, Sgd, WeightUpdate};
    use crate::testing::check_header;
    use crate::text::{parse, print};
    use crate::verify::{Form, verify};

    const GRADIENT: &str = r#"variable %0: f16[2] = zeros "w"
stream %1: f16[2] "dy"
%2: f16[2] = mul(%0, %1) @ipu1 stage2 bwd "gradient"
inputs %1
"#;

    fn options(momentum: f64, accumulation: u32) -> OptimizerOptions {
        OptimizerOptions {
            weights: vec![WeightUpdate {
                weight: TensorId(0),
                learning_rate_scale: 1.0,
                rule: UpdateRule::Sgd(Sgd {
                    momentum,
                    dampening: 0.5,
                    velocity_scaling: 2.0,
                    weight_decay: 0.0,
                }),
            }],
            joint_norms: Vec::new(),
            scaling: Scaling {
                loss_scale: 8.0,
                accumulation,
                replicas: 4,
                reduction: Reduction::Mean,
            },
            learning_rate: LearningRate::Stream,
            clip_norm: None,
        }
    }

    #[track_caller]
    fn check(momentum: f64, accumulation: u32, expected: &Expect) {
        let options = options(momentum, accumulation);
        let gradients = Gradients::from([(TensorId(0), TensorId(2))]);
        let graph = parse(GRADIENT).unwrap();
        let (graph, accumulated) = accumulate(graph, &gradients, &options).unwrap();
        verify(&graph, Form::Logical).unwrap();
        let added = print(&graph);
        let added: Vec<&str> = added
            .lines()
            .filter(|line| !GRADIENT.contains(line))
            .collect();
        let from = accumulated[&TensorId(0)];
        expected.assert_eq(&format!("{}\nfrom {}", added.join("\n"), from.value));
    }

    #[test]
    fn the_header_shows_it() {
        check_header(include_str!("accumulate.rs"), |graph| {
            let gradients = Gradients::from([(TensorId(0), TensorId(2))]);
            accumulate(graph, &gradients, &options(0.0, 16)).unwrap().0
        });
    }

    #[test]
    fn sums_are_kept_beside_the_gradient() {
        check(
            0.0,
            16,
            &expect![[r#"
            variable %3: f16[2] = zeros "Accum___w"
            %4: f16[2] = accumulate(%3, %2) {factor: 1.0} @ipu1 stage2 acc "Accum___w"
            update %3 = %4
            from %4"#]],
        );
    }

    #[test]
    fn a_velocity_takes_the_gradient_itself() {
        // (1 - 0.5) * 2 / (8 * 16) of each gradient; replicas are summed later.
        check(
            0.9,
            16,
            &expect![[r#"
            variable %3: f16[2] = zeros "Accl___w"
            %4: f16[2] = accumulate(%3, %2) {factor: 0.0078125} @ipu1 stage2 acc "Accl___w"
            update %3 = %4
            from %4"#]],
        );
        // Without accumulation the gradients of 4 replicas are summed first.
        check(
            0.9,
            1,
            &expect![[r#"
            variable %4: f16[2] = zeros "Accl___w"
            %3: f16[2] = all_reduce(%2) @ipu1 stage2 bwd "w"
            %5: f16[2] = accumulate(%4, %3) {factor: 0.03125} @ipu1 stage2 acc "Accl___w"
            update %4 = %5
            from %5"#]],
        );
    }

    #[test]
    fn without_accumulation_the_gradient_is_used() {
        check(
            0.0,
            1,
            &expect![[r#"

            from %2"#]],
        );
    }

    #[test]
    fn options_have_ranges() {
        let good = Scaling {
            loss_scale: 1.0,
            accumulation: 1,
            replicas: 1,
            reduction: Reduction::Sum,
        };
        good.check().unwrap();
        let said = |scaling: Scaling| scaling.check().unwrap_err().to_string();
        expect!["loss_scale is out of range, expected above 0, got 0"].assert_eq(&said(Scaling {
            loss_scale: 0.0,
            ..good
        }));
        expect!["loss_scale is out of range, expected above 0, got NaN"].assert_eq(&said(
            Scaling {
                loss_scale: f64::NAN,
                ..good
            },
        ));
        expect!["accumulation is out of range, expected at least 1, got 0"].assert_eq(&said(
            Scaling {
                accumulation: 0,
                ..good
            },
        ));
        expect!["replicas is out of range, expected at least 1, got 0"].assert_eq(&said(Scaling {
            replicas: 0,
            ..good
        }));
    }
}
