//! Runs a lowered program with values by tensor.
//!
//! A tensor is row-major; its variable on the device may have other axes in another order.
//! The view that the lowering gives says which element is which.

use std::collections::{BTreeMap, VecDeque};

use ipu_sim::execute::{self, Host, Memory, RemoteMemory, StreamError};
use ipu_sim::ids::ReplicaId;
use ipu_sim::numerics::DType;
use ipu_sim::program::{Program, Step, StreamId};
use ipu_sim::view::View;
use popart_graph::ir::{Constant, TensorId};
use popart_graph::lower::Lowered;

use crate::{Result, Results, Tensors};

/// What the host sends, in order, by tensor.
pub type Feeds = BTreeMap<TensorId, VecDeque<Vec<f64>>>;

/// The only replica.
const REPLICA: ReplicaId = ReplicaId(0);

/// Runs a program of one replica once, from first values of its variables.
///
/// # Errors
/// The program can't be executed, or doesn't read all that the host sends.
pub fn run(lowered: &Lowered, variables: &Tensors, feeds: Feeds) -> Result<Results> {
    let program = &lowered.program;
    let mut memory = Memory::new(program)?;
    let mut remote = RemoteMemory::new(program);
    fill_copied(program, &program.steps, &mut memory)?;
    for (tensor, view) in &lowered.variables {
        let values = &variables[tensor];
        let mut stored = vec![0.0; values.len()];
        for (place, &value) in places(lowered, view, values.len()).zip(values) {
            stored[place] = value;
        }
        memory.write(REPLICA, view.var, &stored)?;
    }
    for &(var, constant) in &lowered.constants {
        let n = program.elements_of(var).0;
        let values: Vec<f64> = match constant {
            Constant::Splat(value) => vec![value; n as usize],
            Constant::Iota => (0..n).map(|index| index as f64).collect(),
        };
        memory.write(REPLICA, var, &values)?;
    }
    let mut host = Streams {
        lowered,
        feeds,
        received: Tensors::new(),
    };
    execute::run(&mut memory, &mut host, &mut remote)?;
    if let Some((tensor, _)) = host.feeds.iter().find(|(_, rest)| !rest.is_empty()) {
        return Err(format!("{tensor:?} was not read to its end").into());
    }
    let mut results = Results {
        outputs: host.received,
        variables: Tensors::new(),
    };
    for (tensor, view) in &lowered.variables {
        let stored = memory.read(REPLICA, view.var)?;
        let values = places(lowered, view, stored.len()).map(|place| stored[place]);
        results.variables.insert(*tensor, values.collect());
    }
    Ok(results)
}

/// Writes what is no number over all that IPUs copy to each other.
///
/// A pipeline cycle copies the results of all stages, also of those that haven't run yet (PopART,
/// `popprograms.cpp`): what lies there must not reach any result.
fn fill_copied(program: &Program, steps: &[Step], memory: &mut Memory<'_>) -> Result<()> {
    for step in steps {
        match step {
            Step::IpuCopies { copies, .. } => {
                for copy in copies {
                    let n = program.elements_of(copy.src).0 as usize;
                    let nothing = match program.vars[copy.src].dtype {
                        DType::U32 => f64::from(u32::MAX),
                        DType::F16 | DType::F32 => f64::NAN,
                    };
                    memory.write(REPLICA, copy.src, &vec![nothing; n])?;
                }
            }
            Step::Repeat { body, .. } => fill_copied(program, body, memory)?,
            _ => {}
        }
    }
    Ok(())
}

/// Where the elements of a tensor are in its variable, in row-major order of both.
fn places(lowered: &Lowered, view: &View, n: usize) -> impl Iterator<Item = usize> {
    let shape = lowered.program.shape_of(view.var);
    let extents = view.shape.extents();
    (0..n).map(move |number| {
        let mut rest = number as u32;
        let mut index = vec![0; extents.len()];
        for (axis, &extent) in extents.iter().enumerate().rev() {
            index[axis] = rest % extent;
            rest /= extent;
        }
        let at = view.shape.locate(&index);
        let place = at
            .iter()
            .zip(&shape)
            .fold(0, |sum, (&at, &extent)| sum * extent + at);
        place as usize
    })
}

/// The host's end of the streams.
struct Streams<'a> {
    lowered: &'a Lowered,
    feeds: Feeds,
    received: Tensors,
}

impl Host for Streams<'_> {
    fn read(
        &mut self,
        _: ReplicaId,
        stream: StreamId,
    ) -> std::result::Result<Vec<f64>, StreamError> {
        let tensor = tensor_of(&self.lowered.inputs, stream)?;
        let feed = self.feeds.get_mut(&tensor);
        feed.ok_or(StreamError::NotConnected)?
            .pop_front()
            .ok_or(StreamError::Exhausted)
    }

    fn write(
        &mut self,
        _: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> std::result::Result<(), StreamError> {
        let tensor = tensor_of(&self.lowered.outputs, stream)?;
        self.received.entry(tensor).or_default().extend(values);
        Ok(())
    }
}

fn tensor_of(
    streams: &[(TensorId, StreamId)],
    stream: StreamId,
) -> std::result::Result<TensorId, StreamError> {
    let found = streams.iter().find(|(_, id)| *id == stream);
    found.map(|&(id, _)| id).ok_or(StreamError::NotConnected)
}
