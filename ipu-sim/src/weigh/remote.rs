//! Do the remote buffers of all replicas fit into streaming memory?

use super::{MemoryUsage, OutOfMemory};
use crate::ids::{IdVec, IpuId};
use crate::program::{Program, RemoteBufferId, Step, Transfer, nested};
use crate::replica::{ReplicaError, ReplicaPlacement};
use crate::spec::MachineSpec;
use crate::topology::Topology;
use crate::units::Bytes;

/// The buffers of a program don't fit in streaming memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of streaming memory beside IPU-Machine {ipu_machine}: expected at most {available}, \
     got {needed}"
)]
pub struct OutOfStreamingMemory {
    /// The first IPU-Machine of the device that overflows.
    pub ipu_machine: u32,
    /// Bytes of streaming memory beside it.
    pub available: Bytes,
    /// Bytes of the buffers of all replicas that lie there.
    pub needed: Bytes,
}

/// Why a device doesn't load a program.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DoesNotFit {
    /// The memory of tiles is too small.
    #[error(transparent)]
    Tiles(Box<OutOfMemory>),
    /// Streaming memory is too small.
    #[error(transparent)]
    StreamingMemory(#[from] OutOfStreamingMemory),
    /// The machine has no room for all replicas.
    #[error(transparent)]
    Replicas(#[from] ReplicaError),
}

/// Checks that a device would load a program that was weighed: streaming memory, then tiles.
///
/// # Errors
///
/// The first memory that is too small.
pub fn fits(
    program: &Program,
    machine: &MachineSpec,
    usage: &MemoryUsage,
) -> Result<(), DoesNotFit> {
    let topology = Topology::new(machine);
    let placement = ReplicaPlacement::new(&topology, program.n_replicas, program.n_ipus)?;
    check_streaming_memory(program, machine, &topology, placement)?;
    usage
        .verdict()
        .map_err(|error| DoesNotFit::Tiles(Box::new(error)))
}

/// Checks every IPU-Machine: a buffer lies in the streaming memory beside the IPUs that use it
/// (those of one IPU-Machine, says [`crate::verify`]), or, if none does, beside the first of its
/// replica.
///
/// # Errors
///
/// [`OutOfStreamingMemory`] for the first IPU-Machine that overflows.
pub(crate) fn check_streaming_memory(
    program: &Program,
    machine: &MachineSpec,
    topology: &Topology,
    placement: ReplicaPlacement,
) -> Result<(), OutOfStreamingMemory> {
    let mut users: IdVec<RemoteBufferId, Option<IpuId>> =
        program.remote_buffers.ids().map(|_| None).collect();
    for steps in program
        .functions
        .values()
        .map(|function| &function.steps)
        .chain([&program.steps])
    {
        mark(program, steps, &mut users);
    }
    let mut needed = vec![Bytes::ZERO; machine.n_machines() as usize];
    for (buffer, user) in users.iter() {
        let ipu = user.unwrap_or(IpuId(0));
        for replica in placement.replicas() {
            let place = topology.ipu_machine(placement.ipu(replica, ipu));
            let sum = &mut needed[place.0 as usize].0;
            *sum = sum.saturating_add(program.remote_buffers[buffer].bytes.0);
        }
    }
    let capacity = machine.streaming_memory.capacity;
    let over = needed.iter().position(|&needed| needed > capacity);
    over.map_or(Ok(()), |ipu_machine| {
        Err(OutOfStreamingMemory {
            ipu_machine: ipu_machine as u32,
            available: capacity,
            needed: needed[ipu_machine],
        })
    })
}

fn mark(program: &Program, steps: &[Step], users: &mut IdVec<RemoteBufferId, Option<IpuId>>) {
    for (_, step) in nested(steps) {
        let Step::Transfers { transfers, .. } = step else {
            continue;
        };
        for transfer in transfers {
            let (Transfer::RemoteLoad { buffer, var } | Transfer::RemoteStore { buffer, var }) =
                *transfer
            else {
                continue;
            };
            users[buffer].get_or_insert(program.vars[var].ipu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::RemoteBuffer;
    use crate::spec::fixtures::machine;

    #[test]
    fn buffers_fill_the_memory_of_their_ipu_machine() {
        let mut spec = machine("mk2-pod16");
        spec.streaming_memory.capacity = Bytes(1000);
        // (IPUs of a replica, replicas, bytes of a buffer, the first IPU-Machine that overflows)
        for (n_ipus, n_replicas, bytes, expected) in [
            (1, 4, 250, None),
            (1, 4, 251, Some((0, 1004))),
            // The fifth replica lies on the second IPU-Machine.
            (1, 5, 250, None),
            (2, 8, 500, None),
            (4, 4, 1000, None),
            (4, 4, 1001, Some((0, 1001))),
        ] {
            let mut program = Program::new(n_ipus, n_replicas);
            program.remote_buffers.push(RemoteBuffer {
                name: "moments".into(),
                bytes: Bytes(bytes),
            });
            let expected = expected.map_or(Ok(()), |(ipu_machine, needed)| {
                Err(OutOfStreamingMemory {
                    ipu_machine,
                    available: Bytes(1000),
                    needed: Bytes(needed),
                })
            });
            let topology = Topology::new(&spec);
            let placement = ReplicaPlacement::new(&topology, n_replicas, n_ipus).unwrap();
            let found = check_streaming_memory(&program, &spec, &topology, placement);
            assert_eq!(found, expected, "{n_replicas} x {n_ipus}");
        }
    }
}
