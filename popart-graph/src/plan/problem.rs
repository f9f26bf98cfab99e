//! What has to be split, once operand order and vertex are fixed?
//!
//! A product becomes a 1x1 convolution (PopLibs, `lib/poplin/MatMul.cpp`): the input has a
//! field and channels in, the coefficients channels in and out. Swapping the operands
//! swaps the roles of field and channels out. Channels are padded to whole groups.

use std::cmp::Ordering;

use ipu_sim::cost::amp::{AmpTypes, AmpVertex};
use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;

use super::{MatMulShape, Pass, PlanError, PlanOptions};

/// The vertex that a plan computes partials with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexForm {
    /// Types, units in use and channels out of a group.
    pub amp: AmpVertex,
    /// Channels in of a group: as many as fill the chain of a unit.
    pub in_channels_per_group: u64,
}

/// One operand order with one vertex: what the splits are searched for.
#[derive(Clone, Debug)]
pub(super) struct Problem<'a> {
    pub(super) spec: &'a TileSpec,
    pub(super) pass: Pass,
    pub(super) swap_operands: bool,
    pub(super) vertex: VertexForm,
    /// Type of the result; operands and partials are those of the vertex.
    pub(super) output: DType,
    pub(super) groups: u64,
    pub(super) field: u64,
    /// Channels before padding.
    pub(super) in_channels: u64,
    pub(super) out_channels: u64,
    /// Groups of channels after padding.
    pub(super) in_grains: u64,
    pub(super) out_grains: u64,
    pub(super) rearrange: Rearrange,
    pub(super) reading: Reading,
}

/// How the planner's sources are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// As they stand.
    #[default]
    PopLibs,
    /// As the evaluation behind one of the tests' tables reads them, see `tables::DIFFERENT`.
    #[cfg(test)]
    Table,
}

/// Which tensors change their layout around the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rearrange {
    pub(super) input: bool,
    pub(super) weights: bool,
    pub(super) output: bool,
    /// Only the grouping of the output's channels changes, within each tile.
    pub(super) regroup_output: bool,
}

/// All problems of a product in the order in which the planner tries them.
pub(super) fn problems<'a>(
    shape: &MatMulShape,
    options: &PlanOptions,
    spec: &'a TileSpec,
) -> Result<Vec<Problem<'a>>, PlanError> {
    if [shape.groups, shape.m, shape.k, shape.n].contains(&0) {
        return Err(PlanError::EmptyDimension(*shape));
    }
    let forms = vertex_forms(shape.k, options, spec)?;
    let mut problems = Vec::new();
    for swap_operands in [true, false] {
        let mut tried: Vec<_> = forms
            .iter()
            .map(|&vertex| Problem::new(shape, options, spec, swap_operands, vertex))
            .collect();
        tried.sort_by(Problem::compare_promise);
        problems.append(&mut tried);
    }
    Ok(problems)
}

/// Vertex forms that suit `k` channels in (PopLibs, `lib/poplin/ConvVertexType.cpp`).
fn vertex_forms(
    k: u64,
    options: &PlanOptions,
    spec: &TileSpec,
) -> Result<Vec<VertexForm>, PlanError> {
    let partials = wider(options.partials, options.output);
    let unsupported = PlanError::UnsupportedTypes {
        operand: options.operand,
        partials,
    };
    let types = AmpTypes::of(options.operand, partials)
        .filter(|types| types.units(spec) > 0)
        .ok_or(unsupported)?;
    let mut forms = Vec::new();
    // A vertex may write the narrower output at once if it sums all channels in one go.
    if k <= types.weights_per_unit(spec)
        && options.output.size() < partials.size()
        && let Some(narrow) = AmpTypes::of(options.operand, options.output)
    {
        forms.extend(forms_of(narrow, options.pass, spec));
    }
    forms.extend(forms_of(types, options.pass, spec));
    Ok(forms)
}

/// Forms with these types: all units or, where there are more, only 8 of them.
fn forms_of(types: AmpTypes, pass: Pass, spec: &TileSpec) -> Vec<VertexForm> {
    let all_units = types.units(spec);
    let weights = types.weights_per_unit(spec);
    let mut forms: Vec<VertexForm> = Vec::new();
    for units in [all_units, 8] {
        if units > all_units || units == 0 {
            continue;
        }
        for out_channels_per_group in [all_units, weights, 8] {
            let allowed = out_channels_per_group == units
                || out_channels_per_group == weights * units / all_units;
            // Fully connected inference rearranges its output whatever the grouping is.
            let pointless = pass == Pass::InferenceFwd && out_channels_per_group != units;
            let form = VertexForm {
                amp: AmpVertex {
                    types,
                    units,
                    out_channels_per_group,
                },
                in_channels_per_group: weights,
            };
            let whole = out_channels_per_group.is_multiple_of(units);
            if allowed && whole && !pointless && !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

fn wider(a: DType, b: DType) -> DType {
    if b.size() > a.size() { b } else { a }
}

impl<'a> Problem<'a> {
    fn new(
        shape: &MatMulShape,
        options: &PlanOptions,
        spec: &'a TileSpec,
        swap_operands: bool,
        vertex: VertexForm,
    ) -> Self {
        let (field, out_channels) = if swap_operands {
            (shape.n, shape.m)
        } else {
            (shape.m, shape.n)
        };
        let in_channels = shape.k;
        let out_channels_per_group = vertex.amp.out_channels_per_group;
        let pass = options.pass;
        let pad_in = !in_channels.is_multiple_of(vertex.in_channels_per_group);
        let pad_out = !out_channels.is_multiple_of(out_channels_per_group);
        let weights_per_unit = vertex.amp.types.weights_per_unit(spec);
        let rearrange = Rearrange {
            input: !swap_operands || pad_in || matches!(pass, Pass::TrainingBwd | Pass::TrainingWu),
            weights: !swap_operands || pad_in || pad_out,
            output: !swap_operands || pad_out || pass == Pass::TrainingWu,
            regroup_output: !pass.is_fully_connected()
                && out_channels_per_group != weights_per_unit,
        };
        Problem {
            spec,
            pass,
            swap_operands,
            vertex,
            output: options.output,
            groups: shape.groups,
            field,
            in_channels,
            out_channels,
            in_grains: in_channels.div_ceil(vertex.in_channels_per_group),
            out_grains: out_channels.div_ceil(out_channels_per_group),
            rearrange,
            reading: Reading::default(),
        }
    }

    /// Channels in after padding.
    pub(super) fn padded_in(&self) -> u64 {
        self.in_grains * self.vertex.in_channels_per_group
    }

    /// Channels out after padding.
    pub(super) fn padded_out(&self) -> u64 {
        self.out_grains * self.vertex.amp.out_channels_per_group
    }

    /// Most useful multiplications a cycle first, then least padding, then narrow partials.
    fn compare_promise(&self, other: &Self) -> Ordering {
        // Useful share of the work as a fraction, and peak rate by the source's formula,
        // which overstates that of f32 operands.
        let useful = |p: &Self| u128::from(p.in_channels * p.out_channels);
        let padded = |p: &Self| u128::from(p.padded_in() * p.padded_out());
        let rate = |p: &Self| {
            let amp = p.vertex.amp;
            let units = amp.types.units(p.spec).min(amp.out_channels_per_group);
            u128::from(units * p.spec.vector_width(amp.types.operand().size()))
        };
        let (mine, theirs) = (useful(self) * padded(other), useful(other) * padded(self));
        let partials = |p: &Self| p.vertex.amp.types.partials().size();
        (rate(other) * theirs)
            .cmp(&(rate(self) * mine))
            .then(theirs.cmp(&mine))
            .then(partials(self).cmp(&partials(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gc200, options, shape};
    use super::*;

    /// `(units, channels out, channels in)` of a group, and types, in order of trial.
    #[test]
    fn forms() {
        let check = |types: [DType; 3], pass, k, expect: &[(AmpTypes, u64, u64, u64)]| {
            let [operand, partials, output] = types;
            let options = PlanOptions {
                operand,
                output,
                ..options(pass, partials, 0.6)
            };
            let forms = vertex_forms(k, &options, &gc200()).unwrap();
            let got: Vec<_> = forms
                .iter()
                .map(|form| {
                    let amp = form.amp;
                    let channels = (amp.out_channels_per_group, form.in_channels_per_group);
                    (amp.types, amp.units, channels.0, channels.1)
                })
                .collect();
            assert_eq!(got, expect, "{types:?}, {pass:?}, k {k}");
        };
        use AmpTypes::{F16F16, F16F32, F32F32};
        use DType::{F16, F32};
        let narrow = [(F16F16, 16, 16, 16), (F16F16, 8, 8, 16)];
        let wide = [(F16F32, 8, 8, 16), (F16F32, 8, 16, 16)];
        let f32 = [(F32F32, 16, 16, 8), (F32F32, 8, 8, 8)];
        check([F16, F16, F16], Pass::None, 64, &narrow);
        check([F16, F32, F16], Pass::None, 64, &wide);
        check([F32, F32, F32], Pass::None, 64, &f32);
        // Partials are as wide as the output.
        check([F16, F16, F32], Pass::None, 64, &wide);
        // Inference wants as many channels as units.
        check([F16, F32, F16], Pass::InferenceFwd, 64, &wide[..1]);
        // One block of channels in needs no partials.
        let all = [narrow, wide].concat();
        check([F16, F32, F16], Pass::None, 16, &all);
        check([F16, F32, F16], Pass::None, 17, &wide);
    }

    /// Operand order first, then useful multiplications a cycle, then padding.
    #[test]
    fn order_of_trial() {
        let check = |m, n, expect: [(bool, u64); 4]| {
            let options = options(Pass::None, DType::F16, 0.6);
            let spec = gc200();
            let problems = problems(&shape([1, m, 64, n]), &options, &spec).unwrap();
            let got: Vec<_> = problems
                .iter()
                .map(|p| (p.swap_operands, p.vertex.amp.out_channels_per_group))
                .collect();
            assert_eq!(got, expect, "m {m}, n {n}");
        };
        check(16, 16, [(true, 16), (true, 8), (false, 16), (false, 8)]);
        // 8 of 16 channels are worth as much as 8 of 8, but padded.
        check(8, 16, [(true, 8), (true, 16), (false, 16), (false, 8)]);
    }
}
