//! The values on a loaded device: tiles and streaming memory of all replicas.
//!
//! Made when the first value is asked for, so that a program that is only timed takes none.

use super::error::Result;
use crate::execute::{ExecuteError, FloatControl, Memory, RemoteMemory};
use crate::ids::ReplicaId;
use crate::program::{Program, RemoteBufferId, VarId};

/// Where a variable of one replica is read or written.
#[derive(Clone, Copy)]
pub(super) struct ValueAddress {
    pub(super) replica: ReplicaId,
    pub(super) var: VarId,
    /// The buffer of streaming memory that holds it; none for tile memory.
    pub(super) buffer: Option<RemoteBufferId>,
}

/// The values of a program, if there are any yet.
pub(super) struct DeviceMemory<'p> {
    program: &'p Program,
    control: FloatControl,
    parts: Option<(Memory<'p>, RemoteMemory)>,
}

impl<'p> DeviceMemory<'p> {
    /// Nothing written.
    pub(super) fn new(program: &'p Program, control: FloatControl) -> Self {
        Self {
            program,
            control,
            parts: None,
        }
    }

    /// Tiles and streaming memory.
    pub(super) fn parts(&mut self) -> Result<(&mut Memory<'p>, &mut RemoteMemory)> {
        let parts = match self.parts.take() {
            Some(parts) => parts,
            None => {
                let tiles = Memory::new(self.program)?.with_float_control(self.control);
                (tiles, RemoteMemory::new(self.program))
            }
        };
        let (tiles, streaming) = self.parts.insert(parts);
        Ok((tiles, streaming))
    }

    /// The values of a variable, in logical order.
    pub(super) fn read(&mut self, place: ValueAddress) -> Result<Vec<f64>> {
        let program = self.program;
        let (tiles, streaming) = self.parts()?;
        let Some(buffer) = place.buffer else {
            return Ok(tiles.read(place.replica, place.var)?);
        };
        let stored = streaming.read(place.replica, buffer);
        let stored = stored.ok_or_else(|| ExecuteError::RemoteEmpty {
            buffer: program.remote_buffers[buffer].name.clone(),
            replica: place.replica,
        })?;
        let positions = positions(tiles, program, place.var)?;
        if stored.len() != positions.len() {
            return Err(ExecuteError::RemoteLength {
                buffer: program.remote_buffers[buffer].name.clone(),
                variable: program.vars[place.var].name.clone(),
                expected: positions.len(),
                got: stored.len(),
            }
            .into());
        }
        let mut values = vec![0.0; program.elements_of(place.var).0 as usize];
        for (position, &value) in positions.into_iter().zip(stored) {
            if let Some(position) = position {
                values[position] = value;
            }
        }
        Ok(values)
    }

    /// Writes a variable from values in logical order.
    pub(super) fn write(&mut self, place: ValueAddress, values: &[f64]) -> Result<()> {
        let program = self.program;
        let (tiles, streaming) = self.parts()?;
        let Some(buffer) = place.buffer else {
            return Ok(tiles.write(place.replica, place.var, values)?);
        };
        check_room(program, buffer, place.var)?;
        let dtype = program.vars[place.var].dtype;
        let rounded: Vec<f64> = values.iter().map(|&value| dtype.round(value)).collect();
        let stored = tiles.to_storage(place.var, &rounded)?;
        streaming.write(place.replica, buffer, stored);
        Ok(())
    }
}

/// For every stored element of `var`, its position in logical order; none for padding.
fn positions(tiles: &Memory<'_>, program: &Program, var: VarId) -> Result<Vec<Option<usize>>> {
    let n_elements = program.elements_of(var).0;
    // Numbers from 1, which f64 holds exactly, stored like any values: padding stays 0.
    let numbers: Vec<f64> = (1..=n_elements).map(|number| number as f64).collect();
    let stored = tiles.to_storage(var, &numbers)?;
    let positions = stored
        .iter()
        .map(|&number| (number as usize).checked_sub(1));
    Ok(positions.collect())
}

fn check_room(program: &Program, buffer: RemoteBufferId, var: VarId) -> Result<()> {
    let needed = program.bytes_of(var);
    let buffer = &program.remote_buffers[buffer];
    if buffer.bytes < needed {
        return Err(ExecuteError::RemoteTooSmall {
            buffer: buffer.name.clone(),
            variable: program.vars[var].name.clone(),
            needed,
            available: buffer.bytes,
        }
        .into());
    }
    Ok(())
}
