//! The tile memory of all replicas.

use std::sync::Arc;

use super::error::ExecuteError;
use super::float::{FloatControl, FloatException};
use super::placement::Placement;
use crate::ids::{Id, IdVec, ReplicaId, TileId};
use crate::numerics::DType;
use crate::program::{LayoutId, Program, SourceId, VarId};

/// The elements of a variable on all its tiles, cell by cell in storage order.
///
/// They take memory from the first that is written on.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Element type that values are rounded to.
    pub dtype: DType,
    /// Which elements are padding: zero, as if they were written.
    padding: Arc<[bool]>,
    cells: Option<Cells>,
}

#[derive(Clone, Debug)]
struct Cells {
    values: Vec<f64>,
    written: Vec<bool>,
}

impl Cells {
    #[cold]
    fn new(padding: &[bool]) -> Self {
        Self {
            values: vec![0.0; padding.len()],
            written: padding.to_vec(),
        }
    }
}

impl Store {
    /// The element at `offset`, if it was written.
    #[inline]
    pub(super) fn get(&self, offset: usize) -> Option<f64> {
        match &self.cells {
            Some(cells) => cells.written[offset].then(|| cells.values[offset]),
            None => self.padding[offset].then_some(0.0),
        }
    }

    /// Rounds `value` to nearest and stores it.
    #[inline]
    pub(super) fn set(&mut self, offset: usize, value: f64) {
        self.put(offset, self.dtype.round(value));
    }

    /// Stores a value of the store's type.
    #[inline]
    pub(super) fn put(&mut self, offset: usize, value: f64) {
        let padding = &self.padding;
        let cells = self.cells.get_or_insert_with(|| Cells::new(padding));
        cells.values[offset] = value;
        cells.written[offset] = true;
    }
}

/// Which elements of a variable are padding.
fn padding(placement: &Placement) -> Arc<[bool]> {
    let mut padding = vec![true; placement.len];
    for cell in &placement.cells {
        placement.for_each(cell.number, |offset, _| padding[cell.base + offset] = false);
    }
    padding.into()
}

/// Where every variable of a program lies.
#[derive(Clone, Debug)]
pub(super) struct Atlas<'p> {
    pub program: &'p Program,
    placements: IdVec<LayoutId, Placement>,
}

impl<'p> Atlas<'p> {
    fn new(program: &'p Program) -> Result<Self, ExecuteError> {
        let placements = program
            .layouts
            .iter()
            .enumerate()
            .map(|(position, layout)| {
                Placement::new(layout).map_err(|tile| ExecuteError::SharedTile {
                    layout: LayoutId::from_index(position),
                    tile,
                })
            })
            .collect::<Result<IdVec<_, _>, _>>()?;
        Ok(Self {
            program,
            placements,
        })
    }

    /// Where the elements of `var` lie.
    pub(super) fn placement(&self, var: VarId) -> &Placement {
        &self.placements[self.program.vars[var].layout]
    }

    /// The name of a variable.
    pub(super) fn name(&self, var: VarId) -> String {
        self.program.vars[var].name.clone()
    }

    /// The name of what a step belongs to.
    pub(super) fn step(&self, source: SourceId) -> &'p str {
        &self.program.source(source).name
    }

    /// The error of an exception.
    #[cold]
    pub(super) fn raised(
        &self,
        step: &str,
        (var, tile): (VarId, TileId),
        exception: FloatException,
    ) -> ExecuteError {
        ExecuteError::Float {
            step: step.to_owned(),
            variable: self.name(var),
            tile,
            exception,
        }
    }

    #[cold]
    fn unwritten(&self, var: VarId, offset: usize) -> ExecuteError {
        ExecuteError::Unwritten {
            variable: self.name(var),
            tile: self.placement(var).tile_at(offset),
        }
    }
}

/// The tile memory of one replica, by variable.
pub(super) type Stores = IdVec<VarId, Store>;

/// The element of `var` at `offset` of its array.
#[inline]
pub(super) fn get(
    atlas: &Atlas<'_>,
    stores: &Stores,
    var: VarId,
    offset: usize,
) -> Result<f64, ExecuteError> {
    stores[var]
        .get(offset)
        .ok_or_else(|| atlas.unwritten(var, offset))
}

/// The tile memory of all replicas of a program, with the values of its variables.
///
/// Every variable has memory of its own: that some share theirs on the machine, because
/// they don't live at the same time, changes no value. What was never written takes none.
#[derive(Clone, Debug)]
pub struct Memory<'p> {
    pub(super) atlas: Atlas<'p>,
    pub(super) replicas: IdVec<ReplicaId, Stores>,
    pub(super) control: FloatControl,
    /// Compute sets and collectives that have run.
    pub(super) launches: u64,
}

impl<'p> Memory<'p> {
    /// Memory of the same program on tiles that round, and stop, as `control` says.
    #[must_use]
    pub fn with_float_control(self, control: FloatControl) -> Self {
        Self { control, ..self }
    }

    /// Numbers a compute set or collective that is about to run.
    pub(super) fn launch(&mut self) -> u64 {
        self.launches += 1;
        self.launches
    }

    /// Memory for all variables of `program`, with nothing written.
    ///
    /// # Errors
    ///
    /// If a layout puts two boxes on one tile, or the program is nested too deep.
    pub fn new(program: &'p Program) -> Result<Self, ExecuteError> {
        program.check_depth().map_err(ExecuteError::TooDeep)?;
        let atlas = Atlas::new(program)?;
        let padding: IdVec<LayoutId, Arc<[bool]>> =
            atlas.placements.values().map(padding).collect();
        let vars = program.vars.values();
        let stores = vars.map(|variable| Store {
            dtype: variable.dtype,
            padding: Arc::clone(&padding[variable.layout]),
            cells: None,
        });
        let stores: Stores = stores.collect();
        Ok(Self {
            replicas: (0..program.n_replicas).map(|_| stores.clone()).collect(),
            atlas,
            control: FloatControl::default(),
            launches: 0,
        })
    }

    /// Writes a variable of one replica on all its tiles, rounded to its element type.
    ///
    /// `values` are in logical order, last axis fastest.
    ///
    /// # Errors
    ///
    /// If there are more or fewer values than elements.
    pub fn write(
        &mut self,
        replica: ReplicaId,
        var: VarId,
        values: &[f64],
    ) -> Result<(), ExecuteError> {
        let stored = self.to_storage(var, values)?;
        self.write_storage(replica, var, &stored);
        Ok(())
    }

    /// Reads a variable of one replica, in logical order, last axis fastest.
    ///
    /// # Errors
    ///
    /// If an element was never written, or copies of it differ.
    pub fn read(&self, replica: ReplicaId, var: VarId) -> Result<Vec<f64>, ExecuteError> {
        let stored = self.read_storage(replica, var)?;
        let placement = self.atlas.placement(var);
        let mut values = vec![0.0; placement.elements()];
        let mut base = 0;
        for number in 0..placement.boxes.len() {
            placement.for_each(number, |offset, linear| {
                values[linear] = stored[base + offset];
            });
            base += placement.boxes[number].stored;
        }
        Ok(values)
    }

    /// Values in the order in which `var` stores them: box by box, padding zero, one copy.
    ///
    /// This is the order of a buffer in streaming memory. `values` are in logical order.
    ///
    /// # Errors
    ///
    /// If there are more or fewer values than elements.
    pub fn to_storage(&self, var: VarId, values: &[f64]) -> Result<Vec<f64>, ExecuteError> {
        let placement = self.atlas.placement(var);
        if values.len() != placement.elements() {
            return Err(ExecuteError::Length {
                variable: self.atlas.name(var),
                expected: placement.elements(),
                got: values.len(),
            });
        }
        let mut stored = Vec::new();
        for (number, table) in placement.boxes.iter().enumerate() {
            let base = stored.len();
            stored.resize(base + table.stored, 0.0);
            placement.for_each(number, |offset, linear| {
                stored[base + offset] = values[linear];
            });
        }
        Ok(stored)
    }

    /// One copy of a variable in storage order, padding included.
    pub(super) fn read_storage(
        &self,
        replica: ReplicaId,
        var: VarId,
    ) -> Result<Vec<f64>, ExecuteError> {
        let placement = self.atlas.placement(var);
        let stores = &self.replicas[replica];
        let mut stored = Vec::new();
        for number in 0..placement.boxes.len() {
            let base = stored.len();
            for cell in placement.copies_of(number) {
                for offset in 0..placement.boxes[number].stored {
                    let value = get(&self.atlas, stores, var, cell.base + offset)?;
                    match stored.get(base + offset) {
                        None => stored.push(value),
                        Some(first) if first.to_bits() == value.to_bits() => {}
                        Some(_) => {
                            return Err(ExecuteError::CopiesDiffer {
                                variable: self.atlas.name(var),
                                tile: cell.tile,
                            });
                        }
                    }
                }
            }
        }
        Ok(stored)
    }

    /// Writes all copies of a variable from values in storage order, padding included.
    pub(super) fn write_storage(&mut self, replica: ReplicaId, var: VarId, stored: &[f64]) {
        let placement = self.atlas.placement(var);
        let store = &mut self.replicas[replica][var];
        let mut base = 0;
        for (number, table) in placement.boxes.iter().enumerate() {
            let values = &stored[base..base + table.stored];
            for cell in placement.copies_of(number) {
                for (offset, &value) in values.iter().enumerate() {
                    store.set(cell.base + offset, value);
                }
            }
            base += table.stored;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IpuId;
    use crate::layout::{AxisSplit, Layout};
    use crate::program::{VarKind, Variable};

    /// Asking for one value of a large machine isn't the moment to take memory for all others.
    #[test]
    fn only_what_is_written_takes_memory() {
        let mut program = Program::new(1, 64);
        let layout = program.add_layout(Layout::row_major(vec![AxisSplit::whole(100)]));
        for name in ["x", "y"] {
            program.vars.push(Variable {
                name: name.into(),
                dtype: DType::F32,
                ipu: IpuId(0),
                layout,
                kind: VarKind::Weight,
            });
        }
        let mut memory = Memory::new(&program).unwrap();
        let taken = |memory: &Memory<'_>| {
            let stores = memory.replicas.values().flat_map(IdVec::values);
            stores.filter(|store| store.cells.is_some()).count()
        };
        let (var, replica) = (VarId(1), ReplicaId(63));
        memory.read(replica, var).unwrap_err();
        assert_eq!(taken(&memory), 0);
        memory.write(replica, var, &[1.0; 100]).unwrap();
        assert_eq!(memory.read(replica, var).unwrap(), [1.0; 100]);
        assert_eq!(taken(&memory), 1);
    }
}
