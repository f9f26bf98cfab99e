//! What has to be split, once operand order and vertex are fixed?
//!
//! A product becomes a 1x1 convolution (PopLibs, `lib/poplin/MatMul.cpp`): the input has a
//! field and channels in, the coefficients channels in and out. Swapping the operands
//! swaps the roles of field and channels out. Channels are padded to whole groups.

use std::cmp::Ordering;

use ipu_sim::cost::amp::AmpTypes;
use ipu_sim::cost::mac::horizontal_out_channels;
use ipu_sim::cost::matmul::MatMulVertex;
use ipu_sim::cost::slic::SlicVertex;
use ipu_sim::numerics::DType;
use ipu_sim::spec::TileSpec;
use ipu_sim::vertex::MatMulMethod;

use super::{JointPass, MatMulShape, Pass, PlanError, PlanOptions};

/// One operand order with one vertex: what the splits are searched for.
#[derive(Clone, Debug)]
pub(super) struct Problem<'a> {
    pub(super) spec: &'a TileSpec,
    pub(super) pass: Pass,
    pub(super) swap_operands: bool,
    pub(super) vertex: MatMulVertex,
    /// Type of the result; operands and partials are those of the vertex.
    pub(super) output: DType,
    pub(super) field: u64,
    /// The field is cut in so many positions.
    pub(super) field_grain: u64,
    /// Channels before padding.
    pub(super) in_channels: u64,
    pub(super) out_channels: u64,
    /// Groups of groups, as many as the vertex takes at once.
    pub(super) group_grains: u64,
    /// Groups of channels after padding.
    pub(super) in_grains: u64,
    pub(super) out_grains: u64,
    pub(super) rearrange: Rearrange,
    /// Which pass of a joint plan this is, if it is one.
    pub(super) joint: Option<JointPass>,
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
            .map(|&vertex| Problem::new(shape, options, spec, swap_operands, vertex, None))
            .collect();
        tried.sort_by(Problem::compare_promise);
        problems.append(&mut tried);
    }
    Ok(problems)
}

/// Vertex forms that suit `k` channels in, in the order in which the planner lists them
/// (PopLibs, `lib/poplin/ConvVertexType.cpp`).
pub(super) fn vertex_forms(
    k: u64,
    options: &PlanOptions,
    spec: &TileSpec,
) -> Result<Vec<MatMulVertex>, PlanError> {
    let partials = wider(options.partials, options.output);
    let unsupported = PlanError::UnsupportedTypes {
        operand: options.operand,
        partials,
    };
    let types = AmpTypes::of(options.operand, partials)
        .filter(|types| types.units(spec) > 0)
        .ok_or(unsupported)?;
    let weights = types.weights_per_unit(spec);
    let mut forms = Vec::new();
    // A vertex may write the narrower output at once if it sums all channels in one go.
    if k <= weights
        && options.output.size() < partials.size()
        && let Some(narrow) = AmpTypes::of(options.operand, options.output)
    {
        let whole = |form: &MatMulVertex| k.next_multiple_of(form.in_channels_per_group) == weights;
        forms.extend(amp_forms(narrow, options, spec).into_iter().filter(whole));
    }
    forms.extend(amp_forms(types, options, spec));
    if !options.pass.is_fully_connected() {
        forms.extend(slic_forms(types, spec));
    }
    forms.extend(horizontal_forms(types, k));
    forms.extend(vertical_forms(types));
    // Of one channel in; it writes its results in the type of the operands.
    if k == 1
        && let Some(types) = AmpTypes::of(options.operand, options.operand)
        && options.output.size() <= types.partials().size()
    {
        forms.push(MatMulVertex {
            method: MatMulMethod::OuterProduct,
            types,
            in_channels_per_group: 1,
            out_channels_per_group: spec.vector_width(options.operand.size()),
        });
    }
    Ok(forms)
}

/// The matrix unit with these types: all units or, where there are more, only 8 of them;
/// as many channels in as fill a chain, or half or a quarter of them.
fn amp_forms(types: AmpTypes, options: &PlanOptions, spec: &TileSpec) -> Vec<MatMulVertex> {
    let load = options.weight_load;
    let all_units = types.units(spec);
    let weights = types.weights_per_unit(spec);
    let aligned = spec.vector_width(types.operand().size());
    let mut forms: Vec<MatMulVertex> = Vec::new();
    for units in [all_units, 8] {
        if units > all_units || units == 0 {
            continue;
        }
        let divides = |channels: &u64| weights.is_multiple_of(*channels);
        for in_channels_per_group in (aligned..=weights).rev().filter(divides) {
            for out_channels_per_group in [all_units, weights, 8] {
                let allowed = out_channels_per_group == units
                    || out_channels_per_group == weights * units / all_units;
                // Fully connected inference rearranges its output whatever the grouping is.
                let pointless =
                    options.pass == Pass::InferenceFwd && out_channels_per_group != units;
                let units = units as u32;
                let rows = (weights / in_channels_per_group) as u32;
                let form = MatMulVertex {
                    method: match rows {
                        1 => MatMulMethod::Amp { units, load },
                        rows => MatMulMethod::AmpNx1 { units, rows, load },
                    },
                    types,
                    in_channels_per_group,
                    out_channels_per_group,
                };
                let whole = out_channels_per_group.is_multiple_of(u64::from(units));
                if allowed && whole && !pointless && !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
    }
    forms
}

/// SLIC takes f16 operands; all its groupings fill the window.
fn slic_forms(types: AmpTypes, spec: &TileSpec) -> Vec<MatMulVertex> {
    let full = types == AmpTypes::F16F16 && types.units(spec) == 16;
    let (chains, groups): (&[u32], &[u32]) = match types {
        AmpTypes::F32F32 => (&[], &[]),
        AmpTypes::F16F16 if full => (&[4, 2], &[1, 2, 4, 8, 16]),
        AmpTypes::F16F16 | AmpTypes::F16F32 => (&[2], &[1, 2, 4]),
    };
    let form = |chains: u32, groups: u32| {
        let channels = SlicVertex {
            types,
            groups: groups.into(),
            chains: chains.into(),
        }
        .channels();
        MatMulVertex {
            method: MatMulMethod::Slic { groups, chains },
            types,
            in_channels_per_group: channels,
            out_channels_per_group: channels,
        }
    };
    let forms = chains
        .iter()
        .flat_map(|&chains| groups.iter().map(move |&groups| form(chains, groups)));
    forms.collect()
}

/// Dot products of every length that makes fewer of them; f16 channels come in pairs.
fn horizontal_forms(types: AmpTypes, k: u64) -> Vec<MatMulVertex> {
    let grain = match types.operand() {
        DType::F16 => 2,
        DType::F32 | DType::U32 => 1,
    };
    let pairs = k.div_ceil(grain);
    let mut forms = Vec::new();
    let mut length = 1;
    while length <= pairs {
        forms.push(MatMulVertex {
            method: MatMulMethod::HorizontalMac,
            types,
            in_channels_per_group: length * grain,
            out_channels_per_group: horizontal_out_channels(types),
        });
        // The next length that makes fewer groups.
        let groups = pairs.div_ceil(length);
        length = if groups == 1 {
            pairs + 1
        } else {
            pairs.div_ceil(groups - 1)
        };
    }
    forms
}

/// As many groups as a vector has elements, or with f16 partials more.
fn vertical_forms(types: AmpTypes) -> Vec<MatMulVertex> {
    let groups: &[u32] = match types {
        AmpTypes::F32F32 => &[],
        AmpTypes::F16F16 => &[4, 8, 16],
        AmpTypes::F16F32 => &[4],
    };
    let form = |&groups: &u32| MatMulVertex {
        method: MatMulMethod::VerticalMac { groups },
        types,
        in_channels_per_group: 1,
        out_channels_per_group: 1,
    };
    groups.iter().map(form).collect()
}

fn wider(a: DType, b: DType) -> DType {
    if b.size() > a.size() { b } else { a }
}

impl<'a> Problem<'a> {
    /// One pass of the layer with the forward product `forward`, all passes of which share
    /// their cuts. Swapped operands make the weights the input, and the field, which is
    /// channels in of another pass, is cut in groups of these.
    pub(super) fn of_joint(
        forward: &MatMulShape,
        options: &PlanOptions,
        spec: &'a TileSpec,
        vertex: MatMulVertex,
        joint: JointPass,
    ) -> Self {
        let options = PlanOptions {
            pass: joint.pass(),
            ..*options
        };
        let shape = joint.product(forward);
        Self {
            field_grain: vertex.in_channels_per_group,
            ..Self::new(&shape, &options, spec, true, vertex, Some(joint))
        }
    }

    fn new(
        shape: &MatMulShape,
        options: &PlanOptions,
        spec: &'a TileSpec,
        swap_operands: bool,
        vertex: MatMulVertex,
        joint: Option<JointPass>,
    ) -> Self {
        let (field, out_channels) = if swap_operands {
            (shape.n, shape.m)
        } else {
            (shape.m, shape.n)
        };
        let in_channels = shape.k;
        let out_channels_per_group = vertex.out_channels_per_group;
        let pass = options.pass;
        let pad_in = !in_channels.is_multiple_of(vertex.in_channels_per_group);
        let pad_out = !out_channels.is_multiple_of(out_channels_per_group);
        let weights_per_unit = vertex.types.weights_per_unit(spec);
        // Passes that share their cuts leave weights, and the gradient of these, in place.
        let apart = joint.is_none();
        let gradient_in = pass == Pass::TrainingWu || (pass == Pass::TrainingBwd && apart);
        let rearrange = Rearrange {
            input: !swap_operands || pad_in || gradient_in,
            weights: !swap_operands || pad_in || pad_out,
            output: !swap_operands || pad_out || (pass == Pass::TrainingWu && apart),
            regroup_output: !pass.is_fully_connected()
                && out_channels_per_group != weights_per_unit,
        };
        Problem {
            spec,
            pass,
            swap_operands,
            vertex,
            output: options.output,
            field,
            field_grain: 1,
            in_channels,
            out_channels,
            group_grains: shape.groups.div_ceil(vertex.method.groups_at_once().into()),
            in_grains: in_channels.div_ceil(vertex.in_channels_per_group),
            out_grains: out_channels.div_ceil(out_channels_per_group),
            rearrange,
            joint,
            reading: Reading::default(),
        }
    }

    /// Groups after padding.
    pub(super) fn padded_groups(&self) -> u64 {
        self.group_grains * u64::from(self.vertex.method.groups_at_once())
    }

    /// The planner's lower bound of vertex cycles on all tiles together, whatever the splits;
    /// it also leaves out plans whose estimate is below it.
    pub(super) fn fewest_tile_cycles(&self) -> u64 {
        let macs = self.padded_groups() * self.field * self.padded_in() * self.padded_out();
        macs / self.vertex.rate_max(self.spec)
    }

    /// Channels in after padding.
    pub(super) fn padded_in(&self) -> u64 {
        self.in_grains * self.vertex.in_channels_per_group
    }

    /// Channels out after padding.
    pub(super) fn padded_out(&self) -> u64 {
        self.out_grains * self.vertex.out_channels_per_group
    }

    /// Most useful multiplications a cycle first, then least padding, then narrow partials.
    fn compare_promise(&self, other: &Self) -> Ordering {
        // Useful share of the work as a fraction.
        let useful = |p: &Self| u128::from(p.in_channels * p.out_channels);
        let padded = |p: &Self| u128::from(p.padded_in() * p.padded_out());
        let rate = |p: &Self| u128::from(p.vertex.rate_max(p.spec));
        let (mine, theirs) = (useful(self) * padded(other), useful(other) * padded(self));
        let partials = |p: &Self| p.vertex.types.partials().size();
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

    /// Codelets in the planner's order: name, units, chains or groups, channels in and out.
    #[test]
    fn forms() {
        let check = |types: [DType; 3], pass, k, expect: &[&str]| {
            let [operand, partials, output] = types;
            let options = PlanOptions {
                operand,
                output,
                ..options(pass, partials, 0.6)
            };
            let forms = vertex_forms(k, &options, &gc200()).unwrap();
            let got: Vec<String> = forms.iter().map(text).collect();
            assert_eq!(got, expect, "{types:?}, {pass:?}, k {k}");
        };
        fn text(form: &MatMulVertex) -> String {
            let partials = match form.types.partials() {
                DType::F16 => "half",
                DType::F32 | DType::U32 => "float",
            };
            let numbers = match form.method {
                MatMulMethod::Amp { units, .. } => format!("{units}"),
                MatMulMethod::AmpNx1 { units, rows, .. } => format!("{units} {rows} rows"),
                MatMulMethod::HorizontalMac | MatMulMethod::OuterProduct => String::new(),
                MatMulMethod::VerticalMac { groups } => format!("{groups}"),
                MatMulMethod::Slic { groups, chains } => format!("{groups} {chains} chains"),
            };
            let channels = (form.in_channels_per_group, form.out_channels_per_group);
            let name = form.method.name();
            format!(
                "{name} {numbers}: {} to {}, {partials}",
                channels.0, channels.1
            )
        }
        use DType::{F16, F32};
        let amp = [
            "AMP 16: 16 to 16, half",
            "AMP nx1 16 2 rows: 8 to 16, half",
            "AMP nx1 16 4 rows: 4 to 16, half",
            "AMP 8: 16 to 8, half",
            "AMP nx1 8 2 rows: 8 to 8, half",
            "AMP nx1 8 4 rows: 4 to 8, half",
        ];
        let others = [
            "horizontal MAC : 2 to 2, half",
            "horizontal MAC : 4 to 2, half",
            "vertical MAC 4: 1 to 1, half",
            "vertical MAC 8: 1 to 1, half",
            "vertical MAC 16: 1 to 1, half",
        ];
        let all = [&amp[..], &others].concat();
        check([F16, F16, F16], Pass::TrainingFwd, 4, &all);
        // Convolutions on their own try SLIC as well.
        let slic = [
            "SLIC 1 4 chains: 4 to 4, half",
            "SLIC 2 4 chains: 2 to 2, half",
            "SLIC 4 4 chains: 1 to 1, half",
            "SLIC 8 4 chains: 1 to 1, half",
            "SLIC 16 4 chains: 1 to 1, half",
            "SLIC 1 2 chains: 4 to 4, half",
            "SLIC 2 2 chains: 2 to 2, half",
            "SLIC 4 2 chains: 1 to 1, half",
            "SLIC 8 2 chains: 1 to 1, half",
            "SLIC 16 2 chains: 1 to 1, half",
        ];
        let all = [&amp[..], &slic, &others].concat();
        check([F16, F16, F16], Pass::None, 4, &all);
        let f32 = [
            "AMP 16: 8 to 16, float",
            "AMP nx1 16 2 rows: 4 to 16, float",
            "AMP nx1 16 4 rows: 2 to 16, float",
            "AMP 8: 8 to 8, float",
            "AMP nx1 8 2 rows: 4 to 8, float",
            "AMP nx1 8 4 rows: 2 to 8, float",
            "horizontal MAC : 1 to 1, float",
            "outer product : 1 to 2, float",
        ];
        check([F32, F32, F32], Pass::None, 1, &f32);
    }

    /// `(units, channels out, channels in)` of the matrix unit's forms that fill its chains.
    #[test]
    fn forms_that_fill_the_chains() {
        let check = |types: [DType; 3], pass, k, expect: &[(AmpTypes, u32, u64, u64)]| {
            let [operand, partials, output] = types;
            let options = PlanOptions {
                operand,
                output,
                ..options(pass, partials, 0.6)
            };
            let forms = vertex_forms(k, &options, &gc200()).unwrap();
            let got: Vec<_> = forms
                .iter()
                .filter_map(|form| match form.method {
                    MatMulMethod::Amp { units, .. } => Some((
                        form.types,
                        units,
                        form.out_channels_per_group,
                        form.in_channels_per_group,
                    )),
                    _ => None,
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

    /// Lengths of dot products: one for every number of them.
    #[test]
    fn dot_products_of_every_number() {
        let check = |types, k: u64, expect: &[u64]| {
            let forms = horizontal_forms(types, k);
            let lengths: Vec<u64> = forms
                .iter()
                .map(|form| form.in_channels_per_group)
                .collect();
            assert_eq!(lengths, expect, "{types:?}, {k}");
        };
        check(AmpTypes::F32F32, 7, &[1, 2, 3, 4, 7]);
        check(AmpTypes::F16F32, 7, &[2, 4, 8]);
        check(AmpTypes::F16F16, 1, &[2]);
    }

    /// Operand order first, then useful multiplications a cycle, then padding.
    #[test]
    fn order_of_trial() {
        let check = |m, n, expect: [(bool, u64); 4]| {
            let options = options(Pass::TrainingFwd, DType::F16, 0.6);
            let spec = gc200();
            let problems = problems(&shape([1, m, 64, n]), &options, &spec).unwrap();
            let is_amp = |p: &&Problem| matches!(p.vertex.method, MatMulMethod::Amp { .. });
            let got: Vec<_> = problems
                .iter()
                .filter(is_amp)
                .map(|p| (p.swap_operands, p.vertex.out_channels_per_group))
                .collect();
            assert_eq!(got, expect, "m {m}, n {n}");
            // What does less a cycle comes last.
            let amp_last = problems.iter().rposition(|p| p.swap_operands && is_amp(&p));
            let mac = |p: &Problem| p.vertex.method == MatMulMethod::HorizontalMac;
            assert!(amp_last < problems.iter().position(mac));
        };
        check(16, 16, [(true, 16), (true, 8), (false, 16), (false, 8)]);
        // 8 of 16 channels are worth as much as 8 of 8, but padded.
        check(8, 16, [(true, 8), (true, 16), (false, 16), (false, 8)]);
    }
}
