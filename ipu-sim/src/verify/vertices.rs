//! Rules of vertices: inputs, labels, constants and element types that a codelet exists for.

use super::fault::Violation;
use crate::cost::amp::AmpTypes;
use crate::numerics::DType;
use crate::program::{Label, Operand, Program, VertexGroup};
use crate::vertex::{MapOp, MatMulMethod, UnaryFn, Vertex, WorkerSeeds};

/// Checks a vertex, whose operands have labels for their axes.
pub(super) fn check(program: &Program, group: &VertexGroup) -> Result<(), Violation> {
    let ctx = Ctx {
        program,
        group,
        vertex: name(&group.vertex),
    };
    ctx.inputs()?;
    ctx.whole()?;
    ctx.labels()?;
    ctx.constants()?;
    ctx.types()
}

fn name(vertex: &Vertex) -> &'static str {
    match vertex {
        Vertex::MatMul { .. } => "a matrix product",
        Vertex::ReducePartials { .. } => "a reduction of partial results",
        Vertex::Map(_) => "a map",
        Vertex::Reduce { .. } => "a reduction",
        Vertex::Copy => "a copy",
        Vertex::Assemble => "an assembly",
        Vertex::Fill(_) => "a fill",
        Vertex::WorkerSeeds(_) => "a step with seeds of workers",
        Vertex::MultiSlice { .. } => "a multi-slice",
        Vertex::MultiUpdateAdd { .. } => "a multi-update",
        Vertex::DynamicSlice { .. } => "a dynamic slice",
        Vertex::DynamicUpdate { .. } => "a dynamic update",
    }
}

/// Inputs of a map: the fewest and the most.
fn map_inputs(op: &MapOp) -> [usize; 2] {
    match op {
        MapOp::SequenceMask { .. } => [1, 2],
        MapOp::AdamUpdater {
            decay, correction, ..
        } => [2 + usize::from(decay.is_some()) + usize::from(correction.is_some()); 2],
        MapOp::Cast
        | MapOp::Unary(_)
        | MapOp::Scale { .. }
        | MapOp::ClampedLog { .. }
        | MapOp::OneHot { .. }
        | MapOp::Counts { .. }
        | MapOp::Count { .. } => [1; 2],
        MapOp::UnaryGrad(_)
        | MapOp::Binary(_)
        | MapOp::ScaledAdd { .. }
        | MapOp::MovingAverage { .. }
        | MapOp::InverseStdDev { .. }
        | MapOp::Dropout { .. }
        | MapOp::Pick { .. }
        | MapOp::MinusIndex { .. }
        | MapOp::Blend { .. } => [2; 2],
        MapOp::SoftmaxNllGrad { .. } | MapOp::Descend { .. } => [3; 2],
        MapOp::LambUpdate { .. } => [5; 2],
    }
}

struct Ctx<'p> {
    program: &'p Program,
    group: &'p VertexGroup,
    vertex: &'static str,
}

impl Ctx<'_> {
    fn inputs(&self) -> Result<(), Violation> {
        let got = self.group.inputs.len();
        let [least, most] = match &self.group.vertex {
            Vertex::Map(op) => map_inputs(op),
            Vertex::ReducePartials { .. }
            | Vertex::Reduce { .. }
            | Vertex::Copy
            | Vertex::Assemble
            | Vertex::WorkerSeeds(WorkerSeeds::Set | WorkerSeeds::Restore) => [1; 2],
            Vertex::Fill(_) | Vertex::WorkerSeeds(WorkerSeeds::Save) => [0; 2],
            Vertex::MatMul { .. }
            | Vertex::MultiSlice { .. }
            | Vertex::MultiUpdateAdd { .. }
            | Vertex::DynamicSlice { .. }
            | Vertex::DynamicUpdate { .. } => [2; 2],
        };
        if (least..=most).contains(&got) {
            return Ok(());
        }
        let expected = match least == most {
            true => least.to_string(),
            false => format!("{least} to {most}"),
        };
        Err(Violation::Inputs {
            vertex: self.vertex,
            expected,
            got,
        })
    }

    /// Only single values, and the two words of a seed, are taken whole.
    fn whole(&self) -> Result<(), Violation> {
        let refuse = |operand: &Operand, expected| {
            Err(Violation::Whole {
                variable: self.program.vars[operand.var].name.clone(),
                expected,
            })
        };
        if self.group.output.labels.contains(&Label::WHOLE) {
            return refuse(
                &self.group.output,
                "labelled along all axes, as it is written",
            );
        }
        for (number, operand) in self.group.inputs.iter().enumerate() {
            let is_seed =
                number == 1 && matches!(self.group.vertex, Vertex::Map(MapOp::Dropout { .. }));
            let axes = self.program.layout_of(operand.var).axes.iter();
            let whole = axes
                .zip(&operand.labels)
                .filter(|(_, label)| **label == Label::WHOLE);
            let mut values = 1u64;
            for (axis, _) in whole {
                if axis.places.len() > 1 {
                    return refuse(operand, "whole on every tile");
                }
                values = values.saturating_mul(u64::from(axis.extent()));
            }
            match (is_seed, values) {
                (true, 2) | (false, 1) => {}
                (true, _) => return refuse(operand, "a seed of two words, taken whole"),
                (false, _) => return refuse(operand, "one value where it is taken whole"),
            }
        }
        Ok(())
    }

    fn labels(&self) -> Result<(), Violation> {
        let (output, inputs) = (&self.group.output, &self.group.inputs);
        match &self.group.vertex {
            Vertex::MatMul {
                groups,
                field,
                input,
                output: channels,
                ..
            } => {
                for &group in groups {
                    self.has(output, group, "among the groups of the output")?;
                    self.has(&inputs[0], group, "among the groups of the first input")?;
                    self.has(&inputs[1], group, "among the groups of the second input")?;
                }
                self.has(output, *field, "as the field of the output")?;
                self.has(&inputs[0], *field, "as the field of the first input")?;
                self.has(output, *channels, "among the channels of the output")?;
                self.has(
                    &inputs[1],
                    *channels,
                    "among the channels of the second input",
                )?;
                self.has(&inputs[0], *input, "among the channels of the first input")?;
                self.has(&inputs[1], *input, "among the channels of the second input")?;
                self.lacks(output, *input, "reduced, not in the output")
            }
            Vertex::ReducePartials { over } => {
                self.has(&inputs[0], *over, "in the partial results")?;
                self.lacks(output, *over, "reduced, not in the output")
            }
            // What the output has and the input lacks tells apart what different tiles reduce.
            Vertex::Reduce { .. } => Ok(()),
            Vertex::Map(op) => {
                for label in positions(op) {
                    self.has(output, label, "in the output")?;
                }
                inputs.iter().try_for_each(|input| self.nothing_more(input))
            }
            Vertex::Copy | Vertex::Assemble => self.nothing_more(&inputs[0]),
            Vertex::Fill(_) => Ok(()),
            Vertex::WorkerSeeds(_) => inputs.iter().try_for_each(|input| self.nothing_more(input)),
            Vertex::MultiSlice { row, .. } => {
                self.has(&inputs[0], *row, "along the rows of the table")?;
                self.lacks(output, *row, "looked up, not in the output")?;
                self.lacks(&inputs[1], *row, "looked up, not in the indices")?;
                self.nothing_more(&inputs[1])?;
                self.rest(&inputs[0], *row)
            }
            Vertex::MultiUpdateAdd { row, .. } => {
                self.has(output, *row, "along the rows of the table")?;
                self.lacks(&inputs[0], *row, "looked up, not in what is added")?;
                self.lacks(&inputs[1], *row, "looked up, not in the indices")?;
                self.all_of(&inputs[1], &inputs[0])?;
                for &label in output.labels.iter().filter(|label| *label != row) {
                    self.has(&inputs[0], label, "in what is added, as in the table")?;
                    self.lacks(&inputs[1], label, "a column, not among the indices")?;
                }
                Ok(())
            }
            Vertex::DynamicSlice { slot } => {
                self.has(&inputs[0], *slot, "along the slots")?;
                self.lacks(output, *slot, "sliced, not in the output")?;
                self.scalar(&inputs[1])?;
                self.all_of(output, &inputs[0])?;
                self.rest(&inputs[0], *slot)
            }
            Vertex::DynamicUpdate { slot } => {
                self.has(output, *slot, "along the slots")?;
                self.lacks(&inputs[0], *slot, "one slot, not in what is written")?;
                self.scalar(&inputs[1])?;
                self.nothing_more(&inputs[0])
            }
        }
    }

    fn has(
        &self,
        operand: &Operand,
        label: Label,
        expected: &'static str,
    ) -> Result<(), Violation> {
        match operand.labels.contains(&label) && label != Label::WHOLE {
            true => Ok(()),
            false => Err(self.misplaced(label, expected)),
        }
    }

    fn lacks(
        &self,
        operand: &Operand,
        label: Label,
        expected: &'static str,
    ) -> Result<(), Violation> {
        match operand.labels.contains(&label) {
            true => Err(self.misplaced(label, expected)),
            false => Ok(()),
        }
    }

    /// An input has no label that the output lacks: nothing reduces it.
    fn nothing_more(&self, input: &Operand) -> Result<(), Violation> {
        let mut loops = input.labels.iter().filter(|label| **label != Label::WHOLE);
        loops.try_for_each(|&label| self.has(&self.group.output, label, "in the output, too"))
    }

    /// `whole` has every label of `part`.
    fn all_of(&self, part: &Operand, whole: &Operand) -> Result<(), Violation> {
        let mut loops = part.labels.iter();
        loops.try_for_each(|&label| self.has(whole, label, "in the first input, too"))
    }

    /// But for `label`, an input has no label that the output lacks.
    fn rest(&self, input: &Operand, label: Label) -> Result<(), Violation> {
        let others = input.labels.iter().filter(|other| **other != label);
        others
            .filter(|other| **other != Label::WHOLE)
            .try_for_each(|&label| self.has(&self.group.output, label, "in the output, too"))
    }

    /// The number of a slot is one value, the same for all loops.
    fn scalar(&self, input: &Operand) -> Result<(), Violation> {
        let mut loops = input.labels.iter().filter(|label| **label != Label::WHOLE);
        match loops.next() {
            Some(&label) => Err(self.misplaced(label, "not along the number of the slot")),
            None => Ok(()),
        }
    }

    fn misplaced(&self, label: Label, expected: &'static str) -> Violation {
        Violation::Label {
            label,
            expected,
            vertex: self.vertex,
        }
    }

    fn constants(&self) -> Result<(), Violation> {
        let Vertex::MatMul {
            method,
            input_group,
            output_group,
            ..
        } = self.group.vertex
        else {
            return Ok(());
        };
        let mut all = vec![
            ("input channels of a block", input_group),
            ("output channels of a block", output_group),
        ];
        match method {
            MatMulMethod::Amp { units, .. } => all.push(("units", units)),
            MatMulMethod::AmpNx1 { units, rows, .. } => {
                all.extend([("units", units), ("rows of a kernel", rows)]);
            }
            MatMulMethod::VerticalMac { groups } => all.push(("groups at once", groups)),
            MatMulMethod::Slic { groups, chains } => {
                all.extend([("groups at once", groups), ("chains", chains)]);
            }
            MatMulMethod::HorizontalMac | MatMulMethod::OuterProduct => {}
        }
        match all.iter().find(|(_, value)| *value == 0) {
            Some(&(what, _)) => Err(Violation::Zero {
                what,
                vertex: self.vertex,
            }),
            None => Ok(()),
        }
    }

    /// Types that a law of [`crate::cost`] exists for.
    fn types(&self) -> Result<(), Violation> {
        let dtype = |operand: &Operand| self.program.vars[operand.var].dtype;
        let output = dtype(&self.group.output);
        let inputs: Vec<DType> = self.group.inputs.iter().map(dtype).collect();
        let is_float = |dtype: DType| dtype != DType::U32;
        let exists = match &self.group.vertex {
            Vertex::MatMul { .. } => {
                inputs[0] == inputs[1] && AmpTypes::of(inputs[0], output).is_some()
            }
            Vertex::ReducePartials { .. } => is_float(inputs[0]) && is_float(output),
            Vertex::Map(op) => match op {
                MapOp::Dropout { .. } => is_float(output),
                MapOp::Unary(UnaryFn::Gelu) => is_float(output) || is_float(inputs[0]),
                _ => true,
            },
            Vertex::MultiUpdateAdd { .. } => is_float(output),
            Vertex::WorkerSeeds(_) => output == DType::U32,
            Vertex::Reduce { .. }
            | Vertex::Copy
            | Vertex::Assemble
            | Vertex::Fill(_)
            | Vertex::MultiSlice { .. }
            | Vertex::DynamicSlice { .. }
            | Vertex::DynamicUpdate { .. } => true,
        };
        if exists {
            return Ok(());
        }
        let types = std::iter::once(output).chain(inputs).collect();
        Err(Violation::Types {
            vertex: self.vertex,
            types,
        })
    }
}

/// Labels along which the result of a map depends on the position.
fn positions(op: &MapOp) -> Vec<Label> {
    match op {
        MapOp::OneHot { class }
        | MapOp::Pick { class }
        | MapOp::MinusIndex { class }
        | MapOp::SoftmaxNllGrad { class, .. } => vec![*class],
        MapOp::SequenceMask { position, .. } => vec![*position],
        MapOp::Dropout { strides, .. } => (0..)
            .zip(strides)
            .filter(|(_, stride)| **stride != 0)
            .map(|(label, _)| Label(label))
            .collect(),
        _ => Vec::new(),
    }
}
