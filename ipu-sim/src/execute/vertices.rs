//! What each vertex computes on one tile: see [`crate::vertex::Vertex`] for the formulas.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::error::ExecuteError;
use super::float::FloatUnit;
use super::memory::{Atlas, Stores, get};
use super::nest::Nest;
use super::strides::{Numbers, walk};
use crate::ids::TileId;
use crate::numerics::DType;
use crate::program::{Label, Labels, VarId, VertexGroup};
use crate::vertex::{MapOp, Position, ReduceOp, Vertex, WorkerSeeds};

/// One vertex on one tile of one replica.
pub(super) struct VertexInstance<'r> {
    /// Where variables lie.
    pub atlas: &'r Atlas<'r>,
    /// The replica's memory.
    pub stores: &'r mut Stores,
    /// Name of what is run.
    pub step: &'r str,
    /// The vertex and its operands.
    pub group: &'r VertexGroup,
    /// Tile that the vertex runs on.
    pub tile: TileId,
    /// Loops of the vertex.
    pub nest: &'r Nest<'r>,
    /// Unit that rounds the results.
    pub float: FloatUnit,
}

/// The number of the output in a nest, and of the first two inputs.
const OUT: usize = 0;
const IN0: usize = 1;
const IN1: usize = 2;

/// A label whose value is read from memory instead of looped over.
#[derive(Clone, Copy)]
struct Indexed {
    row: Label,
    first_row: u32,
}

impl VertexInstance<'_> {
    /// Runs the vertex.
    pub(super) fn run(&mut self) -> Result<(), ExecuteError> {
        match self.group.vertex {
            Vertex::MatMul {
                input, input_group, ..
            } => self.matmul(input, input_group as usize),
            Vertex::ReducePartials { .. } => self.reduce(ReduceOp::Sum, 1.0),
            Vertex::Map(op) => self.map(op),
            Vertex::Reduce { op, scale } => self.reduce(op, scale),
            Vertex::Copy | Vertex::Assemble => self.map(MapOp::Cast),
            Vertex::Fill(value) => self.fill(value),
            Vertex::WorkerSeeds(WorkerSeeds::Save) => self.fill(0.0),
            Vertex::WorkerSeeds(WorkerSeeds::Set | WorkerSeeds::Restore) => self.map(MapOp::Cast),
            Vertex::MultiSlice { row, first_row } => self.multi_slice(Indexed { row, first_row }),
            Vertex::MultiUpdateAdd {
                row,
                first_row,
                scale,
            } => self.multi_update_add(Indexed { row, first_row }, scale),
            Vertex::DynamicSlice { slot } => self.dynamic_slice(slot),
            Vertex::DynamicUpdate { slot } => self.dynamic_update(slot),
        }
    }

    fn matmul(&mut self, input: Label, input_group: usize) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let partial = self.accumulator();
        let channels = &nest.find(input).strides;
        let is_output = |label| self.group.output.labels.contains(&label);
        let others = nest.select(|label| label != input && !is_output(label));
        walk(&nest.output(), &nest.start, &mut |at| {
            let mut sum = 0.0;
            walk(&others, at, &mut |at| {
                let mut in_block = 0;
                for step in channels.steps() {
                    let a = self.read(0, at[IN0] + step[IN0])?;
                    let b = self.read(1, at[IN1] + step[IN1])?;
                    sum = partial.round(sum + a * b);
                    in_block += 1;
                    if in_block == input_group {
                        sum = self.round(sum)?;
                        in_block = 0;
                    }
                }
                sum = self.round(sum)?;
                Ok(())
            })?;
            self.put(at[OUT], sum);
            Ok(())
        })
    }

    fn reduce(&mut self, op: ReduceOp, scale: f64) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let partial = self.accumulator();
        let reduced = nest.reduced();
        walk(&nest.output(), &nest.start, &mut |at| {
            let mut total = op.identity();
            walk(&reduced, at, &mut |at| {
                total = partial.round(op.join(total, self.read(0, at[IN0])?));
                Ok(())
            })?;
            self.write(at[OUT], total * scale)
        })
    }

    fn map(&mut self, op: MapOp) -> Result<(), ExecuteError> {
        let nest = self.nest;
        if nest.loops.len() > nest.n_output {
            return Err(ExecuteError::ExtraLabel {
                step: self.step.to_owned(),
                variable: self.atlas.name(self.group.output.var),
            });
        }
        let output = self.atlas.placement(self.group.output.var);
        let mut here = OutputPosition {
            labels: &self.group.output.labels,
            shape: &output.shape,
            strides: &output.strides,
            linear: 0,
        };
        let linear = nest.start.len() - 1;
        let mut values: SmallVec<[f64; 8]> = SmallVec::new();
        walk(&nest.output(), &nest.start, &mut |at| {
            values.clear();
            for (input, whole) in nest.whole.iter().enumerate() {
                for offset in whole {
                    values.push(self.read(input, at[IN0 + input] + offset)?);
                }
            }
            here.linear = at[linear];
            let value = op.apply(&values, &here);
            if let MapOp::MinusIndex { .. } = op {
                // An infinity that is chosen, not computed, is no exception.
                let chosen = self.dtype().round(value);
                self.put(at[OUT], chosen);
                return Ok(());
            }
            self.write(at[OUT], value)
        })
    }

    fn fill(&mut self, value: f64) -> Result<(), ExecuteError> {
        walk(&self.nest.output(), &self.nest.start, &mut |at| {
            self.write(at[OUT], value)
        })
    }

    fn multi_slice(&mut self, table: Indexed) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let rows = &nest.find(table.row).strides;
        let indexing = &self.group.inputs[1].labels;
        let outer = nest.select(|label| indexing.contains(&label));
        let inner = nest.select(|label| label != table.row && !indexing.contains(&label));
        walk(&outer, &nest.start, &mut |at| {
            let row = self.local_row(table, self.read(1, at[IN1])?);
            let start = row.map_or_else(|| Numbers::from(at), |row| rows.moved(at, row));
            walk(&inner, &start, &mut |at| {
                let value = match row {
                    Some(_) => self.read(0, at[IN0])?,
                    None => 0.0,
                };
                self.write(at[OUT], value)
            })
        })
    }

    fn multi_update_add(&mut self, table: Indexed, scale: f64) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let partial = self.accumulator();
        let rows = &nest.find(table.row).strides;
        let indexing = &self.group.inputs[1].labels;
        // Which positions of in0, relative to its start, go to which row.
        let mut updates: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        walk(
            &nest.select(|label| indexing.contains(&label)),
            &nest.start,
            &mut |at| {
                if let Some(row) = self.local_row(table, self.read(1, at[IN1])?) {
                    let from = at[IN0] - nest.start[IN0];
                    updates.entry(row).or_default().push(from);
                }
                Ok(())
            },
        )?;
        let inner = nest.select(|label| label != table.row && !indexing.contains(&label));
        for (row, sources) in updates {
            walk(&inner, &rows.moved(&nest.start, row), &mut |at| {
                let mut sum = 0.0;
                for from in &sources {
                    sum = partial.round(sum + self.read(0, at[IN0] + from)?);
                }
                let old = self.read_at(self.group.output.var, at[OUT])?;
                self.write(at[OUT], old + scale * sum)
            })?;
        }
        Ok(())
    }

    fn dynamic_slice(&mut self, label: Label) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let slot = self.slot(label, self.group.inputs[0].var)?;
        let local = slot.local.ok_or_else(|| self.no_slot(slot))?;
        let start = nest.find(label).strides.moved(&nest.start, local);
        walk(&nest.output(), &start, &mut |at| {
            let value = self.read(0, at[IN0])?;
            self.write(at[OUT], value)
        })
    }

    fn dynamic_update(&mut self, label: Label) -> Result<(), ExecuteError> {
        let nest = self.nest;
        let slot = self.slot(label, self.group.output.var)?;
        // Another tile may hold the slot.
        let Some(local) = slot.local else {
            return Ok(());
        };
        let start = nest.find(label).strides.moved(&nest.start, local);
        walk(&nest.select(|other| other != label), &start, &mut |at| {
            let value = self.read(0, at[IN0])?;
            self.write(at[OUT], value)
        })
    }

    /// The slot of `sliced` that in1 names, somewhere along the axis with `label`.
    fn slot(&self, label: Label, sliced: VarId) -> Result<Slot, ExecuteError> {
        let operands = [&self.group.output, &self.group.inputs[0]];
        let operand = operands.into_iter().find(|operand| operand.var == sliced);
        let axis = operand
            .and_then(|operand| operand.labels.iter().position(|&other| other == label))
            .expect("the sliced operand has the slot's label");
        let index = self.read(1, self.nest.start[IN1] + self.nest.whole[1][0])?;
        let slot = Slot {
            sliced,
            index,
            local: self.local(label, index),
        };
        let extent = self.atlas.placement(sliced).shape[axis];
        if index < f64::from(extent) {
            Ok(slot)
        } else {
            Err(self.no_slot(slot))
        }
    }

    fn no_slot(&self, slot: Slot) -> ExecuteError {
        ExecuteError::NoSlot {
            step: self.step.to_owned(),
            variable: self.atlas.name(slot.sliced),
            tile: self.tile,
            slot: slot.index,
        }
    }

    /// Where this tile holds the row of a table that `index` names.
    fn local_row(&self, table: Indexed, index: f64) -> Option<usize> {
        self.local(table.row, index - f64::from(table.first_row))
    }

    /// Which step of the loop `label` has `index`.
    fn local(&self, label: Label, index: f64) -> Option<usize> {
        let indices = self.nest.find(label).indices;
        let position = indices.partition_point(|&at| f64::from(at) < index);
        let found = indices.get(position)?;
        (f64::from(*found) == index).then_some(position)
    }

    /// What sums for the output are rounded to after each addition.
    fn accumulator(&self) -> Accumulator {
        match self.dtype() {
            DType::F16 | DType::F32 => Accumulator::Single,
            DType::U32 => Accumulator::Integer,
        }
    }

    fn dtype(&self) -> DType {
        self.stores[self.group.output.var].dtype
    }

    #[inline]
    fn read(&self, input: usize, offset: usize) -> Result<f64, ExecuteError> {
        self.read_at(self.group.inputs[input].var, offset)
    }

    #[inline]
    fn read_at(&self, var: VarId, offset: usize) -> Result<f64, ExecuteError> {
        let value = get(self.atlas, self.stores, var, offset)?;
        self.float.note(value);
        Ok(value)
    }

    /// Rounds a result and stores it.
    #[inline]
    fn write(&mut self, offset: usize, value: f64) -> Result<(), ExecuteError> {
        let rounded = self.round(value)?;
        self.put(offset, rounded);
        Ok(())
    }

    /// Stores what is rounded already.
    #[inline]
    fn put(&mut self, offset: usize, rounded: f64) {
        self.stores[self.group.output.var].put(offset, rounded);
        self.float.next_element();
    }

    /// `value` as the output's type stores it.
    #[inline]
    fn round(&mut self, value: f64) -> Result<f64, ExecuteError> {
        let (var, tile) = (self.group.output.var, self.tile);
        let rounded = self.float.round(self.dtype(), value);
        rounded.map_err(|exception| self.atlas.raised(self.step, (var, tile), exception))
    }
}

/// A slot of a dynamically sliced variable.
#[derive(Clone, Copy)]
struct Slot {
    sliced: VarId,
    /// As the program gave it.
    index: f64,
    /// Where this tile holds it.
    local: Option<usize>,
}

/// Registers that sums run in.
#[derive(Clone, Copy)]
enum Accumulator {
    /// f32.
    Single,
    /// Wide enough for whole numbers of 32 bits.
    Integer,
}

impl Accumulator {
    #[inline]
    fn round(self, sum: f64) -> f64 {
        match self {
            Self::Single => DType::F32.round(sum),
            Self::Integer => sum,
        }
    }
}

/// An element of the output, found by its row-major position.
struct OutputPosition<'r> {
    labels: &'r Labels,
    shape: &'r [u32],
    strides: &'r [usize],
    linear: usize,
}

impl Position for OutputPosition<'_> {
    fn index(&self, label: Label) -> u32 {
        let axis = self.labels.iter().position(|&other| other == label);
        let axis = axis.expect("position-dependent expressions name a label of the output");
        (self.linear / self.strides[axis] % self.shape[axis] as usize) as u32
    }
}
