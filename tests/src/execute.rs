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

use crate::{Case, Result, Results, Tensors, shards};

/// What the host sends, in order, by replica and tensor.
pub type Feeds = BTreeMap<(ReplicaId, TensorId), VecDeque<Vec<f64>>>;

/// Runs a program once on all its replicas, from first values of its variables.
///
/// # Errors
/// The program can't be executed, doesn't read all that the host sends, or replicas end with
/// different weights.
pub fn run(case: &Case, lowered: &Lowered, feeds: Feeds) -> Result<Results> {
    let program = &lowered.program;
    let mut memory = Memory::new(program)?;
    let mut remote = RemoteMemory::new(program);
    for replica in (0..program.n_replicas).map(ReplicaId) {
        fill_copied(program, &program.steps, &mut memory, replica)?;
        write_variables(case, lowered, &mut memory, &mut remote, replica)?;
        for &(var, constant) in &lowered.constants {
            let n = program.elements_of(var).0;
            let values: Vec<f64> = match constant {
                Constant::Splat(value) => vec![value; n as usize],
                Constant::Iota => (0..n).map(|index| index as f64).collect(),
            };
            memory.write(replica, var, &values)?;
        }
    }
    let mut host = Streams {
        lowered,
        feeds,
        received: BTreeMap::new(),
    };
    execute::run(&mut memory, &mut host, &mut remote)?;
    if let Some((at, _)) = host.feeds.iter().find(|(_, rest)| !rest.is_empty()) {
        return Err(format!("{at:?} was not read to its end").into());
    }
    let mut results = Results::default();
    for ((_, tensor), values) in host.received {
        results.outputs.entry(tensor).or_default().extend(values);
    }
    results.variables = read_variables(case, lowered, &memory, &remote)?;
    Ok(results)
}

/// Gives variables their first values, on tiles and in streaming memory.
fn write_variables(
    case: &Case,
    lowered: &Lowered,
    memory: &mut Memory<'_>,
    remote: &mut RemoteMemory,
    replica: ReplicaId,
) -> Result<()> {
    let on_device = |tensor: TensorId, view: &View| {
        let values = &case.variables[&tensor];
        let n = lowered.program.elements_of(view.var).0 as usize;
        let mut stored = vec![0.0; n];
        if shards::weight_of(case, tensor).is_some() {
            assert!(values.iter().all(|&value| value == 0.0), "moments are zero");
            return stored;
        }
        for (place, &value) in places(lowered, view, values.len()).zip(values) {
            stored[place] = value;
        }
        stored
    };
    for (tensor, view) in &lowered.variables {
        memory.write(replica, view.var, &on_device(*tensor, view))?;
    }
    for (tensor, buffer, view) in &lowered.remote_variables {
        let stored = memory.to_storage(view.var, &on_device(*tensor, view))?;
        remote.write(replica, *buffer, stored);
    }
    Ok(())
}

/// Variables in logical order, shards put together.
fn read_variables(
    case: &Case,
    lowered: &Lowered,
    memory: &Memory<'_>,
    remote: &RemoteMemory,
) -> Result<Tensors> {
    let program = &lowered.program;
    // What every variable holds, as it lies on the device, on each replica.
    let mut held: BTreeMap<TensorId, (&View, Vec<Vec<f64>>)> = BTreeMap::new();
    for replica in (0..program.n_replicas).map(ReplicaId) {
        for (tensor, view) in &lowered.variables {
            let values = memory.read(replica, view.var)?;
            let on_each = held.entry(*tensor).or_insert((view, Vec::new()));
            on_each.1.push(values);
        }
        for (tensor, buffer, view) in &lowered.remote_variables {
            let stored = remote.read(replica, *buffer).ok_or("nothing was stored")?;
            let values = shards::from_storage(program, memory, view.var, stored)?;
            let on_each = held.entry(*tensor).or_insert((view, Vec::new()));
            on_each.1.push(values);
        }
    }
    let mut whole = Tensors::new();
    for (&tensor, (view, on_each)) in &held {
        let name = || &case.compiled.graph.tensors[tensor].name;
        if on_each.iter().flatten().any(|value| !value.is_finite()) {
            return Err(format!("`{}` left the range of its type", name()).into());
        }
        let (view, stored) = match shards::weight_of(case, tensor) {
            Some(weight) => {
                let view = held[&weight].0;
                (view, shards::gather(program, memory, view.var, on_each)?)
            }
            None => {
                if on_each.iter().any(|values| *values != on_each[0]) {
                    return Err(format!("`{}` differs between replicas", name()).into());
                }
                (*view, on_each[0].clone())
            }
        };
        let values = places(lowered, view, stored.len()).map(|place| stored[place]);
        whole.insert(tensor, values.collect());
    }
    Ok(whole)
}

/// Writes what is no number over all that IPUs copy to each other.
///
/// A pipeline cycle copies the results of all stages, also of those that haven't run yet (PopART,
/// `popprograms.cpp`): what lies there must not reach any result.
fn fill_copied(
    program: &Program,
    steps: &[Step],
    memory: &mut Memory<'_>,
    replica: ReplicaId,
) -> Result<()> {
    for step in steps {
        match step {
            Step::IpuCopies { copies, .. } => {
                for copy in copies {
                    let n = program.elements_of(copy.src).0 as usize;
                    let nothing = match program.vars[copy.src].dtype {
                        DType::U32 => f64::from(u32::MAX),
                        DType::F16 | DType::F32 => f64::NAN,
                    };
                    memory.write(replica, copy.src, &vec![nothing; n])?;
                }
            }
            Step::Repeat { body, .. } => fill_copied(program, body, memory, replica)?,
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
    received: BTreeMap<(ReplicaId, TensorId), Vec<f64>>,
}

impl Host for Streams<'_> {
    fn read(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
    ) -> std::result::Result<Vec<f64>, StreamError> {
        let tensor = tensor_of(&self.lowered.inputs, stream)?;
        let feed = self.feeds.get_mut(&(replica, tensor));
        feed.ok_or(StreamError::NotConnected)?
            .pop_front()
            .ok_or(StreamError::Exhausted)
    }

    fn write(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> std::result::Result<(), StreamError> {
        let tensor = tensor_of(&self.lowered.outputs, stream)?;
        self.received
            .entry((replica, tensor))
            .or_default()
            .extend(values);
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
