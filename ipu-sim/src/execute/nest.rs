//! The loops of a vertex on one tile.
//!
//! A vertex runs over the labels of its operands; on a tile a label takes the indices
//! that the operands' boxes hold, and all operands that share it must hold the same
//! ones. A [`Nest`] carries one running number per operand (its position in the
//! variable's array) plus the position in the whole output, and every step of a loop
//! adds its [`Strides`] to each of them.

use smallvec::SmallVec;

use super::error::ExecuteError;
use super::memory::Atlas;
use super::placement::Cell;
use super::strides::{Numbers, Strides};
use crate::program::{Label, VertexGroup};

/// One labelled loop of a nest.
#[derive(Clone, Debug)]
pub(super) struct Loop<'t> {
    /// Label that the loop is over.
    pub label: Label,
    /// The indices it takes, ascending.
    pub indices: &'t [u32],
    /// Numbers that each step adds.
    pub strides: Strides,
}

/// The loops of a vertex on one tile.
///
/// Number 0 is the position of the output's element, number `1 + i` that of input
/// `i`, and the last one the row-major position in the whole output.
#[derive(Clone, Debug)]
pub(super) struct Nest<'t> {
    /// The output's loops in its order, then those that only inputs have.
    pub loops: Vec<Loop<'t>>,
    /// How many of the loops are the output's.
    pub n_output: usize,
    /// Where all numbers begin.
    pub start: Numbers,
    /// Positions of what each input passes whole, relative to its number; `[0]` if nothing.
    pub whole: Vec<Vec<usize>>,
}

impl<'t> Nest<'t> {
    /// Elements of the output.
    pub(super) fn n_outputs(&self) -> usize {
        let loops = self.loops[..self.n_output].iter();
        loops.map(|each| each.indices.len()).product()
    }

    /// The loops of `group` where `cell` of its output lies.
    pub(super) fn new(
        atlas: &'t Atlas<'_>,
        step: &str,
        group: &VertexGroup,
        cell: &Cell,
    ) -> Result<Self, ExecuteError> {
        let width = group.inputs.len() + 2;
        let mut nest = Self {
            loops: Vec::new(),
            n_output: 0,
            start: SmallVec::from_elem(0, width),
            whole: Vec::with_capacity(group.inputs.len()),
        };
        let operands = std::iter::once(&group.output).chain(&group.inputs);
        for (number, operand) in operands.enumerate() {
            let placement = atlas.placement(operand.var);
            let names = || {
                let variable = atlas.name(operand.var);
                (step.to_owned(), variable, cell.tile)
            };
            let cell = placement.cell_on(cell.tile).ok_or_else(|| {
                let (step, variable, tile) = names();
                ExecuteError::MissingBox {
                    step,
                    variable,
                    tile,
                }
            })?;
            assert_eq!(
                operand.labels.len(),
                placement.shape.len(),
                "an operand has one label per axis"
            );
            nest.start[number] = cell.base;
            let mut whole = vec![0];
            for (axis, &label) in operand.labels.iter().enumerate() {
                let indices = placement.indices_of(cell, axis);
                let offsets = &placement.box_of(cell).offsets[axis];
                if label == Label::WHOLE {
                    if indices.len() != placement.shape[axis] as usize {
                        let (step, variable, tile) = names();
                        return Err(ExecuteError::NotWhole {
                            step,
                            variable,
                            tile,
                        });
                    }
                    whole = whole
                        .iter()
                        .flat_map(|start| offsets.iter().map(move |offset| start + offset))
                        .collect();
                    continue;
                }
                let Some(strides) = nest.strides_of(label, indices, width) else {
                    let (step, variable, tile) = names();
                    return Err(ExecuteError::Misaligned {
                        step,
                        variable,
                        tile,
                    });
                };
                strides.add(number, offsets.iter().copied());
                if number == 0 {
                    let stride = placement.strides[axis];
                    strides.add(width - 1, indices.iter().map(|&at| at as usize * stride));
                }
            }
            if number == 0 {
                nest.n_output = nest.loops.len();
            } else {
                nest.whole.push(whole);
            }
        }
        Ok(nest)
    }

    /// The strides of the loop `label`, made if it is new; nothing if it takes other indices.
    fn strides_of(
        &mut self,
        label: Label,
        indices: &'t [u32],
        width: usize,
    ) -> Option<&mut Strides> {
        let found = self.loops.iter().position(|known| known.label == label);
        let position = found.unwrap_or_else(|| {
            self.loops.push(Loop {
                label,
                indices,
                strides: Strides::new(indices.len(), width),
            });
            self.loops.len() - 1
        });
        let known = &mut self.loops[position];
        (known.indices == indices).then_some(&mut known.strides)
    }

    /// The strides of all loops whose label is wanted.
    pub(super) fn select(&self, wanted: impl Fn(Label) -> bool) -> Vec<&Strides> {
        self.loops
            .iter()
            .filter(|candidate| wanted(candidate.label))
            .map(|candidate| &candidate.strides)
            .collect()
    }

    /// The strides of the output's loops.
    pub(super) fn output(&self) -> Vec<&Strides> {
        let loops = self.loops[..self.n_output].iter();
        loops.map(|output| &output.strides).collect()
    }

    /// The strides of the loops that only inputs have.
    pub(super) fn reduced(&self) -> Vec<&Strides> {
        let loops = self.loops[self.n_output..].iter();
        loops.map(|reduced| &reduced.strides).collect()
    }

    /// The loop with `label`.
    pub(super) fn find(&self, label: Label) -> &Loop<'t> {
        self.loops
            .iter()
            .find(|candidate| candidate.label == label)
            .expect("a vertex names labels that its operands have")
    }
}
