//! What a well-formed program is.
//!
//! [`verify`] runs before a program is loaded and before it is timed, so that what is wrong with
//! one that was written by hand, or by a compiler with a bug, is said in words. These are the
//! rules, in the order in which they are checked:
//!
//! 0. Repeats and calls are nested at most [`DEPTH_MAX`](crate::program::DEPTH_MAX) deep.
//! 1. Every id is that of something the program has.
//! 2. Variables, and steps of one IPU, are on IPUs of the replica.
//! 3. Every axis of a layout is cut into parts that follow each other and fill their places;
//!    copies ascend from 0; storage loops name one position for every element.
//! 4. No tile holds two boxes of a layout, and all are tiles of the machine; a box takes less
//!    than 4 GiB.
//! 5. No function calls itself.
//! 6. A stream holds at least one element, and all of its transfers have one size, one direction and
//!    one IPU.
//! 7. A buffer of streaming memory is used on one IPU-Machine, by variables that fit it.
//! 8. A vertex has its inputs, labels, constants and element types; its operands are on its IPU;
//!    no group of a compute set uses what another one writes.
//! 9. Wherever a vertex runs, its operands have boxes of the same indices of every label that they
//!    share, and what it takes whole is whole there.
//! 10. An exchange is between variables of its IPU, of one type, and views that show what their
//!     variables have and fit together; it moves less than 4 GiB.
//! 11. A copy between IPUs is between two, of variables of one layout and type.
//! 12. Source and destination of a collective are on one IPU and of one type; an all-reduce has
//!     one layout, and shards are a replica's share of their boxes.
//!
//! That a run takes fewer than 2^62 cycles is known only when its steps have their costs, and
//! checked by [`crate::engine`].
//!
//! Left out: whether a program fits in memory ([`crate::weigh`]), whether the machine has enough
//! IPUs ([`ReplicaPlacement`]), and what only values
//! decide, such as reading what was never written ([`crate::execute`]).

mod compute;
mod fault;
mod layouts;
mod moves;
mod vertices;

pub use fault::{BadProgram, Location, StepLocation, VerifyError, Violation};

use crate::ids::{Id, IdVec, IpuId};
use crate::program::{
    FunctionId, Program, RemoteBufferId, SourceId, Step, StreamId, Transfer, VarId, nested,
};
use crate::replica::ReplicaPlacement;
use crate::spec::MachineSpec;
use crate::topology::{HostDirection, Topology};
use compute::OperandLayouts;
use fault::{At, Checked, broken, source_of};

impl Program {
    /// Checks every rule of [`crate::verify`] for `machine`.
    ///
    /// # Errors
    ///
    /// As [`verify`].
    pub fn verify(&self, machine: &MachineSpec) -> Result<(), VerifyError> {
        verify(self, machine)
    }
}

/// Checks every rule of the module's list.
///
/// # Errors
///
/// [`VerifyError::BadProgram`] for the first broken rule, with its place;
/// [`VerifyError::Replicas`] if the machine has too few IPUs or the program has no replicas.
pub fn verify(program: &Program, machine: &MachineSpec) -> Result<(), VerifyError> {
    // That a function calls itself is said later, with its name.
    if program.depth().is_some() {
        check_depth(program)?;
    }
    let topology = Topology::new(machine);
    let placement = ReplicaPlacement::new(&topology, program.n_replicas, program.n_ipus)?;
    let n_tiles = machine.tile.tiles_per_ipu;
    variables(program)?;
    every_step(program, &mut |step, at| {
        ids(program, step).map_err(|violation| bad(program, step, at, violation))
    })?;
    layouts::check(program, n_tiles)?;
    calls(program)?;
    streams(program)?;
    remote_buffers(program, &topology, placement)?;
    let mut placed = OperandLayouts::default();
    every_step(program, &mut |step, at| {
        let checked = match step {
            Step::Compute(set) => compute::check(program, set).inspect(|()| {
                let here = Here {
                    function: at.function,
                    source: Some(set.source),
                };
                placed.add(program, set, at.numbers, here);
            }),
            Step::Exchange(exchange) => moves::exchange(program, exchange),
            Step::IpuCopies { copies, .. } => moves::ipu_copies(program, copies),
            Step::Transfers { transfers, .. } => moves::transfers(program, transfers),
            Step::Collective(collective) => moves::collective(program, collective),
            Step::Repeat { .. } | Step::Call(_) | Step::Section(_) => Ok(()),
        };
        checked.map_err(|violation| bad(program, step, at, violation))
    })?;
    placed.check(program, n_tiles)?;
    Ok(())
}

/// Checks the rule of depth.
///
/// # Errors
///
/// [`Violation::TooDeep`], also where a function calls itself.
pub(crate) fn check_depth(program: &Program) -> Checked {
    let too_deep = |error| broken(Location::Program, Violation::TooDeep(error));
    program.check_depth().map_err(too_deep)
}

/// Where a step is, beside its numbers.
#[derive(Clone, Copy, Debug)]
struct Here {
    function: Option<FunctionId>,
    source: Option<SourceId>,
}

impl Here {
    fn at(self, numbers: &[usize]) -> At<'_> {
        At {
            numbers,
            function: self.function,
        }
    }
}

fn bad(program: &Program, step: &Step, at: At<'_>, violation: Violation) -> Box<BadProgram> {
    let place = at.place(program, source_of(step));
    broken(place, violation)
}

/// Visits all steps in order, those of functions first.
fn every_step<'p>(
    program: &'p Program,
    visit: &mut impl FnMut(&'p Step, At<'_>) -> Checked,
) -> Checked {
    let mut numbers = Vec::new();
    for (id, function) in program.functions.iter() {
        visit_steps(&function.steps, Some(id), &mut numbers, visit)?;
    }
    visit_steps(&program.steps, None, &mut numbers, visit)
}

fn visit_steps<'p>(
    steps: &'p [Step],
    function: Option<FunctionId>,
    numbers: &mut Vec<usize>,
    visit: &mut impl FnMut(&'p Step, At<'_>) -> Checked,
) -> Checked {
    numbers.clear();
    for (depth, step) in nested(steps) {
        numbers.truncate(depth + 1);
        match numbers.get_mut(depth) {
            Some(number) => *number += 1,
            None => numbers.push(0),
        }
        visit(step, At { numbers, function })?;
    }
    Ok(())
}

fn variables(program: &Program) -> Checked {
    for variable in program.vars.values() {
        let layout = exists("layout", variable.layout, program.layouts.len());
        let found = layout.and_then(|()| on_replica(program, variable.ipu));
        found.map_err(|violation| {
            let place = Location::Variable(variable.name.clone());
            broken(place, violation)
        })?;
    }
    Ok(())
}

fn exists(what: &'static str, id: impl Id, count: usize) -> Result<(), Violation> {
    if id.index() < count {
        return Ok(());
    }
    Err(Violation::NoSuchId {
        what,
        number: id.index() as u32,
        count,
    })
}

fn on_replica(program: &Program, ipu: IpuId) -> Result<(), Violation> {
    exists("IPU of the replica", ipu, program.n_ipus as usize)
}

/// Every id of a step, and the IPU that it runs on.
fn ids(program: &Program, step: &Step) -> Result<(), Violation> {
    let var = |id: VarId| exists("variable", id, program.vars.len());
    if let Some(source) = source_of(step) {
        exists("source", source, program.sources.len())?;
    }
    match step {
        Step::Compute(set) => {
            on_replica(program, set.ipu)?;
            for group in &set.vertices {
                var(group.output.var)?;
                group.inputs.iter().try_for_each(|input| var(input.var))?;
            }
            Ok(())
        }
        Step::Exchange(exchange) => {
            on_replica(program, exchange.ipu)?;
            let mut copies = exchange.copies.iter();
            copies.try_for_each(|copy| var(copy.src.var).and(var(copy.dst.var)))
        }
        Step::IpuCopies { copies, .. } => {
            let mut copies = copies.iter();
            copies.try_for_each(|copy| var(copy.src).and(var(copy.dst)))
        }
        Step::Transfers { transfers, .. } => {
            for transfer in transfers {
                var(transfer.var())?;
                match *transfer {
                    Transfer::HostRead { stream, .. } | Transfer::HostWrite { stream, .. } => {
                        exists("stream", stream, program.streams.len())?;
                    }
                    Transfer::RemoteLoad { buffer, .. } | Transfer::RemoteStore { buffer, .. } => {
                        exists("remote buffer", buffer, program.remote_buffers.len())?;
                    }
                }
            }
            Ok(())
        }
        Step::Collective(collective) => {
            let mut tensors = collective.tensors.iter();
            tensors.try_for_each(|tensor| var(tensor.src).and(var(tensor.dst)))
        }
        Step::Repeat { .. } => Ok(()),
        Step::Call(function) => exists("function", *function, program.functions.len()),
        Step::Section(section) => exists("section", *section, program.sections.len()),
    }
}

/// Whether calls come to an end: functions whose callees are all known to end, end.
fn calls(program: &Program) -> Checked {
    let mut callees: IdVec<FunctionId, Vec<FunctionId>> =
        program.functions.ids().map(|_| Vec::new()).collect();
    every_step(program, &mut |step, at| {
        if let (Step::Call(callee), Some(caller)) = (step, at.function) {
            callees[caller].push(*callee);
        }
        Ok(())
    })?;
    let mut callers: IdVec<FunctionId, Vec<FunctionId>> =
        program.functions.ids().map(|_| Vec::new()).collect();
    for (caller, callees) in callees.iter() {
        for &callee in callees {
            callers[callee].push(caller);
        }
    }
    let mut open: IdVec<FunctionId, usize> = callees.values().map(Vec::len).collect();
    let mut ended: Vec<FunctionId> = open
        .iter()
        .filter(|(_, open)| **open == 0)
        .map(|(id, _)| id)
        .collect();
    while let Some(callee) = ended.pop() {
        for &caller in &callers[callee] {
            open[caller] -= 1;
            if open[caller] == 0 {
                ended.push(caller);
            }
        }
    }
    match open.iter().find(|(_, open)| **open > 0) {
        Some((id, _)) => {
            let place = Location::Function(program.functions[id].name.clone());
            Err(broken(place, Violation::Recursion))
        }
        None => Ok(()),
    }
}

/// What all transfers of a stream have to share: Poplar's streams have one type and length.
fn streams(program: &Program) -> Checked {
    let refuse = |stream: StreamId, violation| {
        let place = Location::Stream(program.streams[stream].name.clone());
        Err(broken(place, violation))
    };
    let mut none = program.streams.iter();
    if let Some((stream, _)) = none.find(|(_, stream)| stream.buffering_depth == 0) {
        return refuse(stream, Violation::NoBuffer);
    }
    let mut first: IdVec<StreamId, Option<(VarId, HostDirection)>> =
        program.streams.ids().map(|_| None).collect();
    every_transfer(program, &mut |transfer| {
        let (stream, direction) = match *transfer {
            Transfer::HostRead { stream, .. } => (stream, HostDirection::In),
            Transfer::HostWrite { stream, .. } => (stream, HostDirection::Out),
            Transfer::RemoteLoad { .. } | Transfer::RemoteStore { .. } => return Ok(()),
        };
        let var = transfer.var();
        let element = |(var, direction): (VarId, HostDirection)| {
            let variable = &program.vars[var];
            (
                direction,
                variable.ipu,
                variable.dtype,
                program.elements_of(var),
            )
        };
        let known = *first[stream].get_or_insert((var, direction));
        if element(known) == element((var, direction)) {
            return Ok(());
        }
        let (first, other) = (program.vars[known.0].name.clone(), &program.vars[var].name);
        let other = other.clone();
        refuse(stream, Violation::MixedStream { first, other })
    })
}

/// A buffer lies beside one gateway, that of the IPUs that use it.
fn remote_buffers(program: &Program, topology: &Topology, placement: ReplicaPlacement) -> Checked {
    let mut users: IdVec<RemoteBufferId, Option<IpuId>> =
        program.remote_buffers.ids().map(|_| None).collect();
    every_transfer(program, &mut |transfer| {
        let (Transfer::RemoteLoad { buffer, var } | Transfer::RemoteStore { buffer, var }) =
            *transfer
        else {
            return Ok(());
        };
        let other = program.vars[var].ipu;
        let first = *users[buffer].get_or_insert(other);
        if first == other {
            return Ok(());
        }
        let beside = |replica, ipu| topology.ipu_machine(placement.ipu(replica, ipu));
        let mut replicas = placement.replicas();
        let apart = replicas.find(|&replica| beside(replica, first) != beside(replica, other));
        apart.map_or(Ok(()), |replica| {
            let place = Location::RemoteBuffer(program.remote_buffers[buffer].name.clone());
            let violation = Violation::FarBuffer {
                first,
                other,
                replica,
            };
            Err(broken(place, violation))
        })
    })
}

fn every_transfer(program: &Program, visit: &mut impl FnMut(&Transfer) -> Checked) -> Checked {
    every_step(program, &mut |step, _| match step {
        Step::Transfers { transfers, .. } => transfers.iter().try_for_each(&mut *visit),
        _ => Ok(()),
    })
}
